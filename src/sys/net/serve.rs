//! Sockets to be passed to other programs, which accept and receive on them.

use super::addr::Addr;
use super::held::{Folder, Held};
use super::{check, is_abstract, socket_of};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// Connections that may wait where nothing else is said; the system may allow fewer.
const BACKLOG: u32 = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Stream,
    Datagram,
    Seqpacket,
}

impl Kind {
    const fn number(self) -> libc::c_int {
        match self {
            Kind::Stream => libc::SOCK_STREAM,
            Kind::Datagram => libc::SOCK_DGRAM,
            Kind::Seqpacket => libc::SOCK_SEQPACKET,
        }
    }
}

/// Device and number of a file.
pub type FileId = (u64, u64);

/// Who may use the file of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights {
    pub mode: u32,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

/// Opens a TCP or UDP socket. It blocks and is closed on exec, as all that are made here.
///
/// # Errors
/// What the system answers: `AddrInUse`, `AddrNotAvailable`, `PermissionDenied`, ...
pub fn inet(kind: Kind, at: SocketAddr, v6_only: bool, backlog: Option<u32>) -> io::Result<OwnedFd> {
    let domain = if at.is_ipv6() { libc::AF_INET6 } else { libc::AF_INET };
    let socket = socket_of(domain, kind.number())?;
    if kind != Kind::Datagram {
        // Connections of an earlier socket may linger; one that listens is in the way all the same.
        option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    }
    if at.is_ipv6() {
        let set = option(socket.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, v6_only.into());
        // OpenBSD knows nothing else than IPv6 alone.
        set.or_else(|e| if v6_only { Err(e) } else { Ok(()) })?;
    }
    bind_inet(socket.as_fd(), at)?;
    set_backlog(socket.as_fd(), kind, backlog)?;
    Ok(socket)
}

fn bind_inet(socket: BorrowedFd<'_>, at: SocketAddr) -> io::Result<()> {
    let bind = |address: *const libc::sockaddr, size: usize| {
        let size = libc::socklen_t::try_from(size).unwrap_or(0);
        // SAFETY: the address is valid for its size during the call; the descriptor is open.
        check(unsafe { libc::bind(socket.as_raw_fd(), address, size) }).map(drop)
    };
    match at {
        SocketAddr::V4(at) => {
            // SAFETY: all zeros is a valid sockaddr_in: numbers alone.
            let mut raw: libc::sockaddr_in = unsafe { core::mem::zeroed() };
            raw.sin_family = family(libc::AF_INET);
            raw.sin_port = at.port().to_be();
            raw.sin_addr.s_addr = u32::from_ne_bytes(at.ip().octets());
            bind((&raw const raw).cast(), size_of_val(&raw))
        }
        SocketAddr::V6(at) => {
            // SAFETY: all zeros is a valid sockaddr_in6: numbers alone.
            let mut raw: libc::sockaddr_in6 = unsafe { core::mem::zeroed() };
            raw.sin6_family = family(libc::AF_INET6);
            raw.sin6_port = at.port().to_be();
            raw.sin6_addr.s6_addr = at.ip().octets();
            raw.sin6_scope_id = at.scope_id();
            bind((&raw const raw).cast(), size_of_val(&raw))
        }
    }
}

fn family(number: libc::c_int) -> libc::sa_family_t {
    libc::sa_family_t::try_from(number).unwrap_or(0)
}

fn option(socket: BorrowedFd<'_>, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let size = libc::socklen_t::try_from(size_of_val(&value)).unwrap_or(0);
    // SAFETY: the value is valid for its size during the call; the descriptor is open.
    check(unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), size) }).map(drop)
}

/// Opens a Unix socket at a path (`@name`: an abstract one, on Linux). A file that an earlier socket left is replaced;
/// folders that are missing are made. Nobody can connect before the file has its rights. Answers the file that was made
/// as well, where there is one.
///
/// # Errors
/// `AddrInUse` when somebody listens there; `AlreadyExists` when something else than a socket is there, links
/// included; and what the system answers.
pub fn unix(kind: Kind, path: &Path, rights: Rights, backlog: Option<u32>) -> io::Result<(OwnedFd, Option<FileId>)> {
    let socket = socket_of(libc::AF_UNIX, kind.number())?;
    if is_abstract(path) {
        super::bind(socket.as_fd(), &Addr::abstract_name(path)?)?;
        set_backlog(socket.as_fd(), kind, backlog)?;
        return Ok((socket, None));
    }
    match path.symlink_metadata() {
        Ok(found) if !found.file_type().is_socket() => {
            let what = format!("{} is there and is not a socket", path.display());
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, what));
        }
        Ok(_) if is_served(kind, path)? => return Err(io::Error::from_raw_os_error(libc::EADDRINUSE)),
        Ok(found) => remove(path, (found.dev(), found.ino()))?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder)?;
            }
        }
        Err(e) => return Err(e),
    }
    // Nobody may use it before it has its rights, and no other file of hob's user that somebody might put in its place
    // has this mode.
    mode_at_birth(socket.as_fd(), 0);
    super::bind(socket.as_fd(), &Addr::to_bind(path)?)?;
    let made = file_of(path);
    let ready = give(path, rights, &is_new).and_then(|id| set_backlog(socket.as_fd(), kind, backlog).map(|()| id));
    if let (Err(_), Some(id)) = (&ready, made) {
        let _ = remove(path, id);
    }
    ready.map(|id| (socket, Some(id)))
}

