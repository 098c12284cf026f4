//! Reads `schedule.jobs`, and writes its values again. Touches nothing.

use super::keys::{JOB, VERBS};
use super::{Action, CronText, Expression, JobSpec, Verb};
use crate::base::gather::Gather as _;
use crate::base::near::nearest;
use crate::base::signal::common_name;
use crate::config::cron::{self, Zone, ZoneFile};
use crate::config::error::{Pos, quote};
use crate::config::instances::instance;
use crate::config::read::{Bad, Cx, name_error, object};
use crate::config::spec::{Config, Signal};
use crate::config::tree::{Member, Node, Value};
use crate::config::values::{all, known_members, signal};
use crate::protocol::methods::task::TaskCall;
use crate::protocol::methods::{Request, decode};
use serde_json::value::RawValue;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Jobs of one config.
pub(in crate::config) const JOBS_MAX: usize = 10_000;
/// The kinds of actions, each the key of what it is about.
pub(in crate::config) const ACTIONS: [&str; 7] = ["task", "start", "stop", "restart", "reload", "signal", "method"];
/// Params of a method in a config.
const PARAMS_MAX: usize = 64 * 1024;
/// Why the task of a job has no dedupe key.
const NO_KEY: &str = "a job's task has no key: each run is a task of its own, and with a key all runs after the first \
                      would do nothing; remove key, and say with \"overlap\" what happens while the last run goes on";
/// Methods that are of no use to a job, and why.
const NOT_FOR_JOBS: [(&str, &str); 7] = [
    ("service.logs", "it needs somebody who reads"),
    ("daemon.logs", "it needs somebody who reads"),
    ("event.subscribe", "it needs somebody who reads"),
    ("event.unsubscribe", "it needs somebody who reads"),
    ("stream.close", "it needs somebody who reads"),
    ("schedule.run", "jobs do not run jobs"),
    ("task.output", "it needs somebody who reads"),
];

/// A service, or a program for tasks, that an action names.
pub(in crate::config) struct Named {
    path: String,
    pos: Pos,
    of: Of,
}

enum Of {
    Service(String),
    Agent(String),
    Runner(String),
    /// A prompt is for the agent that goes without saying.
    AnyAgent,
}

