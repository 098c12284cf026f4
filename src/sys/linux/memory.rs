//! Memory that several processes share through a descriptor: a memfd, sealed so that nobody can shrink it under a
//! mapping.

use crate::sys::check;
use std::ffi::CStr;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const SEALS: libc::c_int = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;

/// Makes `bytes` of zeros. The name is for people who look at /proc.
///
/// # Errors
/// ENOMEM, EMFILE and the like.
pub(in crate::sys) fn create(name: &CStr, bytes: usize) -> io::Result<OwnedFd> {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // SAFETY: the name is a C string; the result is checked.
    let fd = check(unsafe { libc::memfd_create(name.as_ptr(), flags) })?;
    // SAFETY: the call succeeded, so the descriptor is open and owned by nobody else.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let size = libc::off_t::try_from(bytes).map_err(io::Error::other)?;
    // SAFETY: plain calls on an open descriptor.
    check(unsafe { libc::ftruncate(fd.as_raw_fd(), size) })?;
    // SAFETY: as above.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, SEALS) })?;
    Ok(fd)
}

/// Whether a descriptor is such a memory of this size.
///
/// # Errors
/// What is wrong with it, in a few words.
pub(in crate::sys) fn verify(fd: BorrowedFd<'_>, bytes: usize) -> Result<(), &'static str> {
    // SAFETY: an all-zero stat is a valid value to be overwritten.
    let mut stat: libc::stat = unsafe { mem::zeroed() };
    // SAFETY: `stat` is valid to write to.
    let asked = check(unsafe { libc::fstat(fd.as_raw_fd(), &raw mut stat) });
    if asked.is_err() || usize::try_from(stat.st_size) != Ok(bytes) {
        return Err("wrong size");
    }
    // SAFETY: a plain question about an open descriptor.
    let seals = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GET_SEALS) }).map_err(|_| "no seals")?;
    if seals & SEALS == SEALS { Ok(()) } else { Err("not sealed") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd;

    #[test]
    fn only_sealed_memory_of_the_right_size_is_taken() {
        let fd = create(c"t", 4096).unwrap();
        assert_eq!(verify(fd.as_fd(), 4096), Ok(()));
        assert_eq!(verify(fd.as_fd(), 8192), Err("wrong size"));
        assert!(File::from(fd).set_len(0).is_err(), "nobody can shrink it");
        // SAFETY: a plain call whose result is checked.
        let plain = check(unsafe { libc::memfd_create(c"t".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING) });
        // SAFETY: the call succeeded, so the descriptor is open and owned by nobody else.
        let plain = File::from(unsafe { OwnedFd::from_raw_fd(plain.unwrap()) });
        plain.set_len(4096).unwrap();
        assert_eq!(verify(plain.as_fd(), 4096), Err("not sealed"));
        assert!(verify(File::open("/dev/null").unwrap().as_fd(), 4096).is_err());
    }
}
