//! Children: starting them, noticing their ends, signals, who is left of their trees, their word on readiness.
//!
//! Everything here belongs to the loop and blocks on nothing but short reads of /proc and the control group tree; what
//! may take longer is handed out as a job (`job`) for the pool, whose result comes back by a method of `Children`. A
//! run lives here from `start` or `adopt` to `forget`. `Started` reaches the core before `Exited`, because the exit of
//! a child of this daemon is listened for only once its start was told, and that of an adopted one is told by the
//! keeper.

mod adopt;
mod begin;
mod bind;
mod commands;
mod dial;
mod envfile;
mod job;
mod listen;
mod notify;
mod paths;
mod peer;
mod pipes;
mod plan;
mod probe;
mod trees;
mod watch;

pub use begin::Means;
pub use commands::{Asked, Todo};
pub use job::{MeasureJob, SpawnDone, SpawnJob, Spawned, SweepDone, SweepJob};
pub use listen::{LABEL as SOCKET_LABEL, service_of as socket_service};
pub use notify::label as notify_label;
pub use paths::{PathDone, PathJob};
pub use peer::Whose;
pub use pipes::label as ready_label;
pub use plan::{Setup, home_id, unfit};

use crate::base::ids::RunId;
use crate::base::map::Map;
use crate::base::time::{Mono, sooner};
use crate::config::{self, ServiceSpec};
use crate::core::{Duty, End, Input, Usage};
use crate::daemon::capture::lines::Secrets;
use crate::daemon::link::Link;
use crate::daemon::source::{Source, Sources};
use crate::sys::table::{OnDeath, RunTable, Slot};
use crate::sys::tree::{Group, Groups, Member};
use crate::sys::wait;
use core::time::Duration;
use mio::{Interest, Registry, Token};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The keeper's hold on descriptors, as far as children need it.
pub trait Hold {
    /// Queues descriptors to be kept under a label, instead of what was there.
    ///
    /// # Errors
    /// WouldBlock and ETOOMANYREFS when the keeper is behind: the start has to wait.
    fn hold(&mut self, label: &str, fds: &[BorrowedFd<'_>]) -> io::Result<()>;
    /// Lets the keeper close what it keeps under a label.
    fn release(&mut self, label: &str);
}

impl Hold for Link {
    fn hold(&mut self, label: &str, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        Link::hold(self, label, fds)
    }

    fn release(&mut self, label: &str) {
        Link::drop(self, label);
    }
}

/// What the methods of `Children` borrow from the loop.
pub struct Ctx<'a> {
    pub registry: &'a Registry,
    pub sources: &'a mut Sources,
    pub table: &'a RunTable,
    pub link: &'a mut dyn Hold,
    /// The time of this turn.
    pub now: Mono,
}

impl std::fmt::Debug for Ctx<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ctx").field("table", self.table).finish_non_exhaustive()
    }
}

/// All children of this hob, and what belongs to them.
#[derive(Debug)]
pub struct Children {
    setup: Arc<Setup>,
    groups: Result<Groups, String>,
    services: Map<Arc<str>, Service>,
    runs: Map<RunId, Box<Run>>,
    sockets: notify::Sockets,
    listeners: listen::Listeners,
    pipes: pipes::Pipes,
    probes: probe::Probes,
    commands: commands::Commands,
    dials: dial::Dials,
    reaches: paths::Reaches,
    /// Work for the pool that nobody asked for from outside.
    todo: Vec<Todo>,
    path_jobs: Vec<PathJob>,
    /// Slots of forgotten runs that the keeper has yet to reap: freed earlier, it could write into the next run's.
    unreaped: BTreeSet<Slot>,
    /// Own children whose end cannot be listened for, because descriptors or watches ran out, and when it is tried
    /// again.
    deaf: BTreeSet<RunId>,
    /// /dev/null, the standard input of every run, from the first start on.
    null: Option<Arc<OwnedFd>>,
    deaf_until: Option<Mono>,
    /// Runs that are to be stopped and whose program does not get executed, and when they are killed.
    stuck: BTreeMap<RunId, begin::Stuck>,
    /// What a dead main process leaves falls to nobody of hob's any more.
    keeper_gone: bool,
}

