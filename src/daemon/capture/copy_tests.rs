//! The copy of a log to hob's own streams, against real pipes and files.

use super::copy::{self, Copy, Told, Way, Ways};
use super::tests::{Rig, daemon};
use super::*;
use std::io::{Read, Write};
use std::sync::mpsc;

fn start_copy(rig: &Rig, ways: Ways, tell: &mpsc::Sender<Told>) -> Copy {
    let tell = tell.clone();
    let words = Arc::clone(&rig.words);
    Copy::start(Arc::clone(&rig.share), words, ways, move |told| tell.send(told).unwrap()).unwrap()
}

fn clock() -> Mono {
    crate::sys::clock::now().mono
}

fn read_all(from: &OwnedFd) -> Vec<u8> {
    let mut bytes = vec![0; pipe::waiting(from).unwrap()];
    File::from(from.try_clone().unwrap()).read_exact(&mut bytes).unwrap();
    bytes
}

#[test]
fn the_copy_passes_everything_on_and_holds_the_service_back() {
    let mut rig = Rig::new(20_000, 1);
    let (source, share, writer, desk) = daemon(&rig.ends, &rig.names, &rig.spec, &rig.words, true);
    (rig.source, rig.share, rig.writer, rig.desk) = (source, share, writer, desk);
    let (out_read, out_write) = pipe::output().unwrap();
    let (tell, told) = mpsc::channel();
    let by = pipe::inner(copy::CHUNK).unwrap();
    let start = |rig: &Rig| {
        let own = |fd: &OwnedFd| fd.try_clone().unwrap();
        let ways = Ways { out: own(&out_write), err: None, by: Some((own(&by.0), own(&by.1))) };
        start_copy(rig, ways, &tell)
    };
    let mut copy = start(&rig);
    let mut out_read = File::from(out_read);
    let mut seen: Vec<u8> = Vec::new();
    let mut written: Vec<u8> = Vec::new();
    let mut held_back = false;
    let limit = crate::sys::clock::now().mono + Duration::from_secs(30);
    for n in 0..20_000u32 {
        let line = format!("line {n}\n");
        while pipe::waiting(&rig.ends[0]).unwrap() > 40_000 {
            assert!(crate::sys::clock::now().mono < limit, "{} of {}", seen.len(), written.len());
            held_back |= rig.turn().held_back;
            let behind = (rig.share.end().unwrap() + 1).saturating_sub(rig.words.copied() & !copy::FILLING);
            assert!(behind <= 10_000, "{behind} behind");
            let mut bytes = [0; 3000];
            if let Ok(n) = out_read.read(&mut bytes) {
                seen.extend(&bytes[..n]);
            }
        }
        rig.pipe.write_all(line.as_bytes()).unwrap();
        written.extend(line.as_bytes());
    }
    assert!(held_back, "the reader was slower than the service");
    while seen.len() < written.len() {
        assert!(crate::sys::clock::now().mono < limit, "{} of {}", seen.len(), written.len());
        rig.turn();
        let mut bytes = [0; 3000];
        match out_read.read(&mut bytes) {
            Ok(n) => seen.extend(&bytes[..n]),
            Err(_) => std::thread::yield_now(),
        }
    }
    assert!(seen == written);
    let all: Vec<Told> = told.try_iter().collect();
    assert!(!all.is_empty() && all.iter().all(|t| *t == Told::CameOn), "{all:?}");
    assert!(copy.finish(Duration::from_secs(10), || crate::sys::clock::now().mono));
    // The next daemon goes on where this one was, and a reader that is gone stops nobody.
    rig.write(b"the end\n");
    let mut copy = start(&rig);
    assert!(copy.finish(Duration::from_secs(10), || crate::sys::clock::now().mono));
    let mut bytes = [0; 100];
    let n = out_read.read(&mut bytes).unwrap();
    assert_eq!(&bytes[..n], b"the end\n");
    drop(out_read);
    let mut copy = start(&rig);
    for _ in 0..100 {
        rig.pipe.write_all(&[b'x'; 999]).unwrap();
        while !rig.turn().drained {
            assert!(crate::sys::clock::now().mono < limit);
            std::thread::yield_now();
        }
    }
    assert!(copy.finish(Duration::from_secs(10), || crate::sys::clock::now().mono));
    assert_eq!(rig.words.copied(), rig.share.end().unwrap() + 1, "what nobody reads is passed over");
    let gone = told.try_iter().filter(|t| *t == Told::Gone(Way::Out)).count();
    assert_eq!(gone, 1);
}

