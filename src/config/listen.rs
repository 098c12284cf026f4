//! Reader of `listen`: the sockets that hob opens for a service. Touches nothing.

use super::address::{Address, Listen, UnixType};
use super::error::{Pos, Report, quote};
use super::read::{Bad, Cx, words};
use super::ready::{FD_MIN, socket};
use super::spec::{Ready, Restart, ServiceSpec};
use super::tree::{Member, Node, Value};
use super::values::{account, all, choice, flag, integer, known_members, umask};
use crate::base::limits::LISTEN_MAX;
use core::net::{IpAddr, SocketAddr};
use std::collections::BTreeMap;

pub(super) const KINDS: [&str; 3] = ["tcp", "udp", "unix"];
pub(super) const MEMBERS: [&str; 10] =
    ["tcp", "udp", "unix", "name", "type", "backlog", "mode", "user", "group", "ipv6_only"];
pub(super) const TYPES: &[(&str, UnixType)] =
    &[("stream", UnixType::Stream), ("datagram", UnixType::Datagram), ("seqpacket", UnixType::Seqpacket)];
pub(super) const BACKLOG_MAX: u32 = 65_535;
const NAME_MAX: usize = 255;
pub(super) const WANTS: &str = "an address, an object with tcp, udp or unix, or a list of these";
const EXAMPLE: &str = r#""tcp:127.0.0.1:8080""#;

/// One socket, with its place.
#[derive(Debug)]
pub(super) struct ListenAt {
    path: String,
    pos: Pos,
    service: String,
    socket: Listen,
}

pub(super) fn listen(node: &Node, cx: &mut Cx<'_, '_>) -> Result<Vec<Listen>, Bad> {
    let found = match &node.value {
        Value::List(items) => all(items.iter().enumerate(), |(i, item)| {
            cx.in_index(i, |cx| match one(item, cx) {
                Err(Bad::Kind(meant)) => Err(cx.kind(item, "an address, or an object with one", EXAMPLE, meant)),
                other => other,
            })
        })?,
        _ => vec![one(node, cx)?],
    };
    if found.len() > LISTEN_MAX {
        return Err(cx.say(node.pos, format!("{} sockets; {LISTEN_MAX} are the most", found.len())));
    }
    Ok(found)
}

fn one(node: &Node, cx: &mut Cx<'_, '_>) -> Result<Listen, Bad> {
    let found = match &node.value {
        Value::Text(t) => Listen::new(address(t, node, cx)?),
        Value::Object(members) => object(members, node, cx)?,
        _ => return Err(Bad::Kind(None)),
    };
    cx.listens.push(ListenAt {
        path: cx.report.path(),
        pos: node.pos,
        service: cx.service.clone(),
        socket: found.clone(),
    });
    Ok(found)
}

/// `SCHEME:ADDRESS`.
fn address(text: &str, node: &Node, cx: &mut Cx<'_, '_>) -> Result<Address, Bad> {
    let rest = |rest: &str| Node { value: Value::Text(rest.to_owned()), ..node.clone() };
    match text.split_once(':') {
        Some(("tcp", at)) => endpoint(at, "tcp:", node.pos, cx).map(Address::Tcp),
        Some(("udp", at)) => endpoint(at, "udp:", node.pos, cx).map(Address::Udp),
        Some((scheme, path)) if TYPES.iter().any(|(_, t)| t.scheme() == scheme) => {
            let kind = TYPES.iter().find(|(_, t)| t.scheme() == scheme).map_or(UnixType::Stream, |(_, t)| *t);
            Ok(Address::Unix(kind, socket(&rest(path), cx)?))
        }
        _ if text.starts_with(['/', '@', '.']) => Err(Bad::Kind(Some(quote(&format!("unix:{text}"))))),
        _ if text.parse::<SocketAddr>().is_ok() => Err(Bad::Kind(Some(quote(&format!("tcp:{text}"))))),
        _ => Err(Bad::Kind(None)),
    }
}

