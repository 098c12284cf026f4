//! Health checks of every kind, against real listeners and commands.

use super::*;
use crate::config::{Check, Endpoint, Health};
use crate::core::Duty;
use std::io::Write;
use std::net::{IpAddr, TcpListener};

const RUN: RunId = RunId(9);

fn asks(lab: &mut Lab, run: RunId, check: Check, limit: Duration) {
    let spec = spec(&["/bin/false"]).with(|s| s.health = Some(Health::new(check)));
    let asked = Asked { run, what: Duty::Health, limit, secrets: None };
    lab.with(|c, ctx, inputs| c.check(ctx, asked, &spec, inputs));
}

fn answer(lab: &mut Lab) -> Result<(), String> {
    lab.until(|i| match i {
        Input::Checked { what: Duty::Health, result, .. } => Some(result.clone()),
        _ => None,
    })
}

fn asked(lab: &mut Lab, check: Check) -> Result<(), String> {
    asks(lab, RUN, check, LIMIT);
    let answer = answer(lab);
    assert_eq!(lab.children.next_deadline(), None, "nothing is left of it");
    answer
}

fn at(listener: &TcpListener, localhost: bool) -> Endpoint {
    let address = listener.local_addr().unwrap();
    Endpoint { ip: (!localhost).then(|| address.ip()), port: address.port() }
}

/// Answers one connection with these bytes, and says what was asked.
fn serve(answer: &'static [u8]) -> (Endpoint, std::thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = at(&listener, false);
    let served = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut asked = Vec::new();
        while !asked.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            if stream.read(&mut byte).unwrap_or(0) == 0 {
                break;
            }
            asked.push(byte[0]);
        }
        // Whoever asked may have gone with the first line.
        let _ = stream.write_all(answer);
        String::from_utf8(asked).unwrap()
    });
    (at, served)
}

#[test]
fn a_port_is_healthy_when_it_accepts() {
    let mut lab = Lab::new(false);
    let four = TcpListener::bind("127.0.0.1:0").unwrap();
    assert_eq!(asked(&mut lab, Check::Tcp(at(&four, false))), Ok(()));
    assert_eq!(asked(&mut lab, Check::Tcp(at(&four, true))), Ok(()));
    if let Ok(six) = TcpListener::bind("[::1]:0") {
        assert_eq!(asked(&mut lab, Check::Tcp(at(&six, false))), Ok(()));
        assert_eq!(asked(&mut lab, Check::Tcp(at(&six, true))), Ok(()), "localhost is both");
    }
    let gone = at(&four, false);
    drop(four);
    let why = asked(&mut lab, Check::Tcp(gone)).unwrap_err();
    assert!(why.contains(&gone.to_string()) && why.contains("refused"), "{why}");
}

#[test]
fn http_is_healthy_by_its_first_line() {
    let mut lab = Lab::new(false);
    for (text, want) in [
        (&b"HTTP/1.1 200 OK\r\n\r\nhello"[..], Ok(())),
        (b"HTTP/1.1 302 Found\r\n\r\n", Ok(())),
        (b"HTTP/1.1 500 No\r\n\r\n", Err("HTTP 500")),
        (b"hello\r\n", Err("not HTTP")),
        (b"", Err("without an answer")),
    ] {
        let (at, served) = serve(text);
        let got = asked(&mut lab, Check::Http { at, path: "/a?b=c".to_owned() });
        match want {
            Ok(()) => assert_eq!(got, Ok(())),
            Err(why) => assert!(got.clone().unwrap_err().contains(why), "{got:?}"),
        }
        let request = served.join().unwrap();
        assert!(request.starts_with("GET /a?b=c HTTP/1.1\r\n") && request.contains(&format!("Host: {at}\r\n")));
    }
    let (at, served) = serve(Vec::leak(vec![b'x'; 100_000]));
    assert!(asked(&mut lab, Check::Http { at, path: "/".to_owned() }).unwrap_err().contains("not HTTP"));
    served.join().unwrap();
}

