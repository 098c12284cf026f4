//! What the core is told, as the invariants have to know it.

use crate::check::Check;
use crate::os::MS;
use hob::base::ids::RunId;
use hob::config::{Config, Ready};
use hob::core::{Boot, Duty, Effect, End, Input, StartError};

impl Check {
    /// Takes note of what the core is about to be told.
    pub fn input(&mut self, now: u64, input: &Input) {
        let ends = matches!(input, Input::Boot(_) | Input::Stop { .. } | Input::KeeperGone);
        if ends || self.inhibitors.is_empty() || self.held.is_some_and(|at| at <= now) {
            self.held = None;
        }
        match input {
            Input::Boot(boot) => self.booted(now, boot),
            Input::Started { run, result } => self.told_started(now, *run, result),
            Input::Exited { run, end, .. } => self.told_end(now, *run, *end),
            Input::Notify { run, fields } if fields.iter().any(|(name, _)| name == "WATCHDOG") => {
                if let Some(run) = self.runs.get_mut(run).filter(|r| !r.over) {
                    run.pinged_at = now;
                }
            }
            Input::ReadySeen { run } | Input::Notify { run, .. } => {
                if let Some(run) = self.runs.get_mut(run).filter(|r| !r.over) {
                    run.ready_at.get_or_insert(now);
                }
                self.heard(now, *run, true);
            }
            Input::Heard { run } => self.heard(now, *run, false),
            Input::Checked { run, what: Duty::Health, result } => {
                if result.is_err() {
                    self.fell_ill(now, *run);
                }
                if let Some(run) = self.runs.get_mut(run).filter(|r| !r.over) {
                    run.fails = if result.is_ok() { 0 } else { run.fails + 1 };
                    run.healthy |= result.is_ok();
                    run.well_at = result.is_ok().then(|| run.well_at.unwrap_or(now));
                }
            }
            Input::ConfigRead { req: Some(req), .. } if self.looks.contains(req) => {}
            Input::ConfigRead { result: Ok(config), .. } => {
                self.config = Config::clone(config);
                self.blind = false;
                self.policy.forget_all();
                // One that is to get the new config may end by itself, or not be born, before its signal.
                for run in self.runs.values_mut().filter(|r| !r.over) {
                    run.stopped = true;
                    if let Some(spec) = self.config.services.get(&*run.service) {
                        run.retries = spec.health.as_ref().map(|h| h.retries);
                    }
                }
            }
            Input::Stop { hurry } => {
                self.stopping = self.stopping.or(Some(usize::MAX));
                self.hurry |= *hurry;
                self.disturbed = false;
            }
            Input::KeeperGone => {
                self.stopping = self.stopping.or(Some(usize::MAX));
                self.disturbed = true;
            }
            _ => {}
        }
    }

    fn booted(&mut self, now: u64, boot: &Boot) {
        self.epoch += 1;
        self.inhibitors.clear();
        self.tasks.begin(&boot.entities);
        let was_blind = core::mem::replace(&mut self.blind, boot.config_error.is_some());
        // What ended while nobody knew its policy is not started by that.
        if !self.blind && (was_blind || self.config != boot.config) {
            self.config = boot.config.clone();
            self.policy.forget_all();
        }
        for run in self.runs.keys().copied().collect::<Vec<_>>() {
            self.fell_ill(now, run);
        }
        for (run, known) in &mut self.runs {
            known.fails = 0;
            known.retries =
                self.config.services.get(&*known.service).and_then(|s| s.health.as_ref()).map(|h| h.retries);
            known.well_at = None;
            known.unrecorded |= !boot.entities.iter().any(|e| e.key == format!("run/{run}"));
        }
        for (run, _) in &boot.leftovers {
            if let Some(run) = self.runs.get_mut(run) {
                (run.over, run.orphan, run.forgotten) = (true, true, false);
            }
        }
        for slot in &boot.table {
            let Some(run) = self.runs.get(&slot.run).filter(|r| !r.over) else { continue };
            let new = !run.started;
            match (&slot.exec_error, slot.ended, slot.pid) {
                (Some(e), _, _) => self.told_started(now, slot.run, &Err(e.clone())),
                (None, ended, Some(pid)) => {
                    if new {
                        self.told_started(now, slot.run, &Ok(pid));
                    }
                    if let Some((end, _)) = ended {
                        self.told_end(now, slot.run, end);
                    }
                }
                (None, _, None) => {}
            }
        }
        if boot.stop {
            self.stopping = Some(usize::MAX);
        }
    }

