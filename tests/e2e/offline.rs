//! What commands tell while no hob runs: what its files hold, without a change to any of them.

use crate::support::*;
use serde_json::Value;
use std::fs;
use std::os::unix::net::UnixStream;

const CONFIG: &str = r#"{ "services": {
    "web": { "command": "echo it cannot; exit 3", "restart": "never" },
    "db": { "command": "exec sleep 1000" } } }"#;

/// Names and contents of the files below a folder.
fn files(home: &Home, folder: &str) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    let mut open = vec![home.path(folder)];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else {
                all.push((path.display().to_string(), fs::read(&path).unwrap()));
            }
        }
    }
    all.sort();
    all
}

/// Standard output and error of a command that succeeds.
fn both(home: &Home, args: &[&str]) -> (String, String) {
    let out = home.hob(args);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    assert!(out.status.success(), "hob {args:?}: {}", text(out.stderr));
    (text(out.stdout), text(out.stderr))
}

#[test]
fn the_files_tell_what_happened_while_nothing_runs() {
    let mut home = Home::running(CONFIG);
    home.wait_state("web", "failed");
    home.wait_state("db", "running");
    home.fails(&["add", "-w", "-g", "default", "echo to nobody; exit 5"]);
    home.ok(&["add", "--hold", "true"]);
    home.ok(&["add", "echo begun; exec sleep 1000"]);
    wait("it has written", || home.hob(&["task", "output", "3"]).stdout == b"begun\n");
    let running = home.ok(&["events", "-n", "1000", "--kind", "task.*"]);
    let [list, show] = [&["task", "list"][..], &["task", "show", "1"]].map(|c| home.ok(c));
    // Nobody ends properly, as after the loss of the machine.
    let (daemon, keeper) = home.pids();
    kill("STOP", daemon);
    kill("KILL", keeper);
    kill("KILL", daemon);
    home.reap();
    // Of a process with threads the files close with the last one.
    wait("nobody listens", || UnixStream::connect(home.path("run/hob.sock")).is_err());
    let before = files(&home, "state");
    let (why, said) = both(&home, &["why", "web"]);
    assert!(said.contains("hob is not running") && said.contains("this is what the files hold"), "{said}");
    assert!(why.contains("exit code 3") && why.contains("| it cannot") && why.contains(" start  # "), "{why}");
    assert!(why.contains("nothing, while hob does not run"), "{why}");
    assert_eq!(both(&home, &["events", "-n", "1000", "--kind", "task.*"]).0, running);
    assert_eq!(both(&home, &["task", "show", "1"]).0, show);
    let (now, _) = both(&home, &["task", "list"]);
    let words = |text: &str| -> Vec<String> {
        text.lines().take(3).flat_map(str::split_whitespace).map(str::to_owned).collect()
    };
    assert_eq!(words(&now), words(&list));
    assert!(now.lines().nth(3).unwrap().contains("running"), "nobody saw its end: {now}");
    let (why, said) = both(&home, &["why", "db"]);
    assert!(why.starts_with("db was running when hob was last seen\n"), "{why}");
    assert!(why.contains("run 1 was started") && !why.contains("ended") && !why.contains("pid"), "{why}");
    assert!(said.contains("what ran then may run still"), "{said}");
    let (show, _) = both(&home, &["task", "show", "3"]);
    assert!(show.starts_with("task 3 was running") && !show.contains("ended"), "{show}");
    assert!(both(&home, &["why", "3"]).0.starts_with("task 3 was running when hob was last seen\n"));
    let (history, _) = both(&home, &["service", "history", "db"]);
    assert!(history.contains("not on record"), "{history}");
    assert_eq!(both(&home, &["task", "output", "1"]).0, "to nobody\n");
    let (lines, _) = both(&home, &["task", "output", "1", "-n", "1", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&lines).unwrap()["line"], "to nobody");
    assert!(both(&home, &["task", "output", "2"]).1.contains("task 2 has not run"));
    let (code, said) = home.fails(&["task", "output", "9"]);
    assert!(code == 4 && said.contains("there is no task 9"), "{said}");
    assert!(both(&home, &["service", "history", "web"]).0.contains("exit code 3"));
    for args in [&["events", "-f"][..], &["task", "retry", "1"], &["task", "output", "-f", "1"]] {
        let (code, said) = home.fails(args);
        assert!(code == 3 && said.contains("hob is not running") && said.contains("hob start"), "{args:?}: {said}");
    }
    assert_eq!(files(&home, "state"), before, "nothing was written");
    // The job of the task outlived them.
    home.start(&[]);
    home.ok(&["stop"]);
}

#[test]
fn a_plan_is_made_from_the_config_that_was_in_effect_last() {
    let home = Home::new(CONFIG);
    let (code, said) = home.fails(&["plan"]);
    assert!(code == 3 && said.contains("hob is not running"), "nothing has run yet: {said}");
    home.ok(&["start"]);
    home.ok(&["stop"]);
    let (plan, said) = both(&home, &["plan"]);
    assert!(plan == "nothing would change\n" && said.contains("as if that were up"), "{plan}\n{said}");
    home.write_config(r#"{ "services": { "db": { "command": "exec sleep 1001" }, "new": { "command": "true" } } }"#);
    let before = files(&home, "state");
    let (plan, _) = both(&home, &["plan"]);
    for line in [
        "stop     web: not in the config any more\n",
        "restart  db: command changed\n",
        "start    new: new in the config\n",
    ] {
        assert!(plan.contains(line), "{line:?} in {plan}");
    }
    assert_eq!(files(&home, "state"), before, "nothing was taken");
    home.write_config("{");
    assert!(home.fails(&["plan"]).1.contains("hob.json"), "its mistakes are told");
}

#[test]
fn the_files_of_a_hob_that_hangs_are_left_alone() {
    let home = Home::running(CONFIG);
    home.wait_state("db", "running");
    fs::remove_file(home.path("run/hob.sock")).unwrap();
    let (code, said) = home.fails(&["task", "list"]);
    assert!(code == 3 && said.contains("hob runs with pid") && !said.contains("the files hold"), "{said}");
}
