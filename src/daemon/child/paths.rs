//! What is done at paths that a config names, for a lane of the pool: where they lead to a mount that does not answer,
//! a thread waits for it and not the loop. Of two jobs at one path the first one ends first.

use super::bind::{Bind, Bound};
use super::{Children, Ctx};
use crate::base::ids::RunId;
use crate::base::map::Map;
use crate::core::{Duty, Input};
use crate::sys::net::serve::FileId;
use crate::sys::net::{self, serve};
use crate::sys::reason;
use core::time::Duration;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One job.
#[derive(Debug)]
pub enum PathJob {
    /// Whether somebody listens there.
    #[doc(hidden)]
    Reach(PathBuf),
    #[doc(hidden)]
    Bind(Box<Bind>),
    /// The file of a socket goes, unless somebody else has put another one there.
    #[doc(hidden)]
    Remove(PathBuf, FileId),
}

/// What came of it.
#[derive(Debug)]
pub enum PathDone {
    #[doc(hidden)]
    Reached(PathBuf, Result<(), String>),
    #[doc(hidden)]
    Bound(Box<Bound>),
    #[doc(hidden)]
    Removed,
}

impl PathJob {
    /// How long it may take before it is reported.
    pub const DEADLINE: Duration = Duration::from_secs(5);

    /// Where it is done.
    #[must_use]
    pub fn place(&self) -> Arc<str> {
        let path = match self {
            PathJob::Reach(path) | PathJob::Remove(path, _) => path,
            PathJob::Bind(bind) => bind.path(),
        };
        path.to_string_lossy().into()
    }

    #[must_use]
    pub fn run(self) -> PathDone {
        match self {
            PathJob::Reach(path) => {
                let result = reach(&path);
                PathDone::Reached(path, result)
            }
            PathJob::Bind(bind) => PathDone::Bound(Box::new(bind.run())),
            PathJob::Remove(path, id) => {
                // At worst a file stays that nobody listens behind, which the next one to listen there replaces.
                let _ = serve::remove(&path, id);
                PathDone::Removed
            }
        }
    }
}

fn reach(path: &Path) -> Result<(), String> {
    net::reach(path).map_err(|e| match e.kind() {
        io::ErrorKind::WouldBlock => "it takes no more connections".to_owned(),
        _ => reason(&e),
    })
}

/// Who wants to know whether somebody listens at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asker {
    Probe(RunId),
    Dial(RunId),
}

/// The paths that are being looked at, and for whom: one that does not answer is asked once.
#[derive(Debug, Default)]
pub(super) struct Reaches {
    open: Map<PathBuf, Vec<Asker>>,
}

impl Reaches {
    /// Asks. An answer that is known without a look at any file is returned.
    pub(super) fn ask(&mut self, path: PathBuf, by: Asker, jobs: &mut Vec<PathJob>) -> Option<Result<(), String>> {
        if net::is_abstract(&path) {
            return Some(reach(&path));
        }
        if self.open.get(&path).is_none() {
            jobs.push(PathJob::Reach(path.clone()));
        }
        let askers = self.open.get_or(path, Vec::new);
        if !askers.contains(&by) {
            askers.push(by);
        }
        None
    }
}

impl Children {
    /// A job at a path came out of the pool.
    pub fn path_done(&mut self, ctx: &mut Ctx<'_>, done: PathDone, inputs: &mut Vec<Input>) {
        match done {
            PathDone::Reached(path, result) => {
                for asker in self.reaches.open.remove(&path).unwrap_or_default() {
                    match asker {
                        Asker::Probe(run) if self.probes.reached(ctx, run, result.is_ok()) => {
                            inputs.push(Input::ReadySeen { run });
                        }
                        Asker::Probe(_) => {}
                        Asker::Dial(run) => {
                            let told = self.dials.reached(run, result.clone());
                            let told = told.map(|result| Input::Checked { run, what: Duty::Health, result });
                            inputs.extend(told);
                        }
                    }
                }
            }
            PathDone::Bound(bound) => self.bound(ctx, *bound, inputs),
            PathDone::Removed => {}
        }
    }
}
