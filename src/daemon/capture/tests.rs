//! One service's log in the lane, against real pipes and files.

use super::desk::{Desk, Words};
use super::lane::{Fact, Outcome, Writer};
use super::source::{Order, Point, Source};
use super::tail::{Cursor, Part, Share, Spans};
use super::testing::{Dir, Memory};
use super::*;
use crate::base::ids::RunId;
use crate::base::limits::LINE_MAX;
use crate::base::time::{Mono, Wall};
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;

/// A service that writes, and what a daemon has of it. `die` leaves what a killed daemon leaves.
pub(super) struct Rig {
    pub(super) dir: Dir,
    pub(super) names: Names,
    pub(super) words: Arc<Memory>,
    pub(super) ends: [OwnedFd; 4],
    pub(super) pipe: File,
    pub(super) spec: LogSpec,
    pub(super) source: Arc<Source>,
    pub(super) share: Arc<Share>,
    pub(super) writer: Writer,
    pub(super) desk: Desk,
    pub(super) clock: i64,
}

impl Rig {
    pub(super) fn new(max_size: u64, max_files: u32) -> Rig {
        let dir = Dir::new();
        let (read, write) = pipe::output().unwrap();
        let (tr, tw) = pipe::inner(1 << 20).unwrap();
        let words = Arc::new(Memory::default());
        let names = Names::new(dir.path("logs/web.log"));
        let spec = LogSpec { max_size, max_files, ..LogSpec::DEFAULT };
        let ends = [read, write, tr, tw];
        let (source, share, writer, desk) = daemon(&ends, &names, &spec, &words, false);
        let pipe = File::from(ends[1].try_clone().unwrap());
        Rig { dir, names, words, ends, pipe, spec, source, share, writer, desk, clock: 1_000_000 }
    }

    pub(super) fn die(&mut self) {
        let (source, share, writer, desk) = daemon(&self.ends, &self.names, &self.spec, &self.words, false);
        (self.source, self.share, self.writer, self.desk) = (source, share, writer, desk);
    }

    fn now(&self) -> Now {
        Now { mono: Mono(u64::try_from(self.clock).unwrap() * 1_000_000), wall: Wall(self.clock) }
    }

    pub(super) fn turn(&mut self) -> Outcome {
        self.clock += 300;
        let now = self.now();
        self.writer.turn(&mut self.desk, now)
    }

    /// Turns until nothing is left; all facts and notes.
    pub(super) fn drain(&mut self) -> Outcome {
        let mut all = Outcome::default();
        for _ in 0..1000 {
            let one = self.turn();
            all.moved += one.moved;
            all.facts.extend(one.facts);
            all.notes.extend(one.notes);
            if one.drained && !one.again {
                return all;
            }
        }
        panic!("it is never drained");
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Outcome {
        self.pipe.write_all(bytes).unwrap();
        self.drain()
    }

    fn log(&self, number: u32) -> Vec<u8> {
        std::fs::read(self.names.log(number)).unwrap_or_default()
    }

    /// All files, oldest first.
    fn all(&self) -> Vec<Vec<u8>> {
        let mut files: Vec<_> = (0..).map(|k| self.names.log(k)).take_while(|p| p.exists()).collect();
        files.reverse();
        files.iter().map(|p| std::fs::read(p).unwrap()).collect()
    }

    fn read_from(&self, position: u64) -> (Vec<u8>, u64) {
        let (mut cursor, mut bytes, mut gaps) = (Cursor::new(position), Vec::new(), 0);
        loop {
            match self.share.read(&mut cursor, u64::MAX, 777).unwrap() {
                Part::Bytes(b) => bytes.extend(b),
                Part::Gap(n) => gaps += n,
                Part::End => return (bytes, gaps),
            }
        }
    }
}

pub(super) fn daemon(
    ends: &[OwnedFd; 4],
    names: &Names,
    spec: &LogSpec,
    words: &Arc<Memory>,
    copy: bool,
) -> (Arc<Source>, Arc<Share>, Writer, Desk) {
    let own = |i: usize| ends[i].try_clone().unwrap();
    let words: Arc<dyn Words> = Arc::clone(words) as Arc<dyn Words>;
    let source = Arc::new(Source::new("web".into(), own(0)));
    let share = Arc::new(Share::new(names.clone()));
    let writer = Writer::new(Arc::clone(&source), Arc::clone(&share), spec.clone(), (Arc::clone(&words), copy));
    (source, share, writer, Desk::new(own(2), own(3), words))
}

struct Rng(u64);

impl Rng {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % n as u64).unwrap()
    }
}

