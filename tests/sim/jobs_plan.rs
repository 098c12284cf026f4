//! What a seed means for jobs of the schedule: their times, which are kept here in the simplest form there is, their
//! rules and actions in each version of the config, and what clients ask about them.

use crate::plan::{Action, Ask, CLIENTS, FAULTS_END, Op, Verb};
use crate::rng::Rng;
use crate::tasks_plan::{AGENTS, GROUPS, RUNNERS};
use crate::world::WALL_START;
use hob::base::time::Wall;
use hob::config::schedule::{Missed, Overlap};
use hob::config::{Config, JobSpec, Platform};
use hob::protocol::methods::Request;
use serde_json::{Value, json};
use std::sync::Arc;

/// Values of one part of a clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Any,
    /// The multiples of this, written so that the job follows the clock on the wall, or not.
    Every(u32, bool),
    These(&'static [u32]),
}

impl Part {
    pub fn has(self, n: u32) -> bool {
        match self {
            Part::Any => true,
            Part::Every(step, _) => n.is_multiple_of(step),
            Part::These(all) => all.contains(&n),
        }
    }

    fn text(self, last: u32) -> String {
        match self {
            Part::Any => "*".to_owned(),
            Part::Every(step, true) => format!("*/{step}"),
            Part::Every(step, false) => format!("0-{last}/{step}"),
            Part::These(all) => all.iter().map(u32::to_string).collect::<Vec<_>>().join(","),
        }
    }

    const fn is_wild(self) -> bool {
        matches!(self, Part::Any | Part::Every(_, true))
    }
}

/// When a job is due. Moments and distances are milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    Cron { second: Part, minute: Part, hour: Part },
    Every(i64),
    At(i64),
    Reboot,
}

impl Times {
    pub const fn is_wild(self) -> bool {
        matches!(self, Times::Cron { minute, hour, .. } if minute.is_wild() || hour.is_wild())
    }
}

/// What a job does.
#[derive(Clone, Debug, PartialEq)]
pub enum Deed {
    /// Params of `task.submit`.
    Task(Value),
    Service(Verb, String),
    Reset(String),
    Signal(String),
    Reload,
}

