//! The life of one attempt: started, ended, its processes gone, its output passed, and what follows. Pure.

use super::{TERMS, Task, TaskStop, Work, name_of};
use crate::base::ids::{RunId, TaskId};
use crate::base::json::Obj;
use crate::core::due::Due;
use crate::core::run::{Ended, clip_reason, signal_name};
use crate::core::service::stop::Phase;
use crate::core::{Core, Effect, End, Out, StartError, Survivor, Usage};
use crate::protocol::methods::task::TaskState;
use core::time::Duration;
use std::sync::Arc;

/// A reason by the key that named the program: that of the runner, which stands before the command, or of the agent.
fn in_its_keys(task: &Task, why: &str) -> String {
    let key = match (&task.frame.runner, &task.work) {
        (Some(runner), _) => format!("`runners.{runner}.prefix`"),
        (None, Work::Agent { name, .. }) => format!("`agents.{name}.command`"),
        (None, Work::Command(_)) => return why.to_owned(),
    };
    why.replace("`command`", &key).replace("\"command\"", &key)
}

/// Why one that was lost or stopped with hob waits again.
pub(super) const REPEATABLE: &str = ", and it is repeatable";

impl Core {
    pub(in crate::core) fn task_started(
        &mut self,
        id: TaskId,
        run: RunId,
        result: Result<u32, StartError>,
        out: &mut Out,
    ) {
        let now = self.now;
        let Some(task) = self.tasks.get_mut(id) else { return };
        let (timeout, attempt) = (task.timeout, task.attempts);
        let Some(live) = task.live.as_mut().filter(|l| l.run == run && l.pid.is_none() && l.end.is_none()) else {
            return self.late("a second start", run, out);
        };
        match result {
            Ok(pid) => {
                live.pid = Some(pid);
                live.timeout_at = (!timeout.is_zero()).then(|| now.mono + timeout);
                match live.sequence.phase {
                    Phase::Unborn => live.sequence.ask(run, TERMS, now.mono, out),
                    Phase::Killed => live.sequence.kill(run, TERMS, now.mono, out),
                    Phase::Idle | Phase::Held | Phase::Commanded | Phase::Asked | Phase::Looking | Phase::Leftovers => {
                    }
                }
                let mut fields = Obj::new();
                fields.u64("run", run.0).u64("pid", pid.into()).u64("attempt", attempt.into());
                self.emit_task("task.started", id, fields.members(), out);
                self.plan_task(id);
            }
            // A shutdown cancels what ran, and this has not.
            Err(e) if e.transient && live.stop.as_ref().is_none_or(TaskStop::with_hob) => {
                self.put_task_off(id, &e, out);
            }
            Err(e) => {
                live.end = Some((End::Unknown, Usage::default(), now));
                let why = self.tasks.get(id).map_or_else(|| e.message.clone(), |t| in_its_keys(t, &e.message));
                self.task_over(id, Ended::NotStarted(clip_reason(&why)), out);
            }
        }
    }

    /// The machine lacks something now: nothing has run, and the same attempt is tried again a little later.
    fn put_task_off(&mut self, id: TaskId, error: &StartError, out: &mut Out) {
        let now = self.now;
        let Some(task) = self.tasks.get_mut(id) else { return };
        let Some(live) = task.live.take() else { return };
        let (name, weight) = (Arc::clone(&task.frame.group), task.weight);
        task.attempts -= 1;
        task.refused = task.refused.saturating_add(1);
        let delay = Duration::from_millis(100 << task.refused.min(8));
        task.wait(delay, now);
        task.why = Some(clip_reason(&format!("could not be started now: {}", error.message)));
        self.tasks.runs.remove(&live.run);
        self.tasks.set_state(id, TaskState::Queued);
        self.free_slot(&name, weight);
        self.save_attempt(id, out);
        out.effects.push(Effect::Forget { run: live.run });
        self.follow_others(id);
        let mut fields = Obj::new();
        fields.str("error", &error.message).u64("next_try_in_ms", crate::core::run::millis(delay));
        self.emit_task("task.start_failed", id, fields.members(), out);
        self.enqueue(id);
    }

