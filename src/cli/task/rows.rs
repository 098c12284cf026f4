//! The commands about tasks and their groups, as rows of the table of commands.

use super::{add, change, group, look};
use crate::cli::commands::command;
use crate::cli::flags::{Command, Flag, Operand};

const ANY: usize = usize::MAX;

const fn value(long: &'static str, short: Option<char>, value: &'static str, doc: &'static str) -> Flag {
    Flag { long, short, value: Some(value), doc }
}

const fn switch(long: &'static str, short: Option<char>, doc: &'static str) -> Flag {
    Flag { long, short, value: None, doc }
}

const ADD_FLAGS: &[Flag] = &[
    value("group", Some('g'), "GROUP", "Whose slots it takes [default; of an agent its own]"),
    value("priority", Some('p'), "N", "Higher ones start first [0]"),
    value("after", Some('a'), "IDS", "Start only when these have succeeded; may be given several times"),
    value("after-any", None, "IDS", "Start when these are over, however they ended; likewise"),
    value("delay", None, "TIME", "Start this much later at the earliest (\"10m\")"),
    value("at", None, "TIME", "Start then at the earliest: \"18:30\", a date and time"),
    value("timeout", None, "TIME", "How long it may run [2h], 0 for ever"),
    value("retries", Some('r'), "N", "Try so often again after a failure [0]"),
    value("backoff", None, "TIME", "Before the first retry, doubled with each further one [1s]"),
    value("label", Some('l'), "NAME=VALUE", "A label to find it by; may be given several times"),
    value(
        "key",
        None,
        "TEXT",
        "Add the same with this key only once, while that task, or one of the --array, exists and for an hour at least",
    ),
    value("env", Some('e'), "NAME[=VALUE]", "A variable, with the value it has here unless one is given"),
    switch("env-all", None, "All variables as they are here"),
    value("cwd", Some('C'), "DIR", "The folder it runs in [the present one]"),
    value("stdin", None, "FILE", "Its standard input; - for that of this command"),
    value("weight", None, "N", "What it counts towards its group's weight_limit [1]"),
    value("max-output", None, "SIZE", "How much of its output is kept, head and tail [64MB]"),
    value("runner", None, "RUNNER", "Hand it to this runner of the config"),
    value("agent", None, "AGENT", "Give the operand to this agent as its prompt"),
    switch("prompt", None, "Give the operand to the default agent as its prompt"),
    switch("hold", None, "Do not start it before it is released"),
    switch("repeatable", None, "It does no harm if it runs twice, so it may after a crash"),
    switch("hob-fd", None, "Give it a channel to hob of its own, told in HOB_FD"),
    value(
        "array",
        None,
        "A-B",
        "A task for each number of the range, in place of {} in it: 100000, and 16 MB of them, at most",
    ),
    switch("print-id", None, "Print nothing but its id"),
    switch("follow", Some('f'), "Show its output until it is over, and end with its exit code"),
    switch("wait", Some('w'), "Wait until it is over, and end with its exit code"),
];

const GROUP: Flag = value("group", Some('g'), "GROUP", "Tasks of this group");
const STATE: Flag = value("state", Some('s'), "STATES", "Tasks in one of these states: queued,running,failed ...");
const LABEL: Flag = value("label", Some('l'), "NAME[=VALUE]", "Tasks with this label");
const OWNER: Flag = value("owner", None, "NAME", "Tasks of this user, 'service/NAME', 'task/N' or 'schedule/ID'");
const MINE: Flag = switch("mine", None, "Tasks that you, or the job this runs in, have added");
const ALL: Flag = switch("all", None, "Every task");
const SOME: &[Flag] = &[GROUP, STATE, LABEL, OWNER, MINE, ALL];

const LIST: &[Flag] = &[
    GROUP,
    STATE,
    LABEL,
    OWNER,
    MINE,
    switch("all", Some('a'), "Every page, instead of the last tasks"),
    value("limit", Some('n'), "N", "So many at most [100]"),
];
const OUTPUT: &[Flag] = &[
    switch("follow", Some('f'), "Go on until the task is over, and end with its exit code"),
    value("lines", Some('n'), "N", "The last N lines [all]"),
];
const EDIT: &[Flag] = &[
    value("group", Some('g'), "GROUP", "Move it to this group"),
    value("priority", Some('p'), "N", "Higher ones start first"),
    value("after", Some('a'), "IDS", "Start only when these have succeeded; may be given several times"),
    value("after-any", None, "IDS", "Start when these are over, however they ended; likewise"),
    switch("no-after", None, "Let it follow no other any more"),
    value("delay", None, "TIME", "Start this much later at the earliest"),
    value("at", None, "TIME", "Start then at the earliest"),
    value("timeout", None, "TIME", "How long it may run"),
    value("retries", Some('r'), "N", "Try so often again after a failure"),
    value("weight", None, "N", "What it counts towards its group's weight_limit"),
    value("cwd", Some('C'), "DIR", "The folder it runs in"),
    value("label", Some('l'), "NAME=VALUE", "Its labels, instead of those it has; may be given several times"),
    switch("no-labels", None, "Take its labels away"),
    value("prompt", None, "TEXT", "Another prompt"),
];

