//! Jobs as replies, and their story. Pure.

use super::{Job, Outcome, Past};
use crate::base::json::{Obj, json_list};
use crate::base::time::Wall;
use crate::base::units::{canonical_duration, human_duration};
use crate::config::schedule::{Action, When};
use crate::config::{JobSpec, job_json, masked_job};
use crate::core::Core;
use core::time::Duration;

/// Most times that one request is told.
const NEXT_MAX: usize = 1_000;
/// Runs that the story goes back to.
const STORY_RUNS: usize = 5;

/// `30 2 * * *`, `every 90s`, `at 2027-01-01T00:00`.
fn time_text(spec: &JobSpec) -> String {
    match (&spec.cron, spec.every, &spec.at) {
        (Some(cron), ..) => cron.text.clone(),
        (None, Some(every), _) => format!("every {}", canonical_duration(every)),
        (None, None, Some(at)) => format!("at {at}"),
        (None, None, None) => String::new(),
    }
}

fn action_text(spec: &JobSpec) -> String {
    spec.action.as_ref().map(Action::text).unwrap_or_default()
}

impl Job {
    fn state(&self) -> &'static str {
        if !self.runs.is_empty() {
            "running"
        } else if self.paused() {
            "paused"
        } else if !self.queue.is_empty() {
            "queued"
        } else if self.next_after(self.seen).is_none() && !self.is_of_boots() {
            "over"
        } else {
            "waiting"
        }
    }

    fn is_of_boots(&self) -> bool {
        matches!(self.spec.when(), When::Reboot)
    }

    /// Why no time of the clock follows.
    fn no_time(&self) -> &'static str {
        if self.is_of_boots() {
            "it runs once in each boot of the machine, at no time of the clock"
        } else {
            "it has no time left at which it could run"
        }
    }

    fn last(&self) -> Option<&Past> {
        self.history.back()
    }
}

impl Past {
    fn json(&self) -> String {
        let mut o = Obj::new();
        o.u64("number", self.number).str("due", &self.due.to_string()).str("began", &self.began.to_string());
        o.str("ended", &self.ended.to_string()).u64("took_ms", self.took_ms).str("result", self.result.word());
        o.opt_str("message", self.message.as_deref()).str("cause", &self.why.text());
        o.finish()
    }

    fn line(&self) -> String {
        let took = human_duration(Duration::from_millis(self.took_ms));
        let how = match self.result {
            Outcome::Done => format!("was done after {took}"),
            Outcome::Failed => format!("failed after {took}"),
            Outcome::TimedOut => format!("was given up after {took}"),
            Outcome::Replaced => format!("was given up after {took} for the next one"),
            Outcome::Lost => "was lost".to_owned(),
        };
        let why = self.message.as_deref().map_or_else(String::new, |m| format!(": {m}"));
        format!("{}: run {}, begun {}, {how}{why}", self.began, self.number, self.why.text())
    }
}

impl Core {
    pub(super) fn job_row(&self, i: usize) -> Obj {
        let job = &self.schedules.jobs[i];
        let (spec, last) = (&job.spec, job.last());
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let mut o = Obj::new();
        o.str("id", &job.id).str("state", job.state()).bool("paused", job.paused());
        o.str("time", &time_text(spec)).str("tz", spec.zone.name()).str("action", &action_text(spec));
        o.opt_str("next", job.next_due(self.now).map(|at| at.to_string()).as_deref());
        let began = job.runs.last().map(|r| r.began.wall).max(last.map(|p| p.began));
        o.opt_str("last", began.map(|at| at.to_string()).as_deref());
        o.opt_str("last_result", last.map(|p| p.result.word()));
        o.opt_str("last_message", last.and_then(|p| p.message.as_deref()));
        o.u64("running", count(job.runs.len())).u64("queued", count(job.queue.len()));
        o.u64("runs", job.number).u64("missed", job.missed).u64("skipped", job.skipped);
        o
    }

    pub(super) fn job_detail(&self, i: usize) -> String {
        let job = &self.schedules.jobs[i];
        let mut o = self.job_row(i);
        o.raw("config", &job_json(&masked_job(&job.spec)));
        o.u64("delay_ms", crate::core::run::millis(job.delay));
        if let When::Times(cron) = job.spec.when() {
            o.str("means", &cron.words());
        }
        let next: Vec<String> = self.job_times(i, 5).into_iter().map(|at| job.spec.zone.show(at)).collect();
        o.raw("next_times", &json_list(&next)).raw("history", &self.past(i, usize::MAX));
        o.finish()
    }

