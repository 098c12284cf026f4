//! Why a service is as it is: the present state, what led to it, what comes next and what a person can do, for people.
//! Pure.

use super::{Cause, Ended, RunRecord, StopWhy, counted, millis};
use crate::base::json::Obj;
use crate::base::units::human_duration;
use crate::config::{Ready, Restart};
use crate::core::Core;
use crate::core::service::backoff::preview;
use crate::core::service::health::Pulse;
use crate::core::service::stop::Phase;
use crate::core::service::{Choice, Live, Service, State};
use crate::core::view::desired;
use core::time::Duration;

/// Runs that the story goes back to.
const STORY_RUNS: usize = 5;

impl Core {
    /// The reply of `daemon.why`.
    pub(in crate::core) fn why(&self, i: usize) -> String {
        let s = &self.table[i];
        let runs: Vec<String> = s.history.iter().map(RunRecord::json).collect();
        let list = |lines: Vec<String>| serde_json::to_string(&lines).unwrap_or_default();
        let mut o = Obj::new();
        o.str("name", &s.name).str("state", s.state.name()).str("desired", desired(s));
        o.str("summary", &self.summary(i));
        o.raw("story", &list(self.story(i)));
        o.str("next", &self.what_next(i));
        o.raw("todo", &list(self.todo(i)));
        o.raw("waiting_for", &serde_json::to_string(&self.waiting_for(i)).unwrap_or_default());
        o.opt_u64("next_restart_in_ms", self.next_in(s));
        o.raw("runs", &format!("[{}]", runs.join(",")));
        o.finish()
    }

    /// One sentence that says how it is and why.
    fn summary(&self, i: usize) -> String {
        let s = &self.table[i];
        let name = &s.name;
        let live = s.live.as_deref();
        match s.state {
            State::Running => {
                let said = live.and_then(|l| l.status_text.as_deref());
                let doing =
                    live.and_then(|l| l.doing).map(|d| format!("; it says it is {}", d.name())).unwrap_or_default();
                let said = said.map(|t| format!("; it says {t:?}")).unwrap_or_default();
                let health = live.and_then(|l| l.pulse.as_deref()).map(health_text).unwrap_or_default();
                format!("{name} has been running for {}, {}{health}{doing}{said}", self.run_age(live), started(live))
            }
            State::Starting if s.spec.oneshot => format!("{name} has been at work for {}", self.run_age(live)),
            State::Starting => {
                format!(
                    "{name} was started {} ago and is not ready yet: {}",
                    self.run_age(live),
                    awaited(&s.spec.ready)
                )
            }
            State::Waiting => format!("{name} waits for {}", non_empty(self.waiting_text(i), "its turn")),
            State::Stopping => self.stopping_summary(i),
            State::Backoff => {
                let left = human_duration(tenths(Duration::from_millis(self.next_in(s).unwrap_or(0))));
                match s.last().map(|r| &r.end) {
                    Some(Ended::NotStarted(e) | Ended::Delayed(e)) => {
                        format!("{name} could not be started: {e}; the next try is in {left}")
                    }
                    _ => format!("{name} is down: {}; it is started again in {left}", last_outcome(s)),
                }
            }
            State::Failed => format!("{name} failed and is not started again: {}", last_error(s)),
            State::Finished => format!("{name} has finished: {}", last_outcome(s)),
            State::Stopped => stopped_summary(s),
        }
    }

    fn run_age(&self, live: Option<&Live>) -> String {
        human_duration(whole(live.map(|l| self.now.mono.since(l.begun.mono)).unwrap_or_default()))
    }

