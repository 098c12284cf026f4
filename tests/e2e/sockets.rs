//! Sockets that hob holds for services: passed with names, kept over everything, and starting their service on demand.

use crate::support::*;
use serde_json::{Value, json};
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// An address of this machine that nobody else uses, with a port that is free on it.
fn address() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(1);
    let (pid, n) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let free = TcpListener::bind(format!("127.{}.{}.{n}:0", pid % 250 + 2, pid / 250 % 250)).unwrap();
    free.local_addr().unwrap().to_string()
}

/// A command that serves its first socket by this very program (see `server`): so many connections, then it ends
/// with this code, 0 or 1.
fn serving(connections: u32, code: u8) -> Value {
    let program = std::env::current_exe().unwrap();
    let run = "test $LISTEN_PID = $$ || exit 99; exec \"$0\" --ignored --exact sockets::server 0<&3 >/dev/null";
    json!({
        "command": ["sh", "-c", run, program.to_str().unwrap()],
        "env": { "SERVE": connections.to_string(), "CODE": code.to_string() },
        "min_delay": "1ms",
        "max_delay": "20ms",
    })
}

/// The same with more keys.
fn with(mut service: Value, more: &Value) -> Value {
    service.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    service
}

fn config(services: &Value) -> String {
    json!({ "services": services }).to_string()
}

/// Not a test but the program of services: serves the socket that is its standard input, a connection at a time, each
/// with its pid.
#[test]
#[ignore = "the program of services of other scenarios: cargo test --test e2e sockets"]
fn server() {
    let number = |name: &str| std::env::var(name).ok().map(|v| v.parse::<u32>().unwrap());
    let Some(count) = number("SERVE") else { return };
    let socket = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    let listener = TcpListener::from(socket.try_clone().unwrap());
    let unix = UnixListener::from(socket);
    for _ in 0..count {
        // The client may have gone when it is answered.
        let _ = if listener.local_addr().is_ok() {
            writeln!(listener.accept().unwrap().0, "{}", std::process::id())
        } else {
            writeln!(unix.accept().unwrap().0, "{}", std::process::id())
        };
    }
    // What a program does to the socket must not change it for the next one.
    listener.set_nonblocking(true).unwrap();
    assert_eq!(number("CODE"), Some(0), "it fails because it was told to");
}

/// Connects and reads until the end; the pid that served, or what became of the connection.
fn ask(at: &str) -> std::io::Result<u32> {
    let mut text = String::new();
    if let Some(path) = at.strip_prefix("unix:") {
        UnixStream::connect(path)?.read_to_string(&mut text)?;
    } else {
        TcpStream::connect(at)?.read_to_string(&mut text)?;
    }
    text.trim().parse().map_err(|_| std::io::Error::other(format!("{text:?}")))
}

fn refused(at: &str) -> bool {
    ask(at).is_err_and(|e| matches!(e.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound))
}

fn why(home: &Home, name: &str) -> String {
    home.call("daemon.why", &json!({ "name": name }).to_string()).to_string()
}

/// The socket that a process has under a number.
fn socket_of(pid: u32, fd: u32) -> String {
    fs::read_link(format!("/proc/{pid}/fd/{fd}")).unwrap().display().to_string()
}

fn is_socket(home: &Home, file: &str) -> bool {
    home.path(file).symlink_metadata().is_ok_and(|m| m.file_type().is_socket())
}

/// Rounds of everything in the test of refused connections; HOB_SOCKET_ROUNDS asks for more.
fn rounds() -> u32 {
    std::env::var("HOB_SOCKET_ROUNDS").ok().map_or(12, |v| v.parse().unwrap())
}

