//! Starts: what must be there before the clone is prepared in the loop, which waits for nothing.

use super::listen::Wish;
use super::{Children, Ctx, Life, Run, Service, SpawnJob, Todo, on_death, plan};
use crate::config::Ready;
use crate::core::{Input, Start, StartError};
use crate::daemon::capture::lines::Secrets;
use std::os::fd::OwnedFd;
use std::sync::Arc;

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
            made.map_err(|e| format!("cannot make the notify socket of {service}: {}", plan::reason(&e)))?;
            self.sockets.drain(&service);
        }
        let null = self.null()?;
        let ready = match start.spec.ready {
            Ready::Fd(number) => {
                let pipe = self.pipes.ensure(ctx, &service);
                let why = |e| format!("cannot make the ready pipe of {service}: {}", plan::reason(&e));
                Some((pipe.map_err(why)?, number))
            }
            _ => None,
        };
        let full = || format!("the run table is full: {} runs exist", crate::base::limits::RUN_SLOTS);
        let slot = ctx.table.take_for(start.run, on_death(&start.spec)).ok_or_else(full)?;
        let entry = self.services.get_or(Arc::clone(&service), Service::default);
        entry.current = Some(start.run);
        self.runs.insert(start.run, Run::new(Some(Arc::clone(&service)), Some(slot), Life::Starting));
        let Means { output, channel, secrets } = means;
        Ok(SpawnJob {
            setup: Arc::clone(&self.setup),
            start,
            table: ctx.table.clone(),
            slot,
            groups: self.groups.as_ref().ok().cloned(),
            group_name: service,
            group: entry.group.clone(),
            null,
            output,
            ready,
            sockets: Vec::new(),
            channel,
            secrets,
        })
    }

    pub(super) fn null(&mut self) -> Result<Arc<OwnedFd>, String> {
        if let Some(null) = &self.null {
            return Ok(Arc::clone(null));
        }
        let file = std::fs::File::open("/dev/null");
        let file = file.map_err(|e| format!("cannot open /dev/null: {}", plan::reason(&e)))?;
        Ok(Arc::clone(self.null.insert(Arc::new(file.into()))))
    }
}
