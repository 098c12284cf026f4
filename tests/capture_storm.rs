//! A capture that is killed with SIGKILL over and over, while programs write: no line is lost, doubled or torn.

// Helpers of a test fail as loudly as the test, and its figures are to be seen.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use hob::base::ids::RunId;
use hob::base::time::Now;
use hob::config::{Level, LogSpec, ServiceSpec};
use hob::daemon::capture::desk::Words;
use hob::daemon::capture::{Capture, Host, Job};
use hob::daemon::source::{Source, Sources};
use hob::sys::{clock, pipe};
use mio::{Events, Interest, Poll, Token};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const KILLS: u32 = 150;
const SERVICES: usize = 3;
const MAX_SIZE: usize = 80_000;

/// The words of the table as a small file: what a killed process wrote to it stays.
struct FileWords(File);

impl FileWords {
    fn get(&self, at: u64) -> u64 {
        let mut bytes = [0; 8];
        self.0.read_exact_at(&mut bytes, at).map_or(0, |()| u64::from_le_bytes(bytes))
    }
}

impl Words for FileWords {
    fn owner(&self) -> u64 {
        self.get(0)
    }
    fn set_owner(&self, hash: u64) {
        self.0.write_all_at(&hash.to_le_bytes(), 0).unwrap();
    }
    fn copied(&self) -> u64 {
        self.get(8)
    }
    fn set_copied(&self, position: u64) {
        self.0.write_all_at(&position.to_le_bytes(), 8).unwrap();
    }
    fn dropped(&self, _: u64) -> u64 {
        0
    }
    fn set_dropped(&self, _: u64, _: u64) {}
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
    fn hold(&mut self, _: &str, _: &[BorrowedFd<'_>]) -> io::Result<()> {
        unreachable!("all was adopted");
    }
    fn release(&mut self, _: &str) {}
    fn log(&mut self, level: Level, text: String) {
        println!("{level:?}: {text}");
    }
}

fn name(i: usize) -> Arc<str> {
    format!("s{i}").into()
}

/// Opens an end of a pipe that the test process holds, as a daemon would get it from the keeper.
fn end(pid: &str, fd: &str, write: bool) -> OwnedFd {
    let mut o = File::options();
    o.read(!write).write(write).custom_flags(libc::O_NONBLOCK);
    o.open(format!("/proc/{pid}/fd/{fd}")).unwrap().into()
}

/// Not a test: what the storm kills. Does nothing unless the storm started it.
#[test]
#[ignore = "a process of another test: cargo test --test capture_storm capture_survives_kills"]
fn daemon() {
    let Ok(plan) = std::env::var("HOB_TEST_STORM") else { return };
    let plan: Vec<&str> = plan.split(' ').collect();
    let [dir, pid, fds @ ..] = plan.as_slice() else { panic!("plan") };
    let words = File::options().read(true).write(true).open(Path::new(dir).join("words")).unwrap();
    let mut capture = Capture::new(Path::new(dir).join("logs"), Arc::new(FileWords(words)), None);
    for (i, pair) in fds.chunks(2).enumerate() {
        let label = if i == 0 { "transfer".to_owned() } else { format!("out/{}", name(i - 1)) };
        assert!(capture.adopt(&label, vec![end(pid, pair[0], false), end(pid, pair[1], true)]));
    }
    let mut shell = Shell { poll: Poll::new().unwrap(), sources: Sources::default(), jobs: Vec::new() };
    for i in 0..SERVICES {
        let log = LogSpec { max_size: MAX_SIZE as u64, max_files: 2000, ..LogSpec::DEFAULT };
        capture.spec(&name(i), &ServiceSpec { log, ..ServiceSpec::default() }, clock::now(), &mut shell);
    }
    capture.start(clock::now(), &mut shell).unwrap();
    let mut events = Events::with_capacity(64);
    loop {
        while let Some(job) = shell.jobs.pop() {
            let turned = job();
            capture.done(turned, clock::now(), &mut shell);
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
        capture.run_started(RunId(now.mono.0), &name(0));
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

/// Writes numbered lines in writes of all sizes, until told to stop; answers how many.
fn write_lines(to: OwnedFd, seed: u64, stop: &AtomicBool, written: &AtomicU64) -> u64 {
    let mut to = File::from(to);
    let mut rng = Rng(seed);
    let mut lines = 0;
    while !stop.load(Ordering::Relaxed) {
        let mut text = String::new();
        for _ in 0..=rng.below(40) {
            let fill = if rng.below(20) == 0 { rng.below(6000) } else { rng.below(80) };
            text.push_str(&format!("{lines} {}\n", "x".repeat(usize::try_from(fill).unwrap())));
            lines += 1;
        }
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            let n = usize::try_from(1 + rng.below(9000)).unwrap().min(rest.len());
            to.write_all(&rest[..n]).unwrap();
            rest = &rest[n..];
        }
        written.store(lines, Ordering::Relaxed);
        pause(Duration::from_micros(rng.below(1500)));
    }
    lines
}

fn spawn(dir: &Path, pipes: &[(OwnedFd, OwnedFd)]) -> Child {
    let mut plan = format!("{} {}", dir.display(), std::process::id());
    for (r, w) in pipes {
        plan.push_str(&format!(" {} {}", r.as_raw_fd(), w.as_raw_fd()));
    }
    Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "daemon", "--nocapture", "--test-threads=1"])
        .env("HOB_TEST_STORM", plan)
        .stdin(Stdio::null())
        .stdout(File::options().append(true).create(true).open(dir.join("out")).unwrap())
        .stderr(File::options().append(true).create(true).open(dir.join("out")).unwrap())
        .spawn()
        .unwrap()
}

/// All files of a log, oldest first.
fn files(dir: &Path, i: usize) -> Vec<PathBuf> {
    let path = dir.join(format!("logs/{}.log", name(i)));
    let old = (1..).map(|k| PathBuf::from(format!("{}.{k}", path.display()))).take_while(|p| p.exists());
    let mut all: Vec<PathBuf> = old.collect();
    all.reverse();
    all.push(path);
    all
}

#[test]
fn capture_survives_kills() {
    let dir = std::env::temp_dir().join(format!("hob-storm-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("words"), [0; 16]).unwrap();
    let mut pipes = vec![pipe::inner(1024 * 1024).unwrap()];
    pipes.extend((0..SERVICES).map(|_| pipe::output().unwrap()));
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..SERVICES)
        .map(|i| {
            let (to, stop, written) =
                (pipes[i + 1].1.try_clone().unwrap(), Arc::clone(&stop), Arc::new(AtomicU64::new(0)));
            std::thread::spawn(move || write_lines(to, 7 + i as u64, &stop, &written))
        })
        .collect();
    let mut rng = Rng(99);
    let (mut kills, mut between, mut rotating) = (0, 0, 0);
    // A slow machine may need more kills until there is enough output.
    let until = Instant::now() + Duration::from_secs(120);
    while kills < KILLS || (0..SERVICES).any(|i| files(&dir, i).len() < 3) {
        assert!(Instant::now() < until, "all were rotated twice");
        kills += 1;
        let mut child = spawn(&dir, &pipes);
        pause(Duration::from_micros(3000 + rng.below(25_000)));
        assert!(
            child.try_wait().unwrap().is_none(),
            "it died by itself: {}",
            std::fs::read_to_string(dir.join("out")).unwrap()
        );
        child.kill().unwrap();
        child.wait().unwrap();
        between += u32::from(pipe::waiting(&pipes[0].0).unwrap() > 0);
        rotating +=
            (0..SERVICES).map(|i| u32::from(dir.join(format!("logs/{}.log.new", name(i))).exists())).sum::<u32>();
    }
    println!("{kills} kills, {between} between pipe and file, {rotating} within a rotation");
    let mut child = spawn(&dir, &pipes);
    stop.store(true, Ordering::Relaxed);
    let written: Vec<u64> = writers.into_iter().map(|w| w.join().unwrap()).collect();
    let until = Instant::now() + Duration::from_secs(30);
    while pipes.iter().any(|(r, _)| pipe::waiting(r).unwrap() > 0) {
        assert!(Instant::now() < until, "the pipes are emptied");
        pause(Duration::from_millis(5));
    }
    // What has left the pipes is in the file when the transfer pipe is empty too, which was looked at above, in order.
    while pipe::waiting(&pipes[0].0).unwrap() > 0 {
        assert!(Instant::now() < until, "the transfer pipe is emptied");
        pause(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    for (i, written) in written.iter().enumerate() {
        let files = files(&dir, i);
        let mut next = 0;
        for (n, file) in files.iter().enumerate() {
            let text = std::fs::read(file).unwrap();
            // Only the end of a line that began below the cap may be above it.
            let above = text.get(MAX_SIZE..text.len().saturating_sub(1)).unwrap_or_default();
            assert!(!above.contains(&b'\n'), "{} is over the cap", file.display());
            assert!(n + 1 == files.len() || text.ends_with(b"\n"), "{} ends within a line", file.display());
            for line in text.split_inclusive(|b| *b == b'\n') {
                let line = String::from_utf8_lossy(line);
                let number = line.split(' ').next().unwrap().parse::<u64>();
                assert_eq!(number, Ok(next), "in {}: {line:?}", file.display());
                next += 1;
            }
        }
        assert_eq!(next, *written, "all lines of {}", name(i));
        println!("{}: {next} lines in {} files", name(i), files.len());
    }
    std::fs::remove_dir_all(&dir).unwrap();
}
