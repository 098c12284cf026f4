//! Line-processed capture, for services whose log settings ask for more than the bytes as they come: time stamps, a
//! rate limit, masked secrets, two streams.
//!
//! Output is taken from the pipe into a hoard, which outlives the daemon, and goes from there to the log in batches.
//! Before a batch is written, the hoard's first page says where it begins in both and at what time; after it, how far
//! things have come. A daemon that finds a batch begun cuts the log back and makes the same batch again. What a line's
//! end is still to follow stays in the hoard for a while.

pub mod hoard;
pub mod mask;
mod secrets;
pub mod shape;

pub use secrets::Secrets;

use super::lane::{Outcome, Writer};
use super::source::{Source, Taken};
use crate::base::limits::{LINE_HELD, LINE_HELD_MAX};
use crate::base::time::{Mono, Now};
use crate::sys::pipe;
use hoard::{Batch, Hoard, Page};
use mask::Masks;
use shape::{Room, Settings};
use std::io;
use std::sync::Arc;

/// Raw bytes looked at together, and bytes made of them in one batch.
const WINDOW: usize = 128 * 1024;
const MADE: usize = 192 * 1024;
/// Where memory can only be given back all at once, a hoard of this size is emptied by taking an unfinished line as it
/// is.
const HOARD_MAX: u64 = 2 * 1024 * 1024;

/// What waits of one stream for the end of its line.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    since: Option<Mono>,
    /// It has been waited for; what is left may be the beginning of a secret.
    quiet: bool,
}

/// The line-processed output of one service, as the lane has it.
#[derive(Debug)]
pub struct Lines {
    hoards: Vec<Hoard>,
    second: Option<Arc<Source>>,
    secrets: Arc<Secrets>,
    masks: Masks,
    page: Page,
    /// What the config says; until that is known, what the last daemon knew.
    settings: Option<Settings>,
    /// The page is to be read, and the batch it tells of to be made again.
    begun: bool,
    /// The file was written to by others since.
    apart: bool,
    /// No line is waited for.
    finish: bool,
    /// Memory is only given back all at once.
    grows: bool,
    held: [Held; 2],
    raw: Vec<u8>,
    made: Vec<u8>,
}

impl Lines {
    /// Lines out of this hoard, in which an earlier daemon may have left something.
    #[must_use]
    pub fn new(hoard: Hoard, secrets: Arc<Secrets>) -> Lines {
        Lines {
            hoards: vec![hoard],
            second: None,
            secrets,
            masks: Masks::default(),
            page: Page::default(),
            settings: None,
            begun: true,
            apart: false,
            finish: false,
            grows: false,
            held: [Held::default(); 2],
            raw: Vec::new(),
            made: Vec::new(),
        }
    }

    /// From now on a second stream is read as well.
    pub fn split(&mut self, source: Arc<Source>, hoard: Hoard) {
        self.second = Some(source);
        self.hoards.truncate(1);
        self.hoards.push(hoard);
    }

    pub(super) fn set(&mut self, settings: Settings) {
        self.settings = Some(settings);
        self.finish = false;
    }

    pub(super) fn finish(&mut self) {
        self.finish = true;
    }

    fn settings(&self) -> Settings {
        self.settings.unwrap_or(self.page.settings)
    }

    /// The writer has lost its place, or wrote itself.
    pub(super) fn begin_again(&mut self) {
        self.begun = true;
    }

    pub(super) fn stand_apart(&mut self) {
        self.apart = true;
    }

    /// Whether all that was taken is in the log, and no other stream is to be read.
    pub(super) fn is_idle(&self) -> bool {
        let done = self.hoards.iter().enumerate().all(|(s, h)| h.size() == self.page.done[s]);
        !self.begun && done && self.second.is_none() && self.page.state.lost == 0 && self.page.state.dropped == 0
    }

