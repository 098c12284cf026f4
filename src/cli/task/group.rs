//! Commands about groups of tasks.

use crate::base::limits::GROUP_PARALLEL_MAX;
use crate::base::text::count;
use crate::cli::flags::Args;
use crate::cli::render::Table;
use crate::cli::service::finish;
use crate::cli::{Failure, connect};
use serde_json::{Value, json};

pub(super) fn list(args: &Args) -> Result<u8, Failure> {
    let result: Value = connect(args)?.call("group.list", &json!({}))?;
    finish(args, &result, |r| {
        let mut t = Table::default();
        t.row().cell("NAME").number("SLOTS").number("RUNNING").number("QUEUED").number("WEIGHT").cell("NOTE");
        for g in r["groups"].as_array().into_iter().flatten() {
            let count = |name: &str| g[name].as_u64().unwrap_or(0).to_string();
            let weight = match g["weight_limit"].as_u64() {
                Some(0) | None => String::new(),
                Some(limit) => format!("{}/{limit}", count("weight")),
            };
            t.row().cell(g["name"].as_str().unwrap_or("?")).number(count("parallel")).number(count("running"));
            t.number(count("queued")).number(weight).cell(note(g));
        }
        t.print()
    })
}

fn note(g: &Value) -> String {
    let words = [("paused", "paused"), ("changed", "changed by hand")];
    let mut notes: Vec<String> =
        words.iter().filter(|(key, _)| g[*key] == true).map(|(_, word)| (*word).to_owned()).collect();
    if let Some(tasks) = g["left_for_tasks"].as_u64() {
        let tasks = count(usize::try_from(tasks).unwrap_or(usize::MAX), "task");
        notes.push(format!("not in the config, kept for {tasks}"));
    }
    let limits = g["limits"].as_object().into_iter().flatten();
    notes.extend(limits.flat_map(|(key, value)| match value {
        Value::Object(rlimits) => rlimits.iter().map(|(name, value)| limit(name, value)).collect(),
        value => vec![limit(key, value)],
    }));
    notes.join(", ")
}

/// `nice 5`, `nofile 4096`, `core 0 to unlimited`.
fn limit(name: &str, value: &Value) -> String {
    let plain = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match value {
        Value::Null => format!("{name} of hob"),
        Value::Object(parts) => {
            let of = |part: &str| parts.get(part).map(plain).unwrap_or_default();
            format!("{name} {} to {}", of("soft"), of("hard"))
        }
        value => format!("{name} {}", plain(value)),
    }
}

pub(super) fn set(args: &Args) -> Result<u8, Failure> {
    let name = args.operands.first().map_or("", String::as_str);
    let mut params = json!({ "name": name });
    for (flag, key, most) in [("parallel", "parallel", GROUP_PARALLEL_MAX), ("weight-limit", "weight_limit", u32::MAX)]
    {
        if let Some(n) = args.within(flag, 0, most.into())? {
            params[key] = json!(n);
        }
    }
    if args.has("remove") {
        params["remove"] = json!(true);
    } else if !args.has("parallel") && !args.has("weight-limit") {
        return Err(Failure::usage("what is to be set?").hint("give --parallel N, --weight-limit N or --remove"));
    }
    let mut client = connect(args)?;
    let result: Value = client.call("group.set", &params)?;
    let left: Value = if args.has("remove") { client.call("group.list", &json!({}))? } else { Value::Null };
    let is_left = left["groups"].as_array().into_iter().flatten().any(|g| g["name"] == name);
    finish(args, &result, |r| told(r, name, args.has("remove"), is_left))
}

fn told(r: &Value, name: &str, remove: bool, is_left: bool) -> String {
    let slots = match r["parallel"].as_u64() {
        Some(1) => "1 slot".to_owned(),
        n => format!("{} slots", n.unwrap_or(0)),
    };
    match (remove, r["configured"] == true) {
        (false, _) => format!("group {name}: {slots}\n"),
        (true, true) => format!("group {name} is as the config says again: {slots}\n"),
        (true, false) if ["default", "agents"].contains(&name) => {
            format!("group {name} is as at first again: {slots}\n")
        }
        (true, false) if is_left => {
            format!("group {name} goes with the last task that is in it: hob task clean -g {name} removes those over\n")
        }
        (true, false) => format!("group {name} is gone\n"),
    }
}

fn switch(args: &Args, method: &str, word: &str) -> Result<u8, Failure> {
    let name = args.operands.first().map_or("", String::as_str);
    let params = json!({ "name": name, "running": args.has("running") });
    let result: Value = connect(args)?.call(method, &params)?;
    finish(args, &result, |_| format!("group {name} {word}\n"))
}

pub(super) fn pause(args: &Args) -> Result<u8, Failure> {
    switch(args, "group.pause", "is paused")
}

pub(super) fn resume(args: &Args) -> Result<u8, Failure> {
    switch(args, "group.resume", "goes on")
}
