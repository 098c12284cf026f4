//! The keeper with a small daemon, under kill -9: every start has one process and one known end, whoever is killed
//! when.
//!
//! This program plays all parts: `keeper`, `daemon` and `child` by its first argument, else it runs the tests whose
//! names contain one of its arguments. HOB_STORM_KILLS sets the number of kills (200), HOB_STORM_SEED the seed.

// The lints exempt functions marked as tests; here everything is one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr)]

#[path = "keeper_storm/daemon.rs"]
mod daemon;
#[path = "keeper_storm/lab.rs"]
mod lab;
#[path = "keeper_storm/storm.rs"]
mod storm;

use lab::{Lab, MOMENT, pause, until};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

const TESTS: [(&str, fn()); 19] = [
    ("storm", storm::by_clone3),
    ("storm_by_clone", storm::by_clone),
    ("an_idle_keeper_sleeps", an_idle_keeper_sleeps),
    ("orphans_are_reaped", || orphans_are_reaped(Lab::start("orphans"))),
    ("orphans_are_reaped_by_pid_1", || {
        if let Some(lab) = Lab::start_init("orphans") {
            orphans_are_reaped(lab);
        }
    }),
    ("a_stop_waits_for_a_daemon_that_takes_it", a_stop_waits_for_a_daemon_that_takes_it),
    ("signals_become_messages", signals_become_messages),
    ("a_shutdown_past_its_limit_is_ended_by_force", a_shutdown_past_its_limit_is_ended_by_force),
    ("frozen_time_does_not_count", frozen_time_does_not_count),
    ("a_starter_that_ignored_signals_does_no_harm", a_starter_that_ignored_signals_does_no_harm),
    ("a_hasty_stop_needs_no_daemon", a_hasty_stop_needs_no_daemon),
    ("many_descriptors_outlive_the_daemon", many_descriptors_outlive_the_daemon),
    ("a_daemon_without_channel_is_replaced", a_daemon_without_channel_is_replaced),
    ("the_service_manager_is_told", the_service_manager_is_told),
    ("a_daemon_that_does_not_answer_is_replaced", a_daemon_that_does_not_answer_is_replaced),
    ("a_daemon_that_answers_is_left_alone", a_daemon_that_answers_is_left_alone),
    ("a_thawed_machine_does_not_look_hung", a_thawed_machine_does_not_look_hung),
    ("daemons_that_do_not_come_up_end_in_safe_mode", daemons_that_do_not_come_up_end_in_safe_mode),
    ("a_daemon_that_comes_up_slowly_has_its_time", a_daemon_that_comes_up_slowly_has_its_time),
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["keeper", dir, mode] => return ExitCode::from(lab::keeper(dir, mode)),
        ["daemon", dir, mode] => return daemon::run(dir, mode),
        ["child", rest @ ..] => return daemon::child(rest),
        _ => {}
    }
    hob::sys::spawn::own::inherit_nothing().unwrap();
    if words.contains(&"--list") {
        TESTS.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let exact = words.contains(&"--exact");
    let filters: Vec<&&str> = words.iter().filter(|w| !w.starts_with('-')).collect();
    let wanted = |name: &str| filters.iter().any(|f| if exact { name == **f } else { name.contains(**f) });
    let mut failed = 0;
    for (name, test) in TESTS.iter().filter(|(name, _)| filters.is_empty() || wanted(name)) {
        let result = std::panic::catch_unwind(test);
        println!("test {name} ... {}", if result.is_ok() { "ok" } else { "FAILED" });
        failed += u8::from(result.is_err());
    }
    ExitCode::from(failed)
}

fn an_idle_keeper_sleeps() {
    let mut lab = Lab::start("serve");
    let daemon = lab.daemon(1);
    lab.wait_for("serving-1");
    until("the pid file", || lab.read("hob.pid") == format!("{}\n", lab.keeper_pid()));
    // It may still be on its way into its sleep, but once it sleeps nothing wakes it: a second without a switch must
    // come.
    let still = |pid: u32| {
        let before = lab::switches(pid);
        pause(Duration::from_secs(1));
        lab::switches(pid) == before
    };
    until("a second in which nobody wakes", || still(lab.keeper_pid()));
    assert!(still(lab.keeper_pid()), "no tick either");
    assert_eq!(lab::state(daemon), Some('S'));
    lab.signal("TERM");
    assert_eq!(lab.exit_code(), 0);
    assert!(!lab.path("hob.pid").exists(), "the pid file is removed at the end");
    lab.nothing_left();
}

