//! Tasks beside faults of the machine: a journal that cannot be written, and what deaths leave behind.

use crate::support::*;
use crate::tasks::{submit, task, wait_for, wait_task};
use serde_json::json;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;

#[test]
fn while_the_journal_cannot_be_written_nothing_starts_and_no_end_is_lost() {
    let home = Home::running("{}");
    let (gate, ran) = (home.path("gate"), home.path("ran"));
    let until = format!("until test -e {}; do sleep 0.01; done; exit 7", gate.display());
    let first = submit(&home, json!({ "command": until }));
    let after = json!([{ "id": first, "any": true }]);
    let say = |word: &str| format!("echo {word} >>{}", ran.display());
    let again = submit(&home, json!({ "command": say("again"), "after": after, "repeatable": true }));
    let once = submit(&home, json!({ "command": say("once"), "after": after }));
    wait_task(&home, first, "running");
    // Of this daemon alone: it can make no file any longer.
    let (daemon, keeper) = home.pids();
    let limit = Command::new("prlimit").args(["--pid", &daemon.to_string(), "--fsize=1"]).status();
    if !limit.is_ok_and(|s| s.success()) {
        return skip("there is no prlimit here, so a journal that cannot be written is not tried");
    }
    fs::write(&gate, "").unwrap();
    wait_task(&home, first, "failed");
    wait("its start is put off", || {
        task(&home, again)["why"].as_str().is_some_and(|why| why.contains("the journal cannot be written"))
    });
    assert_eq!(task(&home, once)["state"], "queued");
    assert!(!exists(&ran), "nothing is started of which nobody would know");
    // The end is on no record. What the keeper holds of it has to stay until it is.
    kill("KILL", daemon);
    wait_for(&home, &format!("{first}-{once}"));
    let shown = task(&home, first);
    assert_eq!((&shown["state"], &shown["exit_code"], &shown["attempts"]), (&"failed".into(), &7.into(), &1.into()));
    let mut said: Vec<String> = fs::read_to_string(&ran).unwrap().lines().map(str::to_owned).collect();
    said.sort();
    assert_eq!(said, ["again", "once"]);
    assert_eq!(task(&home, again)["attempts"], 1, "what was put off was no attempt");
    assert_eq!(home.pids().1, keeper);
}

