//! Run records: what every start of a child leaves behind, and how an end is told. Pure.

mod next;
pub mod why;

use super::{End, Owner, Peer, Usage};
use crate::base::ids::{ConnId, RunId};
use crate::base::json::Obj;
use crate::base::limits::{LAST_LINE_BYTES, LAST_LINES, START_ERROR_BYTES};
use crate::base::signal::Platform;
use crate::base::time::Wall;
use serde::{Deserialize, Serialize};

/// Who asked, as far as the record of a run keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    pub uid: u32,
    pub pid: u32,
    pub conn: ConnId,
    /// The service whose process it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<Box<str>>,
    /// The job of the schedule that asked; then the others say nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Box<str>>,
}

impl Client {
    #[must_use]
    pub fn new(peer: &Peer, conn: ConnId) -> Client {
        let (job, schedule) = (peer.job.as_deref().map(Into::into), peer.schedule.as_deref().map(Into::into));
        Client { uid: peer.uid, pid: peer.pid, conn, job, schedule }
    }

    #[must_use]
    pub fn owner(&self) -> Owner {
        match (&self.schedule, &self.job) {
            (Some(id), _) => Owner::Schedule((&**id).into()),
            (None, Some(job)) => Owner::Job((&**job).into()),
            (None, None) => Owner::User(self.uid),
        }
    }

    /// `root (pid 42)`, `uid 1000 (pid 42)`, `service/web (pid 42)`, `schedule/nightly`.
    #[must_use]
    pub fn text(&self) -> String {
        let who = self.owner().text();
        if self.pid == 0 { who } else { format!("{who} (pid {})", self.pid) }
    }
}

/// Why a run was started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    #[default]
    Autostart,
    Client(Box<Client>),
    /// The restart policy: the n-th restart since the counters were last reset.
    Restart {
        n: u32,
    },
    /// The machine lacked something at the last start, so it was tried again.
    Retry {
        n: u32,
    },
    /// Another service needs it.
    Dependency {
        of: Box<str>,
    },
    /// What it needs was stopped or restarted, and is up again.
    Need {
        name: Box<str>,
    },
    /// A reload of the config added or changed it.
    Reload,
    /// It was meant to be up when hob ended; this is a new keeper or a new boot.
    Boot,
    /// The start had been ordered when the daemon died, and had not happened.
    Again,
    /// Somebody connected to this socket of it.
    Connection {
        on: Box<str>,
    },
    /// It has ended and waits for the next connection; what starts it then is `Connection`.
    Listen,
}

impl Cause {
    /// Who asked for the run itself.
    #[must_use]
    pub fn owner(&self) -> Option<Owner> {
        match self {
            Cause::Client(client) => Some(client.owner()),
            Cause::Autostart
            | Cause::Restart { .. }
            | Cause::Retry { .. }
            | Cause::Dependency { .. }
            | Cause::Need { .. }
            | Cause::Reload
            | Cause::Boot
            | Cause::Again
            | Cause::Connection { .. }
            | Cause::Listen => None,
        }
    }

    /// A clause that follows "started": `by uid 1000 (pid 42)`.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Cause::Autostart => "by autostart".to_owned(),
            Cause::Client(c) => format!("by {}", c.text()),
            Cause::Restart { n } => format!("by the restart policy, restart {n}"),
            Cause::Retry { n } => format!("again because the system had refused it, try {}", n + 1),
            Cause::Dependency { of } => format!("because {of} needs it"),
            Cause::Need { name } => format!("because {name} is up again"),
            Cause::Reload => "by a reload of the config".to_owned(),
            Cause::Boot => "because it was up when hob ended".to_owned(),
            Cause::Again => "because the daemon died before its start had happened".to_owned(),
            Cause::Connection { on } => format!("by a connection on {on}"),
            Cause::Listen => "to wait for a connection".to_owned(),
        }
    }

    /// Whether a service on demand may wait for a connection all the same: nobody has asked for this very start.
    #[must_use]
    pub const fn can_wait(&self) -> bool {
        match self {
            Cause::Autostart
            | Cause::Dependency { .. }
            | Cause::Need { .. }
            | Cause::Reload
            | Cause::Boot
            | Cause::Listen => true,
            Cause::Client(_)
            | Cause::Restart { .. }
            | Cause::Retry { .. }
            | Cause::Again
            | Cause::Connection { .. } => false,
        }
    }
}

