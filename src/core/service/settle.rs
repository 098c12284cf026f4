//! The second phase: looks at each service that something happened to until nothing changes, and starts and stops runs.
//! Pure.

use super::State;
use super::graph::{Edge, Kind};
use super::stop::Phase;
use super::wish::Wish;
use crate::base::ids::RunId;
use crate::base::json::Obj;
use crate::core::run::{Cause, StopWhy, clip};
use crate::core::{Core, Duty, Effect, Out};
use std::sync::Arc;

/// The same number on every system.
const SIGABRT: i32 = 6;

impl Core {
    /// Moves a service to a state. `fields` go with the event that tells of it.
    pub(in crate::core) fn enter(&mut self, i: usize, state: State, fields: &str, out: &mut Out) {
        let s = &mut self.table[i];
        debug_assert!(s.state.leads_to(state), "{}: {} -> {state}", s.name, s.state);
        let kept = |s: State| match s {
            State::Backoff | State::Failed | State::Finished => true,
            State::Stopped | State::Waiting | State::Starting | State::Running | State::Stopping => false,
        };
        let save = kept(s.state) || kept(state);
        s.state = state;
        s.since = self.now;
        s.stuck = false;
        s.waiting_told = false;
        s.listening.open = false;
        s.listening.error = None;
        s.listening.retry = None;
        let untold = s.live.as_ref().is_none_or(|l| l.stop.is_some() && !l.stop_told);
        let tell = match state {
            State::Waiting => false,
            State::Stopping => untold,
            State::Stopped | State::Starting | State::Running | State::Backoff | State::Failed | State::Finished => {
                true
            }
        };
        if tell {
            self.emit(state.event(), i, fields, out);
        }
        if save {
            self.table.save(i);
        }
        if self.table[i].transient && matches!(state, State::Failed | State::Finished) {
            self.bound_ended(out);
        }
        self.table.touch(i);
        self.table.look_around(i);
    }

    /// Whether it may have a run: the wish, unless everything is being stopped.
    #[must_use]
    pub(in crate::core) fn may_run(&self, i: usize) -> bool {
        self.table[i].wanted() && self.life.stopping.is_none()
    }

    pub(in crate::core) fn settle_services(&mut self, out: &mut Out) {
        // Each look either changes a state, which happens a few times per service and step, or changes nothing. The
        // bound only guards against a mistake here: then the rest is looked at in the next step.
        let mut fuse = 64 + 64 * self.table.len();
        while fuse > 0 {
            fuse -= 1;
            let Some(i) = self.table.next_dirty() else { return self.table.reconnect() };
            self.look_at(i, out);
        }
        self.table.reconnect();
        self.log_error("the services did not settle in one step; going on in the next", out);
    }

    fn look_at(&mut self, i: usize, out: &mut Out) {
        if self.table[i].gone {
            return;
        }
        let up = self.may_run(i);
        match self.table[i].state {
            State::Stopped if self.table[i].removed => self.take_out(i, out),
            State::Stopped => {}
            State::Failed | State::Finished => {
                if !self.table[i].wanted() {
                    self.enter(i, State::Stopped, "", out);
                }
            }
            State::Waiting if !up => self.enter(i, State::Stopped, "", out),
            State::Waiting if self.table[i].awaits_connection() => {}
            State::Waiting => self.try_start(i, out),
            State::Backoff => {
                if !up {
                    self.enter(i, State::Stopped, "", out);
                }
            }
            State::Starting | State::Running => self.try_stop(i, out),
            State::Stopping => self.release(i, out),
        }
    }

    /// A removed service is down.
    fn take_out(&mut self, i: usize, out: &mut Out) {
        let name = Arc::clone(&self.table[i].name);
        self.emit("service.removed", i, "", out);
        self.table.touch(i);
        // What a person said of a transient one was said of this one alone.
        let wish = if self.table[i].transient { Wish::default() } else { Wish::of(&self.table[i]) };
        self.keep_wish(&name, wish, out);
        out.effects.push(Effect::Remove { service: name });
        self.recent.retain(|_, at| *at != i);
        if self.table[i].spec.lets_others_in() {
            out.effects.push(Effect::JobAccess);
        }
        self.table.remove(i);
        self.save_meta(out);
    }