    fn stopping_summary(&self, i: usize) -> String {
        let s = &self.table[i];
        let Some(live) = s.live.as_deref() else { return format!("{} is stopping", s.name) };
        let why = match (&live.stop, &live.end) {
            (Some(why), _) => format!("is being stopped {}", why.text()),
            (None, Some((end, _))) => format!("ended with {}", end.text()),
            (None, None) => "is stopping".to_owned(),
        };
        let unknown = if live.end.is_some() && live.sequence.command { "its stop command" } else { "its main process" };
        let whom = non_empty(self.waiting_text(i), unknown);
        let grace = live.sequence.kill_at.map(|at| human_duration(tenths(at.since(self.now.mono))));
        let state = match (live.sequence.phase, grace) {
            (Phase::Killed, _) => format!("everything of it was killed, and still there is {whom}"),
            (Phase::Asked | Phase::Leftovers, Some(grace)) => format!("waiting for {whom}, to be killed in {grace}"),
            (Phase::Held, _) => format!("first {whom}"),
            (Phase::Commanded, Some(grace)) => format!("its stop command was run; the signal follows in {grace}"),
            (Phase::Unborn, _) => "its start is still under way".to_owned(),
            (Phase::Idle | Phase::Commanded | Phase::Asked | Phase::Looking | Phase::Leftovers, _) => {
                format!("waiting for {whom}")
            }
        };
        format!("{} {why}: {state}", s.name)
    }

    /// What happened, newest last.
    fn story(&self, i: usize) -> Vec<String> {
        let s = &self.table[i];
        let mut lines = Vec::new();
        let skip = s.history.len().saturating_sub(STORY_RUNS);
        if skip > 0 {
            let earlier = s.history.get(skip).map_or(0, |r| r.number.saturating_sub(1));
            lines.push(format!("{earlier} earlier {}", if earlier == 1 { "run" } else { "runs" }));
        }
        for r in s.history.iter().skip(skip) {
            lines.push(run_line(r));
            if r.background {
                let what = "ended at once with code 0 and left children: it seems to put itself into the background";
                lines.push(format!("  its main process {what}"));
            }
            lines.extend(r.lines.iter().map(|l| format!("  | {l}")));
        }
        if let Some(live) = s.live.as_deref() {
            lines.push(live_line(live));
        }
        if s.transient {
            lines.push("it is transient: a request made it, and a stop removes it".to_owned());
        }
        if s.state == State::Waiting {
            lines.push(format!("{}: began to wait for {}", s.since.wall, non_empty(self.waiting_text(i), "its turn")));
        }
        match s.choice {
            Choice::Up => lines.push("a person said it should be up".to_owned()),
            Choice::Down => lines.push("a person said it should be down".to_owned()),
            Choice::Auto if s.pulled => lines.push("another service needs it".to_owned()),
            Choice::Auto => {}
        }
        lines
    }

    /// What comes next and when.
    fn what_next(&self, i: usize) -> String {
        let s = &self.table[i];
        if self.safe.is_some() {
            return "hob is in safe mode: nothing is started or stopped until a reload".to_owned();
        }
        match s.state {
            State::Running | State::Starting => on_end(s),
            State::Waiting => format!("it starts after {}", non_empty(self.waiting_for(i).join(" and "), "that")),
            State::Stopping if self.may_run(i) && s.stop_mark().is_some() => {
                "it is started again once nothing of it is left".to_owned()
            }
            State::Stopping if s.stop_mark().is_some() => "it is down once nothing of it is left".to_owned(),
            State::Stopping => "what it left behind is stopped, then its restart policy decides".to_owned(),
            State::Backoff => {
                let left = Duration::from_millis(self.next_in(s).unwrap_or(0));
                // The present delay was counted already, so the ones after it begin at the streak.
                let later: Vec<String> =
                    preview(&s.spec, s.counters.streak, 2).into_iter().map(human_duration).collect();
                let left = human_duration(tenths(left));
                match &s.cause {
                    Cause::Retry { n } => {
                        format!("try {} in {left}, and again until the machine has what it needs", n + 1)
                    }
                    _ => format!("restart {} in {left}, then after {}", s.counters.streak, later.join(", ")),
                }
            }
            State::Failed | State::Finished => "nothing happens by itself".to_owned(),
            State::Stopped if self.life.stopping.is_some() => "hob is shutting down".to_owned(),
            State::Stopped => "it stays down until somebody starts it or something that needs it".to_owned(),
        }
    }

