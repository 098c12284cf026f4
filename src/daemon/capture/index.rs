//! The index beside each log file: when which part was written, and where the cumulative positions of the file begin.
//!
//! `NAME.log.idx` and `NAME.log.N.idx` hold records of 24 bytes: a wall time in milliseconds (or the number of a run),
//! a cumulative position, a kind, and a checksum over these. Positions never fall within a file. A record is written
//! before the bytes it describes; of two at one position the last wins, and one beyond the end of the file says
//! nothing.

use crate::base::ids::RunId;
use crate::base::time::Wall;
use crate::sys::file::remove;
use crate::sys::file::{self, How};
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Bytes of one record.
pub const RECORD: usize = 24;
/// Records looked at together.
const BLOCK: usize = 512;
/// Set beside a stream: each line begins with its time.
pub const STAMPED: u32 = 0x100;
/// Kinds below this are streams of output: 0 both in one, 1 and 2 stdout and stderr.
const END: u32 = 0xffff_fffe;
const RUN: u32 = 0xffff_ffff;

/// What a record says about its position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// From here on output of this stream, written at this time.
    Output { wall: Wall, stream: u32 },
    /// The first byte of this run's output.
    Run(RunId),
    /// The end of a file that was rotated away at this time.
    End { wall: Wall },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    pub position: u64,
    pub what: What,
}

impl Record {
    #[must_use]
    pub fn output(wall: Wall, position: u64) -> Record {
        Record { position, what: What::Output { wall, stream: 0 } }
    }

    #[must_use]
    pub fn encode(&self) -> [u8; RECORD] {
        let (first, kind) = match self.what {
            What::Output { wall, stream } => (wall.0.to_le_bytes(), stream),
            What::Run(run) => (run.0.to_le_bytes(), RUN),
            What::End { wall } => (wall.0.to_le_bytes(), END),
        };
        let mut bytes = [0; RECORD];
        bytes[..8].copy_from_slice(&first);
        bytes[8..16].copy_from_slice(&self.position.to_le_bytes());
        bytes[16..20].copy_from_slice(&kind.to_le_bytes());
        let sum = crc32fast::hash(&bytes[..20]);
        bytes[20..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// `None` for what was torn or damaged.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Record> {
        let (body, sum) = (bytes.get(..20)?, bytes.get(20..RECORD)?);
        if crc32fast::hash(body).to_le_bytes() != sum {
            return None;
        }
        let first: [u8; 8] = body.get(..8)?.try_into().ok()?;
        let position = u64::from_le_bytes(body.get(8..16)?.try_into().ok()?);
        let wall = Wall(i64::from_le_bytes(first));
        let what = match u32::from_le_bytes(body.get(16..20)?.try_into().ok()?) {
            RUN => What::Run(RunId(u64::from_le_bytes(first))),
            END => What::End { wall },
            stream => What::Output { wall, stream },
        };
        Some(Record { position, what })
    }
}

/// The index of one file. `first` is the base of the file's positions.
#[derive(Debug)]
pub struct Index {
    file: File,
    bytes: u64,
    pub first: Record,
    pub last: Record,
}

impl Index {
    /// Opens an index that can be used: its first record is whole. A torn or damaged tail is left out of account and
    /// overwritten by the next record.
    ///
    /// # Errors
    /// What open(2) and read(2) answer, other than that it is missing.
    pub fn open(path: &Path) -> io::Result<Option<Index>> {
        let file = match file::open(path, How::Write, 0o600) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        Index::of(file)
    }

