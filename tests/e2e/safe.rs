//! Deaths of the daemon by its own fault: three in a row bring safe mode, which harms nobody and can be left.

use crate::support::*;
use serde_json::json;
use std::time::{Duration, Instant};

const SERVICES: &str = r#"{ "services": { "n": { "command": "i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done" },
                                          "idle": { "command": "exec sleep 1000", "autostart": false } } }"#;

fn status(home: &Home) -> String {
    home.call("daemon.health", "{}")["status"].as_str().unwrap().to_owned()
}

/// The first daemon is well, later ones up to this number die at this stage.
fn crashing(stage: &str, last: u32) -> Home {
    let mut home = Home::with_env(SERVICES, "HOB_FAULT", &format!("{stage}:2-{last}"));
    home.start(&[]);
    home.wait_state("n", "running");
    home
}

/// Numbers that the service has logged without a gap.
fn counted(home: &Home) -> u64 {
    let log = home.log("n");
    let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let numbers: Vec<u64> = whole.lines().map(|l| l.parse().unwrap()).collect();
    assert!(numbers.iter().zip(1..).all(|(n, wanted)| *n == wanted), "a line is lost or doubled: {numbers:?}");
    numbers.len() as u64
}

#[test]
fn safe_mode_keeps_what_runs_answers_and_changes_nothing() {
    let home = crashing("journal", 4);
    let (pid, (daemon, keeper)) = (home.pid("n"), home.pids());
    kill("KILL", daemon);
    wait("safe mode", || status(&home) == "safe mode");
    assert_eq!((home.pid("n"), home.state("n").as_str(), home.pids().1), (pid, "running", keeper));
    let problems = home.call("daemon.health", "{}")["problems"].to_string();
    assert!(problems.contains("it died while opening the journal"), "{problems}");
    assert!(!problems.contains("lacked records") && !home.read("logs/hob.log").contains("emptied it"), "{problems}");
    assert!(home.read("logs/hob.log").contains("safe mode: it died while opening the journal"));
    assert!(home.ok(&["why", "n"]).contains("safe mode"));
    let seen = counted(&home);
    wait("its output goes on", || counted(&home) > seen + 50);
    assert!(home.ok(&["logs", "n", "-n", "1"]).trim().parse::<u64>().is_ok());
    let journal = home.read("state/journal-1.log");
    for args in [&["start", "idle"][..], &["stop", "n"], &["service", "signal", "TERM", "n"]] {
        let (code, text) = home.fails(args);
        assert!(code != 0 && text.contains("safe mode") && text.contains("hob reload"), "{args:?}: {code} {text}");
    }
    assert_eq!(home.read("state/journal-1.log"), journal, "nothing was written");
    // A daemon in safe mode that is killed is followed by another one.
    kill("KILL", home.pids().0);
    assert_eq!(status(&home), "safe mode");
    kill("KILL", pid);
    wait("the end is told", || home.ok(&["why", "n"]).contains("SIGKILL"));
    assert_eq!(home.state("n"), "stopping");
    home.write_config(&SERVICES.replace("\"autostart\": false", "\"autostart\": true"));
    assert!(home.ok(&["reload"]).contains("safe mode is over"));
    assert_ne!(status(&home), "safe mode");
    home.wait_state("idle", "running");
    home.wait_state("n", "running");
    assert_ne!(home.pid("n"), pid);
    let runs = home.call("service.history", r#"{"name": "n"}"#);
    assert_eq!(runs["runs"][0]["signal"], 9, "{runs}");
}

#[test]
fn a_reload_that_does_not_help_says_so_and_a_stop_works() {
    let mut home = crashing("config", 100);
    let pid = home.pid("n");
    kill("KILL", home.pids().0);
    wait("safe mode", || status(&home) == "safe mode");
    let (_, text) = home.fails(&["reload"]);
    assert!(text.contains("it died while reading the config"), "{text}");
    assert_eq!(home.pid("n"), pid);
    // Nobody can stop it in order, so a second request makes the keeper do it by force.
    home.hob(&["stop", "--no-wait"]);
    let begin = Instant::now();
    wait("a second, after which another request counts", || begin.elapsed() > Duration::from_millis(1100));
    kill("TERM", home.keeper());
    home.wait_end();
    assert!(!alive(pid));
}

#[test]
fn a_command_without_a_config_does_not_hear_of_the_way_out() {
    let mut home = Home::with_env("{}", "HOB_FAULT", "journal:2-4");
    std::fs::remove_file(home.path("hob.json")).unwrap();
    home.start(&["--", "sh", "-c", "trap 'echo hup' HUP; trap 'exit 0' USR1; echo up; while :; do sleep 0.05; done"]);
    wait("it is up", || home.log("sh").contains("up"));
    kill("KILL", home.pids().0);
    wait("safe mode", || status(&home) == "safe mode");
    home.ok(&["reload"]);
    assert_eq!(status(&home), "ok");
    // The shell heeds what was sent before first.
    home.ok(&["service", "signal", "USR1", "sh"]);
    home.wait_end();
    assert_eq!(home.log("sh"), "up\n");
}

/// hob for one command, with a service beside it, in safe mode; daemons up to the last die.
fn for_one_command(last: u32) -> Home {
    let service = r#"{ "services": { "n": { "command": "exec sleep 1000" } } }"#;
    let mut home = Home::with_env(service, "HOB_FAULT", &format!("journal:2-{last}"));
    home.start(&["--", "sh", "-c", "trap 'echo bye; exit 7' USR1; echo up; while :; do sleep 0.05; done"]);
    wait("it is up", || home.log("sh").contains("up"));
    home.wait_state("n", "running");
    kill("KILL", home.pids().0);
    wait("safe mode", || status(&home) == "safe mode");
    home
}

#[test]
fn hob_ends_with_its_command_in_safe_mode_too() {
    for last in [4, 1000] {
        let mut home = for_one_command(last);
        let (beside, main) = (home.pid("n"), home.pid("sh"));
        kill("USR1", main);
        assert_eq!(home.wait_end().code(), Some(7));
        // One that is killed by a hob that ends with that is gone a moment later.
        wait("nothing is left", || !alive(beside));
        assert_eq!(home.log("sh"), "up\nbye\n");
        let by_force = home.read("logs/hob.log").contains("killing what is left");
        assert_eq!(by_force, last == 1000, "in order where a daemon comes up");
    }
}

#[test]
fn an_upgrade_ends_safe_mode() {
    let home = crashing("journal", 4);
    let pid = home.pid("n");
    kill("KILL", home.pids().0);
    wait("safe mode", || status(&home) == "safe mode");
    let other = home.path("other");
    copy_hob(&other);
    home.ok(&["upgrade", "--binary", other.to_str().unwrap()]);
    assert_eq!(status(&home), "ok");
    assert_eq!((home.pid("n"), home.call("daemon.status", "{}")["daemon_deaths"].as_u64()), (pid, Some(4)));
    home.ok(&["start", "idle"]);
    assert!(counted(&home) > 0);
}

#[test]
fn safe_mode_leaves_out_what_it_dies_of_itself() {
    for stage in ["journal", "config", "jobs", "state"] {
        let mut home = Home::with_env(SERVICES, "HOB_FAULT", &format!("{stage}:2-100,safe-{stage}:2-100"));
        home.start(&[]);
        home.wait_state("n", "running");
        let pid = home.pid("n");
        kill("KILL", home.pids().0);
        wait("safe mode", || status(&home) == "safe mode");
        assert!(alive(pid), "{stage}");
        assert_eq!(home.call("ping", "{}")["pong"], true);
    }
}

#[test]
fn output_is_treated_as_before_while_safe_mode_knows_no_config() {
    let mut home = Home::with_env("{}", "HOB_FAULT", "config:2-4,safe-config:5-6");
    let spec = json!({ "command": "while :; do echo \"a $TOKEN\"; sleep 0.01; done",
        "env": { "TOKEN": "in-the-config-44" }, "secrets": ["TOKEN"], "log": { "timestamps": true } });
    home.write_config(&json!({ "services": { "s": spec } }).to_string());
    home.start(&[]);
    let goes_on = |home: &Home| {
        let before = home.log("s").lines().count();
        wait("it writes", || home.log("s").lines().count() > before + 20);
        let log = home.log("s");
        let whole = log.rsplit_once('\n').unwrap().0;
        assert!(whole.lines().all(|l| l.len() == 30 && l.ends_with("Z a ***")), "{whole}");
    };
    goes_on(&home);
    kill("KILL", home.pids().0);
    wait("safe mode", || status(&home) == "safe mode");
    assert!(home.fails(&["start", "s"]).1.contains("the config"), "it is the config that was at fault");
    goes_on(&home);
    home.ok(&["reload"]);
    wait("it is left", || status(&home) != "safe mode");
    goes_on(&home);
}
