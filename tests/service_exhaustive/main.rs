//! Small cases of the service machine, all of them: every input in every state, and every graph of three services.
#![allow(missing_debug_implementations)] // Nothing here is shown to anyone but the test.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A helper of a test fails like the test.

mod graphs;
mod world;

use hob::base::ids::RunId;
use hob::config::{
    Address, Check, Condition, Config, DaemonSpec, Health, Listen, Need, Ready, Restart, ServiceSpec, UnixType,
};
use hob::core::service::State;
use hob::core::{Core, Duty, End, Input, StartError, Survivor, TableRun};
use hob::protocol::methods::Request;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use world::{World, boot, spec};

/// What may happen to the one service `s` (a second one, `need`, is required by it where the case says so).
const ACTS: [&str; 33] = [
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
    "reload-service",
    "done",
    "not-done",
    "alive",
    "trigger",
    "heard",
    "extend",
    "passed",
    "not-passed",
    "listening",
    "not-listening",
    "connection",
    "time",
    "long-time",
    "reload-same",
    "reload-changed",
    "reload-without",
    "crash",
];

/// Those that mean nothing where there are no sockets.
const OF_SOCKETS: [&str; 3] = ["listening", "not-listening", "connection"];

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
        "heard" => w.step(Input::Heard { run }),
        "notify" => w.step(Input::Notify { run, fields: vec![("READY".to_owned(), "1".to_owned())] }),
        "code-0" => w.exited(run, End::Code(0)),
        "code-1" => w.exited(run, End::Code(1)),
        "signal" => w.exited(run, End::Signal(9)),
        "tree-empty" => w.step(Input::Tree { run, left: Vec::new() }),
        "tree-left" => w.step(Input::Tree { run, left: vec![Survivor { pid: 7, name: "cat".to_owned() }] }),
        "output" => w.step(Input::Output { run, bytes: 5, last_lines: vec!["x".to_owned()] }),
        "reload-service" => {
            w.asked += 1;
            let input = w.request(w.asked, Request::ServiceReload { names: vec!["s".to_owned()] });
            w.step(input);
        }
        "done" | "not-done" => {
            for what in [Duty::Reload, Duty::Stop] {
                let result = if act == "done" { Ok(()) } else { Err("no".to_owned()) };
                w.step(Input::Checked { run, what, result });
            }
        }
        "alive" => w.say(run, "WATCHDOG", "1"),
        "trigger" => w.say(run, "WATCHDOG", "trigger"),
        "extend" => w.say(run, "EXTEND_TIMEOUT_USEC", "60000000"),
        "passed" => w.step(Input::Checked { run, what: Duty::Health, result: Ok(()) }),
        "not-passed" => {
            w.step(Input::Checked { run, what: Duty::Health, result: Err("no".to_owned()) });
        }
        "listening" => w.step(Input::Listening { service: "s".into(), result: Ok(()) }),
        "not-listening" => w.step(Input::Listening { service: "s".into(), result: Err("no".to_owned()) }),
        "connection" => w.step(Input::Connection { service: "s".into(), on: "s".into(), waiting: true }),
        "time" => w.pass(Duration::from_millis(120)),
        "long-time" => {
            let next = w.core.next_deadline().map_or(Duration::from_secs(1), |at| at.since(w.now.mono));
            w.pass(next);
        }
        "reload-same" => reload(w, all(base)),
        "reload-changed" => reload(w, all(&base.clone().with(|s| s.umask = Some(0o77)))),
        "reload-without" => reload(w, Vec::new()),
        "crash" => crash(w, base),
        other => panic!("{other}"),
    }
}

/// The service, and what it needs if it does.
fn all(base: &ServiceSpec) -> Vec<(&'static str, ServiceSpec)> {
    let need = spec().with(|s| s.ready = Ready::Notify);
    let needs = base.requires.iter().map(|_| ("need", need.clone()));
    needs.chain([("s", base.clone())]).collect()
}

