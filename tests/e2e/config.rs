//! The config file: made on first start, checked as a whole, reloaded all or nothing.

use crate::support::*;
use std::fs;

#[test]
fn the_first_start_makes_a_commented_default() {
    let mut home = Home::new("{}");
    fs::remove_file(home.path("hob.json")).unwrap();
    home.start(&[]);
    let text = home.read("hob.json");
    assert!(text.contains("//") && text.contains("services"), "{text}");
    home.ok(&["config", "check"]);
}

#[test]
fn a_config_that_is_gone_at_a_start_is_no_reason_to_stop_services() {
    let home = Home::running(r#"{ "services": { "s": { "command": "exec sleep 1000" } } }"#);
    home.wait_state("s", "running");
    fs::remove_file(home.path("hob.json")).unwrap();
    home.ok(&["restart"]);
    home.wait_state("s", "running");
    let told = home.ok(&["status"]);
    assert!(told.contains("it was there and is gone") && !home.path("hob.json").exists(), "{told}");
    home.write_config("{}");
    home.ok(&["reload"]);
    assert!(!home.ok(&["status"]).contains("gone"));
}

#[test]
fn every_mistake_is_told_with_its_place() {
    let home = Home::new(
        "{\n  \"services\": {\n    \"a\": { \"command\": \"x\", \"restrat\": \"always\" },\n    \
         \"b\": { \"comand\": \"y\" }\n  }\n}\n",
    );
    let out = home.hob(&["config", "check"]);
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(!out.status.success());
    assert!(text.contains(":3:") && text.contains("did you mean 'restart'"), "{text}");
    assert!(text.contains(":4:") && text.contains("did you mean 'command'"), "{text}");
}

#[test]
fn reload_touches_only_what_changed() {
    let home = Home::running(
        r#"{ "services": { "same": { "command": "exec sleep 1000" }, "live": { "command": "exec sleep 1000" },
             "new_command": { "command": "exec sleep 1000" }, "gone": { "command": "exec sleep 1000" } } }"#,
    );
    for s in ["same", "live", "new_command", "gone"] {
        home.wait_state(s, "running");
    }
    let before = ["same", "live", "new_command", "gone"].map(|s| home.pid(s));
    home.write_config(
        r#"{ "services": { "same": { "command": "exec sleep 1000" }, "live": { "command": "exec sleep 1000",
             "stop_timeout": "3s" },
             "new_command": { "command": "exec sleep 1001" }, "added": { "command": "exec sleep 1000" } } }"#,
    );
    let text = home.ok(&["reload"]);
    assert!(text.contains("added") && text.contains("gone") && text.contains("new_command"), "{text}");
    home.wait_state("added", "running");
    wait("the old process is replaced", || {
        !alive(before[2]) && home.pid("new_command") > 0 && home.state("new_command") == "running"
    });
    assert_eq!(home.pid("same"), before[0]);
    assert_eq!(home.pid("live"), before[1]);
    wait("the removed one is gone", || !alive(before[3]) && !home.hob(&["service", "get", "gone"]).status.success());
}

