//! What comes next for a service and when, and what a person can do about it. Pure.

use super::{Cause, Ended, RunRecord, StopWhy, counted, tenths};
use crate::base::text::listed;
use crate::base::units::human_duration;
use crate::config::{Check, Condition, Restart};
use crate::core::Core;
use crate::core::service::backoff::{preview, preview_refused};
use crate::core::service::stop::Phase;
use crate::core::service::{Choice, Live, Service, State};
use core::time::Duration;

/// What to do where a socket cannot be opened.
const FREE_ADDRESS: &str = "free that address (`ss -lpn` tells who has it), or change \"listen\"";

/// Delays that are told in advance.
const SHOWN: u32 = 2;

impl Core {
    /// What comes next and when.
    pub(super) fn what_next(&self, i: usize) -> String {
        let s = &self.table[i];
        if self.safe.is_some() {
            return "hob is in safe mode: nothing is started or stopped until a reload".to_owned();
        }
        match s.state {
            State::Running | State::Starting if s.blind => {
                "it goes on as it is; what its config wants takes effect once that can be read".to_owned()
            }
            State::Running => self.running_next(s),
            State::Starting => self.starting_next(s),
            State::Waiting => self.waiting_next(i),
            State::Stopping => self.stopping_next(i),
            State::Backoff => self.backoff_next(s),
            State::Failed => format!("nothing happens by itself{}{}", why_never(s), self.held_up(i)),
            State::Finished => format!("nothing happens by itself{}", why_finished(s)),
            State::Stopped if self.life.stopping.is_some() => "hob is shutting down".to_owned(),
            State::Stopped if s.blind => "nothing is started until the config can be read".to_owned(),
            State::Stopped if s.choice == Choice::Down => {
                format!("it stays down, also over restarts of hob, until somebody starts it{}", self.held_up(i))
            }
            State::Stopped => "it stays down until somebody starts it or something that needs it".to_owned(),
        }
    }

    fn running_next(&self, s: &Service) -> String {
        let mut parts = Vec::new();
        let pulse = s.live.as_deref().and_then(|l| l.pulse.as_deref()).filter(|p| p.fails > 0);
        if let (Some(pulse), Some(health)) = (pulse, &s.spec.health) {
            let more = health.retries.saturating_sub(pulse.fails).max(1);
            let next = pulse.due().map(|at| human_duration(tenths(at.since(self.now.mono))));
            let next = next.map_or_else(|| "a check is under way".to_owned(), |n| format!("the next check is in {n}"));
            let times = if more == 1 { "once more".to_owned() } else { format!("{more} times more") };
            parts.push(format!("{next}, and it is restarted when that fails {times}"));
        }
        if let Some(at) = s.watchdog_at() {
            let left = human_duration(tenths(at.since(self.now.mono)));
            parts.push(format!("it is restarted unless it says within {left} that it lives"));
        }
        parts.push(self.on_end(s));
        if let (Some(at), 1..) = (s.reset_at(), s.counters.streak) {
            let left = human_duration(tenths(at.since(self.now.mono)));
            parts.push(format!("after {left} more in good health its restarts in a row are forgotten"));
        }
        parts.join("; ")
    }

    fn starting_next(&self, s: &Service) -> String {
        let limit = s.deadline().map(|at| human_duration(tenths(at.since(self.now.mono))));
        let limit = limit.map(|left| format!("it has {left} left to become ready, or it counts as failed; "));
        format!("{}{}", limit.unwrap_or_default(), self.on_end(s))
    }

