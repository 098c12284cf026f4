//! Reader of `health`: what a ready service is asked again and again. Touches nothing.

use super::error::quote;
use super::keys::Span;
use super::read::{Bad, Cx};
use super::ready::{check_command, socket};
use super::spec::{Check, Endpoint, Health};
use super::tree::{Member, Node, Value};
use super::values::{integer, known_members, span};
use core::net::{IpAddr, Ipv6Addr, SocketAddr};
use core::time::Duration;

pub(super) const KINDS: [&str; 4] = ["command", "tcp", "http", "unix"];
pub(super) const MEMBERS: [&str; 7] = ["command", "tcp", "http", "unix", "every", "timeout", "retries"];
pub(super) const RETRIES_MAX: u32 = 1_000;
const PATH_MAX: usize = 1_024;
const HTTP_PORT: u16 = 80;

pub(super) fn health(node: &Node, cx: &mut Cx<'_, '_>) -> Result<Health, Bad> {
    let Value::Object(members) = &node.value else { return Err(Bad::Kind(None)) };
    let known = known_members(members, &MEMBERS, cx);
    let find = |key: &str| members.iter().find(|m| m.key == key);
    let mut kinds = members.iter().filter(|m| KINDS.contains(&m.key.as_str()));
    let check = match (kinds.next(), kinds.next()) {
        (Some(member), None) => cx.in_key(&member.key, |cx| check(member, cx)),
        _ => {
            let example = r#"{"http": "http://127.0.0.1:8080/health"}"#;
            Err(cx.say(node.pos, format!("wants exactly one of command, tcp, http and unix, as in {example}")))
        }
    };
    let every = find("every").map(|m| time(m, 100, cx)).transpose();
    let timeout = find("timeout").map(|m| time(m, 1, cx)).transpose();
    let retries = find("retries").map(|m| retries(m, cx)).transpose();
    known?;
    let mut health = Health::new(check?);
    health.every = every?.unwrap_or(health.every);
    health.timeout = timeout?.unwrap_or(health.timeout);
    health.retries = retries?.unwrap_or(health.retries);
    Ok(health)
}

fn time(member: &Member, min_ms: u64, cx: &mut Cx<'_, '_>) -> Result<Duration, Bad> {
    let allowed = Span { zero: Err("write a time, or leave the key out"), min: Duration::from_millis(min_ms) };
    cx.in_key(&member.key, |cx| match span(&member.node, allowed, cx) {
        Err(Bad::Kind(meant)) => Err(cx.kind(&member.node, "a duration", r#""5s""#, meant)),
        other => other,
    })
}

fn retries(member: &Member, cx: &mut Cx<'_, '_>) -> Result<u32, Bad> {
    cx.in_key(&member.key, |cx| match integer(&member.node, 1, RETRIES_MAX) {
        Err(Bad::Kind(meant)) => {
            Err(cx.kind(&member.node, &format!("a whole number from 1 to {RETRIES_MAX}"), "3", meant))
        }
        other => other,
    })
}

fn check(member: &Member, cx: &mut Cx<'_, '_>) -> Result<Check, Bad> {
    let node = &member.node;
    match member.key.as_str() {
        "command" => check_command(node, cx).map(Check::Command),
        "unix" => socket(node, cx).map(Check::Unix),
        "tcp" => tcp(node, cx).map(Check::Tcp),
        _ => http(node, cx),
    }
}

fn tcp(node: &Node, cx: &mut Cx<'_, '_>) -> Result<Endpoint, Bad> {
    let found = match &node.value {
        Value::Number(_) => integer(node, 1, u16::MAX).ok().map(|port| Endpoint { ip: None, port }),
        Value::Text(t) => match endpoint(t, None) {
            Ok(at) => Some(at),
            Err(Some(why)) => return Err(cx.say(node.pos, why)),
            Err(None) => None,
        },
        _ => None,
    };
    found.ok_or_else(|| cx.kind(node, "a port, or an address with a port", r#""127.0.0.1:8080""#, None))
}

/// `HOST:PORT`; the error says why the host cannot be used, where that is what is wrong.
fn endpoint(text: &str, port: Option<u16>) -> Result<Endpoint, Option<String>> {
    if let Ok(at) = text.parse::<SocketAddr>() {
        return if at.port() == 0 { Err(None) } else { Ok(Endpoint { ip: Some(at.ip()), port: at.port() }) };
    }
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).and_then(|t| t.parse::<Ipv6Addr>().ok());
    if let (Some(ip), Some(port)) = (bare, port) {
        return Ok(Endpoint { ip: Some(IpAddr::V6(ip)), port });
    }
    let (host, port) = match (text.rsplit_once(':'), port) {
        (Some((host, number)), _) => (host, number.parse().ok().filter(|p| *p > 0)),
        (None, port) => (text, port),
    };
    let port = port.ok_or(None)?;
    if host.eq_ignore_ascii_case("localhost") {
        return Ok(Endpoint { ip: None, port });
    }
    match host.parse::<IpAddr>() {
        Ok(ip @ IpAddr::V4(_)) => Ok(Endpoint { ip: Some(ip), port }),
        _ => Err(Some(format!("{} is neither an IP address nor localhost; names are not looked up", quote(host)))),
    }
}

fn http(node: &Node, cx: &mut Cx<'_, '_>) -> Result<Check, Bad> {
    let example = r#""http://127.0.0.1:8080/health""#;
    let Value::Text(url) = &node.value else { return Err(cx.kind(node, "a URL", example, None)) };
    if url.starts_with("https:") {
        return Err(cx.say(node.pos, "https is not spoken here; use http, or a command such as curl"));
    }
    let Some(rest) = url.strip_prefix("http://") else { return Err(cx.kind(node, "a URL", example, None)) };
    let split = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (host, path) = rest.split_at(split);
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let odd = path.chars().find(|c| !c.is_ascii_graphic() || *c == '#');
    if let Some(c) = odd {
        return Err(cx.say(node.pos, format!("{} cannot stand in the path of a URL", quote(&c.to_string()))));
    }
    if path.len() > PATH_MAX {
        return Err(cx.say(node.pos, format!("the path has {} bytes; {PATH_MAX} is the most", path.len())));
    }
    match endpoint(host, Some(HTTP_PORT)) {
        Ok(at) => Ok(Check::Http { at, path }),
        Err(Some(why)) => Err(cx.say(node.pos, why)),
        Err(None) => Err(cx.kind(node, "a URL", example, None)),
    }
}
