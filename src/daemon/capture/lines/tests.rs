//! One service's lines in the lane, against real pipes, hoards and files. A daemon that dies is one whose writer and
//! desk are made anew from what the keeper holds.

use super::hoard::{Batch, Hoard, Page, Safe};
use super::shape::Settings;
use super::{Lines, Secrets};
use crate::base::ids::RunId;
use crate::base::time::{Mono, Now, Wall};
use crate::config::spec::LogSpec;
use crate::daemon::capture::desk::{Desk, Words};
use crate::daemon::capture::lane::{Fact, Outcome, Writer};
use crate::daemon::capture::rotate::Names;
use crate::daemon::capture::source::{Order, Point, Source, Taken};
use crate::daemon::capture::tail::Share;
use crate::daemon::capture::testing::{Dir, Memory};
use crate::sys::{memfile, pipe};
use regex_lite::Regex;
use std::ffi::CString;
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

struct Rig {
    _dir: Dir,
    names: Names,
    /// Pipe and hoard of each stream.
    ends: Vec<[OwnedFd; 3]>,
    pipes: Vec<File>,
    spec: LogSpec,
    source: Arc<Source>,
    second: Option<Arc<Source>>,
    secrets: Arc<Secrets>,
    writer: Writer,
    desk: Desk,
    clock: u64,
}

impl Rig {
    fn new(spec: LogSpec, streams: usize) -> Rig {
        let dir = Dir::new();
        let names = Names::new(dir.path("logs/web.log"));
        let end = |_| {
            let (read, write) = pipe::output().unwrap();
            [read, write, memfile::create().unwrap().into()]
        };
        let ends: Vec<_> = (0..streams).map(end).collect();
        let pipes = ends.iter().map(|e| File::from(e[1].try_clone().unwrap())).collect();
        let page = Page { settings: settings(&spec), fresh: true, ..Page::default() };
        Hoard::new(ends[0][2].try_clone().unwrap()).unwrap().set_page(&page).unwrap();
        let (source, second, secrets, writer, desk) = daemon(&ends, &names, &spec);
        Rig { _dir: dir, names, ends, pipes, spec, source, second, secrets, writer, desk, clock: 1_795_197_378_000 }
    }

    fn die(&mut self) {
        let made = daemon(&self.ends, &self.names, &self.spec);
        (self.source, self.second, self.secrets, self.writer, self.desk) = made;
    }

    fn turn(&mut self) -> Outcome {
        let now = Now { mono: Mono(self.clock * 1_000_000), wall: Wall(i64::try_from(self.clock).unwrap()) };
        self.writer.turn(&mut self.desk, now)
    }

    fn write(&mut self, bytes: &[u8]) -> Outcome {
        self.pipes[0].write_all(bytes).unwrap();
        self.turn()
    }

    fn mark(&self, point: Point) {
        [Some(&self.source), self.second.as_ref()].into_iter().flatten().for_each(|s| s.mark(point));
    }

    fn page(&self) -> Page {
        self.hoard().page().unwrap()
    }

    fn hoard(&self) -> Hoard {
        Hoard::new(self.ends[0][2].try_clone().unwrap()).unwrap()
    }

    /// All files, oldest first.
    fn text(&self) -> String {
        let mut files: Vec<_> = (0..).map(|k| self.names.log(k)).take_while(|p| p.exists()).collect();
        files.reverse();
        files.iter().map(|p| std::fs::read_to_string(p).unwrap()).collect()
    }
}

fn settings(spec: &LogSpec) -> Settings {
    Settings { timestamps: spec.timestamps, rate: spec.rate }
}

type Made = (Arc<Source>, Option<Arc<Source>>, Arc<Secrets>, Writer, Desk);

fn daemon(ends: &[[OwnedFd; 3]], names: &Names, spec: &LogSpec) -> Made {
    let own = |fd: &OwnedFd| fd.try_clone().unwrap();
    let source = Arc::new(Source::new("web".into(), own(&ends[0][0])));
    let secrets = Arc::new(Secrets::new(Safe::new(File::from(own(&ends[0][2])))));
    let mut lines = Lines::new(Hoard::new(own(&ends[0][2])).unwrap(), Arc::clone(&secrets));
    let second = ends.get(1).map(|e| Arc::new(Source::new("web".into(), own(&e[0]))));
    if let (Some(second), Some(e)) = (&second, ends.get(1)) {
        lines.split(Arc::clone(second), Hoard::new(own(&e[2])).unwrap());
    }
    let share = Arc::new(Share::new(names.clone()));
    let words: Arc<dyn Words> = Arc::new(Memory::default());
    let mut writer = Writer::new(Arc::clone(&source), share, spec.clone(), (Arc::clone(&words), false));
    writer.process(Arc::new(Mutex::new(lines)));
    let (tr, tw) = pipe::inner(65536).unwrap();
    (source, second, secrets, writer, Desk::new(tr, tw, words))
}

