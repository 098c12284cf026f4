//! Every process of a run on BSD and macOS, found in the process table: by ancestry, session, process group and
//! environment. There are no control groups, and no resource limit can carry a mark.

/// How `Group::watch` would become ready.
pub const CHANGED: mio::Interest = mio::Interest::READABLE;

mod group;
mod owners;
mod proc;
mod sweep;

pub use group::{Group, Groups, Refused, delegated};
pub use proc::{Cost, children_of, cost, name_of, start_of};
pub use sweep::{Family, Main, Member, Sweep, Trust, leftovers, run_variable, signal_members, tag};

pub(super) use proc::{arguments, boot_name};
pub(super) use sweep::is_kept;
