//! A program of these scenarios' own, run as a job or beside hob: this very test binary, told by JOB what to do. It
//! works in its current folder.

use crate::support::LIMIT;
use hob::client::{Client, ClientError};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::time::Duration;

/// The members of a service that runs it, for the folder of the config.
pub(crate) fn spec(what: &str) -> String {
    let exe = std::env::current_exe().unwrap();
    let command = format!(r#"[{exe:?}, "--exact", "job::job", "--ignored"]"#);
    format!(r#""command": {command}, "cwd": ".", "env": {{"JOB": "{what}"}}"#)
}

#[test]
#[ignore = "a job of other scenarios: cargo test --test e2e peers"]
fn job() {
    match std::env::var("JOB").as_deref() {
        Ok("bridge") => bridge(),
        Ok("brief") => brief(),
        Ok("flood") => flood(),
        Ok("idle") => idle(),
        Ok("noise") => noise(),
        Ok("junk") => junk(),
        Ok("secret") => secret(),
        other => panic!("JOB is {other:?}"),
    }
}

fn notify() -> UnixDatagram {
    let socket = UnixDatagram::unbound().unwrap();
    socket.connect(std::env::var_os("NOTIFY_SOCKET").unwrap()).unwrap();
    socket.send(b"STATUS=begun").unwrap();
    socket
}

/// Is ready and has done its work. A process that it is told of is killed before.
fn brief() {
    if let Ok(pid) = fs::read_to_string("pid") {
        crate::support::kill("KILL", pid.parse().unwrap());
        fs::remove_file("pid").unwrap();
    }
    notify().send(b"READY=1").unwrap();
}

/// Is ready, and says something else about itself all the time.
fn noise() {
    notify().send(b"READY=1").unwrap();
    let speak = || {
        let socket = notify();
        while socket.send(b"STATUS=noise").is_ok() {}
    };
    std::thread::scope(|scope| (0..16).for_each(|_| drop(scope.spawn(speak))));
}

/// Tells what it should not.
fn secret() {
    let socket = notify();
    let text = format!("STATUS=it is {}\nREADY=1", std::env::var("TOKEN").unwrap());
    socket.send(text.as_bytes()).unwrap();
    loop {
        std::thread::park();
    }
}

/// Says much that nobody understands, and then that it is ready.
fn junk() {
    let socket = notify();
    for _ in 0..2 {
        socket.send(&[b'x'; 4097]).unwrap();
    }
    let speak = || {
        let socket = notify();
        for _ in 0..64 {
            socket.send(b"X_JUNK=1").unwrap();
        }
    };
    std::thread::scope(|scope| (0..32).for_each(|_| drop(scope.spawn(speak))));
    socket.send(b"READY=1").unwrap();
    loop {
        std::thread::park();
    }
}

/// Writes a file that is whole as soon as it is there.
pub(crate) fn put(path: &Path, text: &str) {
    let temporary = path.with_extension("new");
    fs::write(&temporary, text).unwrap();
    fs::rename(&temporary, path).unwrap();
}

fn pause() {
    std::thread::sleep(Duration::from_millis(3));
}

/// Waits for a file of another process.
fn await_file(path: &str) -> String {
    loop {
        match fs::read_to_string(path) {
            Ok(text) => return text,
            Err(_) => pause(),
        }
    }
}

/// Makes the calls that stand in files `ask-N`, one after the other, as whatever hob gave this process; the answers go
/// to `answer-N`.
fn bridge() {
    let mut client = Client::from_env().unwrap();
    // Those that an earlier run has answered are not for this one.
    let mut n = (1..).find(|n| !Path::new(&format!("answer-{n}")).exists()).unwrap_or(1);
    loop {
        let ask: Value = serde_json::from_str(&await_file(&format!("ask-{n}"))).unwrap();
        let answer = match client.call::<Value>(ask["method"].as_str().unwrap(), &ask["params"]) {
            Ok(result) => json!({ "ok": result }),
            Err(ClientError::Rpc(e)) => json!({ "code": e.code.number(), "message": e.message, "hint": e.hint }),
            Err(e) => json!({ "lost": e.to_string() }),
        };
        put(Path::new(&format!("answer-{n}")), &answer.to_string());
        n += 1;
    }
}

/// A connection in the line framing.
struct Line(BufReader<UnixStream>);

impl Line {
    fn open() -> Line {
        let stream = UnixStream::connect(std::env::var_os("HOB_SOCKET").unwrap()).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        Line(BufReader::new(stream))
    }

    fn send(&mut self, method: &str, params: &Value) {
        let text = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        // One that was turned away is closed already, and what it was told is there to be read.
        let _ = self.0.get_mut().write_all(format!("{text}\n").as_bytes());
    }

    /// The error of the next reply, if it is one; notifications are passed over.
    fn error(&mut self) -> Option<String> {
        loop {
            let mut text = String::new();
            self.0.read_line(&mut text).unwrap();
            let v: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text:?}"));
            if v.get("method").is_none() {
                return v["error"]["message"].as_str().map(|m| format!("{} {m}", v["error"]["code"]));
            }
        }
    }

    fn ask(&mut self, method: &str, params: &Value) -> Option<String> {
        self.send(method, params);
        self.error()
    }
}

/// How many of something there could be, and what was said then. What is open stays so until the test has looked.
fn stage(name: &str, count: usize, error: &str) {
    put(Path::new(name), &json!({"count": count, "error": error}).to_string());
    await_file(&format!("{name}-seen"));
}

/// Takes as much of everything as a job can get.
fn flood() {
    let mut open = Vec::new();
    let refused = loop {
        let mut line = Line::open();
        match line.ask("ping", &json!({})) {
            None => open.push(line),
            Some(error) => break error,
        }
    };
    stage("connections", open.len(), &refused);
    open.truncate(6);
    for (name, method, params) in [
        ("subscriptions", "event.subscribe", json!({"kinds": ["no.such.event"]})),
        ("streams", "daemon.logs", json!({"lines": 0, "follow": true})),
    ] {
        let mut count = 0;
        let mut refused = String::new();
        for line in &mut open {
            let error = loop {
                match line.ask(method, &params) {
                    None => count += 1,
                    Some(error) => break error,
                }
            };
            // The first limit is that of one connection.
            if !error.contains("this connection") {
                refused = error;
                break;
            }
        }
        stage(name, count, &refused);
    }
    let mut open: Vec<Line> = open.iter().map(|_| Line::open()).collect();
    // Each waits for a service that never becomes ready; a ping is answered after what was sent before it was read.
    let start = json!({"name": "never", "wait": true});
    for line in &mut open[..4] {
        (0..1000).for_each(|_| line.send("service.start", &start));
        assert_eq!(line.ask("ping", &json!({})), None);
    }
    let mut count = 4000;
    let refused = loop {
        open[4].send("service.start", &start);
        count += 1;
        if let Some(error) = open[4].ask("ping", &json!({})) {
            break error;
        }
    };
    stage("requests", count, &refused);
}

/// Thousands of idle connections, one that sends a byte now and then, one that asks much and never reads.
fn idle() {
    let socket = std::env::var_os("HOB_SOCKET").unwrap();
    let mut open = Vec::new();
    while open.len() < 2500 {
        match UnixStream::connect(&socket) {
            Ok(stream) => open.push(stream),
            // No more descriptors: a few are given back for what follows.
            Err(_) => {
                open.truncate(open.len().saturating_sub(8));
                break;
            }
        }
    }
    // The last one was accepted, so all were.
    let mut last = open.pop().unwrap();
    last.write_all(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}\n").unwrap();
    last.read_exact(&mut [0; 10]).unwrap();
    let mut rude = UnixStream::connect(&socket).unwrap();
    rude.set_nonblocking(true).unwrap();
    let ask = b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"rpc.discover\"}\n".repeat(200);
    while rude.write(&ask).is_ok() {}
    let mut slow = UnixStream::connect(&socket).unwrap();
    put(Path::new("up"), &open.len().to_string());
    while slow.write_all(b" ").is_ok() {
        pause();
    }
    put(Path::new("over"), "");
}
