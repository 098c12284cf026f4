//! One round of the core held against the rules of jobs: each due time is decided once and in time, and leads to what
//! its rules say.

use crate::jobs_model::{Come, Fire, Going, Job, Jobs};
use crate::jobs_plan::Deed;
use crate::os::MS;
use crate::plan::Verb;
use crate::tasks_model::{Scene, Told};
use crate::tasks_round::now_not;
use hob::base::ids::{RunId, TaskId};
use hob::base::limits::HISTORY_PER_NAME;
use hob::base::time::Wall;
use hob::config::schedule::{Missed, Overlap};
use hob::config::{Action, JobSpec};
use hob::core::{Effect, Start};
use hob::protocol::methods::Request;
use hob::protocol::methods::task::{TaskCall, TaskSpec};
use hob::protocol::rpc::{Code, RpcError};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

type Held = Result<(), String>;
/// A request and what it was answered in the round itself.
pub type Answered<'a> = Option<(&'a Request, &'a Result<String, RpcError>)>;

/// Runs of one job at once.
const RUNS_MAX: usize = 100;

/// What a round of jobs means for tasks and services.
#[derive(Debug, Default)]
pub struct Deeds {
    /// Tasks that runs have submitted, and the job.
    pub submitted: BTreeMap<TaskId, (TaskSpec, String)>,
    /// Jobs whose run has submitted nothing, though that is what it is for.
    pub refused: Vec<(String, TaskSpec)>,
    /// A daemon has come up and found that records are missing.
    pub gap: bool,
    /// The number that a person was told for a run.
    promised: Option<(String, u64)>,
    /// What runs wanted of services.
    pub services: Vec<(Verb, String)>,
    /// Starts of services that a run of the same round stopped only after that.
    pub before_stop: BTreeSet<RunId>,
    /// Tasks of runs that may be given up now.
    pub given_up: BTreeSet<TaskId>,
    /// Runs that have ended, with their results.
    ended: Vec<(String, Going, String)>,
}

/// What the round still owes for one job.
#[derive(Debug, Default)]
struct Owed {
    come: Come,
    /// A run that has to submit its task.
    submits: bool,
}

impl Job {
    pub fn has_room(&self) -> bool {
        match self.plan.overlap {
            Overlap::Allow => self.runs.len() < RUNS_MAX,
            Overlap::Skip | Overlap::Queue | Overlap::Restart => self.runs.is_empty(),
        }
    }

    /// Whether a fire that is on time is left out.
    fn refuses(&self) -> bool {
        match self.plan.overlap {
            _ if self.runs.is_empty() => false,
            Overlap::Skip => true,
            Overlap::Restart => !self.queue.is_empty() && self.runs.iter().any(|r| r.given_up),
            Overlap::Queue => self.queue.len() >= self.plan.limit,
            Overlap::Allow => self.runs.len() >= RUNS_MAX,
        }
    }
}

fn moment(v: &Value) -> Option<i64> {
    v.as_str().and_then(Wall::parse).map(|at| at.0)
}

