//! Message sockets between keeper and daemon: one datagram a message, descriptors beside it; and waiting on a few
//! descriptors.
//!
//! A channel is non-blocking and its descriptors are never inheritable, neither its own nor those that arrive over it.

use super::{check, check_size};
use std::ffi::OsStr;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

/// Descriptors that one message can carry on any supported system.
pub const FDS_PER_MESSAGE: usize = 253;

#[cfg(not(target_os = "macos"))]
const KIND: libc::c_int = libc::SOCK_SEQPACKET;
#[cfg(target_os = "macos")]
const KIND: libc::c_int = libc::SOCK_DGRAM;

#[cfg(not(target_os = "macos"))]
pub(super) const SEND_FLAGS: libc::c_int = libc::MSG_NOSIGNAL;
#[cfg(target_os = "macos")]
pub(super) const SEND_FLAGS: libc::c_int = 0;

#[cfg(not(target_os = "macos"))]
const RECV_FLAGS: libc::c_int = libc::MSG_CMSG_CLOEXEC;
#[cfg(target_os = "macos")]
const RECV_FLAGS: libc::c_int = 0;

// Set with the call itself where that is possible: a thread may be starting a program at the same time.
#[cfg(not(target_os = "macos"))]
const KIND_FLAGS: libc::c_int = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
#[cfg(target_os = "macos")]
const KIND_FLAGS: libc::c_int = 0;

/// Room for `FDS_PER_MESSAGE` descriptors and a header, aligned for it.
const CONTROL_WORDS: usize = 136;

/// One end of a channel.
#[derive(Debug)]
pub struct Chan {
    fd: OwnedFd,
}

impl Chan {
    /// Two connected ends.
    ///
    /// # Errors
    /// EMFILE, ENFILE, ENOMEM.
    pub fn pair() -> io::Result<(Chan, Chan)> {
        let mut fds = [0; 2];
        // SAFETY: `fds` has room for the two descriptors that the call writes.
        check(unsafe { libc::socketpair(libc::AF_UNIX, KIND | KIND_FLAGS, 0, fds.as_mut_ptr()) })?;
        // SAFETY: the call succeeded, so both descriptors are open and owned by nobody else.
        let (a, b) = unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) };
        Ok((Chan::from_fd(a)?, Chan::from_fd(b)?))
    }

    /// Two connected ends of which the second blocks, as a program expects it of a descriptor that it is started with.
    /// A message of `room` bytes fits into the buffers of both. Descriptors are refused where the kernel can.
    ///
    /// # Errors
    /// EMFILE, ENFILE, ENOMEM.
    pub fn pair_for_job(room: usize) -> io::Result<(Chan, OwnedFd)> {
        let (ours, theirs) = Chan::pair()?;
        for fd in [ours.fd.as_fd(), theirs.fd.as_fd()] {
            make_room(fd, room)?;
        }
        super::net::refuse_descriptors(ours.fd.as_fd());
        let theirs = OwnedFd::from(theirs);
        // SAFETY: the descriptor is open; these calls take and answer plain numbers.
        let flags = check(unsafe { libc::fcntl(theirs.as_raw_fd(), libc::F_GETFL) })?;
        // SAFETY: as above.
        check(unsafe { libc::fcntl(theirs.as_raw_fd(), libc::F_SETFL, flags & !libc::O_NONBLOCK) })?;
        Ok((ours, theirs))
    }

    /// Makes a channel of a connected message socket.
    ///
    /// # Errors
    /// EBADF and the like.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Chan> {
        prepare(&fd)?;
        Ok(Chan { fd })
    }

    /// Takes over a descriptor that this process was started with. Call it once, before anything else could have been
    /// opened under that number.
    ///
    /// # Errors
    /// When the number is not an open message socket.
    pub fn inherit(number: RawFd) -> io::Result<Chan> {
        let mut kind: libc::c_int = 0;
        let mut len = socklen(size_of::<libc::c_int>());
        // SAFETY: `kind` and `len` are valid for the sizes given.
        let asked =
            unsafe { libc::getsockopt(number, libc::SOL_SOCKET, libc::SO_TYPE, (&raw mut kind).cast(), &raw mut len) };
        check(asked)?;
        if kind != KIND {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a message socket"));
        }
        // SAFETY: the number is an open socket which this process was started with, and by contract nobody else owns
        // it.
        Chan::from_fd(unsafe { OwnedFd::from_raw_fd(number) })
    }

    /// Sends one message with descriptors, whole or not at all.
    ///
    /// # Errors
    /// `WouldBlock` when the other side does not keep up; ETOOMANYREFS when too many descriptors are on their way;
    /// EPIPE or ECONNRESET when the other side is gone; `InvalidInput` for more than 253 descriptors.
    pub fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        if fds.len() > FDS_PER_MESSAGE {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors for one message"));
        }
        let mut control = [0u64; CONTROL_WORDS];
        let mut iov = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        let mut header = header(&mut iov, &mut control);
        fill_control(&mut header, fds);
        loop {
            // SAFETY: the header points to `iov` and `control`, which live longer than the call.
            match check_size(unsafe { libc::sendmsg(self.fd.as_raw_fd(), &raw const header, SEND_FLAGS) }) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
                Ok(_) => return Ok(()),
            }
        }
    }

    /// Receives one message: its length in `buf` and its descriptors. `None`: the other end is closed and all is read.
    ///
    /// # Errors
    /// `WouldBlock` when there is no message; `InvalidData` when the message or its descriptors did not fit (what did
    /// arrive is closed, the message is consumed).
    pub fn recv(&self, buf: &mut [u8]) -> io::Result<Option<(usize, Vec<OwnedFd>)>> {
        let mut control = [0u64; CONTROL_WORDS];
        let mut iov = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
        let mut header = header(&mut iov, &mut control);
        let length = loop {
            // SAFETY: the header points to `iov` (over `buf`) and `control`, which live longer than the call.
            match check_size(unsafe { libc::recvmsg(self.fd.as_raw_fd(), &raw mut header, RECV_FLAGS) }) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Err(e) => return Err(e),
                Ok(n) => break n,
            }
        };
        let fds = take_control(&header);
        #[cfg(target_os = "macos")]
        fds.iter().try_for_each(set_cloexec)?;
        if header.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a message did not fit"));
        }
        Ok(if length == 0 && fds.is_empty() { None } else { Some((length, fds)) })
    }
}

