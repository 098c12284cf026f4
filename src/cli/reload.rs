//! `hob reload`: the config as it is now takes effect, and what that has changed is told.

use super::flags::Args;
use super::life::START_LIMIT;
use super::service::finish;
use super::{Failure, meant, plan};
use crate::protocol::rpc::Code;
use core::time::Duration;
use serde_json::{Value, json};
use std::time::Instant;

pub(crate) fn reload(args: &Args) -> Result<u8, Failure> {
    if args.has("dry-run") {
        return plan::plan(args);
    }
    meant::is_its_config(args)?;
    let result: Value = super::connect(args)?.call("daemon.reload", &json!({}))?;
    if result["left_safe_mode"] == true {
        return after_safe_mode(args, &result);
    }
    finish(args, &result, reloaded)
}

/// A reload has ended safe mode: the next daemon serves, or dies as those before it.
fn after_safe_mode(args: &Args, result: &Value) -> Result<u8, Failure> {
    let mut client = super::connect(args)?;
    // Three deaths in a row take a moment.
    let begin = Instant::now();
    let mut same = 0;
    let mut pid = Value::Null;
    while same < 10 && begin.elapsed() < START_LIMIT {
        let health: Value = client.call("daemon.health", &json!({}))?;
        if health["status"] == "safe mode" && begin.elapsed() > Duration::from_millis(500) {
            let problems = health["problems"].as_array().cloned().unwrap_or_default();
            let text: Vec<&str> = problems.iter().filter_map(Value::as_str).collect();
            return Err(Failure::code(Code::Unavailable, format!("still not well: {}", text.join("; ")))
                .hint("'hob logs' tells how the daemons died"));
        }
        same = if health["pid"] == pid && health["status"] != "safe mode" { same + 1 } else { 0 };
        pid = health["pid"].clone();
        std::thread::sleep(Duration::from_millis(50));
    }
    finish(args, result, |_| "safe mode is over, and the config was read again\n".to_owned())
}

/// What a reload has changed, line by line.
fn reloaded(result: &Value) -> String {
    let mut text = String::new();
    for (what, told) in [
        ("added", "added"),
        ("removed", "removed"),
        ("restarted", "restarted"),
        ("updated", "updated"),
        ("along", "stopped with what they require"),
        ("jobs_added", "jobs added"),
        ("jobs_removed", "jobs removed"),
        ("jobs_updated", "jobs updated"),
        ("settings", "settings updated"),
    ] {
        let names: Vec<&str> = result[what].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        if !names.is_empty() {
            text.push_str(&format!("{told}: {}\n", names.join(", ")));
        }
    }
    if text.is_empty() { "nothing has changed\n".to_owned() } else { text }
}
