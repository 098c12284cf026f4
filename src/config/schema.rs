//! The table of keys as a JSON Schema (draft 2020-12), for editors and for whoever writes configs by program. It takes
//! all that the parser takes, and refuses what can be refused without reading other places. Touches nothing.

use super::health;
use super::keys::{
    ACCESSES, CONDITIONS, DAEMON, FORMATS, Field, IO_CLASSES, JOB_ACCESSES, Key, LEVELS, LOG_RATE_MIN, LOG_SIZE_MIN,
    ON_DEATHS, RESTARTS, RLIMITS, SERVICE, STREAMS, Seen, Span,
};
use super::listen::{self, BACKLOG_MAX, TYPES};
use super::machine::LEVEL_MAX;
use super::programs::{AGENT, GROUP, PROMPTS, RUNNER};
use super::read::{ROOT, SCHEMA_KEY};
use super::ready::{self, FD_MAX, FD_MIN, SOCKET_PATH_MAX};
use super::schedule::JobSpec;
use super::schedule::keys::{JOB, MISSED, OVERLAPS, VERBS};
use super::schedule::read::{ACTIONS, JOBS_MAX};
use super::spec::{AgentSpec, DaemonSpec, GroupSpec, IoClass, RunnerSpec, ServiceSpec};
use super::values::RESERVED_ENV;
use crate::base::gather::Gather as _;
use crate::base::limits::{INSTANCES_MAX, LISTEN_MAX, NAME_MAX, SECRETS_MAX, SERVICES_MAX};
use crate::base::signal::{Platform, SIGNAL_MAX};
use crate::base::text::capital;
use crate::base::units::{DURATION_NOT, any_case, canonical_duration, canonical_size, duration_pattern, size_pattern};
use serde_json::{Map, Value};

/// The name under which the schema lies beside a `hob.json`, which says so in its `$schema`.
pub const SCHEMA_FILE: &str = "hob.schema.json";

/// The host of a health check: an address, or the one name that needs no looking up.
const HOST: &str = r"[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+|\[[0-9a-fA-F:.]+\]";
/// Names of services and their like.
const NAMES: &str = "^[A-Za-z0-9_@:][A-Za-z0-9_.@:-]*$";
const PORT_MAX: i64 = 65_535;
const FILE_MAX: i64 = i64::MAX;
/// Permissions as chmod takes them.
const MODE: &str = "^0?[0-7]{1,3}$";

/// The schema as a text to be written into a file.
#[must_use]
pub fn schema_text(platform: &Platform) -> String {
    format!("{:#}\n", schema(platform))
}

