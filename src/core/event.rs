//! The event ring and its subscriptions. Pure: events come in as facts of the core, leave as effects, and are kept as
//! the JSON lines that subscribers get, so that nothing is rendered twice.

use super::{Effect, Out};
use crate::base::ids::{ConnId, ReqId, RunId, StreamId};
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

    /// The last events may be missing: no number that one of them had is given again. The clock on the wall, in
    /// microseconds, counts faster than events come; where it stands wrong, a large step has to do.
    pub fn skip_lost(&mut self, wall: Wall) {
        let wall = u64::try_from(wall.0).unwrap_or(0).saturating_mul(1000);
        let far = if wall > self.next { wall } else { self.next.saturating_add(LOST_MAX) };
        self.next = far.min(EVENT_SEQ_END / 2).max(self.next);
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

    /// When an event of this kind was emitted for this run of a service, if it is kept.
    #[must_use]
    pub fn told(&self, kind: &str, name: &str, run: RunId) -> Option<Wall> {
        let query = EventQuery { kinds: vec![kind.to_owned()], names: vec![name.to_owned()], from: None, limit: 1 };
        let filter = Filter::new(&query).ok()?;
        let of_run = |line: &str| [',', '}'].iter().any(|end| line.contains(&format!("\"run\":{run}{end}")));
        let line = self.ring.iter().rev().map(|k| &*k.line).find(|line| filter.wants_line(line) && of_run(line))?;
        Wall::parse(line.split_once("\"time\":\"")?.1.split('"').next()?)
    }

    /// Whether an event of this kind with these fields is kept.
    #[must_use]
    pub fn has(&self, kind: &str, fields: &str) -> bool {
        self.ring.iter().any(|k| k.line.contains(fields) && head(&k.line).is_some_and(|h| h.kind == kind))
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
        debug_assert!(serde_json::from_str::<serde::de::IgnoredAny>(&line).is_ok(), "{line}");
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

    /// Those that are kept of what has such a name, as kinds, names and lines, oldest first. A name is one that stands
    /// in its line as it is.
    pub(super) fn named<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a str, &'a str)> {
        let named = |k: &'a Kept| head(&k.line).and_then(|h| Some((h.kind, h.name?, &*k.line)));
        self.ring.iter().filter_map(named).filter(move |(_, name, _)| name.starts_with(prefix))
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
mod tests;
