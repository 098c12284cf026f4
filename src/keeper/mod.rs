//! The keeper: parent of the daemon, holder of what must survive it. Uses `sys` and `base` alone.
//!
//! One thread, no config, bounded memory. It starts the daemon again whenever it dies, hands it the descriptors that
//! earlier daemons left here, reaps every orphan into the run table, turns signals into messages, and ends when the
//! daemon says so. It never looks into what it holds. With nothing to do it sleeps without a deadline.

mod crash;
mod end;
mod manifest;
mod means;
mod outer;
mod parent;
mod pidfile;
mod reap;
mod renew;
mod teller;
mod watch;
mod words;
mod worker;

use crate::base::control::{
    self, BYTES_MAX, FLAG_OUTER, FLAG_RELOAD, FLAG_SAFE, FLAG_TRIAL, FLAG_UPGRADE, LABELS_MAX, ToDaemon, ToKeeper,
    Verdict,
};
use crate::base::limits::FROZEN;
use crate::base::log::Level;
use crate::base::map::Map;
use crate::base::time::Mono;
use crate::sys::chan::{self, Chan};
use crate::sys::signals;
use crate::sys::spawn::SpawnError;
use crate::sys::wait;
use crate::sys::{clock, memory, spawn};
use crash::Crashes;
use means::Means;
pub use outer::Manager;
use outer::{Outer, Told};
pub use parent::Parent;
use pidfile::PidFile;
use renew::Trial;
pub use renew::{Resume, Resumed};
use std::ffi::CString;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;
pub use teller::teller;
use watch::Concern;
pub use watch::Patience;
pub use words::Line;
use words::Words;
use worker::{Blocked, Worker};

/// Exit code when the keeper could not start, or had to end by itself.
pub const EXIT_FAILED: u8 = 1;

const BACKOFF_FIRST: Duration = Duration::from_millis(10);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// A second request counts as hurry only this much later: one key press may send several signals.
const HURRY_AFTER: Duration = Duration::from_secs(1);
/// How long a shutdown takes at most until a daemon has said it.
const STOP_LIMIT: Duration = Duration::from_secs(55);
/// A stop request that no daemon has taken so long after it should have been done is carried out without one; the
/// second one is for a request in a hurry.
const STOP_UNTAKEN: Duration = Duration::from_secs(5);
const HURRY_UNTAKEN: Duration = Duration::from_secs(5);
/// A daemon that said `Done` has this long to end.
const DONE_LIMIT: Duration = Duration::from_secs(10);
/// Pause after a send that failed for lack of something.
const RETRY: Duration = Duration::from_millis(10);
/// With an end in sight, its own or that of runs, the keeper looks at the clock this often, so that little of a freeze
/// counts.
const SLICE: Duration = Duration::from_secs(1);
/// How long killed processes may take to vanish before the keeper ends without them.
const KILL_LIMIT: Duration = Duration::from_secs(5);

/// What a keeper is started with.
pub struct Options {
    /// The program of the daemon, open: it is executed from here even if the file is replaced meanwhile.
    pub program: OwnedFd,
    /// argv of the daemon, with the name first.
    pub args: Vec<CString>,
    /// Its whole environment, as `NAME=value`.
    pub env: Vec<CString>,
    /// The control socket, bound and listening.
    pub listener: OwnedFd,
    /// The lock file, locked.
    pub lock: OwnedFd,
    /// Written when the first daemon serves, removed at the end; empty: none is. One that is there is replaced.
    pub pid_file: PathBuf,
    /// Act as PID 1 of a container.
    pub init: bool,
    /// With a daemon that is not heard of; the default unless tests are in a hurry.
    #[doc(hidden)]
    pub patience: Patience,
    /// The service manager that hob runs under.
    pub manager: Manager,
    /// The program that hob is a part of, and ends with.
    pub parent: Option<Parent>,
    /// argv with which this process executes another program when it becomes that, without the last word.
    pub words: Vec<CString>,
    /// Where the keeper says what happened.
    pub on_message: Box<dyn FnMut(&Line<'_>)>,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").field("args", &self.args).field("pid_file", &self.pid_file).finish_non_exhaustive()
    }
}

