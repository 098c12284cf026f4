//! A capture that processes lines and is killed with SIGKILL over and over while programs write: no line is lost,
//! doubled or torn, every one has its time stamp, what the rate limit dropped is counted to the byte, and no secret is
//! ever seen.

// Helpers of a test fail as loudly as the test, and its figures are to be seen.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use hob::base::time::{Now, Wall};
use hob::config::{Level, LogSpec, ServiceSpec, Streams};
use hob::daemon::capture::desk::Words;
use hob::daemon::capture::lines::Secrets;
use hob::daemon::capture::lines::hoard::{Hoard, Page, Safe};
use hob::daemon::capture::lines::shape::Settings;
use hob::daemon::capture::{Capture, Host, Job};
use hob::daemon::source::{Source, Sources};
use hob::sys::{clock, memfile, pipe};
use mio::{Events, Interest, Poll, Token};
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const KILLS: u32 = 300;
const MAX_SIZE: u64 = 80_000;
const SECRET: &str = "tOp-SeCrEt-0123456789";
/// Time stamps; a rate limit that drops; two streams; secrets.
const NAMES: [&str; 4] = ["stamped", "limited", "split", "masked"];

struct Memory(AtomicU64);

impl Words for Memory {
    fn owner(&self) -> u64 {
        0
    }
    fn set_owner(&self, _: u64) {}
    fn copied(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
    fn set_copied(&self, mark: u64) {
        self.0.store(mark, Ordering::Relaxed);
    }
    fn dropped(&self, _: u64) -> u64 {
        0
    }
    fn set_dropped(&self, _: u64, _: u64) {}
}

fn spec(name: &str) -> ServiceSpec {
    let log = LogSpec { max_size: MAX_SIZE, max_files: 1000, ..LogSpec::DEFAULT };
    let mut spec = ServiceSpec { log, ..ServiceSpec::default() };
    match name {
        "stamped" => spec.log.timestamps = true,
        "limited" => (spec.log.rate, spec.log.timestamps) = (Some(150_000), true),
        "split" => spec.log.streams = Streams::Split,
        _ => spec.secrets = vec!["TOKEN".into()],
    }
    spec
}

/// A loop around a capture, with its jobs run in place.
struct Shell {
    poll: Poll,
    sources: Sources,
    jobs: Vec<Job>,
}

impl Host for Shell {
    fn files(&mut self, job: Job) {
        self.jobs.push(job);
    }
    fn bulk(&mut self, job: Job) {
        self.jobs.push(job);
    }
    fn watch(&mut self, name: &Arc<str>, pipe: BorrowedFd<'_>) -> io::Result<Token> {
        let source = Source::Output(Arc::clone(name));
        self.sources.add(self.poll.registry(), pipe.as_raw_fd(), Interest::READABLE, source)
    }
    fn unwatch(&mut self, pipe: BorrowedFd<'_>, token: Token) {
        self.sources.remove(self.poll.registry(), pipe.as_raw_fd(), token);
    }
    fn hold(&mut self, label: &str, _: &[BorrowedFd<'_>]) -> io::Result<()> {
        assert_eq!(label, "transfer", "all else was adopted");
        Ok(())
    }
    fn release(&mut self, _: &str) {}
    fn log(&mut self, level: Level, text: String) {
        println!("{level:?}: {text}");
    }
}

/// Opens what the test process holds, as a daemon would get it from the keeper.
fn open(pid: &str, fd: &str, place: usize) -> OwnedFd {
    let mut o = File::options();
    o.read(place != 1).write(place != 0).custom_flags(libc::O_NONBLOCK);
    o.open(format!("/proc/{pid}/fd/{fd}")).unwrap().into()
}

/// Not a test: what the storm kills. Does nothing unless the storm started it.
#[test]
#[ignore = "a process of another test: cargo test --test capture_lines lines_survive_kills"]
fn daemon() {
    let Ok(plan) = std::env::var("HOB_TEST_LINES") else { return };
    let mut capture = None;
    for part in plan.split(';') {
        let words: Vec<&str> = part.split(' ').collect();
        let [first, pid, fds @ ..] = words.as_slice() else { panic!("plan") };
        let Some(capture) = &mut capture else {
            let logs = Path::new(first).join("logs");
            capture = Some(Capture::new(logs, Arc::new(Memory(AtomicU64::new(0))), None));
            continue;
        };
        let fds = fds.iter().enumerate().map(|(i, fd)| open(pid, fd, i % 3)).collect();
        assert!(Capture::adopt(capture, &format!("out/{first}"), fds));
    }
    let mut capture = capture.unwrap();
    let mut shell = Shell { poll: Poll::new().unwrap(), sources: Sources::default(), jobs: Vec::new() };
    if std::process::id().is_multiple_of(2) {
        NAMES.iter().for_each(|name| capture.spec(name, &spec(name), clock::now(), &mut shell));
    }
    capture.start(clock::now(), &mut shell).unwrap();
    let mut events = Events::with_capacity(64);
    // Some daemons know the config only after their first job has run.
    let mut told = std::process::id().is_multiple_of(2);
    loop {
        while let Some(job) = shell.jobs.pop() {
            let turned = job();
            capture.done(turned, clock::now(), &mut shell);
        }
        if !std::mem::replace(&mut told, true) {
            NAMES.iter().for_each(|name| capture.spec(name, &spec(name), clock::now(), &mut shell));
            continue;
        }
        let now = clock::now();
        let wait = capture.deadline().map(|at| at.since(now.mono));
        shell.poll.poll(&mut events, wait).unwrap();
        let now: Now = clock::now();
        for event in &events {
            if let Some(Source::Output(name)) = shell.sources.get(event.token()).cloned() {
                capture.readable(&name);
            }
        }
        capture.due(now, &mut shell);
        capture.pump(now, &mut shell);
    }
}

/// Lets the others work: a writer between two bursts, a capture until it is killed.
fn pause(time: Duration) {
    std::thread::sleep(time);
}

struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// One line: a number, some text in which secrets may lie, a newline.
fn line(number: u64, long: bool, rng: &mut Rng) -> String {
    let fill = if long && rng.below(30) == 0 { rng.below(20_000) } else { rng.below(80) };
    let fill = "x".repeat(usize::try_from(fill).unwrap());
    let secret = if rng.below(3) == 0 { SECRET } else { "" };
    format!("{number} {fill}{secret}y\n")
}

/// Writes numbered lines in writes of all sizes, until told to stop; answers how many lines and bytes.
fn write_lines(to: OwnedFd, seed: u64, stop: &AtomicBool) -> (u64, u64) {
    let mut to = File::from(to);
    let mut rng = Rng(seed);
    let (mut lines, mut bytes) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        let mut text = String::new();
        for _ in 0..=rng.below(40) {
            text.push_str(&line(lines, [1, 4].contains(&seed), &mut rng));
            lines += 1;
        }
        bytes += text.len() as u64;
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            let n = usize::try_from(1 + rng.below(9000)).unwrap().min(rest.len());
            to.write_all(&rest[..n]).unwrap();
            rest = &rest[n..];
        }
        pause(Duration::from_micros(rng.below(1500)));
    }
    (lines, bytes)
}