#[test]
fn no_connection_is_refused_whatever_happens_behind_the_socket() {
    let at = address();
    let services = |note: &str| {
        let more = json!({ "listen": format!("tcp:{at}"), "restart": "always" });
        let unix = json!({ "listen": "unix:s", "on_demand": true });
        config(&json!({
            "tcp": with(serving(25, 1), &more),
            "unix": with(serving(10, 0), &unix),
            "other": { "command": "exec sleep 1000", "stop_timeout": note },
        }))
    };
    let home = Home::running(&services("1s"));
    let unix = format!("unix:{}", home.path("s").display());
    home.wait_state("unix", "waiting");
    wait("the first is served", || ask(&at).is_ok() && ask(&unix).is_ok());
    let programs = [home.path("one"), home.path("two")];
    for program in &programs {
        copy_hob(program);
    }
    let (over, served) = (AtomicBool::new(false), [AtomicU64::new(0), AtomicU64::new(0)]);
    let refusals: Vec<String> = std::thread::scope(|s| {
        let clients: Vec<_> = [&at, &unix]
            .into_iter()
            .zip(&served)
            .map(|(at, served)| {
                let over = &over;
                s.spawn(move || {
                    let mut refusals = Vec::new();
                    while !over.load(Ordering::Relaxed) {
                        match ask(at) {
                            Ok(_) => drop(served.fetch_add(1, Ordering::Relaxed)),
                            // What a program had taken when it was ended is lost with it.
                            Err(e) if matches!(e.kind(), ErrorKind::ConnectionReset | ErrorKind::Other) => {}
                            Err(e) => refusals.push(format!("{at}: {e}")),
                        }
                    }
                    refusals
                })
            })
            .collect();
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for n in 0..rounds() {
                let before: Vec<u64> = served.iter().map(|s| s.load(Ordering::Relaxed)).collect();
                match n % 4 {
                    0 => drop(home.ok(&["restart", "tcp", "unix"])),
                    1 => drop(
                        home.call("daemon.upgrade", &json!({ "binary": programs[n as usize / 4 % 2] }).to_string()),
                    ),
                    2 => {
                        home.write_config(&services(if n % 8 == 2 { "2s" } else { "1s" }));
                        home.ok(&["reload"]);
                    }
                    _ => kill("KILL", home.pid("other")),
                }
                let daemon = home.pids().0;
                kill("KILL", daemon);
                wait("another daemon answers", || home.hob(&["ping"]).status.success() && home.pids().0 != daemon);
                wait("connections are served", || {
                    served.iter().zip(&before).all(|(now, before)| now.load(Ordering::Relaxed) > before + 30)
                });
            }
        }));
        over.store(true, Ordering::Relaxed);
        let refusals = clients.into_iter().flat_map(|c| c.join().unwrap()).collect();
        done.unwrap_or_else(|e| std::panic::resume_unwind(e));
        refusals
    });
    assert!(refusals.is_empty(), "{refusals:?}");
    assert!(home.service("tcp")["restarts"].as_u64().unwrap() > 0, "it crashed all the time");
    home.ok(&["stop"]);
    wait("it is closed", || refused(&at) && !exists(&home.path("s")));
}

#[test]
fn sockets_come_with_their_names_and_to_nobody_else() {
    let at = address();
    let shows = "echo $((LISTEN_PID - $$)) $LISTEN_FDS $LISTEN_FDNAMES; ls /proc/self/fd | wc -l; exec sleep 1000";
    let check = json!({ "command": ["sh", "-c", "test -z \"$LISTEN_PID$LISTEN_FDNAMES\""], "every": "100ms" });
    let listen = json!([
        format!("tcp:{at}"),
        { "name": "log", "udp": at },
        { "name": "a b", "unix": format!("@{at}"), "type": "seqpacket" },
    ]);
    let services = json!({
        "three": { "command": shows, "env": { "LISTEN_FDS": "9" }, "health": check, "listen": listen },
        "none": { "command": "env | grep ^LISTEN_; echo nothing; exec sleep 1000" },
        "fd": { "command": "echo >&4; exec sleep 1000", "listen": "unix:r/s", "ready": { "fd": 4 } },
    });
    let mut home = Home::with_env(&config(&services), "LISTEN_FDS", "3");
    home.start(&[]);
    ["three", "none", "fd"].iter().for_each(|name| home.wait_state(name, "running"));
    wait("both have spoken", || home.log("three").lines().count() == 2 && home.log("none").contains("nothing"));
    assert_eq!(home.log("three").lines().next(), Some("0 3 three:log:a b"));
    assert_eq!(home.log("none"), "nothing\n");
    wait("a check gets none", || home.service("three")["health"] == "ok");
    let sockets = &home.service("three")["sockets"];
    assert_eq!(sockets[1], json!({ "name": "log", "address": format!("udp:{at}"), "open": true }));
    // Each is what it was said to be, and all outlive the daemon and a restart.
    let before: Vec<String> = (3..6).map(|fd| socket_of(home.pid("three"), fd)).collect();
    kill("KILL", home.pids().0);
    wait("another daemon answers", || home.hob(&["ping"]).status.success());
    home.ok(&["restart", "three"]);
    let after: Vec<String> = (3..6).map(|fd| socket_of(home.pid("three"), fd)).collect();
    assert_eq!(before, after);
    let text = home.ok(&["status", "three"]);
    assert!(text.contains("Listens on") && text.contains(&format!("udp:{at} (log)")), "{text}");
    UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"x", &at).unwrap();
    assert!(TcpStream::connect(&at).is_ok() && is_socket(&home, "r/s"));
}