#[derive(Clone, Debug, PartialEq)]
pub struct JobPlan {
    pub id: String,
    pub times: Times,
    pub overlap: Overlap,
    pub missed: Missed,
    pub limit: usize,
    pub stagger: u64,
    pub jitter: u64,
    pub timeout: Option<u64>,
    pub paused: bool,
    pub deed: Deed,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobAsk {
    Run(String),
    Pause(Vec<String>, bool),
    List,
    Get(String),
    Next(String),
}

impl JobAsk {
    pub fn request(&self) -> Request {
        match self {
            JobAsk::Run(id) => Request::ScheduleRun { id: id.clone() },
            JobAsk::Pause(ids, pause) => Request::SchedulePause { ids: ids.clone(), pause: *pause },
            JobAsk::List => Request::ScheduleList { ids: None },
            JobAsk::Get(id) => Request::ScheduleGet { id: id.clone() },
            JobAsk::Next(id) => Request::ScheduleNext { id: id.clone(), count: 3 },
        }
    }
}

fn times(r: &mut Rng) -> Times {
    match r.below(10) {
        0 => Times::Every(i64::try_from(r.range(3, 40)).unwrap_or(3) * 1000),
        1 => Times::Every(i64::try_from(r.range(1, 3)).unwrap_or(1) * 30_000),
        2 => Times::At(WALL_START + i64::try_from(r.below(200)).unwrap_or(0) * 1000),
        3 => Times::Reboot,
        4 | 5 => {
            // By no clock on the wall.
            let minute = *r.pick(&[Part::Every(1, false), Part::Every(2, false), Part::These(&[0, 1, 3, 30, 59])]);
            let hour = *r.pick(&[Part::Every(1, false), Part::These(&[7, 8, 9])]);
            Times::Cron { second: *r.pick(&[Part::These(&[0]), Part::These(&[15, 45])]), minute, hour }
        }
        _ => {
            let second =
                *r.pick(&[Part::These(&[0]), Part::Every(10, true), Part::Every(7, true), Part::These(&[3, 4, 31])]);
            let minute = *r.pick(&[Part::Any, Part::Any, Part::Every(2, true), Part::These(&[0, 2, 31])]);
            Times::Cron { second, minute, hour: Part::Any }
        }
    }
}

fn deed(r: &mut Rng, names: &[String]) -> Deed {
    let name = names.get(usize::try_from(r.below(names.len().max(1) as u64)).unwrap_or(0)).cloned();
    match (r.below(10), name) {
        (0, Some(name)) => Deed::Service(*r.pick(&[Verb::Start, Verb::Restart]), name),
        (1, Some(name)) => Deed::Service(*r.pick(&[Verb::Stop, Verb::Restart]), name),
        (2, Some(name)) => Deed::Reset(name),
        (3, Some(name)) if r.percent(50) => Deed::Signal(name),
        (3, _) => Deed::Reload,
        _ => Deed::Task(task(r)),
    }
}

fn task(r: &mut Rng) -> Value {
    let work = *r.pick(&["quick", "quick", "slow", "fails", "flaky", "noexec", "hangs"]);
    let mut spec = json!({"priority": r.below(3)});
    if r.percent(20) {
        spec["agent"] = json!(r.pick(&AGENTS));
        spec["prompt"] = json!(format!("do {}", r.below(100)));
    } else {
        spec["command"] = json!(["sim", work, r.below(100).to_string()]);
        spec["group"] = json!(r.pick(&GROUPS));
    }
    if work == "hangs" || r.percent(20) {
        spec["timeout"] = json!(format!("{}ms", r.pick(&[300, 4000, 12_000])));
    }
    if r.percent(20) {
        spec["retries"] = json!(1);
        spec["backoff"] = json!("100ms");
    }
    if r.percent(15) {
        spec["runner"] = json!(r.pick(&RUNNERS));
    }
    if r.percent(25) {
        spec["repeatable"] = json!(true);
    }
    spec
}

fn job(r: &mut Rng, id: String, names: &[String]) -> JobPlan {
    let times = times(r);
    JobPlan {
        id,
        times,
        overlap: *r.pick(&[Overlap::Skip, Overlap::Queue, Overlap::Allow, Overlap::Restart]),
        missed: *r.pick(&[Missed::Skip, Missed::Once, Missed::All]),
        limit: usize::try_from(r.range(1, 4)).unwrap_or(1),
        stagger: *r.pick(&[0, 100, 3000]),
        jitter: if r.percent(30) { *r.pick(&[500, 20_000]) } else { 0 },
        timeout: r.percent(30).then(|| *r.pick(&[100, 2000, 20_000])),
        paused: r.percent(8),
        deed: deed(r, names),
    }
}

fn ms(n: u64) -> String {
    format!("{n}ms")
}

impl JobPlan {
    fn json(&self) -> Value {
        let mut job = json!({"id": self.id, "limit": self.limit, "stagger": ms(self.stagger), "paused": self.paused});
        match self.times {
            Times::Cron { second, minute, hour } => {
                let (minute, hour) = (minute.text(59), hour.text(23));
                job["cron"] = match second {
                    Part::These([0]) => json!(format!("{minute} {hour} * * *")),
                    _ => json!(format!("{} {minute} {hour} * * *", second.text(59))),
                };
            }
            Times::Every(distance) => job["every"] = json!(format!("{distance}ms")),
            Times::At(at) => job["at"] = json!(Wall(at).to_string()),
            Times::Reboot => job["cron"] = json!("@reboot"),
        }
        job["overlap"] = json!(match self.overlap {
            Overlap::Skip => "skip",
            Overlap::Queue => "queue",
            Overlap::Allow => "allow",
            Overlap::Restart => "restart",
        });
        job["missed"] = json!(match self.missed {
            Missed::Skip => "skip",
            Missed::Once => "once",
            Missed::All => "all",
        });
        if self.jitter > 0 {
            job["jitter"] = json!(ms(self.jitter));
        }
        if let Some(limit) = self.timeout {
            job["timeout"] = json!(ms(limit));
        }
        job["action"] = match &self.deed {
            Deed::Task(spec) => json!({"task": spec}),
            Deed::Service(Verb::Start, name) => json!({"start": name}),
            Deed::Service(Verb::Stop, name) => json!({"stop": name}),
            Deed::Service(_, name) => json!({"restart": name}),
            Deed::Reset(name) => json!({"method": "service.reset", "params": {"names": [name]}}),
            Deed::Signal(name) => json!({"signal": "HUP", "service": name}),
            Deed::Reload => json!({"method": "daemon.reload"}),
        };
        job
    }