    fn past(&self, i: usize, limit: usize) -> String {
        let history = &self.schedules.jobs[i].history;
        let runs: Vec<String> = history.iter().rev().take(limit).map(Past::json).collect();
        format!("[{}]", runs.join(","))
    }

    pub(super) fn job_history(&self, i: usize, limit: usize) -> String {
        let job = &self.schedules.jobs[i];
        let mut o = Obj::new();
        o.str("id", &job.id).raw("runs", &self.past(i, limit));
        let running = job.runs.iter().map(|r| {
            let mut o = Obj::new();
            o.u64("number", r.number).str("due", &r.due.to_string()).str("began", &r.began.wall.to_string());
            o.str("cause", &r.why.text());
            o.finish()
        });
        o.raw("running", &format!("[{}]", running.collect::<Vec<_>>().join(",")));
        o.finish()
    }

    /// The next moments at which it would begin here.
    fn job_times(&self, i: usize, count: usize) -> Vec<Wall> {
        let job = &self.schedules.jobs[i];
        let delay = i64::try_from(job.delay.as_millis()).unwrap_or(0);
        let mut at = job.seen.max(job.clock(self.now));
        let next = || {
            at = job.next_after(at)?;
            Some(Wall(at.0.saturating_add(delay)))
        };
        core::iter::from_fn(next).take(count.min(NEXT_MAX)).collect()
    }

    pub(super) fn job_next(&self, i: usize, count: usize) -> String {
        let job = &self.schedules.jobs[i];
        let times: Vec<String> = self.job_times(i, count).into_iter().map(|at| job.spec.zone.show(at)).collect();
        let mut o = Obj::new();
        o.str("id", &job.id).bool("paused", job.paused()).raw("next", &json_list(&times));
        if times.is_empty() {
            o.str("message", job.no_time());
        }
        o.finish()
    }

    /// The reply of `daemon.why` for a job.
    pub(in crate::core) fn why_job(&self, i: usize) -> String {
        let job = &self.schedules.jobs[i];
        let id = &job.id;
        let next = job.next_due(self.now).map(|at| self.in_words(job, at));
        let summary = match (job.state(), job.last()) {
            ("running", _) => {
                let run = job.runs.last();
                let since = run.map(|r| human_duration(self.now.mono.since(r.began.mono))).unwrap_or_default();
                format!("{id} has been at work for {since}, to {}", action_text(&job.spec))
            }
            ("paused", _) => format!("{id} is paused"),
            ("queued", _) => format!("{id} waits to run {} times", job.queue.len()),
            ("over", None) => format!("{id} has no time left at which it could run"),
            (state, Some(p)) if p.result != Outcome::Done => {
                let why = p.message.as_deref().unwrap_or("it was given up");
                let next = if state == "over" { "has no time left" } else { "waits for its next time" };
                format!("{id} {next}; its last run failed: {why}")
            }
            ("over", Some(_)) => format!("{id} has run and has no time left"),
            (_, last) => {
                let first = if last.is_none() { "first" } else { "next" };
                format!("{id} waits for its {first} time, to {}", action_text(&job.spec))
            }
        };
        let mut story: Vec<String> = Vec::new();
        let skip = job.history.len().saturating_sub(STORY_RUNS);
        story.extend(job.history.iter().skip(skip).map(Past::line));
        story.extend(job.runs.iter().map(|r| format!("{}: run {} was begun {}", r.began.wall, r.number, r.why.text())));
        if job.missed > 0 {
            story.push(format!("{} of its times were missed in all", job.missed));
        }
        if job.skipped > 0 {
            story.push(format!("{} of its times were left out because of overlap or a pause", job.skipped));
        }
        let mut o = Obj::new();
        o.str("name", id).str("state", job.state()).str("summary", &summary).raw("story", &json_list(&story));
        let none = || if job.is_of_boots() { job.no_time() } else { "nothing, by the clock" }.to_owned();
        o.str("next", &next.unwrap_or_else(none));
        let mut todo = Vec::new();
        if job.paused() {
            todo.push(format!("hob schedule resume {id}"));
        }
        todo.push(format!("hob schedule run {id}  # to run it now"));
        todo.push(format!("hob schedule next {id}  # to see when it runs"));
        o.raw("todo", &json_list(&todo));
        o.finish()
    }

    fn in_words(&self, job: &Job, at: Wall) -> String {
        let left = at.since(self.now.wall);
        let whole = Duration::from_secs(left.as_secs());
        format!("it runs at {}, in {}", job.spec.zone.show(at), human_duration(whole))
    }
}
