//! Syncs, snapshots and what happens when they fail.

use super::*;

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
    assert!(size(&t) < 70_000);
    assert_eq!(model(&Journal::open(&t.0).unwrap().entities), model(&record));
}

fn size(t: &Temp) -> u64 {
    t.names().iter().map(|n| std::fs::metadata(t.0.join(n)).unwrap().len()).sum()
}

#[test]
fn what_was_removed_does_not_stay_on_disk_after_a_big_clean() {
    let t = Temp::new();
    let mut journal = Journal::open(&t.0).unwrap().journal;
    let mut state = Model::new();
    force(&mut journal);
    // Twenty megabytes are in the snapshot when the clean begins, and what follows it is a tenth of that.
    const MANY: usize = 40_000;
    let text = format!("\"{}\"", "x".repeat(500));
    let all: Vec<Entity> = (0..MANY).map(|n| entity(&format!("task/{n}"), &text)).collect();
    journal.append(Mono(0), &all);
    apply(&mut state, &all);
    let ended = snapshot(&mut journal, Mono(0), &state);
    journal.ended(Mono(0), ended);
    assert!(size(&t) > 20_000_000 && journal.next_deadline().is_none(), "all of it is of use");
    let ends: Vec<Entity> = (3..MANY).map(|n| gone(&format!("task/{n}"))).collect();
    let half = ends.len() / 2;
    journal.append(Mono(0), &ends[..half - 2000]);
    assert_eq!(journal.next_deadline(), None, "more is of use than not");
    journal.append(Mono(0), &ends[half - 2000..]);
    apply(&mut state, &ends);
    // The daemon after this one finds the same.
    let copy = t.copy();
    let mut next = Journal::open(&copy.0).unwrap().journal;
    for (t, journal) in [(&t, &mut journal), (&copy, &mut next)] {
        assert!(journal.next_deadline().is_some());
        let ended = snapshot(journal, Mono(0), &state);
        journal.ended(Mono(0), ended);
        assert!(size(t) < 10_000, "{}", size(t));
        assert_eq!(journal.next_deadline(), None);
    }
    assert_eq!(model(&Journal::open(&t.0).unwrap().entities), state);
}

#[test]
fn no_more_is_written_anew_than_was_written() {
    let t = Temp::new();
    let mut journal = Journal::open(&t.0).unwrap().journal;
    let mut state = Model::new();
    let text = format!("\"{}\"", "x".repeat(2000));
    let (mut appended, mut anew, mut snapshots) = (0, 0, 0);
    // A queue that grows, holds, shrinks to nothing, and stays small while much goes through it.
    let steps = (0..8000).map(|n| (n, n < 4000)).chain((8000..24_000).map(|n| (n, false)));
    for (n, grows) in steps {
        let mut records = vec![entity(&format!("task/{n}"), &text)];
        let over = if n < 8000 { (!grows).then(|| n - 4000) } else { Some(n - 4000) };
        records.extend(over.map(|n| gone(&format!("task/{n}"))));
        if n >= 12_000 {
            records.push(gone(&format!("task/{}", n - 1)));
        }
        journal.append(Mono(0), &records);
        apply(&mut state, &records);
        appended += text.len() as u64;
        let live = (state.len() * text.len()) as u64;
        if journal.next_deadline().is_some() {
            let ended = snapshot(&mut journal, Mono(0), &state);
            journal.ended(Mono(0), ended);
            (anew, snapshots) = (anew + live, snapshots + 1);
            assert_eq!(journal.next_deadline(), None, "one does");
            assert!(size(&t) < live + live / 10 + 100_000, "{} {live}", size(&t));
        }
    }
    assert!(anew <= appended && (3..20).contains(&snapshots), "{anew} of {appended} in {snapshots}");
    assert!(size(&t) < 5_000_000, "{}", size(&t));
    assert_eq!(model(&Journal::open(&t.0).unwrap().entities), state);
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
    let journal = &mut loaded.journal;
    assert!(matches!(&journal.poll_facts()[..], [Input::JournalBehind { why: Some(_) }]), "status is to tell it");
    journal.append(Mono(0), &[entity("k", "1")]);
    journal.want(journal.sync_token());
    assert!(journal.durable(journal.sync_token()));
    assert!(journal.job().is_none() && journal.next_deadline().is_none() && journal.poll_facts().is_empty());
}

#[test]
fn a_round_torn_anywhere_is_gone_whole() {
    let (whole, cut) = (Temp::new(), Temp::new());
    let mut journal = Journal::open(&whole.0).unwrap().journal;
    let entity = |key: &str, i: usize| entity(key, &format!("[{i},\"{}\"]", "x".repeat(i % 97)));
    let mut ends = vec![0];
    let file = whole.0.join("journal-1.log");
    for i in 0..15 {
        // Some rounds are longer than a page.
        let more: Vec<Entity> = (0..i % 7 * 20).map(|n| entity(&format!("n{n}"), i)).collect();
        journal.append(Mono(0), &[vec![entity("a", i)], more, vec![entity("b", i), entity("c", i)]].concat());
        ends.push(journal.store.as_ref().unwrap().size);
    }
    let bytes = std::fs::read(&file).unwrap();
    let size = usize::try_from(*ends.last().unwrap()).unwrap();
    for end in (0..size).step_by(217).chain((4096..size).step_by(4096)) {
        std::fs::write(cut.0.join("journal-1.log"), &bytes[..end]).unwrap();
        let rounds = ends.iter().filter(|at| **at <= end as u64).count() - 1;
        let loaded = Journal::open(&cut.0).unwrap();
        let found = model(&loaded.entities);
        for key in ["a", "b", "c"] {
            let last = rounds.checked_sub(1).map(|i| entity(key, i).json.unwrap());
            assert_eq!(found.get(key), last.as_ref(), "cut at {end}, after {rounds} rounds");
        }
        assert!(!loaded.gap);
        // What comes next stands where the round began, and nothing of that comes back.
        let mut journal = loaded.journal;
        journal.append(Mono(0), &[entity("d", 1)]);
        let again = Journal::check(&cut.0).unwrap();
        assert!(!again.gap && again.reports.is_empty(), "{:?}", again.reports);
        assert_eq!(again.entities.len(), found.len() + 1);
    }
}

#[test]
fn a_round_of_many_pieces_is_there_whole_or_not_at_all() {
    let t = Temp::new();
    let mut journal = Journal::open(&t.0).unwrap().journal;
    let before = [entity("before", "1")];
    journal.append(Mono(0), &before);
    let text = format!("\"{}\"", "x".repeat(1000));
    let many: Vec<Entity> = (0..1000).map(|n| entity(&format!("e/{n:04}"), &text)).collect();
    journal.append(Mono(0), &many);
    let whole = Journal::check(&t.0).unwrap();
    assert_eq!((whole.entities.len(), whole.reports.len(), whole.gap), (1001, 0, false));
    let path = journal_path(&t.0, 1);
    let bytes = std::fs::metadata(&path).unwrap().len();
    assert!(bytes > 1_000_000, "{bytes}");
    drop(journal);
    for cut in [bytes - 1, bytes - 2000, 600_000, 300_000, 100] {
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(cut).unwrap();
        let cut_short = Journal::check(&t.0).unwrap();
        assert_eq!((cut_short.entities, cut_short.gap), (before.to_vec(), false), "{cut}");
    }
}
