//! Commands that change services, and the raw call.

use super::flags::Args;
use super::{Failure, connect, exit, note, print, render};
use crate::client::Client;
use serde_json::{Value, json};

pub(crate) const CALL_DETAILS: &str = "\
The parameters are one JSON object, or - to read it from standard input. 'hob call rpc.discover' lists all methods.

Exit codes of every command: 0 done, 1 failed, 2 wrong usage, and for an error of the protocol
   3 -32001 not running, not available, already running     4 -32004 not found
   5 -32003 permission denied                               6 -32005 busy or over a limit
   7 -32008 conflict                                        8 -32002 file system
   9 -32007 shutting down                                  10 -32006 sudo denied
  11 -32602 wrong parameters                               12 -32601 no such method
  13 -32600 not a request                                  14 -32700 not JSON
  15 -32603 a mistake of hob's own
Without a protocol error 'hob status' ends with 1 when a service has failed, 'hob health' with 3 when not all is well.";

/// Calls a method that changes services, prints what happened to each.
fn change(args: &Args, method: &str, doing: &str) -> Result<u8, Failure> {
    let all = args.operands.is_empty();
    let mut params = json!({ "wait": !args.has("no-wait") });
    if all {
        params["all"] = json!(true);
    } else {
        params["names"] = json!(args.operands);
    }
    if let Some(limit) = args.duration("timeout")? {
        params["timeout"] = json!(limit.as_secs_f64());
    }
    let mut client = connect(args)?;
    if render::on_terminal_err() && !args.has("json") && !args.has("no-wait") {
        note(args, &format!("{doing} {} ...", if all { "all services".to_owned() } else { args.operands.join(", ") }));
    }
    let result: Value = client.call(method, &params)?;
    finish(args, &result, |r| {
        let mut text = String::new();
        for s in r["services"].as_array().into_iter().flatten() {
            text.push_str(&outcome(s));
        }
        text
    })
}

pub(crate) fn outcome(s: &Value) -> String {
    let name = s["name"].as_str().unwrap_or("?");
    let result = s["result"].as_str().unwrap_or("accepted").replace('_', " ");
    let mut line = format!("{name}: {result}");
    if let Some(pid) = s["pid"].as_u64() {
        line.push_str(&format!(", pid {pid}"));
    }
    if let Some(message) = s["message"].as_str().filter(|m| !m.is_empty()) {
        line.push_str(&format!(" ({message})"));
    }
    line.push('\n');
    line
}

/// Prints a result as JSON when that was asked for, else as the text that `human` makes of it.
pub(crate) fn finish(args: &Args, result: &Value, human: impl FnOnce(&Value) -> String) -> Result<u8, Failure> {
    if args.has("json") {
        print(&format!("{result}\n"))?;
    } else if !args.has("quiet") {
        print(&human(result))?;
    }
    Ok(exit::OK)
}

pub(crate) fn start(args: &Args) -> Result<u8, Failure> {
    change(args, "service.start", "starting")
}

pub(crate) fn stop(args: &Args) -> Result<u8, Failure> {
    change(args, "service.stop", "stopping")
}

pub(crate) fn restart(args: &Args) -> Result<u8, Failure> {
    change(args, "service.restart", "restarting")
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
    let mut last = Value::Null;
    let mut text = String::new();
    for name in names {
        last = client.call("service.signal", &json!({ "name": name, "signal": signal }))?;
        match last["instances"].as_array() {
            None => text.push_str(&format!("{name}: {signal} sent\n")),
            Some(all) => all.iter().for_each(|s| {
                let sent = || format!("{signal} sent");
                let what = s["message"].as_str().map_or_else(sent, str::to_owned);
                text.push_str(&format!("{}: {what}\n", s["name"].as_str().unwrap_or("?")));
            }),
        }
    }
    finish(args, &last, |_| text)
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
    let text = if args.has("json") { result.to_string() } else { format!("{result:#}") };
    print(&format!("{text}\n"))?;
    Ok(exit::OK)
}

#[cfg(test)]
mod tests {
    use crate::protocol::rpc::Code;

    #[test]
    fn help_names_the_exit_code_of_every_error() {
        for code in Code::all() {
            let entry = format!(" {} {} ", code.exit_code(), code.number());
            assert!(super::CALL_DETAILS.contains(&entry), "{code:?}:{entry}");
        }
    }
}
