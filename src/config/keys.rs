//! The one table of keys. Parser, effective config, defaults, suggestions and the live/restart distinction of a reload
//! are all read from it, so none of them can know a key that the others do not. Touches nothing.

use super::address::Listen;
use super::schedule::{Action, CronText, Missed, Overlap};
use super::spec::{
    Access, AgentPrompt, Condition, Cpus, DaemonSpec, Grant, Health, IoClass, IoNice, Level, LogFormat, Need, OnDeath,
    Ready, Restart, Rlimit, ServiceSpec, Signal, Streams,
};
use core::time::Duration;
use std::collections::BTreeMap;

/// How one value of a spec is reached.
pub(super) struct Slot<S: 'static, T: 'static> {
    pub(super) get: fn(&S) -> &T,
    pub(super) put: fn(&mut S) -> &mut T,
}

/// What is allowed of a duration.
#[derive(Clone, Copy)]
pub(super) struct Span {
    /// What zero means here, or what to write instead where it makes no sense.
    pub(super) zero: Result<&'static str, &'static str>,
    pub(super) min: Duration,
}

/// The longest duration in a config.
pub(super) const SPAN_MAX: Duration = Duration::from_secs(365 * 86_400);

/// Writes the list of types of keys three times: with the way to the value (the table), with the value (to show it) and
/// with its place (to read it). What is done with a value is then written once, and not once for each kind of spec.
macro_rules! fields {
    ($($name:ident($type:ty $(, $limit:ident: $of:ty)*),)*) => {
        /// The type of a key, with its place in the spec.
        pub(super) enum Field<S: 'static> {
            $($name(Slot<S, $type> $(, $of)*),)*
            Group(&'static [Key<S>]),
            /// Read before all others, because it says how many of them there are; no service has it afterwards.
            Instances,
        }

        /// The type of a key, with its value.
        pub(super) enum Seen<'s> {
            $($name(&'s $type $(, $of)*),)*
            Group,
            Instances,
        }

        /// The type of a key, with the place of its value.
        pub(super) enum Place<'s> {
            $($name(&'s mut $type $(, $of)*),)*
            Group,
            Instances,
        }

        impl<S> Field<S> {
            pub(super) fn seen<'s>(&self, spec: &'s S) -> Seen<'s> {
                match self {
                    $(Field::$name(at $(, $limit)*) => Seen::$name((at.get)(spec) $(, *$limit)*),)*
                    Field::Group(_) => Seen::Group,
                    Field::Instances => Seen::Instances,
                }
            }

            pub(super) fn place<'s>(&self, spec: &'s mut S) -> Place<'s> {
                match self {
                    $(Field::$name(at $(, $limit)*) => Place::$name((at.put)(spec) $(, *$limit)*),)*
                    Field::Group(_) => Place::Group,
                    Field::Instances => Place::Instances,
                }
            }
        }
    };
}

fields! {
    Command(Vec<String>),
    OptCommand(Option<Vec<String>>),
    Path(Option<String>),
    Account(Option<String>),
    Env(BTreeMap<String, String>),
    Flag(bool),
    Span(Duration, span: Span),
    OptSpan(Option<Duration>, span: Span),
    Count(u32, min: u32, max: u32),
    Size(u64),
    OptRate(Option<u64>),
    Variables(Vec<String>),
    Nice(i32),
    OptNice(Option<i32>),
    OptInt(Option<i32>, min: i32, max: i32),
    IoNice(Option<IoNice>),
    Cpus(Option<Cpus>),
    Umask(Option<u32>),
    Rlimits(Vec<Rlimit>),
    Restart(Restart),
    Level(Level),
    OnDeath(OnDeath),
    LogFormat(LogFormat),
    Streams(Streams),
    Ready(Ready),
    Health(Option<Health>),
    Needs(Vec<Need>),
    Listen(Vec<Listen>),
    Signal(Signal),
    OptSignal(Option<Signal>),
    Grants(Vec<Grant>),
    Prompt(AgentPrompt),
    OptAccess(Option<Access>),
    Id(String),
    Cron(Option<CronText>),
    Moment(Option<String>),
    Zone(Option<String>),
    Action(Option<Action>),
    Overlap(Overlap),
    Missed(Missed),
}

