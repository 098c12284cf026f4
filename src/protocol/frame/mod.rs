//! Bytes to messages and messages to bytes, in the three framings of a connection. Touches nothing but the buffers
//! given.
//!
//! The first byte of a connection picks its framing:
//! - `0x00`, `0x01`: [`Framing::Binary`], four bytes before each message: its kind (0 JSON, 1 stream bytes, which begin
//!   with a
//!   stream id of four bytes), then its length in 24 bits, all big endian;
//! - `C`, `c`: [`Framing::Headers`], `Content-Length` headers as language servers use them;
//! - `{`, `[` or white space: [`Framing::Lines`], one JSON text a line.
//!
//! HOB_FD is not such a connection: it is a socket that keeps the borders of messages, each of which is one JSON text
//! ([`Framing::Messages`]).

pub(in crate::protocol) mod base64;
mod encode;
#[cfg(test)]
mod tests;

pub use encode::{TooLong, first_message};

use crate::base::ids::StreamId;
use crate::base::limits::{FRAME_MAX, MESSAGE_MAX};
use crate::protocol::rpc::{Code, RpcError};

/// How messages are told apart on one connection, in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    Binary,
    Headers,
    Lines,
    /// The socket tells them apart. In buffers each has four bytes before it as in `Binary`, which are never sent.
    Messages,
}

impl Framing {
    /// The longest JSON text, in bytes.
    #[must_use]
    pub fn limit(self) -> usize {
        match self {
            Framing::Binary | Framing::Headers | Framing::Lines => FRAME_MAX,
            Framing::Messages => MESSAGE_MAX,
        }
    }
}

