//! Frozen transcripts of the three framings: what a client of an earlier version sends is understood, and what it gets
//! is what it got then, byte for byte. A transcript may be added, none may be changed.
//!
//! `>` what the client sends, `<` what it must get, `=` an event: the client shuts its side, the daemon closes. The
//! core is a table of fixed answers.

// Every unwrap here is an assertion of a test.
#![allow(clippy::unwrap_used)]

use hob::base::ids::StreamId;
use hob::base::limits::MESSAGE_MAX;
use hob::base::signal::Platform;
use hob::base::time::Mono;
use hob::config::Access;
use hob::core::Input;
use hob::daemon::conn::{Conns, Flushed, Inlet, Pass};
use hob::daemon::fair::Waiting;
use hob::daemon::source::{Source, Sources};
use hob::protocol::methods::Request;
use hob::protocol::rpc::{Code, RpcError};
use hob::sys::chan::Chan;
use hob::sys::net::Credentials;
use mio::{Events, Poll};
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(20);

struct Daemon {
    poll: Poll,
    sources: Sources,
    conns: Conns,
    closed: bool,
}

impl Daemon {
    fn with_client() -> (Daemon, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.set_nonblocking(true).unwrap();
        let conns = Conns::new(0, Platform::linux().signals);
        let mut daemon = Daemon { poll: Poll::new().unwrap(), sources: Sources::default(), conns, closed: false };
        let cred = Credentials { uid: 1000, gid: 1000, pid: 1 };
        daemon.conns.adopt(ours, cred, Access::Operate, daemon.poll.registry(), &mut daemon.sources).unwrap();
        (daemon, theirs)
    }

    /// The same with the channel of a job.
    fn with_job() -> (Daemon, Chan) {
        let (mut daemon, _) = Daemon::with_client();
        let (ours, theirs) = Chan::pair_for_job(MESSAGE_MAX).unwrap();
        let pass = Pass::of_job(&"web".into(), Access::Operate);
        daemon.conns.adopt_channel(ours, 1000, pass, daemon.poll.registry(), &mut daemon.sources).unwrap();
        (daemon, Chan::from_fd(theirs).unwrap())
    }

    fn turn(&mut self) {
        let mut events = Events::with_capacity(8);
        self.poll.poll(&mut events, Some(Duration::from_millis(2))).unwrap();
        let mut inputs = Vec::new();
        let mut waiting = Waiting::new(|| Mono(0));
        let mut inlet = Inlet { ask: &mut |_| None, waiting: &mut waiting, out: &mut inputs };
        self.conns.read_backlog(&mut inlet);
        for event in &events {
            if let Some(Source::Conn(id)) = self.sources.get(event.token()) {
                self.conns.ready(*id, event.into(), &mut inlet);
            }
        }
        inputs.into_iter().for_each(|input| self.answer(input));
        let mut found = Flushed::default();
        self.conns.flush(Mono(0), self.poll.registry(), &mut self.sources, &mut found);
        self.closed |= !found.closed.is_empty();
    }

