//! Ends of children and signals to exactly the process that is meant, on BSD and macOS.
//!
//! These systems have no descriptors of processes. What stands for one here is a kqueue that waits for the process's
//! end, which can itself be polled; the pid that it waits for is noted beside it. Before a signal goes to that pid the
//! kqueue is asked whether the process has ended, so that only a process which ends, is reaped by somebody else and
//! leaves its number to another one between these two calls could be missed: never a child of the caller.
//!
//! Whoever reaps looks first without reaping, writes what it saw into the run table and reaps then: killed at any
//! point between, the next one finds either the process or its record. What the process used is known after the
//! reaping alone, and is lost when the reaper dies in that moment.

pub use crate::sys::end::{Adopted, Reaped, Status, Usage, is_gone};

use super::table::{RunTable, Slot};
use super::{SUBREAPER, tree};
use crate::sys::check;
use std::collections::BTreeMap;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The pid behind each descriptor that `pidfd_open` made. One that was closed is replaced when its number comes again.
static PIDS: Mutex<BTreeMap<RawFd, libc::pid_t>> = Mutex::new(BTreeMap::new());

fn pids() -> MutexGuard<'static, BTreeMap<RawFd, libc::pid_t>> {
    PIDS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn pid_of(fd: BorrowedFd<'_>) -> io::Result<libc::pid_t> {
    pids().get(&fd.as_raw_fd()).copied().ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))
}

fn no_such_process() -> io::Error {
    io::Error::from_raw_os_error(libc::ESRCH)
}

/// A descriptor of a process: readable once it has ended. Not inheritable; good in this process alone.
///
/// # Errors
/// ESRCH when there is no such process, EMFILE and the like.
pub fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    let pid = libc::pid_t::try_from(pid).ok().filter(|p| *p > 0).ok_or_else(no_such_process)?;
    let fd = match watch_end(pid) {
        // Some of these systems do not find a process that has ended and waits to be reaped.
        Err(e) if e.raw_os_error() == Some(libc::ESRCH) && is_ended_child(pid) => readable()?,
        other => other?,
    };
    pids().insert(fd.as_raw_fd(), pid);
    Ok(fd)
}

