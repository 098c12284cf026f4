//! Words of traces to values of the core and back: effects as lines.

use hob::base::finding::Finding;
use hob::core::{Await, Duty, Effect, Survivor};
use hob::protocol::methods::Of;

pub(crate) fn duty(word: &str) -> Duty {
    match word {
        "health" => Duty::Health,
        "reload" => Duty::Reload,
        "stop" => Duty::Stop,
        other => panic!("no duty: {other}"),
    }
}

pub(crate) fn survivors(words: &[String]) -> Vec<Survivor> {
    let one = |w: &String| w.split_once(':').map(|(n, p)| Survivor { name: n.to_owned(), pid: p.parse().unwrap() });
    words.iter().filter_map(one).collect()
}

pub(crate) fn show(effect: &Effect) -> String {
    match effect {
        Effect::Start(s) => format!("start {} run {}{}", s.service, s.run, if s.notify { " notify" } else { "" }),
        Effect::Signal { run, signal, tree } => {
            format!("signal {signal} to {}run {run}", if *tree { "the tree of " } else { "" })
        }
        Effect::Kill { run } => format!("kill run {run}"),
        Effect::Pause { run, on } => format!("{} run {run}", if *on { "pause" } else { "unpause" }),
        Effect::Discard { service } => format!("discard {service}"),
        Effect::Sync { ticket } => format!("sync {ticket}"),
        Effect::Sweep { run } => format!("sweep run {run}"),
        Effect::Await { run, what, from_start } => {
            let what = match what {
                Await::Port(p) => format!("port {p}"),
                Await::Log(p) => format!("log {p}"),
                Await::Fd => "its ready pipe".to_owned(),
                Await::Socket(p) => format!("socket {p}"),
                Await::Command(_) => "its command".to_owned(),
            };
            format!("await {what} of run {run}{}", if *from_start { " from its start" } else { "" })
        }
        Effect::CancelStart { run } => format!("cancel-start run {run}"),
        Effect::Hear { run, output } => format!("hear run {run}{}", if *output { ", its output too" } else { "" }),
        Effect::Ended { run } => format!("ended run {run}"),
        Effect::AwaitEnd { run } => format!("await-end run {run}"),
        Effect::Check { run, what, limit, .. } => format!("check {what:?} of run {run} within {limit:?}"),
        Effect::CheckEnd { run, what } => format!("check-end {what:?} of run {run}"),
        Effect::Newest { command, limit } => format!("newest {} within {limit:?}", command.join(" ")),
        Effect::NewestEnd => "newest-end".to_owned(),
        Effect::Forget { run } => format!("forget run {run}"),
        Effect::Remove { service } => format!("remove {service}"),
        Effect::Listen { service, spec, watch } => {
            let on: Vec<String> = spec.listen.iter().map(|l| l.at.to_string()).collect();
            format!("{} {} of {service}", if *watch { "listen and watch" } else { "listen" }, on.join(" "))
        }
        Effect::Unlisten { service } => format!("unlisten {service}"),
        Effect::LogSpec { service, spec } => format!("log-spec {service} {}x{}", spec.log.max_size, spec.log.max_files),
        Effect::Reply { req, result, durable } => {
            let durable = if *durable { " durable" } else { "" };
            match result {
                Ok(json) => format!("reply {req}{durable}: {json}"),
                Err(e) => format!("reply {req}{durable}: {:?} {:?} {:?}", e.code, e.message, e.hint.as_deref()),
            }
        }
        Effect::Event { line, .. } => {
            let rest = line.split_once("\"kind\":").map_or(line.as_str(), |(_, r)| r);
            format!("event {}", rest.trim_end_matches('}'))
        }
        Effect::Measure { req, runs, .. } => format!("measure for {req}: {runs:?}"),
        Effect::Doctor { req, findings } => {
            let why = |f: &Finding| f.why.iter().map(|why| format!(" ({why})")).collect::<String>();
            let lines = findings.iter().map(|f| format!("{} {}{}", f.grade.name(), f.what, why(f)));
            format!("examine for {req}: {}", lines.collect::<Vec<_>>().join(" | "))
        }
        Effect::Status { text } => format!("STATUS {text}"),
        Effect::LoadConfig { req, look } => format!("load-config {req:?}{}", if *look { " to look" } else { "" }),
        Effect::Daemon { .. } => "daemon-spec".to_owned(),
        Effect::JobAccess => "job-access".to_owned(),
        Effect::Heartbeat { state } => format!("heartbeat {state}"),
        Effect::Log { level, text } => format!("log {level:?}: {text}"),
        Effect::Ready => "READY".to_owned(),
        Effect::Stopping { limit } => format!("stopping within {} ms", limit.as_millis()),
        Effect::Exit { code } => format!("EXIT {code}"),
        Effect::Upgrade { req, binary, ticket } => format!("UPGRADE {req:?} {binary:?} {ticket:?}"),
        Effect::Again { stop } => format!("AGAIN stop {stop}"),
        Effect::Notify { .. } | Effect::Logs { .. } | Effect::Rotate { .. } | Effect::CloseStream { .. } => {
            format!("{effect:?}")
        }
    }
}

/// Whose services a line asks for.
pub(crate) fn owner(tag: &str) -> Of {
    match (tag, tag.strip_prefix("service/")) {
        ("mine", _) => Of::Caller,
        (_, Some(name)) => Of::Job(name.to_owned()),
        (uid, None) => Of::User(uid.parse().unwrap()),
    }
}