const fn some(name: &'static str, summary: &'static str, run: Run) -> Command {
    Command {
        operands: "[IDS...]",
        operand: Operand::Task,
        count: (0, ANY),
        flags: SOME,
        details: SOME_DETAILS,
        ..command(name, summary, run)
    }
}

type Run = fn(&crate::cli::Args) -> Result<u8, crate::cli::Failure>;

const ADD_DETAILS: &str = "\
Queues a command: words after --, or one operand for the shell. It gets the present folder, umask and PATH.
With --agent the operand is a prompt, and - is that of standard input.
The task is on disk when this command returns, and runs once, whatever dies.
It runs as the user who adds it, or as hob's own where that one is an admin. As another user
it gets of the environment of hob only PATH, LANG, LC_*, TZ and TERM.
Examples:
  hob add -- make -j4
  hob add --after 12 --label kind=test 'cargo test'
  hob add --agent claude 'fix the tests'
  hob add --array 1-100 -- convert {}.png {}.jpg";

const SOME_DETAILS: &str = "Wants ids, such as 3 7-9, or a selection by flags, of which all have to fit.";

pub(in crate::cli) const ADD: Command = Command { details: ADD_DETAILS, ..adds("add", "Queue a task") };

/// In the order of help.
pub(in crate::cli) const ROWS: &[Command] = &[
    Command { details: ADD_DETAILS, ..adds("task add", "Queue a task, as 'hob add' does") },
    Command {
        operands: "[IDS...]",
        operand: Operand::Task,
        count: (0, ANY),
        flags: LIST,
        details: "IDS are numbers and ranges: 3 7-9. Without any selection the last 100 tasks are shown.",
        ..command("task list", "List tasks", look::list)
    },
    Command {
        operands: "ID",
        operand: Operand::Task,
        count: (1, 1),
        ..command("task show", "Show one task in detail", look::show)
    },
    Command {
        flags: &[GROUP, STATE, LABEL, OWNER, MINE, ALL, switch("force", None, "Kill at once")],
        ..some("task cancel", "Cancel tasks; those that run are stopped with all their processes", change::cancel)
    },
    some("task retry", "Queue tasks that are over once more", change::retry),
    some("task hold", "Keep queued tasks from being started", change::hold),
    some("task release", "Let held tasks be started", change::release),
    some("task pause", "Stop the processes of running tasks", change::pause),
    some("task resume", "Let paused tasks go on", change::resume),
    Command {
        operands: "--priority N [IDS...]",
        flags: &[GROUP, STATE, LABEL, OWNER, MINE, ALL, value("priority", Some('p'), "N", "Higher ones start first")],
        ..some("task prioritize", "Change the priority of tasks that have not begun", change::prioritize)
    },
    Command {
        operands: "ID [-- COMMAND...]",
        operand: Operand::Task,
        count: (1, 1),
        flags: EDIT,
        takes_command: true,
        details: "Words after -- are its new command.",
        ..command("task edit", "Change a task that has not begun", change::edit)
    },
    Command {
        operands: "[IDS...]",
        operand: Operand::Task,
        count: (0, ANY),
        flags: &[GROUP, STATE, LABEL, OWNER, MINE, value("timeout", None, "TIME", "Wait this long at most")],
        details: "Without a selection: all tasks. Ends with 0 when all have succeeded, with 124 when they are not all\n\
                  over after --timeout, with 1 otherwise.",
        ..command("task wait", "Wait until tasks are over", look::wait)
    },
    Command {
        operands: "ID",
        operand: Operand::Task,
        count: (1, 1),
        flags: OUTPUT,
        ..command("task output", "Show what a task wrote", look::output)
    },
    Command {
        operands: "[IDS...]",
        operand: Operand::Task,
        count: (0, ANY),
        flags: &[
            GROUP,
            STATE,
            LABEL,
            OWNER,
            MINE,
            value("age", None, "TIME", "Only those that are over for this long"),
        ],
        details: "Without a selection: all that are over. 'hob task remove' takes also those that have not begun.",
        ..command("task clean", "Remove tasks that are over, with their output", change::clean)
    },
    some("task remove", "Remove tasks that do not run, with their output", change::remove),
    command("task stats", "Show how many tasks are in each state", look::stats),
    command("group list", "List the groups of tasks and their slots", group::list),
    Command {
        operands: "NAME",
        operand: Operand::Group,
        count: (1, 1),
        flags: &[
            value("parallel", Some('j'), "N", "How many of its tasks run at once"),
            value("weight-limit", None, "N", "What their weights may add up to, 0 for any"),
            switch("remove", None, "Back to what the config says, or gone"),
        ],
        ..command("group set", "Make a group, or change its slots", group::set)
    },
    Command {
        operands: "NAME",
        operand: Operand::Group,
        count: (1, 1),
        flags: &[switch("running", None, "And its tasks that run")],
        ..command("group pause", "Start no task of a group", group::pause)
    },
    Command {
        operands: "NAME",
        operand: Operand::Group,
        count: (1, 1),
        flags: &[switch("running", None, "And its tasks that are paused")],
        ..command("group resume", "Start the tasks of a group again", group::resume)
    },
];

const fn adds(name: &'static str, summary: &'static str) -> Command {
    Command {
        operands: "[TEXT] [-- COMMAND...]",
        operand: Operand::Text,
        count: (0, 1),
        takes_command: true,
        flags: ADD_FLAGS,
        ..command(name, summary, add::add)
    }
}
