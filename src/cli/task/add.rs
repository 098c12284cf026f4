//! `hob add`: queues a task, or one for each number of a range. Reads the folder, the umask and the environment.

use super::look;
use super::{after, exit_code, in_flags, in_words, moment, patience};
use crate::base::limits::{FRAME_MAX, TASK_ARRAY_MAX};
use crate::cli::flags::Args;
use crate::cli::{Failure, complain, connect, exit, print, print_json};
use crate::client::Client;
use crate::protocol::rpc::Code;
use crate::protocol::to_base64;
use crate::sys::file;
use serde_json::{Map, Value, json};
use std::io::Read;

/// The longest standard input that is sent.
const STDIN_MAX: u64 = 11 * 1024 * 1024;

pub(super) fn add(args: &Args) -> Result<u8, Failure> {
    let spec = spec(args)?;
    let mut client = connect(args)?;
    if let Some(range) = args.text("array")? {
        return add_array(args, &mut client, spec, range);
    }
    let result: Value = client.call("task.submit", &Value::Object(spec)).map_err(in_flags)?;
    let id = result["id"].as_u64().unwrap_or(0);
    let is_removed = result["state"] == "removed";
    let is_awaited = args.has("follow") || args.has("wait");
    match (args.has("json"), args.has("print-id")) {
        (false, false) if is_removed && is_awaited => {}
        (false, false) if is_removed && !args.has("quiet") => {
            print(&format!("task {id} had this key and was removed; nothing was added\n"))?;
        }
        _ if args.has("follow") && !args.has("print-id") => {}
        (true, _) => print_json(&result)?,
        (false, true) => print(&format!("{id}\n"))?,
        (false, false) if args.has("quiet") => {}
        (false, false) if result["known"] == true => {
            let state = in_words(&result);
            print(&format!("task {id} has this key already ({state}); nothing was added\n"))?;
        }
        (false, false) => print(&format!("task {id} is queued\n"))?,
    }
    if is_removed {
        return if is_awaited { Err(unknown(&format!("task {id}"), "was")) } else { Ok(exit::OK) };
    }
    if is_awaited {
        patience::begin(args, id)?;
    }
    if args.has("follow") {
        return look::follow(args, &mut client, id, None);
    }
    if args.has("wait") {
        let done: Value = client.call("task.wait", &json!({ "ids": id }))?;
        let task = &done["tasks"][0];
        if task["state"] != "succeeded" && !args.has("quiet") {
            let seen = match task["output_bytes"].as_u64() {
                None | Some(0) => String::new(),
                Some(_) => format!("; 'hob task output {id}' shows what it wrote"),
            };
            complain(&format!("{}{seen}", look::ended(task)), None);
        }
        return Ok(exit_code(task));
    }
    Ok(exit::OK)
}

/// Whoever waits for the end of what was removed is not told of a success.
fn unknown(tasks: &str, were: &str) -> Failure {
    let what = format!("{tasks} had this key and {were} removed, so that it is not known any more how that ended");
    Failure::code(Code::NotFound, what).hint("nothing was added; with another --key, or without one, it runs once more")
}

