//! The sockets that hob holds for a service: when they are open, and its start by the first connection. Pure.
//!
//! They are open as long as somebody may serve what waits there: from the wish on, over restarts, delays and waits,
//! until it is stopped, has finished, or is given up as failed; only then are connections refused.

use super::backoff::{Outcome, Verdict, paced};
use super::{Service, State};
use crate::base::json::Obj;
use crate::base::time::Mono;
use crate::config::Listen;
use crate::core::run::{Cause, clip, millis};
use crate::core::{Core, Effect, Out};
use std::sync::Arc;

/// Connections in a row that may have been waiting already when they began to be waited for, before each further start
/// is put off: they are many, or the service ends without taking them.
const WAITING_MAX: u32 = 20;

/// How the shell is to have the sockets of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sockets {
    Closed,
    Open,
    /// Open, and the first connection is to be told.
    Watched,
}

#[derive(Clone, Debug)]
pub struct Listening {
    /// What the shell was told last; `None`: it has to be told, whatever that was.
    told: Option<Sockets>,
    /// While a connection is awaited: they are open.
    pub open: bool,
    /// Or why they are not, and when that is tried again.
    pub error: Option<Box<str>>,
    pub retry: Option<Mono>,
    /// Connections in a row that were waiting already.
    waiting: u32,
}

impl Default for Listening {
    fn default() -> Self {
        Listening { told: Some(Sockets::Closed), open: false, error: None, retry: None, waiting: 0 }
    }
}

impl Listening {
    /// The shell has to be told anew: what it has may be of another config.
    pub(super) fn untold(&mut self) {
        self.told = None;
        self.open = false;
    }
}

impl Service {
    /// Whether nothing but the first connection is to start it.
    #[must_use]
    pub fn awaits_connection(&self) -> bool {
        self.state == State::Waiting && self.spec.on_demand && !self.blind && self.cause.can_wait()
    }

    /// Whether whoever connects to it is served, though it has no run: that is as good as being ready.
    #[must_use]
    pub fn listens(&self) -> bool {
        self.awaits_connection() && self.listening.open
    }

    #[must_use]
    pub fn sockets(&self) -> Sockets {
        if self.spec.listen.is_empty() {
            return Sockets::Closed;
        }
        match self.state {
            State::Stopped | State::Failed | State::Finished => Sockets::Closed,
            State::Waiting if self.awaits_connection() => Sockets::Watched,
            State::Waiting | State::Starting | State::Running | State::Stopping | State::Backoff => Sockets::Open,
        }
    }

    /// What it waits for, with nothing but its sockets, in words.
    pub(in crate::core) fn connection_text(&self) -> String {
        if let Some(error) = &self.listening.error {
            return format!("its sockets: {error}");
        }
        let one = |l: &Listen| match &l.name {
            Some(name) => format!("{name} ({})", l.at),
            None => l.at.to_string(),
        };
        let all: Vec<String> = self.spec.listen.iter().map(one).collect();
        format!("a connection on {}", all.join(" or "))
    }
}

impl Core {
    /// Orders what has to change about the sockets of a service.
    pub(in crate::core) fn tell_sockets(&mut self, i: usize, out: &mut Out) {
        let s = &mut self.table[i];
        let wanted = s.sockets();
        // Without its config nothing is known of its sockets: they stay as they are.
        if s.blind || s.listening.told == Some(wanted) {
            return;
        }
        s.listening.told = Some(wanted);
        s.listening.open = false;
        let service = Arc::clone(&s.name);
        out.effects.push(match wanted {
            Sockets::Closed => Effect::Unlisten { service },
            Sockets::Open => Effect::Listen { service, spec: Arc::clone(&s.spec), watch: false },
            Sockets::Watched => Effect::Listen { service, spec: Arc::clone(&s.spec), watch: true },
        });
    }