    fn free_slot(&mut self, name: &Arc<str>, weight: u32) {
        let group = self.tasks.group_for(name);
        group.running = group.running.saturating_sub(1);
        group.weight = group.weight.saturating_sub(u64::from(weight));
        self.tasks.look_at(name);
        if core::mem::take(&mut self.tasks.crowded) {
            self.tasks.look_at_all();
        }
    }

    pub(in crate::core) fn task_exited(&mut self, id: TaskId, run: RunId, end: End, usage: Usage, out: &mut Out) {
        let now = self.now;
        let Some(task) = self.tasks.get_mut(id) else { return };
        let Some(live) = task.live.as_mut().filter(|l| l.run == run && l.end.is_none()) else {
            return self.late("a second exit", run, out);
        };
        live.end = Some((end, usage, now));
        live.sequence.main_ended(run, now.mono, out);
        self.plan_task(id);
    }

    pub(in crate::core) fn task_tree(&mut self, id: TaskId, run: RunId, left: Vec<Survivor>, out: &mut Out) {
        let now = self.now.mono;
        let Some(task) = self.tasks.get_mut(id) else { return };
        let Some(live) = task.live.as_mut().filter(|l| l.run == run) else { return };
        let Some((end, ..)) = live.end else {
            live.sequence.left = left;
            return;
        };
        if live.gone.is_some() {
            return;
        }
        if left.is_empty() {
            return self.task_over(id, Ended::from(end), out);
        }
        live.sequence.leftovers(run, TERMS, left, now, out);
        self.plan_task(id);
    }

    pub(in crate::core) fn task_output(
        &mut self,
        id: TaskId,
        run: RunId,
        bytes: u64,
        lines: Vec<String>,
        out: &mut Out,
    ) {
        let Some(live) = self.tasks.get_mut(id).and_then(|t| t.live.as_mut()).filter(|l| l.run == run) else {
            return self.late("output", run, out);
        };
        live.output = Some((bytes, lines));
        if live.gone.is_some() {
            self.task_finished(id, out);
        }
    }

    /// Nothing of the attempt runs any more: its slot is free. Its end is told when its output is known too.
    pub(super) fn task_over(&mut self, id: TaskId, end: Ended, out: &mut Out) {
        let now = self.now.mono;
        let Some(task) = self.tasks.get_mut(id) else { return };
        let (name, weight) = (Arc::clone(&task.frame.group), task.weight);
        let Some(live) = task.live.as_mut().filter(|l| l.gone.is_none()) else { return };
        live.gone = Some(now);
        live.ended = Some(end);
        let known = live.output.is_some() || live.pid.is_none() || !live.heard;
        self.free_slot(&name, weight);
        if known {
            self.task_finished(id, out);
        } else {
            self.plan_task(id);
        }
    }

    /// The end of an attempt, with all that is known of it: the record, and what follows.
    pub(super) fn task_finished(&mut self, id: TaskId, out: &mut Out) {
        let now = self.now;
        let Some(task) = self.tasks.get_mut(id) else { return };
        let Some(mut live) = task.live.take() else { return };
        let end = live.ended.take().unwrap_or(Ended::Unknown);
        let ended = live.end.as_ref().map_or(now.wall, |(.., at)| at.wall);
        task.refused = 0;
        let (state, why) = verdict(task, &end, live.stop.as_ref());
        task.outcome = Some(Box::new(live.outcome(end, ended)));
        task.why = why.map(Into::into);
        if matches!(state, TaskState::Failed | TaskState::TimedOut) {
            task.fails = task.fails.saturating_add(1);
        }
        let again = match state {
            // Before the config changes, what it lacks it will lack again.
            TaskState::Failed | TaskState::TimedOut => live.known && task.fails <= task.retries,
            TaskState::Lost => task.frame.repeatable,
            TaskState::Cancelled => task.frame.repeatable && live.stop.as_ref().is_some_and(TaskStop::with_hob),
            TaskState::Held | TaskState::Queued | TaskState::Running | TaskState::Paused | TaskState::Succeeded => {
                false
            }
        };
        if again && let (TaskState::Cancelled | TaskState::Lost, Some(why)) = (state, &task.why) {
            let stopped = if state == TaskState::Cancelled { "it was stopped " } else { "" };
            task.why = Some(format!("{stopped}{why}{REPEATABLE}").into());
        }
        let delay = if again && state != TaskState::Cancelled { task.delay() } else { Duration::ZERO };
        self.tasks.runs.remove(&live.run);
        if live.known {
            out.effects.push(Effect::Forget { run: live.run });
        }
        out.effects.push(Effect::Remove { service: name_of(id) });
        if again {
            return self.try_again(id, state, delay, out);
        }
        self.rest(id, state, out);
    }

