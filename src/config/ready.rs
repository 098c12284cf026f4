//! Reader of `ready`: how it is found out that a service does its work. Touches nothing.

use super::error::quote;
use super::read::{Bad, Cx};
use super::spec::Ready;
use super::tree::{Member, Node, Value};
use super::values::{command, integer, known_members, path};
use crate::base::near::nearest;
use regex_lite::RegexBuilder;

/// Memory of one compiled pattern, in bytes.
const PATTERN_SIZE_MAX: usize = 1024 * 1024;
/// Descriptors that a service may be told to write its line to; 0, 1 and 2 are taken.
pub(super) const FD_MIN: i32 = 3;
pub(super) const FD_MAX: i32 = 255;
/// Bytes of a socket's path at most, as the smallest system has it.
pub(super) const SOCKET_PATH_MAX: usize = 103;

/// What may stand alone, and the members of which one stands in an object.
pub(super) const WORDS: [&str; 2] = ["spawned", "notify"];
pub(super) const KINDS: &[&str] = &["port", "log", "fd", "socket", "command"];

pub(super) fn ready(node: &Node, cx: &mut Cx<'_, '_>) -> Result<Ready, Bad> {
    let members = match &node.value {
        Value::Text(t) if t == "spawned" => return Ok(Ready::Spawned),
        Value::Text(t) if t == "notify" => return Ok(Ready::Notify),
        Value::Text(t) => return Err(Bad::Kind(nearest(t, WORDS).map(quote))),
        Value::Object(members) => members,
        _ => return Err(Bad::Kind(None)),
    };
    let member = only(members, KINDS, r#"{"port": 8080}"#, node, cx)?;
    cx.in_key(&member.key, |cx| match member.key.as_str() {
        "port" => port(&member.node, cx).map(Ready::Port),
        "log" => pattern(&member.node, cx),
        "fd" => descriptor(&member.node, cx),
        "socket" => socket(&member.node, cx).map(Ready::Socket),
        _ => check_command(&member.node, cx).map(Ready::Command),
    })
}

/// The one member of an object that has to have exactly one of these.
pub(super) fn only<'n>(
    members: &'n [Member],
    kinds: &[&str],
    example: &str,
    node: &Node,
    cx: &mut Cx<'_, '_>,
) -> Result<&'n Member, Bad> {
    known_members(members, kinds, cx)?;
    match members {
        [member] => Ok(member),
        _ => {
            let (last, rest) = kinds.split_last().unwrap_or((&"", &[]));
            let message = format!("wants exactly one of {} and {last}, as in {example}", rest.join(", "));
            Err(cx.say(node.pos, message))
        }
    }
}

/// Says what is wanted where the value is not of that kind.
fn wanted<T>(result: Result<T, Bad>, node: &Node, cx: &mut Cx<'_, '_>, wants: &str, example: &str) -> Result<T, Bad> {
    result.map_err(|bad| match bad {
        Bad::Kind(meant) => cx.kind(node, wants, example, meant),
        Bad::Said => Bad::Said,
    })
}

pub(super) fn port(node: &Node, cx: &mut Cx<'_, '_>) -> Result<u16, Bad> {
    // The instances of a service each have their own by "80%i".
    if let (Some(_), Value::Text(text)) = (&cx.instance, &node.value)
        && let Some(port) = text.parse().ok().filter(|port| *port > 0)
    {
        return Ok(port);
    }
    wanted(integer(node, 1, u16::MAX), node, cx, "a port from 1 to 65535", "8080")
}

fn descriptor(node: &Node, cx: &mut Cx<'_, '_>) -> Result<Ready, Bad> {
    let number = integer(node, FD_MIN, FD_MAX).map(Ready::Fd);
    wanted(number, node, cx, &format!("a descriptor from {FD_MIN} to {FD_MAX}"), "3")
}

pub(super) fn socket(node: &Node, cx: &mut Cx<'_, '_>) -> Result<String, Bad> {
    let found = path(node, cx);
    let found = wanted(found, node, cx, "the path of a socket, or @name", r#""/run/app.sock""#)?;
    if found.len() > SOCKET_PATH_MAX || found == "@" {
        return Err(cx.say(node.pos, format!("the path of a socket has 1 to {SOCKET_PATH_MAX} bytes")));
    }
    Ok(found)
}

pub(super) fn check_command(node: &Node, cx: &mut Cx<'_, '_>) -> Result<Vec<String>, Bad> {
    let found = command(node, cx);
    wanted(found, node, cx, "a list of texts, or one text for the shell", r#"["pg_isready", "-q"]"#)
}

fn pattern(node: &Node, cx: &mut Cx<'_, '_>) -> Result<Ready, Bad> {
    match &node.value {
        Value::Text(t) if t.is_empty() => Err(cx.say(node.pos, "an empty pattern fits any line; write \".\" for that")),
        Value::Text(t) => match RegexBuilder::new(t).size_limit(PATTERN_SIZE_MAX).build() {
            Ok(_) => Ok(Ready::Log(t.clone())),
            Err(why) => Err(cx.say(node.pos, format!("not a regular expression: {why}"))),
        },
        _ => Err(cx.kind(node, "a regular expression", r#""listening on""#, None)),
    }
}
