//! What the config says of tasks: groups with their slots, agents and runners. Touches nothing.

use super::error::quote;
use super::keys::{Field, Key, Slot, Span, at, cpus, ionice, live, nice, oom_score, rlimits};
use super::read::{Cx, name_error, object};
use super::spec::{AgentPrompt, AgentSpec, GroupSpec, RunnerSpec};
use super::tree::{Member, Node, Value};
use super::values::RESERVED_ENV;
use crate::base::limits::{GROUP_PARALLEL_MAX, GROUP_WEIGHT_MAX};
use core::time::Duration;
use std::collections::BTreeMap;

pub(super) const PROMPTS: &[(&str, AgentPrompt)] =
    &[("argument", AgentPrompt::Argument), ("stdin", AgentPrompt::Stdin), ("file", AgentPrompt::File)];

pub(super) const GROUP: &[Key<GroupSpec>] = &[
    live("parallel", Field::Count(at!(parallel), 0, GROUP_PARALLEL_MAX), "how many of its tasks run at once", "3"),
    live("paused", Field::Flag(at!(paused)), "start none of its tasks until a person resumes it", "false"),
    live(
        "weight_limit",
        Field::Count(at!(weight_limit), 0, GROUP_WEIGHT_MAX),
        "what the weights of its running tasks may add up to; 0 is no limit",
        "0",
    ),
    nice(at!(nice), "scheduling priority; null: hob's own", true),
    ionice(at!(limits.ionice), true),
    oom_score(at!(limits.oom_score), true),
    cpus(at!(limits.cpus), true),
    rlimits(at!(limits.rlimits), true),
];

const COMMAND_DOC: &str = "the program that takes the prompt; one text is for the shell, which has the prompt, or the \
                           path of its file, as \"$1\", at the end unless the text says where";

