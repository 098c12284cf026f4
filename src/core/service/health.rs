//! Health of a ready service: when it is asked, what the answers mean, and what failing often enough leads to. Pure.

use super::State;
use crate::base::ids::RunId;
use crate::base::json::Obj;
use crate::base::time::Mono;
use crate::config::Health;
use crate::core::run::{StopWhy, clip};
use crate::core::{Core, Duty, Effect, Out};
use core::time::Duration;
use std::sync::Arc;

/// The health of one run.
#[derive(Clone, Debug)]
pub struct Pulse {
    /// A check was passed in this run.
    pub ok: bool,
    /// Checks failed since the last that was passed.
    pub fails: u32,
    /// What the last failure said.
    pub error: Option<Box<str>>,
    /// Since when every check was passed.
    well_since: Option<Mono>,
    next: Next,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    At(Mono),
    /// A check that began then is under way.
    Open(Mono),
    /// The run is being stopped or has ended.
    Never,
}

impl Pulse {
    /// With a first check at once.
    #[must_use]
    pub fn new(now: Mono, ok: bool) -> Pulse {
        Pulse { ok, fails: 0, error: None, well_since: None, next: Next::At(now) }
    }

    /// When the next check begins.
    #[must_use]
    pub fn due(&self) -> Option<Mono> {
        match self.next {
            Next::At(at) => Some(at),
            Next::Open(_) | Next::Never => None,
        }
    }

    /// Since when every check was passed; `None` after a failure, and before the first result.
    #[must_use]
    pub fn well_since(&self) -> Option<Mono> {
        self.well_since
    }

    #[must_use]
    pub fn word(&self) -> &'static str {
        match (self.fails, self.ok) {
            (1.., _) => "failing",
            (0, true) => "ok",
            (0, false) => "unknown",
        }
    }

    /// The machine stood still for this long.
    pub fn thaw(&mut self, gap: Duration) {
        if let Next::At(at) = &mut self.next {
            *at = *at + gap;
        }
    }

    /// Takes the result of the check that is under way; whether there was one.
    fn close(&mut self, spec: &Health, now: Mono) -> bool {
        let Next::Open(begun) = self.next else { return false };
        self.next = Next::At((begun + spec.every).max(now));
        true
    }

    /// No more checks. Whether one was under way.
    fn stop(&mut self) -> bool {
        matches!(core::mem::replace(&mut self.next, Next::Never), Next::Open(_))
    }
}

impl Core {
    /// The service is ready, was found so, or has another check now. `ok`: it was healthy before.
    pub(super) fn health_begin(&mut self, i: usize, ok: bool, out: &mut Out) {
        self.health_end(i, out);
        let now = self.now.mono;
        let s = &mut self.table[i];
        let wanted = s.spec.health.is_some() && s.state == State::Running;
        if let Some(live) = s.live.as_mut() {
            live.pulse = wanted.then(|| Box::new(Pulse::new(now, ok)));
            self.table.touch(i);
        }
    }

    /// The run ends or is to end: nothing is asked of it any more.
    pub(super) fn health_end(&mut self, i: usize, out: &mut Out) {
        let Some(live) = self.table[i].live.as_mut() else { return };
        if live.pulse.as_mut().is_some_and(|p| p.stop()) {
            out.effects.push(Effect::CheckEnd { run: live.run, what: Duty::Health });
        }
    }

    pub(super) fn health_due(&mut self, i: usize, out: &mut Out) {
        let now = self.now.mono;
        let s = &mut self.table[i];
        let (Some(live), Some(health)) = (s.live.as_mut(), s.spec.health.as_ref()) else { return };
        let Some(pulse) = live.pulse.as_mut().filter(|p| p.due().is_some_and(|at| at <= now)) else { return };
        pulse.next = Next::Open(now);
        let (run, limit, spec) = (live.run, health.timeout, Arc::clone(&s.spec));
        out.effects.push(Effect::Check { run, what: Duty::Health, spec, limit });
    }

    pub(in crate::core) fn health_checked(&mut self, run: RunId, result: Result<(), String>, out: &mut Out) {
        let Some(i) = self.runs.get(&run).copied() else { return self.late("a health check", run, out) };
        let now = self.now.mono;
        let s = &mut self.table[i];
        let (Some(live), Some(health)) = (s.live.as_mut(), s.spec.health.as_ref()) else { return };
        let Some(pulse) = live.pulse.as_mut() else { return };
        if !pulse.close(health, now) {
            return;
        }
        let retries = health.retries;
        match result {
            Ok(()) => self.health_passed(i, out),
            Err(error) => {
                pulse.fails = pulse.fails.saturating_add(1);
                pulse.well_since = None;
                pulse.error = Some(clip(&error));
                let times = pulse.fails;
                if times >= retries {
                    self.unhealthy(i, times, &error, out);
                }
            }
        }
        self.table.touch(i);
    }

    fn health_passed(&mut self, i: usize, out: &mut Out) {
        let now = self.now.mono;
        let Some(live) = self.table[i].live.as_mut() else { return };
        let run = live.run;
        let Some(pulse) = live.pulse.as_mut() else { return };
        pulse.fails = 0;
        pulse.error = None;
        pulse.well_since.get_or_insert(now);
        if !core::mem::replace(&mut pulse.ok, true) {
            let mut fields = Obj::new();
            fields.u64("run", run.0);
            self.emit("service.healthy", i, fields.members(), out);
            self.save_run(i, out);
            self.table.look_around(i);
        }
    }

    fn unhealthy(&mut self, i: usize, times: u32, error: &str, out: &mut Out) {
        let mut fields = Obj::new();
        fields.opt_u64("run", self.table[i].live.as_ref().map(|l| l.run.0));
        fields.u64("failures", times.into()).str("error", error);
        self.emit("service.unhealthy", i, fields.members(), out);
        self.mark_stop(i, &StopWhy::Unhealthy { times, error: clip(error) });
    }
}
