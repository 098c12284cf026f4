//! What is due when: names for the deadlines of everything the core waits for, on the one timer wheel. Pure.

use crate::base::ids::{ReqId, RunId, TaskId};
use crate::base::time::Mono;
use crate::base::timers::Wheel;
use std::collections::BTreeMap;

/// What a deadline belongs to. Each has at most one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Due {
    /// A service, by its place in the table.
    Service(usize),
    /// The leftovers of a run that belongs to no service.
    Orphan(RunId),
    /// A job, by its place.
    Schedule(usize),
    /// A request that waits for an end state.
    Wait(ReqId),
    /// A task: its time, its time limit, its stop sequence.
    Task(TaskId),
    /// A request that waits for tasks.
    TaskWait(ReqId),
    /// Groups of tasks that did not settle in one step.
    Groups,
    Heartbeat,
    Shutdown,
    /// The service manager is to be told how all is.
    Status,
    /// `daemon.update_command` is to be run.
    Newest,
}

/// The wheel wants small dense numbers: services have the odd ones by their place, all others borrow an even one while
/// they have a deadline.
#[derive(Debug, Default)]
pub struct Deadlines {
    wheel: Wheel<u32>,
    borrowed: Vec<Option<Due>>,
    /// Places of `borrowed` that are free.
    free: Vec<usize>,
    by_due: BTreeMap<Due, u32>,
}

impl Deadlines {
    /// Replaces the deadline of `due`; `None` cancels it.
    pub fn set(&mut self, due: Due, at: Option<Mono>) {
        match at {
            Some(at) => {
                let number = self.number(due);
                self.wheel.set(number, at);
            }
            None => {
                if let Some(number) = self.known(due) {
                    self.wheel.cancel(number);
                    self.give_back(number);
                }
            }
        }
    }

    #[must_use]
    pub fn next(&self) -> Option<Mono> {
        self.wheel.next()
    }

    /// Takes out the earliest one that is due.
    pub fn expired(&mut self, now: Mono) -> Option<Due> {
        let (number, _) = self.wheel.pop_expired(now)?;
        if number % 2 == 1 {
            return Some(Due::Service(number as usize / 2));
        }
        self.give_back(number)
    }

    fn known(&self, due: Due) -> Option<u32> {
        match due {
            Due::Service(i) => odd(i),
            Due::Orphan(_)
            | Due::Schedule(_)
            | Due::Wait(_)
            | Due::Task(_)
            | Due::TaskWait(_)
            | Due::Heartbeat
            | Due::Groups
            | Due::Shutdown
            | Due::Status
            | Due::Newest => self.by_due.get(&due).copied(),
        }
    }

    fn number(&mut self, due: Due) -> u32 {
        if let Some(number) = self.known(due) {
            return number;
        }
        let at = self.free.pop().unwrap_or_else(|| {
            self.borrowed.push(None);
            self.borrowed.len() - 1
        });
        self.borrowed[at] = Some(due);
        let number = u32::try_from(at * 2).unwrap_or(u32::MAX - 1);
        self.by_due.insert(due, number);
        number
    }

    fn give_back(&mut self, number: u32) -> Option<Due> {
        let at = number as usize / 2;
        let due = self.borrowed.get_mut(at).filter(|_| number.is_multiple_of(2))?.take()?;
        self.free.push(at);
        self.by_due.remove(&due);
        Some(due)
    }
}

fn odd(i: usize) -> Option<u32> {
    u32::try_from(i * 2 + 1).ok()
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
        d.set(Due::Wait(ReqId(7)), Some(Mono(25)));
        assert_eq!(d.next(), Some(Mono(5)));
        assert_eq!(d.expired(Mono(4)), None);
        assert_eq!(d.expired(Mono(30)), Some(Due::Heartbeat));
        assert_eq!(d.expired(Mono(30)), Some(Due::Service(1)));
        assert_eq!(d.expired(Mono(30)), Some(Due::Wait(ReqId(7))));
        assert_eq!(d.next(), None);
        assert_eq!(d.borrowed.len(), 2, "numbers are lent again");
    }
}