struct Service {
    name: &'static str,
    fds: Vec<OwnedFd>,
}

fn service(name: &'static str) -> Service {
    let mut fds = Vec::new();
    for _ in 0..if name == "split" { 2 } else { 1 } {
        let (read, write) = pipe::output().unwrap();
        fds.extend([read, write, memfile::create().unwrap().into()]);
    }
    let (log, hoard) = (spec(name).log, Hoard::new(fds[2].try_clone().unwrap()).unwrap());
    let settings = Settings { timestamps: log.timestamps, rate: log.rate };
    hoard.set_page(&Page { settings, fresh: true, ..Page::default() }).unwrap();
    let safe = Safe::new(File::from(fds[2].try_clone().unwrap()));
    let environment = [CString::new(format!("TOKEN={SECRET}")).unwrap()];
    Secrets::new(safe).learn(&spec(name).secrets, &environment).unwrap();
    Service { name, fds }
}

fn spawn(dir: &Path, services: &[Service]) -> Child {
    let pid = std::process::id();
    let mut plan = format!("{} {pid}", dir.display());
    for s in services {
        plan.push_str(&format!(";{} {pid}", s.name));
        s.fds.iter().for_each(|fd| plan.push_str(&format!(" {}", fd.as_raw_fd())));
    }
    let out = || File::options().append(true).create(true).open(dir.join("out")).unwrap();
    Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "daemon", "--nocapture", "--test-threads=1"])
        .env("HOB_TEST_LINES", plan)
        .stdin(Stdio::null())
        .stdout(out())
        .stderr(out())
        .spawn()
        .unwrap()
}

/// The whole log, oldest file first.
fn text(dir: &Path, name: &str) -> String {
    let path = dir.join(format!("logs/{name}.log"));
    let old = (1..).map(|k| PathBuf::from(format!("{}.{k}", path.display()))).take_while(|p| p.exists());
    let mut all: Vec<PathBuf> = old.collect();
    all.reverse();
    all.push(path);
    for file in &all[..all.len() - 1] {
        let end = std::fs::read(file).unwrap();
        assert!(end.ends_with(b"\n"), "{} is cut at a line", file.display());
    }
    all.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect()
}

