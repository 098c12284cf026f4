//! The one match over `Request`: what each call does to the core, and its immediate answer. Pure.

use super::keys::Verdict;
use super::run::Client;
use super::service::{Choice, State};
use super::upgrade::Ticket;
use super::view::{Pending, Question};
use super::wait::{Item, Op, Waiting};
use super::{Core, Effect, Out, Peer};
use crate::base::ids::{ConnId, ReqId, StreamId, TaskId};
use crate::base::json::Obj;
use crate::base::limits::{KEPT_REPLIES_MAX, KEPT_REPLIES_RESERVE};
use crate::base::time::Now;
use crate::config::{Access, Condition};
use crate::protocol::methods::task::{GroupCall, TaskCall};
use crate::protocol::methods::{Change, LogQuery, Of, Request, discover};
use crate::protocol::rpc::{Code, RpcError};
use std::collections::BTreeSet;

/// Who asks, and under which number the reply goes out.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) req: ReqId,
    pub(super) conn: ConnId,
    pub(super) peer: Peer,
    pub(super) key: Option<String>,
    pub(super) params_hash: u64,
}

impl Asked {
    /// By which another daemon knows it again.
    pub(super) fn ticket(&self) -> Option<Ticket> {
        Some(Ticket { uid: self.peer.uid, key: self.key.clone()?, hash: self.params_hash })
    }

    pub(super) fn client(&self) -> Client {
        Client::new(&self.peer, self.conn)
    }
}

/// The result of a call as JSON, or what is wrong with it.
pub type Answer = Result<String, RpcError>;

fn close_stream(asked: &Asked, id: u32, out: &mut Out) {
    out.effects.push(Effect::CloseStream { req: asked.req, conn: asked.conn, id: StreamId(id) });
}

impl Core {
    /// Answers at once what only asks for the present state, without a step: a question changes nothing, and nothing
    /// follows from it. `None`: it takes a step, because of what it is or because something is due before it.
    pub fn answer(&mut self, now: Now, request: &Request) -> Option<Answer> {
        if self.has_ended() || self.safe.is_some() || self.deadlines.next().is_some_and(|at| at <= now.mono) {
            return None;
        }
        self.now = now;
        self.look(request)
    }

    /// The answers to questions, for which the state is only looked at.
    fn look(&self, request: &Request) -> Option<Answer> {
        Some(match request {
            Request::Ping => Ok(self.ping()),
            Request::DaemonHealth => Ok(self.health()),
            Request::DaemonConfig => Ok(self.config_json()),
            Request::DaemonWhy { name } => self.why_anything(name),
            Request::ServiceHistory { name, limit } => self.one_or_each(name, |i| self.history(i, *limit)),
            Request::ScheduleList { ids } => self.schedule_list(ids),
            Request::ScheduleGet { id } => self.schedule_get(id),
            Request::ScheduleHistory { id, limit } => self.schedule_history(id, *limit),
            Request::ScheduleNext { id, count } => self.schedule_next(id, *count),
            Request::EventHistory(query) => self.events.history(query),
            Request::RpcDiscover => {
                Ok(self.facts.document.map_or_else(|| discover(self.facts.version), |text| text().to_owned()))
            }
            _ => return None,
        })
    }

    /// Answers a request, or begins with what will.
    pub(super) fn request(&mut self, asked: &Asked, request: Request, out: &mut Out) {
        let req = asked.req;
        if let Some(answer) = self.look(&request) {
            return self.reply(req, answer, false, out);
        }
        if self.safe.is_some() && changes(&request) {
            return self.refuse_safely(asked, request, out);
        }
        if changes(&request) && !self.admit(asked, &request, out) {
            return;
        }
        self.act(asked, request, out);
    }

