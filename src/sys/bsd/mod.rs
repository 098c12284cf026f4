//! FreeBSD, NetBSD, OpenBSD, DragonFly and macOS.

pub mod notify;
pub mod pipe;
pub mod rlimit;
pub mod signals;
pub mod spawn;
pub mod table;
pub mod thread;
pub mod tree;
pub mod wait;
