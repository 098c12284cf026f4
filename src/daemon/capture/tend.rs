//! The care for a log's old files, at the end of each turn: those that are too old go, others are compressed.

use super::age;
use super::lane::{Outcome, RETRY, Writer};
use super::lines::Lines;
use super::zip::{self, Step, Zip};
use crate::base::time::{Now, Wall};
use core::time::Duration;

/// Ages are looked at again after this long at the latest.
const LOOK_AGAIN: Duration = Duration::from_secs(6 * 3600);

/// How old files come to be compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Zipping {
    /// There may be one to begin with.
    Due,
    Busy,
    /// After the next rotation.
    Idle,
    /// There is no program for it.
    Impossible,
}

impl Writer {
    /// Looks after the old files: those that are too old go, others are compressed.
    pub(super) fn tend(&mut self, now: Now, out: &mut Outcome) {
        if self.log.is_none() {
            return;
        }
        if let Some(max_age) = self.spec.max_age {
            if self.aged.is_none_or(|at| at <= now.wall) {
                self.aged = Some(self.expire(max_age, now, out));
            }
            // The wall clock may step, so that no deadline by it is too far away.
            let left = self.aged.map_or(LOOK_AGAIN, |at| at.since(now.wall).min(LOOK_AGAIN));
            out.wake = Some(out.wake.map_or(now.mono + left, |at| at.min(now.mono + left)));
        }
        if self.spec.compress && self.zipping == Zipping::Due {
            match Zip::next(self.share.names(), self.spec.max_files) {
                Ok(zip) => {
                    self.zipping = if zip.is_some() { Zipping::Busy } else { Zipping::Idle };
                    out.zip = zip;
                }
                Err(e) => {
                    self.zipping = Zipping::Idle;
                    out.notes.push(format!("cannot compress old files of {}: {e}", self.path()));
                }
            }
        }
    }

    /// Lets go what is too old; answers when to look again.
    fn expire(&mut self, max_age: Duration, now: Now, out: &mut Outcome) -> Wall {
        let first = self.log.as_ref().filter(|log| log.size() > 0).and_then(|log| log.first_written().ok().flatten());
        let mut due = first.map(|wall| age::after(wall, max_age));
        if due.is_some_and(|at| at <= now.wall) && self.rotate_when_due(now, out) {
            self.with_lines(Lines::stand_apart);
            due = None;
        }
        match age::remove_old(self.share.names(), max_age, now.wall) {
            Ok(aged) => {
                if aged.removed {
                    self.tell_all(out);
                }
                let next = [due, aged.next].into_iter().flatten().min();
                next.unwrap_or_else(|| age::after(now.wall, max_age)).max(age::after(now.wall, RETRY))
            }
            Err(e) => {
                out.notes.push(format!("cannot remove old files of {}: {e}", self.path()));
                age::after(now.wall, LOOK_AGAIN)
            }
        }
    }

    /// A copy of an old file is complete: it takes the place of that file, wherever that has moved to.
    pub(super) fn zipped(&mut self, step: Step, out: &mut Outcome) {
        self.zipping = Zipping::Due;
        let (from, copy) = match step {
            Step::Done { from, copy } => (from, copy),
            Step::Goes(_) => return,
            Step::Missing => {
                self.zipping = Zipping::Impossible;
                let name = &self.source.name;
                out.notes
                    .push(format!("old logs of {name} stay as they are: there is no program gzip to compress them"));
                return;
            }
            Step::Failed(why) => {
                self.zipping = Zipping::Idle;
                out.notes.push(format!("cannot compress an old file of {}: {why}", self.path()));
                return;
            }
        };
        if let Err(e) = zip::replace(&self.share, &from, &copy, self.spec.max_files) {
            self.zipping = Zipping::Idle;
            out.notes.push(format!("cannot compress an old file of {}: {e}", self.path()));
        }
        self.tell_all(out);
    }
}
