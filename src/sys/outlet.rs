//! A stream that people read, standard error above all, and that is written to without ever waiting for its reader:
//! what it does not take at once is left out there.
//!
//! To make the stream itself non-blocking would change it for everybody who shares it. So a pipe or terminal is opened
//! anew, as an open file of hob's own, and a socket is written to by calls that do not wait. Where a stream cannot be
//! opened anew (Linux without /proc, one that belongs to another user, a pipe on the other systems), it is asked
//! whether it takes a piece before each piece. That is sure for pipes that nobody else fills; a terminal may then hold
//! its writer up while nobody reads it.

use super::chan::SEND_FLAGS;
use super::{check_size, logfile};
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::time::Duration;

/// What a pipe that is writable takes without waiting, and whole or not at all.
const PIECE: usize = if cfg!(target_os = "linux") { 4096 } else { 512 };

/// How a write is kept from waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A regular file, which always takes everything.
    Plain,
    /// An open file of hob's own that does not block.
    Own,
    Socket,
    /// It is asked first.
    Asked,
}

/// A stream that is never waited for.
#[derive(Debug)]
pub struct Outlet {
    file: File,
    kind: Kind,
    /// The last piece was taken in part, so that its line lacks its end.
    torn: bool,
}

impl Outlet {
    /// This process's standard error; `None` where it is closed or /dev/null.
    #[must_use]
    pub fn stderr() -> Option<Outlet> {
        Outlet::new(io::stderr().as_fd().try_clone_to_owned().ok()?)
    }

    /// `None` for /dev/null, where nobody reads.
    #[must_use]
    pub fn new(fd: OwnedFd) -> Option<Outlet> {
        let file = File::from(fd);
        let meta = file.metadata().ok()?;
        if is_null(&meta) {
            return None;
        }
        let found = meta.file_type();
        let (file, kind) = if found.is_file() {
            (file, Kind::Plain)
        } else if found.is_socket() {
            (file, Kind::Socket)
        } else {
            match open_anew(file.as_fd()) {
                Some(own) => (own, Kind::Own),
                None => (file, Kind::Asked),
            }
        };
        Some(Outlet { file, kind, torn: false })
    }

    /// Whether `stream`, the value of JOURNAL_STREAM, says that systemd's journal reads here.
    #[must_use]
    pub fn is_journal(&self, stream: &str) -> bool {
        self.file.metadata().is_ok_and(|m| stream == format!("{}:{}", m.dev(), m.ino()))
    }

    /// Writes as many of these lines as are taken at once.
    ///
    /// # Errors
    /// When the stream is of no use any more: nobody is left who could read it.
    pub fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        let mut rest = lines;
        if self.torn {
            if !self.taken(b"\n")? {
                return Ok(());
            }
            self.torn = false;
        }
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(piece(rest));
            if !self.taken(piece)? {
                return Ok(());
            }
            rest = after;
        }
        Ok(())
    }

    /// Whether a piece was taken whole.
    fn taken(&mut self, piece: &[u8]) -> io::Result<bool> {
        let written = match self.kind {
            Kind::Plain | Kind::Own => self.file.write(piece),
            Kind::Socket => send(self.file.as_fd(), piece),
            Kind::Asked if logfile::writable(self.file.as_fd(), Duration::ZERO)? => self.file.write(piece),
            Kind::Asked => return Ok(false),
        };
        match written {
            Ok(n) => {
                self.torn |= (1..piece.len()).contains(&n);
                Ok(n == piece.len())
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(false),
            // A disk that is full may have room later, and a socket's buffers memory.
            Err(e) if logfile::is_full(&e) => Ok(false),
            Err(e) => Err(e),
        }
    }
}

/// How much is written at once: whole lines, as far as they fit.
fn piece(bytes: &[u8]) -> usize {
    let most = bytes.len().min(PIECE);
    bytes.iter().take(most).rposition(|b| *b == b'\n').map_or(most, |at| at + 1)
}

/// Whether whatever is written there is thrown away.
fn is_null(meta: &Metadata) -> bool {
    let device = |m: &Metadata| m.file_type().is_char_device().then(|| m.rdev());
    let null = std::fs::metadata("/dev/null").ok().as_ref().and_then(device);
    null.is_some() && device(meta) == null
}

fn open_anew(fd: BorrowedFd<'_>) -> Option<File> {
    OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path_of(fd)?).ok()
}

/// A path that leads to what this descriptor is open on.
#[cfg(target_os = "linux")]
#[expect(clippy::unnecessary_wraps, reason = "other systems know no such path of a pipe")]
fn path_of(fd: BorrowedFd<'_>) -> Option<PathBuf> {
    Some(format!("/proc/self/fd/{}", fd.as_raw_fd()).into())
}

