//! What the lane does with bytes as they come: from the pipe, or from both where standard error has one of its own, by
//! the transfer pipe to the file.

use super::desk::Desk;
use super::file::LogFile;
use super::lane::{Fact, Outcome, Writer, dropped_text};
use super::ready::At;
use super::source::{Source, Taken};
use super::tail::{Cursor, Share};
use crate::base::limits::{CAPTURE_TURN, LINE_MAX};
use crate::base::time::Now;
use crate::config::spec::LogSpec;
use crate::sys::pipe;
use std::io;
use std::sync::Arc;

/// Files of fewer bytes than this may be filled many times over by what is taken at once.
const SMALL: u64 = (CAPTURE_TURN / 16) as u64;
/// So many of them are filled by it at most.
const FILES_AT_ONCE: u32 = 32;
/// So many old files get another name for it at most, or those of one rotation.
const RENAMED_AT_ONCE: u32 = 1024;
/// Taken at once at least, however small the files are: pipes are to be emptied.
const TAKE_MIN: u64 = 4096;

impl Writer {
    /// Moves what lies in the pipes to the file, at most a turn's worth of it.
    pub(super) fn turn_raw(&mut self, desk: &mut Desk, now: Now, out: &mut Outcome) {
        let mut all = false;
        loop {
            // First, because what is matched of a run ends with its output.
            if !self.match_back(out) {
                out.again = true;
                break;
            }
            self.pass_points(now, out);
            if all {
                break;
            }
            let Some(limit) = self.limit_or_hold(out) else { break };
            let begun = self.log.as_ref().map(LogFile::base);
            all = self.move_some(desk, limit.min(self.at_once()), now, out);
            // A short move may also have ended because a small transfer pipe was full of small pieces.
            out.drained = all && self.sources().all(|(source, _)| pipe::waiting(&source.read).is_ok_and(|n| n == 0));
            // Going over to another file takes long beside a few bytes, so the others have their turn after that.
            if !all && self.spec.max_size < SMALL && self.log.as_ref().map(LogFile::base) != begun {
                out.again = true;
                break;
            }
        }
    }

    /// How much may be taken at once, so that what is filled by it and renamed for it is bounded. Where few files are
    /// kept, the rest is skipped anyway.
    fn at_once(&self) -> usize {
        if self.spec.max_files <= FILES_AT_ONCE { CAPTURE_TURN } else { self.fill_at_once() }
    }

    /// How many files may be begun in a turn.
    pub(super) fn files_at_once(&self) -> u32 {
        (RENAMED_AT_ONCE / self.spec.max_files.max(1)).clamp(1, FILES_AT_ONCE)
    }

    /// About how much fills them.
    pub(super) fn fill_at_once(&self) -> usize {
        let most = self.spec.max_size.saturating_mul(self.files_at_once().into()).max(TAKE_MIN);
        usize::try_from(most).map_or(CAPTURE_TURN, |most| most.min(CAPTURE_TURN))
    }

    /// The pipes, and the stream of each.
    fn sources(&self) -> impl Iterator<Item = (&Arc<Source>, u32)> {
        let first = if self.apart.is_some() { 1 } else { 0 };
        [(&self.source, first)].into_iter().chain(self.apart.as_ref().map(|source| (source, 2)))
    }

    /// Moves up to `limit` bytes. True when nothing was left behind.
    fn move_some(&mut self, desk: &mut Desk, limit: usize, now: Now, out: &mut Outcome) -> bool {
        let mut sources: Vec<(Arc<Source>, u32)> = self.sources().map(|(s, n)| (Arc::clone(s), n)).collect();
        // One that is always full must not keep the other waiting.
        self.err_first = !self.err_first;
        if self.err_first {
            sources.reverse();
        }
        let (mut left, mut all_taken) = (limit, true);
        for (source, stream) in sources {
            if left == 0 {
                return false;
            }
            match desk.take(&source, left) {
                Ok(Taken::Some { bytes, all }) => {
                    out.moved += bytes;
                    left -= bytes;
                    all_taken &= all;
                    self.store(desk, (bytes, stream), now, out);
                }
                Ok(Taken::Nothing) => {}
                Err(e) => out.notes.push(format!("cannot read the output of {}: {e}", self.source.name)),
            }
        }
        all_taken
    }

    /// The stream of the bytes of this owner in the transfer pipe; `None` where they are of another service.
    pub(super) fn stream_of(&self, owner: u64) -> Option<u32> {
        self.sources().find(|(source, _)| source.hash == owner).map(|(_, stream)| stream)
    }

    /// Points that were passed in every pipe.
    fn pass_points(&mut self, now: Now, out: &mut Outcome) {
        while self.apart.as_ref().is_none_or(|apart| apart.due()) {
            let Some(point) = self.source.passed() else { return };
            let _ = self.apart.as_ref().map(|apart| apart.passed());
            self.pass_point(point, now, out);
        }
    }

