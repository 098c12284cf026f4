//! A job's record: `schedule/ID`. Pure.

use super::{Fire, Job, Outcome, Past, Run, Schedules, Why};
use crate::base::ids::{ReqId, TaskId};
use crate::base::time::{Now, Wall};
use crate::core::record::{self, Entity, VERSION};
use serde::{Deserialize, Serialize};

/// What the journal keeps of a job.
#[derive(Debug, Serialize, Deserialize)]
pub struct JobRecord {
    v: u32,
    seen: Wall,
    /// Without it: when `seen` came, by the clock of the job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    decided: Option<Wall>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    high: Option<Wall>,
    anchor: Wall,
    boot: String,
    /// Paused or resumed by a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    paused: Option<bool>,
    /// Whether it was paused, by a person or by the config.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    was_paused: bool,
    #[serde(default)]
    number: u64,
    #[serde(default)]
    missed: u64,
    #[serde(default)]
    skipped: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    queue: Vec<Queued>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    runs: Vec<Begun>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    history: Vec<Past>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Queued {
    due: Wall,
    why: Why,
}

#[derive(Debug, Serialize, Deserialize)]
struct Begun {
    number: u64,
    due: Wall,
    why: Why,
    began: Wall,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tasks: Vec<TaskId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    given_up: Option<(Outcome, Option<String>)>,
}

fn key(id: &str) -> String {
    format!("schedule/{id}")
}

pub(super) fn entity(job: &Job) -> Entity {
    let record = JobRecord {
        v: VERSION,
        seen: job.seen,
        decided: Some(job.decided),
        high: job.high,
        anchor: job.anchor,
        boot: job.boot.clone(),
        paused: job.choice,
        was_paused: job.paused(),
        number: job.number,
        missed: job.missed,
        skipped: job.skipped,
        queue: job.queue.iter().map(|f| Queued { due: f.due, why: f.why.clone() }).collect(),
        runs: job
            .runs
            .iter()
            .map(|r| Begun {
                number: r.number,
                due: r.due,
                why: r.why.clone(),
                began: r.began.wall,
                tasks: r.tasks.clone(),
                given_up: r.given_up.clone(),
            })
            .collect(),
        history: job.history.iter().cloned().collect(),
    };
    // The type holds nothing that JSON cannot say.
    Entity { key: key(&job.id), json: Some(serde_json::to_string(&record).unwrap_or_default()) }
}

pub(super) fn gone(id: &str) -> Entity {
    Entity { key: key(id), json: None }
}

impl JobRecord {
    /// Puts everything back, and answers whether the job was paused. The requests of runs that were not over died with
    /// the daemon; `resume_runs` sees to them.
    pub(super) fn restore(self, job: &mut Job, now: Now) -> bool {
        job.seen = self.seen;
        let came = self.seen.0.saturating_add(now.wall.0.saturating_sub(job.clock(now).0));
        job.decided = self.decided.unwrap_or(Wall(came));
        job.high = self.high;
        job.anchor = self.anchor;
        job.boot = self.boot;
        job.choice = self.paused;
        (job.number, job.missed, job.skipped) = (self.number, self.missed, self.skipped);
        job.history = self.history.into();
        let mut not_before = now.mono;
        for Queued { due, why } in self.queue {
            job.queue.push_back(Fire { due, why, not_before });
            not_before = not_before + job.spec.stagger;
        }
        job.save = false;
        for Begun { number, due, why, began, tasks, given_up } in self.runs {
            let passed = now.wall.since(began);
            let began = Now { mono: now.mono - passed, wall: began };
            let until = job.spec.timeout.map(|limit| now.mono + limit.saturating_sub(passed));
            let until = until.filter(|_| given_up.is_none());
            job.runs.push(Run { number, due, why, began, req: ReqId(0), until, tasks, given_up });
        }
        self.was_paused
    }
}

impl Schedules {
    /// Records of jobs after the one with this id, in the order of ids.
    pub(in crate::core) fn entities_after(&self, id: &str, max: usize) -> Vec<Entity> {
        let jobs = self.by_id.after(id).take(max).map(|(_, i)| entity(&self.jobs[*i]));
        let kept = self.kept.after(id).take(max);
        let mut all: Vec<Entity> = jobs.collect();
        all.extend(kept.map(|(id, json)| Entity { key: key(id), json: Some(json.clone()) }));
        record::sort(&mut all);
        all.truncate(max);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::Mono;
    use crate::core::record::read;
    use std::sync::Arc;

    const NOW: Now = Now { mono: Mono(900_000_000_000_000), wall: Wall(1_700_000_100_000) };

    fn restored(json: &str) -> Job {
        let stored = read(vec![Entity { key: "schedule/a".into(), json: Some(json.into()) }]);
        assert!(stored.aside.is_empty(), "{:?}", stored.aside);
        let mut job = Job::new("a", Arc::default(), NOW, "host", "");
        for (_, record, _) in stored.schedules {
            record.restore(&mut job, NOW);
        }
        job
    }

    #[test]
    fn the_frozen_record_of_version_1_loads_for_ever() {
        let job = restored(include_str!("../../../tests/compat/schedule/v1.json").trim());
        assert_eq!(
            (job.seen, job.high, job.anchor),
            (Wall(1_699_999_200_000), Some(Wall(1_700_000_000_000)), Wall(1_690_000_000_000))
        );
        assert_eq!(job.decided, job.seen, "this record is older than that member");
        assert_eq!((job.boot.as_str(), job.choice), ("00c0ffee", Some(true)));
        assert_eq!((job.number, job.missed, job.skipped, job.queue.len()), (41, 7, 2, 2));
        assert!(matches!(&job.queue[1].why, Why::Client(c) if c.uid == 1000 && c.job.is_none()));
        let results: Vec<&str> = job.history.iter().map(|p| p.result.word()).collect();
        assert_eq!(results, ["timed_out", "done"]);
        assert_eq!((job.runs.len(), job.runs[0].number, job.runs[0].began.wall), (1, 41, Wall(1_699_999_200_012)));
    }

    #[test]
    fn a_record_survives_the_trip() {
        let job = restored(include_str!("../../../tests/compat/schedule/v1.json").trim());
        let first = entity(&job);
        let again = entity(&restored(first.json.as_deref().unwrap()));
        assert_eq!(first, again);
    }
}
