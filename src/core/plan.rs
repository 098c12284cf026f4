//! What a reload would do, without doing it: a copy of the services takes the new config by the code of the reload,
//! and is then told that everything it orders comes about. What it orders is the plan. Pure.
//!
//! The copy lives in a world where starts succeed, who is to become ready does, a oneshot ends with 0, and who is
//! asked to end ends. Time stands still in it, so that nothing that waits for a delay happens. What was under way
//! before is no part of the plan: the same rehearsal with the present config shows it.

use super::run::{Cause, StopWhy};
use super::service::State;
use super::service::reload::Report;
use super::state::Facts;
use super::view::Pending;
use super::{Core, Duty, Effect, End, Input, Out, Usage};
use crate::base::gather::Gather as _;
use crate::base::ids::{ReqId, RunId};
use crate::base::json::{Obj, json_list};
use crate::config::{Changed, Config, JobSpec, Ready};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Something that is done to a service.
#[derive(Clone, Debug)]
enum Act {
    Stop(Option<StopWhy>),
    Start(Cause),
}

impl Act {
    fn word(&self) -> &'static str {
        match self {
            Act::Stop(_) => "stop",
            Act::Start(_) => "start",
        }
    }
}

type Acts = Vec<(Arc<str>, Act)>;

/// A copy of the core and what it ordered so far.
struct Rehearsal {
    core: Core,
    inputs: VecDeque<Input>,
    acts: Acts,
    /// Runs whose stop was seen, and facts that were told without being asked for.
    stopped: BTreeSet<RunId>,
    told: BTreeSet<(RunId, &'static str)>,
}

impl Core {
    pub(super) fn ask_plan(&mut self, req: ReqId, out: &mut Out) {
        if let Some(error) = self.safe_error() {
            return self.reply(req, Err(error), false, out);
        }
        self.load_config(req, Pending::Plan, out);
    }

    /// The reply of `daemon.plan`.
    pub(super) fn plan(&self, mut config: Config) -> String {
        // Jobs go by the clock, and nothing is to become due in a rehearsal.
        let jobs = self.changed_jobs(core::mem::take(&mut config.schedule));
        let tables = self.changed_tables(&config);
        let mut new = Rehearsal::of(self);
        let mut out = Out::default();
        let mut report = new.core.apply_config(config, &mut out);
        // The rehearsal knows no tasks, and so nothing of their tables.
        report.tables.clear();
        report.daemon.extend(tables);
        new.effects(out);
        new.play();
        let mut known = Rehearsal::under_way(self);
        let acts: Acts = core::mem::take(&mut new.acts)
            .into_iter()
            .filter(|(name, act)| !known.remove(&(Arc::clone(name), act.word())))
            .collect();
        Plan { before: self, after: &new.core, report: &report, jobs: &jobs, acts: &acts }.json()
    }

    /// What happens to the jobs of the schedule, by name.
    fn changed_jobs(&self, jobs: Vec<Arc<JobSpec>>) -> Vec<(&'static str, String)> {
        let new: BTreeMap<&str, &Arc<JobSpec>> = jobs.iter().map(|job| (job.id.as_str(), job)).gather();
        let old: BTreeMap<&str, &Arc<JobSpec>> = self.schedules.specs().map(|job| (job.id.as_str(), job)).gather();
        let gone = old.keys().filter(|id| !new.contains_key(*id)).map(|id| ("remove", format!("schedule/{id}")));
        let word = |id: &str, job: &Arc<JobSpec>| match old.get(id) {
            None => Some("add"),
            Some(known) => (*known != job).then_some("update"),
        };
        let come = new.iter().filter_map(|(id, job)| Some((word(id, job)?, format!("schedule/{id}"))));
        gone.chain(come).collect()
    }

    /// The tables around tasks that differ, by their keys in the config.
    pub(in crate::core) fn changed_tables(&self, config: &Config) -> Vec<String> {
        let differ = [
            ("groups", self.tasks.configured_groups() != config.groups),
            ("agents", self.programs.agents != config.agents),
            ("runners", self.programs.runners != config.runners),
        ];
        differ.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name.to_owned()).collect()
    }
}

