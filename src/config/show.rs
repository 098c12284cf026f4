//! The config as text again: the effective one as JSON, and the table of keys with its defaults for people. Touches
//! nothing.

use super::address::{Address, Listen, UnixType};
use super::keys::{
    ACCESSES, CONDITIONS, DAEMON, FORMATS, Field, IO_CLASSES, JOB_ACCESSES, Key, LEVELS, ON_DEATHS, RESTARTS, SERVICE,
    STREAMS, Seen,
};
use super::programs::{AGENT, GROUP, PROMPTS, RUNNER};
use super::schedule::keys::{JOB, MISSED, OVERLAPS};
use super::schedule::read::{action_json, signal_json};
use super::schedule::{Action, JobSpec};
use super::spec::{
    AgentSpec, Check, Condition, Config, DaemonSpec, Grant, GroupSpec, Health, IoClass, IoNice, Need, Ready, Rlimit,
    RunnerSpec, ServiceSpec, Signal, Who,
};
use crate::base::text::capital;
use crate::base::units::{canonical_duration, canonical_size};
use core::fmt::Display;
use core::fmt::Write as _;
use serde_json::Value;

/// The whole effective config on one line: every key, durations and sizes in their canonical units, unset ones `null`.
/// It reads back to an equal config on the same system.
#[must_use]
pub fn to_json(config: &Config) -> String {
    let services = config.services.iter().map(|(name, spec)| (name.as_str(), service_json(spec)));
    let daemon = keys_json(&config.daemon, DAEMON);
    let jobs = object([("jobs", list(config.schedule.iter().map(|job| keys_json(&**job, JOB))))].into_iter());
    let groups = config.groups.iter().map(|(name, g)| (name.as_str(), keys_json(g, GROUP)));
    let agents = config.agents.iter().map(|(name, a)| (name.as_str(), keys_json(a, AGENT)));
    let runners = config.runners.iter().map(|(name, r)| (name.as_str(), keys_json(r, RUNNER)));
    object(
        [
            ("daemon", daemon),
            ("services", object(services)),
            ("groups", object(groups)),
            ("agents", object(agents)),
            ("runners", object(runners)),
            ("schedule", jobs),
        ]
        .into_iter(),
    )
}

/// The config as it may be shown to whoever may read it: `***` is in the place of values of secrets, of what agents and
/// tasks of the schedule find in their environment, and of what these tasks read.
#[must_use]
pub fn masked(config: &Config) -> Config {
    let mut shown = config.clone();
    for spec in shown.services.values_mut().filter(|s| !s.secrets.is_empty()) {
        let mut copy = ServiceSpec::clone(spec);
        for (_, value) in copy.env.iter_mut().filter(|(name, _)| spec.secrets.contains(name)) {
            "***".clone_into(value);
        }
        *spec = copy.into();
    }
    for agent in shown.agents.values_mut() {
        // With this ending the value is the name of a variable.
        for (_, value) in agent.env.iter_mut().filter(|(name, _)| !name.ends_with("_env")) {
            "***".clone_into(value);
        }
    }
    for job in &mut shown.schedule {
        *job = masked_job(job).into();
    }
    shown
}

/// The same of one job.
#[must_use]
pub fn masked_job(job: &JobSpec) -> JobSpec {
    let mut shown = job.clone();
    match &mut shown.action {
        Some(Action::Task { spec, .. }) => *spec = masked_params(spec),
        Some(Action::Call { params, .. }) => *params = masked_params(params),
        Some(Action::Service { .. } | Action::Signal { .. }) | None => {}
    }
    shown
}

