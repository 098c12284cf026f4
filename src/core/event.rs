//! The event ring and its subscriptions. Pure: events come in as facts of the core, leave as effects, and are kept as
//! the JSON lines that subscribers get, so that nothing is rendered twice.

use super::{Effect, Out};
use crate::base::ids::{ConnId, ReqId, StreamId};
use crate::base::json::{Obj, json_str};
use crate::base::limits::{EVENT_FILTERS_MAX, EVENT_SEQ_END, EVENTS_KEPT, NAME_MAX, STREAMS_PER_CONNECTION_MAX};
use crate::base::map::Map;
use crate::base::time::{Now, Wall};
use crate::protocol::methods::EventQuery;
use crate::protocol::rpc::{Code, RpcError};
use core::fmt::Write as _;
use std::collections::VecDeque;

/// Subscriptions are numbered below this; the upper half of the numbers is for the log streams that the shell opens.
pub const SUBSCRIPTIONS_END: u32 = 1 << 31;
/// More events than a machine makes between two moments at which its disk has all.
const LOST_MAX: u64 = 1_000_000;

/// The last events and who listens.
#[derive(Debug)]
pub struct Events {
    ring: VecDeque<Kept>,
    /// Sequence number of the next event, at least 1.
    next: u64,
    /// That of the first after the last loss; 0: there was none.
    since_loss: u64,
    subscriptions: Map<StreamId, Subscription>,
    last_id: u32,
}

#[derive(Debug)]
struct Kept {
    seq: u64,
    line: Box<str>,
}

#[derive(Debug)]
struct Subscription {
    conn: ConnId,
    filter: Filter,
}

/// What a query wants. Empty lists want everything.
#[derive(Debug)]
struct Filter {
    kinds: Vec<String>,
    /// As they stand in the lines: escaped, without quotes.
    names: Vec<String>,
}

impl Default for Events {
    fn default() -> Self {
        Events { ring: VecDeque::new(), next: 1, since_loss: 0, subscriptions: Map::new(), last_id: 0 }
    }
}

impl Events {
    /// Takes over the ring of an earlier daemon, oldest first. Lines that are not events, or whose number does not
    /// rise, are left out.
    #[must_use]
    pub fn restore(lines: Vec<(u64, String)>) -> Events {
        let mut events = Events::default();
        for (seq, line) in lines {
            if seq >= events.next && seq < EVENT_SEQ_END && head(&line).is_some_and(|h| h.seq == seq) {
                events.keep(seq, line.into_boxed_str());
            }
        }
        events
    }

    /// The last events may be missing: no number that one of them had is given again. The clock on the wall counts
    /// faster than events come over the years; where it stands wrong, the least step has to do.
    pub fn skip_lost(&mut self, wall: Wall) {
        let wall = u64::try_from(wall.0).unwrap_or(0);
        self.next = wall.max(self.next.saturating_add(LOST_MAX)).min(EVENT_SEQ_END / 2).max(self.next);
        self.since_loss = self.next;
    }

    /// What `since_loss` answered the daemon that saw the loss.
    pub fn restore_loss(&mut self, since_loss: u64) {
        self.since_loss = since_loss;
        self.next = self.next.max(since_loss);
    }

