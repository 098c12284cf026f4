//! Who gets past accept: levels of access by user and group, and the limits on connections. Accepts on the listener
//! given.

use super::link::Link;
use super::{Conn, Conns};
use crate::base::ids::ConnId;
use crate::base::limits::{CONNECTIONS_MAX, CONNECTIONS_PER_USER_MAX};
use crate::config::Access;
use crate::core::Peer;
use crate::daemon::source::{Source, Sources};
use crate::protocol::frame::{Decoder, Framing};
use crate::protocol::rpc::{self, Code, RpcError};
use crate::sys::net::{self, Credentials};
use mio::{Interest, Registry};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;

/// Connections accepted in one turn.
const PER_TURN: usize = 64;
/// Of all connections, those that only root and the daemon's own user may use.
const KEPT_FOR_ADMIN: usize = 64;

/// The levels of access by number. The daemon's own user and root are admin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Admission {
    /// The daemon's own user.
    pub own: u32,
    pub users: Vec<(u32, Access)>,
    pub groups: Vec<(u32, Access)>,
}

impl Admission {
    /// The highest level that a peer is granted. `groups` is asked only if it matters.
    #[must_use]
    pub fn level(&self, cred: &Credentials, groups: impl FnOnce() -> Vec<u32>) -> Option<Access> {
        if cred.uid == 0 || cred.uid == self.own {
            return Some(Access::Admin);
        }
        let by_user = self.users.iter().filter(|(uid, _)| *uid == cred.uid).map(|(_, level)| *level).max();
        if self.groups.is_empty() || by_user == Some(Access::Admin) {
            return by_user;
        }
        let of = groups();
        let member = |gid: &u32| *gid == cred.gid || of.contains(gid);
        let by_group = self.groups.iter().filter(|(gid, _)| member(gid)).map(|(_, level)| *level).max();
        by_user.max(by_group)
    }

    /// The same, for the peer of a connection.
    #[must_use]
    pub fn of(&self, cred: &Credentials, fd: BorrowedFd<'_>) -> Option<Access> {
        self.level(cred, || net::groups(fd))
    }
}

/// What is left to accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// Nothing; the listener will say when there is more.
    All,
    /// Perhaps more: call again in the next turn, without waiting.
    More,
    /// Descriptors or memory have run out: call again after [`super::ACCEPT_RETRY`].
    Starved,
}

