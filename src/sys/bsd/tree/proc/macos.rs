//! The process table of macOS.

use super::{Cost, Stat, small, strings, sysctl, text};
use std::mem;
use std::ptr;
use std::time::Duration;

pub(super) fn all() -> Vec<Stat> {
    pids().into_iter().filter_map(one).collect()
}

/// Room is made for some more than the kernel counts, as processes come while it is asked.
fn pids() -> Vec<libc::pid_t> {
    const MORE: usize = 256;
    // SAFETY: without a buffer the call only counts.
    let count = unsafe { libc::proc_listallpids(ptr::null_mut(), 0) };
    let mut found: Vec<libc::pid_t> = vec![0; usize::try_from(count).unwrap_or(0) + MORE];
    let bytes = libc::c_int::try_from(size_of_val(found.as_slice())).unwrap_or(0);
    // SAFETY: `found` is writable for `bytes`.
    let count = unsafe { libc::proc_listallpids(found.as_mut_ptr().cast(), bytes) };
    found.truncate(usize::try_from(count).unwrap_or(0));
    found.retain(|pid| *pid > 0);
    found
}

pub(super) fn one(pid: libc::pid_t) -> Option<Stat> {
    // SAFETY: plain data, for which all zeros is valid.
    let mut info: libc::proc_bsdinfo = unsafe { mem::zeroed() };
    let size = libc::c_int::try_from(size_of_val(&info)).ok()?;
    // Asking for a zombie takes a word of its own.
    const ZOMBIES_TOO: u64 = 1;
    // SAFETY: `info` is writable for `size` bytes.
    let got = unsafe { libc::proc_pidinfo(pid, libc::PROC_PIDTBSDINFO, ZOMBIES_TOO, (&raw mut info).cast(), size) };
    if got != size {
        return None;
    }
    // SAFETY: a plain call; -1 for a process that has gone.
    let session = unsafe { libc::getsid(pid) };
    let long = text(&info.pbi_name);
    Some(Stat {
        pid: info.pbi_pid,
        name: if long.is_empty() { text(&info.pbi_comm) } else { long },
        zombie: info.pbi_status == libc::SZOMB,
        parent: info.pbi_ppid,
        group: info.pbi_pgid,
        session: small(session),
        start: info.pbi_start_tvsec.saturating_mul(1_000_000).saturating_add(info.pbi_start_tvusec),
        cost: cost(pid).unwrap_or_default(),
    })
}

fn cost(pid: libc::pid_t) -> Option<Cost> {
    // SAFETY: plain data, for which all zeros is valid.
    let mut info: libc::rusage_info_v2 = unsafe { mem::zeroed() };
    // SAFETY: this kind of answer is written to such a structure.
    let failed = unsafe { libc::proc_pid_rusage(pid, libc::RUSAGE_INFO_V2, (&raw mut info).cast()) };
    let own = info.ri_user_time.saturating_add(info.ri_system_time);
    let children = info.ri_child_user_time.saturating_add(info.ri_child_system_time);
    let cost = Cost { cpu: ticks(own.saturating_add(children)), resident: info.ri_resident_size };
    (failed == 0).then_some(cost)
}

/// Times of a process are counted in ticks, whose length depends on the machine.
#[expect(deprecated, reason = "its successor is a crate for these few numbers")]
fn ticks(count: u64) -> Duration {
    let mut base = libc::mach_timebase_info { numer: 0, denom: 0 };
    // SAFETY: `base` is valid to write to.
    let failed = unsafe { libc::mach_timebase_info(&raw mut base) };
    let (numer, denom) = if failed == 0 && base.denom != 0 { (base.numer, base.denom) } else { (1, 1) };
    let nanos = u128::from(count) * u128::from(numer) / u128::from(denom);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

pub(super) fn environment(pid: libc::pid_t) -> Option<Vec<Vec<u8>>> {
    command(pid).map(|c| c.environment)
}

pub(super) fn arguments(pid: libc::pid_t) -> Option<Vec<Vec<u8>>> {
    command(pid).map(|c| c.arguments)
}

/// What a process was executed with.
#[derive(Debug, PartialEq, Eq)]
struct Command {
    arguments: Vec<Vec<u8>>,
    environment: Vec<Vec<u8>>,
}

fn command(pid: libc::pid_t) -> Option<Command> {
    /// The kernel gives no more for one process.
    const ROOM: usize = 1024 * 1024;
    parse(&sysctl(&[libc::CTL_KERN, libc::KERN_PROCARGS2, pid], ROOM).ok()?)
}

/// The number of arguments, the program's path and zero bytes behind it, then the arguments and the environment.
fn parse(bytes: &[u8]) -> Option<Command> {
    let (count, rest) = bytes.split_first_chunk::<4>()?;
    let count = usize::try_from(i32::from_ne_bytes(*count)).ok()?;
    let path = rest.iter().position(|b| *b == 0)?;
    let rest = rest.get(path..)?;
    let rest = rest.get(rest.iter().position(|b| *b != 0)?..)?;
    let mut arguments = strings(rest);
    let environment = arguments.split_off(count.min(arguments.len()));
    Some(Command { arguments, environment: environment.into_iter().take_while(|v| !v.is_empty()).collect() })
}

pub(in crate::sys::os) fn boot_name() -> Option<String> {
    let mut name = [0u8; 64];
    let mut length = name.len();
    let key = c"kern.bootsessionuuid".as_ptr();
    // SAFETY: `key` is a C string, `name` is writable for `length`, which the call changes to what it wrote.
    let failed = unsafe { libc::sysctlbyname(key, name.as_mut_ptr().cast(), &raw mut length, ptr::null_mut(), 0) };
    let found = name.get(..length).filter(|_| failed == 0)?;
    let text = std::str::from_utf8(found).ok()?.trim_end_matches('\0').trim();
    (!text.is_empty()).then(|| text.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_told_from_the_environment() {
        let mut bytes = 2i32.to_ne_bytes().to_vec();
        bytes.extend_from_slice(b"/bin/sh\0\0\0\0sh\0HOB_RUN=1\0A=b\0HOB_RUN=2\0\0noise\0");
        let found = parse(&bytes).unwrap();
        assert_eq!(found.arguments, [&b"sh"[..], b"HOB_RUN=1"]);
        assert_eq!(found.environment, [&b"A=b"[..], b"HOB_RUN=2"]);
        assert_eq!(parse(b""), None);
        assert_eq!(parse(b"\x01\0\0\0/bin/sh"), None);
    }
}
