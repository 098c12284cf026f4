//! State to replies: every result of a query, as JSON text. Pure.

use super::request::Asked;
use super::run::{self, millis, secs};
use super::service::sockets::Sockets;
use super::service::{Choice, Service, State, backoff};
use super::{Core, Effect, Out, Usages, task};
use crate::base::gather::Gather as _;
use crate::base::ids::{ConnId, ReqId, RunId};
use crate::base::json::{Obj, json_str};
use crate::base::text::count;
use crate::config::{Config, Listen, masked, service_json, to_json, trouble};
use core::fmt::Write as _;
use std::sync::Arc;

/// Version of the protocol that `daemon.health` names.
const PROTOCOL_VERSION: u64 = 1;

/// A request whose reply needs something from the shell first.
#[derive(Debug)]
pub(super) enum Pending {
    /// What runs cost now, for a question of this connection.
    Usage(ConnId, Question),
    Reload,
    Doctor,
    Plan,
}

/// A question whose answer tells what runs cost.
#[derive(Debug)]
pub(super) enum Question {
    /// `None`: all of them.
    List(Option<Vec<Arc<str>>>),
    /// One service by its name, or all of its instances.
    Get(String, Vec<Arc<str>>),
    Status,
}

impl Core {
    /// Asks what the runs concerned use now; the reply follows when that is known.
    pub(super) fn measure_then(&mut self, asked: &Asked, question: Question, out: &mut Out) {
        let run_of = |name: &Arc<str>| self.table.find(name).and_then(|i| self.measurable(i));
        let runs: Vec<RunId> = match &question {
            Question::List(Some(names)) | Question::Get(_, names) => names.iter().filter_map(run_of).collect(),
            Question::List(None) | Question::Status => {
                self.table.by_name().filter_map(|i| self.measurable(i)).collect()
            }
        };
        let (req, conn) = (asked.req, asked.conn);
        // What the machine can do is told with the first measure.
        let complete = !matches!(question, Question::Status) || !self.facts.platform.is_empty();
        self.pending.insert(req, Pending::Usage(conn, question));
        if runs.is_empty() && complete {
            return self.measured(req, &Usages::new(), out);
        }
        out.effects.push(Effect::Measure { req, conn, owner: asked.peer.owner(), runs });
    }

    fn measurable(&self, i: usize) -> Option<RunId> {
        self.table[i].live.as_ref().filter(|l| l.pid.is_some() && l.end.is_none()).map(|l| l.run)
    }

    pub(super) fn measured(&mut self, req: ReqId, usages: &Usages, out: &mut Out) {
        let Some(Pending::Usage(_, question)) = self.pending.remove(&req) else { return };
        let result = match question {
            Question::List(None) => format!("{{\"services\":{}}}", self.rows(self.table.by_name(), usages)),
            Question::List(Some(names)) => {
                let places = names.iter().filter_map(|n| self.table.find(n));
                format!("{{\"services\":{}}}", self.rows(places, usages))
            }
            Question::Get(name, names) => {
                let exact = names.iter().any(|n| **n == *name);
                let mut rows = names.iter().filter_map(|n| self.table.find(n)).map(|i| self.detail(i, usages));
                match rows.next() {
                    Some(first) => Core::joined(&name, exact, core::iter::once(first).chain(rows)),
                    None => return self.reply(req, Err(self.unknown(&name)), false, out),
                }
            }
            Question::Status => self.status(usages),
        };
        self.reply(req, Ok(result), false, out);
    }

    fn rows(&self, places: impl Iterator<Item = usize>, usages: &Usages) -> String {
        let mut text = "[".to_owned();
        for i in places {
            if text.len() > 1 {
                text.push(',');
            }
            text.push_str(&self.row(i, usages).finish());
        }
        text.push(']');
        text
    }

