//! The blocking client library, for hob's own command line, for plugins and for anyone else. Touches the control
//! socket, and `/dev/urandom` once for the keys that make requests safe to send again.
//!
//! A daemon may die and come back at any moment without its clients noticing: [`Client::call`] sends a request again
//! with the same key, [`Subscription`] goes on with the next event, [`LogStream`] with the next byte.
//!
//! ```
//! use hob::client::{Client, State};
//! # use hob::protocol::frame::{Decoder, Framing};
//! # use std::io::{Read, Write};
//! # let socket = std::env::temp_dir().join(format!("hob-doc-{}.sock", std::process::id()));
//! # let listener = std::os::unix::net::UnixListener::bind(&socket)?;
//! # let daemon = std::thread::spawn(move || -> std::io::Result<()> {
//! #     let (mut stream, _) = listener.accept()?;
//! #     let mut decoder = Decoder::new();
//! #     while decoder.message().is_none() {
//! #         let mut buf = [0; 4096];
//! #         let n = stream.read(&mut buf)?;
//! #         decoder.feed(&buf[..n]);
//! #     }
//! #     let list = r#"{"services":[{"name":"web","state":"running","pid":77}]}"#;
//! #     let mut out = Vec::new();
//! #     let _ = Framing::Binary.write(&mut out, &[r#"{"jsonrpc":"2.0","id":1,"result":"#, list, "}"]);
//! #     stream.write_all(&out)
//! # });
//! let mut client = Client::connect(&socket)?;
//! let services = client.services()?;
//! assert_eq!((services[0].name.as_str(), services[0].state, services[0].pid), ("web", State::Running, Some(77)));
//! # let _ = daemon.join();
//! # std::fs::remove_file(&socket)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod env;
mod events;
mod inhibit;
mod key;
mod logs;
mod start;
#[cfg(test)]
mod tests;
mod typed;
pub mod types;
mod wire;

pub use crate::protocol::methods::Stream;
pub use events::{Event, Subscription};
pub use inhibit::Inhibitor;
pub use logs::{LogAsk, LogChunk, LogStream, Mark};
pub use start::{Start, ensure_running};
pub use types::State;
pub use wire::{Raw, Received};

use crate::base::gather::Gather as _;
use crate::protocol::methods::{self, Method};
use crate::protocol::rpc::{Code, RpcError};
use core::fmt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a connection may take to be made.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// How long a client waits for a daemon to come back, unless told otherwise.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause between two attempts to reach it.
const RETRY: Duration = Duration::from_millis(20);
/// A connection that lasted this long counts as a success: patience begins anew.
const LASTED: Duration = Duration::from_secs(1);

/// Why a call has no result.
#[derive(Debug)]
pub enum ClientError {
    /// The daemon's own answer.
    Rpc(RpcError),
    /// The socket cannot be reached, or a time limit passed (`TimedOut`).
    Io(io::Error),
    /// The connection was lost, and nobody came back within the client's patience.
    Closed,
    /// hob has ended: nobody listens at its socket any more, for longer than [`Client::set_restart_patience`] says.
    Ended,
    /// The answer was not what the caller can read.
    Unexpected(String),
    /// [`ensure_running`] found no daemon and could not start one: what happened, and the log's last lines.
    NotStarted(String),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::Rpc(e) => e.fmt(f),
            ClientError::Io(e) => e.fmt(f),
            ClientError::Closed => f.write_str("the connection to hob was lost and nobody answers"),
            ClientError::Ended => f.write_str("hob has stopped"),
            ClientError::Unexpected(what) | ClientError::NotStarted(what) => f.write_str(what),
        }
    }
}

impl core::error::Error for ClientError {}

impl From<io::Error> for ClientError {
    fn from(e: io::Error) -> Self {
        ClientError::Io(e)
    }
}

