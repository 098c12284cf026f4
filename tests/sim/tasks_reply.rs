//! What requests about tasks are answered, held against what must come of them, and what a person expects from then on.

use crate::tasks_model::{Change, Job, Phase, Scene, Tasks};
use crate::tasks_round::now_not;
use core::time::Duration;
use hob::base::ids::TaskId;
use hob::protocol::methods::Request;
use hob::protocol::methods::task::{GroupCall, Selection, TaskCall, TaskEdit, TaskSpec, TaskState, Work};
use hob::protocol::rpc::{Code, RpcError};
use serde_json::Value;
use std::collections::BTreeSet;

type Held = Result<(), String>;
type Answer = Result<String, RpcError>;

fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

fn words(spec: &TaskSpec) -> Vec<String> {
    match &spec.work {
        Work::Command(words) => words.clone(),
        Work::Agent { prompt, .. } => vec![prompt.clone()],
    }
}

/// What makes a task the same as another of the same key.
fn same(spec: &TaskSpec) -> String {
    format!("{:?} {:?}", words(spec), spec.group)
}

/// The key of a submission, with what it stands for, and how many tasks of a list.
fn own_of(specs: &[TaskSpec], many: bool) -> Option<(String, String, u32)> {
    let key = specs[0].key.clone().filter(|_| specs.iter().all(|s| s.key == specs[0].key))?;
    let what: Vec<String> = specs.iter().map(same).collect();
    let count = if many { u32::try_from(specs.len()).unwrap_or(0) } else { 0 };
    Some((key, format!("{count} {what:?}"), count))
}

impl Tasks {
    pub fn answered(
        &mut self,
        scene: Scene<'_>,
        request: &Request,
        key: Option<&(String, u64)>,
        owner: &str,
        answer: &Answer,
    ) -> Held {
        if let (Err(e), Request::Task(_) | Request::Group(_)) = (answer, request)
            && now_not(e)
            && crate::tasks_ask::changes(request)
        {
            let why = scene.journal_full || scene.stopping;
            return if why { Ok(()) } else { Err(format!("reply: a request about tasks is refused: {e:?}")) };
        }
        let call = match request {
            Request::Task(call) => call,
            Request::Group(call) => return self.group_answered(call, answer),
            _ => return Ok(()),
        };
        match &**call {
            TaskCall::Submit { specs, many } => self.submitted(scene, specs, *many, (key, owner), answer),
            TaskCall::Edit { id, edit } => self.edited(scene, *id, edit, answer),
            TaskCall::List(_) => match answer {
                Ok(json) => self.listed(scene.os, &serde_json::from_str(json).unwrap_or_default()),
                Err(e) => Err(format!("task list: {e:?}")),
            },
            TaskCall::Stats => match answer {
                Ok(json) => self.counted(&serde_json::from_str(json).unwrap_or_default()),
                Err(e) => Err(format!("task stats: {e:?}")),
            },
            TaskCall::Get { id } if answer.is_ok() != self.jobs.contains_key(id) => {
                Err(format!("task lost: {id} is answered {answer:?}"))
            }
            TaskCall::Get { .. } | TaskCall::Output { .. } => Ok(()),
            TaskCall::Wait { which, .. } => self.waited(which, answer, true),
            TaskCall::Clean { which, age } => self.cleaned(which, *age, answer),
            TaskCall::Cancel { which, .. }
            | TaskCall::Retry { which }
            | TaskCall::Hold { which }
            | TaskCall::Release { which }
            | TaskCall::Pause { which }
            | TaskCall::Resume { which }
            | TaskCall::Prioritize { which, .. }
            | TaskCall::Remove { which } => self.changed(call, which, answer),
        }
    }

