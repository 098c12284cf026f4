//! Starts: what must be there before the clone is prepared in the loop, which waits for nothing.

use super::job::{Claim, cancelled};
use super::listen::Wish;
use super::trees::SIGKILL;
use super::{Children, Ctx, Life, Run, Service, SpawnJob, Todo, on_death};
use crate::base::ids::RunId;
use crate::base::time::Mono;
use crate::config::Ready;
use crate::core::{Input, Start, StartError};
use crate::daemon::capture::lines::Secrets;
use crate::sys::file;
use crate::sys::reason;
use crate::sys::table::Slot;
use crate::sys::wait::{self, Adopted};
use core::time::Duration;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// How long a program may take to be executed once it is to be stopped, and then to end once it is killed for that.
const EXECUTED: Duration = Duration::from_secs(5);
const KILLED: Duration = Duration::from_secs(5);

/// A run that is to be stopped and whose program does not get executed.
#[derive(Debug)]
pub(super) struct Stuck {
    pub(super) due: Mono,
    /// It was killed, but the kernel does not let go of it.
    killed: bool,
}

/// What a start is given.
#[derive(Debug)]
pub struct Means {
    /// Standard output and error.
    pub output: [Arc<OwnedFd>; 2],
    /// The job's end of its channel to hob.
    pub channel: Option<OwnedFd>,
    /// Where capture learns the values of the service's secrets before the program can print them.
    pub secrets: Option<Arc<Secrets>>,
}

impl Children {
    /// A run that is about to be started, and what its starting thread and who cancels it both lay their hand on.
    pub(super) fn enter(&mut self, id: RunId, service: Option<Arc<str>>, slot: Slot) -> Arc<Claim> {
        let claim = Arc::<Claim>::default();
        let mut run = Run::new(service, Some(slot), Life::Starting);
        run.claim = Some(Arc::clone(&claim));
        self.runs.insert(id, run);
        claim
    }

    /// Takes a slot, prepares what must be there before the clone, and hands the rest to the pool; `Started` tells what
    /// came of it. The start has to be put off where the table is full, the keeper is behind or descriptors ran out.
    pub fn start(&mut self, ctx: &mut Ctx<'_>, start: Start, means: Means, inputs: &mut Vec<Input>) {
        let (run, service, spec) = (start.run, Arc::clone(&start.service), Arc::clone(&start.spec));
        match self.prepare(ctx, start, means) {
            Ok(job) if spec.listen.is_empty() => {
                self.close_sockets(ctx, &service);
                self.todo.push(Todo::Spawn(Box::new(job)));
            }
            Ok(job) => {
                self.wish(ctx, &service, Wish { spec, watch: false, start: Some(Box::new(job)) }, inputs);
            }
            Err(message) => inputs.push(Input::Started { run, result: Err(StartError { message, transient: true }) }),
        }
    }

    /// A start has its sockets, or cannot have them.
    pub(super) fn start_with(
        &mut self,
        mut job: Box<SpawnJob>,
        sockets: Result<Vec<Arc<OwnedFd>>, String>,
        inputs: &mut Vec<Input>,
    ) {
        let run = job.start.run;
        match sockets {
            Ok(sockets) => {
                job.sockets = sockets;
                self.todo.push(Todo::Spawn(job));
            }
            Err(message) => {
                if let Some(entry) = self.runs.get_mut(&run) {
                    entry.life = Life::Ended;
                }
                inputs.push(Input::Started { run, result: Err(StartError { message, transient: true }) });
            }
        }
    }

