//! Upgrades: another program takes over, the pid of hob, the services, their output and every reply stay.

use crate::support::*;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const COUNTERS: usize = 5;

/// Upgrades in the ordinary test; HOB_UPGRADES asks for more.
fn upgrades() -> usize {
    std::env::var("HOB_UPGRADES").ok().map_or(20, |v| v.parse().unwrap())
}

fn counting() -> String {
    let one = |i| {
        let command = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.00$((i % 7)); done";
        (format!("n{i}"), serde_json::json!({ "command": command }))
    };
    let services: serde_json::Map<String, serde_json::Value> = (0..COUNTERS).map(one).collect();
    serde_json::json!({ "services": services }).to_string()
}

/// A copy of the binary under test, which is another file and so another program.
fn copy(home: &Home, name: &str) -> PathBuf {
    let path = home.path(name);
    copy_hob(&path);
    path
}

fn exe(pid: u32) -> PathBuf {
    fs::read_link(format!("/proc/{pid}/exe")).unwrap()
}

fn numbers(home: &Home, name: &str) -> u64 {
    let log = home.log(name);
    let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let mut count = 0;
    for line in whole.lines() {
        count += 1;
        assert_eq!(line.parse(), Ok(count), "a line of {name} is lost, doubled or torn");
    }
    count
}

fn upgrade(home: &Home, to: &std::path::Path) -> serde_json::Value {
    home.call("daemon.upgrade", &serde_json::json!({ "binary": to }).to_string())
}

