//! Who is at the other end of a Unix socket, as the kernel recorded it when the connection was made.

use crate::sys::check;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The process that connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credentials {
    pub uid: u32,
    pub gid: u32,
    /// 0 where the system does not tell.
    pub pid: u32,
}

/// Reads a socket option of a fixed size.
fn option<T: Copy>(fd: BorrowedFd<'_>, level: libc::c_int, name: libc::c_int, mut value: T) -> io::Result<T> {
    let mut len = libc::socklen_t::try_from(size_of::<T>()).unwrap_or(0);
    // SAFETY: `value` may be written to for `len` bytes, and all types used here are valid with any bits.
    check(unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut len) })?;
    Ok(value)
}

/// # Errors
/// When it is no connected Unix socket.
#[cfg(any(target_os = "linux", target_os = "openbsd"))]
pub fn credentials(fd: BorrowedFd<'_>) -> io::Result<Credentials> {
    #[cfg(target_os = "linux")]
    let empty = libc::ucred { pid: 0, uid: 0, gid: 0 };
    #[cfg(target_os = "openbsd")]
    let empty = libc::sockpeercred { uid: 0, gid: 0, pid: 0 };
    let cred = option(fd, libc::SOL_SOCKET, libc::SO_PEERCRED, empty)?;
    let pid = u32::try_from(cred.pid).unwrap_or(0);
    // The kernel answers so for a socket that is not connected.
    if cred.uid == u32::MAX {
        Err(io::ErrorKind::NotConnected.into())
    } else {
        Ok(Credentials { uid: cred.uid, gid: cred.gid, pid })
    }
}

/// # Errors
/// When it is no connected Unix socket.
#[cfg(target_os = "netbsd")]
pub fn credentials(fd: BorrowedFd<'_>) -> io::Result<Credentials> {
    let empty = libc::unpcbid { unp_pid: 0, unp_euid: 0, unp_egid: 0 };
    let cred = option(fd, 0, libc::LOCAL_PEEREID, empty)?;
    Ok(Credentials { uid: cred.unp_euid, gid: cred.unp_egid, pid: u32::try_from(cred.unp_pid).unwrap_or(0) })
}

#[cfg(any(target_os = "freebsd", target_os = "dragonfly", target_os = "macos"))]
fn xucred(fd: BorrowedFd<'_>) -> io::Result<libc::xucred> {
    // SAFETY: all zeros is a valid xucred: numbers, arrays of numbers and an unused pointer.
    let empty: libc::xucred = unsafe { core::mem::zeroed() };
    option(fd, 0, libc::LOCAL_PEERCRED, empty)
}

/// # Errors
/// When it is no connected Unix socket.
#[cfg(any(target_os = "freebsd", target_os = "dragonfly", target_os = "macos"))]
pub fn credentials(fd: BorrowedFd<'_>) -> io::Result<Credentials> {
    let cred = xucred(fd)?;
    #[cfg(target_os = "macos")]
    let pid = option(fd, 0, libc::LOCAL_PEERPID, 0 as libc::pid_t)?;
    #[cfg(target_os = "freebsd")]
    // SAFETY: the kernel fills in the number; the other member of the union is a pointer that is never used.
    let pid = unsafe { cred.cr_pid__c_anonymous_union.cr_pid };
    #[cfg(target_os = "dragonfly")]
    let pid = 0;
    Ok(Credentials { uid: cred.cr_uid, gid: cred.cr_groups[0], pid: u32::try_from(pid).unwrap_or(0) })
}

/// Whether [`groups`] knows them. Elsewhere /etc/group has to be asked who is in a group.
pub const TELLS_GROUPS: bool = !cfg!(any(target_os = "netbsd", target_os = "openbsd"));

/// Whether a process exists, a zombie included, of whatever user.
#[must_use]
pub fn exists(pid: u32) -> bool {
    let Some(pid) = libc::pid_t::try_from(pid).ok().filter(|p| *p > 0) else { return false };
    // SAFETY: signal 0 is sent to nobody.
    match check(unsafe { libc::kill(pid, 0) }) {
        Ok(_) => true,
        Err(e) => e.raw_os_error() == Some(libc::EPERM),
    }
}

/// The peer's supplementary groups; none where the system does not tell.
#[must_use]
#[cfg(target_os = "linux")]
pub fn groups(fd: BorrowedFd<'_>) -> Vec<u32> {
    /// From asm-generic/socket.h; the libc crate does not name it.
    #[cfg(not(any(target_arch = "sparc", target_arch = "sparc64")))]
    const SO_PEERGROUPS: libc::c_int = 59;
    #[cfg(any(target_arch = "sparc", target_arch = "sparc64"))]
    const SO_PEERGROUPS: libc::c_int = 0x3d;
    let mut found: Vec<libc::gid_t> = vec![0; 64];
    loop {
        let mut bytes = libc::socklen_t::try_from(found.len() * size_of::<libc::gid_t>()).unwrap_or(0);
        // SAFETY: `found` may be written to for `bytes` bytes during the call.
        let result = check(unsafe {
            let to = found.as_mut_ptr().cast();
            libc::getsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, SO_PEERGROUPS, to, &raw mut bytes)
        });
        let count = usize::try_from(bytes).unwrap_or(0) / size_of::<libc::gid_t>();
        match result {
            Ok(_) => {
                found.truncate(count);
                return found;
            }
            Err(e) if e.raw_os_error() == Some(libc::ERANGE) && count > found.len() => found.resize(count, 0),
            Err(_) => return Vec::new(),
        }
    }
}

/// The peer's supplementary groups; none where the system does not tell.
#[must_use]
#[cfg(any(target_os = "freebsd", target_os = "dragonfly", target_os = "macos"))]
pub fn groups(fd: BorrowedFd<'_>) -> Vec<u32> {
    let Ok(cred) = xucred(fd) else { return Vec::new() };
    let count = usize::try_from(cred.cr_ngroups).unwrap_or(0);
    cred.cr_groups.iter().take(count).copied().collect()
}

/// The peer's supplementary groups; none where the system does not tell.
#[must_use]
#[cfg(any(target_os = "netbsd", target_os = "openbsd"))]
pub fn groups(_: BorrowedFd<'_>) -> Vec<u32> {
    Vec::new()
}
