//! The first step of a daemon: what the journal remembers meets what the keeper's table shows, and the wishes go on.
//! Pure.

use super::stop::names;
use super::{Choice, Live, State};
use crate::base::gather::Gather as _;
use crate::base::ids::RunId;
use crate::base::json::Obj;
use crate::base::map::Map;
use crate::base::time::{Now, Wall};
use crate::config::{Level, Ready, Restart, ServiceSpec};
use crate::core::record::{self, ASIDE, RunIntent, ServiceRecord};
use crate::core::run::{Cause, Ended, StopWhy};
use crate::core::{Await, Boot, Core, Effect, End, Entity, Out, Survivor, TableRun, UNKNOWN_PID};
use std::sync::Arc;

/// When a machine lost its power, the last records may be lost with it. So many run numbers are left out then, so that
/// none is used twice.
const LOST_RUNS_MAX: u64 = 1000;

/// Whether two keepers are of the same boot of the machine.
pub(in crate::core) fn same_boot(a: &str, b: &str) -> bool {
    let boot = |key: &str| key.split('-').next().map(str::to_owned);
    boot(a) == boot(b)
}

/// Whether what says who wrote the journal is among what is not understood.
fn names_meta(aside: &[(Entity, String)]) -> bool {
    aside.iter().any(|(e, _)| e.key == "meta")
}

impl Core {
    pub(in crate::core) fn boot(&mut self, mut boot: Boot, out: &mut Out) {
        let mut stored = record::read(core::mem::take(&mut boot.entities));
        let same = stored.meta.as_ref().is_some_and(|m| m.keeper == boot.keeper_key);
        let clean =
            stored.shutdown.as_ref().is_some_and(|s| stored.meta.as_ref().is_some_and(|m| m.keeper == s.keeper));
        self.next_run = stored.meta.as_ref().map_or(1, |m| m.next_run).max(1);
        self.take_facts(&mut boot);
        // In safe mode the journal may have been left out, and a later hob's words about it are not understood.
        let is_known = self.safe.is_none() && !names_meta(&stored.aside);
        self.look_for_losses(stored.meta.as_ref(), boot.gap, is_known, out);
        self.keep_aside(stored.aside, &mut stored.again, out);
        self.restore_keys(stored.keys);
        self.configure_tasks(&boot.config);
        self.tasks.blind = self.blind_config();
        self.build_table(&mut boot);
        let unread = self.restore_tasks(stored.tasks);
        self.keep_aside(unread, &mut stored.again, out);
        self.take_up(stored.again, out);
        self.next_run = self.next_run.max(self.newest_claim() + 1);
        let lost = self.number_tasks(stored.meta.as_ref(), boot.newest_output, is_known, out);
        self.note_clocks();
        self.restore_services(stored.services, &stored.runs, same, out);
        for (run, intent) in &stored.runs {
            self.next_run = self.next_run.max(run.0 + 1);
            if self.table.find(&intent.service).is_none() {
                self.add_unknown(&intent.service);
            }
        }
        self.restore_sockets(core::mem::take(&mut boot.sockets), out);
        let (jobs, host) = (core::mem::take(&mut boot.config.schedule), core::mem::take(&mut boot.host));
        self.boot_schedules(stored.schedules, jobs, host, out);
        // A run from here on has never been on record.
        let unseen = stored.meta.as_ref().and_then(|m| m.unseen).unwrap_or(self.next_run);
        for (run, _) in &boot.leftovers {
            self.next_run = self.next_run.max(run.0 + 1);
        }
        for t in &boot.table {
            self.next_run = self.next_run.max(t.run.0 + 1);
        }
        if stored.meta.is_some() && !same && !clean {
            self.next_run += LOST_RUNS_MAX;
        }
        if stored.shutdown.as_ref().is_some_and(|s| s.keeper != self.facts.keeper) {
            out.records.push(record::shutdown_void());
        }
        self.table.connect();
        self.restore_ran(boot.managed, stored.ran, out);
        self.tell_doors(&[], out);
        self.save_meta(out);
        let went_on = self.meet_tasks(&mut boot.table, &mut boot.leftovers, lost, out);
        let adopted = went_on + self.meet(stored.runs, boot.table, boot.leftovers, unseen, out);
        if !self.orphans.is_empty() {
            // Should this daemon die before they are gone, the next one has to know them for what they are.
            self.unseen = Some(unseen);
            self.save_meta(out);
        }
        let mut fields = Obj::new();
        fields.u64("generation", self.facts.generation.into()).u64("adopted", adopted);
        self.emit_daemon("daemon.started", fields.members(), out);
        self.life.beat = true;
        if self.safe.is_some() {
            return;
        }
        self.resume_schedules(same, out);
        match stored.shutdown.filter(|s| s.keeper == self.facts.keeper) {
            Some(s) => self.resume_shutdown(s.code, s.deadline, out),
            None if boot.stop => self.shutdown(0, None, false, out),
            None => self.raise(out),
        }
    }

