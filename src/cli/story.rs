//! `hob why NAME` and `hob status NAME`: one service, job or task, told to a person.

use super::flags::Args;
use super::offline::ask;
use super::render::{Paint, ago, colours, masked, wrapped};
use super::service::finish;
use super::{Failure, connect_to_ask, print_painted, users, when};
use crate::base::text::{shell_word, visible_line};
use crate::base::units;
use crate::sys::terminal;
use serde_json::{Value, json};

pub(crate) fn why(args: &Args) -> Result<u8, Failure> {
    let name = args.operands.first().map_or("", String::as_str);
    let mut source = ask(args)?;
    let mut result = source.call("daemon.why", &json!({ "name": name }))?;
    if source.is_files() {
        match result["instances"].as_array_mut() {
            Some(all) => all.iter_mut().for_each(at_rest),
            None => at_rest(&mut result),
        }
    }
    let teller = Teller::new(args);
    let one = |r: &Value| teller.summary(r) + &teller.story(r);
    finish(args, &result, |r| match r["instances"].as_array() {
        None => one(r),
        Some(all) => all.iter().map(one).collect::<Vec<_>>().join("\n"),
    })
}

/// Nothing follows from what only files tell, and they do not tell what goes on.
fn at_rest(r: &mut Value) {
    if matches!(r["state"].as_str(), Some("starting" | "running" | "stopping" | "paused")) {
        let name =
            r["id"].as_u64().map_or_else(|| r["name"].as_str().unwrap_or("?").to_owned(), |id| format!("task {id}"));
        r["summary"] = json!(format!("{name} was {} when hob was last seen", r["state"].as_str().unwrap_or("?")));
    }
    r["next"] = json!("nothing, while hob does not run");
    r["todo"] = json!(["hob start  # then ask again"]);
}

/// Everything about one service: how it is, what it is, and its story. A name that means several shows them in a table.
pub(crate) fn one(args: &Args, name: &str, table: fn(&Value) -> String) -> Result<u8, Failure> {
    let mut client = connect_to_ask(args)?;
    let service: Value = client.call("service.get", &json!({ "name": name }))?;
    if args.has("json") || args.has("quiet") {
        return finish(args, &service, |_| String::new());
    }
    if service["instances"].is_array() {
        return finish(args, &json!({ "services": service["instances"] }), table);
    }
    let story: Value = client.call("daemon.why", &json!({ "name": name }))?;
    let (service, story) = (masked(&service), masked(&story));
    let teller = Teller::new(args);
    let facts = teller.facts(service.get("service").unwrap_or(&service));
    print_painted(&format!("{}\n{facts}{}", teller.summary(&story), teller.story(&story)))?;
    let failed = service.get("service").unwrap_or(&service)["state"] == "failed";
    Ok(if failed { super::exit::FAILED } else { super::exit::OK })
}

/// The flags by which a command of the same hob is found.
pub(super) fn flags(args: &Args) -> String {
    let mut flags = String::new();
    for flag in ["home", "config", "socket"] {
        if let Some(value) = args.path(flag) {
            flags.push_str(&format!(" --{flag} {}", shell_word(&visible_line(&value.display().to_string()))));
        }
    }
    flags
}

/// How the text is laid out, and which flags its commands need.
struct Teller {
    paint: Paint,
    columns: Option<usize>,
    /// What stands between `hob` and the command, so that a command can be copied as it is.
    flags: String,
}

impl Teller {
    fn new(args: &Args) -> Teller {
        Teller { paint: Paint { on: colours() }, columns: terminal::columns(), flags: flags(args) }
    }

    /// One sentence, its subject in the colour of the state.
    fn summary(&self, r: &Value) -> String {
        let text = |k: &str| r[k].as_str().unwrap_or("?");
        let (task, state) = (r["id"].as_u64().map(|id| format!("task {id}")), text("state"));
        let name = task.as_deref().unwrap_or_else(|| text("name"));
        let sentence = wrapped(&users::named(&when::moments(text("summary"))), 0, 0, self.columns);
        match sentence.strip_prefix(name) {
            Some(rest) => format!("{}{rest}\n", self.paint.strong_state(state, name)),
            None => format!("{} {sentence}\n", self.paint.strong_state(state, name)),
        }
    }

