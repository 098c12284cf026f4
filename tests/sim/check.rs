//! The invariants. What the core was told and what it ordered is kept here in a simple form, and each order is held
//! against it.

use crate::disk::Disk;
use crate::jobs_model::Jobs;
use crate::needs::Run;
use crate::os::{Os, Proc};
use crate::plan::{Plan, TRANSIENT};
use crate::policy::Policy;
use crate::tasks_model::Tasks;
use hob::base::ids::{ConnId, ReqId, RunId};
use hob::config::{Condition, Config, Restart, ServiceSpec};
use hob::core::record::Entity;
use hob::core::task::of_name;
use hob::core::{Duty, Effect, Start};
use std::collections::{BTreeMap, BTreeSet};

/// What a person wants, as the core must remember it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    Auto,
    Up,
    Down,
    /// Records may have been lost, so that either is right.
    Either,
}

#[derive(Debug)]
pub struct Check {
    /// By service: where the records of the wish begin and end in the journal.
    wishes: BTreeMap<String, Vec<(usize, usize, Wish)>>,
    pub runs: BTreeMap<RunId, Run>,
    pub policy: Policy,
    pub config: Config,
    pub epoch: u64,
    starts: u64,
    /// When each service was started.
    started_at: BTreeMap<String, Vec<u64>>,
    /// A shutdown has begun: where its record ends, `usize::MAX` while that is not known.
    pub stopping: Option<usize>,
    pub hurry: bool,
    /// When the patience of a shutdown ends.
    stop_by: u64,
    pub disturbed: bool,
    /// Connections that asked for a moment before a shutdown.
    pub inhibitors: BTreeSet<ConnId>,
    /// Until when a shutdown waits for these, at most.
    pub held: Option<u64>,
    pub journal_full: bool,
    /// The daemon has not seen a config that it could read.
    pub blind: bool,
    /// Services that leave children in some config; nothing is said about what is left of them.
    leaves: BTreeSet<String>,
    /// Services that are not always restarted in some config: they may finish, and stay so under a new policy.
    pub may_finish: BTreeSet<String>,
    /// The same for those that are given up in some config.
    pub may_fail: BTreeSet<String>,
    entities: BTreeSet<String>,
    /// Starts of this round that somebody wanted before a job stopped the service.
    pub before_stop: BTreeSet<RunId>,
    /// Runs whose record was written and which were not forgotten.
    recorded: BTreeSet<RunId>,
    /// Requests that only look at the config.
    pub looks: BTreeSet<ReqId>,
    /// Where the records of the last step end.
    last_end: usize,
    names: usize,
    pub tasks: Tasks,
    pub jobs: Jobs,
}

impl Check {
    pub fn new(plan: &Plan) -> Check {
        let all = || plan.configs.iter().flat_map(|c| &c.services);
        Check {
            wishes: BTreeMap::new(),
            runs: BTreeMap::new(),
            policy: Policy::default(),
            config: Config::default(),
            epoch: 0,
            starts: 0,
            started_at: BTreeMap::new(),
            stopping: None,
            hurry: false,
            stop_by: 0,
            disturbed: false,
            inhibitors: BTreeSet::new(),
            held: None,
            journal_full: false,
            blind: false,
            leaves: all().filter(|(_, s)| s.leave_children).map(|(n, _)| n.clone()).collect(),
            may_fail: all()
                .filter(|(_, s)| s.restart == Restart::Never || s.max_restarts > 0)
                .map(|(n, _)| n.clone())
                .collect(),
            may_finish: all().filter(|(_, s)| s.restart != Restart::Always).map(|(n, _)| n.clone()).collect(),
            entities: BTreeSet::new(),
            before_stop: BTreeSet::new(),
            recorded: BTreeSet::new(),
            looks: BTreeSet::new(),
            last_end: 0,
            names: plan.names().len() + TRANSIENT.len(),
            tasks: Tasks::default(),
            jobs: Jobs::new(&plan.jobs),
        }
    }

    pub fn wish(&self, service: &str) -> Wish {
        self.wishes.get(service).and_then(|w| w.last()).map_or(Wish::Auto, |w| w.2)
    }

    /// Where the record of the present wish ends.
    pub fn wish_end(&self, service: &str) -> usize {
        self.wishes.get(service).and_then(|w| w.last()).map_or(0, |w| w.1)
    }

