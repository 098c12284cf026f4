//! Transient services: made by a request with a config of their own instead of hob.json. Pure.
//!
//! One lives in the journal, with its config, and is like any other service until a person stops it: then it goes,
//! as soon as it is down. One that ended by itself stays to tell of it and is not run again by itself, not even by
//! the next keeper; of those the newest are kept. A service of hob.json that comes to bear the same name takes its
//! place.

use super::{Choice, Service, State};
use crate::base::json::Obj;
use crate::base::limits::{SERVICES_MAX, TRANSIENT_CONFIG_MAX, TRANSIENT_ENDED_MAX};
use crate::base::signal::Platform;
use crate::config::{Level, ServiceSpec, parse_service, service_brief};
use crate::core::request::Asked;
use crate::core::wait::{Item, Op, Waiting};
use crate::core::{Core, Effect, Out};
use crate::protocol::methods::NewService;
use crate::protocol::rpc::{Code, RpcError};
use std::collections::BTreeMap;
use std::sync::Arc;

type Specs = BTreeMap<String, Arc<ServiceSpec>>;

impl Core {
    /// `service.start` with a config.
    pub(in crate::core) fn start_new(&mut self, asked: &Asked, new: &NewService, out: &mut Out) {
        let waiting = Waiting { wait: new.wait, timeout: new.timeout };
        if self.keys.is_resumed(asked.req) {
            // It was made in the step that noted the key, and may have been stopped since.
            return match self.members(&new.name) {
                Ok(all) => {
                    let items = all.iter().map(|i| Item::begun(*i, &self.table[*i])).collect();
                    self.wait(asked, Op::Restart, items, waiting);
                }
                Err(_) => {
                    let text = format!("{} was started, and stopped by another request", new.name);
                    self.reply(asked.req, Err(RpcError::new(Code::Unavailable, text)), true, out);
                }
            };
        }
        let specs = match self.new_specs(new) {
            Ok(specs) => specs,
            Err(e) => return self.reply(asked.req, Err(e), false, out),
        };
        if new.wait {
            self.keys.note(self.now, asked.req, out);
        }
        let places: Vec<usize> = specs.into_iter().map(|(name, spec)| self.put_new(&name, spec)).collect();
        self.table.connect();
        let items = places.iter().map(|i| Item::new(*i, &self.table[*i])).collect();
        for i in places {
            if self.table[i].runs == 0 && self.table[i].state == State::Stopped {
                let mut fields = Obj::new();
                fields.bool("transient", true).str("by", &asked.client().text());
                self.emit("service.added", i, fields.members(), out);
            }
            self.wish_start(i, asked.client(), out);
            self.table.save(i);
        }
        self.wait(asked, Op::Start, items, waiting);
    }

    /// The checked specs of what is to be made: one, or all its instances.
    fn new_specs(&self, new: &NewService) -> Result<Specs, RpcError> {
        let others = || {
            let all = self.table.by_name().map(|i| &self.table[i]).filter(|s| !s.removed);
            all.map(|s| (s.name.to_string(), Arc::clone(&s.spec))).collect()
        };
        let specs = parse_service(&new.name, &new.config, &self.platform(), Some(&others)).map_err(|errors| {
            let lines: Vec<String> = errors.iter().map(crate::config::ConfigError::by_path).collect();
            let text = format!("the config of {} was not taken: {}", new.name, lines.join("\n"));
            RpcError::new(Code::InvalidParams, text).hint("it has the keys of a service in hob.json")
        })?;
        for (name, spec) in &specs {
            if service_brief(spec).len() > TRANSIENT_CONFIG_MAX {
                let text = format!("the config of {name} has more than {TRANSIENT_CONFIG_MAX} bytes");
                return Err(RpcError::new(Code::InvalidParams, text).hint("put it into hob.json"));
            }
            if let Some(e) = self.table.find(name).and_then(|i| self.conflict(i, spec)) {
                return Err(e);
            }
        }
        let added = specs.keys().filter(|name| self.table.find(name).is_none()).count();
        if self.table.len() + added > SERVICES_MAX {
            let text = format!("{SERVICES_MAX} services are the most");
            return Err(RpcError::new(Code::Busy, text).hint("stop or remove some first"));
        }
        Ok(specs)
    }

