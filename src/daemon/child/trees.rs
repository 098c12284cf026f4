//! Signals and who is left: to the main process by its descriptor, to the tree by control group or by sweeps in the
//! pool.

use super::adopt::mains;
use super::{Children, Ctx, Life, MeasureJob, Run, SweepDone, SweepJob, ended_as};
use crate::base::ids::RunId;
use crate::core::{End, Input, Survivor, Usage};
use crate::daemon::source::Source;
use crate::sys::chan;
use crate::sys::signals::{SIGCONT, SIGINT, SIGQUIT, SIGTERM};
use crate::sys::table::RunTable;
use crate::sys::tree::{self, Group, Sweep};
use crate::sys::wait::{self, Adopted};
use core::time::Duration;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

pub(super) const SIGKILL: i32 = 9;

/// What follows a signal that asks for an end: a stopped process sees nothing before it goes on.
pub(super) fn waking(signal: i32) -> Option<i32> {
    [SIGINT, SIGQUIT, SIGTERM].contains(&signal).then_some(SIGCONT)
}

impl Children {
    /// Sends a signal to the main process, or to every process of the run. A job, where there is one, belongs into the
    /// bulk lane and its result to `swept`.
    #[must_use]
    pub fn signal(&mut self, table: &RunTable, run: RunId, signal: i32, tree: bool) -> Option<SweepJob> {
        let entry = self.runs.get_mut(&run)?;
        if !tree {
            entry.signal_main(table, signal);
            // What is about to lose its main process is remembered where it could not be recognised later.
            let unmarked = entry.group.is_none() && tree::tag(self.setup.home, run).is_none();
            return unmarked.then(|| self.job(table, run, None));
        }
        match &entry.group {
            Some(group) if !entry.leftover => {
                let _ = group.signal(signal);
                if let Some(also) = waking(signal) {
                    let _ = group.signal(also);
                }
                None
            }
            _ => {
                entry.signal_main(table, signal);
                Some(self.job(table, run, Some(signal)))
            }
        }
    }

    /// Kills the whole tree. A job, where there is one, belongs into the bulk lane and its result to `swept`.
    #[must_use]
    pub fn kill(&mut self, table: &RunTable, run: RunId) -> Option<SweepJob> {
        let entry = self.runs.get_mut(&run)?;
        entry.signal_main(table, SIGKILL);
        if let Some(group) = &entry.group {
            group.kill();
        }
        if entry.group.is_some() && !entry.leftover {
            return None;
        }
        Some(SweepJob { insist: true, ..self.job(table, run, Some(SIGKILL)) })
    }

    /// Asks who is left of a run. With a control group the answer is told at once, and again by itself when the group
    /// becomes empty; else a job for the bulk lane comes back, whose result `swept` tells. An empty answer of a job is
    /// the result of two successive looks.
    #[must_use]
    pub fn sweep(&mut self, ctx: &mut Ctx<'_>, run: RunId, inputs: &mut Vec<Input>) -> Option<SweepJob> {
        let Some(entry) = self.runs.get_mut(&run) else {
            inputs.push(Input::Tree { run, left: Vec::new() });
            return None;
        };
        match entry.group.clone().filter(|_| !entry.leftover) {
            Some(group) => {
                let left = entry.look(ctx, run, &group);
                inputs.push(Input::Tree { run, left });
                None
            }
            None if entry.sweeping.is_some_and(|until| ctx.now < until) => None,
            None => {
                entry.sweeping = Some(ctx.now + SweepJob::DEADLINE);
                Some(SweepJob { answer: true, ..self.job(ctx.table, run, None) })
            }
        }
    }

    /// The keeper has died: from now on members of a run may be anywhere in the process table, and nobody tells the
    /// ends of runs that this daemon is not the parent of, so that it looks for them itself.
    pub fn keeper_gone(&mut self, ctx: &mut Ctx<'_>, inputs: &mut Vec<Input>) {
        self.keeper_gone = true;
        let adopted = self.runs.iter().filter(|(_, r)| r.life == Life::Adopted).map(|(run, _)| *run);
        for run in adopted.collect::<Vec<_>>() {
            self.listen(ctx, run);
            // Whether one without a descriptor still runs is found out by the sweeps that follow its end.
            if self.runs.get(&run).is_some_and(|r| r.pidfd.is_none()) {
                self.adopted_ended(ctx, run, inputs);
            }
        }
    }

    /// The descriptor of a run that outlived its keeper is readable.
    pub(super) fn orphan_readable(&mut self, ctx: &mut Ctx<'_>, run: RunId, inputs: &mut Vec<Input>) {
        let fd = self.runs.get(&run).and_then(|r| r.pidfd.as_ref());
        let gone =
            |fd: &OwnedFd| chan::wait([(Some(fd.as_fd()), false)], Some(Duration::ZERO)).is_ok_and(|[r]| r.readable);
        if fd.is_some_and(gone) {
            self.adopted_ended(ctx, run, inputs);
        }
    }