    /// Whether the answer is that of a task which was removed and whose key counts still.
    fn is_buried(
        &self,
        specs: &[TaskSpec],
        many: bool,
        (key, owner): (Option<&(String, u64)>, &str),
        (answer, ids): (&Answer, &[u64]),
    ) -> bool {
        let answers = |equal: bool, first: u64, count: u32| match answer {
            Ok(_) => equal && ids.iter().copied().eq(first..first + u64::from(count.max(1))),
            Err(e) => !equal && e.code == Code::Conflict,
        };
        let of = |id: &TaskId, job: &Job| {
            let request = key.zip(job.request.as_ref()).filter(|((text, _), r)| r.0 == *text);
            let own = own_of(specs, many).zip(job.own.as_ref()).filter(|(asked, own)| asked.0 == own.0);
            request.is_some_and(|((_, hash), r)| answers(r.1 == *hash, id.0, r.2))
                || own.is_some_and(|(asked, own)| answers(asked.1 == own.1, id.0, own.2))
        };
        self.removed.iter().any(|(id, job)| job.owner == owner && of(id, job))
    }

    fn submitted(
        &mut self,
        scene: Scene<'_>,
        specs: &[TaskSpec],
        many: bool,
        who: (Option<&(String, u64)>, &str),
        answer: &Answer,
    ) -> Held {
        let (key, owner) = who;
        let ids: Vec<u64> = match answer {
            Ok(json) => {
                let v: Value = serde_json::from_str(json).unwrap_or_default();
                let ids = if many { v["ids"].as_array().cloned() } else { Some(vec![v["id"].clone()]) };
                ids.into_iter().flatten().filter_map(|id| id.as_u64()).collect()
            }
            Err(_) => Vec::new(),
        };
        if let Some((text, hash)) = key {
            let of = |j: &&Job| j.owner == owner && j.request.as_ref().is_some_and(|r| r.0 == *text);
            let known = self.jobs.iter().find(|(_, j)| of(j));
            if let Some((id, job)) = known {
                let (_, old, count) = job.request.clone().unwrap_or_default();
                let want: Vec<u64> = (id.0..id.0 + u64::from(count.max(1))).collect();
                return match answer {
                    Ok(_) if old == *hash && ids == want => Ok(()),
                    Err(e) if old != *hash && e.code == Code::Conflict => Ok(()),
                    _ => Err(format!("task keys: key {text:?} is that of {want:?}, and is answered {answer:?}")),
                };
            }
        }
        if self.is_buried(specs, many, who, (answer, &ids)) {
            return Ok(());
        }
        let own = own_of(specs, many);
        if let Some((text, what, _)) = &own {
            let of = |j: &&Job| j.owner == owner && j.own.as_ref().is_some_and(|k| k.0 == *text);
            if let Some((id, job)) = self.jobs.iter().find(|(_, j)| of(j)) {
                let (_, old, count) = job.own.clone().unwrap_or_default();
                let want: Vec<u64> = (id.0..id.0 + u64::from(count.max(1))).collect();
                return match answer {
                    Ok(_) if old == *what && ids == want => Ok(()),
                    Err(e) if old != *what && e.code == Code::Conflict => Ok(()),
                    _ => Err(format!("task keys: key {text:?} is that of {want:?}, and is answered {answer:?}")),
                };
            }
        }
        let mixed = specs.iter().any(|s| s.key != specs[0].key);
        if mixed && answer.is_ok() {
            return Err(format!("submit: a list with different keys is taken: {specs:?}"));
        }
        let bad = mixed || specs.iter().any(|s| self.is_bad(s));
        if let Err(e) = answer {
            return if bad { Ok(()) } else { Err(format!("submit: refused: {e:?}")) };
        }
        if specs.iter().any(|s| self.can_never_run(s)) {
            return Err(format!("submit: taken, and it can never run: {specs:?}"));
        }
        if ids.len() != specs.len() || !ids.windows(2).all(|w| w[0] + 1 == w[1]) {
            return Err(format!("submit: {} tasks are answered {ids:?}", specs.len()));
        }
        for (n, (id, spec)) in ids.iter().zip(specs).enumerate() {
            if self.jobs.contains_key(&TaskId(*id)) {
                return Err(format!("submit: task {id} exists"));
            }
            let count = if many { u32::try_from(specs.len()).unwrap_or(0) } else { 0 };
            let request = key.filter(|_| n == 0).map(|(text, hash)| (text.clone(), *hash, count));
            let mut job = self.made(scene, spec, owner, request);
            job.own = own.clone().filter(|_| n == 0);
            self.insert(TaskId(*id), job);
            self.follow(TaskId(*id));
        }
        Ok(())
    }

