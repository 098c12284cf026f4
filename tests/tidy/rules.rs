//! The rules, one function each: from a source to complaints.

use crate::source::Source;

/// What a rule says: a line of the file, and the rule with what to do instead.
pub(crate) type Complaint = (usize, String);

/// The rooms from the top down: each may import those below it.
const ROOMS: [&str; 10] = ["cli", "client", "install", "keeper", "daemon", "sys", "core", "config", "protocol", "base"];
/// Rooms that may import less than all that is below them.
const NARROW: [(&str, &[&str]); 2] = [("keeper", &["sys", "base"]), ("sys", &["base"])];
/// Rooms without clock, file, environment, process, socket, thread, randomness or hash-ordered map.
const PURE: [&str; 4] = ["base", "protocol", "config", "core"];
/// What pure rooms use of `std`; the rest of it reaches outside.
const PURE_STD: [&str; 19] = [
    "borrow",
    "cell",
    "cmp",
    "collections",
    "convert",
    "error",
    "fmt",
    "format",
    "iter",
    "mem",
    "num",
    "ops",
    "rc",
    "slice",
    "str",
    "string",
    "sync",
    "vec",
    "write",
];
const IMPURE_WORDS: [&str; 6] = ["Instant", "SystemTime", "HashMap", "HashSet", "RandomState", "DefaultHasher"];
const IMPURE_CRATES: [&str; 10] =
    ["mio", "libc", "signal_hook", "signal_hook_mio", "lexopt", "inotify", "kqueue", "rand", "fastrand", "getrandom"];

pub(crate) const FILE_LINES: usize = 600;
pub(crate) const FUNCTION_LINES: usize = 70;
pub(crate) const LINE_WIDTH: usize = 120;

/// The room of a file under src: the folder, or the file itself.
pub(crate) fn room(path: &str) -> Option<&str> {
    let inside = path.strip_prefix("src/")?;
    let first = inside.split('/').next()?;
    let name = first.strip_suffix(".rs").unwrap_or(first);
    ROOMS.contains(&name).then_some(name)
}

pub(crate) fn purity(s: &Source) -> Vec<Complaint> {
    if !room(&s.path).is_some_and(|r| PURE.contains(&r)) {
        return Vec::new();
    }
    let mut out = Vec::new();
    for (line, path) in s.paths() {
        let segment = |i: usize| path.get(i).map_or("", String::as_str);
        // Paths as values, and writing into memory.
        let allowed = match segment(1) {
            "path" | "ffi" => s.path == "src/base/paths.rs",
            "os" => s.path == "src/base/paths.rs" && segment(3) == "ffi",
            "io" => segment(2) == "Write",
            // What the program was built for is no part of where it runs.
            "env" => segment(2) == "consts",
            module => PURE_STD.contains(&module),
        };
        let why = match segment(0) {
            "std" if segment(1) == "sync" && segment(2) == "Arc" => None,
            "std" if segment(1) == "sync" => Some("shared state"),
            "std" if !allowed => Some("reaches outside"),
            first if IMPURE_CRATES.contains(&first) => Some("reaches outside"),
            _ if path.iter().any(|p| IMPURE_WORDS.contains(&p.as_str())) => Some("a clock or a random order"),
            _ => None,
        };
        if let Some(why) = why {
            out.push((line, format!("{} in a pure room ({why}): hand it in as a value", path.join("::"))));
        }
    }
    out
}

pub(crate) fn layers(s: &Source) -> Vec<Complaint> {
    let mut out = Vec::new();
    let depth = module_depth(&s.path);
    for (line, path) in s.paths() {
        let supers = path.iter().take_while(|p| *p == "super").count();
        let target = match path.first().map(String::as_str) {
            Some("crate") => path.get(1),
            Some("hob") if s.path == "src/main.rs" => path.get(1),
            Some("super") if supers == depth + s.inner_depth(line) => path.get(supers),
            _ => None,
        };
        let Some(target) = target.filter(|t| ROOMS.contains(&t.as_str())) else { continue };
        if let Some(why) = forbidden(&s.path, target) {
            out.push((line, format!("{} {why}", path.join("::"))));
        }
    }
    out
}

