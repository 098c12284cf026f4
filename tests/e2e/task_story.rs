//! What hob tells of tasks: why they are as they are, and what stays of those that are gone.

use crate::support::*;
use crate::tasks::{submit, task, wait_for, wait_task};
use serde_json::json;
use std::fs;

#[test]
fn why_tells_of_a_task_what_it_waits_for_and_what_became_of_it() {
    let home = Home::running(
        r#"{ "groups": {"one": {"parallel": 1}}, "services": {"2": {"command": "exec sleep 1000"}},
             "agents": {"claude": {"command": ["true"]}} }"#,
    );
    let gate = home.path("gate");
    let until = format!("until test -e {}; do sleep 0.01; done; echo first; echo last; exit 3", gate.display());
    submit(&home, json!({ "command": until, "group": "one", "retries": 1, "backoff": "1h" }));
    wait_task(&home, 1, "running");
    submit(&home, json!({ "command": "true", "group": "one", "after": 1 }));
    submit(&home, json!({ "command": "true", "group": "one" }));
    submit(&home, json!({ "command": "true", "delay": "1h" }));
    submit(&home, json!({ "prompt": "x", "delay": "1h" }));
    home.ok(&["task", "hold", "4"]);
    let tells = |name: &str, words: &[&str]| {
        let text = home.ok(&["why", name]);
        for word in words {
            assert!(text.contains(word), "hob why {name}: {word:?} is not in\n{text}");
        }
        text
    };
    tells("1", &["task 1 has been running for", "tried again in 1 h, once", "hob --home", "task output -f 1"]);
    tells("2", &["2 has been running", "started by autostart"]);
    tells("task/2", &["task 2 is queued: waits for task 1", "otherwise it is cancelled", "why task/1"]);
    tells("3", &["the only slot of group one is taken", "next of its group", "group set one --parallel 2"]);
    tells("4", &["task 4 is held by ", "task release 4"]);
    tells("5", &["task 5 is queued: waits until", "it may start in 59 min", "task edit 5 --delay 0s"]);
    home.write_config(r#"{ "groups": {"one": {"parallel": 1}}, "services": {"2": {"command": "exec sleep 1000"}} }"#);
    assert_eq!(home.ok(&["reload"]), "settings updated: agents\n");
    tells(
        "5",
        &["task 5 is queued and would fail: there is no agent \"claude\" in the config any more", "put it back"],
    );
    home.ok(&["group", "pause", "one"]);
    tells("3", &["group one is paused", "group resume one"]);
    fs::write(&gate, "").unwrap();
    wait_task(&home, 1, "queued");
    tells("1", &["retry 1 of 1", "attempt 1 ended after", "exit code 3", "| first", "| last", "it is the last try"]);
    home.ok(&["task", "edit", "1", "--delay", "0s"]);
    home.ok(&["group", "resume", "one"]);
    wait_for(&home, "1-3");
    tells("1", &["task 1 failed in attempt 2: exit code 3", "attempt 1 ended: exit code 3", "task retry 1"]);
    tells("task/2", &["task 2 was cancelled: task 1, which it follows, failed"]);
    tells("3", &["task 3 succeeded after"]);
    let value: serde_json::Value = serde_json::from_str(&home.ok(&["why", "1", "--json"])).unwrap();
    assert_eq!((value["id"].as_u64(), value["state"].as_str()), (Some(1), Some("failed")), "{value}");
    assert_eq!(value["last_lines"], json!(["first", "last"]));
    assert_eq!(value["task"]["exit_code"], 3);
    let slow = submit(&home, json!({ "command": "sleep 1000", "timeout": "100ms" })).to_string();
    let loud = submit(&home, json!({ "command": "seq 1 100000; exit 1", "max_output": "30kB" })).to_string();
    wait_for(&home, &format!("{slow}-{loud}"));
    tells(&slow, &["was stopped because it took longer than 100ms"]);
    tells(&loud, &["it wrote 588.9 kB, of which at most 30.0 kB are kept"]);
    assert_eq!(task(&home, loud.parse().unwrap())["over_limit"], true);
    let told = home.ok(&["events", "-k", "task.failed", "--json"]);
    assert!(told.lines().last().unwrap().contains("\"over_limit\":true"), "{told}");
    let (code, text) = home.fails(&["why", "99"]);
    assert!(code == 4 && text.contains("there is no task 99"), "{code} {text}");
    let (_, text) = home.fails(&["why", "task/x"]);
    assert!(text.contains("is not the number of a task"), "{text}");
}