#[test]
fn what_goes_in_comes_out_whatever_the_sizes_and_over_daemons() {
    for seed in 1..12u64 {
        let mut rng = Rng(seed * 0x9e37_79b9);
        let max_size = [50, 1000, 4096, 70_000, 1_000_000][rng.below(5)];
        let mut rig = Rig::new(max_size, u32::MAX);
        pipe::set_capacity(&rig.ends[0], 1 << 18).unwrap();
        let mut all = Vec::new();
        for _ in 0..120 {
            let len = [1, 10, 300, 5000, 60_000][rng.below(5)].min(usize::try_from(max_size).unwrap() * 3);
            let mut bytes = vec![b'x'; 1 + rng.below(len)];
            for _ in 0..rng.below(1 + bytes.len() / 20) {
                let at = rng.below(bytes.len());
                bytes[at] = b'\n';
            }
            rig.pipe.write_all(&bytes).unwrap();
            all.extend(&bytes);
            match rng.below(4) {
                0 => rig.die(),
                1 => drop(rig.turn()),
                _ => drop(rig.drain()),
            }
            if pipe::waiting(&rig.ends[0]).unwrap() > 4000 {
                rig.drain();
            }
        }
        rig.drain();
        let files = rig.all();
        assert!(files.concat() == all, "seed {seed}: bytes were lost, doubled or changed");
        let limit = usize::try_from(max_size).unwrap();
        for (i, file) in files.iter().enumerate() {
            // A file over the cap, or one that ends within a line, is one line that did not fit.
            if file.len() > limit {
                assert!(file.len() <= limit + LINE_MAX, "seed {seed}");
                assert!(!file[limit..file.len() - 1].contains(&b'\n'), "seed {seed}: cut too late");
            }
            if i + 1 < files.len() && file.last() != Some(&b'\n') {
                assert_eq!(file.len(), limit + LINE_MAX, "seed {seed}: cut within a line");
            }
        }
        let from = all.len() / 3;
        assert_eq!(rig.read_from(from as u64), (all[from..].to_vec(), 0), "seed {seed}: by position");
    }
}

#[test]
fn rotation_keeps_the_newest_files_whole_lines_and_positions() {
    let mut rig = Rig::new(100, 3);
    let lines: Vec<String> = (0..3000).map(|n| format!("{n:09}\n")).collect();
    for part in lines.chunks(37) {
        rig.write(part.concat().as_bytes());
    }
    assert!(!rig.names.log(3).exists() && !rig.names.index(3).exists());
    let files = rig.all();
    assert_eq!(files[0].len(), 100);
    assert_eq!(files[1].len(), 100);
    assert_eq!(files.concat(), lines[3000 - files.concat().len() / 10..].concat().as_bytes());
    assert_eq!(rig.share.end(), Some(30_000));
    let (bytes, gap) = rig.read_from(5);
    assert_eq!(gap + 5 + bytes.len() as u64, 30_000);
    // Fewer files from now on.
    rig.source.order(Order::Spec { log: LogSpec { max_size: 100, max_files: 1, ..LogSpec::DEFAULT }, by_line: false });
    rig.write(&b"123456789\n".repeat(20));
    assert!(!rig.names.log(1).exists() && !rig.names.index(1).exists());
    assert_eq!(rig.log(0).len(), 100);
    rig.die();
    rig.drain();
    assert_eq!(rig.share.end(), Some(30_200));
}

