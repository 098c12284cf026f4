//! What the flags about tasks take: ids that are there, more than once, in range; and what a wait for a task says.

use crate::support::*;
use std::process::{Command, Stdio};

fn added(home: &Home, args: &[&str]) -> String {
    home.ok(&[&["add", "--print-id"], args].concat()).trim().to_owned()
}

#[test]
fn a_task_waits_for_all_that_was_named_and_for_nothing_that_was_not() {
    let home = Home::running("{}");
    let (a, b, c) = (added(&home, &["--hold", "true"]), added(&home, &["true"]), added(&home, &["--hold", "true"]));
    home.ok(&["task", "wait", &b]);
    let d = added(&home, &["--after", &a, "--after", &b, "--after-any", &c, "true"]);
    let waits = |id: &str| home.call("task.get", &format!("{{\"id\":{id}}}"))["after"].to_string();
    assert_eq!(waits(&d), format!(r#"[{{"id":{a}}},{{"id":{b}}},{{"any":true,"id":{c}}}]"#));
    home.ok(&["task", "edit", &d, "--after", &b, "--after-any", &a]);
    assert_eq!(waits(&d), format!(r#"[{{"any":true,"id":{a}}},{{"id":{b}}}]"#));
    let before = home.ok(&["task", "list", "--json"]);
    for empty in ["", ",", " ", "1,", ",1"] {
        for line in [
            &["add", "--after", empty, "true"][..],
            &["add", "--after-any", empty, "true"],
            &["task", "edit", &d, "--after", empty],
        ] {
            let (code, said) = home.fails(line);
            assert!(code == 2 && said.contains("was a variable not set?"), "{line:?}: {code} {said}");
        }
    }
    assert_eq!(home.ok(&["task", "list", "--json"]), before, "nothing was added or changed");
}

#[test]
fn mistakes_are_told_in_the_words_of_the_flags() {
    let home = Home::running("{}");
    let failed = added(&home, &["exit 1"]);
    assert!(!home.hob(&["task", "wait", &failed]).status.success());
    let held = added(&home, &["--hold", "true"]);
    for (line, want) in [
        (&["add", "-g", "", "true"][..], "--group is empty"),
        (&["add", "--max-output", "10XB", "true"], "--max-output: "),
        (&["add", "-e", "=x", "true"], "--env: a variable has no name"),
        (&["add", "-p", "99999999999999", "true"], "from -2147483648 to 2147483647"),
        (&["add", "--at", "xyz", "true"], "(today, or the day after)"),
        (&["task", "edit", &held], "what is to be changed?"),
        (&["group", "set", "new"], "what is to be set?"),
        (&["group", "set", "new", "-j", "99999999"], "from 0 to 10000"),
        (&["group", "set", "new", "-j", "-1"], "from 0 to 10000"),
        (&["inhibit", "--", "true"], "a command needs --why"),
        (&["add", "--array", "1-1000000000", "echo {}"], "100000"),
        (&["add", "--array", "5-1", "echo {}"], "is not a range such as 1-100"),
    ] {
        let (code, said) = home.fails(line);
        assert!(code == 2 && said.contains(want) && !said.contains("task.edit"), "{line:?}: {code} {said}");
    }
    let (_, said) = home.fails(&["call", "group.set", r#"{"name": "new", "parallel": 99999999}"#]);
    assert!(said.contains("from 0 to 10000"), "{said}");
    let (_, said) = home.fails(&["add", "--after", &failed, "true"]);
    assert!(said.contains("--after-any takes any end"), "{said}");
    // So many that no message holds them: none is added, and how many fit is said.
    let long = format!("echo {{}} {}", "x".repeat(2000));
    let (code, said) = home.fails(&["add", "--array", "1-20000", &long]);
    assert!(code == 2 && said.contains("more than hob takes at once; about "), "{code} {said}");
    let fit: u64 = said.split("about ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!((5000..9000).contains(&fit), "{said}");
    assert_eq!(home.ok(&["task", "list", "-n", "0"]), "");
    assert_eq!(home.ok(&["events", "-n", "0"]), "");
    let out = home.hob(&["events", "-n", "0"]);
    assert!(out.stderr.is_empty(), "{}", String::from_utf8_lossy(&out.stderr));
}

#[test]
fn very_many_are_told_by_their_number() {
    let home = Home::running("{}");
    home.ok(&["add", "--hold", "--array", "1-30", "echo {}"]);
    let said = home.ok(&["task", "cancel", "1-5"]);
    assert_eq!(said.lines().count(), 5, "{said}");
    assert_eq!(home.ok(&["task", "cancel", "--state", "held"]), "of 25 tasks 25 changed: each of them is cancelled\n");
}

#[test]
fn who_stops_waiting_is_told_that_the_task_goes_on() {
    let home = Home::running("{}");
    let child = home
        .command(&["add", "-f", "touch ran; exec sleep 1000", "-C"])
        .arg(&home.dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait("it runs", || exists(&home.path("ran")));
    kill("INT", child.id());
    let out = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(said.contains("task 1 goes on") && said.contains("hob task cancel 1"), "{said}");
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&out.status), Some(2));
    assert_eq!(home.call("task.get", r#"{"id":1}"#)["state"], "running");
}

#[test]
fn what_a_wait_waits_for_is_told_on_a_terminal() {
    let there = Command::new("script").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !there.is_ok_and(|s| s.success()) {
        return skip("there is no script(1) to make a terminal");
    }
    let home = Home::running("{}");
    let line = format!("{HOB} --home {} add --hold -w true", home.dir.display());
    let file = home.path("typescript");
    let mut child = Command::new("script")
        .args(["-qfc", &line])
        .arg(&file)
        .env("TERM", "xterm")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait("it says what it waits for", || home.read("typescript").contains("task 1 is held; hob task release 1"));
    home.ok(&["task", "release", "1"]);
    wait("it ends", || child.try_wait().unwrap().is_some());
}

#[test]
fn a_runner_that_is_a_text_gets_the_command_as_its_arguments() {
    let config = r#"{ "runners": {
        "end": { "prefix": "env X=1" },
        "inside": { "prefix": "X=2 \"$@\"; echo after" },
        "lost": { "prefix": ["/no/such/program"] }
    } }"#;
    let home = Home::running(config);
    let (_, said) = home.fails(&["add", "--runner", "lost", "-w", "true"]);
    assert!(said.contains("check `runners.lost.prefix`"), "{said}");
    let run =
        |runner: &str| home.ok(&["add", "--runner", runner, "-f", "--", "sh", "-c", "echo \"$X:$1\"", "s", "a b"]);
    assert_eq!((run("end"), run("inside")), ("1:a b\n".to_owned(), "2:a b\nafter\n".to_owned()));
    let shown = home.ok(&["config", "show"]);
    home.write_config(&shown);
    assert!(home.ok(&["plan"]).contains("nothing would change"));
}

#[test]
fn an_agent_that_is_a_text_gets_its_prompt_as_its_argument() {
    let config = r#"{ "agents": {
        "end": { "command": "echo zero=[$0] one=[$1] all=[$#]" },
        "inside": { "command": "printf '%s|' \"$@\" | awk '{print $1}'" },
        "bare": { "command": "printf '%s|' x" },
        "file": { "command": "cat", "prompt": "file" },
        "stdin": { "command": "cat; echo $#", "prompt": "stdin" },
        "lost": { "command": ["no-such-program-here"] }
    } }"#;
    let home = Home::running(config);
    let run = |agent: &str| home.ok(&["add", "--agent", agent, "-f", "two  words"]);
    assert_eq!(run("end"), "zero=[sh] one=[two words] all=[1]\n");
    assert_eq!(run("inside"), "two\n");
    assert_eq!((run("bare"), run("file")), ("x|two  words|".to_owned(), "two  words".to_owned()));
    assert_eq!(run("stdin"), "two  words0\n");
    home.ok(&["add", "--array", "7-8", "--agent", "end", "part {} of {}"]);
    let last = home.ok(&["task", "list", "--json"]);
    let last: serde_json::Value = serde_json::from_str(&last).unwrap();
    let last = last["tasks"].as_array().unwrap().last().unwrap()["id"].to_string();
    home.ok(&["task", "wait", &last]);
    assert_eq!(home.ok(&["task", "output", &last]), "zero=[sh] one=[part 8 of 8] all=[1]\n");
    let (code, said) = home.fails(&["add", "--array", "1-2", "--agent", "end", "no number"]);
    assert!(code == 2 && said.contains("the prompt has none"), "{code} {said}");
    let (_, said) = home.fails(&["add", "--agent", "lost", "-w", "x"]);
    assert!(said.contains("`agents.lost.command`") && !said.contains("\"command\""), "{said}");
    let shown = home.ok(&["config", "show"]);
    home.write_config(&shown);
    assert!(home.ok(&["plan"]).contains("nothing would change"));
}

#[test]
fn a_runner_that_is_read_by_a_shell_again_gets_quoted_words() {
    let home = Home::new("{}");
    let program = |name: &str, text: &str| {
        let path = home.path(name);
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        path.display().to_string()
    };
    let joins = program("ssh", "shift; REMOTE=far exec sh -c \"$*\"");
    let other = program("joins", "shift; REMOTE=far exec sh -c \"$*\"");
    let keeps = program("srun", "shift; REMOTE=far exec \"$@\"");
    home.write_config(&format!(
        r#"{{ "runners": {{
            "ssh": {{ "prefix": "{joins} host" }}, "list": {{ "prefix": ["{joins}", "host"] }},
            "exec": {{ "prefix": "exec {joins} host" }}, "raw": {{ "prefix": "{joins} host", "quote": false }},
            "other": {{ "prefix": ["{other}", "host"], "quote": true }}, "srun": {{ "prefix": ["{keeps}", "host"] }}
        }} }}"#
    ));
    let mut home = home;
    home.start(&[]);
    let run = |runner: &str, command: &[&str]| {
        let out = home.hob(&[&["add", "--runner", runner, "-f"], command].concat());
        (out.status.code(), String::from_utf8(out.stdout).unwrap())
    };
    for runner in ["ssh", "list", "exec", "other", "srun"] {
        let told = run(runner, &[r#"echo "two  words" $REMOTE; exit 3"#]);
        assert_eq!(told, (Some(3), "two  words far\n".to_owned()), "{runner}");
        let told = run(runner, &["--", "printf", "%s|", "it's", "", "a  b", "$REMOTE", "*", "A=b"]);
        assert_eq!(told, (Some(0), "it's||a  b|$REMOTE|*|A=b|".to_owned()), "{runner}");
    }
    // Who says so gives the far shell its line as it is.
    assert_eq!(run("raw", &["--", "echo", "two  $REMOTE"]), (Some(0), "two far\n".to_owned()));
    let shown = home.ok(&["config", "show"]);
    home.write_config(&shown);
    assert!(home.ok(&["plan"]).contains("nothing would change"));
}

#[test]
fn a_log_that_is_followed_with_others_ends_alone() {
    let config = r#"{ "services": {
        "x": { "command": "exec sleep 1000" }, "y": { "command": "while :; do echo line; sleep 0.05; done" }
    } }"#;
    let home = Home::running(config);
    home.wait_state("y", "running");
    let out = std::fs::File::create(home.path("followed")).unwrap();
    let mut follower = home.command(&["logs", "-f", "x", "y"]).stdin(Stdio::null()).stdout(out).spawn().unwrap();
    wait("it follows", || home.read("followed").contains("line"));
    home.write_config(r#"{ "services": { "y": { "command": "while :; do echo line; sleep 0.05; done" } } }"#);
    home.ok(&["reload"]);
    wait("x is gone", || !home.ok(&["status"]).contains("\nx "));
    kill("KILL", home.pids().0);
    wait("the next daemon answers", || home.hob(&["ping"]).status.success());
    let seen = home.read("followed").len();
    wait("it goes on", || {
        assert!(follower.try_wait().unwrap().is_none(), "it has ended");
        home.read("followed").len() > seen + 200
    });
    kill("TERM", follower.id());
    follower.wait().unwrap();
}

#[test]
fn an_array_with_a_key_is_added_once() {
    let home = Home::running("{}");
    let add = |range: &str, more: &[&str]| {
        home.ok(&[&["add", "--hold", "--array", range, "--key", "nightly"], more, &["--", "echo", "{}"]].concat())
    };
    assert_eq!(add("1-3", &[]), "tasks 1-3 are queued\n");
    let known = "tasks 1-3 have this key already; nothing was added\n";
    assert_eq!(add("1-3", &[]), known);
    assert_eq!(add("1-3", &["--print-id"]), "1\n2\n3\n");
    let (code, said) = home.fails(&["add", "--array", "1-4", "--key", "nightly", "--", "echo", "{}"]);
    let wanted = "key \"nightly\" belongs to a list of 3 tasks from 1 on, which are others";
    assert!(code == 7 && said.contains(wanted), "{code} {said}");
    let (_, said) = home.fails(&["add", "--key", "nightly", "--", "echo", "1"]);
    assert!(said.contains(wanted), "{said}");
    let mixed = r#"[{"command": "true", "key": "a"}, {"command": "true"}]"#;
    let (_, said) = home.fails(&["call", "task.submit", mixed]);
    assert!(said.contains("task 2 of the list has no key, and task 1 key \"a\""), "{said}");
    // The next daemon knows it, and that after both have died.
    kill("KILL", home.pids().0);
    assert_eq!(add("1-3", &[]), known);
    let mut home = home;
    let (daemon, keeper) = (home.pids().0, home.keeper());
    kill("KILL", keeper);
    kill("KILL", daemon);
    home.reap();
    home.start(&[]);
    let add = |more: &[&str]| {
        home.ok(&[&["add", "--hold", "--array", "1-3", "--key", "nightly"], more, &["--", "echo", "{}"]].concat())
    };
    assert_eq!(add(&[]), known);
    home.ok(&["task", "remove", "1-2"]);
    assert_eq!(add(&[]), "tasks 1-3 have this key already, 2 of them removed since; nothing was added\n");
    home.ok(&["task", "release", "3"]);
    let add_and_wait = || home.fails(&["add", "--wait", "--array", "1-3", "--key", "nightly", "--", "echo", "{}"]);
    let (code, said) = add_and_wait();
    assert!(code == 4 && said.contains("2 of tasks 1-3 had this key and were removed"), "{code} {said}");
    home.ok(&["task", "remove", "3"]);
    let (code, said) = add_and_wait();
    assert!(code == 4 && said.contains("tasks 1-3 had this key and were removed, so that"), "{code} {said}");
    assert_eq!(add(&[]), "tasks 1-3 had this key and were removed; nothing was added\n");
}

#[test]
fn what_waits_can_be_put_first_and_be_rid_of_what_it_follows() {
    let job = r#"{ "id": "boot", "cron": "@reboot", "action": { "task": { "command": "true" } } }"#;
    let home = Home::running(&format!(r#"{{ "schedule": {{ "jobs": [{job}] }} }}"#));
    let (a, done) = (added(&home, &["--hold", "true"]), added(&home, &["true"]));
    home.ok(&["task", "wait", &done]);
    let b = added(&home, &["--hold", "--after", &a, "--label", "x=1", "true"]);
    let said = home.ok(&["task", "prioritize", &a, &b, "--priority", "7"]);
    assert_eq!(said, format!("task {a} has priority 7\ntask {b} has priority 7\n"));
    let get = |id: &str| home.call("task.get", &format!("{{\"id\":{id}}}"));
    assert_eq!((&get(&a)["priority"], &get(&b)["priority"]), (&7.into(), &7.into()));
    assert!(home.ok(&["task", "list", &a]).contains("priority 7"), "{}", home.ok(&["task", "list", &a]));
    let out = home.hob(&["task", "prioritize", &done, "-p", "1"]);
    let said = String::from_utf8(out.stdout).unwrap();
    assert_eq!(said, format!("task {done} is left alone: it has succeeded\n"));
    let (code, said) = home.fails(&["task", "prioritize", &a]);
    assert!(code == 2 && said.contains("which priority?"), "{code} {said}");
    let (code, said) = home.fails(&["task", "edit", &b, "--no-after", "--after", &a]);
    assert!(code == 2 && said.contains("takes them away"), "{code} {said}");
    home.ok(&["task", "edit", &b, "--no-after", "--no-labels"]);
    assert_eq!((get(&b)["after"].to_string(), get(&b)["labels"].to_string()), ("[]".to_owned(), "{}".to_owned()));
    let (_, said) = home.fails(&["task", "edit", &done, "--priority", "1"]);
    assert!(said.contains("has succeeded: only one that has not begun"), "{said}");
    // No advice is one that would fail.
    for (name, hint) in [
        ("other", "`hob group set other --parallel 2` makes it"),
        ("a b", "but not ' '"),
        ("-x", "does not begin with"),
    ] {
        let (_, said) = home.fails(&["call", "task.submit", &format!(r#"{{"command": "true", "group": "{name}"}}"#)]);
        assert!(said.contains(hint), "{said}");
    }
    let (_, said) = home.fails(&["call", "group.set", r#"{"name": "-x", "parallel": 1}"#]);
    assert!(said.contains("does not begin with"), "{said}");
    assert_eq!(
        home.ok(&["schedule", "next", "boot"]),
        "boot: it runs once in each boot of the machine, at no time of the clock\n"
    );
    assert!(home.ok(&["why", "boot"]).contains("it runs once in each boot"));
}