/// How many modules deep a file is: 1 for `src/cli/mod.rs` and `src/client.rs`.
fn module_depth(path: &str) -> usize {
    let inside = path.trim_start_matches("src/");
    let folders = inside.matches('/').count();
    match inside.rsplit('/').next() {
        Some("mod.rs" | "lib.rs" | "main.rs") => folders,
        _ => folders + 1,
    }
}

fn forbidden(path: &str, to: &str) -> Option<String> {
    if path == "src/main.rs" {
        return (to != "cli").then(|| "is imported by main.rs, which only calls cli".to_owned());
    }
    let from = room(path)?;
    let place = |room: &str| ROOMS.iter().position(|r| *r == room);
    if from == to {
        return None;
    }
    if let Some((_, allowed)) = NARROW.iter().find(|(room, _)| *room == from) {
        return (!allowed.contains(&to))
            .then(|| format!("is imported by {from}, which may use {} alone", allowed.join(", ")));
    }
    (place(to) < place(from)).then(|| format!("points up: {from} stands below {to}"))
}

/// `unsafe` and `cfg` on the system stay in src/sys.
pub(crate) fn borders(s: &Source) -> Vec<Complaint> {
    if s.path.starts_with("src/sys/") {
        return Vec::new();
    }
    let words = s.words();
    let mut out = Vec::new();
    for (i, (at, word)) in words.iter().enumerate() {
        let next = words.get(i + 1).map_or("", |w| w.1.as_str());
        if word == "unsafe" || word == "allow" && next == "unsafe_code" {
            out.push((s.line(*at), "unsafe code belongs into src/sys".to_owned()));
        }
        let system = next.starts_with("target_") || ["unix", "windows", "any", "all", "not"].contains(&next);
        if ["cfg", "cfg_attr"].contains(&word.as_str()) && system {
            out.push((s.line(*at), format!("cfg({next} ...) belongs into src/sys, as a file for each platform")));
        }
    }
    out
}

/// What std opens may be a FIFO or a device that somebody put there, which holds its reader up or never ends. `src/sys`
/// has calls that refuse those. Paths of the system itself, and those of `free`, are what they are.
pub(crate) fn opens(s: &Source, free: &[&str]) -> Vec<Complaint> {
    if s.path.starts_with("src/sys/") || !s.path.starts_with("src/") || free.contains(&s.path.as_str()) {
        return Vec::new();
    }
    let mut out = Vec::new();
    for (i, line) in s.text.lines().enumerate() {
        let found = ["fs::read(", "fs::read_to_string(", "File::open("].into_iter().find(|call| {
            line.split_once(call).is_some_and(|(before, _)| !before.ends_with(|c: char| c.is_alphanumeric()))
        });
        let of_system = ["(\"/dev/", "(\"/proc/", "current_exe()"].iter().any(|path| line.contains(path));
        if let Some(call) = found.filter(|_| !of_system && !s.is_test_line(i + 1)) {
            out.push((i + 1, format!("{call}...): use sys::file::open_regular or read_whole, which no FIFO holds up")));
        }
    }
    out
}

pub(crate) fn sizes(s: &Source, long_functions: &[(&str, &str, &str)]) -> Vec<Complaint> {
    let mut out = Vec::new();
    let lines = s.text.lines().count();
    if lines > FILE_LINES {
        out.push((lines, format!("the file has {lines} lines, {FILE_LINES} is the most: split it by noun")));
    }
    for (i, line) in s.text.lines().enumerate() {
        let width = line.chars().count();
        if width > LINE_WIDTH {
            out.push((i + 1, format!("{width} characters wide, {LINE_WIDTH} is the most")));
        }
    }
    for f in s.functions().iter().filter(|f| !s.is_test_line(*f.lines.start())) {
        let length = f.lines.end() - f.lines.start() + 1;
        let named = long_functions.iter().any(|(path, name, _)| *path == s.path && *name == f.name);
        if length > FUNCTION_LINES && !named {
            out.push((*f.lines.start(), format!("fn {} has {length} lines, {FUNCTION_LINES} is the most", f.name)));
        }
    }
    out
}

