//! The table itself. Whoever adds a method adds a row here, a variant to `Request`, and an arm to the core's one match.

use super::task_table::TASKS;
use super::{Change, EventQuery, Inhibit, Kind, LogQuery, Method, NewService, Param, Params, Request};
use crate::base::access::Access;
use crate::protocol::rpc::{Code, RpcError};

const fn param(name: &'static str, kind: Kind, doc: &'static str) -> Param {
    Param { name, alias: None, kind, required: false, doc }
}

pub(super) const fn needed(name: &'static str, kind: Kind, doc: &'static str) -> Param {
    Param { name, alias: None, kind, required: true, doc }
}

const SERVICE: Param = needed("name", Kind::Text, "the service");
const SOME_SERVICES: Param = Param {
    name: "names",
    alias: Some("name"),
    kind: Kind::Names,
    required: true,
    doc: "the services: a list, or one name",
};
const SERVICES: Param =
    Param { required: false, doc: "the services: a list, or one name; all when absent", ..SOME_SERVICES };
const THESE: Param = Param { required: false, ..SOME_SERVICES };
const OWNER: Param =
    param("owner", Kind::Owner, "only what this one started: mine, the number of a user, or service/NAME");
const WAIT: Param = param("wait", Kind::Flag, "answer when the end state is reached, not at once (default true)");
const TIMEOUT: Param = param("timeout", Kind::Duration, "how long to wait at most; the change goes on after that");
const CHANGE: &[Param] = &[SOME_SERVICES, WAIT, TIMEOUT];
const CONFIG: Param = param(
    "config",
    Kind::Object,
    "make a transient service of this name with these keys of hob.json, and start it (admin access)",
);
const START: &[Param] = &[SOME_SERVICES, WAIT, TIMEOUT, CONFIG];
const STOP: &[Param] =
    &[THESE, WAIT, TIMEOUT, param("all", Kind::Flag, "every service, instead of names (default false)")];
const LINES: Param = param("lines", Kind::Count, "how many of the last lines (default 50)");
const FOLLOW: Param = param("follow", Kind::Flag, "go on with what is written from now on (default false)");
const SINCE: Param =
    param("since", Kind::Time, "only what was written from then on; all of it unless `lines` is given");
const UNTIL: Param = param("until", Kind::Time, "only what was written until then");
const MARKS: Param =
    param("marks", Kind::Flag, "tell when and on which stream it was written, by `stream.mark` (default false)");
const KINDS: Param =
    param("kinds", Kind::Names, "kinds of events, `*` stands for anything: service.*; all when absent");
const EVENTS_OF: Param = param("names", Kind::Names, "events of these alone; of all when absent");
const JOB: Param = needed("id", Kind::Text, "the job");
const JOBS: Param = Param {
    name: "ids",
    alias: Some("id"),
    kind: Kind::Names,
    required: false,
    doc: "the jobs: a list, or one id; all when absent",
};
const PAUSED: &str = r#"{"jobs": [{"id", "paused", "changed", "next"}]}"#;
const CHANGED: &str = r#"{"services": [{"name", "state", "changed", "message"}]}"#;
const STREAMS: &str = r#"{"streams": [{"id", "name", "position"}]}, then the bytes as stream `id`"#;

/// All methods.
pub const METHODS: &[Method] = &join::<{ OF_SERVICES.len() + TASKS.len() }>(&[OF_SERVICES, TASKS]);

/// One table of several.
const fn join<const N: usize>(parts: &[&[Method]]) -> [Method; N] {
    let mut all = [OF_SERVICES[0]; N];
    let (mut at, mut part) = (0, 0);
    while part < parts.len() {
        let mut row = 0;
        while row < parts[part].len() {
            all[at] = parts[part][row];
            at += 1;
            row += 1;
        }
        part += 1;
    }
    all
}