/// An IP address with a port. `before` is what stands before it in what is suggested.
fn endpoint(text: &str, before: &str, pos: Pos, cx: &mut Cx<'_, '_>) -> Result<SocketAddr, Bad> {
    if let Ok(at) = text.parse::<SocketAddr>() {
        return match at.port() {
            0 => Err(cx.say(pos, "a port has a number from 1 to 65535")),
            _ => Ok(at),
        };
    }
    let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
    let Some(port) = port.parse::<u16>().ok().filter(|p| *p > 0) else {
        return Err(cx.say(pos, format!("wants an address and a port from 1 to 65535, as in {before}127.0.0.1:8080")));
    };
    let (message, meant) = match host {
        "" => ("an address is missing before the port; [::] is every address of this machine".to_owned(), "127.0.0.1"),
        "*" => ("every address of this machine is written [::]".to_owned(), "[::]"),
        _ if host.eq_ignore_ascii_case("localhost") => {
            ("localhost may stand for several addresses; write the one that is meant".to_owned(), "127.0.0.1")
        }
        _ => {
            let why = format!("{} is no IP address; names are not looked up", quote(host));
            let bare = host.parse::<IpAddr>().ok().map(|ip| quote(&format!("{before}[{ip}]:{port}")));
            return Err(cx.suggest(pos, why, bare));
        }
    };
    Err(cx.suggest(pos, message, Some(quote(&format!("{before}{meant}:{port}")))))
}

