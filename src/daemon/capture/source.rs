//! The pipe that a service writes to, as the loop and the lane of files see it together.
//!
//! Whatever refers to a place in the stream ("here the run began") is a count of bytes taken from the pipe since this
//! daemon has it. The count and the pipe change together under one lock, which is held for no longer than a move from
//! pipe to pipe.

use super::lines::Lines;
use super::lines::hoard::Hoard;
use super::zip::Step;
use crate::base::hash::{FNV, fnv};
use crate::base::ids::{ReqId, RunId};
use crate::config::spec::LogSpec;
use crate::sys::pipe;
use regex_lite::Regex;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A place in the stream that means something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// The output of this run begins.
    Start(RunId),
    /// What lay in the pipe when this run's main process ended is passed.
    End(RunId),
}

/// What the loop wants of the lane, other than to move bytes.
#[derive(Debug)]
pub enum Order {
    /// Match the run's output, from its first byte on.
    Await {
        run: RunId,
        pattern: Regex,
    },
    AwaitEnd(RunId),
    /// New settings, and whether they need lines to be processed.
    Spec {
        log: LogSpec,
        by_line: bool,
    },
    /// Process lines.
    Lines(Arc<Mutex<Lines>>),
    /// Take from the pipe of standard error as well.
    Apart(Arc<Source>),
    /// Process a second stream as well.
    Split {
        source: Arc<Source>,
        hoard: Hoard,
    },
    /// The compression of an old file has ended.
    Zipped(Step),
    /// Nothing more is expected: no line is waited for any more.
    Finish,
    /// Begin a new file, answered by a fact.
    Rotate(ReqId),
}

#[derive(Debug, Default)]
struct Flow {
    taken: u64,
    points: VecDeque<(u64, Point)>,
    orders: Vec<Order>,
}

/// The read end of a service's pipe with the points and orders that wait.
#[derive(Debug)]
pub struct Source {
    pub name: Arc<str>,
    /// The name in a word of the run table: whose bytes lie in the transfer pipe.
    pub hash: u64,
    pub read: OwnedFd,
    flow: Mutex<Flow>,
}

/// What came of taking bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// So many were moved; `all` when nothing was left behind.
    Some {
        bytes: usize,
        all: bool,
    },
    Nothing,
}

impl Source {
    #[must_use]
    pub fn new(name: Arc<str>, read: OwnedFd) -> Source {
        Source { hash: hash(&name), name, read, flow: Mutex::default() }
    }

    /// The pipe of standard error alone, of the service of this name.
    #[must_use]
    pub fn of_errors(name: Arc<str>, read: OwnedFd) -> Source {
        Source { hash: hash(&format!("{name}/err")), ..Source::new(name, read) }
    }

