//! What a service has beside its pipe when its lines are processed: hoards, secrets, a second pipe. Made when its
//! settings ask for it, held by the keeper, and found again by the next daemon.

use super::lines::hoard::{Hoard, Page, Safe};
use super::lines::shape::Settings;
use super::lines::{Lines, Secrets};
use super::source::{Order, Source};
use super::{Capture, Host, OUT, Service, lock};
use crate::base::time::Now;
use crate::config::spec::{Level, ServiceSpec, Streams};
use crate::sys::{memfile, pipe};
use mio::Token;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex};

#[derive(Debug)]
pub(super) struct ByLine {
    pub(super) hoard: File,
    pub(super) secrets: Arc<Secrets>,
    pub(super) second: Option<Second>,
}

/// The pipe for standard error, where it has one of its own.
#[derive(Debug)]
pub(super) struct Second {
    pub(super) source: Arc<Source>,
    pub(super) write: Arc<OwnedFd>,
    pub(super) hoard: File,
    pub(super) token: Option<Token>,
}

impl Service {
    /// Whether it is the pipe of a task that has written nothing at all.
    pub(super) fn is_silent(&self) -> bool {
        self.silent && self.by_line.is_none() && pipe::waiting(&self.source.read).is_ok_and(|n| n == 0)
    }

    /// Everything that the keeper is to hold of it.
    pub(super) fn fds(&self) -> Vec<BorrowedFd<'_>> {
        let mut fds = vec![self.source.read.as_fd(), self.write.as_fd()];
        if let Some(apart) = &self.apart {
            fds.extend([apart.source.read.as_fd(), apart.write.as_fd()]);
        }
        if let Some(by_line) = &self.by_line {
            fds.push(by_line.hoard.as_fd());
            if let Some(second) = &by_line.second {
                fds.extend([second.source.read.as_fd(), second.write.as_fd(), second.hoard.as_fd()]);
            }
        }
        fds
    }

    pub(super) fn second(&mut self) -> Option<&mut Second> {
        self.by_line.as_mut()?.second.as_mut()
    }
}

impl Capture {
    /// The lines of a service, with what an earlier daemon has left of them.
    pub(super) fn adopt_lines(&mut self, name: &Arc<str>, hoard: File, second: [Option<OwnedFd>; 3]) {
        let Some(service) = self.services.get_mut(name) else { return };
        let Ok((mut lines, secrets)) = lines_of(&hoard) else { return };
        let mut by_line = Box::new(ByLine { hoard, secrets, second: None });
        if let [Some(read), Some(write), Some(hoard)] = second {
            let source = Arc::new(Source::new(Arc::clone(name), read));
            let hoard = File::from(hoard);
            if let Ok(raw) = hoard.try_clone().and_then(|h| Hoard::new(h.into())) {
                lines.split(Arc::clone(&source), raw);
                by_line.second = Some(Second { source, write: Arc::new(write), hoard, token: None });
            }
        }
        lock(&service.writer).process(Arc::new(Mutex::new(lines)));
        service.by_line = Some(by_line);
    }

    /// Gives a service what its settings need, and tells them to the lane.
    pub(super) fn equip(
        &mut self,
        name: &str,
        spec: &ServiceSpec,
        start: bool,
        host: &mut impl Host,
    ) -> io::Result<()> {
        let Some(service) = self.services.get_mut(name) else { return Ok(()) };
        // That of the command hob is run for passes through byte for byte.
        let by_line = processes_lines(spec) && service.apart.is_none();
        let before = (service.by_line.is_some(), service.second().is_some());
        if by_line && service.by_line.is_none() {
            let hoard = memfile::create()?;
            let settings = Settings { timestamps: spec.log.timestamps, rate: spec.log.rate };
            Hoard::new(hoard.try_clone()?.into())?.set_page(&Page { settings, fresh: true, ..Page::default() })?;
            let (_, secrets) = lines_of(&hoard)?;
            service.by_line = Some(Box::new(ByLine { hoard, secrets, second: None }));
        }
        let split = start && spec.log.streams == Streams::Split;
        if let Some(lines) = service.by_line.as_mut().filter(|l| split && l.second.is_none()) {
            let (read, write) = pipe::output()?;
            let source = Arc::new(Source::new(Arc::clone(&service.source.name), read));
            lines.second = Some(Second { source, write: Arc::new(write), hoard: memfile::create()?, token: None });
        }
        if before != (service.by_line.is_some(), service.second().is_some()) {
            let held = host.hold(&format!("{OUT}{name}"), &service.fds());
            let done = held.and_then(|()| take_up(service, before, host));
            if let Err(e) = done {
                // What the keeper does not hold is not used.
                if !before.0 {
                    service.by_line = None;
                } else if let Some(lines) = service.by_line.as_mut().filter(|_| !before.1) {
                    lines.second = None;
                }
                return Err(e);
            }
        }
        service.source.order(Order::Spec { log: spec.log.clone(), by_line });
        Ok(())
    }

    /// New log settings. Streams are split, or not, with the next start.
    pub fn spec(&mut self, name: &str, spec: &ServiceSpec, now: Now, host: &mut impl Host) {
        if let Err(e) = self.equip(name, spec, false, host) {
            host.log(Level::Error, format!("the new log settings of {name} take effect with its next start: {e}"));
            return;
        }
        if let Some(name) = self.services.get(name).map(|s| Arc::clone(&s.source.name)) {
            self.enqueue(&name);
            self.pump(now, host);
        }
    }

    /// Where the secrets of a service are learnt, for a run that is about to be started.
    #[must_use]
    pub fn secrets(&self, name: &str) -> Option<Arc<Secrets>> {
        Some(Arc::clone(&self.services.get(name)?.by_line.as_ref()?.secrets))
    }
}

/// Whether the bytes as they come are not enough.
pub(super) fn processes_lines(spec: &ServiceSpec) -> bool {
    let log = &spec.log;
    log.timestamps || log.rate.is_some() || log.streams == Streams::Split || !spec.secrets.is_empty()
}

/// Lines over a hoard, with the secrets in it.
fn lines_of(hoard: &File) -> io::Result<(Lines, Arc<Secrets>)> {
    let secrets = Arc::new(Secrets::new(Safe::new(hoard.try_clone()?)));
    let raw = Hoard::new(hoard.try_clone()?.into())?;
    Ok((Lines::new(raw, Arc::clone(&secrets)), secrets))
}

/// Puts into use what was made for a service and is held: `before` says whether it had lines and a second stream.
fn take_up(service: &mut Service, before: (bool, bool), host: &mut impl Host) -> io::Result<()> {
    let name = Arc::clone(&service.source.name);
    let Some(by_line) = &mut service.by_line else { return Ok(()) };
    let mut orders = Vec::new();
    if !before.0 {
        let lines = Lines::new(Hoard::new(by_line.hoard.try_clone()?.into())?, Arc::clone(&by_line.secrets));
        orders.push(Order::Lines(Arc::new(Mutex::new(lines))));
    }
    if let Some(second) = by_line.second.as_mut().filter(|_| !before.1) {
        let hoard = Hoard::new(second.hoard.try_clone()?.into())?;
        second.token = Some(host.watch(&name, second.source.read.as_fd())?);
        orders.push(Order::Split { source: Arc::clone(&second.source), hoard });
    }
    for order in orders {
        service.source.order(order);
    }
    Ok(())
}