    /// Whoever has reaped it writes into no table, unless it was the keeper as its last act.
    fn adopted_ended(&mut self, ctx: &mut Ctx<'_>, run: RunId, inputs: &mut Vec<Input>) {
        let Some(entry) = self.runs.get_mut(&run) else { return };
        let ended = entry.slot.and_then(|slot| Some((slot, ctx.table.slot(slot).ended?)));
        entry.end(ctx);
        let (end, usage) = match ended {
            Some((slot, (status, usage))) => ended_as((ctx.table, slot), status, usage),
            None => (End::Unknown, Usage::default()),
        };
        inputs.push(Input::Exited { run, end, usage });
    }

    /// A sweep came out of the pool.
    pub fn swept(&mut self, done: SweepDone, inputs: &mut Vec<Input>) {
        let Some(entry) = self.runs.get_mut(&done.run) else { return };
        entry.known = done.members;
        if done.answer {
            entry.sweeping = None;
            inputs.push(Input::Tree { run: done.run, left: done.left });
        }
    }

    /// The control group of a run has changed.
    pub fn tree_changed(&mut self, ctx: &mut Ctx<'_>, run: RunId, inputs: &mut Vec<Input>) {
        let Some(entry) = self.runs.get_mut(&run) else { return };
        let populated = entry.group.as_ref().is_some_and(|g| g.populated().unwrap_or(false));
        if !populated {
            entry.unwatch(ctx);
            inputs.push(Input::Tree { run, left: Vec::new() });
        }
    }

    /// What these runs cost now, as a job for any lane; runs that are not known are left out.
    #[must_use]
    pub fn measure<'a>(&self, runs: impl IntoIterator<Item = &'a RunId>) -> MeasureJob {
        let known = runs.into_iter().filter_map(|run| Some((*run, &**self.runs.get(run)?)));
        let live = |(run, r): (RunId, &Run)| (run, r.pid.filter(|_| r.life != Life::Ended), r.group.clone());
        MeasureJob { runs: known.map(live).collect() }
    }

    pub(super) fn sweep_of(&self, table: &RunTable, everywhere: bool) -> Sweep {
        let known = self.runs.iter().flat_map(|(run, r)| r.known.iter().map(|m| (*run, m.clone()))).collect();
        Sweep { family: self.family(), mains: mains(table), known, everywhere }
    }

    fn job(&self, table: &RunTable, run: RunId, signal: Option<i32>) -> SweepJob {
        let entry = self.runs.get(&run);
        let leftover = entry.is_some_and(|r| r.leftover);
        SweepJob {
            run,
            sweep: self.sweep_of(table, leftover || self.keeper_gone),
            group: entry.and_then(|r| r.group.clone()),
            signal,
            insist: false,
            answer: false,
        }
    }
}

impl Run {
    /// To the process of the descriptor and to no other. One that has gone needs no signal.
    pub(super) fn signal_main(&mut self, table: &RunTable, signal: i32) {
        if self.pidfd.is_none() {
            self.pidfd = match (self.life, self.slot, self.pid) {
                // Not yet reaped by us, so that the pid can only be the child's.
                (Life::Own, _, Some(pid)) => wait::pidfd_open(pid).ok(),
                (Life::Adopted, Some(slot), _) => match wait::adopt(table, slot) {
                    Ok(Adopted::Alive(fd)) => Some(fd),
                    _ => None,
                },
                _ => None,
            };
        }
        if let Some(fd) = &self.pidfd {
            let _ = wait::pidfd_send_signal(fd.as_fd(), signal);
            if let Some(also) = waking(signal) {
                let _ = wait::pidfd_send_signal(fd.as_fd(), also);
            }
        }
    }

    /// Who is in the group. While somebody is, its becoming empty is watched for.
    fn look(&mut self, ctx: &mut Ctx<'_>, run: RunId, group: &Arc<Group>) -> Vec<Survivor> {
        let populated = || group.populated().unwrap_or(false);
        if populated() {
            self.watch(ctx, run, group);
            // Asked again, because it may have become empty before it was watched.
            let members = group.members();
            if populated() {
                let nobody = members.is_empty();
                // A process that hob cannot see, such as one of an outer pid namespace that was moved into the group.
                let hidden = nobody.then(|| Survivor { pid: 0, name: "a process that hob cannot see".to_owned() });
                return members.into_iter().map(|m| Survivor { pid: m.pid, name: m.name }).chain(hidden).collect();
            }
        }
        self.unwatch(ctx);
        Vec::new()
    }

    fn watch(&mut self, ctx: &mut Ctx<'_>, run: RunId, group: &Arc<Group>) {
        if self.watch.is_some() {
            return;
        }
        // Without descriptors for a watch the core's own later looks have to do.
        let Ok(fd) = group.watch() else { return };
        if let Ok(token) = ctx.sources.add(ctx.registry, fd.as_raw_fd(), tree::CHANGED, Source::Tree(run)) {
            self.watch = Some((fd, token));
        }
    }
}