#[test]
fn who_does_not_answer_in_time_is_not_healthy() {
    let mut lab = Lab::new(false);
    // Accepted by the kernel, answered by nobody.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let check = Check::Http { at: at(&silent, false), path: "/".to_owned() };
    asks(&mut lab, RUN, check.clone(), Duration::from_millis(100));
    assert!(lab.children.next_deadline().is_some());
    let why = answer(&mut lab).unwrap_err();
    assert!(why.contains("no answer within 100 ms"), "{why}");
    asks(&mut lab, RUN, check, LIMIT);
    lab.with(|c, ctx, _| c.check_end(ctx, RUN, Duty::Health));
    assert_eq!(lab.children.next_deadline(), None);
    assert!(lab.inputs.is_empty(), "nobody waits for it any more");
    let nowhere = Endpoint { ip: Some(IpAddr::from([192, 0, 2, 1])), port: 9 };
    asks(&mut lab, RUN, Check::Tcp(nowhere), Duration::from_millis(100));
    assert!(answer(&mut lab).is_err(), "no connection, or no route");
}

#[test]
fn a_machine_that_stood_still_has_not_let_time_pass() {
    let mut lab = Lab::new(false);
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let check = Check::Http { at: at(&silent, false), path: "/".to_owned() };
    asks(&mut lab, RUN, check, Duration::from_secs(3600));
    let thawed = lab.with(|c, ctx, inputs| {
        ctx.now = ctx.now + Duration::from_secs(7200);
        c.tick(ctx, inputs);
        ctx.now
    });
    assert!(lab.inputs.is_empty());
    assert_eq!(lab.children.next_deadline(), Some(thawed + Duration::from_secs(3600)));
}

#[test]
fn a_socket_is_healthy_when_it_accepts() {
    let mut lab = Lab::new(false);
    let why = asked(&mut lab, Check::Unix("app.sock".to_owned())).unwrap_err();
    assert!(why.contains("app.sock") && why.contains("No such file"), "{why}");
    let listener = std::os::unix::net::UnixListener::bind(lab.dir.join("app.sock")).unwrap();
    assert_eq!(asked(&mut lab, Check::Unix("app.sock".to_owned())), Ok(()));
    drop(listener);
    assert!(asked(&mut lab, Check::Unix("app.sock".to_owned())).unwrap_err().contains("refused"));
}

#[test]
fn a_command_is_healthy_by_its_end_and_its_last_line_says_why_not() {
    for cgroup_off in [false, true] {
        let mut lab = Lab::new(cgroup_off);
        let run = lab.shell("s", "exec sleep 1000");
        lab.started().unwrap();
        let shell = |script: &str| Check::Command(["/bin/sh", "-c", script].map(str::to_owned).to_vec());
        let mut ask = |check: Check, limit: Duration| {
            asks(&mut lab, run, check, limit);
            answer(&mut lab)
        };
        assert_eq!(ask(shell("test $(ps -o comm= $MAINPID) = sleep"), LIMIT), Ok(()));
        assert_eq!(ask(shell("exit 3"), LIMIT), Err("exit code 3".to_owned()));
        let why = ask(shell("echo one; echo 'two \t' >&2; echo; kill -9 $$"), LIMIT);
        assert_eq!(why, Err("killed by SIGKILL: two".to_owned()));
        assert_eq!(ask(shell("yes | head -c 300000; echo end; exit 1"), LIMIT), Err("exit code 1: end".to_owned()));
        let missing = ask(Check::Command(vec!["/no/such/program".to_owned()]), LIMIT).unwrap_err();
        assert!(missing.contains("/no/such/program"), "{missing}");
        let hangs = ask(shell("trap '' TERM; sleep 1000 & wait"), Duration::from_millis(100));
        assert_eq!(hangs, Err("it did not end within 100 ms".to_owned()));
        let end = Instant::now() + LIMIT;
        while lab.table.iter().count() > 1 {
            assert!(Instant::now() < end);
            lab.turn();
        }
        assert!(lab.inputs.is_empty());
        lab.kill(run);
        lab.exited();
    }
}