    /// Whether a task is not to be accepted.
    pub fn is_bad(&self, spec: &TaskSpec) -> bool {
        self.can_never_run(spec) || !self.knows_group(&self.group_of(spec))
    }

    /// The group that a task is put into.
    fn group_of(&self, spec: &TaskSpec) -> String {
        let of_agent = match &spec.work {
            Work::Command(_) => None,
            Work::Agent { name, .. } => Some(
                name.as_ref()
                    .and_then(|n| self.config.agents.get(n))
                    .and_then(|a| a.group.clone())
                    .unwrap_or_else(|| "agents".to_owned()),
            ),
        };
        spec.group.clone().or(of_agent).unwrap_or_else(|| "default".to_owned())
    }

    pub fn can_never_run(&self, spec: &TaskSpec) -> bool {
        let bad = |a: &hob::protocol::methods::task::After| match self.jobs.get(&a.id).map(|j| j.phase) {
            None => true,
            Some(Phase::Over(state)) => !a.any && state != TaskState::Succeeded,
            Some(Phase::Held | Phase::Queued | Phase::Running(_)) => false,
        };
        let agent = match &spec.work {
            Work::Agent { name: Some(name), .. } => self.config.agents.contains_key(name),
            Work::Agent { name: None, .. } => false,
            Work::Command(_) => true,
        };
        let runner = spec.runner.as_ref().is_none_or(|name| self.config.runners.contains_key(name));
        spec.after.iter().any(bad) || !agent || !runner
    }

    pub fn made(&mut self, scene: Scene<'_>, s: &TaskSpec, owner: &str, request: Option<(String, u64, u32)>) -> Job {
        let agent = match &s.work {
            Work::Agent { name, .. } => name.clone(),
            Work::Command(_) => None,
        };
        let of_agent = agent.as_ref().and_then(|name| self.config.agents.get(name)).and_then(|a| a.timeout);
        let delay = s.delay.map(|d| scene.wall + i64::try_from(millis(d)).unwrap_or(0));
        Job {
            uid: self.new_uid(),
            owner: owner.to_owned(),
            words: words(s),
            agent,
            runner: s.runner.clone(),
            group: self.group_of(s),
            priority: s.priority,
            weight: s.weight,
            retries: s.retries,
            backoff: s.backoff.map_or(1000, millis),
            timeout: s.timeout.or(of_agent).map_or(7_200_000, millis),
            repeatable: s.repeatable,
            after: s.after.clone(),
            not_before: delay.unwrap_or(0),
            own: own_of(core::slice::from_ref(s), false),
            request,
            phase: if s.hold { Phase::Held } else { Phase::Queued },
            paused: false,
            fails: 0,
            attempts: 0,
            stop: None,
            begun: 0,
            again: 0,
            again_wall: 0,
            grants: 1,
            ripe: false,
            retried: false,
            cleared: BTreeSet::new(),
            exit: None,
        }
    }

    fn edited(&mut self, scene: Scene<'_>, id: TaskId, edit: &TaskEdit, answer: &Answer) -> Held {
        let before = self.jobs.get(&id).map(|j| j.phase);
        let open = matches!(before, Some(Phase::Held | Phase::Queued));
        if answer.is_err() {
            let known = edit.group.as_ref().is_none_or(|g| self.knows_group(g));
            return match open && known && edit.after.as_ref().is_none_or(Vec::is_empty) {
                true => Err(format!("edit: task {id} cannot be edited: {answer:?}")),
                false => Ok(()),
            };
        }
        let wall = scene.wall;
        self.since.remove(&id);
        let Some(job) = self.edit(id).filter(|_| open) else {
            return Err(format!("edit: task {id} is {before:?}, and is edited"));
        };
        if let Some(after) = &edit.after {
            job.after.clone_from(after);
            job.retried = false;
        }
        if let Some(group) = &edit.group {
            job.group.clone_from(group);
        }
        if let Some(delay) = edit.delay {
            job.ripe = false;
            // It is a person's word against that of a retry.
            (job.again, job.again_wall) = (0, 0);
            job.not_before = wall + i64::try_from(millis(delay)).unwrap_or(0);
        }
        job.priority = edit.priority.unwrap_or(job.priority);
        job.retries = edit.retries.unwrap_or(job.retries);
        job.weight = edit.weight.unwrap_or(job.weight);
        job.timeout = edit.timeout.map_or(job.timeout, millis);
        self.follow(id);
        self.is_no_circle(id)
    }

