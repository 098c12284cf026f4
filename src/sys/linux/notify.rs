//! The receiving side of sd_notify(3): datagrams with the kernel's word on who sent them.

use crate::sys::net::serve::{self, FileId, Kind, Rights};
use crate::sys::{check, check_size};
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;

/// Longest datagram that is read whole; sd_notify's own receiver has the same limit.
pub const DATAGRAM_MAX: usize = 4096;

/// One datagram.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Datagram {
    pub bytes: Vec<u8>,
    /// The sender as seen from here; `None` when it is outside of our pid namespace.
    pub pid: Option<u32>,
    /// Its user, `None` where the pid is.
    pub uid: Option<u32>,
    /// It was longer than what is read, so that its end is unknown.
    pub cut: bool,
}

/// Makes a bound, non-blocking socket at a path, for this user alone. Answers the file that was made as well.
///
/// # Errors
/// As for `serve::unix`.
pub fn bind(path: &Path) -> io::Result<(OwnedFd, Option<FileId>)> {
    let rights = Rights { mode: 0o600, uid: None, gid: None };
    let (socket, file) = serve::unix(Kind::Datagram, path, rights, None)?;
    Ok((prepare(socket.into())?, file))
}

/// The same with a name that is no file.
///
/// # Errors
/// EADDRINUSE when the name is taken.
pub fn bind_abstract(name: &str) -> io::Result<OwnedFd> {
    prepare(UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name)?)?)
}

fn prepare(socket: UnixDatagram) -> io::Result<OwnedFd> {
    socket.set_nonblocking(true)?;
    let on: libc::c_int = 1;
    let size = libc::socklen_t::try_from(size_of_val(&on)).unwrap_or(0);
    // SAFETY: pointer and size describe `on`, which outlives the call.
    check(unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PASSCRED, (&raw const on).cast(), size)
    })?;
    Ok(socket.into())
}

/// Room for the credentials and for more descriptors than one message can carry.
const CONTROL_WORDS: usize = 256;
/// Room for the credentials alone.
const PEEKED: usize = {
    assert!(size_of::<libc::ucred>() == 12);
    // SAFETY: it only computes.
    unsafe { libc::CMSG_SPACE(12) as usize }
};

/// Reads the first datagram and leaves it in the socket, with the descriptors that came along; `None` when there is
/// none.
///
/// # Errors
/// What recvmsg answers.
pub fn peek(socket: BorrowedFd<'_>) -> io::Result<Option<Datagram>> {
    Ok(receive(socket, libc::MSG_PEEK, PEEKED)?.map(|(datagram, _)| datagram))
}

/// Takes the first datagram out of the socket, with the descriptors that came along. To close them is what answers
/// `BARRIER=1`, and may take as long as their sender likes.
///
/// # Errors
/// What recvmsg answers.
pub fn take(socket: BorrowedFd<'_>) -> io::Result<Option<(Datagram, Vec<OwnedFd>)>> {
    receive(socket, 0, CONTROL_WORDS * size_of::<u64>())
}

fn receive(socket: BorrowedFd<'_>, flags: libc::c_int, room: usize) -> io::Result<Option<(Datagram, Vec<OwnedFd>)>> {
    let mut bytes = vec![0u8; DATAGRAM_MAX];
    let mut control = [0u64; CONTROL_WORDS];
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: all fields of msghdr are integers and pointers, for which zero is a valid value.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    // The type of this field differs between C libraries.
    #[allow(clippy::useless_conversion)]
    {
        message.msg_controllen = room.min(size_of_val(&control)).try_into().unwrap_or(0);
    }
    let flags = flags | libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    let length = loop {
        // SAFETY: the message points to a buffer and to control space that outlive the call, with their sizes.
        match check_size(unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) }) {
            Ok(n) => break n,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    };
    bytes.truncate(length);
    // SAFETY: the kernel has filled the message, and `control` is alive.
    let (from, fds) = unsafe { sender(&message) };
    let (pid, uid) = from.unzip();
    Ok(Some((Datagram { bytes, pid, uid, cut: message.msg_flags & libc::MSG_TRUNC != 0 }, fds)))
}

