//! Reading what earlier daemons wrote: the newest complete snapshot, then the journals from its number on. Changes
//! nothing.

use super::live::Live;
use super::record::{self, END_KEY, Record, end_count};
use crate::core::record::Entity;
use crate::daemon::lifecycle::mark::Marks;
use crate::sys::file::{self, How};
use std::collections::HashMap;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

/// Bytes of one line that are read; a longer one is no record.
const LINE_MAX: usize = 64 * 1024 * 1024;
/// Bytes of bad lines that are kept to be set aside.
const BAD_MAX: usize = 1024 * 1024;
/// Reports of one load in words; further ones are counted.
const REPORTS_MAX: usize = 20;

pub(super) fn journal_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("journal-{number}.log"))
}

pub(super) fn snapshot_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("snapshot-{number}.log"))
}

pub(super) fn snapshot_temp(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("snapshot-{number}.tmp"))
}

/// The numbers of what lies in the folder, each list sorted.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) journals: Vec<u64>,
    pub(super) snapshots: Vec<u64>,
    pub(super) temps: Vec<u64>,
}

impl Listing {
    pub(super) fn read(dir: &Path) -> io::Result<Listing> {
        let mut list = Listing::default();
        for entry in std::fs::read_dir(dir)? {
            let name = entry?.file_name();
            let name = name.to_string_lossy();
            let number = |prefix: &str, suffix: &str| -> Option<u64> {
                let n = name.strip_prefix(prefix)?.strip_suffix(suffix)?.parse().ok()?;
                // Only the name that would be written for this number.
                (n > 0 && *name == format!("{prefix}{n}{suffix}")).then_some(n)
            };
            if let Some(n) = number("journal-", ".log") {
                list.journals.push(n);
            } else if let Some(n) = number("snapshot-", ".log") {
                list.snapshots.push(n);
            } else if let Some(n) = number("snapshot-", ".tmp") {
                list.temps.push(n);
            }
        }
        list.journals.sort_unstable();
        list.snapshots.sort_unstable();
        Ok(list)
    }
}

/// What was read, and what is to be repaired.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// In one piece of memory: nodes of a tree would lie between the texts, and then keep them from being given back.
    entities: HashMap<String, Last>,
    order: u64,
    /// Last sequence number; the next one is counted from here.
    pub(super) last: u64,
    /// Bytes of the snapshot and of the journals that were read.
    pub(super) snapshot_bytes: u64,
    pub(super) journal_bytes: u64,
    pub(super) reports: Vec<String>,
    unreported: usize,
    pub(super) gap: bool,
    /// Records of a round whose end has not been read yet.
    round: Vec<Kept>,
    /// Bad lines since the last good record; it is not known what they were.
    bad_since: u64,
    bad_lines: u64,
    /// Bad lines and what was cut, to be set aside.
    pub(super) bad: Vec<u8>,
    /// Good bytes of the last journal if more than those lie in it.
    pub(super) cut: Option<u64>,
    /// Journals that the system could not read to the end.
    pub(super) unreadable: Vec<u64>,
    /// Lowest number in use.
    pub(super) base: u64,
    /// Where the record that is being read is marked.
    marks: Option<Marks>,
}

/// A record, out of its line.
#[derive(Debug)]
struct Kept {
    n: u64,
    key: String,
    json: Option<String>,
}

#[derive(Debug)]
struct Last {
    n: u64,
    order: u64,
    json: String,
}

impl Kept {
    fn new(r: &Record<'_>) -> Kept {
        Kept { n: r.n, key: r.key.as_ref().to_owned(), json: r.json.map(str::to_owned) }
    }
}

