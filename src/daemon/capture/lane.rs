//! What the lane of files does with one service's output: pipe to transfer pipe to file, at most a turn's worth at a
//! time.

use super::copy::FILLING;
pub use super::desk::{Desk, Words};
use super::file::LogFile;
use super::guard::Guard;
use super::index::Index;
use super::lines::{Lines, shape};
use super::ready::{At, Watch};
use super::source::{Order, Point, Source};
use super::tail::{Cursor, LAST_BYTES, Part, Share, Spans, last_lines};
use super::tend::Zipping;
use super::zip::Zip;
use crate::base::ids::{ReqId, RunId};
use crate::base::limits::CAPTURE_TURN;
use crate::base::time::{Mono, Now, Wall};
use crate::config::spec::LogSpec;
use core::fmt;
use core::time::Duration;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

/// How long after a failure a file is opened or rotated again at the earliest.
pub(super) const RETRY: Duration = Duration::from_secs(1);
/// Taken at once while every byte is looked at.
const MATCH_TURN: usize = 64 * 1024;
/// Read back at once.
const BACK: usize = 256 * 1024;

/// A fact for the core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    Ready(RunId),
    Output {
        run: RunId,
        bytes: u64,
        last_lines: Vec<String>,
    },
    /// A new file was begun because somebody asked for it, or why not.
    Rotated {
        req: ReqId,
        result: Result<bool, String>,
    },
    /// Output is dropped for want of a place, or is kept again.
    Lost(bool),
}

/// What came of one turn.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Bytes taken from the pipe.
    pub moved: usize,
    /// The log reaches further than readers were told before, by these or by what was taken earlier.
    pub grown: bool,
    /// Files that were begun.
    pub begun: u32,
    /// Nothing was left in the pipe.
    pub drained: bool,
    /// There is plenty to go on with at once.
    pub again: bool,
    /// The copy to hob's own stdout is too far behind to take more.
    pub held_back: bool,
    /// When to look again although nothing happens.
    pub wake: Option<Mono>,
    /// An old file that is to be compressed.
    pub zip: Option<Zip>,
    pub facts: Vec<Fact>,
    /// Lines for the daemon's own log.
    pub notes: Vec<String>,
}

/// One service's log as the lane has it.
pub struct Writer {
    pub(super) source: Arc<Source>,
    /// The pipe of standard error, where it has one and no lines are processed.
    pub(super) apart: Option<Arc<Source>>,
    pub(super) err_first: bool,
    pub(super) share: Arc<Share>,
    pub(super) spec: LogSpec,
    pub(super) log: Option<LogFile>,
    /// The position of the next byte, also while the file cannot be opened.
    pub(super) position: u64,
    /// Where the log ended when this daemon first opened it.
    began: Option<u64>,
    pub(super) open_again: Option<Mono>,
    pub(super) rotate_again: Option<Mono>,
    /// How far readers know that it reaches, as of the last turn.
    told: Option<u64>,
    /// Bytes of output for which there was no place. They stand in the table as well, for the next daemon.
    pub(super) dropped: u64,
    /// It was told that some is.
    losing: bool,
    /// How much of that is in the records of runs, while there is no room for it in the file.
    pub(super) recorded: u64,
    pub(super) guard: Guard,
    /// Ages are looked at again then; `None`: now.
    pub(super) aged: Option<Wall>,
    pub(super) zipping: Zipping,
    /// What processes lines, once the config has asked for that, and whether it does so still.
    lines: Option<Arc<Mutex<Lines>>>,
    by_line: bool,
    runs: Vec<(RunId, u64)>,
    pub(super) watch: Option<Box<Watch>>,
    pub(super) words: Arc<dyn Words>,
    /// Its output is copied to hob's own stdout.
    pub(super) copied: bool,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer")
            .field("name", &self.source.name)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

/// What stands in place of output for which there was no room.
pub(super) fn dropped_text(bytes: u64) -> String {
    format!("[hob: {bytes} bytes dropped]")
}

impl Writer {
    /// A writer that opens its file with its first turn. With `copied`, it keeps within reach of the copy to hob's own
    /// stdout.
    #[must_use]
    pub fn new(
        source: Arc<Source>,
        share: Arc<Share>,
        spec: LogSpec,
        (words, copied): (Arc<dyn Words>, bool),
    ) -> Writer {
        let dropped = words.dropped(source.hash);
        Writer {
            source,
            apart: None,
            err_first: false,
            share,
            spec,
            log: None,
            position: 0,
            began: None,
            open_again: None,
            rotate_again: None,
            told: None,
            dropped,
            losing: false,
            // The run that it was of may be on record.
            recorded: dropped,
            guard: Guard::default(),
            aged: None,
            zipping: Zipping::Due,
            lines: None,
            by_line: false,
            runs: Vec::new(),
            watch: None,
            words,
            copied,
        }
    }

