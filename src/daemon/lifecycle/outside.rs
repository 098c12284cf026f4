//! Files that a person names, the config and a new program, may lie on a mount that does not answer. They are looked at
//! in a lane of the pool that nothing else waits for; who asked is told after a while, and until that thread comes back
//! no other one is lost at the same place.

use super::upgrade::LOOKING;
use crate::base::ids::ReqId;
use crate::core::Input;
use crate::daemon::Daemon;
use crate::daemon::exec::{KEEPING, LOADING};
use crate::daemon::gear::Job;
use crate::protocol::rpc::{Code, RpcError};
use core::time::Duration;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// How long the config may take to be read, and a new program to be looked at, which may think for some of that.
pub(in crate::daemon) const READ: Duration = Duration::from_secs(10);
pub(in crate::daemon) const LOOK: Duration = Duration::from_secs(20);

/// Where threads are at work.
static AT_WORK: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// What waits for somebody that is not hob.
#[derive(Debug, Default)]
pub(in crate::daemon) struct Outside {
    /// A program is being looked at, and for whom.
    pub(super) looking: Option<Option<ReqId>>,
}

struct Place<'a>(&'a Path);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        AT_WORK.lock().unwrap_or_else(PoisonError::into_inner).retain(|path| path != self.0);
    }
}

/// Looks at a file, unless an earlier look has not come back from there.
pub(super) fn alone<T>(path: &Path, look: impl FnOnce() -> T) -> Result<T, String> {
    {
        let mut at_work = AT_WORK.lock().unwrap_or_else(PoisonError::into_inner);
        if at_work.iter().any(|at| at == path) {
            return Err(silent(path));
        }
        at_work.push(path.to_owned());
    }
    let _place = Place(path);
    Ok(look())
}

fn silent(path: &Path) -> String {
    format!("{} does not answer; look at what is mounted there, and try again", path.display())
}

/// Whether who waited for this result was told that nothing comes of it, as it came late.
pub(in crate::daemon) fn is_told(job: &Job) -> bool {
    matches!(job, Job::Config(_) | Job::Kept(_) | Job::Upgrade { .. })
}

impl Daemon {
    /// A job of this name has not ended in time.
    pub(in crate::daemon) fn outside_is_silent(&mut self, name: &str) {
        if name == LOADING || name == KEEPING {
            let path = if name == LOADING { &self.paths.config } else { &self.paths.state };
            self.loaded(Err(silent(path)));
        } else if name == LOOKING
            && let Some(req) = self.life.outside.looking.take()
        {
            let what = "the new program does not answer, or its disk; look at what is mounted there, and try again";
            let e = RpcError::new(Code::Unavailable, what).hint("the program that runs goes on");
            self.inputs.push(Input::UpgradeEnded { req, result: Err(e) });
        }
    }

    /// Such a job failed by a fault of its own.
    pub(in crate::daemon) fn outside_failed(&mut self, name: &str, message: &str) {
        if name == LOADING || name == KEEPING {
            self.loaded(Err(format!("hob failed while it read the config: {message}")));
        } else if name == LOOKING
            && let Some(req) = self.life.outside.looking.take()
        {
            let e = RpcError::new(Code::Internal, format!("hob failed while it looked at the new program: {message}"));
            self.inputs.push(Input::UpgradeEnded { req, result: Err(e) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_look_at_a_time_is_at_one_place() {
        let (a, b) = (Path::new("/a"), Path::new("/b"));
        let inner = alone(a, || (alone(a, || 1), alone(b, || 2))).unwrap();
        assert!(inner.0.unwrap_err().starts_with("/a does not answer"));
        assert_eq!((inner.1, alone(a, || 3)), (Ok(2), Ok(3)));
        let fault = std::panic::catch_unwind(|| alone(a, || -> u32 { panic!("a fault") }));
        assert!(fault.is_err() && alone(a, || 4) == Ok(4), "a fault leaves nobody there");
    }
}
