//! A file system that does not answer, as of a server that has gone: whatever of the config leads there waits alone.

use crate::support::*;
use serde_json::json;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};

/// A mount of which nobody answers the requests, until it is dropped.
struct Hung {
    at: PathBuf,
    holder: Child,
    held: Option<ChildStdin>,
}

impl Hung {
    /// Below a folder; `None` where the system does not let us mount it.
    fn mount(below: &Path) -> Option<Hung> {
        Hung::served(below, "echo up && exec cat", "")
    }

    /// The same with somebody who serves it as descriptor 3, and says `up`.
    fn served(below: &Path, by: &str, script: &str) -> Option<Hung> {
        let at = below.join("hung");
        std::fs::create_dir(&at).unwrap();
        let mount = "exec 3<>/dev/fuse && mount -i -t fuse \
                     -o fd=3,rootmode=40000,user_id=0,group_id=0,allow_other hob-test \"$1\"";
        let mut holder = Command::new("sh")
            .args(["-c", &format!("{mount} && {by}"), "sh"])
            .arg(&at)
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let held = holder.stdin.take();
        let hung = Hung { at, holder, held };
        if line == "up\n" {
            return Some(hung);
        }
        skip("no file system that does not answer can be mounted here: it takes root and /dev/fuse");
        None
    }

    fn path(&self, name: &str) -> String {
        self.at.join(name).display().to_string()
    }

    /// From now on every request fails, also those that wait.
    fn release(&mut self) {
        if self.held.take().is_some() {
            let _ = self.holder.wait();
        }
    }
}

impl Drop for Hung {
    fn drop(&mut self) {
        self.release();
        let _ = Command::new("umount").arg("-l").arg(&self.at).stderr(Stdio::null()).status();
        let _ = std::fs::remove_dir(&self.at);
    }
}