    /// Begins anew with what is on file, after a fault in the middle of a turn.
    pub(crate) fn restore(&mut self) {
        self.log = None;
        self.open_again = None;
        if let Some(lines) = &self.lines {
            lines.lock().unwrap_or_else(PoisonError::into_inner).begin_again();
        }
    }

    /// Output is to be processed by line from now on, beginning with what an earlier daemon left.
    pub fn process(&mut self, lines: Arc<Mutex<Lines>>) {
        self.lines = Some(lines);
        self.by_line = true;
    }

    /// Moves what lies in the pipe to the file, at most `CAPTURE_TURN` bytes of it.
    pub fn turn(&mut self, desk: &mut Desk, now: Now) -> Outcome {
        let mut out = self.turn_of(desk, now);
        let told = self.share.end();
        out.grown = core::mem::replace(&mut self.told, told) != told;
        if self.losing != (self.dropped > 0) {
            self.losing = !self.losing;
            out.facts.push(Fact::Lost(self.losing));
        }
        out
    }

    fn turn_of(&mut self, desk: &mut Desk, now: Now) -> Outcome {
        let mut out = Outcome::default();
        let orders = self.source.orders();
        self.ready_file(now, &mut out);
        self.take(orders, now, &mut out);
        if desk.unfinished {
            let (owner, bytes) = desk.content();
            match self.stream_of(owner) {
                Some(stream) => self.store(desk, (bytes, stream), now, &mut out),
                None if bytes > 0 => return out,
                None => {}
            }
            desk.unfinished = false;
        }
        if let Some(lines) = self.lines.clone() {
            let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
            if self.by_line || !lines.is_idle() {
                lines.turn(self, now, &mut out);
                self.tell();
                self.tend(now, &mut out);
                return out;
            }
            lines.stand_apart();
        }
        self.turn_raw(desk, now, &mut out);
        self.tell();
        self.tend(now, &mut out);
        out
    }

    /// How much may be taken now; `None` when this turn is at its end.
    pub(super) fn limit_or_hold(&self, out: &mut Outcome) -> Option<usize> {
        let mut limit = self.limit(out.moved);
        if limit == 0 && out.moved < CAPTURE_TURN {
            self.share.hold_back();
            limit = self.limit(out.moved);
        }
        if limit == 0 {
            out.again = out.moved >= CAPTURE_TURN;
            out.held_back = !out.again;
            return None;
        }
        Some(limit)
    }

    /// How much may be taken after `moved` bytes of this turn.
    fn limit(&self, moved: usize) -> usize {
        let mut limit = CAPTURE_TURN - moved.min(CAPTURE_TURN);
        if self.watch.as_ref().is_some_and(|w| matches!(w.at, At::Live)) {
            limit = limit.min(MATCH_TURN);
        }
        if self.copied {
            // The reader of the copy has at most one file between its own and the one that is written to.
            let reach = (CAPTURE_TURN as u64).min(self.spec.max_size / 2).max(1);
            let behind = self.position.saturating_sub((self.words.copied() & !FILLING).saturating_sub(1));
            let behind = behind.saturating_add(self.share.beside() as u64);
            limit = limit.min(usize::try_from(reach.saturating_sub(behind)).unwrap_or(limit));
        }
        limit
    }

    /// So much was dropped and is to be told; 0: it was.
    pub(super) fn set_dropped(&mut self, bytes: u64) {
        self.dropped = bytes;
        self.words.set_dropped(self.source.hash, bytes);
    }

    fn take(&mut self, orders: Vec<Order>, now: Now, out: &mut Outcome) {
        for order in orders {
            match order {
                Order::Spec { log, by_line } => self.settle(log, by_line),
                Order::Lines(lines) => self.process(lines),
                Order::Apart(source) => self.apart = Some(source),
                Order::Split { source, hoard } => self.with_lines(|lines| lines.split(source, hoard)),
                Order::Zipped(step) => self.zipped(step, out),
                Order::Finish => self.with_lines(Lines::finish),
                Order::Rotate(req) => {
                    let result = self.rotate_now(now, out);
                    out.facts.push(Fact::Rotated { req, result });
                }
                Order::AwaitEnd(run) => {
                    self.watch.take_if(|w| w.run == run);
                }
                Order::Await { run, pattern } => {
                    let at = match self.run_start(run) {
                        Some(position) => At::Back(Cursor::new(position)),
                        None if self.source.to_come(run) => At::Before,
                        None => At::Back(Cursor::new(self.search_from())),
                    };
                    self.watch = Some(Box::new(Watch::new(run, pattern, at)));
                }
            }
        }
    }

