//! The sockets that hob listens on for services: opened once, kept over runs and over daemons (the keeper holds each
//! under a label of its own), and watched while the first connection is to start their service.

use super::plan::reason;
use super::{Children, Ctx, Setup};
use crate::base::map::Map;
use crate::base::time::Mono;
use crate::config::{Address, Listen, ServiceSpec, UnixType};
use crate::core::Input;
use crate::daemon::source::Source;
use crate::sys::chan;
use crate::sys::net::serve::{self, Kind, Rights};
use crate::sys::user::Accounts;
use core::time::Duration;
use mio::{Interest, Token};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What the keeper knows them by: `listen/SERVICE FILE ADDRESS`.
pub const LABEL: &str = "listen/";
/// The mode of a socket's file where the config names none.
const MODE: u32 = 0o666;
/// The keeper needs a moment to let go of an address: so long after it was given up it is tried again, and so often.
const LET_GO: Duration = Duration::from_secs(1);
const AGAIN: Duration = Duration::from_millis(2);
/// How often a start tries, a millisecond apart.
const TRIES: u32 = 50;

#[derive(Debug, Default)]
pub(super) struct Listeners {
    open: Map<Arc<str>, Vec<Socket>>,
    /// Addresses that were given up, and when.
    given_up: Map<String, Mono>,
    /// Services that wait for an address which the keeper is about to let go of, until they can be watched.
    again: Map<Arc<str>, (Mono, Arc<ServiceSpec>)>,
}

/// Why a socket is not open.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) why: String,
    /// In a moment it is likely to succeed.
    soon: bool,
}

impl From<String> for Refused {
    fn from(why: String) -> Refused {
        Refused { why, soon: false }
    }
}

#[derive(Debug)]
struct Socket {
    fd: Arc<OwnedFd>,
    address: String,
    /// Its path and the identity of the file there, by which it is known that nobody else has put another.
    file: Option<(PathBuf, (u64, u64))>,
    /// The rest of what the config said, as far as it is known.
    of: Option<Listen>,
    /// It is watched.
    token: Option<Token>,
}

impl Socket {
    fn label(&self, service: &str) -> String {
        let file = self.file.as_ref().map_or_else(|| "-".to_owned(), |(_, (dev, inode))| format!("{dev}:{inode}"));
        format!("{LABEL}{service} {file} {}", self.address)
    }

    /// Whether clients still find it.
    fn is_found(&self) -> bool {
        self.file.as_ref().is_none_or(|(path, id)| serve::file_of(path) == Some(*id))
    }

    fn unwatch(&mut self, ctx: &mut Ctx<'_>) {
        if let Some(token) = self.token.take() {
            ctx.sources.remove(ctx.registry, self.fd.as_raw_fd(), token);
        }
    }
}

/// The service of a label.
#[must_use]
pub fn service_of(label: &str) -> Option<&str> {
    label.strip_prefix(LABEL)?.split(' ').next()
}

/// The address as it names a socket: with the whole path, and what cannot be changed about an open one.
fn address(setup: &Setup, socket: &Listen) -> String {
    match (&socket.at, socket.at.path()) {
        (Address::Unix(kind, _), Some(path)) => {
            format!("{}:{}", kind.scheme(), setup.config_dir.join(path).display())
        }
        (at, _) if socket.ipv6_only => format!("{at} ipv6_only"),
        (at, _) => at.to_string(),
    }
}

fn kind(at: &Address) -> Kind {
    match at {
        Address::Tcp(_) | Address::Unix(UnixType::Stream, _) => Kind::Stream,
        Address::Udp(_) | Address::Unix(UnixType::Datagram, _) => Kind::Datagram,
        Address::Unix(UnixType::Seqpacket, _) => Kind::Seqpacket,
    }
}

