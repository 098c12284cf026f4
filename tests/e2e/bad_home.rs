//! Homes that are no good: links, files in the way, other owners, long and odd paths, full and read-only disks, and
//! one that is removed under a hob that runs.

use crate::support::*;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::{Command, Output, Stdio};

const ONE: &str = r#"{ "services": { "s": { "command": "exec sleep 1000" } } }"#;

fn hob_of(home: &Home, dir: &Path, args: &[&str]) -> Output {
    home.bare_command(&["--home"]).arg(dir).args(args).output().unwrap()
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|m| m.uid() == 0)
}

#[test]
fn a_home_may_be_a_link_and_is_one_home() {
    let home = Home::new(ONE);
    let link = home.dir.with_extension("link");
    symlink(&home.dir, &link).unwrap();
    let start = hob_of(&home, &link, &["start"]);
    fs::remove_file(&link).unwrap();
    assert!(start.status.success(), "{}", String::from_utf8_lossy(&start.stderr));
    home.wait_state("s", "running");
    assert!(home.ok(&["start"]).contains("already runs"));
    let (pid, (daemon, keeper)) = (home.pid("s"), home.pids());
    for process in [daemon, keeper] {
        kill("KILL", process);
    }
    // What the one name left behind the other name finds.
    home.ok(&["stop", "--force"]);
    assert!(!alive(pid));
}

#[test]
fn what_is_in_the_way_is_named_at_once() {
    let cases: [(&str, bool, &str); 7] = [
        ("state", false, "is not a folder"),
        ("logs", false, "is not a folder"),
        ("run", false, "is not a folder"),
        ("run/hob.sock", false, "is not a socket"),
        ("run/hob.sock", true, "is not a socket"),
        ("run/hob.lock", true, "hob.lock"),
        ("run/hob.lock", true, "cannot lock"),
    ];
    for (path, folder, say) in cases {
        let home = Home::new(ONE);
        let path = home.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        if folder { fs::create_dir(&path) } else { fs::write(&path, "") }.unwrap();
        // A test must not be fast, but this must not be the limit of a start, which is 20 s.
        for args in [&["start", "--timeout", "1h"][..], &["run"]] {
            let (code, said) = home.fails(args);
            assert!(said.contains(say) && said.contains(&path.display().to_string()), "{args:?} {code}: {said}");
        }
        if folder { fs::remove_dir(&path) } else { fs::remove_file(&path) }.unwrap();
    }
    let home = Home::new(ONE);
    let nowhere = home.path("nowhere");
    symlink(home.path("missing"), &nowhere).unwrap();
    let said = String::from_utf8_lossy(&hob_of(&home, &nowhere, &["start"]).stderr).into_owned();
    assert!(said.contains("a link that leads nowhere"), "{said}");
}

