//! Tasks, attempts, groups and jobs in the journal: frozen forms of every kind, and what is left of them when the file
//! is cut or a bit of it is flipped.

use super::{frozen, load_frozen};
use hob::base::ids::{ConnId, ReqId};
use hob::base::time::{Mono, Now, Wall};
use hob::config::{Access, Platform};
use hob::core::{Boot, Core, Effect, Entity, Input, Out, Peer};
use hob::daemon::journal::Journal;
use hob::protocol::methods::decode;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

const CONFIG: &str = r#"{"daemon":{"heartbeat":"0s"},"groups":{"one":{"parallel":1}},
    "agents":{"claude":{"command":["true"],"prompt":"stdin"}},"runners":{"outer":{"prefix":["env"]}},
    "schedule":{"jobs":[{"id":"each","every":"1h","tz":"UTC","action":{"task":{"command":["true"]}}},
        {"id":"off","cron":"0 3 * * *","tz":"UTC","action":{"method":"task.stats"}}]}}"#;

/// Two seconds after the frozen files were written.
const NOW: Now = Now { mono: Mono(14_097_000_000_000), wall: Wall(1_795_876_598_000) };

/// A core that starts with what a journal held, and what it does at that.
fn started(entities: Vec<Entity>, keeper: &str, gap: bool) -> (Core, Out) {
    let platform = Platform::linux();
    let boot = Boot {
        config: hob::config::parse(CONFIG, "f", &platform).unwrap(),
        entities,
        signals: platform.signals,
        keeper_key: keeper.to_owned(),
        generation: 1,
        gap,
        ..Boot::default()
    };
    let (mut core, mut out) = (Core::new(), Out::default());
    core.step(NOW, Input::Boot(Box::new(boot)), &mut out);
    (core, out)
}

/// What a client is told; a refusal as its message.
fn asked(core: &mut Core, method: &str, params: &Value, uid: u32) -> Value {
    let raw = serde_json::value::to_raw_value(params).unwrap();
    let call = decode(method, Some(&raw), Platform::linux().signals).unwrap();
    let peer = Peer { uid, pid: 1, access: Access::Admin, job: None, schedule: None };
    let (req, conn) = (ReqId(1), ConnId(1));
    let (key, params_hash, request) = (call.key, call.params_hash, call.request);
    let mut out = Out::default();
    core.step(NOW, Input::Request { req, conn, peer, key, params_hash, request }, &mut out);
    let reply = out.effects.into_iter().find_map(|e| match e {
        Effect::Reply { result, .. } => Some(result),
        _ => None,
    });
    match reply.unwrap() {
        Ok(text) => serde_json::from_str(&text).unwrap(),
        Err(e) => json!(e.message),
    }
}

/// `7 queued default true`, with what came of the last attempt.
fn listed(core: &mut Core) -> Vec<String> {
    let all = asked(core, "task.list", &json!({ "limit": 1000 }), 0);
    let row = |t: &Value| {
        let text = |name: &str| t[name].as_str().unwrap_or_default().to_owned();
        let words: Vec<&str> = t["command"].as_array().into_iter().flatten().map(|w| w.as_str().unwrap()).collect();
        let what = if words.is_empty() { format!("{}: {}", text("agent"), text("prompt")) } else { words.join(" ") };
        let end = match (&t["exit_code"], &t["signal"]) {
            (Value::Null, Value::Null) => text("error"),
            (Value::Null, signal) => format!("signal {signal}"),
            (code, _) => format!("code {code}"),
        };
        let line =
            format!("{} {} {} {what:?} {end} {} {}", t["id"], text("state"), text("group"), t["attempts"], text("why"));
        line.trim_end().to_owned()
    };
    all["tasks"].as_array().unwrap().iter().map(row).collect()
}

