//! What capture costs beside `cat > file`, with big writes and with one write a line. A measurement, not a check.

// Helpers of a test fail as loudly as the test, and its figures are to be seen.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use hob::config::{Level, ServiceSpec};
use hob::daemon::capture::desk::Words;
use hob::daemon::capture::{Capture, Host, Job, Turned};
use hob::daemon::source::{Source, Sources};
use hob::sys::{clock, pipe};
use mio::{Events, Interest, Poll, Token, Waker};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

#[derive(Default)]
struct Memory(AtomicU64, AtomicU64);

impl Words for Memory {
    fn owner(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
    fn set_owner(&self, hash: u64) {
        self.0.store(hash, Ordering::Release);
    }
    fn copied(&self) -> u64 {
        self.1.load(Ordering::Acquire)
    }
    fn set_copied(&self, mark: u64) {
        self.1.store(mark, Ordering::Release);
    }
}

/// A loop with one thread for the lane.
struct Shell {
    poll: Poll,
    sources: Sources,
    lane: mpsc::Sender<Job>,
}

impl Host for Shell {
    fn files(&mut self, job: Job) {
        self.lane.send(job).unwrap();
    }
    fn bulk(&mut self, job: Job) {
        self.lane.send(job).unwrap();
    }
    fn watch(&mut self, name: &Arc<str>, pipe: BorrowedFd<'_>) -> io::Result<Token> {
        let source = Source::Output(Arc::clone(name));
        self.sources.add(self.poll.registry(), pipe.as_raw_fd(), Interest::READABLE, source)
    }
    fn unwatch(&mut self, pipe: BorrowedFd<'_>, token: Token) {
        self.sources.remove(self.poll.registry(), pipe.as_raw_fd(), token);
    }
    fn hold(&mut self, _: &str, _: &[BorrowedFd<'_>]) -> io::Result<()> {
        Ok(())
    }
    fn release(&mut self, _: &str) {}
    fn log(&mut self, level: Level, text: String) {
        println!("{level:?}: {text}");
    }
}

/// Not a test: the process whose CPU time is measured.
#[test]
#[ignore = "the process that capture_beside_cat starts"]
fn daemon() {
    let Ok(plan) = std::env::var("HOB_TEST_COST") else { return };
    let [dir, read, write] = plan.split(' ').collect::<Vec<_>>()[..] else { panic!("plan") };
    let open = |path: &str, write: bool| -> OwnedFd {
        File::options().read(!write).write(write).custom_flags(libc::O_NONBLOCK).open(path).unwrap().into()
    };
    let poll = Poll::new().unwrap();
    let mut sources = Sources::default();
    let waker = Waker::new(poll.registry(), sources.reserve(Source::Waker).unwrap()).unwrap();
    let (lane, jobs) = mpsc::channel::<Job>();
    let (ended, results) = mpsc::channel::<Turned>();
    std::thread::spawn(move || {
        for job in jobs {
            ended.send(job()).unwrap();
            waker.wake().unwrap();
        }
    });
    let mut shell = Shell { poll, sources, lane };
    let mut capture = Capture::new(Path::new(dir).join("logs"), Arc::new(Memory::default()), None);
    let _ = capture.adopt("out/web", vec![open(read, false), open(write, true)]);
    capture.spec("web", &ServiceSpec::default(), clock::now(), &mut shell);
    capture.start(clock::now(), &mut shell).unwrap();
    let mut events = Events::with_capacity(64);
    loop {
        let wait = capture.deadline().map(|at| at.since(clock::now().mono));
        shell.poll.poll(&mut events, wait).unwrap();
        let now = clock::now();
        for event in &events {
            match shell.sources.get(event.token()).cloned() {
                Some(Source::Output(name)) => {
                    capture.readable(&name);
                    capture.pump(now, &mut shell);
                }
                _ => {
                    while let Ok(turned) = results.try_recv() {
                        capture.done(turned, now, &mut shell);
                    }
                }
            }
        }
        capture.due(now, &mut shell);
    }
}

/// CPU time of a process in seconds.
fn cost(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Writes so many bytes and waits until the pipe is empty; seconds for it.
fn feed(to: &OwnedFd, from: &OwnedFd, total: usize, piece: usize) -> f64 {
    let mut to = File::from(to.try_clone().unwrap());
    let mut block = Vec::new();
    while block.len() < piece {
        block.extend_from_slice(&[b'x'; 99]);
        block.push(b'\n');
    }
    let begin = Instant::now();
    for _ in 0..total / block.len() {
        to.write_all(&block).unwrap();
    }
    while pipe::waiting(from).unwrap() > 0 {
        pause(Duration::from_millis(1));
    }
    begin.elapsed().as_secs_f64()
}

fn measure(what: &str, mut child: Child, ends: &(OwnedFd, OwnedFd)) {
    pause(Duration::from_millis(200));
    for (how, total, piece) in [("big writes", 1_000_000_000, 65_500), ("a write a line", 200_000_000, 100)] {
        let before = cost(child.id());
        let seconds = feed(&ends.1, &ends.0, total, piece);
        let cpu = cost(child.id()) - before;
        let gb = f64::from(u32::try_from(total).unwrap()) / 1e9;
        println!("{what:10} {how:15} {:7.0} MB/s {:6.2} CPU s/GB", gb * 1000.0 / seconds, cpu / gb);
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
#[ignore = "it measures, which takes a quiet machine and half a minute, and has nothing to fail by"]
fn capture_beside_cat() {
    let dir = std::env::temp_dir().join(format!("hob-cost-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    for _ in 0..2 {
        let ends = pipe::output().unwrap();
        let cat = Command::new("cat")
            .stdin(File::open(format!("/proc/self/fd/{}", ends.0.as_raw_fd())).unwrap())
            .stdout(File::create(dir.join("cat")).unwrap())
            .spawn()
            .unwrap();
        measure("cat > file", cat, &ends);
        std::fs::remove_file(dir.join("cat")).unwrap();
        let ends = pipe::output().unwrap();
        let path = |fd: &OwnedFd| format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd());
        let hob = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "daemon", "--nocapture", "--test-threads=1"])
            .env("HOB_TEST_COST", format!("{} {} {}", dir.display(), path(&ends.0), path(&ends.1)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        measure("capture", hob, &ends);
    }
    std::fs::remove_dir_all(&dir).unwrap();
}