fn object(members: &[Member], node: &Node, cx: &mut Cx<'_, '_>) -> Result<Listen, Bad> {
    let known = known_members(members, &MEMBERS, cx);
    let find = |key: &str| members.iter().find(|m| m.key == key);
    let mut kinds = members.iter().filter(|m| KINDS.contains(&m.key.as_str()));
    let at = match (kinds.next(), kinds.next()) {
        (Some(member), None) => place(member, find("type"), cx),
        _ => {
            Err(cx.say(node.pos, format!("wants exactly one of tcp, udp and unix, as in {{\"tcp\": {}}}", EXAMPLE_AT)))
        }
    };
    let name = find("name").map(|m| cx.in_key("name", |cx| name(&m.node, cx))).transpose();
    let wants = format!("a whole number from 1 to {BACKLOG_MAX}");
    let backlog = find("backlog").map(|m| value(m, &wants, "128", cx, |n, _| integer(n, 1, BACKLOG_MAX))).transpose();
    let mode = find("mode").map(|m| value(m, "an octal mode in quotes", r#""0660""#, cx, |n, _| umask(n))).transpose();
    let mut owner = |key: &str| {
        let read = |m: &Member| value(m, "a name or a number", r#""www""#, cx, account);
        find(key).map(read).transpose()
    };
    let (user, group) = (owner("user"), owner("group"));
    let only = find("ipv6_only").map(|m| value(m, "true or false", "true", cx, |n, _| flag(n))).transpose();
    known?;
    let at = at?;
    let socket = Listen {
        name: name?,
        at,
        backlog: backlog?,
        mode: mode?,
        user: user?,
        group: group?,
        ipv6_only: only?.unwrap_or(false),
    };
    fits(&socket, members, cx)?;
    Ok(socket)
}

const EXAMPLE_AT: &str = r#""127.0.0.1:8080""#;

fn place(member: &Member, kind: Option<&Member>, cx: &mut Cx<'_, '_>) -> Result<Address, Bad> {
    let node = &member.node;
    let inet = |cx: &mut Cx<'_, '_>| match &node.value {
        Value::Text(t) => endpoint(t, "", node.pos, cx),
        Value::Number(n) => endpoint(n, "", node.pos, cx),
        _ => Err(cx.kind(node, "an address with a port", EXAMPLE_AT, None)),
    };
    let at = cx.in_key(&member.key, |cx| match member.key.as_str() {
        "tcp" => inet(cx).map(Address::Tcp),
        "udp" => inet(cx).map(Address::Udp),
        _ => socket(node, cx).map(|path| Address::Unix(UnixType::Stream, path)),
    });
    let Some(kind) = kind else { return at };
    let read = value(kind, &words(TYPES), "", cx, |n, _| choice(n, TYPES));
    match (at?, read?) {
        (Address::Unix(_, path), kind) => Ok(Address::Unix(kind, path)),
        _ => Err(cx.in_key("type", |cx| cx.say(kind.pos, "only a unix socket has a type; udp is of datagrams"))),
    }
}

/// One member, with what it wants in words.
fn value<'c, 'f, T>(
    member: &Member,
    wants: &str,
    example: &str,
    cx: &mut Cx<'c, 'f>,
    read: impl FnOnce(&Node, &mut Cx<'c, 'f>) -> Result<T, Bad>,
) -> Result<T, Bad> {
    cx.in_key(&member.key, |cx| match read(&member.node, cx) {
        Err(Bad::Kind(meant)) => Err(cx.kind(&member.node, wants, example, meant)),
        other => other,
    })
}

/// As sd_listen_fds_with_names(3) has it: the names are told with colons between them.
fn name(node: &Node, cx: &mut Cx<'_, '_>) -> Result<String, Bad> {
    let Value::Text(t) = &node.value else { return Err(cx.kind(node, "a name", r#""http""#, None)) };
    let fits = t.bytes().all(|b| (b.is_ascii_graphic() || b == b' ') && b != b':');
    if t.is_empty() || t.len() > NAME_MAX || !fits {
        let why = format!("the name of a socket has 1 to {NAME_MAX} characters of ASCII, and no colon");
        return Err(cx.say(node.pos, why));
    }
    Ok(t.clone())
}

/// Members that mean nothing for this address.
fn fits(socket: &Listen, members: &[Member], cx: &mut Cx<'_, '_>) -> Result<(), Bad> {
    let file = socket.at.path().is_some();
    let (of_file, six) = ("only a unix socket with a path has a file", matches_six(&socket.at));
    let wrong = [
        ("mode", !file, of_file),
        ("user", !file, of_file),
        ("group", !file, of_file),
        ("backlog", !socket.at.connects(), "nobody waits to be accepted where datagrams come"),
        ("ipv6_only", !six, "only an IPv6 address can be that"),
    ];
    let mut result = Ok(());
    for member in members {
        if let Some((key, _, why)) = wrong.iter().find(|(key, wrong, _)| *key == member.key && *wrong) {
            result = Err(cx.in_key(key, |cx| cx.say(member.pos, *why)));
        }
    }
    result
}

fn matches_six(at: &Address) -> bool {
    match at {
        Address::Tcp(at) | Address::Udp(at) => at.is_ipv6(),
        Address::Unix(..) => false,
    }
}

/// What does not go together in one service.
pub(super) fn together(spec: &ServiceSpec, members: &[Member], cx: &mut Cx<'_, '_>) {
    let find = |name: &str| members.iter().find(|m| m.key == name);
    let place = |name: &str| find(name).map(|m| m.pos);
    let none = find("listen").is_none_or(|m| matches!(&m.node.value, Value::List(items) if items.is_empty()));
    let mut say = |key: &str, why: String, meant: Option<String>| {
        if let Some(pos) = place(key) {
            cx.in_key(key, |cx| cx.report.suggest(pos, why, meant));
        }
    };
    if spec.on_demand && none {
        let why = "wants an address in \"listen\": the first connection there starts the service";
        say("on_demand", why.to_owned(), None);
    }
    if spec.on_demand && spec.oneshot {
        say("on_demand", "a oneshot ends by itself and serves no connections".to_owned(), None);
    }
    if spec.on_demand && !spec.oneshot && spec.restart == Restart::Always {
        let why = "what is always restarted waits for no connection".to_owned();
        say("restart", why, Some(quote("on-failure")));
    }
    let count = i32::try_from(spec.listen.len()).unwrap_or(i32::MAX);
    if let Ready::Fd(fd) = spec.ready
        && (FD_MIN..FD_MIN.saturating_add(count)).contains(&fd)
    {
        let next = FD_MIN.saturating_add(count);
        let why = format!("the sockets of \"listen\" are passed as descriptors from {FD_MIN} on");
        say("ready", why, Some(format!("{{\"fd\": {next}}}")));
    }
}

/// Reports every socket whose address another one has.
pub(super) fn check(listens: &[ListenAt], report: &mut Report<'_>) {
    let mut seen: BTreeMap<(u8, u16, &str), Vec<&ListenAt>> = BTreeMap::new();
    for l in listens {
        let group = match &l.socket.at {
            Address::Tcp(at) => (0, at.port(), ""),
            Address::Udp(at) => (1, at.port(), ""),
            Address::Unix(_, path) => (2, 0, path.as_str()),
        };
        let group = seen.entry(group).or_default();
        if let Some(other) = group.iter().find(|o| o.socket.collides(&l.socket)) {
            let whose = if other.service == l.service { "this service".to_owned() } else { other.service.clone() };
            let message = if other.socket.at == l.socket.at {
                format!("{whose} listens on {} already", l.socket.at)
            } else {
                format!(
                    "{whose} listens on {} already, and {} is part of that or takes it in",
                    other.socket.at, l.socket.at
                )
            };
            report.add_at(l.path.clone(), l.pos, message, None);
        }
        group.push(l);
    }
}
