//! Another program: first a daemon from it, and when that serves, the keeper itself becomes it, without letting go of
//! anything.
//!
//! Whatever fails on the way, what ran before goes on: a daemon that does not come up is followed by one from the old
//! program, and a keeper that cannot execute the new one stays what it is.

use super::manifest::Manifest;
use super::outer::Outer;
use super::worker::Worker;
use super::{Keeper, Line, Means, Options, Parent, Patience};
use crate::base::control::Verdict;
use crate::base::gather::Gather as _;
use crate::base::log::Level;
use crate::base::time::Mono;
use crate::sys::chan::Chan;
use crate::sys::signals::{self, Signals};
use crate::sys::spawn::own;
use crate::sys::table::{RunTable, Slot};
use crate::sys::wait::{self, Status};
use crate::sys::{clock, memory};
use std::ffi::{CString, OsString};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

/// How long the daemon before may take to end once it has said that it does, and the new one to serve.
const LEAVE_LIMIT: Duration = Duration::from_secs(20);
const TRIAL_LIMIT: Duration = Duration::from_secs(60);

/// A program that is tried.
#[derive(Debug)]
pub(super) struct Trial {
    pub(super) program: OwnedFd,
    /// When the daemon at hand has had its time.
    pub(super) limit: Mono,
}

impl Keeper {
    /// The daemon at hand ends for one from this program.
    pub(super) fn upgrade(&mut self, program: OwnedFd) {
        let Some(worker) = &mut self.worker else { return };
        worker.set_leaving();
        self.trial = Some(Trial { program, limit: clock::now().mono + LEAVE_LIMIT });
    }

    /// A daemon that has used up its time in an upgrade.
    pub(super) fn end_slow_trial(&mut self, now: Mono) {
        if self.worker.is_none() || self.trial.as_ref().is_none_or(|t| now < t.limit) {
            return;
        }
        if let Some(trial) = &mut self.trial {
            // Killed only once; its end follows.
            trial.limit = now + TRIAL_LIMIT;
        }
        self.slow = true;
        self.say(Level::Warn, "keeper: the upgrade takes too long, killing the daemon at hand");
        self.kill_daemon();
    }

    /// A daemon is about to be started: from the program that is tried, if there is one.
    pub(super) fn begin_trial(&mut self, now: Mono) -> bool {
        let Some(trial) = &mut self.trial else { return false };
        trial.limit = now + TRIAL_LIMIT;
        self.slow = false;
        true
    }

    /// The daemon from the new program could not be started, or ended before it served.
    pub(super) fn trial_failed(&mut self, verdict: Verdict) {
        let verdict = if core::mem::take(&mut self.slow) { Verdict::Slow } else { verdict };
        self.trial = None;
        self.verdict = Some(verdict);
        self.start_at = Mono(0);
        self.say(
            Level::Error,
            &format!("keeper: the upgrade has failed ({verdict}); going on with the program before"),
        );
    }

    pub(super) fn verdict_of(status: Status) -> Verdict {
        match status {
            Status::Code(code) => Verdict::Ended(code),
            Status::Signal(number) => Verdict::Killed(number),
        }
    }

    /// The daemon from the new program serves: this process becomes that program too.
    pub(super) fn renew(&mut self, program: OwnedFd) {
        self.options.program = program;
        self.crashes.forget();
        let result = self.execute();
        // Still here: the daemon goes on with the keeper that it has, or the next one does.
        let verdict = Verdict::KeeperStays(result.err().and_then(|e| e.raw_os_error()).unwrap_or(0));
        match &mut self.worker {
            Some(worker) if !worker.is_reaped() => worker.tell_verdict(verdict),
            _ => self.verdict = Some(verdict),
        }
        self.say(
            Level::Warn,
            "keeper: cannot become the new program; the daemon is renewed, the keeper goes on as it is",
        );
    }

    fn execute(&mut self) -> io::Result<()> {
        // Nothing is begun that the next program would have to know of; what comes now waits in the signals.
        let ends = self.stop.is_some() || self.stopping || self.end_by.is_some() || self.done.is_some();
        let busy = ends || self.doomed.is_some();
        let manifest = self.manifest().filter(|_| !busy).ok_or(io::ErrorKind::ResourceBusy)?;
        let bytes = manifest.encode();
        let paper = memory::sealed(c"hob-keeper", &bytes)?;
        let mut argv = self.options.words.clone();
        argv.push(CString::new(format!("fd={}", paper.as_raw_fd()))?);
        let mut keep = manifest.descriptors();
        keep.push(paper.as_raw_fd());
        Err(own::execute(self.options.program.as_fd(), &argv, &self.options.env, &keep))
    }

