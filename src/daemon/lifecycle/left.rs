//! What hobs that were run for one command have left: the folder `run-PID` of each whose keeper and daemon were both
//! killed. The next one of the same user removes it.

use crate::daemon::child;
use crate::sys::file::lock;
use crate::sys::{tree, user};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A folder is renamed before it is removed, so that whoever gets its name anew finds nothing half removed.
const GONE: &str = ".gone";

/// Looks at the folders beside this one, and removes those that nobody uses any more.
pub(in crate::daemon) fn remove_beside(own: &Path) {
    let Some(entries) = own.parent().and_then(|p| fs::read_dir(p).ok()) else { return };
    for path in entries.flatten().map(|entry| entry.path()).filter(|path| path != own) {
        let Some(name) = path.file_name().and_then(OsStr::to_str) else { continue };
        // What cannot be removed is left to the next one, who may be luckier.
        if let Some(pid) = pid_of(name.strip_suffix(GONE).unwrap_or(name)).filter(|_| is_own_folder(&path)) {
            let _ = if name.ends_with(GONE) { fs::remove_dir_all(&path) } else { remove(&path, pid) };
        }
    }
}

fn pid_of(name: &str) -> Option<u32> {
    name.strip_prefix("run-")?.parse().ok()
}

fn is_own_folder(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|m| m.is_dir() && m.uid() == user::own().0)
}

/// Removes the folder of the hob of this pid, unless it or anything of it lives.
fn remove(folder: &Path, pid: u32) -> std::io::Result<()> {
    let file = folder.join("run/hob.lock");
    // Whoever has just made the folder is not in the file yet.
    let dead = |c: &lock::Content| c.pid == pid && !c.is_alive();
    if !lock::left(&file)?.is_some_and(|(c, _)| dead(&c)) || is_peopled(folder) {
        return Ok(());
    }
    // From here on a hob that has got the same pid waits for the lock, or finds no folder and makes its own.
    let Some((content, lock)) = lock::left(&file)? else { return Ok(()) };
    if !dead(&content) || lock::is_claimed(&folder.join("state")) {
        return Ok(());
    }
    let mut gone = folder.as_os_str().to_owned();
    gone.push(GONE);
    fs::rename(folder, &gone)?;
    drop(lock);
    fs::remove_dir_all(gone)
}

/// Whether any process says that it is of a run of this hob.
fn is_peopled(home: &Path) -> bool {
    let family = tree::Family { home: child::home_id(home), keeper: 0, daemon: 0 };
    !tree::leftovers(family, Vec::new()).is_empty()
}