/// Keeps a daemon running until it says that all is done; answers the exit code of hob. The calling process must have
/// one thread and be hob's alone, since its signals, children and limits become the keeper's.
#[must_use]
pub fn run(mut options: Options) -> u8 {
    match Means::new(options.init) {
        Ok(means) => {
            let keeper = Keeper::new(options, means);
            keeper.pid.clear();
            keeper.run()
        }
        Err(e) => {
            let text = format!("keeper: cannot start: {e}");
            Words::default().say(clock::now().wall, Level::Error, &text, &mut options.on_message);
            EXIT_FAILED
        }
    }
}

/// A wish to end that arrived as a signal. It is told to every daemon until the end.
struct Stop {
    since: Mono,
    hurry: bool,
}

struct Keeper {
    options: Options,
    means: Means,
    held: Map<String, Vec<OwnedFd>>,
    held_count: usize,
    worker: Option<Worker>,
    /// When the next daemon is started, while there is none.
    start_at: Mono,
    backoff: Duration,
    crashes: Crashes,
    /// Flags for the next daemons until one serves.
    once: u32,
    generation: u32,
    /// A program that is tried in place of the present one.
    trial: Option<Trial>,
    /// The daemon that was tried had to be killed.
    slow: bool,
    /// How the last upgrade failed, until a daemon serves that was told.
    verdict: Option<Verdict>,
    pid: PidFile,
    /// Bit n: signal n + 1 waits to be told.
    pending_signals: u64,
    stop: Option<Stop>,
    /// A daemon has begun the shutdown.
    stopping: bool,
    /// When the keeper ends by itself.
    end_by: Option<Mono>,
    /// How long a shutdown takes at most, as the daemon said.
    stop_limit: Duration,
    /// When it was last woken.
    woke: Mono,
    done: Option<u8>,
    /// When runs that were asked to end with a daemon are killed, if they still live.
    doomed: Option<Mono>,
    /// Everything has come up: what that took can be given back.
    settle: bool,
    outer: Outer,
    words: Words,
    /// Children may have ended that are not reaped.
    unreaped: bool,
}

impl Keeper {
    fn new(options: Options, means: Means) -> Keeper {
        let woke = clock::now().mono;
        Keeper {
            outer: Outer::new(options.manager.clone(), Told::default(), woke),
            pid: PidFile::new(options.pid_file.clone()),
            options,
            means,
            held: Map::new(),
            held_count: 0,
            worker: None,
            start_at: Mono(0),
            backoff: BACKOFF_FIRST,
            crashes: Crashes::default(),
            once: 0,
            generation: 0,
            trial: None,
            slow: false,
            verdict: None,
            pending_signals: 0,
            stop: None,
            stopping: false,
            end_by: None,
            stop_limit: STOP_LIMIT,
            woke,
            done: None,
            doomed: None,
            settle: false,
            words: Words::default(),
            unreaped: true,
        }
    }

    fn run(mut self) -> u8 {
        loop {
            if self.unreaped {
                self.reap();
            }
            let now = clock::now().mono;
            self.excuse(now.since(self.woke));
            self.tell_outer(now);
            if let Some(code) = self.end(now) {
                return code;
            }
            self.kill_doomed(now);
            self.start_if_due(now);
            self.write_pid(now);
            self.watch(now);
            self.end_slow_trial(now);
            self.send();
            let deadline = self.deadline(now);
            if core::mem::take(&mut self.settle) {
                memory::settle();
            }
            let ready = self.sleep(now, deadline);
            if ready.channel {
                self.receive();
            }
            if ready.signals {
                self.take_signals();
            }
            self.look_at_parent(ready.process, ready.stdin);
        }
    }

    fn start_if_due(&mut self, now: Mono) {
        if self.worker.is_some() || self.done.is_some() || now < self.start_at {
            return;
        }
        self.generation += 1;
        let trial = self.begin_trial(now);
        match self.start() {
            Ok(mut worker) => {
                worker.trial = trial;
                if !trial {
                    // One that is tried has its limit in the trial.
                    worker.watch.rise(now, self.mark());
                }
                if let Some(verdict) = self.verdict {
                    worker.tell_verdict(verdict);
                }
                self.say(Level::Info, &format!("keeper: started daemon {} with pid {}", self.generation, worker.pid()));
                self.worker = Some(worker);
            }
            Err(e) if trial => self.trial_failed(Verdict::NotExecuted(e.errno)),
            Err(e) => {
                self.say(Level::Error, &format!("keeper: {e}"));
                self.start_at = now + self.next_backoff();
            }
        }
    }

