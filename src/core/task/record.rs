//! Tasks, their attempts and groups in the journal. Pure.
//!
//! `task/ID` is what was asked for; it is written when a task is submitted, edited, held or released. `attempt/ID` is
//! what has come of it: the claim of an attempt that is under way, or the state it came to rest in. It is written
//! several times for each task and is short, however long the task itself is. `group/NAME` is what a person changed of
//! a group. `gone/ID` keeps the keys of a task that was removed.

use super::group::Change;
use super::{Claim, Frame, Keys, Outcome, Rare, Task, TaskStop, Work};
use crate::base::ids::{RunId, TaskId};
use crate::base::time::Wall;
use crate::core::record::{Entity, VERSION, entity};
use crate::core::run::millis;
use crate::protocol::methods::task::{After, TaskState};
use core::time::Duration;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// The kinds of records that are read here.
pub const TASK: &str = "task";
pub const ATTEMPT: &str = "attempt";
pub const GROUP: &str = "group";
pub use super::gone::GONE;

#[derive(Debug, Serialize, Deserialize)]
pub struct TaskRecord<'a> {
    v: u32,
    frame: Cow<'a, Frame>,
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    command: Option<Vec<Cow<'a, str>>>,
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    agent: Option<Cow<'a, str>>,
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    prompt: Option<Cow<'a, str>>,
    submitted: i64,
    #[serde(default, skip_serializing_if = "is_zero")]
    not_before: i64,
    #[serde(default, skip_serializing_if = "is_zero")]
    priority: i32,
    #[serde(default = "one", skip_serializing_if = "is_one")]
    weight: u32,
    #[serde(default, skip_serializing_if = "is_zero")]
    retries: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    backoff_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timeout_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    after: Cow<'a, [After]>,
    /// Its standard input, in base64 where it is no text.
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    stdin: Option<Cow<'a, str>>,
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    stdin64: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    keys: Option<Keys>,
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    held: bool,
    /// Why it is held.
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    why: Option<Cow<'a, str>>,
}

/// What has come of a task.
#[derive(Debug, Serialize, Deserialize)]
pub struct AttemptRecord {
    v: u32,
    /// Attempts that began, the claimed one among them.
    pub n: u32,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub fails: u32,
    /// The state it rests in; without one an attempt is claimed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<TaskState>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// The run of the last attempt, unless that is the one above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<RunId>,
    /// The keeper under which it was claimed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keeper: Option<String>,
    /// When its start was ordered, in awake and wall time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun: Option<(u64, i64)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<TaskStop>,
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub paused: bool,
    /// What it may still run, in nanoseconds, while it is paused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<u64>,
    /// The awake time at which it has run long enough, once a pause or a machine that stood still has moved that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub again_at: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Box<Outcome>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over: Option<Wall>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct GroupRecord {
    v: u32,
    #[serde(flatten)]
    pub change: Change,
}

fn is_zero<T: Default + PartialEq>(n: &T) -> bool {
    *n == T::default()
}

fn one() -> u32 {
    1
}

fn is_one(n: &u32) -> bool {
    *n == 1
}

fn nanos(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}

/// So many digits that the order of names is the order of ids.
const DIGITS: usize = 12;

fn key(kind: &str, id: TaskId) -> String {
    format!("{kind}/{:0DIGITS$}", id.0)
}

/// The task that a record of one of these kinds is about.
#[must_use]
pub fn id_of(name: &str) -> Option<TaskId> {
    // As `key` writes it and no other way, so that no two keys are about one task.
    let written = name.len() >= DIGITS && name.bytes().all(|b| b.is_ascii_digit());
    let short = name.len() == DIGITS || !name.starts_with('0');
    name.parse().ok().filter(|id| *id > 0 && written && short).map(TaskId)
}

#[must_use]
pub fn task(t: &Task) -> Entity {
    let (command, agent, prompt) = match &t.work {
        Work::Command(words) => (Some(words.split('\0').map(Cow::Borrowed).collect()), None, None),
        Work::Agent { name, prompt } => (None, Some(Cow::Borrowed(&**name)), Some(Cow::Borrowed(&**prompt))),
    };
    let text = t.stdin.as_deref().and_then(|bytes| core::str::from_utf8(bytes).ok());
    let coded = t.stdin.as_deref().filter(|_| text.is_none()).map(crate::protocol::to_base64);
    let record = TaskRecord {
        v: VERSION,
        frame: Cow::Borrowed(&t.frame),
        command,
        agent,
        prompt,
        submitted: t.submitted.0,
        not_before: t.not_before.0,
        priority: t.priority,
        weight: t.weight,
        retries: t.retries,
        backoff_ms: (t.backoff != super::BACKOFF).then(|| millis(t.backoff)),
        timeout_ms: (t.timeout != super::TIMEOUT).then(|| millis(t.timeout)),
        after: Cow::Borrowed(&t.after),
        stdin: text.map(Cow::Borrowed),
        stdin64: coded.map(Cow::Owned),
        keys: t.keys.as_deref().cloned(),
        held: t.state == TaskState::Held,
        why: t.why.as_deref().filter(|_| t.state == TaskState::Held).map(Cow::Borrowed),
    };
    entity(key(TASK, t.id), &record)
}

