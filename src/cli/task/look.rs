//! Commands that show tasks, and that wait for them.

use super::{LINES, NO_TASK, command_line, exit_code, id, in_words, known_group, selection};
use crate::base::text::{visible_json, visible_line};
use crate::base::units;
use crate::cli::flags::Args;
use crate::cli::logs::query;
use crate::cli::offline::{Source, ask, left_files, say_held};
use crate::cli::render::{Paint, Table, colours, lasted, masked};
use crate::cli::service::finish;
use crate::cli::{Failure, connect, connect_to_follow, exit, no_more, progress, story, users, when};
use crate::client::{Client, ClientError, LogAsk, LogChunk};
use crate::daemon::logs::read_files;
use crate::protocol::rpc::Code;
use crate::sys::terminal;
use core::time::Duration;
use serde_json::{Value, json};
use std::io::{self, Write};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Instant;

/// Tasks that a list shows unless it is asked for more.
const SHOWN: usize = 100;
/// Tasks of one page.
const PAGE: usize = 1000;
/// How often a wait on a terminal tells how far it is.
const PROGRESS: Duration = Duration::from_millis(500);

/// How long output is followed on without anybody who tells it, and how long until it is asked for again.
const PATIENCE: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_millis(50);

/// What came of waiting for a task.
type Waited = Result<Value, ClientError>;

fn rows(r: &Value) -> impl Iterator<Item = &Value> {
    r["tasks"].as_array().into_iter().flatten()
}

pub(super) fn list(args: &Args) -> Result<u8, Failure> {
    let mut source = ask(args)?;
    let mut params = selection(args)?;
    let limit = args.number("limit")?.unwrap_or(SHOWN);
    if limit == 0 && !args.has("all") {
        // A page of the protocol has one task at least.
        return finish(args, &json!({ "tasks": [], "next": null }), |_| String::new());
    }
    if !args.has("all") {
        params.insert("limit".to_owned(), json!(limit));
        params.insert("last".to_owned(), json!(true));
        let result = source.call("task.list", &Value::Object(params))?;
        return listed(args, &mut source, &result);
    }
    params.insert("limit".to_owned(), json!(PAGE));
    let mut all = Vec::new();
    loop {
        let mut page = source.call("task.list", &Value::Object(params.clone()))?;
        all.append(page["tasks"].as_array_mut().unwrap_or(&mut Vec::new()));
        if page["next"].is_null() {
            break;
        }
        params.insert("after".to_owned(), page["next"].clone());
    }
    listed(args, &mut source, &json!({ "tasks": all, "next": null }))
}

fn listed(args: &Args, source: &mut Source, result: &Value) -> Result<u8, Failure> {
    if rows(result).next().is_some() {
        return finish(args, result, table);
    }
    known_group(args, source)?;
    let all = selection(args)?.is_empty();
    let none = if all { "there are no tasks; 'hob add -- COMMAND' queues one\n" } else { NO_TASK };
    finish(args, result, |_| none.to_owned())
}

fn table(r: &Value) -> String {
    let paint = Paint { on: colours() };
    let mut t = Table::default();
    t.row().number("ID").cell("STATE").cell("GROUP").cell("SINCE").number("TOOK").cell("COMMAND").cell("NOTE");
    for task in rows(r) {
        let state = task["state"].as_str().unwrap_or("?");
        let since = ["ended", "started", "submitted"].iter().find_map(|k| task[*k].as_str()).map(when::moment);
        let took =
            task["duration_ms"].as_u64().map_or(String::new(), |ms| lasted(Duration::from_millis(ms).as_secs_f64()));
        t.row().number(task["id"].to_string()).painted(state, paint.state(state, state));
        t.cell(task["group"].as_str().unwrap_or("")).cell(since.unwrap_or_default()).number(took);
        t.cell(short(&command_line(task), 48)).cell(note(task));
    }
    t.print_within(terminal::columns())
}

fn short(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most - 3).collect::<String>() + "..."
}

