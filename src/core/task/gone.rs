//! Tasks that were removed: which they are, by those that there are, and their keys, by which for an hour after its
//! submission nobody adds the same task again, even if it is gone by then. Pure.
//!
//! Nothing here needs to be woken: what is old is dropped when it is looked at, or when others come.

use super::Keys;
use crate::base::ids::TaskId;
use crate::base::limits::{KEPT_REPLIES_MAX, KEPT_REPLY_AGE, KEPT_REPLY_MIN_AGE};
use crate::base::time::{Mono, Now, Wall};
use crate::core::record::{Entity, VERSION, entity, parse};
use crate::core::{Core, Owner};
use core::time::Duration;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};

/// The kind of its records.
pub const GONE: &str = "gone";

#[derive(Debug)]
pub(super) struct Gone {
    pub(super) owner: Owner,
    pub(super) keys: Keys,
    submitted: Wall,
    /// How long it counts, in awake time, which no step of the clock changes.
    until: Mono,
}

#[derive(Debug, Serialize, Deserialize)]
struct GoneRecord {
    v: u32,
    owner: Owner,
    keys: Keys,
    submitted: i64,
}

/// How the two clocks stood to each other when tasks from this number on were submitted: what the one on the wall said
/// when the other said nothing, in milliseconds.
#[derive(Debug)]
struct Clocks {
    first: TaskId,
    wall: i128,
    noted: Mono,
}

impl Clocks {
    fn new(now: Now, first: TaskId) -> Clocks {
        Clocks { first, wall: i128::from(now.wall.0) - i128::from(now.mono.0 / NANOS), noted: now.mono }
    }
}

/// Nanoseconds of a millisecond.
const NANOS: u64 = 1_000_000;
/// A difference below this is none: clocks are slewed, and rounded.
const SET: u128 = 1_000;

#[derive(Debug, Default)]
pub(super) struct Graves {
    all: BTreeMap<TaskId, Gone>,
    /// The last hour's, oldest first.
    clocks: VecDeque<Clocks>,
}

fn record(id: TaskId, gone: &Gone) -> Entity {
    let (owner, keys) = (gone.owner.clone(), gone.keys.clone());
    entity(super::record::gone_key(id), &GoneRecord { v: VERSION, owner, keys, submitted: gone.submitted.0 })
}

impl Graves {
    /// What counts still.
    pub(super) fn get(&self, id: TaskId, now: Now) -> Option<&Gone> {
        self.all.get(&id).filter(|gone| now.mono < gone.until)
    }

    /// Tasks from this number on are submitted now or later.
    pub(super) fn note_clocks(&mut self, now: Now, next: TaskId) {
        let clocks = Clocks::new(now, next);
        if self.clocks.back().is_none_or(|last| last.wall.abs_diff(clocks.wall) >= SET) {
            self.clocks.push_back(clocks);
        }
        // Those before the second are older than that.
        while self.clocks.get(1).is_some_and(|second| now.mono.since(second.noted) > KEPT_REPLY_AGE) {
            self.clocks.pop_front();
        }
    }

    /// How long ago a task was submitted, by the clock on the wall as it was set then.
    fn age(&self, now: Now, id: TaskId, submitted: Wall) -> Duration {
        let clocks = self.clocks.iter().rev().find(|c| c.first <= id);
        let set = clocks.or(self.clocks.front()).map_or(0, |c| Clocks::new(now, id).wall - c.wall);
        let set = if set.unsigned_abs() < SET { 0 } else { set };
        let age = i128::from(now.wall.0) - i128::from(submitted.0) - set;
        Duration::from_millis(u64::try_from(age.max(0)).unwrap_or(u64::MAX))
    }

    /// Takes the keys of a task that is removed, and answers their record if they count any longer.
    pub(super) fn bury(&mut self, now: Now, id: TaskId, owner: &Owner, keys: Keys, submitted: Wall) -> Option<Entity> {
        let age = self.age(now, id, submitted);
        let left = KEPT_REPLY_AGE.checked_sub(age).filter(|left| !left.is_zero())?;
        let submitted = Wall(now.wall.0.saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX)));
        let gone = Gone { owner: owner.clone(), keys, submitted, until: now.mono + left };
        let record = record(id, &gone);
        self.all.insert(id, gone);
        Some(record)
    }

    /// Reads one back. The clock may have been set meanwhile, so it counts for a minute at least and an hour at most.
    pub(super) fn restore(&mut self, now: Now, id: TaskId, json: &str) -> Result<&Gone, String> {
        let r: GoneRecord = parse(json)?;
        let submitted = Wall(r.submitted);
        let left = KEPT_REPLY_AGE.saturating_sub(now.wall.since(submitted)).max(KEPT_REPLY_MIN_AGE);
        let gone = Gone { owner: r.owner, keys: r.keys, submitted, until: now.mono + left };
        Ok(self.all.entry(id).or_insert(gone))
    }

    /// Takes out what counts no longer, and the oldest of those that are too many and older than a minute.
    pub(super) fn expire(&mut self, now: Now) -> Vec<(TaskId, Gone, Entity)> {
        let guarded = now.mono + (KEPT_REPLY_AGE - KEPT_REPLY_MIN_AGE);
        let mut old = Vec::new();
        // The order of ids is that of submissions.
        while let Some((_, first)) = self.all.first_key_value() {
            let most = if self.all.len() > KEPT_REPLIES_MAX { guarded } else { now.mono };
            if first.until > most {
                break;
            }
            let Some((id, gone)) = self.all.pop_first() else { break };
            old.push((id, gone, Entity { key: super::record::gone_key(id), json: None }));
        }
        old
    }

    pub(super) fn entities_after(&self, id: TaskId, max: usize) -> Vec<Entity> {
        use core::ops::Bound::{Excluded, Unbounded};
        self.all.range((Excluded(id), Unbounded)).take(max).map(|(id, gone)| record(*id, gone)).collect()
    }
}

