//! Trees that do all they can to get away, and what they cost.

use super::*;
use crate::sys::tree::Refused;

const FUGITIVES: &str = r#"
    trap "" TERM
    (sleep 3001 &)
    (setsid sleep 3002 &)
    (setsid env -i /bin/sleep 3003 &)
    exec sleep 3004
"#;

fn nothing_is_left_behind(lab: &mut Lab) {
    let run = lab.shell("wild", FUGITIVES);
    let pid = lab.started().unwrap();
    // Where runs cannot be marked, the one that cleared its environment is not to be found by sweeps.
    let marked = lab.children.cgroups().is_ok() || crate::sys::tree::tag(lab.setup.home, run).is_some();
    let found = lab.left_named(run, "sleep", if marked { 4 } else { 3 });
    assert!(found.iter().any(|s| s.pid == pid));
    lab.signal(run, 15, true);
    lab.signal(run, 9, false);
    assert_eq!(lab.exited(), (run, End::Signal(9)));
    let left = lab.left(run);
    assert_eq!(left.len(), found.len() - 1, "{left:?}");
    lab.kill_all(run);
    assert!(found.iter().all(|s| !alive(s.pid)));
    lab.forget(run);
    assert_eq!(lab.slots(), 0);
}

#[test]
fn a_group_leaves_nothing_behind() {
    if let Some(mut lab) = Lab::grouped() {
        nothing_is_left_behind(&mut lab);
    }
}

#[test]
fn sweeps_leave_nothing_behind() {
    nothing_is_left_behind(&mut Lab::new(true));
}

#[test]
fn where_nothing_starts_in_a_group_the_first_start_finds_out_and_sweeps_leave_nothing_behind() {
    let mut lab = Lab::new(false);
    let base = std::env::temp_dir().join(format!("hob-no-group-{}", std::process::id()));
    match Groups::useless(base.clone()) {
        Ok(groups) => lab.children.groups = Ok(groups),
        Err(why) => return eprintln!("SKIPPED: {why}"),
    }
    nothing_is_left_behind(&mut lab);
    let why = lab.children.cgroups().unwrap_err();
    assert!(why.contains("nothing can be started in a control group"), "{why}");
    assert!(!base.exists());
}

#[test]
fn a_start_waits_for_a_control_group_that_is_refused_for_a_moment_and_for_no_other() {
    for passes in [true, false] {
        let mut lab = Lab::new(false);
        match Groups::refusing(Refused { why: "no room in it".to_owned(), passes }) {
            Ok(groups) => lab.children.groups = Ok(groups),
            Err(why) => return eprintln!("SKIPPED: {why}"),
        }
        let run = lab.shell("web", "exec sleep 3041");
        let started = lab.started();
        if passes {
            let refused = StartError { message: "no room in it".to_owned(), transient: true };
            assert_eq!(started, Err(refused), "it would be outside of one for its life");
        } else {
            assert!(alive(started.unwrap()) && lab.children.runs.get(&run).unwrap().group.is_none());
            lab.kill_all(run);
        }
        lab.forget(run);
    }
}

#[test]
fn a_folder_of_groups_that_is_removed_before_the_first_start_is_made_anew() {
    let mut lab = Lab::new(false);
    let base = match &lab.children.groups {
        Ok(groups) => groups.base().to_owned(),
        Err(why) => return eprintln!("SKIPPED: no control groups here: {why}"),
    };
    std::fs::remove_dir(&base).unwrap();
    nothing_is_left_behind(&mut lab);
    assert_eq!(lab.children.cgroups().unwrap(), base);
}

#[test]
fn two_runs_are_never_mixed_up_by_sweeps() {
    let mut lab = Lab::new(true);
    let one = lab.shell("one", "(setsid sleep 3011 &) ; exec sleep 3012");
    let two = lab.shell("two", "(setsid sleep 3021 &) ; exec sleep 3022");
    lab.left_named(one, "sleep", 2);
    let others = lab.left_named(two, "sleep", 2);
    lab.kill_all(one);
    assert!(others.iter().all(|s| alive(s.pid)));
    assert_eq!(lab.left_named(two, "sleep", 2).len(), 2);
    lab.kill_all(two);
}

