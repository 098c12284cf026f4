//! The current file of one log: where the next byte goes, and which cumulative position that is. Lives in the lane of
//! files.

use super::index::{Index, Record, What};
use super::rotate::{Names, end_of_old, interrupted, is_renamed, renamed, shift};
use crate::base::ids::RunId;
use crate::base::time::Wall;
use crate::sys::file::remove;
use crate::sys::file::{self, How};
use crate::sys::logfile;
use crate::sys::pipe;
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};

/// An index gets a record for output at most this often, in milliseconds.
const STAMP_MS: i64 = 1000;

/// A log file that is open for writing. Nobody else is expected to write to it, but whoever cuts, removes or lengthens
/// it does no harm.
#[derive(Debug)]
pub struct LogFile {
    names: Names,
    file: File,
    index: Index,
    /// Cumulative position of the first byte.
    base: u64,
    size: u64,
    /// The time and the stream of the last record.
    stamped: Option<(Wall, u32)>,
    /// When it was last looked whether its name still leads to it.
    looked: Wall,
    /// Bytes lie behind the end that the next write is to replace.
    beyond: bool,
    /// The file has left its name and its successor could not be completed: it is to be opened anew.
    pub lost: bool,
}

impl LogFile {
    /// Opens the current file, making it and its folder when they are missing, and completes a rotation that a daemon
    /// began before it died. Positions go on where they were, and not before `at_least`.
    ///
    /// # Errors
    /// What the calls answer; then there is no place to write to.
    pub fn open(names: &Names, wall: Wall, at_least: u64) -> io::Result<LogFile> {
        if let Some(folder) = names.folder() {
            logfile::make_folder(folder)?;
        }
        let index = Index::open(&names.index(0))?;
        let file = match file::open(&names.log(0), How::Write, 0o600) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let known = index.map_or(0, |i| i.last.position).max(end_of_old(names, 1)?);
                return LogFile::create(names, wall, known.max(at_least));
            }
            Err(e) => return Err(e),
        };
        let meta = file.metadata()?;
        if interrupted(names, index.as_ref(), meta.len())? {
            // Nothing is removed here; the next rotation does that.
            shift(names, u32::MAX, false)?;
            let known = index.map_or(0, |i| i.last.position).max(end_of_old(names, 1)?);
            return LogFile::create(names, wall, known.max(at_least));
        }
        let written = Wall(meta.mtime().saturating_mul(1000));
        let size = meta.len();
        let (index, base) = match index {
            Some(index) => {
                let base = index.first.position;
                let end = base.saturating_add(size).max(index.last.position).max(at_least);
                if end == base.saturating_add(size) {
                    (index, base)
                } else {
                    let base = Record { position: end - size, what: index.first.what };
                    (Index::replace(&names.index(0), base, Some(Record::output(wall, end)))?, base.position)
                }
            }
            None => {
                let base = end_of_old(names, 1)?.max(at_least.saturating_sub(size));
                (Index::replace(&names.index(0), Record::output(written, base), None)?, base)
            }
        };
        let (names, stamped, looked) = (names.clone(), None, wall);
        Ok(LogFile { names, file, index, base, size, stamped, looked, beyond: false, lost: false })
    }

    /// Makes an empty file whose first byte has this position. It takes the place of an old one of its name.
    fn create(names: &Names, wall: Wall, base: u64) -> io::Result<LogFile> {
        let file = LogFile::fresh(names)?;
        std::fs::rename(names.fresh(), names.log(0))?;
        let index = Index::replace(&names.index(0), Record::output(wall, base), None)?;
        Ok(LogFile {
            names: names.clone(),
            file,
            index,
            base,
            size: 0,
            stamped: Some((wall, 0)),
            looked: wall,
            beyond: false,
            lost: false,
        })
    }

    fn fresh(names: &Names) -> io::Result<File> {
        remove(&names.fresh())?;
        file::open(&names.fresh(), How::New, 0o600)
    }

    /// The position of the next byte.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.base.saturating_add(self.size)
    }

    #[must_use]
    pub fn base(&self) -> u64 {
        self.base
    }

    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Device and inode, by which a reader knows the file under any name.
    ///
    /// # Errors
    /// What fstat(2) answers.
    pub fn identity(&self) -> io::Result<(u64, u64)> {
        let meta = self.file.metadata()?;
        Ok((meta.dev(), meta.ino()))
    }

    /// Looks what others did to the file since the last burst. True when positions of its bytes have changed, because
    /// somebody cut it or removed it, or when it goes on in another because somebody renamed it, which is looked for
    /// once a second, or now because a reader has missed it.
    ///
    /// # Errors
    /// What opening the file anew answers.
    pub fn check(&mut self, wall: Wall, missed: bool) -> io::Result<bool> {
        if core::mem::take(&mut self.beyond) {
            self.file.set_len(self.size)?;
        }
        let meta = self.file.metadata()?;
        if meta.nlink() == 0 || self.is_renamed(&meta, wall, missed) {
            self.size = self.size.max(meta.len());
            self.let_go(&meta, wall)?;
            *self = LogFile::open(&self.names, wall, self.position())?;
            return Ok(true);
        }
        let cut = meta.len() < self.size;
        if cut {
            let end = self.position();
            let base = Record { position: end - meta.len(), what: self.index.first.what };
            self.index = Index::replace(&self.names.index(0), base, Some(Record::output(wall, end)))?;
            self.base = base.position;
            self.stamped = Some((wall, 0));
        }
        self.size = meta.len();
        Ok(cut)
    }

    /// Whether somebody renamed it, asked once a second, or `now`.
    fn is_renamed(&mut self, meta: &Metadata, wall: Wall, now: bool) -> bool {
        if !now && (0..STAMP_MS).contains(&wall.0.saturating_sub(self.looked.0)) {
            return false;
        }
        self.looked = wall;
        is_renamed(&self.names, meta)
    }

    /// The file has another name now. Where that is the one it would have got by a rotation, as tools that rotate logs
    /// give it too, what is known of it goes along.
    fn let_go(&mut self, meta: &Metadata, wall: Wall) -> io::Result<()> {
        let first = self.names.log(1).symlink_metadata();
        if !first.is_ok_and(|m| (m.dev(), m.ino()) == (meta.dev(), meta.ino())) {
            return Ok(());
        }
        let end = Record { position: self.position(), what: What::End { wall } };
        self.index.append(end, || self.names.index(0))?;
        renamed(&self.names)
    }

    /// Notes the time and the stream in the index, unless the same stream was noted within the last second.
    ///
    /// # Errors
    /// What writing to the index answers, where the index now tells of another stream. Where it is of the same, a
    /// failure costs nothing but the time of some lines, and is made good by the next record.
    pub fn stamp(&mut self, wall: Wall, stream: u32) -> io::Result<()> {
        let recent =
            self.stamped.is_some_and(|(at, s)| s == stream && (0..STAMP_MS).contains(&wall.0.saturating_sub(at.0)));
        let record = Record { position: self.position(), what: What::Output { wall, stream } };
        if recent {
            return Ok(());
        }
        match self.index.append(record, || self.names.index(0)) {
            Ok(()) => self.stamped = Some((wall, stream)),
            Err(_) if self.stamped.is_some_and(|(_, s)| s == stream) => {}
            Err(e) => return Err(e),
        }
        Ok(())
    }

    /// Goes back to this position, if it lies in the file: the next `write` takes the place of all that follows. Until
    /// then that stays, because readers may have been told of it, and what is written again is mostly the same.
    pub fn go_back(&mut self, position: u64) {
        if (self.base..self.position()).contains(&position) {
            self.size = position - self.base;
            self.beyond = true;
        }
    }

    /// When the first byte was written, or so.
    ///
    /// # Errors
    /// What reading the index answers.
    pub fn first_written(&self) -> io::Result<Option<Wall>> {
        let records = self.index.around(self.base, self.base)?;
        Ok(records.first().and_then(|r| if let What::Output { wall, .. } = r.what { Some(wall) } else { None }))
    }

    /// Free bytes of the file system, and how large it is.
    ///
    /// # Errors
    /// What fstatvfs(3) answers.
    pub fn space(&self) -> io::Result<(u64, u64)> {
        file::space(&self.file)
    }

    /// Notes that the output of a run begins here.
    ///
    /// # Errors
    /// What writing to the index answers.
    pub fn begin_run(&mut self, run: RunId) -> io::Result<()> {
        self.index.append(Record { position: self.position(), what: What::Run(run) }, || self.names.index(0))
    }

    #[must_use]
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Moves up to `len` bytes from a pipe to the end of the file.
    ///
    /// # Errors
    /// What splice(2) answers; then nothing was moved.
    pub fn store(&mut self, from: &OwnedFd, len: usize) -> io::Result<usize> {
        let moved = pipe::store(from, self.file.as_fd(), self.size, len)?;
        self.size += moved as u64;
        Ok(moved)
    }

    /// Writes a few bytes of hob's own, all or nothing.
    ///
    /// # Errors
    /// What write(2) answers.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let end = self.size + bytes.len() as u64;
        let beyond = core::mem::take(&mut self.beyond);
        let written = self.file.write_all_at(bytes, self.size);
        if let Err(e) = written.and_then(|()| if beyond { self.file.set_len(end) } else { Ok(()) }) {
            self.file.set_len(self.size)?;
            return Err(e);
        }
        self.size = end;
        Ok(())
    }

    /// What lies between this position and the end, but no more than the last `most` bytes; `None` when it does not
    /// all lie in this file.
    #[must_use]
    pub fn end_from(&self, from: u64, most: u64) -> Option<Vec<u8>> {
        let begin = from.max(self.position().saturating_sub(most)).checked_sub(self.base)?;
        let mut bytes = vec![0; usize::try_from(self.size.checked_sub(begin)?).ok()?];
        self.file.read_exact_at(&mut bytes, begin).ok()?;
        Some(bytes)
    }

    /// Whether the next byte begins a line. An unreadable file counts as if it did.
    #[must_use]
    pub fn at_line_end(&self) -> bool {
        let mut last = [b'\n'];
        self.size == 0 || self.file.read_exact_at(&mut last, self.size - 1).is_err() || last[0] == b'\n'
    }

    /// Goes over to a new file, and keeps `keep` with it, the first of all among them with `head`. On failure the old
    /// one goes on, unless `lost` is set.
    ///
    /// # Errors
    /// What open(2), rename(2) and write(2) answer.
    pub fn rotate(&mut self, (keep, head): (u32, bool), wall: Wall) -> io::Result<()> {
        let end = self.position();
        let file = LogFile::fresh(&self.names)?;
        self.index.append(Record { position: end, what: What::End { wall } }, || self.names.index(0))?;
        if let Err(e) = shift(&self.names, keep, head) {
            // Of two records at one position the last wins: this is not the end after all.
            self.index.append(Record::output(wall, end), || self.names.index(0))?;
            return Err(e);
        }
        self.lost = true;
        std::fs::rename(self.names.fresh(), self.names.log(0))?;
        self.index = Index::replace(&self.names.index(0), Record::output(wall, end), None)?;
        self.file = file;
        self.base = end;
        self.size = 0;
        self.stamped = Some((wall, 0));
        self.lost = false;
        Ok(())
    }
}
