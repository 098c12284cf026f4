//! A stream that belongs to others too, such as standard input, and is emptied without ever waiting: that it was
//! readable does not say that another of its readers was not quicker. What others share is not made non-blocking.

use super::{check_size, pipe};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileTypeExt;

/// Bytes that are thrown away at once.
const MOST: usize = 4096;

/// Throws away what lies in a pipe or socket; how many bytes that was. Zero: it has come to its end.
///
/// # Errors
/// `WouldBlock` when there is nothing; ECONNRESET and the like for a socket whose other end is gone.
pub fn discard(from: &File) -> io::Result<usize> {
    if !from.metadata()?.file_type().is_socket() {
        return pipe::discard(from.as_fd(), MOST);
    }
    let mut bytes = [0u8; MOST];
    // SAFETY: `bytes` is writable for its length.
    check_size(unsafe { libc::recv(from.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len(), libc::MSG_DONTWAIT) })
}
