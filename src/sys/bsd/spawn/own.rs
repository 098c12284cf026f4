//! What a process sets for itself and its children inherit, or must not.

use super::super::rlimit;
use crate::sys::{check, mask};
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// From now on descendants whose parent died become children of this process. `false` where the system refuses, and on
/// systems that have no such thing.
#[must_use]
#[cfg(any(target_os = "freebsd", target_os = "dragonfly"))]
pub fn become_subreaper() -> bool {
    // SAFETY: a plain call; 0 means this process, and this command takes no data.
    match check(unsafe { libc::procctl(libc::P_PID, 0, libc::PROC_REAP_ACQUIRE, std::ptr::null_mut()) }) {
        Ok(_) => true,
        // It is one already.
        Err(e) => e.raw_os_error() == Some(libc::EBUSY),
    }
}

/// From now on descendants whose parent died become children of this process. `false` where the system refuses, and on
/// systems that have no such thing.
#[must_use]
#[cfg(not(any(target_os = "freebsd", target_os = "dragonfly")))]
pub fn become_subreaper() -> bool {
    false
}

/// The short name of this thread, as some tools show it.
pub fn set_name(name: &CStr) {
    // SAFETY: a C string, and this thread.
    #[cfg(any(target_os = "freebsd", target_os = "dragonfly", target_os = "openbsd"))]
    unsafe {
        libc::pthread_set_name_np(libc::pthread_self(), name.as_ptr());
    }
    // SAFETY: C strings; the first has one place for the second.
    #[cfg(target_os = "netbsd")]
    unsafe {
        libc::pthread_setname_np(libc::pthread_self(), c"%s".as_ptr(), name.as_ptr().cast_mut().cast());
    }
    // SAFETY: a C string.
    #[cfg(target_os = "macos")]
    unsafe {
        libc::pthread_setname_np(name.as_ptr());
    }
}

/// These systems do not let a process say how soon it is to be killed when memory runs out.
///
/// # Errors
/// Always `Unsupported`.
pub fn set_oom_score_adj(_: i32) -> io::Result<i32> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "this system has no score for running out of memory"))
}

fn limit() -> io::Result<libc::rlimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is valid to write to.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    Ok(limit)
}

/// Soft and hard limit of open descriptors.
///
/// # Errors
/// None on a sane system.
pub fn nofile() -> io::Result<(u64, u64)> {
    limit().map(|l| (rlimit::from_system(l.rlim_cur), rlimit::from_system(l.rlim_max)))
}

/// Raises the soft limit of open descriptors to the hard one. Answers (soft before, soft now).
///
/// # Errors
/// None on a sane system.
pub fn raise_nofile() -> io::Result<(u64, u64)> {
    /// macOS refuses more, whatever the hard limit says.
    const OPEN_MAX: u64 = 10_240;
    let mut limit = limit()?;
    let (before, hard) = (rlimit::from_system(limit.rlim_cur), rlimit::from_system(limit.rlim_max));
    let wanted = if cfg!(target_os = "macos") { hard.min(OPEN_MAX).max(before) } else { hard };
    limit.rlim_cur = rlimit::to_system(wanted);
    // SAFETY: `limit` is valid to read from.
    let raised = check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }).is_ok();
    Ok((before, if raised { wanted } else { before }))
}

