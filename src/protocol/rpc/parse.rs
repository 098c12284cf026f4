//! Text to messages, borrowed from it. Nothing is read that is not needed: params stay text until a method wants them.
//! Pure.

use super::{Code, RpcError};
use crate::base::limits::BATCH_MAX;
use core::fmt;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;

/// A request, or a notification when it has no id.
#[derive(Clone, Debug)]
pub struct Message<'a> {
    /// The id's JSON text; the reply repeats it byte for byte.
    pub id: Option<&'a str>,
    pub method: Cow<'a, str>,
    pub params: Option<&'a RawValue>,
}

/// What is no request, with the id for its error reply where one can be told.
#[derive(Clone, Debug)]
pub struct Invalid<'a> {
    pub id: &'a str,
    pub error: RpcError,
}

/// One JSON text of a client.
#[derive(Debug)]
pub enum Parsed<'a> {
    One(Message<'a>),
    /// 1 to [`BATCH_MAX`] elements, each for [`parse_one`].
    Batch(Vec<&'a RawValue>),
    /// To be answered with this error.
    Invalid(Invalid<'a>),
}

/// What a server sends.
#[derive(Debug)]
pub enum FromServer<'a> {
    Reply { id: &'a str, result: Result<&'a RawValue, RpcError> },
    Notification { method: Cow<'a, str>, params: Option<&'a RawValue> },
}

/// Parses one JSON text from a client.
#[must_use]
pub fn parse(json: &[u8]) -> Parsed<'_> {
    if let Some(message) = parse_plain(json) {
        return Parsed::One(message);
    }
    let Ok(text) = core::str::from_utf8(json) else {
        return Parsed::Invalid(invalid("null", Code::Parse, "the message is not UTF-8".to_owned()));
    };
    if text.trim_ascii_start().starts_with('[') {
        return match serde_json::from_str::<Batch<'_>>(text) {
            Err(e) => Parsed::Invalid(no_json(&e)),
            Ok(batch) if batch.elements.is_empty() => {
                Parsed::Invalid(invalid("null", Code::InvalidRequest, "an empty batch".to_owned()))
            }
            Ok(batch) if batch.more => {
                let mut invalid = invalid("null", Code::Busy, format!("a batch of more than {BATCH_MAX} requests"));
                invalid.error.hint = Some("send several smaller batches".to_owned());
                Parsed::Invalid(invalid)
            }
            Ok(batch) => Parsed::Batch(batch.elements),
        };
    }
    match parse_any(text) {
        Ok(message) => Parsed::One(message),
        Err(invalid) => Parsed::Invalid(invalid),
    }
}

/// Parses one request or notification.
///
/// # Errors
/// What is to be answered: a parse error, or an invalid request.
pub fn parse_one(text: &str) -> Result<Message<'_>, Invalid<'_>> {
    match parse_plain(text.as_bytes()) {
        Some(message) => Ok(message),
        None => parse_any(text),
    }
}

