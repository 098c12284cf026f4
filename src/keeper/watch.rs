//! Whether the daemon still turns: after a missed heartbeat it is asked, and only when it leaves several questions
//! unanswered is it taken for hung. One that is coming up answers nobody: it has its time for each step of the way.
//! Pure.
//!
//! A keeper that was not woken in time knows nothing: the machine stood still, or it did itself. Then the count begins
//! anew, so that a thawed machine never looks hung.

use crate::base::time::Mono;
use std::time::Duration;

/// Questions that have to stay unanswered.
const QUESTIONS: u32 = 3;

/// How patient a keeper is; tests are less so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For a daemon to come up, or on its way to come from one mark in the run table to the next: a slow disk and a
    /// long journal have their time.
    pub rise: Duration,
    /// Beyond the time at which the next heartbeat was promised.
    pub slack: Duration,
    /// For each question.
    pub answer: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience { rise: Duration::from_secs(60), slack: Duration::from_secs(5), answer: Duration::from_secs(10) }
    }
}

/// What is to be done about a daemon that is not heard of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Concern {
    None,
    /// Ask whether it is there.
    Ask,
    /// It hangs: let it die where it stands, so that what it was at can be seen.
    Abort,
    /// Not even that could reach it.
    Kill,
}

/// The watch over one daemon.
#[derive(Debug)]
pub(super) struct Watch {
    patience: Patience,
    /// From one heartbeat to the next; zero: there are none.
    every: Duration,
    /// When something has to be done unless a heartbeat comes.
    next: Option<Mono>,
    asked: u32,
    /// While it comes up: the mark at which it was seen last.
    rising: Option<u64>,
    /// Since when it is watched, and when it was heard of last.
    since: Option<Mono>,
    heard: Mono,
}

impl Watch {
    pub(super) fn new(patience: Patience) -> Watch {
        Watch { patience, every: Duration::ZERO, next: None, asked: 0, rising: None, since: None, heard: Mono(0) }
    }

    /// It was started and is to come up; `mark`: what the one before it was at.
    pub(super) fn rise(&mut self, now: Mono, mark: u64) {
        self.rising = Some(mark);
        self.begin(now);
        self.hear(now);
    }

    /// It serves, be it without heartbeats.
    pub(super) fn up(&mut self, now: Mono) {
        self.hear(now);
        if self.rising.take().is_some() {
            self.begin(now);
        }
    }

    /// A heartbeat, with the promise of another one after this time. Zero ends the watch.
    pub(super) fn beat(&mut self, now: Mono, every: Duration) {
        self.hear(now);
        self.rising = None;
        self.every = every;
        self.begin(now);
    }

    fn hear(&mut self, now: Mono) {
        self.since.get_or_insert(now);
        self.heard = now;
    }

    /// This process was not woken for a while: what the daemon could not do meanwhile does not count.
    pub(super) fn thaw(&mut self, now: Mono) {
        self.begin(now);
    }

    fn begin(&mut self, now: Mono) {
        self.asked = 0;
        let wait = if self.rising.is_some() {
            Some(self.patience.rise)
        } else {
            (!self.every.is_zero()).then(|| self.every + self.patience.slack)
        };
        self.next = wait.map(|wait| now + wait);
    }

    /// From one heartbeat to the next; zero: there are none.
    pub(super) fn every(&self) -> Duration {
        self.every
    }

    pub(super) fn deadline(&self) -> Option<Mono> {
        self.next
    }

    /// Whether it is coming up, and has its time for that.
    pub(super) fn is_rising(&self) -> bool {
        self.rising.is_some() && !self.hung()
    }

    /// For how long it did its work, as far as is known now.
    pub(super) fn served(&self, now: Mono) -> Duration {
        let until = if self.hung() { self.heard } else { now };
        self.since.map_or(Duration::ZERO, |since| until.since(since))
    }

    /// Whether it was taken for hung.
    pub(super) fn hung(&self) -> bool {
        self.asked > QUESTIONS
    }

