//! What is bounded: requests in flight, unsent bytes, connections, access.

use super::*;
use crate::sys::chan::Chan;

#[test]
fn sixty_four_in_flight_in_any_order() {
    let mut rig = Rig::new();
    let (mut client, _) = rig.client();
    let calls: Vec<String> = (0..64).map(|i| call(i, "service.list")).collect();
    client.send(Framing::Binary, &calls.iter().map(String::as_str).collect::<Vec<_>>());
    rig.until(|rig| rig.held.len() == 64);
    for (i, (req, ..)) in std::mem::take(&mut rig.held).into_iter().enumerate().rev() {
        rig.conns.reply(req, &Ok(i.to_string()));
        rig.conns.reply(req, &Ok("a second reply is ignored".to_owned()));
    }
    let want: Vec<String> = (0..64).rev().map(|i| format!(r#"{{"jsonrpc":"2.0","id":{i},"result":{i}}}"#)).collect();
    assert_eq!(rig.messages(&mut client, 64), want);
}

#[test]
fn requests_in_flight_are_bounded() {
    let mut rig = Rig::new();
    let (mut client, _) = rig.client();
    client.stream.set_nonblocking(false).unwrap();
    for i in 0..=u32::try_from(REQUESTS_IN_FLIGHT_MAX).unwrap() {
        client.send(Framing::Binary, &[&call(i, "service.list")]);
        rig.turn(Duration::ZERO);
    }
    client.stream.set_nonblocking(true).unwrap();
    let got = rig.messages(&mut client, 1);
    assert_eq!(error(&got[0]), format!("{REQUESTS_IN_FLIGHT_MAX} -32005"));
    let (req, ..) = rig.held.pop().unwrap();
    rig.conns.reply(req, &Ok("1".to_owned()));
    client.send(Framing::Binary, &[&ping("\"x\"")]);
    assert_eq!(rig.messages(&mut client, 2)[1], ponged("\"x\""));
}

#[test]
fn a_client_that_does_not_read_is_not_read_from() {
    let mut rig = Rig::new();
    let (mut slow, conn) = rig.client();
    let (mut quick, _) = rig.client();
    let calls: Vec<String> = (0..400).map(|i| call(i, "daemon.status")).collect();
    slow.send(Framing::Lines, &calls.iter().map(String::as_str).collect::<Vec<_>>());
    for i in 0..50 {
        quick.send(Framing::Binary, &[&ping(&i.to_string())]);
        assert_eq!(rig.messages(&mut quick, 1).len(), 1);
    }
    assert!(rig.conns.unsent(conn) < UNSENT_LAGGED + MESSAGES_PER_TURN * 101_000, "{}", rig.conns.unsent(conn));
    assert!(!rig.conns.has_backlog(), "nothing turns in circles while it waits");
    assert_eq!(rig.messages(&mut slow, 400).len(), 400, "nothing is lost");
    assert_eq!(rig.conns.unsent(conn), 0);
    slow.send(Framing::Lines, &[&ping("1")]);
    assert_eq!(rig.messages(&mut slow, 1), [ponged("1")]);
}

#[test]
fn a_reader_that_falls_behind_loses_its_subscription_and_nothing_else() {
    let mut rig = Rig::new();
    let (mut client, conn) = rig.client();
    client.send(Framing::Binary, &[&call(1, "event.subscribe")]);
    rig.messages(&mut client, 1);
    let params = format!("{{\"a\":\"{}\"}}", "x".repeat(10_000));
    let (mut lagged, mut sent) = (Vec::new(), 0);
    while lagged.is_empty() {
        rig.conns.notify(conn, StreamId(7), "event", &params);
        sent += 1;
        rig.conns.take_lagged(&mut lagged);
        assert!(sent < 1000);
    }
    assert!(matches!(lagged[..], [core::Input::Lagged { conn: c, subscription: StreamId(7) }] if c == conn));
    rig.conns.notify(conn, StreamId(7), "event", &params);
    rig.conns.notify(conn, StreamId(7), "event.lagged", "{\"resume_from\":3}");
    lagged.clear();
    rig.conns.take_lagged(&mut lagged);
    assert!(lagged.is_empty(), "it is reported once");
    let got = rig.messages(&mut client, sent + 2);
    assert_eq!(got.len(), sent + 2);
    assert!(got.last().unwrap().contains("event.lagged"));
    client.send(Framing::Binary, &[&ping("2")]);
    assert_eq!(rig.messages(&mut client, 1), [ponged("2")]);
}

#[test]
fn a_burst_within_a_turn_is_no_lag_when_the_socket_takes_it() {
    let mut rig = Rig::new();
    let (mut client, conn) = rig.client();
    client.send(Framing::Binary, &[&ping("1")]);
    rig.messages(&mut client, 1);
    rig.conns.stream_data(conn, StreamId(1), &[0; 1000]);
    assert_eq!(rig.conns.unsent(conn), 1008);
    rig.conns.stream_data(conn, StreamId(1), &[0; UNSENT_LAGGED]);
    assert!(rig.conns.unsent(conn) < UNSENT_LAGGED, "what the socket takes goes out early");
}

#[test]
fn too_much_unsent_closes_the_connection() {
    let mut rig = Rig::new();
    let (_client, conn) = rig.client();
    let mut given = 0;
    while rig.conns.conns.get(conn.0).is_some_and(|c| !c.link.dead) {
        rig.conns.stream_data(conn, StreamId(1), &[0; 1 << 20]);
        given += 1 << 20;
        assert!(given < UNSENT_MAX + (8 << 20));
    }
    rig.until_closed(conn);
}

#[test]
fn a_client_that_sends_descriptors_is_closed_and_they_are_not_by_the_loop() {
    for read in [true, false] {
        let mut rig = Rig::new();
        let (client, conn) = rig.client();
        let (slow, other) = net::lingering();
        let sender = Chan::from_fd(client.stream.into()).unwrap();
        sender.send(b"{", &[slow.as_fd()]).unwrap();
        drop(slow);
        if !read {
            // It is closed with the descriptor in it.
            rig.conns.close(conn);
        }
        rig.until_closed(conn);
        assert_eq!(rig.conns.closer.open(), 1, "somebody is at it");
        drop(other);
        rig.until(|rig| rig.conns.closer.open() == 0);
    }
}

/// A batch of which one reply never comes, with so many that have 100,000 bytes.
fn open_batch(large: u32) -> String {
    let calls: Vec<String> = (0..large).map(|i| call(i, "daemon.status")).collect();
    format!("[{},{}]", call(9999, "service.list"), calls.join(","))
}

#[test]
fn batches_that_are_not_whole_count_as_memory() {
    let mut rig = Rig::new();
    let (mut client, conn) = rig.client();
    let held = |rig: &Rig| rig.conns.conns.get(conn.0).map(|c| (c.link.counted, c.link.batched));
    client.send(Framing::Lines, &[&open_batch(5)]);
    rig.until(|rig| held(rig).is_some_and(|(counted, _)| counted > 500_000));
    assert_eq!(rig.conns.buffered, held(&rig).unwrap().0);
    let (req, ..) = rig.held.pop().unwrap();
    rig.conns.reply(req, &Ok("1".to_owned()));
    assert_eq!(rig.messages(&mut client, 1).len(), 1);
    rig.turn(Duration::ZERO);
    assert_eq!((held(&rig), rig.conns.buffered), (Some((0, 0)), 0));
    // One connection has a limit of its own,
    for _ in 0..UNSENT_MAX / 10_000_000 + 1 {
        client.send(Framing::Lines, &[&open_batch(100)]);
    }
    rig.until_closed(conn);
    assert_eq!((rig.conns.batches_open(), rig.conns.buffered), (0, 0));
    // and all have one together.
    rig.conns.buffered_max = 1_500_000;
    let (mut some, first) = rig.client();
    let (mut more, second) = rig.client();
    some.send(Framing::Lines, &[&open_batch(5)]);
    rig.until(|rig| rig.conns.buffered > 500_000);
    more.send(Framing::Lines, &[&open_batch(12)]);
    rig.until_closed(second);
    assert!(rig.conns.conns.get(first.0).is_some() && rig.conns.buffered < 600_000);
}

#[test]
fn access_is_checked_before_the_core_hears_of_it() {
    let mut rig = Rig::new();
    let (mut reader, conn) = rig.client_with(Access::Read);
    let stop = r#"{"jsonrpc":"2.0","id":2,"method":"service.stop","params":["web"]}"#;
    reader.send(Framing::Lines, &[&ping("1"), stop, &call(3, "daemon.shutdown")]);
    let got = rig.messages(&mut reader, 3);
    // Errors of one turn go out before its replies.
    let mut codes: Vec<String> = got.iter().map(|g| error(g)).collect();
    codes.sort();
    assert_eq!(codes, ["1 null", "2 -32003", "3 -32003"]);
    assert!(rig.held.is_empty());
    rig.conns.readmit(&mut |_, _, _| Some(Access::Operate));
    reader.send(Framing::Lines, &[stop]);
    rig.until(|rig| rig.held.len() == 1);
    rig.conns.readmit(&mut |_, _, _| None);
    rig.until_closed(conn);
    let (mut capped, _) = rig.client_of(1000, Pass::from(Access::Admin).at_most(Access::Read)).unwrap();
    for _ in 0..2 {
        capped.send(Framing::Lines, &[stop]);
        assert_eq!(error(&rig.messages(&mut capped, 1)[0]), "2 -32003", "no reload lifts it");
        rig.conns.readmit(&mut |_, _, _| Some(Access::Admin));
    }
}

#[test]
fn damaged_requests_are_answered_with_their_id() {
    let mut rig = Rig::new();
    let (mut client, _) = rig.client();
    let bad = [
        "{\"jsonrpc\":\"2.0\",\"id\":\"\u{e4}\",\"method\":\"nope\"}",
        "{\"jsonrpc\":\"2.0\",\"id\":0,\"method\":\"ping\",\"params\":{\"x\":1}}",
        "{\"jsonrpc\":\"2.0\",\"id\":3",
        "{\"id\":4,\"method\":\"ping\"}",
    ];
    client.send(Framing::Lines, &bad);
    let got: Vec<String> = rig.messages(&mut client, 4).iter().map(|g| error(g)).collect();
    assert_eq!(got, ["\"\u{e4}\" -32601", "0 -32602", "null -32700", "4 -32600"]);
    let get = r#"{"jsonrpc":"2.0","id":null,"method":"service.get","params":{"name":"x"}}"#;
    client.send(Framing::Lines, &[get]);
    assert_eq!(error(&rig.messages(&mut client, 1)[0]), "null -32004");
}

#[test]
fn stream_frames_from_a_client_are_refused_politely() {
    let mut rig = Rig::new();
    let (mut client, _) = rig.client();
    client.stream.write_all(b"\x01\x00\x00\x05\x00\x00\x00\x07x").unwrap();
    client.send(Framing::Binary, &[&ping("1")]);
    let got = rig.messages(&mut client, 2);
    assert_eq!((error(&got[0]), got[1].clone()), ("null -32600".to_owned(), ponged("1")));
}

#[test]
fn connections_are_counted_by_user() {
    let mut rig = Rig::new();
    let (client, conn) = rig.client();
    assert_eq!(rig.conns.requests.shares.count(&Owner::User(1000), Kind::Connection), 1);
    drop(client);
    rig.until_closed(conn);
    assert!(rig.conns.requests.shares.is_empty() && rig.conns.is_empty());
}

#[test]
fn accept_lets_in_whom_it_should_and_tells_the_others_why() {
    let mut rig = Rig::new();
    let path = std::env::temp_dir().join(format!("hob-conn-{}.sock", std::process::id()));
    let listener = net::listen(&path, 0o600).unwrap();
    let connect = || {
        let stream = net::connect(&path, LIMIT).unwrap();
        stream.set_nonblocking(true).unwrap();
        Client { stream, decoder: Decoder::new(), ended: false }
    };
    let (mut first, mut second) = (connect(), connect());
    second.send(Framing::Binary, &[&ping("1")]);
    let mut let_in = [Ok(Pass::from(Access::Admin)), Err(stranger(7))].into_iter();
    let Rig { conns, poll, sources, .. } = &mut rig;
    let mut admit = |_: &Credentials, _: BorrowedFd<'_>| let_in.next().unwrap();
    assert_eq!(
        conns.accept(listener.as_fd(), ACCEPTED_MAX, poll.registry(), sources, &mut admit).unwrap(),
        Accepted::All
    );
    assert_eq!(second.take().iter().map(|t| error(t)).collect::<Vec<_>>(), ["null -32003"]);
    assert_eq!(second.decoder.framing(), Some(Framing::Binary), "in its own framing");
    assert!(second.ended);

    let mut third = connect();
    conns.refuse_by_reserve(listener.as_fd()).unwrap();
    assert_eq!(third.take().iter().map(|t| error(t)).collect::<Vec<_>>(), ["null -32005"]);
    assert_eq!(conns.refuse_by_reserve(listener.as_fd()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    assert!(conns.reserve.is_some(), "the reserve is full again");

    first.send(Framing::Headers, &[&ping("2")]);
    assert_eq!(rig.messages(&mut first, 1), [ponged("2")]);
    std::fs::remove_file(path).unwrap();
}

#[test]
fn all_together_hold_no_more_than_they_may() {
    let mut rig = Rig::new();
    rig.conns.buffered_max = 1 << 20;
    let (mut modest, _) = rig.client();
    modest.stream.write_all(&[0, 0, 0, 200, b'{']).unwrap();
    let mut greedy = Vec::new();
    for n in 0..12 {
        let (mut client, conn) = rig.client();
        client.stream.write_all(&[0, 0xff, 0xff, 0xff]).unwrap();
        for _ in 0..4 {
            let part = vec![b'x'; 32 << 10];
            let mut sent = 0;
            rig.until(|_| {
                sent += client.stream.write(&part[sent..]).unwrap_or(0);
                sent == part.len()
            });
            rig.turn(Duration::ZERO);
            assert!(rig.conns.buffered <= 1 << 20, "{} bytes after {n}", rig.conns.buffered);
        }
        greedy.push((client, conn));
    }
    let told = |(client, _): &mut (Client, ConnId)| client.take().first().map(|t| error(t));
    let told: Vec<String> = greedy.iter_mut().filter_map(told).collect();
    assert!(told.len() >= 4 && told.iter().all(|t| t == "null -32005"), "{told:?}");
    let rest = format!("{:<199}", ping("1").trim_start_matches('{'));
    modest.stream.write_all(rest.as_bytes()).unwrap();
    assert_eq!(rig.messages(&mut modest, 1), [ponged("1")], "who holds little goes on");
    for (client, conn) in greedy {
        drop(client);
        rig.until_closed(conn);
    }
    assert_eq!(rig.conns.buffered, 0);
}

#[test]
fn who_does_not_read_gives_way_too_and_admins_last() {
    let mut rig = Rig::new();
    rig.conns = Conns::new(1000, SIGNALS);
    rig.conns.buffered_max = 4 << 20;
    let (_admin, first) = rig.client();
    rig.conns.stream_data(first, StreamId(1), &[b'x'; 3 << 20]);
    rig.turn(Duration::ZERO);
    let (ours, _theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let cred = Credentials { uid: 1001, gid: 1001, pid: 1 };
    let second = rig.conns.adopt(ours, cred, Access::Read, rig.poll.registry(), &mut rig.sources).unwrap();
    rig.conns.stream_data(second, StreamId(1), &[b'x'; 2 << 20]);
    rig.until_closed(second);
    assert!(rig.conns.unsent(first) > 2 << 20 && rig.conns.buffered <= 4 << 20);
}
