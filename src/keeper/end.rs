//! The end of hob: by the daemon's word, or by force where that does not come.

use super::{EXIT_FAILED, KILL_LIMIT, Keeper, RETRY};
use crate::base::log::Level;
use crate::base::time::Mono;
use crate::sys::file::lock::Lock;
use crate::sys::wait::{self, Adopted};
use crate::sys::{chan, clock, signals};
use std::os::fd::AsFd;

impl Keeper {
    /// Ends the runs that are not to outlive a daemon. The next one clears up after them; they are killed all the same
    /// where none comes up in time.
    pub(super) fn end_with_daemon(&mut self, now: Mono) {
        let table = &self.means.table;
        for (slot, _) in table.iter().filter(|(_, view)| view.ended.is_none()) {
            let Some(on_death) = table.on_death(slot) else { continue };
            if let Ok(Adopted::Alive(pidfd)) = wait::adopt(table, slot) {
                table.set_asked(slot);
                // An error means that it has ended.
                let _ = wait::pidfd_send_signal(pidfd.as_fd(), i32::from(on_death.signal));
                self.doomed = self.doomed.max(Some(now + on_death.grace));
            }
        }
    }

    pub(super) fn kill_doomed(&mut self, now: Mono) {
        if self.doomed.is_none_or(|at| now < at) {
            return;
        }
        self.doomed = None;
        let table = &self.means.table;
        for (slot, _) in table.iter().filter(|(slot, view)| view.ended.is_none() && table.asked(*slot)) {
            if let Ok(Adopted::Alive(pidfd)) = wait::adopt(table, slot) {
                let _ = wait::pidfd_send_signal(pidfd.as_fd(), signals::SIGKILL);
            }
        }
    }

    /// The exit code, once there is nothing more to do.
    pub(super) fn end(&mut self, now: Mono) -> Option<u8> {
        let code = match (&self.worker, self.done) {
            (None, Some(code)) => {
                self.clear_lock();
                code
            }
            _ if self.end_by.is_none_or(|at| now < at) => return None,
            (_, Some(code)) => {
                self.say(Level::Warn, "keeper: the daemon has not ended by itself, killing it");
                self.kill_daemon();
                self.kill_all();
                code
            }
            (_, None) => {
                self.say(Level::Error, "keeper: the shutdown has not ended in time, killing what is left");
                self.kill_all();
                EXIT_FAILED
            }
        };
        self.release_words();
        self.pid.remove();
        Some(code)
    }

    /// All went well, so the next hob has nothing to report. The lock itself goes with this process.
    fn clear_lock(&self) {
        if let Ok(lock) = self.options.lock.try_clone() {
            // At worst the next hob reports that this one was killed.
            let _ = Lock::from(lock).clear();
        }
    }

    pub(super) fn kill_daemon(&self) {
        // It is this process's child, not yet reaped: an error means that it has ended.
        let _ = self.worker.as_ref().map(|w| w.signal(signals::SIGKILL));
    }

    /// Kills the daemon and every job, and reaps until nothing is left or the time is up.
    fn kill_all(&mut self) {
        for (slot, _) in self.means.table.iter().filter(|(_, view)| view.ended.is_none()) {
            if let Ok(Adopted::Alive(pidfd)) = wait::adopt(&self.means.table, slot) {
                let _ = wait::pidfd_send_signal(pidfd.as_fd(), signals::SIGKILL);
            }
        }
        self.kill_daemon();
        let end = clock::now().mono + KILL_LIMIT;
        // Killed parents leave their children to this process, so every round reaches one generation further.
        while self.reap_all() && clock::now().mono < end {
            if let Err(e) = wait::signal_children(signals::SIGKILL) {
                self.say(Level::Warn, &format!("keeper: cannot list the processes that are left: {e}"));
            }
            let _ = chan::wait([(Some(self.means.signals.as_fd()), false)], Some(RETRY));
            while let Ok(Some(_)) = self.means.signals.next() {}
        }
    }
}
