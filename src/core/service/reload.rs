//! A new config for running services: what only hob reads applies at once, anything else restarts the service. Pure.

use super::{Choice, State};
use crate::base::hash::{FNV, fnv};
use crate::base::ids::ReqId;
use crate::base::json::Obj;
use crate::base::map::Map;
use crate::base::text::first_lines;
use crate::config::{Changed, Config, Level, Restart, ServiceSpec, changed, changed_daemon};
use crate::core::run::{Cause, StopWhy};
use crate::core::{Core, Effect, Out};
use crate::protocol::rpc::{Code, RpcError};
use core::fmt::Debug;
use std::sync::Arc;

/// Mistakes that the refusal of a config names; there may be hundreds.
const MISTAKES_SHOWN: usize = 3;

/// A number for that part of a spec that a run is bound to. Values that are the default do not count, so that a later
/// version with more keys finds the same number.
#[must_use]
pub fn mold(spec: &ServiceSpec) -> u64 {
    let plain = ServiceSpec::default();
    let mut hash = FNV;
    let mut feed = |name: &str, value: &dyn Debug, default: &dyn Debug| {
        let (value, default) = (format!("{value:?}"), format!("{default:?}"));
        if value != default {
            hash = fnv(hash, format!("{name}={value};").as_bytes());
        }
    };
    feed("command", &spec.command, &plain.command);
    feed("cwd", &spec.cwd, &plain.cwd);
    feed("env", &spec.env, &plain.env);
    feed("env_file", &spec.env_file, &plain.env_file);
    feed("secrets", &spec.secrets, &plain.secrets);
    feed("user", &spec.user, &plain.user);
    feed("group", &spec.group, &plain.group);
    feed("umask", &spec.umask, &plain.umask);
    feed("nice", &spec.nice, &plain.nice);
    feed("ionice", &spec.limits.ionice, &plain.limits.ionice);
    feed("oom_score", &spec.limits.oom_score, &plain.limits.oom_score);
    feed("cpus", &spec.limits.cpus, &plain.limits.cpus);
    feed("on_daemon_death", &spec.on_daemon_death, &plain.on_daemon_death);
    feed("rlimits", &spec.limits.rlimits, &plain.limits.rlimits);
    feed("ready", &spec.ready, &plain.ready);
    feed("watchdog", &spec.watchdog, &plain.watchdog);
    feed("oneshot", &spec.oneshot, &plain.oneshot);
    feed("listen", &spec.listen, &plain.listen);
    feed("hob_fd", &spec.hob_fd, &plain.hob_fd);
    hash
}

/// What a reload did, by name.
#[derive(Debug, Default)]
pub(in crate::core) struct Report {
    pub(in crate::core) added: Vec<String>,
    pub(in crate::core) removed: Vec<String>,
    restarted: Vec<String>,
    pub(in crate::core) updated: Vec<String>,
    unchanged: Vec<String>,
    /// What is stopped with those that are restarted or removed, because it requires them.
    along: Vec<Arc<str>>,
    pub(in crate::core) jobs: crate::core::schedule::JobChanges,
    /// The keys that differ, of the daemon and of each service that is restarted or updated.
    pub(in crate::core) daemon: Vec<String>,
    pub(in crate::core) keys: Map<String, Vec<Changed>>,
    /// The tables around tasks that differ.
    pub(in crate::core) tables: Vec<String>,
}

impl Report {
    /// What has changed: for an event, which is kept, while what has not may be thousands of names.
    pub(in crate::core) fn changes(&self) -> Obj {
        let mut o = Obj::new();
        for (name, list) in [
            ("added", &self.added),
            ("removed", &self.removed),
            ("restarted", &self.restarted),
            ("updated", &self.updated),
        ] {
            o.raw(name, &serde_json::to_string(list).unwrap_or_default());
        }
        if !self.along.is_empty() {
            o.raw("along", &serde_json::to_string(&self.along).unwrap_or_default());
        }
        for (name, list) in [
            ("jobs_added", &self.jobs.added),
            ("jobs_removed", &self.jobs.removed),
            ("jobs_updated", &self.jobs.updated),
        ] {
            if !list.is_empty() {
                o.raw(name, &serde_json::to_string(list).unwrap_or_default());
            }
        }
        let settings: Vec<&String> = self.daemon.iter().chain(&self.tables).collect();
        if !settings.is_empty() {
            o.raw("settings", &serde_json::to_string(&settings).unwrap_or_default());
        }
        o
    }