fn rights(setup: &Setup, socket: &Listen) -> Result<Rights, String> {
    let mut rights = Rights { mode: socket.mode.unwrap_or(MODE), uid: None, gid: None };
    if socket.user.is_none() && socket.group.is_none() {
        return Ok(rights);
    }
    let accounts = Accounts::read(&setup.etc)?;
    rights.uid =
        socket.user.as_ref().map(|user| accounts.user(user, socket.group.as_deref()).map(|u| u.uid)).transpose()?;
    rights.gid = socket.group.as_ref().map(|group| accounts.group(group)).transpose()?;
    Ok(rights)
}

impl Listeners {
    /// The sockets of a service in the order of its config: those that are missing are opened, those of another config
    /// closed. What could be opened stays open whatever is wrong with the others.
    pub(super) fn ensure(
        &mut self,
        ctx: &mut Ctx<'_>,
        setup: &Setup,
        service: &Arc<str>,
        spec: &ServiceSpec,
    ) -> Result<Vec<Arc<OwnedFd>>, Refused> {
        self.again.remove(service);
        if spec.listen.is_empty() {
            self.close(ctx, service);
            return Ok(Vec::new());
        }
        // Places may change.
        self.unwatch(ctx, service);
        let mut old = self.open.remove(service).unwrap_or_default();
        let mut kept = Vec::with_capacity(spec.listen.len());
        let wanted: Vec<(String, &Listen)> = spec.listen.iter().map(|l| (address(setup, l), l)).collect();
        for (address, _) in &wanted {
            let known = old.iter().position(|s| s.address == *address && s.is_found());
            kept.push(known.map(|at| old.remove(at)));
        }
        for socket in old {
            self.drop_one(ctx, service, socket);
        }
        let mut wrong: Option<Refused> = None;
        let mut sockets = Vec::with_capacity(kept.len());
        for (known, (address, listen)) in kept.into_iter().zip(wanted) {
            let socket = match known {
                Some(socket) => refresh(setup, socket, listen).map_err(Refused::from),
                None => self.open_one(ctx, setup, service, address, listen),
            };
            match socket {
                Ok(socket) => sockets.push(socket),
                Err(Refused { why, soon }) => {
                    let why = format!("cannot listen on {}: {why}", listen.at);
                    wrong = wrong.filter(|before| !before.soon || soon).or(Some(Refused { why, soon }));
                }
            }
        }
        let fds = sockets.iter().map(|s| Arc::clone(&s.fd)).collect();
        self.open.insert(Arc::clone(service), sockets);
        wrong.map_or(Ok(fds), Err)
    }

    fn open_one(
        &mut self,
        ctx: &mut Ctx<'_>,
        setup: &Setup,
        service: &str,
        address: String,
        listen: &Listen,
    ) -> Result<Socket, Refused> {
        let path = listen.at.path().map(|path| setup.config_dir.join(path));
        let rights = rights(setup, listen)?;
        self.given_up.retain(|_, at| ctx.now.since(*at) < LET_GO);
        let fd = open(listen, path.as_deref(), rights).map_err(|e| {
            // Where hob closed this very address a moment ago, the keeper is about to hear of it.
            let soon = e.kind() == io::ErrorKind::AddrInUse && self.given_up.contains_key(&address);
            Refused { why: reason(&e), soon }
        })?;
        let file = path.and_then(|path| serve::file_of(&path).map(|id| (path, id)));
        let socket = Socket { fd: Arc::new(fd), address, file, of: Some(listen.clone()), token: None };
        if let Err(e) = ctx.link.hold(&socket.label(service), &[socket.fd.as_fd()]) {
            remove_file(&socket);
            return Err(reason(&e).into());
        }
        Ok(socket)
    }

    pub(super) fn next_deadline(&self) -> Option<Mono> {
        self.again.values().map(|(at, _)| *at).min()
    }