#[test]
fn files_that_hob_only_writes_do_not_keep_it_from_running() {
    let mut home = Home::new(r#"{ "services": { "s": { "command": "echo hi; exec sleep 1000" } } }"#);
    for dir in ["run/hob.pid/x", "run/heartbeat", "logs/hob.log", "logs/services/s.log", "state/events.log"] {
        fs::create_dir_all(home.path(dir)).unwrap();
    }
    home.start(&[]);
    home.wait_state("s", "running");
    let (_, said) = home.fails(&["logs", "s"]);
    assert!(said.contains("not a regular file"), "{said}");
    home.ok(&["restart", "s"]);
    home.ok(&["stop"]);
    assert!(home.wait_end().success());
}

#[test]
fn paths_of_any_length_and_letters_work() {
    let long = format!("{}/{}", "d".repeat(100), "e".repeat(100));
    for name in [&long, "a b", "caf\u{e9}", "line\nfeed", "%s%n", "-x", "quote'\"", "tab\t"] {
        let home = Home::new(ONE);
        let dir = home.dir.join(name);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("hob.json"), ONE).unwrap();
        for args in [&["start"][..], &["status"], &["restart", "s"], &["logs", "s"], &["reload"], &["stop"]] {
            let out = hob_of(&home, &dir, args);
            assert!(out.status.success(), "{name:?} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
        }
    }
    let home = Home::new(ONE);
    let name = home.path(&"s".repeat(300)).display().to_string();
    let (_, said) = home.fails(&["--socket", &name, "start", "--timeout", "1h"]);
    assert!(said.contains("File name too long") || said.contains("at most"), "{said}");
    let (_, said) = home.fails(&["--socket", &format!("@{}", "s".repeat(300)), "start", "--timeout", "1h"]);
    assert!(said.contains("at most"), "{said}");
}

#[test]
fn somebody_elses_home_is_refused_and_stays_as_it_is() {
    let able = Command::new("setpriv").args(["--reuid=65534", "--clear-groups", "true"]).output();
    if !is_root() || !able.is_ok_and(|o| o.status.success()) {
        return skip("only root can try the home of another user");
    }
    let home = Home::new(ONE);
    let copy = home.dir.with_extension("hob");
    copy_hob(&copy);
    let other = |args: &[&str]| {
        let mut c = Command::new("setpriv");
        c.args(["--reuid=65534", "--regid=65534", "--clear-groups", "env", "-i", "HOME=/", "PATH=/usr/bin:/bin"]);
        c.arg(&copy).arg("--home").arg(&home.dir).args(args).output().unwrap()
    };
    for args in [&["start"][..], &["run"]] {
        let out = other(args);
        assert_eq!(out.status.code(), Some(5), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    }
    home.ok(&["start"]);
    home.wait_state("s", "running");
    let pid = home.pid("s");
    for args in [&["stop"][..], &["stop", "--force"], &["stop", "s"], &["status"]] {
        let out = other(args);
        assert!(!out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stdout));
    }
    assert_eq!(home.pid("s"), pid);
    fs::remove_file(copy).unwrap();
}

#[test]
fn a_removed_home_hides_no_hob_and_makes_no_second_one() {
    let mut home = Home::running(ONE);
    home.wait_state("s", "running");
    let (pid, (daemon, keeper)) = (home.pid("s"), home.pids());
    fs::remove_dir_all(&home.dir).unwrap();
    let (_, said) = home.fails(&["start"]);
    assert!(said.contains("still runs") && said.contains(&keeper.to_string()), "{said}");
    let (_, said) = home.fails(&["status"]);
    assert!(said.contains(&keeper.to_string()), "{said}");
    assert!(alive(pid) && alive(daemon));
    home.ok(&["stop"]);
    home.wait_end();
    assert!(!alive(pid) && !alive(daemon) && !alive(keeper));
}

#[test]
fn a_removed_run_folder_hides_no_hob_and_makes_no_second_one() {
    let mut home = Home::running(ONE);
    home.wait_state("s", "running");
    let (pid, (daemon, keeper)) = (home.pid("s"), home.pids());
    fs::remove_dir_all(home.path("run")).unwrap();
    for args in [&["run"][..], &["start", "--timeout", "1s"], &["status"]] {
        let (_, said) = home.fails(args);
        assert!(said.contains(&keeper.to_string()), "{args:?}: {said}");
    }
    assert!(alive(pid) && alive(daemon));
    home.ok(&["stop"]);
    home.wait_end();
    home.start(&[]);
    home.wait_state("s", "running");
}

/// Mounts what `args` say at this folder, until it is dropped.
struct Mount(std::path::PathBuf);

impl Mount {
    fn new(at: &Path, args: &[&str]) -> Option<Mount> {
        let done = is_root() && Command::new("mount").args(args).arg(at).output().is_ok_and(|o| o.status.success());
        done.then(|| Mount(at.to_owned()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

/// Gives a home a disk of its own that is soon full, if that can be.
fn small_disk(home: &Home) -> Option<Mount> {
    let mount = Mount::new(&home.dir, &["-t", "tmpfs", "-o", "size=4m", "hob-test"]);
    if mount.is_none() {
        skip("no small file system can be mounted here, so a full disk is not tried");
    }
    mount
}

/// Leaves nothing free on the file system of a home.
fn fill(home: &Home) {
    let mut file = fs::File::create(home.path("fill")).unwrap();
    for part in [vec![0; 65536], vec![0; 512]] {
        while std::io::Write::write_all(&mut file, &part).is_ok() {}
    }
}

#[test]
fn a_full_disk_stops_no_service_and_recovers_by_itself() {
    let mut home = Home::new(ONE);
    let Some(_mount) = small_disk(&home) else { return };
    home.write_config(
        r#"{ "services": { "s": { "command": "while :; do echo x; sleep 0.05; done" },
                           "other": { "command": "exec sleep 1000" } } }"#,
    );
    // Nothing is free from the start on.
    fill(&home);
    home.start(&[]);
    home.wait_state("s", "running");
    let status = home.ok(&["status"]);
    assert!(status.contains("problem: the journal is behind") && status.contains("No space left"), "{status}");
    let pid = home.pid("s");
    kill("KILL", home.pids().0);
    home.wait_state("s", "running");
    // A stop is done and answered, and says what is not promised.
    let said = home.ok(&["stop", "other"]);
    assert!(said.contains("the journal cannot be written"), "{said}");
    assert_eq!(home.state("other"), "stopped");
    fs::remove_file(home.path("fill")).unwrap();
    wait("the problem is over", || !home.ok(&["status"]).contains("problem:"));
    home.ok(&["restart", "s"]);
    assert!(!alive(pid) && alive(home.pid("s")));
    // And when it becomes full while hob runs.
    fill(&home);
    let lost = "output is dropped, as its log cannot take it: s";
    wait("it is told", || home.ok(&["status"]).lines().any(|l| l == format!("problem: {lost}")));
    assert!(home.ok(&["status", "--json"]).contains(lost));
    assert!(home.call("daemon.health", "{}")["problems"].as_array().unwrap().iter().any(|p| p == lost));
    let (code, said) = home.fails(&["health"]);
    assert!(code == 3 && said.is_empty(), "{code} {said}");
    let pid = home.pid("s");
    kill("KILL", home.pids().0);
    assert_eq!((home.state("s").as_str(), home.pid("s")), ("running", pid), "it is taken over");
    home.ok(&["stop"]);
    assert!(home.wait_end().success());
}

#[test]
fn while_something_does_not_fit_the_disk_new_work_is_refused() {
    let home = Home::new("{}");
    let Some(_mount) = small_disk(&home) else { return };
    home.write_config(r#"{ "groups": { "default": { "paused": true } } }"#);
    home.ok(&["start"]);
    let mut large = home.command(&["add", "--array", "1-20000", "--", "echo", "{}"]).spawn().unwrap();
    // While it is busy with that a status may give up.
    let status = || String::from_utf8(home.hob(&["status"]).stdout).unwrap();
    wait("it is told", || status().contains("problem: the disk of the journal is full"));
    let (_, said) = home.fails(&["add", "echo more"]);
    assert!(said.contains("disk"), "{said}");
    large.kill().unwrap();
    large.wait().unwrap();
    home.ok(&["stop"]);
}

#[test]
fn a_start_on_a_full_disk_says_so_and_does_not_wait_for_a_pid_file() {
    let home = Home::new("{}");
    let Some(_mount) = small_disk(&home) else { return };
    home.write_config("{}");
    fill(&home);
    let out = home.hob(&["start"]);
    let said = String::from_utf8(out.stderr).unwrap();
    assert!(out.status.success() && said.contains("is not written yet, as its disk is full"), "{said}");
    assert!(String::from_utf8(out.stdout).unwrap().starts_with("hob runs, pid "));
    fs::remove_file(home.path("fill")).unwrap();
    wait("the pid file is written when there is room", || home.path("run/hob.pid").exists());
    home.ok(&["stop"]);
    fs::remove_file(home.path("hob.json")).unwrap();
    fill(&home);
    let said = String::from_utf8(home.hob(&["start"]).stderr).unwrap();
    assert!(said.contains("hob.json: No space left on device"), "{said}");
    home.ok(&["stop"]);
}

#[test]
fn a_start_on_a_disk_without_inodes_says_so_and_does_not_wait_for_a_pid_file() {
    let home = Home::new("{}");
    let Some(_mount) = Mount::new(&home.dir, &["-t", "tmpfs", "-o", "size=64m,nr_inodes=64", "hob-test"]) else {
        return skip("nothing can be mounted here, so a disk without inodes is not tried");
    };
    home.write_config("{}");
    home.ok(&["start"]);
    home.ok(&["stop"]);
    let names = (0..64).map(|n| home.path(&format!("fill{n}")));
    let mut fill: Vec<_> = names.take_while(|name| fs::write(name, "").is_ok()).collect();
    let (_, said) = home.fails(&["start"]);
    assert!(said.contains("cannot listen at") && said.contains("No space left"), "{said}");
    // What has not come up has left nothing that did not end properly.
    let said = String::from_utf8(home.hob(&["stop"]).stderr).unwrap();
    assert_eq!(said, "");
    // The last one goes to the socket, and none is left for the pid file.
    fs::remove_file(fill.pop().unwrap()).unwrap();
    let out = home.hob(&["start"]);
    let said = String::from_utf8(out.stderr).unwrap();
    assert!(out.status.success() && said.contains("is not written yet, as its disk is full"), "{said}");
    assert!(!home.path("run/hob.pid").exists());
    let told = String::from_utf8(home.hob(&["doctor"]).stdout).unwrap();
    assert!(told.contains("no inode is free") && told.contains("df -i"), "{told}");
    fs::remove_file(fill.pop().unwrap()).unwrap();
    wait("the pid file is written when there is room", || home.path("run/hob.pid").exists());
    home.ok(&["stop"]);
}

#[test]
fn on_a_full_disk_the_output_of_the_command_still_comes_out() {
    let home = Home::new("{}");
    let Some(_mount) = small_disk(&home) else { return };
    home.write_config("{}");
    fill(&home);
    let run = |script: &str| {
        let mut run = home.command(&["run", "--", "sh", "-c", script]);
        run.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let out = run("echo hi; echo err >&2; exit 3").wait_with_output().unwrap();
    let said = String::from_utf8(out.stderr).unwrap();
    assert_eq!((out.status.code(), out.stdout.as_slice()), (Some(3), &b"hi\n"[..]), "{said}");
    assert!(said.lines().any(|l| l == "err"), "{said}");
    // More than goes into pipes, and a reader who takes a rest.
    let mut hob = run("seq 1 300000; printf '\\377\\000'; exit 4");
    let mut out = Vec::new();
    wait("a part of it comes", || hob.stdout.as_mut().unwrap().take(10_000).read_to_end(&mut out).unwrap() == 10_000);
    let rest = hob.wait_with_output().unwrap();
    out.extend(rest.stdout);
    let mut want: Vec<u8> = (1..=300_000).flat_map(|n| format!("{n}\n").into_bytes()).collect();
    want.extend(b"\xff\0");
    assert!(out == want, "{} of {} bytes", out.len(), want.len());
    assert_eq!(rest.status.code(), Some(4));
}

#[test]
fn output_of_tasks_that_cannot_be_kept_is_told_with_them() {
    let mut home = Home::new("{}");
    let Some(_mount) = small_disk(&home) else { return };
    home.write_config("{}");
    home.start(&[]);
    // The journal has a reserve, so that tasks are still taken.
    fill(&home);
    let (code, said) = home.fails(&["add", "-f", "echo lost; exit 3"]);
    assert!(code == 3 && said.contains("the output of task 1 could not be kept: [hob: 5 bytes dropped]"), "{said}");
    home.ok(&["add", "-w", "echo lost too"]);
    for (id, bytes) in [("1", 5), ("2", 9)] {
        let mark = format!("[hob: {bytes} bytes dropped]");
        for command in [&["task", "show", id][..], &["why", id]] {
            assert!(home.ok(command).contains(&mark), "{command:?}");
        }
        let out = home.hob(&["task", "output", id]);
        assert!(out.stdout.is_empty() && String::from_utf8(out.stderr).unwrap().contains(&mark), "{id}");
    }
    fs::remove_file(home.path("fill")).unwrap();
    home.ok(&["add", "-w", "echo kept"]);
    assert_eq!(home.ok(&["task", "output", "3"]), "kept\n");
    assert!(!home.ok(&["task", "show", "3"]).contains("dropped"));
    home.ok(&["stop"]);
    home.wait_end();
}

#[test]
fn a_disk_that_becomes_read_only_stops_no_service() {
    let mut home = Home::running(ONE);
    home.wait_state("s", "running");
    let pid = home.pid("s");
    // What is open can still be written, as it cannot after an error of a real disk; nothing can be opened.
    let bound = Mount::new(&home.dir, &["--bind", &home.dir.display().to_string()]);
    let read_only = Command::new("mount").args(["-o", "remount,ro,bind"]).arg(&home.dir).output();
    if bound.is_none() || !read_only.is_ok_and(|o| o.status.success()) {
        return skip("nothing can be mounted here, so a read-only disk is not tried");
    }
    for _ in 0..2 {
        kill("KILL", home.pids().0);
        assert_eq!((home.state("s").as_str(), home.pid("s")), ("running", pid), "it is taken over");
    }
    assert!(home.ok(&["status"]).contains("problem: "));
    home.ok(&["stop", "s"]);
    home.ok(&["stop"]);
    home.wait_end();
    let (code, said) = home.fails(&["start"]);
    assert!(said.contains("Read-only file system") && said.contains("--home DIR"), "{code} {said}");
    drop(bound);
    home.start(&[]);
}
