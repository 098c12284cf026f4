//! `hob doctor`, with a daemon and without one, and that it changes nothing.

use crate::support::*;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

const CONFIG: &str = r#"{ "services": { "web": { "command": "exec sleep 1000" },
                                        "extra": { "command": "exec sleep 1000", "autostart": false } },
    "schedule": { "jobs": [ { "id": "up", "cron": "0 0 1 1 *", "action": { "start": "extra" } } ] } }"#;

/// A home that nobody else can look into, as hob would have made it.
fn home(config: &str) -> Home {
    let home = Home::new(config);
    fs::set_permissions(&home.dir, fs::Permissions::from_mode(0o700)).unwrap();
    fs::set_permissions(home.path("hob.json"), fs::Permissions::from_mode(0o600)).unwrap();
    home
}

fn report(home: &Home) -> (i32, Value) {
    let out = home.hob(&["doctor", "--json"]);
    let text = String::from_utf8(out.stdout).unwrap();
    let report = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
    (out.status.code().unwrap(), report)
}

#[track_caller]
fn has(report: &Value, level: &str, part: &str) -> Value {
    let all = report["findings"].as_array().unwrap();
    let hit = all.iter().find(|f| f["level"] == level && f["what"].as_str().unwrap().contains(part));
    hit.unwrap_or_else(|| panic!("{level} {part:?} is not in {report:#}")).clone()
}

/// Name, kind, mode, size and time of everything below a folder.
fn state_of(dir: &Path) -> Vec<(String, u32, u64, i64, i64)> {
    let mut found = Vec::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(path) = todo.pop() {
        let meta = path.symlink_metadata().unwrap();
        if meta.is_dir() {
            todo.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        }
        found.push((path.display().to_string(), meta.mode(), meta.size(), meta.mtime(), meta.mtime_nsec()));
    }
    found.sort();
    found
}

#[test]
fn before_the_first_start_it_says_what_will_happen_and_makes_nothing() {
    let home = home(CONFIG);
    let before = state_of(&home.dir);
    let (code, r) = report(&home);
    assert_eq!((code, &r["healthy"], &r["asked_daemon"]), (0, &true.into(), &false.into()), "{r:#}");
    let missing = ["run", "state", "logs"].map(|name| home.path(name).display().to_string()).join(", ");
    has(&r, "note", &format!("not there yet, and made by the first start: {missing}"));
    has(&r, "ok", &format!("{} is there, hob's own, and writable", home.dir.display()));
    assert!(!r.to_string().contains("folders are there"), "what is not there yet is not there: {r:#}");
    assert_eq!(has(&r, "note", "hob does not run")["do"], "hob start");
    has(&r, "ok", "has no mistakes; 2 services");
    assert_eq!(state_of(&home.dir), before, "nothing was made or changed");
}

#[test]
fn a_running_hob_examines_itself_and_knows_its_services() {
    let mut home = home(CONFIG);
    home.start(&[]);
    home.wait_state("web", "running");
    let (code, r) = report(&home);
    assert_eq!((code, &r["healthy"]), (0, &true.into()), "{r:#}");
    has(&r, "ok", "hob runs with pid");
    has(&r, "ok", "hob answers at");
    has(&r, "ok", "it can be read whole");
    has(&r, "ok", "all 2 services are as they should be");
    let why = has(&r, "note", "2 services run as");
    assert!(why["why"].as_str().unwrap().contains("a guard rail for them and no wall"), "{why}");
    let status = home.call("daemon.status", "{}");
    assert_eq!(r["platform"], status["platform"], "status and doctor tell the same facts");
    for fact in ["os", "arch", "init", "cgroup", "kernel"] {
        assert!(!status["platform"][fact].is_null(), "{fact}: {status}");
    }
    assert_eq!(status["platform"]["kernel"]["features"]["pidfd"], true);
    home.ok(&["start", "extra"]);
    home.ok(&["stop", "web"]);
    let (_, r) = report(&home);
    let by = if home.dir.metadata().unwrap().uid() == 0 { "root".to_owned() } else { "uid ".to_owned() };
    assert_eq!(has(&r, "note", &format!("extra is running: {by}"))["do"], "hob service reset extra");
    has(&r, "note", &format!("web is stopped: {by}"));
    home.ok(&["service", "reset", "extra"]);
    home.ok(&["stop", "extra"]);
    home.ok(&["schedule", "run", "up"]);
    home.wait_state("extra", "running");
    has(&report(&home).1, "note", "extra is running: the job up started it, and autostart is off");
    let text = home.ok(&["doctor"]);
    assert!(text.contains("note     services: extra is running") && text.contains("0 errors, "), "{text}");
    assert_eq!(home.ok(&["doctor", "--quiet"]), "", "nothing needs anybody to act");
}

