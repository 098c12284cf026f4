//! The table of commands: what `hob --help` lists, in this order.

use super::flags::{Command, Flag, Operand};
use super::{
    complete, config, demo, doctor, events, inhibit, life, logs, man, plan, reload, renew, schedule, service, status,
    stop, story, task, transient,
};

const ANY: usize = usize::MAX;

const WAIT: Flag =
    Flag { long: "no-wait", short: None, value: None, doc: "Return as soon as hob has accepted the request" };
const TIMEOUT: Flag = Flag {
    long: "timeout",
    short: None,
    value: Some("TIME"),
    doc: "Wait this long at most (\"30s\"); the change goes on",
};
const CHANGE: &[Flag] = &[WAIT, TIMEOUT];
const ALL: Flag = Flag { long: "all", short: None, value: None, doc: "All services; hob goes on" };
const FORCE: Flag =
    Flag { long: "force", short: None, value: None, doc: "Without the socket: TERM, then KILL hob and all its jobs" };
const GRACE: Flag = Flag {
    long: "grace",
    short: None,
    value: Some("TIME"),
    doc: "When hob ends: kill what has not ended after this time [daemon.shutdown_timeout]",
};
const FOREGROUND: Flag =
    Flag { long: "foreground", short: None, value: None, doc: "Stay in the foreground, as 'hob run'" };
const LINES: Flag = Flag { long: "lines", short: Some('n'), value: Some("N"), doc: "Begin with the last N lines [50]" };
const FOLLOW: Flag = Flag { long: "follow", short: Some('f'), value: None, doc: "Go on as it grows" };
const LOGS: &[Flag] = &[
    Flag { doc: "All services", ..ALL },
    LINES,
    FOLLOW,
    Flag {
        long: "timestamps",
        short: Some('t'),
        value: None,
        doc: "Show when lines were written, where that is known",
    },
    Flag {
        long: "since",
        short: None,
        value: Some("TIME"),
        doc: "From then on: \"10m\" ago, \"18:09\", a date and time",
    },
    Flag { long: "until", short: None, value: Some("TIME"), doc: "Until then" },
    Flag { long: "grep", short: Some('g'), value: Some("REGEX"), doc: "Only lines that match" },
    Flag { long: "ignore-case", short: Some('i'), value: None, doc: "Letters match in both cases" },
    Flag { long: "invert", short: Some('v'), value: None, doc: "Only lines that do not match" },
    Flag {
        long: "stream",
        short: None,
        value: Some("out|err"),
        doc: "Only this stream, where log.streams is \"split\"",
    },
];
const DEFAULTS: &[Flag] =
    &[Flag { long: "defaults", short: None, value: None, doc: "Show every key with its default" }];
const RUN: &[Flag] = &[
    Flag { long: "init", short: None, value: None, doc: "Take the duties of PID 1 (implied when hob is it)" },
    Flag { long: "managed", short: None, value: None, doc: "End with the program that started it; write no pid file" },
    Flag { long: "name", short: None, value: Some("NAME"), doc: "Name of the service after -- [its program's name]" },
];
const INHIBIT: &[Flag] = &[
    Flag { long: "why", short: None, value: Some("TEXT"), doc: "What must not be cut off, for whoever waits" },
    Flag { long: "who", short: None, value: Some("NAME"), doc: "Who asks [the name of the command]" },
];
const DEMO: &[Flag] = &[
    Flag { long: "for", short: None, value: Some("TIME"), doc: "End by itself after this long (\"10s\")" },
    Flag { long: "plain", short: None, value: None, doc: "No colours (NO_COLOR=1 does that for every command)" },
];
const EVENTS: &[Flag] = &[
    FOLLOW,
    LINES,
    Flag { long: "kind", short: Some('k'), value: Some("GLOB"), doc: "Only these kinds, such as 'service.*'" },
    Flag { long: "from", short: None, value: Some("SEQ"), doc: "Begin with this sequence number" },
];
const RELOAD: &[Flag] =
    &[Flag { long: "dry-run", short: None, value: None, doc: "Only tell what would be done, as 'hob plan'" }];
const SERVICE_RUN: &[Flag] = &[
    Flag { long: "set", short: None, value: Some("KEY=VALUE"), doc: "Set a key of the service; may be repeated" },
    WAIT,
    TIMEOUT,
];
const UPGRADE: &[Flag] =
    &[Flag { long: "binary", short: None, value: Some("PATH"), doc: "The new program [what hob was started from]" }];
const OWNED: &[Flag] = &[
    Flag { long: "mine", short: None, value: None, doc: "Only what you, or the job this runs in, have started" },
    Flag { long: "owner", short: None, value: Some("NAME"), doc: "Only what this user or 'service/NAME' has started" },
];
const HISTORY: &[Flag] = &[Flag { long: "limit", short: None, value: Some("N"), doc: "Show the last N runs [10]" }];

