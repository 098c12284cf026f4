//! Turns in which clients alone had something: what they ask is answered as it is read, without a round, where it only
//! asks for the present state; then nothing is left to do but to send the replies.

use super::Daemon;
use super::conn::{Conns, Flushed, Inlet, Readiness};
use super::gear::Outlet;
use super::journal::Journal;
use super::lifecycle::Lifecycle;
use crate::base::ids::ConnId;
use crate::base::time::{Mono, Now, sooner};
use crate::core::{Core, Input};
use crate::protocol::methods::Request;
use crate::protocol::rpc::RpcError;
use core::time::Duration;

/// What answers questions of clients without a round.
fn ask<'a>(
    core: &'a mut Core,
    life: &'a Lifecycle,
    journal: &'a Journal,
    now: Now,
) -> impl FnMut(&Request) -> Option<Result<String, RpcError>> + 'a {
    move |request| {
        life.marks.question(journal.last_record());
        core.answer(now, request)
    }
}

impl Daemon {
    fn with_inlet(&mut self, read: impl FnOnce(&mut Conns, &mut Inlet<'_, '_>)) {
        let mut ask = ask(&mut self.core, &self.life, &self.journal, self.gear.now);
        let mut inlet = Inlet { ask: &mut ask, waiting: &mut self.waiting, out: &mut self.inputs };
        read(&mut self.conns, &mut inlet);
    }

    /// Reads a connection that is ready.
    pub(super) fn read(&mut self, id: ConnId, what: Readiness) {
        self.with_inlet(|conns, inlet| conns.ready(id, what, inlet));
    }

    /// Reads on where an earlier turn stopped.
    pub(super) fn read_backlog(&mut self) {
        self.with_inlet(|conns, inlet| conns.read_backlog(inlet));
    }

    /// How long the loop may sleep after a turn that left all deadlines but those of clients as they were.
    pub(super) fn same_timeout(&mut self) -> Option<Duration> {
        if self.conns.has_backlog() {
            self.due_at = Some(Mono(0));
            return Some(Duration::ZERO);
        }
        self.due_at = sooner(self.due_at, self.conns.next_deadline());
        Some(self.due_at?.since(self.gear.now.mono))
    }

    /// Writes to clients what gathered for them. True when nothing else came of it.
    pub(super) fn flush(&mut self) -> bool {
        if !self.conns.has_unflushed() {
            return true;
        }
        let mut found = Flushed::default();
        self.conns.flush(self.gear.now.mono, self.gear.poll.registry(), &mut self.gear.sources, &mut found);
        let calm = found.closed.is_empty() && found.drained.is_empty();
        for conn in found.closed {
            self.channel_closed(conn);
            self.streams.closed(conn);
            self.inputs.push(Input::Closed { conn });
        }
        for conn in found.drained {
            self.streams.drained(conn, &mut Outlet { gear: &mut self.gear, conns: &mut self.conns });
        }
        calm
    }
}
