//! `hob schedule`: jobs, and what an expression of cron means, which needs no daemon.

use super::config::load;
use super::flags::Args;
use super::render::{Paint, Table, colours, lasted};
use super::service::finish;
use super::{Failure, connect, exit, note, when};
use crate::base::text::{blanked, visible_line};
use crate::base::time::Wall;
use crate::config::cron::{self, Cron, CronError, Expression, Zone, ZoneFile};
use crate::config::schedule::When;
use crate::sys;
use serde_json::{Value, json};

/// A mistake, here as in a config.
const NEVER: &str = "never fires: there is no such day";

/// More times than anybody reads.
const COUNT_MAX: usize = 10_000;

/// The zone that --tz names; without it the local one.
fn zone(args: &Args) -> Result<Zone, Failure> {
    let name = args.text("tz")?.unwrap_or("");
    if !name.is_empty()
        && let Some(why) = Zone::name_error(name)
    {
        return Err(Failure::usage(format!("--tz: '{name}' is no name: {why}")));
    }
    match sys::zone::read(name) {
        Some((name, content)) => Zone::new(&ZoneFile { name, content })
            .map_err(|e| Failure::usage(format!("--tz: {name}: {e}", name = name_of(args)))),
        None if name.is_empty() || name == "UTC" => Ok(Zone::utc()),
        None => Err(Failure::usage(format!("--tz: there is no time zone '{name}' in the system's database"))
            .hint("names look like Europe/Berlin; the database is the package tzdata of most systems")),
    }
}

fn name_of(args: &Args) -> String {
    args.value("tz").map_or_else(|| "local time".to_owned(), |v| v.to_string_lossy().into_owned())
}

/// An expression, or why it is none, with a caret below the place.
fn expression(text: &str) -> Result<Expression, Failure> {
    cron::parse(text).map_err(|e| Failure::usage(pointed(text, &e)).in_lines())
}

fn pointed(text: &str, e: &CronError) -> String {
    format!("{}\n     {}\n     {:>3$}", visible_line(&e.to_string()), blanked(text), '^', e.column)
}

pub(crate) fn next(args: &Args) -> Result<u8, Failure> {
    let text = args.operands.first().map_or("", String::as_str);
    let count = args.number("count")?.unwrap_or(5);
    if count > COUNT_MAX {
        return Err(Failure::usage(format!("-n {count}: {COUNT_MAX} times are the most")));
    }
    let is_id = !text.trim().contains([' ', '\t', '@', '*']) && !text.is_empty();
    if is_id && !args.has("tz") && !args.has("from") {
        return next_of_job(args, text, count);
    }
    let zone = zone(args)?;
    let from = match args.text("from")? {
        None => sys::clock::now().wall,
        Some(t) => zone.read(t.trim()).ok_or_else(|| {
            Failure::usage(format!(
                "--from: '{t}' is no time; write \"2026-03-28T00:00:00\", with an offset or without"
            ))
        })?,
    };
    match expression(text)? {
        Expression::Reboot => empty(args, "it fires once in each boot of the machine, at no time of the clock"),
        Expression::Times(cron) if cron.never_fires() => Err(Failure::usage(format!("'{text}' {NEVER}"))),
        Expression::Times(cron) => {
            let times: Vec<String> = times(&cron, &zone, from, count).iter().map(|at| zone.show(*at)).collect();
            if times.is_empty() && count > 0 {
                return empty(args, "it fires no more from then on");
            }
            finish(args, &json!({ "next": times }), |_| {
                let paint = Paint { on: colours() };
                let head = format!("# {}; {}{}", cron.words(), zone.name(), changes(&cron));
                format!("{}\n{}", paint.colour("2", &head), times.iter().map(|t| format!("{t}\n")).collect::<String>())
            })
        }
    }
}

fn changes(cron: &Cron) -> &'static str {
    if cron.is_wild() { "; follows the clock on the wall when that is changed" } else { "" }
}

fn empty(args: &Args, why: &str) -> Result<u8, Failure> {
    if args.has("json") {
        note(args, &format!("hob: {why}"));
    }
    finish(args, &json!({ "next": [], "message": why }), |_| format!("{why}\n"))
}

/// Times from a moment on, that one included.
fn times(cron: &Cron, zone: &Zone, from: Wall, count: usize) -> Vec<Wall> {
    let mut at = Wall(from.0.saturating_sub(1));
    let next = || {
        at = cron.next(zone, at)?;
        Some(at)
    };
    core::iter::from_fn(next).take(count).collect()
}