impl AsFd for Chan {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Chan {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl From<Chan> for OwnedFd {
    fn from(chan: Chan) -> OwnedFd {
        chan.fd
    }
}

/// Whether a failed send may succeed a little later: the other side does not keep up, too many descriptors are on their
/// way, or memory is short.
#[must_use]
pub fn is_later(e: &io::Error) -> bool {
    e.kind() == io::ErrorKind::WouldBlock
        || matches!(e.raw_os_error(), Some(libc::ETOOMANYREFS | libc::ENOBUFS | libc::ENOMEM))
}

/// Sends one datagram to the Unix socket of this name, without waiting (sd_notify). A leading `@` means an abstract
/// name.
///
/// # Errors
/// What socket(2) and sendto(2) answer; `InvalidInput` for a name that does not fit an address.
pub fn send_datagram(name: &OsStr, bytes: &[u8]) -> io::Result<()> {
    // SAFETY: an all-zero sockaddr_un is valid.
    let mut address: libc::sockaddr_un = unsafe { mem::zeroed() };
    address.sun_family = libc::sa_family_t::try_from(libc::AF_UNIX).unwrap_or_default();
    let name = name.as_bytes();
    if name.is_empty() || name.len() >= address.sun_path.len() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a socket's name"));
    }
    for (to, from) in address.sun_path.iter_mut().zip(name) {
        *to = libc::c_char::from_ne_bytes([*from]);
    }
    let mut length = mem::offset_of!(libc::sockaddr_un, sun_path) + name.len();
    if name.first() == Some(&b'@') {
        address.sun_path[0] = 0;
    } else {
        length += 1;
    }
    // SAFETY: a plain call; the result is checked.
    let fd = check(unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_DGRAM | KIND_FLAGS, 0) })?;
    // SAFETY: the call succeeded, so the descriptor is open and owned by nobody else.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    prepare(&fd)?;
    // SAFETY: `bytes` and `address` are valid for the lengths given.
    let sent = unsafe {
        let to = (&raw const address).cast();
        libc::sendto(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), SEND_FLAGS, to, socklen(length))
    };
    check_size(sent).map(drop)
}

