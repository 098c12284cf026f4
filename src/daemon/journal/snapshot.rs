//! Snapshots: the live entities written in slices over many turns, so that no turn is long and old journals can go.

use super::live::Live;
use super::load::snapshot_temp;
use super::record;
use super::store::{Backoff, Store};
use super::sync::Finish;
use crate::base::limits::{JOURNAL_SNAPSHOT_MIN, SNAPSHOT_SLICE};
use crate::base::time::Mono;
use crate::core::record::Entity;
use crate::sys::file::{self, How};
use core::time::Duration;
use std::fs::File;
use std::io::{self, Write as _};
use std::sync::Arc;

/// How far the present snapshot is, and whether one is due whatever the size.
#[derive(Debug)]
pub(super) struct Snapshot {
    state: State,
    /// What was loaded is damaged, or a snapshot failed: one is due.
    forced: bool,
    retry: Backoff,
    /// What is in the present one and in the journal behind it.
    live: Live,
}

#[derive(Debug)]
enum State {
    Idle,
    Writing(Writing),
    /// Written; its job has not been given out.
    Written(Writing),
    /// In the pool.
    Finishing,
}

#[derive(Debug)]
struct Writing {
    file: File,
    /// Sequence number of the last record before the journal of the same number.
    base: u64,
    cursor: Option<String>,
    count: u64,
    bytes: u64,
}

impl Snapshot {
    pub(super) fn new(forced: bool) -> Snapshot {
        let retry = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        Snapshot { state: State::Idle, forced, retry, live: Live::default() }
    }

    /// Records were written to the journal that a snapshot under way goes before.
    pub(super) fn note_all(&mut self, records: &[Entity]) {
        if !matches!(self.state, State::Idle) {
            self.live.note_all(records);
        }
    }
}

impl Store {
    /// A snapshot is made when it frees at least as much as it leaves: then no more is written anew than was written
    /// before, and the files stay within twice what is of use. It is also made when the journal has grown to several
    /// times the last one, so that what is of use is counted anew now and then.
    fn snapshot_due(&self) -> bool {
        let live = self.live.bytes();
        let dead = (self.before + self.since).saturating_sub(live);
        let grown = self.since > JOURNAL_SNAPSHOT_MIN.max(4 * self.before);
        dead > JOURNAL_SNAPSHOT_MIN.max(live) || grown || self.snapshot.forced || self.untrusted.is_some()
    }

    pub(super) fn snapshot_deadline(&self) -> Option<Mono> {
        match self.snapshot.state {
            State::Writing(_) => Some(Mono(0)),
            State::Idle if self.snapshot_due() => Some(self.snapshot.retry.at().unwrap_or(Mono(0))),
            State::Idle | State::Written(_) | State::Finishing => None,
        }
    }

    pub(super) fn snapshot_step(&mut self, now: Mono, slice: &mut dyn FnMut(Option<&str>, usize) -> Vec<Entity>) {
        if !self.snapshot_due() && !matches!(self.snapshot.state, State::Writing(_)) {
            return;
        }
        let state = core::mem::replace(&mut self.snapshot.state, State::Idle);
        let result = match state {
            State::Idle if self.snapshot_due() && self.snapshot.retry.due(now) => self.begin(now).map(State::Writing),
            State::Writing(writing) => writing.go_on(&mut self.snapshot.live, slice),
            State::Idle | State::Written(_) | State::Finishing => Ok(state),
        };
        match result {
            Ok(state) => self.snapshot.state = state,
            Err(e) => {
                let path = snapshot_temp(&self.dir, self.number);
                self.reports.push(format!("cannot write {}: {e}", path.display()));
                self.abandon(now, true);
            }
        }
    }

    /// Opens a new journal and the file of the snapshot that goes before it. After a failed attempt the journal that
    /// was opened for that one serves again while it is small, so that a full disk does not collect journals.
    fn begin(&mut self, now: Mono) -> io::Result<Writing> {
        let trusted = self.untrusted.is_none_or(|n| n < self.number);
        let usable = self.base.filter(|_| trusted && self.number > self.first && self.size < JOURNAL_SNAPSHOT_MIN);
        let base = match usable {
            Some(base) => base,
            None => self.switch(now)?,
        };
        let temp = snapshot_temp(&self.dir, self.number);
        file::remove(&temp)?;
        let file = file::open(&temp, How::New, 0o600)?;
        self.snapshot.live = Live::default();
        Ok(Writing { file, base, cursor: None, count: 0, bytes: 0 })
    }

    /// The work that puts a written snapshot in place.
    pub(super) fn take_finish(&mut self) -> Option<Finish> {
        match core::mem::replace(&mut self.snapshot.state, State::Idle) {
            State::Written(w) => {
                self.snapshot.state = State::Finishing;
                Some(Finish {
                    dir: self.dir.clone(),
                    snapshot: w.file,
                    journal: Arc::clone(&self.file),
                    number: self.number,
                    first: self.first,
                    bytes: w.bytes,
                })
            }
            other => {
                self.snapshot.state = other;
                None
            }
        }
    }

    /// A snapshot is in place: all that was written before its job began is on disk, in it or in the journal behind it.
    pub(super) fn snapshot_done(&mut self, number: u64, bytes: u64, upto: u64) {
        self.snapshot.state = State::Idle;
        self.snapshot.forced = false;
        self.snapshot.retry.clear();
        (self.first, self.before, self.since) = (number, bytes, self.size);
        self.live = core::mem::take(&mut self.snapshot.live);
        if self.untrusted.is_none_or(|n| n < number) {
            self.untrusted = None;
            self.unsynced.clear();
            self.dir_changed = false;
            self.durable = self.durable.max(upto);
        }
    }

    /// A job failed. `journal`: it was a sync of the journal, and then the kernel may have dropped what it could not
    /// write and will not say so again, so that all journals up to the present one are to be replaced.
    pub(super) fn failed(&mut self, now: Mono, journal: bool) {
        if journal {
            self.untrusted = Some(self.number);
        }
        let finishing = matches!(self.snapshot.state, State::Finishing);
        self.abandon(now, finishing);
    }

    /// Gives the present snapshot up; another one is made at once or later.
    fn abandon(&mut self, now: Mono, later: bool) {
        self.snapshot.state = State::Idle;
        self.snapshot.live = Live::default();
        self.snapshot.forced = true;
        if later {
            self.snapshot.retry.failed(now);
        }
        let _ = file::remove(&snapshot_temp(&self.dir, self.number));
    }
}

impl Writing {
    /// Writes one slice, and the end after the last one.
    fn go_on(
        mut self,
        live: &mut Live,
        slice: &mut dyn FnMut(Option<&str>, usize) -> Vec<Entity>,
    ) -> io::Result<State> {
        let entities = slice(self.cursor.as_deref(), SNAPSHOT_SLICE);
        live.note_all(&entities);
        let mut text = Vec::new();
        for entity in &entities {
            record::encode(&mut text, self.base, &entity.key, entity.json.as_deref(), false);
        }
        self.count += entities.len() as u64;
        let last = entities.len() < SNAPSHOT_SLICE;
        if last {
            record::encode_end(&mut text, self.base, self.count);
        }
        self.file.write_all(&text)?;
        self.bytes += text.len() as u64;
        self.cursor = entities.into_iter().next_back().map(|e| e.key);
        Ok(if last { State::Written(self) } else { State::Writing(self) })
    }
}
