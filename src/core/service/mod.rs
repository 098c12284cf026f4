//! Services: what a service is, its states, and who may move it from one to another. Pure.
//!
//! # The model
//! A service has a wish and a state. The **wish** is up or down. It is what a person said last (`Choice::Up`,
//! `Choice::Down`, kept over daemon deaths and boots); if nobody said anything, it is up when the config says
//! `autostart` or when something that is up pulled it in. A person's stop beats everything but a later start of that
//! very service by a person. The **state** is what is:
//!
//! | state    | a run exists | it leaves this state when                                                              |
//! |----------|--------------|----------------------------------------------------------------------------------------|
//! | stopped  | no           | the wish goes up                                                                       |
//! | waiting  | no           | what it needs is there (starting), or the wish goes down (stopped)                     |
//! | starting | yes          | it is ready (running), ends or must stop (stopping), could not be started              |
//! | running  | yes          | it ends or must stop (stopping)                                                        |
//! | stopping | yes          | the main process and its whole tree are verified gone                                  |
//! | backoff  | no           | the delay is over (waiting), a person starts it (waiting), or the wish goes down       |
//! | failed   | no           | a person starts it (waiting) or stops it (stopped)                                     |
//! | finished | no           | a person starts it (waiting) or stops it (stopped)                                     |
//!
//! Every end of a run leads through `stopping`, also that of a crash: what the main process left behind is cleared away
//! before the next run or the end state. Only a start that failed skips it, because nothing ran. A service has at most
//! one run at a time, and a run's facts (started, ready, ended, tree) only ever move the run they name: late ones of an
//! earlier run are traced and ignored.
//!
//! # After a run
//! If hob ended it: waiting when the wish is up (a restart, a new config, a need that went down), else stopped. If it
//! ended by itself the policy decides (`backoff`): waiting at once, backoff, failed or finished. The wish stays up in
//! failed and finished; only the state says that nothing more will happen by itself.
//!
//! # Needs
//! `requires`: it starts when the need has reached its condition, and is stopped before the need when a person, a
//! reload or a restart stops the need. A crash of the need leaves it alone. `wants`: pulled up too, and waited for
//! while it is on its way, but its failure holds nobody up. `after`: only the order. Whoever waits for something that
//! is not on its way is `stuck`, says for whom, and goes on as soon as the need recovers.
//!
//! # On demand
//! A service `on_demand` that is wanted, and that nobody has asked to be started now, is `waiting` for a connection:
//! its sockets are open and watched, and for those that need it `started` or `ready` that is as good as running. The
//! first connection makes it wait for its own needs alone, which are pulled up only then. After a run that ended with
//! 0 it waits for the next connection instead of being finished; all other ends are left to the policy. A stop by a
//! person closes the sockets, a start by a person waits for no connection. When sockets are open is said in `sockets`.
//!
//! # Two phases
//! Inputs and requests only set marks: the wish, `Live::stop`, a state of rest that becomes `waiting`. Marks spread
//! over the graph by worklists, never by recursion. Then `settle` looks at each service that something has happened to,
//! until nothing changes any more, and only there runs are started and stopped. Deadlines are derived from the state
//! (`Service::deadline`) after each step, so nothing has to be disarmed.
#![deny(clippy::wildcard_enum_match_arm)]

pub mod backoff;
pub mod boot;
pub mod graph;
pub mod health;
pub mod hearing;
pub mod live;
pub mod orphan;
pub mod reload;
pub mod reloading;
pub mod settle;
pub mod sockets;
pub mod stop;
pub mod table;
pub mod transient;
pub mod wish;
pub mod words;

use crate::base::ids::RunId;
use crate::base::time::{Mono, Now, Wall};
use crate::config::{Condition, Ready, ServiceSpec};
use crate::core::run::{Asides, Cause, Ended, RunRecord, Said, Signalled, StopWhy};
use crate::core::{End, Owner, Usage};
use backoff::Counters;
use core::fmt;
use graph::Edge;
use health::Pulse;
use serde::{Deserialize, Serialize};
use sockets::Listening;
use std::sync::Arc;
use stop::{Phase, Sequence, Terms};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Stopped,
    Waiting,
    Starting,
    Running,
    Stopping,
    Backoff,
    Failed,
    Finished,
}