impl Jobs {
    /// Takes in a round whose records are in the journal, before any of its effects is carried out.
    pub fn round(
        &mut self,
        scene: Scene<'_>,
        told: &Told,
        asked: Answered<'_>,
        effects: &[Effect],
    ) -> Result<Deeds, String> {
        let mut deeds = Deeds { gap: matches!(told, Told::Boot(boot) if boot.gap), ..Deeds::default() };
        let lenient = self.told(scene, told);
        if let Some((request, answer)) = asked {
            self.answered(scene, request, answer)?;
            if let (Request::ScheduleRun { id }, Ok(text)) = (request, answer) {
                let v: Value = serde_json::from_str(text).unwrap_or_default();
                deeds.promised = v["run"].as_u64().map(|n| (id.clone(), n));
            }
        }
        let mut owed: BTreeMap<String, Owed> = BTreeMap::new();
        if !self.blind && !scene.stopping {
            for id in self.all.keys().cloned().collect::<Vec<_>>() {
                // What the core decides it writes down; what it should have decided, `due` finds.
                let looks = scene.touched.contains(&format!("schedule/{id}"));
                let late = lenient.get(&id).copied().unwrap_or(0);
                let come = if looks { self.look(scene, &id, late) } else { Come::default() };
                owed.insert(id, Owed { come, submits: false });
            }
        }
        self.may_give_up(scene, &owed, asked, &mut deeds);
        let mut started: Vec<&Start> = Vec::new();
        for effect in effects {
            if let Effect::Start(start) = effect {
                started.push(start);
            }
            let Effect::Event { line, .. } = effect else { continue };
            if line.contains("\"kind\":\"schedule.") {
                let known = deeds.services.len();
                self.event(scene, &serde_json::from_str(line).unwrap_or_default(), &mut owed, &mut deeds)?;
                for (_, name) in deeds.services[known..].iter().filter(|(verb, _)| *verb == Verb::Stop) {
                    let earlier = started.iter().filter(|s| *s.service == **name);
                    deeds.before_stop.extend(earlier.map(|s| s.run));
                }
            } else if line.contains("\"kind\":\"task.queued\"") {
                self.submitted(&serde_json::from_str(line).unwrap_or_default(), &mut owed, &mut deeds)?;
            }
        }
        for (id, owed) in owed {
            let spec = self.all.get(&id).filter(|_| owed.submits).and_then(|job| task_of(&job.spec));
            deeds.refused.extend(spec.map(|spec| (id.clone(), spec)));
            self.settled(scene, &id, owed)?;
            self.gave_up(scene, &id, &deeds)?;
        }
        if let Some((id, silent)) =
            core::mem::take(&mut self.dropped).into_iter().find(|(_, silent)| !silent.is_empty())
        {
            return Err(format!("job paused: {id} dropped runs without a word, of {silent:?}"));
        }
        self.synced(scene.disk.synced());
        Ok(deeds)
    }

    fn clock(&self, scene: Scene<'_>, job: &Job) -> i64 {
        scene.wall - self.delay(&job.plan)
    }

    /// How much later than its time each job may be, for the clock was just put forward.
    fn told(&mut self, scene: Scene<'_>, told: &Told) -> BTreeMap<String, i64> {
        let mut lenient = BTreeMap::new();
        match told {
            Told::Boot(boot) => {
                self.epoch += 1;
                self.boot = boot.keeper.split('-').next().and_then(|n| n.parse().ok()).unwrap_or(0);
                self.blind = boot.blind;
                if !self.blind {
                    self.restored(scene, &boot.config.schedule, 0);
                }
            }
            Told::Config(config) if scene.stopping => drop(config.schedule.len()),
            Told::Config(config) if self.blind => {
                self.blind = false;
                self.restored(scene, &config.schedule, self.boot);
            }
            Told::Config(config) => self.changed(scene, &config.schedule),
            Told::WallSet(by) if !self.blind => {
                for id in self.all.keys().cloned().collect::<Vec<_>>() {
                    self.keep(&id);
                    let clock = self.clock(scene, &self.all[&id]);
                    if let Some(job) = self.all.get_mut(&id) {
                        lenient.insert(id, job.clock_set(*by, clock, scene.wall));
                    }
                }
            }
            Told::WallSet(_) | Told::Request(_) | Told::Synced(_) | Told::Other => {}
        }
        lenient
    }

    /// A daemon reads what is on record, and the config; `boot` is that of a job without a record.
    fn restored(&mut self, scene: Scene<'_>, specs: &[Arc<JobSpec>], boot: u64) {
        self.only(specs);
        for spec in specs {
            let (plan, now) = (self.plan_of(spec), scene.now);
            let (delay, present) = (self.delay(&plan), self.boot);
            let clock = scene.wall - delay;
            self.keep(&plan.id);
            let new = Job::new(Arc::clone(spec), plan.clone(), clock, scene.wall, boot);
            let job = self.all.entry(plan.id.clone()).or_insert(new);
            (job.spec, job.plan) = (Arc::clone(spec), plan);
            job.put_back(clock, scene.wall);
            job.pause_changed(clock, scene.wall);
            let stagger = job.plan.stagger * MS;
            for (n, fire) in (0..).zip(&mut job.queue) {
                fire.not_before = now + n * stagger;
            }
            // How long a run has taken is known by the wall clock alone.
            for run in &mut job.runs {
                let took = (scene.wall - run.began_wall).max(0);
                run.began = i64::try_from(now).unwrap_or(0) - took * i64::try_from(MS).unwrap_or(1);
                run.limit = job.plan.timeout;
            }
            if job.boot != present {
                if job.plan.times == crate::jobs_plan::Times::Reboot && !job.paused() {
                    let not_before = now + u64::try_from(delay).unwrap_or(0) * MS;
                    job.queue.push(Fire { due: scene.wall, why: "boot", not_before });
                }
                job.boot = present;
            }
        }
    }