    /// The members that a list shows of a service.
    fn row(&self, i: usize, usages: &Usages) -> Obj {
        let s = &self.table[i];
        let live = s.live.as_ref();
        let usage = live.and_then(|l| usages.get(&l.run));
        let mut o = Obj::new();
        o.str("name", &s.name).str("state", s.state.name());
        o.str("desired", desired(s)).bool("autostart", s.spec.autostart);
        // Of one whose config cannot be read nobody knows what it differs from.
        o.bool("overridden", s.wanted() != s.spec.autostart && !s.blind).bool("removed", s.removed);
        if s.transient {
            o.bool("transient", true);
        }
        if let Some(by) = s.wished_by() {
            o.str("wished_by", &by);
        } else if s.pulled
            && !s.spec.autostart
            && let Some(of) = self.needed_by(i)
        {
            o.str("needed_by", &of);
        }
        o.opt_u64("pid", live.filter(|l| l.end.is_none()).and_then(|l| l.pid).map(u64::from));
        o.opt_u64("run", live.map(|l| l.run.0));
        o.opt_u64("uptime_secs", live.map(|l| self.now.mono.since(l.begun.mono).as_secs()));
        o.u64("restarts", s.restarts().into());
        o.opt_str("last_error", s.last_error.as_deref());
        o.opt_u64("memory", usage.map(|u| u.memory));
        match usage {
            Some(u) => o.raw("cpu_secs", &secs(millis(u.cpu))),
            None => o.null("cpu_secs"),
        };
        o.bool("ready", s.state == State::Running);
        let pulse = live.and_then(|l| l.pulse.as_ref());
        o.opt_str("health", s.spec.health.as_ref().map(|_| pulse.map_or("unknown", |p| p.word())));
        o.opt_str("health_error", pulse.and_then(|p| p.error.as_deref()));
        o.opt_str("doing", live.and_then(|l| l.doing).map(super::service::Doing::name));
        o.opt_str("status_text", live.and_then(|l| l.status_text.as_deref()));
        o.bool("awaits_connection", s.awaits_connection());
        o.opt_str("listen_error", s.listening.error.as_deref());
        o.bool("flapping", s.flapping());
        o.opt_u64("next_restart_in_ms", self.next_in(s));
        o.raw("waiting_for", &serde_json::to_string(&self.waiting_for(i)).unwrap_or_default());
        let survivors: Vec<String> = live.map(|l| &l.sequence.left).into_iter().flatten().map(survivor).collect();
        o.raw("survivors", &format!("[{}]", survivors.join(",")));
        o.str("since", &s.since.wall.to_string());
        if let Some(owner) = &s.owner {
            o.str("owner", &owner.to_string());
        }
        o
    }

    pub(super) fn next_in(&self, s: &Service) -> Option<u64> {
        (s.state == State::Backoff).then(|| millis(s.until.since(self.now.mono)))
    }

    fn detail(&self, i: usize, usages: &Usages) -> String {
        let s = &self.table[i];
        let mut o = self.row(i, usages);
        o.raw("command", &serde_json::to_string(&s.spec.command).unwrap_or_default());
        o.raw("restart", &serde_json::to_string(&s.spec.restart).unwrap_or_default());
        o.u64("restarts_in_a_row", s.restarts_in_a_row().into()).u64("max_restarts", s.spec.max_restarts.into());
        let delays = match s.cause {
            run::Cause::Retry { .. } if s.state == State::Backoff => {
                backoff::preview_refused(&s.spec, s.counters.refused, 3)
            }
            _ => backoff::preview(&s.spec, s.counters.streak, 3),
        };
        let delays: Vec<u64> = delays.into_iter().map(millis).collect();
        o.raw("next_delays_ms", &serde_json::to_string(&delays).unwrap_or_default());
        o.u64("runs_total", s.runs.into()).u64("runs_failed", s.fails.into());
        let names = |needs: &[crate::config::Need]| {
            serde_json::to_string(&needs.iter().map(|n| &*n.name).collect::<Vec<_>>()).unwrap_or_default()
        };
        o.raw("requires", &names(&s.spec.requires)).raw("wants", &names(&s.spec.wants));
        o.raw("after", &names(&s.spec.after));
        let dependants: Vec<&str> = s.dependants.iter().map(|d| &*self.table[*d as usize].name).collect();
        o.raw("dependants", &serde_json::to_string(&dependants).unwrap_or_default());
        o.bool("on_demand", s.spec.on_demand).raw("sockets", &sockets(s));
        o.opt_str("started_by", s.live.as_ref().map(|l| l.cause.text()).as_deref());
        o.raw("last_run", &s.last().map_or("null".to_owned(), run::RunRecord::json));
        o.finish()
    }

    pub(super) fn history(&self, i: usize, limit: usize) -> String {
        let s = &self.table[i];
        let skip = s.history.len().saturating_sub(limit);
        let runs: Vec<String> = s.history.iter().skip(skip).map(run::RunRecord::json).collect();
        let mut o = Obj::new();
        o.str("name", &s.name).raw("runs", &format!("[{}]", runs.join(",")));
        o.raw(
            "running",
            &s.live.as_ref().map_or("null".to_owned(), |l| {
                let mut o = Obj::new();
                o.u64("run", l.run.0).u64("number", l.number.into()).opt_u64("pid", l.pid.map(u64::from));
                o.str("cause", &l.cause.text()).str("started", &l.begun.wall.to_string());
                if let Some(owner) = l.cause.owner() {
                    o.str("owner", &owner.to_string());
                }
                o.opt_str("ready", l.ready.map(|n| n.wall.to_string()).as_deref());
                o.finish()
            }),
        );
        o.finish()
    }