    /// What a daemon is told of how it came to be started.
    fn state_flags(&self, trial: bool) -> u32 {
        if trial {
            return FLAG_TRIAL | FLAG_UPGRADE;
        }
        let upgrade = if self.verdict.is_some() { FLAG_UPGRADE } else { 0 };
        upgrade | if self.crashes.safe() { FLAG_SAFE } else { 0 }
    }

    /// What a daemon that comes up is at: its marks in the run table, whatever they mean.
    fn mark(&self) -> u64 {
        let words = (0..).map_while(|at| self.means.table.spare(at));
        words.fold(0, |all, word| all.wrapping_mul(31).wrapping_add(word.load(Ordering::Acquire)))
    }

    /// Asks a daemon whose heartbeat is missing, and ends one that does not answer, or does not come up.
    fn watch(&mut self, now: Mono) {
        let mark = self.mark();
        let Some(worker) = &mut self.worker else { return };
        match worker.watch.due(now, mark) {
            Concern::None => {}
            Concern::Ask => worker.ask(),
            Concern::Abort => {
                // It has not been reaped, so an error means that it has ended.
                let _ = worker.signal(signals::SIGABRT);
                let what = if worker.is_up() { "answer any more" } else { "come up" };
                let text = format!("keeper: daemon {} does not {what}, aborting it", self.generation);
                self.say(Level::Error, &text);
            }
            Concern::Kill => self.kill_daemon(),
        }
    }

    fn start(&self) -> Result<Worker, SpawnError> {
        let (ours, theirs) = Chan::pair().map_err(|e| SpawnError::of(&e))?;
        let program = self.trial.as_ref().map_or(&self.options.program, |t| &t.program);
        let plan = spawn::Plan {
            program_fd: Some(program.as_raw_fd()),
            argv: self.options.args.clone(),
            envp: self.options.env.clone(),
            fds: vec![(theirs.as_raw_fd(), control::DAEMON_FD)],
            session: true,
            ..spawn::Plan::default()
        };
        let child = spawn::spawn(&plan, None)?;
        // One that can never be signalled is better not used: without a handover it ends by itself.
        let pidfd = child.pidfd.map_or_else(|| wait::pidfd_open(child.pid), Ok).map_err(|e| SpawnError::of(&e))?;
        Ok(Worker::new(child.pid, pidfd, ours, self.options.patience))
    }

    fn next_backoff(&mut self) -> Duration {
        let now = self.backoff;
        self.backoff = (now * 2).min(BACKOFF_MAX);
        now
    }

    /// Tells the daemon whatever it has not been told, until the channel takes no more.
    fn send(&mut self) {
        let Some(trial) = self.worker.as_ref().map(|w| w.trial) else { return };
        let flags = self.state_flags(trial);
        let Some(worker) = &mut self.worker else { return };
        let hello = ToDaemon::Hello {
            keeper_pid: std::process::id(),
            generation: self.generation,
            flags: self.means.flags | self.once | flags | if self.outer.listens() { FLAG_OUTER } else { 0 },
            inherited: self.means.inherited,
        };
        let o = &self.options;
        let program = self.trial.as_ref().filter(|_| trial).map_or(&o.program, |t| &t.program);
        let fds = [self.means.table.fd(), o.lock.as_fd(), o.listener.as_fd(), program.as_fd()];
        let stop = self.stop.as_ref().map(|s| s.hurry);
        worker.send(&worker::News { hello, fds, held: &self.held, stop }, &mut self.pending_signals);
    }

    fn deadline(&self, now: Mono) -> Option<Mono> {
        let start = (self.worker.is_none() && self.done.is_none()).then_some(self.start_at);
        let retry = self.worker.as_ref().filter(|w| w.blocked() == Blocked::Retry).map(|_| now + RETRY);
        // Of one that comes up little of a freeze is to count, so the clock is looked at.
        let rising = self.worker.as_ref().is_some_and(|w| w.watch.is_rising());
        let watch = self.worker.as_ref().and_then(|w| w.watch.deadline());
        let watch = watch.map(|at| if rising { at.min(now + SLICE) } else { at });
        let trial = self.trial.as_ref().filter(|_| self.worker.is_some()).map(|t| t.limit);
        let [end, doomed] = [self.end_by, self.doomed].map(|end| end.map(|at| at.min(now + SLICE)));
        let outer = self.outer.deadline(now, self.worker.is_some());
        let reap = self.unreaped.then_some(now);
        [start, retry, watch, trial, end, outer, doomed, reap, self.pid.deadline()].into_iter().flatten().min()
    }

