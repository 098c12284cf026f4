//! Plays a trace: feeds the core its inputs and writes down effects and records in a short form.
//!
//! - `# ...` and empty lines are kept. `service NAME JSON` and `daemon JSON` make the config, `main NAME` names the
//!   main service.
//! - `top JSON` gives further members of the config, such as groups. `call METHOD JSON` is any method of the protocol;
//!   `synced N` says that claims up to that one are on disk; `lose-power` is a boot in which that is not known.
//! - `auto on|off`: whether the pretended system answers starts and sweeps by itself, and whether TERM ends a process.
//! - `loads held`: what is asked of the config file is answered by `loaded` alone.
//! - `listening NAME [ERROR]` answers for the sockets of a service, `connection NAME SOCKET [waiting]` connects to one.
//! - Every other line is an input, after `+TIME` if that much time passes first; what becomes due on the way is shown
//!   with its time. Lines that begin with two spaces are effects.

use crate::show::{duty, owner, show, survivors};
use hob::base::gather::Gather as _;
use hob::base::ids::{ConnId, ReqId, RunId};
use hob::base::time::{Mono, Now, Wall};
use hob::base::units::parse_duration;
use hob::config::{Access, Config, Platform, parse};
use hob::core::upgrade::Ticket;
use hob::core::{Boot, Core, Effect, End, Entity, Input, Out, Peer, StartError, Survivor, TableRun, Usage, Usages};
use hob::protocol::methods::{Change, Inhibit, LogQuery, NewService, Request, decode};
use hob::protocol::rpc::{Code, RpcError};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

struct Process {
    name: String,
    pid: Option<u32>,
    error: Option<StartError>,
    ended: Option<(End, Usage)>,
    /// The keeper ends it with the daemon.
    asked: bool,
}

struct Player {
    core: Core,
    now: Now,
    services: BTreeMap<String, String>,
    jobs: BTreeMap<String, String>,
    daemon: String,
    top: String,
    main: Option<String>,
    managed: bool,
    outer: bool,
    auto: bool,
    /// Questions for the config file that `loaded` is to answer.
    loads: Option<VecDeque<(Option<ReqId>, bool)>>,
    journal: BTreeMap<String, String>,
    processes: BTreeMap<RunId, Process>,
    /// The newest run of each name.
    runs: BTreeMap<String, RunId>,
    left: Vec<(RunId, Vec<Survivor>)>,
    /// Services whose sockets the keeper holds.
    sockets: BTreeSet<String>,
    events: Vec<(u64, String)>,
    keeper: u32,
    boots: u32,
    gap: bool,
    generation: u32,
    safe: bool,
    next_req: u64,
    lines: Vec<String>,
}

/// The trace with the effects that happen now.
pub(crate) fn play(text: &str) -> String {
    let mut p = Player {
        core: Core::new(),
        now: Now { mono: Mono(1_000_000_000_000), wall: Wall(1_700_000_000_000) },
        services: BTreeMap::new(),
        jobs: BTreeMap::new(),
        daemon: r#"{"heartbeat":"0s"}"#.to_owned(),
        top: "{}".to_owned(),
        main: None,
        managed: false,
        outer: false,
        auto: false,
        loads: None,
        journal: BTreeMap::new(),
        processes: BTreeMap::new(),
        runs: BTreeMap::new(),
        left: Vec::new(),
        sockets: BTreeSet::new(),
        events: Vec::new(),
        keeper: 1,
        boots: 1,
        gap: false,
        generation: 0,
        safe: false,
        next_req: 0,
        lines: Vec::new(),
    };
    for line in text.lines().filter(|l| !l.starts_with("  ")) {
        p.lines.push(line.to_owned());
        p.line(line);
    }
    p.lines.join("\n") + "\n"
}

fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = line.trim();
    while !rest.is_empty() {
        let (word, tail) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').expect("an open quote"),
            None if rest.starts_with(['{', '[']) => (rest, ""),
            None => rest.split_once(' ').unwrap_or((rest, "")),
        };
        words.push(word.to_owned());
        rest = tail.trim_start();
    }
    words
}

