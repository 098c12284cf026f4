//! Which hob a command means: by a socket, by a home, or by both; and what is not there is said.

use crate::support::*;
use std::fs;
use std::process::{Command, Output, Stdio};

fn said(out: &Output) -> String {
    String::from_utf8_lossy(&[&out.stdout[..], &out.stderr[..]].concat()).into_owned()
}

const CONFIG: &str = r#"{ "services": { "s": { "command": "exec sleep 1000" } } }"#;

/// A command line that knows a hob by its socket alone; its default home is below that of the test.
fn by_socket(home: &Home, socket: &str, args: &[&str]) -> Command {
    let mut c = home.bare_command(args);
    for name in ["XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR"] {
        c.env_remove(name);
    }
    c.env("HOME", home.path("nobody")).env("HOB_SOCKET", socket).stdin(Stdio::null());
    c
}

#[test]
fn a_hob_that_is_known_by_its_socket_is_the_one_that_is_stopped() {
    let mut home = Home::running(CONFIG);
    let socket = home.path("run/hob.sock").display().to_string();
    let run = |args: &[&str]| by_socket(&home, &socket, args).output().unwrap();
    home.wait_state("s", "running");
    let out = run(&["stop"]);
    assert!(out.status.success() && said(&out).contains("hob has stopped"), "{}", said(&out));
    assert!(home.wait_end().success());
    // Nobody is there now, and nobody else is meant.
    let out = by_socket(&home, &socket, &["stop"]).output().unwrap();
    assert!(out.status.success() && said(&out) == "hob is not running\n", "{}", said(&out));

    home.start(&[]);
    home.wait_state("s", "running");
    let pid = home.pid("s");
    let out = by_socket(&home, &socket, &["stop", "--force"]).output().unwrap();
    assert!(out.status.success() && said(&out).contains("have ended"), "{}", said(&out));
    home.reap();
    assert!(!exists(&home.path("run/hob.sock")) && !alive(pid), "it and its services have ended");
}

#[test]
fn a_socket_and_a_home_that_disagree_stop_nobody() {
    let home = Home::running(CONFIG);
    let other = Home::running(CONFIG);
    let socket = home.path("run/hob.sock").display().to_string();
    for args in [&["stop"][..], &["stop", "--force"], &["restart"]] {
        let out = by_socket(&home, &socket, args).env("HOB_HOME", &other.dir).output().unwrap();
        assert_eq!(out.status.code(), Some(2), "{args:?}: {}", said(&out));
        assert!(said(&out).contains("has its home in"), "{}", said(&out));
    }
    home.ok(&["ping"]);
    other.ok(&["ping"]);
    // Neither does a socket that nobody answers at, where the home has another.
    let nowhere = home.path("nowhere.sock").display().to_string();
    let out = other.command(&["--socket", &nowhere, "stop"]).output().unwrap();
    assert!(!out.status.success() && said(&out).contains(" listens at "), "{}", said(&out));
    other.ok(&["ping"]);
}

#[test]
fn a_restart_by_the_socket_is_one_of_the_same_hob() {
    let home = Home::new(CONFIG);
    home.ok(&["start"]);
    let before = home.pids().1;
    let socket = home.path("run/hob.sock").display().to_string();
    let out = by_socket(&home, &socket, &["restart"]).output().unwrap();
    assert!(out.status.success() && said(&out).contains("hob runs, pid"), "{}", said(&out));
    assert_ne!(home.pids().1, before);
    home.wait_state("s", "running");
    assert!(!exists(&home.path("nobody")), "no other home was made");
    home.ok(&["stop"]);
}

#[test]
fn a_task_ends_the_hob_that_runs_it() {
    let mut home = Home::running(CONFIG);
    home.ok(&["add", &format!("{HOB} stop --force")]);
    home.wait_end();
    assert!(!exists(&home.path("run/hob.sock")));
    home.start(&[]);
    home.ok(&["add", &format!("{HOB} stop")]);
    wait("it has read that it may not", || home.ok(&["task", "output", "2"]).contains("daemon.shutdown needs admin"));
    home.ok(&["ping"]);
}

