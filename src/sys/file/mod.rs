//! Files the way hob wants them: never through a link, with exact modes, locked, reserved, replaced whole. std where it
//! has it.

pub mod lock;

use super::check;
use std::ffi::{CString, OsString};
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// What a file is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// It must exist.
    Read,
    /// It must exist; reading and writing.
    Write,
    /// Reading and writing, made when missing.
    Create,
    /// As `Create`, and every write goes to the end.
    Append,
    /// Reading and writing; it must not exist.
    New,
}

/// Opens a regular file; the last component of the path must not be a link. `mode` is what a new file gets, less the
/// umask.
///
/// # Errors
/// What open(2) answers, ELOOP for a link; `InvalidInput` for anything that is not a regular file.
pub fn open(path: &Path, how: How, mode: u32) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).mode(mode);
    match how {
        How::Read => &mut options,
        How::Write => options.write(true),
        How::Create => options.write(true).create(true),
        How::Append => options.append(true).create(true),
        How::New => options.write(true).create_new(true),
    };
    // Without O_NONBLOCK, opening a FIFO that someone put there would wait for its other end.
    let file = options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"))
    }
}

/// What is at its end as soon as it is read: /dev/null, or where there is none, a pipe that nobody can write to.
///
/// # Errors
/// When no descriptor is left.
pub fn null() -> io::Result<OwnedFd> {
    match File::open("/dev/null") {
        Err(e) if e.kind() == io::ErrorKind::NotFound => super::pipe::output().map(|(read, _)| read),
        file => file.map(OwnedFd::from),
    }
}

/// The umask of this process. It can only be read by setting it, so no other thread may make a file meanwhile.
#[must_use]
pub fn umask() -> u32 {
    // SAFETY: umask(2) takes any mask and cannot fail.
    let mask = unsafe { libc::umask(0o077) };
    // SAFETY: as above.
    unsafe { libc::umask(mask) };
    #[allow(clippy::useless_conversion, reason = "its width differs between systems")]
    u32::from(mask)
}

/// Opens a regular file to be read, which may be reached through links. What may block its reader or never end, such as
/// a FIFO or a device, is refused.
///
/// # Errors
/// What open(2) answers; `IsADirectory`; `InvalidInput` for anything else that is not a regular file.
pub fn open_regular(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    let found = file.metadata()?;
    if found.is_dir() {
        return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a folder"));
    }
    if !found.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    Ok(file)
}

/// The content of a regular file, as by [`open_regular`].
///
/// # Errors
/// As for `open_regular`, and what read(2) answers; `FileTooLarge` for one of more than `max` bytes.
pub fn read_whole(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let file = open_regular(path)?;
    let found = file.metadata()?;
    let mut bytes = Vec::new();
    if found.size() <= max {
        // It may grow meanwhile.
        file.take(max + 1).read_to_end(&mut bytes)?;
    }
    let size = found.size().max(bytes.len() as u64);
    if size > max {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("{size} bytes; {max} is the most")));
    }
    Ok(bytes)
}

/// Makes a folder with exactly this mode, whatever the umask; true if it was made. The mode of one that exists is left
/// alone. A link to a folder will do where it belongs to root or to this user.
///
/// # Errors
/// What mkdir(2) answers; `NotADirectory` when something else, or a link of somebody else, has this name.
pub fn create_dir(path: &Path, mode: u32) -> io::Result<bool> {
    match DirBuilder::new().mode(mode).create(path) {
        Ok(()) => {
            std::fs::set_permissions(path, Permissions::from_mode(mode))?;
            Ok(true)
        }
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            let found = std::fs::symlink_metadata(path)?;
            let foreign = found.is_symlink() && ![0, super::user::own().0].contains(&found.uid());
            let what = match std::fs::metadata(path) {
                Ok(_) if foreign => format!("it is a link that user {} made, which is not followed", found.uid()),
                Ok(target) if target.is_dir() => return Ok(false),
                Ok(_) => "it exists and is not a folder".to_owned(),
                Err(e) => format!("it is a link that leads nowhere ({e})"),
            };
            Err(io::Error::new(io::ErrorKind::NotADirectory, what))
        }
        Err(e) => Err(e),
    }
}

/// Makes a folder and those above it that are missing, all with this mode. Those above that exist may be reached
/// through any links.
///
/// # Errors
/// As for `create_dir`.
pub fn create_dir_all(path: &Path, mode: u32) -> io::Result<()> {
    match create_dir(path, mode) {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let above = path.parent().filter(|p| !p.as_os_str().is_empty()).ok_or(e)?;
            if !above.is_dir() {
                create_dir_all(above, mode)?;
            }
            create_dir(path, mode).map(drop)
        }
        Err(e) => Err(e),
    }
}

