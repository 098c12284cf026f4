//! `hob run -- CMD`: what the command writes also goes to hob's own stdout and stderr. A thread copies it from the log
//! file; capture takes no more from the pipes while it is far behind, so that the command waits as on a pipe.
//!
//! A daemon may be killed at any moment, and still nothing may be heard twice or not at all. So the bytes go by way of
//! a pipe that the keeper holds as well. A word of the run table says up to which position the log was put into it;
//! what still lies in it was not passed on. Where bytes cannot be moved from a pipe (to a file that is appended to, or
//! not on Linux), they are written instead, and a killed daemon's last chunk may come twice.
//!
//! What the file cannot take, as on a full disk, comes through the daemon's memory instead, each piece at its place
//! among the bytes of the file. Of that a killed daemon loses what it has not passed on.

use super::desk::Words;
use super::marks;
use super::tail::{Beside, Cursor, Next, Part, Share};
use crate::base::time::Mono;
use crate::sys::{logfile, pipe};
use core::time::Duration;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};

/// Passed on at once, and how much the pipe on the way should take.
pub const CHUNK: usize = 64 * 1024;
/// How long the thread waits before it looks whether it is to end.
const LOOK: Duration = Duration::from_secs(3600);
/// The pause after a failure.
const AGAIN: Duration = Duration::from_millis(100);
/// How long a reader is waited for before looking again.
const ROOM: Duration = Duration::from_secs(1);

/// Set in the word while the pipe is being filled: what lies in it then is beyond the word's position.
pub const FILLING: u64 = 1 << 63;

/// What the copy tells the loop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// It has come on, and the command may be read again.
    CameOn,
    /// Nobody reads hob's stdout any more, or its stderr.
    Gone(Way),
    /// It cannot go on now, and tries again.
    Trouble(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Out,
    Err,
}

/// Where the copy goes.
#[derive(Debug)]
pub struct Ways {
    pub out: OwnedFd,
    /// `None` where stdout takes both.
    pub err: Option<OwnedFd>,
    /// The pipe on the way.
    pub by: Option<(OwnedFd, OwnedFd)>,
}

impl Ways {
    /// hob's own stdout and stderr. Where both lead to the same place, the order of what is written there matters more
    /// than by which of them, so they are one.
    ///
    /// # Errors
    /// EMFILE.
    pub fn own() -> io::Result<Ways> {
        let out = io::stdout().as_fd().try_clone_to_owned()?;
        let err = io::stderr().as_fd().try_clone_to_owned()?;
        let place = |fd: &OwnedFd| {
            let meta = File::from(fd.try_clone()?).metadata()?;
            io::Result::Ok((meta.dev(), meta.ino(), meta.rdev()))
        };
        let apart = place(&out)? != place(&err)?;
        Ok(Ways { out, err: apart.then_some(err), by: None })
    }
}

/// The copying thread.
pub struct Copy {
    share: Arc<Share>,
    words: Arc<dyn Words>,
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    /// End as soon as all that is on file was copied.
    quit: AtomicBool,
    ended: AtomicBool,
}

impl core::fmt::Debug for Copy {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Copy").field("copied", &self.words.copied()).finish_non_exhaustive()
    }
}

impl Copy {
    /// Copies this log from where the table and the pipe on the way say an earlier daemon came to. `tell` is called
    /// from the thread.
    ///
    /// # Errors
    /// When no thread can be started, or a descriptor cannot be prepared.
    pub fn start(
        share: Arc<Share>,
        words: Arc<dyn Words>,
        ways: Ways,
        tell: impl Fn(Told) + Send + 'static,
    ) -> io::Result<Copy> {
        let state = Arc::new(State::default());
        let by = ways.by.map(|(read, write)| By { read, write: File::from(write) });
        let out = Outlet::new(ways.out, by.as_ref());
        let err = ways.err.map(|fd| Outlet::new(fd, by.as_ref()));
        let thread = {
            let (share, words, state) = (Arc::clone(&share), Arc::clone(&words), Arc::clone(&state));
            Builder::new().name("hob-copy".into()).stack_size(128 * 1024).spawn(move || {
                Copier { share, words, state: &state, out, err, by, tell: &tell, troubled: false }.run();
                state.ended.store(true, Ordering::Release);
            })?
        };
        Ok(Copy { share, words, state, thread: Some(thread) })
    }

    /// Waits until all that is on file was copied, but no longer than `limit`. False when something is left.
    pub fn finish(&mut self, limit: Duration, clock: impl Fn() -> Mono) -> bool {
        self.state.quit.store(true, Ordering::Release);
        let until = clock() + limit;
        while !self.state.ended.load(Ordering::Acquire) {
            if clock() >= until {
                return false;
            }
            self.share.wake();
            std::thread::sleep(Duration::from_millis(1));
        }
        self.thread.take().is_none_or(|thread| thread.join().is_ok())
    }
}

