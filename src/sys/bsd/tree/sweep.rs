//! Members of a run, one look at the process table at a time.
//!
//! Where the keeper inherits orphans, what a dead main process leaves stays below it. Elsewhere it falls to the
//! system's first process, so that every process of the machine is looked at, and one that has cleared its
//! environment, left its session and lost its parent is not found. A pid is never enough: it goes with a parent, a
//! start time or HOB_RUN.

use super::super::SUBREAPER;
use super::owners::{below, owners};
use super::proc::{self, Stat};
use crate::base::ids::RunId;
use std::collections::{BTreeMap, BTreeSet};

/// The processes that are hob itself, and the number that tells its runs from those of another hob on the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    pub home: u32,
    pub keeper: u32,
    pub daemon: u32,
}

/// The main process of a run that the table knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Main {
    pub run: RunId,
    pub pid: u32,
    /// Not yet reaped by hob.
    pub alive: bool,
}

/// A process found, named for the life of the boot by pid and start time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub pid: u32,
    /// Microseconds.
    pub start: u64,
    pub name: String,
}

/// What is believed of what a process says of itself. More includes less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trust {
    /// Nothing: what the kernel says of its parents and its session alone.
    Kernel,
    /// A mark, which no process of these systems bears.
    Mark,
    /// HOB_RUN, which any process could set, and which reading it can make wait for as long as it likes.
    Words,
}

/// What a look at the process table needs to know; a plain value, so that it can be made in one thread and used in
/// another.
#[derive(Clone, Debug)]
pub struct Sweep {
    pub family: Family,
    pub mains: Vec<Main>,
    /// Members seen earlier, with their runs: they stay members whatever they shed.
    pub known: Vec<(RunId, Member)>,
    /// Look at every process of the machine, not only at those below the keeper: for runs of a keeper that died.
    pub everywhere: bool,
}

const VARIABLE: &str = "HOB_RUN";

/// The value of HOB_RUN for a run.
#[must_use]
pub fn run_variable(home: u32, run: RunId) -> String {
    format!("{home:08x}-{run}")
}

fn parse_run_variable(home: u32, value: &str) -> Option<RunId> {
    value.strip_prefix(&format!("{home:08x}-"))?.parse().ok().map(RunId)
}

/// No limit of these systems can carry a mark.
#[must_use]
pub fn tag(_home: u32, _run: RunId) -> Option<(i32, u64)> {
    None
}

/// Whether a process has kept the parent that started it and says that it is of this run.
pub(in crate::sys::os) fn is_kept(pid: u32, run: RunId) -> bool {
    let orphan = proc::stat(pid).is_none_or(|s| s.parent <= 1);
    let said = || proc::variable(pid, VARIABLE).and_then(|v| v.split_once('-')?.1.parse().ok());
    !orphan && said() == Some(run.0)
}

impl Sweep {
    /// One look: who belongs to which run now. A run of which nothing is left does not appear. Zombies count as gone.
    #[must_use]
    pub fn look(&self) -> BTreeMap<RunId, Vec<Member>> {
        let table = proc::table();
        let mut found: BTreeMap<RunId, Vec<Member>> = BTreeMap::new();
        for (pid, run) in self.owners(&table, Trust::Words) {
            if let Some(s) = table.get(&pid).filter(|s| !s.zombie) {
                found.entry(run).or_default().push(Member { pid, start: s.start, name: s.name.clone() });
            }
        }
        found
    }

    /// Members of one run; an empty answer is the result of two successive looks.
    #[must_use]
    pub fn members(&self, run: RunId) -> Vec<Member> {
        let first = self.look().remove(&run).unwrap_or_default();
        if first.is_empty() { self.look().remove(&run).unwrap_or_default() } else { first }
    }

    /// Whether a living process belongs to a run: `None` when it has gone. It is believed as far as `trust` goes.
    #[must_use]
    pub fn run_of(&self, pid: u32, trust: Trust) -> Option<Option<RunId>> {
        let table = proc::table();
        table.get(&pid).filter(|s| !s.zombie)?;
        Some(self.owners(&table, trust).remove(&pid))
    }

    fn owners(&self, table: &BTreeMap<u32, Stat>, trust: Trust) -> BTreeMap<u32, RunId> {
        let below = below(table, self.family.keeper);
        let hob = [self.family.keeper, self.family.daemon];
        let everywhere = self.everywhere || !SUBREAPER;
        owners(table, &hob, &mut |s| {
            let inside = below.contains(&s.pid);
            if inside || everywhere { self.evidence(s, inside, trust) } else { None }
        })
    }

    /// Which run a process says it is of, its ancestors left aside. What it cannot change is asked first.
    fn evidence(&self, s: &Stat, inside: bool, trust: Trust) -> Option<RunId> {
        // Only the child of a process of hob is sure not to have been reaped.
        let own = [self.family.keeper, self.family.daemon].contains(&s.parent);
        if let Some(m) = self.mains.iter().find(|m| own && m.alive && m.pid == s.pid) {
            return Some(m.run);
        }
        if let Some((run, _)) = self.known.iter().find(|(_, m)| m.pid == s.pid && m.start == s.start) {
            return Some(*run);
        }
        let said = || parse_run_variable(self.family.home, &proc::variable(s.pid, VARIABLE)?);
        let named = if trust >= Trust::Words { said() } else { None };
        named.or_else(|| {
            // A pid is not given out again while a session or group bears it; a living owner is asked before a dead
            // one.
            let of = |alive| move |m: &&Main| m.alive == alive && (m.pid == s.session || m.pid == s.group);
            let find = |alive| self.mains.iter().find(of(alive)).filter(|_| inside);
            find(true).or_else(|| find(false)).map(|m| m.run)
        })
    }
}

/// Sends a signal to each member that still is the process it was. Answers how many got it.
pub fn signal_members(members: &[Member], signal: i32) -> usize {
    members.iter().filter(|m| signal_one(m, signal)).count()
}

/// A process that ends and leaves its number to another between the two calls would be missed; nothing here can name a
/// process that is no child by more than its number.
fn signal_one(m: &Member, signal: i32) -> bool {
    let same = proc::stat(m.pid).is_some_and(|s| s.start == m.start && !s.zombie);
    let pid = libc::pid_t::try_from(m.pid).ok().filter(|p| *p > 1);
    // SAFETY: a plain call with a positive pid.
    same && pid.is_some_and(|pid| unsafe { libc::kill(pid, signal) } == 0)
}

/// Processes of runs of this home that are not in `mains`: what a keeper and daemon that both died left on the
/// machine. Found by HOB_RUN, never by a stored pid.
#[must_use]
pub fn leftovers(family: Family, mains: Vec<Main>) -> BTreeMap<RunId, Vec<Member>> {
    let live: BTreeSet<RunId> = mains.iter().map(|m| m.run).collect();
    let mut found = Sweep { family, mains, known: Vec::new(), everywhere: true }.look();
    found.retain(|run, _| !live.contains(run));
    found
}
