//! Health checks over the network and by socket: one connection at a time for a run, without a thread and without
//! waiting. HTTP is spoken as far as its first line.

use super::Ctx;
use super::paths::Asker;
use super::probe::Ask;
use crate::base::ids::RunId;
use crate::base::limits::FROZEN;
use crate::base::map::Map;
use crate::base::time::Mono;
use crate::base::units::human_duration;
use crate::config::{Check, Endpoint};
use crate::daemon::source::Source;
use crate::sys::reason;
use core::time::Duration;
use mio::net::TcpStream;
use mio::{Interest, Token};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::path::Path;

/// Bytes of an answer among which its first line has to be.
const LINE_MAX: usize = 512;

type Answer = Result<(), String>;

#[derive(Debug, Default)]
pub(super) struct Dials {
    open: Map<RunId, Dial>,
    /// Sockets that the pool is at.
    sockets: Map<RunId, Wait>,
}

/// A check of a socket, with the path as the config has it.
#[derive(Debug)]
struct Wait {
    path: String,
    limit: Duration,
    until: Mono,
}

#[derive(Debug)]
struct Dial {
    at: Endpoint,
    /// Addresses that have not been tried.
    left: Vec<IpAddr>,
    stream: Option<(TcpStream, Token)>,
    connected: bool,
    /// What is said over HTTP; nothing where an accepted connection is enough.
    request: Vec<u8>,
    sent: usize,
    got: Vec<u8>,
    limit: Duration,
    until: Mono,
    /// Why the last address failed.
    error: String,
}

impl Dials {
    /// Begins a check that is not a command; an answer that is known at once is returned.
    pub(super) fn begin(
        &mut self,
        ctx: &mut Ctx<'_>,
        run: RunId,
        (check, folder): (&Check, &Path),
        limit: Duration,
        (reaches, jobs): Ask<'_>,
    ) -> Option<Answer> {
        self.end(ctx, run);
        let (at, request) = match check {
            Check::Command(_) => return Some(Err("a command is no address".to_owned())),
            Check::Unix(path) => {
                let place = if path.starts_with('@') { path.into() } else { folder.join(path) };
                let told = reaches.ask(place, Asker::Dial(run), jobs);
                if told.is_none() {
                    self.sockets.insert(run, Wait { path: path.clone(), limit, until: ctx.now + limit });
                }
                return told.map(|answer| answer.map_err(|e| format!("{path}: {e}")));
            }
            Check::Tcp(at) => (*at, Vec::new()),
            Check::Http { at, path } => (*at, request(*at, path)),
        };
        let both = || vec![IpAddr::V6(Ipv6Addr::LOCALHOST), IpAddr::V4(Ipv4Addr::LOCALHOST)];
        let mut dial = Dial {
            at,
            left: at.ip.map_or_else(both, |ip| vec![ip]),
            stream: None,
            connected: false,
            request,
            sent: 0,
            got: Vec::new(),
            limit,
            until: ctx.now + limit,
            error: String::new(),
        };
        let answer = dial.next(ctx, run);
        if answer.is_none() {
            self.open.insert(run, dial);
        }
        answer
    }

    /// The connection of a run is ready for something. An answer ends the check.
    pub(super) fn ready(&mut self, ctx: &mut Ctx<'_>, run: RunId) -> Option<Answer> {
        let dial = self.open.get_mut(&run)?;
        let answer = match dial.go_on() {
            Ok(None) => return None,
            Ok(Some(answer)) => answer,
            Err(e) => {
                dial.error = format!("{}: {}", dial.at, reason(&e));
                dial.next(ctx, run)?
            }
        };
        self.end(ctx, run);
        Some(answer)
    }

    /// The pool has tried the socket of a run; an answer ends the check.
    pub(super) fn reached(&mut self, run: RunId, answer: Answer) -> Option<Answer> {
        let wait = self.sockets.remove(&run)?;
        Some(answer.map_err(|e| format!("{}: {e}", wait.path)))
    }

    pub(super) fn end(&mut self, ctx: &mut Ctx<'_>, run: RunId) {
        self.sockets.remove(&run);
        if let Some(mut dial) = self.open.remove(&run) {
            dial.close(ctx);
        }
    }

    /// Checks whose time is over.
    pub(super) fn tick(&mut self, ctx: &mut Ctx<'_>) -> Vec<(RunId, Answer)> {
        let mut over = Vec::new();
        for (run, dial) in self.open.iter_mut().filter(|(_, d)| d.until <= ctx.now) {
            if ctx.now.since(dial.until) > FROZEN {
                // The machine stood still, and whoever was asked with it.
                dial.until = ctx.now + dial.limit;
            } else {
                let what = if dial.connected { "answer" } else { "connection" };
                let error = format!("{}: no {what} within {}", dial.at, human_duration(dial.limit));
                over.push((*run, Err(error)));
            }
        }
        for (run, wait) in self.sockets.iter_mut().filter(|(_, w)| w.until <= ctx.now) {
            if ctx.now.since(wait.until) > FROZEN {
                wait.until = ctx.now + wait.limit;
            } else {
                let error = format!("{}: no answer within {}", wait.path, human_duration(wait.limit));
                over.push((*run, Err(error)));
            }
        }
        for (run, _) in &over {
            self.end(ctx, *run);
        }
        over
    }

