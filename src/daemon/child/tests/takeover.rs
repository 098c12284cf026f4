//! Runs that outlive a daemon, and processes that outlive a keeper.

use super::*;
use crate::core::TableRun;

/// The daemon dies without a word: a second one takes over from the table. Returns what it is told.
pub(super) fn take_over(lab: &mut Lab, service: Option<&'static str>) -> Vec<TableRun> {
    let old = std::mem::replace(&mut lab.children, Children::new(lab.setup.clone()));
    for mut run in old.runs.into_values() {
        lab.with(|_, ctx, _| run.deregister(ctx));
    }
    lab.inputs.clear();
    lab.with(|c, ctx, _| c.adopt(ctx, &|_| service.map(Arc::from)))
}

/// What the keeper does with a child of its own.
pub(super) fn reap_as_keeper(lab: &Lab, run: RunId) -> u32 {
    let (slot, view) = lab.table.iter().find(|(_, v)| v.run == run).unwrap();
    let fd = wait::pidfd_open(view.pid.unwrap()).unwrap();
    wait_until(|| wait::reap_own(fd.as_fd(), &lab.table, slot).unwrap().is_some());
    slot.index()
}

fn outlives_its_daemon(mut lab: Lab) {
    let run = lab.shell("web", "(setsid sleep 3041 &) ; exec sleep 3042");
    let pid = lab.started().unwrap();
    let before = lab.left_named(run, "sleep", 2);
    let told = take_over(&mut lab, Some("web"));
    assert_eq!(told, [TableRun { run, pid: Some(pid), exec_error: None, ended: None, asked: false }]);
    assert_eq!(lab.left_named(run, "sleep", 2), before);
    lab.signal(run, 15, false);
    let slot = reap_as_keeper(&lab, run);
    lab.with(|c, ctx, inputs| c.ended(ctx, slot, inputs));
    assert_eq!(lab.exited(), (run, End::Signal(15)));
    lab.with(|c, ctx, inputs| c.ended(ctx, slot, inputs));
    assert!(lab.inputs.is_empty(), "the keeper's word counts once");
    lab.kill_all(run);
    lab.forget(run);
    assert_eq!(lab.slots(), 0);
}

#[test]
fn an_adopted_run_in_a_group_outlives_its_daemon() {
    if let Some(lab) = Lab::grouped() {
        outlives_its_daemon(lab);
    }
}

#[test]
fn an_adopted_run_without_a_group_outlives_its_daemon() {
    outlives_its_daemon(Lab::new(true));
}

#[test]
fn a_group_knows_its_run_where_the_journal_does_not() {
    let Some(mut lab) = Lab::grouped() else { return };
    let run = lab.shell("web", "exec sleep 3051");
    take_over(&mut lab, None);
    assert_eq!(lab.children.runs.get(&run).unwrap().service.as_deref(), Some("web"));
    lab.kill_all(run);
    lab.forget(run);
    assert_eq!(lab.slots(), 1, "the keeper has yet to reap it");
    let slot = reap_as_keeper(&lab, run);
    lab.with(|c, ctx, inputs| c.ended(ctx, slot, inputs));
    assert_eq!(lab.slots(), 0);
}

#[test]
fn ends_and_intents_of_a_dead_daemon_are_told() {
    let mut lab = Lab::new(true);
    let ended = lab.shell("web", "exit 4");
    reap_as_keeper(&lab, ended);
    let intent = RunId(7);
    lab.table.take(intent).unwrap();
    let mut told = take_over(&mut lab, None);
    told.sort_by_key(|t| t.run);
    assert_eq!(told[0], TableRun { run: intent, pid: None, exec_error: None, ended: None, asked: false });
    assert_eq!((told[1].run, told[1].ended.unwrap().0), (ended, End::Code(4)));
    lab.forget(intent);
    lab.forget(ended);
    assert_eq!(lab.slots(), 0);
}

fn after_the_death_of_both(mut lab: Lab) {
    let run = lab.shell("web", "(setsid sleep 3061 &) ; exec sleep 3062");
    lab.left_named(run, "sleep", 2);
    let (slot, view) = lab.table.iter().find(|(_, v)| v.run == run).unwrap();
    let main = wait::pidfd_open(view.pid.unwrap()).unwrap();
    // A new keeper has a new table. The test process stays the parent, but as one that the sweeps do not start from.
    let old = std::mem::replace(&mut lab.table, RunTable::create().unwrap());
    let mut setup = lab.setup.clone();
    (setup.keeper, setup.daemon) = (std::process::id(), u32::MAX - 1);
    lab.setup = setup;
    assert!(take_over(&mut lab, None).is_empty());
    let found = lab.children.leftovers(&lab.table, true);
    assert_eq!(found.iter().map(|f| f.0).collect::<Vec<_>>(), [run]);
    assert_eq!(found[0].1.len(), 2, "{found:?}");
    assert_eq!(lab.left(run), found[0].1);
    lab.kill_all(run);
    assert!(wait::reap_own(main.as_fd(), &old, slot).unwrap().is_some());
    lab.forget(run);
    assert!(lab.children.leftovers(&lab.table, true).is_empty());
}

#[test]
fn a_new_keeper_finds_the_old_ones_groups() {
    if let Some(lab) = Lab::grouped() {
        after_the_death_of_both(lab);
    }
}

#[test]
fn a_new_keeper_finds_the_old_ones_runs_by_their_environment() {
    after_the_death_of_both(Lab::new(true));
}
