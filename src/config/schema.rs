//! The table of keys as a JSON Schema (draft 2020-12), for editors and for whoever writes configs by program. It takes
//! all that the parser takes, and refuses what can be refused without reading other places. Touches nothing.

use super::health;
use super::keys::{
    ACCESSES, CONDITIONS, DAEMON, FORMATS, Field, IO_CLASSES, JOB_ACCESSES, Key, LEVELS, LOG_RATE_MIN, LOG_SIZE_MIN,
    ON_DEATHS, RESTARTS, RLIMITS, SERVICE, STREAMS, Span,
};
use super::listen::{BACKLOG_MAX, KINDS, TYPES};
use super::machine::LEVEL_MAX;
use super::programs::{AGENT, GROUP, PROMPTS, RUNNER};
use super::read::{ROOT, SCHEMA_KEY};
use super::ready::{self, FD_MAX, FD_MIN, SOCKET_PATH_MAX};
use super::schedule::JobSpec;
use super::schedule::keys::{JOB, MISSED, OVERLAPS, VERBS};
use super::schedule::read::{ACTIONS, JOBS_MAX};
use super::spec::{AgentSpec, DaemonSpec, GroupSpec, IoClass, RunnerSpec, ServiceSpec};
use super::values::RESERVED_ENV;
use crate::base::limits::{INSTANCES_MAX, LISTEN_MAX, NAME_MAX, SECRETS_MAX, SERVICES_MAX};
use crate::base::signal::{Platform, SIGNAL_MAX};
use crate::base::text::capital;
use crate::base::units::{DURATION_NOT, any_case, canonical_duration, canonical_size, duration_pattern, size_pattern};
use serde_json::{Map, Value, json};

/// The name under which the schema lies beside a `hob.json`, which says so in its `$schema`.
pub const SCHEMA_FILE: &str = "hob.schema.json";

/// The host of a health check: an address, or the one name that needs no looking up.
const HOST: &str = r"[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+|\[[0-9a-fA-F:.]+\]";
/// Names of services and their like.
const NAMES: &str = "^[A-Za-z0-9_@:][A-Za-z0-9_.@:-]*$";
const PORT_MAX: u64 = 65_535;
const FILE_MAX: i64 = i64::MAX;

/// The schema as a text to be written into a file.
#[must_use]
pub fn schema_text(platform: &Platform) -> String {
    format!("{:#}\n", schema(platform))
}

/// The schema of a whole `hob.json`; signals are those of the platform.
#[must_use]
pub fn schema(platform: &Platform) -> Value {
    let mut root = Map::new();
    for key in ROOT {
        let value = match key {
            SCHEMA_KEY => json!({ "type": "string", "description": "Where editors find this schema." }),
            "daemon" => described(object(DAEMON, &DaemonSpec::default(), platform), "How hob itself behaves."),
            "groups" => described(named(GROUP, &GroupSpec::default(), platform), "Slots for tasks, by group."),
            "agents" => described(named(AGENT, &AgentSpec::default(), platform), "Programs that take a prompt."),
            "runners" => {
                described(named(RUNNER, &RunnerSpec::default(), platform), "What hands a task to another engine.")
            }
            "schedule" => described(schedule(platform), "What hob does at its time."),
            _ => described(services(platform), "What hob keeps running: any number of services, each under a name."),
        };
        root.insert(key.to_owned(), value);
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "hob.json",
        "description": "The config of hob. Comments and trailing commas are allowed.",
        "type": "object",
        "properties": root,
        "additionalProperties": false,
    })
}

fn described(mut schema: Value, text: &str) -> Value {
    schema["description"] = text.into();
    schema
}

