//! Tells at once when the wall clock is set: a timer that ends long after everybody, and that the kernel cancels then.

use crate::sys::check;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// The descriptor becomes readable when the wall clock is set, and when the machine wakes up.
#[derive(Debug)]
pub struct WallTimer(OwnedFd);

impl WallTimer {
    /// `None` where the system tells nobody.
    ///
    /// # Errors
    /// EMFILE, ENFILE and ENOMEM.
    pub fn create() -> io::Result<Option<WallTimer>> {
        let flags = libc::TFD_CLOEXEC | libc::TFD_NONBLOCK;
        // SAFETY: the call takes numbers alone; the result is checked.
        let fd = check(unsafe { libc::timerfd_create(libc::CLOCK_REALTIME, flags) })?;
        // SAFETY: the call succeeded, so the descriptor is open and owned by nobody else.
        let timer = WallTimer(unsafe { OwnedFd::from_raw_fd(fd) });
        timer.arm()?;
        Ok(Some(timer))
    }

    #[must_use]
    pub fn fd(&self) -> i32 {
        self.0.as_raw_fd()
    }

    fn arm(&self) -> io::Result<()> {
        let zero = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // On musl the name is deprecated, as its width will change there.
        #[allow(deprecated)]
        let until = libc::timespec { tv_sec: libc::time_t::MAX, tv_nsec: 0 };
        let spec = libc::itimerspec { it_interval: zero, it_value: until };
        let flags = libc::TFD_TIMER_ABSTIME | libc::TFD_TIMER_CANCEL_ON_SET;
        // SAFETY: the descriptor is open, `spec` lives for the length of the call, and no old value is asked for.
        check(unsafe { libc::timerfd_settime(self.0.as_raw_fd(), flags, &raw const spec, core::ptr::null_mut()) })?;
        Ok(())
    }

    /// Takes note of what it told, so that it tells of the next time.
    ///
    /// # Errors
    /// What arming it again answers.
    pub fn again(&self) -> io::Result<()> {
        let mut count = [0_u8; 8];
        // SAFETY: the buffer has the eight bytes that the call may write. What it answers does not matter: ECANCELED
        // is what is expected, and EAGAIN means that nothing was told.
        unsafe { libc::read(self.0.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
        self.arm()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_silent_while_nobody_sets_the_clock_and_can_be_armed_again() {
        let timer = WallTimer::create().unwrap().unwrap();
        let mut poll = libc::pollfd { fd: timer.fd(), events: libc::POLLIN, revents: 0 };
        for _ in 0..2 {
            // SAFETY: one live structure, and its count.
            assert_eq!(unsafe { libc::poll(&raw mut poll, 1, 0) }, 0);
            timer.again().unwrap();
        }
    }
}