impl Player {
    fn line(&mut self, line: &str) {
        let mut w = words(line);
        if w.is_empty() || line.starts_with('#') {
            return;
        }
        if let Some(time) = w[0].strip_prefix('+') {
            self.pass(parse_duration(time).expect("a duration"));
            w.remove(0);
        }
        let Some(verb) = w.first().cloned() else { return };
        let arg = |n: usize| w.get(n).cloned().unwrap_or_default();
        match verb.as_str() {
            "service" => {
                self.services.insert(arg(1), arg(2));
            }
            "job" => {
                self.jobs.insert(arg(1), arg(2));
            }
            "no-job" => {
                self.jobs.remove(&arg(1));
            }
            "clock" | "unseen-clock" => self.set_clock(&arg(1), verb == "clock"),
            "sleep" => {
                let slept = i64::try_from(parse_duration(&arg(1)).unwrap().as_millis()).unwrap();
                self.now.wall = Wall(self.now.wall.0 + slept);
                self.step(Input::WallSet { by: 0 }, "");
            }
            "no-service" => {
                self.services.remove(&arg(1));
            }
            "daemon" => self.daemon = arg(1),
            "top" => self.top = arg(1),
            "main" => self.main = Some(arg(1)),
            "managed" => self.managed = arg(1) == "on",
            "outer" => self.outer = arg(1) == "on",
            "auto" => self.auto = arg(1) == "on",
            "loads" => self.loads = (arg(1) == "held").then(VecDeque::new),
            "boot" => self.boot(None, arg(1) == "stop"),
            "safe-boot" => {
                self.safe = true;
                self.boot(None, false);
                self.safe = false;
            }
            "broken-boot" => self.boot(Some("hob.json:1:1: nonsense".to_owned()), false),
            "freeze" => {
                self.now.mono = self.now.mono + parse_duration(&arg(1)).unwrap();
                self.step(Input::Tick, "");
            }
            "asked" => {
                let run = self.run(&arg(1));
                self.processes.get_mut(&run).expect("a run").asked = true;
            }
            "crash" => self.crash(),
            "gap" => self.gap = true,
            "reboot" => self.reboot(),
            "lose-power" => {
                self.boots += 1;
                self.reboot();
            }
            "left" => self.left.push((self.run(&arg(1)), survivors(&w[2..]))),
            "journal" => {
                self.journal.insert(arg(1), arg(2));
            }
            "forget" => self.journal.retain(|key, _| !key.starts_with(&arg(1))),
            "journal?" => self.show_journal(&arg(1)),
            "snapshot?" => self.show_snapshot(),
            "next?" => self.show_next(),
            _ => {
                let input = self.input(&verb, &w);
                self.step(input, "");
            }
        }
    }