fn services(platform: &Platform) -> Value {
    let mut service = object(SERVICE, &ServiceSpec::default(), platform);
    let needed: Vec<&str> = SERVICE.iter().filter(|k| matches!(k.field, Field::Command(_))).map(|k| k.name).collect();
    service["required"] = json!(needed);
    let given = |key: &str| json!({ "required": [key], "properties": { key: { "not": { "type": "null" } } } });
    service["allOf"] = json!([
        {
            "$comment": "A oneshot is ready once it has ended with exit code 0; nobody asks it how it is.",
            "if": { "required": ["oneshot"], "properties": { "oneshot": { "const": true } } },
            "then": {
                "properties": {
                    "ready": { "const": ready::WORDS[0] },
                    "health": { "type": "null" },
                    "watchdog": { "type": "null" },
                    "restart": { "not": { "const": RESTARTS[0].0 } },
                },
            },
        },
        {
            "$comment": "One of the two says how it is made to read its own config again.",
            "not": { "allOf": [given("reload_signal"), given("reload_command")] },
        },
    ]);
    json!({
        "type": "object",
        "propertyNames": { "pattern": NAMES, "maxLength": NAME_MAX },
        "maxProperties": SERVICES_MAX,
        "additionalProperties": service,
    })
}

/// Any number of these, each under a name.
fn named<S>(keys: &'static [Key<S>], defaults: &S, platform: &Platform) -> Value {
    let mut one = object(keys, defaults, platform);
    let needed: Vec<&str> = keys.iter().filter(|k| matches!(k.field, Field::Command(_))).map(|k| k.name).collect();
    one["required"] = json!(needed);
    json!({
        "type": "object",
        "propertyNames": { "pattern": NAMES, "maxLength": NAME_MAX },
        "additionalProperties": one,
    })
}

fn schedule(platform: &Platform) -> Value {
    let mut job = object(JOB, &JobSpec::default(), platform);
    let given = |key: &str| json!({ "required": [key], "properties": { key: { "not": { "type": "null" } } } });
    job["required"] = json!(["id", "action"]);
    job["oneOf"] = json!(["cron", "every", "at"].map(given));
    json!({
        "type": "object",
        "properties": { "jobs": { "type": "array", "items": job, "maxItems": JOBS_MAX } },
        "additionalProperties": false,
    })
}

/// What a job does, in one of several ways.
fn action() -> Value {
    let services = json!({ "anyOf": [text(), { "type": "array", "minItems": 1, "items": text() }] });
    let pairs = [("signal", "service"), ("service", "signal"), ("params", "method")];
    let beside = |(key, of): (&str, &str)| json!({ "if": { "required": [key] }, "then": { "required": [of] } });
    let members: Map<String, Value> = VERBS.iter().map(|(word, _)| ((*word).to_owned(), services.clone())).collect();
    let mut action = json!({
        "type": "object",
        "properties": members,
        "additionalProperties": false,
        "oneOf": ACTIONS.map(|kind| json!({ "required": [kind] })),
        "allOf": pairs.map(beside),
    });
    action["properties"]["task"] = json!({ "type": "object" });
    action["properties"]["signal"] = json!({ "type": ["string", "integer"] });
    action["properties"]["service"] = text();
    action["properties"]["method"] = text();
    action["properties"]["params"] = json!({ "type": "object" });
    action
}

fn object<S>(keys: &'static [Key<S>], defaults: &S, platform: &Platform) -> Value {
    let members: Map<String, Value> = keys.iter().map(|k| (k.name.to_owned(), key(k, defaults, platform))).collect();
    json!({ "type": "object", "properties": members, "additionalProperties": false })
}

fn key<S>(key: &'static Key<S>, defaults: &S, platform: &Platform) -> Value {
    let mut schema = key.field.schema(defaults, platform);
    let mut text = format!("{}.", capital(key.doc));
    if !matches!(key.field, Field::Group(_)) {
        text.push_str(&format!(" {}.", capital(&key.field.wants())));
        // What the parser writes and the table gives as an example is JSON.
        let value = |text: &str| serde_json::from_str(text).unwrap_or(Value::Null);
        if !key.field.is_needed() {
            schema["default"] = value(&key.field.json(defaults));
        }
        schema["examples"] = json!([value(key.example)]);
    }
    if !key.live {
        text.push_str(" A change restarts the service.");
    }
    described(schema, &text)
}

