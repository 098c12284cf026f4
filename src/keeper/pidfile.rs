//! The pid file: one number and a line feed, for `kill -HUP $(cat hob.pid)`.
//!
//! One that names somebody else is worse than none: what an earlier hob left is removed before anything is started, and
//! one that cannot be written, as on a full disk, is tried again.

use crate::base::time::Mono;
use crate::sys::file::read_whole;
use std::fs;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Pauses between two attempts: the first, and the longest that they grow to.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct PidFile {
    /// Empty: there is to be none.
    pub(super) path: PathBuf,
    pub(super) written: bool,
    /// When it is to be written.
    at: Option<Mono>,
    pause: Duration,
    /// Why it could not be written the last time.
    failure: String,
}

impl PidFile {
    pub(super) fn new(path: PathBuf) -> PidFile {
        PidFile { path, written: false, at: None, pause: PAUSE, failure: String::new() }
    }

    /// Removes what an earlier hob left. A folder of this name is left alone, and reported by the writing.
    pub(super) fn clear(&self) {
        if !self.path.as_os_str().is_empty() {
            let _ = fs::remove_file(&self.path);
        }
    }

    /// There is something to be found by it now.
    pub(super) fn want(&mut self, now: Mono) {
        if !self.written && self.at.is_none() && !self.path.as_os_str().is_empty() {
            self.at = Some(now);
        }
    }

    pub(super) fn deadline(&self) -> Option<Mono> {
        self.at
    }

    /// Writes it if it is due. Answers what is to be reported, once for each kind of failure.
    pub(super) fn work(&mut self, now: Mono) -> Option<String> {
        self.at.filter(|at| *at <= now)?;
        let Err(e) = write(&self.path) else {
            (self.written, self.at) = (true, None);
            return None;
        };
        self.clear();
        self.at = Some(now + self.pause);
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        let failure = format!("cannot write {}: {e}; trying again", self.path.display());
        (self.failure != failure).then(|| {
            self.failure.clone_from(&failure);
            failure
        })
    }

    /// Removes it at the end.
    pub(super) fn remove(&self) {
        if self.written {
            remove(&self.path);
        }
    }
}

/// Puts this process's pid into place at once; a file or link that is there is replaced, never followed.
fn write(path: &Path) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    match fs::remove_file(&new) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    let written = io::Write::write_all(&mut file, text().as_bytes()).and_then(|()| fs::rename(&new, path));
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written
}

/// Removes the pid file if it is this process's own.
fn remove(path: &Path) {
    let text = text();
    let is_file = fs::symlink_metadata(path).is_ok_and(|m| m.is_file());
    if is_file && read_whole(path, text.len() as u64).is_ok_and(|content| content == text.as_bytes()) {
        // Somebody else may have been quicker; gone is gone.
        let _ = fs::remove_file(path);
    }
}

fn text() -> String {
    format!("{}\n", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_in_the_way_is_replaced_and_only_the_own_file_is_removed() {
        let dir = std::env::temp_dir().join(format!("hob-pidfile-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let (path, victim) = (dir.join("hob.pid"), dir.join("victim"));
        fs::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, &path).unwrap();
        std::os::unix::fs::symlink(&victim, dir.join("hob.pid.new")).unwrap();
        write(&path).unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        assert_eq!(fs::read_to_string(&path).unwrap(), text());
        fs::write(&path, "1\n").unwrap();
        remove(&path);
        assert!(path.exists(), "it belongs to another keeper");
        write(&path).unwrap();
        remove(&path);
        assert!(!path.exists());
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1, "only the victim is left");
        fs::remove_dir_all(&dir).unwrap();
    }
    #[test]
    fn one_that_cannot_be_written_does_not_stay_as_it_was_and_is_tried_again() {
        let dir = std::env::temp_dir().join(format!("hob-pidfile-again-{}", std::process::id()));
        let (path, way) = (dir.join("hob.pid"), dir.join("hob.pid.new"));
        // A folder in the way stands for every failure.
        fs::create_dir_all(&way).unwrap();
        fs::write(&path, "1\n").unwrap();
        let mut file = PidFile::new(path.clone());
        assert_eq!(file.work(Mono(1)), None);
        assert!(path.exists(), "nothing is due");
        file.want(Mono(1));
        assert!(file.work(Mono(1)).is_some_and(|text| text.starts_with("cannot write ")));
        assert!(!path.exists(), "it named somebody else");
        let again = file.deadline().unwrap();
        assert!(again > Mono(1));
        assert_eq!(file.work(again), None, "the same failure is reported once");
        fs::remove_dir(&way).unwrap();
        let again = file.deadline().unwrap();
        assert_eq!(file.work(again), None);
        assert_eq!((fs::read_to_string(&path).unwrap(), file.deadline()), (text(), None));
        file.want(again);
        assert_eq!(file.deadline(), None, "it is there");
        file.remove();
        assert!(!path.exists());
        fs::remove_dir_all(&dir).unwrap();
    }
}
