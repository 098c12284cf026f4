//! Virtual time and the loop: what happens next, one step of the core, and how daemon, keeper and power come and go.

use crate::check::Check;
use crate::clients::Clients;
use crate::disk::Disk;
use crate::jobs_plan::JobAsk;
use crate::os::{MS, Os};
use crate::plan::{Action, Ask, Death, FAULTS_END, Op, Options, Plan, Verb};
use crate::questions::same;
use crate::rng::Rng;
use crate::tasks_model::Told;
use core::time::Duration;
use hob::base::ids::RunId;
use hob::base::time::{Mono, Now, Wall};
use hob::config::Config;
use hob::core::{Boot, Core, Duty, Effect, End, Input, Out, Start};
use hob::protocol::methods::Request;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::sync::Arc;

/// Milliseconds without faults after which everything has to have come to rest.
const CALM: u64 = 240_000;
/// So long after the faults jobs go on.
const JOBS_CALM: u64 = 40_000;
/// A deadline that is met so much later means that the machine stood still.
const FROZEN: Duration = Duration::from_secs(1);
/// Steps of the core in one seed, and at one moment, above which it spins.
const STEPS_MAX: u64 = 300_000;
const STEPS_AT_ONCE: u64 = 5000;
pub const HOST: &str = "sim";
/// Lines of the trace that a failure shows.
const TRACE: usize = 120;
/// The wall clock when the simulation begins.
pub const WALL_START: i64 = 1_800_000_000_000;

#[derive(Debug)]
pub enum Event {
    Op(usize),
    Calm,
    /// Jobs begin no more runs, so that all can come to rest.
    Pause,
    Boot,
    /// A thread of the daemon's pool makes the process.
    Spawn(Box<Start>),
    Deliver(Input),
    /// A thread of the daemon's pool looks who is left.
    Scan(RunId),
    /// A check that was begun as the how manieth comes to its end.
    Checked(RunId, Duty, u64),
    Newest(u64),
    Sync(usize),
    ProcReady(u32),
    ProcEnd(u32, End),
    /// A process says that it lives.
    Ping(u32),
    /// Somebody connects to a service.
    Connect(Arc<str>),
    /// The keeper waited long enough for a shutdown.
    KeeperLimit(u64),
}

#[derive(Debug)]
pub struct Failure {
    /// The first words, up to the colon, name the invariant.
    pub what: String,
    pub trace: Vec<String>,
}

/// What a run of the simulator was worth.
#[derive(Clone, Copy, Debug, Default)]
pub struct Score {
    pub steps: u64,
    pub starts: u64,
    pub daemons: u64,
    pub replies: u64,
    /// Runs of jobs.
    pub fired: u64,
    /// Questions that took no step.
    pub looked: u64,
}

#[derive(Debug)]
pub struct World<'a> {
    pub plan: &'a Plan,
    pub options: Options,
    pub rng: Rng,
    /// Nanoseconds since the simulation began, and when the machine was booted.
    pub now: u64,
    pub booted_at: u64,
    pub wall_shift: i64,
    pub core: Option<Core>,
    /// Counts daemons, keepers and boots of the machine.
    pub epoch: u64,
    pub keeper: u64,
    pub boots: u64,
    /// How much the wall clock has moved beside the awake time that the daemon has not been told of, and how much of
    /// that was sleep.
    pub jump: i64,
    pub slept: i64,
    /// The entities that the present round has written.
    pub touched: BTreeSet<String>,
    /// Records of the journal are missing, as the next daemon will see.
    pub gap: bool,
    /// Entities a record of which was damaged.
    pub damaged: BTreeSet<String>,
    /// Awake time of the last step.
    last_step: Mono,
    pub generation: u32,
    pub keeper_gone: bool,
    pub stop_pending: bool,
    pub frozen_until: u64,
    pub os: Os,
    pub disk: Disk,
    pub clients: Clients,
    pub check: Check,
    pub calm: bool,
    /// The config file: a version, or broken.
    pub file: Option<usize>,
    pub journal_full: bool,
    /// Runs to be forgotten once their ends are in the journal.
    pub ended: Vec<RunId>,
    pub score: Score,
    pub kill: Option<(u64, Death)>,
    pub queue: BTreeMap<(u64, u64), (Option<u64>, Event)>,
    serial: u64,
    at_once: u64,
    trace: Vec<String>,
    /// Every line of the trace goes to stderr as well.
    pub loud: bool,
    failure: Option<String>,
}