    /// Moves `len` bytes of a stream, which lie in the transfer pipe, to the file; rotates on the way.
    pub(super) fn store(&mut self, desk: &mut Desk, (len, stream): (usize, u32), now: Now, out: &mut Outcome) {
        self.match_live(desk, len, out);
        let mut left = len;
        while left > 0 && self.has_room(now, out) {
            if (self.log.is_none() && !self.ready_file(now, out)) || (self.dropped > 0 && !self.tell_dropped(now, out))
            {
                break;
            }
            let skipped = self.skip(desk, left, now, out);
            if skipped > 0 {
                left -= skipped;
                continue;
            }
            let Some(take) = self.fit(desk, left, now, out) else { continue };
            let Some(log) = &mut self.log else { continue };
            let stamped = log.stamp(now.wall, stream);
            // The copy to hob's own streams must know which one it is.
            let stored = if self.copied && self.apart.is_some() { stamped } else { Ok(()) };
            match stored.and_then(|()| log.store(desk.content_pipe(), take)) {
                Ok(0) => break,
                Ok(n) => {
                    left -= n;
                    self.guard.wrote(n);
                    self.position = log.position();
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) => {
                    out.notes.push(self.cannot_write(&e));
                    break;
                }
            }
        }
        if left > 0 {
            self.pass_beside(desk, (left, stream));
            self.set_dropped(self.dropped + left as u64);
        }
    }

    /// Takes bytes that the file cannot take out of the transfer pipe. Where they are copied to hob's own streams, they
    /// still come out there.
    fn pass_beside(&self, desk: &mut Desk, (len, stream): (usize, u32)) {
        if !self.copied {
            return desk.discard(len);
        }
        // While the file was never open, all that an earlier daemon put there comes first.
        let known = self.is_known() || self.words.copied() == 0;
        let position = if known { self.position } else { self.share.spans().map_or(self.position, |s| s.end) };
        desk.take_out(len, |bytes| self.share.pass_beside(position, stream, bytes));
    }

    fn match_live(&mut self, desk: &mut Desk, len: usize, out: &mut Outcome) {
        let Some(watch) = self.watch.as_mut().filter(|w| matches!(w.at, At::Live)) else { return };
        if len == 0 {
            return;
        }
        match desk.peek(len) {
            Some(bytes) if watch.feed(bytes) => {
                out.facts.push(Fact::Ready(watch.run));
                self.watch = None;
            }
            Some(_) => {}
            // Where bytes cannot be looked at on their way, they are read back.
            None => watch.at = At::Back(Cursor::new(self.position)),
        }
    }

    /// Throws away what would fill small files only to be removed with them by what comes behind it: how many of `left`
    /// bytes. They count as written, and whoever reads finds a gap.
    fn skip(&mut self, desk: &mut Desk, left: usize, now: Now, out: &mut Outcome) -> usize {
        let LogSpec { max_size, max_files, keep_head, .. } = self.spec;
        let keep = max_size.saturating_mul(max_files.min(FILES_AT_ONCE).into());
        let Some(beyond) = usize::try_from(keep).ok().and_then(|keep| left.checked_sub(keep)) else { return 0 };
        if max_size >= SMALL || beyond == 0 || self.rotate_again.is_some_and(|at| at > now.mono) {
            return 0;
        }
        let is_head = |share: &Share| share.spans().map_or(true, |spans| spans.files.len() < 2);
        if keep_head && is_head(&self.share) {
            return 0;
        }
        // What stays begins with a line, unless that is very long.
        let begin = match desk.peek(beyond).map(|bytes| bytes.iter().rposition(|b| *b == b'\n')) {
            Some(Some(end)) if beyond - end <= LINE_MAX => end + 1,
            Some(None) if beyond <= LINE_MAX => return 0,
            _ => beyond,
        };
        if self.log.as_ref().is_some_and(|log| log.size() > 0) && !self.rotate(now, out) {
            return 0;
        }
        desk.discard(begin);
        // The empty file is opened again, to begin behind the gap.
        self.position += begin as u64;
        self.log = None;
        self.open_again = None;
        begin
    }

    /// How many of `left` bytes go to the present file; `None` when another file was begun, to ask again.
    fn fit(&mut self, desk: &mut Desk, left: usize, now: Now, out: &mut Outcome) -> Option<usize> {
        let log = self.log.as_mut()?;
        if log.size().saturating_add(left as u64) <= self.spec.max_size {
            return Some(left);
        }
        if self.rotate_again.is_some_and(|at| at > now.mono) {
            return Some(left);
        }
        let take = cut(log, desk, left, self.spec.max_size);
        if take > 0 {
            return Some(take);
        }
        if self.rotate(now, out) { None } else { Some(left) }
    }