#[test]
fn a_rotation_that_was_interrupted_after_any_step_is_completed() {
    for keep in [1, 2, 3, 4] {
        for files in 1..=keep {
            for done in 0..=100 {
                let mut rig = Rig::new(100, keep);
                rig.write(&b"123456789\n".repeat(10 * usize::try_from(files).unwrap()));
                assert_eq!(rig.all().len(), usize::try_from(files).unwrap());
                let before = rig.all().concat();
                let end = before.len() as u64;
                let total = interrupt(&rig.names, keep, files, done, end);
                rig.die();
                // A reader may come before the writer has looked.
                let (found, _) = rig.read_from(0);
                assert!(before.ends_with(&found) && before.len() - found.len() <= 100, "{done} steps: {found:?}");
                assert_eq!(rig.share.end(), Some(end), "keep {keep}, {files} files, {done} steps");
                rig.write(b"next line\n");
                let after = rig.all().concat();
                let lost = before.len().saturating_sub(after.len() - 10);
                // Only the oldest file may be gone, and only when it had to go.
                assert!(
                    lost == 0 || (lost == 100 && files == keep),
                    "keep {keep}, {files} files, {done} steps: {lost}"
                );
                assert_eq!(after[..after.len() - 10], before[lost..], "keep {keep}, {files} files, {done} steps");
                assert!(after.ends_with(b"next line\n"));
                assert_eq!(rig.share.end(), Some(end + 10), "keep {keep}, {files} files, {done} steps");
                let (bytes, gap) = rig.read_from(0);
                assert_eq!((bytes, gap), (after, lost as u64), "keep {keep}, {files} files, {done} steps");
                assert_eq!(Spans::load(&rig.names).unwrap(), rig.share.spans().unwrap());
                if done >= total {
                    break;
                }
            }
        }
    }
}

/// Does the first steps of a rotation, in the order in which `LogFile::rotate` does them; answers how many there are.
fn interrupt(names: &Names, keep: u32, files: u32, done: usize, end: u64) -> usize {
    use super::index::{Index, Record, What};
    let mut steps: Vec<Box<dyn Fn()>> = Vec::new();
    let n = names.clone();
    steps.push(Box::new(move || drop(File::create(n.fresh()).unwrap())));
    let n = names.clone();
    steps.push(Box::new(move || {
        let mut index = Index::open(&n.index(0)).unwrap().unwrap();
        index.append(Record { position: end, what: What::End { wall: Wall(5) } }, || names.index(0)).unwrap();
    }));
    let top = files.min(keep - 1);
    if keep > 1 && files == keep {
        for path in [names.index(keep - 1), names.log(keep - 1)] {
            steps.push(Box::new(move || std::fs::remove_file(&path).unwrap()));
        }
    }
    for k in (0..top).rev() {
        for (from, to) in [(names.index(k), names.index(k + 1)), (names.log(k), names.log(k + 1))] {
            steps.push(Box::new(move || std::fs::rename(&from, &to).unwrap()));
        }
    }
    let n = names.clone();
    steps.push(Box::new(move || std::fs::rename(n.fresh(), n.log(0)).unwrap()));
    let n = names.clone();
    steps.push(Box::new(move || drop(Index::replace(&n.index(0), Record::output(Wall(5), end), None).unwrap())));
    for step in steps.iter().take(done) {
        step();
    }
    steps.len()
}

