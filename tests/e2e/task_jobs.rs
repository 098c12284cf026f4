//! Tasks as jobs of hob: what they are told, what they may ask, whose is what they queue, and as whom they run.

use crate::peers::{Bridge, as_other, can_change_user};
use crate::support::*;
use crate::tasks::{submit, task, wait_for, wait_task};
use serde_json::{Value, json};
use std::fs;

fn variables(text: &str) -> impl Fn(&str) -> Option<String> + use<> {
    let pairs: Vec<(String, String)> =
        text.lines().filter_map(|l| l.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    move |name| pairs.iter().find(|(k, _)| k == name).map(|(_, v)| v.clone())
}

#[test]
fn tasks_are_told_where_hob_is_and_who_they_are() {
    let home = Home::running(r#"{"agents": {"env": {"command": ["env"], "env": {"COLOUR": "blue"}}}}"#);
    let plain = submit(&home, json!({ "command": ["env"], "env": {"HOB_TASK_ID": "9", "HOB_RUN": "forged"} }));
    let asks = submit(&home, json!({ "command": ["env"], "hob_fd": true }));
    let agent = submit(&home, json!({ "prompt": "X=1", "agent": "env" }));
    wait_for(&home, "1-3");
    for (id, fd) in [(plain, None), (asks, Some("3")), (agent, None)] {
        let of = variables(&home.ok(&["task", "output", &id.to_string()]));
        assert_eq!(of("HOB_SOCKET"), Some(home.path("run/hob.sock").display().to_string()));
        assert_eq!((of("HOB_TASK_ID"), of("HOB_SERVICE"), of("HOB_FD").as_deref()), (Some(id.to_string()), None, fd));
        assert!(of("HOB_RUN").is_some_and(|run| run.ends_with(&format!("-{id}"))), "{:?}", of("HOB_RUN"));
    }
    assert_eq!(variables(&home.ok(&["task", "output", "3"]))("COLOUR").as_deref(), Some("blue"));
    assert_eq!(home.call("task.get", r#"{"id": 3}"#)["group"], "agents");
    let groups = home.call("group.list", "{}");
    let agents = groups["groups"].as_array().unwrap().iter().find(|g| g["name"] == "agents").unwrap().clone();
    assert_eq!(agents["parallel"], 3, "{agents}");
}

#[test]
fn a_task_may_ask_what_other_jobs_may_and_owns_what_it_queues() {
    for channel in [true, false] {
        let home = Home::running(r#"{ "services": { "s": { "command": "exec sleep 1000" } } }"#);
        let exe = std::env::current_exe().unwrap();
        let bridge = submit(
            &home,
            json!({ "command": [exe, "--exact", "job::job", "--ignored"], "cwd": home.dir, "env": {"JOB": "bridge"},
                "hob_fd": channel }),
        );
        let mut job = Bridge::of(&home);
        assert_eq!(job.ask("ping", &json!({}))["ok"]["pong"], true);
        let child = job.ask("task.submit", &json!({ "command": "true" }))["ok"]["id"].as_u64().unwrap();
        let owner = format!("task/{bridge}");
        assert_eq!(wait_for(&home, &child.to_string())[0]["owner"], *owner);
        let of = |owner: &str| home.call("task.list", &json!({ "owner": owner }).to_string())["tasks"].clone();
        assert_eq!(of(&owner)[0]["id"], child);
        assert_eq!(of("mine").as_array().unwrap().len(), 1, "the task itself is the user's");
        assert_eq!(job.ask("task.list", &json!({ "owner": "mine" }))["ok"]["tasks"][0]["id"], child);
        assert_eq!(home.ok(&["task", "list", "--owner", &owner]).lines().count(), 2, "a head and one task");
        assert!(home.ok(&["why", &child.to_string()]).contains(&format!("submitted by {owner}")));
        // It operates hob and does not govern it; under the next daemon as well.
        for _ in 0..2 {
            for method in ["daemon.reload", "daemon.shutdown"] {
                let refused = job.ask(method, &json!({}));
                assert_eq!(refused["code"], -32003, "{refused}");
                assert!(refused.to_string().contains("tasks have operate access and no more"), "{refused}");
            }
            kill("KILL", home.pids().0);
            assert_eq!(job.ask("service.restart", &json!({ "name": "s" }))["ok"]["services"][0]["state"], "running");
        }
        // Its own end is reported like any other's, and so is what it does to itself.
        job.ask("task.edit", &json!({ "id": bridge, "priority": 3 }));
        assert!(
            job.ask("task.edit", &json!({ "id": bridge, "priority": 3 }))["message"]
                .as_str()
                .unwrap()
                .contains("is running")
        );
        job.begin("task.cancel", &json!({ "ids": bridge }));
        wait_task(&home, bridge, "cancelled");
        let why = task(&home, bridge)["why"].as_str().unwrap().to_owned();
        assert!(why.starts_with(&format!("by {owner}")), "{why}");
    }
}

#[test]
fn others_queue_tasks_as_themselves_and_never_with_the_rights_of_hob() {
    let mut home = Home::with_env(
        r#"{
            "daemon": { "access": [ {"user": 1, "level": "operate"}, {"user": 2, "level": "admin"},
                {"user": 3, "level": "read"} ] },
            "agents": { "plain": { "command": ["id", "-u"], "prompt": "file" },
                "rich": { "command": ["true"], "env": {"KEY_env": "SECRET_OF_HOB"} } },
            "runners": { "outer": { "prefix": ["env"] } } }"#,
        "SECRET_OF_HOB",
        "swordfish",
    );
    if !can_change_user(&home) {
        return;
    }
    // These are on every system: the group of who is in no file is not known.
    let accounts = fs::read_to_string("/etc/passwd").unwrap_or_default();
    if !(1..=3).all(|uid| accounts.lines().any(|l| l.split(':').nth(2) == Some(&uid.to_string()))) {
        return skip("/etc/passwd lacks the users 1, 2 and 3, so tasks of other users are not tried");
    }
    home.start(&[]);
    let call = |uid: u32, method: &str, params: Value| {
        let out = as_other(&home, uid, "65534", &["call", method, &params.to_string(), "--json"]);
        let text = String::from_utf8_lossy(if out.status.success() { &out.stdout } else { &out.stderr }).into_owned();
        (out.status.success(), text)
    };
    let ran = |uid: u32, spec: Value| {
        let (ok, text) = call(uid, "task.submit", spec);
        assert!(ok, "{text}");
        let id = serde_json::from_str::<Value>(&text).unwrap()["id"].as_u64().unwrap();
        wait_for(&home, &id.to_string());
        (id, home.ok(&["task", "output", &id.to_string()]))
    };
    let whoami = json!({ "command": "id -u", "cwd": "/" });
    assert_eq!(ran(1, whoami.clone()).1, "1\n");
    assert_eq!(ran(2, whoami.clone()).1, "0\n", "an admin may do all that hob may");
    let opens = json!({ "command": "echo out > /dev/stdout; echo err > /dev/stderr", "cwd": "/" });
    assert_eq!(ran(1, opens).1, "out\nerr\n");
    assert_eq!(ran(1, json!({ "command": ["id", "-u"], "cwd": "/", "runner": "outer", "group": "agents" })).1, "1\n");
    let env = |uid| ran(uid, json!({ "command": "env", "cwd": "/", "env": {"OWN": "1"} })).1;
    let (theirs, ours) = (env(1), env(2));
    assert!(!theirs.contains("swordfish") && theirs.contains("OWN=1") && theirs.contains("PATH="), "{theirs}");
    assert!(ours.contains("swordfish"), "{ours}");
    let (ok, text) = call(3, "task.submit", whoami.clone());
    assert!(!ok && text.contains("operate"), "{text}");
    let (ok, text) = call(1, "task.submit", json!({ "agent": "rich", "prompt": "x" }));
    assert!(!ok && text.contains("KEY_env") && text.contains("may not see"), "{text}");
    // Nobody changes what runs as somebody else.
    let held = submit(&home, json!({ "command": "id -u", "cwd": "/", "hold": true }));
    let (ok, text) = call(1, "task.edit", json!({ "id": held, "command": "touch /tmp/x" }));
    assert!(!ok && text.contains("runs as another user"), "{text}");
    let (own, _) = ran(1, json!({ "command": "true", "cwd": "/" }));
    let (ok, text) = call(1, "task.submit", json!({ "command": "true", "hold": true, "cwd": "/" }));
    assert!(ok, "{text}");
    let (ok, text) = call(1, "task.edit", json!({ "id": own + 1, "command": "id -u" }));
    assert!(ok, "{text}");
    // The daemon that follows knows it too.
    kill("KILL", home.pids().0);
    home.ok(&["task", "release", &(own + 1).to_string()]);
    wait_for(&home, &(own + 1).to_string());
    assert_eq!(home.ok(&["task", "output", &(own + 1).to_string()]), "1\n");
}