    /// Says in the log what is missing from it. False while there is no room for even that.
    pub(super) fn tell_dropped(&mut self, now: Now, out: &mut Outcome) -> bool {
        let full = self.log.as_ref().is_some_and(|log| log.size() >= self.spec.max_size);
        if full && self.rotate_again.is_none_or(|at| at <= now.mono) {
            self.rotate(now, out);
        }
        let Some(log) = &mut self.log else { return false };
        let begin = if log.at_line_end() { "" } else { "\n" };
        let text = format!("{begin}{}\n", dropped_text(self.dropped));
        let at = log.position();
        let mut write = || log.write(text.as_bytes()).map(|()| log.position());
        let written = if self.copied { self.share.skip_beside(at, write) } else { write().map(drop) };
        if written.is_err() {
            return false;
        }
        self.position = log.position();
        out.notes.push(format!("{} bytes of the output of {} were dropped", self.dropped, self.source.name));
        // A daemon that dies here tells it twice rather than not at all.
        self.set_dropped(0);
        self.recorded = 0;
        true
    }
}

/// How many of `left` bytes in the transfer pipe belong to this file, so that it ends with a line: 0 when none do. A
/// line that began in the file ends in it unless it goes beyond the cap by `LINE_MAX`.
fn cut(log: &LogFile, desk: &mut Desk, left: usize, max_size: u64) -> usize {
    let room = usize::try_from(max_size.saturating_sub(log.size())).unwrap_or(left).min(left);
    let over = usize::try_from(log.size().saturating_sub(max_size)).unwrap_or(usize::MAX);
    let is_end = |b: &u8| *b == b'\n';
    if room > 0
        && let Some(last) = desk.peek(room).and_then(|bytes| bytes.iter().rposition(is_end))
    {
        return last + 1;
    }
    if log.size() > 0 && log.at_line_end() {
        return 0;
    }
    let want = left.min(room.saturating_add(LINE_MAX.saturating_sub(over)));
    if want == 0 {
        return 0;
    }
    match desk.peek(want) {
        Some(bytes) => bytes.iter().position(is_end).map_or(bytes.len(), |at| at + 1),
        None => want,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Rig;
    use crate::config::spec::LogSpec;
    use crate::sys::pipe;

    fn rig(max_size: u64, max_files: u32, keep_head: bool) -> Rig {
        let mut rig = Rig::new(max_size, max_files);
        rig.writer.spec = LogSpec { keep_head, ..rig.spec.clone() };
        pipe::set_capacity(&rig.ends[0], 1 << 18).unwrap();
        rig
    }

    #[test]
    fn a_flood_into_small_files_makes_few_of_them_and_keeps_both_ends() {
        let lines: String = (1..=30_000).map(|n| format!("{n}\n")).collect();
        for (max_size, head) in [(1, true), (33, true), (1, false), (1000, false)] {
            let mut rig = rig(max_size, 3, head);
            let out = rig.write(lines.as_bytes());
            assert_eq!((out.moved, out.notes), (lines.len(), vec![]));
            let spans = rig.share.spans().unwrap();
            assert_eq!(spans.end, lines.len() as u64, "{max_size}");
            assert!((1..=3).contains(&spans.files.len()), "{max_size}: {spans:?}");
            // Each file says where it lies in all that was written.
            for (number, span) in (0u32..).zip(&spans.files) {
                let kept = std::fs::read_to_string(rig.names.log(number)).unwrap();
                let base = usize::try_from(span.base).unwrap();
                assert_eq!(Some(&*kept), lines.get(base..base + kept.len()), "{max_size}: file {number}");
                assert!(!kept.is_empty() && (kept.len() as u64 <= max_size.max(6)), "{max_size}: {kept:?}");
            }
            assert!(std::fs::read_to_string(rig.names.log(0)).unwrap().ends_with("30000\n"));
            assert_eq!(spans.files.last().unwrap().base == 0, head, "{max_size}");
            assert_eq!(super::super::tail::Spans::load(&rig.names).unwrap(), spans, "{max_size}: another daemon");
        }
    }

    #[test]
    fn a_turn_fills_few_files_however_many_are_kept() {
        let mut rig = rig(1, 40, false);
        std::io::Write::write_all(&mut rig.pipe, &b"y\n".repeat(50_000)).unwrap();
        let one = rig.turn();
        assert!(one.moved <= 4096 && one.again && !one.drained, "{one:?}");
        rig.drain();
        assert_eq!(rig.share.end(), Some(100_000));
        let mut rig = self::rig(4096, 1000, false);
        std::io::Write::write_all(&mut rig.pipe, &b"y\n".repeat(50_000)).unwrap();
        rig.turn();
        let one = rig.turn();
        assert!(one.moved == 4096 && one.again, "{one:?}");
        rig.drain();
        assert_eq!((rig.share.end(), rig.share.spans().unwrap().files.len()), (Some(100_000), 25), "nothing is lost");
    }
}
