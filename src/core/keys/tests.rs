//! Request keys under repetition, death, boot and clock steps.

use super::*;
use core::time::Duration;

const HOUR: u64 = 3600;
const CONN: ConnId = ConnId(1);

impl Keys {
    /// Of somebody to whom all places are open.
    fn ask(&mut self, now: Now, who: (u32, ConnId), key: &str, hash: u64, req: ReqId) -> Verdict {
        self.begin(now, who, key, (hash, req), KEPT_REPLIES_MAX)
    }

    fn len(&self) -> usize {
        self.open.len() + self.kept.len()
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Awake seconds and wall seconds.
fn at(mono: u64, wall: i64) -> Now {
    Now { mono: Mono(mono * 1_000_000_000), wall: Wall(wall * 1000) }
}

fn ok(text: &str) -> Result<String, RpcError> {
    Ok(text.to_owned())
}

/// Carries out one request and returns what was journalled.
fn done(keys: &mut Keys, now: Now, key: &str, result: &Result<String, RpcError>) -> Vec<Entity> {
    let (req, mut out) = (ReqId(u64::MAX), Out::default());
    assert_eq!(keys.ask(now, (7, CONN), key, 1, req), Verdict::New);
    assert_eq!(keys.finish(now, req, result, true, &mut out), []);
    out.records
}

fn reborn(records: &[Entity], keeper: &str, now: Now) -> Keys {
    let mut keys = Keys::new(keeper);
    for r in records.iter().filter(|r| r.json.is_some()) {
        assert!(keys.restore(now, r), "{r:?}");
    }
    keys
}

#[test]
fn a_repetition_joins_and_then_is_replayed() {
    let (mut keys, mut out) = (Keys::new("k"), Out::default());
    assert_eq!(keys.ask(at(0, 0), (7, CONN), "a", 1, ReqId(1)), Verdict::New);
    assert_eq!(keys.ask(at(0, 0), (7, ConnId(2)), "a", 1, ReqId(2)), Verdict::Join);
    assert_eq!(keys.ask(at(0, 0), (8, CONN), "a", 2, ReqId(3)), Verdict::New, "another user's key is another key");
    assert!(matches!(
        keys.ask(at(0, 0), (7, CONN), "a", 2, ReqId(4)),
        Verdict::Conflict(e) if e.code == Code::Conflict
    ));
    assert_eq!(keys.ask(at(0, 0), (7, CONN), "a", 1, ReqId(5)), Verdict::Join);
    keys.closed(ConnId(2));
    assert!(keys.is_open(ReqId(1)) && !keys.is_open(ReqId(5)));
    assert_eq!(keys.finish(at(1, 1), ReqId(5), &ok("{}"), true, &mut out), [], "only the first one has a result");
    assert_eq!(keys.finish(at(1, 1), ReqId(1), &ok("{\"a\":1}"), true, &mut out), [ReqId(5)]);
    assert_eq!(keys.finish(at(1, 1), ReqId(1), &ok("{}"), true, &mut out), []);
    assert_eq!(out.records.len(), 1);
    assert_eq!(keys.ask(at(2, 2), (7, CONN), "a", 1, ReqId(6)), Verdict::Replay(ok("{\"a\":1}")));
    assert!(matches!(keys.ask(at(2, 2), (7, CONN), "a", 2, ReqId(7)), Verdict::Conflict(_)));
    assert_eq!(keys.len(), 2);
    assert_eq!(keys.holders.len(), 1, "only user 8's request is open");
}

#[test]
fn what_has_begun_is_resumed_after_a_death_and_never_begun_again() {
    let (mut keys, mut out) = (Keys::new("k"), Out::default());
    keys.note(at(0, 0), ReqId(9), &mut out);
    assert!(out.records.is_empty(), "a request without a key has nothing to note");
    assert_eq!(keys.ask(at(0, 0), (7, ConnId(1)), "a", 1, ReqId(1)), Verdict::New);
    keys.note(at(0, 0), ReqId(1), &mut out);
    assert_eq!(keys.ask(at(0, 0), (7, ConnId(1)), "a", 1, ReqId(2)), Verdict::Join, "it is still open");
    assert_eq!(keys.entities_from(at(1, 1), "", 9), out.records, "a snapshot keeps it");
    let mut after = reborn(&out.records, "k", at(1, 1));
    assert!(matches!(after.ask(at(1, 1), (7, ConnId(1)), "a", 2, ReqId(3)), Verdict::Conflict(_)));
    assert_eq!(after.ask(at(1, 1), (7, ConnId(1)), "a", 1, ReqId(3)), Verdict::Resume);
    assert!(after.is_resumed(ReqId(3)) && !keys.is_resumed(ReqId(1)));
    assert_eq!(after.ask(at(1, 1), (7, ConnId(1)), "a", 1, ReqId(4)), Verdict::Join);
    let mut out = Out::default();
    assert_eq!(after.finish(at(2, 2), ReqId(3), &ok("{}"), true, &mut out), [ReqId(4)]);
    assert_eq!(after.ask(at(2, 2), (7, ConnId(1)), "a", 1, ReqId(5)), Verdict::Replay(ok("{}")));
    assert_eq!((after.len(), after.order.len()), (1, 1));
    // Whatever was answered by somebody who could promise nothing, it has begun.
    let no = Err(RpcError::new(Code::ShuttingDown, "no"));
    assert_eq!(keys.finish(at(2, 2), ReqId(1), &no, true, &mut out), [ReqId(2)]);
    assert_eq!(keys.ask(at(3, 3), (7, ConnId(1)), "a", 1, ReqId(6)), Verdict::Resume);
}

#[test]
fn refusals_are_not_kept_and_failures_are() {
    let mut keys = Keys::new("k");
    for code in [Code::Busy, Code::ShuttingDown, Code::NotFound, Code::InvalidParams, Code::PermissionDenied] {
        assert_eq!(done(&mut keys, at(0, 0), "a", &Err(RpcError::new(code, "no"))), []);
    }
    assert!(keys.is_empty());
    for code in [Code::Unavailable, Code::FileSystem, Code::Internal] {
        let (key, failed) = (format!("{code:?}"), Err(RpcError::new(code, "it \"failed\"").hint("look")));
        let records = done(&mut keys, at(0, 0), &key, &failed);
        assert_eq!(keys.ask(at(0, 0), (7, CONN), &key, 1, ReqId(1)), Verdict::Replay(failed.clone()));
        let mut after = reborn(&records, "k", at(0, 0));
        assert_eq!(after.ask(at(0, 0), (7, CONN), &key, 1, ReqId(1)), Verdict::Replay(failed));
    }
}

#[test]
fn the_first_request_goes_on_without_its_connection_and_what_is_not_to_be_kept_is_tried_anew() {
    let (mut keys, mut out) = (Keys::new("k"), Out::default());
    assert_eq!(keys.ask(at(0, 0), (7, CONN), "a", 1, ReqId(1)), Verdict::New);
    keys.closed(CONN);
    assert!(keys.is_open(ReqId(1)));
    assert_eq!(keys.ask(at(0, 0), (7, ConnId(2)), "a", 1, ReqId(2)), Verdict::Join);
    assert_eq!(keys.finish(at(0, 0), ReqId(1), &ok("1"), false, &mut out), [ReqId(2)]);
    assert!(out.records.is_empty() && keys.is_empty() && keys.holders.is_empty());
    assert_eq!(keys.ask(at(0, 0), (7, CONN), "a", 1, ReqId(3)), Verdict::New);
}

#[test]
fn a_large_reply_is_not_kept_but_its_work_is_not_repeated() {
    let (mut keys, fits) = (Keys::new("k"), format!("\"{}\"", "x".repeat(KEPT_REPLY_BYTES - 2)));
    let mut records = done(&mut keys, at(0, 0), "fits", &ok(&fits));
    records.extend(done(&mut keys, at(0, 0), "large", &ok(&format!("{fits} "))));
    records.extend(done(&mut keys, at(0, 0), "long", &Err(RpcError::new(Code::Internal, &fits).hint("much"))));
    assert!(records[1].json.as_ref().unwrap().len() < 200);
    let mut after = reborn(&records, "k", at(0, 0));
    for keys in [&mut keys, &mut after] {
        assert_eq!(keys.ask(at(0, 0), (7, CONN), "fits", 1, ReqId(1)), Verdict::Replay(ok(&fits)));
        for key in ["large", "long"] {
            let again = keys.ask(at(0, 0), (7, CONN), key, 1, ReqId(1));
            assert!(matches!(again, Verdict::Replay(Err(e)) if e.code == Code::Unavailable));
        }
    }
}

#[test]
fn a_key_lives_for_an_hour_of_awake_time_whatever_the_wall_clock_does() {
    let mut keys = Keys::new("k");
    done(&mut keys, at(10, 1_000_000), "a", &ok("1"));
    assert_eq!(keys.ask(at(11, 99_000_000), (7, CONN), "a", 1, ReqId(1)), Verdict::Replay(ok("1")));
    assert_eq!(keys.ask(at(HOUR + 9, 0), (7, CONN), "a", 1, ReqId(1)), Verdict::Replay(ok("1")));
    assert!(keys.entities_from(at(HOUR + 10, 0), "", 9).is_empty());
    let records = done(&mut keys, at(HOUR + 10, 0), "b", &ok("2"));
    assert_eq!(records[0], Entity { key: "key/7/a".into(), json: None }, "the old one leaves the journal too");
    assert_eq!(records.len(), 2);
    assert_eq!((keys.len(), keys.order.len()), (1, 1));
}

#[test]
fn a_key_that_is_used_again_after_its_time_starts_anew() {
    let mut keys = Keys::new("k");
    done(&mut keys, at(0, 0), "a", &ok("1"));
    let records = done(&mut keys, at(HOUR, 0), "a", &ok("2"));
    assert_eq!(reborn(&records[1..], "k", at(HOUR, 0)).len(), 1);
    assert_eq!(keys.ask(at(HOUR, 0), (7, CONN), "a", 1, ReqId(1)), Verdict::Replay(ok("2")));
    assert_eq!((keys.len(), keys.order.len()), (1, 1));
}

#[test]
fn a_new_daemon_of_the_same_boot_goes_on_exactly() {
    let records = done(&mut Keys::new("k"), at(100, 1000), "a", &ok("1"));
    for wall in [0, 1000, 900_000_000] {
        let mut keys = reborn(&records, "k", at(100 + HOUR - 1, wall));
        assert!(matches!(keys.ask(at(100 + HOUR - 1, wall), (7, CONN), "a", 1, ReqId(1)), Verdict::Replay(_)));
        assert_eq!(keys.ask(at(100 + HOUR, wall), (7, CONN), "a", 1, ReqId(1)), Verdict::New);
    }
    let first = reborn(&records, "k", at(200, 0));
    assert_eq!(first.entities_from(at(200, 0), "", 9), records, "a record that is written again does not grow younger");
}

#[test]
fn after_a_boot_the_wall_clock_counts_but_cannot_take_the_last_minute() {
    let records = done(&mut Keys::new("k"), at(50_000, 1_000_000), "a", &ok("1"));
    let lives = |wall_at_boot: i64, after: u64| {
        let mut keys = reborn(&records, "other", at(5, wall_at_boot));
        keys.ask(at(5 + after, 0), (7, CONN), "a", 1, ReqId(1)) != Verdict::New
    };
    assert!(lives(1_001_800, 1799) && !lives(1_001_800, 1800), "half an hour old");
    assert!(lives(99_000_000, 59) && !lives(99_000_000, 60), "the clock stepped ahead");
    assert!(lives(0, HOUR - 1) && !lives(0, HOUR), "the board has no clock yet");
    // Records that were restored and written again are those of the present boot.
    let keys = reborn(&records, "other", at(5, 1_001_800));
    let again = reborn(&keys.entities_from(at(6, 0), "", 9), "third", at(6, 1_003_000));
    assert_eq!(again.len(), 1);
    assert_eq!(again.entities_from(at(6 + 599, 0), "", 9).len(), 1);
    assert_eq!(again.entities_from(at(6 + 600, 0), "", 9).len(), 0);
}

#[test]
fn full_means_that_nothing_may_be_dropped_yet() {
    let mut keys = Keys::new("k");
    for i in 0..KEPT_REPLIES_MAX - 1 {
        done(&mut keys, at(u64::from(i >= 5), 0), &i.to_string(), &ok("1"));
    }
    assert_eq!(keys.ask(at(59, 0), (7, CONN), "open", 1, ReqId(1)), Verdict::New);
    assert!(matches!(keys.ask(at(59, 0), (7, CONN), "more", 1, ReqId(2)), Verdict::Full(e) if e.code == Code::Busy));
    assert!(matches!(keys.ask(at(59, 0), (7, CONN), "0", 1, ReqId(2)), Verdict::Replay(_)));
    for i in 0..5 {
        assert_eq!(keys.ask(at(60, 0), (7, CONN), &format!("new{i}"), 1, ReqId(10 + i)), Verdict::New);
    }
    assert!(matches!(keys.ask(at(60, 0), (7, CONN), "more", 1, ReqId(3)), Verdict::Full(_)));
    let mut out = Out::default();
    for req in [1, 10, 11, 12, 13, 14] {
        assert_eq!(keys.finish(at(60, 0), ReqId(req), &ok("1"), true, &mut out), []);
    }
    let gone: Vec<_> = out.records.iter().filter(|r| r.json.is_none()).map(|r| r.key.as_str()).collect();
    assert_eq!(gone, ["key/7/0", "key/7/1", "key/7/2", "key/7/3", "key/7/4"]);
    assert_eq!((keys.len(), keys.order.len()), (KEPT_REPLIES_MAX, KEPT_REPLIES_MAX));
    let mut daemon = reborn(&keys.entities_from(at(60, 0), "", usize::MAX), "k", at(61, 0));
    assert_eq!(daemon.len(), KEPT_REPLIES_MAX);
    assert_eq!(daemon.ask(at(61, 0), (7, CONN), "more", 1, ReqId(1)), Verdict::New, "those of 1 s are a minute old");
}

#[test]
fn who_may_not_use_all_places_leaves_some_to_those_who_may() {
    let mut keys = Keys::new("k");
    for i in 0..50 {
        done(&mut keys, at(0, 0), &i.to_string(), &ok("1"));
    }
    let within = |keys: &mut Keys, most| keys.begin(at(1, 0), (7, CONN), "new", (1, ReqId(1)), most);
    assert!(matches!(within(&mut keys, 50), Verdict::Full(e) if e.message.starts_with("50 request keys")));
    let known = keys.begin(at(1, 0), (7, CONN), "7", (1, ReqId(2)), 50);
    assert_eq!(known, Verdict::Replay(ok("1")), "what is there is there");
    assert_eq!(within(&mut keys, 51), Verdict::New);
}

#[test]
fn a_snapshot_in_slices_has_each_record_once() {
    let mut keys = Keys::new("k");
    let mut want = Vec::new();
    for key in ["a/b", "", "\u{e4}\n", "zz", "b"] {
        want.extend(done(&mut keys, at(0, 0), key, &ok("1")));
    }
    assert_eq!(keys.ask(at(0, 0), (10, CONN), "x", 1, ReqId(1)), Verdict::New);
    let (mut got, mut after): (Vec<Entity>, String) = (Vec::new(), String::new());
    loop {
        let slice = keys.entities_from(at(0, 0), &after, 2);
        let Some(last) = slice.last() else { break };
        after.clone_from(&last.key);
        got.extend(slice);
    }
    want.sort_by(|a, b| a.key.cmp(&b.key));
    assert_eq!(got, want);
}

#[test]
fn what_is_not_a_key_is_left_alone() {
    let mut keys = Keys::new("k");
    let mut restored = |key: &str, json: Option<&str>| {
        keys.restore(at(0, 0), &Entity { key: key.into(), json: json.map(str::to_owned) })
    };
    let good = r#"{"v":1,"hash":1,"wall":0,"until":0,"boot":0,"ok":{},"later":true}"#;
    assert!(!restored("run/1", Some(good)) && !restored("key/x/a", Some(good)) && !restored("key/1", Some(good)));
    assert!(!restored("key/1/a", None) && !restored("key/1/a", Some("{")));
    assert!(!restored("key/1/a", Some(&good.replace("\"v\":1", "\"v\":2"))));
    assert!(restored("key/1/a", Some(good)));
    assert!(Keys::owns("key/1/a") && !Keys::owns("keys"));
    assert_eq!(Duration::from_secs(HOUR), KEPT_REPLY_AGE);
}
