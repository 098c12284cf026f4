//! Requests that wait for an end state: what they wait for, when it is reached, and what their reply says. Pure.

use super::due::Due;
use super::service::{Service, State};
use super::{Core, Out};
use crate::base::ids::{ConnId, ReqId, RunId};
use crate::base::json::Obj;
use crate::base::time::Mono;
use crate::base::units::human_duration;
use crate::protocol::rpc::{Code, RpcError};
use core::time::Duration;
use std::sync::Arc;

/// How long a reply that tells of a failure waits for the last lines of output.
const LINES_WAIT: Duration = Duration::from_millis(300);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Start,
    Stop,
    Restart,
}

/// One service of a request.
#[derive(Debug)]
pub(super) struct Item {
    i: usize,
    name: Arc<str>,
    /// How it was when the request came.
    state: State,
    run: Option<RunId>,
    /// A run before it was ended by a daemon before this one.
    again: bool,
    fails: u32,
    transient: bool,
    /// What is stopped with it, because it requires it.
    along: Vec<Arc<str>>,
    done: Option<Done>,
    /// A failure that is told at this time, or earlier when its output is there.
    told_at: Option<Mono>,
}

#[derive(Debug)]
struct Done {
    result: &'static str,
    message: Option<String>,
    ok: bool,
    took: Duration,
}

#[derive(Debug)]
pub(super) struct Wait {
    req: ReqId,
    conn: ConnId,
    op: Op,
    since: Mono,
    until: Option<Mono>,
    items: Vec<Item>,
    /// Not waiting: the reply says what was begun.
    at_once: bool,
}

enum Look {
    Open,
    Done(&'static str, Option<String>),
    /// It did not come to what was asked; why.
    Failed(String),
}

impl Item {
    pub(super) fn new(i: usize, s: &Service) -> Item {
        Item {
            i,
            name: Arc::clone(&s.name),
            state: s.state,
            run: s.live.as_ref().map(|l| l.run),
            again: false,
            fails: s.fails,
            transient: s.transient,
            along: Vec::new(),
            done: None,
            told_at: None,
        }
    }

    /// With what is stopped along with it.
    pub(super) fn with(self, along: Vec<Arc<str>>) -> Item {
        Item { along, ..self }
    }

    /// One that a daemon before this one began to start: whatever run there is came from that.
    pub(super) fn begun(i: usize, s: &Service, op: Op) -> Item {
        let ended = s.runs > 1 || s.live.as_ref().is_some_and(|l| l.stop.is_some());
        Item { run: None, again: op == Op::Restart && ended, ..Item::new(i, s) }
    }

    fn look(&self, op: Op, s: &Service) -> Look {
        match op {
            Op::Stop => self.look_stop(s),
            Op::Start | Op::Restart => self.look_start(op, s),
        }
    }

    fn look_stop(&self, s: &Service) -> Look {
        let run = s.live.as_ref().map(|l| l.run);
        match self.run {
            Some(_) if run == self.run => Look::Open,
            Some(_) => Look::Done("stopped", self.overdue(s)),
            None if run.is_none() && self.state == State::Stopped => Look::Done("already_stopped", None),
            None => Look::Done("stopped", None),
        }
    }

    /// That its run had to be killed.
    fn overdue(&self, s: &Service) -> Option<String> {
        s.last().filter(|r| Some(r.run) == self.run && r.overdue)?;
        let grace = human_duration(s.spec.stop_timeout);
        Some(format!("it did not end within {grace} (stop_timeout) and was killed"))
    }

    /// The same once the next run is there.
    fn overdue_before(&self, s: &Service) -> Option<String> {
        self.run.and_then(|_| self.overdue(s)).map(|text| text.replacen("it did", "its run before did", 1))
    }

