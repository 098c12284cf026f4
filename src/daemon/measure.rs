//! What running jobs cost now. A few are measured at once; many are measured in the pool, for everybody who asks in
//! the meantime together: one job is at work at a time, so that questions without end delay neither each other nor
//! what else the pool has to do.

use super::Daemon;
use super::child::MeasureJob;
use super::gear::Job;
use super::pool::Lane;
use crate::base::ids::{ConnId, ReqId, RunId};
use crate::core::{Input, Owner, Usages};
use std::collections::BTreeSet;
use std::sync::Arc;

/// How many running jobs are measured by the loop itself; more are left to the pool.
const MEASURED_INLINE: usize = 32;

/// What the pool calls it.
pub(super) const MEASURING: &str = "measuring";

/// A request whose answer tells what runs cost.
#[derive(Debug)]
pub(super) struct Asker {
    pub(super) req: ReqId,
    pub(super) conn: ConnId,
    pub(super) owner: Owner,
}

/// Who waits for the pool to measure. Whoever asks while a job is at work waits for the next one, so that nobody is
/// told what was measured before the question.
#[derive(Debug, Default)]
pub(super) struct Measuring {
    /// A job is at work.
    busy: bool,
    /// It is past its deadline. Another one would hang as well, so there are no figures until it has come back.
    hangs: bool,
    served: Vec<Asker>,
    next: Vec<Asker>,
    /// What the next job is to measure.
    runs: BTreeSet<RunId>,
}

impl Measuring {
    fn ask(&mut self, asker: Asker, runs: &[RunId]) {
        self.next.push(asker);
        self.runs.extend(runs);
    }

    /// What a job that begins now is to measure, for all who wait; `None`: none is to begin.
    fn begin(&mut self) -> Option<BTreeSet<RunId>> {
        if self.busy || self.next.is_empty() {
            return None;
        }
        self.busy = true;
        self.served = core::mem::take(&mut self.next);
        Some(core::mem::take(&mut self.runs))
    }

    /// The job has come back. Answers who waits for what it measured.
    fn ended(&mut self) -> Vec<Asker> {
        (self.busy, self.hangs) = (false, false);
        core::mem::take(&mut self.served)
    }

    /// The job is past its deadline.
    fn late(&mut self) {
        self.hangs = true;
    }

    /// Who is to be answered without figures, because none come.
    fn without(&mut self) -> Vec<Asker> {
        if !self.hangs {
            return Vec::new();
        }
        self.runs.clear();
        let mut all = core::mem::take(&mut self.served);
        all.append(&mut self.next);
        all
    }

    /// Nobody waits for the answers to its questions any more.
    pub(super) fn closed(&mut self, conn: ConnId) {
        self.served.retain(|a| a.conn != conn);
        self.next.retain(|a| a.conn != conn);
        if self.next.is_empty() {
            self.runs.clear();
        }
    }
}

impl Daemon {
    pub(super) fn measure(&mut self, asker: Asker, runs: &[RunId]) {
        self.tell_platform();
        if runs.len() <= MEASURED_INLINE {
            let usage = Arc::new(self.children.measure(runs).run());
            return self.inputs.push(Input::Measured { req: asker.req, usage });
        }
        self.waiting.measuring.ask(asker, runs);
        self.measure_next();
    }

    fn measure_next(&mut self) {
        if let Some(runs) = self.waiting.measuring.begin() {
            let (job, now) = (self.children.measure(&runs), self.gear.now.mono);
            self.gear.pool.run(Lane::Bulk, MEASURING, now, MeasureJob::DEADLINE, move || Job::Usage(job.run()));
        }
        let without = self.waiting.measuring.without();
        self.tell_usage(without, Usages::new());
    }

    /// The job at work has measured this, perhaps too late for those it was for.
    pub(super) fn measured(&mut self, usages: Usages) {
        let served = self.waiting.measuring.ended();
        self.tell_usage(served, usages);
        self.measure_next();
    }

    pub(super) fn measuring_hangs(&mut self) {
        self.waiting.measuring.late();
        self.measure_next();
    }

    /// Answers take their turns, as they may be long.
    fn tell_usage(&mut self, askers: Vec<Asker>, usages: Usages) {
        let usages = Arc::new(usages);
        for Asker { req, conn, owner } in askers {
            self.waiting.put_back(&owner, conn, Input::Measured { req, usage: Arc::clone(&usages) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(measuring: &mut Measuring, conn: u64, runs: &[u64]) {
        let runs: Vec<RunId> = runs.iter().copied().map(RunId).collect();
        measuring.ask(Asker { req: ReqId(conn * 10), conn: ConnId(conn), owner: Owner::User(7) }, &runs);
    }

    fn begun(measuring: &mut Measuring) -> Option<Vec<u64>> {
        measuring.begin().map(|runs| runs.into_iter().map(|run| run.0).collect())
    }

    fn conns(askers: Vec<Asker>) -> Vec<u64> {
        askers.into_iter().map(|a| a.conn.0).collect()
    }

    #[test]
    fn who_asks_while_a_job_is_at_work_waits_for_the_next_which_serves_all() {
        let mut m = Measuring::default();
        assert_eq!(begun(&mut m), None, "nobody asks");
        ask(&mut m, 1, &[1, 2]);
        assert_eq!(begun(&mut m), Some(vec![1, 2]));
        for _ in 0..1000 {
            ask(&mut m, 2, &[2, 3]);
            assert_eq!(begun(&mut m), None, "one is at work");
        }
        ask(&mut m, 3, &[9, 1]);
        assert_eq!(conns(m.ended()), [1], "what it measured is too old for the others");
        assert_eq!(begun(&mut m), Some(vec![1, 2, 3, 9]));
        assert!(m.without().is_empty(), "it is not late");
        let served = conns(m.ended());
        assert_eq!((served.len(), served.first(), served.last()), (1001, Some(&2), Some(&3)), "in order");
        assert_eq!(begun(&mut m), None, "all are served");
    }

    #[test]
    fn nobody_waits_for_a_job_that_hangs_and_no_other_is_begun() {
        let mut m = Measuring::default();
        ask(&mut m, 1, &[1]);
        assert!(begun(&mut m).is_some());
        ask(&mut m, 2, &[2]);
        m.late();
        assert_eq!((begun(&mut m), conns(m.without())), (None, vec![1, 2]));
        ask(&mut m, 3, &[3]);
        assert_eq!((begun(&mut m), conns(m.without())), (None, vec![3]));
        assert!(m.ended().is_empty(), "they were answered");
        ask(&mut m, 4, &[4]);
        assert_eq!((begun(&mut m), m.without().len()), (Some(vec![4]), 0));
        assert_eq!(conns(m.ended()), [4]);
    }

    #[test]
    fn nothing_is_measured_for_who_has_hung_up() {
        let mut m = Measuring::default();
        for conn in [1, 2] {
            ask(&mut m, conn, &[conn]);
        }
        assert!(begun(&mut m).is_some());
        for conn in [1, 3, 3] {
            ask(&mut m, conn, &[conn]);
        }
        m.closed(ConnId(1));
        m.closed(ConnId(3));
        assert_eq!(conns(m.ended()), [2]);
        assert_eq!(begun(&mut m), None);
        ask(&mut m, 2, &[5]);
        assert_eq!(begun(&mut m), Some(vec![5]), "only what is asked now");
    }
}