fn note(task: &Value) -> String {
    let mut notes = Vec::new();
    match (task["exit_code"].as_i64(), task["signal_name"].as_str(), task["error"].as_str()) {
        (Some(code), ..) if code != 0 => notes.push(format!("exit code {code}")),
        (_, Some(signal), _) => notes.push(format!("killed by {signal}")),
        (_, _, Some(error)) => notes.push(error.to_owned()),
        _ => {}
    }
    if let Some(n) =
        task["priority"].as_i64().filter(|n| *n != 0 && matches!(task["state"].as_str(), Some("held" | "queued")))
    {
        notes.push(format!("priority {n}"));
    }
    notes.extend(task["why"].as_str().map(when::moments));
    if task["over_limit"] == true {
        notes.push("output over its limit".to_owned());
    }
    if let Some(n) = task["attempts"].as_u64().filter(|n| *n > 1) {
        notes.push(format!("attempt {n}"));
    }
    notes.join("; ")
}

pub(super) fn show(args: &Args) -> Result<u8, Failure> {
    let mut source = ask(args)?;
    let result = source.call("task.get", &json!({ "id": id(args)? }))?;
    finish(args, &result, |t| details(t, source.is_files(), &story::flags(args)))
}

/// `left`: as hob left it; `flags`: by which this hob is found.
fn details(t: &Value, left: bool, flags: &str) -> String {
    let paint = Paint { on: colours() };
    let state = t["state"].as_str().unwrap_or("?");
    let verb = match state {
        "succeeded" | "failed" | "timed_out" => "",
        "cancelled" => "was ",
        "running" | "paused" if left => "was ",
        _ => "is ",
    };
    let mut text = format!("task {} {verb}{}", t["id"], paint.state(state, &in_words(t)));
    let note = note(t);
    if !note.is_empty() {
        text.push_str(&format!(": {note}"));
    }
    text.push_str("\n\n");
    let mut line = |name: &str, value: String| {
        if !value.is_empty() {
            text.push_str(&format!("  {name:<12} {value}\n"));
        }
    };
    let string = |name: &str| t[name].as_str().unwrap_or("").to_owned();
    let prompt = t["whole_prompt"].as_str().unwrap_or_default();
    let lines_of_it = prompt.lines().count();
    let first = prompt.lines().next().map(|l| if lines_of_it > 1 { format!("{l} ...") } else { l.to_owned() });
    line("command", first.unwrap_or_else(|| command_line(t)));
    line("folder", string("cwd"));
    let runner = t["runner"].as_str().map_or(String::new(), |r| format!(", runner {r}"));
    line("group", format!("{}, priority {}, weight {}{runner}", string("group"), t["priority"], t["weight"]));
    let owner = string("owner");
    line("owner", owner.parse().map_or_else(|_| owner.clone(), users::name));
    let labels = t["labels"].as_object().into_iter().flatten();
    line("labels", labels.map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or(""))).collect::<Vec<_>>().join(" "));
    line("key", string("key"));
    let after = t["after"].as_array().into_iter().flatten();
    line("after", after.map(|a| a["id"].to_string()).collect::<Vec<_>>().join(", "));
    for name in ["submitted", "not_before", "started", "ended"] {
        line(&name.replace('_', " "), when::moments(&string(name)));
    }
    let ms = |name: &str| t[name].as_u64().map(|ms| lasted(Duration::from_millis(ms).as_secs_f64()));
    line("took", ms("duration_ms").unwrap_or_default());
    line("CPU time", ms("cpu_ms").unwrap_or_default());
    line("peak memory", t["memory"].as_u64().map_or(String::new(), units::human_size));
    line("output", t["output_bytes"].as_u64().map_or(String::new(), units::human_size));
    let limit = t["timeout_ms"]
        .as_u64()
        .filter(|ms| *ms > 0)
        .map_or("for ever".to_owned(), |_| ms("timeout_ms").unwrap_or_default());
    line("may run", limit);
    line("attempts", format!("{}, {} allowed", t["attempts"], plural(&t["retries"], "retry", "retries")));
    line("pid", t["pid"].as_u64().map_or(String::new(), |p| p.to_string()));
    let whole: Vec<&str> = if lines_of_it > 1 { prompt.lines().collect() } else { Vec::new() };
    let last: Vec<&str> = t["last_lines"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (title, lines) in [("prompt", whole), ("last output", last)] {
        if !lines.is_empty() {
            text.push_str(&format!("\n  {title}\n"));
            lines.iter().for_each(|l| text.push_str(&format!("    | {}\n", visible_line(l))));
        }
    }
    let next = match state {
        "held" | "queued" | "running" | "paused" if left => "start".to_owned(),
        "held" => format!("task release {}", t["id"]),
        "queued" | "running" => format!("task cancel {}", t["id"]),
        "paused" => format!("task resume {}", t["id"]),
        "succeeded" => format!("task output {}", t["id"]),
        _ => format!("task retry {}", t["id"]),
    };
    text.push_str(&format!("\n  what you can do: hob{flags} {next}\n"));
    text
}

