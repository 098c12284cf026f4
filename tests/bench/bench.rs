//! Figures of hob beside floors measured in the same run, and beside peers where they are installed: `cargo bench`.
//!
//! Times on a shared machine are those of that hour: compare rows of one table, never rows of two runs. Systems are
//! measured in turn, so that a disturbance meets all of them; `p50` is a median, `min` the least disturbed one.
//! Counts and memory are exact. What is not installed is named and left out. With words after `--` only the parts so
//! named are run.

// A measurement that cannot be made ends the run; tables are printed.
#![allow(clippy::unwrap_used, clippy::print_stdout)]
#![allow(missing_debug_implementations)] // Nothing here is shown to anyone.

mod floor;
mod lab;
mod life;
mod peers;
mod speed;

/// Name and function of each part, in the order in which they are run.
const PARTS: [(&str, fn()); 9] = [
    ("size", life::size),
    ("ping", speed::ping),
    ("status", speed::status),
    ("restart", speed::restart),
    ("start", life::start),
    ("takeover", life::takeover),
    ("memory", life::memory),
    ("cold", life::cold),
    ("capture", speed::capture),
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
    let words: Vec<&String> = words.iter().filter(|w| !w.starts_with("--")).collect();
    if let Some(unknown) = words.iter().find(|w| PARTS.iter().all(|(name, _)| name != *w)) {
        let names: Vec<&str> = PARTS.iter().map(|(name, _)| *name).collect();
        println!("no part is called {unknown}; there are: {}", names.join(", "));
        return;
    }
    let missing: Vec<&str> = peers::ALL.iter().filter(|p| !p.installed()).map(|p| p.name).collect();
    if !missing.is_empty() {
        println!("not installed and left out: {}", missing.join(", "));
    }
    for (name, part) in PARTS {
        if words.is_empty() || words.iter().any(|w| *w == name) {
            println!("\n{name}");
            part();
        }
    }
}
