//! What one user or job may have over all its connections, and what becomes of those who do not read.

use super::*;
use crate::base::limits::{
    BYTES_PER_USER_MAX, CONNECTIONS_PER_USER_MAX, LAGGING_MAX, REQUESTS_PER_USER_MAX, STREAMS_PER_CONNECTION_MAX,
    STREAMS_PER_USER_MAX, SUBSCRIPTIONS_PER_USER_MAX,
};

fn job(name: &str) -> Pass {
    Pass::of_job(&name.into(), Access::Admin)
}

fn subscribe(id: usize) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"event.subscribe"}}"#)
}

#[test]
fn connections_of_one_job_leave_its_user_and_other_jobs_theirs() {
    let mut rig = Rig::new();
    let open: Vec<_> = (0..CONNECTIONS_PER_USER_MAX).map(|_| rig.client_of(500, job("web")).unwrap()).collect();
    let e = rig.client_of(500, job("web")).err().unwrap();
    assert!(e.to_string().contains("service/web has 256 connections open"), "{e}");
    for (uid, pass) in [(500, job("db")), (500, Access::Read.into()), (1000, Access::Read.into())] {
        assert!(rig.client_of(uid, pass).is_ok());
    }
    let (gone, conn) = open.into_iter().next().unwrap();
    drop(gone);
    rig.until_closed(conn);
    assert!(rig.client_of(500, job("web")).is_ok());
}

#[test]
fn requests_in_flight_of_one_user_are_bounded_over_connections() {
    let mut rig = Rig::new();
    let mut clients: Vec<_> = (0..5).map(|_| rig.client().0).collect();
    let each = REQUESTS_PER_USER_MAX / 4 - 1;
    for client in &mut clients[..4] {
        let before = rig.held.len();
        let calls: Vec<String> = (0..each).map(|i| call(u32::try_from(i).unwrap(), "service.list")).collect();
        for part in calls.chunks(64) {
            client.send(Framing::Binary, &part.iter().map(String::as_str).collect::<Vec<_>>());
            rig.turn(Duration::ZERO);
        }
        rig.until(|rig| rig.held.len() == before + each);
    }
    let last = &mut clients[4];
    let left = REQUESTS_PER_USER_MAX - 4 * each;
    last.send(Framing::Binary, &vec![&*call(7, "service.list"); left + 1]);
    assert_eq!(rig.messages(last, 1).iter().map(|t| error(t)).collect::<Vec<_>>(), ["7 -32005"]);
    let (mut other, _) = rig.client_of(1001, Access::Read.into()).unwrap();
    other.send(Framing::Lines, &[&ping("1")]);
    assert_eq!(rig.messages(&mut other, 1), [ponged("1")], "another user is served");
    let (req, ..) = rig.held.pop().unwrap();
    rig.conns.reply(req, &Ok("1".to_owned()));
    last.send(Framing::Binary, &[&ping("2")]);
    assert!(rig.messages(last, 2).contains(&ponged("2")), "one answered is one free");
    drop(clients);
    drop(other);
    rig.until(|rig| rig.conns.is_empty());
    assert!(rig.conns.requests.shares.is_empty());
}

