//! A file that lives in memory alone and grows and shrinks like any other: for bytes that must outlive this process but
//! no reboot.

use crate::sys::check;
use std::fs::File;
use std::io;
use std::os::fd::FromRawFd;

/// Makes an empty one. Nothing else can open it.
///
/// # Errors
/// EMFILE, ENFILE and ENOMEM.
pub fn create() -> io::Result<File> {
    // SAFETY: the name is a C string; the result is checked.
    let fd = check(unsafe { libc::memfd_create(c"hob-lines".as_ptr(), libc::MFD_CLOEXEC) })?;
    // SAFETY: the call succeeded, so the descriptor is open and owned by nobody else.
    Ok(unsafe { File::from_raw_fd(fd) })
}