impl Found {
    /// Reads everything in `dir`, of which `list` is the listing.
    pub(super) fn read(dir: &Path, list: &Listing, marks: Option<&Marks>) -> Found {
        let mut found = Found { marks: marks.cloned(), ..Found::pick_snapshot(dir, list) };
        let journals: Vec<u64> = list.journals.iter().copied().filter(|n| *n >= found.base).collect();
        if list.snapshots.contains(&found.base) && journals.first() != Some(&found.base) {
            found.report(format!("journal-{}.log is missing: its records are lost", found.base));
            found.gap = true;
        }
        for &number in &journals {
            let path = journal_path(dir, number);
            let last = journals.last() == Some(&number);
            let read = file::open(&path, How::Read, 0).and_then(|f| {
                let name = format!("journal-{number}.log");
                found.journal(BufReader::with_capacity(64 * 1024, f), &name, last)
            });
            if let Err(e) = read {
                found.report(format!("cannot read {}: {e}", path.display()));
                found.unreadable.push(number);
                found.gap = true;
            }
        }
        found.finish();
        found
    }

    /// The newest complete snapshot; without one nothing at all if the journals reach back to the first; else the
    /// newest damaged one.
    fn pick_snapshot(dir: &Path, list: &Listing) -> Found {
        let mut reports = Vec::new();
        let mut damaged: Option<Found> = None;
        for &number in list.snapshots.iter().rev() {
            let mut found = Found { base: number, ..Found::default() };
            let path = snapshot_path(dir, number);
            let read = file::open(&path, How::Read, 0).and_then(|f| {
                found.snapshot(BufReader::with_capacity(64 * 1024, f), &format!("snapshot-{number}.log"))
            });
            match read {
                Ok(true) => {
                    found.reports.splice(0..0, reports);
                    return found;
                }
                Ok(false) => reports.push(format!("{} is damaged", path.display())),
                Err(e) => reports.push(format!("cannot read {}: {e}", path.display())),
            }
            damaged.get_or_insert(found);
        }
        let first = list.journals.first().copied();
        let mut found = match damaged {
            Some(found) if first != Some(1) => Found { gap: true, ..found },
            _ => Found { base: first.unwrap_or(1), gap: first.is_some_and(|n| n > 1), ..Found::default() },
        };
        found.reports.splice(0..0, reports);
        found
    }

    /// Reads one journal; `last` is the one that was written to at the end, so that an unfinished line or round there
    /// is nothing unusual: nothing was done yet of what it says.
    pub(super) fn journal(&mut self, reader: impl BufRead, name: &str, last: bool) -> io::Result<()> {
        let (mut good_end, mut torn) = (0, 0);
        let result = lines(reader, |offset, line, whole| {
            let line_bytes = line.len() as u64 + u64::from(whole);
            self.journal_bytes += line_bytes;
            if !whole && last {
                torn = line.len();
                return self.keep_bad(line);
            }
            let newest = self.round.last().map_or(self.last, |r| r.n);
            if let Some(marks) = &self.marks {
                marks.record(newest + 1);
            }
            let why = match record::decode(line) {
                Ok(r) if r.key == END_KEY => "out of place",
                Ok(r) if r.n <= newest => "older than the one before it",
                Ok(r) if r.more => return self.round.push(Kept::new(&r)),
                Ok(r) => {
                    self.whole_round(name);
                    self.follow(name, r.n);
                    self.apply(Kept::new(&r));
                    good_end = offset + line_bytes;
                    return;
                }
                Err(why) => why,
            };
            // Damage in the middle: what can be read of the round counts.
            self.whole_round(name);
            self.set_aside(name, offset, line, why);
            good_end = offset + line_bytes;
        });
        if result.is_err() || !last {
            self.whole_round(name);
        } else if torn > 0 || !self.round.is_empty() {
            let whole = core::mem::take(&mut self.round).len();
            self.report(format!("{name}: cut an unfinished round of {whole} records and {torn} bytes at its end"));
            self.cut = Some(good_end);
        }
        result
    }

    /// Takes up the round that was read so far.
    fn whole_round(&mut self, name: &str) {
        for r in core::mem::take(&mut self.round) {
            self.follow(name, r.n);
            self.apply(r);
        }
    }