    fn facts(&self, s: &Value) -> String {
        let mut out = String::new();
        for (key, value) in facts(s) {
            let value = wrapped(&users::named(&value), 2 + KEY, 2 + KEY, self.columns);
            out.push_str(&format!("  {}{}\n", self.paint.colour("2", &format!("{key:KEY$}")), value.trim_start()));
        }
        out
    }

    fn story(&self, r: &Value) -> String {
        let mut out = String::new();
        let happened = self.happened(&texts(&r["story"]));
        let next = texts(&r["next"]);
        let next = next.iter().map(|l| format!("{}\n", wrapped(&when::moments(l), 2, 2, self.columns))).collect();
        let todo = texts(&r["todo"]).iter().map(|l| self.advice(l)).collect();
        for (title, body) in [("What happened", happened), ("What comes next", next), ("What you can do", todo)] {
            if !body.is_empty() {
                out.push_str(&format!("\n{}\n{body}", self.paint.colour("1", title)));
            }
        }
        out
    }

    /// Times in a column of their own; what has none stands beside it.
    fn happened(&self, lines: &[&str]) -> String {
        let times: Vec<_> = lines.iter().map(|l| when::leading(l)).collect();
        let width = times.iter().flatten().map(|(t, _)| t.chars().count() + 2).max().unwrap_or(0);
        let mut out = String::new();
        for (line, time) in lines.iter().zip(times) {
            if let Some(output) = line.strip_prefix("  | ") {
                let bar = self.paint.colour("2", "|");
                out.push_str(&format!("  {:width$}  {bar} {output}\n", ""));
                continue;
            }
            let (time, text) = time.map_or((String::new(), *line), |(t, rest)| (t, rest.trim_start_matches(": ")));
            let text = users::named(&when::moments(text.trim_start()));
            let text = wrapped(&text, 2 + width, 2 + width, self.columns);
            let time = self.paint.colour("2", &format!("{time:width$}"));
            out.push_str(&format!("  {time}{}\n", text.trim_start()));
        }
        out
    }

    /// A command to copy, with what it is for behind it; or a piece of advice.
    fn advice(&self, line: &str) -> String {
        let Some(rest) = line.strip_prefix("hob ") else {
            return format!("{}\n", wrapped(line, 2, 2, self.columns));
        };
        let (command, remark) = rest.split_once("  # ").unwrap_or((rest, ""));
        let command = format!("hob{} {command}", self.flags);
        let remark = if remark.is_empty() { String::new() } else { format!("  # {remark}") };
        format!("  {}{}\n", command, self.paint.colour("2", &remark))
    }
}

/// Width of the column of keys.
const KEY: usize = 12;

