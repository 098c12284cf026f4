//! A loop around connections, with clients on socket pairs and a closure for the core.

mod channel;
mod limits;
mod shares;

use super::*;
use crate::base::limits::{FRAME_MAX, REQUESTS_IN_FLIGHT_MAX, UNSENT_MAX};
use crate::base::time::Mono;
use crate::core::Owner;
use crate::daemon::fair::Waiting;
use crate::daemon::source::Source;
use crate::protocol::frame::{Framing, Message};
use crate::protocol::methods::Request;
use crate::sys::net;
use mio::{Events, Poll};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Instant;

const ALL: [Framing; 3] = [Framing::Binary, Framing::Headers, Framing::Lines];
const LIMIT: Duration = Duration::from_secs(20);
const SIGNALS: &Signals = &[("TERM", 15)];

/// A loop around connections with a core that a closure stands in for.
struct Rig {
    poll: Poll,
    events: Events,
    sources: Sources,
    conns: Conns,
    found: Flushed,
    now: Mono,
    /// Requests that the closure did not answer.
    held: Vec<(ReqId, ConnId, Request)>,
    answer: fn(&Request) -> Option<Result<String, RpcError>>,
}

fn pong(request: &Request) -> Option<Result<String, RpcError>> {
    match request {
        Request::Ping => Some(Ok("{\"pong\":true}".to_owned())),
        Request::EventSubscribe(_) => Some(Ok("{\"subscription\":7}".to_owned())),
        Request::DaemonStatus => Some(Ok(format!("\"{}\"", "x".repeat(100_000)))),
        Request::DaemonConfig => Some(Ok(format!("\"{}\"", "x".repeat(FRAME_MAX)))),
        Request::ServiceGet { name } => Some(Err(RpcError::new(Code::NotFound, format!("no service {name}")))),
        _ => None,
    }
}

impl Rig {
    fn new() -> Rig {
        Rig {
            poll: Poll::new().unwrap(),
            events: Events::with_capacity(64),
            sources: Sources::default(),
            conns: Conns::new(500, SIGNALS),
            found: Flushed::default(),
            now: Mono(0),
            held: Vec::new(),
            answer: pong,
        }
    }

    fn client(&mut self) -> (Client, ConnId) {
        self.client_with(Access::Admin)
    }

    fn client_with(&mut self, access: Access) -> (Client, ConnId) {
        self.client_of(1000, access.into()).unwrap()
    }

    fn client_of(&mut self, uid: u32, pass: Pass) -> io::Result<(Client, ConnId)> {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.set_nonblocking(true).unwrap();
        let cred = Credentials { uid, gid: 1000, pid: 1 };
        let id = self.conns.adopt(ours, cred, pass, self.poll.registry(), &mut self.sources)?;
        Ok((Client { stream: theirs, decoder: Decoder::new(), ended: false }, id))
    }

    /// One turn; the number of requests that it read.
    fn turn(&mut self, wait: Duration) -> usize {
        let idle = !self.conns.has_backlog() && !self.conns.has_unflushed();
        self.poll.poll(&mut self.events, Some(if idle { wait } else { Duration::ZERO })).unwrap();
        let mut inputs = Vec::new();
        let mut waiting = Waiting::new(|| Mono(0));
        let mut inlet = Inlet { ask: &mut |_| None, waiting: &mut waiting, out: &mut inputs };
        self.conns.read_backlog(&mut inlet);
        for event in &self.events {
            if let Some(Source::Conn(id)) = self.sources.get(event.token()) {
                self.conns.ready(*id, event.into(), &mut inlet);
            }
        }
        let n = inputs.len();
        for input in inputs {
            let core::Input::Request { req, conn, request, .. } = input else { panic!("{input:?}") };
            match (self.answer)(&request) {
                Some(result) => self.conns.reply(req, &result),
                None => self.held.push((req, conn, request)),
            }
        }
        self.conns.flush(self.now, self.poll.registry(), &mut self.sources, &mut self.found);
        n
    }

