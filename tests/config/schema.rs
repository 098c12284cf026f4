//! The JSON Schema against the parser: every frozen case is asked of both. The validator knows the words of JSON Schema
//! that the schema uses, and no others.

use hob::config::{self, Platform, parse};
use regex_lite::Regex;
use serde_json::{Map, Value, json};
use std::path::Path;

fn schema() -> Value {
    config::schema(&Platform::linux())
}

/// Why a value does not fit, with its path.
fn check(schema: &Value, value: &Value, path: &str) -> Result<(), String> {
    for (word, wants) in schema.as_object().unwrap() {
        let fits = match value {
            _ if ["description", "default", "examples", "title", "$schema", "$comment", "format"]
                .contains(&&**word) =>
            {
                true
            }
            Value::Object(members) if of_objects(word, wants, members, schema, path)? => true,
            Value::Array(items) if of_lists(word, wants, items, schema, path)? => true,
            value => of_any(word, wants, value, schema, path),
        };
        if !fits {
            return Err(format!("{path}: {word} {wants}: {value}"));
        }
    }
    Ok(())
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

fn number(value: &Value) -> usize {
    usize::try_from(value.as_u64().unwrap()).unwrap()
}

/// Whether a word of objects fits; an error is that of a member. `false` for other words.
fn of_objects(w: &str, wants: &Value, members: &Map<String, Value>, all: &Value, path: &str) -> Result<bool, String> {
    let at = |name: &str| format!("{path}.{name}");
    match w {
        "properties" => {
            for (name, schema) in wants.as_object().unwrap() {
                members.get(name).map_or(Ok(()), |v| check(schema, v, &at(name)))?;
            }
            Ok(true)
        }
        "additionalProperties" => {
            let others = members.iter().filter(|(name, _)| all["properties"].get(name).is_none());
            for (name, v) in others {
                match wants {
                    Value::Bool(false) => return Err(format!("{}: is not allowed", at(name))),
                    schema => check(schema, v, &at(name))?,
                }
            }
            Ok(true)
        }
        "propertyNames" => members.keys().try_for_each(|n| check(wants, &json!(n), &at(n))).map(|()| true),
        "required" => Ok(list(wants).iter().all(|n| members.contains_key(n.as_str().unwrap()))),
        "minProperties" => Ok(members.len() >= number(wants)),
        "maxProperties" => Ok(members.len() <= number(wants)),
        _ => Ok(false),
    }
}

fn of_lists(word: &str, wants: &Value, items: &[Value], all: &Value, path: &str) -> Result<bool, String> {
    let first = all.get("prefixItems").map_or(&[][..], list);
    let at = |i: usize| format!("{path}[{i}]");
    match word {
        "prefixItems" => {
            first.iter().zip(items).enumerate().try_for_each(|(i, (s, v))| check(s, v, &at(i))).map(|()| true)
        }
        "items" => {
            let mut rest = items.iter().enumerate().skip(first.len());
            rest.try_for_each(|(i, v)| check(wants, v, &at(i))).map(|()| true)
        }
        "minItems" => Ok(items.len() >= number(wants)),
        "maxItems" => Ok(items.len() <= number(wants)),
        "uniqueItems" => Ok(items.iter().enumerate().all(|(i, v)| !items[..i].contains(v))),
        _ => Ok(false),
    }
}

/// The words of any value; those of another kind of value let it pass.
fn of_any(word: &str, wants: &Value, value: &Value, all: &Value, path: &str) -> bool {
    let fits = |schema: &Value| check(schema, value, path).is_ok();
    match word {
        "type" => {
            let is = |kind: &Value| match kind.as_str().unwrap() {
                "object" => value.is_object(),
                "array" => value.is_array(),
                "string" => value.is_string(),
                "boolean" => value.is_boolean(),
                "null" => value.is_null(),
                "integer" => value.is_i64() || value.is_u64(),
                other => panic!("type {other}"),
            };
            wants.as_array().map_or_else(|| is(wants), |all| all.iter().any(is))
        }
        "enum" => list(wants).contains(value),
        "const" => wants == value,
        "pattern" => value.as_str().is_none_or(|t| Regex::new(wants.as_str().unwrap()).unwrap().is_match(t)),
        "minLength" => value.as_str().is_none_or(|t| t.chars().count() >= number(wants)),
        "maxLength" => value.as_str().is_none_or(|t| t.chars().count() <= number(wants)),
        "minimum" => value.as_f64().is_none_or(|n| n >= wants.as_f64().unwrap()),
        "maximum" => value.as_f64().is_none_or(|n| n <= wants.as_f64().unwrap()),
        "anyOf" => list(wants).iter().any(fits),
        "allOf" => list(wants).iter().all(fits),
        "oneOf" => list(wants).iter().filter(|s| fits(s)).count() == 1,
        "not" => !fits(wants),
        "if" => !fits(wants) || fits(&all["then"]),
        "then" => true,
        "properties" | "additionalProperties" | "propertyNames" | "required" | "minProperties" | "maxProperties" => {
            !value.is_object()
        }
        "prefixItems" | "items" | "minItems" | "maxItems" | "uniqueItems" => !value.is_array(),
        other => panic!("the validator does not know '{other}'"),
    }
}

/// What only the parser can find: it takes other keys, other services, arithmetic, or an engine of expressions.
const BEYOND: &[&str] = &[
    // What concerns several sockets, or one of a certain kind.
    "only a unix socket",
    "nobody waits to be accepted",
    "listens on",
    "wants an address in \"listen\"",
    "are passed as descriptors from 3 on",
    "a channel is of no use",
    "runs on demand, so it counts",
    "is the shortest that makes sense",
    "is the longest duration",
    "is longer than max_delay",
    "not a regular expression",
    "can never be healthy",
    "never ends for good",
    "cannot need itself",
    "there is no service",
    "there is no agent",
    "there is no runner",
    "agent is missing, and none is",
    // What the end of a name makes of it and of its value.
    "before _env stands",
    "wants the name of a variable of hob's own",
    "hob sets HOB_FD itself",
    "wait for each other",
    "is the smallest size",
    "is the slowest rate",
    "there is already a level",
    "is in this list twice",
    "is above the hard one",
    "too short to be masked",
    "ends before it begins",
    "is the highest number of a processor",
    "no log is written that fast",
    "larger than any file",
    "duplicate key",
];

#[test]
fn what_the_parser_takes_the_schema_takes_and_what_it_refuses_too() {
    let schema = schema();
    let wrap = |m: &str| {
        format!("{{\"services\": {{\"db\": {{\"command\": \"x\"}}, \"web\": {{\"command\": \"x\",\n{m}\n}}}}}}")
    };
    let files = [("service.txt", wrap as fn(&str) -> String), ("whole.txt", str::to_owned)];
    let (mut taken, mut refused, mut wrong) = (0, 0, Vec::new());
    for (file, make) in files {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config").join(file);
        for case in std::fs::read_to_string(path).unwrap().split("----\n") {
            let lines: Vec<&str> = case.lines().filter(|l| !l.starts_with("! ")).collect();
            let text = make(&lines.join("\n"));
            let result = parse(&text, "f", &Platform::linux());
            // With comments and the like it is no JSON; the effective config always is.
            if let Ok(config) = &result {
                let effective = serde_json::from_str(&config::to_json(config)).unwrap();
                wrong.extend(check(&schema, &effective, "").err().map(|e| format!("effective {text}: {e}")));
            }
            let Ok(value) = serde_json::from_str::<Value>(&text) else { continue };
            match (result, check(&schema, &value, "")) {
                (Ok(_), Ok(())) => taken += 1,
                (Err(_), Err(_)) => refused += 1,
                (Ok(_), Err(e)) => wrong.push(format!("{text}: the schema alone refuses: {e}")),
                (Err(errors), Ok(())) => {
                    let beyond = |e: &String| BEYOND.iter().any(|b| e.contains(b));
                    let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
                    if !errors.iter().all(beyond) {
                        wrong.push(format!("{text}: the parser alone refuses: {errors:?}"));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(taken > 10 && refused > 90, "{taken} taken, {refused} refused");
}

#[test]
fn every_key_is_described_with_its_default_and_its_example() {
    let schema = schema();
    for key in config::keys() {
        let mut at = &schema;
        for part in key.path.split('.') {
            at = match part.strip_suffix("[]") {
                Some(list) => &at["properties"][list]["items"],
                None if part == "NAME" => &at["additionalProperties"],
                None => &at["properties"][part],
            };
        }
        assert!(
            at["description"].as_str().is_some_and(|d| d.to_lowercase().contains(&key.doc.to_lowercase())),
            "{}: {at}",
            key.path
        );
        assert!(["type", "anyOf"].iter().any(|w| at.get(w).is_some()), "{}: {at}", key.path);
        let example: Value = serde_json::from_str(key.example).unwrap();
        assert_eq!(at["examples"], json!([example]), "{}", key.path);
        assert_eq!(check(at, &example, &key.path), Ok(()));
        let default: Option<Value> = key.default.map(|d| serde_json::from_str(&d).unwrap());
        assert_eq!(at.get("default"), default.as_ref(), "{}", key.path);
        if let Some(default) = default {
            assert_eq!(check(at, &default, &key.path), Ok(()));
        }
    }
}

#[test]
fn durations_sizes_and_signals_are_those_of_the_parser() {
    let schema = schema();
    let parses = |key: &str, value: &Value| {
        let text = json!({ "services": { "a": { "command": "x", key: value } } });
        let fits = check(&schema, &text, "").is_ok();
        (parse(&text.to_string(), "f", &Platform::linux()).is_ok(), fits)
    };
    for text in ["5s", "1.5s", "1h 30m", "1d2h3m4.5s", " 7s ", "5min", "1 h", "3 min 20 s", "0.5s"] {
        assert_eq!(parses("stop_timeout", &json!(text)), (true, true), "{text}");
    }
    for text in [
        "", "5", "abc", "0s", "0", "0m 0s", "-5s", "5x", "5S", ".5s", "5.s", "1.2.3s", "1e3s", "1.5h30m", "5s1h",
        "5s 5s",
    ] {
        assert_eq!(parses("stop_timeout", &json!(text)), (false, false), "{text}");
    }
    assert_eq!(parses("min_delay", &json!(0)), (true, true));
    assert_eq!(parses("stop_timeout", &json!(0)), (false, false));
    for (text, fits) in
        [("10MB", true), ("64 KiB", true), ("1.5gb", true), ("10 mb", true), ("ten", false), ("1XB", false)]
    {
        assert_eq!(parses("log", &json!({ "max_size": text })), (fits, fits), "{text}");
    }
    for (value, fits) in [
        (json!("SIGTERM"), true),
        (json!("term"), true),
        (json!("SigHup"), true),
        (json!(15), true),
        (json!("15"), true),
        (json!(0), false),
        (json!(65), false),
        (json!("SIGSTOP"), false),
        (json!(19), false),
        (json!("TEMR"), false),
    ] {
        assert_eq!(parses("stop_signal", &value), (fits, fits), "{value}");
    }
}
