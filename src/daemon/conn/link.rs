//! One connection's way out and its state: what is owed to it and when it is done. Writes to its own socket alone.

use super::wire::Wire;
use crate::base::access::Access;
use crate::base::ids::StreamId;
use crate::base::limits::{UNSENT_LAGGED, UNSENT_MAX};
use crate::base::time::Mono;
use crate::core::{Owner, Peer};
use crate::protocol::frame::Framing;
use crate::protocol::rpc::{self, Code, RpcError};
use crate::sys::net::Credentials;
use mio::Token;
use std::collections::BTreeSet;
use std::io;

/// An empty buffer keeps at most this much memory.
const KEEP: usize = 4096;

/// Whether more can come from a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Input {
    Open,
    /// The client has shut down its side and still reads.
    Ended,
    /// What it sent made no sense.
    Stopped,
}

#[derive(Debug)]
pub(super) struct Link {
    pub(super) wire: Wire,
    pub(super) token: Token,
    pub(super) peer: Peer,
    /// What it may at the most, whatever the config grants.
    pub(super) most: Access,
    /// Whose share it uses.
    pub(super) who: Owner,
    pub(super) cred: Credentials,
    pub(super) framing: Framing,
    pub(super) input: Input,
    /// Nobody is at the other end, or it is no longer welcome.
    pub(super) dead: bool,
    /// The selector has said that no more will come: read up to the end.
    pub(super) at_end: bool,
    /// Both directions are shut.
    pub(super) hung_up: bool,
    /// Not read from, because it does not read either.
    pub(super) paused: bool,
    /// In the list of connections to flush, and of those to read on from.
    pub(super) dirty: bool,
    pub(super) in_backlog: bool,
    /// Something is unsent because the socket was full; and whether the selector is asked to say when it is not.
    pub(super) full: bool,
    pub(super) watched: bool,
    /// Requests in flight.
    pub(super) pending: usize,
    pub(super) streams: BTreeSet<StreamId>,
    /// Subscriptions, those included that are being asked for.
    pub(super) subscriptions: usize,
    /// Bytes in memory that its user's share was told of.
    pub(super) held: usize,
    /// When it is closed unless it takes something of what is unsent.
    pub(super) cut_off: Option<Mono>,
    /// Subscriptions reported as lost whose notice has not been sent yet.
    pub(super) lagged: BTreeSet<StreamId>,
    /// What it holds of the bytes that all connections may hold.
    pub(super) counted: usize,
    /// Bytes of replies in batches that are not whole yet.
    pub(super) batched: usize,
    out: Vec<u8>,
    sent: usize,
}

impl Link {
    pub(super) fn new(wire: Wire, cred: Credentials, peer: Peer) -> Link {
        Link {
            framing: wire.framing().unwrap_or(Framing::Lines),
            wire,
            token: Token(usize::MAX),
            most: Access::Admin,
            who: peer.owner(),
            peer,
            cred,
            input: Input::Open,
            dead: false,
            at_end: false,
            hung_up: false,
            paused: false,
            dirty: false,
            in_backlog: false,
            full: false,
            watched: false,
            pending: 0,
            streams: BTreeSet::new(),
            subscriptions: 0,
            held: 0,
            cut_off: None,
            lagged: BTreeSet::new(),
            counted: 0,
            batched: 0,
            out: Vec::new(),
            sent: 0,
        }
    }

    pub(super) fn unsent(&self) -> usize {
        self.out.len() - self.sent
    }

    /// Bytes that wait for the client to read, or for the rest of their batch.
    pub(super) fn owed(&self) -> usize {
        self.unsent() + self.batched
    }

    /// Whether everything that was asked for is out and nothing more will be asked.
    pub(super) fn is_done(&self) -> bool {
        let owed = self.pending > 0 || self.unsent() > 0;
        self.dead
            || match self.input {
                Input::Open => false,
                Input::Ended => !owed && self.subscriptions == 0 && self.streams.is_empty(),
                Input::Stopped => !owed,
            }
    }

    pub(super) fn result(&mut self, id: &str, result: &str) {
        if rpc::write_result(self.framing, &mut self.out, id, result).is_err() {
            self.error(id, &too_long(self.framing));
        }
        self.check_unsent();
    }

    pub(super) fn error(&mut self, id: &str, error: &RpcError) {
        self.text(&[&rpc::error_text(id, error)]);
    }

    /// One JSON text in parts.
    pub(super) fn text(&mut self, parts: &[&str]) {
        if self.framing.write(&mut self.out, parts).is_err() {
            // Only ids of millions of bytes lead here.
            let _ = self.framing.write(&mut self.out, &[&rpc::error_text("null", &too_long(self.framing))]);
        }
        self.check_unsent();
    }

    /// Whether the notification fits into a frame.
    pub(super) fn notification(&mut self, method: &str, params: &str) -> bool {
        let fits = rpc::write_notification(self.framing, &mut self.out, method, params).is_ok();
        self.check_unsent();
        fits
    }

    pub(super) fn stream_data(&mut self, id: StreamId, bytes: &[u8]) {
        self.framing.stream_data(&mut self.out, id, bytes);
        self.check_unsent();
    }

    pub(super) fn stream_end(&mut self, id: StreamId, reason: &str) {
        self.framing.stream_end(&mut self.out, id, reason);
        self.check_unsent();
    }

    /// Gives up what is unsent, and with it the connection.
    pub(super) fn discard(&mut self) {
        self.out = Vec::new();
        self.sent = 0;
        self.dead = true;
    }

    /// Much in one turn says nothing about the reader yet: what the socket takes goes out before anyone is judged by
    /// it.
    fn check_unsent(&mut self) {
        if self.unsent() > UNSENT_LAGGED && !self.full {
            self.write();
        }
        if self.unsent() > UNSENT_MAX {
            self.dead = true;
        }
    }

    /// Writes what the socket takes, in one call, or one for each message where the socket tells them apart. A short
    /// write counts as full. When nobody is there to read, what is unsent is discarded; what the client sent before it
    /// went away is still to be read.
    pub(super) fn write(&mut self) {
        while self.unsent() > 0 && !self.hung_up {
            match self.wire.write(self.out.get(self.sent..).unwrap_or_default()) {
                Ok(n) => {
                    self.sent += n;
                    self.cut_off = None;
                    if self.framing == Framing::Messages {
                        continue;
                    }
                    self.full = self.unsent() > 0;
                    break;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.full = true;
                    break;
                }
                Err(_) => self.hung_up = true,
            }
        }
        if self.unsent() == 0 || self.hung_up {
            self.full = false;
            self.out.clear();
            self.out.shrink_to(KEEP);
            self.sent = 0;
        } else if self.sent > self.out.len() / 2 {
            self.out.drain(..self.sent);
            self.sent = 0;
        }
    }
}

pub(super) fn too_long(framing: Framing) -> RpcError {
    let error = RpcError::new(Code::Busy, format!("the reply is longer than {} bytes", framing.limit()));
    error.hint(match framing {
        Framing::Messages => "ask for less at once, or at HOB_SOCKET, whose limit is higher",
        Framing::Binary | Framing::Headers | Framing::Lines => "ask for less at once",
    })
}
