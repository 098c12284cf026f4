//! The one table of methods: name, access, parameters, result, doc; it decodes params to a `Request`. Touches nothing.

mod decode;
mod discover;
mod lists;
mod params;
mod table;
pub mod task;
mod task_table;
#[cfg(test)]
mod tests;

pub(crate) use decode::find;
pub use decode::{Call, Signals, decode};
pub use discover::discover;
pub use params::Params;
pub use table::METHODS;

use crate::base::access::Access;
use crate::base::time::Wall;
use crate::protocol::rpc::RpcError;
use core::time::Duration;

/// One method of the protocol.
#[derive(Clone, Copy, Debug)]
pub struct Method {
    pub name: &'static str,
    /// Other names that mean the same.
    pub aliases: &'static [&'static str],
    /// What the caller must be allowed.
    pub access: Access,
    /// Whether it changes anything; such a request may carry a `request_key`, and is then done once however often it
    /// comes.
    pub mutating: bool,
    /// In the order of params given as an array.
    pub params: &'static [Param],
    /// What it answers, as a sketch of the JSON.
    pub result: &'static str,
    pub doc: &'static str,
    /// Turns params that fit `params` into the request.
    pub decode: fn(&Params<'_>) -> Result<Request, RpcError>,
}

/// One parameter of a method.
#[derive(Clone, Copy, Debug)]
pub struct Param {
    pub name: &'static str,
    /// Another name that means the same.
    pub alias: Option<&'static str>,
    pub kind: Kind,
    pub required: bool,
    pub doc: &'static str,
}

/// What a parameter's value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Text,
    /// One name, or a list of names.
    Names,
    Flag,
    Count,
    /// Text with a unit, or a number of seconds.
    Duration,
    /// A signal's name, with or without SIG, or its number.
    Signal,
    /// Any object; what it holds is checked later.
    Object,
    /// An object of names and log positions.
    Positions,
    /// RFC 3339 text with a zone, or a number of milliseconds since 1970.
    Time,
    /// `out` or `err`.
    Stream,
    /// A whole number.
    Integer,
    /// A list of params of the same method.
    List,
    /// Words of a command, or one text for the shell.
    Command,
    /// An object of texts.
    Pairs,
    /// Octal digits in quotes.
    Umask,
    /// Bytes, with or without a unit.
    Size,
    /// A text, or bytes in base64.
    Data,
    /// Numbers of tasks and ranges of them.
    Ids,
    /// Tasks that another one follows.
    After,
    /// `mine`, a user's number, or `service/NAME`.
    Owner,
}

/// Methods of notifications that a server sends.
pub mod notes {
    /// `{subscription, event}`.
    pub const EVENT: &str = "event";
    /// `{subscription, resume_from}`: the subscription is lost.
    pub const LAGGED: &str = "event.lagged";
    /// `{id, text | base64}`, in the text framings.
    pub const STREAM_DATA: &str = "stream.data";
    /// `{id, reason}`.
    pub const STREAM_END: &str = "stream.end";
    /// `{id, position, time, stream}`: bytes from this position on were written at this time, or up to a second later,
    /// on this stream: `out`, `err`, or `null` where both come as one.
    pub const STREAM_MARK: &str = "stream.mark";
    /// `{id, position, dropped}`: bytes before this position are gone.
    pub const STREAM_GAP: &str = "stream.gap";
    /// `{pid}`, on HOB_FD alone: another daemon has taken over. Requests without a reply are to be sent again, each
    /// with its key; subscriptions and streams of this channel are gone.
    pub const RESUMED: &str = "daemon.resumed";
}

