//! What one thread can be told about its place in the queue for processor and disk.

/// The nice value of this process.
#[must_use]
pub fn niceness() -> i32 {
    // SAFETY: plain numbers; 0 names the calling process, which exists, so that -1 can only be its value.
    unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }
}

/// Sets the nice value of the whole process, so of all its threads.
///
/// # Errors
/// EACCES or EPERM without the right to lower it.
pub fn renice(nice: i32) -> std::io::Result<()> {
    // On Linux a nice value belongs to a thread.
    for entry in std::fs::read_dir("/proc/self/task")? {
        let Some(id) = entry?.file_name().to_str().and_then(|n| n.parse().ok()) else { continue };
        // SAFETY: plain numbers.
        crate::sys::check(unsafe { libc::setpriority(libc::PRIO_PROCESS, id, nice) })?;
    }
    Ok(())
}

/// Puts the calling thread behind the others: nice 10 and the lowest best-effort disk priority. On Linux both belong to
/// a thread. Refusal is no failure, the work is then done at normal priority.
pub fn background() {
    const WHO_PROCESS: libc::c_int = 1;
    const BEST_EFFORT_LOWEST: libc::c_int = (2 << 13) | 7;
    // SAFETY: both calls take plain numbers; 0 names the calling thread.
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, 10);
        libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, BEST_EFFORT_LOWEST);
    }
}
