//! Readiness by port or socket: connects until somebody answers. No thread and no tick: an attempt is a descriptor in
//! the poll set, a pause a deadline. A Unix socket is tried in the pool.

use super::Ctx;
use super::paths::{Asker, PathJob, Reaches};
use crate::base::ids::RunId;
use crate::base::map::Map;
use crate::base::time::Mono;
use crate::daemon::source::Source;
use core::time::Duration;
use mio::net::TcpStream;
use mio::{Interest, Token};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::path::PathBuf;

/// The pause after a round of failed attempts, and what it doubles up to.
const PAUSE_FIRST: Duration = Duration::from_millis(20);
const PAUSE_LAST: Duration = Duration::from_millis(500);
/// How long one attempt may take: a listener whose queue is full does not answer at all.
const ATTEMPT: Duration = Duration::from_secs(1);
const ADDRESSES: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

#[derive(Debug, Default)]
pub(super) struct Probes {
    open: Map<RunId, Probe>,
}

/// Who is to answer.
#[derive(Debug)]
pub(super) enum Target {
    /// At localhost.
    Port(u16),
    /// A path, or `@name`.
    Socket(PathBuf),
}

#[derive(Debug)]
struct Probe {
    target: Target,
    /// Which of the addresses comes next in this round.
    next: usize,
    attempt: Option<(TcpStream, Token)>,
    pause: Duration,
    /// When the attempt is given up, or the pause ends; `None`: the pool is at it.
    due: Option<Mono>,
}

/// Where attempts at paths are asked for.
pub(super) type Ask<'a> = (&'a mut Reaches, &'a mut Vec<PathJob>);

impl Probes {
    /// Answers whether it is there already; then nothing has begun.
    pub(super) fn begin(&mut self, ctx: &mut Ctx<'_>, run: RunId, target: Target, ask: Ask<'_>) -> bool {
        self.end(ctx, run);
        let mut probe = Probe { target, next: 0, attempt: None, pause: PAUSE_FIRST, due: None };
        let there = probe.go_on(ctx, run, ask);
        if !there {
            self.open.insert(run, probe);
        }
        there
    }

    pub(super) fn end(&mut self, ctx: &mut Ctx<'_>, run: RunId) {
        if let Some(mut probe) = self.open.remove(&run) {
            probe.close(ctx);
        }
    }

    /// The attempt of this run can be written to: whether somebody answered. Then it has ended.
    pub(super) fn ready(&mut self, ctx: &mut Ctx<'_>, run: RunId) -> bool {
        let Some(probe) = self.open.get_mut(&run) else { return false };
        let Some((stream, _)) = &probe.attempt else { return false };
        match (stream.take_error(), stream.peer_addr(), stream.local_addr()) {
            // A port of the range that clients get theirs from can be connected to itself: then nobody else answered.
            (Ok(None), Ok(peer), Ok(own)) if peer != own => {
                self.end(ctx, run);
                return true;
            }
            (Ok(None), Err(e), _) if e.kind() == std::io::ErrorKind::NotConnected => {}
            _ => probe.try_port(ctx, run),
        }
        false
    }

    /// The pool has tried the socket of this run: whether somebody answered. Then it has ended.
    pub(super) fn reached(&mut self, ctx: &mut Ctx<'_>, run: RunId, there: bool) -> bool {
        let Some(probe) = self.open.get_mut(&run).filter(|p| p.due.is_none()) else { return false };
        if there {
            self.end(ctx, run);
        } else {
            probe.rest(ctx.now);
        }
        there
    }

    /// Goes on where a pause has ended or an attempt took too long. Answers the runs whose target has answered.
    pub(super) fn tick(&mut self, ctx: &mut Ctx<'_>, (reaches, jobs): Ask<'_>) -> Vec<RunId> {
        let mut there = Vec::new();
        for (run, probe) in self.open.iter_mut() {
            if probe.due.is_some_and(|at| at <= ctx.now) && probe.go_on(ctx, *run, (reaches, jobs)) {
                there.push(*run);
            }
        }
        for run in &there {
            self.end(ctx, *run);
        }
        there
    }

    pub(super) fn next_deadline(&self) -> Option<Mono> {
        if self.open.is_empty() { None } else { self.open.values().filter_map(|p| p.due).min() }
    }
}

impl Probe {
    /// Starts the next attempt of the round, or the pause after it. Answers whether somebody is there already.
    fn go_on(&mut self, ctx: &mut Ctx<'_>, run: RunId, (reaches, jobs): Ask<'_>) -> bool {
        match &self.target {
            Target::Port(_) => self.try_port(ctx, run),
            Target::Socket(path) => {
                self.due = None;
                match reaches.ask(path.clone(), Asker::Probe(run), jobs) {
                    Some(Ok(())) => return true,
                    Some(Err(_)) => self.rest(ctx.now),
                    None => {}
                }
            }
        }
        false
    }

    fn try_port(&mut self, ctx: &mut Ctx<'_>, run: RunId) {
        self.close(ctx);
        let Target::Port(port) = self.target else { return };
        while let Some(ip) = ADDRESSES.get(self.next) {
            self.next += 1;
            let Ok(stream) = TcpStream::connect(SocketAddr::new(*ip, port)) else { continue };
            let added = ctx.sources.add(ctx.registry, stream.as_raw_fd(), Interest::WRITABLE, Source::Probe(run));
            if let Ok(token) = added {
                self.attempt = Some((stream, token));
                self.due = Some(ctx.now + ATTEMPT);
                return;
            }
        }
        self.rest(ctx.now);
    }

    fn rest(&mut self, now: Mono) {
        self.next = 0;
        self.due = Some(now + self.pause);
        self.pause = (self.pause * 2).min(PAUSE_LAST);
    }

    fn close(&mut self, ctx: &mut Ctx<'_>) {
        if let Some((stream, token)) = self.attempt.take() {
            ctx.sources.remove(ctx.registry, stream.as_raw_fd(), token);
        }
    }
}
