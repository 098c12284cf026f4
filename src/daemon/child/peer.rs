//! Which job a process belongs to that speaks to the daemon: by its control group, or by its ancestors where there are
//! none. Reads /proc. A process that wants to hide can, so this is a guard rail against mistakes, not a wall; and one
//! of a hob without control groups can pretend, so that whoever asks looks at its user as well.

use super::{Children, Life};
use crate::base::ids::RunId;
use crate::sys::tree::{Main, Sweep, Trust};
use crate::sys::{net, user};
use std::sync::Arc;

/// Whose a process is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// No job's.
    Nobody,
    /// It is of a job of this service, a command beside one included.
    Job(Arc<str>),
    /// It is of a run that is over, or of a command beside none.
    Left,
    /// It has gone, so that nobody can tell any more.
    Gone,
}

/// As far as a process of a user is believed. The environment is read of those alone who could do anything to hob
/// anyway: that of another could keep the loop waiting. `is_job`: it is of the user that the job runs as, so that it
/// could speak through the job's own processes, too.
pub(super) fn trust(uid: u32, is_job: bool) -> Trust {
    if uid == 0 || uid == user::own().0 {
        Trust::Words
    } else if is_job {
        Trust::Mark
    } else {
        Trust::Kernel
    }
}

impl Children {
    /// Whose a process is now, by what it cannot forge or by what it says. `pid` is 0 where the system does not tell
    /// it, or it is of another pid namespace; `uid` is its user.
    #[must_use]
    pub fn whose(&self, pid: u32, uid: u32) -> Whose {
        if pid == 0 || pid == self.setup.keeper || pid == self.setup.daemon {
            return Whose::Nobody;
        }
        if self.services.is_empty() && self.runs.is_empty() {
            return Whose::Nobody;
        }
        if let Ok(groups) = &self.groups {
            match groups.service_of(pid) {
                // A service's name never has a dot after a slash: this is the kind of a command beside it, or none.
                Ok(Some(group)) => match group.split("/.").next().unwrap_or(&group) {
                    "" => return Whose::Left,
                    service => return Whose::Job(service.into()),
                },
                Ok(None) if self.runs.values().all(|r| r.group.is_some()) => return Whose::Nobody,
                Ok(None) => {}
                Err(_) => return if net::exists(pid) { Whose::Nobody } else { Whose::Gone },
            }
        }
        match self.mains_alone().run_of(pid, trust(uid, true)) {
            None if net::exists(pid) => Whose::Nobody,
            None => Whose::Gone,
            Some(None) => Whose::Nobody,
            Some(Some(run)) => self.whose_run(run),
        }
    }

    fn whose_run(&self, run: RunId) -> Whose {
        let of = self.command_of(run).unwrap_or(run);
        self.service_of(of).map_or(Whose::Left, Whose::Job)
    }

    fn mains_alone(&self) -> Sweep {
        let main = |run: &RunId, r: &super::Run| Some(Main { run: *run, pid: r.pid?, alive: r.life != Life::Ended });
        let mains = self.runs.iter().filter_map(|(run, r)| main(run, r)).collect();
        let known = self.runs.iter().flat_map(|(run, r)| r.known.iter().map(|m| (*run, m.clone()))).collect();
        Sweep { family: self.family(), mains, known, everywhere: false }
    }
}