fn facts(s: &Value) -> Vec<(&'static str, String)> {
    let text = |k: &str| s[k].as_str().unwrap_or("?");
    let number = |k: &str| s[k].as_u64().unwrap_or(0);
    let since = if s["since"].is_string() { format!(" since {}", when::moment(text("since"))) } else { String::new() };
    let flapping = if s["flapping"] == true { ", flapping" } else { "" };
    let transient = if s["transient"] == true { ", transient" } else { "" };
    let mut out = vec![("State", format!("{}{since}{flapping}{transient}", text("state")))];
    if let Some(pid) = s["pid"].as_u64() {
        let up = s["uptime_secs"].as_f64().map_or_else(String::new, |u| format!(", up {}", ago(u)));
        let memory = s["memory"].as_u64().map_or_else(String::new, |m| format!(", {} of memory", units::human_size(m)));
        let cpu = s["cpu_secs"].as_f64().map_or_else(String::new, |c| format!(", {c:.2} s of CPU"));
        out.push(("Process", format!("pid {pid}{up}{memory}{cpu}")));
    }
    let in_a_row = number("restarts_in_a_row");
    let row = if in_a_row > 0 { format!(", {in_a_row} in a row") } else { String::new() };
    out.push(("Restarts", format!("{}{row}", number("restarts"))));
    if let Some(error) = s["last_error"].as_str() {
        out.push(("Last error", error.to_owned()));
    }
    let words: Vec<String> = texts(&s["command"]).iter().map(|w| shell_word(w)).collect();
    let command = match words.as_slice() {
        [sh, dash_c, _] if sh == "/bin/sh" && dash_c == "-c" => {
            texts(&s["command"]).last().map_or("", |w| w).to_owned()
        }
        _ => words.join(" "),
    };
    out.push(("Command", command));
    let autostart = match (s["autostart"] == true, s["on_demand"] == true) {
        (true, false) => "with hob",
        (true, true) => "with the first connection",
        (false, false) => "by hand",
        (false, true) => "with the first connection, once started by hand",
    };
    let wish = match (s["wished_by"].as_str(), s["needed_by"].as_str()) {
        (Some(by), _) if s["overridden"] == true => format!("; {by} wants it {}", text("desired")),
        (None, Some(of)) => format!("; {of} needs it"),
        _ => String::new(),
    };
    out.push(("Starts", format!("{autostart}, again {}{wish}", restart_words(text("restart")))));
    let sockets: Vec<String> = s["sockets"].as_array().into_iter().flatten().map(socket).collect();
    if !sockets.is_empty() {
        out.push(("Listens on", sockets.join(", ")));
    }
    for (key, title) in [("requires", "Requires"), ("wants", "Wants"), ("after", "After"), ("dependants", "Needed by")]
    {
        let names = texts(&s[key]);
        if !names.is_empty() {
            out.push((title, names.join(", ")));
        }
    }
    out
}

fn socket(s: &Value) -> String {
    let closed = if s["open"] == true { "" } else { ", closed" };
    format!("{} ({}{closed})", s["address"].as_str().unwrap_or("?"), s["name"].as_str().unwrap_or("?"))
}

fn restart_words(policy: &str) -> &'static str {
    match policy {
        "always" => "whenever it ends",
        "never" => "never",
        _ => "when it fails",
    }
}

fn texts(value: &Value) -> Vec<&str> {
    match value {
        Value::String(s) if !s.is_empty() => vec![s],
        Value::Array(a) => a.iter().filter_map(|v| v.as_str().or_else(|| v["name"].as_str())).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn teller(columns: Option<usize>) -> Teller {
        Teller { paint: Paint { on: false }, columns, flags: " --home /h".to_owned() }
    }

    #[test]
    fn times_stand_in_a_column_and_output_under_its_line() {
        let lines = ["2 earlier runs", "2001-02-03T04:05:06.789Z: run 3 ended after 2 s: exit code 1", "  | oops"];
        let text = teller(None).happened(&lines);
        let shown: Vec<&str> = text.lines().collect();
        let column = shown[1].find("run 3").unwrap();
        assert_eq!(shown[0].trim_start(), "2 earlier runs");
        assert_eq!(shown[0].find('2'), Some(column));
        assert!(shown[1].starts_with("  2001-02-0") && shown[1].ends_with("run 3 ended after 2 s: exit code 1"));
        assert_eq!(shown[2].find("| oops"), Some(column + 2));
    }

    #[test]
    fn commands_can_be_copied_and_name_the_same_hob() {
        let r = json!({ "todo": ["look at the file", "hob start web  # to try again"] });
        let text = teller(None).story(&r);
        assert_eq!(text, "\nWhat you can do\n  look at the file\n  hob --home /h start web  # to try again\n");
    }

    #[test]
    fn the_subject_is_named_once() {
        let r = json!({ "name": "web", "state": "failed", "summary": "web failed and is not started again: x" });
        assert_eq!(teller(None).summary(&r), "web failed and is not started again: x\n");
    }
}
