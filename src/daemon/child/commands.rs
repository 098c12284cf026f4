//! Commands beside a run: checks and what else the config names. Each has a slot in the table but no run record, runs
//! as its service does, in a control group of its own or marked, and is killed as a tree at its limit, at its end, or
//! when nobody waits for it any more.

use super::trees::SIGKILL;
use super::{Children, Ctx, Life, PathJob, SpawnDone, SpawnJob, SweepJob};
use crate::base::ids::RunId;
use crate::base::limits::{FROZEN, LAST_LINE_BYTES};
use crate::base::map::Map;
use crate::base::time::Mono;
use crate::base::units::human_duration;
use crate::config::{Ready, ServiceSpec};
use crate::core::{Duty, End, Input, Start};
use crate::daemon::capture::lines::Secrets;
use crate::daemon::source::Source;
use crate::sys::pipe;
use crate::sys::reason;
use core::time::Duration;
use mio::{Interest, Token};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

/// The pause between two runs of a command that tells of readiness.
const REPEAT: Duration = Duration::from_millis(500);
/// Output of a command that is kept for the text of its failure.
const KEPT: usize = 1024;

/// Work for the pool.
#[derive(Debug)]
pub enum Todo {
    Spawn(Box<SpawnJob>),
    Sweep(SweepJob),
    Path(PathJob),
}

#[derive(Debug, Default)]
pub(super) struct Commands {
    /// By their own number.
    open: Map<RunId, Command>,
    /// Runs whose readiness a command tells.
    repeats: Map<RunId, Repeat>,
    count: u32,
}

#[derive(Debug)]
struct Command {
    of: RunId,
    purpose: Purpose,
    /// How long it may take in all, and when that is over; `None`: until nobody waits for it any more.
    limit: Option<(Duration, Mono)>,
    words: Words,
}

/// What is to be done beside a run, and how long it may take.
#[derive(Clone, Debug)]
pub struct Asked {
    pub run: RunId,
    pub what: Duty,
    pub limit: Duration,
    /// What is masked in what it says of a failure.
    pub secrets: Option<Arc<Secrets>>,
}

/// What a command is run for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Ready,
    Check(Duty),
    /// `daemon.update_command`, which is beside no run.
    Newest,
}

/// The run that a command is of which is beside none.
const NO_RUN: RunId = RunId(0);

impl Purpose {
    /// Names its control group.
    fn word(self) -> &'static str {
        match self {
            Purpose::Ready => "ready",
            Purpose::Check(Duty::Health) => "health",
            Purpose::Check(Duty::Reload) => "reload",
            Purpose::Check(Duty::Stop) => "stop",
            Purpose::Newest => "newest",
        }
    }
}

#[derive(Debug)]
struct Repeat {
    spec: Arc<ServiceSpec>,
    /// When it is run again; `None` while it runs.
    due: Option<Mono>,
}

/// What a command prints: the end of it.
#[derive(Debug)]
struct Words {
    read: OwnedFd,
    token: Token,
    last: Vec<u8>,
    /// What it printed before that is not kept.
    cut: bool,
    secrets: Option<Arc<Secrets>>,
}

impl Commands {
    pub(super) fn next_deadline(&self) -> Option<Mono> {
        if self.repeats.is_empty() && self.open.is_empty() {
            return None;
        }
        let repeats = self.repeats.values().filter_map(|r| r.due);
        repeats.chain(self.open.values().filter_map(|c| Some(c.limit?.1))).min()
    }

    fn set_limit(&mut self, id: RunId, limit: Duration, now: Mono) {
        if let Some(command) = self.open.get_mut(&id) {
            command.limit = Some((limit, now + limit));
        }
    }
}

impl Children {
    /// Work that has come up since this was asked last.
    #[must_use]
    pub fn todo(&mut self) -> Vec<Todo> {
        let at_paths = self.path_jobs.drain(..).map(Todo::Path);
        core::mem::take(&mut self.todo).into_iter().chain(at_paths).collect()
    }

    /// Runs `ready.command` of a spec until it ends with 0 or `repeat_end`.
    pub(super) fn repeat(&mut self, ctx: &mut Ctx<'_>, run: RunId, spec: Arc<ServiceSpec>, inputs: &mut Vec<Input>) {
        self.repeat_end(ctx, run);
        self.commands.repeats.insert(run, Repeat { spec, due: Some(ctx.now) });
        self.commands_due(ctx, inputs);
    }

