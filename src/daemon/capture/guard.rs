//! The guard of the disk: logs leave some of their file system free for what matters more.

use crate::base::limits::{LOG_DISK_FREE_MIN, LOG_DISK_FREE_PART};
use crate::base::time::Mono;
use crate::base::units::human_size;
use core::time::Duration;
use std::io;

/// How often the file system is asked while a log is written, at the least: so long after the last time, and after so
/// many bytes.
const LOOK: Duration = Duration::from_secs(1);
const LOOK_BYTES: u64 = 8 * 1024 * 1024;

/// So many bytes of a file system of this size are left free.
pub(in crate::daemon) fn least(all: u64) -> u64 {
    LOG_DISK_FREE_MIN.min(all / LOG_DISK_FREE_PART)
}

/// Whether one log may be written.
#[derive(Debug, Default)]
pub(super) struct Guard {
    looked: Option<Mono>,
    wrote: u64,
    closed: bool,
}

impl Guard {
    pub(super) fn open(&self) -> bool {
        !self.closed
    }

    pub(super) fn wrote(&mut self, bytes: usize) {
        self.wrote = self.wrote.saturating_add(bytes as u64);
    }

    /// Asks how much is free, if it is time to; `space` answers that and the size of all. What has changed is a note.
    pub(super) fn look(&mut self, now: Mono, space: impl FnOnce() -> io::Result<(u64, u64)>) -> Option<String> {
        let recent = self.looked.is_some_and(|at| now.since(at) < LOOK);
        if recent && self.wrote < LOOK_BYTES {
            return None;
        }
        (self.looked, self.wrote) = (Some(now), 0);
        // A file system that does not tell is written to until it refuses.
        let Ok((free, all)) = space() else { return None };
        let limit = least(all);
        // A little more must be free again than was missing, so that it does not go to and fro.
        let closed = free < if self.closed { limit + limit / 4 } else { limit };
        if closed == self.closed {
            return None;
        }
        self.closed = closed;
        let (free, limit) = (human_size(free), human_size(limit));
        Some(match closed {
            true => {
                format!("only {free} of the disk are free, {limit} is the least: output is dropped until there is more")
            }
            false => format!("{free} of the disk are free again: output is kept"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_closes_below_the_limit_and_opens_a_little_above() {
        let mut g = Guard::default();
        let at = |s: u64| Mono(s * 1_000_000_000);
        let gb = 1 << 30;
        assert_eq!(g.look(at(0), || Ok((LOG_DISK_FREE_MIN, 10 * gb))), None);
        assert!(g.open());
        assert_eq!(g.look(at(0), || unreachable!("it was asked just now")), None);
        assert!(g.look(at(1), || Ok((LOG_DISK_FREE_MIN - 1, 10 * gb))).is_some_and(|n| n.contains("33.6 MB")));
        assert!(!g.open());
        assert_eq!(g.look(at(2), || Ok((LOG_DISK_FREE_MIN, 10 * gb))), None);
        assert!(!g.open());
        assert!(g.look(at(3), || Ok((LOG_DISK_FREE_MIN * 2, 10 * gb))).is_some());
        assert!(g.open());
        g.wrote(9_000_000);
        assert!(g.look(at(3), || Ok((0, 10 * gb))).is_some(), "much was written since");
        assert!(g.look(at(5), || Ok((gb / 32 * 2, gb))).is_some(), "a small disk leaves a part of it");
        assert_eq!(g.look(at(7), || Err(io::ErrorKind::Unsupported.into())), None);
    }
}
