//! Who may speak to hob and how: jobs over HOB_FD and over the socket, their levels, whose something is, limits.

use crate::job::{put, spec};
use crate::support::*;
use serde_json::{Value, json};
use std::os::unix::fs::MetadataExt;
use std::process::Output;

/// A job that makes calls for the test.
pub(crate) struct Bridge<'h> {
    home: &'h Home,
    asked: u32,
}

impl Bridge<'_> {
    pub(crate) fn of(home: &Home) -> Bridge<'_> {
        Bridge { home, asked: 0 }
    }

    pub(crate) fn begin(&mut self, method: &str, params: &Value) {
        self.asked += 1;
        let ask = json!({"method": method, "params": params});
        put(&self.home.path(&format!("ask-{}", self.asked)), &ask.to_string());
    }

    fn answer(&self) -> Value {
        let path = self.home.path(&format!("answer-{}", self.asked));
        wait("the job answers", || exists(&path));
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    pub(crate) fn ask(&mut self, method: &str, params: &Value) -> Value {
        self.begin(method, params);
        self.answer()
    }
}

const OTHER: &str = r#""other": { "command": "exec sleep 1000", "min_delay": "0s" }"#;

fn bridged(members: &str) -> String {
    format!(r#"{{ "services": {{ "job": {{ {}, {members} }}, {OTHER} }} }}"#, spec("bridge"))
}

#[test]
fn a_job_speaks_over_its_channel_and_notices_no_death() {
    let home = Home::running(&bridged(r#""hob_fd": true"#));
    let mut job = Bridge::of(&home);
    home.wait_state("other", "running");
    let total = || home.service("other")["runs_total"].as_u64().unwrap();
    for round in 0..8 {
        let before = total();
        job.begin("service.restart", &json!({"name": "other"}));
        if round % 2 == 0 {
            wait("it is being restarted", || total() > before);
        }
        kill("KILL", home.pids().0);
        let answer = job.answer();
        assert_eq!(answer["ok"]["services"][0]["state"], "running", "{answer}");
        assert_eq!(total(), before + 1, "round {round}: once");
    }
    let run = &home.service("other");
    assert_eq!(run["owner"], "service/job");
    // A daemon that was killed before the start had happened leaves it to the next.
    let by = run["started_by"].as_str().unwrap();
    assert!(["by service/job", "because the daemon died before its start had happened"].contains(&by), "{by}");
    assert_eq!(home.service("job")["runs_total"], 1);
}

#[test]
fn jobs_are_told_where_hob_is_and_the_channel_only_on_request() {
    let home = Home::running(
        r#"{ "services": {
            "plain": { "command": "env; exec sleep 1000" },
            "asks": { "command": "env; exec sleep 1000", "hob_fd": true },
            "both": { "command": "env; echo >&3; exec sleep 1000", "hob_fd": true, "ready": {"fd": 3} } } }"#,
    );
    let socket = home.path("run/hob.sock").display().to_string();
    for (name, fd) in [("plain", None), ("asks", Some("3")), ("both", Some("4"))] {
        home.wait_state(name, "running");
        wait("its environment", || home.log(name).contains("HOB_RUN="));
        let log = home.log(name);
        let value = |key: &str| log.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix('='));
        assert_eq!((value("HOB_SOCKET"), value("HOB_SERVICE"), value("HOB_FD")), (Some(&*socket), Some(name), fd));
    }
}