    fn manifest(&self) -> Option<Manifest> {
        // One that has died is nothing to be left: its pid leads nowhere.
        let worker = self.worker.as_ref().filter(|w| !w.is_reaped())?;
        let raw = |fd: &OwnedFd| fd.as_raw_fd();
        Some(Manifest {
            pid: std::process::id(),
            table: self.means.table.fd().as_raw_fd(),
            lock: raw(&self.options.lock),
            listener: raw(&self.options.listener),
            program: raw(&self.options.program),
            daemon: worker.pid(),
            channel: worker.channel()?.as_fd().as_raw_fd(),
            generation: self.generation,
            heartbeat_ms: u64::try_from(worker.watch.every().as_millis()).unwrap_or(0),
            pid_file: self.options.pid_file.clone(),
            pid_written: self.pid.written,
            flags: self.means.flags,
            inherited: self.means.inherited,
            manager: self.options.manager.clone(),
            told: self.outer.told,
            log: self.words.style(),
            parent: self.options.parent.as_ref().map(|p| (p.process.as_ref().map(raw), p.stdin.is_some())),
            pending_signals: self.pending_signals,
            ended: worker.ended().map(Slot::index).collect(),
            args: self.options.args.clone(),
            held: self.held.iter().map(|(label, fds)| (label.clone(), fds.iter().map(raw).collect())).gather(),
        })
    }

    /// The program that an upgrade brings was executed: everything is as the one before left it.
    fn resume(manifest: Manifest, how: Resume) -> io::Result<Keeper> {
        let take = |fd: RawFd| own::inherited(fd);
        let table = RunTable::open(take(manifest.table)?)?;
        let channel = Chan::from_fd(take(manifest.channel)?)?;
        let parent = match manifest.parent {
            Some((process, stdin)) => Some(Parent::resume(process.map(take).transpose()?, stdin)),
            None => None,
        };
        let options = Options {
            program: take(manifest.program)?,
            args: manifest.args,
            env: how.env,
            listener: take(manifest.listener)?,
            lock: take(manifest.lock)?,
            pid_file: manifest.pid_file,
            init: false,
            patience: Patience::default(),
            manager: manifest.manager,
            parent,
            words: how.words,
            on_message: how.on_message,
        };
        let signals = Signals::open()?;
        let means = Means { table, signals, inherited: manifest.inherited, flags: manifest.flags };
        let mut keeper = Keeper::new(options, means);
        keeper.outer = Outer::new(keeper.options.manager.clone(), manifest.told, keeper.woke);
        for (label, fds) in manifest.held {
            let fds = fds.into_iter().map(take).collect::<io::Result<Vec<OwnedFd>>>()?;
            keeper.held_count += fds.len();
            keeper.held.insert(label, fds);
        }
        keeper.words.set_style(manifest.log, &mut keeper.options.on_message);
        keeper.generation = manifest.generation;
        keeper.pid.written = manifest.pid_written;
        keeper.pid.want(keeper.woke);
        keeper.pending_signals = manifest.pending_signals;
        match wait::pidfd_open(manifest.daemon) {
            Ok(pidfd) => {
                let mut worker = Worker::new(manifest.daemon, pidfd, channel, Patience::default());
                worker.resume(manifest.ended);
                worker.watch.beat(clock::now().mono, Duration::from_millis(manifest.heartbeat_ms));
                worker.tell_verdict(Verdict::Renewed);
                keeper.worker = Some(worker);
            }
            Err(e) if wait::is_gone(&e) => {
                keeper.verdict = Some(Verdict::Renewed);
                keeper.end_with_daemon(keeper.woke);
                keeper.say(Level::Warn, "keeper: the daemon has ended while the keeper was renewed");
            }
            Err(e) => return Err(e),
        }
        Ok(keeper)
    }
}

/// What the program of an upgrade adds to what it was left.
pub struct Resume {
    /// Environment of daemons.
    pub env: Vec<CString>,
    /// As `Options::words`.
    pub words: Vec<CString>,
    /// As `Options::on_message`.
    pub on_message: Box<dyn FnMut(&Line<'_>)>,
}

impl fmt::Debug for Resume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resume").field("words", &self.words).finish_non_exhaustive()
    }
}

/// A keeper that has just become this program.
pub struct Resumed {
    keeper: Keeper,
}

impl fmt::Debug for Resumed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resumed").field("options", &self.keeper.options).finish_non_exhaustive()
    }
}

