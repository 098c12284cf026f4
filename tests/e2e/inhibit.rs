//! Inhibitors: who holds one is waited for before services are told to stop, for a moment and no longer.

use crate::support::*;
use serde_json::{Value, json};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

const CONFIG: &str = r#"{ "daemon": { "shutdown_grace": "30s" },
                          "services": { "web": { "command": "exec sleep 1000" } } }"#;

/// `hob inhibit` with a command that runs until a file exists.
fn held(home: &Home, why: &str) -> Child {
    let until = format!("until test -e {}; do sleep 0.02; done; exit 5", home.path("release").display());
    let mut c = home.command(&["inhibit", "--why", why, "--who", "backup", "--", "sh", "-c", &until]);
    let child = c.stdin(Stdio::null()).spawn().unwrap();
    wait("it is in the list", || inhibitors(home).iter().any(|i| i["why"] == why));
    child
}

fn inhibitors(home: &Home) -> Vec<Value> {
    home.call("daemon.status", "{}")["inhibitors"].as_array().unwrap().clone()
}

fn release(home: &Home) {
    std::fs::write(home.path("release"), "").unwrap();
}

#[test]
fn a_shutdown_waits_for_the_command_and_tells_subscribers_first() {
    let mut home = Home::running(CONFIG);
    home.wait_state("web", "running");
    let pid = home.pid("web");
    let client = hob::client::Client::connect(home.path("run/hob.sock")).unwrap();
    let mut events = client.subscribe(&["daemon.stopping", "service.stopping"], &[], None).unwrap();
    let mut child = held(&home, "writes a snapshot");
    let one = &inhibitors(&home)[0];
    assert_eq!((&one["who"], &one["what"], &one["pid"]), (&"backup".into(), &"shutdown".into(), &child.id().into()));
    let list = home.ok(&["inhibit"]);
    assert!(list.contains("backup") && list.contains("writes a snapshot"), "{list}");
    let begin = Instant::now();
    let reply = home.call("daemon.shutdown", "{}");
    assert_eq!(reply["waits_for"][0]["why"], "writes a snapshot");
    let Some(Ok(hob::client::Event::Event(event))) = events.next() else { panic!("no event") };
    assert_eq!((&event["kind"], &event["delay_ms"]), (&"daemon.stopping".into(), &30_000.into()), "{event}");
    assert!(event["deadline"].as_str().is_some_and(|t| t.ends_with('Z')), "{event}");
    let (_, text) = home.fails(&["start", "web"]);
    assert!(text.contains("shutting down"), "new work is refused: {text}");
    let (_, text) = home.fails(&["inhibit", "--why", "too late", "--", "true"]);
    assert!(text.contains("shutting down"), "{text}");
    assert!(alive(pid) && home.state("web") == "running", "no service is told before");
    release(&home);
    assert_eq!(child.wait().unwrap().code(), Some(5), "the exit code of the command");
    assert!(home.wait_end().success());
    assert!(begin.elapsed() < Duration::from_secs(30), "it ended with the inhibitor, not with its time");
    assert!(!alive(pid));
}

#[test]
fn the_time_is_bounded() {
    let mut home = Home::running(&CONFIG.replace("30s", "1s"));
    let mut child = held(&home, "never ends");
    let begin = Instant::now();
    home.ok(&["stop"]);
    home.wait_end();
    assert!(begin.elapsed() >= Duration::from_secs(1), "it was waited for: {:?}", begin.elapsed());
    assert!(
        home.read("logs/hob.log").contains("the shutdown waits up to 1s for backup"),
        "{}",
        home.read("logs/hob.log")
    );
    release(&home);
    assert_eq!(child.wait().unwrap().code(), Some(5), "the command goes on without hob");
}

#[test]
fn a_second_request_and_force_do_not_wait() {
    let mut home = Home::running(CONFIG);
    let mut child = held(&home, "is slow");
    home.ok(&["stop", "--no-wait"]);
    assert_eq!(home.state("web"), "running");
    home.ok(&["stop"]);
    assert!(home.wait_end().success());
    home.start(&[]);
    wait("it is taken again from the next hob", || inhibitors(&home).len() == 1);
    let pid = home.pid("web");
    home.ok(&["stop", "--force"]);
    home.wait_end();
    assert!(!alive(pid));
    release(&home);
    child.wait().unwrap();
}

