//! The sockets that hob listens on for services: opened once, kept over runs and over daemons (the keeper holds each
//! under a label of its own), and watched while the first connection is to start their service. Those with a file are
//! opened in
//! the pool, because their paths may lead anywhere.

use super::bind::{Bind, Bound, Known, Trouble};
use super::paths::PathJob;
use super::{Children, Ctx, Setup, SpawnJob};
use crate::base::ids::RunId;
use crate::base::limits::FROZEN;
use crate::base::map::Map;
use crate::base::time::Mono;
use crate::config::{Address, Listen, ServiceSpec, UnixType};
use crate::core::Input;
use crate::daemon::source::Source;
use crate::sys::chan;
use crate::sys::net::serve::{self, FileId, Kind, Rights};
use crate::sys::reason;
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
/// How long a path may take to answer before whoever waits is told.
const ANSWER: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(super) struct Listeners {
    open: Map<Arc<str>, Vec<Socket>>,
    /// Services of which the pool is at the files of sockets.
    pending: Map<Arc<str>, Pending>,
    /// How often the pool was asked.
    count: u64,
    /// Addresses that were given up, and when.
    given_up: Map<String, Mono>,
    /// Services that wait for an address which the keeper is about to let go of.
    again: Map<Arc<str>, (Mono, Wish)>,
}

/// What is to be open, and for what.
#[derive(Debug)]
pub(super) struct Wish {
    pub(super) spec: Arc<ServiceSpec>,
    /// For the first connection, which is to be told.
    pub(super) watch: bool,
    /// For this start.
    pub(super) start: Option<Box<SpawnJob>>,
}

/// Sockets that are being opened.
#[derive(Debug)]
struct Pending {
    number: u64,
    wish: Wish,
    /// In the order of the config.
    parts: Vec<Part>,
    /// When whoever waits for them is told that a path does not answer; `None`: nobody does.
    until: Option<Mono>,
}

#[derive(Debug)]
enum Part {
    Open(Socket),
    Wrong(Refused),
    /// The pool is at its file; `Some`: it was open before.
    Asked(String, Option<Socket>),
}

/// How the sockets of a service are, and for whom that was found out.
#[derive(Debug)]
pub(super) struct Ensured {
    service: Arc<str>,
    wish: Wish,
    result: Result<Vec<Arc<OwnedFd>>, Refused>,
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
    file: Option<(PathBuf, FileId)>,
    /// The rest of what the config said, as far as it is known.
    of: Option<Listen>,
    /// It is watched.
    token: Option<Token>,
}

impl Socket {
    /// What a look at its file has to know.
    fn known(&self, listen: &Listen) -> Option<Known> {
        let changed = self.of.as_ref() != Some(listen);
        self.file.as_ref().map(|(_, file)| Known { fd: Arc::clone(&self.fd), file: *file, changed })
    }

    fn new(fd: OwnedFd, address: String, file: Option<(PathBuf, FileId)>, of: &Listen) -> Socket {
        Socket { fd: Arc::new(fd), address, file, of: Some(of.clone()), token: None }
    }

