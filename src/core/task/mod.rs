//! Tasks: units of work that are queued, run once to an end, and remembered. Pure.
//!
//! # The model
//! A task is what a client asked for (`Task`), and what came of it. Its **state** is one of nine:
//!
//! | state     | it leaves this state when                                                                            |
//! |-----------|------------------------------------------------------------------------------------------------------|
//! | held      | a person releases it (queued) or cancels it                                                          |
//! | queued    | its time has come, those it follows are over, and its group has room (running); hold; cancel         |
//! | running   | all its processes are gone (an end state, or queued again for a retry); pause                        |
//! | paused    | a person resumes it (running); its processes end all the same                                        |
//! | the other | a person retries it (queued) or removes it                                                           |
//!
//! Whoever follows a task that did not succeed, and wanted that, is cancelled with the reason.
//!
//! # At most once
//! A start is preceded by a **claim**: a record that this attempt is about to begin, which is on disk before the child
//! is cloned. The claims of the next tasks are written ahead and share the sync of those before them, so that nobody
//! waits for the disk while others run. A second record says that the start was ordered. After a death of the daemon
//! the run table knows what became of it. After a death of the keeper too, within one boot, a claim whose start was
//! never ordered is void; any other without an end is `lost`. After a boot the records may have outrun the disk, so
//! each claim without an end is `lost`. A task that says it is repeatable needs no claim on disk, and what would be
//! lost is queued again. A task that waits is held where records are missing, or where what has come of it, or all of
//! one that it follows, cannot be read.
//!
//! # Groups
//! Each task belongs to a group, which has so many slots (`parallel`) and may limit the sum of their weights. Within a
//! group the highest priority goes first, then the lowest id, and nothing overtakes what is too heavy to start now.
#![deny(clippy::wildcard_enum_match_arm)]

pub mod boot;
pub mod calls;
mod follow;
mod gone;
pub mod group;
mod mass;
pub mod queue;
mod rare;
pub mod record;
mod rows;
pub mod run;
pub mod submit;
#[cfg(test)]
mod tests;
pub mod view;
pub mod wait;
pub mod why;

use crate::base::ids::{RunId, TaskId};
use crate::base::limits::LAST_LINES;
use crate::base::time::{Mono, Now, Wall};
use crate::config::{AgentSpec, Config, RunnerSpec};
use crate::core::Core;
use crate::core::Owner;
use crate::core::record::Entity;
use crate::core::run::{Client, Ended};
use crate::core::service::stop::{Sequence, Terms};
use crate::core::{End, Usage};
use crate::protocol::methods::task::TaskState;
use core::time::Duration;
use group::Group;
use rare::ORDINARY;
pub use rare::Rare;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How long a task may run unless it says otherwise.
pub const TIMEOUT: Duration = Duration::from_secs(120 * 60);
/// How much of its output is kept.
pub const MAX_OUTPUT: u64 = 64_000_000;
/// Before the first retry; each further one waits twice as long, up to the longest.
pub const BACKOFF: Duration = Duration::from_secs(1);
pub const BACKOFF_MAX: Duration = Duration::from_secs(3600);
/// The stop sequence of a task.
const TERMS: Terms = Terms { signal: 15, grace: Duration::from_secs(10), leave_children: false };
/// How long the end of a task waits for the last of its output to be on file.
const OUTPUT_WAIT: Duration = Duration::from_secs(5);
/// So few frames are kept whether a task has them or not.
const FRAMES_SWEEP_MIN: usize = 1024;
/// What the shell calls a task, where services have their names.
const NAME: &str = "task/";

/// The name of a task's processes and output, which no service can have.
#[must_use]
pub fn name_of(id: TaskId) -> Arc<str> {
    format!("{NAME}{id}").into()
}

/// The task that a name of the shell means.
#[must_use]
pub fn of_name(name: &str) -> Option<TaskId> {
    name.strip_prefix(NAME)?.parse().ok().map(TaskId)
}

