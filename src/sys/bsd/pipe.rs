//! Pipes, and moving what lies in them to other pipes and to files. Nothing here waits for a reader or writer.
//!
//! These systems cannot move bytes without copying them, nor look at what lies in a pipe. So the pipes that belong to
//! hob alone are pairs of sockets, which can be looked into. A daemon that is killed in the wrong moment still does
//! harm: at most `CHUNK` bytes are lost that it had just taken out of a job's pipe, and at most `STORED` bytes come
//! twice that it had just written to a file.

use crate::sys::{check, check_size};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

/// A stream socket counts as writable when so much fits, whatever the size of its buffers.
const CHUNK: usize = 2048;
/// Bytes written to a file at once.
const STORED: usize = 4096;

/// A pipe for the output of a job: the read end does not block, the write end does, as programs expect of their
/// stdout.
///
/// # Errors
/// EMFILE and ENFILE when no descriptor is left.
pub fn output() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = io::pipe()?;
    let (read, write) = (OwnedFd::from(read), OwnedFd::from(write));
    // SAFETY: F_SETFL on a descriptor that is owned here; no memory is passed.
    check(unsafe { libc::fcntl(read.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) })?;
    Ok((read, write))
}

/// What serves as a pipe both ends of which belong to hob: neither blocks. It is enlarged to `capacity` bytes where
/// that is permitted.
///
/// # Errors
/// As for `output`.
pub fn inner(capacity: usize) -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = UnixStream::pair()?;
    read.set_nonblocking(true)?;
    write.set_nonblocking(true)?;
    let (read, write) = (OwnedFd::from(read), OwnedFd::from(write));
    // The system has a limit of its own; the usual size works too.
    let mut bytes = capacity;
    while bytes > STORED && enlarge(&read, &write, bytes).is_err() {
        bytes /= 2;
    }
    Ok((read, write))
}

fn enlarge(read: &OwnedFd, write: &OwnedFd, bytes: usize) -> io::Result<()> {
    let bytes = libc::c_int::try_from(bytes).map_err(io::Error::other)?;
    let size = libc::socklen_t::try_from(size_of_val(&bytes)).map_err(io::Error::other)?;
    for (fd, option) in [(write, libc::SO_SNDBUF), (read, libc::SO_RCVBUF)] {
        let value = (&raw const bytes).cast();
        // SAFETY: pointer and size describe `bytes`, which outlives the call.
        check(unsafe { libc::setsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, option, value, size) })?;
    }
    Ok(())
}

/// How many bytes a pipe can hold, which these systems do not tell.
///
/// # Errors
/// Always `Unsupported`.
pub fn capacity(_: &OwnedFd) -> io::Result<usize> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "this system does not tell how much a pipe holds"))
}

/// Changes how many bytes a pipe can hold, which these systems decide themselves.
///
/// # Errors
/// Always `Unsupported`.
pub fn set_capacity(_: &OwnedFd, _: usize) -> io::Result<usize> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "this system sizes pipes by itself"))
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

/// Moves up to `len` bytes from one pipe to an inner one. Zero means that every write end is closed and nothing is
/// left.
///
/// # Errors
/// `WouldBlock` when the one is empty or the other full.
pub fn shift(from: &OwnedFd, to: &OwnedFd, len: usize) -> io::Result<usize> {
    let mut buffer = [0u8; CHUNK];
    let mut moved = 0;
    while moved < len {
        // What was read could not be put back, so room is made sure of first.
        let step = has_room(to).and_then(|room| {
            let want = CHUNK.min(len - moved);
            if room { read(from, &mut buffer[..want]) } else { Err(io::ErrorKind::WouldBlock.into()) }
        });
        match step {
            Ok(0) => break,
            Ok(n) => {
                write_all(to, &buffer[..n])?;
                moved += n;
            }
            Err(_) if moved > 0 => break,
            Err(e) => return Err(e),
        }
    }
    Ok(moved)
}

