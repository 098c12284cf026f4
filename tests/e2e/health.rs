//! Readiness and health with real processes: every kind of check, the commands beside a run, and the daemon killed in
//! the middle of it.

use crate::support::*;
use std::fs;

fn has_python() -> bool {
    std::process::Command::new("python3").arg("--version").output().is_ok_and(|o| o.status.success())
}

/// A home whose hob runs with these services.
fn with(make: impl FnOnce(&Home) -> serde_json::Value) -> Home {
    let mut home = Home::new("{}");
    let config = serde_json::json!({ "services": make(&home) });
    home.write_config(&config.to_string());
    home.start(&[]);
    home
}

/// A shell command that waits for a file.
fn until(home: &Home, file: &str) -> String {
    format!("until test -e {}; do sleep 0.01; done", home.path(file).display())
}

fn touch(home: &Home, file: &str) {
    fs::write(home.path(file), "").unwrap();
}

#[test]
fn readiness_by_descriptor_socket_and_command() {
    let python = has_python();
    if !python {
        skip("python3 is missing: readiness by socket is not tried here");
    }
    let home = with(|home| {
        let go = until(home, "go");
        let mut services = serde_json::json!({
            "fd": { "command": format!("printf half >&7; {go}; echo >&7; exec sleep 1000"), "ready": { "fd": 7 } },
            "cmd": { "command": "exec sleep 1000",
                     "ready": { "command": format!("echo asked; test -e {}", home.path("go").display()) } } });
        if python {
            let serve = format!(
                "{go}; exec python3 -c 'import socket,time; s=socket.socket(socket.AF_UNIX); s.bind(\"{}\"); \
                 s.listen(); time.sleep(1000)'",
                home.path("app.sock").display()
            );
            services["sock"] = serde_json::json!({ "command": serve, "ready": { "socket": "app.sock" } });
        }
        services
    });
    let names: &[&str] = if python { &["fd", "cmd", "sock"] } else { &["fd", "cmd"] };
    for name in names {
        home.wait_state(name, "starting");
    }
    assert!(home.ok(&["why", "fd"]).contains("descriptor 7"));
    touch(&home, "go");
    for name in names {
        home.wait_state(name, "running");
    }
    assert!(!home.log("cmd").contains("asked"), "what a check prints is not the service's output");
}

#[test]
fn a_line_written_while_no_daemon_runs_is_seen_by_the_next() {
    let home = with(|home| {
        let command = format!("{}; echo ready >&3; echo written; exec sleep 1000", until(home, "go"));
        serde_json::json!({ "s": { "command": command, "ready": { "fd": 3 } } })
    });
    home.wait_state("s", "starting");
    // It is starting before there is a process of it.
    wait("it runs", || home.pid("s") != 0);
    let (daemon, pid) = (home.pids().0, home.pid("s"));
    kill("STOP", daemon);
    touch(&home, "go");
    // The line is in the pipe once the program that follows it runs.
    wait("the line is written", || is_sleep(pid));
    kill("KILL", daemon);
    home.wait_state("s", "running");
}

fn is_sleep(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|c| c.trim() == "sleep")
}

#[test]
fn a_line_of_an_earlier_run_does_not_count() {
    let home = with(|home| {
        // The first run writes more than once and ends; the second never writes.
        let first = home.path("first").display().to_string();
        let command = format!(
            "if test -e {first}; then exec sleep 1000; fi; : > {first}; echo a >&3; {}; echo b >&3; exit 1",
            until(home, "go")
        );
        serde_json::json!({ "s": { "command": command, "ready": { "fd": 3 }, "min_delay": "1ms" } })
    });
    home.wait_state("s", "running");
    touch(&home, "go");
    wait("the second run", || home.service("s")["restarts"] == 1 && home.state("s") == "starting");
    let (daemon, _) = home.pids();
    kill("KILL", daemon);
    assert_eq!(home.state("s"), "starting", "nobody wrote a line in this run");
}

#[test]
fn a_check_left_running_by_a_dead_daemon_is_ended() {
    left_check(Home::new("{}"));
}