    /// The one match over requests.
    fn act(&mut self, asked: &Asked, request: Request, out: &mut Out) {
        let req = asked.req;
        match request {
            Request::DaemonStatus => self.measure_then(asked, Question::Status, out),
            Request::DaemonShutdown { graceful, grace } => self.ask_shutdown(asked, graceful, grace, out),
            Request::DaemonReload => self.load_config(req, Pending::Reload, out),
            Request::DaemonPlan => self.ask_plan(req, out),
            Request::DaemonUpgrade { binary } => self.ask_upgrade(Some(req), binary, asked.ticket(), out),
            Request::DaemonDoctor => self.examine(req, out),
            Request::DaemonInhibit(wish) => self.inhibit(asked, wish, out),
            Request::DaemonUninhibit { inhibitor } => self.uninhibit(asked, inhibitor, out),
            Request::DaemonLogs(query) => out.effects.push(Effect::Logs { req, conn: asked.conn, query }),
            Request::ServiceList { names, owner } => match self.chosen(asked, &names, owner) {
                Ok(all) => self.measure_then(asked, Question::List(all), out),
                Err(e) => self.reply(req, Err(e), false, out),
            },
            Request::ServiceGet { name } => match self.members(&name) {
                Ok(all) => self.measure_then(asked, Question::Get(name, self.names(&all)), out),
                Err(e) => self.reply(req, Err(e), false, out),
            },
            Request::ServiceStart(change) => self.change(asked, Op::Start, &change, out),
            Request::ServiceNew(new) => self.start_new(asked, &new, out),
            Request::ServiceStop(change) => self.change(asked, Op::Stop, &change, out),
            Request::ServiceRemove(change) => self.remove(asked, &change, out),
            Request::ServiceRestart(change) => self.change(asked, Op::Restart, &change, out),
            Request::ServiceSignal { name, signal } => {
                let answer = self.signal(&name, signal, &asked.client(), out);
                self.reply(req, answer, true, out);
            }
            Request::ServiceReset { names } => {
                let answer = self.reset(asked, &names, out);
                self.reply(req, answer, true, out);
            }
            Request::ServiceReload { names } => match self.places(&names) {
                Ok(places) => self.reload_services(asked, &places, out),
                Err(e) => self.reply(req, Err(e), false, out),
            },
            Request::ServiceLogs(query) => self.logs(asked, query, out),
            Request::ServiceRotate { names } => self.rotate(asked, names, out),
            Request::ScheduleRun { id } => self.schedule_run(asked, &id, out),
            Request::SchedulePause { ids, pause } => self.schedule_pause(req, &ids, pause, out),
            Request::EventSubscribe(query) => self.events.subscribe(asked.conn, req, &query, out),
            Request::EventUnsubscribe { subscription } => {
                let answer = self.events.unsubscribe(asked.conn, subscription);
                self.reply(req, answer, false, out);
            }
            Request::StreamClose { id } => close_stream(asked, id, out),
            Request::Task(call) => self.task_call(asked, *call, out),
            Request::Group(call) => self.group_call(asked, call, out),
            // Answered before.
            Request::Ping
            | Request::DaemonHealth
            | Request::DaemonConfig
            | Request::DaemonWhy { .. }
            | Request::ServiceHistory { .. }
            | Request::ScheduleList { .. }
            | Request::ScheduleGet { .. }
            | Request::ScheduleHistory { .. }
            | Request::ScheduleNext { .. }
            | Request::EventHistory(_)
            | Request::RpcDiscover => {}
        }
    }

    /// Whether a change may be made now. Otherwise it has been answered, or is when the same one that is open is.
    fn admit(&mut self, asked: &Asked, request: &Request, out: &mut Out) -> bool {
        // The tasks themselves carry the key of their submission, for as long as they exist.
        let carried = matches!(request, Request::Task(call) if matches!(**call, TaskCall::Submit { .. }));
        if let Some(key) = asked.key.as_ref().filter(|_| !carried) {
            let most = match asked.peer.access {
                Access::Admin => KEPT_REPLIES_MAX,
                Access::Read | Access::Operate => KEPT_REPLIES_MAX - KEPT_REPLIES_RESERVE,
            };
            let who = (asked.peer.uid, asked.conn);
            match self.keys.begin(self.now, who, key, (asked.params_hash, asked.req), most) {
                Verdict::New | Verdict::Resume => {}
                Verdict::Join => return false,
                Verdict::Replay(result) => {
                    self.reply(asked.req, result, true, out);
                    return false;
                }
                Verdict::Conflict(e) | Verdict::Full(e) => {
                    self.reply(asked.req, Err(e), false, out);
                    return false;
                }
            }
        }
        let ends = matches!(request, Request::DaemonShutdown { .. });
        let stops = relieves(request);
        if self.life.stopping.is_some() && !ends {
            self.reply(asked.req, Err(Core::shutting_down()), false, out);
            return false;
        }
        if self.journal_full && !ends && !stops {
            let error = RpcError::new(Code::Busy, "the disk of the journal is full, so nothing new can be promised");
            self.reply(asked.req, Err(error.hint("free some space and try again")), false, out);
            return false;
        }
        true
    }

