//! Messages to bytes, appended to the caller's buffer. Pure.

use super::{Framing, base64};
use crate::base::ids::StreamId;
use crate::base::limits::FRAME_MAX;
use std::io::Write as _;

/// The message does not fit into one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

/// Stream bytes that go into one message of a text framing.
const TEXT_CHUNK: usize = 256 * 1024;
/// The same on HOB_FD.
const MESSAGE_CHUNK: usize = 8 * 1024;

impl Framing {
    /// Appends one JSON text, given in parts so that nobody has to join them first.
    ///
    /// # Errors
    /// When it is longer than [`Framing::limit`]; nothing is appended then.
    pub fn write(self, out: &mut Vec<u8>, parts: &[&str]) -> Result<(), TooLong> {
        let len: usize = parts.iter().map(|p| p.len()).sum();
        if len > self.limit() {
            return Err(TooLong);
        }
        out.reserve(len + 32);
        match self {
            Framing::Binary | Framing::Messages => out.extend_from_slice(&head(0, len)),
            // Writing to a Vec cannot fail.
            Framing::Headers => drop(write!(out, "Content-Length: {len}\r\n\r\n")),
            Framing::Lines => {}
        }
        let body = out.len();
        for part in parts {
            out.extend_from_slice(part.as_bytes());
        }
        if self == Framing::Lines {
            // In a JSON text these are white space between tokens; they must not cut it.
            for b in out.iter_mut().skip(body).filter(|b| matches!(b, b'\n' | b'\r')) {
                *b = b' ';
            }
            out.push(b'\n');
        }
        Ok(())
    }

    /// Appends data of a stream: as it is in frames of their own, or as `stream.data` notifications with `text`, or
    /// `base64` where it is not UTF-8.
    pub fn stream_data(self, out: &mut Vec<u8>, id: StreamId, bytes: &[u8]) {
        if self == Framing::Binary {
            for chunk in bytes.chunks(FRAME_MAX - 4) {
                out.extend_from_slice(&head(1, chunk.len() + 4));
                out.extend_from_slice(&id.0.to_be_bytes());
                out.extend_from_slice(chunk);
            }
            return;
        }
        for chunk in bytes.chunks(if self == Framing::Messages { MESSAGE_CHUNK } else { TEXT_CHUNK }) {
            let mut value = Vec::with_capacity(chunk.len() + chunk.len() / 3 + 8);
            let member = if let Ok(text) = core::str::from_utf8(chunk) {
                drop(serde_json::to_writer(&mut value, text));
                "text"
            } else {
                value.push(b'"');
                base64::encode(chunk, &mut value);
                value.push(b'"');
                "base64"
            };
            let value = core::str::from_utf8(&value).unwrap_or("\"\"");
            let before = format!(r#"{{"jsonrpc":"2.0","method":"stream.data","params":{{"id":{id},"{member}":"#);
            // A chunk is at most six times as long as text, which fits.
            let _ = self.write(out, &[&before, value, "}}"]);
        }
    }

    /// Appends the end of a stream, as a notification in every framing.
    pub fn stream_end(self, out: &mut Vec<u8>, id: StreamId, reason: &str) {
        let reason = serde_json::Value::from(reason).to_string();
        let before = format!(r#"{{"jsonrpc":"2.0","method":"stream.end","params":{{"id":{id},"reason":"#);
        let _ = self.write(out, &[&before, &reason, "}}"]);
    }
}

/// The first message in a buffer that [`Framing::Messages`] has written to, and how many bytes of the buffer it takes.
#[must_use]
pub fn first_message(out: &[u8]) -> Option<(&[u8], usize)> {
    let [_, a, b, c] = *out.first_chunk::<4>()?;
    let len = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
    Some((out.get(4..4 + len)?, 4 + len))
}

pub(super) fn head(kind: u8, len: usize) -> [u8; 4] {
    // The length is at most FRAME_MAX, so its top byte is free.
    let [_, a, b, c] = u32::try_from(len).unwrap_or(0).to_be_bytes();
    [kind, a, b, c]
}
