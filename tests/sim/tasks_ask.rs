//! Clients that ask about tasks: what the plan leaves to chance becomes a request about tasks that exist.

use crate::plan::{Ask, Verb};
use crate::tasks_model::Tasks;
use crate::tasks_plan::{EditPlan, GROUPS, TaskAsk, TaskPlan, Which};
use crate::world::World;
use core::time::Duration;
use hob::base::ids::TaskId;
use hob::protocol::methods::Request;
use hob::protocol::methods::task::{
    After, GroupCall, Selection, TaskCall, TaskEdit, TaskQuery, TaskSpec, TaskState, Work,
};

/// A request about tasks, with its key and what that stands for, and the user who asks.
pub type Question = (Request, Option<(String, u64)>, u32);

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

impl Tasks {
    fn pick(&self, n: u64) -> TaskId {
        let at = usize::try_from(n % (self.jobs.len().max(1) as u64)).unwrap_or(0);
        self.jobs.keys().nth(at).copied().unwrap_or(TaskId(1))
    }

    fn after(&self, after: &[(u64, bool)]) -> Vec<After> {
        after.iter().map(|(n, any)| After { id: self.pick(*n), any: *any }).collect()
    }

    fn selection(&self, which: &Which) -> Selection {
        let mut s = Selection::default();
        match which {
            Which::One(n) => s.ids = vec![(self.pick(*n), self.pick(*n))],
            Which::Range(n, more) => {
                // A range of one would name a task that has to exist.
                let first = self.pick(*n);
                s.ids = vec![(first, TaskId(first.0 + 1 + more))];
            }
            Which::Group(name) => s.group = Some(name.clone()),
            Which::States(states) => s.states.clone_from(states),
            Which::Unknown => s.ids = vec![(TaskId(999_999), TaskId(999_999))],
        }
        s
    }

    /// The tasks of a selection; `None`: one that it names does not exist.
    pub fn select(&self, which: &Selection) -> Option<Vec<TaskId>> {
        if which.ids.iter().any(|(first, last)| first == last && !self.jobs.contains_key(first)) {
            return None;
        }
        let takes = |(id, job): &(&TaskId, &crate::tasks_model::Job)| {
            which.group.as_ref().is_none_or(|g| *g == job.group)
                && (which.states.is_empty() || which.states.contains(&job.state()))
                && (which.ids.is_empty() || which.ids.iter().any(|(first, last)| (first..=last).contains(id)))
        };
        Some(self.jobs.iter().filter(takes).map(|(id, _)| *id).collect())
    }

    fn spec(&self, p: &TaskPlan) -> TaskSpec {
        TaskSpec {
            work: match p.agent {
                Some(name) => Work::Agent { name: Some(name.into()), prompt: format!("do {}", p.mark) },
                None => Work::Command(vec!["sim".into(), p.work.into(), p.mark.to_string()]),
            },
            cwd: None,
            env: Vec::new(),
            umask: None,
            // An agent has a group of its own.
            group: Some(p.group.clone()).filter(|_| p.agent.is_none() || p.mark.is_multiple_of(2)),
            priority: p.priority,
            after: self.after(&p.after),
            delay: p.delay.map(ms),
            at: None,
            timeout: p.timeout.map(ms),
            retries: p.retries,
            backoff: p.backoff.map(ms),
            stdin: None,
            labels: Vec::new(),
            key: p.key.clone(),
            hold: p.hold,
            weight: p.weight,
            max_output: None,
            runner: p.runner.map(Into::into),
            repeatable: p.repeatable,
            hob_fd: false,
        }
    }

    fn task_edit(&self, e: &EditPlan) -> TaskEdit {
        TaskEdit {
            priority: e.priority,
            group: e.group.clone(),
            after: e.after.as_ref().map(|a| self.after(a)),
            delay: e.delay.map(ms),
            retries: e.retries,
            weight: e.weight,
            timeout: e.timeout.map(ms),
            ..TaskEdit::default()
        }
    }

