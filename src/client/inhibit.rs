//! A wish that hob waits a moment before it shuts down, for as long as something is in hand.

use super::{CONNECT_LIMIT, ClientError, RETRY, Raw, Target};
use crate::protocol::rpc;
use serde_json::{Value, json};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The longest pause between two attempts to take it again.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Holds a shutdown back until it is dropped, by `daemon.shutdown_grace` at most.
///
/// The daemon's side of it ends with its connection, so with any death of the daemon. A thread takes it again from the
/// next daemon, and from the next hob; in between nothing is held back.
#[derive(Debug)]
pub struct Inhibitor {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    grace: Duration,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    released: bool,
    /// The connection that holds it, to be closed from outside of the thread that reads it.
    stream: Option<UnixStream>,
}

impl Inhibitor {
    pub(super) fn take(target: Target, who: &str, why: &str) -> Result<Inhibitor, ClientError> {
        let ask = rpc::request_text(1, "daemon.inhibit", Some(&json!({ "who": who, "why": why }).to_string()));
        let (raw, grace) = ask_for(&target, &ask)?;
        let shared = Arc::new(Shared::default());
        if !shared.hold(&raw)? {
            return Err(ClientError::Closed);
        }
        let own = Arc::clone(&shared);
        let thread =
            std::thread::Builder::new().name("inhibitor".to_owned()).spawn(move || keep(raw, &target, &ask, &own))?;
        Ok(Inhibitor { shared, thread: Some(thread), grace })
    }

    /// How long the shutdown waits at most.
    #[must_use]
    pub fn grace(&self) -> Duration {
        self.grace
    }
}

impl Drop for Inhibitor {
    fn drop(&mut self) {
        let stream = {
            let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.released = true;
            state.stream.take()
        };
        self.shared.changed.notify_all();
        // Ends the read of the thread; an error means that the connection has ended.
        let _ = stream.map(|s| s.shutdown(Shutdown::Both));
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl Shared {
    /// `false` when it was released meanwhile.
    fn hold(&self, raw: &Raw) -> Result<bool, ClientError> {
        let stream = raw.handle()?;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.released {
            state.stream = Some(stream);
        }
        Ok(!state.released)
    }

    /// Waits so long; `true` when it is released.
    fn released_within(&self, pause: Duration) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = self.changed.wait_timeout_while(state, pause, |s| !s.released);
        wait.unwrap_or_else(PoisonError::into_inner).0.released
    }
}

/// Reads until the connection ends, and takes the inhibitor again on another one.
fn keep(mut raw: Raw, target: &Target, ask: &str, shared: &Shared) {
    loop {
        // Nothing comes that matters; only the end does.
        while raw.receive(None).is_ok() {}
        let mut pause = RETRY;
        raw = loop {
            if shared.released_within(pause) {
                return;
            }
            pause = (pause * 2).min(PAUSE_MAX);
            let again = ask_for(target, ask).and_then(|(raw, _)| Ok((shared.hold(&raw)?, raw)));
            match again {
                Ok((true, raw)) => break raw,
                Ok((false, _)) => return,
                Err(_) => {}
            }
        };
    }
}

fn ask_for(target: &Target, ask: &str) -> Result<(Raw, Duration), ClientError> {
    let mut raw = Raw::connect(&target.socket, CONNECT_LIMIT)?;
    raw.send(ask)?;
    let reply = raw.reply(1, Some(Instant::now() + target.patience), None)?;
    let grace = reply.get("grace_ms").and_then(Value::as_u64).unwrap_or(0);
    Ok((raw, Duration::from_millis(grace)))
}
