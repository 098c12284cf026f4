//! Clients that send nonsense, too much, too slowly, or read nothing: each gets a clear answer or the door, nobody else
//! is harmed, and memory stays bounded.

use crate::support::*;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

const ONE: &str = r#"{ "services": { "s": { "command": "exec sleep 1000" } } }"#;
const PING: &str = r#"{"jsonrpc":"2.0","id":7,"method":"ping"}"#;

fn connect(home: &Home) -> UnixStream {
    let s = UnixStream::connect(home.path("run/hob.sock")).unwrap();
    s.set_read_timeout(Some(LIMIT)).unwrap();
    s
}

/// Sends, says that nothing more comes, and reads to the end.
fn talk(home: &Home, bytes: &[u8]) -> String {
    let mut s = connect(home);
    let _ = s.write_all(bytes);
    let _ = s.shutdown(Shutdown::Write);
    let mut all = Vec::new();
    let _ = s.read_to_end(&mut all);
    String::from_utf8_lossy(&all).into_owned()
}

/// In each framing.
fn framed(text: &[u8]) -> [Vec<u8>; 3] {
    let length = u32::try_from(text.len()).unwrap().to_be_bytes();
    [
        [&length[..], text].concat(),
        [format!("Content-Length: {}\r\n\r\n", text.len()).as_bytes(), text].concat(),
        [text, b"\n"].concat(),
    ]
}

/// Error codes of an answer, in order.
fn codes(answer: &str) -> Vec<i64> {
    let after = answer.split("\"code\":").skip(1);
    after.map(|rest| rest.split([',', '}']).next().unwrap().parse().unwrap()).collect()
}

/// Resident memory of a process in KiB.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Nothing of a scenario has harmed the daemon or its service.
fn unharmed(home: &Home, daemon: u32, service: u32) {
    assert!(talk(home, &framed(PING.as_bytes())[0]).contains("\"pong\":true"));
    assert_eq!((home.pids().0, home.pid("s")), (daemon, service));
}

#[test]
fn every_kind_of_nonsense_gets_its_error_in_every_framing() {
    let home = Home::running(ONE);
    home.wait_state("s", "running");
    let (daemon, service) = (home.pids().0, home.pid("s"));
    let deep = |open: &str, close: &str| format!("{}1{}", open.repeat(10_000), close.repeat(10_000));
    let call = |rest: &str| format!("{{\"jsonrpc\":\"2.0\",\"id\":7,{rest}}}").into_bytes();
    let cases: Vec<(Vec<u8>, i64, &str)> = vec![
        (b"{".to_vec(), -32700, "EOF"),
        (b"{]".to_vec(), -32700, "not JSON"),
        (b"{\"id\":\"\xff\"}".to_vec(), -32700, "not UTF-8"),
        (call("\"method\":\"servce.list\""), -32601, "did you mean service.list?"),
        (call("\"method\":\"service.get\",\"params\":{\"nmae\":\"s\"}"), -32602, "did you mean name?"),
        (call("\"method\":\"service.get\",\"params\":{\"name\":[1]}"), -32602, "not [1]"),
        (call("\"method\":\"service.get\",\"params\":3"), -32600, "an object or an array"),
        (call("\"method\":\"service.get\",\"params\":{\"name\":\"../../etc/passwd\"}"), -32004, "there is no service"),
        (call("\"method\":\"service.history\",\"params\":{\"name\":\"s\",\"limit\":-1}"), -32602, "a whole number"),
        (call(&format!("\"method\":\"ping\",\"params\":{}", deep("[", "]"))), -32602, "0 params"),
        (call(&format!("\"method\":\"ping\",\"params\":{}", deep("{\"a\":", "}"))), -32602, "no param"),
        (
            format!("{{\"jsonrpc\":\"2.0\",\"id\":{},\"method\":\"ping\"}}", deep("[", "]")).into_bytes(),
            -32600,
            "an id is",
        ),
        (deep("[", "]").into_bytes(), -32600, ""),
        (b"[]".to_vec(), -32600, "an empty batch"),
        (format!("[{}]", [PING; 1001].join(",")).into_bytes(), -32005, "more than 1000 requests"),
    ];
    for (text, code, say) in &cases {
        for bytes in framed(text) {
            let answer = talk(&home, &bytes);
            let shown = String::from_utf8_lossy(&text[..text.len().min(80)]).into_owned();
            assert_eq!(codes(&answer), [*code], "{shown}: {answer}");
            assert!(answer.contains(say), "{shown}: {answer}");
        }
    }
    unharmed(&home, daemon, service);
}

#[test]
fn frames_that_are_cut_off_too_long_or_of_another_framing_close_their_connection_alone() {
    let home = Home::running(ONE);
    home.wait_state("s", "running");
    let (daemon, service) = (home.pids().0, home.pid("s"));
    let [binary, headers, line] = framed(PING.as_bytes());
    let with = |parts: &[&[u8]]| parts.concat();
    let cases: Vec<(Vec<u8>, &[i64], bool)> = vec![
        (binary[..10].to_vec(), &[-32700], false),
        (headers[..30].to_vec(), &[-32700], false),
        (line[..10].to_vec(), &[-32700], false),
        (with(&[&binary, &line]), &[-32700], true),
        (with(&[&headers, &line]), &[-32700], true),
        (with(&[&headers, &binary]), &[-32700], true),
        (with(&[&line, &binary]), &[-32700], true),
        (b"Content-Length: 16777216\r\n\r\n".to_vec(), &[-32005], false),
        (b"Content-Length: 99999999999999999999\r\n\r\n".to_vec(), &[-32005], false),
        (b"Content-Length: -1\r\n\r\n{}".to_vec(), &[-32700], false),
        (b"Content-Type: x\r\n\r\n{}".to_vec(), &[-32700], false),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), &[-32700], false),
        (vec![0xff; 1000], &[-32700], false),
        (b"\x00\x00\x00\x00".to_vec(), &[-32700], false),
        (b"\x01\x00\x00\x02ab".to_vec(), &[-32700], false),
        (b"\x01\x00\x00\x05abcde".to_vec(), &[-32600], false),
    ];
    for (bytes, want, answered) in &cases {
        let answer = talk(&home, bytes);
        let shown = String::from_utf8_lossy(bytes).into_owned();
        assert_eq!(codes(&answer), *want, "{shown:?}: {answer}");
        assert_eq!(answer.contains("\"pong\":true"), *answered, "{shown:?}: {answer}");
    }
    unharmed(&home, daemon, service);
}

