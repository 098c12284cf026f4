//! The fake system: processes with their habits, the keeper's run table, and what outlives whom. It decides nothing;
//! the world asks it and schedules what it answers.

use crate::plan::{Options, program};
use crate::rng::Rng;
use hob::base::ids::RunId;
use hob::config::{Ready, ServiceSpec};
use hob::core::{Duty, End, StartError, Survivor, TableRun, Usage};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Nanoseconds in a millisecond.
pub const MS: u64 = 1_000_000;

/// A living process.
#[derive(Clone, Debug)]
pub struct Proc {
    pub pid: u32,
    pub run: RunId,
    pub main: bool,
    pub deaf: bool,
    /// Its end is decided and scheduled.
    pub dying: bool,
    /// It has become ready by its own means.
    pub ready: bool,
}

/// What a new process will do.
#[derive(Debug)]
pub struct Habits {
    /// Milliseconds until it is ready.
    pub ready_in: Option<u64>,
    /// Milliseconds until it ends by itself, and how.
    pub ends_in: Option<(u64, End)>,
    /// Children it has from the start, and whether each is deaf.
    pub children: Vec<bool>,
    pub deaf: bool,
}

/// What is true about a run, whoever knows it.
#[derive(Clone, Debug)]
pub struct Truth {
    pub service: Arc<str>,
    pub spec: Arc<ServiceSpec>,
    /// A process was made for it.
    pub pid: Option<u32>,
    pub exec_failed: bool,
    pub ended: Option<End>,
}

#[derive(Debug, Default)]
pub struct Os {
    /// All that live.
    pub procs: BTreeMap<u32, Proc>,
    /// The keeper's table; empty for a new keeper.
    pub table: BTreeMap<RunId, TableRun>,
    /// Every run that ever had a start ordered.
    pub runs: BTreeMap<RunId, Truth>,
    /// Runs whose tree is being watched by the present daemon.
    pub watched: BTreeSet<RunId>,
    /// Runs whose readiness is being watched by the present daemon.
    pub awaited: BTreeSet<RunId>,
    /// Services whose sockets are open, and whether they are watched.
    pub sockets: BTreeMap<Arc<str>, bool>,
    /// READY=1 lies in the socket and no daemon has read it.
    pub datagrams: BTreeSet<RunId>,
    /// Runs whose main process has become ready, whoever knows it.
    pub said: BTreeSet<RunId>,
    /// What the present daemon does beside runs, and as the how manieth it was begun.
    pub checks: BTreeMap<(RunId, Duty), u64>,
    pub checks_begun: u64,
    /// The one command that names a version, while it is run.
    pub newest: Option<u64>,
    /// Runs whose processes are stopped, and ends that come once they go on.
    pub paused: BTreeSet<RunId>,
    pub pending_ends: Vec<(u32, End)>,
    last_pid: u32,
}

impl Os {
    pub fn habits(&self, seed: u64, run: RunId, spec: &ServiceSpec, options: &Options, calm: bool) -> Habits {
        let mut r = Rng::fork(seed, 1000 + run.0);
        let deaf = !calm && r.percent(options.deaf);
        let children = if !calm && r.percent(options.leftovers) {
            (0..r.range(1, 3)).map(|_| r.percent(options.deaf)).collect()
        } else {
            Vec::new()
        };
        let soon = r.below(2000);
        let code = End::Code(i32::try_from(r.range(1, 3)).unwrap_or(1));
        let crash = if r.percent(60) { code } else { End::Signal(11) };
        let (ready_in, ends_in) = match program(spec) {
            "crashy" if !calm && r.percent(60) => (soon / 2, Some((r.below(5000), crash))),
            "quick" => (soon, Some((r.below(400), End::Code(0)))),
            "slow" => (soon, Some((r.range(1000, 4000), End::Code(0)))),
            "fails" => (soon, Some((r.below(400), code))),
            "flaky" => (soon, Some((r.below(400), if r.percent(50) { code } else { End::Code(0) }))),
            "signalled" => (soon, Some((r.below(400), End::Signal(11)))),
            "task" => (soon / 4, Some((r.below(3000), End::Code(0)))),
            "late" if !calm => (r.below(30_000), None),
            // Even what ends at once takes a moment to do so.
            "doomed" => (soon, Some((r.range(20, 600), crash))),
            _ => (soon, None),
        };
        Habits { ready_in: Some(ready_in), ends_in, children, deaf }
    }

