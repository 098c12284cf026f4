//! The end of a seed: the faults are over and time has passed, so everything that can be well has to be.

use crate::check::Wish;
use crate::plan::{TRANSIENT, Verb, program, works};
use crate::world::World;
use hob::config::{Condition, Need, Restart, ServiceSpec};
use hob::core::{Effect, Input, Out};
use std::collections::BTreeMap;

impl World<'_> {
    pub fn verdict(&mut self) {
        if self.core.is_none() {
            return self.fail("liveness: no daemon runs".to_owned());
        }
        if self.is_due() {
            self.step(Input::Tick);
        }
        let Some(list) = self.list() else { return self.fail("liveness: service.list has no answer".to_owned()) };
        let judged = self.check.listed(&list, &self.os);
        self.require(judged);
        let states: BTreeMap<String, (String, String)> = list["services"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|s| {
                let text = |member: &str| s[member].as_str().unwrap_or_default().to_owned();
                (text("name"), (text("state"), text("desired")))
            })
            .collect();
        let config = self.check.config.clone();
        for (name, spec) in &config.services {
            let judged = match states.get(name) {
                None => Err(format!("liveness: {name} is in the config and not in the list")),
                Some((state, desired)) => self.rest(name, spec, state, desired, &states),
            };
            self.require(judged);
        }
        for name in states.keys().filter(|n| !config.services.contains_key(*n) && TRANSIENT.iter().all(|(t, _)| t != n))
        {
            self.fail(format!("liveness: {name} is not in the config any more"));
        }
        for (name, _) in TRANSIENT {
            let state = states.get(name).map(|(state, _)| state.as_str());
            // What failed or was crashed under `never` has come to its end like what has finished.
            let fine = match (self.check.wish(name), state) {
                (Wish::Up, state) => matches!(state, Some("running" | "finished" | "failed")),
                (Wish::Down, state) => state.is_none(),
                (Wish::Auto | Wish::Either, state) => matches!(state, None | Some("running" | "finished" | "failed")),
            };
            if !fine {
                let wish = self.check.wish(name);
                self.fail(format!("liveness: {name}, which clients made, ends as {state:?}, wished {wish:?}"));
            }
        }
        self.tasks_verdict();
        self.probe_snapshot();
        self.probe_memory();
        if self.tasks_rest() {
            self.quiet(&states);
        }
        self.all_answered(&states);
    }

    /// Whether this is where a service may stay.
    fn rest(
        &self,
        name: &str,
        spec: &ServiceSpec,
        state: &str,
        desired: &str,
        states: &BTreeMap<String, (String, String)>,
    ) -> Result<(), String> {
        let alive = self.os.of_service(name).any(|p| p.main);
        let restless = restless(spec);
        let waits = |need: &Need| {
            let state = states.get(&need.name).map_or("", |s| s.0.as_str());
            let spec = self.check.config.services.get(&need.name);
            let reached = match need.condition {
                Condition::Started | Condition::Ready => {
                    // One that has been connected to waits for its own needs, and has no socket that is watched.
                    let listens = state == "waiting" && self.os.sockets.get(&*need.name) == Some(&true);
                    state == "running" || state == "finished" || listens
                }
                Condition::Healthy => state == "running",
                Condition::Finished | Condition::Succeeded => state == "finished",
            };
            !reached || spec.is_none_or(|s| !works(s) || program(s) == "task")
        };
        let fine = match (desired, state) {
            ("down", "stopped") => !alive,
            ("up", "running") => alive || restless,
            // A new policy starts nothing that had finished under the old one.
            ("up", "finished") => self.check.may_finish.contains(name),
            ("up", "failed") => self.check.may_fail.contains(name),
            ("up", "backoff" | "starting" | "stopping") => restless,
            ("up", "waiting") if spec.on_demand && self.os.sockets.get(name) == Some(&true) => !alive,
            ("up", "waiting") => spec.requires.iter().chain(&spec.wants).chain(&spec.after).any(waits) || restless,
            _ => false,
        };
        let must = match self.check.wish(name) {
            Wish::Up => desired == "up",
            Wish::Down => desired == "down",
            Wish::Auto => desired == "up" || !spec.autostart,
            Wish::Either => true,
        };
        if fine && must {
            return Ok(());
        }
        let (wish, program, restart) = (self.check.wish(name), program(spec), spec.restart);
        let of = format!("wished {wish:?}, runs {program}, restart {restart:?} at most {}", spec.max_restarts);
        Err(format!("liveness: {name} ends as {state}, desired {desired}, {of}"))
    }

    /// With everything at rest nothing may be due but the heartbeat, and to ask for a newer hob.
    fn quiet(&mut self, states: &BTreeMap<String, (String, String)>) {
        let moves = |s: &(String, String)| matches!(s.0.as_str(), "backoff" | "starting" | "stopping" | "running");
        let specs = &self.check.config.services;
        let asked = |s: &ServiceSpec| s.health.is_some() || s.watchdog.is_some();
        if states.iter().any(|(name, s)| moves(s) && specs.get(name).is_none_or(|s| restless(s) || asked(s))) {
            return;
        }
        let daemon = &self.check.config.daemon;
        let (beats, asks) = (!daemon.heartbeat.is_zero(), daemon.update_command.is_some());
        for _ in 0..3 {
            let Some(at) = self.deadline() else { return };
            if !beats && !asks {
                return self.fail(format!("quiet: all is at rest, and something is due at {at} ns"));
            }
            self.now = at;
            let now = self.clock();
            let mut out = Out::default();
            if let Some(core) = &mut self.core {
                core.step(now, Input::Tick, &mut out);
            }
            let may = |e: &Effect| match e {
                Effect::Heartbeat { .. } => beats,
                Effect::Newest { .. } => asks,
                _ => false,
            };
            if !out.records.is_empty() || !out.effects.iter().all(may) {
                return self.fail(format!("quiet: all is at rest, and a tick does {out:?}"));
            }
            if self.deadline().is_some_and(|next| next <= at) {
                return self.fail(format!("quiet: a tick leaves the deadline at {at} ns"));
            }
        }
    }

    /// Only a wait without a limit, for a service that does not get there, may be unanswered.
    fn all_answered(&mut self, states: &BTreeMap<String, (String, String)>) {
        let settled = |name: &String| {
            states.get(name).is_none_or(|s| matches!(s.0.as_str(), "running" | "stopped" | "finished" | "failed"))
        };
        for ask in self.clients.unanswered().into_iter().filter(|ask| ask.verb != Verb::Task) {
            let endless = ask.wait && ask.timeout.is_none() && !ask.names.iter().all(settled);
            if !(endless && matches!(ask.verb, Verb::Start | Verb::New | Verb::Restart)) {
                self.fail(format!("one reply: nobody answered {ask:?}"));
            }
        }
    }
}

/// Whether it never comes to rest while it is wanted up.
fn restless(spec: &ServiceSpec) -> bool {
    !works(spec) || program(spec) == "task" && spec.restart == Restart::Always
}