impl<S> Field<S> {
    fn schema(&self, defaults: &S, platform: &Platform) -> Value {
        match self {
            Field::Command(_) => command(),
            Field::OptCommand(_) => or_null(command()),
            Field::Path(_) => or_null(path()),
            Field::Account(_) => or_null(account()),
            Field::Env(_) => env(),
            Field::Flag(_) => json!({ "type": "boolean" }),
            Field::Span(_, span) => duration(*span),
            Field::OptSpan(_, span) => or_null(duration(*span)),
            Field::Count(_, min, max) => integer(i64::from(*min), i64::from(*max)),
            Field::Size(_) => json!({ "anyOf": [size("$"), integer(LOG_SIZE_MIN.cast_signed(), FILE_MAX)] }),
            Field::OptRate(_) => {
                or_null(described(size("/s$"), &format!("{}/s at least", canonical_size(LOG_RATE_MIN))))
            }
            Field::Variables(_) => variables(),
            Field::Nice(_) => integer(-20, 19),
            Field::OptNice(_) => or_null(integer(-20, 19)),
            Field::OptInt(_, min, max) => or_null(integer(i64::from(*min), i64::from(*max))),
            Field::IoNice(_) => or_null(ionice()),
            Field::Cpus(_) => {
                let part = r"\s*[0-9]+(-[0-9]+)?\s*";
                or_null(json!({ "type": "string", "pattern": format!("^{part}(,{part})*$") }))
            }
            Field::Umask(_) => or_null(json!({ "type": "string", "pattern": "^0?[0-7]{1,3}$" })),
            Field::Rlimits(_) => rlimits(),
            Field::Restart(_) => words(RESTARTS),
            Field::Level(_) => words(LEVELS),
            Field::OnDeath(_) => words(ON_DEATHS),
            Field::LogFormat(_) => words(FORMATS),
            Field::Streams(_) => words(STREAMS),
            Field::Ready(_) => ready(),
            Field::Health(_) => or_null(health()),
            Field::Needs(_) => needs(),
            Field::Signal(_) => signal(platform),
            Field::OptSignal(_) => or_null(signal(platform)),
            Field::Grants(_) => grants(),
            Field::Prompt(_) => words(PROMPTS),
            Field::Listen(_) => listen(),
            Field::OptAccess(_) => words(JOB_ACCESSES),
            Field::Id(_) => json!({ "type": "string", "pattern": NAMES, "maxLength": NAME_MAX }),
            Field::Cron(_) | Field::Moment(_) | Field::Zone(_) => or_null(text()),
            Field::Action(_) => action(),
            Field::Overlap(_) => words(OVERLAPS),
            Field::Missed(_) => words(MISSED),
            Field::Instances => or_null(instances()),
            Field::Group(keys) => object(keys, defaults, platform),
        }
    }
}

/// `null` unsets what may be unset. Words that speak of texts or numbers alone pass it by, others do not.
fn or_null(mut schema: Value) -> Value {
    let of_any = ["not", "enum", "anyOf", "allOf", "oneOf"].iter().any(|word| schema.get(word).is_some());
    match schema.get("type").cloned() {
        Some(Value::String(kind)) if !of_any => {
            schema["type"] = json!([kind, "null"]);
            schema
        }
        _ => json!({ "anyOf": [schema, { "type": "null" }] }),
    }
}

fn integer(min: i64, max: i64) -> Value {
    json!({ "type": "integer", "minimum": min, "maximum": max })
}

fn words<T>(table: &[(&str, T)]) -> Value {
    json!({ "type": "string", "enum": table.iter().map(|(word, _)| *word).collect::<Vec<_>>() })
}

/// A text that can be handed to a program.
fn text() -> Value {
    json!({ "type": "string", "pattern": r"^[^\x00]*$" })
}

fn command() -> Value {
    json!({
        "anyOf": [
            { "type": "string", "pattern": r"^[^\x00]*[^\s\x00][^\x00]*$" },
            {
                "type": "array",
                "minItems": 1,
                "prefixItems": [{ "type": "string", "minLength": 1, "pattern": r"^[^\x00]*$" }],
                "items": text(),
            },
        ],
    })
}