impl Core {
    pub(in crate::core) fn note_clocks(&mut self) {
        self.tasks.gone.note_clocks(self.now, TaskId(self.tasks.next.max(1)));
    }

    /// Every task that is on record, readable or not, in order; the number that the next one had at the start of this
    /// daemon by the journal, and the one that it has.
    #[must_use]
    pub fn tasks_on_record(&self) -> (Vec<TaskId>, (TaskId, TaskId)) {
        let unread = self.aside.keys().filter_map(|key| super::record::id_of(key.strip_prefix("aside/task/")?));
        let mut all: Vec<TaskId> = self.tasks.all.keys().copied().chain(unread).collect();
        all.sort_unstable();
        (all, (TaskId(self.tasks.unused), TaskId(self.tasks.next)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::task::Key;

    const MINUTE: i64 = 60_000;

    fn at(minutes: i64) -> Now {
        Now { mono: Mono(u64::try_from(minutes).unwrap() * 60_000_000_000), wall: Wall(minutes * MINUTE) }
    }

    fn keys() -> Keys {
        Keys { own: Some(Key::new("k", 7, 0)), request: None }
    }

    fn bury(graves: &mut Graves, id: u64, submitted: i64, now: i64) -> Option<Entity> {
        graves.bury(at(now), TaskId(id), &Owner::User(7), keys(), Wall(submitted * MINUTE))
    }

    #[test]
    fn a_key_counts_for_an_hour_after_its_submission_whoever_reads_it() {
        let mut graves = Graves::default();
        assert!(bury(&mut graves, 1, 0, 60).is_none(), "its hour was over");
        let record = bury(&mut graves, 2, 0, 59).unwrap();
        assert!(graves.get(TaskId(2), at(59)).is_some() && graves.get(TaskId(2), at(60)).is_none());
        let mut back = Graves::default();
        let gone = back.restore(at(30), TaskId(2), record.json.as_deref().unwrap()).unwrap();
        assert_eq!((&gone.keys, &gone.owner), (&keys(), &Owner::User(7)));
        assert_eq!(back.entities_after(TaskId(0), 9), [record]);
        assert!(back.get(TaskId(2), at(59)).is_some() && back.get(TaskId(2), at(60)).is_none());
        assert_eq!(back.expire(at(60)).len(), 1);
        assert!(back.entities_after(TaskId(0), 9).is_empty());
    }

    #[test]
    fn a_clock_that_was_set_loses_no_key_at_once_and_keeps_none_for_ever() {
        let record = bury(&mut Graves::default(), 2, 1000, 1000).unwrap();
        for (now, until) in [(5000, 5001), (0, 60)] {
            let mut graves = Graves::default();
            graves.restore(at(now), TaskId(2), record.json.as_deref().unwrap()).unwrap();
            assert!(graves.get(TaskId(2), at(now)).is_some() && graves.get(TaskId(2), at(until)).is_none(), "{now}");
        }
    }

    #[test]
    fn a_clock_that_is_set_between_submission_and_removal_does_not_matter() {
        let after = |minutes: i64, by: i64| Now { wall: Wall((minutes + by) * MINUTE), ..at(minutes) };
        for by in [-600, -2, 2, 600] {
            let mut graves = Graves::default();
            graves.note_clocks(at(10), TaskId(1));
            graves.note_clocks(after(15, by), TaskId(3));
            for (id, submitted, kept) in [(1, 10, true), (2, 10, false), (3, 15 + by, true), (4, 15 + by, false)] {
                let since = if id < 3 { 10 } else { 15 };
                let now = after(since + if kept { 59 } else { 60 }, by);
                let submitted = Wall(submitted * MINUTE);
                let record = graves.bury(now, TaskId(id), &Owner::User(7), keys(), submitted);
                assert_eq!(record.is_some(), kept, "{id} by {by}");
                assert!(!kept || graves.get(TaskId(id), after(since + 60, by)).is_none());
            }
            graves.note_clocks(after(76, by), TaskId(9));
            assert_eq!(graves.clocks.len(), 1, "what is older than an hour is forgotten");
        }
    }

    #[test]
    fn of_too_many_the_oldest_go_and_none_within_a_minute() {
        let mut graves = Graves::default();
        let most = u64::try_from(KEPT_REPLIES_MAX).unwrap();
        for id in 1..=most + 2 {
            bury(&mut graves, id, 10, 10);
        }
        assert!(graves.expire(at(10)).is_empty());
        let dropped: Vec<u64> = graves.expire(at(11)).into_iter().map(|(id, ..)| id.0).collect();
        assert_eq!(dropped, [1, 2]);
    }
}