#[test]
fn errors_are_found_while_hob_runs_and_the_exit_code_says_so() {
    let mut home = home(
        r#"{ "services": { "no": { "command": ["/nonexistent/x"], "max_restarts": 1, "min_delay": "1ms",
                                   "max_delay": "1ms" },
                           "a": { "command": "exec sleep 1000", "ready": { "port": 1 }, "autostart": false },
                           "b": { "command": "exec sleep 1000", "ready": { "port": 1 }, "autostart": false } } }"#,
    );
    home.start(&[]);
    home.wait_state("no", "failed");
    let (_, keeper) = home.pids();
    fs::remove_file(home.path("run/hob.pid")).unwrap();
    fs::set_permissions(home.path("state"), fs::Permissions::from_mode(0o777)).unwrap();
    fs::set_permissions(home.path("run/hob.sock"), fs::Permissions::from_mode(0o666)).unwrap();
    has(&report(&home).1, "note", "has mode 666 instead of 600");
    has(&report(&home).1, "warning", "port 1 is that of a and b");
    home.write_config("{ \"services\": { \"no\": {");
    let (code, r) = report(&home);
    assert_eq!((code, &r["healthy"]), (1, &false.into()));
    assert_eq!(has(&r, "error", "no has failed")["do"], "hob why no");
    has(&r, "error", "others may write to the state folder");
    has(&r, "error", "hob.json:1:");
    let pid = has(&r, "warning", "hob.pid is gone");
    assert!(pid["do"].as_str().unwrap().starts_with(&format!("echo {keeper} > ")), "{pid}");
    let out = home.hob(&["doctor", "-q"]);
    let text = String::from_utf8(out.stdout).unwrap();
    assert_eq!(out.status.code(), Some(1));
    assert!(text.contains("error    services: no has failed") && !text.contains("note "), "{text}");
    let (warnings, errors) = (text.find("\nwarning").unwrap(), text.rfind("\nerror").unwrap_or(0));
    assert!(errors < warnings, "the worst comes first: {text}");
}

#[test]
fn a_daemon_that_hangs_and_one_that_was_killed_are_told() {
    let mut home = home(CONFIG);
    home.start(&[]);
    let (daemon, keeper) = home.pids();
    kill("KILL", daemon);
    let (_, r) = report(&home);
    has(&r, "warning", "the daemon has died 1 time");
    let (daemon, _) = home.pids();
    kill("STOP", daemon);
    let (code, r) = report(&home);
    assert_eq!(code, 1);
    has(&r, "error", "it has not answered within 10 s");
    has(&r, "ok", &format!("hob runs with pid {keeper}"));
    // The keeper first, while the daemon is stopped and cannot end in order.
    for pid in [keeper, daemon] {
        kill("KILL", pid);
    }
    home.reap();
    wait("both are gone", || !alive(daemon) && !alive(keeper));
    // One that does not come up says nothing of itself.
    let mut run = home.command(&["run", "--socket", "/proc/none/hob.sock"]);
    assert!(!run.output().unwrap().status.success());
    let (_, r) = report(&home);
    has(&r, "note", &format!("the hob before, pid {keeper}, did not end properly"));
    has(&r, "note", "hob.sock is left of a hob that does not run");
}

#[test]
fn a_socket_that_was_removed_under_a_running_hob_is_an_error() {
    let mut home = home(CONFIG);
    home.start(&[]);
    fs::remove_file(home.path("run/hob.sock")).unwrap();
    let (code, r) = report(&home);
    assert_eq!(code, 1);
    assert_eq!(has(&r, "error", "hob.sock is gone, and hob runs")["do"], "hob stop --force; then hob start");
}
