//! Durations and sizes as text: parsing what people write, printing for people, and one canonical form that parses
//! back. Integer arithmetic throughout, so that "0.1s" is exactly 100 ms. Touches nothing.

use core::fmt::Write as _;
use core::time::Duration;

/// What a duration looks like, for messages.
pub const DURATION_FORMS: &str = r#""100ms", "1.5s", "30s", "5m", "2h", "1d" or "1h30m""#;
/// What a size looks like, for messages.
pub const SIZE_FORMS: &str = r#""512", "64kB", "10MB", "1.5GB" (powers of 1000), or "64KiB", "10MiB" (powers of 1024)"#;

/// Units of time with their nanoseconds, smallest first. Spellings of one unit stand together, the canonical one first.
const TIMES: [(&str, u64); 8] = [
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
];

/// Units of size with their bytes, smallest first, in the spelling that is printed.
const SIZES: [(&str, u64); 11] = [
    ("", 1),
    ("kB", 1_000),
    ("KiB", 1 << 10),
    ("MB", 1_000_000),
    ("MiB", 1 << 20),
    ("GB", 1_000_000_000),
    ("GiB", 1 << 30),
    ("TB", 1_000_000_000_000),
    ("TiB", 1 << 40),
    ("PB", 1_000_000_000_000_000),
    ("PiB", 1 << 50),
];

/// Reads a duration: one or more parts of a number and a unit (us, ms, s, m or min, h, d), largest unit first, or a
/// bare `0`. Only the last part may have a fraction. Any number of nanoseconds up to 2^64-1 (584 years) can be written.
///
/// # Errors
/// A sentence that says what is accepted.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let garbage = || format!("not a duration: write a number and a unit, as in {DURATION_FORMS}");
    let (mut rest, mut total, mut last_unit) = (text, 0_u128, u64::MAX);
    while !rest.is_empty() {
        let (number, after) = Number::split(rest).ok_or_else(garbage)?;
        let (word, after) = split_word(after);
        if word.is_empty() {
            return Err(format!("a duration needs a unit, as in {DURATION_FORMS}"));
        }
        let nanos = time_unit(word).ok_or_else(garbage)?;
        let after = after.trim_start();
        if nanos >= last_unit {
            return Err("the units of a duration come once each and largest first, as in \"1h30m\"".to_owned());
        }
        if number.fraction_digits > 0 && !after.is_empty() {
            return Err("only the last number of a duration may have a fraction, as in \"1m1.5s\"".to_owned());
        }
        let part = number.times(nanos).ok_or("finer than a nanosecond, or too long for a duration")?;
        total = total.saturating_add(part);
        last_unit = nanos;
        rest = after;
    }
    if last_unit == u64::MAX {
        return Err(garbage());
    }
    match u64::try_from(total) {
        Ok(nanos) => Ok(Duration::from_nanos(nanos)),
        Err(_) => Err("too long for a duration: at most 213503d".to_owned()),
    }
}

/// A longer spelling of a unit.
const ALSO: (&str, &str) = ("min", "m");

fn time_unit(word: &str) -> Option<u64> {
    if word == ALSO.0 {
        return time_unit(ALSO.1);
    }
    TIMES.iter().find(|(name, _)| *name == word).map(|(_, nanos)| *nanos)
}

/// Reads a size in bytes: a number alone, or with a unit of powers of 1000 (k, M, G, T, P, with or without B) or of
/// 1024 (Ki, Mi, ... or KiB, MiB, ...). Upper and lower case are the same.
///
/// # Errors
/// A sentence that says what is accepted.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let garbage = || format!("not a size: write a number of bytes with or without a unit, as in {SIZE_FORMS}");
    let (number, rest) = Number::split(text.trim()).ok_or_else(garbage)?;
    let bytes = size_unit(rest.trim_start()).ok_or_else(garbage)?;
    let Some(total) = number.times(bytes) else {
        return Err("a size is a whole number of bytes below 16 EiB".to_owned());
    };
    u64::try_from(total).map_err(|_| "too large: a size is below 16 EiB".to_owned())
}

