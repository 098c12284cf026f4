//! What happens to hob itself: damaged and removed files of its life, many starts at once, signals and kills of any of
//! its processes, too few descriptors and processes.

use crate::support::*;
use std::fs;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

const ONE: &str = r#"{ "services": { "s": { "command": "exec sleep 1000" } } }"#;

#[test]
fn a_hundred_starts_at_once_all_succeed_and_give_one_hob() {
    let home = Home::new(ONE);
    let start = || home.command(&["start"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let all: Vec<_> = (0..100).map(|_| start()).collect();
    for child in all {
        let out = child.wait_with_output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }
    let (daemon, keeper) = home.pids();
    let of_home = || {
        let mut all = processes(&home.dir.display().to_string());
        all.sort_unstable();
        all
    };
    let mut only = vec![daemon, keeper];
    only.sort_unstable();
    wait("the others have ended", || of_home() == only);
    home.ok(&["stop"]);
}

#[test]
fn whatever_stands_in_the_lock_file_hob_is_found_and_ended() {
    let mut home = Home::running(ONE);
    home.wait_state("s", "running");
    let (service, (daemon, keeper)) = (home.pid("s"), home.pids());
    let lock = home.path("run/hob.lock");
    let text = fs::read(&lock).unwrap();
    let refused = |home: &Home, what: &str| {
        let (_, said) = home.fails(&["run"]);
        assert!(said.contains("already running") && said.contains(&keeper.to_string()), "{what}: {said}");
    };
    // Each single byte; the unit tests of the lock try each bit. All but a few are only looked at.
    for at in 0..text.len() {
        let mut flipped = text.clone();
        flipped[at] ^= 1;
        fs::write(&lock, &flipped).unwrap();
        assert_eq!(home.pids(), (daemon, keeper));
        if at % 16 == 0 {
            refused(&home, &format!("byte {at}"));
        }
    }
    for garbage in [&b""[..], b"1 1 x 00000000\n", &[0; 4096]] {
        fs::write(&lock, garbage).unwrap();
        refused(&home, &format!("{garbage:?}"));
    }
    // Without the socket too: what holds the lock is found all the same.
    fs::remove_file(home.path("run/hob.sock")).unwrap();
    let (_, said) = home.fails(&["status"]);
    assert!(said.contains(&keeper.to_string()), "{said}");
    home.ok(&["stop", "--force"]);
    home.reap();
    assert!(!alive(daemon) && !alive(keeper) && !alive(service));
    home.start(&[]);
    home.wait_state("s", "running");
}

#[test]
fn a_removed_lock_file_makes_no_second_hob() {
    let mut home = Home::running(ONE);
    home.wait_state("s", "running");
    let (before, pid) = (home.pids(), home.pid("s"));
    fs::remove_file(home.path("run/hob.lock")).unwrap();
    for _ in 0..3 {
        let (_, said) = home.fails(&["run"]);
        assert!(said.contains("already running") && said.contains(&before.1.to_string()), "{said}");
        assert!(home.ok(&["start"]).contains("already runs"));
    }
    assert_eq!((home.pids(), home.pid("s")), (before, pid));
    // A daemon that dies now is followed by one that may go on.
    kill("KILL", before.0);
    assert_eq!(home.pid("s"), pid);
    home.ok(&["stop"]);
    home.wait_end();
    assert!(!alive(pid));
}

#[test]
fn the_pid_file_is_never_believed() {
    let mut home = Home::new(ONE);
    fs::create_dir_all(home.path("run")).unwrap();
    let innocent = std::process::id().to_string();
    for text in ["", "nonsense\n", "1\n", "-1\n", &"9".repeat(100_000), "\0\u{ff}", innocent.as_str()] {
        fs::write(home.path("run/hob.pid"), text).unwrap();
        assert!(home.ok(&["stop"]).contains("not running"));
        home.ok(&["stop", "--force"]);
        fs::write(home.path("run/hob.pid"), text).unwrap();
        home.start(&[]);
        wait("its own pid stands there", || home.read("run/hob.pid") == format!("{}\n", home.keeper()));
        fs::write(home.path("run/hob.pid"), text).unwrap();
        home.ok(&["status"]);
        home.ok(&["stop"]);
        home.wait_end();
    }
}

#[test]
fn damaged_state_is_told_and_never_keeps_hob_from_starting() {
    let mut home = Home::running(ONE);
    home.wait_state("s", "running");
    home.ok(&["restart", "s"]);
    home.ok(&["stop"]);
    home.wait_end();
    let files: Vec<_> = fs::read_dir(home.path("state")).unwrap().flatten().map(|f| f.path()).collect();
    let whole: Vec<(std::path::PathBuf, Vec<u8>)> =
        files.iter().filter_map(|f| Some((f.clone(), fs::read(f).ok()?))).collect();
    assert!(whole.len() >= 2, "{files:?}");
    for round in 0..6 {
        for (n, (file, bytes)) in whole.iter().enumerate() {
            let mut bytes = bytes.clone();
            // A sample: here and there a byte of each, then the half of it, then noise.
            match round {
                5 => bytes = vec![0xa5; 10_000],
                4 => bytes.truncate(bytes.len() / 2),
                _ => bytes.iter_mut().skip((round * 31 + n * 7) % 64).step_by(97).for_each(|b| *b ^= 0x21),
            }
            fs::write(file, bytes).unwrap();
        }
        home.start(&[]);
        home.wait_state("s", "running");
        home.ok(&["stop"]);
        home.wait_end();
    }
}

#[test]
fn all_processes_may_be_told_to_end_at_once() {
    let mut home = Home::running(
        r#"{ "services": { "a": { "command": "exec sleep 1000" },
                           "b": { "command": "trap '' TERM; while :; do sleep 0.05; done",
                                  "stop_timeout": "200ms" } } }"#,
    );
    home.wait_state("a", "running");
    home.wait_state("b", "running");
    let (daemon, keeper) = home.pids();
    let services = [home.pid("a"), home.pid("b")];
    let all: Vec<String> = services.iter().chain(&[daemon, keeper]).map(u32::to_string).collect();
    assert!(Command::new("kill").arg("-TERM").args(&all).status().unwrap().success());
    assert!(home.wait_end().success());
    assert!(services.iter().all(|pid| !alive(*pid)) && !alive(daemon));
}