#[test]
fn what_is_written_again_leaves_no_hole_for_readers_and_no_rest() {
    let dir = Dir::new();
    let names = Names::new(dir.path("a.log"));
    let text = || std::fs::read_to_string(names.log(0)).unwrap();
    let mut log = file::LogFile::open(&names, Wall(1), 0).unwrap();
    log.write(b"one\ntw").unwrap();
    log.go_back(4);
    assert_eq!((log.position(), text().as_str()), (4, "one\ntw"));
    log.write(b"two\nthree\n").unwrap();
    assert_eq!((log.position(), text().as_str()), (14, "one\ntwo\nthree\n"));
    log.go_back(4);
    log.write(b"2\n").unwrap();
    assert_eq!((log.position(), text().as_str()), (6, "one\n2\n"));
    log.go_back(4);
    assert!(!log.check(Wall(2), false).unwrap());
    assert_eq!((log.position(), text().as_str()), (4, "one\n"), "nothing was written again");
}

#[test]
fn a_file_that_somebody_cuts_removes_or_lengthens_loses_nothing_new() {
    let mut rig = Rig::new(1_000_000, 3);
    rig.write(b"one\ntwo\n");
    File::options().write(true).open(rig.names.log(0)).unwrap().set_len(0).unwrap();
    rig.write(b"three\n");
    assert_eq!(rig.log(0), b"three\n");
    assert_eq!(rig.share.end(), Some(14), "positions go on");
    assert_eq!(rig.read_from(4), (b"three\n".to_vec(), 4));
    rig.die();
    rig.write(b"four\n");
    assert_eq!(rig.log(0), b"three\nfour\n");
    assert_eq!((rig.share.end(), rig.read_from(8)), (Some(19), (b"three\nfour\n".to_vec(), 0)));
    std::fs::remove_file(rig.names.log(0)).unwrap();
    rig.write(b"five\n");
    assert_eq!(rig.log(0), b"five\n");
    assert_eq!((rig.share.end(), rig.read_from(14)), (Some(24), (b"five\n".to_vec(), 5)));
    rig.die();
    std::fs::remove_file(rig.names.log(0)).unwrap();
    rig.write(b"six\n");
    // The index does not know of what came within its last second.
    let end = rig.share.end().unwrap();
    assert!(end >= 19 + 4, "{end}");
    let mut file = File::options().append(true).open(rig.names.log(0)).unwrap();
    file.write_all(b"not hob's\n").unwrap();
    rig.write(b"seven\n");
    assert_eq!(rig.log(0), b"six\nnot hob's\nseven\n");
    assert_eq!(rig.share.end(), Some(end + 16));
}

#[test]
fn a_missing_or_damaged_index_is_made_anew_from_what_the_others_say() {
    for damage in [0, 1] {
        let mut rig = Rig::new(100, 4);
        rig.write(&b"123456789\n".repeat(95));
        assert_eq!(rig.share.end(), Some(950));
        let path = rig.names.index(0);
        if damage == 0 {
            std::fs::remove_file(&path).unwrap();
        } else {
            File::options().write(true).open(&path).unwrap().write_all_at(b"xx", 2).unwrap();
        }
        std::fs::remove_file(rig.names.index(2)).unwrap();
        rig.die();
        rig.write(b"123456789\n");
        assert_eq!(rig.share.end(), Some(960));
        assert_eq!(rig.read_from(700), (b"123456789\n".repeat(26), 0));
    }
}

#[test]
fn files_are_private_and_links_are_not_followed() {
    use std::os::unix::fs::PermissionsExt;
    let mode = |p: &std::path::Path| std::fs::metadata(p).unwrap().permissions().mode() & 0o777;
    let mut rig = Rig::new(100, 3);
    rig.write(b"one\n");
    assert_eq!(mode(&rig.names.log(0)), 0o600);
    assert_eq!(mode(&rig.names.index(0)), 0o600);
    assert_eq!(mode(rig.names.folder().unwrap()), 0o700);
    let target = rig.dir.path("target");
    std::fs::write(&target, "untouched").unwrap();
    std::fs::remove_file(rig.names.log(0)).unwrap();
    std::os::unix::fs::symlink(&target, rig.names.log(0)).unwrap();
    rig.pipe.write_all(b"two\n").unwrap();
    let out = rig.drain();
    assert!(out.notes.iter().any(|n| n.contains("cannot")), "{:?}", out.notes);
    assert_eq!(std::fs::read(&target).unwrap(), b"untouched");
    std::fs::remove_file(rig.names.log(0)).unwrap();
    rig.clock += 2000;
    rig.write(b"three\n");
    assert_eq!(rig.log(0), b"[hob: 4 bytes dropped]\nthree\n");
}

