//! The journal on real files and real threads: frozen files of every version, group commit through the pool, full
//! disks.

// Helpers of a test fail as loudly as the test, and a skipped part must be seen.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use hob::base::ids::{ConnId, ReqId};
use hob::base::time::{Mono, Now};
use hob::config::Platform;
use hob::core::record::Entity;
use hob::core::{Boot, Core, Effect, Input, Out, Peer};
use hob::daemon::journal::{Ended, Journal};
use hob::daemon::pool::{Done, Pool};
use hob::protocol::methods::Request;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

#[path = "journal/tasks.rs"]
mod tasks;

const LIMIT: Duration = Duration::from_secs(30);

struct Temp(PathBuf);

impl Temp {
    fn new() -> Temp {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("hob-journal-it-{}-{n}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Temp(path)
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

fn frozen(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compat/journal").join(name)
}

/// Checks the frozen folder as it lies there, then loads and writes a copy.
fn load_frozen(name: &str, expected: &[Entity], reports: usize, gap: bool) {
    let checked = Journal::check(&frozen(name)).unwrap();
    assert_eq!(checked.entities, expected);
    assert_eq!((checked.gap, checked.reports.len()), (gap, reports), "{:?}", checked.reports);
    let t = Temp::new();
    for entry in std::fs::read_dir(frozen(name)).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), t.0.join(entry.file_name())).unwrap();
    }
    let mut loaded = Journal::open(&t.0).unwrap();
    assert_eq!(loaded.entities, expected);
    loaded.journal.append(Mono(0), &[entity("new", "1")]);
    drop(loaded);
    assert_eq!(Journal::open(&t.0).unwrap().entities.last(), Some(&entity("new", "1")));
}

