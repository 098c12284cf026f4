//! The journal: what hob accepted, on disk before it is acted upon. It knows keys and opaque states, not what they
//! mean.
//!
//! A round's records go out in one write. Replies that promise durability wait for a sync in `Lane::Sync`; one sync
//! serves all that wait, and while it runs later rounds write on and ride on the next. Numbers: every record on disk
//! has a sequence number without gaps; every record that was accepted has a ticket, and `durable(ticket)` is what a
//! reply waits for. They differ while something cannot be written: a record then stays queued, a newer one of the same
//! key takes its place, and both tickets are served when that one is durable.
//!
//! Files, in the state folder: `journal-N.log` is appended to. When more of the files is of no use any more than is
//! still, N+1 is opened and the live entities, as the core tells them, are written in slices to `snapshot-N+1.tmp`,
//! which is synced, renamed to `.log`, and replaces all files with lower numbers. Loading takes the newest complete
//! snapshot and the journals from its number on. A journal whose sync or write failed with an I/O error is not trusted
//! any more: nothing becomes durable until a snapshot has replaced it.

mod live;
mod load;
mod record;
mod snapshot;
mod store;
mod sync;
#[cfg(test)]
mod tests;

pub use sync::{Ended, Job};

use crate::base::time::Mono;
use crate::core::Input;
use crate::core::record::Entity;
use crate::daemon::lifecycle::mark::Marks;
use crate::daemon::pool::{Lane, Pool};
use core::time::Duration;
use load::{Found, Listing};
use std::io;
use std::path::Path;
use store::Store;

/// How long a sync may take before the pool reports it; its replies wait on.
pub const SYNC_LIMIT: Duration = Duration::from_secs(30);

/// What a new daemon gets from the journal.
#[derive(Debug)]
pub struct Loaded {
    pub journal: Journal,
    /// The last state of each entity that exists, in the order of these changes; those that did not change since the
    /// snapshot come first, in its order.
    pub entities: Vec<Entity>,
    /// What was found damaged and repaired, for the daemon's own log.
    pub reports: Vec<String>,
    /// Records are missing or unreadable: something that was accepted may be lost.
    pub gap: bool,
}

/// What reading alone finds.
#[derive(Debug)]
pub struct Checked {
    pub entities: Vec<Entity>,
    pub reports: Vec<String>,
    pub gap: bool,
}

/// The journal, owned by the loop. Nothing here waits for the disk, save for the page cache.
#[derive(Debug)]
pub struct Journal {
    /// `None`: nothing can be written here, so everything counts as durable at once.
    store: Option<Box<Store>>,
    tickets: u64,
    /// What is to be told where there is no store.
    facts: Vec<Input>,
}

impl Journal {
    /// Loads what is in the folder, repairs it, and opens the last journal for appending.
    ///
    /// # Errors
    /// When the folder cannot be read or no journal can be opened in it. A full disk is no error if a journal exists.
    pub fn open(dir: &Path) -> io::Result<Loaded> {
        Journal::open_marked(dir, None)
    }

    /// The same, with a mark of the record that is being read.
    ///
    /// # Errors
    /// As `open`.
    pub fn open_marked(dir: &Path, marks: Option<&Marks>) -> io::Result<Loaded> {
        let list = Listing::read(dir)?;
        let mut found = Found::read(dir, &list, marks);
        let store = Store::open(dir, &list, &mut found)?;
        Ok(Loaded {
            journal: Journal { tickets: store.written, store: Some(Box::new(store)), facts: Vec::new() },
            reports: core::mem::take(&mut found.reports),
            gap: found.gap,
            entities: found.into_entities(),
        })
    }

    /// Where nothing is writable: keeps nothing, and the core learns of it, so that status says so for as long as it
    /// lasts.
    #[must_use]
    pub fn none() -> Loaded {
        let why = "no folder for state can be written: nothing is remembered after the daemon ends".to_owned();
        let facts = vec![Input::JournalBehind { why: Some(why) }];
        Loaded {
            journal: Journal { facts, ..Journal::closed() },
            entities: Vec::new(),
            reports: Vec::new(),
            gap: false,
        }
    }

    /// For a daemon that is to write nothing: keeps nothing, which is as it should be.
    #[must_use]
    pub fn closed() -> Journal {
        Journal { store: None, tickets: 0, facts: Vec::new() }
    }

    /// The number of the last record that was written, 0 without a journal.
    #[must_use]
    pub fn last_record(&self) -> u64 {
        self.store.as_ref().map_or(0, |s| s.next_seq.saturating_sub(1))
    }