    pub(super) fn repeat_end(&mut self, ctx: &mut Ctx<'_>, run: RunId) {
        self.commands.repeats.remove(&run);
        self.command_end(ctx, run, Purpose::Ready);
    }

    /// Ends the command that a run has for this.
    pub(super) fn command_end(&mut self, ctx: &mut Ctx<'_>, run: RunId, purpose: Purpose) {
        let begun = self.commands.open.iter().filter(|(_, c)| c.of == run && c.purpose == purpose);
        for id in begun.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.give_up(ctx, id);
        }
    }

    /// Nobody waits for this command any more.
    fn give_up(&mut self, ctx: &mut Ctx<'_>, id: RunId) {
        if let Some(command) = self.commands.open.remove(&id) {
            command.words.close(ctx);
        }
        match self.runs.get(&id) {
            Some(r) if r.life == Life::Own => self.kill_command(ctx, id),
            // One that is about to be executed is killed once it is known.
            Some(r) if r.cancel() => self.forget(ctx, id),
            _ => {}
        }
    }

    fn kill_command(&mut self, ctx: &mut Ctx<'_>, id: RunId) {
        let group = self.runs.get(&id).and_then(|r| r.group.clone());
        if group.is_some_and(|g| g.marked() != Some(id)) {
            // The next command of its kind is in that group now, and who was in it before was killed at its limit.
            let job = self.signal(ctx.table, id, SIGKILL, false);
            return self.todo.extend(job.map(Todo::Sweep));
        }
        let job = self.kill(ctx.table, id);
        self.todo.extend(job.map(Todo::Sweep));
    }

    pub(super) fn commands_due(&mut self, ctx: &mut Ctx<'_>, inputs: &mut Vec<Input>) {
        let due = self.commands.repeats.iter_mut().filter(|(_, r)| r.due.is_some_and(|at| at <= ctx.now));
        let due: Vec<(RunId, Arc<ServiceSpec>)> = due
            .map(|(run, r)| {
                r.due = None;
                (*run, Arc::clone(&r.spec))
            })
            .collect();
        for (run, spec) in due {
            let Ready::Command(argv) = &spec.ready else { continue };
            if let Err(e) = self.begin(ctx, run, Purpose::Ready, &spec, argv) {
                self.told(ctx.now, run, Purpose::Ready, Err(e), inputs);
            }
        }
        self.limits_due(ctx, inputs);
    }

    fn limits_due(&mut self, ctx: &mut Ctx<'_>, inputs: &mut Vec<Input>) {
        let mut over = Vec::new();
        for (id, c) in self.commands.open.iter_mut() {
            let Some((limit, at)) = c.limit.filter(|(_, at)| *at <= ctx.now) else { continue };
            if ctx.now.since(at) > FROZEN {
                // The machine stood still, and the command with it.
                c.limit = Some((limit, ctx.now + limit));
            } else {
                over.push((*id, c.of, c.purpose, limit));
            }
        }
        for (id, of, purpose, limit) in over {
            let error = format!("it did not end within {}", human_duration(limit));
            let error = match self.commands.open.get_mut(&id) {
                Some(command) => command.words.told(error),
                None => error,
            };
            self.give_up(ctx, id);
            self.told(ctx.now, of, purpose, Err(error), inputs);
        }
    }

    /// Runs a command once; `Checked` tells its end.
    pub(super) fn begin_check(
        &mut self,
        ctx: &mut Ctx<'_>,
        asked: Asked,
        spec: &ServiceSpec,
        argv: &[String],
    ) -> Result<(), String> {
        let Asked { run: of, what, limit, secrets } = asked;
        let purpose = Purpose::Check(what);
        self.command_end(ctx, of, purpose);
        let id = self.begin(ctx, of, purpose, spec, argv)?;
        self.commands.set_limit(id, limit, ctx.now);
        if let Some(command) = self.commands.open.get_mut(&id) {
            command.words.secrets = secrets;
        }
        Ok(())
    }

    /// Runs `daemon.update_command`; `Newest` tells its end.
    pub fn newest(&mut self, ctx: &mut Ctx<'_>, argv: &[String], limit: Duration, inputs: &mut Vec<Input>) {
        self.newest_end(ctx);
        match self.begin(ctx, NO_RUN, Purpose::Newest, &ServiceSpec::default(), argv) {
            Ok(id) => self.commands.set_limit(id, limit, ctx.now),
            Err(e) => inputs.push(Input::Newest { result: Err(e) }),
        }
    }

    pub fn newest_end(&mut self, ctx: &mut Ctx<'_>) {
        self.command_end(ctx, NO_RUN, Purpose::Newest);
    }

    /// Hands the start of a command to the pool.
    fn begin(
        &mut self,
        ctx: &mut Ctx<'_>,
        of: RunId,
        purpose: Purpose,
        spec: &ServiceSpec,
        argv: &[String],
    ) -> Result<RunId, String> {
        let service = match purpose {
            Purpose::Newest => "".into(),
            Purpose::Ready | Purpose::Check(_) => self.service_of(of).ok_or("its service has gone")?,
        };
        let null = self.null()?;
        let (read, write) = pipe::output().map_err(|e| reason(&e))?;
        self.commands.count = self.commands.count.wrapping_add(1);
        // Numbers of earlier daemons may still be in use.
        let id = RunId::command((self.setup.daemon << 12).wrapping_add(self.commands.count));
        let slot = ctx.table.take(id).ok_or("the run table is full")?;
        let source = ctx.sources.add(ctx.registry, read.as_raw_fd(), Interest::READABLE, Source::Words(id));
        let token = source.map_err(|e| {
            ctx.table.release(slot);
            reason(&e)
        })?;
        let words = Words { read, token, last: Vec::new(), cut: false, secrets: None };
        self.commands.open.insert(id, Command { of, purpose, limit: None, words });
        let claim = self.enter(id, None, slot);
        let write = Arc::new(write);
        // A service's name never has a dot after a slash.
        let group_name: Arc<str> = format!("{service}/.{}", purpose.word()).into();
        let group = self.services.get(&service).and_then(|s| s.beside.get(&group_name)).cloned();
        let spec = Arc::new(self.beside(of, spec, argv));
        let start = Start { run: id, service, spec, notify: false, stdin: None };
        self.todo.push(Todo::Spawn(Box::new(SpawnJob {
            setup: Arc::clone(&self.setup),
            start,
            table: ctx.table.clone(),
            slot,
            claim,
            groups: self.groups.as_ref().ok().cloned(),
            group_name,
            group,
            null,
            output: [Arc::clone(&write), write],
            ready: None,
            notify: None,
            sockets: Vec::new(),
            channel: None,
            // The service learned them when its run began.
            secrets: None,
        })));
        Ok(id)
    }

    /// What the command is run with: as its service, told the service's main process.
    fn beside(&self, of: RunId, spec: &ServiceSpec, argv: &[String]) -> ServiceSpec {
        let mut spec = ServiceSpec { command: argv.to_vec(), ..spec.clone() }
            .with(|s| (s.ready, s.watchdog, s.listen) = (Ready::Spawned, None, Vec::new()));
        if let Some(pid) = self.pid(of) {
            spec.env.insert("MAINPID".to_owned(), pid.to_string());
        }
        spec
    }

    /// The run that a command is beside.
    pub(super) fn command_of(&self, id: RunId) -> Option<RunId> {
        self.commands.open.get(&id).map(|c| c.of)
    }

    /// The start of a command came out of the pool.
    pub(super) fn command_spawned(&mut self, ctx: &mut Ctx<'_>, done: SpawnDone, inputs: &mut Vec<Input>) {
        let id = done.run;
        let Some(entry) = self.runs.get_mut(&id).filter(|r| r.life == Life::Starting) else { return };
        match done.result {
            Ok(child) => {
                entry.life = Life::Own;
                entry.pid = Some(child.pid);
                entry.pidfd = child.pidfd;
                entry.group.clone_from(&child.group);
                self.listen(ctx, id);
                let of = self.commands.open.get(&id).map(|c| c.of);
                let service = of.and_then(|of| self.service_of(of));
                if let (Some(service), Some(group)) = (service, child.group)
                    && let Some(service) = self.services.get_mut(&service)
                {
                    service.beside.insert(group.service().into(), group);
                }
                if of.is_none() {
                    self.give_up(ctx, id);
                }
            }
            Err(e) => {
                entry.life = Life::Ended;
                self.over(ctx, id, Err(e.message), inputs);
            }
        }
    }

    /// The main process of a command was reaped.
    pub(super) fn command_ended(&mut self, ctx: &mut Ctx<'_>, id: RunId, end: End, inputs: &mut Vec<Input>) {
        let group = self.runs.get(&id).and_then(|r| r.group.clone());
        match group {
            Some(group) if !group.populated().unwrap_or(false) => {}
            Some(_) | None => self.kill_command(ctx, id),
        }
        let result = match end {
            End::Code(0) => Ok(()),
            End::Code(code) => Err(format!("exit code {code}")),
            End::Signal(signal) => Err(format!("killed by {}", crate::core::run::signal_name(signal))),
            End::Unknown => Err("an end that nobody saw".to_owned()),
        };
        self.over(ctx, id, result, inputs);
    }

    fn over(&mut self, ctx: &mut Ctx<'_>, id: RunId, result: Result<(), String>, inputs: &mut Vec<Input>) {
        let command = self.commands.open.remove(&id);
        self.forget(ctx, id);
        let Some(mut command) = command else { return };
        let result = match result {
            Ok(()) if command.purpose == Purpose::Newest => Ok(command.words.line().unwrap_or_default()),
            Ok(()) => Ok(String::new()),
            Err(e) => Err(command.words.told(e)),
        };
        command.words.close(ctx);
        self.told(ctx.now, command.of, command.purpose, result, inputs);
    }

    /// Passes on what came of a command: the last that it printed, where that is asked for, or why it failed.
    fn told(
        &mut self,
        now: Mono,
        of: RunId,
        purpose: Purpose,
        result: Result<String, String>,
        inputs: &mut Vec<Input>,
    ) {
        match (purpose, result) {
            (Purpose::Check(what), result) => inputs.push(Input::Checked { run: of, what, result: result.map(drop) }),
            (Purpose::Newest, result) => inputs.push(Input::Newest { result }),
            (Purpose::Ready, Ok(_)) => {
                self.commands.repeats.remove(&of);
                inputs.push(Input::ReadySeen { run: of });
            }
            (Purpose::Ready, Err(_)) => {
                if let Some(repeat) = self.commands.repeats.get_mut(&of) {
                    repeat.due = Some(now + REPEAT);
                }
            }
        }
    }

    /// A command has printed something.
    pub fn said(&mut self, id: RunId) {
        if let Some(command) = self.commands.open.get_mut(&id) {
            command.words.take();
        }
    }
}

