//! Reading the process table. A process that has gone is `None`, never an error.

#[cfg(target_os = "dragonfly")]
#[path = "dragonfly.rs"]
mod os;
#[cfg(target_os = "freebsd")]
#[path = "freebsd.rs"]
mod os;
#[cfg(target_os = "macos")]
#[path = "macos.rs"]
mod os;
#[cfg(target_os = "netbsd")]
#[path = "netbsd.rs"]
mod os;
#[cfg(target_os = "openbsd")]
#[path = "openbsd.rs"]
mod os;

use crate::sys::check;
use std::collections::BTreeMap;
use std::io;
use std::ptr;
use std::time::Duration;

pub(in crate::sys::os) use os::boot_name;

/// What the process table says of one process, as far as hob needs it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) pid: u32,
    pub(super) name: String,
    pub(super) zombie: bool,
    pub(super) parent: u32,
    pub(super) group: u32,
    pub(super) session: u32,
    /// Microseconds; with the pid it names a process for the life of the boot.
    pub(super) start: u64,
    pub(super) cost: Cost,
}

/// What a running process has cost: CPU time with that of its reaped children, and resident memory in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    pub cpu: Duration,
    pub resident: u64,
}

/// The cost of a running process, `None` when it has gone.
#[must_use]
pub fn cost(pid: u32) -> Option<Cost> {
    stat(pid).filter(|s| !s.zombie).map(|s| s.cost)
}

/// The name of a running process as the kernel keeps it, `None` when it has gone.
#[must_use]
pub fn name_of(pid: u32) -> Option<String> {
    stat(pid).filter(|s| !s.zombie).map(|s| s.name)
}

/// When a living process started, in microseconds.
#[must_use]
pub fn start_of(pid: u32) -> Option<u64> {
    stat(pid).filter(|s| !s.zombie).map(|s| s.start)
}

/// The children of a process; none when it has gone or the kernel does not tell.
#[must_use]
pub fn children_of(pid: u32) -> Vec<u32> {
    os::all().into_iter().filter(|s| s.parent == pid).map(|s| s.pid).collect()
}

/// Every process that may be seen, by pid.
pub(super) fn table() -> BTreeMap<u32, Stat> {
    os::all().into_iter().map(|s| (s.pid, s)).collect()
}

/// One process, zombies included.
pub(super) fn stat(pid: u32) -> Option<Stat> {
    os::one(libc::pid_t::try_from(pid).ok().filter(|p| *p > 0)?)
}

/// The value of a variable in the environment a process was executed with, `None` also where it may not be read.
pub(super) fn variable(pid: u32, name: &str) -> Option<String> {
    let all = os::environment(libc::pid_t::try_from(pid).ok()?)?;
    let found = all.iter().find_map(|v| v.strip_prefix(name.as_bytes())?.strip_prefix(b"="))?;
    std::str::from_utf8(found).ok().map(str::to_owned)
}

/// The command line of a process; empty when it has gone or may not be read.
pub(in crate::sys::os) fn arguments(pid: u32) -> Vec<Vec<u8>> {
    libc::pid_t::try_from(pid).ok().and_then(os::arguments).unwrap_or_default()
}

/// Parts that end with a zero byte.
fn strings(bytes: &[u8]) -> Vec<Vec<u8>> {
    let text = bytes.strip_suffix(&[0]).unwrap_or(bytes);
    text.split(|b| *b == 0).map(<[u8]>::to_vec).collect()
}

/// A fixed array that ends with a zero byte unless it is full.
fn text(array: &[libc::c_char]) -> String {
    let bytes: Vec<u8> = array.iter().map(|c| c.to_ne_bytes()[0]).take_while(|b| *b != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Microseconds of a time, 0 for a negative one.
#[cfg(not(target_os = "macos"))]
fn micros(secs: i64, micros: i64) -> u64 {
    u64::try_from(secs.saturating_mul(1_000_000).saturating_add(micros)).unwrap_or(0)
}

#[cfg(not(target_os = "macos"))]
fn pages(count: impl TryInto<u64>) -> u64 {
    // SAFETY: sysconf has no preconditions.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    count.try_into().unwrap_or(0).saturating_mul(u64::try_from(size).unwrap_or(4096))
}

fn small(value: i32) -> u32 {
    u32::try_from(value).unwrap_or(0)
}

/// One answer of sysctl(3) as bytes; `room` is how many are expected at most, more of them are asked for when it is
/// not enough.
fn sysctl(name: &[libc::c_int], room: usize) -> io::Result<Vec<u8>> {
    let mut name = name.to_vec();
    let count = libc::c_uint::try_from(name.len()).map_err(io::Error::other)?;
    /// More is no sane answer.
    const MOST: usize = 256 * 1024 * 1024;
    let mut bytes = vec![0u8; room];
    loop {
        let mut length = bytes.len();
        // SAFETY: `name` has `count` numbers, `bytes` is writable for `length`, which the call changes to what it
        // wrote.
        let result = check(unsafe {
            libc::sysctl(name.as_mut_ptr(), count, bytes.as_mut_ptr().cast(), &raw mut length, ptr::null_mut(), 0)
        });
        match result {
            Ok(_) => {
                bytes.truncate(length);
                return Ok(bytes);
            }
            Err(e) if e.raw_os_error() == Some(libc::ENOMEM) && bytes.len() < MOST => {
                bytes.resize(bytes.len().max(1024) * 2, 0);
            }
            Err(e) => return Err(e),
        }
    }
}

/// The values of one plain structure that lie one after another in an answer.
///
/// # Safety
/// Any bytes must make a valid `T`.
#[cfg(not(target_os = "macos"))]
unsafe fn records<T>(bytes: &[u8]) -> Vec<T> {
    let record = |chunk: &[u8]| {
        let mut value = std::mem::MaybeUninit::<T>::uninit();
        // SAFETY: the chunk is as long as a `T`, and by contract any bytes make one.
        unsafe {
            ptr::copy_nonoverlapping(chunk.as_ptr(), value.as_mut_ptr().cast(), size_of::<T>());
            value.assume_init()
        }
    };
    bytes.chunks_exact(size_of::<T>()).map(record).collect()
}

/// When the machine was booted, by a clock that can be set later.
#[cfg(not(target_os = "macos"))]
fn boot_time() -> Option<libc::timeval> {
    let bytes = sysctl(&[libc::CTL_KERN, libc::KERN_BOOTTIME], size_of::<libc::timeval>()).ok()?;
    // SAFETY: a timeval is plain numbers.
    unsafe { records(&bytes) }.pop()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_end_with_zero_bytes() {
        assert_eq!(strings(b"a\0bc\0\0d\0"), [&b"a"[..], b"bc", b"", b"d"]);
        assert_eq!(strings(b"a"), [b"a"]);
    }

    #[test]
    fn this_process_is_seen_with_its_cost() {
        let own = std::process::id();
        assert_eq!(stat(own).unwrap().pid, own);
        assert!(cost(own).unwrap().resident > 0);
        assert!(table().contains_key(&own));
        assert!(!arguments(own).is_empty());
        assert_eq!(start_of(own), start_of(own));
    }
}