    /// A new config: another time is a new beginning.
    fn changed(&mut self, scene: Scene<'_>, specs: &[Arc<JobSpec>]) {
        self.only(specs);
        for spec in specs {
            let plan = self.plan_of(spec);
            let clock = scene.wall - self.delay(&plan);
            if self.all.get(&plan.id).is_some_and(|job| job.plan == plan) {
                continue;
            }
            self.keep(&plan.id);
            let new = Job::new(Arc::clone(spec), plan.clone(), clock, scene.wall, self.boot);
            let job = self.all.entry(plan.id.clone()).or_insert(new);
            if job.plan.times != plan.times {
                (job.decided, job.decided_at) = (clock, scene.wall);
                (job.anchor, job.high) = (scene.wall, None);
            }
            (job.spec, job.plan) = (Arc::clone(spec), plan);
            job.pause_changed(clock, scene.wall);
        }
    }

    fn only(&mut self, specs: &[Arc<JobSpec>]) {
        let gone: Vec<String> = self.all.keys().filter(|id| specs.iter().all(|s| s.id != **id)).cloned().collect();
        for id in gone {
            self.keep(&id);
            self.all.remove(&id);
        }
    }

    fn answered(&mut self, scene: Scene<'_>, request: &Request, answer: &Result<String, RpcError>) -> Held {
        let every = |ids: &[String]| {
            if ids.is_empty() && !self.blind { self.all.keys().cloned().collect() } else { ids.to_vec() }
        };
        let (ids, pause) = match request {
            Request::ScheduleRun { id } => (vec![id.clone()], None),
            Request::SchedulePause { ids, pause } => (every(ids), Some(*pause)),
            Request::ScheduleList { .. } => {
                return answer.as_ref().map_or(Ok(()), |text| self.listed(scene, text));
            }
            _ => return Ok(()),
        };
        let known = !self.blind && ids.iter().all(|id| self.all.contains_key(id));
        match answer {
            Err(e) if now_not(e) && (scene.journal_full || scene.stopping) => return Ok(()),
            Err(e) if !known && e.code == Code::NotFound => return Ok(()),
            Err(e) if known && pause.is_none() && matches!(e.code, Code::Conflict | Code::Busy) => {
                let fine = self.all[&ids[0]].refuses();
                return if fine { Ok(()) } else { Err(format!("job asked: {} is refused: {e:?}", ids[0])) };
            }
            Ok(_) if known => {}
            _ => return Err(format!("job asked: {request:?} is answered {answer:?}")),
        }
        for id in &ids {
            self.keep(id);
            let clock = self.clock(scene, &self.all[id]);
            let Some(job) = self.all.get_mut(id) else { continue };
            match pause {
                Some(pause) => {
                    if job.paused() != pause {
                        job.choice = (pause != job.plan.paused).then_some(pause);
                        job.pause_changed(clock, scene.wall);
                    }
                    if pause {
                        self.dropped.insert(id.clone(), job.queue.drain(..).map(|f| f.due).collect());
                    }
                }
                None if job.refuses() => return Err(format!("job asked: {id} is to run, and is left out")),
                None => job.queue.push(Fire { due: scene.wall, why: "client", not_before: scene.now }),
            }
        }
        Ok(())
    }

    /// What has come of the clock for one job.
    fn look(&mut self, scene: Scene<'_>, id: &str, lenient: i64) -> Come {
        let Some(job) = self.all.get(id) else { return Come::default() };
        let clock = self.clock(scene, job);
        let mut new = job.clone();
        let come = new.look(clock, scene.wall, lenient);
        if new == *job {
            return come;
        }
        self.keep(id);
        for (n, due) in (0..).zip(&come.made_up) {
            let not_before = scene.now + n * new.plan.stagger * MS;
            new.queue.push(Fire { due: *due, why: "missed", not_before });
        }
        self.all.insert(id.to_owned(), new);
        come
    }

