//! What the fuzz targets call, driven over mutations of small corpora with fixed seeds: thousands of cases in a second
//! or two, the same ones each time. HOB_FUZZ_CASES=N asks for more of them.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Cases for each element of a corpus.
const CASES: usize = 1_000;

/// Splitmix64: any seed gives a good sequence.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(n.max(1)).unwrap_or(1)).unwrap_or(0)
    }
}

/// Bytes that mean something to one of the parsers.
const TELLING: &[&[u8]] = &[
    b"\"",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\\",
    b"\n",
    b"\r\n",
    b"//",
    b"/*",
    b"*/",
    b"0",
    b"-1",
    b"1e9",
    b"null",
    b"true",
    b"\0",
    b"\x01",
    b"\xff",
    b"\xc3\xa9",
    b"\xe2\x82",
    b"\\u0000",
    b"\\ud800",
    b" ",
    b"\t",
    b"Content-Length: ",
    b"99999999999999999999",
    b"\"0s\"",
    b"\"1h30m\"",
    b"\"10MB\"",
    b"\"id\":",
    b"\"services\"",
    b"\xef\xbb\xbf",
];

/// One to four small changes: a flipped bit, a telling piece put in or over, a part cut out, doubled or taken from
/// elsewhere.
fn mutate(data: &mut Vec<u8>, other: &[u8], rng: &mut Rng) {
    for _ in 0..=rng.below(4) {
        let at = rng.below(data.len() + 1);
        let end = (at + 1 + rng.below(12)).min(data.len());
        match rng.below(7) {
            0 if at < data.len() => data[at] ^= 1 << rng.below(8),
            1 => drop(data.splice(at..at, TELLING[rng.below(TELLING.len())].iter().copied())),
            2 if at < end => drop(data.splice(at..end, TELLING[rng.below(TELLING.len())].iter().copied())),
            3 if at < end => drop(data.drain(at..end)),
            4 if at < end => {
                let part = data[at..end].to_vec();
                for _ in 0..=rng.below(40) {
                    drop(data.splice(at..at, part.iter().copied()));
                }
            }
            5 if !other.is_empty() => {
                let from = rng.below(other.len());
                let to = (from + 1 + rng.below(60)).min(other.len());
                drop(data.splice(at..at, other[from..to].iter().copied()));
            }
            _ => data.truncate(at),
        }
    }
}

/// Calls a target for each element of a corpus and for many mutations of it. A failure names the seed and shows the
/// bytes.
fn drive(target: fn(&[u8]), corpus: &[&[u8]]) {
    drive_by(target, corpus, CASES);
}

/// The same for a target whose cases take longer.
fn drive_by(target: fn(&[u8]), corpus: &[&[u8]], cases: usize) {
    let cases = std::env::var("HOB_FUZZ_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(cases);
    for (i, seed) in corpus.iter().enumerate() {
        for case in 0..=cases {
            let mut data = seed.to_vec();
            if case > 0 {
                let mut rng = Rng((i as u64) << 32 | case as u64);
                let other = corpus[rng.below(corpus.len())];
                mutate(&mut data, other, &mut rng);
            }
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(&data))) {
                let text = data.escape_ascii();
                let why = panic.downcast_ref::<String>().cloned().unwrap_or_default();
                panic!("element {i}, case {case}: {why}\nb\"{text}\"");
            }
        }
    }
}

