//! What one thread can be told about its place in the queue for processor and disk.

/// Puts the calling thread behind the others where the system can do that for one thread alone, which is macOS. Nice on the
/// BSDs belongs to the whole process, so nothing is done there.
pub fn background() {
    #[cfg(target_os = "macos")]
    // SAFETY: the call takes plain numbers; 0 names the calling thread.
    unsafe {
        libc::setpriority(libc::PRIO_DARWIN_THREAD, 0, libc::PRIO_DARWIN_BG);
    }
}
