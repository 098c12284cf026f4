//! What each user, and each job, has of what is limited: connections, requests, subscriptions, streams, memory. One
//! that takes all it may have leaves the others theirs. Touches nothing.

use crate::base::limits::{
    BYTES_PER_USER_MAX, CONNECTIONS_KEPT, CONNECTIONS_KEPT_FOR_ROOT, CONNECTIONS_MAX, CONNECTIONS_PER_USER_MAX,
    REQUESTS_PER_USER_MAX, STREAMS_PER_USER_MAX, SUBSCRIPTIONS_PER_USER_MAX,
};
use crate::base::map::Map;
use crate::core::Owner;
use crate::protocol::rpc::{Code, RpcError};

/// What there is a limit on, beside memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Connection,
    Request,
    Subscription,
    Stream,
}

impl Kind {
    const ALL: usize = 4;

    fn most(self) -> usize {
        match self {
            Kind::Connection => CONNECTIONS_PER_USER_MAX,
            Kind::Request => REQUESTS_PER_USER_MAX,
            Kind::Subscription => SUBSCRIPTIONS_PER_USER_MAX,
            Kind::Stream => STREAMS_PER_USER_MAX,
        }
    }

    fn refuse(self, who: &Owner) -> RpcError {
        let (what, hint) = match self {
            Kind::Connection => ("connections open", "close some, or try again later"),
            Kind::Request => ("requests that wait for their reply", "read replies before sending more"),
            Kind::Subscription => {
                ("subscriptions", "end some with event.unsubscribe, or name several kinds in one subscription")
            }
            Kind::Stream => ("streams", "end some with stream.close"),
        };
        RpcError::new(Code::Busy, format!("{} has {} {what}", who.text(), self.most())).hint(hint)
    }
}

/// What one has.
#[derive(Debug, Default, PartialEq, Eq)]
struct Share {
    counts: [usize; Kind::ALL],
    bytes: usize,
}

/// What all have.
#[derive(Debug)]
pub(super) struct Shares {
    /// The daemon's own user.
    own: u32,
    of: Map<Owner, Share>,
    connections: usize,
}

impl Shares {
    pub(super) fn new(own: u32) -> Shares {
        Shares { own, of: Map::new(), connections: 0 }
    }

    /// Root and the daemon's own user can do anything to hob anyway; a job of theirs need not.
    pub(super) fn is_limited(&self, who: &Owner) -> bool {
        match who {
            Owner::User(uid) => *uid != 0 && *uid != self.own,
            // Jobs of the schedule have no connection.
            Owner::Job(_) | Owner::Schedule(_) => true,
        }
    }

    /// One more of a kind.
    ///
    /// # Errors
    /// `Busy` when this one may have no more; of connections also when all have too many together.
    pub(super) fn take(&mut self, who: &Owner, kind: Kind) -> Result<(), RpcError> {
        if kind == Kind::Connection {
            let kept = match who {
                Owner::User(0) => 0,
                _ if self.is_limited(who) => CONNECTIONS_KEPT,
                _ => CONNECTIONS_KEPT_FOR_ROOT,
            };
            if self.connections >= CONNECTIONS_MAX - kept {
                let what = format!("{} connections are open", self.connections);
                return Err(RpcError::new(Code::Busy, what).hint("close some, or try again later"));
            }
        }
        let limited = self.is_limited(who);
        let share = match self.of.get_mut(who) {
            Some(share) => share,
            None => self.of.get_or(who.clone(), Share::default),
        };
        let count = &mut share.counts[kind as usize];
        if limited && *count >= kind.most() {
            return Err(kind.refuse(who));
        }
        *count += 1;
        if kind == Kind::Connection {
            self.connections += 1;
        }
        Ok(())
    }

    /// So many of a kind less.
    pub(super) fn give(&mut self, who: &Owner, kind: Kind, n: usize) {
        if kind == Kind::Connection {
            self.connections = self.connections.saturating_sub(n);
        }
        let Some(share) = self.of.get_mut(who) else { return };
        let count = &mut share.counts[kind as usize];
        *count = count.saturating_sub(n);
        if *share == Share::default() {
            self.of.remove(who);
        }
    }

