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