/// The words are put together here, so that this file does not contain them.
fn markers() -> Vec<String> {
    let parts = [
        ("TO", "DO"),
        ("FIX", "ME"),
        ("XX", "X"),
        ("HA", "CK"),
        ("to", "do!"),
        ("unimple", "mented!"),
        ("db", "g!"),
        ("for ", "now"),
        ("<<<<", "<<<"),
        (">>>>", ">>>"),
        ("/work", "/"),
        ("lorem", " ipsum"),
    ];
    parts.iter().map(|(a, b)| format!("{a}{b}")).collect()
}

/// What is only there while somebody works on it.
pub(crate) fn leftovers(text: &str) -> Vec<Complaint> {
    let markers = markers();
    let mut out = Vec::new();
    for (i, line) in text.lines().enumerate() {
        for marker in markers.iter().filter(|m| contains_word(line, m)) {
            out.push((i + 1, format!("'{marker}' is a leftover: finish it, or say it as it is")));
        }
        if line.trim_end() != line {
            out.push((i + 1, "white space at the end of the line".to_owned()));
        }
    }
    out
}

/// Whether a line contains a text that is not a part of a longer word.
fn contains_word(line: &str, word: &str) -> bool {
    let edge = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric() && c != '_');
    line.match_indices(word).any(|(at, _)| {
        let (before, from) = line.split_at(at);
        let starts = !word.starts_with(char::is_alphanumeric) || edge(before.chars().next_back());
        let ends = !word.ends_with(char::is_alphanumeric) || edge(from.chars().nth(word.chars().count()));
        starts && ends
    })
}

/// How a file begins.
pub(crate) fn heads(s: &Source) -> Vec<Complaint> {
    if s.path == "src/main.rs" {
        let lines = s.text.lines().count();
        return if lines == 3 { Vec::new() } else { vec![(lines, "main.rs has three lines".to_owned())] };
    }
    if s.text.starts_with("//! ") {
        return Vec::new();
    }
    vec![(1, "the first line says with //! what the file is for and what it may touch".to_owned())]
}

/// Names of the helpers that look at a condition again and again.
const WAITERS: [&str; 4] = ["wait", "wait_until", "until", "pause"];

/// Tests wait for a condition, and each runs or says why not.
pub(crate) fn tests(s: &Source, sleepers: &[(&str, &str, &str)]) -> Vec<Complaint> {
    let mut out = Vec::new();
    let words = s.words();
    for w in words.windows(2).filter(|w| w[0].1 == "ignore" && s.code.get(w[0].0.wrapping_sub(1)) == Some(&'[')) {
        let line = s.line(w[0].0);
        if !s.text.lines().nth(line - 1).is_some_and(|l| l.contains("ignore = \"")) {
            out.push((line, "#[ignore] without a reason: write #[ignore = \"why\"]".to_owned()));
        }
    }
    let functions = s.functions();
    for (line, path) in s.paths() {
        let sleeps = path.ends_with(&["thread".to_owned(), "sleep".to_owned()]);
        if !sleeps || !s.is_test_line(line) {
            continue;
        }
        let inner = functions.iter().filter(|f| f.lines.contains(&line)).max_by_key(|f| *f.lines.start());
        let name = inner.map_or("", |f| f.name.as_str());
        if !WAITERS.contains(&name) && !sleepers.iter().any(|(path, fun, _)| *path == s.path && *fun == name) {
            let helpers = WAITERS.join(", ");
            out.push((line, format!("a test waits for a condition, in a helper with a limit ({helpers})")));
        }
    }
    out
}
