//! The life of one run: started, ready, ended, its tree cleared, and what follows. Pure.

use super::State;
use super::backoff::{FLAPPING, Outcome, Verdict};
use super::stop::Phase;
use crate::base::ids::RunId;
use crate::base::json::Obj;
use crate::base::limits::HISTORY_PER_NAME;
use crate::base::text::count;
use crate::base::time::Now;
use crate::base::units::human_duration;
use crate::config::Level;
use crate::config::Ready;
use crate::core::record;
use crate::core::run::why::awaited;
use crate::core::run::{Cause, Ended, RunRecord, StopWhy, clip, clip_reason, millis, signal_name};
use crate::core::{Await, Core, Effect, End, Out, Start, StartError, Survivor, Usage};
use core::time::Duration;
use std::sync::Arc;

/// A main process that ends well within this time and leaves children has put itself into the background.
const BACKGROUND: Duration = Duration::from_secs(5);

impl Core {
    /// Orders a start. The intent is in the same step's records.
    pub(super) fn begin(&mut self, i: usize, out: &mut Out) {
        let run = self.new_run();
        let now = self.now;
        let s = &mut self.table[i];
        s.runs = s.runs.saturating_add(1);
        let cause = core::mem::take(&mut s.cause);
        let flapping = matches!(cause, Cause::Restart { n: FLAPPING });
        let mut live = super::Live::new(run, s.runs, cause, super::reload::mold(&s.spec), now);
        live.spawned = s.spec.ready == Ready::Spawned && !s.spec.oneshot;
        out.records.push(record::run(s, &live, &self.facts.keeper));
        let mut fields = Obj::new();
        fields.u64("run", run.0).u64("number", s.runs.into()).str("cause", &live.cause.text());
        s.live = Some(Box::new(live));
        self.runs.insert(run, i);
        self.tell_log(i, out);
        let s = &self.table[i];
        out.effects.push(Effect::Start(Box::new(Start {
            run,
            service: Arc::clone(&s.name),
            spec: Arc::clone(&s.spec),
            notify: s.spec.ready == Ready::Notify || s.spec.watchdog.is_some(),
            stdin: None,
        })));
        if let Some(what @ (Await::Log(_) | Await::Fd)) = Await::of(&s.spec) {
            // Its words may come before the answer to the start.
            out.effects.push(Effect::Await { run, what, from_start: false });
            self.set_awaiting(i);
        }
        self.enter(i, State::Starting, fields.members(), out);
        if flapping {
            let mut fields = Obj::new();
            fields.u64("restarts", FLAPPING.into());
            self.emit("service.flapping", i, fields.members(), out);
        }
    }

    fn set_awaiting(&mut self, i: usize) {
        if let Some(live) = self.table[i].live.as_mut() {
            live.awaiting = true;
        }
    }

    /// The shell learns log settings before the first run.
    pub(in crate::core) fn tell_log(&mut self, i: usize, out: &mut Out) {
        let s = &mut self.table[i];
        if !core::mem::replace(&mut s.log_told, true) {
            out.effects.push(Effect::LogSpec { service: Arc::clone(&s.name), spec: Arc::clone(&s.spec) });
        }
    }

    pub(in crate::core) fn started(&mut self, run: RunId, result: Result<u32, StartError>, out: &mut Out) {
        let Some(i) = self.runs.get(&run).copied() else { return self.late("started", run, out) };
        let now = self.now;
        let Some(live) = self.table[i].live.as_mut().filter(|l| l.pid.is_none() && l.end.is_none()) else {
            return self.late("a second start", run, out);
        };
        match result {
            Ok(pid) => {
                live.pid = Some(pid);
                let mut fields = Obj::new();
                fields.u64("run", run.0).u64("pid", pid.into());
                self.table.touch(i);
                self.table.look_around(i);
                self.emit("service.started", i, fields.members(), out);
                self.after_birth(i, run, out);
                self.forward_early(i, out);
            }
            Err(e) => {
                let why = clip_reason(&e.message);
                let end = if e.transient { Ended::Delayed(why) } else { Ended::NotStarted(why) };
                let mut fields = Obj::new();
                fields.u64("run", run.0).str("error", &e.message).bool("transient", e.transient);
                if !e.transient || live.sequence.phase != Phase::Unborn {
                    // Nothing came to be that could be stopped: the failure is its own.
                    live.stop = None;
                }
                self.await_end(i, out);
                self.emit("service.start_failed", i, fields.members(), out);
                self.over(i, end, now, out);
            }
        }
    }

