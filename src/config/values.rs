//! Readers of the single values of a config, one for each type. Touches nothing.

use super::error::quote;
use super::graph::NeedAt;
use super::keys::{ACCESSES, CONDITIONS, LOG_RATE_MIN, LOG_SIZE_MIN, RESTARTS, RLIMITS, SPAN_MAX, Span};
use super::read::{Bad, Cx, words};
use super::spec::{Condition, Grant, Need, Restart, Rlimit, Signal, Who};
use super::tree::{Member, Node, Value};
use crate::base::gather::Gather as _;
use crate::base::limits::SECRETS_MAX;
use crate::base::near::nearest;
use crate::base::signal::SIGNAL_MAX;
use crate::base::units::{canonical_duration, canonical_size, parse_duration, parse_size};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

/// Fastest rate of a log, in bytes a second.
const LOG_RATE_MAX: u64 = 1_000_000_000_000;
/// Variables that hob sets itself, whatever a config says.
pub(super) const RESERVED_ENV: [&str; 6] =
    ["HOB_RUN", "HOB_SERVICE", "HOB_TASK_ID", "HOB_INSTANCE", "HOB_SOCKET", "HOB_FD"];

pub(super) fn command(node: &Node, cx: &mut Cx<'_, '_>) -> Result<Vec<String>, Bad> {
    match &node.value {
        Value::Text(line) => {
            if line.trim().is_empty() {
                return Err(cx.say(node.pos, "the command is empty"));
            }
            no_nul(line, node, cx)?;
            Ok(vec!["/bin/sh".to_owned(), "-c".to_owned(), line.clone()])
        }
        Value::List(items) => {
            let argv = all(items.iter().enumerate(), |(i, item)| cx.in_index(i, |cx| text(item, cx)))?;
            match argv.first() {
                Some(program) if !program.is_empty() => Ok(argv),
                Some(_) => Err(cx.say(node.pos, "the first text of a command names the program and is not empty")),
                None => Err(cx.say(node.pos, "the command is empty")),
            }
        }
        _ => Err(Bad::Kind(None)),
    }
}

/// Reads all elements, so that every wrong one is reported.
pub(super) fn all<I, T>(
    items: impl Iterator<Item = I>,
    mut read: impl FnMut(I) -> Result<T, Bad>,
) -> Result<Vec<T>, Bad> {
    let mut out = Vec::new();
    let mut said = false;
    for item in items {
        match read(item) {
            Ok(value) => out.push(value),
            Err(_) => said = true,
        }
    }
    out.shrink_to_fit();
    if said { Err(Bad::Said) } else { Ok(out) }
}

