//! What a service listens on: addresses, their text, and which of them get in each other's way. Touches nothing.

use core::fmt;
use core::net::{IpAddr, SocketAddr};

/// One socket that hob opens for a service and passes to its runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// What the service knows it by, in LISTEN_FDNAMES; `None`: the name of the service.
    pub name: Option<String>,
    pub at: Address,
    /// Connections that may wait to be accepted; `None`: as many as the system allows.
    pub backlog: Option<u32>,
    /// Mode of a socket's file; `None`: 0666.
    pub mode: Option<u32>,
    /// Owner of a socket's file; `None`: hob's own.
    pub user: Option<String>,
    pub group: Option<String>,
    /// An IPv6 socket that takes no connections by IPv4.
    pub ipv6_only: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    Tcp(SocketAddr),
    Udp(SocketAddr),
    /// A path, relative to the folder of the config, or `@name` for an abstract socket.
    Unix(UnixType, String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnixType {
    Stream,
    Datagram,
    Seqpacket,
}

impl Listen {
    /// An address with all else as the defaults are.
    #[must_use]
    pub const fn new(at: Address) -> Listen {
        Listen { name: None, at, backlog: None, mode: None, user: None, group: None, ipv6_only: false }
    }

    /// What a person is told that it is: its name where it has one.
    #[must_use]
    pub fn shown(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.at.to_string())
    }

    /// Whether a system could not have both open.
    #[must_use]
    pub fn collides(&self, other: &Listen) -> bool {
        let both = |a: &SocketAddr, b: &SocketAddr| {
            a.port() == b.port() && covers(a.ip(), self.ipv6_only, b.ip(), other.ipv6_only)
        };
        match (&self.at, &other.at) {
            (Address::Tcp(a), Address::Tcp(b)) | (Address::Udp(a), Address::Udp(b)) => both(a, b),
            (Address::Unix(_, a), Address::Unix(_, b)) => a == b,
            (Address::Tcp(_) | Address::Udp(_) | Address::Unix(..), _) => false,
        }
    }
}

/// Whether two addresses with the same port have something in common.
fn covers(a: IpAddr, a_only: bool, b: IpAddr, b_only: bool) -> bool {
    match (a, b) {
        (IpAddr::V4(x), IpAddr::V4(y)) => x == y || x.is_unspecified() || y.is_unspecified(),
        (IpAddr::V6(x), IpAddr::V6(y)) => x == y || x.is_unspecified() || y.is_unspecified(),
        (IpAddr::V6(x), IpAddr::V4(_)) => x.is_unspecified() && !a_only,
        (IpAddr::V4(_), IpAddr::V6(y)) => y.is_unspecified() && !b_only,
    }
}

impl Address {
    /// Whether connections are accepted there, rather than single messages received.
    #[must_use]
    pub const fn connects(&self) -> bool {
        match self {
            Address::Tcp(_) | Address::Unix(UnixType::Stream | UnixType::Seqpacket, _) => true,
            Address::Udp(_) | Address::Unix(UnixType::Datagram, _) => false,
        }
    }

    /// The path of its file, if it has one.
    #[must_use]
    pub fn path(&self) -> Option<&str> {
        match self {
            Address::Unix(_, path) if !path.starts_with('@') => Some(path),
            Address::Tcp(_) | Address::Udp(_) | Address::Unix(..) => None,
        }
    }
}

impl UnixType {
    /// How an address of this type begins.
    #[must_use]
    pub const fn scheme(self) -> &'static str {
        match self {
            UnixType::Stream => "unix",
            UnixType::Datagram => "unix-datagram",
            UnixType::Seqpacket => "unix-seqpacket",
        }
    }
}

/// As it is written in the config: `tcp:127.0.0.1:8080`, `unix:/run/app.sock`.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(at) => write!(f, "tcp:{at}"),
            Address::Udp(at) => write!(f, "udp:{at}"),
            Address::Unix(kind, path) => write!(f, "{}:{path}", kind.scheme()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_no_system_could_open_both_are_known() {
        let at = |text: &str, ipv6_only| {
            let at = match text.split_once(':') {
                Some(("tcp", at)) => Address::Tcp(at.parse().unwrap()),
                Some(("udp", at)) => Address::Udp(at.parse().unwrap()),
                _ => Address::Unix(UnixType::Stream, text.to_owned()),
            };
            Listen { ipv6_only, ..Listen::new(at) }
        };
        for (a, b, collide) in [
            (("tcp:1.2.3.4:80", false), ("tcp:1.2.3.4:80", false), true),
            (("tcp:1.2.3.4:80", false), ("tcp:1.2.3.4:81", false), false),
            (("tcp:1.2.3.4:80", false), ("tcp:1.2.3.5:80", false), false),
            (("tcp:1.2.3.4:80", false), ("udp:1.2.3.4:80", false), false),
            (("tcp:0.0.0.0:80", false), ("tcp:1.2.3.5:80", false), true),
            (("tcp:[::]:80", false), ("tcp:1.2.3.5:80", false), true),
            (("tcp:[::]:80", true), ("tcp:0.0.0.0:80", false), false),
            (("tcp:[::]:80", true), ("tcp:[::1]:80", false), true),
            (("tcp:[::1]:80", false), ("tcp:127.0.0.1:80", false), false),
            (("/run/a", false), ("/run/a", false), true),
            (("/run/a", false), ("/run/b", false), false),
        ] {
            assert_eq!(at(a.0, a.1).collides(&at(b.0, b.1)), collide, "{a:?} {b:?}");
            assert_eq!(at(b.0, b.1).collides(&at(a.0, a.1)), collide, "{b:?} {a:?}");
        }
    }
}
