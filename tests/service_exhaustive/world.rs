//! A core with a pretended system around it, and what must hold after every step.

use hob::base::ids::{ConnId, ReqId, RunId};
use hob::base::time::{Mono, Now, Wall};
use hob::config::{Access, Config, DaemonSpec, ServiceSpec};
use hob::core::service::State;
use hob::core::{Boot, Core, Duty, Effect, End, Entity, Input, Out, Peer, TableRun, Usage};
use hob::protocol::methods::{Change, Request};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// A core with the system it runs on, which is only as much as the invariants need.
pub(crate) struct World {
    pub(crate) core: Core,
    pub(crate) now: Now,
    /// Runs ordered and not forgotten: name and pid.
    pub(crate) runs: BTreeMap<RunId, (String, Option<u32>)>,
    /// What is under way beside runs.
    pub(crate) checks: BTreeSet<(RunId, Duty)>,
    pub(crate) journal: BTreeMap<String, String>,
    pub(crate) effects: Vec<Effect>,
    pub(crate) states: BTreeMap<String, State>,
    pub(crate) asked: u64,
    pub(crate) answered: BTreeMap<u64, u32>,
    pub(crate) exited: bool,
    /// Whether to look at everything after each step.
    pub(crate) thorough: bool,
    /// What must hold was broken, with the way there.
    pub(crate) trail: Vec<String>,
}

impl World {
    pub(crate) fn new(services: &[(&str, ServiceSpec)]) -> World {
        let mut world = World {
            core: Core::new(),
            now: Now { mono: Mono(1_000_000_000), wall: Wall(1_700_000_000_000) },
            runs: BTreeMap::new(),
            checks: BTreeSet::new(),
            journal: BTreeMap::new(),
            effects: Vec::new(),
            states: services.iter().map(|(n, _)| ((*n).to_owned(), State::Stopped)).collect(),
            asked: 0,
            answered: BTreeMap::new(),
            exited: false,
            thorough: true,
            trail: Vec::new(),
        };
        world.step(boot(services, 1, BTreeMap::new(), Vec::new()));
        world
    }

    pub(crate) fn one(&mut self, input: Input) {
        self.trail.push(match &input {
            Input::Boot(_) => "Boot".to_owned(),
            Input::ConfigRead { .. } => "ConfigRead".to_owned(),
            Input::Request { request, .. } => format!("{request:?}"),
            other => format!("{other:?}"),
        });
        match &input {
            Input::Checked { run, what, .. } => {
                self.checks.remove(&(*run, *what));
            }
            Input::Boot(_) => self.checks.clear(),
            _ => {}
        }
        let mut out = Out::default();
        self.core.step(self.now, input, &mut out);
        for Entity { key, json } in out.records {
            match json {
                Some(json) => self.journal.insert(key, json),
                None => self.journal.remove(&key),
            };
        }
        for effect in &out.effects {
            self.check_effect(effect);
        }
        self.effects.extend(out.effects);
    }

    /// Takes one input, and whatever is due at once because of it.
    pub(crate) fn step(&mut self, input: Input) {
        self.effects.clear();
        self.one(input);
        let mut ticks = 0;
        while self.core.next_deadline().is_some_and(|at| at <= self.now.mono) {
            ticks += 1;
            assert!(ticks < 5, "something due is never done: {:#?}", self.trail);
            self.one(Input::Tick);
        }
        self.check();
    }

    pub(crate) fn check_effect(&mut self, effect: &Effect) {
        match effect {
            Effect::Start(s) => {
                let twice = self.runs.values().any(|(name, _)| **name == *s.service);
                assert!(!twice, "{} has two runs: {:#?}", s.service, self.trail);
                assert!(self.journal.contains_key(&format!("run/{}", s.run)), "no intent: {:#?}", self.trail);
                self.runs.insert(s.run, (s.service.to_string(), None));
            }
            Effect::Forget { run } => {
                assert!(!self.checks.iter().any(|(r, _)| r == run), "a check of run {run} goes on: {:#?}", self.trail);
                assert!(self.runs.remove(run).is_some(), "run {run} is forgotten twice: {:#?}", self.trail);
                assert!(!self.journal.contains_key(&format!("run/{run}")), "still open: {:#?}", self.trail);
            }
            Effect::Check { run, what, .. } => {
                assert!(self.runs.contains_key(run), "a check of run {run}, which is over: {:#?}", self.trail);
                let first = self.checks.insert((*run, *what));
                assert!(first, "a second {what:?} of run {run} while one is under way: {:#?}", self.trail);
            }
            Effect::CheckEnd { run, what } => {
                let open = self.checks.remove(&(*run, *what));
                assert!(open, "no {what:?} of run {run} is under way: {:#?}", self.trail);
            }
            Effect::Signal { run, .. } | Effect::Kill { run } | Effect::Sweep { run } => {
                assert!(self.runs.contains_key(run), "an order for run {run}, which is over: {:#?}", self.trail);
            }
            Effect::Exit { .. } => self.exited = true,
            Effect::Reply { req, .. } => *self.answered.entry(req.0).or_default() += 1,
            Effect::Event { line, .. } => self.follow(line),
            _ => {}
        }
    }