impl State {
    pub const ALL: [State; 8] = [
        State::Stopped,
        State::Waiting,
        State::Starting,
        State::Running,
        State::Stopping,
        State::Backoff,
        State::Failed,
        State::Finished,
    ];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            State::Stopped => "stopped",
            State::Waiting => "waiting",
            State::Starting => "starting",
            State::Running => "running",
            State::Stopping => "stopping",
            State::Backoff => "backoff",
            State::Failed => "failed",
            State::Finished => "finished",
        }
    }

    /// The event that tells of entering this state.
    #[must_use]
    pub const fn event(self) -> &'static str {
        match self {
            State::Stopped => "service.stopped",
            State::Waiting => "service.waiting",
            State::Starting => "service.starting",
            State::Running => "service.ready",
            State::Stopping => "service.stopping",
            State::Backoff => "service.backoff",
            State::Failed => "service.failed",
            State::Finished => "service.finished",
        }
    }

    /// Whether a run exists in it.
    #[must_use]
    pub const fn live(self) -> bool {
        match self {
            State::Starting | State::Running | State::Stopping => true,
            State::Stopped | State::Waiting | State::Backoff | State::Failed | State::Finished => false,
        }
    }

    /// Whether one step of the machine may lead from this state to `next`.
    #[must_use]
    pub const fn leads_to(self, next: State) -> bool {
        match self {
            State::Stopped => matches!(next, State::Waiting),
            State::Waiting => matches!(next, State::Starting | State::Stopped),
            State::Starting => matches!(
                next,
                State::Running
                    | State::Stopping
                    | State::Waiting
                    | State::Stopped
                    | State::Backoff
                    | State::Failed
                    | State::Finished
            ),
            State::Running => matches!(next, State::Stopping),
            State::Stopping => {
                matches!(next, State::Waiting | State::Stopped | State::Backoff | State::Failed | State::Finished)
            }
            State::Backoff | State::Failed | State::Finished => matches!(next, State::Waiting | State::Stopped),
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a person said last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Choice {
    /// Nothing, or `reset`: autostart and the needs of others decide.
    #[default]
    Auto,
    Up,
    Down,
}

/// What a service has said of itself by sd_notify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    Reloading,
    Stopping,
}

impl Doing {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Doing::Reloading => "reloading",
            Doing::Stopping => "stopping",
        }
    }
}

/// The one run of a service that exists now.
#[derive(Clone, Debug)]
pub struct Live {
    pub run: RunId,
    pub number: u32,
    pub cause: Cause,
    /// The part of the spec that a run is bound to, so that a reload knows whether it changed.
    pub mold: u64,
    /// `None` until the start was answered.
    pub pid: Option<u32>,
    pub begun: Now,
    pub ready: Option<Now>,
    /// It is ready by being executed.
    pub spawned: bool,
    /// READY=1 overtook the answer to the start.
    pub early: bool,
    /// The shell has something of it: a slot, processes.
    pub known: bool,
    /// The shell was asked to watch for readiness.
    pub awaiting: bool,
    /// While it is ready and has a health check, and after that.
    pub pulse: Option<Box<Pulse>>,
    /// When it said last that it lives, if it has a watchdog and is ready.
    pub pinged: Option<Mono>,
    /// What it asked its start to last until, at the most.
    pub extended: Option<Mono>,
    /// What it says it is doing, beside its work.
    pub doing: Option<Doing>,
    /// Its reload command runs.
    pub reloading: bool,
    pub status_text: Option<Box<str>>,
    /// It said so since the last heartbeat, with which that goes on record: it may say much.
    pub status_said: bool,
    /// Mark: hob wants it stopped, and why.
    pub stop: Option<StopWhy>,
    /// A daemon before this one has sent the event of that.
    pub stop_told: bool,
    /// A person asked for a start while it was stopping.
    pub again: bool,
    /// The main process is gone.
    pub end: Option<(Ended, Now)>,
    pub usage: Usage,
    /// It has ended before it was ready, as far as is known: until when its last words are waited for.
    pub hearing: Option<Mono>,
    pub sequence: Sequence,
    pub output: Option<(u64, Vec<String>)>,
    pub background: bool,
    /// What its start has waited for long.
    pub waits: Option<Box<str>>,
    pub asides: Option<Box<Asides>>,
}

