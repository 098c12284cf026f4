//! Every process of a run, found by two ways: control groups where hob can make them (`cgroup`), sweeps of the process
//! table elsewhere (`sweep`). Touches /proc and the cgroup2 file system, and sends signals; keeps no state of its own.

/// How `Group::watch` becomes ready.
pub const CHANGED: mio::Interest = mio::Interest::PRIORITY;

mod cgroup;
mod proc;
mod sweep;

pub use cgroup::{Group, Groups, Refused, delegated};
pub(super) use proc::begin_of_command_line;
pub use proc::{Cost, all, children_of, cost, name_of, parent_of, start_of};
pub use sweep::{Family, Main, Member, Sweep, Trust, leftovers, run_variable, signal_members, tag};
