//! What there is to know beside the commands: exit codes, environment, files, signals. `hob help TOPIC` and the man
//! page both say it. Files are those that hob itself resolves, codes those that it ends with.

use super::exit;
use super::flags::row;
use crate::base::paths::{PathInput, Paths};
use crate::base::text::capital;
use crate::config::SCHEMA_FILE;
use crate::protocol::rpc::Code;
use std::path::PathBuf;

/// A term and what it means.
pub(super) type Entry = (String, String);

#[derive(Debug)]
pub(super) struct Topic {
    pub(super) name: &'static str,
    pub(super) summary: &'static str,
    /// Its heading in the man page.
    pub(super) heading: &'static str,
    pub(super) intro: &'static str,
    pub(super) entries: fn() -> Vec<Entry>,
}

pub(super) const TOPICS: &[Topic] = &[
    Topic {
        name: "files",
        summary: "where hob keeps what",
        heading: "FILES",
        intro: "For root; for another user, below it, with $XDG_CONFIG_HOME, $XDG_RUNTIME_DIR and $XDG_STATE_HOME for \
                config, run and state. With --home DIR, or HOB_HOME, everything is under DIR.",
        entries: files,
    },
    Topic {
        name: "environment",
        summary: "variables that hob reads, and those that services get",
        heading: "ENVIRONMENT",
        intro: "A flag counts more than its variable, and an empty variable counts as none.",
        entries: || ENVIRONMENT.iter().map(owned).collect(),
    },
    Topic {
        name: "signals",
        summary: "signals that hob understands",
        heading: "SIGNALS",
        intro: "They go to the pid of hob, which 'hob status' shows and which stays over crashes and upgrades.",
        entries: || SIGNALS.iter().map(owned).collect(),
    },
    Topic {
        name: "exit-codes",
        summary: "how commands end",
        heading: "EXIT STATUS",
        intro: "The number in brackets is that of the protocol's error.",
        entries: exit_codes,
    },
];

fn owned((term, text): &(&str, &str)) -> Entry {
    ((*term).to_owned(), (*text).to_owned())
}

pub(super) const ENVIRONMENT: &[(&str, &str)] = &[
    ("HOB_HOME", "As --home: the folder that everything is kept under"),
    ("HOB_CONFIG", "As --config: the config file"),
    ("HOB_SOCKET", "As --socket: the control socket"),
    ("HOB_PID", "The file with the pid of hob"),
    ("HOB_LOG", "The file of hob's own log"),
    ("HOME, XDG_CONFIG_HOME, XDG_RUNTIME_DIR, XDG_STATE_HOME", "Where a user other than root keeps what; see files"),
    ("NO_COLOR", "Anything: no colours, also on a terminal"),
    ("TERM", "\"dumb\": no colours and no line that is written over"),
    ("TZ", "The time zone in which times are shown"),
    ("NOTIFY_SOCKET", "Where 'hob run' tells a service manager above it that it is ready (sd_notify)"),
    ("HOB_SERVICE, HOB_TASK_ID", "In each service its name, in each task its number"),
    ("HOB_RUN, HOB_SOCKET, HOB_FD", "In each of these: the run that it is, the control socket, a channel if asked for"),
    ("NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID", "In a service with \"ready\": \"notify\", or with a watchdog"),
    ("MAINPID", "In stop_command and reload_command: the pid of the service's main process"),
];

pub(super) const SIGNALS: &[(&str, &str)] = &[
    ("SIGTERM, SIGINT", "Stop all services, then hob; sent again after a moment: kill what is left at once"),
    ("SIGHUP", "Read the config again, as 'hob reload'; where a hob that runs one command has none, see others"),
    ("SIGUSR2", "Run on as the program that lies where hob was started from, as 'hob upgrade'"),
    ("others", "A hob that runs one command, or is PID 1, passes them on to its main service"),
];

