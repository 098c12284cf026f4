//! A plan against the reload that follows it, on random pairs of configs: the same acts in the same order, and nothing
//! is changed by the plan itself. A failing seed is repeated by `HOB_PLAN_SEED=17 cargo test --test reload_plan`.

// Helpers of a test fail as loudly as the test.
#![allow(clippy::unwrap_used)]

use hob::base::ids::{ConnId, ReqId, RunId};
use hob::base::time::{Mono, Now, Wall};
use hob::config::{Access, Config, Platform, Ready, parse};
use hob::core::{Boot, Core, Duty, Effect, End, Input, Out, Peer, Usage};
use hob::protocol::methods::{Change, NewService, Request};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;

/// Seeds unless HOB_PLAN_SEEDS says more.
const SEEDS: u64 = 300;
const NAMES: [&str; 7] = ["a", "b", "c", "d", "e", "f", "g"];

struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }

    fn pick<'t, T>(&mut self, all: &'t [T]) -> &'t T {
        &all[usize::try_from(self.below(all.len() as u64)).unwrap()]
    }

    fn percent(&mut self, p: u64) -> bool {
        self.below(100) < p
    }
}

/// The members of one service, by key, so that a second config can change some of them.
type Service = BTreeMap<&'static str, String>;

fn service(r: &mut Rng, earlier: &[&str]) -> Service {
    let mut s = Service::new();
    s.insert("command", "[\"x\"]".to_owned());
    for _ in 0..r.below(5) {
        member(r, earlier, &mut s);
    }
    s
}

fn member(r: &mut Rng, earlier: &[&str], s: &mut Service) {
    let some = |r: &mut Rng| r.pick(&["1", "2", "3"]).to_string();
    let (key, value) = match r.below(14) {
        0 => ("command", format!("[\"x\",\"{}\"]", some(r))),
        1 => ("env", format!("{{\"A\":\"{}\",\"B\":\"{}\"}}", some(r), some(r))),
        2 => ("autostart", r.percent(50).to_string()),
        3 => ("stop_timeout", format!("\"{}s\"", some(r))),
        4 => ("log", format!("{{\"max_files\":{}}}", some(r))),
        5 => ("ready", r.pick(&["\"notify\"", "{\"port\":80}", "{\"log\":\"up\"}", "\"spawned\""]).to_string()),
        6 => ("oneshot", r.percent(50).to_string()),
        7 => ("restart", r.pick(&["\"always\"", "\"never\"", "\"on-failure\""]).to_string()),
        8 => ("stop_command", "\"stop\"".to_owned()),
        9 => ("health", "{\"tcp\":1}".to_owned()),
        10 => ("instances", r.pick(&["null", "1", "2", "3"]).to_string()),
        n => {
            let key = ["requires", "wants", "after"][usize::try_from(n - 11).unwrap()];
            let mut needs: Vec<String> = Vec::new();
            for name in earlier {
                if r.percent(40) {
                    let condition = r.pick(&["started", "ready", "healthy", "succeeded"]);
                    let bare = format!("\"{name}\"");
                    let object = format!("{{\"name\":\"{name}\",\"condition\":\"{condition}\"}}");
                    needs.push(if r.percent(60) { bare } else { object });
                }
            }
            (key, format!("[{}]", needs.join(",")))
        }
    };
    s.insert(key, value);
}

