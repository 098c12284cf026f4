//! Tasks of an earlier daemon: what the journal says, what the run table says, and what follows from both. Pure.

use super::gone::GONE;
use super::record::{self, ATTEMPT, AttemptRecord, GROUP, GroupRecord, TASK, TaskRecord};
use super::run::REPEATABLE;
use super::{Claim, Live, Outcome, Task, TaskStop};
use crate::base::gather::Gather as _;
use crate::base::ids::{RunId, TaskId};
use crate::base::json::Obj;
use crate::base::time::{Mono, Now, Wall};
use crate::config::Level;
use crate::core::record::{ASIDE, Entity, Meta, parse};
use crate::core::run::Ended;
use crate::core::service::boot::same_boot;
use crate::core::{Core, Effect, Out, Survivor, TableRun, UNKNOWN_PID};
use crate::protocol::methods::task::{After, TaskState};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Numbers of tasks that are found without a record count below this.
const TASKS_END: u64 = 1 << 53;

/// The longest wait after starts that the machine refused.
const REFUSED_MAX: Duration = Duration::from_secs(26);

/// A claim that has no end on record.
#[derive(Debug)]
pub(super) struct Open {
    id: TaskId,
    run: RunId,
    keeper: String,
    begun: Option<Now>,
    stop: Option<TaskStop>,
    paused: bool,
    left: Option<Duration>,
    until: Option<Mono>,
}

const MAY_HAVE_RUN: &str = "so it may have run already";

/// Under which key a record is kept that cannot be read.
fn aside(record: &Entity) -> String {
    format!("{ASIDE}{}", record.key)
}

impl Core {
    /// Reads tasks, attempts and groups. Answers what is not understood, with the reasons.
    pub(in crate::core) fn restore_tasks(&mut self, entities: Vec<Entity>) -> Vec<(Entity, String)> {
        let mut aside = Vec::new();
        // What was read goes when all is: no task lies in a hole of it and keeps the rest from being given back.
        let mut done = Vec::with_capacity(entities.len());
        let mut attempts: BTreeMap<TaskId, (AttemptRecord, Entity)> = BTreeMap::new();
        for e in entities {
            let (kind, name) = e.key.split_once('/').unwrap_or_default();
            let json = e.json.as_deref().unwrap_or_default();
            // Whatever can be read of it, its number is taken.
            if let (TASK | ATTEMPT, Some(id)) = (kind, record::id_of(name)) {
                self.tasks.next = self.tasks.next.max(id.0.saturating_add(1));
            }
            let problem = match (kind, record::id_of(name)) {
                (TASK, Some(id)) => self.restore_task(id, json),
                (ATTEMPT, Some(id)) => match parse(json) {
                    Ok(record) => {
                        attempts.insert(id, (record, e));
                        continue;
                    }
                    Err(why) => Err(why),
                },
                (GONE, Some(id)) => self.restore_gone(id, json),
                (GROUP, _) => parse::<GroupRecord>(json).map(|r| {
                    self.tasks.groups.entry(name.into()).or_default().change = r.change;
                }),
                _ => Err("its number cannot be read".to_owned()),
            };
            match problem {
                Ok(()) => done.push(e),
                Err(why) => aside.push((e, why)),
            }
        }
        for (id, (record, e)) in attempts {
            if self.tasks.get(id).is_none() {
                aside.push((e, "it belongs to no task".to_owned()));
                continue;
            }
            self.restore_attempt(id, record);
            done.push(e);
        }
        aside
    }

    fn restore_task(&mut self, id: TaskId, json: &str) -> Result<(), String> {
        let record: TaskRecord<'_> = parse(json)?;
        let task = record.restore(id, |frame| self.tasks.share(frame)).ok_or("it does not say what to run")?;
        let group = Arc::clone(&task.frame.group);
        self.tasks.group_for(&group);
        self.take_in(task, false);
        Ok(())
    }

    fn restore_gone(&mut self, id: TaskId, json: &str) -> Result<(), String> {
        let gone = self.tasks.gone.restore(self.now, id, json)?;
        let hashes = super::submit::hashes(&gone.owner, &gone.keys);
        self.tasks.by_key.extend(hashes.map(|hash| (hash, id)));
        Ok(())
    }

