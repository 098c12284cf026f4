//! The daemon's own life: coming up, heartbeats, the main service, shutting down. Pure.

use super::due::Due;
use super::record;
use super::run::{Ended, StopWhy};
use super::service::State;
use super::service::stop::Phase;
use super::task::TaskStop;
use super::{Core, Effect, Input, Out};
use crate::base::ids::RunId;
use crate::base::json::Obj;
use crate::base::time::Mono;
use crate::config::Level;
use crate::protocol::rpc::{Code, RpcError};
use core::time::Duration;
use std::collections::BTreeSet;

/// How long the keeper waits beyond the time limit of a shutdown.
const KEEPER_EXTRA: Duration = Duration::from_secs(5);
/// How long after the last kill those are waited for that do not even go then.
const LAST_WAIT: Duration = Duration::from_secs(2);

/// A shutdown under way.
#[derive(Debug)]
pub(super) struct Stopping {
    pub(super) code: u8,
    /// When everything left is killed, and after that when hob ends regardless.
    pub(super) deadline: Mono,
    /// The time that the services have, once they are told to stop.
    limit: Duration,
    /// Until then inhibitors are waited for, and no service is told yet.
    pub(super) held: Option<Mono>,
    killed: bool,
    given_up: bool,
    ended: bool,
}

#[derive(Debug, Default)]
pub(super) struct Life {
    pub(super) stopping: Option<Stopping>,
    /// `hob run -- CMD`: hob ends with this service.
    pub(super) main: Option<usize>,
    /// Signals for it that came while it was being started.
    pub(super) early: BTreeSet<i32>,
    /// What has to come up before hob is ready; `None` once it was said.
    pub(super) rising: Option<Vec<usize>>,
    /// A first heartbeat is due at the end of this step.
    pub(super) beat: bool,
    /// A service changed since waits were looked at.
    pub(super) changed: bool,
}

impl Core {
    /// The first heartbeat, which has to tell of the states that the boot led to.
    pub(super) fn first_beat(&mut self, out: &mut Out) {
        if core::mem::take(&mut self.life.beat) && !self.config.heartbeat.is_zero() {
            self.beat(out);
        }
    }

    pub(super) fn plan_beat(&mut self) {
        let every = self.config.heartbeat;
        self.deadlines.set(Due::Heartbeat, (!every.is_zero()).then(|| self.now.mono + every));
    }

    pub(super) fn beat(&mut self, out: &mut Out) {
        for i in self.runs.values().copied().collect::<Vec<_>>() {
            self.record_status(i, out);
        }
        out.effects.push(Effect::Heartbeat { state: self.state_text() });
        self.plan_beat();
    }

    /// Consequences of changed services: hob may be ready, or its main service may have ended.
    pub(super) fn life_goes_on(&mut self, out: &mut Out) {
        if let Some(rising) = &mut self.life.rising {
            let table = &self.table;
            rising.retain(|i| {
                let s = &table[*i];
                match s.state {
                    State::Waiting => !s.stuck && !s.gone && !s.listens(),
                    State::Starting | State::Stopping => !s.gone,
                    State::Stopped | State::Running | State::Backoff | State::Failed | State::Finished => false,
                }
            });
            if rising.is_empty() && self.life.stopping.is_none() {
                self.life.rising = None;
                out.effects.push(Effect::Ready);
                self.tell_status(out);
                self.emit_daemon("daemon.ready", "", out);
            }
        }
        if self.life.stopping.is_none() && self.main_is_over() {
            self.shutdown(0, None, false, out);
        }
    }

    /// The command that hob is run for has ended, and no other run of it follows.
    #[must_use]
    pub fn main_is_over(&self) -> bool {
        self.life.main.map(|i| &self.table[i]).is_some_and(|s| match s.state {
            State::Stopped | State::Failed | State::Finished => s.runs > 0,
            State::Waiting | State::Starting | State::Running | State::Stopping | State::Backoff => false,
        })
    }

    /// The code hob ends with: that of its main service where it has one.
    fn exit_code(&self, otherwise: u8) -> u8 {
        let last = self.life.main.and_then(|i| self.table[i].last());
        last.map_or(otherwise, |r| code_of(&r.end))
    }

    /// Begins to stop everything, in reverse order; a second time without waiting for inhibitors. With `hurry` it kills
    /// at once.
    pub(super) fn shutdown(&mut self, code: u8, grace: Option<Duration>, hurry: bool, out: &mut Out) {
        if self.life.stopping.is_none() {
            let limit = grace.unwrap_or(self.config.shutdown_timeout);
            let delay = if hurry { Duration::ZERO } else { self.shutdown_delay(out) };
            self.begin_shutdown(code, delay, limit, out);
        } else {
            self.stop_jobs(out);
        }
        if hurry {
            self.settle_services(out);
            self.kill_all(out);
        }
    }

