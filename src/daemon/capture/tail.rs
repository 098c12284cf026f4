//! Reading a log back by cumulative position, over its rotated files, while it is being written and rotated.
//!
//! Files are known by device and inode: a file that was opened under one name and moved meanwhile still has its
//! positions.

use super::index::Index;
use super::rotate::{Names, end_of_old, interrupted};
use super::zip;
use crate::base::limits::{LAST_LINE_BYTES, LAST_LINES};
use crate::sys::file::{self, How};
use core::time::Duration;
use std::collections::VecDeque;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};

/// How far back lines are counted at most, and how much is read for it at once.
const SCAN_MAX: u64 = 32 * 1024 * 1024;
const SCAN_BLOCK: u64 = 64 * 1024;
/// How far back the last lines of a run are looked for.
pub const LAST_BYTES: u64 = SCAN_BLOCK;
/// Kept of what goes beside the file in one piece, and what a piece is counted for beside its bytes.
const BESIDE_PIECE: usize = 64 * 1024;
const BESIDE_COST: usize = 64;
/// Old files looked at beyond a missing one.
const MISSING_MAX: u32 = 2;

/// Device and inode.
pub type FileId = (u64, u64);

pub(super) fn id_of(meta: &Metadata) -> FileId {
    (meta.dev(), meta.ino())
}

/// One file of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub id: FileId,
    /// Cumulative position of its first byte.
    pub base: u64,
}

/// All files of one log, newest first, and the position after the last byte.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spans {
    pub files: Vec<Span>,
    pub end: u64,
}

impl Spans {
    /// Looks at the files by their indexes.
    ///
    /// # Errors
    /// What open(2) and read(2) answer, other than that something is missing.
    pub fn load(names: &Names) -> io::Result<Spans> {
        let mut spans = Spans::default();
        let (mut number, mut missing) = (0, 0);
        while missing < MISSING_MAX {
            let Some((file, packed)) = open_number(names, number)? else {
                missing += 1;
                number += 1;
                continue;
            };
            let meta = file.metadata()?;
            let size = if packed { zip::size(&file)? } else { meta.len() };
            let mut index = Index::read(&names.index(number))?;
            if index.is_none() && number == 0 && interrupted(names, None, size)? {
                index = Index::read(&names.index(1))?;
            }
            let newer = spans.files.last().map(|s| s.base);
            let base = match (index.as_ref().map(|i| i.first.position), newer) {
                // The index of a file that this one was to replace, unless it ends here.
                (Some(base), None) => index.and_then(|i| i.end()).map_or(base, |end| end.saturating_sub(size)),
                (None, None) => end_of_old(names, number + 1)?,
                (Some(base), Some(newer)) if base <= newer => base,
                (_, Some(newer)) => newer.saturating_sub(size),
            };
            if spans.files.is_empty() {
                spans.end = base.saturating_add(size);
            }
            spans.files.push(Span { id: id_of(&meta), base });
            missing = 0;
            number += 1;
        }
        if spans.files.is_empty() {
            spans.end = end_of_old(names, 0)?;
        }
        spans.files.shrink_to_fit();
        Ok(spans)
    }

    /// The same after `before`, with the first file in the place of one that somebody has renamed or removed: positions
    /// go on, and the files that are still there keep theirs.
    #[must_use]
    pub fn after(mut self, before: &Spans) -> Spans {
        let Some((first, old)) = self.files.split_first_mut() else { return before.clone() };
        let size = self.end.saturating_sub(first.base);
        let same = before.files.first().filter(|f| f.id == first.id);
        first.base = same.map_or(before.end, |f| f.base);
        self.end = first.base.saturating_add(size);
        for file in old {
            // One that is not known is of nobody's log.
            file.base = before.files.iter().find(|f| f.id == file.id).map_or(u64::MAX, |f| f.base);
        }
        self.files.retain(|f| f.base < u64::MAX);
        self
    }

