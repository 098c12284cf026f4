//! One round of the core held against the rules of tasks: what it ordered, and what it said has happened.

use crate::jobs_round::Deeds;
use crate::os::MS;
use crate::tasks_ask::Question;
use crate::tasks_model::{Booted, Job, Phase, Scene, Tasks, Told, Why};
use hob::base::ids::{RunId, TaskId};
use hob::core::record::Entity;
use hob::core::task::of_name;
use hob::core::{Effect, Start};
use hob::protocol::methods::Request;
use hob::protocol::methods::task::{TaskCall, TaskState};
use hob::protocol::rpc::RpcError;
use serde_json::Value;
use std::collections::BTreeMap;

type Held = Result<(), String>;

/// A clock that was put back makes no wait after a failure longer than this, in milliseconds.
const WAIT_MAX: u64 = 26_000;

/// A claim without an end in the journal.
struct Open {
    run: RunId,
    keeper: String,
    begun: bool,
}

/// What the journal says of attempts that have no end.
fn open_claims(entities: &[Entity]) -> BTreeMap<TaskId, Open> {
    let mut all = BTreeMap::new();
    for e in entities {
        let Some(id) = e.key.strip_prefix("attempt/").and_then(|n| n.parse().ok()).map(TaskId) else { continue };
        if let Some(open) = open_claim(e.json.as_deref()) {
            all.insert(id, open);
        }
    }
    all
}

fn open_claim(json: Option<&str>) -> Option<Open> {
    let v: Value = serde_json::from_str(json?).ok()?;
    let run = v["run"].as_u64().filter(|_| v["state"].is_null())?;
    Some(Open { run: RunId(run), keeper: v["keeper"].as_str()?.to_owned(), begun: !v["begun"].is_null() })
}

/// How a task waits whose attempt has come to nothing: as its record says, where a newer one was lost.
fn waits(job: &Job) -> Phase {
    if job.phase == Phase::Held { Phase::Held } else { Phase::Queued }
}

pub fn attempt_key(id: TaskId) -> String {
    format!("attempt/{:012}", id.0)
}

fn boot_of(keeper: &str) -> &str {
    keeper.split('-').next().unwrap_or_default()
}

impl Tasks {
    /// Takes in a round whose records are in the journal, before any of its effects is carried out.
    pub fn round(
        &mut self,
        scene: Scene<'_>,
        told: &Told,
        asked: Option<&Question>,
        deeds: &Deeds,
        effects: &[Effect],
    ) -> Held {
        self.step += 1;
        self.unknown.clear();
        self.doomed.clear();
        let mut req = None;
        match told {
            Told::Boot(boot) => {
                (self.config, self.blind) = (boot.config.clone(), boot.blind);
                self.booted(scene, boot)?;
            }
            // In a shutdown the config stays as it is.
            Told::Config(config) if !scene.stopping => {
                self.config.clone_from(config);
                self.blind = false;
            }
            Told::Request(n) => req = Some(*n),
            Told::Synced(ticket) => {
                let at = self.tickets.get(ticket).copied().unwrap_or_default();
                // Each group of a round has a ticket of its own, and the last of them is for all.
                let last = self.tickets.range(ticket + 1..).all(|(_, end)| *end > at);
                self.told_synced = self.told_synced.max(if last { at } else { 0 });
            }
            Told::Config(_) | Told::WallSet(_) | Told::Other => {}
        }
        if scene.stops {
            self.stop_all(scene);
        }
        self.given_up(scene, deeds);
        let answer = effects.iter().find_map(|e| match e {
            Effect::Reply { req: r, result, .. } if Some(*r) == req => Some(result),
            _ => None,
        });
        let asked = asked.filter(|_| req.is_some());
        if let (Some((Request::Task(call), ..)), Some(Ok(answer))) = (asked, answer)
            && matches!(**call, TaskCall::Cancel { .. })
        {
            self.cancelled(answer);
        }
        for effect in effects {
            match effect {
                Effect::Reply { req: r, result, .. } if Some(*r) == req => {
                    if let Some((request, key, owner)) = asked {
                        self.answered(scene, request, key.as_ref(), &owner.to_string(), result)?;
                    }
                }
                Effect::Start(start) => {
                    // The number of a run that never began may be given again.
                    self.runs.remove(&start.run);
                    if let Some(id) = of_name(&start.service) {
                        self.start(scene, id, start)?;
                    }
                }
                Effect::Event { line, .. } if line.contains("\"kind\":\"task.") => {
                    let asked = asked.map(|(request, ..)| request);
                    self.event(scene, &serde_json::from_str(line).unwrap_or_default(), (asked, deeds))?;
                }
                Effect::Signal { run, tree, .. } if self.has_run(*run) => self.signalled(scene, *run, !*tree)?,
                Effect::Kill { run } if self.has_run(*run) => self.signalled(scene, *run, false)?,
                _ => {}
            }
        }
        if let Some(id) = self.unknown.first() {
            return Err(format!("task lost: nobody can know how task {id} ended, and the core does not say so"));
        }
        let old = |id: &TaskId| !deeds.submitted.contains_key(id);
        let risky = |(id, j): &(&TaskId, &Job)| j.phase == Phase::Queued && !j.repeatable && old(id);
        if deeds.gap
            && let Some((id, job)) = self.jobs.iter().find(risky)
        {
            return Err(format!("gap: task {id} may have run already, and is not held: {job:?}"));
        }
        for (job, spec) in &deeds.refused {
            if !scene.journal_full && !self.is_bad(spec) {
                return Err(format!("job task: a run of {job} has submitted nothing: {spec:?}"));
            }
        }
        for id in core::mem::take(&mut self.doomed) {
            if let Some(phase @ (Phase::Held | Phase::Queued)) = self.jobs.get(&id).map(|j| j.phase) {
                return Err(format!("after: task {id} is {phase:?}, and one that it follows did not succeed"));
            }
        }
        self.note_runnable(scene.now, scene.wall);
        self.synced(scene.disk.synced());
        self.kept()
    }

