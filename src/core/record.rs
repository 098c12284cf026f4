//! State to journal and back: one versioned record holds one entity's whole new state.
//!
//! `v` is the version of the record's kind. Unknown members are ignored, so a record may grow; a `v` above what this
//! program knows, or a record that does not parse, is kept aside unchanged, as `aside/KIND/ID`, and taken up again by
//! the program that reads it, unless there is a newer one of the same entity. Keys: `service/NAME`, `run/ID`, `meta`,
//! `ran`, `shutdown`, `schedule/ID`, those of `keys` and those of `task::record`.

use super::keys::Keys;
use super::run::{Cause, RunRecord, Said, Signalled, StopWhy};
use super::service::backoff::Counters;
use super::service::health::Pulse;
use super::service::wish::Wish;
use super::service::{Choice, Live, Service, State};
use super::task::record as task;
use crate::base::gather::Gather as _;
use crate::base::ids::RunId;
use crate::base::map::Map;
use crate::base::time::{Mono, Now, Wall};
use crate::config::{ServiceSpec, service_brief};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::sync::Arc;

/// One entity in the journal: a key that later records of the same entity repeat, and its whole state as JSON.
/// `json` is `None` when the entity is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entity {
    /// `service/web`, `run/17`, `key/1000/abc`, `shutdown`, ...
    pub key: String,
    pub json: Option<String>,
}

/// The version of every record written here.
pub const VERSION: u32 = 1;
/// How each record written here begins.
const PRESENT: &str = r#"{"v":1,"#;

/// What the journal keeps of a service.
#[derive(Debug, Serialize, Deserialize)]
pub struct ServiceRecord {
    v: u32,
    #[serde(default)]
    pub choice: Choice,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub down: Option<Box<Said>>,
    /// The tag of who started it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub pulled: bool,
    /// `stopped` for all states that a new daemon finds out by itself.
    pub state: State,
    /// When the state was entered, in wall time, for a state of rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    since: Option<i64>,
    /// End of the delay, in this boot's monotonic nanoseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cause: Option<Cause>,
    #[serde(default, skip_serializing_if = "is_zero")]
    total: u32,
    #[serde(default, skip_serializing_if = "is_zero")]
    streak: u32,
    #[serde(default, skip_serializing_if = "is_zero")]
    refused: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    times: Vec<u64>,
    runs: u32,
    #[serde(default)]
    fails: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_error: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    history: Vec<RunRecord>,
    /// The config of one that is not in hob.json.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transient: Option<Box<RawValue>>,
}

