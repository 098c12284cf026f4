//! `hob run -- CMD`: what the command writes also goes to hob's own stdout. A thread copies it from the log file by
//! plain blocking writes; capture takes no more from the pipe while it is far behind, so that the command waits as on a
//! pipe.

use super::desk::Words;
use super::tail::{Cursor, Part, Share};
use crate::base::time::Mono;
use crate::sys::logfile;
use core::time::Duration;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};

/// Written at once: after a daemon's death so much at most appears twice.
const CHUNK: usize = 64 * 1024;
/// How long the thread waits before it looks whether it is to end.
const LOOK: Duration = Duration::from_secs(3600);

/// The copying thread.
pub struct Copy {
    share: Arc<Share>,
    words: Arc<dyn Words>,
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    /// End as soon as all that is on file was copied.
    quit: AtomicBool,
    ended: AtomicBool,
}

impl core::fmt::Debug for Copy {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Copy").field("copied", &self.words.copied()).finish_non_exhaustive()
    }
}

impl Copy {
    /// Copies this log to `to` from where the table says an earlier daemon came to. `came_on` is called from the thread
    /// after each chunk, for `Capture::caught_up`.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(
        share: Arc<Share>,
        words: Arc<dyn Words>,
        to: OwnedFd,
        came_on: impl Fn() + Send + 'static,
    ) -> io::Result<Copy> {
        let state = Arc::new(State::default());
        let thread = {
            let (share, words, state) = (Arc::clone(&share), Arc::clone(&words), Arc::clone(&state));
            Builder::new().name("hob-copy".into()).stack_size(128 * 1024).spawn(move || {
                if run(&share, words.as_ref(), to, &state, &came_on).is_err() {
                    // Nobody reads any more: the command need not wait for it.
                    words.set_copied(u64::MAX);
                    came_on();
                }
                state.ended.store(true, Ordering::Release);
            })?
        };
        Ok(Copy { share, words, state, thread: Some(thread) })
    }

    /// Waits until all that is on file was copied, but no longer than `limit`. False when something is left.
    pub fn finish(&mut self, limit: Duration, clock: impl Fn() -> Mono) -> bool {
        self.state.quit.store(true, Ordering::Release);
        let until = clock() + limit;
        while !self.state.ended.load(Ordering::Acquire) {
            if clock() >= until {
                return false;
            }
            self.share.wake();
            std::thread::sleep(Duration::from_millis(1));
        }
        self.thread.take().is_none_or(|thread| thread.join().is_ok())
    }
}

/// Copies until it is told to quit and nothing is left; an error means that nobody reads.
fn run(share: &Share, words: &dyn Words, to: OwnedFd, state: &State, came_on: &dyn Fn()) -> io::Result<()> {
    let mut to = File::from(to);
    let mut cursor: Option<Cursor> = None;
    loop {
        let mark = words.copied();
        if mark == u64::MAX {
            return Ok(());
        }
        // The writer of the log sets the first mark when it opens the file.
        let cursor = match (&mut cursor, mark.checked_sub(1)) {
            (Some(cursor), _) => cursor,
            (None, Some(position)) => cursor.insert(Cursor::new(position)),
            (None, None) if state.quit.load(Ordering::Acquire) => return Ok(()),
            (None, None) => {
                share.wait(u64::MAX, LOOK);
                continue;
            }
        };
        match share.read(cursor, u64::MAX, CHUNK) {
            Ok(Part::Bytes(bytes)) => {
                let mut position = cursor.position - bytes.len() as u64;
                let mut rest = bytes.as_slice();
                while !rest.is_empty() {
                    let n = write(&mut to, rest)?;
                    rest = rest.get(n..).unwrap_or_default();
                    position += n as u64;
                    words.set_copied(position + 1);
                }
            }
            Ok(Part::Gap(_)) => words.set_copied(cursor.position + 1),
            Ok(Part::End) if state.quit.load(Ordering::Acquire) => return Ok(()),
            Ok(Part::End) => share.wait(cursor.position, LOOK),
            // A log that cannot be read must not stop the command.
            Err(e) => return Err(e),
        }
        if share.take_held_back() {
            came_on();
        }
    }
}

/// One write, which waits also where somebody made stdout non-blocking.
fn write(to: &mut File, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match to.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                logfile::writable(to.as_fd(), Duration::from_secs(1))?;
            }
            other => return other,
        }
    }
}
