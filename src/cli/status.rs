//! Commands that only look: status, history, ping, health.

use super::flags::Args;
use super::offline::ask;
use super::render::{Paint, Table, ago, colours, lasted};
use super::service::finish;
use super::{Failure, connect_to_ask, exit, is_hang, paths, print_json, story, users, when};
use crate::base::paths::Paths;
use crate::base::text::visible_line;
use crate::base::time::Wall;
use crate::base::units;
use crate::config::trouble;
use crate::daemon::offline::last_seen;
use crate::protocol::rpc::Code;
use crate::sys::terminal;
use crate::sys::user::Accounts;
use serde_json::{Value, json};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

pub(crate) fn status(args: &Args) -> Result<u8, Failure> {
    if args.has("mine") || args.has("owner") {
        return list(args);
    }
    if let [name] = args.operands.as_slice() {
        return story::one(args, name, table);
    }
    let mut client = match connect_to_ask(args) {
        Ok(c) => c,
        Err(f) => return last_state(args, f),
    };
    if !args.operands.is_empty() {
        let result: Value = client.call("service.list", &json!({ "names": args.operands }))?;
        return finish(args, &result, table);
    }
    let result: Value = match client.call("daemon.status", &json!({})) {
        Err(e) if is_hang(&e) => return last_state(args, e.into()),
        other => other?,
    };
    finish(args, &result, |r| format!("{}{}{}", head(r), table(r), tasks(r)))?;
    let failed = rows(&result).any(|s| s["state"] == "failed");
    Ok(if failed { exit::FAILED } else { exit::OK })
}

/// More bytes than a heartbeat leaves.
const STATE_MAX: u64 = 1024 * 1024;

/// What the last heartbeat left, when nobody answers.
fn last_state(args: &Args, failure: Failure) -> Result<u8, Failure> {
    let Ok(paths) = paths(args) else { return Err(failure) };
    let Ok(text) = crate::sys::file::read_whole(&paths.state_json, STATE_MAX) else { return Err(failure) };
    let Ok(state) = serde_json::from_slice::<Value>(&text) else { return Err(failure) };
    let ended = ended(&paths);
    if args.has("json") {
        let ended = ended.map(|wall| wall.to_string());
        print_json(json!({ "running": false, "ended": ended, "last": state }))?;
        return Ok(failure.exit);
    }
    if let Some(wall) = ended {
        let message = format!("{}; it ended at {}", failure.message, when::moment(&wall.to_string()));
        return Err(Failure { message, ..failure });
    }
    let when = when::moment(&last_seen(&paths).to_string());
    Err(Failure { message: format!("{}; it was last seen at {when}", failure.message), ..failure })
}

/// When the last hob ended, if it did properly: it leaves its lock empty then.
fn ended(paths: &Paths) -> Option<Wall> {
    let lock = std::fs::metadata(&paths.lock).ok().filter(|lock| lock.len() == 0)?;
    let free = crate::sys::file::lock::holder(&paths.lock).is_ok_and(|holder| holder.is_none());
    free.then(|| Wall(lock.mtime() * 1000 + lock.mtime_nsec() / 1_000_000))
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
    if let Some(config) = config_line(r) {
        // One mistake may stand here; of many this says that they are there.
        let one = r["config_error"].as_str().filter(|e| e.lines().count() == 1);
        let one = one.map_or_else(String::new, |e| format!("  {}\n", e.trim_end()));
        line.insert_str(0, &format!("{config}\n{one}"));
    }
    if let Some(path) = r["update"].as_str() {
        line.push_str(&format!("another program lies at {path}: hob upgrade\n"));
    }
    if let Some(version) = r["update_version"].as_str() {
        line.push_str(&format!("hob {version} is there, as daemon.update_command says\n"));
    }
    for i in r["inhibitors"].as_array().into_iter().flatten() {
        let part = |k: &str| i[k].as_str().unwrap_or("?").to_owned();
        line.push_str(&format!("{} (pid {}) delays a shutdown: {}\n", part("who"), i["pid"], part("why")));
    }
    for problem in r["problems"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !is_shown_elsewhere(r, problem) {
            line.push_str(&format!("problem: {problem}\n"));
        }
    }
    line
}

/// That the config file is not in effect, and what is instead.
pub(super) fn config_line(r: &Value) -> Option<String> {
    let error = r["config_error"].as_str()?;
    let instead = match r["config_since"].as_str() {
        Some(since) => format!("hob runs with the config of {}", when::moment(since)),
        None => "no service is started by it".to_owned(),
    };
    Some(format!("hob.json {} and is not in effect; {instead}: hob config check", trouble(error)))
}

/// The config's errors stand in lines of their own, those of services in the table.
fn is_shown_elsewhere(r: &Value, problem: &str) -> bool {
    let of = |name: &str| {
        problem.strip_prefix(name).is_some_and(|p| {
            p.starts_with(" failed: ")
                || p.starts_with(" fails its health check: ")
                || p.starts_with(" waits for its sockets: ")
                || p == " is flapping"
        })
    };
    problem.starts_with("the config file ") || rows(r).filter_map(|s| s["name"].as_str()).any(of)
}

