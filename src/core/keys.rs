//! Request keys: a request that is sent again with its key is carried out once and answered the same. Pure.
//!
//! A key belongs to a uid. While its request is open, a repetition joins it; once it is answered, the reply is kept,
//! in the journal too, so that a repetition after a death of the daemon finds it. Refusals before anything was done
//! are not kept. What would do harm when done twice and is answered later is noted in the journal when it begins.
//!
//! Time: awake time alone decides here, so no step of the wall clock can lose a key. A record carries its end in
//! awake time together with the identity of the boot, so that a later daemon of the same boot goes on exactly. After
//! a boot only the wall clock is left to say how old a record is; whatever it says, the record then lives for another
//! `KEPT_REPLY_MIN_AGE`. Nothing here needs to be woken: old replies are dropped when they are looked at or room is
//! made.

use super::Out;
use super::record::Entity;
use crate::base::ids::{ConnId, ReqId};
use crate::base::json::Obj;
use crate::base::limits::{KEPT_REPLIES_MAX, KEPT_REPLY_AGE, KEPT_REPLY_BYTES, KEPT_REPLY_MIN_AGE};
use crate::base::time::{Mono, Now, Wall};
use crate::protocol::rpc::{Code, RpcError};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Version of the record.
const VERSION: u64 = 1;
const PREFIX: &str = "key/";

/// What is to be done with a request that carries a key.
#[derive(Debug, PartialEq)]
pub enum Verdict {
    /// Carry it out, then call `Keys::finish`.
    New,
    /// The same request is being carried out; `finish` of that one names this one too.
    Join,
    /// A daemon before this one began to carry it out: do nothing anew, wait for what it leads to, then call `finish`.
    Resume,
    /// It was carried out: answer this.
    Replay(Result<String, RpcError>),
    /// The key was used for another request.
    Conflict(RpcError),
    /// No room for another key now.
    Full(RpcError),
}

/// The name of the record: `key/UID/KEY`.
type Key = Arc<str>;

/// All open and all kept keys.
#[derive(Debug, Default)]
pub struct Keys {
    /// Tells one boot under one keeper from another.
    boot: u64,
    open: BTreeMap<Key, Open>,
    /// Which key a request holds or has joined.
    holders: BTreeMap<ReqId, Key>,
    kept: BTreeMap<Key, Kept>,
    /// Kept keys in the order in which they are dropped; the number tells apart what ends at the same time.
    order: BTreeMap<(Mono, u64), Key>,
    ticket: u64,
}

#[derive(Debug)]
struct Open {
    hash: u64,
    /// The request that is being carried out; it counts even when its connection is gone.
    first: ReqId,
    joined: Vec<(ReqId, ConnId)>,
    /// A daemon before this one began it.
    resumed: bool,
}

#[derive(Debug)]
struct Kept {
    hash: u64,
    reply: Reply,
    /// When it was finished.
    wall: Wall,
    /// Not dropped before this, whatever the need for room.
    guarded: Mono,
    place: (Mono, u64),
}

#[derive(Debug)]
enum Reply {
    /// None yet: it has begun.
    Begun,
    Done(Box<str>),
    Failed(RpcError),
    /// Done, but the reply was over `KEPT_REPLY_BYTES`.
    TooLarge,
}

impl Keys {
    /// `keeper_key` is the identity of keeper and boot: readings of the monotonic clock in records of the same one
    /// hold.
    #[must_use]
    pub fn new(keeper_key: &str) -> Keys {
        // FNV-1a: a change of boot has to be noticed, nobody has to be withstood.
        let boot = keeper_key
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325, |h: u64, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
        Keys { boot, ..Keys::default() }
    }

    /// Takes over a record of an earlier daemon. False for what is not a record of a key that this version understands.
    pub fn restore(&mut self, now: Now, entity: &Entity) -> bool {
        let Some((key, record)) = parse(entity) else { return false };
        let (wall, until) = (Wall(record.wall), Mono(record.until));
        let (guarded, until) = if record.boot == self.boot && until <= now.mono + KEPT_REPLY_AGE {
            (until - (KEPT_REPLY_AGE - KEPT_REPLY_MIN_AGE), until)
        } else {
            let left = KEPT_REPLY_AGE.saturating_sub(now.wall.since(wall)).max(KEPT_REPLY_MIN_AGE);
            (now.mono + KEPT_REPLY_MIN_AGE, now.mono + left)
        };
        let (hash, reply) = (record.hash, record.reply());
        self.keep(key, Kept { hash, reply, wall, guarded, place: (until, 0) });
        true
    }

