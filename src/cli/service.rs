//! Commands that change services, and the raw call.

use super::flags::Args;
use super::progress::Progress;
use super::render::masked;
use super::{Failure, connect, connect_to_change, exit, print, print_json, print_painted};
use crate::base::text::listed;
use crate::client::Client;
use serde_json::{Value, json};

pub(crate) const CALL_DETAILS: &str = "\
The parameters are one JSON object, or - to read it from standard input. 'hob call rpc.discover' lists all methods,
'hob help exit-codes' how an error of the protocol ends the command.";

/// Calls a method that changes services, prints what happened to each.
fn change(args: &Args, method: &str) -> Result<u8, Failure> {
    if args.has("grace") {
        let failure = Failure::usage("--grace is for the end of hob itself, which takes all services with it");
        return Err(failure.hint("a service is given its stop_timeout"));
    }
    if args.has("all") && !args.operands.is_empty() {
        return Err(Failure::usage("--all means every service; give it, or names"));
    }
    let mut client = connect_to_change(args)?;
    let mut params = json!({ "wait": !args.has("no-wait") });
    if !args.has("all") {
        params["names"] = json!(args.operands);
    } else if method == "service.stop" {
        params["all"] = json!(true);
    } else {
        let list: Value = client.call("service.list", &json!({}))?;
        let all = || list["services"].as_array().into_iter().flatten();
        let is_meant = |s: &&Value| method != "service.restart" || runs_or_should(s);
        let names: Vec<&str> = all().filter(is_meant).filter_map(|s| s["name"].as_str()).collect();
        if names.is_empty() {
            let some = all().next().is_some();
            let text = if some { "no service runs, and none should\n" } else { "there are no services\n" };
            return finish(args, &json!({ "services": [] }), |_| text.to_owned());
        }
        params["names"] = json!(names);
    }
    if let Some(limit) = args.duration("timeout")? {
        params["timeout"] = json!(limit.as_secs_f64());
    }
    let progress = Progress::begin(args);
    let result = client.call(method, &params);
    drop(progress);
    let result: Value = result?;
    finish(args, &result, |r| {
        let mut text = String::new();
        for s in r["services"].as_array().into_iter().flatten() {
            text.push_str(&outcome(s));
        }
        text
    })
}

/// What a restart of everything means: what runs, and what is on its way or has failed on it. What a person stopped,
/// what nobody has started and what has done its work stay as they are.
fn runs_or_should(s: &Value) -> bool {
    match s["state"].as_str().unwrap_or("") {
        "running" | "starting" => true,
        "stopped" | "finished" => false,
        _ => s["desired"] == "up",
    }
}

pub(crate) fn outcome(s: &Value) -> String {
    let name = s["name"].as_str().unwrap_or("?");
    let result = s["result"].as_str().unwrap_or("accepted").replace('_', " ");
    let mut line = format!("{name}: {result}");
    if let Some(pid) = s["pid"].as_u64() {
        line.push_str(&format!(", pid {pid}"));
    }
    if let Some(message) = s["message"].as_str().filter(|m| !m.is_empty()) {
        // A sentence of its own that says how it was done, or a remark on the result.
        let aside = !message.starts_with("it did not end");
        line.push_str(&if aside { format!(" ({message})") } else { format!("; {message}") });
    }
    let along: Vec<String> =
        s["along"].as_array().into_iter().flatten().filter_map(|n| Some(n.as_str()?.to_owned())).collect();
    if !along.is_empty() {
        let (require, what) = match (along.len(), result.as_str()) {
            (1, "restarted" | "restarting") => ("requires", "is restarted as well"),
            (_, "restarted" | "restarting") => ("require", "are restarted as well"),
            (1, _) => ("requires", "waits"),
            _ => ("require", "wait"),
        };
        line.push_str(&format!("; {}, which {require} it, {what}", listed(&along)));
    }
    line.push('\n');
    line
}