    /// The same and what has not, for a reply.
    pub(in crate::core) fn members(&self) -> String {
        let mut o = self.changes();
        o.raw("unchanged", &serde_json::to_string(&self.unchanged).unwrap_or_default());
        o.members().to_owned()
    }
}

impl Core {
    /// A config that was read only to tell what it would lead to; whoever wanted to know may have gone.
    pub(in crate::core) fn config_looked_at(
        &mut self,
        req: Option<ReqId>,
        result: Result<Box<Config>, String>,
        out: &mut Out,
    ) {
        let Some(req) = req.filter(|req| self.pending.contains_key(req)) else { return };
        let planned = match result {
            _ if self.life.stopping.is_some() => Err(Core::shutting_down()),
            Ok(config) => Ok(self.plan(*config)),
            Err(text) => Err(not_taken(&text)),
        };
        self.reply(req, planned, false, out);
    }

    pub(in crate::core) fn config_read(
        &mut self,
        req: Option<ReqId>,
        result: Result<Box<Config>, String>,
        out: &mut Out,
    ) {
        if self.life.stopping.is_some() {
            if let Some(req) = req {
                self.reply(req, Err(Core::shutting_down()), false, out);
            }
            return;
        }
        match result {
            Ok(config) => {
                let report = self.apply_config(*config, out);
                self.emit_daemon("daemon.reloaded", report.changes().members(), out);
                if let Some(req) = req {
                    self.reply(req, Ok(format!("{{{}}}", report.members())), true, out);
                }
            }
            Err(text) => {
                let mut fields = Obj::new();
                fields.str("error", &text);
                self.emit_daemon("daemon.config_error", fields.members(), out);
                let line = format!("the config is not used, the old one stays: {text}");
                out.effects.push(Effect::Log { level: Level::Error, text: line });
                if let Some(req) = req {
                    self.reply(req, Err(not_taken(&text)), false, out);
                }
                self.config_error = Some(text);
                self.status_soon();
            }
        }
    }

    pub(in crate::core) fn apply_config(&mut self, mut config: Config, out: &mut Out) -> Report {
        let mut report = Report::default();
        let doors = self.doors();
        self.config_error = None;
        self.status_soon();
        report.tables = self.changed_tables(&config);
        self.config_taken = Some(self.now.wall);
        self.configure_tasks(&config);
        if self.config != config.daemon {
            report.daemon.extend(changed_daemon(&self.config, &config.daemon).into_iter().map(|key| key.path));
            let before = core::mem::replace(&mut self.config, config.daemon);
            out.effects.push(Effect::Daemon { spec: Box::new(self.config.clone()) });
            self.plan_beat();
            self.plan_newest(Some(&before), out);
        }
        report.jobs = self.apply_schedule(core::mem::take(&mut config.schedule), out);
        let mut restarts = Vec::new();
        for i in self.table.by_name().collect::<Vec<_>>() {
            let name = self.table[i].name.to_string();
            match config.services.remove(&name) {
                _ if self.life.main == Some(i) => {}
                None if self.table[i].transient => {}
                None => {
                    self.table[i].removed = true;
                    self.table[i].blind = false;
                    restarts.push((i, StopWhy::Removed));
                    report.removed.push(name);
                }
                Some(spec) => {
                    self.forget_start_error(i, &spec);
                    self.apply_spec(i, spec, &mut restarts, &mut report, out);
                }
            }
        }
        let added: Vec<usize> = config.services.into_iter().map(|(n, spec)| self.table.add(&n, spec)).collect();
        report.added.extend(added.iter().map(|i| self.table[*i].name.to_string()));
        for i in &added {
            self.recall_wish(*i);
        }
        let held = core::mem::take(&mut self.held_sockets);
        self.restore_sockets(held, out);
        self.table.connect();
        self.tell_doors(&doors, out);
        let stopped: Vec<usize> = restarts.iter().map(|(i, _)| *i).collect();
        report.along = self.taken_along(&stopped);
        for (i, why) in restarts {
            self.mark_stop(i, &why);
        }
        for i in self.table.by_name().collect::<Vec<_>>() {
            self.table.look(i);
            self.table.touch(i);
            if self.table[i].wanted() {
                if self.table[i].state == State::Stopped {
                    self.lift(i, Cause::Reload, out);
                }
                self.pull(i, false, out);
            } else if self.table[i].live.is_some() && self.table[i].stop_mark().is_none() {
                // It was let run while the config could not be read.
                self.mark_stop(i, &StopWhy::Unwanted);
            }
        }
        report
    }