/// One service.
#[derive(Clone, Debug)]
pub struct Service {
    pub name: Arc<str>,
    pub spec: Arc<ServiceSpec>,
    pub choice: Choice,
    /// Who wants it down, where a person does.
    pub down: Option<Box<Said>>,
    /// Who started it last, unless hob itself did.
    pub owner: Option<Owner>,
    /// Something that is or was up needs it.
    pub pulled: bool,
    /// It ran when a managed hob ended, and nobody has said anything about it since.
    pub restored: bool,
    /// What the service manager's line was last made from: state, whether it flaps, whether it is wanted.
    pub shown: Option<(State, bool, bool)>,
    /// Not in the config any more, or transient and not wanted any more: it goes as soon as it is down.
    pub removed: bool,
    /// It came by a request and not from hob.json.
    pub transient: bool,
    /// The config could not be read, so that its spec is unknown: what runs is kept, nothing is started.
    pub blind: bool,
    /// Its place in the table is free.
    pub gone: bool,
    pub state: State,
    pub since: Now,
    /// Cause of the next start.
    pub cause: Cause,
    /// In `waiting`: a service that it requires is not on its way.
    pub stuck: bool,
    /// In `waiting`: an event said for whom.
    pub waiting_told: bool,
    /// In `backoff`: when it is over.
    pub until: Mono,
    pub counters: Counters,
    pub live: Option<Box<Live>>,
    /// Runs ever started, and how many of them failed.
    pub runs: u32,
    pub fails: u32,
    pub last_error: Option<Box<str>>,
    pub history: Vec<RunRecord>,
    /// What it needs or follows, and who needs or follows it.
    pub needs: Box<[Edge]>,
    pub dependants: Box<[u32]>,
    /// Marks of this step: look at it again, write it to the journal, work out its deadline.
    pub dirty: bool,
    pub touched: bool,
    pub save: bool,
    /// The shell knows its log settings.
    pub log_told: bool,
    pub listening: Listening,
}

impl Service {
    #[must_use]
    pub fn new(name: Arc<str>, spec: Arc<ServiceSpec>) -> Service {
        Service {
            name,
            spec,
            choice: Choice::Auto,
            down: None,
            owner: None,
            pulled: false,
            restored: false,
            shown: None,
            removed: false,
            transient: false,
            blind: false,
            gone: false,
            state: State::Stopped,
            since: Now::default(),
            cause: Cause::Autostart,
            stuck: false,
            waiting_told: false,
            until: Mono(0),
            counters: Counters::default(),
            live: None,
            runs: 0,
            fails: 0,
            last_error: None,
            history: Vec::new(),
            needs: Box::default(),
            dependants: Box::default(),
            dirty: false,
            touched: false,
            save: false,
            log_told: false,
            listening: Listening::default(),
        }
    }

    /// The wish.
    #[must_use]
    pub fn wanted(&self) -> bool {
        !self.removed
            && match self.choice {
                Choice::Up => true,
                Choice::Down => false,
                // Without its config, what was up is taken to be wanted.
                Choice::Auto if self.blind => self.pulled || self.state != State::Stopped,
                Choice::Auto => self.spec.autostart || self.pulled || self.restored,
            }
    }