#[test]
fn a_killed_keeper_is_survived_by_no_job_that_an_earlier_daemon_had_started() {
    for by_group in [true, false] {
        // Only limits of minutes would end what is not seen to end.
        let config = r#"{ "daemon": { "shutdown_timeout": "10m" }, "services": {
            "s": { "command": "exec sleep 1000", "stop_timeout": "10m" },
            "dies": { "command": "exec sleep 1001", "restart": "always", "min_delay": "0s" } } }"#;
        let mut home = match by_group {
            true => Home::new(config),
            false => Home::with_env(config, "HOB_CGROUP", "off"),
        };
        home.start(&[]);
        home.wait_state("s", "running");
        home.wait_state("dies", "running");
        let (pids, (first, keeper)) = ([home.pid("s"), home.pid("dies")], home.pids());
        kill("KILL", first);
        let (daemon, _) = home.pids();
        assert_eq!(home.pid("s"), pids[0], "it is taken over");
        kill("KILL", keeper);
        kill("KILL", pids[1]);
        home.reap();
        wait("the daemon has stopped all and ended", || !alive(daemon));
        assert!(pids.iter().all(|pid| !alive(*pid)));
        home.start(&[]);
        home.wait_state("s", "running");
        home.ok(&["stop"]);
        home.wait_end();
    }
}