#[test]
fn what_was_dropped_is_told_by_the_next_daemon() {
    let mut rig = Rig::new(1000, 3);
    rig.write(b"one\n");
    std::fs::remove_file(rig.names.log(0)).unwrap();
    std::os::unix::fs::symlink("/dev/null", rig.names.log(0)).unwrap();
    rig.write(b"two\n");
    rig.die();
    rig.write(b"more\n");
    rig.die();
    std::fs::remove_file(rig.names.log(0)).unwrap();
    let out = rig.write(b"three\n");
    assert_eq!(rig.log(0), b"[hob: 9 bytes dropped]\nthree\n");
    assert!(out.notes.iter().any(|n| n.contains("9 bytes of the output of web were dropped")), "{:?}", out.notes);
    rig.die();
    rig.write(b"four\n");
    assert_eq!(rig.log(0), b"[hob: 9 bytes dropped]\nthree\nfour\n", "once");
}

#[test]
fn a_file_that_somebody_renamed_is_left_within_a_second() {
    let mut rig = Rig::new(1_000_000, 5);
    rig.write(b"one\n");
    rig.clock += 1000;
    for (to, anew) in [("old", false), ("older", true)] {
        rig.write(b"two\n");
        std::fs::rename(rig.names.log(0), rig.dir.path(to)).unwrap();
        if anew {
            std::fs::write(rig.names.log(0), "").unwrap();
        }
        // Less than a second after the last look nothing is asked, unless a reader misses it.
        rig.write(b"late\n");
        if anew {
            assert_eq!(rig.read_from(rig.writer.position - 5), (Vec::new(), 5));
        } else {
            rig.clock += 1000;
        }
        rig.write(b"new\n");
        assert!(std::fs::read(rig.dir.path(to)).unwrap().ends_with(b"two\nlate\n"));
        assert_eq!(rig.log(0), b"new\n");
    }
    let end = 4 + 2 * 13;
    assert_eq!((rig.share.end(), rig.writer.position), (Some(end), end), "positions go on");
    assert_eq!(rig.read_from(end - 4), (b"new\n".to_vec(), 0));
    rig.die();
    rig.clock += 1000;
    rig.write(b"again\n");
    assert_eq!((rig.share.end(), rig.log(0)), (Some(end + 6), b"new\nagain\n".to_vec()));
}

#[test]
fn a_file_that_a_tool_rotated_is_read_on_in_its_place() {
    let mut rig = Rig::new(1_000_000, 9);
    let mut wanted = Vec::new();
    for n in 0..4u64 {
        let text = format!("file {n}\n").repeat(usize::try_from(n).unwrap() + 1);
        rig.write(text.as_bytes());
        wanted.extend(text.into_bytes());
        rig.clock += 1000;
        if n == 0 {
            let now = rig.now();
            rig.writer.rotate(now, &mut Outcome::default());
        } else {
            for k in (0..=4).rev() {
                let _ = std::fs::rename(rig.names.log(k), rig.names.log(k + 1));
            }
        }
    }
    rig.write(b"last\n");
    wanted.extend(b"last\n");
    assert_eq!(rig.read_from(0), (wanted.clone(), 0));
    assert_eq!(rig.share.end(), Some(wanted.len() as u64));
    let index = index::Index::read(&rig.names.index(1)).unwrap().unwrap();
    assert_eq!(index.end(), Some(wanted.len() as u64 - 5), "what is known of it went along");
    rig.die();
    rig.drain();
    assert_eq!(rig.read_from(0), (wanted, 0), "and the next daemon finds it so");
}

