//! The receiving side of sd_notify(3). FreeBSD and NetBSD say who sent a datagram; on the others nobody could tell a
//! service's word from that of any other process, so that there is no socket to send it to.

use crate::sys::net::serve::FileId;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

/// Longest datagram that is read whole.
pub const DATAGRAM_MAX: usize = 4096;

/// One datagram.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Datagram {
    pub bytes: Vec<u8>,
    /// The sender; `None` when the kernel does not say.
    pub pid: Option<u32>,
    /// Its user, `None` where the pid is.
    pub uid: Option<u32>,
    /// It was longer than what is read.
    pub cut: bool,
}

/// Makes a bound, non-blocking socket at a path, for this user alone. Answers the file that was made as well.
///
/// # Errors
/// As for `serve::unix`; `Unsupported` where the sender of a datagram cannot be known.
pub fn bind(path: &Path) -> io::Result<(OwnedFd, Option<FileId>)> {
    socket::bind(path)
}

/// These systems have no names that are not files.
///
/// # Errors
/// Always `Unsupported`.
pub fn bind_abstract(_name: &str) -> io::Result<OwnedFd> {
    let why = "the path of the notify socket is too long for this system; use a shorter --home";
    Err(io::Error::new(io::ErrorKind::Unsupported, why))
}

/// Reads the first datagram and leaves it in the socket; `None` when there is none.
///
/// # Errors
/// What recvmsg answers.
pub fn peek(socket: BorrowedFd<'_>) -> io::Result<Option<Datagram>> {
    Ok(socket::receive(socket, true)?.map(|(datagram, _)| datagram))
}

/// Takes the first datagram out of the socket, with the descriptors that came along. To close them is what answers
/// `BARRIER=1`, and may take as long as their sender likes.
///
/// # Errors
/// What recvmsg answers.
pub fn take(socket: BorrowedFd<'_>) -> io::Result<Option<(Datagram, Vec<OwnedFd>)>> {
    socket::receive(socket, false)
}

#[cfg(any(target_os = "freebsd", target_os = "netbsd"))]
mod socket {
    use super::{DATAGRAM_MAX, Datagram, FileId};
    use crate::sys::net::serve::{self, Kind, Rights};
    use crate::sys::{check, check_size};
    use std::io;
    use std::mem::{self, offset_of};
    use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
    use std::path::Path;

    // The option that adds the sender to every datagram, the kind of message in which it comes, and where the pid and
    // the user are in it.
    #[cfg(target_os = "freebsd")]
    const TELL: (libc::c_int, libc::c_int, [usize; 2]) = (
        libc::LOCAL_CREDS_PERSISTENT,
        libc::SCM_CREDS2,
        [offset_of!(libc::sockcred2, sc_pid), offset_of!(libc::sockcred2, sc_euid)],
    );
    #[cfg(target_os = "netbsd")]
    const TELL: (libc::c_int, libc::c_int, [usize; 2]) =
        (libc::LOCAL_CREDS, libc::SCM_CREDS, [offset_of!(libc::sockcred, sc_pid), offset_of!(libc::sockcred, sc_euid)]);
    /// Options of local sockets have the level 0.
    const LEVEL: libc::c_int = 0;
    /// Room for the sender with all its groups and for more descriptors than one message can carry.
    const CONTROL_WORDS: usize = 512;

    pub(super) fn bind(path: &Path) -> io::Result<(OwnedFd, Option<FileId>)> {
        let rights = Rights { mode: 0o600, uid: None, gid: None };
        let (socket, file) = serve::unix(Kind::Datagram, path, rights, None)?;
        serve::set_blocking(socket.as_fd(), false)?;
        let on: libc::c_int = 1;
        let size = libc::socklen_t::try_from(size_of_val(&on)).unwrap_or(0);
        // SAFETY: pointer and size describe `on`, which outlives the call.
        check(unsafe { libc::setsockopt(socket.as_raw_fd(), LEVEL, TELL.0, (&raw const on).cast(), size) })?;
        Ok((socket, file))
    }

