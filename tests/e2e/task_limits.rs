//! What a group allows its tasks of the machine: niceness, processors, resource limits.

use crate::peers::{as_other, can_change_user};
use crate::support::*;
use crate::tasks::{submit, task, wait_for};
use serde_json::{Value, json};

const LOOK: &str =
    "nice; cat /proc/self/oom_score_adj; grep Cpus_allowed_list /proc/self/status; cat /proc/self/limits";

/// The words of the line that begins so.
fn line<'t>(text: &'t str, start: &str) -> Vec<&'t str> {
    let found = text.lines().find_map(|l| l.strip_prefix(start));
    found.unwrap_or_else(|| panic!("no {start:?} in {text}")).split_whitespace().collect()
}

fn output(home: &Home, id: u64) -> String {
    home.ok(&["task", "output", &id.to_string()])
}

/// The error with which the attempt of a task could not be started.
fn error(home: &Home, id: u64) -> String {
    wait_for(home, &id.to_string());
    task(home, id)["error"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn tasks_and_agents_have_the_limits_of_their_group() {
    let group = r#"{ "nice": 15, "oom_score": 321, "cpus": "0", "ionice": "idle",
                     "rlimits": { "nofile": 77, "core": { "soft": 0, "hard": "1MiB" } } }"#;
    let agents = format!(r#""agents": {{ "look": {{ "command": "{LOOK}; :", "group": "small" }} }}"#);
    let home = Home::running(&format!(r#"{{ "groups": {{ "small": {group} }}, {agents} }}"#));
    let plain = submit(&home, json!({ "command": LOOK }));
    let small = submit(&home, json!({ "command": LOOK, "group": "small" }));
    let agent = submit(&home, json!({ "prompt": "x", "agent": "look" }));
    let io = submit(&home, json!({ "command": "ionice || echo none", "group": "small" }));
    wait_for(&home, "1-4");
    let seen = output(&home, plain);
    assert_eq!(seen.lines().next(), Some("10"), "tasks give way unless their group says otherwise: {seen}");
    for id in [small, agent] {
        let seen = output(&home, id);
        assert_eq!(seen.lines().take(2).collect::<Vec<_>>(), ["15", "321"]);
        assert_eq!(line(&seen, "Cpus_allowed_list:"), ["0"]);
        assert_eq!(line(&seen, "Max open files")[..2], ["77", "77"]);
        assert_eq!(line(&seen, "Max core file size")[..2], ["0", "1048576"]);
    }
    match output(&home, io).trim() {
        "none" => skip("ionice is missing: the priority of input and output is not looked at here"),
        seen => assert_eq!(seen, "idle"),
    }
    let list = home.ok(&["group", "list"]);
    let told = "cpus 0, ionice idle, nice 15, oom_score 321, core 0 to 1048576, nofile 77";
    assert!(list.lines().any(|l| l.starts_with("small") && l.ends_with(told)), "{list}");
    let groups = home.call("group.list", "{}")["groups"].clone();
    let of = |name: &str| groups.as_array().unwrap().iter().find(|g| g["name"] == name).unwrap()["limits"].clone();
    assert_eq!((&of("small")["rlimits"]["nofile"], &of("default")), (&json!(77), &Value::Null));
}

#[test]
fn a_reload_changes_the_limits_of_tasks_that_start_after_it() {
    let config = |files: u32| format!(r#"{{ "groups": {{ "g": {{ "rlimits": {{ "nofile": {files} }} }} }} }}"#);
    let home = Home::running(&config(50));
    let (begun, gate) = (home.path("begun"), home.path("gate"));
    let (begun, shown) = (&begun, gate.display());
    let wait_then_tell = format!("touch {}; until test -e {shown}; do sleep 0.01; done; ulimit -n", begun.display());
    let runs = submit(&home, json!({ "command": wait_then_tell, "group": "g" }));
    wait("it runs", || begun.exists());
    let waits = submit(&home, json!({ "command": "ulimit -n", "group": "g", "after": runs }));
    home.write_config(&config(60));
    let plan = home.ok(&["plan"]);
    assert!(plan.contains("groups"), "{plan}");
    home.ok(&["reload"]);
    // The daemon that follows knows it too.
    kill("KILL", home.pids().0);
    std::fs::write(&gate, "").unwrap();
    wait_for(&home, "1-2");
    assert_eq!((output(&home, runs), output(&home, waits)), ("50\n".into(), "60\n".into()));
}

#[test]
fn a_limit_that_cannot_be_set_fails_the_task_in_the_words_of_services() {
    let (cpus, files) = (r#""cpus": "1000""#, r#""rlimits": { "nofile": 4000000000 }"#);
    let service = |limit: &str| format!(r#"{{ "command": "exec sleep 1000", "restart": "never", {limit} }}"#);
    let services = format!(r#""services": {{ "cpus": {}, "files": {} }}"#, service(cpus), service(files));
    let groups = format!(r#""groups": {{ "cpus": {{ {cpus} }}, "files": {{ {files} }} }}"#);
    let home = Home::running(&format!("{{ {services}, {groups} }}"));
    for (name, words) in [("cpus", "set its processors"), ("files", "set the resource limit nofile")] {
        home.wait_state(name, "failed");
        let of_service = home.service(name)["last_error"].as_str().unwrap().to_owned();
        let id = submit(&home, json!({ "command": "true", "group": name }));
        assert_eq!(error(&home, id), of_service);
        assert!(of_service.contains(words), "{of_service}");
        let why = home.ok(&["why", &format!("task/{id}")]);
        assert!(why.contains(&of_service), "{why}");
    }
    home.ok(&["group", "set", "files", "--parallel", "3"]);
    let told = home.ok(&["events", "-k", "group.changed", "--json"]);
    let told: Value = serde_json::from_str(&told).unwrap();
    let last = told["events"].as_array().unwrap().last().unwrap();
    assert!(last["parallel"] == 3 && last["limits"].is_object(), "{told}");
}

/// The config's owner may give what the user whose task it is could not take.
#[test]
fn the_limits_of_a_group_hold_for_tasks_of_other_users() {
    let limit = r#""nice": -7, "rlimits": { "nofile": 50 }"#;
    let home = Home::new(&format!(
        r#"{{ "daemon": {{ "access": [{{"user": 1, "level": "operate"}}] }}, "groups": {{ "fast": {{ {limit} }} }},
             "services": {{ "same": {{ "command": "exec sleep 1000", "restart": "never", {limit} }} }} }}"#
    ));
    if !can_change_user(&home) {
        return;
    }
    let mut home = home;
    home.start(&[]);
    let spec = json!({ "command": "id -u; nice; cat /proc/self/limits", "cwd": "/", "group": "fast" }).to_string();
    let out = as_other(&home, 1, "65534", &["call", "task.submit", &spec, "--json"]);
    if !out.status.success() {
        return skip("/etc/passwd lacks the user 1, so tasks of other users are not tried");
    }
    wait("the service has started or failed", || ["running", "failed"].contains(&home.state("same").as_str()));
    wait_for(&home, "1");
    // What hob may not do here it may not do for a service either.
    if home.state("same") == "failed" {
        assert_eq!(error(&home, 1), home.service("same")["last_error"].as_str().unwrap());
        return skip("this hob may not raise limits, so that it does for others is not seen here");
    }
    let seen = output(&home, 1);
    assert_eq!(seen.lines().take(2).collect::<Vec<_>>(), ["1", "-7"], "{:?}", task(&home, 1));
    assert_eq!(line(&seen, "Max open files")[..2], ["50", "50"]);
}
