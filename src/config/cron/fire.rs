//! When an expression fires next, and when it fired last. Pure.
//!
//! The search jumps from field to field: months and days by their masks, the time of day by bits. Local times are
//! seconds since 1970 as a clock on the wall shows them, as if they were UTC.

use super::{Cron, Zone};
use crate::base::time::{Wall, date, days};

/// Nothing is looked for further away than this many seconds: the 29th of February on one weekday needs forty years.
const HORIZON: i64 = 100 * 366 * 86_400;
const DAY: i64 = 86_400;
/// Local times that can be told in four digits of a year.
const FIRST: i64 = -62_135_596_800 + DAY;
const LAST: i64 = 253_402_300_799 - DAY;

impl Cron {
    /// The first time after `after` at which it fires.
    #[must_use]
    pub fn next(&self, zone: &Zone, after: Wall) -> Option<Wall> {
        let asked = after.0.div_euclid(1000);
        let after = asked.clamp(FIRST, LAST);
        let found = if self.never {
            None
        } else if self.wild {
            self.next_wild(zone, after)
        } else {
            self.next_fixed(zone, after)
        };
        // Beyond the end of all time nothing is later.
        found.filter(|at| *at > asked).map(|at| Wall(at * 1000))
    }

    /// The last time before `before` at which it fired.
    #[must_use]
    pub fn previous(&self, zone: &Zone, before: Wall) -> Option<Wall> {
        let before = before.0.saturating_add(999).div_euclid(1000).clamp(FIRST, LAST);
        let found = if self.never {
            None
        } else if self.wild {
            self.previous_wild(zone, before)
        } else {
            // All that the clocks have shown before has fired at its time, and what they skipped at the change.
            self.previous_local(zone.shown_until(before - 1), before).map(|local| zone.instant(local))
        };
        found.map(|at| Wall(at * 1000))
    }

    fn next_fixed(&self, zone: &Zone, after: i64) -> Option<i64> {
        let mut local = zone.shown_until(after) + 1;
        loop {
            let next = self.next_local(local, after)?;
            let at = zone.instant(next);
            if at > after {
                return Some(at);
            }
            local = next + 1;
        }
    }

    /// From one change of the clocks to the next, as between them local time is just UTC with an offset.
    fn next_wild(&self, zone: &Zone, after: i64) -> Option<i64> {
        let mut at = after + 1;
        while at - after < HORIZON {
            let offset = zone.offset(at);
            let found = self.next_local(at + offset, after)? - offset;
            match zone.change_after(at) {
                Some(change) if change <= found => at = change,
                _ => return Some(found),
            }
        }
        None
    }

    fn previous_wild(&self, zone: &Zone, before: i64) -> Option<i64> {
        let mut at = before - 1;
        while before - at < HORIZON {
            let offset = zone.offset(at);
            let found = self.previous_local(at + offset, before)? - offset;
            match zone.change_until(at) {
                Some(change) if found < change => at = change - 1,
                _ => return Some(found),
            }
        }
        None
    }

    /// The first local time from `local` on that fits.
    fn next_local(&self, local: i64, around: i64) -> Option<i64> {
        let (today, second) = (local.div_euclid(DAY), local.rem_euclid(DAY));
        let (mut year, mut month, day) = date(today);
        let mut mask = self.days.of_month(year, month);
        if mask & 1 << day != 0
            && let Some(time) = self.time_from(second)
        {
            return Some(today * DAY + time);
        }
        // Bits above that of today; the 31st is the highest.
        mask &= u32::MAX.checked_shl(day + 1).unwrap_or(0);
        while mask == 0 {
            (year, month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
            if year > 9999 || (days(year, month, 1) * DAY) - around > HORIZON {
                return None;
            }
            mask = self.days.of_month(year, month);
        }
        Some(days(year, month, mask.trailing_zeros()) * DAY + self.time_from(0)?)
    }

    /// The last local time up to `local` that fits.
    fn previous_local(&self, local: i64, around: i64) -> Option<i64> {
        let (today, second) = (local.div_euclid(DAY), local.rem_euclid(DAY));
        let (mut year, mut month, day) = date(today);
        let mut mask = self.days.of_month(year, month);
        if mask & 1 << day != 0
            && let Some(time) = self.time_until(second)
        {
            return Some(today * DAY + time);
        }
        mask &= (1 << day) - 1;
        while mask == 0 {
            (year, month) = if month == 1 { (year - 1, 12) } else { (year, month - 1) };
            if year < 1 || around - (days(year, month, 1) * DAY) > HORIZON {
                return None;
            }
            mask = self.days.of_month(year, month);
        }
        Some(days(year, month, mask.ilog2()) * DAY + self.time_until(DAY - 1)?)
    }

    /// The first time of day from `second` on that fits, in seconds.
    fn time_from(&self, second: i64) -> Option<i64> {
        let (h, m, s) = (second / 3600, second / 60 % 60, second % 60);
        let (hours, minutes, seconds) = (u64::from(self.hours), self.minutes, self.seconds);
        if has(hours, h) {
            if has(minutes, m)
                && let Some(s) = from(seconds, s)
            {
                return Some(h * 3600 + m * 60 + s);
            }
            if let Some(m) = from(minutes, m + 1) {
                return Some(h * 3600 + m * 60 + from(seconds, 0)?);
            }
        }
        let h = from(hours, h + 1)?;
        Some(h * 3600 + from(minutes, 0)? * 60 + from(seconds, 0)?)
    }

    /// The last time of day up to `second` that fits, in seconds.
    fn time_until(&self, second: i64) -> Option<i64> {
        let (h, m, s) = (second / 3600, second / 60 % 60, second % 60);
        let (hours, minutes, seconds) = (u64::from(self.hours), self.minutes, self.seconds);
        if has(hours, h) {
            if has(minutes, m)
                && let Some(s) = until(seconds, s)
            {
                return Some(h * 3600 + m * 60 + s);
            }
            if let Some(m) = until(minutes, m - 1) {
                return Some(h * 3600 + m * 60 + until(seconds, 59)?);
            }
        }
        let h = until(hours, h - 1)?;
        Some(h * 3600 + until(minutes, 59)? * 60 + until(seconds, 59)?)
    }
}

fn has(mask: u64, bit: i64) -> bool {
    mask & 1 << bit != 0
}

/// The lowest bit of a mask that is not below `bit`.
fn from(mask: u64, bit: i64) -> Option<i64> {
    let left = mask >> bit << bit;
    (left != 0).then(|| i64::from(left.trailing_zeros()))
}

/// The highest bit of a mask that is not above `bit`.
fn until(mask: u64, bit: i64) -> Option<i64> {
    if bit < 0 {
        return None;
    }
    let left = mask & (u64::MAX >> (63 - bit));
    (left != 0).then(|| i64::from(left.ilog2()))
}
