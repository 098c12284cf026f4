//! From the tree to the spec: walks the table of keys and reports whatever does not fit. Touches nothing.

use super::error::{Pos, Report, quote};
use super::graph::NeedAt;
use super::keys::{
    ACCESSES, DAEMON, FORMATS, Field, IO_CLASSES, JOB_ACCESSES, Key, LEVELS, LOG_RATE_MIN, LOG_SIZE_MIN, ON_DEATHS,
    Place, RESTARTS, SERVICE, STREAMS, Seen, meant,
};
use super::listen::{self, ListenAt};
use super::programs::{self, PROMPTS, named};
use super::schedule::keys::{MISSED, OVERLAPS};
use super::spec::{Config, DaemonSpec, Ready, Restart, ServiceSpec, Settings};
use super::tree::{Member, Node, Value};
use super::{graph, health, instances, machine, ready, schedule, values};
use crate::base::gather::Gather as _;
use crate::base::limits::{NAME_MAX, SECRET_MIN, SERVICES_MAX};
use crate::base::signal::Platform;
use crate::base::units::{canonical_duration, canonical_size};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What reading carries along.
pub(super) struct Cx<'a, 'f> {
    pub(super) report: &'a mut Report<'f>,
    pub(super) platform: &'a Platform,
    /// The service being read, and every need found so far.
    pub(super) service: String,
    /// Where it is one of several.
    pub(super) instance: Option<String>,
    pub(super) needs: Vec<NeedAt>,
    /// Every socket found so far.
    pub(super) listens: Vec<ListenAt>,
    /// Every service that an action of a job names.
    pub(super) named: Vec<schedule::read::Named>,
    /// Settings of services before, the latest of those that differ.
    pub(super) settings: Vec<Arc<Settings>>,
}

/// How many different settings are looked at for an equal one.
const SETTINGS_COMPARED: usize = 16;

/// Why a value was not taken.
pub(super) enum Bad {
    /// It is not of the wanted kind; what was probably meant.
    Kind(Option<String>),
    /// It was reported where it was found.
    Said,
}

impl<'a, 'f> Cx<'a, 'f> {
    pub(super) fn new(report: &'a mut Report<'f>, platform: &'a Platform) -> Self {
        Cx {
            report,
            platform,
            service: String::new(),
            instance: None,
            needs: Vec::new(),
            listens: Vec::new(),
            named: Vec::new(),
            settings: Vec::new(),
        }
    }
}

impl Cx<'_, '_> {
    /// Reports at a place of its own.
    pub(super) fn say(&mut self, pos: Pos, message: impl Into<String>) -> Bad {
        self.report.add(pos, message);
        Bad::Said
    }

    pub(super) fn suggest(&mut self, pos: Pos, message: impl Into<String>, suggestion: Option<String>) -> Bad {
        self.report.suggest(pos, message, suggestion);
        Bad::Said
    }

    /// Reports a value of the wrong kind: what is wanted, an example unless the meaning is clear, and what was found.
    pub(super) fn kind(&mut self, node: &Node, wants: &str, example: &str, meant: Option<String>) -> Bad {
        let found = found(&node.value);
        let message = if meant.is_some() || example.is_empty() {
            format!("wants {wants}, found {found}")
        } else {
            format!("wants {wants}, as in {example}, found {found}")
        };
        self.suggest(node.pos, message, meant)
    }

    pub(super) fn in_key<T>(&mut self, key: &str, read: impl FnOnce(&mut Self) -> T) -> T {
        self.report.enter_key(key);
        let value = read(self);
        self.report.leave();
        value
    }

    pub(super) fn in_index<T>(&mut self, index: usize, read: impl FnOnce(&mut Self) -> T) -> T {
        self.report.enter_index(index);
        let value = read(self);
        self.report.leave();
        value
    }

