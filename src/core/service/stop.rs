//! The stop sequence of one run: signal to the main process, grace, SIGKILL to the whole tree, and looking again until
//! nobody is left. The same sequence clears what a main process leaves behind when it ends by itself.

use crate::base::ids::RunId;
use crate::base::time::Mono;
use crate::core::{Duty, Effect, Out, Survivor};
use core::time::Duration;

/// How long to wait before the first and between later looks at who is left.
const LOOK_FIRST: Duration = Duration::from_millis(50);
const LOOK_LAST: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// The main process runs and nothing was asked of it.
    #[default]
    Idle,
    /// To be stopped, once those that require it are down.
    Held,
    /// To be stopped, once it is known whether it was started at all.
    Unborn,
    /// Its stop command was run instead of the signal.
    Commanded,
    /// The main process has its signal.
    Asked,
    /// The main process is gone; who is left is being found out.
    Looking,
    /// Those left have their signal.
    Leftovers,
    /// Everything was killed; the kill is repeated until nobody is left.
    Killed,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sequence {
    pub phase: Phase,
    /// The stop command runs.
    pub command: bool,
    /// When the grace ends.
    pub kill_at: Option<Mono>,
    pub look_at: Mono,
    look_in: Duration,
    /// Who was left at the last look.
    pub left: Vec<Survivor>,
    /// The main process had its whole grace, and was killed at the end of it.
    pub overdue: bool,
}

/// What the sequence needs to know of its service.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    pub signal: i32,
    pub grace: Duration,
    pub leave_children: bool,
}

impl Sequence {
    /// Asks the main process to end. A grace that an earlier daemon began goes on.
    pub fn ask(&mut self, run: RunId, terms: Terms, now: Mono, out: &mut Out) {
        self.asked(terms, now);
        out.effects.push(Effect::Signal { run, signal: terms.signal, tree: false });
    }

    /// The keeper has asked the main process to end.
    pub fn asked(&mut self, terms: Terms, now: Mono) {
        self.phase = Phase::Asked;
        self.kill_at = self.kill_at.or(Some(now + terms.grace));
    }

    /// The stop command is to be run by the caller. A grace that an earlier daemon began goes on.
    pub fn ask_by_command(&mut self, terms: Terms, now: Mono) {
        self.asked(terms, now);
        self.phase = Phase::Commanded;
        self.command = true;
    }

    /// The stop command has ended. One that did well has done its part, and what it asked for has what is left of the
    /// grace; after one that failed the signal has to do.
    pub fn command_ended(&mut self, run: RunId, well: bool, terms: Terms, now: Mono, out: &mut Out) {
        if !core::mem::take(&mut self.command) {
            return;
        }
        match self.phase {
            Phase::Commanded if !well => {
                self.kill_at = None;
                self.ask(run, terms, now, out);
            }
            // The end was waiting for it.
            Phase::Looking | Phase::Leftovers | Phase::Killed => self.look(run, now, out),
            Phase::Commanded | Phase::Idle | Phase::Held | Phase::Unborn | Phase::Asked => {}
        }
    }

    fn end_command(&mut self, run: RunId, out: &mut Out) {
        if core::mem::take(&mut self.command) {
            out.effects.push(Effect::CheckEnd { run, what: Duty::Stop });
        }
    }

    /// Kills everything now.
    pub fn kill(&mut self, run: RunId, terms: Terms, now: Mono, out: &mut Out) {
        self.end_command(run, out);
        self.phase = Phase::Killed;
        self.kill_at = None;
        self.strike(run, terms, out);
        self.look(run, now, out);
    }

    fn strike(&self, run: RunId, terms: Terms, out: &mut Out) {
        out.effects.push(if terms.leave_children {
            Effect::Signal { run, signal: 9, tree: false }
        } else {
            Effect::Kill { run }
        });
    }

    /// Asks who is left, now and again after a while.
    fn look(&mut self, run: RunId, now: Mono, out: &mut Out) {
        self.look_in = LOOK_FIRST;
        self.look_at = now + self.look_in;
        out.effects.push(Effect::Sweep { run });
    }

    /// The main process is gone.
    pub fn main_ended(&mut self, run: RunId, now: Mono, out: &mut Out) {
        match self.phase {
            Phase::Idle | Phase::Held | Phase::Unborn | Phase::Commanded | Phase::Asked | Phase::Looking => {
                self.phase = Phase::Looking
            }
            Phase::Leftovers | Phase::Killed => {}
        }
        self.look(run, now, out);
    }

    /// Somebody is left after the end of the main process.
    pub fn leftovers(&mut self, run: RunId, terms: Terms, left: Vec<Survivor>, now: Mono, out: &mut Out) {
        self.left = left;
        match self.phase {
            Phase::Idle | Phase::Held | Phase::Unborn | Phase::Commanded | Phase::Asked | Phase::Looking => {
                self.phase = Phase::Leftovers;
                self.kill_at = self.kill_at.or(Some(now + terms.grace));
                out.effects.push(Effect::Signal { run, signal: terms.signal, tree: true });
            }
            Phase::Leftovers | Phase::Killed => {}
        }
    }