    fn prepare(&mut self, ctx: &mut Ctx<'_>, start: Start, means: Means) -> Result<SpawnJob, String> {
        let service = Arc::clone(&start.service);
        if start.notify {
            let made = self.sockets.ensure(ctx, &self.setup, &service);
            made.map_err(|e| format!("cannot make the notify socket of {service}: {}", reason(&e)))?;
            self.sockets.drain(&service);
        }
        let notify = self.sockets.file(&service).filter(|_| start.notify);
        let null = self.null()?;
        let ready = match start.spec.ready {
            Ready::Fd(number) => {
                let pipe = self.pipes.ensure(ctx, &service);
                let why = |e| format!("cannot make the ready pipe of {service}: {}", reason(&e));
                Some((pipe.map_err(why)?, number))
            }
            _ => None,
        };
        let full = || format!("the run table is full: {} runs exist", crate::base::limits::RUN_SLOTS);
        let slot = ctx.table.take_for(start.run, on_death(&start.spec)).ok_or_else(full)?;
        let claim = self.enter(start.run, Some(Arc::clone(&service)), slot);
        let entry = self.services.get_or(Arc::clone(&service), Service::default);
        entry.current = Some(start.run);
        let Means { output, channel, secrets } = means;
        Ok(SpawnJob {
            setup: Arc::clone(&self.setup),
            start,
            table: ctx.table.clone(),
            slot,
            claim,
            groups: self.groups.as_ref().ok().cloned(),
            group_name: service,
            group: entry.group.clone(),
            null,
            output,
            ready,
            notify,
            sockets: Vec::new(),
            channel,
            secrets,
        })
    }

    /// The start of a run is to come to nothing. Where its program is being executed already, it is told as always; if
    /// that does not come to an end, it is killed where it stands.
    pub fn cancel_start(&mut self, ctx: &mut Ctx<'_>, run: RunId, inputs: &mut Vec<Input>) {
        let Some(entry) = self.runs.get_mut(&run).filter(|r| r.life == Life::Starting) else { return };
        if !entry.cancel() {
            self.stuck.insert(run, Stuck { due: ctx.now + EXECUTED, killed: false });
            return;
        }
        entry.life = Life::Ended;
        self.listeners.forget_start(run);
        inputs.push(Input::Started { run, result: Err(cancelled()) });
    }

    pub(super) fn stuck_due(&mut self, ctx: &mut Ctx<'_>, inputs: &mut Vec<Input>) {
        let due: Vec<RunId> = self.stuck.iter().filter(|(_, s)| s.due <= ctx.now).map(|(run, _)| *run).collect();
        for run in due {
            let killed = self.stuck.remove(&run).is_some_and(|s| s.killed);
            let Some(entry) = self.runs.get_mut(&run).filter(|r| r.life == Life::Starting) else { continue };
            if killed {
                // It can never run its program, so that nobody has to wait for its end.
                entry.abandoned = true;
                let message = format!("{}, and was killed there", entry.waits().unwrap_or_default());
                inputs.push(Input::Started { run, result: Err(StartError { message, transient: true }) });
                continue;
            }
            // Whoever reaps it writes into its slot first, as for a run that was taken over.
            if let Some(slot) = entry.slot
                && let Ok(Adopted::Alive(pidfd)) = wait::adopt(ctx.table, slot)
            {
                // An error means that it has ended.
                let _ = wait::pidfd_send_signal(pidfd.as_fd(), SIGKILL);
            }
            self.stuck.insert(run, Stuck { due: ctx.now + KILLED, killed: true });
        }
    }

    /// Tells of starts that have waited for a file for so long that the pool gave them up.
    pub fn slow_starts(&mut self, now: Mono, inputs: &mut Vec<Input>) {
        let slow = |r: &Run| r.place().is_some_and(|(since, _)| now.since(since) >= SpawnJob::DEADLINE / 2);
        for (run, entry) in self.runs.iter_mut().filter(|(run, r)| !run.is_command() && !r.told_slow && slow(r)) {
            entry.told_slow = true;
            inputs.extend(entry.waits().map(|what| Input::StartWaits { run: *run, what: what.into() }));
        }
    }

    pub(super) fn null(&mut self) -> Result<Arc<OwnedFd>, String> {
        if let Some(null) = &self.null {
            return Ok(Arc::clone(null));
        }
        let null = file::null().map_err(|e| format!("cannot open /dev/null: {}", reason(&e)))?;
        Ok(Arc::clone(self.null.insert(Arc::new(null))))
    }
}
