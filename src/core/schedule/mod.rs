//! Time that is kept: jobs of the config, when each is due, what becomes of times that were missed, and its runs. Pure.
//!
//! # The model
//! A job has a **time** (cron, a distance, one moment, each boot) and an **action**. All of its due times up to `seen`
//! are decided; that moment is on record, so every due time is decided exactly once, whatever daemons die in between.
//! A time that has come is a **fire**. On time it leads to a run at once, by the rule of `overlap` when a run goes on.
//! A time that nobody could keep (hob was down, the machine slept, the clock was put forward) was missed: the rule of
//! `missed` makes up for it, and what is made up for waits in a queue, one after the other. A **run** is one call of a
//! method of the daemon's own, made by the job and not by a client: it ends with the reply, so a run that starts a
//! service ends when that service has come up or has failed to. A run that submits a task goes on until that task is
//! over, and giving it up is to cancel the task.
//!
//! # The two clocks
//! Due times are of the wall clock, deadlines of the monotonic one. A wait is therefore planned a thousandth short and
//! planned anew when that is over: a clock that is slewed is never more than that wrong, and nothing ticks. The shell
//! tells when the wall clock was set. Put back by less than three hours, times that have been are not repeated, except
//! for what follows the clock on the wall; put back further, the clock was wrong before, and jobs go by the new one.
//! Put forward by less than three hours, the last time that was skipped is on time, as with a change of the clocks.
//! Distances (`every`) do not mind a clock that is set; one whose last time is ahead of the clock begins anew. A single
//! moment (`at`) that only a wrong clock has seen is still to come. Where another jitter has made a job later, what it
//! has decided may lie ahead of its own clock: that stays decided, unless the wall clock says less than it did then.
#![deny(clippy::wildcard_enum_match_arm)]

mod ask;
mod boot;
mod follow;
pub(in crate::core) mod record;
mod time;
mod turn;
mod view;

pub(in crate::core) use boot::JobChanges;
pub use record::JobRecord;

use crate::base::hash::{FNV, fnv};
use crate::base::ids::{ConnId, ReqId, TaskId};
use crate::base::limits::HISTORY_PER_NAME;
use crate::base::map::Map;
use crate::base::time::{Mono, Now, Wall};
use crate::config::JobSpec;
use crate::core::run::Client;
use core::time::Duration;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

/// Requests and connections of jobs are numbered from here on; those of clients never come this far.
const OWN: u64 = 1 << 62;
/// Runs of one job at once.
const RUNS_MAX: usize = 100;

/// Whether a request was made by a job.
pub(in crate::core) fn is_own(req: ReqId) -> bool {
    req.0 >= OWN
}

/// Why a run was begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    Due,
    /// Its time was missed, and is made up for.
    Missed,
    /// The machine was booted.
    Boot,
    Client(Client),
}

impl Why {
    /// A clause that follows "begun".
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Why::Due => "by the clock".to_owned(),
            Why::Missed => "to make up for a missed time".to_owned(),
            Why::Boot => "because the machine was booted".to_owned(),
            Why::Client(c) => format!("by {}", c.text()),
        }
    }

    const fn word(&self) -> &'static str {
        match self {
            Why::Due => "due",
            Why::Missed => "missed",
            Why::Boot => "boot",
            Why::Client(_) => "client",
        }
    }
}

/// A time that has come, and waits for its run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::core) struct Fire {
    due: Wall,
    why: Why,
    not_before: Mono,
}

/// A run that goes on.
#[derive(Clone, Debug)]
pub(in crate::core) struct Run {
    number: u64,
    due: Wall,
    why: Why,
    began: Now,
    req: ReqId,
    until: Option<Mono>,
    /// What it has submitted.
    tasks: Vec<TaskId>,
    /// How it ends once its tasks, which are being cancelled for this, are over.
    given_up: Option<(Outcome, Option<String>)>,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Done,
    Failed,
    TimedOut,
    /// It was given up for a new one.
    Replaced,
    /// The daemon died before it ended, so nobody knows.
    Lost,
}

impl Outcome {
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Outcome::Done => "done",
            Outcome::Failed => "failed",
            Outcome::TimedOut => "timed_out",
            Outcome::Replaced => "replaced",
            Outcome::Lost => "lost",
        }
    }
}

/// A run that is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Past {
    pub number: u64,
    pub due: Wall,
    pub why: Why,
    pub began: Wall,
    pub ended: Wall,
    pub took_ms: u64,
    pub result: Outcome,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<Box<str>>,
}

