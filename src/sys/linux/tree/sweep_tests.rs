//! Sweeps over made-up tables, and over real processes that do all they can to get away.

use super::*;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

const KEEPER: u32 = 10;
const DAEMON: u32 = 11;

fn process(pid: u32, parent: u32, session: u32) -> (u32, Stat) {
    let line = format!("{pid} (p{pid}) S {parent} {session} {session} 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 {pid} 0 0 0");
    (pid, proc::parse_stat(line.as_bytes()).unwrap())
}

fn decide(table: &[(u32, Stat)], evidence: &[(u32, u64)]) -> Vec<(u32, u64)> {
    let hob = Hob { pids: [KEEPER, DAEMON], sessions: vec![5] };
    let table = table.iter().cloned().collect();
    let of = owners(&table, &hob, &mut |s| evidence.iter().find(|e| e.0 == s.pid).map(|e| RunId(e.1)));
    of.into_iter().map(|(pid, run)| (pid, run.0)).collect()
}

#[test]
fn the_run_of_the_parent_wins_over_what_a_process_says() {
    let table = [process(DAEMON, KEEPER, 5), process(20, DAEMON, 20), process(21, 20, 20), process(22, 21, 22)];
    assert_eq!(decide(&table, &[(20, 1), (22, 2)]), [(20, 1), (21, 1), (22, 1)]);
}

#[test]
fn orphans_are_known_by_their_evidence_or_by_the_session_of_one_that_is() {
    let table = [
        process(20, DAEMON, 20),
        process(30, KEEPER, 20), // an orphan in the main's session
        process(31, KEEPER, 31), // an orphan with evidence and a session of its own
        process(32, KEEPER, 31), // without, but in that session
        process(33, 32, 33),     // and its child in yet another
        process(34, KEEPER, 33), // and an orphan of that
        process(40, KEEPER, 40), // a stray of nobody
        process(41, KEEPER, 5),  // one in hob's own session
        process(42, DAEMON, 5),  // hob's own child with evidence: its session proves nothing
    ];
    let found = decide(&table, &[(20, 1), (31, 2), (42, 3)]);
    assert_eq!(found, [(20, 1), (30, 1), (31, 2), (32, 2), (33, 2), (34, 2), (42, 3)]);
}

#[test]
fn a_table_that_changed_while_it_was_read_ends_no_worse_than_incomplete() {
    let table = [process(50, 51, 50), process(51, 50, 51), process(52, 52, 52), process(53, 999, 53)];
    assert_eq!(decide(&table, &[(53, 4)]), [(53, 4)]);
    assert_eq!(decide(&table, &[(50, 4)]), [(50, 4), (51, 4)]);
}

#[test]
fn marks_and_variables_name_one_home_and_run() {
    assert_eq!(run_variable(0xab, RunId(17)), "000000ab-17");
    assert_eq!(parse_run_variable(0xab, "000000ab-17"), Some(RunId(17)));
    for other in ["000000ac-17", "000000ab-", "000000ab-x", "ab-17", ""] {
        assert_eq!(parse_run_variable(0xab, other), None);
    }
    let high = tag_value(u32::MAX, RunId(u64::MAX));
    assert_eq!(high, (1 << 63) - 1, "neither infinite nor cut");
    assert_ne!(tag_value(1, RunId(0)), tag_value(0, RunId(0)));
}

/// This test process as keeper and daemon of a home of its own.
struct Lab {
    family: Family,
    run: RunId,
    child: Child,
    known: Vec<(RunId, Member)>,
}

static HOMES: AtomicU32 = AtomicU32::new(1);

impl Lab {
    fn start(script: &str, marked: bool) -> Lab {
        // SAFETY: this prctl takes an integer and touches no memory.
        check_subreaper(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) });
        let own = std::process::id();
        let home = own << 8 | HOMES.fetch_add(1, Ordering::Relaxed);
        let run = RunId(77);
        let mark = tag(home, run).filter(|_| marked);
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).env("HOB_RUN", run_variable(home, run)).stdin(Stdio::null());
        // SAFETY: setsid and prlimit64 are async-signal-safe and touch no memory but `limit`.
        unsafe {
            command.pre_exec(move || {
                libc::setsid();
                if let Some((_, value)) = mark {
                    let limit = libc::rlimit64 { rlim_cur: value, rlim_max: value };
                    libc::prlimit64(0, libc::RLIMIT_RTTIME, &raw const limit, std::ptr::null_mut());
                }
                Ok(())
            });
        }
        let child = command.spawn().unwrap();
        Lab { family: Family { home, keeper: own, daemon: own }, run, child, known: Vec::new() }
    }

    fn sweep(&mut self) -> Sweep {
        let alive = self.child.try_wait().unwrap().is_none();
        let mains = vec![Main { run: self.run, pid: self.child.id(), alive }];
        Sweep { family: self.family, mains, known: self.known.clone(), everywhere: false }
    }

    fn members(&mut self) -> Vec<Member> {
        let run = self.run;
        self.sweep().members(run)
    }

    /// Waits until so many members are named `sleep`, which is when the script is through.
    fn sleepers(&mut self, count: usize) -> Vec<Member> {
        let mut last = Vec::new();
        wait_until(|| {
            last = self.members();
            last.iter().filter(|m| m.name == "sleep").count() == count
        })
        .unwrap_or_else(|()| panic!("{count} sleepers expected, found {last:?}"));
        last
    }

    fn kill_main(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn kill_all(&mut self) {
        let end = wait_until(|| {
            let left = self.members();
            signal_members(&left, libc::SIGKILL);
            left.is_empty()
        });
        assert!(end.is_ok(), "left: {:?}", self.members());
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let left = self.members();
        signal_members(&left, libc::SIGKILL);
        let _ = self.child.wait();
    }
}

