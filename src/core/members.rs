//! Names in requests: a service, or all instances of one. Pure.

use super::run::{Client, Signalled, signal_name};
use super::{Core, Effect, Out};
use crate::base::json::Obj;
use crate::base::near::nearest;
use crate::config::instance;
use crate::protocol::rpc::{Code, RpcError};

type Answer = Result<String, RpcError>;

impl Core {
    /// The service of this name, or else those of which this is the part before the `@`.
    pub(super) fn members(&self, name: &str) -> Result<Vec<usize>, RpcError> {
        if let Some(i) = self.table.find(name) {
            return Ok(vec![i]);
        }
        let all = self.table.instances(name);
        if all.is_empty() { Err(self.unknown(name)) } else { Ok(all) }
    }

    /// What one service answers, or `{name, instances}` with the answer of each.
    pub(super) fn one_or_each(&self, name: &str, answer: impl Fn(usize) -> String) -> Answer {
        let all = self.members(name)?;
        Ok(Core::joined(name, self.table.find(name).is_some(), all.into_iter().map(answer)))
    }

    pub(super) fn joined(name: &str, exact: bool, mut answers: impl Iterator<Item = String>) -> String {
        if exact {
            return answers.next().unwrap_or_default();
        }
        let mut o = Obj::new();
        o.str("name", name).raw("instances", &format!("[{}]", answers.collect::<Vec<_>>().join(",")));
        o.finish()
    }

    pub(super) fn all_gone(&self, names: &[String]) -> bool {
        !names.is_empty() && names.iter().all(|name| self.members(name).is_err())
    }

    /// The rows of a stop whose services do not exist any more.
    pub(super) fn gone(names: &[String]) -> String {
        let row = |name: &String| {
            let mut o = Obj::new();
            o.str("name", name).str("state", "stopped").str("result", "stopped").null("pid").null("run");
            o.u64("took_ms", 0).null("message");
            o.finish()
        };
        format!("{{\"services\":[{}]}}", names.iter().map(row).collect::<Vec<_>>().join(","))
    }

    /// The nearest name is a hint for whoever mistyped one.
    pub(super) fn unknown(&self, name: &str) -> RpcError {
        let error = RpcError::new(Code::NotFound, format!("there is no service {name:?}"));
        let names = self.table.names().flat_map(|n| [n, instance(n).map_or(n, |(group, _)| group)]);
        match nearest(name, names) {
            Some(near) => error.hint(format!("did you mean {near:?}?")),
            None => error.hint("`hob status` lists all of them"),
        }
    }

    /// To all instances that have a process; it fails when none has.
    pub(super) fn signal(&mut self, name: &str, signal: i32, by: &Client, out: &mut Out) -> Answer {
        let all = self.members(name)?;
        let pids: Vec<_> = all.iter().map(|i| self.process(*i)).collect();
        if pids.iter().all(Option::is_none) {
            let is = |i: &usize| format!("{} has no process: it is {}", self.table[*i].name, self.table[*i].state);
            let text = all.iter().map(is).collect::<Vec<_>>().join("; ");
            return Err(RpcError::new(Code::Unavailable, text).hint(format!("hob why {name}")));
        }
        let mut rows = Vec::new();
        for (i, process) in all.into_iter().zip(pids) {
            let mut o = Obj::new();
            o.str("name", &self.table[i].name);
            if let Some((run, pid)) = process {
                self.tell_signal(i, Signalled { signal, at: self.now.wall, by: by.clone() }, out);
                out.effects.push(Effect::Signal { run, signal, tree: false });
                o.u64("pid", pid.into()).u64("run", run.0).i64("signal", i64::from(signal));
            } else {
                o.null("pid").str("message", &format!("it has no process: it is {}", self.table[i].state));
            }
            rows.push(o.finish());
        }
        Ok(Core::joined(name, self.table.find(name).is_some(), rows.into_iter()))
    }

    /// Whose signal it was stays with the run.
    fn tell_signal(&mut self, i: usize, sent: Signalled, out: &mut Out) {
        let mut fields = Obj::new();
        let Some(live) = self.table[i].live.as_mut() else { return };
        fields.u64("run", live.run.0).opt_u64("pid", live.pid.map(u64::from));
        fields.i64("signal", i64::from(sent.signal)).str("signal_name", &signal_name(sent.signal));
        fields.str("by", &sent.by.text());
        live.asides.get_or_insert_default().signalled = Some(Box::new(sent));
        self.emit("service.signalled", i, fields.members(), out);
        self.save_run(i, out);
    }

    fn process(&self, i: usize) -> Option<(crate::base::ids::RunId, u32)> {
        let live = self.table[i].live.as_ref().filter(|l| l.end.is_none())?;
        Some((live.run, live.pid?))
    }
}
