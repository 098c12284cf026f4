//! The folders of hob: there, its own, closed to others, writable, with room, on a file system that keeps promises.

use super::{Scene, quoted, user_name};
use crate::base::finding::{Finding, Grade};
use crate::base::limits::JOURNAL_RESERVE;
use crate::base::units::human_size;
use crate::daemon::capture::guard;
use crate::sys;
use crate::sys::features::{Storage, storage};
use crate::sys::reason;
use std::fs::Metadata;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

const AREA: &str = "home";
/// With less than this free, or this part of a small file system, there is a warning.
const SPACE_LOW: u64 = 256 * 1024 * 1024;

pub(super) fn look(scene: &Scene<'_>) -> Vec<Finding> {
    let p = scene.paths;
    let mut all = Vec::new();
    // A home that was named holds all the others; without one it is the state folder.
    let folders =
        [("home", &p.home, 0o700), ("run", &p.run, 0o711), ("state", &p.state, 0o700), ("logs", &p.logs, 0o700)];
    let mut absent: Vec<(&str, &Path)> = Vec::new();
    for (at, (name, path, mode)) in folders.into_iter().enumerate() {
        if folders[..at].iter().any(|(_, earlier, _)| *earlier == path) {
            continue;
        }
        match path.symlink_metadata() {
            Ok(meta) => all.extend(folder(scene, name, path, &meta, mode)),
            Err(e) if e.kind() == ErrorKind::NotFound => absent.push((name, path)),
            Err(e) => {
                let what = format!("the {name} folder {} cannot be looked at: {}", path.display(), reason(&e));
                all.push(Finding::new(Grade::Error, AREA, what));
            }
        }
    }
    all.extend(missing(scene, &absent));
    for path in [&p.lock, &p.pid, &p.heartbeat, &p.state_json, &p.log] {
        all.extend(link(path));
    }
    all.extend(room(&p.state));
    if !same_device(&p.state, &p.logs) {
        all.extend(room(&p.logs));
    }
    for (at, (name, path, _)) in folders.into_iter().enumerate() {
        // What lies in a folder that was told of is told with it.
        let told = folders[..at].iter().any(|(_, earlier, _)| path.starts_with(earlier) && same_storage(earlier, path));
        all.extend(kept(name, path).filter(|_| !told));
    }
    if all.iter().all(|f| f.grade <= Grade::Note) {
        let whole = if absent.is_empty() { "and its folders are" } else { "is" };
        let what = format!("{} {whole} there, hob's own, and writable", p.home.display());
        if p.home.exists() {
            all.insert(0, Finding::new(Grade::Ok, AREA, what));
        }
    }
    all
}

/// Whoever runs this is another user than hob's, who would see little and take all of it for wrong.
pub(super) fn of_another_user(scene: &Scene<'_>) -> Option<Finding> {
    let (home, own) = (&scene.paths.home, sys::user::own().0);
    let owner = home.symlink_metadata().ok().filter(Metadata::is_dir)?.uid();
    (own != 0 && owner != own).then(|| {
        let what = format!("{} belongs to {}, and you are {}", home.display(), user_name(owner), user_name(own));
        let f = Finding::new(Grade::Error, AREA, what);
        f.why("hob can be examined, and run, by its own user alone").todo(format!("run this as {}", user_name(owner)))
    })
}

fn folder(scene: &Scene<'_>, name: &str, path: &Path, meta: &Metadata, mode: u32) -> Vec<Finding> {
    let shown = path.display();
    let error = |what: String| Finding::new(Grade::Error, AREA, what);
    if meta.is_symlink() {
        let f = error(format!("the {name} folder {shown} is a link"));
        return vec![f.why("hob does not follow one there").todo(format!("rm {0} && mkdir {0}", quoted(path)))];
    }
    if !meta.is_dir() {
        let f = error(format!("{shown} is to be the {name} folder and is none"));
        return vec![f.why("hob cannot start").todo(format!("mv {0} {0}.old", quoted(path)))];
    }
    let mut all: Vec<Finding> = rights(name, path, meta, mode).into_iter().collect();
    if !sys::file::is_writable(path) {
        let f = error(format!("the {name} folder {shown} is not writable"));
        all.push(f.why(if scene.running {
            "nothing can be put on record there any more"
        } else {
            "hob cannot start there"
        }));
    }
    all
}

