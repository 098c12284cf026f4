//! The kill storm: twenty services count into their logs and crash, the daemon is killed over and over, nothing is
//! lost.

use crate::support::*;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const SERVICES: usize = 20;

/// Kills in the ordinary test; HOB_STORM_KILLS asks for more.
fn kills() -> usize {
    std::env::var("HOB_STORM_KILLS").ok().and_then(|v| v.parse().ok()).unwrap_or(300)
}

/// A seeded generator, so that a failing storm can be repeated.
struct Seed(u64);

impl Seed {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

#[test]
fn kills_of_the_daemon_lose_nothing() {
    let mut home = Home::new("{}");
    // Each run takes the next number from its own file, says so, counts lines, and ends with a code made of its number.
    let mut services = serde_json::Map::new();
    for i in 0..SERVICES {
        let file = home.path(&format!("count-{i}"));
        let lines = 5 + i * 3;
        let command = format!(
            "n=$(cat {f} 2>/dev/null || echo 0); n=$((n+1)); echo $n > {f}.new; mv {f}.new {f}; \
             echo \"run $n begin\"; j=0; \
             while [ $j -lt {lines} ]; do j=$((j+1)); echo \"run $n line $j\"; done; \
             sleep 0.0{d}; echo \"run $n end\"; exit $((n % 100 + 1))",
            f = file.display(),
            d = i % 10
        );
        let spec = serde_json::json!({ "command": command, "restart": "always", "min_delay": "1ms", "max_delay": "20ms",
            "log": { "max_size": "100MB" } });
        services.insert(format!("s{i:02}"), spec);
    }
    home.write_config(&serde_json::json!({ "services": services }).to_string());
    home.start(&[]);
    let listen = |args: &[&str], file: &str| {
        let out = std::fs::File::create(home.path(file)).unwrap();
        home.command(args).stdout(out).spawn().unwrap()
    };
    let mut events = listen(&["events", "-f", "--json", "--from", "1"], "events");
    let mut follower = listen(&["logs", "-f", "-n", "1000000", "s00"], "followed");
    let mut seed = Seed(0x9e37_79b9_7f4a_7c15);
    let (mut slowest, mut killed) = (Duration::ZERO, 0);
    while killed < kills() {
        let (daemon, _) = home.pids();
        // A random number of pings is a random moment that needs no sleep.
        for _ in 0..seed.below(4) {
            home.ok(&["ping"]);
        }
        kill("KILL", daemon);
        let begin = Instant::now();
        home.ok(&["ping"]);
        slowest = slowest.max(begin.elapsed());
        killed += 1;
    }
    let names: Vec<String> = (0..SERVICES).map(|i| format!("s{i:02}")).collect();
    let mut stop = vec!["stop"];
    stop.extend(names.iter().map(String::as_str));
    home.ok(&stop);
    let (mut lines, mut runs, mut bad) = (0, 0, Vec::new());
    wait("the follower has seen all", || home.read("followed").len() >= home.log("s00").len());
    if home.read("followed") != home.log("s00") {
        bad.push("what was followed is not what is in the log".to_owned());
    }
    let last = home.call("event.history", "{}")["next"].as_u64().unwrap() - 1;
    wait("all events were heard", || heard(&home.read("events")).last() == Some(&last));
    let heard = heard(&home.read("events"));
    if let Some(pair) = heard.windows(2).find(|w| w[1] != w[0] + 1) {
        bad.push(format!("event {} was followed by event {}", pair[0], pair[1]));
    }
    for client in [&mut events, &mut follower] {
        client.kill().unwrap();
        client.wait().unwrap();
    }
    for (i, name) in names.iter().enumerate() {
        let counted: u64 = home.read(&format!("count-{i}")).trim().parse().unwrap();
        let log = home.log(name);
        lines += log.lines().count();
        runs += counted;
        check_log(name, &log, counted, 5 + i * 3, &mut bad);
        let history = home.call("service.history", &format!(r#"{{"name": "{name}", "limit": 10}}"#));
        check_history(name, &history, &mut bad);
        let restarts = home.service(name)["restarts_total"].as_u64();
        if restarts.is_some_and(|r| r + 1 != counted) {
            bad.push(format!("{name}: {counted} runs began, hob counts {restarts:?} restarts"));
        }
    }
    eprintln!(
        "storm: {killed} kills, {SERVICES} services, {runs} runs, {lines} lines, {} events,
             {} faults, slowest return {slowest:?}",
        heard.len(),
        bad.len()
    );
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

/// The sequence numbers of whole lines of events.
fn heard(text: &str) -> Vec<u64> {
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap()["seq"].as_u64().unwrap()).collect()
}

/// Every run but the last, which was stopped, printed each line once and in order; no number came twice.
fn check_log(name: &str, log: &str, counted: u64, lines: usize, bad: &mut Vec<String>) {
    let mut by_run: BTreeMap<u64, Vec<&str>> = BTreeMap::new();
    for line in log.lines() {
        let mut words = line.splitn(3, ' ');
        match (words.next(), words.next().and_then(|n| n.parse().ok()), words.next()) {
            (Some("run"), Some(n), Some(rest)) => by_run.entry(n).or_default().push(rest),
            _ => bad.push(format!("{name}: a broken line '{line}'")),
        }
    }
    for (n, said) in &by_run {
        let whole: Vec<String> = ["begin".to_owned()]
            .into_iter()
            .chain((1..=lines).map(|j| format!("line {j}")))
            .chain(["end".to_owned()])
            .collect();
        let complete = said.len() == whole.len() && said.iter().zip(&whole).all(|(a, b)| a == b);
        let prefix = said.len() <= whole.len() && said.iter().zip(&whole).all(|(a, b)| a == b);
        if !(complete || *n == counted && prefix) {
            bad.push(format!("{name}: run {n} said {} of {} lines", said.len(), whole.len()));
        }
    }
    // The last run may have been stopped between counting and its first line.
    let (first, last) = (by_run.keys().next().copied(), by_run.keys().next_back().copied());
    if first != Some(1) || last.is_none_or(|l| l + 1 < counted) || by_run.len() as u64 + 1 < counted {
        bad.push(format!("{name}: {counted} runs began, the log has {first:?}..{last:?}, {} of them", by_run.len()));
    }
}

/// Every ended run has the exit code of its number, or was stopped by hob.
fn check_history(name: &str, history: &serde_json::Value, bad: &mut Vec<String>) {
    let runs = history["runs"].as_array().unwrap();
    for (at, run) in runs.iter().enumerate() {
        let code = run["number"].as_i64().map(|n| n % 100 + 1);
        let stopped = at + 1 == runs.len() && run["stopped"].is_string();
        if !stopped && run["exit_code"].as_i64() != code {
            bad.push(format!("{name}: an end that is not known: {run}"));
        }
    }
}