    pub fn set_wish(&mut self, service: &str, wish: Wish, begin: usize, end: usize) {
        self.wishes.entry(service.to_owned()).or_default().push((begin, end, wish));
    }

    /// A person spoke: the counters of all that is connected with it may begin anew.
    pub fn spoken(&mut self, service: &str, stops: bool) {
        let mut names = self.closure(service);
        names.insert(service.to_owned());
        for name in &names {
            self.policy.forget(name);
        }
        for run in self.runs.values_mut().filter(|r| stops && !r.over && names.contains(&*r.service)) {
            run.stopped = true;
        }
    }

    /// All that it needs and all that needs it, directly and not.
    fn closure(&self, service: &str) -> BTreeSet<String> {
        let (mut seen, mut stack) = (BTreeSet::new(), vec![service.to_owned()]);
        while let Some(name) = stack.pop() {
            for (other, spec) in &self.config.services {
                let needs =
                    |s: &ServiceSpec, n: &str| s.requires.iter().chain(&s.wants).chain(&s.after).any(|x| x.name == n);
                let linked = self.config.services.get(&name).is_some_and(|s| needs(s, other)) || needs(spec, &name);
                if linked && seen.insert(other.clone()) {
                    stack.push(other.clone());
                }
            }
        }
        seen
    }

    /// The journal ends here now: what lay behind it never happened.
    pub fn lost(&mut self, survives: usize) {
        self.tasks.lost(survives);
        self.jobs.lost(survives);
        for run in self.runs.values_mut() {
            run.lost |= run.recorded > survives;
        }
        for wishes in self.wishes.values_mut() {
            while let Some((begin, end, _)) = wishes.last().copied().filter(|w| w.1 > survives) {
                wishes.pop();
                if begin < survives {
                    wishes.push((begin.min(survives), survives.min(end), Wish::Either));
                    break;
                }
            }
        }
        if self.stopping.is_some_and(|end| end > survives) {
            self.stopping = None;
        }
        self.disturbed = true;
        // Counters that were written to the lost part are lost with it.
        if self.last_end > survives {
            self.policy.forget_all();
            self.last_end = survives;
            for run in self.runs.values_mut() {
                run.reusable = run.over;
            }
        }
    }

    pub fn new_keeper(&mut self) {
        self.policy.forget_all();
        self.stopping = None;
        self.hurry = false;
        for run in self.runs.values_mut().filter(|r| !r.forgotten) {
            run.over = true;
            run.orphan = true;
        }
    }

    /// The journal says again that these runs are not over; after a loss of power the numbers of others are free again.
    pub fn remembered(&mut self, power_lost: bool, on_record: impl Fn(RunId) -> bool) {
        if power_lost {
            self.runs.retain(|run, _| on_record(*run));
            self.recorded.retain(|run| on_record(*run));
        }
        for (run, known) in &mut self.runs {
            known.forgotten &= !on_record(*run);
        }
    }

    /// Whoever is given up for its restarts within a window has made them within it.
    fn given_up(&self, line: &str, now: u64) -> Result<(), String> {
        let event: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
        let name = event["name"].as_str().unwrap_or_default();
        let spec = self.config.services.get(name).filter(|_| line.contains("given up after"));
        let Some((spec, window)) = spec.and_then(|s| Some((s, s.window?))) else { return Ok(()) };
        let recent = |at: &&u64| u128::from(now - **at) < window.as_nanos();
        let made = self.started_at.get(name).into_iter().flatten().filter(recent).count();
        if (made as u64) < u64::from(spec.max_restarts) {
            return Err(format!("window: {name} is given up, and {made} starts lie within its window: {line}"));
        }
        Ok(())
    }

    /// The daemon said that the shutdown is complete.
    pub fn exited(&mut self) {
        self.stopping = None;
    }

    /// Nothing can be said about how long a shutdown takes now.
    pub fn disturb(&mut self) {
        self.disturbed = true;
    }

    pub fn is_stopping(&self) -> bool {
        self.stopping.is_some()
    }

    /// Whether what runs is being stopped, because nothing delays the shutdown any more.
    pub fn stops(&self) -> bool {
        self.stopping.is_some() && self.held.is_none()
    }