/// Takes the exclusive flock(2) of an open file without waiting; false when another holds it. It is released when the
/// last duplicate of this open file is closed, in this or any other process.
///
/// # Errors
/// What flock(2) answers otherwise, such as ENOLCK.
pub fn try_lock(file: impl AsFd) -> io::Result<bool> {
    flock(file, libc::LOCK_EX)
}

/// std knows flock(2) on some systems alone.
fn flock(file: impl AsFd, kind: libc::c_int) -> io::Result<bool> {
    // SAFETY: the descriptor is open for the length of the call.
    match check(unsafe { libc::flock(file.as_fd().as_raw_fd(), kind | libc::LOCK_NB) }) {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(e) => Err(e),
    }
}

/// Takes space for `len` bytes from `offset` on without changing the file's size. Where the system cannot do that, it
/// only asks whether so much is free.
///
/// # Errors
/// ENOSPC, EDQUOT, EFBIG or EIO.
pub fn reserve(file: &File, offset: u64, len: u64) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    match allocate(file, libc::FALLOC_FL_KEEP_SIZE, offset, len) {
        Err(e) if !unsupported(&e) => return Err(e),
        Ok(()) => return Ok(()),
        Err(_) => {}
    }
    let allocated = file.metadata()?.blocks() * 512;
    if free_bytes(file)? >= (offset + len).saturating_sub(allocated) {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(libc::ENOSPC))
    }
}

/// Gives the space of a range back; it then reads as zeros.
///
/// # Errors
/// `Unsupported` where system or file system cannot do it.
pub fn punch_hole(file: &File, offset: u64, len: u64) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    return allocate(file, libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE, offset, len);
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (file, offset, len);
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(target_os = "linux")]
fn allocate(file: &File, mode: libc::c_int, offset: u64, len: u64) -> io::Result<()> {
    let too_large = |_| io::Error::from_raw_os_error(libc::EFBIG);
    let offset = libc::off_t::try_from(offset).map_err(too_large)?;
    let len = libc::off_t::try_from(len).map_err(too_large)?;
    loop {
        // SAFETY: the descriptor is open for the length of the call.
        match check(unsafe { libc::fallocate(file.as_raw_fd(), mode, offset, len) }) {
            Ok(_) => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

#[cfg(target_os = "linux")]
fn unsupported(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS))
}

/// Bytes that an ordinary user may still write on the file system of an open file.
///
/// # Errors
/// What fstatvfs(3) answers.
pub fn free_bytes(file: impl AsFd) -> io::Result<u64> {
    let mut s = core::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: `s` is valid to write a statvfs to, and the descriptor is open.
    check(unsafe { libc::fstatvfs(file.as_fd().as_raw_fd(), s.as_mut_ptr()) })?;
    // SAFETY: the call succeeded and filled it.
    Ok(available(&unsafe { s.assume_init() }))
}

/// The same, and how large that file system is in all.
///
/// # Errors
/// What fstatvfs(3) answers.
pub fn space(file: impl AsFd) -> io::Result<(u64, u64)> {
    let mut s = core::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: `s` is valid to write a statvfs to, and the descriptor is open.
    check(unsafe { libc::fstatvfs(file.as_fd().as_raw_fd(), s.as_mut_ptr()) })?;
    // SAFETY: the call succeeded and filled it.
    let s = unsafe { s.assume_init() };
    Ok((available(&s), all(&s)))
}

/// The same by path.
///
/// # Errors
/// What statvfs(3) answers.
pub fn space_at(path: &Path) -> io::Result<(u64, u64)> {
    let s = statvfs(path)?;
    Ok((available(&s), all(&s)))
}

/// Whether the file system of a path has no inode left for one more file. One that makes them as they are needed has no
/// number of them, and always has.
///
/// # Errors
/// What statvfs(3) answers.
pub fn lacks_inodes_at(path: &Path) -> io::Result<bool> {
    let s = statvfs(path)?;
    Ok(s.f_files > 0 && s.f_favail == 0)
}

fn statvfs(path: &Path) -> io::Result<libc::statvfs> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut s = core::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: `s` is valid to write a statvfs to, and `path` ends with a zero byte.
    check(unsafe { libc::statvfs(path.as_ptr(), s.as_mut_ptr()) })?;
    // SAFETY: the call succeeded and filled it.
    Ok(unsafe { s.assume_init() })
}

