//! Taking over: runs in the keeper's table, notify sockets it held, and what a keeper that died left on the machine.

use super::peer::trust;
use super::trees::SIGKILL;
use super::{Children, Ctx, Life, Run, Todo, ended_as, plan};
use crate::base::gather::Gather as _;
use crate::base::ids::RunId;
use crate::base::map::Map;
use crate::core::{End, Survivor, TableRun, Usage};
use crate::sys::spawn;
use crate::sys::table::{RunTable, Slot, SlotView};
use crate::sys::tree::{self, Family, Group, Member, Trust};
use crate::sys::wait::{self, Adopted};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

impl Children {
    pub(super) fn family(&self) -> Family {
        Family { home: self.setup.home, keeper: self.setup.keeper, daemon: self.setup.daemon }
    }

    /// Takes over every run in the keeper's table. `service_of` names the service of a run, from the journal; where it
    /// does not know, the mark of the control group is asked.
    pub fn adopt(&mut self, ctx: &mut Ctx<'_>, service_of: &dyn Fn(RunId) -> Option<Arc<str>>) -> Vec<TableRun> {
        let mut groups = self.marked_groups();
        let slots: Vec<(Slot, SlotView)> = ctx.table.iter().filter(|(_, view)| view.run != RunId(0)).collect();
        let mut found = Vec::with_capacity(slots.len());
        for (slot, view) in slots {
            let group = groups.remove(&view.run);
            if view.run.is_command() {
                self.end_adopted_command(ctx, slot, view, group);
                continue;
            }
            let service = service_of(view.run).or_else(|| group.as_ref().map(|g| Arc::from(g.service())));
            let mut run = Run::new(service.clone(), Some(slot), Life::Ended);
            run.pid = view.pid;
            run.group.clone_from(&group);
            if let Some(name) = service {
                let service = self.services.get_or(name, super::Service::default);
                service.current = Some(view.run);
                service.group = group;
            }
            found.push(self.take(ctx.table, slot, view, &mut run));
            self.runs.insert(view.run, run);
        }
        for group in groups.into_iter().filter(|(run, _)| run.is_command()).map(|(_, group)| group) {
            group.kill();
        }
        found
    }

    /// A command that the daemon before this one had begun: nobody waits for it any more.
    fn end_adopted_command(&mut self, ctx: &mut Ctx<'_>, slot: Slot, view: SlotView, group: Option<Arc<Group>>) {
        let mut run = Run::new(None, Some(slot), Life::Ended);
        run.group = group;
        let told = self.take(ctx.table, slot, view, &mut run);
        run.pid = told.pid;
        self.runs.insert(view.run, run);
        if let Some(job) = self.kill(ctx.table, view.run) {
            self.todo.push(Todo::Sweep(job));
        }
        self.forget(ctx, view.run);
    }

    fn take(&self, table: &RunTable, slot: Slot, view: SlotView, run: &mut Run) -> TableRun {
        let adopted = wait::adopt(table, slot);
        let exec_error = spawn::error_in(table, slot).map(|e| plan::explain(&e, None));
        let mut told = TableRun { run: view.run, pid: view.pid, exec_error, ended: None, asked: table.asked(slot) };
        match adopted {
            Ok(Adopted::Ended(status, usage)) => told.ended = Some(ended_as((table, slot), status, usage)),
            Ok(Adopted::Alive(pidfd)) => {
                run.pidfd = Some(pidfd);
                run.life = Life::Adopted;
            }
            // Without descriptors the keeper's word on the end still comes, and a signal tries for one again.
            Err(_) => run.life = Life::Adopted,
            Ok(Adopted::Nothing) if view.pid.is_some() => told.ended = Some((End::Unknown, Usage::default())),
            Ok(Adopted::Nothing) => {}
        }
        if told.exec_error.is_some() {
            // The core is told of a start that failed, never of an end as well.
            told.ended = None;
            if run.life == Life::Adopted {
                run.life = Life::Failing;
            }
        }
        told
    }