/// Pid and user in the credentials, and the descriptors that came along.
///
/// # Safety
/// `message` was filled by recvmsg and its control space is alive.
unsafe fn sender(message: &libc::msghdr) -> (Option<(u32, u32)>, Vec<OwnedFd>) {
    let (mut from, mut fds) = (None, Vec::new());
    // SAFETY: the message is as recvmsg left it.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !header.is_null() {
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR answer null or a whole header within the control space.
        let (level, kind, length) = unsafe { ((*header).cmsg_level, (*header).cmsg_type, (*header).cmsg_len) };
        // SAFETY: the same header.
        let data = unsafe { libc::CMSG_DATA(header) };
        if level == libc::SOL_SOCKET && kind == libc::SCM_CREDENTIALS {
            // SAFETY: the kernel puts a whole ucred here; it need not be aligned.
            let ucred = unsafe { data.cast::<libc::ucred>().read_unaligned() };
            from = u32::try_from(ucred.pid).ok().filter(|p| *p != 0).map(|pid| (pid, ucred.uid));
        } else if level == libc::SOL_SOCKET && kind == libc::SCM_RIGHTS {
            // The type of this field differs between C libraries.
            #[allow(clippy::useless_conversion)]
            let length = usize::try_from(length).unwrap_or(0);
            // SAFETY: both point into the same header and its data.
            let head = usize::try_from(unsafe { data.offset_from(header.cast()) }).unwrap_or(length);
            for at in 0..length.saturating_sub(head) / size_of::<RawFd>() {
                // SAFETY: the kernel put this many descriptors here, each a new one that nobody else owns.
                fds.push(unsafe { OwnedFd::from_raw_fd(data.cast::<RawFd>().add(at).read_unaligned()) });
            }
        }
        // SAFETY: the message and the header are those of this walk.
        header = unsafe { libc::CMSG_NXTHDR(message, header) };
    }
    (from, fds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_datagram_is_seen_twice_by_peek_and_once_by_take() {
        let name = format!("hob-test-peek-{}", std::process::id());
        let socket = bind_abstract(&name).unwrap();
        assert_eq!(peek(socket.as_fd()).unwrap(), None);
        let sender = UnixDatagram::unbound().unwrap();
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        sender.send_to_addr(b"READY=1", &address).unwrap();
        sender.send_to_addr(&[b'x'; DATAGRAM_MAX + 1], &address).unwrap();
        let (pid, uid) = (Some(std::process::id()), Some(crate::sys::user::own().0));
        let first = Datagram { bytes: b"READY=1".to_vec(), pid, uid, cut: false };
        assert_eq!(peek(socket.as_fd()).unwrap().unwrap(), first);
        assert_eq!(peek(socket.as_fd()).unwrap().unwrap(), first);
        assert_eq!(take(socket.as_fd()).unwrap().unwrap().0, first);
        let (second, _) = take(socket.as_fd()).unwrap().unwrap();
        assert!(second.cut && second.bytes.len() == DATAGRAM_MAX);
        assert!(take(socket.as_fd()).unwrap().is_none());
    }

    #[test]
    fn descriptors_stay_in_a_datagram_until_it_is_taken() {
        let name = format!("hob-test-barrier-{}", std::process::id());
        let socket = bind_abstract(&name).unwrap();
        let sender = UnixDatagram::unbound().unwrap();
        sender.connect_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let (mut kept, sent) = UnixStream::pair().unwrap();
        send_with_descriptor(&sender, b"BARRIER=1", sent.as_raw_fd());
        drop(sent);
        kept.set_nonblocking(true).unwrap();
        assert_eq!(peek(socket.as_fd()).unwrap().unwrap().bytes, b"BARRIER=1");
        let blocked = kept.read(&mut [0]).unwrap_err();
        assert_eq!(blocked.kind(), io::ErrorKind::WouldBlock, "the one in the socket is still open");
        let (_, fds) = take(socket.as_fd()).unwrap().unwrap();
        assert_eq!(fds.len(), 1);
        drop(fds);
        assert_eq!(kept.read(&mut [0]).unwrap(), 0, "every copy is closed");
    }

    fn send_with_descriptor(socket: &UnixDatagram, text: &[u8], fd: RawFd) {
        let mut control = [0u64; 8];
        let mut part = libc::iovec { iov_base: text.as_ptr().cast_mut().cast(), iov_len: text.len() };
        // SAFETY: the same walk as in `receive`: buffers outlive the call and their sizes are given.
        unsafe {
            let mut message: libc::msghdr = mem::zeroed();
            message.msg_iov = &raw mut part;
            message.msg_iovlen = 1;
            message.msg_control = control.as_mut_ptr().cast();
            message.msg_controllen = libc::CMSG_SPACE(4) as _;
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(4) as _;
            libc::CMSG_DATA(header).cast::<RawFd>().write_unaligned(fd);
            assert_eq!(libc::sendmsg(socket.as_raw_fd(), &raw const message, 0), 9);
        }
    }
}
