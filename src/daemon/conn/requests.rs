//! Requests between their message and their reply: which connection, id and batch a reply belongs to. Touches nothing.

use super::link::{Link, too_long};
use super::slab::Slab;
use crate::base::ids::{ConnId, ReqId};
use crate::base::limits::{FRAME_MAX, REQUESTS_IN_FLIGHT_MAX};
use crate::core;
use crate::protocol::frame::Message;
use crate::protocol::methods::{self, Request, Signals};
use crate::protocol::rpc::{self, Code, Id, Invalid, Parsed, RpcError};

/// All requests in flight, of all connections.
#[derive(Debug)]
pub(super) struct Requests {
    /// As many as all connections together may have.
    pending: Slab<Pending, 22>,
    batches: Slab<Batch, 22>,
    signals: &'static Signals,
}

#[derive(Debug)]
pub(super) struct Pending {
    pub(super) conn: ConnId,
    /// `None`: a notification, whose reply nobody gets.
    id: Option<Id>,
    batch: Option<u64>,
    /// Whether success makes a subscription.
    pub(super) subscribes: bool,
}

/// Replies that go out together.
#[derive(Debug)]
struct Batch {
    conn: ConnId,
    /// Replies that are missing; one more while the batch is being read.
    missing: usize,
    /// Replies with commas between them.
    text: String,
}

impl Requests {
    pub(super) fn new(signals: &'static Signals) -> Requests {
        Requests { pending: Slab::new(), batches: Slab::new(), signals }
    }

    /// Turns a message into inputs; what is wrong with it is answered at once.
    pub(super) fn take(&mut self, conn: ConnId, link: &mut Link, message: Message<'_>, out: &mut Vec<core::Input>) {
        let json = match message {
            Message::Json(json) => json,
            Message::Stream { id, .. } => {
                let error = RpcError::new(Code::InvalidRequest, format!("stream {id} takes no input"));
                return link.error("null", &error);
            }
        };
        match rpc::parse(json) {
            Parsed::One(message) => self.call(conn, link, &message, None, out),
            Parsed::Invalid(Invalid { id, error }) => link.error(id, &error),
            Parsed::Batch(elements) => {
                let batch = self.batches.insert(Batch { conn, missing: 1, text: String::new() });
                for element in elements {
                    match rpc::parse_one(element.get()) {
                        Ok(message) => self.call(conn, link, &message, batch, out),
                        Err(Invalid { id, error }) => {
                            self.expect(batch);
                            self.answer(link, Some(id), batch, &Err(error));
                        }
                    }
                }
                self.finish(link, batch);
            }
        }
    }

    fn call(
        &mut self,
        conn: ConnId,
        link: &mut Link,
        message: &rpc::Message<'_>,
        batch: Option<u64>,
        out: &mut Vec<core::Input>,
    ) {
        if message.id.is_some() {
            self.expect(batch);
        }
        match self.open(conn, link, message, batch) {
            Ok(input) => {
                link.pending += 1;
                out.push(input);
            }
            Err(e) => self.answer(link, message.id, batch, &Err(e)),
        }
    }

    /// Reads a request, sees whether it may be made, and gives it a number to be answered by.
    fn open(
        &mut self,
        conn: ConnId,
        link: &Link,
        message: &rpc::Message<'_>,
        batch: Option<u64>,
    ) -> Result<core::Input, RpcError> {
        let call = methods::decode(&message.method, message.params, self.signals)?;
        if call.access > link.peer.access {
            return Err(denied(&message.method, call.access, link.peer.access));
        }
        if link.pending >= REQUESTS_IN_FLIGHT_MAX {
            let what = format!("{REQUESTS_IN_FLIGHT_MAX} requests of this connection wait for their reply");
            return Err(RpcError::new(Code::Busy, what).hint("read replies before sending more"));
        }
        let subscribes = matches!(call.request, Request::EventSubscribe(_));
        let pending = Pending { conn, id: message.id.map(Id::new), batch, subscribes };
        let Some(req) = self.pending.insert(pending) else {
            return Err(RpcError::new(Code::Busy, "too many requests wait for their reply"));
        };
        Ok(core::Input::Request {
            req: ReqId(req),
            conn,
            peer: link.peer.clone(),
            key: call.key,
            params_hash: call.params_hash,
            request: call.request,
        })
    }

    /// Requests and batches that wait.
    #[cfg(test)]
    pub(super) fn len(&self) -> (usize, usize) {
        (self.pending.len(), self.batches.len())
    }

    /// The request, if it still waits; it does not any more.
    pub(super) fn remove(&mut self, req: ReqId) -> Option<Pending> {
        self.pending.remove(req.0)
    }

    /// The connection is gone.
    pub(super) fn forget(&mut self, conn: ConnId) {
        self.pending.remove_all(|p| p.conn == conn);
        self.batches.remove_all(|b| b.conn == conn);
    }

    /// Answers a request that waited.
    pub(super) fn reply(&mut self, link: &mut Link, pending: &Pending, result: &Result<String, RpcError>) {
        self.answer(link, pending.id.as_ref().map(Id::as_str), pending.batch, result);
    }

    fn answer(&mut self, link: &mut Link, id: Option<&str>, batch: Option<u64>, result: &Result<String, RpcError>) {
        let Some(id) = id else { return };
        let Some(number) = batch else {
            return match result {
                Ok(json) => link.result(id, json),
                Err(e) => link.error(id, e),
            };
        };
        if let Some(batch) = self.batches.get_mut(number) {
            batch.add(id, result);
        }
        self.finish(link, batch);
    }

    fn expect(&mut self, batch: Option<u64>) {
        if let Some(batch) = batch.and_then(|b| self.batches.get_mut(b)) {
            batch.missing += 1;
        }
    }

    /// One reply less is missing; after the last one the batch goes out, unless there is nothing in it.
    fn finish(&mut self, link: &mut Link, number: Option<u64>) {
        let Some((number, batch)) = number.and_then(|n| Some((n, self.batches.get_mut(n)?))) else { return };
        batch.missing -= 1;
        if batch.missing > 0 {
            return;
        }
        if let Some(batch) = self.batches.remove(number)
            && !batch.text.is_empty()
        {
            link.text(&["[", &batch.text, "]"]);
        }
    }
}

impl Batch {
    fn add(&mut self, id: &str, result: &Result<String, RpcError>) {
        // Room is left for the errors that later replies may have to become.
        let room = (FRAME_MAX - 2).saturating_sub(self.text.len() + self.missing * 512);
        let reply = match result {
            Ok(json) => format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{json}}}"#),
            Err(e) => rpc::error_text(id, e),
        };
        if !self.text.is_empty() {
            self.text.push(',');
        }
        if reply.len() < room {
            self.text.push_str(&reply);
        } else {
            self.text.push_str(&rpc::error_text(id, &too_long()));
        }
    }
}

fn denied(method: &str, needed: crate::config::Access, has: crate::config::Access) -> RpcError {
    let word = |a| match a {
        crate::config::Access::Read => "read",
        crate::config::Access::Operate => "operate",
        crate::config::Access::Admin => "admin",
    };
    let what = format!("{method} needs {} access and you have {}", word(needed), word(has));
    RpcError::new(Code::PermissionDenied, what).hint("run it as the daemon's user, or have daemon.access grant it")
}