    fn restore_attempt(&mut self, id: TaskId, record: AttemptRecord) {
        if let Some(state) = record.state {
            self.tasks.set_state(id, state);
        }
        let now = self.now;
        let Some(task) = self.tasks.get_mut(id) else { return };
        task.attempts = record.n;
        task.fails = record.fails;
        task.last = record.last.unwrap_or_default();
        task.why = record.why;
        task.outcome = record.outcome;
        if record.over.is_some() {
            task.over = record.over;
        }
        task.again_at = Wall(record.again_at);
        // The clock may have been set back since; no wait is longer than the longest of its kind.
        let longest = task.delay().max(REFUSED_MAX);
        task.again = now.mono + task.again_at.since(now.wall).min(longest);
        if let (None, Some(run), Some(keeper)) = (record.state, record.run, record.keeper) {
            let begun = record.begun.map(|(mono, wall)| Now { mono: Mono(mono), wall: Wall(wall) });
            // The claimed attempt is counted when it begins.
            task.attempts = record.n.saturating_sub(1);
            let (stop, paused) = (record.stop, record.paused);
            let (left, until) = (record.left.map(Duration::from_nanos), record.until.map(Mono));
            self.tasks.open.push(Open { id, run, keeper, begun, stop, paused, left, until });
        }
    }

    /// Output of a task that is lost must not be taken for that of a later one, nor an event that tells of it. The
    /// journal is written before either, so that a number beyond what it knows means that its end is lost. Answers
    /// whether records that were on disk are missing. That one began is a proof, as its records were there before; one
    /// that was but queued may have lost them with the power before anybody was promised anything.
    pub(in crate::core) fn number_tasks(
        &mut self,
        meta: Option<&Meta>,
        newest_output: u64,
        is_known: bool,
        out: &mut Out,
    ) -> bool {
        self.tasks.unused = self.tasks.next.max(meta.map_or(1, |m| m.next_task));
        let (told, begun) = self.newest_told();
        let newest = newest_output.max(told).min(TASKS_END);
        self.tasks.next = self.tasks.unused.max(newest.saturating_add(1));
        let mut lost = self.gap;
        if is_known && newest >= self.tasks.unused {
            self.gap = true;
            lost |= newest_output.max(begun) >= self.tasks.unused;
            let (first, which) = (self.tasks.unused, if newest == self.tasks.unused { "task" } else { "tasks up to" });
            let text = format!(
                "the journal knows of no task from {first} on, and output or events tell of {which} {newest}: \
                 records at its end are lost, of what these tasks were and of what was decided at that time"
            );
            out.effects.push(Effect::Log { level: Level::Error, text });
        }
        // It is told until hob is started anew, and holds nothing that was submitted since.
        self.gap |= meta.is_some_and(|m| m.gap && m.keeper == self.facts.keeper);
        lost
    }

    /// The highest number of a task that an event tells of, and of one that an event says has begun; 0 where none does.
    fn newest_told(&self) -> (u64, u64) {
        let last = |(kind, name, line): (&str, &str, &str)| {
            let id = super::of_name(name)?.0;
            // A list of tasks is told by its first.
            let count =
                line.split_once(",\"count\":").and_then(|(_, rest)| rest.split([',', '}']).next()?.parse().ok());
            Some((id.saturating_add(count.unwrap_or(1_u64).max(1) - 1), if kind == "task.started" { id } else { 0 }))
        };
        let highest = |(a, b): (u64, u64), (c, d): (u64, u64)| (a.max(c), b.max(d));
        self.events.named(super::NAME).filter_map(last).fold((0, 0), highest)
    }

    /// The highest run number that a task names.
    pub(in crate::core) fn newest_claim(&self) -> u64 {
        self.tasks.open.iter().map(|c| c.run.0).max().unwrap_or(0).max(self.tasks.newest_run())
    }