    /// A daemon begins with these records, and with claims of its own.
    pub fn begin(&mut self, entities: &[Entity]) {
        self.entities.clear();
        self.records(entities, 0);
        self.claims.clear();
    }

    /// The records of a round: each attempt belongs to a task, and there are as many tasks as there should be.
    pub fn records(&mut self, records: &[Entity], end: usize) {
        self.given_back.clear();
        for r in records.iter().filter(|r| r.key.starts_with("task/") || r.key.starts_with("attempt/")) {
            match &r.json {
                Some(_) => self.entities.insert(r.key.clone()),
                None => self.entities.remove(&r.key),
            };
            let id = r.key.strip_prefix("attempt/").and_then(|n| n.parse().ok()).map(TaskId);
            if let Some(id) = id {
                match open_claim(r.json.as_deref()).filter(|o| !o.begun) {
                    Some(open) if self.claims.get(&id).is_some_and(|c| c.0 == open.run) => {}
                    Some(open) => drop(self.claims.insert(id, (open.run, end))),
                    None => self.given_back.extend(self.claims.remove(&id).map(|(_, end)| (id, end))),
                }
            }
        }
    }

    fn kept(&self) -> Held {
        let mut tasks = 0;
        for key in &self.entities {
            let id = key.split_once('/').and_then(|(_, n)| n.parse().ok()).map(TaskId).unwrap_or_default();
            if !self.jobs.contains_key(&id) {
                return Err(format!("task records: {key} is kept, and there is no such task"));
            }
            tasks += usize::from(key.starts_with("task/"));
        }
        match self.jobs.len() {
            n if n == tasks => Ok(()),
            n => Err(format!("task lost: {n} tasks exist, and {tasks} are in the journal")),
        }
    }