    fn try_start(&mut self, i: usize, out: &mut Out) {
        let s = &self.table[i];
        // A run that no record knows may be of any service, and no service may have two.
        let missing = self.missing(i).next().is_some();
        let (mut blocked, mut stuck) = (s.blind || missing || !self.orphans.is_empty(), s.blind || missing);
        for e in &s.needs {
            let need = &self.table[e.to as usize];
            if need.reached(e.condition) {
                continue;
            }
            let coming = need.on_its_way(e.condition);
            match e.kind {
                Kind::Requires => {
                    blocked = true;
                    stuck |= !coming;
                }
                Kind::Wants | Kind::After => blocked |= coming,
            }
        }
        if !blocked {
            return self.begin(i, out);
        }
        let told = s.waiting_told;
        if s.stuck != stuck {
            self.table[i].stuck = stuck;
            self.table.touch(i);
            self.table.look_around(i);
        }
        if !told {
            self.table[i].waiting_told = true;
            let mut fields = Obj::new();
            let names = self.waiting_for(i).iter().map(|s| s.to_string()).collect::<Vec<_>>();
            fields.raw("waiting_for", &serde_json::to_string(&names).unwrap_or_default());
            self.table.touch(i);
            self.emit("service.waiting", i, fields.members(), out);
        }
    }

    /// The needs that a waiting service is held up by.
    pub(in crate::core) fn holding(&self, i: usize) -> impl Iterator<Item = &Edge> {
        self.table[i].needs.iter().filter(|e| {
            let need = &self.table[e.to as usize];
            !need.reached(e.condition) && (e.kind == Kind::Requires || need.on_its_way(e.condition))
        })
    }

    /// The services that hold this one up, while it waits.
    #[must_use]
    pub(in crate::core) fn waiting_for(&self, i: usize) -> Vec<&str> {
        let s = &self.table[i];
        match s.state {
            State::Waiting if s.awaits_connection() => Vec::new(),
            State::Waiting => {
                let held = self.holding(i).map(|e| &*self.table[e.to as usize].name);
                held.chain(self.missing(i)).collect()
            }
            State::Stopping if s.live.as_ref().is_some_and(|l| l.sequence.phase == Phase::Held) => {
                self.holders(i).map(|d| &*self.table[d].name).collect()
            }
            State::Stopped
            | State::Starting
            | State::Running
            | State::Stopping
            | State::Backoff
            | State::Failed
            | State::Finished => Vec::new(),
        }
    }

