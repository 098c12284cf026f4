//! From due times to runs and their ends. Pure.

use super::{Fire, Job, Outcome, Past, RUNS_MAX, Run, Why, record};
use crate::base::ids::{ConnId, ReqId};
use crate::base::json::Obj;
use crate::config::schedule::{Action, Missed, Overlap, Verb};
use crate::config::{Access, Level};
use crate::core::due::Due;
use crate::core::request::Asked;
use crate::core::wait::{Item, Op, Waiting};
use crate::core::{Core, Effect, Out, Peer};
use crate::protocol::methods::{Change, Request};
use crate::protocol::rpc::{Code, RpcError};
use std::sync::Arc;

impl Job {
    /// Whether a fire that waits may begin.
    pub(super) fn has_room(&self) -> bool {
        match self.spec.overlap {
            Overlap::Allow => self.runs.len() < RUNS_MAX,
            Overlap::Skip | Overlap::Queue | Overlap::Restart => self.runs.is_empty(),
        }
    }

    /// Why a fire that is on time is left out, if it is. Otherwise it is to be put into the queue.
    pub(super) fn refuses(&self) -> Option<&'static str> {
        let limit = usize::try_from(self.spec.limit).unwrap_or(usize::MAX);
        match self.spec.overlap {
            _ if self.runs.is_empty() => None,
            Overlap::Skip => Some("its last run goes on"),
            Overlap::Restart if !self.queue.is_empty() && self.runs.iter().any(|r| r.given_up.is_some()) => {
                Some("one waits already for its last run to end")
            }
            Overlap::Queue if self.queue.len() >= limit => Some("as many as limit says wait already"),
            Overlap::Allow if self.runs.len() >= RUNS_MAX => Some("a hundred of its runs go on"),
            Overlap::Queue | Overlap::Allow | Overlap::Restart => None,
        }
    }
}

/// Said of a run of which nobody knows how it came out.
pub(super) const LOST: &str = "the daemon ended before it did";

/// A job as one who asks: it may do all that the person may who wrote the config.
pub(super) fn peer_of(id: &Arc<str>) -> Peer {
    Peer { uid: 0, pid: 0, access: Access::Admin, job: None, schedule: Some(Arc::clone(id)) }
}

/// What an action asks the daemon for.
fn request_of(action: &Action) -> Request {
    match action {
        Action::Service { verb, names } => {
            let change = || Change { names: names.clone(), all: false, wait: true, timeout: None };
            match verb {
                Verb::Start => Request::ServiceStart(change()),
                Verb::Stop => Request::ServiceStop(change()),
                Verb::Restart => Request::ServiceRestart(change()),
                Verb::Reload => Request::ServiceReload { names: names.clone() },
            }
        }
        Action::Signal { service, signal } => Request::ServiceSignal { name: service.clone(), signal: signal.number },
        Action::Task { request, .. } | Action::Call { request, .. } => request.clone(),
    }
}

impl Core {
    /// Everything that has happened to jobs: replies to their runs, times that have come, runs that may begin.
    pub(in crate::core) fn schedules_go_on(&mut self, out: &mut Out) {
        loop {
            for (req, outcome, message) in core::mem::take(&mut self.schedules.answers) {
                self.run_over(req, outcome, message, out);
            }
            let Some(i) = self.schedules.touched.pop_first() else { break };
            if self.schedules.jobs[i].gone {
                self.deadlines.set(Due::Schedule(i), None);
                continue;
            }
            if self.life.stopping.is_none() {
                self.job_clock(i, out);
                self.job_limits(i, out);
                self.job_begins(i, out);
            }
            let job = &mut self.schedules.jobs[i];
            let at = if self.life.stopping.is_some() { None } else { job.deadline(self.now) };
            self.deadlines.set(Due::Schedule(i), at);
            if core::mem::take(&mut job.save) {
                out.records.push(record::entity(job));
            }
        }
    }

    /// Answers that came too late in a step are looked at in the next one, which has to come.
    pub(in crate::core) fn schedules_later(&mut self) {
        for (req, ..) in &self.schedules.answers {
            if let Some(i) = self.schedules.runs.get(req) {
                self.deadlines.set(Due::Schedule(*i), Some(self.now.mono));
            }
        }
    }

