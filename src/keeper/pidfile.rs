//! The pid file: one number and a line feed, for `kill -HUP $(cat hob.pid)`.

use std::fs;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Puts this process's pid into place at once; a file or link that is there is replaced, never followed.
pub(super) fn write(path: &Path) -> io::Result<()> {
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
pub(super) fn remove(path: &Path) {
    let is_file = fs::symlink_metadata(path).is_ok_and(|m| m.is_file());
    if is_file && fs::read(path).is_ok_and(|content| content == text().as_bytes()) {
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
}
