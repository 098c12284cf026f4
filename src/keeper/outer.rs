//! The service manager that hob runs under, systemd or one that speaks like it: what it is told by sd_notify(3), and
//! when.
//!
//! Everything is said at the daemon's word, so that a daemon that hangs or does not come up is never called well: no
//! word, no ping. What the manager's socket does not take at once is kept and sent a little later.

use super::RETRY;
use crate::base::time::Mono;
use crate::sys::chan;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::time::Duration;

/// Words that wait for a manager that does not read; of more the oldest go.
const WAITING_MAX: usize = 32;
const PING: &str = "WATCHDOG=1";
/// Beyond the time that something is to take: hob ends by itself before its manager loses patience.
const SLACK: Duration = Duration::from_secs(10);

/// What the manager passed to hob.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manager {
    /// NOTIFY_SOCKET.
    pub socket: Option<OsString>,
    /// WATCHDOG_USEC, where it was meant for this process.
    pub watchdog: Option<Duration>,
}

/// What it has been told so far, which the program of an upgrade has to know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) ready: bool,
    pub(super) reloading: bool,
}

#[derive(Debug)]
pub(super) struct Outer {
    pub(super) manager: Manager,
    pub(super) told: Told,
    /// When the daemon is to be asked for a word, so that the watchdog hears one in time.
    ask_at: Option<Mono>,
    waiting: VecDeque<String>,
    status: String,
    /// The last failure to send was reported.
    deaf: bool,
}

impl Outer {
    pub(super) fn new(manager: Manager, told: Told, now: Mono) -> Outer {
        let ask_at = manager.socket.as_ref().and(manager.watchdog).map(|every| now + every / 2);
        Outer { manager, told, ask_at, waiting: VecDeque::new(), status: String::new(), deaf: false }
    }

    /// Whether there is one that listens.
    pub(super) fn listens(&self) -> bool {
        self.manager.socket.is_some()
    }

    /// Everything that autostart began has come up.
    pub(super) fn ready(&mut self) {
        self.told.ready = true;
        self.say("READY=1".to_owned());
    }

    /// The daemon lives. While hob is not ready, that is also why it may take longer than the manager allows.
    pub(super) fn beat(&mut self, next: Duration) {
        if self.told.ready {
            self.say(PING.to_owned());
        } else {
            self.say(format!("{PING}\nEXTEND_TIMEOUT_USEC={}", (next.max(SLACK) + SLACK).as_micros()));
        }
    }

    /// `now` is the monotonic clock, which the manager compares with its own.
    pub(super) fn reloading(&mut self, now: Mono) {
        if self.told.ready && !self.told.reloading {
            self.told.reloading = true;
            self.say(format!("RELOADING=1\nMONOTONIC_USEC={}", now.0 / 1000));
        }
    }

    /// The reload is over, or the daemon that was at it.
    pub(super) fn reloaded(&mut self) {
        if core::mem::take(&mut self.told.reloading) {
            self.say("READY=1".to_owned());
        }
    }