    pub(super) fn receive(socket: BorrowedFd<'_>, peek: bool) -> io::Result<Option<(Datagram, Vec<OwnedFd>)>> {
        let mut bytes = vec![0u8; DATAGRAM_MAX];
        let mut control = [0u64; CONTROL_WORDS];
        let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        // SAFETY: all fields of msghdr are integers and pointers, for which zero is a valid value.
        let mut message: libc::msghdr = unsafe { mem::zeroed() };
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = libc::socklen_t::try_from(size_of_val(&control)).unwrap_or(0);
        let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC | if peek { libc::MSG_PEEK } else { 0 };
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
        // SAFETY: the kernel has filled the message, and `control` is alive. Descriptors are made by taking alone.
        let (from, fds) = unsafe { sender(&message, !peek) };
        let (pid, uid) = from.unzip();
        Ok(Some((Datagram { bytes, pid, uid, cut: message.msg_flags & libc::MSG_TRUNC != 0 }, fds)))
    }

    /// Pid and user of the sender, and the descriptors that came along where they exist.
    ///
    /// # Safety
    /// `message` was filled by recvmsg and its control space is alive; with `made` its descriptors are this
    /// process's.
    unsafe fn sender(message: &libc::msghdr, made: bool) -> (Option<(u32, u32)>, Vec<OwnedFd>) {
        let (mut from, mut fds) = (None, Vec::new());
        // SAFETY: the message is as recvmsg left it.
        let mut header = unsafe { libc::CMSG_FIRSTHDR(message) };
        while !header.is_null() {
            // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR answer null or a whole header within the control space.
            let (level, kind, length) = unsafe { ((*header).cmsg_level, (*header).cmsg_type, (*header).cmsg_len) };
            // SAFETY: the same header.
            let data = unsafe { libc::CMSG_DATA(header) };
            // SAFETY: both point into the same header and its data.
            let head = usize::try_from(unsafe { data.offset_from(header.cast()) }).unwrap_or(usize::MAX);
            let length = usize::try_from(length).unwrap_or(0).saturating_sub(head);
            if level == libc::SOL_SOCKET && kind == TELL.1 && TELL.2.iter().all(|at| length >= at + 4) {
                // SAFETY: the data reaches as far; it need not be aligned.
                let [pid, uid] = TELL.2.map(|at| unsafe { data.add(at).cast::<u32>().read_unaligned() });
                from = i32::try_from(pid).is_ok_and(|p| p > 0).then_some((pid, uid));
            } else if level == libc::SOL_SOCKET && kind == libc::SCM_RIGHTS && made {
                for at in 0..length / size_of::<RawFd>() {
                    // SAFETY: the kernel put this many descriptors here, each a new one that nobody else owns.
                    fds.push(unsafe { OwnedFd::from_raw_fd(data.cast::<RawFd>().add(at).read_unaligned()) });
                }
            }
            // SAFETY: the message and the header are those of this walk.
            header = unsafe { libc::CMSG_NXTHDR(message, header) };
        }
        (from, fds)
    }
}

#[cfg(not(any(target_os = "freebsd", target_os = "netbsd")))]
mod socket {
    use super::{Datagram, FileId};
    use std::io;
    use std::os::fd::{BorrowedFd, OwnedFd};
    use std::path::Path;

    const WHY: &str = "this system does not say who sent a datagram, so that ready \"notify\" cannot work; \
                       use a port or a log line";

    pub(super) fn bind(_: &Path) -> io::Result<(OwnedFd, Option<FileId>)> {
        Err(io::Error::new(io::ErrorKind::Unsupported, WHY))
    }

    pub(super) fn receive(_: BorrowedFd<'_>, _: bool) -> io::Result<Option<(Datagram, Vec<OwnedFd>)>> {
        Err(io::Error::new(io::ErrorKind::Unsupported, WHY))
    }
}
