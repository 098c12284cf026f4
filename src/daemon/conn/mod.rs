//! The server's side of connections: bytes in, inputs for the core out; replies, notifications and streams in, bytes
//! out. Reads and writes the sockets it owns; the loop says when.
//!
//! A turn of the loop: [`Conns::accept`] and [`Conns::ready`] for what the selector reports, [`Conns::read_backlog`]
//! for what an earlier turn left, then the core, whose replies gather in buffers, and at the end one [`Conns::flush`],
//! which writes once for each connection. A connection that does not read its replies is not read from either.

mod admit;
mod budget;
mod link;
mod requests;
mod share;
mod slab;
#[cfg(test)]
mod tests;
mod wire;

pub(super) use admit::stranger;
pub use admit::{ACCEPTED_MAX, Accepted, Admission, Pass};

use crate::base::ids::{ConnId, ReqId, StreamId};
use crate::base::limits::{BUFFERED_MAX, FROZEN, LAGGING_MAX, MESSAGE_MAX, STREAMS_PER_CONNECTION_MAX, UNSENT_LAGGED};
use crate::base::time::Mono;
use crate::config::Access;
use crate::core;
use crate::daemon::closer::Closer;
use crate::daemon::fair::Turns;
use crate::daemon::source::Sources;
use crate::protocol::frame::Decoder;
use crate::protocol::methods::{Request, Signals, notes};
use crate::protocol::rpc::{Code, RpcError};
use crate::sys::net::Credentials;
use link::{Input, Link};
use mio::event::Source as _;
use mio::unix::SourceFd;
use mio::{Interest, Registry};
pub use requests::Inlet;
use requests::Requests;
use share::Kind;
use slab::Slab;
use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;
use wire::Got;

/// How long after [`Accepted::Starved`] to accept again.
pub const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// Messages and reads of one connection in one turn, so that none starves the others.
const MESSAGES_PER_TURN: usize = 64;
const READS_PER_TURN: usize = 4;
const READ_SIZE: usize = 64 * 1024;
/// Bytes of a connection that need not be counted before the turn ends.
const COUNTED_LATER: usize = 1024;
/// Connections that are being closed because descriptors lie in them; with more, none is accepted.
const CLOSING_MAX: usize = 256;

/// Says what somebody may who has passed before, who was then of this job; `None`: nothing any more.
pub type Readmit<'a> = dyn FnMut(Option<&Arc<str>>, &Credentials, BorrowedFd<'_>) -> Option<Access> + 'a;

/// Answers a question at once; `None`: the request is to go to the core in the next round.
pub type Ask<'a> = dyn FnMut(&Request) -> Option<Result<String, RpcError>> + 'a;

/// All client connections.
pub struct Conns {
    conns: Slab<Conn, 13>,
    requests: Requests,
    /// Connections to jobs by HOB_FD.
    channels: usize,
    /// Connections that are closed at a time, unless they take something before.
    lagging: BTreeSet<(Mono, ConnId)>,
    reserve: Option<OwnedFd>,
    /// Closes connections in which descriptors lie.
    closer: Closer,
    dirty: Vec<ConnId>,
    backlog: Turns,
    lagged: Vec<(ConnId, StreamId)>,
    /// Bytes that all connections hold, and the most that they may.
    buffered: usize,
    buffered_max: usize,
    scratch: Box<[u8]>,
}

struct Conn {
    decoder: Decoder,
    link: Link,
}

/// What the selector said of a connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Readiness {
    pub readable: bool,
    pub writable: bool,
    /// The peer sends no more.
    pub read_closed: bool,
    /// The peer is gone.
    pub closed: bool,
}

impl From<&mio::event::Event> for Readiness {
    fn from(e: &mio::event::Event) -> Self {
        Readiness {
            readable: e.is_readable(),
            writable: e.is_writable(),
            read_closed: e.is_read_closed(),
            closed: e.is_write_closed() || e.is_error(),
        }
    }
}

/// What a flush found.
#[derive(Debug, Default)]
pub struct Flushed {
    /// Gone: the core is to be told, streams are to be dropped.
    pub closed: Vec<ConnId>,
    /// Connections with open streams and nothing unsent: more stream data may be added.
    pub drained: Vec<ConnId>,
}

impl std::fmt::Debug for Conns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Conns").field("open", &self.conns.len()).finish_non_exhaustive()
    }
}

