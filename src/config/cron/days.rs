//! Which days of a month an expression means. Pure.

use crate::base::time::days;

/// Names as they are read, and shown.
pub(super) const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
pub(super) const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// The three fields of days. Bits are numbered as people number days and months, weekdays from Sunday as 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Days {
    pub(super) months: u32,
    /// Days by number.
    pub(super) numbered: u32,
    /// `L-3`: bit 3.
    pub(super) before_last: u32,
    /// `15W`: bit 15.
    pub(super) nearest: u32,
    /// `LW`.
    pub(super) last_workday: bool,
    pub(super) weekdays: u32,
    /// `5L`: bit 5.
    pub(super) last_of: u32,
    /// `mon#2`: bit 1 of the second.
    pub(super) nth: [u32; 5],
    /// Both fields say something of their own, so that a day of either fits.
    pub(super) either: bool,
}

pub(super) fn length(year: i64, month: u32) -> u32 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// The weekday of a day that is so many days after 1970-01-01, which was a Thursday.
pub(super) fn weekday(day: i64) -> u32 {
    u32::try_from((day + 4).rem_euclid(7)).unwrap_or(0)
}

impl Days {
    /// The days of this month that fit, bit 1 for the first.
    pub(super) fn of_month(&self, year: i64, month: u32) -> u32 {
        if self.months & 1 << month == 0 {
            return 0;
        }
        let length = length(year, month);
        let first = weekday(days(year, month, 1));
        let all = ((1_u32 << length) - 1) << 1;
        let (by_number, by_weekday) = (self.by_number(first, length), self.by_weekday(first, length));
        all & if self.either { by_number | by_weekday } else { by_number & by_weekday }
    }

    fn by_number(&self, first: u32, length: u32) -> u32 {
        let mut mask = self.numbered;
        for n in (0..length).filter(|n| self.before_last & 1 << n != 0) {
            mask |= 1 << (length - n);
        }
        for day in (1..=length).filter(|d| self.nearest & 1 << d != 0) {
            mask |= 1 << workday(day, first, length);
        }
        if self.last_workday {
            mask |= 1 << workday(length, first, length);
        }
        mask
    }

    fn by_weekday(&self, first: u32, length: u32) -> u32 {
        let mut mask = 0;
        for day in 1..=length {
            let bit = 1 << ((first + day - 1) % 7);
            let nth = usize::try_from((day - 1) / 7).unwrap_or(0);
            let last = day + 7 > length;
            if (self.weekdays | self.nth[nth] | if last { self.last_of } else { 0 }) & bit != 0 {
                mask |= 1 << day;
            }
        }
        mask
    }

    /// Whether no month of any year has such a day. Years repeat after all fourteen kinds of them.
    pub(super) fn is_empty(&self) -> bool {
        !(2000..2028).any(|year| (1..=12).any(|month| self.of_month(year, month) != 0))
    }

    pub(super) fn words(&self, numbers: &dyn Fn(u64, usize, usize) -> String) -> String {
        let named = |mask: u32, names: &[&'static str], from: u32| {
            let bits = (from..).zip(names).filter(|(bit, _)| mask & 1 << bit != 0);
            bits.map(|(_, name)| *name).collect::<Vec<_>>()
        };
        let mut by_number: Vec<String> = Vec::new();
        if self.numbered != 0 {
            by_number.push(numbers(u64::from(self.numbered), 1, 31));
        }
        for n in (0..31).filter(|n| self.before_last & 1 << n != 0) {
            by_number.push(if n == 0 { "the last".to_owned() } else { format!("{n} before the last") });
        }
        by_number.extend((1..32).filter(|d| self.nearest & 1 << d != 0).map(|d| format!("the workday nearest to {d}")));
        if self.last_workday {
            by_number.push("the last workday".to_owned());
        }
        let mut by_weekday: Vec<String> = named(self.weekdays, &WEEKDAYS, 0).into_iter().map(str::to_owned).collect();
        by_weekday.extend(named(self.last_of, &WEEKDAYS, 0).into_iter().map(|d| format!("the last {d}")));
        for (n, mask) in (1..).zip(self.nth) {
            by_weekday.extend(named(mask, &WEEKDAYS, 0).into_iter().map(|d| format!("{d} number {n}")));
        }
        let (number, weekday) = (by_number.join(","), by_weekday.join(","));
        let months = match self.months {
            0x1ffe => String::new(),
            some => format!("; in {}", named(some, &MONTHS, 1).join(",")),
        };
        let every_number = self.numbered & 0xffff_fffe == 0xffff_fffe;
        match (every_number, self.weekdays == 0x7f) {
            (true, true) => format!("every day{months}"),
            (false, true) if !self.either => format!("day {number}{months}"),
            (true, false) if !self.either => format!("on {weekday}{months}"),
            _ if self.either => format!("day {number}, or on {weekday}{months}"),
            _ => format!("day {number} if it is {weekday}{months}"),
        }
    }
}

/// The day from Monday to Friday that is nearest to `day`, within the month.
fn workday(day: u32, first: u32, length: u32) -> u32 {
    match (first + day - 1) % 7 {
        6 if day == 1 => 3,
        6 => day - 1,
        0 if day == length => day - 2,
        0 => day + 1,
        _ => day,
    }
}
