//! Small cases of the service machine, all of them: every input in every state, and every graph of three services.
#![allow(missing_debug_implementations)] // Nothing here is shown to anyone but the test.

use hob::base::ids::{ConnId, ReqId, RunId};
use hob::base::time::{Mono, Now, Wall};
use hob::config::{Access, Condition, Config, DaemonSpec, Need, Ready, Restart, ServiceSpec};
use hob::core::service::State;
use hob::core::{Boot, Core, Effect, End, Entity, Input, Out, Peer, StartError, Survivor, TableRun, Usage};
use hob::protocol::methods::{Change, Request};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// A core with the system it runs on, which is only as much as the invariants need.
struct World {
    core: Core,
    now: Now,
    /// Runs ordered and not forgotten: name and pid.
    runs: BTreeMap<RunId, (String, Option<u32>)>,
    journal: BTreeMap<String, String>,
    effects: Vec<Effect>,
    states: BTreeMap<String, State>,
    asked: u64,
    answered: BTreeMap<u64, u32>,
    exited: bool,
    /// Whether to look at everything after each step.
    thorough: bool,
    /// What must hold was broken, with the way there.
    trail: Vec<String>,
}

impl World {
    fn new(services: &[(&str, ServiceSpec)]) -> World {
        let mut world = World {
            core: Core::new(),
            now: Now { mono: Mono(1_000_000_000), wall: Wall(1_700_000_000_000) },
            runs: BTreeMap::new(),
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

    fn one(&mut self, input: Input) {
        self.trail.push(match &input {
            Input::Boot(_) => "Boot".to_owned(),
            Input::ConfigRead { .. } => "ConfigRead".to_owned(),
            Input::Request { request, .. } => format!("{request:?}"),
            other => format!("{other:?}"),
        });
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
    fn step(&mut self, input: Input) {
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

    fn check_effect(&mut self, effect: &Effect) {
        match effect {
            Effect::Start(s) => {
                let twice = self.runs.values().any(|(name, _)| **name == *s.service);
                assert!(!twice, "{} has two runs: {:#?}", s.service, self.trail);
                assert!(self.journal.contains_key(&format!("run/{}", s.run)), "no intent: {:#?}", self.trail);
                self.runs.insert(s.run, (s.service.to_string(), None));
            }
            Effect::Forget { run } => {
                assert!(self.runs.remove(run).is_some(), "run {run} is forgotten twice: {:#?}", self.trail);
                assert!(!self.journal.contains_key(&format!("run/{run}")), "still open: {:#?}", self.trail);
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
    fn follow(&mut self, line: &str) {
        let event: serde_json::Value = serde_json::from_str(line).expect("an event is JSON");
        let kind = event["kind"].as_str().unwrap();
        let Some(state) = State::ALL.into_iter().find(|s| s.event() == kind) else { return };
        self.states.insert(event["name"].as_str().unwrap().to_owned(), state);
    }

    fn check(&mut self) {
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
    fn ask(&mut self, request: Request) -> Option<Result<String, hob::protocol::rpc::RpcError>> {
        let mut out = Out::default();
        self.core.step(self.now, self.request(1_000_000, request), &mut out);
        let mut reply = None;
        for effect in out.effects {
            match effect {
                Effect::Reply { result, .. } => reply = Some(result),
                Effect::Measure { req, .. } => {
                    let mut out = Out::default();
                    self.core.step(self.now, Input::Measured { req, usage: Vec::new() }, &mut out);
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

    fn list(&mut self) -> Vec<serde_json::Value> {
        match self.ask(Request::ServiceList { names: Vec::new() }) {
            Some(Ok(text)) => {
                let v: serde_json::Value = serde_json::from_str(&text).expect("JSON");
                v["services"].as_array().unwrap().clone()
            }
            // After the end of a shutdown nothing is said any more.
            _ => Vec::new(),
        }
    }

    fn state(&mut self, name: &str) -> State {
        let rows = self.list();
        state_of(rows.iter().find(|r| r["name"] == name).expect("a service"))
    }

    fn request(&self, req: u64, request: Request) -> Input {
        let peer = Peer { uid: 0, pid: 1, access: Access::Admin };
        Input::Request { req: ReqId(req), conn: ConnId(1), peer, key: None, params_hash: 0, request }
    }

    fn change(&mut self, make: fn(Change) -> Request, name: &str) {
        self.asked += 1;
        let change = Change { names: vec![name.to_owned()], wait: true, timeout: None };
        let input = self.request(self.asked, make(change));
        self.step(input);
    }

    fn pass(&mut self, time: Duration) {
        self.now.mono = self.now.mono + time;
        self.now.wall.0 += i64::try_from(time.as_millis()).unwrap();
        self.step(Input::Tick);
    }

    fn run(&self, name: &str) -> Option<RunId> {
        self.runs.iter().find(|(_, (n, _))| n == name).map(|(run, _)| *run)
    }

    fn started(&mut self, run: RunId) {
        if let Some((_, pid)) = self.runs.get_mut(&run) {
            *pid = Some(100);
        }
        self.step(Input::Started { run, result: Ok(100) });
    }

    fn exited(&mut self, run: RunId, end: End) {
        self.step(Input::Exited { run, end, usage: Usage::default() });
    }
}

fn state_of(row: &serde_json::Value) -> State {
    let name = row["state"].as_str().unwrap();
    State::ALL.into_iter().find(|s| s.name() == name).unwrap()
}

fn boot(
    services: &[(&str, ServiceSpec)],
    generation: u32,
    journal: BTreeMap<String, String>,
    table: Vec<TableRun>,
) -> Input {
    let services = services.iter().map(|(n, s)| ((*n).to_owned(), Arc::new(s.clone()))).collect();
    let daemon = DaemonSpec { heartbeat: Duration::ZERO, ..DaemonSpec::default() };
    Input::Boot(Box::new(Boot {
        config: Config { daemon, services },
        entities: journal.into_iter().map(|(key, json)| Entity { key, json: Some(json) }).collect(),
        table,
        generation,
        keeper_key: "k".to_owned(),
        ..Boot::default()
    }))
}

fn spec() -> ServiceSpec {
    ServiceSpec { command: vec!["x".to_owned()], autostart: false, ..ServiceSpec::default() }
}

// --- every input in every state ---

/// What may happen to the one service `s` (a second one, `need`, is required by it where the case says so).
const ACTS: [&str; 21] = [
    "start",
    "stop",
    "restart",
    "reset",
    "started",
    "not-started",
    "delayed",
    "ready-seen",
    "notify",
    "code-0",
    "code-1",
    "signal",
    "tree-empty",
    "tree-left",
    "output",
    "time",
    "long-time",
    "reload-same",
    "reload-changed",
    "reload-without",
    "crash",
];

fn act(w: &mut World, act: &str, base: &ServiceSpec) {
    let run = w.run("s").unwrap_or(RunId(1));
    match act {
        "start" => w.change(Request::ServiceStart, "s"),
        "stop" => w.change(Request::ServiceStop, "s"),
        "restart" => w.change(Request::ServiceRestart, "s"),
        "reset" => {
            w.asked += 1;
            let input = w.request(w.asked, Request::ServiceReset { names: vec!["s".to_owned()] });
            w.step(input);
        }
        "started" => w.started(run),
        "not-started" | "delayed" => {
            let error = StartError { message: "no".to_owned(), transient: act == "delayed" };
            w.step(Input::Started { run, result: Err(error) });
        }
        "ready-seen" => w.step(Input::ReadySeen { run }),
        "notify" => w.step(Input::Notify { run, fields: vec![("READY".to_owned(), "1".to_owned())] }),
        "code-0" => w.exited(run, End::Code(0)),
        "code-1" => w.exited(run, End::Code(1)),
        "signal" => w.exited(run, End::Signal(9)),
        "tree-empty" => w.step(Input::Tree { run, left: Vec::new() }),
        "tree-left" => w.step(Input::Tree { run, left: vec![Survivor { pid: 7, name: "cat".to_owned() }] }),
        "output" => w.step(Input::Output { run, bytes: 5, last_lines: vec!["x".to_owned()] }),
        "time" => w.pass(Duration::from_millis(120)),
        "long-time" => {
            let next = w.core.next_deadline().map_or(Duration::from_secs(1), |at| at.since(w.now.mono));
            w.pass(next);
        }
        "reload-same" => reload(w, all(base)),
        "reload-changed" => reload(w, all(&ServiceSpec { umask: Some(0o77), ..base.clone() })),
        "reload-without" => reload(w, Vec::new()),
        "crash" => crash(w, base),
        other => panic!("{other}"),
    }
}

/// The service, and what it needs if it does.
fn all(base: &ServiceSpec) -> Vec<(&'static str, ServiceSpec)> {
    let need = ServiceSpec { ready: Ready::Notify, ..spec() };
    let needs = base.requires.iter().map(|_| ("need", need.clone()));
    needs.chain([("s", base.clone())]).collect()
}

fn reload(w: &mut World, services: Vec<(&str, ServiceSpec)>) {
    let services = services.into_iter().map(|(n, s)| (n.to_owned(), Arc::new(s))).collect();
    let daemon = DaemonSpec { heartbeat: Duration::ZERO, ..DaemonSpec::default() };
    w.step(Input::ConfigRead { req: None, result: Ok(Box::new(Config { daemon, services })) });
}

/// The daemon is killed and the next one adopts what the table shows. Open requests die with it.
fn crash(w: &mut World, base: &ServiceSpec) {
    let table = w.runs.iter().map(|(run, (_, pid))| TableRun { run: *run, pid: *pid, exec_error: None, ended: None });
    let input = boot(&all(base), 2, w.journal.clone(), table.collect());
    w.core = Core::new();
    w.step(input);
}

/// All pairs of acts in every state, over the kinds of services that differ in their transitions: every state is met by every input
/// and what follows by every other, and what must hold is checked after each.
#[test]
fn every_input_in_every_state() {
    let kinds = [
        ServiceSpec { autostart: true, ..spec() },
        ServiceSpec { ready: Ready::Notify, restart: Restart::Always, ..spec() },
        ServiceSpec { restart: Restart::Never, stop_timeout: Duration::from_millis(100), ..spec() },
        ServiceSpec { leave_children: true, max_restarts: 1, ready: Ready::Port(80), ..spec() },
        ServiceSpec { requires: vec![Need { name: "need".to_owned(), condition: Condition::Ready }], ..spec() },
    ];
    let mut met = BTreeMap::new();
    for base in &kinds {
        for prefix in prefixes() {
            for first in ACTS {
                for second in ACTS {
                    let mut w = World::new(&all(base));
                    w.thorough = false;
                    for step in prefix {
                        act(&mut w, step, base);
                    }
                    let state = w.state("s");
                    *met.entry((state, first)).or_insert(0) += 1;
                    w.thorough = true;
                    act(&mut w, first, base);
                    act(&mut w, second, base);
                    wind_down(&mut w);
                }
            }
        }
    }
    for state in State::ALL {
        for first in ACTS {
            assert!(met.contains_key(&(state, first)), "{first} was never tried in {state}");
        }
    }
}

/// Ways into every state.
fn prefixes() -> [&'static [&'static str]; 9] {
    [
        &[],
        &["start"],
        &["start", "started"],
        &["start", "started", "notify", "ready-seen"],
        &["start", "started", "stop"],
        &["start", "started", "code-1"],
        &["start", "started", "code-1", "tree-left"],
        &["start", "started", "code-1", "tree-empty", "started", "code-1", "tree-empty"],
        &["start", "started", "code-0", "tree-empty"],
    ]
}

/// Whatever went before, a shutdown comes to its end and every request to its one reply.
fn wind_down(w: &mut World) {
    w.thorough = false;
    w.step(Input::Stop { hurry: false });
    for _ in 0..40 {
        let Some((run, pid)) = w.runs.iter().next().map(|(r, (_, pid))| (*r, *pid)) else { break };
        if pid.is_none() {
            w.started(run);
        }
        w.exited(run, End::Signal(15));
        w.step(Input::Tree { run, left: Vec::new() });
    }
    assert!(w.runs.is_empty(), "something still runs: {:#?}", w.trail);
    assert!(w.exited, "no end: {:#?}", w.trail);
    let crashed = w.trail.iter().filter(|t| t.starts_with("Boot")).count() > 1;
    let open = (1..=w.asked).filter(|r| !w.answered.contains_key(r)).count();
    assert!(open == 0 || crashed, "{open} requests without a reply: {:#?}", w.trail);
    assert_eq!(w.core.next_deadline(), None);
}

// --- every graph of three services ---

#[derive(Clone, Copy, Debug, PartialEq)]
enum Link {
    None,
    Requires,
    Wants,
    After,
}

const LINKS: [Link; 4] = [Link::None, Link::Requires, Link::Wants, Link::After];
const NAMES: [&str; 3] = ["a", "b", "c"];

/// `links[i]` is the edge from `PAIRS[i].0` to `PAIRS[i].1`. With the names in this order every acyclic graph of three is
/// among them, up to its names.
const PAIRS: [(usize, usize); 3] = [(1, 0), (2, 0), (2, 1)];

fn graph(links: [Link; 3], ready: Ready) -> Vec<(&'static str, ServiceSpec)> {
    let mut all: Vec<(&str, ServiceSpec)> =
        NAMES.iter().map(|n| (*n, ServiceSpec { ready: ready.clone(), ..spec() })).collect();
    for (link, (from, to)) in links.into_iter().zip(PAIRS) {
        let need = Need { name: NAMES[to].to_owned(), condition: Condition::Ready };
        match link {
            Link::None => {}
            Link::Requires => all[from].1.requires.push(need),
            Link::Wants => all[from].1.wants.push(need),
            Link::After => all[from].1.after.push(need),
        }
    }
    all
}

fn graphs() -> impl Iterator<Item = [Link; 3]> {
    LINKS.into_iter().flat_map(|x| LINKS.into_iter().flat_map(move |y| LINKS.into_iter().map(move |z| [x, y, z])))
}

/// Whether `from` pulls `to` up, directly or through others.
fn pulls(links: [Link; 3], from: usize, to: usize) -> bool {
    from == to
        || links
            .into_iter()
            .zip(PAIRS)
            .any(|(link, (f, t))| f == from && matches!(link, Link::Requires | Link::Wants) && pulls(links, t, to))
}

/// Whether `from` requires `to`, directly or through others.
fn requires(links: [Link; 3], from: usize, to: usize) -> bool {
    from == to
        || links
            .into_iter()
            .zip(PAIRS)
            .any(|(link, (f, t))| f == from && link == Link::Requires && requires(links, t, to))
}

/// Plays the system until nothing is left to do: starts come up one by one, stops end one by one. Answers the names in the
/// order of their starts and of their ends.
fn play(w: &mut World, links: [Link; 3]) -> (Vec<String>, Vec<String>) {
    let (mut ups, mut downs) = (Vec::new(), Vec::new());
    for _ in 0..100 {
        let mut inputs = Vec::new();
        for effect in std::mem::take(&mut w.effects) {
            match effect {
                Effect::Start(s) => {
                    check_start(w, links, &s.service);
                    ups.push(s.service.to_string());
                    inputs.push(Input::Started { run: s.run, result: Ok(9) });
                    inputs.push(Input::ReadySeen { run: s.run });
                }
                Effect::Signal { run, .. } => {
                    check_stop(w, links, run);
                    downs.push(w.runs[&run].0.clone());
                    inputs.push(Input::Exited { run, end: End::Signal(15), usage: Usage::default() });
                    inputs.push(Input::Tree { run, left: Vec::new() });
                }
                _ => {}
            }
        }
        if inputs.is_empty() {
            return (ups, downs);
        }
        let mut effects = Vec::new();
        for input in inputs {
            w.step(input);
            effects.append(&mut w.effects);
        }
        w.effects = effects;
    }
    panic!("it does not come to rest: {:#?}", w.trail);
}

/// Whoever starts has its requirements up, and nothing that it wants or follows is on its way.
fn check_start(w: &mut World, links: [Link; 3], name: &str) {
    let from = NAMES.iter().position(|n| *n == name).unwrap();
    for (link, (f, t)) in links.into_iter().zip(PAIRS).filter(|(_, (f, _))| *f == from) {
        let need = w.state(NAMES[t]);
        let fine = match link {
            Link::None => true,
            Link::Requires => need == State::Running,
            Link::Wants | Link::After => need != State::Starting && (need != State::Waiting || stuck(w, links, t)),
        };
        assert!(fine, "{name} starts while {} is {need} in {links:?}: {:#?}", NAMES[t], w.trail);
        assert_eq!(f, from);
    }
}

/// Whether a waiting service waits for one that is not on its way either.
fn stuck(w: &mut World, links: [Link; 3], i: usize) -> bool {
    links.into_iter().zip(PAIRS).any(|(link, (f, t))| {
        let state = w.state(NAMES[t]);
        let coming = matches!(state, State::Starting | State::Running);
        f == i && link == Link::Requires && !coming && (state != State::Waiting || stuck(w, links, t))
    })
}

/// Whoever is stopped has nobody up that requires it.
fn check_stop(w: &mut World, links: [Link; 3], run: RunId) {
    let name = w.runs[&run].0.clone();
    let to = NAMES.iter().position(|n| *n == name).unwrap();
    for (_, (f, _)) in links.into_iter().zip(PAIRS).filter(|(l, (_, t))| *l == Link::Requires && *t == to) {
        let other = w.state(NAMES[f]);
        assert!(!other.live(), "{name} is stopped while {} is {other} in {links:?}: {:#?}", NAMES[f], w.trail);
    }
}

#[test]
fn every_graph_starts_in_order_and_stops_in_reverse() {
    let mut count = 0;
    for links in graphs() {
        for target in 0..3 {
            count += 1;
            let mut w = World::new(&graph(links, Ready::Port(80)));
            w.change(Request::ServiceStart, NAMES[target]);
            let (ups, _) = play(&mut w, links);
            for (i, name) in NAMES.iter().enumerate() {
                let up = pulls(links, target, i);
                assert_eq!(ups.iter().any(|n| n == name), up, "{name} of {links:?} by {}", NAMES[target]);
                assert_eq!(w.state(name), if up { State::Running } else { State::Stopped });
            }
            assert_eq!(w.answered.get(&1), Some(&1), "{links:?}");
            stop_all(&mut w, links);
        }
    }
    assert_eq!(count, 192);
}

/// A shutdown stops everything in reverse, over all three kinds of edges.
fn stop_all(w: &mut World, links: [Link; 3]) {
    let up: Vec<bool> = NAMES.iter().map(|n| w.state(n).live()).collect();
    w.step(Input::Stop { hurry: false });
    let (_, downs) = play(w, links);
    let place = |i: usize| downs.iter().position(|n| n == NAMES[i]);
    for (_, (f, t)) in links.into_iter().zip(PAIRS).filter(|(l, _)| *l != Link::None) {
        if up[f] && up[t] {
            assert!(place(f) < place(t), "{downs:?} in {links:?}");
        }
    }
    assert!(w.runs.is_empty());
}

/// A person stops one: those that require it stop too, before it, and come back with it; all others stay as they are.
#[test]
fn every_graph_heals_after_a_stop() {
    for links in graphs() {
        for target in 0..3 {
            let mut w = all_up(links);
            w.change(Request::ServiceStop, NAMES[target]);
            let (ups, _) = play(&mut w, links);
            assert!(ups.is_empty(), "{ups:?} started in {links:?}");
            for (i, name) in NAMES.iter().enumerate() {
                let state = if i == target {
                    State::Stopped
                } else if requires(links, i, target) {
                    State::Waiting
                } else {
                    State::Running
                };
                assert_eq!(w.state(name), state, "{name} after a stop of {} in {links:?}", NAMES[target]);
            }
            w.change(Request::ServiceStart, NAMES[target]);
            play(&mut w, links);
            for name in NAMES {
                assert_eq!(w.state(name), State::Running, "{name} in {links:?}");
            }
            assert!((1..=w.asked).all(|r| w.answered.get(&r) == Some(&1)));
        }
    }
}

fn all_up(links: [Link; 3]) -> World {
    let mut w = World::new(&graph(links, Ready::Port(80)));
    for name in NAMES {
        w.change(Request::ServiceStart, name);
        play(&mut w, links);
    }
    w
}

/// A crash, and a second one at once, which brings a delay: nobody else is touched.
#[test]
fn every_graph_survives_a_crash() {
    for links in graphs() {
        for target in 0..3 {
            let mut w = all_up(links);
            for wanted in [State::Running, State::Backoff] {
                let run = w.run(NAMES[target]).unwrap();
                w.exited(run, End::Code(1));
                w.step(Input::Tree { run, left: Vec::new() });
                play(&mut w, links);
                for (i, name) in NAMES.iter().enumerate() {
                    let state = if i == target { wanted } else { State::Running };
                    assert_eq!(w.state(name), state, "{name} in {links:?}");
                }
            }
            // Its dependants crash too while it is down: those that require it wait, the others come up without it.
            for (i, name) in NAMES.iter().enumerate().filter(|(i, _)| *i != target) {
                let run = w.run(name).unwrap();
                w.exited(run, End::Code(1));
                w.step(Input::Tree { run, left: Vec::new() });
                play(&mut w, links);
                let blocked = links.into_iter().zip(PAIRS).any(|(l, p)| l == Link::Requires && p == (i, target));
                let behind = (0..3).any(|j| {
                    let stuck = w.state(NAMES[j]) == State::Waiting;
                    stuck && links.into_iter().zip(PAIRS).any(|(l, p)| l == Link::Requires && p == (i, j))
                });
                let state = if blocked || behind { State::Waiting } else { State::Running };
                assert_eq!(w.state(name), state, "{name} beside {} in {links:?}", NAMES[target]);
            }
            w.pass(Duration::from_millis(100));
            play(&mut w, links);
            for name in NAMES {
                assert_eq!(w.state(name), State::Running, "{name} in {links:?}");
            }
        }
    }
}
