//! What requests say of tasks and groups: decoded params, checked for form and not yet for sense. Pure.

use super::decode::read_params;
use super::{Of, Params};
use crate::base::ids::TaskId;
use crate::base::limits::{GROUP_PARALLEL_MAX, GROUP_WEIGHT_MAX, TASK_ARRAY_MAX, TASK_RETRIES_MAX};
use crate::base::near::nearest;
use crate::base::time::Wall;
use crate::base::units::canonical_size;
use crate::protocol::rpc::{Code, RpcError};
use core::fmt;
use core::time::Duration;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// What a task is, as clients see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// Not to be started before a person releases it.
    Held,
    Queued,
    Running,
    /// Its processes are stopped by SIGSTOP.
    Paused,
    Succeeded,
    Failed,
    Cancelled,
    TimedOut,
    /// It was to be started, and nobody knows whether it was, or how it ended.
    Lost,
}

impl TaskState {
    pub const ALL: [TaskState; 9] = [
        TaskState::Held,
        TaskState::Queued,
        TaskState::Running,
        TaskState::Paused,
        TaskState::Succeeded,
        TaskState::Failed,
        TaskState::Cancelled,
        TaskState::TimedOut,
        TaskState::Lost,
    ];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            TaskState::Held => "held",
            TaskState::Queued => "queued",
            TaskState::Running => "running",
            TaskState::Paused => "paused",
            TaskState::Succeeded => "succeeded",
            TaskState::Failed => "failed",
            TaskState::Cancelled => "cancelled",
            TaskState::TimedOut => "timed_out",
            TaskState::Lost => "lost",
        }
    }

    /// Whether nothing more happens to it by itself.
    #[must_use]
    pub const fn is_over(self) -> bool {
        match self {
            TaskState::Held | TaskState::Queued | TaskState::Running | TaskState::Paused => false,
            TaskState::Succeeded | TaskState::Failed | TaskState::Cancelled | TaskState::TimedOut | TaskState::Lost => {
                true
            }
        }
    }

    fn of(word: &str) -> Option<TaskState> {
        // What another queue calls a task that succeeded.
        let word = if word == "completed" { "succeeded" } else { word };
        TaskState::ALL.into_iter().find(|s| s.name() == word)
    }
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What is to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// A program and its arguments.
    Command(Vec<String>),
    /// A prompt for an agent; the default one where none is named.
    Agent { name: Option<String>, prompt: String },
}

/// Another task that this one follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct After {
    pub id: TaskId,
    /// It may start however that one ended; otherwise only after a success.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub any: bool,
}

/// One task as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskSpec {
    pub work: Work,
    pub cwd: Option<String>,
    pub env: Vec<(String, String)>,
    pub umask: Option<u32>,
    pub group: Option<String>,
    /// Higher ones start first.
    pub priority: i32,
    pub after: Vec<After>,
    pub delay: Option<Duration>,
    pub at: Option<Wall>,
    /// Zero: it may run for ever.
    pub timeout: Option<Duration>,
    pub retries: u32,
    pub backoff: Option<Duration>,
    pub stdin: Option<Vec<u8>>,
    pub labels: Vec<(String, String)>,
    pub key: Option<String>,
    pub hold: bool,
    pub weight: u32,
    pub max_output: Option<u64>,
    pub runner: Option<String>,
    pub repeatable: bool,
    /// A channel to hob for each run.
    pub hob_fd: bool,
}

/// Which tasks a request means: all that fit every part that is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Ranges of ids, both ends included, in order and apart from one another.
    pub ids: Vec<(TaskId, TaskId)>,
    pub group: Option<String>,
    pub states: Vec<TaskState>,
    /// A label, and its value if that matters.
    pub label: Option<(String, Option<String>)>,
    pub owner: Option<Of>,
    /// A list that is given and empty takes no task, whatever else is given.
    pub nothing: bool,
}

impl Selection {
    /// Whether it leaves out nothing.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        *self == Selection::default()
    }
}