#[test]
fn a_key_outlives_its_task_and_the_daemon() {
    let mut home = Home::running("{}");
    let add = ["add", "--print-id", "--key", "nightly", "--", "true"];
    assert_eq!(home.ok(&add).trim(), "1");
    wait_for(&home, "1");
    home.ok(&["task", "remove", "1"]);
    assert_eq!(home.ok(&add).trim(), "1");
    kill("KILL", home.pids().0);
    assert_eq!(home.ok(&add).trim(), "1");
    home.ok(&["stop"]);
    home.wait_end();
    home.start(&[]);
    assert_eq!(home.ok(&add).trim(), "1");
    let (code, text) = home.fails(&["add", "--key", "nightly", "--", "false"]);
    assert!(code == 7 && text.contains("belongs to task 1") && text.contains("another key"), "{code} {text}");
    // The same for the key of a request, which a client that lost its connection sends again.
    let params = json!({ "tasks": [{ "command": "true" }, { "command": "true" }], "request_key": "again" }).to_string();
    let ids = json!([2, 3]);
    assert_eq!(home.call("task.submit", &params)["ids"], ids);
    wait_for(&home, "2-3");
    home.ok(&["task", "clean"]);
    kill("KILL", home.pids().0);
    assert_eq!(home.call("task.submit", &params)["ids"], ids);
    assert_eq!(home.call("task.stats", "{}")["total"], 0, "nothing was made anew");
}

#[test]
fn what_completions_offer_is_there() {
    let home = Home::running(
        r#"{ "groups": {"build": {"parallel": 1}}, "agents": {"claude": {"command": ["true"]}},
             "runners": {"srun": {"prefix": ["env"]}} }"#,
    );
    submit(&home, json!({ "command": "sleep 1000", "labels": {"kind": "test"} }));
    submit(&home, json!({ "command": "true", "hold": true }));
    wait_task(&home, 1, "running");
    let offered = |words: &[&str]| {
        let mut all = vec!["complete", "--"];
        let dir = home.dir.display().to_string();
        all.extend(["--home", &dir]);
        all.extend(words);
        let text = String::from_utf8(home.bare_command(&all).output().unwrap().stdout).unwrap();
        text.lines().map(str::to_owned).collect::<Vec<String>>()
    };
    assert_eq!(offered(&["task", "cancel", ""]), ["2\theld: true", "1\trunning: sleep 1000"]);
    assert_eq!(offered(&["task", "release", ""]), ["2\theld: true"]);
    assert_eq!(offered(&["add", "--after", "2,"]), ["2,2\theld: true", "2,1\trunning: sleep 1000"]);
    assert_eq!(offered(&["add", "-g", "b"]), ["build\t0 of 1 slots taken"]);
    assert_eq!(offered(&["add", "--agent", ""]), ["claude"]);
    assert_eq!(offered(&["add", "--runner="]), ["--runner=srun"]);
    assert_eq!(offered(&["task", "list", "-l", ""]), ["kind=test"]);
    assert_eq!(offered(&["group", "pause", "a"]), ["agents\t0 of 3 slots taken"]);
}

