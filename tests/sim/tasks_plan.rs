//! What a seed means for tasks: the groups of the configs, and what clients ask about tasks. Tasks are named by
//! chance here, as the how manieth of those that exist when the request is made, so that leaving out operations
//! changes little.

use crate::plan::{Action, Ask, CLIENTS, FAULTS_END, Op, Verb};
use crate::rng::Rng;
use core::time::Duration;
use hob::config::{AgentPrompt, AgentSpec, Config, GroupSpec, RunnerSpec};
use hob::protocol::methods::task::TaskState;
use std::collections::BTreeMap;

/// Groups that tasks are put into; the first and the last are always there.
pub const GROUPS: [&str; 4] = ["default", "g1", "g2", "agents"];
/// Programs that take prompts, and those that commands are handed to. A config may have them or not.
pub const AGENTS: [&str; 3] = ["default", "writer", "judge"];
pub const RUNNERS: [&str; 2] = ["ssh", "batch"];

/// What the program of a task does.
const WORKS: [&str; 12] =
    ["quick", "quick", "quick", "quick", "quick", "fails", "flaky", "flaky", "hangs", "noexec", "signalled", "slow"];

/// Which tasks a request means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    One(u64),
    Range(u64, u64),
    Group(String),
    States(Vec<TaskState>),
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskPlan {
    pub work: &'static str,
    /// The agent that gets a prompt instead.
    pub agent: Option<&'static str>,
    pub runner: Option<&'static str>,
    /// Tells apart what would be the same.
    pub mark: u64,
    pub group: String,
    pub priority: i32,
    pub weight: u32,
    /// The how manieth task it follows, and whether any end of that one will do.
    pub after: Vec<(u64, bool)>,
    pub delay: Option<u64>,
    pub timeout: Option<u64>,
    pub retries: u32,
    pub backoff: Option<u64>,
    pub repeatable: bool,
    pub hold: bool,
    pub key: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EditPlan {
    pub priority: Option<i32>,
    pub group: Option<String>,
    pub after: Option<Vec<(u64, bool)>>,
    pub delay: Option<u64>,
    pub retries: Option<u32>,
    pub weight: Option<u32>,
    pub timeout: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskAsk {
    Submit { specs: Vec<TaskPlan>, many: bool },
    Cancel { which: Which, force: bool },
    Retry { which: Which },
    Hold { which: Which },
    Release { which: Which },
    Pause { which: Which },
    Resume { which: Which },
    Prioritize { which: Which, priority: i32 },
    Edit { pick: u64, edit: EditPlan },
    Wait { which: Which, timeout: Option<u64> },
    Clean { which: Which, old: bool },
    Remove { which: Which },
    Get { pick: u64 },
    List,
    Stats,
    GroupSet { name: String, parallel: Option<u32>, weight_limit: Option<u32>, remove: bool },
    GroupPause { name: String, running: bool },
    GroupResume { name: String, running: bool },
    GroupList,
}

fn small(r: &mut Rng, of: &[u64]) -> u32 {
    u32::try_from(*r.pick(of)).unwrap_or(0)
}

fn group(r: &mut Rng) -> GroupSpec {
    GroupSpec {
        parallel: small(r, &[1, 1, 2, 2, 3, 4, 0]),
        paused: r.percent(8),
        weight_limit: if r.percent(40) { small(r, &[2, 3, 5]) } else { 0 },
        ..GroupSpec::default()
    }
}

/// An agent does what a command of one of these would do.
fn agent(r: &mut Rng) -> AgentSpec {
    let env = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let secret = [("KEY_env", "HOB_TEST_KEY"), ("MODE", "quiet")];
    AgentSpec {
        command: vec!["sim".into(), (*r.pick(&WORKS)).into()],
        prompt: *r.pick(&[AgentPrompt::Argument, AgentPrompt::Stdin, AgentPrompt::File]),
        env: if r.percent(50) { secret.into_iter().map(env).collect() } else { BTreeMap::new() },
        group: r.percent(40).then(|| (*r.pick(&GROUPS)).to_owned()),
        timeout: Some(Duration::from_millis(*r.pick(&[500, 5000]))),
    }
}

/// Each version of the config may give, take away and change programs.
fn programs(r: &mut Rng, config: &mut Config) {
    for name in AGENTS {
        match r.below(4) {
            0 => drop(config.agents.remove(name)),
            1 | 2 => drop(config.agents.insert(name.to_owned(), agent(r))),
            _ => {}
        }
    }
    for name in RUNNERS {
        match r.below(4) {
            0 => drop(config.runners.remove(name)),
            1 | 2 => {
                let prefix = vec![name.to_owned(), format!("host{}", r.below(3))];
                config.runners.insert(name.to_owned(), RunnerSpec { prefix, quote: r.percent(30) });
            }
            _ => {}
        }
    }
}

/// Gives the configs their groups and programs; each version may change them.
pub fn configure(seed: u64, configs: &mut [Config]) {
    let mut r = Rng::fork(seed, 4);
    let mut groups = BTreeMap::new();
    let mut last = Config::default();
    for config in configs {
        programs(&mut r, &mut last);
        (config.agents, config.runners) = (last.agents.clone(), last.runners.clone());
        for name in GROUPS {
            match r.below(4) {
                0 => {
                    groups.remove(name);
                }
                1 | 2 => {
                    groups.insert(name.to_owned(), group(&mut r));
                }
                _ => {}
            }
        }
        config.groups.clone_from(&groups);
    }
}

fn plan(r: &mut Rng) -> TaskPlan {
    let limited = r.percent(25);
    let work = *r.pick(&WORKS);
    TaskPlan {
        work,
        agent: r.percent(15).then(|| *r.pick(&AGENTS)),
        runner: r.percent(12).then(|| *r.pick(&RUNNERS)),
        mark: r.below(1000),
        group: (*r.pick(&GROUPS)).to_owned(),
        priority: if r.percent(40) { i32::try_from(r.below(7)).unwrap_or(0) - 3 } else { 0 },
        weight: if r.percent(40) { small(r, &[1, 2, 3, 9]) } else { 1 },
        after: after(r),
        delay: r.percent(15).then(|| r.below(20_000)),
        // What hangs would otherwise take a slot for all the time.
        timeout: (limited || work == "hangs" && r.percent(90)).then(|| *r.pick(&[200, 1000, 8000, 20_000])),
        retries: if r.percent(40) { small(r, &[1, 2, 3]) } else { 0 },
        backoff: r.percent(60).then(|| *r.pick(&[0, 100, 1000])),
        repeatable: r.percent(25),
        hold: r.percent(8),
        key: r.percent(15).then(|| format!("own{}", r.below(4))),
    }
}

fn after(r: &mut Rng) -> Vec<(u64, bool)> {
    if !r.percent(30) {
        return Vec::new();
    }
    (0..r.range(1, 2)).map(|_| (r.next(), r.percent(40))).collect()
}

fn which(r: &mut Rng) -> Which {
    match r.below(20) {
        0 => Which::Unknown,
        1..4 => Which::Range(r.next(), r.below(4)),
        4 | 5 => Which::Group((*r.pick(&GROUPS)).to_owned()),
        6 => Which::States(vec![*r.pick(&TaskState::ALL)]),
        _ => Which::One(r.next()),
    }
}

fn submit(r: &mut Rng) -> TaskAsk {
    let many = r.percent(30);
    let count = if many { r.range(1, 8) } else { 1 };
    let mut specs: Vec<TaskPlan> = (0..count).map(|_| plan(r)).collect();
    if many {
        for spec in &mut specs {
            spec.key = if r.percent(1) { spec.key.take() } else { None };
        }
        // The same list again is the rule only where there are few different ones.
        if r.percent(30) {
            let one = TaskPlan {
                mark: r.below(2),
                work: "quick",
                agent: None,
                runner: None,
                after: Vec::new(),
                key: Some(format!("own{}", r.below(4))),
                ..plan(r)
            };
            specs = vec![one; usize::try_from(r.range(1, 3)).unwrap_or(1)];
        }
    }
    TaskAsk::Submit { specs, many }
}

fn ask(r: &mut Rng) -> TaskAsk {
    let group = |r: &mut Rng| (*r.pick(&GROUPS)).to_owned();
    match r.below(64) {
        0..6 => TaskAsk::Cancel { which: which(r), force: r.percent(30) },
        6..10 => TaskAsk::Retry { which: which(r) },
        10..13 => TaskAsk::Hold { which: which(r) },
        13..16 => TaskAsk::Release { which: which(r) },
        16..18 => TaskAsk::Pause { which: which(r) },
        18..20 => TaskAsk::Resume { which: which(r) },
        20..22 => TaskAsk::Prioritize { which: which(r), priority: i32::try_from(r.below(9)).unwrap_or(0) - 4 },
        22..25 => TaskAsk::Edit { pick: r.next(), edit: edit(r) },
        25..28 => TaskAsk::Wait { which: which(r), timeout: r.percent(50).then(|| r.range(1, 30_000)) },
        28 => TaskAsk::Clean { which: which(r), old: r.percent(30) },
        29 | 30 => TaskAsk::Remove { which: which(r) },
        31 => TaskAsk::Get { pick: r.next() },
        32 => TaskAsk::List,
        33 => TaskAsk::Stats,
        34 | 35 => TaskAsk::GroupSet {
            name: group(r),
            parallel: r.percent(70).then(|| small(r, &[0, 1, 2, 3, 5])),
            weight_limit: r.percent(50).then(|| small(r, &[0, 2, 4])),
            remove: r.percent(20),
        },
        36 => TaskAsk::GroupPause { name: group(r), running: r.percent(50) },
        37 | 38 => TaskAsk::GroupResume { name: group(r), running: r.percent(50) },
        39 => TaskAsk::GroupList,
        _ => submit(r),
    }
}

fn edit(r: &mut Rng) -> EditPlan {
    EditPlan {
        priority: r.percent(30).then(|| i32::try_from(r.below(9)).unwrap_or(0) - 4),
        group: r.percent(30).then(|| (*r.pick(&GROUPS)).to_owned()),
        after: r.percent(40).then(|| after(r)),
        delay: r.percent(15).then(|| r.below(10_000)),
        retries: r.percent(20).then(|| small(r, &[0, 1, 2])),
        weight: r.percent(20).then(|| small(r, &[1, 2, 6])),
        timeout: r.percent(20).then(|| r.range(500, 10_000)),
    }
}

/// What clients ask about tasks in this seed. Some seeds have none, some little else.
pub fn ops(seed: u64, ops: &mut Vec<Op>) {
    let mut r = Rng::fork(seed, 3);
    if r.percent(15) {
        return;
    }
    if r.percent(40) {
        let keep = ops.len() / 2;
        let fate = |op: &Op| !matches!(op.what, Action::Ask { .. } | Action::Crash { .. } | Action::Lag { .. });
        let mut n = 0;
        ops.retain(|op| {
            n += 1;
            n <= keep || fate(op)
        });
    }
    let bursts = r.percent(50);
    for _ in 0..r.range(5, 60) {
        let at = r.below(FAULTS_END);
        let at = if bursts { at / 10_000 * 10_000 + r.below(40) } else { at };
        let task = ask(&mut r);
        let submits = matches!(task, TaskAsk::Submit { .. });
        let key = (submits && r.percent(30)).then(|| format!("s{}", r.below(3)));
        let again = key.is_some() && r.percent(60);
        let ask = Ask { key, task: Some(task), ..Ask::new(Verb::Task) };
        let what = Action::Ask { client: r.below(CLIENTS), ask };
        // A client that has no answer yet asks again, with the same key.
        if again {
            ops.push(Op { at: at + r.below(800), what: what.clone() });
        }
        ops.push(Op { at, what });
    }
    // A flood: many at one moment from one client.
    if r.percent(15) {
        let (at, client) = (r.below(FAULTS_END), r.below(CLIENTS));
        for _ in 0..r.range(10, 40) {
            let ask = Ask { task: Some(submit(&mut r)), ..Ask::new(Verb::Task) };
            ops.push(Op { at, what: Action::Ask { client, ask } });
        }
    }
    ops.sort_by_key(|op| op.at);
}