/// A path that leads to what this descriptor is open on: these systems know one of terminals alone.
#[cfg(not(target_os = "linux"))]
fn path_of(fd: BorrowedFd<'_>) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStrExt as _;
    let mut name = [0u8; 128];
    // SAFETY: `name` is writable for its length.
    if unsafe { libc::ttyname_r(fd.as_raw_fd(), name.as_mut_ptr().cast(), name.len()) } != 0 {
        return None;
    }
    let path = std::ffi::CStr::from_bytes_until_nul(&name).ok()?;
    Some(std::ffi::OsStr::from_bytes(path.to_bytes()).into())
}

fn send(to: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT | SEND_FLAGS;
    // SAFETY: `bytes` is readable for its length.
    check_size(unsafe { libc::send(to.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::pipe;
    use std::io::Read as _;
    use std::os::fd::FromRawFd as _;
    use std::os::unix::net::UnixStream;
    use std::sync::mpsc;

    /// Writes far more than any reader's buffer takes, in a thread that a blocking write would hold up for ever.
    fn flood(mut outlet: Outlet) -> (Outlet, io::Result<()>) {
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            let line = [b"x".repeat(99), b"\n".to_vec()].concat();
            let result = (0..40_000).try_for_each(|_| outlet.write(&line));
            let _ = tell.send((outlet, result));
        });
        told.recv_timeout(Duration::from_secs(60)).expect("a reader that does not read holds nobody up")
    }

    fn blocks(fd: BorrowedFd<'_>) -> bool {
        // SAFETY: F_GETFL takes no memory.
        unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) & libc::O_NONBLOCK == 0 }
    }

    /// Both ends of a terminal.
    fn terminal() -> (File, OwnedFd) {
        let (mut ours, mut theirs) = (-1, -1);
        let null = std::ptr::null_mut();
        // SAFETY: the call writes two descriptors; name, settings and size may be left out.
        let made =
            unsafe { libc::openpty(&raw mut ours, &raw mut theirs, null, null.cast::<libc::termios>(), null.cast()) };
        assert_eq!(made, 0);
        // SAFETY: both were just opened, and nobody else owns them.
        unsafe { (File::from_raw_fd(ours), OwnedFd::from_raw_fd(theirs)) }
    }

    #[test]
    fn a_full_pipe_is_left_alone_and_read_in_whole_lines() {
        let (read, write) = pipe::output().unwrap();
        let shared = write.try_clone().unwrap();
        let (mut outlet, result) = flood(Outlet::new(write).unwrap());
        result.unwrap();
        assert!(blocks(shared.as_fd()), "others who write there are not changed");
        let mut text = vec![0; 1 << 20];
        let n = File::from(read.try_clone().unwrap()).read(&mut text).unwrap();
        assert!(n >= 4096 && n % 100 == 0, "{n}");
        outlet.write(b"there is room again\n").unwrap();
        assert_eq!(pipe::waiting(&read).unwrap(), 20);
        drop((shared, read));
        assert!(outlet.write(b"to nobody\n").is_err());
    }

    #[test]
    fn a_terminal_that_nobody_reads_is_left_alone() {
        let (mut ours, theirs) = terminal();
        let shared = theirs.try_clone().unwrap();
        let (mut outlet, result) = flood(Outlet::new(theirs).unwrap());
        result.unwrap();
        assert!(blocks(shared.as_fd()));
        let mut seen = String::new();
        while !seen.contains("\nhello") {
            outlet.write(b"hello\n").unwrap();
            let mut bytes = [0; 4096];
            let n = ours.read(&mut bytes).unwrap();
            seen.push_str(std::str::from_utf8(&bytes[..n]).unwrap());
        }
    }

    #[test]
    fn a_socket_that_nobody_reads_is_left_alone() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let shared = theirs.try_clone().unwrap();
        let (mut outlet, result) = flood(Outlet::new(theirs.into()).unwrap());
        result.unwrap();
        assert!(blocks(shared.as_fd()));
        drop(ours);
        assert!(outlet.write(b"to nobody\n").is_err());
    }

    #[test]
    fn where_nothing_can_be_opened_anew_a_pipe_is_asked() {
        let (_read, write) = pipe::output().unwrap();
        let outlet = Outlet { file: write.into(), kind: Kind::Asked, torn: false };
        flood(outlet).1.unwrap();
    }

    #[test]
    fn nothing_is_written_to_where_it_is_thrown_away() {
        let open = |path: &str| OpenOptions::new().write(true).open(path).unwrap();
        assert!(Outlet::new(open("/dev/null").into()).is_none());
        assert_eq!(Outlet::new(open("/dev/zero").into()).unwrap().kind, Kind::Own);
    }

    #[test]
    fn pieces_end_with_lines() {
        assert_eq!((piece(b"a\nb\n"), piece(b"a\nb"), piece(b"ab")), (4, 2, 2));
        assert_eq!((piece(&[b'x'; PIECE + 9]), piece(&[b'\n'; PIECE + 9])), (PIECE, PIECE));
    }
}
