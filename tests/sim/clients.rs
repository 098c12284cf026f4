//! Clients: what they ask, which answers they are owed, and what they were promised.

use crate::asked::request;
use crate::check::Wish;
use crate::jobs_plan::JobAsk;
use crate::plan::{Ask, CLIENTS, TRANSIENT, Verb};
use crate::questions::query;
use crate::shell::tells_of_work;
use crate::tasks_ask::Question;
use crate::world::{Event, World};
use hob::base::ids::{ConnId, ReqId, StreamId};
use hob::base::limits::HISTORY_PER_NAME;
use hob::config::Access;
use hob::core::{Core, Input, Out, Peer};
use hob::protocol::methods::Request;
use hob::protocol::methods::task::TaskCall;
use hob::protocol::rpc::{Code, RpcError};
use std::collections::{BTreeMap, BTreeSet};

type Answer = Result<String, RpcError>;

#[derive(Debug)]
struct Open {
    client: u64,
    conn: ConnId,
    ask: Ask,
    answered: bool,
    fresh: Fresh,
    /// When its own limit is over.
    due: Option<u64>,
    /// A request about tasks or jobs.
    request: Option<Request>,
}

/// What a key stands for.
#[derive(Clone, Debug)]
enum Key {
    Open {
        hash: u64,
        req: ReqId,
    },
    Done {
        hash: u64,
        answer: Answer,
        end: usize,
    },
    /// A death may have lost it.
    Unsure,
}

/// Whether a request will be carried out, by its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fresh {
    Yes,
    No,
    Maybe,
}

#[derive(Clone, Copy, Debug)]
pub struct Asked {
    pub req: ReqId,
    fresh: Fresh,
}

#[derive(Debug, Default)]
pub struct Clients {
    conns: BTreeMap<u64, ConnId>,
    next_conn: u64,
    next_req: u64,
    open: BTreeMap<ReqId, Open>,
    /// Requests of closed connections: one late answer to each does no harm.
    gone: BTreeSet<ReqId>,
    keys: BTreeMap<(u64, String), Key>,
    /// Answers that wait for a sync, with the position they need.
    unsynced: Vec<(usize, ReqId, Answer)>,
    /// Claims that wait for a sync, likewise.
    claims: Vec<(usize, u64)>,
    syncing: bool,
    /// Next event of each subscription.
    subscriptions: BTreeMap<(ConnId, StreamId), u64>,
    /// The next event that a client has not seen.
    seen: BTreeMap<u64, u64>,
    /// What a repeated key must be answered.
    expected: BTreeMap<ReqId, Answer>,
    conflicts: BTreeSet<ReqId>,
}

impl Clients {
    /// What the request about to be stepped means for the model, if it can change a wish.
    pub fn asked(&self, input: &Input) -> Option<Asked> {
        let Input::Request { req, .. } = input else { return None };
        let open = self.open.get(req)?;
        let speaks = matches!(open.ask.verb, Verb::Start | Verb::New | Verb::Stop | Verb::Restart | Verb::Reset);
        speaks.then_some(Asked { req: *req, fresh: open.fresh })
    }

    pub fn daemon_died(&mut self) {
        self.conns.clear();
        self.open.clear();
        self.gone.clear();
        self.unsynced.clear();
        self.claims.clear();
        self.syncing = false;
        self.subscriptions.clear();
        self.expected.clear();
        self.conflicts.clear();
        for key in self.keys.values_mut() {
            if matches!(key, Key::Open { .. }) {
                *key = Key::Unsure;
            }
        }
    }

    /// Records after this position are lost.
    pub fn lost(&mut self, survives: usize) {
        for key in self.keys.values_mut() {
            if matches!(key, Key::Done { end, .. } if *end > survives) {
                *key = Key::Unsure;
            }
        }
    }

    /// From here on the wall clock alone says how old a key is, and it may have been stepped.
    pub fn new_keeper(&mut self) {
        for key in self.keys.values_mut() {
            *key = Key::Unsure;
        }
    }

    /// The request about to be stepped, if it is about tasks or jobs: with its key, and who asks.
    pub fn question(&self, input: &Input) -> Option<Question> {
        let Input::Request { req, peer, key, params_hash, .. } = input else { return None };
        let request = self.open.get(req)?.request.clone()?;
        Some((request, key.clone().map(|k| (k, *params_hash)), peer.uid))
    }

    /// Requests about tasks that are open.
    pub fn open_waits(&self) -> Vec<(Ask, Option<Request>)> {
        self.open.values().map(|o| (o.ask.clone(), o.request.clone())).collect()
    }

