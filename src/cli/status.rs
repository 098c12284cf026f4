//! Commands that only look: status, why, history, ping, health.

use super::flags::Args;
use super::render::{Paint, Table, ago, colours, lasted};
use super::service::finish;
use super::{Failure, connect, exit, paths, print};
use crate::base::units;
use crate::client::Client;
use crate::protocol::rpc::Code;
use serde_json::{Value, json};

pub(crate) fn status(args: &Args) -> Result<u8, Failure> {
    if let [name] = args.operands.as_slice() {
        return one(args, name);
    }
    let paths = paths(args)?;
    let mut client = match connect(args) {
        Ok(c) => c,
        Err(f) => return last_state(args, &paths, f),
    };
    if !args.operands.is_empty() {
        let result: Value = client.call("service.list", &json!({ "names": args.operands }))?;
        return finish(args, &result, table);
    }
    let result: Value = client.call("daemon.status", &json!({}))?;
    finish(args, &result, |r| format!("{}{}", head(r), table(r)))?;
    let failed = rows(&result).any(|s| s["state"] == "failed");
    Ok(if failed { exit::FAILED } else { exit::OK })
}

/// What the last heartbeat left, when nobody answers.
fn last_state(args: &Args, paths: &crate::base::paths::Paths, failure: Failure) -> Result<u8, Failure> {
    let Ok(text) = std::fs::read_to_string(&paths.state_json) else { return Err(failure) };
    let Ok(state) = serde_json::from_str::<Value>(&text) else { return Err(failure) };
    if args.has("json") {
        print(&format!("{}\n", json!({ "running": false, "last": state })))?;
        return Ok(failure.exit);
    }
    let when = state["written"].as_str().unwrap_or("an unknown time");
    Err(Failure { message: format!("{} (last heartbeat at {when})", failure.message), ..failure })
}

fn head(r: &Value) -> String {
    let text = |k: &str| r[k].as_str().unwrap_or("").to_owned();
    let mut line = format!(
        "hob {} is up for {}, pid {} (daemon {})\n",
        text("version"),
        ago(r["uptime_secs"].as_f64().unwrap_or(0.0)),
        r["keeper_pid"],
        r["pid"]
    );
    if let Some(e) = r["config_error"].as_str() {
        line.push_str(&format!("the config file has errors, the one before is in effect:\n{}\n", e.trim_end()));
    }
    for problem in r["problems"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !is_shown_elsewhere(r, problem) {
            line.push_str(&format!("problem: {problem}\n"));
        }
    }
    line
}

/// The config's errors stand in lines of their own, those of services in the table.
fn is_shown_elsewhere(r: &Value, problem: &str) -> bool {
    let of = |name: &str| {
        problem.strip_prefix(name).is_some_and(|p| {
            p.starts_with(" failed: ") || p.starts_with(" fails its health check: ") || p == " is flapping"
        })
    };
    problem.starts_with("the config file has an error: ") || rows(r).filter_map(|s| s["name"].as_str()).any(of)
}

fn rows(r: &Value) -> impl Iterator<Item = &Value> {
    r["services"].as_array().into_iter().flatten()
}

fn table(r: &Value) -> String {
    if rows(r).next().is_none() {
        return "no services; 'hob config path' shows where to add some\n".to_owned();
    }
    let paint = Paint { on: colours() };
    let mut t = Table::default();
    t.row()
        .cell("NAME")
        .cell("STATE")
        .number("PID")
        .number("UPTIME")
        .number("RESTARTS")
        .number("MEMORY")
        .number("CPU")
        .cell("LAST ERROR");
    for s in rows(r) {
        let state = s["state"].as_str().unwrap_or("?");
        let shown = match (s["flapping"] == true, s["health"] == "failing") {
            (true, _) => format!("{state} (flapping)"),
            (false, true) => format!("{state} (unhealthy)"),
            (false, false) => state.to_owned(),
        };
        let number = |k: &str| s[k].as_u64().map_or_else(|| "-".to_owned(), |n| n.to_string());
        t.row()
            .cell(s["name"].as_str().unwrap_or("?"))
            .painted(shown.clone(), paint.state(state, &shown))
            .number(number("pid"))
            .number(s["uptime_secs"].as_f64().map_or_else(|| "-".to_owned(), ago))
            .number(number("restarts"))
            .number(s["memory"].as_u64().map_or_else(|| "-".to_owned(), units::human_size))
            .number(s["cpu_secs"].as_f64().map_or_else(|| "-".to_owned(), |c| format!("{c:.2} s")))
            .cell(note(s));
    }
    t.print()
}

/// What stands in the last column: what it waits for, else its last error.
fn note(s: &Value) -> String {
    let names =
        |k: &str| s[k].as_array().into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>().join(", ");
    for (key, text) in [("waiting_for", "waits for "), ("survivors", "waits until gone: ")] {
        let list = names(key);
        if !list.is_empty() {
            return format!("{text}{list}");
        }
    }
    s["health_error"].as_str().or_else(|| s["last_error"].as_str()).unwrap_or("").to_owned()
}

