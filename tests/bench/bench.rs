//! Figures of hob beside floors measured in the same run, and beside peers where they are installed: `cargo bench`.
//!
//! Times on a shared machine are those of that hour: compare rows of one table, never rows of two runs. Systems are
//! measured in turn, so that a disturbance meets all of them; `p50` is a median, `min` the least disturbed one.
//! Counts and memory are exact. What is not installed is named and left out. With words after `--`, or in
//! HOB_BENCH_ONLY, only the parts so named are run. HOB_BENCH_PROGRAM names another program than the one built here.

// A measurement that cannot be made ends the run; tables are printed.
#![allow(clippy::unwrap_used, clippy::print_stdout)]
#![allow(missing_debug_implementations)] // Nothing here is shown to anyone.

mod floor;
mod lab;
mod life;
mod output;
mod peers;
mod speed;
mod tasks;

/// Name and function of each part, in the order in which they are run.
const PARTS: [(&str, fn()); 14] = [
    ("size", life::size),
    ("ping", speed::ping),
    ("status", speed::status),
    ("restart", speed::restart),
    ("start", life::start),
    ("takeover", life::takeover),
    ("memory", life::memory),
    ("cold", life::cold),
    ("durable", speed::durable),
    ("run", tasks::run),
    ("submit", tasks::submit),
    ("queue", tasks::queue),
    ("capture", output::capture),
    ("lines", output::lines),
];

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|w| w.starts_with('@')) {
        return floor::act(&words);
    }
    if !words.iter().any(|w| w == "--bench") {
        println!("not measured: that is done by 'cargo bench'");
        return;
    }
    let only = std::env::var("HOB_BENCH_ONLY").unwrap_or_default();
    let only = only.split([',', ' ']).filter(|w| !w.is_empty()).map(str::to_owned);
    let words: Vec<String> = words.into_iter().filter(|w| !w.starts_with("--")).chain(only).collect();
    if let Some(unknown) = words.iter().find(|w| PARTS.iter().all(|(name, _)| name != w)) {
        let names: Vec<&str> = PARTS.iter().map(|(name, _)| *name).collect();
        println!("no part is called {unknown}; there are: {}", names.join(", "));
        return;
    }
    let peers = peers::ALL.iter().filter(|p| !p.installed()).map(|p| p.name);
    let tools = output::TOOLS.iter().chain(&["perf"]).copied().filter(|tool| peers::find(tool).is_none());
    let missing: Vec<&str> = peers.chain(tools).collect();
    if !missing.is_empty() {
        println!("not installed and left out: {}", missing.join(", "));
    }
    for (name, part) in PARTS {
        if words.is_empty() || words.iter().any(|w| w == name) {
            println!("\n{name}");
            part();
        }
    }
}
