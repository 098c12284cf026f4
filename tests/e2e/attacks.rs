//! What a hostile reviewer tried: each scenario failed once.

use crate::support::*;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

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
fn what_the_last_heartbeat_left_tells_its_time() {
    let mut home = Home::running("{}");
    wait("a heartbeat", || exists(&home.path("run/state.json")));
    home.ok(&["stop"]);
    home.wait_end();
    let (_, said) = home.fails(&["status"]);
    assert!(said.contains("last heartbeat at 2") && !said.contains("unknown"), "{said}");
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
        let list = home.call("service.list", "{}");
        list["services"].as_array().unwrap().iter().filter(|s| s["state"] == "running").count()
    };
    wait("some run", || running(&home) >= 2);
    for _ in 0..3 {
        let (daemon, _) = home.pids();
        kill("KILL", daemon);
        assert!(running(&home) >= 2, "they are taken over");
    }
    home.ok(&["stop"]);
    assert!(home.wait_end().success());
}
