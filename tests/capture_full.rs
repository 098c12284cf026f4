//! Capture on a full file system, past a file size limit, and around the loop's edges: nothing blocks the job, what is
//! dropped is counted and said.

// Helpers of a test fail as loudly as the test, and a skipped part must be seen.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use hob::base::ids::RunId;
use hob::base::time::{Mono, Now, Wall};
use hob::config::{Level, LogSpec, ServiceSpec};
use hob::core::Input;
use hob::daemon::capture::desk::Words;
use hob::daemon::capture::source::hash;
use hob::daemon::capture::{Capture, Host, Job};
use hob::sys::logfile;
use mio::Token;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

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
    fn dropped(&self, _: u64) -> u64 {
        0
    }
    fn set_dropped(&self, _: u64, _: u64) {}
}

/// Keeps what capture asks for; jobs run when the test says so.
#[derive(Default)]
struct Shell {
    jobs: VecDeque<Job>,
    held: Vec<(String, Vec<OwnedFd>)>,
    watched: usize,
    lines: Vec<(Level, String)>,
    refuse: bool,
}

impl Host for Shell {
    fn files(&mut self, job: Job) {
        self.jobs.push_back(job);
    }
    fn bulk(&mut self, job: Job) {
        self.jobs.push_back(job);
    }
    fn watch(&mut self, _: &Arc<str>, _: BorrowedFd<'_>) -> io::Result<Token> {
        self.watched += 1;
        Ok(Token(self.watched))
    }
    fn unwatch(&mut self, _: BorrowedFd<'_>, _: Token) {
        self.watched -= 1;
    }
    fn hold(&mut self, label: &str, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        if self.refuse {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.held.push((label.to_owned(), fds.iter().map(|fd| fd.try_clone_to_owned().unwrap()).collect()));
        Ok(())
    }
    fn release(&mut self, label: &str) {
        self.held.retain(|(l, _)| l != label);
    }
    fn log(&mut self, level: Level, text: String) {
        self.lines.push((level, text));
    }
}

struct Lab {
    dir: PathBuf,
    capture: Capture,
    shell: Shell,
    words: Arc<Memory>,
    clock: u64,
}

fn spec(max_size: u64, max_files: u32) -> ServiceSpec {
    let log = LogSpec { max_size, max_files, ..LogSpec::DEFAULT };
    ServiceSpec { log, ..ServiceSpec::default() }
}

impl Lab {
    fn new(dir: &Path) -> Lab {
        let words = Arc::new(Memory::default());
        let capture = Capture::new(dir.join("logs"), Arc::clone(&words) as Arc<dyn Words>, None);
        let mut lab = Lab { dir: dir.to_owned(), capture, shell: Shell::default(), words, clock: 1000 };
        lab.capture.start(lab.now(), &mut lab.shell).unwrap();
        lab
    }

    fn now(&self) -> Now {
        Now { mono: Mono(self.clock * 1_000_000), wall: Wall(i64::try_from(self.clock).unwrap()) }
    }

    fn service(&mut self, name: &str) -> File {
        let [write, _] = self.capture.ensure(&name.into(), &spec(1_000_000, 2), &mut self.shell).unwrap();
        File::from(write.try_clone().unwrap())
    }

    /// Works until nothing is to be done, with a clock that runs on its own.
    fn work(&mut self) -> Vec<Input> {
        let mut inputs = Vec::new();
        loop {
            self.clock += 5;
            self.capture.due(self.now(), &mut self.shell);
            if let Some(job) = self.shell.jobs.pop_front() {
                let turned = job();
                inputs.extend(self.capture.done(turned, self.now(), &mut self.shell).inputs);
            } else if self.capture.deadline().is_none() {
                return inputs;
            }
        }
    }

    fn readable(&mut self, name: &str) -> Vec<Input> {
        self.capture.readable(&name.into());
        self.capture.pump(self.now(), &mut self.shell);
        self.work()
    }

    fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.join(format!("logs/{name}.log"))).unwrap_or_default()
    }
}

struct Temp {
    path: PathBuf,
    mounted: bool,
}

