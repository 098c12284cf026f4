//! From queued to running: who is next, claims ahead of their starts, and the start itself. Pure.

use super::{Claim, Live, Task, name_of};
use crate::base::ids::TaskId;
use crate::config::Level;
use crate::core::due::Due;
use crate::core::run::Ended;
use crate::core::{Core, Effect, End, Out, Start, Usage};
use crate::protocol::methods::task::TaskState;
use std::sync::Arc;

impl Core {
    /// The second phase for tasks: starts and claims until every group has what it can have.
    pub(in crate::core) fn settle_tasks(&mut self, out: &mut Out) {
        // A start that cannot even be ordered frees its slot at once, so a group may be looked at again; each look
        // takes at least one task out of the queue. The bound only guards against a mistake here.
        let mut fuse = 64 + 4 * self.tasks.groups.len() + self.tasks.count(TaskState::Queued).min(1 << 20) as usize;
        while let Some(name) = self.tasks.dirty.pop_first() {
            fuse -= 1;
            if fuse == 0 {
                self.tasks.dirty.insert(name);
                self.deadlines.set(Due::Groups, Some(self.now.mono));
                self.log_error("the groups of tasks did not settle in one step; going on in the next", out);
                break;
            }
            self.fill(&name, out);
        }
        self.answer_task_waits(out);
    }

    fn fill(&mut self, name: &Arc<str>, out: &mut Out) {
        if self.life.stopping.is_some() || self.tasks.blind || !self.tasks.groups.contains_key(name) {
            return;
        }
        let idle = self.tasks.groups.get(name).filter(|g| g.paused() || g.parallel() == 0);
        let vain: Vec<TaskId> = idle.into_iter().flat_map(|g| &g.claimed).map(|rank| rank.id).collect();
        for id in vain {
            // After a power loss a claim would be as good as a start.
            self.give_back(id, out);
        }
        // What is left of a task whose end nobody saw still takes its place. Nor is anything claimed: what is left is
        // known by the last run of its task, also to the next daemon, until a claim gives that a new number.
        if !self.orphans.is_empty() {
            return;
        }
        self.start_claimed(name, out);
        if self.claim_next(name, out) {
            // Those that need no sync can go at once.
            self.start_claimed(name, out);
        }
    }

    /// How many more tasks hob can run, whatever the groups allow. Services keep their places, up to half of all.
    fn room_for_tasks(&self) -> usize {
        let running: usize = self.tasks.groups.values().map(|g| g.running as usize).sum();
        let most = self.facts.runs_max - self.table.len().min(self.facts.runs_max / 2);
        most.saturating_sub(running)
    }

    /// Starts what is claimed, on disk and has room.
    fn start_claimed(&mut self, name: &Arc<str>, out: &mut Out) {
        for room in (0..=self.room_for_tasks()).rev() {
            let Some(group) = self.tasks.groups.get(name).filter(|g| !g.paused()) else { return };
            let synced = |id: TaskId| {
                self.tasks.get(id).filter(|t| matches!(t.claim, Claim::Synced { .. })).map(|t| (id, t.weight))
            };
            let Some((id, weight)) = group.claimed.iter().find_map(|rank| synced(rank.id)) else { return };
            if !group.has_room(weight) {
                return;
            }
            if room == 0 {
                self.tasks.crowded = true;
                return;
            }
            self.begin_task(id, out);
        }
    }

    /// Claims the next tasks, so many as can start and some ahead. Whether some of them need no sync.
    fn claim_next(&mut self, name: &Arc<str>, out: &mut Out) -> bool {
        let (mut unsynced, mut at_once) = (false, false);
        let ticket = self.tasks.ticket + 1;
        while let Some(group) = self.tasks.groups.get_mut(name).filter(|g| !g.paused()) {
            let free = group.parallel().saturating_sub(group.running);
            let wanted = if group.parallel() == 0 { 0 } else { free as usize + group.ahead() };
            if group.claimed.len() >= wanted {
                // One that goes before a claimed one takes its claim.
                let before = group.ready.first() < group.claimed.last();
                let last = group.claimed.last().filter(|_| before && wanted > 0 && !group.ready.is_empty());
                let Some(last) = last.map(|rank| rank.id) else { break };
                self.give_back(last, out);
                continue;
            }
            let Some(rank) = group.ready.pop_first() else { break };
            group.claimed.insert(rank);
            let run = self.new_run();
            let Some(task) = self.tasks.get_mut(rank.id) else { continue };
            let repeatable = task.frame.repeatable;
            task.claim = if repeatable { Claim::Synced { run } } else { Claim::Written { run, ticket } };
            unsynced |= !repeatable;
            at_once |= repeatable;
            self.tasks.runs.insert(run, rank.id);
            if !repeatable {
                self.save_attempt(rank.id, out);
            }
        }
        if unsynced {
            self.tasks.ticket = ticket;
            out.effects.push(Effect::Sync { ticket });
        }
        at_once
    }

    /// Claims up to this one are on disk.
    pub(in crate::core) fn claims_synced(&mut self, ticket: u64) {
        let tasks = &mut self.tasks;
        for (name, group) in &tasks.groups {
            let mut any = false;
            for rank in &group.claimed {
                if let Some(task) = tasks.all.get_mut(&rank.id)
                    && let Claim::Written { run, ticket: own } = task.claim
                    && own <= ticket
                {
                    task.claim = Claim::Synced { run };
                    any = true;
                }
            }
            if any {
                tasks.dirty.insert(Arc::clone(name));
            }
        }
    }

