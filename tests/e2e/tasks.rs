//! Tasks on the real binary: queued, run once, remembered, through every death.

use crate::support::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Stdio;

/// Tasks and kills in the ordinary storm; the environment asks for more.
fn asked(name: &str, otherwise: usize) -> usize {
    std::env::var(name).ok().map_or(otherwise, |v| v.parse().unwrap())
}

pub(crate) fn submit(home: &Home, spec: Value) -> u64 {
    home.call("task.submit", &spec.to_string())["id"].as_u64().unwrap()
}

pub(crate) fn task(home: &Home, id: u64) -> Value {
    home.call("task.get", &json!({ "id": id }).to_string())
}

pub(crate) fn wait_for(home: &Home, ids: &str) -> Vec<Value> {
    let done = home.call("task.wait", &json!({ "ids": ids }).to_string());
    assert_eq!(done["done"], true);
    done["tasks"].as_array().unwrap().clone()
}

pub(crate) fn wait_task(home: &Home, id: u64, state: &str) {
    wait(&format!("task {id} is {state}"), || task(home, id)["state"] == state);
}

#[test]
fn a_task_gets_what_it_was_given_and_is_remembered() {
    let home = Home::running("{}");
    let dir = home.path("work");
    fs::create_dir(&dir).unwrap();
    let script =
        "echo id $HOB_TASK_ID; pwd; umask; echo $COLOUR; cat; test -z \"$HOB_SERVICE\" || echo service; exit 3";
    let spec = json!({ "command": ["sh", "-c", script], "cwd": dir, "umask": "027", "env": {"COLOUR": "blue"},
        "stdin": "typed\n", "labels": {"kind": "test"}, "priority": 7, "key": "nightly" });
    let id = submit(&home, spec.clone());
    assert_eq!(submit(&home, spec.clone()), id, "a key makes one task");
    let mut other = spec;
    other["command"] = json!("true");
    let (code, text) = home.fails(&["call", "task.submit", &other.to_string()]);
    assert!(code == 7 && text.contains("nightly"), "{code} {text}");
    let done = &wait_for(&home, &id.to_string())[0];
    assert_eq!((done["state"].as_str(), done["exit_code"].as_i64()), (Some("failed"), Some(3)), "{done}");
    let wanted = format!("id {id}\n{}\n0027\nblue\ntyped\n", dir.display());
    assert_eq!(home.ok(&["task", "output", &id.to_string()]), wanted);
    let shown = task(&home, id);
    assert_eq!(shown["output_bytes"], wanted.len());
    assert_eq!(shown["env"], json!(["COLOUR"]), "values are not shown");
    assert_eq!(home.call("task.list", r#"{"label": "kind=test"}"#)["tasks"].as_array().unwrap().len(), 1);
    assert_eq!(home.call("task.list", r#"{"label": "kind=x"}"#)["tasks"].as_array().unwrap().len(), 0);
    // Once more, then it goes with its output.
    home.ok(&["task", "retry", &id.to_string()]);
    assert_eq!(wait_for(&home, &id.to_string())[0]["attempts"], 2);
    assert!(home.ok(&["task", "clean"]).contains("1 task"));
    assert!(home.fails(&["task", "show", &id.to_string()]).1.contains("there is no task"));
    wait("its output is gone", || fs::read_dir(home.path("logs/tasks")).unwrap().count() == 0);
    assert!(submit(&home, json!({ "command": "true" })) > id, "a number is not given twice");
}

#[test]
fn groups_priorities_and_order_hold() {
    let home = Home::running(r#"{"groups": {"one": {"parallel": 1}, "heavy": {"parallel": 4, "weight_limit": 5}}}"#);
    let log = home.path("order");
    let say = |word: &str| format!("echo {word} >>{}", log.display());
    home.ok(&["group", "pause", "one"]);
    for (word, priority) in [("low", -5), ("first", 0), ("second", 0), ("high", 9)] {
        submit(&home, json!({ "command": say(word), "group": "one", "priority": priority }));
    }
    let stuck = task(&home, 1);
    assert!(stuck["why"].as_str().unwrap().contains("paused"), "{stuck}");
    home.ok(&["group", "resume", "one"]);
    wait_for(&home, "1-4");
    assert_eq!(fs::read_to_string(&log).unwrap(), "high\nfirst\nsecond\nlow\n");
    // Who follows waits, whoever it is that fails.
    let gate = home.path("gate");
    let first = submit(&home, json!({ "command": format!("until test -e {}; do sleep 0.01; done", gate.display()) }));
    let then = submit(&home, json!({ "command": say("then"), "after": first }));
    assert!(task(&home, then)["why"].as_str().unwrap().contains(&first.to_string()));
    let bad = submit(&home, json!({ "command": "exit 1", "after": [then] }));
    let never = submit(&home, json!({ "command": say("never"), "after": bad }));
    let anyway = submit(&home, json!({ "command": say("anyway"), "after": [{"id": bad, "any": true}] }));
    let (_, text) = home.fails(&["call", "task.edit", &json!({ "id": then, "after": [anyway] }).to_string()]);
    assert!(text.contains("would follow itself"), "{text}");
    fs::write(&gate, "").unwrap();
    wait_for(&home, &format!("{first}-{anyway}"));
    assert_eq!(task(&home, never)["state"], "cancelled");
    assert!(task(&home, never)["why"].as_str().unwrap().contains("failed"));
    assert!(fs::read_to_string(&log).unwrap().ends_with("then\nanyway\n"));
    // Weights add up, and one that is too heavy runs alone. Each tells when it begins and ends.
    let (log, gate) = (home.path("weights"), home.path("weigh"));
    let one = |weight: u32| {
        let command = format!(
            "echo +{weight} >>{0}; until test -e {1}; do sleep 0.01; done; echo -{weight} >>{0}",
            log.display(),
            gate.display()
        );
        json!({ "command": command, "group": "heavy", "weight": weight })
    };
    let ids = home.call("task.submit", &json!([one(2), one(50), one(2), one(2)]).to_string())["ids"].clone();
    wait("the first has begun", || log.exists());
    fs::write(&gate, "").unwrap();
    wait_for(&home, &format!("{}-{}", ids[0], ids[3]));
    let mut weight = 0;
    for line in fs::read_to_string(&log).unwrap().lines() {
        weight += line.parse::<i32>().unwrap();
        assert!(weight <= 5 || weight == 50, "{weight} at {line}");
    }
    assert_eq!(weight, 0);
}

#[test]
fn cancel_pause_timeout_and_retry_do_what_they_say() {
    let home = Home::running("{}");
    let pids = home.path("pids");
    let deaf = format!(
        "trap '' TERM; (trap '' TERM; setsid sleep 1000 & echo $! >>{0}; wait) & echo $$ >>{0}; \
         while :; do sleep 1; done",
        pids.display()
    );
    let id = submit(&home, json!({ "command": deaf }));
    wait("both have begun", || fs::read_to_string(&pids).is_ok_and(|t| t.lines().count() == 2));
    home.ok(&["task", "pause", &id.to_string()]);
    assert_eq!(task(&home, id)["state"], "paused");
    home.ok(&["task", "resume", &id.to_string()]);
    wait_task(&home, id, "running");
    home.ok(&["task", "pause", &id.to_string()]);
    home.ok(&["task", "cancel", "--force", &id.to_string()]);
    wait_task(&home, id, "cancelled");
    for pid in fs::read_to_string(&pids).unwrap().lines() {
        assert!(!alive(pid.parse().unwrap()), "{pid} is left");
    }
    let (code, _) = home.fails(&["task", "cancel", &id.to_string()]);
    assert_eq!(code, 1);
    let slow = submit(&home, json!({ "command": "sleep 1000", "timeout": "200ms" }));
    wait_task(&home, slow, "timed_out");
    let count = home.path("count");
    let failing = format!("echo x >>{0}; test $(wc -l <{0}) -ge 3", count.display());
    let again = submit(&home, json!({ "command": failing, "retries": 5, "backoff": "10ms" }));
    let done = &wait_for(&home, &again.to_string())[0];
    assert_eq!((done["state"].as_str(), done["attempts"].as_i64()), (Some("succeeded"), Some(3)), "{done}");
    let missing = submit(&home, json!({ "command": ["/no/such/program"] }));
    let done = &wait_for(&home, &missing.to_string())[0];
    assert!(done["state"] == "failed" && done["error"].as_str().unwrap().contains("/no/such/program"), "{done}");
    let nowhere = submit(&home, json!({ "command": "true", "cwd": "/no/such/folder" }));
    assert!(wait_for(&home, &nowhere.to_string())[0]["error"].as_str().unwrap().contains("/no/such/folder"));
    assert_eq!(home.hob(&["add", "--follow", "--", "/no/such/program"]).status.code(), Some(127));
    assert_eq!(home.hob(&["add", "--wait", "kill -9 $$"]).status.code(), Some(137));
}

#[test]
fn agents_get_their_prompt_and_runners_their_command() {
    let config = r#"{
        "agents": {
            "cat": {"command": ["cat"], "prompt": "stdin"},
            "echo": {"command": ["echo", "asked:"]},
            "file": {"command": ["sh", "-c", "wc -c <$0"], "prompt": "file"},
            "secret": {"command": ["sh", "-c", "echo key=$KEY"], "env": {"KEY_env": "HOB_TEST_SECRET", "PLAIN": "1"}},
            "poor": {"command": ["true"], "env": {"KEY_env": "HOB_TEST_MISSING"}}
        },
        "runners": {"outer": {"prefix": ["sh", "-c", "echo runs on; exec \"$@\"", "srun"]}}
    }"#;
    let mut home = Home::with_env(config, "HOB_TEST_SECRET", "swordfish");
    home.start(&[]);
    let ask = |agent: &str, prompt: &str| {
        let id = submit(&home, json!({ "agent": agent, "prompt": prompt }));
        let done = wait_for(&home, &id.to_string())[0].clone();
        assert_eq!(done["group"], "agents", "{done}");
        (done, home.ok(&["task", "output", &id.to_string()]))
    };
    assert_eq!(ask("cat", "fix the\ntests").1, "fix the\ntests");
    assert_eq!(ask("echo", "a b").1, "asked: a b\n");
    let large = "x".repeat(10_000_000);
    let params = home.path("large.json");
    fs::write(&params, json!({ "agent": "file", "prompt": large }).to_string()).unwrap();
    let sent = home.command(&["call", "task.submit", "-"]).stdin(fs::File::open(&params).unwrap()).output().unwrap();
    let id = serde_json::from_slice::<Value>(&sent.stdout).unwrap()["id"].clone();
    wait_for(&home, &id.to_string());
    assert_eq!(home.ok(&["task", "output", &id.to_string()]).trim(), "10000000");
    // The secret reaches the program and nobody else: not its output, not the journal, not the views.
    let (done, output) = ask("secret", "x");
    assert_eq!((done["state"].as_str(), output.as_str()), (Some("succeeded"), "key=***\n"));
    let files = ["logs/hob.log", "state/journal-1.log", "state/events.log"].map(|f| home.read(f)).concat();
    assert!(!files.contains("swordfish") && !home.ok(&["config", "show"]).contains("swordfish"));
    let (done, _) = ask("poor", "x");
    assert!(done["error"].as_str().unwrap().contains("HOB_TEST_MISSING"), "{done}");
    let (_, text) = home.fails(&["add", "--prompt", "x"]);
    assert!(text.contains("which agent"), "{text}");
    let id = submit(&home, json!({ "command": ["sh", "-c", "echo here; exit 6"], "runner": "outer" }));
    assert_eq!(wait_for(&home, &id.to_string())[0]["exit_code"], 6);
    assert_eq!(home.ok(&["task", "output", &id.to_string()]), "runs on\nhere\n");
}

#[test]
fn output_over_the_limit_keeps_head_and_tail() {
    let home = Home::running("{}");
    let id = submit(&home, json!({ "command": "seq 1 400000", "max_output": "300kB" }));
    let done = &wait_for(&home, &id.to_string())[0];
    assert_eq!(done["state"], "succeeded");
    let whole: u64 = (1..=400_000u64).map(|n| n.to_string().len() as u64 + 1).sum();
    assert_eq!(done["output_bytes"], whole);
    let used: u64 = fs::read_dir(home.path("logs/tasks")).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
    assert!(used < 500_000, "{used} bytes on disk");
    let text = home.ok(&["task", "output", &id.to_string()]);
    assert!(text.starts_with("1\n2\n3\n") && text.ends_with("399999\n400000\n"), "{}", text.len());
    assert!(text.contains("[hob: ") && text.contains("over the limit"));
}

/// Whoever reads too slowly is told how much he has missed, to the byte.
#[test]
fn following_beyond_the_limit_counts_what_is_missing() {
    let home = Home::running("{}");
    submit(&home, json!({ "command": "seq 1 600000", "max_output": "300kB", "hold": true }));
    let mut follower = home.command(&["task", "output", "-f", "1"]).stdout(Stdio::piped()).spawn().unwrap();
    home.ok(&["task", "release", "1"]);
    // Nobody reads before the end: what is on the way by then is much less than all there was.
    assert_eq!(wait_for(&home, "1")[0]["state"], "succeeded");
    let mut text = String::new();
    follower.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert!(follower.wait().unwrap().success());
    let (mut shown, mut missing) = (0, 0);
    for line in text.split_inclusive('\n') {
        let mark = line.strip_prefix("[hob: ").and_then(|l| l.split_once(" bytes were over the limit"));
        match mark {
            // What ends the line before it is the mark's.
            Some((bytes, _)) => missing += bytes.parse::<u64>().unwrap(),
            None => shown += line.len() as u64,
        }
    }
    let whole: u64 = (1..=600_000_u64).map(|n| n.to_string().len() as u64 + 1).sum();
    let marks = text.matches("[hob: ").count() as u64;
    assert!(missing > 0 && text.ends_with("599999\n600000\n"), "{missing} missing");
    assert!((whole..=whole + marks).contains(&(shown + missing)), "{shown} shown, {missing} missing, of {whole}");
}

#[test]
fn following_goes_on_over_deaths_and_ends_with_the_task() {
    let home = Home::running("{}");
    let go = home.path("go");
    let command =
        format!("i=0; until test -e {}; do i=$((i+1)); printf '%d\\0' $i; sleep 0.01; done; exit 9", go.display());
    let mut follower = home.command(&["add", "--follow", &command]).stdout(Stdio::piped()).spawn().unwrap();
    let mut out = follower.stdout.take().unwrap();
    let mut heard = Vec::new();
    let mut piece = [0; 4096];
    for _ in 0..5 {
        let before = heard.len();
        while heard.len() < before + 50 {
            let n = out.read(&mut piece).unwrap();
            heard.extend_from_slice(&piece[..n]);
        }
        kill("KILL", home.pids().0);
    }
    fs::write(&go, "").unwrap();
    out.read_to_end(&mut heard).unwrap();
    assert_eq!(follower.wait().unwrap().code(), Some(9));
    let numbers: Vec<u64> = heard
        .split(|b| *b == 0)
        .filter(|p| !p.is_empty())
        .map(|p| std::str::from_utf8(p).unwrap().parse().unwrap())
        .collect();
    assert!(numbers.iter().copied().eq(1..=numbers.len() as u64), "a number is lost, doubled or torn");
}

#[test]
fn following_goes_on_over_a_restart_and_ends_with_hob() {
    let home = Home::new("{}");
    home.ok(&["start"]);
    let again = home.path("again");
    let command = format!("if test -e {}; then echo two; else echo one; exec sleep 1000; fi", again.display());
    let follow = || {
        let mut command_line = home.command(&["add", "--follow", "--repeatable", &command]);
        let mut follower = command_line.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut first = [0; 4];
        follower.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
        assert_eq!(&first, b"one\n");
        follower
    };
    let follower = follow();
    fs::write(&again, "").unwrap();
    home.ok(&["restart"]);
    let out = follower.wait_with_output().unwrap();
    assert_eq!((&*out.stdout, out.status.code()), (&b"two\n"[..], Some(0)), "{out:?}");
    fs::remove_file(&again).unwrap();
    let follower = follow();
    home.ok(&["stop"]);
    let out = follower.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(3), "{out:?}");
    assert_eq!(String::from_utf8_lossy(&out.stderr), "hob: hob has stopped\n     'hob start' starts it again\n");
}

/// Every task writes its number to a file and ends with a code that is known beforehand.
#[test]
fn kills_of_the_daemon_lose_no_task_and_run_none_twice() {
    let (tasks, kills) = (asked("HOB_STORM_TASKS", 600), asked("HOB_STORM_TASK_KILLS", 30));
    let home = Home::running(r#"{"groups": {"default": {"parallel": 4}}}"#);
    let ran = home.path("ran");
    let command = format!("echo $HOB_TASK_ID >>{}; exit $((HOB_TASK_ID % 3))", ran.display());
    let mut accepted = Vec::new();
    let batch = tasks / 10;
    let mut killed = 0;
    let mut step = |round: usize| {
        while killed < kills * (round + 1) / 20 {
            let (daemon, _) = home.pids();
            kill("KILL", daemon);
            killed += 1;
        }
    };
    for round in 0..10 {
        let specs: Vec<Value> = (0..batch).map(|_| json!({ "command": command })).collect();
        let ids = home.call("task.submit", &Value::from(specs).to_string())["ids"].clone();
        accepted.extend(ids.as_array().unwrap().iter().map(|id| id.as_u64().unwrap()));
        step(round);
    }
    for round in 10..20 {
        let wanted = accepted.len() * (round - 8) / 12;
        wait("some more have run", || fs::read_to_string(&ran).unwrap_or_default().lines().count() >= wanted);
        step(round);
    }
    wait("all are over", || {
        let stats = home.call("task.stats", "{}");
        stats["queued"] == 0 && stats["running"] == 0
    });
    let mut times: BTreeMap<u64, u32> = BTreeMap::new();
    for line in fs::read_to_string(&ran).unwrap().lines() {
        *times.entry(line.parse().unwrap()).or_default() += 1;
    }
    let (mut lost, mut twice, mut wrong) = (0, 0, Vec::new());
    for id in &accepted {
        let shown = task(&home, *id);
        lost += u32::from(!times.contains_key(id));
        twice += u32::from(times.get(id).is_some_and(|n| *n > 1));
        let state = if id % 3 == 0 { "succeeded" } else { "failed" };
        if shown["state"] != state || shown["exit_code"] != id % 3 {
            wrong.push(shown);
        }
    }
    println!(
        "task storm: {killed} kills, {} tasks: {lost} lost, {twice} run twice, {} misreported",
        accepted.len(),
        wrong.len()
    );
    assert!(lost == 0 && twice == 0 && wrong.is_empty(), "{lost} lost, {twice} twice, {wrong:?}");
}

#[test]
fn after_the_death_of_keeper_and_daemon_what_ran_is_lost_and_what_waited_runs() {
    let mut home = Home::running(r#"{"groups": {"default": {"parallel": 2}}}"#);
    let log = home.path("ran");
    let long = |word: &str| json!({ "command": format!("echo {word} >>{}; sleep 1000", log.display()) });
    let runs = submit(&home, long("once"));
    let mut spec = long("again");
    spec["repeatable"] = json!(true);
    let repeats = submit(&home, spec);
    let waits = submit(&home, json!({ "command": format!("echo waited >>{}", log.display()) }));
    let held = submit(&home, json!({ "command": "true", "hold": true }));
    wait("two run", || fs::read_to_string(&log).is_ok_and(|t| t.lines().count() == 2));
    let pid = task(&home, runs)["pid"].as_u64().unwrap();
    let (daemon, keeper) = home.pids();
    // Stopped, because it would see the death of the keeper and end its jobs in order.
    kill("STOP", daemon);
    kill("KILL", keeper);
    kill("KILL", daemon);
    home.reap();
    wait("both are gone", || !alive(daemon) && !alive(keeper));
    home.start(&[]);
    wait_task(&home, runs, "lost");
    assert!(task(&home, runs)["why"].as_str().unwrap().contains("nobody saw"));
    wait("what it left is gone", || !alive(u32::try_from(pid).unwrap()));
    wait_task(&home, waits, "succeeded");
    wait("the repeatable one runs again", || task(&home, repeats)["state"] == "running");
    assert_eq!(task(&home, held)["state"], "held");
    let text = fs::read_to_string(&log).unwrap();
    assert_eq!(text.matches("once").count(), 1, "{text}");
    assert_eq!(text.matches("again").count(), 2, "{text}");
    // A shutdown in good order leaves nothing unknown.
    home.ok(&["stop"]);
    home.wait_end();
    home.start(&[]);
    wait("the repeatable one runs once more", || task(&home, repeats)["state"] == "running");
    assert_eq!(task(&home, waits)["state"], "succeeded");
}

#[test]
fn mistakes_are_told_and_change_nothing() {
    let home = Home::running(r#"{"agents": {"plain": {"command": ["true"]}}}"#);
    let refuse = |params: &str, why: &str| {
        let (code, text) = home.fails(&["call", "task.submit", params]);
        assert!(code != 0 && text.contains(why), "{params}: {text}");
    };
    refuse("{}", "command or prompt");
    refuse(r#"{"command": ""}"#, "command");
    refuse(r#"{"command": []}"#, "command");
    refuse(r#"{"command": ["a\u0000b"]}"#, "zero bytes");
    refuse(r#"{"command": "true", "cwd": "/a\u0000b"}"#, "zero byte");
    refuse(r#"{"command": "true", "env": {"A=B": "x"}}"#, "env");
    refuse(r#"{"prompt": "a\u0000b", "agent": "plain"}"#, "zero byte");
    refuse(r#"{"command": "true", "prompt": "x"}"#, "not both");
    refuse(r#"{"command": "true", "group": "defualt"}"#, "did you mean \"default\"");
    refuse(r#"{"command": "true", "after": 99}"#, "there is no task 99");
    refuse(r#"{"command": "true", "comand": "x"}"#, "did you mean command");
    refuse(r#"{"command": "true", "delay": "1s", "at": "2030-01-01T00:00:00Z"}"#, "one of them");
    refuse(r#"{"command": "true", "retries": -1}"#, "from 0");
    refuse(r#"{"command": "true", "runner": "x"}"#, "no runner");
    refuse(r#"{"prompt": "x", "agent": "plan"}"#, "did you mean \"plain\"");
    refuse(r#"[{"command": "true"}, {"command": 7}]"#, "task 2 of the list");
    refuse("[]", "0 tasks");
    assert_eq!(home.call("task.stats", "{}")["total"], 0, "all or none");
    let running = submit(&home, json!({ "command": "sleep 1000" }));
    wait_task(&home, running, "running");
    let (_, text) = home.fails(&["task", "edit", &running.to_string(), "--priority", "3"]);
    assert!(text.contains("is running"), "{text}");
    assert!(home.fails(&["task", "remove", &running.to_string()]).1.is_empty());
    assert!(home.fails(&["task", "cancel", "77"]).1.contains("there is no task 77"));
    assert!(home.fails(&["task", "list", "-s", "runing"]).1.contains("did you mean running"));
    assert!(home.fails(&["task", "show", "x"]).1.contains("not the number"));
    assert!(home.fails(&["task", "cancel"]).1.contains("which tasks"));
    let mut child =
        home.command(&["add", "--stdin", "-", "--wait", "--", "cat"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&[0, 255, 10]).unwrap();
    assert!(child.wait().unwrap().success());
    let out = home.hob(&["task", "output", &(running + 1).to_string()]);
    assert_eq!(out.stdout, [0, 255, 10]);
}

#[test]
fn hundreds_of_waits_for_all_tasks_harm_nobody_and_very_many_are_told_by_numbers() {
    let home = Home::running("{}");
    home.ok(&["group", "pause", "default"]);
    home.ok(&["add", "--array", "1-5000", "--", "echo", "{}"]);
    let mut stream = UnixStream::connect(home.path("run/hob.sock")).unwrap();
    let ask = |n: usize| format!("{{\"jsonrpc\":\"2.0\",\"id\":{n},\"method\":\"task.wait\"}}\n");
    stream.write_all((0..300).map(ask).collect::<String>().as_bytes()).unwrap();
    assert_eq!(home.call("ping", "{}")["pong"], true);
    let late = home.call("task.wait", r#"{"timeout": 0}"#);
    assert_eq!(
        (&late["done"], &late["counts"], &late["left_out"]),
        (&false.into(), &json!({"queued": 5000}), &4000.into())
    );
    assert_eq!(late["tasks"].as_array().unwrap().len(), 1000);
    let said = home.ok(&["task", "cancel", "--all"]);
    assert_eq!(said, "of 5000 tasks 5000 changed: each of them is cancelled\n");
    let said = home.hob(&["task", "wait", "1-5000"]);
    assert_eq!(said.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&said.stdout).ends_with("and 4000 more; 'hob task list' shows them by pages\n"));
}