    /// What the deaths before mean for each task.
    fn booted(&mut self, scene: Scene<'_>, boot: &Booted) -> Held {
        let (table, entities, keeper) = (&boot.table, &boot.entities, &boot.keeper);
        let open = open_claims(entities);
        let ids: Vec<TaskId> = self.jobs.iter().filter(|(_, j)| !j.is_over()).map(|(id, _)| *id).collect();
        for id in &ids {
            self.follow(*id);
        }
        for id in ids {
            let phase = self.jobs[&id].phase;
            // A wait is kept to the millisecond of the wall clock.
            if let Some(job) = self.jobs.get_mut(&id) {
                // Whoever has claimed an attempt had waited long enough.
                job.again_wall = if open.contains_key(&id) { 0 } else { job.again_wall };
                let left = u64::try_from(job.again_wall - scene.wall).unwrap_or(0).min(WAIT_MAX);
                job.again = if left == 0 { 0 } else { scene.now + left * MS };
            }
            let Some(open) = open.get(&id) else {
                if matches!(phase, Phase::Running(_)) {
                    return Err(format!("task records: task {id} is {phase:?}, and the journal does not say so"));
                }
                continue;
            };
            let slot = table.iter().find(|t| t.run == open.run);
            let began = slot.is_some_and(|s| s.pid.is_some() || s.exec_error.is_some());
            let same_boot = boot_of(&open.keeper) == boot_of(keeper);
            let never = slot.is_some() || open.keeper == *keeper || same_boot && !open.begun;
            // What is left of it does not change that nobody saw its end.
            let (spawns, now) =
                (self.jobs.get(&id).map_or(0, |j| self.spawns.get(&j.uid).copied().unwrap_or(0)), scene.now);
            let Some(job) = self.edit(id) else { continue };
            if began {
                if !matches!(job.phase, Phase::Running(_)) {
                    job.begun = now;
                    job.attempts += 1;
                }
                job.phase = Phase::Running(open.run);
                job.paused &= slot.is_none_or(|s| s.ended.is_none());
                // What has begun does not wait for others any more.
                job.cleared = job.after.iter().map(|a| a.id).collect();
            } else if never {
                job.attempts -= u32::from(matches!(job.phase, Phase::Running(_)));
                (job.phase, job.stop, job.paused) = (waits(job), None, false);
            } else {
                job.attempts += u32::from(!matches!(job.phase, Phase::Running(_)));
                (job.exit, job.stop, job.paused) = (None, None, false);
                job.phase = waits(job);
                if job.repeatable {
                    job.grants = job.grants.max(spawns + 1);
                } else {
                    self.unknown.insert(id);
                }
            }
        }
        Ok(())
    }

    /// A shutdown ends what runs.
    fn stop_all(&mut self, scene: Scene<'_>) {
        let of = |(id, job): (&TaskId, &Job)| match job.phase {
            Phase::Running(run) if job.stop.is_none() => Some((*id, run)),
            _ => None,
        };
        let running: Vec<(TaskId, RunId)> = self.jobs.iter().filter_map(of).collect();
        for (id, run) in running {
            let certain = scene.os.main_of(run).is_some() || self.pending.contains(&run);
            // Of a limit that is reached in the same step either may be the first.
            let why = scene.disk.get(&attempt_key(id)).map_or(Why::Shutdown, |json| {
                let record: Value = serde_json::from_str(json).unwrap_or_default();
                let job = &self.jobs[&id];
                let late = job.timeout > 0 && (scene.now - job.begun) / MS >= job.timeout;
                if late && record["stop"] == "timeout" { Why::Timeout } else { Why::Shutdown }
            });
            if let Some(job) = self.edit(id) {
                job.stop = Some((why, certain));
                job.paused = false;
            }
        }
    }

    /// Running tasks that their job gives up in this round.
    fn given_up(&mut self, scene: Scene<'_>, deeds: &Deeds) {
        for id in &deeds.given_up {
            let record: Value =
                scene.disk.get(&attempt_key(*id)).and_then(|j| serde_json::from_str(j).ok()).unwrap_or_default();
            let open = self.jobs.get(id).is_some_and(|j| matches!(j.phase, Phase::Running(_)) && j.stop.is_none());
            if open
                && record["stop"]["client"]["schedule"].is_string()
                && let Some(job) = self.edit(*id)
            {
                job.stop = Some((Why::Client, true));
                job.paused = false;
            }
        }
    }

    /// Running tasks that a person cancels in this round.
    fn cancelled(&mut self, answer: &str) {
        let v: Value = serde_json::from_str(answer).unwrap_or_default();
        for row in v["tasks"].as_array().into_iter().flatten().filter(|r| r["changed"] == true) {
            let id = TaskId(row["id"].as_u64().unwrap_or_default());
            if let Some(job) = self.edit(id).filter(|j| matches!(j.phase, Phase::Running(_))) {
                job.stop.get_or_insert((Why::Client, true));
                job.paused = false;
            }
        }
    }

