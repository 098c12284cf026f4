//! Socket addresses, with the ways around their short path field.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// An address, and the folder it is relative to, held open while the address is in use.
pub(super) struct Addr {
    raw: libc::sockaddr_un,
    len: libc::socklen_t,
    _folder: Option<OwnedFd>,
}

impl Addr {
    pub(super) fn as_ptr(&self) -> *const libc::sockaddr {
        (&raw const self.raw).cast()
    }

    pub(super) fn len(&self) -> libc::socklen_t {
        self.len
    }

    /// `path` itself, where it fits with its final NUL.
    fn plain(path: &[u8], folder: Option<OwnedFd>) -> io::Result<Addr> {
        // SAFETY: all zeros is a valid sockaddr_un: numbers and an array of numbers.
        let mut raw: libc::sockaddr_un = unsafe { core::mem::zeroed() };
        if path.len() >= raw.sun_path.len() || path.contains(&0) {
            let what = format!("a socket's path has at most {} bytes here", raw.sun_path.len() - 1);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        Ok(Addr { len: fill(&mut raw, path, 1), raw, _folder: folder })
    }

    /// The address to make a socket at `path`.
    pub(super) fn to_bind(path: &Path) -> io::Result<Addr> {
        let plain = Addr::plain(path.as_os_str().as_bytes(), None);
        if plain.is_ok() { plain } else { long_to_bind(path).or(plain) }
    }

    /// The address to reach the socket at `path`.
    pub(super) fn to_connect(path: &Path) -> io::Result<Addr> {
        let plain = Addr::plain(path.as_os_str().as_bytes(), None);
        if plain.is_ok() { plain } else { long_to_connect(path) }
    }

    /// The address of an abstract socket, from `@name`.
    #[cfg(target_os = "linux")]
    pub(super) fn abstract_name(path: &Path) -> io::Result<Addr> {
        let mut addr = Addr::plain(path.as_os_str().as_bytes(), None)?;
        addr.raw.sun_path[0] = 0;
        // A NUL at the end would be part of the name.
        addr.len -= 1;
        if addr.len <= family_len() + 1 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "an abstract socket needs a name after the @"));
        }
        Ok(addr)
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn abstract_name(_: &Path) -> io::Result<Addr> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "abstract sockets (@name) exist on Linux alone; name a path"))
    }
}

/// Bytes before the path.
fn family_len() -> libc::socklen_t {
    libc::socklen_t::try_from(core::mem::offset_of!(libc::sockaddr_un, sun_path)).unwrap_or(0)
}

/// Writes family and path, and answers the length of the address with `more` bytes after the path.
fn fill(raw: &mut libc::sockaddr_un, path: &[u8], more: libc::socklen_t) -> libc::socklen_t {
    raw.sun_family = libc::sa_family_t::try_from(libc::AF_UNIX).unwrap_or(1);
    for (to, from) in raw.sun_path.iter_mut().zip(path) {
        *to = libc::c_char::from_ne_bytes([*from]);
    }
    family_len() + libc::socklen_t::try_from(path.len()).unwrap_or(0) + more
}

#[cfg(target_os = "linux")]
fn long_to_bind(path: &Path) -> io::Result<Addr> {
    use std::os::fd::AsRawFd;
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let folder = open_path(folder, 0)?;
    let mut short = format!("/proc/self/fd/{}/", folder.as_raw_fd()).into_bytes();
    short.extend_from_slice(name.as_bytes());
    Addr::plain(&short, Some(folder))
}

#[cfg(target_os = "linux")]
fn long_to_connect(path: &Path) -> io::Result<Addr> {
    use std::os::fd::AsRawFd;
    let socket = open_path(path, 0)?;
    let short = format!("/proc/self/fd/{}", socket.as_raw_fd());
    Addr::plain(short.as_bytes(), Some(socket))
}

/// A descriptor of the file itself, which is not opened. `how`: more flags of open(2).
#[cfg(target_os = "linux")]
pub(super) fn open_path(path: &Path, how: libc::c_int) -> io::Result<OwnedFd> {
    use std::os::fd::FromRawFd;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes())?;
    // With musl std takes O_PATH for a mode of access and leaves it out.
    // SAFETY: the path ends with a zero byte.
    let fd = crate::sys::check(unsafe { libc::open(path.as_ptr(), libc::O_PATH | libc::O_CLOEXEC | how) })?;
    // SAFETY: it was just opened, and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(not(target_os = "linux"))]
fn long_to_bind(path: &Path) -> io::Result<Addr> {
    Addr::plain(path.as_os_str().as_bytes(), None)
}

#[cfg(not(target_os = "linux"))]
fn long_to_connect(path: &Path) -> io::Result<Addr> {
    Addr::plain(path.as_os_str().as_bytes(), None)
}