/// Params of a method without the values of its `env`, and without its `stdin`.
fn masked_params(json: &str) -> String {
    // What cannot be read cannot be masked either.
    let Ok(mut params) = serde_json::from_str(json) else { return "{}".to_owned() };
    let mut open: Vec<&mut Value> = vec![&mut params];
    while let Some(value) = open.pop() {
        match value {
            Value::Object(members) => {
                for (name, value) in members {
                    match (name.as_str(), value) {
                        ("env", Value::Object(env)) => env.values_mut().for_each(|v| *v = "***".into()),
                        ("stdin", value) if !value.is_null() => *value = "***".into(),
                        (_, value) => open.push(value),
                    }
                }
            }
            Value::Array(items) => open.extend(items),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    params.to_string()
}

/// One service of the effective config, as `to_json` writes it.
#[must_use]
pub fn service_json(spec: &ServiceSpec) -> String {
    keys_json(spec, SERVICE)
}

/// One job of the effective config, as `to_json` writes it.
#[must_use]
pub fn job_json(spec: &JobSpec) -> String {
    keys_json(spec, JOB)
}

/// The same without the keys that are at their default: as short as a person would write it.
#[must_use]
pub fn service_brief(spec: &ServiceSpec) -> String {
    brief(spec, &ServiceSpec::default(), SERVICE).unwrap_or_else(|| "{}".to_owned())
}

/// What the tasks of a group may use of the machine, in the same way; `None`: what those of any group may.
#[must_use]
pub fn limits_brief(spec: &GroupSpec) -> Option<String> {
    let GroupSpec { parallel, paused, weight_limit, .. } = *spec;
    brief(spec, &GroupSpec { parallel, paused, weight_limit, ..GroupSpec::DEFAULT }, GROUP)
}

fn brief<S>(spec: &S, plain: &S, keys: &'static [Key<S>]) -> Option<String> {
    let mut members = Vec::new();
    for key in keys {
        let value = match &key.field {
            Field::Group(inner) => brief(spec, plain, inner),
            field => Some(field.json(spec)).filter(|json| *json != field.json(plain)),
        };
        members.extend(value.map(|json| (key.name, json)));
    }
    (!members.is_empty()).then(|| object(members.into_iter()))
}

fn keys_json<S>(spec: &S, keys: &'static [Key<S>]) -> String {
    object(keys.iter().map(|k| (k.name, k.field.json(spec))))
}

impl<S> Field<S> {
    /// The value as it would be written in the file.
    pub(super) fn json(&self, spec: &S) -> String {
        match self {
            Field::Group(keys) => keys_json(spec, keys),
            field => field.seen(spec).json(),
        }
    }
}

impl Seen<'_> {
    fn json(self) -> String {
        match self {
            Seen::Command(v) => list(v.iter().map(|s| quoted(s))),
            Seen::OptCommand(v) => or_null(v.as_ref().map(|c| list(c.iter().map(|s| quoted(s))))),
            Seen::Path(v) | Seen::Account(v) => or_null(v.as_ref().map(|s| quoted(s))),
            Seen::Env(v) => object(v.iter().map(|(k, v)| (k.as_str(), quoted(v)))),
            Seen::Flag(v) => v.to_string(),
            Seen::Span(v, _) => quoted(&canonical_duration(*v)),
            Seen::OptSpan(v, _) => or_null(v.map(|d| quoted(&canonical_duration(d)))),
            Seen::Count(v, ..) => v.to_string(),
            Seen::Size(v) => quoted(&canonical_size(*v)),
            Seen::OptRate(v) => or_null(v.map(|n| quoted(&format!("{}/s", canonical_size(n))))),
            Seen::Variables(v) => list(v.iter().map(|s| quoted(s))),
            Seen::Nice(v) => v.to_string(),
            Seen::OptNice(v) => or_null(*v),
            Seen::OptInt(v, ..) => or_null(*v),
            Seen::IoNice(v) => or_null(v.map(ionice)),
            Seen::Cpus(v) => or_null(v.as_ref().map(|c| quoted(&c.to_string()))),
            Seen::Umask(v) => or_null(v.map(|m| format!("\"{m:03o}\""))),
            Seen::Rlimits(v) => object(v.iter().map(|l| (l.name, rlimit(l)))),
            Seen::Restart(v) => word(RESTARTS, v),
            Seen::OnDeath(v) => word(ON_DEATHS, v),
            Seen::Level(v) => word(LEVELS, v),
            Seen::LogFormat(v) => word(FORMATS, v),
            Seen::Streams(v) => word(STREAMS, v),
            Seen::Ready(v) => match v {
                Ready::Spawned => quoted("spawned"),
                Ready::Notify => quoted("notify"),
                Ready::Port(port) => format!("{{\"port\":{port}}}"),
                Ready::Log(regex) => format!("{{\"log\":{}}}", quoted(regex)),
                Ready::Fd(fd) => format!("{{\"fd\":{fd}}}"),
                Ready::Socket(path) => format!("{{\"socket\":{}}}", quoted(path)),
                Ready::Command(argv) => format!("{{\"command\":{}}}", list(argv.iter().map(|s| quoted(s)))),
            },
            Seen::Health(v) => or_null(v.as_ref().map(health)),
            Seen::Needs(v) => list(v.iter().map(need)),
            Seen::Listen(v) => list(v.iter().map(listen)),
            Seen::Signal(v) => signal(*v),
            Seen::OptSignal(v) => or_null(v.map(signal)),
            Seen::Grants(v) => list(v.iter().map(grant)),
            Seen::Prompt(v) => word(PROMPTS, v),
            Seen::OptAccess(v) => word(JOB_ACCESSES, v),
            Seen::Id(v) => quoted(v),
            Seen::Cron(v) => or_null(v.as_ref().map(|c| quoted(&c.text))),
            Seen::Moment(v) | Seen::Zone(v) => or_null(v.as_ref().map(|s| quoted(s))),
            Seen::Action(v) => or_null(v.as_ref().map(action_json)),
            Seen::Overlap(v) => word(OVERLAPS, v),
            Seen::Missed(v) => word(MISSED, v),
            Seen::Group => String::new(),
            Seen::Instances => "null".to_owned(),
        }
    }
}

fn or_null<T: Display>(value: Option<T>) -> String {
    value.map_or_else(|| "null".to_owned(), |v| v.to_string())
}

fn word<T: PartialEq>(table: &[(&str, T)], value: &T) -> String {
    table.iter().find(|(_, v)| v == value).map_or_else(String::new, |(w, _)| quoted(w))
}

fn rlimit(limit: &Rlimit) -> String {
    let part = |value: Option<u64>| value.map_or_else(|| quoted("unlimited"), |n| n.to_string());
    if limit.soft == limit.hard {
        return part(limit.soft);
    }
    object([("soft", part(limit.soft)), ("hard", part(limit.hard))].into_iter())
}

fn signal(signal: Signal) -> String {
    signal_json(signal.number)
}

fn ionice(io: IoNice) -> String {
    let class = IO_CLASSES.iter().find(|(_, c)| *c == io.class).map_or("", |(word, _)| word);
    quoted(&if io.class == IoClass::Idle { class.to_owned() } else { format!("{class}:{}", io.level) })
}

fn health(health: &Health) -> String {
    let check = match &health.check {
        Check::Command(argv) => ("command", list(argv.iter().map(|s| quoted(s)))),
        Check::Tcp(at) => ("tcp", quoted(&at.to_string())),
        Check::Http { at, path } => ("http", quoted(&format!("http://{at}{path}"))),
        Check::Unix(path) => ("unix", quoted(path)),
    };
    let span = |d| quoted(&canonical_duration(d));
    let rest =
        [("every", span(health.every)), ("timeout", span(health.timeout)), ("retries", health.retries.to_string())];
    object([check].into_iter().chain(rest))
}

fn need(need: &Need) -> String {
    match need.condition {
        Condition::Ready => quoted(&need.name),
        condition => object([("name", quoted(&need.name)), ("condition", word(CONDITIONS, &condition))].into_iter()),
    }
}

/// The address alone where all else is as the defaults are.
fn listen(socket: &Listen) -> String {
    if *socket == Listen::new(socket.at.clone()) {
        return quoted(&socket.at.to_string());
    }
    let (kind, at) = match &socket.at {
        Address::Tcp(at) => ("tcp", at.to_string()),
        Address::Udp(at) => ("udp", at.to_string()),
        Address::Unix(_, path) => ("unix", path.clone()),
    };
    let mut members = vec![(kind, quoted(&at))];
    match &socket.at {
        Address::Unix(UnixType::Datagram, _) => members.push(("type", quoted("datagram"))),
        Address::Unix(UnixType::Seqpacket, _) => members.push(("type", quoted("seqpacket"))),
        Address::Unix(UnixType::Stream, _) | Address::Tcp(_) | Address::Udp(_) => {}
    }
    members.extend(socket.name.as_ref().map(|name| ("name", quoted(name))));
    members.extend(socket.backlog.map(|n| ("backlog", n.to_string())));
    members.extend(socket.mode.map(|m| ("mode", format!("\"{m:04o}\""))));
    members.extend(socket.user.as_ref().map(|user| ("user", quoted(user))));
    members.extend(socket.group.as_ref().map(|group| ("group", quoted(group))));
    members.extend(socket.ipv6_only.then(|| ("ipv6_only", "true".to_owned())));
    object(members.into_iter())
}

fn grant(grant: &Grant) -> String {
    let (kind, name) = match &grant.who {
        Who::User(name) => ("user", name),
        Who::Group(name) => ("group", name),
    };
    object([(kind, quoted(name)), ("level", word(ACCESSES, &grant.level))].into_iter())
}

fn list(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(","))
}

