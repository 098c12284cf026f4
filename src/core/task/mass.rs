//! Changes of many tasks by one request: their records and events are made when all are changed. What lives for a round
//! alone then leaves no holes between what stays, which would keep the memory of them from being given back. Pure.

use super::record;
use crate::base::ids::TaskId;
use crate::base::json::Obj;
use crate::core::{Core, Out};

/// What is to be recorded.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part {
    Task,
    /// What has come of it.
    Attempt,
}

/// What an event has beside the task.
#[derive(Debug)]
pub(super) enum Fields {
    Given(Box<str>),
    /// How its last attempt ended, and why it is in its state.
    Outcome,
}

/// What is to follow when all are changed.
#[derive(Debug, Default)]
pub(super) struct Later {
    records: Vec<(TaskId, Part)>,
    events: Vec<(&'static str, TaskId, Fields)>,
}

impl Core {
    /// Does one change after the other, and writes down and tells of them only then.
    pub(super) fn at_once(&mut self, change: impl FnOnce(&mut Core, &mut Out), out: &mut Out) {
        self.tasks.later = Some(Box::default());
        change(self, out);
        let Some(later) = self.tasks.later.take() else { return };
        for (id, part) in later.records {
            self.save_part(id, part, out);
        }
        for (kind, id, fields) in later.events {
            self.tell(kind, id, fields, out);
        }
    }

    pub(super) fn save_task(&mut self, id: TaskId, out: &mut Out) {
        self.save_part(id, Part::Task, out);
    }

    /// Writes down what has come of a task, or that nothing has.
    pub(super) fn save_attempt(&mut self, id: TaskId, out: &mut Out) {
        self.save_part(id, Part::Attempt, out);
    }

    fn save_part(&mut self, id: TaskId, part: Part, out: &mut Out) {
        if let Some(later) = self.tasks.later.as_mut() {
            return later.records.push((id, part));
        }
        let Some(task) = self.tasks.get(id) else { return };
        out.records.push(match part {
            Part::Task => record::task(task),
            Part::Attempt if record::has_attempt(task) => record::attempt(task, &self.facts.keeper),
            Part::Attempt => record::attempt_gone(id),
        });
    }

    pub(super) fn emit_task(&mut self, kind: &'static str, id: TaskId, fields: &str, out: &mut Out) {
        self.tell(kind, id, Fields::Given(fields.into()), out);
    }

    /// The event of an end.
    pub(super) fn emit_end(&mut self, kind: &'static str, id: TaskId, out: &mut Out) {
        self.tell(kind, id, Fields::Outcome, out);
    }

    fn tell(&mut self, kind: &'static str, id: TaskId, fields: Fields, out: &mut Out) {
        if let Some(later) = self.tasks.later.as_mut() {
            return later.events.push((kind, id, fields));
        }
        let Some(task) = self.tasks.get(id).filter(|_| self.safe.is_none()) else { return };
        let mut o = Obj::new();
        o.u64("id", id.0).str("group", &task.frame.group);
        if matches!(fields, Fields::Outcome) {
            self.tell_outcome(id, &mut o);
        }
        let mut members = o.members().to_owned();
        if let Fields::Given(more) = &fields
            && !more.is_empty()
        {
            members.push(',');
            members.push_str(more);
        }
        self.events.emit(self.now, kind, Some(&super::name_of(id)), &members, out);
    }
}