/// One message, borrowed from the decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// What should be a JSON text; not looked at yet.
    Json(&'a [u8]),
    /// Data of a stream; in [`Framing::Binary`] alone.
    Stream { id: StreamId, bytes: &'a [u8] },
}

/// Largest block of headers, in bytes.
const HEADERS_MAX: usize = 4096;
/// An empty buffer keeps at most this much memory for the next message.
const KEEP: usize = 4096;

/// Cuts what arrives on one connection into messages. Memory grows with the bytes that arrived, never with a length
/// that was only announced; a length over the limit is refused as soon as it is read.
#[derive(Debug)]
pub struct Decoder {
    framing: Option<Framing>,
    limit: usize,
    buf: Vec<u8>,
    /// Bytes before this were handed out.
    start: usize,
    /// Lines: bytes from `start` on that hold no line end.
    scanned: usize,
    /// Headers: the length of the body whose headers were read.
    body: Option<usize>,
    ended: bool,
    failed: bool,
}

impl Default for Decoder {
    fn default() -> Self {
        Decoder::new()
    }
}

/// Where a message lies in the buffer.
struct Piece {
    stream: Option<StreamId>,
    at: usize,
    len: usize,
}

type Found = Option<Result<Piece, RpcError>>;

impl Decoder {
    /// For messages of up to [`FRAME_MAX`] bytes.
    #[must_use]
    pub fn new() -> Self {
        Decoder::with_limit(FRAME_MAX)
    }

    /// For messages of up to `limit` bytes, at most [`FRAME_MAX`].
    #[must_use]
    pub fn with_limit(limit: usize) -> Self {
        Decoder {
            framing: None,
            limit: limit.min(FRAME_MAX),
            buf: Vec::new(),
            start: 0,
            scanned: 0,
            body: None,
            ended: false,
            failed: false,
        }
    }

    /// For what `feed_message` takes.
    #[must_use]
    pub fn messages() -> Self {
        Decoder { framing: Some(Framing::Messages), ..Decoder::with_limit(MESSAGE_MAX) }
    }

    /// Takes one whole message of at most [`MESSAGE_MAX`] bytes, as its socket has delimited it.
    pub fn feed_message(&mut self, message: &[u8]) {
        self.feed(&encode::head(0, message.len()));
        self.feed(message);
    }

    /// The framing, once the first byte has arrived.
    #[must_use]
    pub fn framing(&self) -> Option<Framing> {
        self.framing
    }

    /// Whether the bytes made no sense: an error was handed out and nothing more will be read.
    #[must_use]
    pub fn failed(&self) -> bool {
        self.failed
    }

    /// Bytes held that belong to no message yet.
    #[must_use]
    pub fn held(&self) -> usize {
        self.buf.len() - self.start
    }

    /// Takes what arrived. To bound memory, take all messages out before feeding more.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.failed || self.ended {
            return;
        }
        if self.framing.is_none() && self.buf.is_empty() {
            self.framing = bytes.first().and_then(|b| detect(*b));
        }
        self.tidy();
        self.buf.extend_from_slice(bytes);
    }

    /// No more bytes will come: a last line without a line end becomes a message, any other rest an error.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// The next message, if a whole one is there. An error comes once; after it the connection is of no use.
    pub fn message(&mut self) -> Option<Result<Message<'_>, RpcError>> {
        let found = if self.failed { None } else { self.find() };
        match found {
            None => {
                self.tidy();
                None
            }
            Some(Err(e)) => {
                self.failed = true;
                self.buf = Vec::new();
                self.start = 0;
                Some(Err(e))
            }
            Some(Ok(Piece { stream, at, len })) => {
                let bytes = self.buf.get(at..at + len).unwrap_or_default();
                Some(Ok(stream.map_or(Message::Json(bytes), |id| Message::Stream { id, bytes })))
            }
        }
    }

    /// Forgets what was handed out, and gives back memory that a long message needed.
    fn tidy(&mut self) {
        if self.start == self.buf.len() {
            self.buf.clear();
            if self.buf.capacity() > KEEP {
                self.buf = Vec::new();
            }
        } else if self.start > 0 {
            self.buf.drain(..self.start);
        }
        self.start = 0;
    }

    fn rest(&self) -> &[u8] {
        self.buf.get(self.start..).unwrap_or_default()
    }

    fn find(&mut self) -> Found {
        match self.framing {
            None => self.rest().first().map(|first| Err(unknown_framing(*first))),
            Some(Framing::Binary | Framing::Messages) => self.binary(),
            Some(Framing::Headers) => self.headers(),
            Some(Framing::Lines) => self.line(),
        }
    }

    fn binary(&mut self) -> Found {
        let rest = self.rest();
        let kind = *rest.first()?;
        if kind > 1 {
            return Some(Err(malformed(format!("a frame of unknown kind {kind}"))));
        }
        let Some(&[_, a, b, c]) = rest.first_chunk::<4>() else { return self.cut_off() };
        let len = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        if let Some(e) = self.over_limit(len) {
            return Some(Err(e));
        }
        if kind == 1 && len < 4 {
            return Some(Err(malformed("a stream frame without its stream id".to_owned())));
        }
        if rest.len() < 4 + len {
            return self.cut_off();
        }
        let at = self.start + 4;
        if kind == 0 {
            self.start = at + len;
            return Some(Ok(Piece { stream: None, at, len }));
        }
        let id = rest.get(4..).and_then(|r| r.first_chunk::<4>()).map_or(0, |id| u32::from_be_bytes(*id));
        self.start = at + len;
        Some(Ok(Piece { stream: Some(StreamId(id)), at: at + 4, len: len - 4 }))
    }

    fn headers(&mut self) -> Found {
        let len = match self.body {
            Some(len) => len,
            None if self.held() == 0 => return None,
            None => match read_headers(self.rest()) {
                Headers::Partial => return self.cut_off(),
                Headers::Malformed(what) => return Some(Err(malformed(what))),
                Headers::Whole { length, used } => {
                    if let Some(e) = self.over_limit(length) {
                        return Some(Err(e));
                    }
                    self.start += used;
                    *self.body.insert(length)
                }
            },
        };
        if self.held() < len {
            return self.cut_off();
        }
        let at = self.start;
        self.start += len;
        self.body = None;
        Some(Ok(Piece { stream: None, at, len }))
    }

    fn line(&mut self) -> Found {
        loop {
            let unseen = self.buf.get(self.start + self.scanned..).unwrap_or_default();
            let end = unseen.iter().position(|b| *b == b'\n').map(|i| self.scanned + i);
            let len = end.unwrap_or_else(|| self.held());
            if let Some(e) = self.over_limit(len) {
                return Some(Err(e));
            }
            if end.is_none() && !self.ended {
                self.scanned = len;
                return None;
            }
            let at = self.start;
            self.start = (at + len + 1).min(self.buf.len());
            self.scanned = 0;
            let line = self.buf.get(at..at + len).unwrap_or_default();
            if !line.trim_ascii().is_empty() {
                return Some(Ok(Piece { stream: None, at, len }));
            }
            if self.held() == 0 {
                return None;
            }
        }
    }

    /// A message that is not whole yet, or never will be.
    fn cut_off(&self) -> Found {
        self.ended.then(|| Err(malformed("the connection ended within a message".to_owned())))
    }

    fn over_limit(&self, len: usize) -> Option<RpcError> {
        (len > self.limit).then(|| {
            RpcError::new(Code::Busy, format!("a message is longer than {} bytes", self.limit))
                .hint("send less at once; the connection is closed")
        })
    }
}

