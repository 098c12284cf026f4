//! The end of a daemon: with hob, or for the next one. Writes what is still to be written, and tells the keeper.

use crate::base::control::{ToDaemon, ToKeeper};
use crate::config::Level;
use crate::daemon::gear::Job;
use crate::daemon::link::Link;
use crate::daemon::{Daemon, Ending};
use crate::sys;
use core::time::Duration;
use std::os::fd::AsFd;

/// How long the end of hob waits for output that still lies in pipes, for its copy, for the disk, and for threads,
/// each.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// The keeper waits so long for a hob that ends with its command: its last output may wait for a reader who takes a
/// rest. Whoever asks hob to stop meanwhile ends that.
pub(in crate::daemon) const OWN_END: Duration = Duration::from_secs(366 * 24 * 3600);
/// Between two looks whether somebody asks.
const LOOK: Duration = Duration::from_millis(100);

/// More bytes than a pid file has.
const PID_MAX: u64 = 64;

impl Daemon {
    /// Does what an ending asks for; answers the exit code of this process.
    pub(in crate::daemon) fn end(&mut self, ending: Ending) -> u8 {
        match ending {
            Ending::Hob(code) => {
                self.finish(code);
                code
            }
            Ending::Upgrade(program) => {
                self.leave(|link| {
                    link.flush_within(LAST_WORDS);
                    // When even that fails, the next daemon is one of this program, and the request is made anew.
                    let _ = link.upgrade(program.as_fd());
                });
                0
            }
            Ending::Again { stop } => {
                self.leave(|link| link.say(&ToKeeper::Again { stop }));
                0
            }
        }
    }

    /// The end of this daemon alone: everything that was accepted is written and told, and the keeper hears how to go
    /// on. Jobs, pipes and the socket are left to the next one.
    fn leave(&mut self, tell: impl FnOnce(&mut Link)) {
        self.settle_disk();
        self.end_turn();
        self.gear.log.finish(sys::clock::now().mono);
        self.gear.pool.quit(LAST_WORDS);
        if let Some(copy) = &mut self.copy {
            // The log grows no more, so that this ends, and nothing is heard twice.
            copy.finish(LAST_WORDS, || sys::clock::now().mono);
        }
        self.life.marks.leave();
        tell(&mut self.gear.link);
        self.gear.link.flush_within(LAST_WORDS);
    }

    /// The end: everything that was accepted is written, told and closed; the lock goes with the process.
    fn finish(&mut self, code: u8) {
        if !self.capture.flush(LAST_WORDS, sys::clock::now) {
            self.gear.log(Level::Warn, "some output of services was still on its way to its file");
        }
        self.settle_disk();
        self.finish_copy();
        self.end_turn();
        self.children.close(&mut self.gear.ctx());
        self.hand_out();
        // A socket that was given is of whoever gave it.
        let socket = Some(&self.paths.socket).filter(|_| !self.own.given);
        for path in socket.into_iter().chain([&self.paths.heartbeat]) {
            if let Err(e) = sys::file::remove(path) {
                self.gear.log(Level::Warn, format!("cannot remove {}: {e}", path.display()));
            }
        }
        self.gear.log(Level::Info, "hob has ended");
        self.gear.log.finish(sys::clock::now().mono);
        self.gear.pool.quit(LAST_WORDS);
        self.gear.link.say(&ToKeeper::Done { code });
        self.gear.link.flush_within(LAST_WORDS);
        // It may also have died while the last output was waited for.
        while self.gear.link.recv().is_some() {}
        if self.gear.link.gone() {
            self.clear_for_keeper();
        }
    }

    /// Removes what the keeper would have removed.
    fn clear_for_keeper(&self) {
        let pid = format!("{}\n", self.children.setup().keeper);
        if sys::file::read_whole(&self.paths.pid, PID_MAX).is_ok_and(|text| text == pid.as_bytes()) {
            let _ = sys::file::remove(&self.paths.pid);
        }
        if let Some(folder) = &self.life.remove {
            // What is left of it is of no use to anybody.
            let _ = std::fs::remove_dir_all(folder);
        }
    }

    /// What the command has written is passed on as long as somebody may read it, as if it were its own pipe. Where hob
    /// was asked to stop, that is no reason to go on.
    fn finish_copy(&mut self) {
        let Some(mut copy) = self.copy.take() else { return };
        let mut limit = LAST_WORDS;
        while !copy.finish(limit, || sys::clock::now().mono) && self.own_end && !self.asked_to_end() {
            limit = LOOK;
        }
    }

    /// Hears what there is to hear meanwhile.
    fn asked_to_end(&mut self) -> bool {
        use signal_hook::consts::{SIGINT, SIGTERM};
        let mut asked = self.signals.pending().any(|signal| [SIGINT, SIGTERM].contains(&signal));
        while let Some(message) = self.gear.link.recv() {
            match message {
                ToDaemon::Stop { .. } => asked = true,
                ToDaemon::Ask => self.gear.link.beat(self.life.heartbeat),
                _ => {}
            }
        }
        // What the copy had to say, and what was said before.
        self.gear.now = sys::clock::now();
        self.pool_results();
        self.end_turn();
        asked || self.gear.link.gone()
    }

    /// Waits a bounded time until replies that promise durability can go out.
    fn settle_disk(&mut self) {
        let until = sys::clock::now().mono + LAST_WORDS;
        let mut events = mio::Events::with_capacity(8);
        while !self.held.is_empty() && sys::clock::now().mono < until {
            self.journal.request_sync(&mut self.gear.pool, self.gear.now.mono, Job::Journal);
            let _ = self.gear.poll.poll(&mut events, Some(Duration::from_millis(50)));
            self.gear.now = sys::clock::now();
            self.pool_results();
            self.release();
        }
    }
}
