//! Why a task is as it is: the present state, what led to it, what comes next and what a person can do, for people.
//! Pure.

use super::{Live, Outcome, Task, name_of};
use crate::base::ids::TaskId;
use crate::base::json::{Obj, json_list};
use crate::base::text::{listed, shell_word};
use crate::base::units::{canonical_duration, human_duration, human_size};
use crate::core::Core;
use crate::core::run::{Ended, millis, tenths};
use crate::protocol::methods::task::TaskState;
use crate::protocol::rpc::RpcError;
use core::time::Duration;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Tasks that are named before the rest is counted.
const NAMED: usize = 5;

/// `task 3`, `tasks 3, 4 and 5`, `tasks 3, 4, 5, 6, 7 and 12 others`.
pub(super) fn tasks(ids: &[TaskId]) -> String {
    let mut words: Vec<String> = ids.iter().take(NAMED).map(ToString::to_string).collect();
    if ids.len() > NAMED {
        words.push(format!("{} others", ids.len() - NAMED));
    }
    format!("task{} {}", if ids.len() == 1 { "" } else { "s" }, listed(&words))
}

fn counted(n: u32, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

impl Core {
    /// The reply of `daemon.why` for a task.
    pub(in crate::core) fn why_task(&self, id: TaskId) -> Result<String, RpcError> {
        let t = self.tasks.get(id).ok_or_else(|| super::calls::unknown(id))?;
        let mut o = Obj::new();
        o.str("name", &name_of(id)).u64("id", id.0).str("state", t.state.name());
        o.str("owner", &t.frame.owner.to_string());
        o.str("summary", &self.task_summary(t));
        o.raw("story", &json_list(&self.task_story(t)));
        o.str("next", &self.task_next(t));
        o.raw("todo", &json_list(&self.task_todo(t)));
        let open: Vec<String> = self.open_before(t).into_iter().map(|id| name_of(id).to_string()).collect();
        o.raw("waiting_for", &json_list(&open));
        let waits = Some(t.earliest()).filter(|at| t.state == TaskState::Queued && *at > self.now.wall);
        o.opt_u64("may_start_in_ms", waits.map(|at| millis(at.since(self.now.wall))));
        o.u64("retries_left", t.retries.saturating_sub(t.fails).into());
        let lines = t.outcome.as_deref().map(|r| &r.lines[..]).unwrap_or_default();
        o.raw("last_lines", &serde_json::to_string(lines).unwrap_or_default());
        o.raw("task", &self.task_row(t, false).finish());
        Ok(o.finish())
    }

    /// Those it follows that are not over.
    pub(super) fn open_before(&self, t: &Task) -> Vec<TaskId> {
        if t.blocked == 0 || t.state.is_over() {
            return Vec::new();
        }
        let open = |id: &TaskId| self.tasks.get(*id).is_some_and(|o| !o.state.is_over());
        t.after.iter().map(|a| a.id).filter(open).collect()
    }

    /// One sentence that says how it is and why.
    fn task_summary(&self, t: &Task) -> String {
        let name = format!("task {}", t.id);
        let why = self.reason(t);
        let outcome = t.outcome.as_deref();
        match t.state {
            TaskState::Held => match &why {
                Some(why) => format!("{name} is held{}", clause(Some(why))),
                None => format!("{name} is held: {} submitted it so", t.frame.owner.text()),
            },
            TaskState::Queued => match (&why, self.unready(t)) {
                (_, Some(missing)) => format!("{name} is queued and would fail: {missing}"),
                (Some(why), None) => format!("{name} is queued: {why}"),
                (None, None) if t.is_claimed() => format!("{name} is about to start"),
                (None, None) => format!("{name} is queued"),
            },
            TaskState::Running => {
                let age = t.live.as_deref().map(|l| self.age(l)).unwrap_or_default();
                let why = why.map(|why| format!(" and is {why}")).unwrap_or_default();
                match t.live.as_deref() {
                    Some(l) if l.pid.is_none() && l.end.is_none() => format!("{name} is being executed"),
                    _ => format!("{name} has been running for {age}{why}"),
                }
            }
            TaskState::Paused => format!("{name} is paused: its processes are stopped, and keep their slot"),
            TaskState::Succeeded => format!("{name} succeeded{}", outcome.map(took).unwrap_or_default()),
            TaskState::Failed => {
                let how = outcome.map_or_else(String::new, |r| format!(": {}", r.end.text()));
                let tried = if t.attempts > 1 { format!(" in attempt {}", t.attempts) } else { String::new() };
                format!("{name} failed{tried}{how}")
            }
            TaskState::Cancelled => format!("{name} was cancelled{}", clause(why.as_deref())),
            TaskState::TimedOut => {
                format!("{name} was stopped because it took longer than {}", canonical_duration(t.timeout))
            }
            TaskState::Lost => match &why {
                Some(why) => format!("{name} is lost: {why}"),
                None => format!("{name} is lost"),
            },
        }
    }

    fn age(&self, live: &Live) -> String {
        let age = self.now.mono.since(live.begun.mono);
        human_duration(if age.as_secs() > 0 { Duration::from_secs(age.as_secs()) } else { age })
    }

    /// What its start would fail for, by the config as it is now.
    fn unready(&self, t: &Task) -> Option<String> {
        self.process_of(t).err()
    }

    /// What happened, newest last.
    fn task_story(&self, t: &Task) -> Vec<String> {
        let mut lines = vec![format!("{}: submitted by {}", t.submitted, t.frame.owner.text())];
        if let Some(r) = t.outcome.as_deref() {
            let number = t.attempts.saturating_sub(u32::from(t.live.is_some()));
            lines.extend(self.attempts_before(t.id, number));
            lines.push(attempt_line(t, number, r));
            let kept = super::view::kept_of(t);
            if let Some(bytes) = r.output.filter(|bytes| *bytes > kept) {
                let (kept, bytes) = (human_size(kept), human_size(bytes));
                lines.push(format!("  it wrote {bytes}, of which at most {kept} are kept"));
            }
            lines.extend(r.lines.iter().map(|l| format!("  | {l}")));
        }
        if let Some(l) = t.live.as_deref() {
            let pid = l.pid.map(|pid| format!(", pid {pid}")).unwrap_or_default();
            lines.push(format!("{}: attempt {} was started{pid}", l.begun.wall, t.attempts));
        }
        if let Some(at) = t.over.filter(|_| t.state.is_over()) {
            lines.push(format!("{at}: {}{}", super::calls::in_words(t.state), clause(t.why.as_deref())));
        }
        lines
    }

    /// How the attempts before this one ended, as far as the events tell that are still kept.
    fn attempts_before(&self, id: TaskId, number: u32) -> Vec<String> {
        let (name, mut known) = (name_of(id), BTreeMap::new());
        for told in self.events.of(&name).filter_map(|line| serde_json::from_str::<Told>(line).ok()) {
            if told.attempt > 0 && told.attempt < number && told.is_end() {
                // What is told later of the same attempt is about the task.
                known.entry(told.attempt).or_insert_with(|| told.text());
            }
        }
        let shown: Vec<String> = known.into_values().rev().take(NAMED).rev().collect();
        let others = number.saturating_sub(1).saturating_sub(u32::try_from(shown.len()).unwrap_or(u32::MAX));
        let others = (others > 0).then(|| format!("{} before", counted(others, "attempt")));
        others.into_iter().chain(shown).collect()
    }

    /// What follows by itself, and when.
    fn task_next(&self, t: &Task) -> String {
        let now = self.now;
        let left = |d: Duration| human_duration(tenths(d));
        match t.state {
            TaskState::Held => "nothing, until a person releases it".to_owned(),
            TaskState::Paused => "nothing, until a person resumes it; the time does not count".to_owned(),
            TaskState::Queued => self.start_text(t),
            TaskState::Running => {
                let Some(l) = t.live.as_deref() else { return String::new() };
                if l.stop.is_some() {
                    let kill = l.sequence.kill_at.map(|at| left(at.since(now.mono)));
                    return kill.map_or_else(String::new, |kill| format!("what is left of it is killed in {kill}"));
                }
                let limit = match l.timeout_at {
                    Some(at) => format!("it is stopped if it still runs in {}", left(at.since(now.mono))),
                    None => "it may run for ever".to_owned(),
                };
                match t.retries.saturating_sub(t.fails) {
                    0 => limit,
                    n => format!("{limit}; after a failure it is tried again{}", self.tries_text(t, n)),
                }
            }
            TaskState::Succeeded | TaskState::Failed | TaskState::Cancelled | TaskState::TimedOut | TaskState::Lost => {
                "nothing, unless a person retries it".to_owned()
            }
        }
    }

    /// ` in 2 s, and up to 3 times`.
    fn tries_text(&self, t: &Task, n: u32) -> String {
        let delay = human_duration(tenths(t.delay_after(t.fails + 1)));
        if n == 1 { format!(" in {delay}, once") } else { format!(" in {delay}, and up to {n} times") }
    }

    /// When a queued task starts.
    fn start_text(&self, t: &Task) -> String {
        let open = self.open_before(t);
        if !open.is_empty() {
            let any = t.after.iter().filter(|a| open.contains(&a.id)).all(|a| a.any);
            let end = if any { "over" } else { "over with success" };
            let verb = if open.len() == 1 { "is" } else { "are" };
            let else_ = if any { "" } else { "; otherwise it is cancelled" };
            return format!("it starts when {} {verb} {end}{else_}", tasks(&open));
        }
        if !t.has_come(self.now) {
            let wait = t.not_before.since(self.now.wall).max(t.again.since(self.now.mono));
            let again = match t.retries.saturating_sub(t.fails) {
                0 if t.fails > 0 => "; it is the last try".to_owned(),
                n if t.fails > 0 => format!("; if that fails too, it is tried again{}", self.tries_text(t, n)),
                _ => String::new(),
            };
            return format!("it may start in {}{again}", human_duration(tenths(wait)));
        }
        let Some(g) = self.tasks.groups.get(&t.frame.group) else { return String::new() };
        let name = &t.frame.group;
        let before = g.ready.range(..t.rank()).count() + g.claimed.range(..t.rank()).count();
        let first = match before {
            0 => "it is the next of its group".to_owned(),
            1 => "1 task goes before it".to_owned(),
            n => format!("{n} tasks go before it"),
        };
        if self.tasks.blind {
            format!("it starts once the config can be read; {first}")
        } else if g.paused() {
            format!("nothing, until a person resumes group {name}; then {first}")
        } else if g.parallel() == 0 {
            format!("nothing, while group {name} has no slots")
        } else {
            format!("it starts when group {name} has room; {first}")
        }
    }

    fn task_todo(&self, t: &Task) -> Vec<String> {
        let id = t.id;
        let mut todo: Vec<String> = Vec::new();
        if !matches!(t.state, TaskState::Running | TaskState::Paused | TaskState::Succeeded)
            && let Some(missing) = self.unready(t)
        {
            todo.push(format!("{missing}: put it back, then 'hob reload'"));
        }
        match t.state {
            TaskState::Held => todo.push(format!("hob task release {id}  # to let it start")),
            TaskState::Paused => todo.push(format!("hob task resume {id}")),
            TaskState::Running => todo.push(format!("hob task output -f {id}  # to watch it")),
            TaskState::Queued => todo.extend(self.hasten(t)),
            TaskState::Succeeded | TaskState::Failed | TaskState::Cancelled | TaskState::TimedOut | TaskState::Lost => {
                let ran = |r: &Outcome| !matches!(r.end, Ended::NotStarted(_) | Ended::Delayed(_));
                if t.outcome.as_deref().is_some_and(ran) {
                    todo.push(format!("hob task output {id}  # to see what it wrote"));
                }
                let lost = if t.state == TaskState::Lost { ", if it does no harm that it may run twice" } else { "" };
                todo.push(format!("hob task retry {id}  # to run it again{lost}"));
                return todo;
            }
        }
        todo.push(format!("hob task cancel {id}"));
        todo
    }

    /// How a queued task can be made to start sooner.
    fn hasten(&self, t: &Task) -> Vec<String> {
        let (id, group) = (t.id, &t.frame.group);
        if let Some(first) = self.open_before(t).first() {
            return vec![format!("hob why {}", name_of(*first))];
        }
        if !t.has_come(self.now) {
            return vec![format!("hob task edit {id} --delay 0s  # to let it start now")];
        }
        if self.tasks.blind {
            return vec!["mend the config ('hob config check' tells what is wrong), then 'hob reload'".to_owned()];
        }
        let Some(g) = self.tasks.groups.get(group) else { return Vec::new() };
        let name = shell_word(group);
        if g.paused() {
            return vec![format!("hob group resume {name}")];
        }
        let mut all = if g.running < g.parallel() && !g.has_room(t.weight) {
            let more = g.weight.saturating_add(t.weight.into()).min(u32::MAX.into());
            vec![format!("hob group set {name} --weight-limit {more}  # for what runs and this one (0: no limit)")]
        } else {
            let more = g.parallel().saturating_add(1);
            vec![format!("hob group set {name} --parallel {more}  # for one more slot")]
        };
        let first = [g.ready.first(), g.claimed.first()].into_iter().flatten().min();
        if let Some(first) = first.filter(|first| **first < t.rank()) {
            all.push(format!("hob task edit {id} --priority {}  # to let it go first", 1 - first.behind));
        }
        all
    }
}

/// What an event tells of the end of an attempt.
#[derive(Deserialize)]
struct Told {
    time: String,
    kind: String,
    #[serde(default)]
    attempt: u32,
    exit_code: Option<i32>,
    signal: Option<i32>,
    error: Option<String>,
    why: Option<String>,
}

impl Told {
    fn is_end(&self) -> bool {
        let ends = ["retried", "completed", "failed", "timeout", "cancelled", "lost"];
        self.kind.strip_prefix("task.").is_some_and(|kind| ends.contains(&kind))
    }

    fn text(self) -> String {
        let (time, n) = (self.time, self.attempt);
        let end = match (self.exit_code, self.signal, self.error) {
            (_, _, Some(e)) => return format!("{time}: attempt {n} could not be started: {e}"),
            (Some(code), ..) => Ended::Code(code),
            (_, Some(signal), _) => Ended::Signal(signal),
            _ => Ended::Unknown,
        };
        let why = self.why.map(|why| format!(", {why}")).unwrap_or_default();
        format!("{time}: attempt {n} ended: {}{why}", end.text())
    }
}

fn clause(why: Option<&str>) -> String {
    why.map_or_else(String::new, |why| if why.starts_with("by ") { format!(" {why}") } else { format!(": {why}") })
}

fn took(r: &Outcome) -> String {
    format!(" after {}", human_duration(tenths(r.ended.since(r.started))))
}

/// `2026-11-20T18:09:38.123Z: attempt 2 ended after 2.5 s: exit code 1`.
fn attempt_line(t: &Task, number: u32, r: &Outcome) -> String {
    let why = t.why.as_deref().filter(|_| t.state.is_over() && t.live.is_none() && t.over.is_none());
    let why = why.map(|why| format!(", {why}")).unwrap_or_default();
    match &r.end {
        Ended::NotStarted(e) | Ended::Delayed(e) => format!("{}: attempt {number} could not be started: {e}", r.ended),
        Ended::Code(_) | Ended::Signal(_) | Ended::Unknown => {
            format!("{}: attempt {number} ended{}: {}{why}", r.ended, took(r), r.end.text())
        }
    }
}
