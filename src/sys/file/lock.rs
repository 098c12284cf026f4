//! The lock file: flock(2) is the truth about who runs; the content only says who that is, and is never trusted
//! unchecked.
//!
//! Content: `pid SP start_ticks SP boot_id SP crc32 LF`, the checksum over all before its space, in eight hex digits.

use super::{How, flock, identity as file_identity, open, try_lock};
use crate::sys::identity;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;

/// Longer than any content that is right.
const CONTENT_MAX: u64 = 256;

/// Who holds the lock. Even if it verifies, the holder must be compared with the process that has this pid now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    pub pid: u32,
    /// When the process started, in the unit of the platform's process table.
    pub start_ticks: u64,
    /// Names this boot of the machine; without spaces and line ends.
    pub boot_id: String,
}

/// What an unlocked lock file held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Left {
    /// Nothing: a new file, or the last holder ended properly.
    Nothing,
    /// The last holder was killed.
    Stale(Content),
    /// Nothing that verifies.
    Damaged,
}

#[derive(Debug)]
pub enum Acquired {
    /// It is ours now. `left` is what was found, to be reported unless it is `Nothing`; the file is empty.
    Ours { lock: Lock, left: Left },
    /// Another has it; who, if the content verifies. The holder may be about to write it, so asking again can help.
    Held(Option<Content>),
}

/// The held lock.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

/// Takes the lock without waiting.
///
/// # Errors
/// When the file cannot be opened, made or locked.
pub fn acquire(path: &Path) -> io::Result<Acquired> {
    loop {
        let mut file = open(path, How::Create, 0o600)?;
        if !try_lock(&file)? {
            return Ok(Acquired::Held(Content::parse(&content(&mut file)?)));
        }
        // Between opening and locking, the name may have been given to another file; a lock on a nameless one excludes
        // nobody.
        let ours = file_identity(&file)?;
        let named = open(path, How::Read, 0o600).and_then(|f| file_identity(&f));
        if !named.is_ok_and(|n| (n.dev, n.ino) == (ours.dev, ours.ino)) {
            continue;
        }
        let text = content(&mut file)?;
        let left = match Content::parse(&text) {
            Some(content) => Left::Stale(content),
            None if text.is_empty() => Left::Nothing,
            None => Left::Damaged,
        };
        let mut lock = Lock { file };
        lock.clear()?;
        return Ok(Acquired::Ours { lock, left });
    }
}

impl Lock {
    /// Says who holds it. To be called once after `acquire`.
    ///
    /// # Errors
    /// When the file cannot be written, as on a full disk; the lock is held all the same.
    pub fn write(&mut self, holder: &Content) -> io::Result<()> {
        self.clear()?;
        self.file.write_all(holder.text().as_bytes())
    }

    /// Leaves no content, so that the next holder need not report one. The lock is still held.
    ///
    /// # Errors
    /// What ftruncate(2) answers.
    pub fn clear(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0)).map(drop)
    }

    /// The descriptor that holds the lock, to be kept or handed on.
    #[must_use]
    pub fn into_fd(self) -> OwnedFd {
        self.file.into()
    }
}

impl From<OwnedFd> for Lock {
    fn from(fd: OwnedFd) -> Lock {
        Lock { file: fd.into() }
    }
}

/// Who holds the lock, without taking it: `None` when nobody does, `Some(None)` when the content does not verify. A
/// process that tries to take it in the same moment may see it held, and asks again.
///
/// # Errors
/// When the file exists and cannot be opened or locked.
pub fn holder(path: &Path) -> io::Result<Option<Option<Content>>> {
    let mut file = match open(path, How::Read, 0o600) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    if flock(&file, libc::LOCK_SH)? { Ok(None) } else { Ok(Some(Content::parse(&content(&mut file)?))) }
}

/// What a holder that has ended left in the lock file, which is held as long as the answer is kept. `None`: there is no
/// such file, somebody has it, or nothing in it verifies.
///
/// # Errors
/// When the file exists and cannot be opened or locked.
pub fn left(path: &Path) -> io::Result<Option<(Content, Lock)>> {
    let mut file = match open(path, How::Read, 0o600) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    if !try_lock(&file)? {
        return Ok(None);
    }
    Ok(Content::parse(&content(&mut file)?).map(|content| (content, Lock { file })))
}

/// Claims a folder for this process, until the descriptor is closed: the lock file names who runs and can be removed
/// under them, as a run folder is at the end of a login. `None`: another process has it. Where the file system cannot
/// lock folders nobody is kept out.
///
/// # Errors
/// When the folder cannot be opened.
pub fn claim(folder: &Path) -> io::Result<Option<OwnedFd>> {
    let folder = File::open(folder)?;
    // Any other answer comes of a file system without locks.
    Ok(try_lock(&folder).unwrap_or(true).then(|| folder.into()))
}

/// Whether another process has claimed this folder.
#[must_use]
pub fn is_claimed(folder: &Path) -> bool {
    File::open(folder).is_ok_and(|f| !flock(f, libc::LOCK_SH).unwrap_or(true))
}

