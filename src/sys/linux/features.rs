//! What this kernel can do, how it is set, and what file systems are like. Nothing here changes anything.

use crate::sys::check;
use std::ffi::CString;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

pub use crate::sys::feature::{Feature, Found, Storage};

/// The kernel's name and release.
#[must_use]
pub fn kernel() -> (&'static str, String) {
    // SAFETY: all zeros are a valid utsname: texts alone, each ended by the first zero.
    let mut names: libc::utsname = unsafe { core::mem::zeroed() };
    // SAFETY: `names` is valid to be written to.
    let told = check(unsafe { libc::uname(&raw mut names) }).is_ok();
    let release: Vec<u8> = names.release.iter().map(|c| c.to_ne_bytes()[0]).take_while(|b| *b != 0 && told).collect();
    ("Linux", String::from_utf8_lossy(&release).into_owned())
}

/// Everything that hob uses where it is found, each with a name that is the same on all systems.
#[must_use]
pub fn all() -> Vec<Feature> {
    let yes = |there: bool| if there { Found::Yes } else { Found::No };
    vec![
        Feature { name: "pidfd", found: yes(pidfd()) },
        Feature { name: "clone3", found: yes(clone3()) },
        Feature { name: "close_range", found: yes(close_range()) },
        Feature { name: "memfd_seals", found: yes(memfd_seals()) },
        Feature { name: "subreaper", found: yes(subreaper()) },
        Feature { name: "procfs", found: yes(crate::sys::identity::start_ticks(std::process::id()).is_some()) },
        Feature { name: "cgroup2", found: yes(cgroup_mount().is_some()) },
        Feature { name: "psi", found: yes(Path::new("/proc/pressure/memory").exists()) },
        Feature { name: "landlock", found: landlock() },
    ]
}

fn pidfd() -> bool {
    crate::sys::wait::pidfd_open(std::process::id()).is_ok()
}

/// Whether the call is known and not forbidden: without arguments it does nothing but complain about them.
fn clone3() -> bool {
    // SAFETY: the size of zero is refused before anything is read or done.
    unsafe { libc::syscall(libc::SYS_clone3, std::ptr::null::<u8>(), 0_usize) };
    !matches!(io::Error::last_os_error().raw_os_error(), Some(libc::ENOSYS | libc::EPERM))
}

fn close_range() -> bool {
    // SAFETY: a range whose end lies before its beginning is refused before anything is done.
    unsafe { libc::syscall(libc::SYS_close_range, 5_u32, 4_u32, 0_u32) };
    io::Error::last_os_error().raw_os_error() == Some(libc::EINVAL)
}

fn memfd_seals() -> bool {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // SAFETY: the name is a C string; the result is checked.
    let Ok(fd) = check(unsafe { libc::memfd_create(c"hob-look".as_ptr(), flags) }) else { return false };
    // SAFETY: the call succeeded, so the descriptor is open and owned by nobody else.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
    true
}

fn subreaper() -> bool {
    let mut value: libc::c_int = 0;
    // SAFETY: the kernel writes one int to `value`.
    unsafe { libc::prctl(libc::PR_GET_CHILD_SUBREAPER, &raw mut value) == 0 }
}

fn landlock() -> Found {
    const VERSION: libc::c_uint = 1;
    // SAFETY: with this flag the call answers a number and looks at nothing.
    let abi = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0_usize, VERSION) };
    u32::try_from(abi).ok().filter(|n| *n > 0).map_or(Found::No, Found::Version)
}

fn cgroup_mount() -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    let fields = mounts.lines().map(|l| l.split(' ').collect::<Vec<_>>());
    fields.filter(|f| f.get(2) == Some(&"cgroup2")).find_map(|f| Some(PathBuf::from(*f.get(1)?)))
}

/// A setting of the kernel by its name with slashes, such as `fs/inotify/max_user_watches`.
#[must_use]
pub fn setting(name: &str) -> Option<String> {
    std::fs::read_to_string(Path::new("/proc/sys").join(name)).ok().map(|t| t.trim().to_owned())
}

/// What keeps a file.
///
/// # Errors
/// What statfs(2) answers.
pub fn storage(path: &Path) -> io::Result<Storage> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut s = core::mem::MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: `s` is valid to write a statfs to, and `path` ends with a zero byte.
    check(unsafe { libc::statfs(path.as_ptr(), s.as_mut_ptr()) })?;
    // SAFETY: the call succeeded and filled it.
    let s = unsafe { s.assume_init() };
    // The field is signed or not, 32 bits wide or 64, by target.
    #[allow(clippy::unnecessary_cast, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let magic = s.f_type as u32;
    Ok(match magic {
        0x0102_1994 => Storage::Memory("tmpfs"),
        0x8584_58f6 => Storage::Memory("ramfs"),
        0x6969 => Storage::Network("NFS"),
        0xff53_4d42 | 0xfe53_4d42 | 0x517b => Storage::Network("SMB"),
        0x0102_1997 => Storage::Network("9p"),
        0x00c3_6400 => Storage::Network("Ceph"),
        0x5346_414f => Storage::Network("AFS"),
        0x7461_636f => Storage::Network("OCFS2"),
        0x0bd0_0bd0 => Storage::Network("Lustre"),
        0x0116_1970 => Storage::Network("GFS2"),
        0x6573_5546 => Storage::Unsure("FUSE"),
        _ => Storage::Local,
    })
}

/// Whether somebody listens on a Unix socket that was bound under this very path; `None` where that cannot be told.
#[must_use]
pub fn listens(path: &Path) -> Option<bool> {
    const LISTENING: u32 = 0x10000;
    let table = std::fs::read("/proc/net/unix").ok()?;
    Some(table.split(|b| *b == b'\n').any(|line| {
        let mut fields = line.split(|b| *b == b' ').filter(|f| !f.is_empty());
        let flags = fields.nth(3).and_then(|f| u32::from_str_radix(std::str::from_utf8(f).ok()?, 16).ok());
        flags.is_some_and(|f| f & LISTENING != 0) && line.ends_with(path.as_os_str().as_bytes()) && {
            let before = line.len() - path.as_os_str().len();
            line.get(..before).is_some_and(|l| l.ends_with(b" "))
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hob_cannot_run_without_is_found_on_this_machine() {
        let found = all();
        for name in ["pidfd", "memfd_seals", "subreaper"] {
            assert!(found.iter().any(|f| f.name == name && f.found != Found::No), "{name}: {found:?}");
        }
        assert!(kernel().1.starts_with(|c: char| c.is_ascii_digit()));
        assert!(setting("kernel/pid_max").is_some_and(|n| n.parse::<u32>().is_ok()));
        assert_eq!(setting("no/such/thing"), None);
    }

    #[test]
    fn storage_and_listeners_are_known() {
        if Path::new("/dev/shm").is_dir() {
            assert_eq!(storage(Path::new("/dev/shm")).unwrap(), Storage::Memory("tmpfs"));
        }
        assert!(storage(Path::new("/no/such/path")).is_err());
        let dir = std::env::temp_dir().join(format!("hob-listens-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("s");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert_eq!(listens(&path), Some(true));
        assert_eq!(listens(Path::new("s")), Some(false), "the end of a path is not the path");
        drop(listener);
        assert_eq!(listens(&path), Some(false));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