    /// The number of the first event after the last loss; 0 when there was none.
    #[must_use]
    pub fn since_loss(&self) -> u64 {
        self.since_loss
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    fn keep(&mut self, seq: u64, line: Box<str>) {
        if self.ring.len() >= EVENTS_KEPT {
            self.ring.pop_front();
        }
        self.ring.push_back(Kept { seq, line });
        self.next = seq + 1;
    }

    /// Sequence number that the next event gets.
    #[must_use]
    pub fn next_seq(&self) -> u64 {
        self.next
    }

    /// A new event: to the ring first, then to each subscription that wants it. `fields` are JSON members without
    /// braces, and may be empty.
    pub fn emit(&mut self, now: Now, kind: &'static str, name: Option<&str>, fields: &str, out: &mut Out) {
        let seq = self.next;
        let mut line = format!("{{\"seq\":{seq},\"time\":\"{}\",\"kind\":\"{kind}\"", now.wall);
        if let Some(name) = name {
            line.push_str(",\"name\":");
            json_str(name, &mut line);
        }
        if !fields.is_empty() {
            line.push(',');
            line.push_str(fields);
        }
        line.push('}');
        out.effects.push(Effect::Event { seq, line: line.clone() });
        if let Some(head) = head(&line) {
            for (id, s) in self.subscriptions.iter().filter(|(_, s)| s.filter.wants(&head)) {
                out.effects.push(notification(s.conn, *id, &line));
            }
        }
        self.keep(seq, line.into_boxed_str());
    }

    /// Answers `event.subscribe`: appends the reply to `req`, and after it what the ring has from `query.from` on.
    ///
    /// The reply is `{"subscription", "next", "reset"}`. `reset` is true, with `oldest`, when the events between
    /// `from` and `next` are not all there: they have left the ring, or the ring itself fell back and `from` lies
    /// ahead of it. Then nothing is sent again and the caller has to read the present state. `from` 0 asks for all
    /// that is kept.
    pub fn subscribe(&mut self, conn: ConnId, req: ReqId, query: &EventQuery, out: &mut Out) {
        let made = Filter::new(query).and_then(|filter| Ok((self.free_id(conn)?, filter)));
        let (id, filter) = match made {
            Ok(made) => made,
            Err(e) => return out.effects.push(Effect::Reply { req, result: Err(e), durable: false }),
        };
        let reset = query.from.is_some_and(|from| self.is_gap(from));
        let mut reply = Obj::new();
        reply.u64("subscription", id.0.into()).u64("next", self.next).bool("reset", reset);
        if reset {
            reply.u64("oldest", self.oldest());
        }
        out.effects.push(Effect::Reply { req, result: Ok(reply.finish()), durable: false });
        if let Some(from) = query.from
            && !reset
        {
            for kept in self.since(from).filter(|k| filter.wants_line(&k.line)) {
                out.effects.push(notification(conn, id, &kept.line));
            }
        }
        self.subscriptions.insert(id, Subscription { conn, filter });
    }

    fn free_id(&mut self, conn: ConnId) -> Result<StreamId, RpcError> {
        if self.subscriptions.values().filter(|s| s.conn == conn).count() >= STREAMS_PER_CONNECTION_MAX {
            return Err(RpcError::new(
                Code::Busy,
                format!("this connection has {STREAMS_PER_CONNECTION_MAX} subscriptions"),
            )
            .hint("end some with event.unsubscribe, or name several kinds in one subscription"));
        }
        // Numbers repeat after two thousand million subscriptions; those still open are passed over.
        loop {
            self.last_id = if self.last_id + 1 < SUBSCRIPTIONS_END { self.last_id + 1 } else { 1 };
            if !self.subscriptions.contains_key(&StreamId(self.last_id)) {
                return Ok(StreamId(self.last_id));
            }
        }
    }

    /// Answers `event.unsubscribe`.
    ///
    /// # Errors
    /// `NotFound` when this connection has no such subscription.
    pub fn unsubscribe(&mut self, conn: ConnId, id: u32) -> Result<String, RpcError> {
        match self.subscriptions.get(&StreamId(id)) {
            Some(s) if s.conn == conn => {
                self.subscriptions.remove(&StreamId(id));
                Ok(Obj::new().bool("unsubscribed", true).finish())
            }
            _ => Err(RpcError::new(Code::NotFound, format!("this connection has no subscription {id}"))
                .hint("it may have ended with an event.lagged notification; subscribe again with `from`")),
        }
    }

    /// The connection is gone, and its subscriptions with it.
    pub fn closed(&mut self, conn: ConnId) {
        self.subscriptions.retain(|_, s| s.conn != conn);
    }

    /// Ends a subscription whose connection does not keep up. All events so far were queued for it, so the caller
    /// resumes with the next one.
    pub fn lagged(&mut self, conn: ConnId, id: StreamId, out: &mut Out) {
        if self.subscriptions.get(&id).is_none_or(|s| s.conn != conn) {
            return;
        }
        self.subscriptions.remove(&id);
        let mut params = Obj::new();
        params.u64("subscription", id.0.into()).u64("resume_from", self.next);
        out.effects.push(Effect::Notify { conn, stream: id, method: "event.lagged", params: params.finish() });
    }

    /// Answers `event.history`: `{"events", "next", "reset"}`. Without `from` the last `limit` events that match,
    /// with it the first `limit` from there on; `next` is where to go on.
    ///
    /// # Errors
    /// `InvalidParams` when a pattern or name is malformed.
    pub fn history(&self, query: &EventQuery) -> Result<String, RpcError> {
        let filter = Filter::new(query)?;
        let mut next = self.next;
        let mut lines: Vec<&str> = Vec::new();
        if let Some(from) = query.from {
            for kept in self.since(from).filter(|k| filter.wants_line(&k.line)) {
                if lines.len() >= query.limit {
                    next = kept.seq;
                    break;
                }
                lines.push(&kept.line);
            }
        } else {
            let last = self.ring.iter().rev().filter(|k| filter.wants_line(&k.line));
            lines.extend(last.take(query.limit).map(|k| &*k.line));
            lines.reverse();
        }
        let reset = query.from.is_some_and(|from| self.is_gap(from));
        let mut reply = Obj::new();
        reply.raw("events", &format!("[{}]", lines.join(","))).u64("next", next).bool("reset", reset);
        if reset {
            reply.u64("oldest", self.oldest());
        }
        Ok(reply.finish())
    }

    /// The lines that are kept of something, oldest first. Its name is one that stands in them as it is.
    pub(super) fn of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.ring.iter().map(|k| &*k.line).filter(move |line| head(line).is_some_and(|h| h.name == Some(name)))
    }

    fn oldest(&self) -> u64 {
        self.ring.front().map_or(self.next, |k| k.seq)
    }

    /// Numbers that the ring lacks are those of events that were lost.
    fn is_gap(&self, from: u64) -> bool {
        let is_kept = || self.ring.binary_search_by_key(&from, |k| k.seq).is_ok();
        from != 0 && from != self.next && !is_kept()
    }

