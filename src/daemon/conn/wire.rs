//! The socket of one connection: a stream of bytes, or messages (HOB_FD). Reads and writes it.

use crate::base::limits::MESSAGE_MAX;
use crate::daemon::closer::Closer;
use crate::protocol::frame::{Decoder, Framing, first_message};
use crate::sys::chan::{self, Chan};
use crate::sys::net;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;

#[derive(Debug)]
pub(super) enum Wire {
    Stream(Guard<UnixStream>),
    Messages(Guard<Chan>),
}

/// A socket at whose other end is somebody else. Descriptors that may lie in it are not closed with it by whoever drops
/// it.
#[derive(Debug)]
pub(super) struct Guard<T: AsFd> {
    socket: T,
    /// The kernel does not refuse them.
    takes: bool,
    /// Nobody goes on with it: the keeper's copy of a channel outlives this daemon.
    last: bool,
    closer: Closer,
}

impl<T: AsFd> Guard<T> {
    pub(super) fn new(socket: T, last: bool, closer: &Closer) -> Guard<T> {
        let takes = net::takes_descriptors(socket.as_fd());
        Guard { socket, takes, last, closer: closer.clone() }
    }

    /// Whether descriptors come with what is read next.
    fn brings(&self, buf: &mut [u8]) -> bool {
        self.takes && net::peek(self.socket.as_fd(), buf).is_ok_and(|(_, descriptors)| descriptors)
    }
}

impl<T: AsFd> core::ops::Deref for Guard<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.socket
    }
}

impl<T: AsFd> Drop for Guard<T> {
    fn drop(&mut self) {
        let socket = self.socket.as_fd();
        if !self.takes || !self.last {
            return;
        }
        net::shut(socket);
        // Anything that is unread may hide what lies behind it; an empty message looks like the end.
        let unread = net::peek(socket, &mut [0; 64]);
        if unread.is_ok_and(|(n, descriptors)| n > 0 || descriptors)
            && let Ok(copy) = socket.try_clone_to_owned()
        {
            self.closer.drain(copy);
        }
    }
}

/// What one read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Got {
    Bytes(usize),
    /// A whole message.
    Message(usize),
    /// A message that is empty or longer than [`MESSAGE_MAX`].
    Unfit,
    /// Descriptors come with it, which nobody asked for: it was left where it is.
    Descriptors,
    End,
}

impl Wire {
    /// It is about to be closed for good.
    pub(super) fn retire(&mut self) {
        match self {
            Wire::Stream(stream) => stream.last = true,
            Wire::Messages(chan) => chan.last = true,
        }
    }

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
            Wire::Stream(stream) if stream.brings(buf) => Ok(Got::Descriptors),
            Wire::Messages(chan) if chan.brings(buf) => Ok(Got::Descriptors),
            Wire::Stream(stream) => Ok(match (&**stream).read(buf)? {
                0 => Got::End,
                n => Got::Bytes(n),
            }),
            Wire::Messages(chan) => {
                let room = buf.len().min(MESSAGE_MAX);
                match chan.recv(buf.get_mut(..room).unwrap_or_default()) {
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
            Wire::Stream(stream) => (&**stream).write(unsent),
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
            Wire::Stream(stream) => stream.socket.as_fd(),
            Wire::Messages(chan) => chan.socket.as_fd(),
        }
    }
}

impl AsRawFd for Wire {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}
