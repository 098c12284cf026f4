//! Requests between their message and their reply: which connection, id and batch a reply belongs to. Touches nothing.

use super::Ask;
use super::link::{Link, too_long};
use super::share::{Kind, Shares};
use super::slab::Slab;
use crate::base::access::Access;
use crate::base::ids::{ConnId, ReqId};
use crate::base::limits::{BATCH_MESSAGE_MAX, REQUESTS_IN_FLIGHT_MAX, UNSENT_MAX};
use crate::core;
use crate::daemon::fair::Waiting;
use crate::protocol::frame::{Framing, Message};
use crate::protocol::methods::{self, Call, Request, Signals};
use crate::protocol::rpc::{self, Code, Id, Invalid, Parsed, RpcError};
use std::fmt;

/// Where requests go: questions to `ask`, unless something that is not done yet has come before them, all others to
/// `out`.
pub struct Inlet<'a, 'b> {
    pub ask: &'a mut Ask<'b>,
    pub waiting: &'a mut Waiting,
    pub out: &'a mut Vec<core::Input>,
}

impl fmt::Debug for Inlet<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inlet").field("out", self.out).finish_non_exhaustive()
    }
}

impl Inlet<'_, '_> {
    fn ask(&mut self, conn: ConnId, request: &Request) -> Option<Result<String, RpcError>> {
        self.waiting.budget.count();
        let first = self.out.is_empty() && !self.waiting.holds(conn) && !self.waiting.budget.is_spent();
        if first { (self.ask)(request) } else { None }
    }
}

/// All requests in flight, of all connections.
#[derive(Debug)]
pub(super) struct Requests {
    /// As many as all connections together may have.
    pending: Slab<Pending, 22>,
    batches: Slab<Batch, 22>,
    signals: &'static Signals,
    /// What each user has.
    pub(super) shares: Shares,
}

#[derive(Debug)]
pub(super) struct Pending {
    pub(super) conn: ConnId,
    /// `None`: a notification, whose reply nobody gets.
    id: Option<Id>,
    batch: Option<u64>,
    about: About,
}

/// What a request means for the number of subscriptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum About {
    Else,
    /// One more was counted when it came.
    Subscribe,
    Unsubscribe,
}

impl About {
    fn of(request: &Request) -> About {
        if matches!(request, Request::EventSubscribe(_)) {
            About::Subscribe
        } else if matches!(request, Request::EventUnsubscribe { .. }) {
            About::Unsubscribe
        } else {
            About::Else
        }
    }
}

/// Replies that go out together.
#[derive(Debug)]
struct Batch {
    conn: ConnId,
    /// Replies that are missing; one more while the batch is being read.
    missing: usize,
    framing: Framing,
    /// Replies with commas between them.
    text: String,
}

impl Requests {
    pub(super) fn new(own: u32, signals: &'static Signals) -> Requests {
        Requests { pending: Slab::new(), batches: Slab::new(), signals, shares: Shares::new(own) }
    }

