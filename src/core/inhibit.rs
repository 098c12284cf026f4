//! Inhibitors: clients that ask for a moment before hob shuts down, as logind's delay locks do. Pure.
//!
//! One lives as long as its connection, or until it is released; nothing of it is recorded, so a daemon's death ends it
//! and its client has to ask again. It delays a shutdown by `daemon.shutdown_grace` at most and can refuse none. Who
//! wants to know when to hurry subscribes to `daemon.stopping`, which comes first.

use super::request::Asked;
use super::{Core, Effect, Out};
use crate::base::ids::ConnId;
use crate::base::json::Obj;
use crate::base::limits::{INHIBITOR_TEXT_MAX, INHIBITORS_MAX, INHIBITORS_PER_CONNECTION_MAX};
use crate::base::time::Now;
use crate::config::Level;
use crate::protocol::methods::Inhibit;
use crate::protocol::rpc::{Code, RpcError};
use core::time::Duration;

/// What can be inhibited.
const WHAT: &str = "shutdown";

#[derive(Debug)]
struct Inhibitor {
    id: u32,
    conn: ConnId,
    uid: u32,
    pid: u32,
    who: String,
    why: String,
    since: Now,
}

#[derive(Debug, Default)]
pub(super) struct Inhibitors {
    all: Vec<Inhibitor>,
    last: u32,
}

impl Inhibitors {
    /// A JSON array.
    pub(super) fn json(&self) -> String {
        let one = |i: &Inhibitor| {
            let mut o = Obj::new();
            o.u64("inhibitor", i.id.into()).str("what", WHAT).str("who", &i.who).str("why", &i.why);
            o.u64("uid", i.uid.into()).u64("pid", i.pid.into()).str("since", &i.since.wall.to_string());
            o.finish()
        };
        format!("[{}]", self.all.iter().map(one).collect::<Vec<_>>().join(","))
    }

    /// `backup (pid 7): writes its snapshot; ...`, or nothing.
    pub(super) fn text(&self) -> String {
        let one = |i: &Inhibitor| format!("{} (pid {}): {}", i.who, i.pid, i.why);
        self.all.iter().map(one).collect::<Vec<_>>().join("; ")
    }

    fn refusal(&self, conn: ConnId, wish: &Inhibit) -> Option<RpcError> {
        if wish.what != WHAT {
            let error = RpcError::new(Code::InvalidParams, format!("{:?} cannot be inhibited", wish.what));
            return Some(error.hint(format!("what: {WHAT:?} can")));
        }
        for (name, text) in [("who", &wish.who), ("why", &wish.why)] {
            if text.trim().is_empty() || text.len() > INHIBITOR_TEXT_MAX || text.chars().any(char::is_control) {
                let what = format!("{name} has to be a text of 1 to {INHIBITOR_TEXT_MAX} bytes in one line");
                let hint = "it is shown to whoever waits for hob to stop";
                return Some(RpcError::new(Code::InvalidParams, what).hint(hint));
            }
        }
        let of_this = self.all.iter().filter(|i| i.conn == conn).count();
        let what = if of_this >= INHIBITORS_PER_CONNECTION_MAX {
            format!("this connection has {INHIBITORS_PER_CONNECTION_MAX} inhibitors")
        } else if self.all.len() >= INHIBITORS_MAX {
            format!("there are {INHIBITORS_MAX} inhibitors")
        } else {
            return None;
        };
        Some(RpcError::new(Code::Busy, what).hint("release some with daemon.uninhibit"))
    }
}

impl Core {
    pub(super) fn inhibit(&mut self, asked: &Asked, wish: Inhibit, out: &mut Out) {
        let answer = self.take_inhibitor(asked, wish, out);
        self.reply(asked.req, answer, false, out);
    }

    /// Only the connection that has it can release it.
    pub(super) fn uninhibit(&mut self, asked: &Asked, id: u32, out: &mut Out) {
        let known = self.inhibitors.all.iter().any(|i| i.id == id && i.conn == asked.conn);
        let answer = known.then(|| "{\"released\":true}".to_owned()).ok_or_else(|| {
            let error = RpcError::new(Code::NotFound, format!("this connection has no inhibitor {id}"));
            error.hint("daemon.status lists all of them")
        });
        self.reply(asked.req, answer, false, out);
        if known {
            self.drop_inhibitors(|i| i.id == id, out);
        }
    }

    fn take_inhibitor(&mut self, asked: &Asked, wish: Inhibit, out: &mut Out) -> Result<String, RpcError> {
        if self.life.stopping.is_some() {
            return Err(Core::shutting_down());
        }
        if let Some(fault) = &self.safe {
            let error = RpcError::new(Code::Unavailable, format!("hob is in safe mode: {fault}"));
            return Err(error.hint("in safe mode nothing is stopped in order, so nothing could wait"));
        }
        let mut wish = wish;
        if wish.who.is_empty() {
            wish.who = format!("process {}", asked.peer.pid);
        }
        if let Some(refusal) = self.inhibitors.refusal(asked.conn, &wish) {
            return Err(refusal);
        }
        let id = self.inhibitors.last.wrapping_add(1).max(1);
        self.inhibitors.last = id;
        let (uid, pid) = (asked.peer.uid, asked.peer.pid);
        let mut fields = Obj::new();
        fields.u64("inhibitor", id.into()).str("who", &wish.who).str("why", &wish.why);
        fields.u64("uid", uid.into()).u64("pid", pid.into());
        self.emit_daemon("daemon.inhibited", fields.members(), out);
        let Inhibit { who, why, what: _ } = wish;
        self.inhibitors.all.push(Inhibitor { id, conn: asked.conn, uid, pid, who, why, since: self.now });
        let mut o = Obj::new();
        o.u64("inhibitor", id.into()).str("what", WHAT);
        o.u64("grace_ms", super::run::millis(self.config.shutdown_grace));
        Ok(o.finish())
    }

    pub(super) fn forget_inhibitors(&mut self, conn: ConnId, out: &mut Out) {
        self.drop_inhibitors(|i| i.conn == conn, out);
    }

    fn drop_inhibitors(&mut self, goes: impl Fn(&Inhibitor) -> bool, out: &mut Out) {
        let (gone, left) = core::mem::take(&mut self.inhibitors.all).into_iter().partition(goes);
        self.inhibitors.all = left;
        let gone: Vec<Inhibitor> = gone;
        for i in &gone {
            let mut fields = Obj::new();
            fields.u64("inhibitor", i.id.into()).str("who", &i.who);
            fields.u64("held_ms", super::run::millis(self.now.mono.since(i.since.mono)));
            self.emit_daemon("daemon.uninhibited", fields.members(), out);
        }
        if !gone.is_empty() && self.inhibitors.all.is_empty() {
            self.stop_jobs(out);
        }
    }

    /// How long a shutdown that begins now is put off.
    pub(super) fn shutdown_delay(&self, out: &mut Out) -> Duration {
        let delay = self.config.shutdown_grace;
        if self.inhibitors.all.is_empty() || delay.is_zero() {
            return Duration::ZERO;
        }
        let text = format!("the shutdown waits up to {delay:?} for {}", self.inhibitors.text());
        out.effects.push(Effect::Log { level: Level::Info, text });
        delay
    }
}
