//! Threads that take no signals at all.

use std::cell::Cell;

thread_local! {
    static BLOCKED: Cell<bool> = const { Cell::new(false) };
}

/// Blocks all signals in this thread for the rest of its life, and in those it starts. For threads that do little but
/// start children, which has to be done with all signals blocked.
pub fn block_all() {
    // SAFETY: an all-zero set is a valid value to initialise; the calls get valid pointers.
    let result = unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut())
    };
    BLOCKED.set(result == 0);
}

/// Whether `block_all` was called in this thread.
#[must_use]
pub fn all_blocked() -> bool {
    BLOCKED.get()
}
