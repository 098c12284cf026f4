//! Readiness by pipe, socket and command.

use super::*;

fn ready(lab: &mut Lab) -> RunId {
    lab.until(|i| match i {
        Input::ReadySeen { run } => Some(*run),
        _ => None,
    })
}

fn fd(script: &str) -> ServiceSpec {
    spec(&["/bin/sh", "-c", script]).with(|s| s.ready = Ready::Fd(5))
}

#[test]
fn a_whole_line_in_the_pipe_counts_and_stays_until_it_is_on_record() {
    let mut lab = Lab::new(false);
    let run = lab.start("s", fd("printf half >&5; exec sleep 1000"));
    lab.started().unwrap();
    lab.await_ready(run, Await::Fd);
    assert!(lab.inputs.is_empty(), "half a line is none");
    assert_eq!(lab.held.labels.iter().filter(|(l, fds)| l == "ready/s" && fds.len() == 2).count(), 1);
    lab.kill(run);
    lab.exited();
    lab.with(|c, ctx, _| c.forget(ctx, run));
    // The same pipe is used again, and nothing of the first run is in it.
    let run = lab.start("s", fd("echo line one >&5; exec sleep 1000"));
    lab.started().unwrap();
    lab.await_ready(run, Await::Fd);
    assert_eq!(ready(&mut lab), run);
    lab.await_ready(run, Await::Fd);
    assert_eq!(ready(&mut lab), run, "a daemon that died before it was on record finds it again");
    lab.with(|c, ctx, _| c.await_end(ctx, run));
    lab.await_ready(run, Await::Fd);
    assert!(lab.inputs.is_empty(), "it is on record and taken");
    assert_eq!(lab.held.labels.iter().filter(|(l, _)| l == "ready/s").count(), 1);
    lab.kill(run);
    lab.exited();
    lab.with(|c, ctx, _| c.forget(ctx, run));
    lab.with(|c, ctx, _| c.remove(ctx, "s"));
    assert!(lab.held.labels.iter().all(|(l, _)| l != "ready/s"));
}

#[test]
fn who_goes_on_writing_after_it_is_ready_is_not_held_up() {
    let mut lab = Lab::new(false);
    let run = lab.start("s", fd("yes | head -c 1000000 >&5; exit 3"));
    lab.started().unwrap();
    lab.await_ready(run, Await::Fd);
    assert_eq!(ready(&mut lab), run);
    lab.with(|c, ctx, _| c.await_end(ctx, run));
    assert_eq!(lab.exited(), (run, End::Code(3)));
}

#[test]
fn a_socket_is_tried_until_somebody_listens() {
    let mut lab = Lab::new(false);
    let (run, place) = (RunId(9), lab.dir.join("app.sock"));
    lab.await_ready(run, Await::Socket("app.sock".to_owned()));
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(100) {
        lab.turn();
        assert!(lab.inputs.is_empty() && lab.children.next_deadline().is_some());
    }
    let listener = std::os::unix::net::UnixListener::bind(&place).unwrap();
    assert_eq!(ready(&mut lab), run);
    assert_eq!(lab.children.next_deadline(), None);
    lab.await_ready(run, Await::Socket(place.to_string_lossy().into_owned()));
    assert_eq!(ready(&mut lab), run, "it is there at once");
    drop(listener);
}

fn asked(script: &str) -> Await {
    let command = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    Await::Command(Arc::new(spec(&["/bin/false"]).with(|s| s.ready = Ready::Command(command))))
}

#[test]
fn a_command_is_run_as_its_service_until_it_ends_well_and_leaves_nothing() {
    for cgroup_off in [false, true] {
        let mut lab = Lab::new(cgroup_off);
        let run = lab.shell("s", "exec sleep 1000");
        let pid = lab.started().unwrap();
        let tries = lab.dir.join("tries");
        let mark = format!("{}-left", lab.dir.display());
        let script = format!(
            "echo $MAINPID $HOB_SERVICE >> {t}; \
             setsid sh -c 'while :; do sleep 1; : {mark}; done' & test $(wc -l < {t}) = 3",
            t = tries.display()
        );
        lab.await_ready(run, asked(&script));
        assert_eq!(ready(&mut lab), run);
        assert_eq!(std::fs::read_to_string(&tries).unwrap(), format!("{pid} s\n").repeat(3));
        let end = Instant::now() + LIMIT;
        while !alive_with(&mark).is_empty() {
            assert!(Instant::now() < end, "what a check leaves behind is ended: {:?}", alive_with(&mark));
            lab.turn();
        }
        assert_eq!(lab.table.iter().count(), 1, "only the service itself has a slot");
        assert_eq!(lab.children.next_deadline(), None);
        lab.kill(run);
        lab.exited();
    }
}

#[test]
fn nobody_waits_for_a_command_after_the_end_of_the_wait() {
    let mut lab = Lab::new(false);
    let run = lab.shell("s", "exec sleep 1000");
    lab.started().unwrap();
    let mark = format!("{}-hangs", lab.dir.display());
    lab.await_ready(run, asked(&format!("while :; do sleep 1; : {mark}; done")));
    // Given up while its start is under way, and while it runs.
    lab.with(|c, ctx, _| c.await_end(ctx, run));
    lab.await_ready(run, asked(&format!("while :; do sleep 1; : {mark}; done")));
    lab.todo();
    let end = Instant::now() + LIMIT;
    while alive_with(&mark).is_empty() {
        // The kernel lets go of the parent before the new program has its arguments.
        assert!(Instant::now() < end);
        lab.turn();
    }
    lab.with(|c, ctx, _| c.await_end(ctx, run));
    while !alive_with(&mark).is_empty() || lab.table.iter().count() > 1 {
        assert!(Instant::now() < end);
        lab.turn();
    }
    assert!(lab.inputs.is_empty());
    lab.kill(run);
    lab.exited();
}

/// Living processes whose command line has this text.
fn alive_with(text: &str) -> Vec<String> {
    let lines = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|e| {
        let line = std::fs::read(e.path().join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(&line).replace('\0', " "))
    });
    lines.filter(|l| l.contains(text)).collect()
}
