//! What was taken from a service's pipe and is not in its log yet: a file in memory that the keeper also holds. Its
//! first page says how far the daemon has come, so that the next one goes on from there.
//!
//! Every change is one system call that a kill cannot cut in two: taking bytes lengthens the file by exactly those, the
//! page is written whole, and the file is cut when all of it is in the log. A page that speaks of more than there is
//! comes from a daemon that died between that cut and the page's next change.

use super::shape::{Settings, State};
use crate::base::time::{Mono, Now, Wall};
use crate::daemon::capture::source::{Source, Taken};
use crate::sys::file;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

/// Where the values of secrets lie, those of two runs by turns, and where raw output begins. Pages that were never
/// written take no memory.
const SECRETS: [u64; 2] = [1 << 20, 16 << 20];
const SECRETS_ROOM: usize = 15 << 20;
const RAW: u64 = 32 << 20;
/// Memory is given back in pieces of this size.
const PUNCH: u64 = 1 << 20;

/// The first page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Page {
    pub settings: Settings,
    pub state: State,
    /// Nothing was put into the log yet, so that it is not known how that ends.
    pub fresh: bool,
    /// How much of each stream's raw output has been dealt with.
    pub done: [u64; 2],
    pub batch: Option<Batch>,
}

/// A batch that is being written: `length` bytes after `done`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    pub stream: usize,
    pub length: u64,
    pub now: Now,
    /// The log's position before it.
    pub position: u64,
}

const VERSION: u8 = 1;
const BYTES: usize = 136;

impl Page {
    fn encode(&self) -> [u8; BYTES] {
        let s = &self.state;
        let flag = |at: u32, on: bool| u8::from(on) << at;
        let mut bytes = [0; BYTES];
        let batch = self.batch.unwrap_or(Batch { stream: 0, length: 0, now: Now::default(), position: 0 });
        bytes[0] = VERSION;
        bytes[1] = flag(0, self.batch.is_some()) | flag(1, batch.stream == 1) | flag(2, self.settings.timestamps);
        bytes[2] = flag(0, s.mid[0]) | flag(1, s.mid[1]) | flag(2, s.skip[0]) | flag(3, s.skip[1]);
        bytes[3] = flag(0, s.dropping)
            | flag(1, s.tokens_at.is_some())
            | flag(2, self.settings.rate.is_some())
            | flag(3, self.fresh);
        bytes[4] = s.within;
        let words = [
            self.settings.rate.unwrap_or(0),
            s.tokens,
            s.tokens_at.map_or(0, |at| at.0),
            s.dropped,
            s.lost,
            self.done[0],
            self.done[1],
            batch.length,
            batch.now.mono.0,
            batch.now.wall.0.cast_unsigned(),
            batch.position,
        ];
        for (place, word) in bytes[8..].chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        let sum = crc32fast::hash(&bytes[..BYTES - 4]);
        bytes[BYTES - 4..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; BYTES]) -> Option<Page> {
        if bytes[0] != VERSION || crc32fast::hash(&bytes[..BYTES - 4]).to_le_bytes() != bytes[BYTES - 4..] {
            return None;
        }
        let flag = |at: usize, bit: u32| bytes[at] >> bit & 1 == 1;
        let word = |n: usize| {
            let mut w = [0; 8];
            w.copy_from_slice(&bytes[8 + n * 8..16 + n * 8]);
            u64::from_le_bytes(w)
        };
        let state = State {
            within: bytes[4],
            mid: [flag(2, 0), flag(2, 1)],
            skip: [flag(2, 2), flag(2, 3)],
            dropping: flag(3, 0),
            tokens: word(1),
            tokens_at: flag(3, 1).then(|| Mono(word(2))),
            dropped: word(3),
            lost: word(4),
        };
        let batch = flag(1, 0).then(|| Batch {
            stream: usize::from(flag(1, 1)),
            length: word(7),
            now: Now { mono: Mono(word(8)), wall: Wall(word(9).cast_signed()) },
            position: word(10),
        });
        let settings = Settings { timestamps: flag(1, 2), rate: flag(3, 2).then(|| word(0)) };
        Some(Page { settings, state, fresh: flag(3, 3), done: [word(5), word(6)], batch })
    }
}

/// One stream's raw output; that of the first stream also has the page and the secrets.
#[derive(Debug)]
pub struct Hoard {
    file: File,
    /// Bytes of raw output in it, and how many at its beginning take no memory any more.
    size: u64,
    punched: u64,
}

impl Hoard {
    /// A hoard in this file, which may have content.
    ///
    /// # Errors
    /// What fstat(2) and ftruncate(2) answer.
    pub fn new(file: OwnedFd) -> io::Result<Hoard> {
        let file = File::from(file);
        let length = file.metadata()?.len();
        if length < RAW {
            file.set_len(RAW)?;
        }
        Ok(Hoard { file, size: length.saturating_sub(RAW), punched: 0 })
    }

    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Takes up to `limit` bytes from a pipe, not beyond the next point.
    ///
    /// # Errors
    /// What splice(2) answers, other than that there is nothing.
    pub fn take(&mut self, source: &Source, limit: usize) -> io::Result<Taken> {
        let taken = source.take_into(self.file.as_fd(), RAW + self.size, limit)?;
        if let Taken::Some { bytes, .. } = taken {
            self.size += bytes as u64;
        }
        Ok(taken)
    }

    /// Reads raw output.
    ///
    /// # Errors
    /// What read(2) answers.
    pub fn read(&self, at: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(bytes, RAW + at)
    }

