//! The core decides: all control state, changed only by `step`, which appends what is to be done to one ordered list.
//! Pure.
//!
//! Inputs are facts and wishes; effects are orders. A fact that no longer fits is ignored and traced. Within `step`,
//! handlers only set marks; `settle` then propagates them to a fixed point and emits, so that no decision sees
//! half-changed state.

mod doctor;
pub mod due;
pub mod event;
mod freeze;
mod fuzz;
mod inhibit;
pub mod keys;
pub mod life;
mod members;
mod newer;
mod outer;
pub mod owner;
mod plan;
pub mod record;
pub mod request;
mod restore;
pub mod run;
mod safe;
pub mod schedule;
pub mod service;
mod state;
pub mod task;
pub mod upgrade;
pub mod view;
pub mod wait;

pub use event::event_kind;
pub use fuzz::fuzz;
pub use owner::{Owner, Peer};
pub use record::Entity;
pub use request::changes;
pub use state::Core;

use crate::base::finding::Finding;
use crate::base::ids::{ConnId, ReqId, RunId, StreamId};
use crate::base::map::Map;
use crate::base::time::{Mono, Wall};
use crate::config::{Config, Ready, ServiceSpec};
use crate::protocol::methods::{LogQuery, Request};
use crate::protocol::rpc::RpcError;
use core::time::Duration;
use std::sync::Arc;

/// How a run ended, as the kernel says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Code(i32),
    Signal(i32),
    /// Nobody saw the end (keeper and daemon both died).
    Unknown,
}

/// What a run cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub cpu: Duration,
    /// Peak memory for an ended run, present memory for a running one, in bytes.
    pub memory: u64,
}

/// What runs cost, by their number.
pub type Usages = Map<RunId, Usage>;

/// Why a start failed. The errno is kept so that `why` can say what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartError {
    /// A sentence without a full stop: `cannot execute /bin/nope: No such file or directory`.
    pub message: String,
    /// The machine lacks something now (EAGAIN, ENOMEM, EMFILE, ENFILE, ENOSPC, a full table): to be tried again with
    /// backoff and never counted towards max_restarts.
    pub transient: bool,
}

/// A process that outlived the main process of its run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survivor {
    pub pid: u32,
    pub name: String,
}

/// The pid of a process that nobody knows any more, which no process has.
pub const UNKNOWN_PID: u32 = 0;

/// A run that the table of the keeper knows at the start of a daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableRun {
    pub run: RunId,
    /// `None`: the slot was taken but the clone never happened.
    pub pid: Option<u32>,
    /// Set when the child could not execute its program.
    pub exec_error: Option<StartError>,
    /// Set when it was reaped.
    pub ended: Option<(End, Usage)>,
    /// The keeper has asked it to end, because the daemon before this one died.
    pub asked: bool,
}

/// Everything a new daemon knows before its first step.
#[derive(Clone, Debug, Default)]
pub struct Boot {
    pub config: Config,
    /// The text hash or path shown in status; and whether the file was found broken (then `config` is what could be
    /// used).
    pub config_error: Option<String>,
    /// When `config` was read from the file, where that was not now.
    pub config_taken: Option<Wall>,
    /// Live entities from snapshot and journal, last state of each, in order of their sequence.
    pub entities: Vec<Entity>,
    /// Runs in the keeper's table.
    pub table: Vec<TableRun>,
    /// Processes of earlier runs that no table knows (keeper and daemon both died), by run.
    pub leftovers: Vec<(RunId, Vec<Survivor>)>,
    /// The last events of the ring, oldest first, as JSON lines, and the sequence number of the last.
    pub events: Vec<(u64, String)>,
    pub keeper_pid: u32,
    pub daemon_pid: u32,
    /// Counts the daemons of this keeper from 1.
    pub generation: u32,
    /// How many of those before have died.
    pub deaths: u32,
    /// Identity of keeper and boot: a shutdown record of another keeper is void.
    pub keeper_key: String,
    pub version: &'static str,
    /// What `rpc.discover` answers, from whoever makes it but once.
    pub document: Option<fn() -> &'static str>,
    /// `hob run -- CMD`: the one service that is hob's purpose; hob ends with it.
    pub main: Option<(String, Arc<ServiceSpec>)>,
    /// When the keeper started, for the uptime.
    pub keeper_started: Mono,
    /// The signals of this system, for configs that requests bring.
    pub signals: &'static [(&'static str, i32)],
    /// Records of the journal are missing: something that was accepted may be lost.
    pub gap: bool,
    /// The highest number of a task of which there is output, whatever the journal says; 0: of none.
    pub newest_output: u64,
    /// A shutdown that was asked for while no daemon ran.
    pub stop: bool,
    /// hob is a part of another program, and ends with it.
    pub managed: bool,
    /// A service manager wants to know how all is.
    pub outer: bool,
    /// Safe mode, and what was at fault: nothing is started, stopped or written.
    pub safe: Option<String>,
    /// Services for which the keeper holds sockets.
    pub sockets: Vec<Arc<str>>,
    /// What tells this machine from others, for the jitter of jobs.
    pub host: String,
    /// The user that hob runs as.
    pub uid: u32,
    /// How many runs hob has descriptors for; 0: as many as the run table has slots.
    pub runs_max: usize,
}