    pub fn request(&self, ask: &TaskAsk) -> Request {
        let which = |which: &Which| self.selection(which);
        let call = match ask {
            TaskAsk::Submit { specs, many } => {
                TaskCall::Submit { specs: specs.iter().map(|s| self.spec(s)).collect(), many: *many }
            }
            TaskAsk::Cancel { which: w, force } => TaskCall::Cancel { which: which(w), force: *force },
            TaskAsk::Retry { which: w } => TaskCall::Retry { which: which(w) },
            TaskAsk::Hold { which: w } => TaskCall::Hold { which: which(w) },
            TaskAsk::Release { which: w } => TaskCall::Release { which: which(w) },
            TaskAsk::Pause { which: w } => TaskCall::Pause { which: which(w) },
            TaskAsk::Resume { which: w } => TaskCall::Resume { which: which(w) },
            TaskAsk::Prioritize { which: w, priority } => TaskCall::Prioritize { which: which(w), priority: *priority },
            TaskAsk::Edit { pick, edit } => {
                TaskCall::Edit { id: self.pick(*pick), edit: Box::new(self.task_edit(edit)) }
            }
            TaskAsk::Wait { which: w, timeout } => TaskCall::Wait { which: which(w), timeout: timeout.map(ms) },
            TaskAsk::Clean { which: w, old } => {
                let age = if *old { Duration::from_secs(360_000) } else { Duration::ZERO };
                TaskCall::Clean { which: which(w), age }
            }
            TaskAsk::Remove { which: w } => TaskCall::Remove { which: which(w) },
            TaskAsk::Get { pick } => TaskCall::Get { id: self.pick(*pick) },
            TaskAsk::List => TaskCall::List(everything()),
            TaskAsk::Stats => TaskCall::Stats,
            TaskAsk::GroupSet { name, parallel, weight_limit, remove } => {
                let (parallel, weight_limit) = (*parallel, *weight_limit);
                let call = GroupCall::Set { name: name.clone(), parallel, weight_limit, remove: *remove };
                return Request::Group(call);
            }
            TaskAsk::GroupPause { name, running } => {
                return Request::Group(GroupCall::Pause { name: name.clone(), running: *running });
            }
            TaskAsk::GroupResume { name, running } => {
                return Request::Group(GroupCall::Resume { name: name.clone(), running: *running });
            }
            TaskAsk::GroupList => return Request::Group(GroupCall::List),
        };
        Request::Task(Box::new(call))
    }
}

pub fn everything() -> TaskQuery {
    TaskQuery { selection: Selection::default(), after: TaskId(0), limit: 10_000, last: false }
}

/// Whether it changes something, so that its answer is a promise.
pub fn changes(request: &Request) -> bool {
    match request {
        Request::Task(call) => !matches!(
            **call,
            TaskCall::Get { .. }
                | TaskCall::List(_)
                | TaskCall::Stats
                | TaskCall::Wait { .. }
                | TaskCall::Output { .. }
        ),
        Request::Group(call) => *call != GroupCall::List,
        Request::ScheduleRun { .. } | Request::SchedulePause { .. } => true,
        _ => false,
    }
}

impl World<'_> {
    /// The faults are over: groups and tasks that were paused go on.
    pub fn resume_tasks(&mut self) {
        let all = Which::States(vec![TaskState::Paused]);
        let groups = GROUPS.iter().map(|name| TaskAsk::GroupResume { name: (*name).to_owned(), running: true });
        let sets = GROUPS.iter().map(|name| TaskAsk::GroupSet {
            name: (*name).to_owned(),
            parallel: Some(2),
            weight_limit: None,
            remove: false,
        });
        for task in groups.chain(sets).chain([TaskAsk::Resume { which: all }]) {
            self.ask(0, Ask { task: Some(task), ..Ask::new(Verb::Task) });
        }
    }
}
