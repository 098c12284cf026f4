//! The process table of DragonFly, which does not show environments.

use super::super::super::wait::duration;
use super::{Cost, Stat, boot_time, micros, pages, records, small, strings, sysctl, text};
use std::mem;

/// Room for this many processes is tried first.
const USUAL: usize = 256;

pub(super) fn all() -> Vec<Stat> {
    read(&[libc::CTL_KERN, libc::KERN_PROC, libc::KERN_PROC_ALL], USUAL)
}

pub(super) fn one(pid: libc::pid_t) -> Option<Stat> {
    read(&[libc::CTL_KERN, libc::KERN_PROC, libc::KERN_PROC_PID, pid], 1).pop()
}

/// The state of a zombie, whose name in C is taken by an enumeration there.
const ZOMBIE: u32 = 4;

fn read(name: &[libc::c_int], count: usize) -> Vec<Stat> {
    let size = size_of::<libc::kinfo_proc>();
    let Ok(bytes) = sysctl(name, count * size) else { return Vec::new() };
    bytes.chunks_exact(size).filter_map(stat).collect()
}

fn stat(bytes: &[u8]) -> Option<Stat> {
    let at = mem::offset_of!(libc::kinfo_proc, kp_stat);
    let state = u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?);
    if state > ZOMBIE {
        return None;
    }
    // SAFETY: plain numbers, numbers of the kernel's addresses, and one enumeration whose value was looked at.
    let k: libc::kinfo_proc = unsafe { records(bytes) }.pop()?;
    let cpu = |r: &libc::rusage| duration(r.ru_utime) + duration(r.ru_stime);
    Some(Stat {
        pid: small(k.kp_pid),
        name: text(&k.kp_comm),
        zombie: state == ZOMBIE,
        parent: small(k.kp_ppid),
        group: small(k.kp_pgid),
        session: small(k.kp_sid),
        start: micros(k.kp_start.tv_sec, k.kp_start.tv_usec),
        cost: Cost { cpu: cpu(&k.kp_ru) + cpu(&k.kp_cru), resident: pages(k.kp_vm_rssize) },
    })
}

pub(super) fn environment(_: libc::pid_t) -> Option<Vec<Vec<u8>>> {
    None
}

pub(super) fn arguments(pid: libc::pid_t) -> Option<Vec<Vec<u8>>> {
    let bytes = sysctl(&[libc::CTL_KERN, libc::KERN_PROC, libc::KERN_PROC_ARGS, pid], 4096).ok()?;
    Some(strings(&bytes))
}

pub(in crate::sys::os) fn boot_name() -> Option<String> {
    boot_time().map(|t| format!("boot-{}", t.tv_sec))
}