/// A text that can be handed to a program.
fn text(node: &Node, cx: &mut Cx<'_, '_>) -> Result<String, Bad> {
    match &node.value {
        Value::Text(t) => no_nul(t, node, cx).map(|()| t.clone()),
        Value::Number(n) => Err(cx.kind(node, "a text", "", Some(quote(n)))),
        Value::Bool(b) => Err(cx.kind(node, "a text", "", Some(format!("\"{b}\"")))),
        _ => Err(cx.kind(node, "a text", r#""-v""#, None)),
    }
}

fn no_nul(text: &str, node: &Node, cx: &mut Cx<'_, '_>) -> Result<(), Bad> {
    if text.contains('\0') {
        return Err(cx.say(node.pos, "no program can be given a text with a NUL character (\\u0000) in it"));
    }
    Ok(())
}

pub(super) fn path(node: &Node, cx: &mut Cx<'_, '_>) -> Result<String, Bad> {
    match &node.value {
        Value::Text(t) if t.starts_with('~') => Err(cx.say(node.pos, "~ means nothing here; write the whole path")),
        Value::Text(t) if !t.is_empty() => no_nul(t, node, cx).map(|()| t.clone()),
        _ => Err(Bad::Kind(None)),
    }
}

pub(super) fn account(node: &Node, cx: &mut Cx<'_, '_>) -> Result<String, Bad> {
    let name = match &node.value {
        Value::Text(t) | Value::Number(t) => t,
        _ => return Err(Bad::Kind(None)),
    };
    let odd = |c: char| c.is_whitespace() || c.is_control() || ":/,".contains(c);
    if name.is_empty() || name.starts_with(['-', '+']) || name.contains(odd) {
        return Err(Bad::Kind(None));
    }
    let is_number = name.bytes().all(|b| b.is_ascii_digit());
    let too_large = is_number && name.parse::<u32>().is_ok_and(|id| id < u32::MAX).eq(&false);
    if too_large || matches!(node.value, Value::Number(_)) && !is_number {
        return Err(cx.say(node.pos, format!("a user or group has a number from 0 to {}", u32::MAX - 1)));
    }
    Ok(name.clone())
}

pub(super) fn env(node: &Node, cx: &mut Cx<'_, '_>) -> Result<BTreeMap<String, String>, Bad> {
    let members = members(node)?;
    let pairs = all(members.iter(), |m| {
        cx.in_key(&m.key, |cx| {
            if m.key.is_empty() || m.key.contains(['=', '\0']) {
                return Err(cx.say(m.pos, "the name of a variable is not empty and has no '=' and no NUL in it"));
            }
            if RESERVED_ENV.contains(&m.key.as_str()) {
                return Err(cx.say(m.pos, "hob sets this variable itself"));
            }
            Ok((m.key.clone(), text(&m.node, cx)?))
        })
    })?;
    Ok(pairs.into_iter().gather())
}

fn members(node: &Node) -> Result<&[Member], Bad> {
    match &node.value {
        Value::Object(members) => Ok(members),
        _ => Err(Bad::Kind(None)),
    }
}

pub(super) fn flag(node: &Node) -> Result<bool, Bad> {
    match &node.value {
        Value::Bool(b) => Ok(*b),
        Value::Text(t) => Err(Bad::Kind(match t.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Some("true".to_owned()),
            "false" | "no" | "off" | "0" => Some("false".to_owned()),
            _ => None,
        })),
        Value::Number(n) if n == "1" => Err(Bad::Kind(Some("true".to_owned()))),
        Value::Number(n) if n == "0" => Err(Bad::Kind(Some("false".to_owned()))),
        _ => Err(Bad::Kind(None)),
    }
}

pub(super) fn span(node: &Node, span: Span, cx: &mut Cx<'_, '_>) -> Result<Duration, Bad> {
    let d = match &node.value {
        Value::Text(t) => match parse_duration(t) {
            Ok(d) => d,
            Err(why) => {
                let seconds = format!("{t}s");
                let meant = parse_duration(&seconds).is_ok().then(|| quote(&seconds));
                return Err(cx.suggest(node.pos, format!("{}: {why}", quote(t)), meant));
            }
        },
        Value::Number(n) if n == "0" => Duration::ZERO,
        Value::Number(n) => {
            let seconds = format!("{n}s");
            return Err(Bad::Kind(parse_duration(&seconds).is_ok().then(|| quote(&seconds))));
        }
        _ => return Err(Bad::Kind(None)),
    };
    match span.zero {
        Ok(_) if d.is_zero() => Ok(d),
        Err(instead) if d.is_zero() => Err(cx.say(node.pos, format!("\"0s\" makes no sense here: {instead}"))),
        _ if d < span.min => {
            Err(cx.say(node.pos, format!("{} is the shortest that makes sense here", canonical_duration(span.min))))
        }
        _ if d > SPAN_MAX => Err(cx.say(node.pos, format!("{} is the longest duration", canonical_duration(SPAN_MAX)))),
        _ => Ok(d),
    }
}

/// A whole number in a range.
pub(super) fn integer<T>(node: &Node, min: T, max: T) -> Result<T, Bad>
where
    T: core::str::FromStr + PartialOrd,
{
    let parse = |text: &str| text.parse::<T>().ok().filter(|n| *n >= min && *n <= max);
    match &node.value {
        Value::Number(n) => parse(n).ok_or(Bad::Kind(None)),
        Value::Text(t) => Err(Bad::Kind(parse(t).map(|_| t.clone()))),
        _ => Err(Bad::Kind(None)),
    }
}

pub(super) fn log_size(node: &Node, cx: &mut Cx<'_, '_>) -> Result<u64, Bad> {
    let size = match &node.value {
        Value::Text(t) => match parse_size(t) {
            Ok(size) => size,
            Err(why) => return Err(cx.say(node.pos, format!("{}: {why}", quote(t)))),
        },
        Value::Number(n) => n.parse().map_err(|_| Bad::Kind(None))?,
        _ => return Err(Bad::Kind(None)),
    };
    if size < LOG_SIZE_MIN {
        return Err(cx.say(node.pos, format!("{} is the smallest size of a log", canonical_size(LOG_SIZE_MIN))));
    }
    // File positions are signed numbers of 64 bits.
    if i64::try_from(size).is_err() {
        return Err(cx.say(node.pos, "larger than any file can be"));
    }
    Ok(size)
}

/// `"1MB/s"`: bytes a second.
pub(super) fn rate(node: &Node, cx: &mut Cx<'_, '_>) -> Result<u64, Bad> {
    let Value::Text(t) = &node.value else { return Err(Bad::Kind(None)) };
    let Some(size) = t.strip_suffix("/s") else {
        return Err(Bad::Kind(parse_size(t).is_ok().then(|| quote(&format!("{t}/s")))));
    };
    let rate = parse_size(size).map_err(|why| cx.say(node.pos, format!("{}: {why}", quote(size))))?;
    if rate < LOG_RATE_MIN {
        return Err(cx.say(node.pos, format!("{}/s is the slowest rate", canonical_size(LOG_RATE_MIN))));
    }
    if rate > LOG_RATE_MAX {
        return Err(cx.say(node.pos, "no log is written that fast; leave the key out to keep everything"));
    }
    Ok(rate)
}

/// The items of a list; a text alone is one that lacks its brackets.
fn items(node: &Node) -> Result<&[Node], Bad> {
    match &node.value {
        Value::List(items) => Ok(items),
        Value::Text(t) => Err(Bad::Kind(Some(format!("[{}]", quote(t))))),
        _ => Err(Bad::Kind(None)),
    }
}

/// Names of variables, each once.
pub(super) fn variables(node: &Node, cx: &mut Cx<'_, '_>) -> Result<Vec<String>, Bad> {
    let items = items(node)?;
    let mut seen = BTreeSet::new();
    all(items.iter().enumerate(), |(i, item)| {
        cx.in_index(i, |cx| {
            let name = text(item, cx)?;
            if name.is_empty() || name.contains('=') {
                return Err(cx.say(item.pos, "the name of a variable is not empty and has no '=' in it"));
            }
            if !seen.insert(name.clone()) {
                return Err(cx.say(item.pos, format!("{} is in this list twice", quote(&name))));
            }
            if seen.len() > SECRETS_MAX {
                return Err(cx.say(item.pos, format!("{SECRETS_MAX} secrets are the most")));
            }
            Ok(name)
        })
    })
}

pub(super) fn umask(node: &Node) -> Result<u32, Bad> {
    match &node.value {
        Value::Text(t) if !t.is_empty() && t.len() <= 4 && t.bytes().all(|b| b.is_ascii_digit()) => {
            u32::from_str_radix(t, 8).ok().filter(|m| *m <= 0o777).ok_or(Bad::Kind(None))
        }
        Value::Number(n) if n.len() <= 3 && n.bytes().all(|b| (b'0'..=b'7').contains(&b)) => {
            Err(Bad::Kind(Some(format!("\"{n:0>3}\""))))
        }
        _ => Err(Bad::Kind(None)),
    }
}

/// A word of a table.
pub(super) fn choice<T: Copy>(node: &Node, table: &[(&'static str, T)]) -> Result<T, Bad> {
    let Value::Text(t) = &node.value else { return Err(Bad::Kind(None)) };
    match table.iter().find(|(word, _)| word == t) {
        Some((_, value)) => Ok(*value),
        None => Err(Bad::Kind(nearest(t, table.iter().map(|(word, _)| *word)).map(quote))),
    }
}

pub(super) fn restart(node: &Node) -> Result<Restart, Bad> {
    let elsewhere = match &node.value {
        Value::Bool(true) => "always",
        Value::Bool(false) => "never",
        Value::Text(t) => match t.as_str() {
            "yes" | "true" | "unless-stopped" => "always",
            "no" | "none" | "off" | "false" => "never",
            "unexpected" | "on-abnormal" | "on-error" => "on-failure",
            _ => return choice(node, RESTARTS),
        },
        _ => return Err(Bad::Kind(None)),
    };
    Err(Bad::Kind(Some(quote(elsewhere))))
}

pub(super) fn rlimits(node: &Node, cx: &mut Cx<'_, '_>) -> Result<Vec<Rlimit>, Bad> {
    let limits = all(members(node)?.iter(), |m| {
        let known = RLIMITS.iter().find(|(name, _)| *name == m.key);
        let Some((name, bytes)) = known else {
            let lower = m.key.to_ascii_lowercase();
            let bare = lower.strip_prefix("rlimit_").unwrap_or(&lower).to_owned();
            let meant = nearest(&bare, RLIMITS.iter().map(|(name, _)| *name)).map(str::to_owned);
            return cx.in_key(&m.key, |cx| Err(cx.suggest(m.pos, "unknown resource limit", meant)));
        };
        cx.in_key(name, |cx| rlimit(name, *bytes, &m.node, cx))
    })?;
    Ok(RLIMITS.iter().filter_map(|(name, _)| limits.iter().find(|l| l.name == *name).cloned()).collect())
}

fn rlimit(name: &'static str, bytes: bool, node: &Node, cx: &mut Cx<'_, '_>) -> Result<Rlimit, Bad> {
    let Value::Object(parts) = &node.value else {
        let both = limit_value(node, bytes, cx)?;
        return Ok(Rlimit { name, soft: both, hard: both });
    };
    known_members(parts, &["soft", "hard"], cx)?;
    let mut part = |key: &str| match parts.iter().find(|m| m.key == key) {
        Some(m) => cx.in_key(key, |cx| limit_value(&m.node, bytes, cx)),
        None => Err(cx.say(node.pos, format!("{key} is missing; a limit is one value, or soft and hard"))),
    };
    let (soft, hard) = (part("soft"), part("hard"));
    let (soft, hard) = (soft?, hard?);
    let above = match (soft, hard) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(s), Some(h)) => s > h,
    };
    if above {
        return Err(cx.say(node.pos, "the soft limit is above the hard one"));
    }
    Ok(Rlimit { name, soft, hard })
}

fn limit_value(node: &Node, bytes: bool, cx: &mut Cx<'_, '_>) -> Result<Option<u64>, Bad> {
    let wants = if bytes { "a size or \"unlimited\"" } else { "a whole number or \"unlimited\"" };
    let example = if bytes { r#""64MiB""# } else { "4096" };
    let value = match &node.value {
        Value::Number(n) => n.parse().ok(),
        Value::Text(t) if t == "unlimited" => return Ok(None),
        Value::Text(t) if bytes => parse_size(t).ok(),
        Value::Text(t) if t.parse::<u64>().is_ok() => return Err(cx.kind(node, wants, example, Some(t.clone()))),
        _ => None,
    };
    match value.filter(|n| i64::try_from(*n).is_ok()) {
        Some(n) => Ok(Some(n)),
        None => {
            let endless = match &node.value {
                Value::Text(t)
                    if matches!(t.to_ascii_lowercase().as_str(), "infinity" | "infinite" | "none" | "max") =>
                {
                    Some("unlimited")
                }
                Value::Text(t) => nearest(t, ["unlimited"]),
                Value::Number(n) if n == "-1" => Some("unlimited"),
                _ => None,
            };
            Err(cx.kind(node, wants, example, endless.map(quote)))
        }
    }
}

/// Reports every member that is not one of these.
pub(super) fn known_members(members: &[Member], allowed: &[&str], cx: &mut Cx<'_, '_>) -> Result<(), Bad> {
    let mut unknown = false;
    for m in members.iter().filter(|m| !allowed.contains(&m.key.as_str())) {
        cx.unknown_key(m, allowed.iter().copied());
        unknown = true;
    }
    if unknown { Err(Bad::Said) } else { Ok(()) }
}

pub(super) fn needs(node: &Node, cx: &mut Cx<'_, '_>) -> Result<Vec<Need>, Bad> {
    let items = items(node)?;
    let mut seen = BTreeSet::new();
    all(items.iter().enumerate(), |(i, item)| {
        cx.in_index(i, |cx| {
            let (name_node, condition) = need_parts(item, cx)?;
            let Value::Text(name) = &name_node.value else {
                return Err(cx.kind(name_node, "the name of a service", r#""db""#, None));
            };
            if !seen.insert(name) {
                return Err(cx.say(name_node.pos, format!("{} is in this list twice", quote(name))));
            }
            cx.needs.push(NeedAt {
                path: cx.report.path(),
                pos: name_node.pos,
                from: cx.service.clone(),
                to: name.clone(),
                condition,
            });
            Ok(Need { name: name.clone(), condition })
        })
    })
}

/// A name alone means that the service is ready.
fn need_parts<'n>(item: &'n Node, cx: &mut Cx<'_, '_>) -> Result<(&'n Node, Condition), Bad> {
    let example = r#"{"name": "db", "condition": "started"}"#;
    match &item.value {
        Value::Text(_) => Ok((item, Condition::Ready)),
        Value::Object(parts) => {
            known_members(parts, &["name", "condition"], cx)?;
            let condition = match parts.iter().find(|m| m.key == "condition") {
                None => Condition::Ready,
                Some(m) => cx.in_key("condition", |cx| {
                    choice(&m.node, CONDITIONS).map_err(|bad| match bad {
                        Bad::Kind(meant) => cx.kind(&m.node, &words(CONDITIONS), "", meant),
                        Bad::Said => Bad::Said,
                    })
                })?,
            };
            match parts.iter().find(|m| m.key == "name") {
                Some(m) => Ok((&m.node, condition)),
                None => Err(cx.say(item.pos, format!("name is missing, as in {example}"))),
            }
        }
        _ => Err(cx.kind(item, "the name of a service, or an object", example, None)),
    }
}

pub(super) fn signal(node: &Node, cx: &mut Cx<'_, '_>) -> Result<Signal, Bad> {
    let (Value::Text(t) | Value::Number(t)) = &node.value else { return Err(Bad::Kind(None)) };
    let Some(number) = cx.platform.signal(t) else {
        if t.parse::<f64>().is_ok() {
            return Err(cx.say(node.pos, format!("signals have numbers from 1 to {SIGNAL_MAX}")));
        }
        let upper = t.to_ascii_uppercase();
        let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
        let near = nearest(bare, cx.platform.signals.iter().map(|(name, _)| *name));
        return Err(Bad::Kind(near.map(|name| format!("\"SIG{name}\""))));
    };
    if cx.platform.signal("STOP") == Some(number) {
        return Err(cx.say(node.pos, "SIGSTOP freezes a process; it never ends by it"));
    }
    Ok(Signal { number })
}

pub(super) fn grants(node: &Node, cx: &mut Cx<'_, '_>) -> Result<Vec<Grant>, Bad> {
    let Value::List(items) = &node.value else { return Err(Bad::Kind(None)) };
    let mut seen = BTreeSet::new();
    all(items.iter().enumerate(), |(i, item)| {
        cx.in_index(i, |cx| {
            let grant = grant(item, cx)?;
            let who = match &grant.who {
                Who::User(name) => ("user", name.clone()),
                Who::Group(name) => ("group", name.clone()),
            };
            if !seen.insert(who) {
                return Err(cx.say(item.pos, "there is already a level for this one"));
            }
            Ok(grant)
        })
    })
}

fn grant(node: &Node, cx: &mut Cx<'_, '_>) -> Result<Grant, Bad> {
    let example = r#"{"user": "alice", "level": "operate"}"#;
    let Value::Object(parts) = &node.value else {
        return Err(cx.kind(node, "an object", example, None));
    };
    known_members(parts, &["user", "group", "level"], cx)?;
    let find = |key: &str| parts.iter().find(|m| m.key == key);
    let (key, member) = match (find("user"), find("group")) {
        (Some(m), None) => ("user", m),
        (None, Some(m)) => ("group", m),
        _ => return Err(cx.say(node.pos, format!("wants exactly one of user and group, as in {example}"))),
    };
    let name = cx.in_key(key, |cx| {
        account(&member.node, cx).map_err(|bad| match bad {
            Bad::Kind(meant) => cx.kind(&member.node, "a name or a number", r#""alice""#, meant),
            Bad::Said => Bad::Said,
        })
    })?;
    let Some(level) = find("level") else {
        return Err(cx.say(node.pos, format!("level is missing: {}", words(ACCESSES))));
    };
    let level = cx.in_key("level", |cx| {
        choice(&level.node, ACCESSES).map_err(|bad| match bad {
            Bad::Kind(meant) => cx.kind(&level.node, &words(ACCESSES), "", meant),
            Bad::Said => Bad::Said,
        })
    })?;
    Ok(Grant { who: if key == "user" { Who::User(name) } else { Who::Group(name) }, level })
}