pub(super) fn stats(args: &Args) -> Result<u8, Failure> {
    let result = ask(args)?.call("task.stats", &json!({}))?;
    finish(args, &result, |r| {
        let mut t = Table::default();
        for (state, count) in r.as_object().into_iter().flatten().filter(|(_, n)| n.as_u64() != Some(0)) {
            t.row().cell(state.as_str()).number(count.to_string());
        }
        let text = t.print();
        if text.is_empty() { "there are no tasks\n".to_owned() } else { text }
    })
}

pub(super) fn wait(args: &Args) -> Result<u8, Failure> {
    let mut params = selection(args)?;
    let limit = args.duration("timeout")?;
    let (mut line, shown) = (progress::Line::default(), progress::wanted(args));
    let began = Instant::now();
    let mut source = Source::from(connect(args)?);
    let result = loop {
        let left = limit.map(|l| l.saturating_sub(began.elapsed()));
        let step = if shown { Some(left.map_or(PROGRESS, |l| l.min(PROGRESS))) } else { left };
        if let Some(step) = step {
            params.insert("timeout".to_owned(), json!(step.as_secs_f64()));
        }
        let result = source.call("task.wait", &Value::Object(params.clone()))?;
        let late = left.is_some_and(|l| l <= step.unwrap_or(l));
        if shown {
            line.show(&how_far(&result));
        }
        if result["done"] == true || late {
            break result;
        }
    };
    drop(line);
    if rows(&result).next().is_none() {
        known_group(args, &mut source)?;
        return finish(args, &result, |_| NO_TASK.to_owned());
    }
    finish(args, &result, |r| {
        let mut text = table(r);
        match r["left_out"].as_u64() {
            None | Some(0) => {}
            Some(n) => text.push_str(&format!("and {n} more; 'hob task list' shows them by pages\n")),
        }
        text
    })?;
    if result["done"] != true {
        crate::cli::complain(&unfinished(&result, limit.unwrap_or_default()), None);
        return Ok(exit::TIMED_OUT);
    }
    Ok(if counted(&result, |state| state != "succeeded") == 0 { exit::OK } else { exit::FAILED })
}

/// Names on standard error those of several tasks that are over without success; the exit code.
pub(super) fn told_of_failures(args: &Args, result: &Value) -> u8 {
    let (all, failed) = (counted(result, |_| true), counted(result, |state| state != "succeeded"));
    if failed == 0 {
        return exit::OK;
    }
    let mut lines: Vec<String> = rows(result).filter(|t| t["state"] != "succeeded").take(LINES).map(ended).collect();
    let more = failed.saturating_sub(u64::try_from(lines.len()).unwrap_or(failed));
    if more > 0 {
        lines.push(format!("and {more} more: hob task list --state failed,timed_out,cancelled,lost"));
    }
    if !args.has("quiet") {
        let ran = rows(result).any(|t| t["state"] != "succeeded" && t["attempts"] != 0);
        let seen = if ran { "; 'hob task output ID' shows what one wrote" } else { "" };
        let what = format!("{failed} of {all} tasks did not succeed{seen}");
        crate::cli::complain_lines(&what, Some(&lines.join("\n     ")));
    }
    exit::FAILED
}