#[test]
fn the_first_connection_starts_what_runs_on_demand() {
    let more = json!({ "listen": { "name": "http", "unix": "s" }, "on_demand": true, "requires": ["db"] });
    let home = Home::running(&config(&json!({
        "web": with(serving(1, 0), &more),
        "db": { "command": "exec sleep 1000", "autostart": false },
        "user": { "command": "exec sleep 1000", "requires": ["web"] },
    })));
    let at = format!("unix:{}", home.path("s").display());
    home.wait_state("user", "running");
    assert_eq!((home.state("web").as_str(), home.state("db").as_str()), ("waiting", "stopped"));
    assert!(home.ok(&["status"]).contains("waits for a connection"));
    assert!(why(&home, "web").contains("waits for a connection on http (unix:s)"));
    for n in 1..=4u64 {
        if n % 2 == 0 {
            kill("KILL", home.pids().0);
        }
        ask(&at).unwrap();
        wait("it waits again", || {
            home.hob(&["ping"]).status.success()
                && home.service("web")["runs_total"] == n
                && home.state("web") == "waiting"
        });
    }
    assert_eq!(home.state("db"), "running");
    let history = home.call("service.history", r#"{"name": "web"}"#)["runs"].to_string();
    assert_eq!(history.matches("by a connection on http").count(), 4, "{history}");
    // A person's stop closes the socket, also for the next daemon; a start opens it and waits for nobody.
    home.ok(&["stop", "web"]);
    wait("it is closed", || refused(&at) && !exists(&home.path("s")));
    kill("KILL", home.pids().0);
    wait("another daemon answers", || home.hob(&["ping"]).status.success());
    assert!(refused(&at) && home.state("web") == "stopped");
    home.ok(&["start", "web"]);
    assert_eq!(home.state("web"), "running");
    let pid = home.pid("web");
    assert_eq!(ask(&at).unwrap(), pid);
    home.wait_state("web", "waiting");
    home.ok(&["stop", "web"]);
    assert!(home.ok(&["service", "reset", "web"]).contains("web"));
    wait("it listens again", || is_socket(&home, "s"));
    ask(&at).unwrap();
    home.ok(&["stop"]);
    assert!(!exists(&home.path("s")));
}

#[test]
fn who_takes_no_connection_is_not_started_for_ever() {
    let home = Home::running(&config(&json!({
        "crash": { "command": "exit 3", "listen": "unix:c", "on_demand": true, "max_restarts": 2, "min_delay": "1ms" },
        "leave": { "command": "exit 0", "listen": "unix:l", "on_demand": true, "min_delay": "1h", "max_delay": "1h" },
        "missing": { "command": ["/bin/nothing/here"], "listen": "unix:m", "on_demand": true, "restart": "never" },
    })));
    wait("all listen", || ["c", "l", "m"].iter().all(|s| is_socket(&home, s)));
    let waiting: Vec<UnixStream> = ["c", "l", "m"].iter().map(|s| UnixStream::connect(home.path(s)).unwrap()).collect();
    home.wait_state("crash", "failed");
    home.wait_state("missing", "failed");
    home.wait_state("leave", "backoff");
    assert_eq!(home.service("crash")["runs_total"], 3);
    let runs = home.service("leave")["runs_total"].as_u64().unwrap();
    assert!((21..=22).contains(&runs), "twenty that were waiting already are let through, not {runs}");
    assert!(why(&home, "leave").contains("it ended often while somebody was waiting"));
    // Given up, so connections are refused; put off, so they wait.
    assert!(!exists(&home.path("c")) && !exists(&home.path("m")) && is_socket(&home, "l"));
    drop(waiting);
    home.ok(&["start", "--no-wait", "crash"]);
    home.wait_state("crash", "failed");
}

#[test]
fn an_address_in_use_is_told_and_tried_again_and_harms_nobody() {
    let (at, lazy) = (address(), address());
    let (taken, other) = (TcpListener::bind(&at).unwrap(), UdpSocket::bind(&lazy).unwrap());
    let more = json!({ "listen": [format!("tcp:{at}"), "unix:s"], "max_delay": "100ms", "max_restarts": 1 });
    let lazily = json!({ "listen": format!("udp:{lazy}"), "on_demand": true, "max_delay": "100ms" });
    let home = Home::running(&config(&json!({
        "web": with(serving(1000, 0), &more),
        "lazy": with(json!({ "command": "exec sleep 1000" }), &lazily),
        "fine": { "command": "exec sleep 1000", "listen": "unix:f" },
    })));
    home.wait_state("fine", "running");
    home.wait_state("web", "backoff");
    let text = why(&home, "web");
    assert!(text.contains(&format!("cannot listen on tcp:{at}: Address already in use")), "{text}");
    assert!(text.contains("free that address"), "{text}");
    wait("lazy says so", || why(&home, "lazy").contains("Address already in use"));
    assert!(home.call("daemon.health", "{}")["problems"].to_string().contains("lazy waits for its sockets"));
    let (_, told) = home.fails(&["start", "web"]);
    assert!(told.contains("Address already in use"), "{told}");
    kill("KILL", home.pids().0);
    wait("another daemon answers", || home.hob(&["ping"]).status.success());
    drop((taken, other));
    home.wait_state("web", "running");
    assert_eq!(ask(&at).unwrap(), home.pid("web"));
    wait("lazy listens", || home.service("lazy")["sockets"][0]["open"] == true);
    UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"x", &lazy).unwrap();
    home.wait_state("lazy", "running");
    assert_eq!(home.service("web")["restarts"], 0, "it was never at fault");
}