/// A rig whose standard error has a pipe of its own; the ends of that.
fn apart() -> (Rig, OwnedFd, File) {
    let rig = Rig::new(1 << 20, 3);
    let (read, write) = pipe::output().unwrap();
    let source = Source::of_errors("web".into(), read.try_clone().unwrap());
    rig.source.order(Order::Apart(Arc::new(source)));
    rig.words.set_copied(1);
    (rig, read, File::from(write))
}

#[test]
fn each_stream_comes_out_by_itself_byte_for_byte() {
    let (mut rig, _read, mut err) = apart();
    let (mut wrote_out, mut wrote_err): (Vec<u8>, Vec<u8>) = Default::default();
    for n in 0..500u32 {
        let text = format!("{n} without an end").repeat(n as usize % 7);
        if n % 3 == 0 {
            err.write_all(text.as_bytes()).unwrap();
            wrote_err.extend(text.as_bytes());
        } else {
            rig.pipe.write_all(text.as_bytes()).unwrap();
            wrote_out.extend(text.as_bytes());
        }
        rig.drain();
    }
    let (tell, told) = mpsc::channel();
    let (out, err) = (pipe::inner(1 << 20).unwrap(), pipe::inner(1 << 20).unwrap());
    let ways = Ways { out: out.1, err: Some(err.1), by: Some(pipe::inner(copy::CHUNK).unwrap()) };
    assert!(start_copy(&rig, ways, &tell).finish(Duration::from_secs(30), clock));
    assert!(read_all(&out.0) == wrote_out && read_all(&err.0) == wrote_err);
    assert_eq!(told.try_iter().find(|t| *t != Told::CameOn), None);
}

#[test]
fn a_daemon_killed_at_any_moment_of_the_copy_doubles_and_loses_nothing() {
    // What a killed one may leave: the word, and what lies in the pipe on the way.
    for (word, left, want) in [
        (1, "", "out1ERR2out3"),
        (1 | copy::FILLING, "", "out1ERR2out3"),
        (1 | copy::FILLING, "out1", "out1ERR2out3"),
        (5, "out1", "out1ERR2out3"),
        (5, "t1", "t1ERR2out3"),
        (5, "", "ERR2out3"),
        (5 | copy::FILLING, "ERR2", "ERR2out3"),
        (9, "R2", "R2out3"),
        (9 | copy::FILLING, "out", "out3"),
        (13, "", ""),
    ] {
        let (mut rig, read, mut err) = apart();
        rig.write(b"out1");
        err.write_all(b"ERR2").unwrap();
        rig.drain();
        rig.write(b"out3");
        drop((read, err));
        rig.words.set_copied(word);
        let (tell, _told) = mpsc::channel();
        let (out, err, by) =
            (pipe::inner(65536).unwrap(), pipe::inner(65536).unwrap(), pipe::inner(copy::CHUNK).unwrap());
        File::from(by.1.try_clone().unwrap()).write_all(left.as_bytes()).unwrap();
        let ways = Ways { out: out.1, err: Some(err.1), by: Some(by) };
        assert!(start_copy(&rig, ways, &tell).finish(Duration::from_secs(30), clock));
        let heard = |fd| String::from_utf8(read_all(fd)).unwrap();
        let lower: String = want.chars().filter(|c| !"ER2".contains(*c)).collect();
        let upper: String = want.chars().filter(|c| "ER2".contains(*c)).collect();
        assert_eq!((heard(&out.0), heard(&err.0)), (lower, upper), "{word:x} {left}");
    }
}

#[test]
fn a_log_that_cannot_be_read_now_is_read_later() {
    let mut rig = Rig::new(1 << 20, 3);
    rig.words.set_copied(1);
    rig.write(b"one\n");
    let (log, aside) = (rig.names.log(0), rig.dir.path("aside"));
    std::fs::rename(&log, &aside).unwrap();
    std::fs::create_dir(&log).unwrap();
    let (tell, told) = mpsc::channel();
    let (read, write) = pipe::inner(65536).unwrap();
    let ways = Ways { out: write, err: None, by: None };
    let mut copy = start_copy(&rig, ways, &tell);
    let said = told.recv_timeout(Duration::from_secs(30)).unwrap();
    assert!(matches!(&said, Told::Trouble(text) if text.contains("cannot be read back now")), "{said:?}");
    std::fs::remove_dir(&log).unwrap();
    std::fs::rename(&aside, &log).unwrap();
    assert!(copy.finish(Duration::from_secs(30), clock));
    assert_eq!(read_all(&read), b"one\n");
    assert_eq!(told.try_iter().next(), None, "it is told once");
}

/// A writer that is copied, over a rig as `apart` makes it.
fn copied() -> (Rig, OwnedFd, File) {
    let (mut rig, read, err) = apart();
    rig.words.set_copied(0);
    let (source, share, writer, desk) = daemon(&rig.ends, &rig.names, &rig.spec, &rig.words, true);
    (rig.source, rig.share, rig.writer, rig.desk) = (source, share, writer, desk);
    rig.source.order(Order::Apart(Arc::new(Source::of_errors("web".into(), read.try_clone().unwrap()))));
    (rig, read, err)
}