    /// What holds a waiting service up, each as it stands with that.
    fn waiting_next(&self, i: usize) -> String {
        let s = &self.table[i];
        if s.awaits_connection() && !s.blind && self.orphans.is_empty() {
            return match s.listening.retry {
                Some(at) => {
                    let left = human_duration(tenths(at.since(self.now.mono)));
                    format!("its sockets are tried again in {left}; then the first connection starts it")
                }
                None => "the first connection starts it".to_owned(),
            };
        }
        let (mut once, mut also) = (Vec::new(), Vec::new());
        if s.blind {
            once.push("the config can be read".to_owned());
        }
        if !self.orphans.is_empty() {
            once.push("the runs that no record knows have ended".to_owned());
        }
        once.extend(self.missing(i).map(|name| format!("there is a service {name}")));
        for e in self.holding(i) {
            let need = &self.table[e.to as usize];
            once.push(format!("{} {}", need.name, reached(e.condition)));
            match need.state {
                State::Stopped | State::Failed | State::Finished => {
                    also.push(format!("nothing starts {} by itself", need.name));
                }
                State::Stopping if !need.wanted() => also.push(format!("nothing starts {} by itself", need.name)),
                State::Backoff => {
                    let left = human_duration(tenths(need.until.since(self.now.mono)));
                    also.push(format!("{} is started again in {left}", need.name));
                }
                State::Waiting | State::Starting | State::Running | State::Stopping => {}
            }
        }
        if once.is_empty() {
            return "it starts at once".to_owned();
        }
        format!("it starts once {}{}", listed(&once), also.iter().map(|a| format!("; {a}")).collect::<String>())
    }

    fn stopping_next(&self, i: usize) -> String {
        let s = &self.table[i];
        let Some(live) = s.live.as_deref() else { return "it is down in a moment".to_owned() };
        let gone = "once nothing of it is left";
        if !self.may_run(i) {
            return format!("it is down {gone}");
        }
        let own = live.stop.as_ref().is_none_or(StopWhy::is_fault);
        let unseen = matches!(live.end, Some((Ended::Unknown, _)));
        match &live.stop {
            Some(StopWhy::Need { name }) if !live.again && self.stays_down(name) => {
                return format!("it waits for {name} {gone}");
            }
            _ if !own || live.again || unseen => return format!("it is started again {gone}"),
            _ => {}
        }
        let clean = live.stop.is_none() && matches!(live.end, Some((Ended::Code(0), _)));
        match (s.spec.restart, clean) {
            (Restart::OnFailure | Restart::Never, true) => format!("it has finished {gone}"),
            (Restart::Never, false) => format!("it has failed {gone}, and \"restart\" is \"never\""),
            (Restart::OnFailure | Restart::Always, _) if s.counters.would_give_up(&s.spec, self.now.mono) => {
                format!("it is given up {gone}, after {}", restarts(s.counters.counted(&s.spec)))
            }
            (Restart::OnFailure | Restart::Always, _) => {
                format!("{gone}: restart {}, {}", s.counters.streak.saturating_add(1), delay(s))
            }
        }
    }

    fn stays_down(&self, name: &str) -> bool {
        self.table.find(name).is_none_or(|n| !self.table[n].wanted())
    }

    fn backoff_next(&self, s: &Service) -> String {
        let left = human_duration(tenths(Duration::from_millis(self.next_in(s).unwrap_or(0))));
        let then = |delays: Vec<Duration>| {
            let texts: Vec<String> = delays.into_iter().map(human_duration).collect();
            if texts.is_empty() { String::new() } else { format!(", then {}", texts.join(", ")) }
        };
        if let Cause::Retry { n } = &s.cause {
            let later = then(preview_refused(&s.spec, s.counters.refused, SHOWN));
            return format!("try {} in {left}{later}, until the system lets it start", n.saturating_add(1));
        }
        if s.cause == Cause::Listen {
            return format!("in {left} it waits for a connection again: it ended often while somebody was waiting");
        }
        // The present delay was counted already, so the ones after it begin at the streak.
        let streak = s.counters.streak;
        let more = match (s.spec.max_restarts, s.spec.window) {
            (0, _) | (_, Some(_)) => SHOWN,
            (most, None) => most.saturating_sub(streak).min(SHOWN),
        };
        let end = match (s.spec.max_restarts, s.spec.window) {
            (0, _) => String::new(),
            (most, None) => format!("; it is given up after {}", restarts(most)),
            (most, Some(window)) => {
                format!("; it is given up after {} in {}", restarts(most), human_duration(window))
            }
        };
        format!("restart {streak} in {left}{}{end}", then(preview(&s.spec, streak, more)))
    }

