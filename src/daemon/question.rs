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
use crate::sys::clock;
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

    /// Goes on where an earlier turn stopped, before anybody comes who did not wait: first with what was read, which
    /// has a share of the turn for itself, then with what is to be read.
    pub(super) fn serve_who_waits(&mut self) {
        if !self.waiting.is_empty() {
            self.rounds();
            self.waiting.budget.begin(clock::now().mono);
        }
        if self.conns.has_backlog() {
            self.with_inlet(|conns, inlet| conns.read_backlog(inlet));
        }
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

#[cfg(test)]
mod tests {
    use super::super::conn::{Conns, Inlet, Pass, Readiness};
    use super::super::fair::Waiting;
    use super::super::source::Sources;
    use crate::base::access::Access;
    use crate::base::ids::{ConnId, ReqId};
    use crate::base::time::Mono;
    use crate::core::{Input, Peer};
    use crate::protocol::methods::Request;
    use crate::sys::net::Credentials;
    use std::io::Write as _;
    use std::os::unix::net::UnixStream;

    const PING: &str = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    const STOP: &str = r#"{"jsonrpc":"2.0","id":2,"method":"service.stop","params":{"name":"web"}}"#;

    /// What is asked at once, and what goes to the core in a round, of these messages; `first`: what is there already;
    /// `waits`: which connection something waits of since an earlier turn, counted from this one.
    fn read(messages: &[&str], first: Vec<Input>, waits: Option<u64>) -> (Vec<Request>, Vec<Input>) {
        let poll = mio::Poll::new().unwrap();
        let (mut conns, mut sources) = (Conns::new(500, &[]), Sources::default());
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let cred = Credentials { uid: 500, gid: 500, pid: 1 };
        let id = conns.adopt(ours, cred, Pass::from(Access::Admin), poll.registry(), &mut sources).unwrap();
        for message in messages {
            writeln!(theirs, "{message}").unwrap();
        }
        let (mut asked, mut inputs) = (Vec::new(), first);
        let mut ask = |request: &Request| {
            asked.push(request.clone());
            matches!(request, Request::Ping).then(|| Ok("{}".to_owned()))
        };
        let mut waiting = Waiting::new(|| Mono(u64::MAX));
        if let Some(from) = waits {
            waiting.budget.begin(Mono(0));
            let peer = Peer { uid: 500, pid: 1, access: Access::Admin, job: None, schedule: None };
            let (req, conn) = (ReqId(9), ConnId(id.0 + from));
            let ping =
                || Input::Request { req, conn, peer: peer.clone(), key: None, params_hash: 0, request: Request::Ping };
            while waiting.put(ping()).is_some() {}
            waiting.budget.begin(Mono(0));
        }
        let what = Readiness { readable: true, writable: false, read_closed: false, closed: false };
        conns.ready(id, what, &mut Inlet { ask: &mut ask, waiting: &mut waiting, out: &mut inputs });
        (asked, inputs)
    }

    #[test]
    fn a_question_does_not_overtake_what_waits_for_the_round() {
        let (asked, inputs) = read(&[PING, PING], Vec::new(), None);
        assert_eq!(asked, [Request::Ping, Request::Ping]);
        assert!(inputs.is_empty(), "{inputs:?}");

        let (asked, inputs) = read(&[PING, STOP, PING], Vec::new(), None);
        assert!(matches!(&asked[..], [Request::Ping, Request::ServiceStop(_)]), "{asked:?}");
        let stop = |i: &Input| matches!(i, Input::Request { request: Request::ServiceStop(_), .. });
        let ping = |i: &Input| matches!(i, Input::Request { request: Request::Ping, .. });
        assert!(inputs.len() == 2 && stop(&inputs[0]) && ping(&inputs[1]), "{inputs:?}");

        // Neither what the daemon itself has learned in this turn.
        let (asked, inputs) = read(&[PING], vec![Input::WallSet { by: 1 }], None);
        assert!(asked.is_empty(), "{asked:?}");
        assert!(inputs.len() == 2 && ping(&inputs[1]), "{inputs:?}");

        // Nor what waits of the same client, of which nothing more is read; that of another does not matter.
        let (asked, inputs) = read(&[PING], Vec::new(), Some(0));
        assert!(asked.is_empty() && inputs.is_empty(), "it is read later: {asked:?} {inputs:?}");
        let (asked, inputs) = read(&[PING], Vec::new(), Some(1));
        assert!(asked == [Request::Ping] && inputs.is_empty(), "{asked:?} {inputs:?}");
    }
}