fn size_unit(word: &str) -> Option<u64> {
    let word = word.to_ascii_lowercase();
    let prefix = word.strip_suffix('b').unwrap_or(&word);
    SIZES
        .iter()
        .find(|(name, _)| {
            let name = name.to_ascii_lowercase();
            name.strip_suffix('b').unwrap_or(&name) == prefix
        })
        .map(|(_, bytes)| *bytes)
}

const NUMBER: &str = r"[0-9]+(\.[0-9]+)?\s*";

/// What `parse_duration` takes, as a regular expression that any engine knows. It does not say that there is a part at
/// all, nor that only the last number may have a fraction: that is `DURATION_NOT`.
#[must_use]
pub fn duration_pattern() -> String {
    let mut parts = String::new();
    let mut units: Vec<u64> = TIMES.iter().map(|(_, nanos)| *nanos).collect();
    units.dedup();
    for unit in units.into_iter().rev() {
        let names = TIMES.iter().filter(|(_, nanos)| *nanos == unit).map(|(name, _)| *name);
        let also = Some(ALSO.0).filter(|_| time_unit(ALSO.0) == Some(unit));
        let _ = write!(parts, r"({NUMBER}({})\s*)?", names.chain(also).collect::<Vec<_>>().join("|"));
    }
    format!(r"^\s*(0\s*|{parts})$")
}

/// What a duration that fits the pattern does not have: a number after one with a fraction.
pub const DURATION_NOT: &str = r"\.[0-9]+\s*[^0-9.\s]+\s*[0-9]";

/// What `parse_size` takes, as a regular expression without its end.
#[must_use]
pub fn size_pattern() -> String {
    let prefixes = SIZES.iter().map(|(name, _)| name.strip_suffix('B').unwrap_or(name)).filter(|p| !p.is_empty());
    let prefixes: Vec<String> = prefixes.map(any_case).collect();
    format!(r"^\s*{NUMBER}({})?[bB]?\s*", prefixes.join("|"))
}

/// A word as a regular expression that does not mind the case of its letters.
#[must_use]
pub fn any_case(word: &str) -> String {
    let letter = |c: char| match c.is_ascii_alphabetic() {
        true => format!("[{}{}]", c.to_ascii_lowercase(), c.to_ascii_uppercase()),
        false => c.to_string(),
    };
    word.chars().map(letter).collect()
}

/// A decimal number without sign or exponent, exactly as written.
struct Number {
    digits: u128,
    fraction_digits: u32,
}

impl Number {
    /// The number at the start of a text and what follows it. `None` when there is none, or one with more than 30
    /// digits.
    fn split(text: &str) -> Option<(Number, &str)> {
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, rest) = text.split_at_checked(end)?;
        let (whole, fraction) = match number.split_once('.') {
            Some((w, f)) if !f.is_empty() => (w, f),
            Some(_) => return None,
            None => (number, ""),
        };
        if whole.is_empty() || whole.len() + fraction.len() > 30 {
            return None;
        }
        let mut digits = 0_u128;
        for c in whole.chars().chain(fraction.chars()) {
            digits = digits * 10 + u128::from(c.to_digit(10)?);
        }
        Some((Number { digits, fraction_digits: u32::try_from(fraction.len()).ok()? }, rest))
    }

    /// The number times a unit, if that is a whole number.
    fn times(&self, unit: u64) -> Option<u128> {
        let (scale, product) = (10_u128.checked_pow(self.fraction_digits)?, self.digits.checked_mul(unit.into())?);
        (product % scale == 0).then_some(product / scale)
    }
}

/// The letters at the start of a text and what follows them.
fn split_word(text: &str) -> (&str, &str) {
    let text = text.trim_start();
    let end = text.find(|c: char| !c.is_alphabetic()).unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, ""))
}

/// The form that `parse_duration` reads back to the same value: a whole number of the largest unit that fits, as in
/// `100ms`, `90s`, `2h`. Zero is `0s`. Durations above 584 years print as the longest that can be written.
#[must_use]
pub fn canonical_duration(d: Duration) -> String {
    let nanos = u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
    if nanos == 0 {
        return "0s".to_owned();
    }
    match TIMES.iter().rev().find(|(name, unit)| name.is_ascii() && nanos.is_multiple_of(*unit)) {
        Some((name, unit)) => format!("{}{name}", nanos / unit),
        None => {
            let fraction = format!("{:03}", nanos % 1_000);
            format!("{}.{}us", nanos / 1_000, fraction.trim_end_matches('0'))
        }
    }
}

