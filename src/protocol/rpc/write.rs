//! Replies, requests and notifications as text. Pure.

use super::RpcError;
use crate::protocol::frame::{Framing, TooLong};
use serde_json::Value;

/// Appends the reply to `id`, a JSON text, with `result`, a JSON text too, in one frame.
///
/// # Errors
/// When it does not fit into a frame; nothing is appended then.
pub fn write_result(framing: Framing, out: &mut Vec<u8>, id: &str, result: &str) -> Result<(), TooLong> {
    framing.write(out, &[r#"{"jsonrpc":"2.0","id":"#, id, r#","result":"#, result, "}"])
}

/// Appends a notification; `params` is a JSON object or array.
///
/// # Errors
/// When it does not fit into a frame; nothing is appended then.
pub fn write_notification(framing: Framing, out: &mut Vec<u8>, method: &str, params: &str) -> Result<(), TooLong> {
    framing.write(out, &[r#"{"jsonrpc":"2.0","method":""#, method, r#"","params":"#, params, "}"])
}

/// The reply to `id` that says what went wrong.
#[must_use]
pub fn error_text(id: &str, error: &RpcError) -> String {
    let message = Value::from(error.message.as_str());
    let data = match &error.hint {
        Some(hint) => format!(r#","data":{{"hint":{}}}"#, Value::from(hint.as_str())),
        None => String::new(),
    };
    let number = error.code.number();
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{number},"message":{message}{data}}}}}"#)
}

/// A request; `params` is a JSON object or array.
#[must_use]
pub fn request_text(id: u64, method: &str, params: Option<&str>) -> String {
    let method = Value::from(method);
    match params {
        Some(params) => format!(r#"{{"jsonrpc":"2.0","id":{id},"method":{method},"params":{params}}}"#),
        None => format!(r#"{{"jsonrpc":"2.0","id":{id},"method":{method}}}"#),
    }
}
