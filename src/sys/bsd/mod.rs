//! FreeBSD, NetBSD, OpenBSD, DragonFly and macOS. What these systems lack is said where it is missed.
//!
//! Only FreeBSD and DragonFly let the keeper inherit orphans. Elsewhere a job whose daemon dies falls to the system's
//! first process: its end cannot be known, so that it is stopped and started anew.

/// The folder for files that live as long as the boot.
pub const SYSTEM_RUN: &str = "/var/run";

/// Whether orphans can be made to fall to the keeper.
const SUBREAPER: bool = cfg!(any(target_os = "freebsd", target_os = "dragonfly"));

pub mod features;
pub mod identity;
pub mod memfile;
pub(super) mod memory;
pub mod notify;
pub mod pipe;
pub mod rlimit;
pub mod signals;
pub mod spawn;
pub mod thread;
pub mod tree;
pub mod wait;
pub mod walltimer;

use super::table;
