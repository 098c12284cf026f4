//! What is watched for beside a run: its readiness, and what is asked of it or done for it.

use super::commands::{Asked, Purpose};
use super::{Children, Ctx, probe};
use crate::base::ids::RunId;
use crate::config::{Check, ServiceSpec};
use crate::core::{Await, Duty, Input};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

impl Children {
    /// Watches for readiness by anything but output, until `await_end` or an answer.
    pub fn await_ready(&mut self, ctx: &mut Ctx<'_>, run: RunId, what: Await, inputs: &mut Vec<Input>) {
        let there = match what {
            Await::Log(_) => false,
            Await::Port(port) => {
                self.probes.begin(ctx, run, probe::Target::Port(port), (&mut self.reaches, &mut self.path_jobs))
            }
            Await::Socket(path) => {
                let place = if path.starts_with('@') { path.into() } else { self.setup.config_dir.join(path) };
                self.probes.begin(ctx, run, probe::Target::Socket(place), (&mut self.reaches, &mut self.path_jobs))
            }
            Await::Fd => self.service_of(run).is_some_and(|service| self.pipes.begin(&service, run)),
            Await::Command(spec) => {
                self.repeat(ctx, run, spec, inputs);
                false
            }
        };
        if there {
            inputs.push(Input::ReadySeen { run });
        }
    }

    pub(super) fn service_of(&self, run: RunId) -> Option<Arc<str>> {
        self.runs.get(&run)?.service.clone()
    }

    pub fn await_end(&mut self, ctx: &mut Ctx<'_>, run: RunId) {
        self.probes.end(ctx, run);
        if let Some(service) = self.service_of(run) {
            self.pipes.end(&service, run);
        }
        self.repeat_end(ctx, run);
    }

    /// Does something once beside a run; `Checked` tells what came of it.
    pub fn check(&mut self, ctx: &mut Ctx<'_>, asked: Asked, spec: &ServiceSpec, inputs: &mut Vec<Input>) {
        let Asked { run, what, limit, .. } = asked;
        let argv = match what {
            Duty::Health => None,
            Duty::Reload => Some(&spec.reload_command),
            Duty::Stop => Some(&spec.stop_command),
        };
        let begun = match (argv, spec.health.as_ref().map(|h| &h.check)) {
            (Some(Some(argv)), _) | (None, Some(Check::Command(argv))) => self.begin_check(ctx, asked, spec, argv),
            (Some(None), _) | (None, None) => Err("the config names nothing to do".to_owned()),
            (None, Some(check)) => {
                let ask = (&mut self.reaches, &mut self.path_jobs);
                let check = (check, self.setup.config_dir.as_path());
                if let Some(result) = self.dials.begin(ctx, run, check, limit, ask) {
                    inputs.push(Input::Checked { run, what, result });
                }
                Ok(())
            }
        };
        if let Err(e) = begun {
            inputs.push(Input::Checked { run, what, result: Err(e) });
        }
    }

    pub fn check_end(&mut self, ctx: &mut Ctx<'_>, run: RunId, what: Duty) {
        if what == Duty::Health {
            self.dials.end(ctx, run);
        }
        self.command_end(ctx, run, Purpose::Check(what));
    }

    pub(super) fn checks_end(&mut self, ctx: &mut Ctx<'_>, run: RunId) {
        for what in [Duty::Health, Duty::Reload, Duty::Stop] {
            self.check_end(ctx, run, what);
        }
    }

    /// The connection of a health check is ready.
    pub fn dialled(&mut self, ctx: &mut Ctx<'_>, run: RunId, inputs: &mut Vec<Input>) {
        if let Some(result) = self.dials.ready(ctx, run) {
            inputs.push(Input::Checked { run, what: Duty::Health, result });
        }
    }

    /// Something was written to the ready pipe of a service.
    pub fn ready_written(&mut self, service: &str, inputs: &mut Vec<Input>) {
        if let Some(run) = self.pipes.readable(service) {
            inputs.push(Input::ReadySeen { run });
        }
    }

    /// Whether a run that has ended has said in its ready pipe that it is ready.
    pub fn said_ready(&mut self, service: &str, run: RunId) -> Option<Input> {
        self.pipes.readable(service).filter(|r| *r == run).map(|run| Input::ReadySeen { run })
    }

    /// Takes back the ready pipe that the keeper held under `ready_label`.
    ///
    /// # Errors
    /// What the selector answers.
    pub fn restore_ready(&mut self, ctx: &mut Ctx<'_>, service: &Arc<str>, fds: Vec<OwnedFd>) -> io::Result<()> {
        self.pipes.restore(ctx, service, fds)
    }

    /// The descriptor of a connection attempt is ready.
    pub fn probed(&mut self, ctx: &mut Ctx<'_>, run: RunId, inputs: &mut Vec<Input>) {
        if self.probes.ready(ctx, run) {
            inputs.push(Input::ReadySeen { run });
        }
    }
}
