//! The process table of OpenBSD.

use super::{Cost, Stat, boot_time, micros, pages, records, small, strings, sysctl, text};
use std::time::Duration;

/// Processes that are asked for at most.
const MOST: libc::c_int = 100_000;
/// Room for this many is tried first.
const USUAL: usize = 256;
/// States of a process that has ended, as `p_stat` tells them.
const ZOMBIE: [i8; 2] = [5, 6];
/// The kind of list that KERN_PROC_ARGS gives: the arguments.
const ARGUMENTS: libc::c_int = 1;

pub(super) fn all() -> Vec<Stat> {
    read(libc::KERN_PROC_ALL, 0, USUAL)
}

pub(super) fn one(pid: libc::pid_t) -> Option<Stat> {
    read(libc::KERN_PROC_PID, pid, 1).pop()
}

fn read(kind: libc::c_int, which: libc::c_int, count: usize) -> Vec<Stat> {
    let size = size_of::<libc::kinfo_proc>();
    let Ok(each) = libc::c_int::try_from(size) else { return Vec::new() };
    let name = [libc::CTL_KERN, libc::KERN_PROC, kind, which, each, MOST];
    let Ok(bytes) = sysctl(&name, count * size) else { return Vec::new() };
    // SAFETY: plain numbers alone.
    let found: Vec<libc::kinfo_proc> = unsafe { records(&bytes) };
    found.iter().map(stat).collect()
}

fn stat(k: &libc::kinfo_proc) -> Stat {
    let time = |secs: u32, micros: u32| Duration::from_secs(secs.into()) + Duration::from_micros(micros.into());
    Stat {
        pid: small(k.p_pid),
        name: text(&k.p_comm),
        zombie: ZOMBIE.contains(&k.p_stat),
        parent: small(k.p_ppid),
        group: small(k.p__pgid),
        session: small(k.p_sid),
        start: micros(i64::try_from(k.p_ustart_sec).unwrap_or(0), k.p_ustart_usec.into()),
        cost: Cost {
            cpu: time(k.p_rtime_sec, k.p_rtime_usec) + time(k.p_uctime_sec, k.p_uctime_usec),
            resident: pages(k.p_vm_rssize),
        },
    }
}

pub(super) fn environment(pid: libc::pid_t) -> Option<Vec<Vec<u8>>> {
    list(pid, libc::KERN_PROC_ENV)
}

pub(super) fn arguments(pid: libc::pid_t) -> Option<Vec<Vec<u8>>> {
    list(pid, ARGUMENTS)
}

/// A list of strings, which comes behind the pointers to them and a null pointer.
fn list(pid: libc::pid_t, kind: libc::c_int) -> Option<Vec<Vec<u8>>> {
    /// The kernel gives no more for one process.
    const ROOM: usize = 512 * 1024;
    const POINTER: usize = size_of::<usize>();
    let bytes = sysctl(&[libc::CTL_KERN, libc::KERN_PROC_ARGS, pid, kind], ROOM).ok()?;
    let pointers = bytes.chunks_exact(POINTER).take_while(|p| p.iter().any(|b| *b != 0)).count();
    let text = strings(bytes.get((pointers + 1) * POINTER..)?);
    Some(text.into_iter().take(pointers).collect())
}

pub(in crate::sys::os) fn boot_name() -> Option<String> {
    boot_time().map(|t| format!("boot-{}", t.tv_sec))
}
