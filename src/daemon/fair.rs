//! What clients may take of a turn of the loop: however many requests come, and however dear they are, facts and other
//! clients never wait for long, least of all those of another user. Reads the clock now and then.

use super::measure::Measuring;
use crate::base::ids::ConnId;
use crate::base::time::Mono;
use crate::core::owner::Owner;
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
            self.look();
        }
    }

    /// Something long was done.
    pub(super) fn look(&mut self) {
        self.unseen = 0;
        self.spent |= (self.clock)() >= self.until;
    }

    pub(super) fn is_spent(&self) -> bool {
        self.spent
    }
}

/// Connections of which something waits, in turns: whoever they are of, one owner comes as often as another, and so do
/// the connections of one.
#[derive(Debug, Default)]
pub struct Turns {
    owners: VecDeque<Owner>,
    conns: BTreeMap<Owner, VecDeque<ConnId>>,
    len: usize,
}

impl Turns {
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Its turn comes after those of all others.
    pub(super) fn push(&mut self, owner: &Owner, conn: ConnId) {
        self.len += 1;
        if let Some(conns) = self.conns.get_mut(owner) {
            return conns.push_back(conn);
        }
        self.owners.push_back(owner.clone());
        self.conns.insert(owner.clone(), VecDeque::from([conn]));
    }

    pub(super) fn pop(&mut self) -> Option<(Owner, ConnId)> {
        let owner = self.owners.pop_front()?;
        let conns = self.conns.get_mut(&owner)?;
        let conn = conns.pop_front()?;
        self.len -= 1;
        if conns.is_empty() {
            self.conns.remove(&owner);
        } else {
            self.owners.push_back(owner.clone());
        }
        Some((owner, conn))
    }
}

/// What clients sent and nobody has looked at yet: in order for each connection, and connections take turns.
#[derive(Debug)]
pub struct Waiting {
    pub(super) budget: Budget,
    queues: BTreeMap<ConnId, VecDeque<Input>>,
    turns: Turns,
    /// The rest waits for the next round.
    held: bool,
    /// Questions that wait to be measured for, before their answers wait here.
    pub(super) measuring: Measuring,
}