#[test]
fn nothing_is_left_of_a_lost_task_that_is_removed() {
    let mut home =
        Home::running(r#"{"agents": {"file": {"command": ["sh", "-c", "cat $0; sleep 1000"], "prompt": "file"}}}"#);
    let reads = submit(&home, json!({ "command": "cat; sleep 1000", "stdin": "typed\n" }));
    let prompt = submit(&home, json!({ "prompt": "asked\n" }));
    for (id, word) in [(reads, "typed"), (prompt, "asked")] {
        wait("it has written", || home.read(&format!("logs/tasks/{id}.log")).contains(word));
    }
    let (daemon, keeper) = home.pids();
    kill("STOP", daemon);
    kill("KILL", keeper);
    kill("KILL", daemon);
    home.reap();
    wait("both are gone", || !alive(daemon) && !alive(keeper));
    home.start(&[]);
    for id in [reads, prompt] {
        wait_task(&home, id, "lost");
    }
    assert!(home.ok(&["why", "1"]).contains("task 1 is lost: hob and its keeper ended while it ran"));
    // What it wrote is kept as long as the task is.
    assert_eq!(home.ok(&["task", "output", "1"]), "typed\n");
    home.ok(&["task", "remove", &format!("{reads}-{prompt}")]);
    wait("its files are gone", || fs::read_dir(home.path("logs/tasks")).unwrap().count() == 0);
    // Its number is not given again.
    kill("KILL", home.pids().0);
    let next = submit(&home, json!({ "command": "true" }));
    assert_eq!(next, prompt + 1);
}

#[test]
fn output_of_lost_tasks_is_not_taken_for_that_of_later_ones() {
    let home = Home::new("{}");
    home.ok(&["start"]);
    home.ok(&["add", "-w", "echo old"]);
    home.ok(&["add", "-w", "echo old"]);
    home.ok(&["stop"]);
    for file in fs::read_dir(home.path("state")).unwrap().flatten() {
        if file.file_name().to_string_lossy().starts_with("journal") {
            fs::remove_file(file.path()).unwrap();
        }
    }
    home.ok(&["start"]);
    assert!(home.ok(&["status"]).contains("problem: the journal lacked records"), "{}", home.ok(&["status"]));
    assert!(home.read("logs/hob.log").contains("somebody removed or emptied it"), "{}", home.read("logs/hob.log"));
    assert_eq!(home.ok(&["add", "--print-id", "-w", "echo new"]).lines().next(), Some("3"));
    assert_eq!(home.ok(&["task", "output", "3"]), "new\n");
    home.ok(&["stop"]);
}

/// Cuts the journal before the first record of this task, and a bit into it.
fn cut_before(home: &Home, task: u64) {
    let path = home.path("state/journal-1.log");
    let text = fs::read_to_string(&path).unwrap();
    let at = text.find(&format!("\"k\":\"task/{task:012}\"")).unwrap();
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(at as u64 + 10).unwrap();
}

#[test]
fn a_lost_end_of_the_journal_is_told_everywhere_until_somebody_has_looked() {
    let home = Home::new(r#"{ "groups": { "later": { "paused": true } } }"#);
    home.ok(&["start"]);
    home.ok(&["add", "--group", "later", "echo once"]);
    home.ok(&["add", "--group", "later", "--repeatable", "echo any"]);
    for _ in 3..=8 {
        home.ok(&["add", "-w", "echo old"]);
    }
    home.ok(&["stop"]);
    cut_before(&home, 5);
    home.ok(&["start"]);
    // What was queued may have run in the time that is lost.
    let state = |id: &str| home.call("task.get", &format!("{{\"id\":{id}}}"))["state"].clone();
    assert_eq!((state("1"), state("2")), ("held".into(), "queued".into()));
    let text = home.ok(&["status"]);
    assert!(text.contains("problem: the journal lacked records"), "{text}");
    let log = || home.read("logs/hob.log");
    assert!(log().contains("the journal knows of no task from 5 on") && log().contains("tasks up to 8"), "{}", log());
    wait("renamed output is told", || log().contains("lost-5.log, lost-6.log, lost-7.log, lost-8.log"));
    let doctor = || String::from_utf8(home.hob(&["doctor"]).stdout).unwrap();
    let text = doctor();
    assert!(text.contains("it lacked records when hob started"), "{text}");
    assert!(text.contains("output of tasks that no record knows: lost-5.log and 3 more"), "{text}");
    kill("KILL", home.pids().0);
    assert!(home.ok(&["status"]).contains("problem: the journal lacked records"), "{}", home.ok(&["status"]));
    home.ok(&["restart"]);
    let text = doctor();
    assert!(text.contains("output of tasks that no record knows") && !text.contains("read whole"), "{text}");
    fs::remove_file(home.path("state/journal-bad.log")).unwrap();
    for n in 5..=8 {
        for end in ["", ".idx"] {
            let _ = fs::remove_file(home.path(&format!("logs/tasks/lost-{n}.log{end}")));
        }
    }
    let text = doctor();
    assert!(text.contains("it can be read whole") && !text.contains("no record knows"), "{text}");
    home.ok(&["stop"]);
}

#[test]
fn the_number_of_a_lost_task_that_only_an_event_names_is_not_given_again() {
    let home = Home::new("{}");
    home.ok(&["start"]);
    home.ok(&["group", "pause", "default"]);
    home.ok(&["add", "echo first"]);
    home.ok(&["add", "--array", "1-5", "--", "echo", "{}"]);
    home.ok(&["stop"]);
    cut_before(&home, 2);
    home.ok(&["start"]);
    assert_eq!(home.ok(&["add", "--print-id", "echo next"]).lines().next(), Some("7"));
    assert!(home.read("logs/hob.log").contains("tasks up to 6"), "{}", home.read("logs/hob.log"));
    home.ok(&["stop"]);
}

#[test]
fn a_wait_is_not_over_while_one_of_its_tasks_is_tried_again() {
    let home = Home::running("{}");
    let first = submit(&home, json!({ "command": "test -e go && exec sleep 1000; exit 1", "cwd": home.dir }));
    let second = submit(&home, json!({ "command": "exec sleep 1000" }));
    wait_task(&home, first, "failed");
    wait_task(&home, second, "running");
    let mut stream = UnixStream::connect(home.path("run/hob.sock")).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let mut replies = BufReader::new(stream.try_clone().unwrap()).lines();
    let mut ask = |id: u64, method: &str, params: serde_json::Value| {
        writeln!(stream, "{}", json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })).unwrap();
    };
    let mut next = || serde_json::from_str::<serde_json::Value>(&replies.next().unwrap().unwrap()).unwrap();
    ask(1, "task.wait", json!({ "ids": [first, second] }));
    ask(2, "ping", json!({}));
    assert_eq!(next()["id"], 2, "the wait has begun");
    fs::write(home.path("go"), "").unwrap();
    home.ok(&["task", "retry", &first.to_string()]);
    wait_task(&home, first, "running");
    home.ok(&["task", "cancel", &second.to_string()]);
    wait_task(&home, second, "cancelled");
    ask(3, "ping", json!({}));
    assert_eq!(next()["id"], 3, "it goes on");
    home.ok(&["task", "cancel", &first.to_string()]);
    let reply = next();
    assert_eq!((&reply["id"], &reply["result"]["done"]), (&json!(1), &json!(true)), "{reply}");
    assert_eq!(reply["result"]["counts"], json!({ "cancelled": 2 }));
}

#[test]
fn the_cap_of_output_holds_over_deaths_of_the_daemon() {
    let home = Home::running("{}");
    let script = "head -c 5000000 /dev/zero; : > begun; while [ ! -e go ]; do sleep 0.01; done; \
                  head -c 20000000 /dev/zero; echo END";
    let dir = home.path("");
    let id = submit(&home, json!({ "command": script, "cwd": dir, "max_output": 3_000_000 }));
    wait("it writes", || exists(&home.path("begun")));
    kill("KILL", home.pids().0);
    let kept = || -> u64 {
        let files = fs::read_dir(home.path("logs/tasks")).unwrap();
        files.filter_map(|f| f.ok()?.metadata().ok()).map(|m| m.len()).sum()
    };
    fs::write(home.path("go"), "").unwrap();
    wait_task(&home, id, "succeeded");
    assert!(kept() < 4_000_000, "{}", kept());
    assert!(home.ok(&["task", "output", &id.to_string()]).ends_with("END\n"), "the end is kept");
}
