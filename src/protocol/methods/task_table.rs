//! The rows of the table of methods that are about tasks and their groups.

use super::table::needed;
use super::task::{self, GroupCall, TaskCall};
use super::{Kind, Method, Param, Params, Request};
use crate::base::access::Access;
use crate::protocol::rpc::RpcError;
use core::time::Duration;

const fn param(name: &'static str, kind: Kind, doc: &'static str) -> Param {
    Param { name, alias: None, kind, required: false, doc }
}

const ID: Param = Param { name: "id", alias: Some("taskId"), kind: Kind::Ids, required: true, doc: "the task" };
const IDS: Param = Param {
    name: "ids",
    alias: Some("taskId"),
    kind: Kind::Ids,
    required: false,
    doc: "the tasks: a number, a range such as \"12-40\", or a list of these",
};
const GROUP: Param = param("group", Kind::Text, "tasks of this group");
const STATE: Param = param("state", Kind::Names, "tasks in this state, or in one of these");
const LABEL: Param = param("label", Kind::Text, "tasks with this label, as NAME or NAME=VALUE");
const OWNER: Param =
    param("owner", Kind::Owner, "tasks of this one: mine, the number of a user, service/NAME, task/N or schedule/ID");
const ALL: Param = param("all", Kind::Flag, "every task, instead of a selection (default false)");
const SOME: &[Param] = &[IDS, GROUP, STATE, LABEL, OWNER, ALL];

const COMMAND: Param = param("command", Kind::Command, "a list of words, or one text for the shell");
const PROMPT: Param = param("prompt", Kind::Text, "a text for an agent, instead of a command");
const CWD: Param = param("cwd", Kind::Text, "the folder it runs in (default: that of hob's config)");
const IN_GROUP: Param = param("group", Kind::Text, "whose slots it takes (default \"default\", of an agent its own)");
const PRIORITY: Param = param("priority", Kind::Integer, "higher ones start first (default 0)");
const AFTER: Param =
    param("after", Kind::After, "tasks that must have succeeded first; {\"id\", \"any\": true}: ended");
const DELAY: Param = param("delay", Kind::Duration, "start this much later at the earliest");
const AT: Param = param("at", Kind::Time, "start then at the earliest");
const TIMEOUT: Param = param("timeout", Kind::Duration, "how long it may run (default 2h, 0: for ever)");
const RETRIES: Param = param("retries", Kind::Integer, "how often it is tried again after a failure (default 0)");
const WEIGHT: Param =
    param("weight", Kind::Integer, "what it counts towards the weight_limit of its group (default 1)");
const LABELS: Param = param("labels", Kind::Pairs, "names and values to find it by, 16384 bytes in all");

const SUBMIT: &[Param] = &[
    param("tasks", Kind::List, "several tasks, all or none of them, instead of one by the other params"),
    COMMAND,
    PROMPT,
    param("agent", Kind::Text, "the agent that gets the prompt (default: the only one, or \"default\")"),
    CWD,
    param("env", Kind::Pairs, "variables beside those of hob"),
    param("umask", Kind::Umask, "as octal digits in quotes"),
    IN_GROUP,
    PRIORITY,
    AFTER,
    DELAY,
    AT,
    TIMEOUT,
    RETRIES,
    param("backoff", Kind::Duration, "delay before the first retry, doubled with each further one (default 1s)"),
    param("stdin", Kind::Data, "its standard input: a text, or {\"base64\"}"),
    LABELS,
    param(
        "key",
        Kind::Text,
        "the same again answers the id of the first, while that exists and for an hour at least; in a list all tasks \
         have the same one, or none",
    ),
    param("hold", Kind::Flag, "do not start it before it is released (default false)"),
    WEIGHT,
    param("max_output", Kind::Size, "how much of its output is kept, head and tail, 4kB at least (default 64MB)"),
    param("runner", Kind::Text, "the runner that it is handed to"),
    param("repeatable", Kind::Flag, "it does no harm if it runs twice, so it may after a crash (default false)"),
    param("hob_fd", Kind::Flag, "give each run a channel to hob, told in HOB_FD (default false)"),
];