/// One key of the config.
pub(super) struct Key<S: 'static> {
    pub(super) name: &'static str,
    pub(super) field: Field<S>,
    /// One line for people, without a full stop.
    pub(super) doc: &'static str,
    /// A value as it is written in the file.
    pub(super) example: &'static str,
    /// Whether a change reaches a running service without a restart.
    pub(super) live: bool,
}

/// The place of a key in its spec.
macro_rules! at {
    ($($field:ident).+) => {
        Slot { get: |s| &s.$($field).+, put: |s| &mut s.$($field).+ }
    };
}
pub(super) use at;

pub(super) const fn live<S>(name: &'static str, field: Field<S>, doc: &'static str, example: &'static str) -> Key<S> {
    Key { name, field, doc, example, live: true }
}

const fn restarts<S>(name: &'static str, field: Field<S>, doc: &'static str, example: &'static str) -> Key<S> {
    Key { name, field, doc, example, live: false }
}

// What both services and groups of tasks have.

pub(super) const fn nice<S>(at: Slot<S, Option<i32>>, doc: &'static str, live: bool) -> Key<S> {
    Key { name: "nice", field: Field::OptNice(at), doc, example: "10", live }
}

pub(super) const fn ionice<S>(at: Slot<S, Option<IoNice>>, live: bool) -> Key<S> {
    let doc = "priority of reads and writes: a class, and a level from 0 (most) to 7; unset: hob's own";
    Key { name: "ionice", field: Field::IoNice(at), doc, example: r#""best-effort:7""#, live }
}

pub(super) const fn oom_score<S>(at: Slot<S, Option<i32>>, live: bool) -> Key<S> {
    let doc = "how soon the kernel kills it when memory runs out, the highest first; unset: hob's own";
    Key { name: "oom_score", field: Field::OptInt(at, -1_000, 1_000), doc, example: "500", live }
}

pub(super) const fn cpus<S>(at: Slot<S, Option<Cpus>>, live: bool) -> Key<S> {
    let doc = "processors that it may run on, by number; unset: hob's own";
    Key { name: "cpus", field: Field::Cpus(at), doc, example: r#""0-3,5""#, live }
}

pub(super) const fn rlimits<S>(at: Slot<S, Vec<Rlimit>>, live: bool) -> Key<S> {
    let doc = "resource limits by the names of getrlimit(2) in lower case; a value is both the soft and the hard limit";
    let example = r#"{"nofile": 4096, "core": {"soft": 0, "hard": "unlimited"}}"#;
    Key { name: "rlimits", field: Field::Rlimits(at), doc, example, live }
}

pub(super) const fn from(ms: u64) -> Span {
    Span { zero: Err("write a time, or leave the key out"), min: Duration::from_millis(ms) }
}

pub(super) const fn zero_or_from(zero: &'static str, ms: u64) -> Span {
    Span { zero: Ok(zero), min: Duration::from_millis(ms) }
}

/// Smallest size at which a log may be rotated.
pub(super) const LOG_SIZE_MIN: u64 = 4_096;
const LOG_FILES_MAX: u32 = 1_000;
/// Slowest rate of a log, in bytes a second.
pub(super) const LOG_RATE_MIN: u64 = 1_000;
const RESTARTS_MAX: u32 = 1_000_000;

pub(super) const DAEMON: &[Key<DaemonSpec>] = &[
    live(
        "heartbeat",
        Field::Span(at!(heartbeat), zero_or_from("off", 1_000)),
        "how often the daemon shows that it is alive",
        r#""30s""#,
    ),
    live(
        "shutdown_timeout",
        Field::Span(at!(shutdown_timeout), from(1)),
        "how long all services together may take to stop when hob stops; what is left is killed",
        r#""20s""#,
    ),
    live(
        "shutdown_grace",
        Field::Span(at!(shutdown_grace), zero_or_from("inhibitors do not delay it", 1)),
        "how long a shutdown waits at most for clients that asked for a moment (hob inhibit), before services stop",
        r#""5s""#,
    ),
    live("nice", Field::Nice(at!(nice)), "scheduling priority of the daemon itself", "0"),
    live(
        "update_command",
        Field::OptCommand(at!(update_command)),
        "prints the newest version of hob, in its last line; where that is not the one that runs, hob tells so",
        r#""curl -fsS https://example.org/hob/version""#,
    ),
    live("update_every", Field::Span(at!(update_every), from(1_000)), "how often update_command is run", r#""7d""#),
    live("log", Field::Group(DAEMON_LOG), "the daemon's own log", r#"{"level": "debug"}"#),
    live(
        "access",
        Field::Grants(at!(access)),
        "who may use the control socket besides root and the user hob runs as",
        r#"[{"user": "alice", "level": "operate"}, {"group": "wheel", "level": "admin"}]"#,
    ),
];

const DAEMON_LOG: &[Key<DaemonSpec>] = &[
    live("level", Field::Level(at!(log.level)), "the least important lines that are written", r#""debug""#),
    live("format", Field::LogFormat(at!(log.format)), "how its lines are written", r#""json""#),
    live("max_size", Field::Size(at!(log.max_size)), "size at which the file is rotated", r#""50MB""#),
    live("max_files", Field::Count(at!(log.max_files), 1, LOG_FILES_MAX), "files kept, the current one included", "5"),
];

pub(super) const SERVICE: &[Key<ServiceSpec>] = &[
    restarts(
        "command",
        Field::Command(at!(command)),
        "what to run: the program and its arguments, or one string for the shell; the only key that must be there",
        r#"["/usr/bin/python3", "-m", "http.server", "8000"]"#,
    ),
    restarts(
        "cwd",
        Field::Path(at!(cwd)),
        "working directory, relative to the folder of hob.json; unset: the home of user, or /",
        r#""/srv/app""#,
    ),
    restarts(
        "env",
        Field::Env(at!(env)),
        "environment variables, added to those hob was started with and those of env_file",
        r#"{"PORT": "8080"}"#,
    ),
    restarts(
        "env_file",
        Field::Path(at!(env_file)),
        "file with lines NAME=VALUE, relative to the folder of hob.json; read at each start",
        r#""/etc/default/app""#,
    ),
    restarts(
        "secrets",
        Field::Variables(at!(secrets)),
        "names of variables whose values are replaced by *** in logs and in what hob shows",
        r#"["API_TOKEN"]"#,
    ),
    restarts("user", Field::Account(at!(user)), "user to run as, by name or number; unset: hob's own", r#""www""#),
    restarts("group", Field::Account(at!(group)), "group to run as; unset: the user's own", r#""www""#),
    restarts(
        "umask",
        Field::Umask(at!(umask)),
        "file mode bits that new files do not get; unset: hob's own",
        r#""022""#,
    ),
    nice(at!(nice), "scheduling priority; unset: hob's own", false),
    ionice(at!(limits.ionice), false),
    oom_score(at!(limits.oom_score), false),
    cpus(at!(limits.cpus), false),
    rlimits(at!(limits.rlimits), false),
    live(
        "instances",
        Field::Instances,
        "run several of it, as NAME@1 and so on or by names: in each, %i in any text is the instance (also in \
         HOB_INSTANCE) and %% a percent sign; NAME means all of them",
        r#"["blue", "green"]"#,
    ),
    live("autostart", Field::Flag(at!(autostart)), "start when hob starts", "true"),
    live("restart", Field::Restart(at!(restart)), "whether to start again after an end", r#""always""#),
    live(
        "min_delay",
        Field::Span(at!(min_delay), zero_or_from("restart at once, always", 1)),
        "pause before the second restart in a row (the first is immediate); it doubles from then on",
        r#""100ms""#,
    ),
    live(
        "max_delay",
        Field::Span(at!(max_delay), zero_or_from("only together with a min_delay of 0s", 1)),
        "longest pause between restarts",
        r#""30s""#,
    ),
    live(
        "reset_after",
        Field::Span(
            at!(reset_after),
            Span {
                zero: Err("a service that fails at once would count as healthy; write a short time such as \"1s\""),
                min: Duration::from_millis(1),
            },
        ),
        "how long a service must have been ready for its next failure to count as the first",
        r#""10s""#,
    ),
    live(
        "max_restarts",
        Field::Count(at!(max_restarts), 0, RESTARTS_MAX),
        "restarts after which the service is given up as failed; 0: never",
        "5",
    ),
    live(
        "window",
        Field::OptSpan(at!(window), from(1)),
        "count only restarts within this time towards max_restarts; unset: all since the last reset",
        r#""1h""#,
    ),
    restarts(
        "ready",
        Field::Ready(at!(ready)),
        "when the service counts as ready: once executed, by sd_notify, when a port or a socket answers, by a line of \
         output or on a descriptor, when a command ends with 0",
        r#"{"port": 8080}"#,
    ),
    live(
        "ready_timeout",
        Field::Span(at!(ready_timeout), from(1)),
        "how long it may take to become ready; a longer start is a failed one",
        r#""1m""#,
    ),
    live(
        "health",
        Field::Health(at!(health)),
        "what a ready service is asked again and again; it is restarted when that fails as often in a row as retries \
         says (every 10s, timeout 2s, 3 retries unless given)",
        r#"{"http": "http://127.0.0.1:8080/health", "every": "10s", "timeout": "2s", "retries": 3}"#,
    ),
    restarts(
        "watchdog",
        Field::OptSpan(at!(watchdog), from(100)),
        "longest time between two WATCHDOG=1 by sd_notify, from its readiness on; it is restarted when it misses one",
        r#""30s""#,
    ),
    restarts(
        "oneshot",
        Field::Flag(at!(oneshot)),
        "it does its work and ends; it counts as ready once it has ended with exit code 0",
        "true",
    ),
    live(
        "requires",
        Field::Needs(at!(requires)),
        "services this one cannot do without: they are started before it, and when one is stopped so is this one",
        r#"["db", {"name": "cache", "condition": "started"}]"#,
    ),
    live(
        "wants",
        Field::Needs(at!(wants)),
        "services that are started before this one, which goes on without them if they fail",
        r#"["metrics"]"#,
    ),
    live(
        "after",
        Field::Needs(at!(after)),
        "order alone: if these are to be up as well, this one starts after them",
        r#"["network"]"#,
    ),
    live("stop_signal", Field::Signal(at!(stop_signal)), "signal that asks the service to end", r#""SIGINT""#),
    live(
        "stop_command",
        Field::OptCommand(at!(stop_command)),
        "run instead of that signal, with its pid in MAINPID; when it fails, or the service has not ended within \
         stop_timeout, the signal follows",
        r#"["redis-cli", "shutdown"]"#,
    ),
    live(
        "stop_timeout",
        Field::Span(
            at!(stop_timeout),
            Span { zero: Err("to kill at once write \"stop_signal\": \"SIGKILL\""), min: Duration::from_millis(1) },
        ),
        "how long it may take to end after that signal; then all its processes are killed",
        r#""10s""#,
    ),
    live(
        "reload_signal",
        Field::OptSignal(at!(reload_signal)),
        "signal that makes the service read its own config again, for 'hob service reload'",
        r#""SIGHUP""#,
    ),
    live(
        "reload_command",
        Field::OptCommand(at!(reload_command)),
        "run for that instead, with its pid in MAINPID",
        r#"["nginx", "-s", "reload"]"#,
    ),
    live(
        "leave_children",
        Field::Flag(at!(leave_children)),
        "leave processes alone that outlive the main process, instead of stopping them",
        "false",
    ),
    restarts(
        "on_daemon_death",
        Field::OnDeath(at!(on_daemon_death)),
        "whether it goes on when hob's daemon dies, or is ended and started again by the next one",
        r#""stop""#,
    ),
    restarts(
        "listen",
        Field::Listen(at!(listen)),
        "sockets that hob opens and keeps over restarts, passed as descriptors from 3 on (LISTEN_FDS); an object also \
         takes name, type, backlog, mode, user, group and ipv6_only",
        r#"["tcp:127.0.0.1:8080", {"name": "admin", "unix": "/run/app.sock"}]"#,
    ),
    live(
        "on_demand",
        Field::Flag(at!(on_demand)),
        "start with the first connection to listen rather than with hob, and again so after it has ended with 0",
        "true",
    ),
    restarts(
        "hob_fd",
        Field::Flag(at!(hob_fd)),
        "give each run a channel to hob of its own, as the descriptor whose number is in HOB_FD",
        "true",
    ),
    live(
        "access",
        Field::OptAccess(at!(access)),
        "what its processes may ask of hob, whatever user they run as; only \"admin\" can change hob itself",
        r#""read""#,
    ),
    live("log", Field::Group(SERVICE_LOG), "the service's output", r#"{"max_size": "10MB"}"#),
];

const SERVICE_LOG: &[Key<ServiceSpec>] = &[
    live("max_size", Field::Size(at!(log.max_size)), "size at which the file is rotated", r#""10MB""#),
    live("max_files", Field::Count(at!(log.max_files), 1, LOG_FILES_MAX), "files kept, the current one included", "5"),
    live(
        "max_age",
        Field::OptSpan(at!(log.max_age), from(1_000)),
        "age at which a file is rotated, and at which an old one is removed; unset: never",
        r#""30d""#,
    ),
    live("compress", Field::Flag(at!(log.compress)), "compress old files by the program gzip", "true"),
    live("timestamps", Field::Flag(at!(log.timestamps)), "begin each line with its time in UTC", "true"),
    live(
        "rate",
        Field::OptRate(at!(log.rate)),
        "how much is written in a second at most; the rest is dropped and counted in the log; unset: all",
        r#""1MB/s""#,
    ),
    live(
        "streams",
        Field::Streams(at!(log.streams)),
        "standard output and error in one (exact order) or told apart; takes effect with the next start",
        r#""split""#,
    ),
];

/// What other tools call it, and the key that is meant.
const ALIASES: &[(&str, &str)] = &[
    ("cmd", "command"),
    ("exec", "command"),
    ("execstart", "command"),
    ("run", "command"),
    ("chdir", "cwd"),
    ("dir", "cwd"),
    ("directory", "cwd"),
    ("workdir", "cwd"),
    ("working_dir", "cwd"),
    ("working_directory", "cwd"),
    ("workingdirectory", "cwd"),
    ("environment", "env"),
    ("environment_file", "env_file"),
    ("environmentfile", "env_file"),
    ("execstop", "stop_command"),
    ("execreload", "reload_command"),
    ("cpu_affinity", "cpus"),
    ("cpuaffinity", "cpus"),
    ("cpuset", "cpus"),
    ("oom_score_adj", "oom_score"),
    ("oomscoreadjust", "oom_score"),
    ("ioschedulingclass", "ionice"),
    ("completed", "finished"),
    ("sockets", "listen"),
    ("listen_on", "listen"),
    ("socket_listen", "listen"),
    ("listenstream", "listen"),
    ("listendatagram", "listen"),
    ("socket_activation", "on_demand"),
    ("watchdogsec", "watchdog"),
    ("watchdog_sec", "watchdog"),
    ("healthcheck", "health"),
    ("health_check", "health"),
    ("interval", "every"),
    ("period", "every"),
    ("uid", "user"),
    ("gid", "group"),
    ("limits", "rlimits"),
    ("ulimits", "rlimits"),
    ("enabled", "autostart"),
    ("autorestart", "restart"),
    ("restart_policy", "restart"),
    ("backoff", "min_delay"),
    ("restart_delay", "min_delay"),
    ("restartsec", "min_delay"),
    ("startretries", "max_restarts"),
    ("startsecs", "reset_after"),
    ("depends", "requires"),
    ("depends_on", "requires"),
    ("killsignal", "stop_signal"),
    ("kill_signal", "stop_signal"),
    ("stopsignal", "stop_signal"),
    ("stopwaitsecs", "stop_timeout"),
    ("kill_timeout", "stop_timeout"),
    ("grace", "stop_timeout"),
    ("readiness", "ready"),
    ("numprocs", "instances"),
    ("replicas", "instances"),
    ("programs", "services"),
    ("processes", "services"),
    ("loglevel", "log"),
];

/// The key that was probably meant by an unknown one, out of those that are allowed at its place.
pub(super) fn meant<'k>(word: &str, allowed: impl Iterator<Item = &'k str> + Clone) -> Option<&'k str> {
    let lower = word.to_ascii_lowercase().replace('-', "_");
    let alias = ALIASES.iter().find(|(name, _)| *name == lower).map(|(_, key)| *key);
    let by_alias = alias.and_then(|key| allowed.clone().find(|k| *k == key));
    by_alias.or_else(|| crate::base::near::nearest(word, allowed))
}

/// Words of `restart`, of `log.level`, `log.format` and `log.streams`, and of an access level, in the order of their
/// types.
pub(super) const RESTARTS: &[(&str, Restart)] =
    &[("always", Restart::Always), ("on-failure", Restart::OnFailure), ("never", Restart::Never)];
pub(super) const LEVELS: &[(&str, Level)] = &[
    ("error", Level::Error),
    ("warn", Level::Warn),
    ("info", Level::Info),
    ("debug", Level::Debug),
    ("trace", Level::Trace),
];
pub(super) const FORMATS: &[(&str, LogFormat)] = &[("text", LogFormat::Text), ("json", LogFormat::Json)];
pub(super) const STREAMS: &[(&str, Streams)] = &[("merged", Streams::Merged), ("split", Streams::Split)];
pub(super) const ACCESSES: &[(&str, Access)] =
    &[("read", Access::Read), ("operate", Access::Operate), ("admin", Access::Admin)];
/// Words of a service's `access`.
pub(super) const JOB_ACCESSES: &[(&str, Option<Access>)] =
    &[("none", None), ("read", Some(Access::Read)), ("operate", Some(Access::Operate)), ("admin", Some(Access::Admin))];

pub(super) const CONDITIONS: &[(&str, Condition)] = &[
    ("started", Condition::Started),
    ("ready", Condition::Ready),
    ("healthy", Condition::Healthy),
    ("finished", Condition::Finished),
    ("succeeded", Condition::Succeeded),
];

pub(super) const ON_DEATHS: &[(&str, OnDeath)] = &[("keep", OnDeath::Keep), ("stop", OnDeath::Stop)];
pub(super) const IO_CLASSES: &[(&str, IoClass)] =
    &[("realtime", IoClass::Realtime), ("best-effort", IoClass::BestEffort), ("idle", IoClass::Idle)];

/// The limits of getrlimit(2) on any system, and whether each is a number of bytes.
pub(super) const RLIMITS: &[(&str, bool)] = &[
    ("as", true),
    ("core", true),
    ("cpu", false),
    ("data", true),
    ("fsize", true),
    ("locks", false),
    ("memlock", true),
    ("msgqueue", true),
    ("nice", false),
    ("nofile", false),
    ("nproc", false),
    ("rss", true),
    ("rtprio", false),
    ("rttime", false),
    ("sigpending", false),
    ("stack", true),
];
