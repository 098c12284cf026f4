//! Runs that no service and no record knows: an intent was lost with a damaged journal. They are stopped like any
//! other. Pure.

use super::stop::{Sequence, Terms};
use crate::base::ids::RunId;
use crate::base::time::Mono;
use crate::config::{Level, ServiceSpec};
use crate::core::due::Due;
use crate::core::{Core, Effect, Out, Survivor};

#[derive(Debug, Default)]
pub struct Orphan {
    pub sequence: Sequence,
    main_gone: bool,
}

fn terms() -> Terms {
    let spec = ServiceSpec::default();
    Terms { signal: spec.stop_signal.number, grace: spec.stop_timeout, leave_children: false }
}

impl Core {
    /// Takes one on: its main process runs, or only these are left of it.
    pub(in crate::core) fn orphan(&mut self, run: RunId, alive: bool, left: Vec<Survivor>, out: &mut Out) {
        let text = format!("run {run} belongs to no known service; it is being stopped");
        out.effects.push(Effect::Log { level: Level::Warn, text });
        self.orphans.insert(run, Orphan { main_gone: !alive, ..Orphan::default() });
        self.with_orphan(run, |orphan, now| {
            if alive {
                return orphan.sequence.ask(run, terms(), now, out);
            }
            orphan.sequence.main_ended(run, now, out);
            if !left.is_empty() {
                orphan.sequence.leftovers(run, terms(), left, now, out);
            }
        });
    }

    /// Does something with one and sets its deadline; false if there is none.
    fn with_orphan(&mut self, run: RunId, act: impl FnOnce(&mut Orphan, Mono)) -> bool {
        let Some(orphan) = self.orphans.get_mut(&run) else { return false };
        act(orphan, self.now.mono);
        self.deadlines.set(Due::Orphan(run), orphan.sequence.deadline());
        true
    }

    pub(in crate::core) fn orphan_exited(&mut self, run: RunId, out: &mut Out) {
        let known = self.with_orphan(run, |orphan, now| {
            orphan.main_gone = true;
            orphan.sequence.main_ended(run, now, out);
        });
        if !known {
            self.late("an exit", run, out);
        }
    }

    pub(in crate::core) fn orphan_tree(&mut self, run: RunId, left: Vec<Survivor>, out: &mut Out) {
        let mut gone = false;
        let known = self.with_orphan(run, |orphan, now| {
            gone = orphan.main_gone && left.is_empty();
            if orphan.main_gone && !gone {
                orphan.sequence.leftovers(run, terms(), left, now, out);
            } else {
                orphan.sequence.left = left;
            }
        });
        match (known, gone) {
            (false, _) => self.late("a tree", run, out),
            (true, true) => self.orphan_gone(run, out),
            (true, false) => {}
        }
    }

    fn orphan_gone(&mut self, run: RunId, out: &mut Out) {
        self.orphans.remove(&run);
        self.deadlines.set(Due::Orphan(run), None);
        out.effects.push(Effect::Forget { run });
        if self.orphans.is_empty() && self.unseen.take().is_some() {
            self.save_meta(out);
        }
        for i in self.table.by_name().collect::<Vec<_>>() {
            self.table.look(i);
        }
        if self.orphans.is_empty() {
            self.tasks.look_at_all();
        }
    }

    pub(in crate::core) fn orphan_due(&mut self, run: RunId, out: &mut Out) {
        self.with_orphan(run, |orphan, now| orphan.sequence.tick(run, terms(), now, out));
    }

    pub(in crate::core) fn orphan_kill(&mut self, run: RunId, out: &mut Out) {
        self.with_orphan(run, |orphan, now| orphan.sequence.kill(run, terms(), now, out));
    }
}