/// What many tasks have in common, kept once.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Frame {
    pub owner: Owner,
    pub group: Arc<str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    pub env: Box<[(String, String)]>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub umask: Option<u32>,
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    pub labels: Box<[(String, String)]>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_output: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub repeatable: bool,
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub hob_fd: bool,
    /// The number of the user it runs as, unless that is hob's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<u32>,
}

/// What is to be run, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// The words, each but the last followed by a zero byte.
    Command(Box<str>),
    Agent {
        name: Box<str>,
        prompt: Box<str>,
    },
}

impl Work {
    #[must_use]
    pub fn command(words: &[String]) -> Work {
        Work::Command(words.join("\0").into())
    }
}

/// A name that the client gave to a submission, so that the same again is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    pub text: Box<str>,
    pub hash: u64,
    /// How many tasks the submission has made; 0 for a task that is none of a list.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub many: u32,
    /// How many of these come before the one that carries the key: the first does, as long as it exists.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub before: u32,
}

impl Key {
    fn new(text: &str, hash: u64, many: u32) -> Key {
        Key { text: text.into(), hash, many, before: 0 }
    }

    /// The first task of the submission whose key this task carries.
    fn first(&self, carrier: TaskId) -> TaskId {
        TaskId(carrier.0.saturating_sub(u64::from(self.before)))
    }
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// How far the next attempt has come before it begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Claim {
    #[default]
    None,
    /// On record, not on disk yet.
    Written { run: RunId, ticket: u64 },
    /// On disk, waiting for a slot.
    Synced { run: RunId },
}

/// Why hob ends an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskStop {
    Client(Client),
    Timeout,
    Shutdown,
    KeeperGone,
}

impl TaskStop {
    /// Nobody meant this task: hob itself ends.
    fn with_hob(&self) -> bool {
        matches!(self, TaskStop::Shutdown | TaskStop::KeeperGone)
    }
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    pub end: Ended,
    pub started: Wall,
    pub ended: Wall,
    #[serde(default)]
    pub cpu_ms: u64,
    #[serde(default)]
    pub memory: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<u64>,
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    pub lines: Box<[Box<str>]>,
}

/// An attempt under way.
#[derive(Clone, Debug)]
pub struct Live {
    pub run: RunId,
    pub begun: Now,
    pub pid: Option<u32>,
    pub stop: Option<TaskStop>,
    pub sequence: Sequence,
    pub end: Option<(End, Usage, Now)>,
    /// All its processes are gone, so that its slot is free; only the last of its output is waited for, until then.
    pub gone: Option<Mono>,
    /// How it ended, once that is decided.
    pub ended: Option<Ended>,
    pub output: Option<(u64, Vec<String>)>,
    /// The awake time at which it has run long enough, while that is running.
    pub timeout_at: Option<Mono>,
    pub paused: bool,
    /// While it is paused: how long it may still run.
    pub left: Option<Duration>,
    /// It has been paused, or the machine stood still, which has moved the end of its time.
    pub moved: bool,
    /// The shell knows it.
    pub known: bool,
    /// Capture will say when its output has passed.
    pub heard: bool,
}

impl Live {
    #[must_use]
    pub fn new(run: RunId, begun: Now) -> Live {
        Live {
            run,
            begun,
            pid: None,
            stop: None,
            sequence: Sequence::default(),
            end: None,
            gone: None,
            ended: None,
            output: None,
            timeout_at: None,
            paused: false,
            left: None,
            moved: false,
            known: true,
            heard: true,
        }
    }

    #[must_use]
    pub fn outcome(&self, end: Ended, ended: Wall) -> Outcome {
        let usage = self.end.as_ref().map(|(_, usage, _)| *usage).unwrap_or_default();
        let (output, lines) = match &self.output {
            Some((bytes, lines)) => {
                let first = lines.len().saturating_sub(LAST_LINES);
                (Some(*bytes), lines.iter().skip(first).map(|l| crate::core::run::clip(l)).collect())
            }
            None => (None, Box::default()),
        };
        let cpu_ms = crate::core::run::millis(usage.cpu);
        Outcome { end, started: self.begun.wall, ended, cpu_ms, memory: usage.memory, output, lines }
    }
}

