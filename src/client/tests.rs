//! Clients against a daemon that a script stands in for, one connection after the other.

use super::*;
use crate::base::ids::StreamId;
use crate::protocol::frame::{Decoder, Framing, Message};
use crate::protocol::rpc::{self, Code, FromServer, Parsed};
use serde_json::json;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;

/// One accepted connection of the script.
struct Peer {
    stream: UnixStream,
    decoder: Decoder,
    id: String,
}

impl Peer {
    /// The next request: method and params. Panics at the end of the connection.
    fn request(&mut self) -> (String, Value) {
        loop {
            if let Some(message) = self.decoder.message() {
                let Message::Json(json) = message.unwrap() else { panic!("a stream frame from a client") };
                let Parsed::One(m) = rpc::parse(json) else { panic!("not a request: {json:?}") };
                self.id = m.id.unwrap().to_owned();
                let params = m.params.map_or(Value::Null, |p| serde_json::from_str(p.get()).unwrap());
                return (m.method.into_owned(), params);
            }
            let mut buf = [0; 4096];
            let n = self.stream.read(&mut buf).unwrap();
            assert!(n > 0, "the client went away");
            self.decoder.feed(&buf[..n]);
        }
    }

    fn send(&mut self, write: impl Fn(&mut Vec<u8>)) {
        let mut out = Vec::new();
        write(&mut out);
        self.stream.write_all(&out).unwrap();
    }

    fn reply(&mut self, result: &Value) {
        let id = self.id.clone();
        self.send(|out| rpc::write_result(Framing::Binary, out, &id, &result.to_string()).unwrap());
    }

    fn note(&mut self, method: &str, params: &Value) {
        self.send(|out| rpc::write_notification(Framing::Binary, out, method, &params.to_string()).unwrap());
    }

    fn event(&mut self, subscription: u64, seq: u64) {
        self.note("event", &json!({"subscription": subscription, "event": {"seq": seq, "kind": "service.ready"}}));
    }

    /// Waits until the client hangs up.
    fn until_closed(mut self) {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).unwrap();
    }
}

struct Fake {
    socket: PathBuf,
    thread: Option<JoinHandle<()>>,
}

type Script = Box<dyn FnOnce(Peer) + Send>;

impl Fake {
    /// Serves one connection for each script, then closes the socket.
    fn new(scripts: Vec<Script>) -> Fake {
        let socket = unique("sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let thread = std::thread::spawn(move || {
            for script in scripts {
                let (stream, _) = listener.accept().unwrap();
                stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                script(Peer { stream, decoder: Decoder::new(), id: String::new() });
            }
        });
        Fake { socket, thread: Some(thread) }
    }

    fn client(&self) -> Client {
        Client::connect(&self.socket).unwrap()
    }

    /// The script has been followed to its end.
    fn finish(mut self) {
        self.thread.take().unwrap().join().unwrap();
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.socket);
    }
}

fn unique(kind: &str) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("hob-client-{}-{n}.{kind}", std::process::id()))
}

#[test]
fn a_call_is_answered_or_refused() {
    let fake = Fake::new(vec![Box::new(|mut p| {
        assert_eq!(p.request(), ("service.list".to_owned(), json!({"names": ["web"]})));
        p.note("event", &json!({}));
        p.reply(&json!({"services": []}));
        p.request();
        let error = rpc::error_text(&p.id, &RpcError::new(Code::NotFound, "no service x").hint("look"));
        p.send(|out| Framing::Binary.write(out, &[&error]).unwrap());
        p.request();
        p.reply(&json!(7));
    })]);
    let mut client = fake.client();
    let list: Value = client.call("service.list", &json!({"names": ["web"]})).unwrap();
    assert_eq!(list, json!({"services": []}));
    let Err(ClientError::Rpc(e)) = client.call::<Value>("service.get", &["x"]) else { panic!() };
    assert_eq!((e.code, e.message.as_str(), e.hint.as_deref()), (Code::NotFound, "no service x", Some("look")));
    assert!(matches!(client.call::<String>("ping", &()), Err(ClientError::Unexpected(_))));
    fake.finish();
}