impl Words {
    /// Takes what is there, so that nobody is held up by printing.
    fn take(&mut self) {
        let mut text = [0; 16 * KEPT];
        // A flood must not keep the loop; the rest wakes it again only when more is written, so this takes a pipe full.
        for _ in 0..8 {
            let Ok(n @ 1..) = pipe::read(&self.read, &mut text) else { return };
            self.last.extend_from_slice(text.get(..n).unwrap_or_default());
            let more = self.last.len().saturating_sub(KEPT);
            self.last.drain(..more);
            self.cut |= more > 0;
        }
    }

    /// A failure with the last line before it.
    fn told(&mut self, failure: String) -> String {
        match self.line() {
            Some(line) => format!("{failure}: {line}"),
            None => failure,
        }
    }

    /// The last line that says something.
    fn line(&mut self) -> Option<String> {
        self.take();
        let last = match &self.secrets {
            Some(secrets) => {
                // Where the beginning of a line is not kept, it may begin with the end of a secret.
                let whole =
                    if self.cut { self.last.iter().position(|b| *b == b'\n').map_or(KEPT, |at| at + 1) } else { 0 };
                secrets.hide(self.last.get(whole..).unwrap_or_default())
            }
            None => core::mem::take(&mut self.last),
        };
        let text = String::from_utf8_lossy(&last);
        let line = text.lines().map(str::trim).rfind(|l| !l.is_empty())?;
        let clean = line.chars().map(|c| if c.is_control() { ' ' } else { c });
        Some(clean.take(LAST_LINE_BYTES).collect())
    }

    fn close(self, ctx: &mut Ctx<'_>) {
        ctx.sources.remove(ctx.registry, self.read.as_raw_fd(), self.token);
    }
}