    /// One whose limit is over and that has no answer.
    pub fn late(&self, now: u64) -> Option<&Ask> {
        let waits = |o: &&Open| changes(o.ask.verb) && o.ask.task.is_none() && o.ask.job.is_none() && !o.answered;
        self.open.values().filter(waits).find(|o| o.due.is_some_and(|at| now > at)).map(|o| &o.ask)
    }

    /// Time in which nobody could do anything.
    pub fn defer(&mut self, ns: u64) {
        self.open.values_mut().for_each(|o| o.due = o.due.map(|at| at.saturating_add(ns)));
    }

    /// One that has no answer yet.
    pub fn open(&self) -> Option<&Ask> {
        self.open.values().find(|o| !o.answered).map(|o| &o.ask)
    }

    /// Requests that were never answered.
    pub fn unanswered(&self) -> Vec<Ask> {
        self.open.values().map(|o| o.ask.clone()).collect()
    }
}

/// Whether it changes what is wanted.
fn changes(verb: Verb) -> bool {
    matches!(verb, Verb::Start | Verb::New | Verb::Stop | Verb::Restart | Verb::Reset)
}

fn uid(client: u64) -> u64 {
    1000 + client
}

fn hash(ask: &Ask) -> u64 {
    hash_of(&format!("{:?} {:?} {} {:?}", ask.verb, ask.names, ask.wait, ask.timeout))
}

fn hash_of(text: &str) -> u64 {
    text.bytes().fold(7, |h: u64, b| h.wrapping_mul(31).wrapping_add(u64::from(b)))
}

