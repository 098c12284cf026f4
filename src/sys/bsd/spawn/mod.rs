//! Starting programs on BSD and macOS: everything is built beforehand, then fork, a few steps, and exec.
//!
//! The child itself writes its pid into the run table before anything else, and ends without executing its program
//! when its starter has died by then: so whenever the starter dies, a start either is on record or never happens.
//! What failed comes back through a pipe that the exec closes, and stands in the table for a later daemon. `child` is
//! what runs between fork and exec; `own` what a process sets for itself and its children inherit.

mod child;
pub mod own;

pub use crate::sys::plan::{Child, IoPriority, Plan, SpawnError, candidates, error_in};

use super::table::{RunTable, Slot, StartWords};
use super::wait;
use crate::sys::check;
use child::Job;
use std::fs::File;
use std::io::{self, Read};
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;
use std::sync::atomic::Ordering::Release;
use std::sync::atomic::{AtomicI32, AtomicU32};

/// There is one way to start a program here, so that this changes nothing.
#[doc(hidden)]
pub fn force_fallback() {}

/// Starts a child of this process and returns once it executes its program. With a slot, the start is on record in
/// the table before it executes anything; a slot of a failed start is left to the caller to release. May be called
/// from any thread.
///
/// # Errors
/// Any step that failed, with nothing left behind.
pub fn spawn(plan: &Plan, slot: Option<(&RunTable, Slot)>) -> Result<Child, SpawnError> {
    let failed = |e: io::Error| SpawnError::plain(e.raw_os_error().unwrap_or(libc::EIO));
    let (pid, errno, step, which) = (AtomicI32::new(0), AtomicI32::new(0), AtomicU32::new(0), AtomicU32::new(0));
    let own = StartWords { pid: &pid, errno: &errno, step: &step, which: &which };
    let words = slot.map_or(own, |(table, slot)| table.start_words(slot));
    let (report, write) = io::pipe().map_err(failed)?;
    let job = Job::new(plan, words, write.as_raw_fd()).map_err(failed)?;
    drop(write);
    let pid = fork(&job).map_err(failed)?;
    words.pid.store(pid, Release);
    // The child's end of the pipe must be its own alone, or its closing would not be seen.
    drop(job);
    let told = read_report(File::from(OwnedFd::from(report)));
    match told {
        None => {
            let pid = u32::try_from(pid).unwrap_or(0);
            Ok(Child { pid, pidfd: wait::pidfd_open(pid).ok() })
        }
        Some([errno, step, which]) => {
            wait::reap_ending(pid, slot);
            let number = |n: i32| u32::try_from(n).unwrap_or(0);
            Err(SpawnError::reported(errno, number(step), number(which), plan))
        }
    }
}

/// Errno, step and candidate; `None` once the program is executed.
fn read_report(mut pipe: File) -> Option<[i32; 3]> {
    let mut bytes = [0u8; 12];
    pipe.read_exact(&mut bytes).ok()?;
    let (words, _) = bytes.as_chunks::<4>();
    <[[u8; 4]; 3]>::try_from(words).ok().map(|w| w.map(i32::from_ne_bytes))
}

/// Forks with all signals blocked, because a handler must not run in the child. Answers the child's pid.
fn fork(job: &Job<'_>) -> io::Result<libc::pid_t> {
    let blocked = Blocked::new();
    // SAFETY: the child calls only what may be called after a fork among threads, and never returns.
    let pid = check(unsafe { libc::fork() })?;
    if pid == 0 {
        job.run();
    }
    drop(blocked);
    Ok(pid)
}

/// A copy of a descriptor at or above a number, closed on exec.
fn move_up(fd: libc::c_int, above: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: a plain call on a number; the result is checked.
    let fd = check(unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, above) })?;
    // SAFETY: the call succeeded, so the descriptor is open and owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// All signals are blocked in this thread as long as it lives.
struct Blocked {
    before: libc::sigset_t,
}

impl Blocked {
    fn new() -> Blocked {
        // SAFETY: plain data that the calls initialise.
        unsafe {
            let (mut all, mut before): (libc::sigset_t, libc::sigset_t) = (mem::zeroed(), mem::zeroed());
            libc::sigfillset(&raw mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
            Blocked { before }
        }
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // SAFETY: `before` was filled in by `new`.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, ptr::null_mut()) };
    }
}

#[cfg(test)]
mod tests;