    /// Queues the next attempt.
    fn try_again(&mut self, id: TaskId, state: TaskState, delay: Duration, out: &mut Out) {
        let now = self.now;
        self.tasks.set_state(id, TaskState::Queued);
        if let Some(task) = self.tasks.get_mut(id) {
            task.wait(delay, now);
        }
        self.save_attempt(id, out);
        self.follow_others(id);
        let mut fields = Obj::new();
        fields.str("after", state.name()).u64("next_try_in_ms", crate::core::run::millis(delay));
        self.tell_outcome(id, &mut fields);
        self.emit_task("task.retried", id, fields.members(), out);
        self.enqueue(id);
    }

    /// A task comes to rest in an end state.
    pub(super) fn rest(&mut self, id: TaskId, state: TaskState, out: &mut Out) {
        self.tasks.set_state(id, state);
        self.tasks.ended.push(id);
        self.deadlines.set(Due::Task(id), None);
        self.save_attempt(id, out);
        let kind = match state {
            TaskState::Succeeded => "task.completed",
            TaskState::Failed => "task.failed",
            TaskState::TimedOut => "task.timeout",
            TaskState::Cancelled => "task.cancelled",
            TaskState::Lost => "task.lost",
            TaskState::Held | TaskState::Queued | TaskState::Running | TaskState::Paused => "task.changed",
        };
        self.emit_end(kind, id, out);
        self.tell_followers(id, state, out);
    }

    pub(super) fn tell_outcome(&self, id: TaskId, fields: &mut Obj) {
        let Some(task) = self.tasks.get(id) else { return };
        fields.u64("attempt", task.attempts.into());
        if let Some(o) = task.outcome.as_deref() {
            match &o.end {
                Ended::Code(c) => fields.i64("exit_code", i64::from(*c)),
                Ended::Signal(n) => fields.i64("signal", i64::from(*n)).str("signal_name", &signal_name(*n)),
                Ended::NotStarted(e) | Ended::Delayed(e) => fields.str("error", e),
                Ended::Unknown => fields,
            };
            if super::view::is_over_limit(task, o) {
                fields.bool("over_limit", true);
            }
        }
        if let Some(why) = &task.why {
            fields.str("why", why);
        }
    }

    /// Begins the stop sequence of a running task. Whether it had not begun.
    pub(super) fn stop_task(&mut self, id: TaskId, why: TaskStop, force: bool, out: &mut Out) -> bool {
        let now = self.now.mono;
        let Some(live) = self.tasks.get_mut(id).and_then(|t| t.live.as_mut()).filter(|l| l.gone.is_none()) else {
            return false;
        };
        let first = live.stop.is_none();
        live.stop.get_or_insert(why);
        let (run, born) = (live.run, live.pid.is_some());
        match live.sequence.phase {
            Phase::Killed => {}
            Phase::Idle | Phase::Held | Phase::Unborn if !born => {
                live.sequence.phase = if force { Phase::Killed } else { Phase::Unborn };
                out.effects.push(Effect::CancelStart { run });
            }
            Phase::Idle
            | Phase::Held
            | Phase::Unborn
            | Phase::Commanded
            | Phase::Asked
            | Phase::Looking
            | Phase::Leftovers
                if force =>
            {
                live.sequence.kill(run, TERMS, now, out);
            }
            Phase::Idle | Phase::Held | Phase::Unborn => live.sequence.ask(run, TERMS, now, out),
            Phase::Commanded | Phase::Asked | Phase::Looking | Phase::Leftovers => {}
        }
        if core::mem::take(&mut live.paused) {
            // A stopped process could not even end.
            out.effects.push(Effect::Pause { run, on: false });
            self.tasks.set_state(id, TaskState::Running);
        }
        if first {
            self.save_attempt(id, out);
        }
        self.plan_task(id);
        first
    }

