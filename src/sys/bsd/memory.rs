//! Memory that several processes share through a descriptor: a POSIX shared memory object that has lost its name.
//!
//! There are no seals here: whoever has the descriptor could shrink it under a mapping. It is handed to hob's own
//! processes alone.

use crate::sys::check;
use std::ffi::CStr;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Makes `bytes` of zeros. The name lasts only while it is made.
///
/// # Errors
/// ENOMEM, EMFILE and the like.
pub(in crate::sys) fn create(name: &CStr, bytes: usize) -> io::Result<OwnedFd> {
    let fd = nameless(name)?;
    let size = libc::off_t::try_from(bytes).map_err(io::Error::other)?;
    // SAFETY: a plain call on an open descriptor.
    check(unsafe { libc::ftruncate(fd.as_raw_fd(), size) })?;
    Ok(fd)
}

#[cfg(target_os = "freebsd")]
fn nameless(_: &CStr) -> io::Result<OwnedFd> {
    // SAFETY: the constant stands for no name at all; the result is checked. The descriptor is closed on exec.
    let fd = check(unsafe { libc::shm_open(libc::SHM_ANON, libc::O_RDWR, 0o600) })?;
    // SAFETY: the call succeeded, so the descriptor is open and owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(not(target_os = "freebsd"))]
fn nameless(name: &CStr) -> io::Result<OwnedFd> {
    use std::ffi::CString;
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    /// Names that processes of the same pid may have left behind.
    const TRIES: u32 = 1000;
    let mut last = io::Error::from(io::ErrorKind::AlreadyExists);
    for _ in 0..TRIES {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // macOS takes at most 31 bytes.
        let name = format!("/{}.{}.{number}", name.to_string_lossy(), std::process::id());
        let name = CString::new(name)?;
        let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL;
        // SAFETY: the name is a C string; the result is checked. The descriptor is closed on exec.
        match check(unsafe { libc::shm_open(name.as_ptr(), flags, 0o600) }) {
            Ok(fd) => {
                // SAFETY: the call succeeded, so the descriptor is open and owned by nobody else.
                let fd = unsafe { OwnedFd::from_raw_fd(fd) };
                // SAFETY: the name is a C string; it was made by this process just now.
                check(unsafe { libc::shm_unlink(name.as_ptr()) })?;
                return Ok(fd);
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => last = e,
            Err(e) => return Err(e),
        }
    }
    Err(last)
}

/// Whether a descriptor may be such a memory of this size, which some systems round up to whole pages.
///
/// # Errors
/// What is wrong with it, in a few words.
pub(in crate::sys) fn verify(fd: BorrowedFd<'_>, bytes: usize) -> Result<(), &'static str> {
    // SAFETY: an all-zero stat is a valid value to be overwritten.
    let mut stat: libc::stat = unsafe { mem::zeroed() };
    // SAFETY: `stat` is valid to write to.
    let asked = check(unsafe { libc::fstat(fd.as_raw_fd(), &raw mut stat) });
    let enough = usize::try_from(stat.st_size).is_ok_and(|size| size >= bytes);
    if asked.is_ok() && enough { Ok(()) } else { Err("wrong size") }
}
