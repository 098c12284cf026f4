//! JSON-RPC 2.0: messages, batches, ids echoed verbatim, and the one table of errors. Touches nothing but the text
//! given.

mod id;
mod parse;
#[cfg(test)]
mod tests;
mod write;

pub use id::Id;
pub(in crate::protocol) use parse::Name;
pub use parse::{FromServer, Invalid, Message, Parsed, fuzz, parse, parse_from_server, parse_one};
pub use write::{error_text, request_text, write_notification, write_result};

use core::fmt;

/// The error codes of hob; each has an exit code of the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    Parse,
    InvalidRequest,
    MethodNotFound,
    InvalidParams,
    Internal,
    /// Not available, or already running.
    Unavailable,
    FileSystem,
    PermissionDenied,
    NotFound,
    /// Busy, or over a limit; trying again later may help.
    Busy,
    SudoDenied,
    ShuttingDown,
    Conflict,
}

/// Code, its number on the wire, the exit code of the command line. Exit code 0 is success, 1 any failure that has no
/// code, 2 a command line that makes no sense; 3 and 4 are what init scripts answer for "not running" and "unknown".
const CODES: [(Code, i64, u8); 13] = [
    (Code::Unavailable, -32001, 3),
    (Code::NotFound, -32004, 4),
    (Code::PermissionDenied, -32003, 5),
    (Code::Busy, -32005, 6),
    (Code::Conflict, -32008, 7),
    (Code::FileSystem, -32002, 8),
    (Code::ShuttingDown, -32007, 9),
    (Code::SudoDenied, -32006, 10),
    (Code::InvalidParams, -32602, 11),
    (Code::MethodNotFound, -32601, 12),
    (Code::InvalidRequest, -32600, 13),
    (Code::Parse, -32700, 14),
    (Code::Internal, -32603, 15),
];

impl Code {
    /// All codes.
    pub fn all() -> impl Iterator<Item = Code> {
        CODES.iter().map(|(code, _, _)| *code)
    }

    /// The number on the wire.
    #[must_use]
    pub fn number(self) -> i64 {
        CODES.iter().find(|(code, _, _)| *code == self).map_or(-32603, |(_, number, _)| *number)
    }

    /// The exit code of the command line when a command fails with this.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        CODES.iter().find(|(code, _, _)| *code == self).map_or(1, |(_, _, exit)| *exit)
    }

    /// What it says, for lists of codes.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        match self {
            Code::Parse => "Not JSON",
            Code::InvalidRequest => "Not a request of the protocol",
            Code::MethodNotFound => "No such method",
            Code::InvalidParams => "Wrong parameters, or a config with mistakes",
            Code::Internal => "A mistake of hob's own",
            Code::Unavailable => "Not running, not available, did not come up, or already running",
            Code::FileSystem => "A file cannot be read or written",
            Code::PermissionDenied => "Permission denied",
            Code::NotFound => "Not found",
            Code::Busy => "Busy, or over a limit; later it may do",
            Code::SudoDenied => "Sudo denied",
            Code::ShuttingDown => "Hob is shutting down",
            Code::Conflict => "Conflict with something that is under way",
        }
    }

    /// `None` for a number that this version does not know.
    #[must_use]
    pub fn from_number(number: i64) -> Option<Code> {
        CODES.iter().find(|(_, n, _)| *n == number).map(|(code, _, _)| *code)
    }
}

/// An error as it goes over the wire: `{"code", "message", "data": {"hint"}}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RpcError {
    pub code: Code,
    /// What is wrong, in one sentence without a full stop.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl RpcError {
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        RpcError { code, message: message.into(), hint: None }
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for RpcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl core::error::Error for RpcError {}