#[test]
fn the_index_gets_a_record_a_second_and_one_for_each_run() {
    let mut rig = Rig::new(1_000_000, 3);
    rig.source.mark(Point::Start(RunId(7)));
    for _ in 0..10 {
        rig.write(b"line\n");
        rig.write(b"line\n");
    }
    // 20 turns of 300 ms: one for the file, one for the run, and one for each full second.
    let index = std::fs::read(rig.names.index(0)).unwrap();
    let walls: Vec<Option<index::Record>> = index.chunks(24).map(index::Record::decode).collect();
    assert!(walls.iter().all(Option::is_some));
    assert_eq!(walls.len(), 2 + 4);
    rig.die();
    rig.source.order(Order::Await { run: RunId(7), pattern: Regex::new("^line$").unwrap() });
    assert_eq!(rig.drain().facts, [Fact::Ready(RunId(7))], "its output began before this daemon");
}

#[test]
fn readiness_is_seen_in_the_runs_own_output_alone() {
    let pattern = || Regex::new("^ready$").unwrap();
    let mut rig = Rig::new(100, 3);
    rig.write(b"ready\n");
    // The last run's line lies in the pipe still when the next begins.
    rig.pipe.write_all(b"ready\nrea").unwrap();
    rig.source.mark(Point::Start(RunId(2)));
    rig.source.order(Order::Await { run: RunId(2), pattern: pattern() });
    assert_eq!(rig.drain().facts, []);
    assert_eq!(rig.write(b"dy\n").facts, [], "the line began before the run");
    assert_eq!(rig.write(b"almost ready\n").facts, []);
    assert_eq!(rig.write(b"ready\nready\n").facts, [Fact::Ready(RunId(2))]);
    assert_eq!(rig.write(b"ready\n").facts, [], "once");
    // It was printed before anybody asked, and rotated away from the current file.
    rig.source.mark(Point::Start(RunId(3)));
    rig.write(b"ready\n");
    rig.write(&[b'x'; 99]);
    rig.write(b"\n");
    rig.source.order(Order::Await { run: RunId(3), pattern: pattern() });
    assert_eq!(rig.drain().facts, [Fact::Ready(RunId(3))]);
    // A takeover between the start and the line.
    rig.source.mark(Point::Start(RunId(4)));
    rig.write(b"starting\nrea");
    rig.die();
    rig.source.order(Order::Await { run: RunId(4), pattern: pattern() });
    assert_eq!(rig.drain().facts, []);
    rig.source.order(Order::AwaitEnd(RunId(3)));
    assert_eq!(rig.write(b"dy\n").facts, [Fact::Ready(RunId(4))]);
    // The run began, and the daemon died before its first byte had left the pipe.
    rig.source.mark(Point::Start(RunId(5)));
    rig.pipe.write_all(b"ready\n").unwrap();
    rig.die();
    rig.source.order(Order::Await { run: RunId(5), pattern: pattern() });
    assert_eq!(rig.drain().facts, [Fact::Ready(RunId(5))]);
    rig.source.mark(Point::Start(RunId(6)));
    rig.source.order(Order::Await { run: RunId(6), pattern: pattern() });
    rig.source.order(Order::AwaitEnd(RunId(6)));
    assert_eq!(rig.write(b"ready\n").facts, []);
}

