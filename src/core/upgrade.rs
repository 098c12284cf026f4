//! An upgrade as the core sees it: asked for, refused or under way, and, for the daemon after it, how it came out.
//! Pure.

use super::keys::Verdict;
use super::{Core, Effect, Out};
use crate::base::ids::{ConnId, ReqId};
use crate::base::json::Obj;
use crate::base::limits::KEPT_REPLIES_MAX;
use crate::config::Level;
use crate::protocol::rpc::{Code, RpcError};

/// Whose request it was: who sends it again, to another daemon, gets the reply that is kept for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    pub uid: u32,
    pub key: String,
    pub hash: u64,
}

impl Core {
    /// Orders an upgrade, for a request or without one.
    pub(super) fn ask_upgrade(
        &mut self,
        req: Option<ReqId>,
        binary: Option<String>,
        ticket: Option<Ticket>,
        out: &mut Out,
    ) {
        let refused = match (&self.life.stopping, &self.journal_behind) {
            (Some(_), _) => Some(Core::shutting_down()),
            // What waits to be written would be lost with this daemon.
            (None, Some(why)) => Some(RpcError::new(Code::Unavailable, format!("the journal is behind: {why}"))),
            (None, None) if self.upgrading => Some(RpcError::new(Code::Busy, "an upgrade is under way already")),
            (None, None) => None,
        };
        if let Some(error) = refused {
            return self.tell_upgrade(req, Err(error), out);
        }
        self.upgrading = true;
        out.effects.push(Effect::Upgrade { req, binary, ticket });
    }

    /// Whether a program that was found fit may still take over.
    #[must_use]
    pub fn may_upgrade(&self) -> bool {
        self.life.stopping.is_none() && self.journal_behind.is_none()
    }

    /// Nothing came of it: this daemon goes on.
    pub(super) fn upgrade_ended(&mut self, req: Option<ReqId>, result: Result<String, RpcError>, out: &mut Out) {
        self.upgrading = false;
        self.tell_upgrade(req, result, out);
    }

    fn tell_upgrade(&mut self, req: Option<ReqId>, result: Result<String, RpcError>, out: &mut Out) {
        if let Err(e) = &result {
            let text = format!("no upgrade: {}", e.message);
            out.effects.push(Effect::Log { level: Level::Error, text });
        }
        if let Some(req) = req {
            self.reply(req, result, false, out);
        }
    }

    /// An upgrade that a daemon before this one began has come to its end.
    pub(super) fn upgraded(&mut self, ticket: Option<Ticket>, result: Result<String, RpcError>, out: &mut Out) {
        let mut fields = Obj::new();
        let kind = match &result {
            Ok(json) => {
                fields.raw("upgrade", json);
                "daemon.upgraded"
            }
            Err(e) => {
                fields.str("error", &e.message);
                "daemon.upgrade_failed"
            }
        };
        self.emit_daemon(kind, fields.members(), out);
        let Some(ticket) = ticket else { return };
        // Nobody has this number: the request itself was the other daemon's.
        let (req, who) = (ReqId(u64::MAX), (ticket.uid, ConnId(u64::MAX)));
        let begun = self.keys.begin(self.now, who, &ticket.key, (ticket.hash, req), KEPT_REPLIES_MAX);
        if let Verdict::New | Verdict::Resume = begun {
            let joined = self.keys.finish(self.now, req, &result, true, out);
            for req in joined {
                out.effects.push(Effect::Reply { req, result: result.clone(), durable: true });
            }
        }
    }
}