/// The pipe on the way.
struct By {
    read: OwnedFd,
    write: File,
}

/// One of hob's own streams.
struct Outlet {
    file: File,
    /// Bytes can be moved there from a pipe.
    takes: bool,
    gone: bool,
}

impl Outlet {
    fn new(fd: OwnedFd, by: Option<&By>) -> Outlet {
        // Nothing lies in the pipe mostly, so that this only asks. Where something does, this way was taken before.
        let takes = by.is_some_and(|by| {
            pipe::waiting(&by.read).is_ok_and(|n| n > 0) || !refuses(&pipe::pass_on(&by.read, fd.as_fd(), 1))
        });
        Outlet { file: File::from(fd), takes, gone: false }
    }
}

fn refuses(moved: &io::Result<usize>) -> bool {
    let refused = |e: &io::Error| matches!(e.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported);
    moved.as_ref().is_err_and(refused)
}

/// The copying, in its thread.
struct Copier<'a> {
    share: Arc<Share>,
    words: Arc<dyn Words>,
    state: &'a State,
    out: Outlet,
    err: Option<Outlet>,
    by: Option<By>,
    tell: &'a dyn Fn(Told),
    /// What goes wrong now was told.
    troubled: bool,
}

impl Copier<'_> {
    /// Copies until it is told to quit and nothing is left.
    fn run(&mut self) {
        let Some(begin) = self.begin() else { return };
        let mut cursor = Cursor::new(begin);
        loop {
            let from = cursor.position;
            match self.step(&mut cursor) {
                Ok(true) => self.troubled = false,
                Ok(false) if self.quits() => match self.share.take_beside(u64::MAX) {
                    Some(beside) => self.pass_beside(beside, &mut cursor),
                    None => return,
                },
                Ok(false) => self.share.wait(cursor.position, LOOK),
                Err(e) => {
                    cursor = Cursor::new(from);
                    self.trouble(&format!("the log cannot be read back now, and goes on later: {e}"));
                }
            }
            if self.share.take_held_back() {
                (self.tell)(Told::CameOn);
            }
        }
    }

    /// Passes on what is next. False at the end of all.
    fn step(&mut self, cursor: &mut Cursor) -> io::Result<bool> {
        let from = cursor.position;
        match self.share.next(from)? {
            Next::Beside(beside) => {
                self.pass_beside(beside, cursor);
                Ok(true)
            }
            Next::File(until) => {
                let part = self.share.read(cursor, until, CHUNK)?;
                self.pass_part(from, cursor, part)
            }
        }
    }

    /// Passes on what does not lie in the file. It is in no daemon's memory but this one's, so there is no use in the
    /// pipe on the way.
    fn pass_beside(&mut self, beside: Beside, cursor: &mut Cursor) {
        match beside {
            Beside::Bytes(stream, bytes) => self.write_all(self.way(stream), &bytes),
            Beside::Skip(end) => {
                cursor.position = cursor.position.max(end);
                self.words.set_copied(cursor.position + 1);
            }
        }
    }

    fn quits(&self) -> bool {
        self.state.quit.load(Ordering::Acquire)
    }

    /// Where to begin, after what an earlier daemon left on the way was passed on; `None` when there is nothing to do.
    fn begin(&mut self) -> Option<u64> {
        // The writer of the log sets the first mark when it opens the file.
        while self.words.copied() == 0 {
            match self.share.take_beside(0) {
                Some(beside) => {
                    self.pass_beside(beside, &mut Cursor::new(0));
                    if self.share.take_held_back() {
                        (self.tell)(Told::CameOn);
                    }
                }
                None if self.quits() => return None,
                None => self.share.wait(u64::MAX, LOOK),
            }
        }
        let word = self.words.copied();
        let mark = (word & !FILLING).max(1);
        let left = self.by.as_ref().map_or(0, |by| pipe::waiting(&by.read).unwrap_or(0));
        let end = if word & FILLING == 0 { mark } else { mark + left as u64 };
        self.words.set_copied(end);
        if left > 0 {
            let begin = (end - 1).saturating_sub(left as u64);
            let stream = loop {
                match marks::cut(&self.share, begin, vec![0; left]) {
                    Ok(pieces) => break pieces.first().map_or(0, |p| p.stream),
                    Err(e) => self.trouble(&format!("the index of the log cannot be read now: {e}")),
                }
                if self.quits() {
                    return None;
                }
            };
            self.drain(self.way(stream));
        }
        Some(end - 1)
    }

    fn way(&self, stream: u32) -> Way {
        if stream == 2 && self.err.is_some() { Way::Err } else { Way::Out }
    }

    fn outlet(&mut self, way: Way) -> &mut Outlet {
        match &mut self.err {
            Some(err) if way == Way::Err => err,
            _ => &mut self.out,
        }
    }

    /// Passes on what was read. False at the end of the log.
    fn pass_part(&mut self, from: u64, cursor: &Cursor, part: Part) -> io::Result<bool> {
        match part {
            Part::End => return Ok(false),
            Part::Gap(_) => self.words.set_copied(cursor.position + 1),
            Part::Bytes(bytes) if self.err.is_none() => self.pass(Way::Out, from, &bytes),
            Part::Bytes(bytes) => {
                for piece in marks::cut(&self.share, from, bytes)? {
                    self.pass(self.way(piece.stream), piece.position, &piece.bytes);
                }
            }
        }
        Ok(true)
    }

    /// Passes on bytes that begin at this position, however long it takes; where nobody reads, they are left out.
    fn pass(&mut self, way: Way, from: u64, bytes: &[u8]) {
        let (mut at, mut rest) = (from, bytes);
        while !rest.is_empty() {
            let outlet = self.outlet(way);
            let n = if outlet.gone {
                rest.len()
            } else if outlet.takes {
                self.words.set_copied((at + 1) | FILLING);
                self.by.as_mut().map_or(0, |by| by.write.write(rest).unwrap_or(0))
            } else {
                self.write(way, rest)
            };
            at += n as u64;
            self.words.set_copied(at + 1);
            rest = rest.get(n..).unwrap_or_default();
            self.drain(way);
        }
    }

    /// Empties the pipe on the way.
    fn drain(&mut self, way: Way) {
        loop {
            let Some(by) = &self.by else { return };
            let left = pipe::waiting(&by.read).unwrap_or(0);
            if left == 0 {
                return;
            }
            let outlet = match &self.err {
                Some(err) if way == Way::Err => err,
                _ => &self.out,
            };
            if outlet.gone || !outlet.takes {
                let mut bytes = vec![0; left];
                let n = pipe::read(&by.read, &mut bytes).unwrap_or(0);
                self.write_all(way, bytes.get(..n).unwrap_or_default());
                continue;
            }
            let moved = pipe::pass_on(&by.read, outlet.file.as_fd(), left);
            if refuses(&moved) {
                self.outlet(way).takes = false;
            } else {
                self.went(way, moved);
            }
        }
    }

    /// Writes all, however long it takes, unless nobody reads.
    fn write_all(&mut self, way: Way, mut rest: &[u8]) {
        while !self.outlet(way).gone && !rest.is_empty() {
            let n = self.write(way, rest);
            rest = rest.get(n..).unwrap_or_default();
        }
    }

    /// One plain write; how much was taken.
    fn write(&mut self, way: Way, bytes: &[u8]) -> usize {
        let written = self.outlet(way).file.write(bytes);
        let written = if matches!(written, Ok(0)) { Err(io::ErrorKind::WriteZero.into()) } else { written };
        self.went(way, written)
    }

    /// What came of passing on: how much went, after waiting where there was no room.
    fn went(&mut self, way: Way, result: io::Result<usize>) -> usize {
        let failed = match result {
            Ok(n) => {
                self.troubled = false;
                return n;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => return 0,
            // Also where somebody made it non-blocking.
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                logfile::writable(self.outlet(way).file.as_fd(), ROOM).err()
            }
            Err(e) => Some(e),
        };
        match failed {
            None => {}
            // Once the command is over, hob does not stay for a disk that may be full for ever.
            Some(e) if logfile::is_full(&e) && self.quits() => {
                self.outlet(way).gone = true;
                (self.tell)(Told::Trouble(format!(
                    "the last output is not passed on to hob's own {}: {e}",
                    way.name()
                )));
            }
            Some(e) if logfile::is_full(&e) => {
                self.trouble(&format!("cannot write to hob's own {}, trying again: {e}", way.name()));
            }
            Some(_) => {
                self.outlet(way).gone = true;
                (self.tell)(Told::Gone(way));
            }
        }
        0
    }

    /// Tells what goes wrong, once, and waits a little.
    fn trouble(&mut self, text: &str) {
        if !core::mem::replace(&mut self.troubled, true) {
            (self.tell)(Told::Trouble(text.to_owned()));
        }
        std::thread::sleep(AGAIN);
    }
}

impl Way {
    /// Its name for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Way::Out => "standard output",
            Way::Err => "standard error",
        }
    }
}
