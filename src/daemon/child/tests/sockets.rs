//! Sockets that are held for services.

use super::*;
use crate::config::{Address, Listen, UnixType};
use std::os::unix::net::{UnixDatagram, UnixStream};

fn listening(sockets: &[(UnixType, &str)]) -> ServiceSpec {
    let one = |(kind, path): &(UnixType, &str)| Listen::new(Address::Unix(*kind, (*path).to_owned()));
    spec(&["/bin/sh", "-c", "exit 0"]).with(|s| s.listen = sockets.iter().map(one).collect())
}

/// What is told of a service that is opened so, without turning.
fn open(lab: &mut Lab, spec: &ServiceSpec, watch: bool) -> Vec<String> {
    let spec = Arc::new(spec.clone());
    lab.with(|c, ctx, inputs| c.open_sockets(ctx, &Arc::from("s"), &spec, watch, inputs));
    lab.todo();
    lab.inputs.drain(..).map(|i| told(&i)).collect()
}

fn told(input: &Input) -> String {
    match input {
        Input::Listening { result, .. } => format!("{result:?}"),
        Input::Connection { on, waiting, .. } => format!("{on} {waiting}"),
        other => format!("{other:?}"),
    }
}

fn labels(lab: &Lab) -> Vec<String> {
    let address = |l: &String| l.rsplit_once('/').map_or("", |(_, name)| name).to_owned();
    lab.held.labels.iter().map(|(l, _)| l).filter(|l| l.starts_with(SOCKET_LABEL)).map(address).collect()
}

#[test]
fn a_connection_is_told_while_it_is_watched_for_and_no_longer() {
    let mut lab = Lab::new(true);
    let two = listening(&[(UnixType::Stream, "a"), (UnixType::Datagram, "b")]);
    assert_eq!(open(&mut lab, &two, true), ["Ok(())"]);
    lab.turn();
    assert!(lab.inputs.is_empty());
    let (a, b) = (lab.dir.join("a"), lab.dir.join("b"));
    let first = UnixStream::connect(&a).unwrap();
    assert_eq!(lab.until(|i| Some(told(i))), "unix:a false");
    assert_eq!(open(&mut lab, &two, false), [""; 0]);
    let second = UnixStream::connect(&a).unwrap();
    lab.turn();
    assert!(lab.inputs.is_empty(), "nobody waits for one");
    assert_eq!(open(&mut lab, &two, true), ["Ok(())", "unix:a true"]);
    let turned = listening(&[(UnixType::Datagram, "b"), (UnixType::Stream, "c")]);
    assert_eq!(open(&mut lab, &turned, true), ["Ok(())"], "the one with connections is closed");
    assert!(!a.exists() && UnixStream::connect(lab.dir.join("c")).is_ok());
    assert_eq!(lab.until(|i| Some(told(i))), "unix:c false");
    UnixDatagram::unbound().unwrap().send_to(b"x", &b).unwrap();
    assert_eq!(lab.until(|i| Some(told(i))), "unix-datagram:b false");
    assert_eq!(labels(&lab), ["b", "c"]);
    lab.with(|c, ctx, _| c.close_sockets(ctx, "s"));
    lab.todo();
    assert!(!b.exists() && labels(&lab).is_empty());
    drop((first, second));
}

#[test]
fn a_socket_that_the_keeper_cannot_take_is_none() {
    let mut lab = Lab::new(true);
    lab.held.behind = true;
    let one = listening(&[(UnixType::Stream, "a")]);
    let told = open(&mut lab, &one, true);
    assert!(told.len() == 1 && told[0].starts_with("Err(\"cannot listen on unix:a: "), "{told:?}");
    assert!(!lab.dir.join("a").exists());
    lab.start("s", one.clone());
    let error = lab.started().unwrap_err();
    assert!(error.transient && error.message.starts_with("cannot listen on unix:a"), "{error:?}");
    lab.held.behind = false;
    assert_eq!(open(&mut lab, &one, true), ["Ok(())"]);
}

#[test]
fn another_daemon_finds_each_by_its_label() {
    let mut lab = Lab::new(true);
    let two = listening(&[(UnixType::Stream, "a"), (UnixType::Seqpacket, "@hob-test-child-sockets")]);
    open(&mut lab, &two, true);
    let waits = UnixStream::connect(lab.dir.join("a")).unwrap();
    let held: Vec<(String, OwnedFd)> =
        lab.held.labels.iter().map(|(l, fds)| (l.clone(), fds[0].try_clone().unwrap())).collect();
    let mut old = std::mem::replace(&mut lab.children, Children::new(lab.setup.clone()));
    // The selector of the daemon before went with it.
    lab.with(|_, ctx, _| old.listeners.unwatch_all(ctx));
    drop(old);
    for (label, fd) in held {
        assert_eq!(socket_service(&label), Some("s"));
        assert_eq!(lab.children.restore_socket(&label, fd).as_deref(), Some("s"));
    }
    assert!(lab.children.restore_socket("notify/s", std::fs::File::open("/dev/null").unwrap().into()).is_none());
    let one = listening(&[(UnixType::Stream, "a")]);
    assert_eq!(open(&mut lab, &one, true), ["Ok(())", "unix:a true"], "what waited is still there");
    assert_eq!(labels(&lab), ["a"], "the one that nobody names any more is given up");
    drop(waits);
}

#[test]
fn an_address_that_the_keeper_lets_go_of_later_is_tried_again() {
    let mut lab = Lab::new(true);
    // Which port is free is known by having had it.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let spec = spec(&["/bin/sh", "-c", "exit 0"]).with(|s| s.listen = vec![Listen::new(Address::Tcp(free))]);
    assert_eq!(open(&mut lab, &spec, true), ["Ok(())"]);
    let spec = Arc::new(spec);
    let keeper = lab.held.labels[0].1[0].try_clone().unwrap();
    lab.with(|c, ctx, inputs| {
        c.close_sockets(ctx, "s");
        c.open_sockets(ctx, &Arc::from("t"), &spec, true, inputs);
        assert!(inputs.is_empty(), "nothing is wrong yet");
        assert!(c.next_deadline().is_some_and(|at| at > ctx.now));
    });
    drop(keeper);
    assert_eq!(lab.until(|i| Some(told(i))), "Ok(())");
}
