//! How fast tasks are taken, run and found, beside programs that promise less: xargs, and a loop that syncs a file.

use crate::lab::{Folder, Hob, Running, Times, ask, frame, pss, row, ticks_of_all, time, until};
use crate::peers;
use serde_json::Value;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// Tasks that are run, and in how many rounds.
const TASKS: usize = 10_000;
const ROUNDS: usize = 5;
/// The lengths of queues that are compared.
const LENGTHS: [usize; 3] = [10, 1000, 100_000];
const PAUSED: &str = r#"{"groups": {"default": {"paused": true}}}"#;
const PING: &str = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;

/// A connection on which one request follows the answer to the one before it.
struct Caller {
    stream: UnixStream,
    body: Vec<u8>,
}

impl Caller {
    fn to(socket: &Path) -> Caller {
        let stream = until("a hob", || {
            ask(socket, PING)?;
            UnixStream::connect(socket).ok()
        });
        Caller { stream, body: Vec::new() }
    }

    /// How long the answer took, which stays in `body`.
    fn call(&mut self, method: &str, params: &str) -> Duration {
        let request = frame(&format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#));
        let begin = Instant::now();
        self.stream.write_all(&request).unwrap();
        let mut head = [0; 4];
        self.stream.read_exact(&mut head).unwrap();
        self.body.resize(usize::try_from(u32::from_be_bytes(head)).unwrap(), 0);
        self.stream.read_exact(&mut self.body).unwrap();
        begin.elapsed()
    }

    fn result(&self) -> Value {
        let mut answer: Value = serde_json::from_slice(&self.body).unwrap();
        assert!(answer["result"].is_object(), "{answer}");
        answer["result"].take()
    }

    /// Queues as many tasks as are missing to that number, with commands of 60 bytes that are all different.
    fn fill(&mut self, count: usize) {
        self.call("task.stats", "{}");
        let mut next = usize::try_from(self.result()["total"].as_u64().unwrap()).unwrap();
        while next < count {
            let until = count.min(next + 1000);
            self.call("task.submit", &format!("[{}]", (next..until).map(spec).collect::<Vec<_>>().join(",")));
            self.result();
            next = until;
        }
    }
}

/// A task whose command has 60 bytes.
fn spec(n: usize) -> String {
    format!(r#"{{"command":["/bin/echo","{n:0>50}"]}}"#)
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_unstable_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

fn number(n: usize) -> f64 {
    f64::from(u32::try_from(n).unwrap())
}

/// Runs /bin/true so many times, each a task that is on disk before it starts and after it has ended.
pub(crate) fn run() {
    let Some(xargs) = peers::find("xargs") else { return println!("  xargs is not installed") };
    let each = TASKS / ROUNDS;
    let dir = Folder::new();
    let list = dir.path("list");
    fs::write(
        &list,
        (0..each).fold(String::new(), |mut text, n| {
            let _ = writeln!(text, "{n}");
            text
        }),
    )
    .unwrap();
    for slots in [2, 8] {
        let hob = Hob::of(&format!(r#"{{"groups": {{"default": {{"parallel": {slots}}}}}}}"#));
        let mut caller = Caller::to(&hob.socket());
        let specs = vec![r#"{"command":["/bin/true"]}"#; each].join(",");
        let argv = [&xargs, "-a", &list, "-n1", &format!("-P{slots}"), "/bin/true"].map(str::to_owned);
        let (mut mine, mut theirs, mut cpu) = (Vec::new(), Vec::new(), [0, 0]);
        for _ in 0..ROUNDS {
            let (tree, own) = (hob.tree(), [std::process::id()]);
            let before = ticks_of_all(&tree);
            let begin = Instant::now();
            caller.call("task.submit", &format!("[{specs}]"));
            let ids = caller.result()["ids"].take();
            caller.call("task.wait", &format!(r#"{{"ids":"{}-{}"}}"#, ids[0], ids[each - 1]));
            mine.push(number(each) / begin.elapsed().as_secs_f64());
            cpu[0] += ticks_of_all(&tree) - before;
            let before = ticks_of_all(&own);
            theirs.push(number(each) / time(&argv).as_secs_f64());
            cpu[1] += ticks_of_all(&own) - before;
        }
        caller.call("task.stats", "{}");
        assert_eq!(caller.result()["succeeded"], TASKS, "all of them have run");
        let ratio = median(mine.iter().zip(&theirs).map(|(a, b)| a / b).collect());
        let [a, b] = cpu.map(|ticks| f64::from(ticks) * 10.0 / number(TASKS));
        println!(
            "  {slots} slots: {:>6.0} tasks/s, xargs -P{slots} {:>6.0}/s: {ratio:.2} x (medians); CPU for \
             one, with the program: {a:.2} ms, xargs {b:.2} ms",
            median(mine),
            median(theirs),
        );
    }
}

/// Appends a record of the length of a task's and syncs, so many times.
fn synced(file: &mut File, count: usize) -> Vec<Duration> {
    let append = |_| {
        let begin = Instant::now();
        file.write_all(&[b'x'; 250]).unwrap();
        file.sync_data().unwrap();
        begin.elapsed()
    };
    (0..count).map(append).collect()
}

/// Submissions that are on disk when they are answered.
pub(crate) fn submit() {
    const CLIENTS: usize = 32;
    const BLOCK: usize = 50;
    let hob = Hob::of(PAUSED);
    let mut callers: Vec<Caller> = (0..CLIENTS).map(|_| Caller::to(&hob.socket())).collect();
    let mut file = OpenOptions::new().create(true).append(true).open(hob.dir.0.join("floor")).unwrap();
    let (mut one, mut floor, mut gains, mut ratios) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..20 {
        let mine: Vec<Duration> = (0..BLOCK).map(|n| callers[0].call("task.submit", &spec(n))).collect();
        callers[0].result();
        let theirs = synced(&mut file, BLOCK);
        let begin = Instant::now();
        std::thread::scope(|scope| {
            for caller in &mut callers {
                scope.spawn(|| {
                    for n in 0..BLOCK {
                        caller.call("task.submit", &spec(n));
                    }
                });
            }
        });
        let all = begin.elapsed();
        let sum: Duration = mine.iter().sum();
        ratios.push(theirs.iter().sum::<Duration>().as_secs_f64() / sum.as_secs_f64());
        gains.push(number(CLIENTS) * sum.as_secs_f64() / all.as_secs_f64());
        one.extend(mine);
        floor.extend(theirs);
    }
    row("one client", &Times::of(one), &Times::of(floor.clone()));
    row("append and fdatasync", &Times::of(floor.clone()), &Times::of(floor));
    println!("  one client: {:.2} x the rate of append and fdatasync (median of blocks)", median(ratios));
    println!("  {CLIENTS} clients: {:.1} x the rate of one (median)", median(gains));
    let specs = format!("[{}]", (0..10_000).map(spec).collect::<Vec<_>>().join(","));
    let arrays = Times::of((0..5).map(|_| callers[0].call("task.submit", &specs)).collect());
    callers[0].result();
    println!("  an array of 10000: p50 {:.0} ms, min {:.0} ms", arrays.p50() * 1e3, arrays.min() * 1e3);
}

/// What a long queue costs: submissions, lists, memory, and the start after a crash.
pub(crate) fn queue() {
    let mut hobs: Vec<Hob> = LENGTHS.iter().map(|_| Hob::of(PAUSED)).collect();
    let mut callers: Vec<Caller> = hobs.iter().map(|hob| Caller::to(&hob.socket())).collect();
    for (caller, length) in callers.iter_mut().zip(LENGTHS) {
        caller.fill(length);
    }
    for (hob, length) in hobs.iter().zip(LENGTHS) {
        println!("  {length:>6} queued: {:>6} KiB (PSS) of keeper and daemon", pss(&hob.tree()));
    }
    let questions = [
        ("submit", "task.submit", spec(0)),
        ("list a page", "task.list", r#"{"limit":50}"#.to_owned()),
        ("list one state", "task.list", r#"{"limit":50,"state":"failed"}"#.to_owned()),
        ("stats", "task.stats", "{}".to_owned()),
        ("list groups", "group.list", "{}".to_owned()),
    ];
    for (name, method, params) in &questions {
        let mut times = [const { Vec::new() }; LENGTHS.len()];
        for _ in 0..200 {
            for (caller, times) in callers.iter_mut().zip(&mut times) {
                times.push(caller.call(method, params));
                if *method == "task.submit" {
                    // The queues keep their lengths.
                    let id = caller.result()["id"].take();
                    caller.call("task.cancel", &format!(r#"{{"ids":"{id}"}}"#));
                    caller.call("task.remove", &format!(r#"{{"ids":"{id}"}}"#));
                }
                caller.result();
            }
        }
        let times = times.map(Times::of);
        for (times_of, length) in times.iter().zip(LENGTHS) {
            row(&format!("{name}, {length} queued"), times_of, &times[0]);
        }
    }
    let mut starts = [const { Vec::new() }; LENGTHS.len()];
    for _ in 0..7 {
        for (hob, starts) in hobs.iter_mut().zip(&mut starts) {
            hob.crash();
            starts.push(answered(&hob.running, &hob.socket()));
        }
    }
    let starts = starts.map(Times::of);
    for (times, length) in starts.iter().zip(LENGTHS) {
        row(&format!("crash to answer, {length} queued"), times, &starts[0]);
    }
    let mut caller = Caller::to(&hobs[2].socket());
    caller.call("task.stats", "{}");
    assert_eq!(caller.result()["queued"], LENGTHS[2], "all of them are there");
}

/// From the start of a program to its first answer.
fn answered(running: &Running, socket: &Path) -> Duration {
    until("the first answer", || ask(socket, PING));
    running.since.elapsed()
}
