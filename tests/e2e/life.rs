//! The life of hob itself: starting, stopping, one at a time, as a container's entry point, idle.

use crate::support::*;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

const ONE: &str = r#"{ "services": { "s": { "command": "exec sleep 1000" } } }"#;

#[test]
fn start_detaches_and_stop_ends_all() {
    let home = Home::new(ONE);
    home.ok(&["start"]);
    home.wait_state("s", "running");
    let (pid, (daemon, keeper)) = (home.pid("s"), home.pids());
    assert_eq!(home.read("run/hob.pid"), format!("{keeper}\n"));
    home.ok(&["start"]);
    assert_eq!(home.pids().1, keeper, "a second start finds the first");
    home.ok(&["stop"]);
    assert!(!alive(pid) && !alive(daemon) && !alive(keeper), "stop returns when all is gone");
    assert!(!exists(&home.path("run/hob.pid")) && !exists(&home.path("run/hob.sock")));
    let (code, text) = home.fails(&["status"]);
    assert!(text.contains("not running") && code == 3, "{code} {text}");
    assert!(home.hob(&["stop"]).status.success(), "to stop what is stopped is no error");
}

#[test]
fn a_start_waits_for_the_end_of_a_hob_that_is_stopping() {
    let slow = r#"{ "services": { "s": { "command": "trap '' TERM; echo up; while :; do sleep 0.05; done",
                                         "ready": { "log": "up" }, "stop_timeout": "1s" } } }"#;
    for stop in ["request", "death of its keeper"] {
        let home = Home::new(slow);
        home.ok(&["start"]);
        home.wait_state("s", "running");
        let keeper = home.pids().1;
        if stop == "request" {
            home.ok(&["stop", "--no-wait"]);
        } else {
            kill("KILL", keeper);
        }
        let stopping = || home.call("daemon.health", "{}")["status"] == "stopping";
        wait("it is stopping", stopping);
        let said = home.ok(&["start"]);
        assert!(said.starts_with("hob runs, pid "), "{stop}: {said}");
        assert_ne!(home.pids().1, keeper, "{stop}");
        home.ok(&["stop"]);
    }
    let home = Home::new(&slow.replace("1s", "1000s"));
    home.ok(&["start"]);
    home.wait_state("s", "running");
    home.ok(&["stop", "--no-wait"]);
    let (_, said) = home.fails(&["start", "--timeout", "300ms"]);
    assert!(said.contains("is stopping, and has not ended within 300ms") && said.contains("stop --force"), "{said}");
    home.ok(&["stop", "--force"]);
}

#[test]
fn a_stop_waits_for_no_later_hob() {
    let home = Home::new(
        r#"{ "services": { "s": { "command": "trap '' TERM; echo up; while :; do sleep 0.05; done",
                                  "ready": { "log": "up" }, "stop_timeout": "300ms" } } }"#,
    );
    home.ok(&["start"]);
    home.wait_state("s", "running");
    let first = home.pids().1;
    let mut stop = home.command(&["stop"]).stdout(Stdio::null()).spawn().unwrap();
    wait("it is stopping", || home.call("daemon.health", "{}")["status"] == "stopping");
    // It sees nothing of what happens until another hob runs.
    kill("STOP", stop.id());
    wait("the first one has ended", || !alive(first));
    home.ok(&["start"]);
    kill("CONT", stop.id());
    assert!(stop.wait().unwrap().success());
    assert_eq!(home.call("daemon.health", "{}")["status"], "ok", "the later one still runs");
    home.ok(&["stop"]);
}

#[test]
fn files_have_the_modes_that_keep_others_out() {
    let home = Home::running(ONE);
    wait("the log is there", || exists(&home.path("logs/services/s.log")));
    let mode = |f: &str| fs::metadata(home.path(f)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("run"), mode("state"), mode("logs")), (0o711, 0o700, 0o700));
    assert_eq!((mode("run/hob.sock"), mode("logs/hob.log"), mode("logs/services/s.log")), (0o600, 0o600, 0o600));
}

#[test]
fn a_second_one_of_the_same_home_is_refused() {
    let home = Home::running(ONE);
    let (code, text) = home.fails(&["run"]);
    assert!(text.contains("already running") && text.contains(&home.keeper().to_string()), "{text}");
    assert_eq!(code, 3);
}