    /// The groups that exist, by the run that each was marked with last.
    fn marked_groups(&self) -> Map<RunId, Arc<Group>> {
        let Ok(groups) = &self.groups else { return Map::new() };
        let marked = |g: Group| Some((g.marked().filter(|run| *run != RunId(0))?, Arc::new(g)));
        groups.list().into_iter().filter_map(marked).gather()
    }

    /// Takes back a notify socket that the keeper held under `notify_label`.
    ///
    /// # Errors
    /// What the selector answers.
    pub fn restore_notify(&mut self, ctx: &mut Ctx<'_>, service: &Arc<str>, fd: OwnedFd) -> io::Result<()> {
        self.sockets.restore(ctx, &self.setup, service, fd)
    }

    /// What a keeper and its daemon that both died left running: found by control group and by HOB_RUN, never by a
    /// stored pid. To be asked after `adopt`, by the first daemon of a keeper. The runs can then be signalled, killed,
    /// swept and forgotten like any other; a group that names no run is killed here.
    ///
    /// `everywhere`: look at every process of the machine, which takes its time; without it at control groups alone.
    pub fn leftovers(&mut self, table: &RunTable, everywhere: bool) -> Vec<(RunId, Vec<Survivor>)> {
        let mut found: BTreeMap<RunId, Vec<Member>> =
            if everywhere { tree::leftovers(self.family(), mains(table)) } else { BTreeMap::new() };
        let mut groups = Map::new();
        for (run, group) in self.marked_groups() {
            if self.runs.contains_key(&run) || !group.populated().unwrap_or(false) {
                continue;
            }
            found.entry(run).or_default().extend(group.members());
            groups.insert(run, group);
        }
        self.kill_nameless();
        let mut told = Vec::with_capacity(found.len());
        for (run, mut members) in found {
            super::job::once_each(&mut members);
            if run.is_command() {
                groups.remove(&run).iter().for_each(|g: &Arc<Group>| g.kill());
                tree::signal_members(&members, SIGKILL);
                continue;
            }
            told.push((run, members.iter().map(|m| Survivor { pid: m.pid, name: m.name.clone() }).collect()));
            let group = groups.remove(&run);
            let service = group.as_ref().map(|g: &Arc<Group>| Arc::from(g.service()));
            let mut entry = Run::new(service, None, Life::Ended);
            (entry.group, entry.leftover, entry.known) = (group, true, members);
            self.runs.insert(run, entry);
        }
        told
    }

    /// No start leaves a group without a mark, so nothing that hob owes anybody can be in one.
    fn kill_nameless(&self) {
        let Ok(groups) = &self.groups else { return };
        for group in groups.list().iter().filter(|g| g.marked().is_none()) {
            group.kill();
        }
    }

    /// Whether a process may speak for a run: it is of its tree; or it is of the user that the run is of, `of`, or
    /// root's, and says that it is of its tree, or has gone and is not known to be of another.
    pub(super) fn speaks_for(
        &self,
        table: &RunTable,
        (service, run): (&str, RunId),
        (pid, uid): (u32, u32),
        of: &dyn Fn() -> Option<u32>,
    ) -> bool {
        if self.runs.get(&run).is_some_and(|r| r.pid == Some(pid) && r.life != Life::Ended) {
            return true;
        }
        if self.groups.as_ref().ok().and_then(|g| g.holds(service, pid)) == Some(true) {
            return true;
        }
        let believed = uid == 0 || of() == Some(uid);
        match self.sweep_of(table, false).run_of(pid, if believed { trust(uid, true) } else { Trust::Kernel }) {
            Some(owner) => owner == Some(run),
            None if !believed => false,
            None => {
                let of = |r: &Run| r.pid == Some(pid) || r.known.iter().any(|m| m.pid == pid);
                !self.runs.iter().any(|(other, r)| *other != run && of(r))
            }
        }
    }
}

pub(super) fn mains(table: &RunTable) -> Vec<tree::Main> {
    let main = |(_, v): (Slot, SlotView)| Some(tree::Main { run: v.run, pid: v.pid?, alive: v.ended.is_none() });
    table.iter().filter(|(_, v)| v.run != RunId(0)).filter_map(main).collect()
}