/// A page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskQuery {
    pub selection: Selection,
    /// Ids after this one.
    pub after: TaskId,
    pub limit: usize,
    /// The last ones instead of the first.
    pub last: bool,
}

/// What may be changed of a task that has not begun; `None` leaves it as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskEdit {
    pub command: Option<Vec<String>>,
    pub prompt: Option<String>,
    pub cwd: Option<String>,
    pub group: Option<String>,
    pub priority: Option<i32>,
    pub after: Option<Vec<After>>,
    pub delay: Option<Duration>,
    pub at: Option<Wall>,
    pub timeout: Option<Duration>,
    pub retries: Option<u32>,
    pub weight: Option<u32>,
    pub labels: Option<Vec<(String, String)>>,
}

/// A call about tasks.
#[derive(Clone, Debug, PartialEq)]
pub enum TaskCall {
    /// One task, or several at once (`many`), all or none.
    Submit {
        specs: Vec<TaskSpec>,
        many: bool,
    },
    Get {
        id: TaskId,
    },
    List(TaskQuery),
    Stats,
    /// `force`: SIGKILL at once.
    Cancel {
        which: Selection,
        force: bool,
    },
    Retry {
        which: Selection,
    },
    Hold {
        which: Selection,
    },
    Release {
        which: Selection,
    },
    Pause {
        which: Selection,
    },
    Resume {
        which: Selection,
    },
    Edit {
        id: TaskId,
        edit: Box<TaskEdit>,
    },
    Prioritize {
        which: Selection,
        priority: i32,
    },
    Wait {
        which: Selection,
        timeout: Option<Duration>,
    },
    Output {
        id: TaskId,
        lines: usize,
        follow: bool,
        from: Option<u64>,
    },
    /// Removes tasks that are over, of this age at least.
    Clean {
        which: Selection,
        age: Duration,
    },
    Remove {
        which: Selection,
    },
}

/// A call about groups of tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupCall {
    List,
    Set {
        name: String,
        parallel: Option<u32>,
        weight_limit: Option<u32>,
        remove: bool,
    },
    /// `running`: those that run are paused, or go on, too.
    Pause {
        name: String,
        running: bool,
    },
    Resume {
        name: String,
        running: bool,
    },
}

/// The least output of a task that can be kept.
const MAX_OUTPUT_MIN: u64 = 4_000;

fn invalid(text: impl Into<String>) -> RpcError {
    RpcError::new(Code::InvalidParams, text)
}

/// `task.submit`: the params are one task, or `tasks` is a list of them.
pub(super) fn submit(p: &Params<'_>) -> Result<TaskCall, RpcError> {
    let Some(list) = p.list("tasks")? else { return Ok(TaskCall::Submit { specs: vec![spec(p)?], many: false }) };
    if p.given.iter().filter(|g| g.is_some()).count() > 1 {
        return Err(invalid("task.submit takes one task or a list of tasks, not both"));
    }
    if list.is_empty() || list.len() > TASK_ARRAY_MAX {
        return Err(invalid(format!("{} tasks at once; 1 to {TASK_ARRAY_MAX} are possible", list.len())));
    }
    let one = |(n, raw): (usize, &&RawValue)| {
        read_params(p.method, p.signals, raw)
            .and_then(
                |p| if p.list("tasks")?.is_some() { Err(invalid("a task in a list is no list")) } else { spec(&p) },
            )
            .map_err(|e| RpcError { message: format!("task {} of the list: {}", n + 1, e.message), ..e })
    };
    Ok(TaskCall::Submit { specs: list.iter().enumerate().map(one).collect::<Result<_, _>>()?, many: true })
}

