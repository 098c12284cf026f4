//! Linux 5.10 or newer.

/// The folder for files that live as long as the boot.
pub const SYSTEM_RUN: &str = "/run";

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
