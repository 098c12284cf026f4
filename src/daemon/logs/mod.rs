//! Log streams to clients: what `hob logs` shows. Files are read in the lane for bulk work, a chunk at a time and only
//! while the client keeps up, so that a slow or endless follower costs a bounded amount of memory and nobody else
//! anything.

use crate::base::ids::{ConnId, ReqId, StreamId};
use crate::daemon::capture::tail::{Cursor, Part, Share};
use crate::daemon::capture::times;
use crate::protocol::methods::LogQuery;
use crate::protocol::rpc::{Code, RpcError};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// Bytes read and sent at once.
const CHUNK: usize = 256 * 1024;
/// A stream waits while its connection has more than this unsent, in bytes.
const UNSENT_LOW: usize = 256 * 1024;
/// Chunks in memory at the same time, of all streams together.
const READS_MAX: usize = 4;
/// Ids of log streams begin here; those of event subscriptions are below.
const FIRST_ID: u32 = 0x8000_0000;
/// The name under which the daemon's own log is streamed.
pub const OWN: &str = "hob";

/// A job for the lane of bulk work; its result goes to `Streams::done`.
pub type Job = Box<dyn FnOnce() -> Read + Send>;

/// What streams need of the daemon around them.
pub trait Sink {
    fn bulk(&mut self, job: Job);
    fn reply(&mut self, req: ReqId, result: &Result<String, RpcError>);
    /// Notes a stream of a connection.
    ///
    /// # Errors
    /// When it has too many.
    fn stream_open(&mut self, conn: ConnId, id: StreamId) -> Result<(), RpcError>;
    fn stream_data(&mut self, conn: ConnId, id: StreamId, bytes: &[u8]);
    fn stream_end(&mut self, conn: ConnId, id: StreamId, reason: &str);
    fn notify(&mut self, conn: ConnId, id: StreamId, method: &str, params: &str);
    /// Bytes that wait for the client to read.
    fn unsent(&self, conn: ConnId) -> usize;
}

/// The result of a job.
#[derive(Debug)]
pub struct Read(Done);

enum Done {
    Found { req: ReqId, conn: ConnId, follow: bool, found: Result<Vec<Found>, String> },
    Part { id: StreamId, cursor: Cursor, part: Result<Part, String> },
}

impl fmt::Debug for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Done::Found { req, .. } => write!(f, "Found({req})"),
            Done::Part { id, .. } => write!(f, "Part({id})"),
        }
    }
}

struct Found {
    name: Arc<str>,
    share: Arc<Share>,
    position: u64,
    end: u64,
}

#[derive(Debug)]
struct Stream {
    conn: ConnId,
    name: Arc<str>,
    share: Arc<Share>,
    state: State,
    /// Its end, unless it follows.
    until: u64,
    /// The log has grown while it was read.
    grown: bool,
}

#[derive(Debug)]
enum State {
    /// All was sent; the log has to grow.
    Idle(Cursor),
    Queued(Cursor),
    Reading,
    /// The client has to read.
    Blocked(Cursor),
}

/// All log streams of all connections.
#[derive(Debug)]
pub struct Streams {
    streams: BTreeMap<StreamId, Stream>,
    followers: BTreeMap<Arc<str>, BTreeSet<StreamId>>,
    /// Requests whose beginning is being looked up.
    opening: BTreeMap<ReqId, ConnId>,
    queue: VecDeque<StreamId>,
    reading: usize,
    next: u32,
}

impl Default for Streams {
    fn default() -> Self {
        Streams {
            streams: BTreeMap::new(),
            followers: BTreeMap::new(),
            opening: BTreeMap::new(),
            queue: VecDeque::new(),
            reading: 0,
            next: FIRST_ID,
        }
    }
}

impl Streams {
    /// Opens streams for a caller; the reply to `req` names them. `logs` are the logs of `query.names` in their order.
    pub fn open(
        &mut self,
        req: ReqId,
        conn: ConnId,
        query: LogQuery,
        logs: Vec<(Arc<str>, Arc<Share>)>,
        sink: &mut impl Sink,
    ) {
        self.opening.insert(req, conn);
        let follow = query.follow;
        sink.bulk(Box::new(move || {
            let found = guarded(|| logs.iter().map(|(name, share)| find(&query, name, share)).collect());
            Read(Done::Found { req, conn, follow, found })
        }));
    }

    /// Takes the result of a job.
    pub fn done(&mut self, read: Read, sink: &mut impl Sink) {
        match read.0 {
            Done::Found { req, conn, follow, found } => {
                if self.opening.remove(&req).is_some() {
                    let result = found
                        .map_err(|e| RpcError::new(Code::FileSystem, format!("cannot read the log: {e}")))
                        .and_then(|found| self.begin(conn, follow, found, sink));
                    sink.reply(req, &result);
                }
            }
            Done::Part { id, cursor, part } => {
                self.reading -= 1;
                self.pass(id, cursor, part, sink);
            }
        }
        self.pump(sink);
    }

    /// Begins the streams of one request, all or none.
    fn begin(
        &mut self,
        conn: ConnId,
        follow: bool,
        found: Vec<Found>,
        sink: &mut impl Sink,
    ) -> Result<String, RpcError> {
        let mut begun = Vec::new();
        let mut shown = Vec::new();
        for Found { name, share, position, end } in found {
            let id = StreamId(self.next);
            if let Err(e) = sink.stream_open(conn, id) {
                for id in begun {
                    self.forget(id);
                    sink.stream_end(conn, id, "refused");
                }
                return Err(e);
            }
            self.next = self.next.checked_add(1).unwrap_or(FIRST_ID);
            shown.push(json!({"id": id, "name": &*name, "position": position}));
            let until = if follow { u64::MAX } else { end };
            if follow {
                self.followers.entry(Arc::clone(&name)).or_default().insert(id);
            }
            let state = State::Queued(Cursor::new(position));
            self.streams.insert(id, Stream { conn, name, share, state, until, grown: false });
            begun.push(id);
        }
        self.queue.extend(begun);
        Ok(json!({"streams": shown}).to_string())
    }