    /// A daemon before this one had begun to.
    pub(super) fn resume_shutdown(&mut self, code: u8, deadline: u64, out: &mut Out) {
        self.begin_shutdown(code, Duration::ZERO, Mono(deadline).since(self.now.mono), out);
    }

    /// Nobody is left to keep hob up, so inhibitors are not asked.
    pub(super) fn shutdown_at_once(&mut self, out: &mut Out) {
        if self.life.stopping.is_none() {
            for i in self.table.by_name().filter(|i| self.table[*i].live.is_some()).collect::<Vec<_>>() {
                self.mark_stop(i, &StopWhy::KeeperGone);
            }
            self.stop_live_tasks(&TaskStop::KeeperGone, out);
            self.begin_shutdown(0, Duration::ZERO, self.config.shutdown_timeout, out);
        }
        self.stop_jobs(out);
    }

    fn begin_shutdown(&mut self, code: u8, delay: Duration, jobs: Duration, out: &mut Out) {
        let (now, limit) = (self.now.mono, delay + jobs);
        let deadline = now + limit;
        let held = Some(now + delay);
        let stopping = Stopping { code, deadline, limit: jobs, held, killed: false, given_up: false, ended: false };
        self.life.stopping = Some(stopping);
        self.life.rising = None;
        self.end_newest(out);
        self.record_ran(out);
        out.records.push(record::shutdown(&self.facts.keeper, code, deadline));
        let mut fields = Obj::new();
        let wall = self.now.wall.0.saturating_add(i64::try_from(limit.as_millis()).unwrap_or(i64::MAX));
        fields.str("deadline", &crate::base::time::Wall(wall).to_string());
        fields.u64("limit_ms", super::run::millis(limit));
        if !delay.is_zero() {
            fields.u64("delay_ms", super::run::millis(delay));
        }
        self.emit_daemon("daemon.stopping", fields.members(), out);
        out.effects.push(Effect::Stopping { limit: limit + KEEPER_EXTRA });
        if delay.is_zero() {
            self.stop_jobs(out);
        } else {
            self.deadlines.set(Due::Shutdown, held);
            self.tell_status(out);
        }
    }

    /// Nobody is waited for any more: the services are told to stop.
    pub(super) fn stop_jobs(&mut self, out: &mut Out) {
        let now = self.now.mono;
        let Some(stopping) = &mut self.life.stopping else { return };
        if stopping.held.take().is_none() {
            return;
        }
        let (code, deadline) = (stopping.code, now + stopping.limit);
        self.deadlines.set(Due::Shutdown, Some(deadline));
        if stopping.deadline != deadline {
            stopping.deadline = deadline;
            let limit = stopping.limit + KEEPER_EXTRA;
            out.records.push(record::shutdown(&self.facts.keeper, code, deadline));
            out.effects.push(Effect::Stopping { limit });
        }
        for i in self.table.by_name().collect::<Vec<_>>() {
            self.table.look(i);
            self.table.touch(i);
            if self.table[i].live.is_some() {
                self.mark_stop(i, &StopWhy::Shutdown);
            }
        }
        self.stop_tasks(out);
        self.life.changed = true;
        self.tell_status(out);
    }

    /// A shutdown may take longer by the time in which nobody could do anything. The next daemon is to know it too.
    pub(super) fn thaw_shutdown(&mut self, gap: Duration, now: Mono, out: &mut Out) {
        let Some(stopping) = self.life.stopping.as_mut().filter(|s| !s.ended) else { return };
        stopping.deadline = stopping.deadline + gap;
        stopping.held = stopping.held.map(|at| at + gap);
        let at = if stopping.killed { now + LAST_WAIT } else { stopping.held.unwrap_or(stopping.deadline) };
        self.deadlines.set(Due::Shutdown, Some(at));
        out.records.push(record::shutdown(&self.facts.keeper, stopping.code, stopping.deadline));
    }

    pub(super) fn shutdown_due(&mut self, out: &mut Out) {
        let Some(stopping) = &mut self.life.stopping else { return };
        if stopping.held.is_some() {
            self.stop_jobs(out);
        } else if stopping.killed {
            stopping.given_up = true;
        } else {
            self.settle_services(out);
            self.kill_all(out);
        }
    }