    /// Runs that the rules allow to be given up in this round.
    fn may_give_up(&self, scene: Scene<'_>, owed: &BTreeMap<String, Owed>, asked: Answered<'_>, deeds: &mut Deeds) {
        for (id, job) in &self.all {
            let by_hand = matches!(asked, Some((Request::ScheduleRun { id: of }, Ok(_))) if of == id);
            let fires = by_hand || owed.get(id).is_some_and(|o| o.come.on_time.is_some());
            let replaced = fires && job.plan.overlap == Overlap::Restart;
            let runs = job.runs.iter().filter(|r| replaced || r.given_up || r.is_late(scene.now));
            deeds.given_up.extend(runs.flat_map(|r| &r.tasks));
        }
    }

    fn event(&mut self, scene: Scene<'_>, v: &Value, owed: &mut BTreeMap<String, Owed>, deeds: &mut Deeds) -> Held {
        let id = v["name"].as_str().unwrap_or_default().to_owned();
        if !self.all.contains_key(&id) {
            return Err(format!("job events: there is no job {id}: {v}"));
        }
        self.keep(&id);
        let epoch = self.epoch;
        let Some(job) = self.all.get_mut(&id) else { return Ok(()) };
        if v["kind"] == "schedule.ended" {
            let number = v["number"].as_u64();
            let Some(at) = job.runs.iter().position(|r| Some(r.number) == number) else {
                return Err(format!("job events: no such run goes on: {v}"));
            };
            let run = job.runs.remove(at);
            deeds.ended.push((id, run, v["result"].as_str().unwrap_or_default().to_owned()));
            return Ok(());
        }
        let Some(owed) = owed.get_mut(&id) else { return Err(format!("job events: now nothing is due: {v}")) };
        match v["kind"].as_str().unwrap_or_default() {
            "schedule.missed" => {
                let rule = match job.plan.missed {
                    Missed::Skip => "skip",
                    Missed::Once => "once",
                    Missed::All => "all",
                };
                let said = v["count"].as_u64().zip(moment(&v["last"]));
                let made_up = v["made_up"].as_u64();
                if said.is_none() || said != owed.come.missed.take() || v["rule"] != rule {
                    return Err(format!("job missed: {v}, and the clock says {:?}", owed.come));
                }
                if made_up != Some(owed.come.made_up.len() as u64) {
                    return Err(format!("job missed: {v}, and the rule says {:?}", owed.come.made_up));
                }
                Ok(())
            }
            "schedule.skipped" if v["why"] == "it was paused" => {
                job.skipped += 1;
                let dropped = self.dropped.entry(id).or_default();
                let Some(at) = dropped.iter().position(|due| Some(*due) == moment(&v["due"])) else {
                    return Err(format!("job paused: {v}, and nothing of that time waited: {job:?}"));
                };
                dropped.remove(at);
                Ok(())
            }
            "schedule.skipped" => {
                job.skipped += 1;
                if moment(&v["due"]) != owed.come.on_time.take() || !job.refuses() {
                    return Err(format!("job skipped: {v}, and it is {job:?}"));
                }
                Ok(())
            }
            "schedule.fired" => {
                on_time(job, owed, scene)?;
                let run = begun(job, v, scene, epoch)?;
                // What persons asked for before goes first.
                let asked_last = v["why"] == "client" && job.queue.iter().all(|f| f.why != "client");
                if let Some((_, n)) = deeds.promised.take_if(|(of, n)| *of == id && asked_last && run.number != *n) {
                    return Err(format!("job asked: {v}, and it was to be run {n}"));
                }
                // As many as the history remembers, beside those that go on.
                job.ran.push_back(run.due);
                job.runs.push(run);
                while job.ran.len() > HISTORY_PER_NAME + job.runs.len() {
                    job.ran.pop_front();
                }
                self.fired += 1;
                if owed.submits {
                    // The run before this one has submitted nothing.
                    deeds.refused.extend(task_of(&job.spec).map(|spec| (id.clone(), spec)));
                }
                match &job.plan.deed {
                    Deed::Task(_) => owed.submits = true,
                    Deed::Service(verb, _) if *verb != Verb::Stop && scene.journal_full => {}
                    Deed::Reset(_) if scene.journal_full => {}
                    Deed::Service(verb, name) => deeds.services.push((*verb, name.clone())),
                    Deed::Reset(name) => deeds.services.push((Verb::Reset, name.clone())),
                    Deed::Signal(_) | Deed::Reload => {}
                }
                Ok(())
            }
            _ => Err(format!("job events: {v}")),
        }
    }