    /// Its program, folder or another file of its start does not answer.
    pub(in crate::core) fn start_waits(&mut self, run: RunId, what: Box<str>, out: &mut Out) {
        let name = match (self.tasks.of_run(run), self.runs.get(&run)) {
            (Some(task), _) => crate::core::task::name_of(task),
            (None, Some(i)) => Arc::clone(&self.table[*i].name),
            (None, None) => return self.late("what a start waits for", run, out),
        };
        out.effects.push(Effect::Log { level: Level::Warn, text: format!("{name}: {what}") });
        let i = self.runs.get(&run).copied();
        if let Some(live) = i.and_then(|i| self.table[i].live.as_mut()).filter(|l| l.pid.is_none()) {
            live.waits = Some(what);
        }
    }

    /// A child exists: it gets the stop that was waiting for it, or readiness is watched for.
    fn after_birth(&mut self, i: usize, run: RunId, out: &mut Out) {
        let now = self.now;
        let s = &mut self.table[i];
        let terms = s.terms();
        let Some(live) = s.live.as_mut() else { return };
        match live.sequence.phase {
            Phase::Unborn => {
                self.ask_to_end(i, out);
                return;
            }
            Phase::Killed => live.sequence.kill(run, terms, now.mono, out),
            Phase::Idle | Phase::Held | Phase::Commanded | Phase::Asked | Phase::Looking | Phase::Leftovers => {}
        }
        if s.state != State::Starting {
            return;
        }
        let early = live.early || live.spawned;
        match Await::of(&s.spec) {
            _ if early => self.become_ready(i, out),
            Some(Await::Log(_) | Await::Fd) | None => {}
            Some(what @ (Await::Port(_) | Await::Socket(_) | Await::Command(_))) => {
                out.effects.push(Effect::Await { run, what, from_start: false });
                self.set_awaiting(i);
            }
        }
    }

    pub(in crate::core) fn ready_seen(&mut self, run: RunId, out: &mut Out) {
        let Some(i) = self.runs.get(&run).copied() else { return self.late("readiness", run, out) };
        self.ready_word(i, out);
    }

    /// Readiness was seen or said; it may overtake the answer to the start.
    pub(super) fn ready_word(&mut self, i: usize, out: &mut Out) {
        let s = &mut self.table[i];
        match s.state {
            State::Starting => match s.live.as_mut() {
                Some(live) if live.pid.is_none() => live.early = true,
                Some(_) | None => self.become_ready(i, out),
            },
            State::Running | State::Stopped | State::Waiting | State::Backoff | State::Failed | State::Finished => {}
            State::Stopping => self.ready_after_all(i, out),
        }
    }

    fn become_ready(&mut self, i: usize, out: &mut Out) {
        let now = self.now;
        let s = &mut self.table[i];
        // Why an earlier start came to nothing is of no interest any more; nor is why an earlier run failed, where
        // being ready means something or a person has begun anew.
        let over = s.was_not_started();
        let Some(live) = s.live.as_mut() else { return };
        let over = over || !live.spawned || matches!(live.cause, Cause::Client(_));
        let mended = over && s.last_error.take().is_some();
        live.ready = Some(now);
        let mut fields = Obj::new();
        fields.u64("run", live.run.0).opt_u64("pid", live.pid.map(u64::from));
        fields.u64("after_ms", millis(now.mono.since(live.begun.mono)));
        if mended {
            self.table.save(i);
        }
        self.await_end(i, out);
        self.enter(i, State::Running, fields.members(), out);
        self.health_begin(i, false, out);
        self.watchdog_begin(i);
        // Who is ready by being executed is known to be so from the table alone.
        if self.table[i].live.as_ref().is_some_and(|l| !l.spawned) {
            self.save_run(i, out);
        }
    }

    pub(super) fn await_end(&mut self, i: usize, out: &mut Out) {
        if let Some(live) = self.table[i].live.as_mut()
            && core::mem::replace(&mut live.awaiting, false)
        {
            out.effects.push(Effect::AwaitEnd { run: live.run });
        }
    }

    pub(in crate::core) fn save_run(&self, i: usize, out: &mut Out) {
        let s = &self.table[i];
        if let Some(live) = &s.live {
            out.records.push(record::run(s, live, &self.facts.keeper));
        }
    }

