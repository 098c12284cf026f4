//! `hob config`: what stands in the file and what hob makes of it, without a daemon.

use super::flags::Args;
use super::{Failure, absolute, exit, is_config_named, note, paths, print, print_json};
use crate::base::limits::CONFIG_MAX;
use crate::base::paths::Paths;
use crate::base::text::{count, visible_line};
use crate::config::{self, Config, ConfigError};
use crate::daemon::doctor;
use crate::protocol::rpc::Code;
use serde_json::json;
use std::path::PathBuf;

/// The config file: its name, what stands in it, and what that means.
pub(super) struct Loaded {
    pub(super) name: String,
    path: PathBuf,
    bytes: Vec<u8>,
    pub(super) result: Result<Config, Vec<ConfigError>>,
}

impl Loaded {
    /// What it names that this machine does not have, as somebody with this environment finds it.
    fn warnings(&self, args: &Args) -> Vec<String> {
        let (Ok(config), Ok(paths)) = (&self.result, paths(args)) else { return Vec::new() };
        let setup = doctor::setup(&Paths { config: absolute(self.path.clone()), ..paths });
        doctor::lacking(config, &setup).into_iter().map(|f| f.what).collect()
    }

    /// Tells of these on standard error.
    pub(super) fn warn(&self, args: &Args) {
        self.warnings(args).iter().for_each(|what| note(args, &format!("hob: warning: {what}")));
    }
}

pub(super) fn load(args: &Args) -> Result<Loaded, Failure> {
    read(paths(args)?.config, is_config_named(args))
}

/// `named`: somebody has named the file.
pub(super) fn read(path: PathBuf, named: bool) -> Result<Loaded, Failure> {
    let name = path.display().to_string();
    let bytes = crate::sys::file::read_whole(&path, CONFIG_MAX as u64).map_err(|e| {
        let failed = |what: String| Failure::code(Code::FileSystem, what);
        match e.kind() {
            std::io::ErrorKind::NotFound if named => failed(format!("there is no file {name}"))
                .hint("write one, for which 'hob config show --defaults' prints every key"),
            std::io::ErrorKind::NotFound => failed(format!("there is no config file {name}"))
                .hint("'hob start' makes one with examples, if hob does not run; --config FILE names another"),
            _ => failed(format!("cannot read {name}: {e}")),
        }
    })?;
    let result = config::parse_bytes(&bytes, &name, crate::sys::signals::platform());
    Ok(Loaded { name, path, bytes, result })
}

fn error_json(e: &ConfigError) -> serde_json::Value {
    json!({
        "line": e.line, "column": e.column, "path": e.path, "message": e.message, "suggestion": e.suggestion,
    })
}

pub(crate) fn check(args: &Args) -> Result<u8, Failure> {
    let loaded = match args.operands.first() {
        Some(file) => read(PathBuf::from(file), true)?,
        None => load(args)?,
    };
    let Loaded { name, bytes, result, .. } = &loaded;
    match result {
        Ok(c) if args.has("json") => {
            let (n, warnings) = (c.services.len(), loaded.warnings(args));
            let report = json!({ "ok": true, "file": name, "services": n, "warnings": warnings });
            print_json(&report)?;
        }
        Ok(_) if args.has("quiet") => {}
        Ok(c) => {
            loaded.warn(args);
            print(&format!("{}: good, {}\n", visible_line(name), count(c.services.len(), "service")))?;
        }
        Err(errors) => {
            if args.has("json") {
                let list: Vec<_> = errors.iter().map(error_json).collect();
                print_json(json!({ "ok": false, "file": name, "errors": list }))?;
            } else {
                let text = String::from_utf8_lossy(bytes);
                print(&errors.iter().map(|e| format!("{e}\n{}\n", e.excerpt(&text))).collect::<String>())?;
            }
            return Ok(exit::FAILED);
        }
    }
    Ok(exit::OK)
}

pub(crate) fn show(args: &Args) -> Result<u8, Failure> {
    if args.has("defaults") {
        if args.has("json") {
            print_json(keys())?;
        } else {
            print(&config::defaults_text())?;
        }
        return Ok(exit::OK);
    }
    match load(args)?.result.map(|c| config::masked(&c)) {
        Ok(c) if args.has("json") => print_json(config::to_json(&c))?,
        Ok(c) => {
            let text = config::to_json(&c);
            // What is JSON already can only fail to be laid out where memory ends.
            let pretty = serde_json::from_str::<serde_json::Value>(&text).map_or(text, |v| format!("{v:#}"));
            print_json(&pretty)?;
        }
        Err(errors) => {
            let list: String = errors.iter().map(|e| format!("{e}\n")).collect();
            return Err(Failure::new(list.trim_end().to_owned()).in_lines());
        }
    }
    Ok(exit::OK)
}

/// Every key of the config for programs.
fn keys() -> serde_json::Value {
    let value = |text: &str| serde_json::from_str(text).unwrap_or(serde_json::Value::Null);
    let key = |k: &config::KeyInfo| {
        json!({
            "path": k.path, "type": k.wants, "default": k.default.as_deref().map(value), "doc": k.doc,
            "example": value(k.example), "live": k.live,
        })
    };
    json!({ "keys": config::keys().iter().map(key).collect::<Vec<_>>() })
}

/// It is JSON already, so `--json` only takes its line ends.
pub(crate) fn schema(args: &Args) -> Result<u8, Failure> {
    let platform = crate::sys::signals::platform();
    let text = if args.has("json") { format!("{}\n", config::schema(platform)) } else { config::schema_text(platform) };
    print(&text)?;
    Ok(exit::OK)
}

pub(crate) fn path(args: &Args) -> Result<u8, Failure> {
    let path = paths(args)?.config;
    if args.has("json") {
        print_json(json!({ "path": path }))?;
    } else {
        print(&format!("{}\n", visible_line(&path.display().to_string())))?;
    }
    Ok(exit::OK)
}
