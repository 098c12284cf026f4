//! The rules of the house, checked on the sources: purity, layers, the borders of unsafe and cfg, sizes, leftovers,
//! dead files. Reads files of the repository and nothing else.

// The helpers of a test may panic: that is how a test fails.
#![allow(clippy::unwrap_used)]

mod rules;
mod source;

use source::Source;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// Functions that may be longer than the limit: file, name, reason.
const LONG_FUNCTIONS: &[(&str, &str, &str)] =
    &[("src/daemon/exec.rs", "effect", "the one match over Effect, with an arm of a few lines for each variant")];

/// Functions of tests that may sleep, beside the helpers that wait for a condition: file, name, reason.
const SLEEPERS: &[(&str, &str, &str)] = &[
    ("src/client/tests.rs", "a_daemon_is_started_when_none_answers", "looks again until it was started, with a limit"),
    ("tests/capture_storm.rs", "capture_survives_kills", "kills at random moments"),
    ("tests/capture_storm.rs", "write_lines", "writes in random bursts"),
    ("tests/keeper_storm.rs", "an_idle_keeper_sleeps", "a second without a system call has to pass"),
    ("tests/keeper_storm.rs", "signals_become_messages", "a second request counts only after a second"),
    ("tests/keeper_storm.rs", "a_thawed_machine_does_not_look_hung", "the time of a freeze has to pass"),
    ("tests/keeper_storm.rs", "a_hasty_stop_needs_no_daemon", "a second request counts only after a second"),
    ("tests/keeper_storm/daemon.rs", "child", "a program under test that lives for a while"),
    ("tests/keeper_storm/storm.rs", "storm", "kills at random moments"),
];

