//! Entries found by ids that never come again: the low bits of an id are a place, the rest counts up. Touches nothing.

/// Up to 2^BITS entries.
#[derive(Debug)]
pub(super) struct Slab<T, const BITS: u32> {
    /// The id at a place beside its entry.
    entries: Vec<Option<(u64, T)>>,
    free: Vec<usize>,
    next: u64,
    len: usize,
}

impl<T, const BITS: u32> Slab<T, BITS> {
    pub(super) fn new() -> Self {
        Slab { entries: Vec::new(), free: Vec::new(), next: 1, len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    fn place(id: u64) -> usize {
        usize::try_from(id & ((1 << BITS) - 1)).unwrap_or(usize::MAX)
    }

    /// `None` when all places are taken.
    pub(super) fn insert(&mut self, entry: T) -> Option<u64> {
        let at = match self.free.pop() {
            Some(at) => at,
            None if self.entries.len() < 1 << BITS => {
                self.entries.push(None);
                self.entries.len() - 1
            }
            None => return None,
        };
        let id = self.next << BITS | at as u64;
        self.next += 1;
        *self.entries.get_mut(at)? = Some((id, entry));
        self.len += 1;
        Some(id)
    }

    pub(super) fn get(&self, id: u64) -> Option<&T> {
        self.entries.get(Self::place(id))?.as_ref().filter(|e| e.0 == id).map(|e| &e.1)
    }

    pub(super) fn get_mut(&mut self, id: u64) -> Option<&mut T> {
        self.entries.get_mut(Self::place(id))?.as_mut().filter(|e| e.0 == id).map(|e| &mut e.1)
    }

    pub(super) fn remove(&mut self, id: u64) -> Option<T> {
        let at = Self::place(id);
        let slot = self.entries.get_mut(at)?;
        if slot.as_ref().is_none_or(|e| e.0 != id) {
            return None;
        }
        self.free.push(at);
        self.len -= 1;
        slot.take().map(|e| e.1)
    }

    /// Removes what `unwanted` says.
    pub(super) fn remove_all(&mut self, unwanted: impl Fn(&T) -> bool) {
        for (at, slot) in self.entries.iter_mut().enumerate() {
            if slot.as_ref().is_some_and(|e| unwanted(&e.1)) {
                *slot = None;
                self.free.push(at);
                self.len -= 1;
            }
        }
    }

    /// All ids, in no useful order.
    pub(super) fn ids(&self) -> Vec<u64> {
        self.entries.iter().flatten().map(|e| e.0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_never_finds_what_came_after_it() {
        let mut slab: Slab<&str, 1> = Slab::new();
        let (a, b) = (slab.insert("a").unwrap(), slab.insert("b").unwrap());
        assert_eq!(slab.insert("full"), None);
        assert_eq!(slab.remove(a), Some("a"));
        assert_eq!(slab.remove(a), None);
        let c = slab.insert("c").unwrap();
        assert_eq!((slab.get(a), slab.get(b), slab.get(c)), (None, Some(&"b"), Some(&"c")));
        assert!(a < b && b < c && a > 0);
        slab.remove_all(|t| *t == "b");
        assert_eq!((slab.ids(), slab.len()), (vec![c], 1));
        assert!(slab.insert("d").is_some());
    }
}