    fn start(&mut self, scene: Scene<'_>, id: TaskId, start: &Start) -> Held {
        let run = start.run;
        let Some(job) = self.jobs.get(&id).cloned() else {
            return Err(format!("task start: task {id} does not exist"));
        };
        if job.phase != Phase::Queued {
            return Err(format!("task start: task {id} is {:?}", job.phase));
        }
        if !self.has_programs(&job) || self.blind {
            return Err(format!("task start: task {id} is started without its programs, blind {}", self.blind));
        }
        self.is_run_as(&job, start)?;
        if scene.stopping {
            return Err(format!("shutdown: task {id} is started in it"));
        }
        let made = scene.os.runs.get(&run).is_some_and(|t| t.pid.is_some() || t.exec_failed);
        if made || !scene.os.tree(run).is_empty() || self.pending.contains(&run) {
            return Err(format!("task run: run {run} of task {id} has been before"));
        }
        let group = self.group(&job.group);
        if group.paused {
            return Err(format!("task start: task {id} is started, and its group {} is paused", job.group));
        }
        let (running, weight) = self.taken(&job.group, scene.os);
        if running >= group.parallel {
            return Err(format!(
                "slots: task {id} is started while {running} of group {} run; {} may",
                job.group, group.parallel
            ));
        }
        let limit = u64::from(group.weight_limit);
        if limit > 0 && running > 0 && weight + u64::from(job.weight) > limit {
            return Err(format!("weight: task {id} weighs {} and {weight} run of {limit}", job.weight));
        }
        if job.not_before > scene.wall && !job.ripe || job.again > scene.now {
            return Err(format!("task start: task {id} is started before its time"));
        }
        self.follows(&job).map_err(|why| format!("after: task {id} is started, and {why}"))?;
        let open = scene.disk.last(&attempt_key(id), usize::MAX).and_then(|(_, json)| open_claim(json));
        if open.is_none_or(|o| o.run != run || !o.begun) {
            return Err(format!("claim: task {id} is started, and the journal does not say so"));
        }
        if !job.repeatable {
            let claim = scene.disk.last(&attempt_key(id), scene.disk.synced()).and_then(|(_, json)| open_claim(json));
            if claim.is_none_or(|o| o.run != run) {
                return Err(format!("claim: task {id} is started, and its claim of run {run} is not on disk"));
            }
        }
        self.first(scene, id)?;
        let (begun, uid) = (scene.now, job.uid);
        if let Some(job) = self.edit(id) {
            (job.phase, job.begun, job.stop) = (Phase::Running(run), begun, None);
            job.attempts += 1;
        }
        self.since.remove(&id);
        let facts = crate::tasks_model::Run { uid, id, group: job.group, weight: job.weight, told_at: 0 };
        self.runs.insert(run, facts);
        self.pending.insert(run);
        Ok(())
    }

    /// Nobody of the same group that could have been started is before it.
    fn first(&self, scene: Scene<'_>, id: TaskId) -> Held {
        let job = &self.jobs[&id];
        for (other, since) in &self.since {
            let Some(o) = self.jobs.get(other).filter(|o| o.group == job.group && o.rank(*other) < job.rank(id)) else {
                continue;
            };
            if *since >= self.step || !self.is_runnable(o, scene.now, scene.wall) {
                continue;
            }
            // What has claimed a slot may still wait for word that its claim is on disk.
            let claim = self.claims.get(other).map(|(_, end)| end).or_else(|| self.given_back.get(other));
            if o.repeatable || claim.is_none_or(|end| *end <= self.told_synced) {
                return Err(format!("priority: task {id} is started before task {other}"));
            }
        }
        Ok(())
    }

    /// A signal to a run: somebody must have wanted it.
    fn signalled(&mut self, scene: Scene<'_>, run: RunId, main: bool) -> Held {
        let Some(facts) = self.runs.get(&run).cloned() else { return Ok(()) };
        let Some(job) = self.jobs.get(&facts.id).filter(|j| j.uid == facts.uid) else { return Ok(()) };
        let alive = scene.os.main_of(run).is_some();
        if job.phase != Phase::Running(run) || job.stop.is_some() || !main && !alive {
            return Ok(());
        }
        let ran = (scene.now - job.begun) / MS;
        if job.timeout == 0 || ran < job.timeout {
            return Err(format!("time limit: task {} ran for {ran} ms of {} and is stopped", facts.id, job.timeout));
        }
        if let Some(job) = self.edit(facts.id) {
            job.stop = Some((Why::Timeout, alive));
            job.paused = false;
        }
        Ok(())
    }

