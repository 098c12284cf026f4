//! Appending: one write a round, what cannot be written queued by key, and space allocated ahead.

use super::live::Live;
use super::load::{Found, Listing, journal_path, snapshot_path, snapshot_temp};
use super::record;
use super::snapshot::Snapshot;
use super::sync::{Ended, Job, Work};
use crate::base::limits::JOURNAL_RESERVE;
use crate::base::time::{Mono, sooner};
use crate::core::Input;
use crate::core::record::Entity;
use crate::sys::file::{self, How};
use core::time::Duration;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Allocated beyond the reserve each time, so that not every round asks for more.
const ALLOCATE_STEP: u64 = 256 * 1024;
/// A buffer larger than this is given back after use.
const BUFFER_KEPT: usize = 16 * 1024;
/// At so many bytes those of a round that are encoded go to the file before the rest is, so that the memory for it does
/// not grow with the round.
const PIECE: usize = 256 * 1024;
/// Bytes of `journal-bad.log` at which nothing more is set aside.
const BAD_FILE_MAX: u64 = 8 * 1024 * 1024;

/// When to try again.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Option<Mono>,
    delay: Duration,
    first: Duration,
    most: Duration,
}

impl Backoff {
    pub(super) const fn new(first: Duration, most: Duration) -> Backoff {
        Backoff { next: None, delay: first, first, most }
    }

    pub(super) fn failed(&mut self, now: Mono) {
        self.next = Some(now + self.delay);
        self.delay = (self.delay * 2).min(self.most);
    }

    pub(super) fn clear(&mut self) {
        (self.next, self.delay) = (None, self.first);
    }

    pub(super) fn due(&self, now: Mono) -> bool {
        self.next.is_none_or(|at| at <= now)
    }

    pub(super) fn at(&self) -> Option<Mono> {
        self.next
    }
}

/// Records that wait to be written: in order, at most one for each key.
#[derive(Debug, Default)]
struct Pending {
    by_order: BTreeMap<u64, Entity>,
    by_key: BTreeMap<String, u64>,
    next: u64,
}

impl Pending {
    /// A newer record takes the place of an older one and goes to the end, where its causes are.
    fn push(&mut self, entity: Entity) {
        self.next += 1;
        if let Some(old) = self.by_key.insert(entity.key.clone(), self.next) {
            self.by_order.remove(&old);
        }
        self.by_order.insert(self.next, entity);
    }

    fn is_empty(&self) -> bool {
        self.by_order.is_empty()
    }
}

#[derive(Debug)]
pub(super) struct Store {
    pub(super) dir: PathBuf,
    /// The journal that is appended to: its number, size and allocated size.
    pub(super) number: u64,
    pub(super) file: Arc<File>,
    pub(super) size: u64,
    allocated: u64,
    /// Lowest number of a file that may exist.
    pub(super) first: u64,
    /// The last sequence number before this journal, if this daemon opened it: a snapshot can then go before it.
    pub(super) base: Option<u64>,
    /// Bytes of the snapshot, of journals that would be read after it, and what of both is of use still.
    pub(super) before: u64,
    pub(super) since: u64,
    pub(super) live: Live,
    pub(super) next_seq: u64,
    /// Tickets: accepted, written, on disk, and waited for.
    accepted: u64,
    pub(super) written: u64,
    pub(super) durable: u64,
    pub(super) wanted: u64,
    pending: Pending,
    /// The disk had no room for what waits, though it may have some.
    short: bool,
    buffer: Vec<u8>,
    why: Option<String>,
    told: Option<String>,
    pub(super) retry: Backoff,
    full: bool,
    full_retry: Backoff,
    /// Journals up to this number are not trusted: a snapshot must replace them before anything counts as durable.
    pub(super) untrusted: Option<u64>,
    /// Earlier journals with records that are not on disk yet.
    pub(super) unsynced: Vec<Arc<File>>,
    /// Names in the folder are not on disk yet.
    pub(super) dir_changed: bool,
    /// A job is under way; and it is past its deadline.
    pub(super) busy: bool,
    pub(super) stuck: bool,
    pub(super) snapshot: Snapshot,
    pub(super) facts: Vec<Input>,
    pub(super) reports: Vec<String>,
}

