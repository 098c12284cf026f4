//! Moments for people: the protocol's stamps as short local time. Reads the clock and the local time zone.

use crate::base::time::Wall;
use crate::sys::clock;

/// `2026-11-20T18:09:38.123Z`, the form in which hob writes a moment.
const STAMP: &[u8] = b"0000-00-00T00:00:00.000Z";
/// `2026-11-20T19:09:38+01:00`, that of a job's zone.
const ZONED: &[u8] = b"0000-00-00T00:00:00+00:00";

/// A stamp as local time: `19:09:38` today, `2026-11-19 19:09:38` on other days; anything else as it is.
pub(crate) fn moment(stamp: &str) -> String {
    parse(stamp)
        .or_else(|| zoned(stamp))
        .map_or_else(|| stamp.to_owned(), |wall| short(wall, clock::now().wall, clock::local_offset))
}

/// A moment with its day, so that all are of one width.
pub(crate) fn whole(wall: Wall) -> String {
    short(wall, Wall(i64::MIN), clock::local_offset)
}

/// The same for every stamp in a text.
pub(crate) fn moments(text: &str) -> String {
    let now = clock::now().wall;
    replace(text, |wall| short(wall, now, clock::local_offset))
}

/// The stamp that a text begins with as local time, and what follows it.
pub(crate) fn leading(text: &str) -> Option<(String, &str)> {
    let (stamp, rest) = text.split_at_checked(STAMP.len())?;
    parse(stamp).map(|wall| (short(wall, clock::now().wall, clock::local_offset), rest))
}

fn short(wall: Wall, now: Wall, offset: impl Fn(Wall) -> i64) -> String {
    let local = |w: Wall| Wall(w.0.saturating_add(offset(w).saturating_mul(1000))).utc();
    let (year, month, day, hour, minute, second, _) = local(wall);
    let today = local(now);
    let time = format!("{hour:02}:{minute:02}:{second:02}");
    if (year, month, day) == (today.0, today.1, today.2) {
        time
    } else {
        format!("{year:04}-{month:02}-{day:02} {time}")
    }
}

fn replace(text: &str, shown: impl Fn(Wall) -> String) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let stamp = |form: &[u8], read: fn(&str) -> Option<Wall>| {
            rest.split_at_checked(form.len()).and_then(|(stamp, tail)| Some((read(stamp)?, tail)))
        };
        match stamp(STAMP, parse).or_else(|| stamp(ZONED, zoned)) {
            Some((wall, tail)) => {
                out.push_str(&shown(wall));
                rest = tail;
            }
            None => {
                out.push(first);
                rest = rest.get(first.len_utf8()..).unwrap_or("");
            }
        }
    }
    out
}

fn has_form(stamp: &str, form: &[u8]) -> bool {
    let fits = |(b, form): (u8, &u8)| match form {
        b'0' => b.is_ascii_digit(),
        b'+' => b == b'+' || b == b'-',
        _ => b == *form,
    };
    stamp.len() == form.len() && stamp.bytes().zip(form).all(fits)
}

fn zoned(stamp: &str) -> Option<Wall> {
    if has_form(stamp, ZONED) { Wall::parse(stamp) } else { None }
}

fn parse(stamp: &str) -> Option<Wall> {
    if !has_form(stamp, STAMP) {
        return None;
    }
    let part = |from: usize, to: usize| stamp.get(from..to)?.parse::<i64>().ok();
    let (year, month, day) = (part(0, 4)?, part(5, 7)?, part(8, 10)?);
    let (hour, minute, second, ms) = (part(11, 13)?, part(14, 16)?, part(17, 19)?, part(20, 23)?);
    // Days are counted from 0000-03-01, so that the leap day is the last of its year.
    let year = if month <= 2 { year - 1 } else { year };
    let (era, yoe) = (year.div_euclid(400), year.rem_euclid(400));
    let doy = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    let days = era * 146_097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719_468;
    let wall = Wall((((days * 24 + hour) * 60 + minute) * 60 + second) * 1000 + ms);
    // A month 13 or a second 61 would come back as something else.
    (wall.to_string() == stamp).then_some(wall)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_read_back() {
        for ms in [0, 951_782_400_000, 1_795_197_378_123, 68_169_599_999, 4_107_542_399_999] {
            assert_eq!(parse(&Wall(ms).to_string()), Some(Wall(ms)));
        }
        for bad in ["", "2026-13-20T18:09:38.123Z", "2026-02-30T18:09:38.123Z", "2026-11-20 18:09:38.123Z"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn today_needs_no_date_and_the_day_is_the_local_one() {
        let at = |s: &str| parse(s).unwrap();
        let now = at("2026-11-20T22:30:00.000Z");
        assert_eq!(short(at("2026-11-20T18:09:38.999Z"), now, |_| 0), "18:09:38");
        assert_eq!(short(at("2026-11-19T18:09:38.000Z"), now, |_| 0), "2026-11-19 18:09:38");
        assert_eq!(short(at("2026-11-20T22:09:38.000Z"), now, |_| 7200), "00:09:38");
        assert_eq!(short(at("2026-11-20T21:09:38.000Z"), now, |_| 7200), "2026-11-20 23:09:38");
        assert_eq!(short(at("2026-11-20T02:00:00.000Z"), now, |_| -5 * 3600), "2026-11-19 21:00:00");
    }

    #[test]
    fn stamps_inside_a_text_are_replaced_and_nothing_else() {
        let text = "\u{fc}ber 2026-11-20T18:09:38.123Z, not 2026-11-20";
        assert_eq!(replace(text, |_| "T".to_owned()), "\u{fc}ber T, not 2026-11-20");
        let text = "at 2026-11-20T19:09:38+01:00 or 2026-11-20T16:39:38-01:30, not 2026-11-20T19:09:38 01:00";
        assert_eq!(
            replace(text, |wall| wall.to_string()),
            "at 2026-11-20T18:09:38.000Z or 2026-11-20T18:09:38.000Z, not 2026-11-20T19:09:38 01:00"
        );
    }
}
