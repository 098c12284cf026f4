//! A time zone made of the bytes of its file. Pure: whoever has files reads them.

use crate::base::time::{Civil, Wall};
use core::fmt;
use jiff::Timestamp;
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};

/// A zone file as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneFile {
    /// `Europe/Berlin`.
    pub name: String,
    pub content: Vec<u8>,
}

/// When the clocks of a place show what.
#[derive(Clone)]
pub struct Zone {
    name: String,
    /// Of the file's content, to notice that it is another one.
    sum: u32,
    zone: TimeZone,
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Zone({}, {:08x})", self.name, self.sum)
    }
}

impl PartialEq for Zone {
    fn eq(&self, other: &Zone) -> bool {
        self.name == other.name && self.sum == other.sum
    }
}

impl Eq for Zone {}

impl Default for Zone {
    fn default() -> Zone {
        Zone::utc()
    }
}

impl Zone {
    #[must_use]
    pub fn utc() -> Zone {
        Zone { name: "UTC".to_owned(), sum: 0, zone: TimeZone::UTC }
    }

    /// Reads the content of a zone file, or the text of a POSIX rule such as `CET-1CEST,M3.5.0,M10.5.0/3`.
    ///
    /// # Errors
    /// A clause that says why it is neither.
    pub fn new(file: &ZoneFile) -> Result<Zone, String> {
        let sum = crc32fast::hash(&file.content);
        let rule = core::str::from_utf8(&file.content).ok().filter(|_| !file.content.starts_with(b"TZif"));
        let zone = match rule {
            Some(rule) => TimeZone::posix(rule.trim()).map_err(|e| format!("not a rule of a time zone: {e}"))?,
            None => TimeZone::tzif(&file.name, &file.content).map_err(|e| format!("a damaged zone file: {e}"))?,
        };
        Ok(Zone { name: file.name.clone(), sum, zone })
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Why a text cannot be the name of a zone, if it cannot: names are paths below one folder.
    #[must_use]
    pub fn name_error(name: &str) -> Option<String> {
        let odd = |c: char| !c.is_ascii_alphanumeric() && !"_+-/".contains(c);
        let bad = name.is_empty() || name.len() > 64 || name.contains(odd) || name.split('/').any(str::is_empty);
        bad.then(|| "a time zone has a name such as Europe/Berlin or UTC".to_owned())
    }

    /// RFC 3339 with the offset of that moment: `2026-03-29T03:00:00+02:00`.
    #[must_use]
    pub fn show(&self, at: Wall) -> String {
        let offset = self.offset(at.0.div_euclid(1000));
        let (year, month, day, hour, minute, second, _) = Wall(at.0 + offset * 1000).utc();
        let (sign, ahead) = if offset < 0 { ('-', -offset) } else { ('+', offset) };
        // Offsets with seconds are of the time before zones; RFC 3339 knows none.
        let (hours, minutes) = ((ahead + 30) / 3600, (ahead + 30) / 60 % 60);
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{sign}{hours:02}:{minutes:02}")
    }

    /// Reads a time as people write it: with a zone, or as the clocks here show it; a time that they skip is that of
    /// the change, one that they show twice the first. `None` for what is no time.
    #[must_use]
    pub fn read(&self, text: &str) -> Option<Wall> {
        if let Some(at) = Wall::parse(text) {
            return Some(at);
        }
        let (civil, rest) = Civil::read(text).filter(|(civil, _)| civil.year >= 1)?;
        let local = civil.in_utc().0;
        rest.is_empty().then(|| Wall(self.instant(local.div_euclid(1000)) * 1000 + local.rem_euclid(1000)))
    }

    /// Seconds that local time is ahead of UTC from this second on.
    pub(super) fn offset(&self, at: i64) -> i64 {
        i64::from(self.zone.to_offset(stamp(at)).seconds())
    }

    /// The next change of the offset after this second.
    pub(super) fn change_after(&self, at: i64) -> Option<i64> {
        let mut offset = self.offset(at);
        for change in self.zone.following(stamp(at)) {
            if i64::from(change.offset().seconds()) != offset {
                return Some(change.timestamp().as_second());
            }
            offset = change.offset().seconds().into();
        }
        None
    }

    /// The last change of the offset up to this second.
    pub(super) fn change_until(&self, at: i64) -> Option<i64> {
        for change in self.zone.preceding(stamp(at + 1)) {
            let second = change.timestamp().as_second();
            if self.offset(second - 1) != i64::from(change.offset().seconds()) {
                return Some(second);
            }
        }
        None
    }

    /// The second at which a fixed local time has come: where the clocks skip it the change, where they show it twice
    /// the first.
    pub(super) fn instant(&self, local: i64) -> i64 {
        match self.ambiguity(local) {
            AmbiguousOffset::Unambiguous { offset } => local - i64::from(offset.seconds()),
            AmbiguousOffset::Fold { before, .. } => local - i64::from(before.seconds()),
            AmbiguousOffset::Gap { before, after } => {
                let (first, last) = (local - i64::from(after.seconds()), local - i64::from(before.seconds()));
                self.change_after(first).filter(|change| *change <= last).unwrap_or(last)
            }
        }
    }

    /// The latest local time that the clocks have shown up to this second.
    pub(super) fn shown_until(&self, at: i64) -> i64 {
        let offset = self.offset(at);
        match self.ambiguity(at + offset) {
            AmbiguousOffset::Fold { before, after } if i64::from(after.seconds()) == offset => {
                self.change_until(at).map_or(at + offset, |change| change + i64::from(before.seconds()) - 1)
            }
            AmbiguousOffset::Fold { .. } | AmbiguousOffset::Unambiguous { .. } | AmbiguousOffset::Gap { .. } => {
                at + offset
            }
        }
    }

    fn ambiguity(&self, local: i64) -> AmbiguousOffset {
        self.zone.to_ambiguous_timestamp(Offset::UTC.to_datetime(stamp(local))).offset()
    }
}

/// Seconds to the library's own type, within its range.
fn stamp(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap_or(if second < 0 { Timestamp::MIN } else { Timestamp::MAX })
}