#[test]
fn a_change_is_sent_again_with_its_key() {
    let (sender, keys) = std::sync::mpsc::channel();
    let lose = |sender: std::sync::mpsc::Sender<Value>| {
        Box::new(move |mut p: Peer| {
            let (method, params) = p.request();
            assert_eq!(method, "service.stop");
            sender.send(params).unwrap();
        })
    };
    let last = sender.clone();
    let fake = Fake::new(vec![
        lose(sender.clone()),
        lose(sender),
        Box::new(move |mut p| {
            last.send(p.request().1).unwrap();
            p.reply(&json!({"stopped": true}));
        }),
    ]);
    let mut client = fake.client();
    let result: Value = client.call("service.stop", &json!(["web", true])).unwrap();
    assert_eq!(result, json!({"stopped": true}));
    fake.finish();
    let all: Vec<Value> = keys.iter().collect();
    assert_eq!((all.len(), &all[0], &all[1]), (3, &all[2], &all[2]), "the same each time");
    assert_eq!((&all[0]["names"], &all[0]["wait"]), (&json!("web"), &json!(true)), "params by position got names");
    assert!(all[0]["request_key"].as_str().unwrap().len() > 16);
}

#[test]
fn a_question_is_sent_again_and_an_unknown_method_is_not() {
    let fake = Fake::new(vec![
        Box::new(|mut p| drop(p.request())),
        Box::new(|mut p| {
            assert_eq!(p.request(), ("ping".to_owned(), json!({})));
            p.reply(&json!(1));
            assert_eq!(p.request().0, "future.change");
        }),
        Box::new(|mut p| {
            assert_eq!(p.request().0, "ping");
            p.reply(&json!(2));
            assert_eq!(p.request().0, "service.stop");
        }),
        Box::new(|mut p| {
            assert_eq!(p.request().0, "ping");
            p.reply(&json!(3));
        }),
    ]);
    let mut client = fake.client();
    assert_eq!(client.call::<u32>("ping", &json!({})).unwrap(), 1);
    assert!(matches!(client.call::<Value>("future.change", &json!({})), Err(ClientError::Closed)));
    assert_eq!(client.call::<u32>("ping", &json!({})).unwrap(), 2);
    assert!(matches!(client.call_once::<Value>("service.stop", &["web"]), Err(ClientError::Closed)));
    assert_eq!(client.call::<u32>("ping", &json!({})).unwrap(), 3);
    fake.finish();
}

#[test]
fn patience_ends() {
    let fake = Fake::new(vec![Box::new(|mut p| drop(p.request()))]);
    let mut client = fake.client();
    client.set_patience(Duration::from_millis(60));
    let e = client.call::<Value>("ping", &json!({})).unwrap_err();
    assert!(matches!(e, ClientError::Closed), "{e}");
    let nobody = Client::connect(unique("none")).unwrap_err();
    assert!(matches!(nobody, ClientError::Io(e) if e.kind() == io::ErrorKind::NotFound));
    fake.finish();
}

#[test]
fn who_hears_that_nobody_listens_any_more_need_not_wait_as_long_as_for_a_daemon() {
    let fake = Fake::new(vec![
        Box::new(drop),
        Box::new(|mut p| {
            p.request();
            p.reply(&json!({"subscription": 1, "next": 1, "reset": false}));
        }),
    ]);
    let mut client = fake.client();
    client.set_patience(Duration::MAX);
    client.set_restart_patience(Duration::from_millis(50));
    let mut events = client.subscribe(&["*"], &[], None).unwrap();
    drop(client);
    fake.finish();
    let e = events.next().unwrap().unwrap_err();
    assert!(matches!(e, ClientError::Ended) && e.is_not_running(), "{e}");
}

