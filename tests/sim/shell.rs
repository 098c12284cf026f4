//! The fake shell: it carries out effects on the fake system and schedules what comes of them.

use crate::os::{MS, exec_error, notifies, shortage};
use crate::plan::program;
use crate::world::{Event, World};
use hob::base::gather::Gather as _;
use hob::base::ids::{ReqId, RunId};
use hob::config::Ready;
use hob::core::record::Entity;
use hob::core::task::of_name;
use hob::core::{Duty, Effect, End, Input, Start, TableRun, Usage, Usages};
use hob::protocol::rpc::{Code, RpcError};
use std::sync::Arc;

pub fn ready_datagram(run: RunId) -> Input {
    Input::Notify { run, fields: vec![("READY".to_owned(), "1".to_owned())] }
}

pub fn keys(records: &[Entity]) -> String {
    records.iter().map(|r| format!("{} {} ", r.key, r.json.as_deref().unwrap_or("gone"))).collect()
}

/// Whether this is the answer that a request was not accepted.
pub fn is_refusal(effect: &Effect, req: ReqId) -> bool {
    matches!(effect, Effect::Reply { req: r, result: Err(e), durable } if *r == req && !(*durable && tells_of_work(e)))
}

/// Whether a promised error tells of what came of the work.
pub fn tells_of_work(error: &RpcError) -> bool {
    matches!(error.code, Code::Unavailable | Code::FileSystem | Code::Internal)
}

