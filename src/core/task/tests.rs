//! What only the inside of tasks sees: that what they share is kept once, and not swept all the time.

use super::*;
use crate::base::ids::{ConnId, ReqId};
use crate::config::Access;
use crate::core::request::Asked;
use crate::core::{Effect, Out, Peer};
use crate::protocol::methods::task::Selection;

#[test]
fn frames_that_differ_are_swept_when_they_have_doubled_and_not_for_each_new_one() {
    let frame = |n: usize| {
        let labels = [("n".to_owned(), n.to_string())].into();
        let (cwd, env, group) = (None, Box::default(), "default".into());
        let (umask, max_output, runner, user) = (None, None, None, None);
        let owner = Owner::User(7);
        Frame { owner, group, cwd, env, umask, labels, max_output, runner, repeatable: false, hob_fd: false, user }
    };
    let mut tasks = Tasks::default();
    let kept: Vec<Arc<Frame>> = (0..5 * FRAMES_SWEEP_MIN).map(|n| tasks.share(frame(n))).collect();
    assert!(Arc::ptr_eq(&kept[7], &tasks.share(frame(7))), "one copy of what is equal");
    let (mut sweeps, mut most) = (0, 0);
    for n in kept.len()..kept.len() * 5 {
        let before = tasks.frames.len();
        tasks.share(frame(n));
        sweeps += usize::from(tasks.frames.len() <= before);
        most = most.max(tasks.frames.len());
    }
    assert!((1..=5).contains(&sweeps), "{sweeps} sweeps for {} frames that no task keeps", kept.len() * 4);
    assert!(most <= kept.len() * 2, "{most} frames for {} that are in use", kept.len());
}

#[test]
fn what_follows_from_changes_of_many_is_made_when_all_are_changed() {
    let mut core = Core::default();
    for id in 1..=3 {
        core.take_in(task(TaskId(id), ",\"held\":true"), true);
    }
    let peer = Peer { uid: 7, pid: 8, access: Access::Admin, job: None, schedule: None };
    let asked = Asked { req: ReqId(1), conn: ConnId(1), peer, key: None, params_hash: 0 };
    let (mut out, client) = (Out::default(), asked.client());
    let cancel = |core: &mut Core, id: TaskId, out: &mut Out| {
        let done = core.cancel(id, client.clone(), false, out);
        assert_eq!((out.records.len(), out.effects.len()), (0, 0), "between what stays of {id} and of the next");
        done
    };
    core.each(&asked, &Selection::default(), cancel, &mut out);
    let keys: Vec<&str> = out.records.iter().map(|r| &*r.key).collect();
    assert_eq!(keys, ["attempt/000000000001", "attempt/000000000002", "attempt/000000000003"]);
    let told = out.effects.iter().filter(|e| matches!(e, Effect::Event { line, .. } if line.contains("by uid 7")));
    assert_eq!(told.count(), 3);
}

fn task(id: TaskId, more: &str) -> Task {
    let owner = serde_json::to_string(&Owner::User(7)).unwrap();
    let frame = format!("\"frame\":{{\"owner\":{owner},\"group\":\"default\"}}");
    let json = format!("{{\"v\":1,{frame},\"command\":[\"x\"],\"submitted\":0{more}}}");
    let record: record::TaskRecord<'_> = serde_json::from_str(&json).unwrap();
    record.restore(id, Arc::new).unwrap()
}

#[test]
fn a_task_that_waits_takes_little_and_so_does_one_whose_priority_was_changed() {
    assert!(size_of::<Task>() <= 128, "{} bytes", size_of::<Task>());
    let of = |more: &str| task(TaskId(1), more);
    let first = of(",\"priority\":3");
    assert_eq!((first.priority, first.rare.is_none()), (3, true));
    assert!(of(",\"weight\":2").rare.is_some(), "what few have is kept apart");
}
