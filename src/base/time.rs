//! Time as a value: the shell reads the clocks once a turn and hands them in, so that tests can start at zero.

use core::fmt;
use core::ops::{Add, Sub};
use core::time::Duration;
use serde::{Deserialize, Serialize};

/// A reading of the monotonic clock, in nanoseconds from an arbitrary zero. It counts awake time only and is
/// comparable between the keeper and all daemons of one boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mono(pub u64);

/// A reading of the wall clock, in milliseconds since 1970-01-01T00:00:00Z. It may jump in both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Wall(pub i64);

/// Both clocks, read together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    pub mono: Mono,
    pub wall: Wall,
}

impl Mono {
    /// The time from `earlier` to `self`, zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Mono) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Mono {
    type Output = Mono;
    fn add(self, d: Duration) -> Mono {
        Mono(self.0.saturating_add(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Mono {
    type Output = Mono;
    fn sub(self, d: Duration) -> Mono {
        Mono(self.0.saturating_sub(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Wall {
    /// The time from `earlier` to `self`, zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Wall) -> Duration {
        let ms = self.0.saturating_sub(earlier.0);
        Duration::from_millis(if ms > 0 { ms.unsigned_abs() } else { 0 })
    }

    /// Year, month (1-12), day, hour, minute, second, millisecond in UTC, by the proleptic Gregorian calendar.
    #[must_use]
    pub fn utc(self) -> (i64, u32, u32, u32, u32, u32, u32) {
        let (days, ms) = (self.0.div_euclid(86_400_000), self.0.rem_euclid(86_400_000));
        let part = |v: i64| u32::try_from(v).unwrap_or(0);
        // Days are counted from 0000-03-01, so that the leap day is the last of its year.
        let z = days + 719_468;
        let (era, doe) = (z.div_euclid(146_097), z.rem_euclid(146_097));
        let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
        let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
        let mp = (5 * doy + 2) / 153;
        let month = if mp < 10 { mp + 3 } else { mp - 9 };
        let year = yoe + era * 400 + i64::from(month <= 2);
        let day = doy - (153 * mp + 2) / 5 + 1;
        (
            year,
            part(month),
            part(day),
            part(ms / 3_600_000),
            part(ms / 60_000 % 60),
            part(ms / 1000 % 60),
            part(ms % 1000),
        )
    }
}

/// RFC 3339 in UTC with milliseconds, as in `2026-11-20T18:09:38.123Z`.
impl fmt::Display for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (y, mo, d, h, mi, s, ms) = self.utc();
        write!(f, "{y:04}-{mo:02}-{d:02}T{h:02}:{mi:02}:{s:02}.{ms:03}Z")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_prints_rfc3339() {
        assert_eq!(Wall(0).to_string(), "1970-01-01T00:00:00.000Z");
        assert_eq!(Wall(951_782_400_000).to_string(), "2000-02-29T00:00:00.000Z");
        assert_eq!(Wall(1_795_197_378_123).to_string(), "2026-11-20T17:56:18.123Z");
        assert_eq!(Wall(-1).to_string(), "1969-12-31T23:59:59.999Z");
    }

    #[test]
    fn differences_never_wrap() {
        assert_eq!(Mono(5).since(Mono(9)), Duration::ZERO);
        assert_eq!(Wall(5).since(Wall(i64::MAX)), Duration::ZERO);
        assert_eq!(Mono(1) + Duration::MAX, Mono(u64::MAX));
    }
}