impl Waiting {
    #[must_use]
    pub fn new(clock: fn() -> Mono) -> Waiting {
        Waiting {
            budget: Budget::new(clock),
            queues: BTreeMap::new(),
            turns: Turns::default(),
            held: false,
            measuring: Measuring::default(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    /// Whether something of this connection waits.
    pub(super) fn holds(&self, conn: ConnId) -> bool {
        self.queues.contains_key(&conn)
    }

    /// Whether there is something for `next` in this turn.
    pub(super) fn has_next(&self) -> bool {
        !self.is_empty() && !self.budget.is_spent() && !self.held
    }

    pub(super) fn begin_round(&mut self) {
        self.held = false;
    }

    /// Most of the work of a request is still to be done after its step: no other is begun before.
    pub(super) fn hold(&mut self) {
        self.held = true;
        self.budget.look();
    }

    /// Takes what a client sent; hands anything else back, and what need not wait.
    pub(super) fn put(&mut self, input: Input) -> Option<Input> {
        if let Input::Closed { conn } = &input {
            self.measuring.closed(*conn);
        }
        let conn = match &input {
            Input::Request { conn, peer, .. } => {
                if self.is_empty() && !self.budget.is_spent() && !self.held {
                    self.budget.count();
                    return Some(input);
                }
                if !self.holds(*conn) {
                    self.turns.push(&peer.owner(), *conn);
                }
                *conn
            }
            Input::Closed { conn } | Input::Lagged { conn, .. } if self.holds(*conn) => *conn,
            _ => return Some(input),
        };
        let queue = self.queues.entry(conn).or_default();
        if matches!(input, Input::Closed { .. }) {
            // Nobody waits for the answers to its questions any more.
            queue.retain(|i| match i {
                Input::Request { request, .. } => changes(request),
                Input::Measured { .. } => false,
                _ => true,
            });
        }
        queue.push_back(input);
        None
    }

    /// What a request of this connection waited for has come, and its answer takes a turn like any request.
    pub(super) fn put_back(&mut self, owner: &Owner, conn: ConnId, input: Input) {
        if !self.holds(conn) {
            self.turns.push(owner, conn);
        }
        self.queues.entry(conn).or_default().push_back(input);
    }

    /// The next of them, as long as the turn has time.
    pub(super) fn next(&mut self) -> Option<Input> {
        if !self.has_next() {
            return None;
        }
        self.budget.count();
        let (owner, conn) = self.turns.pop()?;
        let queue = self.queues.get_mut(&conn)?;
        let input = queue.pop_front();
        if queue.is_empty() {
            self.queues.remove(&conn);
        } else {
            self.turns.push(&owner, conn);
        }
        input
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::access::Access;
    use crate::base::ids::ReqId;
    use crate::core::Peer;
    use crate::protocol::methods::Request;
    use std::sync::Arc;

    fn closed(conn: u64) -> Input {
        Input::Closed { conn: ConnId(conn) }
    }

    /// Of a user with the number of the connection's hundreds.
    fn asked(conn: u64, req: u64, request: Request) -> Input {
        let uid = u32::try_from(conn / 100).unwrap();
        let peer = Peer { uid, pid: 1, access: Access::Admin, job: None, schedule: None };
        Input::Request { req: ReqId(req), conn: ConnId(conn), peer, key: None, params_hash: 0, request }
    }

    fn reload(conn: u64, req: u64) -> Input {
        asked(conn, req, Request::DaemonReload)
    }

    fn name(input: Option<Input>) -> String {
        match input {
            Some(Input::Measured { req, .. }) => format!("measured {}", req.0),
            Some(Input::Closed { conn }) => format!("{} closed", conn.0),
            Some(Input::Request { conn, req, .. }) => format!("{} {}", conn.0, req.0),
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

    /// Nothing of its turn is left.
    fn spent() -> Waiting {
        let mut waiting = Waiting::new(|| Mono(u64::MAX));
        waiting.budget.begin(Mono(0));
        (0..LOOK_EVERY).for_each(|_| waiting.budget.count());
        waiting
    }

    fn all(waiting: &mut Waiting, most: usize) -> Vec<String> {
        let next = |_| {
            waiting.budget.begin(Mono(0));
            name(waiting.next())
        };
        (0..most).map(next).collect()
    }

    #[test]
    fn who_sent_much_waits_for_who_sent_little() {
        let mut waiting = Waiting::new(|| Mono(u64::MAX));
        waiting.budget.begin(Mono(0));
        assert_eq!(name(waiting.put(reload(1, 0))), "1 0", "there is time");
        let mut waiting = spent();
        assert!(matches!(waiting.put(Input::Tick), Some(Input::Tick)), "facts never wait");
        for input in [reload(1, 1), reload(1, 2), reload(2, 1), closed(1), closed(2)] {
            assert!(waiting.put(input).is_none());
        }
        assert_eq!(name(waiting.put(closed(7))), "7 closed", "nothing of it waits");
        assert_eq!(name(waiting.next()), "None", "the turn is over");
        waiting.budget.begin(Mono(0));
        assert!(waiting.put(reload(3, 1)).is_none(), "nobody passes those who wait");
        assert!(waiting.holds(ConnId(3)) && !waiting.holds(ConnId(4)));
        assert_eq!(all(&mut waiting, 7), ["1 1", "2 1", "3 1", "1 2", "2 closed", "1 closed", "None"]);
        assert!(waiting.is_empty());
    }

    #[test]
    fn after_a_request_that_goes_on_the_rest_waits_for_the_next_round() {
        let mut waiting = Waiting::new(|| Mono(0));
        waiting.budget.begin(Mono(0));
        assert_eq!(name(waiting.put(reload(1, 1))), "1 1");
        waiting.hold();
        assert!(waiting.put(reload(1, 2)).is_none() && !waiting.has_next());
        waiting.begin_round();
        assert_eq!(all(&mut waiting, 2), ["1 2", "None"]);
        let mut waiting = Waiting::new(|| Mono(u64::MAX));
        waiting.budget.begin(Mono(0));
        waiting.hold();
        assert!(waiting.budget.is_spent(), "the clock is looked at");
    }

    #[test]
    fn many_connections_of_one_user_take_the_turns_of_one() {
        let mut waiting = spent();
        for input in [reload(101, 1), reload(102, 1), reload(101, 2), reload(103, 1), reload(200, 1), reload(200, 2)] {
            assert!(waiting.put(input).is_none());
        }
        let want = ["101 1", "200 1", "102 1", "200 2", "103 1", "101 2", "None"];
        assert_eq!(all(&mut waiting, 7), want);
    }

    #[test]
    fn what_nobody_waits_for_any_more_takes_no_turn() {
        let mut waiting = spent();
        for (req, request) in (1..).zip([Request::Ping, Request::DaemonReload, Request::DaemonStatus]) {
            assert!(waiting.put(asked(1, req, request)).is_none());
        }
        assert!(waiting.put(closed(1)).is_none());
        assert_eq!(all(&mut waiting, 3), ["1 2", "1 closed", "None"]);
        assert!(waiting.is_empty());
    }

    fn measured(req: u64) -> Input {
        Input::Measured { req: ReqId(req), usage: Arc::default() }
    }

    #[test]
    fn answers_that_were_measured_for_take_turns_by_owner() {
        let mut waiting = Waiting::new(|| Mono(u64::MAX));
        for (conn, req) in [(101, 1), (101, 2), (102, 3), (103, 4), (200, 5)] {
            waiting.put_back(&Owner::User(u32::try_from(conn / 100).unwrap()), ConnId(conn), measured(req));
        }
        waiting.budget.begin(Mono(0));
        assert!(waiting.put(reload(101, 9)).is_none(), "what was sent later is answered later");
        let want = ["measured 1", "measured 5", "measured 3", "measured 4", "measured 2", "101 9", "None"];
        assert_eq!(all(&mut waiting, 7), want);
        waiting.put_back(&Owner::User(1), ConnId(101), measured(1));
        waiting.budget.begin(Mono(0));
        waiting.budget.look();
        assert_eq!(name(waiting.next()), "None", "the turn is over");
        assert!(waiting.put(closed(101)).is_none());
        assert_eq!(all(&mut waiting, 2), ["101 closed", "None"], "nobody waits for the answer");
    }
}
