//! Services that end at once: whether they were ready before.

use crate::job;
use crate::support::{Home, exists, kill, wait};
use serde_json::Value;

/// What each does: it says that it is ready, in its way, and ends. With a file `pid` there it kills that process first.
const SHOT: &str = "if [ -e pid ]; then kill -9 $(cat pid); rm pid; fi;";

fn config() -> String {
    let kinds = [
        ("log", format!(r#""command": "{SHOT} echo up", "cwd": ".", "ready": {{"log": "^up$"}}"#)),
        (
            "stamped",
            format!(
                r#""command": "{SHOT} echo up", "cwd": ".", "ready": {{"log": "^up$"}}, "log": {{"timestamps": true}}"#
            ),
        ),
        ("fd", format!(r#""command": "{SHOT} echo up >&3", "cwd": ".", "ready": {{"fd": 3}}"#)),
        ("notify", format!(r#"{}, "ready": "notify""#, job::spec("brief"))),
    ];
    let services = kinds.map(|(name, members)| {
        format!(
            r#""{name}": {{{members}, "restart": "never", "autostart": false}},
               "after-{name}": {{"command": "exec sleep 1000", "requires": ["{name}"], "autostart": false}}"#
        )
    });
    format!(r#"{{"services": {{{}}}}}"#, services.join(",\n"))
}

fn last_run(home: &Home, name: &str) -> Value {
    let history = home.call("service.history", &format!(r#"{{"name":"{name}"}}"#));
    history["runs"].as_array().unwrap().last().unwrap().clone()
}

#[test]
fn what_a_service_said_before_it_ended_counts() {
    let home = Home::running(&config());
    for kind in ["log", "stamped", "fd", "notify"] {
        for killed in [false, true, false] {
            if killed {
                job::put(&home.path("pid"), &home.pids().0.to_string());
            }
            home.ok(&["start", kind, &format!("after-{kind}")]);
            home.wait_state(&format!("after-{kind}"), "running");
            assert!(!exists(&home.path("pid")), "it was not told whom to kill");
            home.wait_state(kind, "finished");
            let run = last_run(&home, kind);
            assert_eq!((&run["failed"], &run["exit_code"]), (&false.into(), &0.into()), "{kind}: {run}");
            assert!(run["ready"].is_string(), "{kind}: {run}");
            home.ok(&["stop", &format!("after-{kind}"), kind]);
        }
    }
}

#[test]
fn an_end_before_readiness_is_a_failure() {
    let home = Home::running(
        r#"{ "services": {
            "log": { "command": "echo down", "ready": {"log": "^up$"}, "restart": "never", "autostart": false },
            "fd": { "command": "true", "ready": {"fd": 3}, "restart": "never", "autostart": false },
            "notify": { "command": "true", "ready": "notify", "restart": "never", "autostart": false },
            "port": { "command": "true", "ready": {"port": 1}, "restart": "never", "autostart": false },
            "again": { "command": "true", "ready": "notify", "min_delay": "1h", "max_delay": "1h", "autostart": false },
            "user": { "command": "exec sleep 1000", "requires": ["log", "fd", "notify", "port"] } } }"#,
    );
    for kind in ["log", "fd", "notify", "port"] {
        wait("it has failed", || home.state(kind) == "failed");
        let why = home.ok(&["why", kind]);
        assert!(why.contains("exit code 0 before it was ready"), "{why}");
    }
    wait("its last words are told", || home.ok(&["why", "log"]).contains("| down"));
    assert_eq!(home.state("user"), "waiting", "what it requires was never ready");
    let (code, error) = home.fails(&["start", "port"]);
    assert!(code != 0 && error.contains("before it was ready"), "{code}: {error}");
    // A failure is tried again, by the policy for failures: at once, and then after a delay.
    home.hob(&["start", "--no-wait", "again"]);
    home.wait_state("again", "backoff");
    kill("KILL", home.pids().0);
    wait("it is known by the next daemon", || home.state("again") == "backoff");
}
