//! Pipes, and moving what lies in them to other pipes and to files without copying it. Nothing here waits for a reader
//! or writer.

use crate::sys::{check, check_size};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// A pipe for the output of a job: the read end does not block, the write end does, as programs expect of their stdout.
/// (`O_NONBLOCK` belongs to the open file description, which is another one for each end.)
///
/// # Errors
/// EMFILE and ENFILE when no descriptor is left.
pub fn output() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = new(libc::O_CLOEXEC)?;
    // SAFETY: F_SETFL on a descriptor that is owned here; no memory is passed.
    check(unsafe { libc::fcntl(read.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) })?;
    Ok((read, write))
}

/// A pipe both ends of which belong to hob: neither blocks. It is enlarged to `capacity` bytes where that is permitted.
///
/// # Errors
/// As for `output`.
pub fn inner(capacity: usize) -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = new(libc::O_CLOEXEC | libc::O_NONBLOCK)?;
    // A user's share of pipe memory may be used up; the usual size works too.
    let _ = set_capacity(&read, capacity);
    Ok((read, write))
}

fn new(flags: libc::c_int) -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [-1; 2];
    // SAFETY: `ends` has room for the two descriptors that the call writes.
    check(unsafe { libc::pipe2(ends.as_mut_ptr(), flags) })?;
    // SAFETY: the call succeeded, so both are open and owned by nobody else.
    Ok(unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) })
}

/// How many bytes a pipe can hold, in full pages.
///
/// # Errors
/// EBADF when it is no pipe.
pub fn capacity(pipe: &OwnedFd) -> io::Result<usize> {
    // SAFETY: F_GETPIPE_SZ takes no memory.
    let bytes = check(unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_GETPIPE_SZ) })?;
    usize::try_from(bytes).map_err(io::Error::other)
}

/// Changes how many bytes a pipe can hold, and answers what it became (the kernel rounds up).
///
/// # Errors
/// EPERM over the user's limit, EBUSY when more lies in it.
pub fn set_capacity(pipe: &OwnedFd, bytes: usize) -> io::Result<usize> {
    let bytes = libc::c_int::try_from(bytes).map_err(io::Error::other)?;
    // SAFETY: F_SETPIPE_SZ takes no memory.
    let bytes = check(unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_SETPIPE_SZ, bytes) })?;
    usize::try_from(bytes).map_err(io::Error::other)
}

/// How many bytes lie in a pipe.
///
/// # Errors
/// EBADF or ENOTTY when it is no pipe.
pub fn waiting(pipe: &OwnedFd) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int to `bytes`.
    check(unsafe { libc::ioctl(pipe.as_raw_fd(), libc::FIONREAD, &raw mut bytes) })?;
    usize::try_from(bytes).map_err(io::Error::other)
}

/// Moves up to `len` bytes from one pipe to another. Zero means that every write end is closed and nothing is left.
///
/// # Errors
/// `WouldBlock` when the one is empty or the other full.
pub fn shift(from: &OwnedFd, to: &OwnedFd, len: usize) -> io::Result<usize> {
    splice(from, to.as_raw_fd(), None, len)
}

/// Moves up to `len` bytes from a pipe to whatever is open there: another pipe, a socket, a terminal, a file at its own
/// place. What was moved has left the pipe, and only that, whenever this process is killed.
///
/// # Errors
/// `WouldBlock` when the pipe is empty or the other side takes nothing now; `InvalidInput` where the other side cannot
/// be moved to, which is known before anything is; what writing there answers.
pub fn pass_on(from: &OwnedFd, to: BorrowedFd<'_>, len: usize) -> io::Result<usize> {
    splice(from, to.as_raw_fd(), None, len)
}

/// Ends the reading side of a pipe: whoever writes to it gets SIGPIPE or EPIPE as soon as nobody else reads either. The
/// descriptor leads to an empty pipe at its end from now on. It must not be in a selector.
///
/// # Errors
/// EMFILE and ENFILE; then nothing was changed.
pub fn hang_up(read: &OwnedFd) -> io::Result<()> {
    let (ended, _) = new(libc::O_CLOEXEC | libc::O_NONBLOCK)?;
    // SAFETY: both are open; `read` stays owned by its owner and open.
    check(unsafe { libc::dup3(ended.as_raw_fd(), read.as_raw_fd(), libc::O_CLOEXEC) })?;
    Ok(())
}

/// Moves up to `len` bytes from a pipe to a file at `offset`. What was moved has left the pipe, and only that.
///
/// # Errors
/// `WouldBlock` when the pipe is empty; what writing to the file answers, such as ENOSPC, when nothing was moved.
pub fn store(from: &OwnedFd, file: BorrowedFd<'_>, offset: u64, len: usize) -> io::Result<usize> {
    splice(from, file.as_raw_fd(), Some(offset), len)
}

fn splice(from: &OwnedFd, to: libc::c_int, offset: Option<u64>, len: usize) -> io::Result<usize> {
    let mut offset = offset.map(libc::loff_t::try_from).transpose().map_err(io::Error::other)?;
    let at = offset.as_mut().map_or(core::ptr::null_mut(), core::ptr::from_mut);
    let flags = libc::SPLICE_F_MOVE | libc::SPLICE_F_NONBLOCK;
    // SAFETY: both descriptors are open for the length of the call, and `at` is null or points to `offset`.
    check_size(unsafe { libc::splice(from.as_raw_fd(), core::ptr::null_mut(), to, at, len, flags) })
}

