//! Commands that change tasks.

use super::add::labels;
use super::{LINES, NO_TASK, after, id, in_flags, known_group, moment, some};
use crate::cli::flags::Args;
use crate::cli::offline::Source;
use crate::cli::service::finish;
use crate::cli::{Failure, connect, exit};
use serde_json::{Map, Value, json};

/// What is said of a task that was cancelled and is over.
const CANCELLED: &str = "is cancelled";

/// Calls a method for a selection and prints what came of each task.
pub(super) fn prioritize(args: &Args) -> Result<u8, Failure> {
    let Some(n) = args.within("priority", i32::MIN.into(), i32::MAX.into())? else {
        return Err(Failure::usage("which priority?").hint("hob task prioritize IDS --priority N"));
    };
    each(args, "task.prioritize", &format!("has priority {n}"), Some(("priority", json!(n))))
}

fn each(args: &Args, method: &str, done: &str, more: Option<(&str, Value)>) -> Result<u8, Failure> {
    let mut params = some(args)?;
    params.extend(more.map(|(name, value)| (name.to_owned(), value)));
    let mut source = Source::from(connect(args)?);
    let result = source.call(method, &Value::Object(params))?;
    let rows = result["tasks"].as_array().map_or(&[] as &[Value], Vec::as_slice);
    if rows.is_empty() {
        known_group(args, &mut source)?;
    }
    // Of tasks that were named each was meant; a filter takes what there is.
    let named = !args.operands.is_empty();
    finish(args, &result, |r| outcomes(r, done, named))?;
    let refused = rows.iter().any(|t| t["changed"] == false);
    Ok(if refused && named { exit::FAILED } else { exit::OK })
}

/// A line for each task that was named, or that was changed; of very many a number.
fn outcomes(result: &Value, done: &str, named: bool) -> String {
    let rows = result["tasks"].as_array().map_or(&[] as &[Value], Vec::as_slice);
    let (left_out, changed) = (result["left_out"].as_u64().unwrap_or(0), result["changed"].as_u64().unwrap_or(0));
    if left_out > 0 || rows.iter().filter(|t| t["changed"] == true).count() > LINES {
        let all = left_out.saturating_add(u64::try_from(rows.len()).unwrap_or(0));
        let refused = rows.iter().filter(|t| named && t["changed"] == false);
        let mut text: String = refused.map(|t| outcome(t, done)).collect();
        let ending = if rows.iter().any(|t| is_ending(t, done)) { " or is being cancelled" } else { "" };
        text.push_str(&format!("of {all} tasks {changed} changed: each of them {done}{ending}\n"));
        return text;
    }
    let shown = |t: &&Value| named || t["changed"] == true;
    let mut text: String = rows.iter().filter(shown).map(|t| outcome(t, done)).collect();
    let others = rows.len() - rows.iter().filter(shown).count();
    let which = if text.is_empty() { "task" } else { "other" };
    match others {
        0 if text.is_empty() => text.push_str(NO_TASK),
        0 => {}
        1 => text.push_str(&format!("1 {which} left alone\n")),
        n => text.push_str(&format!("{n} {which}s left alone\n")),
    }
    text
}

fn outcome(t: &Value, done: &str) -> String {
    let id = &t["id"];
    match t["message"].as_str() {
        Some(why) => format!("task {id} is left alone: {why}\n"),
        None if is_ending(t, done) => format!("task {id} is being cancelled: its processes are asked to end\n"),
        None => format!("task {id} {done}\n"),
    }
}

/// Whether a task that was cancelled still runs.
fn is_ending(t: &Value, done: &str) -> bool {
    done == CANCELLED && matches!(t["state"].as_str(), Some("running" | "paused"))
}

pub(super) fn cancel(args: &Args) -> Result<u8, Failure> {
    each(args, "task.cancel", CANCELLED, Some(("force", json!(args.has("force")))))
}

pub(super) fn retry(args: &Args) -> Result<u8, Failure> {
    each(args, "task.retry", "is queued again", None)
}

pub(super) fn hold(args: &Args) -> Result<u8, Failure> {
    each(args, "task.hold", "is held", None)
}

pub(super) fn release(args: &Args) -> Result<u8, Failure> {
    each(args, "task.release", "is queued", None)
}

pub(super) fn pause(args: &Args) -> Result<u8, Failure> {
    each(args, "task.pause", "is paused", None)
}

pub(super) fn resume(args: &Args) -> Result<u8, Failure> {
    each(args, "task.resume", "goes on", None)
}

pub(super) fn remove(args: &Args) -> Result<u8, Failure> {
    each(args, "task.remove", "is removed", None)
}

