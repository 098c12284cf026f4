//! Jobs as a person may expect them to be: when each is due, second by second, and what becomes of those times. What is
//! lost with records of the journal is undone here too.

use crate::jobs_plan::{JobPlan, Times};
use crate::os::MS;
use hob::base::ids::TaskId;
use hob::config::JobSpec;
use hob::config::schedule::Missed;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// What is noticed this late was kept all the same.
const LATE: i64 = 60_000;
/// A clock that is set by more than this was wrong before.
const FAR: i64 = 3 * 3_600_000;
/// Missed times are counted up to here.
const COUNT_MAX: usize = 1000;
/// No job of the simulator waits longer.
const HORIZON: i64 = 9 * 86_400;

/// A time that has come, and waits for its run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fire {
    pub due: i64,
    pub why: &'static str,
    /// In the simulator's time.
    pub not_before: u64,
}

/// A run that goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Going {
    pub number: u64,
    pub due: i64,
    /// In the simulator's time, which may lie before its beginning when the wall clock says so; and by that.
    pub began: i64,
    pub began_wall: i64,
    /// Milliseconds that it may take.
    pub limit: Option<u64>,
    /// The daemon that began it.
    pub epoch: u64,
    pub tasks: Vec<TaskId>,
    pub given_up: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    pub spec: Arc<JobSpec>,
    pub plan: JobPlan,
    /// All due times up to here are decided.
    pub decided: i64,
    /// What the wall clock said then.
    pub decided_at: i64,
    /// Where the clock was before it was put back far.
    pub high: Option<i64>,
    /// From where distances are counted.
    pub anchor: i64,
    /// The boot of the machine in which `@reboot` was done.
    pub boot: u64,
    pub choice: Option<bool>,
    /// Whether it is paused, as is on record.
    pub was_paused: bool,
    pub number: u64,
    pub missed: u64,
    pub skipped: u64,
    pub queue: Vec<Fire>,
    pub runs: Vec<Going>,
    /// The due times of its last runs.
    pub ran: VecDeque<i64>,
}

/// Due times that have come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Come {
    pub on_time: Option<i64>,
    /// How many nobody could keep, and the last of them.
    pub missed: Option<(u64, i64)>,
    pub made_up: Vec<i64>,
}

impl Going {
    pub fn is_late(&self, now: u64) -> bool {
        let took = (i64::try_from(now).unwrap_or(i64::MAX) - self.began) / i64::try_from(MS).unwrap_or(1);
        self.limit.is_some_and(|limit| took >= i64::try_from(limit).unwrap_or(i64::MAX))
    }
}

fn due_at(times: Times, at: i64) -> bool {
    let Times::Cron { second, minute, hour } = times else { return false };
    let part = |n: i64, of: i64| u32::try_from(n.rem_euclid(of)).unwrap_or(0);
    second.has(part(at, 60)) && minute.has(part(at / 60, 60)) && hour.has(part(at / 3600, 24))
}

impl Job {
    pub fn new(spec: Arc<JobSpec>, plan: JobPlan, clock: i64, wall: i64, boot: u64) -> Job {
        Job {
            spec,
            was_paused: plan.paused,
            plan,
            decided: clock,
            decided_at: wall,
            high: None,
            anchor: wall,
            boot,
            choice: None,
            number: 0,
            missed: 0,
            skipped: 0,
            queue: Vec::new(),
            runs: Vec::new(),
            ran: VecDeque::new(),
        }
    }

    pub fn paused(&self) -> bool {
        self.choice.unwrap_or(self.plan.paused)
    }

    /// All due times up to a moment are decided now.
    fn decide(&mut self, upto: i64, wall: i64) {
        (self.decided, self.decided_at) = (upto, wall);
    }

    /// It was paused until now, or is from now on: what passed in a pause was not missed.
    pub fn pause_changed(&mut self, clock: i64, wall: i64) {
        let (before, now) = (self.was_paused, self.paused());
        self.was_paused = now;
        if before && !now && clock > self.decided {
            self.decide(clock, wall);
        }
    }

    /// The first due time after a moment, found by looking at each second.
    pub fn next_after(&self, after: i64) -> Option<i64> {
        match self.plan.times {
            Times::Cron { minute, hour, .. } => {
                let mut at = after.div_euclid(1000) + 1;
                let end = at + HORIZON;
                while at < end {
                    if due_at(self.plan.times, at) {
                        return Some(at * 1000);
                    }
                    let minute_of = |n: i64| u32::try_from(n / 60 % 60).unwrap_or(0);
                    let hour_of = |n: i64| u32::try_from(n / 3600 % 24).unwrap_or(0);
                    let none = !minute.has(minute_of(at)) || !hour.has(hour_of(at));
                    at = if none { (at / 60 + 1) * 60 } else { at + 1 };
                }
                None
            }
            Times::Every(distance) => {
                let mut at = self.anchor + distance;
                if after > at {
                    at += (after - at) / distance * distance;
                }
                Some(if at > after { at } else { at + distance })
            }
            Times::At(at) => (at > after).then_some(at),
            Times::Reboot => None,
        }
    }