/// How long to wait before descriptors are tried for again.
const DEAF: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
struct Service {
    /// Opened by the first start and kept over runs.
    group: Option<Arc<Group>>,
    /// Groups of its commands.
    beside: Map<Arc<str>, Arc<Group>>,
    current: Option<RunId>,
}

#[derive(Debug)]
struct Run {
    service: Option<Arc<str>>,
    /// `None` for a run of an earlier keeper.
    slot: Option<Slot>,
    life: Life,
    /// Of a start that is under way.
    claim: Option<Arc<job::Claim>>,
    /// The core was told what its start waits for.
    told_slow: bool,
    /// The core was told that nothing came of its start, although a thread is still at it.
    abandoned: bool,
    pid: Option<u32>,
    pidfd: Option<OwnedFd>,
    /// The pidfd is in the poll set.
    token: Option<Token>,
    /// The control group it is in; without one its tree is found by sweeps.
    group: Option<Arc<Group>>,
    /// Its keeper died: its processes may be anywhere on the machine.
    leftover: bool,
    /// Who was found at the last sweep.
    known: Vec<Member>,
    /// Tells when the control group becomes empty.
    watch: Option<(OwnedFd, Token)>,
    /// The core waits for the answer of a sweep in the pool, which is taken for lost at this time.
    sweeping: Option<Mono>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    /// The pool is at it.
    Starting,
    /// A child of this daemon.
    Own,
    /// A child of the keeper, left by an earlier daemon.
    Adopted,
    /// The same, but it could not execute its program, which is all that the core is told.
    Failing,
    Ended,
}

impl Run {
    fn new(service: Option<Arc<str>>, slot: Option<Slot>, life: Life) -> Box<Run> {
        Box::new(Run {
            service,
            slot,
            life,
            claim: None,
            told_slow: false,
            abandoned: false,
            pid: None,
            pidfd: None,
            token: None,
            group: None,
            leftover: false,
            known: Vec::new(),
            watch: None,
            sweeping: None,
        })
    }

    fn deregister(&mut self, ctx: &mut Ctx<'_>) {
        if let (Some(fd), Some(token)) = (&self.pidfd, self.token.take()) {
            ctx.sources.remove(ctx.registry, fd.as_raw_fd(), token);
        }
    }

    fn unwatch(&mut self, ctx: &mut Ctx<'_>) {
        if let Some((fd, token)) = self.watch.take() {
            ctx.sources.remove(ctx.registry, fd.as_raw_fd(), token);
        }
    }

    /// Has a start come to nothing, if that is still possible.
    fn cancel(&self) -> bool {
        self.life == Life::Starting && self.claim.as_ref().is_some_and(|c| c.cancel())
    }

    /// The file that its start is at, and since when.
    fn place(&self) -> Option<(Mono, PathBuf)> {
        self.claim.as_ref().filter(|_| self.life == Life::Starting)?.place.get()
    }

    fn waits(&self) -> Option<String> {
        let (_, path) = self.place()?;
        Some(format!("its start still waits for {}; look at what is mounted there", path.display()))
    }

    /// The main process has been reaped: from now on nothing may be sent to it.
    fn end(&mut self, ctx: &mut Ctx<'_>) {
        self.deregister(ctx);
        self.pidfd = None;
        self.life = Life::Ended;
    }
}

impl Children {
    /// Without children. Looks whether there can be control groups.
    #[must_use]
    pub fn new(setup: Setup) -> Children {
        let groups = if setup.cgroup_off {
            Err("switched off by HOB_CGROUP=off".to_owned())
        } else {
            Groups::probe(setup.keeper, setup.home)
        };
        Children {
            setup: Arc::new(setup),
            groups,
            services: Map::new(),
            runs: Map::new(),
            sockets: notify::Sockets::default(),
            listeners: listen::Listeners::default(),
            pipes: pipes::Pipes::default(),
            probes: probe::Probes::default(),
            commands: commands::Commands::default(),
            dials: dial::Dials::default(),
            reaches: paths::Reaches::default(),
            todo: Vec::new(),
            path_jobs: Vec::new(),
            unreaped: BTreeSet::new(),
            deaf: BTreeSet::new(),
            null: None,
            deaf_until: None,
            stuck: BTreeMap::new(),
            keeper_gone: false,
        }
    }

