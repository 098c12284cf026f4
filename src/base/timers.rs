//! One timer wheel for all deadlines: one deadline an entity, set, replaced and cancelled in constant time. Pure.
//!
//! Eight levels of 64 slots; a slot of level 0 is a millisecond wide, one of each further level 64 times as much. A
//! deadline lies on the level of the highest digit (base 64) in which its millisecond differs from the wheel's own
//! time, so that the first occupied slot of the lowest occupied level holds the earliest one. Slots only sort roughly;
//! every deadline is kept to the nanosecond, `next` answers the earliest one exactly, and moving entries to lower
//! levels happens when something is popped anyway. Nothing ever fires early and nobody is woken for the wheel's own
//! sake.

use crate::base::time::Mono;
use core::cell::Cell;
use core::marker::PhantomData;
use std::collections::BTreeSet;

const LEVELS: usize = 8;
const DIGIT: u32 = 6;
const SLOTS: usize = 1 << DIGIT;
const NONE: u32 = u32::MAX;
/// Where an entry is: in a slot (its number), nowhere, or among those whose millisecond has come.
const UNSET: u16 = u16::MAX;
const NEAR: u16 = u16::MAX - 1;

/// What a deadline is kept for: a small dense number, such as an index into a slab, and back.
pub trait Key: Copy {
    /// The wheel takes memory for all numbers up to the largest one used.
    fn index(self) -> u32;
    fn from_index(index: u32) -> Self;
}

impl Key for u32 {
    fn index(self) -> u32 {
        self
    }

    fn from_index(index: u32) -> Self {
        index
    }
}

#[derive(Clone, Debug)]
struct Entry {
    at: Mono,
    /// Order of being set, for equal deadlines.
    order: u64,
    place: u16,
    prev: u32,
    next: u32,
}

#[derive(Clone, Debug)]
struct Slot {
    head: u32,
    /// The earliest deadline in it, if known; it is looked for again only when that one was taken away.
    earliest: Cell<Option<Mono>>,
}

/// The wheel.
#[derive(Clone, Debug)]
pub struct Wheel<K = u32> {
    entries: Vec<Entry>,
    slots: Vec<Slot>,
    /// One bit for each slot that holds something.
    occupied: [u64; LEVELS],
    /// Entries whose millisecond is not after `tick`, by deadline and order.
    near: BTreeSet<(Mono, u64, u32)>,
    /// The wheel's own time in milliseconds. All slots are later.
    tick: u64,
    order: u64,
    len: usize,
    key: PhantomData<K>,
}

impl<K: Key> Default for Wheel<K> {
    fn default() -> Self {
        Wheel::new()
    }
}

impl<K: Key> Wheel<K> {
    #[must_use]
    pub fn new() -> Self {
        Wheel {
            entries: Vec::new(),
            slots: vec![Slot { head: NONE, earliest: Cell::new(None) }; LEVELS * SLOTS],
            occupied: [0; LEVELS],
            near: BTreeSet::new(),
            tick: 0,
            order: 0,
            len: 0,
            key: PhantomData,
        }
    }

    /// Sets the deadline of `key`, instead of the one it had. The same deadline again changes nothing, nor the order
    /// among equal ones.
    pub fn set(&mut self, key: K, at: Mono) {
        let index = key.index();
        let i = index as usize;
        if i >= self.entries.len() {
            let unset = Entry { at, order: 0, place: UNSET, prev: NONE, next: NONE };
            self.entries.resize(i + 1, unset);
        }
        if self.entries[i].place != UNSET {
            if self.entries[i].at == at {
                return;
            }
            self.cancel(key);
        }
        self.order += 1;
        self.len += 1;
        self.entries[i].at = at;
        self.entries[i].order = self.order;
        self.insert(index);
    }

    /// Takes the deadline of `key` away; whether there was one.
    pub fn cancel(&mut self, key: K) -> bool {
        let index = key.index();
        match self.entries.get(index as usize).map(|e| e.place) {
            None | Some(UNSET) => return false,
            Some(NEAR) => {
                let e = &self.entries[index as usize];
                self.near.remove(&(e.at, e.order, index));
            }
            Some(place) => self.unlink(index, usize::from(place)),
        }
        self.entries[index as usize].place = UNSET;
        self.len -= 1;
        true
    }

    /// Sets or cancels, whichever the state says.
    pub fn put(&mut self, key: K, at: Option<Mono>) {
        match at {
            Some(at) => self.set(key, at),
            None => {
                self.cancel(key);
            }
        }
    }