#[test]
fn the_files_of_version_1_load_for_ever() {
    let expected = [
        entity("key/1000/abc", r#"{"params":17,"reply":"{\"ok\":true}"}"#),
        entity("service/dé \"x\"", r#"{"desired":"down"}"#),
        entity("service/web", r#"{"desired":"down"}"#),
        entity("run/2", r#"{"service":"web","signal":9}"#),
        entity("run/3", r#"{"service":"a\u0000b","list":[1, 2.50, -3e4]}"#),
    ];
    load_frozen("v1", &expected, 0, false);
}

/// What a core that starts with the frozen files answers.
fn listed(name: &str, config: &str) -> serde_json::Value {
    let platform = Platform::linux();
    let boot = Boot {
        config: hob::config::parse(config, "f", &platform).unwrap(),
        entities: Journal::check(&frozen(name)).unwrap().entities,
        signals: platform.signals,
        keeper_key: "another".to_owned(),
        generation: 1,
        ..Boot::default()
    };
    let (mut core, mut out) = (Core::new(), Out::default());
    core.step(Now::default(), Input::Boot(Box::new(boot)), &mut out);
    let peer = Peer { uid: 0, pid: 1, access: hob::config::Access::Admin, job: None, schedule: None };
    let (req, conn) = (ReqId(1), ConnId(1));
    let request = Request::DaemonConfig;
    core.step(
        Now::default(),
        Input::Request { req, conn, peer: peer.clone(), key: None, params_hash: 0, request },
        &mut out,
    );
    let request = Request::ServiceList { names: Vec::new(), owner: None };
    core.step(
        Now::default(),
        Input::Request { req: ReqId(2), conn, peer, key: None, params_hash: 0, request },
        &mut out,
    );
    core.step(Now::default(), Input::Measured { req: ReqId(2), usage: Arc::default() }, &mut out);
    let mut all = serde_json::Map::new();
    for effect in out.effects {
        if let Effect::Reply { result, .. } = effect {
            let reply: serde_json::Value = serde_json::from_str(&result.unwrap()).unwrap();
            all.extend(reply.as_object().unwrap().clone());
        }
    }
    let rows = all["services"].as_array().unwrap();
    let text = |row: &serde_json::Value| {
        let transient = if row["transient"] == true { " transient" } else { "" };
        format!("{} {}{transient}", row["name"].as_str().unwrap(), row["state"].as_str().unwrap())
    };
    serde_json::json!({ "rows": rows.iter().map(text).collect::<Vec<_>>(), "transient": all["transient"] })
}

#[test]
fn transient_services_of_version_1_come_back_for_ever() {
    let checked = Journal::check(&frozen("v1-transient")).unwrap();
    load_frozen("v1-transient", &checked.entities, 0, false);
    let all = listed("v1-transient", r#"{"services":{"web":{"command":"x"}}}"#);
    let rows = serde_json::json!(["job finished transient", "pool@2 waiting transient", "web starting"]);
    assert_eq!(all["rows"], rows, "one that a person stopped is gone");
    let (job, pool) = (&all["transient"]["job"], &all["transient"]["pool@2"]);
    assert_eq!(job["command"], serde_json::json!(["/bin/job", "100%"]));
    assert_eq!(
        (&job["env"]["A"], &job["restart"], &job["log"]["max_files"]),
        (&"1".into(), &"never".into(), &2.into())
    );
    assert_eq!((&pool["cwd"], &pool["stop_signal"]), (&"/srv".into(), &"SIGINT".into()));
    assert_eq!(pool["requires"], serde_json::json!(["web"]));
    // hob.json has the last word about a name.
    let all = listed("v1-transient", r#"{"services":{"job":{"command":"x"}}}"#);
    assert_eq!(all["rows"], serde_json::json!(["job starting", "pool@2 waiting transient"]));
}

#[test]
fn damaged_files_of_version_1_load_for_ever() {
    // Record 3 has a wrong checksum, and the end is torn.
    let expected = [
        entity("service/web", r#"{"desired":"up"}"#),
        entity("run/1", r#"{"code":0}"#),
        entity("service/db", r#"{"desired":"up"}"#),
    ];
    load_frozen("v1-damaged", &expected, 3, true);
}

#[test]
fn a_round_of_version_1_that_has_no_end_counts_as_not_written_for_ever() {
    let expected = [
        entity("service/web", r#"{"choice":"up"}"#),
        entity("run/1", r#"{"number":1}"#),
        entity("meta", r#"{"next_run":2}"#),
    ];
    load_frozen("v1-rounds", &expected, 1, false);
}

#[test]
fn a_thousand_waiting_rounds_need_few_syncs() {
    let t = Temp::new();
    let mut poll = mio::Poll::new().unwrap();
    let waker = Arc::new(mio::Waker::new(poll.registry(), mio::Token(0)).unwrap());
    let mut pool: Pool<Ended> = Pool::new(waker);
    let mut journal = Journal::open(&t.0).unwrap().journal;
    let (mut syncs, mut released) = (0, 0);
    let mut take = |journal: &mut Journal, pool: &mut Pool<Ended>| {
        for done in pool.results() {
            let Done::Finished(ended) = done else { panic!("{done:?}") };
            syncs += 1;
            journal.ended(Mono(0), ended);
            assert!(journal.durable_upto() >= released, "never backwards");
            released = journal.durable_upto();
        }
    };
    // The first half in one burst, the second with a look at the results after each round, as a busy loop does it.
    for round in 0..1000 {
        journal.append(Mono(0), &[entity("counter", &round.to_string()), entity(&format!("run/{round}"), "{}")]);
        journal.want(journal.sync_token());
        journal.request_sync(&mut pool, Mono(0), core::convert::identity);
        if round == 499 {
            assert_eq!(pool.open(), 1, "one for all");
        }
        if round >= 500 {
            take(&mut journal, &mut pool);
        }
    }
    let until = Instant::now() + LIMIT;
    let mut events = mio::Events::with_capacity(4);
    while !journal.durable(journal.sync_token()) {
        assert!(Instant::now() < until);
        journal.request_sync(&mut pool, Mono(0), core::convert::identity);
        poll.poll(&mut events, Some(LIMIT)).unwrap();
        take(&mut journal, &mut pool);
    }
    assert!(syncs <= 502, "{syncs} syncs");
    assert!(pool.quit(LIMIT).is_empty());
    assert_eq!(Journal::open(&t.0).unwrap().entities.len(), 1001);
}

/// Runs this test again in a child prepared by `script`, whose `$0` and `$@` are the command; false if that is
/// impossible here.
fn in_child(test: &str, script: &str, dir: &Path) -> bool {
    let me = std::env::current_exe().unwrap();
    let output = Command::new("sh")
        .args(["-c", script])
        .arg(me)
        .args([test, "--exact", "--nocapture"])
        .env("HOB_TEST_CHILD", dir)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    if text.contains("SKIPPED") {
        println!("{test}: SKIPPED, the machine does not allow it:\n{text}");
        return false;
    }
    assert!(output.status.success() && text.contains("child is done"), "{text}");
    true
}

fn child_dir() -> Option<PathBuf> {
    std::env::var_os("HOB_TEST_CHILD").map(PathBuf::from)
}

#[test]
fn a_file_size_limit_cuts_a_write_in_the_middle_and_nothing_is_lost() {
    let name = "a_file_size_limit_cuts_a_write_in_the_middle_and_nothing_is_lost";
    let Some(dir) = child_dir() else {
        let t = Temp::new();
        // A refused write must answer EFBIG, not kill.
        in_child(name, "trap '' XFSZ; ulimit -S -f 8 || echo SKIPPED; exec \"$0\" \"$@\"", &t.0);
        let loaded = Journal::open(&t.0).unwrap();
        assert!(loaded.entities.is_empty() || loaded.entities.len() == 201, "{}", loaded.entities.len());
        assert!(loaded.reports.is_empty() && !loaded.gap, "{:?}", loaded.reports);
        return;
    };
    let mut journal = Journal::open(&dir).unwrap().journal;
    let mut now = Mono(0);
    let mut behind = false;
    for n in 0..200 {
        journal
            .append(now, &[entity(&format!("run/{n}"), r#"{"text":"some bytes"}"#), entity("counter", &n.to_string())]);
        now = now + Duration::from_millis(70);
        behind |= journal.poll_facts().iter().any(|f| matches!(f, Input::JournalBehind { why: Some(_) }));
    }
    journal.want(journal.sync_token());
    assert!(behind, "the limit was met");
    // What is there is whole, and in the right order.
    let found = Journal::check(&dir).unwrap();
    assert!(!found.gap && found.reports.is_empty(), "{:?}", found.reports);
    let written = found.entities.len() - 1;
    assert!((10..200).contains(&written));
    for n in 0..written {
        assert!(found.entities.iter().any(|e| e.key == format!("run/{n}")));
    }
    if let Some(job) = journal.job() {
        journal.ended(now, job.run());
    }
    assert!(!journal.durable(journal.sync_token()));
    let raised = Command::new("prlimit").args(["--pid", &std::process::id().to_string(), "--fsize=unlimited"]).status();
    if !raised.is_ok_and(|s| s.success()) {
        println!("SKIPPED: no prlimit");
        std::fs::remove_file(dir.join("journal-1.log")).unwrap();
        return;
    }
    journal.tick(journal.next_deadline().unwrap());
    assert!(matches!(journal.poll_facts().as_slice(), [Input::JournalBehind { why: None }]));
    let job = journal.job().unwrap();
    journal.ended(now, job.run());
    assert!(journal.durable(journal.sync_token()));
    println!("child is done");
}

#[test]
fn a_full_disk_is_told_before_it_hurts_and_recovers_by_itself() {
    let name = "a_full_disk_is_told_before_it_hurts_and_recovers_by_itself";
    let Some(dir) = child_dir() else {
        let t = Temp::new();
        let mount = "mount -t tmpfs -o size=3m none \"$HOB_TEST_CHILD\" || echo SKIPPED; exec \"$0\" \"$@\"";
        let script = format!("exec unshare -m sh -c '{mount}' \"$0\" \"$@\" || echo SKIPPED");
        in_child(name, &script, &t.0);
        return;
    };
    if std::fs::read_dir(&dir).unwrap().count() > 0 || !is_small(&dir) {
        println!("SKIPPED: no small file system");
        return;
    }
    let full = |facts: &[Input]| {
        facts.iter().rev().find_map(|f| match f {
            Input::JournalFull { full } => Some(*full),
            _ => None,
        })
    };
    let behind = |facts: &[Input]| {
        facts.iter().rev().find_map(|f| match f {
            Input::JournalBehind { why } => Some(why.is_some()),
            _ => None,
        })
    };
    let mut journal = Journal::open(&dir).unwrap().journal;
    assert_eq!(journal.poll_facts().len(), 0);
    assert_eq!(journal.next_deadline(), None, "no tick while all is well");
    let filler = dir.join("filler");
    let _ = std::fs::write(&filler, vec![1; 4 << 20]);
    let text = format!("\"{}\"", "x".repeat(4000));
    let (mut now, mut n, mut full_at) = (Mono(0), 0, None);
    loop {
        journal.append(now, &[entity(&format!("run/{n}"), &text)]);
        n += 1;
        now = now + Duration::from_secs(20);
        let facts = journal.poll_facts();
        if full(&facts) == Some(true) {
            full_at = Some(n);
            assert_eq!(behind(&facts), None, "there is a reserve to write in");
        }
        if behind(&facts) == Some(true) {
            break;
        }
        assert!(n < 2000);
    }
    let reserve = n - full_at.unwrap();
    assert!(reserve > 200, "only {reserve} records fitted into the reserve");
    for _ in 0..50 {
        journal.append(now, &[entity("run/0", "0"), entity(&format!("run/{n}"), "1")]);
        n += 1;
    }
    journal.want(journal.sync_token());
    if let Some(job) = journal.job() {
        journal.ended(now, job.run());
    }
    assert!(!journal.durable(journal.sync_token()));
    let found = Journal::check(&dir).unwrap();
    assert!(!found.gap && found.reports.is_empty(), "{:?}", found.reports);
    std::fs::remove_file(&filler).unwrap();
    let mut facts = Vec::new();
    while let Some(at) = journal.next_deadline() {
        assert!(facts.len() < 10 && at > Mono(0), "{facts:?}");
        journal.tick(at);
        facts.append(&mut journal.poll_facts());
    }
    assert_eq!((full(&facts), behind(&facts)), (Some(false), Some(false)));
    let job = journal.job().unwrap();
    journal.ended(now, job.run());
    assert!(journal.durable(journal.sync_token()));
    let loaded = Journal::open(&dir).unwrap();
    assert_eq!((loaded.entities.len(), loaded.gap, loaded.reports.len()), (n, false, 0));
    assert!(loaded.entities.contains(&entity("run/0", "0")));
    println!("child is done");
}

fn is_small(dir: &Path) -> bool {
    hob::sys::file::space_at(dir).is_ok_and(|(free, _)| free < 8 << 20)
}
