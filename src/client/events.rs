//! Events as an iterator that outlives daemons.

use super::wire::Received;
use super::{ClientError, Line};
use crate::protocol::methods::notes;
use crate::protocol::rpc::{self, FromServer};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What a subscription yields.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// `{"seq", "time", "kind", "name", ...}`.
    Event(Value),
    /// This reader was too slow. Nothing is lost: events go on from here.
    Lagged { resume_from: u64 },
    /// Events before this one are no longer kept: read the present state; events go on from here.
    Reset { next: u64 },
}

/// Events, one after the other; waits for the next without limit. After an error it ends.
#[derive(Debug)]
pub struct Subscription {
    line: Line,
    kinds: Vec<String>,
    names: Vec<String>,
    /// The first event wanted next.
    next: Option<u64>,
    id: Option<u64>,
    requests: u64,
    ready: VecDeque<Event>,
    ended: bool,
}

impl Subscription {
    pub(super) fn open(
        line: Line,
        kinds: &[&str],
        names: &[String],
        from: Option<u64>,
    ) -> Result<Subscription, ClientError> {
        let kinds = kinds.iter().map(|k| (*k).to_owned()).collect();
        let mut subscription = Subscription {
            line,
            kinds,
            names: names.to_vec(),
            next: from,
            id: None,
            requests: 0,
            ready: VecDeque::new(),
            ended: false,
        };
        while subscription.id.is_none() {
            subscription.subscribe().or_else(|e| subscription.line.lost(e))?;
        }
        Ok(subscription)
    }

    fn subscribe(&mut self) -> Result<(), ClientError> {
        self.requests += 1;
        let params = json!({ "kinds": self.kinds, "names": self.names, "from": self.next });
        let text = rpc::request_text(self.requests, "event.subscribe", Some(&params.to_string()));
        let reply = self.line.exchange(self.requests, &text, None, true)?;
        let number = |name: &str| reply.get(name).and_then(Value::as_u64);
        let missing = || ClientError::Unexpected("the answer to event.subscribe has no subscription".to_owned());
        self.id = Some(number("subscription").ok_or_else(missing)?);
        let next = number("next").unwrap_or(1);
        let reset = reply.get("reset").and_then(Value::as_bool).unwrap_or(false);
        if reset {
            self.ready.push_back(Event::Reset { next });
        }
        if reset || self.next.is_none() {
            self.next = Some(next);
        }
        Ok(())
    }

    /// The next event, or `None` when none has come within this time.
    ///
    /// # Errors
    /// When the daemon went away and did not come back, or refused to go on.
    pub fn next_within(&mut self, limit: Duration) -> Result<Option<Event>, ClientError> {
        self.step(Some(Instant::now() + limit))
    }

    fn step(&mut self, deadline: Option<Instant>) -> Result<Option<Event>, ClientError> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some(event));
            }
            let step = if self.id.is_none() { self.subscribe() } else { self.receive(deadline) };
            match step {
                Ok(()) => {}
                Err(ClientError::Io(e)) if e.kind() == std::io::ErrorKind::TimedOut => return Ok(None),
                Err(e) => {
                    self.id = None;
                    self.line.lost(e)?;
                }
            }
        }
    }

    fn receive(&mut self, deadline: Option<Instant>) -> Result<(), ClientError> {
        let Received::Json(text) = self.line.raw()?.receive(deadline)? else { return Ok(()) };
        let (method, params) = match rpc::parse_from_server(text.as_bytes()) {
            Ok(FromServer::Notification { method, params: Some(params) }) => (method, params),
            // The daemon gives the connection up, and closes it.
            Ok(FromServer::Reply { result: Err(e), .. }) => return Err(ClientError::Rpc(e)),
            _ => return Ok(()),
        };
        let unreadable = |e| ClientError::Unexpected(format!("an event cannot be read: {e}"));
        let mut params: Value = serde_json::from_str(params.get()).map_err(unreadable)?;
        if params.get("subscription").and_then(Value::as_u64) != self.id {
            return Ok(());
        }
        if method == notes::EVENT
            && let Some(event) = params.get_mut("event").map(Value::take)
        {
            let seq = event.get("seq").and_then(Value::as_u64).unwrap_or(0);
            if self.next.is_none_or(|next| seq >= next) {
                self.next = Some(seq.saturating_add(1));
                self.ready.push_back(Event::Event(event));
            }
        } else if method == notes::LAGGED {
            let resume_from = params.get("resume_from").and_then(Value::as_u64).or(self.next).unwrap_or(0);
            self.ready.push_back(Event::Lagged { resume_from });
            self.next = Some(resume_from);
            self.id = None;
        }
        Ok(())
    }
}

impl Iterator for Subscription {
    type Item = Result<Event, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let item = self.step(None).transpose();
        self.ended = !matches!(item, Some(Ok(_)));
        item
    }
}
