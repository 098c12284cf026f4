//! The params of one call, matched with a method's table and read by kind. Pure.

use super::{Kind, Method, Of, Signals, Stream};
use crate::base::limits::SERVICES_MAX;
use crate::base::near::nearest;
use crate::base::signal::Platform;
use crate::base::time::Wall;
use crate::base::units::parse_duration;
use crate::protocol::rpc::{Code, RpcError};
use core::fmt;
use core::time::Duration;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Values by the method's table. They are JSON text until one is asked for.
#[derive(Debug)]
pub struct Params<'a> {
    pub(super) method: &'static Method,
    pub(super) signals: &'static Signals,
    /// In the table's order; empty when nothing was given.
    pub(super) given: Vec<Option<&'a RawValue>>,
}

type Answer<T> = Result<T, RpcError>;

impl<'a> Params<'a> {
    fn raw(&self, name: &str) -> Option<&'a RawValue> {
        let at = self.method.params.iter().position(|p| p.name == name)?;
        self.given.get(at).copied().flatten()
    }

    /// A value by a reader that answers `None` for what it does not take.
    pub(super) fn read<T>(&self, name: &str, reader: impl FnOnce(&'a str) -> Option<T>) -> Answer<Option<T>> {
        match self.raw(name) {
            None => Ok(None),
            Some(raw) => reader(raw.get()).map(Some).ok_or_else(|| self.unfit(name, raw.get())),
        }
    }

    fn needed<T>(&self, name: &str, value: Option<T>) -> Answer<T> {
        value.ok_or_else(|| missing(self.method, name))
    }

    fn unfit(&self, name: &str, given: &str) -> RpcError {
        let wanted = self.method.params.iter().find(|p| p.name == name).map_or("something else", |p| p.kind.wanted());
        let shown: String = given.chars().take(40).collect();
        let dots = if shown.len() < given.len() { "..." } else { "" };
        RpcError::new(Code::InvalidParams, format!("{name} of {} is {wanted}, not {shown}{dots}", self.method.name))
    }

    /// Text that is not empty.
    ///
    /// # Errors
    /// As all readers here: when it is missing or something else.
    pub fn text(&self, name: &str) -> Answer<String> {
        let value = self.read(name, |json| serde_json::from_str(json).ok().filter(|t: &String| !t.is_empty()))?;
        self.needed(name, value)
    }

    /// Text that is not empty, where it is given.
    ///
    /// # Errors
    /// When it is something else.
    pub fn optional_text(&self, name: &str) -> Answer<Option<String>> {
        self.read(name, |json| serde_json::from_str(json).ok().filter(|t: &String| !t.is_empty()))
    }

    /// Names, none of them empty; none at all when absent.
    ///
    /// # Errors
    /// When it is something else, an empty list where names are required, or more than [`SERVICES_MAX`].
    pub fn names(&self, name: &str) -> Answer<Vec<String>> {
        let names = self.read(name, read_names)?.unwrap_or_default();
        let required = self.method.params.iter().any(|p| p.name == name && p.required);
        if required && names.is_empty() { Err(missing(self.method, name)) } else { Ok(names) }
    }

    /// The same where it matters whether none were given at all.
    ///
    /// # Errors
    /// When it is something else, or more than [`SERVICES_MAX`].
    pub fn optional_names(&self, name: &str) -> Answer<Option<Vec<String>>> {
        self.read(name, read_names)
    }

    #[must_use]
    pub fn is_empty_list(&self, name: &str) -> bool {
        self.raw(name).is_some_and(|raw| raw.get().strip_prefix('[').is_some_and(|rest| rest.trim_start() == "]"))
    }

    /// # Errors
    /// When it is something else.
    pub fn flag(&self, name: &str, default: bool) -> Answer<bool> {
        Ok(self.read(name, |json| serde_json::from_str(json).ok())?.unwrap_or(default))
    }

    /// # Errors
    /// When it is something else.
    pub fn count(&self, name: &str, default: usize) -> Answer<usize> {
        Ok(self.read(name, |json| serde_json::from_str(json).ok())?.unwrap_or(default))
    }

    /// A position or sequence number.
    ///
    /// # Errors
    /// When it is something else.
    pub fn position(&self, name: &str) -> Answer<Option<u64>> {
        self.read(name, |json| serde_json::from_str(json).ok())
    }

    /// The number of a stream or subscription.
    ///
    /// # Errors
    /// When it is missing or something else.
    pub fn id(&self, name: &str) -> Answer<u32> {
        let value = self.read(name, |json| serde_json::from_str(json).ok())?;
        self.needed(name, value)
    }

    /// # Errors
    /// When it is something else; what is wrong with a text is said.
    pub fn duration(&self, name: &str) -> Answer<Option<Duration>> {
        let Some(raw) = self.raw(name) else { return Ok(None) };
        if raw.get().starts_with('"') {
            let text: String = serde_json::from_str(raw.get()).map_err(|_| self.unfit(name, raw.get()))?;
            return parse_duration(&text).map(Some).map_err(|why| {
                let method = self.method.name;
                RpcError::new(Code::InvalidParams, format!("{name} of {method} is {}", Kind::Duration.wanted()))
                    .hint(why)
            });
        }
        let seconds = serde_json::from_str::<f64>(raw.get()).ok();
        let value = seconds.and_then(|s| Duration::try_from_secs_f64(s).ok());
        value.map(Some).ok_or_else(|| self.unfit(name, raw.get()))
    }

    /// A signal's number.
    ///
    /// # Errors
    /// When it is missing or no signal of this system.
    pub fn signal(&self, name: &str) -> Answer<i32> {
        let platform = Platform { signals: self.signals, ..Platform::linux() };
        let value = self.read(name, |json| {
            if !json.starts_with('"') {
                return platform.signal(json).map(Ok);
            }
            let text = serde_json::from_str::<String>(json).ok().filter(|text| !text.is_empty())?;
            Some(platform.signal(&text).ok_or(text))
        })?;
        self.needed(name, value)?.map_err(|text| self.no_signal(&text))
    }

    fn no_signal(&self, text: &str) -> RpcError {
        let upper = text.to_ascii_uppercase();
        let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
        let near = nearest(bare, self.signals.iter().map(|(name, _)| *name));
        let near = near.map_or_else(String::new, |near| format!("; did you mean {near}?"));
        let error = RpcError::new(Code::InvalidParams, format!("{text:?} is no signal{near}"));
        error.hint("signals have names, as TERM or SIGHUP, and numbers")
    }

    /// # Errors
    /// When it is something else.
    pub fn time(&self, name: &str) -> Answer<Option<Wall>> {
        self.read(name, |json| {
            if json.starts_with('"') {
                return Wall::parse(&serde_json::from_str::<String>(json).ok()?);
            }
            serde_json::from_str(json).ok().map(Wall)
        })
    }

    /// # Errors
    /// When it is something else.
    pub fn stream(&self, name: &str) -> Answer<Option<Stream>> {
        self.read(name, |json| match json {
            "\"out\"" => Some(Stream::Out),
            "\"err\"" => Some(Stream::Err),
            _ => None,
        })
    }

    /// # Errors
    /// When it is something else.
    pub fn owner(&self, name: &str) -> Answer<Option<Of>> {
        self.read(name, |json| {
            let text: String = if json.starts_with('"') { serde_json::from_str(json).ok()? } else { json.to_owned() };
            if let Some(id) = text.strip_prefix("schedule/") {
                return (!id.is_empty()).then(|| Of::Schedule(id.to_owned()));
            }
            if text.strip_prefix("task/").is_some_and(|id| id.parse::<u64>().is_ok()) {
                return Some(Of::Job(text));
            }
            match text.strip_prefix("service/") {
                Some(service) => (!service.is_empty()).then(|| Of::Job(service.to_owned())),
                None if text == "mine" => Some(Of::Caller),
                None if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok().map(Of::User),
                None => None,
            }
        })
    }

    /// An object as its JSON text.
    ///
    /// # Errors
    /// When it is something else.
    pub fn object(&self, name: &str) -> Answer<Option<String>> {
        self.read(name, |json| json.starts_with('{').then(|| json.to_owned()))
    }

    /// Log positions by name; none when absent.
    ///
    /// # Errors
    /// When it is something else, or more than [`SERVICES_MAX`].
    pub fn positions(&self, name: &str) -> Answer<Vec<(String, u64)>> {
        Ok(self.read(name, read_positions)?.unwrap_or_default())
    }
}