fn add_array(args: &Args, client: &mut Client, spec: Map<String, Value>, range: &str) -> Result<u8, Failure> {
    let wrong = || Failure::usage(format!("--array: '{range}' is not a range such as 1-100"));
    let (first, last) = range.split_once('-').ok_or_else(wrong)?;
    let (first, last): (u64, u64) =
        (first.trim().parse().map_err(|_| wrong())?, last.trim().parse().map_err(|_| wrong())?);
    if first > last {
        return Err(wrong());
    }
    let most = TASK_ARRAY_MAX as u64;
    if last - first >= most {
        return Err(Failure::usage(format!("--array: {range} are more than {most} tasks, the most at once")));
    }
    if args.has("follow") {
        return Err(Failure::usage("--follow shows one task, and --array makes many"));
    }
    let key = if spec.contains_key("command") { "command" } else { "prompt" };
    if !spec.get(key).is_some_and(|text| text.to_string().contains("{}")) {
        return Err(Failure::usage(format!("--array puts numbers in place of {{}}, and the {key} has none")));
    }
    let one = |n: u64| {
        let mut spec = spec.clone();
        let numbered = |text: &str| Value::String(text.replace("{}", &n.to_string()));
        if let Some(given) = spec.get_mut(key) {
            *given = match &*given {
                Value::Array(words) => words.iter().filter_map(Value::as_str).map(numbered).collect(),
                text => numbered(text.as_str().unwrap_or_default()),
            };
        }
        Value::Object(spec)
    };
    let specs: Vec<Value> = (first..=last).map(one).collect();
    let params = json!({ "tasks": specs });
    fits_a_message(&params, last - first + 1)?;
    let result: Value = client.call("task.submit", &params).map_err(in_flags)?;
    let made: Vec<u64> = result["ids"].as_array().into_iter().flatten().filter_map(Value::as_u64).collect();
    let (begin, end) = (made.first().copied().unwrap_or(0), made.last().copied().unwrap_or(0));
    let (tasks, one) =
        (if begin == end { format!("task {begin}") } else { format!("tasks {begin}-{end}") }, begin == end);
    let removed = result["removed"].as_u64().unwrap_or(0);
    let all_removed = removed == made.len() as u64;
    let were = if one { "was" } else { "were" };
    match (args.has("json"), args.has("print-id")) {
        (true, _) => print_json(&result)?,
        (false, true) => print(&made.iter().map(|id| format!("{id}\n")).collect::<String>())?,
        (false, false) if args.has("quiet") => {}
        (false, false) if all_removed && args.has("wait") => {}
        (false, false) if all_removed => {
            print(&format!("{tasks} had this key and {were} removed; nothing was added\n"))?;
        }
        (false, false) if result["known"] == true => {
            let have = if one { "has" } else { "have" };
            let but = if removed > 0 { format!(", {removed} of them removed since") } else { String::new() };
            print(&format!("{tasks} {have} this key already{but}; nothing was added\n"))?;
        }
        (false, false) => print(&format!("{tasks} {} queued\n", if one { "is" } else { "are" }))?,
    }
    if !args.has("wait") {
        return Ok(exit::OK);
    }
    if all_removed {
        return Err(unknown(&tasks, were));
    }
    let done: Value = client.call("task.wait", &json!({ "ids": format!("{begin}-{end}") }))?;
    match look::told_of_failures(args, &done) {
        exit::OK if removed > 0 => {
            Err(unknown(&format!("{removed} of {tasks}"), if removed == 1 { "was" } else { "were" }))
        }
        code => Ok(code),
    }
}

/// All of them are added or none, so that they have to fit into one message.
fn fits_a_message(params: &Value, count: u64) -> Result<(), Failure> {
    let (size, most) = (params.to_string().len() as u64, (FRAME_MAX - 4096) as u64);
    if size <= most {
        return Ok(());
    }
    let fit = count * most / size;
    let what = format!("--array: {count} of these tasks are more than hob takes at once; about {fit} of them fit");
    Err(Failure::usage(what).hint("give smaller ranges, one after the other"))
}

/// The task as params.
fn spec(args: &Args) -> Result<Map<String, Value>, Failure> {
    let mut spec = Map::new();
    let mut put = |name: &str, value: Value| spec.insert(name.to_owned(), value);
    work(args, &mut put)?;
    let cwd = match args.path("cwd") {
        Some(path) => std::path::absolute(path)?,
        None => std::env::current_dir().map_err(|e| {
            Failure::new(format!("the present folder cannot be told: {e}")).hint("give one with --cwd DIR")
        })?,
    };
    let utf8 = |what: &str| Failure::usage(format!("{what} is not UTF-8, which tasks need"));
    put("cwd", json!(cwd.to_str().ok_or_else(|| utf8("the folder"))?));
    put("umask", json!(format!("{:03o}", file::umask())));
    put("env", json!(environment(args)?));
    for name in ["group", "key", "runner"] {
        if let Some(text) = args.text(name)? {
            put(name, json!(text));
        }
    }
    if let Some(n) = args.within("priority", i32::MIN.into(), i32::MAX.into())? {
        put("priority", json!(n));
    }
    for name in ["retries", "weight"] {
        if let Some(n) = args.number(name)? {
            put(name, json!(n));
        }
    }
    for name in ["delay", "timeout", "backoff"] {
        if let Some(d) = args.duration(name)? {
            put(name, json!(d.as_secs_f64()));
        }
    }
    if let Some(at) = moment(args, "at")? {
        put("at", json!(at.0));
    }
    if let Some(size) = args.text("max-output")? {
        crate::base::units::parse_size(size).map_err(|e| Failure::usage(format!("--max-output: {e}")))?;
        put("max_output", json!(size));
    }
    if let Some(after) = after(args)? {
        put("after", json!(after));
    }
    let labels = labels(args)?;
    if !labels.is_empty() {
        put("labels", Value::Object(labels));
    }
    if let Some(path) = args.text("stdin")? {
        put("stdin", json!({ "base64": to_base64(&input(path)?) }));
    }
    for (flag, name) in [("hold", "hold"), ("repeatable", "repeatable"), ("hob-fd", "hob_fd")] {
        if args.has(flag) {
            put(name, json!(true));
        }
    }
    Ok(spec)
}