    /// What the policy would do if the present run ended.
    fn on_end(&self, s: &Service) -> String {
        let limit = match (s.spec.max_restarts, s.spec.window) {
            (0, _) => String::new(),
            (n, None) => format!(", at most {} in a row", counted(n)),
            (n, Some(window)) => format!(", at most {} in {}", counted(n), human_duration(window)),
        };
        let then = match s.counters.would_give_up(&s.spec, self.now.mono) {
            true => format!("given up, after {}", restarts(s.counters.counted(&s.spec))),
            false => format!("started again {}{limit}", delay(s)),
        };
        let well = if s.spec.on_demand { "the next connection starts it again" } else { "it is finished" };
        let early = s.state == State::Starting && s.is_to_be_ready();
        match s.spec.restart {
            Restart::OnFailure if early => format!("if it ends before it is ready it is {then}"),
            Restart::Never if early => "if it ends before it is ready it is not started again".to_owned(),
            Restart::Always => format!("if it ends it is {then}"),
            Restart::OnFailure => format!("if it fails it is {then}; with exit code 0 {well}"),
            Restart::Never if s.spec.on_demand => {
                format!("if it fails it is not started again; with exit code 0 {well}")
            }
            Restart::Never => "if it ends it is not started again".to_owned(),
        }
    }

    /// Those that are to be up and wait for this one.
    fn held_up(&self, i: usize) -> String {
        let waits = |d: &&u32| {
            let d = **d as usize;
            self.table[d].state == State::Waiting && self.holding(d).any(|e| e.to as usize == i)
        };
        let names: Vec<String> =
            self.table[i].dependants.iter().filter(waits).map(|d| self.table[*d as usize].name.to_string()).collect();
        match names.len() {
            0 => String::new(),
            1 => format!("; {} waits for it", names.concat()),
            _ => format!("; {} wait for it", listed(&names)),
        }
    }

    /// What a person can do about it: commands to copy, with what they are for behind a `#`, and advice.
    pub(super) fn todo(&self, i: usize) -> Vec<String> {
        let s = &self.table[i];
        let name = &s.name;
        let mut all = Vec::new();
        if self.safe.is_some() {
            return Core::ways_out_of_safe_mode().map(|(command, what)| format!("{command}  # {what}")).into();
        }
        if s.last().is_some_and(|r| r.background && r.asked.is_none()) {
            all.push(format!("tell {name} to stay in the foreground, or set \"leave_children\": true"));
        }
        all.extend(s.last().and_then(|r| end_hint(s, r)));
        let blind = s.blind && s.state != State::Stopping;
        if blind {
            all.push("hob config check  # lists what is wrong with the config".to_owned());
            all.push("hob reload  # once that is mended".to_owned());
        }
        match s.state {
            State::Running => all.extend(running_todo(s)),
            State::Starting => all.push(format!("hob logs {name} -f")),
            State::Waiting => all.extend(self.waiting_todo(i)),
            State::Stopping => all.extend(self.stopping_todo(i)),
            State::Backoff => {
                all.push(format!("hob logs {name} -n 100"));
                all.push(format!("hob start {name}  # to try at once"));
                all.push(format!("hob stop {name}  # to end the tries"));
            }
            State::Failed => {
                all.push(format!("hob logs {name} -n 100"));
                all.push(format!("hob start {name}  # to try again"));
            }
            State::Finished => {
                if !s.spec.oneshot && s.spec.restart == Restart::OnFailure {
                    all.push("set \"restart\": \"always\" if it is meant to go on and on".to_owned());
                }
                all.push(format!("hob start {name}  # to run it again"));
            }
            State::Stopped if blind || self.life.stopping.is_some() => {}
            State::Stopped => all.push(format!("hob start {name}")),
        }
        if s.transient && !s.removed {
            all.push(format!("hob service remove {name}  # it is transient and then gone for good"));
        }
        if s.choice != Choice::Auto && s.wanted() != s.spec.autostart && !blind {
            all.push(format!("hob service reset {name}  # back to autostart {}", s.spec.autostart));
        }
        all
    }