fn object<'k>(members: impl Iterator<Item = (&'k str, String)>) -> String {
    let members: Vec<String> = members.map(|(key, value)| format!("{}:{value}", quoted(key))).collect();
    format!("{{{}}}", members.join(","))
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// One key of the table, for documents and for `hob config show --defaults`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyInfo {
    /// `daemon.log.level`, `services.NAME.command`.
    pub path: String,
    /// The type in words.
    pub wants: String,
    /// JSON text, spaced as people write it; `None` where the key must be given.
    pub default: Option<String>,
    pub doc: &'static str,
    /// JSON text.
    pub example: &'static str,
    /// Whether a change takes effect without a restart of the service.
    pub live: bool,
}

/// All keys, in the order of the table.
#[must_use]
pub fn keys() -> Vec<KeyInfo> {
    let mut out = Vec::new();
    infos("daemon", DAEMON, &DaemonSpec::default(), &mut out);
    infos("services.NAME", SERVICE, &ServiceSpec::default(), &mut out);
    infos("groups.NAME", GROUP, &GroupSpec::default(), &mut out);
    infos("agents.NAME", AGENT, &AgentSpec::default(), &mut out);
    infos("runners.NAME", RUNNER, &RunnerSpec::default(), &mut out);
    infos("schedule.jobs[]", JOB, &JobSpec::default(), &mut out);
    out
}

