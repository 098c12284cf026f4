//! Times on the command line: how long ago, a local time, or RFC 3339 with a zone.

use crate::base::time::{Civil, Wall};
use crate::base::units::parse_duration;
use crate::sys::clock;

/// What can be written, for messages.
const FORMS: &str = "\"18:09\" (today), \"2026-11-20 18:09:38\" (local time) or \"2026-11-20T18:09:38Z\"";

/// The moment that a text means.
///
/// # Errors
/// A sentence that says what can be written.
pub(crate) fn parse(text: &str, now: Wall) -> Result<Wall, String> {
    read(text, now).ok_or_else(|| format!("'{text}' is not a time; write \"10m\" (ago), {FORMS}"))
}

/// The same where a time to come is wanted.
///
/// # Errors
/// As [`parse`].
pub(crate) fn to_come(text: &str, now: Wall) -> Result<Wall, String> {
    read(text, now).ok_or_else(|| {
        format!("'{text}' is not a time; write {}", FORMS.replace("(today)", "(today, or the day after)"))
    })
}

fn read(text: &str, now: Wall) -> Option<Wall> {
    let text = text.trim();
    let ago = text.strip_suffix(" ago").unwrap_or(text);
    if let Ok(before) = parse_duration(ago) {
        let before = i64::try_from(before.as_millis()).unwrap_or(i64::MAX);
        return Some(Wall(now.0.saturating_sub(before)));
    }
    if let Some(wall) = Wall::parse(text) {
        return Some(wall);
    }
    let today = day(now);
    let dated = match text {
        "now" => return Some(now),
        "today" => today,
        "yesterday" => day(shifted(now, -86_400)),
        time if time.contains(':') && !time.contains('-') => format!("{today} {time}"),
        _ => text.to_owned(),
    };
    let civil = Civil::read(&dated).filter(|(_, rest)| rest.is_empty()).map(|(civil, _)| civil);
    civil.map(of_local)
}

fn shifted(wall: Wall, seconds: i64) -> Wall {
    Wall(wall.0.saturating_add(seconds.saturating_mul(1000)))
}

/// The date that calendars here show.
fn day(now: Wall) -> String {
    let (year, month, day, ..) = shifted(now, clock::local_offset(now)).utc();
    format!("{year:04}-{month:02}-{day:02}")
}

/// The moment at which clocks here show this. Of two such moments one is taken, and in a gap one beside it.
fn of_local(civil: Civil) -> Wall {
    let utc = civil.in_utc();
    let near = shifted(utc, -clock::local_offset(utc));
    shifted(utc, -clock::local_offset(near))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_ago_and_zones_are_heeded() {
        let now = Wall(1_795_197_378_123);
        assert_eq!(parse("10m", now), Ok(Wall(now.0 - 600_000)));
        assert_eq!(parse("1h30m ago", now), Ok(Wall(now.0 - 5_400_000)));
        assert_eq!(parse("2026-11-20T17:56:18Z", now), Ok(Wall(1_795_197_378_000)));
        assert_eq!(parse("now", now), Ok(now));
        for wrong in ["", "soon", "5", "25:00", "2026-13-01", "2026-11-20 18", "10m later"] {
            assert!(parse(wrong, now).is_err_and(|e| e.contains("\"10m\" (ago)")), "{wrong}");
            assert!(
                to_come(wrong, now).is_err_and(|e| e.contains("or the day after") && !e.contains("ago")),
                "{wrong}"
            );
        }
    }

    #[test]
    fn local_times_are_those_of_the_clock_on_the_wall() {
        let now = clock::now().wall;
        let midnight = parse("today", now).unwrap();
        assert_eq!(parse("00:00", now), Ok(midnight));
        let yesterday = parse("yesterday", now).unwrap();
        assert!((22..=26).contains(&((midnight.0 - yesterday.0) / 3_600_000)), "{yesterday}");
        assert_eq!(parse("00:01:30", now), Ok(Wall(midnight.0 + 90_000)));
        assert_eq!(parse(&day(now), now), Ok(midnight));
        assert!(midnight <= now && now.0 - midnight.0 < 25 * 3_600_000);
    }
}