fn next_of_job(args: &Args, id: &str, count: usize) -> Result<u8, Failure> {
    let mut client = connect(args).map_err(|f| {
        let why = format!("'{id}' is no expression of cron (those have five fields), so it names a job");
        Failure { message: format!("{why}; {}", f.message), ..f }
    })?;
    let result: Value = client.call("schedule.next", &json!({ "id": id, "count": count }))?;
    finish(args, &result, |r| {
        let times: String = strings(&r["next"]).map(|t| format!("{t}\n")).collect();
        let none =
            if times.is_empty() { format!("{id}: {}\n", r["message"].as_str().unwrap_or("none")) } else { times };
        if r["paused"] == true { format!("{id} is paused; otherwise it would run at\n{none}") } else { none }
    })
}

fn strings(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}

pub(crate) fn check(args: &Args) -> Result<u8, Failure> {
    if args.operands.is_empty() {
        return check_config(args);
    }
    let zone = zone(args)?;
    let now = sys::clock::now().wall;
    let (mut rows, mut text, mut good) = (Vec::new(), String::new(), true);
    for given in &args.operands {
        let shown = visible_line(given);
        let (row, line) = match cron::parse(given) {
            Err(e) => {
                good = false;
                let line = format!("'{shown}': {}\n", pointed(given, &e));
                (json!({ "expression": given, "ok": false, "column": e.column, "message": e.message }), line)
            }
            Ok(Expression::Reboot) => {
                let line = format!("'{shown}': good, once in each boot\n");
                (json!({ "expression": given, "ok": true, "next": null }), line)
            }
            Ok(Expression::Times(cron)) if cron.never_fires() => {
                good = false;
                let row = json!({ "expression": given, "ok": false, "message": format!("it {NEVER}") });
                (row, format!("'{shown}' {NEVER}\n"))
            }
            Ok(Expression::Times(cron)) => {
                let next = cron.next(&zone, now).map(|at| zone.show(at));
                let told = next.as_deref().unwrap_or("never");
                let line = format!("'{shown}': good; {}; next {told}\n", cron.words());
                (json!({ "expression": given, "ok": true, "next": next, "means": cron.words() }), line)
            }
        };
        rows.push(row);
        text.push_str(&line);
    }
    finish(args, &json!({ "ok": good, "expressions": rows }), |_| text)?;
    Ok(if good { exit::OK } else { exit::FAILED })
}

/// The jobs of the config file, without a daemon.
fn check_config(args: &Args) -> Result<u8, Failure> {
    let loaded = load(args)?;
    let config = match loaded.result {
        Ok(config) => config,
        Err(_) => return super::config::check(args),
    };
    let now = sys::clock::now().wall;
    let next = |job: &crate::config::JobSpec| match job.when() {
        When::Times(cron) => cron.next(&job.zone, now).map(|at| job.zone.show(at)),
        When::Once(at) => Some(job.zone.show(at)).filter(|_| at > now),
        When::Every(_) | When::Reboot | When::Never => None,
    };
    let rows: Vec<Value> = config.schedule.iter().map(|j| json!({ "id": j.id, "next": next(j) })).collect();
    finish(args, &json!({ "ok": true, "file": loaded.name, "jobs": rows }), |_| {
        let count = config.schedule.len();
        let mut text =
            format!("{}: good, {count} job{}\n", visible_line(&loaded.name), if count == 1 { "" } else { "s" });
        for job in &config.schedule {
            let told = match (next(job), job.when()) {
                (Some(at), _) => format!("next {at}"),
                (None, When::Every(every)) => format!("every {}", crate::base::units::canonical_duration(every)),
                (None, When::Reboot) => "once in each boot".to_owned(),
                (None, When::Once(_)) => "its time has passed".to_owned(),
                (None, When::Times(_) | When::Never) => "it has no time left".to_owned(),
            };
            text.push_str(&format!("{}: {told}\n", job.id));
        }
        text
    })
}

/// The jobs that were named; an empty list would mean none.
fn ids(args: &Args) -> Option<&Vec<String>> {
    Some(&args.operands).filter(|ids| !ids.is_empty())
}