/// What has come of a task, if anything has.
#[must_use]
pub fn attempt(t: &Task, keeper: &str) -> Entity {
    let live = t.live.as_deref();
    let (run, begun, stop) = match (&t.live, t.claim) {
        (Some(l), _) => (Some(l.run), Some((l.begun.mono.0, l.begun.wall.0)), l.stop.clone()),
        (None, Claim::Written { run, .. } | Claim::Synced { run }) => (Some(run), None, None),
        (None, Claim::None) => (None, None, None),
    };
    let record = AttemptRecord {
        v: VERSION,
        n: t.attempts + u32::from(t.live.is_none() && run.is_some()),
        fails: t.fails,
        state: run.is_none().then_some(t.state),
        run,
        last: Some(t.last).filter(|last| last.0 > 0 && run != Some(*last)),
        keeper: run.map(|_| keeper.to_owned()),
        begun,
        stop,
        paused: live.is_some_and(|l| l.paused),
        left: live.filter(|l| l.paused).and_then(|l| l.left).map(nanos),
        until: live.filter(|l| !l.paused && l.moved).and_then(|l| l.timeout_at).map(|at| at.0),
        again_at: if run.is_none() && !t.state.is_over() { t.again_at.0 } else { 0 },
        why: t.why.clone(),
        outcome: t.outcome.clone(),
        over: t.over,
    };
    entity(key(ATTEMPT, t.id), &record)
}

/// Whether there is anything to keep of what has come of a task.
#[must_use]
pub fn has_attempt(t: &Task) -> bool {
    t.run().is_some() || t.last.0 > 0 || t.attempts > 0 || t.state.is_over()
}

#[must_use]
pub fn task_gone(id: TaskId) -> Entity {
    Entity { key: key(TASK, id), json: None }
}

#[must_use]
pub fn attempt_gone(id: TaskId) -> Entity {
    Entity { key: key(ATTEMPT, id), json: None }
}

#[must_use]
pub fn group(name: &str, change: &Change) -> Entity {
    let key = format!("{GROUP}/{name}");
    if *change == Change::default() {
        return Entity { key, json: None };
    }
    entity(key, &GroupRecord { v: VERSION, change: change.clone() })
}

#[must_use]
pub fn gone_key(id: TaskId) -> String {
    key(GONE, id)
}

impl TaskRecord<'_> {
    /// The task as it was submitted. `share`: one copy of what is equal. `None`: the record says nothing to run.
    #[must_use]
    pub fn restore(self, id: TaskId, share: impl FnOnce(Frame) -> std::sync::Arc<Frame>) -> Option<Task> {
        let work = match (self.command, self.agent, self.prompt) {
            (Some(words), ..) if !words.is_empty() => Work::Command(words.join("\0").into()),
            (_, Some(name), Some(prompt)) => Work::Agent { name: name.into(), prompt: prompt.into() },
            _ => return None,
        };
        let stdin = match (self.stdin, self.stdin64) {
            (Some(text), _) => Some(text.into_owned().into_bytes().into()),
            (None, Some(coded)) => Some(crate::protocol::from_base64(&coded)?.into()),
            (None, None) => None,
        };
        let rare = Rare {
            weight: self.weight,
            retries: self.retries,
            backoff: self.backoff_ms.map_or(super::BACKOFF, Duration::from_millis),
            timeout: self.timeout_ms.map_or(super::TIMEOUT, Duration::from_millis),
            not_before: Wall(self.not_before),
            after: self.after.into_owned(),
            stdin,
            keys: self.keys.map(Box::new),
            why: self.why.map(Into::into),
            ..Rare::ordinary()
        };
        Some(Task {
            id,
            frame: share(self.frame.into_owned()),
            work,
            state: if self.held { TaskState::Held } else { TaskState::Queued },
            priority: self.priority,
            attempts: 0,
            submitted: Wall(self.submitted),
            claim: Claim::None,
            last: RunId(0),
            live: None,
            outcome: None,
            rare: rare.kept(),
        })
    }
}