#[test]
fn a_bad_file_keeps_the_old_config_and_says_so() {
    let home = Home::running(r#"{ "services": { "s": { "command": "exec sleep 1000" } } }"#);
    home.wait_state("s", "running");
    let pid = home.pid("s");
    home.write_config(r#"{ "services": { "s": { "command": "exec sleep 1000", "nice": 99 }, } "#);
    let (_, text) = home.fails(&["reload"]);
    assert!(text.contains("hob.json:1:"), "{text}");
    assert_eq!(home.pid("s"), pid);
    let status = home.ok(&["status"]);
    assert!(
        status.starts_with("hob.json has 1 mistake and is not in effect; hob runs with the config of "),
        "{status}"
    );
    home.write_config(r#"{ "services": { "s": { "command": "exec sleep 1000" } } }"#);
    home.ok(&["reload"]);
    assert!(!home.ok(&["status"]).contains("in effect"));
}

#[test]
fn a_file_that_is_not_there_is_told_as_that_and_not_as_a_mistake_in_it() {
    let home = Home::new("{}");
    fs::remove_file(home.path("hob.json")).unwrap();
    for args in [&["config", "check"][..], &["config", "show"], &["schedule", "check"]] {
        let (code, said) = home.fails(args);
        let want =
            format!("hob: there is no config file {}\n     'hob start' makes one", home.path("hob.json").display());
        assert!(code == 8 && said.starts_with(&want), "{args:?}: {code} {said}");
    }
    // One that was named is not made by a start.
    let out = home.command(&["config", "check"]).env("HOB_CONFIG", "/no/such.json").output().unwrap();
    let said = String::from_utf8(out.stderr).unwrap();
    assert!(said.starts_with("hob: there is no file /no/such.json\n     write one"), "{said}");
    home.ok(&["start"]);
    fs::remove_file(home.path("hob.json")).unwrap();
    assert!(home.fails(&["reload"]).1.contains("No such file"));
    let status = home.ok(&["status"]);
    assert!(
        status.starts_with("hob.json cannot be read and is not in effect; hob runs with the config of "),
        "{status}"
    );
    assert!(!status.contains("problem:"), "{status}");
    let health = String::from_utf8(home.hob(&["health"]).stdout).unwrap();
    assert!(health.contains("problem: the config file cannot be read and is not in effect"), "{health}");
    let doctor = String::from_utf8(home.hob(&["doctor"]).stdout).unwrap();
    let told: Vec<&str> = doctor.lines().filter(|l| l.contains("config: ")).collect();
    assert!(told.len() == 1 && told[0].starts_with("error ") && told[0].ends_with(" is not there"), "{doctor}");
    fs::create_dir(home.path("hob.json")).unwrap();
    let doctor = String::from_utf8(home.hob(&["doctor"]).stdout).unwrap();
    assert!(doctor.contains("hob.json: it is a folder") && !doctor.contains("mistake"), "{doctor}");
    fs::remove_dir(home.path("hob.json")).unwrap();
}

#[test]
fn many_mistakes_flood_nothing() {
    let home = Home::running("{}");
    let keys: Vec<String> = (0..30).map(|i| format!("\"nokey{i}\": 1")).collect();
    home.write_config(&format!("{{ \"services\": {{ \"s\": {{ \"command\": \"true\", {} }} }} }}", keys.join(", ")));
    let (_, said) = home.fails(&["reload"]);
    assert!(said.contains("nokey2") && !said.contains("nokey3") && said.contains("\nand 27 more\n"), "{said}");
    let status = home.ok(&["status"]);
    assert!(status.starts_with("hob.json has 30 mistakes and is not in effect; "), "{status}");
    assert_eq!(status.matches("hob config check").count(), 1, "{status}");
    let doctor = String::from_utf8(home.hob(&["doctor"]).stdout).unwrap();
    assert_eq!(doctor.matches("config: ").count(), 1, "{doctor}");
    assert!(doctor.contains("hob.json has 30 mistakes, the first: "), "{doctor}");
}

/// The typo of an evening must not stop a machine's services at its next boot.
#[test]
fn a_start_with_a_typo_goes_on_with_the_last_good_config() {
    let good = r#"{ "services": { "web": { "command": "exec sleep 1000" },
                                  "gone": { "command": "exec sleep 1000", "autostart": false } } }"#;
    let home = Home::new(good);
    home.ok(&["start"]);
    home.wait_state("web", "running");
    home.ok(&["start", "gone"]);
    home.write_config(r#"{ "services": { "web": { "command": "exec sleep 1000" } } }"#);
    home.ok(&["reload"]);
    wait("the removed one is gone", || !home.hob(&["service", "get", "gone"]).status.success());
    for restart in [false, true] {
        if restart {
            home.write_config(r#"{ "services": { "web": { "command": "exec sleep 1000", "restrat": "no" } } }"#);
        }
        home.ok(&["stop"]);
        let out = home.hob(&["start"]);
        let said = String::from_utf8(out.stderr).unwrap();
        assert!(out.status.success(), "{said}");
        assert_eq!(said.contains("hob.json has 1 mistake and is not in effect; hob runs with the config of "), restart);
        home.wait_state("web", "running");
    }
    let status = home.ok(&["status"]);
    assert!(status.lines().next().unwrap().ends_with(": hob config check") && !status.contains("gone"), "{status}");
    // A second daemon and a reload of the mended file find their way as well.
    let (daemon, _) = home.pids();
    kill("KILL", daemon);
    wait("the next one answers", || home.pids().0 != daemon);
    assert!(home.ok(&["status"]).starts_with("hob.json has 1 mistake"));
    home.write_config(r#"{ "services": { "web": { "command": "exec sleep 1000" } } }"#);
    home.ok(&["reload"]);
    assert!(home.ok(&["status"]).starts_with("hob ") && home.state("web") == "running");
}

/// Where no config is known at all, nothing is made up: neither services that were removed nor who wanted them.
#[test]
fn without_any_config_removed_services_are_no_ghosts() {
    let home = Home::new(r#"{ "services": { "gone": { "command": "exec sleep 1000" } } }"#);
    home.ok(&["start"]);
    home.ok(&["stop", "gone"]);
    home.write_config(r#"{ "services": {} }"#);
    home.ok(&["reload"]);
    wait("it is gone", || !home.hob(&["service", "get", "gone"]).status.success());
    home.ok(&["stop"]);
    fs::remove_file(home.path("state/config.json")).unwrap();
    home.write_config("{ \"services\": ");
    let out = home.hob(&["start"]);
    let said = String::from_utf8(out.stderr).unwrap();
    assert!(out.status.code() == Some(1) && said.contains("no service is started by it"), "{said}");
    let status = home.ok(&["status"]);
    assert!(!status.contains("gone") && status.contains("no services"), "{status}");
    // What a person said of it holds when it comes back.
    home.write_config(r#"{ "services": { "gone": { "command": "exec sleep 1000" } } }"#);
    home.ok(&["reload"]);
    assert_eq!(home.state("gone"), "stopped");
}

#[test]
fn a_bad_file_at_the_start_still_gives_a_hob_that_answers() {
    let mut home = Home::new("{ \"services\": ");
    home.start(&[]);
    assert!(home.ok(&["status"]).contains("hob.json:1:"));
    home.write_config(r#"{ "services": { "s": { "command": "exec sleep 1000" } } }"#);
    home.ok(&["reload"]);
    home.wait_state("s", "running");
}

#[test]
fn what_this_machine_lacks_is_a_warning() {
    let home = Home::new(
        r#"{ "daemon": { "access": [ { "user": "nosuch", "level": "read" } ] }, "services": {
             "good": { "command": ["true"], "cwd": ".", "autostart": false },
             "prog": { "command": ["nosuchprogram"], "autostart": false },
             "dir": { "command": "true", "cwd": "nosuchfolder", "autostart": false },
             "env": { "command": "true", "env_file": "nosuch.env", "autostart": false },
             "user": { "command": "true", "user": "nosuch", "autostart": false },
             "group": { "command": "true", "user": "root", "group": "nosuch", "autostart": false },
             "check": { "command": "true", "health": { "command": ["/nonexistent/x"] }, "autostart": false } } }"#,
    );
    let lacks = ["access: user 'nosuch'", "prog: ", "dir: ", "env: ", "user: user 'nosuch'", "group: group 'nosuch'"];
    let all = |said: &str| {
        for what in lacks.iter().chain(&["check, health.command: cannot execute /nonexistent/x"]) {
            assert!(said.lines().any(|l| l.starts_with("hob: warning: ") && l.contains(what)), "{what} in {said}");
        }
        assert!(!said.contains("good: "), "{said}");
    };
    let here = home.command(&["config", "check", "hob.json"]).current_dir(&home.dir).output().unwrap();
    for out in [home.hob(&["config", "check"]), here] {
        assert!(out.status.success());
        assert!(String::from_utf8(out.stdout).unwrap().ends_with("hob.json: good, 7 services\n"));
        all(&String::from_utf8(out.stderr).unwrap());
    }
    let json: serde_json::Value = serde_json::from_str(&home.ok(&["config", "check", "--json"])).unwrap();
    assert!(json["ok"] == true && json["warnings"].as_array().unwrap().len() >= lacks.len(), "{json}");
    let out = home.hob(&["config", "check", "-q"]);
    assert!(out.status.success() && out.stdout.is_empty() && out.stderr.is_empty());
    home.ok(&["start"]);
    let out = home.hob(&["plan"]);
    assert_eq!(String::from_utf8(out.stdout).unwrap(), "nothing would change\n");
    assert!(out.stderr.is_empty(), "a hob that runs may find other programs than whoever asks");
    home.ok(&["stop"]);
    let out = home.hob(&["plan"]);
    assert_eq!(String::from_utf8(out.stdout).unwrap(), "nothing would change\n");
    all(&String::from_utf8(out.stderr).unwrap());
}

#[test]
fn a_check_warns_of_what_a_job_or_a_runner_lacks_in_the_words_of_its_keys() {
    let job = |id: &str, group: &str| {
        format!(r#"{{"id": "{id}", "every": "1h", "action": {{"task": {{"command": "x", "group": "{group}"}}}}}}"#)
    };
    let home = Home::new(&format!(
        r#"{{"groups": {{"known": {{}}}}, "runners": {{"r": {{"prefix": ["no-such-program-here"]}}}},
             "schedule": {{"jobs": [{}, {}, {}]}}}}"#,
        job("a", "known"),
        job("b", "default"),
        job("c", "nowhere")
    ));
    let out = home.hob(&["config", "check"]);
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success() && said.lines().count() == 2, "{said}");
    assert!(said.contains("job c: there is no group \"nowhere\" in the config"), "{said}");
    assert!(said.contains("runners.r: ") && said.contains("\"prefix\"") && !said.contains("command"), "{said}");
    home.write_config(
        r#"{"services": {"u": {"command": "true", "group": "no-such", "cwd": "/no/folder", "env_file": "/no/file"}}}"#,
    );
    let said = String::from_utf8_lossy(&home.hob(&["config", "check"]).stderr).into_owned();
    assert!(["no-such", "/no/folder", "/no/file"].iter().all(|what| said.contains(what)), "{said}");
}