fn parse_any(text: &str) -> Result<Message<'_>, Invalid<'_>> {
    let envelope: Envelope<'_> = serde_json::from_str(text).map_err(|e| no_json(&e))?;
    let id = envelope.id.map(RawValue::get);
    let reply_id = id.filter(|id| is_id(id)).unwrap_or("null");
    let refuse = |what: &str| Err(invalid(reply_id, Code::InvalidRequest, what.to_owned()));
    if envelope.repeated {
        return refuse("a member of the request comes twice");
    }
    if envelope.jsonrpc.and_then(plain_string).as_deref() != Some("2.0") {
        return refuse(r#"a request needs "jsonrpc": "2.0""#);
    }
    if id.is_some_and(|id| !is_id(id)) {
        return refuse("an id is a string, a number or null");
    }
    let Some(method) = envelope.method.and_then(plain_string) else {
        return refuse(r#"a request needs "method", a string"#);
    };
    // Some clients send null where they have no params.
    let params = envelope.params.filter(|p| p.get() != "null");
    if params.is_some_and(|p| !p.get().starts_with(['{', '['])) {
        return refuse(r#""params" is an object or an array"#);
    }
    Ok(Message { id, method, params })
}

/// Parses one JSON text from a server.
///
/// # Errors
/// When it is neither a reply nor a notification.
pub fn parse_from_server(json: &[u8]) -> Result<FromServer<'_>, RpcError> {
    let text = core::str::from_utf8(json).map_err(|_| RpcError::new(Code::Parse, "the message is not UTF-8"))?;
    let envelope: Envelope<'_> = serde_json::from_str(text).map_err(|e| no_json(&e).error)?;
    match (envelope.method.and_then(plain_string), envelope.id, envelope.result, envelope.error) {
        (Some(method), None, None, None) => Ok(FromServer::Notification { method, params: envelope.params }),
        (None, Some(id), Some(result), None) => Ok(FromServer::Reply { id: id.get(), result: Ok(result) }),
        (None, Some(id), None, Some(error)) => Ok(FromServer::Reply { id: id.get(), result: Err(read_error(error)?) }),
        _ => Err(RpcError::new(Code::InvalidRequest, "neither a reply nor a notification")),
    }
}

#[derive(serde::Deserialize)]
struct WireError {
    code: i64,
    message: String,
    #[serde(default)]
    data: Option<serde_json::Value>,
}

fn read_error(raw: &RawValue) -> Result<RpcError, RpcError> {
    let wire: WireError = serde_json::from_str(raw.get()).map_err(|e| no_json(&e).error)?;
    let hint = wire.data.as_ref().and_then(|d| d.get("hint")).and_then(|h| h.as_str());
    let Some(code) = Code::from_number(wire.code) else {
        return Ok(RpcError::new(Code::Internal, format!("{} (error {})", wire.message, wire.code)));
    };
    Ok(RpcError { code, message: wire.message, hint: hint.map(str::to_owned) })
}

fn invalid(id: &str, code: Code, what: String) -> Invalid<'_> {
    Invalid { id, error: RpcError::new(code, what) }
}

fn no_json(e: &serde_json::Error) -> Invalid<'static> {
    if e.is_data() {
        invalid("null", Code::InvalidRequest, "a request is an object".to_owned())
    } else {
        invalid("null", Code::Parse, format!("not JSON: {e}"))
    }
}

fn is_id(json: &str) -> bool {
    json == "null" || json.starts_with(|c: char| c == '"' || c == '-' || c.is_ascii_digit())
}

/// The text of a JSON string.
fn plain_string(raw: &RawValue) -> Option<Cow<'_, str>> {
    let inner = raw.get().strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') { serde_json::from_str(raw.get()).ok().map(Cow::Owned) } else { Some(Cow::Borrowed(inner)) }
}

/// Reads the everyday form of a request at a fraction of the general reader's cost: a flat object of `jsonrpc`, `id`
/// and `method` with plain values. `None` for anything else, right or wrong, which then takes the general way.
fn parse_plain(json: &[u8]) -> Option<Message<'_>> {
    let rest = json.strip_prefix(br#"{"jsonrpc":"2.0","#)?.strip_suffix(b"\"}")?;
    let rest = core::str::from_utf8(rest).ok()?;
    let (id, rest) = match rest.strip_prefix(r#""id":"#) {
        None => (None, rest),
        Some(rest) => {
            let (id, rest) = rest.split_at_checked(plain_id(rest.as_bytes())?)?;
            (Some(id), rest.strip_prefix(',')?)
        }
    };
    let method = rest.strip_prefix(r#""method":""#)?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'.' || b == b'_';
    method.bytes().all(plain).then_some(Message { id, method: Cow::Borrowed(method), params: None })
}

/// Length of an id that is a natural number, or a string of letters, digits and dashes.
fn plain_id(bytes: &[u8]) -> Option<usize> {
    match bytes {
        [b'"', inner @ ..] => {
            let len = inner.iter().position(|b| !b.is_ascii_alphanumeric() && *b != b'-')?;
            (inner.get(len) == Some(&b'"')).then_some(len + 2)
        }
        [b'1'..=b'9', ..] => bytes.iter().position(|b| !b.is_ascii_digit()),
        [b'0', b',', ..] => Some(1),
        _ => None,
    }
}

/// The members of any message, unread. An absent one differs from one that is null.
#[derive(Default)]
struct Envelope<'a> {
    jsonrpc: Option<&'a RawValue>,
    id: Option<&'a RawValue>,
    method: Option<&'a RawValue>,
    params: Option<&'a RawValue>,
    result: Option<&'a RawValue>,
    error: Option<&'a RawValue>,
    repeated: bool,
}