    /// The file that contains this position, and the position after its last byte.
    fn find(&self, position: u64) -> Option<(usize, Span, u64)> {
        let at = self.files.iter().position(|s| s.base <= position)?;
        let end = if at == 0 { self.end } else { self.files[at - 1].base };
        Some((at, self.files[at], end))
    }
}

/// What the writer of a log shares with its readers in the same daemon.
#[derive(Debug)]
pub struct Share {
    names: Names,
    state: Mutex<State>,
    changed: Condvar,
    /// The writer waits for the copy to hob's own stdout.
    held_back: AtomicBool,
    /// A reader did not find the file that is written to under its name.
    missed: AtomicBool,
    /// What compressed files hold, as long as any reader has it open. It takes space on disk, so it is there once.
    unpacked: Mutex<Vec<(Span, Weak<File>)>>,
}

#[derive(Debug, Default)]
struct State {
    spans: Option<Spans>,
    /// What is for the copy to hob's own stdout alone, by position.
    beside: VecDeque<(u64, Beside)>,
    /// Threads in `wait`; telling nobody costs nothing.
    waiting: usize,
}

/// What the copy to hob's own stdout does at a position before it reads on in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Beside {
    /// It passes on bytes of this stream that the file could not take.
    Bytes(u32, Vec<u8>),
    /// It goes on at this position: what lies before that is hob's own word on what is missing from the file.
    Skip(u64),
}

/// What is next for the copy.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    Beside(Beside),
    /// The file, up to this position.
    File(u64),
}

/// A reader's place in a log.
#[derive(Debug)]
pub struct Cursor {
    pub position: u64,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    file: Arc<File>,
    span: Span,
    /// Of a compressed one: it takes space on disk, and took time to make.
    unpacked: bool,
}

impl State {
    fn take_beside(&mut self, position: u64) -> Option<Beside> {
        if self.beside.front()?.0 > position {
            return None;
        }
        let (_, taken) = self.beside.pop_front()?;
        if self.beside.is_empty() {
            self.beside = VecDeque::new();
        }
        Some(taken)
    }
}

impl Cursor {
    #[must_use]
    pub fn new(position: u64) -> Cursor {
        Cursor { position, open: None }
    }

    /// Nothing is read for a while: no file is kept open for that.
    pub fn rest(&mut self) {
        self.open = None;
    }

    /// The same for a moment: what was unpacked is kept. Answers whether anything is.
    #[must_use]
    pub fn pause(&mut self) -> bool {
        self.open.take_if(|open| !open.unpacked);
        self.open.is_some()
    }
}

/// What lies at a reader's place; the cursor has moved behind it.
#[derive(Debug, PartialEq, Eq)]
pub enum Part {
    Bytes(Vec<u8>),
    /// So many bytes are not there any more.
    Gap(u64),
    End,
}

impl Share {
    #[must_use]
    pub fn new(names: Names) -> Share {
        Share {
            names,
            state: Mutex::default(),
            changed: Condvar::new(),
            held_back: AtomicBool::new(false),
            missed: AtomicBool::new(false),
            unpacked: Mutex::default(),
        }
    }

