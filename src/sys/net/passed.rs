//! Descriptors that a peer sends along (SCM_RIGHTS). Closing one may take as long as its sender likes: a TCP socket
//! that lingers blocks whoever closes it last. So the loop neither receives them nor drops them with a message or a
//! socket.

#[cfg(any(target_os = "linux", test))]
use crate::sys::check;
use crate::sys::check_size;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// From asm-generic/socket.h of Linux 6.16; the libc crate does not name it.
#[cfg(all(target_os = "linux", not(any(target_arch = "sparc", target_arch = "sparc64"))))]
const SO_PASSRIGHTS: libc::c_int = 83;
#[cfg(all(target_os = "linux", any(target_arch = "sparc", target_arch = "sparc64")))]
const SO_PASSRIGHTS: libc::c_int = 0x5c;

/// Has the kernel refuse what is sent along to a Unix socket, and to those that are made for connections to it from now
/// on. Without effect where the kernel cannot, which [`takes_descriptors`] tells.
#[cfg(target_os = "linux")]
pub fn refuse_descriptors(socket: BorrowedFd<'_>) {
    let off: libc::c_int = 0;
    let size = libc::socklen_t::try_from(size_of_val(&off)).unwrap_or(0);
    // SAFETY: the value is valid for its size during the call; the descriptor is open.
    unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, SO_PASSRIGHTS, (&raw const off).cast(), size) };
}

/// Whether somebody may have sent descriptors along to this Unix socket.
#[must_use]
#[cfg(target_os = "linux")]
pub fn takes_descriptors(socket: BorrowedFd<'_>) -> bool {
    let mut on: libc::c_int = 1;
    let mut size = libc::socklen_t::try_from(size_of_val(&on)).unwrap_or(0);
    let (to, len) = ((&raw mut on).cast(), &raw mut size);
    // SAFETY: `on` may be written to for its size during the call; the descriptor is open.
    let asked = check(unsafe { libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, SO_PASSRIGHTS, to, len) });
    asked.is_err() || on != 0
}

/// These systems cannot refuse them.
#[cfg(not(target_os = "linux"))]
pub fn refuse_descriptors(_: BorrowedFd<'_>) {}

/// Whether somebody may have sent descriptors along to this Unix socket.
#[must_use]
#[cfg(not(target_os = "linux"))]
pub fn takes_descriptors(_: BorrowedFd<'_>) -> bool {
    true
}

/// What waits to be read, which stays where it is: how many of the bytes that `buf` has room for, and whether
/// descriptors come with them, as far as the system says so.
///
/// # Errors
/// `WouldBlock` when nothing waits; what the system answers.
pub fn peek(socket: BorrowedFd<'_>, buf: &mut [u8]) -> io::Result<(usize, bool)> {
    receive(socket, buf, libc::MSG_PEEK)
}

/// Without room for descriptors the kernel says that they were there, and drops what it would have given.
fn receive(socket: BorrowedFd<'_>, buf: &mut [u8], flags: libc::c_int) -> io::Result<(usize, bool)> {
    let mut part = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
    // SAFETY: all fields of msghdr are integers and pointers, for which zero is a valid value.
    let mut message: libc::msghdr = unsafe { core::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    let flags = flags | libc::MSG_DONTWAIT;
    // SAFETY: the message points to a buffer that outlives the call, with its size.
    let length = check_size(unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) })?;
    Ok((length, message.msg_flags & libc::MSG_CTRUNC != 0))
}

/// Takes no more from a socket.
pub fn shut(socket: BorrowedFd<'_>) {
    // SAFETY: no pointers are passed; the descriptor is open. One that is not connected any more needs nothing.
    unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_RD) };
}

/// Drops all that waits to be read on a socket that was [`shut`], with the descriptors that came along: this may block.
pub fn drain(socket: BorrowedFd<'_>) {
    let mut buf = [0; 4096];
    let mut empty = 0;
    // An empty message looks like the end, so that it takes a few of them to believe it.
    while empty < 1024 {
        match receive(socket, &mut buf, 0) {
            Ok((0, false)) => empty += 1,
            Ok(_) => empty = 0,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
}

/// A TCP socket that keeps whoever closes it last waiting until the other one, which comes with it, is closed; at most
/// for half a minute.
#[cfg(test)]
pub(crate) fn lingering() -> (std::net::TcpStream, std::net::TcpStream) {
    use std::io::Write;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut slow = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (other, _) = listener.accept().unwrap();
    let linger = libc::linger { l_onoff: 1, l_linger: 30 };
    let size = libc::socklen_t::try_from(size_of_val(&linger)).unwrap();
    // SAFETY: the value is valid for its size during the call; the descriptor is open.
    let set = unsafe {
        libc::setsockopt(slow.as_raw_fd(), libc::SOL_SOCKET, libc::SO_LINGER, (&raw const linger).cast(), size)
    };
    check(set).unwrap();
    slow.set_nonblocking(true).unwrap();
    while slow.write(&[0; 65536]).is_ok() {}
    slow.set_nonblocking(false).unwrap();
    (slow, other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::chan::Chan;
    use crate::sys::net;
    use std::io::Read;
    use std::os::fd::{AsFd, OwnedFd};
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    #[test]
    fn what_a_listener_refuses_reaches_no_connection_of_it() {
        let path = std::env::temp_dir().join(format!("hob-passed-{}", std::process::id()));
        let listener = net::listen(&path, 0o600).unwrap();
        let able = !takes_descriptors(listener.as_fd());
        let client = net::connect(&path, Duration::from_secs(1)).unwrap();
        let (mut reader, writer) = io::pipe().unwrap();
        let sender = Chan::from_fd(client.into()).unwrap();
        // Before it is accepted and after.
        let early = sender.send(b"x", &[writer.as_fd()]);
        let stream = net::accept(listener.as_fd()).unwrap();
        let late = sender.send(b"y", &[writer.as_fd()]);
        drop(writer);
        if able {
            assert!(early.is_err() && late.is_err() && !takes_descriptors(stream.as_fd()));
            assert_eq!(reader.read(&mut [0]).unwrap(), 0, "nobody else has it");
        } else {
            eprintln!("SKIPPED: this kernel cannot refuse descriptors");
        }
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn descriptors_are_seen_before_they_are_received() {
        let (a, b) = UnixStream::pair().unwrap();
        let sender = Chan::from_fd(OwnedFd::from(a)).unwrap();
        let (mut reader, writer) = io::pipe().unwrap();
        let mut buf = [0; 64];
        assert_eq!(peek(b.as_fd(), &mut buf).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        sender.send(b"plain", &[]).unwrap();
        assert_eq!(peek(b.as_fd(), &mut buf).unwrap(), (5, false));
        sender.send(b"more", &[writer.as_fd()]).unwrap();
        drop(writer);
        let seen = peek(b.as_fd(), &mut buf).unwrap();
        if cfg!(target_os = "linux") {
            assert_eq!(seen, (9, true), "all that one read would take is looked at");
        }
        shut(b.as_fd());
        assert!(sender.send(b"late", &[]).is_err());
        drain(b.as_fd());
        assert_eq!(reader.read(&mut [0]).unwrap(), 0, "it was dropped with its message");
    }
}
