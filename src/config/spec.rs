//! The checked config as plain values: what the rest of hob sees of a `hob.json`.

use super::address::Listen;
pub use crate::base::access::Access;
pub use crate::base::log::{Level, LogFormat, LogStyle};
use core::fmt;
use core::net::{IpAddr, SocketAddr};
use core::ops::{Deref, DerefMut};
use core::time::Duration;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A whole config. Services are shared so that a running one keeps the spec it was started with.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    pub daemon: DaemonSpec,
    pub services: BTreeMap<String, Arc<ServiceSpec>>,
    pub groups: BTreeMap<String, GroupSpec>,
    pub agents: BTreeMap<String, AgentSpec>,
    pub runners: BTreeMap<String, RunnerSpec>,
    /// Jobs in the order of their ids.
    pub schedule: Vec<Arc<super::schedule::JobSpec>>,
}

/// Slots for tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupSpec {
    pub parallel: u32,
    pub paused: bool,
    /// 0: none.
    pub weight_limit: u32,
    pub nice: Option<i32>,
    pub limits: Limits,
}

impl GroupSpec {
    pub const DEFAULT: GroupSpec =
        GroupSpec { parallel: 3, paused: false, weight_limit: 0, nice: Some(TASK_NICE), limits: Limits::NONE };
}

impl Default for GroupSpec {
    fn default() -> Self {
        GroupSpec::DEFAULT
    }
}

/// The niceness of tasks unless their group says otherwise.
const TASK_NICE: i32 = 10;

/// What a job may use of the machine, beside its niceness.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    pub ionice: Option<IoNice>,
    /// oom_score_adj, -1000 to 1000.
    pub oom_score: Option<i32>,
    pub cpus: Option<Cpus>,
    pub rlimits: Vec<Rlimit>,
}

impl Limits {
    pub const NONE: Limits = Limits { ionice: None, oom_score: None, cpus: None, rlimits: Vec::new() };
}

/// A program that takes a prompt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentSpec {
    pub command: Vec<String>,
    pub prompt: AgentPrompt,
    /// A name that ends with `_env` stands for the one before that ending; its value names a variable of hob's own.
    pub env: BTreeMap<String, String>,
    pub group: Option<String>,
    pub timeout: Option<Duration>,
}

/// How an agent gets its prompt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AgentPrompt {
    /// As its last argument.
    #[default]
    Argument,
    Stdin,
    /// As the path of a file, its last argument.
    File,
}

/// What hands a command to another engine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunnerSpec {
    pub prefix: Vec<String>,
    /// Each word of the command is quoted, for a shell that reads all of them as one line.
    pub quote: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct DaemonSpec {
    /// Zero turns it off.
    pub heartbeat: Duration,
    pub shutdown_timeout: Duration,
    /// How long a shutdown waits for inhibitors; zero: not at all.
    pub shutdown_grace: Duration,
    pub nice: i32,
    /// Prints the version of hob that there is to be had.
    pub update_command: Option<Vec<String>>,
    /// From one run of it to the next.
    pub update_every: Duration,
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

/// One service. `impl Default` gives the documented defaults (with an empty command). Its further settings read and
/// write like its own fields.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceSpec {
    /// argv; a string in the config becomes `["/bin/sh", "-c", STRING]`.
    pub command: Vec<String>,
    pub cwd: Option<String>,
    pub env: BTreeMap<String, String>,
    pub nice: Option<i32>,
    pub autostart: bool,
    pub restart: Restart,
    pub requires: Vec<Need>,
    pub wants: Vec<Need>,
    pub after: Vec<Need>,
    pub log: LogSpec,
    /// Where few services differ: those that are alike share them.
    pub settings: Arc<Settings>,
}

/// What most services leave as it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Variables that get the value of one of hob's own, by its name. Not of the config: agents have it.
    pub env_from: BTreeMap<String, String>,
    /// Of hob's environment it gets only what everybody may know. Not of the config: tasks of other users have it.
    pub clean_env: bool,
    pub env_file: Option<String>,
    /// Names of variables whose values are masked in logs and views.
    pub secrets: Vec<String>,
    pub user: Option<String>,
    pub group: Option<String>,
    pub umask: Option<u32>,
    pub limits: Limits,
    pub min_delay: Duration,
    pub max_delay: Duration,
    pub reset_after: Duration,
    /// 0: never give up.
    pub max_restarts: u32,
    pub window: Option<Duration>,
    pub ready: Ready,
    pub ready_timeout: Duration,
    pub health: Option<Health>,
    /// The longest time between two words that it lives.
    pub watchdog: Option<Duration>,
    /// It does its work and ends: it counts as ready once it has ended with 0.
    pub oneshot: bool,
    pub stop_signal: Signal,
    /// Run to make it end, instead of the signal.
    pub stop_command: Option<Vec<String>>,
    pub stop_timeout: Duration,
    /// How it is made to read its own config again; at most one of the two.
    pub reload_signal: Option<Signal>,
    pub reload_command: Option<Vec<String>>,
    pub leave_children: bool,
    pub on_daemon_death: OnDeath,
    /// Sockets that are passed to it as descriptors from 3 on.
    pub listen: Vec<Listen>,
    /// It is started by the first connection to them.
    pub on_demand: bool,
    /// A channel to hob for each run, in HOB_FD.
    pub hob_fd: bool,
    /// What its processes may ask of hob, whatever their user; `None`: nothing.
    pub access: Option<Access>,
}

impl Deref for ServiceSpec {
    type Target = Settings;