    /// As short as it can be: this is what tells others that hob lives, and is asked most often.
    pub(super) fn ping(&self) -> String {
        let mut text = String::with_capacity(96);
        text.push_str("{\"pong\":true,\"timestamp\":");
        text.push_str(itoa::Buffer::new().format(self.now.wall.0));
        text.push_str(",\"uptime_secs\":");
        text.push_str(itoa::Buffer::new().format(self.uptime()));
        text.push_str(",\"version\":\"");
        text.push_str(self.facts.version);
        text.push_str("\"}");
        text
    }

    fn uptime(&self) -> u64 {
        self.now.mono.since(self.facts.keeper_started).as_secs()
    }

    /// Number of services in each state, and altogether.
    fn counts(&self) -> String {
        let mut by_state = [0_u64; State::ALL.len()];
        let mut flapping = 0;
        for i in self.table.by_name() {
            let s = &self.table[i];
            flapping += u64::from(s.flapping());
            for (count, state) in by_state.iter_mut().zip(State::ALL) {
                *count += u64::from(s.state == state);
            }
        }
        let mut o = Obj::new();
        o.u64("total", by_state.iter().sum());
        for (count, state) in by_state.into_iter().zip(State::ALL) {
            o.u64(state.name(), count);
        }
        o.u64("flapping", flapping);
        o.finish()
    }

    pub(super) fn output_lost(&mut self, name: Arc<str>, lost: bool) {
        if lost {
            self.losing.insert(name);
        } else {
            self.losing.remove(&name);
        }
        let mut losing = core::mem::take(&mut self.losing);
        losing.retain(|name| self.has_log(name));
        self.losing = losing;
    }

    /// What is gone has no log any more.
    fn has_log(&self, name: &str) -> bool {
        let task = task::of_name(name).and_then(|id| self.tasks.get(id));
        self.table.find(name).is_some() || task.is_some_and(|t| t.live.is_some())
    }

    /// What is not as it should be, most important first.
    fn problems(&self) -> Vec<String> {
        let mut all = Vec::new();
        all.extend(self.safe.as_ref().map(|fault| format!("hob is in safe mode: {fault}")));
        if let Some(why) = &self.journal_behind {
            all.push(format!("the journal is behind: {why}"));
        }
        if self.journal_full {
            all.push("the disk of the journal is full: new work is refused".to_owned());
        }
        if self.gap {
            let what = "the journal lacked records at the start, so that tasks and what people wished may be lost";
            all.push(format!("{what}: hob logs"));
        }
        let losing: Vec<&str> = self.losing.iter().map(|name| &**name).filter(|name| self.has_log(name)).collect();
        if !losing.is_empty() {
            all.push(format!("output is dropped, as its log cannot take it: {}", losing.join(", ")));
        }
        if let Some(error) = &self.config_error {
            all.push(format!("the config file {} and is not in effect: hob config check", trouble(error)));
        }
        for i in self.table.by_name() {
            let s = &self.table[i];
            if s.state == State::Failed {
                all.push(format!("{} failed: {}", s.name, s.last_error.as_deref().unwrap_or("unknown")));
            } else if s.flapping() {
                all.push(format!("{} is flapping", s.name));
            } else if let Some(error) = &s.listening.error {
                all.push(format!("{} waits for its sockets: {error}", s.name));
            } else if let Some(error) = s.live.as_ref().and_then(|l| l.pulse.as_ref()).and_then(|p| p.error.as_ref()) {
                all.push(format!("{} fails its health check: {error}", s.name));
            }
        }
        if !self.orphans.is_empty() {
            all.push(format!(
                "{} runs that no record knows are being stopped; starts wait for that",
                self.orphans.len()
            ));
        }
        if !self.aside.is_empty() {
            let (n, are) = (self.aside.len(), if self.aside.len() == 1 { "is" } else { "are" });
            all.push(format!("{} of the journal cannot be read and {are} kept aside", count(n, "record")));
        }
        all
    }

    /// What health and status begin with.
    fn head(&self) -> Obj {
        let problems = self.problems();
        let status = match (&self.life.stopping, problems.is_empty()) {
            _ if self.safe.is_some() => "safe mode",
            (Some(_), _) => "stopping",
            (None, true) => "ok",
            (None, false) => "degraded",
        };
        let mut o = Obj::new();
        o.u64("pid", self.facts.daemon_pid.into()).u64("keeper_pid", self.facts.keeper_pid.into());
        o.u64("uptime_secs", self.uptime()).str("version", self.facts.version);
        o.u64("protocol_version", PROTOCOL_VERSION).str("status", status);
        o.raw("problems", &serde_json::to_string(&problems).unwrap_or_default());
        o
    }

