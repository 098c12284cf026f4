//! What one thread can be told about its place in the queue for processor and disk.

/// The nice value of this process.
#[must_use]
pub fn niceness() -> i32 {
    // SAFETY: plain numbers; 0 names the calling process, which exists, so that -1 can only be its value.
    unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }
}

/// Sets the nice value of the process.
///
/// # Errors
/// EACCES or EPERM without the right to lower it.
pub fn renice(nice: i32) -> std::io::Result<()> {
    // SAFETY: plain numbers; 0 names the calling process.
    crate::sys::check(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) }).map(drop)
}

/// Puts the calling thread behind the others where the system can do that for one thread alone, which is macOS. Nice
/// on the BSDs belongs to the whole process, so nothing is done there.
pub fn background() {
    #[cfg(target_os = "macos")]
    // SAFETY: the call takes plain numbers; 0 names the calling thread.
    unsafe {
        libc::setpriority(libc::PRIO_DARWIN_THREAD, 0, libc::PRIO_DARWIN_BG);
    }
}
