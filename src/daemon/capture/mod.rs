//! Capture: the output of services goes from their pipes to their log files, and nothing is lost or doubled when the
//! daemon dies.
//!
//! Bytes that reach the file never pass through the daemon's memory. They lie in a service's pipe, in the transfer pipe
//! (both held by the keeper; a word of the run table says whose they are), or in the file. The loop only learns that a
//! pipe has something; one job at a time in the lane of files moves it on (`lane`), so that neither the loop nor a job
//! ever waits for the disk. A service that writes many small pieces is looked at by the clock instead of by its events
//! for as long as it does.

mod age;
mod apart;
mod append;
pub mod copy;
#[cfg(test)]
mod copy_tests;
pub mod desk;
mod equip;
pub mod file;
mod flush;
pub(in crate::daemon) mod guard;
pub mod index;
pub mod lane;
pub mod leftover;
pub mod lines;
pub mod marks;
mod pace;
mod raw;
mod ready;
pub mod rotate;
mod rotation;
pub mod source;
pub mod tail;
mod tend;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
pub mod times;
mod zip;

use crate::base::ids::{ReqId, RunId};
use crate::base::limits::CAPTURE_TURN;
use crate::base::map::Map;
use crate::base::time::{Mono, Now};
use crate::config::spec::{Level, LogSpec, ServiceSpec, Streams};
use crate::core::{Input, task};
use crate::sys::pipe;
use apart::Apart;
use core::time::Duration;
use desk::{Desk, Words};
use equip::ByLine;
use lane::{Fact, Outcome, Writer};
use mio::Token;
use pace::{DELAY_MIN, PIPE};
use regex_lite::Regex;
use rotate::Names;
use source::{Order, Point, Source};
use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tail::Share;
use zip::{Step, Zip};

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
    /// Runs a job in the lane of bulk work, at low priority.
    fn bulk(&mut self, job: Job);
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
pub struct Turned(Did);

#[derive(Debug)]
enum Did {
    Turns(Vec<(Arc<str>, Outcome)>),
    /// A file was compressed, or goes on being.
    Zip(Arc<str>, Step),
    /// The log of a service that does not run was rotated.
    Rotated {
        req: ReqId,
        name: Arc<str>,
        result: Result<bool, String>,
    },
}

/// What a finished job means for others.
#[derive(Debug, Default)]
pub struct Report {
    /// For the core, in order.
    pub inputs: Vec<Input>,
    /// Services whose log has grown.
    pub grown: Vec<Arc<str>>,
    /// Tasks whose output is complete.
    pub gone: Vec<Arc<str>>,
}