#[test]
fn many_upgrades_under_load_lose_nothing() {
    let home = Home::running(&counting());
    let names: Vec<String> = (0..COUNTERS).map(|i| format!("n{i}")).collect();
    names.iter().for_each(|n| home.wait_state(n, "running"));
    let pids: Vec<u32> = names.iter().map(|n| home.pid(n)).collect();
    let programs = [copy(&home, "one"), copy(&home, "two")];
    let (_, keeper) = home.pids();
    let (over, pings) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut follower = home.command(&["logs", "-f", "n0", "-n", "100000"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    std::thread::scope(|s| {
        for _ in 0..2 {
            s.spawn(|| {
                let mut client = hob::client::Client::connect(home.path("run/hob.sock")).unwrap();
                while !over.load(Ordering::Relaxed) {
                    let pong: serde_json::Value = client.call("ping", &serde_json::json!({})).unwrap();
                    assert_eq!(pong["pong"], true);
                    pings.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut followed = 0u64;
            for n in 0..upgrades() {
                let (to, before) = (&programs[n % 2], pings.load(Ordering::Relaxed));
                let told = upgrade(&home, to);
                assert_eq!(told["upgraded"], true, "{told}");
                assert_eq!(told["keeper_renewed"], true, "{told}");
                assert_eq!(told["to"]["path"], to.to_str().unwrap(), "{told}");
                let (daemon, same) = home.pids();
                assert_eq!(same, keeper, "the pid of hob stays");
                assert_eq!((exe(daemon), exe(keeper)), (to.clone(), to.clone()));
                assert_eq!(told["pid"], daemon);
                for _ in 0..20 {
                    followed += 1;
                    assert_eq!(lines.next().unwrap().unwrap().parse(), Ok(followed), "a followed line is lost");
                }
                wait("pings go on", || pings.load(Ordering::Relaxed) > before + 10);
            }
        }));
        over.store(true, Ordering::Relaxed);
        done.unwrap_or_else(|e| std::panic::resume_unwind(e));
    });
    follower.kill().unwrap();
    follower.wait().unwrap();
    for (name, pid) in names.iter().zip(&pids) {
        assert_eq!(home.pid(name), *pid, "{name} was not touched");
        wait("it has counted on", || numbers(&home, name) > 100);
    }
    let same = upgrade(&home, &programs[(upgrades() + 1) % 2]);
    assert_eq!(same["upgraded"], false, "{same}");
    assert!(home.ok(&["upgrade"]).contains("is what runs already"));
    // hob still ends as it should, and leaves nothing.
    home.ok(&["stop"]);
    assert!(pids.iter().all(|pid| !alive(*pid)) && !alive(keeper));
    assert!(!exists(&home.path("run/hob.pid")));
    assert_eq!(home.read("run/hob.lock"), "");
}

#[test]
fn a_broken_program_leaves_the_old_one_running() {
    let home = Home::with_env(&counting(), "HOB_FAULT", "trial");
    let mut home = home;
    home.start(&[]);
    home.wait_state("n0", "running");
    let (pid, (daemon, keeper)) = (home.pid("n0"), home.pids());
    let (old, good) = (exe(daemon), copy(&home, "good"));
    let script = |name: &str, text: &str| {
        let path = home.path(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    };
    let liar = "#!/bin/sh\necho '{\"control\":1,\"manifest\":1,\"version\":\"9\",\"problems\":[]}'\n";
    for (path, why) in [
        (script("fails", "#!/bin/sh\nexit 1\n"), "failed when it was asked"),
        (script("mute", "#!/bin/sh\nexit 0\n"), "does not answer like a hob"),
        (home.path("missing"), "cannot open"),
    ] {
        let (code, text) = home.fails(&["upgrade", "--binary", path.to_str().unwrap()]);
        assert!(code != 0 && text.contains(why), "{code}: {text}");
        assert_eq!(home.pids(), (daemon, keeper), "nothing was tried");
    }
    // These pass the check and fail as a daemon: one cannot be one, the other dies before it serves.
    for (path, why) in [(script("liar", liar), "cannot be executed"), (good, "signal 6")] {
        let (_, text) = home.fails(&["upgrade", "--binary", path.to_str().unwrap()]);
        assert!(text.contains("the program before goes on") && text.contains(why), "{text}");
        let (now, same) = home.pids();
        assert_eq!((exe(now), exe(same), same), (old.clone(), old.clone(), keeper));
        assert_eq!((home.pid("n0"), home.state("n0").as_str()), (pid, "running"));
    }
    assert_eq!(home.call("daemon.health", "{}")["status"], "ok");
    let seen = numbers(&home, "n0");
    wait("its output goes on", || numbers(&home, "n0") > seen + 50);
}

#[test]
fn the_command_that_hob_is_run_for_goes_on_and_is_heard_whole() {
    let home = Home::new("{}");
    let (socket, out) = (home.path("sock"), home.path("out"));
    let script = "i=0; until test -e $0; do i=$((i+1)); echo $i; sleep 0.005; done; exit 7";
    let go = home.path("go");
    let mut run = home.bare_command(&["run", "--socket"]);
    run.arg(&socket).args(["--", "sh", "-c", script]).arg(&go);
    run.stdin(Stdio::null()).stdout(fs::File::create(&out).unwrap());
    run.stderr(fs::File::create(home.path("stderr")).unwrap());
    let mut run = run.spawn().unwrap();
    wait("hob answers", || home.bare_command(&["ping", "--socket"]).arg(&socket).output().unwrap().status.success());
    for name in ["one", "two", "three"] {
        let program = copy(&home, name);
        let told = home.bare_command(&["upgrade", "--socket"]).arg(&socket).arg("--binary").arg(&program).output();
        assert!(told.unwrap().status.success(), "{}", home.read("stderr"));
        assert_eq!(exe(run.id()), program);
    }
    fs::write(&go, "").unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(7), "its code is hob's");
    let heard = home.read("out");
    assert!(heard.lines().zip(1..).all(|(line, n)| line.parse() == Ok(n)), "a line is lost or doubled");
    assert!(!home.read("stderr").contains("the config has errors"), "{}", home.read("stderr"));
}

#[test]
fn a_replaced_file_is_taken_by_a_signal_and_kills_in_the_middle_lose_nothing() {
    let mut home = Home::new(&counting());
    let own = copy(&home, "hob");
    home.start_program(&own);
    home.wait_state("n0", "running");
    let (pid, (_, keeper)) = (home.pid("n0"), home.pids());
    for n in 0..10 {
        let before = home.pids().0;
        let new = copy(&home, "new");
        fs::rename(&new, &own).unwrap();
        kill("USR2", keeper);
        // At any moment of it: the old daemon, the one that is tried, the new one.
        for _ in 0..n % 4 {
            let daemon = processes(&format!("@daemon home={}", home.dir.display()));
            daemon.iter().for_each(|pid| kill("KILL", *pid));
        }
        wait("another daemon answers", || home.pids().0 != before);
        assert_eq!((home.pids().1, home.pid("n0")), (keeper, pid));
        numbers(&home, "n0");
    }
    let new = copy(&home, "new");
    fs::rename(&new, &own).unwrap();
    assert_eq!(home.call("daemon.upgrade", "{}")["upgraded"], true);
    assert_eq!(exe(keeper), own);
    assert_eq!(home.pid("n0"), pid);
    wait("it has counted on", || numbers(&home, "n0") > 50);
    home.ok(&["stop"]);
}

#[test]
fn a_config_that_is_not_in_effect_does_not_hinder_an_upgrade() {
    let home = Home::running(r#"{ "services": { "a": { "command": 7 } } }"#);
    let program = copy(&home, "next");
    home.ok(&["upgrade", "--binary", program.to_str().unwrap()]);
    assert_eq!(exe(home.keeper()), program);
}

#[test]
fn a_replaced_file_is_told_of_once_until_it_runs() {
    let mut home = Home::new(r#"{ "daemon": { "heartbeat": "1s" } }"#);
    let own = copy(&home, "hob");
    home.start_program(&own);
    let status = || home.call("daemon.status", "{}");
    assert!(status()["update"].is_null());
    fs::rename(copy(&home, "new"), &own).unwrap();
    wait("it is seen", || status()["update"] == own.to_str().unwrap());
    let told = format!("another program lies at {}: hob upgrade\n", own.display());
    assert!(home.ok(&["status"]).contains(&told));
    assert!(home.ok(&["doctor"]).contains("is another program than the one that runs"));
    let beat = || fs::read_to_string(home.path("run/heartbeat")).unwrap();
    let before = beat();
    wait("two more heartbeats", || beat() > before);
    let before = beat();
    wait("two more heartbeats", || beat() > before);
    assert_eq!(home.ok(&["events"]).matches("daemon.update_available").count(), 1);
    home.ok(&["upgrade"]);
    let before = beat();
    wait("a heartbeat of the new one", || beat() > before);
    assert!(status()["update"].is_null());
}

#[test]
fn another_version_that_a_command_names_is_told_of_once() {
    let mut home = Home::new("{}");
    let config = |home: &Home, every: &str| {
        let (newest, asked) = (home.path("newest").display().to_string(), home.path("asked").display().to_string());
        let command = format!("echo ${{HOB_SERVICE-none}} >>{asked}; cat {newest}");
        home.write_config(
            &serde_json::json!({ "daemon": { "update_command": command, "update_every": every } }).to_string(),
        );
    };
    config(&home, "1s");
    let own = env!("CARGO_PKG_VERSION");
    let newest = |home: &Home, line: &str| {
        fs::write(home.path("next"), line).unwrap();
        fs::rename(home.path("next"), home.path("newest")).unwrap();
    };
    newest(&home, &format!("hob {own}\n"));
    home.start(&[]);
    let status = || home.call("daemon.status", "{}");
    let asked = || fs::read_to_string(home.path("asked")).unwrap_or_default();
    let asked_twice = || {
        let before = asked().lines().count();
        wait("it is asked again", || asked().lines().count() > before + 2);
    };
    asked_twice();
    assert!(status()["update_version"].is_null(), "{}", status());
    assert!(asked().lines().all(|line| line == "none"), "it is beside no service: {}", asked());
    newest(&home, "looked\nhob v99.1.0 (today)\n");
    wait("another version is told of", || status()["update_version"] == "99.1.0");
    assert!(home.ok(&["status"]).contains("hob 99.1.0 is there, as daemon.update_command says\n"));
    assert!(home.ok(&["doctor"]).contains(&format!("daemon.update_command names version 99.1.0; {own} runs")));
    asked_twice();
    // The next daemon knows that.
    kill("KILL", home.pids().0);
    wait("it is asked by the next one", || status()["update_version"] == "99.1.0");
    let events = home.ok(&["events", "--json"]);
    let told: Vec<&str> = events.lines().filter(|l| l.contains("daemon.update_available")).collect();
    assert_eq!(told.len(), 1, "{events}");
    assert!(
        told[0].contains(r#""version":"99.1.0""#) && told[0].contains(&format!(r#""running":"{own}""#)),
        "{told:?}"
    );
    // A failure is told of, and what was known stays.
    newest(&home, "nothing new\n");
    let failed = "no version stands in the last line that it printed: nothing new";
    wait("it is told of", || status()["update_error"] == failed);
    assert_eq!(status()["update_version"], "99.1.0");
    assert!(home.ok(&["doctor"]).contains(&format!("daemon.update_command failed: {failed}")));
    asked_twice();
    let log = home.read("logs/hob.log");
    assert_eq!(log.matches("daemon.update_command failed").count(), 1, "{log}");
    newest(&home, &format!("{own}\n"));
    wait("it runs already", || status()["update_version"].is_null());
    // Without it nothing is asked any more.
    newest(&home, "99.2.0\n");
    home.write_config("{}");
    home.ok(&["reload"]);
    assert!(status()["update_version"].is_null(), "{}", status());
    config(&home, "1s");
    home.ok(&["reload"]);
    wait("it is asked again", || status()["update_version"] == "99.2.0");
}

#[test]
fn a_command_that_names_a_version_ends_with_hob_and_at_its_limit() {
    let mut home = Home::new("{}");
    let pid = home.path("pid");
    let command = format!("trap '' TERM; sleep 1000 & echo $! $$ >>{}; wait", pid.display());
    home.write_config(
        &serde_json::json!({ "daemon": { "update_command": command, "update_every": "1s" } }).to_string(),
    );
    home.start(&[]);
    let pids = || -> Vec<u32> {
        let text = fs::read_to_string(&pid).unwrap_or_default();
        text.split_ascii_whitespace().map(|p| p.parse().unwrap()).collect()
    };
    let status = || home.call("daemon.status", "{}");
    wait("it is at its limit", || status()["update_error"] == "it did not end within 1 s");
    let first = pids();
    wait("all of it is killed", || !first.iter().take(2).any(|p| alive(*p)));
    // The daemon is killed while it runs: the next one ends it, and asks anew.
    let before = pids().len();
    wait("it runs", || pids().len() > before);
    kill("KILL", home.pids().0);
    let left = pids();
    wait("the next daemon asks", || pids().len() > left.len());
    wait("what was left is killed", || !left.iter().any(|p| alive(*p)));
    home.ok(&["stop"]);
    wait("nothing is left", || pids().iter().all(|p| !alive(*p)));
}