    /// Brings claims without an end together with the run table and with what was found running, which are taken out
    /// of both. Answers how many runs go on. `gap`: records are missing, so what waits may have run already.
    pub(in crate::core) fn meet_tasks(
        &mut self,
        table: &mut Vec<TableRun>,
        leftovers: &mut Vec<(RunId, Vec<Survivor>)>,
        lost: bool,
        out: &mut Out,
    ) -> u64 {
        let mut adopted = 0;
        let (void, open) = core::mem::take(&mut self.tasks.open).into_iter().partition(|open| {
            let slot = table.iter().find(|t| t.run == open.run);
            let began = slot.is_some_and(|s| s.pid.is_some() || s.exec_error.is_some());
            let left = leftovers.iter().any(|(run, _)| *run == open.run);
            !began && (slot.is_some() || self.never_began(open) && !left)
        });
        let (void, open): (Vec<Open>, Vec<Open>) = (void, open);
        for open in void {
            if let Some(at) = table.iter().position(|t| t.run == open.run) {
                table.swap_remove(at);
                out.effects.push(Effect::Forget { run: open.run });
            }
            leftovers.retain(|(run, _)| *run != open.run);
            self.void_claim(open.id, open.run, out);
        }
        // What follows from the end of one below reaches those that follow it, but none that has begun itself.
        let again = |o: &&Open| {
            self.tasks.get(o.id).is_some_and(|t| t.frame.repeatable) && table.iter().all(|t| t.run != o.run)
        };
        let begun: BTreeSet<TaskId> = open.iter().filter(|o| !again(o)).map(|o| o.id).collect();
        for id in self.tasks.all.keys().copied().filter(|id| !begun.contains(id)).collect::<Vec<_>>() {
            self.follow_others(id);
        }
        for open in open {
            let run = open.run;
            let slot = table.iter().position(|t| t.run == run).map(|at| table.swap_remove(at));
            let left = leftovers.iter().position(|(r, _)| *r == run).map(|at| leftovers.swap_remove(at).1);
            let left = left.unwrap_or_default();
            match slot {
                Some(slot) => {
                    adopted += u64::from(slot.ended.is_none());
                    self.adopt_task(open, slot, out);
                }
                None => self.lose(&open, left, out),
            }
        }
        for id in begun {
            self.follow_others(id);
        }
        // What is left of a task is never left on purpose, whoever came to that end before.
        let known: BTreeSet<RunId> = self.tasks.all.values().map(|t| t.last).gather();
        for (run, left) in leftovers.extract_if(.., |(run, _)| known.contains(run)).collect::<Vec<_>>() {
            self.orphan(run, false, left, out);
        }
        self.end_left_followers(out);
        self.hold_the_doubtful(lost, out);
        self.tasks.forget_groups();
        for id in self.tasks.all.keys().copied().collect::<Vec<_>>() {
            if self.tasks.get(id).is_some_and(|t| t.state == TaskState::Queued) {
                self.enqueue(id);
            }
        }
        adopted
    }

    /// Whether it is certain that the attempt of a claim has not begun. Under the same keeper a start takes a slot
    /// before anything else. In the same boot nothing that was written is lost. After a boot the disk may lack it.
    fn never_began(&self, open: &Open) -> bool {
        let same_boot = same_boot(&open.keeper, &self.facts.keeper);
        open.keeper == self.facts.keeper || (same_boot && open.begun.is_none())
    }

    /// As if it had never been claimed.
    fn void_claim(&mut self, id: TaskId, run: RunId, out: &mut Out) {
        if let Some(task) = self.tasks.get_mut(id) {
            task.last = run;
        }
        self.save_attempt(id, out);
    }

    fn lose(&mut self, open: &Open, left: Vec<Survivor>, out: &mut Out) {
        if !left.is_empty() {
            self.orphan(open.run, false, left, out);
        }
        let now = self.now.wall;
        let Some(task) = self.tasks.get_mut(open.id) else { return };
        task.attempts += 1;
        task.last = open.run;
        if open.begun.is_none() {
            task.over = Some(now);
        }
        // Of one that may never have begun there is nothing to tell.
        task.outcome = open.begun.map(|begun| {
            Box::new(Outcome {
                end: Ended::Unknown,
                started: begun.wall,
                ended: now,
                cpu_ms: 0,
                memory: 0,
                output: None,
                lines: Box::default(),
            })
        });
        let why = match open.begun {
            Some(_) => "hob and its keeper ended while it ran, and nobody saw how it ended",
            None => "the machine stopped when it was about to start, and nobody knows whether it did",
        };
        if !task.state.is_over() {
            let again = if task.frame.repeatable { REPEATABLE } else { "" };
            task.why = Some(format!("{why}{again}").into());
        }
        if task.frame.repeatable {
            return self.save_attempt(open.id, out);
        }
        self.rest(open.id, TaskState::Lost, out);
    }

