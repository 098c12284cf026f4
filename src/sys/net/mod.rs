//! Unix stream sockets: listen, connect, accept, and who is at the other end. Paths of any length and abstract names on
//! Linux.

mod addr;
mod given;
mod held;
mod passed;
mod peer;
pub mod serve;

pub use given::given;
#[cfg(test)]
pub(crate) use passed::lingering;
pub use passed::{drain, peek, refuse_descriptors, shut, takes_descriptors};
pub use peer::{Credentials, TELLS_GROUPS, credentials, exists, groups};

use super::check;
use addr::Addr;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

/// Connections that may wait to be accepted; the system may allow fewer.
const BACKLOG: libc::c_int = 1024;

/// Makes the listening socket at `path`, non-blocking and closed on exec. Its permissions are `mode` (0600, or 0666
/// when others are granted access) before anyone can reach it, and a stale socket at `path` is replaced in one step. A
/// path that begins with `@` is an abstract name on Linux, where `mode` has no meaning.
///
/// # Errors
/// `AlreadyExists` when something else than a socket is at `path`, links included; `Unsupported` for an
/// abstract name elsewhere than on Linux; `InvalidInput` for a path too long for this system; and what the system
/// answers.
pub fn listen(path: &Path, mode: u32) -> io::Result<UnixListener> {
    let socket = socket()?;
    if is_abstract(path) {
        bind(socket.as_fd(), &Addr::abstract_name(path)?)?;
        return start_listening(socket);
    }
    match path.symlink_metadata() {
        Ok(found) if !found.file_type().is_socket() => {
            let what = format!("{} is there and is not a socket", path.display());
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, what));
        }
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    // Nobody can connect before `listen`, so the permissions are right from the first moment on.
    let temporary = path.with_file_name(OsString::from(format!(".hob-{}.sock", std::process::id())));
    let placed = place(socket, &temporary, path, mode);
    if placed.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    placed
}

fn place(socket: OwnedFd, temporary: &Path, path: &Path, mode: u32) -> io::Result<UnixListener> {
    match std::fs::remove_file(temporary) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    serve::mode_at_birth(socket.as_fd(), mode);
    bind(socket.as_fd(), &Addr::to_bind(temporary)?)?;
    serve::set_mode(temporary, mode)?;
    let listener = start_listening(socket)?;
    std::fs::rename(temporary, path)?;
    Ok(listener)
}

fn start_listening(socket: OwnedFd) -> io::Result<UnixListener> {
    refuse_descriptors(socket.as_fd());
    // SAFETY: no pointers are passed; the descriptor is open.
    check(unsafe { libc::listen(socket.as_raw_fd(), BACKLOG) })?;
    let listener = UnixListener::from(socket);
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Connects to the socket at `path` (`@name`: an abstract one, on Linux). The stream blocks and is closed on exec.
///
/// # Errors
/// `TimedOut` when the listener's queue stays full for this long; `InvalidInput` for a timeout of zero; else
/// as [`listen`].
pub fn connect(path: &Path, timeout: Duration) -> io::Result<UnixStream> {
    let addr = if is_abstract(path) { Addr::abstract_name(path)? } else { Addr::to_connect(path)? };
    let stream = UnixStream::from(socket()?);
    stream.set_write_timeout(Some(timeout))?;
    loop {
        // SAFETY: the address is valid for its length during the call; the descriptor is open.
        let result = check(unsafe { libc::connect(stream.as_raw_fd(), addr.as_ptr(), addr.len()) });
        match result {
            Ok(_) => break,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Err(io::ErrorKind::TimedOut.into()),
            Err(e) => return Err(e),
        }
    }
    stream.set_write_timeout(None)?;
    Ok(stream)
}

/// Whether somebody listens at `path` (`@name`: an abstract one) and takes connections now. Does not wait.
///
/// # Errors
/// `WouldBlock` when the listener's queue is full; else as [`connect`].
pub fn reach(path: &Path) -> io::Result<()> {
    let addr = if is_abstract(path) { Addr::abstract_name(path)? } else { Addr::to_connect(path)? };
    let stream = UnixStream::from(socket()?);
    stream.set_nonblocking(true)?;
    refuse_descriptors(stream.as_fd());
    // SAFETY: the address is valid for its length during the call; the descriptor is open.
    check(unsafe { libc::connect(stream.as_raw_fd(), addr.as_ptr(), addr.len()) }).map(drop)
}

/// Accepts one connection; the stream does not block and is closed on exec.
///
/// # Errors
/// `WouldBlock` when none waits; [`is_out_of_means`] for what goes away by itself; what the system answers.
pub fn accept(listener: BorrowedFd<'_>) -> io::Result<UnixStream> {
    loop {
        match accept_raw(listener) {
            Ok(stream) => return Ok(stream),
            // The client went away while it waited.
            Err(e) if matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted) => {}
            Err(e) => return Err(e),
        }
    }
}

