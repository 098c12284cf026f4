//! Tests of starting programs, each by both ways to clone.

use super::*;
use crate::base::ids::RunId;
use crate::sys::table::SlotView;
use crate::sys::wait::Status;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

const WAYS: [Way; 2] = [Way::Clone3, Way::Clone];

fn c(s: &str) -> CString {
    CString::new(s).unwrap()
}

fn shell(script: &str) -> Plan {
    Plan {
        programs: vec![c("/bin/sh")],
        argv: vec![c("sh"), c("-c"), c(script)],
        envp: vec![c("PATH=/usr/bin:/bin"), c("WORD=from the plan")],
        ..Plan::default()
    }
}

fn run(way: Way, plan: &Plan) -> Result<Child, SpawnError> {
    match spawn_by(way, plan, None) {
        Err(e) if way == Way::Clone3 && e.step == STEPS[0] && matches!(e.errno, libc::ENOSYS | libc::EPERM) => {
            eprintln!("SKIPPED: clone3 is refused here: {e}");
            spawn_by(Way::Clone, plan, None)
        }
        result => result,
    }
}

fn end(child: &Child) -> Status {
    let table = RunTable::create().unwrap();
    let slot = table.take(RunId(1)).unwrap();
    wait_for(child.pidfd.as_ref().unwrap());
    wait::reap_own(child.pidfd.as_ref().unwrap().as_fd(), &table, slot).unwrap().unwrap().0
}

fn wait_for(pidfd: &OwnedFd) {
    let ready = crate::sys::chan::wait([(Some(pidfd.as_fd()), false)], Some(Duration::from_secs(30))).unwrap();
    assert!(ready[0].readable, "the child does not end");
}

/// What the child writes to descriptor 1, and how it ended.
fn output(way: Way, mut plan: Plan) -> (String, Status) {
    let (mut reader, writer) = io::pipe().unwrap();
    plan.fds.push((writer.as_raw_fd(), 1));
    let child = run(way, &plan).unwrap();
    drop(writer);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    (text, end(&child))
}

#[test]
fn argv_environment_and_exit_code_arrive() {
    for way in WAYS {
        let mut plan = shell("echo \"$0 $1 $WORD\"; exit 42");
        plan.argv.extend([c("zero"), c("one")]);
        assert_eq!(output(way, plan), ("zero one from the plan\n".to_owned(), Status::Code(42)));
    }
}

#[test]
fn a_start_with_a_slot_is_on_record_from_clone_to_end() {
    for way in WAYS {
        let table = RunTable::create().unwrap();
        let slot = table.take(RunId(77)).unwrap();
        let child = spawn_by(way, &shell("kill -9 $$"), Some((&table, slot))).unwrap();
        let begun = SlotView { run: RunId(77), pid: Some(child.pid), exec_errno: 0, ended: None };
        assert_eq!(table.slot(slot), begun);
        assert_eq!(table.find_pid(child.pid), Some(slot));
        let pidfd = child.pidfd.unwrap();
        wait_for(&pidfd);
        let (status, usage) = wait::reap_own(pidfd.as_fd(), &table, slot).unwrap().unwrap();
        assert_eq!(status, Status::Signal(9));
        assert!(usage.max_rss > 0, "a process that ran has used memory");
        assert_eq!(table.slot(slot), SlotView { ended: Some((status, usage)), ..begun });
        assert_eq!(wait::reap_own(pidfd.as_fd(), &table, slot).unwrap_err().raw_os_error(), Some(libc::ECHILD));
    }
}

#[test]
fn a_running_child_is_not_reaped() {
    let table = RunTable::create().unwrap();
    let slot = table.take(RunId(1)).unwrap();
    let (reader, _writer) = io::pipe().unwrap();
    let child = spawn(&Plan { fds: vec![(reader.as_raw_fd(), 0)], ..shell("read x") }, Some((&table, slot))).unwrap();
    let pidfd = child.pidfd.unwrap();
    assert_eq!(wait::reap_own(pidfd.as_fd(), &table, slot).unwrap(), None);
    assert_eq!(table.slot(slot).ended, None);
    wait::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL).unwrap();
    wait_for(&pidfd);
    assert_eq!(wait::reap_own(pidfd.as_fd(), &table, slot).unwrap().unwrap().0, Status::Signal(9));
}