    /// Takes back a socket that the keeper held while there was no daemon.
    pub(super) fn restore(&mut self, label: &str, fd: OwnedFd) -> Option<Arc<str>> {
        let mut parts = label.strip_prefix(LABEL)?.splitn(3, ' ');
        let (service, file, address) = (parts.next()?, parts.next()?, parts.next()?);
        let id = file.split_once(':').and_then(|(dev, inode)| Some((dev.parse().ok()?, inode.parse().ok()?)));
        let path = address.split_once(':').map(|(_, path)| PathBuf::from(path));
        let service: Arc<str> = service.into();
        let file = id.and_then(|id| Some((path?, id)));
        let socket = Socket { fd: Arc::new(fd), address: address.to_owned(), file, of: None, token: None };
        self.open.get_or(Arc::clone(&service), Vec::new).push(socket);
        Some(service)
    }

    /// Puts the sockets of a service into the poll set. Answers the first on which somebody waits already.
    fn watch(&mut self, ctx: &mut Ctx<'_>, service: &Arc<str>) -> io::Result<Option<usize>> {
        let mut waiting = None;
        for (at, socket) in self.open.get_mut(service).into_iter().flatten().enumerate() {
            let source = Source::Socket(Arc::clone(service), at);
            let fd = socket.fd.as_raw_fd();
            socket.token = Some(ctx.sources.add(ctx.registry, fd, Interest::READABLE, source)?);
            let [ready] = chan::wait([(Some(socket.fd.as_fd()), false)], Some(Duration::ZERO))?;
            waiting = waiting.or(ready.readable.then_some(at));
        }
        Ok(waiting)
    }

    fn unwatch(&mut self, ctx: &mut Ctx<'_>, service: &str) {
        self.open.get_mut(service).into_iter().flatten().for_each(|s| s.unwatch(ctx));
    }

    #[cfg(test)]
    pub(super) fn unwatch_all(&mut self, ctx: &mut Ctx<'_>) {
        self.open.values_mut().flatten().for_each(|s| s.unwatch(ctx));
    }

    /// What the watched socket at a place is called.
    fn name(&self, service: &str, at: usize) -> Option<Box<str>> {
        let socket = self.open.get(service)?.get(at).filter(|s| s.token.is_some())?;
        Some(socket.of.as_ref().map_or_else(|| socket.address.clone(), Listen::shown).into())
    }

    /// Closes all sockets of a service.
    pub(super) fn close(&mut self, ctx: &mut Ctx<'_>, service: &str) {
        self.again.remove(service);
        for socket in self.open.remove(service).unwrap_or_default() {
            self.drop_one(ctx, service, socket);
        }
    }

    pub(super) fn close_all(&mut self, ctx: &mut Ctx<'_>) {
        for (service, sockets) in core::mem::take(&mut self.open) {
            sockets.into_iter().for_each(|socket| self.drop_one(ctx, &service, socket));
        }
    }

    fn drop_one(&mut self, ctx: &mut Ctx<'_>, service: &str, mut socket: Socket) {
        socket.unwatch(ctx);
        remove_file(&socket);
        ctx.link.release(&socket.label(service));
        self.given_up.insert(socket.address, ctx.now);
    }
}

/// The file goes, unless somebody else has put another one there.
fn remove_file(socket: &Socket) {
    if let Some((path, id)) = &socket.file {
        // At worst a file stays that nobody listens behind, which the next one to listen there replaces.
        let _ = serve::remove(path, *id);
    }
}

fn open(listen: &Listen, path: Option<&Path>, rights: Rights) -> io::Result<OwnedFd> {
    let kind = kind(&listen.at);
    match &listen.at {
        Address::Tcp(at) | Address::Udp(at) => serve::inet(kind, *at, listen.ipv6_only, listen.backlog),
        Address::Unix(_, name) => serve::unix(kind, path.unwrap_or(Path::new(name)), rights, listen.backlog),
    }
}

