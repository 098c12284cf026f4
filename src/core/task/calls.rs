//! What clients ask of tasks that exist. Pure.

use super::rows::{ROWS_BYTES_MAX, Rows};
use super::{Task, TaskStop, name_of, record};
use crate::base::ids::TaskId;
use crate::base::json::Obj;
use crate::base::limits::TASK_PAGE_MAX;
use crate::base::time::{Mono, Wall};
use crate::core::due::Due;
use crate::core::request::Asked;
use crate::core::run::Client;
use crate::core::{Core, Effect, Out, Owner};
use crate::protocol::methods::LogQuery;
use crate::protocol::methods::task::{Selection, TaskCall, TaskQuery, TaskState};
use crate::protocol::rpc::{Code, RpcError};
use core::time::Duration;

/// What a change did to one task; the reason where it did nothing.
type Changed = Result<(), String>;

pub(super) fn unknown(id: TaskId) -> RpcError {
    RpcError::new(Code::NotFound, format!("there is no task {id}")).hint("`hob task list` shows those that there are")
}

/// A state in a sentence.
pub(super) fn in_words(state: TaskState) -> String {
    state.name().replace('_', " ")
}

/// The same as what is said of a task: `it is held`, `it has succeeded`.
pub(super) fn said_of(state: TaskState) -> String {
    let verb = match state {
        TaskState::Held | TaskState::Queued | TaskState::Running | TaskState::Paused | TaskState::Lost => "is",
        TaskState::Succeeded | TaskState::Failed | TaskState::TimedOut => "has",
        TaskState::Cancelled => "was",
    };
    format!("{verb} {}", in_words(state))
}

/// Whether a call changes something.
pub(in crate::core) fn changes(call: &TaskCall) -> bool {
    match call {
        TaskCall::Submit { .. }
        | TaskCall::Cancel { .. }
        | TaskCall::Retry { .. }
        | TaskCall::Hold { .. }
        | TaskCall::Release { .. }
        | TaskCall::Pause { .. }
        | TaskCall::Resume { .. }
        | TaskCall::Edit { .. }
        | TaskCall::Prioritize { .. }
        | TaskCall::Clean { .. }
        | TaskCall::Remove { .. } => true,
        TaskCall::Get { .. }
        | TaskCall::List(_)
        | TaskCall::Stats
        | TaskCall::Wait { .. }
        | TaskCall::Output { .. } => false,
    }
}

/// Whether a call ends or holds back something, or removes it.
pub(in crate::core) fn relieves(call: &TaskCall) -> bool {
    match call {
        TaskCall::Cancel { .. }
        | TaskCall::Hold { .. }
        | TaskCall::Pause { .. }
        | TaskCall::Clean { .. }
        | TaskCall::Remove { .. } => true,
        TaskCall::Submit { .. }
        | TaskCall::Retry { .. }
        | TaskCall::Release { .. }
        | TaskCall::Resume { .. }
        | TaskCall::Edit { .. }
        | TaskCall::Prioritize { .. }
        | TaskCall::Get { .. }
        | TaskCall::List(_)
        | TaskCall::Stats
        | TaskCall::Wait { .. }
        | TaskCall::Output { .. } => false,
    }
}

impl Selection {
    /// `owner` is whom its `owner` means.
    fn takes(&self, t: &Task, owner: Option<&Owner>) -> bool {
        let label = |(name, value): &(String, Option<String>)| {
            let of = t.frame.labels.iter().find(|(n, _)| n == name);
            of.is_some_and(|(_, v)| value.as_ref().is_none_or(|wanted| wanted == v))
        };
        !self.nothing
            && self.group.as_deref().is_none_or(|g| g == &*t.frame.group)
            && (self.states.is_empty() || self.states.contains(&t.state))
            && self.label.as_ref().is_none_or(label)
            && owner.is_none_or(|o| *o == t.frame.owner)
            && (self.ids.is_empty() || self.names(t.id))
    }

    fn names(&self, id: TaskId) -> bool {
        let at = self.ids.partition_point(|(_, last)| *last < id);
        self.ids.get(at).is_some_and(|(first, _)| *first <= id)
    }
}

