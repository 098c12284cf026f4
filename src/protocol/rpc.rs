//! JSON-RPC 2.0: messages, batches, ids echoed verbatim, and the one table of errors.

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