#[test]
fn following_waits_for_what_has_not_begun_and_goes_on_over_retries() {
    let home = Home::running(r#"{"agents": {"count": {"command": ["wc", "-c"], "prompt": "stdin"}}}"#);
    let followed = |args: &[&str]| {
        let out = home.hob(args);
        (String::from_utf8(out.stdout).unwrap(), String::from_utf8(out.stderr).unwrap(), out.status.code())
    };
    let (out, _, code) = followed(&["add", "-f", "--delay", "300ms", "--", "echo", "late"]);
    assert_eq!((out.as_str(), code), ("late\n", Some(0)));
    let (out, _, code) =
        followed(&["add", "-f", "--retries", "2", "--backoff", "200ms", "--", "sh", "-c", "echo try; exit 3"]);
    assert_eq!((out.as_str(), code), ("try\ntry\ntry\n", Some(3)));
    // Whoever follows what is held goes on over its release and the death of the daemon, and ends with its removal.
    submit(&home, json!({ "command": "echo released", "hold": true }));
    let follower = home.command(&["task", "output", "-f", "3"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    kill("KILL", home.pids().0);
    home.ok(&["task", "release", "3"]);
    let out = follower.wait_with_output().unwrap();
    assert_eq!((out.stdout.as_slice(), out.status.code()), (&b"released\n"[..], Some(0)));
    submit(&home, json!({ "command": "true", "hold": true }));
    let follower = home.command(&["task", "output", "-f", "4"]).stderr(std::process::Stdio::piped()).spawn().unwrap();
    home.ok(&["task", "remove", "4"]);
    let out = follower.wait_with_output().unwrap();
    assert!(String::from_utf8_lossy(&out.stderr).contains("there is no task 4"), "{out:?}");
    // What ends without a code of its own is said.
    for how in ["--wait", "--follow"] {
        let (_, said, code) = followed(&["add", how, "--cwd", "/no/such/folder", "--", "true"]);
        assert!(code == Some(126) && said.contains("cannot enter /no/such/folder"), "{how}: {said}");
    }
    // A prompt that no command line holds.
    let large = home.path("prompt");
    fs::write(&large, "x".repeat(10_000_000)).unwrap();
    let out =
        home.command(&["add", "--agent", "count", "-f", "-"]).stdin(fs::File::open(&large).unwrap()).output().unwrap();
    assert_eq!(String::from_utf8(out.stdout).unwrap().trim(), "10000000", "{}", String::from_utf8_lossy(&out.stderr));
    assert!(home.fails(&["add", "--agent", "count", "-"]).1.contains("is empty"));
}

#[test]
fn output_that_a_daemon_left_behind_goes_when_the_next_has_come_up_and_no_other() {
    let home = Home::running("{}");
    for _ in 0..3 {
        submit(&home, json!({ "command": "echo here" }));
    }
    wait_for(&home, "1-3");
    home.ok(&["task", "remove", "2"]);
    let file = |name: &str| home.path("logs/tasks").join(name);
    wait("the output of a removed task is gone", || !file("2.log").exists());
    home.ok(&["stop"]);
    for name in ["2.log", "2.log.1", "4.log", "notes.txt"] {
        fs::write(file(name), "x").unwrap();
    }
    home.ok(&["start"]);
    wait("what is left of task 2 is gone", || !file("2.log").exists() && !file("2.log.1").exists());
    assert_eq!(home.ok(&["task", "output", "1"]), "here\n");
    wait("what may be of a lost task has a name of its own", || file("lost-4.log").exists());
    for name in ["1.log", "3.log", "notes.txt"] {
        assert!(file(name).exists(), "{name}");
    }
}

#[test]
fn earlier_attempts_are_told_and_their_output_is_kept_whoever_tries_again() {
    let mut home = Home::running("{}");
    let (dir, line) = (home.dir.display().to_string(), "echo try; test -e good || exit 4; exec sleep 1000");
    home.fails(&["add", "-w", "-r", "1", "--backoff", "10ms", "-C", &dir, line]);
    assert_eq!(home.ok(&["task", "output", "1"]).lines().count(), 2);
    fs::write(home.path("good"), "").unwrap();
    home.ok(&["task", "retry", "1"]);
    wait_task(&home, 1, "running");
    let ends = |why: &str| -> Vec<String> {
        let lines = why.lines().filter_map(|l| l.split_once("attempt ")).map(|(_, rest)| rest.to_owned());
        lines.filter(|l| l.contains("ended")).collect()
    };
    wait("all three have written", || home.ok(&["task", "output", "1"]).lines().count() == 3);
    let why = home.ok(&["why", "1"]);
    let told = ends(&why);
    assert!(told.len() == 2 && told[0] == "1 ended: exit code 4" && told[1].starts_with("2 ended after"), "{why}");
    home.ok(&["task", "cancel", "1"]);
    wait_for(&home, "1");
    let why = home.ok(&["why", "1"]);
    let told = ends(&why);
    assert!(told.len() == 3 && told[1] == "2 ended: exit code 4" && told[2].contains("SIGTERM"), "{why}");
    // Events are kept for a while, and the task for longer.
    home.ok(&["stop"]);
    home.wait_end();
    fs::remove_file(home.path("state/events.log")).unwrap();
    home.start(&[]);
    let why = home.ok(&["why", "1"]);
    assert!(why.contains("2 attempts before") && ends(&why).len() == 1, "{why}");
}