    /// Where a run's output begins, as far as is known.
    fn run_start(&self, run: RunId) -> Option<u64> {
        if let Some((_, position)) = self.runs.iter().find(|(r, _)| *r == run) {
            return Some(*position);
        }
        self.indexed(|index| index.run_start(run))
    }

    /// The first answer of the indexes, of the newest file first.
    fn indexed<T>(&self, look: impl Fn(&Index) -> io::Result<Option<T>>) -> Option<T> {
        let current = self.log.as_ref().and_then(|log| look(log.index()).ok().flatten());
        current.or_else(|| {
            let files = self.share.spans().map_or(0, |spans| spans.files.len());
            (1..u32::try_from(files).unwrap_or(0)).find_map(|k| {
                let index = Index::read(&self.share.names().index(k)).ok().flatten();
                index.and_then(|index| look(&index).ok().flatten())
            })
        })
    }

    /// Where output of the present run is to be looked for that an earlier daemon put on file. The start of one that
    /// wrote much may have been rotated away: then no run begins in what is left, and all of that is its own.
    fn search_from(&self) -> u64 {
        let all_its_own = self.log.is_some() && self.indexed(Index::last_run).is_none();
        if all_its_own { 0 } else { self.began.unwrap_or(self.position) }
    }

    fn settle(&mut self, log: LogSpec, by_line: bool) {
        let settings = shape::Settings { timestamps: log.timestamps, rate: log.rate };
        if self.spec != log {
            self.aged = None;
            if self.zipping != Zipping::Busy {
                self.zipping = Zipping::Due;
            }
        }
        self.spec = log;
        self.by_line = by_line;
        self.with_lines(|lines| lines.set(settings));
    }

