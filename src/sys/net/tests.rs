//! Real sockets in a folder of their own.

use super::*;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

const LIMIT: Duration = Duration::from_secs(10);

struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let unique = format!("hob-net-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(unique);
        std::fs::create_dir_all(&folder).unwrap();
        Folder(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A byte there and back.
fn talk(listener: &UnixListener, path: &Path) {
    let mut client = connect(path, LIMIT).unwrap();
    let mut server = accept(listener.as_fd()).unwrap();
    assert_eq!(first_byte(&server), None);
    client.write_all(b"x").unwrap();
    assert_eq!(first_byte(&server), Some(b'x'));
    let mut byte = [0];
    server.read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"x");
    assert_eq!(server.read(&mut byte).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    assert_eq!(accept(listener.as_fd()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    let cred = credentials(server.as_fd()).unwrap();
    assert_eq!(cred.uid, std::fs::metadata("/proc/self").map_or(cred.uid, |m| m.uid()));
    assert!(cred.pid == std::process::id() || cred.pid == 0);
}

#[test]
fn the_mode_is_set_and_a_stale_socket_is_replaced() {
    let folder = Folder::new();
    let path = folder.0.join("hob.sock");
    for mode in [0o600, 0o666, 0o600] {
        let listener = listen(&path, mode).unwrap();
        assert_eq!(path.symlink_metadata().unwrap().mode() & 0o7777, mode);
        talk(&listener, &path);
        assert_eq!(std::fs::read_dir(&folder.0).unwrap().count(), 1, "nothing but the socket is left");
    }
    assert_eq!(connect(&path, LIMIT).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
}

#[test]
fn what_is_no_socket_is_left_alone() {
    let folder = Folder::new();
    let (file, link) = (folder.0.join("file"), folder.0.join("link"));
    std::fs::write(&file, "mine").unwrap();
    std::os::unix::fs::symlink(&file, &link).unwrap();
    for path in [&file, &link, &folder.0] {
        assert_eq!(listen(path, 0o600).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
    assert!(link.symlink_metadata().unwrap().file_type().is_symlink());
    assert_eq!(listen(&folder.0.join("no/such"), 0o600).unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[cfg(target_os = "linux")]
#[test]
fn long_paths_work() {
    let folder = Folder::new();
    let deep = folder.0.join("d".repeat(120)).join("e".repeat(200));
    std::fs::create_dir_all(&deep).unwrap();
    for name in ["hob.sock".to_owned(), "n".repeat(150)] {
        let path = deep.join(name);
        let listener = listen(&path, 0o600).unwrap();
        talk(&listener, &path);
    }
    assert_eq!(connect(&deep.join("none"), LIMIT).unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[cfg(target_os = "linux")]
#[test]
fn abstract_names_leave_no_file() {
    let name = format!("@hob-net-{}", std::process::id());
    let path = Path::new(&name);
    let listener = listen(path, 0o600).unwrap();
    talk(&listener, path);
    assert!(!path.exists());
    assert_eq!(listen(path, 0o600).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    assert_eq!(listen(Path::new("@"), 0o600).unwrap_err().kind(), io::ErrorKind::InvalidInput);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_queue_ends_in_time() {
    let folder = Folder::new();
    let path = folder.0.join("hob.sock");
    let listener = listen(&path, 0o600).unwrap();
    // SAFETY: no pointers are passed; the descriptor is open.
    check(unsafe { libc::listen(listener.as_raw_fd(), 0) }).unwrap();
    let _first = connect(&path, LIMIT).unwrap();
    let short = Duration::from_millis(20);
    assert_eq!(connect(&path, short).unwrap_err().kind(), io::ErrorKind::TimedOut);
}

#[test]
fn processes_exist_until_they_do_not() {
    assert!(exists(std::process::id()) && exists(1) && !exists(0) && !exists(u32::MAX));
    let mut child = std::process::Command::new("true").spawn().unwrap();
    child.wait().unwrap();
    assert!(!exists(child.id()));
}

#[test]
fn nobody_inherits_them() {
    let folder = Folder::new();
    let path = folder.0.join("hob.sock");
    let listener = listen(&path, 0o600).unwrap();
    let client = connect(&path, LIMIT).unwrap();
    let server = accept(listener.as_fd()).unwrap();
    let spare = reserve().unwrap();
    for fd in [listener.as_raw_fd(), client.as_raw_fd(), server.as_raw_fd(), spare.as_raw_fd()] {
        // SAFETY: no pointers are passed; the descriptor is open.
        assert_eq!(unsafe { libc::fcntl(fd, libc::F_GETFD) } & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
    }
    assert!(groups(server.as_fd()).len() < 70_000);
}