    #[must_use]
    pub fn names(&self) -> &Names {
        &self.names
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Option<Spans>)) {
        let mut state = self.lock();
        change(&mut state.spans);
        if state.waiting > 0 {
            self.changed.notify_all();
        }
    }

    /// The writer looks at the files and completes what was begun; nobody looks them up in the middle of that.
    pub fn alone<T>(&self, change: impl FnOnce() -> T) -> T {
        let _state = self.lock();
        change()
    }

    /// The writer tells what there is now. Each change wakes those who wait.
    pub fn set(&self, spans: Spans) {
        self.change(|s| *s = Some(spans));
    }

    /// Somebody else has changed the files: they are looked at anew.
    pub fn forget(&self) {
        self.change(|s| *s = None);
    }

    /// The writer tells how far the log reaches now.
    pub fn set_end(&self, end: u64) {
        self.change(|s| s.iter_mut().for_each(|s| s.end = end));
    }

    /// The writer went over to a new file; so many are kept, the first of all among them with `head`.
    pub fn push(&self, id: FileId, base: u64, (keep, head): (u32, bool)) {
        self.change(|s| {
            for spans in s.iter_mut() {
                spans.files.insert(0, Span { id, base });
                let last = spans.files.len() - 1;
                if head && keep > 2 && u64::from(keep) <= last as u64 {
                    spans.files.swap(last - 1, last);
                }
                spans.files.truncate(usize::try_from(keep.max(1)).unwrap_or(usize::MAX));
                spans.end = base;
            }
        });
    }

    /// The writer puts another file with the same content into the place of one.
    ///
    /// # Errors
    /// What `replace` answers.
    pub(super) fn replace(&self, old: FileId, new: FileId, replace: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        // Whoever finds neither of them meanwhile looks here again.
        let mut state = self.lock();
        replace()?;
        for span in state.spans.iter_mut().flat_map(|s| &mut s.files).filter(|s| s.id == old) {
            span.id = new;
        }
        Ok(())
    }

    /// Wakes those who wait, to look at something else.
    pub fn wake(&self) {
        self.change(|_| {});
    }

    /// The writer will wait for the copy. It must look once more whether that has come on, after this.
    pub fn hold_back(&self) {
        self.held_back.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// Whether the writer waits; asked after the copy has come on.
    pub fn take_held_back(&self) -> bool {
        fence(Ordering::SeqCst);
        self.held_back.swap(false, Ordering::SeqCst)
    }

    /// Whether a reader has missed the file that is written to since this was asked last.
    pub(super) fn take_missed(&self) -> bool {
        self.missed.load(Ordering::Relaxed) && self.missed.swap(false, Ordering::Relaxed)
    }

    /// What there is, looked up on disk when nobody writes.
    ///
    /// # Errors
    /// What looking it up answers.
    pub fn spans(&self) -> io::Result<Spans> {
        self.found(&mut self.lock()).cloned()
    }

    fn found<'a>(&self, state: &'a mut State) -> io::Result<&'a Spans> {
        if state.spans.is_none() {
            state.spans = Some(Spans::load(&self.names)?);
        }
        state.spans.as_ref().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// The writer gives the copy what the file could not take at this position. To be called before anything behind
    /// that position is written to the file.
    pub fn pass_beside(&self, position: u64, stream: u32, bytes: &[u8]) {
        let mut state = self.lock();
        match state.beside.back_mut() {
            Some((at, Beside::Bytes(of, last)))
                if (*at, *of) == (position, stream) && last.len() + bytes.len() <= BESIDE_PIECE =>
            {
                last.extend_from_slice(bytes);
            }
            _ => state.beside.push_back((position, Beside::Bytes(stream, bytes.to_vec()))),
        }
        if state.waiting > 0 {
            self.changed.notify_all();
        }
    }

    /// The writer puts into the file, at this position, what is not for the copy; `write` answers where that ends.
    ///
    /// # Errors
    /// What `write` answers.
    pub fn skip_beside(&self, position: u64, write: impl FnOnce() -> io::Result<u64>) -> io::Result<()> {
        // Nobody learns meanwhile how far the file reaches.
        let mut state = self.lock();
        let end = write()?;
        state.beside.push_back((position, Beside::Skip(end)));
        Ok(())
    }

    /// How much memory is taken by what the copy is to take beside the file.
    #[must_use]
    pub fn beside(&self) -> usize {
        let cost = |(_, beside): &(u64, Beside)| match beside {
            Beside::Bytes(_, bytes) => bytes.len() + BESIDE_COST,
            Beside::Skip(_) => BESIDE_COST,
        };
        self.lock().beside.iter().map(cost).sum()
    }

    /// What the copy is to take before the byte at `position`, if anything is left of that.
    #[must_use]
    pub fn take_beside(&self, position: u64) -> Option<Beside> {
        self.lock().take_beside(position)
    }

    /// What is next for the copy at this position.
    ///
    /// # Errors
    /// As for `spans`.
    pub fn next(&self, position: u64) -> io::Result<Next> {
        let mut state = self.lock();
        if let Some(beside) = state.take_beside(position) {
            return Ok(Next::Beside(beside));
        }
        // Both at one moment: what comes to lie beside the file from now on is behind its present end.
        let end = self.found(&mut state)?.end;
        Ok(Next::File(state.beside.front().map_or(end, |(at, _)| end.min(*at))))
    }

    /// How far the log reaches; `None` before its writer or a reader has looked.
    #[must_use]
    pub fn end(&self) -> Option<u64> {
        self.lock().spans.as_ref().map(|s| s.end)
    }

    /// Waits until the log reaches beyond `position`, or the copy has something to take there, or something else
    /// happened, or `limit` is over.
    pub fn wait(&self, position: u64, limit: Duration) {
        let mut state = self.lock();
        if state.spans.as_ref().is_none_or(|s| s.end <= position)
            && state.beside.front().is_none_or(|(at, _)| *at > position)
        {
            state.waiting += 1;
            let mut state = self.changed.wait_timeout(state, limit).unwrap_or_else(PoisonError::into_inner).0;
            state.waiting -= 1;
        }
    }

    /// Reads up to `max` bytes at the cursor, and not beyond `until`.
    ///
    /// # Errors
    /// What open(2) and read(2) answer, other than that a file was moved or removed.
    pub fn read(&self, cursor: &mut Cursor, until: u64, max: usize) -> io::Result<Part> {
        let mut spans = self.spans()?;
        let end = loop {
            let until = until.min(spans.end);
            if cursor.position >= until {
                return Ok(Part::End);
            }
            match spans.find(cursor.position) {
                Some((_, span, end)) if cursor.open.as_ref().is_some_and(|o| o.span == span) => break end.min(until),
                Some((at, span, end)) => {
                    cursor.open = self.open(at, span)?;
                    spans = self.spans()?;
                    if spans.files.contains(&span) {
                        break end.min(until);
                    }
                    // It was removed or replaced meanwhile, and another file may have its inode.
                    cursor.open = None;
                }
                // Its file has lost its last name, but it may be open here.
                None => break spans.files.last().map_or(spans.end, |s| s.base).min(until),
            }
        };
        let want = usize::try_from(end - cursor.position).unwrap_or(max).min(max);
        let bytes = match &cursor.open {
            Some(Open { file, span, .. }) if span.base <= cursor.position => {
                read_at(file, cursor.position - span.base, want)?
            }
            _ => Vec::new(),
        };
        if bytes.is_empty() {
            let dropped = end - cursor.position;
            *cursor = Cursor::new(end);
            return Ok(Part::Gap(dropped));
        }
        cursor.position += bytes.len() as u64;
        Ok(Part::Bytes(bytes))
    }

    /// Opens a file wherever it has moved to. A rotation moves it to the next name, and may do so again meanwhile.
    fn open(&self, at: usize, span: Span) -> io::Result<Option<Open>> {
        let newest = at == 0;
        let at = u32::try_from(at).unwrap_or(u32::MAX);
        for number in at..at.saturating_add(4) {
            let Some((file, packed)) = open_number(&self.names, number)? else { continue };
            let meta = file.metadata()?;
            if id_of(&meta) == span.id {
                let file = if packed { self.unpack(file, span)? } else { Arc::new(file) };
                return Ok(Some(Open { file, span, unpacked: packed }));
            }
        }
        if newest {
            self.missed.store(true, Ordering::Relaxed);
        }
        Ok(None)
    }

    /// The content of a compressed file. Who comes while it is being unpacked waits for that.
    fn unpack(&self, file: File, span: Span) -> io::Result<Arc<File>> {
        let mut unpacked = self.unpacked.lock().unwrap_or_else(PoisonError::into_inner);
        unpacked.retain(|(_, file)| file.strong_count() > 0);
        if let Some(open) = unpacked.iter().find(|(of, _)| *of == span).and_then(|(_, file)| file.upgrade()) {
            return Ok(open);
        }
        let open = Arc::new(zip::open(file, &self.names, |file| file::space(file))?);
        unpacked.push((span, Arc::downgrade(&open)));
        Ok(open)
    }

    /// The files that are there unpacked.
    #[cfg(test)]
    pub(crate) fn unpacked(&self) -> Vec<u64> {
        let unpacked = self.unpacked.lock().unwrap_or_else(PoisonError::into_inner);
        unpacked.iter().filter_map(|(_, file)| Some(file.upgrade()?.metadata().ok()?.ino())).collect()
    }

    /// All that is there of a range, without gaps before it: the position it begins at, and its bytes.
    fn range(&self, cursor: &mut Cursor, from: u64, to: u64) -> io::Result<(u64, Vec<u8>)> {
        cursor.position = from;
        let (mut begin, mut all) = (from, Vec::new());
        loop {
            let left = usize::try_from(to.saturating_sub(cursor.position)).unwrap_or(usize::MAX);
            match self.read(cursor, to, left)? {
                Part::Bytes(bytes) => all.extend_from_slice(&bytes),
                Part::Gap(_) => {
                    all.clear();
                    begin = cursor.position;
                }
                Part::End => return Ok((begin, all)),
            }
        }
    }

    /// Where the last `lines` lines before `to` begin; an unfinished one counts. Bounded in how far it looks back.
    ///
    /// # Errors
    /// As for `read`.
    pub fn lines_back(&self, to: u64, lines: usize) -> io::Result<u64> {
        let oldest = self.spans()?.files.last().map_or(to, |s| s.base);
        let floor = oldest.max(to.saturating_sub(SCAN_MAX));
        // One for all parts, so that a compressed file is opened once.
        let mut cursor = Cursor::new(to);
        let (mut end, mut left) = (to, lines);
        if lines == 0 {
            return Ok(to);
        }
        while end > floor {
            let from = end.saturating_sub(SCAN_BLOCK).max(floor);
            let (begin, bytes) = self.range(&mut cursor, from, end)?;
            for (i, byte) in bytes.iter().enumerate().rev() {
                let position = begin + i as u64;
                // The newline at the very end closes the last line and begins none.
                if *byte == b'\n' && position + 1 != to {
                    left -= 1;
                    if left == 0 {
                        return Ok(position + 1);
                    }
                }
            }
            if begin > from {
                return Ok(begin);
            }
            end = from;
        }
        Ok(end)
    }

    /// The last lines that are not empty between two positions, for a run's record.
    ///
    /// # Errors
    /// As for `read`.
    pub fn last_lines(&self, from: u64, to: u64) -> io::Result<Vec<String>> {
        let (_, bytes) = self.range(&mut Cursor::new(from), from.max(to.saturating_sub(LAST_BYTES)), to)?;
        Ok(last_lines(&bytes))
    }
}

/// The last lines of a text that are not empty, for a run's record.
#[must_use]
pub fn last_lines(text: &[u8]) -> Vec<String> {
    let lines = text.rsplit(|b| *b == b'\n').map(short).filter(|line| !line.is_empty());
    let mut lines: Vec<String> = lines.take(LAST_LINES).collect();
    lines.reverse();
    lines
}

/// The file of this number, and whether it is compressed.
fn open_number(names: &Names, number: u32) -> io::Result<Option<(File, bool)>> {
    for packed in [false, true] {
        let path = if packed { names.packed(number) } else { names.log(number) };
        match file::open(&path, How::Read, 0o600) {
            Ok(file) => return Ok(Some((file, packed))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    Ok(None)
}

/// The beginning of a line as text of bounded length.
fn short(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line.get(..LAST_LINE_BYTES).unwrap_or(line));
    let text = if line.len() > LAST_LINE_BYTES { text.trim_end_matches('\u{fffd}') } else { &text };
    text.trim_end().to_owned()
}

fn read_at(file: &File, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    let n = loop {
        match file.read_at(&mut bytes, offset) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            other => break other?,
        }
    };
    bytes.truncate(n);
    Ok(bytes)
}