    pub fn shutdown_undisturbed(&self) -> bool {
        self.stopping.is_some() && !self.disturbed
    }

    /// Records of the last step end here.
    pub fn ends_at(&mut self, end: usize) {
        self.last_end = end;
        if self.stopping == Some(usize::MAX) {
            self.stopping = Some(end);
        }
    }

    pub fn will_tell_started(&mut self, run: RunId, at: u64) {
        self.tasks.will_tell_started(run, at);
        if let Some(run) = self.runs.get_mut(&run) {
            run.told_at = at;
        }
    }

    /// Facts about a run come after the answer to its start.
    pub fn started_told(&self, run: RunId) -> u64 {
        self.runs.get(&run).map_or_else(|| self.tasks.started_told(run), |r| r.told_at)
    }

    /// Records of one step.
    pub fn records(&mut self, records: &[Entity], now: u64) -> Result<(), String> {
        self.tasks.records(records, self.last_end);
        let of_tasks =
            |key: &str| ["task/", "attempt/", "group/", "schedule/"].iter().any(|kind| key.starts_with(kind));
        for r in records.iter().filter(|r| !of_tasks(&r.key)) {
            match &r.json {
                Some(json) => {
                    if let Some(run) = r.key.strip_prefix("run/").and_then(|n| n.parse().ok()) {
                        self.recorded.insert(RunId(run));
                        if json.contains("\"stop\":\"watchdog\"") {
                            self.fell_silent(now, RunId(run))?;
                        }
                    }
                    if serde_json::from_str::<serde_json::Value>(json).is_err() {
                        return Err(format!("records: {} is not JSON: {json}", r.key));
                    }
                    self.entities.insert(r.key.clone());
                }
                None => {
                    self.entities.remove(&r.key);
                }
            }
        }
        // One record a service, one a run of it and its orphans, one a key, and a few of the daemon's own.
        let bound = 4 * self.names + 64;
        if self.entities.len() > bound {
            return Err(format!("memory: {} entities are alive, and {bound} would do", self.entities.len()));
        }
        Ok(())
    }

