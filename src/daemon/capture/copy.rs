//! `hob run -- CMD`: what the command writes also goes to hob's own stdout. A thread copies it from the log file by plain
//! blocking writes; capture takes no more from the pipe while it is far behind, so that the command waits as on a pipe.

use super::lane::Words;
use super::tail::{Cursor, Part, Share};
use crate::sys::logfile;
use core::time::Duration;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};

/// Written at once: after a daemon's death so much at most appears twice.
const CHUNK: usize = 16 * 1024;
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
    /// Copies this log to `to` from where the table says an earlier daemon came to. `came_on` is called from the thread after
    /// each chunk, for `Capture::caught_up`.
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
                run(&share, words.as_ref(), &to, &state, &came_on);
                // Nobody reads any more, or all is done: capture need not wait.
                words.set_copied(u64::MAX);
                state.ended.store(true, Ordering::Release);
                came_on();
                share.wake();
            })?
        };
        Ok(Copy { share, words, state, thread: Some(thread) })
    }

    /// Waits until all that is on file was copied, but no longer than `limit`. False when something is left.
    pub fn finish(&mut self, limit: Duration, clock: impl Fn() -> crate::base::time::Mono) -> bool {
        self.state.quit.store(true, Ordering::Release);
        self.share.wake();
        let until = clock() + limit;
        while !self.state.ended.load(Ordering::Acquire) {
            let left = until.since(clock());
            if left.is_zero() {
                return false;
            }
            self.share.wait(u64::MAX, left.min(Duration::from_millis(20)));
        }
        self.thread.take().is_none_or(|thread| thread.join().is_ok())
    }
}

fn run(share: &Share, words: &dyn Words, to: &OwnedFd, state: &State, came_on: &dyn Fn()) {
    // The writer of the log sets the first position when it opens the file.
    while words.copied() == 0 {
        if state.quit.load(Ordering::Acquire) {
            return;
        }
        share.wait_change(LOOK);
    }
}
