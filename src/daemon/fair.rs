//! What clients may take of a turn of the loop: however many requests come, and however dear they are, facts and other
//! clients never wait for long. Reads the clock now and then.

use crate::base::ids::ConnId;
use crate::base::time::Mono;
use crate::core::{Input, changes};
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

/// Time for the requests of a turn; more of them wait for the next.
const TURN: Duration = Duration::from_millis(10);
/// The clock is read once for so many requests.
const LOOK_EVERY: u32 = 4;

/// How much of a turn is left for requests.
#[derive(Debug)]
pub(super) struct Budget {
    clock: fn() -> Mono,
    until: Mono,
    /// Requests since the clock was read.
    unseen: u32,
    spent: bool,
}

impl Budget {
    fn new(clock: fn() -> Mono) -> Budget {
        Budget { clock, until: Mono(u64::MAX), unseen: 0, spent: false }
    }

    /// A turn begins.
    pub(super) fn begin(&mut self, now: Mono) {
        (self.until, self.unseen, self.spent) = (now + TURN, 0, false);
    }

    /// A request is about to be looked at.
    pub(super) fn count(&mut self) {
        self.unseen += 1;
        if self.unseen == LOOK_EVERY {
            self.unseen = 0;
            self.spent |= (self.clock)() >= self.until;
        }
    }

    pub(super) fn is_spent(&self) -> bool {
        self.spent
    }
}

/// What clients sent and nobody has looked at yet: in order for each connection, and connections take turns.
#[derive(Debug)]
pub struct Waiting {
    pub(super) budget: Budget,
    queues: BTreeMap<ConnId, VecDeque<Input>>,
    order: VecDeque<ConnId>,
}

impl Waiting {
    #[must_use]
    pub fn new(clock: fn() -> Mono) -> Waiting {
        Waiting { budget: Budget::new(clock), queues: BTreeMap::new(), order: VecDeque::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Whether something of this connection waits.
    pub(super) fn holds(&self, conn: ConnId) -> bool {
        self.queues.contains_key(&conn)
    }

    /// Whether there is something for `next` in this turn.
    pub(super) fn has_next(&self) -> bool {
        !self.is_empty() && !self.budget.is_spent()
    }

    /// Takes what a client sent; hands anything else back, and what need not wait.
    pub(super) fn put(&mut self, input: Input) -> Option<Input> {
        let (Input::Request { conn, .. } | Input::Closed { conn } | Input::Lagged { conn, .. }) = &input else {
            return Some(input);
        };
        let conn = *conn;
        if self.is_empty() && !self.budget.is_spent() {
            self.budget.count();
            return Some(input);
        }
        if !self.holds(conn) {
            self.order.push_back(conn);
        }
        let queue = self.queues.entry(conn).or_default();
        if matches!(input, Input::Closed { .. }) {
            // Nobody waits for the answers to its questions any more.
            queue.retain(|i| !matches!(i, Input::Request { request, .. } if !changes(request)));
        }
        queue.push_back(input);
        None
    }

    /// The next of them, as long as the turn has time.
    pub(super) fn next(&mut self) -> Option<Input> {
        if !self.has_next() {
            return None;
        }
        self.budget.count();
        let conn = self.order.pop_front()?;
        let queue = self.queues.get_mut(&conn)?;
        let input = queue.pop_front();
        if queue.is_empty() {
            self.queues.remove(&conn);
        } else {
            self.order.push_back(conn);
        }
        input
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::access::Access;
    use crate::base::ids::{ReqId, StreamId};
    use crate::core::Peer;
    use crate::protocol::methods::Request;

    fn closed(conn: u64) -> Input {
        Input::Closed { conn: ConnId(conn) }
    }

    fn lagged(conn: u64, subscription: u32) -> Input {
        Input::Lagged { conn: ConnId(conn), subscription: StreamId(subscription) }
    }

    fn name(input: Option<Input>) -> String {
        match input {
            Some(Input::Closed { conn }) => format!("{} closed", conn.0),
            Some(Input::Lagged { conn, subscription }) => format!("{} {}", conn.0, subscription.0),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn a_turn_ends_by_the_clock_which_is_read_now_and_then() {
        let mut budget = Budget::new(|| Mono(20_000_000));
        budget.begin(Mono(10_000_001));
        (0..100).for_each(|_| budget.count());
        assert!(!budget.is_spent());
        budget.begin(Mono(10_000_000));
        (1..LOOK_EVERY).for_each(|_| budget.count());
        assert!(!budget.is_spent());
        budget.count();
        assert!(budget.is_spent());
        budget.begin(Mono(20_000_000));
        assert!(!budget.is_spent(), "each turn has its own");
    }

    #[test]
    fn who_sent_much_waits_for_who_sent_little() {
        let mut waiting = Waiting::new(|| Mono(u64::MAX));
        waiting.budget.begin(Mono(0));
        assert_eq!(name(waiting.put(lagged(1, 0))), "1 0", "there is time");
        (0..LOOK_EVERY).for_each(|_| waiting.budget.count());
        assert!(matches!(waiting.put(Input::Tick), Some(Input::Tick)), "facts never wait");
        for input in [lagged(1, 1), lagged(1, 2), lagged(2, 1), closed(1), closed(2)] {
            assert!(waiting.put(input).is_none());
        }
        assert_eq!(name(waiting.next()), "None", "the turn is over");
        waiting.budget.begin(Mono(0));
        assert!(waiting.put(lagged(3, 1)).is_none(), "nobody passes those who wait");
        assert!(waiting.holds(ConnId(3)) && !waiting.holds(ConnId(4)));
        let mut next = || {
            waiting.budget.begin(Mono(0));
            name(waiting.next())
        };
        let all: Vec<String> = (0..7).map(|_| next()).collect();
        assert_eq!(all, ["1 1", "2 1", "3 1", "1 2", "2 closed", "1 closed", "None"]);
        assert!(waiting.is_empty());
    }
    #[test]
    fn what_nobody_waits_for_any_more_takes_no_turn() {
        let mut waiting = Waiting::new(|| Mono(u64::MAX));
        waiting.budget.begin(Mono(0));
        (0..LOOK_EVERY).for_each(|_| waiting.budget.count());
        let asked = |request| Input::Request {
            req: ReqId(1),
            conn: ConnId(1),
            peer: Peer { uid: 1, pid: 1, access: Access::Admin, job: None, schedule: None },
            key: None,
            params_hash: 0,
            request,
        };
        for request in [Request::Ping, Request::DaemonReload, Request::DaemonStatus] {
            assert!(waiting.put(asked(request)).is_none());
        }
        assert!(waiting.put(closed(1)).is_none());
        waiting.budget.begin(Mono(0));
        assert!(matches!(waiting.next(), Some(Input::Request { request: Request::DaemonReload, .. })));
        assert_eq!(name(waiting.next()), "1 closed");
        assert!(waiting.is_empty());
    }
}