    fn since(&self, from: u64) -> impl Iterator<Item = &Kept> {
        let at = self.ring.partition_point(|k| k.seq < from);
        self.ring.range(at..)
    }
}

fn notification(conn: ConnId, id: StreamId, line: &str) -> Effect {
    let mut params = String::with_capacity(line.len() + 40);
    // Writing to a String cannot fail.
    let _ = write!(params, "{{\"subscription\":{id},\"event\":{line}}}");
    Effect::Notify { conn, stream: id, method: "event", params }
}

/// The members that every line begins with, as text of the line.
#[derive(Debug, PartialEq, Eq)]
struct Head<'a> {
    seq: u64,
    kind: &'a str,
    /// Still escaped.
    name: Option<&'a str>,
}

/// Reads the beginning of a line made by `Events::emit`; `None` for any other text.
fn head(line: &str) -> Option<Head<'_>> {
    if !line.ends_with('}') {
        return None;
    }
    let (seq, rest) = line.strip_prefix("{\"seq\":")?.split_once(",\"time\":\"")?;
    let (_, rest) = rest.split_once("\",\"kind\":\"")?;
    let (kind, rest) = rest.split_once('"')?;
    let name = match rest.strip_prefix(",\"name\":\"") {
        Some(rest) => Some(rest.get(..string_end(rest)?)?),
        None => None,
    };
    Some(Head { seq: seq.parse().ok()?, kind, name })
}

/// The kind of an event, from its line.
#[must_use]
pub fn event_kind(line: &str) -> Option<&str> {
    head(line).map(|h| h.kind)
}

/// Where the JSON string that `rest` is inside of ends.
fn string_end(rest: &str) -> Option<usize> {
    let mut escaped = false;
    rest.bytes().position(|b| {
        let end = b == b'"' && !escaped;
        escaped = b == b'\\' && !escaped;
        end
    })
}

impl Filter {
    fn new(query: &EventQuery) -> Result<Filter, RpcError> {
        if query.kinds.len() > EVENT_FILTERS_MAX || query.names.len() > EVENT_FILTERS_MAX {
            return Err(RpcError::new(Code::InvalidParams, format!("more than {EVENT_FILTERS_MAX} kinds or names"))
                .hint("use patterns such as service.*, or leave the names out"));
        }
        for kind in &query.kinds {
            let known = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-*".contains(&b);
            if kind.is_empty() || kind.len() > NAME_MAX || !kind.bytes().all(known) {
                return Err(RpcError::new(Code::InvalidParams, format!("{kind:?} is not a pattern of event kinds"))
                    .hint("kinds look like service.exited, service.* or *"));
            }
        }
        // A name inside a project carries the project's name and a slash before it.
        if let Some(name) = query.names.iter().find(|n| n.is_empty() || n.len() > 2 * NAME_MAX + 1) {
            return Err(RpcError::new(Code::InvalidParams, format!("{name:?} is not a name")));
        }
        let names = query.names.iter().map(|n| {
            let mut escaped = String::new();
            json_str(n, &mut escaped);
            escaped.pop();
            escaped.remove(0);
            escaped
        });
        Ok(Filter { kinds: query.kinds.clone(), names: names.collect() })
    }

    fn wants(&self, head: &Head<'_>) -> bool {
        (self.kinds.is_empty() || self.kinds.iter().any(|k| matches(k.as_bytes(), head.kind.as_bytes())))
            && (self.names.is_empty() || head.name.is_some_and(|name| self.names.iter().any(|n| is_or_has(n, name))))
    }

    fn wants_line(&self, line: &str) -> bool {
        head(line).is_some_and(|h| self.wants(&h))
    }
}

/// Whether `name` is this service or an instance of it.
fn is_or_has(service: &str, name: &str) -> bool {
    name.strip_prefix(service).is_some_and(|rest| rest.is_empty() || rest.len() > 1 && rest.starts_with('@'))
}

/// Whether `text` fits `pattern`, in which `*` stands for any number of bytes. Takes at most pattern times text steps.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p, t));
            p += 1;
        } else if pattern.get(p) == text.get(t) {
            p += 1;
            t += 1;
        } else if let Some((at, from)) = star {
            star = Some((at, from + 1));
            p = at + 1;
            t = from + 1;
        } else {
            return false;
        }
    }
    pattern.iter().skip(p).all(|b| *b == b'*')
}

#[cfg(test)]
mod tests {
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
            (
                reply["reset"].as_bool().unwrap(),
                reply["oldest"].as_u64(),
                reply["next"].as_u64().unwrap(),
                told.len() - 1,
            )
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
        events.skip_lost(Wall(3));
        assert_eq!(events.next_seq(), 6 + LOST_MAX);
        events.skip_lost(Wall(1_800_000_000_000));
        let next = events.next_seq();
        assert_eq!(next, 1_800_000_000_000);
        events.emit(NOW, "daemon.up", None, "", &mut Out::default());
        for (from, gap) in [(0, false), (1, false), (5, false), (6, true), (77, true), (next - 1, true), (next, false)]
        {
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
}