    /// What was written is there as long as the machine stays up and nobody removes it.
    fn look_for_losses(&mut self, meta: Option<&record::Meta>, gap: bool, is_known: bool, out: &mut Out) {
        let emptied = is_known && meta.is_none() && !self.events.is_empty();
        self.gap = gap || emptied;
        if emptied {
            let text = "the journal does not say who wrote it, and there are events of a hob before this one: somebody \
                        removed or emptied it, or its beginning is lost, and with it tasks and what people wished";
            out.effects.push(Effect::Log { level: Level::Error, text: text.to_owned() });
        }
        let goes_on = meta.is_some_and(|m| same_boot(&m.keeper, &self.facts.keeper));
        let is_new = meta.is_none() && self.events.is_empty();
        self.events.restore_loss(meta.map_or(0, |m| m.next_event));
        if !is_new && (!goes_on || self.events.is_empty()) {
            self.events.skip_lost(self.now.wall);
        }
    }

    /// `again`: what was kept aside before; what is not understood this time either stays where it is.
    fn keep_aside(&mut self, aside: Vec<(Entity, String)>, again: &mut Map<String, String>, out: &mut Out) {
        for (e, why) in aside {
            if let Some(json) = again.remove(&e.key) {
                self.aside.insert(format!("{ASIDE}{}", e.key), json);
                continue;
            }
            if e.key.starts_with(ASIDE) {
                self.aside.insert(e.key, e.json.unwrap_or_default());
                continue;
            }
            let text = format!("the journal's record {} is kept aside unread: {why}", e.key);
            out.effects.push(Effect::Log { level: Level::Error, text });
            // A record of this name may be written anew, so what cannot be read moves to a name of its own.
            let known = match e.key.split_once('/') {
                Some((kind, _)) => matches!(kind, "service" | "schedule" | "run" | "task" | "attempt" | "group"),
                None => true,
            };
            let key = if known { format!("{ASIDE}{}", e.key) } else { e.key.clone() };
            if key != e.key {
                out.records.push(Entity { key: e.key, json: None });
                out.records.push(Entity { key: key.clone(), json: e.json.clone() });
            }
            self.aside.insert(key, e.json.unwrap_or_default());
        }
    }

    /// What was kept aside and is understood now has its own name again.
    fn take_up(&mut self, again: Map<String, String>, out: &mut Out) {
        for (key, json) in again {
            let text = format!("the journal's record {key}, which was kept aside, is read again");
            out.effects.push(Effect::Log { level: Level::Info, text });
            out.records.push(Entity { key: format!("{ASIDE}{key}"), json: None });
            out.records.push(Entity { key, json: Some(json) });
        }
    }

    fn build_table(&mut self, boot: &mut Boot) {
        for (name, spec) in core::mem::take(&mut boot.config.services) {
            self.table.add(&name, spec);
        }
        if let Some((name, spec)) = boot.main.take() {
            let i = self.table.find(&name).unwrap_or_else(|| self.table.add(&name, Arc::clone(&spec)));
            self.table[i].spec = spec;
            self.life.main = Some(i);
        }
    }

