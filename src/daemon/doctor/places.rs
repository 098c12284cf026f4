//! The folders of hob: there, its own, closed to others, writable, with room, on a file system that keeps promises.

use super::{Scene, quoted, reason, user_name};
use crate::base::finding::{Finding, Grade};
use crate::base::limits::{JOURNAL_RESERVE, LOG_DISK_FREE_MIN};
use crate::base::units::human_size;
use crate::sys;
use crate::sys::features::{Storage, storage};
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
    for (at, (name, path, mode)) in folders.into_iter().enumerate() {
        if folders[..at].iter().all(|(_, earlier, _)| *earlier != path) {
            all.extend(folder(scene, name, path, mode));
        }
    }
    for path in [&p.lock, &p.pid, &p.heartbeat, &p.state_json, &p.log] {
        all.extend(link(path));
    }
    all.extend([&p.state, &p.logs].into_iter().flat_map(|path| room(path)));
    for (name, path) in [("run", &p.run), ("state", &p.state), ("logs", &p.logs)] {
        all.extend(kept(name, path));
    }
    if all.iter().all(|f| f.grade <= Grade::Note) {
        let what = format!("{} and its folders are there, hob's own, and writable", p.home.display());
        if p.home.exists() {
            all.insert(0, Finding::new(Grade::Ok, AREA, what));
        }
    }
    all
}

fn folder(scene: &Scene<'_>, name: &str, path: &Path, mode: u32) -> Vec<Finding> {
    let shown = path.display();
    let error = |what: String| Finding::new(Grade::Error, AREA, what);
    let meta = match path.symlink_metadata() {
        Ok(meta) => meta,
        Err(e) if e.kind() == ErrorKind::NotFound => return vec![missing(scene, name, path)],
        Err(e) => return vec![error(format!("the {name} folder {shown} cannot be looked at: {}", reason(&e)))],
    };
    if meta.is_symlink() {
        let f = error(format!("the {name} folder {shown} is a link"));
        return vec![f.why("hob does not follow one there").todo(format!("rm {0} && mkdir {0}", quoted(path)))];
    }
    if !meta.is_dir() {
        let f = error(format!("{shown} is to be the {name} folder and is none"));
        return vec![f.why("hob cannot start").todo(format!("mv {0} {0}.old", quoted(path)))];
    }
    let mut all: Vec<Finding> = rights(name, path, &meta, mode).into_iter().collect();
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

fn missing(scene: &Scene<'_>, name: &str, path: &Path) -> Finding {
    let shown = path.display();
    if scene.running {
        let f = Finding::new(Grade::Error, AREA, format!("the {name} folder {shown} is gone"));
        return f.why("somebody removed it under a hob that runs; what is written there is lost").todo("hob restart");
    }
    let above = path.ancestors().skip(1).find(|a| a.exists()).unwrap_or(Path::new("/"));
    if sys::file::is_writable(above) {
        return Finding::new(
            Grade::Note,
            AREA,
            format!("the {name} folder {shown} is not there; the first start makes it"),
        );
    }
    let f = Finding::new(
        Grade::Error,
        AREA,
        format!("the {name} folder {shown} cannot be made: {} is not writable", above.display()),
    );
    f.why("hob cannot start").todo("hob --home DIR start")
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
        let f =
            Finding::new(Grade::Error, AREA, format!("others may write to the {name} folder {shown} (mode {mode:o})"));
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

fn room(path: &Path) -> Option<Finding> {
    let (free, all) = std::fs::File::open(path).and_then(sys::file::space).ok()?;
    let shown = path.display();
    let left = format!("{} of {} are free on the file system of {shown}", human_size(free), human_size(all));
    if free < LOG_DISK_FREE_MIN.max(2 * JOURNAL_RESERVE) {
        let f = Finding::new(Grade::Error, AREA, left);
        return Some(
            f.why("logs are not written any more, and soon new work is refused")
                .todo(format!("df -h {}", quoted(path))),
        );
    }
    (free < SPACE_LOW.min(all / 16)).then(|| {
        let f = Finding::new(Grade::Warning, AREA, left);
        f.why("with less than 32 MiB output of services is dropped")
            .todo(format!("du -xh {} | sort -h | tail", quoted(path)))
    })
}

/// What becomes of what is written there.
fn kept(name: &str, path: &Path) -> Option<Finding> {
    let shown = path.display();
    match storage(path).ok()? {
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
