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
use crate::base::hash::{FNV, fnv};
use crate::base::ids::{ConnId, ReqId};
use crate::base::json::Obj;
use crate::base::limits::{KEPT_REPLIES_MAX, KEPT_REPLY_AGE, KEPT_REPLY_BYTES, KEPT_REPLY_MIN_AGE};
use crate::base::map::Map;
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
    open: Map<Key, Open>,
    /// Which key a request holds or has joined.
    holders: Map<ReqId, Key>,
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
        Keys { boot: fnv(FNV, keeper_key.as_bytes()), ..Keys::default() }
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

    /// Decides about a request with a key, of somebody to whom so many places are open. After `New`, `finish` must
    /// follow at the latest when the request is answered.
    pub fn begin(
        &mut self,
        now: Now,
        (uid, conn): (u32, ConnId),
        key: &str,
        (params_hash, req): (u64, ReqId),
        most: usize,
    ) -> Verdict {
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
        if !self.has_room(now, most) {
            return Verdict::Full(
                RpcError::new(Code::Busy, format!("{most} request keys are in use"))
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

    /// A request that was `New` does in this step what must not be done again, and is answered in a later one. Appends
    /// the record of that. A request without a key changes nothing.
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
    fn has_room(&self, now: Now, most: usize) -> bool {
        let wanted = self.kept.len() + self.open.len() + 1;
        let Some(to_drop) = wanted.checked_sub(most + 1) else { return true };
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
mod tests;
