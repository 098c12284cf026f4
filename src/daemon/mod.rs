//! The daemon acts: one loop turns readiness into inputs for the core and effects into system calls.
//!
//! One turn: wait until something is ready or due; turn what is ready into inputs, in a fixed order; let the core
//! decide; write the round's records; run the effects in order; what they answer is the next round's input.

pub mod capture;
pub mod child;
mod closer;
pub mod conn;
pub mod doctor;
mod door;
pub mod events;
mod exec;
pub mod fair;
mod gear;
pub mod journal;
pub mod lifecycle;
pub mod link;
pub mod logs;
mod measure;
pub mod offline;
pub mod ownlog;
pub mod pool;
mod question;
pub mod source;
mod start;
mod told;
mod unheard;
mod wall;

pub use lifecycle::check::{Report, check};
pub use lifecycle::upgrade::CHECK_WORD;
pub use start::{Options, run};

/// Tells builds of one version apart, where whoever built this one said so.
pub const BUILD: &str = match option_env!("HOB_BUILD") {
    Some(build) => build,
    None => "",
};

use crate::base::control::{ToDaemon, ToKeeper};
use crate::base::ids::{ReqId, RunId};
use crate::base::limits::{FROZEN, ROUNDS_PER_TURN};
use crate::base::map::Map;
use crate::base::time::{Mono, sooner};
use crate::config::Level;
use crate::core::{Core, Effect, Input, Out, Usages};
use crate::protocol::rpc::RpcError;
use crate::sys;
use conn::{Admission, Readiness};
use core::time::Duration;
use fair::Waiting;
use gear::{Gear, Job, Outlet};
use lifecycle::{Lifecycle, outside};
use pool::Done;
use source::Source;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use unheard::Unheard;

/// How long after everything has come up, or after a large round, the memory is given back that this took.
const SETTLE_AFTER: Duration = Duration::from_secs(1);

/// Records of a round that leaves much to be given back.
const LARGE_ROUND: usize = 1024;

/// Inputs, records and effects of a round for which memory is kept.
const KEPT: usize = 16;

/// A reply that waits for a sync of the journal.
struct Held {
    token: u64,
    req: ReqId,
    result: Result<String, RpcError>,
}

/// Everything the loop holds. `gear` is what the parts below it share.
struct Daemon {
    gear: Gear,
    core: Core,
    conns: conn::Conns,
    channels: door::Channels,
    children: child::Children,
    capture: capture::Capture,
    copy: Option<capture::copy::Copy>,
    streams: logs::Streams,
    journal: journal::Journal,
    ring: events::EventLog,
    listener: mio::net::UnixListener,
    signals: signal_hook_mio::v1_0::Signals,
    admission: Admission,
    paths: Arc<crate::base::paths::Paths>,
    /// Replies in order of the sync they wait for.
    held: VecDeque<Held>,
    /// Claims of tasks, by the sync they wait for and their number.
    claims: VecDeque<(u64, u64)>,
    /// Who asked for the config to be read; it is being read for the first of them.
    loads: VecDeque<(Option<ReqId>, bool)>,
    /// What the core is told in the next round.
    inputs: Vec<Input>,
    /// What clients sent that has to wait for a later turn, and how much this one has left for them.
    waiting: Waiting,
    out: Out,
    /// The nearest of all deadlines when the loop last went to sleep.
    due_at: Option<Mono>,
    /// Services that have said more than was heard.
    unheard: Unheard,
    /// When to accept again after descriptors ran out.
    accept_at: Option<Mono>,
    /// The service of each run that is not forgotten.
    services: Map<RunId, Arc<str>>,
    /// The core knows that the keeper is gone.
    told_gone: bool,
    /// The niceness hob was started with, and what daemon.nice has added to its own.
    niceness: i32,
    reniced: i32,
    /// hob ends because the command it was run for has ended.
    own_end: bool,
    /// Nothing is writable, so the main service writes to hob's own output itself.
    bare: bool,
    /// hob runs for one command and was given no config, which could be read again.
    configless: bool,
    own: doctor::Own,
    life: Lifecycle,
    wall: wall::WallWatch,
    /// When to give back what coming up, a heartbeat, a large round or a snapshot took.
    settle_at: Option<Mono>,
    /// Held until this process is gone, also when the keeper is.
    _lock: std::os::fd::OwnedFd,
    /// Of the state folder.
    _claim: Option<std::os::fd::OwnedFd>,
}