pub(super) fn missing(method: &Method, name: &str) -> RpcError {
    let doc = method.params.iter().find(|p| p.name == name).map_or("", |p| p.doc);
    RpcError::new(Code::InvalidParams, format!("{} needs {name}", method.name)).hint(format!("{name}: {doc}"))
}

impl Kind {
    /// What is wanted, for messages.
    #[must_use]
    pub fn wanted(self) -> &'static str {
        match self {
            Kind::Text => "a text that is not empty",
            Kind::Names => "a name or a list of names",
            Kind::Flag => "true or false",
            Kind::Count => "a whole number from 0",
            Kind::Duration => "a duration such as \"10s\", or a number of seconds",
            Kind::Signal => "a signal such as \"TERM\" or 15",
            Kind::Object => "an object",
            Kind::Positions => "an object of names and positions",
            Kind::Time => "a time such as \"2026-11-20T18:09:38Z\", or milliseconds since 1970",
            Kind::Stream => "\"out\" or \"err\"",
            Kind::Integer => "a whole number",
            Kind::List => "a list of objects",
            Kind::Command => "a list of words without zero bytes, or one text for the shell",
            Kind::Pairs => "an object of texts without zero bytes",
            Kind::Umask => "octal digits in quotes, such as \"022\"",
            Kind::Size => "a size such as \"64MB\", or a number of bytes",
            Kind::Data => "a text, or {\"base64\": ...}",
            Kind::Ids => "a number, a range such as \"12-40\", or a list of these",
            Kind::After => "numbers of tasks, or objects {\"id\", \"any\"}",
            Kind::Owner => "\"mine\", the number of a user, \"service/NAME\" or \"schedule/ID\"",
        }
    }

    /// Its JSON schema.
    #[must_use]
    pub fn schema(self) -> &'static str {
        match self {
            Kind::Text => r#"{"type":"string","minLength":1}"#,
            Kind::Names => r#"{"oneOf":[{"type":"string"},{"type":"array","items":{"type":"string"}}]}"#,
            Kind::Flag => r#"{"type":"boolean"}"#,
            Kind::Count => r#"{"type":"integer","minimum":0}"#,
            Kind::Duration => r#"{"oneOf":[{"type":"string"},{"type":"number","minimum":0}]}"#,
            Kind::Signal => r#"{"oneOf":[{"type":"string"},{"type":"integer","minimum":1}]}"#,
            Kind::Object => r#"{"type":"object"}"#,
            Kind::Positions => r#"{"type":"object","additionalProperties":{"type":"integer","minimum":0}}"#,
            Kind::Time => r#"{"oneOf":[{"type":"string","format":"date-time"},{"type":"integer"}]}"#,
            Kind::Stream => r#"{"enum":["out","err"]}"#,
            Kind::Integer => r#"{"type":"integer"}"#,
            Kind::List => r#"{"type":"array","items":{"type":"object"}}"#,
            Kind::Command => r#"{"oneOf":[{"type":"string"},{"type":"array","items":{"type":"string"},"minItems":1}]}"#,
            Kind::Pairs => r#"{"type":"object","additionalProperties":{"type":"string"}}"#,
            Kind::Umask => r#"{"type":"string","pattern":"^[0-7]{1,4}$"}"#,
            Kind::Size => r#"{"oneOf":[{"type":"string"},{"type":"integer","minimum":0}]}"#,
            Kind::Data => {
                r#"{"oneOf":[{"type":"string"},{"type":"object","properties":{"base64":{"type":"string"}}}]}"#
            }
            Kind::Ids => r#"{"type":["integer","string","array"],"items":{"type":["integer","string"]}}"#,
            Kind::After => r#"{"oneOf":[{"type":"integer"},{"type":"array","items":{"type":["integer","object"]}}]}"#,
            Kind::Owner => r#"{"oneOf":[{"type":"string"},{"type":"integer","minimum":0}]}"#,
        }
    }
}