    fn event(&mut self, scene: Scene<'_>, v: &Value, (asked, deeds): (Option<&Request>, &Deeds)) -> Held {
        let id = TaskId(v["id"].as_u64().unwrap_or_default());
        match v["kind"].as_str().unwrap_or_default() {
            "task.queued" if deeds.submitted.contains_key(&id) => {
                let (spec, job) = &deeds.submitted[&id];
                // A group that nobody names any more may be there for a while.
                if self.jobs.contains_key(&id) || self.can_never_run(spec) {
                    return Err(format!("submit: {v} of {spec:?}"));
                }
                let job = self.made(scene, spec, &format!("schedule/{job}"), None);
                self.insert(id, job);
                self.follow(id);
                Ok(())
            }
            "task.held" if v["why"] == "a gap in the journal" => match self.jobs.get(&id).cloned() {
                Some(job) if deeds.gap && job.phase == Phase::Queued && !job.repeatable => {
                    // A person who lets it go on has seen that it may have run already.
                    let spawned = self.spawns.get(&job.uid).copied().unwrap_or(0);
                    if let Some(job) = self.edit(id) {
                        (job.phase, job.grants) = (Phase::Held, spawned + 1);
                    }
                    Ok(())
                }
                job => Err(format!("gap: {v} of {job:?}")),
            },
            "task.queued" | "task.held" | "task.released" | "task.edited" => Ok(()),
            "task.started" => match self.jobs.get(&id).map(|j| j.phase) {
                Some(Phase::Running(run)) if v["run"].as_u64() == Some(run.0) => Ok(()),
                phase => Err(format!("task events: {v} of a task that is {phase:?}")),
            },
            "task.paused" | "task.resumed" => {
                let pauses = v["kind"] == "task.paused";
                let pause = |c: &TaskCall| matches!(c, TaskCall::Pause { .. } | TaskCall::Resume { .. });
                let person =
                    matches!(asked, Some(Request::Group(_))) || matches!(asked, Some(Request::Task(c)) if pause(c));
                match self.edit(id).filter(|j| matches!(j.phase, Phase::Running(_)) && person) {
                    Some(job) if job.paused != pauses => {
                        job.paused = pauses;
                        Ok(())
                    }
                    _ => Err(format!("task events: nobody asked for {v}")),
                }
            }
            "task.start_failed" => self.put_off(scene, id, v),
            "task.retried" => self.again(scene, id, v),
            "task.completed" => self.over(scene, id, TaskState::Succeeded, v, (asked, deeds)),
            "task.failed" => self.over(scene, id, TaskState::Failed, v, (asked, deeds)),
            "task.timeout" => self.over(scene, id, TaskState::TimedOut, v, (asked, deeds)),
            "task.cancelled" => self.over(scene, id, TaskState::Cancelled, v, (asked, deeds)),
            "task.lost" => self.over(scene, id, TaskState::Lost, v, (asked, deeds)),
            _ => Err(format!("task events: {v}")),
        }
    }

    /// Its slot in the keeper's table is about to be freed.
    pub fn forgotten(&self, run: RunId, os: &crate::os::Os, disk: &crate::disk::Disk) -> Held {
        let Some(facts) = self.runs.get(&run) else { return Ok(()) };
        if let Some(p) = os.procs.values().find(|p| p.run == run) {
            return Err(format!("task gone: run {run} is forgotten, and process {} lives", p.pid));
        }
        match disk.last(&attempt_key(facts.id), disk.written()).and_then(|(_, json)| open_claim(json)) {
            Some(o) if o.run == run => Err(format!("task records: run {run} is forgotten before its end is on record")),
            _ => Ok(()),
        }
    }
}

/// Whether this says that another time may do.
pub fn now_not(e: &RpcError) -> bool {
    use hob::protocol::rpc::Code;
    matches!(e.code, Code::Busy | Code::ShuttingDown)
}