/// What stands at the top of the repository, beside hidden files and what git ignores.
const TOP: [&str; 7] = ["Cargo.toml", "Cargo.lock", "src", "tests", "fuzz", "README.md", "LICENSE"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All files below a folder, by their path from the root. What cargo-fuzz makes is not part of the repository.
fn files(folder: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(dir) = open.pop() {
        let Ok(entries) = fs::read_dir(root().join(&dir)) else { continue };
        for entry in entries {
            let entry = entry.unwrap();
            let path = format!("{dir}/{}", entry.file_name().to_str().unwrap());
            if !entry.file_type().unwrap().is_dir() {
                out.push(path);
            } else if !["fuzz/target", "fuzz/corpus", "fuzz/artifacts"].contains(&path.as_str()) {
                open.push(path);
            }
        }
    }
    out.sort();
    out
}

fn is_rust(path: &str) -> bool {
    Path::new(path).extension().is_some_and(|e| e == "rs")
}

/// All sources of the repository, read once.
static SOURCES: LazyLock<Vec<Source>> = LazyLock::new(|| {
    let paths = ["src", "tests", "fuzz"].into_iter().flat_map(files).filter(|p| is_rust(p));
    let mut all: Vec<Source> = paths.map(|p| Source::new(&p, &fs::read_to_string(root().join(&p)).unwrap())).collect();
    let tests: BTreeSet<String> = reached(&all).into_iter().filter(|(_, test)| *test).map(|(path, _)| path).collect();
    for s in &mut all {
        s.is_test |= tests.contains(&s.path);
    }
    assert!(all.len() > 10, "the sources were not found");
    all
});

/// Fails with every complaint of a rule about the files below these folders.
fn check(folders: &[&str], rule: impl Fn(&Source) -> Vec<rules::Complaint>) {
    let mut wrong = Vec::new();
    for s in SOURCES.iter().filter(|s| folders.iter().any(|f| s.path.starts_with(f))) {
        wrong.extend(rule(s).into_iter().map(|(line, what)| format!("{}:{line}: {what}", s.path)));
    }
    assert!(wrong.is_empty(), "{} complaints:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn pure_rooms_touch_nothing() {
    check(&["src"], rules::purity);
}

#[test]
fn imports_point_down() {
    check(&["src"], rules::layers);
}

#[test]
fn unsafe_and_cfg_stay_in_sys() {
    check(&["src", "tests"], rules::borders);
}

/// The first plays in a home of its own; a prompt may well come from a FIFO of its caller's.
const FREE_TO_OPEN: &[&str] = &["src/cli/demo.rs", "src/cli/task/add.rs"];

#[test]
fn nothing_opened_can_hold_its_reader_up() {
    check(&["src"], |s| rules::opens(s, FREE_TO_OPEN));
}

#[test]
fn files_functions_and_lines_have_a_size() {
    check(&["src", "tests", "fuzz"], |s| rules::sizes(s, LONG_FUNCTIONS));
    stale(LONG_FUNCTIONS, |s, name| {
        s.functions().iter().any(|f| f.name == name && f.lines.end() - f.lines.start() + 1 > rules::FUNCTION_LINES)
    });
}

/// An exception that nothing needs any more is taken off its list.
fn stale(list: &[(&str, &str, &str)], needed: impl Fn(&Source, &str) -> bool) {
    for (path, name, reason) in list {
        assert!(reason.len() > 10, "{path}: the exception of {name} has no reason");
        let used = SOURCES.iter().any(|s| s.path == *path && needed(s, name));
        assert!(used, "{path}: fn {name} needs no exception any more");
    }
}

#[test]
fn tests_wait_for_conditions_and_all_run() {
    check(&["src", "tests"], |s| rules::tests(s, SLEEPERS));
    stale(SLEEPERS, |s, name| s.functions().iter().any(|f| f.name == name));
}

#[test]
fn files_say_what_they_are_for() {
    check(&["src", "tests", "fuzz"], rules::heads);
}

#[test]
fn nothing_is_left_over() {
    let mut wrong = Vec::new();
    for path in ["src", "tests", "fuzz"].into_iter().flat_map(files).chain(["README.md".into(), "Cargo.toml".into()]) {
        let Ok(text) = fs::read_to_string(root().join(&path)) else { continue };
        // Recorded texts have the white space that was recorded.
        let recorded = path.starts_with("tests/") && !is_rust(&path);
        let found = rules::leftovers(&text).into_iter().filter(|(_, what)| !recorded || !what.starts_with("white"));
        wrong.extend(found.map(|(line, what)| format!("{path}:{line}: {what}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_top_of_the_repository_stays_small() {
    let ignored = fs::read_to_string(root().join(".gitignore")).unwrap();
    for entry in fs::read_dir(root()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let known = TOP.contains(&name.as_str()) || name.starts_with('.');
        let is_ignored = ignored.lines().any(|l| l.trim_matches('/') == name);
        assert!(
            known || is_ignored,
            "{name}: the top of the repository holds {} and hidden files alone",
            TOP.join(", ")
        );
    }
}

#[test]
fn every_file_is_part_of_the_program_or_of_a_test() {
    let reached: BTreeSet<String> = reached(&SOURCES).into_iter().map(|(path, _)| path).collect();
    for s in SOURCES.iter().filter(|s| !s.path.starts_with("fuzz/")) {
        assert!(reached.contains(&s.path), "{}:1: no mod leads to this file: use it or remove it", s.path);
    }
}

/// All files that the roots of crates lead to by `mod`, and whether each is there for tests alone.
fn reached(all: &[Source]) -> BTreeSet<(String, bool)> {
    let is_root = |path: &str| match path.split('/').collect::<Vec<_>>().as_slice() {
        ["src", name] => ["lib.rs", "main.rs"].contains(name),
        ["tests", _] => true,
        ["tests", _, "main.rs"] | ["tests", "bench", "bench.rs"] => true,
        _ => false,
    };
    let mut open: Vec<(String, bool)> =
        all.iter().filter(|s| is_root(&s.path)).map(|s| (s.path.clone(), s.is_test)).collect();
    let mut out = BTreeSet::new();
    while let Some((path, test)) = open.pop() {
        if !out.insert((path.clone(), test)) {
            continue;
        }
        let Some(s) = all.iter().find(|s| s.path == path) else { continue };
        let (folder, file) = path.rsplit_once('/').unwrap();
        let owns_folder = is_root(&path) || file == "mod.rs";
        let base = if owns_folder { folder.to_owned() } else { format!("{folder}/{}", file.trim_end_matches(".rs")) };
        for m in s.modules() {
            let candidates = match &m.path {
                Some(p) => vec![format!("{folder}/{p}")],
                None => vec![format!("{base}/{}.rs", m.name), format!("{base}/{}/mod.rs", m.name)],
            };
            let found = candidates.into_iter().find(|c| all.iter().any(|s| s.path == *c));
            let found = found.unwrap_or_else(|| panic!("{path}:{}: there is no file for mod {}", m.line, m.name));
            open.push((found, test || m.is_test));
        }
    }
    out
}

/// Runs a rule on a few lines as if they stood in a file.
fn complaints(rule: impl Fn(&Source) -> Vec<rules::Complaint>, path: &str, text: &str) -> Vec<usize> {
    rule(&Source::new(path, text)).into_iter().map(|(line, _)| line).collect()
}

#[test]
fn the_rules_see_what_they_are_for() {
    let impure = r#"//! x
use std::{collections::HashMap, fs};
use std::sync::{Arc, Mutex};
fn f() { std::env::var("A"); }
use std::collections::BTreeMap;
"#;
    assert_eq!(complaints(rules::purity, "src/core/x.rs", impure), [2, 2, 3, 4]);
    assert_eq!(complaints(rules::purity, "src/daemon/x.rs", impure), []);
    assert_eq!(complaints(rules::purity, "src/base/paths.rs", "use std::path::PathBuf;"), []);
    assert_eq!(complaints(rules::purity, "src/base/time.rs", "use std::path::PathBuf;\nlibc::kill();"), [1, 2]);
    let up = "use crate::daemon::x;
use super::super::cli::y;
use crate::{base::z, core::w};
mod t { use super::super::super::sys::q; }";
    assert_eq!(complaints(rules::layers, "src/config/x.rs", up), [1, 2, 3, 4]);
    assert_eq!(complaints(rules::layers, "src/cli/x.rs", up), []);
    assert_eq!(complaints(rules::layers, "src/keeper.rs", "use crate::core::x;\nuse crate::sys::y;"), [1]);
    assert_eq!(complaints(rules::layers, "src/sys/a/b.rs", "use crate::config::x;\nuse crate::base::y;"), [1]);
    assert_eq!(complaints(rules::layers, "src/main.rs", "fn main() { hob::cli::main() }\nuse hob::daemon;"), [2]);
    let foreign = r##"unsafe { x() }
#[cfg(target_os = "linux")]
fn f() { if cfg!(unix) {} }
#[cfg(test)]
#![deny(unsafe_code)]"##;
    assert_eq!(complaints(rules::borders, "src/daemon/x.rs", foreign), [1, 2, 3]);
    assert_eq!(complaints(rules::borders, "src/sys/linux/x.rs", foreign), []);
    let opens = |s: &Source| rules::opens(s, &["src/free.rs"]);
    let opening = "std::fs::read(p)\nFile::open(p)\nLogFile::open(p)\nFile::open(\"/dev/null\")\nfs::read_to_string(p)";
    assert_eq!(complaints(opens, "src/cli/x.rs", opening), [1, 2, 5]);
    assert_eq!(complaints(opens, "src/sys/x.rs", opening), []);
    assert_eq!(complaints(opens, "src/free.rs", opening), []);
    let long = format!("fn f() {{\n{}}}\n", "x;\n".repeat(70));
    let sizes = |s: &Source| rules::sizes(s, &[("src/y.rs", "f", "a table")]);
    assert_eq!(complaints(sizes, "src/x.rs", &long), [1]);
    assert_eq!(complaints(sizes, "src/y.rs", &long), []);
    assert_eq!(complaints(sizes, "src/x.rs", &format!("#[cfg(test)]\nmod t {{ {long} }}")), []);
    assert_eq!(complaints(sizes, "src/x.rs", &format!("//{}\n", "x".repeat(119))), [1]);
    assert_eq!(complaints(sizes, "src/x.rs", &"\n".repeat(601)), [601]);
    assert_eq!(complaints(rules::heads, "src/x.rs", "use x;\n"), [1]);
    assert_eq!(complaints(rules::heads, "src/main.rs", "fn main() {\n    x()\n}\n"), []);
    let sleepy = r##"#[ignore]
fn a() { std::thread::sleep(x); }
#[ignore = "why"]
fn b() { use std::thread::sleep; }
fn pause() { std::thread::sleep(x); }"##;
    let tests = |s: &Source| rules::tests(s, &[("tests/y.rs", "a", "it waits")]);
    assert_eq!(complaints(tests, "tests/x.rs", sleepy), [1, 2, 4]);
    assert_eq!(complaints(tests, "tests/y.rs", sleepy), [1, 4]);
    assert_eq!(complaints(tests, "src/x.rs", &sleepy.replace("#[ignore]", "")), []);
    let left = format!("// {}DO: x\nlet to{}s = 1; \n// for {}\n// fortune\n", "TO", "do", "now");
    assert_eq!(rules::leftovers(&left).into_iter().map(|c| c.0).collect::<Vec<_>>(), [1, 2, 3]);
}
