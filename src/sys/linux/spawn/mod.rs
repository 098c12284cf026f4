//! Starting programs on Linux: everything is built beforehand, then one clone that shares memory until the exec.
//!
//! The kernel writes the child's pid into the run table before the child's first instruction, so a start is on record
//! whenever the starter dies; the child writes into the table why it could not execute its program. `child` is what
//! runs between clone and exec; `clone` the two ways to clone; `own` what a process sets for itself and its children
//! inherit.

mod child;
mod clone;
pub mod own;

pub use crate::sys::plan::{Child, IoPriority, Plan, SpawnError, candidates, error_in};

use super::table::{RunTable, Slot, StartWords};
use super::wait;
use crate::sys::plan::STEPS;
use child::Job;
use clone::{Asked, Way};
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32};

static CLONE3_REFUSED: AtomicBool = AtomicBool::new(false);

/// Makes every later `spawn` of this process use the way for systems that refuse clone3, so that it can be tested
/// anywhere.
#[doc(hidden)]
pub fn force_fallback() {
    CLONE3_REFUSED.store(true, Relaxed);
}

/// Starts a child of this process and returns once it executes its program. With a slot, the start is on record in
/// the table from the first moment; a slot of a failed start is left to the caller to release. May be called from any
/// thread.
///
/// # Errors
/// Any step that failed, with nothing left behind.
pub fn spawn(plan: &Plan, slot: Option<(&RunTable, Slot)>) -> Result<Child, SpawnError> {
    if !CLONE3_REFUSED.load(Relaxed) {
        match spawn_by(Way::Clone3, plan, slot) {
            Err(e) if e.step == STEPS[0] && matches!(e.errno, libc::ENOSYS | libc::EPERM) => {
                // A seccomp filter or an architecture without it; that will not change.
                CLONE3_REFUSED.store(true, Relaxed);
            }
            result => return result,
        }
    }
    spawn_by(Way::Clone, plan, slot)
}

fn spawn_by(way: Way, plan: &Plan, slot: Option<(&RunTable, Slot)>) -> Result<Child, SpawnError> {
    let (pid, errno, step, which) = (AtomicI32::new(0), AtomicI32::new(0), AtomicU32::new(0), AtomicU32::new(0));
    let own = StartWords { pid: &pid, errno: &errno, step: &step, which: &which };
    let words = slot.map_or(own, |(table, slot)| table.start_words(slot));
    let job = Job::new(plan, words, way);
    let child = clone::run(way, &job, Asked { cgroup: plan.cgroup, pid: words.pid })?;
    match words.errno.load(Acquire) {
        0 => Ok(child),
        failed => {
            wait::reap_ending(child.pid, slot);
            Err(SpawnError::reported(failed, words.step.load(Acquire), words.which.load(Acquire), plan))
        }
    }
}

#[cfg(test)]
mod tests;
