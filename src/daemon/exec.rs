//! The one match over `Effect`: what the core orders becomes a call of the part that can do it.

use super::gear::{Job, Outlet};
use super::measure::Asker;
use super::pool::Lane;
use super::{Daemon, Ending, Held, lifecycle, start};
use crate::base::control::ToKeeper;
use crate::base::ids::{ConnId, ReqId, RunId, StreamId};
use crate::base::limits::RUN_SLOTS;
use crate::config::{Config, DaemonSpec, Level};
use crate::core::{Await, Effect, Input, Out, Start, StartError, task};
use crate::protocol::methods::LogQuery;
use crate::protocol::rpc::RpcError;
use crate::sys;
use core::time::Duration;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// Descriptors of the daemon itself with a few clients, of each pipe with its log file and index, and of each run with
/// its process and control group.
const FDS_OWN: usize = 32;
const FDS_PER_PIPE: usize = 4;
const FDS_PER_RUN: usize = 2;

/// What the pool calls the reading of the config.
pub(super) const LOADING: &str = "reading the config";
pub(super) const KEEPING: &str = "keeping the config";

/// How many runs can be held with so many descriptors.
pub(super) fn runs_for(descriptors: u64) -> usize {
    let most = usize::try_from(descriptors).unwrap_or(usize::MAX);
    (most.saturating_sub(FDS_OWN) / (FDS_PER_PIPE + FDS_PER_RUN)).min(RUN_SLOTS)
}

impl Daemon {
    /// Runs a round's effects in list order; their results are the next round's inputs.
    pub(super) fn run(&mut self, out: &mut Out) {
        for effect in out.effects.drain(..) {
            self.effect(effect);
        }
    }

