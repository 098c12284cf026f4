//! The journal's promises, each with its adversary: what both kinds of tests need.

mod loading;
mod writing;

use super::load::{journal_path, snapshot_path, snapshot_temp};
use super::sync::{FINISH_STEPS, Work};
use super::*;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

type Model = BTreeMap<String, String>;

struct Temp(PathBuf);

impl Temp {
    fn new() -> Temp {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("hob-journal-{}-{n}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Temp(path)
    }

    /// The folder as a crash now would leave it.
    fn copy(&self) -> Temp {
        let to = Temp::new();
        for entry in std::fs::read_dir(&self.0).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), to.0.join(entry.file_name())).unwrap();
        }
        to
    }

    fn names(&self) -> Vec<String> {
        let names = std::fs::read_dir(&self.0).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn entity(key: &str, json: &str) -> Entity {
    Entity { key: key.into(), json: Some(json.into()) }
}

fn gone(key: &str) -> Entity {
    Entity { key: key.into(), json: None }
}

fn model(entities: &[Entity]) -> Model {
    entities.iter().map(|e| (e.key.clone(), e.json.clone().unwrap())).collect()
}

fn apply(model: &mut Model, records: &[Entity]) {
    for r in records {
        match &r.json {
            Some(json) => model.insert(r.key.clone(), json.clone()),
            None => model.remove(&r.key),
        };
    }
}

/// What the core answers for a slice.
fn slice(model: &Model, after: Option<&str>, max: usize) -> Vec<Entity> {
    let later = model.iter().filter(|(key, _)| after.is_none_or(|a| key.as_str() > a));
    later.take(max).map(|(key, json)| entity(key, json)).collect()
}

/// A journal of six records in three rounds, and the model after each record.
fn small(dir: &Path) -> Vec<Model> {
    let rounds = [
        vec![entity("service/web", r#"{"desired":"up"}"#), entity("run/1", r#"{"pid":7}"#)],
        vec![entity("service/web", r#"{"desired":"down"}"#)],
        vec![gone("run/1"), entity("run/2", "[]"), entity("shutdown", "true")],
    ];
    let mut journal = Journal::open(dir).unwrap().journal;
    let mut models = vec![Model::new()];
    for round in &rounds {
        journal.append(Mono(0), round);
        for record in round {
            let mut next = models.last().unwrap().clone();
            apply(&mut next, std::slice::from_ref(record));
            models.push(next);
        }
    }
    models
}

/// Loads copies of the folder and compares.
fn crash(t: &Temp, expected: &Model, at: &str) {
    let copy = t.copy();
    let loaded = Journal::open(&copy.0).unwrap();
    assert_eq!(model(&loaded.entities), *expected, "{at}: {:?}", copy.names());
    assert!(!loaded.gap && loaded.reports.is_empty(), "{at}: {:?}", loaded.reports);
    // And once more, after what the first load repaired and removed.
    drop(loaded);
    assert_eq!(model(&Journal::open(&copy.0).unwrap().entities), *expected, "{at}, again");
}

fn force(journal: &mut Journal) {
    journal.store.as_mut().unwrap().snapshot = snapshot::Snapshot::new(true);
}

/// Makes the snapshot that is due and returns how it ended.
fn snapshot(journal: &mut Journal, now: Mono, state: &Model) -> Ended {
    while journal.next_deadline().is_some_and(|at| at <= now) {
        journal.tick(now);
        journal.snapshot_step(now, &mut |after, max| slice(state, after, max));
    }
    journal.job().unwrap().run()
}