/// Reads `schedule`.
pub(in crate::config) fn schedule(node: &Node, cx: &mut Cx<'_, '_>) -> Vec<Arc<JobSpec>> {
    let Value::Object(members) = &node.value else {
        cx.kind(node, "an object", r#"{"jobs": []}"#, None);
        return Vec::new();
    };
    // What is unknown was reported, and the rest is read all the same.
    let _ = known_members(members, &["jobs"], cx);
    let jobs = members.iter().find(|m| m.key == "jobs");
    jobs.map_or_else(Vec::new, |m| cx.in_key("jobs", |cx| list(&m.node, cx)))
}

fn list(node: &Node, cx: &mut Cx<'_, '_>) -> Vec<Arc<JobSpec>> {
    let Value::List(items) = &node.value else {
        cx.kind(node, "a list of jobs", r#"[{"id": "nightly", "cron": "@daily", "action": {"start": "x"}}]"#, None);
        return Vec::new();
    };
    if items.len() > JOBS_MAX {
        cx.say(node.pos, format!("{} jobs; {JOBS_MAX} is the most", items.len()));
        return Vec::new();
    }
    let mut jobs: BTreeMap<String, Arc<JobSpec>> = BTreeMap::new();
    for (i, item) in items.iter().enumerate() {
        cx.in_index(i, |cx| {
            let Some(spec) = job(item, cx) else { return };
            if jobs.contains_key(&spec.id) {
                cx.in_key("id", |cx| cx.say(item.pos, format!("there is another job {}", quote(&spec.id))));
            }
            jobs.insert(spec.id.clone(), Arc::new(spec));
        });
    }
    jobs.into_values().collect()
}

fn job(node: &Node, cx: &mut Cx<'_, '_>) -> Option<JobSpec> {
    let mut spec = JobSpec::default();
    let Value::Object(members) = &node.value else {
        cx.kind(node, "an object", r#"{"id": "nightly", "cron": "@daily", "action": {"start": "NAME"}}"#, None);
        return None;
    };
    let failed = object(&mut spec, JOB, members, cx);
    let given = |key: &str| members.iter().find(|m| m.key == key && m.node.value != Value::Null);
    for key in ["id", "action"] {
        if given(key).is_none() {
            let example = JOB.iter().find(|k| k.name == key).map_or("", |k| k.example);
            cx.say(node.pos, format!("{key} is missing, as in \"{key}\": {example}"));
        }
    }
    let mut times = ["cron", "every", "at"].into_iter().filter_map(given);
    match (times.next(), times.next()) {
        (None, _) => {
            cx.say(node.pos, "there is no time: wants one of cron, every and at, as in \"cron\": \"30 2 * * *\"");
        }
        (Some(first), Some(second)) => cx.in_key(&second.key, |cx| {
            cx.say(second.pos, format!("there is {} already; keep one of the two", first.key));
        }),
        (Some(_), None) => {}
    }
    if failed.contains(&"tz") {
        return Some(spec);
    }
    let tz = spec.tz.as_deref().unwrap_or("");
    if let Err(why) = zone(tz, cx).map(|zone| spec.zone = zone) {
        let at = given("tz").map_or(node.pos, |m| m.node.pos);
        cx.in_key("tz", |cx| cx.say(at, why));
        return Some(spec);
    }
    if let (Some(text), Some(member)) = (&spec.at, given("at"))
        && spec.zone.read(text).is_none()
    {
        let why = format!("{} is no time: a date and a time, as in \"2027-01-01T09:30\"", quote(text));
        cx.in_key("at", |cx| cx.say(member.node.pos, why));
    }
    Some(spec)
}

/// The zone of this name; the local one for none.
fn zone(name: &str, cx: &Cx<'_, '_>) -> Result<Zone, String> {
    match (cx.platform.zones)(name) {
        Some((name, content)) => Zone::new(&ZoneFile { name, content }),
        None if name.is_empty() || name == "UTC" => Ok(Zone::utc()),
        None => Err(format!(
            "the time zone {} is not in the system's time zone database; it is in the package tzdata of most systems",
            quote(name)
        )),
    }
}

pub(in crate::config) fn id(node: &Node, cx: &mut Cx<'_, '_>) -> Result<String, Bad> {
    let Value::Text(id) = &node.value else { return Err(Bad::Kind(None)) };
    match name_error(id) {
        Some(why) => Err(cx.say(node.pos, why.replace("a service", "a job").replace("the services", "the jobs"))),
        None => Ok(id.clone()),
    }
}

pub(in crate::config) fn cron_text(node: &Node, cx: &mut Cx<'_, '_>) -> Result<CronText, Bad> {
    let Value::Text(text) = &node.value else { return Err(Bad::Kind(None)) };
    match cron::parse(text) {
        Ok(Expression::Times(cron)) if cron.never_fires() => {
            Err(cx.say(node.pos, format!("{} never fires: there is no such day", quote(text))))
        }
        Ok(expression) => Ok(CronText { text: text.clone(), expression }),
        Err(e) => Err(cx.say(node.pos, format!("{}: {e}", quote(text)))),
    }
}

/// Its zone is not known yet, so that it is only looked at when all keys were read.
pub(in crate::config) fn moment(node: &Node) -> Result<String, Bad> {
    match &node.value {
        Value::Text(text) => Ok(text.clone()),
        _ => Err(Bad::Kind(None)),
    }
}

pub(in crate::config) fn zone_name(node: &Node, cx: &mut Cx<'_, '_>) -> Result<String, Bad> {
    let Value::Text(name) = &node.value else { return Err(Bad::Kind(None)) };
    match Zone::name_error(name) {
        Some(why) => Err(cx.say(node.pos, format!("{} is no name: {why}", quote(name)))),
        None => Ok(name.clone()),
    }
}

pub(in crate::config) fn action(node: &Node, cx: &mut Cx<'_, '_>) -> Result<Action, Bad> {
    let Value::Object(members) = &node.value else { return Err(Bad::Kind(None)) };
    let known = [&ACTIONS[..], &["service", "params"]].concat();
    if let Some(m) = members.iter().find(|m| !known.contains(&m.key.as_str())) {
        let near = nearest(&m.key, known.iter().copied()).map(str::to_owned);
        let keys = ACTIONS.join(", ");
        let message = format!("unknown key: an action has one of {keys}; service beside signal, params beside method");
        cx.report.enter_key(&m.key);
        cx.report.suggest(m.pos, message, near);
        cx.report.leave();
        return Err(Bad::Said);
    }
    let mut kinds = members.iter().filter(|m| ACTIONS.contains(&m.key.as_str()));
    let (Some(kind), None) = (kinds.next(), kinds.next()) else {
        let example = r#"{"restart": "web"}"#;
        return Err(cx.say(node.pos, format!("wants exactly one of {}, as in {example}", ACTIONS.join(", "))));
    };
    let beside = |key: &str| members.iter().find(|m| m.key == key);
    for (key, of) in [("service", "signal"), ("params", "method")] {
        if let Some(m) = beside(key).filter(|_| kind.key != of) {
            return cx.in_key(key, |cx| Err(cx.say(m.pos, format!("this stands beside {of} alone"))));
        }
    }
    if let Some((_, verb)) = VERBS.iter().find(|(word, _)| *word == kind.key) {
        let names = cx.in_key(&kind.key, |cx| services(&kind.node, cx))?;
        return Ok(Action::Service { verb: *verb, names });
    }
    match kind.key.as_str() {
        "signal" => signal_action(node, kind, beside("service"), cx),
        "method" => call(kind, beside("params"), cx),
        _ => cx.in_key("task", |cx| task(&kind.node, cx)),
    }
}

fn services(node: &Node, cx: &mut Cx<'_, '_>) -> Result<Vec<String>, Bad> {
    let names = match &node.value {
        Value::Text(_) => vec![service(node, cx)?],
        Value::List(items) if !items.is_empty() => {
            all(items.iter().enumerate(), |(i, item)| cx.in_index(i, |cx| service(item, cx)))?
        }
        _ => return Err(cx.kind(node, "the name of a service, or a list of them", r#""web""#, None)),
    };
    Ok(names)
}

fn service(node: &Node, cx: &mut Cx<'_, '_>) -> Result<String, Bad> {
    let Value::Text(name) = &node.value else {
        return Err(cx.kind(node, "the name of a service", r#""web""#, None));
    };
    cx.named.push(Named { path: cx.report.path(), pos: node.pos, of: Of::Service(name.clone()) });
    Ok(name.clone())
}

fn signal_action(node: &Node, kind: &Member, to: Option<&Member>, cx: &mut Cx<'_, '_>) -> Result<Action, Bad> {
    let signal = cx.in_key("signal", |cx| match signal(&kind.node, cx) {
        Err(Bad::Kind(meant)) => Err(cx.kind(&kind.node, "the name or number of a signal", r#""SIGHUP""#, meant)),
        other => other,
    })?;
    let Some(to) = to else {
        let example = r#"{"signal": "SIGHUP", "service": "web"}"#;
        return Err(cx.say(node.pos, format!("service is missing, as in {example}")));
    };
    Ok(Action::Signal { service: cx.in_key("service", |cx| service(&to.node, cx))?, signal })
}

/// The params are read as the daemon would read them.
fn call(kind: &Member, params: Option<&Member>, cx: &mut Cx<'_, '_>) -> Result<Action, Bad> {
    let Value::Text(method) = &kind.node.value else {
        return Err(cx.in_key("method", |cx| cx.kind(&kind.node, "the name of a method", r#""daemon.reload""#, None)));
    };
    if let Some((_, why)) = NOT_FOR_JOBS.iter().find(|(name, _)| name == method) {
        return Err(cx.in_key("method", |cx| cx.say(kind.node.pos, format!("{method} is of no use here: {why}"))));
    }
    let text = params.map_or_else(|| "{}".to_owned(), |m| json(&m.node));
    if text.len() > PARAMS_MAX {
        let at = params.map_or(kind.pos, |m| m.pos);
        return Err(cx.in_key("params", |cx| cx.say(at, format!("{} bytes; {PARAMS_MAX} is the most", text.len()))));
    }
    // What was just written is JSON.
    let raw = RawValue::from_string(text.clone()).ok();
    match decode(method, raw.as_deref(), cx.platform.signals) {
        Ok(call) if has_key(&call.request) => {
            Err(cx.in_key("params", |cx| cx.say(params.map_or(kind.pos, |m| m.node.pos), NO_KEY)))
        }
        Ok(call) => {
            let submits = matches!(&call.request, Request::Task(call) if matches!(&**call, TaskCall::Submit { .. }));
            if let Some(params) = params.filter(|_| submits) {
                cx.in_key("params", |cx| programs(&params.node, cx));
            }
            Ok(Action::Call { method: method.clone(), params: text, request: call.request })
        }
        Err(e) => {
            let known =
                crate::protocol::methods::METHODS.iter().any(|m| m.name == method || m.aliases.contains(&&**method));
            let (key, pos) = match params {
                Some(m) if known => ("params", m.node.pos),
                _ => ("method", kind.node.pos),
            };
            let hint = e.hint.map_or_else(String::new, |hint| format!("; {hint}"));
            Err(cx.in_key(key, |cx| cx.say(pos, format!("{}{hint}", e.message))))
        }
    }
}

/// Whether it would submit a task only if no other has its key, so that a job would run once and never again.
fn has_key(request: &Request) -> bool {
    let Request::Task(call) = request else { return false };
    matches!(&**call, TaskCall::Submit { specs, .. } if specs.iter().any(|s| s.key.is_some()))
}

/// A task for task.submit, read as that method reads it.
fn task(node: &Node, cx: &mut Cx<'_, '_>) -> Result<Action, Bad> {
    let text = json(node);
    if !matches!(node.value, Value::Object(_)) {
        return Err(cx.kind(node, "an object with what task.submit takes", r#"{"command": ["make"]}"#, None));
    }
    let raw = RawValue::from_string(text.clone()).ok();
    match decode("task.submit", raw.as_deref(), cx.platform.signals) {
        Ok(call) if has_key(&call.request) => {
            let key =
                if let Value::Object(members) = &node.value { members.iter().find(|m| m.key == "key") } else { None };
            match key {
                Some(key) => cx.in_key("key", |cx| Err(cx.say(key.pos, NO_KEY))),
                None => Err(cx.say(node.pos, NO_KEY)),
            }
        }
        Ok(call) => {
            programs(node, cx);
            Ok(Action::Task { spec: text, request: call.request })
        }
        Err(e) => {
            let hint = e.hint.map_or_else(String::new, |hint| format!("; {hint}"));
            Err(cx.say(node.pos, format!("{}{hint}", e.message)))
        }
    }
}

/// Notes the agents and runners of what was read as a task, or as a list of tasks.
fn programs(node: &Node, cx: &mut Cx<'_, '_>) {
    let Value::Object(members) = &node.value else { return };
    let beside = |key: &str| members.iter().find(|m| m.key == key && m.node.value != Value::Null);
    if let Some(prompt) = beside("prompt").filter(|_| beside("agent").is_none()) {
        cx.in_key("prompt", |cx| {
            cx.named.push(Named { path: cx.report.path(), pos: prompt.node.pos, of: Of::AnyAgent });
        });
    }
    for (key, of) in [("agent", Of::Agent as fn(String) -> Of), ("runner", Of::Runner)] {
        if let Some(m) = beside(key)
            && let Value::Text(name) = &m.node.value
        {
            cx.in_key(key, |cx| {
                cx.named.push(Named { path: cx.report.path(), pos: m.node.pos, of: of(name.clone()) });
            });
        }
    }
    if let Some(m) = beside("tasks")
        && let Value::List(items) = &m.node.value
    {
        cx.in_key("tasks", |cx| {
            for (i, item) in items.iter().enumerate() {
                cx.in_index(i, |cx| programs(item, cx));
            }
        });
    }
}

/// Reports services that actions name and that do not exist, neither as one nor as instances, and agents and runners
/// that the config does not have.
pub(in crate::config) fn check(config: &Config, named: &[Named], cx: &mut Cx<'_, '_>) {
    let groups: BTreeSet<&str> = config.services.keys().filter_map(|n| Some(instance(n)?.0)).gather();
    let known = |name: &str| config.services.contains_key(name) || groups.contains(name);
    for n in named {
        let (what, name, near) = match &n.of {
            Of::Service(name) if !known(name) => {
                let names =
                    config.services.keys().flat_map(|n| [n.as_str(), instance(n).map_or(n, |(group, _)| group)]);
                ("service", name, nearest(name, names))
            }
            Of::Agent(name) if !config.agents.contains_key(name) => {
                ("agent", name, nearest(name, config.agents.keys().map(String::as_str)))
            }
            Of::Runner(name) if !config.runners.contains_key(name) => {
                ("runner", name, nearest(name, config.runners.keys().map(String::as_str)))
            }
            Of::AnyAgent if config.agents.len() != 1 && !config.agents.contains_key("default") => {
                let message = if config.agents.is_empty() {
                    "there is no agent that the prompt could be for".to_owned()
                } else {
                    let known = config.agents.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
                    format!("agent is missing, and none is \"default\": there are {known}")
                };
                cx.report.add_at(n.path.clone(), n.pos, message, None);
                continue;
            }
            Of::Service(_) | Of::Agent(_) | Of::Runner(_) | Of::AnyAgent => continue,
        };
        let message = format!("there is no {what} {}", quote(name));
        cx.report.add_at(n.path.clone(), n.pos, message, near.map(str::to_owned));
    }
}

/// A signal as it would be written in a file for any system.
pub(in crate::config) fn signal_json(number: i32) -> String {
    common_name(number).map_or_else(|| number.to_string(), |name| format!("\"{name}\""))
}

/// An action as it would be written in the file.
pub(in crate::config) fn action_json(action: &Action) -> String {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    match action {
        Action::Task { spec, .. } => format!("{{\"task\":{spec}}}"),
        Action::Service { verb, names } => {
            let names: Vec<String> = names.iter().map(|n| quoted(n)).collect();
            format!("{{\"{}\":[{}]}}", Verb::word(*verb), names.join(","))
        }
        Action::Signal { service, signal: Signal { number } } => {
            let name = signal_json(*number);
            format!("{{\"signal\":{name},\"service\":{}}}", quoted(service))
        }
        Action::Call { method, params, .. } => format!("{{\"method\":{},\"params\":{params}}}", quoted(method)),
    }
}

/// A value as JSON again. A config is not nested deep enough to fill a stack.
fn json(node: &Node) -> String {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    match &node.value {
        Value::Null => "null".to_owned(),
        Value::Bool(b) => b.to_string(),
        Value::Number(n) => n.clone(),
        Value::Text(t) => quoted(t),
        Value::List(items) => format!("[{}]", items.iter().map(json).collect::<Vec<_>>().join(",")),
        Value::Object(members) => {
            let members = members.iter().map(|m| format!("{}:{}", quoted(&m.key), json(&m.node)));
            format!("{{{}}}", members.collect::<Vec<_>>().join(","))
        }
    }
}
