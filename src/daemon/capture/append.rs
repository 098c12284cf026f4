//! What the processing of lines uses of a writer: room in the file and on the disk, and a place to put what was made.

use super::file::LogFile;
use super::index::STAMPED;
use super::lane::{Fact, Outcome, Writer};
use super::lines::shape;
use super::ready::At;
use crate::base::time::Now;
use std::io;

impl Writer {
    /// Whether there is enough space on the file system to go on writing.
    pub(super) fn has_room(&mut self, now: Now, out: &mut Outcome) -> bool {
        let Some(log) = &self.log else { return true };
        let note = self.guard.look(now.mono, || log.space());
        out.notes.extend(note.map(|note| format!("{}: {note}", self.path())));
        self.guard.open()
    }

    /// What the present file takes until its cap.
    pub(super) fn room(&self, batch: usize) -> shape::Room {
        let size = self.log.as_ref().map_or(0, LogFile::size);
        shape::Room { left: self.spec.max_size.saturating_sub(size), empty: size == 0, batch }
    }

    /// Whether this turn has begun as many files as one may.
    pub(super) fn has_begun_enough(&self, out: &Outcome) -> bool {
        out.begun >= self.files_at_once()
    }

    /// Goes over to a new file, unless that failed just now. False when the old one goes on.
    pub(super) fn rotate_when_due(&mut self, now: Now, out: &mut Outcome) -> bool {
        self.rotate_again.is_none_or(|at| at <= now.mono) && self.rotate(now, out)
    }

    /// Adds finished lines; `index` says on which stream they came and whether they have time stamps.
    pub(super) fn append(&mut self, bytes: &[u8], index: (u32, bool), now: Now) -> io::Result<()> {
        let Some(log) = &mut self.log else { return Err(io::ErrorKind::NotFound.into()) };
        // Lines whose stream is not known are better than none.
        let _ = log.stamp(now.wall, if index.1 { index.0 | STAMPED } else { index.0 });
        log.write(bytes)?;
        self.guard.wrote(bytes.len());
        self.position = log.position();
        Ok(())
    }

    /// Lets readiness see what was processed.
    pub(super) fn feed(&mut self, bytes: &[u8], out: &mut Outcome) {
        let Some(watch) = self.watch.as_mut().filter(|w| matches!(w.at, At::Live)) else { return };
        if watch.feed(bytes) {
            out.facts.push(Fact::Ready(watch.run));
            self.watch = None;
        }
    }
}