    /// The config has what was transient: it lasts, and is nobody's. Whether it was transient.
    fn make_lasting(&mut self, i: usize) -> bool {
        let s = &mut self.table[i];
        let was = core::mem::take(&mut s.transient);
        if was {
            s.owner = None;
            self.table.save(i);
        }
        was
    }

    /// Why a start came to nothing speaks of a command; that of a new config is another.
    fn forget_start_error(&mut self, i: usize, new: &ServiceSpec) {
        let s = &mut self.table[i];
        if !s.blind && s.was_not_started() && mold(&s.spec) != mold(new) && s.last_error.take().is_some() {
            self.table.save(i);
        }
    }

    fn apply_spec(
        &mut self,
        i: usize,
        spec: Arc<ServiceSpec>,
        restarts: &mut Vec<(usize, StopWhy)>,
        report: &mut Report,
        out: &mut Out,
    ) {
        let s = &mut self.table[i];
        let name = s.name.to_string();
        let new_mold = mold(&spec);
        let stale = s.live.as_ref().is_some_and(|l| l.mold != new_mold && l.stop.is_none());
        let molded = mold(&s.spec) != new_mold;
        let was_transient = self.make_lasting(i);
        let s = &mut self.table[i];
        if s.spec == spec && !stale && !s.removed && !s.blind && !was_transient {
            return report.unchanged.push(name);
        }
        // Whoever is up because of autostart stays up until somebody stops it: autostart speaks of starts only.
        if s.choice == Choice::Auto && s.spec.autostart && !spec.autostart && s.wanted() && s.live.is_some() {
            s.pulled = true;
            self.table.save(i);
        }
        let s = &mut self.table[i];
        let log = if s.log_told { s.spec.log != spec.log } else { s.live.is_some() };
        if s.spec.listen != spec.listen || s.blind {
            s.listening.untold();
        }
        let policy =
            (s.spec.restart, s.spec.max_restarts, s.spec.window) != (spec.restart, spec.max_restarts, spec.window);
        let (was_blind, asked_anew) = (s.blind, s.spec.health != spec.health);
        let (molded, policy) = (molded && !was_blind, policy && !was_blind);
        if s.awaits_connection() && !spec.on_demand {
            s.cause = Cause::Reload;
        }
        if !was_blind {
            report.keys.insert(name.clone(), changed(&s.spec, &spec));
        }
        s.spec = spec;
        s.removed = false;
        s.blind = false;
        if log {
            s.log_told = false;
            self.tell_log(i, out);
        }
        if stale {
            restarts.push((i, StopWhy::Reload));
            return report.restarted.push(name);
        }
        report.updated.push(name);
        if let Some(run) = self.table[i].live.as_ref().map(|l| l.run).filter(|_| was_blind) {
            self.adopt_readiness(i, run, out);
        }
        if asked_anew || was_blind {
            let healthy = self.table[i].live.as_ref().and_then(|l| l.pulse.as_ref()).is_some_and(|p| p.ok);
            self.health_begin(i, healthy, out);
        }
        let s = &mut self.table[i];
        let again = match s.state {
            State::Failed => molded || policy,
            State::Backoff => molded,
            // While the config could not be read the default policy had to judge.
            State::Finished => (policy || was_blind) && s.spec.restart == Restart::Always || s.spec.on_demand,
            State::Stopped | State::Waiting | State::Starting | State::Running | State::Stopping => false,
        };
        if again && s.wanted() {
            s.counters.clear();
            self.lift(i, Cause::Reload, out);
        }
    }
}