    fn job_clock(&mut self, i: usize, out: &mut Out) {
        let job = &mut self.schedules.jobs[i];
        let found = job.look(self.now);
        job.queue.extend(found.made_up);
        if let Some(lapse) = found.lapse {
            let rule = match job.spec.missed {
                Missed::Skip => "skip",
                Missed::Once => "once",
                Missed::All => "all",
            };
            let mut o = Obj::new();
            o.u64("count", lapse.count).str("last", &lapse.last.to_string()).str("rule", rule);
            o.u64("made_up", u64::try_from(lapse.made_up).unwrap_or(u64::MAX));
            let text = format!("job {} missed {} of its times, {} made up for", job.id, lapse.text(), lapse.made_up);
            out.effects.push(Effect::Log { level: Level::Warn, text });
            self.emit_job("schedule.missed", i, o.members(), out);
        }
        if let Some(fire) = found.on_time {
            self.fire(i, fire, out);
        }
    }

    /// A time that has come, by the rule of overlap.
    fn fire(&mut self, i: usize, fire: Fire, out: &mut Out) {
        let job = &mut self.schedules.jobs[i];
        if let Some(why) = job.refuses() {
            return self.skip(i, &fire, why, out);
        }
        let replaced = job.spec.overlap == Overlap::Restart;
        job.queue.push_back(fire);
        job.save = true;
        if replaced {
            for req in self.schedules.jobs[i].runs.iter().map(|r| r.req).collect::<Vec<_>>() {
                self.give_up(req, Outcome::Replaced, None, out);
            }
        }
    }

    /// Leaves a time out that has come.
    pub(super) fn skip(&mut self, i: usize, fire: &Fire, why: &str, out: &mut Out) {
        let job = &mut self.schedules.jobs[i];
        job.skipped += 1;
        job.save = true;
        let mut o = Obj::new();
        o.str("due", &fire.due.to_string()).str("why", why);
        self.emit_job("schedule.skipped", i, o.members(), out);
    }

    /// A person wants a run now.
    pub(super) fn fire_asked(&mut self, i: usize, why: Why, out: &mut Out) {
        let fire = Fire { due: self.now.wall, why, not_before: self.now.mono };
        self.fire(i, fire, out);
        self.schedules.touch(i);
    }

    fn job_limits(&mut self, i: usize, out: &mut Out) {
        let now = self.now.mono;
        let late = self.schedules.jobs[i].runs.iter().filter(|r| r.until.is_some_and(|at| at <= now));
        for req in late.map(|r| r.req).collect::<Vec<_>>() {
            let limit = self.schedules.jobs[i].spec.timeout.unwrap_or_default();
            let message = format!("it took longer than {}", crate::base::units::human_duration(limit));
            self.give_up(req, Outcome::TimedOut, Some(message), out);
        }
    }

    fn job_begins(&mut self, i: usize, out: &mut Out) {
        loop {
            let now = self.now.mono;
            let job = &mut self.schedules.jobs[i];
            let Some(at) = job.queue.iter().position(|f| f.not_before <= now).filter(|_| job.has_room()) else {
                return;
            };
            let Some(fire) = job.queue.remove(at) else { return };
            self.begin_run(i, fire, out);
        }
    }

    fn begin_run(&mut self, i: usize, fire: Fire, out: &mut Out) {
        let (req, conn) = self.schedules.own_number();
        let now = self.now;
        let job = &mut self.schedules.jobs[i];
        job.number += 1;
        job.save = true;
        let until = job.spec.timeout.map(|limit| now.mono + limit);
        let run = Run {
            number: job.number,
            due: fire.due,
            why: fire.why,
            began: now,
            req,
            until,
            tasks: Vec::new(),
            given_up: None,
        };
        let mut o = Obj::new();
        o.u64("number", run.number).str("due", &run.due.to_string()).str("why", run.why.word());
        let request = job.spec.action.as_ref().map(request_of);
        o.str("action", &job.spec.action.as_ref().map(Action::text).unwrap_or_default());
        let peer = peer_of(&job.id);
        job.runs.push(run);
        self.schedules.runs.insert(req, i);
        self.emit_job("schedule.fired", i, o.members(), out);
        let asked = Asked { req, conn, peer, key: None, params_hash: 0 };
        match request {
            Some(request) => self.request(&asked, request, out),
            None => self.reply(req, Err(RpcError::new(Code::Internal, "the job has no action")), false, out),
        }
    }