    /// Moves what lies in the pipes to the log, at most `CAPTURE_TURN` bytes of it, and over a few files at most: the
    /// others have their turn before what was taken and is not in the log yet.
    pub(super) fn turn(&mut self, w: &mut Writer, now: Now, out: &mut Outcome) {
        if let Some(masks) = self.secrets.news(&w.source.name, &mut out.notes) {
            self.masks = masks;
        }
        if self.begun {
            self.restore(w, now, out);
        } else if core::mem::take(&mut self.apart) {
            self.find_place(w);
        }
        let mut short = false;
        loop {
            self.work(w, now, out, self.finish);
            // Before points, because what is matched of a run ends with its output.
            if out.again || !w.match_back(out) {
                (out.again, out.drained) = (true, false);
                break;
            }
            self.points(w, now, out);
            if out.again {
                out.drained = false;
                break;
            }
            if short {
                break;
            }
            let Some(limit) = w.limit_or_hold(out) else { break };
            let taken = self.take(w, limit.min(w.fill_at_once()), out);
            out.moved += taken.0;
            short = taken.1;
            out.drained = short && self.waiting(w) == 0;
        }
        self.rest(now, out);
        (self.raw, self.made) = (Vec::new(), Vec::new());
    }

    fn waiting(&self, w: &Writer) -> usize {
        let both = [Some(&w.source), self.second.as_ref()];
        both.into_iter().flatten().map(|s| pipe::waiting(&s.read).unwrap_or(0)).sum()
    }

    /// Takes from both pipes: how much, and whether that was all.
    fn take(&mut self, w: &Writer, limit: usize, out: &mut Outcome) -> (usize, bool) {
        let sources = [Some(&w.source), self.second.as_ref()];
        let (mut moved, mut all_taken) = (0, true);
        for (s, (source, hoard)) in sources.into_iter().flatten().zip(&mut self.hoards).enumerate() {
            match hoard.take(source, limit.saturating_sub(moved).max(1)) {
                Ok(Taken::Some { bytes, all }) => {
                    moved += bytes;
                    all_taken &= all;
                    self.held[s].quiet = false;
                }
                Ok(Taken::Nothing) => {}
                Err(e) => out.notes.push(format!("cannot read the output of {}: {e}", w.source.name)),
            }
        }
        (moved, all_taken)
    }

    /// Goes on where the last daemon was.
    fn restore(&mut self, w: &mut Writer, now: Now, out: &mut Outcome) {
        self.begun = false;
        let Some(hoard) = self.hoards.first() else { return };
        self.page = hoard.page().unwrap_or(Page { fresh: true, ..Page::default() });
        if core::mem::take(&mut self.page.fresh) {
            self.find_place(w);
            self.page.state.mid = [false; 2];
        }
        let mut emptied = false;
        for (done, hoard) in self.page.done.iter_mut().zip(&self.hoards) {
            if *done > hoard.size() {
                (*done, emptied) = (0, true);
            }
        }
        // If what is taken next made the old page fit again, a daemon after this one would skip that much of it.
        if emptied && let Err(e) = self.mark() {
            out.notes.push(format!("cannot note that the output of {} was dealt with: {e}", w.source.name));
        }
        let Some(batch) = self.page.batch.take() else { return };
        if !w.ready_file(now, out) {
            out.notes
                .push(format!("the log of {} cannot be completed: {} bytes are dropped", w.source.name, batch.length));
            self.page.done[batch.stream] += batch.length;
            self.page.state.lost += batch.length;
            return;
        }
        if let Some(log) = &mut w.log {
            log.go_back(batch.position);
        }
        w.position = batch.position;
        let length = usize::try_from(batch.length).unwrap_or(0);
        let mut raw = vec![0; length];
        let read = self.hoards.get(batch.stream).map(|h| h.read(self.page.done[batch.stream], &mut raw));
        if let Some(Ok(())) = read {
            let set = self.page.settings;
            self.batch(w, (batch.stream, &raw), (set, batch.now, Room::ENDLESS), out);
        }
    }

    /// Where the file stands, after others have written to it.
    fn find_place(&mut self, w: &Writer) {
        let ends = w.log.as_ref().is_none_or(super::file::LogFile::at_line_end);
        self.page.state.within = u8::from(!ends);
        self.page.state.mid[0] = !ends;
    }