    /// Holds an order against what is known, before it is carried out.
    pub fn effect(&mut self, now: u64, effect: &Effect, os: &Os, disk: &Disk) -> Result<(), String> {
        let run = match effect {
            Effect::Signal { run, .. }
            | Effect::Kill { run }
            | Effect::CancelStart { run }
            | Effect::Sweep { run }
            | Effect::Forget { run } => Some(*run),
            Effect::Start(start) if of_name(&start.service).is_some() => Some(start.run),
            _ => None,
        };
        if run.is_some_and(|run| self.tasks.has_run(run)) {
            return Ok(());
        }
        match effect {
            Effect::Start(start) => self.start(now, start, os, disk),
            Effect::Signal { run, signal, tree } => self.signal(now, *run, *signal, *tree, os),
            Effect::Kill { run } => self.signal(now, *run, 9, true, os),
            Effect::Sweep { run }
            | Effect::CancelStart { run }
            | Effect::Await { run, .. }
            | Effect::Hear { run, .. }
            | Effect::Ended { run }
            | Effect::AwaitEnd { run } => self.known(*run, effect),
            Effect::Check { run, what: Duty::Health, .. } => {
                self.known(*run, effect)?;
                match self.runs.get(run) {
                    Some(r) if r.over || r.ready_at.is_none() && !r.unrecorded => {
                        Err(format!("health: {} is asked in run {run}, which is not ready", r.service))
                    }
                    _ => Ok(()),
                }
            }
            Effect::Event { line, .. } if line.contains("\"service.failed\"") => self.given_up(line, now),
            Effect::Event { line, .. } if line.contains("\"service.unhealthy\"") => self.unhealthy(line),
            Effect::Event { line, .. } if line.contains("\"service.stopping\"") => {
                let event: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
                if let Some(run) = event["run"].as_u64().and_then(|n| self.runs.get_mut(&RunId(n))) {
                    run.left_at.get_or_insert(now);
                }
                Ok(())
            }
            Effect::Check { run, what: Duty::Stop | Duty::Reload, .. } => {
                if let Some(r) = self.runs.get_mut(run) {
                    r.stopped = true;
                }
                self.known(*run, effect)
            }
            Effect::CheckEnd { run, .. } => self.known(*run, effect),
            Effect::Forget { run } => {
                self.known(*run, effect)?;
                self.forget(*run, os, disk)
            }
            Effect::Remove { service } => {
                match os.of_service(service).find(|p| self.counts(p) && !self.leaves(p.run)) {
                    Some(p) => Err(format!("remove: {service} is removed while process {} lives", p.pid)),
                    None => Ok(()),
                }
            }
            Effect::Stopping { limit } => {
                // The keeper's limit lies 5 s after the daemon's own.
                let own = limit.saturating_sub(core::time::Duration::from_secs(5));
                self.stop_by = now.saturating_add(u64::try_from(own.as_nanos()).unwrap_or(u64::MAX));
                Ok(())
            }
            Effect::Exit { .. } => match os.procs.values().find(|p| !self.leaves(p.run)) {
                Some(p) if !self.hurry && !self.disturbed && now < self.stop_by => {
                    Err(format!("exit: process {} still lives", p.pid))
                }
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn known(&self, run: RunId, effect: &Effect) -> Result<(), String> {
        match self.runs.get(&run) {
            // A start that was recorded and never ordered.
            None if self.recorded.contains(&run) => Ok(()),
            None => Err(format!("unknown run: {effect:?}")),
            Some(r) if r.forgotten => Err(format!("unknown run: it was forgotten: {effect:?}")),
            Some(_) => Ok(()),
        }
    }

    /// Whether children of this run may live on by its config.
    fn leaves(&self, run: RunId) -> bool {
        self.runs.get(&run).is_some_and(|r| self.leaves.contains(&*r.service))
    }

    /// Whether a process speaks against a service that is said to have none.
    pub fn counts(&self, p: &Proc) -> bool {
        self.is_recorded(p.run) && (p.main || !self.leaves(p.run))
    }

    fn start(&mut self, now: u64, start: &Start, os: &Os, disk: &Disk) -> Result<(), String> {
        let (run, name) = (start.run, &*start.service);
        if let Some(old) = self.runs.get(&run) {
            let made = os.runs.get(&run).is_some_and(|t| t.pid.is_some() || t.exec_failed);
            let free = old.reusable && os.tree(run).is_empty();
            if !free && (made || old.epoch == self.epoch || *old.service != *name) {
                return Err(format!("started twice: run {run} of {name}"));
            }
        }
        if disk.get(&format!("run/{run}")).is_none() {
            return Err(format!("intent: run {run} of {name} is started without a record"));
        }
        if self.wish(name) == Wish::Down && !self.before_stop.contains(&run) {
            return Err(format!("stays stopped: {name} is started though a person stopped it"));
        }
        if self.stopping.is_some() {
            return Err(format!("shutdown: {name} is started in it"));
        }
        if let Some((other, _)) =
            self.runs.iter().find(|(id, r)| **id != run && !r.over && *r.service == *name && r.epoch == self.epoch)
        {
            return Err(format!("one run: {name} is started while run {other} is not over"));
        }
        for need in &start.spec.requires {
            let listens = os.sockets.get(&*need.name) == Some(&true) && need.condition <= Condition::Ready;
            if !listens && !self.reached(&need.name, need.condition) {
                let latest = self.runs.iter().filter(|(_, r)| *r.service == *need.name).max_by_key(|(_, r)| r.order);
                let what = latest.map(|(id, r)| format!("run {id}, over {}, clean {}", r.over, r.clean));
                return Err(format!(
                    "order: {name} is started, and {} is not {:?}: {what:?}",
                    need.name, need.condition
                ));
            }
        }
        self.policy.started(name, &start.spec, now)?;
        self.starts += 1;
        self.started_at.entry(name.to_string()).or_default().push(now);
        self.runs.insert(
            run,
            Run {
                service: start.service.clone(),
                spec: start.spec.clone(),
                epoch: self.epoch,
                order: self.starts,
                begun: now,
                told_at: 0,
                started: false,
                ready_at: None,
                well_at: None,
                left_at: None,
                healthy: false,
                fails: 0,
                retries: start.spec.health.as_ref().map(|h| h.retries),
                faulty: false,
                pinged_at: 0,
                over: false,
                hearing: false,
                clean: false,
                stopped: false,
                forgotten: false,
                orphan: false,
                unrecorded: false,
                recorded: self.last_end,
                lost: false,
                silent: false,
                reusable: false,
            },
        );
        Ok(())
    }

    fn signal(&mut self, now: u64, run: RunId, signal: i32, tree: bool, os: &Os) -> Result<(), String> {
        self.known(run, &Effect::Signal { run, signal, tree })?;
        let Some(r) = self.runs.get(&run) else { return Ok(()) };
        let (service, main_lives) = (r.service.clone(), !r.over && os.main_of(run).is_some());
        if signal == 6 && !r.silent {
            return Err(format!("watchdog: run {run} of {} is stopped for it, and nobody wrote that down", r.service));
        }
        let ends = matches!(signal, 2 | 6 | 9 | 15);
        if ends && main_lives && !self.hurry && !r.unrecorded {
            let wanted_down = self.wish(&service) == Wish::Down || self.stopping.is_some() && !self.disturbed;
            // One that is to blame itself goes at once.
            let late = r.faulty
                || signal == 6
                || r.ready_at.is_none() && u128::from(now - r.begun) >= r.spec.ready_timeout.as_nanos();
            if wanted_down && signal != 9 && !self.blind && !late {
                self.dependants_gone(&service)?;
            }
        }
        if ends && let Some(r) = self.runs.get_mut(&run) {
            r.stopped = true;
        }
        Ok(())
    }

    /// Its watchdog is about to stop it. The signal may be left to the next daemon, which hears of it again.
    fn fell_silent(&mut self, now: u64, run: RunId) -> Result<(), String> {
        let Some(r) = self.runs.get_mut(&run).filter(|r| !r.silent) else { return Ok(()) };
        let silent = now.saturating_sub(r.pinged_at.max(r.ready_at.unwrap_or(now)));
        if u128::from(silent) < r.spec.watchdog.map_or(u128::MAX, |w| w.as_nanos()) {
            return Err(format!("watchdog: run {run} of {} was silent for {silent} ns only", r.service));
        }
        r.silent = true;
        Ok(())
    }

    /// Nothing that requires it may still be up when it is stopped.
    fn dependants_gone(&self, service: &str) -> Result<(), String> {
        for r in self.runs.values().filter(|r| r.started && !r.over && !r.unrecorded) {
            let needs = |s: &ServiceSpec| s.requires.iter().any(|n| n.name == service);
            let now = self.config.services.get(&*r.service);
            if needs(&r.spec) && now.is_some_and(|s| needs(s)) && *r.service != *service {
                return Err(format!("order: {service} is stopped while {} is up", r.service));
            }
        }
        Ok(())
    }

    fn forget(&mut self, run: RunId, os: &Os, disk: &Disk) -> Result<(), String> {
        if !self.leaves(run)
            && let Some(p) = os.procs.values().find(|p| p.run == run)
        {
            return Err(format!("forget: run {run} still has process {}", p.pid));
        }
        if os.main_of(run).is_some() {
            return Err(format!("forget: run {run} still runs"));
        }
        if disk.get(&format!("run/{run}")).is_some() {
            return Err(format!("forget: the end of run {run} is not on record"));
        }
        self.recorded.remove(&run);
        if let Some(r) = self.runs.get_mut(&run) {
            r.forgotten = true;
            r.over = true;
        }
        Ok(())
    }

    /// Whether the end of this run has to be in its service's history.
    pub fn is_recorded(&self, run: RunId) -> bool {
        self.runs.get(&run).is_some_and(|r| !r.unrecorded)
    }

    /// The process is about to be made.
    pub fn spawn(&mut self, start: &Start, os: &Os) -> Result<(), String> {
        if of_name(&start.service).is_some() {
            return self.tasks.spawned(start.run, os);
        }
        if let Some(p) = os.of_service(&start.service).find(|p| p.main) {
            return Err(format!("two mains: {} has process {} of run {}", start.service, p.pid, p.run));
        }
        match os.of_service(&start.service).next() {
            Some(p) if !self.leaves(p.run) => {
                Err(format!("leftovers: {} is started while process {} of run {} lives", start.service, p.pid, p.run))
            }
            _ => Ok(()),
        }
    }
}