    /// Turns until the condition holds.
    fn until(&mut self, mut done: impl FnMut(&mut Rig) -> bool) {
        let start = Instant::now();
        while !done(self) {
            assert!(start.elapsed() < LIMIT, "waited too long");
            self.turn(Duration::from_millis(2));
        }
    }

    /// Turns until this many messages have come.
    fn messages(&mut self, client: &mut Client, n: usize) -> Vec<String> {
        let mut all = Vec::new();
        self.until(|_| {
            all.extend(client.take());
            all.len() >= n || client.ended
        });
        all
    }

    fn until_closed(&mut self, conn: ConnId) {
        self.until(|rig| rig.found.closed.contains(&conn));
        assert!(self.conns.conns.get(conn.0).is_none());
    }
}

struct Client {
    stream: UnixStream,
    decoder: Decoder,
    ended: bool,
}

impl Client {
    fn send(&mut self, framing: Framing, texts: &[&str]) {
        let mut out = Vec::new();
        texts.iter().for_each(|t| framing.write(&mut out, &[t]).unwrap());
        self.stream.write_all(&out).unwrap();
    }

    /// What has come so far.
    fn take(&mut self) -> Vec<String> {
        let (mut all, mut buf) = (Vec::new(), [0; 65536]);
        loop {
            while let Some(message) = self.decoder.message() {
                all.push(match message.unwrap() {
                    Message::Json(json) => String::from_utf8(json.to_vec()).unwrap(),
                    Message::Stream { id, bytes } => format!("{id}:{}", String::from_utf8_lossy(bytes)),
                });
            }
            match self.stream.read(&mut buf) {
                Ok(0) => {
                    self.ended = true;
                    return all;
                }
                Ok(n) => self.decoder.feed(&buf[..n]),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return all,
                Err(e) if e.kind() == io::ErrorKind::ConnectionReset => {
                    self.ended = true;
                    return all;
                }
                Err(e) => panic!("{e}"),
            }
        }
    }
}

fn ping(id: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"ping"}}"#)
}

fn ponged(id: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"pong":true}}}}"#)
}

fn call(id: u32, method: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}"}}"#)
}

/// `ID NUMBER` of an error reply.
fn error(reply: &str) -> String {
    let v: serde_json::Value = serde_json::from_str(reply).unwrap();
    format!("{} {}", v["id"], v["error"]["code"])
}

#[test]
fn each_client_is_answered_in_its_framing_and_order() {
    for framing in ALL {
        let mut rig = Rig::new();
        let (mut client, _) = rig.client();
        let ids: Vec<String> = (0..500).map(|i| i.to_string()).collect();
        let pings: Vec<String> = ids.iter().map(|i| ping(i)).collect();
        client.send(framing, &pings.iter().map(String::as_str).collect::<Vec<_>>());
        let want: Vec<String> = ids.iter().map(|i| ponged(i)).collect();
        assert_eq!(rig.messages(&mut client, 500), want);
        assert_eq!(client.decoder.framing(), Some(framing));
    }
}

#[test]
fn one_byte_at_a_time_is_enough() {
    for framing in ALL {
        let mut rig = Rig::new();
        let (mut client, _) = rig.client();
        let mut bytes = Vec::new();
        framing.write(&mut bytes, &[&ping("\"a\"")]).unwrap();
        for byte in &bytes {
            assert_eq!(client.take(), [""; 0]);
            client.stream.write_all(&[*byte]).unwrap();
            rig.turn(Duration::ZERO);
        }
        assert_eq!(rig.messages(&mut client, 1), [ponged("\"a\"")]);
    }
}

#[test]
fn a_ping_wakes_the_loop_once() {
    let mut rig = Rig::new();
    let (mut client, _) = rig.client();
    for i in 0..10 {
        client.send(Framing::Binary, &[&ping(&i.to_string())]);
        assert_eq!(rig.turn(LIMIT), 1);
        assert_eq!(client.take(), [ponged(&i.to_string())]);
        rig.poll.poll(&mut rig.events, Some(Duration::ZERO)).unwrap();
        assert!(rig.events.is_empty(), "taking the reply wakes nobody");
    }
}

