//! The command line as people and scripts meet it: help, mistakes, exit codes, JSON, times, completions, closed pipes.

use crate::support::*;
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::Stdio;

const CONFIG: &str = r#"{ "services": {
    "up": { "command": "echo hello; exec sleep 1000", "reload_signal": "CONT" },
    "broken": { "command": "echo no luck; exit 9", "max_restarts": 1, "min_delay": "10ms" },
    "needs": { "command": "exec sleep 1000", "requires": ["up"] }
}, "schedule": { "jobs": [{ "id": "job", "every": "1h", "action": { "restart": ["needs"] } }] } }"#;

/// The names of all commands as help lists them.
fn commands(home: &Home) -> Vec<String> {
    let help = home.ok(&["--help"]);
    let after = |start: &'static str| {
        help.lines().skip_while(move |l| !l.starts_with(start)).skip(1).take_while(|l| !l.is_empty())
    };
    let lower = |w: &&str| w.chars().all(|c| c.is_ascii_lowercase());
    let alone = after("Commands:").map(|l| {
        let left = l.trim_start().split("  ").next().unwrap_or("");
        left.split(' ').take_while(lower).collect::<Vec<_>>().join(" ")
    });
    let mut noun = "";
    let of_nouns = after("Commands with a verb").flat_map(|l| {
        // A line that is indented further goes on with the verbs of the one before.
        let (first, verbs) = l.split_at(12);
        noun = if first.trim().is_empty() { noun } else { first.trim() };
        verbs.split(", ").map(|verb| format!("{noun} {}", verb.trim_end_matches(','))).collect::<Vec<_>>()
    });
    alone.chain(of_nouns).collect()
}

fn settled() -> Home {
    let home = Home::running(CONFIG);
    home.wait_state("needs", "running");
    home.wait_state("broken", "failed");
    home
}

#[test]
fn every_command_has_help() {
    let home = Home::new("{}");
    let all = commands(&home);
    assert!(all.len() > 20 && all.contains(&"service history".to_owned()), "{all:?}");
    for name in &all {
        let words: Vec<&str> = name.split(' ').collect();
        let text = home.ok(&[&words[..], &["--help"]].concat());
        assert!(text.contains(&format!("\nUsage: hob {name}")), "{name}: {text}");
        // What may be given is in the line that shows it.
        assert_eq!(text.contains("\nFlags:\n"), text.contains(&format!("\nUsage: hob {name} [FLAGS]")), "{text}");
        assert!(text.lines().all(|l| l.trim_end() == l && l.chars().count() <= 120), "{name}: {text}");
        assert_eq!(home.ok(&[&["help"], &words[..]].concat()), text, "hob help {name}");
    }
    let service = home.ok(&["service", "--help"]);
    assert!(service.contains("service history NAME") && !service.contains("config check"), "{service}");
    let whole = home.ok(&["--help"]);
    assert_eq!(home.ok(&["help"]), whole);
    assert!(whole.lines().all(|l| l.trim_end() == l && l.chars().count() <= 120), "{whole}");
    assert!(home.ok(&["help", "task", "edit"]).contains("\nUsage: hob task edit [FLAGS] ID [-- COMMAND...]\n"));
    assert!(home.ok(&["man"]).contains("\n  hob add \\-\\- make \\-j4\n"), "an example is a line of its own");
}

#[test]
fn commands_that_hints_and_help_name_are_there() {
    let home = Home::new("{}");
    let all = commands(&home);
    let is_known = |first: &str, second: Option<&str>| {
        let whole = second.map(|second| format!("{first} {second}"));
        let nouns = || all.iter().any(|c| c.split(' ').next() == Some(first));
        all.iter().any(|c| c == first) || first == "help" || whole.map_or_else(nouns, |whole| all.contains(&whole))
    };
    let (mut folders, mut named) = (vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")], 0);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()) {
            if entry.is_dir() {
                folders.push(entry);
                continue;
            }
            let text = fs::read_to_string(&entry).unwrap();
            let code = text.lines().filter(|l| !l.trim_start().starts_with("//"));
            let named_in = |l| ["'hob ", "`hob "].into_iter().flat_map(move |mark| str::split(l, mark).skip(1));
            for (line, rest) in code.flat_map(|l| named_in(l).map(move |rest| (l, rest))) {
                let plain = rest.split(|c: char| !c.is_ascii_lowercase() && c != ' ').next().unwrap();
                let mut words = plain.split(' ').take_while(|w| !w.is_empty());
                let Some(first) = words.next() else { continue };
                assert!(is_known(first, words.next()), "{}: {line}", entry.display());
                named += 1;
            }
        }
    }
    assert!(named > 50, "{named} commands are named");
}