/// Why hob itself stopped a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopWhy {
    Client(Box<Client>),
    Restart(Box<Client>),
    /// A service that it requires is being stopped.
    Need {
        name: Box<str>,
    },
    Reload,
    /// It is not in the config any more.
    Removed,
    Shutdown,
    /// The keeper is gone, without which nothing can go on.
    KeeperGone,
    /// It was not ready in time, which is a failure of the run.
    ReadyTimeout,
    /// Its health check failed so many times in a row, which is a failure of the run.
    Unhealthy {
        times: u32,
        error: Box<str>,
    },
    /// It did not say in time that it lives, or said that it does not work, which is a failure of the run.
    Watchdog,
    /// The daemon died, and its config says that it is to end then; the policy decides what follows.
    DaemonDeath,
    /// Nothing wants it up any more.
    Unwanted,
}

impl StopWhy {
    /// Whether the run itself is to blame: it has failed, and the restart policy decides what follows.
    #[must_use]
    pub const fn is_fault(&self) -> bool {
        match self {
            StopWhy::ReadyTimeout | StopWhy::Unhealthy { .. } | StopWhy::Watchdog | StopWhy::DaemonDeath => true,
            StopWhy::Client(_)
            | StopWhy::Restart(_)
            | StopWhy::Need { .. }
            | StopWhy::Reload
            | StopWhy::Removed
            | StopWhy::Shutdown
            | StopWhy::KeeperGone
            | StopWhy::Unwanted => false,
        }
    }

    /// A clause that follows "stopped".
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            StopWhy::Client(c) => format!("by {}", c.text()),
            StopWhy::Restart(c) => format!("for a restart by {}", c.text()),
            StopWhy::Need { name } => format!("because {name}, which it requires, was being stopped"),
            StopWhy::Reload => "for its new config".to_owned(),
            StopWhy::Removed => "because it is not in the config any more".to_owned(),
            StopWhy::Shutdown => "because hob was shutting down".to_owned(),
            StopWhy::KeeperGone => "because hob's keeper was killed".to_owned(),
            StopWhy::ReadyTimeout => "because it was not ready in time".to_owned(),
            StopWhy::Unhealthy { times, error } => {
                format!("because its health check failed {}: {error}", counted(*times))
            }
            StopWhy::Watchdog => "because of its watchdog".to_owned(),
            StopWhy::DaemonDeath => "because the daemon died".to_owned(),
            StopWhy::Unwanted => "because nothing wants it up".to_owned(),
        }
    }
}

/// A signal that somebody sent through hob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signalled {
    pub signal: i32,
    pub at: Wall,
    pub by: Client,
}

impl Signalled {
    /// `SIGHUP was sent by root (pid 42)`
    #[must_use]
    pub fn text(&self) -> String {
        format!("{} was sent by {}", signal_name(self.signal), self.by.text())
    }
}

/// What few runs have to tell of beside their end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asides {
    /// The last signal that it got through hob.
    pub signalled: Option<Box<Signalled>>,
    /// How its stop command failed.
    pub stop_error: Option<Box<str>>,
    /// When and how its last reload failed, unless one succeeded since.
    pub reload_error: Option<Box<(Wall, Box<str>)>>,
}

/// What a person said last of a service, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    pub by: Client,
    pub at: Wall,
}

/// How a run ended, a start that failed included.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    Code(i32),
    Signal(i32),
    Unknown,
    /// The program could not be executed.
    NotStarted(Box<str>),
    /// It could not be started now, for want of something that may come back.
    Delayed(Box<str>),
}