/// One job and all that is known of it.
#[derive(Debug)]
pub(in crate::core) struct Job {
    id: Arc<str>,
    spec: Arc<JobSpec>,
    /// All due times up to here are decided.
    seen: Wall,
    /// What the wall clock said then.
    decided: Wall,
    /// Where the clock was before it was put back far.
    high: Option<Wall>,
    /// From where distances are counted.
    anchor: Wall,
    /// The boot in which `@reboot` was done.
    boot: String,
    /// What a person said last; otherwise the config decides.
    choice: Option<bool>,
    /// So much later than its time it begins on this host.
    delay: Duration,
    /// A due time this late is still on time: the clock was put forward a little.
    lenient: Duration,
    number: u64,
    missed: u64,
    skipped: u64,
    queue: VecDeque<Fire>,
    runs: Vec<Run>,
    history: VecDeque<Past>,
    /// Its record has to be written.
    save: bool,
    gone: bool,
}

impl Job {
    fn new(id: &str, spec: Arc<JobSpec>, now: Now, host: &str, boot: &str) -> Job {
        let mut job = Job {
            id: id.into(),
            delay: Duration::ZERO,
            seen: Wall(0),
            decided: now.wall,
            high: None,
            anchor: now.wall,
            boot: boot.to_owned(),
            choice: None,
            lenient: Duration::ZERO,
            number: 0,
            missed: 0,
            skipped: 0,
            queue: VecDeque::new(),
            runs: Vec::new(),
            history: VecDeque::new(),
            save: true,
            gone: false,
            spec,
        };
        job.delay = delay(host, id, job.spec.jitter);
        job.seen = job.clock(now);
        job
    }

    pub(in crate::core) fn paused(&self) -> bool {
        self.choice.unwrap_or(self.spec.paused)
    }

    fn remember(&mut self, past: Past) {
        if self.history.len() >= HISTORY_PER_NAME {
            self.history.pop_front();
        }
        self.history.push_back(past);
        self.save = true;
    }
}

/// The part of a jitter that is this host's and this job's own.
fn delay(host: &str, id: &str, jitter: Duration) -> Duration {
    let millis = u64::try_from(jitter.as_millis()).unwrap_or(u64::MAX);
    let hash = fnv(fnv(fnv(FNV, host.as_bytes()), &[0]), id.as_bytes());
    // A last stir so that ids which differ in their end differ in all of it.
    let hash = (hash ^ hash >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    Duration::from_millis((hash ^ hash >> 29).checked_rem(millis).unwrap_or(0))
}

/// All jobs.
#[derive(Debug, Default)]
pub(in crate::core) struct Schedules {
    /// A job keeps its place; a place that is free is used again.
    jobs: Vec<Job>,
    by_id: Map<Arc<str>, usize>,
    free: Vec<usize>,
    /// Something has happened to these.
    touched: BTreeSet<usize>,
    runs: Map<ReqId, usize>,
    /// Tasks that runs have submitted.
    followed: BTreeSet<(TaskId, ReqId)>,
    /// How runs came out, and what went wrong.
    answers: Vec<(ReqId, Outcome, Option<String>)>,
    last_own: u64,
    /// Records of jobs that are not in the config, while that cannot be read.
    kept: Map<Arc<str>, String>,
    host: String,
    boot: String,
}

impl Schedules {
    pub(in crate::core) fn find(&self, id: &str) -> Option<usize> {
        self.by_id.get(id).copied()
    }

    pub(in crate::core) fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    pub(in crate::core) fn specs(&self) -> impl Iterator<Item = &Arc<JobSpec>> {
        self.by_id.values().map(|i| &self.jobs[*i].spec)
    }

    pub(in crate::core) fn touch(&mut self, i: usize) {
        self.touched.insert(i);
    }

    /// The reply to a request of a run.
    pub(in crate::core) fn answered(&mut self, req: ReqId, result: Result<(), String>) {
        let (outcome, message) = match result {
            Ok(()) => (Outcome::Done, None),
            Err(e) if e == turn::LOST => (Outcome::Lost, Some(e)),
            Err(e) => (Outcome::Failed, Some(e)),
        };
        self.answers.push((req, outcome, message));
    }

    pub(in crate::core) fn has_answers(&self) -> bool {
        !self.answers.is_empty()
    }

    fn add(&mut self, job: Job) -> usize {
        let id = Arc::clone(&job.id);
        let i = match self.free.pop() {
            Some(i) => {
                self.jobs[i] = job;
                i
            }
            None => {
                self.jobs.push(job);
                self.jobs.len() - 1
            }
        };
        self.by_id.insert(id, i);
        self.touch(i);
        i
    }

    fn own_number(&mut self) -> (ReqId, ConnId) {
        self.last_own += 1;
        (ReqId(OWN | self.last_own), ConnId(OWN | self.last_own))
    }
}