impl ClientError {
    /// What kind of error the daemon answered; `None` when it was not the daemon that failed.
    #[must_use]
    pub fn code(&self) -> Option<Code> {
        match self {
            ClientError::Rpc(e) => Some(e.code),
            ClientError::Io(_)
            | ClientError::Closed
            | ClientError::Ended
            | ClientError::Unexpected(_)
            | ClientError::NotStarted(_) => None,
        }
    }

    /// What is wrong, in one sentence without a full stop.
    #[must_use]
    pub fn message(&self) -> String {
        self.to_string()
    }

    /// What to do about it, where the daemon knows that.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        match self {
            ClientError::Rpc(e) => e.hint.as_deref(),
            ClientError::Io(_)
            | ClientError::Closed
            | ClientError::Ended
            | ClientError::Unexpected(_)
            | ClientError::NotStarted(_) => None,
        }
    }

    /// Whether no daemon runs at all.
    #[must_use]
    pub fn is_not_running(&self) -> bool {
        match self {
            ClientError::Io(e) => matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused),
            ClientError::Closed | ClientError::Ended => true,
            ClientError::Rpc(_) | ClientError::Unexpected(_) | ClientError::NotStarted(_) => false,
        }
    }

    /// Whether the daemon went away, as opposed to having answered.
    fn is_loss(&self) -> bool {
        match self {
            ClientError::Closed => true,
            ClientError::Io(e) => !matches!(e.kind(), io::ErrorKind::TimedOut | io::ErrorKind::PermissionDenied),
            ClientError::Ended | ClientError::Rpc(_) | ClientError::Unexpected(_) | ClientError::NotStarted(_) => false,
        }
    }
}

/// Where to connect, and how patiently.
#[derive(Clone, Debug)]
struct Target {
    socket: PathBuf,
    patience: Duration,
    /// The same where nobody listens.
    restart: Duration,
}

/// One connection, made again when it is lost.
#[derive(Debug)]
struct Line {
    target: Target,
    raw: Option<(Raw, Instant)>,
    /// Since when nobody has answered.
    lost: Option<Instant>,
    /// Since when nobody has listened.
    unheard: Option<Instant>,
}

impl Line {
    fn new(target: Target) -> Line {
        Line { target, raw: None, lost: None, unheard: None }
    }

    /// The connection, made if there is none.
    fn raw(&mut self) -> Result<&mut Raw, ClientError> {
        let raw = match self.raw.take() {
            Some(raw) => raw,
            None => (Raw::connect(&self.target.socket, CONNECT_LIMIT)?, Instant::now()),
        };
        Ok(&mut self.raw.insert(raw).0)
    }

    /// After a loss: forgets the connection and pauses, until patience has run out.
    fn lost(&mut self, e: ClientError) -> Result<(), ClientError> {
        if self.is_kept() && !e.is_loss() {
            return Err(e);
        }
        let lasted = self.raw.take().is_some_and(|(_, since)| since.elapsed() > LASTED);
        if lasted {
            self.lost = None;
        }
        let since = *self.lost.get_or_insert_with(Instant::now);
        if !e.is_loss() {
            return Err(e);
        }
        // A daemon that dies or becomes another leaves the listener to its keeper.
        let nobody = matches!(&e, ClientError::Io(_)) && e.is_not_running();
        self.unheard = nobody.then(|| self.unheard.unwrap_or_else(Instant::now));
        if self.unheard.is_some_and(|since| since.elapsed() > self.target.restart) {
            return Err(ClientError::Ended);
        }
        if since.elapsed() > self.target.patience {
            return Err(ClientError::Closed);
        }
        std::thread::sleep(RETRY.min(self.target.patience));
        Ok(())
    }

    fn is_kept(&self) -> bool {
        self.raw.as_ref().is_some_and(|(raw, _)| raw.is_kept())
    }

    /// After an error that leaves it open what became of a request: a late reply must not be taken for another's. A
    /// channel is kept; its requests never have the same number.
    fn forget(&mut self) {
        if !self.is_kept() {
            self.raw = None;
        }
    }

