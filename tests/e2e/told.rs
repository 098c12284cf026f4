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
    assert!(home.ok(&["why", "service/web"]).starts_with("web has been running"));
    assert!(home.fails(&["why", "service/hup"]).1.contains("there is no service"));
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

#[test]
fn why_something_was_not_ready_or_not_stopped_is_kept() {
    let config = r#"{ "services": {
        "slow": { "command": "exec sleep 1000", "ready": { "port": 9 }, "ready_timeout": "50ms", "restart": "never" },
        "odd": { "command": "exec sleep 1000", "stop_command": "echo no; exit 3" }
    } }"#;
    let home = Home::running(config);
    home.wait_state("slow", "failed");
    let why = home.ok(&["why", "slow"]);
    assert!(why.contains("not ready in time (port 9 does not answer)"), "{why}");
    home.wait_state("odd", "running");
    home.ok(&["stop", "odd"]);
    let why = home.ok(&["why", "odd"]);
    assert!(why.contains("its stop command failed: "), "{why}");
}

#[test]
fn who_stopped_something_is_known_after_a_restart_too() {
    let config = r#"{ "services": {
        "web": { "command": "exec sleep 1000" },
        "late": { "command": "exec sleep 1000", "requires": ["off"] },
        "off": { "command": "sleep 1000", "ready": "notify", "ready_timeout": "1h" }
    } }"#;
    let mut home = Home::running(config);
    home.wait_state("web", "running");
    home.wait_state("late", "waiting");
    home.ok(&["stop", "web", "late"]);
    let by = home.service("web")["wished_by"].clone();
    assert!(by.is_string() && by != "a person", "{by}");
    for round in 0..2 {
        for name in ["web", "late"] {
            assert_eq!(home.service(name)["wished_by"], by, "{name} in round {round}");
            let why = home.ok(&["why", name]);
            let line = why.lines().find(|l| l.contains("said it should be down")).unwrap_or_default();
            assert!(line.trim_start().starts_with(|c: char| c.is_ascii_digit()), "{why}");
        }
        home.ok(&["stop"]);
        assert!(home.wait_end().success());
        home.start(&[]);
    }
}

#[test]
fn after_a_clean_end_its_time_is_told() {
    let mut home = Home::running("{}");
    home.ok(&["stop"]);
    home.wait_end();
    let (_, said) = home.fails(&["status"]);
    assert!(said.contains("; it ended at ") && !said.contains("last seen"), "{said}");
    let json: Value = serde_json::from_slice(&home.hob(&["status", "--json"]).stdout).unwrap();
    assert!(json["ended"].as_str().unwrap().ends_with('Z'), "{json}");
    home.start(&[]);
    wait("a heartbeat was written", || exists(&home.path("run/state.json")));
    for pid in [home.pids().1, home.pids().0] {
        kill("KILL", pid);
    }
    home.reap();
    wait("nobody answers", || !home.hob(&["ping"]).status.success());
    let (_, said) = home.fails(&["status"]);
    assert!(said.contains("it was last seen at "), "{said}");
}

#[test]
fn times_of_jobs_are_universal_in_json_and_their_zone_is_listed() {
    let config = r#"{ "schedule": { "jobs": [
        { "id": "n", "cron": "30 2 * * *", "tz": "America/New_York", "action": { "method": "ping" } }
    ] } }"#;
    let home = Home::running(config);
    home.ok(&["schedule", "run", "n"]);
    let job = || home.call("schedule.list", "{}")["jobs"][0].clone();
    wait("it ran", || job()["last"].is_string());
    for key in ["next", "last"] {
        let text = job()[key].as_str().unwrap().to_owned();
        assert!(text.ends_with('Z') && text.len() == 24, "{key}: {text}");
    }
    let table = home.ok(&["schedule", "list"]);
    assert!(table.contains("TZ") && table.contains("America/New_York"), "{table}");
    let end = home.hob(&["schedule", "next", "0 0 * * *", "--tz", "UTC", "--from", "9999-12-31T12:00:00", "-n", "1"]);
    assert!(
        !String::from_utf8_lossy(&end.stdout).contains("9999-12-31T00"),
        "{}",
        String::from_utf8_lossy(&end.stdout)
    );
}
