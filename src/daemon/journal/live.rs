//! How much of what lies on disk is of use still: the last state of each entity that exists. Touches nothing.

use crate::base::hash::{FNV, fnv};
use crate::core::record::Entity;
use std::collections::HashMap;

/// About what a line has beside its key and its state.
const LINE: usize = 40;

/// Live entities, by the hashes of their keys, with about how many bytes the line of each has. Twenty bytes for each
/// entity tell at any time what a snapshot would leave; two keys with one hash make that wrong by one of them.
#[derive(Debug, Default)]
pub(super) struct Live {
    sizes: HashMap<u64, u32>,
    bytes: u64,
}

impl Live {
    /// Takes up the state of an entity, or its end.
    pub(super) fn note(&mut self, key: &str, json: Option<&str>) {
        let hash = fnv(FNV, key.as_bytes());
        let size = json.map(|json| u32::try_from(key.len() + json.len() + LINE).unwrap_or(u32::MAX));
        let old = match size {
            Some(size) => self.sizes.insert(hash, size),
            None => self.sizes.remove(&hash),
        };
        self.bytes = self.bytes + u64::from(size.unwrap_or(0)) - u64::from(old.unwrap_or(0));
    }

    pub(super) fn note_all(&mut self, records: &[Entity]) {
        records.iter().for_each(|r| self.note(&r.key, r.json.as_deref()));
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_state_of_what_exists_counts() {
        let mut live = Live::default();
        live.note("a", Some("12345"));
        live.note("b", Some(&"x".repeat(1000)));
        live.note("a", Some("1"));
        live.note("c", None);
        assert_eq!(live.bytes(), 42 + 1001 + 40);
        live.note("b", None);
        live.note("b", None);
        assert_eq!((live.bytes(), live.sizes.len()), (42, 1));
    }

    #[test]
    fn a_line_is_about_as_long_as_is_said() {
        for (n, key, json) in [(1, "meta", "{}"), (1 << 40, "task/1234567", r#"{"state":"queued"}"#)] {
            let mut line = Vec::new();
            super::super::record::encode(&mut line, n, key, Some(json), false);
            let said = key.len() + json.len() + LINE;
            assert!(line.len().abs_diff(said) <= 10, "{} {said}", line.len());
        }
    }
}
