//! The operating system: the only unsafe code and the only `cfg` on it. Safe wrappers out, raw calls in.
//!
//! What every Unix shares is here in one file each; what differs is one folder a platform with the same names in each:
//! - `spawn`: clone or fork, exec, and the fixed list of steps between them (`plan` says what is started)
//! - `memory`: memory that several processes share, below the run table (`table`)
//! - `wait`: ends of children (`end`), signals to exactly the process that is meant
//! - `signals`: signals of the process itself as a readable descriptor
//! - `identity`: what tells one process and one boot from another
//! - `thread`: priority of one thread
//! - `memfile`: a file in memory
//! - `walltimer`: tells when the wall clock is set
//! - `pipe`: pipes and moving their content without copying it
//! - `notify`: datagrams of sd_notify(3) with their sender
//! - `rlimit`: resource limits by name
//! - `features`: what the kernel can do, its settings and file systems, for whoever wants to know
//! - `tree`: every process of a run: control groups where they exist, sweeps of the process table elsewhere
#![allow(unsafe_code)]

pub mod chan;
pub mod clock;
pub mod end;
mod feature;
pub mod file;
pub mod host;
pub mod inlet;
pub mod logfile;
pub mod mask;
pub mod memory;
pub mod net;
pub mod outlet;
mod plan;
pub mod table;
pub mod terminal;
pub mod user;
pub mod zone;

#[cfg(target_os = "linux")]
#[path = "linux/mod.rs"]
mod os;
#[cfg(any(
    target_os = "freebsd",
    target_os = "netbsd",
    target_os = "openbsd",
    target_os = "dragonfly",
    target_os = "macos"
))]
#[path = "bsd/mod.rs"]
mod os;
#[cfg(not(any(
    target_os = "linux",
    target_os = "freebsd",
    target_os = "netbsd",
    target_os = "openbsd",
    target_os = "dragonfly",
    target_os = "macos"
)))]
compile_error!("hob runs on Linux, the BSDs and macOS; src/sys has no folder for this system");

pub use os::{
    SYSTEM_RUN, features, identity, memfile, notify, pipe, rlimit, signals, spawn, thread, tree, wait, walltimer,
};

use crate::base::text::without_numbers;
use std::io;

/// The text of an error without its number.
#[must_use]
pub fn reason(e: &io::Error) -> String {
    without_numbers(&e.to_string())
}

/// The result of a call that answers -1 and sets errno.
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The same for calls that answer a size.
fn check_size(result: libc::ssize_t) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}