    /// Points that were passed: all before them goes to the log, finished or not.
    fn points(&mut self, w: &mut Writer, now: Now, out: &mut Outcome) {
        while w.source.due() && self.second.as_ref().is_none_or(|s| s.due()) {
            self.work(w, now, out, true);
            if out.again {
                return;
            }
            if self.page.state.lost > 0 || self.page.state.dropped > 0 {
                self.say(w, now, out);
            }
            let (point, _) = (w.source.passed(), self.second.as_ref().map(|s| s.passed()));
            if let Some(point) = point {
                w.pass_point(point, now, out);
            }
        }
    }

    /// Puts what was taken into the log, as far as its lines are finished; with `all`, all of it. What the turn has no
    /// files left for is to be gone on with.
    fn work(&mut self, w: &mut Writer, now: Now, out: &mut Outcome, all: bool) {
        for stream in 0..self.hoards.len() {
            while !out.again && self.window(w, stream, now, out, all) {}
            self.tidy(stream, out, w);
        }
        if self.page.state.told_at(self.settings()).is_some_and(|at| at <= now.mono) {
            self.say(w, now, out);
        }
    }

    /// The next part of one stream. False when there is nothing more to do.
    fn window(&mut self, w: &mut Writer, stream: usize, now: Now, out: &mut Outcome, all: bool) -> bool {
        let (done, size) = (self.page.done[stream], self.hoards[stream].size());
        let left = usize::try_from(size.saturating_sub(done)).unwrap_or(usize::MAX);
        if left == 0 {
            self.held[stream] = Held::default();
            return false;
        }
        let mut raw = core::mem::take(&mut self.raw);
        raw.resize(left.min(WINDOW), 0);
        if let Err(e) = self.hoards[stream].read(done, &mut raw) {
            out.notes.push(format!("cannot read the output of {} back: {e}", w.source.name));
            return false;
        }
        let more = left > raw.len();
        let length = self.ripe(stream, &raw, (more, all), now.mono, size);
        if let Some(part) = raw.get(..length).filter(|p| !p.is_empty()) {
            self.put(w, stream, part, now, out);
            if !out.again {
                self.held[stream] = Held::default();
            }
        } else if !self.held[stream].quiet {
            self.held[stream].since.get_or_insert(now.mono);
        }
        self.raw = raw;
        length > 0
    }

    /// How much of a stream's next part can be dealt with now.
    fn ripe(&mut self, stream: usize, raw: &[u8], (more, all): (bool, bool), now: Mono, size: u64) -> usize {
        let last = all && !more;
        let (found, decided) = self.masks.find(raw, last);
        if last {
            return raw.len();
        }
        let outside = |at: usize| !found.iter().any(|r| r.contains(&at));
        let decided_part = raw.get(..decided).unwrap_or_default();
        let ends = decided_part.iter().enumerate().rev().filter(|(_, b)| **b == b'\n').map(|(at, _)| at);
        if let Some(end) = ends.into_iter().find(|at| outside(*at)) {
            return end + 1;
        }
        let waited = self.held[stream].since.is_some_and(|since| now.since(since) >= LINE_HELD);
        if all || more || waited || raw.len() > LINE_HELD_MAX || self.grows && size >= HOARD_MAX {
            self.held[stream].quiet |= waited;
            return decided;
        }
        0
    }

    /// A hoard whose content is in the log is emptied.
    fn tidy(&mut self, stream: usize, out: &mut Outcome, w: &Writer) {
        let hoard = &mut self.hoards[stream];
        if hoard.size() == 0 {
            return;
        }
        if hoard.size() != self.page.done[stream] {
            self.grows |= !hoard.punch(self.page.done[stream]);
            return;
        }
        let cleared = hoard.clear().and_then(|()| {
            self.page.done[stream] = 0;
            self.mark()
        });
        if let Err(e) = cleared {
            out.notes.push(format!("cannot empty what was kept of the output of {}: {e}", w.source.name));
        }
    }

