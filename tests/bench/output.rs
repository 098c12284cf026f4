//! What it costs to bring the output of a service to its log, in large writes and with the time of each line.

use crate::lab::{Folder, Hob, kill, own, ticks, until};
use crate::peers::find;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Programs that are measured where they are installed.
pub(crate) const TOOLS: [&str; 2] = ["multilog", "s6-log"];
/// What a writer writes at once.
const BLOCK: u64 = 65_500;

/// How long it took until all was in the file, and the ticks of CPU time of whoever brought it there.
type Cost = (Duration, u32);
/// A row of a table.
type Row<'a> = (&'a str, Box<dyn Fn() -> Cost + 'a>);

/// From the first write until all of 1.5 GB is in the file.
pub(crate) fn capture() {
    const MB: u32 = 1500;
    let hob = |dir: &str| measure_hob(MB, dir, r#"{"max_size": "10GB"}"#);
    let cat = |dir: &Folder| vec!["/bin/cat".to_owned(), ">".to_owned(), dir.path("out")];
    let rows: [Row<'_>; 2] = [
        ("hob, from its start", Box::new(move || hob("logs/services/s0.log"))),
        ("cat > file", Box::new(move || measure(MB, &cat, "out"))),
    ];
    table(MB, &rows);
}

/// The same with 200 MB, each line of it with the time it came.
pub(crate) fn lines() {
    const MB: u32 = 200;
    let log = r#"{"max_size": "10GB", "timestamps": true}"#;
    let mut rows: Vec<Row<'_>> = vec![("hob, time stamps", Box::new(|| measure_hob(MB, "logs/services/s0.log", log)))];
    // Their files are as large as they can be, so that rotation costs nobody anything.
    if let Some(multilog) = find("multilog") {
        let argv =
            move |d: &Folder| [&multilog, "t", "s16777215", "n1000", &d.path("log")].map(|w| w.to_owned()).into();
        rows.push(("multilog t", Box::new(move || measure(MB, &argv, "log"))));
    }
    if let Some(s6_log) = find("s6-log") {
        let argv = move |d: &Folder| [&s6_log, "T", "s268435455", "n1000", &d.path("log")].map(|w| w.to_owned()).into();
        rows.push(("s6-log T", Box::new(move || measure(MB, &argv, "log"))));
    }
    table(MB, &rows);
}

fn table(mb: u32, rows: &[Row<'_>]) {
    let mut costs: Vec<Vec<Cost>> = vec![Vec::new(); rows.len()];
    for _ in 0..3 {
        rows.iter().zip(&mut costs).for_each(|((_, measure), costs)| costs.push(measure()));
    }
    for ((name, _), costs) in rows.iter().zip(&mut costs) {
        costs.sort_unstable();
        let cpu = costs.iter().map(|c| c.1).min().unwrap_or_default();
        let (took, gigabytes) = (costs[1].0, f64::from(mb) / 1000.0);
        println!(
            "  {name:<28} {:>6.0} MB/s (median of 3)   {:>5.2} CPU s/GB (least of 3)",
            f64::from(mb) / took.as_secs_f64(),
            f64::from(cpu) / 100.0 / gigabytes
        );
    }
}

/// Lines of 100 bytes in blocks of 64 KiB.
fn writer(mb: u32) -> [String; 3] {
    [own(), "@write".to_owned(), mb.to_string()]
}

fn size(mb: u32) -> u64 {
    u64::from(mb) * 1_000_000 / BLOCK * BLOCK
}

fn measure_hob(mb: u32, file: &str, log: &str) -> Cost {
    let begin = Instant::now();
    let hob = Hob::logging(1, &writer(mb), log);
    arrived(&hob.dir.0.join(file), size(mb));
    (begin.elapsed(), hob.tree().into_iter().map(ticks).sum())
}

/// The same with a program that reads its standard input: an argv, with `>` before a file for its output.
fn measure(mb: u32, argv: &dyn Fn(&Folder) -> Vec<String>, file: &str) -> Cost {
    let dir = Folder::new();
    let mut argv = argv(&dir);
    let out = argv.iter().position(|w| w == ">").map(|at| argv.split_off(at));
    let begin = Instant::now();
    let write = writer(mb);
    let mut source = Command::new(&write[0]).args(&write[1..]).stdout(Stdio::piped()).spawn().unwrap();
    let mut command = Command::new(&argv[0]);
    command.args(&argv[1..]).stdin(source.stdout.take().unwrap());
    if let Some(path) = out.as_ref().and_then(|words| words.get(1)) {
        command.stdout(fs::File::create(path).unwrap());
    }
    let mut reader = command.spawn().unwrap();
    arrived(&dir.0.join(file), size(mb));
    let cost = (begin.elapsed(), ticks(reader.id()));
    end(&mut source);
    reader.wait().unwrap();
    cost
}

fn end(child: &mut Child) {
    kill(child.id());
    child.wait().unwrap();
}

/// Waits until a file, or all files of a folder, are as large as what was written.
fn arrived(path: &Path, size: u64) {
    let length = |path: &Path| fs::metadata(path).map_or(0, |m| m.len());
    until("output", || {
        let all = match fs::read_dir(path) {
            Ok(entries) => entries.flatten().map(|e| length(&e.path())).sum(),
            Err(_) => length(path),
        };
        (all >= size).then_some(())
    });
}