    fn is_no_circle(&self, id: TaskId) -> Held {
        let (mut seen, mut open) = (BTreeSet::new(), vec![id]);
        while let Some(next) = open.pop() {
            for a in self.jobs.get(&next).filter(|j| !j.is_over()).into_iter().flat_map(|j| &j.after) {
                if a.id == id {
                    return Err(format!("edit: task {id} follows itself"));
                }
                if seen.insert(a.id) {
                    open.push(a.id);
                }
            }
        }
        Ok(())
    }

    fn changed(&mut self, call: &TaskCall, which: &Selection, answer: &Answer) -> Held {
        let json = match (answer, which.ids.iter().find(|(a, b)| a == b && !self.jobs.contains_key(a))) {
            (Ok(json), None) => json,
            (Err(e), Some(_)) if e.code == Code::NotFound => return Ok(()),
            _ => return Err(format!("change: {call:?} is answered {answer:?}")),
        };
        let v: Value = serde_json::from_str(json).unwrap_or_default();
        for row in v["tasks"].as_array().into_iter().flatten() {
            let id = TaskId(row["id"].as_u64().unwrap_or_default());
            if !self.jobs.contains_key(&id) {
                return Err(format!("change: there is no task {id}: {row}"));
            }
            if row["changed"] == true {
                self.change_one(call, id).map_err(|why| format!("change: {call:?} changed task {id}, {why}"))?;
            }
            let state = self.jobs.get(&id).map_or("removed", |j| j.state().name());
            if row["state"] != state {
                return Err(format!("change: task {id} is {state}, and {call:?} says {row}"));
            }
        }
        Ok(())
    }

    fn change_one(&mut self, call: &TaskCall, id: TaskId) -> Held {
        let uid = self.jobs.get(&id).map_or(0, |j| j.uid);
        let spawned = self.spawns.get(&uid).copied().unwrap_or(0);
        let follows = |j: &Job| !j.is_over() && j.after.iter().any(|a| a.id == id);
        let followed = self.jobs.values().any(follows);
        if matches!(call, TaskCall::Remove { .. }) {
            let phase = self.jobs.get(&id).map(|j| j.phase);
            let open = matches!(phase, Some(Phase::Held | Phase::Queued));
            if matches!(phase, Some(Phase::Running(_))) || open && followed {
                return Err(format!("which is {phase:?}"));
            }
            self.remove(id);
            return Ok(());
        }
        self.since.remove(&id);
        let Some(job) = self.edit(id) else { return Err("which does not exist".to_owned()) };
        let phase = job.phase;
        match (call, phase) {
            (TaskCall::Cancel { .. }, Phase::Over(TaskState::Cancelled) | Phase::Running(_)) => {}
            (TaskCall::Pause { .. }, Phase::Running(_)) if job.paused => {}
            (TaskCall::Resume { .. }, Phase::Running(_)) if !job.paused => {}
            (TaskCall::Hold { .. }, Phase::Queued) => job.phase = Phase::Held,
            (TaskCall::Release { .. }, Phase::Held) => job.phase = Phase::Queued,
            (TaskCall::Prioritize { priority, .. }, Phase::Held | Phase::Queued) => job.priority = *priority,
            (TaskCall::Retry { .. }, Phase::Over(_)) => {
                (job.phase, job.fails, job.again, job.again_wall) = (Phase::Queued, 0, 0, 0);
                (job.retried, job.grants) = (true, spawned + 1);
                self.follow(id);
            }
            _ => return Err(format!("which is {phase:?}")),
        }
        Ok(())
    }