/// What `wait` found about one descriptor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// Something to read, or the end of the stream, or an error that a read will tell.
    pub readable: bool,
    pub writable: bool,
}

/// Sleeps until one of the descriptors is readable (or writable, where asked for) or the time is up; without a time
/// for ever. A time is rounded up to a millisecond, so that it has passed when this returns.
///
/// # Errors
/// What poll(2) answers; a signal that interrupts it is answered by nothing being ready.
pub fn wait<const N: usize>(
    fds: [(Option<BorrowedFd<'_>>, bool); N],
    timeout: Option<Duration>,
) -> io::Result<[Ready; N]> {
    let mut polled = fds.map(|(fd, write)| libc::pollfd {
        // poll ignores negative numbers.
        fd: fd.map_or(-1, |f| f.as_raw_fd()),
        events: if write { libc::POLLIN | libc::POLLOUT } else { libc::POLLIN },
        revents: 0,
    });
    let ms = timeout.map_or(-1, |t| libc::c_int::try_from(t.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX));
    let count = libc::nfds_t::try_from(N).unwrap_or_default();
    // SAFETY: `polled` has N entries, and the count is at most N.
    match check(unsafe { libc::poll(polled.as_mut_ptr(), count, ms) }) {
        Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok([Ready::default(); N]),
        Err(e) => Err(e),
        Ok(_) => Ok(polled.map(|p| Ready {
            readable: p.revents & (libc::POLLIN | libc::POLLHUP | libc::POLLERR | libc::POLLNVAL) != 0,
            writable: p.revents & libc::POLLOUT != 0,
        })),
    }
}

fn prepare(fd: &OwnedFd) -> io::Result<()> {
    set_cloexec(fd)?;
    // SAFETY: the descriptor is open; these calls take and answer plain numbers.
    let flags = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) })?;
    // SAFETY: as above.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK) })?;
    #[cfg(target_os = "macos")]
    {
        let on: libc::c_int = 1;
        let len = socklen(size_of::<libc::c_int>());
        // SAFETY: `on` is valid for the size given.
        check(unsafe {
            libc::setsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_NOSIGPIPE, (&raw const on).cast(), len)
        })?;
    }
    Ok(())
}

/// Sees to it that a message of so many bytes fits; a system that has more room already is left as it is.
fn make_room(fd: BorrowedFd<'_>, room: usize) -> io::Result<()> {
    // What the kernel counts beside the bytes, and a second message while the first is unread.
    let wanted = libc::c_int::try_from(room.saturating_mul(3)).unwrap_or(libc::c_int::MAX);
    for name in [libc::SO_SNDBUF, libc::SO_RCVBUF] {
        let (mut size, mut len) = (0 as libc::c_int, socklen(size_of::<libc::c_int>()));
        // SAFETY: `size` and `len` are valid for the sizes given.
        check(unsafe {
            libc::getsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, name, (&raw mut size).cast(), &raw mut len)
        })?;
        if size >= wanted {
            continue;
        }
        let len = socklen(size_of::<libc::c_int>());
        // SAFETY: `wanted` is valid for the size given.
        check(unsafe { libc::setsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, name, (&raw const wanted).cast(), len) })?;
    }
    Ok(())
}

fn set_cloexec(fd: &OwnedFd) -> io::Result<()> {
    // SAFETY: the descriptor is open; the call takes and answers plain numbers.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) }).map(drop)
}

fn socklen(size: usize) -> libc::socklen_t {
    libc::socklen_t::try_from(size).unwrap_or_default()
}