impl<'de: 'a, 'a> Deserialize<'de> for Envelope<'a> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Envelope<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Envelope<'de>, A::Error> {
                let mut e = Envelope::default();
                while let Some(Name(name)) = map.next_key::<Name<'de>>()? {
                    let member = match &*name {
                        "jsonrpc" => &mut e.jsonrpc,
                        "id" => &mut e.id,
                        "method" => &mut e.method,
                        "params" => &mut e.params,
                        "result" => &mut e.result,
                        "error" => &mut e.error,
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                            continue;
                        }
                    };
                    e.repeated |= member.replace(map.next_value::<&'de RawValue>()?).is_some();
                }
                Ok(e)
            }
        }
        d.deserialize_map(Members)
    }
}

/// The name of a member, borrowed unless it has escapes in it.
pub(in crate::protocol) struct Name<'a>(pub(in crate::protocol) Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Name<'a> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Name<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Owned(text.to_owned())))
            }
        }
        d.deserialize_str(Text)
    }
}

/// The elements of an array, not more than a batch may have.
struct Batch<'a> {
    elements: Vec<&'a RawValue>,
    more: bool,
}

impl<'de: 'a, 'a> Deserialize<'de> for Batch<'a> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Elements;
        impl<'de> Visitor<'de> for Elements {
            type Value = Batch<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Batch<'de>, A::Error> {
                let mut batch = Batch { elements: Vec::new(), more: false };
                while batch.elements.len() < BATCH_MAX {
                    let Some(element) = seq.next_element::<&'de RawValue>()? else { return Ok(batch) };
                    batch.elements.push(element);
                }
                while seq.next_element::<IgnoredAny>()?.is_some() {
                    batch.more = true;
                }
                Ok(batch)
            }
        }
        d.deserialize_seq(Elements)
    }
}

/// Entry point for fuzzing: any bytes parse to something; the short way of reading agrees with the general one; a
/// request written again parses to the same; an error reply is a JSON text that a client understands.
///
/// # Panics
/// When one of these does not hold.
pub fn fuzz(data: &[u8]) {
    match parse(data) {
        Parsed::One(message) => fuzz_message(&message),
        Parsed::Invalid(invalid) => fuzz_invalid(&invalid),
        Parsed::Batch(elements) => {
            assert!((1..=BATCH_MAX).contains(&elements.len()));
            for element in elements {
                match parse_one(element.get()) {
                    Ok(message) => fuzz_message(&message),
                    Err(invalid) => fuzz_invalid(&invalid),
                }
            }
        }
    }
    drop(parse_from_server(data));
}

fn fuzz_message(message: &Message<'_>) {
    let member = |name: &str, value: Option<&str>| value.map_or(String::new(), |v| format!(",\"{name}\":{v}"));
    let method = serde_json::Value::from(&*message.method).to_string();
    let tail = member("id", message.id) + &member("method", Some(&method));
    let params = member("params", message.params.map(RawValue::get));
    // A space keeps the second one off the short way.
    for text in [format!("{{\"jsonrpc\":\"2.0\"{tail}{params}}}"), format!("{{ \"jsonrpc\":\"2.0\"{tail}{params}}}")] {
        let again = parse_one(&text);
        let same = again.as_ref().is_ok_and(|m| {
            (m.id, &m.method, m.params.map(RawValue::get))
                == (message.id, &message.method, message.params.map(RawValue::get))
        });
        assert!(same, "{text} became {again:?}");
    }
}

fn fuzz_invalid(invalid: &Invalid<'_>) {
    let text = super::error_text(invalid.id, &invalid.error);
    let again = parse_from_server(text.as_bytes());
    let same =
        matches!(&again, Ok(FromServer::Reply { id, result: Err(e) }) if (*id, e) == (invalid.id, &invalid.error));
    assert!(same, "{text} became {again:?}");
}
