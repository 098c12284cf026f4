//! Requests that wait for tasks to be over. Pure.

use super::rows::Rows;
use crate::base::ids::{ConnId, ReqId, TaskId};
use crate::base::json::Obj;
use crate::base::limits::TASK_BLOCKS_WAITED_MAX;
use crate::core::due::Due;
use crate::core::request::Asked;
use crate::core::{Core, Out};
use crate::protocol::methods::task::{Selection, TaskState};
use crate::protocol::rpc::{Code, RpcError};
use core::time::Duration;

/// 64 tasks whose ids differ in the last six bits only, as sets of bits.
#[derive(Debug)]
struct Block {
    ids: u64,
    all: u64,
    open: u64,
}

#[derive(Debug)]
pub(super) struct TaskWait {
    req: ReqId,
    conn: ConnId,
    uid: u32,
    /// The tasks that are waited for, in the order of their ids.
    blocks: Vec<Block>,
    /// How many of them are not over.
    open: usize,
}

impl TaskWait {
    /// Takes in a task with a higher id than all before.
    fn push(&mut self, id: TaskId, is_open: bool) {
        let (ids, bit) = place(id);
        if self.blocks.last().is_none_or(|b| b.ids != ids) {
            self.blocks.push(Block { ids, all: 0, open: 0 });
        }
        if let Some(block) = self.blocks.last_mut() {
            block.all |= bit;
            block.open |= if is_open { bit } else { 0 };
            self.open += usize::from(is_open);
        }
    }

    fn is_over(&mut self, id: TaskId) {
        let (ids, bit) = place(id);
        if let Ok(at) = self.blocks.binary_search_by_key(&ids, |b| b.ids)
            && let Some(block) = self.blocks.get_mut(at).filter(|b| b.open & bit != 0)
        {
            block.open &= !bit;
            self.open -= 1;
        }
    }

    /// All have been over; those that somebody has retried since are waited for again.
    fn look_again(&mut self, is_open: impl Fn(TaskId) -> bool) {
        let again: Vec<TaskId> = self.ids().filter(|id| is_open(*id)).collect();
        for id in again {
            let (ids, bit) = place(id);
            if let Ok(at) = self.blocks.binary_search_by_key(&ids, |b| b.ids)
                && let Some(block) = self.blocks.get_mut(at)
            {
                block.open |= bit;
                self.open += 1;
            }
        }
    }

    fn ids(&self) -> impl Iterator<Item = TaskId> {
        let of = |b: &Block| {
            let (ids, all) = (b.ids, b.all);
            (0..64).filter(move |n| all & (1 << n) != 0).map(move |n| TaskId(ids << 6 | n))
        };
        self.blocks.iter().flat_map(of)
    }
}

/// The block of a task, and its bit there.
fn place(id: TaskId) -> (u64, u64) {
    (id.0 >> 6, 1 << (id.0 & 63))
}

impl Core {
    pub(super) fn wait_for_tasks(
        &mut self,
        asked: &Asked,
        which: &Selection,
        timeout: Option<Duration>,
        out: &mut Out,
    ) {
        let (req, conn, uid) = (asked.req, asked.conn, asked.peer.uid);
        let blocks = |w: &TaskWait| if w.uid == uid { w.blocks.len() } else { 0 };
        if self.tasks.waits.iter().map(blocks).sum::<usize>() > TASK_BLOCKS_WAITED_MAX {
            let error = RpcError::new(Code::Busy, "your requests wait for too many tasks already");
            return self.reply(req, Err(error), false, out);
        }
        let mut wait = TaskWait { req, conn, uid, blocks: Vec::new(), open: 0 };
        let taken = self.selected(asked, which).map(|all| all.for_each(|t| wait.push(t.id, !t.state.is_over())));
        if let Err(e) = taken {
            return self.reply(req, Err(e), false, out);
        }
        if wait.open == 0 {
            return self.answer_task_wait(&wait, out);
        }
        if let Some(error) = self.safe_error() {
            return self.reply(req, Err(error), false, out);
        }
        self.deadlines.set(Due::TaskWait(req), timeout.map(|t| self.now.mono + t));
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
            ended.iter().for_each(|id| wait.is_over(*id));
            if wait.open == 0 {
                wait.look_again(|id| self.tasks.get(id).is_some_and(|t| !t.state.is_over()));
            }
        }
        let (done, open) = waits.into_iter().partition(|w: &TaskWait| w.open == 0);
        self.tasks.waits = open;
        for wait in done {
            self.answer_task_wait(&wait, out);
        }
    }

    /// Of too many, rows of those that did not succeed go first.
    fn answer_task_wait(&mut self, wait: &TaskWait, out: &mut Out) {
        self.deadlines.set(Due::TaskWait(wait.req), None);
        let (mut rows, mut counts) = (Rows::default(), [0_u64; TaskState::ALL.len()]);
        for task in wait.ids().filter_map(|id| self.tasks.get(id)) {
            counts[task.state as usize] += 1;
            rows.push(task.id, task.state != TaskState::Succeeded, || self.task_row(task, false).finish());
        }
        let (rows, left_out) = rows.finish();
        let mut by_state = Obj::new();
        for state in TaskState::ALL.into_iter().filter(|s| counts[*s as usize] > 0) {
            by_state.u64(state.name(), counts[state as usize]);
        }
        let mut o = Obj::new();
        o.raw("tasks", &rows).bool("done", wait.open == 0).raw("counts", &by_state.finish());
        o.u64("left_out", left_out);
        self.reply(wait.req, Ok(o.finish()), false, out);
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