    /// Forgets all raw output. The page is to follow before anything is taken again.
    ///
    /// # Errors
    /// What ftruncate(2) answers.
    pub fn clear(&mut self) -> io::Result<()> {
        self.file.set_len(RAW)?;
        (self.size, self.punched) = (0, 0);
        Ok(())
    }

    /// Gives back the memory of what is done, a lot at a time. False where the system cannot do that.
    pub fn punch(&mut self, done: u64) -> bool {
        let end = done / PUNCH * PUNCH;
        if end <= self.punched {
            return true;
        }
        let given = file::punch_hole(&self.file, RAW + self.punched, end - self.punched).is_ok();
        self.punched = end;
        given
    }

    /// Writes the first page.
    ///
    /// # Errors
    /// What write(2) answers.
    pub fn set_page(&self, page: &Page) -> io::Result<()> {
        self.file.write_all_at(&page.encode(), 0)
    }

    /// The page that the last daemon wrote; `None` when none did, or one that cannot be understood.
    #[must_use]
    pub fn page(&self) -> Option<Page> {
        let mut bytes = [0; BYTES];
        self.file.read_exact_at(&mut bytes, 0).ok()?;
        Page::decode(&bytes)
    }
}

/// The values of secrets, kept beside the raw output of those who know them: those of the present run and of the one
/// before, whose last words may still be on their way.
#[derive(Debug)]
pub struct Safe {
    file: File,
}

impl Safe {
    #[must_use]
    pub fn new(file: File) -> Safe {
        Safe { file }
    }

    /// Puts the values of a new run in the place of those of the run before the last.
    ///
    /// # Errors
    /// What write(2) answers, and when they are too large.
    pub fn put(&self, values: &[Vec<u8>]) -> io::Result<()> {
        let kept = [0, 1].map(|n| self.slot(n));
        let newest = kept.iter().flatten().map(|(number, _)| *number).max();
        let at = match &kept {
            [Some((a, _)), Some((b, _))] => usize::from(a > b),
            [Some(_), None] => 1,
            _ => 0,
        };
        let number = newest.unwrap_or(0) + 1;
        let mut blob = number.to_le_bytes().to_vec();
        for value in values {
            blob.extend_from_slice(&(value.len() as u64).to_le_bytes());
            blob.extend_from_slice(value);
        }
        let mut bytes = (blob.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(&crc32fast::hash(&blob).to_le_bytes());
        bytes.extend_from_slice(&blob);
        if bytes.len() > SECRETS_ROOM {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the secrets are too large"));
        }
        self.file.write_all_at(&bytes, SECRETS[at])
    }

    /// All values that are kept.
    #[must_use]
    pub fn values(&self) -> Vec<Vec<u8>> {
        [0, 1].into_iter().filter_map(|n| self.slot(n)).flat_map(|(_, values)| values).collect()
    }

    fn slot(&self, n: usize) -> Option<(u64, Vec<Vec<u8>>)> {
        let mut head = [0; 12];
        self.file.read_exact_at(&mut head, SECRETS[n]).ok()?;
        let length = usize::try_from(u64::from_le_bytes(head[..8].try_into().ok()?)).ok()?;
        if !(8..=SECRETS_ROOM).contains(&length) {
            return None;
        }
        let mut blob = vec![0; length];
        self.file.read_exact_at(&mut blob, SECRETS[n] + 12).ok()?;
        if crc32fast::hash(&blob).to_le_bytes() != head[8..] {
            return None;
        }
        let (number, mut rest) = blob.split_first_chunk::<8>()?;
        let mut values = Vec::new();
        while let Some((length, tail)) = rest.split_first_chunk::<8>() {
            let (value, tail) = tail.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
            values.push(value.to_vec());
            rest = tail;
        }
        Some((u64::from_le_bytes(*number), values))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::memfile;

    #[test]
    fn a_page_survives_and_damage_is_noticed() {
        let hoard = Hoard::new(memfile::create().unwrap().into()).unwrap();
        assert_eq!(hoard.page(), None);
        let mut page = Page {
            settings: Settings { timestamps: true, rate: Some(7) },
            state: State {
                within: 2,
                mid: [true, false],
                skip: [false, true],
                dropping: true,
                tokens: 1,
                tokens_at: Some(Mono(2)),
                dropped: 3,
                lost: 4,
            },
            fresh: true,
            done: [5, 6],
            batch: Some(Batch {
                stream: 1,
                length: 8,
                now: Now { mono: Mono(9), wall: Wall(-10) },
                position: u64::MAX,
            }),
        };
        for _ in 0..2 {
            hoard.set_page(&page).unwrap();
            assert_eq!(hoard.page(), Some(page));
            page = Page { done: [6, 5], ..Page::default() };
        }
        hoard.file.write_all_at(&[1], 70).unwrap();
        assert_eq!(hoard.page(), None);
    }

    #[test]
    fn secrets_of_two_runs_are_kept() {
        let file = memfile::create().unwrap();
        let hoard = Hoard::new(file.try_clone().unwrap().into()).unwrap();
        let safe = Safe::new(file);
        assert!(safe.values().is_empty());
        for n in 0..5u8 {
            safe.put(&[vec![n; 3], vec![n + 100; 5000]]).unwrap();
            let mut values = safe.values();
            values.sort();
            let mut want = vec![vec![n; 3], vec![n + 100; 5000]];
            if n > 0 {
                want.extend([vec![n - 1; 3], vec![n + 99; 5000]]);
            }
            want.sort();
            assert_eq!(values, want);
        }
        safe.file.write_all_at(&[9], SECRETS[0] + 100).unwrap();
        assert_eq!(safe.values().len(), 2, "a torn one counts for nothing");
        assert_eq!((hoard.size(), hoard.page()), (0, None));
    }
}