/// How many of the tasks that a wait is for are in states of a kind.
fn counted(result: &Value, is_it: impl Fn(&str) -> bool) -> u64 {
    let counts = result["counts"].as_object().into_iter().flatten();
    counts.filter(|(state, _)| is_it(state)).filter_map(|(_, n)| n.as_u64()).sum()
}

fn is_open(state: &str) -> bool {
    matches!(state, "held" | "queued" | "running" | "paused")
}

/// What a wait that has taken too long has come to.
fn unfinished(result: &Value, limit: Duration) -> String {
    let (all, open) = (counted(result, |_| true), counted(result, is_open));
    let limit = units::human_duration(limit);
    match rows(result).find(|t| t["state"].as_str().is_some_and(is_open)) {
        Some(one) if open == 1 => format!("task {} is still {} after {limit}", one["id"], in_words(one)),
        _ => format!("{open} of {all} tasks are not over after {limit}"),
    }
}

/// How far a wait is, and where nothing runs, what it is that does not come.
fn how_far(result: &Value) -> String {
    let (all, open) = (counted(result, |_| true), counted(result, is_open));
    let (done, running) = (all - open, counted(result, |state| state == "running"));
    let text = format!("{done} of {all} tasks are over, {running} run ...");
    match rows(result).find(|t| t["state"].as_str().is_some_and(is_open)) {
        Some(first) if running == 0 => format!("{text} {}", awaited(first)),
        _ => text,
    }
}

/// What a task that has not begun or does not go on waits for: `task 7 is held; hob task release 7`.
pub(super) fn awaited(task: &Value) -> String {
    let task = &masked(task);
    let id = &task["id"];
    let todo = match task["state"].as_str() {
        Some("held") => format!("; hob task release {id}"),
        Some("paused") => format!("; hob task resume {id}"),
        _ => String::new(),
    };
    let why = task["why"].as_str().map(|why| format!(": {}", when::moments(why))).unwrap_or_default();
    format!("task {id} is {}{why}{todo}", in_words(task))
}

pub(super) fn output(args: &Args) -> Result<u8, Failure> {
    let (id, lines) = (id(args)?, args.number("lines")?.map(|n| n as u64));
    let mut client = match connect(args) {
        Ok(client) => client,
        Err(why) if args.has("follow") => return Err(why),
        Err(why) => return kept(args, id, lines, why),
    };
    if args.has("follow") {
        crate::cli::end_with_reader();
        return follow(args, &mut client, id, lines);
    }
    let written = copy(args, &client, id, lines)?;
    if !written && !args.has("json") {
        wrote_nothing(args, &client.call("task.get", &json!({ "id": id }))?);
    }
    Ok(exit::OK)
}

/// `1 retry`, `2 retries`.
fn plural(n: &Value, one: &str, many: &str) -> String {
    format!("{n} {}", if *n == 1 { one } else { many })
}

/// Why there is no output.
fn wrote_nothing(args: &Args, task: &Value) {
    let id = &task["id"];
    let last = task["last_lines"].as_array().and_then(|lines| lines.last()?.as_str());
    match last.filter(|l| l.starts_with("[hob: ") && l.ends_with(" dropped]")) {
        Some(lost) => crate::cli::note(args, &format!("hob: the output of task {id} could not be kept: {lost}")),
        None if task["attempts"] == 0 => {
            let state = in_words(task);
            crate::cli::note(args, &format!("hob: task {id} has not run, so it wrote nothing; its state is {state}"));
        }
        None => {}
    }
}

/// The same from its file, which nobody writes to. `why`: nobody answers.
fn kept(args: &Args, id: u64, lines: Option<u64>, why: Failure) -> Result<u8, Failure> {
    let Some(paths) = left_files(args, &why) else { return Err(why) };
    let path = paths.logs.join(format!("tasks/{id}.log"));
    if !path.exists() {
        // It may be there without output.
        let task = ask(args)?.call("task.get", &json!({ "id": id }))?;
        wrote_nothing(args, &task);
        return Ok(exit::OK);
    }
    say_held(args, &why);
    let mut shown = Shown::new(args, id);
    read_files(path, &query(&LogAsk { lines, ..LogAsk::default() }), |piece| shown.data(&piece.bytes))?;
    shown.end()?;
    Ok(exit::OK)
}