    /// Decides every due time up to `clock`, by the rules that are written down for it. `lenient`: the clock has just
    /// been put forward by so much.
    pub fn look(&mut self, clock: i64, wall: i64, lenient: i64) -> Come {
        let mut dues = Vec::new();
        let mut at = self.decided;
        while let Some(due) = self.next_after(at).filter(|due| *due <= clock) {
            dues.push(due);
            at = due;
        }
        let Some(last) = dues.last().copied() else { return Come::default() };
        self.decide(last, wall);
        if self.paused() {
            return Come::default();
        }
        let mut come = Come::default();
        if clock - last <= LATE + lenient {
            come.on_time = dues.pop();
        }
        come.missed = dues.last().map(|last| (dues.len().min(COUNT_MAX) as u64, *last));
        self.missed += come.missed.map_or(0, |(count, _)| count);
        come.made_up = match self.plan.missed {
            Missed::Skip => Vec::new(),
            Missed::Once if come.on_time.is_some() => Vec::new(),
            Missed::Once => dues.last().copied().into_iter().collect(),
            Missed::All => dues.split_off(dues.len().saturating_sub(self.plan.limit)),
        };
        come
    }

    /// The clock was set while a daemon was there to see it. How much it may be late by for that.
    pub fn clock_set(&mut self, by: i64, clock: i64, wall: i64) -> i64 {
        match self.plan.times {
            Times::Every(_) => {
                self.anchor += by;
                self.decided += by;
                self.decided_at += by;
                self.put_back(clock, wall);
                0
            }
            Times::Cron { .. } => {
                let mut lenient = 0;
                if by >= FAR {
                    let high = self.high.take().unwrap_or(self.decided);
                    self.decide(self.decided.max(high.min(clock)), wall);
                } else if !self.plan.times.is_wild() {
                    lenient = by.max(0);
                }
                self.put_back(clock, wall);
                lenient
            }
            Times::At(_) => {
                self.put_back(clock, wall);
                0
            }
            Times::Reboot => 0,
        }
    }

    /// What is decided already lies ahead of the clock, and not because its delay has grown with another jitter.
    pub fn put_back(&mut self, clock: i64, wall: i64) {
        if self.decided <= clock || self.decided_at <= wall {
            return;
        }
        match self.plan.times {
            Times::Cron { .. } => {
                let far = self.decided - clock >= FAR;
                if far {
                    self.high = self.high.max(Some(self.decided));
                }
                if far || self.plan.times.is_wild() {
                    self.decide(clock, wall);
                }
            }
            // Nobody saw by how much; its time passes from here on.
            Times::Every(_) => {
                self.anchor -= self.decided - clock;
                self.decide(clock, wall);
            }
            // A moment that only a wrong clock has seen is still to come.
            Times::At(at) => {
                let fired = self.ran.contains(&at) || self.queue.iter().any(|f| f.due == at);
                if at > clock && at <= self.decided && !fired {
                    self.decide(clock, wall);
                }
            }
            Times::Reboot => {}
        }
    }

    /// When its next time comes by its own clock.
    pub fn next_due(&self, clock: i64) -> Option<i64> {
        if self.paused() { None } else { self.next_after(self.decided.max(clock - 1)) }
    }
}

/// All jobs that are on record.
#[derive(Debug, Default)]
pub struct Jobs {
    /// What each job of each config is.
    pub plans: Vec<(Arc<JobSpec>, JobPlan)>,
    pub all: BTreeMap<String, Job>,
    /// How much later each begins on this host; it never changes.
    pub delays: BTreeMap<(String, u64), i64>,
    /// The config could not be read, so that nobody knows what they are.
    pub blind: bool,
    undo: VecDeque<(usize, String, Option<Box<Job>>)>,
    /// Where the records of the present round end.
    pub end: usize,
    pub epoch: u64,
    pub boot: u64,
    /// Runs that were begun.
    pub fired: u64,
    /// In the present round: times whose runs a pause drops, and that were not told of yet.
    pub dropped: BTreeMap<String, Vec<i64>>,
}

impl Jobs {
    pub fn new(plans: &[(Arc<JobSpec>, JobPlan)]) -> Jobs {
        Jobs { plans: plans.to_vec(), ..Jobs::default() }
    }

    pub fn plan_of(&self, spec: &Arc<JobSpec>) -> JobPlan {
        let found = self.plans.iter().find(|(s, _)| Arc::ptr_eq(s, spec) || s == spec);
        found.unwrap_or_else(|| panic!("no plan has {spec:?}")).1.clone()
    }

    pub fn delay(&self, plan: &JobPlan) -> i64 {
        self.delays.get(&(plan.id.clone(), plan.jitter)).copied().unwrap_or(0)
    }

    /// Notes how a job is, before the present round changes it.
    pub fn keep(&mut self, id: &str) {
        let old = self.all.get(id).cloned().map(Box::new);
        self.undo.push_back((self.end, id.to_owned(), old));
    }

    /// Records after this position are lost, and what they said with them.
    pub fn lost(&mut self, survives: usize) {
        while self.undo.back().is_some_and(|(end, ..)| *end > survives) {
            match self.undo.pop_back() {
                Some((_, id, Some(job))) => {
                    self.all.insert(id, *job);
                }
                Some((_, id, None)) => {
                    self.all.remove(&id);
                }
                None => {}
            }
        }
    }

    /// What is on disk cannot be undone any more.
    pub fn synced(&mut self, upto: usize) {
        while self.undo.front().is_some_and(|(end, ..)| *end <= upto) {
            self.undo.pop_front();
        }
    }
}