const STAMPED: LogSpec = LogSpec { timestamps: true, ..LogSpec::DEFAULT };
const T: &str = "2026-11-20T17:56:18.000Z ";

#[test]
fn an_unfinished_line_is_waited_for_a_second_and_then_continued() {
    let mut rig = Rig::new(STAMPED, 1);
    let out = rig.write(b"one\ntw");
    assert_eq!(rig.text(), format!("{T}one\n"));
    assert_eq!(out.wake, Some(Mono((rig.clock + 1000) * 1_000_000)));
    rig.die();
    assert_eq!(rig.turn().wake, Some(Mono((rig.clock + 1000) * 1_000_000)), "the next daemon waits as well");
    assert!(!rig.turn().grown);
    rig.clock += 1000;
    let out = rig.turn();
    assert_eq!((out.moved, out.grown, out.wake), (0, true, None), "who follows is told of what was taken before");
    let t = "2026-11-20T17:56:19.000Z ";
    assert_eq!(rig.text(), format!("{T}one\n{t}tw"));
    rig.die();
    rig.write(b"o\n");
    assert_eq!(rig.text(), format!("{T}one\n{t}two\n"), "no second stamp");
    assert_eq!(rig.hoard().size(), 0);
    rig.write(&[b'x'; 9000]);
    assert!(rig.text().ends_with(&"x".repeat(9000)), "a long line is not waited for");
}

#[test]
fn a_batch_that_was_not_finished_is_made_again() {
    for cut in [0, 1, 30, 70] {
        let mut rig = Rig::new(LogSpec { rate: Some(1000), ..STAMPED }, 1);
        rig.write(b"before\n");
        let (page, size) = (rig.page(), rig.text().len());
        assert_eq!((page.batch, rig.hoard().size()), (None, 0));
        // What a daemon leaves that dies within its write: taken, told of, partly on file.
        let raw = b"first\nsecond\nunfini";
        let mut hoard = rig.hoard();
        rig.pipes[0].write_all(raw).unwrap();
        let _ = hoard.take(&rig.source, 100).unwrap();
        let now = Now { mono: Mono(rig.clock * 1_000_000), wall: Wall(i64::try_from(rig.clock).unwrap()) };
        let batch = Some(Batch { stream: 0, length: 13, now, position: size as u64 });
        hoard.set_page(&Page { batch, ..page }).unwrap();
        let whole = format!("{T}before\n{T}first\n{T}second\n");
        std::fs::write(rig.names.log(0), whole.get(..size + cut.min(whole.len() - size)).unwrap()).unwrap();
        rig.die();
        rig.clock += 100;
        rig.write(b"shed\n");
        assert_eq!(rig.text(), format!("{whole}2026-11-20T17:56:18.100Z unfinished\n"), "cut after {cut} bytes");
        assert_eq!(rig.page().state.tokens, 1000 - 7 - 13 - 11 + 20, "charged once");
    }
}

#[test]
fn a_page_older_than_the_cut_of_its_hoard_is_understood() {
    let mut rig = Rig::new(STAMPED, 1);
    rig.write(b"one\n");
    let page = rig.page();
    rig.hoard().set_page(&Page { done: [4, 0], ..page }).unwrap();
    rig.die();
    rig.write(b"two\n");
    assert_eq!(rig.text(), format!("{T}one\n{T}two\n"));
}

#[test]
fn a_second_death_after_the_cut_of_a_hoard_skips_nothing() {
    for stream in [0, 1] {
        let mut rig = Rig::new(STAMPED, 2);
        rig.pipes[stream].write_all(b"one\n").unwrap();
        rig.turn();
        let mut page = rig.page();
        page.done[stream] = 4;
        rig.hoard().set_page(&page).unwrap();
        // This daemon dies when it has taken more than that, and told of nothing yet.
        rig.die();
        rig.turn();
        rig.pipes[stream].write_all(b"two\nthree\n").unwrap();
        let mut hoard = Hoard::new(rig.ends[stream][2].try_clone().unwrap()).unwrap();
        let source = if stream == 0 { Some(&rig.source) } else { rig.second.as_ref() };
        assert_eq!(hoard.take(source.unwrap(), 100).unwrap(), Taken::Some { bytes: 10, all: true });
        rig.die();
        rig.turn();
        assert_eq!(rig.text(), format!("{T}one\n{T}two\n{T}three\n"), "stream {stream}");
    }
}