    pub(super) fn next_deadline(&self) -> Option<Mono> {
        self.open.values().map(|d| d.until).chain(self.sockets.values().map(|w| w.until)).min()
    }
}

fn request(at: Endpoint, path: &str) -> Vec<u8> {
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "GET {path} HTTP/1.1\r\nHost: {at}\r\nUser-Agent: hob/{version}\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    )
    .into_bytes()
}

impl Dial {
    /// Tries the next address; without one the check has failed.
    fn next(&mut self, ctx: &mut Ctx<'_>, run: RunId) -> Option<Answer> {
        self.close(ctx);
        while let Some(ip) = self.left.pop() {
            let address = SocketAddr::new(ip, self.at.port);
            let made = TcpStream::connect(address).and_then(|stream| {
                let interest = Interest::WRITABLE | Interest::READABLE;
                let token = ctx.sources.add(ctx.registry, stream.as_raw_fd(), interest, Source::Dial(run))?;
                Ok((stream, token))
            });
            match made {
                Ok(made) => {
                    self.stream = Some(made);
                    (self.connected, self.sent) = (false, 0);
                    self.got.clear();
                    return None;
                }
                Err(e) => self.error = format!("{}: {}", self.at, reason(&e)),
            }
        }
        Some(Err(core::mem::take(&mut self.error)))
    }

    /// Goes as far as the connection lets it. `None` when it has to wait; an error leads to the next address.
    fn go_on(&mut self) -> io::Result<Option<Answer>> {
        let Some((stream, _)) = &mut self.stream else { return Ok(None) };
        if !self.connected {
            if let Some(e) = stream.take_error()? {
                return Err(e);
            }
            match (stream.peer_addr(), stream.local_addr()) {
                (Ok(peer), Ok(own)) if peer == own => return Err(io::ErrorKind::ConnectionRefused.into()),
                (Ok(_), _) => self.connected = true,
                (Err(e), _) if e.kind() == io::ErrorKind::NotConnected => return Ok(None),
                (Err(e), _) => return Err(e),
            }
        }
        if self.request.is_empty() {
            return Ok(Some(Ok(())));
        }
        while let Some(rest) = self.request.get(self.sent..).filter(|r| !r.is_empty()) {
            match stream.write(rest) {
                Ok(n) => self.sent += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(e) => return Ok(Some(Err(format!("{}: {}", self.at, reason(&e))))),
            }
        }
        let mut bytes = [0; LINE_MAX];
        loop {
            let closed = match stream.read(&mut bytes) {
                Ok(n) => {
                    self.got.extend_from_slice(bytes.get(..n).unwrap_or_default());
                    n == 0
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => false,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(e) => return Ok(Some(Err(format!("{}: {}", self.at, reason(&e))))),
            };
            if closed || self.got.len() >= LINE_MAX || self.got.contains(&b'\n') {
                return Ok(Some(status(&self.got).map_err(|e| format!("{}: {e}", self.at))));
            }
        }
    }

    fn close(&mut self, ctx: &mut Ctx<'_>) {
        if let Some((stream, token)) = self.stream.take() {
            ctx.sources.remove(ctx.registry, stream.as_raw_fd(), token);
        }
    }
}

/// What the beginning of an answer means.
fn status(answer: &[u8]) -> Answer {
    let line = answer.split(|b| *b == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line.get(..LINE_MAX.min(line.len())).unwrap_or_default());
    let mut words = line.split_whitespace();
    let version = words.next().filter(|w| w.starts_with("HTTP/1."));
    match (version, words.next().and_then(|c| c.parse::<u16>().ok())) {
        (Some(_), Some(200..=399)) => Ok(()),
        (Some(_), Some(code)) => Err(format!("HTTP {code}")),
        _ if answer.is_empty() => Err("it closed the connection without an answer".to_owned()),
        _ => Err("what it answers is not HTTP".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_line_counts_and_only_when_it_is_http() {
        for good in ["HTTP/1.1 200 OK\r\n", "HTTP/1.0 204\n", "HTTP/1.1 399 x\nHTTP/1.1 500"] {
            assert_eq!(status(good.as_bytes()), Ok(()), "{good}");
        }
        for (bad, why) in [
            ("HTTP/1.1 503 Busy\r\n", "HTTP 503"),
            ("HTTP/1.1 100 Continue\r\n", "HTTP 100"),
            ("HTTP/1.1 abc\n", "not HTTP"),
            ("SSH-2.0-x\r\n", "not HTTP"),
            ("200 OK HTTP/1.1", "not HTTP"),
            ("", "without an answer"),
        ] {
            assert!(status(bad.as_bytes()).unwrap_err().contains(why), "{bad}");
        }
        assert!(status(&[0xff; 2 * LINE_MAX]).is_err());
    }
}