#[derive(Debug)]
struct Service {
    source: Arc<Source>,
    write: Arc<OwnedFd>,
    writer: Arc<Mutex<Writer>>,
    token: Option<Token>,
    /// The pipe for standard error, where it has one and no lines are processed.
    apart: Option<Apart>,
    /// What processes its lines, where its settings have ever asked for that.
    by_line: Option<Box<ByLine>>,
    /// Its place among the wakes.
    wake: Option<Mono>,
    place: Place,
    /// Something new came while a job was at it.
    fresh: bool,
    /// The pipe was made for a task here, and the lane has not had it: without a byte in it there is nothing to file.
    silent: bool,
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
    /// Where the output of tasks goes.
    tasks: PathBuf,
    words: Arc<dyn Words>,
    desk: Option<Arc<Mutex<Desk>>>,
    services: Map<Arc<str>, Box<Service>>,
    shares: Map<Arc<str>, Arc<Share>>,
    queue: VecDeque<Arc<str>>,
    polls: BTreeSet<(Mono, Arc<str>)>,
    /// Services that are looked at then although nothing happens.
    wakes: BTreeSet<(Mono, Arc<str>)>,
    rotations: Map<ReqId, rotation::Rows>,
    busy: bool,
    large: usize,
    copied: Option<Arc<str>>,
    /// The streams of that service are to be told apart.
    streams: bool,
    /// The pipe that its output takes to hob's own stdout and stderr.
    by: Option<(OwnedFd, OwnedFd)>,
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
    /// A capture into `NAME.log` in this folder, and of tasks into `ID.log` in the folder `tasks` beside it. `copied`:
    /// the service whose output hob also writes to its own stdout and stderr.
    #[must_use]
    pub fn new(folder: PathBuf, words: Arc<dyn Words>, copied: Option<Arc<str>>) -> Capture {
        let tasks = folder.with_file_name("tasks");
        Capture {
            folder,
            tasks,
            words,
            desk: None,
            services: Map::new(),
            shares: Map::new(),
            queue: VecDeque::new(),
            polls: BTreeSet::new(),
            wakes: BTreeSet::new(),
            rotations: Map::new(),
            busy: false,
            large: 0,
            copied,
            streams: false,
            by: None,
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
        label == TRANSFER || label == apart::BY || label.starts_with(OUT)
    }

    /// Takes back what the keeper held under a label. False when the label is none of capture's.
    pub fn adopt(&mut self, label: &str, fds: Vec<OwnedFd>) -> bool {
        let name = label.strip_prefix(OUT);
        if !Capture::knows(label) {
            return false;
        }
        let mut fds = fds.into_iter();
        // What came incomplete is of no use; it is made anew.
        let (Some(read), Some(write)) = (fds.next(), fds.next()) else { return true };
        let Some(name) = name else {
            if label == apart::BY {
                self.by = Some((read, write));
                return true;
            }
            self.desk = Some(Arc::new(Mutex::new(Desk::new(read, write, Arc::clone(&self.words)))));
            return true;
        };
        let name: Arc<str> = name.into();
        // Until its settings are known nothing is rotated, and so nothing removed.
        let spec = LogSpec { max_size: u64::MAX, max_files: u32::MAX, ..LogSpec::DEFAULT };
        self.insert(Arc::clone(&name), read, write, spec);
        match (fds.next(), fds.next(), fds.len()) {
            (Some(read), Some(write), 0) => self.adopt_apart(&name, read, write),
            (Some(hoard), second, _) => self.adopt_lines(&name, File::from(hoard), [second, fds.next(), fds.next()]),
            (None, ..) => {}
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
            } else if !self.services.values().any(|s| s.owns(owner)) {
                desk.discard(bytes);
                desk.unfinished = false;
                host.log(
                    Level::Error,
                    format!("{bytes} bytes of output were dropped: the service that wrote them is not known"),
                );
            }
            drop(desk);
            let first = self.services.values().find(|s| s.owns(owner)).map(|s| Arc::clone(&s.source.name));
            if let Some(name) = first {
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
        let words = (Arc::clone(&self.words), self.copied.as_ref() == Some(&name));
        let writer = Writer::new(Arc::clone(&source), share, spec, words);
        self.large += usize::from(capacity > PIPE);
        let service = Service {
            source,
            write: Arc::new(write),
            writer: Arc::new(Mutex::new(writer)),
            token: None,
            apart: None,
            by_line: None,
            wake: None,
            place: Place::Idle,
            fresh: false,
            silent: false,
            poll: None,
            delay: DELAY_MIN,
            last: Mono(0),
            capacity,
            removed: false,
        };
        self.services.insert(name, Box::new(service));
    }

    /// What readers of a service's log need, whether it has run or not.
    pub fn share(&mut self, name: &Arc<str>) -> Arc<Share> {
        if let Some(share) = self.shares.get(name) {
            return Arc::clone(share);
        }
        let share = self.new_share(name);
        self.shares.insert(Arc::clone(name), Arc::clone(&share));
        share
    }

    /// The same for a reader. There may be very many tasks, so those that do not write are not remembered.
    pub fn reader(&mut self, name: &Arc<str>) -> Arc<Share> {
        match task::of_name(name) {
            Some(_) if !self.shares.contains_key(name) => self.new_share(name),
            Some(_) | None => self.share(name),
        }
    }

    fn new_share(&self, name: &str) -> Arc<Share> {
        let path = match task::of_name(name) {
            Some(id) => self.tasks.join(format!("{id}.log")),
            None => self.folder.join(format!("{name}.log")),
        };
        Arc::new(Share::new(Names::new(path)))
    }

    /// Services and tasks that have a pipe.
    #[must_use]
    pub fn count(&self) -> usize {
        self.services.len()
    }

    /// Whether it has a pipe.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.services.contains_key(name)
    }

    /// The pipes that a run of this service writes to, for its standard output and its standard error: made with its
    /// first start and kept over its runs. Mostly they are one.
    ///
    /// # Errors
    /// EMFILE and ENFILE, ENOSPC when no more can be watched, and what `Host::hold` answers.
    pub fn ensure(
        &mut self,
        name: &Arc<str>,
        spec: &ServiceSpec,
        host: &mut impl Host,
    ) -> io::Result<[Arc<OwnedFd>; 2]> {
        if !self.services.contains_key(name) {
            let (read, write) = pipe::output()?;
            let token = host.watch(name, read.as_fd())?;
            if let Err(e) = host.hold(&format!("{OUT}{name}"), &[read.as_fd(), write.as_fd()]) {
                host.unwatch(read.as_fd(), token);
                return Err(e);
            }
            self.insert(Arc::clone(name), read, write, spec.log.clone());
            if let Some(service) = self.services.get_mut(name) {
                service.token = Some(token);
                service.silent = task::of_name(name).is_some();
            }
        }
        self.part(name, spec, host)?;
        self.equip(name, spec, true, host)?;
        let service = self.services.get_mut(name).ok_or(io::ErrorKind::NotFound)?;
        service.removed = false;
        let out = Arc::clone(&service.write);
        let split = spec.log.streams == Streams::Split;
        let apart = service.apart.as_ref().map(|a| Arc::clone(&a.write));
        let err = service.second().filter(|_| split).map(|s| Arc::clone(&s.write)).or(apart);
        let err = err.unwrap_or_else(|| Arc::clone(&out));
        Ok([out, err])
    }

    /// A run is about to be started: what comes into the pipe from now on is its output. Must come before the clone.
    pub fn run_started(&mut self, run: RunId, name: &Arc<str>) {
        self.point(name, Point::Start(run));
    }

    /// A run's main process has ended. `Input::Output` follows when capture has passed what lies in the pipe now,
    /// whoever may go on writing to it; that of a task which has written nothing is the answer.
    pub fn run_ended(&mut self, run: RunId, name: &Arc<str>) -> Option<Input> {
        if self.services.get(name).is_some_and(|s| s.is_silent()) {
            return Some(Input::Output { run, bytes: 0, last_lines: Vec::new() });
        }
        self.point(name, Point::End(run));
        None
    }

    /// The lane gets to know of it by `pump`, so that the end of one run and the start of the next are one job; of the
    /// start of a task with its first byte.
    fn point(&mut self, name: &Arc<str>, point: Point) {
        if let Some(service) = self.services.get(name) {
            service.source.mark(point);
            if let Some(apart) = &service.apart {
                apart.source.mark(point);
            }
            if let Some(second) = service.by_line.as_ref().and_then(|l| l.second.as_ref()) {
                second.source.mark(point);
            }
            if !service.silent || !matches!(point, Point::Start(_)) {
                self.enqueue(name);
            }
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

    /// A service was removed and is down: its pipe goes when it is empty, its logs stay. True when it is gone at once.
    pub fn forget(&mut self, name: &Arc<str>, now: Now, host: &mut impl Host) -> bool {
        if self.services.get(name).is_some_and(|s| s.is_silent()) {
            self.remove(name, host);
            return true;
        }
        if let Some(service) = self.services.get_mut(name) {
            service.removed = true;
            service.source.order(Order::Finish);
            self.enqueue(name);
            self.pump(now, host);
        }
        false
    }

    /// Something new lies in a pipe. The lane gets to know of it by `pump`.
    pub fn readable(&mut self, name: &Arc<str>) {
        self.enqueue(name);
    }

    fn enqueue(&mut self, name: &Arc<str>) {
        let Some(service) = self.services.get_mut(name) else { return };
        service.silent = false;
        match service.place {
            Place::Idle => {
                service.place = Place::Queued;
                if let Some(at) = service.poll.take() {
                    self.polls.remove(&(at, Arc::clone(name)));
                }
                if let Some(at) = service.wake.take() {
                    self.wakes.remove(&(at, Arc::clone(name)));
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
        host.files(Box::new(move || {
            Turned(Did::Turns(writers.into_iter().map(|(name, writer)| (name, turn(&desk, &writer, now))).collect()))
        }));
    }

    /// Takes the result of a job.
    pub fn done(&mut self, turned: Turned, now: Now, host: &mut impl Host) -> Report {
        let mut report = Report::default();
        let outcomes = match turned.0 {
            Did::Turns(outcomes) => outcomes,
            Did::Zip(name, step) => {
                match step {
                    Step::Goes(zip) => pack(name, zip, host),
                    step => self.order(&name, Order::Zipped(step), now, host),
                }
                return report;
            }
            Did::Rotated { req, name, result } => {
                report.inputs.extend(self.rotated(req, &name, result));
                return report;
            }
        };
        self.busy = false;
        for (name, outcome) in outcomes {
            if outcome.grown {
                report.grown.push(Arc::clone(&name));
            }
            self.after(&name, &outcome, now, host);
            if task::of_name(&name).is_some() && !self.has(&name) {
                report.gone.push(Arc::clone(&name));
            }
            if let Some(zip) = outcome.zip {
                pack(Arc::clone(&name), zip, host);
            }
            for fact in outcome.facts {
                report.inputs.extend(match fact {
                    Fact::Ready(run) => Some(Input::ReadySeen { run }),
                    Fact::Output { run, bytes, last_lines } => Some(Input::Output { run, bytes, last_lines }),
                    Fact::Rotated { req, result } => self.rotated(req, &name, result),
                    Fact::Lost(lost) => Some(Input::OutputLost { name: Arc::clone(&name), lost }),
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
        let Some(mut service) = self.services.remove(name) else { return };
        pace::unwatch(&mut service, host);
        if let Some(at) = service.wake {
            self.wakes.remove(&(at, Arc::clone(name)));
        }
        if let Some(at) = service.poll {
            self.polls.remove(&(at, Arc::clone(name)));
        }
        self.large -= usize::from(service.capacity > PIPE).min(self.large);
        self.shares.remove(name);
        self.words.set_dropped(service.source.hash, 0);
        host.release(&format!("{OUT}{name}"));
    }
}

/// Lets a file be compressed, or goes on with that.
fn pack(name: Arc<str>, zip: Zip, host: &mut impl Host) {
    host.bulk(Box::new(move || Turned(Did::Zip(name, zip.step()))));
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
