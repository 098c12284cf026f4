//! Instances of a service, services that are in no file, and plans.

use crate::support::*;
use serde_json::Value;
use std::fs;

fn pids(home: &Home, names: &[&str]) -> Vec<u32> {
    names.iter().map(|name| home.pid(name)).collect()
}

fn names(list: &Value) -> Vec<&str> {
    list["services"].as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap()).collect()
}

const THREE: &str = r#"{ "services": {
    "web": { "instances": 3, "command": "echo I am $HOB_INSTANCE of $HOB_SERVICE, %i and 100%%; exec sleep 1000",
             "cwd": "cwd-%i", "env": { "N": "n%i" }, "ready": { "log": "I am %i" } },
    "app": { "command": "exec sleep 1000", "requires": ["web"] } } }"#;

#[test]
fn instances_run_side_by_side_and_answer_to_one_name() {
    let mut home = Home::new(THREE);
    for i in 1..=4 {
        fs::create_dir(home.path(&format!("cwd-{i}"))).unwrap();
    }
    home.start(&[]);
    let all = ["web@1", "web@2", "web@3"];
    for name in all.iter().chain(&["app"]) {
        home.wait_state(name, "running");
    }
    assert_eq!(home.log("web@2"), "I am 2 of web@2, 2 and 100%\n");
    let folder = fs::read_link(format!("/proc/{}/cwd", home.pid("web@3"))).unwrap();
    assert!(folder.ends_with("cwd-3"), "{folder:?}");
    let table = home.ok(&["status", "web"]);
    assert!(all.iter().all(|name| table.contains(name)) && !table.contains("app"), "{table}");
    assert_eq!(names(&home.call("service.list", r#"{"names":["web"]}"#)), all);
    assert_eq!(home.ok(&["why", "web"]).matches(" has been running for ").count(), 3);
    assert!(home.ok(&["service", "history", "web"]).contains("web@3\n"));
    let logs = home.ok(&["logs", "web"]);
    assert!((1..=3).all(|i| logs.contains(&format!("I am {i} of web@{i}"))), "{logs}");
    assert_eq!(home.ok(&["service", "signal", "CONT", "web"]).lines().count(), 3);
    assert!(home.ok(&["logs", "rotate", "web"]).contains("web@2"));
    let (code, text) = home.fails(&["why", "wbe"]);
    assert!(code == 4 && text.contains("did you mean \"web\"?"), "{text}");

    let before = pids(&home, &all);
    home.ok(&["restart", "web@2"]);
    let after = pids(&home, &all);
    assert!(before[0] == after[0] && before[1] != after[1] && before[2] == after[2], "{before:?} {after:?}");
    home.ok(&["stop", "web"]);
    assert!(all.iter().all(|name| home.state(name) == "stopped"));
    assert_eq!(home.state("app"), "waiting");
    home.ok(&["start", "web"]);
    home.wait_state("app", "running");
    home.ok(&["service", "reset", "web"]);
}

#[test]
fn a_reload_with_another_count_leaves_the_other_instances_alone() {
    let config = |n: &str| {
        let web = r#""command": "exec sleep 1000""#;
        let app = r#""app": { "command": "exec sleep 1000", "wants": ["web"] }"#;
        format!(r#"{{ "services": {{ "web": {{ "instances": {n}, {web} }}, {app} }} }}"#)
    };
    let home = Home::running(&config("3"));
    for name in ["web@1", "web@2", "web@3", "app"] {
        home.wait_state(name, "running");
    }
    let before = pids(&home, &["web@1", "web@2", "app"]);
    let surplus = home.pid("web@3");
    home.write_config(&config("2"));
    assert!(home.ok(&["plan"]).contains("stop     web@3: not in the config any more"));
    home.ok(&["reload"]);
    wait("the surplus is gone", || !alive(surplus) && home.hob(&["status", "web@3"]).status.code() == Some(4));
    home.write_config(&config(r#"["1", "2", "blue"]"#));
    home.ok(&["reload"]);
    home.wait_state("web@blue", "running");
    assert_eq!(pids(&home, &["web@1", "web@2", "app"]), before);
    home.write_config(&config("0"));
    let (_, text) = home.fails(&["reload"]);
    assert!(text.contains("services.web.instances: 0 instances are no service"), "{text}");
    assert_eq!(pids(&home, &["web@1", "web@2", "app"]), before);
}

#[test]
fn a_transient_service_outlives_the_daemon_and_hob_until_it_is_stopped() {
    let mut home = Home::running(r#"{ "services": { "db": { "command": "exec sleep 1000" } } }"#);
    let set = ["--set", "env.A=8080", "--set", "restart=always", "--set", "requires=[\"db\"]"];
    let script = "echo A is $A in $PWD; exec sleep 1000";
    let said = home.ok(&[&["service", "run", "job"][..], &set, &["--", "sh", "-c", script]].concat());
    assert!(said.starts_with("job: started, pid "), "{said}");
    assert_eq!(home.service("job")["transient"], true);
    assert!(home.service("db")["transient"].is_null());
    assert!(home.ok(&["status"]).contains("running, transient"));
    wait("it writes", || home.log("job").starts_with("A is 8080 in /"));
    home.ok(&["reload"]);

    // A daemon that is killed.
    let pid = home.pid("job");
    let (daemon, _) = home.pids();
    kill("KILL", daemon);
    wait("the next daemon answers", || home.pids().0 != daemon);
    assert_eq!((home.pid("job"), home.service("job")["transient"].clone()), (pid, true.into()));

    // Another hob.
    home.ok(&["stop"]);
    home.wait_end();
    assert!(!alive(pid));
    home.start(&[]);
    home.wait_state("job", "running");
    assert!(home.ok(&["why", "job"]).contains(" service remove job"));

    home.ok(&["stop", "job"]);
    assert_eq!(names(&home.call("service.list", "{}")), ["db"]);
    let (code, _) = home.fails(&["start", "job"]);
    assert_eq!(code, 4);
    home.ok(&["stop"]);
    home.wait_end();
    home.start(&[]);
    assert_eq!(names(&home.call("service.list", "{}")), ["db"]);
    assert!(home.log("job").contains("A is 8080"), "its log stays");
}

#[test]
fn one_that_ends_by_itself_tells_of_it_and_is_not_run_again() {
    let mut home = Home::running("{}");
    let set = ["--set", "oneshot=true", "--set", "restart=never"];
    home.ok(&[&["service", "run", "once"][..], &set, &["--", "sh", "-c", "echo did it"]].concat());
    home.wait_state("once", "finished");
    home.ok(&["stop"]);
    home.wait_end();
    home.start(&[]);
    assert_eq!(home.state("once"), "finished");
    assert_eq!(home.ok(&["logs", "once"]).matches("did it").count(), 1);
    assert!(home.ok(&["why", "once"]).contains("has finished"));
    home.ok(&["service", "remove", "once"]);
    assert!(names(&home.call("service.list", "{}")).is_empty());
}

#[test]
fn a_config_in_a_request_is_checked_like_a_file() {
    let home = Home::running(r#"{ "services": { "db": { "command": "exec sleep 1000" } } }"#);
    let run = |set: &[&str]| {
        let mut words = vec!["service", "run", "job"];
        words.extend(set.iter().flat_map(|s| ["--set", s]));
        words.extend(["--", "sleep", "1000"]);
        home.fails(&words)
    };
    for (set, code, said) in [
        (&["restrat=always"][..], 11, "config.restrat: unknown key; did you mean 'restart'?"),
        (&["nice=99"], 11, "config.nice: wants a whole number from -20 to 19"),
        (&["log.max_size=1"], 11, "config.log.max_size: 4KiB is the smallest size of a log"),
        (&["requires=[\"bd\"]"], 11, "config.requires[0]: there is no service \"bd\""),
        (&["instances=0"], 11, "config.instances: 0 instances are no service"),
        (&["command=x"], 2, "the command stands after --"),
        (&["restart"], 2, "'restart' has no '='"),
        (&["env=1", "env.A=2"], 2, "there is a value for this key"),
    ] {
        let (got, text) = run(set);
        assert!(got == code && text.contains(said), "{set:?}: {got} {text}");
    }
    let (code, text) = home.fails(&["service", "run", "db", "--", "sleep", "1"]);
    assert!(code == 7 && text.contains("db is a service of hob.json"), "{code} {text}");
    let (code, text) = home.fails(&["service", "remove", "db"]);
    assert!(code == 7 && text.contains("take it out of the file"), "{code} {text}");
    let (code, text) = home.fails(&["service", "run", "job"]);
    assert!(code == 2 && text.contains("needs a command after --"), "{code} {text}");
    assert_eq!(names(&home.call("service.list", "{}")), ["db"], "nothing came of all that");
    assert_eq!(home.state("db"), "running");

    home.ok(&["service", "run", "job", "--", "sleep", "1000"]);
    let (code, text) = home.fails(&["service", "run", "job", "--", "sleep", "2000"]);
    assert!(code == 7 && text.contains("stop it first: hob stop job"), "{code} {text}");
    // The file takes the name over, and the process that fits it goes on.
    let cwd = std::env::current_dir().unwrap();
    let (pid, cwd) = (home.pid("job"), cwd.display());
    home.write_config(&format!(r#"{{ "services": {{ "job": {{ "command": ["sleep", "1000"], "cwd": "{cwd}" }} }} }}"#));
    assert!(home.ok(&["plan"]).contains("hob.json has it now"));
    home.ok(&["reload"]);
    assert_eq!((home.pid("job"), home.service("job")["transient"].clone()), (pid, Value::Null));
}

#[test]
fn a_plan_tells_what_the_reload_does_and_changes_nothing() {
    let home = Home::running(
        r#"{ "services": { "db": { "command": "exec sleep 1000" }, "old": { "command": "exec sleep 1000" },
             "web": { "command": "exec sleep 1000", "env": { "PORT": "1" }, "requires": ["db"] },
             "worker": { "command": "exec sleep 1000", "requires": ["web"] } } }"#,
    );
    for name in ["db", "old", "web", "worker"] {
        home.wait_state(name, "running");
    }
    assert_eq!(home.ok(&["plan"]), "nothing would change\n");
    assert_eq!(home.ok(&["plan", "-q"]), "");
    let before = pids(&home, &["db", "old", "web", "worker"]);
    home.write_config(
        r#"{ "daemon": { "log": { "level": "debug" } }, "services": {
             "db": { "command": "exec sleep 1000", "stop_timeout": "3s" }, "new": { "command": "exec sleep 1000" },
             "web": { "command": "exec sleep 1001", "env": { "PORT": "2" }, "requires": ["db"] },
             "worker": { "command": "exec sleep 1000", "requires": ["web"] } } }"#,
    );
    let kept = home.read("state/config.json");
    let text = home.ok(&["plan"]);
    for line in [
        "update   hob itself: daemon.log.level changed; without a restart\n",
        "update   db: stop_timeout changed; without a restart\n",
        "stop     old: not in the config any more\n",
        "restart  worker: it requires web\n",
        "restart  web: command, env.PORT changed\n",
        "start    new: new in the config\n",
    ] {
        assert!(text.contains(line), "{line:?} in {text}");
    }
    assert_eq!(home.ok(&["reload", "--dry-run"]), text);
    assert_eq!(home.ok(&["plan", "-q"]), text, "it is what was asked for");
    let json: Value = serde_json::from_str(&home.ok(&["plan", "--json"])).unwrap();
    assert_eq!(json, home.call("daemon.plan", "{}"));
    let order: Vec<String> = json["order"]
        .as_array()
        .unwrap()
        .iter()
        .map(|a| format!("{} {}", a["action"].as_str().unwrap(), a["name"].as_str().unwrap()))
        .collect();
    assert!(text.contains(&format!("In this order: {}", order.join(", "))), "{text}");
    let at = |what: &str| order.iter().position(|o| o == what).unwrap();
    assert!(at("stop worker") < at("stop web") && at("start web") < at("start worker"), "{order:?}");
    assert_eq!(pids(&home, &["db", "old", "web", "worker"]), before);
    assert_eq!(home.read("state/config.json"), kept, "the next daemon goes on with the old one");

    let reply = home.call("daemon.reload", "{}");
    for list in ["added", "removed", "restarted", "updated", "unchanged"] {
        assert_eq!(reply[list], json[list], "{list}");
    }
    wait("the reload is done", || {
        let pid = home.pid("worker");
        home.state("worker") == "running" && pid != before[3] && home.state("new") == "running"
    });
    assert_eq!(home.pid("db"), before[0]);
    assert_eq!(home.ok(&["plan"]), "nothing would change\n");

    home.write_config(r#"{ "services": { "db": { "comand": "x" } } }"#);
    let (planned, reloaded) = (home.fails(&["plan"]), home.fails(&["reload"]));
    assert_eq!(planned, reloaded);
    assert!(planned.1.contains("hob.json:1:"), "{planned:?}");
}