    /// The states as events tell them; a crash and a wait that ends at once are not told.
    pub(crate) fn follow(&mut self, line: &str) {
        let event: serde_json::Value = serde_json::from_str(line).expect("an event is JSON");
        let kind = event["kind"].as_str().unwrap();
        let Some(state) = State::ALL.into_iter().find(|s| s.event() == kind) else { return };
        self.states.insert(event["name"].as_str().unwrap().to_owned(), state);
    }

    pub(crate) fn check(&mut self) {
        for (req, times) in &self.answered {
            assert_eq!(*times, 1, "request {req} has {times} replies: {:#?}", self.trail);
        }
        if !self.thorough {
            return;
        }
        for row in self.list() {
            let name = row["name"].as_str().unwrap();
            let state = state_of(&row);
            let has_run = self.runs.values().any(|(n, _)| n == name);
            assert_eq!(state.live(), has_run, "{name} is {state}: {:#?}", self.trail);
            assert_eq!(state == State::Backoff, row["next_restart_in_ms"].is_u64(), "{:#?}", self.trail);
            let why = self.ask(Request::DaemonWhy { name: name.to_owned() }).expect("a reply at once");
            let why: serde_json::Value = serde_json::from_str(&why.expect("why")).expect("JSON");
            assert!(!why["summary"].as_str().unwrap().is_empty() && !why["next"].as_str().unwrap().is_empty());
        }
    }

    /// Asks without the bookkeeping of `step`, measuring nothing.
    pub(crate) fn ask(&mut self, request: Request) -> Option<Result<String, hob::protocol::rpc::RpcError>> {
        let mut out = Out::default();
        self.core.step(self.now, self.request(1_000_000, request), &mut out);
        let mut reply = None;
        for effect in out.effects {
            match effect {
                Effect::Reply { result, .. } => reply = Some(result),
                Effect::Measure { req, .. } => {
                    let mut out = Out::default();
                    self.core.step(self.now, Input::Measured { req, usage: Arc::default() }, &mut out);
                    reply = out.effects.into_iter().find_map(|e| match e {
                        Effect::Reply { result, .. } => Some(result),
                        _ => None,
                    });
                }
                other => panic!("a question has an effect: {other:?}"),
            }
        }
        reply
    }

    pub(crate) fn list(&mut self) -> Vec<serde_json::Value> {
        match self.ask(Request::ServiceList { names: Vec::new(), owner: None }) {
            Some(Ok(text)) => {
                let v: serde_json::Value = serde_json::from_str(&text).expect("JSON");
                v["services"].as_array().unwrap().clone()
            }
            // After the end of a shutdown nothing is said any more.
            _ => Vec::new(),
        }
    }

    pub(crate) fn state(&mut self, name: &str) -> State {
        let rows = self.list();
        state_of(rows.iter().find(|r| r["name"] == name).expect("a service"))
    }

    pub(crate) fn request(&self, req: u64, request: Request) -> Input {
        let peer = Peer { uid: 0, pid: 1, access: Access::Admin, job: None, schedule: None };
        Input::Request { req: ReqId(req), conn: ConnId(1), peer, key: None, params_hash: 0, request }
    }

    pub(crate) fn change(&mut self, make: fn(Change) -> Request, name: &str) {
        self.asked += 1;
        let change = Change { names: vec![name.to_owned()], all: false, wait: true, timeout: None };
        let input = self.request(self.asked, make(change));
        self.step(input);
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.now.mono = self.now.mono + time;
        self.now.wall.0 += i64::try_from(time.as_millis()).unwrap();
        self.step(Input::Tick);
    }

    pub(crate) fn run(&self, name: &str) -> Option<RunId> {
        self.runs.iter().find(|(_, (n, _))| n == name).map(|(run, _)| *run)
    }

    pub(crate) fn started(&mut self, run: RunId) {
        if let Some((_, pid)) = self.runs.get_mut(&run) {
            *pid = Some(100);
        }
        self.step(Input::Started { run, result: Ok(100) });
    }

    pub(crate) fn say(&mut self, run: RunId, name: &str, value: &str) {
        self.step(Input::Notify { run, fields: vec![(name.to_owned(), value.to_owned())] });
    }

    pub(crate) fn exited(&mut self, run: RunId, end: End) {
        self.step(Input::Exited { run, end, usage: Usage::default() });
    }
}

pub(crate) fn state_of(row: &serde_json::Value) -> State {
    let name = row["state"].as_str().unwrap();
    State::ALL.into_iter().find(|s| s.name() == name).unwrap()
}

pub(crate) fn boot(
    services: &[(&str, ServiceSpec)],
    generation: u32,
    journal: BTreeMap<String, String>,
    table: Vec<TableRun>,
) -> Input {
    let services = services.iter().map(|(n, s)| ((*n).to_owned(), Arc::new(s.clone()))).collect();
    let daemon = DaemonSpec { heartbeat: Duration::ZERO, ..DaemonSpec::default() };
    Input::Boot(Box::new(Boot {
        config: Config { daemon, services, ..Config::default() },
        entities: journal.into_iter().map(|(key, json)| Entity { key, json: Some(json) }).collect(),
        table,
        generation,
        keeper_key: "k".to_owned(),
        ..Boot::default()
    }))
}

pub(crate) fn spec() -> ServiceSpec {
    ServiceSpec { command: vec!["x".to_owned()], autostart: false, ..ServiceSpec::default() }
}
