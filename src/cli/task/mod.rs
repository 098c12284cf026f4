//! Commands about tasks: `add` queues them, `change` changes them, `look` shows them and waits, `group` is about the
//! groups they are in. What several of them need is here.

mod add;
mod change;
mod group;
mod look;
mod patience;
pub(super) mod rows;

use super::flags::Args;
use super::offline::Source;
use super::{Failure, status};
use crate::base::limits::TASK_ARRAY_MAX;
use crate::base::near::nearest;
use crate::base::text::shell_word;
use crate::base::time::Wall;
use crate::client::ClientError;
use crate::protocol::rpc::Code;
use crate::sys::clock;
use serde_json::{Map, Value, json};

/// Tasks that are each told of on a line.
const LINES: usize = 20;

/// Said where a selection has found nothing.
const NO_TASK: &str = "no task matches\n";

/// A selection that has found nothing may name a group that does not exist.
fn known_group(args: &Args, source: &mut Source) -> Result<(), Failure> {
    let Some(name) = args.text("group")? else { return Ok(()) };
    let result = source.call("group.list", &json!({}))?;
    let known: Vec<&str> =
        result["groups"].as_array().into_iter().flatten().filter_map(|g| g["name"].as_str()).collect();
    if known.contains(&name) {
        return Ok(());
    }
    let hint = match nearest(name, known.iter().copied()) {
        Some(near) => format!("did you mean {near:?}?"),
        None => format!("groups are {}", known.join(", ")),
    };
    Err(Failure::code(Code::NotFound, format!("there is no group {name:?}")).hint(hint))
}

/// What operands and flags select, as params.
fn selection(args: &Args) -> Result<Map<String, Value>, Failure> {
    let mut params = Map::new();
    if !args.operands.is_empty() {
        params.insert("ids".to_owned(), json!(ids(&args.operands.join(","))?));
    }
    for flag in ["group", "label"] {
        if let Some(text) = args.text(flag)? {
            params.insert(flag.to_owned(), json!(text));
        }
    }
    if let Some(states) = args.text("state")? {
        let states: Vec<&str> = states.split(',').map(str::trim).filter(|s| !s.is_empty()).collect();
        params.insert("state".to_owned(), json!(states));
    }
    let caller = args.text("owner")? == Some("mine") && !args.has("mine");
    if let Some(owner) = if caller { Some("mine".to_owned()) } else { status::owner(args)? } {
        params.insert("owner".to_owned(), json!(owner));
    }
    Ok(params)
}

/// The same for a change, which needs to know what it is about.
fn some(args: &Args) -> Result<Map<String, Value>, Failure> {
    let mut params = selection(args)?;
    match (params.is_empty(), args.has("all")) {
        (true, false) => Err(Failure::usage("which tasks?")
            .hint("give ids or ranges, --group, --state, --label, --owner, --mine or --all")),
        (false, true) => Err(Failure::usage("--all leaves nothing to select")),
        (true, true) => {
            params.insert("all".to_owned(), json!(true));
            Ok(params)
        }
        (false, false) => Ok(params),
    }
}

/// `3 7-9 12,13` as a list for the protocol. Nothing where an id should be is a variable that was not set.
fn ids(text: &str) -> Result<Vec<String>, Failure> {
    let mut all = Vec::new();
    for part in text.split(',') {
        if part.trim().is_empty() {
            return Err(Failure::usage(format!("an id is missing in '{text}'; was a variable not set?")));
        }
        for word in part.split_whitespace() {
            range(word)?;
            all.push(word.to_owned());
        }
    }
    Ok(all)
}

/// The first and the last id of `7` or `7-9`.
fn range(word: &str) -> Result<(u64, u64), Failure> {
    let (first, last) = word.split_once('-').unwrap_or((word, word));
    match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if first > 0 && first <= last => Ok((first, last)),
        _ => Err(Failure::usage(format!("'{word}' is neither the number of a task nor a range such as 12-40"))),
    }
}