#[test]
fn files_of_sockets_are_replaced_only_when_nobody_listens_and_are_cleared_away() {
    let mut home = Home::new("{}");
    let (stale, used, file) = (home.path("stale"), home.path("used"), home.path("file"));
    drop(UnixListener::bind(&stale).unwrap());
    let listener = UnixListener::bind(&used).unwrap();
    fs::write(&file, "precious").unwrap();
    let theirs = used.metadata().unwrap().ino();
    let sleeping = |listen: Value| json!({ "command": "exec sleep 1000", "listen": listen });
    home.write_config(&config(&json!({
        "stale": sleeping(json!([{ "unix": "stale", "mode": "0640" }, "unix:new/folder/s"])),
        "used": sleeping(json!("unix-datagram:used")),
        "file": sleeping(json!("unix:file")),
        "gone": sleeping(json!("unix:gone")),
    })));
    home.start(&[]);
    home.wait_state("stale", "running");
    home.wait_state("gone", "running");
    home.wait_state("used", "backoff");
    home.wait_state("file", "backoff");
    assert_eq!(stale.metadata().unwrap().mode() & 0o777, 0o640);
    assert!(UnixStream::connect(&stale).is_ok() && is_socket(&home, "new/folder/s"));
    assert!(why(&home, "used").contains("Address already in use") && used.metadata().unwrap().ino() == theirs);
    assert!(why(&home, "file").contains("is there and is not a socket"));
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    // Somebody takes one away: the next run gets a new one. Somebody else puts another there: it is not touched.
    fs::remove_file(&stale).unwrap();
    home.ok(&["restart", "stale"]);
    assert!(UnixStream::connect(&stale).is_ok());
    fs::remove_file(home.path("new/folder/s")).unwrap();
    let foreign = UnixListener::bind(home.path("new/folder/s")).unwrap();
    home.write_config(&config(
        &json!({ "stale": sleeping(json!([{ "unix": "stale", "mode": "0600" }, "unix:new/folder/s"])) }),
    ));
    home.ok(&["reload"]);
    wait("what was removed is gone", || !exists(&home.path("gone")));
    wait("the mode is changed", || stale.metadata().is_ok_and(|m| m.mode() & 0o777 == 0o600));
    home.ok(&["stop"]);
    home.wait_end();
    assert!(!exists(&stale) && is_socket(&home, "new/folder/s") && exists(&used) && exists(&file));
    drop((listener, foreign));
}

#[test]
fn another_address_closes_the_old_one_and_a_killed_hob_leaves_nothing_in_the_way() {
    let (one, two) = (address(), address());
    let web = |at: &str, note: &str| {
        let more = json!({ "listen": [format!("tcp:{at}"), "unix:s"], "stop_timeout": note });
        config(&json!({ "web": with(serving(100_000, 0), &more) }))
    };
    let mut home = Home::running(&web(&one, "1s"));
    home.wait_state("web", "running");
    let (pid, kept) = (home.pid("web"), home.path("s").metadata().unwrap().ino());
    home.write_config(&web(&one, "2s"));
    home.ok(&["reload"]);
    assert_eq!((home.pid("web"), ask(&one).unwrap()), (pid, pid), "nothing happened");
    home.write_config(&web(&two, "2s"));
    home.ok(&["reload"]);
    wait("the new one is served", || ask(&two).is_ok_and(|now| now != pid));
    wait("the old one is refused", || refused(&one));
    assert_eq!(home.path("s").metadata().unwrap().ino(), kept, "the other socket stays");
    // Stopping frees the address at once, and starting takes it again at once.
    for _ in 0..5 {
        home.ok(&["stop", "web"]);
        wait("it is refused", || refused(&two));
        home.ok(&["start", "web"]);
        ask(&two).unwrap();
    }
    for _ in 0..5 {
        home.ok(&["stop", "web"]);
        home.ok(&["start", "web"]);
    }
    let (daemon, keeper) = home.pids();
    kill("STOP", daemon);
    kill("KILL", keeper);
    kill("KILL", daemon);
    home.reap();
    assert!(exists(&home.path("s")), "nobody could clear it away");
    home.start(&[]);
    home.wait_state("web", "running");
    ask(&two).unwrap();
    assert!(UnixStream::connect(home.path("s")).is_ok());
}