    /// From now on jobs start with this niceness unless their config says otherwise; `None`: with hob's own.
    pub fn set_niceness(&mut self, nice: Option<i32>) {
        Arc::make_mut(&mut self.setup).nice = nice;
    }

    /// The folder of hob's control groups, or why there is none. Tries them, if no start has yet.
    ///
    /// # Errors
    /// The reason, for status.
    pub fn cgroups(&self) -> Result<&Path, String> {
        let groups = self.groups.as_ref().map_err(String::clone)?;
        groups.tried().map(|()| groups.base()).map_err(|refused| refused.why)
    }

    /// What all starts have in common.
    #[must_use]
    pub fn setup(&self) -> &Arc<Setup> {
        &self.setup
    }

    /// The user that a spec runs as: hob's own also where that cannot be told, as the start will say.
    #[must_use]
    pub fn user_of(&self, spec: &ServiceSpec) -> u32 {
        let who = plan::identity(&self.setup, spec).ok().flatten();
        who.map_or_else(|| crate::sys::user::own().0, |u| u.uid)
    }

    /// Runs that have not been forgotten.
    #[must_use]
    pub fn count(&self) -> usize {
        self.runs.len()
    }

    /// The pid of a run's main process, while it has not been reaped.
    #[must_use]
    pub fn pid(&self, run: RunId) -> Option<u32> {
        self.runs.get(&run).filter(|r| r.life != Life::Ended)?.pid
    }

    /// A start came out of the pool.
    pub fn spawned(&mut self, ctx: &mut Ctx<'_>, done: SpawnDone, inputs: &mut Vec<Input>) {
        let run = done.run;
        if run.is_command() {
            return self.command_spawned(ctx, done, inputs);
        }
        let Some(entry) = self.runs.get_mut(&run).filter(|r| r.life == Life::Starting) else { return };
        if entry.abandoned {
            return self.abandoned_spawned(ctx, done);
        }
        let result = match done.result {
            Ok(child) => {
                entry.life = Life::Own;
                entry.pid = Some(child.pid);
                entry.pidfd = child.pidfd;
                entry.group.clone_from(&child.group);
                if let (Some(service), Some(group)) = (&entry.service, child.group) {
                    self.services.get_or(Arc::clone(service), Service::default).group = Some(group);
                }
                self.listen(ctx, run);
                Ok(child.pid)
            }
            Err(e) => {
                entry.life = Life::Ended;
                Err(e)
            }
        };
        inputs.push(Input::Started { run, result });
    }

    /// What was given up came to an end after all, or to a child that is about to end.
    fn abandoned_spawned(&mut self, ctx: &mut Ctx<'_>, done: SpawnDone) {
        let Some(entry) = self.runs.get_mut(&done.run) else { return };
        match done.result {
            Ok(child) => {
                entry.life = Life::Own;
                (entry.pid, entry.pidfd) = (Some(child.pid), child.pidfd);
                entry.signal_main(ctx.table, trees::SIGKILL);
                self.listen(ctx, done.run);
            }
            Err(_) => {
                entry.life = Life::Ended;
                self.forget(ctx, done.run);
            }
        }
    }

    /// Puts the pidfd of a child whose end nobody else tells into the poll set, or notes to try again.
    fn listen(&mut self, ctx: &mut Ctx<'_>, run: RunId) {
        let (own, orphans) = (|r: &Run| r.life == Life::Own, self.keeper_gone);
        let watched = |r: &&mut Box<Run>| r.token.is_none() && (own(r) || orphans && r.life == Life::Adopted);
        let Some(entry) = self.runs.get_mut(&run).filter(watched) else { return };
        if entry.pidfd.is_none() && own(entry) {
            // Not yet reaped by us, so that the pid can only be the child's.
            entry.pidfd = entry.pid.and_then(|pid| wait::pidfd_open(pid).ok());
        }
        entry.token = entry
            .pidfd
            .as_ref()
            .and_then(|fd| ctx.sources.add(ctx.registry, fd.as_raw_fd(), Interest::READABLE, Source::Child(run)).ok());
        if entry.token.is_none() {
            self.deaf.insert(run);
            self.deaf_until.get_or_insert(ctx.now + DEAF);
        }
    }