    /// Whether an entity of the journal belongs here.
    #[must_use]
    pub fn owns(entity_key: &str) -> bool {
        entity_key.starts_with(PREFIX)
    }

    /// Decides about a request with a key. After `New`, `finish` must follow at the latest when the request is
    /// answered.
    pub fn begin(&mut self, now: Now, who: (u32, ConnId), key: &str, params_hash: u64, req: ReqId) -> Verdict {
        let (uid, conn) = who;
        let key: Key = format!("{PREFIX}{uid}/{key}").into();
        if let Some(open) = self.open.get_mut(&key) {
            if open.hash != params_hash {
                return Verdict::Conflict(conflict(&key));
            }
            open.joined.push((req, conn));
            self.holders.insert(req, key);
            return Verdict::Join;
        }
        if let Some(kept) = self.kept.get(&key).filter(|k| now.mono < k.place.0) {
            if kept.hash != params_hash {
                return Verdict::Conflict(conflict(&key));
            }
            if !matches!(kept.reply, Reply::Begun) {
                return Verdict::Replay(kept.reply.result());
            }
            self.open_for(key, params_hash, req, true);
            return Verdict::Resume;
        }
        if !self.has_room(now) {
            return Verdict::Full(
                RpcError::new(Code::Busy, format!("{KEPT_REPLIES_MAX} request keys are in use"))
                    .hint("try again in a minute, or send the request without request_key"),
            );
        }
        self.open_for(key, params_hash, req, false);
        Verdict::New
    }

    fn open_for(&mut self, key: Key, hash: u64, first: ReqId, resumed: bool) {
        self.open.insert(key.clone(), Open { hash, first, joined: Vec::new(), resumed });
        self.holders.insert(first, key);
    }

    /// A request that was `New` does in this step what must not be done again, and is answered in a later one. Appends the
    /// record of that. A request without a key changes nothing.
    pub fn note(&mut self, now: Now, req: ReqId, out: &mut Out) {
        let Some(key) = self.holders.get(&req).cloned() else { return };
        let Some(hash) = self.open.get(&key).filter(|o| o.first == req && !o.resumed).map(|o| o.hash) else { return };
        self.put(now, key, hash, Reply::Begun, out);
    }

    fn put(&mut self, now: Now, key: Key, hash: u64, reply: Reply, out: &mut Out) {
        self.make_room(now, out);
        let (guarded, until) = (now.mono + KEPT_REPLY_MIN_AGE, now.mono + KEPT_REPLY_AGE);
        let kept = Kept { hash, reply, wall: now.wall, guarded, place: (until, 0) };
        out.records.push(self.entity(&key, &kept));
        self.keep(key, kept);
    }

    /// Whether `req` goes on with what a daemon before this one began.
    #[must_use]
    pub fn is_resumed(&self, req: ReqId) -> bool {
        self.holders.get(&req).and_then(|k| self.open.get(k)).is_some_and(|o| o.resumed)
    }

    /// Whether one more key could be kept, if all open ones are to be kept too.
    fn has_room(&self, now: Now) -> bool {
        let wanted = self.kept.len() + self.open.len() + 1;
        let Some(to_drop) = wanted.checked_sub(KEPT_REPLIES_MAX + 1) else { return true };
        self.order.values().nth(to_drop).and_then(|k| self.kept.get(k)).is_some_and(|k| k.guarded <= now.mono)
    }

    /// A request that was `New` has its result. With `keep` it is kept: appends its record, and those of what is
    /// dropped for it. Without, nothing was done, and a repetition is tried anew. Returns the requests that joined:
    /// they get the same answer. Any other request changes nothing.
    #[must_use]
    pub fn finish(
        &mut self,
        now: Now,
        req: ReqId,
        result: &Result<String, RpcError>,
        keep: bool,
        out: &mut Out,
    ) -> Vec<ReqId> {
        let Some(key) = self.holders.get(&req).cloned() else { return Vec::new() };
        if self.open.get(&key).is_none_or(|o| o.first != req) {
            return Vec::new();
        }
        let Some(open) = self.open.remove(&key) else { return Vec::new() };
        self.holders.remove(&req);
        for (joined, _) in &open.joined {
            self.holders.remove(joined);
        }
        // Without a reply to keep, a note that it has begun stays: a repetition still must not begin it again.
        if let Some(reply) = Reply::of(result).filter(|_| keep) {
            if let Some(place) = self.kept.get(&key).filter(|k| matches!(k.reply, Reply::Begun)).map(|k| k.place) {
                self.order.remove(&place);
                self.kept.remove(&key);
            }
            self.put(now, key, open.hash, reply, out);
        }
        open.joined.into_iter().map(|(req, _)| req).collect()
    }