fn watch_end(pid: libc::pid_t) -> io::Result<OwnedFd> {
    // SAFETY: a plain call; the result is checked.
    let fd = check(unsafe { libc::kqueue() })?;
    // SAFETY: the call succeeded, so the descriptor is open and owned by nobody else.
    let queue = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: sets a flag of an open descriptor.
    check(unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    // SAFETY: plain data, for which all zeros is valid.
    let mut change: libc::kevent = unsafe { mem::zeroed() };
    change.ident = libc::uintptr_t::try_from(pid).map_err(|_| no_such_process())?;
    change.filter = libc::EVFILT_PROC;
    change.flags = libc::EV_ADD;
    change.fflags = libc::NOTE_EXIT;
    // SAFETY: one change is readable; no event is asked for, so that the call does not wait.
    check(unsafe { libc::kevent(fd, &raw const change, 1, ptr::null_mut(), 0, ptr::null()) })?;
    Ok(queue)
}

fn is_ended_child(pid: libc::pid_t) -> bool {
    matches!(look(libc::P_PID, id(pid), libc::WNOHANG), Ok(Some(_)))
}

/// A pid as waitid(2) takes it. The type differs between the systems.
#[allow(clippy::unnecessary_fallible_conversions)]
fn id(pid: libc::pid_t) -> libc::id_t {
    libc::id_t::try_from(pid).unwrap_or_default()
}

/// A descriptor that is readable for ever.
fn readable() -> io::Result<OwnedFd> {
    io::pipe().map(|(read, _)| read.into())
}

fn has_ended(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let mut p = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: `p` is one pollfd, writable for the length of the call, which does not wait.
    check(unsafe { libc::poll(&raw mut p, 1, 0) }).map(|n| n > 0)
}

/// Sends a signal to the process of this descriptor and to no other.
///
/// # Errors
/// ESRCH when it has ended, EPERM.
pub fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    let pid = pid_of(pidfd)?;
    if has_ended(pidfd)? {
        return Err(no_such_process());
    }
    // SAFETY: a plain call with a positive pid.
    check(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// A descriptor of the process in a slot that this process is not the parent of. Where the keeper inherits orphans,
/// the order makes it sure: whoever reaps writes the slot first, so a slot that is not ended after the descriptor was
/// opened shows that the pid was not yet free to be used again. Elsewhere a process that has lost its parent is
/// answered with `Nothing`, because nobody will ever know its end, and any other must name the run in its
/// environment.
///
/// # Errors
/// EMFILE and the like.
pub fn adopt(table: &RunTable, slot: Slot) -> io::Result<Adopted> {
    let before = table.slot(slot);
    let Some(pid) = before.pid else { return Ok(Adopted::Nothing) };
    let opened = pidfd_open(pid);
    match (table.slot(slot).ended, opened) {
        (Some((status, usage)), _) => Ok(Adopted::Ended(status, usage)),
        (None, Ok(pidfd)) if SUBREAPER || tree::is_kept(pid, before.run) => Ok(Adopted::Alive(pidfd)),
        (None, Ok(_)) => Ok(Adopted::Nothing),
        (None, Err(e)) if e.raw_os_error() == Some(libc::ESRCH) => Ok(Adopted::Nothing),
        (None, Err(e)) => Err(e),
    }
}

/// Reaps a child of this process if it has ended: looks, records the end in its slot, then reaps. `None`: it runs.
///
/// # Errors
/// ECHILD when it is not a child of this process (an adopted one), or was reaped already.
pub fn reap_own(pidfd: BorrowedFd<'_>, table: &RunTable, slot: Slot) -> io::Result<Option<(Status, Usage)>> {
    let pid = pid_of(pidfd)?;
    let mut seen = look(libc::P_PID, id(pid), libc::WNOHANG)?;
    if seen.is_none() && has_ended(pidfd)? {
        // The word on its end comes a moment before it can be waited for, and comes once.
        seen = look(libc::P_PID, id(pid), 0)?;
    }
    seen.map(|seen| reap(&seen, Some((table, slot)))).transpose()
}

/// Reaps one child of this process that has ended, whichever: looks, records the end in its slot if it has one, then
/// reaps. To be called until it answers `None`.
///
/// # Errors
/// None on a sane system; the caller may only report it.
pub fn reap_any(table: &RunTable, daemon: Option<u32>) -> io::Result<Reaped> {
    let seen = match look(libc::P_ALL, 0, libc::WNOHANG) {
        Ok(Some(seen)) => seen,
        Ok(None) => return Ok(Reaped::None { children: true }),
        Err(e) if e.raw_os_error() == Some(libc::ECHILD) => return Ok(Reaped::None { children: false }),
        Err(e) => return Err(e),
    };
    let pid = u32::try_from(seen.pid).ok();
    let slot = pid.and_then(|pid| table.find_pid(pid));
    let (status, _) = reap(&seen, slot.map(|slot| (table, slot)))?;
    Ok(match slot {
        _ if daemon.is_some() && daemon == pid => Reaped::Daemon(status),
        Some(slot) => Reaped::Slot(slot),
        None => Reaped::Stray,
    })
}

/// Waits for the end of a child of this process that is about to end, through its slot if it has one.
pub(super) fn reap_ending(pid: libc::pid_t, slot: Option<(&RunTable, Slot)>) {
    // An error means that there is nothing left to reap.
    if let Ok(Some(seen)) = look(libc::P_PID, id(pid), 0) {
        let _ = reap(&seen, slot);
    }
}

/// Sends a signal to every direct child of this process. A pid among them cannot be used again before this process
/// reaps it, which it does not while in here. Answers how many were signalled.
///
/// # Errors
/// When the process table cannot be read.
pub fn signal_children(signal: i32) -> io::Result<usize> {
    let children = tree::children_of(std::process::id());
    let pids = children.iter().filter_map(|pid| libc::pid_t::try_from(*pid).ok());
    for pid in pids {
        // SAFETY: a plain call. A child that has ended meanwhile is still ours, so the signal can reach nobody else.
        unsafe { libc::kill(pid, signal) };
    }
    Ok(children.len())
}

struct Seen {
    pid: libc::pid_t,
    status: Status,
}

/// waitid(2) that leaves what it finds to be reaped. `None`: nothing has ended (WNOHANG).
fn look(kind: libc::idtype_t, id: libc::id_t, options: libc::c_int) -> io::Result<Option<Seen>> {
    // SAFETY: plain data, for which all zeros is valid.
    let mut info: libc::siginfo_t = unsafe { mem::zeroed() };
    let options = libc::WEXITED | libc::WNOWAIT | options;
    loop {
        // SAFETY: `info` is valid to write to.
        match check(unsafe { libc::waitid(kind, id, &raw mut info, options) }) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
            Ok(_) => break,
        }
    }
    // SAFETY: waitid succeeded, so these fields are the ones in use (all zero when nothing has ended).
    let (pid, number) = unsafe { (info.si_pid(), info.si_status()) };
    let status = if info.si_code == libc::CLD_EXITED { Status::Code(number & 0xff) } else { Status::Signal(number) };
    Ok((pid != 0).then_some(Seen { pid, status }))
}

/// Records the end that was seen, reaps, and records what the process used.
fn reap(seen: &Seen, slot: Option<(&RunTable, Slot)>) -> io::Result<(Status, Usage)> {
    let record = |usage| {
        if let Some((table, slot)) = slot {
            table.set_ended(slot, seen.status, usage);
        }
    };
    record(Usage::default());
    let mut status = 0;
    // SAFETY: plain data, for which all zeros is valid.
    let mut used: libc::rusage = unsafe { mem::zeroed() };
    // SAFETY: `status` and `used` are valid to write to.
    check(unsafe { libc::wait4(seen.pid, &raw mut status, libc::WNOHANG, &raw mut used) })?;
    let usage = usage(&used);
    record(usage);
    Ok((seen.status, usage))
}

fn usage(used: &libc::rusage) -> Usage {
    /// The unit of `ru_maxrss`, in bytes.
    const UNIT: u64 = if cfg!(target_os = "macos") { 1 } else { 1024 };
    let max_rss = u64::try_from(used.ru_maxrss).unwrap_or(0).saturating_mul(UNIT);
    Usage { cpu: duration(used.ru_utime) + duration(used.ru_stime), max_rss }
}

/// A length of time that is not negative.
pub(super) fn duration(time: libc::timeval) -> Duration {
    let micros = u64::try_from(time.tv_usec).unwrap_or(0);
    Duration::from_secs(u64::try_from(time.tv_sec).unwrap_or(0)) + Duration::from_micros(micros)
}