#[test]
fn an_exec_failure_is_told_and_leaves_no_process() {
    for way in WAYS {
        let table = RunTable::create().unwrap();
        let slot = table.take(RunId(5)).unwrap();
        let plan = Plan { programs: vec![c("/nonexistent/program")], argv: vec![c("program")], ..Plan::default() };
        let e = spawn_by(way, &plan, Some((&table, slot))).unwrap_err();
        assert_eq!(e.to_string(), "cannot execute /nonexistent/program: No such file or directory");
        assert_eq!((e.errno, e.is_transient()), (libc::ENOENT, false));
        let view = table.slot(slot);
        assert_eq!((view.exec_errno, view.ended.unwrap().0), (libc::ENOENT, Status::Code(127)));
        assert_eq!(table.find_pid(view.pid.unwrap()), None);
        assert!(!std::path::Path::new(&format!("/proc/{}", view.pid.unwrap())).exists(), "it was reaped");
        assert_eq!(error_in(&table, slot).unwrap().to_string(), "cannot execute: No such file or directory");
        let e = spawn_by(way, &plan, None).unwrap_err();
        assert_eq!(e.errno, libc::ENOENT, "the same without a slot");
    }
}

#[test]
fn each_step_is_named_when_it_fails() {
    let refused = |plan: Plan| WAYS.map(|way| run(way, &plan).unwrap_err().to_string()).join("; ");
    let twice = |text: &str| format!("{text}; {text}");
    let cwd = Plan { cwd: Some(c("/nonexistent")), ..shell("") };
    assert_eq!(refused(cwd), twice("cannot enter the folder /nonexistent: No such file or directory"));
    assert_eq!(
        refused(Plan { fds: vec![(9999, 0)], ..shell("") }),
        twice("cannot pass a descriptor: Bad file descriptor")
    );
    let limit = libc::RLIMIT_NOFILE.try_into().unwrap();
    let rlimits = Plan { rlimits: vec![(limit, 20, 10)], ..shell("") };
    assert_eq!(refused(rlimits), twice("cannot set the resource limit nofile: Invalid argument"));
    let plan =
        Plan { programs: vec![c("/nonexistent/a"), c("/nonexistent/b")], argv: vec![c("name")], ..Plan::default() };
    assert_eq!(refused(plan), twice("cannot execute name: No such file or directory"));
    let plan = Plan { programs: vec![c("/etc/passwd"), c("/nonexistent/b")], argv: vec![c("p")], ..Plan::default() };
    assert_eq!(refused(plan), twice("cannot execute /etc/passwd: Permission denied"));
}

#[test]
fn a_program_is_looked_for_in_every_folder() {
    assert_eq!(candidates(c"sh", b"/a::/b/"), [c("/a/sh"), c("./sh"), c("/b//sh")]);
    assert_eq!(candidates(c"./sh", b"/a"), [c("./sh")]);
    for way in WAYS {
        let programs = candidates(c"sh", b"/nonexistent:/etc/passwd:/usr/bin:/bin");
        assert_eq!(output(way, Plan { programs, ..shell("echo found") }).0, "found\n");
    }
}

#[test]
fn descriptors_land_where_they_should_however_they_overlap() {
    let dir = std::env::temp_dir().join(format!("hob-spawn-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let file = |name: &str| {
        std::fs::write(dir.join(name), name).unwrap();
        File::open(dir.join(name)).unwrap()
    };
    // Sources at low numbers that are also targets: the plan turns them around.
    for way in WAYS {
        let (a, b, d) = (file("a"), file("b"), file("d"));
        let (x, y, z) = (a.as_raw_fd(), b.as_raw_fd(), d.as_raw_fd());
        let plan = Plan {
            fds: vec![(x, y), (y, x), (z, z), (x, 0)],
            ..shell(&format!("for n in 0 {x} {y} {z}; do basename $(readlink /proc/self/fd/$n); done"))
        };
        let (text, status) = output(way, plan);
        assert_eq!((text.as_str(), status), ("a\nb\na\nd\n", Status::Code(0)));
    }
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn nothing_else_is_inherited() {
    // SAFETY: opens a file without close-on-exec.
    let leaky = unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDONLY) };
    own::inherit_nothing().unwrap();
    for way in WAYS {
        let _open = File::open("/dev/null").unwrap();
        let (text, _) = output(way, shell("ls /proc/self/fd | wc -l"));
        // 0, 1, 2 and the folder that ls reads.
        assert_eq!(text.trim(), "4");
    }
    // SAFETY: opened above.
    unsafe { libc::close(leaky) };
}

