//! FreeBSD, NetBSD, OpenBSD, DragonFly and macOS.

/// The folder for files that live as long as the boot.
pub const SYSTEM_RUN: &str = "/var/run";

pub mod notify;
pub mod pipe;
pub mod rlimit;
pub mod signals;
pub mod spawn;
pub mod table;
pub mod thread;
pub mod tree;
pub mod wait;
