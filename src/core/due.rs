//! What is due when: one queue of deadlines for everything the core waits for. Pure.

use crate::base::ids::{ReqId, RunId};
use crate::base::time::Mono;
use std::collections::{BTreeMap, BTreeSet};

/// What a deadline belongs to. Each has at most one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Due {
    /// A service, by its place in the table.
    Service(usize),
    /// The leftovers of a run that belongs to no service.
    Orphan(RunId),
    /// A request that waits for an end state.
    Wait(ReqId),
    Heartbeat,
    Shutdown,
}

/// The queue. Setting, replacing and cancelling cost O(log n); nothing is due unless it was set.
#[derive(Debug, Default)]
pub struct Deadlines {
    at: BTreeMap<Due, Mono>,
    order: BTreeSet<(Mono, Due)>,
}

impl Deadlines {
    /// Replaces the deadline of `due`; `None` cancels it.
    pub fn set(&mut self, due: Due, at: Option<Mono>) {
        let old = match at {
            Some(at) => self.at.insert(due, at),
            None => self.at.remove(&due),
        };
        if old == at {
            return;
        }
        if let Some(old) = old {
            self.order.remove(&(old, due));
        }
        if let Some(at) = at {
            self.order.insert((at, due));
        }
    }

    #[must_use]
    pub fn next(&self) -> Option<Mono> {
        self.order.first().map(|(at, _)| *at)
    }

    /// Takes out the earliest one that is due.
    pub fn expired(&mut self, now: Mono) -> Option<Due> {
        let (at, due) = *self.order.first()?;
        if at > now {
            return None;
        }
        self.order.remove(&(at, due));
        self.at.remove(&due);
        Some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_comes_first_and_a_replaced_one_never() {
        let mut d = Deadlines::default();
        d.set(Due::Service(1), Some(Mono(10)));
        d.set(Due::Heartbeat, Some(Mono(5)));
        d.set(Due::Service(1), Some(Mono(20)));
        d.set(Due::Shutdown, Some(Mono(1)));
        d.set(Due::Shutdown, None);
        assert_eq!(d.next(), Some(Mono(5)));
        assert_eq!(d.expired(Mono(4)), None);
        assert_eq!(d.expired(Mono(30)), Some(Due::Heartbeat));
        assert_eq!(d.expired(Mono(30)), Some(Due::Service(1)));
        assert_eq!(d.next(), None);
    }
}
