//! Why a service is as it is: the present state, what led to it, what comes next and what a person can do, for people.
//! Pure.

use super::next::{flapping, health_text};
use super::{Cause, Ended, RunRecord, Signalled, StopWhy, millis, tenths};
use crate::base::json::Obj;
use crate::base::units::human_duration;
use crate::config::Ready;
use crate::core::Core;
use crate::core::service::stop::Phase;
use crate::core::service::{Choice, Live, Service, State};
use crate::core::view::desired;
use core::time::Duration;

/// Services that a story follows, each waiting for the next.
const CHAIN_MAX: u32 = 16;

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
        if let Some(owner) = &s.owner {
            o.str("owner", &owner.to_string());
        }
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
                let health = health_text(live);
                let (age, flaps) = (self.run_age(live), flapping(s));
                let blind = if s.blind { "; the config cannot be read" } else { "" };
                format!("{name} has been running for {age}, {}{flaps}{health}{doing}{said}{blind}", started(live))
            }
            State::Starting if live.is_some_and(|l| l.pid.is_none()) => {
                let waits = live.and_then(|l| l.waits.as_deref()).map(|what| format!(": {what}"));
                format!("{name} is being executed{}", waits.unwrap_or_default())
            }
            State::Starting if s.spec.oneshot => format!("{name} has been at work for {}", self.run_age(live)),
            State::Starting => {
                format!(
                    "{name} was started {} ago and is not ready yet: {}",
                    self.run_age(live),
                    awaited(&s.spec.ready)
                )
            }
            State::Waiting => {
                let whom = self.root_cause(i, CHAIN_MAX).unwrap_or_else(|| self.waiting_text(i));
                format!("{name} waits for {}", non_empty(whom, "its turn"))
            }
            State::Stopping => self.stopping_summary(i),
            State::Backoff => {
                let left = human_duration(tenths(Duration::from_millis(self.next_in(s).unwrap_or(0))));
                match s.last().map(|r| &r.end) {
                    Some(Ended::NotStarted(e) | Ended::Delayed(e)) => {
                        format!("{name} could not be started: {e}; the next try is in {left}")
                    }
                    _ if s.cause == Cause::Listen => {
                        format!("{name} is down: {}; it waits for a connection again in {left}", last_outcome(s))
                    }
                    _ => format!("{name} is down: {}; it is started again in {left}{}", last_outcome(s), flapping(s)),
                }
            }
            State::Failed => format!("{name} failed and is not started again: {}", last_error(s)),
            State::Finished => format!("{name} has finished: {}", last_outcome(s)),
            State::Stopped => stopped_summary(s),
        }
    }

    /// The only service that it waits for and what that waits for itself, and so on, to the one that does not come:
    /// `w, which waits for db, which has failed: exit code 1`. `None` where there is more or less to say.
    fn root_cause(&self, i: usize, depth: u32) -> Option<String> {
        let mut holding = self.holding(i).map(|e| e.to as usize);
        let (Some(need), None, 1) = (holding.next(), holding.next(), self.waiting_for(i).len()) else { return None };
        let s = &self.table[need];
        let (name, error) = (&s.name, s.last_error.as_deref());
        match s.state {
            State::Waiting if depth > 0 => {
                let whom = self.root_cause(need, depth - 1).unwrap_or_else(|| self.waiting_text(need));
                Some(format!("{name}, which waits for {}", non_empty(whom, "its turn")))
            }
            State::Failed | State::Backoff if s.was_not_started() => {
                Some(format!("{name}, which could not be started: {}", error?))
            }
            State::Failed => Some(format!("{name}, which has failed: {}", error?)),
            State::Backoff => Some(format!("{name}, which is down until its next try: {}", error?)),
            State::Waiting | State::Stopped | State::Starting | State::Running | State::Stopping | State::Finished => {
                None
            }
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
            (Phase::Unborn, _) => live.waits.as_deref().unwrap_or("its start is still under way").to_owned(),
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
        let alike: Vec<&[RunRecord]> = s.history.chunk_by(fail_alike).collect();
        let shown = alike.get(alike.len().saturating_sub(STORY_RUNS)..).unwrap_or_default();
        let earlier = shown.first().and_then(|runs| runs.first()).map_or(0, |r| r.number.saturating_sub(1));
        if earlier > 0 {
            lines.push(format!("{} earlier {}", earlier, if earlier == 1 { "run" } else { "runs" }));
        }
        for (first, r) in shown.iter().filter_map(|runs| Some((runs.first()?, runs.last()?))) {
            // One that ended it is told with its end.
            let other = |s: &&Signalled| r.end != Ended::Signal(s.signal);
            lines.extend(r.signalled.as_deref().filter(other).map(|s| format!("{}: {}", s.at, s.text())));
            lines.push(run_line(first, r));
            if r.background {
                let what = "ended at once with code 0 and left children: it seems to put itself into the background";
                lines.push(format!("  its main process {what}"));
            }
            lines.extend(r.stop_error.iter().map(|e| format!("  its stop command failed: {e}")));
            lines.extend(r.lines.iter().map(|l| format!("  | {l}")));
        }
        if let Some(live) = s.live.as_deref() {
            lines.push(live_line(live));
            lines.extend(live.signalled().map(|s| format!("{}: {}", s.at, s.text())));
            let reload = live.asides.as_ref().and_then(|a| a.reload_error.as_deref());
            lines
                .extend(reload.map(|(at, e)| format!("{at}: its reload failed, and it goes on with what it had: {e}")));
        }
        if s.transient {
            lines.push("it is transient: a request made it, and a stop removes it".to_owned());
        }
        if s.state == State::Waiting {
            lines.push(format!("{}: began to wait for {}", s.since.wall, non_empty(self.waiting_text(i), "its turn")));
        }
        match s.choice {
            Choice::Up => lines.extend(s.wished_by().map(|by| format!("{by} said it should be up"))),
            Choice::Down => lines.extend(s.wished_by().map(|by| match &s.down {
                Some(said) => format!("{}: {by} said it should be down", said.at),
                None => format!("{by} said it should be down"),
            })),
            Choice::Auto if s.restored => lines.push("it ran when the program that hob is a part of ended".to_owned()),
            Choice::Auto if s.pulled => {
                lines.push(
                    self.needed_by(i).map_or("another service needed it".to_owned(), |of| format!("{of} needs it")),
                );
            }
            Choice::Auto => {}
        }
        lines
    }
}

