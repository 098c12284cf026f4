//! What writing logs needs beside the files: their folders, and hob's own stdout and stderr without being held up.

use crate::sys::check;
use std::fs::DirBuilder;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::Duration;

/// Makes a folder and those above it with mode 0700. One that exists is left as it is.
///
/// # Errors
/// What mkdir(2) answers.
pub fn make_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Whether a write of up to 4096 bytes would go through within `limit` (at once when it is zero).
///
/// # Errors
/// `BrokenPipe` when the other side is gone.
pub fn writable(fd: BorrowedFd<'_>, limit: Duration) -> io::Result<bool> {
    let mut p = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
    let ms = libc::c_int::try_from(limit.as_millis()).unwrap_or(libc::c_int::MAX);
    // SAFETY: `p` is one pollfd, writable for the length of the call.
    match check(unsafe { libc::poll(&raw mut p, 1, ms) }) {
        Ok(0) => Ok(false),
        Ok(_) if p.revents & (libc::POLLERR | libc::POLLHUP | libc::POLLNVAL) != 0 => {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        Ok(_) => Ok(p.revents & libc::POLLOUT != 0),
        Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(false),
        Err(e) => Err(e),
    }
}

/// Waits until nobody reads this pipe or socket any more; for ever where it is neither.
pub fn until_unread(fd: BorrowedFd<'_>) {
    let mut p = libc::pollfd { fd: fd.as_raw_fd(), events: 0, revents: 0 };
    // SAFETY: `p` is one pollfd, writable for the length of the call.
    while !matches!(check(unsafe { libc::poll(&raw mut p, 1, -1) }), Ok(1..)) {}
}

/// Whether a write failed because there is no room now, where there may be some later.
#[must_use]
pub fn is_full(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT | libc::ENOBUFS))
}

/// Makes a write past a file size limit an error instead of a death (SIGXFSZ), and lets a background process write to
/// its terminal (SIGTTOU), in this thread and those it starts. They are blocked and not ignored, because a child would
/// inherit that; its mask is emptied at its start.
pub fn block_write_signals() {
    // SAFETY: an all-zero set is a valid value to initialise, and both signals exist.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in [libc::SIGXFSZ, libc::SIGTTOU] {
            libc::sigaddset(&raw mut set, signal);
        }
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn folders_are_made_for_this_user_alone() {
        let dir = std::env::temp_dir().join(format!("hob-logfile-{}", std::process::id()));
        make_folder(&dir.join("a/b")).unwrap();
        assert_eq!(std::fs::metadata(dir.join("a")).unwrap().permissions().mode() & 0o777, 0o700);
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_full_pipe_is_not_writable_and_a_broken_one_an_error() {
        let (r, w) = crate::sys::pipe::inner(4096).unwrap();
        assert!(writable(w.as_fd(), Duration::ZERO).unwrap());
        let mut file = File::from(w.try_clone().unwrap());
        while io::Write::write(&mut file, &[0; 4096]).is_ok() {}
        assert!(!writable(w.as_fd(), Duration::ZERO).unwrap());
        drop(r);
        assert!(writable(w.as_fd(), Duration::ZERO).is_err());
    }
}
