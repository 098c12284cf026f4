//! Services that cannot be started, or behave as no service should: each is told or ended, and the one beside it runs
//! on.

use crate::support::*;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

const BESIDE: &str = "exec sleep 1000";

fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A home with these services and one that behaves, which runs with this pid.
fn running(services: Value, env: Option<(&str, &str)>) -> (Home, u32) {
    let mut services = services;
    services["beside"] = json!({ "command": BESIDE });
    let config = json!({ "services": services }).to_string();
    let mut home = match env {
        Some((name, value)) => Home::with_env(&config, name, value),
        None => Home::new(&config),
    };
    home.start(&[]);
    home.wait_state("beside", "running");
    let pid = home.pid("beside");
    (home, pid)
}

fn program(path: &Path, text: &[u8], mode: u32) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn what_cannot_be_executed_says_why_and_what_to_do() {
    let files = Home::new("{}");
    let at = |name: &str| files.path(name).display().to_string();
    program(&files.path("plain"), b"#!/bin/sh\n", 0o644);
    program(&files.path("lost"), b"#!/no/such/interpreter -x\n", 0o755);
    program(&files.path("dos"), b"#!/bin/sh\r\necho\r\n", 0o755);
    program(&files.path("dos-arg"), b"#!/bin/sh -e\r\necho\r\n", 0o755);
    program(&files.path("text"), b"echo no first line\n", 0o755);
    program(&files.path("noise"), &[0xf7; 500], 0o755);
    program(&files.path("empty"), b"", 0o755);
    symlink("ring", files.path("ring")).unwrap();
    let cases = [
        ("missing", at("missing"), "No such file"),
        ("no-path", "no-such-program-here".to_owned(), "not found in PATH"),
        ("plain", at("plain"), "chmod +x"),
        ("folder", files.dir.display().to_string(), "it is a folder"),
        ("lost", at("lost"), "interpreter /no/such/interpreter does not"),
        ("dos", at("dos"), "Unix line ends"),
        ("text", at("text"), "a first line such as #!/bin/sh"),
        ("noise", at("noise"), "a first line such as #!/bin/sh"),
        ("empty", at("empty"), "a first line such as #!/bin/sh"),
        ("ring", at("ring"), "symbolic links"),
        ("below-file", format!("{}/x", at("plain")), "cannot execute"),
        ("long", format!("/{}", "long/".repeat(1000)), "File name too long"),
    ];
    let mut services = json!({});
    for (name, path, _) in &cases {
        services[*name] =
            json!({ "command": [path], "max_restarts": 1, "min_delay": "1ms", "max_delay": "1ms", "requires": [] });
    }
    let (home, beside) = running(services, None);
    for (name, _, say) in &cases {
        home.wait_state(name, "failed");
        let error = home.service(name)["last_error"].as_str().unwrap().to_owned();
        assert!(error.contains(say), "{name}: {error}");
        assert!(home.ok(&["why", name]).contains("could not be started"), "{name}");
    }
    assert_eq!(home.pid("beside"), beside);
}

#[test]
fn output_that_is_none_or_no_text_or_never_a_line_is_kept_as_it_is() {
    let (home, _) = running(
        json!({
            "closes": { "command": "exec >&- 2>&-; exec sleep 1000" },
            "half": { "command": "printf abc; exec sleep 1000" },
            "half-timed": { "command": "printf abc; exec sleep 1000", "log": { "timestamps": true } },
            "binary": { "command": "head -c 100000 /dev/zero | tr '\\0' '\\377'; exec sleep 1000" },
        }),
        None,
    );
    for name in ["closes", "half", "half-timed", "binary"] {
        home.wait_state(name, "running");
    }
    wait("half a line is shown", || home.ok(&["logs", "half"]) == "abc");
    wait("half a line is shown with its time", || home.ok(&["logs", "half-timed"]).ends_with("Z abc"));
    let file = home.path("logs/services/binary.log");
    wait("every byte is there", || fs::read(&file).is_ok_and(|b| b == vec![0xff; 100_000]));
    assert_eq!(home.log("closes"), "");
    home.ok(&["stop", "closes", "half"]);
}