    /// Turns a message into inputs; what is wrong with it is answered at once.
    pub(super) fn take(&mut self, conn: ConnId, link: &mut Link, message: Message<'_>, inlet: &mut Inlet<'_, '_>) {
        let json = match message {
            Message::Json(json) => json,
            Message::Stream { id, .. } => {
                let error = RpcError::new(Code::InvalidRequest, format!("stream {id} takes no input"));
                return link.error("null", &error);
            }
        };
        match rpc::parse(json) {
            Parsed::One(message) => self.call(conn, link, &message, None, inlet),
            Parsed::Invalid(Invalid { id, error }) => link.error(id, &error),
            Parsed::Batch(elements) if link.framing == Framing::Messages && elements.len() > BATCH_MESSAGE_MAX => {
                let what = format!("a batch on HOB_FD has at most {BATCH_MESSAGE_MAX} requests");
                link.error("null", &RpcError::new(Code::Busy, what).hint("send several batches"));
            }
            Parsed::Batch(elements) => {
                let framing = link.framing;
                let batch = self.batches.insert(Batch { conn, missing: 1, framing, text: String::new() });
                for element in elements {
                    match rpc::parse_one(element.get()) {
                        Ok(message) => self.call(conn, link, &message, batch, inlet),
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
        inlet: &mut Inlet<'_, '_>,
    ) {
        if message.id.is_some() {
            self.expect(batch);
        }
        let opened = self.permitted(link, message).and_then(|call| {
            if link.hung_up && !core::changes(&call.request) {
                return Err(RpcError::new(Code::Unavailable, "nobody waits for the answer"));
            }
            match inlet.ask(conn, &call.request) {
                Some(result) => result.map(Some),
                None => self.open(conn, link, message, batch, call).map(|input| {
                    inlet.out.push(input);
                    None
                }),
            }
        });
        if let Some(result) = opened.transpose() {
            self.answer(link, message.id, batch, &result);
        }
    }

    /// Counts a request in its user's share, and the subscription that it asks for.
    fn take_share(&mut self, link: &mut Link, about: About) -> Result<(), RpcError> {
        self.shares.take(&link.who, Kind::Request)?;
        if about == About::Subscribe {
            if let Err(e) = self.shares.take(&link.who, Kind::Subscription) {
                self.shares.give(&link.who, Kind::Request, 1);
                return Err(e);
            }
            link.subscriptions += 1;
        }
        link.pending += 1;
        Ok(())
    }

    fn give_share(&mut self, link: &mut Link, about: About, done: bool) {
        link.pending -= 1;
        self.shares.give(&link.who, Kind::Request, 1);
        match (about, done) {
            (About::Subscribe, false) | (About::Unsubscribe, true) => self.unsubscribed(link),
            (About::Subscribe, true) | (About::Unsubscribe, false) | (About::Else, _) => {}
        }
    }

    /// A subscription has ended.
    pub(super) fn unsubscribed(&mut self, link: &mut Link) {
        if link.subscriptions > 0 {
            link.subscriptions -= 1;
            self.shares.give(&link.who, Kind::Subscription, 1);
        }
    }

    /// Reads a request and sees whether it may be made.
    fn permitted(&self, link: &Link, message: &rpc::Message<'_>) -> Result<Call, RpcError> {
        let call = methods::decode(&message.method, message.params, self.signals)?;
        if call.access > link.peer.access {
            return Err(denied(&message.method, call.access, &link.peer));
        }
        Ok(call)
    }

    /// Gives a request a number to be answered by.
    fn open(
        &mut self,
        conn: ConnId,
        link: &mut Link,
        message: &rpc::Message<'_>,
        batch: Option<u64>,
        call: Call,
    ) -> Result<core::Input, RpcError> {
        if link.pending >= REQUESTS_IN_FLIGHT_MAX {
            let what = format!("{REQUESTS_IN_FLIGHT_MAX} requests of this connection wait for their reply");
            return Err(RpcError::new(Code::Busy, what).hint("read replies before sending more"));
        }
        let about = About::of(&call.request);
        self.take_share(link, about)?;
        let pending = Pending { conn, id: message.id.map(Id::new), batch, about };
        let Some(req) = self.pending.insert(pending) else {
            self.give_share(link, about, false);
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
        self.give_share(link, pending.about, result.is_ok());
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
            let before = batch.text.len();
            batch.add(id, result);
            link.batched += batch.text.len() - before;
        }
        if link.batched > UNSENT_MAX {
            let conn = self.batches.get_mut(number).map(|b| b.conn);
            self.batches.remove_all(|b| Some(b.conn) == conn);
            link.batched = 0;
            link.dead = true;
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
            link.batched -= batch.text.len();
            link.text(&["[", &batch.text, "]"]);
        }
    }
}

impl Batch {
    fn add(&mut self, id: &str, result: &Result<String, RpcError>) {
        // Room is left for the errors that later replies may have to become.
        let room = (self.framing.limit() - 2).saturating_sub(self.text.len() + self.missing * 512);
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
            self.text.push_str(&rpc::error_text(id, &too_long(self.framing)));
        }
    }
}

fn denied(method: &str, needed: Access, peer: &core::Peer) -> RpcError {
    let word = |a| match a {
        Access::Read => "read",
        Access::Operate => "operate",
        Access::Admin => "admin",
    };
    let what = format!("{method} needs {} access and you have {}", word(needed), word(peer.access));
    RpcError::new(Code::PermissionDenied, what).hint(match &peer.job {
        Some(job) if core::task::of_name(job).is_some() => {
            "tasks have operate access and no more: a person may do it, or a service with \"access\": \"admin\""
                .to_owned()
        }
        Some(job) => format!("services.{job}.access in the config grants it to this job"),
        None => "run it as the daemon's user, or have daemon.access grant it".to_owned(),
    })
}