impl Rehearsal {
    fn of(core: &Core) -> Rehearsal {
        let copy = Core {
            now: core.now,
            facts: Facts { signals: core.facts.signals, ..Facts::default() },
            config: core.config.clone(),
            table: core.table.clone(),
            runs: core.runs.clone(),
            wishes: core.wishes.clone(),
            next_run: core.next_run,
            life: super::life::Life { main: core.life.main, ..super::life::Life::default() },
            ..Core::default()
        };
        Rehearsal {
            core: copy,
            inputs: VecDeque::new(),
            acts: Vec::new(),
            stopped: BTreeSet::new(),
            told: BTreeSet::new(),
        }
    }

    /// What happens anyway.
    fn under_way(core: &Core) -> BTreeSet<(Arc<str>, &'static str)> {
        let moving = |i: usize| match core.table[i].state {
            State::Waiting | State::Starting | State::Stopping => true,
            State::Backoff => core.table[i].until <= core.now.mono,
            State::Stopped | State::Running | State::Failed | State::Finished => false,
        };
        if !core.table.by_name().any(moving) {
            return BTreeSet::new();
        }
        let mut old = Rehearsal::of(core);
        old.play();
        old.acts.into_iter().map(|(name, act)| (name, act.word())).gather()
    }

    /// Goes on until nothing comes of anything any more.
    fn play(&mut self) {
        self.step(Input::Tick);
        // A service is started and stopped a few times at the most; the bound only guards against a mistake here.
        let mut fuse = 256 + 64 * self.core.table.len();
        while fuse > 0 {
            fuse -= 1;
            match self.inputs.pop_front() {
                Some(input) => self.step(input),
                None if self.finish_what_is_under_way() => {}
                None => return,
            }
        }
    }

    fn step(&mut self, input: Input) {
        let mut out = Out::default();
        let now = self.core.now;
        self.core.step(now, input, &mut out);
        self.effects(out);
    }

    fn effects(&mut self, out: Out) {
        for effect in out.effects {
            self.come_about(effect);
        }
    }

    fn come_about(&mut self, effect: Effect) {
        match effect {
            Effect::Start(start) => {
                let run = start.run;
                let cause = self.core.runs.get(&run).and_then(|i| self.core.table[*i].live.as_ref());
                let cause = cause.map(|l| l.cause.clone()).unwrap_or_default();
                self.acts.push((start.service, Act::Start(cause)));
                self.inputs.push_back(Input::Started { run, result: Ok(1) });
                if start.spec.oneshot {
                    self.inputs.push_back(exited(run, End::Code(0)));
                } else if start.spec.ready == Ready::Notify {
                    self.inputs.push_back(ready_word(run));
                }
            }
            Effect::Signal { run, signal, tree: false } => {
                self.stopping(run);
                self.inputs.push_back(exited(run, End::Signal(signal)));
            }
            Effect::Check { run, what: Duty::Stop, .. } => {
                self.stopping(run);
                self.inputs.push_back(Input::Checked { run, what: Duty::Stop, result: Ok(()) });
                self.inputs.push_back(exited(run, End::Code(0)));
            }
            Effect::Check { run, what: Duty::Health, .. } => {
                self.inputs.push_back(Input::Checked { run, what: Duty::Health, result: Ok(()) });
            }
            Effect::Listen { service, watch: true, .. } => {
                self.inputs.push_back(Input::Listening { service, result: Ok(()) });
            }
            Effect::Await { run, .. } => self.inputs.push_back(Input::ReadySeen { run }),
            Effect::Sweep { run } => self.inputs.push_back(Input::Tree { run, left: Vec::new() }),
            _ => {}
        }
    }

    fn stopping(&mut self, run: RunId) {
        let Some(i) = self.core.runs.get(&run).copied() else { return };
        if self.stopped.insert(run) {
            let s = &self.core.table[i];
            self.acts.push((Arc::clone(&s.name), Act::Stop(s.stop_mark().cloned())));
        }
    }