    /// Those that have to be down before this one may be stopped.
    fn holders(&self, i: usize) -> impl Iterator<Item = usize> + '_ {
        let dependants = self.table[i].dependants.iter().map(|d| *d as usize);
        dependants.filter(|d| self.table[*d].stop_mark().is_some() || self.table[*d].state == State::Stopping)
    }

    fn try_stop(&mut self, i: usize, out: &mut Out) {
        let Some(why) = self.table[i].stop_mark() else { return };
        let urgent = why.is_fault();
        let mut fields = Obj::new();
        fields.str("why", &why.text());
        if let Some(live) = self.table[i].live.as_mut() {
            fields.u64("run", live.run.0);
            live.sequence.phase = Phase::Held;
        }
        self.enter(i, State::Stopping, fields.members(), out);
        if urgent {
            self.stop_now(i, out);
            return;
        }
        self.release(i, out);
        if self.table[i].live.as_ref().is_some_and(|l| l.sequence.phase == Phase::Held) {
            self.save_run(i, out);
        }
    }

    /// Lets a held stop go on once those before it are down.
    fn release(&mut self, i: usize, out: &mut Out) {
        let held = self.table[i].live.as_ref().is_some_and(|l| l.sequence.phase == Phase::Held);
        if held && self.holders(i).next().is_none() {
            self.stop_now(i, out);
        }
    }

    fn stop_now(&mut self, i: usize, out: &mut Out) {
        self.await_end(i, out);
        self.health_end(i, out);
        self.reload_cut_short(i, out);
        let s = &mut self.table[i];
        let Some(live) = s.live.as_mut() else { return };
        if live.pid.is_some() {
            self.ask_to_end(i, out);
        } else {
            live.sequence.phase = Phase::Unborn;
            out.effects.push(Effect::CancelStart { run: live.run });
        }
        self.table.touch(i);
        self.save_run(i, out);
    }

    /// The first step of the stop sequence: the command where there is one, or the signal.
    pub(super) fn ask_to_end(&mut self, i: usize, out: &mut Out) {
        let now = self.now.mono;
        let s = &mut self.table[i];
        let mut terms = s.terms();
        let Some(live) = s.live.as_mut() else { return };
        if live.stop == Some(StopWhy::DaemonDeath) {
            return live.sequence.asked(terms, now);
        }
        let hangs = live.stop == Some(StopWhy::Watchdog);
        if s.spec.stop_command.is_some() && !hangs {
            live.sequence.ask_by_command(terms, now);
            let (run, spec, limit) = (live.run, Arc::clone(&s.spec), s.spec.stop_timeout);
            out.effects.push(Effect::Check { run, what: Duty::Stop, spec, limit });
            return;
        }
        if hangs {
            // Where it hangs is worth a core dump.
            terms.signal = SIGABRT;
        }
        live.sequence.ask(live.run, terms, now, out);
    }

    pub(in crate::core) fn stop_command_ended(&mut self, run: RunId, result: Result<(), String>, out: &mut Out) {
        let Some(i) = self.runs.get(&run).copied() else { return self.late("a stop command", run, out) };
        let now = self.now.mono;
        let s = &mut self.table[i];
        let terms = s.terms();
        let Some(live) = s.live.as_mut().filter(|l| l.sequence.command) else {
            return self.late("a stop command", run, out);
        };
        live.sequence.command_ended(run, result.is_ok(), terms, now, out);
        if let Err(error) = result {
            let mut fields = Obj::new();
            fields.u64("run", run.0).str("error", &error);
            self.emit("service.stop_command_failed", i, fields.members(), out);
            if let Some(live) = self.table[i].live.as_mut() {
                live.asides.get_or_insert_default().stop_error = Some(clip(&error));
            }
        }
        self.table.touch(i);
        self.save_run(i, out);
    }

    /// A deadline of this service has passed.
    pub(in crate::core) fn service_due(&mut self, i: usize, out: &mut Out) {
        let now = self.now.mono;
        let s = &mut self.table[i];
        match s.state {
            State::Stopped | State::Failed | State::Finished => {}
            State::Waiting => self.listen_due(i),
            State::Backoff => {
                if s.until <= now {
                    self.enter(i, State::Waiting, "", out);
                }
            }
            State::Starting => {
                if s.deadline().is_some_and(|at| at <= now) {
                    self.mark_stop(i, &StopWhy::ReadyTimeout);
                }
            }
            State::Running => {
                if s.reset_at().is_some_and(|at| at <= now) {
                    s.counters.reset();
                    s.last_error = None;
                    self.table.save(i);
                }
                if self.table[i].watchdog_at().is_some_and(|at| at <= now) {
                    self.watchdog_missed(i, out);
                }
                self.health_due(i, out);
            }
            State::Stopping => {
                let terms = s.terms();
                if let Some(live) = s.live.as_mut() {
                    live.sequence.tick(live.run, terms, now, out);
                }
            }
        }
        self.table.touch(i);
    }

    /// Something outside asks for a state of rest to end.
    pub(in crate::core) fn lift(&mut self, i: usize, cause: Cause, out: &mut Out) {
        match self.table[i].state {
            State::Stopped | State::Failed | State::Finished | State::Backoff => {
                self.table[i].cause = cause;
                self.enter(i, State::Waiting, "", out);
            }
            State::Waiting => {
                self.table[i].cause = cause;
                if self.table[i].spec.on_demand {
                    self.table.touch(i);
                    self.table.look_around(i);
                }
            }
            State::Stopping => {
                if let Some(live) = self.table[i].live.as_mut() {
                    live.again = true;
                }
                self.table[i].cause = cause;
            }
            State::Starting | State::Running => {}
        }
    }
}