// The fields are 32 bits wide on some targets and 64 on others.
#[allow(clippy::useless_conversion, clippy::unnecessary_cast)]
fn available(s: &libc::statvfs) -> u64 {
    u64::from(s.f_bavail).saturating_mul(u64::from(s.f_frsize))
}

#[allow(clippy::useless_conversion, clippy::unnecessary_cast)]
fn all(s: &libc::statvfs) -> u64 {
    u64::from(s.f_blocks).saturating_mul(u64::from(s.f_frsize))
}

/// Whether this process may make and change files in a folder, or write to a file; tries nothing.
#[must_use]
pub fn is_writable(path: &Path) -> bool {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { return false };
    // SAFETY: `path` ends with a zero byte.
    unsafe { libc::faccessat(libc::AT_FDCWD, path.as_ptr(), libc::W_OK, libc::AT_EACCESS) == 0 }
}

/// Which file this is, and how much of it there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub dev: u64,
    pub ino: u64,
    /// Names it has; 0 when the last one was removed.
    pub links: u64,
    /// In bytes.
    pub size: u64,
}

/// The identity of an open file.
///
/// # Errors
/// What fstat(2) answers.
pub fn identity(file: &File) -> io::Result<Identity> {
    file.metadata().map(|m| Identity { dev: m.dev(), ino: m.ino(), links: m.nlink(), size: m.size() })
}

/// Makes names in this folder durable: creations, renames, removals.
///
/// # Errors
/// What open(2) and fsync(2) answer; file systems that cannot sync a folder are no error.
pub fn sync_dir(path: &Path) -> io::Result<()> {
    match File::open(path)?.sync_all() {
        Err(e) if matches!(e.raw_os_error(), Some(libc::EINVAL | libc::EBADF | libc::ENOTSUP)) => Ok(()),
        other => other,
    }
}

/// Renames within a folder and makes the new name durable.
///
/// # Errors
/// What rename(2) and fsync(2) answer.
pub fn rename_synced(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::rename(from, to)?;
    sync_dir(folder(to))
}

/// Removes a file; one that does not exist is no error.
///
/// # Errors
/// What unlink(2) answers otherwise.
pub fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Replaces a file whole: readers see the old content or the new, never a part. With `sync` that also holds after a
/// power loss; without, it costs no disk access. `mode` is exact. Two writers of one path must not run at once.
///
/// # Errors
/// What the calls answer; the old file is then still there.
pub fn atomic_write(path: &Path, bytes: &[u8], mode: u32, sync: bool) -> io::Result<()> {
    let temp = temp_name(path);
    remove(&temp)?;
    let result = write_new(&temp, bytes, mode, sync)
        .and_then(|()| if sync { rename_synced(&temp, path) } else { std::fs::rename(&temp, path) });
    if result.is_err() {
        // The error that counts is the first one.
        let _ = remove(&temp);
    }
    result
}

fn write_new(path: &Path, bytes: &[u8], mode: u32, sync: bool) -> io::Result<()> {
    let mut file = open(path, How::New, mode)?;
    if mode & 0o077 != 0 {
        file.set_permissions(Permissions::from_mode(mode))?;
    }
    file.write_all(bytes)?;
    if sync { file.sync_all() } else { Ok(()) }
}

