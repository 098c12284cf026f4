//! What hob tells of services: who sent a signal, how signals are called, and what is no news any more.

use crate::support::*;
use serde_json::Value;

#[test]
fn a_signal_is_told_with_who_sent_it() {
    let config = r#"{ "services": {
        "s": { "command": "trap : HUP; while :; do sleep 0.05; done", "restart": "never" },
        "web": { "command": "exec sleep 1000", "restart": "never" }
    }, "schedule": { "jobs": [
        { "id": "hup", "cron": "0 0 1 1 *", "action": { "signal": "HUP", "service": "s" } }
    ] } }"#;
    let home = Home::running(config);
    home.wait_state("s", "running");
    home.wait_state("web", "running");
    home.ok(&["service", "signal", "KILL", "web"]);
    home.wait_state("web", "failed");
    let why = home.ok(&["why", "web"]);
    assert!(why.contains("killed by SIGKILL, which ") && why.contains("(pid "), "{why}");
    home.ok(&["schedule", "run", "hup"]);
    wait("the job has sent it", || home.ok(&["why", "s"]).contains("SIGHUP was sent by the job hup"));
    let events: Value = serde_json::from_str(&home.ok(&["events", "--kind", "service.signalled", "--json"])).unwrap();
    let told: Vec<&str> = events["events"].as_array().unwrap().iter().map(|e| e["by"].as_str().unwrap()).collect();
    assert!(told.len() == 2 && told[1] == "the job hup", "{events}");
    assert_eq!(events["events"][0]["signal_name"], "SIGKILL");
    wait("its log has it", || home.read("logs/hob.log").contains("service.signalled web by="));
    // A daemon that dies in between has kept it.
    let before = home.pids().0;
    kill("KILL", before);
    wait("the next daemon answers", || home.hob(&["ping"]).status.success() && home.pids().0 != before);
    assert!(home.ok(&["why", "s"]).contains("SIGHUP was sent by the job hup"));
}

#[test]
fn every_signal_has_the_name_by_which_it_can_be_sent() {
    if std::env::consts::OS != "linux" {
        return skip("real-time signals are those of Linux");
    }
    let config = r#"{ "services": { "s": { "command": "exec sleep 1000", "restart": "never" } } }"#;
    let home = Home::running(config);
    for name in ["USR1", "USR2", "IO", "SYS", "PWR", "STKFLT", "RTMIN+3"] {
        home.wait_state("s", "running");
        home.ok(&["service", "signal", name, "s"]);
        home.wait_state("s", "failed");
        let last = home.service("s")["last_run"].clone();
        assert_eq!(last["signal_name"], format!("SIG{name}"), "{last}");
        home.ok(&["start", "s"]);
    }
}

#[test]
fn a_failure_of_the_past_is_no_note_of_what_is_well() {
    let config = r#"{ "services": {
        "flip": { "command": "test -e go || exit 9; exec sleep 1000", "cwd": "DIR", "min_delay": "10ms",
                  "max_delay": "20ms", "reset_after": "50ms" },
        "told": { "command": "test -e go || exit 9; echo up; exec sleep 1000", "cwd": "DIR", "min_delay": "10ms",
                  "max_delay": "20ms", "reset_after": "1h", "ready": { "log": "up" } },
        "hand": { "command": "test -e go || exit 9; exec sleep 1000", "cwd": "DIR", "max_restarts": 1,
                  "min_delay": "10ms", "reset_after": "1h" }
    } }"#;
    let home = Home::new("{}");
    home.write_config(&config.replace("DIR", &home.dir.display().to_string()));
    let mut home = home;
    home.start(&[]);
    home.wait_state("hand", "failed");
    for name in ["flip", "told"] {
        wait("it has failed", || home.service(name)["last_error"] == "exit code 9");
    }
    std::fs::write(home.path("go"), "").unwrap();
    home.ok(&["start", "hand"]);
    for name in ["flip", "told", "hand"] {
        home.wait_state(name, "running");
        wait(&format!("{name} has nothing to complain of"), || home.service(name)["last_error"].is_null());
    }
    assert!(!home.ok(&["status"]).contains("exit code 9"));
}

#[test]
fn a_restart_of_what_has_finished_says_nothing_of_who_requires_it() {
    let config = r#"{ "services": {
        "mig": { "command": "true", "oneshot": true },
        "api": { "command": "exec sleep 1000", "requires": ["mig"] }
    } }"#;
    let home = Home::running(config);
    home.wait_state("api", "running");
    let pid = home.pid("api");
    let said = home.ok(&["restart", "mig"]);
    assert!(!said.contains("api"), "{said}");
    assert_eq!(home.pid("api"), pid);
    assert!(home.ok(&["stop", "mig"]).contains("api, which requires it, waits"));
}
