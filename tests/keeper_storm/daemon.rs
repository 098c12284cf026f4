//! A small daemon on link, table and spawn, in several moods, and the children that it starts.

use crate::lab::{MOMENT, RISE, pause, until};
use crate::storm::{CHILDREN, Fate, fate};
use hob::base::control::{FLAG_SAFE, ToDaemon, ToKeeper};
use hob::base::ids::RunId;
use hob::base::log::LogStyle;
use hob::base::map::Map;
use hob::daemon::link::{Handover, Link};
use hob::sys::chan;
use hob::sys::spawn::{self, Plan};
use hob::sys::table::{RunTable, Slot};
use hob::sys::wait::{self, Adopted, Status};
use hob::sys::{signals, spawn::own};
use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

pub(crate) fn run(dir: &str, mode: &str) -> ExitCode {
    let dir = PathBuf::from(dir);
    if mode == "late" && !dir.join("go").exists() {
        return ExitCode::from(3);
    }
    let (mut link, handover) = Link::inherit().unwrap();
    link.say(&ToKeeper::Log { style: LogStyle::DEFAULT });
    let generation = handover.generation;
    match mode {
        "storm" | "storm-by-clone" => return storm(dir, mode, link, handover),
        "mute" if generation == 1 => {
            drop(link);
            loop {
                std::thread::park();
            }
        }
        "hung" if handover.flags & FLAG_SAFE == 0 => loop {
            std::thread::park();
        },
        "slow" => {
            let begin = Instant::now();
            while begin.elapsed() < 3 * RISE {
                handover.table.spare(0).unwrap().fetch_add(1, Ordering::Release);
                pause(MOMENT / 10);
            }
            serve(&dir, mode, link, handover);
        }
        "many" => many(&dir, link, handover),
        "orphans" => {
            start(&dir, &handover, "for i in 1 2 3 4 5; do (sh -c \"echo \\$\\$ >>orphans; sleep 0.0$i\" &); done");
            serve(&dir, mode, link, handover);
        }
        "stuck" => {
            let ignore = "trap '' TERM HUP; echo $$ >>stubborn; while :; do sleep 1000; done";
            let script = format!("({ignore}) & setsid sh -c \"{ignore}\" & {ignore}");
            start(&dir, &handover, &script);
            serve(&dir, mode, link, handover);
        }
        _ => serve(&dir, mode, link, handover),
    }
    ExitCode::SUCCESS
}

/// Starts a shell script in the lab's folder as run 1.
fn start(dir: &Path, handover: &Handover, script: &str) {
    let c = |s: &str| CString::new(s).unwrap();
    let plan = Plan {
        programs: vec![c("/bin/sh")],
        argv: vec![c("sh"), c("-c"), c(script)],
        envp: environment(),
        cwd: Some(CString::new(dir.as_os_str().to_owned().into_vec()).unwrap()),
        ..Plan::default()
    };
    let slot = handover.table.take(RunId(1)).unwrap();
    spawn::spawn(&plan, Some((&handover.table, slot))).unwrap();
}

fn environment() -> Vec<CString> {
    let join = |(mut name, value): (Vec<u8>, Vec<u8>)| {
        name.push(b'=');
        name.extend(value);
        CString::new(name).unwrap()
    };
    std::env::vars_os().map(|(n, v)| join((n.into_vec(), v.into_vec()))).collect()
}

fn append(path: &Path, line: &str) {
    let mut file = fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
    file.write_all(line.as_bytes()).unwrap();
}

/// Waits for messages, writes them down and ends when asked to, as the mode says.
fn serve(dir: &Path, mode: &str, mut link: Link, handover: Handover) {
    link.say(&ToKeeper::Up);
    link.say(&ToKeeper::Ready);
    link.beat(if matches!(mode, "watched" | "asked") { MOMENT } else { Duration::ZERO });
    fs::write(dir.join(format!("serving-{}", handover.generation)), "").unwrap();
    loop {
        let limit = (mode == "watched").then_some(MOMENT / 4);
        chan::wait([(Some(link.as_fd()), link.wants_write())], limit).unwrap();
        if mode == "watched" {
            link.beat(MOMENT);
        }
        link.flush();
        while let Some(message) = link.recv() {
            append(&dir.join("messages"), &format!("{message:?}\n"));
            if message == ToDaemon::Ask {
                link.beat(MOMENT);
            }
            let ToDaemon::Stop { hurry } = message else { continue };
            if mode == "stuck" {
                let limit = fs::read_to_string(dir.join("limit")).unwrap_or_default();
                link.say(&ToKeeper::Stopping { limit_ms: limit.parse().unwrap_or(200) });
            } else if hurry || mode != "record" {
                link.say(&ToKeeper::Stopping { limit_ms: 30_000 });
                link.say(&ToKeeper::Done { code: if mode == "late" { 7 } else { 0 } });
                assert!(link.flush_within(Duration::from_secs(30)));
                return;
            }
        }
        if link.gone() {
            return;
        }
    }
}

