//! The file of a socket and its folder, held by a descriptor: what is looked at and what is changed are the same,
//! whatever somebody puts in its place meanwhile. On BSD and macOS, where nothing can hold them so, links at least are
//! not followed.

pub(super) use os::{Folder, Held};

#[cfg(target_os = "linux")]
mod os {
    use crate::sys::check;
    use crate::sys::net::addr::open_path;
    use std::ffi::CString;
    use std::fs::{File, Metadata, Permissions};
    use std::io;
    use std::os::fd::{AsRawFd, FromRawFd};
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    fn hold(path: &Path, how: libc::c_int) -> io::Result<File> {
        open_path(path, how).map(File::from)
    }

    pub(in crate::sys::net) struct Held(File);

    impl Held {
        pub(in crate::sys::net) fn open(path: &Path) -> io::Result<Held> {
            hold(path, libc::O_NOFOLLOW).map(Held)
        }

        pub(in crate::sys::net) fn metadata(&self) -> io::Result<Metadata> {
            self.0.metadata()
        }

        pub(in crate::sys::net) fn give(&self, uid: Option<u32>, gid: Option<u32>, mode: u32) -> io::Result<()> {
            let fd = self.0.as_raw_fd();
            if uid.is_some() || gid.is_some() {
                let (uid, gid) = (uid.unwrap_or(u32::MAX), gid.unwrap_or(u32::MAX));
                // SAFETY: the name ends with a zero byte; the descriptor is open.
                check(unsafe { libc::fchownat(fd, c"".as_ptr(), uid, gid, libc::AT_EMPTY_PATH) })?;
            }
            // The kernel refuses fchmod on such a descriptor; this name means the file that it holds.
            let by_name = std::fs::set_permissions(format!("/proc/self/fd/{fd}"), Permissions::from_mode(mode));
            match by_name {
                Err(e) if e.kind() == io::ErrorKind::NotFound => self.change_mode(mode).map_err(|_| {
                    let what = "without /proc this kernel cannot change the mode of a socket; mount /proc";
                    io::Error::new(io::ErrorKind::Unsupported, what)
                }),
                other => other,
            }
        }

        /// Linux 6.6 needs no /proc for it.
        fn change_mode(&self, mode: u32) -> io::Result<()> {
            // libc does not have fchmodat2 everywhere; the numbers of newer calls have the same distance everywhere.
            let (call, fd) = (libc::SYS_close_range + 16, self.0.as_raw_fd());
            // SAFETY: the name ends with a zero byte; the descriptor is open.
            let result = unsafe { libc::syscall(call, fd, c"".as_ptr(), mode, libc::AT_EMPTY_PATH) };
            if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
        }
    }

    pub(in crate::sys::net) struct Folder {
        folder: File,
        name: CString,
    }

    impl Folder {
        /// The folder that a path is in.
        pub(in crate::sys::net) fn of(path: &Path) -> io::Result<Folder> {
            let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
                return Err(io::ErrorKind::InvalidInput.into());
            };
            let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
            Ok(Folder { folder: hold(folder, libc::O_DIRECTORY)?, name: CString::new(name.as_bytes())? })
        }

        /// What the path names now.
        pub(in crate::sys::net) fn metadata(&self) -> io::Result<Metadata> {
            let how = libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC;
            // SAFETY: the name ends with a zero byte; the descriptor is open.
            let fd = check(unsafe { libc::openat(self.folder.as_raw_fd(), self.name.as_ptr(), how) })?;
            // SAFETY: it was just opened, and belongs to nobody else.
            unsafe { File::from_raw_fd(fd) }.metadata()
        }

        pub(in crate::sys::net) fn remove(&self) -> io::Result<()> {
            // SAFETY: the name ends with a zero byte; the descriptor is open.
            check(unsafe { libc::unlinkat(self.folder.as_raw_fd(), self.name.as_ptr(), 0) }).map(drop)
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod os {
    use crate::sys::check;
    use std::ffi::CString;
    use std::fs::Metadata;
    use std::io;
    use std::os::unix::ffi::OsStrExt;
    use std::path::{Path, PathBuf};

    pub(in crate::sys::net) struct Held(PathBuf);

    impl Held {
        pub(in crate::sys::net) fn open(path: &Path) -> io::Result<Held> {
            path.symlink_metadata().map(|_| Held(path.to_owned()))
        }

        pub(in crate::sys::net) fn metadata(&self) -> io::Result<Metadata> {
            self.0.symlink_metadata()
        }

        pub(in crate::sys::net) fn give(&self, uid: Option<u32>, gid: Option<u32>, mode: u32) -> io::Result<()> {
            if uid.is_some() || gid.is_some() {
                std::os::unix::fs::lchown(&self.0, uid, gid)?;
            }
            let path = CString::new(self.0.as_os_str().as_bytes())?;
            let mode = libc::mode_t::try_from(mode).unwrap_or(0o600);
            // SAFETY: the path ends with a zero byte.
            check(unsafe { libc::fchmodat(libc::AT_FDCWD, path.as_ptr(), mode, libc::AT_SYMLINK_NOFOLLOW) }).map(drop)
        }
    }

    pub(in crate::sys::net) struct Folder(PathBuf);

    impl Folder {
        pub(in crate::sys::net) fn of(path: &Path) -> io::Result<Folder> {
            Ok(Folder(path.to_owned()))
        }

        pub(in crate::sys::net) fn metadata(&self) -> io::Result<Metadata> {
            self.0.symlink_metadata()
        }

        pub(in crate::sys::net) fn remove(&self) -> io::Result<()> {
            std::fs::remove_file(&self.0)
        }
    }
}
