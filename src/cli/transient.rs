//! `hob service run` and `hob service remove`: services that are in no file.

use super::flags::Args;
use super::service::{finish, outcome};
use super::{Failure, connect, note, render};
use serde_json::{Map, Value, json};

pub(crate) const DETAILS: &str = "\
A transient service: it has the keys of a service in hob.json, given by --set, and runs in the present folder unless\n\
cwd is set. KEY may be a path, as in --set env.PORT=8080 or --set log.max_size=1MB; VALUE is JSON, or else a text.\n\
hob remembers it over its own restarts. It goes when it is stopped or removed. One that ends by itself stays listed,\n\
so that 'hob why' and 'hob logs' can tell of it, and is not run again; the 100 newest of those are kept.";

/// `hob service run NAME [--set KEY=VALUE]... -- COMMAND [ARG...]`.
pub(crate) fn run(args: &Args) -> Result<u8, Failure> {
    let name = args.operands.first().map_or("", String::as_str);
    if args.rest.is_empty() {
        let usage = format!("hob service run {name} --set restart=always -- ./server --port 8080");
        return Err(Failure::usage("'service run' needs a command after --").hint(usage));
    }
    let word = |w: &std::ffi::OsString| {
        w.to_str().map(Value::from).ok_or_else(|| Failure::usage(format!("{}: not valid UTF-8", w.display())))
    };
    let command = args.rest.iter().map(word).collect::<Result<Vec<_>, _>>()?;
    let mut config = Map::new();
    for setting in args.values("set") {
        let setting = setting.to_str().ok_or_else(|| Failure::usage("--set: not valid UTF-8"))?;
        let (key, value) = setting.split_once('=').ok_or_else(|| {
            Failure::usage(format!("--set: '{setting}' has no '='")).hint("as in --set restart=always")
        })?;
        set(&mut config, key, value)?;
    }
    if !config.contains_key("cwd") {
        let here = std::env::current_dir().ok().and_then(|d| d.to_str().map(str::to_owned));
        config.extend(here.map(|d| ("cwd".to_owned(), Value::from(d))));
    }
    config.insert("command".to_owned(), command.into());
    let mut params = json!({ "name": name, "config": config, "wait": !args.has("no-wait") });
    if let Some(limit) = args.duration("timeout")? {
        params["timeout"] = json!(limit.as_secs_f64());
    }
    let mut client = connect(args)?;
    if render::on_terminal_err() && !args.has("json") && !args.has("no-wait") {
        note(args, &format!("starting {name} ..."));
    }
    let result: Value = client.call("service.start", &params)?;
    finish(args, &result, |r| r["services"].as_array().into_iter().flatten().map(outcome).collect())
}

/// Puts a value at a path of keys. The names of variables are no paths, and their values are texts.
fn set(config: &mut Map<String, Value>, key: &str, value: &str) -> Result<(), Failure> {
    let whole = || Failure::usage(format!("--set {key}: there is a value for this key, or for a part of it, already"));
    if key == "command" {
        return Err(Failure::usage("--set command: the command stands after --"));
    }
    let path: Vec<&str> = match key.split_once('.') {
        Some(("env", name)) => vec!["env", name],
        _ => key.split('.').collect(),
    };
    let value = match path.as_slice() {
        ["env", _] => Value::from(value),
        _ => serde_json::from_str(value).unwrap_or_else(|_| Value::from(value)),
    };
    let Some((last, before)) = path.split_last().filter(|_| path.iter().all(|p| !p.is_empty())) else {
        return Err(Failure::usage(format!("--set: '{key}' is not a key, nor a path of keys such as log.max_size")));
    };
    let mut at = config;
    for part in before {
        let inner = at.entry(*part).or_insert_with(|| Value::Object(Map::new()));
        at = inner.as_object_mut().ok_or_else(whole)?;
    }
    match at.insert((*last).to_owned(), value) {
        Some(_) => Err(whole()),
        None => Ok(()),
    }
}

pub(crate) fn remove(args: &Args) -> Result<u8, Failure> {
    let mut params = json!({ "names": args.operands, "wait": !args.has("no-wait") });
    if let Some(limit) = args.duration("timeout")? {
        params["timeout"] = json!(limit.as_secs_f64());
    }
    let result: Value = connect(args)?.call("service.remove", &params)?;
    finish(args, &result, |r| {
        let names = r["services"].as_array().into_iter().flatten().filter_map(|s| s["name"].as_str());
        names.map(|n| format!("{n}: {}\n", if args.has("no-wait") { "is being removed" } else { "removed" })).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_json_or_texts_at_paths() {
        let mut c = Map::new();
        for (key, value) in [
            ("restart", "always"),
            ("max_restarts", "3"),
            ("umask", "022"),
            ("env.A.B", "8080"),
            ("log.max_size", "1MB"),
            ("log.compress", "true"),
            ("requires", r#"["db"]"#),
        ] {
            set(&mut c, key, value).unwrap();
        }
        let want = json!({"restart": "always", "max_restarts": 3, "umask": "022", "env": {"A.B": "8080"},
            "log": {"max_size": "1MB", "compress": true}, "requires": ["db"]});
        assert_eq!(Value::Object(c.clone()), want);
        for (key, value) in [("restart", "x"), ("restart.x", "1"), ("command", "x"), ("", "x"), ("log..a", "1")] {
            assert!(set(&mut c, key, value).is_err(), "{key}");
        }
    }
}