/// A decoded call. The core has the one `match` over it.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// `ping`, `daemon.ping`: `{pong, timestamp, uptime_secs, version}`.
    Ping,
    DaemonStatus,
    DaemonHealth,
    /// `{graceful = true, grace?}`: `grace` replaces daemon.shutdown_timeout; not graceful kills at once.
    DaemonShutdown {
        graceful: bool,
        grace: Option<Duration>,
    },
    DaemonReload,
    DaemonPlan,
    /// `{binary?}`: a path; by default what lies now where the present program was executed from.
    DaemonUpgrade {
        binary: Option<String>,
    },
    DaemonDoctor,
    /// `{what, who, why}`: a shutdown waits a moment for this connection.
    DaemonInhibit(Inhibit),
    DaemonUninhibit {
        inhibitor: u32,
    },
    /// The daemon's own log: `{lines = 50, follow = false}`.
    DaemonLogs(LogQuery),
    DaemonConfig,
    /// `{name}`.
    DaemonWhy {
        name: String,
    },
    /// `{names?, owner?}`: all when absent.
    ServiceList {
        names: Vec<String>,
        owner: Option<Of>,
    },
    ServiceGet {
        name: String,
    },
    /// `{name | names, wait = true, timeout?}`.
    ServiceStart(Change),
    /// The same with `config`: a service that hob.json does not have.
    ServiceNew(NewService),
    ServiceStop(Change),
    /// `{name | names, wait = true, timeout?}`: transient ones alone.
    ServiceRemove(Change),
    ServiceRestart(Change),
    /// `{name, signal}`: a name with or without SIG, or a number.
    ServiceSignal {
        name: String,
        signal: i32,
    },
    /// Back to what autostart says.
    ServiceReset {
        names: Vec<String>,
    },
    /// Make it read its own config again.
    ServiceReload {
        names: Vec<String>,
    },
    /// `{name | names, lines = 50, follow = false, from?}`.
    ServiceLogs(LogQuery),
    /// `{name | names}`: begin a new file.
    ServiceRotate {
        names: Vec<String>,
    },
    /// `{name, limit = 10}`.
    ServiceHistory {
        name: String,
        limit: usize,
    },
    /// `{ids?}`: all when absent.
    ScheduleList {
        ids: Option<Vec<String>>,
    },
    ScheduleGet {
        id: String,
    },
    /// `{id}`: once, now.
    ScheduleRun {
        id: String,
    },
    /// `schedule.pause` and `schedule.resume`, `{ids?}`: all when absent.
    SchedulePause {
        ids: Vec<String>,
        pause: bool,
    },
    /// `{id, count = 5}`.
    ScheduleNext {
        id: String,
        count: usize,
    },
    /// `{id, limit = 10}`.
    ScheduleHistory {
        id: String,
        limit: usize,
    },
    /// `{kinds?, names?, from?}`: `kinds` are globs such as `service.*`; `from` is the first sequence number wanted.
    EventSubscribe(EventQuery),
    EventUnsubscribe {
        subscription: u32,
    },
    /// `{kinds?, names?, from?, limit = 100}`.
    EventHistory(EventQuery),
    /// `{id}`: ends a log stream that the caller opened.
    StreamClose {
        id: u32,
    },
    RpcDiscover,
    Task(Box<task::TaskCall>),
    Group(task::GroupCall),
}

/// Whose services are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Of {
    /// `mine`.
    Caller,
    /// `1000`.
    User(u32),
    /// `service/NAME`, without what stands before the name, or `task/N`.
    Job(String),
    /// `schedule/ID`.
    Schedule(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub names: Vec<String>,
    /// Every service there is; then no names are given.
    pub all: bool,
    /// Reply only when the end state is reached.
    pub wait: bool,
    /// How long to wait at most; the change goes on after that.
    pub timeout: Option<Duration>,
}

/// A transient service that is to be made and started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewService {
    pub name: String,
    /// JSON text: the keys of a service in hob.json.
    pub config: String,
    pub wait: bool,
    pub timeout: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inhibit {
    pub what: String,
    /// Names the client for whoever waits.
    pub who: String,
    /// What it has to do first.
    pub why: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogQuery {
    /// Empty for the daemon's own log.
    pub names: Vec<String>,
    pub lines: usize,
    pub follow: bool,
    /// Positions to resume from, by name; they replace `lines` for that name.
    pub from: Vec<(String, u64)>,
    /// Only what was written from then on, and until then.
    pub since: Option<Wall>,
    pub until: Option<Wall>,
    /// Only what came on this one of split streams.
    pub stream: Option<Stream>,
    /// Tell times and streams of what is sent, by `stream.mark`.
    pub marks: bool,
}

/// One of a service's two streams of output, where its config splits them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stream {
    Out,
    Err,
}

impl Stream {
    /// Its name in the protocol.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Stream::Out => "out",
            Stream::Err => "err",
        }
    }

    /// Its number in the index of a log, where 0 stands for both in one.
    #[must_use]
    pub fn number(self) -> u32 {
        match self {
            Stream::Out => 1,
            Stream::Err => 2,
        }
    }

    #[must_use]
    pub fn numbered(number: u32) -> Option<Stream> {
        [Stream::Out, Stream::Err].into_iter().find(|s| s.number() == number)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventQuery {
    pub kinds: Vec<String>,
    pub names: Vec<String>,
    pub from: Option<u64>,
    pub limit: usize,
}
