//! Old files of a log in compressed form. The work is done by the program gzip, as a child of the lane for bulk work
//! that is looked after a little at a time, so that other work of that lane goes on.

use super::guard;
use super::rotate::Names;
use super::tail::{Share, id_of};
use crate::sys::file::remove;
use crate::sys::file::{self, How};
use core::time::Duration;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// How long one job of the lane stays with a child, and between two looks.
const STAY: Duration = Duration::from_millis(100);
const LOOK: Duration = Duration::from_millis(2);

/// A file that is to be compressed, or is being.
#[derive(Debug)]
pub struct Zip {
    from: File,
    to: PathBuf,
    child: Option<Child>,
}

/// What came of looking after a child for a while.
#[derive(Debug)]
pub enum Step {
    Goes(Zip),
    /// The compressed copy of a file, complete on disk. The file stays open until it is replaced: if it is removed
    /// meanwhile, no other can have its inode and be taken for it.
    Done {
        from: File,
        copy: PathBuf,
    },
    /// There is no program gzip.
    Missing,
    Failed(String),
}

impl Zip {
    /// The newest old file that is not compressed.
    ///
    /// # Errors
    /// What open(2) answers.
    pub fn next(names: &Names, files: u32) -> io::Result<Option<Zip>> {
        for number in 1..files {
            match file::open(&names.log(number), How::Read, 0o600) {
                Ok(from) => return Ok(Some(Zip { from, to: names.copy(), child: None })),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        Ok(None)
    }

    /// Goes on for a while.
    #[must_use]
    pub fn step(mut self) -> Step {
        let child = match self.child.take() {
            Some(child) => Ok(child),
            None => self.start(),
        };
        let mut child = match child {
            Ok(child) => child,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Step::Missing,
            Err(e) => return Step::Failed(e.to_string()),
        };
        let mut stayed = Duration::ZERO;
        loop {
            match child.try_wait() {
                Ok(None) if stayed < STAY => {
                    std::thread::sleep(LOOK);
                    stayed += LOOK;
                }
                Ok(None) => {
                    self.child = Some(child);
                    return Step::Goes(self);
                }
                Ok(Some(status)) if status.success() => return self.finish(),
                Ok(Some(status)) => return Step::Failed(format!("gzip ended with {status}")),
                Err(e) => return Step::Failed(e.to_string()),
            }
        }
    }

    fn start(&mut self) -> io::Result<Child> {
        let to = self.make()?;
        self.from.seek(SeekFrom::Start(0))?;
        let from = self.from.try_clone()?;
        Command::new("gzip").arg("-c").stdin(from).stdout(to).stderr(Stdio::null()).spawn()
    }

    /// An earlier daemon's child may still write to a copy of this name, which then is another file.
    fn make(&self) -> io::Result<File> {
        remove(&self.to)?;
        // That the folder is gone must not look like a missing program.
        file::open(&self.to, How::New, 0o600).map_err(|e| io::Error::other(e.to_string()))
    }

    /// The copy must be on disk before the original goes.
    fn finish(self) -> Step {
        let synced = file::open(&self.to, How::Write, 0o600).and_then(|f| f.sync_all());
        match synced {
            Ok(()) => Step::Done { from: self.from, copy: self.to },
            Err(e) => Step::Failed(e.to_string()),
        }
    }
}

/// Puts the complete copy of an old file into its place, wherever that has moved to among so many files.
///
/// # Errors
/// What stat(2), rename(2) and unlink(2) answer; the file is there in one of the two forms, or both.
pub(super) fn replace(share: &Share, from: &File, copy: &Path, files: u32) -> io::Result<()> {
    let names = share.names();
    let id = id_of(&from.metadata()?);
    match (1..files).find(|k| names.log(*k).symlink_metadata().is_ok_and(|meta| id_of(&meta) == id)) {
        Some(k) => share.replace(id, id_of(&copy.symlink_metadata()?), || {
            std::fs::rename(copy, names.packed(k))?;
            remove(&names.log(k))
        }),
        // It was removed meanwhile.
        None => remove(copy),
    }
}

/// How many bytes a compressed file holds when it is read back, up to 4 GiB: its last four bytes say it.
///
/// # Errors
/// What reading it answers.
pub(super) fn size(file: &File) -> io::Result<u64> {
    let length = file.metadata()?.len();
    let mut bytes = [0; 4];
    file.read_exact_at(&mut bytes, length.checked_sub(4).ok_or(io::ErrorKind::UnexpectedEof)?)?;
    Ok(u32::from_le_bytes(bytes).into())
}

/// The content of a compressed file as one that can be read anywhere; it takes space on disk until it is closed.
///
/// `space`: what is free on a file's disk, and the size of that.
///
/// # Errors
/// When gzip is missing or fails, or there is no space.
pub(super) fn open(file: File, names: &Names, space: impl FnOnce(&File) -> io::Result<(u64, u64)>) -> io::Result<File> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let path = names.read_back(std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    remove(&path)?;
    let to = file::open(&path, How::New, 0o600)?;
    let (free, all) = space(&to)?;
    if free.saturating_sub(size(&file)?) < guard::least(all) {
        remove(&path)?;
        return Err(io::Error::new(io::ErrorKind::StorageFull, "not enough room on the disk to unpack an old file"));
    }
    remove(&path)?;
    let mut child =
        Command::new("gzip").arg("-dc").stdin(file).stdout(to.try_clone()?).stderr(Stdio::piped()).spawn()?;
    let mut said = String::new();
    if let Some(stderr) = &mut child.stderr {
        // What it says is only worth showing when it fails.
        let _ = stderr.take(1000).read_to_string(&mut said);
    }
    let status = child.wait()?;
    if status.success() {
        Ok(to)
    } else {
        Err(io::Error::other(format!("gzip -dc ended with {status}: {}", said.trim())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::capture::testing::Dir;

    #[test]
    fn a_copy_takes_the_place_of_its_own_file_alone() {
        if Command::new("gzip").arg("--version").output().is_err() {
            return eprintln!("SKIPPED: there is no gzip");
        }
        let dir = Dir::new();
        let share = Share::new(Names::new(dir.path("web.log")));
        let names = share.names();
        let write = |number, text: &str| std::fs::write(names.log(number), text).unwrap();
        let packed = |names| {
            let mut zip = Zip::next(names, 3).unwrap().unwrap();
            loop {
                match zip.step() {
                    Step::Goes(goes) => zip = goes,
                    Step::Done { from, copy } => return (from, copy),
                    failed => panic!("{failed:?}"),
                }
            }
        };
        // Each new file would have the inode of the one that was removed, if nobody held that.
        for text in ["second", "third", "fourth"] {
            write(0, "new");
            write(1, "first");
            let (from, copy) = packed(names);
            remove(&names.log(1)).unwrap();
            write(1, text);
            replace(&share, &from, &copy, 3).unwrap();
            assert_eq!(std::fs::read_to_string(names.log(1)).unwrap(), text);
            assert!(!copy.exists() && !names.packed(1).exists(), "nobody has a place for the copy");
        }
        // It has moved on, and a reader who has looked up the files before finds it all the same.
        write(1, "first");
        let before = share.spans().unwrap();
        let (from, copy) = packed(names);
        std::fs::rename(names.log(1), names.log(2)).unwrap();
        write(1, "middle");
        replace(&share, &from, &copy, 3).unwrap();
        assert!(names.packed(2).exists() && !names.log(2).exists() && !copy.exists());
        let after = share.spans().unwrap();
        assert_eq!((before.files.len(), before.files[1].base), (after.files.len(), after.files[1].base));
        assert_eq!(after.files[1].id, id_of(&names.packed(2).symlink_metadata().unwrap()));
    }

    #[test]
    fn nothing_is_unpacked_that_would_leave_the_disk_too_little() {
        if Command::new("gzip").arg("--version").output().is_err() {
            return eprintln!("SKIPPED: there is no gzip");
        }
        let dir = Dir::new();
        let names = Names::new(dir.path("web.log"));
        let text = b"0123456789abcde\n".repeat(1000);
        std::fs::write(names.log(1), &text).unwrap();
        assert!(Command::new("gzip").arg(names.log(1)).status().unwrap().success());
        let all = 1 << 40;
        let least = guard::least(all) + text.len() as u64;
        let unpack = |free| {
            let packed = file::open(&names.packed(1), How::Read, 0o600).unwrap();
            open(packed, &names, |_| Ok((free, all)))
        };
        let refused = unpack(least - 1).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::StorageFull);
        let left: Vec<_> = std::fs::read_dir(dir.path("")).unwrap().flatten().map(|e| e.file_name()).collect();
        assert_eq!(left, ["web.log.1.gz"], "and nothing is left of the attempt");
        let mut read = Vec::new();
        let mut file = unpack(least).unwrap();
        file.rewind().unwrap();
        file.read_to_end(&mut read).unwrap();
        assert!(read == text);
    }
}