#[test]
fn a_flood_is_served_in_shares() {
    let mut rig = Rig::new();
    let (mut flood, _) = rig.client();
    let (mut other, _) = rig.client();
    flood.send(Framing::Lines, &vec![&*ping("1"); 500]);
    assert_eq!(rig.turn(LIMIT), MESSAGES_PER_TURN);
    assert!(rig.conns.has_backlog());
    other.send(Framing::Lines, &[&ping("2")]);
    assert_eq!(rig.turn(LIMIT), MESSAGES_PER_TURN + 1);
    assert_eq!(other.take(), [ponged("2")]);
    assert_eq!(rig.messages(&mut flood, 500).len(), 500);
}

#[test]
fn a_batch_is_answered_together() {
    let mut rig = Rig::new();
    let (mut client, _) = rig.client();
    let note = r#"{"jsonrpc":"2.0","method":"ping"}"#;
    let batch = format!(
        "[{},{note},1,{},{},{{\"jsonrpc\":\"2.0\",\"method\":\"nope\"}}]",
        ping("1"),
        call(2, "service.list"),
        call(3, "nope")
    );
    client.send(Framing::Lines, &[&batch, &ping("9")]);
    assert_eq!(rig.messages(&mut client, 1), [ponged("9")], "the batch waits for service.list");
    let (req, ..) = rig.held.pop().unwrap();
    rig.conns.reply(req, &Ok("[]".to_owned()));
    let reply = rig.messages(&mut client, 1).remove(0);
    let all: Vec<serde_json::Value> = serde_json::from_str(&reply).unwrap();
    let mut told: Vec<_> = all.iter().map(|r| format!("{} {}", r["id"], r["error"]["code"])).collect();
    told.sort();
    assert_eq!(told, ["1 null", "2 null", "3 -32601", "null -32600"]);
    client.send(Framing::Lines, &[&format!("[{note},{note}]"), &ping("10")]);
    assert_eq!(rig.messages(&mut client, 1), [ponged("10")], "notifications are never answered");
    assert_eq!((rig.conns.requests_in_flight(), rig.conns.batches_open()), (0, 0));
}

#[test]
fn a_reply_too_long_for_a_frame_becomes_an_error() {
    for framing in ALL {
        let mut rig = Rig::new();
        let (mut client, _) = rig.client();
        let long = call(1, "daemon.config");
        client.send(framing, &[&long, &format!("[{long},{}]", ping("2")), &ping("3")]);
        let got = rig.messages(&mut client, 3);
        assert_eq!(error(&got[0]), "1 -32005");
        let batch: Vec<serde_json::Value> = serde_json::from_str(&got[1]).unwrap();
        assert_eq!((&batch[0]["error"]["code"], &batch[1]["result"]["pong"]), (&(-32005).into(), &true.into()));
        assert_eq!(got[2], ponged("3"));
    }
}

#[test]
fn garbage_gets_one_error_and_the_door() {
    for (garbage, code) in [
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "null -32700"),
        (b"Content-Length: 16777216\r\n\r\n".to_vec(), "null -32005"),
        (b"\x00\x00\x00\x02[]\x09".to_vec(), "null -32700"),
    ] {
        let mut rig = Rig::new();
        let (mut client, conn) = rig.client();
        client.stream.write_all(&garbage).unwrap();
        client.stream.write_all(&[b'x'; 1000]).unwrap();
        rig.until_closed(conn);
        let got = client.take();
        assert_eq!(error(got.last().unwrap()), code);
        assert!(client.ended);
    }
}

#[test]
fn a_line_without_an_end_is_cut_off_at_the_limit() {
    let mut rig = Rig::new();
    let (mut client, conn) = rig.client();
    let chunk = vec![b'['; 1 << 20];
    let (mut sent, mut got) = (0, Vec::new());
    rig.until(|_| {
        match client.stream.write(&chunk) {
            Ok(n) => sent += n,
            Err(e) => assert!(matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::BrokenPipe), "{e}"),
        }
        got.extend(client.take());
        client.ended
    });
    assert!(rig.found.closed.contains(&conn));
    assert_eq!(got.iter().map(|g| error(g)).collect::<Vec<_>>(), ["null -32005"]);
    assert!(sent > FRAME_MAX && sent < FRAME_MAX + (2 << 20), "{sent}");
}

