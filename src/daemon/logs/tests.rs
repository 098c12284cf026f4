//! Streams against a sink in memory and real files.

use super::*;
use crate::base::time::{Mono, Now, Wall};
use crate::config::LogSpec;
use crate::daemon::capture::desk::{Desk, Words};
use crate::daemon::capture::lane::Writer;
use crate::daemon::capture::rotate::Names;
use crate::daemon::capture::source::Source;
use crate::daemon::capture::testing::{Dir, Memory};
use crate::sys::pipe;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;

#[derive(Default)]
struct Client {
    jobs: VecDeque<Job>,
    replies: Vec<Result<String, RpcError>>,
    data: BTreeMap<StreamId, Vec<u8>>,
    ends: Vec<(StreamId, String)>,
    gaps: Vec<String>,
    unsent: usize,
    now: Mono,
    /// Whether the client reads at once.
    slow: bool,
    streams_max: usize,
    largest: usize,
}

impl Sink for Client {
    fn bulk(&mut self, job: Job) {
        self.jobs.push_back(job);
    }
    fn reply(&mut self, _: ReqId, result: &Result<String, RpcError>) {
        self.replies.push(result.clone());
    }
    fn stream_open(&mut self, _: ConnId, id: StreamId) -> Result<(), RpcError> {
        if self.data.len() >= self.streams_max {
            return Err(RpcError::new(Code::Busy, "too many"));
        }
        self.data.insert(id, Vec::new());
        Ok(())
    }
    fn stream_data(&mut self, _: ConnId, id: StreamId, bytes: &[u8]) {
        self.data.get_mut(&id).unwrap().extend_from_slice(bytes);
        self.largest = self.largest.max(bytes.len());
        if self.slow {
            self.unsent += bytes.len();
        }
    }
    fn stream_end(&mut self, _: ConnId, id: StreamId, reason: &str) {
        self.ends.push((id, reason.to_owned()));
    }
    fn notify(&mut self, _: ConnId, _: StreamId, method: &str, params: &str) {
        self.gaps.push(format!("{method} {params}"));
    }
    fn unsent(&self, _: ConnId) -> usize {
        self.unsent
    }
    fn now(&self) -> Mono {
        self.now
    }
}

/// A service's log with everything that writes it.
struct Log {
    _dir: Dir,
    share: Arc<Share>,
    writer: Writer,
    desk: Desk,
    pipe: File,
    wall: i64,
}

impl Log {
    fn new(max_size: u64, max_files: u32) -> Log {
        let dir = Dir::new();
        let (read, write) = pipe::output().unwrap();
        let (tr, tw) = pipe::inner(1 << 20).unwrap();
        let words: Arc<dyn Words> = Arc::new(Memory::default());
        let share = Arc::new(Share::new(Names::new(dir.path("web.log"))));
        let source = Arc::new(Source::new("web".into(), read));
        let spec = LogSpec { max_size, max_files, ..LogSpec::DEFAULT };
        let writer = Writer::new(source, Arc::clone(&share), spec, (Arc::clone(&words), false));
        Log { _dir: dir, share, writer, desk: Desk::new(tr, tw, words), pipe: File::from(write), wall: 0 }
    }

    fn write(&mut self, text: &str) {
        for part in text.as_bytes().chunks(60_000) {
            self.pipe.write_all(part).unwrap();
            self.wall += 1000;
            let now = Now { mono: Mono(0), wall: Wall(self.wall) };
            while !self.writer.turn(&mut self.desk, now).drained {}
        }
    }

    fn logs(&self) -> Vec<(Arc<str>, Arc<Share>)> {
        vec![("web".into(), Arc::clone(&self.share))]
    }
}

fn query(lines: usize, follow: bool) -> LogQuery {
    LogQuery {
        names: vec!["web".into()],
        lines,
        follow,
        from: Vec::new(),
        since: None,
        until: None,
        stream: None,
        marks: false,
    }
}

fn work(streams: &mut Streams, client: &mut Client) {
    while let Some(job) = client.jobs.pop_front() {
        let read = job();
        streams.done(read, client);
    }
}

fn client() -> Client {
    Client { streams_max: 10, ..Client::default() }
}