    pub(super) fn effect(&mut self, effect: Effect) {
        let now = self.gear.now;
        match effect {
            Effect::Start(start) => self.start_child(*start),
            Effect::Signal { run, signal, tree } => {
                let job = self.children.signal(&self.gear.table, run, signal, tree);
                self.gear.sweep(job);
            }
            Effect::Pause { run, on } => {
                let signal = if on { sys::signals::SIGSTOP } else { sys::signals::SIGCONT };
                let job = self.children.signal(&self.gear.table, run, signal, true);
                self.gear.sweep(job);
            }
            Effect::Kill { run } => {
                let job = self.children.kill(&self.gear.table, run);
                self.gear.sweep(job);
            }
            Effect::CancelStart { run } => {
                self.children.cancel_start(&mut self.gear.ctx(), run, &mut self.inputs);
            }
            Effect::Sweep { run } => {
                let job = self.children.sweep(&mut self.gear.ctx(), run, &mut self.inputs);
                self.gear.sweep(job);
            }
            Effect::Await { run, what: Await::Log(pattern), .. } => self.await_log(run, &pattern),
            Effect::Await { run, what, .. } => {
                self.children.await_ready(&mut self.gear.ctx(), run, what, &mut self.inputs);
            }
            Effect::AwaitEnd { run } => {
                self.children.await_end(&mut self.gear.ctx(), run);
                if let Some(name) = self.services.get(&run) {
                    self.capture.await_end(run, name, now, &mut self.gear);
                }
            }
            Effect::Hear { run, output } => self.hear_out(run, output),
            Effect::Ended { run } => {
                let passed = self.output_passes(run);
                self.inputs.extend(passed);
            }
            Effect::Check { run, what, spec, limit } => {
                let secrets = self.services.get(&run).and_then(|name| self.capture.secrets(name));
                let asked = super::child::Asked { run, what, limit, secrets };
                self.children.check(&mut self.gear.ctx(), asked, &spec, &mut self.inputs);
            }
            Effect::CheckEnd { run, what } => self.children.check_end(&mut self.gear.ctx(), run, what),
            Effect::Newest { command, limit } => {
                self.children.newest(&mut self.gear.ctx(), &command, limit, &mut self.inputs);
            }
            Effect::NewestEnd => self.children.newest_end(&mut self.gear.ctx()),
            Effect::Forget { run } => self.forget(run),
            Effect::Remove { service } => {
                self.children.remove(&mut self.gear.ctx(), &service);
                if self.capture.forget(&service, now, &mut self.gear) {
                    let mut outlet = Outlet { gear: &mut self.gear, conns: &mut self.conns };
                    self.streams.over(&service, &mut outlet);
                }
            }
            Effect::Discard { service } => self.discard(&service),
            Effect::Sync { ticket } => self.sync(ticket),
            Effect::Listen { service, spec, watch } => {
                self.children.open_sockets(&mut self.gear.ctx(), &service, &spec, watch, &mut self.inputs);
            }
            Effect::Unlisten { service } => self.children.close_sockets(&mut self.gear.ctx(), &service),
            Effect::LogSpec { service, spec } => self.capture.spec(&service, &spec, now, &mut self.gear),
            Effect::Reply { req, result, durable } => self.reply(req, result, durable),
            Effect::Notify { conn, stream, method, params } => self.conns.notify(conn, stream, method, &params),
            // Written to the ring before the round's effects began.
            Effect::Event { line, .. } => self.tell(&line),
            Effect::Doctor { req, findings } => self.examine(req, findings),
            Effect::Status { text } => self.gear.link.status(text),
            Effect::Logs { req, conn, query } => self.open_logs(req, conn, query),
            Effect::Rotate { req, names } => {
                self.inputs.extend(self.capture.rotate(req, names, now, &mut self.gear));
            }
            Effect::CloseStream { req, conn, id } => self.close_stream(req, conn, id),
            Effect::Measure { req, conn, owner, runs } => self.measure(Asker { req, conn, owner }, &runs),
            Effect::LoadConfig { req, look } => self.load_config(req, look),
            Effect::Daemon { spec } => self.settings(*spec),
            Effect::JobAccess => self.judge_again(),
            Effect::Heartbeat { state } => self.heartbeat(state),
            Effect::Log { level, text } => self.gear.log(level, text),
            Effect::Ready => {
                self.gear.link.say(&ToKeeper::Ready);
                self.settle_at = Some(now.mono + super::SETTLE_AFTER);
            }
            Effect::Stopping { limit } => {
                self.own_end = self.copy.is_some() && self.core.main_is_over();
                let limit = if self.own_end { lifecycle::end::OWN_END } else { limit };
                let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
                self.gear.link.say(&ToKeeper::Stopping { limit_ms });
            }
            Effect::Exit { code } => self.life.ending = Some(Ending::Hob(code)),
            Effect::Upgrade { req, binary, ticket } => self.begin_upgrade(req, binary, ticket),
            Effect::Again { stop } => self.life.ending = Some(Ending::Again { stop }),
        }
    }

    /// The keeper's table says that a run began until the journal says how it ended.
    pub(super) fn forget(&mut self, run: RunId) {
        if !self.journal.is_written() {
            return self.life.ended.push(run);
        }
        self.children.forget(&mut self.gear.ctx(), run);
        self.end_channel(run);
        self.unheard.passed(run);
        self.services.remove(&run);
    }

    /// Why no further start may be tried. Of many at once, each could hold so much that all lack the rest for ever.
    fn short_of_descriptors(&self, service: &str) -> Option<String> {
        let pipes = self.capture.count() + usize::from(!self.capture.has(service));
        // Those that have ended hold none, even if that cannot be written down.
        let runs = self.children.count().saturating_sub(self.life.ended.len());
        let need = FDS_OWN + FDS_PER_PIPE * pipes + FDS_PER_RUN * (runs + 1);
        let most = self.children.setup().descriptors;
        usize::try_from(most)
            .is_ok_and(|most| most < need)
            .then(|| format!("hob may have {most} files open, and with {service} it needs {need}"))
    }

