//! What only the inside of tasks sees: that what they share is kept once, and not swept all the time.

use super::*;

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
fn a_task_that_waits_takes_little_and_so_does_one_whose_priority_was_changed() {
    assert!(size_of::<Task>() <= 128, "{} bytes", size_of::<Task>());
    let frame = r#""frame":{"owner":{"user":7},"group":"default"},"command":["x"],"submitted":0"#;
    let frame = frame.replace(r#"{"user":7}"#, &serde_json::to_string(&Owner::User(7)).unwrap());
    let of = |more: &str| {
        let json = format!("{{\"v\":1,{frame}{more}}}");
        let record: record::TaskRecord<'_> = serde_json::from_str(&json).unwrap();
        record.restore(TaskId(1), Arc::new).unwrap()
    };
    let first = of(",\"priority\":3");
    assert_eq!((first.priority, first.rare.is_none()), (3, true));
    assert!(of(",\"weight\":2").rare.is_some(), "what few have is kept apart");
}