impl Store {
    pub(super) fn open(dir: &Path, list: &Listing, found: &mut Found) -> io::Result<Store> {
        for number in &list.temps {
            let _ = file::remove(&snapshot_temp(dir, *number));
        }
        for number in list.snapshots.iter().filter(|n| **n < found.base) {
            let _ = file::remove(&snapshot_path(dir, *number));
        }
        for number in list.journals.iter().filter(|n| **n < found.base) {
            let _ = file::remove(&journal_path(dir, *number));
        }
        if let Err(e) = set_aside(dir, &found.bad) {
            found.reports.push(format!("cannot write journal-bad.log: {e}"));
        }
        for number in &found.unreadable {
            let path = journal_path(dir, *number);
            let _ = std::fs::rename(&path, path.with_extension("unreadable"));
        }
        let last = list.journals.last().copied().unwrap_or(found.base).max(found.base);
        let number = last + u64::from(found.unreadable.contains(&last));
        let file = file::open(&journal_path(dir, number), How::Create, 0o600)?;
        let mut size = file.metadata()?.len();
        if let Some(end) = found.cut {
            // What follows the good end is overwritten if it cannot be cut.
            let _ = file.set_len(end);
            size = end;
        }
        let earlier = list.journals.iter().copied().filter(|n| (found.base..number).contains(n));
        let mut store = Store {
            dir: dir.to_owned(),
            number,
            file: Arc::new(file),
            size,
            allocated: 0,
            first: found.base,
            base: None,
            since: found.journal_bytes,
            before: found.snapshot_bytes,
            live: found.live(),
            next_seq: found.last + 1,
            accepted: 1,
            // What was loaded.
            written: 1,
            durable: 0,
            wanted: 0,
            pending: Pending::default(),
            short: false,
            buffer: Vec::new(),
            why: None,
            told: None,
            retry: Backoff::new(Duration::from_millis(100), Duration::from_secs(5)),
            full: false,
            full_retry: Backoff::new(Duration::from_secs(1), Duration::from_secs(10)),
            untrusted: None,
            unsynced: earlier
                .filter_map(|n| file::open(&journal_path(dir, n), How::Read, 0).ok())
                .map(Arc::new)
                .collect(),
            dir_changed: true,
            busy: false,
            stuck: false,
            snapshot: Snapshot::new(found.damaged()),
            facts: Vec::new(),
            reports: Vec::new(),
        };
        store.reserve(Mono(0));
        Ok(store)
    }

    pub(super) fn append(&mut self, now: Mono, records: &[Entity], accepted: u64) {
        if records.is_empty() {
            return;
        }
        self.accepted = accepted;
        if self.pending.is_empty() {
            let result = self.write(records);
            if result.is_err() {
                records.iter().for_each(|r| self.pending.push(r.clone()));
            }
            self.wrote(now, result);
        } else {
            records.iter().for_each(|r| self.pending.push(r.clone()));
            if self.retry.due(now) {
                self.write_pending(now);
            }
        }
    }

    fn write_pending(&mut self, now: Mono) {
        let records: Vec<Entity> = self.pending.by_order.values().cloned().collect();
        let result = self.write(&records);
        if result.is_ok() {
            self.pending = Pending::default();
        }
        self.wrote(now, result);
    }

    /// Writes records with one call, or one for each piece of a large round. They are one round: a process that is
    /// killed in a write leaves what lies before a page boundary, and a round must not be half there. So each record
    /// but the last says that more follow, and a round whose end is missing counts as not written. A round that cannot
    /// be written whole is taken back.
    fn write(&mut self, records: &[Entity]) -> io::Result<()> {
        self.buffer.clear();
        let (mut bytes, mut result) = (0, Ok(()));
        for (i, (n, record)) in (self.next_seq..).zip(records).enumerate() {
            let more = i + 1 < records.len();
            record::encode(&mut self.buffer, n, &record.key, record.json.as_deref(), more);
            if more && self.buffer.len() < PIECE {
                continue;
            }
            let (written, of_piece) = write_at(&self.file, &self.buffer, self.size + bytes as u64);
            self.buffer.clear();
            bytes += written;
            result = of_piece;
            if result.is_err() {
                break;
            }
        }
        if result.is_ok() {
            self.size += bytes as u64;
            self.since += bytes as u64;
            self.next_seq += records.len() as u64;
            self.live.note_all(records);
            self.snapshot.note_all(records);
        } else if bytes > 0 {
            // The next write begins at the same place whether this succeeds or not.
            let _ = self.file.set_len(self.size);
            self.allocated = self.size;
        }
        if self.buffer.capacity() > BUFFER_KEPT {
            self.buffer = Vec::new();
        }
        result
    }

    /// Draws the consequences of a write.
    fn wrote(&mut self, now: Mono, result: io::Result<()>) {
        match result {
            Ok(()) => {
                self.written = self.accepted;
                self.retry.clear();
                self.why = None;
                self.short = false;
            }
            Err(e) => {
                self.retry.failed(now);
                self.why = Some(format!("cannot write {}: {e}", journal_path(&self.dir, self.number).display()));
                if is_full(&e) {
                    self.short = true;
                    self.set_full(now, true);
                } else {
                    self.untrusted = Some(self.number);
                }
            }
        }
        self.tell();
        if self.full_retry.due(now) && self.allocated < self.size + JOURNAL_RESERVE {
            self.reserve(now);
        }
    }