    /// Sends a request and waits for its reply. Stream bytes and notifications before it are left for later. `safe`: it
    /// may be sent twice.
    fn exchange(&mut self, id: u64, text: &str, limit: Option<Duration>, safe: bool) -> Result<Value, ClientError> {
        let raw = self.raw()?;
        let sent = match raw.send(text) {
            Err(e @ ClientError::Unexpected(_)) => return Err(e),
            sent => sent,
        };
        // A daemon that closes at once may have said why.
        let reply = raw.reply(id, limit.map(|l| Instant::now() + l), safe.then_some(text));
        match (sent, reply) {
            (Err(sent), Err(ClientError::Closed)) => Err(sent),
            (_, reply) => {
                if matches!(reply, Ok(_) | Err(ClientError::Rpc(_))) {
                    (self.lost, self.unheard) = (None, None);
                }
                reply
            }
        }
    }
}

/// A connection to a daemon. One call at a time; open several clients for several threads.
#[derive(Debug)]
pub struct Client {
    line: Line,
    next_id: u64,
    limit: Option<Duration>,
}

impl Client {
    /// Connects to the daemon whose control socket this is (`@name` is an abstract one, on Linux). Does not wait for a
    /// daemon to be started: see [`ensure_running`].
    ///
    /// # Errors
    /// `Io`: `NotFound` and `ConnectionRefused` mean that none runs, `PermissionDenied` that it is not for this user.
    pub fn connect(socket: impl AsRef<Path>) -> Result<Client, ClientError> {
        Client::connect_timeout(socket, CONNECT_LIMIT)
    }

    /// The same with a limit for connecting, which matters only when the daemon has very many clients waiting.
    ///
    /// # Errors
    /// As [`Client::connect`], and `TimedOut`.
    pub fn connect_timeout(socket: impl AsRef<Path>, limit: Duration) -> Result<Client, ClientError> {
        let target = Target { socket: socket.as_ref().to_owned(), patience: PATIENCE, restart: Duration::MAX };
        let mut line = Line::new(target);
        line.raw = Some((Raw::connect(&line.target.socket, limit)?, Instant::now()));
        Ok(Client { line, next_id: 0, limit: None })
    }

    /// How long calls, subscriptions and log streams wait for a daemon that went away; 10 s unless set.
    pub fn set_patience(&mut self, patience: Duration) {
        self.line.target.patience = patience;
    }

    /// How long they wait for hob itself to be started again, once nobody listens at its socket; unless set as long as
    /// for a daemon. After that they end with [`ClientError::Ended`].
    pub fn set_restart_patience(&mut self, patience: Duration) {
        self.line.target.restart = patience;
    }

    /// How long a call waits for its reply; without limit unless set, because a call may wait for a service.
    pub fn set_timeout(&mut self, limit: Option<Duration>) {
        self.limit = limit;
    }

    /// Calls a method. When the connection is lost before the reply has come, the call is sent again over a new one;
    /// what changes something carries a key, so it is done once.
    ///
    /// # Errors
    /// `Rpc` is the daemon's answer; after `Closed` or `Io` it is not known whether the call had an effect.
    pub fn call<T: DeserializeOwned>(&mut self, method: &str, params: &impl Serialize) -> Result<T, ClientError> {
        let known = methods::find(method);
        let (text, safe) = self.prepare(method, known, params)?;
        loop {
            match self.line.exchange(self.next_id, &text, self.limit, safe) {
                Ok(value) => return read(value),
                // Without a key a change could be made twice.
                Err(e) if !safe => {
                    self.line.forget();
                    return Err(e);
                }
                Err(e @ (ClientError::Rpc(_) | ClientError::Unexpected(_))) => return Err(e),
                Err(e) => self.line.lost(e)?,
            }
        }
    }

