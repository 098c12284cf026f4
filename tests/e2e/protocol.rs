//! The socket as outside programs see it.

use crate::support::*;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

const ONE: &str = r#"{ "services": { "s": { "command": "exec sleep 1000" } } }"#;

fn talk(home: &Home, bytes: &[u8]) -> Vec<u8> {
    let mut s = UnixStream::connect(home.path("run/hob.sock")).unwrap();
    s.set_read_timeout(Some(LIMIT)).unwrap();
    s.write_all(bytes).unwrap();
    s.shutdown(Shutdown::Write).unwrap();
    let mut all = Vec::new();
    s.read_to_end(&mut all).unwrap();
    all
}

#[test]
fn a_line_of_json_is_answered_by_a_line() {
    let home = Home::running(ONE);
    let answer = talk(&home, b"{\"jsonrpc\":\"2.0\",\"id\":\"x\",\"method\":\"ping\"}\n");
    let v: serde_json::Value = serde_json::from_slice(&answer).unwrap();
    assert_eq!((v["id"].as_str(), v["result"]["pong"].as_bool()), (Some("x"), Some(true)));
}

#[test]
fn length_prefix_and_headers_are_spoken_too() {
    let home = Home::running(ONE);
    let body = br#"{"jsonrpc":"2.0","id":0,"method":"daemon.health"}"#;
    let mut framed = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
    framed.extend_from_slice(body);
    let answer = talk(&home, &framed);
    let length = u32::from_be_bytes(answer[..4].try_into().unwrap());
    assert_eq!(length as usize, answer.len() - 4);
    let v: serde_json::Value = serde_json::from_slice(&answer[4..]).unwrap();
    assert!(v["id"] == 0 && v["result"]["pid"].is_u64());
    let mut headed = format!("Content-Length: {}\r\n\r\n", body.len()).into_bytes();
    headed.extend_from_slice(body);
    let answer = String::from_utf8(talk(&home, &headed)).unwrap();
    assert!(answer.starts_with("Content-Length: ") && answer.contains("\r\n\r\n{"), "{answer}");
}

#[test]
fn a_key_makes_a_repeated_wish_one_wish() {
    let home = Home::running(ONE);
    home.wait_state("s", "running");
    let again = |key: &str| home.call("service.restart", &format!(r#"{{"names": ["s"], "request_key": "{key}"}}"#));
    let first = again("k1");
    let pid = home.pid("s");
    assert_eq!(again("k1"), first, "the same reply");
    assert_eq!(home.pid("s"), pid, "and no second restart");
    let (daemon, _) = home.pids();
    kill("KILL", daemon);
    assert_eq!(again("k1"), first, "over a death too");
    assert_eq!(home.pid("s"), pid);
    let out = home.hob(&["call", "service.stop", r#"{"names": ["s"], "request_key": "k1"}"#]);
    assert!(!out.status.success() && home.pid("s") == pid, "the same key for another wish is a conflict");
}

#[test]
fn garbage_harms_nobody() {
    let home = Home::running(ONE);
    home.wait_state("s", "running");
    let pid = home.pid("s");
    for garbage in [
        &b"\xff\xff\xff\xff"[..],
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x00\xff\xff\xff{}",
        b"{\n",
        b"[]\n",
        b"{\"a\":1}\n",
        b"\x01\x00\x00\x02ab",
    ] {
        talk(&home, garbage);
    }
    let deep = [b"[".repeat(10_000), b"]".repeat(10_000), b"\n".to_vec()].concat();
    assert!(String::from_utf8_lossy(&talk(&home, &deep)).contains("-32600"), "a batch of one that is no request");
    let deep = [b"{\"a\":".repeat(10_000), b"1".to_vec(), b"}".repeat(10_000), b"\n".to_vec()].concat();
    assert!(String::from_utf8_lossy(&talk(&home, &deep)).contains("-32"), "an error, whatever it is called");
    assert_eq!(home.pid("s"), pid);
}

#[test]
fn idle_clients_do_not_delay_the_end() {
    let mut home = Home::running(ONE);
    let idle: Vec<_> = (0..20).map(|_| UnixStream::connect(home.path("run/hob.sock")).unwrap()).collect();
    home.ok(&["stop"]);
    assert!(home.wait_end().success());
    drop(idle);
}

#[test]
fn discovery_lists_what_works() {
    let home = Home::running(ONE);
    let doc = home.call("rpc.discover", "{}");
    let methods = doc["methods"].as_array().unwrap();
    assert!(methods.len() > 20);
    let (code, text) = home.fails(&["call", "servcie.list"]);
    assert!(text.contains("service.list"), "{text}");
    assert!(code > 2);
}