fn temp_name(path: &Path) -> PathBuf {
    let mut name: OsString = path.as_os_str().to_owned();
    name.push(".tmp");
    name.into()
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// A folder of its own, removed at the end.
    pub(super) struct Temp(pub(super) PathBuf);

    impl Temp {
        pub(super) fn new() -> Temp {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let n = COUNT.fetch_add(1, Ordering::Relaxed);
            let path = std::env::temp_dir().join(format!("hob-file-{}-{n}", std::process::id()));
            std::fs::create_dir(&path).unwrap();
            Temp(path)
        }
    }

    impl Drop for Temp {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn links_fifos_and_folders_are_not_opened() {
        let t = Temp::new();
        let (file, link) = (t.0.join("file"), t.0.join("link"));
        drop(open(&file, How::New, 0o600).unwrap());
        assert_eq!(mode(&file), 0o600);
        assert_eq!(open(&file, How::New, 0o600).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        std::os::unix::fs::symlink(&file, &link).unwrap();
        for how in [How::Read, How::Write, How::Create, How::Append, How::New] {
            assert!(open(&link, how, 0o600).is_err(), "{how:?}");
        }
        assert!(open(&t.0, How::Read, 0).is_err());
        let fifo = t.0.join("fifo");
        let name = CString::new(fifo.as_os_str().as_bytes()).unwrap();
        // SAFETY: `name` ends with a zero byte.
        check(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }).unwrap();
        assert_eq!(open(&fifo, How::Read, 0).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        let kind = |path: &Path, max| read_whole(path, max).unwrap_err().kind();
        assert_eq!(kind(&fifo, 9), io::ErrorKind::InvalidInput, "nobody waits for its other end");
        assert_eq!(kind(Path::new("/dev/zero"), 9), io::ErrorKind::InvalidInput);
        assert_eq!(kind(&t.0, 9), io::ErrorKind::IsADirectory);
        std::fs::write(&file, "four").unwrap();
        assert_eq!(read_whole(&link, 4).unwrap(), b"four");
        assert_eq!(kind(&link, 3), io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn folders_get_their_mode_once() {
        let t = Temp::new();
        let dir = t.0.join("a/b/c");
        create_dir_all(&dir, 0o711).unwrap();
        assert_eq!(mode(&dir), 0o711);
        std::fs::set_permissions(&dir, Permissions::from_mode(0o750)).unwrap();
        assert!(!create_dir(&dir, 0o700).unwrap());
        create_dir_all(&dir, 0o700).unwrap();
        assert_eq!(mode(&dir), 0o750);
        let link = t.0.join("link");
        std::os::unix::fs::symlink(&dir, &link).unwrap();
        assert!(!create_dir(&link, 0o700).unwrap(), "a link of one's own is followed");
        create_dir_all(&link.join("below"), 0o700).unwrap();
        let (nowhere, file) = (t.0.join("nowhere"), t.0.join("file"));
        std::os::unix::fs::symlink(t.0.join("missing"), &nowhere).unwrap();
        std::fs::write(&file, "").unwrap();
        for (wrong, say) in [(&nowhere, "leads nowhere"), (&file, "not a folder")] {
            let e = create_dir(wrong, 0o700).unwrap_err();
            assert!(e.kind() == io::ErrorKind::NotADirectory && e.to_string().contains(say), "{e}");
        }
        if super::super::user::own().0 == 0 {
            std::os::unix::fs::lchown(&link, Some(65534), None).unwrap();
            assert!(create_dir(&link, 0o700).unwrap_err().to_string().contains("user 65534"));
        }
    }

    #[test]
    fn the_lock_is_exclusive_and_lives_with_the_open_file() {
        let t = Temp::new();
        let path = t.0.join("lock");
        let one = open(&path, How::Create, 0o600).unwrap();
        let two = open(&path, How::Create, 0o600).unwrap();
        assert!(try_lock(&one).unwrap());
        assert!(!try_lock(&two).unwrap());
        let inherited = one.try_clone().unwrap();
        drop(one);
        assert!(!try_lock(&two).unwrap());
        drop(inherited);
        assert!(try_lock(&two).unwrap());
    }

    #[test]
    fn reserving_keeps_the_size_and_knows_its_limit() {
        let t = Temp::new();
        let f = open(&t.0.join("f"), How::Create, 0o600).unwrap();
        reserve(&f, 0, 1 << 20).unwrap();
        assert_eq!(identity(&f).unwrap().size, 0);
        assert!(free_bytes(&f).unwrap() > 0);
        let (free, all) = space_at(&t.0).unwrap();
        assert!((1..=all).contains(&free));
        assert!(reserve(&f, 0, 1 << 62).is_err());
    }

    #[test]
    fn a_file_is_replaced_whole_with_an_exact_mode() {
        let t = Temp::new();
        let path = t.0.join("state.json");
        for (text, sync) in [("one", false), ("two, longer", true), ("", false)] {
            atomic_write(&path, text.as_bytes(), 0o644, sync).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
            assert_eq!(mode(&path), 0o644);
        }
        // Something left under the temporary name, even a link, is neither followed nor in the way.
        std::os::unix::fs::symlink(&path, t.0.join("state.json.tmp")).unwrap();
        atomic_write(&path, b"three", 0o600, false).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"three");
        assert_eq!(mode(&path), 0o600);
        assert_eq!(std::fs::read_dir(&t.0).unwrap().count(), 1);
        assert!(atomic_write(&t.0.join("no/such"), b"", 0o600, false).is_err());
    }

    #[test]
    fn identity_tells_a_removed_file() {
        let t = Temp::new();
        let path = t.0.join("f");
        let f = open(&path, How::Create, 0o600).unwrap();
        let before = identity(&f).unwrap();
        assert_eq!((before.links, before.size), (1, 0));
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert_eq!(identity(&f).unwrap(), Identity { links: 0, ..before });
        assert_ne!(identity(&open(&path, How::Create, 0o600).unwrap()).unwrap().links, 0);
        sync_dir(&t.0).unwrap();
    }
}
