//! Ends of children: of runs, of strays that fell to the keeper, and of the daemon.

use super::Keeper;
use super::crash::Death;
use super::worker::Worker;
use crate::base::log::Level;
use crate::sys::wait::{self, Reaped, Status};
use crate::sys::{clock, signals};
use std::time::Duration;

/// Ends that are taken in one turn of the loop.
const AT_ONCE: usize = 256;

impl Keeper {
    /// Reaps what has ended, but not so much at once that the daemon and signals wait for it. The status of each run
    /// goes into the table before. Answers whether there are children at all.
    pub(super) fn reap(&mut self) -> bool {
        self.unreaped = false;
        for _ in 0..AT_ONCE {
            match wait::reap_any(&self.means.table, self.worker.as_ref().map(Worker::pid)) {
                Ok(Reaped::Slot(slot)) => {
                    if let Some(worker) = &mut self.worker {
                        worker.note_ended(slot);
                    }
                }
                Ok(Reaped::Daemon(status)) => self.daemon_ended(status),
                Ok(Reaped::Stray) => {}
                Ok(Reaped::None { children }) => return children,
                Err(e) => {
                    self.say(Level::Error, &format!("keeper: cannot reap: {e}"));
                    return false;
                }
            }
        }
        self.unreaped = true;
        true
    }

    /// The same until nothing that has ended is left.
    pub(super) fn reap_all(&mut self) -> bool {
        loop {
            let children = self.reap();
            if !self.unreaped {
                return children;
            }
        }
    }

    pub(super) fn daemon_ended(&mut self, status: Status) {
        if let Some(worker) = &mut self.worker {
            worker.set_reaped();
        }
        // What it had said before its death still counts, above all what is to be held.
        self.receive();
        let Some(worker) = self.worker.take() else { return };
        let now = clock::now().mono;
        if worker.trial && !worker.is_up() && self.done.is_none() {
            return self.trial_failed(Keeper::verdict_of(status));
        }
        let wait = if worker.is_up() { Duration::ZERO } else { self.next_backoff() };
        self.start_at = now + wait;
        if self.done.is_some() || worker.is_leaving() {
            return;
        }
        self.end_with_daemon(now);
        let how = match status {
            Status::Code(code) => format!("with code {code}"),
            Status::Signal(number) => format!("by {}", signals::platform().signal_name(number)),
        };
        let (hung, served) = (worker.watch.hung(), worker.watch.served(now));
        let death = Death { status, up: worker.is_up(), hung, served };
        let level = if death.own_fault() { Level::Error } else { Level::Warn };
        self.say(level, &format!("keeper: daemon {} (pid {}) ended {how}", self.generation, worker.pid()));
        self.release_words();
        if self.crashes.died(now, death) {
            self.say(
                Level::Error,
                "keeper: daemons have died one after the other; the next one is in safe mode until a reload",
            );
        }
    }
}
