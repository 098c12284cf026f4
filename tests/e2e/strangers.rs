//! What other users of the machine try: to pass as a job, to have hob change files of root, to hold it up.

use crate::job::spec;
use crate::peers::can_change_user;
use crate::support::*;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::process::{Command, Output};

const OTHER: &str = r#""other": { "command": "exec sleep 1000", "min_delay": "0s" }"#;

/// The environment that a process was started with.
fn variable(pid: u32, name: &str) -> String {
    let text = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
    let text = String::from_utf8(text).unwrap();
    let found = text.split('\0').find_map(|v| v.strip_prefix(name)?.strip_prefix('=').map(str::to_owned));
    found.unwrap()
}

/// Soft limit of a process as the prlimit program prints it.
fn real_time_limit(pid: u32) -> Option<String> {
    let pid = pid.to_string();
    let args = ["--pid", &pid, "--rttime", "--raw", "--noheadings", "--output", "HARD"];
    let out = Command::new("prlimit").args(args).output().ok()?;
    Some(String::from_utf8(out.stdout).unwrap().trim().to_owned()).filter(|l| l.parse::<u64>().is_ok())
}

/// Where control groups of version 2 are mounted.
fn groups_at() -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
    let of = |line: &str| {
        let mut fields = line.split(' ').skip(1);
        let at = fields.next()?;
        (fields.next()? == "cgroup2").then(|| PathBuf::from(at))
    };
    mounts.lines().find_map(of)
}