fn heard(out: &OwnedFd) -> String {
    String::from_utf8(read_all(out)).unwrap()
}

#[test]
fn what_the_file_cannot_take_comes_out_all_the_same() {
    let (mut rig, _read, mut err) = copied();
    let (tell, told) = mpsc::channel();
    let (out, errors) = (pipe::inner(1 << 20).unwrap(), pipe::inner(1 << 20).unwrap());
    let ways = Ways { out: out.1, err: Some(errors.1), by: Some(pipe::inner(copy::CHUNK).unwrap()) };
    std::fs::create_dir_all(rig.names.log(0)).unwrap();
    rig.write(b"one\n");
    err.write_all(b"bad\n").unwrap();
    rig.drain();
    let mut copy = start_copy(&rig, ways, &tell);
    let limit = clock() + Duration::from_secs(30);
    while pipe::waiting(&out.0).unwrap() + pipe::waiting(&errors.0).unwrap() < 8 {
        assert!(clock() < limit, "the file has never been open, and what was written comes out");
        std::thread::yield_now();
    }
    rig.write(b"two without an end");
    std::fs::remove_dir(rig.names.log(0)).unwrap();
    rig.clock += 1000;
    rig.write(b", three\n");
    err.write_all(b"worse\n").unwrap();
    rig.drain();
    while rig.words.copied() & !copy::FILLING != rig.share.end().unwrap() + 1 {
        assert!(clock() < limit, "what is in the file comes out");
        std::thread::yield_now();
    }
    // It goes away again, and comes back.
    rig.writer.restore();
    let (log, aside) = (rig.names.log(0), rig.dir.path("aside"));
    std::fs::rename(&log, &aside).unwrap();
    std::fs::create_dir(&log).unwrap();
    rig.write(b"four\n");
    err.write_all(b"worst\n").unwrap();
    rig.drain();
    std::fs::remove_dir(&log).unwrap();
    std::fs::rename(&aside, &log).unwrap();
    rig.clock += 1000;
    rig.write(b"five\n");
    assert!(copy.finish(Duration::from_secs(30), clock));
    assert_eq!(heard(&out.0), "one\ntwo without an end, three\nfour\nfive\n");
    assert_eq!(heard(&errors.0), "bad\nworse\nworst\n");
    assert_eq!(told.try_iter().find(|t| *t != Told::CameOn), None);
    let kept = std::fs::read_to_string(&log).unwrap();
    assert_eq!(kept, "[hob: 26 bytes dropped]\n, three\nworse\n[hob: 11 bytes dropped]\nfive\n");
    assert_eq!((rig.words.copied(), rig.share.beside()), (rig.share.end().unwrap() + 1, 0));
}

#[test]
fn what_waits_beside_the_file_is_bounded_whatever_the_reader_does() {
    let (mut rig, _read, mut err) = copied();
    let (tell, told) = mpsc::channel();
    std::fs::create_dir_all(rig.names.log(0)).unwrap();
    let (read, write) = pipe::output().unwrap();
    let mut copy = start_copy(&rig, Ways { out: write, err: None, by: None }, &tell);
    let reach = 1 << 19;
    let (mut most, mut held_back, mut wrote) = (0, false, Vec::new());
    for n in 0..200_000u32 {
        let line = format!("{n}\n");
        let to = if n % 2 == 0 { &mut rig.pipe } else { &mut err };
        to.write_all(line.as_bytes()).unwrap();
        held_back = rig.turn().held_back;
        most = most.max(rig.share.beside());
        wrote.push(n);
        if held_back {
            break;
        }
    }
    assert!(held_back && most > reach / 2 && most <= reach + 4096, "{most}");
    let mut read = File::from(read);
    let mut seen = Vec::new();
    let limit = clock() + Duration::from_secs(60);
    let expected: usize = wrote.iter().map(|n| format!("{n}\n").len()).sum();
    while seen.len() < expected {
        assert!(clock() < limit, "{} of {expected}", seen.len());
        let mut bytes = [0; 4096];
        match read.read(&mut bytes) {
            Ok(n) => seen.extend_from_slice(&bytes[..n]),
            Err(_) => std::thread::yield_now(),
        }
        rig.turn();
    }
    assert!(copy.finish(Duration::from_secs(30), clock));
    let seen: Vec<u32> = String::from_utf8(seen).unwrap().lines().map(|l| l.parse().unwrap()).collect();
    assert!(seen == wrote, "lost, doubled or in another order");
    assert!(told.try_iter().any(|t| t == Told::CameOn));
}