    fn mark(&self) -> io::Result<()> {
        self.hoards.first().map_or(Ok(()), |h| h.set_page(&self.page))
    }

    /// Puts finished lines into the log, over as many files as the turn has left.
    fn put(&mut self, w: &mut Writer, stream: usize, raw: &[u8], now: Now, out: &mut Outcome) {
        let mut rest = raw;
        let mut forced = false;
        while !rest.is_empty() {
            if !w.has_room(now, out) || !w.ready_file(now, out) {
                w.feed(rest, out);
                return self.lose(stream, rest);
            }
            let room = if forced { Room { batch: MADE, ..Room::ENDLESS } } else { w.room(MADE) };
            let set = self.settings();
            let taken = self.batch(w, (stream, rest), (set, now, room), out);
            if taken == 0 && self.page.state.within != 0 && !self.page.state.goes_on(stream) {
                // A file does not end within a line that is not gone on with.
                self.batch(w, (stream, &[]), (set, now, Room::ENDLESS), out);
            }
            if taken == 0 && w.has_begun_enough(out) {
                out.again = true;
                return;
            }
            forced = taken == 0 && !w.rotate_when_due(now, out);
            rest = rest.get(taken..).unwrap_or_default();
        }
    }

    /// Says what was dropped although nothing follows it.
    fn say(&mut self, w: &mut Writer, now: Now, out: &mut Outcome) {
        if w.has_room(now, out) && w.ready_file(now, out) {
            self.batch(w, (0, &[]), (self.settings(), now, Room::ENDLESS), out);
        }
    }

    /// Makes a batch and writes it; answers how much raw output it took. Zero when the first line does not fit.
    fn batch(
        &mut self,
        w: &mut Writer,
        (stream, raw): (usize, &[u8]),
        (set, now, room): (Settings, Now, Room),
        out: &mut Outcome,
    ) -> usize {
        let mut made = core::mem::take(&mut self.made);
        made.clear();
        let mut after = self.page.state;
        let taken = after.shape(stream, raw, &self.masks, (set, now, room), &mut made);
        if taken == 0 && !raw.is_empty() {
            self.made = made;
            return 0;
        }
        let batch = Batch { stream, length: taken as u64, now, position: w.position };
        self.page.settings = set;
        let index = if self.second.is_some() { u32::from(stream != 0) + 1 } else { 0 };
        let written = if made.is_empty() {
            Ok(())
        } else {
            let marked = self.hoards.first().map_or(Ok(()), |h| h.set_page(&Page { batch: Some(batch), ..self.page }));
            marked.and_then(|()| w.append(&made, (index, set.timestamps), now))
        };
        w.feed(raw.get(..taken).unwrap_or_default(), out);
        self.page.done[stream] += taken as u64;
        match written {
            Ok(()) => self.page.state = after,
            Err(e) => {
                if self.page.state.lost == 0 {
                    out.notes.push(w.cannot_write(&e));
                }
                self.page.state.lost += taken as u64;
                self.page.state.mid[stream] = raw.get(..taken).is_some_and(|r| r.last() != Some(&b'\n'));
            }
        }
        if let Err(e) = self.mark() {
            out.notes.push(format!("cannot note what was taken of the output of {}: {e}", w.source.name));
        }
        self.made = made;
        taken
    }

    /// Drops what there is no place for.
    fn lose(&mut self, stream: usize, raw: &[u8]) {
        self.page.state.lost += raw.len() as u64;
        self.page.state.mid[stream] = raw.last() != Some(&b'\n');
        self.page.done[stream] += raw.len() as u64;
        // A daemon that dies before it can be noted counts less than was lost.
        let _ = self.mark();
    }

    /// When to look again although nothing happens.
    fn rest(&self, now: Now, out: &mut Outcome) {
        let held = self.held.iter().filter(|h| !h.quiet).filter_map(|h| h.since.map(|at| at + LINE_HELD));
        let said = self.page.state.told_at(self.settings());
        out.wake = held.chain(said).map(|at| at.max(now.mono)).chain(out.wake).min();
    }
}

#[cfg(test)]
mod tests;