/// Facts and wishes.
#[derive(Debug)]
pub enum Input {
    /// The first input of a daemon.
    Boot(Box<Boot>),
    /// A deadline has passed.
    Tick,
    Request {
        req: ReqId,
        conn: ConnId,
        peer: Peer,
        key: Option<String>,
        params_hash: u64,
        request: Request,
    },
    /// The connection is gone: its waits and subscriptions end; its requests need no reply.
    Closed {
        conn: ConnId,
    },
    /// The connection does not keep up: the subscription is lost, naming where to resume.
    Lagged {
        conn: ConnId,
        subscription: StreamId,
    },
    /// Result of `Effect::Start`.
    Started {
        run: RunId,
        result: Result<u32, StartError>,
    },
    /// The main process of a run ended. For an exec failure `Started(Err)` comes instead, never both.
    Exited {
        run: RunId,
        end: End,
        usage: Usage,
    },
    /// Result of `Effect::Sweep` and of a cgroup that became empty: who of the run's tree is left.
    Tree {
        run: RunId,
        left: Vec<Survivor>,
    },
    /// What `Effect::Await` waited for has come: somebody answered, a line was seen.
    ReadySeen {
        run: RunId,
    },
    /// Result of `Effect::Hear`.
    Heard {
        run: RunId,
    },
    /// Result of `Effect::Check`; why it failed, as a clause.
    Checked {
        run: RunId,
        what: Duty,
        result: Result<(), String>,
    },
    /// One datagram of sd_notify(3), already checked to come from the run: its assignments.
    Notify {
        run: RunId,
        fields: Vec<(String, String)>,
    },
    /// Result of `Effect::Listen` with `watch`: why a socket could not be opened.
    Listening {
        service: Arc<str>,
        result: Result<(), String>,
    },
    /// Somebody connects to a watched socket, named for people. `waiting`: it was there before the watch began.
    Connection {
        service: Arc<str>,
        on: Box<str>,
        waiting: bool,
    },
    /// Capture has passed all that lay in the pipe when the run ended.
    Output {
        run: RunId,
        bytes: u64,
        last_lines: Vec<String>,
    },
    /// Answer to `Effect::Sync`.
    Synced {
        ticket: u64,
    },
    /// Result of `Effect::Measure`; runs that could not be measured are missing.
    Measured {
        req: ReqId,
        usage: Arc<Usages>,
    },
    /// Result of `Effect::Rotate`: the reply.
    Rotated {
        req: ReqId,
        result: Result<String, RpcError>,
    },
    /// What the machine can do, before the first result that tells of it: a JSON object.
    Platform {
        facts: Arc<str>,
    },
    /// Result of `Effect::Doctor`: the reply.
    Examined {
        req: ReqId,
        result: Result<String, RpcError>,
    },
    /// Result of `Effect::LoadConfig`: a checked config, or the text of all its errors. `look`: as there, so that it is
    /// never taken.
    ConfigRead {
        req: Option<ReqId>,
        look: bool,
        result: Result<Box<Config>, String>,
    },
    /// A stop request through the keeper or a signal. `hurry`: kill at once.
    Stop {
        hurry: bool,
    },
    /// SIGHUP.
    Reload,
    /// SIGUSR2, which asks for an upgrade; the main service gets it where there is one.
    Renew {
        signal: i32,
    },
    /// Nothing came of `Effect::Upgrade`: this daemon goes on.
    UpgradeEnded {
        req: Option<ReqId>,
        result: Result<String, RpcError>,
    },
    /// How an upgrade came out that a daemon before this one began.
    Upgraded {
        ticket: Option<upgrade::Ticket>,
        result: Result<String, RpcError>,
    },
    /// Where the program that runs was started from, another one lies now, or no longer.
    OtherProgram {
        path: Option<String>,
    },
    /// Result of `Effect::Newest`: the last line that it printed, or why it failed, as a clause.
    Newest {
        result: Result<String, String>,
    },
    /// Any other signal under `--init`, to be forwarded to the main service.
    Forward {
        signal: i32,
    },
    /// The start of a run takes long, and what it waits for, as a clause.
    StartWaits {
        run: RunId,
        what: Box<str>,
    },
    /// The keeper died: stop the jobs and end.
    KeeperGone,
    /// The journal cannot be written (`Some(why)`), or can again.
    JournalBehind {
        why: Option<String>,
    },
    /// Output of a service or task is dropped, because its log cannot take it; or that is over.
    OutputLost {
        name: Arc<str>,
        lost: bool,
    },
    /// The journal's reserve is used up, or whole again: refuse or accept new durable work.
    JournalFull {
        full: bool,
    },
    /// The wall clock was set, by so many milliseconds, or the machine has slept.
    WallSet {
        by: i64,
    },
}

