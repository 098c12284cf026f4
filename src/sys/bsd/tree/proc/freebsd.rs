//! The process table of FreeBSD.

use super::super::super::wait::duration;
use super::{Cost, Stat, boot_time, micros, pages, records, small, strings, sysctl, text};
use std::time::Duration;

/// Room for this many processes is tried first.
const USUAL: usize = 256;

pub(super) fn all() -> Vec<Stat> {
    read(&[libc::CTL_KERN, libc::KERN_PROC, libc::KERN_PROC_PROC], USUAL)
}

pub(super) fn one(pid: libc::pid_t) -> Option<Stat> {
    read(&[libc::CTL_KERN, libc::KERN_PROC, libc::KERN_PROC_PID, pid], 1).pop()
}

fn read(name: &[libc::c_int], count: usize) -> Vec<Stat> {
    let size = size_of::<libc::kinfo_proc>();
    let Ok(bytes) = sysctl(name, count * size) else { return Vec::new() };
    // Start times are given by the clock as it is set now; less the time of the boot they stay what they are.
    let booted = boot_time().map_or(0, |t| micros(t.tv_sec, t.tv_usec));
    // SAFETY: plain numbers, and pointers of the kernel that are never used.
    let found: Vec<libc::kinfo_proc> = unsafe { records(&bytes) };
    found.iter().filter(|k| usize::try_from(k.ki_structsize) == Ok(size)).map(|k| stat(k, booted)).collect()
}

fn stat(k: &libc::kinfo_proc, booted: u64) -> Stat {
    Stat {
        pid: small(k.ki_pid),
        name: text(&k.ki_comm),
        zombie: k.ki_stat == libc::SZOMB,
        parent: small(k.ki_ppid),
        group: small(k.ki_pgid),
        session: small(k.ki_sid),
        start: micros(k.ki_start.tv_sec, k.ki_start.tv_usec).wrapping_sub(booted),
        cost: Cost {
            cpu: Duration::from_micros(k.ki_runtime) + duration(k.ki_childtime),
            resident: pages(k.ki_rssize),
        },
    }
}

pub(super) fn environment(pid: libc::pid_t) -> Option<Vec<Vec<u8>>> {
    let bytes = sysctl(&[libc::CTL_KERN, libc::KERN_PROC, libc::KERN_PROC_ENV, pid], 16 * 1024).ok()?;
    Some(strings(&bytes))
}

pub(super) fn arguments(pid: libc::pid_t) -> Option<Vec<Vec<u8>>> {
    let bytes = sysctl(&[libc::CTL_KERN, libc::KERN_PROC, libc::KERN_PROC_ARGS, pid], 4096).ok()?;
    Some(strings(&bytes))
}

pub(in crate::sys::os) fn boot_name() -> Option<String> {
    boot_time().map(|t| format!("boot-{}", t.tv_sec))
}