fn has_room(to: &OwnedFd) -> io::Result<bool> {
    let mut p = libc::pollfd { fd: to.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
    // SAFETY: `p` is one pollfd, writable for the length of the call, which does not wait.
    check(unsafe { libc::poll(&raw mut p, 1, 0) })?;
    Ok(p.revents & libc::POLLOUT != 0)
}

fn write_all(to: &OwnedFd, bytes: &[u8]) -> io::Result<()> {
    match write(to, bytes) {
        Ok(n) if n == bytes.len() => Ok(()),
        other => {
            let lost = bytes.len() - other.unwrap_or(0);
            Err(io::Error::other(format!("{lost} bytes were lost between two pipes")))
        }
    }
}

fn write(to: &OwnedFd, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: `bytes` is readable for its length.
    check_size(unsafe { libc::write(to.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) })
}

/// These systems can only read and write, and what was read when this process is killed is lost.
///
/// # Errors
/// Always `Unsupported`.
pub fn pass_on(_: &OwnedFd, _: BorrowedFd<'_>, _: usize) -> io::Result<usize> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Ends the reading side of a pipe: whoever writes to it gets SIGPIPE or EPIPE as soon as nobody else reads either. The
/// descriptor leads to an empty pipe at its end from now on. It must not be in a selector.
///
/// # Errors
/// EMFILE and ENFILE; then nothing was changed.
pub fn hang_up(read: &OwnedFd) -> io::Result<()> {
    let (ended, _) = output()?;
    // SAFETY: both are open; `read` stays owned by its owner and open.
    check(unsafe { libc::dup2(ended.as_raw_fd(), read.as_raw_fd()) })?;
    // SAFETY: F_SETFD on a descriptor that is owned by the caller; no memory is passed.
    check(unsafe { libc::fcntl(read.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) })?;
    Ok(())
}

/// Moves up to `len` bytes from an inner pipe to a file at `offset`. What was written leaves the pipe, and only that.
///
/// # Errors
/// `WouldBlock` when the pipe is empty; what writing to the file answers, such as ENOSPC, when nothing was moved.
pub fn store(from: &OwnedFd, file: BorrowedFd<'_>, offset: u64, len: usize) -> io::Result<usize> {
    let mut buffer = [0u8; STORED];
    let mut moved = 0;
    while moved < len {
        let want = STORED.min(len - moved);
        let at = offset.saturating_add(u64::try_from(moved).unwrap_or(u64::MAX));
        let step = look(from, &mut buffer[..want]).and_then(|n| Ok((n, write_at(file, &buffer[..n], at)?)));
        match step {
            Ok((0, _)) => break,
            Ok((seen, written)) => {
                forget(from, written)?;
                moved += written;
                if written < seen {
                    break;
                }
            }
            Err(_) if moved > 0 => break,
            Err(e) => return Err(e),
        }
    }
    Ok(moved)
}

fn write_at(file: BorrowedFd<'_>, bytes: &[u8], offset: u64) -> io::Result<usize> {
    let offset = libc::off_t::try_from(offset).map_err(io::Error::other)?;
    // SAFETY: `bytes` is readable for its length.
    check_size(unsafe { libc::pwrite(file.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), offset) })
}

/// Takes `len` bytes that were looked at out of an inner pipe.
fn forget(from: &OwnedFd, len: usize) -> io::Result<()> {
    let mut buffer = [0u8; STORED];
    let mut left = len;
    while left > 0 {
        let want = left.min(STORED);
        left -= read(from, &mut buffer[..want])?;
    }
    Ok(())
}

/// Throws away up to `len` bytes. Zero means that every write end is closed and nothing is left.
///
/// # Errors
/// `WouldBlock` when the pipe is empty. One whose read end blocks is waited for where another reader takes what lies
/// in it between a look and a read, which no call of these systems prevents.
pub fn discard(from: BorrowedFd<'_>, len: usize) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int to `bytes`.
    check(unsafe { libc::ioctl(from.as_raw_fd(), libc::FIONREAD, &raw mut bytes) })?;
    let waiting = usize::try_from(bytes).map_err(io::Error::other)?;
    let mut p = libc::pollfd { fd: from.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    if waiting == 0 {
        // SAFETY: `p` is one pollfd, writable for the length of the call, which does not wait.
        check(unsafe { libc::poll(&raw mut p, 1, 0) })?;
        return if p.revents & libc::POLLHUP == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(0) };
    }
    let mut buffer = vec![0u8; waiting.min(len)];
    // SAFETY: `buffer` is writable for its length.
    check_size(unsafe { libc::read(from.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) })
}

/// Copies up to `len` bytes from one inner pipe to another; they stay in the first.
///
/// # Errors
/// `WouldBlock` when the one is empty or the other full.
pub fn peek(from: &OwnedFd, to: &OwnedFd, len: usize) -> io::Result<usize> {
    let mut bytes = vec![0u8; len.min(waiting(from)?)];
    let seen = look(from, &mut bytes)?;
    write(to, &bytes[..seen])
}

/// Copies what lies in an inner pipe, without taking it.
fn look(from: &OwnedFd, to: &mut [u8]) -> io::Result<usize> {
    receive(from.as_raw_fd(), to, libc::MSG_PEEK | libc::MSG_DONTWAIT)
}

fn receive(from: RawFd, to: &mut [u8], flags: libc::c_int) -> io::Result<usize> {
    // SAFETY: `to` is writable for its length.
    check_size(unsafe { libc::recv(from, to.as_mut_ptr().cast(), to.len(), flags) })
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
    use std::fs::File;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;

    #[test]
    fn bytes_are_peeked_moved_and_stored_exactly() {
        let (jr, jw) = output().unwrap();
        let (tr, tw) = inner(1 << 20).unwrap();
        let (lr, lw) = inner(1 << 20).unwrap();
        File::from(jw.try_clone().unwrap()).write_all(b"one\ntwo\n").unwrap();
        assert_eq!(waiting(&jr).unwrap(), 8);
        assert_eq!(shift(&jr, &tw, 6).unwrap(), 6);
        assert_eq!(peek(&tr, &lw, 100).unwrap(), 6);
        let mut seen = [0; 6];
        File::from(lr).read_exact(&mut seen).unwrap();
        assert_eq!(&seen, b"one\ntw");
        let path = std::env::temp_dir().join(format!("hob-pipe-{}", std::process::id()));
        let file = File::create_new(&path).unwrap();
        assert_eq!(store(&tr, file.as_fd(), 0, 4).unwrap(), 4);
        assert_eq!(waiting(&tr).unwrap(), 2);
        assert_eq!(shift(&jr, &tw, 100).unwrap(), 2);
        assert_eq!(store(&tr, file.as_fd(), 4, 100).unwrap(), 4);
        assert_eq!(store(&tr, file.as_fd(), 8, 100).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(std::fs::read(&path).unwrap(), b"one\ntwo\n");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(shift(&jr, &tw, 100).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(jw);
        assert_eq!(shift(&jr, &tw, 100).unwrap(), 0, "every write end is closed");
    }

    #[test]
    fn a_full_inner_pipe_takes_nothing_that_it_cannot_hold() {
        let (jr, jw) = output().unwrap();
        let (tr, tw) = inner(STORED).unwrap();
        let writer = std::thread::spawn(move || {
            let text: Vec<u8> = (0..1_000_000u32).flat_map(u32::to_le_bytes).collect();
            File::from(jw).write_all(&text).unwrap();
        });
        let mut all = Vec::new();
        let mut part = vec![0; 777];
        loop {
            match shift(&jr, &tw, 1 << 20) {
                Ok(0) => break,
                Ok(_) => {}
                Err(e) => assert_eq!(e.kind(), io::ErrorKind::WouldBlock),
            }
            while let Ok(n) = read(&tr, &mut part) {
                all.extend_from_slice(&part[..n]);
            }
        }
        writer.join().unwrap();
        assert_eq!(all.len(), 4_000_000);
        assert!((0..1_000_000u32).zip(all.chunks(4)).all(|(i, bytes)| i.to_le_bytes() == bytes));
    }

    #[test]
    fn what_a_file_refuses_stays() {
        let (tr, tw) = inner(1 << 16).unwrap();
        write_all(&tw, b"text").unwrap();
        let closed = File::open("/dev/null").unwrap();
        assert!(store(&tr, closed.as_fd(), 0, 4).is_err(), "it is open for reading alone");
        assert_eq!(waiting(&tr).unwrap(), 4);
    }
}