    /// A connection is gone: its requests that joined another need no answer. The first of each key goes on, so that a
    /// repetition still finds it: its owner calls `finish` when the work has ended.
    pub fn closed(&mut self, conn: ConnId) {
        for open in self.open.values_mut() {
            for (req, _) in open.joined.extract_if(.., |(_, of)| *of == conn) {
                self.holders.remove(&req);
            }
        }
    }

    /// Whether `req` was `New` and has no result yet: its work has to go on even though its connection closed.
    #[must_use]
    pub fn is_open(&self, req: ReqId) -> bool {
        self.holders.get(&req).and_then(|k| self.open.get(k)).is_some_and(|o| o.first == req)
    }

    /// Keys held, open and kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.open.len() + self.kept.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open.is_empty() && self.kept.is_empty()
    }

    /// For a snapshot: up to `max` records whose names follow `after`, in the order of their names. What has reached
    /// its age is left out.
    #[must_use]
    pub fn entities_from(&self, now: Now, after: &str, max: usize) -> Vec<Entity> {
        use core::ops::Bound::{Excluded, Unbounded};
        let live = self.kept.range::<str, _>((Excluded(after), Unbounded)).filter(|(_, kept)| now.mono < kept.place.0);
        live.take(max).map(|(key, kept)| self.entity(key, kept)).collect()
    }

    fn keep(&mut self, key: Key, mut kept: Kept) {
        self.ticket += 1;
        kept.place.1 = self.ticket;
        self.order.insert(kept.place, key.clone());
        if let Some(old) = self.kept.insert(key, kept) {
            self.order.remove(&old.place);
        }
    }

    /// Drops what has reached its age, and the oldest one if all places are taken. `begin` saw to it that it may go.
    fn make_room(&mut self, now: Now, out: &mut Out) {
        while let Some((place, _)) = self.order.first_key_value() {
            if now.mono < place.0 && self.kept.len() < KEPT_REPLIES_MAX {
                break;
            }
            let Some((_, key)) = self.order.pop_first() else { break };
            self.kept.remove(&key);
            out.records.push(Entity { key: key.to_string(), json: None });
        }
    }

    fn entity(&self, key: &Key, kept: &Kept) -> Entity {
        let mut o = Obj::new();
        o.u64("v", VERSION).u64("hash", kept.hash);
        o.i64("wall", kept.wall.0).u64("until", kept.place.0.0).u64("boot", self.boot);
        match &kept.reply {
            Reply::Done(json) => o.raw("ok", json),
            Reply::Failed(e) => {
                let mut error = Obj::new();
                error.str("code", kept_code(e.code).unwrap_or(INTERNAL)).str("message", &e.message);
                if let Some(hint) = &e.hint {
                    error.str("hint", hint);
                }
                o.raw("error", &error.finish())
            }
            Reply::Begun => o.bool("open", true),
            Reply::TooLarge => &mut o,
        };
        Entity { key: key.to_string(), json: Some(o.finish()) }
    }
}

impl Reply {
    /// What to keep of a result, if anything.
    fn of(result: &Result<String, RpcError>) -> Option<Reply> {
        match result {
            Ok(json) if json.len() > KEPT_REPLY_BYTES => Some(Reply::TooLarge),
            Ok(json) => Some(Reply::Done(json.as_str().into())),
            Err(e) => {
                kept_code(e.code)?;
                let bytes = e.message.len() + e.hint.as_ref().map_or(0, String::len);
                Some(if bytes > KEPT_REPLY_BYTES { Reply::TooLarge } else { Reply::Failed(e.clone()) })
            }
        }
    }