/// Of folders within each other only the outermost is told.
fn missing(scene: &Scene<'_>, absent: &[(&str, &Path)]) -> Vec<Finding> {
    let outer = |path: &Path| absent.iter().all(|(_, other)| *other == path || !path.starts_with(other));
    let absent: Vec<_> = absent.iter().filter(|(_, path)| outer(path)).collect();
    if scene.running {
        let gone = |(name, path): &&(&str, &Path)| {
            let f = Finding::new(Grade::Error, AREA, format!("the {name} folder {} is gone", path.display()));
            f.why("somebody removed it under a hob that runs; what is written there is lost").todo("hob restart")
        };
        return absent.iter().map(gone).collect();
    }
    let above = |path: &Path| path.ancestors().skip(1).find(|a| a.exists()).unwrap_or(Path::new("/")).to_owned();
    let (can, cannot): (Vec<_>, Vec<_>) = absent.into_iter().partition(|(_, p)| sys::file::is_writable(&above(p)));
    let mut all: Vec<Finding> = cannot
        .into_iter()
        .map(|(name, path)| {
            let (shown, above) = (path.display(), above(path));
            let what = format!("the {name} folder {shown} cannot be made: {} is not writable", above.display());
            Finding::new(Grade::Error, AREA, what).why("hob cannot start").todo("hob --home DIR start")
        })
        .collect();
    let names: Vec<String> = can.iter().map(|(_, path)| path.display().to_string()).collect();
    if !names.is_empty() {
        let what = format!("not there yet, and made by the first start: {}", names.join(", "));
        all.push(Finding::new(Grade::Note, AREA, what));
    }
    all
}

/// What exists of a path.
fn nearest(path: &Path) -> &Path {
    path.ancestors().find(|a| a.exists()).unwrap_or(Path::new("/"))
}

fn same_device(one: &Path, other: &Path) -> bool {
    let device = |path: &Path| nearest(path).metadata().map(|m| m.dev()).ok();
    device(one) == device(other)
}

fn same_storage(one: &Path, other: &Path) -> bool {
    storage(nearest(one)).ok() == storage(nearest(other)).ok()
}

/// Whose it is and what others may do there.
fn rights(name: &str, path: &Path, meta: &Metadata, expected: u32) -> Option<Finding> {
    let own = sys::user::own().0;
    let mode = meta.permissions().mode() & 0o7777;
    let shown = path.display();
    if meta.uid() != own {
        let (grade, who) = (if own == 0 { Grade::Warning } else { Grade::Error }, user_name(meta.uid()));
        let f =
            Finding::new(grade, AREA, format!("the {name} folder {shown} belongs to {who}, not to {}", user_name(own)));
        let why = "its owner can change what hob believes, and hob may not write there";
        return Some(f.why(why).todo(format!("chown -R {own} {}", quoted(path))));
    }
    if mode & 0o022 != 0 {
        // Where every user has a group of its own, that group is no stranger.
        let (grade, who) = if mode & 0o002 != 0 { (Grade::Error, "others") } else { (Grade::Warning, "its group") };
        let f = Finding::new(grade, AREA, format!("{who} may write to the {name} folder {shown} (mode {mode:o})"));
        let why = "they can replace what hob runs and remembers";
        return Some(f.why(why).todo(format!("chmod {expected:o} {}", quoted(path))));
    }
    // A home that somebody else made may be open to readers; what is secret lies deeper.
    if mode & !expected & 0o777 != 0 && name != "home" {
        let f = Finding::new(
            Grade::Warning,
            AREA,
            format!("others may look into the {name} folder {shown} (mode {mode:o})"),
        );
        let why = "output of services may hold secrets";
        return Some(f.why(why).todo(format!("chmod {expected:o} {}", quoted(path))));
    }
    None
}

fn link(path: &Path) -> Option<Finding> {
    let f = path.symlink_metadata().ok().filter(Metadata::is_symlink)?;
    debug_assert!(f.is_symlink());
    let f = Finding::new(Grade::Warning, AREA, format!("{} is a link", path.display()));
    Some(f.why("hob never follows one, and replaces it or fails").todo(format!("rm {}", quoted(path))))
}