/// One task. What an ordinary one does not have is in `Rare`, whose fields read and write like its own.
#[derive(Clone, Debug)]
pub struct Task {
    pub id: TaskId,
    pub frame: Arc<Frame>,
    pub work: Work,
    pub state: TaskState,
    /// Not one of what is rare: one request may change that of every task.
    pub priority: i32,
    /// Attempts that began.
    pub attempts: u32,
    pub submitted: Wall,
    pub claim: Claim,
    /// The run of its last attempt, one that was only claimed included; 0 for none. No other may get that number.
    pub last: RunId,
    pub live: Option<Box<Live>>,
    pub outcome: Option<Box<Outcome>>,
    pub rare: Option<Box<Rare>>,
}

/// The names its client gave to its submission.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keys {
    /// Its dedupe key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own: Option<Key>,
    /// The key of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Key>,
}

impl Task {
    /// Its place in the queue of its group.
    #[must_use]
    pub fn rank(&self) -> Rank {
        Rank { behind: -i64::from(self.priority), id: self.id }
    }

    /// The run that it has, or that is claimed for it.
    #[must_use]
    pub fn run(&self) -> Option<RunId> {
        match (&self.live, self.claim) {
            (Some(live), _) => Some(live.run),
            (None, Claim::Written { run, .. } | Claim::Synced { run }) => Some(run),
            (None, Claim::None) => None,
        }
    }

    /// When it was over, or its last attempt.
    #[must_use]
    pub fn ended(&self) -> Option<Wall> {
        self.over.or_else(|| Some(self.outcome.as_ref()?.ended))
    }

    /// When its next attempt may begin.
    #[must_use]
    pub fn earliest(&self) -> Wall {
        self.not_before.max(self.again_at)
    }

    /// Whether its time has come.
    #[must_use]
    pub fn has_come(&self, now: Now) -> bool {
        self.not_before <= now.wall && self.again <= now.mono
    }

    /// It is tried again after so long.
    pub(super) fn wait(&mut self, delay: Duration, now: Now) {
        let millis = i64::try_from(delay.as_millis()).unwrap_or(i64::MAX);
        self.again_at = Wall(now.wall.0.saturating_add(millis));
        self.again = now.mono + delay;
    }

    /// Whether it takes a slot.
    #[must_use]
    pub fn has_slot(&self) -> bool {
        self.live.as_ref().is_some_and(|l| l.gone.is_none())
    }

    /// The delay before the retry after so many failures.
    #[must_use]
    pub fn delay(&self) -> Duration {
        self.delay_after(self.fails)
    }

    fn delay_after(&self, fails: u32) -> Duration {
        let doubled = self.backoff.checked_mul(1 << fails.saturating_sub(1).min(20)).unwrap_or(BACKOFF_MAX);
        doubled.min(BACKOFF_MAX)
    }

    /// When it has to be looked at without any other input, in awake time. `wait`: how long it still is until
    /// `not_before`.
    #[must_use]
    fn deadline(&self, now: Now) -> Option<Mono> {
        match (self.state, &self.live) {
            (TaskState::Running | TaskState::Paused, Some(live)) => {
                let sequence = if live.pid.is_some() || live.end.is_some() { live.sequence.deadline() } else { None };
                let timeout = live.timeout_at.filter(|_| live.stop.is_none() && live.end.is_none() && !live.paused);
                match live.gone {
                    Some(at) => Some(at + OUTPUT_WAIT),
                    None => [sequence, timeout].into_iter().flatten().min(),
                }
            }
            (TaskState::Queued, _) if !self.has_come(now) && self.blocked == 0 => {
                Some((now.mono + self.not_before.since(now.wall)).max(self.again))
            }
            (TaskState::Queued | TaskState::Held | TaskState::Running | TaskState::Paused, _) => None,
            (
                TaskState::Succeeded | TaskState::Failed | TaskState::Cancelled | TaskState::TimedOut | TaskState::Lost,
                _,
            ) => None,
        }
    }
}

