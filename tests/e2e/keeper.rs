//! What hob owes to whoever started it and is no client: its standard error and its descriptors are theirs, its pid
//! file is for their scripts.

use crate::support::*;
use std::fs::File;
use std::io::Write as _;
use std::process::{Command, Stdio};

#[test]
fn a_reader_of_standard_error_that_does_not_read_holds_nobody_up() {
    let home = Home::new("{}");
    let (read, write) = hob::sys::pipe::output().unwrap();
    let room = hob::sys::pipe::set_capacity(&read, 4096).unwrap();
    File::from(write.try_clone().unwrap()).write_all(&vec![b'x'; room]).unwrap();
    let mut hob = home.command(&["run"]);
    let mut hob = hob.stdin(Stdio::null()).stdout(Stdio::null()).stderr(write).spawn().unwrap();
    wait("hob answers", || home.hob(&["ping"]).status.success());
    for _ in 0..3 {
        let (daemon, _) = home.pids();
        kill("KILL", daemon);
        wait("the next daemon answers", || home.hob(&["ping"]).status.success() && home.pids().0 != daemon);
    }
    assert!(home.read("logs/hob.log").contains("ended by SIGKILL"));
    kill("TERM", hob.id());
    wait("hob ends", || hob.try_wait().unwrap().is_some());
    assert_eq!(hob.wait().unwrap().code(), Some(0));
}

#[test]
fn lines_of_the_keeper_are_written_as_the_config_says() {
    let mut home = Home::new(r#"{ "daemon": { "log": { "format": "json", "level": "error" } } }"#);
    home.start(&[]);
    let (daemon, _) = home.pids();
    kill("KILL", daemon);
    wait("the next daemon answers", || home.hob(&["ping"]).status.success() && home.pids().0 != daemon);
    let (daemon, _) = home.pids();
    kill("ABRT", daemon);
    wait("the death is told", || home.read("logs/hob.log").contains("ended by SIGABRT"));
    let text = home.read("logs/hob.log") + &home.read("stderr");
    for line in text.lines() {
        let line: serde_json::Value = serde_json::from_str(line).expect(&text);
        assert_eq!(line["level"], "error", "neither the start of a daemon nor a kill from outside is one: {text}");
    }
}

#[test]
fn a_journal_gets_the_level_of_the_keepers_lines() {
    use std::os::unix::fs::MetadataExt as _;
    let home = Home::new("{}");
    let errors = File::create(home.path("stderr")).unwrap();
    let meta = errors.metadata().unwrap();
    let mut hob = home.command(&["run"]);
    hob.env("JOURNAL_STREAM", format!("{}:{}", meta.dev(), meta.ino()));
    let mut hob = hob.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors).spawn().unwrap();
    wait("hob answers", || home.hob(&["ping"]).status.success());
    let (daemon, _) = home.pids();
    kill("ABRT", daemon);
    wait("the death is told", || home.read("stderr").contains("ended by SIGABRT"));
    let text = home.read("stderr");
    assert!(text.contains("<3>keeper: daemon 1 (pid "), "{text}");
    assert!(text.contains("<6>keeper: started daemon 1 with pid "), "{text}");
    home.ok(&["stop"]);
    hob.wait().unwrap();
}

#[test]
fn what_the_caller_has_open_is_not_kept_open() {
    for how in ["start", "run"] {
        let home = Home::new("{}");
        let held = home.path("held");
        let hob = home.command(&[how]);
        let mut c = Command::new("sh");
        c.args(["-c", "exec 9>\"$0\"; exec \"$@\""]).arg(&held).arg(hob.get_program()).args(hob.get_args());
        let mut child = c.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait("hob answers", || home.hob(&["ping"]).status.success());
        assert!(exists(&held));
        let (daemon, keeper) = home.pids();
        for pid in [daemon, keeper] {
            let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
            let open: Vec<_> = open.filter_map(|e| std::fs::read_link(e.unwrap().path()).ok()).collect();
            assert!(!open.is_empty() && !open.contains(&held), "hob {how}: {open:?}");
        }
        home.ok(&["stop"]);
        child.wait().unwrap();
    }
}

#[test]
fn a_pid_file_is_right_or_is_not_there_and_a_start_waits_for_it() {
    let home = Home::new("{}");
    // A folder in the way, as a full disk would be.
    let way = home.path("run/hob.pid.new");
    std::fs::create_dir_all(&way).unwrap();
    std::fs::write(home.path("run/hob.pid"), "1\n").unwrap();
    let mut start = home.command(&["start"]);
    let mut start = start.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait("hob answers", || home.hob(&["ping"]).status.success());
    assert!(!exists(&home.path("run/hob.pid")), "it names another process");
    std::fs::remove_dir(&way).unwrap();
    assert!(start.wait().unwrap().success());
    assert_eq!(home.read("run/hob.pid"), format!("{}\n", home.pids().1));
    home.ok(&["stop"]);
}