    /// A connection that had `before` bytes in memory has `now`.
    ///
    /// # Errors
    /// `Busy` when its user has too many by that; they are counted all the same.
    pub(super) fn hold(&mut self, who: &Owner, before: usize, now: usize) -> Result<(), RpcError> {
        if before == now {
            return Ok(());
        }
        let limited = self.is_limited(who);
        let share = match self.of.get_mut(who) {
            Some(share) => share,
            None => self.of.get_or(who.clone(), Share::default),
        };
        share.bytes = (share.bytes + now).saturating_sub(before);
        let over = limited && now > before && share.bytes > BYTES_PER_USER_MAX;
        if *share == Share::default() {
            self.of.remove(who);
        }
        if over {
            let what = format!("{} has more than {BYTES_PER_USER_MAX} bytes unread or unfinished", who.text());
            return Err(RpcError::new(Code::Busy, what).hint("read replies, and send whole messages"));
        }
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn count(&self, who: &Owner, kind: Kind) -> usize {
        self.of.get(who).map_or(0, |s| s.counts[kind as usize])
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.of.is_empty() && self.connections == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [Kind; Kind::ALL] = [Kind::Connection, Kind::Request, Kind::Subscription, Kind::Stream];

    fn fill(shares: &mut Shares, who: &Owner, kind: Kind) -> usize {
        (0..CONNECTIONS_MAX * 2).take_while(|_| shares.take(who, kind).is_ok()).count()
    }

    #[test]
    fn one_that_has_all_it_may_have_leaves_the_others_theirs() {
        let (greedy, other) = (Owner::User(1000), Owner::User(1001));
        let job = Owner::Job("web".into());
        for kind in KINDS {
            let mut shares = Shares::new(500);
            assert_eq!(fill(&mut shares, &greedy, kind), kind.most());
            let e = shares.take(&greedy, kind).unwrap_err();
            assert_eq!(e.code, Code::Busy);
            assert!(e.message.starts_with("uid 1000 has ") && e.hint.is_some(), "{e}");
            assert!(shares.take(&other, kind).is_ok() && shares.take(&Owner::User(500), kind).is_ok());
            assert_eq!(fill(&mut shares, &job, kind), kind.most(), "a job has a share of its own");
            shares.give(&greedy, kind, 1);
            assert!(shares.take(&greedy, kind).is_ok() && shares.take(&greedy, kind).is_err());
        }
    }

    #[test]
    fn a_flood_of_many_leaves_room_for_root_and_for_hobs_own_user() {
        let mut shares = Shares::new(500);
        let mut open: usize = (1000..2000).map(|uid| fill(&mut shares, &Owner::User(uid), Kind::Connection)).sum();
        assert_eq!(open, CONNECTIONS_MAX - CONNECTIONS_KEPT);
        assert!(shares.take(&Owner::Job("web".into()), Kind::Connection).is_err());
        open += fill(&mut shares, &Owner::User(500), Kind::Connection);
        assert_eq!(open, CONNECTIONS_MAX - CONNECTIONS_KEPT_FOR_ROOT);
        open += fill(&mut shares, &Owner::User(0), Kind::Connection);
        assert_eq!(open, CONNECTIONS_MAX);
        let e = shares.take(&Owner::User(0), Kind::Connection).unwrap_err();
        assert!(e.message.contains("connections are open"), "{e}");
    }

    #[test]
    fn memory_is_counted_over_all_connections_of_one() {
        let (mut shares, who) = (Shares::new(500), Owner::User(1000));
        assert!(shares.hold(&who, 0, BYTES_PER_USER_MAX).is_ok());
        assert!(shares.hold(&who, 0, 1).is_err_and(|e| e.code == Code::Busy));
        assert!(shares.hold(&Owner::User(0), 0, 2 * BYTES_PER_USER_MAX).is_ok());
        assert!(shares.hold(&who, BYTES_PER_USER_MAX, 7).is_ok(), "less is never refused");
        assert!(shares.hold(&who, 1, 2).is_ok());
        shares.hold(&who, 2, 0).unwrap();
        shares.hold(&who, 7, 0).unwrap();
        shares.hold(&Owner::User(0), 2 * BYTES_PER_USER_MAX, 0).unwrap();
        assert!(shares.is_empty());
    }

    #[test]
    fn nothing_is_kept_of_those_who_have_nothing() {
        let mut shares = Shares::new(500);
        for kind in KINDS {
            shares.take(&Owner::User(7), kind).unwrap();
            shares.take(&Owner::User(7), kind).unwrap();
            shares.give(&Owner::User(7), kind, 2);
            shares.give(&Owner::User(8), kind, 1);
        }
        assert!(shares.is_empty());
    }
}