    fn label(&self, service: &str) -> String {
        let file = self.file.as_ref().map_or_else(|| "-".to_owned(), |(_, (dev, inode))| format!("{dev}:{inode}"));
        format!("{LABEL}{service} {file} {}", self.address)
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
    address_of(socket, &socket.at.path().map_or_else(PathBuf::new, |path| setup.config_dir.join(path)))
}

fn address_of(socket: &Listen, path: &Path) -> String {
    match (&socket.at, socket.at.path()) {
        (Address::Unix(kind, _), Some(_)) => format!("{}:{}", kind.scheme(), path.display()),
        (at, _) if socket.ipv6_only => format!("{at} ipv6_only"),
        (at, _) => at.to_string(),
    }
}

pub(super) fn kind(at: &Address) -> Kind {
    match at {
        Address::Tcp(_) | Address::Unix(UnixType::Stream, _) => Kind::Stream,
        Address::Udp(_) | Address::Unix(UnixType::Datagram, _) => Kind::Datagram,
        Address::Unix(UnixType::Seqpacket, _) => Kind::Seqpacket,
    }
}

pub(super) fn rights(setup: &Setup, socket: &Listen) -> Result<Rights, String> {
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
    /// Has the sockets of a service open, in the order of its config: those that are missing are opened, those of
    /// another config closed. What could be opened stays open whatever is wrong with the others. `None`: the pool is at
    /// their files first.
    fn ensure(
        &mut self,
        ctx: &mut Ctx<'_>,
        (setup, jobs): (&Arc<Setup>, &mut Vec<PathJob>),
        service: &Arc<str>,
        wish: Wish,
    ) -> Option<Ensured> {
        self.again.remove(service);
        if let Some(pending) = self.pending.get_mut(service)
            && pending.wish.spec.listen == wish.spec.listen
        {
            // A path that does not answer is asked once, whoever waits for it.
            pending.until = Some(ctx.now + ANSWER);
            pending.wish = wish;
            return None;
        }
        // Places may change.
        self.unwatch(ctx, service);
        let mut old = self.open.remove(service).unwrap_or_default();
        old.extend(self.pending.remove(service).into_iter().flat_map(|p| p.parts).filter_map(Part::socket));
        let wanted: Vec<(String, &Listen)> = wish.spec.listen.iter().map(|l| (address(setup, l), l)).collect();
        let mut kept = Vec::with_capacity(wanted.len());
        for (address, _) in &wanted {
            kept.push(old.iter().position(|s| s.address == *address).map(|at| old.remove(at)));
        }
        for socket in old {
            self.drop_one(ctx, jobs, service, socket);
        }
        self.given_up.retain(|_, at| ctx.now.since(*at) < LET_GO);
        self.count += 1;
        let mut parts = Vec::with_capacity(wanted.len());
        for (at, (known, (address, listen))) in kept.into_iter().zip(wanted).enumerate() {
            let path = listen.at.path().filter(|path| !path.starts_with('@')).map(|path| setup.config_dir.join(path));
            parts.push(match (path, known) {
                (Some(path), known) => {
                    let (service, setup, number) = (Arc::clone(service), Arc::clone(setup), self.count);
                    let listen = listen.clone();
                    let known_there = known.as_ref().and_then(|s| s.known(&listen));
                    let bind = Bind { service, number, at, path, listen, known: known_there, setup };
                    jobs.push(PathJob::Bind(Box::new(bind)));
                    Part::Asked(address, known)
                }
                (None, Some(socket)) => refresh(socket, listen).map_or_else(|e| Part::Wrong(e.into()), Part::Open),
                (None, None) => match open(listen) {
                    Ok(fd) => held(ctx, jobs, service, Socket::new(fd, address, None, listen)),
                    Err(e) => self.refused(&address, (e.kind(), reason(&e))),
                },
            });
        }
        let until = Some(ctx.now + ANSWER);
        self.settle(service, Pending { number: self.count, wish, parts, until })
    }

    /// Where hob closed this very address a moment ago, the keeper is about to hear of it.
    fn refused(&self, address: &str, (kind, why): Trouble) -> Part {
        Part::Wrong(Refused { why, soon: kind == io::ErrorKind::AddrInUse && self.given_up.contains_key(address) })
    }

    /// Takes note of sockets, and answers once the pool has no part in them any more.
    fn settle(&mut self, service: &Arc<str>, pending: Pending) -> Option<Ensured> {
        if pending.parts.iter().any(|p| matches!(p, Part::Asked(..))) {
            self.pending.insert(Arc::clone(service), pending);
            return None;
        }
        let mut wrong: Option<Refused> = None;
        let mut sockets = Vec::with_capacity(pending.parts.len());
        for (part, listen) in pending.parts.into_iter().zip(&pending.wish.spec.listen) {
            match part {
                Part::Open(socket) => sockets.push(socket),
                Part::Wrong(Refused { why, soon }) => {
                    let why = format!("cannot listen on {}: {why}", listen.at);
                    wrong = wrong.filter(|before| !before.soon || soon).or(Some(Refused { why, soon }));
                }
                Part::Asked(..) => {}
            }
        }
        let fds = sockets.iter().map(|s| Arc::clone(&s.fd)).collect();
        if !sockets.is_empty() {
            self.open.insert(Arc::clone(service), sockets);
        }
        Some(Ensured { service: Arc::clone(service), wish: pending.wish, result: wrong.map_or(Ok(fds), Err) })
    }

    /// The pool has looked at a file, or made it.
    fn bound(&mut self, ctx: &mut Ctx<'_>, jobs: &mut Vec<PathJob>, bound: Bound) -> Option<Ensured> {
        let Bound { service, number, at, path, listen, result } = bound;
        let current = self.pending.get_mut(&service).filter(|p| p.number == number);
        let Some(part) = current.and_then(|p| p.parts.get_mut(at)) else {
            // Nobody wants it any more.
            if let Ok(Some(made)) = result {
                let address = address_of(&listen, &path);
                self.remove(jobs, &address, made.file.map(|file| (path, file)));
                self.given_up.insert(address, ctx.now);
            }
            return None;
        };
        let none = Part::Wrong(String::new().into());
        let Part::Asked(address, known) = core::mem::replace(part, none) else { return None };
        let made = match (result, known) {
            (Ok(None), Some(socket)) => Part::Open(Socket { of: Some(listen), ..socket }),
            (Ok(Some(made)), known) => {
                // Clients would not have found that one. Its file has gone, and the new one may have its number.
                if let Some(known) = known {
                    ctx.link.release(&known.label(&service));
                }
                let file = made.file.map(|file| (path, file));
                held(ctx, jobs, &service, Socket::new(made.fd, address, file, &listen))
            }
            (Err(trouble), known) => {
                known.into_iter().for_each(|socket| self.drop_one(ctx, jobs, &service, socket));
                self.refused(&address, trouble)
            }
            (Ok(None), None) => Part::Wrong("it has gone".to_owned().into()),
        };
        let mut pending = self.pending.remove(&service)?;
        if let Some(part) = pending.parts.get_mut(at) {
            *part = made;
        }
        self.settle(&service, pending)
    }

    /// Whoever has waited for a path for long is told so; who asks again waits for the same answer.
    fn overdue(&mut self, now: Mono) -> Vec<Ensured> {
        let mut late = Vec::new();
        for (service, pending) in self.pending.iter_mut() {
            let Some(until) = pending.until.filter(|at| *at <= now) else { continue };
            if now.since(until) > FROZEN {
                // The machine stood still.
                pending.until = Some(now + ANSWER);
                continue;
            }
            pending.until = None;
            let spec = Arc::clone(&pending.wish.spec);
            let idle = Wish { spec, watch: false, start: None };
            let wish = core::mem::replace(&mut pending.wish, idle);
            let asked = pending.parts.iter().zip(&wish.spec.listen).find(|(p, _)| matches!(p, Part::Asked(..)));
            let at = asked.map_or_else(String::new, |(_, l)| l.at.to_string());
            let why = format!("cannot listen on {at}: its path does not answer; look at what is mounted there");
            late.push(Ensured { service: Arc::clone(service), wish, result: Err(why.into()) });
        }
        late
    }

    pub(super) fn next_deadline(&self) -> Option<Mono> {
        let pending = self.pending.values().filter_map(|p| p.until);
        self.again.values().map(|(at, _)| *at).chain(pending).min()
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
    pub(super) fn close(&mut self, ctx: &mut Ctx<'_>, jobs: &mut Vec<PathJob>, service: &str) {
        self.again.remove(service);
        let pending = self.pending.remove(service).into_iter().flat_map(|p| p.parts).filter_map(Part::socket);
        for socket in self.open.remove(service).unwrap_or_default().into_iter().chain(pending.collect::<Vec<_>>()) {
            self.drop_one(ctx, jobs, service, socket);
        }
    }

    pub(super) fn close_all(&mut self, ctx: &mut Ctx<'_>, jobs: &mut Vec<PathJob>) {
        for service in self.open.keys().chain(self.pending.keys()).cloned().collect::<Vec<_>>() {
            self.close(ctx, jobs, &service);
        }
    }

    /// The file goes, unless somebody else has put another one there.
    fn drop_one(&mut self, ctx: &mut Ctx<'_>, jobs: &mut Vec<PathJob>, service: &str, mut socket: Socket) {
        socket.unwatch(ctx);
        ctx.link.release(&socket.label(service));
        self.remove(jobs, &socket.address, socket.file);
        self.given_up.insert(socket.address, ctx.now);
    }

    /// Whoever is about to listen at an address replaces the file that is there, and the new one may have the number of
    /// the old one.
    fn remove(&self, jobs: &mut Vec<PathJob>, address: &str, file: Option<(PathBuf, FileId)>) {
        let asked = |p: &Part| matches!(p, Part::Asked(of, _) if of == address);
        if !self.pending.values().flat_map(|p| &p.parts).any(asked) {
            jobs.extend(file.map(|(path, id)| PathJob::Remove(path, id)));
        }
    }

    /// The start of this run does not wait for sockets any more.
    pub(super) fn forget_start(&mut self, run: RunId) {
        let again = self.again.values_mut().map(|(_, wish)| wish);
        let mut wishes = again.chain(self.pending.values_mut().map(|p| &mut p.wish));
        drop(wishes.find_map(|wish| wish.start.take_if(|job| job.start.run == run)));
    }

    /// The start that waits for the sockets of a service.
    fn take_start(&mut self, service: &str) -> Option<Box<SpawnJob>> {
        let again = self.again.get_mut(service).and_then(|(_, wish)| wish.start.take());
        again.or_else(|| self.pending.get_mut(service)?.wish.start.take())
    }
}

impl Part {
    fn socket(self) -> Option<Socket> {
        match self {
            Part::Open(socket) | Part::Asked(_, Some(socket)) => Some(socket),
            Part::Wrong(_) | Part::Asked(_, None) => None,
        }
    }
}

/// Has the keeper hold a socket. Without it, it is none.
fn held(ctx: &mut Ctx<'_>, jobs: &mut Vec<PathJob>, service: &str, socket: Socket) -> Part {
    match ctx.link.hold(&socket.label(service), &[socket.fd.as_fd()]) {
        Ok(()) => Part::Open(socket),
        Err(e) => {
            jobs.extend(socket.file.map(|(path, file)| PathJob::Remove(path, file)));
            Part::Wrong(reason(&e).into())
        }
    }
}

/// Opens what has no file.
fn open(listen: &Listen) -> io::Result<OwnedFd> {
    let kind = kind(&listen.at);
    match &listen.at {
        Address::Tcp(at) | Address::Udp(at) => serve::inet(kind, *at, listen.ipv6_only, listen.backlog),
        Address::Unix(_, name) => {
            let rights = Rights { mode: MODE, uid: None, gid: None };
            serve::unix(kind, Path::new(name), rights, listen.backlog).map(|(socket, _)| socket)
        }
    }
}

/// An open socket without a file gets what may be changed about it.
fn refresh(mut socket: Socket, listen: &Listen) -> Result<Socket, String> {
    if socket.of.as_ref() != Some(listen) {
        serve::set_backlog(socket.fd.as_fd(), kind(&listen.at), listen.backlog).map_err(|e| reason(&e))?;
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
        spec: &Arc<ServiceSpec>,
        watch: bool,
        inputs: &mut Vec<Input>,
    ) {
        self.wish(ctx, service, Wish { spec: Arc::clone(spec), watch, start: None }, inputs);
    }

    pub(super) fn wish(&mut self, ctx: &mut Ctx<'_>, service: &Arc<str>, mut wish: Wish, inputs: &mut Vec<Input>) {
        if let Some(start) = self.listeners.take_start(service) {
            if wish.start.is_none() && start.start.spec.listen == wish.spec.listen {
                wish.start = Some(start);
            } else {
                self.start_with(start, Err("its sockets are to be others".to_owned()), inputs);
            }
        }
        let ensured = self.listeners.ensure(ctx, (&self.setup, &mut self.path_jobs), service, wish);
        if let Some(ensured) = ensured {
            self.ensured(ctx, ensured, inputs);
        }
    }

    /// The pool is done with the file of a socket.
    pub(super) fn bound(&mut self, ctx: &mut Ctx<'_>, bound: Bound, inputs: &mut Vec<Input>) {
        if let Some(ensured) = self.listeners.bound(ctx, &mut self.path_jobs, bound) {
            self.ensured(ctx, ensured, inputs);
        }
    }

    fn ensured(&mut self, ctx: &mut Ctx<'_>, ensured: Ensured, inputs: &mut Vec<Input>) {
        let Ensured { service, wish, result } = ensured;
        if !wish.watch && wish.start.is_none() {
            // Whatever is wrong is told by the start that needs them.
            return;
        }
        if result.as_ref().is_err_and(|refused| refused.soon) {
            // Who stops a service and starts it at once is not told that its own address is in use.
            self.listeners.again.insert(service, (ctx.now + AGAIN, wish));
            return;
        }
        if let Some(start) = wish.start {
            let result = result.map_err(|refused| refused.why);
            return self.start_with(start, result, inputs);
        }
        let watched = result.map_err(|refused| refused.why).and_then(|_| {
            let why = |e: io::Error| format!("cannot watch the sockets of {service}: {}", reason(&e));
            self.listeners.watch(ctx, &service).map_err(why)
        });
        let waiting = watched.as_ref().ok().copied().flatten();
        inputs.push(Input::Listening { service: Arc::clone(&service), result: watched.map(drop) });
        if let Some(on) = waiting.and_then(|at| self.listeners.name(&service, at)) {
            inputs.push(Input::Connection { service, on, waiting: true });
        }
    }

    /// Tries again to open what the keeper had not let go of, and tells of paths that do not answer.
    pub(super) fn sockets_due(&mut self, ctx: &mut Ctx<'_>, inputs: &mut Vec<Input>) {
        let now = ctx.now;
        let due = self.listeners.again.iter().filter(|(_, (at, _))| *at <= now);
        for service in due.map(|(name, _)| Arc::clone(name)).collect::<Vec<_>>() {
            if let Some((_, wish)) = self.listeners.again.remove(&service) {
                self.wish(ctx, &service, wish, inputs);
            }
        }
        for ensured in self.listeners.overdue(now) {
            self.ensured(ctx, ensured, inputs);
        }
    }

    /// Closes the sockets of a service.
    pub fn close_sockets(&mut self, ctx: &mut Ctx<'_>, service: &str) {
        self.listeners.close(ctx, &mut self.path_jobs, service);
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
