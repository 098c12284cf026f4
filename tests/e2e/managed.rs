//! `hob run --managed`: a hob that is a part of another program, ends with it, and goes on where it was.

use crate::support::*;
use serde_json::Value;
use std::fs;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

const CONFIG: &str = r#"{ "services": { "on": { "command": "exec sleep 1000" },
                                        "extra": { "command": "exec sleep 1000", "autostart": false } } }"#;

/// A managed hob that this test is the parent of.
fn managed(home: &Home, stdin: Stdio) -> Child {
    let errors = fs::File::create(home.path("stderr")).unwrap();
    let mut c = home.command(&["run", "--managed"]);
    let child = c.stdin(stdin).stdout(Stdio::null()).stderr(errors).spawn().unwrap();
    wait("hob answers", || home.hob(&["ping"]).status.success());
    child
}

/// An application that starts a managed hob and waits: a shell, so that it can be killed without killing this test.
fn application(home: &Home, redirect: &str) -> Child {
    let hob = home.command(&["run", "--managed"]);
    let words: Vec<String> =
        std::iter::once(hob.get_program()).chain(hob.get_args()).map(|w| w.to_str().unwrap().into()).collect();
    let mut c = Command::new("sh");
    c.arg("-c").arg(format!("\"$@\" {redirect} & while :; do sleep 1; done")).arg("app").args(words);
    // In a group of its own, and with an end of a pipe that nobody else holds.
    c.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = c.spawn().unwrap();
    wait("hob answers", || home.hob(&["ping"]).status.success());
    child
}

fn gone(home: &Home, pids: &[u32]) {
    wait("hob and its jobs are gone", || pids.iter().all(|p| !alive(*p)));
    wait("the lock is free", || home.hob(&["status"]).status.code() == Some(3));
}

#[test]
fn it_ends_when_standard_input_does_and_what_comes_by_it_means_nothing() {
    let home = Home::new(CONFIG);
    let mut child = managed(&home, Stdio::piped());
    home.wait_state("on", "running");
    let pid = home.pid("on");
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&[b'x'; 50_000]).unwrap();
    assert!(!home.path("run/hob.pid").exists(), "it has no pid file");
    assert_eq!(home.call("daemon.status", "{}")["platform"]["managed"], true);
    let (daemon, keeper) = home.pids();
    assert_eq!(keeper, child.id());
    kill("KILL", daemon);
    wait("the next daemon answers", || home.pids().0 != daemon);
    assert!(!home.path("run/hob.pid").exists());
    drop(stdin);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    gone(&home, &[pid]);
    assert!(home.read("stderr").contains("hob ends with the program that started it: standard input has ended"));
}

#[test]
fn a_parent_that_is_killed_takes_hob_and_its_services_with_it() {
    // With a pipe both ways tell it, with /dev/null its process alone does.
    for redirect in ["<&0", "</dev/null"] {
        let home = Home::new(CONFIG);
        let mut app = application(&home, redirect);
        home.wait_state("on", "running");
        let (daemon, keeper) = home.pids();
        let pid = home.pid("on");
        if redirect == "</dev/null" {
            // Its own end of the pipe says nothing about hob's standard input.
            drop(app.stdin.take());
            assert!(home.hob(&["ping"]).status.success());
        }
        kill("KILL", app.id());
        app.wait().unwrap();
        gone(&home, &[daemon, keeper, pid]);
        assert!(home.read("logs/hob.log").contains("hob ends with the program that started it"), "{redirect}");
    }
}

#[test]
fn another_one_in_the_same_home_fails_clearly() {
    let home = Home::new(CONFIG);
    let mut child = managed(&home, Stdio::piped());
    for args in [&["run", "--managed"][..], &["run"]] {
        let out = home.command(args).stdin(Stdio::piped()).output().unwrap();
        let text = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(3), "{text}");
        assert!(text.contains(&format!("hob is already running with pid {}", child.id())), "{text}");
    }
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}

#[test]
fn what_ran_runs_again_and_what_was_stopped_stays_down() {
    let home = Home::new(
        r#"{ "services": { "on": { "command": "exec sleep 1000" }, "was": { "command": "exec sleep 1000" },
                           "off": { "command": "exec sleep 1000" }, "needs": { "command": "exec sleep 1000",
                           "autostart": false, "requires": ["base"] },
                           "base": { "command": "exec sleep 1000", "autostart": false },
                           "idle": { "command": "exec sleep 1000", "autostart": false } } }"#,
    );
    let states = |home: &Home| {
        let list = home.call("service.list", "{}");
        let one = |s: &Value| format!("{} {}", s["name"].as_str().unwrap(), s["state"].as_str().unwrap());
        let mut all: Vec<String> = list["services"].as_array().unwrap().iter().map(one).collect();
        all.sort();
        all.join(", ")
    };
    let mut child = managed(&home, Stdio::piped());
    home.ok(&["stop", "off"]);
    home.ok(&["start", "needs"]);
    let before = states(&home);
    assert_eq!(before, "base running, idle stopped, needs running, off stopped, on running, was running");
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    // One that ran by autostart alone, which is off now: an ordinary hob would leave it down.
    home.write_config(&home.read("hob.json").replace(
        r#""was": { "command": "exec sleep 1000" }"#,
        r#""was": { "command": "exec sleep 1000", "autostart": false }"#,
    ));
    let mut child = managed(&home, Stdio::piped());
    wait("all is as it was", || states(&home) == before);
    let (daemon, _) = home.pids();
    kill("KILL", daemon);
    wait("the next daemon answers", || home.pids().0 != daemon);
    assert_eq!(states(&home), before, "also after a death of the daemon");
    assert!(home.ok(&["why", "was"]).contains("it ran when the program that hob is a part of ended"));
    let events = home.call("event.history", r#"{"kinds": ["daemon.restored"]}"#);
    assert!(events.to_string().contains("\"was\""), "{events}");
    home.ok(&["service", "reset", "was"]);
    home.wait_state("was", "stopped");
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    let mut child = managed(&home, Stdio::piped());
    home.wait_state("needs", "running");
    assert_eq!(home.state("was"), "stopped", "somebody has said otherwise");
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}

#[test]
fn an_upgrade_keeps_the_bond() {
    let home = Home::new(CONFIG);
    let mut child = managed(&home, Stdio::piped());
    home.wait_state("on", "running");
    let pid = home.pid("on");
    let other = home.path("other");
    copy_hob(&other);
    let upgraded = home.call("daemon.upgrade", &format!("{{\"binary\": {:?}}}", other.to_str().unwrap()));
    assert_eq!(upgraded["keeper_renewed"], true, "{upgraded}");
    assert_eq!(home.pid("on"), pid);
    assert!(!home.path("run/hob.pid").exists());
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    gone(&home, &[pid]);
}

#[test]
fn one_command_can_be_managed_too() {
    let home = Home::new("{}");
    let mut c = home.bare_command(&["run", "--managed", "--", "sleep", "1000"]);
    let dir = home.path("private");
    fs::create_dir_all(&dir).unwrap();
    c.env("XDG_RUNTIME_DIR", &dir).env("HOME", &dir).arg("4711").stdin(Stdio::piped());
    let mut child = c.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait("the command runs", || processes("sleep 1000 4711").iter().any(|p| *p != child.id()));
    drop(child.stdin.take());
    child.wait().unwrap();
    wait("it is gone", || processes("sleep 1000 4711").is_empty());
}