    #[must_use]
    pub fn get(&self, key: K) -> Option<Mono> {
        self.entries.get(key.index() as usize).filter(|e| e.place != UNSET).map(|e| e.at)
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The earliest deadline.
    #[must_use]
    pub fn next(&self) -> Option<Mono> {
        if let Some((at, ..)) = self.near.first() {
            return Some(*at);
        }
        let slot = &self.slots[self.first_slot()?];
        if slot.earliest.get().is_none() {
            slot.earliest.set(self.chain(slot.head).map(|i| self.entries[i as usize].at).min());
        }
        slot.earliest.get()
    }

    /// Takes out the earliest deadline that is not after `now`; equal ones in the order in which they were set.
    pub fn pop_expired(&mut self, now: Mono) -> Option<(K, Mono)> {
        let tick = millis(now);
        loop {
            if let Some(&(at, _, index)) = self.near.first() {
                if at > now {
                    return None;
                }
                self.cancel(K::from_index(index));
                return Some((K::from_index(index), at));
            }
            let start = self.first_slot().map(|place| (place, self.start_of(place)));
            match start {
                Some((place, start)) if start <= tick => {
                    self.tick = start;
                    self.cascade(place);
                }
                _ => {
                    // No slot starts before this, so every entry keeps its level.
                    self.tick = self.tick.max(tick);
                    return None;
                }
            }
        }
    }

    /// The slot with the earliest entries outside `near`.
    fn first_slot(&self) -> Option<usize> {
        let level = self.occupied.iter().position(|bits| *bits != 0)?;
        Some(level * SLOTS + self.occupied[level].trailing_zeros() as usize)
    }

    /// The first millisecond of a slot, as seen from the wheel's time.
    fn start_of(&self, place: usize) -> u64 {
        let shift = DIGIT * u32::try_from(place / SLOTS).unwrap_or(0);
        let above = self.tick >> shift >> DIGIT << DIGIT;
        (above | (place % SLOTS) as u64) << shift
    }

    fn insert(&mut self, index: u32) {
        let i = index as usize;
        let at = self.entries[i].at;
        let tick = millis(at);
        if tick <= self.tick {
            self.entries[i].place = NEAR;
            self.near.insert((at, self.entries[i].order, index));
            return;
        }
        let level = (63 - (tick ^ self.tick).leading_zeros()) / DIGIT;
        let digit = usize::try_from(tick >> (DIGIT * level)).map_or(0, |d| d % SLOTS);
        let place = level as usize * SLOTS + digit;
        let slot = &mut self.slots[place];
        let head = core::mem::replace(&mut slot.head, index);
        slot.earliest.set(match slot.earliest.get() {
            None if head != NONE => None,
            known => Some(known.map_or(at, |k| k.min(at))),
        });
        if head != NONE {
            self.entries[head as usize].prev = index;
        }
        self.occupied[level as usize] |= 1 << digit;
        let entry = &mut self.entries[i];
        entry.place = u16::try_from(place).unwrap_or(UNSET);
        (entry.prev, entry.next) = (NONE, head);
    }

    fn unlink(&mut self, index: u32, place: usize) {
        let Entry { at, prev, next, .. } = self.entries[index as usize];
        if prev == NONE {
            self.slots[place].head = next;
        } else {
            self.entries[prev as usize].next = next;
        }
        if next != NONE {
            self.entries[next as usize].prev = prev;
        }
        let slot = &self.slots[place];
        if slot.head == NONE {
            self.occupied[place / SLOTS] &= !(1 << (place % SLOTS));
        }
        if slot.head == NONE || slot.earliest.get() == Some(at) {
            slot.earliest.set(None);
        }
    }

    /// Sorts the entries of a slot whose time has come into lower levels.
    fn cascade(&mut self, place: usize) {
        let slot = &mut self.slots[place];
        let mut index = core::mem::replace(&mut slot.head, NONE);
        slot.earliest.set(None);
        self.occupied[place / SLOTS] &= !(1 << (place % SLOTS));
        while index != NONE {
            let next = self.entries[index as usize].next;
            self.insert(index);
            index = next;
        }
    }

    fn chain(&self, head: u32) -> impl Iterator<Item = u32> + '_ {
        let follow = |i: u32| if i == NONE { None } else { Some(i) };
        core::iter::successors(follow(head), move |i| follow(self.entries[*i as usize].next))
    }
}