    fn waiting_todo(&self, i: usize) -> Vec<String> {
        let s = &self.table[i];
        let mut all = Vec::new();
        if let Some(error) = &s.listening.error {
            return vec![address(error).to_owned()];
        }
        if s.awaits_connection() {
            return vec![format!("hob start {}  # without a connection", s.name)];
        }
        for e in self.holding(i) {
            let need = &self.table[e.to as usize];
            let name = &need.name;
            match need.state {
                State::Stopped if need.choice == Choice::Down => {
                    all.push(format!("hob start {name}  # which a person stopped"));
                }
                State::Stopped => all.push(format!("hob start {name}")),
                State::Stopping if !need.wanted() => all.push(format!("hob start {name}  # which is being stopped")),
                State::Failed | State::Finished => {
                    all.push(format!("hob why {name}"));
                    all.push(format!("hob start {name}  # to try that again"));
                }
                State::Waiting | State::Starting | State::Running | State::Stopping | State::Backoff => {
                    all.push(format!("hob why {name}"));
                }
            }
        }
        all
    }

    fn stopping_todo(&self, i: usize) -> Vec<String> {
        let s = &self.table[i];
        let Some(live) = s.live.as_deref() else { return Vec::new() };
        let gone = live.pid.is_none() || live.end.is_some();
        match live.sequence.phase {
            Phase::Held => self.waiting_for(i).iter().map(|n| format!("hob why {n}")).collect(),
            Phase::Killed => {
                vec!["wait: what SIGKILL does not end hangs in the kernel, mostly for a disk or a network".to_owned()]
            }
            Phase::Idle | Phase::Unborn | Phase::Commanded | Phase::Asked | Phase::Looking | Phase::Leftovers
                if gone =>
            {
                Vec::new()
            }
            Phase::Idle | Phase::Unborn | Phase::Commanded | Phase::Asked | Phase::Looking | Phase::Leftovers => {
                vec![format!("hob service signal KILL {}  # to end it without clearing up", s.name)]
            }
        }
    }
}

fn restarts(n: u32) -> String {
    if n == 1 { "1 restart".to_owned() } else { format!("{n} restarts") }
}

fn reached(condition: Condition) -> &'static str {
    match condition {
        Condition::Started => "has started",
        Condition::Ready => "is ready",
        Condition::Healthy => "is healthy",
        Condition::Finished => "has finished",
        Condition::Succeeded => "has finished with exit code 0",
    }
}

/// Why nothing starts what has failed.
fn why_never(s: &Service) -> &'static str {
    match s.spec.restart {
        Restart::Never => ", as \"restart\" is \"never\"",
        Restart::Always | Restart::OnFailure if s.spec.max_restarts > 0 => ", as \"max_restarts\" is used up",
        Restart::Always | Restart::OnFailure => "",
    }
}

fn why_finished(s: &Service) -> &'static str {
    match s.spec.restart {
        _ if s.spec.oneshot => ": it has done its work",
        Restart::OnFailure => ": only a failure starts it again, as \"restart\" is \"on-failure\"",
        Restart::Never => ", as \"restart\" is \"never\"",
        Restart::Always => "",
    }
}

/// When the policy would start it again if the present run ended.
fn delay(s: &Service) -> String {
    let delay = preview(&s.spec, s.counters.streak, 1).pop().unwrap_or_default();
    if delay.is_zero() { "at once".to_owned() } else { format!("after {}", human_duration(delay)) }
}