    /// Something may be due.
    pub fn tick(&mut self, run: RunId, terms: Terms, now: Mono, out: &mut Out) {
        match self.phase {
            Phase::Idle | Phase::Held | Phase::Unborn => {}
            Phase::Commanded => {
                if self.kill_at.is_some_and(|at| at <= now) {
                    self.end_command(run, out);
                    self.kill_at = None;
                    self.ask(run, terms, now, out);
                }
            }
            Phase::Asked | Phase::Looking | Phase::Leftovers if self.kill_at.is_some_and(|at| at <= now) => {
                self.overdue = self.phase == Phase::Asked;
                self.kill(run, terms, now, out);
            }
            Phase::Asked => {}
            Phase::Looking | Phase::Leftovers | Phase::Killed => self.look_again(run, terms, now, out),
        }
    }

    fn look_again(&mut self, run: RunId, terms: Terms, now: Mono, out: &mut Out) {
        if self.look_at > now {
            return;
        }
        if self.phase == Phase::Killed {
            self.strike(run, terms, out);
        }
        self.look_in = (self.look_in * 2).clamp(LOOK_FIRST, LOOK_LAST);
        self.look_at = now + self.look_in;
        out.effects.push(Effect::Sweep { run });
    }

    /// When `tick` has something to do.
    #[must_use]
    pub fn deadline(&self) -> Option<Mono> {
        match self.phase {
            Phase::Idle | Phase::Held | Phase::Unborn => None,
            Phase::Commanded | Phase::Asked => self.kill_at,
            Phase::Looking | Phase::Leftovers => Some(self.kill_at.map_or(self.look_at, |at| at.min(self.look_at))),
            Phase::Killed => Some(self.look_at),
        }
    }

    /// The grace lasts until then at least.
    pub fn extend(&mut self, until: Mono) {
        self.kill_at = self.kill_at.map(|at| at.max(until));
    }

    /// The machine stood still for this long: the grace is prolonged.
    pub fn thaw(&mut self, gap: Duration) {
        self.kill_at = self.kill_at.map(|at| at + gap);
    }

    /// Who is left.
    #[must_use]
    pub fn names(&self) -> String {
        names(&self.left)
    }
}

/// `sleep (pid 123), cat (pid 124)`.
#[must_use]
pub fn names(left: &[Survivor]) -> String {
    let mut text: Vec<String> = left.iter().take(5).map(|s| format!("{} (pid {})", s.name, s.pid)).collect();
    if left.len() > 5 {
        text.push(format!("{} more", left.len() - 5));
    }
    text.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: RunId = RunId(1);
    const TERMS: Terms = Terms { signal: 15, grace: Duration::from_secs(10), leave_children: false };

    fn at(ms: u64) -> Mono {
        Mono(ms * 1_000_000)
    }

    fn told(out: &mut Out) -> Vec<String> {
        out.effects.drain(..).map(|e| format!("{e:?}")).collect()
    }

    #[test]
    fn a_deaf_tree_is_signalled_then_killed_again_and_again() {
        let (mut s, mut out) = (Sequence::default(), Out::default());
        assert_eq!(s.deadline(), None);
        s.ask(RUN, TERMS, at(0), &mut out);
        assert_eq!(s.deadline(), Some(at(10_000)));
        told(&mut out);
        s.tick(RUN, TERMS, at(10_000), &mut out);
        assert_eq!(told(&mut out), ["Kill { run: RunId(1) }", "Sweep { run: RunId(1) }"]);
        assert!(s.overdue);
        let mut looks = Vec::new();
        for _ in 0..7 {
            let next = s.deadline().unwrap();
            looks.push(next.0 / 1_000_000 - 10_000);
            s.tick(RUN, TERMS, next, &mut out);
            assert_eq!(told(&mut out), ["Kill { run: RunId(1) }", "Sweep { run: RunId(1) }"]);
        }
        assert_eq!(looks, [50, 150, 350, 750, 1550, 2550, 3550]);
    }

    #[test]
    fn leftovers_share_the_grace_of_the_main_process() {
        let (mut s, mut out) = (Sequence::default(), Out::default());
        s.ask(RUN, TERMS, at(0), &mut out);
        s.main_ended(RUN, at(4_000), &mut out);
        told(&mut out);
        s.leftovers(RUN, TERMS, vec![Survivor { pid: 5, name: "cat".into() }], at(4_010), &mut out);
        assert_eq!(told(&mut out), ["Signal { run: RunId(1), signal: 15, tree: true }"]);
        assert_eq!(s.names(), "cat (pid 5)");
        s.leftovers(RUN, TERMS, vec![Survivor { pid: 5, name: "cat".into() }], at(4_020), &mut out);
        assert!(told(&mut out).is_empty(), "one signal is enough");
        assert_eq!(s.deadline(), Some(at(4_050)));
        s.tick(RUN, TERMS, at(10_000), &mut out);
        assert_eq!((s.phase, s.overdue), (Phase::Killed, false));
    }
}