/// How the tasks are, where there are any.
fn tasks(r: &Value) -> String {
    let some = |state: &str| {
        let n = r["tasks"][state].as_u64().filter(|n| *n > 0)?;
        Some(format!("{n} {}", state.replace('_', " ")))
    };
    let states = ["running", "paused", "queued", "held", "failed", "timed_out", "lost", "cancelled", "succeeded"];
    let all: Vec<String> = states.into_iter().filter_map(some).collect();
    if all.is_empty() { String::new() } else { format!("tasks: {}\n", all.join(", ")) }
}

fn rows(r: &Value) -> impl Iterator<Item = &Value> {
    r["services"].as_array().into_iter().flatten()
}

/// The columns that a narrow terminal goes without, the first to go first.
const SPARE: [&str; 4] = ["CPU", "MEMORY", "RESTARTS", "PID"];

fn table(r: &Value) -> String {
    if rows(r).next().is_none() {
        return "no services; 'hob config path' shows where to add some\n".to_owned();
    }
    let columns = terminal::columns();
    let mut spared = 0;
    loop {
        let t = table_without(r, SPARE.get(..spared).unwrap_or(&SPARE));
        if spared == SPARE.len() || columns.is_none_or(|c| t.fits(c)) {
            return t.print_within(columns);
        }
        spared += 1;
    }
}

fn table_without(r: &Value, spared: &[&str]) -> Table {
    let paint = Paint { on: colours() };
    let mut t = Table::default();
    let numbers = ["PID", "UPTIME", "RESTARTS", "MEMORY", "CPU"].into_iter().filter(|c| !spared.contains(c));
    t.row().cell("NAME").cell("STATE");
    numbers.clone().for_each(|c| {
        t.number(c);
    });
    t.cell("NOTE");
    for s in rows(r) {
        let state = s["state"].as_str().unwrap_or("?");
        let shown = match (s["flapping"] == true, s["health"] == "failing") {
            (true, _) => format!("{state} (flapping)"),
            (false, true) => format!("{state} (unhealthy)"),
            (false, false) => state.to_owned(),
        };
        let shown = if s["transient"] == true { format!("{shown}, transient") } else { shown };
        t.row().cell(s["name"].as_str().unwrap_or("?")).painted(shown.clone(), paint.state(state, &shown));
        numbers.clone().for_each(|c| {
            t.number(figure(s, c).unwrap_or_else(|| "-".to_owned()));
        });
        t.cell(note(s));
    }
    t
}

fn figure(s: &Value, column: &str) -> Option<String> {
    match column {
        "PID" => s["pid"].as_u64().map(|n| n.to_string()),
        "UPTIME" => s["uptime_secs"].as_f64().map(ago),
        "RESTARTS" => s["restarts"].as_u64().map(|n| n.to_string()),
        // Of one that is ending the kernel may know nothing any more.
        "MEMORY" => s["memory"].as_u64().filter(|m| *m > 0).map(units::human_size),
        _ => s["cpu_secs"].as_f64().map(|c| format!("{c:.2} s")),
    }
}

/// What stands in the last column: what it waits for, else what is wrong, else who wants it so.
fn note(s: &Value) -> String {
    // Survivors are processes: an object each.
    let name = |v: &'_ Value| v.as_str().or_else(|| v["name"].as_str()).map(str::to_owned);
    let names = |k: &str| s[k].as_array().into_iter().flatten().filter_map(name).collect::<Vec<_>>().join(", ");
    for (key, text) in [("waiting_for", "waits for "), ("survivors", "waits until gone: ")] {
        let list = names(key);
        if !list.is_empty() {
            return format!("{text}{list}");
        }
    }
    if let Some(error) = s["listen_error"].as_str() {
        return error.to_owned();
    }
    if s["awaits_connection"] == true {
        return "waits for a connection".to_owned();
    }
    if let Some(error) = s["health_error"].as_str() {
        return error.to_owned();
    }
    let (by_hand, down) = (s["overridden"] == true, s["desired"] == "down");
    let by = s["wished_by"].as_str().filter(|_| by_hand);
    match (by, s["last_error"].as_str(), s["needed_by"].as_str()) {
        (Some(by), _, _) if down => format!("{} stopped it", users::named(by)),
        (_, Some(error), _) => error.to_owned(),
        (Some(by), None, _) => format!("{} started it", users::named(by)),
        (None, None, of) => of.map_or_else(String::new, |of| format!("{of} needs it")),
    }
}