impl From<End> for Ended {
    fn from(end: End) -> Ended {
        match end {
            End::Code(c) => Ended::Code(c),
            End::Signal(s) => Ended::Signal(s),
            End::Unknown => Ended::Unknown,
        }
    }
}

impl Ended {
    /// `exit code 1`, `killed by SIGSEGV`, ...
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Ended::Code(c) => format!("exit code {c}"),
            Ended::Signal(s) => format!("killed by {}", signal_name(*s)),
            Ended::Unknown => "an end that nobody saw".to_owned(),
            Ended::NotStarted(e) | Ended::Delayed(e) => e.to_string(),
        }
    }
}

/// `SIGKILL`, or `signal 33` for one without a name on this system.
#[must_use]
pub fn signal_name(number: i32) -> String {
    Platform::own().signal_name(number)
}

/// One run that is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecord {
    pub run: RunId,
    /// Counts the runs of this name from 1.
    pub number: u32,
    pub cause: Cause,
    pub started: Wall,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<Wall>,
    pub ended: Wall,
    pub end: Ended,
    /// Set when hob itself ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<StopWhy>,
    pub failed: bool,
    pub cpu_ms: u64,
    pub memory: u64,
    /// Size of the output; `None` until capture has passed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<u64>,
    /// Last lines of output, of failed runs only.
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    pub lines: Box<[Box<str>]>,
    /// The main process ended at once with code 0 and left children: it puts itself into the background.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub background: bool,
    /// It did not end within its `stop_timeout`, and was killed.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub overdue: bool,
    /// The last signal that it got through hob.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signalled: Option<Box<Signalled>>,
    /// What it was waited for in vain, if it was not ready in time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub awaited: Option<Box<str>>,
    /// How its stop command failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_error: Option<Box<str>>,
}

impl RunRecord {
    /// Output is known now.
    pub fn output(&mut self, bytes: u64, last_lines: &[String]) {
        self.output = Some(bytes);
        if self.failed {
            let skip = last_lines.len().saturating_sub(LAST_LINES);
            self.lines = last_lines.iter().skip(skip).map(|l| clip(l)).collect();
        }
    }

    pub fn usage(&mut self, usage: Usage) {
        self.cpu_ms = u64::try_from(usage.cpu.as_millis()).unwrap_or(u64::MAX);
        self.memory = usage.memory;
    }

    /// One sentence on how it ended: `exit code 1`, `stopped by root (pid 7), killed by SIGTERM`.
    #[must_use]
    pub fn outcome(&self) -> String {
        let outcome = self.plain_outcome();
        if self.overdue { format!("{outcome}, as it did not end within its stop_timeout") } else { outcome }
    }

    fn plain_outcome(&self) -> String {
        match (&self.asked, &self.end) {
            (Some(StopWhy::ReadyTimeout), end) => match &self.awaited {
                Some(what) => format!("not ready in time ({what}), {}", end.text()),
                None => format!("not ready in time, {}", end.text()),
            },
            (Some(StopWhy::Unhealthy { times, error }), end) => {
                format!("health check failed {}: {error}, {}", counted(*times), end.text())
            }
            (Some(StopWhy::Watchdog), end) => format!("watchdog timeout, {}", end.text()),
            (Some(StopWhy::DaemonDeath), end) => format!("ended with the daemon, {}", end.text()),
            (Some(why), end) => format!("stopped {}, {}", why.text(), end.text()),
            (None, end @ Ended::Signal(n)) => match self.signalled.as_ref().filter(|s| s.signal == *n) {
                Some(sent) => format!("{}, which {} sent", end.text(), sent.by.text()),
                None => end.text(),
            },
            (None, end @ Ended::Code(0)) if self.failed => format!("{} before it was ready", end.text()),
            (None, end) => end.text(),
        }
    }