#[test]
fn config() {
    let defaults = hob::config::defaults_text();
    let active = hob::config::DEFAULT.replace("// ", "   ");
    let cyclic = r#"{"services": {
      "a": {"command": "x", "requires": ["b"]},
      "b": {"command": "x", "after": ["a", "c"]}}}"#;
    let rich = r#"{ // comment
      "daemon": {"access": [{"user": 7, "level": "read"}], "heartbeat": "0s",
        "log": {"level": "warn", "max_size": 5000}},
      "services": {"web-1": {"command": ["x", "\u00e9\ud83d\ude00\\"],
        "rlimits": {"core": {"soft": 0, "hard": "unlimited"}}, "ready": {"log": "^a+(b|c)$"}, "stop_signal": "USR1",
        "umask": "022", "wants": [{"name": "c", "condition": "started"}], "min_delay": 0, "max_delay": "1m30s",
        "window": null, "env": {"A": "b"},},
        "c": {"command": "true", /* x */ "ready": {"port": 80}, "nice": -5, "stop_signal": 34, "group": 4}}}"#;
    let jobs = r#"{"services": {"a": {"command": "x"}}, "schedule": {"jobs": [
      {"id": "n", "cron": "30 2 * * mon-fri", "tz": "UTC", "action": {"restart": ["a"]}, "missed": "all", "limit": 3},
      {"id": "e", "every": "90s", "action": {"signal": "HUP", "service": "a"}, "overlap": "queue", "jitter": "1m"},
      {"id": "o", "at": "2027-01-01T00:00:00", "action": {"method": "service.stop", "params": {"all": true}}}]}}"#;
    let several = r#"{"services": {
      "web": {"command": ["x", "%i", "%%"], "instances": 3, "ready": {"port": "80%i"}, "requires": ["db@%i"]},
      "db": {"command": "x %i", "instances": ["1", "2", "3"]}, "one": {"command": "x", "after": ["web", "db"]}}}"#;
    let broken = b"{\"services\": {'a': {command = [\"x\", yes 010 10s, \"\x01\\q\xff";
    let texts = [&defaults, &active, cyclic, rich, jobs, several].map(str::as_bytes);
    let corpus: Vec<&[u8]> = texts.into_iter().chain([&broken[..], b"{}", b"[[[[{{{{"]).collect();
    drive(hob::config::fuzz, &corpus);
}

#[test]
fn cron() {
    let corpus = [
        "*/5 0/10 1,15-20/2 jan-mar,12 mon#2,5L",
        "0 30 2 L-3,LW,15W,31 * ?",
        "59 23 29 2 7",
        "0 0 30 feb sun-tue",
        "@daily",
        "@reboot",
        "1- ,,5 22-2 * H~3 \u{e9}",
    ];
    drive(hob::config::cron::fuzz, &corpus.map(str::as_bytes));
}

#[test]
fn frames() {
    let corpus: [&[u8]; 6] = [
        b"\x00\x00\x00\x0e{\"method\":\"x\"}\x00\x00\x00\x02{}\x01\x00\x00\x06\x00\x00\x00\x07hi",
        b"Content-Length: 2\r\n\r\n{}Content-Length: 10\r\nContent-Type: x\r\n\r\n{\"id\": 12}",
        b"{\"id\":1}\n[{\"id\":2},{\"id\":3}]\n\n{\"a\":\"\\n\"}\r\n",
        b"[\n1,\n2]\n",
        b"\x00\xff\xff\xff",
        b"",
    ];
    drive(hob::protocol::frame::fuzz, &corpus);
}

