//! Making a running service read its own config again, by its signal or command. Pure.

use super::{Service, State};
use crate::base::ids::{ConnId, ReqId, RunId};
use crate::base::json::Obj;
use crate::core::request::Asked;
use crate::core::run::clip;
use crate::core::{Core, Duty, Effect, Out};
use crate::protocol::rpc::{Code, RpcError};
use core::time::Duration;
use std::sync::Arc;

/// How long a reload command may take.
const LIMIT: Duration = Duration::from_secs(60);

/// A request that waits for reload commands.
#[derive(Debug)]
pub struct Reloads {
    req: ReqId,
    conn: ConnId,
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    name: Arc<str>,
    run: RunId,
    how: &'static str,
    /// `None` while its command runs.
    result: Option<Result<(), String>>,
}

impl Core {
    pub(in crate::core) fn reload_services(&mut self, asked: &Asked, places: &[usize], out: &mut Out) {
        if let Some(e) = places.iter().find_map(|i| self.not_reloadable(&self.table[*i])) {
            return self.reply(asked.req, Err(e), true, out);
        }
        let mut rows = Vec::new();
        for i in places {
            let s = &mut self.table[*i];
            let (name, spec) = (Arc::clone(&s.name), Arc::clone(&s.spec));
            let Some(live) = s.live.as_mut() else { continue };
            let run = live.run;
            let signal = spec.reload_signal;
            let (how, result) = if signal.is_some() { ("signalled", Some(Ok(()))) } else { ("reloaded", None) };
            live.reloading = signal.is_none();
            match signal {
                Some(signal) => out.effects.push(Effect::Signal { run, signal: signal.number, tree: false }),
                None => out.effects.push(Effect::Check { run, what: Duty::Reload, spec, limit: LIMIT }),
            }
            rows.push(Row { name, run, how, result });
        }
        self.reloads.push(Reloads { req: asked.req, conn: asked.conn, rows });
        self.answer_reloads(out);
    }

    fn not_reloadable(&self, s: &Service) -> Option<RpcError> {
        let name = &s.name;
        let live = s.live.as_ref().filter(|l| l.pid.is_some() && l.end.is_none() && l.stop.is_none());
        let Some(live) = live.filter(|_| s.state == State::Running) else {
            let error = RpcError::new(Code::Unavailable, format!("{name} is not running: it is {}", s.state));
            return Some(error.hint(format!("hob why {name}")));
        };
        if s.spec.reload_signal.is_none() && s.spec.reload_command.is_none() {
            let error = RpcError::new(Code::InvalidParams, format!("how to reload {name} is not known"));
            return Some(error.hint("set \"reload_signal\" or \"reload_command\" in its config, or restart it"));
        }
        live.reloading.then(|| {
            let error = RpcError::new(Code::Busy, format!("{name} is being reloaded"));
            error.hint("try again when that has ended")
        })
    }

    pub(in crate::core) fn reload_ended(&mut self, run: RunId, result: &Result<(), String>, out: &mut Out) {
        let Some(i) = self.runs.get(&run).copied() else { return self.late("a reload", run, out) };
        let Some(live) = self.table[i].live.as_mut() else { return };
        if !core::mem::take(&mut live.reloading) {
            return self.late("a reload", run, out);
        }
        match result {
            Ok(()) => live.asides.iter_mut().for_each(|asides| asides.reload_error = None),
            Err(e) => {
                let error = Some(Box::new((self.now.wall, clip(e))));
                live.asides.get_or_insert_default().reload_error = error;
            }
        }
        let mut fields = Obj::new();
        fields.u64("run", run.0).opt_str("error", result.as_ref().err().map(String::as_str));
        self.emit(if result.is_ok() { "service.reloaded" } else { "service.reload_failed" }, i, fields.members(), out);
        for row in self.reloads.iter_mut().flat_map(|r| &mut r.rows).filter(|r| r.run == run && r.result.is_none()) {
            row.result = Some(result.clone());
        }
        self.answer_reloads(out);
    }

    /// The run ends or is to end.
    pub(super) fn reload_cut_short(&mut self, i: usize, out: &mut Out) {
        let Some(run) = self.table[i].live.as_ref().filter(|l| l.reloading).map(|l| l.run) else { return };
        out.effects.push(Effect::CheckEnd { run, what: Duty::Reload });
        self.reload_ended(run, &Err("it was stopped or ended meanwhile".to_owned()), out);
    }

    fn answer_reloads(&mut self, out: &mut Out) {
        let open = |r: &Reloads| r.rows.iter().any(|row| row.result.is_none());
        let (wait, done): (Vec<Reloads>, Vec<Reloads>) = core::mem::take(&mut self.reloads).into_iter().partition(open);
        self.reloads = wait;
        for r in done {
            let failed: Vec<String> = r
                .rows
                .iter()
                .filter_map(|row| Some(format!("{}: {}", row.name, row.result.as_ref()?.as_ref().err()?)))
                .collect();
            let row = |row: &Row| {
                let mut o = Obj::new();
                o.str("name", &row.name).u64("run", row.run.0).str("result", row.how);
                o.finish()
            };
            let result = if failed.is_empty() {
                Ok(format!("{{\"services\":[{}]}}", r.rows.iter().map(row).collect::<Vec<_>>().join(",")))
            } else {
                let text = format!("the reload failed: {}", failed.join("; "));
                Err(RpcError::new(Code::Unavailable, text).hint("it goes on with what it had"))
            };
            self.reply(r.req, result, true, out);
        }
    }

    pub(in crate::core) fn forget_reloads(&mut self, conn: ConnId) {
        let keys = &self.keys;
        self.reloads.retain(|r| r.conn != conn || keys.is_open(r.req));
    }

    pub(in crate::core) fn fail_open_reloads(&mut self, out: &mut Out) {
        for r in core::mem::take(&mut self.reloads) {
            self.reply(r.req, Err(Core::shutting_down()), false, out);
        }
    }
}