const OF_SERVICES: &[Method] = &[
    Method {
        name: "ping",
        aliases: &["daemon.ping"],
        access: Access::Read,
        mutating: false,
        params: &[],
        result: r#"{"pong": true, "timestamp", "uptime_secs", "version"}"#,
        doc: "Answers at once.",
        decode: |_| Ok(Request::Ping),
    },
    Method {
        name: "daemon.status",
        aliases: &[],
        access: Access::Read,
        mutating: false,
        params: &[],
        result: r#"{"pid", "keeper_pid", "uptime_secs", "version", "protocol_version", "services", "platform", ...}"#,
        doc: "The state of the daemon and of all that it keeps.",
        decode: |_| Ok(Request::DaemonStatus),
    },
    Method {
        name: "daemon.health",
        aliases: &[],
        access: Access::Read,
        mutating: false,
        params: &[],
        result: r#"{"pid", "keeper_pid", "uptime_secs", "version", "protocol_version", "services", ...}"#,
        doc: "Whether all is well, in few numbers.",
        decode: |_| Ok(Request::DaemonHealth),
    },
    Method {
        name: "daemon.shutdown",
        aliases: &[],
        access: Access::Admin,
        mutating: true,
        params: &[
            param(
                "graceful",
                Kind::Flag,
                "stop the services by their stop sequence; otherwise kill them (default true)",
            ),
            param("grace", Kind::Duration, "time for that, instead of daemon.shutdown_timeout"),
        ],
        result: r#"{"stopping": true, "limit_ms", "running", "waits_for"}"#,
        doc: "Stops all services, then hob itself.",
        decode: |p| Ok(Request::DaemonShutdown { graceful: p.flag("graceful", true)?, grace: p.duration("grace")? }),
    },
    Method {
        name: "daemon.reload",
        aliases: &[],
        access: Access::Admin,
        mutating: true,
        params: &[],
        result: r#"{"added", "removed", "restarted", "updated", "unchanged", "jobs_added", ..., "settings"}"#,
        doc: "Reads the config again: all of it takes effect, or nothing when it has an error.",
        decode: |_| Ok(Request::DaemonReload),
    },
    Method {
        name: "daemon.plan",
        aliases: &[],
        access: Access::Admin,
        mutating: false,
        params: &[],
        result: r#"{"daemon", "changes": [{"action", "name", "why", "keys", "because_of"}], "order", "added", ...}"#,
        doc: "What daemon.reload would do with the config as it is on disk now, in its order; changes nothing.",
        decode: |_| Ok(Request::DaemonPlan),
    },
    Method {
        name: "daemon.upgrade",
        aliases: &[],
        access: Access::Admin,
        mutating: true,
        params: &[param("binary", Kind::Text, "path of the new program (default: where the present one was executed)")],
        result: r#"{"upgraded", "keeper_renewed", "from": {"version", "build", "path"}, "to": {...}, "pid"}"#,
        doc: "Replaces daemon and keeper by another program, without touching a job; answered by the new daemon.",
        decode: |p| Ok(Request::DaemonUpgrade { binary: p.optional_text("binary")? }),
    },
    Method {
        name: "daemon.logs",
        aliases: &[],
        access: Access::Read,
        mutating: false,
        params: &[
            LINES,
            FOLLOW,
            param("from", Kind::Count, "the position to go on from, instead of `lines`"),
            SINCE,
            UNTIL,
        ],
        result: STREAMS,
        doc: "The daemon's own log.",
        decode: daemon_logs,
    },
    Method {
        name: "daemon.config",
        aliases: &[],
        access: Access::Admin,
        mutating: false,
        params: &[],
        result: "the config in effect, with its defaults",
        doc: "The config in effect.",
        decode: |_| Ok(Request::DaemonConfig),
    },
    Method {
        name: "daemon.doctor",
        aliases: &[],
        access: Access::Admin,
        mutating: false,
        params: &[],
        result: r#"{"findings": [{"level", "area", "what", "why", "do"}], "counts", "platform"}"#,
        doc: "Looks for what is wrong around hob, and says what to do. Changes nothing.",
        decode: |_| Ok(Request::DaemonDoctor),
    },
    Method {
        name: "daemon.inhibit",
        aliases: &[],
        access: Access::Operate,
        mutating: false,
        params: &[
            needed("why", Kind::Text, "what has to be done before a shutdown, in a line"),
            param("who", Kind::Text, "a name for the caller (default: its pid)"),
            param("what", Kind::Text, "what is put off: shutdown, the default and all there is"),
        ],
        result: r#"{"inhibitor", "what", "grace_ms"}"#,
        doc: "Delays a shutdown by daemon.shutdown_grace at most, until daemon.uninhibit or the end of the connection.",
        decode: inhibit,
    },
    Method {
        name: "daemon.uninhibit",
        aliases: &[],
        access: Access::Operate,
        mutating: false,
        params: &[needed("inhibitor", Kind::Count, "the number that daemon.inhibit answered")],
        result: r#"{"released": true}"#,
        doc: "Ends an inhibitor of this connection.",
        decode: |p| Ok(Request::DaemonUninhibit { inhibitor: p.id("inhibitor")? }),
    },
    Method {
        name: "daemon.why",
        aliases: &[],
        access: Access::Read,
        mutating: false,
        params: &[needed(
            "name",
            Kind::Text,
            "a service, else a job or the number of a task; service/NAME, schedule/ID and task/N are always these",
        )],
        result: r#"{"name", "state", "desired", "summary", "story": [...], "next", "todo": [...], "waiting_for", ...}"#,
        doc: "Why something is up, down or waiting, what happened last and what comes next.",
        decode: |p| Ok(Request::DaemonWhy { name: p.text("name")? }),
    },
    Method {
        name: "service.list",
        aliases: &[],
        access: Access::Read,
        mutating: false,
        params: &[SERVICES, OWNER],
        result: r#"{"services": [{"name", "state", "desired", "pid", "uptime_secs", "restarts", "last_error", ...}]}"#,
        doc: "The services and their states.",
        decode: |p| Ok(Request::ServiceList { names: p.names("names")?, owner: p.owner("owner")? }),
    },
    Method {
        name: "service.get",
        aliases: &[],
        access: Access::Read,
        mutating: false,
        params: &[SERVICE],
        result: r#"{"name", "state", "desired", "pid", "uptime_secs", "restarts", "last_error", ...}"#,
        doc: "One service in detail.",
        decode: |p| Ok(Request::ServiceGet { name: p.text("name")? }),
    },
    Method {
        name: "service.start",
        aliases: &[],
        access: Access::Operate,
        mutating: true,
        params: START,
        result: CHANGED,
        doc: "Starts services, and what they require first.",
        decode: start,
    },
    Method {
        name: "service.remove",
        aliases: &[],
        access: Access::Operate,
        mutating: true,
        params: CHANGE,
        result: CHANGED,
        doc: "Stops transient services and forgets them, as service.stop does; refuses those of hob.json.",
        decode: |p| Ok(Request::ServiceRemove(change(p)?)),
    },
    Method {
        name: "service.stop",
        aliases: &[],
        access: Access::Operate,
        mutating: true,
        params: STOP,
        result: CHANGED,
        doc: "Stops services, and what requires them first.",
        decode: stop,
    },
    Method {
        name: "service.restart",
        aliases: &[],
        access: Access::Operate,
        mutating: true,
        params: CHANGE,
        result: CHANGED,
        doc: "Stops services and starts them again.",
        decode: |p| Ok(Request::ServiceRestart(change(p)?)),
    },
    Method {
        name: "service.signal",
        aliases: &[],
        access: Access::Operate,
        mutating: true,
        params: &[SERVICE, needed("signal", Kind::Signal, "its name, with or without SIG, or its number")],
        result: r#"{"name", "pid"}"#,
        doc: "Sends a signal to a service's main process.",
        decode: |p| Ok(Request::ServiceSignal { name: p.text("name")?, signal: p.signal("signal")? }),
    },
    Method {
        name: "service.reset",
        aliases: &[],
        access: Access::Operate,
        mutating: true,
        params: &[SOME_SERVICES],
        result: CHANGED,
        doc: "Forgets what a person asked for and counted failures: services are as `autostart` says.",
        decode: |p| Ok(Request::ServiceReset { names: p.names("names")? }),
    },
    Method {
        name: "service.reload",
        aliases: &[],
        access: Access::Operate,
        mutating: true,
        params: &[SOME_SERVICES],
        result: r#"{"services": [{"name", "run", "result": "signalled" or "reloaded"}]}"#,
        doc: "Makes running services read their own config again, by reload_signal or reload_command.",
        decode: |p| Ok(Request::ServiceReload { names: p.names("names")? }),
    },
    Method {
        name: "service.logs",
        aliases: &[],
        access: Access::Read,
        mutating: false,
        params: &[
            SOME_SERVICES,
            LINES,
            FOLLOW,
            param("from", Kind::Positions, "positions to go on from, by name, instead of `lines`"),
            SINCE,
            UNTIL,
            param("stream", Kind::Stream, "only this one of the streams, where the service's log tells them apart"),
            MARKS,
        ],
        result: STREAMS,
        doc: "What services wrote.",
        decode: service_logs,
    },
    Method {
        name: "service.rotate",
        aliases: &[],
        access: Access::Operate,
        mutating: true,
        params: &[SOME_SERVICES],
        result: r#"{"services": [{"name", "rotated", "message"}]}"#,
        doc: "Begins a new log file for services; the old ones move on by one.",
        decode: |p| Ok(Request::ServiceRotate { names: p.names("names")? }),
    },
    Method {
        name: "service.history",
        aliases: &[],
        access: Access::Read,
        mutating: false,
        params: &[SERVICE, param("limit", Kind::Count, "how many runs at most (default 10)")],
        result: r#"{"runs": [{"run", "cause", "started", "ended", "exit_code" or "signal", ...}]}"#,
        doc: "The last runs of a service, the latest last.",
        decode: |p| Ok(Request::ServiceHistory { name: p.text("name")?, limit: p.count("limit", 10)? }),
    },
    Method {
        name: "schedule.list",
        aliases: &[],
        access: Access::Read,
        mutating: false,
        params: &[JOBS],
        result: r#"{"jobs": [{"id", "state", "time", "tz", "action", "next", "last", "last_result", "runs", ...}]}"#,
        doc: "The jobs of the schedule, and when each runs.",
        decode: |p| Ok(Request::ScheduleList { ids: p.optional_names("ids")? }),
    },
    Method {
        name: "schedule.get",
        aliases: &[],
        access: Access::Read,
        mutating: false,
        params: &[JOB],
        result: r#"{"id", "state", "time", "next", "config", "next_times": [...], "history": [...], ...}"#,
        doc: "One job in detail.",
        decode: |p| Ok(Request::ScheduleGet { id: p.text("id")? }),
    },
    Method {
        name: "schedule.run",
        aliases: &[],
        access: Access::Operate,
        mutating: true,
        params: &[JOB],
        result: r#"{"id", "run", "queued"}"#,
        doc: "Runs a job once, now, whatever its time is; by its rule of overlap.",
        decode: |p| Ok(Request::ScheduleRun { id: p.text("id")? }),
    },
    Method {
        name: "schedule.pause",
        aliases: &[],
        access: Access::Operate,
        mutating: true,
        params: &[JOBS],
        result: PAUSED,
        doc: "Lets the times of jobs pass until they are resumed; runs that have begun go on.",
        decode: |p| Ok(Request::SchedulePause { ids: jobs(p)?, pause: true }),
    },
    Method {
        name: "schedule.resume",
        aliases: &[],
        access: Access::Operate,
        mutating: true,
        params: &[JOBS],
        result: PAUSED,
        doc: "Ends a pause. What passed in it is not made up for.",
        decode: |p| Ok(Request::SchedulePause { ids: jobs(p)?, pause: false }),
    },
    Method {
        name: "schedule.next",
        aliases: &[],
        access: Access::Read,
        mutating: false,
        params: &[JOB, param("count", Kind::Count, "how many times at most (default 5)")],
        result: r#"{"id", "paused", "next": ["2026-03-29T03:00:00+02:00", ...]}, with "message" where that is empty"#,
        doc: "The next times at which a job runs.",
        decode: |p| Ok(Request::ScheduleNext { id: p.text("id")?, count: p.count("count", 5)? }),
    },
    Method {
        name: "schedule.history",
        aliases: &[],
        access: Access::Read,
        mutating: false,
        params: &[JOB, param("limit", Kind::Count, "how many runs at most (default 10)")],
        result: r#"{"runs": [{"number", "due", "began", "ended", "result", "message", "cause", ...}], "running"}"#,
        doc: "The last runs of a job, the latest first.",
        decode: |p| Ok(Request::ScheduleHistory { id: p.text("id")?, limit: p.count("limit", 10)? }),
    },
    Method {
        name: "event.subscribe",
        aliases: &[],
        access: Access::Read,
        mutating: false,
        params: &[
            KINDS,
            EVENTS_OF,
            param("from", Kind::Count, "first sequence number wanted; only new ones when absent"),
        ],
        result: r#"{"subscription", "next", "reset"}, then `event` notifications {"subscription", "event"}"#,
        doc: "Sends events as they happen.",
        decode: |p| Ok(Request::EventSubscribe(events(p, 0)?)),
    },
    Method {
        name: "event.unsubscribe",
        aliases: &[],
        access: Access::Read,
        mutating: false,
        params: &[needed("subscription", Kind::Count, "the number that event.subscribe answered")],
        result: r#"{"unsubscribed": true}"#,
        doc: "Ends a subscription.",
        decode: |p| Ok(Request::EventUnsubscribe { subscription: p.id("subscription")? }),
    },
    Method {
        name: "event.history",
        aliases: &[],
        access: Access::Read,
        mutating: false,
        params: &[
            KINDS,
            EVENTS_OF,
            param("from", Kind::Count, "first sequence number wanted; the last events when absent"),
            param("limit", Kind::Count, "how many at most (default 100)"),
        ],
        result: r#"{"events", "next", "reset"}"#,
        doc: "Events of the past, as far as they are kept.",
        decode: |p| Ok(Request::EventHistory(events(p, p.count("limit", 100)?)?)),
    },
    Method {
        name: "stream.close",
        aliases: &[],
        access: Access::Read,
        mutating: false,
        params: &[needed("id", Kind::Count, "the stream")],
        result: r#"{"closed": true}"#,
        doc: "Ends a stream that this connection opened.",
        decode: |p| Ok(Request::StreamClose { id: p.id("id")? }),
    },
    Method {
        name: "rpc.discover",
        aliases: &[],
        access: Access::Read,
        mutating: false,
        params: &[],
        result: "an OpenRPC document",
        doc: "This table, as an OpenRPC document.",
        decode: |_| Ok(Request::RpcDiscover),
    },
];

