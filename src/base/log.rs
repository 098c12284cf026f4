//! Lines of hob's own log, as daemon and keeper write them. Text in, text out.

use super::json::Obj;
use super::time::Wall;
use core::fmt::Write as _;
use serde::Serialize;

/// How serious a line is; the most serious comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl Level {
    const ALL: [Level; 5] = [Level::Error, Level::Warn, Level::Info, Level::Debug, Level::Trace];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Level::Error => "error",
            Level::Warn => "warn",
            Level::Info => "info",
            Level::Debug => "debug",
            Level::Trace => "trace",
        }
    }

    /// From 0, the most serious, to 4.
    #[must_use]
    pub fn number(self) -> u8 {
        self as u8
    }

    /// `None` above 4.
    #[must_use]
    pub fn of(number: u8) -> Option<Level> {
        Level::ALL.get(usize::from(number)).copied()
    }

    /// As in sd-daemon(3): the numbers of syslog(3).
    fn prefix(self) -> &'static str {
        match self {
            Level::Error => "<3>",
            Level::Warn => "<4>",
            Level::Info => "<6>",
            Level::Debug | Level::Trace => "<7>",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// `TIME LEVEL TEXT`.
    Text,
    /// One object a line: `time`, `level`, `text`, and the `event` that it tells of.
    Json,
}

/// Which lines are written, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogStyle {
    /// The least serious ones that are.
    pub level: Level,
    pub format: LogFormat,
}

impl LogStyle {
    pub const DEFAULT: LogStyle = LogStyle { level: Level::Info, format: LogFormat::Text };
}

/// What a line says.
#[derive(Clone, Copy, Debug)]
pub struct Said<'a> {
    pub level: Level,
    pub text: &'a str,
    /// The event that it tells of, as JSON.
    pub event: Option<&'a str>,
}

/// Appends a line, in text with its line breaks as indented lines. The time comes first in both formats, so that a
/// search by time finds it without reading the rest.
pub fn line(out: &mut String, format: LogFormat, said: Said<'_>, wall: Wall) {
    let Said { level, text, event } = said;
    match format {
        LogFormat::Text => {
            // Writing to a String cannot fail.
            let _ = write!(out, "{wall} {:<5} ", level.name());
            for (i, part) in text.trim_end().split('\n').enumerate() {
                out.push_str(if i > 0 { "\n    " } else { "" });
                out.extend(part.chars().map(visible));
            }
        }
        LogFormat::Json => {
            let mut o = Obj::new();
            o.str("time", &wall.to_string()).str("level", level.name()).str("text", text.trim_end());
            if let Some(event) = event {
                o.raw("event", event);
            }
            out.push_str(&o.finish());
        }
    }
    out.push('\n');
}

/// The time a line says itself that it has: at its beginning, or as the first member of an object.
#[must_use]
pub fn time_of(line: &[u8]) -> Option<Wall> {
    Wall::of_line(line).or_else(|| {
        let text = line.strip_prefix(b"{\"time\":\"")?.get(..24)?;
        Wall::parse(core::str::from_utf8(text).ok()?)
    })
}

/// The same as systemd's journal wants it: it knows the time itself, and the level by a prefix of each line.
pub fn journal_line(out: &mut String, level: Level, text: &str) {
    for part in text.trim_end().split('\n') {
        out.push_str(level.prefix());
        out.extend(part.chars().map(visible));
        out.push('\n');
    }
}

fn visible(c: char) -> char {
    if c.is_control() && c != '\t' { ' ' } else { c }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_has_a_number_and_more_serious_ones_come_first() {
        for (n, level) in (0u8..).zip(Level::ALL) {
            assert_eq!((level.number(), Level::of(n)), (n, Some(level)));
        }
        assert_eq!(Level::of(5), None);
        assert!(Level::Error < Level::Warn && Level::Warn < LogStyle::DEFAULT.level);
    }
}
