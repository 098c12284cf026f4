//! `hob doctor`: what is wrong, why it matters, what to do. With a daemon its own examination; without one what can be
//! found out from outside.

use super::flags::Args;
use super::render::{Paint, colours, masked};
use super::{Failure, exit, life, print_json, print_painted, users};
use crate::base::finding::{Finding, Grade};
use crate::base::paths::Paths;
use crate::client::{Client, ClientError};
use crate::daemon::doctor::{self, Scene};
use crate::protocol::rpc::Code;
use crate::sys;
use crate::sys::file::lock;
use core::time::Duration;
use serde_json::{Value, json};
use std::io::ErrorKind;

/// A daemon that needs longer to answer than this hangs.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// The column in which the explanations stand.
const INDENT: &str = "         ";

/// How a daemon came out of being asked.
enum Asked {
    Answered(Value),
    /// It is not there, or says nothing; what is to be added to what is found without it.
    Silent(Option<Finding>),
}

pub(crate) fn doctor(args: &Args) -> Result<u8, Failure> {
    let paths = life::actual(args)?;
    let mut report = match ask(&paths) {
        Asked::Answered(report) => report,
        Asked::Silent(more) => alone(&paths, more)?,
    };
    let errors = report["counts"]["error"].as_u64().unwrap_or(0);
    report["healthy"] = json!(errors == 0);
    if args.has("json") {
        print_json(&report)?;
    } else {
        print_painted(&text(&masked(&report), args.has("quiet")))?;
    }
    Ok(if errors > 0 { exit::FAILED } else { exit::OK })
}

fn ask(paths: &Paths) -> Asked {
    let may_run = lock::holder(&paths.lock).map_or(true, |holder| holder.is_some());
    if !may_run && sys::features::listens(&paths.socket) == Some(true) {
        // To connect would start it.
        return Asked::Silent(None);
    }
    let Ok(mut client) = Client::connect(&paths.socket) else { return Asked::Silent(None) };
    client.set_timeout(Some(ANSWER_LIMIT));
    client.set_patience(ANSWER_LIMIT);
    match client.call::<Value>("daemon.doctor", &json!({})) {
        Ok(report) => Asked::Answered(report),
        Err(ClientError::Io(e)) if matches!(e.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) => {
            let f = Finding::new(
                Grade::Error,
                "daemon",
                format!("it has not answered within {} s", ANSWER_LIMIT.as_secs()),
            );
            let why = "it hangs, or its machine is very busy; services go on";
            Asked::Silent(Some(f.why(why).todo("hob stop --force; then hob start")))
        }
        Err(ClientError::Rpc(e)) if e.code == Code::PermissionDenied => {
            let f = Finding::new(Grade::Note, "daemon", "it tells its view to admins alone");
            Asked::Silent(Some(
                f.why("this is what can be seen from outside").todo("run this as the user that hob runs as"),
            ))
        }
        Err(ClientError::Rpc(e)) => {
            let f = Finding::new(Grade::Warning, "daemon", format!("it cannot examine itself: {}", e.message));
            Asked::Silent(Some(f.why("it may be of an earlier version").todo("hob upgrade")))
        }
        Err(e) => Asked::Silent(Some(Finding::new(Grade::Warning, "daemon", format!("it went away when asked: {e}")))),
    }
}

/// What can be found out without a daemon, in the form of its report.
fn alone(paths: &Paths, more: Option<Finding>) -> Result<Value, Failure> {
    let setup = doctor::setup(paths);
    let groups = sys::tree::delegated(std::process::id());
    let scene = Scene {
        paths,
        running: false,
        given: false,
        others: None,
        managed: false,
        setup: &setup,
        no_cgroups: groups.as_ref().err().cloned(),
        subreaper: true,
    };
    let mut findings = doctor::examine(&scene);
    findings.extend(more);
    let text = doctor::report(&findings, &doctor::offline(paths, &groups));
    let mut report: Value = serde_json::from_str(&text).map_err(|e| Failure::new(e.to_string()))?;
    report["asked_daemon"] = json!(false);
    Ok(report)
}

/// The worst first; `brief`: only what needs somebody to act.
fn text(report: &Value, brief: bool) -> String {
    let paint = Paint { on: colours() };
    let mut text = String::new();
    let all = report["findings"].as_array().cloned().unwrap_or_default();
    for grade in Grade::ALL.into_iter().rev().filter(|g| !brief || *g >= Grade::Warning) {
        for f in all.iter().filter(|f| f["level"] == grade.name()) {
            let part = |k: &str| f[k].as_str().filter(|t| !t.is_empty());
            let word = format!("{:<8}", grade.name());
            let what = users::named(part("what").unwrap_or("?"));
            text.push_str(&format!("{} {}: {what}\n", paint.grade(grade, &word), part("area").unwrap_or("?")));
            for (name, member) in [("", "why"), ("do: ", "do")] {
                if let Some(line) = part(member) {
                    text.push_str(&format!("{INDENT}{name}{line}\n"));
                }
            }
        }
    }
    let count = |grade: Grade| report["counts"][grade.name()].as_u64().unwrap_or(0);
    let some = |n: u64, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let (errors, warnings) = (count(Grade::Error), count(Grade::Warning));
    if !brief {
        let notes = some(count(Grade::Note), "note");
        text.push_str(&format!("{}, {}, {notes}\n", some(errors, "error"), some(warnings, "warning")));
    }
    text
}
