//! A machine with next to nothing on it: no /proc, no /dev, no program but hob.

use crate::support::*;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// A home that is the root of a file system of its own with a static hob and a config; `None` where there is none.
fn empty_root(config: &str) -> Option<Home> {
    let Some(program) = std::env::var_os("HOB_STATIC") else {
        skip("HOB_STATIC names no static hob, so an empty root is not tried");
        return None;
    };
    let home = Home::new("{}");
    assert!(Command::new("cp").arg(program).arg(home.path("hob")).status().unwrap().success());
    fs::create_dir(home.path("h")).unwrap();
    fs::write(home.path("h/hob.json"), config).unwrap();
    if !within(&home.dir, &[]).arg("--version").output().unwrap().status.success() {
        skip("only root can change the root of a process");
        return None;
    }
    Some(home)
}

/// hob in that root, by a program that executes the rest of its arguments.
fn within(root: &Path, by: &[&str]) -> Command {
    let words: Vec<&str> = by.iter().copied().chain(["chroot", root.to_str().unwrap(), "/hob"]).collect();
    let mut c = Command::new(words[0]);
    c.args(&words[1..]).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").stdin(Stdio::null());
    c
}

fn text(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

#[test]
fn an_empty_root_is_enough() {
    let config = r#"{ "services": { "s": { "command": ["/hob", "--version"], "restart": "never" } } }"#;
    let Some(home) = empty_root(config) else { return };
    let hob = |args: &[&str]| within(&home.dir, &[]).args(["--home", "/h"]).args(args).output().unwrap();
    let mut run = within(&home.dir, &[]);
    let mut run = run.args(["--home", "/h", "run"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait("hob answers", || {
        assert!(run.try_wait().unwrap().is_none(), "it has ended: {}", home.read("h/logs/hob.log"));
        hob(&["ping"]).status.success()
    });
    assert!(home.read("h/logs/hob.log").contains("no process can be looked at"));
    wait("its service has run", || text(&hob(&["why", "s"])).contains("exit code 0"));
    assert!(text(&hob(&["logs", "s"])).contains(env!("CARGO_PKG_VERSION")));
    let said = text(&hob(&["doctor"]));
    assert!(said.contains("it has no procfs") && !said.contains("5.10"), "{said}");
    let stopped = hob(&["stop"]);
    assert!(stopped.status.success(), "{}", text(&stopped));
    wait("hob ends", || run.try_wait().unwrap().is_some());
    assert!(run.wait().unwrap().success());
    assert!(!exists(&home.path("h/run/hob.sock")));
}

#[test]
fn an_empty_root_is_enough_for_the_first_process_of_a_container() {
    let Some(home) = empty_root("{}") else { return };
    let by = ["unshare", "--pid", "--fork"];
    for (words, code, said) in
        [(&["config", "show", "--defaults"][..], 0, "shutdown_timeout"), (&["nonsense"], 2, "nonsense")]
    {
        let out = within(&home.dir, &by).args(["--home", "/h", "run", "--", "/hob"]).args(words).output().unwrap();
        assert_eq!(out.status.code(), Some(code), "{}", text(&out));
        assert!(text(&out).contains(said), "{}", text(&out));
    }
}

#[test]
fn without_proc_hob_runs_and_says_what_it_lacks() {
    let able = Command::new("unshare").args(["-m", "umount", "-l", "/proc"]).output();
    if !able.is_ok_and(|out| out.status.success()) {
        return skip("only root can take /proc away");
    }
    let mut home = Home::new("{}");
    let listen = format!("unix:{}", home.path("l.sock").display());
    let service = serde_json::json!({ "command": "exec sleep 1000", "listen": listen, "stop_timeout": "5s" });
    home.write_config(&serde_json::json!({ "services": { "s": service } }).to_string());
    home.start_by(&["unshare", "-m", "sh", "-c", "umount -l /proc && exec \"$@\"", "sh"]);
    home.wait_state("s", "running");
    assert!(home.read("logs/hob.log").contains("no process can be looked at"));
    home.ok(&["restart", "s"]);
    kill("KILL", home.pids().0);
    home.wait_state("s", "running");
    home.ok(&["stop"]);
    assert!(home.wait_end().success());
    assert!(!exists(&home.path("l.sock")), "what it made is removed");
}