#[test]
fn json_of_every_command_parses() {
    let home = settled();
    let mut tried: Vec<&str> = Vec::new();
    // With the number of JSON texts, or 0 for one or more of them on a line each.
    for (line, code, texts) in [
        ("status", 1, 1),
        ("status up", 0, 1),
        ("status up needs", 0, 1),
        ("why broken", 0, 1),
        ("logs up", 0, 0),
        ("logs", 0, 0),
        ("logs rotate up", 0, 1),
        ("events", 0, 1),
        ("reload", 0, 1),
        ("plan", 0, 1),
        ("doctor", 1, 1),
        ("inhibit --why cut -- echo 1", 0, 1),
        ("service run job -- sleep 1000", 0, 1),
        ("service remove job", 0, 1),
        ("upgrade", 0, 1),
        ("ping", 0, 1),
        ("health", 3, 1),
        ("config check", 0, 1),
        ("config show", 0, 1),
        ("config show --defaults", 0, 1),
        ("config path", 0, 1),
        ("services", 0, 1),
        ("service list", 0, 1),
        ("service get up", 0, 1),
        ("service start up", 0, 1),
        ("service stop needs", 0, 1),
        ("service restart up", 0, 1),
        ("service signal CONT up", 0, 1),
        ("services", 0, 1),
        ("service reload up", 0, 1),
        ("service reset needs", 0, 1),
        ("service history broken", 0, 1),
        ("service logs broken", 0, 0),
        ("start", 0, 1),
        ("start up", 0, 1),
        ("restart up", 0, 1),
        ("stop needs", 0, 1),
        ("call ping", 0, 1),
        ("completions bash", 0, 1),
        ("completions zsh", 0, 1),
        ("completions fish", 0, 1),
        ("man", 0, 1),
        ("man config", 0, 1),
        ("config schema", 0, 1),
        ("demo --for 1s", 0, 0),
        ("add -- echo hi", 0, 1),
        ("task wait 1", 0, 1),
        ("task list", 0, 1),
        ("task show 1", 0, 1),
        ("task output 1", 0, 1),
        ("task cancel 1", 1, 1),
        ("task pause 1", 1, 1),
        ("task resume 1", 1, 1),
        ("task retry 1", 0, 1),
        ("task add --hold -- true", 0, 1),
        ("task edit 2 --priority 1", 0, 1),
        ("task prioritize 2 --priority 2", 0, 1),
        ("task release 2", 0, 1),
        ("task wait 1 2", 0, 1),
        ("task hold 2", 1, 1),
        ("task stats", 0, 1),
        ("task remove 1", 0, 1),
        ("task clean", 0, 1),
        ("group set x --parallel 2", 0, 1),
        ("group list", 0, 1),
        ("group pause x", 0, 1),
        ("group resume x", 0, 1),
        ("schedule list", 0, 1),
        ("schedule run job", 0, 1),
        ("schedule pause job", 0, 1),
        ("schedule resume job", 0, 1),
        ("schedule next job", 0, 1),
        ("schedule check", 0, 1),
        ("schedule history job", 0, 1),
        ("stop", 0, 1),
    ] {
        tried.push(line);
        // Behind it, or before what would take it for its own.
        let (before, after) = if line.contains(" -- ") { (Some("--json"), None) } else { (None, Some("--json")) };
        let out = home.hob(&before.into_iter().chain(line.split(' ')).chain(after).collect::<Vec<_>>());
        let text = String::from_utf8(out.stdout).unwrap();
        assert_eq!(out.status.code(), Some(code), "{line}: {text}{}", String::from_utf8_lossy(&out.stderr));
        let parsed: Vec<Value> =
            text.lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{line}: {e}: {l}"))).collect();
        assert!(!parsed.is_empty() && (texts == 0 || parsed.len() == texts), "{line}: {text}");
    }
    for name in commands(&home) {
        // One stays in the foreground, the other is stop and start.
        if name != "run" {
            assert!(tried.iter().any(|t| *t == name || t.starts_with(&format!("{name} "))), "{name} was not tried");
        }
    }
}