#[test]
fn session_umask_nice_limits_and_folder_are_set() {
    for way in WAYS {
        let limit = libc::RLIMIT_NOFILE.try_into().unwrap();
        let plan = Plan {
            session: true,
            umask: Some(0o27),
            nice: Some(7),
            rlimits: vec![(limit, 33, 44)],
            cwd: Some(c("/proc")),
            oom_score_adj: Some(321),
            ..shell("umask; nice; ulimit -Sn; ulimit -Hn; pwd; cat self/oom_score_adj; cut -d' ' -f6 $$/stat; echo $$")
        };
        let (text, _) = output(way, plan);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[..6], ["0027", "7", "33", "44", "/proc", "321"]);
        assert_eq!(lines[6], lines[7], "the child leads its session");
    }
}

#[test]
fn signals_are_all_default_and_none_is_blocked() {
    for way in WAYS {
        std::thread::spawn(move || {
            // SAFETY: signals that the test program does not use, blocked in a thread that ends here.
            unsafe {
                let mut set: libc::sigset_t = std::mem::zeroed();
                libc::sigaddset(&raw mut set, libc::SIGUSR2);
                libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
                libc::signal(libc::SIGPIPE, libc::SIG_IGN);
            }
            let mask = |text: &str, name: &str| {
                let line = text.lines().find_map(|l| l.strip_prefix(name)).unwrap();
                u64::from_str_radix(line.trim(), 16).unwrap()
            };
            let (text, _) = output(
                way,
                Plan { programs: vec![c("/bin/cat")], ..shell("") }.with_argv(&["cat", "/proc/self/status"]),
            );
            assert_eq!(mask(&text, "SigBlk:"), 0);
            assert_eq!(mask(&text, "SigCgt:"), 0);
            assert_eq!(mask(&text, "SigIgn:") & 1 << (libc::SIGPIPE - 1), 0);
            // SAFETY: asks for this thread's mask.
            let still = unsafe {
                let mut now: libc::sigset_t = std::mem::zeroed();
                libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), &raw mut now);
                libc::sigismember(&raw const now, libc::SIGUSR2)
            };
            assert_eq!(still, 1, "the caller's mask is as it was");
        })
        .join()
        .unwrap();
    }
}

#[test]
fn user_and_groups_are_set_before_the_folder_is_entered() {
    // SAFETY: a plain question.
    if unsafe { libc::geteuid() } != 0 {
        eprintln!("SKIPPED: setting users and groups needs root");
        return;
    }
    for way in WAYS {
        let plan = Plan { uid: Some(1234), gid: Some(2345), groups: Some(vec![7, 9]), ..shell("id -u; id -g; id -G") };
        assert_eq!(output(way, plan).0, "1234\n2345\n2345 7 9\n");
    }
}

#[test]
fn an_open_program_is_executed_even_where_its_number_is_a_target() {
    for way in WAYS {
        let program = File::open("/bin/sh").unwrap();
        let fd = program.as_raw_fd();
        let null = File::open("/dev/null").unwrap();
        let plan =
            Plan { program_fd: Some(fd), programs: vec![], fds: vec![(null.as_raw_fd(), fd)], ..shell("echo here") };
        assert_eq!(output(way, plan).0, "here\n");
    }
}