    fn input(&mut self, verb: &str, w: &[String]) -> Input {
        let arg = |n: usize| w.get(n).cloned().unwrap_or_default();
        match verb {
            "started" => self.started(&arg(1), Ok(arg(2).parse().unwrap())),
            "not-started" => self.started(&arg(1), Err(StartError { message: arg(2), transient: false })),
            "delayed" => self.started(&arg(1), Err(StartError { message: arg(2), transient: true })),
            "exited" => self.exited(&arg(1), &arg(2)),
            "tree" => Input::Tree { run: self.run(&arg(1)), left: survivors(&w[2..]) },
            "heard" => Input::Heard { run: self.run(&arg(1)) },
            "ready-seen" => Input::ReadySeen { run: self.run(&arg(1)) },
            "passed" => Input::Checked { run: self.run(&arg(1)), what: duty(&arg(2)), result: Ok(()) },
            "not-passed" => Input::Checked { run: self.run(&arg(1)), what: duty(&arg(2)), result: Err(arg(3)) },
            "newest" => Input::Newest { result: Ok(arg(1)) },
            "no-newest" => Input::Newest { result: Err(arg(1)) },
            "notify" => {
                let fields = w[2..].iter().map(|f| f.split_once('=').unwrap());
                let fields = fields.map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
                Input::Notify { run: self.run(&arg(1)), fields }
            }
            "output" => {
                Input::Output { run: self.run(&arg(1)), bytes: arg(2).parse().unwrap(), last_lines: w[3..].to_vec() }
            }
            "listening" => {
                let result = if w.len() > 2 { Err(arg(2)) } else { Ok(()) };
                Input::Listening { service: arg(1).into(), result }
            }
            "connection" => {
                Input::Connection { service: arg(1).into(), on: arg(2).into(), waiting: arg(3) == "waiting" }
            }
            "reload" => Input::ConfigRead { req: None, look: false, result: Ok(Box::new(self.config())) },
            "loaded" => {
                let (req, look) =
                    self.loads.as_mut().and_then(VecDeque::pop_front).expect("a config that is asked for");
                Input::ConfigRead { req, look, result: Ok(Box::new(self.config())) }
            }
            "reload-broken" => Input::ConfigRead { req: None, look: false, result: Err(arg(1)) },
            "stop-hob" => Input::Stop { hurry: arg(1) == "hurry" },
            "keeper-gone" => Input::KeeperGone,
            "forward" => Input::Forward { signal: arg(1).parse().unwrap() },
            "closed" => Input::Closed { conn: ConnId(arg(1).parse().unwrap()) },
            "journal-behind" => Input::JournalBehind { why: Some(arg(1)) },
            "journal-full" => Input::JournalFull { full: arg(1) == "yes" },
            "sighup" => Input::Reload,
            "sigusr2" => Input::Renew { signal: 12 },
            "upgrade-ended" => {
                let error = RpcError::new(Code::Unavailable, arg(2));
                Input::UpgradeEnded { req: Some(ReqId(arg(1).parse().unwrap())), result: Err(error) }
            }
            "upgraded" => {
                let ticket = Ticket { uid: 1000, key: arg(1), hash: arg(2).parse().unwrap() };
                Input::Upgraded { ticket: Some(ticket), result: Ok(format!("{{\"upgraded\":\"{}\"}}", arg(3))) }
            }
            "tick" => Input::Tick,
            "synced" => Input::Synced { ticket: arg(1).parse().unwrap() },
            "call" => self.call(&arg(1), &arg(2)),
            _ => self.request(verb, &w[1..]),
        }
    }

    fn request(&mut self, verb: &str, w: &[String]) -> Input {
        let option = |name: &str| w.iter().find_map(|o| o.strip_prefix(name)?.strip_prefix('=').map(str::to_owned));
        let plain = |o: &&String| !o.contains('=') && *o != "nowait" && !o.starts_with('{');
        let names: Vec<String> = w.iter().filter(plain).cloned().collect();
        let name = names.first().cloned().unwrap_or_default();
        let wait = !w.iter().any(|o| o == "nowait");
        let timeout = option("timeout").map(|t| parse_duration(&t).unwrap());
        let change = Change { names: names.clone(), all: false, wait, timeout };
        let request = match verb {
            "start" => Request::ServiceStart(change),
            "stop" => Request::ServiceStop(change),
            "restart" => Request::ServiceRestart(change),
            "reset" => Request::ServiceReset { names },
            "reload-service" => Request::ServiceReload { names },
            "signal" => Request::ServiceSignal { name, signal: option("n").unwrap().parse().unwrap() },
            "why" => Request::DaemonWhy { name },
            "list" => Request::ServiceList { names, owner: option("owner").map(|o| owner(&o)) },
            "logs" => Request::ServiceLogs(logs_of(names)),
            "get" => Request::ServiceGet { name },
            "history" => Request::ServiceHistory { name, limit: 10 },
            "health" => Request::DaemonHealth,
            "status" => Request::DaemonStatus,
            "doctor" => Request::DaemonDoctor,
            "inhibit" => {
                Request::DaemonInhibit(Inhibit { what: "shutdown".into(), who: name, why: "it writes".into() })
            }
            "uninhibit" => Request::DaemonUninhibit { inhibitor: name.parse().unwrap() },
            "ping" => Request::Ping,
            "shutdown" => Request::DaemonShutdown { graceful: true, grace: timeout },
            "jobs" => Request::ScheduleList { ids: Some(names).filter(|names| !names.is_empty()) },
            "job-get" => Request::ScheduleGet { id: name },
            "job-run" => Request::ScheduleRun { id: name },
            "job-pause" => Request::SchedulePause { ids: names, pause: true },
            "job-resume" => Request::SchedulePause { ids: names, pause: false },
            "job-next" => Request::ScheduleNext { id: name, count: 3 },
            "job-history" => Request::ScheduleHistory { id: name, limit: 10 },
            "ask-reload" => Request::DaemonReload,
            "plan" => Request::DaemonPlan,
            "remove" => Request::ServiceRemove(change),
            "run" => self.new_service(name, &w[1..].join(" "), wait, timeout),
            "upgrade" => Request::DaemonUpgrade { binary: None },
            other => panic!("unknown line: {other}"),
        };
        self.next_req += 1;
        Input::Request {
            req: ReqId(self.next_req),
            conn: ConnId(option("conn").map_or(1, |c| c.parse().unwrap())),
            peer: Peer {
                uid: 1000,
                pid: 77,
                access: Access::Admin,
                job: option("job").map(Into::into),
                schedule: None,
            },
            key: option("key"),
            params_hash: option("hash").map_or(1, |h| h.parse().unwrap()),
            request,
        }
    }

