//! Jobs at the start of a daemon, and under a new config. Pure.

use super::{Fire, Job, JobRecord, Why, delay, record};
use crate::base::gather::Gather as _;
use crate::base::map::Map;
use crate::config::JobSpec;
use crate::config::schedule::When;
use crate::core::{Core, Out};
use std::sync::Arc;

/// Ids of jobs that a new config changed.
#[derive(Debug, Default)]
pub(in crate::core) struct JobChanges {
    pub(in crate::core) added: Vec<String>,
    pub(in crate::core) removed: Vec<String>,
    pub(in crate::core) updated: Vec<String>,
}

impl Core {
    /// What the journal knows of the jobs of the config. Without a config, records wait for one.
    pub(in crate::core) fn boot_schedules(
        &mut self,
        records: Vec<(String, JobRecord, String)>,
        jobs: Vec<Arc<JobSpec>>,
        host: String,
        out: &mut Out,
    ) {
        self.schedules.host = host;
        // The identity of a keeper begins with that of the boot.
        self.schedules.boot = self.facts.keeper.split('-').next().unwrap_or("").to_owned();
        let mut records: Map<String, (JobRecord, String)> =
            records.into_iter().map(|(id, record, json)| (id, (record, json))).gather();
        for spec in jobs {
            let known = records.remove(&spec.id).map(|(record, _)| record);
            self.boot_job(spec, known);
        }
        for (id, (_, json)) in records {
            if self.config_error.is_some() {
                self.schedules.kept.insert(id.into(), json);
            } else {
                out.records.push(record::gone(&id));
            }
        }
    }

    fn boot_job(&mut self, spec: Arc<JobSpec>, known: Option<JobRecord>) -> usize {
        let (now, boot) = (self.now, self.schedules.boot.clone());
        let mut job = Job::new(&spec.id, Arc::clone(&spec), now, &self.schedules.host, "");
        if let Some(known) = known {
            let was_paused = known.restore(&mut job, now);
            job.step_back(now);
            job.paused_until(was_paused, now);
        }
        if job.boot != boot {
            if matches!(spec.when(), When::Reboot) && !job.paused() {
                job.queue.push_back(Fire { due: now.wall, why: Why::Boot, not_before: now.mono + job.delay });
            }
            job.boot = boot;
            job.save = true;
        }
        self.schedules.add(job)
    }

    /// What runs of an earlier daemon asked for, once it is known how all services are.
    pub(in crate::core) fn resume_schedules(&mut self, same_keeper: bool, out: &mut Out) {
        for i in self.schedules.by_id.values().copied().collect::<Vec<_>>() {
            self.resume_runs(i, same_keeper, out);
        }
    }

    /// A new config: jobs come, go and change.
    pub(in crate::core) fn apply_schedule(&mut self, jobs: Vec<Arc<JobSpec>>, out: &mut Out) -> JobChanges {
        let mut changes = JobChanges::default();
        let mut new: Map<String, Arc<JobSpec>> = jobs.into_iter().map(|j| (j.id.clone(), j)).gather();
        for (id, i) in self.schedules.by_id.clone() {
            match new.remove(&*id) {
                Some(spec) if self.schedules.jobs[i].spec == spec => {}
                Some(spec) => {
                    self.change_job(i, spec);
                    changes.updated.push(id.to_string());
                }
                None => {
                    self.give_up_runs(i, out);
                    self.schedules.jobs[i].gone = true;
                    self.schedules.by_id.remove(&id);
                    self.schedules.free.push(i);
                    self.deadlines.set(crate::core::due::Due::Schedule(i), None);
                    out.records.push(record::gone(&id));
                    changes.removed.push(id.to_string());
                }
            }
        }
        for (id, spec) in new {
            let kept = self.schedules.kept.remove(&*id);
            // It was read once already, at the start.
            let kept = kept.and_then(|json| serde_json::from_str::<JobRecord>(&json).ok());
            match kept {
                Some(known) => {
                    let i = self.boot_job(spec, Some(known));
                    self.resume_runs(i, false, out);
                }
                None => {
                    let job = Job::new(&id, spec, self.now, &self.schedules.host, &self.schedules.boot);
                    self.schedules.add(job);
                }
            }
            changes.added.push(id);
        }
        for (id, _) in core::mem::take(&mut self.schedules.kept) {
            out.records.push(record::gone(&id));
        }
        changes
    }

    /// Another time is a new beginning; a zone whose file has changed is the same time.
    fn change_job(&mut self, i: usize, spec: Arc<JobSpec>) {
        let now = self.now;
        let delay = delay(&self.schedules.host, &spec.id, spec.jitter);
        let job = &mut self.schedules.jobs[i];
        let times = |s: &JobSpec| (s.cron.clone(), s.every, s.at.clone(), s.zone.name().to_owned());
        let (anew, was_paused) = (times(&job.spec) != times(&spec), job.paused());
        job.spec = spec;
        job.delay = delay;
        job.paused_until(was_paused, now);
        if anew {
            job.decide(job.clock(now), now);
            job.anchor = now.wall;
            job.high = None;
        }
        job.save = true;
        self.schedules.touch(i);
    }
}