    /// What they end with, or nearly.
    fn closing(&self, o: &mut Obj) {
        o.raw("tasks", &self.task_stats());
        o.u64("projects", 0).u64("agents", u64::try_from(self.programs.agents.len()).unwrap_or(u64::MAX));
    }

    fn health_obj(&self) -> Obj {
        let mut o = self.head();
        o.raw("services", &self.counts());
        self.closing(&mut o);
        o
    }

    pub(super) fn health(&self) -> String {
        self.health_obj().finish()
    }

    /// `daemon.status`: health, with the counts under `counts` and the services themselves under `services`.
    fn status(&self, usages: &Usages) -> String {
        let mut o = self.head();
        o.u64("generation", self.facts.generation.into());
        o.u64("daemon_deaths", self.facts.deaths.into());
        o.raw("counts", &self.counts()).raw("services", &self.rows(self.table.by_name(), usages));
        o.opt_str("config_error", self.config_error.as_deref());
        if self.config_error.is_some() {
            o.opt_str("config_since", self.config_taken.map(|w| w.to_string()).as_deref());
        }
        let mut journal = Obj::new();
        journal.str(
            "state",
            match (&self.journal_behind, self.journal_full) {
                (Some(_), _) => "behind",
                (None, true) => "full",
                (None, false) => "ok",
            },
        );
        journal.opt_str("why", self.journal_behind.as_deref());
        o.raw("journal", &journal.finish());
        o.opt_str("update", self.newer.path.as_deref());
        o.opt_str("update_version", self.newer.version.as_deref());
        o.opt_str("update_error", self.newer.error.as_deref());
        self.closing(&mut o);
        o.u64("last_event", self.events.next_seq().saturating_sub(1));
        o.raw("inhibitors", &self.inhibitors.json());
        o.raw("platform", if self.facts.platform.is_empty() { "{}" } else { &self.facts.platform });
        o.finish()
    }

    pub(super) fn config_json(&self) -> String {
        let of = |transient: bool| {
            let all = self.table.by_name().map(|i| &self.table[i]).filter(move |s| s.transient == transient);
            all.map(|s| (s.name.to_string(), Arc::clone(&s.spec))).gather()
        };
        let mut text = to_json(&masked(&Config {
            daemon: self.config.clone(),
            services: of(false),
            groups: self.tasks.configured_groups(),
            agents: self.programs.agents.clone(),
            runners: self.programs.runners.clone(),
            schedule: self.schedules.specs().cloned().collect(),
        }));
        let made = masked(&Config { services: of(true), ..Config::default() }).services;
        if !made.is_empty() {
            // Beside what can be in a file, because it is in none.
            let rows = made.iter().map(|(name, spec)| format!("{}:{}", quoted(name), service_json(spec)));
            text.pop();
            text.push_str(&format!(",\"transient\":{{{}}}}}", rows.collect::<Vec<_>>().join(",")));
        }
        text
    }

    /// What `state.json` says while nobody can be asked.
    pub(super) fn state_text(&self) -> String {
        let mut o = self.health_obj();
        o.str("written", &self.now.wall.to_string()).u64("generation", self.facts.generation.into());
        let mut list = "[".to_owned();
        for i in self.table.by_name() {
            let s = &self.table[i];
            if list.len() > 1 {
                list.push(',');
            }
            list.push_str("{\"name\":");
            json_str(&s.name, &mut list);
            let _ = write!(list, ",\"state\":\"{}\",\"restarts\":{}}}", s.state, s.restarts());
        }
        list.push(']');
        o.raw("list", &list);
        o.finish()
    }
}

pub(super) fn desired(s: &Service) -> &'static str {
    let up = match s.choice {
        Choice::Up => true,
        Choice::Down => false,
        Choice::Auto => s.wanted(),
    };
    if up { "up" } else { "down" }
}

/// What it listens on, in the order of its descriptors.
fn sockets(s: &Service) -> String {
    let open = match s.sockets() {
        Sockets::Closed => false,
        Sockets::Open => true,
        Sockets::Watched => s.listening.open,
    };
    let one = |l: &Listen| {
        let mut o = Obj::new();
        o.str("name", l.name.as_deref().unwrap_or(&s.name)).str("address", &l.at.to_string()).bool("open", open);
        o.finish()
    };
    format!("[{}]", s.spec.listen.iter().map(one).collect::<Vec<_>>().join(","))
}

fn quoted(text: &str) -> String {
    let mut out = String::new();
    json_str(text, &mut out);
    out
}

fn survivor(s: &super::Survivor) -> String {
    let mut o = Obj::new();
    o.u64("pid", s.pid.into()).str("name", &s.name);
    o.finish()
}
