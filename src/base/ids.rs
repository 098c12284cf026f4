//! Names of things that must never be mixed up or used again.

use core::fmt;
use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(
    /// One start of a child. Counts up for the life of a home, over daemons, keepers and boots; 0 is never used.
    RunId(u64)
);
impl RunId {
    /// Commands that hob runs beside a run (checks and the like) have numbers of a range of their own, which no run of
    /// a service gets: they leave no record, and whoever finds one in the table knows that nobody waits for it any
    /// more. The range fits into the 30 bits by which the processes of a run are marked.
    const COMMANDS: core::ops::Range<u64> = 1 << 29..1 << 30;

    /// The n-th of these; they come again after 536,870,912.
    #[must_use]
    pub const fn command(n: u32) -> RunId {
        RunId(RunId::COMMANDS.start | (n as u64 & (RunId::COMMANDS.start - 1)))
    }

    #[must_use]
    pub const fn is_command(self) -> bool {
        self.0 >= RunId::COMMANDS.start && self.0 < RunId::COMMANDS.end
    }

    /// The number of the run that follows this one.
    #[must_use]
    pub const fn next(self) -> RunId {
        let next = RunId(self.0 + 1);
        if next.is_command() { RunId(RunId::COMMANDS.end) } else { next }
    }
}

id!(
    /// One task. Counts up for the life of a home; 0 is never used.
    TaskId(u64)
);
id!(
    /// One client connection of this daemon.
    ConnId(u64)
);
id!(
    /// One request of this daemon that awaits exactly one reply.
    ReqId(u64)
);
id!(
    /// A subscription or stream, unique in the daemon; the wire's 4-byte stream id.
    StreamId(u32)
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_have_numbers_that_no_run_gets() {
        assert!(RunId::command(0).is_command() && RunId::command(u32::MAX).is_command());
        assert_ne!(RunId::command(1), RunId::command(2));
        assert_eq!(RunId::command(7), RunId::command(7 + (1 << 29)));
        let last = RunId((1 << 29) - 1);
        assert!(!last.is_command() && !last.next().is_command() && last.next() > last);
        assert_eq!(RunId(5).next(), RunId(6));
    }
}