#[test]
fn a_config_that_was_named_has_to_be_there() {
    let home = Home::new(CONFIG);
    let missing = home.path("typo.json").display().to_string();
    for args in
        [&["start", "--config", &missing][..], &["run", "--config", &missing], &["restart", "--config", &missing]]
    {
        let (code, said) = home.fails(args);
        assert!(said.contains("there is no config file") && said.contains(&missing), "{code} {said}");
    }
    let out = home.command(&["start"]).env("HOB_CONFIG", &missing).output().unwrap();
    assert!(!out.status.success() && said(&out).contains("there is no config file"), "{}", said(&out));
    assert!(!exists(&home.path("typo.json")) && !exists(&home.path("hob.schema.json")));
    assert!(!home.hob(&["ping"]).status.success(), "nothing was started");
    // That of the default place is made.
    fs::remove_file(home.path("hob.json")).unwrap();
    home.ok(&["start"]);
    assert!(exists(&home.path("hob.json")));
    home.ok(&["stop"]);
}

#[test]
fn a_running_hob_does_not_take_another_config_for_its_own() {
    let home = Home::running(CONFIG);
    fs::write(home.path("other.json"), "{}").unwrap();
    let other = home.path("other.json").display().to_string();
    for args in [
        &["plan", "--config", &other][..],
        &["reload", "--config", &other],
        &["reload", "--dry-run", "--config", &other],
    ] {
        let (code, said) = home.fails(args);
        assert!(code == 2 && said.contains("the hob that runs reads") && said.contains(&other), "{code} {said}");
    }
    let own = home.path("hob.json").display().to_string();
    assert!(home.ok(&["plan", "--config", &own]).contains("nothing would change"));
    assert!(home.ok(&["reload", "--config", &own]).contains("nothing has changed"));
    assert_eq!(home.ok(&["reload", "-q"]), "");
}

#[test]
fn a_home_that_is_not_utf8_is_refused_at_once() {
    use std::os::unix::ffi::OsStrExt;
    let home = Home::new(CONFIG);
    let odd = home.dir.join(std::ffi::OsStr::from_bytes(b"n\xff"));
    for word in ["start", "run", "status", "stop"] {
        let out = home.bare_command(&["--home"]).arg(&odd).arg(word).stdin(Stdio::null()).output().unwrap();
        assert_eq!(out.status.code(), Some(2), "{word}: {}", said(&out));
        assert!(said(&out).contains("is not UTF-8"), "{word}: {}", said(&out));
    }
    assert!(!odd.exists());
}

#[test]
fn a_restart_of_all_wakes_nobody_who_is_to_be_down() {
    let config = r#"{ "services": {
        "a": { "command": "exec sleep 1000" },
        "off": { "command": "exec sleep 1000", "autostart": false },
        "once": { "command": "true", "oneshot": true },
        "st": { "command": "exec sleep 1000" }
    } }"#;
    let home = Home::running(config);
    home.wait_state("a", "running");
    home.wait_state("once", "finished");
    home.ok(&["stop", "st"]);
    let before = home.pid("a");
    let said = home.ok(&["restart", "--all"]);
    assert!(said.starts_with("a: restarted") && said.lines().count() == 1, "{said}");
    assert_ne!(home.pid("a"), before);
    let states = [home.state("off"), home.state("once"), home.state("st")];
    assert_eq!(states, ["stopped", "finished", "stopped"]);
    assert_eq!(home.service("once")["runs_total"], 1);
    home.ok(&["stop", "a"]);
    assert_eq!(home.ok(&["restart", "--all"]), "no service runs, and none should\n");
}

#[test]
fn errors_are_json_where_that_was_asked_for() {
    let home = Home::running(CONFIG);
    for (line, code, exit) in
        [(&["why", "nobody", "--json"][..], Some(-32004), 4), (&["status", "--json", "--no-such-flag"], None, 2)]
    {
        let (status, said) = home.fails(line);
        let error: serde_json::Value = serde_json::from_str(&said).unwrap();
        let given = &error["error"];
        assert!(given["message"].is_string() && error["exit"] == exit && status == exit, "{error}");
        assert_eq!(given["code"].as_i64(), code, "{error}");
        assert_eq!(given["data"]["hint"].is_string(), code.is_some(), "{error}");
    }
}
