//! The names of a log's files, and the shift that makes the first of them free again.
//!
//! `NAME.log` is written to; `NAME.log.1` is the newest of those before it. A shift moves the oldest first and each
//! index before its log, so that any step of it can be recognised and the rest done later:
//! - the current index ends with an `End` record at the end of its file: a shift was decided and has not come that far
//! - the current index is gone, the first old index ends where the current file ends, and no first old file exists:
//!   only the
//!   last rename is missing
//! - no current file: the shift is complete, the new file is missing

use super::index::{Index, What};
use super::zip;
use crate::sys::file::remove;
use crate::sys::file::{self, How};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Old files looked at beyond those that are kept, in case more were kept before.
const BEYOND: u32 = 1000;

/// Where the files of one log are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    current: Arc<Path>,
}

impl Names {
    #[must_use]
    pub fn new(current: PathBuf) -> Names {
        Names { current: current.into() }
    }

    /// The current file is number 0.
    #[must_use]
    pub fn log(&self, number: u32) -> PathBuf {
        if number == 0 { self.current.to_path_buf() } else { with(&self.current, &format!(".{number}")) }
    }

    /// An old file in compressed form.
    #[must_use]
    pub fn packed(&self, number: u32) -> PathBuf {
        with(&self.log(number), ".gz")
    }

    /// The file of this number in the form in which it exists.
    #[must_use]
    pub fn present(&self, number: u32) -> Option<PathBuf> {
        [self.log(number), self.packed(number)].into_iter().find(|path| exists(path))
    }

    /// What becomes a compressed file when it is complete.
    #[must_use]
    pub fn copy(&self) -> PathBuf {
        with(&self.current, ".gz.new")
    }

    /// Where a compressed file is read back.
    #[must_use]
    pub fn read_back(&self, pid: u32, number: u32) -> PathBuf {
        with(&self.current, &format!(".read.{pid}.{number}"))
    }

    #[must_use]
    pub fn index(&self, number: u32) -> PathBuf {
        with(&self.log(number), ".idx")
    }

    /// What becomes the current file at the end of a rotation.
    #[must_use]
    pub fn fresh(&self) -> PathBuf {
        with(&self.current, ".new")
    }

    /// Removes every file of the log.
    ///
    /// # Errors
    /// What unlink(2) answers, other than that a file is missing.
    pub fn remove_all(&self) -> io::Result<()> {
        let mut number = 0;
        while self.present(number).is_some() || exists(&self.index(number)) || number < 3 {
            drop_number(self, number)?;
            number += 1;
        }
        [self.copy(), self.fresh()].iter().try_for_each(|path| remove(path))
    }

    #[must_use]
    pub fn folder(&self) -> Option<&Path> {
        self.current.parent()
    }
}

fn with(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// Makes the names of the current file and index free, keeping `keep` files with the new one counted. With one file to
/// keep they stay, to be replaced. With `head` the first file of the log stays at the last place, and the one after it
/// goes instead. Doing it again after any number of its steps completes it.
///
/// # Errors
/// What rename(2) and unlink(2) answer; files are never lost by that.
pub fn shift(names: &Names, keep: u32, head: bool) -> io::Result<()> {
    let oldest = keep.max(1) - 1;
    for k in oldest + 1..oldest.saturating_add(BEYOND) {
        if names.present(k).is_none() && !exists(&names.index(k)) {
            break;
        }
        drop_number(names, k)?;
    }
    if oldest == 0 {
        return Ok(());
    }
    let head = head && oldest > 1 && names.present(oldest).is_some();
    let oldest = oldest - u32::from(head);
    let hole = (1..=oldest).find(|k| names.present(*k).is_none());
    if hole.is_none() {
        drop_number(names, oldest)?;
    }
    for k in (0..hole.unwrap_or(oldest)).rev() {
        rename(&names.index(k), &names.index(k + 1))?;
        rename(&names.log(k), &names.log(k + 1))?;
        if k > 0 {
            rename(&names.packed(k), &names.packed(k + 1))?;
        }
    }
    Ok(())
}

/// Whether the name of the current file leads elsewhere than to this one, or nowhere. Where a link leads here it is the
/// same file.
#[must_use]
pub fn is_renamed(names: &Names, file: &Metadata) -> bool {
    match fs::metadata(names.log(0)) {
        Ok(found) => (found.dev(), found.ino()) != (file.dev(), file.ino()),
        Err(e) => e.kind() == io::ErrorKind::NotFound,
    }
}

/// Somebody has given the current file the first old name. Its index goes along; those of the others may not be of the
/// files that have their names now.
///
/// # Errors
/// What rename(2) and unlink(2) answer.
pub(super) fn renamed(names: &Names) -> io::Result<()> {
    let stale = (1..BEYOND).map(|k| names.index(k)).take_while(|index| exists(index));
    stale.into_iter().try_for_each(|index| remove(&index))?;
    rename(&names.index(0), &names.index(1))
}

fn drop_number(names: &Names, number: u32) -> io::Result<()> {
    remove(&names.index(number))?;
    remove(&names.log(number))?;
    remove(&names.packed(number))
}

/// A name that is missing was moved before.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Whether a daemon ended in the middle of a shift: `size` is that of the current file, which exists.
///
/// # Errors
/// What reading an index answers.
pub fn interrupted(names: &Names, current: Option<&Index>, size: u64) -> io::Result<bool> {
    let ends_here = |index: &Index| {
        matches!(index.last.what, What::End { .. }) && index.last.position == index.first.position.saturating_add(size)
    };
    if let Some(index) = current {
        return Ok(ends_here(index));
    }
    Ok(names.present(1).is_none() && Index::read(&names.index(1))?.is_some_and(|index| ends_here(&index)))
}

/// How many bytes of output a file holds, in whatever form; `None` without one.
fn size(names: &Names, number: u32) -> io::Result<Option<u64>> {
    if let Ok(meta) = names.log(number).symlink_metadata() {
        return Ok(Some(meta.len()));
    }
    match file::open(&names.packed(number), How::Read, 0o600) {
        Ok(file) => zip::size(&file).map(Some),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// The position after the last byte of the newest old file, from `number` on; zero without one.
///
/// # Errors
/// What reading an index answers.
pub fn end_of_old(names: &Names, number: u32) -> io::Result<u64> {
    let mut sizes = 0u64;
    for k in number..number.saturating_add(BEYOND) {
        let size = size(names, k)?;
        let index = Index::read(&names.index(k))?;
        if let Some(index) = index {
            let end = index.last.position.max(index.first.position.saturating_add(size.unwrap_or(0)));
            return Ok(end.saturating_add(sizes));
        }
        let Some(size) = size else { break };
        sizes = sizes.saturating_add(size);
    }
    Ok(sizes)
}