    /// `told`: when a daemon before this one has sent the event.
    pub(in crate::core) fn main_ended(&mut self, run: RunId, end: End, usage: Usage, told: Option<Now>, out: &mut Out) {
        let Some(i) = self.runs.get(&run).copied() else { return self.orphan_exited(run, out) };
        let now = self.now;
        let s = &mut self.table[i];
        let leave = s.spec.leave_children;
        let Some(live) = s.live.as_mut().filter(|l| l.end.is_none()) else {
            return self.late("a second exit", run, out);
        };
        let ended = told.unwrap_or(now);
        live.ended(end, usage, ended);
        if s.spec.oneshot && end == End::Code(0) {
            live.ready = Some(ended);
        }
        if live.sequence.phase == Phase::Held {
            // It was to be stopped, but nothing had been sent yet: this end is its own.
            live.stop = None;
        }
        let mut fields = Obj::new();
        fields.u64("run", run.0).opt_u64("pid", live.pid.map(u64::from));
        match end {
            End::Code(c) => fields.i64("exit_code", i64::from(c)),
            End::Signal(n) => fields.i64("signal", i64::from(n)).str("signal_name", &signal_name(n)),
            End::Unknown => fields.bool("unknown", true),
        };
        self.hear_out(i, out);
        self.health_end(i, out);
        self.reload_cut_short(i, out);
        if told.is_none() {
            self.emit("service.exited", i, fields.members(), out);
        }
        if self.table[i].state != State::Stopping {
            self.enter(i, State::Stopping, "", out);
        }
        self.table.touch(i);
        if leave && !self.commanded(i) {
            return self.over(i, Ended::from(end), now, out);
        }
        if let Some(live) = self.table[i].live.as_mut() {
            live.sequence.main_ended(run, now.mono, out);
        }
    }

    /// Whether its stop command runs.
    fn commanded(&self, i: usize) -> bool {
        self.table[i].live.as_ref().is_some_and(|l| l.sequence.command)
    }

    pub(in crate::core) fn tree(&mut self, run: RunId, left: Vec<Survivor>, out: &mut Out) {
        let Some(i) = self.runs.get(&run).copied() else { return self.orphan_tree(run, left, out) };
        let now = self.now;
        let s = &mut self.table[i];
        let terms = s.terms();
        let Some(live) = s.live.as_mut() else { return };
        let Some((end, ended)) = live.end.clone() else {
            // Those that a killed main process still has beside it are worth naming while it does not end.
            if live.stop_begun() {
                live.sequence.left = left;
                self.table.touch(i);
            }
            return;
        };
        if left.is_empty() || terms.leave_children {
            let hearing = live.hearing.is_some_and(|until| now.mono < until) && live.stop.is_none();
            if live.sequence.command || hearing {
                // The command may clear up after the main process; the next run must not meet it.
                live.sequence.left = Vec::new();
                return self.table.touch(i);
            }
            return self.over(i, end, ended, out);
        }
        if live.stop.is_none() && end == Ended::Code(0) && ended.mono.since(live.begun.mono) < BACKGROUND {
            live.background = true;
        }
        live.sequence.leftovers(run, terms, left, now.mono, out);
        self.table.touch(i);
    }

    pub(in crate::core) fn output(&mut self, run: RunId, bytes: u64, lines: Vec<String>, out: &mut Out) {
        if let Some(i) = self.runs.get(&run).copied() {
            if let Some(live) = self.table[i].live.as_mut() {
                live.output = Some((bytes, lines));
            }
            return;
        }
        let Some(i) = self.recent.remove(&run) else { return self.late("output", run, out) };
        let s = &mut self.table[i];
        if let Some(record) = s.history.iter_mut().find(|r| r.run == run) {
            record.output(bytes, &lines);
            self.table.save(i);
        }
    }