/// Services in an order in which each needs only earlier ones.
type File = Vec<(&'static str, Service)>;

fn text(file: &File) -> String {
    let mut text = "{\"daemon\":{\"heartbeat\":\"0s\"},\"services\":{".to_owned();
    for (name, members) in file {
        let members: Vec<String> = members.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
        write!(text, "\"{name}\":{{{}}},", members.join(",")).unwrap();
    }
    text + "}}"
}

fn read(file: &File) -> Option<Config> {
    parse(&text(file), "f", &Platform::linux()).ok()
}

/// A good file near another, which may be empty.
fn near(r: &mut Rng, old: &File) -> (File, Config) {
    loop {
        let mut file = File::new();
        for name in NAMES {
            let earlier: Vec<&str> = file.iter().map(|(name, _)| *name).collect();
            match old.iter().find(|(n, _)| *n == name) {
                Some((_, members)) if !r.percent(20) => {
                    let mut members = members.clone();
                    for _ in 0..r.below(3) {
                        member(r, &earlier, &mut members);
                    }
                    file.push((name, members));
                }
                _ if r.percent(60) => file.push((name, service(r, &earlier))),
                _ => {}
            }
        }
        // Needs of what is gone, and keys that do not go together, are for other tests.
        if let Some(config) = read(&file) {
            return (file, config);
        }
    }
}

struct World {
    core: Core,
    inputs: VecDeque<Input>,
    runs: BTreeMap<RunId, (String, bool)>,
    acts: Vec<(String, String)>,
    replies: Vec<Result<String, String>>,
    req: u64,
    file: Option<Config>,
}

impl World {
    fn step(&mut self, input: Input) {
        let mut out = Out::default();
        let now = Now { mono: Mono(1_000_000_000_000), wall: Wall(1_700_000_000_000) };
        self.core.step(now, input, &mut out);
        for effect in out.effects {
            self.come_about(effect);
        }
    }

    fn come_about(&mut self, effect: Effect) {
        let exited = |run, end| Input::Exited { run, end, usage: Usage::default() };
        match effect {
            Effect::Start(start) => {
                let run = start.run;
                self.runs.insert(run, (start.service.to_string(), false));
                self.acts.push(("start".to_owned(), start.service.to_string()));
                self.inputs.push_back(Input::Started { run, result: Ok(u32::try_from(run.0).unwrap()) });
                if start.spec.oneshot {
                    self.inputs.push_back(exited(run, End::Code(0)));
                } else if start.spec.ready == Ready::Notify {
                    let fields = vec![("READY".to_owned(), "1".to_owned())];
                    self.inputs.push_back(Input::Notify { run, fields });
                }
            }
            Effect::Signal { run, signal, .. } => {
                self.stopped(run);
                self.inputs.push_back(exited(run, End::Signal(signal)));
            }
            Effect::Check { run, what: Duty::Stop, .. } => {
                self.stopped(run);
                self.inputs.push_back(Input::Checked { run, what: Duty::Stop, result: Ok(()) });
                self.inputs.push_back(exited(run, End::Code(0)));
            }
            Effect::Check { run, what, .. } => self.inputs.push_back(Input::Checked { run, what, result: Ok(()) }),
            Effect::Await { run, .. } => self.inputs.push_back(Input::ReadySeen { run }),
            Effect::Sweep { run } => self.inputs.push_back(Input::Tree { run, left: Vec::new() }),
            Effect::LoadConfig { req, look } => {
                let result = Ok(Box::new(self.file.clone().unwrap()));
                self.inputs.push_front(Input::ConfigRead { req, look, result });
            }
            Effect::Reply { result, .. } => self.replies.push(result.map_err(|e| e.message)),
            _ => {}
        }
    }

    fn stopped(&mut self, run: RunId) {
        if let Some((name, stopped)) = self.runs.get_mut(&run)
            && !std::mem::replace(stopped, true)
        {
            self.acts.push(("stop".to_owned(), name.clone()));
        }
    }

    fn ask(&mut self, request: Request) {
        self.req += 1;
        let peer = Peer { uid: 0, pid: 1, access: Access::Admin, job: None, schedule: None };
        let (req, conn) = (ReqId(self.req), ConnId(1));
        self.step(Input::Request { req, conn, peer, key: None, params_hash: 0, request });
    }

    fn rest(&mut self) {
        while let Some(input) = self.inputs.pop_front() {
            self.step(input);
        }
    }

    /// What somebody did before. The last of it may still be under way.
    fn past(&mut self, r: &mut Rng, quiet: bool) {
        let names: Vec<String> = self.file.as_ref().unwrap().services.keys().cloned().collect();
        for _ in 0..r.below(6) {
            self.rest();
            let name = if names.is_empty() { "t".to_owned() } else { r.pick(&names).clone() };
            let change = Change { names: vec![name.clone()], all: false, wait: false, timeout: None };
            match r.below(5) {
                0 => self.ask(Request::ServiceStart(change)),
                1 => self.ask(Request::ServiceStop(change)),
                2 => self.ask(Request::ServiceRestart(change)),
                3 => {
                    let run = self.runs.iter().rev().find(|(_, (n, _))| *n == name).map(|(run, _)| *run);
                    if let Some(run) = run {
                        self.step(Input::Exited { run, end: End::Code(1), usage: Usage::default() });
                    }
                }
                _ => {
                    let needs = if r.percent(50) && !names.is_empty() { format!("\"{name}\"") } else { String::new() };
                    let config = format!("{{\"command\":[\"t\"],\"requires\":[{needs}]}}");
                    let name = r.pick(&["t", "u", "g"]).to_string();
                    self.ask(Request::ServiceNew(NewService { name, config, wait: false, timeout: None }));
                }
            }
        }
        if quiet {
            self.rest();
        }
    }

    fn last(&self) -> serde_json::Value {
        serde_json::from_str(self.replies.last().unwrap().as_ref().unwrap()).unwrap()
    }
}

/// The same world for the same seed, up to the moment of the reload.
fn world(seed: u64, quiet: bool) -> (World, Config) {
    let mut r = Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let (old, config) = near(&mut r, &File::new());
    let mut w = World {
        core: Core::new(),
        inputs: VecDeque::new(),
        runs: BTreeMap::new(),
        acts: Vec::new(),
        replies: Vec::new(),
        req: 0,
        file: Some(config.clone()),
    };
    let boot = Boot { config, signals: Platform::linux().signals, ..Boot::default() };
    w.step(Input::Boot(Box::new(Boot { keeper_key: "k".to_owned(), generation: 1, ..boot })));
    w.past(&mut r, quiet);
    let (_, new) = near(&mut r, &old);
    w.acts.clear();
    (w, new)
}

fn acts(value: &serde_json::Value) -> Vec<(String, String)> {
    let text = |v: &serde_json::Value| v.as_str().unwrap().to_owned();
    value["order"].as_array().unwrap().iter().map(|a| (text(&a["action"]), text(&a["name"]))).collect()
}

fn check(seed: u64, quiet: bool) -> usize {
    let (mut w, new) = world(seed, quiet);
    w.file = Some(new);
    let pending: Vec<Input> = w.inputs.drain(..).collect();
    // An end that the core has not heard of may come before what it plans for that run.
    let unheard = pending.iter().any(|input| matches!(input, Input::Exited { .. }));
    let before = format!("{:?}", w.core);
    w.ask(Request::DaemonPlan);
    w.rest();
    assert_eq!(format!("{:?}", w.core), before, "seed {seed}: the plan has changed something");
    let plan = w.last();
    let planned = acts(&plan);
    w.inputs.extend(pending);
    w.ask(Request::DaemonReload);
    let load = w.inputs.pop_front().unwrap();
    w.step(load);
    let done = w.last();
    w.rest();
    for list in ["added", "removed", "restarted", "updated", "unchanged"] {
        assert_eq!(plan[list], done[list], "seed {seed}: {list}");
    }
    if quiet {
        assert_eq!(planned, w.acts, "seed {seed}: {plan:#}");
        w.ask(Request::DaemonPlan);
        w.rest();
        let again = w.last();
        assert_eq!(again["changes"].as_array().unwrap().len(), 0, "seed {seed}: {again:#}");
        assert_eq!(acts(&again), []);
    } else if !unheard {
        // What was under way comes between, so only what happens counts, without what happens anyway.
        let (mut other, _) = world(seed, quiet);
        other.rest();
        let anyway: BTreeSet<_> = other.acts.into_iter().collect();
        let real: BTreeSet<_> = w.acts.iter().filter(|act| !anyway.contains(*act)).cloned().collect();
        assert_eq!(planned.iter().cloned().collect::<BTreeSet<_>>(), real, "seed {seed}: {anyway:?} {plan:#}");
    }
    told(seed, &plan, &planned);
    planned.len()
}

/// Each row tells of the acts of its service, and every act is told.
fn told(seed: u64, plan: &serde_json::Value, planned: &[(String, String)]) {
    let mut rows = BTreeSet::new();
    for row in plan["changes"].as_array().unwrap() {
        let (action, name) = (row["action"].as_str().unwrap(), row["name"].as_str().unwrap());
        assert!(rows.insert(name.to_owned()), "seed {seed}: {name} stands twice");
        let did = |what: &str| planned.iter().any(|(act, n)| act == what && n == name);
        let want = match action {
            "restart" => (true, true),
            "stop" => (true, false),
            "start" => (false, true),
            "update" | "add" | "remove" | "wait" => (false, false),
            other => panic!("seed {seed}: {other}"),
        };
        assert_eq!((did("stop"), did("start")), want, "seed {seed}: {row}");
        assert!(!row["why"].as_str().unwrap().is_empty(), "seed {seed}: {row}");
    }
    for (act, name) in planned {
        assert!(rows.contains(name), "seed {seed}: nothing tells why {name} is to {act}");
    }
}

#[test]
fn a_reload_does_what_its_plan_said() {
    let number = |name: &str| std::env::var(name).ok().and_then(|s| s.parse::<u64>().ok());
    if let Some(seed) = number("HOB_PLAN_SEED") {
        check(seed, true);
        check(seed, false);
        return;
    }
    let seeds = number("HOB_PLAN_SEEDS").unwrap_or(SEEDS);
    let quiet: usize = (1..=seeds).map(|seed| check(seed, true)).sum();
    let busy: usize = (1..=seeds / 2).map(|seed| check(seed, false)).sum();
    let enough = usize::try_from(seeds).unwrap();
    assert!(quiet > enough && busy > enough / 4, "too little was planned to say anything: {quiet} {busy}");
}