    /// Reads what is in the folder and changes nothing.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn check(dir: &Path) -> io::Result<Checked> {
        let mut found = Found::read(dir, &Listing::read(dir)?, None);
        let reports = core::mem::take(&mut found.reports);
        Ok(Checked { reports, gap: found.gap, entities: found.into_entities() })
    }

    /// The same for a journal of one file that has these bytes.
    #[must_use]
    pub fn check_bytes(bytes: &[u8]) -> Checked {
        let mut found = Found::default();
        // Memory can always be read.
        let _ = found.journal(bytes, "journal-1.log", true);
        found.finish();
        Checked { reports: core::mem::take(&mut found.reports), gap: found.gap, entities: found.into_entities() }
    }

    /// Accepts a round's records and writes them with one call, together with those still queued. What cannot be
    /// written stays queued and is tried again later.
    pub fn append(&mut self, now: Mono, records: &[Entity]) {
        self.tickets += records.len() as u64;
        if let Some(store) = &mut self.store {
            store.append(now, records, self.tickets);
        }
    }

    /// The ticket of the last record accepted: what a durable reply given now must wait for. All that was loaded is one
    /// ticket of its own, because the daemon that wrote it may have been killed before it was synced.
    #[must_use]
    pub fn sync_token(&self) -> u64 {
        self.tickets
    }

    /// Whether all records up to this ticket are on disk.
    #[must_use]
    pub fn durable(&self, token: u64) -> bool {
        self.durable_upto() >= token
    }

    /// Whether all records are written, so that a daemon after this one knows of them; nothing is known without a
    /// journal, and nothing waits for one.
    #[must_use]
    pub fn is_written(&self) -> bool {
        self.store.as_ref().is_none_or(|s| s.written >= self.tickets)
    }

    /// The ticket up to which all records are on disk.
    #[must_use]
    pub fn durable_upto(&self) -> u64 {
        self.store.as_ref().map_or(self.tickets, |s| s.durable)
    }

    /// A reply waits for this ticket: `job` will give a sync that covers it.
    pub fn want(&mut self, token: u64) {
        if let Some(store) = &mut self.store {
            store.wanted = store.wanted.max(token);
        }
    }

    /// The next piece of work for `Lane::Sync`, if one is due and none is under way.
    pub fn job(&mut self) -> Option<Job> {
        self.store.as_mut()?.job()
    }

    /// Gives the pool what `job` gives. To be called at the end of each turn; costs nothing when nothing is due.
    pub fn request_sync<T: Send + 'static>(&mut self, pool: &mut Pool<T>, now: Mono, wrap: fn(Ended) -> T) {
        if let Some(job) = self.job() {
            pool.run(Lane::Sync, job.name(), now, SYNC_LIMIT, move || wrap(job.run()));
        }
    }

    /// Takes the result of a job, a late one too; replies whose ticket is `durable` now may go out.
    pub fn ended(&mut self, now: Mono, ended: Ended) {
        if let Some(store) = &mut self.store {
            store.ended(now, ended);
        }
    }

    /// The pool says that the job under way is past its deadline. Its replies wait on, and the core learns why.
    pub fn overdue(&mut self) {
        if let Some(store) = &mut self.store {
            store.stuck = store.busy;
            store.tell();
        }
    }

    /// The pool says that the job under way panicked; it counts as failed.
    pub fn lost(&mut self, now: Mono) {
        self.ended(now, Ended::lost());
    }

    /// Goes on with a snapshot, or begins one when it is due; to be called once a turn. `slice` answers at most so many
    /// live entities whose keys come after the given one in byte order, sorted by key; fewer mean that it was the last
    /// slice.
    pub fn snapshot_step(&mut self, now: Mono, slice: &mut dyn FnMut(Option<&str>, usize) -> Vec<Entity>) {
        if let Some(store) = &mut self.store {
            store.snapshot_step(now, slice);
        }
    }

    /// When `tick` and `snapshot_step` have something to do if nothing happens before; `Mono(0)` means at once.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Mono> {
        self.store.as_ref()?.next_deadline()
    }

    /// Tries again what failed, if its time has come.
    pub fn tick(&mut self, now: Mono) {
        if let Some(store) = &mut self.store {
            store.tick(now);
        }
    }

    /// `JournalBehind` and `JournalFull`, each when it changes.
    pub fn poll_facts(&mut self) -> Vec<Input> {
        core::mem::take(self.store.as_mut().map_or(&mut self.facts, |s| &mut s.facts))
    }

    /// What went wrong since the last call, for the daemon's own log.
    pub fn reports(&mut self) -> Vec<String> {
        self.store.as_mut().map_or_else(Vec::new, |s| core::mem::take(&mut s.reports))
    }
}

/// For the fuzzer: loading arbitrary bytes as a journal never panics, and what was loaded, saved again, loads the same.
///
/// # Panics
/// When it does not.
pub fn fuzz(bytes: &[u8]) {
    let first = Journal::check_bytes(bytes).entities;
    let mut saved = Vec::new();
    for (n, entity) in (1..).zip(&first) {
        record::encode(&mut saved, n, &entity.key, entity.json.as_deref(), false);
    }
    let second = Journal::check_bytes(&saved);
    assert!(!second.gap && first == second.entities, "saved and loaded again, it is not the same");
}
