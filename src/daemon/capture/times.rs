//! Finding a time in a log: by the index to the second, and to the line where lines begin with their time. What matches
//! first by position counts, so that a clock that stepped back hides nothing.

use super::index::{Index, Record, STAMPED, What};
use super::tail::{Cursor, Part, Share};
use crate::base::log::time_of;
use crate::base::time::Wall;
use core::ops::Range;
use std::io;

/// Read at once.
const CHUNK: usize = 256 * 1024;
/// As much of a line as holds its time.
const HEAD: usize = 40;
/// What a record of an index speaks of was written within so many milliseconds.
const STEP: i64 = 999;

/// The position of what was written at `wall` or later; the end of the log when nothing was. Where the index alone
/// tells, it may be that of up to a second more, so that nothing is missing.
///
/// # Errors
/// What reading the log and its indexes answers.
pub fn since(share: &Share, wall: Wall) -> io::Result<u64> {
    find(share, 0, STEP, |w| w >= wall)
}

/// The first position from `from` on of what was written after `wall`, as [`since`].
///
/// # Errors
/// What reading the log and its indexes answers.
pub fn after(share: &Share, from: u64, wall: Wall) -> io::Result<u64> {
    find(share, from, 0, |w| w > wall)
}

/// The first position from `from` on at which output lies that `wanted` takes by its time; the end of the log when none
/// does. `within`: what a record of the index speaks of counts up to so many milliseconds later.
fn find(share: &Share, from: u64, within: i64, wanted: impl Fn(Wall) -> bool) -> io::Result<u64> {
    let spans = share.spans()?;
    for (number, span) in spans.files.iter().enumerate().rev() {
        let end = number.checked_sub(1).and_then(|n| spans.files.get(n)).map_or(spans.end, |newer| newer.base);
        if end <= from {
            continue;
        }
        let found = match index_of(share, number, span.base)? {
            Some(index) => by_index(share, &index, from.max(span.base)..end, within, &wanted)?,
            None => by_line(share, from.max(span.base), end, &wanted)?,
        };
        if let Some(position) = found {
            return Ok(position);
        }
    }
    Ok(spans.end.max(from))
}

/// The index of the file that begins at this position. A rotation may have moved it on since its number was looked up.
pub(super) fn index_of(share: &Share, number: usize, base: u64) -> io::Result<Option<Index>> {
    let number = u32::try_from(number).unwrap_or(u32::MAX);
    for number in number..number.saturating_add(4) {
        if let Some(index) = Index::read(&share.names().index(number))?.filter(|i| i.first.position == base) {
            return Ok(Some(index));
        }
    }
    Ok(None)
}

fn by_index(
    share: &Share,
    index: &Index,
    span: Range<u64>,
    within: i64,
    wanted: &impl Fn(Wall) -> bool,
) -> io::Result<Option<u64>> {
    let (from, end) = (span.start, span.end);
    let stamped = |r: &Record| matches!(r.what, What::Output { stream, .. } if stream & STAMPED != 0);
    let mut before: Option<Record> = None;
    let mut hit = None;
    index.each(|record| {
        let What::Output { wall, .. } = record.what else { return true };
        if record.position >= end {
            return false;
        }
        let within = if stamped(&record) { 0 } else { within };
        if record.position >= from && wanted(Wall(wall.0.saturating_add(within))) {
            hit = Some(record.position);
            return false;
        }
        before = Some(record);
        true
    })?;
    match before {
        Some(before) if stamped(&before) => {
            let exact = by_line(share, before.position.max(from), hit.unwrap_or(end), wanted)?;
            Ok(exact.or(hit))
        }
        _ => Ok(hit),
    }
}

/// The first line in a range that says itself that it is wanted.
fn by_line(share: &Share, from: u64, end: u64, wanted: &impl Fn(Wall) -> bool) -> io::Result<Option<u64>> {
    let mut cursor = Cursor::new(from);
    let (mut begin, mut head) = (from, Vec::new());
    loop {
        match share.read(&mut cursor, end, CHUNK)? {
            Part::Bytes(bytes) => {
                let mut at = cursor.position - bytes.len() as u64;
                for piece in bytes.split_inclusive(|b| *b == b'\n') {
                    let free = HEAD.saturating_sub(head.len());
                    head.extend_from_slice(piece.get(..free).unwrap_or(piece));
                    if time_of(&head).is_some_and(wanted) {
                        return Ok(Some(begin));
                    }
                    at += piece.len() as u64;
                    if piece.ends_with(b"\n") {
                        head.clear();
                        begin = at;
                    }
                }
            }
            Part::Gap(_) => (begin, head) = (cursor.position, Vec::new()),
            Part::End => return Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::capture::rotate::Names;
    use crate::daemon::capture::testing::Dir;

    fn share(dir: &Dir, text: &str, records: &[(i64, u64, u32)]) -> Share {
        let names = Names::new(dir.path("a.log"));
        std::fs::write(names.log(0), text).unwrap();
        let record = |(wall, position, stream): (i64, u64, u32)| Record {
            position,
            what: What::Output { wall: Wall(wall), stream },
        };
        if let Some((first, rest)) = records.split_first() {
            let mut index = Index::replace(&names.index(0), record(*first), None).unwrap();
            rest.iter().for_each(|r| index.append(record(*r), || names.index(0)).unwrap());
        }
        Share::new(names)
    }

    #[test]
    fn raw_logs_are_searched_by_their_index_in_order_of_position() {
        let dir = Dir::new();
        let s = share(&dir, &"x".repeat(100), &[(1000, 0, 0), (2000, 20, 0), (9000, 40, 0), (3000, 60, 0)]);
        let since = |wall: i64| since(&s, Wall(wall)).unwrap();
        assert_eq!([since(0), since(1001), since(2001), since(2500), since(3000)], [0, 0, 20, 20, 40]);
        assert_eq!([since(9000), since(9999), since(10_000)], [40, 40, 100]);
        let until = |from: u64, wall: i64| after(&s, from, Wall(wall)).unwrap();
        assert_eq!([until(0, 999), until(0, 2000), until(41, 2000), until(61, 0)], [0, 40, 60, 100]);
    }

    #[test]
    fn stamped_lines_are_found_exactly() {
        let dir = Dir::new();
        let line = |ms: i64| format!("{} line\n", Wall(ms));
        let size = line(0).len() as u64;
        let text = [1000, 1400, 1900, 2100].map(line).concat() + "no time\n" + &line(2500);
        let s = share(&dir, &text, &[(1000, 0, STAMPED), (2100, 3 * size, STAMPED)]);
        let since = |wall: i64| since(&s, Wall(wall)).unwrap();
        assert_eq!([since(1000), since(1001), since(1401), since(1901)], [0, size, 2 * size, 3 * size]);
        assert_eq!([since(2101), since(2501)], [4 * size + 8, 5 * size + 8]);
        assert_eq!(after(&s, size, Wall(1500)).unwrap(), 2 * size);
    }

    #[test]
    fn without_an_index_lines_speak_for_themselves() {
        let dir = Dir::new();
        let text = format!("{} info  a\n    more\n{{\"time\":\"{}\",\"x\":1}}\n", Wall(1000), Wall(5000));
        let s = share(&dir, &text, &[]);
        assert_eq!(since(&s, Wall(1000)).unwrap(), 0);
        assert_eq!(since(&s, Wall(1001)).unwrap(), 42);
        assert_eq!(since(&s, Wall(5001)).unwrap(), text.len() as u64);
    }
}