    fn begin_task(&mut self, id: TaskId, out: &mut Out) {
        let now = self.now;
        let Some(task) = self.tasks.get(id) else { return };
        let Claim::Synced { run } = task.claim else { return };
        let spec = self.process_of(task);
        let stdin = self.input_of(task);
        let rank = task.rank();
        let (name, weight) = (Arc::clone(&task.frame.group), task.weight);
        let group = self.tasks.group_for(&name);
        group.claimed.remove(&rank);
        group.running += 1;
        group.weight += u64::from(weight);
        let Some(task) = self.tasks.get_mut(id) else { return };
        task.claim = Claim::None;
        task.attempts += 1;
        task.last = run;
        task.why = None;
        task.live = Some(Box::new(Live::new(run, now)));
        self.tasks.set_state(id, TaskState::Running);
        match spec {
            Ok(spec) => {
                self.save_attempt(id, out);
                let (service, spec) = (name_of(id), Arc::new(spec));
                out.effects.push(Effect::Start(Box::new(Start { run, service, spec, notify: false, stdin })));
            }
            Err(why) => {
                // What it needs was in the config when it was queued, and is not any more.
                if let Some(live) = self.tasks.get_mut(id).and_then(|t| t.live.as_mut()) {
                    live.known = false;
                    live.end = Some((End::Unknown, Usage::default(), now));
                }
                self.task_over(id, Ended::NotStarted(why.into()), out);
            }
        }
    }

    /// Puts a task where it belongs by its state: among those that can be claimed, or to its time.
    pub(super) fn enqueue(&mut self, id: TaskId) {
        let now = self.now;
        let Some(task) = self.tasks.get(id) else { return };
        let ready = task.state == TaskState::Queued
            && task.blocked == 0
            && task.has_come(now)
            && task.claim == Claim::None
            && task.live.is_none();
        if ready {
            let (rank, name) = (task.rank(), Arc::clone(&task.frame.group));
            self.tasks.group_for(&name).ready.insert(rank);
            self.tasks.look_at(&name);
        }
        self.plan_task(id);
    }

    /// Takes a task that has not begun out of its queue, with its claim. Whether it had one.
    pub(super) fn unqueue(&mut self, id: TaskId) -> bool {
        let Some(task) = self.tasks.get_mut(id) else { return false };
        let (rank, name, run) = (task.rank(), Arc::clone(&task.frame.group), task.run());
        task.claim = Claim::None;
        if let Some(run) = run {
            // A claim that needed no sync is not on record, and nobody knows its number.
            if !task.frame.repeatable {
                task.last = run;
            }
            self.tasks.runs.remove(&run);
        }
        let group = self.tasks.group_for(&name);
        group.ready.remove(&rank);
        group.claimed.remove(&rank);
        self.tasks.look_at(&name);
        run.is_some()
    }

    /// A claim is given back: its task is one of those that could be claimed again.
    fn give_back(&mut self, id: TaskId, out: &mut Out) {
        let written = self.tasks.get(id).is_some_and(|t| !t.frame.repeatable);
        self.unqueue(id);
        if written {
            self.save_attempt(id, out);
        }
        self.enqueue(id);
    }

    /// The wall clock was set, or the machine has slept: what waits for a moment of it waits longer or shorter now.
    pub(in crate::core) fn tasks_wall_set(&mut self) {
        let waits = |t: &&Task| t.state == TaskState::Queued && t.not_before.0 > 0 && t.live.is_none();
        let ids: Vec<TaskId> = self.tasks.after(TaskId(0)).filter(waits).map(|t| t.id).collect();
        for id in ids {
            self.enqueue(id);
        }
    }

    pub(super) fn plan_task(&mut self, id: TaskId) {
        let task = self.tasks.get(id);
        let timed = task.is_some_and(|t| t.state == TaskState::Queued && t.not_before > self.now.wall);
        let at = task.and_then(|t| t.deadline(self.now));
        self.tasks.timed |= timed;
        self.deadlines.set(Due::Task(id), at);
    }

    pub(in crate::core) fn task_due(&mut self, id: TaskId, out: &mut Out) {
        let now = self.now;
        let Some(task) = self.tasks.get_mut(id) else { return };
        match task.state {
            TaskState::Queued => self.enqueue(id),
            TaskState::Running | TaskState::Paused => {
                let Some(live) = task.live.as_mut() else { return };
                if live.gone.is_some() {
                    let name = name_of(id);
                    let text = format!("the end of the output of {name} has not come in time");
                    out.effects.push(Effect::Log { level: Level::Debug, text });
                    return self.task_finished(id, out);
                }
                let late = live.timeout_at.is_some_and(|at| at <= now.mono) && !live.paused;
                if late && live.end.is_none() && live.stop.is_none() {
                    self.stop_task(id, super::TaskStop::Timeout, false, out);
                } else {
                    live.sequence.tick(live.run, super::TERMS, now.mono, out);
                }
                self.plan_task(id);
            }
            TaskState::Held
            | TaskState::Succeeded
            | TaskState::Failed
            | TaskState::Cancelled
            | TaskState::TimedOut
            | TaskState::Lost => {}
        }
    }
}

impl Task {
    /// Whether its next attempt waits for nothing but a slot.
    #[must_use]
    pub fn is_claimed(&self) -> bool {
        self.claim != Claim::None
    }
}