    /// Exactly one for each request.
    pub(super) fn reply(&mut self, req: ReqId, result: Answer, durable: bool, out: &mut Out) {
        self.pending.remove(&req);
        if super::schedule::is_own(req) {
            return self.schedules.answered(req, result.map(|_| ()).map_err(|e| e.message));
        }
        // What is not promised was refused, or may be lost.
        for joined in self.keys.finish(self.now, req, &result, durable, out) {
            out.effects.push(Effect::Reply { req: joined, result: result.clone(), durable });
        }
        out.effects.push(Effect::Reply { req, result, durable });
    }

    pub(super) fn closed(&mut self, conn: ConnId, out: &mut Out) {
        self.events.closed(conn);
        self.forget_inhibitors(conn, out);
        self.forget_waits(conn);
        self.forget_reloads(conn);
        self.forget_task_waits(conn);
        self.keys.closed(conn);
        self.pending.retain(|_, p| !matches!(p, Pending::Usage(of, _) if *of == conn));
    }

    /// A service, all instances of one, or where no service has that name a job or the task of that number;
    /// `service/NAME` is always a service, `schedule/ID` a job, and `task/N` a task.
    fn why_anything(&self, name: &str) -> Answer {
        if let Some(id) = name.strip_prefix("schedule/") {
            return self.job(id).map(|i| self.why_job(i));
        }
        if let Some(name) = name.strip_prefix("service/") {
            return self.one_or_each(name, |i| self.why(i));
        }
        if let Some(number) = name.strip_prefix("task/") {
            return self.why_task(number.parse().map(TaskId).map_err(|_| {
                let error = RpcError::new(Code::InvalidParams, format!("{number:?} is not the number of a task"));
                error.hint("`hob task list` shows those that there are")
            })?);
        }
        match (self.members(name), self.schedules.find(name), name.parse()) {
            (Err(_), Some(i), _) => Ok(self.why_job(i)),
            (Err(_), None, Ok(id)) => self.why_task(TaskId(id)),
            (Err(e), None, Err(_)) => {
                let text = format!("there is no service, job or task {name:?}");
                Err(RpcError { message: text, ..e })
            }
            _ => self.one_or_each(name, |i| self.why(i)),
        }
    }

    pub(super) fn places(&self, names: &[String]) -> Result<Vec<usize>, RpcError> {
        let (mut all, mut seen) = (Vec::with_capacity(names.len()), BTreeSet::new());
        for name in names {
            all.extend(self.members(name)?.into_iter().filter(|i| seen.insert(*i)));
        }
        Ok(all)
    }

    /// The services that a list is to show; `None`: all there are.
    fn chosen(
        &self,
        asked: &Asked,
        names: &[String],
        owner: Option<Of>,
    ) -> Result<Option<Vec<std::sync::Arc<str>>>, RpcError> {
        let mut all = self.places(names)?;
        if names.is_empty() {
            if owner.is_none() {
                return Ok(None);
            }
            all = self.table.by_name().collect();
        }
        if let Some(of) = owner {
            let owner = asked.peer.meant(&of);
            all.retain(|i| self.table[*i].owner.as_ref() == Some(&owner));
        }
        Ok(Some(self.names(&all)))
    }

    fn names(&self, all: &[usize]) -> Vec<std::sync::Arc<str>> {
        all.iter().map(|i| self.table[*i].name.clone()).collect()
    }

    pub(super) fn load_config(&mut self, req: ReqId, pending: Pending, out: &mut Out) {
        let look = matches!(pending, Pending::Plan);
        self.pending.insert(req, pending);
        out.effects.push(Effect::LoadConfig { req: Some(req), look });
    }

    fn remove(&mut self, asked: &Asked, change: &Change, out: &mut Out) {
        match self.not_removable(&change.names) {
            Some(e) => self.reply(asked.req, Err(e), false, out),
            None => self.change(asked, Op::Stop, change, out),
        }
    }