    /// Takes up a sequence number and tells whether all before it were seen.
    fn follow(&mut self, name: &str, n: u64) {
        let missing = n - self.last - 1;
        if missing > 0 {
            self.report(format!("{name}: {missing} records before number {n} are missing"));
            self.gap = true;
        }
        self.last = n;
        self.bad_since = 0;
    }

    /// Reads one snapshot; true if it is complete.
    fn snapshot(&mut self, reader: impl BufRead, name: &str) -> io::Result<bool> {
        let (mut count, mut end, mut bad) = (0, None, false);
        lines(reader, |offset, line, whole| {
            self.snapshot_bytes += line.len() as u64 + 1;
            match record::decode(line) {
                Ok(r) if whole && end.is_none() && r.key == END_KEY => {
                    end = end_count(&r);
                    self.last = self.last.max(r.n);
                }
                Ok(r) if whole && end.is_none() => {
                    count += 1;
                    self.last = self.last.max(r.n);
                    self.apply(Kept::new(&r));
                }
                other => {
                    bad = true;
                    self.set_aside(name, offset, line, other.err().unwrap_or("out of place"));
                }
            }
        })?;
        self.bad_since = 0;
        Ok(!bad && end == Some(count))
    }

    fn apply(&mut self, Kept { n, key, json }: Kept) {
        self.order += 1;
        match json {
            Some(json) => self.entities.insert(key, Last { n, order: self.order, json }),
            None => self.entities.remove(&key),
        };
    }

    fn set_aside(&mut self, name: &str, offset: u64, line: &[u8], why: &str) {
        self.bad_since += 1;
        self.bad_lines += 1;
        self.report(format!("{name}: the record at byte {offset} is {why}; it is set aside"));
        self.keep_bad(line);
    }

    fn keep_bad(&mut self, line: &[u8]) {
        if self.bad.len() + line.len() < BAD_MAX {
            self.bad.extend_from_slice(line);
            self.bad.push(b'\n');
        }
    }

    fn report(&mut self, text: String) {
        if self.reports.len() < REPORTS_MAX {
            self.reports.push(text);
        } else {
            self.unreported += 1;
        }
    }

    /// Bad lines after the last good record may have been good ones: their numbers are not used again.
    pub(super) fn finish(&mut self) {
        if self.bad_since > 0 {
            self.gap = true;
            self.last += self.bad_since;
        }
        if self.unreported > 0 {
            self.reports.push(format!("journal: {} more records are bad or missing", self.unreported));
        }
    }

    /// Whether what lies on disk should be written anew, so that its damage is reported only once.
    pub(super) fn damaged(&self) -> bool {
        self.gap || self.bad_lines > 0 || !self.unreadable.is_empty()
    }

    /// What of it is of use.
    pub(super) fn live(&self) -> Live {
        let mut live = Live::default();
        self.entities.iter().for_each(|(key, of)| live.note(key, Some(&of.json)));
        live
    }

    /// The live entities in the order of their last change.
    pub(super) fn into_entities(self) -> Vec<Entity> {
        let mut all: Vec<(String, Last)> = self.entities.into_iter().collect();
        all.sort_unstable_by_key(|(_, live)| (live.n, live.order));
        all.into_iter().map(|(key, live)| Entity { key, json: Some(live.json) }).collect()
    }
}

/// Calls `each` with offset, bytes without LF, and whether there was an LF. Memory is bounded by one line of
/// `LINE_MAX`; of a longer one only the beginning is given, so that it counts as bad.
fn lines(mut reader: impl BufRead, mut each: impl FnMut(u64, &[u8], bool)) -> io::Result<()> {
    let (mut line, mut offset) = (Vec::new(), 0);
    loop {
        line.clear();
        let mut limited = io::Read::take(&mut reader, LINE_MAX as u64);
        let read = limited.read_until(b'\n', &mut line)? as u64;
        if read == 0 {
            return Ok(());
        }
        let whole = line.last() == Some(&b'\n');
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        each(offset, text, whole || read == LINE_MAX as u64);
        offset += read;
    }
}