fn said(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

#[test]
fn a_stranger_that_pretends_to_be_a_job_is_a_stranger() {
    let probe = Home::new("{}");
    if !can_change_user(&probe) {
        return;
    }
    let daemon = r#""daemon": { "access": [{"user": 4001, "level": "read"}] }"#;
    let job = r#""job": { "command": "exec sleep 1000", "access": "admin" }"#;
    for cgroup in ["on", "off"] {
        let config = format!(r#"{{ {daemon}, "services": {{ {job}, {OTHER} }} }}"#);
        let mut home = Home::with_env(&config, "HOB_CGROUP", cgroup);
        home.start(&[]);
        home.wait_state("job", "running");
        let pid = home.pid("job");
        let run = format!("HOB_RUN={}", variable(pid, "HOB_RUN"));
        let stop = home.command(&["stop", "other"]);
        // By its environment and by the mark of a run.
        let mark = real_time_limit(pid).map(|mark| format!("--rttime={mark}:{mark}"));
        for (uid, wanted) in [(4001, "needs operate access and you have read"), (4002, "user 4002 has no access")] {
            let mut c = Command::new("setpriv");
            c.args(["--reuid", &uid.to_string(), "--regid", "65534", "--clear-groups"]);
            if let Some(mark) = &mark {
                c.args(["prlimit", mark]);
            }
            c.args(["env", &run]).arg(stop.get_program()).args(stop.get_args());
            let out = c.output().unwrap();
            assert!(!out.status.success() && said(&out).contains(wanted), "cgroup {cgroup}: {}", said(&out));
        }
        // By a control group of the same name elsewhere.
        let own = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        let path = own.lines().find_map(|l| l.strip_prefix("0::")).filter(|p| p.contains("/hob-"));
        if let (Some(at), Some((_, tail))) = (groups_at(), path.and_then(|p| p.rsplit_once("/hob-"))) {
            let mine = at.join(format!("hob-e2e-{}", std::process::id()));
            let forged = mine.join(format!("hob-{tail}"));
            std::fs::create_dir_all(&forged).unwrap();
            let enter = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", forged.display());
            let mut c = Command::new("sh");
            c.args(["-c", &enter, "sh", "setpriv", "--reuid", "4002", "--regid", "65534", "--clear-groups"]);
            let out = c.arg(stop.get_program()).args(stop.get_args()).output().unwrap();
            for dir in forged.ancestors().take(3) {
                wait("the group is empty", || std::fs::remove_dir(dir).is_ok());
            }
            assert!(said(&out).contains("user 4002 has no access"), "{}", said(&out));
        } else {
            skip("no control groups here");
        }
        assert_eq!(home.service("other")["desired"], "up");
    }
}

#[test]
fn a_job_that_becomes_another_user_is_that_user_and_no_more() {
    let probe = Home::new("{}");
    if !can_change_user(&probe) {
        return;
    }
    let daemon = r#""daemon": { "access": [{"user": 4001, "level": "operate"}] }"#;
    for (access, uid, wanted) in [
        ("read", 4001, "needs operate access and you have read"),
        ("admin", 4001, "needs admin access and you have operate"),
        ("admin", 4002, "user 4002 has no access to this hob"),
    ] {
        let ask = format!(
            "setpriv --reuid {uid} --regid 65534 --clear-groups sh -c '{HOB} stop other; {HOB} reload' 2>&1; \
             echo asked; exec sleep 1000"
        );
        let job = format!(r#""job": {{ "command": {ask:?}, "access": "{access}" }}"#);
        let home = Home::running(&format!(r#"{{ {daemon}, "services": {{ {job}, {OTHER} }} }}"#));
        wait("it has asked", || home.log("job").contains("asked"));
        assert!(home.log("job").contains(wanted), "{access} {uid}: {}", home.log("job"));
        let stopped = (access, uid) == ("admin", 4001);
        assert_eq!(home.service("other")["desired"], if stopped { "down" } else { "up" }, "{access} {uid}");
    }
}

#[test]
fn rights_of_a_socket_are_not_given_through_a_link() {
    let probe = Home::new("{}");
    if !can_change_user(&probe) {
        return;
    }
    let home = Home::new("{}");
    let folder = home.path("theirs");
    std::fs::create_dir(&folder).unwrap();
    let socket = folder.join("s");
    let config = |mode: &str| {
        let listen =
            format!(r#"[{{"unix": "{}", "user": "4001", "group": "65534", "mode": "{mode}"}}]"#, socket.display());
        format!(r#"{{ "services": {{ "s": {{ "command": "exec sleep 1000", "listen": {listen} }}, {OTHER} }} }}"#)
    };
    home.write_config(&config("0600"));
    let mut home = home;
    home.start(&[]);
    home.wait_state("s", "running");
    let file = |path: &PathBuf| {
        let found = path.metadata().unwrap();
        (found.uid(), found.mode() & 0o777)
    };
    assert_eq!(file(&socket), (4001, 0o600));
    let precious = home.path("precious");
    std::fs::write(&precious, "x").unwrap();
    std::fs::set_permissions(&precious, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::rename(&socket, folder.join("old")).unwrap();
    std::os::unix::fs::symlink(&precious, &socket).unwrap();
    home.write_config(&config("0666"));
    home.ok(&["reload"]);
    let out = home.hob(&["restart", "s"]);
    assert!(!out.status.success() && said(&out).contains("is not a socket"), "{}", said(&out));
    assert_eq!(file(&precious), (0, 0o600));
    std::fs::remove_file(&socket).unwrap();
    home.ok(&["restart", "s"]);
    assert_eq!(file(&socket), (4001, 0o666));
}

#[test]
fn a_service_that_speaks_without_end_leaves_the_others_their_turn() {
    let noise = format!(r#""noise": {{ {}, "ready": "notify" }}"#, spec("noise"));
    let home = Home::running(&format!(r#"{{ "services": {{ {noise}, {OTHER} }} }}"#));
    home.wait_state("noise", "running");
    for _ in 0..3 {
        home.ok(&["restart", "other"]);
        wait("it is heard", || home.service("noise")["status_text"].as_str().is_some_and(|t| t.starts_with("noise")));
    }
    home.ok(&["stop", "noise"]);
}

#[test]
fn a_word_after_many_that_say_nothing_is_heard() {
    let home = Home::running(&format!(r#"{{ "services": {{ "junk": {{ {}, "ready": "notify" }} }} }}"#, spec("junk")));
    for _ in 0..5 {
        home.wait_state("junk", "running");
        home.ok(&["restart", "junk"]);
    }
    let log = home.read("logs/hob.log");
    assert_eq!(log.matches("junk told more than 4096 bytes at once").count(), 1, "{log}");
}

#[test]
fn descriptors_that_a_client_sends_keep_nobody_waiting() {
    let home = Home::running("{}");
    let socket = std::os::unix::net::UnixStream::connect(home.path("run/hob.sock")).unwrap();
    let client = hob::sys::chan::Chan::from_fd(socket.into()).unwrap();
    let (mut reader, writer) = std::io::pipe().unwrap();
    // The kernel refuses them, or hob closes the connection.
    let sent = client.send(b"{", &[std::os::fd::AsFd::as_fd(&writer)]);
    drop(writer);
    assert_eq!(std::io::Read::read(&mut reader, &mut [0]).unwrap(), 0, "{sent:?}");
    home.ok(&["ping"]);
}

#[test]
fn what_a_person_may_not_see_stands_in_no_view_of_the_schedule_and_the_agents() {
    let task = r#"{"command": ["true"], "env": {"TOKEN": "hidden-1"}, "stdin": "hidden-2"}"#;
    let call = r#"{"method": "task.submit", "params": {"command": ["true"], "env": {"T": "hidden-3"}}}"#;
    let agent = r#"{"command": ["true"], "env": {"KEY": "hidden-4", "OTHER_env": "PATH"}}"#;
    let jobs = format!(
        r#"[{{"id": "t", "cron": "0 0 1 1 *", "action": {{"task": {task}}}}},
            {{"id": "c", "cron": "0 0 1 1 *", "action": {call}}}]"#
    );
    let home = Home::running(&format!(r#"{{ "agents": {{ "a": {agent} }}, "schedule": {{ "jobs": {jobs} }} }}"#));
    let mut views = vec![home.ok(&["config", "show"]), home.call("daemon.config", "{}").to_string()];
    for id in ["t", "c"] {
        views.push(home.call("schedule.get", &format!("{{\"id\": \"{id}\"}}")).to_string());
    }
    views.push(home.call("schedule.list", "{}").to_string());
    for view in &views {
        assert!(!view.contains("hidden"), "{view}");
    }
    assert!(views[..3].iter().all(|v| v.contains("TOKEN") && v.contains("***")), "{views:?}");
    assert!(views[0].contains("PATH"), "the name of a variable is none: {}", views[0]);
}

#[test]
fn values_of_secrets_stand_in_nothing_that_is_told_of_a_service() {
    let secret = "hunter2-hunter2";
    let secrets = format!(r#""env": {{"TOKEN": "{secret}"}}, "secrets": ["TOKEN"]"#);
    let health = r#"{"command": "echo the token is $TOKEN; exit 1", "every": "100ms", "retries": 2}"#;
    let ill =
        format!(r#""ill": {{ "command": "exec sleep 1000", "restart": "never", {secrets}, "health": {health} }}"#);
    let speaks = format!(
        r#""speaks": {{ {}, "ready": "notify", "secrets": ["TOKEN"] }}"#,
        spec("secret").replace("\"env\": {", &format!("\"env\": {{\"TOKEN\": \"{secret}\", "))
    );
    let home = Home::running(&format!(r#"{{ "services": {{ {ill}, {speaks} }} }}"#));
    wait("it is unhealthy", || home.call("event.history", "{}").to_string().contains("service.unhealthy"));
    home.wait_state("speaks", "running");
    let mut told = vec![home.call("event.history", "{}").to_string(), home.read("logs/hob.log")];
    for name in ["ill", "speaks"] {
        told.push(home.service(name).to_string());
        told.push(home.ok(&["why", name]));
    }
    told.push(home.call("service.list", "{}").to_string());
    told.push(home.call("daemon.status", "{}").to_string());
    for entry in std::fs::read_dir(home.path("state")).unwrap().flatten() {
        let file = entry.file_name().to_string_lossy().into_owned();
        if file.starts_with("events") {
            told.push(home.read(&format!("state/{file}")));
        }
    }
    for text in &told {
        assert!(!text.contains(secret), "{text}");
    }
    assert!(told[0].contains("the token is ***"), "{}", told[0]);
    assert_eq!(home.service("speaks")["status_text"], "it is ***");
}

#[test]
fn the_socket_is_open_as_long_as_somebody_else_has_to_come_in() {
    let probe = Home::new("{}");
    if !can_change_user(&probe) {
        return;
    }
    let job = r#""job": { "command": "exec sleep 1000", "user": "4003", "group": "65534" }"#;
    let home = Home::running(&format!(r#"{{ "services": {{ {job}, {OTHER} }} }}"#));
    let mode = || home.path("run/hob.sock").metadata().unwrap().mode() & 0o777;
    let examined = || home.hob(&["doctor", "--json"]).stdout;
    let complains = || String::from_utf8(examined()).unwrap().contains("hob.sock has mode");
    home.wait_state("job", "running");
    assert_eq!((mode(), complains()), (0o666, false));
    home.write_config(&format!(r#"{{ "services": {{ {OTHER} }} }}"#));
    home.ok(&["reload"]);
    wait("it is closed again", || mode() == 0o600);
    assert!(!complains());
}

#[test]
fn what_lies_in_a_home_of_somebody_else_holds_nobody_up() {
    let home = Home::new("{}");
    std::fs::create_dir(home.path("run")).unwrap();
    let fifo = home.path("run/state.json");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let (code, said) = home.fails(&["status"]);
    assert!(code == 3 && said.contains("not running"), "{code} {said}");
    std::fs::remove_file(&fifo).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &fifo).unwrap();
    let (code, said) = home.fails(&["status"]);
    assert!(code == 3 && said.contains("not running"), "{code} {said}");
}
