//! The schedule of the whole core under a fake clock, over years: every due time is decided exactly once, through
//! daemons that are killed, downtime, sleep and a clock that is set.

// The helpers of a test may panic: that is how a test fails.
#![allow(clippy::unwrap_used)]

use hob::base::time::{Mono, Now, Wall};
use hob::config::cron::{Cron, Expression, Zone, ZoneFile, parse};
use hob::config::{Platform, parse as parse_config};
use hob::core::{Boot, Core, Effect, Entity, Input, Out};
use std::collections::BTreeMap;
use std::time::Duration;

/// A zone of tests/zones.txt.
fn zone_file(name: &str) -> Option<(String, Vec<u8>)> {
    let after = include_str!("zones.txt").split_once(&format!("{name}\n"))?.1;
    let hex: String = after.lines().take_while(|l| l.starts_with(' ')).map(str::trim).collect();
    let byte = |i: usize| u8::from_str_radix(hex.get(i..i + 2)?, 16).ok();
    let content = (0..hex.len()).step_by(2).map(byte).collect::<Option<_>>()?;
    (!name.is_empty()).then(|| (name.to_owned(), content))
}

struct Rng(u64);

impl Rng {
    /// A number below `n`.
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) % n
    }
}

/// One thing that the core said of a job.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Fired {
    job: String,
    due: Wall,
    at: Wall,
    why: String,
}

struct World {
    core: Core,
    now: Now,
    journal: BTreeMap<String, String>,
    config: String,
    keeper: u32,
    fired: Vec<Fired>,
    missed: BTreeMap<String, u64>,
    steps: u64,
}

impl World {
    fn new(jobs: &str, from: &str) -> World {
        let action = r#""action":{"method":"service.reset","params":{"names":["web"]}}"#;
        let jobs = jobs.replace("ACTION", action);
        let config = format!(
            r#"{{"daemon":{{"heartbeat":"0s"}},"services":{{"web":{{"command":"x","autostart":false}}}},
            "schedule":{{"jobs":[{jobs}]}}}}"#
        );
        let mut w = World {
            core: Core::new(),
            now: Now { mono: Mono(1_000_000_000), wall: Wall::parse(from).unwrap() },
            journal: BTreeMap::new(),
            config,
            keeper: 1,
            fired: Vec::new(),
            missed: BTreeMap::new(),
            steps: 0,
        };
        w.boot();
        w
    }

    /// Another daemon takes over, with what the journal has.
    fn boot(&mut self) {
        let platform = Platform { zones: zone_file, ..Platform::linux() };
        let config = parse_config(&self.config, "f", &platform).unwrap_or_else(|e| panic!("{e:?}"));
        let entities = self.journal.iter().map(|(k, j)| Entity { key: k.clone(), json: Some(j.clone()) }).collect();
        let keeper_key = format!("boot{}-1-1", self.keeper);
        let boot = Boot { config, entities, keeper_key, generation: 1, version: "0", ..Boot::default() };
        self.core = Core::new();
        self.step(Input::Boot(Box::new(boot)));
    }

    fn step(&mut self, input: Input) {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            let mut out = Out::default();
            self.steps += 1;
            self.core.step(self.now, input, &mut out);
            for r in out.records {
                match r.json {
                    Some(json) => self.journal.insert(r.key, json),
                    None => self.journal.remove(&r.key),
                };
            }
            for effect in out.effects {
                match effect {
                    Effect::Event { line, .. } => self.note(&line),
                    Effect::Log { level: hob::config::Level::Error, text } => panic!("{text}"),
                    _ => {}
                }
            }
        }
    }

    fn note(&mut self, line: &str) {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        let job = event["name"].as_str().unwrap_or("").to_owned();
        match event["kind"].as_str().unwrap() {
            "schedule.fired" => self.fired.push(Fired {
                job,
                due: Wall::parse(event["due"].as_str().unwrap()).unwrap(),
                at: self.now.wall,
                why: event["why"].as_str().unwrap().to_owned(),
            }),
            "schedule.missed" => *self.missed.entry(job).or_default() += event["count"].as_u64().unwrap(),
            "schedule.ended" => assert_eq!(event["result"], "done", "{line}"),
            "schedule.skipped" => panic!("nothing overlaps here: {line}"),
            _ => {}
        }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now.mono + time;
        while let Some(at) = self.core.next_deadline().filter(|at| *at <= end) {
            self.advance(at.since(self.now.mono));
            self.step(Input::Tick);
        }
        self.advance(end.since(self.now.mono));
    }

    /// Both clocks go on.
    fn advance(&mut self, by: Duration) {
        let before = self.now.mono.0 / 1_000_000;
        self.now.mono = self.now.mono + by;
        let millis = i64::try_from(self.now.mono.0 / 1_000_000 - before).unwrap();
        self.now.wall = Wall(self.now.wall.0 + millis);
    }

    fn dues(&self, job: &str) -> Vec<Wall> {
        self.fired.iter().filter(|f| f.job == job).map(|f| f.due).collect()
    }
}

