//! What services say of themselves by sd_notify(3), and until when it is listened to. The selector tells of a notify
//! socket only when another word comes, so it is kept here whose words wait.

use super::child::Heard;
use super::{Daemon, door};
use crate::base::ids::RunId;
use crate::base::time::Mono;
use crate::config::Level;
use crate::core::Input;
use crate::sys::notify::DATAGRAM_MAX;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Words of one service in one turn.
const PER_TURN: u32 = 32;
/// How long a service's words wait for what came with earlier ones to be closed, before they are looked at again.
const RETRY: Duration = Duration::from_millis(100);

/// What a look at the next word of a service came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// It was taken.
    Taken,
    /// There was none.
    Nothing,
    /// It has to wait for what came with earlier ones.
    Stalled,
}

/// Looks as long as there are words, and not longer than one service may have the loop. Answers the last look.
pub(super) fn hear(mut look: impl FnMut() -> Look) -> Look {
    (0..PER_TURN).map(|_| look()).find(|l| *l != Look::Taken).unwrap_or(Look::Taken)
}

/// Services that are to be looked at again.
#[derive(Debug, Default)]
pub(super) struct Unheard {
    /// In the next turn.
    next: BTreeSet<Arc<str>>,
    /// At a time.
    stalled: BTreeSet<Arc<str>>,
    retry_at: Option<Mono>,
    /// Runs of services that have ended: when there are no more words, there will be none.
    ended: BTreeMap<Arc<str>, RunId>,
    /// Those whose output has to pass before.
    passing: BTreeSet<RunId>,
    /// Services of whose overlong words the log has told.
    too_long: BTreeSet<Arc<str>>,
}

impl Unheard {
    /// Notes how the looks at a service's words ended. Answers its run that has ended, when those were the last words.
    pub(super) fn note(&mut self, service: &Arc<str>, last: Look, now: Mono) -> Option<RunId> {
        match last {
            Look::Nothing => return self.ended.remove(service),
            Look::Taken => drop(self.next.insert(Arc::clone(service))),
            Look::Stalled => {
                self.stalled.insert(Arc::clone(service));
                self.retry_at = Some(now + RETRY);
            }
        }
        None
    }

    /// The run has said all that it will.
    pub(super) fn ended(&mut self, service: &Arc<str>, run: RunId) {
        self.ended.insert(Arc::clone(service), run);
        self.next.insert(Arc::clone(service));
    }

    /// It has, but `passed` comes first.
    pub(super) fn await_output(&mut self, run: RunId) {
        self.passing.insert(run);
    }

    /// The output of a run has passed. Answers whether that was waited for.
    pub(super) fn passed(&mut self, run: RunId) -> bool {
        self.passing.remove(&run)
    }

    /// Whether the loop must not wait.
    pub(super) fn is_waiting(&self) -> bool {
        !self.next.is_empty()
    }

    /// Those to be looked at in this turn.
    pub(super) fn take(&mut self) -> BTreeSet<Arc<str>> {
        core::mem::take(&mut self.next)
    }

    /// When `due` is to be called at the latest.
    pub(super) fn deadline(&self) -> Option<Mono> {
        self.retry_at
    }

    pub(super) fn due(&mut self, now: Mono) {
        if self.retry_at.take_if(|at| *at <= now).is_some() {
            self.next.append(&mut self.stalled);
        }
    }
}

impl Daemon {
    /// What the service says of itself. A word stays in the socket until what it leads to is on record, so a round of
    /// its own follows each. One that says much in a turn has to wait for the next.
    pub(super) fn notified(&mut self, service: &Arc<str>) {
        if self.life.safe {
            // It cannot be put on record now, so it stays in the socket for the next daemon.
            return;
        }
        let last = hear(|| self.hear_one(service));
        if let Some(run) = self.unheard.note(service, last, self.gear.now.mono) {
            self.inputs.extend(self.children.said_ready(service, run));
            self.inputs.push(Input::Heard { run });
        }
    }

    fn hear_one(&mut self, service: &Arc<str>) -> Look {
        let of = || door::runs_as(&self.core, &self.children, service);
        let secrets = self.capture.secrets(service);
        match self.children.notified(&self.gear.table, service, &of, secrets.as_deref()) {
            Heard::Word(input) => {
                self.inputs.push(input);
                self.rounds();
                self.children.notify_taken(service);
                Look::Taken
            }
            Heard::Passed => Look::Taken,
            Heard::TooLong => {
                // Once, so that one that goes on so does not fill the log.
                if self.unheard.too_long.insert(Arc::clone(service)) {
                    let text = format!(
                        "{service} told more than {DATAGRAM_MAX} bytes at once through NOTIFY_SOCKET; that is not heard"
                    );
                    self.gear.log(Level::Warn, text);
                }
                Look::Taken
            }
            Heard::Nothing => Look::Nothing,
            Heard::Stalled => Look::Stalled,
        }
    }

    /// Words that earlier turns left.
    pub(super) fn hear_backlog(&mut self) {
        if !self.unheard.is_waiting() {
            return;
        }
        for service in self.unheard.take() {
            self.notified(&service);
        }
    }

    pub(super) fn output_passes(&mut self, run: RunId) -> Option<Input> {
        self.capture.run_ended(run, self.services.get(&run)?)
    }

    /// The words of a run are all said; `output`: those in its output count too, and have to be passed first.
    pub(super) fn hear_out(&mut self, run: RunId, output: bool) {
        match self.services.get(&run) {
            Some(service) if output && self.capture.has(service) => self.unheard.await_output(run),
            Some(service) => self.unheard.ended(service, run),
            None => self.inputs.push(Input::Heard { run }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_speaks_without_end_has_its_share_of_a_turn_and_is_not_forgotten() {
        let (mut unheard, service, mut looks) = (Unheard::default(), Arc::from("web"), 0);
        let mut turn = |words: u32| {
            looks = 0;
            let mut one = || {
                looks += 1;
                if looks > words { Look::Nothing } else { Look::Taken }
            };
            (hear(&mut one), looks)
        };
        assert_eq!(turn(3), (Look::Nothing, 4));
        assert_eq!(turn(u32::MAX), (Look::Taken, PER_TURN));
        unheard.note(&service, Look::Nothing, Mono(0));
        assert!(!unheard.is_waiting());
        unheard.note(&service, Look::Taken, Mono(0));
        assert!(unheard.is_waiting(), "the selector will not tell");
        assert_eq!(unheard.take().len(), 1);
        unheard.note(&service, Look::Stalled, Mono(0));
        let at = unheard.deadline().unwrap();
        assert!(!unheard.is_waiting() && at > Mono(0), "nothing turns in circles while it waits");
        unheard.due(at);
        assert_eq!((unheard.take().len(), unheard.deadline()), (1, None));
    }
}
