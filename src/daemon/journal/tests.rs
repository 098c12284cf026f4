//! The journal's promises, each with its adversary.

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

#[test]
fn what_was_appended_is_loaded_in_order() {
    let t = Temp::new();
    let models = small(&t.0);
    let loaded = Journal::open(&t.0).unwrap();
    assert_eq!(model(&loaded.entities), *models.last().unwrap());
    let keys: Vec<_> = loaded.entities.iter().map(|e| e.key.as_str()).collect();
    assert_eq!(keys, ["service/web", "run/2", "shutdown"]);
    assert!(loaded.reports.is_empty() && !loaded.gap);
}

#[test]
fn a_cut_at_any_byte_loads_the_whole_records_before_it() {
    let t = Temp::new();
    let models = small(&t.0);
    let path = journal_path(&t.0, 1);
    let text = std::fs::read(&path).unwrap();
    for cut in 0..=text.len() {
        std::fs::write(&path, &text[..cut]).unwrap();
        let whole = text[..cut].iter().filter(|b| **b == b'\n').count();
        let torn = cut > 0 && text[cut - 1] != b'\n';
        let checked = Journal::check(&t.0).unwrap();
        let mut loaded = Journal::open(&t.0).unwrap();
        assert_eq!(model(&loaded.entities), models[whole], "cut at {cut}");
        assert_eq!((loaded.gap, loaded.reports.len()), (false, usize::from(torn)), "cut at {cut}");
        assert_eq!((checked.entities, checked.reports), (loaded.entities, loaded.reports));
        // What is appended after the repair is loaded too, and nothing is reported any more.
        loaded.journal.append(Mono(0), &[entity("after", "1")]);
        let again = Journal::open(&t.0).unwrap();
        assert_eq!(again.entities.last(), Some(&entity("after", "1")));
        assert_eq!((again.entities.len(), again.gap, again.reports), (models[whole].len() + 1, false, vec![]));
    }
}

#[test]
fn a_flipped_bit_is_told_and_no_wrong_value_is_taken() {
    let t = Temp::new();
    let models = small(&t.0);
    let path = journal_path(&t.0, 1);
    let text = std::fs::read(&path).unwrap();
    for at in 0..text.len() {
        for bit in 0..8 {
            let mut bad = text.clone();
            bad[at] ^= 1 << bit;
            std::fs::write(&path, &bad).unwrap();
            let _ = std::fs::remove_file(t.0.join("journal-bad.log"));
            let loaded = Journal::open(&t.0).unwrap();
            assert!(!loaded.reports.is_empty(), "byte {at} bit {bit}");
            // The last line's end is the one byte whose loss looks like an unfinished write.
            assert_eq!(loaded.gap, at + 1 < text.len(), "byte {at} bit {bit}");
            for (key, json) in model(&loaded.entities) {
                assert!(models.iter().any(|m| m.get(&key) == Some(&json)), "{key} was never {json}");
            }
            let aside = std::fs::read(t.0.join("journal-bad.log")).unwrap();
            assert!(!aside.is_empty());
            assert!(loaded.journal.next_deadline().is_some() == loaded.gap, "damage is written out of the way");
        }
    }
}

