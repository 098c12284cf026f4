//! The clocks, read in one place, and local time.

use crate::base::time::{Mono, Now, Wall};
use core::time::Duration;

/// Counts only while the machine is awake.
#[cfg(target_os = "macos")]
const AWAKE: libc::clockid_t = libc::CLOCK_UPTIME_RAW;
#[cfg(target_os = "openbsd")]
const AWAKE: libc::clockid_t = libc::CLOCK_UPTIME;
#[cfg(not(any(target_os = "macos", target_os = "openbsd")))]
const AWAKE: libc::clockid_t = libc::CLOCK_MONOTONIC;

/// Counts also while the machine sleeps; the awake one again where there is none such.
#[cfg(target_os = "linux")]
const ALL: libc::clockid_t = libc::CLOCK_BOOTTIME;
#[cfg(target_os = "macos")]
const ALL: libc::clockid_t = libc::CLOCK_MONOTONIC_RAW;
#[cfg(not(any(target_os = "linux", target_os = "macos")))]
const ALL: libc::clockid_t = AWAKE;

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

/// How long the machine has slept since it was booted; zero where the system does not tell.
#[must_use]
pub fn slept() -> Duration {
    let since = |clock| {
        let t = read(clock);
        Duration::new(u64::try_from(t.tv_sec).unwrap_or(0), u32::try_from(t.tv_nsec).unwrap_or(0))
    };
    since(ALL).saturating_sub(since(AWAKE))
}

/// Seconds that the local time of this process is ahead of UTC at that moment; 0 where that cannot be told.
#[must_use]
pub fn local_offset(wall: Wall) -> i64 {
    // time_t has 32 bits on some targets and 64 on others. On musl its name is deprecated, as its width will change.
    #[allow(clippy::unnecessary_fallible_conversions, deprecated)]
    let secs = libc::time_t::try_from(wall.0.div_euclid(1000)).unwrap_or_default();
    // SAFETY: tm is plain data, for which zeros (and null for the name of the zone) are a valid value.
    let mut local: libc::tm = unsafe { core::mem::zeroed() };
    // SAFETY: both point to live values of the right type for the length of the call.
    if unsafe { libc::localtime_r(&raw const secs, &raw mut local) }.is_null() {
        return 0;
    }
    // tm_gmtoff is 32 bits wide on some targets and 64 on others.
    #[allow(clippy::useless_conversion)]
    i64::from(local.tm_gmtoff)
}

fn read(clock: libc::clockid_t) -> libc::timespec {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `t` is a valid timespec to write to for the length of the call.
    unsafe { libc::clock_gettime(clock, &raw mut t) };
    t
}
