//! Ages of a log's files: which of them are to go, and when the next one is.

use super::index::{Index, What};
use super::rotate::Names;
use crate::base::time::Wall;
use crate::sys::file::remove;
use core::time::Duration;
use std::io;
use std::os::unix::fs::MetadataExt;

/// What the ages of the old files say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Aged {
    /// Some were removed.
    pub removed: bool,
    /// When the oldest that is left is to go.
    pub next: Option<Wall>,
}

/// Removes the old files whose last output is older than this, and all that are older still.
///
/// # Errors
/// What reading an index and unlink(2) answer.
pub(super) fn remove_old(names: &Names, max_age: Duration, now: Wall) -> io::Result<Aged> {
    let mut aged = Aged::default();
    let mut number = 1;
    let mut expired = false;
    while let Some(path) = names.present(number) {
        let end = match Index::read(&names.index(number))?.map(|index| index.last.what) {
            Some(What::End { wall } | What::Output { wall, .. }) => wall,
            _ => Wall(path.symlink_metadata()?.mtime().saturating_mul(1000)),
        };
        let due = after(end, max_age);
        expired |= due <= now;
        if expired {
            remove(&names.index(number))?;
            remove(&path)?;
            aged.removed = true;
        } else {
            aged.next = Some(due);
        }
        number += 1;
    }
    Ok(aged)
}

/// This long after that.
#[must_use]
pub(super) fn after(wall: Wall, time: Duration) -> Wall {
    Wall(wall.0.saturating_add(i64::try_from(time.as_millis()).unwrap_or(i64::MAX)))
}
