//! Method and params to a request, with hints for what is misspelt. Pure.

use super::params::missing;
use super::{Kind, METHODS, Method, Params, Request};
use crate::base::access::Access;
use crate::base::hash::{FNV, fnv};
use crate::base::limits::REQUEST_KEY_MAX;
use crate::base::near::nearest;
use crate::protocol::rpc::{Code, Name, RpcError};
use core::fmt;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// The signals of the system the daemon runs on, see `Platform::signals`.
pub type Signals = [(&'static str, i32)];

/// A call ready for the core.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    pub request: Request,
    /// What the caller must be allowed.
    pub access: Access,
    pub mutating: bool,
    /// The caller's own name for this request; only mutating ones have one.
    pub key: Option<String>,
    /// The same for the same method and params, however they were written; 0 without a key.
    pub params_hash: u64,
}

/// Finds the method and reads its params.
///
/// # Errors
/// `MethodNotFound` and `InvalidParams`, with a hint.
pub fn decode(name: &str, params: Option<&RawValue>, signals: &'static Signals) -> Result<Call, RpcError> {
    let method = find(name).ok_or_else(|| unknown_method(name))?;
    let reader = Reader::all(method, params)?;
    let key = reader.key.filter(|_| method.mutating);
    let params_hash = if key.is_some() { params_hash(method, &reader.given) } else { 0 };
    let request = (method.decode)(&Params { method, signals, given: reader.given })?;
    // A config can make a program run as anybody that hob can be.
    let access = if matches!(request, Request::ServiceNew(_)) { Access::Admin } else { method.access };
    Ok(Call { request, access, mutating: method.mutating, key, params_hash })
}

/// The method of this name or alias.
pub(crate) fn find(name: &str) -> Option<&'static Method> {
    METHODS.iter().find(|m| m.name == name).or_else(|| METHODS.iter().find(|m| m.aliases.contains(&name)))
}

fn unknown_method(name: &str) -> RpcError {
    let shown: String = name.chars().take(60).collect();
    let known = METHODS.iter().flat_map(|m| core::iter::once(&m.name).chain(m.aliases));
    let hint = match nearest(name, known.copied()) {
        Some(near) => format!("did you mean {near}?"),
        None => "rpc.discover lists all methods".to_owned(),
    };
    RpcError::new(Code::MethodNotFound, format!("no method {shown:?}")).hint(hint)
}

/// Reads one more set of params for the same method, as an element of a list, which has no key of its own.
pub(super) fn read_params<'a>(
    method: &'static Method,
    signals: &'static Signals,
    params: &'a RawValue,
) -> Result<Params<'a>, RpcError> {
    let reader = Reader::all(method, Some(params))?;
    if reader.key.is_some() {
        let error = RpcError::new(Code::InvalidParams, "request_key is one of the whole request");
        return Err(error.hint("put it beside the list"));
    }
    Ok(Params { method, signals, given: reader.given })
}

/// Sorts members or elements by the method's table.
struct Reader<'a> {
    method: &'static Method,
    given: Vec<Option<&'a RawValue>>,
    key: Option<String>,
    /// The first thing found wrong.
    problem: Option<RpcError>,
}

impl<'a> Reader<'a> {
    fn all(method: &'static Method, params: Option<&'a RawValue>) -> Result<Reader<'a>, RpcError> {
        let mut reader = Reader { method, given: Vec::new(), key: None, problem: None };
        if let Some(params) = params {
            reader.read(params)?;
        }
        let present = |i: usize| reader.given.get(i).is_some_and(Option::is_some);
        match method.params.iter().enumerate().find(|(i, p)| p.required && !present(*i)) {
            Some((_, param)) => Err(missing(method, param.name)),
            None => Ok(reader),
        }
    }

    fn read(&mut self, params: &'a RawValue) -> Result<(), RpcError> {
        // Params that are a list of tasks are that list, and not its elements by position.
        let list = self.method.params.first().filter(|p| p.kind == Kind::List);
        if list.is_some() && params.get().starts_with('[') {
            self.put(0, params);
            return Ok(());
        }
        let read = serde_json::Deserializer::from_str(params.get()).deserialize_any(&mut *self);
        if read.is_err() {
            return Err(RpcError::new(Code::InvalidParams, "params are neither an object nor an array"));
        }
        self.problem.take().map_or(Ok(()), Err)
    }

    fn refuse(&mut self, what: String, hint: Option<String>) {
        self.problem.get_or_insert(RpcError { code: Code::InvalidParams, message: what, hint });
    }

    fn put(&mut self, at: usize, value: &'a RawValue) {
        if self.given.is_empty() {
            self.given = vec![None; self.method.params.len()];
        }
        // A null stands for an absent one.
        let value = (value.get() != "null").then_some(value);
        if let Some(slot) = self.given.get_mut(at) {
            if slot.is_some() {
                let name = self.method.params.get(at).map_or("", |p| p.name);
                return self.refuse(format!("{name} is given twice"), None);
            }
            *slot = value;
        }
    }

    fn put_key(&mut self, value: &'a RawValue) {
        match serde_json::from_str::<Option<String>>(value.get()) {
            Ok(Some(key)) if key.is_empty() || key.len() > REQUEST_KEY_MAX => {
                self.refuse(format!("request_key has 1 to {REQUEST_KEY_MAX} bytes"), None);
            }
            Ok(key) => self.key = key,
            Err(_) => self.refuse("request_key is a text".to_owned(), None),
        }
    }

    fn unknown(&mut self, name: &str) {
        let params = self.method.params;
        let known = || params.iter().flat_map(|p| core::iter::once(p.name).chain(p.alias));
        let hint = match nearest(name, known()) {
            Some(near) => format!("did you mean {near}?"),
            None if params.is_empty() => "it takes no params".to_owned(),
            None => format!("it takes {}", params.iter().map(|p| p.name).collect::<Vec<_>>().join(", ")),
        };
        let shown: String = name.chars().take(60).collect();
        self.refuse(format!("{} has no param {shown:?}", self.method.name), Some(hint));
    }
}