    /// The pidfd of a child is readable.
    pub fn readable(&mut self, ctx: &mut Ctx<'_>, run: RunId, inputs: &mut Vec<Input>) {
        if self.keeper_gone && self.runs.get(&run).is_some_and(|r| r.life == Life::Adopted) {
            return self.orphan_readable(ctx, run, inputs);
        }
        let Some(entry) = self.runs.get_mut(&run).filter(|r| r.life == Life::Own) else { return };
        let (Some(fd), Some(slot)) = (&entry.pidfd, entry.slot) else { return };
        let (end, usage) = match wait::reap_own(fd.as_fd(), ctx.table, slot) {
            Ok(None) => return,
            Ok(Some((status, usage))) => ended_as((ctx.table, slot), status, usage),
            // Somebody else has reaped it: what the table says is all that can be known.
            Err(_) => match ctx.table.slot(slot).ended {
                Some((status, usage)) => ended_as((ctx.table, slot), status, usage),
                None => (End::Unknown, Usage::default()),
            },
        };
        entry.end(ctx);
        if entry.abandoned {
            return self.forget(ctx, run);
        }
        if run.is_command() {
            return self.command_ended(ctx, run, end, inputs);
        }
        inputs.push(Input::Exited { run, end, usage });
    }

    /// The keeper says that it has reaped the process of a slot: a hint to look there, which may come twice or too
    /// late.
    pub fn ended(&mut self, ctx: &mut Ctx<'_>, slot: u32, inputs: &mut Vec<Input>) {
        let Some(slot) = Slot::from_index(slot) else { return };
        let view = ctx.table.slot(slot);
        let Some((status, usage)) = view.ended else { return };
        if self.unreaped.remove(&slot) {
            ctx.table.release(slot);
            return;
        }
        let Some(entry) = self.runs.get_mut(&view.run).filter(|r| r.slot == Some(slot)) else { return };
        match entry.life {
            Life::Starting | Life::Own | Life::Ended => {}
            Life::Failing => entry.end(ctx),
            Life::Adopted => {
                entry.end(ctx);
                let (end, usage) = ended_as((ctx.table, slot), status, usage);
                inputs.push(Input::Exited { run: view.run, end, usage });
            }
        }
    }

    /// The run's end is on record and nothing of it is left.
    pub fn forget(&mut self, ctx: &mut Ctx<'_>, run: RunId) {
        self.await_end(ctx, run);
        self.checks_end(ctx, run);
        self.deaf.remove(&run);
        if self.runs.get(&run).is_some_and(|r| r.life == Life::Starting && !r.cancel()) {
            // The pool is about to write into its slot; the core forgets a run only after its start was told.
            return;
        }
        let Some(mut entry) = self.runs.remove(&run) else { return };
        entry.deregister(ctx);
        entry.unwatch(ctx);
        if let Some(service) = entry.service.as_ref()
            && let Some(s) = self.services.get_mut(service)
            && s.current == Some(run)
        {
            s.current = None;
            self.sockets.drain(service);
            self.pipes.drain(service);
        }
        let Some(slot) = entry.slot else { return };
        let adopted = matches!(entry.life, Life::Adopted | Life::Failing);
        if adopted && ctx.table.slot(slot).ended.is_none() {
            self.unreaped.insert(slot);
        } else {
            ctx.table.release(slot);
        }
    }

    /// A service was removed from the config and is down.
    pub fn remove(&mut self, ctx: &mut Ctx<'_>, service: &str) {
        self.sockets.remove(ctx, &self.setup, service);
        self.pipes.remove(ctx, service);
        self.close_sockets(ctx, service);
        let Some(entry) = self.services.remove(service) else { return };
        for group in entry.group.into_iter().chain(entry.beside.into_values()) {
            // Children that were left on purpose keep their group.
            let _ = group.remove();
        }
    }

    /// hob ends: control groups that are empty go, and the files of sockets, which are work for the pool. Notify
    /// sockets go with the run folder's cleaning.
    pub fn close(&mut self, ctx: &mut Ctx<'_>) {
        let names: Vec<Arc<str>> = self.services.keys().cloned().collect();
        for name in names {
            self.remove(ctx, &name);
        }
        self.listeners.close_all(ctx, &mut self.path_jobs);
        if let Ok(groups) = &self.groups {
            groups.remove_empty();
        }
    }