    fn answer(&mut self, input: Input) {
        let Input::Request { req, conn, request, key, params_hash, .. } = input else { panic!("{input:?}") };
        let result = match &request {
            Request::Ping => {
                Ok(r#"{"pong":true,"timestamp":"2026-01-02T03:04:05.678Z","uptime_secs":7,"version":"0.1.0"}"#
                    .to_owned())
            }
            Request::ServiceGet { name } => {
                Err(RpcError::new(Code::NotFound, format!("no service {name}")).hint("hob status lists them"))
            }
            Request::ServiceLogs(_) => {
                self.conns.stream_open(conn, StreamId(2_147_483_649)).unwrap();
                Ok(r#"{"streams":[{"id":2147483649,"name":"web","position":1234}]}"#.to_owned())
            }
            Request::EventSubscribe(query) => {
                Ok(format!(r#"{{"subscription":1,"next":{},"reset":false}}"#, query.from.unwrap_or(42)))
            }
            // What was understood goes into the answer.
            Request::ServiceStop(c) => Ok(format!(
                r#"{{"names":{:?},"wait":{},"timeout_ms":{:?},"key":{:?},"hash":{params_hash}}}"#,
                c.names,
                c.wait,
                c.timeout.map_or(0, |t| t.as_millis()),
                key.unwrap_or_default()
            )),
            Request::ServiceSignal { name, signal } => Ok(format!(r#"{{"name":{name:?},"signal":{signal}}}"#)),
            other => panic!("no transcript has {other:?}"),
        };
        self.conns.reply(req, &result);
        match request {
            Request::EventSubscribe(_) => {
                let event = concat!(
                    r#"{"subscription":1,"event":{"seq":42,"time":"2026-01-02T03:04:05.678Z","#,
                    r#""kind":"service.ready","name":"web"}}"#
                );
                self.conns.notify(conn, StreamId(1), "event", event);
                self.conns.notify(conn, StreamId(1), "event.lagged", r#"{"subscription":1,"resume_from":43}"#);
            }
            Request::ServiceLogs(_) => {
                let id = StreamId(2_147_483_649);
                self.conns.stream_data(conn, id, "caf\u{e9} \"x\"\n".as_bytes());
                self.conns.notify(conn, id, "stream.gap", r#"{"id":2147483649,"position":2000,"dropped":756}"#);
                self.conns.stream_data(conn, id, b"\xff\x00\n");
                self.conns.stream_end(conn, id, "eof");
            }
            _ => {}
        }
    }
}

/// Bytes from their written form.
fn unescape(text: &str) -> Vec<u8> {
    let (mut out, mut chars) = (Vec::new(), text.chars());
    while let Some(c) = chars.next() {
        let escaped = if c == '\\' { chars.next() } else { None };
        match (c, escaped) {
            (_, Some('r')) => out.push(b'\r'),
            (_, Some('n')) => out.push(b'\n'),
            (_, Some('x')) => {
                let hex: String = chars.by_ref().take(2).collect();
                out.push(u8::from_str_radix(&hex, 16).unwrap());
            }
            (_, Some(other)) => out.extend(other.to_string().as_bytes()),
            (c, None) => out.extend(c.to_string().as_bytes()),
        }
    }
    out
}

fn escape(bytes: &[u8]) -> String {
    let one = |b: &u8| match b {
        b'\r' => "\\r".to_owned(),
        b'\n' => "\\n".to_owned(),
        b'\\' => "\\\\".to_owned(),
        b' '..=b'~' => char::from(*b).to_string(),
        other => format!("\\x{other:02x}"),
    };
    bytes.iter().map(one).collect()
}

/// What has come within the limit, up to as many bytes as are wanted.
fn receive(daemon: &mut Daemon, client: &mut UnixStream, wanted: usize) -> Vec<u8> {
    let (mut got, begin) = (Vec::new(), Instant::now());
    while got.len() < wanted && begin.elapsed() < LIMIT {
        daemon.turn();
        let mut buf = vec![0; wanted - got.len()];
        match client.read(&mut buf) {
            Ok(0) => break,
            Ok(n) => got.extend_from_slice(&buf[..n]),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock) => {}
            Err(e) => panic!("{e}"),
        }
    }
    got
}

/// Nothing more may come than what stands in the transcript.
fn expect_silence(daemon: &mut Daemon, client: &mut UnixStream) {
    daemon.turn();
    let mut buf = [0; 4096];
    match client.read(&mut buf) {
        Ok(n) => assert_eq!(escape(&buf[..n]), "", "more than the transcript has"),
        Err(e) => assert!(matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionReset), "{e}"),
    }
}

fn follow(transcript: &str) {
    let (mut daemon, mut client) = Daemon::with_client();
    for (number, line) in transcript.lines().enumerate() {
        let number = number + 1;
        match line.split_at_checked(2) {
            Some(("> ", text)) => client.write_all(&unescape(text)).unwrap(),
            Some(("< ", text)) => {
                let wanted = unescape(text);
                let got = receive(&mut daemon, &mut client, wanted.len());
                assert_eq!(escape(&got), escape(&wanted), "line {number}");
            }
            Some(("= ", "the client shuts its side")) => client.shutdown(Shutdown::Write).unwrap(),
            Some(("= ", "the daemon closes")) => {
                let begin = Instant::now();
                while !daemon.closed {
                    assert!(begin.elapsed() < LIMIT, "line {number}: still open");
                    daemon.turn();
                }
            }
            _ => assert!(line.is_empty() || line.starts_with('#'), "line {number}: {line}"),
        }
    }
    expect_silence(&mut daemon, &mut client);
}

/// Each line of a transcript is one message, without anything around it.
#[test]
fn messages() {
    let (mut daemon, job) = Daemon::with_job();
    let mut buf = vec![0; MESSAGE_MAX];
    for (number, line) in include_str!("compat/wire/messages.txt").lines().enumerate() {
        match line.split_at_checked(2) {
            Some(("> ", text)) => job.send(&unescape(text), &[]).unwrap(),
            Some(("< ", text)) => {
                let begin = Instant::now();
                let got = loop {
                    daemon.turn();
                    match job.recv(&mut buf) {
                        Ok(Some((n, _))) => break escape(&buf[..n]),
                        Err(e) if e.kind() == ErrorKind::WouldBlock && begin.elapsed() < LIMIT => {}
                        other => panic!("line {}: {other:?}", number + 1),
                    }
                };
                assert_eq!(got, escape(&unescape(text)), "line {}", number + 1);
            }
            _ => assert!(line.is_empty() || line.starts_with('#'), "line {}: {line}", number + 1),
        }
    }
    daemon.turn();
    assert_eq!(job.recv(&mut buf).unwrap_err().kind(), ErrorKind::WouldBlock, "more than the transcript has");
}

#[test]
fn native() {
    follow(include_str!("compat/wire/native.txt"));
}

#[test]
fn headers() {
    follow(include_str!("compat/wire/headers.txt"));
}

#[test]
fn lines() {
    follow(include_str!("compat/wire/lines.txt"));
}

#[test]
fn errors_that_close() {
    for transcript in include_str!("compat/wire/fatal.txt").split("\n\n") {
        follow(transcript);
    }
}
