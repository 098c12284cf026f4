//! A record in the middle of the journal is damaged and set aside: what the model believes of that entity is what is
//! left of it on disk. Everything else stays as it was, and nothing comes to be.

use crate::check::Wish;
use crate::jobs_model::{Fire, Going, Jobs};
use crate::tasks_model::{Change, Job, Phase, Tasks};
use crate::world::World;
use hob::base::ids::TaskId;
use hob::core::End;
use hob::protocol::methods::task::{After, TaskState};
use serde_json::Value;
use std::collections::BTreeSet;

/// Kinds of records that are damaged here; the daemon's own are few.
const KINDS: [&str; 6] = ["task", "attempt", "group", "schedule", "service", "key"];

fn small(v: &Value, otherwise: u32) -> u32 {
    v.as_u64().and_then(|n| u32::try_from(n).ok()).unwrap_or(otherwise)
}

impl World<'_> {
    /// The machine loses its power, and one of the records is not what was written.
    pub fn damage(&mut self, pick: u64) {
        self.power_loss(0);
        let kind = |key: &str| key.split('/').next().is_some_and(|k| KINDS.contains(&k));
        let Some(key) = self.disk.damage(pick, kind) else { return };
        self.note(|| format!("* the record of {key} is damaged"));
        self.gap = true;
        self.damaged.insert(key.clone());
        let json = self.disk.get(&key).map(str::to_owned);
        let v: Value = json.as_deref().and_then(|j| serde_json::from_str(j).ok()).unwrap_or_default();
        let (kind, name) = key.split_once('/').unwrap_or_default();
        match kind {
            "task" | "attempt" => {
                let id = TaskId(name.parse().unwrap_or_default());
                let task = self.disk.get(&format!("task/{name}")).map(str::to_owned);
                let attempt = self.disk.get(&format!("attempt/{name}")).map(str::to_owned);
                self.check.tasks.reread(id, task.as_deref(), attempt.as_deref());
            }
            "group" => self.check.tasks.reread_group(name, &v),
            "schedule" => {
                self.check.jobs.reread(name, json.is_some().then_some(&v));
            }
            "service" => {
                self.check.spoken(name, false);
                self.check.set_wish(name, Wish::Either, 0, 0);
            }
            _ => self.clients.new_keeper(),
        }
    }
}

impl Tasks {
    fn reread_group(&mut self, name: &str, v: &Value) {
        let number = |v: &Value| v.as_u64().and_then(|n| u32::try_from(n).ok());
        let change = Change {
            parallel: number(&v["parallel"]),
            weight_limit: number(&v["weight_limit"]),
            paused: v["paused"].as_bool(),
        };
        self.changes.insert(name.to_owned(), change);
    }