pub(super) fn clean(args: &Args) -> Result<u8, Failure> {
    let mut params = super::selection(args)?;
    if let Some(age) = args.duration("age")? {
        params.insert("age".to_owned(), json!(age.as_secs_f64()));
    }
    let result: Value = connect(args)?.call("task.clean", &Value::Object(params))?;
    finish(args, &result, |r| match r["removed"].as_u64() {
        Some(0) => "nothing to remove\n".to_owned(),
        Some(1) => "1 task is removed\n".to_owned(),
        n => format!("{} tasks are removed\n", n.unwrap_or(0)),
    })
}

pub(super) fn edit(args: &Args) -> Result<u8, Failure> {
    let mut params = Map::new();
    let mut put = |name: &str, value: Value| params.insert(name.to_owned(), value);
    put("id", json!(id(args)?));
    for name in ["group", "prompt"] {
        if let Some(text) = args.text(name)? {
            put(name, json!(text));
        }
    }
    if let Some(cwd) = args.path("cwd") {
        put("cwd", json!(std::path::absolute(cwd)?.to_string_lossy()));
    }
    if let Some(n) = args.within("priority", i32::MIN.into(), i32::MAX.into())? {
        put("priority", json!(n));
    }
    for name in ["retries", "weight"] {
        if let Some(n) = args.number(name)? {
            put(name, json!(n));
        }
    }
    for name in ["delay", "timeout"] {
        if let Some(d) = args.duration(name)? {
            put(name, json!(d.as_secs_f64()));
        }
    }
    if let Some(at) = moment(args, "at")? {
        put("at", json!(at.0));
    }
    let (after, labels) = (after(args)?, labels(args)?);
    if args.has("no-after") && after.is_some() || args.has("no-labels") && !labels.is_empty() {
        return Err(Failure::usage("give what it is to follow, or its labels, or the flag that takes them away"));
    }
    if args.has("no-after") || after.is_some() {
        put("after", json!(after.unwrap_or_default()));
    }
    if args.has("no-labels") || !labels.is_empty() {
        put("labels", Value::Object(labels));
    }
    if !args.rest.is_empty() {
        let words: Option<Vec<&str>> = args.rest.iter().map(|w| w.to_str()).collect();
        put("command", json!(words.ok_or_else(|| Failure::usage("the command is not UTF-8, which tasks need"))?));
    }
    if params.len() == 1 {
        return Err(Failure::usage("what is to be changed?").hint("give a flag such as --priority N, or -- COMMAND"));
    }
    let result: Value = connect(args)?.call("task.edit", &Value::Object(params)).map_err(in_flags)?;
    finish(args, &result, |r| format!("task {} is changed\n", r["id"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selection_tells_of_what_changed_and_counts_the_rest() {
        let row = |id: u64, why: Option<&str>| json!({ "id": id, "changed": why.is_none(), "message": why });
        let rows = [row(1, Some("it has succeeded")), row(2, None), row(3, Some("it has timed out"))];
        let said = |rows: &[Value], named| outcomes(&json!({ "tasks": rows, "left_out": 0 }), "is held", named);
        assert_eq!(said(&rows, false), "task 2 is held\n2 others left alone\n");
        assert_eq!(said(&rows[..1], false), "1 task left alone\n");
        assert_eq!(said(&[], false), "no task matches\n");
        let named = "task 2 is held\ntask 3 is left alone: it has timed out\n";
        assert_eq!(said(&rows[1..], true), named);
        let many = json!({ "tasks": rows, "changed": 4998, "left_out": 4997 });
        let counted = "of 5000 tasks 4998 changed: each of them is held\n";
        assert_eq!(outcomes(&many, "is held", false), counted);
        let rows: Vec<Value> = (1..=21).map(|id| row(id, (id == 3).then_some("it is over"))).collect();
        let said = |n: usize| outcomes(&json!({ "tasks": rows[..n], "changed": n - 1 }), "is held", true);
        assert_eq!(said(21).lines().count(), 21);
        let rows: Vec<Value> = (1..=22).map(|id| row(id, (id == 3).then_some("it is over"))).collect();
        let said = outcomes(&json!({ "tasks": rows, "changed": 21 }), "is held", true);
        assert_eq!(said, "task 3 is left alone: it is over\nof 22 tasks 21 changed: each of them is held\n");
        let refused = "task 1 is left alone: it has succeeded\ntask 3 is left alone: it has timed out\n";
        assert_eq!(outcomes(&many, "is held", true), format!("{refused}{counted}"));
    }
}