impl Core {
    pub(in crate::core) fn task_call(&mut self, asked: &Asked, call: TaskCall, out: &mut Out) {
        let req = asked.req;
        let client = asked.client();
        match call {
            TaskCall::Submit { specs, many } => self.submit(asked, specs, many, out),
            TaskCall::Get { id } => {
                let answer = self.task_json(id);
                self.reply(req, answer, false, out);
            }
            TaskCall::List(query) => {
                let answer = self.task_page(asked, &query);
                self.reply(req, Ok(answer), false, out);
            }
            TaskCall::Stats => self.reply(req, Ok(self.task_stats()), false, out),
            TaskCall::Cancel { which, force } => {
                self.each(asked, &which, |core, id, out| core.cancel(id, client.clone(), force, out), out);
            }
            TaskCall::Retry { which } => self.each(asked, &which, |core, id, out| core.retry(id, out), out),
            TaskCall::Hold { which } => {
                self.each(asked, &which, |core, id, out| core.hold(id, Some(&client), out), out);
            }
            TaskCall::Release { which } => {
                self.each(asked, &which, |core, id, out| core.hold(id, None, out), out);
            }
            TaskCall::Pause { which } => self.each(asked, &which, |core, id, out| core.pause(id, true, out), out),
            TaskCall::Resume { which } => self.each(asked, &which, |core, id, out| core.pause(id, false, out), out),
            TaskCall::Edit { id, edit } => {
                let answer = self.edit_task(id, &asked.peer, *edit, out);
                self.reply(req, answer, true, out);
            }
            TaskCall::Prioritize { which, priority } => {
                self.each(asked, &which, |core, id, out| core.prioritize(id, priority, out), out);
            }
            TaskCall::Wait { which, timeout } => self.wait_for_tasks(asked, &which, timeout, out),
            TaskCall::Output { id, lines, follow, from } => self.output_of(asked, id, (lines, follow, from), out),
            TaskCall::Clean { which, age } => self.clean(asked, &which, age, out),
            TaskCall::Remove { which } => self.each(asked, &which, |core, id, out| core.remove_task(id, out), out),
        }
    }