    /// What a person can do about it.
    fn todo(&self, i: usize) -> Vec<String> {
        let s = &self.table[i];
        let name = &s.name;
        let mut all = Vec::new();
        if self.safe.is_some() {
            return Core::ways_out_of_safe_mode();
        }
        if s.last().is_some_and(|r| r.background && r.asked.is_none()) {
            all.push(format!("tell {name} to stay in the foreground, or set \"leave_children\": true"));
        }
        if let Some(hint) = s.last().and_then(|r| end_hint(s, r)) {
            all.push(hint);
        }
        match s.state {
            State::Running if s.counters.flapping() => all.push(format!("hob logs {name} -n 100")),
            State::Running => {}
            State::Starting => all.push(format!("hob logs {name} -f")),
            State::Waiting => all.extend(self.waiting_for(i).iter().map(|n| format!("hob why {n}"))),
            State::Stopping => all.push(format!("hob service signal KILL {name}")),
            State::Backoff => {
                all.push(format!("hob logs {name} -n 100"));
                all.push(format!("hob start {name}  # to try at once"));
            }
            State::Failed => {
                all.push(format!("hob logs {name} -n 100"));
                all.push(format!("hob start {name}  # to try again"));
            }
            State::Finished => all.push(format!("hob start {name}  # to run it again")),
            State::Stopped => all.push(format!("hob start {name}")),
        }
        if s.transient && !s.removed {
            all.push(format!("hob service remove {name}  # it is transient and then gone for good"));
        }
        if s.choice != Choice::Auto && s.wanted() != s.spec.autostart {
            all.push(format!("hob service reset {name}  # back to autostart {}", s.spec.autostart));
        }
        all
    }
}

fn started(live: Option<&Live>) -> String {
    live.map_or_else(|| "started".to_owned(), |l| format!("started {}", l.cause.text()))
}

fn health_text(pulse: &Pulse) -> String {
    match (&pulse.error, pulse.ok) {
        (Some(error), _) => format!(", and failed its health check {}: {error}", counted(pulse.fails)),
        (None, true) => " and is healthy".to_owned(),
        (None, false) => " and has not passed its health check yet".to_owned(),
    }
}

fn awaited(ready: &Ready) -> String {
    match ready {
        Ready::Spawned => "its program is about to be executed".to_owned(),
        Ready::Notify => "it has not said READY=1".to_owned(),
        Ready::Port(port) => format!("port {port} does not answer"),
        Ready::Log(pattern) => format!("no line of output matches {pattern:?}"),
        Ready::Fd(fd) => format!("it has not written a line to descriptor {fd}"),
        Ready::Socket(path) => format!("the socket {path} does not answer"),
        Ready::Command(argv) => format!("{} has not ended with 0", argv.join(" ")),
    }
}

fn non_empty(text: String, otherwise: &str) -> String {
    if text.is_empty() { otherwise.to_owned() } else { text }
}

fn last_outcome(s: &Service) -> String {
    s.last().map_or_else(|| "no run".to_owned(), RunRecord::outcome)
}

fn last_error(s: &Service) -> String {
    s.last_error.as_deref().unwrap_or("unknown").to_owned()
}

fn stopped_summary(s: &Service) -> String {
    let name = &s.name;
    let by = match s.last().and_then(|r| r.asked.as_ref()) {
        Some(why) => format!(": it was stopped {}", why.text()),
        None => String::new(),
    };
    match (s.choice, s.removed) {
        (_, true) if s.transient => format!("{name} is transient and on its way out"),
        (_, true) => format!("{name} is not in the config any more"),
        (Choice::Down, _) => format!("{name} is down because a person wants it down{by}"),
        (Choice::Auto, _) if !s.wanted() && s.runs == 0 => format!("{name} was never started, and autostart is off"),
        (Choice::Auto, _) if !s.wanted() => format!("{name} is down and autostart is off{by}"),
        (Choice::Auto | Choice::Up, _) => format!("{name} is down{by}"),
    }
}