/// Checks that lines are whole and that their numbers are those of so many writers, each from 0 on, with no line
/// missing unless some were `dropped` on purpose.
fn check<'a>(name: &str, lines: impl Iterator<Item = &'a str>, written: &[u64], dropped: bool) {
    let mut next = vec![0; written.len()];
    let hidden = if name == "masked" { "***" } else { SECRET };
    for text in lines {
        let (number, rest) = text.split_once(' ').unwrap_or_else(|| panic!("{name}: a torn line {text:.80?}"));
        let number: u64 = number.parse().unwrap_or_else(|_| panic!("{name}: a torn line {text:.80?}"));
        let rest = rest.strip_suffix('y').unwrap_or_else(|| panic!("{name}: a torn line {text:.80?}"));
        assert!(["", hidden].contains(&rest.trim_start_matches('x')), "{name}: {text:.80?}");
        let place = next.iter_mut().find(|n| if dropped { **n <= number } else { **n == number });
        *place.unwrap_or_else(|| panic!("{name}: {text:.80?} is lost, doubled or out of order")) = number + 1;
    }
    next.sort_unstable();
    let mut written = written.to_vec();
    written.sort_unstable();
    assert!(dropped || next == written, "{name}: {next:?} of {written:?} lines");
}

#[test]
fn lines_survive_kills() {
    let dir = std::env::temp_dir().join(format!("hob-lines-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let services: Vec<Service> = NAMES.map(service).into();
    let stop = Arc::new(AtomicBool::new(false));
    let begin = |to: &OwnedFd, seed: u64| {
        let (to, stop) = (to.try_clone().unwrap(), Arc::clone(&stop));
        std::thread::spawn(move || write_lines(to, seed, &stop))
    };
    let mut writers: Vec<_> = services.iter().zip(1..).map(|(s, seed)| begin(&s.fds[1], seed)).collect();
    writers.push(begin(&services[2].fds[4], 9));
    let mut rng = Rng(99);
    let (mut kills, mut within) = (0, 0);
    let rotated = |name: &&str| dir.join(format!("logs/{name}.log.2")).exists();
    // A slow machine may need more kills until there is enough output, and one hits the moment they are for.
    let until = Instant::now() + Duration::from_secs(120);
    while kills < KILLS || within == 0 || !NAMES.iter().all(rotated) {
        assert!(Instant::now() < until, "{within} kills within a batch; all were rotated twice");
        kills += 1;
        let mut child = spawn(&dir, &services);
        pause(Duration::from_micros(3000 + rng.below(25_000)));
        let out = || std::fs::read_to_string(dir.join("out")).unwrap();
        assert!(child.try_wait().unwrap().is_none(), "it died by itself: {}", out());
        child.kill().unwrap();
        child.wait().unwrap();
        let unfinished = |s: &Service| {
            let hoard = Hoard::new(s.fds[2].try_clone().unwrap()).unwrap();
            hoard.page().is_some_and(|page| page.batch.is_some())
        };
        within += services.iter().map(|s| u32::from(unfinished(s))).sum::<u32>();
    }
    println!("{kills} kills, {within} within a batch");
    let mut child = spawn(&dir, &services);
    stop.store(true, Ordering::Relaxed);
    let written: Vec<(u64, u64)> = writers.into_iter().map(|w| w.join().unwrap()).collect();
    let until = Instant::now() + Duration::from_secs(60);
    let limited = || text(&dir, "limited");
    let dropped = |text: &str| -> u64 {
        let counts = text.lines().filter_map(|l| l.get(Wall::STAMP..)?.strip_prefix("[hob: "));
        counts.map(|l| l.split(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    };
    let kept = |text: &str| -> u64 {
        let lines = text.lines().filter(|l| !l.contains("[hob: "));
        lines.map(|l| l.len().saturating_sub(Wall::STAMP) as u64 + 1).sum()
    };
    let empty = |s: &Service| {
        let hoard = Hoard::new(s.fds[2].try_clone().unwrap()).unwrap();
        s.fds.chunks(3).all(|c| pipe::waiting(&c[0]).unwrap() == 0) && hoard.size() == 0
    };
    while !services.iter().all(empty) || dropped(&limited()) + kept(&limited()) < written[1].1 {
        assert!(Instant::now() < until, "{} and {} of {:?}", dropped(&limited()), kept(&limited()), written[1]);
        pause(Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let all = text(&dir, "stamped");
    let lines = all.lines().map(|l| {
        assert!(Wall::of_line(l.as_bytes()).is_some(), "no stamp: {l:.80?}");
        l.split_at(Wall::STAMP).1
    });
    check("stamped", lines, &[written[0].0], false);
    let all = limited();
    assert_eq!(dropped(&all) + kept(&all), written[1].1, "every byte is kept or counted");
    assert!(dropped(&all) > 0 && kept(&all) > 0);
    let lines = all.lines().map(|l| l.split_at(Wall::STAMP).1).filter(|l| !l.starts_with("[hob: "));
    check("limited", lines, &[written[1].0], true);
    let all = text(&dir, "masked");
    assert!(!all.contains(SECRET) && all.contains("***"));
    check("masked", all.lines(), &[written[3].0], false);
    let both = [written[2].0, written[4].0];
    check("split", text(&dir, "split").lines(), &both, false);
    println!("lines written: {written:?}; dropped by the limit: {}", dropped(&limited()));
    std::fs::remove_dir_all(&dir).unwrap();
}
