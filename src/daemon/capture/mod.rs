//! Capture: the output of services goes from their pipes to their log files, and nothing is lost or doubled when the
//! daemon dies.
//!
//! Bytes never pass through the daemon's memory. They lie in a service's pipe, in the transfer pipe (both held by the
//! keeper; a word of the run table says whose they are), or in the file. The loop only learns that a pipe has
//! something; one job at a time in the lane of files moves it on (`lane`), so that neither the loop nor a job ever
//! waits for the disk. A service that writes many small pieces is looked at by the clock instead of by its events for
//! as long as it does.

pub mod copy;
pub mod desk;
pub mod file;
pub mod index;
pub mod lane;
mod pace;
mod ready;
pub mod rotate;
pub mod source;
pub mod tail;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use crate::base::ids::RunId;
use crate::base::limits::CAPTURE_TURN;
use crate::base::time::{Mono, Now};
use crate::config::spec::{Level, LogSpec};
use crate::core::Input;
use crate::sys::pipe;
use core::time::Duration;
use desk::{Desk, Words};
use lane::{Fact, Outcome, Writer};
use mio::Token;
use pace::{DELAY_MIN, PIPE};
use regex_lite::Regex;
use rotate::Names;
use source::{Order, Point, Source};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use tail::Share;

/// Services whose pipes one job looks at.
const BATCH: usize = 16;
/// Labels under which the keeper holds descriptors.
const TRANSFER: &str = "transfer";
const OUT: &str = "out/";

/// A job for the lane of files; its result goes to `Capture::done`.
pub type Job = Box<dyn FnOnce() -> Turned + Send>;

