//! What the daemon answers, as plain values. A member that this version does not know is passed over, one that is
//! missing has its default: a client and a daemon of different versions understand each other.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// How a service is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    #[default]
    Stopped,
    /// It is to be up and waits for another service.
    Waiting,
    /// It was started and is not ready yet.
    Starting,
    /// It is ready.
    Running,
    Stopping,
    /// It is down until its next restart.
    Backoff,
    /// It is down and not started again.
    Failed,
    /// It ended with success and is not started again.
    Finished,
    /// A state of a newer daemon.
    #[serde(other)]
    Unknown,
}

/// `daemon.health`: whether all is well, in few numbers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Health {
    /// `ok`, `degraded`, `stopping` or `safe mode`.
    pub status: String,
    /// What is not as it should be, most important first.
    pub problems: Vec<String>,
    pub pid: u32,
    pub keeper_pid: u32,
    pub uptime_secs: u64,
    pub version: String,
    pub protocol_version: u64,
    /// How many services there are in each state.
    pub services: Counts,
}

impl Health {
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.status == "ok"
    }
}

/// Numbers of services.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    pub total: u64,
    pub stopped: u64,
    pub waiting: u64,
    pub starting: u64,
    pub running: u64,
    pub stopping: u64,
    pub backoff: u64,
    pub failed: u64,
    pub finished: u64,
    /// Of those above, how many are restarted again and again.
    pub flapping: u64,
}

/// `daemon.status`: the daemon and all that it keeps.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    pub status: String,
    pub problems: Vec<String>,
    pub pid: u32,
    pub keeper_pid: u32,
    pub uptime_secs: u64,
    pub version: String,
    pub protocol_version: u64,
    /// Counts the daemons of this keeper from 1.
    pub generation: u32,
    pub daemon_deaths: u32,
    pub counts: Counts,
    pub services: Vec<Service>,
    /// Why the config file is not in effect, if it is not.
    pub config_error: Option<String>,
    /// Sequence number of the last event.
    pub last_event: u64,
}

/// One service, as lists show it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Service {
    pub name: String,
    pub state: State,
    /// `up` or `down`: what is wanted.
    pub desired: String,
    pub autostart: bool,
    /// A person wants something else than `autostart` says.
    pub overridden: bool,
    pub pid: Option<u32>,
    pub run: Option<u64>,
    pub uptime_secs: Option<u64>,
    /// Restarts by policy since a person last started it.
    pub restarts: u32,
    pub last_error: Option<String>,
    /// Bytes.
    pub memory: Option<u64>,
    pub cpu_secs: Option<f64>,
    pub ready: bool,
    /// `ok`, `failing` or `unknown`, where it has a health check.
    pub health: Option<String>,
    pub health_error: Option<String>,
    /// What it says of itself by sd_notify.
    pub status_text: Option<String>,
    pub flapping: bool,
    pub next_restart_in_ms: Option<u64>,
    pub waiting_for: Vec<String>,
    /// Processes of it that have not ended yet.
    pub survivors: Vec<Survivor>,
    /// RFC 3339, in UTC: when it came into this state.
    pub since: String,
}

/// A process that outlives its service's main process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Survivor {
    pub pid: u32,
    pub name: String,
}

/// `service.get`: one service in detail.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Detail {
    #[serde(flatten)]
    pub service: Service,
    pub command: Vec<String>,
    /// `always`, `on-failure` or `never`.
    pub restart: String,
    pub restarts_in_a_row: u32,
    /// 0: it is never given up.
    pub max_restarts: u32,
    /// The pauses before the next restarts.
    pub next_delays_ms: Vec<u64>,
    pub runs_total: u32,
    pub runs_failed: u32,
    pub requires: Vec<String>,
    pub wants: Vec<String>,
    pub after: Vec<String>,
    pub dependants: Vec<String>,
    pub started_by: Option<String>,
    pub last_run: Option<Run>,
}

