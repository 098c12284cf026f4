//! What a seed means: the swarm's options, the configs, and the list of what clients and fate do, which can be shrunk.

use crate::jobs_plan::{self, JobAsk, JobPlan};
use crate::rng::Rng;
use crate::tasks_plan::{self, TaskAsk};
use core::time::Duration;
use hob::config::{
    Address, Check, Condition, Config, Health, JobSpec, Listen, Need, Ready, Restart, ServiceSpec, Signal, UnixType,
};
use std::sync::Arc;

/// Length of the phase with faults, in milliseconds of virtual time.
pub const FAULTS_END: u64 = 120_000;
/// Clients of the simulator.
pub const CLIENTS: u64 = 3;

/// Which kinds of trouble this seed has; each is off in many seeds, so that others show more.
#[derive(Clone, Debug)]
pub struct Options {
    /// Percent of starts that fail for want of something.
    pub transient: u64,
    /// Results may take up to this many milliseconds.
    pub slow: u64,
    /// Percent of processes that ignore every signal but KILL.
    pub deaf: u64,
    /// Percent of runs that leave children behind.
    pub leftovers: u64,
    /// Killed processes may take up to this many milliseconds to go.
    pub unkillable: u64,
    /// Control groups tell of their own when they become empty, even before the exit is seen.
    pub tells_empty: bool,
    /// Percent of processes that stop to say that they live.
    pub mute: u64,
    /// Percent of health checks that fail.
    pub sick: u64,
    /// Percent of ends whose output is reported.
    pub output: u64,
}

/// One thing that happens.
#[derive(Clone, Debug)]
pub struct Op {
    /// Milliseconds from the start.
    pub at: u64,
    pub what: Action,
}

#[derive(Clone, Debug)]
pub enum Action {
    Ask {
        client: u64,
        ask: Ask,
    },
    Disconnect {
        client: u64,
    },
    /// The config file changes to this version; `None`: it becomes unreadable. `signal`: SIGHUP instead of a request.
    Reload {
        version: Option<usize>,
        client: u64,
        signal: bool,
    },
    /// The daemon is killed this many effects later.
    KillDaemon {
        effects: u64,
        when: Death,
    },
    /// Keeper and daemon are killed; the processes live on.
    KillBoth,
    /// The keeper alone is killed.
    KillKeeper,
    PowerLoss {
        lost: u64,
    },
    /// The same, with nothing lost but one record in the middle.
    Damage {
        pick: u64,
    },
    /// The same, and the machine stays off for a while.
    Off {
        lost: u64,
        ms: i64,
    },
    Shutdown {
        hurry: bool,
    },
    /// The wall clock is set, by at least a second.
    WallStep {
        ms: i64,
    },
    /// The machine sleeps: the wall clock goes on, and nothing else.
    Sleep {
        ms: i64,
    },
    /// The daemon does not run for a while.
    Freeze {
        ms: u64,
    },
    Crash {
        service: String,
        code: i32,
    },
    Lag {
        client: u64,
    },
    JournalBehind {
        on: bool,
    },
    JournalFull {
        on: bool,
    },
}

impl Action {
    /// Whether a daemon that does not run for a while sees it only afterwards.
    pub fn needs_daemon(&self) -> bool {
        match self {
            Action::Ask { .. }
            | Action::Disconnect { .. }
            | Action::Reload { .. }
            | Action::Shutdown { .. }
            | Action::KillKeeper
            | Action::Lag { .. }
            | Action::JournalBehind { .. }
            | Action::JournalFull { .. } => true,
            Action::KillDaemon { .. }
            | Action::KillBoth
            | Action::PowerLoss { .. }
            | Action::Off { .. }
            | Action::Damage { .. }
            | Action::WallStep { .. }
            | Action::Sleep { .. }
            | Action::Freeze { .. }
            | Action::Crash { .. } => false,
        }
    }
}

/// Where in a round the daemon dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// Between two effects.
    Between,
    /// The core has decided, nothing is written.
    BeforeWrite,
    /// Some records of the round are written.
    Torn,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    pub verb: Verb,
    pub names: Vec<String>,
    pub wait: bool,
    pub timeout: Option<u64>,
    pub key: Option<String>,
    /// What is asked about tasks (`Verb::Task`), or about jobs (`Verb::Job`).
    pub task: Option<TaskAsk>,
    pub job: Option<JobAsk>,
}