const EDIT: &[Param] =
    &[ID, COMMAND, PROMPT, CWD, IN_GROUP, PRIORITY, AFTER, DELAY, AT, TIMEOUT, RETRIES, WEIGHT, LABELS];

const CHANGED: &str =
    r#"{"tasks": [{"id", "state", "changed", "message"}], "changed", "left_out"}: 1000 rows and 4 MB at most"#;
const TASK: &str = r#"{"id", "state", "command", "group", "exit_code" or "signal", "started", "ended", ...}"#;

const fn method(
    name: &'static str,
    (access, mutating): (Access, bool),
    params: &'static [Param],
    result: &'static str,
    doc: &'static str,
    decode: fn(&Params<'_>) -> Result<Request, RpcError>,
) -> Method {
    Method { name, aliases: &[], access, mutating, params, result, doc, decode }
}

const READ: (Access, bool) = (Access::Read, false);
const CHANGE: (Access, bool) = (Access::Operate, true);

/// All of them.
pub(super) const TASKS: &[Method] = &[
    method(
        "task.submit",
        CHANGE,
        SUBMIT,
        r#"{"id"}, or {"ids"}; where key had tasks already with "known" and its "state", or how many are "removed""#,
        "Queues a task, or a list of tasks.",
        |p| call(task::submit(p)?),
    ),
    method("task.get", READ, &[ID], TASK, "One task in detail.", |p| call(TaskCall::Get { id: task::id(p)? })),
    method(
        "task.list",
        READ,
        &[
            param("limit", Kind::Count, "how many at most (default 100)"),
            param("after", Kind::Count, "those after this id (default 0)"),
            IDS,
            GROUP,
            STATE,
            LABEL,
            OWNER,
            param("last", Kind::Flag, "the last ones instead of the first (default false)"),
        ],
        r#"{"tasks": [{"id", "state", "command", ...}], "next"}"#,
        "Tasks in the order of their ids, a page of 4 MB at most at a time; `next` is the `after` of the next, or \
         null. A command is cut after 1000 bytes (`command_cut`); task.get has all of it.",
        |p| call(TaskCall::List(task::query(p)?)),
    ),
    method(
        "task.stats",
        READ,
        &[],
        r#"{"total", "queued", "running", ...}"#,
        "How many tasks are in each state.",
        |_| call(TaskCall::Stats),
    ),
    method(
        "task.cancel",
        CHANGE,
        &[IDS, GROUP, STATE, LABEL, OWNER, ALL, param("force", Kind::Flag, "kill at once (default false)")],
        CHANGED,
        "Cancels tasks: those that run are stopped with all their processes.",
        |p| call(TaskCall::Cancel { which: task::some(p)?, force: p.flag("force", false)? }),
    ),
    method("task.retry", CHANGE, SOME, CHANGED, "Queues tasks that are over once more.", |p| {
        call(TaskCall::Retry { which: task::some(p)? })
    }),
    method("task.hold", CHANGE, SOME, CHANGED, "Keeps queued tasks from being started.", |p| {
        call(TaskCall::Hold { which: task::some(p)? })
    }),
    method("task.release", CHANGE, SOME, CHANGED, "Lets held tasks be started.", |p| {
        call(TaskCall::Release { which: task::some(p)? })
    }),
    method("task.pause", CHANGE, SOME, CHANGED, "Stops the processes of running tasks by SIGSTOP.", |p| {
        call(TaskCall::Pause { which: task::some(p)? })
    }),
    method("task.resume", CHANGE, SOME, CHANGED, "Lets paused tasks go on.", |p| {
        call(TaskCall::Resume { which: task::some(p)? })
    }),
    method("task.edit", CHANGE, EDIT, TASK, "Changes a task that has not begun.", |p| call(task::edit(p)?)),
    method(
        "task.prioritize",
        CHANGE,
        &[needed("priority", Kind::Integer, "higher ones start first"), IDS, GROUP, STATE, LABEL, OWNER, ALL],
        CHANGED,
        "Changes the priority of tasks that have not begun.",
        |p| {
            let priority = p.integer("priority")?.unwrap_or_default();
            call(TaskCall::Prioritize { which: task::some(p)?, priority })
        },
    ),
    method(
        "task.wait",
        READ,
        &[IDS, GROUP, STATE, LABEL, OWNER, param("timeout", Kind::Duration, "how long to wait at most")],
        r#"{"tasks": [{"id", "state", "exit_code", ...}], "done", "counts", "left_out"}: 1000 rows and 4 MB at most"#,
        "Answers when all these tasks are over, or after the time limit.",
        |p| call(TaskCall::Wait { which: task::not_none(p)?, timeout: p.duration("timeout")? }),
    ),
    method(
        "task.output",
        READ,
        &[
            ID,
            param("lines", Kind::Count, "how many of the last lines; all when absent"),
            param("follow", Kind::Flag, "go on until the attempt that runs has ended (default false)"),
            param("from", Kind::Count, "the position to go on from, instead of `lines`"),
        ],
        r#"{"streams": [{"id", "name", "position"}]}, then the bytes as stream `id`"#,
        "What a task wrote.",
        |p| {
            let lines = p.count("lines", usize::MAX)?;
            let (follow, from) = (p.flag("follow", false)?, p.position("from")?);
            call(TaskCall::Output { id: task::id(p)?, lines, follow, from })
        },
    ),
    method(
        "task.clean",
        CHANGE,
        &[IDS, GROUP, STATE, LABEL, OWNER, param("age", Kind::Duration, "only those over for this long (default 0)")],
        r#"{"removed"}"#,
        "Removes tasks that are over, with their output.",
        |p| {
            let age = p.duration("age")?.unwrap_or(Duration::ZERO);
            call(TaskCall::Clean { which: task::not_none(p)?, age })
        },
    ),
    method("task.remove", CHANGE, SOME, CHANGED, "Removes tasks that do not run, with their output.", |p| {
        call(TaskCall::Remove { which: task::some(p)? })
    }),
    method(
        "group.list",
        READ,
        &[],
        r#"{"groups": [{"name", "parallel", "weight_limit", "paused", "running", "queued", "limits"}]}"#,
        "The groups of tasks, with what they may run at once, and what the config says of their limits.",
        |_| group(GroupCall::List),
    ),
    method(
        "group.set",
        CHANGE,
        &[
            NAME,
            param("parallel", Kind::Integer, "how many of its tasks run at once"),
            param("weight_limit", Kind::Integer, "what the weights of these may add up to (0: no limit)"),
            param("remove", Kind::Flag, "back to what the config says, or gone (default false)"),
        ],
        r#"{"name", "parallel", "weight_limit", "paused"}"#,
        "Makes a group, or changes how many of its tasks run at once; kept over restarts.",
        |p| group(task::group_set(p)?),
    ),
    method("group.pause", CHANGE, &[NAME, RUNNING], r#"{"name", "paused"}"#, "Starts none of its tasks.", |p| {
        group(GroupCall::Pause { name: p.text("name")?, running: p.flag("running", false)? })
    }),
    method("group.resume", CHANGE, &[NAME, RUNNING], r#"{"name", "paused"}"#, "Starts its tasks again.", |p| {
        group(GroupCall::Resume { name: p.text("name")?, running: p.flag("running", false)? })
    }),
];

const NAME: Param = Param { name: "name", alias: Some("group"), kind: Kind::Text, required: true, doc: "the group" };
const RUNNING: Param = param("running", Kind::Flag, "and those of its tasks that run (default false)");

fn call(call: TaskCall) -> Result<Request, RpcError> {
    Ok(Request::Task(Box::new(call)))
}

fn group(call: GroupCall) -> Result<Request, RpcError> {
    Ok(Request::Group(call))
}
