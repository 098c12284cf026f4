//! Jobs of the schedule as plain values: when, what, and what happens when that does not go together. Touches nothing.

pub(super) mod keys;
pub(super) mod read;
#[cfg(test)]
mod tests;

use super::cron::{Cron, Expression, Zone};
use super::spec::Signal;
use crate::base::signal::Platform;
use crate::base::time::Wall;
use crate::protocol::methods::Request;
use core::time::Duration;

/// One job. `impl Default` gives the documented defaults (with neither a time nor an action).
#[derive(Clone, Debug, PartialEq)]
pub struct JobSpec {
    pub id: String,
    /// Exactly one of these three is set.
    pub cron: Option<CronText>,
    pub every: Option<Duration>,
    /// As it was written; a time without a zone is one of `zone`.
    pub at: Option<String>,
    /// Set in every config that was taken.
    pub action: Option<Action>,
    /// As it was written; unset: the local time of the machine.
    pub tz: Option<String>,
    /// What `tz` means.
    pub zone: Zone,
    pub overlap: Overlap,
    pub missed: Missed,
    /// Runs that are made up for or wait for their turn, at most.
    pub limit: u32,
    /// Time between two runs that are made up for.
    pub stagger: Duration,
    /// Each host begins later by a part of this that is its own.
    pub jitter: Duration,
    pub timeout: Option<Duration>,
    /// Until a person resumes it.
    pub paused: bool,
}

/// An expression and its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CronText {
    pub text: String,
    pub expression: Expression,
}

/// What a job does.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Submit this task: the params of task.submit as JSON, and what that method makes of them.
    Task {
        spec: String,
        request: Request,
    },
    Service {
        verb: Verb,
        names: Vec<String>,
    },
    Signal {
        service: String,
        signal: Signal,
    },
    /// Call a method of the protocol; `params` is JSON.
    Call {
        method: String,
        params: String,
        request: Request,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Start,
    Stop,
    Restart,
    Reload,
}

/// What happens when a job is due while its last run goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overlap {
    /// This time it is left out.
    Skip,
    /// It waits for the end of the run.
    Queue,
    /// Both run.
    Allow,
    /// The run is given up for the new one.
    Restart,
}

/// What happens when its time passed while nobody could run it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missed {
    Skip,
    /// It runs once, however often it was missed.
    Once,
    /// It runs as often as it was missed, up to `limit`.
    All,
}

/// When a job is due.
#[derive(Clone, Copy, Debug)]
pub enum When<'a> {
    Times(&'a Cron),
    /// So often, from an anchor on that the one who keeps time knows.
    Every(Duration),
    Once(Wall),
    Reboot,
    /// It was taken out of a config that was not taken.
    Never,
}

impl JobSpec {
    #[must_use]
    pub fn when(&self) -> When<'_> {
        match (&self.cron, self.every, &self.at) {
            (Some(CronText { expression: Expression::Times(cron), .. }), ..) => When::Times(cron),
            (Some(CronText { expression: Expression::Reboot, .. }), ..) => When::Reboot,
            (None, Some(every), _) => When::Every(every),
            (None, None, Some(at)) => self.zone.read(at).map_or(When::Never, When::Once),
            (None, None, None) => When::Never,
        }
    }
}

impl Action {
    /// A clause that follows "to": `restart web`.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Action::Task { .. } => "submit a task".to_owned(),
            Action::Service { verb, names } => format!("{} {}", verb.word(), names.join(", ")),
            Action::Signal { service, signal } => {
                format!("send {} to {service}", Platform::own().signal_name(signal.number))
            }
            Action::Call { method, .. } => format!("call {method}"),
        }
    }
}

impl Verb {
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Verb::Start => "start",
            Verb::Stop => "stop",
            Verb::Restart => "restart",
            Verb::Reload => "reload",
        }
    }
}

impl Default for JobSpec {
    fn default() -> Self {
        JobSpec {
            id: String::new(),
            cron: None,
            every: None,
            at: None,
            action: None,
            tz: None,
            zone: Zone::utc(),
            overlap: Overlap::Skip,
            missed: Missed::Skip,
            limit: 10,
            stagger: Duration::from_secs(1),
            jitter: Duration::ZERO,
            timeout: None,
            paused: false,
        }
    }
}
