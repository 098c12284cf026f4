//! Channels of jobs: one JSON text a message.

use super::*;
use crate::base::limits::{BATCH_MESSAGE_MAX, CHANNELS_MAX, MESSAGE_MAX};
use crate::sys::chan::Chan;

/// A job's end of a channel.
struct Job(Chan);

impl Job {
    fn new(rig: &mut Rig) -> (Job, ConnId) {
        let (ours, theirs) = Chan::pair_for_job(MESSAGE_MAX).unwrap();
        let pass = Pass::of_job(&"web".into(), Access::Admin);
        let id = rig.conns.adopt_channel(ours, 1000, pass, rig.poll.registry(), &mut rig.sources).unwrap();
        (Job(Chan::from_fd(theirs).unwrap()), id)
    }

    fn send(&self, text: &[u8]) {
        self.0.send(text, &[]).unwrap();
    }

    /// What has come so far; `None` at the end.
    fn take(&self) -> (Vec<String>, bool) {
        let (mut all, mut buf) = (Vec::new(), vec![0; 2 * MESSAGE_MAX]);
        loop {
            match self.0.recv(&mut buf) {
                Ok(Some((n, _))) => all.push(String::from_utf8(buf[..n].to_vec()).unwrap()),
                Ok(None) => return (all, true),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return (all, false),
                Err(e) => panic!("{e}"),
            }
        }
    }

    fn messages(&self, rig: &mut Rig, n: usize) -> Vec<String> {
        let mut all = Vec::new();
        rig.until(|_| {
            all.extend(self.take().0);
            all.len() >= n
        });
        all
    }
}

#[test]
fn a_message_is_a_request_whatever_its_first_byte_and_a_reply_is_a_message() {
    let mut rig = Rig::new();
    let (job, _) = Job::new(&mut rig);
    job.send(format!("\n\t{}\r\n", ping("1")).as_bytes());
    job.send(ping("2").as_bytes());
    job.send(format!("[{},{}]", ping("3"), ping("4")).as_bytes());
    let got = job.messages(&mut rig, 3);
    assert_eq!(got, [ponged("1"), ponged("2"), format!("[{},{}]", ponged("3"), ponged("4"))]);
    let ids: Vec<String> = (0..500).map(|i| i.to_string()).collect();
    let mut got = Vec::new();
    for id in &ids {
        job.send(ping(id).as_bytes());
        rig.turn(Duration::ZERO);
        got.extend(job.take().0);
    }
    rig.until(|_| {
        got.extend(job.take().0);
        got.len() >= 500
    });
    assert_eq!(got, ids.iter().map(|id| ponged(id)).collect::<Vec<_>>());
}

#[test]
fn what_is_no_message_is_told_and_the_next_one_counts() {
    let mut rig = Rig::new();
    let (job, _) = Job::new(&mut rig);
    for (bad, code) in [
        (&b""[..], -32600),
        (&b"GET / HTTP/1.1"[..], -32700),
        (&b"\x00\x00\x00\x02{}"[..], -32700),
        (&[0xff; 100][..], -32700),
        (&vec![b'['; MESSAGE_MAX][..], -32700),
        (&vec![b'x'; MESSAGE_MAX + 1][..], -32600),
    ] {
        job.send(bad);
        assert_eq!(job.messages(&mut rig, 1).iter().map(|t| error(t)).collect::<Vec<_>>(), [format!("null {code}")]);
        job.send(ping("1").as_bytes());
        assert_eq!(job.messages(&mut rig, 1), [ponged("1")]);
    }
}

#[test]
fn a_longer_reply_is_an_error_that_says_where_to_ask() {
    let mut rig = Rig::new();
    let (job, _) = Job::new(&mut rig);
    job.send(call(1, "daemon.status").as_bytes());
    let got = job.messages(&mut rig, 1).remove(0);
    assert_eq!(error(&got), "1 -32005");
    assert!(got.contains("65536 bytes") && got.contains("HOB_SOCKET"), "{got}");
    job.send(format!("[{},{}]", call(1, "daemon.status"), ping("2")).as_bytes());
    let got = job.messages(&mut rig, 1).remove(0);
    let batch: Vec<serde_json::Value> = serde_json::from_str(&got).unwrap();
    assert_eq!((&batch[0]["error"]["code"], &batch[1]["result"]["pong"]), (&(-32005).into(), &true.into()));
    let most = vec![ping("1"); BATCH_MESSAGE_MAX].join(",");
    job.send(format!("[{most}]").as_bytes());
    let got = job.messages(&mut rig, 1).remove(0);
    let batch: Vec<serde_json::Value> = serde_json::from_str(&got).unwrap();
    assert!(batch.len() == BATCH_MESSAGE_MAX && batch.iter().all(|r| r["result"]["pong"] == true));
    job.send(format!("[{most},{}]", ping("2")).as_bytes());
    assert_eq!(error(&job.messages(&mut rig, 1)[0]), "null -32005");
}

#[test]
fn streams_come_as_text_that_fits() {
    let mut rig = Rig::new();
    let (job, conn) = Job::new(&mut rig);
    rig.conns.stream_open(conn, StreamId(5)).unwrap();
    let text = "\u{1}".repeat(200_000);
    rig.conns.stream_data(conn, StreamId(5), text.as_bytes());
    rig.conns.stream_end(conn, StreamId(5), "eof");
    let (mut all, mut last) = (String::new(), String::new());
    rig.until(|_| {
        for message in job.take().0 {
            assert!(message.len() <= MESSAGE_MAX);
            let v: serde_json::Value = serde_json::from_str(&message).unwrap();
            all.push_str(v["params"]["text"].as_str().unwrap_or_default());
            last = v["method"].as_str().unwrap().to_owned();
        }
        last == "stream.end"
    });
    assert_eq!(all, text);
}

#[test]
fn a_job_that_does_not_read_is_not_read_from_and_its_end_is_noticed() {
    let mut rig = Rig::new();
    let (job, conn) = Job::new(&mut rig);
    // More requests than their replies have room for; what does not fit waits.
    let ask = call(1, "service.get").replace("}", ",\"params\":[\"x\"]}");
    let mut sent = 0;
    while sent < 20_000 {
        match job.0.send(ask.as_bytes(), &[]) {
            Ok(()) => sent += 1,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                if rig.turn(Duration::ZERO) == 0 {
                    break;
                }
            }
            Err(e) => panic!("{e}"),
        }
    }
    let mut got = 0;
    rig.until(|_| {
        got += job.take().0.len();
        got >= sent
    });
    assert_eq!(got, sent, "one reply for each");
    rig.conns.close(conn);
    rig.until_closed(conn);
    assert_eq!(job.take(), (Vec::new(), true));
    let (job, conn) = Job::new(&mut rig);
    job.send(ping("1").as_bytes());
    drop(job);
    rig.until_closed(conn);
    assert!(rig.conns.requests.shares.is_empty() && rig.conns.channels == 0);
}

#[test]
fn the_number_of_channels_is_bounded() {
    let mut rig = Rig::new();
    let _open = Job::new(&mut rig);
    rig.conns.channels = CHANNELS_MAX;
    let (ours, _theirs) = Chan::pair_for_job(MESSAGE_MAX).unwrap();
    let pass = Pass::of_job(&"web".into(), Access::Read);
    let e = rig.conns.adopt_channel(ours, 0, pass, rig.poll.registry(), &mut rig.sources).unwrap_err();
    assert_eq!(e.kind(), io::ErrorKind::QuotaExceeded);
}