    /// As the config reads it.
    fn spec(&self) -> Arc<JobSpec> {
        let named = match &self.deed {
            Deed::Service(_, name) | Deed::Signal(name) => Some(name),
            Deed::Task(_) | Deed::Reset(_) | Deed::Reload => None,
        };
        let services: serde_json::Map<String, Value> =
            named.into_iter().map(|name| (name.clone(), json!({"command": "x"}))).collect();
        // Whether these are there when the job runs is another matter here: each version may take them away.
        let of = |names: &[&str], key: &str| -> serde_json::Map<String, Value> {
            names.iter().map(|name| ((*name).to_owned(), json!({ key: ["x"] }))).collect()
        };
        let (agents, runners) = (of(&AGENTS, "command"), of(&RUNNERS, "prefix"));
        let schedule = json!({"jobs": [self.json()]});
        let text =
            json!({"services": services, "agents": agents, "runners": runners, "schedule": schedule}).to_string();
        let platform = Platform { zones: |_| None, ..Platform::linux() };
        match hob::config::parse(&text, "f", &platform) {
            Ok(config) => Arc::clone(&config.schedule[0]),
            Err(e) => panic!("{text}: {e:?}"),
        }
    }
}

/// Gives the configs their jobs; each version may change them. Answers what each job of each version is.
pub fn configure(seed: u64, configs: &mut [Config]) -> Vec<(Arc<JobSpec>, JobPlan)> {
    let mut r = Rng::fork(seed, 5);
    let mut all = Vec::new();
    let count = if r.percent(40) { 0 } else { r.range(1, 4) };
    let mut last: Vec<Option<JobPlan>> = (0..count).map(|_| None).collect();
    for config in &mut *configs {
        let names: Vec<String> = config.services.keys().cloned().collect();
        for (i, known) in last.iter_mut().enumerate() {
            let new = job(&mut r, format!("j{i}"), &names);
            let gone = |name: &String| !names.contains(name);
            match (known.as_mut(), r.below(8)) {
                (None, 0) => {}
                (Some(_), 0) => *known = None,
                (Some(old), 1 | 2) => *old = JobPlan { times: old.times, ..new },
                (Some(_), 4..) => {}
                (None | Some(_), _) => *known = Some(new),
            }
            if let Some(job) = known
                && matches!(&job.deed, Deed::Service(_, n) | Deed::Signal(n) if gone(n))
            {
                job.deed = Deed::Reload;
            }
        }
        for job in last.iter().flatten() {
            let known = all.iter().find(|(_, plan)| plan == job).map(|(spec, _)| Arc::clone(spec));
            let spec = known.unwrap_or_else(|| {
                let spec = job.spec();
                all.push((Arc::clone(&spec), job.clone()));
                spec
            });
            config.schedule.push(spec);
        }
    }
    all
}

/// What clients ask about jobs, and what becomes of the clock.
pub fn ops(seed: u64, ops: &mut Vec<Op>) {
    let mut r = Rng::fork(seed, 6);
    let id = |r: &mut Rng| if r.percent(3) { "nobody".to_owned() } else { format!("j{}", r.below(4)) };
    for _ in 0..r.below(24) {
        let job = match r.below(10) {
            0..4 => JobAsk::Run(id(&mut r)),
            4..6 => JobAsk::Pause(vec![id(&mut r)], true),
            6..8 => JobAsk::Pause(vec![id(&mut r)], false),
            8 => JobAsk::List,
            _ if r.percent(50) => JobAsk::Get(id(&mut r)),
            _ => JobAsk::Next(id(&mut r)),
        };
        let ask = Ask { job: Some(job), ..Ask::new(Verb::Job) };
        ops.push(Op { at: r.below(FAULTS_END), what: Action::Ask { client: r.below(CLIENTS), ask } });
    }
    let seconds = |r: &mut Rng| *r.pick(&[20_i64, 90, 400, 5000, 13_000, 100_000]);
    if r.percent(50) {
        for _ in 0..r.below(4) {
            let ms = (seconds(&mut r) + i64::try_from(r.below(50)).unwrap_or(0)) * 1000;
            let what = match r.below(5) {
                0 => Action::WallStep { ms },
                1 => Action::WallStep { ms: -ms },
                2 => Action::Sleep { ms },
                3 if r.percent(30) => Action::Off { lost: r.below(20), ms: -ms },
                _ => Action::Off { lost: r.below(20), ms },
            };
            ops.push(Op { at: r.below(FAULTS_END), what });
        }
    }
    ops.sort_by_key(|op| op.at);
}