    /// Sends what was read.
    fn pass(&mut self, id: StreamId, cursor: Cursor, part: Result<Part, String>, sink: &mut impl Sink) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let conn = stream.conn;
        let grown = std::mem::take(&mut stream.grown);
        match part {
            Ok(Part::Bytes(bytes)) => sink.stream_data(conn, id, &bytes),
            Ok(Part::Gap(dropped)) => {
                let params = json!({"id": id, "position": cursor.position, "dropped": dropped});
                sink.notify(conn, id, "stream.gap", &params.to_string());
            }
            Ok(Part::End) if stream.until == u64::MAX && grown => {}
            Ok(Part::End) if stream.until == u64::MAX => {
                stream.state = State::Idle(cursor);
                return;
            }
            Ok(Part::End) => {
                self.forget(id);
                sink.stream_end(conn, id, "eof");
                return;
            }
            Err(e) => {
                self.forget(id);
                sink.stream_end(conn, id, &format!("cannot read the log: {e}"));
                return;
            }
        }
        stream.state = State::Queued(cursor);
        self.queue.push_back(id);
    }

    /// Hands out as many reads as may be in memory.
    fn pump(&mut self, sink: &mut impl Sink) {
        while self.reading < READS_MAX {
            let Some(id) = self.queue.pop_front() else { return };
            let Some(stream) = self.streams.get_mut(&id) else { continue };
            let State::Queued(mut cursor) = std::mem::replace(&mut stream.state, State::Reading) else { continue };
            if sink.unsent(stream.conn) > UNSENT_LOW {
                stream.state = State::Blocked(cursor);
                continue;
            }
            self.reading += 1;
            let (share, until) = (Arc::clone(&stream.share), stream.until);
            sink.bulk(Box::new(move || {
                let part = guarded(|| share.read(&mut cursor, until, CHUNK));
                Read(Done::Part { id, cursor, part })
            }));
        }
    }

    /// A log has more to read.
    pub fn grown(&mut self, name: &str, sink: &mut impl Sink) {
        for id in self.followers.get(name).into_iter().flatten() {
            let Some(stream) = self.streams.get_mut(id) else { continue };
            stream.state = match std::mem::replace(&mut stream.state, State::Reading) {
                State::Idle(cursor) => {
                    self.queue.push_back(*id);
                    State::Queued(cursor)
                }
                State::Reading => {
                    stream.grown = true;
                    State::Reading
                }
                other @ (State::Queued(_) | State::Blocked(_)) => other,
            };
        }
        self.pump(sink);
    }

    /// A client has read all that was sent.
    pub fn drained(&mut self, conn: ConnId, sink: &mut impl Sink) {
        for (id, stream) in self.streams.iter_mut().filter(|(_, s)| s.conn == conn) {
            stream.state = match std::mem::replace(&mut stream.state, State::Reading) {
                State::Blocked(cursor) => {
                    self.queue.push_back(*id);
                    State::Queued(cursor)
                }
                other => other,
            };
        }
        self.pump(sink);
    }

    /// `stream.close`: a client wants no more of a stream of its own.
    pub fn close(&mut self, req: ReqId, conn: ConnId, id: StreamId, sink: &mut impl Sink) {
        let own = self.streams.get(&id).is_some_and(|s| s.conn == conn);
        if own {
            self.forget(id);
            sink.stream_end(conn, id, "closed");
            sink.reply(req, &Ok(json!({"closed": id}).to_string()));
        } else {
            let e = RpcError::new(Code::NotFound, format!("no stream {id} is open on this connection"));
            sink.reply(req, &Err(e.hint("a stream that has ended need not be closed")));
        }
    }

    /// A connection is gone.
    pub fn closed(&mut self, conn: ConnId) {
        let gone: Vec<StreamId> = self.streams.iter().filter(|(_, s)| s.conn == conn).map(|(id, _)| *id).collect();
        for id in gone {
            self.forget(id);
        }
        self.opening.retain(|_, c| *c != conn);
    }

    fn forget(&mut self, id: StreamId) {
        let Some(stream) = self.streams.remove(&id) else { return };
        if let Some(ids) = self.followers.get_mut(&stream.name) {
            ids.remove(&id);
            if ids.is_empty() {
                self.followers.remove(&stream.name);
            }
        }
    }
}

/// Where a stream begins: at a position that the client knows, or some lines before the end.
fn find(query: &LogQuery, name: &Arc<str>, share: &Arc<Share>) -> std::io::Result<Found> {
    let all = share.spans()?.end;
    let since = match query.since {
        Some(since) => times::find(share, 0, |wall| wall >= since)?,
        None => 0,
    };
    let end = match query.until {
        Some(until) => times::find(share, since, |wall| wall > until)?.min(all),
        None => all,
    };
    // The daemon's own log has no name for those who resume it.
    let resumed = query.from.iter().find(|(n, _)| **n == **name || n.is_empty());
    let position = match resumed {
        Some((_, position)) => (*position).min(end),
        None if query.lines == usize::MAX => since,
        None => share.lines_back(end, query.lines)?.max(since),
    };
    Ok(Found { name: Arc::clone(name), share: Arc::clone(share), position, end })
}

/// A fault in a read ends one stream and not the lane.
fn guarded<T>(read: impl FnOnce() -> std::io::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(result) => result.map_err(|e| e.to_string()),
        Err(_) => Err("an internal fault".to_owned()),
    }
}

#[cfg(test)]
mod tests;