pub(crate) fn history(args: &Args) -> Result<u8, Failure> {
    let name = args.operands.first().map_or("", String::as_str);
    let limit = args.within("limit", 1, i64::MAX)?.unwrap_or(10);
    let mut source = ask(args)?;
    let result = source.call("service.history", &json!({ "name": name, "limit": limit }))?;
    let open = if source.is_files() { "not on record" } else { "runs" };
    finish(args, &result, |r| match r["instances"].as_array() {
        None => runs(r, open),
        Some(all) => {
            let one = |r: &Value| format!("{}\n{}", r["name"].as_str().unwrap_or("?"), runs(r, open));
            all.iter().map(one).collect::<Vec<_>>().join("\n")
        }
    })
}

/// Runs as a table, the present one last, and below it what those that failed said in the end. `open`: what is told of
/// a run that has no end.
fn runs(r: &Value, open: &str) -> String {
    let past: Vec<&Value> = r["runs"].as_array().into_iter().flatten().collect();
    if past.is_empty() && r["running"].is_null() {
        return format!("{} has never run\n", r["name"].as_str().unwrap_or("it"));
    }
    let mut t = Table::default();
    t.row().number("RUN").cell("STARTED").number("LASTED").cell("END").number("CPU").number("MEMORY").cell("CAUSE");
    let present = Some(&r["running"]).filter(|now| now.is_object());
    for run in past.iter().copied().chain(present) {
        t.row()
            .number(run["number"].to_string())
            .cell(run["started"].as_str().map_or_else(|| "-".to_owned(), when::moment))
            .number(run["duration_ms"].as_f64().map_or_else(|| "-".to_owned(), |ms| lasted(ms / 1000.0)))
            .cell(run["outcome"].as_str().unwrap_or(open))
            .number(run["cpu_secs"].as_f64().map_or_else(|| "-".to_owned(), |c| format!("{c:.2} s")))
            .number(run["memory_peak"].as_u64().filter(|m| *m > 0).map_or_else(|| "-".to_owned(), units::human_size))
            .cell(run["cause"].as_str().unwrap_or(""));
    }
    let mut text = t.print_within(terminal::columns());
    for run in past {
        let lines: Vec<&str> = run["last_lines"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        if !lines.is_empty() {
            text.push_str(&format!("\nLast output of run {}\n", run["number"]));
            lines.iter().for_each(|l| text.push_str(&format!("  | {l}\n")));
        }
    }
    text
}

pub(crate) fn list(args: &Args) -> Result<u8, Failure> {
    let owner = owner(args)?;
    let result: Value =
        connect_to_ask(args)?.call("service.list", &json!({ "names": args.operands, "owner": owner }))?;
    let whose = visible_line(args.text("owner")?.unwrap_or("you"));
    finish(args, &result, |r| match &owner {
        Some(_) if rows(r).next().is_none() => {
            format!("{whose} {} started no service\n", if whose == "you" { "have" } else { "has" })
        }
        _ => table(r),
    })
}

/// Whose services `--mine` and `--owner` ask for. The daemon knows users by their numbers.
pub(super) fn owner(args: &Args) -> Result<Option<String>, Failure> {
    let Some(name) = args.text("owner")? else { return Ok(args.has("mine").then(|| "mine".to_owned())) };
    if args.has("mine") {
        return Err(Failure::usage("--mine and --owner: give one of them"));
    }
    if ["service/", "schedule/", "task/"].iter().any(|kind| name.starts_with(kind)) {
        return Ok(Some(name.to_owned()));
    }
    let found = Accounts::read(Path::new("/etc")).and_then(|a| a.uid(name)).map(|uid| Some(uid.to_string()));
    found.map_err(|e| {
        Failure::usage(format!("--owner: {e}"))
            .hint(format!("what a job has started is found by --owner service/{name}"))
    })
}

pub(crate) fn get(args: &Args) -> Result<u8, Failure> {
    story::one(args, args.operands.first().map_or("", String::as_str), table)
}

pub(crate) fn ping(args: &Args) -> Result<u8, Failure> {
    let mut client = connect_to_ask(args)?;
    let begin = std::time::Instant::now();
    let result: Value = client.call("ping", &json!({}))?;
    let took = begin.elapsed();
    finish(args, &result, |r| {
        format!("hob {} answers in {}\n", r["version"].as_str().unwrap_or("?"), units::human_duration(took))
    })
}

pub(crate) fn health(args: &Args) -> Result<u8, Failure> {
    let result: Value = connect_to_ask(args)?.call("daemon.health", &json!({}))?;
    let ok = result["status"] == "ok";
    finish(args, &result, |r| {
        let s = &r["services"];
        let some = |state: &str| s[state].as_u64().filter(|n| *n > 0).map(|n| format!(", {n} {state}"));
        let also: String =
            ["starting", "waiting", "stopping", "stopped", "finished"].into_iter().filter_map(some).collect();
        let problems: String = r["problems"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|p| Some(format!("problem: {}\n", p.as_str()?)))
            .collect();
        let backoff =
            s["backoff"].as_u64().filter(|n| *n > 0).map_or_else(String::new, |n| format!(", {n} in backoff"));
        format!(
            "{}: {} of {} services run{backoff}{also}, {} failed; up for {}, pid {} (daemon {})\n{problems}",
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
