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
    assert!(home.ok(&["status"]).contains("errors"), "{}", home.ok(&["status"]));
    home.write_config(r#"{ "services": { "s": { "command": "exec sleep 1000" } } }"#);
    home.ok(&["reload"]);
    assert!(!home.ok(&["status"]).contains("errors"));
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