    fn look_start(&self, op: Op, s: &Service) -> Look {
        let run = s.live.as_ref().map(|l| l.run);
        let word = if op == Op::Restart && (self.run.is_some() || self.again) { "restarted" } else { "started" };
        let failed = s.fails != self.fails;
        match s.state {
            State::Running if s.stop_mark().is_some() => Look::Open,
            State::Running if op == Op::Start && run == self.run && self.state == State::Running => {
                Look::Done("already_running", None)
            }
            State::Running if run != self.run || op == Op::Start => Look::Done(word, self.overdue_before(s)),
            State::Finished => Look::Done(word, Some("it has finished with exit code 0".to_owned())),
            State::Stopped => Look::Failed("was stopped by another request".to_owned()),
            State::Failed => Look::Failed(failure(s)),
            State::Waiting if s.listens() && !failed => {
                Look::Done(word, Some("it listens, and the first connection starts it".to_owned()))
            }
            State::Backoff if failed || s.counters.refused > 0 => Look::Failed(failure(s)),
            State::Waiting | State::Starting | State::Stopping if failed => Look::Failed(failure(s)),
            State::Waiting | State::Starting | State::Running | State::Stopping | State::Backoff => Look::Open,
        }
    }
}

fn failure(s: &Service) -> String {
    let why = s.last_error.as_deref().unwrap_or("it failed");
    let mut text = format!("did not come up: {why}");
    if let Some(last) = s.last().filter(|r| r.failed && !r.lines.is_empty()) {
        text.push_str("; last output: ");
        text.push_str(&last.lines.join(" | "));
    }
    text
}

impl Core {
    /// Registers a request that replies when its services are where it wants them, or at once with what was begun.
    pub(super) fn wait(&mut self, asked: &super::request::Asked, op: Op, items: Vec<Item>, at: Waiting) {
        let until = at.timeout.map(|t| self.now.mono + t);
        self.waits.push(Wait {
            req: asked.req,
            conn: asked.conn,
            op,
            since: self.now.mono,
            until,
            items,
            at_once: !at.wait,
        });
        self.deadlines.set(Due::Wait(asked.req), until);
        self.life.changed = true;
    }

    /// What they may take grows by the time in which nobody could do anything.
    pub(super) fn thaw_waits(&mut self, gap: Duration) {
        for wait in &mut self.waits {
            wait.until = wait.until.map(|at| at + gap);
            let told = wait.items.iter().filter(|i| i.done.is_none()).filter_map(|i| i.told_at);
            self.deadlines.set(Due::Wait(wait.req), told.chain(wait.until).min());
        }
    }

    pub(super) fn forget_waits(&mut self, conn: ConnId) {
        // One with a key goes on: whoever sends it again finds its result.
        let (deadlines, keys) = (&mut self.deadlines, &self.keys);
        self.waits.retain(|w| {
            let keep = w.conn != conn || keys.is_open(w.req);
            if !keep {
                deadlines.set(Due::Wait(w.req), None);
            }
            keep
        });
    }

    /// Replies to those whose wait is over.
    pub(super) fn answer_waits(&mut self, out: &mut Out) {
        if !core::mem::take(&mut self.life.changed) || self.waits.is_empty() {
            return;
        }
        let mut open = Vec::new();
        for mut wait in core::mem::take(&mut self.waits) {
            self.look_at_wait(&mut wait);
            let late = wait.until.is_some_and(|at| at <= self.now.mono);
            let done = wait.items.iter().all(|item| item.done.is_some());
            let refused = self.life.stopping.is_some() && wait.op != Op::Stop && !done;
            if done || late || refused || wait.at_once {
                self.deadlines.set(Due::Wait(wait.req), None);
                // The wish to have it down is kept in memory, and on record as soon as that can be written.
                let forgets = wait.op == Op::Stop && (self.journal_full || self.journal_behind.is_some());
                if forgets {
                    let text = "the journal cannot be written, so a new hob may not know that it is to be down";
                    wait.items.iter_mut().filter_map(|i| i.done.as_mut()).for_each(|done| {
                        done.message.get_or_insert_with(|| text.to_owned());
                    });
                }
                let result = if refused { Err(Core::shutting_down()) } else { self.wait_result(&wait, done) };
                self.reply(wait.req, result, !forgets, out);
                continue;
            }
            let told = wait.items.iter().filter(|i| i.done.is_none()).filter_map(|i| i.told_at);
            let next = told.chain(wait.until).min();
            self.deadlines.set(Due::Wait(wait.req), next);
            open.push(wait);
        }
        self.waits = open;
    }

