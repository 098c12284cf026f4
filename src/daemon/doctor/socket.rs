//! The control socket, the lock and the pid file: whether they agree with each other and with who runs.

use super::{Scene, quoted};
use crate::base::finding::{Finding, Grade};
use crate::config::Config;
use crate::sys;
use crate::sys::file::lock::{self, Content};
use crate::sys::reason;
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

const SOCKET: &str = "socket";
const LOCK: &str = "lock";
/// The longest path that every program can connect to.
const PATH_MAX: usize = 107;
/// More than a lock or a pid file holds.
const SMALL: u64 = 4096;

/// Who holds the lock.
enum Holder {
    Nobody,
    Hob(u32),
    /// Somebody who cannot be told.
    Unknown,
}

pub(super) fn look(scene: &Scene<'_>, config: Option<&Config>) -> Vec<Finding> {
    let mut all = Vec::new();
    let holder = match holder(scene) {
        Ok((holder, found)) => {
            all.extend(found);
            holder
        }
        Err(f) => {
            all.push(f);
            return all;
        }
    };
    all.extend(pid_file(scene, &holder));
    all.extend(socket(scene, &holder, config));
    all
}

fn holder(scene: &Scene<'_>) -> Result<(Holder, Option<Finding>), Finding> {
    let path = &scene.paths.lock;
    let held = lock::holder(path).map_err(|e| {
        let f = Finding::new(Grade::Error, LOCK, format!("{} cannot be read: {}", path.display(), reason(&e)));
        f.why("it is what keeps two hobs from running in one home").todo("run this as the user that hob runs as")
    })?;
    Ok(match held {
        Some(Some(c)) if c.is_alive() => {
            let what = format!("hob runs with pid {}", c.pid);
            (Holder::Hob(c.pid), Some(Finding::new(Grade::Ok, LOCK, what)))
        }
        Some(_) => {
            let f = Finding::new(Grade::Warning, LOCK, format!("{} is held, and does not say by whom", path.display()));
            let why = "a daemon whose keeper was killed is still stopping its jobs, or the file was damaged";
            (Holder::Unknown, Some(f.why(why).todo("wait a moment; then hob stop --force")))
        }
        None => {
            let left = sys::file::read_whole(path, SMALL).unwrap_or_default();
            let found = match Content::parse(&left) {
                Some(c) => {
                    let f =
                        Finding::new(Grade::Note, LOCK, format!("the hob before, pid {}, did not end properly", c.pid));
                    f.why("the next one looks for what it left, and stops that first").todo("hob start")
                }
                None if left.is_empty() => {
                    let f = Finding::new(Grade::Note, LOCK, "hob does not run");
                    f.why("the rest was found without it").todo("hob start")
                }
                None => {
                    let f = Finding::new(
                        Grade::Note,
                        LOCK,
                        format!("{} was damaged; the next start writes it anew", path.display()),
                    );
                    f.todo("hob start")
                }
            };
            (Holder::Nobody, Some(found))
        }
    })
}

fn pid_file(scene: &Scene<'_>, holder: &Holder) -> Option<Finding> {
    let path = &scene.paths.pid;
    let text = sys::file::read_whole(path, SMALL).ok().map(|b| String::from_utf8_lossy(&b).into_owned());
    let named = text.as_deref().and_then(|t| t.trim().parse::<u32>().ok());
    let shown = path.display();
    match (holder, text.is_some(), named) {
        (Holder::Hob(pid), _, Some(named)) if named == *pid => None,
        (Holder::Hob(_), false, _) if scene.managed || !scene.running => None,
        (Holder::Hob(pid), there, _) => {
            let is = if there { "does not name it" } else { "is gone" };
            let f = Finding::new(Grade::Warning, LOCK, format!("hob runs with pid {pid} and {shown} {is}"));
            let why = "what goes by the pid file reaches nobody, or somebody else";
            Some(f.why(why).todo(format!("echo {pid} > {}", quoted(path))))
        }
        (Holder::Nobody, true, _) => {
            let f = Finding::new(Grade::Note, LOCK, format!("{shown} is left of a hob that does not run"));
            Some(f.why("the next start replaces it").todo(format!("rm {}", quoted(path))))
        }
        (Holder::Nobody | Holder::Unknown, _, _) => None,
    }
}