    /// What is due now; each answer counts as done. `mark`: what the daemon is at, while it comes up.
    pub(super) fn due(&mut self, now: Mono, mark: u64) -> Concern {
        if self.next.is_none_or(|at| now < at) {
            return Concern::None;
        }
        if self.is_rising() {
            if self.rising.replace(mark) != Some(mark) {
                self.begin(now);
                return Concern::None;
            }
            // It would not take a question.
            self.asked = QUESTIONS;
        }
        self.next = Some(now + self.patience.answer);
        self.asked += 1;
        match self.asked {
            ..=QUESTIONS => Concern::Ask,
            n if n == QUESTIONS + 1 => Concern::Abort,
            _ => Concern::Kill,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Mono {
        Mono(seconds * 1_000_000_000)
    }

    fn watch() -> Watch {
        let mut w = Watch::new(Patience::default());
        assert_eq!(w.deadline(), None, "who never beat is not waited for");
        w.beat(at(0), Duration::from_secs(30));
        w
    }

    #[test]
    fn three_unanswered_questions_and_no_fewer() {
        let mut w = watch();
        assert_eq!(w.deadline(), Some(at(35)), "beats alone wake nobody in between");
        assert_eq!(w.due(at(34), 0), Concern::None);
        for (seconds, concern) in [(35, Concern::Ask), (45, Concern::Ask), (55, Concern::Ask), (65, Concern::Abort)] {
            assert!(!w.hung());
            assert_eq!((w.deadline(), w.due(at(seconds), 0)), (Some(at(seconds)), concern));
        }
        assert!(w.hung());
        assert_eq!((w.deadline(), w.due(at(75), 0)), (Some(at(75)), Concern::Kill));
    }

    #[test]
    fn an_answer_or_a_freeze_begins_anew() {
        let mut w = watch();
        for _ in 0..5 {
            assert_eq!([w.due(at(35), 0), w.due(at(45), 0), w.due(at(55), 0)], [Concern::Ask; 3]);
            w.beat(at(0), Duration::from_secs(30));
        }
        assert_eq!([w.due(at(35), 0), w.due(at(45), 0), w.due(at(55), 0)], [Concern::Ask; 3]);
        w.thaw(at(1000));
        assert_eq!(w.deadline(), Some(at(1035)));
        assert_eq!(w.due(at(1035), 0), Concern::Ask);
        assert!(!w.hung());
    }

    #[test]
    fn without_heartbeats_there_is_nothing_to_miss() {
        let mut w = watch();
        w.beat(at(1), Duration::ZERO);
        assert_eq!((w.deadline(), w.due(at(10_000), 0)), (None, Concern::None));
        w.thaw(at(20_000));
        assert_eq!(w.deadline(), None);
    }

    #[test]
    fn who_comes_up_has_its_time_for_each_step_and_no_more() {
        let mut w = Watch::new(Patience::default());
        w.rise(at(0), 7);
        assert_eq!((w.deadline(), w.due(at(59), 7)), (Some(at(60)), Concern::None));
        assert_eq!((w.due(at(60), 8), w.deadline()), (Concern::None, Some(at(120))), "it has come on");
        w.thaw(at(130));
        assert_eq!((w.deadline(), w.due(at(189), 8)), (Some(at(190)), Concern::None), "nobody could do anything");
        assert!(w.is_rising() && !w.hung());
        assert_eq!((w.due(at(190), 8), w.deadline()), (Concern::Abort, Some(at(200))), "where it was before");
        assert!(w.hung() && !w.is_rising());
        assert_eq!(w.due(at(200), 9), Concern::Kill);
        assert_eq!(w.served(at(200)), Duration::ZERO);
    }

    #[test]
    fn who_has_come_up_is_watched_by_its_heartbeats_alone() {
        let mut w = Watch::new(Patience::default());
        w.rise(at(0), 0);
        w.up(at(2));
        assert_eq!((w.deadline(), w.due(at(10_000), 0)), (None, Concern::None));
        assert_eq!(w.served(at(10_000)), Duration::from_secs(10_000));
        let mut w = Watch::new(Patience::default());
        w.rise(at(0), 0);
        w.beat(at(1), Duration::from_secs(30));
        w.up(at(2));
        assert_eq!(w.deadline(), Some(at(36)), "it did not promise another beat by that");
        for (seconds, concern) in [(36, Concern::Ask), (46, Concern::Ask), (56, Concern::Ask), (66, Concern::Abort)] {
            assert_eq!(w.due(at(seconds), 1), concern);
        }
        assert_eq!(w.served(at(66)), Duration::from_secs(2));
    }
}