    /// Makes the main process of a run, and its children.
    pub fn spawn(&mut self, run: RunId, habits: &Habits) -> u32 {
        let pid = self.add(run, true, habits.deaf);
        for deaf in &habits.children {
            self.add(run, false, *deaf);
        }
        if let Some(truth) = self.runs.get_mut(&run) {
            truth.pid = Some(pid);
        }
        if let Some(slot) = self.table.get_mut(&run) {
            slot.pid = Some(pid);
        }
        pid
    }

    fn add(&mut self, run: RunId, main: bool, deaf: bool) -> u32 {
        self.last_pid += 1;
        let pid = 100 + self.last_pid;
        self.procs.insert(pid, Proc { pid, run, main, deaf, dying: false, ready: false });
        pid
    }

    /// Ends a process and reaps it; true when it was alive.
    pub fn end(&mut self, pid: u32, end: End) -> Option<Proc> {
        let proc = self.procs.remove(&pid)?;
        if proc.main {
            if let Some(truth) = self.runs.get_mut(&proc.run) {
                truth.ended = Some(end);
            }
            if let Some(slot) = self.table.get_mut(&proc.run) {
                slot.ended = Some((end, Usage::default()));
            }
            self.datagrams.remove(&proc.run);
        }
        Some(proc)
    }

    pub fn main_of(&self, run: RunId) -> Option<&Proc> {
        self.procs.values().find(|p| p.run == run && p.main)
    }

    /// Everybody alive of a run.
    pub fn tree(&self, run: RunId) -> Vec<Survivor> {
        let of_run = self.procs.values().filter(|p| p.run == run);
        of_run.map(|p| Survivor { pid: p.pid, name: if p.main { "main" } else { "child" }.to_owned() }).collect()
    }

    /// Living processes of all runs of a service.
    pub fn of_service<'a>(&'a self, service: &'a str) -> impl Iterator<Item = &'a Proc> {
        self.procs.values().filter(move |p| self.runs.get(&p.run).is_some_and(|t| &*t.service == service))
    }

    /// What a new daemon of this keeper finds.
    pub fn table_runs(&self) -> Vec<TableRun> {
        self.table.values().cloned().collect()
    }

    /// What a new keeper finds.
    pub fn leftovers(&self) -> Vec<(RunId, Vec<Survivor>)> {
        let runs: BTreeSet<RunId> =
            self.procs.values().map(|p| p.run).filter(|r| !self.table.contains_key(r)).collect();
        runs.into_iter().map(|r| (r, self.tree(r))).collect()
    }

    /// The daemon is gone: what only it had is lost.
    pub fn daemon_died(&mut self) {
        self.watched.clear();
        self.awaited.clear();
        self.checks.clear();
        self.newest = None;
        self.sockets.values_mut().for_each(|watched| *watched = false);
    }

    pub fn keeper_died(&mut self) {
        self.table.clear();
        self.sockets.clear();
        self.datagrams.clear();
    }

    pub fn power_lost(&mut self) {
        self.keeper_died();
        let lost: Vec<u32> = self.procs.keys().copied().collect();
        for pid in lost {
            self.end(pid, End::Unknown);
        }
    }
}

pub fn exec_error() -> StartError {
    StartError { message: "cannot execute sim: No such file or directory".to_owned(), transient: false }
}

pub fn shortage() -> StartError {
    StartError { message: "cannot make a process: Resource temporarily unavailable".to_owned(), transient: true }
}

/// Whether this readiness is told by the program on its socket.
pub fn notifies(spec: &ServiceSpec) -> bool {
    match spec.ready {
        Ready::Notify => true,
        Ready::Spawned | Ready::Port(_) | Ready::Log(_) | Ready::Fd(_) | Ready::Socket(_) | Ready::Command(_) => false,
    }
}
