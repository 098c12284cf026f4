//! What the config says of tasks: groups with their slots, agents and runners. Touches nothing.

use super::error::quote;
use super::keys::{Field, Key, Slot, Span, at, live};
use super::read::{Cx, name_error, object};
use super::spec::{AgentPrompt, AgentSpec, GroupSpec, RunnerSpec};
use super::tree::{Member, Node, Value};
use crate::base::limits::GROUP_PARALLEL_MAX;
use core::time::Duration;
use std::collections::BTreeMap;

const WEIGHT_MAX: u32 = 1_000_000_000;

pub(super) const PROMPTS: &[(&str, AgentPrompt)] =
    &[("argument", AgentPrompt::Argument), ("stdin", AgentPrompt::Stdin), ("file", AgentPrompt::File)];

pub(super) const GROUP: &[Key<GroupSpec>] = &[
    live("parallel", Field::Count(at!(parallel), 0, GROUP_PARALLEL_MAX), "how many of its tasks run at once", "3"),
    live("paused", Field::Flag(at!(paused)), "start none of its tasks until a person resumes it", "false"),
    live(
        "weight_limit",
        Field::Count(at!(weight_limit), 0, WEIGHT_MAX),
        "what the weights of its running tasks may add up to; 0 is no limit",
        "0",
    ),
];

pub(super) const AGENT: &[Key<AgentSpec>] = &[
    live("command", Field::Command(at!(command)), "the program that takes the prompt", r#"["claude", "-p"]"#),
    live("prompt", Field::Prompt(at!(prompt)), "how it gets the prompt", r#""argument""#),
    live(
        "env",
        Field::Env(at!(env)),
        "its variables; \"NAME_env\": \"OTHER\" gives NAME the value of hob's own variable OTHER, which is never shown",
        r#"{"API_KEY_env": "ANTHROPIC_API_KEY"}"#,
    ),
    live("group", Field::Account(at!(group)), "the group of its tasks", r#""agents""#),
    live(
        "timeout",
        Field::OptSpan(at!(timeout), Span { zero: Ok("for ever"), min: Duration::from_millis(1) }),
        "how long one of its tasks may run",
        r#""2h""#,
    ),
];

pub(super) const RUNNER: &[Key<RunnerSpec>] = &[live(
    "prefix",
    Field::Command(at!(prefix)),
    "the words before the command of a task that it is handed to; one text is for the shell, which has the command as \
     \"$@\", at the end unless the text says where",
    r#"["srun", "--quiet"]"#,
)];

/// A prefix that is one text for the shell gets the command as its arguments: where the text does not say where they
/// stand, at its end.
pub(super) fn take_arguments(node: &Node, runners: &mut BTreeMap<String, RunnerSpec>) {
    let Value::Object(members) = &node.value else { return };
    for member in members {
        let Value::Object(keys) = &member.node.value else { continue };
        let line = keys.iter().find(|k| k.key == "prefix").map(|k| &k.node.value);
        let (Some(Value::Text(line)), Some(runner)) = (line, runners.get_mut(&member.key)) else { continue };
        let placed = ["$@", "$*", "${@", "${*"].iter().any(|word| line.contains(word));
        let line = if placed { line.clone() } else { format!("{line} \"$@\"") };
        runner.prefix = ["/bin/sh", "-c", &line, "sh"].map(str::to_owned).to_vec();
    }
}

/// Reads an object with a member for each name. `needed`: the key that each must have.
pub(super) fn named<S: Default>(
    node: &Node,
    keys: &'static [Key<S>],
    (what, example, needed): (&str, &str, Option<&str>),
    cx: &mut Cx<'_, '_>,
) -> BTreeMap<String, S> {
    let mut all = BTreeMap::new();
    let Value::Object(members) = &node.value else {
        cx.kind(node, &format!("an object with a member for each {what}"), example, None);
        return all;
    };
    for member in members {
        cx.in_key(&member.key, |cx| {
            if let Some(message) = name_error(&member.key) {
                cx.report.add(member.pos, message);
            }
            let mut spec = S::default();
            read_one(&mut spec, keys, member, needed, cx);
            all.insert(member.key.clone(), spec);
        });
    }
    all
}

fn read_one<S>(spec: &mut S, keys: &'static [Key<S>], member: &Member, needed: Option<&str>, cx: &mut Cx<'_, '_>) {
    let Value::Object(members) = &member.node.value else {
        let example = keys.first().map_or(String::new(), |k| format!("{{{}: {}}}", quote(k.name), k.example));
        cx.kind(&member.node, "an object", &example, None);
        return;
    };
    object(spec, keys, members, cx);
    if let Some(needed) = needed.filter(|n| members.iter().all(|m| m.key != *n)) {
        let example = keys.iter().find(|k| k.name == needed).map_or("", |k| k.example);
        cx.report.add(member.pos, format!("{needed} is missing, as in \"{needed}\": {example}"));
    }
}