/// Runs a command that must not hang.
fn limited(home: &Home, args: &[&str]) -> Output {
    let mut child =
        home.command(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let begin = std::time::Instant::now();
    wait(&format!("hob {args:?} ends"), || {
        let ended = child.try_wait().unwrap().is_some();
        if !ended && begin.elapsed() > LIMIT / 2 {
            let _ = child.kill();
        }
        ended
    });
    child.wait_with_output().unwrap()
}

/// The same for one that has to succeed.
fn ok(home: &Home, args: &[&str]) -> String {
    let out = limited(home, args);
    assert!(out.status.success(), "hob {args:?}: {}\n{}", out.status, String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

#[test]
fn sockets_on_a_mount_that_hangs_hold_up_nobody_else() {
    let mut home = Home::new("{}");
    let Some(mut hung) = Hung::mount(&home.dir) else { return };
    let sleep = |more: serde_json::Value| {
        let mut service = json!({ "command": "exec sleep 1000", "autostart": false, "min_delay": "1ms" });
        service.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        service
    };
    let health = json!({ "unix": hung.path("h"), "every": "100ms", "timeout": "100ms", "retries": 1000 });
    let config = json!({ "daemon": { "heartbeat": "1s" }, "services": {
        "ok": { "command": "exec sleep 1000" },
        "ready": sleep(json!({ "ready": { "socket": hung.path("r") } })),
        "health": sleep(json!({ "health": health })),
        "listen": sleep(json!({ "listen": format!("unix:{}", hung.path("l")) })),
        "demand": sleep(json!({ "listen": format!("unix:{}", hung.path("d")), "on_demand": true })),
    } });
    home.write_config(&config.to_string());
    home.start(&[]);
    home.wait_state("ok", "running");
    let (daemon, _) = home.pids();
    ok(&home, &["start", "ready", "health", "listen", "demand", "--no-wait"]);
    ok(&home, &["ping"]);
    ok(&home, &["restart", "ok"]);
    wait("the check has failed", || ok(&home, &["status"]).contains("unhealthy"));
    let told = |name: &str| ok(&home, &["why", name]);
    for name in ["listen", "demand"] {
        wait("it is said what is waited for", || told(name).contains("its path does not answer"));
    }
    assert_eq!(home.state("ready"), "starting");
    ok(&home, &["stop", "ready", "health", "listen", "demand"]);
    assert_eq!(home.pids().0, daemon, "it was not taken for hung");
    ok(&home, &["start", "listen", "demand", "--no-wait"]);
    hung.release();
    wait("it is said that nothing is mounted", || told("listen").contains("not connected"));
    ok(&home, &["stop"]);
    assert!(home.wait_end().success());
}

#[test]
fn hob_ends_while_a_mount_hangs() {
    let mut home = Home::new("{}");
    let Some(hung) = Hung::mount(&home.dir) else { return };
    let config = json!({ "services": {
        "listen": { "command": "exec sleep 1000", "listen": format!("unix:{}", hung.path("l")) },
        "ready": { "command": "exec sleep 1000", "ready": { "socket": hung.path("r") } },
        "folder": { "command": "exec sleep 1000", "cwd": hung.path("d") },
    } });
    home.write_config(&config.to_string());
    home.start(&[]);
    home.wait_state("ready", "starting");
    ok(&home, &["stop"]);
    assert!(home.wait_end().success());
    assert!(!home.read("logs/hob.log").contains("does not end"), "{}", home.read("logs/hob.log"));
}

#[test]
fn a_start_that_hangs_can_be_stopped_restarted_and_shut_down() {
    let mut home = Home::new("{}");
    let Some(mut hung) = Hung::mount(&home.dir) else { return };
    let config = json!({ "services": {
        "folder": { "command": "exec sleep 1000", "cwd": hung.path("d"), "restart": "never" },
        "check": { "command": "exec sleep 1000", "ready": { "command": [hung.path("c")] } },
        "ok": { "command": "exec sleep 1000" },
    } });
    home.write_config(&config.to_string());
    home.start(&[]);
    home.wait_state("ok", "running");
    ok(&home, &["restart", "folder", "--no-wait"]);
    ok(&home, &["stop", "folder", "check"]);
    for name in ["folder", "check"] {
        assert_eq!(home.state(name), "stopped", "{name}");
    }
    ok(&home, &["start", "folder", "check", "--no-wait"]);
    assert_eq!(home.state("folder"), "starting", "the thread that hangs is waited for");
    hung.release();
    wait("each start is told once", || home.state("folder") == "failed");
    let events = home.call("event.history", r#"{"kinds": ["service.started", "service.start_failed"], "limit": 100}"#);
    let of = |name: &str| events["events"].as_array().unwrap().iter().filter(|e| e["name"] == name).count();
    assert_eq!(of("folder"), 3, "{events}");
    ok(&home, &["stop"]);
    assert!(home.wait_end().success());
}

#[test]
fn a_config_or_program_that_does_not_answer_is_told_and_holds_up_nothing_after_it() {
    let mut home = Home::new(r#"{ "services": { "ok": { "command": "exec sleep 1000" } } }"#);
    let Some(mut hung) = Hung::mount(&home.dir) else { return };
    home.start(&[]);
    home.wait_state("ok", "running");
    let config = home.path("hob.json");
    std::fs::remove_file(&config).unwrap();
    std::os::unix::fs::symlink(hung.path("hob.json"), &config).unwrap();
    let refused = |method: &str, params: serde_json::Value, why: &str| {
        let out = limited(&home, &["call", method, &params.to_string()]);
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(!out.status.success() && said.contains(why), "{said}");
    };
    for _ in 0..7 {
        refused("daemon.reload", json!({}), "hob.json does not answer");
        refused("daemon.upgrade", json!({ "binary": hung.path("hob") }), "does not answer");
    }
    // Whatever else takes a thread goes on.
    refused("daemon.upgrade", json!({ "binary": "/dev/null" }), "not a regular file");
    ok(&home, &["restart", "ok"]);
    ok(&home, &["logs", "ok"]);
    hung.release();
    wait("the late answer is taken", || home.read("logs/hob.log").contains("reading the config came late"));
    std::fs::remove_file(&config).unwrap();
    home.write_config(r#"{ "services": { "new": { "command": "exec sleep 1000" } } }"#);
    ok(&home, &["reload"]);
    home.wait_state("new", "running");
    ok(&home, &["stop"]);
    assert!(home.wait_end().success());
}

/// A file system with one program, which answers until somebody wants to execute that: the kernel lets go of nobody who
/// waits for such an answer, not even of the killed.
const STUCK: &str = r#"
import os, struct, sys, threading
def end():
    sys.stdin.read()
    os._exit(0)
threading.Thread(target=end, daemon=True).start()
def attr(node):
    mode = 0o40755 if node == 1 else 0o100755
    return struct.pack("<QQQQQQIIIIIIIIII", node, 4096, 8, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)
print("up", flush=True)
while True:
    r = os.read(3, 1 << 20)
    _, op, unique, node = struct.unpack_from("<IIQQ", r)
    error, out = 0, b""
    if op == 26:
        out = struct.pack("<IIIIHHIIHHIIIIIIII", 7, 31, 0, 0, 0, 0, 4096, 0, 0, 0, *[0] * 8)[:64]
    elif op == 1:
        out = struct.pack("<QQQQII", 2, 0, 1000, 1000, 0, 0) + attr(2)
    elif op == 3:
        out = struct.pack("<QII", 1000, 0, 0) + attr(node)
    elif op in (2, 14, 36, 42):
        continue
    else:
        error = -38
    os.write(3, struct.pack("<IiQ", 16 + len(out), error, unique) + out)
"#;

#[test]
fn a_program_that_the_kernel_waits_for_is_named_and_its_stop_answered() {
    let mut home = Home::new("{}");
    if Command::new("python3").arg("-V").output().is_err() {
        return skip("there is no python3 to serve a file system with");
    }
    let Some(mut stuck) = Hung::served(&home.dir, "exec python3 -c \"$2\"", STUCK) else { return };
    let program = stuck.path("program");
    let config = json!({ "services": {
        "ok": { "command": "exec sleep 1000" },
        "s": { "command": [program], "restart": "never", "autostart": false },
    } });
    home.write_config(&config.to_string());
    home.start(&[]);
    home.wait_state("ok", "running");
    ok(&home, &["start", "s", "--no-wait"]);
    let waits = format!("its start still waits for {program}");
    wait("it is said what is waited for", || ok(&home, &["why", "s"]).contains(&waits));
    assert_eq!(home.state("s"), "starting");
    ok(&home, &["stop", "s"]);
    assert_eq!(home.state("s"), "stopped");
    assert!(home.read("logs/hob.log").contains(&waits));
    ok(&home, &["restart", "ok"]);
    // What the kernel does not let go of holds nothing of hob's.
    ok(&home, &["stop"]);
    assert!(home.wait_end().success());
    home.start(&[]);
    home.wait_state("ok", "running");
    stuck.release();
    home.write_config(&config.to_string().replace(&program, "/bin/sleep\",\"1000"));
    ok(&home, &["reload"]);
    ok(&home, &["start", "s"]);
    assert_eq!(home.state("s"), "running");
    ok(&home, &["stop"]);
    assert!(home.wait_end().success());
}
