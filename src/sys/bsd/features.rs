//! What this kernel can do, how it is set, and what file systems are like. Nothing here changes anything.

use crate::sys::check;
use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

pub use crate::sys::feature::{Feature, Found, Storage};

/// The kernel's name and release.
#[must_use]
pub fn kernel() -> (&'static str, String) {
    let mut name = core::mem::MaybeUninit::<libc::utsname>::uninit();
    // SAFETY: `name` is valid to write a utsname to.
    if check(unsafe { libc::uname(name.as_mut_ptr()) }).is_err() {
        return (std::env::consts::OS, String::new());
    }
    // SAFETY: the call succeeded and filled it.
    let name = unsafe { name.assume_init() };
    let text: Vec<u8> = name.release.iter().map(|c| c.to_ne_bytes()[0]).take_while(|b| *b != 0).collect();
    (std::env::consts::OS, String::from_utf8_lossy(&text).into_owned())
}

/// Everything that hob uses where it is found, each with a name that is the same on all systems.
#[must_use]
pub fn all() -> Vec<Feature> {
    let subreaper = if super::SUBREAPER { Found::Yes } else { Found::No };
    let known = [("kqueue", Found::Yes), ("subreaper", subreaper), ("cgroup2", Found::No)];
    known.map(|(name, found)| Feature { name, found }).into()
}

/// Settings are known by other names here, and none matters to hob.
#[must_use]
pub fn setting(_: &str) -> Option<String> {
    None
}

/// What keeps a file.
///
/// # Errors
/// What statfs(2) answers.
#[cfg(not(target_os = "netbsd"))]
pub fn storage(path: &Path) -> io::Result<Storage> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut s = core::mem::MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: `s` is valid to write a statfs to, and `path` ends with a zero byte.
    check(unsafe { libc::statfs(path.as_ptr(), s.as_mut_ptr()) })?;
    // SAFETY: the call succeeded and filled it.
    let s = unsafe { s.assume_init() };
    let name: Vec<u8> = s.f_fstypename.iter().map(|c| c.to_ne_bytes()[0]).take_while(|b| *b != 0).collect();
    Ok(kind(&name))
}

/// What keeps a file.
///
/// # Errors
/// What statvfs(2) answers.
#[cfg(target_os = "netbsd")]
pub fn storage(path: &Path) -> io::Result<Storage> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut s = core::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: `s` is valid to write a statvfs to, and `path` ends with a zero byte.
    check(unsafe { libc::statvfs(path.as_ptr(), s.as_mut_ptr()) })?;
    // SAFETY: the call succeeded and filled it.
    let s = unsafe { s.assume_init() };
    let name: Vec<u8> = s.f_fstypename.iter().map(|c| c.to_ne_bytes()[0]).take_while(|b| *b != 0).collect();
    Ok(kind(&name))
}

fn kind(name: &[u8]) -> Storage {
    match name {
        b"tmpfs" | b"mfs" => Storage::Memory("tmpfs"),
        b"nfs" => Storage::Network("NFS"),
        b"smbfs" => Storage::Network("SMB"),
        b"afpfs" => Storage::Network("AFP"),
        b"webdav" => Storage::Network("WebDAV"),
        name if name.starts_with(b"fuse") || name.starts_with(b"puffs") => Storage::Unsure("FUSE"),
        _ => Storage::Local,
    }
}

/// This system does not tell who listens.
#[must_use]
pub fn listens(_: &Path) -> Option<bool> {
    None
}
