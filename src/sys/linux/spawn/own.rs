//! What a process sets for itself and its children inherit, or must not.

use crate::sys::check;
use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// From now on descendants whose parent died become children of this process. `false` where the system refuses.
#[must_use]
pub fn become_subreaper() -> bool {
    // SAFETY: a plain call.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0 }
}

/// The short name of this thread, as ps shows it; the first 15 bytes count.
pub fn set_name(name: &CStr) {
    // SAFETY: a C string; the kernel copies at most 16 bytes of it.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr(), 0, 0, 0) };
}

/// Sets oom_score_adj of this process and answers the value before.
///
/// # Errors
/// EACCES without the right to lower it, ENOENT without /proc.
pub fn set_oom_score_adj(value: i32) -> io::Result<i32> {
    const PATH: &str = "/proc/self/oom_score_adj";
    let before = fs::read_to_string(PATH)?.trim().parse::<i32>().map_err(io::Error::other)?;
    fs::write(PATH, value.to_string())?;
    Ok(before)
}

/// Soft and hard limit of open descriptors.
///
/// # Errors
/// None on a sane system.
pub fn nofile() -> io::Result<(u64, u64)> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is valid to write to.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    #[allow(clippy::useless_conversion)] // rlim_t is 32 bits wide with some C libraries.
    let wide = |v: libc::rlim_t| u64::from(v);
    Ok((wide(limit.rlim_cur), wide(limit.rlim_max)))
}

/// Raises the soft limit of open descriptors to the hard one. Answers (soft before, soft now).
///
/// # Errors
/// None on a sane system.
pub fn raise_nofile() -> io::Result<(u64, u64)> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is valid to write to.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    let before = limit.rlim_cur;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` is valid to read from.
    let raised = check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }).is_ok();
    #[allow(clippy::useless_conversion)] // rlim_t is 32 bits wide with some C libraries.
    let wide = |v: libc::rlim_t| u64::from(v);
    Ok((wide(before), wide(if raised { limit.rlim_cur } else { before })))
}

/// Makes every open descriptor but 0, 1 and 2 close-on-exec, whoever opened it.
///
/// # Errors
/// Where neither close_range(2) knows how nor /proc lists the descriptors.
pub fn inherit_nothing() -> io::Result<()> {
    // SAFETY: a plain call that only sets flags.
    let result = unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if result == 0 {
        return Ok(());
    }
    for entry in fs::read_dir("/proc/self/fd")? {
        let Some(fd) = entry?.file_name().to_str().and_then(|n| n.parse::<RawFd>().ok()).filter(|n| *n > 2) else {
            continue;
        };
        // SAFETY: sets a flag; the number may be closed already, which is refused without harm.
        unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
    Ok(())
}

/// Closes every descriptor from this number on, whoever opened it. To be called before this process has opened
/// anything: what it was started with belongs to nobody here.
pub fn close_from(first: RawFd) {
    let Ok(number) = libc::c_uint::try_from(first) else { return };
    // SAFETY: by contract nobody in this process owns any of them.
    if unsafe { libc::syscall(libc::SYS_close_range, number, libc::c_uint::MAX, 0) } == 0 {
        return;
    }
    // Collected first, since the listing has a descriptor of its own, which is closed by then.
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return };
    let open: Vec<RawFd> = entries.filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok()).collect();
    for fd in open.into_iter().filter(|fd| *fd >= first) {
        // SAFETY: as above; one that is closed already is refused without harm.
        unsafe { libc::close(fd) };
    }
}

/// Takes over a descriptor that this process was started with, once; it is closed on exec from now on.
///
/// # Errors
/// EBADF when the number is not open.
pub fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    if number <= 2 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: a plain call; the result is checked.
    check(unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    // SAFETY: the number is open, and by contract nobody else in this process owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Becomes another program, which keeps pid, children, blocked signals and these descriptors. Returns only when that
/// failed, with everything as before.
#[must_use]
pub fn execute(program: BorrowedFd<'_>, argv: &[CString], envp: &[CString], keep: &[RawFd]) -> io::Error {
    let pointers = |list: &[CString]| {
        let ends = std::iter::once(std::ptr::null());
        list.iter().map(|c| c.as_ptr()).chain(ends).collect::<Vec<_>>()
    };
    let (argv, envp) = (pointers(argv), pointers(envp));
    for fd in keep {
        // SAFETY: clears a flag of an open descriptor.
        unsafe { libc::fcntl(*fd, libc::F_SETFD, 0) };
    }
    let e = {
        let (fd, empty, flags) = (program.as_raw_fd(), c"".as_ptr(), libc::AT_EMPTY_PATH);
        // SAFETY: both lists end with a null pointer, and their texts live longer than the call.
        unsafe { libc::syscall(libc::SYS_execveat, fd, empty, argv.as_ptr(), envp.as_ptr(), flags) };
        io::Error::last_os_error()
    };
    if let Err(e) = inherit_nothing() {
        return e;
    }
    e
}