/// Shows the output of a task until that is over; its exit code.
pub(super) fn follow(args: &Args, client: &mut Client, id: u64, lines: Option<u64>) -> Result<u8, Failure> {
    let (answer, end) = mpsc::channel();
    // Asked before anything is shown: the answer comes also where hob itself ends with the task.
    let mut waiter = connect_to_follow(args)?;
    std::thread::spawn(move || {
        let answered = loop {
            match waiter.call::<Value>("task.wait", &json!({ "ids": id })) {
                // It waits on if hob is started again.
                Err(e) if e.code() == Some(Code::ShuttingDown) => std::thread::sleep(AGAIN),
                answered => break answered,
            }
        };
        let _ = answer.send(answered);
    });
    let (written, done) = copy_to_end(args, id, lines, &end)?;
    let done = match done {
        Some(done) => done,
        None => end.recv().unwrap_or(Err(ClientError::Closed)).map_err(|e| no_more(args, e))?,
    };
    let task = &done["tasks"][0];
    if !written && !args.has("json") {
        // Where hob has ended as well, the row has to do.
        wrote_nothing(args, client.call_once("task.get", &json!({ "id": id })).as_ref().unwrap_or(task));
    }
    // What no code of its own tells is said.
    if task["state"] != "succeeded" && task["exit_code"].is_null() {
        crate::cli::complain(&ended(task), None);
    }
    Ok(exit_code(task))
}

/// `task 6 failed: exit code 4`.
pub(super) fn ended(task: &Value) -> String {
    let task = &masked(task);
    let (state, why) = (in_words(task), note(task));
    let was = if state == "cancelled" { "was " } else { "" };
    let why = if why.is_empty() { why } else { format!(": {why}") };
    format!("task {} {was}{state}{why}", task["id"])
}

/// Shows it as it is, or as an object for each line. Whether there was anything.
fn copy(args: &Args, client: &Client, id: u64, lines: Option<u64>) -> Result<bool, Failure> {
    let mut shown = Shown::new(args, id);
    for chunk in client.logs_of(LogAsk { task: Some(id), lines, ..LogAsk::default() })? {
        match chunk? {
            LogChunk::Data { bytes, .. } => shown.data(&bytes)?,
            LogChunk::Gap { dropped, .. } => shown.gap(dropped)?,
        }
    }
    Ok(shown.end()?)
}

/// The same until the task is over. With the answer to a wait for the task, where nobody is there any more to tell the
/// rest of its output.
fn copy_to_end(
    args: &Args,
    id: u64,
    lines: Option<u64>,
    end: &Receiver<Waited>,
) -> Result<(bool, Option<Value>), Failure> {
    let mut client = connect(args)?;
    // Who is to end with the task cannot be patient with a hob that does not come back.
    client.set_patience(Duration::ZERO);
    let mut shown = Shown::new(args, id);
    let (mut at, mut lost, mut done): (Option<u64>, Option<Instant>, Option<Value>) = (None, None, None);
    loop {
        // What was shown is left out when another daemon tells it again.
        let lines = lines.filter(|_| at.is_none());
        let e = match show_more(
            &client,
            LogAsk { task: Some(id), lines, follow: true, ..LogAsk::default() },
            &mut shown,
            &mut at,
        ) {
            Ok(()) => return Ok((shown.end()?, done)),
            Err(Ended::Lost { heard, why }) => {
                lost = lost.filter(|_| !heard);
                why
            }
            Err(Ended::Other(f)) => return Err(f),
        };
        let since = *lost.get_or_insert_with(Instant::now);
        match end.recv_timeout(AGAIN) {
            Ok(answer) => done = Some(answer.map_err(|e| no_more(args, e))?),
            Err(RecvTimeoutError::Disconnected) => std::thread::sleep(AGAIN),
            Err(RecvTimeoutError::Timeout) => {}
        }
        // One that comes back has the rest of it; a hob that has ended does not.
        let is_left = since.elapsed() > PATIENCE;
        match &done {
            Some(_) if is_left || connect(args).is_err() => return Ok((shown.end()?, done)),
            None if is_left => return Err(e.into()),
            _ => {}
        }
    }
}