    /// The task of a run.
    fn submitted(&mut self, v: &Value, owed: &mut BTreeMap<String, Owed>, deeds: &mut Deeds) -> Held {
        let Some(id) = v["by"].as_str().and_then(|by| by.strip_prefix("the job ")) else { return Ok(()) };
        let task = TaskId(v["id"].as_u64().unwrap_or_default());
        let (Some(job), Some(owed)) = (self.all.get_mut(id), owed.get_mut(id)) else {
            return Err(format!("job task: there is no job {id}: {v}"));
        };
        let (Some(spec), Some(run)) = (task_of(&job.spec), job.runs.last_mut()) else {
            return Err(format!("job task: {id} submits none: {v}"));
        };
        if !owed.submits || v["count"] != 1 || !run.tasks.is_empty() {
            return Err(format!("job task: {id} has not just been begun: {v}"));
        }
        owed.submits = false;
        run.tasks = vec![task];
        deeds.submitted.insert(task, (spec, id.to_owned()));
        Ok(())
    }

    /// Runs that are on record as given up: whether that was allowed.
    fn gave_up(&mut self, scene: Scene<'_>, id: &str, deeds: &Deeds) -> Held {
        let key = format!("schedule/{id}");
        if !scene.touched.contains(&key) {
            return Ok(());
        }
        let v: Value = scene.disk.get(&key).and_then(|j| serde_json::from_str(j).ok()).unwrap_or_default();
        let Some(job) = self.all.get_mut(id) else { return Ok(()) };
        for run in v["runs"].as_array().into_iter().flatten().filter(|r| !r["given_up"].is_null()) {
            let Some(known) = job.runs.iter_mut().find(|r| run["number"] == r.number) else { continue };
            if !known.given_up && !known.tasks.iter().any(|t| deeds.given_up.contains(t)) {
                return Err(format!("job end: nobody asked to give up {known:?} of {id}"));
            }
            known.given_up = true;
        }
        Ok(())
    }

    /// The end of a round: everything that has come is decided, and what can begin has begun.
    fn settled(&mut self, scene: Scene<'_>, id: &str, mut owed: Owed) -> Held {
        let Some(job) = self.all.get_mut(id) else { return Ok(()) };
        if let Some(missed) = owed.come.missed {
            return Err(format!("job missed: {missed:?} of {id}, and nothing is said of it"));
        }
        on_time(job, &mut owed, scene)?;
        let waits = job.queue.iter().any(|f| f.not_before <= scene.now);
        if waits && job.has_room() && !scene.busy {
            return Err(format!("job begins: {id} has room, and what has come does not begin: {job:?}"));
        }
        Ok(())
    }

    /// Runs that have ended, held against what they were for; those that go on must have a reason to.
    pub fn ends(&self, scene: Scene<'_>, deeds: &Deeds, over: impl Fn(TaskId) -> Option<&'static str>) -> Held {
        for (id, run, result) in &deeds.ended {
            let Some(job) = self.all.get(id) else { continue };
            let states: Vec<Option<&str>> = run.tasks.iter().map(|t| over(*t)).collect();
            let open = states.contains(&Some("open"));
            let of = |wanted: &[&str]| states.iter().flatten().any(|s| wanted.contains(s));
            let fine = !open
                && match result.as_str() {
                    "done" => states.iter().all(|s| *s == Some("succeeded") || s.is_none() && states.len() > 1),
                    "failed" => run.tasks.is_empty() || of(&["failed", "cancelled"]),
                    "timed_out" => run.given_up || run.is_late(scene.now) || of(&["timed_out"]),
                    "replaced" => run.given_up || job.plan.overlap == Overlap::Restart,
                    "lost" if run.tasks.is_empty() => run.epoch < self.epoch,
                    "lost" => of(&["lost"]) || states.contains(&None),
                    _ => false,
                };
            // The number of a task that is lost to a damaged record may be another's.
            if !fine && !deeds.gap {
                return Err(format!("job end: a run of {id} is {result}, its tasks are {states:?}: {run:?}"));
            }
        }
        for (id, job) in self.all.iter().filter(|_| !self.blind && !scene.busy && !scene.stopping) {
            let done = |r: &&Going| !r.tasks.is_empty() && r.tasks.iter().all(|t| over(*t) != Some("open"));
            if let Some(run) = job.runs.iter().find(done) {
                return Err(format!("job end: all tasks of a run of {id} are over, and it goes on: {run:?}"));
            }
        }
        Ok(())
    }