    fn change(&mut self, asked: &Asked, op: Op, change: &Change, out: &mut Out) {
        if op == Op::Stop && self.keys.is_resumed(asked.req) && self.all_gone(&change.names) {
            // They were transient, and the daemon before this one has stopped them.
            return self.reply(asked.req, Ok(Core::gone(&change.names)), true, out);
        }
        let places = match self.places(&change.names) {
            Ok(_) if change.all => self.table.by_name().collect(),
            Ok(places) if !places.is_empty() => places,
            Ok(_) => {
                let error = RpcError::new(Code::InvalidParams, "no service is named");
                return self.reply(asked.req, Err(error.hint("give a name, or several")), false, out);
            }
            Err(e) => return self.reply(asked.req, Err(e), false, out),
        };
        if let Some(i) = places.iter().find(|i| self.table[**i].blind && op != Op::Stop) {
            let text = format!("how to start {} is not known: the config could not be read", self.table[*i].name);
            let error = RpcError::new(Code::Unavailable, text).hint("correct the config, then `hob reload`");
            return self.reply(asked.req, Err(error), false, out);
        }
        if op != Op::Stop && self.keys.is_resumed(asked.req) {
            let items = places.iter().map(|i| Item::begun(*i, &self.table[*i], op)).collect();
            return self.wait(asked, Op::Restart, items, Waiting { wait: change.wait, timeout: change.timeout });
        }
        if change.wait && (op != Op::Stop || places.iter().any(|i| self.table[*i].transient)) {
            self.keys.note(self.now, asked.req, out);
        }
        // Those that are not named themselves, each with what takes it along.
        // A restart of what does not run is a start, which takes nothing along.
        let takes = |i: &usize| op == Op::Stop || op == Op::Restart && self.table[*i].live.is_some();
        let first: Vec<usize> = places.iter().copied().filter(takes).collect();
        let others = self.taken_along(&first);
        let along = |i: &usize| {
            let all = if others.is_empty() || !takes(i) { Vec::new() } else { self.taken_along(&[*i]) };
            all.into_iter().filter(|name| others.binary_search(name).is_ok()).collect()
        };
        let items = places.iter().map(|i| Item::new(*i, &self.table[*i]).with(along(i))).collect();
        for i in places {
            if op != Op::Restart {
                self.forget_ran(i, out);
            }
            match op {
                Op::Start => self.wish_start(i, asked.client(), out),
                Op::Stop => self.wish_stop(i, asked.client()),
                Op::Restart => self.wish_restart(i, asked.client(), out),
            }
        }
        self.wait(asked, op, items, Waiting { wait: change.wait, timeout: change.timeout });
    }

    fn reset(&mut self, asked: &Asked, names: &[String], out: &mut Out) -> Answer {
        let places = self.places(names)?;
        if places.is_empty() {
            return Err(RpcError::new(Code::InvalidParams, "no service is named").hint("give a name, or several"));
        }
        let mut rows = Vec::new();
        for i in places {
            self.forget_ran(i, out);
            self.wish_reset(i, asked.client(), out);
            let s = &self.table[i];
            let mut o = Obj::new();
            o.str("name", &s.name).str("desired", if s.wanted() { "up" } else { "down" });
            o.bool("autostart", s.spec.autostart);
            rows.push(o.finish());
        }
        Ok(format!("{{\"services\":[{}]}}", rows.join(",")))
    }

    fn logs(&mut self, asked: &Asked, query: LogQuery, out: &mut Out) {
        match self.places(&query.names) {
            Ok(all) => {
                let names = all.iter().map(|i| self.table[*i].name.to_string()).collect();
                let query = LogQuery { names, ..query };
                out.effects.push(Effect::Logs { req: asked.req, conn: asked.conn, query });
            }
            Err(e) => self.reply(asked.req, Err(e), false, out),
        }
    }

    fn rotate(&mut self, asked: &Asked, names: Vec<String>, out: &mut Out) {
        match self.places(&names) {
            Ok(all) if all.is_empty() => {
                let error = RpcError::new(Code::InvalidParams, "no service is named");
                self.reply(asked.req, Err(error.hint("give a name, or several")), false, out);
            }
            Ok(all) => {
                let names: Vec<_> =
                    all.iter().map(|i| (self.table[*i].name.clone(), self.table[*i].spec.clone())).collect();
                out.effects.push(Effect::Rotate { req: asked.req, names });
            }
            Err(e) => self.reply(asked.req, Err(e), false, out),
        }
    }

    fn ask_shutdown(&mut self, asked: &Asked, graceful: bool, grace: Option<core::time::Duration>, out: &mut Out) {
        let running = self.runs.len();
        self.shutdown(0, grace, !graceful, out);
        let limit = self.life.stopping.as_ref().map_or(0, |s| super::run::millis(s.deadline.since(self.now.mono)));
        let mut o = Obj::new();
        o.bool("stopping", true).u64("limit_ms", limit);
        o.u64("running", u64::try_from(running).unwrap_or(u64::MAX));
        let held = self.life.stopping.as_ref().is_some_and(|s| s.held.is_some());
        o.raw("waits_for", &if held { self.inhibitors.json() } else { "[]".to_owned() });
        // A shutdown does not wait for a disk.
        let durable = self.journal_behind.is_none();
        self.reply(asked.req, Ok(o.finish()), durable, out);
    }