    /// A shutdown has begun that ends in so much time at the latest, or has got more time.
    pub(super) fn stopping(&mut self, limit: Duration) {
        self.say(format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={}", (limit + SLACK).as_micros()));
    }

    pub(super) fn status(&mut self, text: String) {
        // A line feed would begin another assignment.
        let line = text.replace(|c: char| c.is_control(), " ");
        if self.status != line {
            self.say(format!("STATUS={line}"));
            self.status = line;
        }
    }

    /// Whether the daemon is to be asked for a word now; it is asked again half a watchdog later.
    pub(super) fn asks(&mut self, now: Mono) -> bool {
        let due = self.ask_at.is_some_and(|at| at <= now);
        if due {
            self.ask_at = self.manager.watchdog.map(|every| now + every / 2);
        }
        due
    }

    /// When to look at it again; `asking`: there is a daemon to be asked.
    pub(super) fn deadline(&self, now: Mono, asking: bool) -> Option<Mono> {
        let again = (!self.waiting.is_empty()).then(|| now + RETRY);
        [self.ask_at.filter(|_| asking), again].into_iter().flatten().min()
    }

    fn say(&mut self, words: String) {
        if self.manager.socket.is_none() {
            return;
        }
        // One ping says as much as many. None would not do: the next comes half a watchdog later.
        if words == PING && self.waiting.iter().any(|w| w == PING) {
            return;
        }
        if self.waiting.len() == WAITING_MAX {
            self.waiting.pop_front();
        }
        self.waiting.push_back(words);
    }

    /// Sends what waits; answers what is to be reported.
    pub(super) fn flush(&mut self) -> Option<String> {
        let socket = self.manager.socket.clone()?;
        while let Some(words) = self.waiting.front() {
            match chan::send_datagram(&socket, words.as_bytes()) {
                Ok(()) => self.deaf = false,
                Err(e) if chan::is_later(&e) => return None,
                Err(e) => {
                    let report = format!("cannot send {} to the service manager: {e}", words.replace('\n', " "));
                    self.waiting.pop_front();
                    if !core::mem::replace(&mut self.deaf, true) {
                        return Some(report);
                    }
                    continue;
                }
            }
            self.waiting.pop_front();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Mono {
        Mono(seconds * 1_000_000_000)
    }

    fn outer() -> Outer {
        let manager = Manager { socket: Some("@nobody".into()), watchdog: Some(Duration::from_secs(20)) };
        Outer::new(manager, Told::default(), at(1))
    }

    #[test]
    fn a_word_is_asked_for_at_half_the_watchdog_and_only_while_there_is_a_daemon() {
        let mut o = outer();
        assert_eq!((o.deadline(at(1), true), o.deadline(at(1), false)), (Some(at(11)), None));
        assert!(!o.asks(at(10)));
        assert!(o.asks(at(12)));
        assert_eq!((o.asks(at(12)), o.deadline(at(12), true)), (false, Some(at(22))));
        let mut none = Outer::new(Manager { socket: None, ..o.manager.clone() }, Told::default(), at(1));
        none.ready();
        assert_eq!((none.deadline(at(1), true), none.listens(), none.waiting.len()), (None, false, 0));
    }

    #[test]
    fn a_reload_is_told_only_of_a_hob_that_is_ready_and_always_ends() {
        let mut o = outer();
        o.reloading(at(2));
        o.reloaded();
        assert!(o.waiting.is_empty());
        o.ready();
        o.reloading(at(2));
        o.reloading(at(3));
        o.reloaded();
        o.reloaded();
        assert_eq!(o.waiting, ["READY=1", "RELOADING=1\nMONOTONIC_USEC=2000000", "READY=1"]);
    }

    #[test]
    fn a_status_is_one_line_said_once_and_of_pings_one_waits_behind_other_words() {
        let mut o = outer();
        o.beat(Duration::from_secs(30));
        assert_eq!(o.waiting, ["WATCHDOG=1\nEXTEND_TIMEOUT_USEC=40000000"], "not ready yet");
        o.ready();
        for _ in 0..100 {
            o.beat(Duration::ZERO);
            o.status("a\nREADY=1".to_owned());
        }
        assert_eq!(o.waiting.iter().skip(1).collect::<Vec<_>>(), ["READY=1", "WATCHDOG=1", "STATUS=a READY=1"]);
        for n in 0..100 {
            o.status(n.to_string());
        }
        assert_eq!((o.waiting.len(), o.waiting.back().map(String::as_str)), (WAITING_MAX, Some("STATUS=99")));
    }

    #[test]
    fn a_manager_that_is_gone_is_reported_once() {
        let mut o = outer();
        o.ready();
        assert!(o.flush().is_some_and(|t| t.starts_with("cannot send READY=1 to the service manager: ")));
        o.beat(Duration::ZERO);
        assert_eq!(o.flush(), None);
        assert!(o.waiting.is_empty());
    }
}
