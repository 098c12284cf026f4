//! Ends of attempts and of tasks, held against what really happened and who wanted it.

use crate::jobs_round::Deeds;
use crate::os::MS;
use crate::tasks_model::{Job, Phase, Scene, Tasks, Why};
use hob::base::ids::{RunId, TaskId};
use hob::core::End;
use hob::protocol::methods::Request;
use hob::protocol::methods::task::{TaskCall, TaskState};
use serde_json::Value;

type Held = Result<(), String>;

impl Tasks {
    /// The end of the present attempt, as the system knows it.
    fn ended(&self, scene: Scene<'_>, id: TaskId, run: RunId, v: &Value) -> Result<Option<End>, String> {
        if let Some(p) = scene.os.procs.values().find(|p| p.run == run) {
            return Err(format!("task gone: {v}, and process {} of run {run} lives", p.pid));
        }
        if self.pending.contains(&run) {
            return Err(format!("task gone: {v}, and run {run} of task {id} is about to start"));
        }
        let end = scene.os.runs.get(&run).and_then(|t| t.ended);
        let (code, signal) = match end {
            Some(End::Code(c)) => (Some(i64::from(c)), None),
            Some(End::Signal(n)) => (None, Some(i64::from(n))),
            Some(End::Unknown) | None => (None, None),
        };
        if v["exit_code"].as_i64() != code || v["signal"].as_i64() != signal {
            return Err(format!("task end: {v}, and the truth is {end:?}"));
        }
        Ok(end)
    }

    /// Whether an attempt may have led to this.
    fn may(&self, scene: Scene<'_>, id: TaskId, run: RunId, end: Option<End>, state: TaskState) -> Held {
        let stop = self.jobs[&id].stop;
        let free = stop.is_none_or(|(_, certain)| !certain);
        let never = end.is_none() && scene.os.runs.get(&run).is_none_or(|t| t.exec_failed || t.pid.is_none());
        let fine = match state {
            TaskState::Succeeded => end == Some(End::Code(0)) && (free || stop.is_some_and(|s| s.0 == Why::Shutdown)),
            TaskState::Failed => free && (never || end.is_some_and(|e| e != End::Code(0))),
            TaskState::TimedOut => stop.is_some_and(|s| s.0 == Why::Timeout),
            TaskState::Cancelled => stop.is_some_and(|s| s.0 != Why::Timeout),
            TaskState::Held | TaskState::Queued | TaskState::Running | TaskState::Paused | TaskState::Lost => false,
        };
        if fine {
            return Ok(());
        }
        Err(format!("task end: task {id} is said to be {state}, its end was {end:?}, hob's own wish {stop:?}"))
    }

    pub fn again(&mut self, scene: Scene<'_>, id: TaskId, v: &Value) -> Held {
        let Some(job) = self.jobs.get(&id).cloned() else { return Err(format!("task events: {v}")) };
        let end = match job.phase {
            Phase::Running(run) => self.ended(scene, id, run, v)?,
            phase => return Err(format!("task events: {v} of {phase:?}")),
        };
        let failed = match v["after"].as_str() {
            Some("failed") => TaskState::Failed,
            Some("timed_out") => TaskState::TimedOut,
            Some("cancelled") if job.repeatable && job.stop.is_some_and(|s| s.0 == Why::Shutdown) => {
                TaskState::Cancelled
            }
            _ => return Err(format!("retries: {v}")),
        };
        match job.phase {
            Phase::Running(run) => self.may(scene, id, run, end, failed)?,
            phase => return Err(format!("task end: {v} of {phase:?}")),
        }
        let fails = job.fails + u32::from(failed != TaskState::Cancelled);
        if failed != TaskState::Cancelled && fails > job.retries {
            return Err(format!("retries: task {id} is tried again after {fails} failures of {}", job.retries));
        }
        let wait = v["next_try_in_ms"].as_u64().unwrap_or(0);
        let due = if failed == TaskState::Cancelled { 0 } else { job.backoff << (fails - 1).min(20) };
        if wait != due.min(3_600_000) {
            return Err(format!("retries: task {id} waits {wait} ms instead of {due}"));
        }
        let again = scene.now + wait * MS;
        if let Some(job) = self.edit(id) {
            (job.phase, job.stop, job.paused) = (Phase::Queued, None, false);
            (job.fails, job.again, job.exit) = (fails, again, end);
            job.again_wall = scene.wall + i64::try_from(wait).unwrap_or(0);
            job.grants += 1;
        }
        self.since.remove(&id);
        Ok(())
    }

