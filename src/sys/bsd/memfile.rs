//! A file that no name leads to and that grows and shrinks like any other: for bytes that must outlive this process but
//! no reboot. Memory on FreeBSD; elsewhere shared memory cannot be read and written like a file, so it is a file that
//! has lost its name.

use std::fs::File;
use std::io;

/// Makes an empty one. Nothing else can open it.
///
/// # Errors
/// EMFILE, ENFILE, ENOSPC and the like.
#[cfg(target_os = "freebsd")]
pub fn create() -> io::Result<File> {
    super::memory::create(c"hob-lines", 0).map(File::from)
}

/// Makes an empty one. Nothing else can open it.
///
/// # Errors
/// EMFILE, ENFILE, ENOSPC and the like.
#[cfg(not(target_os = "freebsd"))]
pub fn create() -> io::Result<File> {
    use crate::sys::file::{How, open};
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    /// Names that processes of the same pid may have left behind.
    const TRIES: u32 = 1000;
    let mut last = io::Error::from(io::ErrorKind::AlreadyExists);
    for _ in 0..TRIES {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!(".hob-lines.{}.{number}", std::process::id()));
        match open(&path, How::New, 0o600) {
            Ok(file) => {
                std::fs::remove_file(&path)?;
                return Ok(file);
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => last = e,
            Err(e) => return Err(e),
        }
    }
    Err(last)
}