/// How a daemon ends by itself.
#[derive(Debug)]
enum Ending {
    /// With hob, which ends with this code.
    Hob(u8),
    /// For an ordinary one, after safe mode; `stop`: which is to stop hob.
    Again { stop: bool },
    /// For one from this program.
    Upgrade(std::os::fd::OwnedFd),
}

/// A source that is ready, and how.
struct Ready {
    source: Source,
    what: Readiness,
}

/// The place of connections of clients in the order in which ready sources are looked at in one turn.
const CLIENTS: u8 = 6;

/// That order.
fn rank(source: &Source) -> u8 {
    match source {
        Source::Waker | Source::Wall => 0,
        Source::Notify(_) | Source::Ready(_) | Source::Words(_) => 1,
        Source::Output(_) => 2,
        Source::Probe(_) | Source::Dial(_) | Source::Socket(..) => 3,
        Source::Child(_) | Source::Tree(_) => 4,
        Source::Keeper | Source::Signals => 5,
        Source::Conn(_) => CLIENTS,
        Source::Listener => 7,
    }
}

impl Daemon {
    /// Turns until this daemon is to end.
    fn serve(&mut self) -> io::Result<Ending> {
        let mut events = mio::Events::with_capacity(256);
        let mut ready: Vec<Ready> = Vec::new();
        // Clients alone had something, and only questions that are answered: nothing but their replies is left to do.
        let mut calm = false;
        loop {
            calm = calm && self.flush();
            let timeout = if calm { self.same_timeout() } else { self.finish_turn() };
            if let Some(ending) = self.life.ending.take() {
                return Ok(ending);
            }
            match self.gear.poll.poll(&mut events, timeout) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => other?,
            }
            self.gear.now = sys::clock::now();
            self.waiting.budget.begin(self.gear.now.mono);
            self.inputs.extend(self.wall.check(self.gear.now));
            let sources = &self.gear.sources;
            ready.extend(
                events
                    .iter()
                    .filter_map(|e| Some(Ready { source: sources.get(e.token())?.clone(), what: Readiness::from(e) })),
            );
            ready.sort_by_key(|r| rank(&r.source));
            let asked = ready.iter().all(|r| matches!(r.source, Source::Conn(_)));
            calm = asked && !self.is_due() && self.waiting.is_empty();
            self.hear_backlog();
            let clients = ready.partition_point(|r| rank(&r.source) < CLIENTS);
            for r in ready.drain(..clients) {
                self.look(r);
            }
            self.serve_who_waits();
            for r in ready.drain(..) {
                self.look(r);
            }
            self.due();
            calm &= self.inputs.is_empty();
        }
    }

    /// Has the core decide on what has come in, and does what follows. Answers how long the loop may sleep.
    fn finish_turn(&mut self) -> Option<Duration> {
        self.rounds();
        self.end_turn();
        let settles = self.settle_at.take_if(|at| *at <= self.gear.now.mono).is_some();
        let timeout = self.timeout();
        if settles && self.life.ending.is_none() {
            sys::memory::settle(); // Last: whatever runs after it brings its pages back.
        }
        timeout
    }

    /// Whether a deadline has passed with which the loop went to sleep.
    fn is_due(&self) -> bool {
        self.due_at.is_some_and(|at| at <= self.gear.now.mono)
    }

    /// How long the loop may sleep: until the nearest of all deadlines.
    fn timeout(&mut self) -> Option<Duration> {
        let clients = self.conns.has_backlog() || !self.waiting.is_empty();
        if !self.inputs.is_empty() || clients || self.unheard.is_waiting() {
            self.due_at = Some(Mono(0));
            return Some(Duration::ZERO);
        }
        let next = sooner(self.core.next_deadline(), self.gear.pool.next_deadline());
        let next = sooner(next, sooner(self.gear.log.deadline(), self.children.next_deadline()));
        let next = sooner(next, sooner(self.capture.deadline(), self.journal.next_deadline()));
        let next = sooner(next, sooner(self.conns.next_deadline(), sooner(self.accept_at, self.unheard.deadline())));
        let next = sooner(next, self.streams.next_deadline());
        self.due_at = sooner(next, sooner(self.settle_at, self.wall.deadline()));
        // After a long turn its own reading of the clock is too old to sleep by. mio rounds up to the next millisecond.
        Some(self.due_at?.since(sys::clock::now().mono))
    }

    /// Turns one ready source into inputs.
    fn look(&mut self, r: Ready) {
        match r.source {
            Source::Waker => self.pool_results(),
            Source::Wall => self.wall.told(&mut self.gear),
            Source::Notify(name) => self.notified(&name),
            Source::Output(name) => self.capture.readable(&name),
            Source::Ready(name) => self.children.ready_written(&name, &mut self.inputs),
            Source::Words(id) => self.children.said(id),
            Source::Socket(name, at) => self.children.connected(&name, at, &mut self.inputs),
            Source::Dial(run) => self.children.dialled(&mut self.gear.ctx(), run, &mut self.inputs),
            Source::Probe(run) => self.children.probed(&mut self.gear.ctx(), run, &mut self.inputs),
            Source::Child(run) => {
                self.children.readable(&mut self.gear.ctx(), run, &mut self.inputs);
            }
            Source::Tree(run) => self.children.tree_changed(&mut self.gear.ctx(), run, &mut self.inputs),
            Source::Keeper => self.keeper(),
            Source::Signals => self.own_signals(),
            Source::Conn(id) => self.read(id, r.what),
            Source::Listener => self.accept(),
        }
    }

    /// Messages of the keeper.
    fn keeper(&mut self) {
        while let Some(message) = self.gear.link.recv() {
            self.keeper_says(message);
        }
        if self.gear.link.gone() && !self.told_gone {
            self.told_gone = true;
            self.gear.log(Level::Error, "the keeper has died: stopping all jobs");
            self.inputs.push(Input::KeeperGone);
            self.children.keeper_gone(&mut self.gear.ctx(), &mut self.inputs);
        }
    }

    fn keeper_says(&mut self, message: ToDaemon) {
        match message {
            ToDaemon::Ended { slot } => self.children.ended(&mut self.gear.ctx(), slot, &mut self.inputs),
            ToDaemon::Stop { hurry } => self.inputs.push(Input::Stop { hurry }),
            ToDaemon::Signal { number } => self.signal(i32::from(number)),
            ToDaemon::Upgraded { verdict } => {
                self.upgrade_verdict(verdict);
                // A keeper of a program that did not know of this may have become another.
                self.tell_settings();
            }
            ToDaemon::Ask => self.gear.link.beat(self.life.heartbeat),
            ToDaemon::Hello { .. } | ToDaemon::Held { .. } | ToDaemon::HeldEnd => {}
        }
    }

    fn own_signals(&mut self) {
        let pending: Vec<i32> = self.signals.pending().collect();
        for signal in pending {
            self.signal(signal);
        }
    }

    /// A signal to hob, through the keeper or to the daemon itself.
    fn signal(&mut self, signal: i32) {
        use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
        match signal {
            SIGHUP if self.configless => self.inputs.push(Input::Forward { signal }),
            SIGHUP => self.inputs.push(Input::Reload),
            sys::signals::SIGUSR2 => self.inputs.push(Input::Renew { signal }),
            SIGTERM | SIGINT => self.inputs.push(Input::Stop { hurry: false }),
            _ => self.inputs.push(Input::Forward { signal }),
        }
    }

    /// Results of the pool become inputs, in the order in which the jobs ended.
    fn pool_results(&mut self) {
        for done in self.gear.pool.results() {
            match done {
                Done::Finished(job) => self.job(job),
                Done::Late { name, result } => {
                    self.gear.log(Level::Warn, format!("{name} came late"));
                    if !outside::is_told(&result) {
                        self.job(result);
                    }
                }
                Done::Panicked { name, message, late } => {
                    self.gear.log(Level::Error, format!("a fault in {name}: {message}"));
                    if name.starts_with("journal") {
                        self.journal.lost(self.gear.now.mono);
                    }
                    if name == measure::MEASURING {
                        self.measured(Usages::new());
                    }
                    if !late {
                        self.outside_failed(name, &message);
                    }
                }
            }
        }
    }

    fn job(&mut self, job: Job) {
        let now = self.gear.now;
        match job {
            Job::Spawned(done) => self.children.spawned(&mut self.gear.ctx(), done, &mut self.inputs),
            Job::Swept(done) => self.children.swept(done, &mut self.inputs),
            Job::Path(done) => self.children.path_done(&mut self.gear.ctx(), done, &mut self.inputs),
            Job::Capture(turned) => {
                let report = self.capture.done(turned, now, &mut self.gear);
                self.inputs.extend(report.inputs);
                let mut outlet = Outlet { gear: &mut self.gear, conns: &mut self.conns };
                for name in report.grown {
                    self.streams.grown(&name, &mut outlet);
                }
                for name in report.gone {
                    self.streams.over(&name, &mut outlet);
                }
            }
            Job::Copied(told) => self.capture.copy_told(told, now, &mut self.gear),
            Job::Logs(read) => self.streams.done(read, &mut Outlet { gear: &mut self.gear, conns: &mut self.conns }),
            Job::Journal(ended) => {
                if ended.is_of_snapshot() {
                    self.settle_at = Some(now.mono + SETTLE_AFTER);
                }
                self.journal.ended(now.mono, ended);
            }
            Job::Config(result) => self.config_read(result),
            Job::Kept(config) => self.loaded(Ok(config)),
            Job::Usage(usages) => self.measured(usages),
            Job::Examined { req, result } => self.inputs.push(Input::Examined { req, result }),
            Job::Upgrade { req, found } => self.upgrade_found(req, found),
            Job::Quiet(Ok(())) => {}
            Job::Quiet(Err(e)) => self.gear.log(Level::Warn, e),
            Job::Beat(written) => {
                // Nothing may follow until the next beat.
                self.settle_at = Some(now.mono);
                if let Err(e) = written {
                    self.gear.log(Level::Warn, e);
                }
            }
            Job::Program(other) => self.other_program(other),
        }
    }

    /// What the clock alone says.
    fn due(&mut self) {
        let now = self.gear.now.mono;
        let past = |at: Option<Mono>| at.is_some_and(|at| at <= now);
        if !self.is_due() {
            // What this turn made due is seen to in the next, which does not wait.
            return;
        }
        if self.gear.pool.next_deadline().is_some_and(|at| now.since(at) > FROZEN) {
            self.gear.pool.thaw(now);
        }
        if past(self.gear.pool.next_deadline()) {
            for late in self.gear.pool.overdue(now) {
                self.gear.log(Level::Warn, format!("{} has not ended in time; another thread goes on", late.name));
                if late.name.starts_with("journal") {
                    self.journal.overdue();
                }
                self.outside_is_silent(late.name);
                if late.name == measure::MEASURING {
                    self.measuring_hangs();
                }
                if late.lane == pool::Lane::Spawn {
                    self.children.slow_starts(now, &mut self.inputs);
                }
            }
        }
        if past(self.children.next_deadline()) {
            self.children.tick(&mut self.gear.ctx(), &mut self.inputs);
        }
        if past(self.capture.deadline()) {
            self.capture.due(self.gear.now, &mut self.gear);
        }
        if past(self.journal.next_deadline()) {
            self.journal.tick(now);
        }
        if past(self.conns.next_deadline()) {
            self.conns.due(now);
        }
        self.unheard.due(now);
        self.streams.due(now);
        if past(self.accept_at) {
            self.accept();
        }
        if past(self.core.next_deadline()) {
            self.inputs.push(Input::Tick);
        }
    }

    /// Steps what has come in, and what the effects answer, a bounded number of times.
    fn rounds(&mut self) {
        for _ in 0..ROUNDS_PER_TURN {
            self.waiting.begin_round();
            if self.inputs.is_empty() && !self.waiting.has_next() {
                break;
            }
            let mut out = core::mem::take(&mut self.out);
            let mut inputs = core::mem::take(&mut self.inputs);
            for input in inputs.drain(..) {
                if let Some(input) = self.waiting.put(input) {
                    self.step(input, &mut out);
                }
            }
            while let Some(input) = self.waiting.next() {
                self.step(input, &mut out);
            }
            inputs.shrink_to(KEPT);
            self.inputs = inputs;
            let large = out.records.len() >= LARGE_ROUND;
            self.write_round(&mut out);
            self.run(&mut out);
            if large {
                self.settle_at = Some(self.gear.now.mono + SETTLE_AFTER);
            }
            // A round that starts everything is a hundred times as large as those after it.
            out.records.shrink_to(KEPT);
            out.effects.shrink_to(KEPT);
            self.out = out;
        }
        self.write_events();
    }

    fn step(&mut self, input: Input, out: &mut Out) {
        let ended = if let Input::Exited { run, .. } = &input { Some(*run) } else { None };
        if let Input::Output { run, .. } = &input
            && self.unheard.passed(*run)
            && let Some(service) = self.services.get(run)
        {
            self.unheard.ended(service, *run);
        }
        let measured = matches!(input, Input::Measured { .. });
        self.life.marks.input(&input, self.journal.last_record());
        self.core.step(self.gear.now, input, out);
        if matches!(out.effects.last(), Some(Effect::Measure { .. })) {
            self.waiting.hold();
        } else if measured {
            // The answer may have been long.
            self.waiting.budget.look();
        }
        // What lies in the pipe now is all that the run wrote.
        let passed = ended.and_then(|run| self.output_passes(run));
        if let Some(input) = passed {
            self.core.step(self.gear.now, input, out);
        }
    }

    /// The round's records in one write, and its events in another, before anything of it is done or told. Events of
    /// rounds without records go with those of the next: what such a round did is found out again by a next daemon,
    /// with its events.
    fn write_round(&mut self, out: &mut Out) {
        for effect in &out.effects {
            if let Effect::Event { line, .. } = effect {
                self.ring.add(line);
            }
        }
        if !out.records.is_empty() {
            self.journal.append(self.gear.now.mono, &out.records);
            out.records.clear();
            self.inputs.extend(self.journal.poll_facts());
            self.write_events();
        }
    }

    fn write_events(&mut self) {
        if let Some(problem) = self.ring.flush() {
            self.gear.log(Level::Warn, problem);
        }
    }

    /// Sends, syncs, snapshots: what is done once a turn.
    fn end_turn(&mut self) {
        let now = self.gear.now.mono;
        self.wall.want(self.core.keeps_time(), &mut self.gear);
        let core = &self.core;
        self.journal.snapshot_step(now, &mut |cursor, max| core.entities_from(cursor, max));
        self.journal.request_sync(&mut self.gear.pool, now, Job::Journal);
        self.inputs.extend(self.journal.poll_facts());
        for report in self.journal.reports() {
            self.gear.log(Level::Warn, report);
        }
        self.capture.pump(self.gear.now, &mut self.gear);
        self.hand_out();
        self.release();
        self.conns.take_lagged(&mut self.inputs);
        self.flush();
        if self.life.outer && core::mem::take(&mut self.life.reloaded) {
            self.gear.link.say(&ToKeeper::Reloaded);
        }
        self.gear.link.flush();
        if self.gear.log.flush(self.gear.now.mono) {
            let mut outlet = Outlet { gear: &mut self.gear, conns: &mut self.conns };
            self.streams.grown(logs::OWN, &mut outlet);
        }
    }

    /// Work of the children's own goes to the pool.
    fn hand_out(&mut self) {
        for todo in self.children.todo() {
            match todo {
                child::Todo::Spawn(job) => self.spawn(*job),
                child::Todo::Sweep(job) => self.gear.sweep(Some(job)),
                child::Todo::Path(job) => self.gear.at_path(job),
            }
        }
    }

    /// Replies whose records are on disk go out, in order.
    fn release(&mut self) {
        if !self.life.ended.is_empty() && self.journal.is_written() {
            for run in core::mem::take(&mut self.life.ended) {
                self.forget(run);
            }
        }
        let durable = self.journal.durable_upto();
        while let Some((_, ticket)) = self.claims.front().copied().filter(|(token, _)| *token <= durable) {
            self.claims.pop_front();
            self.inputs.push(Input::Synced { ticket });
        }
        while self.held.front().is_some_and(|h| h.token <= durable) {
            if let Some(h) = self.held.pop_front() {
                self.conns.reply(h.req, &h.result);
            }
        }
    }
}