/// What is to be run.
fn work(args: &Args, put: &mut impl FnMut(&str, Value) -> Option<Value>) -> Result<(), Failure> {
    let agent = args.text("agent")?;
    let prompts = agent.is_some() || args.has("prompt");
    match (args.operands.first(), args.rest.is_empty()) {
        (Some(text), true) if prompts => {
            put("prompt", json!(prompt(args, text)?));
            if let Some(agent) = agent {
                put("agent", json!(agent));
            }
        }
        (Some(line), true) => {
            put("command", json!(["/bin/sh", "-c", line]));
        }
        (None, false) if prompts => return Err(Failure::usage("an agent gets a prompt, and no command after --")),
        (None, false) => {
            let words: Option<Vec<&str>> = args.rest.iter().map(|w| w.to_str()).collect();
            let words = words.ok_or_else(|| Failure::usage("the command is not UTF-8, which tasks need"))?;
            put("command", json!(words));
        }
        (Some(_), false) => return Err(Failure::usage("give one line for the shell, or words after --, not both")),
        (None, true) if prompts => {
            return Err(Failure::usage("what is the prompt?").hint("hob add --agent NAME 'TEXT'"));
        }
        (None, true) => return Err(Failure::usage("what is to be run?").hint("hob add -- make -j4")),
    }
    Ok(())
}

/// An operand, or what comes from standard input: a command line holds no long text.
fn prompt(args: &Args, text: &str) -> Result<String, Failure> {
    if text != "-" {
        return Ok(text.to_owned());
    }
    if args.text("stdin")? == Some("-") {
        return Err(Failure::usage("standard input cannot be both the prompt and what the task reads"));
    }
    let text = String::from_utf8(input("-")?).map_err(|_| Failure::usage("the prompt is not UTF-8"))?;
    if text.is_empty() { Err(Failure::usage("the prompt on standard input is empty")) } else { Ok(text) }
}

/// PATH, and what was asked for.
fn environment(args: &Args) -> Result<Map<String, Value>, Failure> {
    let mut env = Map::new();
    let utf8 = |name: &str| Failure::usage(format!("the variable {name} is not UTF-8, which tasks need"));
    if args.has("env-all") {
        for (name, value) in std::env::vars_os() {
            if let (Some(name), Some(value)) = (name.to_str(), value.to_str()) {
                env.insert(name.to_owned(), json!(value));
            }
        }
        env.retain(|name, _| !name.starts_with("HOB_"));
    } else if let Some(path) = std::env::var_os("PATH") {
        env.insert("PATH".to_owned(), json!(path.to_str().ok_or_else(|| utf8("PATH"))?));
    }
    for given in args.texts("env")? {
        let (name, value) = match given.split_once('=') {
            Some((name, value)) => (name, value.to_owned()),
            None => {
                let value = std::env::var_os(given)
                    .ok_or_else(|| Failure::usage(format!("--env: there is no variable {given} here")))?;
                (given, value.into_string().map_err(|_| utf8(given))?)
            }
        };
        if name.is_empty() {
            return Err(Failure::usage("--env: a variable has no name; NAME or NAME=VALUE is wanted"));
        }
        env.insert(name.to_owned(), json!(value));
    }
    Ok(env)
}

pub(super) fn labels(args: &Args) -> Result<Map<String, Value>, Failure> {
    let mut labels = Map::new();
    for given in args.texts("label")? {
        let pair = given.split_once('=').filter(|(name, _)| !name.is_empty());
        let (name, value) =
            pair.ok_or_else(|| Failure::usage(format!("--label: NAME=VALUE is wanted, not '{given}'")))?;
        labels.insert(name.to_owned(), json!(value));
    }
    Ok(labels)
}

fn unreadable(path: &str, e: &std::io::Error) -> Failure {
    Failure::code(Code::FileSystem, format!("cannot read {path}: {e}"))
}

fn input(path: &str) -> Result<Vec<u8>, Failure> {
    let reader: Box<dyn Read> = match path {
        "-" => Box::new(std::io::stdin().lock()),
        _ => Box::new(std::fs::File::open(path).map_err(|e| unreadable(path, &e))?),
    };
    let mut bytes = Vec::new();
    reader.take(STDIN_MAX + 1).read_to_end(&mut bytes).map_err(|e| unreadable(path, &e))?;
    if bytes.len() as u64 > STDIN_MAX {
        return Err(Failure::usage(format!("{path} is larger than {STDIN_MAX} bytes"))
            .hint("let the command read the file itself: hob add 'COMMAND <FILE'"));
    }
    Ok(bytes)
}