impl Content {
    /// This process in this boot.
    #[must_use]
    pub fn of_this_process() -> Content {
        let pid = std::process::id();
        Content { pid, start_ticks: identity::start_ticks(pid).unwrap_or(0), boot_id: identity::boot_id() }
    }

    /// Whether the process it names still lives: the same pid, start and boot.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.boot_id == identity::boot_id() && identity::start_ticks(self.pid) == Some(self.start_ticks)
    }

    /// The content with its checksum.
    #[must_use]
    pub fn text(&self) -> String {
        let body = format!("{} {} {}", self.pid, self.start_ticks, self.boot_id);
        format!("{body} {:08x}\n", crc32fast::hash(body.as_bytes()))
    }

    /// `None` unless every byte is as `text` writes it.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Content> {
        let text = core::str::from_utf8(bytes).ok()?;
        let mut parts = text.strip_suffix('\n')?.split(' ');
        let found = Content {
            pid: parts.next()?.parse().ok()?,
            start_ticks: parts.next()?.parse().ok()?,
            boot_id: parts.next()?.to_owned(),
        };
        (found.text() == text).then_some(found)
    }
}

fn content(file: &mut File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(CONTENT_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::super::tests::Temp;
    use super::*;

    fn holder() -> Content {
        Content { pid: 4711, start_ticks: 88_123, boot_id: "0dd7a3f5-4f0e-4b52-8f1c-a3c0f8e2b9d1".into() }
    }

    fn ours(path: &Path) -> (Lock, Left) {
        match acquire(path).unwrap() {
            Acquired::Ours { lock, left } => (lock, left),
            Acquired::Held(by) => panic!("held by {by:?}"),
        }
    }

    #[test]
    fn each_flipped_bit_and_each_cut_is_detected() {
        let text = holder().text();
        assert_eq!(Content::parse(text.as_bytes()), Some(holder()));
        for at in 0..text.len() {
            assert_eq!(Content::parse(&text.as_bytes()[..at]), None);
            for bit in 0..8 {
                let mut bytes = text.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                assert_eq!(Content::parse(&bytes), None, "byte {at} bit {bit}");
            }
        }
        assert_eq!(Content::parse(format!("{text}{text}").as_bytes()), None);
        assert_eq!(Content::parse(format!("+{text}").as_bytes()), None);
    }

    #[test]
    fn the_second_one_learns_who_holds_it_and_what_is_left_is_told() {
        let t = Temp::new();
        let path = t.0.join("hob.lock");
        let (mut lock, left) = ours(&path);
        assert_eq!(left, Left::Nothing);
        assert!(matches!(acquire(&path).unwrap(), Acquired::Held(None)));
        lock.write(&holder()).unwrap();
        lock.write(&holder()).unwrap();
        match acquire(&path).unwrap() {
            Acquired::Held(by) => assert_eq!(by, Some(holder())),
            Acquired::Ours { .. } => panic!("two holders"),
        }
        drop(lock.into_fd());
        let (mut lock, left) = ours(&path);
        assert_eq!(left, Left::Stale(holder()));
        lock.clear().unwrap();
        drop(lock);
        std::fs::write(&path, "4711 88123 x 00000000\n").unwrap();
        let (lock, left) = ours(&path);
        assert_eq!(left, Left::Damaged);
        drop(Lock::from(lock.into_fd()));
        assert_eq!(ours(&path).1, Left::Nothing, "what was reported is gone");
    }

    #[test]
    fn what_a_dead_holder_left_is_seen_and_kept() {
        let t = Temp::new();
        let path = t.0.join("hob.lock");
        assert!(left(&path).unwrap().is_none() && !path.exists(), "nothing is made by looking");
        let (mut lock, _) = ours(&path);
        lock.write(&holder()).unwrap();
        assert!(left(&path).unwrap().is_none(), "it is held");
        drop(lock);
        let (content, mine) = left(&path).unwrap().unwrap();
        assert_eq!(content, holder());
        assert!(left(&path).unwrap().is_none() && matches!(acquire(&path).unwrap(), Acquired::Held(Some(_))));
        drop(mine);
        assert_eq!(ours(&path).1, Left::Stale(holder()), "the next one is told all the same");
    }

    #[test]
    fn a_folder_is_claimed_once_and_a_missing_one_by_nobody() {
        let t = Temp::new();
        assert!(!is_claimed(&t.0) && !is_claimed(&t.0.join("missing")));
        let claim_of = |path: &Path| claim(path).unwrap();
        let first = claim_of(&t.0).expect("nobody has it");
        assert!(is_claimed(&t.0) && claim_of(&t.0).is_none());
        drop(first);
        assert!(!is_claimed(&t.0) && claim_of(&t.0).is_some());
        assert!(claim(&t.0.join("missing")).is_err());
    }

    #[test]
    fn a_removed_lock_file_does_not_make_two_holders_of_one_name() {
        let t = Temp::new();
        let path = t.0.join("hob.lock");
        let (_first, _) = ours(&path);
        std::fs::remove_file(&path).unwrap();
        let (_second, _) = ours(&path);
        assert!(matches!(acquire(&path).unwrap(), Acquired::Held(_)));
    }
}