#[test]
fn messages() {
    let corpus: [&[u8]; 6] = [
        b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}\x00[{\"id\":2},{\"id\":3}]\x01",
        b"{\"jsonrpc\":\"2.0\",\"method\":\"daemon.resumed\",\"params\":{\"pid\":7}}\x02\x02\x02",
        b"\x00\x00\x00\x0e\x01\xff\xfe\"\\u0000\\\"\n\r\x03",
        b"Content-Length: 2\r\n\r\n{}",
        &[b'x'; 70_000],
        b"",
    ];
    drive(hob::protocol::frame::fuzz_messages, &corpus);
}

#[test]
fn jsonrpc() {
    let corpus = [
        r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":"a\u0041","method":"service.logs","params":{"names":["a"],"lines":5}}"#,
        r#"[{"jsonrpc":"2.0","method":"a"},{"jsonrpc":"2.0","id":null,"method":"b","params":[1.5e3]},3]"#,
        r#"{"jsonrpc":"2.0","id":9007199254740993,"error":{"code":-32601,"message":"m","data":{"hint":"h"}}}"#,
        r#"{"jsonrpc":"2.0","id":0,"result":{"pong":true}}"#,
        r#"{"method":"event","params":{"seq":1},"jsonrpc":"2.0","unknown":[[[{}]]]}"#,
        "[]",
    ];
    let corpus = corpus.map(str::as_bytes);
    drive(hob::protocol::rpc::fuzz, &corpus);
}

/// Journal lines without their checksums.
const RECORDS: &[&str] = &[
    r#"{"v":1,"n":1,"k":"service/web","s":{"desired":"up"}}
{"v":1,"n":2,"k":"run/1","s":null}
"#,
    r#"{"v":1,"n":7,"k":"a","s":[1,2]}
{"v":1,"n":8,"k":"a","s":"\u00e9"}
{"v":1,"n":10,"k":"b","s":0}
"#,
    r#"{"v":2,"n":1,"k":"later","s":{},"new":true}
{"v":1,"n":2,"k":"","s":{"count":1}}
"#,
    r#"{"n":9007199254740992,"v":1,"k":"\n","s":{"a": {"b": [ ]}}}
"#,
];

/// Puts the right checksum before each line, so that mutations get as far as what is in it.
fn sealed(lines: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for line in lines.split_inclusive(|b| *b == b'\n') {
        let json = line.strip_suffix(b"\n").unwrap_or(line);
        out.extend_from_slice(format!("{:08x} ", crc32fast::hash(json)).as_bytes());
        out.extend_from_slice(line);
    }
    out
}

#[test]
fn journal() {
    let whole: Vec<Vec<u8>> = RECORDS.iter().map(|lines| sealed(lines.as_bytes())).collect();
    let mut corpus: Vec<&[u8]> = whole.iter().map(Vec::as_slice).collect();
    corpus.extend([&b""[..], b"\0\0\0\0\0\0\0\0", b"00000000 {}\n", b"no journal at all\n"]);
    drive(hob::daemon::journal::fuzz, &corpus);
    let records: Vec<&[u8]> = RECORDS.iter().map(|lines| lines.as_bytes()).collect();
    drive(|lines| hob::daemon::journal::fuzz(&sealed(lines)), &records);
}

/// The records of a frozen journal as lines of key and text, which is what a core starts with.
fn records(journal: &str) -> String {
    let one = |line: &str| {
        let (_, rest) = line.split_once("\"k\":\"")?;
        Some(format!("{} {}\n", rest.split_once('"')?.0, line.split_once("\"s\":")?.1.strip_suffix('}')?))
    };
    journal.lines().filter_map(one).collect()
}

#[test]
fn records_of_tasks_and_jobs() {
    let first = records(include_str!("compat/journal/v1-tasks/journal-1.log"));
    let second = records(include_str!("compat/journal/v1-tasks-2/journal-1.log"));
    let transient = records(include_str!("compat/journal/v1-transient/journal-1.log"));
    let job = format!("schedule/each {}", include_str!("compat/schedule/v1.json"));
    assert!(first.lines().count() > 50 && second.lines().count() == 10);
    // Few records a case, so that a change meets what it has to meet; and all of them at once.
    let lines: Vec<&str> = first.lines().collect();
    let part = |range: core::ops::Range<usize>| lines[range].join("\n") + "\n";
    let (tasks, late) = (part(0..16), part(50..64));
    let gap = format!("gap\n{late}");
    let corpus = [&tasks, &late, &gap, &second, &transient, &job, &first].map(|text| text.as_bytes());
    drive_by(hob::core::fuzz, &corpus, CASES / 10);
}

#[test]
fn the_same_seed_makes_the_same_case_and_most_cases_differ() {
    let make = |seed: u64| {
        let mut data = b"{\"services\": {}}".to_vec();
        mutate(&mut data, b"other", &mut Rng(seed));
        data
    };
    let all: std::collections::BTreeSet<Vec<u8>> = (0..1000).map(make).collect();
    assert!(all.len() > 800, "{} of 1000 differ", all.len());
    assert_eq!(make(77), make(77));
}
