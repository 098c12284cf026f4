//! Lists of tasks held against what must be in them, and the end of a seed: everything that can run has run.

use crate::os::{MS, Os};
use crate::plan::Verb;
use crate::tasks_ask::everything;
use crate::tasks_model::{Phase, Tasks};
use crate::world::World;
use hob::base::ids::TaskId;
use hob::core::{End, Out};
use hob::protocol::methods::Request;
use hob::protocol::methods::task::{TaskCall, TaskState};
use serde_json::Value;

type Held = Result<(), String>;

impl Tasks {
    /// The list of all tasks.
    pub fn listed(&self, os: &Os, list: &Value) -> Held {
        let rows: Vec<&Value> = list["tasks"].as_array().into_iter().flatten().collect();
        for (id, job) in &self.jobs {
            let Some(row) = rows.iter().find(|r| r["id"] == id.0) else {
                return Err(format!("task lost: task {id} is not in the list"));
            };
            let want = job.state().name();
            if row["state"] != want {
                return Err(format!("task list: task {id} is {want} ({:?}), and the list says {row}", job.phase));
            }
            let spec = (row["group"].as_str(), row["priority"].as_i64(), row["owner"].as_str());
            let words = row["command"].as_array().map(|w| w.iter().filter_map(Value::as_str).collect::<Vec<_>>());
            let same = match &job.agent {
                None => words.is_some_and(|w| w == job.words),
                Some(name) => row["agent"] == name.as_str() && row["prompt"] == job.words[0].as_str(),
            };
            if spec != (Some(&job.group), Some(job.priority.into()), Some(job.owner.as_str())) || !same {
                return Err(format!("task lost: task {id} is {job:?}, and the list says {row}"));
            }
            if row["attempts"] != job.attempts {
                return Err(format!("attempts: task {id} has had {}, and the list says {row}", job.attempts));
            }
            let (code, signal) = match job.exit.filter(|_| job.is_over()) {
                Some(End::Code(c)) => (Some(i64::from(c)), None),
                Some(End::Signal(n)) => (None, Some(i64::from(n))),
                Some(End::Unknown) | None => (None, None),
            };
            if job.is_over() && (row["exit_code"].as_i64() != code || row["signal"].as_i64() != signal) {
                return Err(format!("task end: task {id} ended as {:?}, and the list says {row}", job.exit));
            }
            if let Phase::Running(run) = job.phase
                && os.main_of(run).is_some()
                && job.paused != os.paused.contains(&run)
            {
                return Err(format!("paused: task {id} is {want}, and its processes are not"));
            }
        }
        match rows.len() {
            n if n == self.jobs.len() => Ok(()),
            n => Err(format!("task list: {n} tasks are in the list, and {} exist", self.jobs.len())),
        }
    }

    pub fn counted(&self, stats: &Value) -> Held {
        for state in TaskState::ALL {
            let count = self.jobs.values().filter(|j| j.state() == state).count();
            if stats[state.name()].as_u64() != Some(count as u64) {
                return Err(format!("task stats: {count} are {state}, and the answer is {stats}"));
            }
        }
        if stats["total"].as_u64() != Some(self.jobs.len() as u64) {
            return Err(format!("task stats: {} tasks exist, and the answer is {stats}", self.jobs.len()));
        }
        Ok(())
    }

    /// Whether a task may rest where it is after a long time without faults.
    fn rests(&self, id: TaskId, os: &Os, (now, wall): (u64, i64)) -> Held {
        let job = &self.jobs[&id];
        let group = self.group(&job.group);
        let why = match job.phase {
            Phase::Held | Phase::Over(_) => return Ok(()),
            Phase::Running(run) => {
                let program = os.runs.get(&run).map_or("", |t| crate::plan::program(&t.spec));
                let hangs = program == "hangs" && job.timeout > 150_000;
                match os.main_of(run) {
                    // Its time had come late, so that it still has some.
                    Some(_) if (now - job.begun) / MS < job.timeout.min(20_000) + 10_000 => return Ok(()),
                    Some(_) if job.paused || hangs => return Ok(()),
                    main => format!("its process is {main:?}"),
                }
            }
            Phase::Queued if job.not_before > wall || group.paused || group.parallel == 0 => return Ok(()),
            Phase::Queued => match self.follows(job) {
                // Those that it follows are judged themselves.
                Err(_) => return Ok(()),
                Ok(()) => {
                    // The first that could start decides for all behind it.
                    let before =
                        |o: &&crate::tasks_model::Job| o.group == job.group && self.is_runnable(o, u64::MAX, wall);
                    let first = self.jobs.iter().filter(|(_, o)| before(o)).min_by_key(|(id, o)| o.rank(**id));
                    let weight = first.map_or(job.weight, |(_, o)| o.weight);
                    let (running, heavy) = self.taken(&job.group, os);
                    let limit = u64::from(group.weight_limit);
                    let light = limit == 0 || running == 0 || heavy + u64::from(weight) <= limit;
                    if running >= group.parallel || !light {
                        return Ok(());
                    }
                    format!("{running} of its group run, which weigh {heavy}: {group:?}")
                }
            },
        };
        Err(format!("task liveness: task {id} is {:?}, and {why}", job.phase))
    }
}

impl World<'_> {
    /// Asks the present core for its tasks and holds them against the truth.
    pub fn probe_tasks(&mut self) {
        let (due, now) = (self.is_due(), self.clock());
        let Some(mut core) = self.core.take_if(|_| !due) else { return };
        let mut out = Out::default();
        let list =
            crate::questions::query(&mut core, now, Request::Task(Box::new(TaskCall::List(everything()))), &mut out);
        let ask = Request::ScheduleList { ids: None };
        let jobs = crate::questions::query(&mut core, now, ask, &mut out).unwrap_or_default();
        let stats = crate::questions::query(&mut core, now, Request::Task(Box::new(TaskCall::Stats)), &mut out);
        self.core = Some(core);
        let read = |answer: Result<String, _>| answer.ok().and_then(|t| serde_json::from_str(&t).ok());
        let (Some(list), Some(stats)) = (read(list), read(stats)) else { return };
        let judged = self.check.tasks.listed(&self.os, &list);
        self.require(judged);
        let judged = self.check.tasks.counted(&stats);
        self.require(judged);
        let judged = self.check.jobs.listed(self.scene(), &jobs);
        self.require(judged);
        if !out.records.is_empty() || !out.effects.is_empty() {
            self.fail(format!("task list: a question does {out:?}"));
        }
    }

    /// The faults are over and time has passed.
    pub fn tasks_verdict(&mut self) {
        self.probe_tasks();
        let at = (self.now, self.clock().wall.0);
        let ids: Vec<TaskId> = self.check.tasks.jobs.keys().copied().collect();
        for id in ids {
            let judged = self.check.tasks.rests(id, &self.os, at);
            self.require(judged);
        }
        for (ask, request) in self.clients.open_waits() {
            if ask.verb != Verb::Task {
                continue;
            }
            let Some(Request::Task(call)) = request else { continue };
            let TaskCall::Wait { which, timeout } = *call else { continue };
            let ids = self.check.tasks.select(&which).unwrap_or_default();
            let open = ids.iter().any(|id| !self.check.tasks.jobs[id].is_over());
            if timeout.is_some() || !open && which.states.is_empty() && which.group.is_none() {
                self.fail(format!("one reply: nobody answered {ask:?}"));
            }
        }
    }

    /// Whether every task has come to where nothing more can happen.
    pub fn tasks_rest(&self) -> bool {
        self.check.tasks.jobs.values().all(|j| matches!(j.phase, Phase::Over(_) | Phase::Held))
    }
}