    /// The list of all jobs.
    pub fn listed(&self, scene: Scene<'_>, text: &str) -> Held {
        let v: Value = serde_json::from_str(text).unwrap_or_default();
        let rows: Vec<&Value> = v["jobs"].as_array().into_iter().flatten().collect();
        let known = if self.blind { 0 } else { self.all.len() };
        if rows.len() != known {
            return Err(format!("job list: {known} jobs exist: {v}"));
        }
        for row in rows {
            let Some(job) = self.all.get(row["id"].as_str().unwrap_or_default()) else {
                return Err(format!("job list: there is no such job: {row}"));
            };
            let counts = (&row["running"], &row["queued"], &row["runs"], &row["missed"], &row["skipped"]);
            let (running, queued) = (job.runs.len() as u64, job.queue.len() as u64);
            let delay = self.delay(&job.plan);
            let next = job.next_due(scene.wall - delay).map(|at| at + delay);
            let same = *counts.0 == running
                && *counts.1 == queued
                && *counts.2 == job.number
                && *counts.3 == job.missed
                && *counts.4 == job.skipped
                && row["paused"] == job.paused()
                && moment(&row["next"]) == next;
            if !same {
                let next = next.map(|at| Wall(at).to_string());
                return Err(format!("job list: {row}, and it is {job:?}, next {next:?}"));
            }
        }
        Ok(())
    }

    /// By when the core has to be stepped, in the simulator's time, and for which job.
    pub fn due(&self, scene: Scene<'_>) -> Option<(u64, String)> {
        let mut first: Option<(u64, String)> = None;
        for (id, job) in self.all.iter().filter(|_| !self.blind && !scene.stopping) {
            let clock = self.clock(scene, job);
            let next = job.next_due(clock).map(|at| scene.now + u64::try_from(at - clock).unwrap_or(0) * MS);
            let queued = job.queue.iter().filter(|_| job.has_room()).map(|f| f.not_before.max(scene.now)).min();
            for at in next.into_iter().chain(queued) {
                if first.as_ref().is_none_or(|(first, _)| at < *first) {
                    first = Some((at, id.clone()));
                }
            }
        }
        first
    }
}

/// What a job submits.
pub fn task_of(spec: &JobSpec) -> Option<TaskSpec> {
    let Some(Action::Task { request: Request::Task(call), .. }) = &spec.action else { return None };
    let TaskCall::Submit { specs, .. } = &**call else { return None };
    specs.first().cloned()
}

/// A time that is on time and was not left out waits for its run now.
fn on_time(job: &mut Job, owed: &mut Owed, scene: Scene<'_>) -> Held {
    let Some(due) = owed.come.on_time.take() else { return Ok(()) };
    if job.refuses() {
        return Err(format!("job skipped: {} is not to run, and nothing is said of it: {job:?}", job.plan.id));
    }
    job.queue.push(Fire { due, why: "due", not_before: scene.now });
    Ok(())
}

/// A run is said to have begun: which fire it is of.
fn begun(job: &mut Job, v: &Value, scene: Scene<'_>, epoch: u64) -> Result<Going, String> {
    if !job.has_room() {
        return Err(format!("job overlap: {v}, and it is {job:?}"));
    }
    let Some(at) = job.queue.iter().position(|f| f.not_before <= scene.now) else {
        return Err(format!("job twice: nothing is due: {v}, and it is {job:?}"));
    };
    let fire = job.queue.remove(at);
    job.number += 1;
    if moment(&v["due"]) != Some(fire.due) || v["why"] != fire.why || v["number"] != job.number {
        return Err(format!("job twice: {v}, and what is due is {fire:?} as run {}", job.number));
    }
    let (began, limit) = (i64::try_from(scene.now).unwrap_or(0), job.plan.timeout);
    let (number, due) = (job.number, fire.due);
    Ok(Going { number, due, began, began_wall: scene.wall, limit, epoch, tasks: Vec::new(), given_up: false })
}
