//! The bare connection: whole messages out and in. Native framing out; what comes in is read in whatever framing it
//! has, because a daemon that turns a client away may not know the client's yet.

use super::ClientError;
use crate::base::ids::StreamId;
use crate::base::limits::MESSAGE_MAX;
use crate::protocol::frame::{Decoder, Framing, Message};
use crate::protocol::methods::notes;
use crate::protocol::rpc::{self, FromServer};
use crate::sys::chan::{self, Chan};
use crate::sys::net;
use serde_json::Value;
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
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

#[derive(Debug)]
enum Socket {
    Stream(UnixStream),
    /// HOB_FD.
    Channel(Chan),
}

/// A connection without comfort; see [`super::Client::into_raw`].
#[derive(Debug)]
pub struct Raw {
    socket: Socket,
    /// Nobody is at the other end any more.
    ended: bool,
    decoder: Decoder,
    /// What came while a reply was awaited.
    early: VecDeque<Received>,
    buf: Box<[u8]>,
}

impl Raw {
    pub(super) fn connect(socket: &Path, limit: Duration) -> io::Result<Raw> {
        Ok(Raw::over(Socket::Stream(net::connect(socket, limit)?), Decoder::new()))
    }

    pub(super) fn channel(chan: Chan) -> Raw {
        Raw::over(Socket::Channel(chan), Decoder::messages())
    }

    fn over(socket: Socket, decoder: Decoder) -> Raw {
        Raw { socket, ended: false, decoder, early: VecDeque::new(), buf: vec![0; READ_SIZE].into() }
    }

    /// Whether it is a channel that can still be used: there is no other one to be had.
    pub(super) fn is_kept(&self) -> bool {
        matches!(self.socket, Socket::Channel(_)) && !self.ended
    }

    /// The same connection, for closing it while another thread reads.
    pub(super) fn handle(&self) -> io::Result<UnixStream> {
        match &self.socket {
            Socket::Stream(stream) => stream.try_clone(),
            Socket::Channel(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Sends one JSON text, such as a request.
    ///
    /// # Errors
    /// `Unexpected` when it does not fit into a frame; `Io` when the connection is lost.
    pub fn send(&mut self, json: &str) -> Result<(), ClientError> {
        let stream = match &mut self.socket {
            Socket::Stream(stream) => stream,
            Socket::Channel(chan) => return send_message(chan, json),
        };
        let mut out = Vec::with_capacity(json.len() + 4);
        if Framing::Binary.write(&mut out, &[json]).is_err() {
            return Err(ClientError::Unexpected(
                "the message is longer than 16 MiB, which no frame holds; let files carry what is so large".to_owned(),
            ));
        }
        Ok(stream.write_all(&out)?)
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
        let stream = match &mut self.socket {
            Socket::Stream(stream) => stream,
            Socket::Channel(_) => return self.fill_message(limit),
        };
        stream.set_read_timeout(limit)?;
        match stream.read(&mut self.buf) {
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

    fn fill_message(&mut self, limit: Option<Duration>) -> Result<(), ClientError> {
        let Socket::Channel(chan) = &self.socket else { return Ok(()) };
        match chan.recv(&mut self.buf) {
            Ok(Some((n, _))) => {
                self.decoder.feed_message(self.buf.get(..n).unwrap_or_default());
                Ok(())
            }
            Ok(None) => {
                self.ended = true;
                Err(ClientError::Closed)
            }
            // The caller looks at its deadline and comes back.
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                chan::wait([(Some(chan.as_fd()), false)], limit)?;
                Ok(())
            }
            Err(e) => Err(ClientError::Io(e)),
        }
    }

    /// Waits for the reply to a request. Other messages are kept for [`Raw::receive`]. `again`: what is to be sent once
    /// more when another daemon has taken over a channel; without it the reply may never come, which counts as a loss.
    pub(super) fn reply(
        &mut self,
        id: u64,
        deadline: Option<Instant>,
        again: Option<&str>,
    ) -> Result<Value, ClientError> {
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
                Ok(FromServer::Notification { method, .. }) if method == notes::RESUMED => match again {
                    Some(text) => self.send(text)?,
                    None => return Err(ClientError::Closed),
                },
                Ok(FromServer::Notification { .. }) => self.early.push_back(message),
                Err(e) => return Err(ClientError::Unexpected(format!("this is no hob: {e}"))),
            }
        }
    }
}

/// Waits until the channel takes the message.
fn send_message(chan: &Chan, json: &str) -> Result<(), ClientError> {
    if json.len() > MESSAGE_MAX {
        let what =
            format!("a message on HOB_FD has at most {MESSAGE_MAX} bytes; connect to HOB_SOCKET for longer ones");
        return Err(ClientError::Unexpected(what));
    }
    loop {
        match chan.send(json.as_bytes(), &[]) {
            Err(e) if chan::is_later(&e) => chan::wait([(Some(chan.as_fd()), true)], None).map(drop)?,
            other => return Ok(other?),
        }
    }
}
