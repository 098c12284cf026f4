//! Words of services: who may speak for a run, and where.

use super::takeover::{reap_as_keeper, take_over};
use super::*;
use std::os::unix::net::UnixDatagram;

/// Not a test by itself: what a service does that another test starts, by executing this program again.
#[test]
fn a_service_speaks() {
    if let (Some(text), Some(path)) = (std::env::var_os("TEST_WORD"), std::env::var_os("NOTIFY_SOCKET")) {
        let socket = UnixDatagram::unbound().unwrap();
        socket.send_to(text.as_encoded_bytes(), path).unwrap();
    }
}

fn speaker(word: &str, before: &str, after: &str) -> ServiceSpec {
    let own = std::env::current_exe().unwrap();
    let call = format!("{} --exact daemon::child::tests::words::a_service_speaks >/dev/null", own.display());
    let mut spec = spec(&["/bin/sh", "-c", &format!("{before} {call} {after}")]);
    spec.ready = Ready::Notify;
    spec.env.insert("TEST_WORD".to_owned(), word.to_owned());
    spec
}

fn word(input: &Input) -> Option<(RunId, String)> {
    match input {
        Input::Notify { run, fields } => Some((*run, fields[0].1.clone())),
        _ => None,
    }
}

fn words_count_by_their_sender(mut lab: Lab) {
    // The sender is a child of the main process, which stays; then one that double-forked.
    let run = lab.start("web", speaker("STATUS=child", "", "; exec sleep 3071"));
    assert_eq!(lab.until(word), (run, "child".to_owned()));
    let address = lab.setup.notify_dir.join("web");
    let stranger = UnixDatagram::unbound().unwrap();
    stranger.send_to(b"STATUS=stranger", &address).unwrap();
    lab.turn();
    assert!(lab.inputs.iter().all(|i| word(i).is_none()), "{:?}", lab.inputs);
    stranger.send_to(b"STATUS=late", &address).unwrap();
    lab.kill_all(run);
    lab.reaped(run);
    lab.forget(run);
    stranger.send_to(b"STATUS=between", &address).unwrap();
    let run = lab.start("web", speaker("STATUS=orphan", "(setsid", "&) ; exec sleep 3072"));
    assert_eq!(lab.until(word), (run, "orphan".to_owned()));
    assert_eq!(lab.held.labels.iter().map(|l| l.0.as_str()).collect::<Vec<_>>(), ["notify/web"]);
    // After a takeover the same socket goes on, with the run that the table knows.
    stranger.send_to(b"STATUS=stranger", &address).unwrap();
    let (label, mut fds) = lab.held.labels.pop().unwrap();
    take_over(&mut lab, Some("web"));
    let fd = fds.pop().unwrap();
    lab.with(|c, ctx, _| c.restore_notify(ctx, &"web".into(), fd)).unwrap();
    lab.turn();
    assert!(lab.inputs.is_empty(), "{label}: {:?}", lab.inputs);
    lab.kill_all(run);
    reap_as_keeper(&lab, run);
    lab.forget(run);
    lab.with(|c, ctx, _| c.remove(ctx, "web"));
    assert!(!address.exists());
}

#[test]
fn words_count_by_the_group_of_their_sender() {
    if let Some(lab) = Lab::grouped() {
        words_count_by_their_sender(lab);
    }
}

#[test]
fn words_count_by_the_ancestors_of_their_sender() {
    words_count_by_their_sender(Lab::new(true));
}

#[test]
fn what_comes_with_a_word_is_not_closed_by_the_loop() {
    let mut lab = Lab::new(true);
    let run = lab.start("web", spec(&["sleep", "3073"]).with(|s| s.ready = Ready::Notify));
    let sender = UnixDatagram::unbound().unwrap();
    sender.connect(lab.setup.notify_dir.join("web")).unwrap();
    let sender = crate::sys::chan::Chan::from_fd(sender.into()).unwrap();
    let mut others = Vec::new();
    let heard = |lab: &Lab| lab.children.notified(&lab.table, "web", &|| None, None);
    // A child that another test is about to execute has its copy of what is open: whoever closes it first waits for
    // nothing then.
    loop {
        let (slow, other) = crate::sys::net::lingering();
        sender.send(b"BARRIER=1", &[slow.as_fd()]).unwrap();
        drop(slow);
        others.push(other);
        match heard(&lab) {
            Heard::Passed => assert!(others.len() < 64, "one that sends many waits for them"),
            Heard::Stalled => break,
            heard => panic!("{heard:?}"),
        }
    }
    assert!(others.len() > 4, "a few may come at once");
    drop(others);
    let end = Instant::now() + LIMIT;
    while matches!(heard(&lab), Heard::Stalled) {
        assert!(Instant::now() < end);
        std::thread::yield_now();
    }
    // What lies in it when it is closed.
    let (slow, other) = crate::sys::net::lingering();
    sender.send(b"BARRIER=1", &[slow.as_fd()]).unwrap();
    drop(slow);
    lab.kill_all(run);
    lab.reaped(run);
    lab.forget(run);
    lab.with(|c, ctx, _| c.remove(ctx, "web"));
    assert!(sender.send(b"STATUS=x", &[]).is_err());
    drop(other);
}

#[test]
fn a_long_home_has_a_socket_all_the_same() {
    let mut lab = Lab::new(true);
    lab.setup.notify_dir = lab.dir.join("n".repeat(100));
    lab.children = Children::new(lab.setup.clone());
    let run = lab.start("web", spec(&["sh", "-c", "echo $NOTIFY_SOCKET"]).with(|s| s.ready = Ready::Notify));
    assert_eq!(lab.exited(), (run, End::Code(0)));
    let mut text = [0u8; 200];
    let length = lab.output.read(&mut text).unwrap();
    let expected = format!("@hob-{:08x}-{}-web\n", lab.setup.home, lab.setup.keeper);
    assert_eq!(std::str::from_utf8(&text[..length]), Ok(expected.as_str()));
    assert_eq!(lab.held.labels.len(), 1);
    lab.forget(run);
}