    fn told_started(&mut self, now: u64, run: RunId, result: &Result<u32, StartError>) {
        let Some(run) = self.runs.get_mut(&run) else { return };
        match result {
            Ok(_) => {
                run.started = true;
                if run.spec.ready == Ready::Spawned && !run.spec.oneshot {
                    run.ready_at.get_or_insert(now);
                }
            }
            Err(e) => {
                run.over = true;
                if run.stopped {
                    self.policy.stopped(&run.service);
                } else if e.transient {
                    self.policy.refused(&run.service, now);
                } else {
                    self.policy.ended(&run.service, &run.spec, None, 0, now);
                }
            }
        }
    }

    fn told_end(&mut self, now: u64, id: RunId, end: End) {
        let Some(run) = self.runs.get_mut(&id).filter(|r| !r.over) else { return };
        run.over = true;
        run.clean = matches!(end, End::Code(0) | End::Unknown);
        let spec = self.config.services.get(&*run.service).unwrap_or(&run.spec);
        let since = match &spec.health {
            Some(_) => run.well_at,
            // A daemon that took the run over knows of one that is ready by being executed only when it was ordered.
            None if run.epoch != self.epoch && spec.ready == Ready::Spawned => run.ready_at.map(|_| run.begun),
            None => run.ready_at,
        };
        // Good health counts up to the moment when hob begins to stop it.
        let healthy = since.map_or(0, |at| run.left_at.unwrap_or(now).saturating_sub(at));
        let promised = spec.ready != Ready::Spawned && !spec.oneshot && !spec.leave_children;
        if promised && end == End::Code(0) && run.ready_at.is_none() && !run.stopped && !run.orphan && !run.unrecorded {
            (run.hearing, run.clean) = (true, false);
            if !matches!(spec.ready, Ready::Notify | Ready::Log(_) | Ready::Fd(_)) {
                self.heard(now, id, false);
            }
            return;
        }
        if run.stopped || run.orphan || run.unrecorded {
            self.policy.well_for(&run.service, spec, healthy);
            self.policy.stopped(&run.service);
        } else {
            self.policy.ended(&run.service, spec, Some(end), healthy, now);
        }
    }

    /// What a run that has ended well said before is known: whether it was ready, which is what it was for.
    fn heard(&mut self, now: u64, run: RunId, ready: bool) {
        let Some(run) = self.runs.get_mut(&run).filter(|r| r.hearing) else { return };
        (run.hearing, run.clean) = (false, ready);
        if run.stopped {
            return self.policy.stopped(&run.service);
        }
        let spec = self.config.services.get(&*run.service).unwrap_or(&run.spec);
        self.policy.ended(&run.service, spec, Some(End::Code(i32::from(!ready))), 0, now);
    }

    /// A check fails: what was well for long enough until now has a clean slate all the same.
    fn fell_ill(&mut self, now: u64, run: RunId) {
        let Some(run) = self.runs.get(&run).filter(|r| !r.over) else { return };
        let spec = self.config.services.get(&*run.service).unwrap_or(&run.spec);
        let until = run.left_at.unwrap_or(now);
        if let Some(at) = run.well_at {
            self.policy.well_for(&run.service, spec, until.saturating_sub(at));
        }
    }

    /// The machine stood still: what may take only so long may take longer by that.
    pub fn thaw(&mut self, gap: u64) {
        self.held = self.held.map(|at| at + gap);
    }

    /// Whether a shutdown that begins in this round is put off.
    pub fn delayed(&mut self, now: u64, effects: &[Effect]) -> Result<(), String> {
        let begins = |e: &&Effect| matches!(e, Effect::Event { line, .. } if line.contains("\"daemon.stopping\""));
        let Some(Effect::Event { line, .. }) = effects.iter().find(begins) else { return Ok(()) };
        let event: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
        let delay = event["delay_ms"].as_u64().filter(|ms| *ms > 0);
        if delay.is_some() && (self.inhibitors.is_empty() || self.hurry) {
            return Err(format!("shutdown: nobody delays it: {line}"));
        }
        self.held = delay.map(|ms| now + ms * MS);
        Ok(())
    }
}
