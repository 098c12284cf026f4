//! What others wrote reaches no terminal raw where hob tells of it: commands, labels, output, errors, names.

use crate::support::*;
use crate::tasks::{submit, wait_for};
use serde_json::{Value, json};

/// Colours, a title, an erased line, and the same by the one byte that some terminals take for ESC and a bracket; rows
/// that hob has never said, and what turns the order of letters or cannot be seen.
const EVIL: &str = "\x1b[31mred\x1b[8m\x1b]0;title\x07\r\x1b[2Kerased\u{9b}31m\n99  forged  default  2 ms\n\
                    \t 99  forged\u{2028}99  forged\u{202e}drawkcab\u{2066}\u{200b}\u{feff}";

/// What reaches a terminal raw and should not.
fn raw(shown: &str) -> Option<char> {
    let unseen = |c| "\u{61c}\u{200b}\u{200e}\u{200f}\u{2028}\u{2029}\u{2060}\u{feff}".contains(c);
    let turning = |c| ('\u{202a}'..='\u{202e}').contains(&c) || ('\u{2066}'..='\u{2069}').contains(&c);
    shown.chars().find(|c| c.is_control() && *c != '\n' || unseen(*c) || turning(*c))
}

/// A line that begins as a row of somebody else's making.
fn forged(shown: &str) -> Option<&str> {
    shown.lines().find(|line| line.trim_start().starts_with("99 "))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn no_command_that_tells_of_something_passes_control_characters_on() {
    let printed = format!("printf '%s\\n' '{EVIL}'; exit 3");
    let config = json!({
        "agents": { "robot": { "command": ["cat"], "prompt": "stdin" } },
        "services": {
            "loud": { "command": printed, "restart": "never" },
            "named": { "command": ["/bin/true", EVIL], "cwd": format!("/no/{EVIL}"), "restart": "never" } },
        "schedule": { "jobs": [{ "id": "job", "every": "1h", "action": { "task": { "command": ["x", EVIL] } } }] } });
    let home = Home::running(&config.to_string());
    let spec = |more: Value| {
        let mut spec = json!({ "command": printed, "labels": { "x": EVIL }, "cwd": "/", "key": EVIL });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spec
    };
    let failed = submit(&home, spec(json!({})));
    wait_for(&home, "1");
    let nowhere = submit(&home, json!({ "command": [EVIL], "cwd": format!("/no/{EVIL}"), "labels": { "x": EVIL } }));
    wait_for(&home, "2");
    let held = submit(&home, json!({ "command": [EVIL, "x"], "hold": true, "labels": { "x": EVIL } }));
    let prompt = submit(&home, json!({ "prompt": EVIL, "labels": { "config_error": EVIL, "whole_prompt": EVIL } }));
    home.ok(&["schedule", "run", "job"]);
    for name in ["loud", "named"] {
        home.wait_state(name, "failed");
    }
    let [failed, nowhere, held, prompt] = [failed, nowhere, held, prompt].map(|id| id.to_string());
    let (label, owner, long) = (format!("x={EVIL}"), format!("service/{EVIL}"), format!("--{EVIL}"));
    let nowhere_else = format!("/no/{EVIL}");
    let mut told = 0;
    for line in [
        &["task", "list"][..],
        &["task", "list", "--label", &label],
        &["task", "list", "--label", EVIL],
        &["task", "list", "--owner", EVIL],
        &["task", "show", &failed],
        &["task", "show", &nowhere],
        &["task", "show", &held],
        &["task", "show", &prompt],
        &["task", "wait", &failed, &nowhere],
        &["task", "wait", "--timeout", "1ms", &held],
        &["task", "hold", &failed],
        &["task", "pause", &held],
        &["why", &format!("task/{failed}")],
        &["why", &format!("task/{nowhere}")],
        &["why", &format!("task/{held}")],
        &["why", "loud"],
        &["why", "named"],
        &["why", "job"],
        &["why", EVIL],
        &["status"],
        &["status", "loud"],
        &["status", "named"],
        &["start", EVIL],
        &["start", "named"],
        &["events", "-n", "0"],
        &["events", EVIL],
        &["plan"],
        &["doctor"],
        &["schedule", "list"],
        &["schedule", "next", EVIL],
        &["schedule", "check", EVIL],
        &["schedule", "run", EVIL],
        &["group", "list"],
        &["group", "set", EVIL, "-j", "1"],
        &["config", "show"],
        &["config", "check", EVIL],
        &["inhibit", "--why", EVIL, "--", "true"],
        &["logs", EVIL],
        &["call", "task.get", &format!("{{\"id\": {failed}}}")],
        &["call", EVIL],
        &[EVIL],
        &["add", "--key", EVIL, "other"],
        &["add", "--agent", EVIL, "x"],
        &["add", "--runner", EVIL, "x"],
        &["add", "-f", "exit 3"],
        &["add", "-w", "-C", &nowhere_else, "--", "true"],
        &["add", "--prompt", EVIL],
        &["add", "-p", EVIL, "x"],
        &["add", "-a", EVIL, "x"],
        &["add", "-l", EVIL, "x"],
        &["add", "-e", EVIL, "x"],
        &["add", "--at", EVIL, "x"],
        &["add", "--delay", EVIL, "x"],
        &["add", "--array", EVIL, "echo {}"],
        &["add", "--max-output", EVIL, "x"],
        &["add", "--stdin", EVIL, "x"],
        &["task", EVIL],
        &["task", "show", EVIL],
        &["task", "list", EVIL],
        &["task", "list", "--state", EVIL],
        &["task", "list", "--group", EVIL],
        &["list", "--owner", &owner],
        &["status", &long, "--x"],
        &["logs", "--since", EVIL],
        &["logs", "--grep", EVIL, "--stream", EVIL],
        &["logs", "rotate", EVIL],
        &["events", "--kind", EVIL, EVIL],
        &["schedule", "next", "--tz", EVIL, "@daily"],
        &["schedule", "check", "* * *\u{202e}\n99 *"],
        &["service", "signal", EVIL, EVIL],
        &["service", "run", EVIL, "--", "true"],
        &["call", "task.submit", EVIL],
        &["config", "check", &long],
        &["--config", EVIL, "config", "show"],
        &["--config", EVIL, "config", "path"],
        &["--config", EVIL, "config", "path", "--json"],
        &["--socket", &long, "status"],
        &["--socket", &long, "status", "--json"],
        &["status", EVIL, "--json"],
        &["why", "loud", "--json"],
        &["task", "list", "--json"],
        &["events", "-n", "0", "--json"],
        &["logs", "loud", "--json"],
        &["task", "output", &failed, "--json"],
        &["config", "show", "--json"],
        &["config", "show"],
    ] {
        let out = home.hob(line);
        let shown = text(&out.stdout) + &text(&out.stderr);
        assert_eq!((raw(&shown), forged(&shown)), (None, None), "{line:?}: {shown:?}");
        told += usize::from(shown.contains("\\u{1b}") || shown.contains("\\u001b"));
    }
    assert!(told > 60, "only {told} of them said anything of it, so that this tries little");
    // Programs get what was written, as JSON, and output passes as it is.
    for line in [&["task", "show", &failed, "--json"][..], &["call", "task.get", "{\"id\": 1}", "--json"]] {
        let out = home.ok(line);
        assert!(!out.trim_end().contains(|c: char| c.is_control()), "{out:?}");
        let task: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(task["labels"]["x"], EVIL);
    }
    assert_eq!(home.ok(&["task", "output", &failed]), format!("{EVIL}\n"));
    assert_eq!(home.log("loud"), format!("{EVIL}\n"));
}