    /// Any method, with params as JSON; `request_key` among them is the key.
    fn call(&mut self, method: &str, params: &str) -> Input {
        let raw = serde_json::value::RawValue::from_string(params.to_owned()).expect("params are JSON");
        let call =
            decode(method, Some(&raw), Platform::of("linux").signals).unwrap_or_else(|e| panic!("{method}: {e:?}"));
        self.next_req += 1;
        Input::Request {
            req: ReqId(self.next_req),
            conn: ConnId(1),
            peer: Peer { uid: 1000, pid: 77, access: Access::Admin, job: None, schedule: None },
            key: call.key,
            params_hash: call.params_hash,
            request: call.request,
        }
    }

    /// `run NAME [nowait] {JSON}`, with a command as `service` has it.
    fn new_service(&self, name: String, rest: &str, wait: bool, timeout: Option<Duration>) -> Request {
        let json = rest.split_once('{').map_or_else(|| "{}".to_owned(), |(_, json)| format!("{{{json}"));
        let config = if json.contains("\"command\"") {
            json
        } else {
            json.replacen('{', &format!("{{\"command\":[\"/bin/{name}\"]{}", if json == "{}" { "" } else { "," }), 1)
        };
        Request::ServiceNew(NewService { name, config, wait, timeout })
    }

    fn run(&self, name: &str) -> RunId {
        name.parse().map(RunId).unwrap_or_else(|_| *self.runs.get(name).unwrap_or_else(|| panic!("{name} has no run")))
    }

    fn started(&mut self, name: &str, result: Result<u32, StartError>) -> Input {
        let run = self.run(name);
        if let Some(p) = self.processes.get_mut(&run) {
            p.pid = result.clone().ok();
            p.error = result.clone().err();
        }
        Input::Started { run, result }
    }

    fn exited(&mut self, name: &str, how: &str) -> Input {
        let end = match how.split_once('=') {
            Some(("code", n)) => End::Code(n.parse().unwrap()),
            Some(("signal", n)) => End::Signal(n.parse().unwrap()),
            _ => panic!("an end is code=N or signal=N"),
        };
        let (run, usage) = (self.run(name), Usage { cpu: Duration::from_millis(20), memory: 4096 });
        if let Some(p) = self.processes.get_mut(&run) {
            p.ended = Some((end, usage));
        }
        Input::Exited { run, end, usage }
    }

    fn config(&self) -> Config {
        let services: Vec<String> = self
            .services
            .iter()
            .map(|(name, json)| {
                let more = json.trim().strip_prefix('{').and_then(|j| j.strip_suffix('}')).unwrap().trim();
                let comma = if more.is_empty() { "" } else { "," };
                let given: serde_json::Value = serde_json::from_str(json).expect("a service is JSON");
                let command = if given.get("command").is_some() {
                    String::new()
                } else {
                    format!("\"command\":[\"/bin/{name}\"]{comma}")
                };
                format!("\"{name}\":{{{command}{more}}}")
            })
            .collect();
        let top = self.top.trim().trim_start_matches('{');
        let top = top.strip_suffix('}').unwrap_or(top);
        let comma = if top.is_empty() { "" } else { "," };
        let jobs: Vec<String> = self
            .jobs
            .iter()
            .map(|(id, json)| format!("{{\"id\":\"{id}\",{}", json.trim().strip_prefix('{').unwrap()))
            .collect();
        let text = format!(
            "{{\"daemon\":{},\"services\":{{{}}},\"schedule\":{{\"jobs\":[{}]}}{comma}{top}}}",
            self.daemon,
            services.join(","),
            jobs.join(",")
        );
        parse(&text, "hob.json", &Platform::of("linux")).unwrap_or_else(|e| panic!("{text}: {e:?}"))
    }