pub(super) const AGENT: &[Key<AgentSpec>] = &[
    live("command", Field::Command(at!(command)), COMMAND_DOC, r#"["claude", "-p"]"#),
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

pub(super) const RUNNER: &[Key<RunnerSpec>] = &[
    live(
        "prefix",
        Field::Command(at!(prefix)),
        "the words before the command of a task that it is handed to; one text is for the shell, which has the command \
         as \"$@\", at the end unless the text says where",
        r#"["srun", "--quiet"]"#,
    ),
    live(
        "quote",
        Field::Flag(at!(quote)),
        "quote each word of the command for a shell: for what joins its arguments to one line that a shell then reads, \
         as ssh does; where the key is missing, true if the first word of prefix is ssh",
        "true",
    ),
];

/// A command that is one text for the shell gets its prompt as an argument: where the text does not say where that
/// stands, at its end. A prompt on standard input is none.
pub(super) fn take_prompts(node: &Node, agents: &mut BTreeMap<String, AgentSpec>, cx: &mut Cx<'_, '_>) {
    for (member, key) in members_with(node, "command") {
        let (Value::Text(line), Some(agent)) = (&key.node.value, agents.get_mut(&member.key)) else { continue };
        if agent.prompt == AgentPrompt::Stdin || agent.command.is_empty() {
            continue;
        }
        let seen = look(line);
        let placed = seen.all || seen.first;
        agent.command = with_arguments(line, placed);
        if !placed && seen.closed {
            let message = "no prompt can stand at the end of this text; write \"$1\" where it is to stand";
            cx.in_key(&member.key, |cx| cx.in_key(&key.key, |cx| cx.report.add(key.node.pos, message)));
        }
    }
}

/// What a variable whose name ends with `_env` stands for.
pub(super) fn check_env(node: &Node, cx: &mut Cx<'_, '_>) {
    for (agent, env) in members_with(node, "env") {
        let Value::Object(variables) = &env.node.value else { continue };
        for variable in variables {
            let (Some(name), Value::Text(of)) = (variable.key.strip_suffix("_env"), &variable.node.value) else {
                continue;
            };
            let (at, wrong) = if name.is_empty() {
                (variable.pos, "before _env stands the name of a variable, as in \"API_KEY_env\"".to_owned())
            } else if RESERVED_ENV.contains(&name) {
                (variable.pos, format!("hob sets {name} itself"))
            } else if of.is_empty() || of.contains(['=', '\0']) {
                let text = "wants the name of a variable of hob's own, which is not empty and has no '=' and no NUL";
                (variable.node.pos, format!("{text}, found {}", quote(of)))
            } else {
                continue;
            };
            cx.in_key(&agent.key, |cx| {
                cx.in_key("env", |cx| cx.in_key(&variable.key, |cx| cx.report.add(at, wrong)));
            });
        }
    }
}

/// The same of a prefix, whose arguments are the words of the command. What is handed to ssh is quoted.
pub(super) fn take_arguments(node: &Node, runners: &mut BTreeMap<String, RunnerSpec>) {
    for (member, key) in members_with(node, "prefix") {
        let Some(runner) = runners.get_mut(&member.key).filter(|r| !r.prefix.is_empty()) else { continue };
        let line = if let Value::Text(line) = &key.node.value { Some(line) } else { None };
        let program = match line {
            Some(line) => line.split_whitespace().find(|word| *word != "exec"),
            None => runner.prefix.first().map(String::as_str),
        };
        if members_with(node, "quote").all(|(of, _)| of.key != member.key) {
            runner.quote = program.is_some_and(|word| word.rsplit('/').next() == Some("ssh"));
        }
        let Some(line) = line else { continue };
        let seen = look(line);
        runner.prefix = with_arguments(line, seen.all);
    }
}

/// The entries of an object that have a key, with that.
fn members_with<'n>(node: &'n Node, name: &'static str) -> impl Iterator<Item = (&'n Member, &'n Member)> {
    let members = if let Value::Object(members) = &node.value { &members[..] } else { &[] };
    members.iter().filter_map(move |member| {
        let Value::Object(keys) = &member.node.value else { return None };
        Some((member, keys.iter().find(|k| k.key == name)?))
    })
}

/// `placed`: the text says itself where the arguments stand.
fn with_arguments(line: &str, placed: bool) -> Vec<String> {
    let line = if placed { line.to_owned() } else { format!("{} \"$@\"", line.trim_end()) };
    ["/bin/sh", "-c", &line, "sh"].map(str::to_owned).to_vec()
}

/// What a text for the shell does with its arguments.
#[derive(Debug, Default, PartialEq, Eq)]
struct Line {
    /// It names all of them, or the first.
    all: bool,
    first: bool,
    /// What is appended would be another command, or part of a comment.
    closed: bool,
}

/// Reads as much of the shell's grammar as says what is quoted: `'$1'` is for awk and its like.
fn look(line: &str) -> Line {
    let mut seen = Line::default();
    let (mut inside, mut before, mut rest) = (Vec::new(), ' ', line.chars());
    while let Some(c) = rest.next() {
        match (inside.last(), c) {
            (Some('\''), '\'') | (Some('#'), '\n') | (Some('"'), '"') | (Some('('), ')') => drop(inside.pop()),
            (Some('\'' | '#'), _) => {}
            (_, '\\') => drop(rest.next()),
            (_, '$') => {
                let named = rest.as_str();
                if let Some(left) = named.strip_prefix('$') {
                    rest = left.chars();
                } else if let Some(left) = named.strip_prefix('(') {
                    inside.push('(');
                    rest = left.chars();
                } else {
                    let named = named.strip_prefix('{').unwrap_or(named);
                    seen.all |= named.starts_with(['@', '*']);
                    seen.first |= named.starts_with('1');
                }
            }
            (Some('"'), _) => {}
            (_, '\'' | '"' | '(') => inside.push(c),
            (_, '#') if before.is_whitespace() || ";&|(".contains(before) => inside.push(c),
            _ => {}
        }
        before = c;
    }
    let last = line.split_whitespace().next_back().unwrap_or_default();
    let ends = last.ends_with([';', '&', '|', '(', ')']) || ["fi", "done", "esac", "}"].contains(&last);
    seen.closed = inside.last() == Some(&'#') || ends;
    seen
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_text_does_with_its_arguments_is_seen_through_its_quotes() {
        let all = Line { all: true, ..Line::default() };
        let first = Line { first: true, ..Line::default() };
        let closed = Line { closed: true, ..Line::default() };
        for (line, want) in [
            ("claude -p", Line::default()),
            (r#"claude "$@" | tee log"#, all),
            ("a ${@} b", Line { all: true, ..Line::default() }),
            ("a $* | b", Line { all: true, ..Line::default() }),
            (r#"p=$1; claude "$p""#, first),
            (r#"claude "${1}""#, Line { first: true, ..Line::default() }),
            ("awk '{print $1}' | claude", Line::default()),
            (r#"claude -s "$(awk '{print $1}' f)""#, Line::default()),
            (r#"claude -s "$(cat "$1")""#, Line { first: true, ..Line::default() }),
            (r#"claude -s "it's $1""#, Line { first: true, ..Line::default() }),
            (r"echo \$1 it\'s $$1 $# ${#}", Line::default()),
            ("echo a#$1", Line { first: true, ..Line::default() }),
            ("claude -p # $1", closed),
            ("claude -p # c\n  -v", Line::default()),
            ("claude -p; ", Line { closed: true, ..Line::default() }),
            ("claude -p &", Line { closed: true, ..Line::default() }),
            ("if test -t 0; then claude; fi", Line { closed: true, ..Line::default() }),
        ] {
            assert_eq!(look(line), want, "{line}");
        }
    }
}
