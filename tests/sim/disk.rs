//! The fake journal: an append-only log of records with a synced and a written end, and the ring file of events.

use hob::core::record::Entity;
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub struct Disk {
    log: Vec<Entity>,
    synced: usize,
    /// Where rounds end: each of them is on disk whole or not at all.
    rounds: Vec<usize>,
    /// Records that could not be written; a newer one of the same entity replaces an older.
    behind: Option<Vec<Entity>>,
    pub events: Vec<(u64, String)>,
}

impl Disk {
    /// One round's records in one write.
    pub fn write(&mut self, records: Vec<Entity>) {
        match &mut self.behind {
            Some(queue) => queue.extend(records),
            None => {
                self.log.extend(records);
                self.rounds.push(self.log.len());
            }
        }
    }

    /// Where the records so far end, those that wait included.
    pub fn position(&self) -> usize {
        self.log.len() + self.behind.as_ref().map_or(0, Vec::len)
    }

    pub fn written(&self) -> usize {
        self.log.len()
    }

    pub fn synced(&self) -> usize {
        self.synced
    }

    pub fn sync(&mut self, upto: usize) {
        self.synced = self.synced.max(upto.min(self.log.len()));
    }

    pub fn is_behind(&self) -> bool {
        self.behind.is_some()
    }

    pub fn set_behind(&mut self, on: bool) {
        match (on, self.behind.take()) {
            (true, queue) => self.behind = Some(queue.unwrap_or_default()),
            (false, queue) => {
                self.log.extend(queue.unwrap_or_default());
                self.rounds.push(self.log.len());
            }
        }
    }

    /// The daemon died: what it had queued is gone. Where the survivors end.
    pub fn daemon_died(&mut self) -> usize {
        self.behind = None;
        self.log.len()
    }

    /// The power failed: of what was not synced the last `lost` records are gone. Where the survivors end.
    pub fn power_lost(&mut self, lost: u64) -> usize {
        let lost = usize::try_from(lost).unwrap_or(usize::MAX);
        let left = self.log.len().saturating_sub(lost);
        let whole = self.rounds.iter().rev().find(|end| **end <= left).copied().unwrap_or(0);
        let left = whole.max(self.synced);
        self.rounds.retain(|end| *end <= left);
        self.log.truncate(left);
        self.events.truncate(self.events.len().saturating_sub(lost));
        left
    }

    /// Live entities before a position, last state of each, in the order in which they were written.
    pub fn entities(&self, upto: usize) -> Vec<Entity> {
        let mut last: BTreeMap<&str, usize> = BTreeMap::new();
        for (i, e) in self.log.iter().enumerate().take(upto) {
            last.insert(&e.key, i);
        }
        let mut alive: Vec<usize> = last.into_values().filter(|i| self.log[*i].json.is_some()).collect();
        alive.sort_unstable();
        alive.into_iter().map(|i| self.log[i].clone()).collect()
    }

    /// The last record of an entity before a position, and where it is.
    pub fn last(&self, key: &str, upto: usize) -> Option<(usize, Option<&str>)> {
        let queued = self.behind.iter().flatten();
        let all = self.log.iter().chain(queued).enumerate().take(upto);
        let found = all.filter(|(_, e)| e.key == key).last();
        found.map(|(at, e)| (at, e.json.as_deref()))
    }

    /// The present state of one entity.
    pub fn get(&self, key: &str) -> Option<&str> {
        let queued = self.behind.iter().flatten().rev();
        queued.chain(self.log.iter().rev()).find(|e| e.key == key)?.json.as_deref()
    }
}