/// What the journal keeps of a run that is not over.
#[derive(Debug, Serialize, Deserialize)]
pub struct RunIntent {
    v: u32,
    pub service: String,
    pub number: u32,
    pub cause: Cause,
    /// The keeper under which it was started; monotonic times count for its boot only.
    pub keeper: String,
    mold: u64,
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    spawned: bool,
    begun: (u64, i64),
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ready: Option<(u64, i64)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stop: Option<StopWhy>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kill_at: Option<u64>,
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    again: bool,
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    healthy: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    extended: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signalled: Option<Box<Signalled>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    status_text: Option<Box<str>>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Meta {
    v: u32,
    pub next_run: u64,
    /// No task had this number yet.
    #[serde(default)]
    pub next_task: u64,
    /// No event before the last loss of events had this number or a higher one.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub next_event: u64,
    pub keeper: String,
    /// Runs from this number on were found without a record and are still being cleared away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unseen: Option<u64>,
    /// Records were missing when this keeper's hob started.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub gap: bool,
}

/// A shutdown that has begun; void under another keeper.
#[derive(Debug, Serialize, Deserialize)]
pub struct Shutdown {
    v: u32,
    pub keeper: String,
    pub code: u8,
    pub deadline: u64,
}

/// What ran when a managed hob ended.
#[derive(Debug, Serialize, Deserialize)]
struct Ran {
    v: u32,
    services: Vec<String>,
}

/// The service of each run whose intent is in the journal, or the name of the task that it was claimed for.
#[must_use]
pub fn services_of_runs(entities: &[Entity]) -> Map<RunId, Arc<str>> {
    #[derive(Deserialize)]
    struct Named {
        service: String,
    }
    #[derive(Deserialize)]
    struct Claimed {
        run: Option<RunId>,
    }
    let claim = |e: &Entity| {
        let id = task::id_of(e.key.strip_prefix("attempt/")?)?;
        // Most have come to rest, and there may be very many.
        let json = e.json.as_deref().filter(|json| json.contains("\"run\":"))?;
        Some((serde_json::from_str::<Claimed>(json).ok()?.run?, super::task::name_of(id)))
    };
    let one = |e: &Entity| {
        let run = e.key.strip_prefix("run/")?.parse().ok()?;
        let named: Named = serde_json::from_str(e.json.as_deref()?).ok()?;
        Some((RunId(run), Arc::from(named.service)))
    };
    entities.iter().filter_map(|e| one(e).or_else(|| claim(e))).gather()
}

/// Who kept what went on when nobody wrote any more.
#[derive(Debug, Default)]
pub struct Left {
    pub keeper: String,
    /// Runs that had begun and whose end is not on record.
    pub runs: Vec<RunId>,
    /// When the newest of them began.
    pub newest: Option<Now>,
}

/// What the journal says of it.
#[must_use]
pub fn left(entities: &[Entity]) -> Left {
    #[derive(Deserialize)]
    struct Begun {
        run: Option<RunId>,
        begun: Option<(u64, i64)>,
    }
    #[derive(Deserialize)]
    struct Kept {
        keeper: String,
    }
    let mut left = Left::default();
    for e in entities {
        let Some(json) = e.json.as_deref() else { continue };
        let number = e.key.strip_prefix("run/").and_then(|run| run.parse().ok()).map(RunId);
        // Most attempts have come to rest, and there may be very many.
        if number.is_some() || e.key.starts_with("attempt/") && json.contains("\"run\":") {
            let Ok(Begun { run, begun: Some(begun) }) = serde_json::from_str(json) else { continue };
            left.runs.extend(number.or(run));
            let begun = unpair(begun);
            left.newest = left.newest.filter(|newest| newest.wall > begun.wall).or(Some(begun));
        } else if e.key == "meta" {
            left.keeper = serde_json::from_str::<Kept>(json).map(|kept| kept.keeper).unwrap_or_default();
        }
    }
    left
}

/// Whether the journal has runs that an earlier keeper left, or that were found without a record, and that are not
/// cleared away yet: then their processes have to be looked for again, however many daemons this keeper has had.
#[must_use]
pub fn has_left_runs(entities: &[Entity], keeper: &str) -> bool {
    #[derive(Deserialize)]
    struct Kept {
        keeper: String,
        #[serde(default)]
        unseen: Option<u64>,
    }
    entities.iter().any(|e| {
        let claim = e.key.starts_with("attempt/") && e.json.as_deref().is_some_and(|json| json.contains("\"run\":"));
        let run = e.key.starts_with("run/") || claim;
        let kept = e.json.as_deref().filter(|_| run || e.key == "meta").map(serde_json::from_str::<Kept>);
        matches!(kept, Some(Ok(kept)) if kept.unseen.is_some() || run && kept.keeper != keeper)
    })
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

fn is_nothing(n: &u64) -> bool {
    *n == 0
}

/// By key, as a snapshot has them.
pub(super) fn sort(all: &mut [Entity]) {
    all.sort_by(|a, b| a.key.cmp(&b.key));
}

pub(super) fn entity<T: Serialize>(key: String, value: &T) -> Entity {
    // These types hold nothing that JSON cannot say; an empty text would be kept aside when read back.
    Entity { key, json: Some(serde_json::to_string(value).unwrap_or_default()) }
}

fn pair(now: Now) -> (u64, i64) {
    (now.mono.0, now.wall.0)
}

fn unpair((mono, wall): (u64, i64)) -> Now {
    Now { mono: Mono(mono), wall: Wall(wall) }
}

#[must_use]
pub fn service(s: &Service) -> Entity {
    let kept = match s.state {
        State::Failed | State::Finished | State::Backoff => s.state,
        State::Stopped | State::Waiting | State::Starting | State::Running | State::Stopping => State::Stopped,
    };
    let backoff = kept == State::Backoff;
    let record = ServiceRecord {
        v: VERSION,
        choice: s.choice,
        down: s.down.clone(),
        owner: s.owner.as_ref().map(|o| o.to_string().into()),
        pulled: s.pulled,
        state: kept,
        since: (!s.state.live() && s.state != State::Waiting).then_some(s.since.wall.0),
        until: backoff.then_some(s.until.0),
        cause: backoff.then(|| s.cause.clone()),
        total: s.counters.total,
        streak: s.counters.streak,
        refused: s.counters.refused,
        times: s.counters.times.iter().map(|t| t.0).collect(),
        // The present run has a record of its own, which carries its number.
        runs: s.runs.saturating_sub(u32::from(s.live.is_some())),
        fails: s.fails,
        last_error: s.last_error.clone(),
        history: s.history.clone(),
        transient: s.transient.then(|| RawValue::from_string(service_brief(&s.spec)).ok()).flatten(),
    };
    entity(service_key(&s.name), &record)
}

/// What a person said about a service that is not in the config.
#[must_use]
pub fn wish(name: &str, wish: &Wish) -> Entity {
    let mut gone = Service::new(name.into(), Arc::new(ServiceSpec::default()));
    wish.clone().put(&mut gone);
    service(&gone)
}

/// A record as it was read.
#[must_use]
pub fn kept(name: &str, record: &ServiceRecord) -> Entity {
    entity(service_key(name), record)
}

fn service_key(name: &str) -> String {
    format!("service/{name}")
}

#[must_use]
pub fn service_gone(name: &str) -> Entity {
    Entity { key: service_key(name), json: None }
}

/// Whether there is anything to keep of a service: one that was never touched needs no record.
#[must_use]
pub fn worth_keeping(s: &Service) -> bool {
    !s.gone && (s.choice != Choice::Auto || s.pulled || s.runs > 0 || s.transient)
}

#[must_use]
pub fn run(s: &Service, live: &Live, keeper: &str) -> Entity {
    let record = RunIntent {
        v: VERSION,
        service: s.name.to_string(),
        number: live.number,
        cause: live.cause.clone(),
        keeper: keeper.to_owned(),
        mold: live.mold,
        spawned: live.spawned,
        begun: pair(live.begun),
        // Who is ready by being executed needs no record of it.
        ready: live.ready.filter(|_| !live.spawned).map(pair),
        stop: live.stop.clone(),
        kill_at: live.sequence.kill_at.map(|at| at.0),
        again: live.again,
        extended: live.extended.map(|at| at.0),
        signalled: live.signalled().cloned().map(Box::new),
        status_text: live.status_text.clone(),
        healthy: live.pulse.as_ref().is_some_and(|p| p.ok),
    };
    entity(run_key(live.run), &record)
}

fn run_key(run: RunId) -> String {
    format!("run/{run}")
}

/// The run that an entity's key names.
#[must_use]
pub fn run_of(key: &str) -> Option<RunId> {
    key.strip_prefix("run/")?.parse().ok().map(RunId)
}

#[must_use]
pub fn run_gone(run: RunId) -> Entity {
    Entity { key: run_key(run), json: None }
}

#[must_use]
pub fn meta(next: (u64, u64, u64), keeper: &str, unseen: Option<u64>, gap: bool) -> Entity {
    let (next_run, next_task, next_event) = next;
    let keeper = keeper.to_owned();
    entity("meta".to_owned(), &Meta { v: VERSION, next_run, next_task, next_event, keeper, unseen, gap })
}

#[must_use]
pub fn shutdown(keeper: &str, code: u8, deadline: Mono) -> Entity {
    entity("shutdown".to_owned(), &Shutdown { v: VERSION, keeper: keeper.to_owned(), code, deadline: deadline.0 })
}

#[must_use]
pub fn shutdown_void() -> Entity {
    Entity { key: "shutdown".to_owned(), json: None }
}

impl ServiceRecord {
    /// Whether it tells nothing but what a person said, as what [`wish`] made does.
    #[must_use]
    pub fn is_wish(&self) -> bool {
        self.runs == 0 && self.history.is_empty() && self.choice != Choice::Auto && self.transient.is_none()
    }

    /// The highest run number in its history, 0 if there is none.
    #[must_use]
    pub fn newest_run(&self) -> u64 {
        self.history.iter().map(|r| r.run.0).max().unwrap_or(0)
    }

    /// Puts everything back but the state. Times of the monotonic clock mean nothing under another keeper.
    pub fn restore(self, s: &mut Service, same_keeper: bool) {
        self.wish().put(s);
        s.pulled = self.pulled;
        s.since.wall = Wall(self.since.unwrap_or_default());
        s.runs = self.runs;
        s.fails = self.fails;
        s.last_error = self.last_error;
        s.history = self.history;
        if same_keeper {
            s.until = Mono(self.until.unwrap_or(0));
            s.cause = self.cause.unwrap_or_default();
            let times = self.times.into_iter().map(Mono).collect();
            s.counters = Counters { total: self.total, streak: self.streak, refused: self.refused, times };
        }
    }
}

impl RunIntent {
    /// The run as it was, without what only the table and the shell know.
    #[must_use]
    pub fn live(&self, run: RunId) -> Live {
        let mut live = Live::new(run, self.number, self.cause.clone(), self.mold, unpair(self.begun));
        live.spawned = self.spawned;
        live.ready = self.ready.map(unpair);
        live.stop.clone_from(&self.stop);
        live.sequence.kill_at = self.kill_at.map(Mono);
        live.again = self.again;
        live.extended = self.extended.map(Mono);
        live.status_text.clone_from(&self.status_text);
        if let Some(sent) = &self.signalled {
            live.asides.get_or_insert_default().signalled = Some(sent.clone());
        }
        live.pulse = self.healthy.then(|| Box::new(Pulse::new(live.begun.mono, true)));
        live
    }
}

/// No names: the entity is gone.
#[must_use]
pub fn ran(services: &[String]) -> Entity {
    match services {
        [] => Entity { key: "ran".to_owned(), json: None },
        _ => entity("ran".to_owned(), &Ran { v: VERSION, services: services.to_vec() }),
    }
}

/// Everything that a journal held, by kind.
#[derive(Debug, Default)]
pub struct Stored {
    pub services: Vec<(String, ServiceRecord)>,
    pub runs: Vec<(RunId, RunIntent)>,
    pub meta: Option<Meta>,
    pub shutdown: Option<Shutdown>,
    /// Of tasks and their groups, for `task`.
    pub tasks: Vec<Entity>,
    /// What ran when a managed hob ended.
    pub ran: Vec<String>,
    /// Of jobs: id, record, and its text.
    pub schedules: Vec<(String, super::schedule::JobRecord, String)>,
    /// Of request keys, for `keys`.
    pub keys: Vec<Entity>,
    /// What this program does not understand, to be kept as it is, and what was wrong with it.
    pub aside: Vec<(Entity, String)>,
    /// Records of these names an earlier program kept aside; they are tried again, and are among the others here.
    pub again: Map<String, String>,
}

/// What is before the name of a record that is kept aside.
pub const ASIDE: &str = "aside/";

/// Sorts and parses the live entities of a journal.
#[must_use]
pub fn read(entities: Vec<Entity>) -> Stored {
    let mut stored = Stored { again: kept_aside(&entities), ..Stored::default() };
    for e in entities {
        let again = e.key.strip_prefix(ASIDE).filter(|key| stored.again.contains_key(*key));
        let e = again.map(|key| Entity { key: key.to_owned(), json: e.json.clone() }).unwrap_or(e);
        let Some(json) = e.json.as_deref() else { continue };
        if Keys::owns(&e.key) {
            stored.keys.push(e);
            continue;
        }
        if matches!(e.key.split_once('/'), Some((task::TASK | task::ATTEMPT | task::GROUP | task::GONE, _))) {
            stored.tasks.push(e);
            continue;
        }
        let problem = match e.key.split_once('/') {
            Some(("service", name)) => parse(json).map(|r| stored.services.push((name.to_owned(), r))),
            Some(("schedule", id)) => parse(json).map(|r| stored.schedules.push((id.to_owned(), r, json.to_owned()))),
            Some(("run", _)) => match run_of(&e.key) {
                Some(id) => parse(json).map(|r| stored.runs.push((id, r))),
                None => Err("its number cannot be read".to_owned()),
            },
            None if e.key == "meta" => parse(json).map(|r| stored.meta = Some(r)),
            None if e.key == "ran" => parse::<Ran>(json).map(|r| stored.ran = r.services),
            None if e.key == "shutdown" => parse(json).map(|r| stored.shutdown = Some(r)),
            _ => Err("its kind is not known".to_owned()),
        };
        if let Err(why) = problem {
            stored.aside.push((e, why));
        }
    }
    stored
}

/// What was kept aside and can be what it was again: nothing has been written in its place. The process of a run was
/// cleared away by whoever could not read its record.
fn kept_aside(entities: &[Entity]) -> Map<String, String> {
    let mut again: Map<String, String> = entities
        .iter()
        .filter_map(|e| {
            let key = e.key.strip_prefix(ASIDE)?;
            let (kind, _) = key.split_once('/')?;
            let lasts = matches!(kind, "service" | "schedule" | task::TASK | task::ATTEMPT | task::GROUP);
            Some((key.to_owned(), e.json.clone().filter(|_| lasts)?))
        })
        .gather();
    if !again.is_empty() {
        entities.iter().filter(|e| e.json.is_some()).for_each(|e| drop(again.remove(&e.key)));
    }
    again
}

pub(super) fn parse<'a, T: Deserialize<'a>>(json: &'a str) -> Result<T, String> {
    #[derive(Deserialize)]
    struct Versioned {
        v: u32,
    }
    // As this program writes them; others are read for their version first.
    if !json.starts_with(PRESENT) {
        let versioned: Versioned = serde_json::from_str(json).map_err(|e| e.to_string())?;
        if versioned.v > VERSION {
            return Err(format!("its version is {}, and this hob knows {VERSION}", versioned.v));
        }
    }
    serde_json::from_str(json).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Owner;

    fn kept(key: &str, json: &str) -> Entity {
        Entity { key: key.into(), json: Some(json.into()) }
    }

    #[test]
    fn a_service_survives_the_trip() {
        let mut s = Service::new("web".into(), Arc::new(ServiceSpec::default()));
        s.choice = Choice::Down;
        s.owner = Some(Owner::Job("cron".into()));
        s.state = State::Backoff;
        s.until = Mono(77);
        s.cause = Cause::Restart { n: 3 };
        s.counters = Counters { total: 9, streak: 3, refused: 1, times: vec![Mono(5)] };
        let Stored { mut services, .. } = read(vec![service(&s)]);
        let (name, record) = services.pop().unwrap();
        assert_eq!((name.as_str(), record.state), ("web", State::Backoff));
        let mut back = Service::new("web".into(), Arc::new(ServiceSpec::default()));
        record.restore(&mut back, true);
        assert_eq!((back.choice, back.until, &back.cause), (s.choice, s.until, &s.cause));
        assert_eq!(back.owner, s.owner);
        assert_eq!(back.counters, s.counters);
    }

    #[test]
    fn runs_that_an_earlier_keeper_left_are_known_until_they_are_gone() {
        let run = |keeper: &str| kept("run/7", &format!(r#"{{"v":1,"service":"a","keeper":"{keeper}"}}"#));
        assert!(!has_left_runs(&[meta((8, 1, 0), "old", None, false), run("new"), kept("service/a", "{}")], "new"));
        assert!(has_left_runs(&[meta((8, 1, 0), "new", None, false), run("old")], "new"));
        assert!(has_left_runs(&[meta((8, 1, 0), "new", Some(7), false)], "new"));
        assert!(!has_left_runs(&[kept("run/x", "{"), kept("meta", "")], "new"));
    }

    #[test]
    fn what_is_not_understood_is_kept_aside_and_unknown_members_are_ignored() {
        let stored = read(vec![
            kept("service/a", r#"{"v":1,"state":"finished","runs":2,"of_a_later_time":[]}"#),
            kept("service/b", r#"{"v":2,"state":"finished","runs":2}"#),
            kept("service/c", r#"{"v":1,"state":"dancing","runs":2}"#),
            kept("service/d", "{"),
            kept("run/x", "{}"),
            kept("thing/7", r#"{"v":1}"#),
            kept("key/0/k", "{}"),
            Entity { key: "service/gone".into(), json: None },
        ]);
        assert_eq!(stored.services.len(), 1);
        assert_eq!(stored.keys.len(), 1);
        let aside: Vec<&str> = stored.aside.iter().map(|(e, _)| e.key.as_str()).collect();
        assert_eq!(aside, ["service/b", "service/c", "service/d", "run/x", "thing/7"]);
    }

    #[test]
    fn what_was_kept_aside_is_read_again_unless_it_was_written_anew() {
        let stored = read(vec![
            kept("aside/service/a", r#"{"v":1,"state":"finished","runs":2}"#),
            kept("aside/service/b", r#"{"v":1,"state":"finished","runs":2}"#),
            kept("aside/service/c", r#"{"v":2}"#),
            kept("aside/run/7", r#"{"v":1}"#),
            kept("aside/task/000000000003", r#"{"v":1}"#),
            kept("aside/thing/7", r#"{"v":1}"#),
            kept("service/b", r#"{"v":1,"state":"failed","runs":3}"#),
        ]);
        let services: Vec<(&str, u32)> = stored.services.iter().map(|(n, r)| (n.as_str(), r.runs)).collect();
        assert_eq!(services, [("a", 2), ("b", 3)]);
        assert_eq!(stored.tasks.len(), 1);
        let aside: Vec<&str> = stored.aside.iter().map(|(e, _)| e.key.as_str()).collect();
        assert_eq!(aside, ["aside/service/b", "service/c", "aside/run/7", "aside/thing/7"]);
        assert!(stored.again.keys().map(String::as_str).eq(["service/a", "service/c", "task/000000000003"]));
    }
}
