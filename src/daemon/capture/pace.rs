//! When a service's pipe is looked at: on the selector's word, or by the clock while it writes many small pieces.

use super::lane::Outcome;
use super::{Capture, Host, Place, Service};
use crate::base::time::{Mono, Now};
use crate::config::Level;
use crate::sys::pipe;
use core::time::Duration;
use std::os::fd::AsFd;
use std::sync::Arc;

/// Two turns closer than this make a service one that is looked at by the clock.
const BUSY: Duration = Duration::from_millis(2);
/// How long its output may lie in the pipe then.
pub(super) const DELAY_MIN: Duration = Duration::from_millis(1);
const DELAY_MAX: Duration = Duration::from_millis(8);
/// Capacity of a pipe, of one that is always found full, and how many may be that large (a user has 64 MiB for all).
pub(super) const PIPE: usize = 64 * 1024;
const PIPE_LARGE: usize = 1024 * 1024;
const LARGE_MAX: usize = 16;

impl Capture {
    /// Decides when a service is looked at next.
    pub(super) fn after(&mut self, name: &Arc<str>, outcome: &Outcome, now: Now, host: &mut impl Host) {
        let Some(service) = self.services.get_mut(name) else { return };
        service.place = Place::Idle;
        let fresh = core::mem::take(&mut service.fresh);
        let busy = service.token.is_none() || now.mono.since(service.last) < BUSY;
        service.last = now.mono;
        if let Some(at) = outcome.wake {
            service.wake = Some(at);
            self.wakes.insert((at, Arc::clone(name)));
        }
        if outcome.again || (fresh && service.source.wanted()) {
            self.enqueue(name);
        } else if outcome.held_back {
            // `caught_up` goes on.
        } else if outcome.drained && outcome.moved == 0 && !fresh {
            if service.removed {
                self.remove(name, host);
            } else if service.token.is_none() {
                self.settle(name);
                self.watch(name, host);
            }
        } else if outcome.moved >= service.capacity / 2 {
            self.enlarge(name);
            self.enqueue(name);
        } else if busy || !outcome.drained || service.removed {
            self.poll(name, outcome.moved, now, host);
        } else if fresh {
            self.enqueue(name);
        }
    }

    /// From now on the clock says when to look.
    fn poll(&mut self, name: &Arc<str>, moved: usize, now: Now, host: &mut impl Host) {
        let Some(service) = self.services.get_mut(name) else { return };
        unwatch(service, host);
        let at = now.mono + service.delay;
        service.poll = Some(at);
        let less = moved >= service.capacity / 8;
        service.delay = if less { (service.delay / 2).max(DELAY_MIN) } else { (service.delay * 2).min(DELAY_MAX) };
        self.polls.insert((at, Arc::clone(name)));
    }

    /// A pipe that is found full again and again gets larger, so that its writer waits less.
    fn enlarge(&mut self, name: &Arc<str>) {
        let Some(service) = self.services.get_mut(name) else { return };
        service.delay = DELAY_MIN;
        if service.capacity <= PIPE
            && self.large < LARGE_MAX
            && let Ok(capacity) = pipe::set_capacity(&service.source.read, PIPE_LARGE)
        {
            service.capacity = capacity;
            self.large += 1;
        }
    }

    fn settle(&mut self, name: &Arc<str>) {
        let Some(service) = self.services.get_mut(name) else { return };
        service.delay = DELAY_MIN;
        if service.capacity > PIPE
            && let Ok(capacity) = pipe::set_capacity(&service.source.read, PIPE)
        {
            service.capacity = capacity;
            self.large = self.large.saturating_sub(1);
        }
    }

    /// From now on the selector says when to look; it also tells of what lies there already.
    pub(super) fn watch(&mut self, name: &Arc<str>, host: &mut impl Host) {
        let Some(service) = self.services.get_mut(name) else { return };
        let mut watched = Ok(());
        if let Some(second) = service.second().filter(|s| s.token.is_none()) {
            watched = host.watch(name, second.source.read.as_fd()).map(|token| second.token = Some(token));
        }
        if let Some(apart) = service.apart.as_mut().filter(|a| a.token.is_none()) {
            watched = host.watch(name, apart.source.read.as_fd()).map(|token| apart.token = Some(token)).and(watched);
        }
        if service.token.is_none() {
            let first = host.watch(name, service.source.read.as_fd()).map(|token| service.token = Some(token));
            watched = first.and(watched);
        }
        match watched {
            Ok(()) => {}
            Err(e) => {
                host.log(Level::Error, format!("cannot watch the output of {name}, looking at it by the clock: {e}"));
                let at = service.last + Duration::from_secs(1);
                service.poll = Some(at);
                self.polls.insert((at, Arc::clone(name)));
            }
        }
    }

    /// When `due` is to be called.
    #[must_use]
    pub fn deadline(&self) -> Option<Mono> {
        let first = [self.polls.first(), self.wakes.first()];
        first.into_iter().flatten().map(|(at, _)| *at).min()
    }

    /// Looks at the pipes whose time has come.
    pub fn due(&mut self, now: Now, host: &mut impl Host) {
        while let Some((at, name)) = self.polls.first().filter(|(at, _)| *at <= now.mono).cloned() {
            self.polls.remove(&(at, Arc::clone(&name)));
            if let Some(service) = self.services.get_mut(&name) {
                service.poll = None;
            }
            self.enqueue(&name);
        }
        while let Some((at, name)) = self.wakes.first().filter(|(at, _)| *at <= now.mono).cloned() {
            self.wakes.remove(&(at, Arc::clone(&name)));
            if let Some(service) = self.services.get_mut(&name) {
                service.wake = None;
            }
            self.enqueue(&name);
        }
        self.pump(now, host);
    }
}

/// Stops listening to a service's pipes.
pub(super) fn unwatch(service: &mut Service, host: &mut impl Host) {
    if let Some(token) = service.token.take() {
        host.unwatch(service.source.read.as_fd(), token);
    }
    if let Some(apart) = &mut service.apart
        && let Some(token) = apart.token.take()
    {
        host.unwatch(apart.source.read.as_fd(), token);
    }
    if let Some(second) = service.second()
        && let Some(token) = second.token.take()
    {
        host.unwatch(second.source.read.as_fd(), token);
    }
}