fn orphans_are_reaped(mut lab: Lab) {
    lab.wait_for("serving-1");
    until("five orphans", || lab.read("orphans").lines().count() == 5);
    // Their pids as the keeper's own namespace counts them.
    let orphans: Vec<String> = lab.read("orphans").lines().map(str::to_owned).collect();
    let exists = |pid: &String| std::fs::exists(format!("/proc/{}/root/proc/{pid}", lab.keeper_pid())).unwrap();
    until("the end of all orphans", || !orphans.iter().any(exists));
    assert_eq!(lab.zombies(), 0);
    lab.signal("TERM");
    assert_eq!(lab.exit_code(), 0);
    lab.nothing_left();
}

fn a_stop_waits_for_a_daemon_that_takes_it() {
    let mut lab = Lab::start("late");
    // These die before they take anything.
    lab.daemon(3);
    lab.signal("TERM");
    let seen = lab.generations();
    lab.daemon(seen + 2);
    assert!(!lab.path("hob.pid").exists(), "no daemon was ever up");
    lab.write("go", "");
    assert_eq!(lab.exit_code(), 7, "the code that the daemon said");
    assert_eq!(lab.read("messages"), "Stop { hurry: false }\n");
    lab.nothing_left();
}

fn signals_become_messages() {
    let mut lab = Lab::start("record");
    lab.wait_for("serving-1");
    for signal in ["HUP", "USR2", "RTMIN+2"] {
        lab.signal(signal);
    }
    until("three messages", || lab.read("messages").lines().count() == 3);
    lab.signal("INT");
    until("the stop", || lab.read("messages").contains("Stop { hurry: false }"));
    lab.signal("TERM");
    lab.signal("PIPE");
    lab.signal("USR1");
    until("a fifth message", || lab.read("messages").lines().count() == 5);
    pause(Duration::from_millis(1100));
    lab.signal("TERM");
    assert_eq!(lab.exit_code(), 0);
    let rt = hob::sys::signals::platform().signal("RTMIN+2").unwrap();
    let mut lines: Vec<String> = lab.read("messages").lines().map(str::to_owned).collect();
    lines[..3].sort();
    let mut first = [1, 12, rt].map(|n| format!("Signal {{ number: {n} }}"));
    first.sort();
    assert_eq!(lines[..3], first);
    let rest = ["Stop { hurry: false }", "Signal { number: 10 }", "Stop { hurry: true }"];
    assert_eq!(lines[3..], rest, "a second request at once is no hurry, one after a second is");
}

fn a_shutdown_past_its_limit_is_ended_by_force() {
    let mut lab = Lab::start("stuck");
    lab.wait_for("serving-1");
    until("three processes that ignore TERM", || lab.read("stubborn").lines().count() == 3);
    assert!(lab.processes() >= 5);
    lab.signal("TERM");
    assert_eq!(lab.exit_code(), 1);
    assert_eq!(lab.processes(), 0, "all are killed and reaped before the keeper ends");
}

fn frozen_time_does_not_count() {
    let mut lab = Lab::start_with("stuck", &[], notify_socket);
    let socket = lab.notify.take().unwrap();
    lab.write("limit", "6000");
    lab.wait_for("serving-1");
    lab.signal("TERM");
    while !told(&socket).starts_with("STOPPING=1") {}
    lab.signal("STOP");
    pause(Duration::from_secs(7));
    let thawed = Instant::now();
    lab.signal("CONT");
    assert_eq!(lab.exit_code(), 1);
    assert!(thawed.elapsed() > Duration::from_millis(500), "the daemon had no time to end in");
}

fn a_starter_that_ignored_signals_does_no_harm() {
    let wrapper = ["env", "--ignore-signal=CHLD,HUP,TERM"];
    let tried = std::process::Command::new(wrapper[0]).args([wrapper[1], "true"]).status();
    if !tried.is_ok_and(|s| s.success()) {
        eprintln!("SKIPPED: env cannot start a program with ignored signals here");
        return;
    }
    let mut lab = Lab::start_with("serve", &wrapper, |_| None);
    let first = lab.daemon(1);
    lab.wait_for("serving-1");
    lab::kill(first);
    lab.wait_for("serving-2");
    lab.signal("TERM");
    assert_eq!(lab.exit_code(), 0);
}

fn a_hasty_stop_needs_no_daemon() {
    let mut lab = Lab::start("late");
    lab.daemon(2);
    lab.signal("TERM");
    pause(Duration::from_millis(1100));
    lab.signal("TERM");
    assert_eq!(lab.exit_code(), 1);
    lab.nothing_left();
}

