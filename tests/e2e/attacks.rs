//! What a hostile reviewer tried: each scenario failed once.

use crate::support::*;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Stdio;

#[test]
fn a_proper_end_leaves_nothing_to_report() {
    let mut home = Home::running("{}");
    home.ok(&["stop"]);
    home.wait_end();
    home.start(&[]);
    let said = home.read("stderr");
    assert!(!said.contains("did not end properly"), "{said}");
}

#[test]
fn a_proper_end_is_told_with_its_time() {
    let mut home = Home::running("{}");
    wait("a heartbeat", || exists(&home.path("run/state.json")));
    home.ok(&["stop"]);
    home.wait_end();
    let (_, said) = home.fails(&["status"]);
    assert!(said.contains("it ended at ") && !said.contains("unknown"), "{said}");
}

#[test]
fn status_says_that_nothing_can_be_remembered() {
    let mut home = Home::new("{}");
    std::fs::create_dir(home.path("state")).unwrap();
    std::fs::set_permissions(home.path("state"), std::fs::Permissions::from_mode(0o500)).unwrap();
    if std::fs::metadata(&home.dir).unwrap().uid() == 0 {
        // Nothing is forbidden to root, so somebody else runs it.
        let given = std::process::Command::new("chown").args(["-R", "65534:65534"]).arg(&home.dir).status();
        assert!(given.unwrap().success());
        home.start_by(&["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]);
    } else {
        home.start(&[]);
    }
    let status = home.ok(&["status"]);
    assert!(status.contains("problem: the journal is behind: "), "{status}");
    assert_eq!(home.call("daemon.status", "{}")["journal"]["state"], "behind");
}

#[test]
fn few_descriptors_limit_hob_without_stopping_it() {
    let services: Vec<String> = (0..30).map(|i| format!(r#""s{i}": {{ "command": ["sleep", "1000"] }}"#)).collect();
    let mut home = Home::new(&format!(r#"{{ "services": {{ {} }} }}"#, services.join(",")));
    home.start_by(&["sh", "-c", "ulimit -n 64 && exec \"$@\"", "sh"]);
    let running = |home: &Home| {
        // Whoever is out of descriptors says so, and is well again a moment later.
        let out = home.hob(&["call", "service.list", "{}", "--json"]);
        let list: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap_or_default();
        list["services"].as_array().into_iter().flatten().filter(|s| s["state"] == "running").count()
    };
    // As many as there is room for: six descriptors each beside 32 for hob.
    wait("some run", || running(&home) == 5);
    for _ in 0..3 {
        let (daemon, _) = home.pids();
        kill("KILL", daemon);
        wait("they are taken over", || running(&home) == 5);
    }
    let others = home.call("service.list", "{}");
    let waiting = others["services"].as_array().unwrap().iter().find(|s| s["state"] != "running").unwrap();
    let why = home.ok(&["why", waiting["name"].as_str().unwrap()]);
    assert!(why.contains("hob may have 64 files open"), "{why}");
    home.ok(&["stop"]);
    assert!(home.wait_end().success());
}

#[test]
fn what_lies_at_the_place_of_a_notify_socket_is_given_to_nobody() {
    let service = serde_json::json!({ "command": "exec sleep 1000", "ready": "notify", "user": "nobody" });
    let mut home = Home::new(&serde_json::json!({ "services": { "s": service } }).to_string());
    if std::fs::metadata(&home.dir).unwrap().uid() != 0 {
        return skip("only root runs a service as somebody else");
    }
    home.start(&[]);
    wait("it is started", || home.pid("s") != 0);
    let (place, precious) = (home.path("run/notify/s"), home.path("precious"));
    let nobody = place.metadata().unwrap().uid();
    assert_ne!(nobody, 0, "its socket is the user's");
    std::fs::write(&precious, "secret").unwrap();
    std::fs::remove_file(&place).unwrap();
    std::os::unix::fs::symlink(&precious, &place).unwrap();
    home.ok(&["restart", "s", "--no-wait"]);
    wait("it has a socket again", || {
        home.pid("s") != 0 && place.symlink_metadata().is_ok_and(|m| m.uid() == nobody && !m.is_symlink())
    });
    assert_eq!(precious.metadata().unwrap().uid(), 0);
}

#[test]
fn more_slots_than_descriptors_refuse_no_start() {
    let mut home = Home::new(r#"{ "groups": { "wide": { "parallel": 100 } } }"#);
    home.start_by(&["sh", "-c", "ulimit -n 64 && exec \"$@\"", "sh"]);
    let gate = home.path("gate");
    let command = format!("until test -e {}; do sleep 0.02; done", gate.display());
    let tasks = vec![serde_json::json!({ "command": command, "group": "wide" }); 20];
    home.call("task.submit", &serde_json::json!({ "tasks": tasks }).to_string());
    let count = |state: &str| home.call("task.stats", "{}")[state].as_u64().unwrap();
    wait("some run", || count("running") == 5);
    let why = home.ok(&["why", "task/20"]);
    assert!(why.contains("files open for 5 runs at once"), "{why}");
    std::fs::write(&gate, "").unwrap();
    wait("all have run", || count("succeeded") == 20);
    let refused = home.call("event.history", r#"{"kinds": ["task.start_failed"]}"#);
    assert_eq!(refused["events"], serde_json::json!([]));
}

#[test]
fn a_restart_asked_for_with_a_key_is_made_once_over_a_death() {
    let home = Home::running(
        r#"{ "services": { "s": { "command": "sleep 0.3; echo up; exec sleep 1000", "ready": {"log": "up"} } } }"#,
    );
    home.wait_state("s", "running");
    let total = |home: &Home| home.service("s")["runs_total"].as_u64().unwrap();
    for round in 0..5 {
        let before = total(&home);
        let params = format!(r#"{{"name": "s", "wait": true, "request_key": "k{round}"}}"#);
        let mut asking = home.command(&["call", "service.restart", &params]).stdout(Stdio::null()).spawn().unwrap();
        wait("it is being restarted", || total(&home) == before + 1);
        // The one who asks loses the connection and may ask again by himself; so does this test.
        kill("KILL", home.pids().0);
        home.call("service.restart", &params);
        assert!(asking.wait().unwrap().code().is_some());
        assert_eq!((home.state("s").as_str(), total(&home)), ("running", before + 1), "round {round}");
    }
}

#[test]
fn nothing_is_held_for_a_service_that_left_the_config_unseen() {
    let with = r#"{ "services": { "keep": { "command": ["sleep", "1000"] }, "gone": { "command": "true" } } }"#;
    let home = Home::running(with);
    home.wait_state("keep", "running");
    home.wait_state("gone", "finished");
    let (daemon, keeper) = home.pids();
    let descriptors = || std::fs::read_dir(format!("/proc/{keeper}/fd")).unwrap().count();
    let before = descriptors();
    // It is removed while no daemon looks, as by one that dies before it has dropped what it held.
    home.write_config(r#"{ "services": { "keep": { "command": ["sleep", "1000"] } } }"#);
    std::fs::remove_file(home.path("state/config.json")).unwrap();
    kill("KILL", daemon);
    wait("its pipe is closed", || descriptors() == before - 2);
}

#[test]
fn a_death_goes_on_with_the_config_that_was_in_effect() {
    let config = r#"{ "services": { "s": { "command": ["sleep", "1000"], "min_delay": "0s" } } }"#;
    let home = Home::running(config);
    home.wait_state("s", "running");
    let pid = home.pid("s");
    for broken in [None, Some(r#"{ "services": { "s": "#), Some("{}")] {
        match broken {
            Some(text) => home.write_config(text),
            None => std::fs::remove_file(home.path("hob.json")).unwrap(),
        }
        let (daemon, _) = home.pids();
        kill("KILL", daemon);
        assert_eq!((home.state("s").as_str(), home.pid("s")), ("running", pid), "with {broken:?} in the file");
        let problem = home.call("daemon.status", "{}")["config_error"].as_str().map(str::to_owned);
        assert_eq!(problem.is_none(), broken == Some("{}"), "{problem:?}");
    }
    // It is supervised as before, and a reload takes the file.
    kill("KILL", pid);
    wait("it is restarted", || home.state("s") == "running" && home.pid("s") != pid);
    home.ok(&["reload"]);
    wait("it goes", || !home.hob(&["status", "s"]).status.success());
    // And the next death goes on with that.
    kill("KILL", home.pids().0);
    assert_eq!(home.call("service.list", "{}")["services"], serde_json::json!([]));
}

#[test]
fn a_killed_keeper_leaves_no_tree_behind_without_control_groups() {
    let mut home = Home::new("{}");
    let mark = format!("{}/mark", home.dir.display());
    let inner = format!("trap '' TERM; while :; do sleep 0.05; : {mark}; done");
    let command = format!("trap '' TERM; setsid sh -c \"{inner}\" & echo up; while :; do sleep 0.05; done");
    let service = serde_json::json!({ "command": command, "ready": { "log": "up" }, "stop_timeout": "300ms" });
    home.write_config(&serde_json::json!({ "services": { "s": service } }).to_string());
    home.start_by(&["env", "HOB_CGROUP=off"]);
    home.wait_state("s", "running");
    wait("its child runs", || processes(&mark).len() >= 2);
    let (daemon, keeper) = home.pids();
    kill("KILL", keeper);
    home.reap();
    wait("the daemon has ended", || !alive(daemon));
    assert!(processes(&mark).is_empty(), "nothing is left of the tree");
}

#[test]
fn status_and_start_do_not_wait_forever_for_a_daemon_that_hangs() {
    let home = Home::running("{}");
    wait("a heartbeat", || exists(&home.path("run/state.json")));
    let (daemon, _) = home.pids();
    kill("STOP", daemon);
    let (_, said) = home.fails(&["status"]);
    assert!(said.contains("last seen at "), "{said}");
    let (_, said) = home.fails(&["start", "--timeout", "1s"]);
    assert!(said.contains("did not answer"), "{said}");
    kill("CONT", daemon);
    home.ok(&["status"]);
}

#[test]
fn a_stop_that_outlives_daemons_is_told_once() {
    let home = Home::running(
        r#"{ "services": { "s": { "command": "trap '' TERM; echo up; while :; do sleep 0.05; done",
                                  "ready": { "log": "up" }, "stop_timeout": "1s" } } }"#,
    );
    home.wait_state("s", "running");
    home.call("service.stop", r#"{"name": "s", "wait": false}"#);
    for _ in 0..3 {
        kill("KILL", home.pids().0);
        home.call("ping", "{}");
    }
    home.wait_state("s", "stopped");
    let events = home.call("event.history", r#"{"kinds": ["service.stopping", "service.exited"]}"#);
    assert_eq!(events["events"].as_array().unwrap().len(), 2, "{events}");
}