fn not_taken(text: &str) -> RpcError {
    let text = format!("the config was not taken: {}", first_lines(text, MISTAKES_SHOWN));
    RpcError::new(Code::InvalidParams, text).hint("the old config goes on; see `hob config check`")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Platform, keys, parse};
    use core::time::Duration;

    #[test]
    fn the_mold_depends_on_what_the_child_sees_alone() {
        let plain = ServiceSpec { command: vec!["a".into()], ..ServiceSpec::default() };
        let live = ServiceSpec { autostart: false, ..plain.clone() };
        let live = live.with(|s| s.stop_timeout = Duration::from_secs(1));
        let other = plain.clone().with(|s| s.umask = Some(0o77));
        let split = ServiceSpec { command: vec!["a\", \"b".into()], ..plain.clone() };
        let two = ServiceSpec { command: vec!["a".into(), "b".into()], ..plain.clone() };
        assert_eq!(mold(&plain), mold(&live));
        assert_ne!(mold(&plain), mold(&other));
        assert_ne!(mold(&split), mold(&two));
    }

    /// The table of keys says which of them need a restart, and a reload goes by the mold.
    #[test]
    fn the_mold_and_the_table_of_keys_agree() {
        let needed = |n: &str| format!("\"{n}\":{{\"command\":\"x\"}}");
        let needs = ["db", "cache", "metrics", "network"].map(needed).join(",");
        let read = |member: &str| {
            let text = format!("{{\"services\":{{\"s\":{{\"command\":\"x\"{member}}},{needs}}}}}");
            let config = parse(&text, "f", &Platform::linux()).unwrap_or_else(|e| panic!("{text}: {e:?}"));
            config.services.into_iter().find(|(name, _)| name == "s" || name.starts_with("s@")).unwrap().1
        };
        let plain = read("");
        let mut seen = 0;
        for key in keys().into_iter().filter(|k| k.path.starts_with("services.NAME.") && !k.path.ends_with(".command"))
        {
            let path: Vec<&str> = key.path.split('.').skip(2).collect();
            // An example that is the default says nothing.
            let value = key.default.as_deref().map_or(key.example, |d| match (d == key.example, d) {
                (false, _) => key.example,
                (true, "true") => "false",
                (true, "false") => "true",
                (true, "\"on-failure\"") => "\"never\"",
                (true, d) if d.starts_with('"') => "\"7s\"",
                (true, _) => "7",
            });
            let value = if path == ["log", "max_size"] { "\"9MB\"" } else { value };
            // What runs on demand wants an address.
            let more = if path == ["on_demand"] { ",\"listen\":\"unix:/s\"" } else { "" };
            let plain = if more.is_empty() { plain.clone() } else { read(more) };
            let value = if path == ["stop_signal"] { "\"SIGHUP\"" } else { value };
            let value = path.iter().skip(1).rev().fold(value.to_owned(), |v, name| format!("{{\"{name}\":{v}}}"));
            let other = read(&format!(",\"{}\":{value}{more}", path[0]));
            assert!(*other != *plain || path == ["instances"], "{}: {value} is the default", key.path);
            assert_eq!(mold(&other) == mold(&plain), key.live, "{}", key.path);
            seen += 1;
        }
        assert!(seen > 30);
    }
}
