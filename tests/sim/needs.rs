//! What is known about a run, and what that means for those that need it.

use crate::check::{Check, Wish};
use crate::os::Os;
use hob::base::ids::RunId;
use hob::config::{Condition, ServiceSpec};
use std::sync::Arc;

/// What a core has been told about a run.
#[derive(Clone, Debug)]
pub struct Run {
    pub service: Arc<str>,
    pub spec: Arc<ServiceSpec>,
    /// The daemon that ordered the start, and the how manieth start of all it was.
    pub epoch: u64,
    pub order: u64,
    pub begun: u64,
    /// When `Started` is delivered.
    pub told_at: u64,
    pub started: bool,
    pub ready_at: Option<u64>,
    /// Since when its checks are passed, as this daemon saw it; and when hob began to stop it.
    pub well_at: Option<u64>,
    pub left_at: Option<u64>,
    /// A health check was passed, and so many failed since the last that was, by this daemon.
    pub healthy: bool,
    pub fails: u32,
    /// How many failures in a row make it unhealthy, by the last config that has it: one that is not in the present
    /// config is asked for as long as it waits for those that require it to be down.
    pub retries: Option<u32>,
    /// It was called unhealthy.
    pub faulty: bool,
    /// When it said last that it lives.
    pub pinged_at: u64,
    /// The end of the main process, or of a start that failed.
    pub over: bool,
    /// It ended well and nobody knows yet whether it was ready.
    pub hearing: bool,
    pub clean: bool,
    /// hob sent it a signal to end.
    pub stopped: bool,
    pub forgotten: bool,
    /// Of an earlier keeper.
    pub orphan: bool,
    /// Its record was lost, so that nobody can know whose it is.
    pub unrecorded: bool,
    /// Where the record of its start ends, and whether that was lost with a daemon that could not write: then it says
    /// nothing of its service.
    pub recorded: usize,
    pub lost: bool,
    /// It was silent for too long, as was written down.
    pub silent: bool,
    /// Records were lost after it was over, so its number may be given again.
    pub reusable: bool,
}

impl Check {
    pub fn reached(&self, need: &str, condition: Condition) -> bool {
        let latest = self.runs.values().filter(|r| *r.service == *need && !r.lost).max_by_key(|r| r.order);
        let Some(run) = latest else { return false };
        let up = run.started && !run.over;
        match condition {
            Condition::Finished if run.over => {
                run.clean && self.may_finish.contains(need) || self.may_fail.contains(need)
            }
            Condition::Finished => false,
            Condition::Succeeded => run.over && run.clean && self.may_finish.contains(need),
            _ if run.over && condition <= Condition::Ready => run.clean && self.may_finish.contains(need),
            Condition::Started => up,
            Condition::Ready => up && run.ready_at.is_some(),
            Condition::Healthy => {
                let asked = self.config.services.get(need).is_some_and(|s| s.health.is_some());
                up && run.ready_at.is_some() && (run.healthy || !asked)
            }
        }
    }

    /// Whoever is called unhealthy has failed often enough in a row.
    pub fn unhealthy(&mut self, line: &str) -> Result<(), String> {
        let event: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
        let run = event["run"].as_u64().and_then(|n| self.runs.get_mut(&RunId(n)));
        let Some(run) = run else { return Err(format!("health: of no run: {line}")) };
        match run.retries {
            Some(retries) if run.fails >= retries => {
                run.faulty = true;
                Ok(())
            }
            most => Err(format!("health: {} failed {} times, and {most:?} are allowed", run.service, run.fails)),
        }
    }

    /// Holds `service.list` against what is true.
    pub fn listed(&self, list: &serde_json::Value, os: &Os) -> Result<(), String> {
        let Some(services) = list["services"].as_array() else { return Err(format!("list: {list}")) };
        for s in services {
            let (name, state) = (s["name"].as_str().unwrap_or_default(), s["state"].as_str().unwrap_or_default());
            let at_rest = matches!(state, "stopped" | "waiting" | "backoff" | "failed" | "finished");
            if at_rest && let Some(p) = os.of_service(name).find(|p| self.counts(p)) {
                return Err(format!("stopped: {name} is {state}, and process {} of run {} lives", p.pid, p.run));
            }
            let open = os.sockets.get(name);
            if matches!(state, "stopped" | "failed" | "finished") && open.is_some() && !self.blind {
                return Err(format!("sockets: {name} is {state}, and its sockets are open"));
            }
            if open == Some(&true) && state != "waiting" {
                return Err(format!("sockets: {name} is {state}, and its sockets are watched"));
            }
            let desired = s["desired"].as_str().unwrap_or_default();
            // Without a config there is nothing to wish for.
            let known = !self.blind && self.config.services.contains_key(name);
            match (self.wish(name), desired) {
                (Wish::Up, "up") | (Wish::Down, "down") | (Wish::Auto | Wish::Either, "up" | "down") => {}
                (wish, _) if known => {
                    return Err(format!("wish: {name} is wanted {wish:?}, and the core says {desired}"));
                }
                _ => {}
            }
            let main = os.of_service(name).find(|p| p.main).map(|p| u64::from(p.pid));
            if let (Some(pid), Some(main)) = (s["pid"].as_u64(), main)
                && pid != main
            {
                return Err(format!("list: {name} has pid {pid}, and its process is {main}"));
            }
        }
        Ok(())
    }
}