    /// The service's pipe is with the keeper before the clone, so that no output can be lost with this daemon.
    fn start_child(&mut self, start: Start) {
        let (run, service) = (start.run, Arc::clone(&start.service));
        self.services.insert(run, Arc::clone(&service));
        if task::of_name(&service).is_some() && !self.journal.is_written() {
            // Nobody would know that it ran, if keeper and daemon died now.
            return self.put_off(run, "the journal cannot be written".to_owned());
        }
        if let Some(why) = self.short_of_descriptors(&service) {
            return self.put_off(run, why);
        }
        if self.bare {
            let (out, err) = (std::io::stdout(), std::io::stderr());
            let copies = out.as_fd().try_clone_to_owned().and_then(|o| Ok((o, err.as_fd().try_clone_to_owned()?)));
            return match copies {
                Ok((out, err)) => self.clone_child(start, [Arc::new(out), Arc::new(err)]),
                Err(e) => self.put_off(run, format!("cannot pass the output of hob to {service}: {e}")),
            };
        }
        match self.capture.ensure(&service, &start.spec, &mut self.gear) {
            Ok([out, err]) => {
                self.capture.run_started(run, &service);
                self.clone_child(start, [out, err]);
            }
            Err(e) => self.put_off(run, format!("cannot make the output pipe of {service}: {e}")),
        }
    }

    fn put_off(&mut self, run: RunId, message: String) {
        self.inputs.push(Input::Started { run, result: Err(StartError { message, transient: true }) });
    }

    fn clone_child(&mut self, start: Start, output: [Arc<OwnedFd>; 2]) {
        let channel = match self.open_channel(&start) {
            Ok(channel) => channel,
            Err(e) => return self.put_off(start.run, e),
        };
        let secrets = self.capture.secrets(&start.service).filter(|_| !start.spec.secrets.is_empty());
        let means = super::child::Means { output, channel, secrets };
        self.children.start(&mut self.gear.ctx(), start, means, &mut self.inputs);
        self.hand_out();
    }

    pub(super) fn spawn(&mut self, job: super::child::SpawnJob) {
        let limit = super::child::SpawnJob::DEADLINE;
        let of = (Lane::Spawn, job.service());
        self.gear.pool.run_of(of, "a start", self.gear.now.mono, limit, move || Job::Spawned(job.run()));
    }

    fn reply(&mut self, req: ReqId, result: Result<String, RpcError>, durable: bool) {
        let token = self.journal.sync_token();
        if durable && !self.journal.durable(token) {
            self.journal.want(token);
            self.held.push_back(Held { token, req, result });
        } else {
            self.conns.reply(req, &result);
        }
    }

    /// Claims of tasks are to be on disk.
    fn sync(&mut self, ticket: u64) {
        let token = self.journal.sync_token();
        if self.journal.durable(token) {
            return self.inputs.push(Input::Synced { ticket });
        }
        self.journal.want(token);
        self.claims.push_back((token, ticket));
    }

    fn discard(&mut self, name: &Arc<str>) {
        let share = self.capture.reader(name);
        self.gear.bulk("removing the output of a task", move || {
            Job::Quiet(share.names().remove_all().map_err(|e| format!("cannot remove the output of a task: {e}")))
        });
    }

    fn await_log(&mut self, run: RunId, pattern: &str) {
        let Some(name) = self.services.get(&run) else { return };
        if let Err(e) = self.capture.await_log(run, name, pattern, self.gear.now, &mut self.gear) {
            // The config was checked; if this fails all the same, the ready timeout tells the person.
            let text = format!("{name}: the pattern of its readiness cannot be used: {e}");
            self.gear.log(Level::Error, text);
        }
    }

    fn open_logs(&mut self, req: ReqId, conn: ConnId, query: LogQuery) {
        let logs = if query.names.is_empty() {
            vec![(Arc::from(super::logs::OWN), self.gear.log.share())]
        } else {
            let one = |n: &String| {
                let name: Arc<str> = Arc::from(n.as_str());
                let share = self.capture.reader(&name);
                (name, share)
            };
            query.names.iter().map(one).collect()
        };
        // A task that is over while its output is looked up will not be heard of again.
        let (streams, capture) = (&mut self.streams, &self.capture);
        let mut outlet = Outlet { gear: &mut self.gear, conns: &mut self.conns };
        let over = logs.iter().all(|(name, _)| task::of_name(name).is_some() && !capture.has(name));
        let query = LogQuery { follow: query.follow && !over, ..query };
        streams.open(req, conn, query, logs, &mut outlet);
    }