#[test]
fn a_silent_daemon_ends_the_call_at_its_limit() {
    let fake = Fake::new(vec![
        Box::new(|mut p| {
            p.request();
            p.until_closed();
        }),
        Box::new(|mut p| {
            p.request();
            p.reply(&json!(1));
        }),
    ]);
    let mut client = fake.client();
    client.set_timeout(Some(Duration::from_millis(20)));
    let e = client.call::<Value>("ping", &json!({})).unwrap_err();
    assert!(matches!(e, ClientError::Io(ref e) if e.kind() == io::ErrorKind::TimedOut), "{e}");
    client.set_timeout(Some(Duration::from_secs(20)));
    assert_eq!(client.call::<u32>("ping", &json!({})).unwrap(), 1, "a late reply is never taken for another's");
    fake.finish();
}

#[test]
fn being_turned_away_is_told_in_any_framing() {
    for framing in [Framing::Binary, Framing::Lines, Framing::Headers] {
        let fake = Fake::new(vec![Box::new(move |mut p| {
            let text = rpc::error_text("null", &RpcError::new(Code::PermissionDenied, "not you"));
            p.send(|out| framing.write(out, &[&text]).unwrap());
        })]);
        let e = fake.client().call::<Value>("ping", &json!({})).unwrap_err();
        assert!(matches!(e, ClientError::Rpc(RpcError { code: Code::PermissionDenied, .. })), "{e}");
        fake.finish();
    }
}

#[test]
fn events_go_on_over_deaths_lags_and_resets() {
    let fake = Fake::new(vec![
        Box::new(drop),
        Box::new(|mut p| {
            let (method, params) = p.request();
            assert_eq!((&*method, &params["from"]), ("event.subscribe", &Value::Null));
            assert_eq!(params["kinds"], json!(["service.*"]));
            p.reply(&json!({"subscription": 4, "next": 10, "reset": false}));
            p.event(4, 10);
            p.event(9, 11);
            p.event(4, 12);
        }),
        Box::new(|mut p| {
            assert_eq!(p.request().1["from"], 13);
            p.reply(&json!({"subscription": 1, "next": 20, "reset": false}));
            p.event(1, 12);
            p.event(1, 13);
            p.note("event.lagged", &json!({"subscription": 1, "resume_from": 14}));
            assert_eq!(p.request().1["from"], 14);
            p.event(1, 13);
            p.reply(&json!({"subscription": 2, "next": 20, "reset": false}));
            p.event(2, 14);
        }),
        Box::new(|mut p| {
            assert_eq!(p.request().1["from"], 15);
            p.reply(&json!({"subscription": 1, "next": 40, "reset": true, "oldest": 30}));
            p.event(1, 40);
            p.until_closed();
        }),
    ]);
    let client = fake.client();
    let mut events = client.subscribe(&["service.*"], &[], None).unwrap();
    drop(client);
    let mut told = Vec::new();
    for item in events.by_ref().take(7) {
        told.push(match item.unwrap() {
            Event::Event(e) => e["seq"].to_string(),
            Event::Lagged { resume_from } => format!("lagged {resume_from}"),
            Event::Reset { next } => format!("reset {next}"),
        });
    }
    assert_eq!(told, ["10", "12", "13", "lagged 14", "14", "reset 40", "40"]);
    assert_eq!(events.next_within(Duration::from_millis(10)).unwrap(), None);
    drop(events);
    fake.finish();
}

#[test]
fn a_subscription_that_is_refused_says_so_and_a_lost_one_ends() {
    let fake = Fake::new(vec![
        Box::new(drop),
        Box::new(|mut p| {
            p.request();
            let error = rpc::error_text(&p.id, &RpcError::new(Code::InvalidParams, "no pattern"));
            p.send(|out| Framing::Binary.write(out, &[&error]).unwrap());
        }),
        Box::new(|mut p| {
            p.request();
            p.reply(&json!({"subscription": 1, "next": 1, "reset": false}));
        }),
    ]);
    let mut client = fake.client();
    client.set_patience(Duration::from_millis(50));
    assert!(matches!(client.subscribe(&["?"], &[], None), Err(ClientError::Rpc(_))));
    let mut events = client.subscribe(&["*"], &[], None).unwrap();
    drop(client);
    assert!(events.next().unwrap().is_err());
    assert!(events.next().is_none());
    fake.finish();
}

