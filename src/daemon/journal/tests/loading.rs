//! Damaged, cut and missing files: nothing wrong is taken, nothing lost goes unsaid.

use super::*;

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
fn a_cut_at_any_byte_loads_the_whole_rounds_before_it() {
    let t = Temp::new();
    let models = small(&t.0);
    let path = journal_path(&t.0, 1);
    let text = std::fs::read(&path).unwrap();
    for cut in 0..=text.len() {
        std::fs::write(&path, &text[..cut]).unwrap();
        let lines = text[..cut].iter().filter(|b| **b == b'\n').count();
        // The rounds have two records, one and three.
        let whole = [0, 2, 3, 6].into_iter().rfind(|end| *end <= lines).unwrap();
        let torn = lines > whole || cut > 0 && text[cut - 1] != b'\n';
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