#[test]
fn the_end_of_the_last_survivor_is_told_by_itself() {
    let Some(mut lab) = Lab::grouped() else { return };
    let run = lab.shell("web", "(setsid sleep 3031 &) ; exit 0");
    assert_eq!(lab.exited(), (run, End::Code(0)));
    let left = lab.left_named(run, "sleep", 1);
    lab.inputs.clear();
    let fd = wait::pidfd_open(left[0].pid).unwrap();
    wait::pidfd_send_signal(fd.as_fd(), 9).unwrap();
    let told = lab.until(|i| match i {
        Input::Tree { run, left } => Some((*run, left.clone())),
        _ => None,
    });
    assert_eq!(told, (run, Vec::new()));
    assert!(lab.children.runs.get(&run).unwrap().watch.is_none());
    lab.forget(run);
}

#[test]
fn a_running_job_is_measured_with_all_its_processes() {
    for off in [false, true] {
        let mut lab = Lab::new(off);
        let run = lab.shell("web", "(while :; do :; done) & exec sleep 3081");
        let _ = lab.started().unwrap();
        let end = Instant::now() + LIMIT;
        let wanted = if lab.children.cgroups().is_ok() { Duration::from_millis(20) } else { Duration::ZERO };
        loop {
            let cost = lab.children.measure(&[run, RunId(1)]).run();
            assert_eq!(cost.len(), 1);
            assert_eq!(cost.keys().next(), Some(&run));
            if cost.get(&run).is_some_and(|c| c.cpu >= wanted && c.memory > 0) {
                break;
            }
            assert!(Instant::now() < end, "{cost:?}");
            lab.turn();
        }
        lab.kill_all(run);
        lab.reaped(run);
        lab.forget(run);
    }
}

#[test]
fn a_start_that_is_cancelled_ends_at_once_and_clones_nothing() {
    let mut lab = Lab::new(true);
    let marker = lab.dir.join("ran");
    let script = format!("echo x >> {}; exec sleep 1000", marker.display());
    let job = |lab: &mut Lab| {
        lab.next_run += 1;
        let run = RunId(lab.next_run);
        let pipe = Arc::new(OwnedFd::from(lab.pipe.try_clone().unwrap()));
        let means = Means { output: [Arc::clone(&pipe), pipe], channel: None, secrets: None };
        let spec = Arc::new(spec(&["/bin/sh", "-c", &script]));
        let start = Start { run, service: "s".into(), spec, notify: false, stdin: None };
        lab.with(|c, ctx, inputs| c.start(ctx, start, means, inputs));
        let Some(Todo::Spawn(job)) = lab.children.todo().pop() else { panic!("no start") };
        (run, job)
    };
    let (first, late) = job(&mut lab);
    lab.with(|c, ctx, inputs| c.cancel_start(ctx, first, inputs));
    assert!(lab.started().unwrap_err().transient);
    lab.with(|c, ctx, _| c.forget(ctx, first));
    assert_eq!((lab.children.count(), lab.table.iter().count()), (0, 0), "the slot is free");
    let (second, next) = job(&mut lab);
    let done = late.run();
    assert!(done.result.is_err());
    lab.with(|c, ctx, inputs| c.spawned(ctx, done, inputs));
    assert!(lab.inputs.is_empty(), "it was told before");
    let done = next.run();
    lab.with(|c, ctx, inputs| c.spawned(ctx, done, inputs));
    lab.started().unwrap();
    lab.with(|c, ctx, inputs| c.cancel_start(ctx, second, inputs));
    assert!(lab.inputs.is_empty(), "for this one it comes too late");
    lab.kill_all(second);
}