impl<'a> World<'a> {
    pub fn new(plan: &'a Plan) -> World<'a> {
        let mut world = World {
            plan,
            options: plan.options.clone(),
            rng: Rng::fork(plan.seed, 2),
            now: 0,
            booted_at: 0,
            wall_shift: 0,
            core: None,
            epoch: 0,
            keeper: 1,
            boots: 1,
            jump: 0,
            slept: 0,
            touched: BTreeSet::new(),
            gap: false,
            damaged: BTreeSet::new(),
            last_step: Mono(0),
            generation: 0,
            keeper_gone: false,
            stop_pending: false,
            frozen_until: 0,
            os: Os::default(),
            disk: Disk::default(),
            clients: Clients::default(),
            check: Check::new(plan),
            calm: false,
            file: Some(0),
            journal_full: false,
            ended: Vec::new(),
            score: Score::default(),
            kill: None,
            queue: BTreeMap::new(),
            serial: 0,
            at_once: 0,
            trace: Vec::new(),
            loud: false,
            failure: None,
        };
        for (i, Op { at, .. }) in plan.ops.iter().enumerate() {
            world.at(at * MS, None, Event::Op(i));
        }
        world.at(FAULTS_END * MS, None, Event::Calm);
        world.at((FAULTS_END + JOBS_CALM) * MS, None, Event::Pause);
        world.learn_delays();
        world.at(0, None, Event::Boot);
        world
    }

    /// Runs to the end, or to the first thing that must not be.
    pub fn run(mut self) -> Result<Score, Failure> {
        let end = (FAULTS_END + CALM) * MS;
        loop {
            let queued = self.queue.first_key_value().map(|((at, _), _)| *at);
            let due = self.deadline();
            let next = match (queued, due) {
                (Some(q), Some(d)) => q.min(d),
                (Some(t), None) | (None, Some(t)) => t,
                (None, None) => end,
            };
            if next >= end {
                break;
            }
            if next > self.now {
                self.now = next;
                self.at_once = 0;
            }
            if queued.is_some_and(|q| q <= self.now) {
                if let Some((_, (epoch, event))) = self.queue.pop_first() {
                    self.happen(epoch, event);
                }
            } else {
                self.step(Input::Tick);
            }
            if self.failure.is_some() || self.score.steps > STEPS_MAX || self.at_once > STEPS_AT_ONCE {
                break;
            }
        }
        if self.score.steps > STEPS_MAX || self.at_once > STEPS_AT_ONCE {
            let at = self.deadline();
            self.fail(format!("spins: {} steps at {} ns, next deadline {at:?}", self.at_once, self.now));
        }
        if self.failure.is_none() {
            self.now = end;
            self.verdict();
        }
        match self.failure.take() {
            Some(what) => Err(Failure { what, trace: self.trace.split_off(self.trace.len().saturating_sub(TRACE)) }),
            None => Ok(self.score),
        }
    }

    /// When the core wants to be stepped, in the simulator's time.
    pub fn deadline(&self) -> Option<u64> {
        let at = self.core.as_ref()?.next_deadline()?;
        Some(at.0.saturating_add(self.booted_at).max(self.now).max(self.frozen_until))
    }

    /// Whether something is due by the clock that the core is told, which is ahead of the simulator's.
    pub fn is_due(&self) -> bool {
        self.core.as_ref().and_then(Core::next_deadline).is_some_and(|at| at <= self.clock().mono)
    }

    pub fn clock(&self) -> Now {
        let ms = i64::try_from(self.now / MS).unwrap_or(0);
        Now { mono: Mono(self.now - self.booted_at + MS), wall: Wall(WALL_START + ms + self.wall_shift) }
    }

    pub fn fail(&mut self, what: String) {
        self.note(|| format!("FAILED {what}"));
        self.failure.get_or_insert(what);
    }

    pub fn require(&mut self, result: Result<(), String>) {
        if let Err(what) = result {
            self.fail(what);
        }
    }

    pub fn note(&mut self, text: impl FnOnce() -> String) {
        let line = format!("{:>10}.{:06} {}", self.now / MS, self.now % MS, text());
        if self.loud {
            let _ = writeln!(std::io::stderr(), "{line}");
        }
        if self.trace.len() >= 20 * TRACE {
            self.trace.drain(..19 * TRACE);
        }
        self.trace.push(line);
    }

    /// Schedules something; what belongs to a daemon (`Some(epoch)`) dies with it.
    pub fn at(&mut self, at: u64, epoch: Option<u64>, event: Event) {
        self.serial += 1;
        self.queue.insert((at.max(self.now), self.serial), (epoch, event));
    }

    /// The same, some time up to `ms` milliseconds from now.
    pub fn soon(&mut self, ms: u64, of_daemon: bool, event: Event) {
        let delay = self.rng.below(ms * MS + 1);
        let epoch = of_daemon.then_some(self.epoch);
        self.at(self.now + delay, epoch, event);
    }

    /// How long a result may take, in milliseconds.
    pub fn delay(&mut self) -> u64 {
        if self.rng.percent(20) { 5 + self.options.slow } else { 5 }
    }

    fn happen(&mut self, epoch: Option<u64>, event: Event) {
        if epoch.is_some() {
            if epoch != Some(self.epoch) || self.core.is_none() {
                return;
            }
            if self.now < self.frozen_until {
                return self.at(self.frozen_until, epoch, event);
            }
        }
        match event {
            // One that a freeze has held up beyond the end of the faults does not happen.
            Event::Op(_) if self.calm => {}
            Event::Op(i) => {
                let what = &self.plan.ops[i].what;
                if self.now < self.frozen_until && self.core.is_some() && what.needs_daemon() {
                    return self.at(self.frozen_until, None, Event::Op(i));
                }
                self.act(what);
            }
            Event::Calm => self.calm_down(),
            Event::Pause => {
                let all = JobAsk::Pause(Vec::new(), true);
                self.ask(0, Ask { job: Some(all), ..Ask::new(Verb::Job) });
            }
            Event::Boot => self.boot(),
            Event::Spawn(start) => self.spawn(&start),
            Event::Deliver(input) => self.step(input),
            Event::Scan(run) => self.scan(run),
            Event::Checked(run, what, begun) => self.checked(run, what, begun),
            Event::Newest(asked) => self.newest(asked),
            Event::Sync(upto) => self.synced(upto),
            Event::ProcReady(pid) => self.proc_ready(pid),
            Event::Ping(pid) => self.ping(pid),
            Event::ProcEnd(pid, end) => self.proc_end(pid, end),
            Event::Connect(service) => self.connect(service),
            Event::KeeperLimit(keeper) => self.keeper_limit(keeper),
        }
    }

    pub fn step(&mut self, input: Input) {
        self.tell_clock();
        self.round(input);
    }

    /// A daemon learns first of all that the clock was set, or that the machine slept.
    pub fn tell_clock(&mut self) {
        let (jump, slept) = (core::mem::take(&mut self.jump), core::mem::take(&mut self.slept));
        if jump != 0 {
            self.round(Input::WallSet { by: jump - slept });
        }
    }

    fn round(&mut self, input: Input) {
        let Some(mut core) = self.core.take() else { return };
        self.score.steps += 1;
        self.at_once += 1;
        self.note(|| format!("> {input:?}"));
        let now = self.clock();
        let ready = if let Input::Notify { run, .. } = &input { Some(*run) } else { None };
        let before = self.disk.position();
        if core.next_deadline().is_some_and(|at| now.mono.since(at) >= FROZEN) {
            let gap = now.mono.since(self.last_step);
            self.check.thaw(u64::try_from(gap.as_nanos()).unwrap_or(u64::MAX));
        }
        self.last_step = now.mono;
        self.check.input(self.now, &input);
        if let Some(ask) = self.clients.late(self.now).filter(|_| self.now >= self.frozen_until) {
            self.fail(format!("late reply: the time of {ask:?} is over, and it is not answered"));
        }
        let asked = self.clients.asked(&input);
        let told = Told::of(&input, &self.check.looks);
        let question = self.clients.question(&input);
        let of_jobs = matches!(question, Some((Request::ScheduleRun { .. } | Request::SchedulePause { .. }, ..)));
        let mut out = Out::default();
        let done = self.decide(&mut core, now, input, &mut out);
        self.require(done);
        let delayed = self.check.delayed(self.now, &out.effects);
        self.require(delayed);
        let torn = match &mut self.kill {
            // A round that is torn is on disk whole or not at all.
            Some((0, Death::BeforeWrite)) => Some(false),
            Some((0, Death::Torn)) => Some(self.rng.percent(50)),
            Some((left, Death::BeforeWrite | Death::Torn)) => {
                *left -= 1;
                None
            }
            Some((_, Death::Between)) | None => None,
        };
        let end = before + out.records.len();
        self.check.ends_at(end);
        let refused = asked.is_some_and(|a| out.effects.iter().any(|e| crate::shell::is_refusal(e, a.req)));
        self.core = Some(core);
        let kept = self.check.records(&out.records, self.now);
        self.require(kept);
        if let (Some(asked), false) = (asked, refused) {
            self.wished(asked, before, end);
        }
        self.note(|| format!("  {} records: {}", out.records.len(), crate::shell::keys(&out.records)));
        if torn != Some(false) {
            (self.check.tasks.end, self.check.jobs.end) = (end, end);
            self.touched = out.records.iter().map(|r| r.key.clone()).collect();
            self.disk.write(out.records);
            let judged = self.judge(&told, question.as_ref(), &out.effects, (before, end));
            self.require(judged);
        }
        if torn.is_some() {
            if let Some(run) = ready {
                self.os.datagrams.insert(run);
            }
            return self.die("in the middle of a write");
        }
        for effect in out.effects {
            if let Some((left, Death::Between)) = &mut self.kill {
                if *left == 0 {
                    self.note(|| format!("  not done: {effect:?}"));
                    if let Some(run) = ready.filter(|r| r.0 % 2 == 0) {
                        self.os.datagrams.insert(run);
                    }
                    return self.die("between two effects");
                }
                *left -= 1;
            }
            self.note(|| format!("  {effect:?}"));
            self.exec(effect);
            if self.core.is_none() || self.failure.is_some() {
                return;
            }
        }
        if self.rng.percent(10) {
            self.probe();
            self.probe_tasks();
        }
        if of_jobs || self.rng.percent(3) {
            self.probe_snapshot();
            self.probe_questions();
        }
    }

    /// The daemon answers every question without a step that it can. Here every second one takes a step as well, which
    /// must lead to the same.
    fn decide(&mut self, core: &mut Core, now: Now, input: Input, out: &mut Out) -> Result<(), String> {
        let looked = match &input {
            Input::Request { req, request, .. } => core.answer(now, request).map(|answer| (*req, answer)),
            _ => None,
        };
        match looked {
            Some((req, result)) if req.0.is_multiple_of(2) => {
                self.score.looked += 1;
                out.effects.push(Effect::Reply { req, result, durable: false });
                Ok(())
            }
            Some((req, answer)) => {
                core.step(now, input, out);
                same(req, &answer, out)
            }
            None => {
                core.step(now, input, out);
                Ok(())
            }
        }
    }

    fn act(&mut self, action: &Action) {
        self.note(|| format!("* {action:?}"));
        match action {
            Action::Ask { client, ask } => self.ask(*client, ask.clone()),
            Action::Disconnect { client } => self.disconnect(*client),
            Action::Reload { version, client, signal } => self.reload(*version, *client, *signal),
            Action::KillDaemon { effects, when } => self.kill = Some((*effects, *when)),
            Action::KillBoth => {
                self.die("with its keeper");
                self.new_keeper();
            }
            Action::KillKeeper => {
                if self.core.is_some() {
                    self.keeper_gone = true;
                    self.step(Input::KeeperGone);
                } else {
                    self.new_keeper();
                }
            }
            Action::PowerLoss { lost } => self.power_loss(*lost),
            Action::Damage { pick } => self.damage(*pick),
            Action::Off { lost, ms } => {
                self.disk.set_back |= *ms < 0;
                self.wall_shift += ms;
                self.power_loss(*lost);
            }
            Action::Shutdown { hurry } => {
                if self.core.is_some() {
                    self.step(Input::Stop { hurry: *hurry });
                } else {
                    self.stop_pending = true;
                }
            }
            Action::WallStep { ms } => {
                self.disk.set_back |= *ms < 0;
                self.move_clock(*ms, false);
            }
            Action::Sleep { ms } => self.move_clock(*ms, true),
            Action::Freeze { ms } => {
                self.frozen_until = self.now + ms * MS;
                // The quiet time before a freeze counts as a part of it, up to so much.
                self.clients.defer(ms * MS + MS + 30_000 * MS);
                self.check.disturb();
            }
            Action::Crash { service, code } => {
                let main = self.os.of_service(service).find(|p| p.main && !p.dying).map(|p| p.pid);
                if let Some(pid) = main {
                    self.proc_end(pid, End::Code(*code));
                }
            }
            Action::Lag { client } => self.lag(*client),
            Action::JournalBehind { on } => self.journal_behind(*on),
            Action::JournalFull { on } => {
                self.tell_clock();
                self.journal_full = *on;
                self.check.journal_full = *on;
                self.step(Input::JournalFull { full: *on });
            }
        }
    }

    pub fn config(&self) -> Config {
        self.file.map(|v| self.plan.configs[v].clone()).unwrap_or_default()
    }

    /// What a daemon that starts now would know.
    pub fn knowledge(&self) -> Boot {
        Boot {
            safe: None,
            gap: self.gap,
            host: HOST.to_owned(),
            uid: 0,
            runs_max: 0,
            deaths: 0,
            config: self.config(),
            config_taken: None,
            config_error: self.file.is_none().then(|| "hob.json:1:1: expected a value".to_owned()),
            entities: self.disk.entities(self.disk.written()),
            table: self.os.table_runs(),
            leftovers: self.os.leftovers(),
            events: self.disk.events.clone(),
            keeper_pid: 1,
            daemon_pid: 2,
            generation: self.generation,
            newest_output: 0,
            document: None,
            keeper_key: format!("{}-{}", self.boots, self.keeper),
            version: "0.0.0",
            main: None,
            keeper_started: Mono(0),
            signals: hob::config::Platform::linux().signals,
            stop: self.stop_pending,
            managed: false,
            outer: true,
            sockets: self.os.sockets.keys().cloned().collect(),
        }
    }
}