    /// Calls a method and does not send it again when the connection is lost.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn call_once<T: DeserializeOwned>(&mut self, method: &str, params: &impl Serialize) -> Result<T, ClientError> {
        let (text, _) = self.prepare(method, methods::find(method), params)?;
        let result = self.line.exchange(self.next_id, &text, self.limit, false);
        if let Err(ClientError::Io(_) | ClientError::Closed) = result {
            self.line.forget();
        }
        read(result?)
    }

    /// The text of a request, and whether it may be sent twice.
    fn prepare(
        &mut self,
        method: &str,
        known: Option<&Method>,
        params: &impl Serialize,
    ) -> Result<(String, bool), ClientError> {
        self.next_id += 1;
        let unfit = |e: serde_json::Error| ClientError::Unexpected(format!("these params cannot be sent: {e}"));
        let mut params = serde_json::to_value(params).map_err(unfit)?;
        let safe = match known {
            Some(known) if known.mutating => add_key(known, &mut params),
            Some(_) => true,
            None => false,
        };
        let params = (!params.is_null()).then(|| params.to_string());
        Ok((crate::protocol::rpc::request_text(self.next_id, method, params.as_deref()), safe))
    }

    /// Subscribes to events on a connection of its own. `kinds` are patterns such as `service.*`, `names` the services
    /// meant; empty lists mean all. `from` is the first sequence number wanted; without it events begin now.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn subscribe(&self, kinds: &[&str], names: &[String], from: Option<u64>) -> Result<Subscription, ClientError> {
        Subscription::open(Line::new(self.line.target.clone()), kinds, names, from)
    }

    /// Reads logs on a connection of its own: the last `lines` lines of each service, and with `follow` what comes
    /// after. No names mean the daemon's own log.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn logs(&self, names: &[String], lines: u64, follow: bool) -> Result<LogStream, ClientError> {
        self.logs_of(LogAsk { names: names.to_vec(), lines: Some(lines), follow, ..LogAsk::default() })
    }

    /// The same for any part of logs.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn logs_of(&self, ask: LogAsk) -> Result<LogStream, ClientError> {
        LogStream::open(Line::new(self.line.target.clone()), ask)
    }

    /// Asks hob to wait a moment, when it shuts down, until what is returned is dropped. `who` names the caller and
    /// `why` what it has to do first; both are shown to whoever waits. Taken again after a death of the daemon.
    ///
    /// # Errors
    /// As [`Client::call`]; `Rpc` while hob is shutting down already.
    pub fn inhibit(&self, who: &str, why: &str) -> Result<Inhibitor, ClientError> {
        Inhibitor::take(self.line.target.clone(), who, why)
    }

    /// Gives up the comfort for the bare connection: whole messages in both directions, in the native framing.
    ///
    /// # Errors
    /// When it was lost and cannot be made again.
    pub fn into_raw(mut self) -> Result<Raw, ClientError> {
        self.line.raw()?;
        self.line.raw.take().map(|(raw, _)| raw).ok_or(ClientError::Closed)
    }
}

fn read<T: DeserializeOwned>(value: Value) -> Result<T, ClientError> {
    serde_json::from_value(value).map_err(|e| ClientError::Unexpected(format!("the answer is of another kind: {e}")))
}

/// Gives params a key, by name; params given by position get their names. `false` when they fit neither way, and the
/// daemon will say so.
fn add_key(method: &Method, params: &mut Value) -> bool {
    if let Value::Array(list) = params {
        if method.params.first().is_some_and(|p| p.kind == methods::Kind::List) {
            let name = method.params.first().map_or("", |p| p.name);
            *params = serde_json::json!({ name: std::mem::take(list) });
            return add_key(method, params);
        }
        if list.len() > method.params.len() {
            return false;
        }
        let named = method.params.iter().zip(std::mem::take(list)).map(|(p, v)| (p.name.to_owned(), v));
        *params = Value::Object(named.gather());
    }
    if params.is_null() {
        *params = Value::Object(serde_json::Map::new());
    }
    let Some(members) = params.as_object_mut() else { return false };
    members.entry("request_key").or_insert_with(|| key::next().into());
    true
}