    /// When `tick` is to be called at the latest.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Mono> {
        let next = sooner(self.probes.next_deadline(), self.commands.next_deadline());
        let next = sooner(next, self.listeners.next_deadline());
        let next = sooner(next, self.stuck.values().map(|s| s.due).min());
        sooner(next, sooner(self.dials.next_deadline(), self.deaf_until))
    }

    /// Does what has become due.
    pub fn tick(&mut self, ctx: &mut Ctx<'_>, inputs: &mut Vec<Input>) {
        let ask = (&mut self.reaches, &mut self.path_jobs);
        inputs.extend(self.probes.tick(ctx, ask).into_iter().map(|run| Input::ReadySeen { run }));
        self.commands_due(ctx, inputs);
        self.sockets_due(ctx, inputs);
        self.stuck_due(ctx, inputs);
        for (run, result) in self.dials.tick(ctx) {
            inputs.push(Input::Checked { run, what: Duty::Health, result });
        }
        if self.deaf_until.is_some_and(|at| at <= ctx.now) {
            self.deaf_until = None;
            for run in core::mem::take(&mut self.deaf) {
                self.listen(ctx, run);
            }
        }
    }

    /// The next word of a service. One that counts is left in its socket: record what it leads to, then `notify_taken`.
    /// The selector tells of words only when another comes, so ask again until `Nothing`. `of`: the user that the
    /// service runs as; `secrets`: what is masked in what it says.
    pub fn notified(
        &self,
        table: &RunTable,
        service: &str,
        of: &dyn Fn() -> Option<u32>,
        secrets: Option<&Secrets>,
    ) -> Heard {
        if self.sockets.is_stalled(service) {
            return Heard::Stalled;
        }
        let Some(datagram) = self.sockets.peek(service) else { return Heard::Nothing };
        let fields = notify::fields(&datagram, secrets);
        let run = self.services.get(service).and_then(|s| s.current);
        match (run, datagram.pid.zip(datagram.uid)) {
            (Some(run), Some(from))
                if (!fields.is_empty() || datagram.cut) && self.speaks_for(table, (service, run), from, of) =>
            {
                if datagram.cut {
                    self.sockets.take(service);
                    return Heard::TooLong;
                }
                Heard::Word(Input::Notify { run, fields })
            }
            _ => {
                self.sockets.take(service);
                Heard::Passed
            }
        }
    }

    /// The word that `notified` told is on record.
    pub fn notify_taken(&self, service: &str) {
        self.sockets.take(service);
    }
}

/// What a look at the notify socket of a service finds.
#[derive(Debug)]
pub enum Heard {
    /// One that counts.
    Word(Input),
    /// One that does not; it was taken out.
    Passed,
    /// The same, as it is longer than what is read.
    TooLong,
    Nothing,
    /// What came with earlier ones is still being closed: ask again in a moment.
    Stalled,
}

/// What the keeper is told of a service, for the case that this daemon dies.
fn on_death(spec: &ServiceSpec) -> Option<OnDeath> {
    let signal = u8::try_from(spec.stop_signal.number).ok()?;
    (spec.on_daemon_death == config::OnDeath::Stop).then_some(OnDeath { signal, grace: spec.stop_timeout })
}

fn ended_as((table, slot): (&RunTable, Slot), status: wait::Status, usage: wait::Usage) -> (End, Usage) {
    let end = match status {
        wait::Status::Code(code) => End::Code(code),
        wait::Status::Signal(signal) => End::Signal(signal),
    };
    (end, Usage { cpu: usage.cpu, memory: peak(usage.max_rss, table.shared_peak(slot)) })
}

/// The peak memory of a run, 0 where it cannot be told. Until it executed its program the child shared the memory of
/// the daemon that started it, and the kernel counts that as its own, not to the page: what lies near or below is not
/// known.
fn peak(max_rss: u64, shared: Option<u64>) -> u64 {
    match shared {
        Some(shared) if max_rss > shared.saturating_add(shared / 8) => max_rss,
        Some(_) | None => 0,
    }
}

#[cfg(test)]
mod tests;