    fn restore_services(
        &mut self,
        services: Vec<(String, ServiceRecord)>,
        runs: &[(RunId, RunIntent)],
        same: bool,
        out: &mut Out,
    ) {
        let config_known = !self.blind_config();
        for (name, mut record) in services {
            let config = record.transient.take();
            let i = match (self.table.find(&name), config) {
                (Some(i), None) => i,
                (Some(i), Some(_)) => {
                    // It is in hob.json now, so it must not come back when that lets it go.
                    self.table.save(i);
                    i
                }
                (None, Some(config)) => match self.kept_spec(&name, config.get()) {
                    Ok(spec) => self.add_kept(&name, spec, record.choice),
                    Err(why) => {
                        record.transient = Some(config);
                        self.keep_aside(vec![(record::kept(&name, &record), why)], &mut Map::new(), out);
                        continue;
                    }
                },
                // One that only a wish is left of was out of the config before.
                (None, None) if runs.iter().all(|(_, r)| r.service != name) && (config_known || record.is_wish()) => {
                    self.next_run = self.next_run.max(record.newest_run() + 1);
                    self.keep_wish(&name, record.wish(), out);
                    continue;
                }
                (None, None) => self.add_unknown(&name),
            };
            let s = &mut self.table[i];
            let newest = record.newest_run();
            let state = record.state;
            record.restore(s, same);
            // Ends are remembered for this keeper; a new one is a new boot or a new life, where everything starts
            // afresh.
            let kept = match state {
                State::Backoff | State::Failed | State::Finished => state,
                State::Stopped | State::Waiting | State::Starting | State::Running | State::Stopping => State::Stopped,
            };
            // One that is always restarted can only have finished under another policy, or while there was none.
            let lasts = s.spec.restart == Restart::Always || s.spec.on_demand;
            let goes_on = kept == State::Finished && lasts && !s.blind;
            // A transient one that has ended by itself has done what it was made for, whoever keeps it now.
            let done = s.transient && kept != State::Backoff;
            if (same || done) && (s.blind || s.wanted()) && !goes_on {
                s.state = kept;
            }
            self.next_run = self.next_run.max(newest + 1);
            self.table.touch(i);
            if !same {
                // A second daemon of this keeper must not take the end of an earlier life for one of this life.
                self.table.save(i);
            }
        }
    }

    /// A transient service of the journal; one that a person stopped has only to go.
    fn add_kept(&mut self, name: &str, spec: Arc<ServiceSpec>, choice: Choice) -> usize {
        let i = self.table.add(name, spec);
        self.table[i].transient = true;
        self.table[i].removed = choice == Choice::Down;
        i
    }

    /// A service that the config does not name: it is to go, unless the config could not be read at all.
    fn add_unknown(&mut self, name: &str) -> usize {
        let spec = ServiceSpec { autostart: false, ..ServiceSpec::default() };
        let i = self.table.add(name, Arc::new(spec));
        let blind = self.blind_config();
        let s = &mut self.table[i];
        s.blind = blind;
        s.removed = !blind;
        i
    }

    pub(super) fn blind_config(&self) -> bool {
        self.config_error.is_some()
    }