    fn adopt_task(&mut self, open: Open, slot: TableRun, out: &mut Out) {
        let (id, run) = (open.id, open.run);
        let now = self.now.mono;
        let begun = open.begun.unwrap_or(self.now);
        let Some(task) = self.tasks.get_mut(id) else { return };
        task.attempts += 1;
        task.last = run;
        let timeout = task.timeout;
        let mut live = Live::new(run, begun);
        live.pid = slot.pid.filter(|pid| slot.exec_error.is_none() && *pid != UNKNOWN_PID);
        live.stop.clone_from(&open.stop);
        live.paused = open.paused && slot.ended.is_none();
        live.heard = slot.ended.is_none();
        // Time in which it was paused does not count.
        let until = open.until.unwrap_or(begun.mono + timeout);
        let until = open.left.map_or(until, |left| now + left);
        live.timeout_at = (!timeout.is_zero() && live.pid.is_some()).then_some(until);
        live.moved = open.until.is_some() || open.left.is_some();
        if live.paused {
            live.left = live.timeout_at.map(|at| at.since(now));
        }
        let state = if live.paused { TaskState::Paused } else { TaskState::Running };
        task.claim = Claim::None;
        task.live = Some(Box::new(live));
        let (name, weight) = (Arc::clone(&task.frame.group), task.weight);
        if let Some(task) = self.tasks.get(id) {
            let spec = Arc::new(self.captured(task));
            out.effects.push(Effect::LogSpec { service: super::name_of(id), spec });
        }
        self.tasks.set_state(id, state);
        self.tasks.runs.insert(run, id);
        let group = self.tasks.group_for(&name);
        group.running += 1;
        group.weight += u64::from(weight);
        if let Some(error) = slot.exec_error {
            return self.task_started(id, run, Err(error), out);
        }
        if open.paused && slot.ended.is_some() {
            // It was never stopped, or was killed while it was.
            self.save_attempt(id, out);
        }
        // The daemon before this one may have died between the record and the signal.
        if slot.ended.is_none() {
            out.effects.push(Effect::Pause { run, on: open.paused });
        }
        match slot.ended {
            Some((end, usage)) => self.task_exited(id, run, end, usage, out),
            None if open.stop.is_some() => {
                if let Some(live) = self.tasks.get_mut(id).and_then(|t| t.live.as_mut()) {
                    live.sequence.ask(run, super::TERMS, now, out);
                }
            }
            None => {}
        }
        self.plan_task(id);
    }

    /// Something that was accepted may be missing or cannot be read, the start of a task or the end of one before it
    /// among it: nothing that this is about is started before a person has seen that. `lost`: it may be about anything.
    fn hold_the_doubtful(&mut self, lost: bool, out: &mut Out) {
        if !lost && self.aside.is_empty() {
            return;
        }
        let waits = self.tasks.after(TaskId(0)).filter(|t| [TaskState::Queued, TaskState::Held].contains(&t.state));
        let held: Vec<(TaskId, String)> = waits.filter_map(|t| Some((t.id, self.doubts(t, lost)?))).gather();
        for (id, why) in held {
            let Some(task) = self.tasks.get_mut(id) else { continue };
            let was_held = task.state == TaskState::Held;
            task.why = Some(why.into());
            if !was_held {
                self.unqueue(id);
                self.tasks.set_state(id, TaskState::Held);
            }
            self.save_waiting(id, out);
            if was_held {
                continue;
            }
            let why = if lost { "a gap in the journal" } else { "a record that cannot be read" };
            let mut fields = Obj::new();
            fields.str("why", why);
            self.emit_task("task.held", id, fields.members(), out);
        }
    }

    /// A person lets a task start all the same: nobody doubts it for that again, and what could not be read does not
    /// come back over what comes of it now.
    pub(super) fn trust(&mut self, id: TaskId, out: &mut Out) {
        if self.aside.is_empty() {
            return;
        }
        let aside = aside(&record::attempt_gone(id));
        if self.aside.remove(&aside).is_some() {
            out.records.push(Entity { key: aside, json: None });
        }
        let after = self.tasks.get(id).map_or_else(Default::default, |t| t.after.clone());
        let (missing, known): (Vec<After>, Vec<After>) = after.into_iter().partition(|a| self.is_unread(a.id));
        if !missing.is_empty()
            && let Some(task) = self.tasks.get_mut(id)
        {
            task.after = known;
            self.tasks.unfollow(id, &missing);
        }
    }

    /// Whether there is a task of which only an unreadable record is known.
    fn is_unread(&self, id: TaskId) -> bool {
        self.tasks.get(id).is_none() && self.aside.contains_key(&aside(&record::task_gone(id)))
    }

    /// Why a task that waits should not start by itself, with why it is held already; `None` where that says it all.
    /// One that is repeatable may have run already.
    fn doubts(&self, t: &Task, lost: bool) -> Option<String> {
        let known = t.why.as_deref().filter(|_| t.state == TaskState::Held).unwrap_or_default();
        let begun = record::has_attempt(t);
        let unread = || !begun && self.aside.contains_key(&aside(&record::attempt_gone(t.id)));
        let mut all: Vec<String> = Vec::new();
        if !t.frame.repeatable && !known.contains(MAY_HAVE_RUN) && (lost || unread()) {
            let what = if lost { "records of the journal are missing" } else { "what has come of it cannot be read" };
            all.push(format!("{what}, {MAY_HAVE_RUN}"));
        }
        let before = t.after.iter().map(|a| a.id).find(|id| !begun && self.is_unread(*id));
        all.extend(
            before.map(|before| format!("task {before}, which it follows, cannot be read, so it may not be over")),
        );
        all.retain(|why| !known.contains(why));
        if all.is_empty() {
            return None;
        }
        // Whoever releases one that a person holds has to know of it.
        all.splice(0..0, Some(known.to_owned()).filter(|known| !known.is_empty()));
        Some(all.join("; "))
    }
}