#[test]
fn a_line_of_hundreds_of_megabytes_costs_neither_memory_nor_disk() {
    // The raw one passes through the kernel; the other line is cut into parts and passes through hob.
    let log = json!({ "max_size": "2MB", "max_files": 2 });
    let timed = json!({ "max_size": "2MB", "max_files": 2, "timestamps": true });
    let (home, beside) = running(
        json!({
            "raw": { "command": "head -c 200000000 /dev/zero; echo END; exec sleep 1000", "log": log },
            "timed": { "command": "head -c 10000000 /dev/zero; echo END; exec sleep 1000", "log": timed },
        }),
        None,
    );
    let (daemon, keeper) = home.pids();
    let mut most = 0;
    for name in ["raw", "timed"] {
        wait("the end of the line", || {
            most = most.max(resident(daemon) + resident(keeper));
            home.hob(&["logs", name, "-n", "1"]).stdout.ends_with(b"END\n")
        });
    }
    assert!(most < 80 << 10, "{most} KiB");
    let files = fs::read_dir(home.path("logs/services")).unwrap().flatten();
    let kept: u64 = files.map(|f| f.metadata().unwrap().len()).sum();
    assert!(kept < 24_000_000, "{kept} bytes of logs");
    assert_eq!(home.pid("beside"), beside);
}

#[test]
fn stubborn_trees_are_gone_when_stop_returns() {
    stubborn(None);
}

#[test]
fn stubborn_trees_are_gone_when_stop_returns_without_control_groups() {
    stubborn(Some(("HOB_CGROUP", "off")));
}

fn stubborn(env: Option<(&str, &str)>) {
    let mark = format!("hob-stubborn-{}-{}", std::process::id(), env.is_some());
    let ignores = format!("trap '' TERM INT HUP; echo up; while :; do sleep 0.1; : {mark}; done");
    let bomb = format!(
        "i=0; while [ $i -lt 100 ]; do i=$((i+1)); (setsid sh -c 'sleep 1000; : {mark}' &); done; \
         echo up; sleep 1000; : {mark}"
    );
    let twice = format!("(setsid sh -c '(setsid sh -c \"sleep 1000; : {mark}\" &)' &); echo up; sleep 1000; : {mark}");
    let holds = format!("(sh -c 'while :; do echo held; sleep 0.1; : {mark}; done' &); echo up; sleep 1000; : {mark}");
    let service = |command: &str| json!({ "command": command, "ready": { "log": "up" }, "stop_timeout": "300ms" });
    let all = ["ignores", "bomb", "twice", "holds"];
    let commands = [ignores, bomb, twice, holds];
    let services: serde_json::Map<String, Value> =
        all.iter().zip(&commands).map(|(n, c)| ((*n).to_owned(), service(c))).collect();
    let (home, beside) = running(Value::Object(services), env);
    for name in all {
        home.wait_state(name, "running");
    }
    let mut stop = vec!["stop"];
    stop.extend(all);
    home.ok(&stop);
    assert_eq!(processes(&mark), Vec::<u32>::new());
    assert_eq!(home.pid("beside"), beside);
}

#[test]
fn who_is_stopped_by_a_signal_still_ends_by_itself() {
    stopped(None);
}

#[test]
fn who_is_stopped_by_a_signal_still_ends_by_itself_without_control_groups() {
    stopped(Some(("HOB_CGROUP", "off")));
}

fn stopped(env: Option<(&str, &str)>) {
    // Only a limit of an hour keeps this from being the kill after it.
    let command = "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done";
    let spec = json!({ "command": command, "ready": { "log": "up" }, "stop_timeout": "1h" });
    let (home, _) = running(json!({ "s": spec }), env);
    home.wait_state("s", "running");
    kill("STOP", home.pid("s"));
    home.ok(&["stop", "s"]);
    wait("its last words", || home.log("s") == "up\nbye\n");
    let run = home.call("service.history", r#"{"name": "s"}"#);
    assert_eq!(run["runs"][0]["exit_code"], 0, "{run}");
}

#[test]
fn who_takes_another_name_or_leaves_zombies_is_still_known() {
    if !std::process::Command::new("python3").arg("--version").output().is_ok_and(|o| o.status.success()) {
        return skip("python3 is missing: a changed name and zombies are not tried here");
    }
    let renamed = "import ctypes, time; ctypes.CDLL(None).prctl(15, b'x) Z 1 (y', 0, 0, 0); \
                   print('up', flush=True); time.sleep(1000)";
    let zombies = "import os, time\nfor i in range(50):\n    if os.fork() == 0: os._exit(0)\n\
                   print('up', flush=True); time.sleep(1000)";
    let service = |text: &str| json!({ "command": ["python3", "-c", text], "ready": { "log": "up" } });
    let (home, _) = running(json!({ "renamed": service(renamed), "zombies": service(zombies) }), None);
    for name in ["renamed", "zombies"] {
        home.wait_state(name, "running");
        let pid = home.pid(name);
        kill("KILL", home.pids().0);
        assert_eq!(home.pid(name), pid, "it is taken over");
        home.ok(&["stop", name]);
        assert!(!alive(pid));
    }
}