fn expected(text: &str, zone: &str, from: Wall, until: Wall) -> Vec<Wall> {
    let zone =
        zone_file(zone).map_or_else(Zone::utc, |(name, content)| Zone::new(&ZoneFile { name, content }).unwrap());
    let Ok(Expression::Times(cron)) = parse(text) else { panic!("{text}") };
    walk(&cron, &zone, from, until)
}

fn walk(cron: &Cron, zone: &Zone, from: Wall, until: Wall) -> Vec<Wall> {
    let mut at = from;
    let next = || {
        at = cron.next(zone, at)?;
        Some(at).filter(|at| *at <= until)
    };
    std::iter::from_fn(next).collect()
}

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

const JOBS: [(&str, &str, &str); 5] = [
    ("fixed", "30 2 * * *", "Europe/Berlin"),
    ("star", "17 */3 * * *", "America/New_York"),
    ("howe", "15 2 * * sun", "Australia/Lord_Howe"),
    ("last", "0 0 L * *", "Pacific/Apia"),
    ("workday", "59 23 15W * *", "UTC"),
];

fn jobs(more: &str) -> String {
    let one =
        |(id, cron, tz): &(&str, &str, &str)| format!(r#"{{"id":"{id}","cron":"{cron}","tz":"{tz}",{more}ACTION}}"#);
    JOBS.iter().map(one).collect::<Vec<_>>().join(",")
}

#[test]
fn every_due_time_of_a_year_has_its_run_whatever_daemons_die() {
    let mut w = World::new(&jobs(""), "2025-01-10T00:00:00Z");
    let (mut rng, begin) = (Rng(7), w.now.wall);
    while w.now.wall.since(begin) < DAY * 400 {
        w.pass(Duration::from_millis(rng.below(20 * 86_400_000)));
        // A kill and the next daemon, at once or after some seconds.
        w.advance(Duration::from_secs(rng.below(20)));
        w.boot();
    }
    for (id, cron, tz) in JOBS {
        assert_eq!(w.dues(id), expected(cron, tz, begin, w.now.wall), "{id}");
    }
    assert!(w.fired.iter().all(|f| f.at.since(f.due) < Duration::from_secs(21)), "nothing is late");
    assert!(w.missed.is_empty(), "{:?}", w.missed);
    // Three looks at the clock for each run and each daemon: there is no tick.
    let events = u64::try_from(w.fired.len()).unwrap();
    assert!(w.steps < events * 6 + 1_000, "{} steps for {events} runs", w.steps);
}

#[test]
fn downtime_and_sleep_lose_no_time_where_all_are_made_up_for() {
    let mut w = World::new(&jobs(r#""missed":"all","limit":1000,"stagger":"100ms","#), "2025-02-01T00:00:00Z");
    let (mut rng, begin) = (Rng(11), w.now.wall);
    while w.now.wall.since(begin) < DAY * 300 {
        w.pass(Duration::from_millis(rng.below(5 * 86_400_000)));
        let away = Duration::from_millis(rng.below(9 * 86_400_000));
        if rng.below(2) == 0 {
            w.keeper += 1;
            w.advance(away);
            w.boot();
        } else {
            // Asleep only the wall clock goes on.
            w.now.wall = Wall(w.now.wall.0 + i64::try_from(away.as_millis()).unwrap());
            w.step(Input::WallSet { by: 0 });
        }
    }
    w.pass(HOUR);
    for (id, cron, tz) in JOBS {
        let (mut got, want) = (w.dues(id), expected(cron, tz, begin, w.now.wall));
        got.sort();
        assert_eq!(got, want, "{id}");
    }
    assert!(w.fired.iter().any(|f| f.why == "missed") && w.fired.iter().any(|f| f.why == "due"));
}

#[test]
fn one_run_makes_up_for_any_downtime_and_none_for_a_job_that_skips() {
    for (rule, most) in [("once", 1), ("skip", 0)] {
        let mut w = World::new(&jobs(&format!(r#""missed":"{rule}","#)), "2025-02-01T00:00:00Z");
        let mut rng = Rng(13);
        for _ in 0..40 {
            w.pass(Duration::from_millis(rng.below(3 * 86_400_000)));
            w.keeper += 1;
            let (before, away) = (w.fired.len(), Duration::from_millis(rng.below(12 * 86_400_000)));
            let down = w.now.wall;
            w.advance(away);
            w.boot();
            for (id, cron, tz) in JOBS {
                let lost = expected(cron, tz, down, w.now.wall);
                let made: Vec<&Fired> = w.fired[before..].iter().filter(|f| f.job == id).collect();
                let late = |at: &Wall| w.now.wall.since(*at) > Duration::from_secs(60);
                let want = usize::from(lost.last().is_some_and(|last| !late(last) || most == 1));
                assert_eq!(made.len(), want, "{id}, {rule}: {lost:?} at {}", w.now.wall);
                assert_eq!(made.first().map(|f| f.due), lost.last().copied().filter(|_| want == 1));
            }
        }
    }
}

#[test]
fn small_steps_of_the_clock_repeat_nothing_fixed_and_lose_nothing() {
    let mut w = World::new(&jobs(""), "2025-02-01T00:00:00Z");
    let (mut rng, begin) = (Rng(17), w.now.wall);
    let mut high = w.now.wall;
    for _ in 0..200 {
        w.pass(Duration::from_millis(rng.below(3 * 86_400_000)));
        high = high.max(w.now.wall);
        let by = i64::try_from(rng.below(2 * 3_600_000)).unwrap() * if rng.below(2) == 0 { 1 } else { -1 };
        w.now.wall = Wall(w.now.wall.0 + by);
        w.step(Input::WallSet { by });
        high = high.max(w.now.wall);
    }
    for (id, cron, tz) in JOBS.into_iter().filter(|(_, cron, _)| !cron.contains("*/")) {
        assert_eq!(w.dues(id), expected(cron, tz, begin, high), "{id}");
    }
    // What follows the clock on the wall fires whenever that shows its time.
    let star = w.dues("star").len();
    assert!(star > expected(JOBS[1].1, JOBS[1].2, begin, high).len() - 200);
}

#[test]
fn distances_are_kept_over_years_and_steps_of_the_clock() {
    let mut w = World::new(
        r#"{"id":"a","every":"7h",ACTION},{"id":"b","every":"90s","paused":true,ACTION}"#,
        "2025-02-01T00:00:00Z",
    );
    let mut rng = Rng(19);
    let begin = w.now.mono;
    for _ in 0..250 {
        w.pass(Duration::from_millis(rng.below(2 * 86_400_000)));
        let by = i64::try_from(rng.below(1_000_000_000)).unwrap() - 500_000_000;
        w.now.wall = Wall(w.now.wall.0 + by);
        w.step(Input::WallSet { by });
    }
    let passed = w.now.mono.since(begin);
    assert_eq!(w.fired.len() as u64, passed.as_secs() / (7 * 3600));
    assert!(w.missed.is_empty());
}

#[test]
fn a_zone_file_that_changes_is_the_same_job_by_another_clock() {
    let jobs = r#"{"id":"a","cron":"0 12 * * *","tz":"Europe/Berlin",ACTION}"#;
    let mut w = World::new(jobs, "2025-06-01T00:00:00Z");
    w.pass(DAY);
    // The parliament decides that there is no summer time any more.
    let zones = |name: &str| Some((name.to_owned(), b"CET-1".to_vec()));
    let config = parse_config(&w.config, "f", &Platform { zones, ..Platform::linux() }).unwrap();
    w.step(Input::ConfigRead { req: None, look: false, result: Ok(Box::new(config)) });
    w.pass(DAY);
    let shown: Vec<String> = w.dues("a").iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["2025-06-01T10:00:00.000Z", "2025-06-02T11:00:00.000Z"]);
}
