//! Tests of starting programs.

use super::*;
use crate::base::ids::RunId;
use crate::sys::wait::Status;
use std::ffi::CString;
use std::os::fd::AsFd;

fn c(s: &str) -> CString {
    CString::new(s).unwrap()
}

fn shell(script: &str) -> Plan {
    Plan {
        programs: vec![c("/bin/sh")],
        argv: vec![c("sh"), c("-c"), c(script)],
        envp: vec![c("A=b")],
        session: true,
        ..Plan::default()
    }
}

/// Runs to the end and answers what was written to descriptor 1, with the status.
fn output(mut plan: Plan) -> (String, Status) {
    let table = RunTable::create().unwrap();
    let slot = table.take(RunId(1)).unwrap();
    let (mut read, write) = io::pipe().unwrap();
    plan.fds.push((write.as_raw_fd(), 1));
    let child = spawn(&plan, Some((&table, slot))).unwrap();
    assert_eq!(table.slot(slot).pid, Some(child.pid));
    drop(write);
    let mut text = String::new();
    read.read_to_string(&mut text).unwrap();
    let pidfd = child.pidfd.unwrap();
    loop {
        let ready = crate::sys::chan::wait([(Some(pidfd.as_fd()), false)], None).unwrap();
        assert!(ready[0].readable);
        if let Some((status, _)) = wait::reap_own(pidfd.as_fd(), &table, slot).unwrap() {
            assert_eq!(table.slot(slot).ended.map(|(s, _)| s), Some(status));
            return (text, status);
        }
    }
}

#[test]
fn a_program_runs_with_what_the_plan_says() {
    let mut plan = shell("echo $A; umask; pwd; ulimit -n; exit 3");
    plan.umask = Some(0o27);
    plan.cwd = Some(c("/"));
    plan.rlimits = vec![(super::super::rlimit::number("nofile").unwrap(), 100, 100)];
    let (text, status) = output(plan);
    assert_eq!(text.replace("0027", "027"), "b\n027\n/\n100\n");
    assert_eq!(status, Status::Code(3));
}

#[test]
fn descriptors_may_overlap_in_any_way() {
    let (mut read, write) = io::pipe().unwrap();
    let null = File::open("/dev/null").unwrap();
    let mut plan = shell("echo three >&3; echo four >&4");
    let w = write.as_raw_fd();
    plan.fds = vec![(w, 3), (w, 4), (null.as_raw_fd(), 0), (w, w)];
    let (_, status) = output(plan);
    assert_eq!(status, Status::Code(0));
    drop(write);
    let mut text = String::new();
    read.read_to_string(&mut text).unwrap();
    assert_eq!(text, "three\nfour\n");
}

#[test]
fn a_failed_step_is_named_and_leaves_no_process() {
    let table = RunTable::create().unwrap();
    let slot = table.take(RunId(1)).unwrap();
    let mut plan = shell("true");
    plan.cwd = Some(c("/no/such/folder"));
    let e = spawn(&plan, Some((&table, slot))).unwrap_err();
    assert_eq!((e.errno, e.step, e.path.as_deref()), (libc::ENOENT, "enter the folder", Some("/no/such/folder")));
    assert_eq!(error_in(&table, slot).map(|e| (e.errno, e.step)), Some((libc::ENOENT, "enter the folder")));
    assert!(table.slot(slot).ended.is_some(), "it was reaped");
    plan.cwd = None;
    plan.programs = vec![c("/dev/null"), c("/no/such/program")];
    let e = spawn(&plan, None).unwrap_err();
    assert_eq!((e.errno, e.step, e.path.as_deref()), (libc::EACCES, "execute", Some("/dev/null")));
    assert!(!e.is_transient());
}

#[test]
fn what_the_system_lacks_is_refused_and_not_forgotten() {
    let mut plan = shell("true");
    plan.oom_score_adj = Some(5);
    assert_eq!(spawn(&plan, None).unwrap_err().step, "set the oom score");
    let null = File::open("/dev/null").unwrap();
    let plan = Plan { cgroup: Some(null.as_raw_fd()), ..shell("true") };
    assert_eq!(spawn(&plan, None).unwrap_err().step, "join its control group");
}

#[test]
fn signals_reach_the_process_that_is_meant() {
    let table = RunTable::create().unwrap();
    let slot = table.take(RunId(1)).unwrap();
    let child = spawn(&shell("exec sleep 1000"), Some((&table, slot))).unwrap();
    let pidfd = child.pidfd.unwrap();
    assert!(wait::reap_own(pidfd.as_fd(), &table, slot).unwrap().is_none());
    wait::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL).unwrap();
    crate::sys::chan::wait([(Some(pidfd.as_fd()), false)], None).unwrap();
    let (status, _) = wait::reap_own(pidfd.as_fd(), &table, slot).unwrap().unwrap();
    assert_eq!(status, Status::Signal(libc::SIGKILL));
    assert!(wait::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL).is_err());
}
