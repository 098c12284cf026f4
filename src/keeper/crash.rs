//! Deaths of daemons: which of them are a daemon's own fault, and when so many came in a row that the next one had
//! better touch nothing. Pure.

use crate::base::time::Mono;
use crate::sys::signals::{SIGKILL, SIGTERM};
use crate::sys::wait::Status;
use std::time::Duration;

/// So many deaths in a row, within this time, bring safe mode. It takes longer than that to find out that a daemon
/// hangs, so one that did stays in the row however long ago it was.
const IN_A_ROW: usize = 3;
const WITHIN: Duration = Duration::from_secs(10);
/// A daemon that did its work for so long has begun a row of its own.
const SERVED: Duration = Duration::from_secs(60 * 60);

#[derive(Debug, Default)]
pub(super) struct Crashes {
    /// The last deaths in a row by a daemon's own fault, oldest first.
    row: Vec<(Mono, Death)>,
    safe: bool,
}

/// How a daemon came to its end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Death {
    pub(super) status: Status,
    /// It had reported that it serves.
    pub(super) up: bool,
    /// It no longer answered, and so was ended by its keeper.
    pub(super) hung: bool,
    /// For how long it did its work.
    pub(super) served: Duration,
}

impl Death {
    pub(super) fn own_fault(&self) -> bool {
        !self.up || self.hung || !matches!(self.status, Status::Signal(SIGKILL | SIGTERM))
    }
}

impl Crashes {
    /// Whether daemons are started in safe mode.
    pub(super) fn safe(&self) -> bool {
        self.safe
    }

    /// Takes note of a death; `true` when it begins safe mode.
    pub(super) fn died(&mut self, now: Mono, death: Death) -> bool {
        if !death.own_fault() {
            self.row.clear();
            return false;
        }
        if death.served >= SERVED {
            self.row.clear();
        }
        self.row.retain(|(at, death)| death.hung || now.since(*at) < WITHIN);
        self.row.push((now, death));
        if self.safe || self.row.len() < IN_A_ROW {
            return false;
        }
        self.safe = true;
        true
    }

    /// Somebody has changed something: the next daemon may try again.
    pub(super) fn forget(&mut self) {
        *self = Crashes::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABORTED: Death = Death { status: Status::Signal(6), up: true, hung: false, served: Duration::ZERO };
    const KILLED: Death = Death { status: Status::Signal(SIGKILL), ..ABORTED };
    const HUNG: Death = Death { hung: true, ..KILLED };

    fn at(seconds: u64) -> Mono {
        Mono(seconds * 1_000_000_000)
    }

    #[test]
    fn three_in_a_row_bring_safe_mode_until_somebody_acts() {
        let mut c = Crashes::default();
        assert!(!c.died(at(1), ABORTED));
        assert!(!c.died(at(2), Death { status: Status::Code(0), ..ABORTED }), "no code is right without a word before");
        assert!(!c.safe());
        assert!(c.died(at(10), Death { up: false, ..KILLED }), "before it served, any death counts");
        assert!(c.safe());
        assert!(!c.died(at(11), ABORTED), "it begins only once");
        c.died(at(12), KILLED);
        assert!(c.safe(), "a kill from outside does not end it");
        c.forget();
        assert!(!c.safe());
        assert!(!c.died(at(12), ABORTED));
    }

    #[test]
    fn deaths_from_outside_break_the_row_and_slow_ones_are_none() {
        let mut c = Crashes::default();
        for death in [ABORTED, ABORTED, KILLED, ABORTED, ABORTED] {
            assert!(!c.died(at(1), death));
        }
        assert!(c.died(at(2), HUNG), "one that hung was at fault, whatever ended it");
        let mut c = Crashes::default();
        for seconds in [1, 6, 11, 16, 21] {
            assert!(!c.died(at(seconds), ABORTED));
        }
    }

    #[test]
    fn hangs_count_however_long_it_takes_to_find_them_out() {
        let mut c = Crashes::default();
        assert!(!c.died(at(65), HUNG));
        assert!(!c.died(at(66), ABORTED));
        assert!(!c.died(at(1200), Death { up: false, ..HUNG }), "the other one is long ago");
        assert!(c.died(at(5000), HUNG));
        let mut c = Crashes::default();
        for hours in 1..9 {
            assert!(!c.died(at(hours * 3700), Death { served: Duration::from_secs(3600), ..HUNG }), "it served well");
        }
    }
}
