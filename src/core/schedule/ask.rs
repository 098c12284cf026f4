//! Requests about jobs. Pure.

use super::{Job, Why};
use crate::base::ids::ReqId;
use crate::base::json::Obj;
use crate::base::near::nearest;
use crate::config::schedule::Overlap;
use crate::core::request::Asked;
use crate::core::{Core, Out};
use crate::protocol::rpc::{Code, RpcError};

type Answer = Result<String, RpcError>;

impl Core {
    pub(in crate::core) fn job(&self, id: &str) -> Result<usize, RpcError> {
        self.schedules.find(id).ok_or_else(|| {
            let error = RpcError::new(Code::NotFound, format!("there is no job {id:?}"));
            match nearest(id, self.schedules.by_id.keys().map(|k| &**k)) {
                Some(near) => error.hint(format!("did you mean {near:?}?")),
                None => error.hint("`hob schedule list` lists all of them"),
            }
        })
    }

    fn jobs(&self, ids: &[String]) -> Result<Vec<usize>, RpcError> {
        if ids.is_empty() {
            return Ok(self.schedules.by_id.values().copied().collect());
        }
        ids.iter().map(|id| self.job(id)).collect()
    }

    pub(in crate::core) fn schedule_list(&self, ids: &Option<Vec<String>>) -> Answer {
        let places = match ids {
            Some(ids) if ids.is_empty() => Vec::new(),
            ids => self.jobs(ids.as_deref().unwrap_or_default())?,
        };
        let rows: Vec<String> = places.into_iter().map(|i| self.job_row(i).finish()).collect();
        Ok(format!("{{\"jobs\":[{}]}}", rows.join(",")))
    }

    pub(in crate::core) fn schedule_get(&self, id: &str) -> Answer {
        self.job(id).map(|i| self.job_detail(i))
    }

    pub(in crate::core) fn schedule_history(&self, id: &str, limit: usize) -> Answer {
        self.job(id).map(|i| self.job_history(i, limit))
    }

    pub(in crate::core) fn schedule_next(&self, id: &str, count: usize) -> Answer {
        self.job(id).map(|i| self.job_next(i, count))
    }

    pub(in crate::core) fn schedule_run(&mut self, asked: &Asked, id: &str, out: &mut Out) {
        let answer = self.run_by_hand(asked, id, out);
        self.reply(asked.req, answer, true, out);
    }

    /// One that would be left out is refused.
    fn run_by_hand(&mut self, asked: &Asked, id: &str, out: &mut Out) -> Answer {
        let i = self.job(id)?;
        let job = &self.schedules.jobs[i];
        if job.spec.overlap == Overlap::Skip
            && let Some(run) = job.runs.last()
        {
            let text = format!("run {} of {id} goes on, and its overlap is \"skip\"", run.number);
            return Err(RpcError::new(Code::Conflict, text).hint(format!("try again when it has ended; hob why {id}")));
        }
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let waiting = count(job.queue.len());
        let limit = u64::from(job.spec.limit);
        if job.spec.overlap == Overlap::Queue && !job.runs.is_empty() && waiting >= limit {
            return Err(RpcError::new(Code::Busy, format!("{waiting} runs of {id} wait already")));
        }
        if let Some(why) = job.refuses() {
            let error = RpcError::new(Code::Busy, format!("{id} cannot be run now: {why}"));
            return Err(error.hint(format!("try again when it has ended; hob why {id}")));
        }
        // One that is made up for later does not go before it.
        let ahead = count(job.queue.iter().filter(|f| f.not_before <= self.now.mono).count());
        let mut o = Obj::new();
        o.str("id", id).u64("run", job.number + ahead + 1);
        o.bool("queued", job.spec.overlap == Overlap::Queue && !job.runs.is_empty());
        self.fire_asked(i, Why::Client(asked.client()), out);
        Ok(o.finish())
    }

    /// Pauses or resumes. What passed in a pause was neither missed nor skipped.
    pub(in crate::core) fn schedule_pause(&mut self, req: ReqId, ids: &[String], pause: bool, out: &mut Out) {
        let answer = self.pause_jobs(ids, pause, out);
        self.reply(req, answer, !self.journal_full, out);
    }

    fn pause_jobs(&mut self, ids: &[String], pause: bool, out: &mut Out) -> Answer {
        let places = self.jobs(ids)?;
        let now = self.now;
        let mut rows = Vec::new();
        for i in places {
            let job: &mut Job = &mut self.schedules.jobs[i];
            let changed = job.paused() != pause;
            if changed {
                // What has come up to now is decided as it was meant until now.
                if !pause {
                    job.pass(now);
                }
                job.choice = (pause != job.spec.paused).then_some(pause);
                job.save = true;
            }
            let mut o = Obj::new();
            o.str("id", &job.id).bool("paused", pause).bool("changed", changed);
            o.opt_str("next", job.next_due(now).map(|at| job.spec.zone.show(at)).as_deref());
            rows.push(o.finish());
            if pause {
                for fire in core::mem::take(&mut job.queue) {
                    self.skip(i, &fire, "it was paused", out);
                }
            }
            self.schedules.touch(i);
        }
        Ok(format!("{{\"jobs\":[{}]}}", rows.join(",")))
    }
}
