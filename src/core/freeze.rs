//! A machine that stood still (suspended, paused, its power cut to one core for too long) gave its programs no time, so
//! the time does not count against them. Pure.

use super::due::Due;
use super::{Core, Out};
use crate::base::limits::{FROZEN, FROZEN_BEFORE_MAX};
use crate::base::time::Now;

impl Core {
    /// Nobody knows since when the machine stood still: since the last step at the earliest, since the deadline that
    /// was missed at the latest. All of the time after that deadline, and of the time before it a part, is added to
    /// everything that may take only so long: becoming ready, stopping, a shutdown, a request that waits.
    pub(super) fn notice_freeze(&mut self, now: Now, out: &mut Out) {
        let Some(late) = self.next_deadline().map(|next| now.mono.since(next)).filter(|late| *late >= FROZEN) else {
            return;
        };
        let gap = now.mono.since(self.now.mono).min(late + FROZEN_BEFORE_MAX);
        for i in self.runs.values() {
            if let Some(live) = self.table[*i].live.as_mut() {
                live.sequence.thaw(gap);
                if live.ready.is_none() {
                    live.begun.mono = live.begun.mono + gap;
                }
                live.pinged = live.pinged.map(|at| at + gap);
                live.extended = live.extended.map(|at| at + gap);
                live.hearing = live.hearing.map(|at| at + gap);
                if let Some(pulse) = live.pulse.as_mut() {
                    pulse.thaw(gap);
                }
            }
            let at = self.table[*i].deadline();
            self.deadlines.set(Due::Service(*i), at);
        }
        for (run, orphan) in self.orphans.iter_mut() {
            orphan.sequence.thaw(gap);
            self.deadlines.set(Due::Orphan(*run), orphan.sequence.deadline());
        }
        self.thaw_tasks(gap, out);
        self.thaw_waits(gap);
        self.thaw_schedules(gap);
        self.thaw_shutdown(gap, now.mono, out);
    }
}
