//! The floors: the least that the work itself costs, without a supervisor. This program plays the other side of each.

use crate::lab::{pause, until};
use hob::sys::end::Reaped;
use hob::sys::table::RunTable;
use hob::sys::{clock, spawn, wait};
use mio::net::UnixListener;
use mio::{Events, Interest, Poll, Token};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

/// What this program does when it is started as somebody's service: `@stamp FILE`, `@write MB` or `@echo SOCKET`.
pub(crate) fn act(words: &[String]) {
    match words {
        [act, file] if act == "@stamp" => stamp(Path::new(file)),
        [act, mb] if act == "@write" => write(mb.parse().unwrap()),
        [act, socket] if act == "@echo" => echo(Path::new(socket)),
        _ => println!("no such act"),
    }
}

/// Its first act is to say when it began; then it sleeps.
fn stamp(file: &Path) {
    let line = format!("{} {}\n", clock::now().mono.0, std::process::id());
    OpenOptions::new().create(true).append(true).open(file).unwrap().write_all(line.as_bytes()).unwrap();
    pause(Duration::from_secs(100_000));
}

/// Lines of 100 bytes in blocks of 64 KiB.
fn write(mb: usize) {
    let line = format!("{}\n", "x".repeat(99));
    let block = line.repeat(655);
    let mut out = std::io::stdout().lock();
    for _ in 0..mb * 1_000_000 / block.len() {
        out.write_all(block.as_bytes()).unwrap();
    }
    drop(out);
    pause(Duration::from_secs(100_000));
}

/// One thread, one selector: each request, of 44 bytes, is answered with as many bytes as hob's answer to a ping has.
fn echo(socket: &Path) {
    const REQUEST: usize = 44;
    let answer = [b'x'; 111];
    let mut listener = UnixListener::bind(socket).unwrap();
    let (mut poll, mut events) = (Poll::new().unwrap(), Events::with_capacity(64));
    poll.registry().register(&mut listener, Token(0), Interest::READABLE).unwrap();
    let (mut streams, mut next) = (BTreeMap::new(), 1);
    let (mut input, mut output) = (vec![0; 64 * 1024], Vec::new());
    loop {
        poll.poll(&mut events, None).unwrap();
        for event in &events {
            if event.token() == Token(0) {
                while let Ok((mut stream, _)) = listener.accept() {
                    poll.registry().register(&mut stream, Token(next), Interest::READABLE).unwrap();
                    streams.insert(next, (stream, 0));
                    next += 1;
                }
                continue;
            }
            let Some((stream, rest)) = streams.get_mut(&event.token().0) else { continue };
            loop {
                match stream.read(&mut input) {
                    Ok(0) => {
                        streams.remove(&event.token().0);
                        break;
                    }
                    Ok(n) => {
                        let have = *rest + n;
                        *rest = have % REQUEST;
                        output.clear();
                        (0..have / REQUEST).for_each(|_| output.extend_from_slice(&answer));
                        stream.write_all(&output).unwrap();
                        // A short read has emptied the socket.
                        if n < input.len() {
                            break;
                        }
                    }
                    Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                    Err(e) => panic!("echo: {e}"),
                }
            }
        }
    }
}

/// Starts a program as hob does, without anything around it; its pid.
pub(crate) fn start(argv: &[String]) -> u32 {
    let text = |s: &String| CString::new(s.as_bytes()).unwrap();
    let null = std::fs::File::open("/dev/null").unwrap();
    let plan = spawn::Plan {
        programs: vec![text(&argv[0])],
        argv: argv.iter().map(text).collect(),
        envp: std::env::vars().map(|(k, v)| CString::new(format!("{k}={v}")).unwrap()).collect(),
        fds: vec![(null.as_raw_fd(), 0)],
        ..spawn::Plan::default()
    };
    spawn::spawn(&plan, None).unwrap().pid
}

/// Waits for the ends of all children, which would be in the way of later parts as zombies.
pub(crate) fn reap_all() {
    let table = RunTable::create().unwrap();
    let reaped = || wait::reap_any(&table, None).unwrap();
    until("the ends of children", || {
        loop {
            match reaped() {
                Reaped::None { children } => break (!children).then_some(()),
                Reaped::Daemon(_) | Reaped::Slot(_) | Reaped::Stray => {}
            }
        }
    });
}
