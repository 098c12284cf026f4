//! Runs that end well before they were ready, as far as is known: what they said last is heard before they are judged.
//! Readiness is told by output, by a pipe or by a datagram, which may all be learned of after the exit. Pure.

use super::{Live, Service};
use crate::base::ids::RunId;
use crate::base::json::Obj;
use crate::base::time::Mono;
use crate::config::Ready;
use crate::core::run::{Ended, millis};
use crate::core::{Core, Effect, Out};
use core::time::Duration;

/// How long the last words of a run that ended before it was ready are waited for. Without them nobody knows whether
/// it was.
const HEARING: Duration = Duration::from_secs(10);

impl Service {
    /// Whether a run of it fails that ends before it is ready: systemd calls that a protocol failure. Who leaves
    /// children may have left them to become so.
    #[must_use]
    pub fn is_to_be_ready(&self) -> bool {
        self.spec.ready != Ready::Spawned && !self.spec.oneshot && !self.spec.leave_children
    }

    /// Whether its run has ended well, but before it was ready, which is what it was started for.
    #[must_use]
    pub fn owes_readiness(&self) -> bool {
        let ended = |l: &Live| l.ready.is_none() && l.stop.is_none() && matches!(l.end, Some((Ended::Code(0), _)));
        self.is_to_be_ready() && !self.blind && self.live.as_ref().is_some_and(|l| ended(l))
    }
}

impl Live {
    /// Nobody waits for its last words: whether it was ready remains unknown.
    pub fn hear_no_more(&mut self, now: Mono) {
        if self.hearing.is_some() {
            self.hearing = Some(now);
            self.sequence.look_at = now;
        }
    }
}

impl Core {
    /// What a run that has ended well says of its readiness may still be on the way; anything else is not asked for any
    /// more.
    pub(super) fn hear_out(&mut self, i: usize, out: &mut Out) {
        let until = self.now.mono + HEARING;
        let s = &mut self.table[i];
        let told = matches!(s.spec.ready, Ready::Notify | Ready::Log(_) | Ready::Fd(_));
        if !told || !s.owes_readiness() {
            return self.await_end(i, out);
        }
        let output = matches!(s.spec.ready, Ready::Log(_));
        if let Some(live) = s.live.as_mut() {
            live.hearing = Some(until);
            out.effects.push(Effect::Hear { run: live.run, output });
        }
    }

    /// It has said before its end that it is ready.
    pub(super) fn ready_after_all(&mut self, i: usize, out: &mut Out) {
        let s = &mut self.table[i];
        let now = self.now;
        if let Some(live) = s.live.as_mut().filter(|l| l.hearing.is_some()) {
            let ready = live.end.as_ref().map_or(now, |(_, ended)| *ended);
            live.ready = Some(ready);
            let mut fields = Obj::new();
            fields.u64("run", live.run.0).opt_u64("pid", live.pid.map(u64::from));
            fields.u64("after_ms", millis(ready.mono.since(live.begun.mono)));
            self.emit("service.ready", i, fields.members(), out);
            self.save_run(i, out);
            self.heard(i, out);
        }
    }

    /// All that a run said before its end is known.
    pub(in crate::core) fn words_heard(&mut self, run: RunId, out: &mut Out) {
        match self.runs.get(&run).copied() {
            Some(i) => self.heard(i, out),
            None => self.late("its last word", run, out),
        }
    }

    fn heard(&mut self, i: usize, out: &mut Out) {
        let now = self.now.mono;
        self.await_end(i, out);
        if let Some(live) = self.table[i].live.as_mut()
            && live.hearing.take().is_some()
        {
            live.sequence.main_ended(live.run, now, out);
            self.table.touch(i);
        }
    }
}
