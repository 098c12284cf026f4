//! The bare connection: whole messages out and in. Native framing out; what comes in is read in whatever framing it
//! has, because a daemon that turns a client away may not know the client's yet.

use super::ClientError;
use crate::base::ids::StreamId;
use crate::protocol::frame::{Decoder, Framing, Message};
use crate::protocol::rpc::{self, FromServer};
use crate::sys::net;
use serde_json::Value;
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

const READ_SIZE: usize = 64 * 1024;
/// Messages kept while a reply is awaited.
const EARLY_MAX: usize = 4096;

/// A message as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// A JSON text.
    Json(String),
    Stream {
        id: StreamId,
        bytes: Vec<u8>,
    },
}

/// A connection without comfort; see [`super::Client::into_raw`].
#[derive(Debug)]
pub struct Raw {
    stream: UnixStream,
    decoder: Decoder,
    /// What came while a reply was awaited.
    early: VecDeque<Received>,
    buf: Box<[u8]>,
}

impl Raw {
    pub(super) fn connect(socket: &Path, limit: Duration) -> io::Result<Raw> {
        let stream = net::connect(socket, limit)?;
        Ok(Raw { stream, decoder: Decoder::new(), early: VecDeque::new(), buf: vec![0; READ_SIZE].into() })
    }

    /// The same connection, for closing it while another thread reads.
    pub(super) fn handle(&self) -> io::Result<UnixStream> {
        self.stream.try_clone()
    }

    /// Sends one JSON text, such as a request.
    ///
    /// # Errors
    /// `Unexpected` when it does not fit into a frame; `Io` when the connection is lost.
    pub fn send(&mut self, json: &str) -> Result<(), ClientError> {
        let mut out = Vec::with_capacity(json.len() + 4);
        if Framing::Binary.write(&mut out, &[json]).is_err() {
            return Err(ClientError::Unexpected("the message is too long for a frame".to_owned()));
        }
        Ok(self.stream.write_all(&out)?)
    }

    /// The next message.
    ///
    /// # Errors
    /// `Closed` at the end of the connection; `Io` with `TimedOut` at the deadline, after which reading can go on.
    pub fn receive(&mut self, deadline: Option<Instant>) -> Result<Received, ClientError> {
        match self.early.pop_front() {
            Some(message) => Ok(message),
            None => self.receive_new(deadline),
        }
    }

    fn receive_new(&mut self, deadline: Option<Instant>) -> Result<Received, ClientError> {
        loop {
            match self.decoder.message() {
                Some(Ok(Message::Stream { id, bytes })) => return Ok(Received::Stream { id, bytes: bytes.to_vec() }),
                Some(Ok(Message::Json(json))) => {
                    let text = String::from_utf8(json.to_vec());
                    return text.map(Received::Json).map_err(|_| ClientError::Unexpected("not UTF-8".to_owned()));
                }
                Some(Err(e)) => return Err(ClientError::Unexpected(format!("this is no hob: {e}"))),
                None => {}
            }
            if self.decoder.failed() {
                return Err(ClientError::Closed);
            }
            self.fill(deadline)?;
        }
    }

    fn fill(&mut self, deadline: Option<Instant>) -> Result<(), ClientError> {
        let limit = match deadline.map(|d| d.saturating_duration_since(Instant::now())) {
            Some(Duration::ZERO) => return Err(ClientError::Io(io::ErrorKind::TimedOut.into())),
            limit => limit,
        };
        self.stream.set_read_timeout(limit)?;
        match self.stream.read(&mut self.buf) {
            Ok(0) => Err(ClientError::Closed),
            Ok(n) => {
                self.decoder.feed(self.buf.get(..n).unwrap_or_default());
                Ok(())
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Err(ClientError::Io(io::ErrorKind::TimedOut.into())),
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => Err(ClientError::Closed),
            Err(e) => Err(ClientError::Io(e)),
        }
    }

    /// Waits for the reply to a request. Other messages are kept for [`Raw::receive`].
    pub(super) fn reply(&mut self, id: u64, deadline: Option<Instant>) -> Result<Value, ClientError> {
        let wanted = id.to_string();
        loop {
            let message = self.receive_new(deadline)?;
            if self.early.len() >= EARLY_MAX {
                let what = "more came than anyone reads; open streams with subscribe or logs, or use a raw connection";
                return Err(ClientError::Unexpected(what.to_owned()));
            }
            let Received::Json(text) = &message else {
                self.early.push_back(message);
                continue;
            };
            match rpc::parse_from_server(text.as_bytes()) {
                // An error without an id speaks of the connection, on which this is the only request.
                Ok(FromServer::Reply { id, result: Err(e) }) if id == wanted || id == "null" => {
                    return Err(ClientError::Rpc(e));
                }
                Ok(FromServer::Reply { id, result: Ok(result) }) if id == wanted => {
                    let value = serde_json::from_str(result.get());
                    return value.map_err(|e| ClientError::Unexpected(format!("the answer cannot be read: {e}")));
                }
                Ok(FromServer::Reply { .. }) => {}
                Ok(FromServer::Notification { .. }) => self.early.push_back(message),
                Err(e) => return Err(ClientError::Unexpected(format!("this is no hob: {e}"))),
            }
        }
    }
}