/// A run that is over.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Run {
    pub run: u64,
    /// Counts the runs of this service from 1.
    pub number: u32,
    /// Why it was started, as a clause: `by autostart`.
    pub cause: String,
    /// RFC 3339, in UTC.
    pub started: String,
    pub ready: Option<String>,
    pub ended: String,
    pub duration_ms: u64,
    pub exit_code: Option<i32>,
    pub signal: Option<i32>,
    pub signal_name: Option<String>,
    /// Why it could not be started.
    pub start_error: Option<String>,
    /// Nobody saw how it ended.
    pub unknown: bool,
    pub failed: bool,
    /// Why hob stopped it, if it did.
    pub stopped: Option<String>,
    /// How it ended, in words.
    pub outcome: String,
    pub cpu_secs: f64,
    /// Bytes.
    pub memory_peak: Option<u64>,
    pub output_bytes: Option<u64>,
    /// The end of its output, if it failed.
    pub last_lines: Vec<String>,
}

/// The run that there is now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Running {
    pub run: u64,
    pub number: u32,
    pub pid: Option<u32>,
    pub cause: String,
    pub started: String,
    pub ready: Option<String>,
}

/// `service.history`: the last runs, the latest last.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    pub name: String,
    pub runs: Vec<Run>,
    pub running: Option<Running>,
}

/// `daemon.why`: the story of a service, in sentences for people.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Why {
    pub name: String,
    pub state: State,
    pub desired: String,
    /// How it is and why, in one sentence.
    pub summary: String,
    /// What happened, newest last.
    pub story: Vec<String>,
    /// What comes next and when.
    pub next: String,
    /// What a person can do: commands that begin with `hob`, and advice.
    pub todo: Vec<String>,
    pub waiting_for: Vec<String>,
    pub next_restart_in_ms: Option<u64>,
    pub runs: Vec<Run>,
}

/// What a start, stop or restart did to one service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Changed {
    pub name: String,
    pub state: State,
    /// `started`, `already_running`, `stopped`, `already_stopped`, `restarted`; without waiting `starting`, `stopping`,
    /// `restarting`.
    pub result: String,
    pub pid: Option<u32>,
    pub run: Option<u64>,
    pub took_ms: u64,
    pub message: Option<String>,
}

/// `daemon.reload`: what the config changed, by names of services.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reloaded {
    pub added: Vec<String>,
    pub removed: Vec<String>,
    pub restarted: Vec<String>,
    pub updated: Vec<String>,
    pub unchanged: Vec<String>,
    /// The daemon was in safe mode, and the next one is not.
    pub left_safe_mode: bool,
}

/// `daemon.shutdown`: hob has begun to stop.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stopping {
    pub stopping: bool,
    /// How long the services have; what is left then is killed.
    pub limit_ms: u64,
    /// How many run.
    pub running: u64,
}

/// `event.history`: events of the past.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Events {
    pub events: Vec<Happening>,
    /// The sequence number to go on from.
    pub next: u64,
    /// Events that were asked for are no longer kept.
    pub reset: bool,
}

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Happening {
    pub seq: u64,
    /// RFC 3339, in UTC.
    pub time: String,
    /// `service.ready`, `daemon.started`, ...
    pub kind: String,
    /// The service that it is about; empty for hob itself.
    pub name: String,
    /// What else there is to say, by the kind.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn answers_of_other_versions_are_understood() {
        let newer = json!({ "name": "web", "state": "hibernating", "pid": 7, "mood": { "good": true } });
        let service: Service = serde_json::from_value(newer).unwrap();
        assert_eq!((service.state, service.pid, service.restarts), (State::Unknown, Some(7), 0));
        let older: Detail = serde_json::from_value(json!({ "name": "web", "state": "backoff", "extra": [1] })).unwrap();
        assert_eq!((older.service.state, older.service.name.as_str()), (State::Backoff, "web"));
        let event = json!({ "seq": 3, "time": "t", "kind": "service.ready", "name": "web", "pid": 7, "run": 1 });
        let event: Happening = serde_json::from_value(event).unwrap();
        assert_eq!((event.fields.len(), event.fields["pid"].as_u64()), (2, Some(7)));
    }

    #[test]
    fn states_are_those_of_the_core() {
        for state in crate::core::service::State::ALL {
            let ours: State = serde_json::from_value(json!(state.name())).unwrap();
            assert!(ours != State::Unknown && serde_json::to_value(ours).unwrap() == state.name(), "{state}");
        }
    }
}
