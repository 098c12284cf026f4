//! Tasks as clients see them. Pure.

use super::{Outcome, Task, TaskStop, Work};
use crate::base::ids::TaskId;
use crate::base::json::{Obj, json_str};
use crate::base::time::Wall;
use crate::core::Core;
use crate::core::run::{Ended, millis, signal_name};
use crate::protocol::methods::task::TaskState;
use crate::protocol::rpc::RpcError;

/// Letters of a prompt that a list shows.
const PROMPT_SHOWN: usize = 120;
/// Bytes of all words of a command that a list shows.
const COMMAND_SHOWN: usize = 1_000;

fn list(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(","))
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

fn pairs(pairs: &[(String, String)]) -> String {
    let mut text = String::new();
    for (name, value) in pairs {
        if !text.is_empty() {
            text.push(',');
        }
        json_str(name, &mut text);
        text.push(':');
        json_str(value, &mut text);
    }
    format!("{{{text}}}")
}

impl Core {
    /// The members that a list shows of a task; `whole`: its command is not cut.
    pub(super) fn task_row(&self, t: &Task, whole: bool) -> Obj {
        let mut o = Obj::new();
        o.u64("id", t.id.0).str("state", t.state.name());
        match &t.work {
            Work::Command(words) => {
                let cut = words.len() > COMMAND_SHOWN && !whole;
                let begin = || (0..=COMMAND_SHOWN).rev().find_map(|end| words.get(..end)).unwrap_or_default();
                let shown = if cut { begin() } else { words };
                o.raw("command", &json(&shown.split('\0').collect::<Vec<_>>()));
                if cut { o.bool("command_cut", true) } else { &mut o }
            }
            Work::Agent { name, prompt } => {
                let shown: String = prompt.chars().take(PROMPT_SHOWN).collect();
                o.null("command").str("agent", name).str("prompt", &shown)
            }
        };
        o.str("group", &t.frame.group).i64("priority", t.priority.into()).str("owner", &t.frame.owner.to_string());
        o.raw("labels", &pairs(&t.frame.labels));
        o.str("submitted", &t.submitted.to_string());
        outcome(t.outcome.as_deref().filter(|_| t.live.is_none()), &mut o);
        let live = t.live.as_deref();
        match live {
            Some(l) => o.str("started", &l.begun.wall.to_string()),
            None => o.opt_str("started", t.outcome.as_ref().map(|r| r.started.to_string()).as_deref()),
        };
        let ended = t.ended().filter(|_| live.is_none()).map(|at| at.to_string());
        o.opt_str("ended", ended.as_deref());
        if t.outcome.as_deref().is_some_and(|o| is_over_limit(t, o)) {
            o.bool("over_limit", true);
        }
        o.u64("attempts", t.attempts.into());
        o.opt_u64("pid", live.filter(|l| l.end.is_none()).and_then(|l| l.pid).map(u64::from));
        o.opt_str("why", self.reason(t).as_deref());
        o
    }

    /// One task in detail.
    pub(super) fn task_json(&self, id: TaskId) -> Result<String, RpcError> {
        let t = self.tasks.get(id).ok_or_else(|| super::calls::unknown(id))?;
        let mut o = self.task_row(t, true);
        if let Work::Agent { prompt, .. } = &t.work {
            o.str("whole_prompt", prompt);
        }
        o.opt_str("cwd", t.frame.cwd.as_deref());
        // Values may be secrets; the names say enough.
        o.raw("env", &list(t.frame.env.iter().map(|(name, _)| json(name))));
        o.raw("after", &json(&t.after)).u64("weight", t.weight.into());
        o.u64("retries", t.retries.into()).u64("failures", t.fails.into());
        o.u64("backoff_ms", millis(t.backoff)).u64("timeout_ms", millis(t.timeout));
        o.opt_str("not_before", Some(t.earliest()).filter(|at| at.0 > 0).map(|at: Wall| at.to_string()).as_deref());
        o.opt_u64("stdin_bytes", t.stdin.as_ref().map(|s| u64::try_from(s.len()).unwrap_or(u64::MAX)));
        o.opt_str("key", t.keys.as_ref().and_then(|k| k.own.as_ref()).map(|k| &*k.text));
        o.opt_str("runner", t.frame.runner.as_deref()).bool("repeatable", t.frame.repeatable);
        o.u64("max_output", kept_of(t));
        o.opt_u64("run", t.run().map(|r| r.0));
        let lines = t.outcome.as_deref().map(|r| &r.lines[..]).unwrap_or_default();
        o.raw("last_lines", &json(&lines));
        let followers: Vec<u64> = self.tasks.followers.get(&id).into_iter().flatten().map(|f| f.0).collect();
        o.raw("followers", &json(&followers));
        Ok(o.finish())
    }