/// What capture needs of the daemon around it.
pub trait Host {
    /// Runs a job in the lane of files.
    fn files(&mut self, job: Job);
    /// Tells the loop of the pipe of this service whenever something new lies in it.
    ///
    /// # Errors
    /// What the selector answers.
    fn watch(&mut self, name: &Arc<str>, pipe: BorrowedFd<'_>) -> io::Result<Token>;
    fn unwatch(&mut self, pipe: BorrowedFd<'_>, token: Token);
    /// Lets the keeper hold descriptors under a label.
    ///
    /// # Errors
    /// When they cannot be queued now, or the keeper holds too many.
    fn hold(&mut self, label: &str, fds: &[BorrowedFd<'_>]) -> io::Result<()>;
    fn release(&mut self, label: &str);
    /// A line for the daemon's own log.
    fn log(&mut self, level: Level, text: String);
}

/// The result of a job.
#[derive(Debug)]
pub struct Turned {
    outcomes: Vec<(Arc<str>, Outcome)>,
}

/// What a finished job means for others.
#[derive(Debug, Default)]
pub struct Report {
    /// For the core, in order.
    pub inputs: Vec<Input>,
    /// Services whose log has grown.
    pub grown: Vec<Arc<str>>,
}

#[derive(Debug)]
struct Service {
    source: Arc<Source>,
    write: Arc<OwnedFd>,
    writer: Arc<Mutex<Writer>>,
    token: Option<Token>,
    place: Place,
    /// Something new came while a job was at it.
    fresh: bool,
    /// Its place among the timers, and the next delay.
    poll: Option<Mono>,
    delay: Duration,
    last: Mono,
    capacity: usize,
    /// The service is gone; the pipe goes when it is empty.
    removed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Idle,
    Queued,
    Lane,
}

/// The capture of all services.
pub struct Capture {
    folder: PathBuf,
    words: Arc<dyn Words>,
    desk: Option<Arc<Mutex<Desk>>>,
    services: BTreeMap<Arc<str>, Service>,
    shares: BTreeMap<Arc<str>, Arc<Share>>,
    queue: VecDeque<Arc<str>>,
    polls: BTreeSet<(Mono, Arc<str>)>,
    busy: bool,
    large: usize,
    copied: Option<Arc<str>>,
}

impl core::fmt::Debug for Capture {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Capture")
            .field("services", &self.services.len())
            .field("busy", &self.busy)
            .finish_non_exhaustive()
    }
}

impl Capture {
    /// A capture into `NAME.log` in this folder. `copied`: the service whose output hob also writes to its own stdout.
    #[must_use]
    pub fn new(folder: PathBuf, words: Arc<dyn Words>, copied: Option<Arc<str>>) -> Capture {
        Capture {
            folder,
            words,
            desk: None,
            services: BTreeMap::new(),
            shares: BTreeMap::new(),
            queue: VecDeque::new(),
            polls: BTreeSet::new(),
            busy: false,
            large: 0,
            copied,
        }
    }

    /// The service whose pipe the keeper holds under this label.
    #[must_use]
    pub fn service_of(label: &str) -> Option<&str> {
        label.strip_prefix(OUT)
    }

    /// Whether what is held under this label is capture's.
    #[must_use]
    pub fn knows(label: &str) -> bool {
        label == TRANSFER || label.starts_with(OUT)
    }

    /// Takes back what the keeper held under a label. False when the label is none of capture's.
    pub fn adopt(&mut self, label: &str, fds: Vec<OwnedFd>) -> bool {
        let name = label.strip_prefix(OUT);
        if name.is_none() && label != TRANSFER {
            return false;
        }
        // A pair that came incomplete is of no use; a new one is made.
        let Ok([read, write]) = <[OwnedFd; 2]>::try_from(fds) else { return true };
        match name {
            // Until its settings are known nothing is rotated, and so nothing removed.
            Some(name) => self.insert(name.into(), read, write, LogSpec { max_size: u64::MAX, max_files: u32::MAX }),
            None => self.desk = Some(Arc::new(Mutex::new(Desk::new(read, write, Arc::clone(&self.words))))),
        }
        true
    }

    /// Begins: after everything held was adopted. What the last daemon left in the transfer pipe goes to its file
    /// first.
    ///
    /// # Errors
    /// When no transfer pipe can be made or held.
    pub fn start(&mut self, now: Now, host: &mut impl Host) -> io::Result<()> {
        if self.desk.is_none() {
            let (read, write) = pipe::inner(CAPTURE_TURN)?;
            host.hold(TRANSFER, &[read.as_fd(), write.as_fd()])?;
            self.desk = Some(Arc::new(Mutex::new(Desk::new(read, write, Arc::clone(&self.words)))));
        }
        let names: Vec<Arc<str>> = self.services.keys().cloned().collect();
        if let Some(desk) = &self.desk {
            let mut desk = lock(desk);
            let (owner, bytes) = desk.content();
            if bytes == 0 {
                desk.unfinished = false;
            } else if !self.services.values().any(|s| s.source.hash == owner) {
                desk.discard(bytes);
                desk.unfinished = false;
                host.log(
                    Level::Error,
                    format!("{bytes} bytes of output were dropped: the service that wrote them is not known"),
                );
            }
            drop(desk);
            if let Some(first) = self.services.values().find(|s| s.source.hash == owner) {
                let name = Arc::clone(&first.source.name);
                self.enqueue(&name);
            }
        }
        for name in &names {
            self.watch(name, host);
            self.enqueue(name);
        }
        self.pump(now, host);
        Ok(())
    }

    fn insert(&mut self, name: Arc<str>, read: OwnedFd, write: OwnedFd, spec: LogSpec) {
        let share = self.share(&name);
        let capacity = pipe::capacity(&read).unwrap_or(PIPE);
        let source = Arc::new(Source::new(Arc::clone(&name), read));
        let copy = (self.copied.as_ref() == Some(&name)).then(|| Arc::clone(&self.words));
        let writer = Writer::new(Arc::clone(&source), share, spec, copy);
        self.large += usize::from(capacity > PIPE);
        let service = Service {
            source,
            write: Arc::new(write),
            writer: Arc::new(Mutex::new(writer)),
            token: None,
            place: Place::Idle,
            fresh: false,
            poll: None,
            delay: DELAY_MIN,
            last: Mono(0),
            capacity,
            removed: false,
        };
        self.services.insert(name, service);
    }

    /// What readers of a service's log need, whether it has run or not.
    pub fn share(&mut self, name: &Arc<str>) -> Arc<Share> {
        let folder = &self.folder;
        let new = || Arc::new(Share::new(Names::new(folder.join(format!("{name}.log")))));
        Arc::clone(self.shares.entry(Arc::clone(name)).or_insert_with(new))
    }

    /// The pipe that a run of this service writes to: made with its first start and kept over its runs.
    ///
    /// # Errors
    /// EMFILE and ENFILE, ENOSPC when no more can be watched, and what `Host::hold` answers.
    pub fn ensure(&mut self, name: &Arc<str>, spec: &LogSpec, host: &mut impl Host) -> io::Result<Arc<OwnedFd>> {
        if let Some(service) = self.services.get_mut(name) {
            service.removed = false;
            service.source.order(Order::Spec(spec.clone()));
            return Ok(Arc::clone(&service.write));
        }
        let (read, write) = pipe::output()?;
        let token = host.watch(name, read.as_fd())?;
        if let Err(e) = host.hold(&format!("{OUT}{name}"), &[read.as_fd(), write.as_fd()]) {
            host.unwatch(read.as_fd(), token);
            return Err(e);
        }
        self.insert(Arc::clone(name), read, write, spec.clone());
        let service = self.services.get_mut(name).ok_or(io::ErrorKind::NotFound)?;
        service.token = Some(token);
        Ok(Arc::clone(&service.write))
    }

    /// New log settings.
    pub fn spec(&mut self, name: &str, spec: &LogSpec) {
        if let Some(service) = self.services.get(name) {
            service.source.order(Order::Spec(spec.clone()));
        }
    }

    /// A run is about to be started: what comes into the pipe from now on is its output. Must come before the clone.
    pub fn run_started(&mut self, run: RunId, name: &Arc<str>) {
        self.point(name, Point::Start(run));
    }

    /// A run's main process has ended. `Input::Output` follows when capture has passed what lies in the pipe now,
    /// whoever may go on writing to it.
    pub fn run_ended(&mut self, run: RunId, name: &Arc<str>) {
        self.point(name, Point::End(run));
    }

    /// The lane gets to know of it by `pump`, so that the end of one run and the start of the next are one job.
    fn point(&mut self, name: &Arc<str>, point: Point) {
        if let Some(service) = self.services.get(name) {
            service.source.mark(point);
            self.enqueue(name);
        }
    }

    /// Waits for a line of the run's output that matches, beginning with its first, be it on file already or still to
    /// come. Answered by `Input::ReadySeen`.
    ///
    /// # Errors
    /// When the pattern does not compile.
    pub fn await_log(
        &mut self,
        run: RunId,
        name: &Arc<str>,
        pattern: &str,
        now: Now,
        host: &mut impl Host,
    ) -> Result<(), String> {
        let pattern = Regex::new(pattern).map_err(|e| e.to_string())?;
        self.order(name, Order::Await { run, pattern }, now, host);
        Ok(())
    }

    pub fn await_end(&mut self, run: RunId, name: &Arc<str>, now: Now, host: &mut impl Host) {
        self.order(name, Order::AwaitEnd(run), now, host);
    }

    fn order(&mut self, name: &Arc<str>, order: Order, now: Now, host: &mut impl Host) {
        if let Some(service) = self.services.get(name) {
            service.source.order(order);
            self.enqueue(name);
            self.pump(now, host);
        }
    }

    /// A service was removed and is down: its pipe goes when it is empty, its logs stay.
    pub fn forget(&mut self, name: &Arc<str>, now: Now, host: &mut impl Host) {
        if let Some(service) = self.services.get_mut(name) {
            service.removed = true;
            self.enqueue(name);
            self.pump(now, host);
        }
    }

    /// Something new lies in a pipe. The lane gets to know of it by `pump`.
    pub fn readable(&mut self, name: &Arc<str>) {
        self.enqueue(name);
    }

    fn enqueue(&mut self, name: &Arc<str>) {
        let Some(service) = self.services.get_mut(name) else { return };
        match service.place {
            Place::Idle => {
                service.place = Place::Queued;
                if let Some(at) = service.poll.take() {
                    self.polls.remove(&(at, Arc::clone(name)));
                }
                self.queue.push_back(Arc::clone(name));
            }
            Place::Queued => {}
            Place::Lane => service.fresh = true,
        }
    }

    /// Hands the next services to the lane, unless it is at work. To be called at the end of each turn of the loop.
    pub fn pump(&mut self, now: Now, host: &mut impl Host) {
        let Some(desk) = self.desk.as_ref().filter(|_| !self.busy && !self.queue.is_empty()) else { return };
        let count = self.queue.len().min(BATCH);
        let mut writers = Vec::with_capacity(count);
        for name in self.queue.drain(..count) {
            if let Some(service) = self.services.get_mut(&name) {
                service.place = Place::Lane;
                writers.push((name, Arc::clone(&service.writer)));
            }
        }
        self.busy = true;
        let desk = Arc::clone(desk);
        host.files(Box::new(move || Turned {
            outcomes: writers.into_iter().map(|(name, writer)| (name, turn(&desk, &writer, now))).collect(),
        }));
    }

    /// Takes the result of a job.
    pub fn done(&mut self, turned: Turned, now: Now, host: &mut impl Host) -> Report {
        self.busy = false;
        let mut report = Report::default();
        for (name, outcome) in turned.outcomes {
            if outcome.moved > 0 {
                report.grown.push(Arc::clone(&name));
            }
            self.after(&name, &outcome, now, host);
            for fact in outcome.facts {
                report.inputs.push(match fact {
                    Fact::Ready(run) => Input::ReadySeen { run },
                    Fact::Output { run, bytes, last_lines } => Input::Output { run, bytes, last_lines },
                });
            }
            for note in outcome.notes {
                host.log(Level::Warn, note);
            }
        }
        self.pump(now, host);
        report
    }

    fn remove(&mut self, name: &Arc<str>, host: &mut impl Host) {
        let Some(service) = self.services.remove(name) else { return };
        if let Some(token) = service.token {
            host.unwatch(service.source.read.as_fd(), token);
        }
        if let Some(at) = service.poll {
            self.polls.remove(&(at, Arc::clone(name)));
        }
        self.large -= usize::from(service.capacity > PIPE).min(self.large);
        self.shares.remove(name);
        host.release(&format!("{OUT}{name}"));
    }

    /// The copy to hob's own stdout has come on; its service may be read again.
    pub fn caught_up(&mut self, now: Now, host: &mut impl Host) {
        if let Some(name) = self.copied.clone() {
            self.enqueue(&name);
            self.pump(now, host);
        }
    }

    /// Moves all that lies in the pipes, on the caller's thread and for no longer than `limit`, before hob ends. False
    /// when something is left.
    pub fn flush(&mut self, limit: Duration, clock: impl Fn() -> Now) -> bool {
        let until = clock().mono + limit;
        let Some(desk) = &self.desk else { return true };
        while matches!(desk.try_lock(), Err(TryLockError::WouldBlock)) {
            if clock().mono >= until {
                return false;
            }
            std::thread::sleep(DELAY_MIN);
        }
        loop {
            let (mut empty, mut moved) = (true, false);
            for service in self.services.values() {
                let outcome = turn(desk, &service.writer, clock());
                empty &= outcome.drained && outcome.moved == 0;
                moved |= outcome.moved > 0;
            }
            if empty || clock().mono >= until {
                return empty;
            }
            if !moved {
                std::thread::sleep(DELAY_MIN);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One service's turn. A fault in it costs nothing: what was taken lies in the transfer pipe, and the file says what it
/// has.
fn turn(desk: &Mutex<Desk>, writer: &Mutex<Writer>, now: Now) -> Outcome {
    let (mut desk, mut writer) = (lock(desk), lock(writer));
    match catch_unwind(AssertUnwindSafe(|| writer.turn(&mut desk, now))) {
        Ok(outcome) => outcome,
        Err(_) => {
            desk.unfinished = true;
            writer.restore();
            let note = format!("a fault in {writer:?}; going on from its file");
            Outcome { notes: vec![note], ..Outcome::default() }
        }
    }
}
