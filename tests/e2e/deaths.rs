//! What survives: the daemon killed, the keeper killed, everything killed.

use crate::support::*;
use crate::tasks::{submit, wait_task};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

const TWO: &str = r#"{ "services": { "a": { "command": "while :; do echo tick; sleep 0.05; done" },
                                     "b": { "command": "exec sleep 1000", "requires": ["a"] } } }"#;

#[test]
fn a_killed_daemon_is_a_non_event() {
    let home = Home::running(TWO);
    home.wait_state("b", "running");
    let before = (home.pid("a"), home.pid("b"));
    for _ in 0..5 {
        let (daemon, keeper) = home.pids();
        kill("KILL", daemon);
        // No retry here: the listening socket never refuses, and the next daemon answers.
        let (next, same) = home.pids();
        assert_ne!(next, daemon);
        assert_eq!(same, keeper);
        assert_eq!((home.pid("a"), home.pid("b")), before, "the services were not touched");
        assert_eq!(home.state("b"), "running");
    }
    let history = home.call("service.history", r#"{"name": "b"}"#);
    assert_eq!(history["runs"], serde_json::json!([]), "no run has ended");
    assert_eq!(history["running"]["number"], 1, "one run all along: {history}");
}

#[test]
fn an_end_while_no_daemon_runs_is_known() {
    let mut home = Home::new("{}");
    let go = home.path("go");
    let command = format!("until test -e {}; do sleep 0.01; done; exit 42", go.display());
    let config = serde_json::json!({ "services": { "one": { "command": command, "restart": "never" } } });
    home.write_config(&config.to_string());
    home.start(&[]);
    home.wait_state("one", "running");
    for _ in 0..3 {
        let (daemon, _) = home.pids();
        kill("KILL", daemon);
        std::fs::write(&go, "").unwrap();
        wait("the end is told", || matches!(home.state("one").as_str(), "failed" | "finished"));
        let history = home.call("service.history", r#"{"name": "one"}"#);
        assert_eq!(history["runs"][0]["exit_code"], 42, "{history}");
        std::fs::remove_file(&go).unwrap();
        home.ok(&["start", "one"]);
    }
}

#[test]
fn following_logs_and_events_goes_on_over_deaths() {
    let home = Home::running(
        r#"{ "services": { "n": { "command": "i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done" } } }"#,
    );
    home.wait_state("n", "running");
    let mut logs = home.command(&["logs", "-f", "n", "-n", "1000"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(logs.stdout.take().unwrap()).lines();
    let mut last = 0u64;
    for _ in 0..5 {
        let (daemon, _) = home.pids();
        kill("KILL", daemon);
        for _ in 0..50 {
            let n: u64 = lines.next().expect("the follower lives").unwrap().parse().unwrap();
            assert_eq!(n, last + 1, "no line is lost or doubled");
            last = n;
        }
    }
    logs.kill().unwrap();
    logs.wait().unwrap();
}

#[test]
fn a_killed_keeper_takes_its_jobs_down_in_order() {
    let mut home = Home::new("{}");
    let trail = home.path("trail");
    let command =
        format!("trap 'echo stopped >> {}; exit 0' TERM; echo up; while :; do sleep 0.01; done", trail.display());
    let config = serde_json::json!({ "services": { "s": { "command": command, "ready": { "log": "up" } } } });
    home.write_config(&config.to_string());
    home.start(&[]);
    home.wait_state("s", "running");
    let task = submit(&home, serde_json::json!({ "command": "exec sleep 1000" }));
    wait_task(&home, task, "running");
    let (pid, (daemon, keeper)) = (home.pid("s"), home.pids());
    kill("KILL", keeper);
    home.reap();
    wait("daemon and service are gone", || !alive(daemon) && !alive(pid));
    assert_eq!(home.read("trail"), "stopped\n", "it was stopped by its stop sequence");
    assert!(!exists(&home.path("run/hob.pid")), "nobody is left whom it could name");
    home.start(&[]);
    home.wait_state("s", "running");
    let why = home.ok(&["why", "s"]);
    assert!(why.contains("stopped because hob's keeper was killed"), "{why}");
    let task = crate::tasks::task(&home, task);
    assert_eq!((&task["state"], &task["why"]), (&"cancelled".into(), &"because hob's keeper was killed".into()));
}

#[test]
fn a_killed_keeper_of_one_command_leaves_no_folder() {
    let home = Home::new("{}");
    let mut run = home.bare_command(&["run", "--", "sh", "-c", "dirname $HOB_SOCKET; exec sleep 1000"]);
    run.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut run = run.spawn().unwrap();
    let mut folder = String::new();
    BufReader::new(run.stdout.take().unwrap()).read_line(&mut folder).unwrap();
    let folder = Path::new(folder.trim().strip_suffix("/run").unwrap());
    assert!(folder.ends_with(format!("run-{}", run.id())) && exists(folder), "{}", folder.display());
    kill("KILL", run.id());
    run.wait().unwrap();
    wait("the folder goes with the daemon", || !exists(folder));
}

#[test]
fn a_keeper_killed_while_the_last_output_is_waited_for_leaves_no_folder() {
    let home = Home::new("{}");
    let script = "dirname $HOB_SOCKET >&2; exec head -c 300000 /dev/zero";
    let mut run = one_command(&home, script).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut folder = String::new();
    BufReader::new(run.stderr.take().unwrap()).read_line(&mut folder).unwrap();
    let folder = Path::new(folder.trim().strip_suffix("/run").unwrap());
    let log = || std::fs::read_to_string(folder.join("logs/hob.log")).unwrap_or_default();
    wait("the command is over", || log().contains("daemon.stopping"));
    kill("KILL", run.id());
    run.wait().unwrap();
    drop(run.stdout.take());
    wait("the folder goes with the daemon", || !exists(folder));
}

#[test]
fn what_a_killed_hob_of_one_command_leaves_goes_with_the_next_one() {
    let home = Home::new("{}");
    let begin = |script: &str| {
        let script = format!("echo $HOB_SOCKET; {script}");
        let mut run = one_command(&home, &script).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut socket = String::new();
        BufReader::new(run.stdout.take().unwrap()).read_line(&mut socket).unwrap();
        (run, socket.trim().to_owned())
    };
    let folder = |socket: &str| Path::new(socket).parent().unwrap().parent().unwrap().to_owned();
    let once = || assert!(one_command(&home, "true").status().unwrap().success());
    let pid_of = |socket: &str, key: &str| {
        let out = home.bare_command(&["--socket", socket, "call", "daemon.health", "{}", "--json"]).output().unwrap();
        serde_json::from_slice::<serde_json::Value>(&out.stdout).unwrap()[key].as_u64().unwrap()
    };
    let mark = format!("{}-one", home.dir.display());
    let (mut other, living) = begin("exec sleep 1000");
    let (mut run, socket) = begin(&format!("while :; do sleep 0.05; : {mark}; done"));
    let daemon = u32::try_from(pid_of(&socket, "pid")).unwrap();
    kill("STOP", daemon);
    kill("KILL", run.id());
    run.wait().unwrap();
    once();
    assert!(exists(&folder(&socket)), "its daemon may yet go on");
    kill("KILL", daemon);
    wait("it is gone", || !alive(daemon));
    once();
    assert!(exists(&folder(&socket)), "a process of it is left");
    wait("nothing of it is left", || {
        processes(&mark).into_iter().filter(|pid| *pid != run.id()).for_each(|pid| kill("KILL", pid));
        processes(&mark).is_empty()
    });
    // Several at once do not get in each other's way.
    let all: Vec<_> = (0..4).map(|_| one_command(&home, "true").spawn().unwrap()).collect();
    for mut one in all {
        assert!(one.wait().unwrap().success());
    }
    wait("the folder is gone", || {
        once();
        !exists(&folder(&socket))
    });
    assert_eq!(pid_of(&living, "keeper_pid"), u64::from(other.id()), "the one that lives was left alone");
    kill("TERM", other.id());
    other.wait().unwrap();
    wait("its folder goes with it", || !exists(&folder(&living)));
}

/// hob for this script alone.
fn one_command(home: &Home, script: &str) -> Command {
    let mut c = home.bare_command(&["run", "--", "sh", "-c", script]);
    // Where the tests are not run by root: with theirs, no folder of this user's own is touched.
    c.env("XDG_RUNTIME_DIR", home.path("runtime")).stdin(Stdio::null());
    std::fs::create_dir_all(home.path("runtime")).unwrap();
    c
}

#[test]
fn after_the_death_of_all_the_next_start_needs_nobody() {
    let mut home = Home::new("{}");
    let mark = format!("{}-all", home.dir.display());
    let command = format!("while :; do sleep 1; : {mark}; done");
    let config = serde_json::json!({ "services": { "s": { "command": command, "stop_timeout": "500ms" } } });
    home.write_config(&config.to_string());
    home.start(&[]);
    home.wait_state("s", "running");
    let pid = home.pid("s");
    kill_both(&mut home);
    assert!(alive(pid), "the service lived on");
    home.start(&[]);
    home.wait_state("s", "running");
    assert!(!alive(pid), "the old process was stopped");
    // A shell that is about to start a program is two for a moment.
    wait("one new one runs", || processes(&mark).len() == 1);
    assert_ne!(home.pid("s"), pid);
}

#[test]
fn a_stopped_service_stays_stopped_over_a_death() {
    let home = Home::running(TWO);
    home.wait_state("b", "running");
    home.ok(&["stop", "b"]);
    let (daemon, _) = home.pids();
    kill("KILL", daemon);
    assert_eq!(home.state("b"), "stopped");
    assert_eq!(home.state("a"), "running");
}

#[test]
fn a_death_while_the_leftovers_of_all_are_stopped_doubles_nothing() {
    for cgroup in ["on", "off"] {
        let mut home = Home::with_env("{}", "HOB_CGROUP", cgroup);
        let mark = format!("{}-again", home.dir.display());
        // It ends only by SIGKILL, so that the first daemon is still waiting for it when it dies.
        let command = format!("trap '' TERM; while :; do sleep 0.1; : {mark}; done");
        let config = serde_json::json!({ "services": { "s": { "command": command, "stop_timeout": "1s" } } });
        home.write_config(&config.to_string());
        home.start(&[]);
        home.wait_state("s", "running");
        let pid = home.pid("s");
        kill_both(&mut home);
        home.start(&[]);
        kill("KILL", home.pids().0);
        wait("a new one runs", || home.state("s") == "running" && home.pid("s") != pid);
        assert!(!alive(pid), "the old one was stopped first");
        wait("one new one runs", || processes(&mark).len() == 1);
    }
}

/// Kills keeper and daemon at once. The daemon must not see its keeper die, so it is held first.
fn kill_both(home: &mut Home) {
    let (daemon, keeper) = home.pids();
    kill("STOP", daemon);
    kill("KILL", keeper);
    kill("KILL", daemon);
    home.reap();
    wait("both are gone", || !alive(daemon) && !alive(keeper));
}

#[test]
fn a_daemon_that_hangs_keeps_no_question_and_no_end_waiting() {
    let mut home = Home::running(
        r#"{ "daemon": { "heartbeat": "0s", "shutdown_timeout": "1s" },
             "services": { "s": { "command": "exec sleep 1000" } } }"#,
    );
    home.wait_state("s", "running");
    let (pid, (daemon, _)) = (home.pid("s"), home.pids());
    kill("STOP", daemon);
    for args in [&["ping"][..], &["stop", "s"]] {
        let (code, said) = home.fails(args);
        assert!(code == 3 && said.contains("hob hangs") && said.contains("hob stop --force"), "{code} {said}");
    }
    // The keeper alone ends it, though nobody takes the request.
    home.ok(&["stop"]);
    assert!(!alive(pid) && !alive(daemon));
    home.wait_end();
}