fn path() -> Value {
    json!({ "type": "string", "pattern": r"^[^~\x00][^\x00]*$" })
}

fn account() -> Value {
    let name = r"^[^-+\s:/,\x00-\x1f\x7f][^\s:/,\x00-\x1f\x7f]*$";
    json!({ "anyOf": [{ "type": "string", "pattern": name }, integer(0, i64::from(u32::MAX) - 1)] })
}

/// How many, or what stands behind the `@` of each.
fn instances() -> Value {
    let name = json!({ "type": "string", "pattern": "^[A-Za-z0-9_.:-]+$" });
    let list = json!({ "type": "array", "minItems": 1, "maxItems": INSTANCES_MAX, "items": name });
    json!({ "anyOf": [integer(1, i64::try_from(INSTANCES_MAX).unwrap_or(i64::MAX)), list] })
}

/// An address, an object with one, or a list of these.
fn listen() -> Value {
    let endpoint = || json!({ "type": "string", "pattern": r"^([0-9]+\.[0-9]+\.[0-9]+\.[0-9]+|\[.+\]):[0-9]{1,5}$" });
    let address = json!({
        "type": "string",
        "pattern": r"^(tcp|udp):(.+):[0-9]{1,5}$|^(unix|unix-datagram|unix-seqpacket):[^\x00]+$",
    });
    let object = json!({
        "type": "object",
        "properties": {
            "tcp": endpoint(),
            "udp": endpoint(),
            "unix": { "type": "string", "minLength": 1 },
            "name": { "type": "string", "pattern": "^[ -9;-~]{1,255}$" },
            "type": words(TYPES),
            "backlog": integer(1, i64::from(BACKLOG_MAX)),
            "mode": { "type": "string", "pattern": "^0?[0-7]{1,3}$" },
            "user": account(),
            "group": account(),
            "ipv6_only": { "type": "boolean" },
        },
        "additionalProperties": false,
        "oneOf": KINDS.map(|kind| json!({ "required": [kind] })),
    });
    let one = json!({ "anyOf": [address, object] });
    json!({ "anyOf": [one, { "type": "array", "items": one, "maxItems": LISTEN_MAX }] })
}

fn variable() -> Value {
    json!({ "type": "string", "pattern": r"^[^=\x00]+$" })
}

fn env() -> Value {
    let mut name = variable();
    name["not"] = json!({ "enum": RESERVED_ENV });
    json!({ "type": "object", "propertyNames": name, "additionalProperties": text() })
}

fn variables() -> Value {
    let name = json!({ "type": "string", "pattern": r"^[^=\x00]+$" });
    json!({ "type": "array", "items": name, "uniqueItems": true, "maxItems": SECRETS_MAX })
}

fn duration(span: Span) -> Value {
    // A duration has a digit, and is zero when all its digits are.
    let digit = if span.zero.is_ok() { "[0-9]" } else { "[1-9]" };
    let text = json!({
        "type": "string",
        "pattern": duration_pattern(),
        "not": { "pattern": DURATION_NOT },
        "allOf": [{ "pattern": digit, "$comment": format!("{} at least", canonical_duration(span.min)) }],
    });
    if span.zero.is_ok() { json!({ "anyOf": [text, { "const": 0 }] }) } else { text }
}

fn size(end: &str) -> Value {
    json!({ "type": "string", "pattern": format!("{}{end}", size_pattern()) })
}

fn ionice() -> Value {
    let class = |with_level: bool| {
        let words = IO_CLASSES.iter().filter(|(_, c)| with_level == (*c != IoClass::Idle)).map(|(word, _)| *word);
        words.collect::<Vec<_>>().join("|")
    };
    json!({ "type": "string", "pattern": format!("^(({})(:[0-{LEVEL_MAX}])?|{})$", class(true), class(false)) })
}

