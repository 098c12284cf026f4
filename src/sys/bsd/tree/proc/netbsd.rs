//! The process table of NetBSD.

use super::{Cost, Stat, boot_time, micros, pages, records, small, strings, sysctl, text};
use std::time::Duration;

/// Processes that are asked for at most.
const MOST: libc::c_int = 100_000;
/// Room for this many is tried first.
const USUAL: usize = 256;
/// State of a process that has ended, as `p_realstat` tells it.
const ZOMBIE: u64 = 5;
/// The kind of list that KERN_PROC_ARGS gives: the arguments.
const ARGUMENTS: libc::c_int = 1;

pub(super) fn all() -> Vec<Stat> {
    read(libc::KERN_PROC_ALL, 0, USUAL)
}

pub(super) fn one(pid: libc::pid_t) -> Option<Stat> {
    read(libc::KERN_PROC_PID, pid, 1).pop()
}

fn read(kind: libc::c_int, which: libc::c_int, count: usize) -> Vec<Stat> {
    let size = size_of::<libc::kinfo_proc2>();
    let Ok(each) = libc::c_int::try_from(size) else { return Vec::new() };
    let name = [libc::CTL_KERN, libc::KERN_PROC2, kind, which, each, MOST];
    let Ok(bytes) = sysctl(&name, count * size) else { return Vec::new() };
    // SAFETY: plain numbers alone.
    let found: Vec<libc::kinfo_proc2> = unsafe { records(&bytes) };
    found.iter().map(stat).collect()
}

fn stat(k: &libc::kinfo_proc2) -> Stat {
    let time = |secs: u32, micros: u32| Duration::from_secs(secs.into()) + Duration::from_micros(micros.into());
    Stat {
        pid: small(k.p_pid),
        name: text(&k.p_comm),
        zombie: k.p_realstat == ZOMBIE,
        parent: small(k.p_ppid),
        group: small(k.p__pgid),
        session: small(k.p_sid),
        start: micros(k.p_ustart_sec.into(), k.p_ustart_usec.into()),
        cost: Cost {
            cpu: time(k.p_rtime_sec, k.p_rtime_usec) + time(k.p_uctime_sec, k.p_uctime_usec),
            resident: pages(k.p_vm_rssize),
        },
    }
}

pub(super) fn environment(pid: libc::pid_t) -> Option<Vec<Vec<u8>>> {
    let bytes = sysctl(&[libc::CTL_KERN, libc::KERN_PROC_ARGS, pid, libc::KERN_PROC_ENV], 16 * 1024).ok()?;
    Some(strings(&bytes))
}

pub(super) fn arguments(pid: libc::pid_t) -> Option<Vec<Vec<u8>>> {
    let bytes = sysctl(&[libc::CTL_KERN, libc::KERN_PROC_ARGS, pid, ARGUMENTS], 4096).ok()?;
    Some(strings(&bytes))
}

pub(in crate::sys::os) fn boot_name() -> Option<String> {
    boot_time().map(|t| format!("boot-{}", t.tv_sec))
}