fn detect(first: u8) -> Option<Framing> {
    match first {
        0 | 1 => Some(Framing::Binary),
        b'C' | b'c' => Some(Framing::Headers),
        b'{' | b'[' | b' ' | b'\t' | b'\r' | b'\n' => Some(Framing::Lines),
        _ => None,
    }
}

fn unknown_framing(first: u8) -> RpcError {
    let shown = if first.is_ascii_graphic() { format!("{:?}", char::from(first)) } else { format!("0x{first:02x}") };
    RpcError::new(Code::Parse, format!("a connection cannot begin with {shown}"))
        .hint("send one JSON text a line, Content-Length headers, or frames of four bytes kind and length")
}

fn malformed(what: String) -> RpcError {
    RpcError::new(Code::Parse, what).hint("the connection is closed; connect again")
}

enum Headers {
    Partial,
    Malformed(String),
    /// `used` counts the empty line that ends the block.
    Whole {
        length: usize,
        used: usize,
    },
}

/// Reads a block of headers. Lines may also end in a bare line feed; other headers than the length say nothing of use.
fn read_headers(bytes: &[u8]) -> Headers {
    let (mut used, mut length) = (0, None);
    let window = bytes.get(..HEADERS_MAX).unwrap_or(bytes);
    for line in window.split_inclusive(|b| *b == b'\n') {
        let Some(line_text) = line.strip_suffix(b"\n") else { break };
        used += line.len();
        let text = line_text.trim_ascii();
        if text.is_empty() {
            return match length {
                Some(length) => Headers::Whole { length, used },
                None => Headers::Malformed("headers without a Content-Length".to_owned()),
            };
        }
        let Some((name, value)) = core::str::from_utf8(text).ok().and_then(|t| t.split_once(':')) else {
            return Headers::Malformed("a header line without a colon".to_owned());
        };
        if !name.trim_ascii().eq_ignore_ascii_case("content-length") {
            continue;
        }
        let value = value.trim_ascii();
        let number = value.bytes().all(|b| b.is_ascii_digit()).then(|| value.parse::<usize>().unwrap_or(usize::MAX));
        match number {
            Some(n) if !value.is_empty() && length.is_none_or(|l| l == n) => length = Some(n),
            _ => return Headers::Malformed("a Content-Length that is not one number".to_owned()),
        }
    }
    if bytes.len() >= HEADERS_MAX {
        return Headers::Malformed(format!("headers of more than {HEADERS_MAX} bytes"));
    }
    Headers::Partial
}