impl World<'_> {
    pub fn ask(&mut self, client: u64, ask: Ask) {
        if self.core.is_none() {
            return;
        }
        let c = &mut self.clients;
        let conn = *c.conns.entry(client).or_insert_with(|| {
            c.next_conn += 1;
            ConnId(c.next_conn)
        });
        c.next_req += 1;
        let req = ReqId(c.next_req);
        let hash = hash(&ask);
        let mutates = changes(ask.verb) || ask.verb == Verb::Signal;
        let key = ask.key.clone().filter(|_| mutates);
        let fresh = key.as_ref().map_or(Fresh::Yes, |k| c.key_asked((uid(client), k.clone()), hash, req));
        let from = c.seen.get(&client).copied().filter(|_| ask.wait);
        let of_jobs = ask.job.as_ref().map(JobAsk::request);
        let of_tasks = ask.task.as_ref().map(|t| self.check.tasks.request(t)).or(of_jobs);
        let request = of_tasks.clone().unwrap_or_else(|| request(&ask, from));
        let (key, hash) = match &of_tasks {
            // The tasks themselves carry the key of their submission.
            Some(request) => (ask.key.clone(), hash_of(&format!("{request:?}"))),
            None => (key, hash),
        };
        // One with a key may wait for another of the same key, which asked for more time.
        let due = ask.timeout.filter(|_| ask.wait && ask.key.is_none()).map(|ms| self.now + (ms + 1) * 1_000_000);
        c.open.insert(req, Open { client, conn, ask, answered: false, fresh, due, request: of_tasks });
        let peer = Peer {
            uid: u32::try_from(uid(client)).unwrap_or(0),
            pid: 1,
            access: Access::Admin,
            job: None,
            schedule: None,
        };
        self.step(Input::Request { req, conn, peer, key, params_hash: hash, request });
    }

    /// A request that may change wishes was accepted; its records lie between these positions.
    pub fn wished(&mut self, asked: Asked, begin: usize, end: usize) {
        let Some(open) = self.clients.open.get(&asked.req) else { return };
        let ask = open.ask.clone();
        let wish = match (ask.verb, asked.fresh) {
            (_, Fresh::No) => return,
            (Verb::Start | Verb::New | Verb::Restart, Fresh::Yes) => Wish::Up,
            (Verb::Stop, Fresh::Yes) => Wish::Down,
            (Verb::Reset, Fresh::Yes) => Wish::Auto,
            (_, _) => Wish::Either,
        };
        self.wish(ask.verb, &ask.names, wish, (begin, end));
    }

    /// Somebody wants something of services.
    pub fn wish(&mut self, verb: Verb, names: &[String], wish: Wish, (begin, end): (usize, usize)) {
        for name in names {
            self.check.spoken(name, !matches!(verb, Verb::Start | Verb::New));
            // A restart says nothing new about the wish of a service that autostart or a need holds up.
            let held = matches!(self.check.wish(name), Wish::Auto | Wish::Either);
            let wish = if verb == Verb::Restart && held { Wish::Either } else { wish };
            self.check.set_wish(name, wish, begin, end);
        }
    }

    pub fn disconnect(&mut self, client: u64) {
        let Some(conn) = self.clients.conns.remove(&client) else { return };
        let c = &mut self.clients;
        let closed: Vec<ReqId> = c.open.iter().filter(|(_, o)| o.conn == conn).map(|(r, _)| *r).collect();
        for req in closed {
            c.open.remove(&req);
            c.gone.insert(req);
            c.unsynced.retain(|u| u.1 != req);
            for key in c.keys.values_mut() {
                if matches!(key, Key::Open { req: r, .. } if *r == req) {
                    *key = Key::Unsure;
                }
            }
        }
        c.subscriptions.retain(|(of, _), _| *of != conn);
        self.check.inhibitors.remove(&conn);
        self.step(Input::Closed { conn });
    }

    pub fn reload(&mut self, version: Option<usize>, client: u64, signal: bool) {
        self.file = version;
        if signal {
            self.step(Input::Reload);
        } else {
            self.ask(client % CLIENTS, Ask::new(Verb::Reload));
        }
    }

    pub fn lag(&mut self, client: u64) {
        let Some(conn) = self.clients.conns.get(&client).copied() else { return };
        let first = self.clients.subscriptions.keys().find(|(of, _)| *of == conn).copied();
        if let Some((conn, subscription)) = first {
            self.step(Input::Lagged { conn, subscription });
        }
    }

    /// The core answers.
    pub fn reply(&mut self, req: ReqId, answer: Answer, durable: bool) {
        self.score.replies += 1;
        if let Ok(json) = &answer
            && serde_json::from_str::<serde_json::Value>(json).is_err()
        {
            self.fail(format!("reply: not JSON: {json}"));
        }
        let end = self.disk.position();
        if self.clients.gone.remove(&req) {
            return;
        }
        let Some(open) = self.clients.open.get_mut(&req).filter(|o| !o.answered) else {
            return self.fail(format!("one reply: request {req} is not open: {answer:?}"));
        };
        open.answered = true;
        if open.ask.verb == Verb::Inhibit && answer.is_ok() {
            self.check.inhibitors.insert(open.conn);
        }
        let (verb, client, key, asked) = (open.ask.verb, open.client, open.ask.key.clone(), hash(&open.ask));
        let of_tasks = open.request.as_ref().is_some_and(crate::tasks_ask::changes);
        if let Some(Request::Task(call)) = &open.request
            && let TaskCall::Wait { which, .. } = &**call
        {
            let judged = self.check.tasks.waited(which, &answer, false);
            self.require(judged);
        }
        let mutates = changes(verb) || of_tasks;
        // A stop is answered all the same, and says so.
        let excused = self.journal_full || verb == Verb::Stop && self.disk.is_behind();
        if mutates && answer.is_ok() && !durable && !excused {
            self.fail(format!("durable: {verb:?} is answered without a promise"));
        }
        let judged = self.clients.judge(req, &answer);
        self.require(judged);
        if let Some(key) = key.filter(|_| (mutates || verb == Verb::Signal) && !matches!(verb, Verb::Task | Verb::Job))
        {
            self.clients.key_answered((uid(client), key), asked, req, &answer, durable.then_some(end));
        }
        if durable {
            self.clients.unsynced.push((end, req, answer));
            self.begin_sync();
        } else {
            self.answered(req, &answer);
        }
    }

    pub fn claim(&mut self, ticket: u64) {
        let end = self.disk.position();
        self.check.tasks.tickets.insert(ticket, end);
        self.clients.claims.push((end, ticket));
        self.begin_sync();
    }

    pub fn begin_sync(&mut self) {
        let wanted = !self.clients.unsynced.is_empty() || !self.clients.claims.is_empty();
        if !self.clients.syncing && wanted && !self.disk.is_behind() {
            self.clients.syncing = true;
            let upto = self.disk.written();
            self.soon(30, true, Event::Sync(upto));
        }
    }

    pub fn synced(&mut self, upto: usize) {
        self.disk.sync(upto);
        self.clients.syncing = false;
        let synced = self.disk.synced();
        let (claims, later) = core::mem::take(&mut self.clients.claims).into_iter().partition(|c| c.0 <= synced);
        self.clients.claims = later;
        for (_, ticket) in claims {
            self.soon(1, true, Event::Deliver(Input::Synced { ticket }));
        }
        let (done, wait) = core::mem::take(&mut self.clients.unsynced).into_iter().partition(|u| u.0 <= synced);
        self.clients.unsynced = wait;
        for (_, req, answer) in done {
            self.answered(req, &answer);
        }
        self.begin_sync();
    }

    /// The answer reaches its client, who now relies on it.
    fn answered(&mut self, req: ReqId, answer: &Answer) {
        let Some(open) = self.clients.open.remove(&req) else { return };
        let Ok(json) = answer else { return };
        if open.ask.verb == Verb::Subscribe {
            return self.subscribed(&open, json);
        }
        let relies = matches!(open.ask.verb, Verb::Start | Verb::New | Verb::Stop | Verb::Restart);
        if relies && self.file.is_some() && self.rng.percent(30) {
            self.check_promised(&open.ask.names);
        }
    }

    fn subscribed(&mut self, open: &Open, json: &str) {
        let Ok(v) = serde_json::from_str::<serde_json::Value>(json) else { return };
        let (Some(id), Some(mut next)) = (v["subscription"].as_u64(), v["next"].as_u64()) else {
            return self.fail(format!("reply: {json}"));
        };
        let from = self.clients.seen.get(&open.client).copied().filter(|_| open.ask.wait);
        if v["reset"] == false
            && let Some(from) = from
        {
            next = from;
        }
        let id = StreamId(u32::try_from(id).unwrap_or(0));
        self.clients.subscriptions.insert((open.conn, id), next);
        self.clients.seen.insert(open.client, next);
    }

    pub fn notified(&mut self, conn: ConnId, stream: StreamId, method: &str, params: &str) {
        let Ok(v) = serde_json::from_str::<serde_json::Value>(params) else {
            return self.fail(format!("notify: not JSON: {params}"));
        };
        let Some(next) = self.clients.subscriptions.get_mut(&(conn, stream)) else {
            return self.fail(format!("notify: nobody subscribed to {stream} on {conn}"));
        };
        match method {
            "event" => {
                let seq = v["event"]["seq"].as_u64().unwrap_or(0);
                let want = *next;
                *next = seq + 1;
                let client = self.clients.conns.iter().find(|(_, c)| **c == conn).map(|(c, _)| *c);
                if let Some(client) = client {
                    self.clients.seen.insert(client, seq + 1);
                }
                // Numbers of events that a power loss took are left out.
                if seq < want || self.disk.events.iter().any(|(kept, _)| (want..seq).contains(kept)) {
                    self.fail(format!("notify: event {seq} comes instead of {want}"));
                } else if self.disk.events.last().is_none_or(|(last, _)| *last < seq) {
                    self.fail(format!("notify: event {seq} is told before it is kept"));
                }
            }
            "event.lagged" => {
                if v["resume_from"].as_u64() != Some(*next) {
                    let want = *next;
                    return self.fail(format!("notify: lagged at {want}: {params}"));
                }
                self.clients.subscriptions.remove(&(conn, stream));
            }
            _ => self.fail(format!("notify: method {method}")),
        }
    }

    /// Asks the present core for its list and holds it against the truth.
    pub fn probe(&mut self) {
        if let Some(list) = self.list() {
            let judged = self.check.listed(&list, &self.os);
            self.require(judged);
        }
    }

    pub fn list(&mut self) -> Option<serde_json::Value> {
        if self.is_due() {
            // What is due would be done by this step.
            return None;
        }
        let now = self.clock();
        let mut core = self.core.take()?;
        let mut out = Out::default();
        let answer = query(&mut core, now, Request::ServiceList { names: Vec::new(), owner: None }, &mut out);
        self.core = Some(core);
        if !out.records.is_empty() {
            self.fail("list: a question has written records".to_owned());
        }
        for effect in out.effects {
            self.exec(effect);
        }
        serde_json::from_str(&answer.ok()?).ok()
    }

    /// A daemon that knew no more than what is synced would still remember these wishes.
    fn check_promised(&mut self, names: &[String]) {
        let mut boot = self.knowledge();
        boot.entities = self.disk.entities(self.disk.synced());
        boot.stop = false;
        // A job of a config that nobody has read yet would speak for itself, and at once.
        boot.config.schedule.clear();
        let config = boot.config.clone();
        let (now, mut out) = (self.clock(), Out::default());
        let mut core = Core::new();
        core.step(now, Input::Boot(Box::new(boot)), &mut out);
        let request = Request::ServiceList { names: Vec::new(), owner: None };
        let Ok(answer) = query(&mut core, now, request, &mut out) else { return };
        let Ok(list) = serde_json::from_str::<serde_json::Value>(&answer) else { return };
        let listed = |name: &str| list["services"].as_array().into_iter().flatten().any(|s| s["name"] == name);
        for name in names.iter().filter(|n| TRANSIENT.iter().any(|(t, _)| t == n)) {
            let promised = self.check.wish(name) == Wish::Up && self.check.wish_end(name) <= self.disk.synced();
            if promised && !listed(name) {
                return self.fail(format!("durable: {name} was made, and the journal does not have it"));
            }
        }
        for s in list["services"].as_array().into_iter().flatten() {
            let name = s["name"].as_str().unwrap_or_default();
            let gone = !config.services.contains_key(name);
            if gone || !names.iter().any(|n| n == name) || self.check.wish_end(name) > self.disk.synced() {
                continue;
            }
            let wish = self.check.wish(name);
            let kept = match s["desired"].as_str() {
                Some("up") => wish != Wish::Down,
                Some("down") => wish != Wish::Up,
                _ => false,
            };
            if !kept {
                self.fail(format!(
                    "durable: {name} was promised to be {wish:?}, and the journal says {}",
                    s["desired"]
                ));
            }
        }
    }

    /// A daemon that starts from the journal as it is now knows how this run ended.
    pub fn check_recorded(&mut self, run: hob::base::ids::RunId) {
        let Some(truth) = self.os.runs.get(&run).cloned() else { return };
        if !self.check.is_recorded(run)
            || !self.check.config.services.contains_key(&*truth.service)
            || self.file.is_none()
        {
            return;
        }
        let json = self.disk.get(&format!("service/{}", truth.service)).unwrap_or_default().to_owned();
        let v: serde_json::Value = serde_json::from_str(&json).unwrap_or_default();
        let history: Vec<u64> =
            v["history"].as_array().into_iter().flatten().filter_map(|r| r["run"].as_u64()).collect();
        // Ten later runs may have come before this one's slot could be freed, or the service is another one since.
        let later = history.iter().all(|r| *r > run.0);
        let full = later && (history.len() >= HISTORY_PER_NAME || v["history"][0]["number"] == 1);
        if truth.pid.is_some() && !full && !history.contains(&run.0) {
            self.fail(format!("forget: the end of run {run} of {} is not on record: {json}", truth.service));
        }
    }
}

