//! The command that hob is run for has a pipe for each of its streams where hob's own stdout and stderr lead to
//! different places, and its bytes pass through as they are. What the copy of its output tells ends here.

use super::copy::{CHUNK, Told, Way, Ways};
use super::equip::processes_lines;
use super::pace::unwatch;
use super::source::{Order, Source};
use super::{Capture, Host, OUT, Service};
use crate::base::time::Now;
use crate::config::spec::{Level, ServiceSpec};
use crate::sys::pipe;
use mio::Token;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// The label of the pipe that output takes on its way to hob's own streams.
pub(super) const BY: &str = "copy";

/// The pipe for standard error.
#[derive(Debug)]
pub(super) struct Apart {
    pub(super) source: Arc<Source>,
    pub(super) write: Arc<OwnedFd>,
    pub(super) token: Option<Token>,
}

impl Service {
    /// Whether bytes in the transfer pipe are of this service.
    pub(super) fn owns(&self, owner: u64) -> bool {
        self.source.hash == owner || self.apart.as_ref().is_some_and(|a| a.source.hash == owner)
    }
}

impl Capture {
    /// Prepares a way to hob's own streams, and tells those of the command apart where they are.
    ///
    /// # Errors
    /// What `Host::hold` answers; then bytes go without the pipe on the way.
    pub fn on_the_way(&mut self, ways: &mut Ways, host: &mut impl Host) -> io::Result<()> {
        self.streams = ways.err.is_some();
        if self.by.is_none() {
            let (read, write) = pipe::inner(CHUNK)?;
            host.hold(BY, &[read.as_fd(), write.as_fd()])?;
            self.by = Some((read, write));
        }
        ways.by = match &self.by {
            Some((read, write)) => Some((read.try_clone()?, write.try_clone()?)),
            None => None,
        };
        Ok(())
    }

    /// The pipe for standard error, as an earlier daemon had it.
    pub(super) fn adopt_apart(&mut self, name: &str, read: OwnedFd, write: OwnedFd) {
        if let Some(service) = self.services.get_mut(name) {
            let apart = Apart::new(Arc::clone(&service.source.name), read, write);
            service.source.order(Order::Apart(Arc::clone(&apart.source)));
            service.apart = Some(apart);
        }
    }

    /// Makes that pipe for the service whose streams are told apart.
    pub(super) fn part(&mut self, name: &Arc<str>, spec: &ServiceSpec, host: &mut impl Host) -> io::Result<()> {
        if !self.streams || self.copied.as_ref() != Some(name) || processes_lines(spec) {
            return Ok(());
        }
        let Some(service) = self.services.get_mut(name).filter(|s| s.apart.is_none() && s.by_line.is_none()) else {
            return Ok(());
        };
        let (read, write) = pipe::output()?;
        let apart = service.apart.insert(Apart::new(Arc::clone(name), read, write));
        let watched = host.watch(name, apart.source.read.as_fd()).map(|token| apart.token = Some(token));
        let held = watched.and_then(|()| host.hold(&format!("{OUT}{name}"), &service.fds()));
        match (held, service.apart.as_mut()) {
            (Ok(()), Some(apart)) => service.source.order(Order::Apart(Arc::clone(&apart.source))),
            (Ok(()), None) => {}
            (Err(e), apart) => {
                if let Some((apart, token)) = apart.and_then(|a| a.token.take().map(|token| (a, token))) {
                    host.unwatch(apart.source.read.as_fd(), token);
                }
                service.apart = None;
                return Err(e);
            }
        }
        Ok(())
    }

    /// Whether the output of this service comes out of hob itself.
    #[must_use]
    pub fn is_copied(&self, name: &str) -> bool {
        self.copied.as_deref() == Some(name)
    }

    /// What the copy to hob's own streams has to say.
    pub fn copy_told(&mut self, told: Told, now: Now, host: &mut impl Host) {
        let Some(name) = self.copied.clone() else { return };
        match told {
            Told::CameOn => {}
            Told::Trouble(text) => return host.log(Level::Warn, text),
            Told::Gone(way) => {
                let stream = way.name();
                host.log(
                    Level::Warn,
                    format!("nobody reads hob's {stream} any more, so {name} has a broken pipe there"),
                );
                if let Err(e) = self.hang_up(&name, way, host) {
                    host.log(Level::Error, format!("{name} cannot be told that nobody reads its {stream}: {e}"));
                }
            }
        }
        self.enqueue(&name);
        self.pump(now, host);
    }

    /// Whoever writes to this stream of a service is told that nobody reads.
    fn hang_up(&mut self, name: &str, way: Way, host: &mut impl Host) -> io::Result<()> {
        let Some(service) = self.services.get_mut(name) else { return Ok(()) };
        unwatch(service, host);
        match &service.apart {
            Some(apart) if way == Way::Err => apart.source.hang_up()?,
            _ => service.source.hang_up()?,
        }
        host.hold(&format!("{OUT}{name}"), &service.fds())
    }
}

impl Apart {
    fn new(name: Arc<str>, read: OwnedFd, write: OwnedFd) -> Apart {
        Apart { source: Arc::new(Source::of_errors(name, read)), write: Arc::new(write), token: None }
    }
}
