//! Reads the text of an expression. Pure.

use super::days::{Days, MONTHS, WEEKDAYS};
use super::{CRON_MAX, Cron, CronError, Expression};
use crate::base::near::nearest;

/// What stands for a whole expression.
const WORDS: [(&str, &str); 8] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
    ("@reboot", ""),
];

/// One field: its name, its numbers and what may stand in it.
struct Field {
    name: &'static str,
    low: u32,
    high: u32,
    /// Names of the numbers, from `low` on.
    names: &'static [&'static str],
    allowed: &'static str,
}

const SECOND: Field = Field { name: "second", low: 0, high: 59, names: &[], allowed: "0 to 59" };
const MINUTE: Field = Field { name: "minute", ..SECOND };
const HOUR: Field = Field { name: "hour", high: 23, allowed: "0 to 23", ..SECOND };
const DAY: Field = Field {
    name: "day of the month",
    low: 1,
    high: 31,
    names: &[],
    allowed: "1 to 31, L (the last), L-3, 15W (the nearest workday) or LW",
};
const MONTH: Field = Field { name: "month", low: 1, high: 12, names: &MONTHS, allowed: "1 to 12 or jan to dec" };
const WEEKDAY: Field = Field {
    name: "weekday",
    low: 0,
    high: 6,
    names: &WEEKDAYS,
    allowed: "0 to 7 (0 and 7 are Sunday), sun to sat, 5L (the last Friday) or mon#2 (the second Monday)",
};

/// A part of the text and where it begins.
#[derive(Clone, Copy)]
struct Part<'a> {
    text: &'a str,
    column: usize,
}

impl<'a> Part<'a> {
    fn wrong(self, message: impl Into<String>) -> CronError {
        CronError { column: self.column, message: message.into() }
    }

    /// The pieces between separators.
    fn split(self, by: char) -> impl Iterator<Item = Part<'a>> {
        let mut column = self.column;
        self.text.split(by).map(move |text| {
            let part = Part { text, column };
            column += text.chars().count() + 1;
            part
        })
    }

    /// What stands before and behind the first separator.
    fn cut(self, by: char) -> (Part<'a>, Option<Part<'a>>) {
        match self.text.split_once(by) {
            Some((before, after)) => {
                let column = self.column + before.chars().count() + 1;
                (Part { text: before, ..self }, Some(Part { text: after, column }))
            }
            None => (self, None),
        }
    }

    fn shown(self) -> String {
        let cut: String = self.text.chars().take(20).collect();
        format!("{cut:?}")
    }
}

/// Reads an expression: 5 fields, 6 with seconds first, or a word such as `@daily`.
///
/// # Errors
/// The first thing that is wrong, with its column and what is allowed there.
pub fn parse(text: &str) -> Result<Expression, CronError> {
    if text.len() > CRON_MAX {
        let message = format!("{} bytes; {CRON_MAX} are the most of a cron expression", text.len());
        return Err(CronError { column: 1, message });
    }
    let fields = fields(text);
    let end = Part { text: "", column: text.trim_end().chars().count() + 1 };
    match fields.as_slice() {
        [] => Err(end.wrong(format!("it is empty; {FORM}"))),
        [word] if word.text.starts_with('@') => word_of(*word),
        [minute, hour, day, month, weekday] => times(None, *minute, *hour, [*day, *month, *weekday]),
        [second, minute, hour, day, month, weekday] => times(Some(*second), *minute, *hour, [*day, *month, *weekday]),
        [word, extra, ..] if word.text == "@every" => {
            Err(word.wrong(format!("a fixed distance is not cron; write \"every\": {:?} instead", extra.text)))
        }
        [word, extra, ..] if word.text.starts_with('@') => {
            Err(extra.wrong(format!("nothing follows {}", word.shown())))
        }
        [_, _, _, _, _, _, seventh, ..] => {
            Err(seventh.wrong(format!("{} fields, and there is none for years; {FORM}", fields.len())))
        }
        few => {
            let count = if few.len() == 1 { "1 field".to_owned() } else { format!("{} fields", few.len()) };
            Err(end.wrong(format!("only {count}; {FORM}")))
        }
    }
}