/// The order within a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    behind: i64,
    pub id: TaskId,
}

/// What the config says of the programs that tasks are run by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Programs {
    pub agents: BTreeMap<String, AgentSpec>,
    pub runners: BTreeMap<String, RunnerSpec>,
}

/// All tasks and their groups.
#[derive(Debug, Default)]
pub struct Tasks {
    all: BTreeMap<TaskId, Box<Task>>,
    pub groups: BTreeMap<Arc<str>, Group>,
    /// The runs that exist, and those that are claimed.
    runs: BTreeMap<RunId, TaskId>,
    /// Who follows a task that exists, as long as he is not over himself.
    followers: BTreeMap<TaskId, BTreeSet<TaskId>>,
    counts: [u64; TaskState::ALL.len()],
    /// Hashes of owner and key, to the first task of the submission; which of those that share a hash it is, the task
    /// itself says.
    by_key: BTreeSet<(u64, TaskId)>,
    /// The keys of those that were removed.
    gone: gone::Graves,
    frames: BTreeSet<Arc<Frame>>,
    /// At so many frames those that no task has any more go; each sweep doubles it, so that many cost no more each.
    sweep_at: usize,
    pub next: u64,
    /// What that was at the start of this daemon by the journal alone.
    pub unused: u64,
    /// Number of the last claim whose sync was asked for.
    ticket: u64,
    /// Groups that may have something to start.
    dirty: BTreeSet<Arc<str>>,
    waits: Vec<wait::TaskWait>,
    /// Tasks that are over since waits were looked at.
    ended: Vec<TaskId>,
    /// While one request changes many: what follows when all are changed.
    later: Option<Box<mass::Later>>,
    /// The highest run number of tasks that the present request removes.
    dropped_run: u64,
    /// While a daemon comes up: claims that have no end on record.
    open: Vec<boot::Open>,
    /// Some group had room, and hob had none: the end of any task matters to all.
    crowded: bool,
    /// A task has to wait for a moment of the wall clock.
    timed: bool,
    /// The config could not be read, so that nobody knows how many may run, and by which programs.
    pub(in crate::core) blind: bool,
}

impl Tasks {
    #[must_use]
    pub fn get(&self, id: TaskId) -> Option<&Task> {
        self.all.get(&id).map(|t| &**t)
    }

    fn get_mut(&mut self, id: TaskId) -> Option<&mut Task> {
        self.all.get_mut(&id).map(|t| &mut **t)
    }

    fn len(&self) -> usize {
        self.all.len()
    }

    /// The task of a run that exists or is claimed.
    #[must_use]
    pub fn of_run(&self, run: RunId) -> Option<TaskId> {
        self.runs.get(&run).copied()
    }

    /// The runs that exist or are claimed.
    pub(in crate::core) fn run_ids(&self) -> impl Iterator<Item = &RunId> {
        self.runs.keys()
    }

    /// The highest run number of an attempt that began.
    fn newest_run(&self) -> u64 {
        self.all.values().map(|t| t.last.0).max().unwrap_or(0)
    }

    /// In the order of their ids, those after this one.
    pub fn after(&self, id: TaskId) -> impl DoubleEndedIterator<Item = &Task> {
        use core::ops::Bound::{Excluded, Unbounded};
        self.all.range((Excluded(id), Unbounded)).map(|(_, t)| &**t)
    }

    /// Whether the wall clock matters to any of them, or has.
    pub(in crate::core) fn waits_for_time(&self) -> bool {
        self.timed
    }

    /// Whether any attempt is under way, or its end is not on record yet.
    #[must_use]
    pub fn any_live(&self) -> bool {
        self.runs.values().any(|id| self.all.get(id).is_some_and(|t| t.live.is_some()))
    }

    fn live_ids(&self) -> Vec<TaskId> {
        self.runs.values().copied().filter(|id| self.all.get(id).is_some_and(|t| t.live.is_some())).collect()
    }

    #[must_use]
    pub fn count(&self, state: TaskState) -> u64 {
        self.counts[state as usize]
    }

