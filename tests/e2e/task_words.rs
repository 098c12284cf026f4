//! What the commands about tasks say to people, and how they end.

use crate::support::*;
use crate::tasks::{submit, task, wait_task};
use serde_json::{Value, json};
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

#[test]
fn commands_say_what_came_of_them_and_no_more() {
    let home = Home::running(r#"{ "groups": {"one": {"parallel": 1}} }"#);
    let says = |args: &[&str], words: &str| {
        let text = home.ok(args);
        assert!(text.contains(words), "{args:?}: {words:?} is not in\n{text}");
    };
    says(&["task", "list"], "there are no tasks");
    let slow = submit(&home, json!({ "command": "sleep 1000", "timeout": "50ms" })).to_string();
    home.call("task.wait", &json!({ "ids": slow }).to_string());
    let begun = submit(&home, json!({ "command": "exec sleep 1000", "group": "one" })).to_string();
    wait_task(&home, begun.parse().unwrap(), "running");
    let waits = submit(&home, json!({ "command": "true", "group": "one" })).to_string();
    // A selection tells of what it has changed, and a name of each.
    assert_eq!(home.ok(&["task", "hold", "--all"]), format!("task {waits} is held\n2 others left alone\n"));
    says(&["task", "hold", "--all"], "3 tasks left alone");
    let (code, text) = home.fails(&["task", "hold", &slow]);
    assert!(code == 1 && text.is_empty(), "{code} {text}");
    let out = home.hob(&["task", "hold", &slow]);
    assert_eq!(String::from_utf8(out.stdout).unwrap(), format!("task {slow} is left alone: it has timed out\n"));
    // One that has never run has written nothing.
    let out = home.hob(&["task", "output", &waits]);
    let said = String::from_utf8(out.stderr).unwrap();
    assert!(out.status.success() && said.contains(&format!("task {waits} has not run")), "{said}");
    says(&["task", "release", "--all"], &format!("task {waits} is queued"));
    let (code, text) = home.fails(&["task", "wait", &waits, "--timeout", "50ms"]);
    assert!(code == 124 && text.contains(&format!("task {waits} is still queued after 50 ms")), "{code} {text}");
    says(&["help", "exit-codes"], "124");
    let (code, text) = home.fails(&["task", "wait", "--timeout", "50ms"]);
    assert!(code == 124 && text.contains("2 of 3 tasks are not over"), "{code} {text}");
    says(&["why", &waits], "the only slot of group one is taken");
}

#[test]
fn adding_tells_of_keys_labels_and_failures() {
    let home = Home::running("{}");
    let add = |args: &[&str]| home.ok(&[&["add"], args].concat());
    assert_eq!(add(&["--key", "k1", "--", "sleep", "1000"]), "task 1 is queued\n");
    wait_task(&home, 1, "running");
    let known = "task 1 has this key already (running); nothing was added\n";
    assert_eq!(add(&["--key", "k1", "--", "sleep", "1000"]), known);
    let again = home.call("task.submit", r#"{"command":"true","key":"k2"}"#);
    assert_eq!(again, json!({ "id": 2 }), "a new one is nothing special");
    let out = home.hob(&["add", "-w", "echo no; exit 4"]);
    let (said, told) = (String::from_utf8(out.stdout).unwrap(), String::from_utf8(out.stderr).unwrap());
    assert_eq!((out.status.code(), said.as_str()), (Some(4), "task 3 is queued\n"));
    assert_eq!(told, "hob: task 3 failed: exit code 4; 'hob task output 3' shows what it wrote\n");
    let (code, text) = home.fails(&["add", "--label", "foo", "--", "true"]);
    assert!(code == 2 && text.contains("NAME=VALUE is wanted, not 'foo'"), "{code} {text}");
    assert_eq!(task(&home, 3)["exit_code"], 4);
}

#[test]
fn groups_that_do_not_exist_and_selections_that_find_nothing_are_told() {
    let home = Home::running(r#"{ "groups": {"build": {"parallel": 3}} }"#);
    for command in
        [&["task", "list", "-g", "bild"][..], &["task", "cancel", "-g", "bild"], &["task", "wait", "-g", "bild"]]
    {
        let (code, text) = home.fails(command);
        assert!(code == 4 && text.contains("there is no group \"bild\"") && text.contains("\"build\"?"), "{text}");
        let command = [&command[..2], &["-g", "build"]].concat();
        assert_eq!(home.ok(&command), "no task matches\n", "{command:?}");
    }
    assert_eq!(home.ok(&["task", "list", "--label", "a=b"]), "no task matches\n");
    assert_eq!(home.ok(&["group", "set", "build", "--parallel", "1"]), "group build: 1 slot\n");
    assert_eq!(home.ok(&["group", "set", "build", "--remove"]), "group build is as the config says again: 3 slots\n");
    home.ok(&["group", "set", "mine", "--parallel", "2"]);
    assert!(home.ok(&["group", "set", "mine", "--remove"]).contains("group mine is gone"));
    assert!(!home.ok(&["group", "list"]).contains("mine"));
}

#[test]
fn a_reload_tells_of_jobs_groups_agents_and_hob_itself() {
    let home = Home::running(
        r#"{ "schedule": { "jobs": [
        { "id": "a", "every": "1h", "action": { "method": "daemon.reload" } },
        { "id": "b", "every": "1h", "action": { "method": "daemon.reload" } } ] } }"#,
    );
    assert_eq!(home.ok(&["reload"]), "nothing has changed\n");
    home.write_config(
        r#"{ "daemon": { "heartbeat": "7s" }, "groups": { "g": { "parallel": 2 } },
        "agents": { "x": { "command": ["true"] } }, "schedule": { "jobs": [
        { "id": "a", "every": "2h", "action": { "method": "daemon.reload" } },
        { "id": "c", "every": "1h", "action": { "method": "daemon.reload" } } ] } }"#,
    );
    let want = "jobs added: c\njobs removed: b\njobs updated: a\nsettings updated: daemon.heartbeat, groups, agents\n";
    assert_eq!(home.ok(&["reload"]), want);
    assert_eq!(home.ok(&["reload"]), "nothing has changed\n");
    // Times are local ones here as in the history, and not those of the protocol.
    let next = home.call("schedule.get", r#"{"id":"c"}"#)["next"].as_str().unwrap().to_owned();
    for told in [home.ok(&["schedule", "list"]), home.ok(&["why", "schedule/c"])] {
        assert!(!told.contains(&next), "{next}: {told}");
    }
    assert!(home.ok(&["schedule", "check"]).contains("good, 2 jobs"));
    home.write_config(r#"{ "schedule": { "jobs": [ { "id": "a", "every": "1h", "action": { "taks": {} } } ] } }"#);
    let text = String::from_utf8(home.hob(&["config", "check"]).stdout).unwrap();
    assert!(text.contains("an action has one of task, start, stop"), "{text}");
}

#[test]
fn a_wait_for_many_names_those_that_failed() {
    let home = Home::running("{}");
    let (code, said) = home.fails(&["add", "--array", "1-4", "-w", "exit {}"]);
    assert!(code == 1 && said.contains("4 of 4 tasks did not succeed") && said.contains("hob task output"), "{said}");
    for n in 1..=4 {
        assert!(said.contains(&format!("task {n} failed: exit code {n}\n")), "{said}");
    }
    let (_, said) = home.fails(&["add", "--array", "1-30", "-w", "test {} = 9"]);
    assert!(
        said.contains("29 of 30 ") && !said.contains("task 13 ") && said.contains("and 9 more: hob task "),
        "{said}"
    );
    assert_eq!(home.fails(&["add", "--array", "1-2", "-wq", "exit {}"]), (1, String::new()));
    assert_eq!(home.ok(&["add", "--array", "1-2", "-w", "true {}"]), "tasks 37-38 are queued\n");
}

#[test]
fn what_cannot_be_executed_and_what_is_not_there_have_codes_of_their_own() {
    let home = Home::running("{}");
    for (name, mode, text) in [("unable", 0o644, "#!/bin/sh\n"), ("odd", 0o755, "\u{1}\u{2}no program")] {
        fs::write(home.path(name), text).unwrap();
        fs::set_permissions(home.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    let code = |args: &[&str]| home.fails(&[&["add", "-w"], args].concat());
    let dir = home.dir.to_str().unwrap();
    for args in [
        &["-C", dir, "--", "./unable"][..],
        &["-C", dir, "--", "./odd"],
        &["-C", "/nowhere", "--", "true"],
        &["-C", home.path("odd").to_str().unwrap(), "--", "true"],
    ] {
        let (code, said) = code(args);
        assert_eq!(code, 126, "{args:?}: {said}");
    }
    for args in [&["-C", dir, "--", "./nothing"][..], &["--", "no-such-program"]] {
        let (code, said) = code(args);
        assert_eq!(code, 127, "{args:?}: {said}");
    }
}

#[test]
fn a_cancelled_task_that_still_runs_is_not_said_to_be_over() {
    let home = Home::running(r#"{ "groups": {"one": {"parallel": 1}} }"#);
    let ready = home.path("ready");
    let command = format!("trap '' TERM; touch {}; while :; do sleep 1; done", ready.display());
    for command in [command, "true".to_owned()] {
        submit(&home, json!({ "command": command, "group": "one" }));
    }
    wait("the trap is set", || ready.exists());
    assert_eq!(home.ok(&["task", "cancel", "2"]), "task 2 is cancelled\n");
    assert_eq!(home.ok(&["task", "cancel", "1"]), "task 1 is being cancelled: its processes are asked to end\n");
    home.ok(&["task", "cancel", "--force", "1"]);
    wait_task(&home, 1, "cancelled");
}

#[test]
fn a_moment_that_is_over_is_refused_with_how_it_was_read() {
    let home = Home::running("{}");
    for (at, hint) in [
        ("yesterday", true),
        ("today", true),
        ("2020-02-03", true),
        ("2020-02-03 04:05", false),
        ("2020-02-03T04:05:06Z", false),
    ] {
        let (code, said) = home.fails(&["add", "--at", at, "--", "true"]);
        assert!(code == 2 && said.contains("is in the past: it was read as "), "{at}: {code} {said}");
        assert_eq!(said.contains("a date alone is 00:00"), hint, "{at}: {said}");
    }
    assert!(home.fails(&["add", "--at", "2020-02-03", "true"]).1.contains("read as 2020-02-03 00:00:00"));
    assert_eq!(home.ok(&["add", "--at", "now", "true"]), "task 1 is queued\n");
    assert_eq!(home.ok(&["add", "--at", "2999-01-01", "true"]), "task 2 is queued\n");
}

#[test]
fn the_key_of_a_removed_task_adds_nothing_and_nobody_waits_for_its_success() {
    let home = Home::running("{}");
    home.fails(&["add", "-w", "--key", "k", "exit 3"]);
    home.ok(&["task", "remove", "1"]);
    let said = home.ok(&["add", "--key", "k", "exit 3"]);
    assert_eq!(said, "task 1 had this key and was removed; nothing was added\n");
    for more in [&["-w"][..], &["-f"], &["-w", "-q"], &["-f", "--print-id"], &["-w", "--json"]] {
        let (code, said) = home.fails(&[&["add", "--key", "k", "exit 3"], more].concat());
        assert!(code == 4 && said.contains("task 1 had this key and was removed, so that it is not"), "{code} {said}");
    }
}

#[test]
fn tasks_are_found_by_whose_they_are_and_get_other_labels() {
    let home = Home::running("{}");
    assert_eq!(
        home.ok(&["add", "--array", "7-7", "--hold", "--label", "a=1", "--", "echo", "{}"]),
        "task 1 is queued\n"
    );
    for mine in [&["--mine"][..], &["--owner", "mine"]] {
        assert!(home.ok(&[&["task", "list"], mine].concat()).contains("echo 7"), "{mine:?}");
    }
    let (code, said) = home.fails(&["task", "list", "--mine", "--owner", "mine"]);
    assert!(code == 2 && said.contains("--mine and --owner"), "{code} {said}");
    home.ok(&["task", "edit", "1", "--label", "b=2", "-l", "c=3"]);
    assert_eq!(task(&home, 1)["labels"], json!({ "b": "2", "c": "3" }));
    assert_eq!(home.ok(&["task", "release", "--mine"]), "task 1 is queued\n");
}

#[test]
fn what_is_given_with_a_task_neither_colours_nor_erases() {
    let home = Home::running("{}");
    let odd = "\u{1b}[31mred\u{9b}2J\u{8}";
    home.fails(&["add", "-w", "--label", &format!("l={odd}"), "--", &format!("/{odd}"), odd]);
    let (_, said) = home.fails(&["add", "-w", "-C", &format!("/{odd}"), "true"]);
    for text in [home.ok(&["task", "list"]), home.ok(&["task", "show", "1"]), home.ok(&["task", "show", "2"]), said] {
        assert!(text.contains("\\u{1b}[31mred"), "{text:?}");
        assert!(text.chars().all(|c| !c.is_control() || c == '\n'), "{text:?}");
    }
    // What a task writes is passed on as it is.
    home.ok(&["add", "-w", "--", "printf", "%s", odd]);
    assert_eq!(home.ok(&["task", "output", "3"]), odd);
}

#[test]
fn tasks_that_never_began_are_not_said_to_have_written() {
    let home = Home::running("{}");
    submit(&home, json!({ "command": "sleep 1000", "key": "first" }));
    let child =
        home.command(&["add", "--array", "1-2", "-w", "--after", "1", "true {}"]).stderr(Stdio::piped()).spawn();
    wait("both wait", || home.call("task.stats", "{}")["queued"] == 2);
    home.ok(&["task", "cancel", "2-3"]);
    let out = child.unwrap().wait_with_output().unwrap();
    let said = String::from_utf8(out.stderr).unwrap();
    assert!(said.contains("2 of 2 tasks did not succeed\n") && !said.contains("hob task output"), "{said}");
}

#[test]
fn who_follows_a_task_ends_with_it_when_hob_is_stopped() {
    for how in [&["add", "-f", "--"][..], &["task", "output", "-f"]] {
        let home = Home::running("{}");
        let command = ["sh", "-c", "echo begun; exec sleep 1000"];
        let args = if how[0] == "add" {
            [how, &command].concat()
        } else {
            home.ok(&[&["add", "--"][..], &command].concat());
            [how, &["1"]].concat()
        };
        let mut child = home.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut begun = [0; 6];
        child.stdout.as_mut().unwrap().read_exact(&mut begun).unwrap();
        home.ok(&["stop"]);
        let out = child.wait_with_output().unwrap();
        let said = String::from_utf8(out.stderr).unwrap();
        assert_eq!((out.status.code(), begun), (Some(143), *b"begun\n"), "{how:?}: {said}");
        assert!(said.is_empty() || said.contains("task 1 was cancelled"), "{how:?}: {said}");
    }
}

#[test]
fn of_a_flood_over_a_tiny_limit_the_ends_are_kept_and_nobody_waits_for_it() {
    let home = Home::running("{}");
    for limit in ["4kB", "5kB"] {
        let id = home.ok(&["add", "--print-id", "--max-output", limit, "yes | head -c 3000000; echo end"]);
        let id: u64 = id.trim().parse().unwrap();
        // A task beside it is done, with its output, while the flood goes on or soon after.
        home.ok(&["add", "-w", "echo beside"]);
        wait_task(&home, id, "succeeded");
        let row = task(&home, id);
        assert_eq!((&row["output_bytes"], &row["over_limit"]), (&json!(3_000_004), &json!(true)), "{row}");
        let output = home.ok(&["task", "output", &id.to_string()]);
        assert!(output.starts_with("y\n") && output.ends_with("\nend\n") && output.len() < 6000, "{output}");
    }
}

/// What a call is refused with.
fn refused(home: &Home, method: &str, params: &Value) -> String {
    home.fails(&["call", method, &params.to_string()]).1
}

#[test]
fn an_empty_selection_takes_nothing() {
    let config =
        r#"{ "schedule": { "jobs": [ { "id": "a", "every": "1h", "action": { "method": "daemon.reload" } } ] } }"#;
    let home = Home::running(config);
    for _ in 0..2 {
        let id = submit(&home, json!({ "command": "true" }));
        wait_task(&home, id, "succeeded");
    }
    for (method, params) in [
        ("task.clean", json!({ "ids": [] })),
        ("task.clean", json!({ "state": [] })),
        ("task.clean", json!({ "ids": [], "state": "succeeded" })),
        ("task.wait", json!({ "ids": [] })),
        ("task.remove", json!({ "ids": [] })),
        ("task.cancel", json!({ "ids": [], "all": true })),
        ("task.retry", json!({ "state": [], "ids": 1 })),
        ("schedule.pause", json!({ "ids": [ ] })),
        ("schedule.resume", json!({ "ids": [] })),
    ] {
        let text = refused(&home, method, &params);
        assert!(text.contains(&format!("of {method} is an empty list, which selects nothing")), "{text}");
    }
    for params in [r#"{"ids":[]}"#, r#"{"state":[]}"#, r#"{"state":"succeeded","ids":[ ]}"#] {
        assert_eq!(home.call("task.list", params), json!({ "tasks": [], "next": null }), "{params}");
    }
    assert_eq!(home.call("schedule.list", r#"{"ids":[]}"#), json!({ "jobs": [] }));
    assert_eq!(home.call("schedule.list", "{}")["jobs"][0]["paused"], false);
    assert_eq!(home.call("task.list", "{}")["tasks"].as_array().unwrap().len(), 2);
}

#[test]
fn large_tasks_are_cut_in_lists_and_pages_end_before_a_reply_is_too_long() {
    let home = Home::running("{}");
    let send = |params: &Value| {
        let path = home.path("params.json");
        fs::write(&path, params.to_string()).unwrap();
        home.command(&["call", "task.submit", "-"]).stdin(fs::File::open(&path).unwrap()).output().unwrap()
    };
    for _ in 0..4 {
        assert!(send(&json!({ "command": ["echo", "\u{e4}".repeat(2_500_000)], "hold": true })).status.success());
    }
    let list = home.call("task.list", "{}");
    let words = &list["tasks"][3]["command"];
    assert_eq!((&words[0], list["tasks"][3]["command_cut"].as_bool()), (&json!("echo"), Some(true)));
    let shown = words[1].as_str().unwrap().chars().count();
    assert!((400..=500).contains(&shown) && list["next"].is_null(), "{shown} letters");
    assert_eq!(task(&home, 4)["command"][1].as_str().unwrap().len(), 5_000_000);
    let label = |bytes: usize| json!({ "command": ["true"], "hold": true, "labels": { "l": "x".repeat(bytes - 1) } });
    let out = send(&label(16_385));
    let said = String::from_utf8(out.stderr).unwrap();
    assert!(
        !out.status.success() && said.contains("labels of task.submit have 16385 bytes; 16384 is the most"),
        "{said}"
    );
    assert!(send(&json!({ "tasks": vec![label(16_384); 600] })).status.success());
    let page = home.call("task.list", r#"{"limit":1000}"#);
    let rows = page["tasks"].as_array().unwrap();
    assert!((100..400).contains(&rows.len()), "{} rows", rows.len());
    assert_eq!(page["next"], rows.last().unwrap()["id"]);
    let next = home.call("task.list", &json!({ "limit": 1000, "after": page["next"] }).to_string());
    assert_eq!(next["tasks"][0]["id"].as_u64(), page["next"].as_u64().map(|id| id + 1));
    let last = home.call("task.list", r#"{"limit":1000,"last":true}"#);
    assert_eq!(last["tasks"].as_array().unwrap().last().unwrap()["id"], 604);
    let waited = home.call("task.wait", r#"{"timeout":0}"#);
    let (shown, left) = (waited["tasks"].as_array().unwrap().len(), waited["left_out"].as_u64().unwrap());
    assert!(shown >= 100 && left >= 100 && shown as u64 + left == 604, "{shown} and {left}");
}

#[test]
fn misspelt_and_senseless_parts_of_a_task_are_refused() {
    let home = Home::running("{}");
    submit(&home, json!({ "command": "true", "hold": true }));
    let of = |more: Value| {
        let mut params = json!({ "command": "true" });
        params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        refused(&home, "task.submit", &params)
    };
    let text = of(json!({ "after": [{ "id": 1, "ayn": true }] }));
    assert!(text.contains("has no key \"ayn\"") && text.contains("did you mean any?"), "{text}");
    let text = of(json!({ "after": { "id": 1, "foo": true } }));
    assert!(text.contains("has no key \"foo\"") && text.contains("it has id, any, condition"), "{text}");
    let text = of(json!({ "after": [1, { "any": true }] }));
    assert!(text.contains("after of task.submit is numbers of tasks"), "{text}");
    let text = refused(&home, "task.edit", &json!({ "id": 1, "after": [{ "id": 1, "ayn": true }] }));
    assert!(text.contains("did you mean any?"), "{text}");
    for size in [json!(0), json!(3_999), json!("1B")] {
        let text = of(json!({ "max_output": size }));
        assert!(text.contains("max_output of task.submit is 4kB at least"), "{text}");
    }
    let many: serde_json::Map<String, Value> = (0..65).map(|n| (n.to_string(), json!("x"))).collect();
    let text = of(json!({ "labels": many }));
    assert!(text.contains("labels of task.submit are 65; 64 is the most"), "{text}");
    let good =
        json!({ "command": "true", "max_output": "4kB", "after": [{ "id": 1, "any": true, "condition": null }] });
    assert_eq!(submit(&home, good), 2);
}

#[test]
fn a_group_that_tasks_need_is_not_removed_under_them() {
    let home = Home::running(r#"{ "groups": { "known": { "parallel": 2 } } }"#);
    home.ok(&["group", "set", "serial", "--parallel", "1"]);
    let begun = submit(&home, json!({ "command": "exec sleep 1000", "group": "serial" }));
    wait_task(&home, begun, "running");
    let waits = submit(&home, json!({ "command": "true", "group": "serial" }));
    let (code, text) = home.fails(&["group", "set", "serial", "--remove"]);
    assert!(code != 0 && text.contains("group serial has 2 tasks not over") && text.contains("task cancel -g serial"));
    assert_eq!(task(&home, waits)["state"], "queued");
    home.ok(&["task", "cancel", &waits.to_string()]);
    let (_, text) = home.fails(&["group", "set", "serial", "--remove"]);
    assert!(text.contains("group serial has a task that is not over"), "{text}");
    home.ok(&["task", "cancel", &begun.to_string()]);
    wait_task(&home, begun, "cancelled");
    home.ok(&["group", "set", "serial", "--remove"]);
    // What the config says goes on to hold for its own.
    home.ok(&["group", "set", "known", "--parallel", "1"]);
    submit(&home, json!({ "command": "true", "group": "known", "hold": true }));
    assert_eq!(home.ok(&["group", "set", "known", "--remove"]), "group known is as the config says again: 2 slots\n");
}

#[test]
fn why_names_the_weight_that_is_lacking_and_when_a_follower_was_cancelled() {
    let home = Home::running(r#"{ "groups": { "heavy": { "parallel": 10, "weight_limit": 5 } } }"#);
    let begun = submit(&home, json!({ "command": "exec sleep 1000", "group": "heavy", "weight": 4 }));
    wait_task(&home, begun, "running");
    let waits = submit(&home, json!({ "command": "true", "group": "heavy", "weight": 3 }));
    let follows = submit(&home, json!({ "command": "true", "after": waits }));
    let why = home.ok(&["why", &waits.to_string()]);
    assert!(why.contains("group set heavy --weight-limit 7") && !why.contains("--parallel"), "{why}");
    home.ok(&["group", "set", "heavy", "--weight-limit", "7"]);
    wait_task(&home, waits, "succeeded");
    wait_task(&home, follows, "succeeded");
    let last = submit(&home, json!({ "command": "true", "after": begun }));
    home.ok(&["task", "cancel", &begun.to_string()]);
    wait_task(&home, last, "cancelled");
    let at = task(&home, last)["ended"].as_str().unwrap().to_owned();
    let story = home.call("daemon.why", &json!({ "name": format!("task/{last}") }).to_string())["story"].to_string();
    assert!(story.contains(&format!("{at}: cancelled: task {begun}, which it follows, was cancelled")), "{story}");
}

/// A group is there for its tasks when neither the config nor a person names it any more.
#[test]
fn a_group_that_left_the_config_says_what_keeps_it_and_goes_with_that() {
    let home = Home::running(r#"{"groups": {"old": {"parallel": 1}}}"#);
    home.ok(&["add", "-g", "old", "--hold", "true"]);
    assert!(!home.ok(&["group", "list"]).contains("kept for"));
    home.write_config("{}");
    home.ok(&["reload"]);
    let list = home.ok(&["group", "list"]);
    let row = list.lines().find(|l| l.starts_with("old ")).unwrap();
    assert!(row.ends_with("not in the config, kept for 1 task"), "{list}");
    home.ok(&["task", "cancel", "1"]);
    home.ok(&["task", "clean"]);
    let list = home.ok(&["group", "list"]);
    assert!(!list.contains("old"), "{list}");
}