/// The form that `parse_size` reads back to the same value: a whole number of the unit that makes it shortest, as in
/// `10MB`, `64KiB`, `512`.
#[must_use]
pub fn canonical_size(bytes: u64) -> String {
    let mut best = ("", bytes);
    for (name, unit) in SIZES {
        if bytes.is_multiple_of(unit) && bytes / unit < best.1 {
            best = (name, bytes / unit);
        }
    }
    format!("{}{}", best.1, best.0)
}

/// A duration for people, cut to what matters: `250 ms`, `1.6 s`, `45 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`.
#[must_use]
pub fn human_duration(d: Duration) -> String {
    let (secs, micros) = (d.as_secs(), d.subsec_micros());
    match secs {
        0 if micros == 0 => "0 s".to_owned(),
        0 if micros < 1_000 => format!("{micros} \u{b5}s"),
        0 => format!("{} ms", micros / 1_000),
        1..=9 if micros >= 100_000 => format!("{secs}.{} s", micros / 100_000),
        1..=59 => format!("{secs} s"),
        60..=3_599 => two_parts(secs / 60, "min", secs % 60, "s"),
        3_600..=86_399 => two_parts(secs / 3_600, "h", secs % 3_600 / 60, "min"),
        _ => two_parts(secs / 86_400, "d", secs % 86_400 / 3_600, "h"),
    }
}

fn two_parts(large: u64, large_unit: &str, small: u64, small_unit: &str) -> String {
    let mut s = format!("{large} {large_unit}");
    if small > 0 {
        // Writing to a String cannot fail.
        let _ = write!(s, " {small} {small_unit}");
    }
    s
}