const TZ: Flag = Flag { long: "tz", short: None, value: Some("ZONE"), doc: "Time zone, as in Europe/Berlin [local]" };
const ALL_JOBS: Flag = Flag { long: "all", short: None, value: None, doc: "All jobs" };
const NEXT: &[Flag] = &[
    Flag { long: "count", short: Some('n'), value: Some("N"), doc: "Show the next N times [5]" },
    TZ,
    Flag { long: "from", short: None, value: Some("TIME"), doc: "Begin there, such as 2026-03-28T00:00:00 [now]" },
];

pub(super) const fn command(
    name: &'static str,
    summary: &'static str,
    run: fn(&super::Args) -> Result<u8, super::Failure>,
) -> Command {
    Command {
        name,
        operands: "",
        operand: Operand::Service,
        count: (0, 0),
        takes_command: false,
        summary,
        details: "",
        flags: &[],
        run,
        hidden: false,
    }
}

/// Every command of hob.
pub const COMMANDS: &[Command] =
    &join::<{ OF_SERVICES.len() + task::rows::ROWS.len() }>(&[OF_SERVICES, task::rows::ROWS]);

/// One table of several.
const fn join<const N: usize>(parts: &[&[Command]]) -> [Command; N] {
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

const OF_SERVICES: &[Command] = &[
    Command {
        flags: DEMO,
        details: "Starts a hob of its own in a temporary folder with a few services, tells what happens and why,\n\
                  kills its own daemon once, and cleans up at Ctrl-C. Without a terminal it ends by itself after 15 s.",
        ..command("demo", "Show what hob does, live, with services made for it", demo::demo)
    },
    Command {
        flags: RUN,
        takes_command: true,
        operands: "[-- COMMAND [ARG...]]",
        details: "With a command it runs that as its only service, passes its output through and ends with its\n\
                  exit code (128 + n for a signal, 127 where there is no such program, 126 where it cannot be\n\
                  executed): the entry point of a container. It reads nothing: its standard input is /dev/null, as\n\
                  that of every service. Its files are in a private folder then; with --home they are there, and\n\
                  services of a hob.json there run beside it.\n\
                  With --managed hob is a part of the program that starts it: it ends when that does, known by the\n\
                  end of standard input (a pipe or socket) or of its process, and the next start runs what ran then.",
        ..command("run", "Run hob in the foreground", life::run)
    },
    Command {
        operands: "[NAME...]",
        count: (0, ANY),
        flags: &[Flag { doc: "All services, also those with autostart off", ..ALL }, FOREGROUND, WAIT, TIMEOUT],
        details: "Without a name: start hob in the background and return once it answers. The exit code is 1 when it\n\
                  runs and its config could not be read, so that it runs no service.",
        ..command("start", "Start hob, or services", life::start)
    },
    Command {
        operands: "[NAME...]",
        count: (0, ANY),
        flags: &[ALL, FORCE, WAIT, TIMEOUT, GRACE],
        details: "Without a name: stop all services and hob. A service that a person stopped stays stopped, also over\n\
                  restarts of hob.",
        ..command("stop", "Stop hob, or services", stop::stop)
    },
    Command {
        operands: "[NAME...]",
        count: (0, ANY),
        flags: &[Flag { doc: "All services that run or should; hob goes on", ..ALL }, WAIT, TIMEOUT, GRACE],
        details: "Without a name: stop hob and start it again. A reload of its config needs neither: 'hob reload'.\n\
                  With --all what a person stopped, what has finished and what autostart leaves alone stays so.",
        ..command("restart", "Restart hob, or services", life::restart)
    },
    Command {
        operands: "[NAME...]",
        count: (0, ANY),
        flags: OWNED,
        details: "With one name: everything about that service. The exit code is 0 when nothing that is shown has\n\
                  failed, 1 when a service has, and 3 when hob does not run.",
        ..command("status", "Show services and how they are", status::status)
    },
    Command {
        operands: "[NAME...]",
        count: (0, ANY),
        flags: OWNED,
        ..command("services", "List services, as 'service list' does", status::list)
    },
    Command {
        operands: "NAME|ID",
        operand: Operand::Anything,
        count: (1, 1),
        details: "Tells why a service is up, down or waiting, a task queued, held or over, what happened last, what\n\
                  comes next and what you can do. A task is its number. Where a service has that name too, a task\n\
                  is task/N and a job is schedule/ID; service/NAME is always a service. Without a running hob its\n\
                  files tell what happened.",
        ..command("why", "Tell the story of a service, a task or a job", story::why)
    },
    Command {
        operands: "[NAME...]",
        count: (0, ANY),
        flags: LOGS,
        details: "Without a name: the log of hob itself. Following goes on over rotations and restarts of hob, and\n\
                  with --all shows the services that come later too. It ends, with 3, when hob has stopped.\n\
                  With --since all from then on is shown, with --grep all that matches; with -n N the last N of it.\n\
                  Lines of several services are in the order of their times. Without a running hob, and of services\n\
                  that it has no more, the files are read.",
        ..command("logs", "Show logs of services", logs::logs)
    },
    Command {
        operands: "NAME...",
        count: (1, ANY),
        details: "The old ones move on by one, and the oldest goes when there are more than log.max_files.",
        ..command("logs rotate", "Begin new log files for services", service::rotate)
    },
    task::rows::ADD,
    Command {
        operands: "[NAME...]",
        count: (0, ANY),
        flags: EVENTS,
        details: "Times are local; --json has them in UTC. Following goes on over restarts of hob, without a gap,\n\
                  and ends, with 3, when hob has stopped. Without a running hob its file is read.",
        ..command("events", "Show what happened, and with -f what happens", events::events)
    },
    Command {
        flags: RELOAD,
        details: "All of it takes effect, or nothing: where it has mistakes each is told, and the exit code is 11.\n\
                  Services that have not changed are not touched.",
        ..command("reload", "Read the config again and apply what changed", reload::reload)
    },
    Command {
        details: "Reads the config as it is now and lists every start, stop, restart and live change, with its\n\
                  reason, in the order in which a reload would do it. Warns of what this machine lacks. Without a\n\
                  running hob the config that was in effect last is compared, as if its services were up.",
        ..command("plan", "Tell what a reload would do, and change nothing", plan::plan)
    },
    Command {
        flags: UPGRADE,
        details: "Asks the new program first whether it can take over; then daemon and keeper become it. Services,\n\
                  sockets and the pid of hob stay. What runs goes on if the new program does not come up. The default\n\
                  is the file that hob was started from, if it was replaced.",
        ..command("upgrade", "Let hob run on as another program", renew::upgrade)
    },
    Command {
        details: "Looks at folders, socket, lock, config, journal, limits, kernel, clock and services, with or\n\
                  without a running hob, and changes nothing. The exit code is 0 without errors and 1 with any;\n\
                  warnings and notes do not count. --quiet shows errors and warnings alone.",
        ..command("doctor", "Look for what is wrong, and say what to do", doctor::doctor)
    },
    Command {
        flags: INHIBIT,
        takes_command: true,
        operands: "[--why TEXT -- COMMAND]",
        details: "While COMMAND runs, a shutdown of hob waits for it, up to daemon.shutdown_grace; a second\n\
                  request to stop or --force does not wait. Ends with the exit code of COMMAND. Without one: the\n\
                  list of all.",
        ..command("inhibit", "Delay a shutdown of hob while a command runs", inhibit::inhibit)
    },
    Command {
        details: "The exit code is 0 when it does, and 3 when nobody answers.",
        ..command("ping", "Ask whether hob answers", status::ping)
    },
    Command {
        details: "The exit code is 0 when all is well, and 3 with any problem or without a running hob: for the\n\
                  checks of containers and monitors. Each problem is told.",
        ..command("health", "Show how hob itself is", status::health)
    },
    Command {
        operands: "[FILE]",
        count: (0, 1),
        details: "Warns also, on standard error, of users, groups, folders, files and programs that are named and not\n\
                  on this machine. The exit code is 0 without mistakes, 1 with any and 8 when the file cannot be\n\
                  read; warnings do not count.",
        ..command("config check", "Check the config and list everything that is wrong", config::check)
    },
    Command {
        flags: DEFAULTS,
        ..command("config show", "Show the config file with every key filled in", config::show)
    },
    command("config path", "Show where the config is", config::path),
    Command {
        details: "Editors complete and check by it. The config that hob makes on its first start names one that lies\n\
                  beside it, and hob keeps that up to date. For another config: hob config schema > hob.schema.json,\n\
                  and in the config \"$schema\": \"./hob.schema.json\".",
        ..command("config schema", "Print the JSON Schema of the config", config::schema)
    },
    Command {
        operands: "[NAME...]",
        count: (0, ANY),
        flags: OWNED,
        ..command("service list", "List services", status::list)
    },
    Command { operands: "NAME", count: (1, 1), ..command("service get", "Show one service", status::get) },
    Command {
        operands: "NAME...",
        count: (1, ANY),
        flags: CHANGE,
        ..command("service start", "Start services and what they need", service::start)
    },
    Command {
        operands: "NAME...",
        count: (1, ANY),
        flags: CHANGE,
        ..command("service stop", "Stop services", service::stop)
    },
    Command {
        operands: "NAME...",
        count: (1, ANY),
        flags: CHANGE,
        ..command("service restart", "Restart services", service::restart)
    },
    Command {
        operands: "NAME -- COMMAND",
        operand: Operand::Text,
        count: (1, 1),
        takes_command: true,
        flags: SERVICE_RUN,
        details: transient::DETAILS,
        ..command("service run", "Run a command as a service that is in no file", transient::run)
    },
    Command {
        operands: "NAME...",
        count: (1, ANY),
        flags: CHANGE,
        details: "Stops them first. Those of hob.json are refused: take them out of the file, then 'hob reload'.",
        ..command("service remove", "Remove transient services", transient::remove)
    },
    Command {
        operands: "NAME...",
        count: (1, ANY),
        details: "By reload_signal or reload_command of its config. 'hob reload' reads the config of hob instead.",
        ..command("service reload", "Make services read their own config again", service::reload)
    },
    Command {
        operands: "SIGNAL NAME...",
        operand: Operand::Signal,
        count: (2, ANY),
        ..command("service signal", "Send a signal to the main process of services", service::signal)
    },
    Command {
        operands: "NAME...",
        count: (1, ANY),
        details: "Forgets that a person started or stopped it.",
        ..command("service reset", "Return services to what autostart says", service::reset)
    },
    Command {
        operands: "NAME",
        count: (1, 1),
        flags: HISTORY,
        ..command("service history", "Show the last runs of a service", status::history)
    },
    Command {
        operands: "NAME...",
        count: (1, ANY),
        flags: LOGS,
        ..command("service logs", "Show logs of services", logs::logs)
    },
    Command {
        operands: "[ID...]",
        operand: Operand::Job,
        count: (0, ANY),
        details: "'hob why ID' tells the story of one.",
        ..command("schedule list", "List jobs, when they ran and when they run next", schedule::list)
    },
    Command {
        operands: "ID...",
        operand: Operand::Job,
        count: (1, ANY),
        ..command("schedule run", "Run jobs once, now", schedule::run)
    },
    Command {
        operands: "[ID...]",
        operand: Operand::Job,
        count: (0, ANY),
        flags: &[ALL_JOBS],
        details: "Their times pass until they are resumed; runs that have begun go on. It outlives restarts of hob.",
        ..command("schedule pause", "Pause jobs", schedule::pause)
    },
    Command {
        operands: "[ID...]",
        operand: Operand::Job,
        count: (0, ANY),
        flags: &[ALL_JOBS],
        details: "What passed in the pause is not made up for.",
        ..command("schedule resume", "Let jobs go by the clock again", schedule::resume)
    },
    Command {
        operands: "EXPR|ID",
        operand: Operand::Job,
        count: (1, 1),
        flags: NEXT,
        details: "An expression of cron needs no running hob: five fields, six with seconds first, or @daily and its\n\
                  like. A time that the clocks skip runs at their change, one that they show twice runs once; with *\n\
                  for minutes or hours it follows the clock on the wall. Where day of the month and weekday are\n\
                  both given and neither begins with *, either is enough. Ranges may go over the end: fri-mon, 22-2.",
        ..command("schedule next", "Show when an expression fires, or a job runs", schedule::next)
    },
    Command {
        operands: "[EXPR...]",
        operand: Operand::Text,
        count: (0, ANY),
        flags: &[TZ],
        details: "Without an expression: the jobs of the config file. The exit code is 1 when something is wrong.",
        ..command("schedule check", "Check expressions, or the jobs of the config", schedule::check)
    },
    Command {
        operands: "ID",
        operand: Operand::Job,
        count: (1, 1),
        flags: HISTORY,
        ..command("schedule history", "Show the last runs of a job", schedule::history)
    },
    Command {
        operands: "METHOD [JSON]",
        operand: Operand::Method,
        count: (1, 2),
        details: service::CALL_DETAILS,
        ..command("call", "Call a method of the protocol and print its result", service::call)
    },
    Command {
        operands: "SHELL",
        operand: Operand::OneOf(complete::SHELLS),
        count: (1, 1),
        details: "bash: source <(hob completions bash)\n\
                  zsh:  source <(hob completions zsh)\n\
                  fish: hob completions fish | source",
        ..command("completions", "Print the completions of a shell", complete::completions)
    },
    Command {
        takes_command: true,
        hidden: true,
        ..command("complete", "Words that completions offer", complete::words)
    },
    Command {
        operands: "[PAGE]",
        operand: Operand::OneOf(man::PAGES),
        count: (0, 1),
        details: "Without a page: hob(1); config: hob.json(5), every key of the config. On a terminal it is shown by\n\
                  the program man, elsewhere it is printed for such a program: hob man | man -l -",
        ..command("man", "Show the manual", man::man)
    },
];