    /// A run is over: nothing of it is left. Folds it into the history and decides what follows.
    pub(in crate::core) fn over(&mut self, i: usize, end: Ended, ended: Now, out: &mut Out) {
        let owes = self.table[i].owes_readiness();
        let Some(live) = self.table[i].live.take() else { return };
        let s = &mut self.table[i];
        let mut record = live.record(end, ended.wall);
        if owes && live.hearing.is_none() {
            record.failed = true;
            if let Some((bytes, lines)) = &live.output {
                record.output(*bytes, lines);
            }
        }
        if record.asked == Some(StopWhy::ReadyTimeout) {
            record.awaited = Some(clip(&awaited(&s.spec.ready)));
        }
        if record.failed {
            s.fails = s.fails.saturating_add(1);
        }
        if record.failed || matches!(record.end, Ended::Delayed(_)) {
            s.last_error = Some(record.outcome().into());
        }
        self.runs.remove(&live.run);
        if record.output.is_none() && live.pid.is_some() {
            self.remember(live.run, i);
        }
        let s = &mut self.table[i];
        // Tries that the machine refused, one after the other, are told by the last of them.
        let refused = |r: &RunRecord| matches!(r.end, Ended::Delayed(_));
        if refused(&record) && s.history.last().is_some_and(refused) {
            s.history.pop();
        } else if s.history.len() >= HISTORY_PER_NAME {
            s.history.remove(0);
        }
        s.history.reserve_exact(1);
        s.history.push(record);
        self.table.save(i);
        out.records.push(record::run_gone(live.run));
        if live.known {
            out.effects.push(Effect::Forget { run: live.run });
        }
        self.follow(i, &live, out);
    }

    /// What follows a run, by the wish first and the policy last.
    fn follow(&mut self, i: usize, live: &super::Live, out: &mut Out) {
        let up = self.may_run(i);
        let s = &mut self.table[i];
        let Some(record) = s.history.last() else { return };
        let outcome = match (&record.end, record.failed) {
            (Ended::Delayed(_), _) => Outcome::Refused,
            (_, true) => Outcome::Failed,
            (_, false) => Outcome::Clean,
        };
        let unseen = record.end == Ended::Unknown;
        if !up {
            return self.enter(i, State::Stopped, "", out);
        }
        let own = live.stop.as_ref().is_none_or(StopWhy::is_fault);
        match &live.stop {
            _ if own && live.again => {
                // The start that a person asked for comes at once; the policy only counts it.
                let spec = Arc::clone(&s.spec);
                let _ = s.counters.verdict(&spec, outcome, self.now.mono);
            }
            _ if own && !unseen => return self.apply_policy(i, outcome, out),
            _ if own => s.cause = Cause::Boot,
            Some(StopWhy::Restart(client)) => s.cause = Cause::Client(client.clone()),
            Some(StopWhy::Need { name }) if !live.again => s.cause = Cause::Need { name: name.clone() },
            Some(StopWhy::Reload) if !live.again => s.cause = Cause::Reload,
            Some(
                StopWhy::ReadyTimeout
                | StopWhy::Watchdog
                | StopWhy::DaemonDeath
                | StopWhy::Unhealthy { .. }
                | StopWhy::Need { .. }
                | StopWhy::Reload
                | StopWhy::Client(_)
                | StopWhy::Removed
                | StopWhy::Shutdown
                | StopWhy::KeeperGone
                | StopWhy::Unwanted,
            )
            | None => {}
        }
        self.enter(i, State::Waiting, "", out);
    }

    fn apply_policy(&mut self, i: usize, outcome: Outcome, out: &mut Out) {
        let now = self.now;
        let s = &mut self.table[i];
        let spec = Arc::clone(&s.spec);
        let verdict = s.counters.verdict(&spec, outcome, now.mono);
        match verdict {
            Verdict::Restart { n, delay } | Verdict::Retry { n, delay } => {
                let restart = matches!(verdict, Verdict::Restart { .. });
                s.cause = if restart { Cause::Restart { n } } else { Cause::Retry { n } };
                if delay.is_zero() {
                    return self.enter(i, State::Waiting, "", out);
                }
                let mut fields = Obj::new();
                fields.u64(if restart { "restart" } else { "try" }, n.into()).u64("delay_ms", millis(delay));
                self.table[i].until = now.mono + delay;
                self.enter(i, State::Backoff, fields.members(), out);
            }
            Verdict::Finished if s.spec.on_demand => self.listen_again(i, out),
            Verdict::Finished => self.enter(i, State::Finished, "", out),
            Verdict::Failed { after } => {
                // One that is always restarted may have been given up for ends that are no failures.
                let outcome = s.last_error.clone().or_else(|| s.last().map(|r| r.outcome().into()));
                if let (Some(n), Some(error)) = (after, outcome) {
                    let times = count(n as usize, "restart");
                    let within = s.spec.window.map_or_else(String::new, |w| format!(" in {}", human_duration(w)));
                    s.last_error = Some(format!("{error}; given up after {times}{within}").into());
                }
                let mut fields = Obj::new();
                fields.opt_str("error", self.table[i].last_error.as_deref());
                self.enter(i, State::Failed, fields.members(), out);
            }
        }
    }
}