/// How readiness is found out, where it is not the program's own word.
#[derive(Clone, Debug, PartialEq)]
pub enum Await {
    Port(u16),
    Log(String),
    /// A line in the service's ready pipe.
    Fd,
    /// A connection to this socket.
    Socket(String),
    /// `ready.command` of this spec ends with 0.
    Command(Arc<ServiceSpec>),
}

impl Await {
    /// What has to be watched for; `None` where the program itself says it, or its execution does.
    #[must_use]
    pub fn of(spec: &Arc<ServiceSpec>) -> Option<Await> {
        match &spec.ready {
            Ready::Spawned | Ready::Notify => None,
            Ready::Port(port) => Some(Await::Port(*port)),
            Ready::Log(pattern) => Some(Await::Log(pattern.clone())),
            Ready::Fd(_) => Some(Await::Fd),
            Ready::Socket(path) => Some(Await::Socket(path.clone())),
            Ready::Command(_) => Some(Await::Command(Arc::clone(spec))),
        }
    }
}

/// What is done beside a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Duty {
    /// One health check.
    Health,
    /// `reload_command`.
    Reload,
    /// `stop_command`.
    Stop,
}

/// What makes a start: everything the shell needs, nothing it has to ask the core for.
#[derive(Clone, Debug)]
pub struct Start {
    pub run: RunId,
    pub service: Arc<str>,
    pub spec: Arc<ServiceSpec>,
    /// Whether NOTIFY_SOCKET is to be set.
    pub notify: bool,
    /// Instead of /dev/null.
    pub stdin: Option<Stdin>,
}

/// What a task reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stdin {
    Bytes(Arc<[u8]>),
    /// Not its standard input, but a file whose path is its last argument.
    PromptFile(Arc<[u8]>),
}

