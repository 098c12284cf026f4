//! Log streams to clients: what `hob logs` shows. Files are read in the lane for bulk work, a chunk at a time and only
//! while the client keeps up, so that a slow or endless follower costs a bounded amount of memory and nobody else
//! anything.

use crate::base::ids::{ConnId, ReqId, StreamId};
use crate::base::map::Map;
use crate::base::time::{Mono, Wall};
use crate::daemon::capture::marks::{self, Piece};
use crate::daemon::capture::rotate::Names;
use crate::daemon::capture::tail::{Cursor, Part, Share};
use crate::daemon::capture::times;
use crate::protocol::methods::{self as query, LogQuery, notes};
use crate::protocol::rpc::{Code, RpcError};
use core::time::Duration;
use serde_json::json;
use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;

/// Bytes read and sent at once.
const CHUNK: usize = 256 * 1024;
/// A stream waits while its connection has more than this unsent, in bytes.
const UNSENT_LOW: usize = 256 * 1024;
/// Chunks in memory at the same time, of all streams together.
const READS_MAX: usize = 4;
/// How long an old file stays unpacked for a client that does not read: it takes space on disk, and time to make.
const KEPT: Duration = Duration::from_secs(60);
/// So many lines are all there are.
const LINES_ALL: u64 = u32::MAX as u64;
/// Ids of log streams begin here; those of event subscriptions are below.
const FIRST_ID: u32 = 0x8000_0000;
/// The end of a log that is complete, wherever that is.
const COMPLETE: u64 = u64::MAX - 1;
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
    /// The time of this turn.
    fn now(&self) -> Mono;
}

/// The result of a job.
#[derive(Debug)]
pub struct Read(Done);

enum Done {
    Found { req: ReqId, conn: ConnId, query: LogQuery, found: Result<Vec<Found>, String> },
    Part { id: StreamId, cursor: Cursor, part: Result<What, String> },
}

/// What was read.
enum What {
    Plain(Part),
    Pieces(Vec<Piece>),
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
    view: View,
    /// The log has grown while it was read.
    grown: bool,
}

/// What a client wants to see of a log beside its bytes.
#[derive(Clone, Copy, Debug, Default)]
struct View {
    marks: bool,
    /// 1 or 2: this stream alone.
    stream: Option<u32>,
    /// What was told last.
    told: Option<(Option<Wall>, u32)>,
    /// Bytes were left out since.
    skipped: bool,
}

#[derive(Debug)]
enum State {
    /// All was sent; the log has to grow.
    Idle(Cursor),
    Queued(Cursor),
    Reading,
    /// The client has to read. What was unpacked for it is kept until then.
    Blocked(Cursor, Option<Mono>),
}

/// All log streams of all connections.
#[derive(Debug)]
pub struct Streams {
    streams: Map<StreamId, Stream>,
    followers: Map<Arc<str>, BTreeSet<StreamId>>,
    /// Requests whose beginning is being looked up.
    opening: Map<ReqId, ConnId>,
    /// Logs that became complete while any was being looked up.
    complete: BTreeSet<Arc<str>>,
    queue: VecDeque<StreamId>,
    /// Those that keep something unpacked while their client does not read, by the time until which they do.
    keeping: BTreeSet<(Mono, StreamId)>,
    reading: usize,
    next: u32,
}