/// Prints a result as JSON when that was asked for, else as the text that `human` makes of it.
pub(crate) fn finish(args: &Args, result: &Value, human: impl FnOnce(&Value) -> String) -> Result<u8, Failure> {
    if args.has("json") {
        print_json(result)?;
    } else if !args.has("quiet") {
        print_painted(&human(&masked(result)))?;
    }
    Ok(exit::OK)
}

pub(crate) fn start(args: &Args) -> Result<u8, Failure> {
    change(args, "service.start")
}

pub(crate) fn stop(args: &Args) -> Result<u8, Failure> {
    change(args, "service.stop")
}

pub(crate) fn restart(args: &Args) -> Result<u8, Failure> {
    change(args, "service.restart")
}

pub(crate) fn reset(args: &Args) -> Result<u8, Failure> {
    let result: Value = connect(args)?.call("service.reset", &json!({ "names": args.operands }))?;
    finish(args, &result, |r| {
        let names = r["services"].as_array().into_iter().flatten().filter_map(|s| s["name"].as_str());
        names.map(|n| format!("{n}: does again what autostart says\n")).collect()
    })
}

pub(crate) fn reload(args: &Args) -> Result<u8, Failure> {
    let result: Value = connect(args)?.call("service.reload", &json!({ "names": args.operands }))?;
    finish(args, &result, |r| r["services"].as_array().into_iter().flatten().map(outcome).collect())
}

pub(crate) fn signal(args: &Args) -> Result<u8, Failure> {
    let (signal, names) = args.operands.split_first().ok_or_else(|| Failure::usage("which signal?"))?;
    let mut client = connect(args)?;
    // Each is told at once: one that fails does not hide those before it.
    for name in names {
        let result: Value = client.call("service.signal", &json!({ "name": name, "signal": signal }))?;
        finish(args, &result, |result| match result["instances"].as_array() {
            None => format!("{name}: {signal} sent\n"),
            Some(all) => all.iter().map(|s| signalled(s, signal)).collect(),
        })?;
    }
    Ok(exit::OK)
}

fn signalled(instance: &Value, signal: &str) -> String {
    let what = instance["message"].as_str().map_or_else(|| format!("{signal} sent"), str::to_owned);
    format!("{}: {what}\n", instance["name"].as_str().unwrap_or("?"))
}

pub(crate) fn call(args: &Args) -> Result<u8, Failure> {
    let method = args.operands.first().map_or("", String::as_str);
    let text = match args.operands.get(1).map(String::as_str) {
        None => "{}".to_owned(),
        Some("-") => std::io::read_to_string(std::io::stdin())?,
        Some(text) => text.to_owned(),
    };
    let params: Value = serde_json::from_str(&text).map_err(|e| {
        Failure::usage(format!("the parameters are not JSON: {e}"))
            .hint("quote them for the shell: '{\"name\": \"web\"}'")
    })?;
    let mut client: Client = connect(args)?;
    let result: Value = client.call(method, &params)?;
    if args.has("json") {
        print_json(result)?
    } else {
        print_json(format!("{result:#}"))?
    }
    Ok(exit::OK)
}

/// `hob logs rotate NAME...`
pub(crate) fn rotate(args: &Args) -> Result<u8, Failure> {
    let reply: Value = connect(args)?.call("service.rotate", &json!({ "names": args.operands }))?;
    if args.has("json") {
        print_json(&reply)?;
        return Ok(exit::OK);
    }
    let mut code = exit::OK;
    for row in reply["services"].as_array().into_iter().flatten() {
        let name = row["name"].as_str().unwrap_or_default();
        let text = match (row["rotated"].as_bool(), row["message"].as_str()) {
            (Some(true), _) => format!("{name}: a new log file was begun\n"),
            (_, Some(why)) => format!("{name}: not rotated: {why}\n"),
            _ => format!("{name}: not rotated\n"),
        };
        if row["message"].as_str().is_some_and(|m| m != "its file is empty") {
            code = exit::FAILED;
        }
        if !args.has("quiet") || code != exit::OK {
            print(&text)?;
        }
    }
    Ok(code)
}