    /// Nobody wants what comes here any more: its writer is told as by any pipe, and what lies in it is dropped. The
    /// selector must not know the pipe.
    ///
    /// # Errors
    /// As for `pipe::hang_up`.
    pub fn hang_up(&self) -> io::Result<()> {
        let mut flow = self.lock();
        pipe::hang_up(&self.read)?;
        let taken = flow.taken;
        flow.points.iter_mut().for_each(|(at, _)| *at = taken.min(*at));
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Flow> {
        self.flow.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Marks the place behind what lies in the pipe now.
    pub fn mark(&self, point: Point) {
        let mut flow = self.lock();
        // A pipe that cannot be asked has nothing in it that could be waited for.
        let waiting = pipe::waiting(&self.read).unwrap_or(0);
        let at = flow.taken + waiting as u64;
        flow.points.push_back((at, point));
    }

    /// Whether a point has been passed. Not while an order waits: it may be about the output before that point.
    #[must_use]
    pub fn due(&self) -> bool {
        let flow = self.lock();
        flow.orders.is_empty() && flow.points.front().is_some_and(|(at, _)| *at <= flow.taken)
    }

    /// The next point that is `due`.
    #[must_use]
    pub fn passed(&self) -> Option<Point> {
        let mut flow = self.lock();
        let (at, point) = *flow.points.front()?;
        if at > flow.taken || !flow.orders.is_empty() {
            return None;
        }
        flow.points.pop_front();
        if flow.points.is_empty() {
            // There are as many of these as services, and points are rare.
            flow.points = VecDeque::new();
        }
        Some(point)
    }

    /// Whether the beginning of this run's output is still to come.
    #[must_use]
    pub fn to_come(&self, run: RunId) -> bool {
        self.lock().points.iter().any(|(_, point)| *point == Point::Start(run))
    }

    pub fn order(&self, order: Order) {
        self.lock().orders.push(order);
    }

    #[must_use]
    pub fn orders(&self) -> Vec<Order> {
        core::mem::take(&mut self.lock().orders)
    }

    /// Whether points or orders wait for the lane.
    #[must_use]
    pub fn wanted(&self) -> bool {
        let flow = self.lock();
        !flow.points.is_empty() || !flow.orders.is_empty()
    }

    /// Moves up to `limit` bytes to an empty pipe, and not beyond the next point.
    ///
    /// # Errors
    /// What splice(2) answers, other than that there is nothing.
    pub fn take(&self, to: &OwnedFd, limit: usize) -> io::Result<Taken> {
        self.take_by(limit, |from, limit| pipe::shift(from, to, limit))
    }

    /// The same to a file, at this offset.
    ///
    /// # Errors
    /// As for `take`.
    pub fn take_into(&self, file: BorrowedFd<'_>, offset: u64, limit: usize) -> io::Result<Taken> {
        self.take_by(limit, |from, limit| pipe::store(from, file, offset, limit))
    }

    fn take_by(&self, limit: usize, take: impl FnOnce(&OwnedFd, usize) -> io::Result<usize>) -> io::Result<Taken> {
        let mut flow = self.lock();
        let free = flow.points.front().map(|(at, _)| usize::try_from(at - flow.taken).unwrap_or(usize::MAX));
        let limit = free.map_or(limit, |free| free.min(limit));
        if limit == 0 {
            return Ok(Taken::Nothing);
        }
        match take(&self.read, limit) {
            Ok(0) => Ok(Taken::Nothing),
            Ok(bytes) => {
                flow.taken += bytes as u64;
                Ok(Taken::Some { bytes, all: bytes < limit })
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock) => Ok(Taken::Nothing),
            Err(e) if matches!(e.kind(), io::ErrorKind::Interrupted) => Ok(Taken::Some { bytes: 0, all: false }),
            Err(e) => Err(e),
        }
    }
}

/// Never zero, which means nobody.
#[must_use]
pub fn hash(name: &str) -> u64 {
    fnv(FNV, name.as_bytes()).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Write;

    #[test]
    fn bytes_are_not_taken_beyond_a_point() {
        let (read, write) = pipe::output().unwrap();
        let (_tr, tw) = pipe::inner(65536).unwrap();
        let mut write = File::from(write);
        let s = Source::new("a".into(), read);
        s.mark(Point::Start(RunId(1)));
        assert!(s.to_come(RunId(1)));
        assert_eq!(s.passed(), Some(Point::Start(RunId(1))));
        write.write_all(b"12345").unwrap();
        s.mark(Point::End(RunId(1)));
        s.mark(Point::Start(RunId(2)));
        write.write_all(b"678").unwrap();
        assert_eq!(s.passed(), None);
        assert_eq!(s.take(&tw, 100).unwrap(), Taken::Some { bytes: 5, all: false });
        assert_eq!(s.passed(), Some(Point::End(RunId(1))));
        assert_eq!(s.passed(), Some(Point::Start(RunId(2))));
        assert_eq!(s.take(&tw, 100).unwrap(), Taken::Some { bytes: 3, all: true });
        assert_eq!(s.take(&tw, 100).unwrap(), Taken::Nothing);
    }

    #[test]
    fn no_point_is_passed_before_an_order_that_was_given_earlier() {
        let (read, _write) = pipe::output().unwrap();
        let s = Source::new("a".into(), read);
        s.order(Order::AwaitEnd(RunId(1)));
        s.mark(Point::End(RunId(1)));
        assert!(!s.due() && s.passed().is_none());
        assert_eq!(s.orders().len(), 1);
        assert!(s.due());
        assert_eq!(s.passed(), Some(Point::End(RunId(1))));
    }

    #[test]
    fn nobody_hashes_to_nobody() {
        assert_eq!(hash("a"), 0xaf63_dc4c_8601_ec8c);
        assert_ne!(hash(""), 0);
    }
}
