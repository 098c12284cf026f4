//! The checked config as plain values: what the rest of hob sees of a `hob.json`.

pub use crate::base::access::Access;
use core::time::Duration;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A whole config. Services are shared so that a running one keeps the spec it was started with.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    pub daemon: DaemonSpec,
    pub services: BTreeMap<String, Arc<ServiceSpec>>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct DaemonSpec {
    /// Zero turns it off.
    pub heartbeat: Duration,
    pub shutdown_timeout: Duration,
    pub nice: i32,
    pub log: DaemonLog,
    pub access: Vec<Grant>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaemonLog {
    pub level: Level,
    pub format: LogFormat,
    pub max_size: u64,
    pub max_files: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// `TIME LEVEL TEXT`.
    Text,
    /// One object a line: `time`, `level`, `text`.
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// `{"user": "alice", "level": "operate"}` or `{"group": "wheel", "level": "admin"}`; names or numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    pub who: Who,
    pub level: Access,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    User(String),
    Group(String),
}

/// One service. `impl Default` gives the documented defaults (with an empty command).
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceSpec {
    /// argv; a string in the config becomes `["/bin/sh", "-c", STRING]`.
    pub command: Vec<String>,
    pub cwd: Option<String>,
    pub env: BTreeMap<String, String>,
    pub env_file: Option<String>,
    /// Names of variables whose values are masked in logs and views.
    pub secrets: Vec<String>,
    pub user: Option<String>,
    pub group: Option<String>,
    pub umask: Option<u32>,
    pub nice: Option<i32>,
    pub rlimits: Vec<Rlimit>,
    pub autostart: bool,
    pub restart: Restart,
    pub min_delay: Duration,
    pub max_delay: Duration,
    pub reset_after: Duration,
    /// 0: never give up.
    pub max_restarts: u32,
    pub window: Option<Duration>,
    pub ready: Ready,
    pub ready_timeout: Duration,
    pub requires: Vec<Need>,
    pub wants: Vec<Need>,
    pub after: Vec<Need>,
    pub stop_signal: Signal,
    pub stop_timeout: Duration,
    pub leave_children: bool,
    pub log: LogSpec,
}

/// One resource limit, by its lower-case name without `RLIMIT_` (`nofile`, `core`, ...); `None` is unlimited.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rlimit {
    pub name: &'static str,
    pub soft: Option<u64>,
    pub hard: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    Always,
    OnFailure,
    Never,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ready {
    /// As soon as the program was executed.
    Spawned,
    /// `READY=1` on the socket named by NOTIFY_SOCKET, as in sd_notify(3).
    Notify,
    /// A TCP connection to this port of localhost is accepted.
    Port(u16),
    /// A line of output matches this pattern (syntax of the `regex-lite` crate), which was checked to compile.
    Log(String),
}

/// A service that is needed, and in which condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    pub name: String,
    pub condition: Condition,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Condition {
    Started,
    Ready,
}

/// A signal by its number on this system, with the name it was given by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal {
    pub number: i32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSpec {
    /// Size at which a file is rotated, at a line end.
    pub max_size: u64,
    /// Files kept, the current one included.
    pub max_files: u32,
    /// Age at which files are removed.
    pub max_age: Option<Duration>,
    /// Old files are compressed by gzip(1).
    pub compress: bool,
    /// Each line begins with its time.
    pub timestamps: bool,
    /// Bytes a second; what comes faster is dropped.
    pub rate: Option<u64>,
    pub streams: Streams,
}

/// How standard output and standard error of a service come to its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Streams {
    /// Through one pipe, in exactly the order in which they were written.
    Merged,
    /// Through two, so that they can be told apart.
    Split,
}

impl LogSpec {
    pub const DEFAULT: LogSpec = LogSpec {
        max_size: 10_000_000,
        max_files: 5,
        max_age: None,
        compress: false,
        timestamps: false,
        rate: None,
        streams: Streams::Merged,
    };
}

impl DaemonLog {
    pub const DEFAULT: DaemonLog =
        DaemonLog { level: Level::Info, format: LogFormat::Text, max_size: 50_000_000, max_files: 5 };
}

impl Default for DaemonSpec {
    fn default() -> Self {
        DaemonSpec {
            heartbeat: Duration::from_secs(30),
            shutdown_timeout: Duration::from_secs(20),
            nice: 0,
            log: DaemonLog::DEFAULT,
            access: Vec::new(),
        }
    }
}

impl Default for ServiceSpec {
    fn default() -> Self {
        ServiceSpec {
            command: Vec::new(),
            cwd: None,
            env: BTreeMap::new(),
            env_file: None,
            secrets: Vec::new(),
            user: None,
            group: None,
            umask: None,
            nice: None,
            rlimits: Vec::new(),
            autostart: true,
            restart: Restart::OnFailure,
            min_delay: Duration::from_millis(100),
            max_delay: Duration::from_secs(30),
            reset_after: Duration::from_secs(10),
            max_restarts: 0,
            window: None,
            ready: Ready::Spawned,
            ready_timeout: Duration::from_secs(60),
            requires: Vec::new(),
            wants: Vec::new(),
            after: Vec::new(),
            stop_signal: Signal { number: 15 },
            stop_timeout: Duration::from_secs(10),
            leave_children: false,
            log: LogSpec::DEFAULT,
        }
    }
}