    /// The same for reading only, without making a missing one.
    ///
    /// # Errors
    /// As for `open`.
    pub fn read(path: &Path) -> io::Result<Option<Index>> {
        match file::open(path, How::Read, 0o600) {
            Ok(file) => Index::of(file),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn of(file: File) -> io::Result<Option<Index>> {
        let size = file.metadata()?.len();
        let mut records = size / RECORD as u64;
        let at = |n: u64| -> io::Result<Option<Record>> {
            let mut bytes = [0; RECORD];
            file.read_exact_at(&mut bytes, n * RECORD as u64)?;
            Ok(Record::decode(&bytes))
        };
        if records == 0 {
            return Ok(None);
        }
        let Some(first) = at(0)? else { return Ok(None) };
        let last = loop {
            match at(records - 1)? {
                Some(last) if last.position >= first.position => break last,
                _ => records -= 1,
            }
        };
        let bytes = records * RECORD as u64;
        Ok(Some(Index { file, bytes, first, last }))
    }

    /// Puts a new index of these records in the place of what is there, at once or not at all.
    ///
    /// # Errors
    /// What open(2), write(2) and rename(2) answer.
    pub fn replace(path: &Path, first: Record, more: Option<Record>) -> io::Result<Index> {
        let mut fresh = path.as_os_str().to_owned();
        fresh.push(".new");
        let fresh = PathBuf::from(fresh);
        remove(&fresh)?;
        let file = file::open(&fresh, How::New, 0o600)?;
        let mut index = Index { file, bytes: 0, first, last: first };
        index.push(first)?;
        if let Some(record) = more {
            index.push(record)?;
        }
        std::fs::rename(&fresh, path)?;
        Ok(index)
    }

    /// Where the file ended when it was to be replaced, if it was.
    #[must_use]
    pub fn end(&self) -> Option<u64> {
        matches!(self.last.what, What::End { .. }).then_some(self.last.position)
    }

    fn push(&mut self, record: Record) -> io::Result<()> {
        self.file.write_all_at(&record.encode(), self.bytes)?;
        self.bytes += RECORD as u64;
        self.last = record;
        Ok(())
    }

    /// Adds a record, or puts it in the place of the last when that says the same kind of thing about the same
    /// position: what starts over and over without a word does not make the index grow. An index that somebody cut or
    /// removed meanwhile is made anew at `path`, with its base and this record.
    ///
    /// # Errors
    /// What write(2) answers; a part that was written counts for nothing.
    pub fn append(&mut self, record: Record, path: impl FnOnce() -> PathBuf) -> io::Result<()> {
        let meta = self.file.metadata()?;
        if meta.nlink() == 0 || meta.len() < self.bytes {
            *self = Index::replace(&path(), self.first, Some(record))?;
            return Ok(());
        }
        let same = |a: What, b: What| core::mem::discriminant(&a) == core::mem::discriminant(&b);
        if self.bytes > RECORD as u64 && record.position == self.last.position && same(record.what, self.last.what) {
            self.bytes -= RECORD as u64;
        }
        self.push(record)
    }

    /// Where this run's output begins, if it began in this file.
    ///
    /// # Errors
    /// What read(2) answers.
    pub fn run_start(&self, run: RunId) -> io::Result<Option<u64>> {
        Ok(self.last_where(|what| what == What::Run(run))?.map(|r| r.position))
    }

    /// The last run that began in this file.
    ///
    /// # Errors
    /// As for `run_start`.
    pub fn last_run(&self) -> io::Result<Option<Record>> {
        self.last_where(|what| matches!(what, What::Run(_)))
    }

    fn last_where(&self, is: impl Fn(What) -> bool) -> io::Result<Option<Record>> {
        let mut end = self.bytes;
        while end > 0 {
            let begin = end.saturating_sub((BLOCK * RECORD) as u64);
            let found = self.block(begin, end)?.rev().find(|r| is(r.what));
            if found.is_some() {
                return Ok(found);
            }
            end = begin;
        }
        Ok(None)
    }

    /// Shows the records in order of their positions, as long as `look` wants more.
    ///
    /// # Errors
    /// What read(2) answers.
    pub fn each(&self, mut look: impl FnMut(Record) -> bool) -> io::Result<()> {
        let mut begin = 0;
        while begin < self.bytes {
            let end = self.bytes.min(begin + (BLOCK * RECORD) as u64);
            if !self.block(begin, end)?.all(&mut look) {
                return Ok(());
            }
            begin = end;
        }
        Ok(())
    }

    /// The records of output that say something about positions from `from` to `to`: the last one up to `from`, and
    /// those after it.
    ///
    /// # Errors
    /// What read(2) answers.
    pub fn around(&self, from: u64, to: u64) -> io::Result<Vec<Record>> {
        // The first record whose position is beyond `from`. One that is damaged is passed over to the left.
        let (mut low, mut high) = (0, self.bytes / RECORD as u64);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.at(middle)?.is_some_and(|r| r.position <= from) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let mut found = Vec::new();
        let mut before = low;
        while before > 0 && found.is_empty() {
            before -= 1;
            found.extend(self.at(before)?.filter(|r| matches!(r.what, What::Output { .. })));
        }
        let mut begin = low * RECORD as u64;
        while begin < self.bytes {
            let end = self.bytes.min(begin + (BLOCK * RECORD) as u64);
            for record in self.block(begin, end)? {
                if record.position >= to {
                    return Ok(found);
                }
                if matches!(record.what, What::Output { .. }) {
                    found.push(record);
                }
            }
            begin = end;
        }
        Ok(found)
    }

    fn at(&self, number: u64) -> io::Result<Option<Record>> {
        let mut bytes = [0; RECORD];
        self.file.read_exact_at(&mut bytes, number * RECORD as u64)?;
        Ok(Record::decode(&bytes))
    }

    fn block(&self, begin: u64, end: u64) -> io::Result<std::vec::IntoIter<Record>> {
        let mut bytes = vec![0; usize::try_from(end - begin).map_err(io::Error::other)?];
        self.file.read_exact_at(&mut bytes, begin)?;
        let records: Vec<Record> = bytes.chunks_exact(RECORD).filter_map(Record::decode).collect();
        Ok(records.into_iter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::capture::testing::Dir;

    #[test]
    fn records_survive_encoding_and_damage_is_noticed() {
        for what in
            [What::Output { wall: Wall(-5), stream: 2 }, What::Run(RunId(u64::MAX)), What::End { wall: Wall(i64::MAX) }]
        {
            let record = Record { position: 0x0123_4567_89ab_cdef, what };
            let mut bytes = record.encode();
            assert_eq!(Record::decode(&bytes), Some(record));
            for i in 0..RECORD {
                bytes[i] ^= 1;
                assert_eq!(Record::decode(&bytes), None, "byte {i}");
                bytes[i] ^= 1;
            }
        }
        assert_eq!(Record::decode(&[0; RECORD]), None);
    }

    #[test]
    fn a_torn_tail_is_overwritten_by_the_next_record() {
        let dir = Dir::new();
        let path = dir.path("a.idx");
        assert!(Index::open(&path).unwrap().is_none());
        let mut index = Index::replace(&path, Record::output(Wall(1), 100), None).unwrap();
        index.append(Record::output(Wall(2), 200), || path.clone()).unwrap();
        let whole = std::fs::read(&path).unwrap();
        let mut torn = whole.clone();
        torn.extend_from_slice(&[7; 11]);
        std::fs::write(&path, &torn).unwrap();
        let mut index = Index::open(&path).unwrap().unwrap();
        assert_eq!((index.first.position, index.last.position), (100, 200));
        index.append(Record::output(Wall(3), 300), || path.clone()).unwrap();
        let index = Index::open(&path).unwrap().unwrap();
        assert_eq!(index.last, Record::output(Wall(3), 300));
        let mut damaged = whole;
        damaged[30] ^= 4;
        std::fs::write(&path, &damaged).unwrap();
        assert_eq!(Index::open(&path).unwrap().unwrap().last, Record::output(Wall(1), 100));
        damaged[3] ^= 4;
        std::fs::write(&path, &damaged).unwrap();
        assert!(Index::open(&path).unwrap().is_none(), "without its base an index is of no use");
    }

    #[test]
    fn records_are_shown_in_order_and_runs_found_from_the_end() {
        let dir = Dir::new();
        let mut index = Index::replace(&dir.path("a.idx"), Record::output(Wall(1000), 0), None).unwrap();
        let walls = [2000, 9000, 3000, 4000, 5000];
        for (i, wall) in (1u64..).zip(walls) {
            index.append(Record { position: i * 10, what: What::Run(RunId(i)) }, || dir.path("a.idx")).unwrap();
            index.append(Record::output(Wall(wall), i * 10), || dir.path("a.idx")).unwrap();
        }
        for i in 6..3000u64 {
            index.append(Record::output(Wall(10_000), i * 10), || dir.path("a.idx")).unwrap();
        }
        index.append(Record { position: 30_000, what: What::Run(RunId(99)) }, || dir.path("a.idx")).unwrap();
        let mut seen = Vec::new();
        index.each(|r| seen.len() < 1500 && (seen.push(r.position), true).1).unwrap();
        assert_eq!((seen.len(), seen[0], seen[1], seen[2]), (1500, 0, 10, 10));
        assert!(seen.is_sorted());
        assert_eq!(index.run_start(RunId(2)).unwrap(), Some(20), "far from the end");
        assert_eq!(index.run_start(RunId(99)).unwrap(), Some(30_000));
        assert_eq!(index.run_start(RunId(7)).unwrap(), None);
    }

    #[test]
    fn runs_without_a_word_do_not_make_it_grow() {
        let dir = Dir::new();
        let path = dir.path("a.idx");
        let mut index = Index::replace(&path, Record::output(Wall(1), 100), None).unwrap();
        for n in 1..1000 {
            index.append(Record { position: 100, what: What::Run(RunId(n)) }, || path.clone()).unwrap();
        }
        index.append(Record::output(Wall(2), 100), || path.clone()).unwrap();
        index.append(Record::output(Wall(3), 100), || path.clone()).unwrap();
        index.append(Record { position: 200, what: What::Run(RunId(5000)) }, || path.clone()).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 4 * RECORD as u64);
        let index = Index::open(&path).unwrap().unwrap();
        assert_eq!(index.first, Record::output(Wall(1), 100));
        assert_eq!((index.run_start(RunId(999)).unwrap(), index.run_start(RunId(998)).unwrap()), (Some(100), None));
    }

    #[test]
    fn an_index_that_somebody_removed_is_made_anew() {
        let dir = Dir::new();
        let path = dir.path("a.idx");
        let mut index = Index::replace(&path, Record::output(Wall(1), 100), None).unwrap();
        std::fs::remove_file(&path).unwrap();
        index.append(Record::output(Wall(2), 200), || path.clone()).unwrap();
        let again = Index::open(&path).unwrap().unwrap();
        assert_eq!((again.first.position, again.last.position), (100, 200));
    }
}