fn change(p: &Params<'_>) -> Result<Change, RpcError> {
    Ok(Change { names: p.names("names")?, all: false, wait: p.flag("wait", true)?, timeout: p.duration("timeout")? })
}

fn start(p: &Params<'_>) -> Result<Request, RpcError> {
    let change = change(p)?;
    let Some(config) = p.object("config")? else { return Ok(Request::ServiceStart(change)) };
    match <[String; 1]>::try_from(change.names) {
        Ok([name]) => Ok(Request::ServiceNew(NewService { name, config, wait: change.wait, timeout: change.timeout })),
        Err(_) => Err(RpcError::new(Code::InvalidParams, "a config makes one service, so it takes one name")),
    }
}

/// Some by name or all of them, but never all because a name was forgotten.
fn stop(p: &Params<'_>) -> Result<Request, RpcError> {
    let change = Change { all: p.flag("all", false)?, ..change(p)? };
    match (change.all, change.names.is_empty()) {
        (true, true) | (false, false) => Ok(Request::ServiceStop(change)),
        (true, false) => Err(RpcError::new(Code::InvalidParams, "service.stop takes names or all, not both")),
        (false, true) => {
            Err(RpcError::new(Code::InvalidParams, "service.stop needs names")
                .hint("or \"all\": true for every service"))
        }
    }
}