    fn boot(&mut self, config_error: Option<String>, stop: bool) {
        self.generation += 1;
        let mut config = if config_error.is_some() { Config::default() } else { self.config() };
        config.daemon.heartbeat = self.config().daemon.heartbeat;
        let main = self.main.clone().map(|name| (name.clone(), config.services.remove(&name).unwrap()));
        let table = self.processes.iter().map(|(run, p)| TableRun {
            run: *run,
            pid: p.pid,
            exec_error: p.error.clone(),
            ended: p.ended,
            asked: p.asked,
        });
        let journal = self.journal.iter().map(|(k, j)| Entity { key: k.clone(), json: Some(j.clone()) });
        let boot = Boot {
            managed: self.managed,
            outer: self.outer,
            config,
            config_error,
            entities: journal.collect(),
            table: table.collect(),
            leftovers: std::mem::take(&mut self.left),
            events: self.events.clone(),
            keeper_pid: 10,
            daemon_pid: 11,
            generation: self.generation,
            deaths: self.generation - 1,
            keeper_key: format!("boot{}-keeper{}", self.boots, self.keeper),
            gap: std::mem::take(&mut self.gap),
            host: "host".to_owned(),
            version: "0.1.0",
            main,
            keeper_started: Mono(1_000_000_000_000),
            signals: Platform::linux().signals,
            stop,
            sockets: self.sockets.iter().map(|s| s.as_str().into()).collect(),
            safe: self.safe.then(|| "it died of a test".to_owned()),
            ..Boot::default()
        };
        self.core = Core::new();
        self.step(Input::Boot(Box::new(boot)), "");
    }

    /// The wall clock is set, to a time or by a difference. `seen`: there is a daemon that is told.
    fn set_clock(&mut self, to: &str, seen: bool) {
        let old = self.now.wall;
        let by = |text: &str| i64::try_from(parse_duration(text).unwrap().as_millis()).unwrap();
        self.now.wall = match (to.strip_prefix('+'), to.strip_prefix('-')) {
            (Some(by_this), _) => Wall(old.0 + by(by_this)),
            (_, Some(by_this)) => Wall(old.0 - by(by_this)),
            (None, None) => Wall::parse(to).expect("a time"),
        };
        if self.generation > 0 && seen {
            self.step(Input::WallSet { by: self.now.wall.0 - old.0 }, "");
        }
    }

    /// The daemon is killed; the keeper starts the next one.
    fn crash(&mut self) {
        self.boot(None, false);
    }

    /// Keeper and daemon are gone, and all that ran; `left` says who is still found.
    fn reboot(&mut self) {
        self.keeper += 1;
        self.generation = 0;
        self.processes.clear();
        self.sockets.clear();
        self.boot(None, false);
    }

    /// Time passes, and everything that becomes due on the way is stepped at its time.
    fn pass(&mut self, time: Duration) {
        let (start, end) = (self.now, self.now.mono + time);
        for _ in 0..1000 {
            let Some(at) = self.core.next_deadline().filter(|at| *at <= end) else { break };
            let passed = at.since(start.mono);
            self.now.mono = at.max(self.now.mono);
            self.now.wall = Wall(start.wall.0 + i64::try_from(passed.as_millis()).unwrap());
            self.step(Input::Tick, &format!("[{} ms] ", passed.as_millis()));
        }
        self.now = Now { mono: end, wall: Wall(start.wall.0 + i64::try_from(time.as_millis()).unwrap()) };
    }

    fn step(&mut self, input: Input, when: &str) {
        let mut inputs = vec![input];
        while !inputs.is_empty() {
            let mut out = Out::default();
            self.core.step(self.now, inputs.remove(0), &mut out);
            self.records(&out, when);
            for effect in &out.effects {
                let text = show(effect);
                self.lines.push(format!("  {when}{text}"));
                self.pretend(effect, &mut inputs);
            }
        }
    }

