//! Requests that wait for tasks to be over. Pure.

use super::Task;
use crate::base::gather::Gather as _;
use crate::base::ids::{ConnId, ReqId, TaskId};
use crate::core::due::Due;
use crate::core::request::Asked;
use crate::core::{Core, Out};
use crate::protocol::methods::task::Selection;
use core::time::Duration;
use std::collections::BTreeSet;

#[derive(Debug)]
pub(super) struct TaskWait {
    req: ReqId,
    conn: ConnId,
    ids: Vec<TaskId>,
    /// Those that are not over.
    open: BTreeSet<TaskId>,
}

impl Core {
    pub(super) fn wait_for_tasks(
        &mut self,
        asked: &Asked,
        which: &Selection,
        timeout: Option<Duration>,
        out: &mut Out,
    ) {
        let ids = match self.select(asked, which) {
            Ok(ids) => ids,
            Err(e) => return self.reply(asked.req, Err(e), false, out),
        };
        let is_open = |id: &TaskId| self.tasks.get(*id).is_some_and(|t| !t.state.is_over());
        let open = ids.iter().copied().filter(is_open).gather();
        let wait = TaskWait { req: asked.req, conn: asked.conn, ids, open };
        if wait.open.is_empty() {
            return self.answer_task_wait(&wait, out);
        }
        if let Some(error) = self.safe_error() {
            return self.reply(asked.req, Err(error), false, out);
        }
        self.deadlines.set(Due::TaskWait(asked.req), timeout.map(|t| self.now.mono + t));
        self.tasks.waits.push(wait);
    }

    /// Replies to those whose tasks are all over.
    pub(super) fn answer_task_waits(&mut self, out: &mut Out) {
        let ended = core::mem::take(&mut self.tasks.ended);
        self.tell_runs(&ended);
        if ended.is_empty() || self.tasks.waits.is_empty() {
            return;
        }
        let mut waits = core::mem::take(&mut self.tasks.waits);
        for wait in &mut waits {
            for id in &ended {
                wait.open.remove(id);
            }
        }
        let (done, open) = waits.into_iter().partition(|w: &TaskWait| w.open.is_empty());
        self.tasks.waits = open;
        for wait in done {
            self.answer_task_wait(&wait, out);
        }
    }

    fn answer_task_wait(&mut self, wait: &TaskWait, out: &mut Out) {
        self.deadlines.set(Due::TaskWait(wait.req), None);
        let rows: Vec<String> =
            wait.ids.iter().filter_map(|id| self.tasks.get(*id)).map(|t: &Task| self.task_row(t).finish()).collect();
        let text = format!("{{\"tasks\":[{}],\"done\":{}}}", rows.join(","), wait.open.is_empty());
        self.reply(wait.req, Ok(text), false, out);
    }

    pub(in crate::core) fn task_wait_due(&mut self, req: ReqId, out: &mut Out) {
        if let Some(at) = self.tasks.waits.iter().position(|w| w.req == req) {
            let wait = self.tasks.waits.swap_remove(at);
            self.answer_task_wait(&wait, out);
        }
    }

    pub(in crate::core) fn forget_task_waits(&mut self, conn: ConnId) {
        let deadlines = &mut self.deadlines;
        self.tasks.waits.retain(|w| {
            if w.conn == conn {
                deadlines.set(Due::TaskWait(w.req), None);
            }
            w.conn != conn
        });
    }

    /// Nothing goes on after this: whoever still waits is told so.
    pub(in crate::core) fn fail_task_waits(&mut self, out: &mut Out) {
        for wait in core::mem::take(&mut self.tasks.waits) {
            self.deadlines.set(Due::TaskWait(wait.req), None);
            self.reply(wait.req, Err(Core::shutting_down()), false, out);
        }
    }
}
