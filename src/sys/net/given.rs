//! A listening socket that whoever started this process made and passed to it, as sd_listen_fds(3) has it.

use crate::sys::check;
use crate::sys::spawn::own;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

/// Takes over the listening Unix stream socket with this number, once. It is non-blocking and closed on exec from now
/// on. Answers its path too (`@name`: an abstract one), where it has one.
///
/// # Errors
/// When the number is not open; `InvalidInput` when it is something else.
pub fn given(number: RawFd) -> io::Result<(UnixListener, Option<PathBuf>)> {
    let listener = UnixListener::from(own::inherited(number)?);
    let unfit = |what: &str| io::Error::new(io::ErrorKind::InvalidInput, format!("it is {what}"));
    let addr = listener.local_addr().map_err(|_| unfit("not a Unix socket"))?;
    if option(&listener, libc::SO_TYPE)? != libc::SOCK_STREAM {
        return Err(unfit("not a stream socket"));
    }
    if option(&listener, libc::SO_ACCEPTCONN)? == 0 {
        return Err(unfit("a socket that does not listen"));
    }
    listener.set_nonblocking(true)?;
    super::refuse_descriptors(listener.as_fd());
    let path = addr.as_pathname().map(PathBuf::from).or_else(|| abstract_name(&addr));
    Ok((listener, path))
}

fn option(socket: &UnixListener, option: libc::c_int) -> io::Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut len = libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or(0);
    let fd = socket.as_raw_fd();
    // SAFETY: `value` and `len` are valid to write to during the call, and `len` says how large `value` is.
    check(unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, option, (&raw mut value).cast(), &raw mut len) })?;
    Ok(value)
}

#[cfg(target_os = "linux")]
fn abstract_name(addr: &std::os::unix::net::SocketAddr) -> Option<PathBuf> {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::ffi::OsStringExt as _;
    let mut name = b"@".to_vec();
    name.extend_from_slice(addr.as_abstract_name()?);
    Some(std::ffi::OsString::from_vec(name).into())
}

#[cfg(not(target_os = "linux"))]
fn abstract_name(_: &std::os::unix::net::SocketAddr) -> Option<PathBuf> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::IntoRawFd;
    use std::os::unix::net::{UnixDatagram, UnixStream};

    #[test]
    fn only_a_listening_stream_socket_will_do() {
        let dir = std::env::temp_dir().join(format!("hob-given-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("s");
        let fd = UnixListener::bind(&path).unwrap().into_raw_fd();
        let (listener, found) = given(fd).unwrap();
        assert_eq!((listener.as_raw_fd(), found), (fd, Some(path.clone())));
        UnixStream::connect(&path).unwrap();
        let refused = |fd: RawFd| given(fd).unwrap_err().to_string();
        assert_eq!(refused(UnixDatagram::unbound().unwrap().into_raw_fd()), "it is not a stream socket");
        assert_eq!(refused(UnixStream::pair().unwrap().0.into_raw_fd()), "it is a socket that does not listen");
        assert_eq!(refused(std::fs::File::open("/dev/null").unwrap().into_raw_fd()), "it is not a Unix socket");
        assert!(given(2).is_err() && given(1_000_000).is_err());
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