    fn records(&mut self, out: &Out, when: &str) {
        let mut keys = Vec::new();
        for r in &out.records {
            match &r.json {
                Some(json) => {
                    keys.push(r.key.clone());
                    self.journal.insert(r.key.clone(), json.clone());
                }
                None => {
                    keys.push(format!("-{}", r.key));
                    self.journal.remove(&r.key);
                }
            }
        }
        if !keys.is_empty() {
            self.lines.push(format!("  {when}records {}", keys.join(" ")));
        }
    }

    /// What the system would do.
    fn pretend(&mut self, effect: &Effect, inputs: &mut Vec<Input>) {
        match effect {
            Effect::Start(s) => {
                let process =
                    Process { name: s.service.to_string(), pid: None, error: None, ended: None, asked: false };
                self.processes.insert(s.run, process);
                self.runs.insert(s.service.to_string(), s.run);
                if self.auto {
                    let pid = 100 + u32::try_from(s.run.0).unwrap();
                    inputs.push(self.started(&s.run.0.to_string(), Ok(pid)));
                }
            }
            Effect::Signal { run, signal, .. } if self.auto && (*signal == 15 || *signal == 9) => {
                inputs.push(self.exited(&run.0.to_string(), &format!("signal={signal}")));
            }
            Effect::Kill { run } if self.auto && self.processes.get(run).is_some_and(|p| p.ended.is_none()) => {
                inputs.push(self.exited(&run.0.to_string(), "signal=9"));
            }
            Effect::Sync { ticket } if self.auto => inputs.push(Input::Synced { ticket: *ticket }),
            Effect::Sweep { run } if self.auto => inputs.push(Input::Tree { run: *run, left: Vec::new() }),
            Effect::Measure { req, runs, .. } => {
                let usage = Usage { cpu: Duration::from_millis(1500), memory: 1_000_000 };
                let usages: Usages = runs.iter().map(|r| (*r, usage)).gather();
                inputs.push(Input::Measured { req: *req, usage: Arc::new(usages) });
            }
            Effect::LoadConfig { req, look } => match &mut self.loads {
                Some(loads) => loads.push_back((*req, *look)),
                None => inputs.push(Input::ConfigRead { req: *req, look: *look, result: Ok(Box::new(self.config())) }),
            },
            Effect::Event { seq, line } => self.events.push((*seq, line.clone())),
            Effect::Forget { run } => {
                self.processes.remove(run);
            }
            Effect::Listen { service, .. } => {
                self.sockets.insert(service.to_string());
            }
            Effect::Unlisten { service } | Effect::Remove { service } => {
                self.sockets.remove(&**service);
            }
            _ => {}
        }
    }

    fn show_journal(&mut self, key: &str) {
        let text = self.journal.get(key).map_or("nothing", |s| s).to_owned();
        self.lines.push(format!("  {text}"));
    }

    /// Slices of one entity must add up to what the journal holds.
    fn show_snapshot(&mut self) {
        let mut cursor: Option<String> = None;
        let mut found = BTreeMap::new();
        while let Some(e) = self.core.entities_from(cursor.as_deref(), 1).pop() {
            assert!(found.insert(e.key.clone(), e.json.clone().unwrap()).is_none(), "{} comes twice", e.key);
            cursor = Some(e.key);
        }
        let all = self.core.entities_from(None, 1000).len();
        assert_eq!(all, found.len());
        let keys: Vec<&str> = found.keys().map(String::as_str).collect();
        self.lines.push(format!("  {}", keys.join(" ")));
        let differs = |(k, v): (&String, &String)| k != "meta" && found.get(k) != Some(v);
        let stale: Vec<&String> = self.journal.iter().filter(|(k, v)| differs((k, v))).map(|(k, _)| k).collect();
        assert!(stale.is_empty(), "the journal and the snapshot differ in {stale:?}");
    }

    fn show_next(&mut self) {
        let text = match self.core.next_deadline() {
            Some(at) => format!("in {} ms", at.since(self.now.mono).as_millis()),
            None => "never".to_owned(),
        };
        let alive: Vec<String> = self.processes.iter().map(|(r, p)| format!("{} {}", r.0, p.name)).collect();
        self.lines.push(format!("  next {text}; runs: {}", alive.join(", ")));
    }
}

fn logs_of(names: Vec<String>) -> LogQuery {
    let (since, until, stream) = (None, None, None);
    LogQuery { names, lines: 5, follow: false, from: Vec::new(), since, until, stream, marks: false }
}
