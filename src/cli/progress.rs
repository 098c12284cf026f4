//! One line on a terminal that says for whom a command waits. It is written over once a second and gone at the end.

use super::flags::Args;
use super::{connect, render};
use crate::base::text::visible_line;
use crate::sys::terminal;
use core::time::Duration;
use serde_json::{Value, json};
use std::io::{self, Write};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Instant;

/// When the line first appears, and how often it changes.
const EVERY: Duration = Duration::from_secs(1);

/// The line itself; dropping it clears it.
#[derive(Debug, Default)]
pub(crate) struct Line {
    shown: bool,
}

impl Line {
    pub(crate) fn show(&mut self, text: &str) {
        let columns = terminal::columns().unwrap_or(80).saturating_sub(1);
        let text: String = visible_line(text).chars().take(columns).collect();
        self.shown = true;
        // A terminal that has gone has nobody to tell.
        let _ = io::stderr().lock().write_all(format!("\r\x1b[K{text}").as_bytes());
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.shown {
            let _ = io::stderr().lock().write_all(b"\r\x1b[K");
        }
    }
}

/// Whether a line that is written over makes sense: somebody sees it, and did not ask for silence.
pub(crate) fn wanted(args: &Args) -> bool {
    let dumb = std::env::var_os("TERM").is_some_and(|t| t == "dumb");
    render::on_terminal_err() && !dumb && !["json", "quiet", "no-wait"].iter().any(|f| args.has(f))
}

/// Shows the line from another connection, while a call of this one waits.
#[derive(Debug)]
pub(crate) struct Progress {
    quit: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Progress {
    /// For these services, or all. `None` where there is nobody to tell.
    pub(crate) fn begin(args: &Args) -> Option<Progress> {
        let mut client = wanted(args).then(|| connect(args).ok())??;
        client.set_timeout(Some(EVERY));
        let names = args.operands.clone();
        let (quit, ended) = channel();
        let begin = Instant::now();
        let thread = std::thread::spawn(move || {
            let mut line = Line::default();
            while ended.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                let list: Value = client.call_once("service.list", &json!({})).unwrap_or_default();
                if let Some(text) = told(&list, &names, begin.elapsed()) {
                    line.show(&text);
                }
            }
        });
        Some(Progress { quit: Some(quit), thread: Some(thread) })
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        drop(self.quit.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// `web waits for db; db is starting (3 s)`; nothing when nobody is on the way. No names mean everybody.
pub(crate) fn told(list: &Value, names: &[String], waited: Duration) -> Option<String> {
    let rows: Vec<&Value> = list["services"].as_array().into_iter().flatten().collect();
    let texts = |s: &Value, key: &str| -> Vec<String> {
        let all = s[key].as_array().into_iter().flatten();
        all.filter_map(|v| v.as_str().or_else(|| v["name"].as_str())).map(str::to_owned).collect()
    };
    let named = |s: &Value| names.is_empty() || names.iter().any(|n| s["name"] == **n);
    let awaited: Vec<String> = rows.iter().filter(|s| named(s)).flat_map(|s| texts(s, "waiting_for")).collect();
    let mut parts = Vec::new();
    for s in rows.iter().filter(|s| named(s) || awaited.iter().any(|n| s["name"] == **n)) {
        let name = s["name"].as_str().unwrap_or("?");
        let (whom, left) = (texts(s, "waiting_for"), texts(s, "survivors"));
        match s["state"].as_str().unwrap_or("") {
            "waiting" | "stopping" if !whom.is_empty() => parts.push(format!("{name} waits for {}", whom.join(", "))),
            "stopping" if !left.is_empty() => parts.push(format!("{name} still has {}", left.join(", "))),
            "starting" => parts.push(format!("{name} is starting")),
            "stopping" => parts.push(format!("{name} is stopping")),
            "backoff" => parts.push(format!("{name} is down until its next try")),
            _ => {}
        }
    }
    (!parts.is_empty()).then(|| format!("{} ({} s)", parts.join("; "), waited.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_are_waited_for_are_named_with_what_they_do() {
        let list = json!({ "services": [
            { "name": "db", "state": "starting", "waiting_for": [] },
            { "name": "log", "state": "stopping", "waiting_for": [], "survivors": [{ "pid": 7, "name": "cat" }] },
            { "name": "up", "state": "running", "waiting_for": [] },
            { "name": "web", "state": "waiting", "waiting_for": ["db"] },
        ]});
        let told = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
            told(&list, &names, Duration::from_millis(3_900))
        };
        assert_eq!(told(&["web"]).as_deref(), Some("db is starting; web waits for db (3 s)"));
        assert_eq!(told(&["log"]).as_deref(), Some("log still has cat (3 s)"));
        assert_eq!(told(&["up"]), None);
        let all = "db is starting; log still has cat; web waits for db (3 s)";
        assert_eq!(told(&[]).as_deref(), Some(all));
    }
}