#[cfg(not(target_os = "macos"))]
fn accept_raw(listener: BorrowedFd<'_>) -> io::Result<UnixStream> {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: null pointers mean that the address is not wanted; the descriptor is open.
    let fd =
        check(unsafe { libc::accept4(listener.as_raw_fd(), core::ptr::null_mut(), core::ptr::null_mut(), flags) })?;
    // SAFETY: the call has just made this descriptor, and nobody else knows it.
    Ok(unsafe { UnixStream::from_raw_fd(fd) })
}

#[cfg(target_os = "macos")]
fn accept_raw(listener: BorrowedFd<'_>) -> io::Result<UnixStream> {
    // SAFETY: null pointers mean that the address is not wanted; the descriptor is open.
    let fd = check(unsafe { libc::accept(listener.as_raw_fd(), core::ptr::null_mut(), core::ptr::null_mut()) })?;
    // SAFETY: the call has just made this descriptor, and nobody else knows it.
    let stream = unsafe { UnixStream::from_raw_fd(fd) };
    // SAFETY: no pointers are passed; the descriptor is open.
    check(unsafe { libc::fcntl(stream.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) })?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

/// Whether a call failed because descriptors or memory have run out at present.
#[must_use]
pub fn is_out_of_means(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}

/// A descriptor that is held only to be given up when one is needed.
///
/// # Errors
/// When there is none left.
pub fn reserve() -> io::Result<OwnedFd> {
    super::file::null()
}

/// The first byte that waits to be read, which stays there. `None` when there is none yet.
#[must_use]
pub fn first_byte(stream: &UnixStream) -> Option<u8> {
    let mut byte = 0_u8;
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
    // SAFETY: one byte may be written to `byte` during the call; the descriptor is open.
    let n = unsafe { libc::recv(stream.as_raw_fd(), (&raw mut byte).cast(), 1, flags) };
    (n == 1).then_some(byte)
}

/// Whether a path names an abstract socket.
#[must_use]
pub fn is_abstract(path: &Path) -> bool {
    path.as_os_str().as_bytes().first() == Some(&b'@')
}

fn bind(socket: BorrowedFd<'_>, addr: &Addr) -> io::Result<()> {
    // SAFETY: the address is valid for its length during the call; the descriptor is open.
    check(unsafe { libc::bind(socket.as_raw_fd(), addr.as_ptr(), addr.len()) }).map(drop)
}

fn socket() -> io::Result<OwnedFd> {
    socket_of(libc::AF_UNIX, libc::SOCK_STREAM)
}

#[cfg(not(target_os = "macos"))]
fn socket_of(domain: libc::c_int, kind: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: no pointers are passed.
    let fd = check(unsafe { libc::socket(domain, kind | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: the call has just made this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(target_os = "macos")]
fn socket_of(domain: libc::c_int, kind: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: no pointers are passed.
    let fd = check(unsafe { libc::socket(domain, kind, 0) })?;
    // SAFETY: the call has just made this descriptor, and nobody else knows it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: no pointers are passed; the descriptor is open.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) })?;
    Ok(fd)
}

#[cfg(test)]
mod tests;
