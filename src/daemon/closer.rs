//! Closes what may keep whoever closes it waiting, in threads made for it: descriptors that others have sent, and
//! sockets in which such descriptors may lie. The loop never closes these itself.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Builder;

const STACK: usize = 64 * 1024;

/// What no thread could be made for, until the next one can.
static LEFT: Mutex<Vec<Work>> = Mutex::new(Vec::new());

struct Work {
    act: Box<dyn FnOnce() + Send>,
    open: Arc<AtomicUsize>,
}

/// What one asks of the closer: each may have so much in the making.
#[derive(Clone, Debug, Default)]
pub(super) struct Closer {
    open: Arc<AtomicUsize>,
}

impl Closer {
    /// What it was given that is not closed yet.
    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    /// Closes descriptors.
    pub(super) fn close(&self, fds: Vec<OwnedFd>) {
        if !fds.is_empty() {
            self.run(Box::new(move || drop(fds)));
        }
    }

    /// Drops all that waits in a socket, then closes it, so that nobody else who has it has to.
    pub(super) fn drain(&self, socket: OwnedFd) {
        use std::os::fd::AsFd;
        self.run(Box::new(move || crate::sys::net::drain(socket.as_fd())));
    }

    fn run(&self, act: Box<dyn FnOnce() + Send>) {
        let mut left = LEFT.lock().unwrap_or_else(PoisonError::into_inner);
        self.open.fetch_add(1, Ordering::AcqRel);
        left.push(Work { act, open: Arc::clone(&self.open) });
        // A thread that cannot be made must not drop what it was to close.
        let _ = Builder::new().name("hob-close".into()).stack_size(STACK).spawn(work);
    }
}

fn work() {
    loop {
        let next = LEFT.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let Some(work) = next else { return };
        (work.act)();
        work.open.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::chan::Chan;
    use std::io::Read;
    use std::os::fd::AsFd;

    #[test]
    fn all_is_closed_in_the_end_with_what_lay_in_it() {
        let closer = Closer::default();
        let (mut reader, writer) = std::io::pipe().unwrap();
        let (a, b) = Chan::pair().unwrap();
        a.send(b"x", &[writer.as_fd()]).unwrap();
        let others = vec![closer.clone(); 9];
        assert_eq!(closer.open(), 0, "those who may ask are no work");
        closer.close(vec![writer.into()]);
        closer.close(Vec::new());
        closer.drain(b.into());
        assert_eq!(reader.read(&mut [0]).unwrap(), 0);
        drop(others);
        let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while closer.open() > 0 {
            assert!(std::time::Instant::now() < end);
            std::thread::yield_now();
        }
    }
}