impl Conns {
    /// `own`: the daemon's own user. `signals`: what names of signals mean on this system.
    #[must_use]
    pub fn new(own: u32, signals: &'static Signals) -> Conns {
        let mut conns = Conns {
            conns: Slab::new(),
            requests: Requests::new(own, signals),
            channels: 0,
            lagging: BTreeSet::new(),
            reserve: None,
            closer: Closer::default(),
            dirty: Vec::new(),
            backlog: Turns::default(),
            lagged: Vec::new(),
            buffered: 0,
            buffered_max: BUFFERED_MAX,
            scratch: vec![0; READ_SIZE].into(),
        };
        conns.fill_reserve();
        conns
    }

    /// Open connections.
    #[must_use]
    pub fn len(&self) -> usize {
        self.conns.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Asks again who may stay and at which level, after the config changed.
    pub fn readmit(&mut self, admit: &mut Readmit<'_>) {
        for id in self.conns.ids() {
            let Some(Conn { link, .. }) = self.conns.get_mut(id) else { continue };
            match admit(link.peer.job.as_ref(), &link.cred, link.wire.as_fd()) {
                Some(access) => link.peer.access = access.min(link.most),
                None => self.close(ConnId(id)),
            }
        }
    }

    /// Serves a connection that the selector reported. Requests that `inlet.ask` does not answer are appended
    /// to `inlet.out`.
    pub fn ready(&mut self, conn: ConnId, what: Readiness, inlet: &mut Inlet<'_, '_>) {
        let Some(Conn { link, .. }) = self.conns.get_mut(conn.0) else { return };
        link.at_end |= what.read_closed || what.closed;
        link.hung_up |= what.closed;
        if what.writable {
            self.touch(conn);
        }
        if what.readable || what.read_closed || what.closed {
            self.read(conn, inlet);
        }
    }

    /// Whether connections wait to be read on.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// Whether an earlier turn left something to read or to close: the loop must not wait then.
    #[must_use]
    pub fn has_backlog(&self) -> bool {
        !self.backlog.is_empty() || self.has_unflushed()
    }

    /// Reads on where an earlier turn stopped.
    pub fn read_backlog(&mut self, inlet: &mut Inlet<'_, '_>) {
        // Who is not done goes behind those whose turn does not come now.
        for _ in 0..self.backlog.len() {
            if inlet.waiting.budget.is_spent() {
                return;
            }
            let Some((_, conn)) = self.backlog.pop() else { return };
            if let Some(Conn { link, .. }) = self.conns.get_mut(conn.0) {
                link.in_backlog = false;
                self.read(conn, inlet);
            }
        }
    }

    /// Reads a connection as far as its share of a turn goes. A read that does not fill the buffer has emptied the
    /// socket, unless the end is near, which is only seen by reading up to it.
    fn read(&mut self, id: ConnId, inlet: &mut Inlet<'_, '_>) {
        let (mut messages, mut reads, mut emptied) = (MESSAGES_PER_TURN, READS_PER_TURN, false);
        let Some(Conn { decoder, link }) = self.conns.get_mut(id.0) else { return };
        while !link.dead {
            link.paused = link.unsent() > UNSENT_LAGGED && !link.hung_up;
            if link.paused {
                break;
            }
            // What was read of it and waits is enough.
            let later = inlet.waiting.budget.is_spent() || inlet.waiting.holds(id);
            if messages == 0 || (reads == 0 && !emptied) || later {
                if !link.in_backlog {
                    link.in_backlog = true;
                    self.backlog.push(&link.who, id);
                }
                break;
            }
            if let Some(message) = decoder.message() {
                messages -= 1;
                match message {
                    Ok(message) => self.requests.take(id, link, message, inlet),
                    Err(e) => {
                        link.error("null", &e);
                        link.input = Input::Stopped;
                    }
                }
                continue;
            }
            if emptied || link.input != Input::Open {
                break;
            }
            match link.wire.read(&mut self.scratch, link.at_end || link.hung_up) {
                Ok(Got::End) => {
                    link.input = Input::Ended;
                    decoder.end();
                }
                Ok(Got::Bytes(n)) => {
                    reads -= 1;
                    decoder.feed(self.scratch.get(..n).unwrap_or_default());
                    link.framing = decoder.framing().unwrap_or(link.framing);
                    emptied = n < READ_SIZE && !link.at_end;
                }
                Ok(Got::Message(n)) => decoder.feed_message(self.scratch.get(..n).unwrap_or_default()),
                Ok(Got::Descriptors) => link.dead = true,
                Ok(Got::Unfit) => {
                    // It may have been the end, which the selector tells before the next turn.
                    messages = 0;
                    link.error("null", &unfit());
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => emptied = true,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => link.dead = true,
            }
        }
        // What was sent before hanging up has been read and counts; nobody waits for its replies.
        link.dead |= link.hung_up && !link.in_backlog;
        let little = decoder.held() + link.owed() <= COUNTED_LATER;
        if link.unsent() > 0 || link.is_done() {
            self.touch(id);
            // The flush at the end of the turn counts what is left then.
            if little {
                return;
            }
        }
        self.count_bytes(id);
        if self.conns.get(id.0).is_some_and(|c| c.link.unsent() > 0 || c.link.is_done()) {
            self.touch(id);
        }
    }

    /// Counts what a connection has in memory in its user's share. One that goes over it is told so, and closed.
    fn count_bytes(&mut self, id: ConnId) {
        let Some(Conn { decoder, link }) = self.conns.get_mut(id.0) else { return };
        let now = decoder.held() + link.owed();
        if now == link.held && now == link.counted {
            return;
        }
        let before = std::mem::replace(&mut link.held, now);
        if let Err(e) = self.requests.shares.hold(&link.who, before, now) {
            if link.owed() > UNSENT_LAGGED {
                link.dead = true;
            } else {
                link.error("null", &e);
                link.input = Input::Stopped;
            }
            *decoder = link.wire.decoder();
            self.touch(id);
        }
        self.count(id);
    }

    /// Answers a request. One that was answered, or whose connection is gone, is ignored.
    pub fn reply(&mut self, req: ReqId, result: &Result<String, RpcError>) {
        let Some(pending) = self.requests.remove(req) else { return };
        let conn = pending.conn;
        if let Some(Conn { link, .. }) = self.conns.get_mut(conn.0) {
            self.requests.reply(link, &pending, result);
            self.touch(conn);
        }
    }

    /// Sends a notification that belongs to a subscription or stream. A connection with more unsent than
    /// `UNSENT_LAGGED` is reported once for each of its subscriptions, see [`Conns::take_lagged`]; what was queued
    /// before is sent all the same.
    pub fn notify(&mut self, conn: ConnId, stream: StreamId, method: &str, params: &str) {
        let Some(Conn { link, .. }) = self.conns.get_mut(conn.0) else { return };
        let fits = link.notification(method, params);
        if method == notes::LAGGED {
            link.lagged.remove(&stream);
            self.requests.unsubscribed(link);
        } else if (!fits || link.unsent() > UNSENT_LAGGED) && link.lagged.insert(stream) {
            self.lagged.push((conn, stream));
        }
        self.touch(conn);
    }

    /// Appends an `Input::Lagged` for each subscription that was lost since the last call.
    pub fn take_lagged(&mut self, out: &mut Vec<core::Input>) {
        out.extend(self.lagged.drain(..).map(|(conn, subscription)| core::Input::Lagged { conn, subscription }));
    }

    /// Notes an open stream, so that the connection lives until its end even when the client has shut down its side. To
    /// be called before the reply that names the stream.
    ///
    /// # Errors
    /// `Busy` when the connection has [`STREAMS_PER_CONNECTION_MAX`] streams; `Unavailable` when it is gone.
    pub fn stream_open(&mut self, conn: ConnId, id: StreamId) -> Result<(), RpcError> {
        let gone = || RpcError::new(Code::Unavailable, "the connection is gone");
        let Conn { link, .. } = self.conns.get_mut(conn.0).ok_or_else(gone)?;
        if link.streams.len() >= STREAMS_PER_CONNECTION_MAX {
            let what = format!("this connection has {STREAMS_PER_CONNECTION_MAX} streams");
            return Err(RpcError::new(Code::Busy, what).hint("end some with stream.close"));
        }
        self.requests.shares.take(&link.who, Kind::Stream)?;
        link.streams.insert(id);
        Ok(())
    }

    /// Sends data of a stream. The caller holds back while [`Conns::unsent`] is large, and goes on after
    /// `Flushed::drained`.
    pub fn stream_data(&mut self, conn: ConnId, id: StreamId, bytes: &[u8]) {
        if let Some(Conn { link, .. }) = self.conns.get_mut(conn.0) {
            link.stream_data(id, bytes);
            self.touch(conn);
        }
    }

    /// Ends a stream.
    pub fn stream_end(&mut self, conn: ConnId, id: StreamId, reason: &str) {
        if let Some(Conn { link, .. }) = self.conns.get_mut(conn.0) {
            link.stream_end(id, reason);
            if link.streams.remove(&id) {
                self.requests.shares.give(&link.who, Kind::Stream, 1);
            }
            self.touch(conn);
        }
    }

    /// Bytes that wait for the client to read; 0 when it is gone.
    #[must_use]
    pub fn unsent(&self, conn: ConnId) -> usize {
        self.conns.get(conn.0).map_or(0, |c| c.link.unsent())
    }

    /// Closes a connection at the next flush, without sending what is unsent.
    pub fn close(&mut self, conn: ConnId) {
        if let Some(Conn { link, .. }) = self.conns.get_mut(conn.0) {
            link.dead = true;
            self.touch(conn);
        }
    }

    /// Puts a connection on the list for the next flush.
    fn touch(&mut self, conn: ConnId) {
        if let Some(Conn { link, .. }) = self.conns.get_mut(conn.0)
            && !link.dirty
        {
            link.dirty = true;
            self.dirty.push(conn);
        }
    }

    /// Whether [`Conns::flush`] has anything to do.
    #[must_use]
    pub fn has_unflushed(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// When `due` is to be called at the latest.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Mono> {
        self.lagging.first().map(|(at, _)| *at)
    }

    /// Closes those at the next flush that have taken nothing for too long.
    pub fn due(&mut self, now: Mono) {
        while let Some((at, conn)) = self.lagging.first().copied().filter(|(at, _)| *at <= now) {
            self.lagging.remove(&(at, conn));
            let Some(Conn { link, .. }) = self.conns.get_mut(conn.0) else { continue };
            if now.since(at) > FROZEN {
                link.cut_off = Some(now + LAGGING_MAX);
                self.lagging.insert((now + LAGGING_MAX, conn));
            } else {
                self.close(conn);
            }
        }
    }

    /// Notes how long a connection may go on taking nothing, after it was written to.
    fn watch_lag(&mut self, conn: ConnId, noted: Option<Mono>, now: Mono) {
        let Some(Conn { link, .. }) = self.conns.get_mut(conn.0) else { return };
        let lags = link.unsent() > UNSENT_LAGGED;
        link.cut_off = lags.then(|| link.cut_off.unwrap_or(now + LAGGING_MAX));
        if link.cut_off != noted {
            noted.map(|at| self.lagging.remove(&(at, conn)));
            link.cut_off.map(|at| self.lagging.insert((at, conn)));
        }
    }

    /// The end of a turn: writes what gathered, once for each connection, and closes what is done or dead.
    pub fn flush(&mut self, now: Mono, registry: &Registry, sources: &mut Sources, found: &mut Flushed) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for conn in dirty.drain(..) {
            let Some(Conn { link, .. }) = self.conns.get_mut(conn.0) else { continue };
            link.dirty = false;
            let noted = link.cut_off;
            link.write();
            self.watch_lag(conn, noted, now);
            self.count_bytes(conn);
            let Some(Conn { link, .. }) = self.conns.get_mut(conn.0) else { continue };
            if link.is_done() {
                self.drop_conn(conn, registry, sources);
                found.closed.push(conn);
                continue;
            }
            if link.unsent() == 0 && !link.streams.is_empty() {
                found.drained.push(conn);
            }
            if link.paused && link.unsent() <= UNSENT_LAGGED && !link.in_backlog {
                link.in_backlog = true;
                self.backlog.push(&link.who, conn);
            }
            if link.full != link.watched && watch(link, registry).is_err() {
                link.dead = true;
                self.touch(conn);
            }
        }
        // The room of the list serves again.
        dirty.append(&mut self.dirty);
        self.dirty = dirty;
    }

    #[cfg(test)]
    fn requests_in_flight(&self) -> usize {
        self.requests.len().0
    }

    #[cfg(test)]
    fn batches_open(&self) -> usize {
        self.requests.len().1
    }

    fn drop_conn(&mut self, id: ConnId, registry: &Registry, sources: &mut Sources) {
        let Some(Conn { mut link, .. }) = self.conns.remove(id.0) else { return };
        link.wire.retire();
        sources.remove(registry, link.wire.as_raw_fd(), link.token);
        if link.pending > 0 {
            self.requests.forget(id);
        }
        self.lagged.retain(|(conn, _)| *conn != id);
        self.buffered -= link.counted;
        link.cut_off.map(|at| self.lagging.remove(&(at, id)));
        self.give_back(&link);
        drop(link);
        self.fill_reserve();
    }
}

/// A message of HOB_FD that is none.
fn unfit() -> RpcError {
    RpcError::new(Code::InvalidRequest, format!("a message has 1 to {MESSAGE_MAX} bytes"))
        .hint("send one JSON text a message")
}

/// Asks the selector for what matters: writability only while something is unsent, or every reply that a client takes
/// would wake the loop.
fn watch(link: &mut Link, registry: &Registry) -> io::Result<()> {
    link.watched = link.full;
    let interest = if link.full { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
    SourceFd(&link.wire.as_raw_fd()).reregister(registry, link.token, interest)
}
