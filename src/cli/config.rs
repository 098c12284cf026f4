//! `hob config`: what stands in the file and what hob makes of it, without a daemon.

use super::flags::Args;
use super::{Failure, exit, note, paths, print};
use crate::config::{self, Config, ConfigError};
use serde_json::json;

fn load(args: &Args) -> Result<(String, Result<Config, Vec<ConfigError>>), Failure> {
    let path = paths(args)?.config;
    let name = path.display().to_string();
    let bytes = std::fs::read(&path).map_err(|e| {
        Failure::new(format!("cannot read {name}: {e}"))
            .hint("hob makes it on its first start; --config FILE names another")
    })?;
    let result = config::parse_bytes(&bytes, &name, crate::sys::signals::platform());
    Ok((name, result))
}

pub(crate) fn check(args: &Args) -> Result<u8, Failure> {
    let (name, result) = load(args)?;
    match result {
        Ok(c) if args.has("json") => {
            print(&format!("{}\n", json!({ "ok": true, "file": name, "services": c.services.len() })))?
        }
        Ok(c) => note(args, &format!("{name}: good, {} services", c.services.len())),
        Err(errors) => {
            if args.has("json") {
                let list: Vec<_> = errors.iter().map(|e| json!({ "line": e.line, "column": e.column, "path": e.path, "message": e.message, "suggestion": e.suggestion })).collect();
                print(&format!("{}\n", json!({ "ok": false, "file": name, "errors": list })))?;
            } else {
                print(&errors.iter().map(|e| format!("{e}\n")).collect::<String>())?;
            }
            return Ok(exit::FAILED);
        }
    }
    Ok(exit::OK)
}

pub(crate) fn show(args: &Args) -> Result<u8, Failure> {
    if args.has("defaults") {
        print(&config::defaults_text())?;
        return Ok(exit::OK);
    }
    let (_, result) = load(args)?;
    match result {
        Ok(c) => print(&format!("{}\n", config::to_json(&config::masked(&c))))?,
        Err(errors) => {
            let list: String = errors.iter().map(|e| format!("{e}\n")).collect();
            return Err(Failure::new(list.trim_end().to_owned()));
        }
    }
    Ok(exit::OK)
}

pub(crate) fn path(args: &Args) -> Result<u8, Failure> {
    let path = paths(args)?.config;
    let text = if args.has("json") { json!({ "path": path }).to_string() } else { path.display().to_string() };
    print(&format!("{text}\n"))?;
    Ok(exit::OK)
}