#[test]
fn subscriptions_of_one_user_are_bounded_and_those_that_end_are_given_back() {
    let mut rig = Rig::new();
    rig.answer = |request| match request {
        Request::EventUnsubscribe { .. } => Some(Ok("{}".to_owned())),
        other => pong(other),
    };
    let (mut client, conn) = rig.client();
    let who = Owner::User(1000);
    let count = |rig: &Rig| rig.conns.requests.shares.count(&who, Kind::Subscription);
    let mut got = 0;
    for i in 0..SUBSCRIPTIONS_PER_USER_MAX {
        client.send(Framing::Binary, &[&subscribe(i)]);
        rig.turn(Duration::ZERO);
        got += client.take().len();
    }
    rig.until(|_| {
        got += client.take().len();
        got == SUBSCRIPTIONS_PER_USER_MAX
    });
    assert_eq!(count(&rig), SUBSCRIPTIONS_PER_USER_MAX);
    client.send(Framing::Binary, &[&subscribe(1)]);
    assert_eq!(error(&rig.messages(&mut client, 1)[0]), "1 -32005");
    let (mut other, _) = rig.client_of(1000, job("web")).unwrap();
    other.send(Framing::Binary, &[&subscribe(2)]);
    assert!(rig.messages(&mut other, 1)[0].contains("\"subscription\""));
    rig.conns.notify(conn, StreamId(1), "event.lagged", "{}");
    assert_eq!(count(&rig), SUBSCRIPTIONS_PER_USER_MAX - 1);
    client.send(Framing::Binary, &[r#"{"jsonrpc":"2.0","id":3,"method":"event.unsubscribe","params":[7]}"#]);
    rig.messages(&mut client, 2);
    assert_eq!(count(&rig), SUBSCRIPTIONS_PER_USER_MAX - 2);
    rig.answer = |_| Some(Err(RpcError::new(Code::InvalidParams, "no")));
    client.send(Framing::Binary, &[&subscribe(4)]);
    rig.messages(&mut client, 1);
    assert_eq!(count(&rig), SUBSCRIPTIONS_PER_USER_MAX - 2, "what was refused counts for nothing");
    drop(client);
    rig.until_closed(conn);
    assert_eq!(count(&rig), 0);
}

#[test]
fn streams_of_one_user_are_bounded() {
    let mut rig = Rig::new();
    let open: Vec<_> = (0..STREAMS_PER_USER_MAX / STREAMS_PER_CONNECTION_MAX).map(|_| rig.client()).collect();
    let mut id = 0;
    for (_, conn) in &open {
        for _ in 0..STREAMS_PER_CONNECTION_MAX {
            id += 1;
            rig.conns.stream_open(*conn, StreamId(id)).unwrap();
        }
    }
    let (_client, conn) = rig.client();
    assert_eq!(rig.conns.stream_open(conn, StreamId(id + 1)).unwrap_err().code, Code::Busy);
    let (_other, theirs) = rig.client_of(1001, Access::Read.into()).unwrap();
    assert!(rig.conns.stream_open(theirs, StreamId(id + 2)).is_ok());
    rig.conns.stream_end(open[0].1, StreamId(1), "eof");
    rig.conns.stream_end(open[0].1, StreamId(1), "a second time");
    assert!(rig.conns.stream_open(conn, StreamId(id + 1)).is_ok());
    assert!(rig.conns.stream_open(conn, StreamId(id + 3)).is_err());
}

#[test]
fn unfinished_messages_of_one_user_are_bounded_in_memory() {
    let mut rig = Rig::new();
    let piece = vec![b' '; 1 << 20];
    let mut clients = Vec::new();
    let (mut ended, mut sent) = (false, 0);
    'all: for _ in 0..8 {
        let (mut client, _) = rig.client();
        for _ in 0..15 {
            let mut rest = &piece[..];
            while !rest.is_empty() {
                match client.stream.write(rest) {
                    Ok(n) => {
                        sent += n;
                        rest = &rest[n..];
                    }
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => drop(rig.turn(Duration::ZERO)),
                    Err(_) => rest = &[],
                }
                let told = client.take();
                if client.ended {
                    assert_eq!(told.iter().map(|t| error(t)).collect::<Vec<_>>(), ["null -32005"]);
                    ended = true;
                    break 'all;
                }
            }
        }
        clients.push(client);
    }
    assert!(ended && sent > BYTES_PER_USER_MAX && sent < BYTES_PER_USER_MAX + (4 << 20), "{sent}");
    let (mut other, _) = rig.client_of(1001, Access::Read.into()).unwrap();
    other.send(Framing::Lines, &[&ping("1")]);
    assert_eq!(rig.messages(&mut other, 1), [ponged("1")]);
    assert_eq!(rig.conns.len(), clients.len() + 1, "nobody else was closed");
}

#[test]
fn one_that_takes_nothing_for_a_minute_is_closed() {
    let mut rig = Rig::new();
    let (mut client, conn) = rig.client();
    let bulk = "x".repeat(UNSENT_LAGGED / 2);
    let event = format!("\"{bulk}\"");
    let fill = |rig: &mut Rig| {
        for _ in 0..3 {
            rig.conns.notify(conn, StreamId(1), "event", &event);
        }
        rig.turn(Duration::ZERO);
    };
    fill(&mut rig);
    assert_eq!(rig.conns.next_deadline(), Some(rig.now + LAGGING_MAX));
    rig.now = rig.now + LAGGING_MAX / 2;
    // It takes a little, which counts.
    let mut some = vec![0; 300_000];
    rig.until(|rig| {
        let _ = client.stream.read(&mut some);
        rig.conns.next_deadline() == Some(rig.now + LAGGING_MAX)
    });
    let at = rig.conns.next_deadline().unwrap();
    rig.conns.due(at + Duration::from_secs(2));
    assert_eq!(rig.conns.next_deadline(), Some(at + Duration::from_secs(2) + LAGGING_MAX), "the machine stood still");
    let at = rig.conns.next_deadline().unwrap();
    rig.conns.due(at);
    rig.turn(Duration::ZERO);
    assert!(rig.found.closed.contains(&conn));
    assert_eq!(rig.conns.next_deadline(), None);

    let (mut client, conn) = rig.client();
    for _ in 0..3 {
        rig.conns.notify(conn, StreamId(1), "event", &event);
    }
    rig.turn(Duration::ZERO);
    assert!(rig.conns.next_deadline().is_some());
    rig.messages(&mut client, 3);
    rig.until(|rig| rig.conns.next_deadline().is_none());
}
