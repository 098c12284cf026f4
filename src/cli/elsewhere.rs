//! Commands that hob has not: what was probably meant, by its own words and by those of other tools.

use super::flags::{self, Command};
use crate::base::near::nearest;

/// What other tools call it, and what it is here.
const ELSEWHERE: &[(&str, &str)] = &[
    ("attach", "logs -f NAME"),
    ("cancel", "task cancel ID"),
    ("check", "config check"),
    ("clean", "task clean"),
    ("config edit", "config path"),
    ("config reload", "reload"),
    ("cron", "schedule list"),
    ("delete", "service remove NAME"),
    ("describe", "service get NAME"),
    ("down", "stop"),
    ("disable", "stop NAME"),
    ("edit", "config path"),
    ("enable", "start NAME"),
    ("enqueue", "add"),
    ("exec", "run"),
    ("flush", "logs rotate NAME"),
    ("follow", "logs -f NAME"),
    ("get", "service get"),
    ("group add", "group set NAME"),
    ("group create", "group set NAME"),
    ("history", "service history"),
    ("info", "status"),
    ("inspect", "service get"),
    ("is-active", "status NAME"),
    ("jobs", "schedule list"),
    ("journal", "logs"),
    ("kill", "service signal KILL NAME"),
    ("list", "services"),
    ("ls", "services"),
    ("monit", "status"),
    ("monitor", "events -f"),
    ("output", "task output ID"),
    ("pause", "task pause ID"),
    ("ps", "status"),
    ("queue", "task list"),
    ("quit", "stop"),
    ("remove", "service remove NAME"),
    ("reread", "plan"),
    ("reset", "service reset"),
    ("resume", "task resume ID"),
    ("retry", "task retry ID"),
    ("rm", "service remove NAME"),
    ("rotate", "logs rotate"),
    ("schedule show", "why schedule/ID"),
    ("schedule start", "schedule run ID"),
    ("schema", "config schema"),
    ("service rm", "service remove NAME"),
    ("service show", "service get NAME"),
    ("service status", "status NAME"),
    ("service why", "why NAME"),
    ("show", "status NAME"),
    ("shutdown", "stop"),
    ("signal", "service signal"),
    ("tail", "logs -f NAME"),
    ("task delete", "task clean ID"),
    ("task kill", "task cancel ID"),
    ("task log", "task output ID"),
    ("task logs", "task output ID"),
    ("task ls", "task list"),
    ("task rm", "task clean ID"),
    ("task stop", "task cancel ID"),
    ("top", "status"),
    ("up", "start"),
    ("update", "reload"),
    ("validate", "config check"),
    ("wait", "task wait ID"),
];

/// What stands in the config, and no command changes.
const IN_CONFIG: &[(&str, &str)] = &[
    ("group remove", "groups of the config stand under \"groups\" in hob.json"),
    ("schedule add", "jobs stand under \"schedule\" in hob.json"),
    ("schedule remove", "jobs stand under \"schedule\" in hob.json"),
];

/// What to say of a command that there is not.
pub(super) fn unknown_command(name: &str, commands: &'static [Command]) -> String {
    if let Some((_, here)) = ELSEWHERE.iter().find(|(there, _)| *there == name) {
        return format!("'{name}' is not a command; did you mean 'hob {here}'?");
    }
    if let Some((_, where_to)) = IN_CONFIG.iter().find(|(there, _)| *there == name) {
        return format!("'{name}' is not a command: {where_to}; 'hob config path' says where that is");
    }
    let known = commands.iter().filter(|c| !c.hidden).map(|c| c.name);
    // A verb is compared with the verbs of its noun: the noun is right already.
    let (noun, near) = match name.split_once(' ') {
        Some((noun, verb)) => (
            format!("{noun} "),
            nearest(verb, flags::verbs_of(noun, commands).filter_map(|c| c.name.split(' ').nth(1))),
        ),
        None => (String::new(), nearest(name, known.filter_map(|n| n.split(' ').next()))),
    };
    let next = match near {
        Some(near) => format!("did you mean 'hob {noun}{near}'?"),
        None => format!("'hob {noun}--help' lists them"),
    };
    format!("'{name}' is not a command; {next}")
}

#[cfg(test)]
mod tests {
    use super::super::commands::COMMANDS;
    use super::*;

    #[test]
    fn words_of_other_tools_lead_to_commands_that_there_are() {
        for (there, here) in ELSEWHERE {
            assert!(COMMANDS.iter().all(|c| c.name != *there), "{there} is a command");
            let known =
                |c: &Command| here.strip_prefix(c.name).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '));
            assert!(COMMANDS.iter().any(known), "{there}: hob {here}");
            assert_eq!(
                unknown_command(there, COMMANDS),
                format!("'{there}' is not a command; did you mean 'hob {here}'?")
            );
        }
        for (there, _) in IN_CONFIG {
            assert!(COMMANDS.iter().all(|c| c.name != *there), "{there} is a command");
            assert!(unknown_command(there, COMMANDS).contains("in hob.json; 'hob config path'"), "{there}");
        }
    }
}