    /// Has services whose settings are equal share them.
    fn share(&mut self, spec: &mut ServiceSpec) {
        match self.settings.iter().find(|s| **s == spec.settings) {
            Some(known) => spec.settings = Arc::clone(known),
            None => {
                if self.settings.len() == SETTINGS_COMPARED {
                    self.settings.remove(0);
                }
                self.settings.push(Arc::clone(&spec.settings));
            }
        }
    }

    pub(super) fn unknown_key<'k>(&mut self, member: &Member, allowed: impl Iterator<Item = &'k str> + Clone) {
        let meant = if self.report.is_full() { None } else { meant(&member.key, allowed) };
        self.report.enter_key(&member.key);
        self.report.suggest(member.pos, "unknown key", meant.map(str::to_owned));
        self.report.leave();
    }
}

/// The keys of the whole, and the one that is for editors alone.
pub(super) const ROOT: [&str; 7] = ["daemon", "services", "groups", "agents", "runners", "schedule", SCHEMA_KEY];
pub(super) const SCHEMA_KEY: &str = "$schema";

/// Where an editor finds what is allowed in the file; hob itself has no use for it.
fn schema_name(node: &Node, cx: &mut Cx<'_, '_>) {
    if !matches!(node.value, Value::Text(_)) {
        cx.kind(node, "the address of a JSON Schema", r#""./hob.schema.json""#, None);
    }
}

/// Reads the whole config.
pub(super) fn config(root: &Node, cx: &mut Cx<'_, '_>) -> Config {
    let mut config = Config::default();
    let Value::Object(members) = &root.value else {
        cx.kind(root, "an object", r#"{"services": {}}"#, None);
        return config;
    };
    for member in members {
        match member.key.as_str() {
            "daemon" => cx.in_key("daemon", |cx| daemon(&mut config.daemon, &member.node, cx)),
            "services" => cx.in_key("services", |cx| config.services = services(&member.node, cx)),
            "groups" => cx.in_key("groups", |cx| {
                let hint = ("group", r#"{"build": {"parallel": 2}}"#, None);
                config.groups = named(&member.node, programs::GROUP, hint, cx);
            }),
            "agents" => cx.in_key("agents", |cx| {
                let hint = ("agent", r#"{"claude": {"command": ["claude", "-p"]}}"#, Some("command"));
                config.agents = named(&member.node, programs::AGENT, hint, cx);
                programs::check_env(&member.node, cx);
                programs::take_prompts(&member.node, &mut config.agents, cx);
            }),
            "runners" => cx.in_key("runners", |cx| {
                let hint = ("runner", r#"{"cluster": {"prefix": ["srun"]}}"#, Some("prefix"));
                config.runners = named(&member.node, programs::RUNNER, hint, cx);
                programs::take_arguments(&member.node, &mut config.runners);
            }),
            SCHEMA_KEY => cx.in_key(SCHEMA_KEY, |cx| schema_name(&member.node, cx)),
            "schedule" => cx.in_key("schedule", |cx| config.schedule = schedule::read::schedule(&member.node, cx)),
            _ => cx.unknown_key(member, ROOT.into_iter()),
        }
    }
    let named = core::mem::take(&mut cx.named);
    schedule::read::check(&config, &named, cx);
    let mut needs = core::mem::take(&mut cx.needs);
    instances::spread(&mut config.services, &mut needs, cx.report);
    graph::check(&config, &needs, cx.report);
    let listens = core::mem::take(&mut cx.listens);
    listen::check(&listens, cx.report);
    config
}

fn daemon(spec: &mut DaemonSpec, node: &Node, cx: &mut Cx<'_, '_>) {
    match &node.value {
        Value::Object(members) => {
            object(spec, DAEMON, members, cx);
        }
        _ => {
            cx.kind(node, "an object", r#"{"nice": 0}"#, None);
        }
    }
}

fn services(node: &Node, cx: &mut Cx<'_, '_>) -> BTreeMap<String, Arc<ServiceSpec>> {
    let mut services = BTreeMap::new();
    let Value::Object(members) = &node.value else {
        cx.kind(node, "an object with a member for each service", r#"{"web": {"command": ["httpd"]}}"#, None);
        return services;
    };
    if members.len() > SERVICES_MAX {
        cx.say(node.pos, format!("{} services; {SERVICES_MAX} is the most", members.len()));
        return services;
    }
    let taken = members.iter().map(|m| (m.key.as_str(), m.pos)).gather();
    let mut room = instances::Room::default();
    for member in members {
        cx.in_key(&member.key, |cx| {
            if let Some(message) = name_error(&member.key) {
                cx.report.add(member.pos, message);
            }
            entry(member, &taken, &mut services, &mut room, cx);
        });
    }
    if services.len() > SERVICES_MAX {
        cx.say(node.pos, format!("{} services with all instances; {SERVICES_MAX} is the most", services.len()));
    }
    services
}

/// One member of `services`: a service, or its instances.
pub(super) fn entry(
    member: &Member,
    taken: &BTreeMap<&str, Pos>,
    services: &mut BTreeMap<String, Arc<ServiceSpec>>,
    room: &mut instances::Room,
    cx: &mut Cx<'_, '_>,
) {
    match instances::of(member, taken, cx) {
        Some(names) => several(member, &names, services, room, cx),
        None => {
            cx.service.clone_from(&member.key);
            let mut spec = service(member, cx);
            cx.share(&mut spec);
            services.insert(member.key.clone(), Arc::new(spec));
        }
    }
}

/// The instances of one service. A mistake in it is reported for the first that has it.
fn several(
    member: &Member,
    names: &[String],
    services: &mut BTreeMap<String, Arc<ServiceSpec>>,
    room: &mut instances::Room,
    cx: &mut Cx<'_, '_>,
) {
    if services.len() + names.len() > SERVICES_MAX {
        let message = format!("with its instances there are {} services", services.len() + names.len());
        return cx.report.add(member.pos, format!("{message}; {SERVICES_MAX} is the most"));
    }
    let mut good = room.admit(member, names.len(), cx);
    let mut spec = Arc::new(ServiceSpec::default());
    for (at, name) in names.iter().enumerate() {
        if good || at == 0 {
            let before = cx.report.count();
            cx.service = format!("{}@{name}", member.key);
            cx.instance = Some(name.clone());
            let copy = instances::copy(member, name, cx);
            // What is wrong with the text itself would only be found again.
            if cx.report.count() == before {
                let mut one = service(&copy, cx);
                cx.share(&mut one);
                spec = Arc::new(one);
            }
            good &= cx.report.count() == before;
        }
        services.insert(format!("{}@{name}", member.key), Arc::clone(&spec));
    }
    cx.instance = None;
}

/// Why a text cannot be the name of a service.
pub(super) fn name_error(name: &str) -> Option<String> {
    let odd = name.chars().find(|c| !c.is_ascii_alphanumeric() && !"-_.@:".contains(*c));
    if name.is_empty() {
        Some("an empty text is no name".to_owned())
    } else if name.contains('/') {
        Some("a name with a slash is reserved for the services of projects".to_owned())
    } else if let Some(c) = odd {
        let shown = quote(&c.to_string());
        Some(format!("a name has letters (a-z, A-Z), digits, and any of -_.@: but not {shown}"))
    } else if name.starts_with(['.', '-']) {
        Some("a name does not begin with '.' or '-'".to_owned())
    } else if name.len() > NAME_MAX {
        Some(format!("a name of {} characters; {NAME_MAX} is the most", name.len()))
    } else {
        None
    }
}

fn service(member: &Member, cx: &mut Cx<'_, '_>) -> ServiceSpec {
    let mut spec = ServiceSpec::default();
    let Value::Object(members) = &member.node.value else {
        let command = match &member.node.value {
            Value::Text(_) | Value::List(_) => Some(r#"{"command": ...}"#.to_owned()),
            _ => None,
        };
        cx.kind(&member.node, "an object", r#"{"command": ["httpd", "-f"]}"#, command);
        return spec;
    };
    let failed = object(&mut spec, SERVICE, members, cx);
    let place = |name: &str| members.iter().find(|m| m.key == name).map(|m| m.pos);
    if place("command").is_none() {
        cx.report.add(member.pos, r#"command is missing, as in "command": ["httpd", "-f"]"#);
    }
    if spec.oneshot {
        oneshot(&spec, members, cx);
    }
    if spec.reload_signal.is_some()
        && spec.reload_command.is_some()
        && let Some(pos) = place("reload_command")
    {
        cx.in_key("reload_command", |cx| cx.report.add(pos, "there is a reload_signal already; keep one of the two"));
    }
    short_secrets(&spec, members, cx);
    listen::together(&spec, members, cx);
    if spec.hob_fd
        && spec.access.is_none()
        && let Some(pos) = place("hob_fd")
    {
        cx.in_key("hob_fd", |cx| cx.report.add(pos, "a channel is of no use where access is \"none\""));
    }
    let (min, max) = (place("min_delay"), place("max_delay"));
    if spec.min_delay > spec.max_delay
        && let Some(pos) = min.or(max)
        && !failed.contains(&"min_delay")
        && !failed.contains(&"max_delay")
    {
        let shown = |d, given: Option<Pos>| {
            format!("({}{})", canonical_duration(d), if given.is_some() { "" } else { ", the default" })
        };
        let (shown_min, shown_max) = (shown(spec.min_delay, min), shown(spec.max_delay, max));
        cx.in_key(if min.is_some() { "min_delay" } else { "max_delay" }, |cx| {
            cx.report.add(pos, format!("min_delay {shown_min} is longer than max_delay {shown_max}"));
        });
    }
    spec
}

/// Keys that make no sense beside `oneshot`.
fn oneshot(spec: &ServiceSpec, members: &[Member], cx: &mut Cx<'_, '_>) {
    let place = |name: &str| members.iter().find(|m| m.key == name).map(|m| m.pos);
    let wrong = [
        ("ready", spec.ready != Ready::Spawned, "a oneshot is ready once it has ended with exit code 0"),
        ("health", spec.health.is_some(), "a oneshot that has ended cannot be asked for its health"),
        ("watchdog", spec.watchdog.is_some(), "a oneshot has no watchdog"),
    ];
    for (key, _, why) in wrong.into_iter().filter(|(_, given, _)| *given) {
        if let Some(pos) = place(key) {
            cx.in_key(key, |cx| cx.report.add(pos, why));
        }
    }
    if let (Some(pos), Restart::Always) = (place("restart"), spec.restart) {
        let why = "a oneshot that is always restarted never ends; write \"on-failure\"";
        cx.in_key("restart", |cx| cx.report.add(pos, why));
    }
}

/// What is too short would be found everywhere, or nowhere.
fn short_secrets(spec: &ServiceSpec, members: &[Member], cx: &mut Cx<'_, '_>) {
    let Some(member) = members.iter().find(|m| m.key == "secrets") else { return };
    for name in spec.secrets.iter().filter(|n| spec.env.get(*n).is_some_and(|v| v.len() < SECRET_MIN)) {
        cx.in_key("secrets", |cx| {
            let why = format!("the value of {name} in env is too short to be masked: {SECRET_MIN} bytes at least");
            cx.report.add(member.node.pos, why);
        });
    }
}

/// Reads the members of an object by its table of keys. Answers the names of those that were wrong.
pub(super) fn object<S>(
    spec: &mut S,
    keys: &'static [Key<S>],
    members: &[Member],
    cx: &mut Cx<'_, '_>,
) -> Vec<&'static str> {
    let mut failed = Vec::new();
    for member in members {
        let Some(key) = keys.iter().find(|k| k.name == member.key) else {
            cx.unknown_key(member, keys.iter().map(|k| k.name));
            continue;
        };
        cx.report.enter_key(key.name);
        let read = match (&key.field, &member.node.value) {
            (Field::Group(inner), Value::Object(members)) => match object(spec, inner, members, cx).as_slice() {
                [] => Ok(()),
                _ => Err(Bad::Said),
            },
            (Field::Group(_), _) => Err(Bad::Kind(None)),
            (field, _) => field.place(spec).read(&member.node, cx),
        };
        if let Err(bad) = read {
            failed.push(key.name);
            if let Bad::Kind(meant) = bad {
                cx.kind(&member.node, &key.field.seen(spec).wants(), key.example, meant);
            }
        }
        cx.report.leave();
    }
    failed
}

impl Place<'_> {
    /// Reads one value into its place.
    fn read(self, node: &Node, cx: &mut Cx<'_, '_>) -> Result<(), Bad> {
        match self {
            Place::Command(at) => *at = values::command(node, cx)?,
            Place::OptCommand(at) => *at = optional(node, |n| values::command(n, cx))?,
            Place::Path(at) => *at = optional(node, |n| values::path(n, cx))?,
            Place::Account(at) => *at = optional(node, |n| values::account(n, cx))?,
            Place::Env(at) => *at = values::env(node, cx)?,
            Place::Flag(at) => *at = values::flag(node)?,
            Place::Span(at, span) => *at = values::span(node, span, cx)?,
            Place::OptSpan(at, span) => *at = optional(node, |n| values::span(n, span, cx))?,
            Place::Count(at, min, max) => *at = values::integer(node, min, max)?,
            Place::Size(at) => *at = values::log_size(node, cx)?,
            Place::OptRate(at) => *at = optional(node, |n| values::rate(n, cx))?,
            Place::Variables(at) => *at = values::variables(node, cx)?,
            Place::Nice(at) => *at = values::integer(node, -20, 19)?,
            Place::OptNice(at) => *at = optional(node, |n| values::integer(n, -20, 19))?,
            Place::OptInt(at, min, max) => *at = optional(node, |n| values::integer(n, min, max))?,
            Place::IoNice(at) => *at = optional(node, machine::ionice)?,
            Place::Cpus(at) => *at = optional(node, |n| machine::cpus(n, cx))?,
            Place::Umask(at) => *at = optional(node, values::umask)?,
            Place::Rlimits(at) => *at = values::rlimits(node, cx)?,
            Place::Restart(at) => *at = values::restart(node)?,
            Place::OnDeath(at) => *at = values::choice(node, ON_DEATHS)?,
            Place::Level(at) => *at = values::choice(node, LEVELS)?,
            Place::LogFormat(at) => *at = values::choice(node, FORMATS)?,
            Place::Streams(at) => *at = values::choice(node, STREAMS)?,
            Place::Ready(at) => *at = ready::ready(node, cx)?,
            Place::Health(at) => *at = optional(node, |n| health::health(n, cx))?,
            Place::Needs(at) => *at = values::needs(node, cx)?,
            Place::Listen(at) => *at = listen::listen(node, cx)?,
            Place::Signal(at) => *at = values::signal(node, cx)?,
            Place::OptSignal(at) => *at = optional(node, |n| values::signal(n, cx))?,
            Place::Grants(at) => *at = values::grants(node, cx)?,
            Place::Prompt(at) => *at = values::choice(node, PROMPTS)?,
            Place::OptAccess(at) => *at = values::choice(node, JOB_ACCESSES)?,
            Place::Id(at) => *at = schedule::read::id(node, cx)?,
            Place::Cron(at) => *at = optional(node, |n| schedule::read::cron_text(n, cx))?,
            Place::Moment(at) => *at = optional(node, schedule::read::moment)?,
            Place::Zone(at) => *at = optional(node, |n| schedule::read::zone_name(n, cx))?,
            Place::Action(at) => *at = optional(node, |n| schedule::read::action(n, cx))?,
            Place::Overlap(at) => *at = values::choice(node, OVERLAPS)?,
            Place::Missed(at) => *at = values::choice(node, MISSED)?,
            Place::Group | Place::Instances => {}
        }
        Ok(())
    }
}

impl Seen<'_> {
    /// The type in words, to stand behind "wants".
    pub(super) fn wants(self) -> String {
        let limits = |min: i64, max: i64| format!("a whole number from {min} to {max}");
        match self {
            Seen::Command(_) | Seen::OptCommand(_) => "a list of texts, or one text for the shell".to_owned(),
            Seen::Path(_) => "a path".to_owned(),
            Seen::Account(_) => "a name or a number".to_owned(),
            Seen::Env(_) => "an object of texts".to_owned(),
            Seen::Flag(_) => "true or false".to_owned(),
            Seen::Span(_, span) | Seen::OptSpan(_, span) => match span.zero {
                Ok(means) => format!("a duration (\"0s\": {means})"),
                Err(_) => "a duration".to_owned(),
            },
            Seen::Count(_, min, max) => limits(i64::from(min), i64::from(max)),
            Seen::Size(_) => format!("a size of at least {}", canonical_size(LOG_SIZE_MIN)),
            Seen::OptRate(_) => format!("a rate of at least {}/s", canonical_size(LOG_RATE_MIN)),
            Seen::Variables(_) => "a list of names of variables".to_owned(),
            Seen::Nice(_) | Seen::OptNice(_) => limits(-20, 19),
            Seen::OptInt(_, min, max) => limits(i64::from(min), i64::from(max)),
            Seen::IoNice(_) => format!("{}, or such a class with a level from 0 to 7", words(IO_CLASSES)),
            Seen::Cpus(_) => "numbers of processors and ranges of them".to_owned(),
            Seen::Umask(_) => "three octal digits in quotes".to_owned(),
            Seen::Rlimits(_) => "an object of limits".to_owned(),
            Seen::Restart(_) => words(RESTARTS),
            Seen::OnDeath(_) => words(ON_DEATHS),
            Seen::Level(_) => words(LEVELS),
            Seen::LogFormat(_) => words(FORMATS),
            Seen::Streams(_) => words(STREAMS),
            Seen::Ready(_) => {
                let forms = ["port\": NUMBER", "log\": REGEX", "fd\": NUMBER", "socket\": PATH", "command\": ARGV"];
                format!("\"spawned\", \"notify\" or one of {}", forms.map(|f| format!("{{\"{f}}}")).join(", "))
            }
            Seen::Health(_) => "an object with command, tcp, http or unix".to_owned(),
            Seen::Needs(_) => "a list of services".to_owned(),
            Seen::Listen(_) => listen::WANTS.to_owned(),
            Seen::Signal(_) | Seen::OptSignal(_) => "the name or number of a signal".to_owned(),
            Seen::OptAccess(_) => words(JOB_ACCESSES),
            Seen::Grants(_) => format!("a list of users or groups with a level ({})", words(ACCESSES)),
            Seen::Prompt(_) => words(PROMPTS),
            Seen::Id(_) => "a name".to_owned(),
            Seen::Cron(_) => "a cron expression".to_owned(),
            Seen::Moment(_) => "a date and a time".to_owned(),
            Seen::Zone(_) => "the name of a time zone".to_owned(),
            Seen::Action(_) => "an object with task, start, stop, restart, reload, signal or method".to_owned(),
            Seen::Overlap(_) => words(OVERLAPS),
            Seen::Missed(_) => words(MISSED),
            Seen::Group => "an object".to_owned(),
            Seen::Instances => instances::wants(),
        }
    }
}

/// `null` means unset where a value may be unset.
fn optional<T>(node: &Node, read: impl FnOnce(&Node) -> Result<T, Bad>) -> Result<Option<T>, Bad> {
    match node.value {
        Value::Null => Ok(None),
        _ => read(node).map(Some),
    }
}

/// `"a", "b" or "c"`.
pub(super) fn words<T>(table: &[(&str, T)]) -> String {
    let quoted: Vec<String> = table.iter().map(|(word, _)| quote(word)).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}

fn found(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(b) => b.to_string(),
        Value::Number(n) if n.len() > 40 => "a long number".to_owned(),
        Value::Number(n) => format!("the number {n}"),
        Value::Text(t) => format!("the text {}", quote(t)),
        Value::List(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}