    /// After an end that nobody saw the main process may be among those left, so nobody is spared then.
    #[must_use]
    pub fn terms(&self) -> Terms {
        let unseen = self.live.as_ref().is_some_and(|l| matches!(l.end, Some((Ended::Unknown, _))));
        Terms {
            signal: self.spec.stop_signal.number,
            grace: self.spec.stop_timeout,
            leave_children: self.spec.leave_children && !unseen,
        }
    }

    #[must_use]
    pub fn stop_mark(&self) -> Option<&StopWhy> {
        self.live.as_ref().and_then(|l| l.stop.as_ref())
    }

    /// Whether somebody that needs it in this condition may start.
    #[must_use]
    pub fn reached(&self, condition: Condition) -> bool {
        match self.state {
            State::Running => {
                let healthy = || self.live.as_ref().and_then(|l| l.pulse.as_ref()).is_none_or(|p| p.ok);
                let reached = match condition {
                    Condition::Started | Condition::Ready => true,
                    Condition::Healthy => healthy(),
                    Condition::Finished | Condition::Succeeded => false,
                };
                reached && self.stop_mark().is_none()
            }
            State::Starting => {
                condition == Condition::Started
                    && self.stop_mark().is_none()
                    && self.live.as_ref().is_some_and(|l| l.pid.is_some())
            }
            State::Finished => condition != Condition::Healthy,
            State::Failed => condition == Condition::Finished && self.has_ended(),
            State::Waiting => condition <= Condition::Ready && self.listens(),
            State::Stopped | State::Stopping | State::Backoff => false,
        }
    }

    /// Whether its last run came to be and ended by itself.
    fn has_ended(&self) -> bool {
        self.last().is_some_and(|r| matches!(r.end, Ended::Code(_) | Ended::Signal(_)))
    }

    /// Whether it may reach a condition, which it has not, without anything else happening first.
    #[must_use]
    pub fn on_its_way(&self, condition: Condition) -> bool {
        match self.state {
            State::Starting => true,
            State::Running => condition > Condition::Ready && self.stop_mark().is_none(),
            State::Waiting => !self.stuck,
            State::Stopping => self.wanted(),
            State::Stopped | State::Backoff | State::Failed | State::Finished => false,
        }
    }

    /// When the machine has to look at it without any other input: the one place where a deadline comes from.
    #[must_use]
    pub fn deadline(&self) -> Option<Mono> {
        let live = self.live.as_ref();
        match self.state {
            State::Stopped | State::Failed | State::Finished => None,
            State::Waiting => self.listening.retry.filter(|_| self.awaits_connection()),
            State::Backoff => Some(self.until),
            State::Starting => live.and_then(|l| self.ready_limit(l)),
            State::Running => {
                let check = live.and_then(|l| l.pulse.as_ref()).and_then(|p| p.due());
                [self.reset_at(), check, self.watchdog_at()].into_iter().flatten().min()
            }
            // Until the start is answered there is nobody to signal or to look for.
            State::Stopping => live.filter(|l| l.pid.is_some() || l.end.is_some()).and_then(|l| l.sequence.deadline()),
        }
    }

    /// When it has to have said that it lives.
    #[must_use]
    pub fn watchdog_at(&self) -> Option<Mono> {
        Some(self.live.as_ref()?.pinged? + self.spec.watchdog?)
    }

    /// When it has been in good health for long enough to have a clean slate, if there is anything on it.
    #[must_use]
    pub fn reset_at(&self) -> Option<Mono> {
        let live = self.live.as_ref()?;
        let well = match &live.pulse {
            Some(pulse) => pulse.well_since()?,
            None => live.ready?.mono,
        };
        (self.counters.any() || self.last_error.is_some()).then(|| well + self.spec.reset_after)
    }