    fn look_at_wait(&self, wait: &mut Wait) {
        let now = self.now.mono;
        let (op, since) = (wait.op, wait.since);
        for item in wait.items.iter_mut().filter(|i| i.done.is_none()) {
            let took = now.since(since);
            if self.table.find(&item.name) != Some(item.i) {
                let ok = op == Op::Stop;
                let why = if item.transient { "was transient and is gone" } else { "is not in the config any more" };
                let message = Some(why.to_owned());
                item.done = Some(Done { result: if ok { "stopped" } else { "failed" }, message, ok, took });
                continue;
            }
            let s = &self.table[item.i];
            let look = match item.look(op, s) {
                Look::Open if op != Op::Stop && s.state == State::Waiting && s.stuck => {
                    Look::Failed(format!("waits for {}", self.waiting_text(item.i)))
                }
                look => look,
            };
            match look {
                // What failed is on its way again: an old failure must not leave a deadline in the past.
                Look::Open => item.told_at = None,
                Look::Done(result, message) => item.done = Some(Done { result, message, ok: true, took }),
                Look::Failed(message) => {
                    let lines_known = s.last().is_none_or(|r| !r.failed || r.output.is_some());
                    let at = *item.told_at.get_or_insert(if lines_known { now } else { now + LINES_WAIT });
                    if lines_known || at <= now || wait.at_once {
                        item.done = Some(Done { result: "failed", message: Some(message), ok: false, took });
                    }
                }
            }
        }
    }

    fn wait_result(&self, wait: &Wait, done: bool) -> Result<String, RpcError> {
        let failed: Vec<&Item> = wait.items.iter().filter(|i| i.done.as_ref().is_some_and(|d| !d.ok)).collect();
        let first = failed.first().map(|i| i.name.to_string());
        let mut text: Vec<String> = failed
            .iter()
            .map(|i| format!("{} {}", i.name, i.done.as_ref().and_then(|d| d.message.as_deref()).unwrap_or("failed")))
            .collect();
        if !done && !wait.at_once {
            for item in wait.items.iter().filter(|i| i.done.is_none()) {
                text.push(self.still(item));
            }
        }
        if text.is_empty() || wait.at_once {
            let rows: Vec<String> = wait.items.iter().map(|i| self.item_json(wait.op, i)).collect();
            return Ok(format!("{{\"services\":[{}]}}", rows.join(",")));
        }
        let name = first.or_else(|| wait.items.iter().find(|i| i.done.is_none()).map(|i| i.name.to_string()));
        let error = RpcError::new(Code::Unavailable, text.join("; "));
        Err(error.hint(format!("hob why {}", name.unwrap_or_default())))
    }

    fn still(&self, item: &Item) -> String {
        let s = &self.table[item.i];
        let mut text = format!("{} is still {}", item.name, s.state);
        let whom = self.waiting_text(item.i);
        if !whom.is_empty() {
            text.push_str(&format!(" (waiting for {whom})"));
        }
        text.push_str("; it goes on");
        text
    }

    fn item_json(&self, op: Op, item: &Item) -> String {
        let known = self.table.find(&item.name) == Some(item.i);
        let s = known.then(|| &self.table[item.i]);
        let live = s.and_then(|s| s.live.as_ref());
        let begun = match op {
            Op::Start => "starting",
            Op::Stop => "stopping",
            Op::Restart => "restarting",
        };
        let mut o = Obj::new();
        o.str("name", &item.name);
        o.str("state", s.map_or("stopped", |s| s.state.name()));
        o.str("result", item.done.as_ref().map_or(begun, |d| d.result));
        o.opt_u64("pid", live.and_then(|l| l.pid).map(u64::from));
        o.opt_u64("run", live.map(|l| l.run.0));
        o.u64("took_ms", item.done.as_ref().map_or(0, |d| super::run::millis(d.took)));
        o.opt_str("message", item.done.as_ref().and_then(|d| d.message.as_deref()));
        if !item.along.is_empty() {
            o.raw("along", &serde_json::to_string(&item.along).unwrap_or_default());
        }
        o.finish()
    }

    /// Nothing goes on after this: whoever still waits is told so.
    pub(super) fn fail_open_requests(&mut self, out: &mut Out) {
        for wait in core::mem::take(&mut self.waits) {
            self.deadlines.set(Due::Wait(wait.req), None);
            self.reply(wait.req, Err(Core::shutting_down()), false, out);
        }
        self.fail_open_reloads(out);
        self.fail_task_waits(out);
        for (req, _) in core::mem::take(&mut self.pending) {
            self.reply(req, Err(Core::shutting_down()), false, out);
        }
    }
}

/// How a change wants its reply.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    pub(super) wait: bool,
    pub(super) timeout: Option<Duration>,
}