    /// One copy of what is equal.
    fn share(&mut self, frame: Frame) -> Arc<Frame> {
        if let Some(known) = self.frames.get(&frame) {
            return Arc::clone(known);
        }
        if self.frames.len() >= self.sweep_at.max(FRAMES_SWEEP_MIN) {
            self.frames.retain(|f| Arc::strong_count(f) > 1);
            self.sweep_at = 2 * self.frames.len();
        }
        let frame = Arc::new(frame);
        self.frames.insert(Arc::clone(&frame));
        frame
    }

    fn insert(&mut self, task: Task) {
        self.next = self.next.max(task.id.0 + 1);
        self.counts[task.state as usize] += 1;
        if task.state == TaskState::Queued {
            self.group_for(&task.frame.group).queued += 1;
        }
        if let Some(run) = task.run() {
            self.runs.insert(run, task.id);
        }
        self.all.insert(task.id, Box::new(task));
    }

    /// Changes the state, and the numbers that follow from it. What has become ordinary again is given back.
    fn set_state(&mut self, id: TaskId, state: TaskState) {
        let Some(task) = self.all.get_mut(&id) else { return };
        task.rare.take_if(|rare| **rare == ORDINARY);
        let before = core::mem::replace(&mut task.state, state);
        self.counts[before as usize] -= 1;
        self.counts[state as usize] += 1;
        if let Some(group) = self.groups.get_mut(&task.frame.group).filter(|_| before != state) {
            group.queued -= u64::from(before == TaskState::Queued);
            group.queued += u64::from(state == TaskState::Queued);
        }
    }

    /// In safe mode: that its process has ended is all that is noted.
    pub(in crate::core) fn note_end(&mut self, id: TaskId, end: End, usage: Usage, now: Now) {
        if let Some(live) = self.get_mut(id).and_then(|t| t.live.as_mut()) {
            live.end.get_or_insert((end, usage, now));
        }
    }

    pub(in crate::core) fn look_at_all(&mut self) {
        self.dirty.extend(self.groups.keys().cloned());
    }

    fn look_at(&mut self, group: &Arc<str>) {
        self.dirty.insert(Arc::clone(group));
    }
}

/// For a snapshot: up to `max` records after the one named, in the order of their ids.
impl Tasks {
    pub(in crate::core) fn tasks_from(&self, cursor: Option<&str>, max: usize) -> Vec<Entity> {
        self.after(Tasks::id_in(cursor)).take(max).map(record::task).collect()
    }

    pub(in crate::core) fn attempts_from(&self, cursor: Option<&str>, max: usize, keeper: &str) -> Vec<Entity> {
        let kept = self.after(Tasks::id_in(cursor)).filter(|t| record::has_attempt(t));
        kept.take(max).map(|t| record::attempt(t, keeper)).collect()
    }

    pub(in crate::core) fn gone_from(&self, cursor: Option<&str>, max: usize) -> Vec<Entity> {
        self.gone.entities_after(Tasks::id_in(cursor), max)
    }

    pub(in crate::core) fn changes_from(&self, cursor: Option<&str>, max: usize) -> Vec<Entity> {
        use core::ops::Bound::{Excluded, Unbounded};
        let name = cursor.and_then(|c| c.split_once('/')).map_or("", |(_, name)| name);
        let changed = self.groups.range::<str, _>((Excluded(name), Unbounded));
        changed.map(|(name, g)| record::group(name, &g.change)).filter(|e| e.json.is_some()).take(max).collect()
    }

    fn id_in(cursor: Option<&str>) -> TaskId {
        cursor.and_then(|c| c.split_once('/')).and_then(|(_, id)| record::id_of(id)).unwrap_or_default()
    }
}

impl Core {
    /// What a config says of tasks takes effect; those that run go on as they are.
    pub(in crate::core) fn configure_tasks(&mut self, config: &Config) {
        self.programs = Programs { agents: config.agents.clone(), runners: config.runners.clone() };
        self.tasks.configure(config);
    }
}