/// The schema of a whole `hob.json`; signals are those of the platform.
#[must_use]
pub fn schema(platform: &Platform) -> Value {
    let member = |key: &&str| {
        let (value, doc) = match *key {
            SCHEMA_KEY => (fixed(r#"{ "type": "string" }"#), "Where editors find this schema."),
            "daemon" => (object(DAEMON, &DaemonSpec::default(), platform), "How hob itself behaves."),
            "groups" => (named(object(GROUP, &GroupSpec::default(), platform)), "Slots for tasks, by group."),
            "agents" => (named(object(AGENT, &AgentSpec::default(), platform)), "Programs that take a prompt."),
            "runners" => {
                (named(object(RUNNER, &RunnerSpec::default(), platform)), "What hands a task to another engine.")
            }
            "schedule" => (schedule(platform), "What hob does at its time."),
            _ => (services(platform), "What hob keeps running: any number of services, each under a name."),
        };
        ((*key).to_owned(), described(value, doc))
    };
    let mut schema = closed(ROOT.iter().map(member).gather());
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    schema["title"] = "hob.json".into();
    described(schema, "The config of hob. Comments and trailing commas are allowed.")
}

/// A part that is the same on every machine.
fn fixed(json: &str) -> Value {
    serde_json::from_str(json).unwrap_or_default()
}

/// `schema` with one more word.
fn with(mut schema: Value, word: &str, value: impl Into<Value>) -> Value {
    schema[word] = value.into();
    schema
}

fn described(schema: Value, text: &str) -> Value {
    with(schema, "description", text)
}

/// An object with these members and no others.
fn closed(members: Map<String, Value>) -> Value {
    with(fixed(r#"{ "type": "object", "additionalProperties": false }"#), "properties", members)
}

/// Any number of these, each under a name.
fn named(one: Value) -> Value {
    with(with(fixed(r#"{ "type": "object" }"#), "propertyNames", name()), "additionalProperties", one)
}

fn array(one: Value) -> Value {
    with(fixed(r#"{ "type": "array" }"#), "items", one)
}

fn matching(pattern: &str) -> Value {
    with(fixed(r#"{ "type": "string" }"#), "pattern", pattern)
}

fn any_of(forms: Vec<Value>) -> Value {
    with(fixed("{}"), "anyOf", forms)
}

fn name() -> Value {
    with(matching(NAMES), "maxLength", NAME_MAX)
}

/// The key is there and says something.
fn given(key: &str) -> Value {
    fixed(&format!(r#"{{ "required": ["{key}"], "properties": {{ "{key}": {{ "not": {{ "type": "null" }} }} }} }}"#))
}

/// Exactly one of these is there.
fn one_of(keys: &[&str]) -> Value {
    keys.iter().map(|key| fixed(&format!(r#"{{ "required": ["{key}"] }}"#))).collect()
}

fn services(platform: &Platform) -> Value {
    let service = object(SERVICE, &ServiceSpec::default(), platform);
    let (spawned, always) = (ready::WORDS[0], RESTARTS[0].0);
    let oneshot = fixed(&format!(
        r#"{{
            "$comment": "A oneshot is ready once it has ended with exit code 0; nobody asks it how it is.",
            "if": {{ "required": ["oneshot"], "properties": {{ "oneshot": {{ "const": true }} }} }},
            "then": {{
                "properties": {{
                    "ready": {{ "const": "{spawned}" }},
                    "health": {{ "type": "null" }},
                    "watchdog": {{ "type": "null" }},
                    "restart": {{ "not": {{ "const": "{always}" }} }}
                }}
            }}
        }}"#
    ));
    let both = with(fixed("{}"), "allOf", vec![given("reload_signal"), given("reload_command")]);
    let reload = with(
        fixed(r#"{ "$comment": "One of the two says how it is made to read its own config again." }"#),
        "not",
        both,
    );
    with(named(with(service, "allOf", vec![oneshot, reload])), "maxProperties", SERVICES_MAX)
}

fn schedule(platform: &Platform) -> Value {
    let job = with(object(JOB, &JobSpec::default(), platform), "required", vec!["id", "action"]);
    let job = with(job, "oneOf", ["cron", "every", "at"].map(given).to_vec());
    closed([("jobs".to_owned(), with(array(job), "maxItems", JOBS_MAX))].into_iter().gather())
}

/// What a job does, in one of several ways.
fn action() -> Value {
    let services = any_of(vec![text(), with(array(text()), "minItems", 1)]);
    let mut members: Map<String, Value> = VERBS.iter().map(|(word, _)| ((*word).to_owned(), services.clone())).gather();
    members.insert("task".to_owned(), fixed(r#"{ "type": "object" }"#));
    members.insert("signal".to_owned(), fixed(r#"{ "type": ["string", "integer"] }"#));
    members.insert("service".to_owned(), text());
    members.insert("method".to_owned(), text());
    members.insert("params".to_owned(), fixed(r#"{ "type": "object" }"#));
    let beside = fixed(
        r#"[
            { "if": { "required": ["signal"] }, "then": { "required": ["service"] } },
            { "if": { "required": ["service"] }, "then": { "required": ["signal"] } },
            { "if": { "required": ["params"] }, "then": { "required": ["method"] } }
        ]"#,
    );
    with(with(closed(members), "oneOf", one_of(&ACTIONS)), "allOf", beside)
}

fn object<S>(keys: &'static [Key<S>], defaults: &S, platform: &Platform) -> Value {
    let members = keys.iter().map(|k| (k.name.to_owned(), key(k, defaults, platform))).gather();
    let needed: Vec<&str> = keys.iter().filter(|k| matches!(k.field, Field::Command(_))).map(|k| k.name).collect();
    if needed.is_empty() { closed(members) } else { with(closed(members), "required", needed) }
}

fn key<S>(key: &'static Key<S>, defaults: &S, platform: &Platform) -> Value {
    let mut schema = match &key.field {
        Field::Group(keys) => object(keys, defaults, platform),
        field => field.seen(defaults).schema(platform),
    };
    let mut text = format!("{}.", capital(key.doc));
    if !matches!(key.field, Field::Group(_)) {
        text.push_str(&format!(" {}.", capital(&key.field.seen(defaults).wants())));
        // What the parser writes and the table gives as an example is JSON.
        if !key.field.is_needed() {
            schema["default"] = fixed(&key.field.json(defaults));
        }
        schema["examples"] = vec![fixed(key.example)].into();
    }
    if !key.live {
        text.push_str(" A change restarts the service.");
    }
    described(schema, &text)
}

impl Seen<'_> {
    fn schema(self, platform: &Platform) -> Value {
        match self {
            Seen::Command(_) => command(),
            Seen::OptCommand(_) => or_null(command()),
            Seen::Path(_) => or_null(path()),
            Seen::Account(_) => or_null(account()),
            Seen::Env(_) => env(),
            Seen::Flag(_) => fixed(r#"{ "type": "boolean" }"#),
            Seen::Span(_, span) => duration(span),
            Seen::OptSpan(_, span) => or_null(duration(span)),
            Seen::Count(_, min, max) => integer(i64::from(min), i64::from(max)),
            Seen::Size(_) => any_of(vec![size("$"), integer(LOG_SIZE_MIN.cast_signed(), FILE_MAX)]),
            Seen::OptRate(_) => {
                or_null(described(size("/s$"), &format!("{}/s at least", canonical_size(LOG_RATE_MIN))))
            }
            Seen::Variables(_) => variables(),
            Seen::Nice(_) => integer(-20, 19),
            Seen::OptNice(_) => or_null(integer(-20, 19)),
            Seen::OptInt(_, min, max) => or_null(integer(i64::from(min), i64::from(max))),
            Seen::IoNice(_) => or_null(ionice()),
            Seen::Cpus(_) => {
                let part = r"\s*[0-9]+(-[0-9]+)?\s*";
                or_null(matching(&format!("^{part}(,{part})*$")))
            }
            Seen::Umask(_) => or_null(matching(MODE)),
            Seen::Rlimits(_) => rlimits(),
            Seen::Restart(_) => words(RESTARTS),
            Seen::Level(_) => words(LEVELS),
            Seen::OnDeath(_) => words(ON_DEATHS),
            Seen::LogFormat(_) => words(FORMATS),
            Seen::Streams(_) => words(STREAMS),
            Seen::Ready(_) => ready(),
            Seen::Health(_) => or_null(health()),
            Seen::Needs(_) => needs(),
            Seen::Signal(_) => signal(platform),
            Seen::OptSignal(_) => or_null(signal(platform)),
            Seen::Grants(_) => grants(),
            Seen::Prompt(_) => words(PROMPTS),
            Seen::Listen(_) => listen(),
            Seen::OptAccess(_) => words(JOB_ACCESSES),
            Seen::Id(_) => name(),
            Seen::Cron(_) | Seen::Moment(_) | Seen::Zone(_) => or_null(text()),
            Seen::Action(_) => action(),
            Seen::Overlap(_) => words(OVERLAPS),
            Seen::Missed(_) => words(MISSED),
            Seen::Instances => or_null(instances()),
            Seen::Group => fixed("{}"),
        }
    }
}

/// `null` unsets what may be unset. Words that speak of texts or numbers alone pass it by, others do not.
fn or_null(schema: Value) -> Value {
    let of_any = ["not", "enum", "anyOf", "allOf", "oneOf"].iter().any(|word| schema.get(word).is_some());
    match schema.get("type").cloned() {
        Some(kind @ Value::String(_)) if !of_any => with(schema, "type", vec![kind, "null".into()]),
        _ => any_of(vec![schema, fixed(r#"{ "type": "null" }"#)]),
    }
}

fn integer(min: i64, max: i64) -> Value {
    fixed(&format!(r#"{{ "type": "integer", "minimum": {min}, "maximum": {max} }}"#))
}

fn words<T>(table: &[(&str, T)]) -> Value {
    one_word(table.iter().map(|(word, _)| (*word).into()).collect())
}

fn one_word(words: Vec<Value>) -> Value {
    with(fixed(r#"{ "type": "string" }"#), "enum", words)
}

/// A text that can be handed to a program.
fn text() -> Value {
    matching(r"^[^\x00]*$")
}

fn command() -> Value {
    let first = with(text(), "minLength", 1);
    let words = with(with(array(text()), "minItems", 1), "prefixItems", vec![first]);
    any_of(vec![matching(r"^[^\x00]*[^\s\x00][^\x00]*$"), words])
}

fn path() -> Value {
    matching(r"^[^~\x00][^\x00]*$")
}

fn account() -> Value {
    let name = matching(r"^[^-+\s:/,\x00-\x1f\x7f][^\s:/,\x00-\x1f\x7f]*$");
    any_of(vec![name, integer(0, i64::from(u32::MAX) - 1)])
}

/// How many, or what stands behind the `@` of each.
fn instances() -> Value {
    let names = with(array(matching("^[A-Za-z0-9_.:-]+$")), "minItems", 1);
    let names = with(names, "maxItems", INSTANCES_MAX);
    any_of(vec![integer(1, i64::try_from(INSTANCES_MAX).unwrap_or(i64::MAX)), names])
}

/// An address, an object with one, or a list of these.
fn listen() -> Value {
    let address = r"^(tcp|udp):(.+):[0-9]{1,5}$|^(unix|unix-datagram|unix-seqpacket):[^\x00]+$";
    let member = |name: &&str| {
        let value = match *name {
            "tcp" | "udp" => matching(r"^([0-9]+\.[0-9]+\.[0-9]+\.[0-9]+|\[.+\]):[0-9]{1,5}$"),
            "unix" => fixed(r#"{ "type": "string", "minLength": 1 }"#),
            "name" => matching("^[ -9;-~]{1,255}$"),
            "type" => words(TYPES),
            "backlog" => integer(1, i64::from(BACKLOG_MAX)),
            "mode" => matching(MODE),
            "ipv6_only" => fixed(r#"{ "type": "boolean" }"#),
            _ => account(),
        };
        ((*name).to_owned(), value)
    };
    let object = with(closed(listen::MEMBERS.iter().map(member).gather()), "oneOf", one_of(&listen::KINDS));
    let one = any_of(vec![matching(address), object]);
    any_of(vec![one.clone(), with(array(one), "maxItems", LISTEN_MAX)])
}

fn variable() -> Value {
    matching(r"^[^=\x00]+$")
}

fn env() -> Value {
    let name = with(variable(), "not", with(fixed("{}"), "enum", RESERVED_ENV.to_vec()));
    with(with(fixed(r#"{ "type": "object" }"#), "propertyNames", name), "additionalProperties", text())
}

fn variables() -> Value {
    with(with(array(variable()), "uniqueItems", true), "maxItems", SECRETS_MAX)
}

fn duration(span: Span) -> Value {
    // A duration has a digit, and is zero when all its digits are.
    let digit = if span.zero.is_ok() { "[0-9]" } else { "[1-9]" };
    let least = canonical_duration(span.min);
    let text = with(matching(&duration_pattern()), "not", with(fixed("{}"), "pattern", DURATION_NOT));
    let text = with(text, "allOf", fixed(&format!(r#"[{{ "pattern": "{digit}", "$comment": "{least} at least" }}]"#)));
    if span.zero.is_ok() { any_of(vec![text, fixed(r#"{ "const": 0 }"#)]) } else { text }
}

fn size(end: &str) -> Value {
    matching(&format!("{}{end}", size_pattern()))
}

fn ionice() -> Value {
    let class = |with_level: bool| {
        let words = IO_CLASSES.iter().filter(|(_, c)| with_level == (*c != IoClass::Idle)).map(|(word, _)| *word);
        words.collect::<Vec<_>>().join("|")
    };
    matching(&format!("^(({})(:[0-{LEVEL_MAX}])?|{})$", class(true), class(false)))
}

fn rlimits() -> Value {
    let limit = |bytes: bool| {
        let mut forms = vec![integer(0, FILE_MAX), fixed(r#"{ "const": "unlimited" }"#)];
        if bytes {
            forms.push(size("$"));
        }
        let one = any_of(forms.clone());
        let both = closed([("soft".to_owned(), one.clone()), ("hard".to_owned(), one)].into_iter().gather());
        forms.push(with(both, "required", vec!["soft", "hard"]));
        any_of(forms)
    };
    closed(RLIMITS.iter().map(|(name, bytes)| ((*name).to_owned(), limit(*bytes))).gather())
}

fn socket() -> Value {
    with(with(path(), "maxLength", SOCKET_PATH_MAX), "not", fixed(r#"{ "const": "@" }"#))
}

fn ready() -> Value {
    let member = |kind: &&str| {
        let value = match *kind {
            "port" => integer(1, PORT_MAX),
            "log" => fixed(r#"{ "type": "string", "minLength": 1, "format": "regex" }"#),
            "fd" => integer(FD_MIN.into(), FD_MAX.into()),
            "socket" => socket(),
            _ => command(),
        };
        ((*kind).to_owned(), value)
    };
    let object = closed(ready::KINDS.iter().map(member).gather());
    let object = with(with(object, "minProperties", 1), "maxProperties", 1);
    any_of(vec![one_word(ready::WORDS.map(Value::from).to_vec()), object])
}

fn health() -> Value {
    let host = format!("({HOST}|{})", any_case("localhost"));
    let member = |name: &&str| {
        let value = match *name {
            "command" => command(),
            "unix" => socket(),
            "tcp" => any_of(vec![integer(1, PORT_MAX), matching(&format!("^{host}:0*[1-9][0-9]{{0,4}}$"))]),
            "http" => matching(&format!("^http://{host}(:0*[1-9][0-9]{{0,4}})?([/?][!-\"$-~]*)?$")),
            "retries" => integer(1, health::RETRIES_MAX.into()),
            _ => duration(Span { zero: Err(""), min: core::time::Duration::from_millis(1) }),
        };
        ((*name).to_owned(), value)
    };
    with(closed(health::MEMBERS.iter().map(member).gather()), "oneOf", one_of(&health::KINDS))
}

fn needs() -> Value {
    let name = fixed(r#"{ "type": "string" }"#);
    let long =
        closed([("name".to_owned(), name.clone()), ("condition".to_owned(), words(CONDITIONS))].into_iter().gather());
    with(array(any_of(vec![name, with(long, "required", vec!["name"])])), "uniqueItems", true)
}

fn signal(platform: &Platform) -> Value {
    let stops = |name: &str| name == "STOP";
    let names: Vec<&str> = platform.signals.iter().map(|(name, _)| *name).filter(|n| !stops(n)).collect();
    let listed = names.iter().map(|n| format!("SIG{n}").into()).collect();
    let anyhow: Vec<String> = names.iter().map(|n| any_case(n).replace('+', "\\+")).collect();
    let number = platform.signal("STOP").unwrap_or(0);
    let forms = any_of(vec![
        one_word(listed),
        matching(&format!("^({})?({})$", any_case("SIG"), anyhow.join("|"))),
        matching(r"^\+?0*([1-9]|[1-5][0-9]|6[0-4])$"),
        integer(1, SIGNAL_MAX.into()),
    ]);
    with(forms, "not", fixed(&format!(r#"{{ "enum": [{number}, "{number}"] }}"#)))
}

fn grants() -> Value {
    let member = |name: &str, value| (name.to_owned(), value);
    let one = closed(
        [member("user", account()), member("group", account()), member("level", words(ACCESSES))].into_iter().gather(),
    );
    let one = with(with(one, "required", vec!["level"]), "oneOf", one_of(&["user", "group"]));
    with(array(one), "uniqueItems", true)
}