#[test]
fn the_end_of_a_run_tells_what_it_wrote_whoever_goes_on_writing() {
    let mut rig = Rig::new(100, 5);
    rig.write(b"before\n");
    rig.source.mark(Point::Start(RunId(1)));
    let lines: Vec<String> = (0..50).map(|n| format!("line {n}\n")).collect();
    rig.pipe.write_all(lines.concat().as_bytes()).unwrap();
    rig.pipe.write_all(b"\n\nlast words").unwrap();
    rig.source.mark(Point::End(RunId(1)));
    rig.source.mark(Point::Start(RunId(2)));
    rig.pipe.write_all(b" of another\n").unwrap();
    let last_lines = ["line 46", "line 47", "line 48", "line 49", "last words"].map(str::to_owned).to_vec();
    let bytes = lines.concat().len() as u64 + 12;
    assert_eq!(rig.drain().facts, [Fact::Output { run: RunId(1), bytes, last_lines }]);
    rig.source.mark(Point::End(RunId(2)));
    let last_lines = vec![" of another".to_owned()];
    assert_eq!(rig.drain().facts, [Fact::Output { run: RunId(2), bytes: 12, last_lines }]);
    // A run that began under an earlier daemon, with a long line that is no text.
    rig.source.mark(Point::Start(RunId(3)));
    rig.write("ä".repeat(150).as_bytes());
    rig.die();
    rig.pipe.write_all(b"\n\xff\xfe\n").unwrap();
    rig.source.mark(Point::End(RunId(3)));
    let last_lines = vec!["ä".repeat(100), "\u{fffd}\u{fffd}".to_owned()];
    assert_eq!(rig.drain().facts, [Fact::Output { run: RunId(3), bytes: 304, last_lines }]);
    // A run that wrote nothing.
    rig.source.mark(Point::Start(RunId(4)));
    rig.source.mark(Point::End(RunId(4)));
    assert_eq!(rig.drain().facts, [Fact::Output { run: RunId(4), bytes: 0, last_lines: Vec::new() }]);
}

#[test]
fn the_transfer_pipe_is_emptied_into_its_owners_file_first() {
    let mut rig = Rig::new(1000, 3);
    rig.write(b"one\n");
    // The daemon died between the two moves.
    rig.words.set_owner(source::hash("web"));
    File::from(rig.ends[3].try_clone().unwrap()).write_all(b"two\n").unwrap();
    rig.pipe.write_all(b"three\n").unwrap();
    rig.die();
    rig.drain();
    assert_eq!(rig.log(0), b"one\ntwo\nthree\n");
    // Those of another service are left to it.
    rig.words.set_owner(source::hash("db"));
    File::from(rig.ends[3].try_clone().unwrap()).write_all(b"of db\n").unwrap();
    rig.pipe.write_all(b"four\n").unwrap();
    rig.die();
    let out = rig.turn();
    assert_eq!((out.moved, out.drained), (0, false));
    assert_eq!(pipe::waiting(&rig.ends[2]).unwrap(), 6);
}

#[test]
fn a_packed_file_is_unpacked_once_and_closed_when_nobody_reads() {
    if std::process::Command::new("gzip").arg("--version").output().is_err() {
        return eprintln!("SKIPPED: there is no gzip");
    }
    let mut rig = Rig::new(10_000, 3);
    for n in 0..2000u32 {
        rig.write(format!("line {n}\n").as_bytes());
    }
    assert!(std::process::Command::new("gzip").arg(rig.names.log(1)).status().unwrap().success());
    std::fs::rename(rig.dir.path("logs/web.log.1.gz"), rig.names.packed(1)).unwrap();
    rig.share.forget();
    let from = rig.share.spans().unwrap().files[1].base;
    let logs = rig.dir.path("logs").display().to_string();
    let unpacked = || {
        let open = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        let paths = open.filter_map(|fd| std::fs::read_link(fd.path()).ok());
        paths.filter(|p| p.to_string_lossy().starts_with(&logs) && p.to_string_lossy().contains(".read.")).count()
    };
    let mut cursors: Vec<Cursor> = (0..16).map(|_| Cursor::new(from)).collect();
    for cursor in &mut cursors {
        let part = rig.share.read(cursor, u64::MAX, 100);
        assert!(matches!(&part, Ok(Part::Bytes(bytes)) if bytes.starts_with(b"line ")), "{part:?}");
    }
    assert_eq!(unpacked(), 1, "readers share it");
    cursors.iter_mut().for_each(Cursor::rest);
    assert_eq!(unpacked(), 0);
    assert!(matches!(rig.share.read(&mut cursors[0], u64::MAX, 100), Ok(Part::Bytes(_))), "and goes on");
}