    fn close_stream(&mut self, req: ReqId, conn: ConnId, id: StreamId) {
        let mut outlet = Outlet { gear: &mut self.gear, conns: &mut self.conns };
        self.streams.close(req, conn, id, &mut outlet);
    }

    /// One after the other: of two that read at once, the one that read last must not be told first.
    fn load_config(&mut self, req: Option<ReqId>, look: bool) {
        self.loads.push_back((req, look));
        if self.loads.len() == 1 {
            self.load_next();
        }
    }

    fn load_next(&mut self) {
        if let Some((_, look)) = self.loads.front().copied() {
            if self.life.outer && !look {
                self.gear.link.say(&ToKeeper::Reloading);
            }
            let paths = Arc::clone(&self.paths);
            self.gear.bulk(LOADING, move || {
                let read = lifecycle::read::read_text(&paths.config);
                Job::Config(read.map(|(config, text)| (Box::new(config), text)))
            });
        }
    }

    /// A config that is to be in effect is kept for the next daemon before anything of it is.
    pub(super) fn config_read(&mut self, result: Result<(Box<Config>, Vec<u8>), String>) {
        match (result, self.loads.front()) {
            (Ok((config, text)), Some((_, false))) => {
                let paths = Arc::clone(&self.paths);
                self.gear.bulk(KEEPING, move || {
                    lifecycle::read::keep_config(&paths, &text);
                    Job::Kept(config)
                });
            }
            (result, _) => self.loaded(result.map(|(config, _)| config)),
        }
    }

    /// The config was read for the first that asked.
    pub(super) fn loaded(&mut self, result: Result<Box<Config>, String>) {
        if let Some((req, look)) = self.loads.pop_front() {
            self.inputs.push(Input::ConfigRead { req, look, result });
            self.life.reloaded = self.loads.is_empty();
        }
        self.load_next();
    }

    /// New settings of the daemon itself.
    pub(super) fn settings(&mut self, spec: DaemonSpec) {
        let (admission, unknown) = start::admission(&spec.access);
        for who in unknown {
            self.gear.log(Level::Warn, format!("daemon.access: {who}"));
        }
        self.admission = admission;
        if spec.heartbeat.is_zero() && !self.life.heartbeat.is_zero() {
            // None follows that could be missed.
            self.gear.link.beat(Duration::ZERO);
        }
        self.life.heartbeat = spec.heartbeat;
        self.judge_again();
        self.renice(spec.nice);
        self.gear.log.set(spec.log);
        self.life.stop_limit = spec.shutdown_timeout;
        self.tell_settings();
    }

    /// The keeper writes its lines as the daemon does, and knows when it has to act without one.
    pub(super) fn tell_settings(&mut self) {
        let style = self.gear.log.style();
        self.gear.link.say(&ToKeeper::Log { style });
        let ms = u64::try_from(self.life.stop_limit.as_millis()).unwrap_or(u64::MAX);
        self.gear.link.say(&ToKeeper::StopLimit { ms });
    }

    /// daemon.nice is added to the niceness that hob was started with, which its jobs keep.
    fn renice(&mut self, more: i32) {
        if more == self.reniced {
            return;
        }
        match sys::thread::renice(self.niceness.saturating_add(more)) {
            Ok(()) => self.reniced = more,
            Err(e) => self.gear.log(Level::Warn, format!("cannot set daemon.nice to {more}: {e}")),
        }
        self.children.set_niceness((self.reniced != 0).then_some(self.niceness));
    }

    fn heartbeat(&mut self, state: String) {
        self.gear.link.beat(self.life.heartbeat);
        if self.bare || self.life.safe {
            return;
        }
        let (beat, file, wall) = (self.paths.heartbeat.clone(), self.paths.state_json.clone(), self.gear.now.wall);
        self.look_for_another_program();
        self.gear.bulk("the heartbeat", move || {
            let one = sys::file::atomic_write(&beat, format!("{wall}\n").as_bytes(), 0o600, false);
            let two = sys::file::atomic_write(&file, state.as_bytes(), 0o600, false);
            Job::Beat(one.and(two).map_err(|e| format!("cannot write the heartbeat: {e}")))
        });
    }
}