impl Ask {
    /// With nothing else.
    pub fn new(verb: Verb) -> Ask {
        Ask { verb, names: Vec::new(), wait: false, timeout: None, key: None, task: None, job: None }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Start,
    /// A transient service.
    New,
    /// What a reload would do.
    Plan,
    Stop,
    Restart,
    Reset,
    Reload,
    Signal,
    List,
    Status,
    Why,
    History,
    Subscribe,
    Events,
    Ping,
    Inhibit,
    Doctor,
    Task,
    Job,
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub options: Options,
    pub configs: Vec<Config>,
    pub jobs: Vec<(Arc<JobSpec>, JobPlan)>,
    pub ops: Vec<Op>,
}

impl Plan {
    pub fn new(seed: u64) -> Plan {
        let mut r = Rng::fork(seed, 1);
        let options = options(&mut r);
        let mut configs = configs(&mut r);
        let mut ops = ops(&mut r, &configs);
        tasks_plan::configure(seed, &mut configs);
        let jobs = jobs_plan::configure(seed, &mut configs);
        tasks_plan::ops(seed, &mut ops);
        let mut r = Rng::fork(seed, 7);
        if r.percent(20) {
            for _ in 0..r.range(1, 2) {
                ops.push(Op { at: r.below(FAULTS_END), what: Action::Damage { pick: r.next() } });
            }
            ops.sort_by_key(|op| op.at);
        }
        if !jobs.is_empty() {
            jobs_plan::ops(seed, &mut ops);
        }
        Plan { seed, options, configs, jobs, ops }
    }