#[test]
fn a_child_starts_in_its_cgroup() {
    let base = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let root = base.lines().find(|l| l.contains(" - cgroup2 ")).and_then(|l| l.split(' ').nth(4)).map(str::to_owned);
    let made = root.map(|r| std::path::PathBuf::from(r).join(format!("hob-spawn-{}", std::process::id())));
    let Some(dir) = made.filter(|d| std::fs::create_dir(d).is_ok()) else {
        eprintln!("SKIPPED: no cgroup can be made here");
        return;
    };
    for way in WAYS {
        let open = File::open(&dir).unwrap();
        let plan = Plan { cgroup: Some(open.as_raw_fd()), ..shell("grep ^0:: /proc/self/cgroup") };
        let (text, _) = output(way, plan);
        assert!(text.trim_end().ends_with(dir.file_name().unwrap().to_str().unwrap()), "{text}");
    }
    let gone = File::open(&dir).unwrap();
    std::fs::remove_dir(&dir).unwrap();
    for way in WAYS {
        let e = run(way, &Plan { cgroup: Some(gone.as_raw_fd()), ..shell("") }).unwrap_err();
        assert!(e.errno == libc::ENODEV || e.errno == libc::ENOENT, "{e}");
    }
}

#[test]
fn lack_of_something_is_transient_and_a_wrong_command_is_not() {
    let e = |errno, step| SpawnError { errno, step, path: None };
    for errno in [libc::EAGAIN, libc::ENOMEM, libc::EMFILE, libc::ENFILE, libc::ENOSPC] {
        assert!(e(errno, STEPS[0]).is_transient() && e(errno, STEPS[11]).is_transient());
    }
    for errno in [libc::EBUSY, libc::ENODEV] {
        assert!(e(errno, STEPS[0]).is_transient() && e(errno, STEPS[2]).is_transient());
        assert!(!e(errno, STEPS[11]).is_transient());
    }
    for errno in [libc::ENOENT, libc::EACCES, libc::ENOEXEC, libc::EPERM] {
        assert!(!e(errno, STEPS[11]).is_transient());
    }
}

#[test]
fn threads_start_children_at_the_same_time() {
    let table = RunTable::create().unwrap();
    let threads: Vec<_> = (0..4u64)
        .map(|t| {
            let table = table.clone();
            std::thread::spawn(move || {
                for i in 0..25 {
                    let way = WAYS[usize::from(i % 2 == 0)];
                    let slot = table.take(RunId(1 + t * 100 + i)).unwrap();
                    let code = i32::try_from(t * 25 + i).unwrap();
                    let child = spawn_by(way, &shell(&format!("exit {code}")), Some((&table, slot))).unwrap();
                    wait_for(child.pidfd.as_ref().unwrap());
                    let seen = wait::reap_own(child.pidfd.unwrap().as_fd(), &table, slot).unwrap().unwrap();
                    assert_eq!(seen.0, Status::Code(code));
                    table.release(slot);
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|t| t.join().unwrap());
    assert_eq!(table.iter().count(), 0);
    assert!(table.high_water() <= 4, "slots are used again");
}

#[test]
fn a_run_is_adopted_only_while_its_pid_is_surely_its_own() {
    let table = RunTable::create().unwrap();
    let slot = table.take(RunId(1)).unwrap();
    assert!(matches!(wait::adopt(&table, slot).unwrap(), wait::Adopted::Nothing));
    let (reader, writer) = io::pipe().unwrap();
    let plan = Plan { fds: vec![(reader.as_raw_fd(), 0)], ..shell("read x; exit 3") };
    let child = spawn(&plan, Some((&table, slot))).unwrap();
    let wait::Adopted::Alive(pidfd) = wait::adopt(&table, slot).unwrap() else { panic!("it lives") };
    drop((reader, writer));
    wait_for(&pidfd);
    wait::reap_own(child.pidfd.unwrap().as_fd(), &table, slot).unwrap().unwrap();
    let wait::Adopted::Ended(status, _) = wait::adopt(&table, slot).unwrap() else { panic!("it has ended") };
    assert_eq!(status, Status::Code(3));
}

impl Plan {
    fn with_argv(self, argv: &[&str]) -> Plan {
        Plan { argv: argv.iter().map(|a| c(a)).collect(), ..self }
    }
}