    /// One task as its records say now.
    fn reread(&mut self, id: TaskId, task: Option<&str>, attempt: Option<&str>) {
        let old = self.jobs.remove(&id).or_else(|| self.removed.get(&id).cloned());
        let Some(task) = task.and_then(|json| serde_json::from_str::<Value>(json).ok()) else { return };
        let uid = old.as_ref().map_or_else(|| self.new_uid(), |j| j.uid);
        let text = |v: &Value| v.as_str().map(str::to_owned);
        let (agent, frame) = (text(&task["agent"]), &task["frame"]);
        let words: Vec<String> = task["command"].as_array().into_iter().flatten().filter_map(text).collect();
        let after = |v: &Value| After { id: TaskId(v["id"].as_u64().unwrap_or(0)), any: v["any"] == true };
        let mut job = Job {
            uid,
            owner: text(&frame["owner"]).unwrap_or_default(),
            words: text(&task["prompt"]).map_or(words, |prompt| vec![prompt]),
            agent,
            runner: text(&frame["runner"]),
            group: text(&frame["group"]).unwrap_or_default(),
            priority: task["priority"].as_i64().and_then(|n| i32::try_from(n).ok()).unwrap_or(0),
            weight: small(&task["weight"], 1),
            retries: small(&task["retries"], 0),
            backoff: task["backoff_ms"].as_u64().unwrap_or(1000),
            timeout: task["timeout_ms"].as_u64().unwrap_or(7_200_000),
            repeatable: frame["repeatable"] == true,
            after: task["after"].as_array().into_iter().flatten().map(after).collect(),
            not_before: task["not_before"].as_i64().unwrap_or(0),
            own: old.as_ref().and_then(|j| j.own.clone()),
            request: old.as_ref().and_then(|j| j.request.clone()),
            phase: if task["held"] == true { Phase::Held } else { Phase::Queued },
            paused: false,
            fails: 0,
            attempts: 0,
            stop: None,
            begun: 0,
            again: 0,
            again_wall: 0,
            grants: self.spawns.get(&uid).copied().unwrap_or(0) + 1,
            ripe: old.as_ref().is_some_and(|j| j.ripe),
            retried: old.as_ref().is_some_and(|j| j.retried),
            cleared: BTreeSet::new(),
            exit: None,
        };
        if let Some(a) = attempt.and_then(|json| serde_json::from_str::<Value>(json).ok()) {
            let open = a["run"].is_u64() && a["state"].is_null();
            job.attempts = small(&a["n"], 0) - u32::from(open);
            job.fails = small(&a["fails"], 0);
            job.again_wall = a["again_at"].as_i64().unwrap_or(0);
            let end = &a["outcome"]["end"];
            let number = |v: &Value| v.as_i64().and_then(|n| i32::try_from(n).ok());
            job.exit = number(&end["code"]).map(End::Code).or_else(|| number(&end["signal"]).map(End::Signal));
            match TaskState::ALL.into_iter().find(|s| a["state"] == s.name()) {
                Some(TaskState::Held) => job.phase = Phase::Held,
                Some(state) if state != TaskState::Queued => job.phase = Phase::Over(state),
                Some(_) | None => {}
            }
        }
        self.jobs.insert(id, job);
    }
}

impl Jobs {
    /// One job as its record says now. `None`: the next daemon does not know it yet.
    fn reread(&mut self, id: &str, v: Option<&Value>) {
        let Some(mut job) = self.all.remove(id) else { return };
        let Some(v) = v else { return };
        job.decided = v["seen"].as_i64().unwrap_or(0);
        job.decided_at = v["decided"].as_i64().unwrap_or(0);
        job.was_paused = v["was_paused"] == true;
        job.high = v["high"].as_i64();
        job.anchor = v["anchor"].as_i64().unwrap_or(0);
        job.boot = v["boot"].as_str().and_then(|n| n.parse().ok()).unwrap_or(0);
        job.choice = v["paused"].as_bool();
        let count = |v: &Value| v.as_u64().unwrap_or(0);
        (job.number, job.missed, job.skipped) = (count(&v["number"]), count(&v["missed"]), count(&v["skipped"]));
        let why = |v: &Value| match v.as_str() {
            Some("due") => "due",
            Some("missed") => "missed",
            Some("boot") => "boot",
            _ => "client",
        };
        let fire = |v: &Value| Fire { due: v["due"].as_i64().unwrap_or(0), why: why(&v["why"]), not_before: 0 };
        job.queue = v["queue"].as_array().into_iter().flatten().map(fire).collect();
        let run = |v: &Value| Going {
            number: count(&v["number"]),
            due: v["due"].as_i64().unwrap_or(0),
            began: 0,
            began_wall: v["began"].as_i64().unwrap_or(0),
            limit: None,
            epoch: 0,
            tasks: v["tasks"].as_array().into_iter().flatten().map(|t| TaskId(count(t))).collect(),
            given_up: !v["given_up"].is_null(),
        };
        let past = v["history"].as_array().into_iter().flatten().chain(v["runs"].as_array().into_iter().flatten());
        job.ran = past.map(|r| r["due"].as_i64().unwrap_or(0)).collect();
        job.runs = v["runs"].as_array().into_iter().flatten().map(run).collect();
        self.all.insert(id.to_owned(), job);
    }
}