impl Resumed {
    /// Takes over from the descriptor that `fd=NUMBER` names. To be called once, first of all.
    ///
    /// # Errors
    /// When this process is not a keeper that was just renewed.
    pub fn new(word: &OsString, how: Resume) -> io::Result<Resumed> {
        own::inherit_nothing()?;
        own::set_name(c"hob-keeper");
        signals::reset_ignored();
        let invalid = || io::Error::new(io::ErrorKind::InvalidData, "nothing was left for a keeper");
        let number = word.to_str().and_then(|w| w.strip_prefix("fd=")?.parse().ok()).ok_or_else(invalid)?;
        let bytes = memory::content(&own::inherited(number)?)?;
        let manifest = Manifest::decode(&bytes).filter(|m| m.pid == std::process::id()).ok_or_else(invalid)?;
        Ok(Resumed { keeper: Keeper::resume(manifest, how)? })
    }

    /// The lock file, locked.
    #[must_use]
    pub fn lock(&self) -> BorrowedFd<'_> {
        self.keeper.options.lock.as_fd()
    }

    /// Goes on until hob ends; answers its exit code.
    #[must_use]
    pub fn run(self) -> u8 {
        self.keeper.run()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::control::{Inherited, OOM_UNCHANGED, ToKeeper};
    use std::fs::File;
    use std::os::fd::IntoRawFd as _;
    use std::process::{Command, Stdio};

    fn null() -> OwnedFd {
        File::open("/dev/null").unwrap().into()
    }

    const INHERITED: Inherited = Inherited { nofile: 1024, oom_score_adj: OOM_UNCHANGED, hold_max: 64 };

    fn keeper() -> Keeper {
        let options = Options {
            program: null(),
            args: Vec::new(),
            env: Vec::new(),
            listener: null(),
            lock: null(),
            pid_file: std::path::PathBuf::new(),
            init: false,
            patience: Patience::default(),
            manager: super::super::Manager::default(),
            parent: None,
            words: Vec::new(),
            on_message: Box::new(|_| {}),
        };
        let (table, signals) = (RunTable::create().unwrap(), Signals::open().unwrap());
        Keeper::new(options, Means { table, signals, inherited: INHERITED, flags: 0 })
    }

    /// A pid that belongs to nobody any more.
    fn dead() -> u32 {
        let mut child = Command::new("true").stdin(Stdio::null()).spawn().unwrap();
        child.wait().unwrap();
        child.id()
    }

    #[test]
    fn a_daemon_on_trial_that_dies_with_its_word_leaves_a_keeper_that_starts_the_next() {
        let mut keeper = keeper();
        let (ours, theirs) = Chan::pair().unwrap();
        let mut worker = Worker::new(dead(), null(), ours, Patience::default());
        worker.trial = true;
        keeper.worker = Some(worker);
        let program = null();
        let number = program.as_raw_fd();
        keeper.trial = Some(Trial { program, limit: Mono(u64::MAX) });
        theirs.send(&ToKeeper::Up.encode(), &[]).unwrap();
        drop(theirs);
        keeper.daemon_ended(Status::Signal(signals::SIGKILL));
        assert!(keeper.worker.is_none() && keeper.trial.is_none());
        assert_eq!(keeper.options.program.as_raw_fd(), number, "the program has shown that it serves");
        assert_eq!(keeper.verdict, Some(Verdict::KeeperStays(0)), "which the next daemon is told");
        let now = clock::now().mono;
        assert!(keeper.deadline(now).is_some_and(|at| at <= now), "it is started at once");
    }

    #[test]
    fn a_keeper_that_was_left_a_dead_daemon_starts_the_next() {
        let held = |fd: OwnedFd| fd.into_raw_fd();
        let before = keeper();
        let manifest = Manifest {
            pid: std::process::id(),
            table: held(before.means.table.fd().try_clone_to_owned().unwrap()),
            lock: held(null()),
            listener: held(null()),
            program: held(null()),
            daemon: dead(),
            channel: held(OwnedFd::from(Chan::pair().unwrap().0)),
            generation: 2,
            heartbeat_ms: 0,
            pid_file: std::path::PathBuf::new(),
            pid_written: false,
            flags: 0,
            inherited: INHERITED,
            manager: super::super::Manager::default(),
            told: before.outer.told,
            log: before.words.style(),
            parent: None,
            pending_signals: 0,
            ended: Vec::new(),
            args: Vec::new(),
            held: crate::base::map::Map::new(),
        };
        let how = Resume { env: Vec::new(), words: Vec::new(), on_message: Box::new(|_| {}) };
        let keeper = Keeper::resume(manifest, how).unwrap();
        assert!(keeper.worker.is_none());
        assert_eq!(keeper.verdict, Some(Verdict::Renewed));
        let now = clock::now().mono;
        assert!(keeper.deadline(now).is_some_and(|at| at <= now));
    }
}