/// 320 descriptors of 320 files under 8 labels; the next daemon compares.
fn many(dir: &Path, mut link: Link, handover: Handover) {
    let inode = |fd: OwnedFd| fs::File::from(fd).metadata().unwrap().ino();
    let name = |label: usize, i: usize| dir.join(format!("file-{label}-{i}"));
    if handover.generation == 1 {
        fs::write(dir.join("linked"), "").unwrap();
        until("the word to begin", || dir.join("go").exists());
        for label in 0..8 {
            let files: Vec<_> = (0..40).map(|i| fs::File::create(name(label, i)).unwrap()).collect();
            let fds: Vec<_> = files.iter().map(AsFd::as_fd).collect();
            while let Err(e) = link.hold(&format!("label/{label}"), &fds) {
                assert!(e.kind() == io::ErrorKind::WouldBlock, "{e}");
                std::thread::yield_now();
            }
        }
        assert_eq!(link.held().0, 320);
        let too_many = vec![handover.lock.as_fd(); 65];
        assert_eq!(link.hold("x", &too_many).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    } else {
        let labels = handover.held.len();
        let count: usize = handover.held.values().map(Vec::len).sum();
        assert_eq!(link.held().0, count);
        let same = handover.held.iter().flat_map(|(label, fds)| {
            let label: usize = label.rsplit('/').next().unwrap().parse().unwrap();
            fds.iter().enumerate().map(move |(i, fd)| (label, i, fd.try_clone().unwrap()))
        });
        let same = same
            .filter(|(label, i, fd)| inode(fd.try_clone().unwrap()) == fs::metadata(name(*label, *i)).unwrap().ino());
        let same = same.count();
        fs::write(dir.join("counted"), format!("{count} descriptors under {labels} labels, {same} as they were\n"))
            .unwrap();
        link.drop("label/3");
        assert_eq!(link.held().0, 280);
    }
    serve(dir, "serve", link, handover);
}

struct Job {
    run: u64,
    slot: Slot,
    pidfd: OwnedFd,
    own: bool,
}

struct Daemon {
    dir: PathBuf,
    link: Link,
    table: RunTable,
    jobs: Vec<Job>,
    next_run: u64,
    stopping: bool,
}

fn storm(dir: PathBuf, mode: &str, link: Link, handover: Handover) -> ExitCode {
    own::set_name(c"storm-daemon");
    signals::reset_ignored();
    if mode == "storm-by-clone" {
        spawn::force_fallback();
    }
    let generation = handover.generation;
    let mut d = Daemon { dir, link, table: handover.table, jobs: Vec::new(), next_run: 1, stopping: false };
    d.take_over();
    d.hold(generation, &handover.held);
    d.link.say(&ToKeeper::Up);
    fs::write(d.dir.join(format!("serving-{generation}")), "").unwrap();
    handover.early.into_iter().for_each(|m| d.heard(&m));
    loop {
        while !d.stopping && d.jobs.len() < CHILDREN {
            d.start();
        }
        if d.stopping && d.jobs.is_empty() {
            d.link.say(&ToKeeper::Done { code: 0 });
            assert!(d.link.flush_within(Duration::from_secs(30)));
            return ExitCode::SUCCESS;
        }
        d.turn();
        if d.link.gone() {
            d.jobs.iter().for_each(|j| drop(wait::pidfd_send_signal(j.pidfd.as_fd(), signals::SIGKILL)));
            return ExitCode::FAILURE;
        }
    }
}

impl Daemon {
    /// One line of the journal; padded so that none crosses a page, where a kill could tear it.
    fn note(&self, line: &str) {
        append(&self.dir.join("journal"), &format!("{line:<31}\n"));
    }

    /// What a daemon knows at its start: intents and ends from the journal, and the table.
    fn take_over(&mut self) {
        let journal = fs::read_to_string(self.dir.join("journal")).unwrap_or_default();
        let (mut open, mut closed) = (BTreeSet::new(), BTreeSet::new());
        for line in journal.lines() {
            let mut words = line.split_ascii_whitespace();
            let (kind, run) = (words.next().unwrap(), words.next().unwrap().parse::<u64>().unwrap());
            self.next_run = self.next_run.max(run + 1);
            if kind == "start" {
                open.insert(run);
            } else {
                open.remove(&run);
                closed.insert(run);
            }
        }
        let slots: Vec<_> = self.table.iter().collect();
        for (slot, view) in slots {
            let run = view.run.0;
            if closed.contains(&run) {
                self.table.release(slot);
                continue;
            }
            assert!(open.remove(&run), "run {run} is in the table but not in the journal");
            match wait::adopt(&self.table, slot).unwrap() {
                Adopted::Alive(pidfd) => self.jobs.push(Job { run, slot, pidfd, own: false }),
                Adopted::Ended(..) => self.close(run, slot),
                Adopted::Nothing => {
                    assert_eq!(view.pid, None, "run {run} has vanished without an end");
                    self.note(&format!("void {run}"));
                    self.table.release(slot);
                }
            }
        }
        for run in open {
            self.note(&format!("void {run}"));
        }
    }

    /// Five labels that are made once and kept, one that is replaced by each daemon, one that is new with each.
    fn hold(&mut self, generation: u32, held: &Map<String, Vec<OwnedFd>>) {
        let (reader, writer) = io::pipe().unwrap();
        let mut hold = |label: &str, both: bool| {
            let fds = [reader.as_fd(), writer.as_fd()];
            self.link.hold(label, if both { &fds } else { &fds[..1] }).unwrap();
        };
        for i in 0..5 {
            let label = format!("kept/{i}");
            if !held.contains_key(&label) {
                hold(&label, true);
            }
        }
        hold("replaced", true);
        hold(&format!("new/{generation}"), false);
        for old in held.keys().filter(|l| l.starts_with("new/")) {
            self.link.drop(old);
        }
    }

    fn start(&mut self) {
        let run = self.next_run;
        self.next_run += 1;
        self.note(&format!("start {run}"));
        let slot = self.table.take(RunId(run)).unwrap();
        let program = match fate(run) {
            Fate::NoProgram => c"/nonexistent".to_owned(),
            _ => CString::new(std::env::current_exe().unwrap().into_os_string().into_vec()).unwrap(),
        };
        let words = ["child".to_owned(), self.dir.display().to_string(), run.to_string()];
        let argv = std::iter::once(c"hob".to_owned()).chain(words.into_iter().map(|w| CString::new(w).unwrap()));
        let plan = Plan {
            programs: vec![program],
            argv: argv.collect(),
            envp: environment(),
            session: true,
            // No core files of those that abort: RLIMIT_CORE is 4 on every Linux.
            rlimits: vec![(4, 0, 0)],
            ..Plan::default()
        };
        match spawn::spawn(&plan, Some((&self.table, slot))) {
            Ok(child) => self.jobs.push(Job { run, slot, pidfd: child.pidfd.unwrap(), own: true }),
            Err(e) => {
                assert!(matches!(fate(run), Fate::NoProgram), "{e}");
                self.close(run, slot);
            }
        }
    }

    /// The end of a run, as the table has it, goes into the journal; then its slot is free.
    fn close(&self, run: u64, slot: Slot) {
        let view = self.table.slot(slot);
        assert_eq!(view.run, RunId(run));
        self.note(&match (view.exec_errno, view.ended.unwrap().0) {
            (0, Status::Code(code)) => format!("end {run} code {code}"),
            (0, Status::Signal(number)) => format!("end {run} signal {number}"),
            (errno, _) => format!("end {run} errno {errno}"),
        });
        self.table.release(slot);
    }

    fn turn(&mut self) {
        let mut fds = [(None, false); CHILDREN + 1];
        fds[CHILDREN] = (Some(self.link.as_fd()), self.link.wants_write());
        for (fd, job) in fds.iter_mut().zip(&self.jobs).filter(|(_, job)| job.own) {
            fd.0 = Some(job.pidfd.as_fd());
        }
        let ready = chan::wait(fds, None).unwrap();
        self.link.flush();
        for i in (0..self.jobs.len()).rev().filter(|i| ready[*i].readable) {
            let job = &self.jobs[i];
            if wait::reap_own(job.pidfd.as_fd(), &self.table, job.slot).unwrap().is_some() {
                let job = self.jobs.swap_remove(i);
                self.close(job.run, job.slot);
            }
        }
        while let Some(message) = self.link.recv() {
            self.heard(&message);
        }
    }

    fn heard(&mut self, message: &ToDaemon) {
        match message {
            ToDaemon::Ended { slot } => {
                let slot = Slot::from_index(*slot).unwrap();
                let adopted = self.jobs.iter().position(|j| j.slot == slot && !j.own);
                if let Some(i) = adopted.filter(|_| self.table.slot(slot).ended.is_some()) {
                    let job = self.jobs.swap_remove(i);
                    self.close(job.run, job.slot);
                }
            }
            ToDaemon::Stop { .. } => {
                self.stopping = true;
                self.link.say(&ToKeeper::Stopping { limit_ms: 30_000 });
                for job in &self.jobs {
                    let _ = wait::pidfd_send_signal(job.pidfd.as_fd(), signals::SIGKILL);
                }
            }
            other => panic!("unexpected: {other:?}"),
        }
    }
}

/// The part of a child: says that it ran, then ends as its number says.
pub(crate) fn child(args: &[&str]) -> ExitCode {
    let ["stray"] = args else {
        let [dir, run] = args else { return ExitCode::from(99) };
        let run: u64 = run.parse().unwrap();
        append(&PathBuf::from(dir).join("ran"), &format!("{:<31}\n", format!("{run} {}", std::process::id())));
        pause(Duration::from_millis(run.wrapping_mul(0x9e37_79b9) % 41));
        return match fate(run) {
            Fate::Abort => std::process::abort(),
            #[allow(clippy::zombie_processes)] // Nobody here waits for it: it becomes the keeper's.
            Fate::Stray(code) => {
                Command::new(std::env::current_exe().unwrap()).args(["child", "stray"]).spawn().unwrap();
                ExitCode::from(code)
            }
            Fate::Code(code) => ExitCode::from(code),
            Fate::NoProgram => ExitCode::from(99),
        };
    };
    pause(Duration::from_millis(20));
    ExitCode::SUCCESS
}
