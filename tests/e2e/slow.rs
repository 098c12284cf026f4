//! Clients that are slow, silent or many: nobody else waits for them, and neither does the end of hob.

use crate::support::*;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

const ONE: &str = r#"{ "services": { "s": { "command": "exec sleep 1000", "min_delay": "0s" } } }"#;

#[test]
fn thousands_of_idle_and_rude_clients_delay_neither_others_nor_the_end() {
    let mut home = Home::running(ONE);
    let exe = std::env::current_exe().unwrap();
    let mut rude = Command::new("sh")
        .args(["-c", "ulimit -n 4096 2>/dev/null || ulimit -n $(ulimit -Hn); exec \"$@\"", "sh"])
        .arg(exe)
        .args(["--exact", "job::job", "--ignored"])
        .env("JOB", "idle")
        .env("HOB_SOCKET", home.path("run/hob.sock"))
        .current_dir(&home.dir)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait("they are connected", || {
        assert!(rude.try_wait().unwrap().is_none(), "the idle program has ended");
        exists(&home.path("up"))
    });
    let count: usize = home.read("up").parse().unwrap();
    if count < 2000 {
        skip(&format!("only {count} idle clients could be had for the limit of open files"));
    }
    home.ok(&["ping"]);
    home.ok(&["restart", "s"]);
    assert!(home.ok(&["status"]).contains("running"));
    home.ok(&["stop"]);
    assert!(home.wait_end().success());
    wait("they have noticed", || exists(&home.path("over")));
    rude.wait().unwrap();
}