/// On Linux the file of a socket gets the mode of the socket, less the umask.
pub(super) fn mode_at_birth(socket: BorrowedFd<'_>, mode: u32) {
    let mode = libc::mode_t::try_from(mode).unwrap_or(0);
    // SAFETY: a plain call; elsewhere it is refused without harm.
    unsafe { libc::fchmod(socket.as_raw_fd(), mode) };
}

/// Whether it may be the file of a socket that was just bound.
fn is_new(found: &std::fs::Metadata) -> bool {
    let mode = cfg!(not(target_os = "linux")) || found.mode() & 0o7777 == 0;
    mode && found.uid() == crate::sys::user::own().0 && found.nlink() == 1
}

/// Whether somebody has the socket at a path open, of this kind or of another.
fn is_served(kind: Kind, path: &Path) -> io::Result<bool> {
    let socket = socket_of(libc::AF_UNIX, kind.number())?;
    set_blocking(socket.as_fd(), false)?;
    let addr = Addr::to_connect(path)?;
    // SAFETY: the address is valid for its length during the call; the descriptor is open.
    match check(unsafe { libc::connect(socket.as_raw_fd(), addr.as_ptr(), addr.len()) }) {
        Err(e) if matches!(e.raw_os_error(), Some(libc::ECONNREFUSED | libc::ENOENT)) => Ok(false),
        // Its queue is full, or it is of another kind.
        Err(e) if matches!(e.raw_os_error(), Some(libc::EAGAIN | libc::EPROTOTYPE)) => Ok(true),
        Ok(_) => Ok(true),
        Err(e) => Err(e),
    }
}

/// Gives the file of a socket its owner and mode. `file`: what `file_of` has told of it.
///
/// # Errors
/// What the system answers; `PermissionDenied` when something else is there now, links included.
pub fn set_rights(path: &Path, rights: Rights, file: FileId) -> io::Result<()> {
    give(path, rights, &|found| (found.dev(), found.ino()) == file).map(drop)
}

/// Gives the file of a socket of this user a mode.
///
/// # Errors
/// What the system answers; `PermissionDenied` when something else is there, links included.
pub fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    let own = crate::sys::user::own().0;
    give(path, Rights { uid: None, gid: None, mode }, &|found| found.uid() == own && found.nlink() == 1).map(drop)
}