fn spec(p: &Params<'_>) -> Result<TaskSpec, RpcError> {
    let (command, prompt, agent) = (p.command("command")?, p.optional_text("prompt")?, p.optional_text("agent")?);
    let work = match (command, prompt, agent) {
        (Some(command), None, None) => Work::Command(command),
        (None, Some(prompt), name) => Work::Agent { name, prompt },
        (Some(_), ..) => return Err(invalid("a task has a command or a prompt, not both")),
        (None, None, Some(_)) => return Err(invalid("an agent needs a prompt")),
        (None, None, None) => {
            return Err(invalid("task.submit needs command or prompt")
                .hint("command: a list of words, or one text for the shell; prompt: a text for an agent"));
        }
    };
    no_nul(p, &["cwd", "key"])?;
    let (delay, at) = (p.duration("delay")?, p.time("at")?);
    if delay.is_some() && at.is_some() {
        return Err(invalid("delay and at both say when it may start: give one of them"));
    }
    Ok(TaskSpec {
        work,
        cwd: p.optional_text("cwd")?,
        env: p.pairs("env")?.unwrap_or_default(),
        umask: p.umask("umask")?,
        group: p.optional_text("group")?,
        priority: p.integer("priority")?.unwrap_or(0),
        after: p.after("after")?.unwrap_or_default(),
        delay,
        at,
        timeout: p.duration("timeout")?,
        retries: retries(p)?.unwrap_or(0),
        backoff: p.duration("backoff")?,
        stdin: p.data("stdin")?,
        labels: p.labels("labels")?.unwrap_or_default(),
        key: p.optional_text("key")?,
        hold: p.flag("hold", false)?,
        weight: weight(p)?.unwrap_or(1),
        max_output: max_output(p)?,
        runner: p.optional_text("runner")?,
        repeatable: p.flag("repeatable", false)?,
        hob_fd: p.flag("hob_fd", false)?,
    })
}

/// These texts become parts of names of files, which have no zero byte.
fn no_nul(p: &Params<'_>, names: &[&str]) -> Result<(), RpcError> {
    for name in names {
        if p.optional_text(name)?.is_some_and(|text| text.contains('\0')) {
            return Err(invalid(format!("{name} of {} has a zero byte in it", p.method.name)));
        }
    }
    Ok(())
}

/// So little output that keeping it is more work than writing it is a mistake.
fn max_output(p: &Params<'_>) -> Result<Option<u64>, RpcError> {
    match p.size("max_output")? {
        Some(bytes) if bytes < MAX_OUTPUT_MIN => {
            let (method, least) = (p.method.name, canonical_size(MAX_OUTPUT_MIN));
            let text = format!("max_output of {method} is {least} at least, not {}", canonical_size(bytes));
            Err(invalid(text).hint("leave it out for the default of 64MB"))
        }
        size => Ok(size),
    }
}

fn retries(p: &Params<'_>) -> Result<Option<u32>, RpcError> {
    match p.integer("retries")? {
        Some(n) if !(0..=TASK_RETRIES_MAX).contains(&n) => {
            Err(invalid(format!("retries is a whole number from 0 to {TASK_RETRIES_MAX}, not {n}")))
        }
        n => Ok(n.and_then(|n| u32::try_from(n).ok())),
    }
}

fn weight(p: &Params<'_>) -> Result<Option<u32>, RpcError> {
    match p.integer::<i64>("weight")? {
        None => Ok(None),
        Some(n) => match u32::try_from(n).ok().filter(|n| *n > 0) {
            Some(n) => Ok(Some(n)),
            None => Err(invalid(format!("weight is a whole number from 1 to {}, not {n}", u32::MAX))),
        },
    }
}

pub(super) fn id(p: &Params<'_>) -> Result<TaskId, RpcError> {
    match p.ids("id")?.as_deref() {
        Some([(first, last)]) if first == last => Ok(*first),
        _ => Err(invalid(format!("id of {} is the number of one task", p.method.name))),
    }
}

