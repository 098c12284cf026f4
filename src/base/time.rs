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

    /// So long before this moment, or when the clock began.
    #[must_use]
    pub fn before(self, span: Duration) -> Mono {
        Mono(self.0.saturating_sub(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// The earlier of two moments, each of which may never come.
#[must_use]
pub fn sooner(a: Option<Mono>, b: Option<Mono>) -> Option<Mono> {
    match (a, b) {
        (Some(a), Some(b)) => Some(if a <= b { a } else { b }),
        (one, None) | (None, one) => one,
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
        let (year, month, day) = date(days);
        (year, month, day, part(ms / 3_600_000), part(ms / 60_000 % 60), part(ms / 1000 % 60), part(ms % 1000))
    }
}

/// Year, month and day of a date that is so many days after 1970-01-01, by the proleptic Gregorian calendar.
#[must_use]
pub fn date(days: i64) -> (i64, u32, u32) {
    // Days are counted from 0000-03-01, so that the leap day is the last of its year.
    let z = days + 719_468;
    let (era, doe) = (z.div_euclid(146_097), z.rem_euclid(146_097));
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let part = |v: i64| u32::try_from(v).unwrap_or(0);
    (yoe + era * 400 + i64::from(month <= 2), part(month), part(doy - (153 * mp + 2) / 5 + 1))
}

/// Days from 1970-01-01 to a date of the proleptic Gregorian calendar.
#[must_use]
pub fn days(year: i64, month: u32, day: u32) -> i64 {
    let y = year - i64::from(month <= 2);
    let (era, yoe) = (y.div_euclid(400), y.rem_euclid(400));
    let mp = i64::from((month + 9) % 12);
    let doy = (153 * mp + 2) / 5 + i64::from(day) - 1;
    era * 146_097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719_468
}

/// A date and a time of day as people write them, without a zone: year, month, day, hour, minute, second, millisecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Civil {
    pub year: i32,
    pub month: u32,
    pub day: u32,
    pub hour: u32,
    pub minute: u32,
    pub second: u32,
    pub milli: u32,
}

impl Civil {
    /// Reads `2026-11-20`, `2026-11-20T18:09`, with seconds and their fraction or without; a space may stand for the
    /// `T`. Answers what follows it. `None` for what is no such date.
    #[must_use]
    pub fn read(text: &str) -> Option<(Civil, &str)> {
        let (year, rest) = digits(text, 4)?;
        let (month, rest) = digits(rest.strip_prefix('-')?, 2)?;
        let (day, rest) = digits(rest.strip_prefix('-')?, 2)?;
        let year = i32::try_from(year).ok()?;
        let mut civil = Civil { year, month, day, hour: 0, minute: 0, second: 0, milli: 0 };
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let last = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        let length = *last.get(usize::try_from(month).ok()?.checked_sub(1)?)?;
        if day == 0 || day > length {
            return None;
        }
        let Some(time) = rest.strip_prefix(['T', 't', ' ']) else { return Some((civil, rest)) };
        let (hour, rest) = digits(time, 2)?;
        let (minute, rest) = digits(rest.strip_prefix(':')?, 2)?;
        (civil.hour, civil.minute) = (hour, minute);
        let mut rest = rest;
        if let Some(seconds) = rest.strip_prefix(':') {
            (civil.second, rest) = digits(seconds, 2)?;
            if let Some(fraction) = rest.strip_prefix('.') {
                let length = fraction.bytes().take_while(u8::is_ascii_digit).count();
                let first: u32 = format!("{:0<3.3}", fraction.get(..length)?).parse().ok()?;
                (civil.milli, rest) = (first, fraction.get(length..).filter(|_| length > 0)?);
            }
        }
        // A leap second counts as the first of the next minute.
        (hour < 24 && minute < 60 && civil.second <= 60).then_some((civil, rest))
    }

    /// The moment at which clocks in UTC show this.
    #[must_use]
    pub fn in_utc(self) -> Wall {
        let seconds = i64::from(self.hour) * 3600 + i64::from(self.minute) * 60 + i64::from(self.second);
        let days = days(i64::from(self.year), self.month, self.day);
        Wall((days * 86_400 + seconds) * 1000 + i64::from(self.milli))
    }
}

fn digits(text: &str, count: usize) -> Option<(u32, &str)> {
    let (number, rest) = text.split_at_checked(count)?;
    if !number.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some((number.parse().ok()?, rest))
}

impl Wall {
    /// Reads RFC 3339 with a zone, `Z` or `+02:00`. `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Wall> {
        let (civil, zone) = Civil::read(text)?;
        if text.len() <= 10 {
            return None;
        }
        let utc = civil.in_utc();
        if matches!(zone, "Z" | "z") {
            return Some(utc);
        }
        let (sign, zone) =
            zone.strip_prefix('+').map(|z| (1, z)).or_else(|| zone.strip_prefix('-').map(|z| (-1, z)))?;
        let (hours, rest) = digits(zone, 2)?;
        let (minutes, rest) = digits(rest.strip_prefix(':')?, 2)?;
        if hours > 23 || minutes > 59 || !rest.is_empty() {
            return None;
        }
        Some(Wall(utc.0 - sign * i64::from(hours * 60 + minutes) * 60_000))
    }

    /// Bytes of the stamp at the beginning of a line: its time and a space.
    pub const STAMP: usize = 25;

    /// The time at the beginning of a line, where that is exactly as `Display` writes it, with a space behind it.
    #[must_use]
    pub fn of_line(line: &[u8]) -> Option<Wall> {
        let stamp = line.get(..Wall::STAMP)?;
        if stamp.get(23..) != Some(b"Z ".as_slice()) || stamp.get(10) != Some(&b'T') || stamp.get(19) != Some(&b'.') {
            return None;
        }
        Wall::parse(core::str::from_utf8(stamp.get(..24)?).ok()?)
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
    fn times_are_read_as_people_write_them() {
        for ms in [0, 951_782_400_000, 1_795_197_378_123, -1, 253_402_300_799_999, 1_709_164_800_000] {
            assert_eq!(Wall::parse(&Wall(ms).to_string()), Some(Wall(ms)));
            let line = format!("{} text", Wall(ms));
            assert_eq!(Wall::of_line(line.as_bytes()), Some(Wall(ms)));
        }
        let at = Wall::parse("2026-11-20T17:56:18Z");
        for same in ["2026-11-20T18:56:18+01:00", "2026-11-20 12:26:18-05:30", "2026-11-20t17:56:18.000000z"] {
            assert_eq!(Wall::parse(same), at, "{same}");
        }
        assert_eq!(Wall::parse("2026-11-20T17:56:18.5Z"), at.map(|w| Wall(w.0 + 500)));
        for wrong in [
            "",
            "2026-11-20",
            "2026-11-20T17:56:18",
            "2026-11-31T17:56:18Z",
            "2025-02-29T17:56:18Z",
            "2026-11-20T24:00:00Z",
            "2026-11-20T17:56:18.Z",
            "2026-11-20T17:56:18+1:00",
            "2026-11-20T17:56:18Zx",
            "26-11-20T17:56:18Z",
            "2026-\u{e4}1-20T17:56:18Z",
            "2026-00-20T17:56:18Z",
        ] {
            assert_eq!(Wall::parse(wrong), None, "{wrong}");
        }
        for no_stamp in ["2026-11-20T17:56:18Z text", "2026-11-20T17:56:18.123Z", "2026-11-20 17:56:18.123Z x", "x"] {
            assert_eq!(Wall::of_line(no_stamp.as_bytes()), None, "{no_stamp}");
        }
        assert_eq!(Civil::read("2024-02-29 x").map(|(c, rest)| (c.day, rest)), None, "a space wants a time behind it");
        assert_eq!(Civil::read("2024-02-29").map(|(c, rest)| (c.day, rest)), Some((29, "")));
    }

    #[test]
    fn differences_never_wrap() {
        assert_eq!(Mono(5).since(Mono(9)), Duration::ZERO);
        assert_eq!(Wall(5).since(Wall(i64::MAX)), Duration::ZERO);
        assert_eq!(Mono(1) + Duration::MAX, Mono(u64::MAX));
    }
}