    /// The tasks of a selection, in the order of their ids; each id that was named alone must exist.
    pub(super) fn selected<'a>(
        &'a self,
        asked: &Asked,
        which: &'a Selection,
    ) -> Result<impl Iterator<Item = &'a Task>, RpcError> {
        let alone = which.ids.iter().filter(|(first, last)| first == last).map(|(id, _)| *id);
        if let Some(id) = alone.into_iter().find(|id| self.tasks.get(*id).is_none()) {
            return Err(unknown(id));
        }
        let ranges = if which.ids.is_empty() { vec![(TaskId(1), TaskId(u64::MAX))] } else { which.ids.clone() };
        let owner = which.owner.as_ref().map(|of| asked.peer.meant(of));
        let of = |(first, last): (TaskId, TaskId)| self.tasks.all.range(first..=last).map(|(_, t)| &**t);
        Ok(ranges.into_iter().flat_map(of).filter(move |t| which.takes(t, owner.as_ref())))
    }

    pub(super) fn select(&self, asked: &Asked, which: &Selection) -> Result<Vec<TaskId>, RpcError> {
        Ok(self.selected(asked, which)?.map(|t| t.id).collect())
    }

    /// Does something to each task of a selection, and answers what came of it.
    pub(super) fn each(
        &mut self,
        asked: &Asked,
        which: &Selection,
        mut change: impl FnMut(&mut Core, TaskId, &mut Out) -> Changed,
        out: &mut Out,
    ) {
        let ids = match self.select(asked, which) {
            Ok(ids) => ids,
            Err(e) => return self.reply(asked.req, Err(e), false, out),
        };
        let (mut rows, mut changed) = (Rows::default(), 0);
        let all = |core: &mut Core, out: &mut Out| {
            for id in ids {
                let done = change(core, id, out);
                changed += u64::from(done.is_ok());
                rows.push(id, done.is_err(), || {
                    let mut o = Obj::new();
                    let state = core.tasks.get(id).map_or("removed", |task| task.state.name());
                    o.u64("id", id.0).str("state", state).bool("changed", done.is_ok());
                    o.opt_str("message", done.err().as_deref());
                    o.finish()
                });
            }
        };
        self.at_once(all, out);
        self.keep_runs(out);
        self.tasks.forget_groups();
        let (rows, left_out) = rows.finish();
        let mut o = Obj::new();
        o.raw("tasks", &rows).u64("changed", changed);
        o.u64("left_out", left_out);
        self.reply(asked.req, Ok(o.finish()), !self.journal_full, out);
    }

    /// The numbers of runs are not given again either, when no task is left that names a higher one.
    fn keep_runs(&mut self, out: &mut Out) {
        let dropped = core::mem::take(&mut self.tasks.dropped_run);
        if dropped > 0 && dropped > self.tasks.newest_run() {
            self.save_meta(out);
        }
    }

    pub(in crate::core) fn cancel(&mut self, id: TaskId, client: Client, force: bool, out: &mut Out) -> Changed {
        let now = self.now.wall;
        let Some(task) = self.tasks.get_mut(id) else { return Err("it is gone".to_owned()) };
        match task.state {
            TaskState::Held | TaskState::Queued => {
                task.why = Some(format!("by {}", client.text()).into());
                task.over = Some(now);
                self.unqueue(id);
                self.rest(id, TaskState::Cancelled, out);
                Ok(())
            }
            TaskState::Running | TaskState::Paused if !task.has_slot() => Err("it has just ended".to_owned()),
            TaskState::Running | TaskState::Paused => {
                let first = self.stop_task(id, TaskStop::Client(client), force, out);
                if first || force { Ok(()) } else { Err("it is being cancelled already".to_owned()) }
            }
            state @ (TaskState::Succeeded
            | TaskState::Failed
            | TaskState::Cancelled
            | TaskState::TimedOut
            | TaskState::Lost) => Err(format!("it {} already", said_of(state))),
        }
    }

    fn retry(&mut self, id: TaskId, out: &mut Out) -> Changed {
        let Some(task) = self.tasks.get(id) else { return Err("it is gone".to_owned()) };
        if !task.state.is_over() {
            return Err(format!("it {}", said_of(task.state)));
        }
        let after = task.after.clone();
        if let Some((before, state)) = self.failed_before(&after) {
            let state = in_words(state);
            return Err(format!(
                "it follows task {before}, which is over without success ({state}); retry {before} as well"
            ));
        }
        let Some(task) = self.tasks.get_mut(id) else { return Err("it is gone".to_owned()) };
        task.fails = 0;
        task.why = None;
        task.over = None;
        (task.again_at, task.again) = (Wall(0), Mono(0));
        self.tasks.set_state(id, TaskState::Queued);
        // It may have been held before it was cancelled, and is not any more.
        self.save_task(id, out);
        self.save_attempt(id, out);
        self.follow_others(id);
        self.block_followers(id, out);
        self.emit_task("task.queued", id, "", out);
        self.enqueue(id);
        Ok(())
    }

    /// `by`: who holds it; without one it is released.
    fn hold(&mut self, id: TaskId, by: Option<&Client>, out: &mut Out) -> Changed {
        let (from, to) = match by {
            Some(_) => (TaskState::Queued, TaskState::Held),
            None => (TaskState::Held, TaskState::Queued),
        };
        let Some(task) = self.tasks.get(id) else { return Err("it is gone".to_owned()) };
        if task.state != from || task.live.is_some() {
            return Err(format!("it {}", said_of(task.state)));
        }
        self.unqueue(id);
        if let Some(task) = self.tasks.get_mut(id) {
            task.why = by.map(|client| format!("by {}", client.text()).into());
        }
        if by.is_none() {
            self.trust(id, out);
        }
        // After the reason, so that one without is ordinary again.
        self.tasks.set_state(id, to);
        self.save_waiting(id, out);
        self.emit_task(if by.is_some() { "task.held" } else { "task.released" }, id, "", out);
        self.enqueue(id);
        Ok(())
    }

    /// Of a claim that it has lost, too.
    pub(super) fn save_waiting(&mut self, id: TaskId, out: &mut Out) {
        self.save_task(id, out);
        if self.tasks.get(id).is_some_and(record::has_attempt) {
            self.save_attempt(id, out);
        }
    }

    fn pause(&mut self, id: TaskId, pause: bool, out: &mut Out) -> Changed {
        if self.pause_task(id, pause, out) {
            return Ok(());
        }
        Err(self.tasks.get(id).map_or("it is gone".to_owned(), |t| format!("it {}", said_of(t.state))))
    }

    fn prioritize(&mut self, id: TaskId, priority: i32, out: &mut Out) -> Changed {
        let Some(task) = self.tasks.get(id) else { return Err("it is gone".to_owned()) };
        if !matches!(task.state, TaskState::Held | TaskState::Queued) || task.live.is_some() {
            return Err(format!("it {}", said_of(task.state)));
        }
        self.unqueue(id);
        if let Some(task) = self.tasks.get_mut(id) {
            task.priority = priority;
        }
        self.save_waiting(id, out);
        self.enqueue(id);
        Ok(())
    }

    fn remove_task(&mut self, id: TaskId, out: &mut Out) -> Changed {
        let Some(task) = self.tasks.get(id) else { return Err("it is gone".to_owned()) };
        if task.live.is_some() {
            return Err(format!("it {}; cancel it first", said_of(task.state)));
        }
        if !task.state.is_over()
            && let Some(of) = self.tasks.followers.get(&id)
            && let Some(follower) = of.first()
        {
            return Err(format!("task {follower} follows it"));
        }
        // The record of a claim has to go with the task.
        if !task.state.is_over() && self.unqueue(id) {
            out.records.push(record::attempt_gone(id));
        }
        self.drop_task(id, out);
        Ok(())
    }

    /// Removes what is known of a task, and its output.
    fn drop_task(&mut self, id: TaskId, out: &mut Out) {
        let Some(task) = self.tasks.all.remove(&id) else { return };
        self.tasks.counts[task.state as usize] -= 1;
        if task.state == TaskState::Queued {
            self.tasks.group_for(&task.frame.group).queued -= 1;
        }
        self.bury_keys(&task, out);
        self.deadlines.set(Due::Task(id), None);
        self.tasks.unfollow(id, &task.after);
        self.tasks.followers.remove(&id);
        out.records.push(record::task_gone(id));
        if record::has_attempt(&task) {
            out.records.push(record::attempt_gone(id));
        }
        // The newest number is not given again, whatever is removed.
        if id.0 + 1 == self.tasks.next {
            self.save_meta(out);
        }
        self.tasks.dropped_run = self.tasks.dropped_run.max(task.last.0);
        if task.attempts > 0 {
            out.effects.push(Effect::Discard { service: name_of(id) });
        }
        self.tasks.ended.push(id);
    }

    fn clean(&mut self, asked: &Asked, which: &Selection, age: Duration, out: &mut Out) {
        let now = self.now.wall;
        let old = |t: &Task| {
            let ended = t.ended().unwrap_or(t.submitted);
            t.state.is_over() && now.since(ended) >= age
        };
        let ids = match self.select(asked, which) {
            Ok(ids) => ids.into_iter().filter(|id| self.tasks.get(*id).is_some_and(old)).collect::<Vec<_>>(),
            Err(e) => return self.reply(asked.req, Err(e), false, out),
        };
        for id in &ids {
            self.drop_task(*id, out);
        }
        self.keep_runs(out);
        self.tasks.forget_groups();
        self.reply(asked.req, Ok(format!("{{\"removed\":{}}}", ids.len())), !self.journal_full, out);
    }

    fn output_of(&mut self, asked: &Asked, id: TaskId, how: (usize, bool, Option<u64>), out: &mut Out) {
        let (lines, follow, from) = how;
        let Some(task) = self.tasks.get(id) else {
            return self.reply(asked.req, Err(unknown(id)), false, out);
        };
        let name = name_of(id).to_string();
        let query = LogQuery {
            from: from.map(|at| (name.clone(), at)).into_iter().collect(),
            names: vec![name],
            lines,
            // What is over writes nothing more.
            follow: follow && !task.state.is_over(),
            since: None,
            until: None,
            stream: None,
            marks: false,
        };
        out.effects.push(Effect::Logs { req: asked.req, conn: asked.conn, query });
    }

    fn task_page(&self, asked: &Asked, query: &TaskQuery) -> String {
        let owner = query.selection.owner.as_ref().map(|of| asked.peer.meant(of));
        let limit = query.limit.clamp(1, TASK_PAGE_MAX);
        let all = self.tasks.after(query.after).filter(|t| query.selection.takes(t, owner.as_ref()));
        let mut room = ROWS_BYTES_MAX;
        let mut page: Vec<(TaskId, String)> = Vec::new();
        let mut more = false;
        let mut take = |t: &Task| {
            let row = self.task_row(t, false).finish();
            // One row is given however large it is, so that a list goes on.
            more = page.len() == limit || (row.len() > room && !page.is_empty());
            if !more {
                room = room.saturating_sub(row.len());
                page.push((t.id, row));
            }
            more
        };
        if query.last {
            let _ = all.rev().any(&mut take);
            page.reverse();
            more = false;
        } else {
            let _ = all.into_iter().any(&mut take);
        }
        let next = page.last().filter(|_| more).map_or("null".to_owned(), |(id, _)| id.to_string());
        let rows: Vec<String> = page.into_iter().map(|(_, row)| row).collect();
        format!("{{\"tasks\":[{}],\"next\":{next}}}", rows.join(","))
    }

    pub(in crate::core) fn task_stats(&self) -> String {
        let mut o = Obj::new();
        o.u64("total", u64::try_from(self.tasks.len()).unwrap_or(u64::MAX));
        for state in TaskState::ALL {
            o.u64(state.name(), self.tasks.count(state));
        }
        o.finish()
    }
}
