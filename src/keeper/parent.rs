//! The program that hob was started by as a part of it (`--managed`): hob ends with it.
//!
//! Its end is known in two ways, and the first counts: standard input, where that is a pipe or socket that it holds the
//! other end of, comes to an end; its process does.

use crate::sys::{inlet, wait};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;

#[derive(Debug)]
pub struct Parent {
    /// Readable when the process has ended.
    pub(super) process: Option<OwnedFd>,
    pub(super) stdin: Option<File>,
}

impl Parent {
    /// Whoever started this process.
    ///
    /// # Errors
    /// A sentence without a full stop when nothing would tell its end.
    pub fn find() -> Result<Parent, String> {
        let parent = Parent { process: process(), stdin: stdin().ok().flatten() };
        if parent.process.is_none() && parent.stdin.is_none() {
            return Err("nothing tells when the program ends that started this: its process cannot be watched, and \
                        standard input is neither a pipe nor a socket"
                .to_owned());
        }
        Ok(parent)
    }

    /// One that was found by the program before this one.
    pub(super) fn resume(process: Option<OwnedFd>, with_stdin: bool) -> Parent {
        Parent { process, stdin: stdin().ok().flatten().filter(|_| with_stdin) }
    }

    pub(super) fn fds(&self) -> [Option<BorrowedFd<'_>>; 2] {
        [self.process.as_ref().map(AsFd::as_fd), self.stdin.as_ref().map(AsFd::as_fd)]
    }

    /// What shows that it has ended, if it has.
    pub(super) fn ended(&self, process_ready: bool, stdin_ready: bool) -> Option<&'static str> {
        if process_ready {
            return Some("its process has ended");
        }
        let stdin = self.stdin.as_ref().filter(|_| stdin_ready)?;
        match inlet::discard(stdin) {
            Ok(0) => Some("standard input has ended"),
            Ok(_) => None,
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => None,
            // A socket whose other end was closed with something unread.
            Err(_) => Some("standard input is broken"),
        }
    }
}

/// `None` where it cannot be watched, as for one outside of this namespace of processes.
fn process() -> Option<OwnedFd> {
    let parent = std::os::unix::process::parent_id();
    let fd = wait::pidfd_open(parent).ok()?;
    // If it has died meanwhile, this process has another one, and the number may be somebody else's.
    (std::os::unix::process::parent_id() == parent).then_some(fd)
}

/// Standard input where its end means something: a terminal, a file or /dev/null says nothing of a parent.
fn stdin() -> io::Result<Option<File>> {
    let file = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let kind = file.metadata()?.file_type();
    Ok((kind.is_fifo() || kind.is_socket()).then_some(file))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::os::unix::net::UnixStream;

    #[test]
    fn bytes_are_thrown_away_and_the_end_is_the_end() {
        let (mut theirs, ours) = UnixStream::pair().unwrap();
        let parent = Parent { process: None, stdin: Some(File::from(OwnedFd::from(ours))) };
        theirs.write_all(b"hello").unwrap();
        assert_eq!(parent.ended(false, true), None);
        assert_eq!(parent.ended(false, false), None);
        drop(theirs);
        assert_eq!(parent.ended(false, true), Some("standard input has ended"));
        assert_eq!(parent.ended(true, false), Some("its process has ended"));
    }

    #[test]
    fn what_another_reader_took_first_is_not_waited_for() {
        let (pipe, writer) = io::pipe().unwrap();
        let (socket, other) = UnixStream::pair().unwrap();
        for stdin in [OwnedFd::from(pipe), socket.into()] {
            let parent = Parent { process: None, stdin: Some(File::from(stdin)) };
            let (tell, told) = std::sync::mpsc::channel();
            // A read that waits would never come back.
            std::thread::spawn(move || tell.send(parent.ended(false, true)));
            assert_eq!(told.recv_timeout(std::time::Duration::from_secs(60)), Ok(None));
        }
        drop((writer, other));
    }

    #[test]
    fn this_process_has_a_parent_that_lives() {
        let parent = Parent::find().unwrap();
        let [process, _] = parent.fds();
        let ready = crate::sys::chan::wait([(process, false)], Some(std::time::Duration::ZERO)).unwrap();
        assert!(!ready[0].readable);
    }
}