/// A size for people, in powers of 1000 and rounded to one decimal: `512 B`, `1.5 kB`, `10.0 MB`.
#[must_use]
pub fn human_size(bytes: u64) -> String {
    if bytes < 1_000 {
        return format!("{bytes} B");
    }
    let mut unit = 1_000_u64;
    for name in ["kB", "MB", "GB", "TB"] {
        // Tenths of the unit, rounded; one that rounds up to the next unit is printed in that.
        let tenths = (u128::from(bytes) * 10 + u128::from(unit) / 2) / u128::from(unit);
        if tenths < 10_000 {
            return format!("{}.{} {name}", tenths / 10, tenths % 10);
        }
        unit *= 1_000;
    }
    let tenths = (u128::from(bytes) * 10 + u128::from(unit) / 2) / u128::from(unit);
    format!("{}.{} PB", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn durations_are_read_exactly() {
        for (text, want) in [
            ("0", ms(0)),
            ("0s", ms(0)),
            ("0ms", ms(0)),
            ("100ms", ms(100)),
            ("1.5s", ms(1_500)),
            ("0.1s", ms(100)),
            ("30s", ms(30_000)),
            ("5m", ms(300_000)),
            ("5min", ms(300_000)),
            ("2h", ms(7_200_000)),
            ("1d", ms(86_400_000)),
            ("1h30m", ms(5_400_000)),
            ("1h 30m", ms(5_400_000)),
            ("1d2h3m4.5s", ms(93_784_500)),
            ("3 min 20 s", ms(200_000)),
            ("250us", Duration::from_micros(250)),
            ("250\u{b5}s", Duration::from_micros(250)),
            ("250\u{3bc}s", Duration::from_micros(250)),
            ("0.001us", Duration::from_nanos(1)),
            (" 7s ", ms(7_000)),
            ("18446744073709551.615us", Duration::from_nanos(u64::MAX)),
        ] {
            assert_eq!(parse_duration(text), Ok(want), "{text}");
        }
    }

    #[test]
    fn wrong_durations_say_what_is_accepted() {
        for (text, part) in [
            ("", "not a duration"),
            ("abc", "\"100ms\""),
            ("30", "needs a unit"),
            ("1h30", "needs a unit"),
            ("-5s", "not a duration"),
            ("5x", "not a duration"),
            ("5S", "not a duration"),
            (".5s", "not a duration"),
            ("5.s", "not a duration"),
            ("1.2.3s", "not a duration"),
            ("1e3s", "not a duration"),
            ("30m1h", "largest first"),
            ("1h1h", "once each"),
            ("1.5h30m", "only the last number"),
            ("0.0001us", "finer than a nanosecond"),
            ("213504d", "at most 213503d"),
            ("18446744073709551.616us", "at most 213503d"),
            ("9999999999999999999999999999999s", "not a duration"),
            ("\u{661}s", "not a duration"),
        ] {
            let error = parse_duration(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn sizes_are_read_exactly() {
        for (text, want) in [
            ("0", 0),
            ("512", 512),
            ("512B", 512),
            ("512 b", 512),
            ("64k", 64_000),
            ("64K", 64_000),
            ("64kB", 64_000),
            ("64Ki", 65_536),
            ("64KiB", 65_536),
            ("10MB", 10_000_000),
            ("10mb", 10_000_000),
            ("10 MB", 10_000_000),
            ("10.0 MB", 10_000_000),
            ("10MiB", 10 << 20),
            ("1.5GB", 1_500_000_000),
            ("1.5GiB", 3 << 29),
            ("2TB", 2_000_000_000_000),
            ("3PiB", 3 << 50),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(parse_size(text), Ok(want), "{text}");
        }
    }

    #[test]
    fn wrong_sizes_say_what_is_accepted() {
        for (text, part) in [
            ("", "not a size"),
            ("MB", "\"10MB\""),
            ("10XB", "not a size"),
            ("-1", "not a size"),
            ("10MBB", "not a size"),
            ("1.5", "whole number of bytes"),
            ("0.0001kB", "whole number of bytes"),
            ("18446744073709551616", "too large"),
            ("17EB", "not a size"),
            ("18447PB", "too large"),
        ] {
            let error = parse_size(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn canonical_forms_are_short_and_read_back() {
        for (d, want) in [
            (ms(0), "0s"),
            (ms(100), "100ms"),
            (ms(1_600), "1600ms"),
            (ms(30_000), "30s"),
            (ms(60_000), "1m"),
            (ms(90_000), "90s"),
            (ms(7_200_000), "2h"),
            (ms(172_800_000), "2d"),
            (Duration::from_nanos(1), "0.001us"),
            (Duration::from_nanos(1_500), "1.5us"),
        ] {
            assert_eq!(canonical_duration(d), want);
        }
        for (bytes, want) in [
            (0, "0"),
            (512, "512"),
            (65_536, "64KiB"),
            (10_000_000, "10MB"),
            (1_500_000_000, "1500MB"),
            (1 << 50, "1PiB"),
        ] {
            assert_eq!(canonical_size(bytes), want);
        }
        let mut n = 1_u64;
        for _ in 0..20_000 {
            n = n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let value = n >> (n % 61) >> 3;
            let d = Duration::from_nanos(value);
            assert_eq!(parse_duration(&canonical_duration(d)), Ok(d));
            assert_eq!(parse_size(&canonical_size(value)), Ok(value));
        }
    }

    #[test]
    fn people_get_two_parts_at_most() {
        for (d, want) in [
            (ms(0), "0 s"),
            (Duration::from_micros(7), "7 \u{b5}s"),
            (ms(250), "250 ms"),
            (ms(1_600), "1.6 s"),
            (ms(2_000), "2 s"),
            (ms(12_900), "12 s"),
            (ms(60_000), "1 min"),
            (ms(200_000), "3 min 20 s"),
            (ms(7_500_000), "2 h 5 min"),
            (ms(273_600_000), "3 d 4 h"),
        ] {
            assert_eq!(human_duration(d), want);
        }
        for (bytes, want) in [
            (0, "0 B"),
            (999, "999 B"),
            (1_500, "1.5 kB"),
            (999_949, "999.9 kB"),
            (999_950, "1.0 MB"),
            (10_000_000, "10.0 MB"),
            (u64::MAX, "18446.7 PB"),
        ] {
            assert_eq!(human_size(bytes), want);
        }
    }
}
