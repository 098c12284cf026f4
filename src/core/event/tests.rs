//! The ring and its subscriptions. Touches nothing.

use super::*;
use crate::base::time::{Mono, Wall};

const NOW: Now = Now { mono: Mono(0), wall: Wall(0) };

fn query(kinds: &[&str], names: &[&str], from: Option<u64>, limit: usize) -> EventQuery {
    let own = |l: &[&str]| l.iter().map(|s| (*s).to_owned()).collect();
    EventQuery { kinds: own(kinds), names: own(names), from, limit }
}

fn value(json: &str) -> serde_json::Value {
    serde_json::from_str(json).unwrap()
}

/// Each effect as one line: what tests compare.
fn told(out: &mut Out) -> Vec<String> {
    out.effects
        .drain(..)
        .map(|e| match e {
            Effect::Event { seq, line } => format!("event {seq} {line}"),
            Effect::Notify { conn, method, params, .. } => format!("{conn} {method} {params}"),
            Effect::Reply { req, result: Ok(r), .. } => format!("reply {req} {r}"),
            Effect::Reply { req, result: Err(e), .. } => format!("error {req} {e}"),
            other => format!("{other:?}"),
        })
        .collect()
}

fn emitted(n: u64) -> Events {
    let mut events = Events::default();
    for i in 0..n {
        events.emit(NOW, "service.exited", Some("web"), &format!("\"i\":{i}"), &mut Out::default());
    }
    events
}

