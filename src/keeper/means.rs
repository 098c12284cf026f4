//! What a keeper makes of its process: limits, signals, orphans, the run table.

use crate::base::control::{FLAG_INIT, FLAG_NO_SUBREAPER, Inherited, OOM_UNCHANGED};
use crate::sys::signals::{self, Signals};
use crate::sys::spawn::own;
use crate::sys::table::RunTable;
use std::io;

/// Descriptors that the keeper needs for itself.
const OWN_FDS: u64 = 64;
const OOM_SCORE_ADJ: i32 = -900;

/// What the keeper makes for itself at its start.
pub(super) struct Means {
    pub(super) table: RunTable,
    pub(super) signals: Signals,
    pub(super) inherited: Inherited,
    pub(super) flags: u32,
}

impl Means {
    pub(super) fn new(init: bool) -> io::Result<Means> {
        own::inherit_nothing()?;
        own::set_name(c"hob-keeper");
        // Above all SIGCHLD: where it is ignored, the kernel throws away how children ended.
        signals::reset_ignored();
        let signals = Signals::open()?;
        let subreaper = own::become_subreaper();
        let (nofile, raised) = own::raise_nofile()?;
        let oom_score_adj = own::set_oom_score_adj(OOM_SCORE_ADJ).unwrap_or(OOM_UNCHANGED);
        // A channel's message may bring 64 descriptors before it can be refused. Where there are hardly more at all,
        // the daemon's own share comes first: it gets all that is held here, and a few of its own for each of its jobs.
        let hold_max = u32::try_from(raised.saturating_sub(OWN_FDS + 64).max(raised / 4)).unwrap_or(u32::MAX);
        let flags = if init { FLAG_INIT } else { 0 } | if subreaper { 0 } else { FLAG_NO_SUBREAPER };
        Ok(Means {
            table: RunTable::create()?,
            signals,
            inherited: Inherited { nofile, oom_score_adj, hold_max },
            flags,
        })
    }
}