    /// The keeper holds sockets for these services, of whatever config. Those of services that are no more are closed,
    /// which an earlier daemon may not have come to; without a config nobody knows which these are.
    pub(super) fn restore_sockets(&mut self, services: Vec<Arc<str>>, out: &mut Out) {
        for service in services {
            match self.table.find(&service) {
                Some(i) => {
                    self.table[i].listening.untold();
                    self.table.touch(i);
                }
                None if self.blind_config() || self.safe.is_some() => self.held_sockets.push(service),
                None => out.effects.push(Effect::Unlisten { service }),
            }
        }
    }

    /// The shell says what came of opening sockets that are to be watched.
    pub(in crate::core) fn listening(&mut self, service: &str, result: Result<(), String>, out: &mut Out) {
        let found = self.table.find(service).filter(|i| self.table[*i].awaits_connection());
        let Some(i) = found else { return self.late_word("sockets", service, out) };
        let now = self.now.mono;
        let s = &mut self.table[i];
        match result {
            Ok(()) => {
                s.listening.open = true;
                s.listening.error = None;
                s.listening.retry = None;
                s.counters.refused = 0;
                s.stuck = false;
                let on: Vec<String> = s.spec.listen.iter().map(|l| l.at.to_string()).collect();
                let mut fields = Obj::new();
                fields.raw("on", &serde_json::to_string(&on).unwrap_or_default());
                self.emit("service.listening", i, fields.members(), out);
            }
            Err(error) => {
                let spec = Arc::clone(&s.spec);
                let delay = match s.counters.verdict(&spec, Outcome::Refused, now) {
                    Verdict::Retry { delay, .. } | Verdict::Restart { delay, .. } => delay,
                    Verdict::Finished | Verdict::Failed { .. } => spec.max_delay,
                };
                let error = clip(&error);
                s.listening.open = false;
                s.listening.retry = Some(now + delay);
                s.stuck = true;
                let news = s.listening.error.as_ref() != Some(&error);
                let mut fields = Obj::new();
                fields.str("error", &error).u64("delay_ms", millis(delay));
                s.listening.error = Some(error);
                if news {
                    self.emit("service.listen_failed", i, fields.members(), out);
                }
            }
        }
        self.table.touch(i);
        self.table.look_around(i);
    }

    /// Its sockets could not be opened, and it is time to try again.
    pub(super) fn listen_due(&mut self, i: usize) {
        let now = self.now.mono;
        let l = &mut self.table[i].listening;
        if l.retry.take_if(|at| *at <= now).is_some() {
            l.told = None;
        }
    }

    /// Somebody connects. `waiting`: it was there before anybody looked.
    pub(in crate::core) fn connection(&mut self, service: &str, on: Box<str>, waiting: bool, out: &mut Out) {
        let found = self.table.find(service).filter(|i| self.table[*i].awaits_connection());
        let Some(i) = found else { return self.late_word("a connection", service, out) };
        let s = &mut self.table[i];
        s.listening.waiting = if waiting { s.listening.waiting.saturating_add(1) } else { 0 };
        s.cause = Cause::Connection { on };
        self.table.touch(i);
        self.table.look_around(i);
        self.pull(i, false, out);
    }

    /// A run has ended with 0: the next connection starts it again, a little later where too many were waiting already.
    pub(super) fn listen_again(&mut self, i: usize, out: &mut Out) {
        let now = self.now.mono;
        let s = &mut self.table[i];
        s.cause = Cause::Listen;
        if s.last().is_some_and(|r| r.ended.since(r.started) >= s.spec.reset_after) {
            // A run of that length has served somebody.
            s.listening.waiting = 0;
        }
        let Some(n) = s.listening.waiting.checked_sub(WAITING_MAX).filter(|n| *n > 0) else {
            return self.enter(i, State::Waiting, "", out);
        };
        let delay = paced(&s.spec, n);
        s.until = now + delay;
        let mut fields = Obj::new();
        fields.u64("connections_waiting", s.listening.waiting.into()).u64("delay_ms", millis(delay));
        self.enter(i, State::Backoff, fields.members(), out);
    }

    fn late_word(&self, what: &str, service: &str, out: &mut Out) {
        let text = format!("late: {what} of {service}, ignored");
        out.effects.push(Effect::Log { level: crate::config::Level::Trace, text });
    }
}