#[test]
fn logs_go_on_at_their_positions() {
    let data = |p: &mut Peer, id: u32, bytes: &[u8]| {
        p.send(|out| Framing::Binary.stream_data(out, StreamId(id), bytes));
    };
    let fake = Fake::new(vec![
        Box::new(drop),
        Box::new(move |mut p| {
            let (method, params) = p.request();
            assert_eq!((&*method, &params["from"], &params["lines"]), ("service.logs", &json!({}), &json!(5)));
            assert_eq!((&params["names"], &params["follow"]), (&json!(["a", "b"]), &json!(true)));
            p.reply(&json!({"streams": [
                {"id": 7, "name": "a", "position": 100}, {"id": 8, "name": "b", "position": 0}]}));
            data(&mut p, 7, b"one\n");
            data(&mut p, 8, b"\xff");
            data(&mut p, 9, b"nobody's");
            p.note("stream.end", &json!({"id": 8, "reason": "closed"}));
        }),
        Box::new(move |mut p| {
            let (_, params) = p.request();
            assert_eq!((&params["names"], &params["from"]), (&json!(["a"]), &json!({"a": 104})));
            p.reply(&json!({"streams": [{"id": 3, "name": "a", "position": 104}]}));
            p.note("stream.gap", &json!({"id": 3, "position": 204, "dropped": 100}));
            data(&mut p, 3, b"two");
            p.note("stream.end", &json!({"id": 3, "reason": "eof"}));
            p.until_closed();
        }),
    ]);
    let client = fake.client();
    let mut logs = client.logs(&["a".to_owned(), "b".to_owned()], 5, true).unwrap();
    drop(client);
    let all: Vec<LogChunk> = logs.by_ref().map(Result::unwrap).collect();
    let chunk = |name: &str, position, bytes: &[u8]| LogChunk::Data {
        name: name.into(),
        position,
        bytes: bytes.into(),
        mark: Mark::default(),
    };
    let gap = LogChunk::Gap { name: "a".into(), dropped: 100 };
    assert_eq!(all, [chunk("a", 100, b"one\n"), chunk("b", 0, b"\xff"), gap, chunk("a", 204, b"two")]);
    drop(logs);
    fake.finish();
}

#[test]
fn the_daemons_own_log_has_one_position() {
    let fake = Fake::new(vec![
        Box::new(drop),
        Box::new(|mut p| {
            let (method, params) = p.request();
            assert_eq!((&*method, &params["from"]), ("daemon.logs", &Value::Null));
            p.reply(&json!({"streams": [{"id": 1, "name": "hob", "position": 50}]}));
            p.send(|out| Framing::Binary.stream_data(out, StreamId(1), b"abc"));
        }),
        Box::new(|mut p| {
            assert_eq!(p.request().1["from"], 53);
            p.reply(&json!({"streams": [{"id": 1, "name": "hob", "position": 53}]}));
            p.note("stream.end", &json!({"id": 1, "reason": "cannot read the log: EIO"}));
            p.until_closed();
        }),
    ]);
    let client = fake.client();
    let mut logs = client.logs(&[], 5, true).unwrap();
    drop(client);
    assert!(matches!(logs.next(), Some(Ok(LogChunk::Data { position: 50, .. }))));
    assert_eq!(logs.positions().collect::<Vec<_>>(), [("hob", 53)]);
    assert!(matches!(logs.next(), Some(Err(ClientError::Rpc(e))) if e.code == Code::FileSystem));
    assert!(logs.next().is_none());
    drop(logs);
    fake.finish();
}