#[test]
fn a_reader_that_falls_behind_is_told_where_to_go_on_and_misses_nothing() {
    const MANY: usize = 1000;
    let home = Home::running(ONE);
    home.wait_state("s", "running");
    let mut stream = UnixStream::connect(home.path("run/hob.sock")).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let subscribe = |from: Option<u64>| {
        let params = json!({"kinds": ["service.*"], "from": from});
        format!("{}\n", json!({"jsonrpc": "2.0", "id": 1, "method": "event.subscribe", "params": params}))
    };
    // Many subscriptions make much of each event.
    for _ in 0..MANY {
        stream.write_all(subscribe(None).as_bytes()).unwrap();
    }
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let next = |reader: &mut BufReader<UnixStream>| {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        serde_json::from_str::<Value>(&line).unwrap_or_else(|e| panic!("{e}: {line:?}"))
    };
    for _ in 0..MANY {
        let reply = next(&mut reader);
        assert_eq!(reply["result"]["reset"], false, "{reply}");
    }
    // From here on it does not read, while others are served.
    for _ in 0..20 {
        home.ok(&["restart", "s"]);
    }
    let last = home.call("event.history", r#"{"limit": 1}"#)["next"].as_u64().unwrap();
    let (mut seen, mut lagged) = (vec![0_u64; MANY + 1], vec![0_u64; MANY + 1]);
    while lagged.iter().skip(1).any(|at| *at == 0) {
        let note = next(&mut reader);
        let of = usize::try_from(note["params"]["subscription"].as_u64().unwrap()).unwrap();
        if note["method"] == "event.lagged" {
            lagged[of] = note["params"]["resume_from"].as_u64().unwrap();
            assert!(lagged[of] > seen[of] && lagged[of] <= last, "{note}");
            continue;
        }
        assert_eq!(lagged[of], 0, "nothing comes after that");
        let seq = note["params"]["event"]["seq"].as_u64().unwrap();
        assert!(seen[of] == 0 || seq > seen[of], "in order");
        seen[of] = seq;
    }
    // Whoever resumes where it was told has all events once.
    stream.write_all(subscribe(Some(lagged[1])).as_bytes()).unwrap();
    let reply = next(&mut reader);
    assert_eq!(reply["result"]["reset"], false, "{reply}");
    let history =
        home.call("event.history", &format!(r#"{{"kinds": ["service.*"], "from": {}, "limit": 1000}}"#, seen[1] + 1));
    for event in history["events"].as_array().unwrap() {
        assert_eq!(&next(&mut reader)["params"]["event"], event);
    }
}

#[test]
fn however_much_many_ask_all_is_answered_in_order() {
    const CLIENTS: usize = 12;
    const EACH: usize = 300;
    let home = Home::running(r#"{ "groups": { "g": { "paused": true } } }"#);
    home.ok(&["add", "--array", "1-5000", "--group", "g", "true {}"]);
    // What all tasks have to be looked at for, and between that what is answered as it is read.
    let request = |id: usize| match id % 3 {
        0 => json!({"jsonrpc": "2.0", "id": id, "method": "ping"}),
        _ => json!({"jsonrpc": "2.0", "id": id, "method": "task.list", "params": {"state": "lost"}}),
    };
    let asked: String = (0..EACH).map(|id| format!("{}\n", request(id))).collect();
    let connect = |_| UnixStream::connect(home.path("run/hob.sock")).unwrap();
    let clients: Vec<UnixStream> = (0..CLIENTS).map(connect).collect();
    for mut client in &clients {
        client.set_read_timeout(Some(LIMIT)).unwrap();
        client.write_all(asked.as_bytes()).unwrap();
    }
    home.ok(&["ping"]);
    for client in &clients {
        let replies = BufReader::new(client).lines().take(EACH);
        let ids = replies.map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap()["id"].as_u64().unwrap());
        assert!(ids.eq(0..EACH as u64));
    }
}

#[test]
fn whoever_never_stops_asking_keeps_nobody_out() {
    const AT_ONCE: usize = 64;
    let home = Home::running(ONE);
    home.wait_state("s", "running");
    let over = AtomicBool::new(false);
    let ask = format!("{}\n", json!({"jsonrpc": "2.0", "id": 1, "method": "rpc.discover"}));
    let connect = || {
        let stream = UnixStream::connect(home.path("run/hob.sock")).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream
    };
    std::thread::scope(|scope| {
        let (begun, all) = std::sync::mpsc::channel();
        for _ in 0..4 {
            let (begun, over, ask) = (begun.clone(), &over, ask.as_bytes());
            let mut stream = connect();
            scope.spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                stream.write_all(&ask.repeat(AT_ONCE)).unwrap();
                let mut answers = 0;
                while !over.load(Relaxed) {
                    reader.skip_until(b'\n').unwrap();
                    answers += 1;
                    stream.write_all(ask).unwrap();
                    if answers == AT_ONCE {
                        begun.send(()).unwrap();
                    }
                }
            });
        }
        (0..4).for_each(|_| all.recv_timeout(LIMIT).unwrap());
        for _ in 0..20 {
            let mut stream = connect();
            stream.write_all(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}\n").unwrap();
            let mut answer = String::new();
            let read = BufReader::new(stream).read_line(&mut answer);
            over.store(read.is_err(), Relaxed);
            assert!(answer.contains("pong"), "{read:?} {answer}");
        }
        over.store(true, Relaxed);
    });
    home.ok(&["stop"]);
}

#[test]
fn who_asks_what_many_cost_is_answered_once_and_with_figures_of_now() {
    // More than are measured without the pool.
    const MANY: usize = 40;
    const ASKED: u64 = 30;
    let services: Vec<String> = (0..MANY).map(|i| format!(r#""s{i}": {{ "command": ["sleep", "1000"] }}"#)).collect();
    let home = Home::running(&format!(r#"{{ "services": {{ {} }} }}"#, services.join(",")));
    let measured = |list: &Value| {
        let list = list["services"].as_array().unwrap();
        // Of a process that was executed a moment ago the kernel counts no page yet, as it counts them in batches.
        list.iter().filter(|s| s["state"] == "running" && s["memory"].is_u64()).count()
    };
    wait("all run", || measured(&home.call("service.list", "{}")) == MANY);
    let ask = || {
        let mut stream = UnixStream::connect(home.path("run/hob.sock")).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        for id in 1..=ASKED {
            let method = if id % 2 == 0 { "service.list" } else { "daemon.status" };
            writeln!(stream, "{}", json!({"jsonrpc": "2.0", "id": id, "method": method})).unwrap();
        }
        stream
    };
    let asked: Vec<UnixStream> = (0..6).map(|_| ask()).collect();
    // Nobody is kept waiting by those who hang up.
    (0..6).for_each(|_| drop(ask()));
    for _ in 0..5 {
        home.ok(&["restart", "s7"]);
        // What was measured before the restart knows nothing of its run.
        assert_eq!(measured(&home.call("service.list", "{}")), MANY);
        assert_eq!(measured(&home.call("daemon.status", "{}")), MANY);
    }
    for stream in asked {
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        for id in 1..=ASKED {
            let reply: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
            assert_eq!(reply["id"], id, "in the order they were asked");
            assert_eq!(reply["result"]["services"].as_array().unwrap().len(), MANY);
        }
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(lines.next().is_none(), "one answer each");
    }
}
