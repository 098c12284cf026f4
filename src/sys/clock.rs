//! The clocks, read in one place, and local time.

use crate::base::time::{Civil, Mono, Now, Wall};

/// Counts only while the machine is awake.
#[cfg(target_os = "macos")]
const AWAKE: libc::clockid_t = libc::CLOCK_UPTIME_RAW;
#[cfg(target_os = "openbsd")]
const AWAKE: libc::clockid_t = libc::CLOCK_UPTIME;
#[cfg(not(any(target_os = "macos", target_os = "openbsd")))]
const AWAKE: libc::clockid_t = libc::CLOCK_MONOTONIC;

/// Reads both clocks. Neither call can fail on a supported system.
#[must_use]
pub fn now() -> Now {
    let mono = read(AWAKE);
    let wall = read(libc::CLOCK_REALTIME);
    let nanos = |t: &libc::timespec| u64::try_from(t.tv_nsec).unwrap_or(0);
    let secs = u64::try_from(mono.tv_sec).unwrap_or(0);
    // tv_sec is 32 bits wide on some targets and 64 on others.
    #[allow(clippy::useless_conversion)]
    let wall_secs = i64::from(wall.tv_sec);
    Now {
        mono: Mono(secs * 1_000_000_000 + nanos(&mono)),
        wall: Wall(wall_secs * 1000 + i64::try_from(nanos(&wall) / 1_000_000).unwrap_or(0)),
    }
}

fn read(clock: libc::clockid_t) -> libc::timespec {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `t` is a valid timespec to write to for the length of the call.
    unsafe { libc::clock_gettime(clock, &raw mut t) };
    t
}

/// The date on the wall here at this moment: year, month, day.
#[must_use]
pub fn local_date(wall: Wall) -> Option<(i32, u32, u32)> {
    let seconds = libc::time_t::try_from(wall.0.div_euclid(1000)).ok()?;
    // SAFETY: an all-zero tm is a valid value to be overwritten.
    let mut tm: libc::tm = unsafe { core::mem::zeroed() };
    // SAFETY: both pointers are valid for the length of the call.
    let done = unsafe { libc::localtime_r(&raw const seconds, &raw mut tm) };
    if done.is_null() {
        return None;
    }
    Some((tm.tm_year.checked_add(1900)?, u32::try_from(tm.tm_mon + 1).ok()?, u32::try_from(tm.tm_mday).ok()?))
}

/// The moment at which clocks here show this. Of two such moments one is taken, and in a gap a time beside it.
#[must_use]
pub fn of_local(civil: Civil) -> Option<Wall> {
    let part = |n: u32| libc::c_int::try_from(n).ok();
    // SAFETY: an all-zero tm is a valid value.
    let mut tm: libc::tm = unsafe { core::mem::zeroed() };
    tm.tm_year = civil.year.checked_sub(1900)?;
    tm.tm_mon = part(civil.month)? - 1;
    tm.tm_mday = part(civil.day)?;
    tm.tm_hour = part(civil.hour)?;
    tm.tm_min = part(civil.minute)?;
    tm.tm_sec = part(civil.second)?;
    // Whether it is summer time is not known.
    tm.tm_isdst = -1;
    // SAFETY: `tm` is valid for the length of the call.
    let seconds = unsafe { libc::mktime(&raw mut tm) };
    // time_t is 32 bits wide on some targets and 64 on others.
    #[allow(clippy::useless_conversion)]
    let seconds = i64::from(seconds);
    // -1 is also the second before 1970, from which no log is.
    (seconds != -1).then(|| Wall(seconds * 1000 + i64::from(civil.milli)))
}
