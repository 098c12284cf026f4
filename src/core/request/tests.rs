//! Which requests are answered without a step, and when.

use super::*;
use crate::base::time::Mono;
use crate::config::{Config, ServiceSpec};
use crate::core::{Boot, End, Input, StartError, Usage};
use crate::protocol::methods::{Kind, METHODS, Method, Param, decode};
use serde_json::value::RawValue;
use std::sync::Arc;

const WEB: &str = "web";

fn at(ms: u64) -> Now {
    Now { mono: Mono(ms * 1_000_000), ..Now::default() }
}

/// A core with one service, which runs.
fn core(boot: Boot) -> Core {
    let services = [(WEB.to_owned(), Arc::new(ServiceSpec::default()))].into();
    let config = Config { services, ..Config::default() };
    let mut core = Core::new();
    step(&mut core, 0, Input::Boot(Box::new(Boot { config, ..boot })));
    core
}

fn step(core: &mut Core, ms: u64, input: Input) -> Out {
    let mut out = Out::default();
    core.step(at(ms), input, &mut out);
    out
}

fn asked(core: &mut Core, ms: u64, request: Request) -> Vec<Effect> {
    let peer = Peer { uid: 0, pid: 1, access: Access::Admin, job: None, schedule: None };
    let (req, conn) = (ReqId(1), ConnId(1));
    step(core, ms, Input::Request { req, conn, peer, key: None, params_hash: 0, request }).effects
}

/// A request by this method: with what it must be given, and one thing more if that is not enough.
fn request(method: &Method) -> Request {
    let value = |kind: Kind| match kind {
        Kind::Flag => "true",
        Kind::Count | Kind::Integer | Kind::Ids | Kind::Signal => "1",
        Kind::List => r#"[{"command":["a"]}]"#,
        Kind::Object => "{}",
        _ => r#""web""#,
    };
    let call = |more: Option<&Param>| {
        let given = method.params.iter().filter(|p| p.required || more.is_some_and(|more| more.name == p.name));
        let params: Vec<String> = given.map(|p| format!("\"{}\":{}", p.name, value(p.kind))).collect();
        let raw = RawValue::from_string(format!("{{{}}}", params.join(","))).unwrap();
        decode(method.name, Some(&raw), &[("HUP", 1)])
    };
    let mut more = core::iter::once(None).chain(method.params.iter().map(Some));
    let read = more.find_map(|more| call(more).ok());
    read.unwrap_or_else(|| panic!("{}: {:?}", method.name, call(None))).request
}

#[test]
fn these_methods_and_no_others_are_answered_without_a_step() {
    let mut core = core(Boot::default());
    let mut names = Vec::new();
    for method in METHODS {
        let Some(answer) = core.answer(at(1), &request(method)) else { continue };
        assert!(!method.mutating, "{}", method.name);
        let all = asked(&mut core, 1, request(method));
        let same = matches!(&all[..], [Effect::Reply { result, durable: false, .. }] if *result == answer);
        assert!(same, "{}: {answer:?}, and a step does {all:?}", method.name);
        names.push(method.name);
    }
    let mut want = [
        "ping",
        "daemon.health",
        "daemon.config",
        "daemon.why",
        "service.history",
        "schedule.list",
        "schedule.get",
        "schedule.history",
        "schedule.next",
        "event.history",
        "rpc.discover",
    ];
    names.sort_unstable();
    want.sort_unstable();
    assert_eq!(names, want);
}

#[test]
fn what_is_due_comes_before_a_question() {
    let mut core = core(Boot::default());
    let run = *core.runs.first_key_value().unwrap().0;
    let busy = StartError { message: "no memory".to_owned(), transient: true };
    step(&mut core, 1, Input::Started { run, result: Err(busy) });
    let due = core.next_deadline().unwrap().0 / 1_000_000;
    let why = Request::DaemonWhy { name: WEB.to_owned() };
    let before = core.answer(at(due - 1), &why).unwrap().unwrap();
    assert!(core.answer(at(due), &why).is_none(), "its next start comes first");
    let all = asked(&mut core, due, why.clone());
    // The step answers for what was there when it began, and then does what is due.
    assert!(matches!(&all[0], Effect::Reply { result: Ok(_), durable: false, .. }), "{all:?}");
    assert!(all.iter().any(|e| matches!(e, Effect::Start(_))), "{all:?}");
    let after = core.answer(at(due), &why).unwrap().unwrap();
    assert_ne!(before, after);
}

#[test]
fn in_safe_mode_and_after_the_end_a_question_takes_a_step() {
    let mut safe = core(Boot { safe: Some("it died".to_owned()), ..Boot::default() });
    assert!(safe.answer(at(1), &Request::Ping).is_none());
    let all = asked(&mut safe, 1, Request::Ping);
    assert!(matches!(&all[..], [Effect::Reply { result: Ok(_), .. }]), "{all:?}");

    let mut ended = core(Boot::default());
    let all = step(&mut ended, 1, Input::KeeperGone).effects;
    let run = *ended.runs.first_key_value().unwrap().0;
    assert!(!all.is_empty());
    step(&mut ended, 2, Input::Started { run, result: Ok(7) });
    step(&mut ended, 3, Input::Exited { run, end: End::Signal(9), usage: Usage::default() });
    step(&mut ended, 3, Input::Tree { run, left: Vec::new() });
    assert!(ended.has_ended());
    assert!(ended.answer(at(4), &Request::Ping).is_none());
    let all = asked(&mut ended, 4, Request::Ping);
    assert!(matches!(&all[..], [Effect::Reply { result: Err(e), .. }] if e.code == Code::ShuttingDown), "{all:?}");
}
