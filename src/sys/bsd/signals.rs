//! Signals of the process itself as a readable descriptor, and the platform by its names of signals, on BSD and macOS.

use crate::sys::{check_size, mask};
use signal_hook::low_level;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Release};
use std::sync::atomic::{AtomicI32, AtomicU32};

/// The names and numbers of this system, for readers of config and protocol.
static PLATFORM: crate::base::signal::Platform =
    crate::base::signal::Platform { zones: crate::sys::zone::read, ..crate::base::signal::Platform::bsd() };

#[must_use]
pub fn platform() -> &'static crate::base::signal::Platform {
    &PLATFORM
}

/// Highest signal number that hob knows; what some of these systems have beyond is for threads and real time.
pub const HIGHEST: i32 = 31;

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

/// Bit n: signal n + 1 has arrived and was not yet taken.
static ARRIVED: AtomicU32 = AtomicU32::new(0);
/// The end of the pipe that handlers write to.
static WAKE: AtomicI32 = AtomicI32::new(-1);

/// Signals of this process, caught by handlers and read from a descriptor. Handlers belong to the process, so that
/// there is one place for what has arrived.
#[derive(Debug)]
pub struct Signals {
    read: OwnedFd,
    write: OwnedFd,
}

impl Signals {
    /// Catches every signal, except what a fault of the process itself raises and the terminal's stop key. To be
    /// called once.
    ///
    /// # Errors
    /// EMFILE, ENFILE, ENOMEM.
    pub fn open() -> io::Result<Signals> {
        let (read, write) = super::pipe::inner(0)?;
        WAKE.store(write.as_raw_fd(), Release);
        for number in 1..=HIGHEST {
            if !can_be_caught(number) {
                continue;
            }
            // SAFETY: the action sets a bit and writes one byte, both of which a handler may do; errno is restored by
            // the registry.
            unsafe { low_level::register(number, move || arrived(number)) }?;
        }
        // A keeper that was renewed begins with all of them blocked.
        mask::release_all();
        Ok(Signals { read, write })
    }

    /// The next signal that has arrived, or `None`. Signals of one number that came together count once.
    ///
    /// # Errors
    /// None on a sane system.
    pub fn next(&self) -> io::Result<Option<i32>> {
        // Emptied first: a signal that comes from now on makes it readable again.
        let mut bytes = [0u8; 64];
        loop {
            // SAFETY: `bytes` is writable for its length.
            let got = unsafe { libc::read(self.read.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len()) };
            match check_size(got) {
                Ok(n) if n == bytes.len() => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() != io::ErrorKind::WouldBlock => return Err(e),
                _ => break,
            }
        }
        let all = ARRIVED.load(Acquire);
        if all == 0 {
            return Ok(None);
        }
        let first = all & all.wrapping_neg();
        let left = ARRIVED.fetch_and(!first, AcqRel) & !first;
        if left != 0 {
            // The pipe is empty but more is to be told.
            wake();
        }
        Ok(i32::try_from(first.trailing_zeros() + 1).ok())
    }
}

impl Drop for Signals {
    /// Handlers stay, but must not write to whatever gets this number next.
    fn drop(&mut self) {
        let _ = WAKE.compare_exchange(self.write.as_raw_fd(), -1, AcqRel, Acquire);
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.read.as_fd()
    }
}

fn can_be_caught(number: i32) -> bool {
    !matches!(
        number,
        libc::SIGKILL
            | libc::SIGSTOP
            | libc::SIGSEGV
            | libc::SIGBUS
            | libc::SIGFPE
            | libc::SIGILL
            | libc::SIGTRAP
            | libc::SIGEMT
            | libc::SIGSYS
            | libc::SIGABRT
            | libc::SIGTSTP
            | libc::SIGCONT
    )
}

fn arrived(number: i32) {
    if let Ok(at) = u32::try_from(number - 1) {
        ARRIVED.fetch_or(1 << at, AcqRel);
        wake();
    }
}

/// A full pipe wakes as well as one more byte would.
fn wake() {
    // SAFETY: one byte is readable for the call.
    unsafe { libc::write(WAKE.load(Acquire), [0u8].as_ptr().cast(), 1) };
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
    fn signals_are_read_one_by_one_and_each_once() {
        let signals = Signals::open().unwrap();
        for number in [libc::SIGUSR2, libc::SIGUSR1, libc::SIGUSR2] {
            // SAFETY: the signal has a handler.
            unsafe { libc::raise(number) };
        }
        let mut found: Vec<i32> = std::iter::from_fn(|| signals.next().unwrap()).collect();
        found.sort_unstable();
        let mut expected = [libc::SIGUSR1, libc::SIGUSR2];
        expected.sort_unstable();
        assert_eq!(found, expected);
    }
}
