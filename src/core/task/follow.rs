//! Tasks that follow others: what they wait for, and what the end of one or a retry means to them. Pure.

use super::run::past;
use super::{Task, Tasks};
use crate::base::gather::Gather as _;
use crate::base::ids::TaskId;
use crate::core::due::Due;
use crate::core::{Core, Out};
use crate::protocol::methods::task::{After, TaskState};
use crate::protocol::rpc::{Code, RpcError};
use std::collections::BTreeSet;

impl Tasks {
    fn followers_of(&self, id: TaskId) -> Vec<TaskId> {
        self.followers.get(&id).into_iter().flatten().copied().collect()
    }

    /// A task follows nobody any more.
    pub(super) fn unfollow(&mut self, id: TaskId, after: &[After]) {
        for a in after {
            if let Some(of) = self.followers.get_mut(&a.id) {
                of.remove(&id);
                if of.is_empty() {
                    self.followers.remove(&a.id);
                }
            }
        }
    }
}

impl Core {
    /// Whether each of them exists, and none has failed in vain.
    pub(super) fn check_after(&self, after: &[After]) -> Result<(), RpcError> {
        let unknown: Vec<String> =
            after.iter().filter(|a| self.tasks.get(a.id).is_none()).take(10).map(|a| a.id.to_string()).collect();
        if !unknown.is_empty() {
            let text = format!("after: there is no task {}", unknown.join(", "));
            return Err(RpcError::new(Code::NotFound, text).hint("`hob task list` shows those that there are"));
        }
        match self.failed_before(after) {
            Some((id, state)) => {
                let state = super::calls::in_words(state);
                let text = format!("after: task {id} is over without success ({state}), so this one would never start");
                Err(RpcError::new(Code::Conflict, text).hint("{\"id\", \"any\": true} takes any end"))
            }
            None => Ok(()),
        }
    }

    /// The first of those a task wants to follow that is over without the success it wants.
    pub(super) fn failed_before(&self, after: &[After]) -> Option<(TaskId, TaskState)> {
        let mut wanted = after.iter().filter(|a| !a.any).filter_map(|a| self.tasks.get(a.id));
        let failed = wanted.find(|t| t.state.is_over() && t.state != TaskState::Succeeded)?;
        Some((failed.id, failed.state))
    }

    /// Nobody can follow itself, by however many others.
    pub(super) fn check_cycle(&self, id: TaskId, after: &[After]) -> Result<(), RpcError> {
        let mut seen = BTreeSet::new();
        let mut open: Vec<TaskId> = after.iter().map(|a| a.id).collect();
        while let Some(next) = open.pop() {
            if next == id {
                let text = format!("after: task {id} would follow itself");
                return Err(RpcError::new(Code::Conflict, text));
            }
            // Also by those that are over: they can be retried.
            if seen.insert(next)
                && let Some(task) = self.tasks.get(next)
            {
                open.extend(task.after.iter().map(|a| a.id));
            }
        }
        Ok(())
    }

    /// Notes whom a task follows that has not begun, and how many of these are not over.
    pub(super) fn follow_others(&mut self, id: TaskId) {
        let Some(task) = self.tasks.get(id).filter(|t| !t.state.is_over() && !t.after.is_empty()) else { return };
        // One that is named twice ends only once.
        let others: BTreeSet<TaskId> = task.after.iter().map(|a| a.id).gather();
        let mut open = 0;
        for other in others {
            let Some(task) = self.tasks.get(other) else { continue };
            open += u32::from(!task.state.is_over());
            self.tasks.followers.entry(other).or_default().insert(id);
        }
        if let Some(task) = self.tasks.get_mut(id) {
            task.blocked = open;
        }
    }

    /// A task that is over is to run again: those that follow it and have not begun wait for it once more.
    pub(super) fn block_followers(&mut self, id: TaskId, out: &mut Out) {
        for follower in self.tasks.followers_of(id) {
            let Some(task) = self.tasks.get(follower).filter(|t| t.live.is_none() && !t.state.is_over()) else {
                continue;
            };
            let blocked = task.blocked + 1;
            let claimed = self.unqueue(follower);
            if let Some(task) = self.tasks.get_mut(follower) {
                task.blocked = blocked;
            }
            if claimed {
                self.save_attempt(follower, out);
            }
            self.plan_task(follower);
        }
    }

    /// Those that follow a task which has come to rest: they may go, or never will. Worked off by a list, never by
    /// recursion.
    pub(super) fn tell_followers(&mut self, id: TaskId, state: TaskState, out: &mut Out) {
        let mut ended = vec![(id, state)];
        while let Some((id, state)) = ended.pop() {
            let after = self.tasks.get(id).map_or_else(Default::default, |t| t.after.clone());
            self.tasks.unfollow(id, &after);
            for follower in self.tasks.followers_of(id) {
                // Who has begun did so when this one was over before.
                let Some(task) = self.tasks.get_mut(follower).filter(|t| t.live.is_none()) else { continue };
                let any = task.after.iter().any(|a| a.id == id && a.any);
                task.blocked = task.blocked.saturating_sub(1);
                if any || state == TaskState::Succeeded {
                    self.enqueue(follower);
                    continue;
                }
                self.end_follower(follower, id, state, out);
                ended.push((follower, TaskState::Cancelled));
            }
        }
    }

    /// A task has not begun, and one that it follows has ended without the success it wants.
    fn end_follower(&mut self, follower: TaskId, of: TaskId, state: TaskState, out: &mut Out) {
        let now = self.now.wall;
        if let Some(task) = self.tasks.get_mut(follower) {
            task.why = Some(format!("task {of}, which it follows, {}", past(state)).into());
            task.over = Some(now);
        }
        self.unqueue(follower);
        self.deadlines.set(Due::Task(follower), None);
        self.tasks.set_state(follower, TaskState::Cancelled);
        self.tasks.ended.push(follower);
        self.save_attempt(follower, out);
        self.emit_end("task.cancelled", follower, out);
    }

    /// The journal knows the end of a task, and may lack what that meant to those that follow it: that record was
    /// damaged, or the end could not be read before.
    pub(super) fn end_left_followers(&mut self, out: &mut Out) {
        let left = |t: &&Task| {
            // One that waits to be tried again may have begun before the other ended.
            let again = t.attempts > 0 && (t.fails > 0 || t.frame.repeatable);
            !t.after.is_empty() && t.live.is_none() && !t.state.is_over() && !again
        };
        let ids: Vec<TaskId> = self.tasks.after(TaskId(0)).filter(left).map(|t| t.id).gather();
        for follower in ids {
            // It may have been cancelled by one before it.
            let Some(task) = self.tasks.get(follower).filter(|t| !t.state.is_over()) else { continue };
            if let Some((of, state)) = self.failed_before(&task.after) {
                self.end_follower(follower, of, state, out);
                self.tell_followers(follower, TaskState::Cancelled, out);
            }
        }
    }
}