    /// A program that is ready by being executed has no limit, and zero is none.
    fn ready_limit(&self, live: &Live) -> Option<Mono> {
        let limited = match self.spec.ready {
            Ready::Spawned => false,
            Ready::Notify | Ready::Port(_) | Ready::Log(_) | Ready::Fd(_) | Ready::Socket(_) | Ready::Command(_) => {
                !self.spec.ready_timeout.is_zero()
            }
        };
        let at = live.begun.mono + self.spec.ready_timeout;
        (limited && live.pid.is_some()).then(|| live.extended.map_or(at, |more| more.max(at)))
    }

    #[must_use]
    pub fn last(&self) -> Option<&RunRecord> {
        self.history.last()
    }

    /// Whether its last start came to no run.
    #[must_use]
    pub fn was_not_started(&self) -> bool {
        self.last().is_some_and(|r| matches!(r.end, Ended::NotStarted(_) | Ended::Delayed(_)))
    }

    /// Who said last that it is to be up or down, where somebody did: `root`, `uid 1000`, `service/web`.
    #[must_use]
    pub fn wished_by(&self) -> Option<String> {
        let known = match self.choice {
            Choice::Auto => return None,
            Choice::Up => self.owner.as_ref().map(Owner::text),
            Choice::Down => self.down.as_ref().map(|said| said.by.owner().text()),
        };
        Some(known.unwrap_or_else(|| "a person".to_owned()))
    }
}

impl Live {
    #[must_use]
    pub fn new(run: RunId, number: u32, cause: Cause, mold: u64, begun: Now) -> Live {
        Live {
            run,
            number,
            cause,
            mold,
            pid: None,
            begun,
            ready: None,
            spawned: false,
            early: false,
            known: true,
            awaiting: false,
            pulse: None,
            pinged: None,
            extended: None,
            doing: None,
            reloading: false,
            status_text: None,
            status_said: false,
            stop: None,
            stop_told: false,
            again: false,
            end: None,
            usage: Usage::default(),
            hearing: None,
            sequence: Sequence::default(),
            output: None,
            background: false,
            waits: None,
            asides: None,
        }
    }

    #[must_use]
    pub fn signalled(&self) -> Option<&Signalled> {
        self.asides.as_ref()?.signalled.as_deref()
    }

    /// Turns the finished run into its record.
    #[must_use]
    pub fn record(&self, end: Ended, ended: Wall) -> RunRecord {
        let mut record = RunRecord {
            run: self.run,
            number: self.number,
            cause: self.cause.clone(),
            started: self.begun.wall,
            ready: self.ready.map(|n| n.wall),
            ended,
            failed: self.failed(&end),
            end,
            asked: self.stop.clone(),
            cpu_ms: 0,
            memory: 0,
            output: None,
            lines: Box::default(),
            background: self.background,
            overdue: self.sequence.overdue,
            signalled: self.signalled().cloned().map(Box::new),
            awaited: None,
            stop_error: self.asides.as_ref().and_then(|a| a.stop_error.clone()),
        };
        record.usage(self.usage);
        if let Some((bytes, lines)) = &self.output {
            record.output(*bytes, lines);
        }
        record
    }

    /// A run fails by a nonzero code, a signal that was not hob's stop, a program that cannot be executed, or by not
    /// being ready in time, healthy or heard of. An end that nobody saw is no proof of a failure.
    fn failed(&self, end: &Ended) -> bool {
        if let Some(why) = &self.stop {
            return why.is_fault();
        }
        match end {
            Ended::Code(c) => *c != 0,
            Ended::Signal(_) | Ended::NotStarted(_) => true,
            Ended::Unknown | Ended::Delayed(_) => false,
        }
    }

    /// Whether the stop sequence has done more than wait for others.
    #[must_use]
    pub fn stop_begun(&self) -> bool {
        match self.sequence.phase {
            Phase::Idle | Phase::Held => false,
            Phase::Unborn | Phase::Commanded | Phase::Asked | Phase::Looking | Phase::Leftovers | Phase::Killed => true,
        }
    }

    pub fn ended(&mut self, end: End, usage: Usage, now: Now) {
        self.end = Some((Ended::from(end), now));
        self.usage = usage;
    }
}