#[test]
fn exit_codes_are_those_of_the_help() {
    let mut home = Home::new(CONFIG);
    let code = |home: &Home, line: &str| home.hob(&line.split(' ').collect::<Vec<_>>()).status.code().unwrap();
    assert_eq!(code(&home, "status"), 3, "not running");
    assert_eq!(code(&home, "stop"), 0, "to stop what does not run is no error");
    home.start(&[]);
    home.wait_state("broken", "failed");
    for (line, want) in [
        ("status", 1),
        ("health", 3),
        ("ping", 0),
        ("bogus", 2),
        ("status --bogus", 2),
        ("why", 2),
        ("why nobody", 4),
        ("run", 3),
        ("call bogus", 12),
        ("call service.get", 11),
        ("service signal BOGUS up", 11),
        ("config check", 0),
    ] {
        assert_eq!(code(&home, line), want, "hob {line}");
    }
    home.write_config(r#"{ "services": { "up": {} } }"#);
    assert_eq!(code(&home, "config check"), 1);
    assert_eq!(code(&home, "reload"), 11);
    let other = home.path("other.json");
    fs::write(&other, r#"{ "services": { "up": { "command": "true" } } }"#).unwrap();
    assert_eq!(code(&home, &format!("config check {}", other.display())), 0);
    assert_eq!(code(&home, &format!("config check {}", home.path("none.json").display())), 8);
}

#[test]
fn mistakes_lead_to_what_was_meant() {
    let home = settled();
    for (line, want) in [
        ("stauts", "did you mean 'hob status'?"),
        ("service strat up", "did you mean 'hob service start'?"),
        ("service frob", "'hob service --help' lists them"),
        ("service", "needs a verb: list, get, start"),
        ("status --jsno", "did you mean --json?"),
        ("why borken", "did you mean \"broken\"?"),
        ("call service.lits", "service.list"),
        ("ping up", "usage: hob ping\n"),
        ("start --timeout soon up", "--timeout: not a duration"),
        ("completions tcsh", "takes bash, zsh or fish, not 'tcsh'"),
        ("logs --stream=ouch up", "--stream: 'ouch' is neither 'out' nor 'err'"),
        ("status --json=yes", "--json takes no value"),
        ("start --timeout", "--timeout needs a value: --timeout TIME"),
        ("man hub", "takes hob or config, not 'hub'; did you mean 'hob'?"),
        ("ps", "did you mean 'hob status'?"),
        ("list", "did you mean 'hob services'?"),
        ("signal HUP up", "did you mean 'hob service signal'?"),
        ("help exit-cods", "is not a command"),
        ("service signal HUP", "needs SIGNAL NAME...; usage: hob service signal SIGNAL NAME..."),
        ("run", "--home DIR"),
    ] {
        let (_, text) = home.fails(&line.split(' ').collect::<Vec<_>>());
        assert!(text.starts_with("hob: ") && text.contains(want), "hob {line}: {text}");
    }
    let away = Home::new("{}");
    assert!(away.fails(&["status"]).1.contains("'hob start'"));
    // The end is told with its time.
    home.ok(&["stop"]);
    let (_, text) = home.fails(&["status"]);
    assert!(text.contains("it ended at ") && !text.contains("unknown"), "{text}");
}

#[test]
fn a_start_with_a_broken_config_says_so() {
    let home = Home::new(r#"{ "services": { "web": { "command": "true", "restrat": "never" } } }"#);
    let out = home.hob(&["start"]);
    let errors = String::from_utf8(out.stderr).unwrap();
    assert!(
        out.status.code() == Some(1) && errors.contains("hob.json:1:") && errors.contains("did you mean 'restart'"),
        "{errors}"
    );
    assert!(errors.contains("'hob reload'"), "{errors}");
    home.write_config("{}");
    home.ok(&["reload"]);
    let out = home.hob(&["start"]);
    assert!(out.status.success() && out.stderr.is_empty(), "{}", String::from_utf8_lossy(&out.stderr));
}

/// The time of day of a stamp, moved by some minutes: `18:09:38`.
fn moved(stamp: &str, minutes: u32) -> String {
    let part = |from: usize| stamp.get(from..from + 2).unwrap().parse::<u32>().unwrap();
    let at = (part(11) * 60 + part(14) + minutes) % (24 * 60);
    format!("{:02}:{:02}:{:02}", at / 60, at % 60, part(17))
}

#[test]
fn people_read_local_times_and_programs_utc() {
    let home = settled();
    let local = |args: &[&str]| {
        let out = home.command(args).env("TZ", "XST-5:30").output().unwrap();
        assert!(out.status.success());
        String::from_utf8(out.stdout).unwrap()
    };
    let since = home.service("up")["since"].as_str().unwrap().to_owned();
    assert!(since.ends_with('Z'));
    let text = local(&["status", "up"]);
    assert!(text.contains(&format!("since {}", moved(&since, 330))), "{since}: {text}");
    let run = &home.call("service.history", r#"{"name": "broken"}"#)["runs"][0];
    let (started, ended) = (run["started"].as_str().unwrap(), run["ended"].as_str().unwrap());
    assert!(local(&["service", "history", "broken"]).contains(&moved(started, 330)));
    assert!(local(&["why", "broken"]).contains(&format!("{}  run 1 ended after ", moved(ended, 330))));
    let event = &home.call("event.history", r#"{"names": ["broken"]}"#)["events"][0];
    assert!(local(&["events", "broken"]).contains(&moved(event["time"].as_str().unwrap(), 330)));
    for args in [&["status", "up"][..], &["why", "broken"], &["events"], &["service", "history", "broken"]] {
        let text = local(args);
        assert!(!text.contains('\u{1b}') && !text.contains("Z "), "{args:?}: {text}");
    }
}

#[test]
fn a_story_names_its_runs_by_their_own_count_and_commands_that_can_be_copied() {
    let home = settled();
    let why = home.ok(&["why", "broken"]);
    assert!(why.starts_with("broken failed and is not started again: exit code 9"), "{why}");
    for want in ["What happened\n", "  run 2 ended after ", "| no luck", "What comes next\n", "What you can do\n"] {
        assert!(why.contains(want), "{want}: {why}");
    }
    assert!(why.contains(&format!("\n  hob --home {} start broken  # to try again\n", home.dir.display())), "{why}");
    let history = home.ok(&["service", "history", "broken"]);
    let numbers: Vec<&str> = {
        let table = history.lines().skip(1).take_while(|l| !l.is_empty());
        table.filter_map(|l| l.split_whitespace().next()).collect()
    };
    assert_eq!(numbers, ["1", "2"], "{history}");
    let status = home.ok(&["status", "needs"]);
    for want in ["needs has been running for ", "  Requires    up\n", "  Command     exec sleep 1000\n"] {
        assert!(status.contains(want), "{want}: {status}");
    }
    home.ok(&["stop", "needs"]);
    assert!(home.ok(&["service", "list", "needs"]).contains(" stopped it"));
    home.ok(&["service", "reset", "needs"]);
    wait("the wish is forgotten", || !home.ok(&["service", "list", "needs"]).contains(" stopped it"));
}

#[test]
fn a_closed_pipe_is_quiet() {
    let home = Home::running(
        r#"{ "services": { "s": { "command": "while :; do echo line; sleep 0.02; done" },
                           "still": { "command": "echo once; exec sleep 1000" } } }"#,
    );
    home.wait_state("s", "running");
    wait("it has spoken", || home.log("still") == "once\n");
    home.ok(&["add", "--", "sh", "-c", "echo once; exec sleep 1000"]);
    wait("it has spoken too", || home.ok(&["task", "output", "1"]) == "once\n");
    let folder_of = |line: &str| line.split(' ').find_map(|w| w.strip_suffix('.')).unwrap_or("").to_owned();
    for args in [
        &["logs", "-f", "s"][..],
        &["logs", "-f", "s", "s", "--json"],
        &["logs", "-f", "still"],
        &["events", "-f", "still"],
        &["task", "output", "1", "-f"],
        &["demo"],
    ] {
        let mut c = home.command(args);
        let mut child = c.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut first = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
        assert!(!first.is_empty(), "{args:?}");
        let mut status = None;
        wait("it notices", || {
            status = child.try_wait().unwrap();
            status.is_some()
        });
        let mut errors = String::new();
        child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        assert!(status.unwrap().success() && errors.is_empty(), "{args:?}: {status:?} {errors}");
        if args == ["demo"] {
            let folder = folder_of(&first);
            assert!(folder.contains("hob-demo-") && !exists(Path::new(&folder)), "{first}");
        }
    }
}