fn infos<S>(prefix: &str, keys: &'static [Key<S>], defaults: &S, out: &mut Vec<KeyInfo>) {
    for key in keys {
        let path = format!("{prefix}.{}", key.name);
        if let Field::Group(inner) = &key.field {
            infos(&path, inner, defaults, out);
            continue;
        }
        let default = (!key.field.is_needed()).then(|| key.field.json(defaults));
        let (wants, Key { doc, example, live, .. }) = (key.field.seen(defaults).wants(), key);
        out.push(KeyInfo { path, wants, default, doc, example, live: *live });
    }
}

/// Every key with its meaning, type and default, as a config with comments that itself means "all defaults".
#[must_use]
pub fn defaults_text() -> String {
    let mut out = String::from("// Every key of hob.json with its default.\n{\n  \"daemon\": {\n");
    section(DAEMON, &DaemonSpec::default(), 4, &mut out);
    out.push_str(
        "  },\n  \"services\": {\n    // Any number of services, each under a name of its own.\n    \"NAME\": {\n",
    );
    section(SERVICE, &ServiceSpec::default(), 6, &mut out);
    out.push_str("    },\n  },\n");
    many(
        "groups",
        "Slots for tasks; \"default\" and \"agents\" are always there.",
        GROUP,
        &GroupSpec::default(),
        &mut out,
    );
    many("agents", "Programs that take a prompt.", AGENT, &AgentSpec::default(), &mut out);
    many("runners", "What hands a task to another engine.", RUNNER, &RunnerSpec::default(), &mut out);
    out.push_str("  \"schedule\": {\n    // Any number of jobs.\n    \"jobs\": [{\n");
    section(JOB, &JobSpec::default(), 6, &mut out);
    out.push_str("    }],\n  },\n}\n");
    out
}

/// A part of the config with entries under names, as a sample of one entry.
fn many<S>(name: &str, doc: &str, keys: &'static [Key<S>], defaults: &S, out: &mut String) {
    let _ = writeln!(out, "  // {doc}\n  \"{name}\": {{\n    \"NAME\": {{");
    section(keys, defaults, 6, out);
    out.push_str("    },\n  },\n");
}

impl<S> Field<S> {
    /// Whether there is no default that a config could do with; of the times of a job one is shown.
    pub(super) fn is_needed(&self) -> bool {
        matches!(self, Field::Command(_) | Field::Id(_) | Field::Cron(_) | Field::Action(_))
    }
}

fn section<S>(keys: &'static [Key<S>], defaults: &S, indent: usize, out: &mut String) {
    for key in keys {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{:indent$}// {}.", "", capital(key.doc));
        if let Field::Group(inner) = &key.field {
            let _ = writeln!(out, "{:indent$}\"{}\": {{", "", key.name);
            section(inner, defaults, indent + 2, out);
            let _ = writeln!(out, "{:indent$}}},", "");
            continue;
        }
        let value = if key.field.is_needed() { key.example.to_owned() } else { key.field.json(defaults) };
        let example = if value == key.example { String::new() } else { format!(", as in {}", key.example) };
        let _ = writeln!(out, "{:indent$}// {}{example}", "", capital(&key.field.seen(defaults).wants()));
        let _ = writeln!(out, "{:indent$}\"{}\": {value},", "", key.name);
    }
}
