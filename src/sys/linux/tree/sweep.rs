//! Members of a run without control groups: by ancestry, session, process group, environment, and a mark in a resource
//! limit.
//!
//! The keeper is the only subreaper, so what a dead main process leaves falls to the keeper and stays below it. A
//! process may leave its session, clear its environment and lose its parent; what it cannot shed is the mark: an
//! RLIMIT_RTTIME of more than a hundred thousand years, which limits nothing and names the run. It is set where the
//! limit was infinite before.

use super::proc::{self, Stat};
use crate::base::gather::Gather as _;
use crate::base::ids::RunId;
use crate::sys::{user, wait};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::AsFd;

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
    /// Not yet reaped, so that the pid cannot name another process.
    pub alive: bool,
}

/// A process found, named for the life of the boot by pid and start time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub pid: u32,
    /// Clock ticks since boot.
    pub start: u64,
    pub name: String,
}

/// What is believed of what a process says of itself. More includes less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trust {
    /// Nothing: what the kernel says of its parents and its session alone.
    Kernel,
    /// The mark, which any process could set.
    Mark,
    /// HOB_RUN as well, which any process could set, and which reading it can make wait for as long as it likes.
    Words,
}

impl Trust {
    /// The same for a process of unknown user. The environment is read of those alone who could do anything to hob
    /// anyway.
    fn of(self, pid: u32) -> Trust {
        let close = |uid: u32| uid == 0 || uid == user::own().0;
        let read = self < Trust::Words || proc::users(pid).is_some_and(|all| all.into_iter().all(close));
        if read { self } else { Trust::Mark }
    }
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

/// The value of HOB_RUN for a run.
#[must_use]
pub fn run_variable(home: u32, run: RunId) -> String {
    format!("{home:08x}-{run}")
}

fn parse_run_variable(home: u32, value: &str) -> Option<RunId> {
    value.strip_prefix(&format!("{home:08x}-"))?.parse().ok().map(RunId)
}

// One bit that makes it huge, 32 of the home, 30 of the run; the highest bit is left alone, as some C libraries cut
// there.
const TAG_BIT: u64 = 1 << 62;
const TAG_RUN_BITS: u32 = 30;
const TAG_RUN: u64 = (1 << TAG_RUN_BITS) - 1;

fn tag_value(home: u32, run: RunId) -> u64 {
    TAG_BIT | u64::from(home) << TAG_RUN_BITS | run.0 & TAG_RUN
}

/// The resource limit that marks a run, as (resource, value); `None` where this process's own limit is already finite:
/// then it means something to somebody, or is the mark of an outer hob.
#[must_use]
pub fn tag(home: u32, run: RunId) -> Option<(i32, u64)> {
    let (_, hard) = real_time_limit(0)?;
    let resource = i32::try_from(libc::RLIMIT_RTTIME).ok()?;
    (hard == u64::MAX).then(|| (resource, tag_value(home, run)))
}

/// Soft and hard RLIMIT_RTTIME of a process, 0 for this one; `None` when it has gone or may not be asked.
fn real_time_limit(pid: u32) -> Option<(u64, u64)> {
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    let pid = libc::pid_t::try_from(pid).ok()?;
    // SAFETY: no new limit is set, and `limit` is valid to write to for the length of the call.
    let result = unsafe { libc::prlimit64(pid, libc::RLIMIT_RTTIME, std::ptr::null(), &raw mut limit) };
    (result == 0).then_some((limit.rlim_cur, limit.rlim_max))
}

fn tagged_run(home: u32, pid: u32) -> Option<u64> {
    let (_, hard) = real_time_limit(pid)?;
    let ours = hard >> TAG_RUN_BITS == tag_value(home, RunId(0)) >> TAG_RUN_BITS;
    ours.then_some(hard & TAG_RUN)
}

impl Sweep {
    /// One look: who belongs to which run now. A run of which nothing is left does not appear. Zombies count as gone.
    #[must_use]
    pub fn look(&self) -> BTreeMap<RunId, Vec<Member>> {
        let table = if self.everywhere { everyone() } else { below(self.family.keeper) };
        let owners = owners(&table, &Hob::of(self.family), &mut |s| self.evidence(s, Trust::Words));
        let mut found: BTreeMap<RunId, Vec<Member>> = BTreeMap::new();
        for (pid, run) in owners {
            if let Some(s) = table.get(&pid).filter(|s| !s.gone()) {
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

    /// Which run a process says it is of, its ancestors left aside. What it cannot change is asked first.
    fn evidence(&self, s: &Stat, trust: Trust) -> Option<RunId> {
        let home = self.family.home;
        if let Some(m) = self.mains.iter().find(|m| m.alive && m.pid == s.pid) {
            return Some(m.run);
        }
        if let Some((run, _)) = self.known.iter().find(|(_, m)| m.pid == s.pid && m.start == s.start) {
            return Some(*run);
        }
        let tagged = || tagged_run(home, s.pid).filter(|_| trust >= Trust::Mark);
        if let Some(low) = tagged() {
            let of_table = self.mains.iter().map(|m| m.run).find(|r| r.0 & TAG_RUN == low);
            return Some(of_table.unwrap_or(RunId(low)));
        }
        let said = || parse_run_variable(home, &proc::variable(s.pid, "HOB_RUN")?);
        let named = if trust >= Trust::Words { said() } else { None };
        named.or_else(|| {
            // A pid is not given out again while a session or group bears it; a living owner is asked before a dead
            // one.
            let of = |alive| move |m: &&Main| m.alive == alive && (m.pid == s.session || m.pid == s.group);
            self.mains.iter().find(of(true)).or_else(|| self.mains.iter().find(of(false))).map(|m| m.run)
        })
    }

    /// Whether a living process belongs to a run: `None` when it has gone. Looks at the process and its ancestors
    /// alone, and believes them as far as `trust` goes.
    #[must_use]
    pub fn run_of(&self, pid: u32, trust: Trust) -> Option<Option<RunId>> {
        if pid == self.family.keeper || pid == self.family.daemon {
            return Some(None);
        }
        let mut table = BTreeMap::new();
        let mut next = pid;
        while next > 1 && next != self.family.keeper && next != self.family.daemon && !table.contains_key(&next) {
            let Some(s) = proc::stat(next) else { break };
            let parent = s.parent;
            table.insert(next, s);
            next = parent;
        }
        table.get(&pid).filter(|s| !s.gone())?;
        Some(owners(&table, &Hob::of(self.family), &mut |s| self.evidence(s, trust.of(s.pid))).remove(&pid))
    }
}

/// The processes that are nobody's, and the sessions from which nothing follows.
struct Hob {
    pids: [u32; 2],
    sessions: Vec<u32>,
}

impl Hob {
    fn of(family: Family) -> Hob {
        let pids = [family.keeper, family.daemon];
        Hob { pids, sessions: pids.iter().filter_map(|p| Some(proc::stat(*p)?.session)).collect() }
    }
}

/// Every process below the keeper.
fn below(keeper: u32) -> BTreeMap<u32, Stat> {
    let mut found = BTreeMap::new();
    let mut open = vec![keeper];
    while let Some(pid) = open.pop() {
        let Some(children) = proc::children(pid) else { return descendants(keeper, everyone()) };
        for child in children {
            if let Some(s) = proc::stat(child)
                && found.insert(child, s).is_none()
            {
                open.push(child);
            }
        }
    }
    found
}

fn everyone() -> BTreeMap<u32, Stat> {
    proc::all().into_iter().filter_map(|pid| Some((pid, proc::stat(pid)?))).gather()
}

fn descendants(root: u32, all: BTreeMap<u32, Stat>) -> BTreeMap<u32, Stat> {
    let mut inside = BTreeSet::from([root]);
    loop {
        let before = inside.len();
        inside.extend(all.values().filter(|s| inside.contains(&s.parent)).map(|s| s.pid).collect::<Vec<_>>());
        if inside.len() == before {
            break;
        }
    }
    all.into_iter().filter(|(pid, _)| *pid != root && inside.contains(pid)).gather()
}

/// Gives each process the run of its parent, or else the one it has evidence for, or else that of its session: every
/// run begins a session of its own and a session cannot be joined from outside.
fn owners(
    table: &BTreeMap<u32, Stat>,
    hob: &Hob,
    evidence: &mut dyn FnMut(&Stat) -> Option<RunId>,
) -> BTreeMap<u32, RunId> {
    let mut decided: BTreeMap<u32, Option<RunId>> = hob.pids.iter().map(|p| (*p, None)).gather();
    for pid in table.keys() {
        for pid in undecided_line(table, &decided, *pid) {
            let Some(s) = table.get(&pid) else { continue };
            let inherited = decided.get(&s.parent).copied().flatten();
            decided.insert(pid, inherited.or_else(|| evidence(s)));
        }
    }
    loop {
        let sessions: BTreeMap<u32, RunId> = table
            .values()
            .filter(|s| s.session != 0 && !hob.sessions.contains(&s.session))
            .filter_map(|s| Some((s.session, decided.get(&s.pid).copied().flatten()?)))
            .gather();
        let late: Vec<(u32, RunId)> = table
            .values()
            .filter(|s| !hob.pids.contains(&s.pid) && decided.get(&s.pid).copied().flatten().is_none())
            .filter_map(|s| {
                let parent = decided.get(&s.parent).copied().flatten();
                Some((s.pid, parent.or_else(|| sessions.get(&s.session).copied())?))
            })
            .collect();
        if late.is_empty() {
            break;
        }
        decided.extend(late.into_iter().map(|(pid, run)| (pid, Some(run))));
    }
    decided.into_iter().filter_map(|(pid, run)| Some((pid, run?))).gather()
}

/// A process and its ancestors that are not decided yet, the oldest first.
fn undecided_line(table: &BTreeMap<u32, Stat>, decided: &BTreeMap<u32, Option<RunId>>, pid: u32) -> Vec<u32> {
    let mut line = Vec::new();
    let mut next = pid;
    // The table is read while it changes, so that a circle is possible: nothing is walked twice.
    while !decided.contains_key(&next) && !line.contains(&next) {
        let Some(s) = table.get(&next) else { break };
        line.push(next);
        next = s.parent;
    }
    line.reverse();
    line
}

/// Sends a signal to each member that still is the process it was. Answers how many got it.
pub fn signal_members(members: &[Member], signal: i32) -> usize {
    members.iter().filter(|m| signal_one(m, signal).is_ok()).count()
}

fn signal_one(m: &Member, signal: i32) -> io::Result<()> {
    let pidfd = wait::pidfd_open(m.pid)?;
    // Opened first and verified after: from here on the descriptor means the process whose start time is read.
    if proc::stat(m.pid).is_none_or(|s| s.start != m.start) {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    wait::pidfd_send_signal(pidfd.as_fd(), signal)
}

/// Processes of runs of this home that are not in `mains`: what a keeper and daemon that both died left on the machine.
/// Found by HOB_RUN and mark, never by a stored pid.
#[must_use]
pub fn leftovers(family: Family, mains: Vec<Main>) -> BTreeMap<RunId, Vec<Member>> {
    let live: BTreeSet<RunId> = mains.iter().map(|m| m.run).gather();
    let sweep = Sweep { family, mains, known: Vec::new(), everywhere: true };
    let mut found = sweep.look();
    // One that was forked during the first look may be missing from it.
    for (run, members) in sweep.look() {
        let known = found.entry(run).or_default();
        known.extend(members.into_iter().filter(|m| known.iter().all(|k| k.pid != m.pid)).collect::<Vec<_>>());
    }
    found.retain(|run, _| !live.contains(run));
    found
}

#[cfg(test)]
#[path = "sweep_tests.rs"]
mod tests;
