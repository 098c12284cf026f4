//! What the lane of files works with: the transfer pipe, the words that say whose bytes lie in it, and a place to look
//! at them.

use super::source::{Source, Taken};
use crate::base::limits::CAPTURE_TURN;
use crate::sys::pipe;
use crate::sys::table::RunTable;
use core::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Read at once where bytes are thrown away.
const PIECE: usize = 64 * 1024;

/// Words of the run table, which outlive the daemon.
pub trait Words: Send + Sync {
    /// Whose bytes lie in the transfer pipe, by `source::hash`; 0 when nobody's ever did.
    fn owner(&self) -> u64;
    fn set_owner(&self, hash: u64);
    /// How far the copy to hob's own stdout and stderr has come: one more than its position, and `copy::FILLING`; 0
    /// when it never began.
    fn copied(&self) -> u64;
    fn set_copied(&self, mark: u64);
    /// How much of the output of an owner was dropped and is not in its file yet.
    fn dropped(&self, owner: u64) -> u64;
    fn set_dropped(&self, owner: u64, bytes: u64);
}

impl Words for RunTable {
    fn owner(&self) -> u64 {
        self.capture_owner()
    }

    fn set_owner(&self, hash: u64) {
        self.set_capture_owner(hash);
    }

    fn copied(&self) -> u64 {
        self.capture_pos()
    }

    fn set_copied(&self, mark: u64) {
        self.set_capture_pos(mark);
    }

    fn dropped(&self, owner: u64) -> u64 {
        RunTable::dropped(self, owner)
    }

    fn set_dropped(&self, owner: u64, bytes: u64) {
        RunTable::set_dropped(self, owner, bytes);
    }
}

/// What the lane works with: the transfer pipe, and one more in which bytes are looked at.
pub struct Desk {
    read: OwnedFd,
    write: OwnedFd,
    look: Option<(File, OwnedFd)>,
    words: Arc<dyn Words>,
    seen: Vec<u8>,
    /// Bytes may lie in the transfer pipe that an earlier turn left there.
    pub(crate) unfinished: bool,
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk").field("unfinished", &self.unfinished).finish_non_exhaustive()
    }
}

impl Desk {
    /// A desk with this transfer pipe, in which the bytes of its owner may lie.
    #[must_use]
    pub fn new(read: OwnedFd, write: OwnedFd, words: Arc<dyn Words>) -> Desk {
        Desk { read, write, look: None, words, seen: Vec::new(), unfinished: true }
    }

    /// Whose bytes lie in the transfer pipe, and how many.
    pub(crate) fn content(&self) -> (u64, usize) {
        (self.words.owner(), pipe::waiting(&self.read).unwrap_or(0))
    }

    /// Where the bytes lie on their way to the file.
    pub(crate) fn content_pipe(&self) -> &OwnedFd {
        &self.read
    }

    /// Moves bytes from a service's pipe to the empty transfer pipe, after it was noted whose they are.
    ///
    /// # Errors
    /// As for `Source::take`.
    pub(crate) fn take(&self, source: &Source, limit: usize) -> io::Result<Taken> {
        self.words.set_owner(source.hash);
        source.take(&self.write, limit)
    }

    /// Takes bytes from the transfer pipe and forgets them.
    pub(crate) fn discard(&mut self, len: usize) {
        self.take_out(len, |_| {});
    }

    /// Takes bytes from the transfer pipe, piece by piece.
    pub(crate) fn take_out(&mut self, len: usize, mut each: impl FnMut(&[u8])) {
        let mut left = len;
        self.seen.resize(PIECE, 0);
        while left > 0 {
            let want = left.min(self.seen.len());
            match pipe::read(&self.read, &mut self.seen[..want]) {
                Ok(0) | Err(_) => break,
                Ok(n) => {
                    each(&self.seen[..n]);
                    left -= n;
                }
            }
        }
    }

    /// Up to `len` bytes of the transfer pipe, which stay there; `None` where the system cannot show them.
    pub(crate) fn peek(&mut self, len: usize) -> Option<&[u8]> {
        if self.look.is_none() {
            let (read, write) = pipe::inner(CAPTURE_TURN).ok()?;
            self.look = Some((File::from(read), write));
        }
        let (read, write) = self.look.as_mut()?;
        let n = pipe::peek(&self.read, write, len).ok()?;
        self.seen.resize(n, 0);
        match read.read_exact(&mut self.seen) {
            Ok(()) => Some(&self.seen),
            Err(_) => {
                // What may be left in there must not be taken for what comes next.
                self.look = None;
                None
            }
        }
    }
}