#[test]
fn a_daemon_that_was_stopped_and_goes_on_has_forgotten_nothing() {
    let home = Home::running(
        r#"{ "services": { "s": { "command": "exec sleep 1000", "restart": "always", "min_delay": "0s" } } }"#,
    );
    home.wait_state("s", "running");
    let (daemon, pid) = (home.pids().0, home.pid("s"));
    kill("STOP", daemon);
    kill("KILL", pid);
    let mut waiting = home.command(&["ping"]).stdout(Stdio::null()).spawn().unwrap();
    assert!(waiting.try_wait().unwrap().is_none() || waiting.wait().unwrap().success());
    kill("CONT", daemon);
    wait("the end is seen and answered", || home.state("s") == "running" && home.pid("s") != pid);
    assert_eq!(home.pids().0, daemon);
    assert!(waiting.wait().unwrap().success());
}

#[test]
fn a_stop_reaches_hob_where_no_daemon_can_come_up() {
    let mut home = Home::new("{}");
    home.start(&[]);
    let (daemon, keeper) = home.pids();
    // The daemon hangs for good and the keeper takes the word instead; killed, the next daemon carries it out.
    kill("STOP", daemon);
    let mut stop = home.command(&["stop"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    let mut errors = stop.stderr.take().unwrap();
    let mut byte = [0];
    while !said.ends_with('\n') && std::io::Read::read(&mut errors, &mut byte).unwrap() == 1 {
        said.push(char::from(byte[0]));
    }
    assert!(said.contains(&format!("its keeper, pid {keeper}, was told by SIGTERM instead")), "{said}");
    kill("KILL", daemon);
    assert!(stop.wait().unwrap().success());
    home.wait_end();
}

#[test]
fn few_descriptors_delay_starts_and_refuse_clients_but_a_stop_works() {
    let services: Vec<String> = (0..30).map(|i| format!(r#""s{i}": {{ "command": ["sleep", "1000"] }}"#)).collect();
    let mut home = Home::new(&format!(r#"{{ "services": {{ {} }} }}"#, services.join(",")));
    home.start_by(&["sh", "-c", "ulimit -n 40 && exec \"$@\"", "sh"]);
    let crowd: Vec<_> = (0..60).map_while(|_| UnixStream::connect(home.path("run/hob.sock")).ok()).collect();
    let told = |home: &Home| {
        let out = home.hob(&["status"]);
        out.status.success() || String::from_utf8_lossy(&out.stderr).contains("out of descriptors")
    };
    assert!(told(&home));
    home.ok(&["stop"]);
    assert!(home.wait_end().success());
    drop(crowd);
}

#[test]
fn too_few_processes_delay_a_start_and_it_goes_on_by_itself() {
    let able = Command::new("setpriv").args(["--reuid=65533", "--clear-groups", "prlimit", "--version"]).output();
    if !able.is_ok_and(|o| o.status.success()) {
        return skip("only root can take another user's processes away, so a lack of them is not tried");
    }
    let mut home = Home::new(
        r#"{ "services": { "a": { "command": ["sleep", "1000"] }, "b": { "command": ["sleep", "1000"] } } }"#,
    );
    let given = Command::new("chown").args(["-R", "65533:65533"]).arg(&home.dir).status();
    assert!(given.unwrap().success());
    home.start_by(&["setpriv", "--reuid=65533", "--regid=65533", "--clear-groups"]);
    home.wait_state("a", "running");
    home.wait_state("b", "running");
    let (daemon, _) = home.pids();
    let limit = |number: &str| {
        let args = ["--reuid=65533", "--regid=65533", "--clear-groups", "prlimit", "--pid", &daemon.to_string()];
        let given = Command::new("setpriv").args(args).arg(format!("--nproc={number}:")).status();
        assert!(given.unwrap().success());
    };
    limit("1");
    home.call("service.restart", r#"{"name": "a", "wait": false}"#);
    wait("it lacks a process", || home.ok(&["why", "a"]).contains("cannot create a process"));
    assert_eq!((home.state("b").as_str(), home.service("a")["restarts"].as_u64()), ("running", Some(0)));
    limit("1000");
    home.wait_state("a", "running");
}
