//! How daemon, keeper, machine and disk come and go, and the clock with them.

use crate::plan::Options;
use crate::world::{Event, World};
use hob::core::task::of_name;
use hob::core::{Core, Effect, End, Input};

impl World<'_> {
    /// Asleep the awake time stands still.
    pub fn move_clock(&mut self, ms: i64, asleep: bool) {
        self.wall_shift += ms;
        if self.core.is_none() {
            return;
        }
        self.jump += ms;
        self.slept += if asleep { ms } else { 0 };
        if self.now >= self.frozen_until {
            self.tell_clock();
        }
    }

    pub fn journal_behind(&mut self, on: bool) {
        if self.core.is_none() || self.disk.is_behind() == on {
            return;
        }
        self.disk.set_behind(on);
        if !on {
            self.begin_sync();
            for run in core::mem::take(&mut self.ended) {
                let checked = self.check.effect(self.now, &Effect::Forget { run }, &self.os, &self.disk);
                self.require(checked);
                self.forget(run, false);
            }
        }
        self.step(Input::JournalBehind { why: on.then(|| "the disk is full".to_owned()) });
    }

    /// The end of all faults. What was broken is whole again, and stays so.
    pub fn calm_down(&mut self) {
        self.note(|| "* the faults end".to_owned());
        self.calm = true;
        self.kill = None;
        self.frozen_until = 0;
        self.options = Options {
            transient: 0,
            slow: 0,
            deaf: 0,
            leftovers: 0,
            unkillable: 0,
            mute: 0,
            sick: 0,
            ..self.options.clone()
        };
        self.journal_behind(false);
        // What the clock has done is told before that the disk has room again.
        self.tell_clock();
        self.journal_full = false;
        self.check.journal_full = false;
        self.step(Input::JournalFull { full: false });
        let version = self.file.unwrap_or(0);
        self.reload(Some(version), 0, false);
        self.resume_tasks();
    }

    pub fn boot(&mut self) {
        if self.core.is_some() {
            return;
        }
        self.epoch += 1;
        self.generation += 1;
        self.score.daemons += 1;
        let boot = self.knowledge();
        (self.jump, self.slept) = (0, 0);
        self.stop_pending = false;
        self.gap = false;
        self.core = Some(Core::new());
        self.step(Input::Boot(Box::new(boot)));
        if self.journal_full {
            self.step(Input::JournalFull { full: true });
        }
        if self.core.is_some() {
            for run in core::mem::take(&mut self.os.datagrams) {
                self.soon(5, true, Event::Deliver(crate::shell::ready_datagram(run)));
            }
        }
    }

    /// The daemon is killed.
    pub fn die(&mut self, how: &str) {
        self.note(|| format!("* the daemon dies {how}"));
        self.kill = None;
        self.ended.clear();
        if self.core.take().is_some() {
            for (epoch, event) in self.queue.values() {
                if *epoch == Some(self.epoch)
                    && let Event::Deliver(Input::Notify { run, .. }) = event
                {
                    self.os.datagrams.insert(*run);
                }
            }
        }
        self.epoch += 1;
        self.os.daemon_died();
        self.clients.daemon_died();
        let survives = self.disk.daemon_died();
        self.lose(survives, false);
        if self.keeper_gone {
            self.new_keeper();
        }
        self.soon(300, false, Event::Boot);
    }

    fn lose(&mut self, survives: usize, power: bool) {
        self.check.lost(survives);
        self.clients.lost(survives);
        let disk = &self.disk;
        self.check.remembered(power, |run| disk.get(&format!("run/{run}")).is_some());
    }

    /// The keeper is gone too, and its successor knows nothing.
    pub fn new_keeper(&mut self) {
        self.keeper += 1;
        self.generation = 0;
        self.keeper_gone = false;
        self.stop_pending = false;
        self.os.keeper_died();
        self.check.new_keeper();
        if self.wall_shift != 0 {
            self.clients.new_keeper();
        }
    }

    pub fn power_loss(&mut self, lost: u64) {
        self.die("with the machine");
        self.os.power_lost();
        self.new_keeper();
        let survives = self.disk.power_lost(lost);
        self.lose(survives, true);
        let claimed = self.disk.claimed_runs();
        self.os.runs.retain(|run, t| {
            let key = format!("run/{run}");
            if of_name(&t.service).is_some() { claimed.contains(&run.0) } else { self.disk.get(&key).is_some() }
        });
        self.boots += 1;
        self.booted_at = self.now;
        self.frozen_until = 0;
    }

    pub fn keeper_limit(&mut self, keeper: u64) {
        if self.keeper != keeper {
            return;
        }
        if self.core.is_some() && self.check.shutdown_undisturbed() && self.options.slow + self.options.unkillable == 0
        {
            self.fail("shutdown: it did not end within its limit".to_owned());
        }
        self.note(|| "* the keeper ends by itself".to_owned());
        self.die("by its keeper");
        let all: Vec<u32> = self.os.procs.keys().copied().collect();
        for pid in all {
            self.os.end(pid, End::Signal(9));
        }
        self.new_keeper();
    }
}