    fn deref(&self) -> &Settings {
        &self.settings
    }
}

impl DerefMut for ServiceSpec {
    fn deref_mut(&mut self) -> &mut Settings {
        Arc::make_mut(&mut self.settings)
    }
}

/// Priority of reads and writes, as ionice(1) has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoNice {
    pub class: IoClass,
    /// 0 (most) to 7 (least); of no meaning in the class `Idle`.
    pub level: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoClass {
    Realtime,
    BestEffort,
    Idle,
}

/// Processors by number: ranges in their order, with both ends, that do not touch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cpus(pub Vec<(u16, u16)>);

impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (first, last)) in self.0.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            if first == last {
                write!(f, "{comma}{first}")?;
            } else {
                write!(f, "{comma}{first}-{last}")?;
            }
        }
        Ok(())
    }
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
    /// The program writes a line to this descriptor, from 3 on, as s6 has it.
    Fd(i32),
    /// A Unix socket accepts a connection: a path, or `@name` for an abstract one.
    Socket(String),
    /// This command ends with 0; it is run again and again until it does.
    Command(Vec<String>),
}

/// What is asked of a ready service again and again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    pub check: Check,
    /// From the beginning of one check to that of the next.
    pub every: Duration,
    /// For one check.
    pub timeout: Duration,
    /// Failures in a row after which the service is unhealthy, from 1 on.
    pub retries: u32,
}

impl Health {
    /// A check as often as the defaults say.
    #[must_use]
    pub fn new(check: Check) -> Health {
        Health { check, every: Duration::from_secs(10), timeout: Duration::from_secs(2), retries: 3 }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// It ends with 0.
    Command(Vec<String>),
    /// A connection is accepted.
    Tcp(Endpoint),
    /// GET of this path is answered with 200 to 399.
    Http { at: Endpoint, path: String },
    /// A Unix socket accepts a connection: a path, or `@name`.
    Unix(String),
}

/// A host that needs no name service, and a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// `None`: localhost, by IPv4 or IPv6.
    pub ip: Option<IpAddr>,
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ip {
            None => write!(f, "localhost:{}", self.port),
            Some(ip) => SocketAddr::new(ip, self.port).fmt(f),
        }
    }
}

/// What becomes of a service when the daemon dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDeath {
    /// It goes on, and the next daemon takes it over.
    Keep,
    /// The keeper ends it, and the next daemon starts it again by its restart policy.
    Stop,
}

/// A service that is needed, and in which condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    pub name: String,
    pub condition: Condition,
}

/// In order of strictness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Condition {
    Started,
    Ready,
    /// Ready, and its health check has been passed since.
    Healthy,
    /// It has ended by itself and is not started again, however it ended.
    Finished,
    /// The same, with exit code 0.
    Succeeded,
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
    /// The first file is kept whatever is rotated after it, so that a beginning and an end remain. Tasks have it.
    pub keep_head: bool,
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
        keep_head: false,
    };
}

impl DaemonLog {
    pub const DEFAULT: DaemonLog =
        DaemonLog { level: Level::Info, format: LogFormat::Text, max_size: 50_000_000, max_files: 5 };

    /// What the keeper has to know of it.
    #[must_use]
    pub fn style(&self) -> LogStyle {
        LogStyle { level: self.level, format: self.format }
    }
}

impl Default for DaemonSpec {
    fn default() -> Self {
        DaemonSpec {
            heartbeat: Duration::from_secs(30),
            shutdown_timeout: Duration::from_secs(20),
            shutdown_grace: Duration::from_secs(5),
            nice: 0,
            update_command: None,
            update_every: Duration::from_secs(86_400),
            log: DaemonLog::DEFAULT,
            access: Vec::new(),
        }
    }
}

impl ServiceSpec {
    /// The same with other settings.
    #[must_use]
    pub fn with(mut self, set: impl FnOnce(&mut Settings)) -> Self {
        set(&mut self);
        self
    }

    /// Whether its processes run as somebody who may not open hob's files, and may ask something of hob.
    #[must_use]
    pub fn lets_others_in(&self) -> bool {
        self.access.is_some() && (self.user.is_some() || self.group.is_some())
    }
}

impl Default for ServiceSpec {
    fn default() -> Self {
        ServiceSpec {
            command: Vec::new(),
            cwd: None,
            env: BTreeMap::new(),
            nice: None,
            autostart: true,
            restart: Restart::OnFailure,
            requires: Vec::new(),
            wants: Vec::new(),
            after: Vec::new(),
            log: LogSpec::DEFAULT,
            settings: Arc::default(),
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            env_from: BTreeMap::new(),
            clean_env: false,
            env_file: None,
            secrets: Vec::new(),
            user: None,
            group: None,
            umask: None,
            limits: Limits::NONE,
            min_delay: Duration::from_millis(100),
            max_delay: Duration::from_secs(30),
            reset_after: Duration::from_secs(10),
            max_restarts: 0,
            window: None,
            ready: Ready::Spawned,
            ready_timeout: Duration::from_secs(60),
            health: None,
            watchdog: None,
            oneshot: false,
            stop_signal: Signal { number: 15 },
            stop_command: None,
            stop_timeout: Duration::from_secs(10),
            reload_signal: None,
            reload_command: None,
            leave_children: false,
            on_daemon_death: OnDeath::Keep,
            listen: Vec::new(),
            on_demand: false,
            hob_fd: false,
            access: Some(Access::Operate),
        }
    }
}