    /// A run has ended, or nobody waits for it any longer. One that is not known has ended before.
    pub(super) fn run_over(&mut self, req: ReqId, result: Outcome, message: Option<String>, out: &mut Out) {
        let Some(i) = self.schedules.runs.remove(&req) else { return };
        let now = self.now;
        let job = &mut self.schedules.jobs[i];
        let Some(at) = job.runs.iter().position(|r| r.req == req) else { return };
        let run = job.runs.remove(at);
        for id in &run.tasks {
            self.schedules.followed.remove(&(*id, req));
        }
        let took_ms = crate::core::run::millis(now.mono.since(run.began.mono));
        let mut o = Obj::new();
        o.u64("number", run.number).str("result", result.word()).opt_str("message", message.as_deref());
        o.u64("took_ms", took_ms);
        job.remember(Past {
            number: run.number,
            due: run.due,
            why: run.why,
            began: run.began.wall,
            ended: now.wall,
            took_ms,
            result,
            message: message.map(String::into_boxed_str),
        });
        self.schedules.touch(i);
        // Whatever its request still waits for is not waited for any more.
        self.closed(ConnId(req.0), out);
        self.pending.remove(&req);
        self.emit_job("schedule.ended", i, o.members(), out);
    }

    /// After a death of the daemon: a run that changes services or has submitted tasks is waited for again, as what it
    /// asked for is on record; how any other one came out, nobody knows.
    pub(in crate::core) fn resume_runs(&mut self, i: usize, same_keeper: bool, out: &mut Out) {
        for at in 0..self.schedules.jobs[i].runs.len() {
            let (req, conn) = self.schedules.own_number();
            self.schedules.runs.insert(req, i);
            let job = &mut self.schedules.jobs[i];
            job.runs[at].req = req;
            if !job.runs[at].tasks.is_empty() {
                let tasks = job.runs[at].tasks.clone();
                self.follow_tasks(req, &tasks);
                continue;
            }
            let (id, action) = (Arc::clone(&job.id), job.spec.action.clone());
            let (op, names) = match action.filter(|_| same_keeper) {
                Some(Action::Service { verb: Verb::Start | Verb::Restart, names }) => (Op::Restart, names),
                Some(Action::Service { verb: Verb::Stop, names }) => (Op::Stop, names),
                Some(
                    Action::Service { verb: Verb::Reload, .. }
                    | Action::Signal { .. }
                    | Action::Task { .. }
                    | Action::Call { .. },
                )
                | None => {
                    let error = RpcError::new(Code::Unavailable, LOST);
                    self.reply(req, Err(error), false, out);
                    continue;
                }
            };
            let places = match self.places(&names) {
                Ok(places) => places,
                Err(e) => {
                    self.reply(req, Err(e), false, out);
                    continue;
                }
            };
            let item = |n: usize| match op {
                Op::Stop => Item::new(n, &self.table[n]),
                Op::Start | Op::Restart => Item::begun(n, &self.table[n], op),
            };
            let items = places.into_iter().map(item).collect();
            let peer = peer_of(&id);
            let asked = Asked { req, conn, peer, key: None, params_hash: 0 };
            self.wait(&asked, op, items, Waiting { wait: true, timeout: None });
        }
        self.schedules.touch(i);
    }

    /// Nobody is to wait for the runs of a job that is gone.
    pub(super) fn give_up_runs(&mut self, i: usize, out: &mut Out) {
        for run in core::mem::take(&mut self.schedules.jobs[i].runs) {
            self.schedules.runs.remove(&run.req);
            for id in &run.tasks {
                self.schedules.followed.remove(&(*id, run.req));
            }
            self.closed(ConnId(run.req.0), out);
            self.pending.remove(&run.req);
        }
    }

    /// What runs may take grows by the time in which nobody could do anything.
    pub(in crate::core) fn thaw_schedules(&mut self, gap: core::time::Duration) {
        for i in self.schedules.runs.values().copied().collect::<Vec<_>>() {
            self.schedules.touch(i);
        }
        for run in self.schedules.jobs.iter_mut().flat_map(|j| &mut j.runs) {
            run.until = run.until.map(|at| at + gap);
        }
    }

    /// The wall clock was set, or the machine slept.
    pub(in crate::core) fn wall_set(&mut self, by: i64) {
        for i in self.schedules.by_id.values().copied().collect::<Vec<_>>() {
            self.schedules.jobs[i].wall_set(by, self.now);
            self.schedules.touch(i);
        }
    }

    /// Whether there is anybody for whom the wall clock matters.
    #[must_use]
    pub fn keeps_time(&self) -> bool {
        !self.schedules.is_empty() || self.tasks.waits_for_time()
    }

    pub(super) fn emit_job(&mut self, kind: &'static str, i: usize, fields: &str, out: &mut Out) {
        if self.safe.is_none() {
            let id = &self.schedules.jobs[i].id;
            self.events.emit(self.now, kind, Some(id), fields, out);
        }
    }
}
