//! Ends of children and signals to exactly the process that is meant, on Linux: process descriptors, never bare pids
//! of others.
//!
//! Whoever reaps looks first without reaping, writes what it saw into the run table and reaps then: killed at any
//! point between, the next one finds either the process or its record.

pub use crate::sys::end::{Adopted, Reaped, Status, Usage, is_gone};

use super::table::{RunTable, Slot};
use super::tree;
use crate::sys::check;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// A descriptor of a process: readable once it has ended. Not inheritable.
///
/// # Errors
/// ESRCH when there is no such process, EMFILE and the like.
pub fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    let pid = libc::pid_t::try_from(pid).map_err(|_| io::Error::from_raw_os_error(libc::ESRCH))?;
    // SAFETY: a plain call; the result is checked.
    let fd = check_long(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: the call succeeded, so the descriptor is open and owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sends a signal to the process of this descriptor and to no other.
///
/// # Errors
/// ESRCH when it has been reaped, EPERM.
pub fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: no siginfo is passed; the kernel then fills in a plain one.
    check_long(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, none, 0) }).map(drop)
}

/// A descriptor of the process in a slot that this process is not the parent of. The order makes it sure: whoever
/// reaps writes the slot first, so a slot that is not ended after the descriptor was opened shows that the pid was
/// not yet free to be used again.
///
/// # Errors
/// EMFILE and the like.
pub fn adopt(table: &RunTable, slot: Slot) -> io::Result<Adopted> {
    let Some(pid) = table.slot(slot).pid else { return Ok(Adopted::Nothing) };
    let opened = pidfd_open(pid);
    match (table.slot(slot).ended, opened) {
        (Some((status, usage)), _) => Ok(Adopted::Ended(status, usage)),
        (None, Ok(pidfd)) => Ok(Adopted::Alive(pidfd)),
        (None, Err(e)) if e.raw_os_error() == Some(libc::ESRCH) => Ok(Adopted::Nothing),
        (None, Err(e)) => Err(e),
    }
}

/// Reaps a child of this process if it has ended: looks, records the end in its slot, then reaps. `None`: it runs.
///
/// # Errors
/// ECHILD when it is not a child of this process (an adopted one), or was reaped already.
pub fn reap_own(pidfd: BorrowedFd<'_>, table: &RunTable, slot: Slot) -> io::Result<Option<(Status, Usage)>> {
    let id = libc::id_t::try_from(pidfd.as_raw_fd()).unwrap_or_default();
    let Some(seen) = wait_id(libc::P_PIDFD, id, libc::WEXITED | libc::WNOWAIT | libc::WNOHANG)? else {
        return Ok(None);
    };
    table.set_ended(slot, seen.status, seen.usage);
    wait_id(libc::P_PIDFD, id, libc::WEXITED | libc::WNOHANG)?;
    Ok(Some((seen.status, seen.usage)))
}

/// Reaps one child of this process that has ended, whichever: looks, records the end in its slot if it has one, then
/// reaps. To be called until it answers `None`.
///
/// # Errors
/// None on a sane system; the caller may only report it.
pub fn reap_any(table: &RunTable, daemon: Option<u32>) -> io::Result<Reaped> {
    let seen = match wait_id(libc::P_ALL, 0, libc::WEXITED | libc::WNOWAIT | libc::WNOHANG) {
        Ok(Some(seen)) => seen,
        Ok(None) => return Ok(Reaped::None { children: true }),
        Err(e) if e.raw_os_error() == Some(libc::ECHILD) => return Ok(Reaped::None { children: false }),
        Err(e) => return Err(e),
    };
    let slot = table.find_pid(seen.pid);
    if let Some(slot) = slot {
        table.set_ended(slot, seen.status, seen.usage);
    }
    wait_id(libc::P_PID, seen.pid, libc::WEXITED | libc::WNOHANG)?;
    Ok(match slot {
        _ if daemon == Some(seen.pid) => Reaped::Daemon(seen.status),
        Some(slot) => Reaped::Slot(slot),
        None => Reaped::Stray,
    })
}

/// Waits for the end of a child of this process that is about to end, through its slot if it has one.
pub(super) fn reap_ending(pid: u32, slot: Option<(&RunTable, Slot)>) {
    // An error means that there is nothing left to reap.
    let Ok(Some(seen)) = wait_id(libc::P_PID, pid, libc::WEXITED | libc::WNOWAIT) else { return };
    if let Some((table, slot)) = slot {
        table.set_ended(slot, seen.status, seen.usage);
    }
    let _ = wait_id(libc::P_PID, pid, libc::WEXITED | libc::WNOHANG);
}

/// Sends a signal to every direct child of this process. A pid among them cannot be used again before this process
/// reaps it, which it does not while in here. Answers how many were signalled.
///
/// # Errors
/// When the children cannot be listed (no /proc).
pub fn signal_children(signal: i32) -> io::Result<usize> {
    let (me, all) = (std::process::id(), tree::all());
    if all.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "/proc lists no processes"));
    }
    let children = all.into_iter().filter(|pid| tree::parent_of(*pid) == Some(me));
    let pids: Vec<libc::pid_t> = children.filter_map(|pid| pid.try_into().ok()).collect();
    for pid in &pids {
        // SAFETY: a plain call. A child that has ended meanwhile is still ours, so the signal can reach nobody else.
        unsafe { libc::kill(*pid, signal) };
    }
    Ok(pids.len())
}

struct Seen {
    pid: u32,
    status: Status,
    usage: Usage,
}

/// struct rusage as the kernel writes it, whatever the C library's own looks like.
#[repr(C)]
struct KernelUsage {
    user: [libc::c_long; 2],
    system: [libc::c_long; 2],
    max_rss_kib: libc::c_long,
    rest: [libc::c_long; 13],
}

impl KernelUsage {
    fn usage(&self) -> Usage {
        #[allow(clippy::useless_conversion)] // c_long is 32 bits wide on some targets.
        let wide = |v: libc::c_long| u64::try_from(i64::from(v)).unwrap_or(0);
        let time = |t: &[libc::c_long; 2]| Duration::from_secs(wide(t[0])) + Duration::from_micros(wide(t[1]));
        Usage { cpu: time(&self.user) + time(&self.system), max_rss: wide(self.max_rss_kib).saturating_mul(1024) }
    }
}

/// waitid(2) with the resource usage that only the raw call gives. `None`: nothing has ended (WNOHANG).
fn wait_id(kind: libc::idtype_t, id: libc::id_t, options: libc::c_int) -> io::Result<Option<Seen>> {
    // SAFETY: both are plain data, for which all zeros is valid.
    let (mut info, mut usage): (libc::siginfo_t, KernelUsage) = unsafe { (mem::zeroed(), mem::zeroed()) };
    loop {
        // SAFETY: `info` and `usage` have the layout that the kernel writes.
        let result = unsafe { libc::syscall(libc::SYS_waitid, kind, id, &raw mut info, options, &raw mut usage) };
        match check_long(result) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
            Ok(_) => break,
        }
    }
    // SAFETY: waitid succeeded, so these fields are the ones in use (all zero when nothing has ended).
    let (pid, number) = unsafe { (info.si_pid(), info.si_status()) };
    let status = if info.si_code == libc::CLD_EXITED { Status::Code(number) } else { Status::Signal(number) };
    let pid = u32::try_from(pid).unwrap_or(0);
    Ok((pid != 0).then(|| Seen { pid, status, usage: usage.usage() }))
}

/// `check` for raw system calls that answer a small number.
fn check_long(result: libc::c_long) -> io::Result<libc::c_int> {
    check(libc::c_int::try_from(result).unwrap_or(-1))
}