#[test]
fn a_raw_connection_shows_every_message() {
    let fake = Fake::new(vec![Box::new(|mut p| {
        assert_eq!(p.request().0, "service.logs");
        p.reply(&json!({"streams": []}));
        p.send(|out| Framing::Binary.stream_data(out, StreamId(1), b"abc"));
    })]);
    let mut raw = fake.client().into_raw().unwrap();
    raw.send(&rpc::request_text(5, "service.logs", Some("[\"web\"]"))).unwrap();
    let Received::Json(text) = raw.receive(None).unwrap() else { panic!() };
    assert!(matches!(rpc::parse_from_server(text.as_bytes()), Ok(FromServer::Reply { id: "5", .. })));
    assert_eq!(raw.receive(None).unwrap(), Received::Stream { id: StreamId(1), bytes: b"abc".to_vec() });
    assert!(matches!(raw.receive(None), Err(ClientError::Closed)));
    assert!(matches!(raw.send(&"x".repeat(1 << 24)), Err(ClientError::Unexpected(_))));
    fake.finish();
}

#[test]
fn a_daemon_is_started_when_none_answers() {
    let (marker, socket) = (unique("marker"), unique("sock"));
    let (seen, path) = (marker.clone(), socket.clone());
    let daemon = std::thread::spawn(move || {
        let begin = Instant::now();
        while !seen.exists() {
            assert!(begin.elapsed() < Duration::from_secs(20), "nobody started anything");
            std::thread::sleep(Duration::from_millis(2));
        }
        let listener = UnixListener::bind(&path).unwrap();
        let (stream, _) = listener.accept().unwrap();
        let mut p = Peer { stream, decoder: Decoder::new(), id: String::new() };
        for (pong, asked) in ["daemon.health", "ping"].into_iter().enumerate() {
            assert_eq!(p.request().0, asked);
            p.reply(&json!({ "pong": pong }));
        }
    });
    let argv = vec!["touch".into(), marker.clone().into()];
    let start = Start { socket: socket.clone(), argv, log: unique("log"), limit: Duration::from_secs(20) };
    let mut client = ensure_running(&start).unwrap();
    assert_eq!(client.call::<Value>("ping", &json!({})).unwrap(), json!({"pong": 1}));
    daemon.join().unwrap();
    std::fs::remove_file(marker).unwrap();
    std::fs::remove_file(socket).unwrap();
}

#[test]
fn a_daemon_that_does_not_come_is_explained() {
    let log = unique("log");
    std::fs::write(&log, format!("{}first\nlast words\n", "filler\n".repeat(2000))).unwrap();
    let start = |argv: &[&str], ms| Start {
        socket: unique("none"),
        argv: argv.iter().map(Into::into).collect(),
        log: log.clone(),
        limit: Duration::from_millis(ms),
    };
    let said = |s: &Start| ensure_running(s).unwrap_err().to_string();
    let silent = said(&start(&["true"], 150));
    assert!(
        silent.contains("hob does not answer after 150 ms") && silent.contains(&*log.to_string_lossy()),
        "{silent}"
    );
    assert!(silent.ends_with("first\n  last words"), "{silent}");
    let failed = said(&start(&["sh", "-c", "echo hob.json:3:7: no such key >&2; exit 3"], 20_000));
    assert!(failed.starts_with("hob.json:3:7: no such key; its log is"), "{failed}");
    let mute = said(&start(&["false"], 20_000));
    assert!(mute.starts_with("starting hob failed (exit status: 1)"), "{mute}");
    assert!(said(&start(&["/no/such/hob"], 20_000)).starts_with("cannot run /no/such/hob"));
    assert!(said(&start(&[], 20_000)).starts_with("no program is named"));
    std::fs::remove_file(log).unwrap();
    assert_eq!(Start::home("/h").socket, PathBuf::from("/h/run/hob.sock"));
}