fn millis(at: Mono) -> u64 {
    at.0 / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// The obvious implementation.
    #[derive(Default)]
    struct Model {
        by_key: BTreeMap<u32, (Mono, u64)>,
        order: u64,
    }

    impl Model {
        fn set(&mut self, key: u32, at: Mono) {
            self.order += 1;
            if self.by_key.get(&key).is_none_or(|(old, _)| *old != at) {
                self.by_key.insert(key, (at, self.order));
            }
        }

        fn first(&self) -> Option<(Mono, u64, u32)> {
            self.by_key.iter().map(|(k, (at, order))| (*at, *order, *k)).min()
        }

        fn pop(&mut self, now: Mono) -> Option<(u32, Mono)> {
            let (at, _, key) = self.first().filter(|(at, ..)| *at <= now)?;
            self.by_key.remove(&key);
            Some((key, at))
        }
    }

    struct Random(u64);

    impl Random {
        fn below(&mut self, n: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 % n
        }
    }

    /// From nanoseconds to years, with many equal and many neighbouring ones.
    fn distance(r: &mut Random) -> u64 {
        let scale = 10u64.pow(u32::try_from(r.below(18)).unwrap());
        r.below(10) * scale + r.below(3)
    }

    fn drive(seed: u64, steps: u32, keys: u64) {
        let mut r = Random(seed);
        let mut wheel: Wheel = Wheel::new();
        let mut model = Model::default();
        let mut now = r.below(1 << 50);
        for _ in 0..steps {
            let key = u32::try_from(r.below(keys)).unwrap();
            match r.below(10) {
                0..5 => {
                    // Some are in the past.
                    let at = Mono(now.saturating_add(distance(&mut r)).saturating_sub(r.below(4) * 700_000));
                    wheel.set(key, at);
                    model.set(key, at);
                }
                5 => assert_eq!(wheel.cancel(key), model.by_key.remove(&key).is_some()),
                6 => now += distance(&mut r) % 3_000_000_000_000_000,
                7 => now = wheel.next().map_or(now, |at| now.max(at.0)),
                8 => now = wheel.next().map_or(now, |at| now.max(at.0.saturating_sub(1))),
                _ => now = now.saturating_sub(r.below(2_000_000)),
            }
            for _ in 0..=r.below(3) {
                let popped = wheel.pop_expired(Mono(now));
                assert_eq!(popped, model.pop(Mono(now)), "seed {seed}");
            }
            assert_eq!(wheel.next(), model.first().map(|(at, ..)| at), "seed {seed}");
            assert_eq!(wheel.get(key), model.by_key.get(&key).map(|(at, _)| *at));
            assert_eq!(wheel.len(), model.by_key.len());
        }
    }

    #[test]
    fn it_behaves_as_a_sorted_map_over_years() {
        for seed in 1..40 {
            drive(seed * 0x9e37_79b9, 3000, 1 + seed * 3);
        }
    }

    #[test]
    fn equal_deadlines_come_in_the_order_in_which_they_were_set() {
        let mut w: Wheel = Wheel::new();
        let at = Mono(7_654_321_000_000);
        for key in (0..100).rev() {
            w.set(key, at);
        }
        w.set(50, at);
        w.set(60, Mono(1));
        w.set(60, at);
        assert_eq!(w.pop_expired(at - core::time::Duration::from_nanos(1)), None);
        let order: Vec<u32> = core::iter::from_fn(|| w.pop_expired(at)).map(|(k, _)| k).collect();
        let expected: Vec<u32> = (0..100).rev().filter(|k| *k != 60).chain([60]).collect();
        assert_eq!(order, expected);
        assert!(w.is_empty());
    }

    #[test]
    fn the_ends_of_time_fit() {
        let mut w: Wheel = Wheel::new();
        w.set(0, Mono(u64::MAX));
        w.set(1, Mono(0));
        w.put(2, Some(Mono(u64::MAX - 1)));
        assert_eq!(w.next(), Some(Mono(0)));
        assert_eq!(w.pop_expired(Mono(u64::MAX - 1)), Some((1, Mono(0))));
        assert_eq!(w.pop_expired(Mono(u64::MAX - 1)), Some((2, Mono(u64::MAX - 1))));
        assert_eq!(w.pop_expired(Mono(u64::MAX - 1)), None);
        w.put(2, None);
        assert_eq!(w.next(), Some(Mono(u64::MAX)));
        assert_eq!(w.pop_expired(Mono(u64::MAX)), Some((0, Mono(u64::MAX))));
        assert_eq!(w.next(), None);
    }
}