fn socket(scene: &Scene<'_>, holder: &Holder, config: Option<&Config>) -> Vec<Finding> {
    let path = &scene.paths.socket;
    let mut all = Vec::new();
    let length = path.as_os_str().len();
    if length > PATH_MAX {
        let f =
            Finding::new(Grade::Warning, SOCKET, format!("its path has {length} bytes, and {PATH_MAX} fit an address"));
        let why = "hob's own commands find a way around that; other programs cannot connect";
        all.push(f.why(why).todo("hob --socket SHORTER-PATH start"));
    }
    if sys::net::is_abstract(path) {
        let f = Finding::new(Grade::Note, SOCKET, format!("{} is an abstract socket", path.display()));
        all.push(f.why("no file mode protects it; who may use it is decided by user and group alone"));
        return all;
    }
    match path.symlink_metadata() {
        Ok(meta) if meta.file_type().is_socket() => {
            let mode = meta.permissions().mode() & 0o777;
            all.extend(there(scene, holder));
            let jobs = |c: &Config| c.services.values().any(|s| s.lets_others_in());
            let others = scene.others.or(config.map(|c| !c.daemon.access.is_empty() || jobs(c)));
            all.extend(others.and_then(|others| mode_of(scene, path, mode, others)));
        }
        Ok(_) => {
            let f = Finding::new(Grade::Error, SOCKET, format!("{} is there and is not a socket", path.display()));
            all.push(f.why("hob does not replace what is not its own").todo(format!("mv {0} {0}.old", quoted(path))));
        }
        Err(e) if e.kind() == ErrorKind::NotFound => {
            if matches!(holder, Holder::Hob(_)) {
                let f = Finding::new(Grade::Error, SOCKET, format!("{} is gone, and hob runs", path.display()));
                all.push(
                    f.why("no client finds hob any more; services go on").todo("hob stop --force; then hob start"),
                );
            }
        }
        Err(e) => {
            let what = format!("{} cannot be looked at: {}", path.display(), reason(&e));
            all.push(Finding::new(Grade::Error, SOCKET, what));
        }
    }
    all
}

/// A socket is there: is there somebody behind it?
fn there(scene: &Scene<'_>, holder: &Holder) -> Option<Finding> {
    let path = &scene.paths.socket;
    let shown = path.display();
    if scene.running {
        let by = if scene.given { ", which was passed to hob" } else { "" };
        return Some(Finding::new(Grade::Ok, SOCKET, format!("hob answers at {shown}{by}")));
    }
    if matches!(holder, Holder::Nobody) && sys::features::listens(path) == Some(true) {
        // Whoever connects there may start hob.
        let f = Finding::new(Grade::Note, SOCKET, format!("a service manager listens at {shown}"));
        return Some(f.why("it starts hob when somebody connects"));
    }
    let reached = sys::net::reach(path);
    match (holder, reached) {
        (Holder::Nobody, Err(e)) if e.kind() == ErrorKind::ConnectionRefused => {
            let f = Finding::new(Grade::Note, SOCKET, format!("{shown} is left of a hob that does not run"));
            Some(f.why("the next start replaces it").todo("hob start"))
        }
        (Holder::Nobody, Ok(())) => {
            let f =
                Finding::new(Grade::Warning, SOCKET, format!("somebody listens at {shown} who does not hold the lock"));
            Some(
                f.why("clients talk to another program, or to a hob of another home")
                    .todo(format!("fuser {}", quoted(path))),
            )
        }
        (Holder::Hob(_) | Holder::Unknown, Err(e)) if e.kind() == ErrorKind::PermissionDenied => {
            let f = Finding::new(Grade::Error, SOCKET, format!("{shown} is not for you"));
            Some(
                f.why("hob answers its own user, root, and whom daemon.access names")
                    .todo("run this as the user that hob runs as"),
            )
        }
        (Holder::Hob(pid), Err(e)) => {
            let f = Finding::new(
                Grade::Error,
                SOCKET,
                format!("hob runs with pid {pid} and cannot be reached at {shown}: {}", reason(&e)),
            );
            Some(f.why("no client finds it; services go on").todo("hob stop --force; then hob start"))
        }
        (Holder::Nobody | Holder::Unknown, Err(_)) | (Holder::Hob(_) | Holder::Unknown, Ok(())) => None,
    }
}

/// Its mode is the outer door: the user of a peer is looked at behind it.
fn mode_of(scene: &Scene<'_>, path: &Path, mode: u32, others: bool) -> Option<Finding> {
    let expected = if others { 0o666 } else { 0o600 };
    if scene.given || mode == expected {
        return None;
    }
    let shown = path.display();
    let todo = format!("chmod {expected:o} {}", quoted(path));
    Some(if others && mode & 0o066 != 0o066 {
        let f = Finding::new(
            Grade::Warning,
            SOCKET,
            format!(
                "{shown} has mode {mode:o}, and the config lets others in (daemon.access, or services of other users)"
            ),
        );
        f.why("whom the config lets in does not get as far as hob").todo(todo)
    } else {
        let f = Finding::new(Grade::Note, SOCKET, format!("{shown} has mode {mode:o} instead of {expected:o}"));
        f.why("hob turns strangers away all the same, by their user").todo(todo)
    })
}
