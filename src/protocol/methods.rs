//! The one table of methods: name, access, parameters, result, doc; it decodes params to a `Request`.

use core::time::Duration;

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
    /// The daemon's own log: `{lines = 50, follow = false}`.
    DaemonLogs(LogQuery),
    DaemonConfig,
    /// `{name}`.
    DaemonWhy {
        name: String,
    },
    /// `{names?}`: all when absent.
    ServiceList {
        names: Vec<String>,
    },
    ServiceGet {
        name: String,
    },
    /// `{name | names, wait = true, timeout?}`.
    ServiceStart(Change),
    ServiceStop(Change),
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
    /// `{name | names, lines = 50, follow = false, from?}`.
    ServiceLogs(LogQuery),
    /// `{name, limit = 10}`.
    ServiceHistory {
        name: String,
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
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub names: Vec<String>,
    /// Reply only when the end state is reached.
    pub wait: bool,
    /// How long to wait at most; the change goes on after that.
    pub timeout: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogQuery {
    /// Empty for the daemon's own log.
    pub names: Vec<String>,
    pub lines: usize,
    pub follow: bool,
    /// Positions to resume from, by name; they replace `lines` for that name.
    pub from: Vec<(String, u64)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventQuery {
    pub kinds: Vec<String>,
    pub names: Vec<String>,
    pub from: Option<u64>,
    pub limit: usize,
}