/// Why no more can be shown.
enum Ended {
    /// Nobody answers any more; `heard`: somebody has.
    Lost {
        heard: bool,
        why: ClientError,
    },
    Other(Failure),
}

/// Shows what lies behind the position `at`, and takes that along.
fn show_more(client: &Client, ask: LogAsk, shown: &mut Shown, at: &mut Option<u64>) -> Result<(), Ended> {
    let other = |e: io::Error| Ended::Other(e.into());
    let lost = |heard: bool| {
        move |why: ClientError| match why {
            ClientError::Closed | ClientError::Ended | ClientError::Io(_) => Ended::Lost { heard, why },
            ClientError::Rpc(_) | ClientError::Unexpected(_) | ClientError::NotStarted(_) => Ended::Other(why.into()),
        }
    };
    let mut stream = client.logs_of(ask).map_err(lost(false))?;
    let resumed = *at;
    while let Some(chunk) = stream.next() {
        let before = *at;
        match chunk.map_err(lost(true))? {
            LogChunk::Data { position, bytes, .. } => {
                let known = before.map_or(0, |at| usize::try_from(at.saturating_sub(position)).unwrap_or(usize::MAX));
                let end = position.saturating_add(bytes.len() as u64);
                if let Some(new) = bytes.get(known..).filter(|new| !new.is_empty()) {
                    shown.data(new).map_err(other)?;
                }
                *at = Some(before.unwrap_or(0).max(end));
            }
            LogChunk::Gap { dropped, .. } => {
                // The place behind it, where more is to come; the rest of what an earlier daemon told of otherwise.
                let next = stream.positions().next().map(|(_, next)| next);
                let new = match (resumed.and(before), next) {
                    (Some(before), Some(next)) => dropped.min(next.saturating_sub(before)),
                    _ => dropped,
                };
                if new > 0 {
                    shown.gap(new).map_err(other)?;
                }
                *at = next.max(before);
            }
        }
    }
    Ok(())
}

/// The output of a task on its way to standard output.
struct Shown {
    id: u64,
    json: bool,
    out: io::StdoutLock<'static>,
    /// A line that has not ended.
    open: Vec<u8>,
    /// What was written last ended a line.
    at_start: bool,
    written: bool,
}

impl Shown {
    fn new(args: &Args, id: u64) -> Shown {
        Shown { id, json: args.has("json"), out: io::stdout().lock(), open: Vec::new(), at_start: true, written: false }
    }

    fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written = true;
        if !self.json {
            self.at_start = bytes.last().map_or(self.at_start, |b| *b == b'\n');
            self.out.write_all(bytes)?;
            return self.out.flush();
        }
        self.open.extend_from_slice(bytes);
        while let Some(end) = self.open.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.open.drain(..=end).collect();
            self.line(&line[..end])?;
        }
        self.out.flush()
    }

    fn line(&mut self, line: &[u8]) -> io::Result<()> {
        let object = json!({ "id": self.id, "line": String::from_utf8_lossy(line) });
        writeln!(self.out, "{}", visible_json(&object.to_string()))
    }

    fn gap(&mut self, dropped: u64) -> io::Result<()> {
        self.written = true;
        if self.json {
            self.open_line()?;
            writeln!(self.out, "{}", json!({ "id": self.id, "dropped": dropped }))?;
        } else {
            let start = if self.at_start { "" } else { "\n" };
            writeln!(self.out, "{start}[hob: {dropped} bytes were over the limit and are gone]")?;
            self.at_start = true;
        }
        self.out.flush()
    }

    /// The line that has not ended, as one of its own.
    fn open_line(&mut self) -> io::Result<()> {
        let last = core::mem::take(&mut self.open);
        if last.is_empty() { Ok(()) } else { self.line(&last) }
    }

    /// Whether there was anything.
    fn end(mut self) -> io::Result<bool> {
        self.open_line()?;
        Ok(self.written)
    }
}