    /// Brings runs on record, runs in the table and processes found together. Answers how many runs go on.
    fn meet(
        &mut self,
        runs: Vec<(RunId, RunIntent)>,
        table: Vec<TableRun>,
        leftovers: Vec<(RunId, Vec<Survivor>)>,
        unseen: u64,
        out: &mut Out,
    ) -> u64 {
        let mut table: Map<RunId, TableRun> = table.into_iter().map(|t| (t.run, t)).gather();
        let mut leftovers: Map<RunId, Vec<Survivor>> = leftovers.into_iter().gather();
        let mut adopted = 0;
        for (run, intent) in runs {
            let Some(i) = self.table.find(&intent.service) else { continue };
            let slot = table.remove(&run);
            let left = leftovers.remove(&run).unwrap_or_default();
            if self.table[i].live.is_some() {
                // Two open runs of one service cannot be: the later record goes, its processes are stopped.
                out.records.push(record::run_gone(run));
                self.unknown_run(run, slot, left, true, out);
                continue;
            }
            let live = intent.live(run);
            match slot {
                Some(slot) if slot.pid.is_some() || slot.exec_error.is_some() => {
                    adopted += u64::from(slot.ended.is_none());
                    self.adopt(i, live, slot, out);
                }
                Some(_) => self.never_ran(i, run, true, out),
                None if left.is_empty() && intent.keeper == self.facts.keeper => self.never_ran(i, run, false, out),
                None => self.unseen_end(i, live, left, out),
            }
        }
        for (run, slot) in table {
            let left = leftovers.remove(&run).unwrap_or_default();
            self.unknown_run(run, Some(slot), left, run.0 >= unseen, out);
        }
        for (run, left) in leftovers {
            // Runs that were on record and are over left these processes on purpose (`leave_children`).
            if run.0 >= unseen || self.aside.contains_key(&format!("aside/run/{run}")) {
                self.unknown_run(run, None, left, true, out);
            }
        }
        adopted
    }

    /// A run without a service: nothing to adopt, only to clear away. One that was on record and has ended was cleared
    /// away, tree and all, and only its slot was not freed any more; what is left of it may stay (`leave_children`).
    fn unknown_run(&mut self, run: RunId, slot: Option<TableRun>, left: Vec<Survivor>, unseen: bool, out: &mut Out) {
        let ran = slot.as_ref().is_some_and(|s| s.pid.is_some() && s.exec_error.is_none());
        let alive = ran && slot.as_ref().is_some_and(|s| s.ended.is_none());
        if alive || (unseen && ran) || (slot.is_none() && !left.is_empty()) {
            self.orphan(run, alive, left, out);
        } else if slot.is_some() {
            out.effects.push(Effect::Forget { run });
        }
    }

    /// The start was ordered and did not happen: as if it had never been ordered.
    fn never_ran(&mut self, i: usize, run: RunId, slot: bool, out: &mut Out) {
        out.records.push(record::run_gone(run));
        if slot {
            out.effects.push(Effect::Forget { run });
        }
        let s = &mut self.table[i];
        s.cause = Cause::Again;
        s.state = State::Stopped;
        self.table.save(i);
    }

    /// Takes a run over from the daemon before.
    fn adopt(&mut self, i: usize, mut live: Live, slot: TableRun, out: &mut Out) {
        let run = live.run;
        if slot.asked {
            live.stop.get_or_insert(StopWhy::DaemonDeath);
        }
        live.pid = slot.pid.filter(|pid| *pid != UNKNOWN_PID);
        if slot.exec_error.is_none() && live.spawned {
            live.ready = live.ready.or(Some(live.begun));
        }
        let began = live.begun.mono;
        let (since, stopping) = (live.ready.unwrap_or(live.begun), live.stop.is_some());
        let healthy = live.pulse.take().is_some_and(|p| p.ok);
        let s = &mut self.table[i];
        s.state = if live.ready.is_some() { State::Running } else { State::Starting };
        s.since = since;
        s.runs = s.runs.max(live.number);
        s.live = Some(Box::new(live));
        self.runs.insert(run, i);
        self.table.touch(i);
        self.table.look(i);
        // While its spec is unknown, its output is treated as by the daemon before: secrets stay masked, nothing goes.
        if !self.table[i].blind && !self.table[i].removed {
            self.tell_log(i, out);
        }
        if let Some(error) = slot.exec_error {
            if let Some(live) = self.table[i].live.as_mut() {
                live.pid = None;
            }
            return self.started(run, Err(error), out);
        }
        if stopping
            && self.told("service.stopping", i, run).is_some()
            && let Some(live) = self.table[i].live.as_mut()
        {
            live.stop_told = true;
        }
        match slot.ended {
            Some((end, usage)) => {
                let told = self.told("service.exited", i, run).map(|wall| {
                    // The clock may have been set since.
                    let mono = self.now.mono.before(self.now.wall.since(wall));
                    Now { mono: if mono < began { self.now.mono } else { mono }, wall }
                });
                if matches!(self.table[i].spec.ready, Ready::Log(_) | Ready::Fd(_)) {
                    self.adopt_readiness(i, run, out);
                }
                // After that, or its output could pass before anybody looks for a line in it.
                out.effects.push(Effect::Ended { run });
                self.main_ended(run, end, usage, told, out);
            }
            None => {
                self.adopt_readiness(i, run, out);
                self.health_begin(i, healthy, out);
                self.watchdog_begin(i);
            }
        }
    }