    fn result(&self) -> Result<String, RpcError> {
        match self {
            Reply::Done(json) => Ok(json.to_string()),
            Reply::Failed(e) => Err(e.clone()),
            Reply::Begun | Reply::TooLarge => Err(RpcError::new(
                Code::Unavailable,
                "this request was carried out before; its reply was too large to keep",
            )
            .hint("ask for the present state instead; it was not carried out again")),
        }
    }
}

const UNAVAILABLE: &str = "unavailable";
const FILE_SYSTEM: &str = "file_system";
const INTERNAL: &str = "internal";

/// The word for an error that tells of work done. `None` for refusals: nothing was done, so a repetition is tried anew.
fn kept_code(code: Code) -> Option<&'static str> {
    match code {
        Code::Unavailable => Some(UNAVAILABLE),
        Code::FileSystem => Some(FILE_SYSTEM),
        Code::Internal => Some(INTERNAL),
        Code::Parse
        | Code::InvalidRequest
        | Code::MethodNotFound
        | Code::InvalidParams
        | Code::PermissionDenied
        | Code::NotFound
        | Code::Busy
        | Code::SudoDenied
        | Code::ShuttingDown
        | Code::Conflict => None,
    }
}

fn conflict(key: &Key) -> RpcError {
    let own = key.splitn(3, '/').nth(2).unwrap_or_default();
    RpcError::new(Code::Conflict, format!("request_key {own:?} was used for a request with other params"))
        .hint("use a new key for each new request; send the same params to repeat one")
}

/// A record as it is read. Unknown members are of a later version and do no harm.
#[derive(Deserialize)]
struct Record {
    v: u64,
    hash: u64,
    wall: i64,
    /// Awake time at which it may go, in the boot named beside it.
    until: u64,
    boot: u64,
    #[serde(default)]
    open: bool,
    ok: Option<Box<RawValue>>,
    error: Option<RecordError>,
}

#[derive(Deserialize)]
struct RecordError {
    code: String,
    message: String,
    hint: Option<String>,
}

impl Record {
    fn reply(self) -> Reply {
        match (self.ok, self.error) {
            (Some(json), _) => Reply::Done(json.get().into()),
            (None, Some(e)) => {
                let code = match e.code.as_str() {
                    UNAVAILABLE => Code::Unavailable,
                    FILE_SYSTEM => Code::FileSystem,
                    _ => Code::Internal,
                };
                Reply::Failed(RpcError { code, message: e.message, hint: e.hint })
            }
            (None, None) if self.open => Reply::Begun,
            (None, None) => Reply::TooLarge,
        }
    }
}