impl Clients {
    /// A request with a key is about to be stepped: whether it will be carried out, and what it must be answered.
    fn key_asked(&mut self, key: (u64, String), hash: u64, req: ReqId) -> Fresh {
        match self.keys.get(&key) {
            Some(Key::Done { hash: h, .. } | Key::Open { hash: h, .. }) if *h != hash => {
                self.conflicts.insert(req);
                Fresh::No
            }
            Some(Key::Done { answer, .. }) => {
                self.expected.insert(req, answer.clone());
                Fresh::No
            }
            Some(Key::Open { .. }) => Fresh::No,
            Some(Key::Unsure) => Fresh::Maybe,
            None => {
                self.keys.insert(key, Key::Open { hash, req });
                Fresh::Yes
            }
        }
    }

    fn judge(&mut self, req: ReqId, answer: &Answer) -> Result<(), String> {
        let now_not = matches!(answer, Err(e) if matches!(e.code, Code::Busy | Code::ShuttingDown));
        if now_not {
            self.conflicts.remove(&req);
            self.expected.remove(&req);
            return Ok(());
        }
        if self.conflicts.remove(&req) {
            return match answer {
                Err(e) if matches!(e.code, Code::Conflict) => Ok(()),
                _ => Err(format!("keys: request {req} has another's key and is answered {answer:?}")),
            };
        }
        match self.expected.remove(&req) {
            Some(want) if want != *answer => {
                Err(format!("keys: request {req} is answered {answer:?} instead of {want:?}"))
            }
            _ => Ok(()),
        }
    }

    fn key_answered(&mut self, key: (u64, String), hash: u64, req: ReqId, answer: &Answer, end: Option<usize>) {
        // What is not promised was not done, and is tried anew.
        let kept = end.is_some() && answer.as_ref().err().is_none_or(tells_of_work);
        let end = end.unwrap_or_default();
        match self.keys.get(&key) {
            Some(Key::Open { req: first, .. }) if *first != req => {}
            Some(Key::Done { .. }) => {}
            Some(Key::Unsure) | None if !kept => {}
            _ if kept => {
                self.keys.insert(key, Key::Done { hash, answer: answer.clone(), end });
            }
            // A shutdown ends the waiting for what may have begun, and what has begun is not begun again.
            _ if matches!(answer, Err(e) if e.code == Code::ShuttingDown) => {
                self.keys.insert(key, Key::Unsure);
            }
            _ => {
                self.keys.remove(&key);
            }
        }
    }
}