#[test]
fn tasks_of_version_1_load_for_ever() {
    let checked = Journal::check(&frozen("v1-tasks")).unwrap();
    load_frozen("v1-tasks", &checked.entities, 0, false);
    // The keeper of then and its daemon are gone, and this is another boot.
    let (mut core, _) = started(checked.entities, "another", false);
    let lost = "hob and its keeper ended while it ran, and nobody saw how it ended";
    let until = "waits until 2026-11-28T15:36:34.850Z";
    let missing = "cannot execute /no/such/program: No such file or directory; check `command`";
    let unsure = "the machine stopped when it was about to start, and nobody knows whether it did";
    let expected = [
        r#"1 succeeded default "sh -c cat; echo done" code 0 1"#.to_owned(),
        r#"2 failed default "/bin/sh -c echo bad; exit 3" code 3 2"#.to_owned(),
        r#"3 held default "true"  0"#.to_owned(),
        r#"4 failed default "/bin/sh -c sleep 0.3; exit 1" code 1 1"#.to_owned(),
        r#"5 cancelled default "true"  0 task 4, which it follows, failed"#.to_owned(),
        r#"6 timed_out default "/bin/sh -c sleep 100" signal 15 1 it may run for 50ms"#.to_owned(),
        r#"7 queued default "true"  0 waits until 2072-07-16T06:36:34.498Z"#.to_owned(),
        r#"8 queued agents "claude: fix the\ntests"  0 waits until 2096-10-02T07:06:40.000Z"#.to_owned(),
        r#"9 succeeded default "cat" code 0 1"#.to_owned(),
        format!(r#"10 failed default "/no/such/program" {missing} 1"#),
        r#"11 failed default "/bin/sh -c kill -9 $$" signal 9 1"#.to_owned(),
        r#"12 succeeded default "true" code 0 1"#.to_owned(),
        r#"13 succeeded default "true" code 0 1"#.to_owned(),
        r#"14 running default "/bin/sh -c sleep 100"  2"#.to_owned(),
        format!(r#"15 lost one "/bin/sh -c sleep 1000"  1 {lost}"#),
        format!(r#"16 lost one "/bin/sh -c sleep 1000"  1 {unsure}"#),
        format!(r#"17 queued default "/bin/sh -c exit 4" code 4 1 retry 1 of 2; {until}"#),
        r#"18 succeeded default "/bin/sh -c hob add true" code 0 1"#.to_owned(),
        r#"19 succeeded default "/bin/sh -c true" code 0 1"#.to_owned(),
        r#"20 cancelled default "/bin/sh -c sleep 1000" signal 15 1 by uid 0 (pid 23552)"#.to_owned(),
        r#"21 succeeded default "true" code 0 1"#.to_owned(),
    ];
    assert_eq!(listed(&mut core), expected);
    let get = |core: &mut Core, id: u64| asked(core, "task.get", &json!({ "id": id }), 0);
    let first = get(&mut core, 1);
    let wanted = json!({ "priority": 7, "env": ["A", "SECRET"], "stdin_bytes": 6, "key": "nightly", "cwd": "/",
        "labels": {"kind": "test", "odd": "\u{e9}\u{1}"}, "owner": "0", "output_bytes": 11,
        "last_lines": ["typed", "done"], "duration_ms": 35, "cpu_ms": 3 });
    for (name, value) in wanted.as_object().unwrap() {
        assert_eq!(first[name], *value, "{name}");
    }
    let third = get(&mut core, 3);
    let wanted = json!({ "weight": 4, "timeout_ms": 0, "max_output": 1_000_000, "runner": "outer" });
    for (name, value) in wanted.as_object().unwrap() {
        assert_eq!(third[name], *value, "{name}");
    }
    assert_eq!(get(&mut core, 7)["after"], json!([{ "id": 1 }, { "id": 4, "any": true }]));
    assert_eq!((&get(&mut core, 9)["stdin_bytes"], &get(&mut core, 14)["repeatable"]), (&json!(3), &json!(true)));
    assert_eq!((&get(&mut core, 14)["retries"], &get(&mut core, 14)["backoff_ms"]), (&json!(3), &json!(5000)));
    assert_eq!(
        (&get(&mut core, 19)["owner"], &get(&mut core, 21)["owner"]),
        (&json!("task/18"), &json!("schedule/each"))
    );
    let spec = json!({ "command": ["sh", "-c", "cat; echo done"], "cwd": "/", "key": "nightly" });
    let known = json!({ "id": 1, "known": true, "state": "succeeded" });
    assert_eq!(asked(&mut core, "task.submit", &spec, 0), known);
    let groups = asked(&mut core, "group.list", &json!({}), 0);
    let extra = groups["groups"].as_array().unwrap().iter().find(|g| g["name"] == "extra").unwrap();
    assert_eq!((&extra["parallel"], &extra["weight_limit"], &extra["paused"]), (&json!(9), &json!(20), &json!(true)));
    let jobs = asked(&mut core, "schedule.list", &json!({}), 0);
    let job =
        |n: usize| (jobs["jobs"][n]["id"].clone(), jobs["jobs"][n]["state"].clone(), jobs["jobs"][n]["runs"].clone());
    assert_eq!(job(0), (json!("each"), json!("waiting"), json!(1)));
    assert_eq!(job(1), (json!("off"), json!("paused"), json!(0)));
    assert_eq!(asked(&mut core, "task.submit", &json!({ "command": "x" }), 0), json!({ "id": 22 }));
}

#[test]
fn later_members_of_version_1_load_for_ever() {
    let checked = Journal::check(&frozen("v1-tasks-2")).unwrap();
    load_frozen("v1-tasks-2", &checked.entities, 0, false);
    let (mut core, _) = started(checked.entities, "another", false);
    let rows = listed(&mut core);
    assert!(rows[0].starts_with("1 lost") && rows[1].starts_with("2 lost"), "{rows:?}");
    assert_eq!(rows[2], r#"3 held default "true"  0 by uid 0 (pid 7)"#);
    assert!(rows[3].starts_with("4 queued one"), "{rows:?}");
    assert_eq!(asked(&mut core, "task.list", &json!({ "owner": "task/1" }), 0)["tasks"][0]["id"], 2);
    // Keys of tasks that are gone: only the same submission of the same user finds them.
    let spec = json!({ "command": ["sh", "-c", "cat; echo done"], "cwd": "/", "key": "nightly" });
    let known = json!({ "id": 5, "known": true, "state": "removed" });
    assert_eq!(asked(&mut core, "task.submit", &spec, 1000), known);
    assert_eq!(asked(&mut core, "task.submit", &spec, 1001), json!({ "id": 9 }));
    let other = json!({ "command": ["false"], "key": "nightly" });
    assert!(asked(&mut core, "task.submit", &other, 1000).as_str().unwrap().contains("belongs to task 5"));
}

/// Every state that the whole journal ever had of each entity.
fn states(bytes: &[u8]) -> BTreeSet<(String, String)> {
    let text = core::str::from_utf8(bytes).unwrap();
    let one = |line: &str| {
        let v: Value = serde_json::from_str(line.get(9..)?).ok()?;
        Some((v["k"].as_str()?.to_owned(), line.split_once("\"s\":")?.1.strip_suffix('}')?.to_owned()))
    };
    text.lines().filter_map(one).collect()
}

/// The first records of the frozen journal: two tasks, each with its attempts.
fn sample() -> Vec<u8> {
    let bytes = std::fs::read(frozen("v1-tasks").join("journal-1.log")).unwrap();
    let end = bytes.iter().enumerate().filter(|(_, b)| **b == b'\n').nth(10).unwrap().0 + 1;
    bytes[..end].to_vec()
}

/// What a journal holds, by key.
type State = BTreeMap<String, String>;

fn by_key(entities: &[Entity]) -> State {
    entities.iter().map(|e| (e.key.clone(), e.json.clone().unwrap_or_default())).collect()
}

/// Judges damaged journals.
struct Judge {
    /// Every state that was ever written.
    written: BTreeSet<(String, String)>,
    /// Those that a core has been started with: most damage comes to the same.
    tried: BTreeSet<(State, bool)>,
}

impl Judge {
    fn new(bytes: &[u8]) -> Judge {
        Judge { written: states(bytes), tried: BTreeSet::new() }
    }

    /// Loads a journal, starts a core with it, and holds what came of that against what was written. Answers what it
    /// holds, how much is reported, and whether that is a gap.
    fn judge(&mut self, bytes: &[u8], what: &str) -> (State, usize, bool) {
        let loaded = Journal::check_bytes(bytes);
        let (found, reports, gap) = (by_key(&loaded.entities), loaded.reports.len(), loaded.gap);
        for (key, json) in &found {
            assert!(self.written.contains(&(key.clone(), json.clone())), "{what}: {key} {json} was never written");
        }
        assert!(!gap || reports > 0, "{what}: a gap in silence");
        if self.tried.insert((found.clone(), gap)) {
            let (mut core, out) = started(loaded.entities, "00c0ffee-1-7", gap);
            let rows = listed(&mut core);
            assert_eq!(rows.len(), found.keys().filter(|k| k.starts_with("task/")).count(), "{what}: {rows:?}");
            let starts = out.effects.iter().any(|e| matches!(e, Effect::Start(_)));
            assert!(!starts, "{what}: something starts before its claim is on disk");
            assert!(!gap || !rows.iter().any(|r| r.contains(" queued ")), "{what}: {rows:?}");
        }
        (found, reports, gap)
    }
}

#[test]
fn a_journal_of_tasks_that_is_cut_anywhere_starts_and_invents_nothing() {
    let bytes = sample();
    let mut judge = Judge::new(&bytes);
    // A cut at the end of a round is no damage: what follows was never written.
    let mut ends = 0;
    for end in 0..bytes.len() {
        let (_, reports, gap) = judge.judge(&bytes[..end], &format!("cut at {end}"));
        assert!(!gap, "cut at {end}: a torn end is no gap");
        ends += usize::from(reports == 0);
    }
    assert!((5..12).contains(&ends), "{ends} rounds");
}

#[test]
fn a_bit_that_is_flipped_in_a_journal_of_tasks_is_seen_and_invents_nothing() {
    let bytes = sample();
    let mut judge = Judge::new(&bytes);
    let (sound, none, _) = judge.judge(&bytes, "whole");
    assert_eq!(none, 0);
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << bit;
            let what = format!("bit {bit} of byte {at} flipped");
            let (found, reports, _) = judge.judge(&damaged, &what);
            let lost = || sound.keys().find(|k| !found.contains_key(*k));
            assert!(found == sound || reports > 0, "{what}: {:?} is lost in silence", lost());
        }
    }
    assert!(judge.tried.len() > 5, "{}", judge.tried.len());
}