fn only(client: &Client) -> String {
    assert_eq!(client.data.len(), 1);
    String::from_utf8(client.data.values().next().unwrap().clone()).unwrap()
}

#[test]
fn the_last_lines_come_over_rotated_files_and_then_the_end() {
    let mut log = Log::new(100, 10);
    let lines: Vec<String> = (0..100).map(|n| format!("line {n}\n")).collect();
    log.write(&lines.concat());
    assert!(log.share.spans().unwrap().files.len() > 5);
    for n in [0, 1, 7, 50, 99, 100, 101] {
        let (mut s, mut c) = (Streams::default(), client());
        s.open(ReqId(1), ConnId(1), query(n, false), log.logs(), &mut c);
        work(&mut s, &mut c);
        assert_eq!(only(&c), lines[100 - n.min(100)..].concat(), "{n} lines");
        assert_eq!(c.ends.len(), 1);
        assert_eq!(c.ends[0].1, "eof");
        assert!(s.streams.is_empty() && s.followers.is_empty());
    }
}

#[test]
fn a_follower_gets_every_byte_over_rotations_and_resumes_by_position() {
    let mut log = Log::new(1000, 50);
    let (mut s, mut c) = (Streams::default(), client());
    s.open(ReqId(1), ConnId(1), query(50, true), log.logs(), &mut c);
    work(&mut s, &mut c);
    let reply: serde_json::Value = serde_json::from_str(c.replies[0].as_ref().unwrap()).unwrap();
    assert_eq!(reply["streams"][0]["name"], "web");
    assert_eq!(reply["streams"][0]["position"], 0, "a log that does not exist yet is empty");
    let mut all = String::new();
    for n in 0..200 {
        let text = format!("line {n} {}\n", "x".repeat(n % 90));
        log.write(&text);
        all.push_str(&text);
        s.grown("web", &mut c);
        if n % 7 == 0 {
            work(&mut s, &mut c);
        }
    }
    work(&mut s, &mut c);
    assert_eq!(only(&c), all);
    assert!(c.gaps.is_empty() && c.ends.is_empty());
    // Another connection goes on in the middle.
    let from = 5001;
    let (mut s, mut c) = (Streams::default(), client());
    let query = LogQuery { from: vec![("web".into(), from)], ..query(50, false) };
    s.open(ReqId(2), ConnId(2), query, log.logs(), &mut c);
    work(&mut s, &mut c);
    assert_eq!(only(&c).as_bytes(), &all.as_bytes()[5001..]);
}