#[test]
fn an_event_is_kept_before_it_is_told() {
    let (mut events, mut out) = (Events::default(), Out::default());
    events.subscribe(ConnId(1), ReqId(5), &query(&[], &[], None, 0), &mut out);
    assert_eq!(told(&mut out), [r#"reply 5 {"subscription":1,"next":1,"reset":false}"#]);
    events.emit(NOW, "daemon.reloaded", None, "", &mut out);
    let line = r#"{"seq":1,"time":"1970-01-01T00:00:00.000Z","kind":"daemon.reloaded"}"#;
    let want = [format!("event 1 {line}"), format!(r#"1 event {{"subscription":1,"event":{line}}}"#)];
    assert_eq!(told(&mut out), want);
    events.emit(NOW, "service.exited", Some("a\"b"), "\"exit_code\":1", &mut out);
    let first = told(&mut out).remove(0);
    let event = value(first.strip_prefix("event 2 ").unwrap());
    assert_eq!((event["name"].as_str(), event["exit_code"].as_u64()), (Some("a\"b"), Some(1)));
}

#[test]
fn only_what_is_wanted_is_told() {
    let (mut events, mut out) = (Events::default(), Out::default());
    events.subscribe(ConnId(1), ReqId(1), &query(&["service.*"], &["web", "a\"b"], None, 0), &mut out);
    events.subscribe(ConnId(2), ReqId(2), &query(&["*.exited", "daemon.up"], &[], None, 0), &mut out);
    told(&mut out);
    let mut heard = |kind, name| {
        events.emit(NOW, kind, name, "", &mut out);
        let told = told(&mut out);
        told.iter().filter(|l| !l.starts_with("event")).filter_map(|l| l.chars().next()).collect::<String>()
    };
    assert_eq!(heard("service.exited", Some("web")), "12");
    assert_eq!(heard("service.exited", Some("we")), "2");
    assert_eq!(heard("service.ready", Some("a\"b")), "1");
    assert_eq!(heard("service.ready", None), "");
    assert_eq!(heard("daemon.up", None), "2");
    assert_eq!(heard("daemon.upper", Some("web")), "");
}

#[test]
fn patterns_match_as_globs_do() {
    for (pattern, text, fits) in [
        ("*", "", true),
        ("*", "a.b", true),
        ("service.*", "service.", true),
        ("service.*", "services", false),
        ("*.a*b", "x.aab.ab", true),
        ("a*b*c", "abcb", false),
        ("a", "", false),
        ("", "", true),
    ] {
        assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), fits, "{pattern} {text}");
    }
}

#[test]
fn malformed_patterns_and_floods_of_them_are_refused() {
    let events = Events::default();
    let refused = |q: EventQuery| events.history(&q).unwrap_err().code;
    let long = "a".repeat(NAME_MAX + 1);
    for bad in ["", "Service.*", "a b", "a?", "\u{e4}", &long] {
        assert_eq!(refused(query(&[bad], &[], None, 1)), Code::InvalidParams);
    }
    assert_eq!(refused(query(&vec!["a"; EVENT_FILTERS_MAX + 1], &[], None, 1)), Code::InvalidParams);
    assert_eq!(refused(query(&[], &vec!["a"; EVENT_FILTERS_MAX + 1], None, 1)), Code::InvalidParams);
    assert_eq!(refused(query(&[], &[""], None, 1)), Code::InvalidParams);
    assert!(events.history(&query(&vec!["a"; EVENT_FILTERS_MAX], &[], None, 1)).is_ok());
}

#[test]
fn a_subscriber_resumes_where_it_was_or_is_told_to_start_anew() {
    let kept = u64::try_from(EVENTS_KEPT).unwrap();
    let mut events = emitted(kept + 10);
    let mut resume = |from| {
        let mut out = Out::default();
        events.subscribe(ConnId(1), ReqId(1), &query(&[], &[], Some(from), 0), &mut out);
        let told = told(&mut out);
        let reply = value(told[0].strip_prefix("reply 1 ").unwrap());
        (reply["reset"].as_bool().unwrap(), reply["oldest"].as_u64(), reply["next"].as_u64().unwrap(), told.len() - 1)
    };
    let next = kept + 11;
    assert_eq!(resume(next), (false, None, next, 0));
    assert_eq!(resume(next - 3), (false, None, next, 3));
    assert_eq!(resume(11), (false, None, next, EVENTS_KEPT));
    assert_eq!(resume(0), (false, None, next, EVENTS_KEPT));
    assert_eq!(resume(10), (true, Some(11), next, 0));
    assert_eq!(resume(next + 1), (true, Some(11), next, 0));
}

#[test]
fn numbers_of_lost_events_are_not_given_again_and_who_asks_for_them_is_told() {
    let mut events = emitted(5);
    events.skip_lost(Wall(-3));
    assert_eq!(events.next_seq(), 6 + LOST_MAX);
    events.skip_lost(Wall(1_800_000_000_000));
    let next = events.next_seq();
    assert_eq!(next, 1_800_000_000_000_000);
    events.emit(NOW, "daemon.up", None, "", &mut Out::default());
    for (from, gap) in [(0, false), (1, false), (5, false), (6, true), (77, true), (next - 1, true), (next, false)] {
        assert_eq!(events.is_gap(from), gap, "{from}");
    }
    assert!(!events.is_gap(next + 1) && events.is_gap(next + 2));
    let mut full = Events { next: EVENT_SEQ_END - 7, ..Events::default() };
    full.skip_lost(Wall(i64::MAX));
    assert_eq!(full.next_seq(), EVENT_SEQ_END - 7, "there is always room for more");
}

#[test]
fn the_backlog_keeps_to_the_filter_and_follows_the_reply() {
    let (mut events, mut out) = (emitted(2), Out::default());
    events.emit(NOW, "daemon.up", None, "", &mut Out::default());
    events.subscribe(ConnId(1), ReqId(1), &query(&["daemon.*"], &[], Some(1), 0), &mut out);
    let told = told(&mut out);
    assert_eq!(told.len(), 2);
    assert!(told[0].starts_with("reply 1") && told[1].contains("\"seq\":3"), "{told:?}");
}

#[test]
fn a_ring_survives_a_restart_and_bad_lines_do_not() {
    let mut before = emitted(5);
    before.emit(NOW, "service.ready", Some("a\\b\""), "", &mut Out::default());
    let mut lines: Vec<_> = before.ring.iter().map(|k| (k.seq, k.line.to_string())).collect();
    lines.insert(2, (77, "{\"seq\":77,\"time\":\"x".to_owned()));
    lines.insert(4, (2, lines[1].1.clone()));
    lines.push((8, lines[0].1.clone()));
    let after = Events::restore(lines);
    assert_eq!(after.next_seq(), before.next_seq());
    let all = query(&[], &[], None, 100);
    assert_eq!(after.history(&all), before.history(&all));
    let one = value(&after.history(&query(&["service.ready"], &["a\\b\""], None, 9)).unwrap());
    assert_eq!(one["events"][0]["name"], "a\\b\"");
    assert_eq!(Events::restore(Vec::new()).next_seq(), 1);
    // Of a damaged file, a number that leaves no room for others.
    for far in [u64::MAX - 1, u64::MAX, EVENT_SEQ_END] {
        let line = format!("{{\"seq\":{far},\"time\":\"x\",\"kind\":\"a.b\"}}");
        assert_eq!(Events::restore(vec![(far, line)]).next_seq(), 1, "{far}");
    }
}

#[test]
fn history_pages_without_gap_or_repeat() {
    let mut events = emitted(7);
    events.emit(NOW, "daemon.up", None, "", &mut Out::default());
    let page = |from, limit| {
        let v = value(&events.history(&query(&["service.*"], &[], from, limit)).unwrap());
        let seqs: Vec<_> = v["events"].as_array().unwrap().iter().map(|e| e["seq"].as_u64().unwrap()).collect();
        (seqs, v["next"].as_u64().unwrap(), v["reset"].as_bool().unwrap())
    };
    assert_eq!(page(None, 2), (vec![6, 7], 9, false));
    assert_eq!(page(Some(1), 3), (vec![1, 2, 3], 4, false));
    assert_eq!(page(Some(4), 4), (vec![4, 5, 6, 7], 9, false));
    assert_eq!(page(Some(20), 4), (vec![], 9, true));
}

#[test]
fn the_number_of_subscriptions_is_bounded_for_each_connection() {
    let (mut events, mut out) = (Events::default(), Out::default());
    let all = query(&[], &[], None, 0);
    for _ in 0..STREAMS_PER_CONNECTION_MAX {
        events.subscribe(ConnId(1), ReqId(1), &all, &mut out);
    }
    out.effects.clear();
    events.subscribe(ConnId(1), ReqId(2), &all, &mut out);
    assert!(matches!(&out.effects[..], [Effect::Reply { result: Err(e), .. }] if e.code == Code::Busy));
    out.effects.clear();
    events.subscribe(ConnId(2), ReqId(3), &all, &mut out);
    assert!(told(&mut out)[0].starts_with("reply 3"));
    assert!(events.unsubscribe(ConnId(1), 1).is_ok());
    events.subscribe(ConnId(1), ReqId(4), &all, &mut out);
    assert!(told(&mut out)[0].starts_with("reply 4"));
}

#[test]
fn numbers_of_subscriptions_do_not_repeat_while_they_are_open() {
    let (mut events, mut out) = (Events::default(), Out::default());
    let all = query(&[], &[], None, 0);
    events.subscribe(ConnId(1), ReqId(1), &all, &mut out);
    events.last_id = SUBSCRIPTIONS_END - 2;
    events.subscribe(ConnId(1), ReqId(1), &all, &mut out);
    events.subscribe(ConnId(1), ReqId(1), &all, &mut out);
    let ids: Vec<u32> = events.subscriptions.keys().map(|k| k.0).collect();
    assert_eq!(ids, [1, 2, SUBSCRIPTIONS_END - 1]);
}

#[test]
fn a_subscription_ends_with_its_connection_when_it_lags_and_on_request() {
    let (mut events, mut out) = (emitted(3), Out::default());
    let all = query(&[], &[], None, 0);
    for conn in 1..=3 {
        events.subscribe(ConnId(conn), ReqId(conn), &all, &mut out);
    }
    out.effects.clear();
    assert_eq!(events.unsubscribe(ConnId(2), 1).unwrap_err().code, Code::NotFound);
    events.lagged(ConnId(2), StreamId(1), &mut out);
    assert!(out.effects.is_empty(), "a stranger cannot end it");
    events.lagged(ConnId(1), StreamId(1), &mut out);
    assert_eq!(told(&mut out), [r#"1 event.lagged {"subscription":1,"resume_from":4}"#]);
    events.lagged(ConnId(1), StreamId(1), &mut out);
    assert!(out.effects.is_empty(), "a second report of the same is late");
    events.closed(ConnId(2));
    assert!(events.unsubscribe(ConnId(3), 3).is_ok());
    events.emit(NOW, "daemon.up", None, "", &mut out);
    assert_eq!(out.effects.len(), 1);
}