impl Conns {
    /// Accepts what waits on the listener. `admit` says the level of access of a peer, or `None` to turn it away.
    ///
    /// # Errors
    /// What the system answers beyond what is expected of accept; to be tried again after [`super::ACCEPT_RETRY`].
    pub fn accept(
        &mut self,
        listener: BorrowedFd<'_>,
        registry: &Registry,
        sources: &mut Sources,
        admit: &mut dyn FnMut(&Credentials, BorrowedFd<'_>) -> Option<Access>,
    ) -> io::Result<Accepted> {
        self.fill_reserve();
        for _ in 0..PER_TURN {
            let stream = match net::accept(listener) {
                Ok(stream) => stream,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(Accepted::All),
                Err(e) if net::is_out_of_means(&e) => {
                    match self.refuse_by_reserve(listener) {
                        Ok(()) => continue,
                        // The system is out of descriptors even before it looks whether anybody waits.
                        Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(Accepted::All),
                        Err(_) => return Ok(Accepted::Starved),
                    }
                }
                Err(e) => return Err(e),
            };
            // Without credentials it is gone already.
            if let Ok(cred) = net::credentials(stream.as_fd()) {
                self.admit(stream, cred, registry, sources, admit);
            }
        }
        Ok(Accepted::More)
    }

    fn admit(
        &mut self,
        stream: UnixStream,
        cred: Credentials,
        registry: &Registry,
        sources: &mut Sources,
        admit: &mut dyn FnMut(&Credentials, BorrowedFd<'_>) -> Option<Access>,
    ) {
        let Some(access) = admit(&cred, stream.as_fd()) else {
            let error = RpcError::new(Code::PermissionDenied, format!("user {} has no access to this hob", cred.uid));
            return refuse(&stream, &error.hint("daemon.access in the config grants access to users and groups"));
        };
        if let Err(error) = self.check_limits(cred.uid) {
            return refuse(&stream, &error);
        }
        // If this fails the client sees its connection closed, and tries again.
        let _ = self.adopt(stream, cred, access, registry, sources);
    }

    /// Serves a connected socket, which must not block, as if it had been accepted.
    ///
    /// # Errors
    /// When the selector does not take it.
    pub fn adopt(
        &mut self,
        stream: UnixStream,
        cred: Credentials,
        access: Access,
        registry: &Registry,
        sources: &mut Sources,
    ) -> io::Result<ConnId> {
        let peer = Peer { uid: cred.uid, pid: cred.pid, access };
        let fd = stream.as_raw_fd();
        let conn = Conn { decoder: Decoder::new(), link: Link::new(stream, cred, peer) };
        let id = self.conns.insert(conn).ok_or_else(|| io::Error::other("too many connections"))?;
        match sources.add(registry, fd, Interest::READABLE, Source::Conn(ConnId(id))) {
            Ok(token) => {
                if let Some(conn) = self.conns.get_mut(id) {
                    conn.link.token = token;
                }
                *self.by_user.entry(cred.uid).or_insert(0) += 1;
                Ok(ConnId(id))
            }
            Err(e) => {
                self.conns.remove(id);
                Err(e)
            }
        }
    }

    pub(super) fn check_limits(&self, uid: u32) -> Result<(), RpcError> {
        let admin = uid == 0 || uid == self.own;
        let most = if admin { CONNECTIONS_MAX } else { CONNECTIONS_MAX - KEPT_FOR_ADMIN };
        let what = if self.conns.len() >= most {
            format!("{most} connections are open")
        } else if !admin && self.by_user.get(&uid).is_some_and(|n| *n >= CONNECTIONS_PER_USER_MAX) {
            format!("user {uid} has {CONNECTIONS_PER_USER_MAX} connections open")
        } else {
            return Ok(());
        };
        Err(RpcError::new(Code::Busy, what).hint("close some, or try again later"))
    }

    /// Turns one client away by giving up the descriptor in reserve for a moment.
    pub(super) fn refuse_by_reserve(&mut self, listener: BorrowedFd<'_>) -> io::Result<()> {
        if self.reserve.take().is_none() {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        let refused = net::accept(listener).map(|stream| {
            let error = RpcError::new(Code::Busy, "the daemon is out of descriptors");
            refuse(&stream, &error.hint("try again later, or raise its limit of open files"));
        });
        self.fill_reserve();
        refused
    }

    pub(super) fn fill_reserve(&mut self) {
        if self.reserve.is_none() {
            self.reserve = net::reserve().ok();
        }
    }
}

/// Says why in the client's framing, as far as it can be known, and closes.
fn refuse(mut stream: &UnixStream, error: &RpcError) {
    let framing = match net::first_byte(stream) {
        Some(0 | 1) => Framing::Binary,
        Some(b'C' | b'c') => Framing::Headers,
        _ => Framing::Lines,
    };
    let mut out = Vec::new();
    if framing.write(&mut out, &[&rpc::error_text("null", error)]).is_ok() {
        // The socket is new, so it takes a few hundred bytes, or nobody is there.
        let _ = stream.write(&out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_grant_counts() {
        let table = Admission {
            own: 500,
            users: vec![(1000, Access::Read), (1001, Access::Admin)],
            groups: vec![(10, Access::Operate), (20, Access::Read), (30, Access::Admin)],
        };
        let level = |uid, gid, groups: &[u32]| table.level(&Credentials { uid, gid, pid: 1 }, || groups.to_vec());
        assert_eq!(level(0, 0, &[]), Some(Access::Admin));
        assert_eq!(level(500, 0, &[]), Some(Access::Admin));
        assert_eq!(level(1000, 1, &[]), Some(Access::Read));
        assert_eq!(level(1000, 10, &[]), Some(Access::Operate), "the primary group counts");
        assert_eq!(level(1000, 1, &[20, 30]), Some(Access::Admin));
        assert_eq!(level(1001, 1, &[20]), Some(Access::Admin));
        assert_eq!(level(1002, 1, &[20]), Some(Access::Read));
        assert_eq!(level(1002, 1, &[21]), None);
        assert_eq!(Admission::default().level(&Credentials { uid: 7, gid: 0, pid: 1 }, || vec![0]), None);
    }
}