    /// Whether its next attempt comes to nothing, because the config does not have what it needs any more.
    fn is_without_program(&self, job: &Job) -> bool {
        job.phase == Phase::Queued && !self.blind && !self.has_programs(job)
    }

    fn tried_in_vain(&mut self, id: TaskId) {
        if let Some(job) = self.edit(id) {
            job.attempts += 1;
        }
    }

    pub fn over(
        &mut self,
        scene: Scene<'_>,
        id: TaskId,
        state: TaskState,
        v: &Value,
        (asked, deeds): (Option<&Request>, &Deeds),
    ) -> Held {
        let Some(job) = self.jobs.get(&id).cloned() else { return Err(format!("task events: {v}")) };
        let mut exit = job.exit;
        let mut fails = job.fails;
        match job.phase {
            Phase::Running(run) => {
                exit = self.ended(scene, id, run, v)?;
                self.may(scene, id, run, exit, state)?;
                fails += u32::from(matches!(state, TaskState::Failed | TaskState::TimedOut));
                if matches!(state, TaskState::Failed | TaskState::TimedOut) && fails <= job.retries {
                    return Err(format!("retries: task {id} is over after {fails} failures of {}", job.retries));
                }
            }
            Phase::Queued if state == TaskState::Lost && self.unknown.remove(&id) => {}
            Phase::Queued if state == TaskState::Failed && self.is_without_program(&job) => {
                self.tried_in_vain(id);
                // What the config lacks it would lack again.
                exit = None;
                fails += 1;
            }
            Phase::Queued | Phase::Held if state == TaskState::Cancelled => {
                let person = matches!(asked, Some(Request::Task(c)) if matches!(**c, TaskCall::Cancel { .. }));
                let over = |a: &hob::protocol::methods::task::After| {
                    let state = self.jobs.get(&a.id).map(|j| j.phase);
                    !a.any && matches!(state, Some(Phase::Over(s)) if s != TaskState::Succeeded)
                };
                if !person && !deeds.given_up.contains(&id) && !job.after.iter().any(over) {
                    return Err(format!("task end: nobody wanted {v}"));
                }
            }
            phase => return Err(format!("task end: {v}, and it is {phase:?}")),
        }
        if let Some(job) = self.edit(id) {
            (job.phase, job.stop, job.paused) = (Phase::Over(state), None, false);
            (job.fails, job.exit) = (fails, exit);
        }
        self.since.remove(&id);
        self.tell_followers(id, state);
        Ok(())
    }

    fn tell_followers(&mut self, id: TaskId, state: TaskState) {
        let followers: Vec<TaskId> = self
            .jobs
            .iter()
            .filter(|(_, j)| matches!(j.phase, Phase::Held | Phase::Queued) && j.after.iter().any(|a| a.id == id))
            .map(|(id, _)| *id)
            .collect();
        for follower in followers {
            let Some(job) = self.jobs.get(&follower) else { continue };
            if state == TaskState::Succeeded || job.after.iter().any(|a| a.id == id && a.any) {
                if let Some(job) = self.edit(follower) {
                    job.cleared.insert(id);
                }
            } else {
                self.doomed.insert(follower);
            }
        }
    }

    pub fn put_off(&mut self, scene: Scene<'_>, id: TaskId, v: &Value) -> Held {
        let run = self.jobs.get(&id).map(|j| j.phase);
        let Some(Phase::Running(run)) = run else { return Err(format!("task events: {v} of one that is {run:?}")) };
        if scene.os.runs.get(&run).is_some_and(|t| t.pid.is_some() || t.exec_failed) {
            return Err(format!("task events: {v}, and it was started"));
        }
        self.pending.remove(&run);
        let wait = v["next_try_in_ms"].as_u64().unwrap_or(0);
        let again = scene.now + wait * MS;
        let wall = scene.wall + i64::try_from(wait).unwrap_or(0);
        if let Some(job) = self.edit(id) {
            (job.phase, job.again, job.stop) = (Phase::Queued, again, None);
            job.again_wall = wall;
            job.attempts -= 1;
        }
        Ok(())
    }
}