    fn cleaned(&mut self, which: &Selection, age: Duration, answer: &Answer) -> Held {
        let Some(ids) = self.select(which) else {
            return if answer.is_err() { Ok(()) } else { Err(format!("clean: {answer:?}")) };
        };
        let over: Vec<TaskId> =
            ids.into_iter().filter(|id| age.is_zero() && self.jobs.get(id).is_some_and(Job::is_over)).collect();
        let v: Value = answer.as_ref().ok().and_then(|j| serde_json::from_str(j).ok()).unwrap_or_default();
        if v["removed"].as_u64() != Some(over.len() as u64) {
            return Err(format!("clean: {answer:?} instead of {over:?}"));
        }
        for id in over {
            self.remove(id);
        }
        Ok(())
    }

    /// `at_once`: in the round of the question itself.
    pub fn waited(&self, which: &Selection, answer: &Answer, at_once: bool) -> Held {
        let Ok(json) = answer else {
            let fine = !at_once || self.select(which).is_none();
            return if fine { Ok(()) } else { Err(format!("wait: {answer:?}")) };
        };
        let v: Value = serde_json::from_str(json).unwrap_or_default();
        for row in v["tasks"].as_array().into_iter().flatten() {
            let id = TaskId(row["id"].as_u64().unwrap_or_default());
            let Some(job) = self.jobs.get(&id) else { return Err(format!("wait: there is no task {id}")) };
            // One whose time is up is answered as things were, and in the same step they may go on.
            let past = v["done"] != true && job.is_over();
            if row["state"] != job.state().name() && !past {
                return Err(format!("wait: task {id} is {:?}, and the answer says {row}", job.phase));
            }
            // One that is tried again meanwhile was over once.
            if v["done"] == true && !job.is_over() && !job.retried {
                return Err(format!("wait: it is answered though task {id} is {:?}", job.phase));
            }
        }
        if at_once && v["done"] != true {
            return Err(format!("wait: answered too early: {json}"));
        }
        Ok(())
    }

    fn group_answered(&mut self, call: &GroupCall, answer: &Answer) -> Held {
        let (name, mut change) = match call {
            GroupCall::List => return Ok(()),
            GroupCall::Set { name, .. } | GroupCall::Pause { name, .. } | GroupCall::Resume { name, .. } => {
                (name, self.change(name))
            }
        };
        if answer.is_err() {
            // One that the config does not have cannot be given up while tasks need it.
            let own = !self.config.groups.contains_key(name) && !["default", "agents"].contains(&name.as_str());
            let needed = matches!(call, GroupCall::Set { remove: true, .. }) && own;
            let known = self.knows_group(name) && !needed;
            return if known { Err(format!("group: {call:?} is answered {answer:?}")) } else { Ok(()) };
        }
        let spec = self.config.groups.get(name).cloned().unwrap_or_default();
        match call {
            GroupCall::List => {}
            GroupCall::Set { remove: true, .. } => change = Change::default(),
            GroupCall::Set { parallel, weight_limit, .. } => {
                change.parallel = parallel.or(change.parallel);
                change.weight_limit = weight_limit.or(change.weight_limit);
            }
            GroupCall::Pause { .. } => change.paused = Some(true),
            GroupCall::Resume { .. } => change.paused = Some(false),
        }
        if change.paused.unwrap_or(spec.paused) == spec.paused {
            change.paused = None;
        }
        self.set_change(name, change);
        let group = self.group(name);
        let v: Value = answer.as_ref().ok().and_then(|j| serde_json::from_str(j).ok()).unwrap_or_default();
        let told = (v["parallel"].as_u64(), v["weight_limit"].as_u64(), v["paused"].as_bool());
        let want = (Some(group.parallel.into()), Some(group.weight_limit.into()), Some(group.paused));
        if told == want { Ok(()) } else { Err(format!("group: {name} is {want:?}, and the answer is {told:?}")) }
    }
}