#[test]
fn what_was_rotated_away_is_named_as_a_gap() {
    let mut log = Log::new(100, 3);
    log.write(&"0123456789abcde\n".repeat(100));
    let oldest = log.share.spans().unwrap().files.last().unwrap().base;
    let (mut s, mut c) = (Streams::default(), client());
    let query = LogQuery { from: vec![("web".into(), 160)], ..query(50, false) };
    s.open(ReqId(1), ConnId(1), query, log.logs(), &mut c);
    work(&mut s, &mut c);
    let id = c.data.keys().next().unwrap().0;
    let dropped = oldest - 160;
    assert_eq!(c.gaps, [format!(r#"stream.gap {{"dropped":{dropped},"id":{id},"position":{oldest}}}"#)]);
    assert_eq!(only(&c).len() as u64, 1600 - oldest);
}

#[test]
fn a_client_that_does_not_read_takes_bounded_memory_and_goes_on_when_it_does() {
    let mut log = Log::new(10_000_000, 3);
    log.write(&"0123456789abcde\n".repeat(200_000));
    let (mut s, mut c) = (Streams::default(), Client { slow: true, ..client() });
    s.open(ReqId(1), ConnId(1), query(1_000_000, true), log.logs(), &mut c);
    let mut turns = 0;
    loop {
        work(&mut s, &mut c);
        assert!(c.unsent <= UNSENT_LOW + CHUNK, "{}", c.unsent);
        if only(&c).len() == 3_200_000 {
            break;
        }
        s.grown("web", &mut c);
        assert!(c.jobs.is_empty(), "while it does not read, nothing is read for it");
        c.unsent = 0;
        s.drained(ConnId(1), &mut c);
        turns += 1;
        assert!(turns < 100);
    }
    assert!(c.largest <= CHUNK && turns >= 5);
}

#[test]
fn what_was_unpacked_stays_for_a_slow_client_and_goes_for_one_that_does_not_read() {
    if std::process::Command::new("gzip").arg("--version").output().is_err() {
        return eprintln!("SKIPPED: there is no gzip");
    }
    let mut log = Log::new(3_000_000, 3);
    log.write(&"0123456789abcde\n".repeat(200_000));
    let names = log.share.names();
    assert!(std::process::Command::new("gzip").arg(names.log(1)).status().unwrap().success());
    assert!(names.packed(1).exists());
    log.share.forget();
    let (mut s, mut c) = (Streams::default(), Client { slow: true, ..client() });
    s.open(ReqId(1), ConnId(1), query(1_000_000, false), log.logs(), &mut c);
    work(&mut s, &mut c);
    let first = log.share.unpacked();
    assert_eq!(first.len(), 1);
    let mut turns = 0;
    while only(&c).len() < 2_000_000 {
        // It reads a little less often than what it needs is given up.
        c.now = c.now + KEPT - Duration::from_nanos(1);
        s.due(c.now);
        c.unsent = 0;
        s.drained(ConnId(1), &mut c);
        work(&mut s, &mut c);
        turns += 1;
        assert_eq!(log.share.unpacked(), first, "turn {turns}: it is unpacked once");
    }
    assert!(turns > 2 && s.keeping.len() == 1);
    let at = s.next_deadline().unwrap();
    s.due(at);
    assert!(log.share.unpacked().is_empty() && s.next_deadline().is_none());
    // Who comes back gets the rest all the same, and keeps nothing when it goes.
    c.unsent = 0;
    s.drained(ConnId(1), &mut c);
    work(&mut s, &mut c);
    assert!(log.share.unpacked().len() == 1 && s.next_deadline().is_some());
    s.closed(ConnId(1));
    assert!(log.share.unpacked().is_empty() && s.next_deadline().is_none());
}

#[test]
fn streams_end_with_their_connection_or_on_request_and_only_by_their_owner() {
    let mut log = Log::new(1000, 3);
    log.write("a\n");
    let (mut s, mut c) = (Streams::default(), client());
    s.open(ReqId(1), ConnId(1), query(5, true), log.logs(), &mut c);
    work(&mut s, &mut c);
    let id = *c.data.keys().next().unwrap();
    s.close(ReqId(2), ConnId(2), id, &mut c);
    assert_eq!(c.replies[1].as_ref().unwrap_err().code, Code::NotFound);
    s.close(ReqId(3), ConnId(1), id, &mut c);
    assert!(c.replies[2].is_ok());
    assert_eq!(c.ends, [(id, "closed".to_owned())]);
    // A connection that goes while its streams are being opened, and while they are read.
    s.open(ReqId(4), ConnId(1), query(5, true), log.logs(), &mut c);
    s.closed(ConnId(1));
    work(&mut s, &mut c);
    assert_eq!(c.replies.len(), 3);
    s.open(ReqId(5), ConnId(1), query(5, true), log.logs(), &mut c);
    let found = c.jobs.pop_front().unwrap()();
    s.done(found, &mut c);
    s.closed(ConnId(1));
    let sent = c.data.clone();
    work(&mut s, &mut c);
    assert_eq!(c.data, sent);
    assert!(s.streams.is_empty() && s.followers.is_empty() && s.reading == 0);
}

#[test]
fn one_stream_too_many_refuses_the_request_whole() {
    let mut log = Log::new(1000, 3);
    log.write("a\n");
    let (mut s, mut c) = (Streams::default(), Client { streams_max: 1, ..Client::default() });
    let logs = [log.logs(), log.logs()].concat();
    s.open(ReqId(1), ConnId(1), query(5, true), logs, &mut c);
    work(&mut s, &mut c);
    assert_eq!(c.replies[0].as_ref().unwrap_err().code, Code::Busy);
    assert_eq!(c.ends.len(), 1);
    assert!(s.streams.is_empty() && s.followers.is_empty());
    assert_eq!(only(&c), "");
}