impl Default for Streams {
    fn default() -> Self {
        Streams {
            streams: Map::new(),
            followers: Map::new(),
            opening: Map::new(),
            complete: BTreeSet::new(),
            queue: VecDeque::new(),
            keeping: BTreeSet::new(),
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
        sink.bulk(Box::new(move || {
            let found = guarded(|| logs.iter().map(|(name, share)| find(&query, name, share)).collect());
            Read(Done::Found { req, conn, query, found })
        }));
    }

    /// Takes the result of a job.
    pub fn done(&mut self, read: Read, sink: &mut impl Sink) {
        match read.0 {
            Done::Found { req, conn, query, found } => {
                if self.opening.remove(&req).is_some() {
                    let result = found
                        .map_err(|e| RpcError::new(Code::FileSystem, format!("cannot read the log: {e}")))
                        .and_then(|found| self.begin(conn, &query, found, sink));
                    sink.reply(req, &result);
                }
                if self.opening.is_empty() {
                    self.complete.clear();
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
        query: &LogQuery,
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
            shown.push(json!({"id": id, "name": &*name, "position": position, "end": end}));
            let until = match query.follow {
                true if self.complete.contains(&name) => COMPLETE,
                true => u64::MAX,
                false => end,
            };
            let stream = query.stream.map(query::Stream::number);
            let view = View { marks: query.marks, stream, ..View::default() };
            if query.follow {
                self.followers.get_or(Arc::clone(&name), BTreeSet::new).insert(id);
            }
            let state = State::Queued(Cursor::new(position));
            self.streams.insert(id, Stream { conn, name, share, state, until, view, grown: false });
            begun.push(id);
        }
        self.queue.extend(begun);
        Ok(json!({"streams": shown}).to_string())
    }

    /// Sends what was read.
    fn pass(&mut self, id: StreamId, mut cursor: Cursor, part: Result<What, String>, sink: &mut impl Sink) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let conn = stream.conn;
        let grown = std::mem::take(&mut stream.grown);
        match part {
            Ok(What::Plain(Part::Bytes(bytes))) => sink.stream_data(conn, id, &bytes),
            Ok(What::Pieces(pieces)) => {
                for piece in pieces {
                    stream.view.send(conn, id, &piece, sink);
                }
            }
            Ok(What::Plain(Part::Gap(dropped))) => {
                let params = json!({"id": id, "position": cursor.position, "dropped": dropped});
                sink.notify(conn, id, notes::STREAM_GAP, &params.to_string());
            }
            Ok(What::Plain(Part::End)) if stream.until == u64::MAX && grown => {}
            Ok(What::Plain(Part::End)) if stream.until == u64::MAX => {
                cursor.rest();
                stream.state = State::Idle(cursor);
                return;
            }
            Ok(What::Plain(Part::End)) => {
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
                let until = cursor.pause().then(|| sink.now() + KEPT);
                self.keeping.extend(until.map(|at| (at, id)));
                stream.state = State::Blocked(cursor, until);
                continue;
            }
            self.reading += 1;
            let (share, until, plain) = (Arc::clone(&stream.share), stream.until, stream.view.is_plain());
            sink.bulk(Box::new(move || {
                let part = guarded(|| read(&share, &mut cursor, until, plain));
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
                other @ (State::Queued(_) | State::Blocked(..)) => other,
            };
        }
        self.pump(sink);
    }

    /// A log will not grow any more: those that follow it end when they have it all.
    pub fn over(&mut self, name: &Arc<str>, sink: &mut impl Sink) {
        if !self.opening.is_empty() {
            self.complete.insert(Arc::clone(name));
        }
        for id in self.followers.get(name).into_iter().flatten() {
            if let Some(stream) = self.streams.get_mut(id) {
                stream.until = COMPLETE;
            }
        }
        self.grown(name, sink);
    }

    /// A client has read all that was sent.
    pub fn drained(&mut self, conn: ConnId, sink: &mut impl Sink) {
        for (id, stream) in self.streams.iter_mut().filter(|(_, s)| s.conn == conn) {
            stream.state = match std::mem::replace(&mut stream.state, State::Reading) {
                State::Blocked(cursor, until) => {
                    until.map(|at| self.keeping.remove(&(at, *id)));
                    self.queue.push_back(*id);
                    State::Queued(cursor)
                }
                other => other,
            };
        }
        self.pump(sink);
    }

    #[must_use]
    pub fn next_deadline(&self) -> Option<Mono> {
        self.keeping.first().map(|(at, _)| *at)
    }

    /// Whoever does not read for long keeps nothing on disk.
    pub fn due(&mut self, now: Mono) {
        while let Some((at, id)) = self.keeping.first().copied().filter(|(at, _)| *at <= now) {
            self.keeping.remove(&(at, id));
            if let Some(State::Blocked(cursor, until)) = self.streams.get_mut(&id).map(|s| &mut s.state) {
                cursor.rest();
                *until = None;
            }
        }
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
        if let State::Blocked(_, Some(at)) = stream.state {
            self.keeping.remove(&(at, id));
        }
        if let Some(ids) = self.followers.get_mut(&stream.name) {
            ids.remove(&id);
            if ids.is_empty() {
                self.followers.remove(&stream.name);
            }
        }
    }
}

impl View {
    fn is_plain(&self) -> bool {
        !self.marks && self.stream.is_none()
    }

    /// Sends a piece, with what there is to say about it.
    fn send(&mut self, conn: ConnId, id: StreamId, piece: &Piece, sink: &mut impl Sink) {
        // Where streams are not told apart, whatever came may be meant.
        if self.stream.is_some_and(|s| piece.stream != 0 && piece.stream != s) {
            self.skipped = true;
            return;
        }
        let what = Some((piece.wall, piece.stream));
        if std::mem::take(&mut self.skipped) || (self.marks && self.told != what) {
            self.told = what;
            let stream = query::Stream::numbered(piece.stream).map(query::Stream::name);
            let time = piece.wall.map(|w| w.to_string());
            let params = json!({"id": id, "position": piece.position, "time": time, "stream": stream});
            sink.notify(conn, id, notes::STREAM_MARK, &params.to_string());
        }
        sink.stream_data(conn, id, &piece.bytes);
    }
}

/// Reads the next part of a log, with what its index says when that is wanted.
fn read(share: &Share, cursor: &mut Cursor, until: u64, plain: bool) -> io::Result<What> {
    match share.read(cursor, until, CHUNK)? {
        Part::Bytes(bytes) if !plain => {
            let position = cursor.position - bytes.len() as u64;
            marks::cut(share, position, bytes).map(What::Pieces)
        }
        part => Ok(What::Plain(part)),
    }
}

/// Where a stream begins: at a position that the client knows, or some lines before the end.
fn find(query: &LogQuery, name: &Arc<str>, share: &Arc<Share>) -> io::Result<Found> {
    let spans = share.spans()?;
    let all = spans.end;
    let since = match query.since {
        Some(since) => times::since(share, since)?,
        None => spans.files.last().map_or(all, |oldest| oldest.base),
    };
    let end = match query.until {
        Some(until) => times::after(share, since, until)?.min(all),
        None => all,
    };
    // The daemon's own log has no name for those who resume it.
    let resumed = query.from.iter().find(|(n, _)| **n == **name || n.is_empty());
    let position = match resumed {
        Some((_, position)) => (*position).min(end),
        None if query.lines as u64 >= LINES_ALL => since,
        None => share.lines_back(end, query.lines)?.max(since),
    };
    Ok(Found { name: Arc::clone(name), share: Arc::clone(share), position, end })
}

/// Reads what a query wants of a log from its files, where no daemon does it: piece by piece, in their order.
///
/// # Errors
/// What reading answers, or `each`.
pub fn read_files(log: PathBuf, query: &LogQuery, mut each: impl FnMut(Piece) -> io::Result<()>) -> io::Result<()> {
    let share = Arc::new(Share::new(Names::new(log)));
    let found = find(query, &Arc::from(""), &share)?;
    let wanted = query.stream.map_or(0, query::Stream::number);
    let mut cursor = Cursor::new(found.position);
    loop {
        match read(&share, &mut cursor, found.end, false)? {
            What::Pieces(pieces) => {
                let meant = |p: &Piece| wanted == 0 || p.stream == 0 || p.stream == wanted;
                pieces.into_iter().filter(meant).try_for_each(&mut each)?;
            }
            What::Plain(Part::Gap(_)) => {}
            What::Plain(Part::Bytes(_) | Part::End) => return Ok(()),
        }
    }
}

/// A fault in a read ends one stream and not the lane.
fn guarded<T>(read: impl FnOnce() -> io::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(result) => result.map_err(|e| e.to_string()),
        Err(_) => Err("an internal fault".to_owned()),
    }
}

#[cfg(test)]
mod tests;
