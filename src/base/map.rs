//! A sorted map in one list, for what hob has thousands of at most: a tenth of the code of a `BTreeMap` for each pair
//! of types, and less memory. A change in the middle moves what stands behind it; for what may be very many, or is
//! large and changes often, a `BTreeMap` is the right one.

use core::borrow::Borrow;

/// Keys in their order, each once, with a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Map<K, V> {
    list: Vec<(K, V)>,
}

impl<K, V> Default for Map<K, V> {
    fn default() -> Map<K, V> {
        Map::new()
    }
}

impl<K, V> Map<K, V> {
    #[must_use]
    pub const fn new() -> Map<K, V> {
        Map { list: Vec::new() }
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.list.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub fn clear(&mut self) {
        self.list.clear();
    }

    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, &V)> + ExactSizeIterator {
        self.list.iter().map(|(key, value)| (key, value))
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&K, &mut V)> {
        self.list.iter_mut().map(|(key, value)| (&*key, value))
    }

    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.list.iter().map(|(key, _)| key)
    }

    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.list.iter().map(|(_, value)| value)
    }

    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.list.iter_mut().map(|(_, value)| value)
    }

    pub fn into_values(self) -> impl Iterator<Item = V> {
        self.list.into_iter().map(|(_, value)| value)
    }

    pub fn pop_first(&mut self) -> Option<(K, V)> {
        (!self.list.is_empty()).then(|| self.list.remove(0))
    }

    /// Keeps those of which `keep` is true, and asks it once of each, in order.
    pub fn retain(&mut self, mut keep: impl FnMut(&K, &mut V) -> bool) {
        self.list.retain_mut(|(key, value)| keep(key, value));
    }
}

impl<K: Ord, V> Map<K, V> {
    /// Where the key stands, or would.
    fn find<Q: Ord + ?Sized>(&self, key: &Q) -> Result<usize, usize>
    where
        K: Borrow<Q>,
    {
        self.list.binary_search_by(|(k, _)| k.borrow().cmp(key))
    }

    #[must_use]
    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.find(key).is_ok()
    }

    #[must_use]
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.find(key).ok().map(|at| &self.list[at].1)
    }

    #[must_use]
    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        self.find(key).ok().map(|at| &mut self.list[at].1)
    }

    /// What stands behind this key, whether the map has it or not.
    pub fn after<Q: Ord + ?Sized>(&self, key: &Q) -> impl Iterator<Item = (&K, &V)> + use<'_, K, V, Q>
    where
        K: Borrow<Q>,
    {
        let from = self.find(key).map_or_else(|at| at, |at| at + 1);
        self.list[from..].iter().map(|(key, value)| (key, value))
    }

    /// Answers the value that the key had.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self.find(&key) {
            Ok(at) => Some(core::mem::replace(&mut self.list[at].1, value)),
            Err(at) => {
                self.list.insert(at, (key, value));
                None
            }
        }
    }

    /// The value of the key, which gets this one if it has none.
    pub fn get_or(&mut self, key: K, new: impl FnOnce() -> V) -> &mut V {
        let at = match self.find(&key) {
            Ok(at) => at,
            Err(at) => {
                self.list.insert(at, (key, new()));
                at
            }
        };
        &mut self.list[at].1
    }

    /// Answers the value that the key had.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        self.find(key).ok().map(|at| self.list.remove(at).1)
    }
}

impl<K: Ord, V> Extend<(K, V)> for Map<K, V> {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, pairs: I) {
        for (key, value) in pairs {
            self.insert(key, value);
        }
    }
}

impl<K: Ord, V> FromIterator<(K, V)> for Map<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Map<K, V> {
        let mut map = Map::new();
        map.extend(pairs);
        map
    }
}

impl<K, V> IntoIterator for Map<K, V> {
    type Item = (K, V);
    type IntoIter = std::vec::IntoIter<(K, V)>;

    fn into_iter(self) -> Self::IntoIter {
        self.list.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn it_does_what_the_map_of_the_standard_library_does() {
        let (mut ours, mut theirs, mut seed) = (Map::new(), BTreeMap::new(), 1_u32);
        for round in 0..5_000_u32 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let key = (seed >> 24) % 97;
            match seed % 5 {
                0 => assert_eq!(ours.remove(&key), theirs.remove(&key)),
                1 => *ours.get_or(key, || round) += 1,
                2 => ours.retain(|k, v| (k ^ *v) % 16 != 0),
                3 if seed % 7 == 0 => assert_eq!(ours.pop_first(), theirs.pop_first()),
                _ => assert_eq!(ours.insert(key, round), theirs.insert(key, round)),
            }
            match seed % 5 {
                1 => *theirs.entry(key).or_insert(round) += 1,
                2 => theirs.retain(|k, v| (k ^ *v) % 16 != 0),
                _ => {}
            }
            assert_eq!(ours.get(&key), theirs.get(&key));
            assert_eq!(ours.contains_key(&key), theirs.contains_key(&key));
            assert!(ours.iter().eq(&theirs));
            assert!(ours.after(&key).eq(theirs.range(key + 1..)));
            assert!(ours.keys().eq(theirs.keys()) && ours.values().eq(theirs.values()));
        }
        assert!(ours.len() > 10, "the test met more than an empty map");
        assert!(ours.into_iter().eq(theirs));
    }
}