    fn sleep(&mut self, now: Mono, deadline: Option<Mono>) -> Woken {
        let channel = self.worker.as_ref().and_then(Worker::channel).map(AsFd::as_fd);
        let write = self.worker.as_ref().is_some_and(|w| w.blocked() == Blocked::Full);
        let [process, stdin] = self.options.parent.as_ref().map(Parent::fds).unwrap_or_default();
        let fds = [(channel, write), (Some(self.means.signals.as_fd()), false), (process, false), (stdin, false)];
        // An error of poll means that the kernel lacks memory: looking again after a pause is all that can be done.
        let ready = chan::wait(fds, deadline.map(|at| at.since(now))).unwrap_or_else(|_| {
            std::thread::sleep(RETRY);
            let all = chan::Ready { readable: true, writable: true };
            [all, all, chan::Ready::default(), chan::Ready::default()]
        });
        self.woke = clock::now().mono;
        if let Some(at) = deadline {
            self.excuse(self.woke.since(at));
        }
        let [channel, signals, process, stdin] = ready.map(|r| r.readable);
        Woken { channel, signals, process, stdin }
    }

    /// Time in which this process should have run and did not: the machine was frozen, be it in its sleep or at its
    /// work. Nobody could do anything meanwhile, so it does not count.
    fn excuse(&mut self, late: Duration) {
        if late > FROZEN {
            self.end_by = self.end_by.map(|end| end + late);
            self.doomed = self.doomed.map(|at| at + late);
            if let Some(end) = self.end_by.filter(|_| self.stopping) {
                self.outer.stopping(end.since(clock::now().mono));
            }
            if let Some(worker) = &mut self.worker {
                worker.watch.thaw(clock::now().mono);
            }
            if let Some(trial) = &mut self.trial {
                trial.limit = trial.limit + late;
            }
        }
    }