    /// Names in any of the configs.
    pub fn names(&self) -> Vec<String> {
        names(&self.configs)
    }
}

fn names(configs: &[Config]) -> Vec<String> {
    let mut all: Vec<String> = configs.iter().flat_map(|c| c.services.keys().cloned()).collect();
    all.sort();
    all.dedup();
    all
}

fn options(r: &mut Rng) -> Options {
    let mut some = |p, values: &[u64]| if r.percent(p) { *r.pick(values) } else { 0 };
    Options {
        transient: some(40, &[5, 20, 60]),
        slow: some(40, &[50, 500, 3000]),
        deaf: some(50, &[10, 40]),
        leftovers: some(60, &[10, 50]),
        unkillable: some(30, &[50, 4000]),
        tells_empty: some(50, &[1]) == 1,
        mute: some(40, &[10, 50]),
        sick: some(50, &[5, 30, 80]),
        output: 100 - some(50, &[30, 100]),
    }
}

fn configs(r: &mut Rng) -> Vec<Config> {
    let count = r.range(2, 7);
    let all: Vec<String> = (0..count).map(|i| char::from(b'a' + u8::try_from(i).unwrap_or(0)).to_string()).collect();
    let mut config = Config::default();
    config.daemon.heartbeat = Duration::from_secs(*r.pick(&[0, 30]));
    config.daemon.shutdown_timeout = Duration::from_secs(*r.pick(&[3, 20]));
    config.daemon.shutdown_grace = Duration::from_secs(*r.pick(&[0, 5]));
    config.daemon.update_command = r.pick(&[None, Some("newest")]).map(|program| vec![program.to_owned()]);
    config.daemon.update_every = Duration::from_secs(*r.pick(&[5, 60]));
    for (i, name) in all.iter().enumerate() {
        config.services.insert(name.clone(), Arc::new(service(r, &all[..i])));
    }
    reachable(&mut config);
    let mut versions = vec![config];
    for _ in 0..r.below(4) {
        let last = versions.len() - 1;
        let next = changed(r, &versions[last], &all);
        versions.push(next);
    }
    versions
}

/// The same config with some services new, gone, or changed.
fn changed(r: &mut Rng, from: &Config, all: &[String]) -> Config {
    let mut config = from.clone();
    for (i, name) in all.iter().enumerate() {
        match r.below(6) {
            0 => {
                config.services.remove(name);
            }
            1 => {
                config.services.insert(name.clone(), Arc::new(service(r, &all[..i])));
            }
            2 => {
                if let Some(spec) = config.services.get(name) {
                    let mut spec = ServiceSpec::clone(spec);
                    policy(r, &mut spec);
                    config.services.insert(name.clone(), Arc::new(spec));
                }
            }
            _ => {}
        }
    }
    // A need that is not in the config is a config error, so it never reaches the core.
    let present: Vec<String> = config.services.keys().cloned().collect();
    for spec in config.services.values_mut() {
        let spec = Arc::make_mut(spec);
        for needs in [&mut spec.requires, &mut spec.wants, &mut spec.after] {
            needs.retain(|n| present.contains(&n.name));
        }
    }
    reachable(&mut config);
    config
}

/// What runs on demand may never be more than ready; to need more of it is a config error.
fn reachable(config: &mut Config) {
    let on_demand = |(name, s): (&String, &Arc<ServiceSpec>)| s.on_demand.then(|| name.clone());
    let on_demand: Vec<String> = config.services.iter().filter_map(on_demand).collect();
    for spec in config.services.values_mut() {
        let spec = Arc::make_mut(spec);
        let needs = spec.requires.iter_mut().chain(&mut spec.wants).chain(&mut spec.after);
        for need in needs.filter(|n| on_demand.contains(&n.name)) {
            need.condition = need.condition.min(Condition::Ready);
        }
    }
}

const CONDITIONS: [Condition; 7] = [
    Condition::Started,
    Condition::Started,
    Condition::Ready,
    Condition::Ready,
    Condition::Healthy,
    Condition::Finished,
    Condition::Succeeded,
];

/// What clients make themselves: names and configs.
pub const TRANSIENT: [(&str, &str); 2] =
    [("t0", r#"{"command":["sim","good"]}"#), ("t1", r#"{"command":["sim","task"],"restart":"never"}"#)];

/// The programs that the fake system knows.
const PROGRAMS: [&str; 9] = ["good", "good", "good", "crashy", "crashy", "task", "late", "doomed", "noexec"];

fn service(r: &mut Rng, earlier: &[String]) -> ServiceSpec {
    let mut spec = ServiceSpec { command: vec!["sim".into(), (*r.pick(&PROGRAMS)).into()], ..ServiceSpec::default() };
    spec.ready = match r.below(7) {
        0 => Ready::Notify,
        1 => Ready::Port(80),
        2 => Ready::Log("up".into()),
        3 => Ready::Fd(3),
        4 => Ready::Command(vec!["true".into()]),
        _ => Ready::Spawned,
    };
    spec.oneshot = program(&spec) == "task" && r.percent(50);
    spec.watchdog = r.percent(30).then_some(Duration::from_secs(5));
    policy(r, &mut spec);
    for name in earlier {
        let condition = *r.pick(&CONDITIONS);
        let need = Need { name: name.clone(), condition };
        match r.below(10) {
            0..3 => spec.requires.push(need),
            3 => spec.wants.push(need),
            4 => spec.after.push(need),
            _ => {}
        }
    }
    spec
}

fn policy(r: &mut Rng, spec: &mut ServiceSpec) {
    spec.autostart = r.percent(80);
    spec.restart = *r.pick(&[Restart::Always, Restart::OnFailure, Restart::OnFailure, Restart::Never]);
    spec.min_delay = Duration::from_millis(*r.pick(&[0, 100, 100, 1000]));
    spec.max_delay = Duration::from_millis(*r.pick(&[1000, 5000, 30_000]));
    spec.reset_after = Duration::from_secs(*r.pick(&[1, 10]));
    spec.max_restarts = u32::try_from(*r.pick(&[0, 0, 2, 4])).unwrap_or(0);
    if spec.min_delay.is_zero() && spec.max_restarts == 0 {
        // Otherwise what never works would fill the whole time with starts.
        spec.max_restarts = 3;
    }
    spec.window = r.percent(50).then_some(Duration::from_secs(10));
    spec.ready_timeout = Duration::from_secs(*r.pick(&[2, 20]));
    spec.stop_timeout = Duration::from_millis(*r.pick(&[500, 3000, 10_000]));
    spec.stop_signal = Signal { number: *r.pick(&[15, 2]) };
    spec.leave_children = r.percent(15);
    spec.health = r.percent(35).then(|| Health {
        every: Duration::from_millis(*r.pick(&[500, 3000, 10_000])),
        retries: u32::try_from(r.range(1, 4)).unwrap_or(1),
        ..Health::new(Check::Command(vec!["check".into()]))
    });
    if r.percent(35) {
        spec.listen = vec![Listen::new(Address::Unix(UnixType::Stream, "/s".into()))];
    }
    spec.on_demand = !spec.listen.is_empty() && !spec.oneshot && r.percent(70);
    spec.stop_command = r.percent(25).then(|| vec!["stop".into()]);
    if spec.oneshot {
        // Otherwise it is a config error, and never reaches the core.
        (spec.ready, spec.health, spec.watchdog) = (Ready::Spawned, None, None);
        if spec.restart == Restart::Always {
            spec.restart = Restart::OnFailure;
        }
    }
    if spec.on_demand && spec.restart == Restart::Always {
        spec.restart = Restart::OnFailure;
    }
}

fn ops(r: &mut Rng, configs: &[Config]) -> Vec<Op> {
    let names = names(configs);
    // Each kind of fate is on in some seeds only.
    let mut weights: Vec<(u64, u64)> = vec![(0, 60)];
    for (kind, weight, on) in
        [(1, 4, 50), (2, 6, 60), (3, 12, 70), (4, 2, 30), (5, 1, 20), (6, 2, 25), (7, 2, 30), (8, 4, 40), (9, 3, 30)]
    {
        if r.percent(on) {
            weights.push((kind, weight));
        }
    }
    for (kind, weight, on) in [(10, 8, 70), (11, 2, 30), (12, 2, 20), (13, 2, 20)] {
        if r.percent(on) {
            weights.push((kind, weight));
        }
    }
    let total: u64 = weights.iter().map(|(_, w)| w).sum();
    let count = r.range(5, 90);
    let mut at: Vec<u64> = (0..count).map(|_| r.below(FAULTS_END)).collect();
    // Half of the seeds have bursts: much at one moment.
    if r.percent(50) {
        for t in &mut at {
            *t = *t / 10_000 * 10_000 + r.below(40);
        }
    }
    at.sort_unstable();
    let mut ops = Vec::new();
    for at in at {
        let mut left = r.below(total);
        let kind = weights.iter().find(|(_, w)| {
            let hit = left < *w;
            left = left.saturating_sub(*w);
            hit
        });
        let what = action(r, kind.map_or(0, |k| k.0), &names, configs);
        // A client that has no answer yet may ask again, with the same key.
        if matches!(&what, Action::Ask { ask, .. } if ask.key.is_some()) && r.percent(50) {
            ops.push(Op { at: at + r.below(500), what: what.clone() });
        }
        ops.push(Op { at, what });
    }
    ops.sort_by_key(|op| op.at);
    ops
}

fn action(r: &mut Rng, kind: u64, names: &[String], configs: &[Config]) -> Action {
    let client = r.below(CLIENTS);
    match kind {
        1 => Action::Disconnect { client },
        2 => {
            let version = (!r.percent(15)).then(|| usize::try_from(r.below(configs.len() as u64)).unwrap_or(0));
            Action::Reload { version, client, signal: r.percent(40) }
        }
        3 => {
            let when = *r.pick(&[Death::Between, Death::Between, Death::Between, Death::BeforeWrite, Death::Torn]);
            Action::KillDaemon { effects: r.below(12), when }
        }
        4 => Action::KillBoth,
        5 => Action::KillKeeper,
        6 => Action::PowerLoss { lost: r.below(20) },
        7 => Action::Shutdown { hurry: r.percent(20) },
        8 => {
            let seconds = i64::try_from(r.below(7200)).unwrap_or(0) - 3600;
            Action::WallStep { ms: if seconds == 0 { 1000 } else { seconds * 1000 } }
        }
        9 => Action::Freeze { ms: *r.pick(&[300, 5000, 60_000]) },
        10 => Action::Crash { service: r.pick(names).clone(), code: i32::try_from(r.below(3)).unwrap_or(1) },
        11 => Action::Lag { client },
        12 => Action::JournalBehind { on: r.percent(60) },
        13 => Action::JournalFull { on: r.percent(60) },
        _ => Action::Ask { client, ask: ask(r, names) },
    }
}

fn ask(r: &mut Rng, names: &[String]) -> Ask {
    use Verb::{
        Doctor, Events, History, Inhibit, List, New, Ping, Plan, Reset, Restart, Signal, Start, Status, Stop,
        Subscribe, Why,
    };
    let verb = *r.pick(&[
        Start, Start, Start, Stop, Stop, Stop, Restart, Restart, Reset, Signal, List, Status, Why, History, Subscribe,
        Events, Ping, Inhibit, Doctor, New, New, Plan,
    ]);
    let one = if verb == New || r.percent(12) { r.pick(&TRANSIENT).0.to_owned() } else { r.pick(names).clone() };
    let mut wanted = vec![one];
    if matches!(verb, Start | Stop | Restart) && r.percent(30) {
        wanted.push(r.pick(names).clone());
    }
    if r.percent(3) {
        wanted.push("nobody".to_owned());
    }
    let key = r.percent(30).then(|| format!("k{}", r.below(4)));
    let (wait, timeout) = (r.percent(50), r.percent(50).then(|| r.range(1, 30_000)));
    Ask { verb, names: wanted, wait, timeout, key, task: None, job: None }
}

/// What a process of this service does for sure when there are no faults: run for ever, end well, or fail.
pub fn works(spec: &ServiceSpec) -> bool {
    !matches!(program(spec), "doomed" | "noexec")
}

pub fn program(spec: &ServiceSpec) -> &str {
    // A runner has words of its own before that, and may quote these.
    let mut words = spec.command.iter().map(|w| w.trim_matches('\'')).skip_while(|w| *w != "sim");
    words.nth(1).unwrap_or("good")
}