fn running_todo(s: &Service) -> Vec<String> {
    let mut all = Vec::new();
    let failing = s.live.as_deref().and_then(|l| l.pulse.as_deref()).is_some_and(|p| p.error.is_some());
    if let Some(health) = s.spec.health.as_ref().filter(|_| failing) {
        all.push(format!("its check by hand: {}", by_hand(&health.check)));
    }
    if failing || s.flapping() {
        all.push(format!("hob logs {} -n 100", s.name));
    }
    if failing {
        all.push(format!("hob restart {}", s.name));
    }
    all
}

/// A command that does about what a check does.
fn by_hand(check: &Check) -> String {
    match check {
        Check::Command(argv) => match argv.as_slice() {
            [sh, dash_c, line] if sh == "/bin/sh" && dash_c == "-c" => line.clone(),
            argv => argv.join(" "),
        },
        Check::Tcp(at) => {
            let host = at.ip.map_or_else(|| "localhost".to_owned(), |ip| ip.to_string());
            format!("nc -vz {host} {}", at.port)
        }
        Check::Http { at, path } => format!("curl -i http://{at}{path}"),
        Check::Unix(path) => format!("nc -U {path}"),
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
            let check = s.spec.health.as_ref().map(|h| by_hand(&h.check)).unwrap_or_default();
            Some(format!("its check by hand: {check}; or raise \"retries\" or \"timeout\" of \"health\""))
        }
        (Ended::NotStarted(e), _) => not_started(e),
        (Ended::Delayed(e), _) if e.starts_with("cannot listen on") => Some(address(e).to_owned()),
        (Ended::Delayed(_), _) => Some("free memory, processes or descriptors on this machine".to_owned()),
        (Ended::Code(127), None) => Some("code 127 often means that a command was not found".to_owned()),
        (Ended::Code(126), None) => Some("code 126 often means that a file is not executable".to_owned()),
        (Ended::Code(code @ 129..=159), None) => {
            let signal = super::signal_name(code - 128);
            Some(format!("code {code} is how a shell tells that what it ran was killed by {signal}"))
        }
        (Ended::Signal(9), None) => {
            Some("SIGKILL from outside: the kernel's log says whether memory ran out".to_owned())
        }
        (Ended::Signal(4 | 6 | 8 | 11), None) => {
            Some("it crashed: where the system keeps core dumps, 'coredumpctl' lists them".to_owned())
        }
        (Ended::Code(_) | Ended::Signal(_) | Ended::Unknown, _) => None,
    }
}

/// Texts that name a key of the config have said what to look at.
fn not_started(error: &str) -> Option<String> {
    let said = error.contains("; ") || error.contains("env_file");
    (!said).then(|| "check \"command\", \"cwd\", \"user\" and the file's permissions".to_owned())
}

/// What to do about an address on which nobody can listen.
fn address(error: &str) -> &'static str {
    match error.contains("Cannot assign") || error.contains("can't assign") || error.contains("Can't assign") {
        true => "name an address in \"listen\" that this machine has (`ip addr` lists them)",
        false => FREE_ADDRESS,
    }
}

/// `, flapping: 12 restarts in a row`.
pub(super) fn flapping(s: &Service) -> String {
    if s.flapping() { format!(", flapping: {} in a row", restarts(s.restarts_in_a_row())) } else { String::new() }
}

/// How a run that is ready stands with its health check.
pub(super) fn health_text(live: Option<&Live>) -> String {
    let Some(pulse) = live.and_then(|l| l.pulse.as_deref()) else { return String::new() };
    match (&pulse.error, pulse.ok) {
        (Some(error), _) => format!(", and failed its health check {}: {error}", counted(pulse.fails)),
        (None, true) => " and is healthy".to_owned(),
        (None, false) => " and has not passed its health check yet".to_owned(),
    }
}