    /// A shutdown stops what runs; what waits stays queued, and its claims are given back.
    pub(in crate::core) fn stop_tasks(&mut self, out: &mut Out) {
        let claimed: Vec<TaskId> =
            self.tasks.groups.values().flat_map(|g| g.claimed.iter().map(|rank| rank.id)).collect();
        for id in claimed {
            self.unqueue(id);
            self.save_attempt(id, out);
            self.enqueue(id);
        }
        self.stop_live_tasks(&TaskStop::Shutdown, out);
    }

    pub(in crate::core) fn stop_live_tasks(&mut self, why: &TaskStop, out: &mut Out) {
        for id in self.tasks.live_ids() {
            self.stop_task(id, why.clone(), false, out);
        }
    }

    pub(in crate::core) fn kill_tasks(&mut self, out: &mut Out) {
        for id in self.tasks.live_ids() {
            self.stop_task(id, TaskStop::Shutdown, true, out);
        }
    }

    /// The machine stood still: what may take only so long may take longer by that.
    pub(in crate::core) fn thaw_tasks(&mut self, gap: Duration, out: &mut Out) {
        for id in self.tasks.live_ids() {
            let mut moved = false;
            if let Some(live) = self.tasks.get_mut(id).and_then(|t| t.live.as_mut()) {
                live.sequence.thaw(gap);
                if let Some(at) = live.timeout_at.as_mut() {
                    *at = *at + gap;
                    (live.moved, moved) = (true, true);
                }
            }
            if moved {
                // The next daemon would let it run for less.
                self.save_attempt(id, out);
            }
            self.plan_task(id);
        }
    }
}

pub(in crate::core) fn past(state: TaskState) -> &'static str {
    match state {
        TaskState::Failed => "failed",
        TaskState::Cancelled => "was cancelled",
        TaskState::TimedOut => "took too long",
        TaskState::Lost => "is lost",
        TaskState::Succeeded => "succeeded",
        TaskState::Held | TaskState::Queued | TaskState::Running | TaskState::Paused => "was removed",
    }
}

/// The end state that an attempt leads to, and why, where the end itself does not say it.
fn verdict(task: &Task, end: &Ended, stop: Option<&TaskStop>) -> (TaskState, Option<String>) {
    match (stop, end) {
        (None, Ended::Code(0)) => (TaskState::Succeeded, None),
        (None, Ended::Code(_) | Ended::Signal(_) | Ended::NotStarted(_) | Ended::Delayed(_)) => {
            (TaskState::Failed, None)
        }
        (None, Ended::Unknown) => {
            (TaskState::Lost, Some("hob was killed with its keeper while it ran, and nobody saw its end".to_owned()))
        }
        (Some(TaskStop::Client(c)), _) => (TaskState::Cancelled, Some(format!("by {}", c.text()))),
        (Some(TaskStop::Timeout), _) => {
            let limit = crate::base::units::canonical_duration(task.timeout);
            (TaskState::TimedOut, Some(format!("it may run for {limit}")))
        }
        (Some(TaskStop::Shutdown | TaskStop::KeeperGone), Ended::Code(0)) => (TaskState::Succeeded, None),
        (Some(TaskStop::Shutdown), _) => (TaskState::Cancelled, Some("because hob was shutting down".to_owned())),
        (Some(TaskStop::KeeperGone), _) => (TaskState::Cancelled, Some("because hob's keeper was killed".to_owned())),
    }
}