    /// What was begun before comes to its end as well, since others may wait for it. False: there is nothing left.
    fn finish_what_is_under_way(&mut self) -> bool {
        let mut facts = Vec::new();
        for (run, i) in &self.core.runs {
            let s = &self.core.table[*i];
            let Some(live) = &s.live else { continue };
            let (born, ended) = (live.pid.is_some(), live.end.is_some());
            match s.state {
                State::Starting | State::Stopping if !born && !ended => {
                    facts.push((*run, "started", Input::Started { run: *run, result: Ok(1) }));
                }
                State::Starting if s.spec.oneshot => facts.push((*run, "ended", exited(*run, End::Code(0)))),
                State::Starting if s.spec.ready == Ready::Notify => facts.push((*run, "ready", ready_word(*run))),
                State::Starting => facts.push((*run, "ready", Input::ReadySeen { run: *run })),
                State::Stopping if live.stop_begun() && live.sequence.command => {
                    let result = Ok(());
                    facts.push((*run, "commanded", Input::Checked { run: *run, what: Duty::Stop, result }));
                }
                State::Stopping if live.stop_begun() && !ended => {
                    facts.push((*run, "ended", exited(*run, End::Signal(s.spec.stop_signal.number))));
                }
                State::Stopping if ended => {
                    facts.push((*run, "swept", Input::Tree { run: *run, left: Vec::new() }));
                }
                State::Stopping
                | State::Stopped
                | State::Waiting
                | State::Running
                | State::Backoff
                | State::Failed
                | State::Finished => {}
            }
        }
        for (run, what, input) in facts {
            if self.told.insert((run, what)) {
                self.inputs.push_back(input);
            }
        }
        !self.inputs.is_empty()
    }
}

fn exited(run: RunId, end: End) -> Input {
    Input::Exited { run, end, usage: Usage::default() }
}

fn ready_word(run: RunId) -> Input {
    Input::Notify { run, fields: vec![("READY".to_owned(), "1".to_owned())] }
}

/// Turns what was rehearsed into the reply.
struct Plan<'a> {
    before: &'a Core,
    after: &'a Core,
    report: &'a Report,
    jobs: &'a [(&'static str, String)],
    acts: &'a Acts,
}