fn inhibit(p: &Params<'_>) -> Result<Request, RpcError> {
    let what = p.optional_text("what")?.unwrap_or_else(|| "shutdown".to_owned());
    Ok(Request::DaemonInhibit(Inhibit { what, who: p.optional_text("who")?.unwrap_or_default(), why: p.text("why")? }))
}

fn service_logs(p: &Params<'_>) -> Result<Request, RpcError> {
    let from = p.positions("from")?;
    let query = log_query(p, p.names("names")?, from)?;
    Ok(Request::ServiceLogs(LogQuery { stream: p.stream("stream")?, marks: p.flag("marks", false)?, ..query }))
}

fn daemon_logs(p: &Params<'_>) -> Result<Request, RpcError> {
    let from = p.position("from")?.map(|at| (String::new(), at)).into_iter().collect();
    Ok(Request::DaemonLogs(log_query(p, Vec::new(), from)?))
}

fn log_query(p: &Params<'_>, names: Vec<String>, from: Vec<(String, u64)>) -> Result<LogQuery, RpcError> {
    let (since, until, follow) = (p.time("since")?, p.time("until")?, p.flag("follow", false)?);
    if follow && until.is_some() {
        return Err(RpcError::new(Code::InvalidParams, "until has an end and follow has none: give one of them"));
    }
    let lines = p.count("lines", if since.is_some() { usize::MAX } else { 50 })?;
    Ok(LogQuery { names, lines, follow, from, since, until, stream: None, marks: false })
}

fn events(p: &Params<'_>, limit: usize) -> Result<EventQuery, RpcError> {
    Ok(EventQuery { kinds: p.names("kinds")?, names: p.names("names")?, from: p.position("from")?, limit })
}

/// The jobs that a change is about; none: all.
fn jobs(p: &Params<'_>) -> Result<Vec<String>, RpcError> {
    if p.is_empty_list("ids") { Err(super::task::empty_list(p, "ids")) } else { p.names("ids") }
}