/// Entry point for fuzzing: any bytes, in any pieces, give the same messages; memory stays bounded; what was decoded is
/// decoded again from its own encoding.
///
/// # Panics
/// When one of these does not hold.
pub fn fuzz(data: &[u8]) {
    const LIMIT: usize = 1000;
    let mut whole = Decoder::with_limit(LIMIT);
    whole.feed(data);
    whole.end();
    let mut want = Vec::new();
    while let Some(message) = whole.message() {
        if let Ok(message) = message {
            again(whole_framing(data), message);
        }
        want.push(format!("{message:?}"));
    }
    let step = 1 + usize::from(data.last().copied().unwrap_or(0) % 7);
    let (mut pieces, mut got) = (Decoder::with_limit(LIMIT), Vec::new());
    for piece in data.chunks(step) {
        pieces.feed(piece);
        while let Some(message) = pieces.message() {
            got.push(format!("{message:?}"));
        }
        assert!(pieces.held() <= LIMIT.max(HEADERS_MAX) + step, "memory is bounded");
    }
    pieces.end();
    while let Some(message) = pieces.message() {
        got.push(format!("{message:?}"));
    }
    assert_eq!(want, got);
}

/// Entry point for fuzzing of what comes through HOB_FD: whatever the messages are, each comes out whole and alone;
/// what is encoded is cut into the same messages again.
///
/// # Panics
/// When that does not hold.
pub fn fuzz_messages(data: &[u8]) {
    // A message ends where a byte is below four.
    let messages: Vec<&[u8]> = data.split_inclusive(|b| *b < 4).filter(|m| m.len() <= MESSAGE_MAX).collect();
    let (mut decoder, mut out) = (Decoder::messages(), Vec::new());
    let mut encoded = Vec::new();
    for message in &messages {
        decoder.feed_message(message);
        assert_eq!(decoder.message(), Some(Ok(Message::Json(message))));
        assert_eq!(decoder.message(), None);
        assert_eq!(decoder.held(), 0);
        if let Ok(text) = core::str::from_utf8(message) {
            encoded.push(*message);
            assert!(Framing::Messages.write(&mut out, &[text]).is_ok());
        }
    }
    let mut rest = out.as_slice();
    for message in encoded {
        let (first, used) = first_message(rest).map_or((&[][..], 0), |found| found);
        assert_eq!(first, message);
        rest = rest.get(used..).unwrap_or_default();
    }
    assert_eq!(first_message(rest), None);
    let mut streamed = Vec::new();
    Framing::Messages.stream_data(&mut streamed, StreamId(7), data);
    let mut rest = streamed.as_slice();
    while let Some((first, used)) = first_message(rest) {
        assert!(first.len() <= MESSAGE_MAX && serde_json::from_slice::<serde_json::Value>(first).is_ok());
        rest = rest.get(used..).unwrap_or_default();
    }
    assert!(rest.is_empty());
}

fn whole_framing(data: &[u8]) -> Framing {
    data.first().and_then(|b| detect(*b)).unwrap_or(Framing::Lines)
}

fn again(framing: Framing, message: Message<'_>) {
    let mut out = Vec::new();
    match message {
        Message::Stream { id, bytes } => framing.stream_data(&mut out, id, bytes),
        Message::Json(json) => {
            let Ok(text) = core::str::from_utf8(json) else { return };
            // A carriage return outside of JSON texts is what Lines turns into a space.
            if framing == Framing::Lines && text.contains('\r') || framing.write(&mut out, &[text]).is_err() {
                return;
            }
        }
    }
    let mut decoder = Decoder::new();
    decoder.framing = Some(framing);
    decoder.feed(&out);
    match message {
        Message::Stream { bytes: [], .. } => assert!(out.is_empty()),
        _ => assert_eq!(decoder.message(), Some(Ok(message))),
    }
    assert_eq!(decoder.message(), None);
}
