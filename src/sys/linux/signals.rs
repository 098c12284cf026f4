//! Signals of the process itself as a readable descriptor, and the platform by its names of signals, on Linux.

use crate::sys::{check, check_size};
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// The names and numbers of this system, for readers of config and protocol.
static PLATFORM: crate::base::signal::Platform =
    crate::base::signal::Platform { zones: crate::sys::zone::read, ..crate::base::signal::Platform::linux() };

#[must_use]
pub fn platform() -> &'static crate::base::signal::Platform {
    &PLATFORM
}

/// Highest signal number.
pub const HIGHEST: i32 = 64;

pub const SIGABRT: i32 = libc::SIGABRT;
pub const SIGCHLD: i32 = libc::SIGCHLD;
pub const SIGHUP: i32 = libc::SIGHUP;
pub const SIGINT: i32 = libc::SIGINT;
pub const SIGKILL: i32 = libc::SIGKILL;
pub const SIGPIPE: i32 = libc::SIGPIPE;
pub const SIGUSR2: i32 = libc::SIGUSR2;
pub const SIGSTOP: i32 = libc::SIGSTOP;
pub const SIGTERM: i32 = libc::SIGTERM;
pub const SIGQUIT: i32 = libc::SIGQUIT;
pub const SIGCONT: i32 = libc::SIGCONT;
pub const SIGTTIN: i32 = libc::SIGTTIN;
pub const SIGTTOU: i32 = libc::SIGTTOU;

/// Signals of this process, blocked and read from a descriptor.
#[derive(Debug)]
pub struct Signals {
    fd: OwnedFd,
}

impl Signals {
    /// Blocks every signal in this thread and makes them readable, except what a fault of the process itself raises
    /// and the terminal's stop key. To be called before any thread is started; later threads inherit the blocking.
    ///
    /// # Errors
    /// EMFILE, ENFILE, ENOMEM.
    pub fn open() -> io::Result<Signals> {
        let mut set = all();
        for number in [
            libc::SIGSEGV,
            libc::SIGBUS,
            libc::SIGFPE,
            libc::SIGILL,
            libc::SIGTRAP,
            libc::SIGSYS,
            libc::SIGABRT,
            libc::SIGTSTP,
            libc::SIGCONT,
        ] {
            // SAFETY: `set` is an initialised set.
            unsafe { libc::sigdelset(&raw mut set, number) };
        }
        // SAFETY: `set` is valid; the old mask is not asked for.
        let failed = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
        if failed != 0 {
            return Err(io::Error::from_raw_os_error(failed));
        }
        // SAFETY: as above; the result is checked.
        let fd = check(unsafe { libc::signalfd(-1, &raw const set, libc::SFD_NONBLOCK | libc::SFD_CLOEXEC) })?;
        // SAFETY: the call succeeded, so the descriptor is open and owned by nobody else.
        Ok(Signals { fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// The next pending signal, or `None`. Signals of one number that came together count once.
    ///
    /// # Errors
    /// None on a sane system.
    pub fn next(&self) -> io::Result<Option<i32>> {
        // SAFETY: plain data, for which all zeros is valid.
        let mut info: libc::signalfd_siginfo = unsafe { mem::zeroed() };
        let size = size_of_val(&info);
        // SAFETY: `info` has room for one record of this size.
        match check_size(unsafe { libc::read(self.fd.as_raw_fd(), (&raw mut info).cast(), size) }) {
            Ok(n) if n == size => Ok(i32::try_from(info.ssi_signo).ok()),
            Ok(_) => Ok(None),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(e) => Err(e),
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Gives every signal that this process was started to ignore its default again, since children inherit being ignored
/// across their exec (nohup and some shells do that). SIGPIPE stays ignored here; a spawn resets it in the child.
pub fn reset_ignored() {
    for number in 1..=HIGHEST {
        // SAFETY: plain data, for which all zeros is valid.
        let mut now: libc::sigaction = unsafe { mem::zeroed() };
        // SAFETY: `now` is valid to write to; no new action is given.
        let known = unsafe { libc::sigaction(number, std::ptr::null(), &raw mut now) } == 0;
        if known && now.sa_sigaction == libc::SIG_IGN && number != libc::SIGPIPE {
            // SAFETY: the default action needs no handler.
            unsafe { libc::signal(number, libc::SIG_DFL) };
        }
    }
}

fn all() -> libc::sigset_t {
    // SAFETY: plain data, for which all zeros is valid; sigfillset initialises it.
    unsafe {
        let mut set: libc::sigset_t = mem::zeroed();
        libc::sigfillset(&raw mut set);
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_the_numbers_of_this_system() {
        let all = [
            ("ABRT", libc::SIGABRT),
            ("BUS", libc::SIGBUS),
            ("USR1", libc::SIGUSR1),
            ("USR2", libc::SIGUSR2),
            ("CHLD", libc::SIGCHLD),
            ("STOP", libc::SIGSTOP),
            ("CONT", libc::SIGCONT),
            ("IO", libc::SIGIO),
            ("SYS", libc::SIGSYS),
            ("WINCH", libc::SIGWINCH),
        ];
        for (name, number) in all {
            assert_eq!(platform().signal(name), Some(number), "{name}");
        }
    }

    #[test]
    fn a_blocked_signal_is_read_and_only_once() {
        // In a thread of its own, because the blocking belongs to the thread.
        std::thread::spawn(|| {
            let signals = Signals::open().unwrap();
            assert_eq!(signals.next().unwrap(), None);
            for _ in 0..2 {
                // SAFETY: the signal is blocked in this thread, to which it is sent.
                unsafe { libc::pthread_kill(libc::pthread_self(), libc::SIGUSR1) };
            }
            assert_eq!(signals.next().unwrap(), Some(libc::SIGUSR1));
            assert_eq!(signals.next().unwrap(), None);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn ignored_signals_become_default_again_except_the_broken_pipe() {
        // SAFETY: these signals are not used by the test program.
        let old = unsafe {
            libc::signal(libc::SIGUSR2, libc::SIG_IGN);
            libc::signal(libc::SIGPIPE, libc::SIG_IGN)
        };
        reset_ignored();
        // SAFETY: as above.
        unsafe {
            assert_eq!(libc::signal(libc::SIGUSR2, libc::SIG_DFL), libc::SIG_DFL);
            assert_eq!(libc::signal(libc::SIGPIPE, old), libc::SIG_IGN);
        }
    }
}
