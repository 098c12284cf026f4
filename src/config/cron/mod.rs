//! Cron text becomes a checked expression here, and an expression the times at which it fires in a time zone. Pure.
//!
//! Times follow the rule of ISC cron and cronie: where the clocks are put forward, a time that they skip fires at the
//! change; where they are put back, a time that they show twice fires the first time. An expression whose minutes or
//! hours begin with `*` is meant by the clock on the wall instead: it fires whenever the clocks show a time of it.

mod days;
mod fire;
mod parse;
#[cfg(test)]
mod tests;
mod zone;

pub use parse::parse;
pub use zone::{Zone, ZoneFile};

use core::fmt;
use days::Days;

/// Text longer than this is no expression.
pub const CRON_MAX: usize = 1_000;

/// What a text means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expression {
    Times(Cron),
    /// `@reboot`: once in each boot of the machine.
    Reboot,
}

/// An expression that names times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cron {
    /// One bit for each second, minute and hour.
    seconds: u64,
    minutes: u64,
    hours: u32,
    days: Days,
    /// Minutes or hours begin with `*`.
    wild: bool,
    /// No date there is fits.
    never: bool,
}

/// What is wrong with a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CronError {
    /// Counts the characters of the text from 1.
    pub column: usize,
    /// With what is allowed, without a full stop.
    pub message: String,
}

impl fmt::Display for CronError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "column {}: {}", self.column, self.message)
    }
}

impl core::error::Error for CronError {}

impl Cron {
    /// Whether no date there is fits, as with the 30th of February.
    #[must_use]
    pub fn never_fires(&self) -> bool {
        self.never
    }

    /// Whether it follows the clock on the wall over changes of the clocks.
    #[must_use]
    pub fn is_wild(&self) -> bool {
        self.wild
    }

    /// When it fires, in words: `at second 0, minute 30, hour 2, on day 1 to 31, ...`.
    #[must_use]
    pub fn words(&self) -> String {
        let numbers = |mask: u64, from: usize, to: usize| -> String {
            let mut parts: Vec<String> = Vec::new();
            let mut at = from;
            while at <= to {
                let begin = at;
                while at <= to && mask & 1 << at != 0 {
                    at += 1;
                }
                match at - begin {
                    0 => at += 1,
                    1 => parts.push(begin.to_string()),
                    2 => parts.extend([begin.to_string(), (begin + 1).to_string()]),
                    _ => parts.push(format!("{begin}-{}", at - 1)),
                }
            }
            parts.join(",")
        };
        let mut text = String::new();
        if self.seconds != 1 {
            text.push_str(&format!("second {}; ", numbers(self.seconds, 0, 59)));
        }
        text.push_str(&format!("minute {}; ", numbers(self.minutes, 0, 59)));
        text.push_str(&format!("hour {}; ", numbers(u64::from(self.hours), 0, 23)));
        text.push_str(&self.days.words(&numbers));
        text
    }
}

/// Drives parser and search with any bytes: neither may panic, what is found must fit and be found again backwards.
pub fn fuzz(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match parse(&text) {
        Err(e) => {
            assert!(e.column >= 1 && e.column <= text.chars().count() + 1, "{e} in {text:?}");
            assert!(!e.message.is_empty() && !e.message.contains('\n'), "{e}");
        }
        Ok(Expression::Reboot) => {}
        Ok(Expression::Times(cron)) => {
            let zone = Zone::utc();
            let mut at = crate::base::time::Wall(1_700_000_000_123);
            for _ in 0..3 {
                let Some(next) = cron.next(&zone, at) else {
                    assert!(cron.never_fires(), "{text:?} ends at {at}");
                    return;
                };
                assert!(next > at && !cron.never_fires() && next.0 % 1000 == 0, "{text:?}");
                assert!(cron.previous(&zone, next).is_none_or(|before| before <= at), "{text:?} after {at}");
                let again = cron.previous(&zone, crate::base::time::Wall(next.0 + 1));
                assert_eq!(again, Some(next), "{text:?} after {at}");
                at = next;
            }
            assert!(!cron.words().is_empty());
        }
    }
}