pub(super) fn selection(p: &Params<'_>) -> Result<Selection, RpcError> {
    let (ids, states) = (p.ids("ids")?, p.optional_names("state")?);
    let nothing = ids.as_ref().is_some_and(Vec::is_empty) || states.as_ref().is_some_and(Vec::is_empty);
    let state = |word: &String| {
        TaskState::of(word).ok_or_else(|| {
            let known = TaskState::ALL.map(TaskState::name);
            let error = invalid(format!("there is no state {word:?} of tasks"));
            match nearest(word, known) {
                Some(near) => error.hint(format!("did you mean {near}?")),
                None => error.hint(format!("states are {}", known.join(", "))),
            }
        })
    };
    Ok(Selection {
        ids: ids.unwrap_or_default(),
        group: p.optional_text("group")?,
        states: states.unwrap_or_default().iter().map(state).collect::<Result<_, _>>()?,
        label: p.optional_text("label")?.map(|text| match text.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (text, None),
        }),
        owner: p.owner("owner")?,
        nothing,
    })
}

/// A selection for a change that may mean all: a list that is empty by a mistake of its writer does not.
pub(super) fn not_none(p: &Params<'_>) -> Result<Selection, RpcError> {
    let which = selection(p)?;
    if which.nothing {
        let key = if p.is_empty_list("ids") { "ids" } else { "state" };
        return Err(empty_list(p, key));
    }
    Ok(which)
}

/// What a change is told that names none.
pub(super) fn empty_list(p: &Params<'_>, name: &str) -> RpcError {
    let text = format!("{name} of {} is an empty list, which selects nothing", p.method.name);
    invalid(text).hint(format!("name some, or leave out {name}"))
}

/// A selection for a change: nothing is changed because a filter was forgotten.
pub(super) fn some(p: &Params<'_>) -> Result<Selection, RpcError> {
    let which = not_none(p)?;
    match (which.is_everything(), p.flag("all", false)?) {
        (true, false) => Err(invalid(format!("{} needs to know which tasks", p.method.name))
            .hint("give ids, group, state, label or owner, or \"all\": true")),
        (false, true) => Err(invalid(format!("{} takes a selection or all, not both", p.method.name))),
        (true, true) | (false, false) => Ok(which),
    }
}

pub(super) fn query(p: &Params<'_>) -> Result<TaskQuery, RpcError> {
    Ok(TaskQuery {
        selection: selection(p)?,
        after: TaskId(p.position("after")?.unwrap_or(0)),
        limit: p.count("limit", 100)?,
        last: p.flag("last", false)?,
    })
}

pub(super) fn edit(p: &Params<'_>) -> Result<TaskCall, RpcError> {
    no_nul(p, &["cwd"])?;
    let edit = TaskEdit {
        command: p.command("command")?,
        prompt: p.optional_text("prompt")?,
        cwd: p.optional_text("cwd")?,
        group: p.optional_text("group")?,
        priority: p.integer("priority")?,
        after: p.after("after")?,
        delay: p.duration("delay")?,
        at: p.time("at")?,
        timeout: p.duration("timeout")?,
        retries: retries(p)?,
        weight: weight(p)?,
        labels: p.labels("labels")?,
    };
    if edit == TaskEdit::default() {
        return Err(invalid("task.edit needs something to change").hint("command, cwd, group, priority, after, ..."));
    }
    Ok(TaskCall::Edit { id: id(p)?, edit: Box::new(edit) })
}

pub(super) fn group_set(p: &Params<'_>) -> Result<GroupCall, RpcError> {
    let count = |name: &str, most: u32| match p.integer::<i64>(name)? {
        None => Ok(None),
        Some(n) => match u32::try_from(n).ok().filter(|n| *n <= most) {
            Some(n) => Ok(Some(n)),
            None => Err(invalid(format!("{name} is a whole number from 0 to {most}, not {n}"))),
        },
    };
    let parallel = count("parallel", GROUP_PARALLEL_MAX)?;
    let weight_limit = count("weight_limit", GROUP_WEIGHT_MAX)?;
    let remove = p.flag("remove", false)?;
    if !remove && parallel.is_none() && weight_limit.is_none() {
        return Err(invalid("group.set needs parallel or weight_limit, or \"remove\": true"));
    }
    Ok(GroupCall::Set { name: p.text("name")?, parallel, weight_limit, remove })
}
