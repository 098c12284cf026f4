//! The fake journal: an append-only log of records with a synced and a written end, and the ring file of events.

use hob::core::record::Entity;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Default)]
pub struct Disk {
    log: Vec<Entity>,
    synced: usize,
    /// Where rounds end: each of them is on disk whole or not at all.
    rounds: Vec<usize>,
    /// Records that could not be written; a newer one of the same entity replaces an older.
    behind: Option<Vec<Entity>>,
    pub events: Vec<(u64, String)>,
    /// The last event that ever was, and whether the ring may have lost some since.
    pub last_event: u64,
    pub events_lost: bool,
    /// The clock on the wall was set back.
    pub set_back: bool,
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
        // What the next daemon reads is on disk, so that no later loss takes it.
        self.synced = self.log.len();
        self.events.truncate(self.events.len().saturating_sub(lost));
        self.events_lost = true;
        left
    }

    /// One record becomes unreadable; its entity is as it was before it. Answers which one that is, if it shows.
    pub fn damage(&mut self, pick: u64, fits: impl Fn(&str) -> bool) -> Option<String> {
        let all: Vec<usize> = (0..self.log.len()).filter(|i| fits(&self.log[*i].key)).collect();
        let at = *all.get(usize::try_from(pick % (all.len().max(1) as u64)).unwrap_or(0))?;
        let key = core::mem::take(&mut self.log[at].key);
        self.log[at].json = None;
        let later = self.log[at..].iter().any(|e| e.key == key);
        Some(if later { String::new() } else { key })
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

    /// Runs that attempts on record name.
    pub fn claimed_runs(&self) -> BTreeSet<u64> {
        let attempts = self.present().into_iter().filter(|(key, _)| key.starts_with("attempt/"));
        let read = |(_, json): (&str, &str)| serde_json::from_str::<serde_json::Value>(json).ok();
        attempts.filter_map(read).flat_map(|v| [v["run"].as_u64(), v["last"].as_u64()]).flatten().collect()
    }

    /// The present state of every entity.
    pub fn present(&self) -> BTreeMap<&str, &str> {
        let mut all = BTreeMap::new();
        for e in self.log.iter().chain(self.behind.iter().flatten()) {
            match e.json.as_deref() {
                Some(json) => drop(all.insert(e.key.as_str(), json)),
                None => drop(all.remove(e.key.as_str())),
            }
        }
        all
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
