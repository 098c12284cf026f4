//! Runs that submitted tasks: they go on until these are over, and end as these did. Pure.

use super::{Outcome, Run};
use crate::base::ids::{ConnId, ReqId, TaskId};
use crate::core::run::Client;
use crate::core::task::Task;
use crate::core::{Core, Out};
use crate::protocol::methods::task::TaskState;

impl Core {
    fn run_at(&mut self, req: ReqId) -> Option<(usize, &mut Run)> {
        let i = *self.schedules.runs.get(&req)?;
        let run = self.schedules.jobs[i].runs.iter_mut().find(|r| r.req == req)?;
        Some((i, run))
    }

    /// A run has submitted these tasks, or has found them submitted.
    pub(in crate::core) fn run_submitted(&mut self, req: ReqId, tasks: Vec<TaskId>) {
        let Some((i, run)) = self.run_at(req) else { return };
        run.tasks.clone_from(&tasks);
        self.schedules.jobs[i].save = true;
        self.schedules.touch(i);
        self.follow_tasks(req, &tasks);
    }

    pub(super) fn follow_tasks(&mut self, req: ReqId, tasks: &[TaskId]) {
        self.schedules.followed.extend(tasks.iter().map(|id| (*id, req)));
        self.look_at_tasks(req);
    }

    /// These tasks are over, or gone.
    pub(in crate::core) fn tell_runs(&mut self, ended: &[TaskId]) {
        for id in ended {
            let of = self.schedules.followed.range((*id, ReqId(0))..=(*id, ReqId(u64::MAX)));
            for req in of.map(|(_, req)| *req).collect::<Vec<_>>() {
                self.look_at_tasks(req);
            }
        }
    }

    /// Ends a run whose tasks are all over, as the first of them that did not succeed.
    fn look_at_tasks(&mut self, req: ReqId) {
        let Some((_, run)) = self.run_at(req) else { return };
        let (ids, given_up) = (run.tasks.clone(), run.given_up.clone());
        let tasks: Vec<&Task> = ids.iter().filter_map(|id| self.tasks.get(*id)).collect();
        if tasks.iter().any(|t| !t.state.is_over()) {
            return;
        }
        let (outcome, message) = match (given_up, tasks.iter().find_map(|t| trouble(t))) {
            (Some(given_up), _) => given_up,
            (None, Some((outcome, message))) => (outcome, Some(message)),
            (None, None) if tasks.is_empty() && !ids.is_empty() => {
                (Outcome::Lost, Some("what it submitted was removed".to_owned()))
            }
            (None, None) => (Outcome::Done, None),
        };
        self.schedules.answers.push((req, outcome, message));
    }

    /// Ends a run before its time. What it has submitted is cancelled, and it ends when that has ended.
    pub(super) fn give_up(&mut self, req: ReqId, outcome: Outcome, message: Option<String>, out: &mut Out) {
        let Some((i, run)) = self.run_at(req) else { return };
        if run.given_up.is_some() {
            return;
        }
        let ids = run.tasks.clone();
        let open = |id: &TaskId| self.tasks.get(*id).is_some_and(|t| !t.state.is_over());
        let open: Vec<TaskId> = ids.into_iter().filter(open).collect();
        if open.is_empty() {
            return self.run_over(req, outcome, message, out);
        }
        let Some((_, run)) = self.run_at(req) else { return };
        run.given_up = Some((outcome, message));
        run.until = None;
        self.schedules.jobs[i].save = true;
        self.schedules.touch(i);
        let client = Client::new(&super::turn::peer_of(&self.schedules.jobs[i].id), ConnId(req.0));
        for id in open {
            // One that somebody else is cancelling ends all the same.
            let _ = self.cancel(id, client.clone(), false, out);
        }
    }
}

/// What a task that did not succeed came to.
fn trouble(task: &Task) -> Option<(Outcome, String)> {
    let outcome = match task.state {
        TaskState::Succeeded | TaskState::Held | TaskState::Queued | TaskState::Running | TaskState::Paused => {
            return None;
        }
        TaskState::Failed | TaskState::Cancelled => Outcome::Failed,
        TaskState::TimedOut => Outcome::TimedOut,
        TaskState::Lost => Outcome::Lost,
    };
    let end = || task.outcome.as_ref().map(|o| o.end.text());
    let why = task.why.as_deref().map(str::to_owned).or_else(end);
    let why = why.map_or_else(String::new, |why| format!(": {why}"));
    Some((outcome, format!("task {} {}{why}", task.id, crate::core::task::run::past(task.state))))
}