/// Orders, run in list order after the round's records were written.
#[derive(Debug)]
pub enum Effect {
    /// Make the service's pipe and cgroup if they do not exist; clone the child. Answered by `Started`.
    Start(Box<Start>),
    /// Send a signal: to the main process, or to every process of the run's tree.
    Signal {
        run: RunId,
        signal: i32,
        tree: bool,
    },
    /// Stop every process of the run's tree from running, or let them go on.
    Pause {
        run: RunId,
        on: bool,
    },
    /// Kill the whole tree.
    Kill {
        run: RunId,
    },
    /// Look who is left of the run's tree, now and again when that changes; answered by `Tree`.
    Sweep {
        run: RunId,
    },
    /// The start of this run is to come to nothing. `Started` tells so at once unless its program is being executed
    /// already; then it is told as always, and nobody waits for ever for a program that cannot be executed.
    CancelStart {
        run: RunId,
    },
    /// Watch for readiness until `AwaitEnd`; answered by `ReadySeen`. `from_start`: the run was adopted while starting,
    /// so its output so far is matched again from the run's first position.
    Await {
        run: RunId,
        what: Await,
        from_start: bool,
    },
    AwaitEnd {
        run: RunId,
    },
    /// Hear all that the run has said before its end; answered by `Heard`, after what is to be told of it. `output`: a
    /// line of its output is one of the words.
    Hear {
        run: RunId,
        output: bool,
    },
    /// It was found that the main process of this run had ended; answered by `Output`, as an end that is seen.
    Ended {
        run: RunId,
    },
    /// Do this once, in so much time; answered by `Checked` unless `CheckEnd` comes first.
    Check {
        run: RunId,
        what: Duty,
        spec: Arc<ServiceSpec>,
        limit: Duration,
    },
    /// Nobody waits for it any more: end what is left of it.
    CheckEnd {
        run: RunId,
        what: Duty,
    },
    /// The run's end is on record and its tree is gone: free its slot, pidfd and other means.
    Forget {
        run: RunId,
    },
    /// A service was removed from the config and is down: close its pipe and cgroup; its logs stay.
    Remove {
        service: Arc<str>,
    },
    /// The output of a task that is removed goes too.
    Discard {
        service: Arc<str>,
    },
    /// Answered by `Synced` once all records so far are on disk.
    Sync {
        ticket: u64,
    },
    /// The service's log settings: sent at boot, at the first start and when they change.
    LogSpec {
        service: Arc<str>,
        spec: Arc<ServiceSpec>,
    },
    /// Have the sockets of the service open, those of this spec and no others. `watch`: answer by `Listening`, and tell
    /// the first connection by `Connection`.
    Listen {
        service: Arc<str>,
        spec: Arc<ServiceSpec>,
        watch: bool,
    },
    /// Close its sockets: connections are refused.
    Unlisten {
        service: Arc<str>,
    },
    /// Exactly one for each request. `durable`: only after all records so far are synced.
    Reply {
        req: ReqId,
        result: Result<String, RpcError>,
        durable: bool,
    },
    /// A notification on a connection: method and params as JSON.
    Notify {
        conn: ConnId,
        stream: StreamId,
        method: &'static str,
        params: String,
    },
    /// Append to the event ring; always before the `Notify` effects that tell of it.
    Event {
        seq: u64,
        line: String,
    },
    /// Open log streams for a caller; the shell replies to `req` itself, names are checked.
    Logs {
        req: ReqId,
        conn: ConnId,
        query: LogQuery,
    },
    /// Begin a new log file for each; answered by `Rotated`.
    Rotate {
        req: ReqId,
        names: Vec<(Arc<str>, Arc<ServiceSpec>)>,
    },
    CloseStream {
        req: ReqId,
        conn: ConnId,
        id: StreamId,
    },
    /// Read present usage of these runs; answered by `Measured`, which may tell of others too, unless the connection
    /// is gone by then.
    Measure {
        req: ReqId,
        conn: ConnId,
        owner: Owner,
        runs: Vec<RunId>,
    },
    /// Look at everything around hob, and put these findings to it; answered by `Examined`.
    Doctor {
        req: ReqId,
        findings: Vec<Finding>,
    },
    /// How all is, in a line for the service manager.
    Status {
        text: String,
    },
    /// Read and check the config file; answered by `ConfigRead`. `look`: only to tell what it would lead to.
    LoadConfig {
        req: Option<ReqId>,
        look: bool,
    },
    /// New daemon settings took effect (log level and size, access, nice).
    Daemon {
        spec: Box<crate::config::DaemonSpec>,
    },
    /// What jobs may ask of hob has changed: ask `Core::job_access` anew for those that are connected.
    JobAccess,
    /// Write heartbeat and state.json (this text) and tell the keeper.
    Heartbeat {
        state: String,
    },
    /// A line for the daemon's own log.
    Log {
        level: crate::config::Level,
        text: String,
    },
    /// All that autostart began has come up (once).
    Ready,
    /// A shutdown began; the keeper's limit is this much later.
    Stopping {
        limit: Duration,
    },
    /// The shutdown is complete: flush, then end hob with this code.
    Exit {
        code: u8,
    },
    /// Look at another program and, if it is fit, end for a daemon of it. Answered by `UpgradeEnded` otherwise.
    Upgrade {
        req: Option<ReqId>,
        binary: Option<String>,
        ticket: Option<upgrade::Ticket>,
    },
    /// Run `daemon.update_command` once; answered by `Input::Newest` unless `NewestEnd` comes first.
    Newest {
        command: Vec<String>,
        limit: Duration,
    },
    /// Nobody waits for it any more: end what is left of it.
    NewestEnd,
    /// Safe mode is over: flush, then end this daemon for an ordinary one. `stop`: which is to stop hob.
    Again {
        stop: bool,
    },
}

/// What a step appends to: records are written before any effect of the round runs.
#[derive(Debug, Default)]
pub struct Out {
    pub records: Vec<Entity>,
    pub effects: Vec<Effect>,
}