fn files() -> Vec<Entry> {
    let root = PathInput { root: true, system_run: crate::sys::SYSTEM_RUN.into(), ..PathInput::default() };
    let user = PathInput { user_home: Some("~".into()), ..PathInput::default() };
    let mut all = Vec::new();
    // Without XDG folders and with a home directory there is nothing that could be missing.
    let (Ok(root), Ok(user)) = (Paths::resolve(&root), Paths::resolve(&user)) else { return all };
    let mut add = |of: &dyn Fn(&Paths) -> PathBuf, text: &str| {
        all.push((format!("{}, {}", of(&root).display(), of(&user).display()), text.to_owned()));
    };
    add(&|p| p.config.clone(), "The config; made with examples on the first start");
    add(&|p| p.config.with_file_name(SCHEMA_FILE), "Its JSON Schema, for editors; see 'hob config schema'");
    add(&|p| p.socket.clone(), "The control socket");
    add(&|p| p.pid.clone(), "The pid of hob");
    add(&|p| p.state_json.clone(), "How all was at the last heartbeat");
    add(&|p| p.state.clone(), "The journal: what is to be known after a crash or a reboot");
    add(&|p| p.log.clone(), "The log of hob itself, as 'hob logs' shows it");
    add(&|p| p.logs.join("services"), "Logs of services, as 'hob logs NAME' shows them");
    add(&|p| p.logs.join("tasks"), "Output of tasks, as 'hob task output ID' shows it");
    all
}

fn exit_codes() -> Vec<Entry> {
    let own = [
        (exit::OK, "Done; also when whoever reads has seen enough and closed the pipe"),
        (exit::FAILED, "Failed; of 'hob status': a service has failed; of 'hob config check': there are mistakes"),
        (exit::USAGE, "The command line makes no sense"),
    ];
    let own = own.into_iter().map(|(code, text)| (code.to_string(), text.to_owned()));
    let all = Code::all().map(|c| {
        let also = if c == Code::Unavailable { "; of 'hob health': not all is well" } else { "" };
        (c.exit_code().to_string(), format!("{}{also} ({})", c.meaning(), c.number()))
    });
    let late =
        (exit::TIMED_OUT.to_string(), "Of 'hob task wait': its --timeout is over, and not all tasks are".to_owned());
    let run =
        ("128 + n".to_owned(), "Of 'hob run -- COMMAND': it was killed by signal n; else its own code".to_owned());
    let missing =
        ("126, 127".to_owned(), "Of the same: it cannot be executed, and there is no such program".to_owned());
    let task = "Of 'hob add -w' and -f, 'hob task output -f' and 'hob inhibit': those of the command, in the same \
                way; 4 of a --key whose task was removed";
    own.chain(all).chain([late, run, missing, ("any".to_owned(), task.to_owned())]).collect()
}

pub(super) fn find(name: &str) -> Option<&'static Topic> {
    TOPICS.iter().find(|t| t.name == name)
}

/// The text of `hob help TOPIC`.
pub(super) fn help_topic(topic: &Topic) -> String {
    let intro = super::render::wrapped(topic.intro, 0, 0, Some(100));
    let mut t = format!("{}.\n\n{intro}\n\n", capital(topic.summary));
    for (term, text) in (topic.entries)() {
        row(&mut t, &term, &text);
    }
    t
}

/// The lines of `hob --help` that name them.
pub(super) fn list() -> Vec<Entry> {
    TOPICS.iter().map(|t| (format!("help {}", t.name), t.summary.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_its_exit_code_and_no_two_the_same() {
        let all = exit_codes();
        for code in Code::all() {
            let number = format!("({})", code.number());
            let of: Vec<_> = all.iter().filter(|(_, text)| text.ends_with(&number)).collect();
            assert!(of.len() == 1 && of[0].0 == code.exit_code().to_string(), "{code:?}: {of:?}");
        }
        let mut codes: Vec<_> = all.iter().map(|(code, _)| code).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), all.len());
    }

    #[test]
    fn every_variable_that_the_command_line_reads_is_told() {
        let sources = [include_str!("mod.rs"), include_str!("life.rs"), include_str!("render.rs")].concat();
        let mut found = 0;
        for prefix in ["\"HOB_", "\"XDG_", "\"NO_", "\"NOTIFY_"] {
            for (at, _) in sources.match_indices(prefix) {
                let name = sources.get(at + 1..).and_then(|rest| rest.split('"').next()).unwrap_or("");
                // The one by which a hob tells the hob that it starts in the background that it does so.
                if name != "HOB_DETACHED" {
                    assert!(ENVIRONMENT.iter().any(|(names, _)| names.split(", ").any(|n| n == name)), "{name}");
                    found += 1;
                }
            }
        }
        assert!(found > 8, "only {found} variables were found");
    }

    #[test]
    fn files_are_those_of_root_and_of_a_user() {
        let text = help_topic(&TOPICS[0]);
        for want in ["/etc/hob/hob.json, ~/.config/hob/hob.json", "/var/log/hob/services", "hob.schema.json"] {
            assert!(text.contains(want), "{want}: {text}");
        }
        assert!(TOPICS.iter().all(|t| help_topic(t).lines().all(|l| l.chars().count() <= 120)));
    }
}
