//! The receiving side of sd_notify(3). These systems have the sockets but not the kernel's word on the sender's pid in
//! every datagram, so that each sender is unknown and nothing is taken for a run's word.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

/// Longest datagram that is read whole.
pub const DATAGRAM_MAX: usize = 4096;

/// One datagram.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Datagram {
    pub bytes: Vec<u8>,
    /// The sender.
    pub pid: Option<u32>,
    /// It was longer than what is read.
    pub cut: bool,
}

/// Makes a bound, non-blocking socket at a path.
///
/// # Errors
/// What bind answers.
pub fn bind(path: &Path) -> io::Result<OwnedFd> {
    let socket = UnixDatagram::bind(path)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// These systems have no names that are not files.
///
/// # Errors
/// Always Unsupported.
pub fn bind_abstract(_name: &str) -> io::Result<OwnedFd> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Nothing can be judged by its sender here, so nothing is seen.
///
/// # Errors
/// What recv answers.
pub fn peek(socket: BorrowedFd<'_>) -> io::Result<Option<Datagram>> {
    drain(&socket);
    Ok(None)
}

/// Takes the first datagram out of the socket.
///
/// # Errors
/// What recv answers.
pub fn take(socket: BorrowedFd<'_>) -> io::Result<Option<Datagram>> {
    let socket = UnixDatagram::from(socket.try_clone_to_owned()?);
    let mut bytes = vec![0u8; DATAGRAM_MAX];
    match socket.recv(&mut bytes) {
        Ok(n) => {
            bytes.truncate(n);
            Ok(Some(Datagram { bytes, pid: None, cut: false }))
        }
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(e) => Err(e),
    }
}

/// Empties the socket.
pub fn drain(socket: &impl AsFd) {
    const AT_MOST: u32 = 10_000;
    for _ in 0..AT_MOST {
        if !matches!(take(socket.as_fd()), Ok(Some(_))) {
            break;
        }
    }
}