    pub(super) fn with_lines(&self, change: impl FnOnce(&mut Lines)) {
        if let Some(lines) = &self.lines {
            change(&mut lines.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    pub(super) fn pass_point(&mut self, point: Point, now: Now, out: &mut Outcome) {
        match point {
            Point::Start(run) => {
                if let Some(log) = &mut self.log
                    && let Err(e) = log.begin_run(run)
                {
                    out.notes.push(format!("cannot note the start of run {run} in the index: {e}"));
                }
                // Mostly there is one.
                self.runs.reserve_exact(1);
                self.runs.push((run, self.position));
                if let Some(watch) = self.watch.as_mut().filter(|w| w.run == run) {
                    watch.at = At::Live;
                }
            }
            Point::End(run) => {
                if self.dropped > 0 && self.ready_file(now, out) {
                    self.tell_dropped(now, out);
                }
                self.tell();
                let begin = self.run_start(run).or(self.began).unwrap_or(self.position);
                let mut last_lines = match self.log.as_ref().and_then(|log| log.end_from(begin, LAST_BYTES)) {
                    Some(bytes) => last_lines(&bytes),
                    None => self.share.last_lines(begin, self.position).unwrap_or_default(),
                };
                if self.dropped > self.recorded {
                    last_lines.push(dropped_text(self.dropped - self.recorded));
                    self.recorded = self.dropped;
                }
                let bytes = self.position.saturating_sub(begin);
                if self.watch.take_if(|w| w.run == run).is_some_and(|mut w| w.finish()) {
                    out.facts.push(Fact::Ready(run));
                }
                out.facts.push(Fact::Output { run, bytes, last_lines });
                self.runs.retain(|(r, _)| *r != run);
            }
        }
    }

    /// Matches output that is on file already. False while more of it is to be read.
    pub(super) fn match_back(&mut self, out: &mut Outcome) -> bool {
        if self.watch.as_ref().is_some_and(|w| matches!(w.at, At::Back(_))) {
            // What an earlier daemon left may have come to the file in this very turn.
            self.tell();
        }
        let Some(watch) = &mut self.watch else { return true };
        let run = watch.run;
        for _ in 0..CAPTURE_TURN / BACK {
            let At::Back(cursor) = &mut watch.at else { return true };
            match self.share.read(cursor, self.position, BACK) {
                Ok(Part::Bytes(bytes)) => {
                    if watch.feed(&bytes) {
                        out.facts.push(Fact::Ready(run));
                        self.watch = None;
                        return true;
                    }
                }
                Ok(Part::Gap(_)) => {}
                // What cannot be read back is as good as not written; what comes is matched.
                Ok(Part::End) | Err(_) => watch.at = At::Live,
            }
        }
        false
    }

    /// Has the file open and looks what others did to it. False when there is none to write to now.
    pub(super) fn ready_file(&mut self, now: Now, out: &mut Outcome) -> bool {
        if let Some(log) = &mut self.log {
            match log.check(now.wall, self.share.take_missed()) {
                Ok(false) => {}
                Ok(true) => self.tell_all(out),
                Err(e) => {
                    out.notes.push(format!("cannot go on with {}: {e}", self.path()));
                    self.log = None;
                }
            }
        } else if self.open_again.is_none_or(|at| at <= now.mono) {
            match self.share.alone(|| LogFile::open(self.share.names(), now.wall, self.position)) {
                Ok(log) => {
                    self.position = log.position();
                    self.began.get_or_insert(self.position);
                    if self.copied && self.words.copied() == 0 {
                        self.words.set_copied(self.position + 1);
                    }
                    self.log = Some(log);
                    self.open_again = None;
                    self.tell_all(out);
                }
                Err(e) => {
                    self.open_again = Some(now.mono + RETRY);
                    if self.dropped == 0 {
                        out.notes.push(format!("cannot open {}: {e}", self.path()));
                    }
                }
            }
        }
        if let Some(log) = &self.log {
            self.position = log.position();
        }
        self.log.is_some()
    }

    /// Whether the file has been open, so that the position is its.
    pub(super) fn is_known(&self) -> bool {
        self.began.is_some()
    }

    pub(super) fn path(&self) -> String {
        self.share.names().log(0).display().to_string()
    }

    /// Tells readers all files anew.
    pub(super) fn tell_all(&mut self, out: &mut Outcome) {
        let Some(log) = &self.log else { return };
        self.position = log.position();
        match Spans::load(self.share.names()) {
            Ok(mut spans) => {
                spans.end = self.position;
                if let Some(first) = spans.files.first_mut() {
                    first.base = log.base();
                }
                self.share.set(spans);
            }
            Err(e) => out.notes.push(format!("cannot look at the old files of {}: {e}", self.path())),
        }
    }

    /// Tells readers how far the log reaches.
    fn tell(&self) {
        if self.share.end() != Some(self.position) {
            self.share.set_end(self.position);
        }
    }

    pub(super) fn cannot_write(&self, e: &io::Error) -> String {
        format!("cannot write to {}: {e}; output is dropped until it can be", self.path())
    }

    /// Begins a new file because somebody asked for it; false when the present one is empty.
    fn rotate_now(&mut self, now: Now, out: &mut Outcome) -> Result<bool, String> {
        if !self.ready_file(now, out) {
            return Err(format!("{} cannot be opened", self.path()));
        }
        if self.log.as_ref().is_none_or(|log| log.size() == 0) {
            return Ok(false);
        }
        let said = out.notes.len();
        if self.rotate(now, out) {
            self.with_lines(Lines::stand_apart);
            return Ok(true);
        }
        Err(out.notes.drain(said..).collect::<Vec<_>>().join("; "))
    }

    /// Goes over to a new file. False when the old one goes on.
    pub(super) fn rotate(&mut self, now: Now, out: &mut Outcome) -> bool {
        let keep = self.spec.max_files;
        let Some(log) = &mut self.log else { return true };
        match log.rotate((keep, self.spec.keep_head), now.wall) {
            Ok(()) => {
                out.begun += 1;
                self.rotate_again = None;
                self.aged = None;
                if self.zipping == Zipping::Idle {
                    self.zipping = Zipping::Due;
                }
                match log.identity() {
                    Ok(id) => self.share.push(id, log.base(), (keep, self.spec.keep_head)),
                    Err(_) => self.log = None,
                }
                true
            }
            Err(e) => {
                let lost = log.lost;
                out.notes.push(format!("cannot rotate {}: {e}", self.path()));
                self.rotate_again = Some(now.mono + RETRY);
                if lost {
                    self.log = None;
                }
                lost
            }
        }
    }
}