#[test]
fn replies_in_flight_go_out_before_the_door_closes() {
    let mut rig = Rig::new();
    let (mut client, conn) = rig.client();
    client.send(Framing::Binary, &[&call(1, "service.list")]);
    client.stream.write_all(b"\x09").unwrap();
    let got = rig.messages(&mut client, 1);
    assert_eq!(error(&got[0]), "null -32700");
    let (req, ..) = rig.held.pop().unwrap();
    assert!(!client.ended && rig.found.closed.is_empty());
    rig.conns.reply(req, &Ok("{}".to_owned()));
    rig.until_closed(conn);
    assert_eq!(client.take(), [r#"{"jsonrpc":"2.0","id":1,"result":{}}"#]);
}

#[test]
fn a_client_that_shut_its_side_gets_its_replies() {
    for last in ["", "\n"] {
        let mut rig = Rig::new();
        let (mut client, conn) = rig.client();
        let text = format!("{}\n{}{last}", ping("1"), call(2, "service.list"));
        client.stream.write_all(text.as_bytes()).unwrap();
        client.stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(rig.messages(&mut client, 1), [ponged("1")]);
        rig.until(|rig| !rig.held.is_empty());
        let (req, ..) = rig.held.pop().unwrap();
        rig.conns.reply(req, &Ok("2".to_owned()));
        rig.until_closed(conn);
        assert_eq!(client.take(), [r#"{"jsonrpc":"2.0","id":2,"result":2}"#]);
        assert!(client.ended);
    }
}

#[test]
fn streams_and_subscriptions_outlive_a_shut_side() {
    let mut rig = Rig::new();
    let (mut client, conn) = rig.client();
    client.send(Framing::Lines, &[&call(1, "service.list")]);
    client.stream.shutdown(Shutdown::Write).unwrap();
    rig.until(|rig| !rig.held.is_empty());
    rig.conns.stream_open(conn, StreamId(5)).unwrap();
    let (req, ..) = rig.held.pop().unwrap();
    rig.conns.reply(req, &Ok("{}".to_owned()));
    rig.messages(&mut client, 1);
    assert!(rig.found.drained.contains(&conn));
    rig.conns.stream_data(conn, StreamId(5), b"hello");
    rig.conns.stream_end(conn, StreamId(5), "eof");
    rig.until_closed(conn);
    assert_eq!(client.take().len(), 2);

    let (mut client, conn) = rig.client();
    client.send(Framing::Binary, &[&call(1, "event.subscribe")]);
    client.stream.shutdown(Shutdown::Write).unwrap();
    rig.messages(&mut client, 1);
    rig.conns.notify(conn, StreamId(7), "event", "{}");
    assert_eq!(rig.messages(&mut client, 1), [r#"{"jsonrpc":"2.0","method":"event","params":{}}"#]);
    drop(client);
    rig.until_closed(conn);
}

#[test]
fn what_was_sent_before_hanging_up_counts() {
    let mut rig = Rig::new();
    let (mut client, conn) = rig.client();
    let n = 3 * MESSAGES_PER_TURN;
    let (stop, list) = (
        r#"{"jsonrpc":"2.0","id":1,"method":"service.stop","params":{"name":"web"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"service.list"}"#,
    );
    client.send(Framing::Lines, &[vec![stop; n], vec![list; n]].concat());
    drop(client);
    rig.until_closed(conn);
    assert_eq!(rig.held.len(), n, "to its questions nobody waits for an answer");
    assert_eq!(rig.conns.requests_in_flight(), 0);
    let (req, ..) = rig.held.pop().unwrap();
    rig.conns.reply(req, &Ok("{}".to_owned()));
    assert!(rig.conns.is_empty() && !rig.conns.has_unflushed());
}