#[test]
fn a_check_left_running_by_a_dead_daemon_is_ended_without_control_groups() {
    left_check(Home::with_env("{}", "HOB_CGROUP", "off"));
}

fn left_check(mut home: Home) {
    let mark = format!("{}-check", home.dir.display());
    let go = home.path("go").display().to_string();
    // A check that hangs, with a child in a session of its own.
    let check = format!("test -e {go} && exit 0; setsid sh -c 'while :; do sleep 1; : {mark}; done' & wait");
    let config = serde_json::json!({ "services": { "s": {
        "command": "exec sleep 1000", "ready": { "command": check } } } });
    home.write_config(&config.to_string());
    home.start(&[]);
    wait("the check hangs", || processes(&mark).len() >= 2);
    let old = processes(&mark);
    let (pid, (daemon, _)) = (home.pid("s"), home.pids());
    kill("KILL", daemon);
    wait("the old check is gone", || !old.iter().any(|p| alive(*p)));
    assert_eq!((home.state("s").as_str(), home.pid("s")), ("starting", pid), "the service itself was not touched");
    wait("a new one runs", || processes(&mark).len() >= 2);
    touch(&home, "go");
    home.ok(&["stop", "s"]);
    wait("nothing is left of any check", || processes(&mark).is_empty());
}

#[test]
fn a_check_that_hangs_is_killed_as_a_tree_with_the_start() {
    let mut home = Home::new("{}");
    let mark = format!("{}-hangs", home.dir.display());
    let check = format!("trap '' TERM; setsid sh -c 'trap \"\" TERM; while :; do sleep 1; : {mark}; done' & wait");
    let config = serde_json::json!({ "services": { "s": { "command": "exec sleep 1000", "restart": "never",
        "ready": { "command": check }, "ready_timeout": "700ms" } } });
    home.write_config(&config.to_string());
    home.start(&[]);
    wait("the check hangs", || processes(&mark).len() >= 2);
    home.wait_state("s", "failed");
    wait("nothing is left of the check", || processes(&mark).is_empty());
    assert!(home.service("s")["last_error"].as_str().unwrap().contains("not ready in time"));
}