impl Plan<'_> {
    fn json(&self) -> String {
        let mut rows = Vec::new();
        let mut by_name: BTreeMap<&str, Vec<&Act>> = BTreeMap::new();
        for (name, act) in self.acts {
            by_name.entry(name).or_default().push(act);
        }
        // What happens to no process takes effect at once, so before anything else.
        for (names, word) in
            [(&self.report.updated, "update"), (&self.report.removed, "remove"), (&self.report.added, "add")]
        {
            let quiet = names.iter().filter(|name| !by_name.contains_key(name.as_str()) && !self.waits(name));
            rows.extend(quiet.map(|name| self.row(word, name, self.quiet_reason(word, name), None)));
        }
        rows.extend(self.jobs.iter().map(|(word, name)| {
            let why = match *word {
                "add" => "new in the config",
                "remove" => "not in the config any more",
                _ => "changed; it goes by that from now on",
            };
            self.row(word, name, why.to_owned(), None)
        }));
        let mut done = BTreeSet::new();
        for (name, _) in self.acts.iter().filter(|(name, _)| done.insert(Arc::clone(name))) {
            rows.push(self.acted(name, &by_name[&**name]));
        }
        let waiting = self.after.table.names().filter(|name| !by_name.contains_key(name) && self.waits(name));
        rows.extend(waiting.map(|name| {
            let why = self.after.table.find(name).map_or(String::new(), |i| self.after.waiting_text(i));
            self.row("wait", name, format!("for {why}"), None)
        }));
        let order = self.acts.iter().map(|(name, act)| {
            let mut o = Obj::new();
            o.str("action", act.word()).str("name", name);
            o.finish()
        });
        let mut o = Obj::new();
        o.raw("daemon", &json_list(&self.report.daemon)).raw("changes", &format!("[{}]", rows.join(",")));
        o.raw("order", &format!("[{}]", order.collect::<Vec<_>>().join(",")));
        format!("{{{},{}}}", o.members(), self.report.members())
    }

    /// Whether it is to come up by this reload, and something keeps it from that.
    fn waits(&self, name: &str) -> bool {
        let state = |core: &Core| core.table.find(name).map(|i| core.table[i].state);
        let waits = |state| matches!(state, Some(State::Waiting));
        waits(state(self.after)) && !waits(state(self.before))
    }

    fn keys(&self, name: &str) -> &[Changed] {
        self.report.keys.get(name).map_or(&[], Vec::as_slice)
    }

    fn changed(&self, name: &str) -> Option<String> {
        let keys: Vec<&str> = self.keys(name).iter().map(|k| k.path.as_str()).collect();
        (!keys.is_empty()).then(|| format!("{} changed", keys.join(", ")))
    }

    fn quiet_reason(&self, word: &str, name: &str) -> String {
        match word {
            "remove" => "not in the config any more; it is down already".to_owned(),
            "add" => "new in the config; nothing starts it".to_owned(),
            _ => {
                let live = self.keys(name).iter().all(|key| key.live);
                let when = if live { "without a restart" } else { "takes effect with its next start" };
                let was_transient = self.before.table.find(name).is_some_and(|i| self.before.table[i].transient);
                let otherwise = if was_transient { "hob.json has it now" } else { "its config is known again" };
                let what = self.changed(name).unwrap_or_else(|| otherwise.to_owned());
                format!("{what}; {when}")
            }
        }
    }

    fn acted(&self, name: &str, acts: &[&Act]) -> String {
        let stop = acts.iter().find_map(|act| if let Act::Stop(why) = act { Some(why.as_ref()) } else { None });
        let start = acts.iter().find_map(|act| if let Act::Start(cause) = act { Some(cause) } else { None });
        let listens = self.after.table.find(name).is_some_and(|i| self.after.table[i].awaits_connection());
        let word = match (stop, start) {
            (Some(_), Some(_)) => "restart",
            (Some(_), None) if listens => "restart",
            (Some(_), None) => "stop",
            (None, _) => "start",
        };
        let (why, of) = match (stop, start) {
            (Some(why), _) => self.stop_reason(name, why),
            (None, Some(cause)) => self.start_reason(name, cause),
            (None, None) => (String::new(), None),
        };
        let why = if stop.is_some() && start.is_none() && listens {
            format!("{why}; then it waits for a connection")
        } else {
            why
        };
        self.row(word, name, why, of)
    }

    fn stop_reason<'a>(&self, name: &str, why: Option<&'a StopWhy>) -> (String, Option<&'a str>) {
        match why {
            Some(StopWhy::Need { name: need }) => (format!("it requires {need}"), Some(need)),
            Some(StopWhy::Removed) => ("not in the config any more".to_owned(), None),
            Some(StopWhy::Reload) => {
                let otherwise = || "it still runs by an earlier config".to_owned();
                (self.changed(name).unwrap_or_else(otherwise), None)
            }
            Some(other) => (other.text(), None),
            None => (String::new(), None),
        }
    }

    fn start_reason<'a>(&self, name: &str, cause: &'a Cause) -> (String, Option<&'a str>) {
        let of = if let Cause::Dependency { of } | Cause::Need { name: of } = cause { Some(&**of) } else { None };
        if self.before.table.find(name).is_none() {
            return ("new in the config".to_owned(), of);
        }
        let why = match (self.changed(name), cause) {
            (Some(changed), _) => changed,
            (None, Cause::Dependency { of }) => format!("{of} needs it"),
            (None, Cause::Need { name }) => format!("{name}, which it requires, is up again"),
            (None, _) => "the config wants it up".to_owned(),
        };
        (why, of)
    }

    fn row(&self, word: &str, name: &str, why: String, of: Option<&str>) -> String {
        let keys: Vec<String> = self.keys(name).iter().map(|key| key.path.clone()).collect();
        let mut o = Obj::new();
        o.str("action", word)
            .str("name", name)
            .str("why", &why)
            .raw("keys", &json_list(&keys))
            .opt_str("because_of", of);
        o.finish()
    }
}