/// Throws away up to `len` bytes. Zero means that every write end is closed and nothing is left.
///
/// # Errors
/// `WouldBlock` when the pipe is empty, whether or not its read end blocks.
pub fn discard(from: BorrowedFd<'_>, len: usize) -> io::Result<usize> {
    // Where no descriptor is left for it, what lies there waits.
    let null = File::options().write(true).open("/dev/null").map_err(|_| io::ErrorKind::WouldBlock)?;
    let flags = libc::SPLICE_F_NONBLOCK;
    let nowhere = core::ptr::null_mut();
    // SAFETY: both descriptors are open for the length of the call; no memory is passed.
    check_size(unsafe { libc::splice(from.as_raw_fd(), nowhere, null.as_raw_fd(), nowhere, len, flags) })
}

/// Copies up to `len` bytes from one pipe to another; they stay in the first.
///
/// # Errors
/// `WouldBlock` when the one is empty or the other full; `Unsupported` where the system cannot do this.
pub fn peek(from: &OwnedFd, to: &OwnedFd, len: usize) -> io::Result<usize> {
    // SAFETY: both descriptors are open for the length of the call; no memory is passed.
    check_size(unsafe { libc::tee(from.as_raw_fd(), to.as_raw_fd(), len, libc::SPLICE_F_NONBLOCK) })
}

/// Reads from a pipe that is held by its descriptor alone.
///
/// # Errors
/// `WouldBlock` when it is empty, and what read(2) answers.
pub fn read(from: &OwnedFd, to: &mut [u8]) -> io::Result<usize> {
    // SAFETY: `to` is writable for its length.
    check_size(unsafe { libc::read(from.as_raw_fd(), to.as_mut_ptr().cast(), to.len()) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;

    fn flags(fd: &OwnedFd) -> libc::c_int {
        // SAFETY: F_GETFL takes no memory.
        check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) }).unwrap()
    }

    #[test]
    fn only_the_read_end_of_an_output_pipe_is_non_blocking() {
        let (r, w) = output().unwrap();
        assert_ne!(flags(&r) & libc::O_NONBLOCK, 0);
        assert_eq!(flags(&w) & libc::O_NONBLOCK, 0);
        let (r, w) = inner(128 * 1024).unwrap();
        assert_ne!(flags(&r) & libc::O_NONBLOCK, 0);
        assert_ne!(flags(&w) & libc::O_NONBLOCK, 0);
    }

    #[test]
    fn bytes_are_peeked_moved_and_stored_exactly() {
        let path = std::env::temp_dir().join(format!("hob-pipe-{}", std::process::id()));
        let file = File::options().create_new(true).read(true).write(true).open(&path).unwrap();
        let (r, w) = output().unwrap();
        let (tr, tw) = inner(65536).unwrap();
        let (sr, sw) = inner(65536).unwrap();
        assert_eq!(shift(&r, &tw, 10).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        File::from(w.try_clone().unwrap()).write_all(b"hello world").unwrap();
        assert_eq!(waiting(&r).unwrap(), 11);
        assert_eq!(shift(&r, &tw, 100).unwrap(), 11);
        assert_eq!(peek(&tr, &sw, 5).unwrap(), 5);
        let mut seen = [0; 5];
        File::from(sr).read_exact(&mut seen).unwrap();
        assert_eq!(&seen, b"hello");
        assert_eq!(store(&tr, file.as_fd(), 3, 100).unwrap(), 11);
        assert_eq!(waiting(&tr).unwrap(), 0);
        assert_eq!(std::fs::read(&path).unwrap(), b"\0\0\0hello world");
        drop(w);
        assert_eq!(shift(&r, &tw, 10).unwrap(), 0, "the end");
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn bytes_are_passed_on_or_the_other_side_refuses_beforehand() {
        let path = std::env::temp_dir().join(format!("hob-pipe-on-{}", std::process::id()));
        let plain = File::options().create_new(true).write(true).open(&path).unwrap();
        let appended = File::options().append(true).open(&path).unwrap();
        let (r, w) = inner(65536).unwrap();
        let (r2, w2) = output().unwrap();
        for takes in [plain.as_fd(), w2.as_fd()] {
            assert_eq!(pass_on(&r, takes, 1).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        }
        assert_eq!(pass_on(&r, appended.as_fd(), 1).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        File::from(w.try_clone().unwrap()).write_all(b"hello world").unwrap();
        assert_eq!(pass_on(&r, plain.as_fd(), 6).unwrap(), 6);
        assert_eq!(pass_on(&r, w2.as_fd(), 100).unwrap(), 5);
        assert_eq!((waiting(&r).unwrap(), waiting(&r2).unwrap()), (0, 5));
        assert_eq!(std::fs::read(&path).unwrap(), b"hello ");
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn who_writes_to_a_pipe_that_was_hung_up_is_told() {
        let (r, w) = output().unwrap();
        let mut w = File::from(w);
        w.write_all(b"unheard").unwrap();
        hang_up(&r).unwrap();
        assert_eq!(w.write(b"more").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(read(&r, &mut [0; 9]).unwrap(), 0, "it is at its end");
    }

    #[test]
    fn capacity_can_be_asked_and_set() {
        let (r, _w) = output().unwrap();
        let was = capacity(&r).unwrap();
        assert_eq!(set_capacity(&r, was / 2).unwrap(), was / 2);
        assert_eq!(capacity(&r).unwrap(), was / 2);
    }
}
