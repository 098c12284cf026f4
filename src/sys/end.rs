//! How children end, as `wait` tells it on every system.

use super::table::Slot;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// How a process ended, as the kernel says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It exited with this code, 0 to 255.
    Code(i32),
    /// This signal killed it.
    Signal(i32),
}

/// Whether an error says that there is no such process.
#[must_use]
pub fn is_gone(e: &io::Error) -> bool {
    e.raw_os_error() == Some(libc::ESRCH)
}

/// What a process used, itself and the children that it waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// User and system time.
    pub cpu: Duration,
    /// Peak resident memory of the largest of them, in bytes.
    pub max_rss: u64,
}

/// What `reap_any` did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaped {
    /// The process of this slot; status and usage are in the table.
    Slot(Slot),
    /// The child that was named as the daemon.
    Daemon(Status),
    /// A process that is in no slot.
    Stray,
    /// No child has ended; `children`: whether any exists.
    None { children: bool },
}

/// A process that the table knew at the time of asking.
#[derive(Debug)]
pub enum Adopted {
    /// It has not been reaped; the descriptor is surely its own.
    Alive(OwnedFd),
    /// Its end is in the table.
    Ended(Status, Usage),
    /// Nothing runs: it has no pid, or it was reaped by somebody who records nothing.
    Nothing,
}