/// One name or a list of at most [`SERVICES_MAX`], none empty.
fn read_names(json: &str) -> Option<Vec<String>> {
    struct Names;
    impl<'de> Visitor<'de> for Names {
        type Value = Vec<String>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("names")
        }
        fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Vec<String>, E> {
            Ok(vec![name.to_owned()])
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<String>, A::Error> {
            let mut names = Vec::new();
            while let Some(name) = seq.next_element()? {
                if names.len() == SERVICES_MAX {
                    return Err(serde::de::Error::custom("too many"));
                }
                names.push(name);
            }
            Ok(names)
        }
    }
    let names = serde_json::Deserializer::from_str(json).deserialize_any(Names).ok()?;
    (!names.iter().any(String::is_empty)).then_some(names)
}

/// An object of at most [`SERVICES_MAX`] positions.
fn read_positions(json: &str) -> Option<Vec<(String, u64)>> {
    struct Positions;
    impl<'de> Visitor<'de> for Positions {
        type Value = Vec<(String, u64)>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("positions")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut positions = Vec::new();
            while let Some(entry) = map.next_entry()? {
                if positions.len() == SERVICES_MAX {
                    return Err(serde::de::Error::custom("too many"));
                }
                positions.push(entry);
            }
            Ok(positions)
        }
    }
    serde_json::Deserializer::from_str(json).deserialize_map(Positions).ok()
}
