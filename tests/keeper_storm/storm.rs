//! Kills at random moments, and the reckoning afterwards.

use crate::lab::{self, Lab, pause, until};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Children that the daemon keeps running.
pub(crate) const CHILDREN: usize = 20;

/// How a run is to end, by its number alone, so that it can be checked.
pub(crate) enum Fate {
    Code(u8),
    /// Exits with this code and leaves a child behind that ends a little later.
    Stray(u8),
    Abort,
    NoProgram,
}

pub(crate) fn fate(run: u64) -> Fate {
    let code = u8::try_from(run % 90).unwrap();
    match run {
        _ if run.is_multiple_of(17) => Fate::NoProgram,
        _ if run.is_multiple_of(13) => Fate::Abort,
        _ if run.is_multiple_of(11) => Fate::Stray(code),
        _ => Fate::Code(code),
    }
}

pub(crate) fn by_clone3() {
    storm("storm", kills(200));
}

pub(crate) fn by_clone() {
    storm("storm-by-clone", kills(200) / 4);
}

fn kills(usual: usize) -> usize {
    std::env::var("HOB_STORM_KILLS").ok().map_or(usual, |n| n.parse().expect("HOB_STORM_KILLS is a number"))
}

fn storm(mode: &str, kills: usize) {
    let seed = std::env::var("HOB_STORM_SEED").ok().map_or(1, |n| n.parse().expect("HOB_STORM_SEED is a number"));
    let mut chance = Chance(seed);
    let mut lab = Lab::start(mode);
    // 0, 1, 2, listener, lock, program, signals, table, channel, process, log; then twice two times six held and one.
    let usual_fds = 11 + 5 * 2 + 2 + 1;
    lab.wait_for("serving-1");
    until("the held descriptors", || lab.keeper_fds() == usual_fds);
    let (mut slowest, mut killed_at) = (Duration::ZERO, Instant::now());
    for generation in 1..=kills {
        let pid = lab.daemon(generation);
        // One in ten dies before it has taken over; the others at any moment of work.
        if chance.below(10) != 0 {
            lab.wait_for(&format!("serving-{generation}"));
            if generation > 1 {
                slowest = slowest.max(killed_at.elapsed());
            }
            pause(Duration::from_micros(chance.below(30_000)));
        } else {
            pause(Duration::from_micros(chance.below(4_000)));
        }
        killed_at = Instant::now();
        lab::kill(pid);
    }
    lab.wait_for(&format!("serving-{}", kills + 1));
    until("the same number of descriptors as before", || lab.keeper_fds() == usual_fds);
    until("all zombies to be reaped", || lab.zombies() == 0);
    assert_eq!(lab.generations(), kills + 1, "no daemon has died by itself");
    lab.signal("TERM");
    assert_eq!(lab.exit_code(), 0);
    lab.nothing_left();
    let sum = reckon(&lab);
    println!("{mode}: {kills} kills, slowest from kill to service {slowest:?}, {sum}");
}

/// xorshift64*: the same moments for the same seed, as far as the machine allows.
struct Chance(u64);

impl Chance {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % n
    }
}

/// Holds every run's intent, processes and ends against each other.
fn reckon(lab: &Lab) -> String {
    let mut started: BTreeMap<u64, usize> = BTreeMap::new();
    let mut ends: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for line in lab.read("journal").lines() {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let run = words[1].parse().unwrap();
        match words[0] {
            "start" => *started.entry(run).or_default() += 1,
            "void" => ends.entry(run).or_default().push("void".to_owned()),
            _ => ends.entry(run).or_default().push(words[2..].join(" ")),
        }
    }
    let mut ran: BTreeMap<u64, usize> = BTreeMap::new();
    for line in lab.read("ran").lines() {
        *ran.entry(line.split(' ').next().unwrap().parse().unwrap()).or_default() += 1;
    }
    let (mut void, mut stopped) = (0, 0);
    for (run, times) in &started {
        assert_eq!(*times, 1, "run {run} was begun {times} times");
        let end = ends.get(run).unwrap_or_else(|| panic!("run {run} has no end"));
        assert_eq!(end.len(), 1, "run {run} has ended more than once: {end:?}");
        let processes = ran.get(run).copied().unwrap_or(0);
        let expected = match fate(*run) {
            Fate::Code(code) | Fate::Stray(code) => (format!("code {code}"), 1),
            Fate::Abort => ("signal 6".to_owned(), 1),
            Fate::NoProgram => ("errno 2".to_owned(), 0),
        };
        match end[0].as_str() {
            "void" => {
                assert_eq!(processes, 0, "run {run} was believed never to have run");
                void += 1;
            }
            // By the stop at the end, perhaps before it could say that it ran.
            "signal 9" => {
                assert!(processes <= 1, "run {run} ran {processes} times");
                stopped += 1;
            }
            other => assert_eq!((other, processes), (expected.0.as_str(), expected.1), "run {run}"),
        }
    }
    assert!(stopped <= CHILDREN, "{stopped} runs were killed");
    assert!(ran.keys().chain(ends.keys()).all(|run| started.contains_key(run)), "nothing ran without an intent");
    assert!(started.len() > CHILDREN);
    format!(
        "{} starts: {} processes, {} ends, {void} intents that never ran; 0 lost, 0 doubled, 0 unknown",
        started.len(),
        ran.len(),
        ends.len() - void
    )
}