/// Whoever may write to the folder may put anything there at any time, and is given nothing by that: what is judged and
/// what is changed are the same file.
fn give(path: &Path, rights: Rights, is_it: &dyn Fn(&std::fs::Metadata) -> bool) -> io::Result<FileId> {
    let file = Held::open(path)?;
    let found = file.metadata()?;
    if !found.file_type().is_socket() || !is_it(&found) {
        let what = format!("something else than the socket that hob made is at {}", path.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
    }
    if rights.uid.is_some() || rights.gid.is_some() || found.mode() & 0o7777 != rights.mode {
        file.give(rights.uid, rights.gid, rights.mode)?;
    }
    Ok((found.dev(), found.ino()))
}

/// Listens, or changes how many connections may wait; nothing where no connections come.
///
/// # Errors
/// What the system answers.
pub fn set_backlog(socket: BorrowedFd<'_>, kind: Kind, backlog: Option<u32>) -> io::Result<()> {
    if kind == Kind::Datagram {
        return Ok(());
    }
    let backlog = libc::c_int::try_from(backlog.unwrap_or(BACKLOG)).unwrap_or(libc::c_int::MAX);
    // SAFETY: no pointers are passed; the descriptor is open.
    check(unsafe { libc::listen(socket.as_raw_fd(), backlog) }).map(drop)
}

/// Whether calls on the socket wait, which all who have it share.
///
/// # Errors
/// What the system answers.
pub fn set_blocking(socket: BorrowedFd<'_>, blocking: bool) -> io::Result<()> {
    // SAFETY: no pointers are passed; the descriptor is open.
    let flags = check(unsafe { libc::fcntl(socket.as_raw_fd(), libc::F_GETFL) })?;
    let wanted = if blocking { flags & !libc::O_NONBLOCK } else { flags | libc::O_NONBLOCK };
    if wanted != flags {
        // SAFETY: as above.
        check(unsafe { libc::fcntl(socket.as_raw_fd(), libc::F_SETFL, wanted) })?;
    }
    Ok(())
}

/// Removes the file of a socket, unless something else is there now.
///
/// # Errors
/// What the system answers.
pub fn remove(path: &Path, file: FileId) -> io::Result<()> {
    let folder = Folder::of(path)?;
    if folder.metadata().ok().and_then(|found| socket_id(&found)) == Some(file) { folder.remove() } else { Ok(()) }
}

/// Device and number of the socket file at a path; `None` when there is none.
#[must_use]
pub fn file_of(path: &Path) -> Option<FileId> {
    socket_id(&path.symlink_metadata().ok()?)
}

fn socket_id(found: &std::fs::Metadata) -> Option<FileId> {
    found.file_type().is_socket().then(|| (found.dev(), found.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixStream;

    const RIGHTS: Rights = Rights { mode: 0o640, uid: None, gid: None };

    fn folder(name: &str) -> std::path::PathBuf {
        let dir = std::env::temp_dir().join(format!("hob-serve-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        dir
    }

    #[test]
    fn a_socket_that_nobody_has_is_replaced_and_no_other() {
        let dir = folder("stale");
        let path = dir.join("made/s");
        let (first, made) = unix(Kind::Stream, &path, RIGHTS, None).unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o640);
        for kind in [Kind::Stream, Kind::Datagram, Kind::Seqpacket] {
            assert_eq!(unix(kind, &path, RIGHTS, None).unwrap_err().kind(), io::ErrorKind::AddrInUse, "{kind:?}");
        }
        assert_eq!(file_of(&path), made);
        drop(first);
        let second = unix(Kind::Datagram, &path, RIGHTS, None).unwrap();
        assert!(made.is_some() && file_of(&path) == second.1);
        drop(second);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "precious").unwrap();
        assert_eq!(unix(Kind::Stream, &path, RIGHTS, None).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
        let _ = std::fs::remove_dir_all(&dir);
    }

    #[test]
    fn rights_are_given_to_the_socket_alone_and_never_through_a_link() {
        let dir = folder("link");
        let path = dir.join("s");
        let (socket, id) = unix(Kind::Stream, &path, RIGHTS, None).unwrap();
        let id = id.unwrap();
        let (own, wide) = (crate::sys::user::own(), Rights { mode: 0o666, ..RIGHTS });
        set_rights(&path, Rights { uid: Some(own.0), gid: Some(own.1), ..wide }, id).unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o666);
        let precious = dir.join("precious");
        std::fs::write(&precious, "x").unwrap();
        std::fs::set_permissions(&precious, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::rename(&path, dir.join("moved")).unwrap();
        std::os::unix::fs::symlink(&precious, &path).unwrap();
        let put = |what: &str| {
            let e = set_rights(&path, wide, id).unwrap_err();
            assert_eq!(e.kind(), io::ErrorKind::PermissionDenied, "{what}: {e}");
            let told = cfg!(target_os = "linux") || what != "another socket";
            assert!(!told || give(&path, wide, &is_new).is_err(), "{what}");
            assert_eq!(precious.metadata().unwrap().mode() & 0o777, 0o600, "{what}");
            remove(&path, id).unwrap();
            assert!(path.symlink_metadata().is_ok(), "{what} is not removed");
            std::fs::remove_file(&path).unwrap();
        };
        put("a link");
        std::fs::hard_link(&precious, &path).unwrap();
        put("another file");
        let other = unix(Kind::Stream, &path, RIGHTS, None).unwrap();
        put("another socket");
        std::fs::rename(dir.join("moved"), &path).unwrap();
        set_rights(&path, RIGHTS, id).unwrap();
        remove(&path, id).unwrap();
        assert!(path.symlink_metadata().is_err());
        drop((socket, other));
        let _ = std::fs::remove_dir_all(&dir);
    }

    #[test]
    fn what_waits_is_bounded_by_the_backlog_that_can_be_changed() {
        let dir = folder("backlog");
        let path = dir.join("s");
        let (socket, _) = unix(Kind::Stream, &path, RIGHTS, Some(1)).unwrap();
        let fill = || {
            let one = || crate::sys::net::connect(&path, std::time::Duration::from_millis(1)).ok();
            std::iter::from_fn(one).take(64).collect::<Vec<UnixStream>>()
        };
        let few = fill().len();
        set_backlog(socket.as_fd(), Kind::Stream, Some(32)).unwrap();
        assert!(few < 10 && fill().len() > 10, "{few}");
        let _ = std::fs::remove_dir_all(&dir);
    }

    #[test]
    fn an_address_of_ip_that_is_in_use_is_refused() {
        for at in ["127.0.0.1:0", "[::1]:0"] {
            for kind in [Kind::Stream, Kind::Datagram] {
                let Ok(socket) = inet(kind, at.parse().unwrap(), true, None) else {
                    eprintln!("SKIPPED: no {at} here");
                    continue;
                };
                let taken = match kind {
                    Kind::Datagram => std::net::UdpSocket::from(socket.try_clone().unwrap()).local_addr(),
                    _ => std::net::TcpListener::from(socket.try_clone().unwrap()).local_addr(),
                };
                let again = inet(kind, taken.unwrap(), true, None);
                assert_eq!(again.unwrap_err().kind(), io::ErrorKind::AddrInUse, "{at} {kind:?}");
            }
        }
    }
}