#[test]
fn many_starts_at_once_give_one_hob() {
    let home = Home::new(ONE);
    let all: Vec<_> = (0..20)
        .map(|_| home.command(&["start"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap())
        .collect();
    for child in all {
        let out = child.wait_with_output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }
    let (_, keeper) = home.pids();
    let keepers = processes(&home.dir.display().to_string());
    assert!(keepers.contains(&keeper));
    home.ok(&["stop"]);
}

#[test]
fn stale_files_of_a_killed_hob_never_need_a_person() {
    let mut home = Home::running(ONE);
    home.wait_state("s", "running");
    let (daemon, keeper) = home.pids();
    kill("STOP", daemon);
    kill("KILL", keeper);
    kill("KILL", daemon);
    home.reap();
    assert!(exists(&home.path("run/hob.sock")) && exists(&home.path("run/hob.pid")));
    fs::write(home.path("run/hob.lock"), "garbage").unwrap();
    fs::write(home.path("run/hob.pid"), "1\n").unwrap();
    home.start(&[]);
    home.wait_state("s", "running");
    assert_eq!(home.read("run/hob.pid"), format!("{}\n", home.keeper()));
}

#[test]
fn signals_stop_and_reload() {
    let mut home = Home::running(ONE);
    home.wait_state("s", "running");
    home.write_config(
        r#"{ "services": { "s": { "command": "exec sleep 1000" }, "t": { "command": "exec sleep 1001" } } }"#,
    );
    kill("HUP", home.keeper());
    wait("the new service runs", || {
        home.hob(&["service", "get", "t"]).status.success() && home.state("t") == "running"
    });
    kill("TERM", home.keeper());
    assert_eq!(home.wait_end().code(), Some(0));
}

#[test]
fn force_needs_no_socket() {
    let mut home =
        Home::running(r#"{ "services": { "s": { "command": "trap '' TERM; while :; do sleep 1; done" } } }"#);
    home.wait_state("s", "running");
    let (pid, (daemon, keeper)) = (home.pid("s"), home.pids());
    kill("STOP", daemon);
    fs::remove_file(home.path("run/hob.sock")).unwrap();
    home.ok(&["stop", "--force"]);
    assert!(!alive(pid) && !alive(daemon) && !alive(keeper));
    home.reap();
}

#[test]
fn a_command_runs_as_the_entry_point_of_a_container() {
    let home = Home::new("{}");
    let run = |words: &[&str]| {
        let mut args = vec!["run", "--"];
        args.extend(words);
        home.hob(&args)
    };
    let out = run(&["sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!(out.status.code(), Some(7));
    assert_eq!((out.stdout.as_slice(), out.stderr.as_slice()), (&b"out\n"[..], &b"err\n"[..]), "and nothing of hob's");
    assert_eq!(run(&["true"]).status.code(), Some(0));
    assert_eq!(run(&["sh", "-c", "kill -9 $$"]).status.code(), Some(137));
    for (program, code, say) in [
        ("no-such-program-here", 127, "no-such-program-here: not found in PATH"),
        ("/no/such/program", 127, "/no/such/program: No such file or directory"),
        ("/etc/passwd", 126, "/etc/passwd: Permission denied; it is not executable: chmod +x /etc/passwd"),
        ("/tmp", 126, "/tmp: it is a folder"),
    ] {
        let out = run(&[program]);
        let said = String::from_utf8_lossy(&out.stderr);
        assert_eq!((out.status.code(), said.as_ref()), (Some(code), format!("hob: cannot execute {say}\n").as_str()));
    }
    let big = run(&["sh", "-c", "i=0; while [ $i -lt 20000 ]; do echo $i; i=$((i+1)); done"]);
    let lines: Vec<u32> = String::from_utf8_lossy(&big.stdout).lines().map(|l| l.parse().unwrap()).collect();
    assert_eq!(lines, (0..20000).collect::<Vec<_>>(), "the output passes through whole");
}

#[test]
fn a_signal_to_the_entry_point_stops_its_command() {
    let home = Home::new("{}");
    let mut child = home
        .command(&["run", "--", "sh", "-c", "trap 'echo bye; exit 5' TERM; echo up; while :; do sleep 0.01; done"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = child.stdout.take().unwrap();
    let mut first = [0; 3];
    out.read_exact(&mut first).unwrap();
    kill("TERM", child.id());
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "bye\n");
    assert_eq!(child.wait().unwrap().code(), Some(5));
}

#[test]
fn a_command_without_a_config_gets_the_hangup() {
    let home = Home::new("{}");
    fs::remove_file(home.path("hob.json")).unwrap();
    let mut child = home
        .command(&["run", "--", "sh", "-c", "trap 'echo hup; exit 6' HUP; echo up; while :; do sleep 0.01; done"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = child.stdout.take().unwrap();
    let mut first = [0; 3];
    out.read_exact(&mut first).unwrap();
    kill("HUP", child.id());
    let mut ended = None;
    wait("the command ends", || {
        ended = child.try_wait().unwrap();
        ended.is_some()
    });
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    assert_eq!((rest.as_str(), ended.unwrap().code()), ("hup\n", Some(6)));
}

#[test]
fn a_command_that_is_missing_starts_no_hob() {
    let home = Home::new("{}");
    for words in [&["run", "--"][..], &["run", "--managed", "--"]] {
        let (code, text) = home.fails(words);
        assert_eq!(code, 2);
        assert!(text.contains("'run --' needs a command after --"), "{text}");
    }
}

#[test]
fn pid_one_of_a_namespace_reaps_and_ends() {
    let able = Command::new("unshare").args(["-pf", "--mount-proc", "true"]).output().is_ok_and(|o| o.status.success());
    if !able {
        return skip("no PID namespace can be made here");
    }
    let home = Home::new("{}");
    let strays = "for i in 1 2 3 4 5; do (setsid sleep 0.05 &) ; done; sleep 0.5; ls -d /proc/[0-9]* | wc -l; exit 9";
    let out = Command::new("unshare")
        .args(["-pf", "--mount-proc", HOB, "--home"])
        .arg(&home.dir)
        .args(["run", "--", "sh", "-c", strays])
        .output()
        .unwrap();
    assert_eq!(out.status.code(), Some(9), "{}", String::from_utf8_lossy(&out.stderr));
    let left: u32 = String::from_utf8_lossy(&out.stdout).trim().parse().unwrap();
    assert!(left <= 5, "keeper, daemon, sh, ls, wc: {left} processes");
}

#[test]
fn an_idle_hob_makes_no_system_call() {
    let services: Vec<String> = (0..10).map(|i| format!("\"s{i}\": {{\"command\": \"exec sleep 1000\"}}")).collect();
    let home =
        Home::running(&format!(r#"{{ "daemon": {{ "heartbeat": "0s" }}, "services": {{ {} }} }}"#, services.join(",")));
    for i in 0..10 {
        home.wait_state(&format!("s{i}"), "running");
    }
    let (daemon, keeper) = home.pids();
    // A system call that blocks and returns shows as a context switch; the count must come to rest.
    let switches = || {
        [daemon, keeper].map(|pid| {
            let mut sum = 0u64;
            for task in fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten() {
                let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
                sum += status
                    .lines()
                    .filter(|l| l.contains("ctxt_switches"))
                    .filter_map(|l| l.split_whitespace().last()?.parse::<u64>().ok())
                    .sum::<u64>();
            }
            sum
        })
    };
    let mut last = switches();
    let mut quiet = 0;
    wait("two seconds without a wake-up", || {
        let now = switches();
        quiet = if now == last { quiet + 1 } else { 0 };
        last = now;
        quiet > 400
    });
}

#[test]
fn a_command_of_its_own_leaves_nothing_behind() {
    // As a user's: a run folder that can be written, and no --home.
    let home = Home::new("{}");
    let out = home
        .bare_command(&["run", "--", "sh", "-c", "echo $HOB_SERVICE; exit 4"])
        .env("HOME", &home.dir)
        .env("XDG_STATE_HOME", home.path("s"))
        .env("XDG_RUNTIME_DIR", home.path("r"))
        .output()
        .unwrap();
    assert_eq!((out.status.code(), out.stdout.as_slice()), (Some(4), &b"sh\n"[..]));
    if let Ok(left) = fs::read_dir(home.path("r/hob")) {
        assert_eq!(left.count(), 0, "its folder is gone");
    }
}

#[test]
fn a_command_runs_where_nothing_is_writable() {
    let able = Command::new("setpriv").args(["--reuid=65534", "--clear-groups", "true"]).output();
    if !able.is_ok_and(|o| o.status.success()) {
        return skip("only root can become a user who may write nowhere");
    }
    let home = Home::new("{}");
    // The build folder need not be open to others; a copy is.
    let copy = home.path("hob");
    copy_hob(&copy);
    fs::set_permissions(&home.dir, fs::Permissions::from_mode(0o755)).unwrap();
    let out = Command::new("setpriv")
        .args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "env",
            "-i",
            "HOME=/nonexistent",
            "PATH=/usr/bin:/bin",
        ])
        .arg(&copy)
        .args(["run", "--", "sh", "-c", "echo out; echo err >&2; exit 5"])
        .output()
        .unwrap();
    let err = String::from_utf8_lossy(&out.stderr);
    assert_eq!((out.status.code(), out.stdout.as_slice()), (Some(5), &b"out\n"[..]), "{err}");
    assert!(err.contains("err\n") && err.contains("going on without"), "{err}");
}