fn parse(entity: &Entity) -> Option<(Key, Record)> {
    let (uid, _) = entity.key.strip_prefix(PREFIX)?.split_once('/')?;
    uid.parse::<u32>().ok()?;
    let record: Record = serde_json::from_str(entity.json.as_deref()?).ok()?;
    (record.v == VERSION).then(|| (entity.key.as_str().into(), record))
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::time::Duration;

    const HOUR: u64 = 3600;
    const CONN: ConnId = ConnId(1);

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
        assert_eq!(keys.begin(now, (7, CONN), key, 1, req), Verdict::New);
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
        assert_eq!(keys.begin(at(0, 0), (7, CONN), "a", 1, ReqId(1)), Verdict::New);
        assert_eq!(keys.begin(at(0, 0), (7, ConnId(2)), "a", 1, ReqId(2)), Verdict::Join);
        assert_eq!(
            keys.begin(at(0, 0), (8, CONN), "a", 2, ReqId(3)),
            Verdict::New,
            "another user's key is another key"
        );
        assert!(matches!(
            keys.begin(at(0, 0), (7, CONN), "a", 2, ReqId(4)),
            Verdict::Conflict(e) if e.code == Code::Conflict
        ));
        assert_eq!(keys.begin(at(0, 0), (7, CONN), "a", 1, ReqId(5)), Verdict::Join);
        keys.closed(ConnId(2));
        assert!(keys.is_open(ReqId(1)) && !keys.is_open(ReqId(5)));
        assert_eq!(keys.finish(at(1, 1), ReqId(5), &ok("{}"), true, &mut out), [], "only the first one has a result");
        assert_eq!(keys.finish(at(1, 1), ReqId(1), &ok("{\"a\":1}"), true, &mut out), [ReqId(5)]);
        assert_eq!(keys.finish(at(1, 1), ReqId(1), &ok("{}"), true, &mut out), []);
        assert_eq!(out.records.len(), 1);
        assert_eq!(keys.begin(at(2, 2), (7, CONN), "a", 1, ReqId(6)), Verdict::Replay(ok("{\"a\":1}")));
        assert!(matches!(keys.begin(at(2, 2), (7, CONN), "a", 2, ReqId(7)), Verdict::Conflict(_)));
        assert_eq!(keys.len(), 2);
        assert_eq!(keys.holders.len(), 1, "only user 8's request is open");
    }

    #[test]
    fn what_has_begun_is_resumed_after_a_death_and_never_begun_again() {
        let (mut keys, mut out) = (Keys::new("k"), Out::default());
        keys.note(at(0, 0), ReqId(9), &mut out);
        assert!(out.records.is_empty(), "a request without a key has nothing to note");
        assert_eq!(keys.begin(at(0, 0), (7, ConnId(1)), "a", 1, ReqId(1)), Verdict::New);
        keys.note(at(0, 0), ReqId(1), &mut out);
        assert_eq!(keys.begin(at(0, 0), (7, ConnId(1)), "a", 1, ReqId(2)), Verdict::Join, "it is still open");
        assert_eq!(keys.entities_from(at(1, 1), "", 9), out.records, "a snapshot keeps it");
        let mut after = reborn(&out.records, "k", at(1, 1));
        assert!(matches!(after.begin(at(1, 1), (7, ConnId(1)), "a", 2, ReqId(3)), Verdict::Conflict(_)));
        assert_eq!(after.begin(at(1, 1), (7, ConnId(1)), "a", 1, ReqId(3)), Verdict::Resume);
        assert!(after.is_resumed(ReqId(3)) && !keys.is_resumed(ReqId(1)));
        assert_eq!(after.begin(at(1, 1), (7, ConnId(1)), "a", 1, ReqId(4)), Verdict::Join);
        let mut out = Out::default();
        assert_eq!(after.finish(at(2, 2), ReqId(3), &ok("{}"), true, &mut out), [ReqId(4)]);
        assert_eq!(after.begin(at(2, 2), (7, ConnId(1)), "a", 1, ReqId(5)), Verdict::Replay(ok("{}")));
        assert_eq!((after.len(), after.order.len()), (1, 1));
        // Whatever was answered by somebody who could promise nothing, it has begun.
        let no = Err(RpcError::new(Code::ShuttingDown, "no"));
        assert_eq!(keys.finish(at(2, 2), ReqId(1), &no, true, &mut out), [ReqId(2)]);
        assert_eq!(keys.begin(at(3, 3), (7, ConnId(1)), "a", 1, ReqId(6)), Verdict::Resume);
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
            assert_eq!(keys.begin(at(0, 0), (7, CONN), &key, 1, ReqId(1)), Verdict::Replay(failed.clone()));
            let mut after = reborn(&records, "k", at(0, 0));
            assert_eq!(after.begin(at(0, 0), (7, CONN), &key, 1, ReqId(1)), Verdict::Replay(failed));
        }
    }

    #[test]
    fn the_first_request_goes_on_without_its_connection_and_what_is_not_to_be_kept_is_tried_anew() {
        let (mut keys, mut out) = (Keys::new("k"), Out::default());
        assert_eq!(keys.begin(at(0, 0), (7, CONN), "a", 1, ReqId(1)), Verdict::New);
        keys.closed(CONN);
        assert!(keys.is_open(ReqId(1)));
        assert_eq!(keys.begin(at(0, 0), (7, ConnId(2)), "a", 1, ReqId(2)), Verdict::Join);
        assert_eq!(keys.finish(at(0, 0), ReqId(1), &ok("1"), false, &mut out), [ReqId(2)]);
        assert!(out.records.is_empty() && keys.is_empty() && keys.holders.is_empty());
        assert_eq!(keys.begin(at(0, 0), (7, CONN), "a", 1, ReqId(3)), Verdict::New);
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
            assert_eq!(keys.begin(at(0, 0), (7, CONN), "fits", 1, ReqId(1)), Verdict::Replay(ok(&fits)));
            for key in ["large", "long"] {
                let again = keys.begin(at(0, 0), (7, CONN), key, 1, ReqId(1));
                assert!(matches!(again, Verdict::Replay(Err(e)) if e.code == Code::Unavailable));
            }
        }
    }

    #[test]
    fn a_key_lives_for_an_hour_of_awake_time_whatever_the_wall_clock_does() {
        let mut keys = Keys::new("k");
        done(&mut keys, at(10, 1_000_000), "a", &ok("1"));
        assert_eq!(keys.begin(at(11, 99_000_000), (7, CONN), "a", 1, ReqId(1)), Verdict::Replay(ok("1")));
        assert_eq!(keys.begin(at(HOUR + 9, 0), (7, CONN), "a", 1, ReqId(1)), Verdict::Replay(ok("1")));
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
        assert_eq!(keys.begin(at(HOUR, 0), (7, CONN), "a", 1, ReqId(1)), Verdict::Replay(ok("2")));
        assert_eq!((keys.len(), keys.order.len()), (1, 1));
    }

    #[test]
    fn a_new_daemon_of_the_same_boot_goes_on_exactly() {
        let records = done(&mut Keys::new("k"), at(100, 1000), "a", &ok("1"));
        for wall in [0, 1000, 900_000_000] {
            let mut keys = reborn(&records, "k", at(100 + HOUR - 1, wall));
            assert!(matches!(keys.begin(at(100 + HOUR - 1, wall), (7, CONN), "a", 1, ReqId(1)), Verdict::Replay(_)));
            assert_eq!(keys.begin(at(100 + HOUR, wall), (7, CONN), "a", 1, ReqId(1)), Verdict::New);
        }
        let first = reborn(&records, "k", at(200, 0));
        assert_eq!(
            first.entities_from(at(200, 0), "", 9),
            records,
            "a record that is written again does not grow younger"
        );
    }

    #[test]
    fn after_a_boot_the_wall_clock_counts_but_cannot_take_the_last_minute() {
        let records = done(&mut Keys::new("k"), at(50_000, 1_000_000), "a", &ok("1"));
        let lives = |wall_at_boot: i64, after: u64| {
            let mut keys = reborn(&records, "other", at(5, wall_at_boot));
            keys.begin(at(5 + after, 0), (7, CONN), "a", 1, ReqId(1)) != Verdict::New
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
        assert_eq!(keys.begin(at(59, 0), (7, CONN), "open", 1, ReqId(1)), Verdict::New);
        assert!(
            matches!(keys.begin(at(59, 0), (7, CONN), "more", 1, ReqId(2)), Verdict::Full(e) if e.code == Code::Busy)
        );
        assert!(matches!(keys.begin(at(59, 0), (7, CONN), "0", 1, ReqId(2)), Verdict::Replay(_)));
        for i in 0..5 {
            assert_eq!(keys.begin(at(60, 0), (7, CONN), &format!("new{i}"), 1, ReqId(10 + i)), Verdict::New);
        }
        assert!(matches!(keys.begin(at(60, 0), (7, CONN), "more", 1, ReqId(3)), Verdict::Full(_)));
        let mut out = Out::default();
        for req in [1, 10, 11, 12, 13, 14] {
            assert_eq!(keys.finish(at(60, 0), ReqId(req), &ok("1"), true, &mut out), []);
        }
        let gone: Vec<_> = out.records.iter().filter(|r| r.json.is_none()).map(|r| r.key.as_str()).collect();
        assert_eq!(gone, ["key/7/0", "key/7/1", "key/7/2", "key/7/3", "key/7/4"]);
        assert_eq!((keys.len(), keys.order.len()), (KEPT_REPLIES_MAX, KEPT_REPLIES_MAX));
        let mut daemon = reborn(&keys.entities_from(at(60, 0), "", usize::MAX), "k", at(61, 0));
        assert_eq!(daemon.len(), KEPT_REPLIES_MAX);
        assert_eq!(
            daemon.begin(at(61, 0), (7, CONN), "more", 1, ReqId(1)),
            Verdict::New,
            "those of 1 s are a minute old"
        );
    }

    #[test]
    fn a_snapshot_in_slices_has_each_record_once() {
        let mut keys = Keys::new("k");
        let mut want = Vec::new();
        for key in ["a/b", "", "\u{e4}\n", "zz", "b"] {
            want.extend(done(&mut keys, at(0, 0), key, &ok("1")));
        }
        assert_eq!(keys.begin(at(0, 0), (10, CONN), "x", 1, ReqId(1)), Verdict::New);
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
}