    /// `db, which is stopped` or the names of survivors: what a service waits for.
    pub(super) fn waiting_text(&self, i: usize) -> String {
        let s = &self.table[i];
        let left = s.live.as_ref().map(|l| l.sequence.names()).unwrap_or_default();
        if s.state == State::Stopping && !left.is_empty() {
            return left;
        }
        let one = |name: &str| match self.table.find(name) {
            Some(n) if self.table[n].choice == Choice::Down => format!("{name}, which a person stopped"),
            Some(n) if self.table[n].state == State::Running => self.unlike(i, n),
            Some(n) => format!("{name}, which {}", phrase(self.table[n].state)),
            None => format!("{name}, which does not exist"),
        };
        let mut all: Vec<String> = self.waiting_for(i).into_iter().map(one).collect();
        if s.awaits_connection() {
            all.push(s.connection_text());
        }
        if s.state == State::Waiting && s.blind {
            all.push("a config that can be read".to_owned());
        }
        if s.state == State::Waiting {
            all.extend(self.orphans.keys().map(|run| format!("the end of run {run}, which no record knows")));
        }
        all.join(", and for ")
    }
}

impl Core {
    /// What the running service `n` is not, and `i` waits for.
    fn unlike(&self, i: usize, n: usize) -> String {
        let name = &self.table[n].name;
        match self.table[i].needs.iter().find(|e| e.to as usize == n).map(|e| e.condition) {
            Some(Condition::Healthy) => format!("{name}, which is running and not healthy yet"),
            Some(Condition::Finished | Condition::Succeeded) => {
                format!("{name}, which is running and has not finished")
            }
            Some(Condition::Started | Condition::Ready) | None => format!("{name}, which is running"),
        }
    }
}

fn phrase(state: State) -> &'static str {
    match state {
        State::Stopped => "is stopped",
        State::Waiting => "is waiting itself",
        State::Starting => "is starting",
        State::Running => "is running",
        State::Stopping => "is stopping",
        State::Backoff => "is down until its next try",
        State::Failed => "has failed",
        State::Finished => "has finished",
    }
}

/// Calls that end or hold something back, as somebody must be able to do to what fills a disk. While that is full they
/// promise nothing.
fn relieves(request: &Request) -> bool {
    match request {
        Request::ServiceStop(_)
        | Request::ServiceRemove(_)
        | Request::SchedulePause { pause: true, .. }
        | Request::Group(GroupCall::Pause { .. }) => true,
        Request::Task(call) => super::task::calls::relieves(call),
        _ => false,
    }
}

/// Calls that change something: refused in a shutdown, and made once for each key.
#[must_use]
pub fn changes(request: &Request) -> bool {
    match request {
        Request::Task(call) => super::task::calls::changes(call),
        Request::Group(call) => *call != GroupCall::List,
        Request::DaemonShutdown { .. }
        | Request::ServiceNew(_)
        | Request::ServiceRemove(_)
        | Request::DaemonReload
        | Request::DaemonUpgrade { .. }
        | Request::ServiceStart(_)
        | Request::ServiceStop(_)
        | Request::ServiceRestart(_)
        | Request::ServiceSignal { .. }
        | Request::ServiceRotate { .. }
        | Request::ServiceReset { .. }
        | Request::ServiceReload { .. }
        | Request::ScheduleRun { .. }
        | Request::SchedulePause { .. } => true,
        Request::Ping
        | Request::DaemonPlan
        | Request::DaemonStatus
        | Request::DaemonHealth
        | Request::DaemonDoctor
        | Request::DaemonInhibit(_)
        | Request::DaemonUninhibit { .. }
        | Request::DaemonLogs(_)
        | Request::DaemonConfig
        | Request::DaemonWhy { .. }
        | Request::ServiceList { .. }
        | Request::ServiceGet { .. }
        | Request::ServiceLogs(_)
        | Request::ServiceHistory { .. }
        | Request::ScheduleList { .. }
        | Request::ScheduleGet { .. }
        | Request::ScheduleHistory { .. }
        | Request::ScheduleNext { .. }
        | Request::EventSubscribe(_)
        | Request::EventUnsubscribe { .. }
        | Request::EventHistory(_)
        | Request::StreamClose { .. }
        | Request::RpcDiscover => false,
    }
}

#[cfg(test)]
mod tests;