#[test]
fn a_channel_is_new_for_each_run_and_gone_with_it() {
    let home = Home::running(r#"{ "services": { "s": { "command": "exec sleep 1000", "hob_fd": true } } }"#);
    let (_, keeper) = home.pids();
    let held = || std::fs::read_dir(format!("/proc/{keeper}/fd")).unwrap().count();
    let channel = || std::fs::read_link(format!("/proc/{}/fd/3", home.pid("s"))).unwrap();
    home.wait_state("s", "running");
    let first = channel();
    home.ok(&["restart", "s"]);
    assert_ne!(channel(), first);
    let up = held();
    home.ok(&["stop", "s"]);
    wait("the keeper has dropped it", || held() == up - 1);
    home.ok(&["start", "s"]);
    wait("and has the next one", || held() == up);
    // A daemon that dies with it leaves it to the next, which drops it when the run has ended meanwhile.
    let ((daemon, _), pid) = (home.pids(), home.pid("s"));
    kill("STOP", daemon);
    kill("KILL", pid);
    kill("KILL", daemon);
    home.wait_state("s", "running");
    wait("that of the dead run is gone", || held() == up);
}

#[test]
fn what_is_too_long_for_a_message_is_an_error_and_the_channel_goes_on() {
    let many: Vec<String> =
        (0..300).map(|i| format!(r#""s{i}": {{ "command": "true", "autostart": false }}"#)).collect();
    let home = Home::running(&format!(
        r#"{{ "services": {{ "job": {{ {}, "hob_fd": true }}, {} }} }}"#,
        spec("bridge"),
        many.join(",")
    ));
    let mut job = Bridge::of(&home);
    let answer = job.ask("service.list", &json!({}));
    assert_eq!(answer["code"], -32005, "{answer}");
    assert!(answer["hint"].as_str().unwrap().contains("HOB_SOCKET"), "{answer}");
    assert_eq!(job.ask("service.list", &json!({"names": ["s7"]}))["ok"]["services"][0]["name"], "s7");
}

/// What a job is told that asks for a reload and for a stop; empty: it was done.
fn refusals(home: &Home) -> [String; 2] {
    let done = home.path("stop-code");
    wait("the job has asked", || exists(&done) && !home.read("stop-code").is_empty());
    ["reload", "stop"].map(|what| match home.read(&format!("{what}-code")).trim() {
        "0" => String::new(),
        _ => home.read(&format!("{what}-said")),
    })
}

fn asking(how: &str, members: &str) -> String {
    let ask = format!(
        "{HOB} reload >reload-said 2>&1; echo $? >reload-code; {HOB} stop other >stop-said 2>&1; echo $? >stop-code"
    );
    let command = how.replace("ASK", &ask);
    format!(r#"{{ "services": {{ "job": {{ "command": {command:?}, "cwd": "." {members} }}, {OTHER} }} }}"#)
}

#[test]
fn a_job_has_the_level_of_its_service_whoever_it_runs_as() {
    for cgroup in ["on", "off"] {
        for (members, reload, stop) in [
            (r#", "access": "none""#, "job may not speak to hob", "job may not speak to hob"),
            (r#", "access": "read""#, "needs admin access and you have read", "needs operate access and you have read"),
            ("", "needs admin access and you have operate", ""),
            (r#", "access": "admin""#, "", ""),
        ] {
            let mut home = Home::with_env(&asking("ASK; exec sleep 1000", members), "HOB_CGROUP", cgroup);
            home.start(&[]);
            let said = refusals(&home);
            for (said, wanted) in said.iter().zip([reload, stop]) {
                assert!(said.contains(wanted) && said.is_empty() == wanted.is_empty(), "{cgroup} {members}: {said}");
            }
            home.ok(&["reload"]);
        }
    }
}

#[test]
fn a_job_cannot_shed_its_level_by_leaving_its_parent_and_session() {
    for cgroup in ["on", "off"] {
        let how = "(setsid sh -c 'cd . && env -u HOB_RUN sh ask' >/dev/null 2>&1 &); exec sleep 1000";
        let mut home = Home::with_env("{}", "HOB_CGROUP", cgroup);
        let ask = asking("ASK", "");
        let text: Value = serde_json::from_str(&ask).unwrap();
        std::fs::write(home.path("ask"), text["services"]["job"]["command"].as_str().unwrap()).unwrap();
        home.write_config(&asking(how, ""));
        home.start(&[]);
        let [reload, stop] = refusals(&home);
        assert!(reload.contains("needs admin access and you have operate") && stop.is_empty(), "{cgroup}: {reload}");
    }
}

#[test]
fn a_reload_changes_what_open_connections_of_jobs_may() {
    let home = Home::running(&bridged(r#""hob_fd": true, "access": "read""#));
    let mut job = Bridge::of(&home);
    let stop = json!({"name": "other"});
    assert_eq!(job.ask("service.stop", &stop)["code"], -32003);
    home.write_config(&bridged(r#""hob_fd": true, "access": "operate""#));
    home.ok(&["reload"]);
    assert_eq!(job.ask("service.stop", &stop)["ok"]["services"][0]["state"], "stopped");
    assert_eq!(job.ask("daemon.config", &json!({}))["code"], -32003);
    assert_eq!(home.service("job")["runs_total"], 1, "it was not restarted for that");
}

/// A command line as somebody else, with these supplementary groups.
pub(crate) fn as_other(home: &Home, uid: u32, groups: &str, args: &[&str]) -> Output {
    let hob = home.command(args);
    let mut c = std::process::Command::new("setpriv");
    c.args(["--reuid", &uid.to_string(), "--regid", "65534", "--groups", groups]);
    c.arg(hob.get_program()).args(hob.get_args()).env_remove("HOB_HOME").output().unwrap()
}

/// Whether this test can be somebody else.
pub(crate) fn can_change_user(home: &Home) -> bool {
    let root = std::fs::metadata(&home.dir).unwrap().uid() == 0;
    let can = root && as_other(home, 65_534, "65534", &["--version"]).status.success();
    if !can {
        skip("only root, with setpriv and a binary that others may read, can test the access of other users");
    }
    can
}

#[test]
fn others_are_let_in_by_user_and_group_alone() {
    let home = Home::running(&format!(r#"{{ "services": {{ {OTHER} }} }}"#));
    if !can_change_user(&home) {
        return;
    }
    let mode = || std::fs::metadata(home.path("run/hob.sock")).unwrap().mode() & 0o777;
    assert_eq!(mode(), 0o600);
    let ping = |uid, groups| as_other(&home, uid, groups, &["ping"]);
    let said = |out: &Output| String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(said(&ping(4001, "65534")).contains("no access to"));
    let access = r#"[{"user": 4001, "level": "read"}, {"group": 4242, "level": "operate"}]"#;
    home.write_config(&format!(r#"{{ "daemon": {{ "access": {access} }}, "services": {{ {OTHER} }} }}"#));
    home.ok(&["reload"]);
    assert_eq!(mode(), 0o666);
    let out = ping(4002, "65534");
    assert!(said(&out).contains("user 4002 has no access to this hob"), "{}", said(&out));
    assert!(ping(4001, "65534").status.success() && ping(4002, "4242").status.success());
    let stop = |uid, groups| as_other(&home, uid, groups, &["stop", "other"]);
    assert!(said(&stop(4001, "65534")).contains("needs operate access and you have read"));
    assert!(stop(4001, "1,4242").status.success(), "the highest of user and groups counts");
    assert!(said(&as_other(&home, 4002, "4242", &["reload"])).contains("needs admin access"));
    assert_eq!(home.service("other")["desired"], "down");
    // Those who are connected lose it too.
    let follow = home.command(&["events", "-f"]);
    let mut c = std::process::Command::new("setpriv");
    c.args(["--reuid", "4001", "--regid", "65534", "--clear-groups"]).arg(HOB).args(follow.get_args());
    let mut follower = c.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null()).spawn().unwrap();
    let mut first = [0];
    home.ok(&["start", "other"]);
    std::io::Read::read_exact(follower.stdout.as_mut().unwrap(), &mut first).unwrap();
    home.write_config(&format!(r#"{{ "services": {{ {OTHER} }} }}"#));
    home.ok(&["reload"]);
    assert_eq!(mode(), 0o600);
    wait("the follower is cut off", || follower.try_wait().unwrap().is_some());
    assert!(!ping(4001, "4242").status.success());
}

#[test]
fn a_job_of_another_user_reaches_the_socket() {
    let probe = Home::new("{}");
    if !can_change_user(&probe) {
        return;
    }
    let ask = format!("{HOB} stop other 2>&1; {HOB} reload 2>&1; {HOB} status job --json; echo asked; exec sleep 1000");
    let job = format!(r#""job": {{ "command": {ask:?}, "user": "4003", "group": "65534" }}"#);
    let home = Home::running(&format!(r#"{{ "services": {{ {job}, {OTHER} }} }}"#));
    wait("it has asked", || home.log("job").contains("asked"));
    let log = home.log("job");
    assert!(log.contains("needs admin access and you have operate"), "{log}");
    assert_eq!(home.service("other")["desired"], "down", "{log}");
    assert_eq!(std::fs::metadata(home.path("run/hob.sock")).unwrap().mode() & 0o777, 0o666);
    let out = as_other(&home, 4003, "65534", &["ping"]);
    assert!(!out.status.success(), "the same user outside of the job is nobody");
}

#[test]
fn what_was_started_is_somebodys_until_it_is_reset() {
    let off = r#"{"command": "exec sleep 1000", "autostart": false}"#;
    let off = format!(r#""a": {off}, "b": {off}"#);
    let home = Home::running(&format!(
        r#"{{ "services": {{ "job": {{ {}, "hob_fd": true }}, {off}, {OTHER} }} }}"#,
        spec("bridge")
    ));
    let uid = std::fs::metadata(&home.dir).unwrap().uid().to_string();
    let mut job = Bridge::of(&home);
    home.ok(&["start", "a"]);
    job.ask("service.start", &json!({"name": "b"}));
    let names = |args: &[&str]| {
        let list: Value = serde_json::from_str(&home.ok(&[args, &["--json"]].concat())).unwrap();
        let names: Vec<String> =
            list["services"].as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap().to_owned()).collect();
        names.join(" ")
    };
    for _ in 0..2 {
        assert_eq!(
            (home.service("a")["owner"].as_str(), home.service("b")["owner"].as_str()),
            (Some(&*uid), Some("service/job"))
        );
        assert_eq!(home.service("other").get("owner"), None);
        assert_eq!(names(&["status", "--mine"]), "a");
        assert_eq!(names(&["status", "--owner", &uid]), "a");
        assert_eq!(names(&["services", "--owner", "service/job"]), "b");
        assert_eq!(names(&["service", "list", "b", "other", "--mine"]), "");
        let mine = job.ask("service.list", &json!({"owner": "mine"}));
        assert_eq!(mine["ok"]["services"][0]["name"], "b", "{mine}");
        // Whose it is outlives the daemon.
        kill("KILL", home.pids().0);
    }
    assert!(home.ok(&["why", "b"]).contains("service/job"));
    assert_eq!(home.call("service.history", r#"{"name": "b"}"#)["running"]["owner"], "service/job");
    assert_eq!(home.call("daemon.why", r#"{"name": "b"}"#)["owner"], "service/job");
    let (_, said) = home.fails(&["status", "--owner", "no-such-user"]);
    assert!(said.contains("--owner: user 'no-such-user' is not in /etc/passwd") && said.contains("service/no-such"));
    assert!(home.fails(&["status", "--owner", "x", "--mine"]).1.contains("give one of them"));
    assert!(home.ok(&["status", "--owner", "service/none"]).contains("service/none has started no service"));
    home.ok(&["service", "reset", "b"]);
    assert_eq!(home.service("b").get("owner"), None);
}

#[test]
fn a_job_that_takes_all_it_can_get_leaves_the_others_theirs() {
    let never = r#""never": { "command": "exec sleep 1000", "autostart": false, "ready": "notify" }"#;
    let home = Home::running(&format!(r#"{{ "services": {{ "job": {{ {} }}, {never} }} }}"#, spec("flood")));
    for (name, count) in [("connections", 256), ("subscriptions", 2048), ("streams", 2048), ("requests", 4096)] {
        let path = home.path(name);
        wait(name, || exists(&path));
        let v: Value = serde_json::from_str(&home.read(name)).unwrap();
        let error = v["error"].as_str().unwrap();
        assert_eq!(v["count"], count, "{name}: {error}");
        assert!(error.starts_with("-32005 service/job has "), "{name}: {error}");
        home.ok(&["ping"]);
        home.ok(&["status"]);
        put(&home.path(&format!("{name}-seen")), "");
    }
}

#[test]
fn an_abstract_socket_serves_as_well_and_leaves_no_file() {
    if std::env::consts::OS != "linux" {
        return skip("abstract sockets exist on Linux alone");
    }
    let name = format!("@hob-e2e-{}", std::process::id());
    let config = format!(r#"{{ "services": {{ "job": {{ {} }}, {OTHER} }} }}"#, spec("bridge"));
    let mut home = Home::with_env(&config, "HOB_SOCKET", &name);
    home.start(&[]);
    assert!(!exists(&home.path("run/hob.sock")) && !exists(&home.path(&name)));
    assert!(home.ok(&["--socket", &name, "status"]).contains("other"));
    let mut job = Bridge::of(&home);
    assert_eq!(job.ask("service.stop", &json!({"name": "other"}))["ok"]["services"][0]["state"], "stopped");
    assert_eq!(job.ask("daemon.config", &json!({}))["code"], -32003, "a job is known there too");
    kill("KILL", home.pids().0);
    home.ok(&["start", "other"]);
    let (_, said) = home.fails(&["run"]);
    assert!(said.contains("already runs") || said.contains("running"), "{said}");
    // Another hob cannot have the same name, and says so.
    let other = Home::with_env("{}", "HOB_SOCKET", &name);
    let (_, said) = other.fails(&["run"]);
    assert!(said.contains(&name) && said.contains("in use"), "{said}");
    for bad in ["@".to_owned(), format!("@{}", "x".repeat(200))] {
        let (_, said) = other.fails(&["--socket", &bad, "run"]);
        assert!(said.contains("abstract socket needs a name") || said.contains("at most"), "{said}");
        assert!(!other.hob(&["--socket", &bad, "ping"]).status.success());
    }
    home.ok(&["stop"]);
    assert!(home.wait_end().success());
    home.start(&[]);
    home.ok(&["ping"]);
}
