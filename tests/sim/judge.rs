//! What the rounds of the present core are held against, beside its orders: jobs and tasks, its snapshot, its memory.

use crate::check::Wish;
use crate::jobs_model::Jobs;
use crate::jobs_round::Deeds;
use crate::os::MS;
use crate::plan::Verb;
use crate::tasks_ask::Question;
use crate::tasks_model::{Scene, Tasks, Told};
use crate::world::{HOST, WALL_START, World};
use hob::base::ids::TaskId;
use hob::config::Config;
use hob::core::{Boot, Core, Effect, Input, Out};
use hob::protocol::methods::Request;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The record of a held task as it would be if nobody held it: that and by whom are its last members.
fn freed(record: &str) -> Option<String> {
    Some(format!("{}}}", record.split_once(",\"held\":true")?.0))
}

/// Text that a core may have more of than one that starts from its journal.
const MEMORY_SLACK: usize = 1500;

impl World<'_> {
    /// A snapshot of the present core says what the journal says.
    pub fn probe_snapshot(&mut self) {
        let Some(core) = &self.core else { return };
        let kept = self.disk.present();
        let all = core.entities_from(None, usize::MAX);
        let snapshot: BTreeMap<&str, &str> =
            all.iter().filter_map(|e| Some((e.key.as_str(), e.json.as_deref()?))).collect();
        let exact = |key: &str| ["task/", "attempt/", "group/", "schedule/"].iter().any(|kind| key.starts_with(kind));
        // A claim that needs no sync is not on record: there the task waits, or nothing has come of it.
        let unwritten = |key: &str, json: &str| {
            let id = key.strip_prefix("attempt/").and_then(|n| n.parse().ok()).map(TaskId);
            let repeatable = id.and_then(|id| self.check.tasks.jobs.get(&id)).is_some_and(|j| j.repeatable);
            repeatable && json.contains("\"run\":") && !json.contains("\"begun\"")
        };
        // Where the record that said so was damaged, the task's attempt alone says that it is held.
        let held_by_attempt = |key: &str, json: &str, known: &str| {
            let id = key.strip_prefix("task/").filter(|_| self.damaged.contains(key));
            let attempt = id.and_then(|id| kept.get(format!("attempt/{id}").as_str()));
            attempt.is_some_and(|a| a.contains("\"state\":\"held\"")) && freed(json).as_deref() == Some(known)
        };
        let differs = |(key, json): &(&&str, &&str)| match kept.get(**key) {
            _ if !exact(key) => false,
            Some(known) if unwritten(key, json) => !known.contains("\"state\":\"queued\""),
            None => !unwritten(key, json),
            // Of a task that is over its attempt says so, and it may have been held before.
            Some(known) => {
                known != *json && freed(known).as_deref() != Some(**json) && !held_by_attempt(key, json, known)
            }
        };
        let wrong = snapshot.iter().find(differs).map(|(key, json)| (key.to_string(), json.to_string()));
        let gone = kept.keys().find(|key| exact(key) && !snapshot.contains_key(**key));
        let what = match (wrong, gone) {
            (Some((key, json)), _) => format!("snapshot: {key} is {json}, and on record {:?}", kept.get(key.as_str())),
            (None, Some(key)) => format!("snapshot: {key} is not in it, and on record {:?}", kept.get(key)),
            (None, None) => return,
        };
        self.fail(what);
    }

    /// The core holds no more than one that starts from its journal, so nothing piles up in it.
    pub fn probe_memory(&mut self) {
        let boot = self.knowledge();
        let (now, mut out) = (self.clock(), Out::default());
        let mut fresh = Core::new();
        fresh.step(now, Input::Boot(Box::new(boot)), &mut out);
        let Some(core) = &self.core else { return };
        let (present, fresh) = (format!("{core:?}").len(), format!("{fresh:?}").len());
        if present > fresh + fresh / 4 + MEMORY_SLACK {
            self.fail(format!("memory: the core is {present} bytes as text, one that starts now {fresh}"));
        }
    }

    /// What the rules are held against now.
    pub fn scene(&self) -> Scene<'_> {
        Scene {
            os: &self.os,
            disk: &self.disk,
            now: self.now,
            wall: WALL_START + i64::try_from(self.now / MS).unwrap_or(0) + self.wall_shift,
            stopping: self.check.is_stopping(),
            stops: self.check.stops(),
            journal_full: self.journal_full,
            touched: &self.touched,
            busy: self.is_due(),
        }
    }

    /// What the core did about jobs and tasks in this round, which is in the journal now.
    pub fn judge(
        &mut self,
        told: &Told,
        asked: Option<&Question>,
        effects: &[Effect],
        records: (usize, usize),
    ) -> Result<(), String> {
        let mut jobs = core::mem::take(&mut self.check.jobs);
        let mut tasks = core::mem::take(&mut self.check.tasks);
        let before = jobs.fired;
        let judged = self.hold(&mut jobs, &mut tasks, (told, asked), effects);
        self.score.fired += jobs.fired - before;
        (self.check.jobs, self.check.tasks) = (jobs, tasks);
        let deeds = judged?;
        self.check.before_stop.clear();
        for run in deeds.before_stop {
            let name = effects.iter().find_map(|e| match e {
                Effect::Start(start) if start.run == run => Some(&*start.service),
                _ => None,
            });
            if name.is_some_and(|name| self.check.wish(name) != Wish::Down) {
                self.check.before_stop.insert(run);
            }
        }
        for (verb, name) in deeds.services {
            if self.check.config.services.contains_key(&name) {
                let wish = match verb {
                    Verb::Stop => Wish::Down,
                    Verb::Reset => Wish::Auto,
                    _ => Wish::Up,
                };
                self.wish(verb, &[name], wish, records);
            }
        }
        Ok(())
    }

    fn hold(
        &self,
        jobs: &mut Jobs,
        tasks: &mut Tasks,
        (told, asked): (&Told, Option<&Question>),
        effects: &[Effect],
    ) -> Result<Deeds, String> {
        // A new daemon finds out only then that the disk is full.
        let full = self.journal_full && !matches!(told, Told::Boot(_));
        let scene = Scene { journal_full: full, ..self.scene() };
        let req = if let Told::Request(req) = told { Some(*req) } else { None };
        let answer = effects.iter().find_map(|e| match e {
            Effect::Reply { req: r, result, .. } if Some(*r) == req => Some(result),
            _ => None,
        });
        let deeds = jobs.round(scene, told, asked.map(|(request, ..)| request).zip(answer), effects)?;
        tasks.round(scene, told, asked, &deeds, effects)?;
        let over = |id| tasks.jobs.get(&id).map(|t| if t.is_over() { t.state().name() } else { "open" });
        jobs.ends(scene, &deeds, over)?;
        if self.jump == 0
            && let Some((at, id)) = jobs.due(scene)
            && let Some(core) = &self.core
            // The wall clock is read in whole milliseconds, and one lies between the awake time and the simulator's.
            && core.next_deadline().is_none_or(|d| d.0 + self.booted_at > at + 2 * MS)
        {
            let next = core.next_deadline();
            return Err(format!("job wakes: {id} is due at {at} ns, and nothing happens before {next:?}"));
        }
        Ok(deeds)
    }

    /// How much later jobs begin on this host than their times say, as a daemon says that has nothing else to do.
    pub fn learn_delays(&mut self) {
        for (spec, plan) in self.plan.jobs.iter().filter(|(_, plan)| plan.jitter > 0) {
            let config = Config { schedule: vec![Arc::clone(spec)], ..Config::default() };
            let (now, mut core, mut out) = (self.clock(), Core::new(), Out::default());
            let boot = Boot { config, host: HOST.to_owned(), ..Boot::default() };
            core.step(now, Input::Boot(Box::new(boot)), &mut out);
            let ask = Request::ScheduleGet { id: plan.id.clone() };
            let answer = crate::questions::query(&mut core, now, ask, &mut out).unwrap_or_default();
            let v: serde_json::Value = serde_json::from_str(&answer).unwrap_or_default();
            match v["delay_ms"].as_u64().filter(|ms| *ms < plan.jitter) {
                Some(ms) => {
                    let ms = i64::try_from(ms).unwrap_or(0);
                    self.check.jobs.delays.insert((plan.id.clone(), plan.jitter), ms);
                }
                None => self.fail(format!("job jitter: {answer}")),
            }
        }
    }
}