#[test]
fn who_fails_its_health_check_is_restarted_and_told() {
    let home = with(|home| {
        let check = format!("test -e {0} && exit 0; echo no file; exit 9", home.path("well").display());
        serde_json::json!({
            "s": { "command": "exec sleep 1000", "min_delay": "1ms",
                   "health": { "command": check, "every": "100ms", "retries": 3 } },
            "late": { "command": "exec sleep 1000", "requires": [{ "name": "s", "condition": "healthy" }] } })
    });
    wait("it was restarted", || home.service("s")["restarts"].as_u64().unwrap() >= 1);
    assert_eq!(home.state("late"), "waiting", "what needs it healthy waits");
    let why = home.ok(&["why", "s"]);
    assert!(why.contains("health check failed 3 times: exit code 9: no file"), "{why}");
    assert!(home.ok(&["why", "late"]).contains("for s"), "{}", home.ok(&["why", "late"]));
    touch(&home, "well");
    home.wait_state("late", "running");
    assert_eq!(home.service("s")["health"], "ok");
    let pid = home.pid("s");
    let (daemon, _) = home.pids();
    kill("KILL", daemon);
    assert_eq!((home.pid("s"), home.state("late").as_str()), (pid, "running"), "a death of the daemon is no event");
    let events = home.call("event.history", r#"{"kinds": ["service.*healthy"], "limit": 1000}"#).to_string();
    assert!(events.contains("service.unhealthy"), "{events}");
    assert_eq!(events.matches("service.healthy").count(), 1, "{events}");
    fs::remove_file(home.path("well")).unwrap();
    wait("it failed again, under the next daemon", || home.pid("s") != pid && home.pid("s") != 0);
}

#[test]
fn checks_by_network_and_socket_see_a_server_die_and_come_back() {
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let home = with(|_| {
        let health = |kind: &str, at: serde_json::Value| {
            let mut health = serde_json::json!({ "every": "100ms", "timeout": "500ms", "retries": 1000 });
            health[kind] = at;
            serde_json::json!({ "command": "exec sleep 1000", "health": health })
        };
        serde_json::json!({ "tcp": health("tcp", port.into()), "sock": health("unix", "app.sock".into()),
                            "http": health("http", format!("http://127.0.0.1:{port}/up").into()) })
    });
    let state = |name: &str| home.service(name)["health"].as_str().unwrap().to_owned();
    wait("the port is well", || state("tcp") == "ok");
    wait("nobody speaks http", || state("http") == "failing");
    wait("there is no socket", || state("sock") == "failing");
    assert!(home.ok(&["status"]).contains("unhealthy"));
    let listener = std::os::unix::net::UnixListener::bind(home.path("app.sock")).unwrap();
    wait("there is one", || state("sock") == "ok");
    drop(listener);
    wait("and it is gone", || state("sock") == "failing");
    let (daemon, _) = home.pids();
    kill("KILL", daemon);
    wait("the next daemon asks on", || state("sock") == "failing" && state("tcp") == "ok");
    drop(server);
    wait("the port is gone", || state("tcp") == "failing");
    assert_eq!(home.service("tcp")["restarts"], 0, "not often enough to be restarted");
}

#[test]
fn a_check_that_hangs_counts_as_failed_and_leaves_nothing() {
    let mut home = Home::new("{}");
    let mark = format!("{}-sick", home.dir.display());
    let check = format!("trap '' TERM; setsid sh -c 'trap \"\" TERM; while :; do sleep 1; : {mark}; done' & wait");
    let config = serde_json::json!({ "services": { "s": { "command": "exec sleep 1000", "restart": "never",
        "health": { "command": check, "every": "100ms", "timeout": "200ms", "retries": 2 } } } });
    home.write_config(&config.to_string());
    home.start(&[]);
    home.wait_state("s", "failed");
    let error = home.service("s")["last_error"].as_str().unwrap().to_owned();
    assert!(error.contains("health check failed 2 times: it did not end within 200 ms"), "{error}");
    wait("nothing is left of the check", || processes(&mark).is_empty());
}

#[test]
fn a_missed_watchdog_aborts_and_restarts() {
    if !has_python() {
        return skip("python3 is missing: the watchdog is not tried here");
    }
    let home = with(|home| {
        let script = format!(
            "import os,socket,time\n\
             assert os.environ['WATCHDOG_PID'] == str(os.getpid())\n\
             every = int(os.environ['WATCHDOG_USEC']) / 3e6\n\
             s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n\
             say = lambda b: s.sendto(b, os.environ['NOTIFY_SOCKET'])\n\
             say(b'READY=1\\nSTATUS=at work')\n\
             while not os.path.exists('{}'): say(b'WATCHDOG=1'); time.sleep(every)\n\
             time.sleep(1000)",
            home.path("hang").display()
        );
        serde_json::json!({ "s": { "command": ["python3", "-c", script], "ready": "notify", "watchdog": "1s",
                                   "min_delay": "1ms" } })
    });
    home.wait_state("s", "running");
    let pid = home.pid("s");
    for _ in 0..3 {
        let (daemon, _) = home.pids();
        kill("KILL", daemon);
        assert_eq!(home.pid("s"), pid);
    }
    let events = |kind: &str| home.call("event.history", &format!(r#"{{"kinds": ["{kind}"]}}"#)).to_string();
    assert!(!events("service.watchdog").contains("service.watchdog"));
    touch(&home, "hang");
    wait("it was restarted", || home.pid("s") != pid && home.pid("s") != 0);
    let history = home.call("service.history", r#"{"name": "s"}"#).to_string();
    assert!(history.contains("watchdog timeout, killed by SIGABRT"), "{history}");
    assert!(events("service.watchdog").contains("service.watchdog"));
}

#[test]
fn a_oneshot_is_done_once_over_deaths_of_the_daemon() {
    let home = with(|home| {
        let work = format!("echo run; {}; exit 0", until(home, "go"));
        serde_json::json!({
            "once": { "command": work, "oneshot": true },
            "app": { "command": "exec sleep 1000", "requires": ["once"] },
            "after": { "command": "echo after; exec sleep 1000",
                       "requires": [{ "name": "once", "condition": "succeeded" }] } })
    });
    home.wait_state("once", "starting");
    let (daemon, _) = home.pids();
    kill("KILL", daemon);
    assert_eq!((home.state("once").as_str(), home.state("app").as_str()), ("starting", "waiting"));
    touch(&home, "go");
    for name in ["app", "after"] {
        home.wait_state(name, "running");
    }
    assert_eq!(home.state("once"), "finished");
    let (daemon, _) = home.pids();
    kill("KILL", daemon);
    assert_eq!(home.state("once"), "finished");
    assert_eq!(home.state("app"), "running");
    assert_eq!(home.log("once"), "run\n", "it was not run again");
    let history = home.call("service.history", r#"{"name": "once"}"#);
    assert_eq!(history["runs"].as_array().unwrap().len(), 1, "{history}");
    home.ok(&["start", "once"]);
    wait("a person may run it again", || home.log("once") == "run\nrun\n");
}

#[test]
fn the_share_of_the_machine_is_what_the_config_says() {
    let home = with(|_| {
        serde_json::json!({
            "s": { "command": "exec sleep 1000", "oom_score": 777, "cpus": "0", "ionice": "best-effort:6" },
            "bad": { "command": "exec sleep 1000", "cpus": "1000", "restart": "never" } })
    });
    home.wait_state("s", "running");
    let pid = home.pid("s");
    let proc = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
    assert_eq!(proc("oom_score_adj").trim(), "777");
    let status = proc("status");
    let allowed = status.lines().find_map(|l| l.strip_prefix("Cpus_allowed_list:")).unwrap();
    assert_eq!(allowed.trim(), "0");
    match std::process::Command::new("ionice").args(["-p", &pid.to_string()]).output() {
        Ok(out) => assert_eq!(String::from_utf8_lossy(&out.stdout).trim(), "best-effort: prio 6"),
        Err(_) => skip("ionice is missing: the priority of input and output is not looked at here"),
    }
    home.wait_state("bad", "failed");
    let error = home.service("bad")["last_error"].as_str().unwrap().to_owned();
    assert!(error.contains("set its processors") && error.contains("`cpus`"), "{error}");
}

#[test]
fn stop_all_stops_every_service_and_leaves_hob() {
    let home = Home::running(
        r#"{ "services": { "a": { "command": "exec sleep 1000" },
                           "b": { "command": "exec sleep 1000", "requires": ["a"] } } }"#,
    );
    home.wait_state("b", "running");
    let (daemon, _) = home.pids();
    home.ok(&["stop", "--all"]);
    assert_eq!((home.state("a").as_str(), home.state("b").as_str()), ("stopped", "stopped"));
    assert_eq!(home.pids().0, daemon, "hob goes on");
    assert!(home.ok(&["services"]).contains("stopped"));
    assert_eq!(home.ok(&["services", "--json"]), home.ok(&["service", "list", "--json"]));
    assert_eq!(home.fails(&["stop", "--all", "a"]).0, 2, "all of them, or some by name");
    assert_eq!(home.fails(&["call", "service.stop", "{}"]).0, 11);
    home.ok(&["stop", "--all"]);
    let why = home.fails(&["start", "b"]).1;
    assert!(why.contains("a person stopped"), "each was stopped by a person: {why}");
    home.ok(&["start", "a", "b"]);
}

#[test]
fn a_stop_command_ends_the_service_and_a_reload_reaches_it() {
    let home = with(|home| {
        let trail = home.path("trail").display().to_string();
        let serve = format!(
            "trap 'echo hup >> {trail}' HUP; trap 'echo term >> {trail}; exit 0' TERM; \
             trap 'echo usr1 >> {trail}; exit 0' USR1; echo up; while :; do sleep 0.01; done"
        );
        serde_json::json!({
            "cmd": { "command": serve, "ready": { "log": "up" },
                     "stop_command": format!("kill -USR1 $MAINPID; echo asked >> {trail}"),
                     "reload_command": format!("kill -HUP $MAINPID && echo told >> {trail}") },
            "sig": { "command": serve, "ready": { "log": "up" }, "reload_signal": "HUP",
                     "stop_command": "exit 1", "stop_timeout": "20s" },
            "bad": { "command": "exec sleep 1000", "reload_command": "echo no such file; exit 3" } })
    });
    for name in ["cmd", "sig", "bad"] {
        home.wait_state(name, "running");
    }
    let trail = |line: &str| home.read("trail").lines().filter(|l| *l == line).count();
    assert!(home.ok(&["service", "reload", "cmd"]).contains("reloaded"));
    assert_eq!(trail("told"), 1);
    wait("it got the signal", || trail("hup") == 1);
    assert!(home.ok(&["service", "reload", "sig"]).contains("signalled"));
    wait("it got the signal too", || trail("hup") == 2);
    let why = home.fails(&["service", "reload", "bad"]).1;
    assert!(why.contains("bad: exit code 3: no such file"), "{why}");
    home.ok(&["stop", "cmd"]);
    assert_eq!((trail("usr1"), trail("asked"), trail("term")), (1, 1, 0), "{}", home.read("trail"));
    home.ok(&["stop", "sig"]);
    assert_eq!(trail("term"), 1, "after a command that fails the signal follows at once");
}

#[test]
fn a_stop_command_outlives_no_daemon_and_is_run_again() {
    let home = with(|home| {
        let stop = format!("echo begun >> {}; {}; kill $MAINPID", home.path("trail").display(), until(home, "go"));
        serde_json::json!({ "s": { "command": "exec sleep 1000", "stop_command": stop, "stop_timeout": "60s" } })
    });
    home.wait_state("s", "running");
    let pid = home.pid("s");
    home.ok(&["stop", "s", "--no-wait"]);
    let begun = || home.read("trail").lines().count();
    wait("it runs", || begun() == 1);
    let (daemon, _) = home.pids();
    kill("KILL", daemon);
    wait("the next daemon runs it again", || begun() == 2);
    assert!(alive(pid));
    let mark = home.path("go").display().to_string();
    wait("only that one is left", || processes(&mark).len() == 1);
    touch(&home, "go");
    home.wait_state("s", "stopped");
    assert!(!alive(pid));
}

#[test]
fn what_is_to_end_with_the_daemon_does_and_comes_back() {
    let home = with(|home| {
        let trail = home.path("trail").display().to_string();
        let command =
            |name: &str| format!("trap 'echo {name} >> {trail}; exit 0' TERM; echo up; while :; do sleep 0.01; done");
        serde_json::json!({
            "end": { "command": command("end"), "ready": { "log": "up" }, "on_daemon_death": "stop" },
            "deaf": { "command": "trap '' TERM; echo up; while :; do sleep 0.01; done", "ready": { "log": "up" },
                      "on_daemon_death": "stop", "stop_timeout": "200ms" },
            "keep": { "command": command("keep"), "ready": { "log": "up" } } })
    });
    for name in ["end", "deaf", "keep"] {
        home.wait_state(name, "running");
    }
    let pids = ["end", "deaf", "keep"].map(|n| home.pid(n));
    let (daemon, _) = home.pids();
    kill("KILL", daemon);
    wait("both are gone", || !alive(pids[0]) && !alive(pids[1]));
    for (name, old) in ["end", "deaf"].into_iter().zip(pids) {
        wait("it runs again", || home.state(name) == "running" && home.pid(name) != old);
        assert_eq!(home.service(name)["restarts"], 1);
    }
    assert_eq!(home.pid("keep"), pids[2], "the others were not touched");
    assert_eq!(home.read("trail"), "end\n");
    assert!(home.ok(&["why", "end"]).contains("ended with the daemon, exit code 0"), "{}", home.ok(&["why", "end"]));
}
