//! Threads that take no signals at all, for good or for a while.

use std::cell::Cell;
use std::mem;
use std::ptr;

thread_local! {
    static BLOCKED: Cell<bool> = const { Cell::new(false) };
}

/// Blocks all signals in this thread for the rest of its life, and in those it starts. For threads that do little but
/// start children, which has to be done with all signals blocked.
pub fn block_all() {
    // SAFETY: an all-zero set is a valid value to initialise; the calls get valid pointers.
    let result = unsafe {
        let mut all: libc::sigset_t = mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, ptr::null_mut())
    };
    BLOCKED.set(result == 0);
}

/// Whether `block_all` was called in this thread.
#[must_use]
pub fn all_blocked() -> bool {
    BLOCKED.get()
}

/// All signals are blocked in this thread until this is dropped, and for a program that it executes meanwhile.
pub struct Held {
    before: libc::sigset_t,
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Held")
    }
}

/// Blocks all signals for a while; what comes is pending.
#[must_use]
pub fn hold() -> Held {
    // SAFETY: an all-zero set is a valid value to initialise; the calls get valid pointers.
    unsafe {
        let (mut all, mut before): (libc::sigset_t, libc::sigset_t) = (mem::zeroed(), mem::zeroed());
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        Held { before }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // SAFETY: the set was filled by the system.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, ptr::null_mut()) };
    }
}

/// Lets every signal come to this thread, those first that are pending.
pub fn release_all() {
    // SAFETY: an all-zero set is a valid value to initialise; the calls get valid pointers.
    unsafe {
        let mut none: libc::sigset_t = mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocked(signal: libc::c_int) -> bool {
        // SAFETY: no new mask is given, and the present one is written to a valid place.
        unsafe {
            let mut now: libc::sigset_t = mem::zeroed();
            libc::pthread_sigmask(libc::SIG_SETMASK, ptr::null(), &raw mut now);
            libc::sigismember(&raw const now, signal) == 1
        }
    }

    #[test]
    fn what_was_blocked_before_is_blocked_after() {
        release_all();
        let outer = hold();
        let inner = hold();
        drop(inner);
        assert!(blocked(libc::SIGTERM) && blocked(libc::SIGCHLD));
        drop(outer);
        assert!(!blocked(libc::SIGTERM) && !blocked(libc::SIGCHLD));
    }
}