fn one(args: &Args, name: &str) -> Result<u8, Failure> {
    let mut client = connect(args)?;
    let service: Value = client.call("service.get", &json!({ "name": name }))?;
    if args.has("json") {
        print(&format!("{service}\n"))?;
        return Ok(exit::OK);
    }
    let why: Value = client.call("daemon.why", &json!({ "name": name }))?;
    let mut text = String::new();
    let s = service.get("service").unwrap_or(&service);
    text.push_str(&table(&json!({ "services": [s] })));
    text.push('\n');
    text.push_str(&story(&why));
    print(&text)?;
    Ok(exit::OK)
}

pub(crate) fn why(args: &Args) -> Result<u8, Failure> {
    let name = args.operands.first().map_or("", String::as_str);
    let result: Value = connect(args)?.call("daemon.why", &json!({ "name": name }))?;
    finish(args, &result, story)
}

fn story(r: &Value) -> String {
    let paint = Paint { on: colours() };
    let state = r["state"].as_str().unwrap_or("?");
    let name = r["name"].as_str().unwrap_or("?");
    let mut t = format!("{} {}\n", paint.colour("1", name), paint.state(state, r["summary"].as_str().unwrap_or(state)));
    let mut lines = |title: &str, value: &Value| {
        let list: Vec<&str> = match value {
            Value::String(s) if !s.is_empty() => vec![s],
            Value::Array(a) => a.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        if !list.is_empty() {
            t.push_str(&format!("\n{title}\n"));
            for l in list {
                t.push_str(&format!("  {l}\n"));
            }
        }
    };
    lines("What happened", &r["story"]);
    lines("What comes next", &r["next"]);
    lines("What you can do", &r["todo"]);
    if r["runs"].as_array().is_some_and(|a| !a.is_empty()) {
        t.push_str("\nRuns\n");
        for line in runs(r).lines() {
            t.push_str(&format!("  {line}\n"));
        }
    }
    t
}

pub(crate) fn history(args: &Args) -> Result<u8, Failure> {
    let name = args.operands.first().map_or("", String::as_str);
    let limit = args.number("limit")?.unwrap_or(10);
    let result: Value = connect(args)?.call("service.history", &json!({ "name": name, "limit": limit }))?;
    finish(args, &result, runs)
}

fn runs(r: &Value) -> String {
    let mut t = Table::default();
    t.row().number("RUN").cell("STARTED").number("LASTED").cell("END").number("CPU").number("MEMORY").cell("CAUSE");
    for run in r["runs"].as_array().into_iter().flatten() {
        t.row()
            .number(run["run"].to_string())
            .cell(run["started"].as_str().unwrap_or("-"))
            .number(run["duration_ms"].as_f64().map_or_else(|| "-".to_owned(), |ms| lasted(ms / 1000.0)))
            .cell(run["outcome"].as_str().unwrap_or("runs"))
            .number(run["cpu_secs"].as_f64().map_or_else(|| "-".to_owned(), |c| format!("{c:.2} s")))
            .number(run["memory_peak"].as_u64().filter(|m| *m > 0).map_or_else(|| "-".to_owned(), units::human_size))
            .cell(run["cause"].as_str().unwrap_or(""));
    }
    t.print()
}

pub(crate) fn list(args: &Args) -> Result<u8, Failure> {
    let result: Value = connect(args)?.call("service.list", &json!({ "names": args.operands }))?;
    finish(args, &result, table)
}

pub(crate) fn get(args: &Args) -> Result<u8, Failure> {
    one(args, args.operands.first().map_or("", String::as_str))
}

pub(crate) fn ping(args: &Args) -> Result<u8, Failure> {
    let mut client: Client = connect(args)?;
    let begin = std::time::Instant::now();
    let result: Value = client.call("ping", &json!({}))?;
    let took = begin.elapsed();
    finish(args, &result, |r| {
        format!("hob {} answers in {} us\n", r["version"].as_str().unwrap_or("?"), took.as_micros())
    })
}

pub(crate) fn health(args: &Args) -> Result<u8, Failure> {
    let result: Value = connect(args)?.call("daemon.health", &json!({}))?;
    let ok = result["status"] == "ok";
    finish(args, &result, |r| {
        let s = &r["services"];
        format!(
            "{}: {} of {} services run, {} failed; up for {}, pid {} (daemon {})\n",
            r["status"].as_str().unwrap_or("?"),
            s["running"],
            s["total"],
            s["failed"],
            ago(r["uptime_secs"].as_f64().unwrap_or(0.0)),
            r["keeper_pid"],
            r["pid"]
        )
    })?;
    Ok(if ok { exit::OK } else { Code::Unavailable.exit_code() })
}
