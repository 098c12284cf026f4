//! What all connections together may hold in memory: messages and batches that are not whole yet and bytes that nobody
//! reads. Each connection has limits of its own; this is the one that keeps thousands of them from adding up.

use super::link::Input;
use super::{Conn, Conns};
use crate::base::ids::ConnId;
use crate::protocol::rpc::{Code, RpcError};

impl Conns {
    /// Counts what a connection holds now. Past the limit those that hold most lose it: others than root and the
    /// daemon's own user first.
    pub(super) fn count(&mut self, id: ConnId) {
        if let Some(Conn { decoder, link }) = self.conns.get_mut(id.0) {
            let holds = decoder.held() + link.owed();
            self.buffered = self.buffered - link.counted + holds;
            link.counted = holds;
        }
        while self.buffered > self.buffered_max
            && let Some(greediest) = self.greediest()
        {
            self.shed(greediest);
        }
    }

    fn greediest(&self) -> Option<ConnId> {
        let holds = |id: u64| {
            let link = &self.conns.get(id)?.link;
            let limited = self.requests.shares.is_limited(&link.who);
            (link.counted > 0).then_some((limited, link.counted))
        };
        let ids = self.conns.ids();
        ids.into_iter().filter_map(|id| Some((holds(id)?, id))).max().map(|(_, id)| ConnId(id))
    }

    /// Takes from a connection what it holds. One that sends too much is told why; one that does not read cannot be.
    fn shed(&mut self, id: ConnId) {
        let Some(Conn { decoder, link }) = self.conns.get_mut(id.0) else { return };
        self.buffered -= link.counted;
        link.counted = 0;
        if link.owed() > decoder.held() {
            link.discard();
        } else if link.input == Input::Open {
            let what = format!("all connections together hold more than {} bytes", self.buffered_max);
            link.error("null", &RpcError::new(Code::Busy, what).hint("send less at once, or try again later"));
            link.input = Input::Stopped;
        }
        *decoder = link.wire.decoder();
        self.touch(id);
    }
}