    fn kill_all(&mut self, out: &mut Out) {
        let now = self.now.mono;
        for (run, i) in self.runs.clone() {
            let s = &mut self.table[i];
            let terms = s.terms();
            let Some(live) = s.live.as_mut().filter(|l| l.sequence.phase != Phase::Killed) else { continue };
            if live.pid.is_some() || live.end.is_some() {
                live.sequence.kill(run, terms, now, out);
            } else {
                live.sequence.phase = Phase::Killed;
            }
            self.table.touch(i);
        }
        self.kill_tasks(out);
        for run in self.orphans.keys().copied().collect::<Vec<RunId>>() {
            self.orphan_kill(run, out);
        }
        if let Some(stopping) = &mut self.life.stopping {
            stopping.killed = true;
            self.deadlines.set(Due::Shutdown, Some(now + LAST_WAIT));
        }
    }

    /// Ends hob once nothing runs any more, or those left were waited for long enough.
    pub(super) fn end_shutdown(&mut self, out: &mut Out) {
        let Some(stopping) = &self.life.stopping else { return };
        let done = self.runs.is_empty() && self.orphans.is_empty() && !self.tasks.any_live();
        if stopping.ended || stopping.held.is_some() || !(done || stopping.given_up) {
            return;
        }
        let code = self.exit_code(stopping.code);
        if let Some(stopping) = &mut self.life.stopping {
            stopping.ended = true;
        }
        self.deadlines.set(Due::Shutdown, None);
        self.deadlines.set(Due::Heartbeat, None);
        for i in self.runs.values() {
            let s = &self.table[*i];
            let unborn = |l: &super::service::Live| l.pid.is_none() && l.end.is_none();
            let who = match s.live.as_ref() {
                Some(live) if unborn(live) => "its program is still being executed".to_owned(),
                live => live.map(|l| l.sequence.names()).unwrap_or_default(),
            };
            let text = format!("{} does not end, not even when killed: {who}", s.name);
            out.effects.push(Effect::Log { level: Level::Error, text });
        }
        self.fail_open_requests(out);
        out.effects.push(Effect::Exit { code });
    }

    pub(super) fn has_ended(&self) -> bool {
        self.life.stopping.as_ref().is_some_and(|s| s.ended)
    }

    /// After `Effect::Exit` nothing happens any more, but every request has its reply.
    pub(super) fn refuse(&mut self, input: &Input, out: &mut Out) {
        if let Input::Request { req, .. } = input {
            self.reply(*req, Err(Core::shutting_down()), false, out);
        }
    }

    pub(super) fn shutting_down() -> RpcError {
        RpcError::new(Code::ShuttingDown, "hob is shutting down").hint("start it again with `hob start`")
    }

    /// A signal that came to hob as PID 1 goes to the main service.
    pub(super) fn forward(&mut self, signal: i32, out: &mut Out) {
        let live = self.life.main.and_then(|i| self.table[i].live.as_ref());
        match live.filter(|l| l.end.is_none()) {
            Some(live) if live.pid.is_none() => {
                self.life.early.insert(signal);
            }
            Some(live) => out.effects.push(Effect::Signal { run: live.run, signal, tree: false }),
            None => {
                let text = format!("signal {signal} has nobody to go to");
                out.effects.push(Effect::Log { level: Level::Debug, text });
            }
        }
    }

    /// The main service has begun, and hears what came before anybody knew that.
    pub(super) fn forward_early(&mut self, i: usize, out: &mut Out) {
        if self.life.main == Some(i) {
            core::mem::take(&mut self.life.early).into_iter().for_each(|signal| self.forward(signal, out));
        }
    }

    pub(super) fn journal_behind(&mut self, why: Option<String>, out: &mut Out) {
        if self.journal_behind.is_some() != why.is_some() {
            let (kind, text) = match &why {
                Some(why) => ("daemon.journal_behind", format!("the journal cannot be written: {why}")),
                None => ("daemon.journal_caught_up", "the journal is written again".to_owned()),
            };
            let mut fields = Obj::new();
            fields.opt_str("why", why.as_deref());
            self.emit_daemon(kind, fields.members(), out);
            out.effects.push(Effect::Log { level: Level::Warn, text });
        }
        self.journal_behind = why;
    }
}

/// As shells tell of an end.
pub(super) fn code_of(end: &Ended) -> u8 {
    match end {
        Ended::Code(c) => u8::try_from(c & 0xff).unwrap_or(1),
        Ended::Signal(s) => u8::try_from(s & 0x7f).unwrap_or(0) | 0x80,
        Ended::NotStarted(why) if is_missing(why) => 127,
        Ended::NotStarted(_) => 126,
        Ended::Delayed(_) | Ended::Unknown => 1,
    }
}

/// Whether a program could not be started because there is none. Only the words of it are on record.
fn is_missing(why: &str) -> bool {
    ["not found in PATH", "No such file or directory"].iter().any(|words| why.contains(words))
}