fn check_subreaper(result: libc::c_int) {
    assert_eq!(result, 0, "this kernel has no subreapers");
}

fn wait_until(mut condition: impl FnMut() -> bool) -> Result<(), ()> {
    let end = Instant::now() + Duration::from_secs(30);
    while !condition() {
        if Instant::now() > end {
            return Err(());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

const FUGITIVES: &str = r#"
    trap "" TERM
    (sleep 1001 &)
    (setsid sleep 1002 &)
    (setsid env -i /bin/sleep 1003 &)
    (env -i setsid sh -c '(setsid /bin/sleep 1004 &) ; exec /bin/sleep 1005' &)
    sleep 1006 & wait; wait
"#;

#[test]
fn a_mark_finds_what_left_session_parent_and_environment_behind() {
    let mut lab = Lab::start(FUGITIVES, true);
    if tag(lab.family.home, lab.run).is_none() {
        eprintln!("SKIPPED: RLIMIT_RTTIME of this process is finite, so that runs cannot be marked");
        return;
    }
    lab.sleepers(6);
    lab.kill_main();
    let left = lab.sleepers(6);
    assert_eq!(signal_members(&left, libc::SIGTERM), left.len());
    lab.sleepers(6);
    lab.kill_all();
}

#[test]
fn without_marks_a_member_seen_once_stays_one() {
    let script = r#"env -i setsid sh -c '/bin/sleep 1011 & wait' & sleep 1012"#;
    let mut lab = Lab::start(script, false);
    let seen = lab.sleepers(2);
    lab.known = seen.iter().map(|m| (lab.run, m.clone())).collect();
    lab.kill_main();
    lab.sleepers(2);
    lab.kill_all();
    lab.known = vec![(lab.run, Member { pid: std::process::id(), start: 1, name: String::new() })];
    assert!(lab.members().is_empty(), "a known pid with another start time is another process");
}

#[test]
fn a_member_whose_pid_was_given_out_again_is_not_signalled() {
    let mut lab = Lab::start("exec sleep 1021", false);
    let mut seen = lab.sleepers(1);
    seen[0].start += 1;
    assert_eq!(signal_members(&seen, libc::SIGKILL), 0);
    assert_eq!(lab.members().len(), 1);
    lab.kill_all();
}

#[test]
fn leftovers_are_found_without_a_keeper_and_not_those_of_the_table() {
    let mut lab = Lab::start("(setsid sleep 1031 &) ; exec sleep 1032", true);
    lab.sleepers(2);
    // A keeper that is not the parent of anything, as after the death of both.
    let stranger = Family { home: lab.family.home, keeper: u32::MAX - 1, daemon: u32::MAX - 2 };
    let found = leftovers(stranger, Vec::new());
    assert_eq!(found.keys().collect::<Vec<_>>(), [&lab.run]);
    assert_eq!(found[&lab.run].len(), 2);
    let main = Main { run: lab.run, pid: lab.child.id(), alive: true };
    assert!(leftovers(stranger, vec![main]).is_empty());
    let other = Family { home: lab.family.home ^ 1 << 31, ..stranger };
    assert!(!leftovers(other, Vec::new()).values().flatten().any(|m| m.pid == main.pid));
    lab.kill_all();
}

#[test]
fn one_process_is_judged_by_its_ancestors_alone() {
    let mut lab = Lab::start("env -i setsid sh -c '/bin/sleep 1041 & wait' & wait", false);
    let sleeper = lab.sleepers(1).into_iter().find(|m| m.name == "sleep").unwrap();
    let run = lab.run;
    assert_eq!(lab.sweep().run_of(sleeper.pid, Trust::Kernel), Some(Some(run)));
    assert_eq!(lab.sweep().run_of(lab.family.daemon, Trust::Words), Some(None), "hob itself is of no run");
    lab.kill_all();
    assert_eq!(lab.sweep().run_of(sleeper.pid, Trust::Words), None);
}