pub(crate) fn list(args: &Args) -> Result<u8, Failure> {
    let result: Value = connect(args)?.call("schedule.list", &json!({ "ids": ids(args) }))?;
    finish(args, &result, table)
}

fn table(r: &Value) -> String {
    let rows = r["jobs"].as_array().map_or(&[] as &[Value], Vec::as_slice);
    if rows.is_empty() {
        return "no jobs; they stand under schedule.jobs in the config\n".to_owned();
    }
    let paint = Paint { on: colours() };
    let mut t = Table::default();
    t.row().cell("ID").cell("STATE").cell("TIME").cell("TZ").cell("NEXT").cell("LAST").cell("RESULT").cell("ACTION");
    for job in rows {
        let text = |k: &str| job[k].as_str().unwrap_or("-").to_owned();
        let state = text("state");
        let result = match (job["last_result"].as_str(), job["last_message"].as_str()) {
            (Some(result), Some(message)) => format!("{}: {message}", result.replace('_', " ")),
            (Some(result), None) => result.to_owned(),
            (None, _) => "-".to_owned(),
        };
        t.row().cell(text("id")).painted(state.clone(), paint.state(&state, &state));
        t.cell(text("time")).cell(text("tz")).cell(when::moment(&text("next"))).cell(when::moment(&text("last")));
        t.cell(when::moments(&result)).cell(text("action"));
    }
    t.print()
}

pub(crate) fn run(args: &Args) -> Result<u8, Failure> {
    let mut client = connect(args)?;
    let mut all = Vec::new();
    for id in &args.operands {
        let result: Value = client.call("schedule.run", &json!({ "id": id }))?;
        all.push(result);
    }
    finish(args, &json!({ "jobs": all }), |_| {
        let line = |r: &Value| {
            let queued = if r["queued"] == true { " waits for its turn" } else { " begun" };
            format!("{}: run {}{queued}\n", r["id"].as_str().unwrap_or("?"), r["run"])
        };
        all.iter().map(line).collect()
    })
}

pub(crate) fn pause(args: &Args) -> Result<u8, Failure> {
    change(args, "schedule.pause")
}

pub(crate) fn resume(args: &Args) -> Result<u8, Failure> {
    change(args, "schedule.resume")
}

fn change(args: &Args, method: &str) -> Result<u8, Failure> {
    if args.operands.is_empty() != args.has("all") {
        return Err(Failure::usage("wants ids of jobs, or --all").hint("'hob schedule list' shows them"));
    }
    let result: Value = connect(args)?.call(method, &json!({ "ids": ids(args) }))?;
    finish(args, &result, |r| {
        let line = |job: &Value| {
            let already = if job["changed"] == true { "" } else { " already" };
            let next = job["next"].as_str().map_or_else(String::new, |at| format!(", next {}", when::moment(at)));
            let state = if job["paused"] == true { "paused" } else { "goes by the clock" };
            format!("{}: {state}{already}{next}\n", job["id"].as_str().unwrap_or("?"))
        };
        r["jobs"].as_array().into_iter().flatten().map(line).collect()
    })
}

pub(crate) fn history(args: &Args) -> Result<u8, Failure> {
    let id = args.operands.first().map_or("", String::as_str);
    let limit = args.within("limit", 1, i64::MAX)?.unwrap_or(10);
    let result: Value = connect(args)?.call("schedule.history", &json!({ "id": id, "limit": limit }))?;
    finish(args, &result, runs)
}

fn runs(r: &Value) -> String {
    let mut t = Table::default();
    t.row().number("RUN").cell("DUE").cell("BEGAN").number("TOOK").cell("RESULT").cell("CAUSE").cell("MESSAGE");
    let moment = |v: &Value| v.as_str().map_or_else(|| "-".to_owned(), when::moment);
    // As those of a service: the present one last.
    let all = |k: &str| r[k].as_array().into_iter().flatten();
    for run in all("runs").rev().chain(all("running")) {
        t.row().number(run["number"].to_string()).cell(moment(&run["due"])).cell(moment(&run["began"]));
        t.number(run["took_ms"].as_f64().map_or_else(|| "-".to_owned(), |ms| lasted(ms / 1000.0)));
        t.cell(run["result"].as_str().map_or_else(|| "runs".to_owned(), |r| r.replace('_', " ")));
        t.cell(run["cause"].as_str().unwrap_or("")).cell(run["message"].as_str().unwrap_or(""));
    }
    t.print()
}