/// A header over one buffer, with the whole control area.
fn header(iov: &mut libc::iovec, control: &mut [u64; CONTROL_WORDS]) -> libc::msghdr {
    // SAFETY: an all-zero msghdr is valid: no name, no buffers.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_iov = iov;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    set_control_length(&mut header, CONTROL_WORDS * 8);
    header
}

fn set_control_length(header: &mut libc::msghdr, length: usize) {
    // The field is a usize with one C library and 32 bits wide with others.
    #[allow(clippy::useless_conversion)]
    let length = length.try_into().unwrap_or_default();
    header.msg_controllen = length;
}

fn fill_control(header: &mut libc::msghdr, fds: &[BorrowedFd<'_>]) {
    if fds.is_empty() {
        header.msg_control = std::ptr::null_mut();
        set_control_length(header, 0);
        return;
    }
    let bytes = libc::c_uint::try_from(size_of_val(fds)).unwrap_or_default();
    // SAFETY: CMSG_SPACE only computes. The control area has room for 253 descriptors, which `send` has checked, so
    // the first header and its data lie within it; a BorrowedFd is one RawFd in memory.
    unsafe {
        set_control_length(header, libc::CMSG_SPACE(bytes) as usize);
        let first = libc::CMSG_FIRSTHDR(header);
        (*first).cmsg_level = libc::SOL_SOCKET;
        (*first).cmsg_type = libc::SCM_RIGHTS;
        #[allow(clippy::useless_conversion)] // As in `set_control_length`.
        let length = (libc::CMSG_LEN(bytes) as usize).try_into().unwrap_or_default();
        (*first).cmsg_len = length;
        let data = libc::CMSG_DATA(first).cast::<RawFd>();
        for (i, fd) in fds.iter().enumerate() {
            data.add(i).write_unaligned(fd.as_raw_fd());
        }
    }
}

fn take_control(header: &libc::msghdr) -> Vec<OwnedFd> {
    let mut fds = Vec::new();
    // SAFETY: the kernel has filled the control area that the header describes; the macros stay within it, and each
    // descriptor in it was made for this process by this very message.
    unsafe {
        let mut at = libc::CMSG_FIRSTHDR(header);
        while !at.is_null() {
            if (*at).cmsg_level == libc::SOL_SOCKET && (*at).cmsg_type == libc::SCM_RIGHTS {
                #[allow(clippy::useless_conversion, clippy::unnecessary_fallible_conversions)] // As above.
                let length = usize::try_from((*at).cmsg_len).unwrap_or_default();
                let bytes = length.saturating_sub(libc::CMSG_LEN(0) as usize);
                let data = libc::CMSG_DATA(at).cast::<RawFd>();
                for i in 0..bytes / size_of::<RawFd>() {
                    fds.push(OwnedFd::from_raw_fd(data.add(i).read_unaligned()));
                }
            }
            at = libc::CMSG_NXTHDR(header, at);
        }
    }
    fds
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn messages_keep_their_borders_and_their_descriptors() {
        let (a, b) = Chan::pair().unwrap();
        let (mut reader, writer) = io::pipe().unwrap();
        a.send(b"one", &[writer.as_fd(), writer.as_fd()]).unwrap();
        a.send(b"second", &[]).unwrap();
        drop(writer);
        let mut buf = [0; 64];
        let (n, fds) = b.recv(&mut buf).unwrap().unwrap();
        assert_eq!((&buf[..n], fds.len()), (&b"one"[..], 2));
        for fd in &fds {
            // SAFETY: a plain question about an open descriptor.
            let flags = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFD) };
            assert_eq!(flags & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
        }
        let (n, none) = b.recv(&mut buf).unwrap().unwrap();
        assert_eq!((&buf[..n], none.len()), (&b"second"[..], 0));
        assert_eq!(b.recv(&mut buf).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(fds);
        assert_eq!(reader.read(&mut buf).unwrap(), 0, "no copy of the writing end is left");
    }

    #[test]
    fn the_end_of_a_job_blocks_and_takes_the_longest_message() {
        const ROOM: usize = 64 * 1024;
        let (ours, theirs) = Chan::pair_for_job(ROOM).unwrap();
        // SAFETY: a plain question about an open descriptor.
        let flags = |fd: RawFd| unsafe { libc::fcntl(fd, libc::F_GETFL) } & libc::O_NONBLOCK;
        assert_eq!((flags(ours.as_raw_fd()), flags(theirs.as_raw_fd())), (libc::O_NONBLOCK, 0));
        let theirs = Chan::from_fd(theirs).unwrap();
        let (long, mut buf) = (vec![b'x'; ROOM], vec![0; ROOM]);
        for (from, to) in [(&ours, &theirs), (&theirs, &ours)] {
            from.send(&long, &[]).unwrap();
            assert_eq!(to.recv(&mut buf).unwrap().unwrap().0, ROOM);
        }
    }

    #[test]
    fn what_was_queued_survives_the_sender_and_then_comes_the_end() {
        let (a, b) = Chan::pair().unwrap();
        let (_reader, writer) = io::pipe().unwrap();
        a.send(b"last", &[writer.as_fd()]).unwrap();
        drop(a);
        let mut buf = [0; 64];
        let (n, fds) = b.recv(&mut buf).unwrap().unwrap();
        assert_eq!((&buf[..n], fds.len()), (&b"last"[..], 1));
        assert!(b.recv(&mut buf).unwrap().is_none());
        assert!(matches!(b.send(b"x", &[]).unwrap_err().kind(), io::ErrorKind::BrokenPipe));
    }

    #[test]
    fn the_most_descriptors_of_one_message_arrive_and_one_more_is_refused() {
        let (a, b) = Chan::pair().unwrap();
        let (reader, _writer) = io::pipe().unwrap();
        let mut many = vec![reader.as_fd(); FDS_PER_MESSAGE];
        a.send(b"many", &many).unwrap();
        let mut buf = [0; 64];
        assert_eq!(b.recv(&mut buf).unwrap().unwrap().1.len(), FDS_PER_MESSAGE);
        many.push(reader.as_fd());
        assert_eq!(a.send(b"more", &many).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn a_message_that_does_not_fit_is_an_error_and_its_descriptors_are_closed() {
        let (a, b) = Chan::pair().unwrap();
        let (mut reader, writer) = io::pipe().unwrap();
        a.send(b"too long", &[writer.as_fd()]).unwrap();
        drop(writer);
        assert_eq!(b.recv(&mut [0; 3]).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(reader.read(&mut [0; 8]).unwrap(), 0);
        assert_eq!(b.recv(&mut [0; 8]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn waiting_tells_which_side_is_ready() {
        let (a, b) = Chan::pair().unwrap();
        let idle = wait([(Some(b.as_fd()), false), (None, false)], Some(Duration::from_millis(1))).unwrap();
        assert_eq!(idle, [Ready::default(); 2]);
        a.send(b"x", &[]).unwrap();
        let ready = wait([(Some(b.as_fd()), true), (Some(a.as_fd()), false)], None).unwrap();
        assert_eq!(ready, [Ready { readable: true, writable: true }, Ready::default()]);
    }

    #[test]
    fn only_a_message_socket_can_be_inherited() {
        let (reader, _writer) = io::pipe().unwrap();
        assert!(Chan::inherit(reader.as_raw_fd()).is_err());
        assert!(Chan::inherit(-1).is_err());
        let (a, b) = Chan::pair().unwrap();
        let number = std::os::fd::IntoRawFd::into_raw_fd(OwnedFd::from(b));
        let b = Chan::inherit(number).unwrap();
        b.send(b"hi", &[]).unwrap();
        assert_eq!(a.recv(&mut [0; 8]).unwrap().unwrap().0, 2);
    }

    #[test]
    fn a_datagram_reaches_a_socket_by_its_path() {
        let dir = std::env::temp_dir().join(format!("hob-chan-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("notify");
        let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
        send_datagram(path.as_os_str(), b"READY=1").unwrap();
        let mut buf = [0; 16];
        assert_eq!(socket.recv(&mut buf).unwrap(), 7);
        assert!(send_datagram(OsStr::new(""), b"x").is_err());
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