fn reload(w: &mut World, services: Vec<(&str, ServiceSpec)>) {
    let services = services.into_iter().map(|(n, s)| (n.to_owned(), Arc::new(s))).collect();
    let daemon = DaemonSpec { heartbeat: Duration::ZERO, ..DaemonSpec::default() };
    w.step(Input::ConfigRead {
        req: None,
        look: false,
        result: Ok(Box::new(Config { daemon, services, ..Config::default() })),
    });
}

/// The daemon is killed and the next one adopts what the table shows. Open requests die with it.
fn crash(w: &mut World, base: &ServiceSpec) {
    let table = w.runs.iter().map(|(run, (_, pid))| TableRun {
        run: *run,
        pid: *pid,
        exec_error: None,
        ended: None,
        asked: false,
    });
    let input = boot(&all(base), 2, w.journal.clone(), table.collect());
    w.core = Core::new();
    w.step(input);
}

/// All pairs of acts in every state, over the kinds of services that differ in their transitions: every state is met by
/// every input and what follows by every other, and what must hold is checked after each.
#[test]
fn every_input_in_every_state() {
    let kinds = [
        ServiceSpec { autostart: true, ..spec() },
        ServiceSpec { restart: Restart::Always, ..spec() }.with(|s| s.ready = Ready::Notify),
        spec().with(|s| {
            (s.health, s.watchdog) = (Some(asked(2)), Some(Duration::from_millis(150)));
            s.ready = Ready::Notify;
        }),
        ServiceSpec { restart: Restart::Never, ..spec() }
            .with(|s| (s.health, s.stop_timeout) = (Some(asked(1)), Duration::from_millis(100))),
        spec().with(|s| (s.oneshot, s.stop_command) = (true, command())),
        spec().with(|s| {
            (s.stop_command, s.reload_command) = (command(), command());
            (s.leave_children, s.max_restarts) = (true, 1);
            s.ready = Ready::Port(80);
        }),
        ServiceSpec { autostart: true, ..spec() }.with(|s| (s.on_demand, s.listen) = (true, sockets())),
        ServiceSpec { restart: Restart::Never, ..spec() }.with(|s| s.listen = sockets()),
        ServiceSpec { requires: vec![Need { name: "need".to_owned(), condition: Condition::Ready }], ..spec() },
    ];
    let mut met = BTreeMap::new();
    for base in &kinds {
        let acts = || ACTS.into_iter().filter(|a| !base.listen.is_empty() || !OF_SOCKETS.contains(a));
        for prefix in prefixes() {
            for first in acts() {
                for second in acts() {
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

fn sockets() -> Vec<Listen> {
    vec![Listen::new(Address::Unix(UnixType::Stream, "/s".to_owned()))]
}

fn command() -> Option<Vec<String>> {
    Some(vec!["do".to_owned()])
}

/// A health check that may fail so often but once.
fn asked(retries: u32) -> Health {
    let check = Check::Command(vec!["check".to_owned()]);
    Health { every: Duration::from_millis(100), retries, ..Health::new(check) }
}

/// Ways into every state.
fn prefixes() -> [&'static [&'static str]; 10] {
    [
        &[],
        &["stop"],
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
        w.step(Input::Heard { run });
        if w.checks.contains(&(run, Duty::Stop)) {
            w.step(Input::Checked { run, what: Duty::Stop, result: Ok(()) });
        }
        w.step(Input::Tree { run, left: Vec::new() });
    }
    assert!(w.runs.is_empty(), "something still runs: {:#?}", w.trail);
    assert!(w.exited, "no end: {:#?}", w.trail);
    let crashed = w.trail.iter().filter(|t| t.starts_with("Boot")).count() > 1;
    let open = (1..=w.asked).filter(|r| !w.answered.contains_key(r)).count();
    assert!(open == 0 || crashed, "{open} requests without a reply: {:#?}", w.trail);
    assert_eq!(w.core.next_deadline(), None);
}