impl<'de> Visitor<'de> for &mut Reader<'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("params")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Name(name)) = map.next_key::<Name<'de>>()? {
            let at = self.method.params.iter().position(|p| p.name == name || p.alias == Some(&name));
            match at {
                Some(at) => self.put(at, map.next_value()?),
                None if name == "request_key" => self.put_key(map.next_value()?),
                None => {
                    map.next_value::<IgnoredAny>()?;
                    self.unknown(&name);
                }
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let most = self.method.params.len();
        for at in 0..most {
            let Some(value) = seq.next_element::<&'de RawValue>()? else { return Ok(()) };
            self.put(at, value);
        }
        while seq.next_element::<IgnoredAny>()?.is_some() {
            self.refuse(format!("{} takes {most} params at most", self.method.name), None);
        }
        Ok(())
    }
}

/// Over method and values. It goes into the journal with a request key, so it must not change between versions.
fn params_hash(method: &Method, given: &[Option<&RawValue>]) -> u64 {
    let mut hash = fnv(FNV, method.name.as_bytes());
    for (param, value) in method.params.iter().zip(given) {
        let Some(value) = value else { continue };
        let value = serde_json::from_str::<Canonical>(value.get()).map_or(0, |c| c.0);
        hash = fnv(fnv(fnv(hash, b"\0"), param.name.as_bytes()), &value.to_le_bytes());
    }
    hash
}

/// The hash of a JSON value that does not depend on white space, escapes or the order of members.
struct Canonical(u64);

impl<'de> Deserialize<'de> for Canonical {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(CanonicalVisitor)
    }
}

struct CanonicalVisitor;

impl CanonicalVisitor {
    fn tagged<E>(tag: u8, bytes: &[u8]) -> Result<Canonical, E> {
        Ok(Canonical(fnv(fnv(FNV, &[tag]), bytes)))
    }
}

impl<'de> Visitor<'de> for CanonicalVisitor {
    type Value = Canonical;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }
    fn visit_unit<E>(self) -> Result<Canonical, E> {
        Self::tagged(b'n', b"")
    }
    fn visit_bool<E>(self, v: bool) -> Result<Canonical, E> {
        Self::tagged(b'b', &[u8::from(v)])
    }
    fn visit_u64<E>(self, v: u64) -> Result<Canonical, E> {
        Self::tagged(b'i', &i128::from(v).to_le_bytes())
    }
    fn visit_i64<E>(self, v: i64) -> Result<Canonical, E> {
        Self::tagged(b'i', &i128::from(v).to_le_bytes())
    }
    fn visit_f64<E>(self, v: f64) -> Result<Canonical, E> {
        Self::tagged(b'f', &v.to_bits().to_le_bytes())
    }
    fn visit_str<E>(self, v: &str) -> Result<Canonical, E> {
        Self::tagged(b's', v.as_bytes())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Canonical, A::Error> {
        let mut hash = fnv(FNV, b"a");
        while let Some(Canonical(element)) = seq.next_element()? {
            hash = fnv(hash, &element.to_le_bytes());
        }
        Ok(Canonical(hash))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Canonical, A::Error> {
        let mut sum = 0_u64;
        while let Some((Canonical(name), Canonical(value))) = map.next_entry()? {
            sum = sum.wrapping_add(fnv(fnv(FNV, &name.to_le_bytes()), &value.to_le_bytes()));
        }
        Self::tagged(b'o', &sum.to_le_bytes())
    }
}

#[cfg(test)]
pub(super) fn canonical_hash(json: &str) -> u64 {
    serde_json::from_str::<Canonical>(json).map_or(0, |c| c.0)
}
