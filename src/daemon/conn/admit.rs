//! Who gets past accept: levels of access by user and group, and the limits on connections. Accepts on the listener
//! given.

use super::link::Link;
use super::share::Kind;
use super::wire::{Guard, Wire};
use super::{CLOSING_MAX, Conn, Conns};
use crate::base::ids::ConnId;
use crate::base::limits::CHANNELS_MAX;
use crate::config::Access;
use crate::core::Peer;
use crate::daemon::source::{Source, Sources};
use crate::protocol::frame::Framing;
use crate::protocol::rpc::{self, Code, RpcError};
use crate::sys::chan::Chan;
use crate::sys::net::{self, Credentials};
use mio::{Interest, Registry};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

/// Connections accepted in one turn while nobody who is in waits.
pub const ACCEPTED_MAX: usize = 64;

/// The levels of access by number. The daemon's own user and root are admin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Admission {
    /// The daemon's own user.
    pub own: u32,
    pub users: Vec<(u32, Access)>,
    pub groups: Vec<(u32, Access)>,
}

impl Admission {
    /// Whether anybody is granted anything.
    #[must_use]
    pub fn grants_any(&self) -> bool {
        !self.users.is_empty() || !self.groups.is_empty()
    }

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

/// As what somebody may pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pass {
    pub access: Access,
    /// No change of the config may lift it above this.
    pub most: Access,
    /// The service that its process belongs to.
    pub job: Option<Arc<str>>,
}

impl Pass {
    /// For a process of a service.
    #[must_use]
    pub fn of_job(job: &Arc<str>, access: Access) -> Pass {
        Pass { access, most: Access::Admin, job: Some(Arc::clone(job)) }
    }

    /// The same, and never more than this.
    #[must_use]
    pub fn at_most(self, most: Access) -> Pass {
        Pass { access: self.access.min(most), most, ..self }
    }
}

impl From<Access> for Pass {
    fn from(access: Access) -> Pass {
        Pass { access, most: Access::Admin, job: None }
    }
}

impl Pass {
    fn peer(&self, uid: u32, pid: u32) -> Peer {
        Peer { uid, pid, access: self.access, job: self.job.clone(), schedule: None }
    }
}

/// Why somebody who may pass is not served all the same.
enum Refused {
    Busy(RpcError),
    Io(io::Error),
}

/// Says who may pass, or why one may not.
pub(super) type Admit<'a> = dyn FnMut(&Credentials, BorrowedFd<'_>) -> Result<Pass, RpcError> + 'a;

/// What somebody is told whom nobody has granted anything.
pub(in crate::daemon) fn stranger(uid: u32) -> RpcError {
    RpcError::new(Code::PermissionDenied, format!("user {uid} has no access to this hob"))
        .hint("daemon.access in the config grants access to users and groups")
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
    /// Descriptors that clients have sent are still being closed: call again after [`super::ACCEPT_RETRY`].
    Behind,
}

impl Conns {
    /// Accepts what waits on the listener, at most so many.
    ///
    /// # Errors
    /// What the system answers beyond what is expected of accept; to be tried again after [`super::ACCEPT_RETRY`].
    pub fn accept(
        &mut self,
        listener: BorrowedFd<'_>,
        most: usize,
        registry: &Registry,
        sources: &mut Sources,
        admit: &mut Admit<'_>,
    ) -> io::Result<Accepted> {
        self.fill_reserve();
        for _ in 0..most {
            if self.closer.open() > CLOSING_MAX {
                return Ok(Accepted::Behind);
            }
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
            let stream = Guard::new(stream, true, &self.closer);
            // Without credentials it is gone already.
            if let Ok(cred) = net::credentials(stream.as_fd()) {
                self.admit(stream, cred, registry, sources, admit);
            }
        }
        Ok(Accepted::More)
    }

    fn admit(
        &mut self,
        stream: Guard<UnixStream>,
        cred: Credentials,
        registry: &Registry,
        sources: &mut Sources,
        admit: &mut Admit<'_>,
    ) {
        let pass = match admit(&cred, stream.as_fd()) {
            Ok(pass) => pass,
            Err(error) => return refuse(&stream, &error),
        };
        // If this fails the client sees its connection closed, and tries again.
        let _ = self.place_counted(stream, cred, pass, registry, sources);
    }