impl Temp {
    fn new() -> Temp {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("hob-full-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Temp { path, mounted: false }
    }

    fn mount(&mut self, size: &str) -> bool {
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", size, "hob-test"]).arg(&self.path).output();
        self.mounted = done.is_ok_and(|o| o.status.success());
        self.mounted
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        if self.mounted {
            let _ = Command::new("umount").arg("-l").arg(&self.path).status();
        }
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

#[test]
fn a_full_disk_drops_output_counts_it_and_says_so() {
    let mut temp = Temp::new();
    if !temp.mount("size=256k") {
        println!("SKIPPED: a small file system cannot be mounted here");
        return;
    }
    let mut lab = Lab::new(&temp.path);
    let mut pipe = lab.service("web");
    pipe.write_all(b"first\n").unwrap();
    lab.readable("web");
    let ballast = temp.path.join("ballast");
    let mut file = File::create(&ballast).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    // The page that the log has begun takes some of it.
    let mut sent = 6;
    for _ in 0..50 {
        pipe.write_all(&b"0123456789abcde\n".repeat(1000)).unwrap();
        sent += 16_000;
        lab.readable("web");
    }
    let complaints = lab.shell.lines.iter().filter(|(_, l)| l.contains("output is dropped until")).count();
    assert_eq!(complaints, 1, "it is said once: {:?}", lab.shell.lines);
    drop(file);
    std::fs::remove_file(&ballast).unwrap();
    pipe.write_all(b"there is room again\n").unwrap();
    lab.readable("web");
    let text = lab.log("web");
    let kept = text.find("[hob: ").unwrap();
    let (dropped, after) = text.split_at(kept + 6).1.split_once(" bytes dropped]\n").unwrap();
    assert!(text.starts_with("first\n0123456789abcde\n") && after == "there is room again\n");
    let missing = sent - dropped.parse::<usize>().unwrap();
    assert!(kept == missing || kept == missing + 1, "the notice may need a line break: {kept}, {missing}");
    assert!(lab.shell.lines.iter().any(|(_, l)| l.contains("were dropped")));
    // What comes next has its own positions and is found by them.
    let share = lab.capture.share(&"web".into());
    assert_eq!(share.end(), Some(text.len() as u64));
}

#[test]
fn logs_leave_a_part_of_the_disk_free_and_go_on_by_themselves() {
    let mut temp = Temp::new();
    if !temp.mount("size=4m") {
        println!("SKIPPED: a small file system cannot be mounted here");
        return;
    }
    for stamped in [false, true] {
        let mut lab = Lab::new(&temp.path);
        let log = LogSpec { timestamps: stamped, ..LogSpec::DEFAULT };
        let spec = ServiceSpec { log, ..ServiceSpec::default() };
        let name: Arc<str> = if stamped { "lines" } else { "raw" }.into();
        let [write, _] = lab.capture.ensure(&name, &spec, &mut lab.shell).unwrap();
        let mut pipe = File::from(write.try_clone().unwrap());
        pipe.write_all(b"first\n").unwrap();
        lab.readable(&name);
        let ballast = temp.path.join("ballast");
        let mut file = File::create(&ballast).unwrap();
        while logfile_space(&file) > 100_000 {
            file.write_all(&[0; 4096]).unwrap();
        }
        lab.clock += 2000;
        for _ in 0..50 {
            pipe.write_all(&b"0123456789abcde\n".repeat(1000)).unwrap();
            lab.readable(&name);
        }
        assert!(logfile_space(&file) > 90_000, "a 32nd of the disk stays free");
        let said = lab.shell.lines.iter().filter(|(_, l)| l.contains("of the disk are free")).count();
        assert_eq!(said, 1, "{:?}", lab.shell.lines);
        drop(file);
        std::fs::remove_file(&ballast).unwrap();
        lab.clock += 2000;
        pipe.write_all(b"there is room again\n").unwrap();
        lab.readable(&name);
        let text = lab.log(&name);
        assert!(text.contains("[hob: 800000 bytes dropped]\n"), "{text}");
        assert!(text.ends_with("there is room again\n"), "{text}");
        assert_eq!(text.lines().count(), 3);
    }
}

fn logfile_space(file: &File) -> u64 {
    hob::sys::file::free_bytes(file).unwrap()
}

/// Not a test: needs a file size limit, which cannot be taken back.
#[test]
#[ignore = "a process of another test: cargo test --test capture_full a_file_size_limit_is_an_error_and_no_death"]
fn past_the_limit() {
    let Ok(dir) = std::env::var("HOB_TEST_FULL") else { return };
    logfile::block_write_signals();
    let mut lab = Lab::new(Path::new(&dir));
    let mut pipe = lab.service("web");
    for _ in 0..30 {
        pipe.write_all(&b"0123456789abcde\n".repeat(1000)).unwrap();
        lab.readable("web");
    }
    pipe.write_all(b"the end").unwrap();
    lab.capture.run_ended(RunId(1), &"web".into());
    lab.capture.pump(lab.now(), &mut lab.shell);
    assert!(matches!(lab.work()[..], [Input::Output { run: RunId(1), .. }]));
    // Files may have 100 KiB. A smaller cap lets it go on in the next one.
    lab.capture.ensure(&"web".into(), &spec(50_000, 9), &mut lab.shell).unwrap();
    lab.readable("web");
    pipe.write_all(b"\nnext\n").unwrap();
    lab.readable("web");
    let text = lab.log("web");
    let dropped = 30 * 16_000 + 7 - 102_400;
    assert!(text == format!("[hob: {dropped} bytes dropped]\n\nnext\n"), "{} bytes", text.len());
}

#[test]
fn a_file_size_limit_is_an_error_and_no_death() {
    let temp = Temp::new();
    let out = Command::new("/bin/bash")
        .args(["-c", "ulimit -f 100 && exec \"$0\" --ignored --exact past_the_limit --nocapture"])
        .arg(std::env::current_exe().unwrap())
        .env("HOB_TEST_FULL", &temp.path)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
fn a_pipe_is_made_once_held_and_goes_when_it_is_empty() {
    let temp = Temp::new();
    let mut lab = Lab::new(&temp.path);
    let name: Arc<str> = "web".into();
    lab.shell.refuse = true;
    assert!(
        lab.capture.ensure(&name, &spec(1_000_000, 2), &mut lab.shell).is_err(),
        "a start waits until the keeper holds its pipe"
    );
    assert_eq!(lab.shell.watched, 0);
    lab.shell.refuse = false;
    let mut pipe = lab.service("web");
    assert_eq!(lab.shell.watched, 1);
    lab.service("web");
    let labels: Vec<&str> = lab.shell.held.iter().map(|(l, _)| l.as_str()).collect();
    assert_eq!(labels, ["transfer", "out/web"]);
    pipe.write_all(b"last words\n").unwrap();
    lab.capture.forget(&name, lab.now(), &mut lab.shell);
    lab.work();
    assert_eq!(lab.log("web"), "last words\n");
    assert_eq!((lab.shell.watched, lab.shell.held.len()), (0, 1));
    // It comes back.
    let mut pipe = lab.service("web");
    pipe.write_all(b"again\n").unwrap();
    lab.readable("web");
    assert_eq!(lab.log("web"), "last words\nagain\n");
}

#[test]
fn a_task_without_a_word_has_no_file_and_waits_for_none() {
    let temp = Temp::new();
    let mut lab = Lab::new(&temp.path);
    let name: Arc<str> = "task/7".into();
    let file = temp.path.join("tasks/7.log");
    drop(lab.service(&name));
    lab.capture.run_started(RunId(1), &name);
    assert_eq!(lab.work().len(), 0);
    let passed = lab.capture.run_ended(RunId(1), &name);
    assert!(matches!(passed, Some(Input::Output { run: RunId(1), bytes: 0, .. })), "{passed:?}");
    assert!(lab.capture.forget(&name, lab.now(), &mut lab.shell));
    assert_eq!((lab.shell.watched, lab.shell.held.len(), file.exists()), (0, 1, false));
    // The next attempt says something, of which the selector has not told when it ends.
    let mut pipe = lab.service(&name);
    lab.capture.run_started(RunId(2), &name);
    pipe.write_all(b"a word\n").unwrap();
    assert!(lab.capture.run_ended(RunId(2), &name).is_none());
    lab.capture.pump(lab.now(), &mut lab.shell);
    assert!(matches!(lab.work()[..], [Input::Output { run: RunId(2), bytes: 7, .. }]));
    assert!(!lab.capture.forget(&name, lab.now(), &mut lab.shell));
    lab.work();
    assert_eq!(std::fs::read(&file).unwrap(), b"a word\n");
    // One that is silent counts from there.
    drop(lab.service(&name));
    lab.capture.run_started(RunId(3), &name);
    let passed = lab.capture.run_ended(RunId(3), &name);
    assert!(matches!(passed, Some(Input::Output { bytes: 0, .. })), "{passed:?}");
    // What is left of it may still speak.
    let mut pipe = lab.service(&name);
    pipe.write_all(b"late\n").unwrap();
    assert!(!lab.capture.forget(&name, lab.now(), &mut lab.shell));
    lab.work();
    assert_eq!(std::fs::read(&file).unwrap(), b"a word\nlate\n");
}

#[test]
fn the_next_daemon_takes_over_what_is_held_and_nobody_elses_bytes() {
    let temp = Temp::new();
    let mut lab = Lab::new(&temp.path);
    let mut pipes = [lab.service("a"), lab.service("b")];
    let words = Arc::clone(&lab.words);
    for owner in ["b", "gone"] {
        let transfer = &lab.shell.held[0].1[1];
        File::from(transfer.try_clone().unwrap()).write_all(b"moved\n").unwrap();
        words.set_owner(hash(owner));
        for pipe in &mut pipes {
            pipe.write_all(b"waiting\n").unwrap();
        }
        let held = std::mem::take(&mut lab.shell.held);
        lab.shell = Shell::default();
        lab.capture = Capture::new(temp.path.join("logs"), Arc::clone(&words) as Arc<dyn Words>, None);
        assert!(!lab.capture.adopt("listen/web", Vec::new()));
        for (label, fds) in held {
            assert!(lab.capture.adopt(&label, fds.iter().map(|fd| fd.try_clone().unwrap()).collect()));
            lab.shell.held.push((label, fds));
        }
        lab.capture.start(lab.now(), &mut lab.shell).unwrap();
        assert_eq!(lab.shell.watched, 2);
        lab.work();
    }
    assert_eq!(lab.log("a"), "waiting\nwaiting\n");
    assert_eq!(lab.log("b"), "moved\nwaiting\nwaiting\n");
    assert!(lab.shell.lines.iter().any(|(level, text)| *level == Level::Error && text.starts_with("6 bytes")));
}

#[test]
fn what_lies_in_the_pipes_at_the_end_is_flushed() {
    let temp = Temp::new();
    let mut lab = Lab::new(&temp.path);
    let mut pipes: Vec<File> = (0..5).map(|n| lab.service(&format!("s{n}"))).collect();
    for pipe in &mut pipes {
        pipe.write_all(&b"0123456789abcde\n".repeat(3000)).unwrap();
    }
    assert!(lab.capture.flush(Duration::from_secs(20), hob::sys::clock::now));
    for n in 0..5 {
        assert_eq!(lab.log(&format!("s{n}")).len(), 48_000);
    }
}

#[test]
fn a_chatty_service_is_looked_at_by_the_clock_and_a_quiet_one_by_its_events() {
    let temp = Temp::new();
    let mut lab = Lab::new(&temp.path);
    let mut pipe = lab.service("web");
    let name: Arc<str> = "web".into();
    let turn = |lab: &mut Lab| {
        lab.capture.readable(&name);
        lab.capture.pump(lab.now(), &mut lab.shell);
        if let Some(job) = lab.shell.jobs.pop_front() {
            let turned = job();
            lab.capture.done(turned, lab.now(), &mut lab.shell);
        }
    };
    for _ in 0..3 {
        pipe.write_all(b"line\n").unwrap();
        turn(&mut lab);
        lab.clock += 100;
        assert_eq!((lab.shell.watched, lab.capture.deadline()), (1, None));
    }
    for _ in 0..2 {
        pipe.write_all(b"line\n").unwrap();
        turn(&mut lab);
        lab.clock += 1;
    }
    assert_eq!(lab.shell.watched, 0);
    let at = lab.capture.deadline().unwrap();
    assert!(at >= lab.now().mono && at <= lab.now().mono + Duration::from_millis(8));
    lab.work();
    assert_eq!((lab.shell.watched, lab.capture.deadline()), (1, None), "with nothing new it goes back to sleep");
    assert_eq!(lab.log("web"), "line\n".repeat(5));
}