#[test]
fn points_do_not_wait_for_the_end_of_a_line() {
    let mut rig = Rig::new(STAMPED, 1);
    rig.source.mark(Point::Start(RunId(1)));
    rig.pipes[0].write_all(b"one\nlast words").unwrap();
    rig.source.mark(Point::End(RunId(1)));
    rig.source.mark(Point::Start(RunId(2)));
    rig.pipes[0].write_all(b" of another\n").unwrap();
    let last_lines = vec![format!("{T}one"), format!("{T}last words")];
    assert_eq!(rig.turn().facts, [Fact::Output { run: RunId(1), bytes: 64, last_lines }]);
    assert_eq!(rig.text(), format!("{T}one\n{T}last words of another\n"));
}

#[test]
fn readiness_is_seen_without_the_stamps_before_and_after_a_takeover() {
    let order = || Order::Await { run: RunId(1), pattern: Regex::new("^ready$").unwrap() };
    let mut rig = Rig::new(STAMPED, 1);
    rig.source.mark(Point::Start(RunId(1)));
    rig.source.order(order());
    assert!(rig.write(b"almost\n").facts.is_empty());
    assert_eq!(rig.write(b"ready\n").facts, [Fact::Ready(RunId(1))]);
    rig.die();
    rig.source.order(order());
    assert_eq!(rig.turn().facts, [Fact::Ready(RunId(1))], "it is read back from the file");
    // The line was taken from the pipe, and the daemon died before it was in the log.
    let mut rig = Rig::new(STAMPED, 1);
    rig.source.mark(Point::Start(RunId(1)));
    rig.write(b"almost\n");
    rig.pipes[0].write_all(b"ready\n").unwrap();
    rig.hoard().take(&rig.source, 100).unwrap();
    rig.die();
    rig.source.order(order());
    rig.source.mark(Point::End(RunId(1)));
    assert_eq!(rig.turn().facts[0], Fact::Ready(RunId(1)));
}

#[test]
fn secrets_are_masked_over_any_cut_and_never_shown_in_part() {
    let mut rig = Rig::new(LogSpec::DEFAULT, 1);
    let environment = [c"A=x", c"TOKEN=hunter2", c"KEY=line one is long\nline two is long"].map(CString::from);
    let names = ["TOKEN", "KEY", "A", "NONE"].map(str::to_owned);
    rig.secrets.learn(&names, &environment).unwrap();
    let notes = rig.write(b"a hunt").notes;
    assert_eq!(notes.len(), 2, "{notes:?}");
    rig.clock += 1000;
    rig.turn();
    assert_eq!(rig.text(), "a ", "the rest may be the beginning of a secret");
    rig.clock += 100_000;
    assert_eq!(rig.turn().wake, None);
    rig.die();
    rig.write(b"er2 b\nhunter3\n");
    rig.write(b"line one is long\nli");
    rig.clock += 2000;
    rig.turn();
    rig.write(b"ne two is long\nline two is long\n");
    assert_eq!(rig.text(), "a *** b\nhunter3\n***\n***\n");
    // The next run has another secret, and the last words of this one are still to come.
    rig.secrets.learn(&names[..1], &[c"TOKEN=other".into()]).unwrap();
    rig.write(b"hunter2 other\n");
    assert!(rig.text().ends_with("\n*** ***\n"));
}