/// An open socket gets what may be changed about it.
fn refresh(setup: &Setup, mut socket: Socket, listen: &Listen) -> Result<Socket, String> {
    if socket.of.as_ref() != Some(listen) {
        let changed = serve::set_backlog(socket.fd.as_fd(), kind(&listen.at), listen.backlog);
        changed.map_err(|e| reason(&e))?;
        if let Some((path, id)) = &socket.file {
            serve::set_rights(path, rights(setup, listen)?, *id).map_err(|e| reason(&e))?;
        }
        socket.of = Some(listen.clone());
    }
    Ok(socket)
}

impl Children {
    /// Has the sockets of a service open, and watches for the first connection where the core waits for one.
    pub fn open_sockets(
        &mut self,
        ctx: &mut Ctx<'_>,
        service: &Arc<str>,
        spec: &ServiceSpec,
        watch: bool,
        inputs: &mut Vec<Input>,
    ) {
        let ensured = self.listeners.ensure(ctx, &self.setup, service, spec);
        if !watch {
            // Whatever is wrong is told by the start that needs them.
            return;
        }
        if ensured.as_ref().is_err_and(|refused| refused.soon) {
            self.listeners.again.insert(Arc::clone(service), (ctx.now + AGAIN, Arc::new(spec.clone())));
            return;
        }
        let watched = ensured.map_err(|refused| refused.why).and_then(|_| {
            let why = |e: io::Error| format!("cannot watch the sockets of {service}: {}", reason(&e));
            self.listeners.watch(ctx, service).map_err(why)
        });
        let waiting = watched.as_ref().ok().copied().flatten();
        inputs.push(Input::Listening { service: Arc::clone(service), result: watched.map(drop) });
        if let Some(on) = waiting.and_then(|at| self.listeners.name(service, at)) {
            inputs.push(Input::Connection { service: Arc::clone(service), on, waiting: true });
        }
    }

    /// The sockets that a start needs. Who stops a service and starts it at once is not told that its own address is in
    /// use, so the moment that the keeper takes to let go of it is waited for.
    pub(super) fn sockets_of(
        &mut self,
        ctx: &mut Ctx<'_>,
        service: &Arc<str>,
        spec: &ServiceSpec,
    ) -> Result<Vec<Arc<OwnedFd>>, String> {
        for _ in 0..TRIES {
            match self.listeners.ensure(ctx, &self.setup, service, spec) {
                Err(refused) if refused.soon => std::thread::sleep(Duration::from_millis(1)),
                other => return other.map_err(|refused| refused.why),
            }
        }
        self.listeners.ensure(ctx, &self.setup, service, spec).map_err(|refused| refused.why)
    }

    /// Tries again to open what the keeper had not let go of.
    pub(super) fn sockets_due(&mut self, ctx: &mut Ctx<'_>, inputs: &mut Vec<Input>) {
        let now = ctx.now;
        let due = self.listeners.again.iter().filter(|(_, (at, _))| *at <= now);
        for (service, spec) in due.map(|(name, (_, spec))| (Arc::clone(name), Arc::clone(spec))).collect::<Vec<_>>() {
            self.open_sockets(ctx, &service, &spec, true, inputs);
        }
    }

    /// Closes the sockets of a service.
    pub fn close_sockets(&mut self, ctx: &mut Ctx<'_>, service: &str) {
        self.listeners.close(ctx, service);
    }

    /// Somebody connects to a watched socket.
    pub fn connected(&mut self, service: &Arc<str>, at: usize, inputs: &mut Vec<Input>) {
        if let Some(on) = self.listeners.name(service, at) {
            inputs.push(Input::Connection { service: Arc::clone(service), on, waiting: false });
        }
    }

    /// Takes back a socket that the keeper held. Answers its service; `None` for a label that is none of a socket.
    pub fn restore_socket(&mut self, label: &str, fd: OwnedFd) -> Option<Arc<str>> {
        self.listeners.restore(label, fd)
    }
}
