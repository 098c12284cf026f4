//! What the journal has done in `Lane::Sync`: syncing what was written, and putting a finished snapshot in place.

use super::load::{journal_path, snapshot_path, snapshot_temp};
use crate::sys::file;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// One piece of blocking work. It knows up to which ticket everything is durable once it has succeeded.
#[derive(Debug)]
pub struct Job {
    pub(super) work: Work,
    pub(super) upto: u64,
}

#[derive(Debug)]
pub(super) enum Work {
    /// `dir`: new names must become durable too.
    Sync {
        files: Vec<Arc<File>>,
        dir: Option<PathBuf>,
    },
    Finish(Finish),
}

#[derive(Debug)]
pub(super) struct Finish {
    pub(super) dir: PathBuf,
    pub(super) snapshot: File,
    pub(super) journal: Arc<File>,
    pub(super) number: u64,
    /// Lowest number that may still exist.
    pub(super) first: u64,
    pub(super) bytes: u64,
}

/// How a job came out, for `Journal::ended`.
#[derive(Debug)]
pub struct Ended {
    pub(super) upto: u64,
    /// Number and size of the snapshot that was to be put in place.
    pub(super) snapshot: Option<(u64, u64)>,
    /// Whether a failure was one of syncing a journal, which then cannot be trusted.
    pub(super) journal: bool,
    pub(super) result: io::Result<()>,
}

impl Job {
    /// For the pool's reports.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self.work {
            Work::Sync { .. } => "journal sync",
            Work::Finish(_) => "journal snapshot",
        }
    }

    /// Does the work; it may block for as long as the disk likes.
    #[must_use]
    pub fn run(self) -> Ended {
        let upto = self.upto;
        match &self.work {
            Work::Sync { files, dir } => {
                let synced = files.iter().try_for_each(|f| f.sync_data());
                let result = synced.and_then(|()| dir.as_deref().map_or(Ok(()), file::sync_dir));
                Ended { upto, snapshot: None, journal: true, result }
            }
            Work::Finish(f) => {
                let failed = (0..FINISH_STEPS).find_map(|step| f.step(step).err().map(|e| (step, e)));
                let journal = failed.as_ref().is_some_and(|(step, _)| *step == JOURNAL_STEP);
                let result = failed.map_or(Ok(()), |(_, e)| Err(e));
                Ended { upto, snapshot: Some((f.number, f.bytes)), journal, result }
            }
        }
    }
}

impl Ended {
    /// Whether it was that of a snapshot, for which every entity was looked at.
    #[must_use]
    pub fn is_of_snapshot(&self) -> bool {
        self.snapshot.is_some()
    }

    /// Of a job of which nothing is known but that it is over.
    pub(super) fn lost() -> Ended {
        Ended { upto: 0, snapshot: None, journal: true, result: Err(io::Error::other("the job came to a bad end")) }
    }
}

pub(super) const FINISH_STEPS: u32 = 6;
/// The one of them that syncs the journal.
const JOURNAL_STEP: u32 = 1;

impl Finish {
    /// The steps in their order; a crash after any of them loads right. Only once the snapshot's name is durable is
    /// anything removed that it replaces.
    pub(super) fn step(&self, step: u32) -> io::Result<()> {
        let older = self.first..self.number;
        match step {
            0 => self.snapshot.sync_all(),
            JOURNAL_STEP => self.journal.sync_data(),
            2 => std::fs::rename(snapshot_temp(&self.dir, self.number), snapshot_path(&self.dir, self.number)),
            3 => file::sync_dir(&self.dir),
            4 => remove_all(older.map(|n| snapshot_path(&self.dir, n))),
            _ => remove_all(older.map(|n| journal_path(&self.dir, n))),
        }
    }
}

/// What cannot be removed now does no harm and is removed by the next daemon.
fn remove_all(paths: impl Iterator<Item = PathBuf>) -> io::Result<()> {
    for path in paths {
        let _ = file::remove(&path);
    }
    Ok(())
}
