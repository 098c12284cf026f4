//! Pipes without splice(2): what is moved passes through memory, so a daemon killed in the middle of a move may lose a
//! piece.

use crate::sys::{check, check_size};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

/// Moved at once: an empty pipe takes this much even where pipe memory is short.
const PIECE: usize = 4096;
/// Capacity of a pipe, which cannot be asked or set.
const CAPACITY: usize = 16 * 1024;

/// A pipe for the output of a job: the read end does not block, the write end does, as programs expect of their stdout.
///
/// # Errors
/// EMFILE and ENFILE when no descriptor is left.
pub fn output() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = new()?;
    unblock(&read)?;
    Ok((read, write))
}

/// A pipe both ends of which belong to hob: neither blocks. Its capacity is the system's.
///
/// # Errors
/// As for `output`.
pub fn inner(_capacity: usize) -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = new()?;
    unblock(&read)?;
    unblock(&write)?;
    Ok((read, write))
}

fn new() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [-1; 2];
    // SAFETY: `ends` has room for the two descriptors that the call writes.
    check(unsafe { libc::pipe(ends.as_mut_ptr()) })?;
    // SAFETY: the call succeeded, so both are open and owned by nobody else.
    let pair = unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) };
    for end in ends {
        // SAFETY: F_SETFD on a descriptor that is owned here; no memory is passed.
        check(unsafe { libc::fcntl(end, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    }
    Ok(pair)
}

fn unblock(end: &OwnedFd) -> io::Result<()> {
    // SAFETY: F_SETFL on an open descriptor; no memory is passed.
    check(unsafe { libc::fcntl(end.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) }).map(drop)
}

/// How many bytes a pipe can hold.
///
/// # Errors
/// None here.
pub fn capacity(_pipe: &OwnedFd) -> io::Result<usize> {
    Ok(CAPACITY)
}

/// Changes how many bytes a pipe can hold.
///
/// # Errors
/// Always `Unsupported` here.
pub fn set_capacity(_pipe: &OwnedFd, _bytes: usize) -> io::Result<usize> {
    Err(io::ErrorKind::Unsupported.into())
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

/// Moves up to `len` bytes from one pipe to another, which is empty. Zero means that every write end is closed and
/// nothing is left.
///
/// # Errors
/// `WouldBlock` when the first is empty.
pub fn shift(from: &OwnedFd, to: &OwnedFd, len: usize) -> io::Result<usize> {
    let mut bytes = [0; PIECE];
    let n = read(from, &mut bytes[..len.min(PIECE)])?;
    let mut done = 0;
    while done < n {
        // SAFETY: the bytes from `done` to `n` are readable.
        done += check_size(unsafe { libc::write(to.as_raw_fd(), bytes[done..n].as_ptr().cast(), n - done) })?;
    }
    Ok(n)
}

/// Moves up to `len` bytes from a pipe to a file at `offset`.
///
/// # Errors
/// `WouldBlock` when the pipe is empty; what writing to the file answers: then a piece has left the pipe in vain.
pub fn store(from: &OwnedFd, file: BorrowedFd<'_>, offset: u64, len: usize) -> io::Result<usize> {
    let mut bytes = [0; PIECE];
    let n = read(from, &mut bytes[..len.min(PIECE)])?;
    File::from(file.try_clone_to_owned()?).write_all_at(&bytes[..n], offset)?;
    Ok(n)
}

/// Copies bytes from one pipe to another while they stay in the first.
///
/// # Errors
/// Always `Unsupported` here.
pub fn peek(_from: &OwnedFd, _to: &OwnedFd, _len: usize) -> io::Result<usize> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Reads from a pipe that is held by its descriptor alone.
///
/// # Errors
/// `WouldBlock` when it is empty, and what read(2) answers.
pub fn read(from: &OwnedFd, to: &mut [u8]) -> io::Result<usize> {
    // SAFETY: `to` is writable for its length.
    check_size(unsafe { libc::read(from.as_raw_fd(), to.as_mut_ptr().cast(), to.len()) })
}