    #[must_use]
    pub fn json(&self) -> String {
        let mut o = Obj::new();
        o.u64("run", self.run.0).u64("number", self.number.into()).str("cause", &self.cause.text());
        if let Some(owner) = self.cause.owner() {
            o.str("owner", &owner.to_string());
        }
        o.str("started", &self.started.to_string());
        o.opt_str("ready", self.ready.map(|w| w.to_string()).as_deref());
        o.str("ended", &self.ended.to_string());
        o.u64("duration_ms", millis(self.ended.since(self.started)));
        match &self.end {
            Ended::Code(c) => o.i64("exit_code", i64::from(*c)),
            Ended::Signal(s) => o.i64("signal", i64::from(*s)).str("signal_name", &signal_name(*s)),
            Ended::Unknown => o.bool("unknown", true),
            Ended::NotStarted(e) | Ended::Delayed(e) => o.str("start_error", e),
        };
        o.bool("failed", self.failed);
        o.opt_str("stopped", self.asked.as_ref().map(StopWhy::text).as_deref());
        o.str("outcome", &self.outcome());
        o.raw("cpu_secs", &secs(self.cpu_ms)).opt_u64("memory_peak", Some(self.memory).filter(|m| *m > 0));
        o.opt_u64("output_bytes", self.output);
        o.raw("last_lines", &serde_json::to_string(&self.lines).unwrap_or_default());
        if self.background {
            o.bool("background", true);
        }
        if self.overdue {
            o.bool("overdue", true);
        }
        if let Some(sent) = &self.signalled {
            o.str("signalled", &format!("{}: {}", sent.at, sent.text()));
        }
        if let Some(error) = &self.stop_error {
            o.str("stop_error", error);
        }
        o.finish()
    }
}

/// `once`, `3 times`.
pub(super) fn counted(times: u32) -> String {
    if times == 1 { "once".to_owned() } else { format!("{times} times") }
}

/// Milliseconds as seconds with three decimals.
pub(super) fn secs(ms: u64) -> String {
    format!("{}.{:03}", ms / 1000, ms % 1000)
}

pub(super) fn millis(d: core::time::Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

/// Cut to tenths of a second, or to milliseconds below one.
pub(super) fn tenths(d: core::time::Duration) -> core::time::Duration {
    core::time::Duration::from_millis(if d.as_secs() > 0 { millis(d) / 100 * 100 } else { millis(d) })
}

/// A line cut to what a record keeps, at a character's border.
pub(super) fn clip(line: &str) -> Box<str> {
    cut(line, LAST_LINE_BYTES)
}

/// The same with the reason why something could not be started, whose end says what to do.
pub(super) fn clip_reason(text: &str) -> Box<str> {
    cut(text, START_ERROR_BYTES)
}

fn cut(text: &str, most: usize) -> Box<str> {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_clipped_at_a_character_and_kept_for_failures_only() {
        assert_eq!(clip("abc").as_ref(), "abc");
        let long = "\u{e4}".repeat(LAST_LINE_BYTES);
        assert_eq!(clip(&format!("x{long}")).len(), LAST_LINE_BYTES - 1);
        let mut r = RunRecord {
            run: RunId(1),
            number: 1,
            cause: Cause::Autostart,
            started: Wall(0),
            ready: None,
            ended: Wall(1500),
            end: Ended::Code(0),
            asked: None,
            failed: false,
            cpu_ms: 20,
            memory: 4096,
            output: None,
            lines: Box::default(),
            background: false,
            overdue: false,
            signalled: None,
            awaited: None,
            stop_error: None,
        };
        let lines: Vec<String> = (0..9).map(|n| n.to_string()).collect();
        r.output(7, &lines);
        assert!(r.lines.is_empty());
        r.failed = true;
        r.output(7, &lines);
        assert_eq!(r.lines.len(), LAST_LINES);
        assert_eq!(r.lines[LAST_LINES - 1].as_ref(), "8");
        let text = serde_json::to_string(&r).unwrap();
        assert_eq!(serde_json::from_str::<RunRecord>(&text).unwrap(), r);
        let v: serde_json::Value = serde_json::from_str(&r.json()).unwrap();
        assert_eq!(v["exit_code"], 0);
        assert_eq!(v["duration_ms"], 1500);
        assert_eq!(v["cpu_secs"], 0.02);
    }
}
