//! Trace tests of the core: `tests/traces/*.txt` hold inputs and, indented below each, the effects they must have.
//! `HOB_BLESS=1 cargo test --test service_traces` writes down what happens now; read the difference before committing
//! it.
#![allow(missing_debug_implementations)] // Nothing here is shown to anyone but the test.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A helper of a test fails like the test.

#[path = "traces/player.rs"]
mod player;
#[path = "traces/show.rs"]
mod show;

use std::path::Path;
use std::{env, fs};

/// Plays every file, and compares or rewrites it.
#[test]
fn traces() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/traces");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|p| p.extension().is_some_and(|e| e == "txt"));
    files.sort();
    assert!(files.len() >= 25, "only {} traces were found", files.len());
    let bless = env::var_os("HOB_BLESS").is_some();
    let mut wrong = Vec::new();
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        let now = player::play(&text);
        if now == text {
            continue;
        }
        if bless {
            fs::write(&path, now).unwrap();
        } else {
            wrong.push(format!("{}:\n{}", path.display(), difference(&text, &now)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The first lines that differ, with what leads to them.
fn difference(old: &str, new: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let at = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let mut text = String::new();
    for line in &old[at.saturating_sub(5)..at] {
        text.push_str(&format!("    {line}\n"));
    }
    for (mark, lines) in [("-", &old), ("+", &new)] {
        for line in lines.iter().skip(at).take(8) {
            text.push_str(&format!("  {mark} {line}\n"));
        }
    }
    text
}
