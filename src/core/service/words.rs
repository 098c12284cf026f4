//! What a service says of itself by sd_notify(3): ready, alive, busy, and how long something may still take. Pure.

use super::reload::mold;
use super::stop::Phase;
use super::{Doing, State};
use crate::base::ids::RunId;
use crate::base::json::Obj;
use crate::config::Ready;
use crate::core::run::{StopWhy, clip};
use crate::core::{Core, Out};
use core::time::Duration;

/// The most that one word can put an end off by.
const EXTENSION_MAX: Duration = Duration::from_secs(365 * 86_400);

impl Core {
    pub(in crate::core) fn notified(&mut self, run: RunId, fields: &[(String, String)], out: &mut Out) {
        let Some(i) = self.runs.get(&run).copied() else { return self.late("a notification", run, out) };
        // First, because the record of what else is said has it too.
        for (_, text) in fields.iter().filter(|(name, _)| name == "STATUS") {
            if let Some(live) = self.table[i].live.as_mut() {
                live.status_text = Some(clip(text));
                live.status_said = true;
            }
        }
        for (name, value) in fields {
            match (name.as_str(), value.as_str()) {
                ("READY", "1") => {
                    self.doing(i, None);
                    if self.table[i].spec.ready == Ready::Notify {
                        self.ready_word(i, out);
                    }
                }
                ("RELOADING", "1") => self.doing(i, Some(Doing::Reloading)),
                ("STOPPING", "1") => self.doing(i, Some(Doing::Stopping)),
                ("WATCHDOG", "1") => self.pinged(i),
                ("WATCHDOG", "trigger") => self.watchdog_missed(i, out),
                ("EXTEND_TIMEOUT_USEC", number) => {
                    if let Ok(micros) = number.parse() {
                        self.extend(i, Duration::from_micros(micros).min(EXTENSION_MAX), out);
                    }
                }
                _ => {}
            }
        }
        self.table.touch(i);
        if self.config.heartbeat.is_zero() {
            // No other moment follows at which it would be written down.
            self.record_status(i, out);
        }
    }

    /// What it says of itself goes on record, if that is new.
    pub(in crate::core) fn record_status(&mut self, i: usize, out: &mut Out) {
        if self.table[i].live.as_mut().is_some_and(|l| core::mem::take(&mut l.status_said)) {
            self.save_run(i, out);
        }
    }

    fn doing(&mut self, i: usize, what: Option<Doing>) {
        if let Some(live) = self.table[i].live.as_mut() {
            live.doing = what;
        }
    }

    /// The watchdog counts from readiness on.
    pub(super) fn watchdog_begin(&mut self, i: usize) {
        let now = self.now.mono;
        let s = &mut self.table[i];
        // A run of an earlier config may know nothing of a watchdog.
        let watched = s.spec.watchdog.is_some() && s.state == State::Running;
        if let Some(live) = s.live.as_mut().filter(|l| watched && l.mold == mold(&s.spec)) {
            live.pinged = Some(now);
        }
        self.table.touch(i);
    }

    fn pinged(&mut self, i: usize) {
        let now = self.now.mono;
        if let Some(live) = self.table[i].live.as_mut() {
            live.pinged = live.pinged.map(|_| now);
        }
    }

    /// It has not said in time that it lives, or has itself found that it does not work.
    pub(super) fn watchdog_missed(&mut self, i: usize, out: &mut Out) {
        let s = &self.table[i];
        let open = s.live.as_ref().filter(|l| l.stop.is_none() && l.end.is_none() && l.pid.is_some());
        let (Some(live), State::Starting | State::Running) = (open, s.state) else { return };
        let mut fields = Obj::new();
        fields.u64("run", live.run.0);
        self.emit("service.watchdog", i, fields.members(), out);
        self.mark_stop(i, &StopWhy::Watchdog);
    }

    /// What is under way, its start or its stop, may take so much longer from now on.
    fn extend(&mut self, i: usize, by: Duration, out: &mut Out) {
        let until = self.now.mono + by;
        let s = &mut self.table[i];
        let state = s.state;
        let Some(live) = s.live.as_mut() else { return };
        match state {
            State::Starting => live.extended = live.extended.max(Some(until)),
            State::Stopping => match live.sequence.phase {
                Phase::Commanded | Phase::Asked | Phase::Looking | Phase::Leftovers => live.sequence.extend(until),
                Phase::Idle | Phase::Held | Phase::Unborn | Phase::Killed => return,
            },
            State::Running | State::Stopped | State::Waiting | State::Backoff | State::Failed | State::Finished => {
                return;
            }
        }
        self.save_run(i, out);
    }
}
