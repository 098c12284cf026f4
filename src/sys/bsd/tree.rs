//! Every process of a run on BSD and macOS: these systems have no control groups, and hob does not read their process
//! tables, so that only the main process and its process group are known.

use crate::base::ids::RunId;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

/// There are none.
#[derive(Clone, Debug)]
pub struct Groups(Infallible);

/// There are none.
#[derive(Debug)]
pub struct Group(Infallible);

impl Groups {
    /// # Errors
    /// Always.
    pub fn probe(_keeper: u32, _home: u32) -> Result<Groups, String> {
        Err("this system has no control groups".to_owned())
    }

    #[must_use]
    pub fn base(&self) -> &Path {
        match self.0 {}
    }

    /// # Errors
    /// None, as nothing can call it.
    pub fn open(&self, _service: &str) -> io::Result<Group> {
        match self.0 {}
    }

    #[must_use]
    pub fn holds(&self, _service: &str, _pid: u32) -> Option<bool> {
        match self.0 {}
    }

    #[must_use]
    pub fn list(&self) -> Vec<Group> {
        match self.0 {}
    }

    pub fn remove_empty(&self) {
        match self.0 {}
    }
}

impl Group {
    #[must_use]
    pub fn service(&self) -> &str {
        match self.0 {}
    }

    /// # Errors
    /// None, as nothing can call it.
    pub fn mark(&self, _run: RunId) -> io::Result<()> {
        match self.0 {}
    }

    #[must_use]
    pub fn marked(&self) -> Option<RunId> {
        match self.0 {}
    }

    #[must_use]
    pub fn exists(&self) -> bool {
        match self.0 {}
    }

    /// # Errors
    /// None, as nothing can call it.
    pub fn populated(&self) -> io::Result<bool> {
        match self.0 {}
    }

    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        match self.0 {}
    }

    #[must_use]
    pub fn members(&self) -> Vec<Member> {
        match self.0 {}
    }

    #[must_use]
    pub fn signal(&self, _signal: i32) -> usize {
        match self.0 {}
    }

    pub fn kill(&self) {
        match self.0 {}
    }

    /// # Errors
    /// None, as nothing can call it.
    pub fn watch(&self) -> io::Result<OwnedFd> {
        match self.0 {}
    }

    #[must_use]
    pub fn memory(&self) -> Option<u64> {
        match self.0 {}
    }

    /// # Errors
    /// None, as nothing can call it.
    pub fn remove(&self) -> io::Result<()> {
        match self.0 {}
    }
}

impl AsFd for Group {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self.0 {}
    }
}

/// What a running process has cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    pub cpu: Duration,
    pub resident: u64,
}

/// Not known here.
#[must_use]
pub fn cost(_pid: u32) -> Option<Cost> {
    None
}

/// The number of a running process stands for its name.
#[must_use]
pub fn name_of(pid: u32) -> Option<String> {
    exists(i64::from(pid)).then(|| format!("process {pid}"))
}

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

/// A process group that has members; `pid` is its leader's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub pid: u32,
    pub start: u64,
    pub name: String,
}

/// What a look needs to know.
#[derive(Clone, Debug)]
pub struct Sweep {
    pub family: Family,
    pub mains: Vec<Main>,
    pub known: Vec<(RunId, Member)>,
    pub everywhere: bool,
}

/// The value of HOB_RUN for a run.
#[must_use]
pub fn run_variable(home: u32, run: RunId) -> String {
    format!("{home:08x}-{run}")
}

/// No limit of these systems can carry a mark.
#[must_use]
pub fn tag(_home: u32, _run: RunId) -> Option<(i32, u64)> {
    None
}

impl Sweep {
    /// The runs whose process group has members.
    #[must_use]
    pub fn look(&self) -> BTreeMap<RunId, Vec<Member>> {
        let group = |m: &&Main| exists(-i64::from(m.pid));
        let member = |m: &Main| Member { pid: m.pid, start: 0, name: format!("process group {}", m.pid) };
        self.mains.iter().filter(group).map(|m| (m.run, vec![member(m)])).collect()
    }

    #[must_use]
    pub fn members(&self, run: RunId) -> Vec<Member> {
        self.look().remove(&run).unwrap_or_default()
    }

    /// Ancestors cannot be asked for: a process is known only as the main one.
    #[must_use]
    pub fn run_of(&self, pid: u32) -> Option<Option<RunId>> {
        exists(i64::from(pid)).then(|| self.mains.iter().find(|m| m.alive && m.pid == pid).map(|m| m.run))
    }
}

/// Sends a signal to each group. Answers how many there were.
#[must_use]
pub fn signal_members(members: &[Member], signal: i32) -> usize {
    members.iter().filter(|m| kill(-i64::from(m.pid), signal)).count()
}

/// Nothing is found without the table.
#[must_use]
pub fn leftovers(_family: Family, _mains: Vec<Main>) -> BTreeMap<RunId, Vec<Member>> {
    BTreeMap::new()
}

fn exists(pid: i64) -> bool {
    kill(pid, 0)
}

fn kill(pid: i64, signal: i32) -> bool {
    let Ok(pid) = libc::pid_t::try_from(pid) else { return false };
    // SAFETY: kill takes two integers. Neither 0 nor -1, which mean whole sets of processes, is ever the pid of a job.
    pid.unsigned_abs() > 1 && unsafe { libc::kill(pid, signal) } == 0
}