impl World<'_> {
    pub fn exec(&mut self, effect: Effect) {
        if let Effect::Forget { run } = effect
            && self.disk.is_behind()
        {
            self.check_recorded(run);
            return self.ended.push(run);
        }
        let checked = self.check.effect(self.now, &effect, &self.os, &self.disk);
        self.require(checked);
        match effect {
            Effect::Start(start) => self.start(start),
            Effect::Signal { run, signal, tree } => self.signal(run, signal, tree),
            Effect::Kill { run } => self.signal(run, 9, true),
            Effect::Pause { run, on } => self.pause(run, on),
            Effect::Discard { .. } => {}
            Effect::Sync { ticket } => self.claim(ticket),
            Effect::Sweep { run } => {
                self.os.watched.insert(run);
                let ms = self.delay();
                self.soon(ms, true, Event::Scan(run));
            }
            Effect::Await { run, .. } => {
                self.os.awaited.insert(run);
                if self.os.main_of(run).is_some_and(|p| p.ready) {
                    self.tell_soon(Input::ReadySeen { run });
                }
            }
            Effect::Hear { run, .. } => {
                if self.os.said.contains(&run) {
                    let notifies = self.os.runs.get(&run).is_some_and(|t| notifies(&t.spec));
                    let said = if notifies { ready_datagram(run) } else { Input::ReadySeen { run } };
                    self.soon(0, true, Event::Deliver(said));
                }
                let ms = self.delay();
                self.soon(ms, true, Event::Deliver(Input::Heard { run }));
            }
            Effect::Ended { run } => {
                if self.rng.percent(self.options.output) {
                    let last_lines = vec!["the end".to_owned()];
                    self.tell_of_run(run, 500, Input::Output { run, bytes: 8, last_lines });
                }
            }
            // It comes too late for each.
            Effect::CancelStart { .. } => {}
            Effect::AwaitEnd { run } => {
                self.os.awaited.remove(&run);
            }
            Effect::Check { run, what, limit, .. } => {
                self.os.checks_begun += 1;
                let begun = self.os.checks_begun;
                self.os.checks.insert((run, what), begun);
                let ms = self.delay().min(u64::try_from(limit.as_millis()).unwrap_or(0));
                self.soon(ms, true, Event::Checked(run, what, begun));
            }
            Effect::CheckEnd { run, what } => {
                self.os.checks.remove(&(run, what));
            }
            Effect::Newest { .. } => {
                if self.os.newest.is_some() {
                    self.fail("newest: asked while it is asked already".to_owned());
                }
                self.os.checks_begun += 1;
                self.os.newest = Some(self.os.checks_begun);
                let ms = self.delay();
                self.soon(ms, true, Event::Newest(self.os.checks_begun));
            }
            Effect::NewestEnd => {
                if self.os.newest.take().is_none() {
                    self.fail("newest: nobody asks, and that was ended".to_owned());
                }
            }
            Effect::Forget { run } => self.forget(run, true),
            Effect::Reply { req, result, durable } => self.reply(req, result, durable),
            Effect::Notify { conn, stream, method, params } => self.notified(conn, stream, method, &params),
            Effect::Event { seq, line } => {
                let (last, lost) = (self.disk.last_event, core::mem::take(&mut self.disk.events_lost));
                // Where nothing at all is left nobody knows that there was something, and a clock that was set back
                // tells less than it did.
                let empty = self.disk.events.is_empty();
                if seq <= last && !(lost && (self.disk.set_back || empty && seq == 1))
                    || !(lost || empty) && seq != last + 1
                {
                    self.fail(format!("events: number {seq} follows {last}"));
                }
                self.disk.last_event = seq;
                if serde_json::from_str::<serde_json::Value>(&line).is_err() {
                    self.fail(format!("events: not JSON: {line}"));
                }
                self.disk.events.push((seq, line));
                if self.disk.events.len() > hob::base::limits::EVENTS_KEPT {
                    self.disk.events.remove(0);
                }
            }
            Effect::Logs { req, .. } | Effect::CloseStream { req, .. } => self.reply(req, Ok("{}".to_owned()), false),
            Effect::Rotate { req, .. } => {
                self.tell_soon(Input::Rotated { req, result: Ok("{}".to_owned()) });
            }
            Effect::Doctor { req, .. } => {
                self.tell_soon(Input::Examined { req, result: Ok("{}".to_owned()) });
            }
            Effect::Measure { req, runs, .. } => {
                let usages: Usages = runs.into_iter().map(|r| (r, Usage::default())).gather();
                self.tell_soon(Input::Measured { req, usage: Arc::new(usages) });
            }
            Effect::LoadConfig { req, look } => {
                self.check.looks.extend(req.filter(|_| look));
                let result = match self.file {
                    Some(_) => Ok(Box::new(self.config())),
                    None => Err("hob.json:1:1: expected a value".to_owned()),
                };
                self.tell_soon(Input::ConfigRead { req, look, result });
            }
            Effect::Stopping { limit } => {
                let ms = u64::try_from(limit.as_millis()).unwrap_or(0) + 5000;
                self.at(self.now + ms * MS, None, Event::KeeperLimit(self.keeper));
            }
            Effect::Exit { .. } => self.exit(),
            Effect::Listen { service, watch, .. } => self.listen(service, watch),
            Effect::Unlisten { service } | Effect::Remove { service } => {
                self.os.sockets.remove(&service);
            }
            Effect::LogSpec { .. }
            | Effect::Daemon { .. }
            | Effect::JobAccess
            | Effect::Heartbeat { .. }
            | Effect::Status { .. }
            | Effect::Log { .. }
            | Effect::Again { .. }
            | Effect::Upgrade { .. }
            | Effect::Ready => {}
        }
    }

    /// The command that names a version has ended.
    pub fn newest(&mut self, asked: u64) {
        if self.os.newest == Some(asked) {
            self.os.newest = None;
            let result =
                if self.rng.percent(self.options.sick) { Err("exit code 1".to_owned()) } else { Ok("2.0".into()) };
            self.step(Input::Newest { result });
        }
    }

    /// Sockets are opened, where the system lets them be, and sooner or later somebody connects.
    fn listen(&mut self, service: Arc<str>, watch: bool) {
        let refused = self.rng.percent(self.options.transient);
        self.os.sockets.insert(Arc::clone(&service), watch && !refused);
        if !watch {
            return;
        }
        let result = if refused { Err("cannot listen on unix:/s: Address already in use".to_owned()) } else { Ok(()) };
        // The answers to two orders come in their order.
        self.soon(0, true, Event::Deliver(Input::Listening { service: Arc::clone(&service), result }));
        let ms = *self.rng.pick(&[0, 5, 2000, 30_000]);
        self.soon(ms, true, Event::Connect(service));
    }

    pub fn connect(&mut self, service: Arc<str>) {
        if self.os.sockets.get(&service) == Some(&true) && !self.calm {
            let waiting = self.rng.percent(50);
            self.step(Input::Connection { service, on: "s".into(), waiting });
        }
    }

    /// A result of the daemon's own threads or descriptors.
    fn tell_soon(&mut self, input: Input) {
        let ms = self.delay();
        self.soon(ms, true, Event::Deliver(input));
    }

    /// A fact about a run, never before the answer to its start.
    fn tell_of_run(&mut self, run: RunId, ms: u64, input: Input) {
        let delay = self.rng.below(ms * MS + 1);
        let at = (self.now + delay).max(self.check.started_told(run));
        self.at(at, Some(self.epoch), Event::Deliver(input));
    }

    fn start(&mut self, start: Box<Start>) {
        self.score.starts += 1;
        let run = start.run;
        if self.disk.is_behind() && of_name(&start.service).is_some() {
            // Nobody would know that it ran, if keeper and daemon died now.
            self.check.tasks.pending.remove(&run);
            return self.tell_soon(Input::Started { run, result: Err(shortage()) });
        }
        self.os.table.insert(run, TableRun { run, pid: None, exec_error: None, ended: None, asked: false });
        let truth = crate::os::Truth {
            service: start.service.clone(),
            spec: start.spec.clone(),
            pid: None,
            exec_failed: false,
            ended: None,
        };
        self.os.runs.insert(run, truth);
        let ms = self.delay();
        self.soon(ms, true, Event::Spawn(start));
    }

    /// A pool thread clones the child.
    pub fn spawn(&mut self, start: &Start) {
        let run = start.run;
        let answer = if self.rng.percent(self.options.transient) {
            self.check.tasks.pending.remove(&run);
            if let Some(slot) = self.os.table.get_mut(&run) {
                slot.exec_error = Some(shortage());
            }
            Err(shortage())
        } else if program(&start.spec) == "noexec" {
            if of_name(&start.service).is_some() {
                let checked = self.check.spawn(start, &self.os);
                self.require(checked);
            }
            if let Some(slot) = self.os.table.get_mut(&run) {
                slot.pid = Some(1);
                slot.exec_error = Some(exec_error());
            }
            if let Some(truth) = self.os.runs.get_mut(&run) {
                truth.exec_failed = true;
            }
            Err(exec_error())
        } else {
            let checked = self.check.spawn(start, &self.os);
            self.require(checked);
            let habits = self.os.habits(self.plan.seed, run, &start.spec, &self.options, self.calm);
            let pid = self.os.spawn(run, &habits);
            self.note(|| format!("  process {pid} of run {run} of {}: {habits:?}", start.service));
            if let Some(ms) = habits.ready_in {
                self.at(self.now + ms * MS, None, Event::ProcReady(pid));
            }
            if start.spec.watchdog.is_some() {
                self.at(self.now + MS, None, Event::Ping(pid));
            }
            if let Some((ms, end)) = habits.ends_in {
                self.at(self.now + ms * MS, None, Event::ProcEnd(pid, end));
            }
            Ok(pid)
        };
        let ms = self.delay();
        let at = self.now + self.rng.below(ms * MS + 1);
        self.check.will_tell_started(run, at);
        self.at(at, Some(self.epoch), Event::Deliver(Input::Started { run, result: answer }));
    }

    fn signal(&mut self, run: RunId, signal: i32, tree: bool) {
        let hit: Vec<(u32, bool)> =
            self.os.procs.values().filter(|p| p.run == run && (tree || p.main)).map(|p| (p.pid, p.deaf)).collect();
        for (pid, deaf) in hit {
            if matches!(signal, 1 | 10 | 12) || deaf && signal != 9 {
                continue;
            }
            let ms = if signal == 9 { self.options.unkillable } else { 300 };
            let Some(proc) = self.os.procs.get_mut(&pid) else { continue };
            if proc.dying && signal != 9 {
                continue;
            }
            proc.dying = true;
            let end = if signal != 9 && run.0.is_multiple_of(2) { End::Code(0) } else { End::Signal(signal) };
            self.soon(ms, false, Event::ProcEnd(pid, end));
        }
    }

    pub fn scan(&mut self, run: RunId) {
        let left = self.os.tree(run);
        let ms = self.delay();
        self.tell_of_run(run, ms, Input::Tree { run, left });
    }

    pub fn checked(&mut self, run: RunId, what: Duty, begun: u64) {
        if self.os.checks.get(&(run, what)) != Some(&begun) {
            return;
        }
        self.os.checks.remove(&(run, what));
        if what == Duty::Stop && self.rng.percent(70) {
            // It does what the signal would do.
            self.signal(run, 15, false);
        }
        let sick = self.os.main_of(run).is_none() || self.rng.percent(self.options.sick);
        let result = if sick { Err("sick".to_owned()) } else { Ok(()) };
        self.step(Input::Checked { run, what, result });
    }

    /// Words to no daemon stay in the socket, where they are worth nothing later: the next one begins to count anew.
    pub fn ping(&mut self, pid: u32) {
        let Some(run) = self.os.procs.get(&pid).map(|p| p.run) else { return };
        if self.rng.percent(self.options.mute / 10) {
            return self.note(|| format!("  process {pid} falls silent"));
        }
        if self.core.is_some() && self.check.started_told(run) <= self.now {
            let fields = vec![("WATCHDOG".to_owned(), "1".to_owned())];
            self.soon(2, true, Event::Deliver(Input::Notify { run, fields }));
        }
        self.at(self.now + 2000 * MS, None, Event::Ping(pid));
    }

    pub fn proc_ready(&mut self, pid: u32) {
        let Some(proc) = self.os.procs.get_mut(&pid) else { return };
        proc.ready = true;
        let run = proc.run;
        if proc.main {
            self.os.said.insert(run);
        }
        let Some(spec) = self.os.runs.get(&run).map(|t| t.spec.clone()) else { return };
        if notifies(&spec) {
            if self.core.is_some() {
                self.tell_of_run(run, 5, ready_datagram(run));
            } else {
                self.os.datagrams.insert(run);
            }
        } else if !matches!(spec.ready, Ready::Spawned) && self.os.awaited.contains(&run) {
            self.tell_soon(Input::ReadySeen { run });
        }
    }

    /// The processes of a run stop, or go on.
    fn pause(&mut self, run: RunId, on: bool) {
        if on {
            self.os.paused.insert(run);
            return;
        }
        self.os.paused.remove(&run);
        for (pid, end) in core::mem::take(&mut self.os.pending_ends) {
            self.soon(50, false, Event::ProcEnd(pid, end));
        }
    }

    pub fn proc_end(&mut self, pid: u32, end: End) {
        // What is stopped does nothing, and ends only when it is killed.
        let stopped = self.os.procs.get(&pid).is_some_and(|p| self.os.paused.contains(&p.run));
        if stopped && end != End::Signal(9) {
            return self.os.pending_ends.push((pid, end));
        }
        let Some(proc) = self.os.end(pid, end) else { return };
        let run = proc.run;
        self.note(|| format!("  process {pid} of run {run} ends: {end:?}"));
        if self.core.is_none() {
            return;
        }
        if self.options.tells_empty && self.os.tree(run).is_empty() {
            self.tell_of_run(run, 5, Input::Tree { run, left: Vec::new() });
        }
        if self.os.watched.contains(&run) {
            self.soon(5, true, Event::Scan(run));
        }
        if proc.main {
            let ms = self.delay();
            self.tell_of_run(run, ms, Input::Exited { run, end, usage: Usage::default() });
            if self.rng.percent(self.options.output) {
                let last_lines = vec!["the end".to_owned()];
                self.tell_of_run(run, ms + 500, Input::Output { run, bytes: 8, last_lines });
            }
        }
    }

    /// `now`: the order has not had to wait for the journal, so that nothing has happened to the service since.
    pub fn forget(&mut self, run: RunId, now: bool) {
        let checked = self.check.tasks.forgotten(run, &self.os, &self.disk);
        self.require(checked);
        self.os.table.remove(&run);
        self.os.watched.remove(&run);
        self.os.awaited.remove(&run);
        if now && self.rng.percent(25) {
            self.check_recorded(run);
        }
    }

    /// The shutdown is complete: daemon and keeper end.
    fn exit(&mut self) {
        if let Some(ask) = self.clients.open() {
            self.fail(format!("one reply: hob ends, and nobody answered {ask:?}"));
        }
        self.check.exited();
        self.core = None;
        self.die("as it was asked to");
        self.new_keeper();
    }
}