/// `2026-11-20T18:09:38.123Z: run 3 ended after 2.5 s: exit code 1 (started by autostart)`.
fn run_line(r: &RunRecord) -> String {
    let took = human_duration(tenths(r.ended.since(r.started)));
    let how = match (r.ready, &r.end, &r.asked) {
        (_, Ended::NotStarted(_) | Ended::Delayed(_), _) => "could not be started".to_owned(),
        (Some(_), _, _) | (None, _, Some(StopWhy::ReadyTimeout)) => format!("ended after {took}"),
        (None, _, _) => format!("ended after {took} without being ready"),
    };
    format!("{}: run {} {how}: {} (started {})", r.ended, r.number, r.outcome(), r.cause.text())
}

fn live_line(live: &Live) -> String {
    let mut line = format!("{}: run {} was started {}", live.begun.wall, live.number, live.cause.text());
    if let Some(pid) = live.pid {
        line.push_str(&format!(", pid {pid}"));
    }
    if let Some(at) = live.ready {
        line.push_str(&format!(", ready after {}", human_duration(tenths(at.mono.since(live.begun.mono)))));
    }
    if let Some((end, at)) = &live.end {
        line.push_str(&format!("; its main process ended at {} with {}", at.wall, end.text()));
    }
    if let Some(why) = &live.stop {
        line.push_str(&format!("; to be stopped {}", why.text()));
    }
    line
}

/// What the policy would do if the present run ended.
fn on_end(s: &Service) -> String {
    let delay = preview(&s.spec, s.counters.streak, 1).pop().unwrap_or_default();
    let when = if delay.is_zero() { "at once".to_owned() } else { format!("after {}", human_duration(delay)) };
    let limit = match (s.spec.max_restarts, s.spec.window) {
        (0, _) => String::new(),
        (n, None) => format!(", at most {n} times in a row"),
        (n, Some(window)) => format!(", at most {n} times in {}", human_duration(window)),
    };
    match s.spec.restart {
        Restart::Always => format!("if it ends it is started again {when}{limit}"),
        Restart::OnFailure => format!("if it fails it is started again {when}{limit}; with exit code 0 it is finished"),
        Restart::Never => "if it ends it is not started again".to_owned(),
    }
}

/// Advice that follows from how the last run ended.
fn end_hint(s: &Service, r: &RunRecord) -> Option<String> {
    let failed = matches!(s.state, State::Backoff | State::Failed | State::Starting | State::Waiting);
    if !failed {
        return None;
    }
    match (&r.end, &r.asked) {
        (_, Some(StopWhy::ReadyTimeout)) => Some(format!(
            "it was not ready within {}: check \"ready\", or raise \"ready_timeout\"",
            human_duration(s.spec.ready_timeout)
        )),
        (_, Some(StopWhy::Watchdog)) => Some(
            "it has to send WATCHDOG=1 within each WATCHDOG_USEC of its environment, or needs a longer \"watchdog\""
                .to_owned(),
        ),
        (_, Some(StopWhy::Unhealthy { .. })) => {
            Some("run the check of \"health\" by hand, or raise its \"retries\" or \"timeout\"".to_owned())
        }
        (Ended::NotStarted(_), _) => Some("check \"command\", \"cwd\", \"user\" and the file's permissions".to_owned()),
        (Ended::Delayed(_), _) => Some("free memory, processes or descriptors on this machine".to_owned()),
        (Ended::Code(127), None) => Some("code 127 often means that a command was not found".to_owned()),
        (Ended::Code(126), None) => Some("code 126 often means that a file is not executable".to_owned()),
        (Ended::Signal(9), None) => {
            Some("SIGKILL from outside: the kernel's log says whether memory ran out".to_owned())
        }
        (Ended::Code(_) | Ended::Signal(_) | Ended::Unknown, _) => None,
    }
}

fn whole(d: Duration) -> Duration {
    if d.as_secs() > 0 { Duration::from_secs(d.as_secs()) } else { Duration::from_millis(millis(d)) }
}

fn tenths(d: Duration) -> Duration {
    if d.as_secs() > 0 { Duration::from_millis(millis(d) / 100 * 100) } else { Duration::from_millis(millis(d)) }
}
