//! Readers of params that are more than one plain value. Pure.

use super::Params;
use super::task::After;
use crate::base::ids::TaskId;
use crate::base::limits::{TASK_AFTER_MAX, TASK_IDS_MAX, TASK_LABELS_MAX};
use crate::base::near::nearest;
use crate::base::units::parse_size;
use crate::protocol::frame::base64;
use crate::protocol::rpc::{Code, RpcError};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use std::collections::BTreeMap;

type Answer<T> = Result<T, RpcError>;

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    fn list(self) -> Vec<T> {
        match self {
            OneOrMany::One(one) => vec![one],
            OneOrMany::Many(many) => many,
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Id {
    Number(u64),
    Text(String),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Following {
    Id(Id),
    Condition(serde_json::Map<String, serde_json::Value>),
}

#[derive(Deserialize)]
struct Condition {
    id: Id,
    any: Option<bool>,
    condition: Option<String>,
}

/// The keys of that.
const FOLLOWING: [&str; 3] = ["id", "any", "condition"];
/// Bytes of the names and values of all labels of a task.
const LABEL_BYTES_MAX: usize = 16_384;

#[derive(Deserialize)]
#[serde(untagged)]
enum Data {
    Text(String),
    Bytes { base64: String },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Amount {
    Number(u64),
    Text(String),
}

impl Id {
    /// Both ends of a range, or a number twice.
    fn range(&self) -> Option<(TaskId, TaskId)> {
        let (first, last) = match self {
            Id::Number(n) => (*n, *n),
            Id::Text(text) => match text.split_once('-') {
                Some((first, last)) => (first.trim().parse().ok()?, last.trim().parse().ok()?),
                None => text.trim().parse().ok().map(|n| (n, n))?,
            },
        };
        (first > 0 && first <= last).then_some((TaskId(first), TaskId(last)))
    }

    fn one(&self) -> Option<TaskId> {
        self.range().filter(|(first, last)| first == last).map(|(id, _)| id)
    }
}

/// Ranges that overlap become one. Neighbours stay apart: one that is named alone must exist.
fn merged(mut ids: Vec<(TaskId, TaskId)>) -> Vec<(TaskId, TaskId)> {
    ids.sort_unstable();
    ids.dedup_by(|(first, last), (_, end)| {
        let overlaps = *first <= *end;
        if overlaps {
            *end = (*end).max(*last);
        }
        overlaps
    });
    ids
}

fn json<T: DeserializeOwned>(text: &str) -> Option<T> {
    serde_json::from_str(text).ok()
}

impl<'a> Params<'a> {
    /// # Errors
    /// As all readers: when it is something else.
    pub fn integer<T: DeserializeOwned>(&self, name: &str) -> Answer<Option<T>> {
        self.read(name, json)
    }

    /// # Errors
    /// When it is no list.
    pub fn list(&self, name: &str) -> Answer<Option<Vec<&'a RawValue>>> {
        self.read(name, |text| serde_json::from_str(text).ok())
    }

    /// The words of a command; a text is for the shell.
    ///
    /// # Errors
    /// When it is something else, empty, or holds a zero byte.
    pub fn command(&self, name: &str) -> Answer<Option<Vec<String>>> {
        self.read(name, |text| {
            let words = match json(text)? {
                OneOrMany::One::<String>(line) if line.trim().is_empty() => return None,
                OneOrMany::One(line) => ["/bin/sh", "-c", line.as_str()].map(str::to_owned).into(),
                OneOrMany::Many(words) => words,
            };
            let sound = words.first().is_some_and(|w| !w.is_empty()) && !words.iter().any(|w| w.contains('\0'));
            sound.then_some(words)
        })
    }

    /// Members of an object, sorted by name.
    ///
    /// # Errors
    /// When it is something else, has an empty name or one with `=`, or a zero byte.
    pub fn pairs(&self, name: &str) -> Answer<Option<Vec<(String, String)>>> {
        self.read(name, |text| {
            let pairs: BTreeMap<String, String> = json(text)?;
            let odd = |(k, v): (&String, &String)| k.is_empty() || k.contains(['=', '\0']) || v.contains('\0');
            (!pairs.iter().any(odd)).then(|| pairs.into_iter().collect())
        })
    }

    /// The same of labels, which stand in each list.
    ///
    /// # Errors
    /// Also when they are too many or too long.
    pub fn labels(&self, name: &str) -> Answer<Option<Vec<(String, String)>>> {
        let labels = self.pairs(name)?;
        let of = labels.as_deref().unwrap_or_default();
        let bytes: usize = of.iter().map(|(k, v)| k.len() + v.len()).sum();
        let method = self.method.name;
        let text = if of.len() > TASK_LABELS_MAX {
            format!("{name} of {method} are {}; {TASK_LABELS_MAX} is the most", of.len())
        } else if bytes > LABEL_BYTES_MAX {
            format!("{name} of {method} have {bytes} bytes; {LABEL_BYTES_MAX} is the most for all together")
        } else {
            return Ok(labels);
        };
        Err(RpcError::new(Code::InvalidParams, text).hint("large data is for stdin, or for a file"))
    }

    /// # Errors
    /// When it is something else.
    pub fn umask(&self, name: &str) -> Answer<Option<u32>> {
        self.read(name, |text| u32::from_str_radix(&json::<String>(text)?, 8).ok().filter(|m| *m <= 0o777))
    }

    /// # Errors
    /// When it is something else.
    pub fn size(&self, name: &str) -> Answer<Option<u64>> {
        self.read(name, |text| match json(text)? {
            Amount::Number(n) => Some(n),
            Amount::Text(text) => parse_size(&text).ok(),
        })
    }

    /// # Errors
    /// When it is something else.
    pub fn data(&self, name: &str) -> Answer<Option<Vec<u8>>> {
        self.read(name, |text| match json(text)? {
            Data::Text(text) => Some(text.into_bytes()),
            Data::Bytes { base64: text } => base64::decode(&text),
        })
    }

    /// Ranges of ids, in order and apart from one another.
    ///
    /// # Errors
    /// When it is something else, or too many.
    pub fn ids(&self, name: &str) -> Answer<Option<Vec<(TaskId, TaskId)>>> {
        // Between two of them there is a comma, inside a text as well as outside, so that too many are not even read.
        let count = self.read(name, |text| Some(text.bytes().filter(|b| *b == b',').count() + 1))?;
        if let Some(count) = count.filter(|n| *n > TASK_IDS_MAX) {
            let text =
                format!("{name} of {} names {count} tasks or ranges; {TASK_IDS_MAX} is the most", self.method.name);
            return Err(RpcError::new(Code::InvalidParams, text).hint("one range stands for many, as in \"1-20000\""));
        }
        let ids = self.read(name, |text| {
            let given: OneOrMany<Id> = json(text)?;
            // "3,7-9" is what a person types.
            let split = |id: Id| match id {
                Id::Text(text) => text.split(',').map(|t| Id::Text(t.to_owned())).collect(),
                number @ Id::Number(_) => vec![number],
            };
            given.list().into_iter().flat_map(split).map(|id| id.range()).collect()
        })?;
        Ok(ids.map(merged))
    }

    /// # Errors
    /// When it is something else, too many, or has a key that means nothing.
    pub fn after(&self, name: &str) -> Answer<Option<Vec<After>>> {
        let Some(given) = self.read(name, |text| Some(json::<OneOrMany<Following>>(text)?.list()))? else {
            return Ok(None);
        };
        let keys = given.iter().filter_map(|f| if let Following::Condition(keys) = f { Some(keys) } else { None });
        if let Some(odd) = keys.flat_map(|keys| keys.keys()).find(|key| !FOLLOWING.contains(&key.as_str())) {
            let shown: String = odd.chars().take(60).collect();
            let text = format!("an object in {name} of {} has no key {shown:?}", self.method.name);
            let hint = match nearest(odd, FOLLOWING) {
                Some(near) => format!("did you mean {near}?"),
                None => format!("it has {}", FOLLOWING.join(", ")),
            };
            return Err(RpcError::new(Code::InvalidParams, text).hint(hint));
        }
        let one = |f: Following| match f {
            Following::Id(id) => Some(After { id: id.one()?, any: false }),
            Following::Condition(keys) => {
                let Condition { id, any, condition } = serde_json::from_value(keys.into()).ok()?;
                let any = match condition.as_deref() {
                    None => any.unwrap_or(false),
                    Some("any") => true,
                    Some("success") => false,
                    Some(_) => return None,
                };
                Some(After { id: id.one()?, any })
            }
        };
        let all: Option<Vec<After>> = given.into_iter().map(one).collect();
        self.read(name, |_| {
            let mut all = all?;
            all.sort_by_key(|a| (a.id, a.any));
            all.dedup_by_key(|a| a.id);
            (all.len() <= TASK_AFTER_MAX).then_some(all)
        })
    }
}