    /// Why a service that exists cannot be the one that is asked for.
    fn conflict(&self, i: usize, spec: &Arc<ServiceSpec>) -> Option<RpcError> {
        let s = &self.table[i];
        let name = &s.name;
        if !s.transient {
            let text = format!("{name} is a service of hob.json");
            return Some(RpcError::new(Code::Conflict, text).hint("give the new one another name"));
        }
        let at_rest = match s.state {
            State::Stopped | State::Failed | State::Finished => true,
            State::Waiting | State::Starting | State::Running | State::Stopping | State::Backoff => false,
        };
        if s.spec == *spec || at_rest {
            return None;
        }
        let text = format!("{name} exists with another config, and is {}", s.state);
        Some(RpcError::new(Code::Conflict, text).hint(format!("stop it first: hob stop {name}")))
    }

    fn put_new(&mut self, name: &str, spec: Arc<ServiceSpec>) -> usize {
        // What was said of one that bore the name before is not meant for this one.
        self.wishes.remove(name);
        match self.table.find(name) {
            Some(i) => {
                let s = &mut self.table[i];
                s.log_told &= s.spec.log == spec.log;
                s.spec = spec;
                i
            }
            None => {
                let i = self.table.add(name, spec);
                self.table[i].transient = true;
                i
            }
        }
    }

    fn platform(&self) -> Platform {
        Platform { signals: self.facts.signals }
    }

    /// The spec of one that the journal has.
    pub(in crate::core) fn kept_spec(&self, name: &str, config: &str) -> Result<Arc<ServiceSpec>, String> {
        let one = |specs: Specs| specs.into_values().next().unwrap_or_default();
        parse_service(name, config, &self.platform(), None)
            .map(one)
            .map_err(|errors| errors.iter().map(crate::config::ConfigError::by_path).collect::<Vec<_>>().join("; "))
    }

    /// A person wants it gone.
    pub(super) fn let_go(&mut self, i: usize) {
        if self.table[i].transient {
            self.table[i].removed = true;
            self.table.save(i);
        }
    }

    /// A person wants it after all, before it has gone.
    pub(super) fn hold_on(&mut self, i: usize) {
        if self.table[i].transient && core::mem::take(&mut self.table[i].removed) {
            self.table.save(i);
        }
    }

    /// Of those that have ended by themselves the oldest go when there are too many.
    pub(super) fn bound_ended(&mut self, out: &mut Out) {
        let over = |s: &Service| {
            s.transient
                && !s.removed
                && match s.state {
                    State::Failed | State::Finished => true,
                    State::Stopped
                    | State::Waiting
                    | State::Starting
                    | State::Running
                    | State::Stopping
                    | State::Backoff => false,
                }
        };
        let mut ended: Vec<usize> = self.table.by_name().filter(|i| over(&self.table[*i])).collect();
        let Some(too_many) = ended.len().checked_sub(TRANSIENT_ENDED_MAX) else { return };
        ended.sort_by_key(|i| self.table[*i].since.wall);
        for i in ended.into_iter().take(too_many) {
            let text =
                format!("{} has ended and is removed: {TRANSIENT_ENDED_MAX} later ones have too", self.table[i].name);
            out.effects.push(Effect::Log { level: Level::Info, text });
            self.table[i].choice = Choice::Down;
            self.let_go(i);
            self.table.look(i);
        }
    }

    /// Names that it requires and that no service bears: a need that hob.json lost, or that was transient itself.
    pub(in crate::core) fn missing(&self, i: usize) -> impl Iterator<Item = &str> {
        let s = &self.table[i];
        let needs = if s.transient { &s.spec.requires[..] } else { &[] };
        needs.iter().map(|need| &*need.name).filter(|name| self.table.find(name).is_none())
    }

    /// `service.remove`: only what is transient goes that way.
    pub(in crate::core) fn not_removable(&self, names: &[String]) -> Option<RpcError> {
        let all = names.iter().filter_map(|name| self.members(name).ok()).flatten();
        let kept = all.map(|i| &self.table[i]).find(|s| !s.transient)?;
        let text = format!("{} is a service of hob.json", kept.name);
        Some(RpcError::new(Code::Conflict, text).hint("take it out of the file, then `hob reload`"))
    }
}