fn rlimits() -> Value {
    let limit = |bytes: bool| {
        let mut forms = vec![integer(0, FILE_MAX), json!({ "const": "unlimited" })];
        if bytes {
            forms.push(size("$"));
        }
        let one = json!({ "anyOf": forms });
        let both = json!({
            "type": "object",
            "properties": { "soft": one, "hard": one },
            "required": ["soft", "hard"],
            "additionalProperties": false,
        });
        forms.push(both);
        json!({ "anyOf": forms })
    };
    let members: Map<String, Value> = RLIMITS.iter().map(|(n, bytes)| ((*n).to_owned(), limit(*bytes))).collect();
    json!({ "type": "object", "properties": members, "additionalProperties": false })
}

fn socket() -> Value {
    let mut schema = path();
    schema["maxLength"] = SOCKET_PATH_MAX.into();
    schema["not"] = json!({ "const": "@" });
    schema
}

fn ready() -> Value {
    let kind = |kind: &&str| {
        let value = match *kind {
            "port" => integer(1, PORT_MAX.cast_signed()),
            "log" => json!({ "type": "string", "minLength": 1, "format": "regex" }),
            "fd" => integer(FD_MIN.into(), FD_MAX.into()),
            "socket" => socket(),
            _ => command(),
        };
        ((*kind).to_owned(), value)
    };
    let members: Map<String, Value> = ready::KINDS.iter().map(kind).collect();
    json!({
        "anyOf": [
            { "type": "string", "enum": ready::WORDS },
            {
                "type": "object",
                "properties": members,
                "additionalProperties": false,
                "minProperties": 1,
                "maxProperties": 1,
            },
        ],
    })
}

fn health() -> Value {
    let host = format!("({HOST}|{})", any_case("localhost"));
    let member = |name: &&str| {
        let value = match *name {
            "command" => command(),
            "unix" => socket(),
            "tcp" => json!({
                "anyOf": [
                    integer(1, PORT_MAX.cast_signed()),
                    { "type": "string", "pattern": format!("^{host}:0*[1-9][0-9]{{0,4}}$") },
                ],
            }),
            "http" => json!({
                "type": "string",
                "pattern": format!("^http://{host}(:0*[1-9][0-9]{{0,4}})?([/?][!-\"$-~]*)?$"),
            }),
            "retries" => integer(1, health::RETRIES_MAX.into()),
            _ => duration(Span { zero: Err(""), min: core::time::Duration::from_millis(1) }),
        };
        ((*name).to_owned(), value)
    };
    let members: Map<String, Value> = health::MEMBERS.iter().map(member).collect();
    let one: Vec<Value> = health::KINDS.iter().map(|k| json!({ "required": [k] })).collect();
    json!({ "type": "object", "properties": members, "additionalProperties": false, "oneOf": one })
}

fn needs() -> Value {
    let long = json!({
        "type": "object",
        "properties": { "name": { "type": "string" }, "condition": words(CONDITIONS) },
        "required": ["name"],
        "additionalProperties": false,
    });
    json!({ "type": "array", "items": { "anyOf": [{ "type": "string" }, long] }, "uniqueItems": true })
}

fn signal(platform: &Platform) -> Value {
    let stops = |name: &str| name == "STOP";
    let names: Vec<&str> = platform.signals.iter().map(|(name, _)| *name).filter(|n| !stops(n)).collect();
    let listed: Vec<String> = names.iter().map(|n| format!("SIG{n}")).collect();
    let anyhow: Vec<String> = names.iter().map(|n| any_case(n)).collect();
    let number = platform.signal("STOP").unwrap_or(0);
    json!({
        "anyOf": [
            { "type": "string", "enum": listed },
            { "type": "string", "pattern": format!("^({})?({})$", any_case("SIG"), anyhow.join("|")) },
            { "type": "string", "pattern": r"^\+?0*([1-9]|[1-5][0-9]|6[0-4])$" },
            integer(1, SIGNAL_MAX.into()),
        ],
        "not": { "enum": [number, number.to_string()] },
    })
}

fn grants() -> Value {
    json!({
        "type": "array",
        "uniqueItems": true,
        "items": {
            "type": "object",
            "properties": { "user": account(), "group": account(), "level": words(ACCESSES) },
            "required": ["level"],
            "oneOf": [{ "required": ["user"] }, { "required": ["group"] }],
            "additionalProperties": false,
        },
    })
}
