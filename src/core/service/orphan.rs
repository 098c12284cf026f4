//! Runs that no service and no record knows: an intent was lost with a damaged journal. They are stopped like any
//! other. Pure.

use super::stop::{Sequence, Terms};
use crate::base::ids::RunId;
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
        let mut orphan = Orphan { main_gone: !alive, ..Orphan::default() };
        if alive {
            orphan.sequence.ask(run, terms(), self.now.mono, out);
        } else {
            orphan.sequence.main_ended(run, self.now.mono, out);
            if !left.is_empty() {
                orphan.sequence.leftovers(run, terms(), left, self.now.mono, out);
            }
        }
        self.orphan_keep(run, orphan);
    }

    fn orphan_keep(&mut self, run: RunId, orphan: Orphan) {
        self.deadlines.set(Due::Orphan(run), orphan.sequence.deadline());
        self.orphans.insert(run, orphan);
    }

    pub(in crate::core) fn orphan_exited(&mut self, run: RunId, out: &mut Out) {
        let Some(mut orphan) = self.orphans.remove(&run) else { return self.late("an exit", run, out) };
        orphan.main_gone = true;
        orphan.sequence.main_ended(run, self.now.mono, out);
        self.orphan_keep(run, orphan);
    }

    pub(in crate::core) fn orphan_tree(&mut self, run: RunId, left: Vec<Survivor>, out: &mut Out) {
        let Some(mut orphan) = self.orphans.remove(&run) else { return self.late("a tree", run, out) };
        if orphan.main_gone && left.is_empty() {
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
            return;
        }
        if orphan.main_gone {
            orphan.sequence.leftovers(run, terms(), left, self.now.mono, out);
        } else {
            orphan.sequence.left = left;
        }
        self.orphan_keep(run, orphan);
    }

    pub(in crate::core) fn orphan_due(&mut self, run: RunId, out: &mut Out) {
        if let Some(mut orphan) = self.orphans.remove(&run) {
            orphan.sequence.tick(run, terms(), self.now.mono, out);
            self.orphan_keep(run, orphan);
        }
    }

    pub(in crate::core) fn orphan_kill(&mut self, run: RunId, out: &mut Out) {
        if let Some(mut orphan) = self.orphans.remove(&run) {
            orphan.sequence.kill(run, terms(), self.now.mono, out);
            self.orphan_keep(run, orphan);
        }
    }
}