    /// Takes all messages of the daemon.
    fn receive(&mut self) {
        let mut buf = [0; BYTES_MAX];
        loop {
            let Some(result) = self.worker.as_ref().and_then(Worker::channel).map(|c| c.recv(&mut buf)) else { return };
            match result {
                Ok(Some((n, fds))) => {
                    // What this keeper does not know is ignored, and its descriptors are closed.
                    if let Some(message) = buf.get(..n).and_then(ToKeeper::decode) {
                        self.heard(message, fds);
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == io::ErrorKind::InvalidData => {
                    self.say(Level::Warn, &format!("keeper: {e}"));
                }
                Ok(None) | Err(_) => {
                    let end = self.done.is_none();
                    if let Some(worker) = &mut self.worker {
                        worker.close();
                    }
                    if end {
                        // A daemon without its keeper would stop all jobs; one that dies anyway does not mind.
                        self.kill_daemon();
                    }
                }
            }
        }
    }

    fn heard(&mut self, message: ToKeeper, fds: Vec<OwnedFd>) {
        let now = clock::now().mono;
        match message {
            ToKeeper::Hold { label } => self.hold(label, fds),
            ToKeeper::Drop { label } => {
                self.held_count -= self.held.remove(&label).map_or(0, |fds| fds.len());
            }
            ToKeeper::Up => self.up(),
            ToKeeper::Ready => {
                self.outer.ready();
                self.settle = true;
            }
            ToKeeper::Beat { next_ms } => {
                let next = Duration::from_millis(next_ms);
                if let Some(worker) = &mut self.worker {
                    worker.watch.beat(now, next);
                }
                self.settle = true;
                self.outer.beat(next);
            }
            ToKeeper::Reloading => self.outer.reloading(now),
            ToKeeper::Reloaded => self.outer.reloaded(),
            ToKeeper::Status { text } => self.outer.status(text),
            ToKeeper::StopLimit { ms } => self.stop_limit = Duration::from_millis(ms),
            ToKeeper::Log { style } => self.words.set_style(style, &mut self.options.on_message),
            ToKeeper::Stopping { limit_ms } => {
                let at = now + Duration::from_millis(limit_ms);
                // A daemon that goes on with a shutdown must not put its end off, but a request without an answer has
                // one now.
                self.end_by = Some(self.end_by.filter(|_| self.stopping).map_or(at, |before| before.min(at)));
                self.stopping = true;
                self.outer.stopping(self.end_by.map_or(Duration::ZERO, |end| end.since(now)));
            }
            ToKeeper::Done { code } => {
                self.done = Some(code);
                self.end_by = Some(now + DONE_LIMIT);
            }
            ToKeeper::Upgrade => {
                if let Some(program) = fds.into_iter().next() {
                    self.upgrade(program);
                }
            }
            ToKeeper::Again { stop } => {
                self.crashes.forget();
                self.backoff = BACKOFF_FIRST;
                if let Some(worker) = &mut self.worker {
                    worker.set_leaving();
                }
                if stop {
                    self.request_stop();
                } else {
                    self.once = FLAG_RELOAD;
                }
            }
        }
    }

    fn hold(&mut self, label: String, fds: Vec<OwnedFd>) {
        let before = self.held.get(&label).map(Vec::len);
        let count = self.held_count - before.unwrap_or(0) + fds.len();
        let max = usize::try_from(self.means.inherited.hold_max).unwrap_or(usize::MAX);
        if count > max || (before.is_none() && self.held.len() >= LABELS_MAX) {
            self.say(Level::Error, &format!("keeper: cannot hold {label}: too many descriptors"));
            return;
        }
        self.held_count = count;
        self.held.insert(label, fds);
    }

    fn up(&mut self) {
        let now = clock::now().mono;
        if let Some(worker) = &mut self.worker {
            worker.set_up(now);
        }
        self.release_words();
        self.backoff = BACKOFF_FIRST;
        self.once = 0;
        self.verdict = None;
        // A daemon that died over a reload leaves nobody waiting for the end of it.
        self.outer.reloaded();
        self.pid.want(now);
        self.write_pid(now);
        let tried = self.worker.as_mut().is_some_and(|w| core::mem::take(&mut w.trial));
        if let Some(trial) = self.trial.take_if(|_| tried) {
            self.renew(trial.program);
        }
    }

    fn write_pid(&mut self, now: Mono) {
        if let Some(report) = self.pid.work(now) {
            self.say(Level::Warn, &format!("keeper: {report}"));
        }
    }

    fn take_signals(&mut self) {
        while let Ok(Some(number)) = self.means.signals.next() {
            match number {
                signals::SIGCHLD => self.unreaped = true,
                signals::SIGTERM | signals::SIGINT => self.request_stop(),
                signals::SIGPIPE | signals::SIGTTIN | signals::SIGTTOU => {}
                other => self.pending_signals |= bit(other),
            }
        }
    }

    fn request_stop(&mut self) {
        let now = clock::now().mono;
        match &mut self.stop {
            None => {
                self.stop = Some(Stop { since: now, hurry: false });
                self.end_by.get_or_insert(now + self.stop_limit + STOP_UNTAKEN);
            }
            Some(stop) if !stop.hurry && now.since(stop.since) >= HURRY_AFTER => {
                stop.hurry = true;
                if !self.stopping {
                    self.end_by = self.end_by.map(|at| at.min(now + HURRY_UNTAKEN));
                }
            }
            Some(_) => {}
        }
    }

    /// The outer watchdog hears of a daemon that has answered, and of none other.
    fn tell_outer(&mut self, now: Mono) {
        if let Some(worker) = self.worker.as_mut().filter(|_| self.outer.asks(now)) {
            worker.ask();
        }
        if let Some(report) = self.outer.flush() {
            self.say(Level::Warn, &format!("keeper: {report}"));
        }
    }

    fn look_at_parent(&mut self, process: bool, stdin: bool) {
        let Some(how) = self.options.parent.as_ref().and_then(|p| p.ended(process, stdin)) else { return };
        self.options.parent = None;
        self.say(Level::Info, &format!("keeper: hob ends with the program that started it: {how}"));
        if self.stop.is_none() && !self.stopping {
            self.request_stop();
        }
    }

    fn say(&mut self, level: Level, text: &str) {
        self.words.say(clock::now().wall, level, text, &mut self.options.on_message);
    }

    fn release_words(&mut self) {
        self.words.release(&mut self.options.on_message);
    }
}

struct Woken {
    channel: bool,
    signals: bool,
    process: bool,
    stdin: bool,
}

/// The bit of a signal number from 1 to 64 in a word.
fn bit(number: i32) -> u64 {
    u32::try_from(number - 1).ok().and_then(|shift| 1u64.checked_shl(shift)).unwrap_or(0)
}