    /// Why a task is where it is, as a clause, where its state alone does not say it.
    pub(super) fn reason(&self, t: &Task) -> Option<String> {
        if let Some(live) = t.live.as_deref() {
            let left = live.sequence.names();
            return match &live.stop {
                Some(why) => {
                    let why = match why {
                        TaskStop::Client(c) => format!("being cancelled by {}", c.text()),
                        TaskStop::Timeout => "being stopped because it took too long".to_owned(),
                        TaskStop::Shutdown => "being stopped because hob is shutting down".to_owned(),
                        TaskStop::KeeperGone => "being stopped because hob's keeper was killed".to_owned(),
                    };
                    Some(if left.is_empty() { why } else { format!("{why}, waiting for {left}") })
                }
                None if live.end.is_some() && !left.is_empty() => Some(format!("its children still run: {left}")),
                None => None,
            };
        }
        if t.state != TaskState::Queued {
            return t.why.as_deref().map(str::to_owned);
        }
        match (&t.why, self.obstacle(t)) {
            (Some(why), Some(obstacle)) => Some(format!("{why}; {obstacle}")),
            (Some(why), None) => Some(why.to_string()),
            (None, obstacle) => obstacle,
        }
    }

    /// What a queued task waits for.
    fn obstacle(&self, t: &Task) -> Option<String> {
        let group = self.tasks.groups.get(&t.frame.group);
        let open = self.open_before(t);
        if !open.is_empty() {
            return Some(format!("waits for {}", super::why::tasks(&open)));
        }
        if t.earliest() > self.now.wall {
            let at = format!("waits until {}", t.earliest());
            let retry = t.fails > 0 && t.why.is_none();
            return Some(if retry { format!("retry {} of {}; {at}", t.fails, t.retries) } else { at });
        }
        match group {
            _ if self.tasks.blind => Some("waits for a config that can be read".to_owned()),
            Some(g) if g.paused() => Some(format!("group {} is paused", t.frame.group)),
            Some(g) if g.parallel() == 0 => Some(format!("group {} has no slots", t.frame.group)),
            Some(g) if g.running >= g.parallel() => Some(match g.parallel() {
                1 => format!("the only slot of group {} is taken", t.frame.group),
                n => format!("all {n} slots of group {} are taken", t.frame.group),
            }),
            Some(g) if !g.has_room(t.weight) => Some(format!(
                "its weight {} does not fit into group {}, which runs {} of {}",
                t.weight,
                t.frame.group,
                g.weight,
                g.weight_limit()
            )),
            _ if self.tasks.crowded => {
                Some(format!("hob may have files open for {} runs at once, which is reached", self.facts.runs_max))
            }
            _ if !self.orphans.is_empty() => {
                Some("waits for the end of what was left running when hob and its keeper were killed".to_owned())
            }
            _ if self.journal_behind.is_some() => Some("waits for the journal, which cannot be written".to_owned()),
            _ => None,
        }
    }
}

/// Whether a task wrote more than is kept.
pub(super) fn is_over_limit(t: &Task, outcome: &Outcome) -> bool {
    outcome.output.is_some_and(|bytes| bytes > kept_of(t))
}

/// How much of its output is kept.
pub(super) fn kept_of(t: &Task) -> u64 {
    t.frame.max_output.unwrap_or(super::MAX_OUTPUT)
}

/// How the last attempt ended.
fn outcome(outcome: Option<&Outcome>, o: &mut Obj) {
    let (code, signal) = match outcome.map(|r| &r.end) {
        Some(Ended::Code(c)) => (Some(*c), None),
        Some(Ended::Signal(n)) => (None, Some(*n)),
        Some(Ended::NotStarted(_) | Ended::Delayed(_) | Ended::Unknown) | None => (None, None),
    };
    match code {
        Some(code) => o.i64("exit_code", i64::from(code)),
        None => o.null("exit_code"),
    };
    if let Some(n) = signal {
        o.i64("signal", i64::from(n)).str("signal_name", &signal_name(n));
    }
    if let Some(Ended::NotStarted(e) | Ended::Delayed(e)) = outcome.map(|r| &r.end) {
        o.str("error", e);
    }
    if let Some(r) = outcome {
        o.u64("duration_ms", millis(r.ended.since(r.started)));
        o.u64("cpu_ms", r.cpu_ms).opt_u64("memory", Some(r.memory).filter(|m| *m > 0));
        o.opt_u64("output_bytes", r.output);
    }
}