    /// When the events that were kept have told this of the run.
    fn told(&self, kind: &str, i: usize, run: RunId) -> Option<Wall> {
        self.events.told(kind, &self.table[i].name, run)
    }

    pub(super) fn adopt_readiness(&mut self, i: usize, run: RunId, out: &mut Out) {
        let s = &mut self.table[i];
        if s.state != State::Starting || s.blind {
            return;
        }
        let Some(what) = Await::of(&s.spec) else { return };
        if let Some(live) = s.live.as_mut() {
            live.awaiting = true;
        }
        out.effects.push(Effect::Await { run, what, from_start: true });
    }

    /// Keeper and daemon died with it: nobody saw how it ended. What is left of it is stopped before a new start.
    fn unseen_end(&mut self, i: usize, mut live: Live, left: Vec<Survivor>, out: &mut Out) {
        let (run, now) = (live.run, self.now);
        live.sequence.kill_at = None;
        live.end = Some((Ended::from(End::Unknown), now));
        let s = &mut self.table[i];
        s.state = State::Stopping;
        s.since = now;
        s.runs = s.runs.max(live.number);
        s.live = Some(Box::new(live));
        let terms = s.terms();
        self.runs.insert(run, i);
        self.table.touch(i);
        if left.is_empty() {
            if let Some(live) = self.table[i].live.as_mut() {
                live.known = false;
            }
            return self.over(i, Ended::Unknown, now, out);
        }
        let (name, who) = (&self.table[i].name, names(&left));
        let text = format!("{name}: nobody saw how run {run} ended, and this is left of it and is stopped: {who}");
        out.effects.push(Effect::Log { level: Level::Warn, text });
        if let Some(live) = self.table[i].live.as_mut() {
            live.sequence.main_ended(run, now.mono, out);
            live.sequence.leftovers(run, terms, left, now.mono, out);
        }
    }

    /// Starts what is wished up and does not run, and stops what runs and is not.
    fn raise(&mut self, out: &mut Out) {
        self.plan_newest(None, out);
        let all: Vec<usize> = self.table.by_name().collect();
        for i in &all {
            let s = &self.table[*i];
            let cause = match (&s.cause, s.choice) {
                (Cause::Again, _) => Cause::Again,
                (_, Choice::Up) => Cause::Boot,
                (_, Choice::Auto | Choice::Down) if s.pulled || s.restored => Cause::Boot,
                (_, Choice::Auto | Choice::Down) => Cause::Autostart,
            };
            self.table.look(*i);
            if self.table[*i].wanted() {
                if self.table[*i].state == State::Stopped {
                    self.lift(*i, cause, out);
                }
            } else if self.table[*i].live.is_some() && self.table[*i].stop_mark().is_none() {
                let gone = self.table[*i].removed && !self.table[*i].transient;
                let why = if gone { StopWhy::Removed } else { StopWhy::Unwanted };
                self.mark_stop(*i, &why);
            }
        }
        for i in all.iter().filter(|i| self.table[**i].wanted()).copied().collect::<Vec<_>>() {
            self.pull(i, false, out);
        }
        self.life.rising = Some(all.into_iter().filter(|i| self.table[*i].wanted()).gather());
    }
}