#[test]
fn two_streams_keep_their_lines_apart_and_are_indexed() {
    let mut rig = Rig::new(LogSpec { max_size: 100, max_files: 100, ..STAMPED }, 2);
    rig.mark(Point::Start(RunId(1)));
    for n in 0..20 {
        rig.pipes[0].write_all(format!("out {n}\nou").as_bytes()).unwrap();
        rig.pipes[1].write_all(format!("err {n}\n").as_bytes()).unwrap();
        rig.turn();
        rig.pipes[0].write_all(b"t\n").unwrap();
        rig.turn();
        rig.die();
    }
    rig.mark(Point::End(RunId(1)));
    assert_eq!(rig.turn().facts.len(), 1);
    let text = rig.text();
    let lines: Vec<&str> = text.lines().map(|l| l.split_once(' ').unwrap().1).collect();
    let want: Vec<String> = (0..20).flat_map(|n| [format!("out {n}"), format!("err {n}"), "out".into()]).collect();
    assert_eq!(lines, want);
    let share = Share::new(rig.names.clone());
    let mut position = 0;
    for line in text.split_inclusive('\n') {
        let pieces = crate::daemon::capture::marks::cut(&share, position, line.as_bytes().to_vec()).unwrap();
        let stream = if line.contains("err") { 2 } else { 1 };
        assert!(pieces.iter().all(|p| p.stream == stream), "{line}: {pieces:?}");
        position += line.len() as u64;
    }
}

#[test]
fn a_turn_begins_few_files_however_many_lines_come_and_loses_none() {
    // The kept files, how many of them a turn may begin, and the lines.
    for (max_files, most, count) in [(5, 32, 6000), (1000, 1, 1000)] {
        let mut rig = Rig::new(LogSpec { max_size: 300, max_files, ..STAMPED }, 2);
        rig.mark(Point::Start(RunId(1)));
        let flood: String = (0..count).map(|n| format!("{n}\n")).collect();
        rig.pipes[0].write_all(flood.as_bytes()).unwrap();
        rig.pipes[1].write_all(b"apart\n").unwrap();
        rig.mark(Point::End(RunId(1)));
        let (mut facts, mut turns) = (Vec::new(), 0);
        loop {
            let one = rig.turn();
            assert!(one.begun <= most && one.notes.is_empty(), "{one:?}");
            facts.extend(one.facts);
            turns += 1;
            assert_eq!(one.again, facts.is_empty(), "the end of the run is told after all of its output");
            if one.drained {
                break;
            }
            if turns == 3 {
                rig.die();
                rig.mark(Point::End(RunId(1)));
            }
        }
        // Some ten stamped lines fill a file.
        assert!(turns > count / 11 / most, "{turns}");
        let [Fact::Output { bytes, last_lines, .. }] = &facts[..] else { panic!("{facts:?}") };
        assert!(*bytes > 0 && !last_lines.is_empty());
        let text = rig.text();
        let lines: Vec<&str> = text.lines().map(|l| l.strip_prefix(T).unwrap()).filter(|l| *l != "apart").collect();
        let all: Vec<String> = (0..count).map(|n| n.to_string()).collect();
        assert!(all.ends_with(&lines.iter().map(|l| (*l).to_owned()).collect::<Vec<_>>()), "{lines:?}");
        assert!(!lines.is_empty() && (max_files < 1000 || lines.len() == all.len()), "{} lines", lines.len());
    }
}

#[test]
fn output_that_nobody_can_write_is_counted() {
    let mut rig = Rig::new(STAMPED, 1);
    rig.write(b"one\n");
    std::fs::remove_file(rig.names.log(0)).unwrap();
    std::os::unix::fs::symlink("/nowhere", rig.names.log(0)).unwrap();
    rig.write(b"two\nthr");
    rig.clock += 1100;
    rig.write(b"ee\n");
    assert_eq!((rig.page().state.lost, rig.hoard().size()), (10, 0));
    std::fs::remove_file(rig.names.log(0)).unwrap();
    rig.die();
    rig.clock += 1100;
    rig.write(b"four\n");
    let t = "2026-11-20T17:56:20.200Z ";
    assert_eq!(rig.text(), format!("{t}[hob: 10 bytes dropped]\n{t}four\n"));
}

#[test]
fn going_over_to_lines_and_back_keeps_every_byte() {
    let mut rig = Rig::new(LogSpec::DEFAULT, 1);
    let set = |rig: &Rig, log: LogSpec, by_line| rig.source.order(Order::Spec { log, by_line });
    set(&rig, LogSpec::DEFAULT, false);
    rig.turn();
    rig.write(b"raw\nra");
    assert_eq!(rig.text(), "raw\nra");
    set(&rig, STAMPED, true);
    rig.write(b"w too\nline\nli");
    set(&rig, LogSpec::DEFAULT, false);
    rig.turn();
    rig.clock += 1100;
    rig.turn();
    rig.write(b"ne\nraw\n");
    assert_eq!(rig.text(), format!("raw\nraw too\n{T}line\nline\nraw\n"));
}
