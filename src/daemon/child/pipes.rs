//! The ready pipes of services, as s6 has them: a line written to one says that the service is ready. One a service,
//! kept over its runs and over daemons (the keeper holds both ends).
//!
//! A line stays in the pipe until its readiness is on record (`end`), so that it outlives a daemon that dies before.

use super::Ctx;
use crate::base::ids::RunId;
use crate::base::map::Map;
use crate::daemon::source::Source;
use crate::sys::pipe;
use mio::{Interest, Token};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

/// What the keeper knows the pipe of a service by.
#[must_use]
pub fn label(service: &str) -> String {
    format!("ready/{service}")
}

/// A line that is longer counts as none.
const LINE_MAX: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct Pipes {
    open: Map<Arc<str>, Pipe>,
}

#[derive(Debug)]
struct Pipe {
    read: OwnedFd,
    write: Arc<OwnedFd>,
    token: Token,
    /// The run whose line is waited for.
    awaited: Option<RunId>,
}

impl Pipes {
    /// The write end of an empty pipe, which is made unless it is there, with the keeper holding it.
    pub(super) fn ensure(&mut self, ctx: &mut Ctx<'_>, service: &Arc<str>) -> io::Result<Arc<OwnedFd>> {
        if !self.open.contains_key(service) {
            let (read, write) = pipe::output()?;
            ctx.link.hold(&label(service), &[read.as_fd(), write.as_fd()])?;
            self.add(ctx, service, read, write)?;
        }
        self.drain(service);
        let pipe = self.open.get(service).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::clone(&pipe.write))
    }

    /// Takes back the pipe that the keeper held while there was no daemon.
    pub(super) fn restore(&mut self, ctx: &mut Ctx<'_>, service: &Arc<str>, fds: Vec<OwnedFd>) -> io::Result<()> {
        let [read, write] =
            <[OwnedFd; 2]>::try_from(fds).map_err(|_| io::Error::other("not the two ends of a pipe"))?;
        self.add(ctx, service, read, write)
    }

    fn add(&mut self, ctx: &mut Ctx<'_>, service: &Arc<str>, read: OwnedFd, write: OwnedFd) -> io::Result<()> {
        let source = Source::Ready(Arc::clone(service));
        let token = ctx.sources.add(ctx.registry, read.as_raw_fd(), Interest::READABLE, source)?;
        self.open.insert(Arc::clone(service), Pipe { read, write: Arc::new(write), token, awaited: None });
        Ok(())
    }

    /// The service is gone for good.
    pub(super) fn remove(&mut self, ctx: &mut Ctx<'_>, service: &str) {
        if let Some(pipe) = self.open.remove(service) {
            ctx.sources.remove(ctx.registry, pipe.read.as_raw_fd(), pipe.token);
            ctx.link.release(&label(service));
        }
    }

    /// Waits for the line of a run. Answers whether it is there.
    pub(super) fn begin(&mut self, service: &str, run: RunId) -> bool {
        let Some(pipe) = self.open.get_mut(service) else { return false };
        pipe.awaited = Some(run);
        pipe.has_line()
    }

    /// The run is ready, on record, or not waited for any more.
    pub(super) fn end(&mut self, service: &str, run: RunId) {
        if let Some(pipe) = self.open.get_mut(service)
            && pipe.awaited == Some(run)
        {
            pipe.awaited = None;
            pipe.drain();
        }
    }

    /// Something was written. Answers the run that is ready by it.
    pub(super) fn readable(&mut self, service: &str) -> Option<RunId> {
        let pipe = self.open.get_mut(service)?;
        if pipe.awaited.is_none() {
            // Nobody may be held up by writing more than one line.
            pipe.drain();
        }
        pipe.awaited.filter(|_| pipe.has_line())
    }

    /// Empties the pipe, so that nothing of an earlier run is taken for the next one's line.
    pub(super) fn drain(&self, service: &str) {
        if let Some(pipe) = self.open.get(service) {
            pipe.drain();
        }
    }
}

impl Pipe {
    /// Whether a whole line lies in the pipe, which stays there. Where the system cannot look without taking, it is
    /// taken.
    fn has_line(&self) -> bool {
        let mut text = [0; LINE_MAX];
        let copied = pipe::inner(LINE_MAX).and_then(|(read, write)| {
            pipe::peek(&self.read, &write, LINE_MAX)?;
            pipe::read(&read, &mut text)
        });
        let length = match copied {
            Err(e) if e.kind() == io::ErrorKind::Unsupported => pipe::read(&self.read, &mut text).unwrap_or(0),
            other => other.unwrap_or(0),
        };
        let found = text.get(..length).unwrap_or_default().contains(&b'\n');
        if !found && length == LINE_MAX {
            self.drain();
        }
        found
    }

    fn drain(&self) {
        let mut waste = [0; LINE_MAX];
        // Bounded, because a writer may be as quick as this; the next writing wakes the loop again.
        for _ in 0..64 {
            if !matches!(pipe::read(&self.read, &mut waste), Ok(n) if n > 0) {
                return;
            }
        }
    }
}