    /// Allocates ahead of the end, and tells when that becomes impossible or possible again.
    pub(super) fn reserve(&mut self, now: Mono) {
        let wanted = JOURNAL_RESERVE + ALLOCATE_STEP;
        let room = file::reserve(&self.file, self.size, wanted).map(|()| wanted).or_else(|_| {
            // The reserve may fit without the step beyond it.
            file::reserve(&self.file, self.size, JOURNAL_RESERVE).map(|()| JOURNAL_RESERVE)
        });
        let full = self.short || room.as_ref().is_err_and(is_full);
        match room {
            Ok(room) => self.allocated = self.size + room,
            // Failures of another kind will show when something is written.
            Err(_) if !full => self.allocated = self.size + wanted,
            Err(_) => {}
        }
        self.set_full(now, full);
    }

    fn set_full(&mut self, now: Mono, full: bool) {
        if full {
            self.full_retry.failed(now);
        } else {
            self.full_retry.clear();
        }
        if full != self.full {
            self.full = full;
            self.facts.push(Input::JournalFull { full });
        }
    }

    /// Tells whether the journal is behind, and why, when that has changed.
    pub(super) fn tell(&mut self) {
        let why = self.why.clone().or_else(|| {
            if self.stuck {
                return Some(format!("the disk of {} does not answer", self.dir.display()));
            }
            self.untrusted?;
            Some(format!("the journal in {} had an I/O error and is being replaced", self.dir.display()))
        });
        if why != self.told {
            self.told.clone_from(&why);
            self.facts.push(Input::JournalBehind { why });
        }
    }

    pub(super) fn tick(&mut self, now: Mono) {
        if !self.pending.is_empty() && self.retry.due(now) {
            self.write_pending(now);
        }
        if self.full_retry.at().is_some_and(|at| at <= now) {
            self.reserve(now);
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Mono> {
        let write = if self.pending.is_empty() { None } else { self.retry.at() };
        sooner(write, sooner(self.full_retry.at(), self.snapshot_deadline()))
    }

    /// Starts a new journal; the one before stays to be synced and read until a snapshot replaces both.
    /// Returns the last sequence number before it.
    pub(super) fn switch(&mut self, now: Mono) -> io::Result<u64> {
        let number = self.number + 1;
        let file = file::open(&journal_path(&self.dir, number), How::New, 0o600)?;
        let before = core::mem::replace(&mut self.file, Arc::new(file));
        // Gives back what was allocated beyond its end; if that fails it is given back with the file.
        let _ = before.set_len(self.size);
        if self.durable < self.written {
            self.unsynced.push(before);
        }
        self.number = number;
        self.size = 0;
        let base = self.next_seq - 1;
        self.base = Some(base);
        self.dir_changed = true;
        self.reserve(now);
        if !self.pending.is_empty() {
            self.write_pending(now);
        }
        Ok(base)
    }

    pub(super) fn job(&mut self) -> Option<Job> {
        if self.busy {
            return None;
        }
        let upto = self.written;
        let work = if let Some(finish) = self.take_finish() {
            Work::Finish(finish)
        } else if self.durable < self.wanted && self.durable < upto && self.untrusted.is_none() {
            let mut files = core::mem::take(&mut self.unsynced);
            files.push(Arc::clone(&self.file));
            Work::Sync { files, dir: core::mem::take(&mut self.dir_changed).then(|| self.dir.clone()) }
        } else {
            return None;
        };
        self.busy = true;
        Some(Job { work, upto })
    }

    pub(super) fn ended(&mut self, now: Mono, ended: Ended) {
        (self.busy, self.stuck) = (false, false);
        match (ended.snapshot, ended.result) {
            (None, Ok(())) if self.untrusted.is_none() => self.durable = self.durable.max(ended.upto),
            (None, Ok(())) => {}
            (Some((number, bytes)), Ok(())) => self.snapshot_done(number, bytes, ended.upto),
            (snapshot, Err(e)) => {
                self.reports.push(match snapshot {
                    Some((n, _)) => format!("cannot finish {}: {e}", snapshot_path(&self.dir, n).display()),
                    None => format!("cannot sync {}: {e}", journal_path(&self.dir, self.number).display()),
                });
                self.failed(now, ended.journal);
            }
        }
        self.tell();
    }
}

/// Failures that pass when space comes back; the file itself is as good as before.
pub(super) fn is_full(e: &io::Error) -> bool {
    matches!(e.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge)
}

/// Bytes written before the first error, and that error.
fn write_at(file: &File, bytes: &[u8], at: u64) -> (usize, io::Result<()>) {
    let mut done = 0;
    while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
        match file.write_at(rest, at + done as u64) {
            Ok(0) => return (done, Err(ErrorKind::WriteZero.into())),
            Ok(n) => done += n,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return (done, Err(e)),
        }
    }
    (done, Ok(()))
}

fn set_aside(dir: &Path, bad: &[u8]) -> io::Result<()> {
    if bad.is_empty() {
        return Ok(());
    }
    let file = file::open(&dir.join("journal-bad.log"), How::Append, 0o600)?;
    if file.metadata()?.len() > BAD_FILE_MAX {
        return Ok(());
    }
    io::Write::write_all(&mut &file, bad)
}