const FORM: &str = "wants minute, hour, day of the month, month and weekday, with or without a second before them, \
                    or a word such as @daily";

fn fields(text: &str) -> Vec<Part<'_>> {
    let mut out = Vec::new();
    let mut column = 1;
    for piece in text.split([' ', '\t', '\n', '\r']) {
        if !piece.is_empty() {
            out.push(Part { text: piece, column });
        }
        column += piece.chars().count() + 1;
    }
    out
}

fn word_of(word: Part<'_>) -> Result<Expression, CronError> {
    let lower = word.text.to_ascii_lowercase();
    match WORDS.iter().find(|(name, _)| *name == lower) {
        Some(("@reboot", _)) => Ok(Expression::Reboot),
        Some((_, meaning)) => parse(meaning),
        None => {
            let names: Vec<&str> = WORDS.iter().map(|(name, _)| *name).collect();
            let near = nearest(&lower, names.iter().copied());
            let hint = near.map_or_else(|| names.join(", "), |near| format!("did you mean {near}?"));
            Err(word.wrong(format!("there is no word {}: {hint}", word.shown())))
        }
    }
}

fn times(
    second: Option<Part<'_>>,
    minute: Part<'_>,
    hour: Part<'_>,
    [day, month, weekday]: [Part<'_>; 3],
) -> Result<Expression, CronError> {
    let mut days = Days::default();
    let seconds = second.map_or(Ok(1), |second| numbers(second, &SECOND))?;
    let minutes = numbers(minute, &MINUTE)?;
    let hours = numbers(hour, &HOUR)?;
    for item in day.split(',') {
        of_day(item, &mut days)?;
    }
    days.months = low_half(numbers(month, &MONTH)?);
    for item in weekday.split(',') {
        of_weekday(item, &mut days)?;
    }
    // As in vixie cron, the first character decides.
    let open = |part: Part<'_>| part.text.starts_with(['*', '?']);
    days.either = !open(day) && !open(weekday);
    let never = days.is_empty();
    let wild = minute.text.starts_with('*') || hour.text.starts_with('*');
    Ok(Expression::Times(Cron { seconds, minutes, hours: low_half(hours), days, wild, never }))
}

/// No field has a number above 31 where this is used.
fn low_half(mask: u64) -> u32 {
    u32::try_from(mask & 0xffff_ffff).unwrap_or(0)
}

/// A list of what is common to all fields.
fn numbers(part: Part<'_>, field: &Field) -> Result<u64, CronError> {
    let mut mask = 0;
    for item in part.split(',') {
        mask |= range(item, field)?;
    }
    Ok(mask)
}

fn of_day(item: Part<'_>, days: &mut Days) -> Result<(), CronError> {
    let upper = item.text.to_ascii_uppercase();
    if upper == "L" {
        days.before_last |= 1;
    } else if upper == "LW" || upper == "WL" {
        days.last_workday = true;
    } else if upper.starts_with("L-") {
        let (_, count) = item.cut('-');
        let count = count.unwrap_or(item);
        match count.text.parse::<u32>() {
            Ok(n @ 0..=30) if is_number(count.text) => days.before_last |= 1 << n,
            _ => return Err(count.wrong(format!("L-{} is no day: L-1 (the last but one) to L-30", count.text))),
        }
    } else if let Some(number) = upper.strip_suffix('W') {
        match number.parse::<u32>() {
            Ok(n @ 1..=31) if is_number(number) => days.nearest |= 1 << n,
            _ => return Err(item.wrong(format!("{} is no day: 1W to 31W, or LW", item.shown()))),
        }
    } else {
        days.numbered |= low_half(range(item, &DAY)?);
    }
    Ok(())
}

fn of_weekday(item: Part<'_>, days: &mut Days) -> Result<(), CronError> {
    if let (name, Some(nth)) = item.cut('#') {
        let bit = 1 << (value(name, &WEEKDAY)? % 7);
        let place = nth.text.parse::<usize>().ok().filter(|n| *n >= 1 && is_number(nth.text));
        let Some(mask) = place.and_then(|n| days.nth.get_mut(n - 1)) else {
            return Err(nth.wrong(format!("{} is no place in a month: #1 to #5", nth.shown())));
        };
        *mask |= bit;
        return Ok(());
    }
    if item.text.eq_ignore_ascii_case("L") {
        return Err(item.wrong("L alone names no weekday: write 5L or friL for the last Friday of the month"));
    }
    match item.text.strip_suffix(['L', 'l']) {
        Some(name) if !name.is_empty() => {
            days.last_of |= 1 << (value(Part { text: name, ..item }, &WEEKDAY)? % 7);
        }
        _ => days.weekdays |= low_half(range(item, &WEEKDAY)?),
    }
    Ok(())
}

/// `*`, `5`, `5-10`, each with a step or without.
fn range(item: Part<'_>, field: &Field) -> Result<u64, CronError> {
    let (base, step) = item.cut('/');
    let size = field.high - field.low + 1;
    let by = match step {
        None => 1,
        Some(step) => match step.text.parse::<u32>() {
            Ok(n) if n >= 1 && n <= size && is_number(step.text) => n,
            _ => return Err(step.wrong(format!("{} is no step: 1 to {size}", step.shown()))),
        },
    };
    let all = base.text == "*" || base.text == "?" && ["day of the month", "weekday"].contains(&field.name);
    // By their names what begins late and ends early is meant, as in fri-mon; numbers may just be the wrong way round.
    let mut turns = false;
    let (first, last) = if all {
        (field.low, field.high)
    } else {
        match base.cut('-') {
            (first, Some(last)) => {
                turns = !is_number(first.text) && !is_number(last.text);
                (value(first, field)?, value(last, field)?)
            }
            // As elsewhere, a single number with a step goes on to the end.
            (first, None) if step.is_some() => (value(first, field)? % 7.max(field.high + 1), field.high),
            (first, None) => (value(first, field)?, value(first, field)?),
        }
    };
    // Sunday as 7 begins a week as 0 does.
    let (first, last) = match (first > field.high, first == last) {
        (true, true) => (field.low, field.low),
        (true, false) => (field.low, last),
        (false, _) => (first, last),
    };
    let wraps = last < first;
    if wraps && !turns {
        let over = if field.name == "weekday" && last == 0 {
            format!("{first}-7")
        } else {
            let range = |a: u32, b: u32| if a == b { a.to_string() } else { format!("{a}-{b}") };
            format!("{},{}", range(first, field.high), range(field.low, last))
        };
        let text = format!("{} ends before it begins; write {last}-{first}, or {over} to go over the end", base.text);
        return Err(base.wrong(text));
    }
    let mut mask = 0;
    let mut at = first;
    let end = if wraps { last + size } else { last };
    while at <= end {
        mask |= 1 << (field.low + (at - field.low) % size);
        at += by;
    }
    Ok(mask)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.len() <= 9 && text.bytes().all(|b| b.is_ascii_digit())
}

/// One number, or a name for it.
fn value(part: Part<'_>, field: &Field) -> Result<u32, CronError> {
    let high = if field.name == "weekday" { 7 } else { field.high };
    if is_number(part.text)
        && let Ok(n) = part.text.parse()
        && (field.low..=high).contains(&n)
    {
        return Ok(n);
    }
    let lower = part.text.to_ascii_lowercase();
    if let Some((n, _)) = (field.low..).zip(field.names).find(|(_, name)| **name == lower) {
        return Ok(n);
    }
    let allowed = format!("{}, a range such as 1-5, a list of them, or a step such as */2", field.allowed);
    let what = if part.text.is_empty() {
        format!("a {} is missing here", field.name)
    } else if part.text == "?" {
        format!("? stands for any day or weekday alone, not for a {}", field.name)
    } else if part.text.contains('~') {
        format!("{} is a random choice, which \"jitter\" does better; a {}", part.shown(), field.name)
    } else if part.text == "H" {
        format!("H is not known here, \"jitter\" does that; a {}", field.name)
    } else {
        format!("{} is no {}", part.shown(), field.name)
    };
    let near = if field.names.is_empty() { None } else { nearest(&lower, field.names.iter().copied()) };
    let meant = near.map_or_else(String::new, |near| format!("; did you mean {near}?"));
    Err(part.wrong(format!("{what}: {allowed}{meant}")))
}