    /// Serves a connected socket, which must not block, as if it had been accepted.
    ///
    /// # Errors
    /// `Busy` as text when its user has too many; what the selector answers when it does not take it.
    pub fn adopt(
        &mut self,
        stream: UnixStream,
        cred: Credentials,
        pass: impl Into<Pass>,
        registry: &Registry,
        sources: &mut Sources,
    ) -> io::Result<ConnId> {
        self.place_counted(Guard::new(stream, true, &self.closer), cred, pass.into(), registry, sources).map_err(|e| {
            match e {
                Refused::Busy(e) => io::Error::other(e.message),
                Refused::Io(e) => e,
            }
        })
    }

    fn place_counted(
        &mut self,
        stream: Guard<UnixStream>,
        cred: Credentials,
        pass: Pass,
        registry: &Registry,
        sources: &mut Sources,
    ) -> Result<ConnId, Refused> {
        let who = pass.peer(cred.uid, cred.pid).owner();
        if let Err(error) = self.requests.shares.take(&who, Kind::Connection) {
            // Whoever was let in is told why; its socket is new, so that this is no wait.
            refuse(&stream, &error);
            return Err(Refused::Busy(error));
        }
        self.place(Wire::Stream(stream), cred, pass, registry, sources).map_err(|e| {
            self.requests.shares.give(&who, Kind::Connection, 1);
            Refused::Io(e)
        })
    }

    /// Serves the channel of a job (HOB_FD), whose user is `uid`. It counts for none of the connections that a job may
    /// open.
    ///
    /// # Errors
    /// When there are [`CHANNELS_MAX`] or the selector does not take it.
    pub fn adopt_channel(
        &mut self,
        chan: Chan,
        uid: u32,
        pass: Pass,
        registry: &Registry,
        sources: &mut Sources,
    ) -> io::Result<ConnId> {
        if self.channels >= CHANNELS_MAX {
            let what = format!("{CHANNELS_MAX} services have a channel (hob_fd), and no more can have one");
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, what));
        }
        let cred = Credentials { uid, gid: u32::MAX, pid: 0 };
        let wire = Wire::Messages(Guard::new(chan, false, &self.closer));
        let id = self.place(wire, cred, pass, registry, sources)?;
        self.channels += 1;
        Ok(id)
    }

    fn place(
        &mut self,
        wire: Wire,
        cred: Credentials,
        pass: Pass,
        registry: &Registry,
        sources: &mut Sources,
    ) -> io::Result<ConnId> {
        let fd = wire.as_raw_fd();
        let (decoder, most) = (wire.decoder(), pass.most);
        let mut link = Link::new(wire, cred, pass.peer(cred.uid, cred.pid));
        link.most = most;
        let conn = Conn { decoder, link };
        let id = self.conns.insert(conn).ok_or_else(|| io::Error::other("too many connections"))?;
        match sources.add(registry, fd, Interest::READABLE, Source::Conn(ConnId(id))) {
            Ok(token) => {
                if let Some(conn) = self.conns.get_mut(id) {
                    conn.link.token = token;
                }
                Ok(ConnId(id))
            }
            Err(e) => {
                self.conns.remove(id);
                Err(e)
            }
        }
    }

    /// What a connection that is gone had in its user's share.
    pub(super) fn give_back(&mut self, link: &Link) {
        let shares = &mut self.requests.shares;
        shares.give(&link.who, Kind::Request, link.pending);
        shares.give(&link.who, Kind::Subscription, link.subscriptions);
        shares.give(&link.who, Kind::Stream, link.streams.len());
        // Less is never refused.
        let _ = shares.hold(&link.who, link.held, 0);
        match link.wire {
            Wire::Stream(_) => shares.give(&link.who, Kind::Connection, 1),
            Wire::Messages(_) => self.channels -= 1,
        }
    }

    /// Turns one client away by giving up the descriptor in reserve for a moment.
    pub(super) fn refuse_by_reserve(&mut self, listener: BorrowedFd<'_>) -> io::Result<()> {
        if self.reserve.take().is_none() {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        let refused = net::accept(listener).map(|stream| {
            let error = RpcError::new(Code::Busy, "the daemon is out of descriptors");
            let stream = Guard::new(stream, true, &self.closer);
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