/// What a task is to wait for, by flags that may each be given several times; `None` where none is.
fn after(args: &Args) -> Result<Option<Vec<Value>>, Failure> {
    let mut all = Vec::new();
    for (flag, any) in [("after", false), ("after-any", true)] {
        for text in args.texts(flag)? {
            let named = ids(text).map_err(|f| Failure { message: format!("--{flag}: {}", f.message), ..f })?;
            for word in named {
                let (first, last) = range(&word)?;
                if last - first >= TASK_ARRAY_MAX as u64 {
                    return Err(Failure::usage(format!("--{flag}: {word} are more than {TASK_ARRAY_MAX} tasks")));
                }
                all.extend((first..=last).map(|id| json!({ "id": id, "any": any })));
            }
        }
    }
    Ok((!all.is_empty()).then_some(all))
}

/// What the daemon says of the params of a call, in the words of the flags.
fn in_flags(e: ClientError) -> Failure {
    let f = Failure::from(e);
    let hint = f.hint.map(|h| h.replace("{\"id\", \"any\": true} takes any end", "--after-any takes any end"));
    Failure { hint, ..f }
}

fn id(args: &Args) -> Result<u64, Failure> {
    let text = args.operands.first().map_or("", String::as_str);
    text.parse()
        .ok()
        .filter(|id| *id > 0)
        .ok_or_else(|| Failure::usage(format!("'{text}' is not the number of a task")))
}

/// A moment to come. A time of day that has passed is that of tomorrow.
fn moment(args: &Args, flag: &str) -> Result<Option<Wall>, Failure> {
    const DAY: i64 = 86_400_000;
    let Some(text) = args.text(flag)? else { return Ok(None) };
    let now = clock::now().wall;
    if crate::base::units::parse_duration(text).is_ok() {
        return Err(Failure::usage(format!("--{flag}: '{text}' is no moment; --delay takes a time from now")));
    }
    let at = super::since::to_come(text, now).map_err(|e| Failure::usage(format!("--{flag}: {e}")))?;
    let of_day = text.contains(':') && !text.contains('-');
    let at = if of_day && at <= now { Wall(at.0.saturating_add(DAY)) } else { at };
    if at < now {
        let (read, now) = (super::when::whole(at), super::when::whole(now));
        let f =
            Failure::usage(format!("--{flag}: '{text}' is in the past: it was read as {read}, and it is {now} now"));
        return Err(if text.contains(':') { f } else { f.hint("a date alone is 00:00 of that day; add a time to it") });
    }
    Ok(Some(at))
}

/// A state in a sentence.
fn in_words(task: &Value) -> String {
    task["state"].as_str().unwrap_or("?").replace('_', " ")
}

/// The exit code of a task that is over, as a shell would have it.
fn exit_code(task: &Value) -> u8 {
    let code = task["exit_code"].as_i64().and_then(|c| u8::try_from(c & 0xff).ok());
    let signal = task["signal"].as_i64().and_then(|s| u8::try_from(s & 0x7f).ok()).map(|s| s | 0x80);
    let failed = task["state"] != "succeeded";
    match code.or(signal) {
        Some(code) if code != 0 || !failed => code,
        _ => match task["error"].as_str() {
            Some(why) if is_missing(why) => 127,
            Some(_) => 126,
            None => u8::from(failed),
        },
    }
}

/// Whether there is no such program, as opposed to one that cannot be executed, or a folder that cannot be entered.
fn is_missing(why: &str) -> bool {
    let no_such = ["not found in PATH", "No such file or directory"];
    !why.starts_with("cannot enter ") && no_such.iter().any(|words| why.contains(words))
}

/// The command of a task in one line.
pub(super) fn command_line(task: &Value) -> String {
    if let Some(prompt) = task["prompt"].as_str() {
        let line = prompt.lines().next().unwrap_or("");
        return format!("{}: {line}", task["agent"].as_str().unwrap_or("agent"));
    }
    let words: Vec<&str> = task["command"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if let ["/bin/sh", "-c", line] = words[..] {
        return line.to_owned();
    }
    words.iter().map(|w| shell_word(w)).collect::<Vec<_>>().join(" ")
}
