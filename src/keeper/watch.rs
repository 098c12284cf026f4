//! Whether the daemon still turns: after a missed heartbeat it is asked, and only when it leaves several questions
//! unanswered is it taken for hung. Pure.
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
    /// Beyond the time at which the next heartbeat was promised.
    pub slack: Duration,
    /// For each question.
    pub answer: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience { slack: Duration::from_secs(5), answer: Duration::from_secs(10) }
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
}

impl Watch {
    pub(super) fn new(patience: Patience) -> Watch {
        Watch { patience, every: Duration::ZERO, next: None, asked: 0 }
    }

    /// A heartbeat, with the promise of another one after this time. Zero ends the watch.
    pub(super) fn beat(&mut self, now: Mono, every: Duration) {
        self.every = every;
        self.begin(now);
    }

    /// This process was not woken for a while: what the daemon could not do meanwhile does not count.
    pub(super) fn thaw(&mut self, now: Mono) {
        self.begin(now);
    }

    fn begin(&mut self, now: Mono) {
        self.asked = 0;
        self.next = (!self.every.is_zero()).then(|| now + self.every + self.patience.slack);
    }

    /// From one heartbeat to the next; zero: there are none.
    pub(super) fn every(&self) -> Duration {
        self.every
    }

    pub(super) fn deadline(&self) -> Option<Mono> {
        self.next
    }

    /// Whether it was taken for hung.
    pub(super) fn hung(&self) -> bool {
        self.asked > QUESTIONS
    }

    /// What is due now; each answer counts as done.
    pub(super) fn due(&mut self, now: Mono) -> Concern {
        if self.next.is_none_or(|at| now < at) {
            return Concern::None;
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
        assert_eq!(w.due(at(34)), Concern::None);
        for (seconds, concern) in [(35, Concern::Ask), (45, Concern::Ask), (55, Concern::Ask), (65, Concern::Abort)] {
            assert!(!w.hung());
            assert_eq!((w.deadline(), w.due(at(seconds))), (Some(at(seconds)), concern));
        }
        assert!(w.hung());
        assert_eq!((w.deadline(), w.due(at(75))), (Some(at(75)), Concern::Kill));
    }

    #[test]
    fn an_answer_or_a_freeze_begins_anew() {
        let mut w = watch();
        for _ in 0..5 {
            assert_eq!([w.due(at(35)), w.due(at(45)), w.due(at(55))], [Concern::Ask; 3]);
            w.beat(at(0), Duration::from_secs(30));
        }
        assert_eq!([w.due(at(35)), w.due(at(45)), w.due(at(55))], [Concern::Ask; 3]);
        w.thaw(at(1000));
        assert_eq!(w.deadline(), Some(at(1035)));
        assert_eq!(w.due(at(1035)), Concern::Ask);
        assert!(!w.hung());
    }

    #[test]
    fn without_heartbeats_there_is_nothing_to_miss() {
        let mut w = watch();
        w.beat(at(1), Duration::ZERO);
        assert_eq!((w.deadline(), w.due(at(10_000))), (None, Concern::None));
        w.thaw(at(20_000));
        assert_eq!(w.deadline(), None);
    }
}