#[test]
fn endless_lines_and_half_messages_do_not_fill_the_memory() {
    let home = Home::running(ONE);
    home.wait_state("s", "running");
    let (daemon, service) = (home.pids().0, home.pid("s"));
    let before = resident(daemon);
    let part = vec![b'x'; 1 << 20];
    // 300 MB without a line end.
    let mut endless = connect(&home);
    endless.write_all(b"{").unwrap();
    let taken = (0..300).take_while(|_| endless.write_all(&part).is_ok()).count();
    assert!(taken < 20, "it was cut off after {taken} MiB");
    let mut said = String::new();
    let _ = endless.read_to_string(&mut said);
    assert!(said.contains("a message is longer than"), "{said}");
    // Twenty times the largest frame but for its last byte, which would be 320 MiB.
    let mut halves = Vec::new();
    for _ in 0..20 {
        let mut s = connect(&home);
        let _ = s.write_all(b"\x00\xff\xff\xff");
        let _ = (0..15).try_for_each(|_| s.write_all(&part));
        halves.push(s);
    }
    let grown = resident(daemon).saturating_sub(before);
    assert!(grown < 180 << 10, "{grown} KiB are held for half messages");
    unharmed(&home, daemon, service);
    drop(halves);
    wait("it is given back", || resident(daemon) < before + (16 << 10));
}

#[test]
fn who_never_reads_or_sends_a_byte_now_and_then_delays_nobody() {
    let mut home = Home::running(ONE);
    home.wait_state("s", "running");
    let (daemon, service) = (home.pids().0, home.pid("s"));
    let mut deaf = connect(&home);
    deaf.set_nonblocking(true).unwrap();
    let asks = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"rpc.discover\"}\n".repeat(100);
    let mut sent = 0;
    wait("it is not read from any more", || match deaf.write(asks.as_bytes()) {
        Ok(n) => {
            sent += n;
            assert!(sent < 64 << 20, "everything is read and answered to nobody");
            false
        }
        Err(e) => e.kind() == ErrorKind::WouldBlock,
    });
    let mut slow = connect(&home);
    for byte in PING.bytes().chain([b'\n']) {
        slow.write_all(&[byte]).unwrap();
        home.ok(&["ping"]);
    }
    let mut answer = [0; 10];
    slow.read_exact(&mut answer).unwrap();
    slow.write_all(b"{").unwrap();
    let mut half = connect(&home);
    half.write_all(b"\x00\x00").unwrap();
    unharmed(&home, daemon, service);
    assert!(resident(daemon) < 100 << 10);
    home.ok(&["stop"]);
    assert!(home.wait_end().success(), "none of them is waited for");
}

/// Set for the copy of this program that plays the crowd: the socket.
const CROWD: &str = "HOB_TEST_CROWD";

#[test]
fn ten_thousand_connections_are_served_up_to_the_limit_and_refused_beyond() {
    if let Some(socket) = std::env::var_os(CROWD) {
        return crowd(Path::new(&socket));
    }
    let home = Home::running(ONE);
    home.wait_state("s", "running");
    let (daemon, service) = (home.pids().0, home.pid("s"));
    let limits = std::fs::read_to_string(format!("/proc/{daemon}/limits")).unwrap();
    let files = limits.lines().find(|l| l.starts_with("Max open files")).unwrap();
    if files.split_whitespace().nth(4).unwrap().parse::<u64>().is_ok_and(|hard| hard < 11_000) {
        return skip("so few descriptors are allowed here that ten thousand connections cannot be tried");
    }
    // Of descriptors of its own, which other tests do not lack meanwhile.
    let name = "bad_bytes::ten_thousand_connections_are_served_up_to_the_limit_and_refused_beyond";
    let crowd = Command::new("sh")
        .args(["-c", "ulimit -n 11000 && exec timeout 60 \"$@\"", "sh"])
        .arg(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env(CROWD, home.path("run/hob.sock"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(crowd.status.success(), "{}", String::from_utf8_lossy(&crowd.stderr));
    assert!(resident(daemon) < 100 << 10);
    unharmed(&home, daemon, service);
}

fn crowd(socket: &Path) {
    let mut all = Vec::new();
    for _ in 0..10_000 {
        all.push(wait_or("a connection", || UnixStream::connect(socket)));
    }
    let ask = framed(PING.as_bytes());
    let answer = |mut s: &UnixStream| {
        s.set_read_timeout(Some(LIMIT)).unwrap();
        let _ = s.write_all(&ask[2]);
        let mut bytes = [0; 4096];
        let n = s.read(&mut bytes).unwrap_or(0);
        String::from_utf8_lossy(&bytes[..n]).into_owned()
    };
    assert!(answer(&all[0]).contains("\"pong\":true"), "an early one is served");
    let refused = answer(&all[9_999]);
    assert!(refused.contains("-32005") && refused.contains("connections are open"), "a late one is told: {refused}");
}
