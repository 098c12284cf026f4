//! Transient services: made by a request with a config of their own instead of hob.json. Pure.
//!
//! One lives in the journal, with its config, and is like any other service until a person stops it: then it goes,
//! as soon as it is down. One that ended by itself stays to tell of it and is not run again by itself, not even by
//! the next keeper; of those the newest are kept. A service of hob.json that comes to bear the same name takes its
//! place.

use super::{Choice, Service, State};
use crate::base::gather::Gather as _;
use crate::base::json::Obj;
use crate::base::limits::{SERVICES_MAX, TRANSIENT_CONFIG_MAX, TRANSIENT_ENDED_MAX};
use crate::base::signal::Platform;
use crate::config::{Level, ServiceSpec, instance, parse_service, service_brief};
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
                    let items = all.iter().map(|i| Item::begun(*i, &self.table[*i], Op::Start)).collect();
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
            if self.table[i].spec.lets_others_in() {
                out.effects.push(Effect::JobAccess);
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
            all.map(|s| (s.name.to_string(), Arc::clone(&s.spec))).gather()
        };
        let specs = parse_service(&new.name, &new.config, &self.platform(), Some(&others)).map_err(|errors| {
            let lines: Vec<String> = errors.iter().map(crate::config::ConfigError::by_path).collect();
            let text = format!("the config of {} was not taken: {}", new.name, lines.join("\n"));
            RpcError::new(Code::InvalidParams, text).hint("it has the keys of a service in hob.json")
        })?;
        self.beside_instances(&new.name, &specs)?;
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

    /// A name means a service or the instances of one, never both, and the instances of one are all of one config.
    fn beside_instances(&self, name: &str, specs: &Specs) -> Result<(), RpcError> {
        let group = instance(name).map_or(name, |(group, _)| group);
        let plain = specs.contains_key(group);
        let mut others = self.table.instances(group).into_iter().map(|i| &self.table[i]);
        let clashes = |s: &&Service| !s.removed && (plain || !s.transient) && !specs.contains_key(&*s.name);
        let Some(other) = others.find(clashes) else { return Ok(()) };
        let text = format!("{name} cannot be beside {}: {group} means the instances of one service", other.name);
        Err(RpcError::new(Code::Conflict, text).hint("give the new one another name"))
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
        Platform { signals: self.facts.signals, ..Platform::linux() }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::{ConnId, ReqId, RunId};
    use crate::base::time::{Now, Wall};
    use crate::config::{Access, Config};
    use crate::core::{Boot, End, Input, Peer, Usage};
    use crate::protocol::methods::Request;

    fn core(services: usize) -> Core {
        let spec = Arc::new(ServiceSpec { autostart: false, ..ServiceSpec::default() });
        let services = (0..services).map(|i| (format!("s{i}"), Arc::clone(&spec))).collect();
        let config = Config { services, ..Config::default() };
        let mut core = Core::new();
        let boot = Boot { config, signals: Platform::linux().signals, keeper_key: "k".to_owned(), ..Boot::default() };
        core.step(Now::default(), Input::Boot(Box::new(boot)), &mut Out::default());
        core
    }

    fn run(core: &mut Core, now: Now, name: &str, config: &str) -> Result<RunId, RpcError> {
        let peer = Peer { uid: 0, pid: 1, access: Access::Admin, job: None, schedule: None };
        let (name, config) = (name.to_owned(), config.to_owned());
        let request = Request::ServiceNew(NewService { name, config, wait: false, timeout: None });
        let (req, conn, mut out) = (ReqId(1), ConnId(1), Out::default());
        core.step(now, Input::Request { req, conn, peer, key: None, params_hash: 0, request }, &mut out);
        let (mut started, mut refused) = (None, None);
        for effect in out.effects {
            if let Effect::Start(start) = effect {
                started = Some(start.run);
            } else if let Effect::Reply { result: Err(e), .. } = effect {
                refused = Some(e);
            }
        }
        refused.map_or_else(|| Ok(started.unwrap()), Err)
    }

    #[test]
    fn of_those_that_have_ended_the_newest_are_kept() {
        let mut core = core(0);
        let end = |core: &mut Core, n: usize| {
            let now = Now { wall: Wall(i64::try_from(n).unwrap()), ..Now::default() };
            // Names sort otherwise than their times.
            let run = run(core, now, &format!("j{}", 1000 - n), r#"{"command":"x","oneshot":true}"#).unwrap();
            let (end, usage) = (End::Code(0), Usage::default());
            for input in [
                Input::Started { run, result: Ok(7) },
                Input::Exited { run, end, usage },
                Input::Tree { run, left: Vec::new() },
            ] {
                core.step(now, input, &mut Out::default());
            }
        };
        for n in 0..TRANSIENT_ENDED_MAX {
            end(&mut core, n);
        }
        assert_eq!(core.table.len(), TRANSIENT_ENDED_MAX);
        end(&mut core, TRANSIENT_ENDED_MAX);
        assert_eq!(core.table.len(), TRANSIENT_ENDED_MAX);
        assert!(!core.knows("j1000") && core.knows("j999") && core.knows(&format!("j{}", 1000 - TRANSIENT_ENDED_MAX)));
    }

    #[test]
    fn there_is_an_end_to_their_number_and_to_their_size() {
        let mut full = core(SERVICES_MAX - 1);
        let two = run(&mut full, Now::default(), "j", r#"{"command":"x","instances":2}"#).unwrap_err();
        assert_eq!((two.code, full.table.len()), (Code::Busy, SERVICES_MAX - 1));
        run(&mut full, Now::default(), "j", r#"{"command":"x"}"#).unwrap();
        let long = format!(r#"{{"command":"{}"}}"#, "x".repeat(TRANSIENT_CONFIG_MAX));
        let e = run(&mut core(0), Now::default(), "j", &long).unwrap_err();
        assert!(e.code == Code::InvalidParams && e.message.contains("has more than 65536 bytes"), "{e:?}");
    }

    #[test]
    fn the_config_in_the_journal_is_short_and_means_the_same() {
        let core = core(0);
        let text =
            r#"{"command":["x","50%"],"env":{"A":"1"},"log":{"max_files":2},"stop_signal":"USR1","umask":"007"}"#;
        let spec = core.kept_spec("j", text).unwrap();
        let brief = service_brief(&spec);
        assert!(brief.len() < text.len() + 10, "{brief}");
        assert_eq!(core.kept_spec("j", &brief), Ok(spec));
        assert!(core.kept_spec("j", r#"{"command":"x","of_a_later_time":1}"#).unwrap_err().contains("unknown key"));
        assert_eq!(core.kept_spec("j", r#"{"command":"x","requires":["gone"]}"#).unwrap().requires.len(), 1);
    }
}