#[test]
fn a_lost_line_is_a_gap_and_a_doubled_or_foreign_one_is_set_aside() {
    let t = Temp::new();
    small(&t.0);
    let path = journal_path(&t.0, 1);
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let mut without = lines.clone();
    without.remove(2);
    std::fs::write(&path, without.join("\n") + "\n").unwrap();
    let loaded = Journal::open(&t.0).unwrap();
    assert!(loaded.gap && loaded.reports[0].contains("1 records before number 4"), "{:?}", loaded.reports);
    let mut doubled = lines.clone();
    doubled.insert(4, lines[0]);
    doubled.insert(2, "what is this");
    std::fs::write(&path, doubled.join("\n") + "\n").unwrap();
    let loaded = Journal::open(&t.0).unwrap();
    assert!(!loaded.gap, "all of ours are there");
    assert_eq!(loaded.reports.len(), 2, "{:?}", loaded.reports);
    assert_eq!(loaded.entities[0], entity("service/web", r#"{"desired":"down"}"#));
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

#[test]
fn a_crash_at_any_step_of_a_snapshot_loads_the_present_state() {
    let t = Temp::new();
    let mut journal = Journal::open(&t.0).unwrap().journal;
    let mut state = Model::new();
    let mut round = 0;
    let mut change = |journal: &mut Journal, state: &mut Model| {
        round += 1;
        let records = [
            entity(&format!("a/{round}"), "1"),
            entity(&format!("e/{:03}", round * 37 % 700), &round.to_string()),
            entity(&format!("z/{round}"), "2"),
            gone(&format!("e/{:03}", round * 91 % 700)),
        ];
        journal.append(Mono(0), &records);
        apply(state, &records);
    };
    let many: Vec<Entity> = (0..700).map(|n| entity(&format!("e/{n:03}"), "0")).collect();
    journal.append(Mono(0), &many);
    apply(&mut state, &many);
    for pass in 1..=3 {
        force(&mut journal);
        let mut turns = 0;
        while journal.next_deadline().is_some() {
            journal.snapshot_step(Mono(0), &mut |after, max| slice(&state, after, max));
            crash(&t, &state, "after a slice");
            change(&mut journal, &mut state);
            crash(&t, &state, "after a change");
            turns += 1;
        }
        assert!(turns >= 4, "begin and three slices");
        let job = journal.job().unwrap();
        let Work::Finish(finish) = &job.work else { panic!("{job:?}") };
        for step in 0..FINISH_STEPS {
            finish.step(step).unwrap();
            crash(&t, &state, "in the end");
            change(&mut journal, &mut state);
            crash(&t, &state, "after a change in the end");
        }
        // Doing the steps again, as a job does them, ends with an error at the rename: such a job is no danger either.
        let ended = job.run();
        assert!(ended.result.is_err());
        journal.ended(Mono(0), Ended { result: Ok(()), ..ended });
        assert!(journal.durable(1));
        assert_eq!(t.names(), [format!("journal-{}.log", pass + 1), format!("snapshot-{}.log", pass + 1)]);
        crash(&t, &state, "at the end");
    }
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

#[test]
fn a_journal_that_has_grown_is_replaced_and_one_that_has_not_is_left_alone() {
    let t = Temp::new();
    let mut journal = Journal::open(&t.0).unwrap().journal;
    let text = format!("\"{}\"", "x".repeat(60_000));
    let record = [entity("one", &text)];
    let mut turns = 0;
    while journal.next_deadline().is_none() {
        journal.append(Mono(0), &record);
        turns += 1;
    }
    assert!((69..75).contains(&turns), "4 MiB in {turns} rounds");
    let ended = snapshot(&mut journal, Mono(0), &model(&record));
    journal.ended(Mono(0), ended);
    assert_eq!(journal.next_deadline(), None);
    assert!(journal.durable(journal.sync_token()));
    let size: u64 = t.names().iter().map(|n| std::fs::metadata(t.0.join(n)).unwrap().len()).sum();
    assert!(size < 70_000);
    assert_eq!(model(&Journal::open(&t.0).unwrap().entities), model(&record));
}

#[test]
fn a_damaged_snapshot_is_told_and_what_can_be_read_is_read() {
    let t = Temp::new();
    let models = small(&t.0);
    let state = models.last().unwrap();
    let mut journal = Journal::open(&t.0).unwrap().journal;
    force(&mut journal);
    let ended = snapshot(&mut journal, Mono(0), state);
    assert!(ended.result.is_ok());
    journal.ended(Mono(0), ended);
    journal.append(Mono(0), &[entity("later", "5")]);
    let path = snapshot_path(&t.0, 2);
    let text = std::fs::read(&path).unwrap();
    for at in 0..text.len() {
        let mut bad = text.clone();
        bad[at] ^= 4;
        for bytes in [&bad[..], &text[..at]] {
            std::fs::write(&path, bytes).unwrap();
            let checked = Journal::check(&t.0).unwrap();
            assert!(checked.gap && !checked.reports.is_empty(), "byte {at}");
            assert!(checked.entities.contains(&entity("later", "5")));
            assert!(checked.entities.iter().all(|e| e.key == "later" || state.get(&e.key) == e.json.as_ref()));
        }
    }
    // The next snapshot ends it.
    let state = model(&Journal::check(&t.0).unwrap().entities);
    let mut journal = Journal::open(&t.0).unwrap().journal;
    let ended = snapshot(&mut journal, Mono(0), &state);
    journal.ended(Mono(0), ended);
    let loaded = Journal::open(&t.0).unwrap();
    assert_eq!((model(&loaded.entities), loaded.gap, loaded.reports), (state, false, vec![]));
}

#[test]
fn a_journal_file_that_vanished_is_a_gap() {
    let t = Temp::new();
    let state = small(&t.0).pop().unwrap();
    let mut journal = Journal::open(&t.0).unwrap().journal;
    force(&mut journal);
    // A second journal begins, and the snapshot is never finished.
    journal.snapshot_step(Mono(0), &mut |after, max| slice(&state, after, max));
    journal.append(Mono(0), &[entity("later", "5")]);
    assert_eq!(t.names(), ["journal-1.log", "journal-2.log", "snapshot-2.tmp"]);
    for lost in [journal_path(&t.0, 1), journal_path(&t.0, 2)] {
        let copy = t.copy();
        std::fs::remove_file(copy.0.join(lost.file_name().unwrap())).unwrap();
        let loaded = Journal::open(&copy.0).unwrap();
        let first = lost == journal_path(&t.0, 1);
        assert_eq!(loaded.gap, first, "the last one is as if it had never been");
        assert!(!snapshot_temp(&copy.0, 2).exists());
    }
    // A power loss that took unsynced records at the end of the first, but left the second.
    let copy = t.copy();
    let path = journal_path(&copy.0, 1);
    let text = std::fs::read_to_string(&path).unwrap();
    let (kept, _) = text.trim_end().rsplit_once('\n').unwrap();
    std::fs::write(&path, format!("{kept}\n")).unwrap();
    assert!(Journal::open(&copy.0).unwrap().gap);
}

#[test]
fn one_sync_serves_all_that_wait_and_the_next_takes_those_that_came_meanwhile() {
    let t = Temp::new();
    let mut journal = Journal::open(&t.0).unwrap().journal;
    let mut syncs = 0;
    let mut running: Option<Job> = None;
    for round in 0..1000 {
        journal.append(Mono(0), &[entity("k", &round.to_string())]);
        journal.want(journal.sync_token());
        if let Some(job) = journal.job() {
            assert!(running.is_none(), "one at a time");
            running = Some(job);
            syncs += 1;
        }
        if round == 499 {
            let upto = running.as_ref().unwrap().upto;
            journal.ended(Mono(0), running.take().unwrap().run());
            assert!(journal.durable(upto) && !journal.durable(upto + 1));
        }
    }
    journal.ended(Mono(0), running.take().unwrap().run());
    let job = journal.job().unwrap();
    journal.ended(Mono(0), job.run());
    assert_eq!(syncs + 1, 3);
    assert!(journal.durable(journal.sync_token()));
    assert!(journal.job().is_none(), "nobody waits");
    journal.append(Mono(0), &[entity("k", "0")]);
    assert!(journal.job().is_none(), "nobody asked");
}

#[test]
fn what_an_earlier_daemon_wrote_is_durable_only_after_a_sync() {
    let t = Temp::new();
    small(&t.0);
    let mut journal = Journal::open(&t.0).unwrap().journal;
    let token = journal.sync_token();
    assert!(!journal.durable(token));
    journal.want(token);
    let job = journal.job().unwrap();
    journal.ended(Mono(0), job.run());
    assert!(journal.durable(token));
}

#[test]
fn after_a_failed_sync_nothing_is_durable_until_a_new_journal_is() {
    let t = Temp::new();
    let mut state = small(&t.0).pop().unwrap();
    let mut journal = Journal::open(&t.0).unwrap().journal;
    let put = |journal: &mut Journal, state: &mut Model, n: u32| {
        let record = [entity("n", &n.to_string())];
        journal.append(Mono(0), &record);
        apply(state, &record);
        journal.want(journal.sync_token());
        journal.sync_token()
    };
    let fail = |job: Job| Ended { result: Err(io::Error::from_raw_os_error(5)), journal: true, ..job.run() };
    let first = put(&mut journal, &mut state, 1);
    let job = journal.job().unwrap();
    journal.ended(Mono(0), fail(job));
    let facts = journal.poll_facts();
    assert!(matches!(&facts[..], [Input::JournalBehind { why: Some(_) }]), "{facts:?}");
    assert_eq!(journal.reports().len(), 1);
    assert!(journal.job().is_none(), "the same file is not asked again");
    let second = put(&mut journal, &mut state, 2);
    // The snapshot fails as well, then the third attempt succeeds.
    let mut now = Mono(0);
    for journal_failed in [true, false] {
        while journal.next_deadline().is_some_and(|at| at <= now) {
            journal.snapshot_step(now, &mut |after, max| slice(&state, after, max));
        }
        let job = journal.job().unwrap();
        assert_eq!(job.name(), "journal snapshot");
        let Job { work, upto } = job;
        let Work::Finish(finish) = work else { panic!() };
        let result = Err(io::Error::from_raw_os_error(5));
        let ended = Ended { upto, snapshot: Some((finish.number, 0)), journal: journal_failed, result };
        journal.ended(now, ended);
        assert!(!journal.durable(first) && !journal.durable(second));
        let next = journal.next_deadline().unwrap();
        assert!(next > now, "not at once");
        crash(&t, &state, "between the attempts");
        now = next;
    }
    let third = put(&mut journal, &mut state, 3);
    let ended = snapshot(&mut journal, now, &state);
    assert!(!journal.durable(first));
    let fourth = put(&mut journal, &mut state, 4);
    journal.ended(now, ended);
    assert!(journal.durable(third) && !journal.durable(fourth));
    let facts = journal.poll_facts();
    assert!(matches!(&facts[..], [Input::JournalBehind { why: None }]), "{facts:?}");
    let job = journal.job().unwrap();
    assert_eq!(job.name(), "journal sync");
    journal.ended(now, job.run());
    assert!(journal.durable(fourth));
    assert_eq!(t.names().len(), 2, "{:?}", t.names());
    crash(&t, &state, "at the end");
}

#[test]
fn a_sync_past_its_deadline_is_told_until_it_ends() {
    let t = Temp::new();
    let mut journal = Journal::open(&t.0).unwrap().journal;
    journal.overdue();
    assert!(journal.poll_facts().is_empty(), "nothing is under way");
    journal.append(Mono(0), &[entity("n", "1")]);
    journal.want(journal.sync_token());
    let job = journal.job().unwrap();
    journal.overdue();
    assert!(matches!(&journal.poll_facts()[..], [Input::JournalBehind { why: Some(_) }]));
    assert!(!journal.durable(journal.sync_token()));
    journal.ended(Mono(0), job.run());
    assert!(matches!(&journal.poll_facts()[..], [Input::JournalBehind { why: None }]));
    assert!(journal.durable(journal.sync_token()));
}

#[test]
fn a_job_that_panicked_is_made_good_for() {
    let t = Temp::new();
    let mut journal = Journal::open(&t.0).unwrap().journal;
    let record = [entity("n", "1")];
    journal.append(Mono(0), &record);
    journal.want(journal.sync_token());
    drop(journal.job().unwrap());
    journal.lost(Mono(0));
    let ended = snapshot(&mut journal, Mono(0), &model(&record));
    drop(ended);
    journal.lost(Mono(0));
    assert!(!journal.durable(journal.sync_token()));
    let now = journal.next_deadline().unwrap();
    let ended = snapshot(&mut journal, now, &model(&record));
    journal.ended(now, ended);
    assert!(journal.durable(journal.sync_token()));
}

#[test]
fn a_snapshot_that_cannot_be_written_is_tried_again_later_without_collecting_files() {
    let t = Temp::new();
    let state = small(&t.0).pop().unwrap();
    let mut journal = Journal::open(&t.0).unwrap().journal;
    force(&mut journal);
    let obstacle = snapshot_temp(&t.0, 2);
    std::fs::create_dir(&obstacle).unwrap();
    let mut now = Mono(0);
    for _ in 0..20 {
        assert!(journal.next_deadline().unwrap() <= now);
        journal.append(now, &[entity("n", "1")]);
        journal.snapshot_step(now, &mut |after, max| slice(&state, after, max));
        assert_eq!(journal.reports().len(), 1);
        let next = journal.next_deadline().unwrap();
        assert!(next > now);
        now = next;
    }
    assert_eq!(t.names(), ["journal-1.log", "journal-2.log", "snapshot-2.tmp"]);
    std::fs::remove_dir(&obstacle).unwrap();
    let mut state = state;
    apply(&mut state, &[entity("n", "1")]);
    let ended = snapshot(&mut journal, now, &state);
    journal.ended(now, ended);
    assert_eq!(t.names(), ["journal-2.log", "snapshot-2.log"]);
    crash(&t, &state, "at the end");
}

#[test]
fn a_write_that_fails_with_an_io_error_moves_to_a_new_journal() {
    let t = Temp::new();
    let mut state = small(&t.0).pop().unwrap();
    let mut journal = Journal::open(&t.0).unwrap().journal;
    // A descriptor that refuses to be written to stands for a broken disk.
    let broken = crate::sys::file::open(&journal_path(&t.0, 1), crate::sys::file::How::Read, 0).unwrap();
    journal.store.as_mut().unwrap().file = broken.into();
    for n in ["1", "2"] {
        let record = [entity("n", n), entity(n, "0")];
        journal.append(Mono(0), &record);
        apply(&mut state, &record);
    }
    journal.want(journal.sync_token());
    assert!(matches!(&journal.poll_facts()[..], [Input::JournalBehind { why: Some(_) }, ..]));
    assert!(journal.job().is_none());
    let now = Mono(10_000_000_000);
    let ended = snapshot(&mut journal, now, &state);
    journal.ended(now, ended);
    journal.tick(now);
    assert!(journal.poll_facts().iter().any(|f| matches!(f, Input::JournalBehind { why: None })));
    if let Some(job) = journal.job() {
        journal.ended(now, job.run());
    }
    assert!(journal.durable(journal.sync_token()));
    crash(&t, &state, "at the end");
}

#[test]
fn without_a_folder_everything_is_durable_at_once_and_that_is_said() {
    let mut loaded = Journal::none();
    assert_eq!(loaded.reports.len(), 1);
    let journal = &mut loaded.journal;
    journal.append(Mono(0), &[entity("k", "1")]);
    journal.want(journal.sync_token());
    assert!(journal.durable(journal.sync_token()));
    assert!(journal.job().is_none() && journal.next_deadline().is_none() && journal.poll_facts().is_empty());
}

#[test]
fn arbitrary_bytes_are_loaded_without_harm() {
    let t = Temp::new();
    small(&t.0);
    let text = std::fs::read(journal_path(&t.0, 1)).unwrap();
    let mut seed: u64 = 0x1234_5678_9abc_def1;
    let mut random = |n: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed % n as u64).unwrap()
    };
    for _ in 0..3000 {
        let mut bytes = text.clone();
        for _ in 0..random(4) {
            let (from, len, to) = (random(bytes.len()), random(80), random(bytes.len()));
            let piece: Vec<u8> = bytes.iter().skip(from).take(len).copied().collect();
            bytes.splice(to..to, piece);
        }
        for _ in 0..random(3) {
            let at = random(bytes.len());
            bytes[at] = u8::try_from(random(256)).unwrap();
        }
        bytes.truncate(random(bytes.len() + 200).max(1));
        fuzz(&bytes);
    }
    for len in 0..200 {
        fuzz(&(0..len).map(|_| u8::try_from(random(256)).unwrap()).collect::<Vec<u8>>());
    }
}