fn started(live: Option<&Live>) -> String {
    live.map_or_else(|| "started".to_owned(), |l| format!("started {}", l.cause.text()))
}

/// What a start is waited for to do: `port 9 does not answer`.
pub(in crate::core) fn awaited(ready: &Ready) -> String {
    match ready {
        Ready::Spawned => "its program is about to be executed".to_owned(),
        Ready::Notify => "it has not said READY=1".to_owned(),
        Ready::Port(port) => format!("port {port} does not answer"),
        Ready::Log(pattern) => format!("no line of output matches {pattern:?}"),
        Ready::Fd(fd) => format!("it has not written a line to descriptor {fd}"),
        Ready::Socket(path) => format!("the socket {path} does not answer"),
        Ready::Command(argv) => format!("its command {argv:?} has not ended with 0"),
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
        _ if s.blind => format!("{name} is down, and the config cannot be read{by}"),
        (Choice::Down, _) => {
            let who = s.wished_by().unwrap_or_default();
            format!("{name} is down because {who} wants it down{by}")
        }
        (Choice::Auto, _) if !s.wanted() && s.runs == 0 => format!("{name} was never started, and autostart is off"),
        (Choice::Auto, _) if !s.wanted() => format!("{name} is down and autostart is off{by}"),
        (Choice::Auto | Choice::Up, _) => format!("{name} is down{by}"),
    }
}

/// Whether two starts came to nothing for one reason, so that one line can tell of both.
fn fail_alike(a: &RunRecord, b: &RunRecord) -> bool {
    matches!(a.end, Ended::NotStarted(_) | Ended::Delayed(_)) && a.end == b.end
}

/// `2026-11-20T18:09:38.123Z: run 3 ended after 2.5 s: exit code 1; it was started by autostart`, of one run or of the
/// last of several that came to nothing alike.
fn run_line(first: &RunRecord, r: &RunRecord) -> String {
    let took = human_duration(tenths(r.ended.since(r.started)));
    let how = match (r.ready, &r.end, &r.asked) {
        (_, Ended::NotStarted(_) | Ended::Delayed(_), _) => "could not be started".to_owned(),
        // Nobody saw it become ready, but nobody saw how it ended either.
        (None, Ended::Code(0), None) if r.failed => format!("ended after {took}"),
        (Some(_), _, _) | (None, Ended::Unknown, _) | (None, _, Some(StopWhy::ReadyTimeout)) => {
            format!("ended after {took}")
        }
        (None, _, _) => format!("ended after {took} without being ready"),
    };
    let (runs, it) = match first.number {
        n if n == r.number => (format!("run {n}"), "it"),
        n => (format!("runs {n}\u{2013}{}", r.number), "the last"),
    };
    format!("{}: {runs} {how}: {}; {it} was started {}", r.ended, r.outcome(), r.cause.text())
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

fn whole(d: Duration) -> Duration {
    if d.as_secs() > 0 { Duration::from_secs(d.as_secs()) } else { Duration::from_millis(millis(d)) }
}
