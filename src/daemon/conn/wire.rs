//! The socket of one connection: a stream of bytes, or messages (HOB_FD). Reads and writes it.

use crate::base::limits::MESSAGE_MAX;
use crate::protocol::frame::{Decoder, Framing, first_message};
use crate::sys::chan::{self, Chan};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;

#[derive(Debug)]
pub(super) enum Wire {
    Stream(UnixStream),
    Messages(Chan),
}

/// What one read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Got {
    Bytes(usize),
    /// A whole message.
    Message(usize),
    /// A message that is empty or longer than [`MESSAGE_MAX`].
    Unfit,
    End,
}

impl Wire {
    /// The framing, where nobody may choose it.
    pub(super) fn framing(&self) -> Option<Framing> {
        match self {
            Wire::Stream(_) => None,
            Wire::Messages(_) => Some(Framing::Messages),
        }
    }

    pub(super) fn decoder(&self) -> Decoder {
        match self {
            Wire::Stream(_) => Decoder::new(),
            Wire::Messages(_) => Decoder::messages(),
        }
    }

    /// `at_end`: nothing more will be sent, so that nothing read is the end and not an empty message.
    pub(super) fn read(&mut self, buf: &mut [u8], at_end: bool) -> io::Result<Got> {
        match self {
            Wire::Stream(stream) => Ok(match stream.read(buf)? {
                0 => Got::End,
                n => Got::Bytes(n),
            }),
            Wire::Messages(chan) => {
                let room = buf.len().min(MESSAGE_MAX);
                match chan.recv(buf.get_mut(..room).unwrap_or_default()) {
                    // Descriptors that came along are closed here.
                    Ok(Some((n, _))) if n > 0 => Ok(Got::Message(n)),
                    Ok(None) if at_end => Ok(Got::End),
                    Ok(_) => Ok(Got::Unfit),
                    Err(e) if e.kind() == io::ErrorKind::InvalidData => Ok(Got::Unfit),
                    Err(e) => Err(e),
                }
            }
        }
    }

    /// Writes from the beginning of what is unsent, and answers how much of it is done.
    pub(super) fn write(&mut self, unsent: &[u8]) -> io::Result<usize> {
        match self {
            Wire::Stream(stream) => stream.write(unsent),
            Wire::Messages(chan) => {
                let (message, used) = first_message(unsent).ok_or(io::ErrorKind::InvalidData)?;
                match chan.send(message, &[]) {
                    Ok(()) => Ok(used),
                    Err(e) if chan::is_later(&e) => Err(io::ErrorKind::WouldBlock.into()),
                    Err(e) => Err(e),
                }
            }
        }
    }
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Wire::Stream(stream) => stream.as_fd(),
            Wire::Messages(chan) => chan.as_fd(),
        }
    }
}

impl AsRawFd for Wire {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}