/// Makes every open descriptor but 0, 1 and 2 close-on-exec, whoever opened it.
///
/// # Errors
/// None: a number that is not open is refused without harm.
pub fn inherit_nothing() -> io::Result<()> {
    for fd in numbers(3) {
        // SAFETY: sets a flag; the number may be closed, which is refused without harm.
        unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
    Ok(())
}

/// Closes every descriptor from this number on, whoever opened it. To be called before this process has opened
/// anything: what it was started with belongs to nobody here.
pub fn close_from(first: RawFd) {
    for fd in numbers(first) {
        // SAFETY: by contract nobody in this process owns it; one that is closed is refused without harm.
        unsafe { libc::close(fd) };
    }
}

/// All numbers that descriptors may have, from this one on.
fn numbers(first: RawFd) -> std::ops::Range<RawFd> {
    /// Asking for more numbers than this would take longer than a start may.
    const MOST: libc::c_long = 1 << 20;
    // SAFETY: sysconf has no preconditions.
    let end = unsafe { libc::sysconf(libc::_SC_OPEN_MAX) }.clamp(256, MOST);
    first..RawFd::try_from(end).unwrap_or(256)
}

/// Descriptors that another thread is opening in the moment of a fork. Where every call that opens one can close it on
/// exec at once, there are none to see to.
#[cfg(not(target_os = "macos"))]
#[derive(Debug)]
pub(super) struct Inherited;

#[cfg(not(target_os = "macos"))]
impl Inherited {
    #[expect(clippy::unnecessary_wraps, reason = "it can fail where there is something to do")]
    pub(super) fn new() -> io::Result<Inherited> {
        Ok(Inherited)
    }

    pub(super) fn close_on_exec(&self) {}
}

/// Descriptors that another thread is opening in the moment of a fork: pipes and sockets are closed on exec by a
/// second call here, which the child may have missed. Room for a list of all, made before the fork.
#[cfg(target_os = "macos")]
#[derive(Debug)]
pub(super) struct Inherited {
    room: std::cell::RefCell<Vec<libc::proc_fdinfo>>,
}

#[cfg(target_os = "macos")]
impl Inherited {
    /// Descriptors that may be opened between making room and the fork.
    const MORE: usize = 256;

    pub(super) fn new() -> io::Result<Inherited> {
        let bytes = list(&mut [])?;
        let none = libc::proc_fdinfo { proc_fd: -1, proc_fdtype: 0 };
        Ok(Inherited { room: vec![none; bytes / size_of::<libc::proc_fdinfo>() + Self::MORE].into() })
    }

    /// To be called in the child. One that does not fit into the room is passed on, which harms nobody but its owner.
    pub(super) fn close_on_exec(&self) {
        let Ok(mut room) = self.room.try_borrow_mut() else { return };
        let Ok(bytes) = list(&mut room) else { return };
        for info in room.iter().take(bytes / size_of::<libc::proc_fdinfo>()).filter(|i| i.proc_fd > 2) {
            // SAFETY: sets a flag of an open descriptor.
            unsafe { libc::fcntl(info.proc_fd, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
}

/// Bytes of the list of open descriptors, or of room that a whole list needs.
#[cfg(target_os = "macos")]
fn list(room: &mut [libc::proc_fdinfo]) -> io::Result<usize> {
    let size = libc::c_int::try_from(size_of_val(room)).map_err(io::Error::other)?;
    let to = if room.is_empty() { std::ptr::null_mut() } else { room.as_mut_ptr().cast() };
    // SAFETY: `to` is null or writable for `size` bytes; the first call has no preconditions.
    let bytes = unsafe { libc::proc_pidinfo(libc::getpid(), libc::PROC_PIDLISTFDS, 0, to, size) };
    usize::try_from(bytes).ok().filter(|n| *n > 0).ok_or_else(io::Error::last_os_error)
}

/// The path by which an open program is executed, on systems that cannot execute the open file itself. Where the file
/// was replaced meanwhile, its successor is what is executed.
///
/// # Errors
/// When no path is known.
pub(super) fn program_path(fd: RawFd) -> io::Result<CString> {
    #[cfg(any(target_os = "freebsd", target_os = "dragonfly"))]
    {
        let _ = fd;
        Ok(CString::default())
    }
    #[cfg(any(target_os = "macos", target_os = "netbsd"))]
    {
        let mut path = vec![0u8; libc::PATH_MAX as usize];
        // SAFETY: the call writes a C string of at most PATH_MAX bytes to `path`.
        check(unsafe { libc::fcntl(fd, libc::F_GETPATH, path.as_mut_ptr()) })?;
        CStr::from_bytes_until_nul(&path).map(CStr::to_owned).map_err(io::Error::other)
    }
    #[cfg(target_os = "openbsd")]
    {
        use std::os::unix::ffi::OsStrExt;
        let _ = fd;
        // The only program that hob holds open is its own.
        CString::new(std::env::current_exe()?.as_os_str().as_bytes()).map_err(io::Error::other)
    }
}

/// Executes an open program; returns only when that failed. For the child of a fork.
pub(super) fn execute_open(
    fd: &OwnedFd,
    path: &CStr,
    argv: *const *const libc::c_char,
    envp: *const *const libc::c_char,
) {
    // SAFETY: both lists end with a null pointer.
    #[cfg(any(target_os = "freebsd", target_os = "dragonfly"))]
    unsafe {
        let _ = path;
        libc::fexecve(fd.as_raw_fd(), argv, envp);
    }
    // SAFETY: a C string, and lists that end with a null pointer.
    #[cfg(not(any(target_os = "freebsd", target_os = "dragonfly")))]
    unsafe {
        let _ = fd.as_raw_fd();
        libc::execve(path.as_ptr(), argv, envp);
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

/// Becomes another program, which keeps pid, children and these descriptors. Handlers do not outlive that, so it
/// begins with all signals blocked, until `Signals::open`; what comes meanwhile is pending. Returns only when that
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
    let held = mask::hold();
    let e = match program.try_clone_to_owned().and_then(|fd| Ok((program_path(fd.as_raw_fd())?, fd))) {
        Ok((path, fd)) => {
            execute_open(&fd, &path, argv.as_ptr(), envp.as_ptr());
            io::Error::last_os_error()
        }
        Err(e) => e,
    };
    drop(held);
    if let Err(e) = inherit_nothing() {
        return e;
    }
    e
}