#[test]
fn a_death_of_the_daemon_ends_it_and_the_client_takes_it_again() {
    let home = Home::running(CONFIG);
    let mut child = held(&home, "goes on");
    for _ in 0..3 {
        let (daemon, _) = home.pids();
        kill("KILL", daemon);
        wait("it is taken again", || home.pids().0 != daemon && inhibitors(&home).len() == 1);
    }
    kill("TERM", child.id());
    assert_eq!(child.wait().unwrap().code(), Some(128 + 15), "what was sent to it reaches the command");
    wait("it is gone", || inhibitors(&home).is_empty());
}

#[test]
fn it_ends_with_its_connection_or_by_request_and_only_its_own_can_end_it() {
    let home = Home::running(CONFIG);
    let socket = home.path("run/hob.sock");
    let connect = || hob::client::Client::connect(&socket).unwrap();
    let (mut one, mut two) = (connect(), connect());
    let take = |c: &mut hob::client::Client, why: &str| {
        c.call::<Value>("daemon.inhibit", &json!({ "why": why })).map(|r| r["inhibitor"].as_u64().unwrap())
    };
    let a = take(&mut one, "a").unwrap();
    assert_eq!(inhibitors(&home)[0]["who"], format!("process {}", std::process::id()));
    let error = two.call::<Value>("daemon.uninhibit", &json!({ "inhibitor": a })).unwrap_err().to_string();
    assert!(error.contains("this connection has no inhibitor"), "{error}");
    one.call::<Value>("daemon.uninhibit", &json!({ "inhibitor": a })).unwrap();
    assert!(inhibitors(&home).is_empty());
    for n in 0..16 {
        take(&mut two, &format!("n{n}")).unwrap();
    }
    let error = take(&mut two, "one more").unwrap_err().to_string();
    assert!(error.contains("this connection has 16 inhibitors"), "{error}");
    drop(two);
    wait("they end with their connection", || inhibitors(&home).is_empty());
    for (params, part) in [
        (json!({ "why": "x", "what": "sleep" }), "\"sleep\" cannot be inhibited"),
        (json!({ "why": "" }), "is a text that is not empty"),
        (json!({ "why": "  " }), "why has to be a text"),
        (json!({ "why": "x".repeat(257) }), "why has to be a text"),
        (json!({ "why": "two\nlines" }), "in one line"),
        (json!({}), "why"),
    ] {
        let error = one.call::<Value>("daemon.inhibit", &params).unwrap_err().to_string();
        assert!(error.contains(part), "{params}: {error}");
    }
    let held = one.inhibit("me", "by the library").unwrap();
    assert_eq!((held.grace(), inhibitors(&home).len()), (Duration::from_secs(30), 1));
    drop(held);
    wait("it was dropped", || inhibitors(&home).is_empty());
}

#[test]
fn the_command_line_says_what_is_missing() {
    let home = Home::running(CONFIG);
    let (code, text) = home.fails(&["inhibit", "--", "true"]);
    assert!(code == 2 && text.contains("hob inhibit --why TEXT -- COMMAND"), "{code} {text}");
    let (code, text) = home.fails(&["inhibit", "--why", "x", "--", "/nonexistent/x"]);
    assert!(code == 127 && text.contains("cannot execute /nonexistent/x"), "{code} {text}");
    assert_eq!(home.hob(&["inhibit", "--why", "x", "--", "sh", "-c", "kill -9 $$"]).status.code(), Some(128 + 9));
    assert!(home.ok(&["inhibit"]).contains("nothing delays a shutdown"));
    home.ok(&["stop"]);
    let (code, text) = home.fails(&["inhibit", "--why", "x", "--", "true"]);
    assert!(code == 3 && text.contains("hob is not running"), "{code} {text}");
}