fn many_descriptors_outlive_the_daemon() {
    let mut lab = Lab::start("many");
    let first = lab.daemon(1);
    lab.wait_for("linked");
    // The keeper reads nothing until the sender is dead.
    lab.signal("STOP");
    until("a stopped keeper", || lab::state(lab.keeper_pid()) == Some('T'));
    lab.write("go", "");
    lab.wait_for("serving-1");
    lab::kill(first);
    until("its death", || lab::state(first) == Some('Z'));
    lab.signal("CONT");
    lab.wait_for("serving-2");
    assert_eq!(lab.read("counted"), "320 descriptors under 8 labels, 320 as they were\n");
    lab.signal("TERM");
    assert_eq!(lab.exit_code(), 0);
}

fn a_daemon_without_channel_is_replaced() {
    let mut lab = Lab::start("mute");
    lab.wait_for("serving-2");
    until("the death on record", || lab.read("keeper.log").contains("ended by SIGKILL"));
    lab.signal("TERM");
    assert_eq!(lab.exit_code(), 0);
    lab.nothing_left();
}

fn the_service_manager_is_told() {
    let mut lab = Lab::start_with("serve", &[], notify_socket);
    let socket = lab.notify.take().unwrap();
    assert_eq!([told(&socket), told(&socket)], ["READY=1", "WATCHDOG=1"]);
    lab.signal("TERM");
    let last = told(&socket);
    assert!(last.starts_with("STOPPING=1\nEXTEND_TIMEOUT_USEC="), "{last}");
    assert_eq!(lab.exit_code(), 0);
}

fn a_daemon_that_does_not_answer_is_replaced() {
    let mut lab = Lab::start("watched");
    let first = lab.daemon(1);
    lab.wait_for("serving-1");
    lab::stop(first);
    lab.wait_for("serving-2");
    assert!(lab.read("keeper.log").contains("keeper: daemon 1 does not answer any more, aborting it"));
    lab.signal("TERM");
    assert_eq!(lab.exit_code(), 0);
    lab.nothing_left();
}

fn a_daemon_that_answers_is_left_alone() {
    // It beats once, and then only when it is asked.
    let mut lab = Lab::start("asked");
    lab.wait_for("serving-1");
    until("five questions", || lab.read("messages").matches("Ask").count() == 5);
    assert_eq!(lab.generations(), 1);
    lab.signal("TERM");
    assert_eq!(lab.exit_code(), 0);
}

fn a_thawed_machine_does_not_look_hung() {
    let mut lab = Lab::start("watched");
    let first = lab.daemon(1);
    lab.wait_for("serving-1");
    for _ in 0..2 {
        lab::stop(first);
        lab::stop(lab.keeper_pid());
        // Longer than all questions and the abort together.
        pause(15 * MOMENT + Duration::from_secs(1));
        lab::resume(lab.keeper_pid());
        lab::resume(first);
        let seen = std::time::SystemTime::now();
        until("the daemon's next heartbeats", || seen.elapsed().is_ok_and(|e| e > 5 * MOMENT));
    }
    assert_eq!(lab.generations(), 1, "{}", lab.read("keeper.log"));
    lab.signal("TERM");
    assert_eq!(lab.exit_code(), 0);
}

fn daemons_that_do_not_come_up_end_in_safe_mode() {
    let mut lab = Lab::start("hung");
    lab.wait_for("serving-4");
    let log = lab.read("keeper.log");
    assert_eq!(log.matches("does not come up, aborting it").count(), 3, "{log}");
    assert!(log.contains("the next one is in safe mode"), "{log}");
    lab.signal("TERM");
    assert_eq!(lab.exit_code(), 0);
    lab.nothing_left();
}

fn a_daemon_that_comes_up_slowly_has_its_time() {
    let mut lab = Lab::start("slow");
    lab.wait_for("serving-1");
    assert_eq!(lab.generations(), 1, "{}", lab.read("keeper.log"));
    lab.signal("TERM");
    assert_eq!(lab.exit_code(), 0);
}

fn notify_socket(dir: &Path) -> Option<UnixDatagram> {
    let socket = UnixDatagram::bind(dir.join("notify")).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    Some(socket)
}

fn told(socket: &UnixDatagram) -> String {
    let mut buf = [0; 64];
    let n = socket.recv(&mut buf).unwrap();
    String::from_utf8_lossy(&buf[..n]).into_owned()
}