/// Why no output is kept, where so little is free on the file system of the logs.
#[must_use]
pub fn logs_full(logs: &Path) -> Option<String> {
    let (free, all) = sys::file::space_at(nearest(logs)).ok()?;
    (free < guard::least(all)).then(|| format!("{}: output is dropped until there is more", left(logs, free, all)))
}

fn left(path: &Path, free: u64, all: u64) -> String {
    format!("{} of {} are free on the file system of {}", human_size(free), human_size(all), path.display())
}

fn room(path: &Path) -> Option<Finding> {
    let (free, all) = sys::file::space_at(nearest(path)).ok()?;
    room_of(path, free, all).or_else(|| no_inodes(path))
}

fn no_inodes(path: &Path) -> Option<Finding> {
    let used_up = sys::file::lacks_inodes_at(nearest(path)).ok()?;
    let what = format!("no inode is free on the file system of {}", path.display());
    used_up.then(|| {
        let f = Finding::new(Grade::Error, AREA, what).why("no new file can be made there, however much room is left");
        f.todo(format!("df -i {}", quoted(path)))
    })
}

/// So much is free of all.
fn room_of(path: &Path, free: u64, all: u64) -> Option<Finding> {
    let left = left(path, free, all);
    let (closed, refuses) = (free < guard::least(all), free < 2 * JOURNAL_RESERVE);
    if closed || refuses {
        let f = Finding::new(Grade::Error, AREA, left);
        let why = match (closed, refuses) {
            (true, true) => "output of services is dropped, and soon new work is refused",
            (true, false) => "output of services is dropped",
            (false, _) => "soon new work is refused",
        };
        return Some(f.why(why).todo(format!("df -h {}", quoted(path))));
    }
    (free < SPACE_LOW.min(all / 16)).then(|| {
        let f = Finding::new(Grade::Warning, AREA, left);
        f.why(format!("with less than {} output of services is dropped", human_size(guard::least(all))))
            .todo(format!("du -xh {} | sort -h | tail", quoted(path)))
    })
}

/// What becomes of what is written there.
fn kept(name: &str, path: &Path) -> Option<Finding> {
    let shown = path.display();
    match storage(nearest(path)).ok()? {
        Storage::Local => None,
        Storage::Memory(_) if name == "run" => None,
        Storage::Memory(kind) => {
            let f = Finding::new(Grade::Warning, AREA, format!("the {name} folder {shown} is on {kind}"));
            Some(f.why("a reboot loses what is there").todo("name a folder on a disk with --home DIR"))
        }
        Storage::Network(kind) => {
            let f =
                Finding::new(Grade::Warning, AREA, format!("the {name} folder {shown} is on {kind}, over the network"));
            let why = "locks and syncs may not hold there, and hob waits for the network";
            Some(f.why(why).todo("name a folder on a local disk with --home DIR"))
        }
        Storage::Unsure(kind) => {
            let f = Finding::new(Grade::Note, AREA, format!("the {name} folder {shown} is on a {kind} file system"));
            Some(f.why("whether locks and syncs hold there is up to the program behind it"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_told_to_be_dropped_where_it_is() {
        let said = |free: u64, all: u64| {
            let f = room_of(Path::new("/x"), free, all)?;
            Some((f.grade, f.why.unwrap_or_default()))
        };
        let (mb, gb) = (1024 * 1024, 1024 * 1024 * 1024);
        let (grade, why) = said(mb, 3 * mb).unwrap();
        assert!(grade == Grade::Error && why == "soon new work is refused", "{why}");
        let (_, why) = said(10 * 1024, 3 * mb).unwrap();
        assert!(why.contains("is dropped, and soon new work is refused"), "{why}");
        let (grade, why) = said(20 * mb, 100 * gb).unwrap();
        assert!(grade == Grade::Error && why == "output of services is dropped", "{why}");
        let (grade, why) = said(40 * mb, gb).unwrap();
        assert!(grade == Grade::Warning && why.contains(&human_size(guard::least(gb))), "{why}");
        assert_eq!(said(40 * gb, 100 * gb), None);
    }
}
