//! Logs whose lines are processed: time stamps, rates, secrets, streams; and what is asked of logs by time and pattern.

use crate::support::*;
use serde_json::{Value, json};
use std::fs;

fn running(services: Value) -> Home {
    Home::running(&json!({ "services": services }).to_string())
}

/// A line's text behind its time stamp, which must be one.
fn bare(line: &str) -> &str {
    text_of(line).unwrap_or_else(|| panic!("no stamp: {line:?}"))
}

/// The same for a line that may still be written.
fn text_of(line: &str) -> Option<&str> {
    let (stamp, text) = line.split_once(' ')?;
    (stamp.len() == 24 && stamp.starts_with("20") && stamp.ends_with('Z')).then_some(text)
}

#[test]
fn each_line_begins_with_its_time_and_parts_are_found_by_it() {
    let home = running(json!({ "n": {
        "command": "echo first; printf un; sleep 0.1; echo finished; sleep 1.5; echo second; exec sleep 1000",
        "log": { "timestamps": true } } }));
    wait("all is written", || home.log("n").ends_with("second\n"));
    let text = home.log("n");
    assert_eq!(text.lines().map(bare).collect::<Vec<_>>(), ["first", "unfinished", "second"]);
    let second = text.lines().last().unwrap().split(' ').next().unwrap().to_owned();
    let shown = |args: &[&str]| -> Vec<String> {
        home.ok(&[&["logs", "n"], args].concat()).lines().map(|l| bare(l).to_owned()).collect()
    };
    assert_eq!(shown(&["--since", &second]), ["second"]);
    assert_eq!(shown(&["--since", "1h"]), ["first", "unfinished", "second"]);
    assert_eq!(shown(&["--since", "1h", "-n", "1"]), ["second"]);
    let before = format!("{}.000Z", second.split_at(19).0);
    assert_eq!(shown(&["--until", &before]), ["first", "unfinished"]);
    assert_eq!(shown(&["--since", "0s"]), Vec::<String>::new());
    assert_eq!(shown(&["--grep", "^UN", "-i"]), ["unfinished"]);
    assert_eq!(shown(&["--grep", "^UN", "-i", "-v"]), ["first", "second"]);
    assert_eq!(shown(&["--grep", "s", "-n", "1"]), ["second"]);
    let object: Value = serde_json::from_str(home.ok(&["logs", "n", "-n", "1", "--json"]).trim()).unwrap();
    assert_eq!((object["line"].as_str(), object["time"].as_str()), (Some("second"), Some(second.as_str())));
    for (args, part) in [
        (&["logs", "n", "--since", "soon"][..], "not a time"),
        (&["logs", "n", "--grep", "("], "not a regular expression"),
        (&["logs", "n", "-f", "--until", "1h"], "give one of them"),
        (&["logs", "n", "--invert"], "--grep"),
        (&["logs", "n", "--stream", "both"], "neither 'out' nor 'err'"),
    ] {
        let (code, said) = home.fails(args);
        assert!(code == 2 && said.contains(part), "{args:?}: {code} {said}");
    }
}

#[test]
fn raw_logs_are_found_by_time_to_the_second() {
    let home = running(json!({ "n": { "command": "echo one; sleep 2.2; echo two; exec sleep 1000" } }));
    wait("both are written", || home.log("n") == "one\ntwo\n");
    let lines: Vec<Value> =
        home.ok(&["logs", "n", "--json"]).lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let times: Vec<&str> = lines.iter().map(|l| l["time"].as_str().unwrap()).collect();
    assert!(times[0] < times[1], "{times:?}");
    assert_eq!(home.ok(&["logs", "n", "--since", times[1]]), "two\n");
    assert_eq!(home.ok(&["logs", "n", "--until", times[0]]), "one\n");
    assert_eq!(home.ok(&["logs", "n", "--since", times[0], "--until", times[1]]), "one\ntwo\n");
}

#[test]
fn what_is_too_fast_is_dropped_and_counted_to_the_byte() {
    let home = running(json!({ "n": { "command": "seq 1 100000; sleep 1; echo end; exec sleep 1000",
        "log": { "rate": "10kB/s" } } }));
    wait("all has passed", || home.log("n").ends_with("end\n"));
    let text = home.log("n");
    let dropped: usize =
        text.lines().filter_map(|l| l.strip_prefix("[hob: ")?.split(' ').next()?.parse::<usize>().ok()).sum();
    let kept: usize = text.lines().filter(|l| !l.starts_with("[hob: ")).map(|l| l.len() + 1).sum();
    let written: usize = (1..=100_000).map(|n: u32| n.to_string().len() + 1).sum::<usize>() + 4;
    assert_eq!(dropped + kept, written);
    assert!(kept < 60_000 && text.contains(" bytes dropped by the rate limit]\n"), "{kept}");
}

#[test]
fn secrets_are_seen_nowhere() {
    let mut home = Home::with_env("{}", "BASE_TOKEN", "from-the-base-42");
    fs::write(home.path("env"), "FILE_TOKEN='from the file 43'\n").unwrap();
    let command = "echo \"a $BASE_TOKEN b\"; printf 'c from-the-'; sleep 1.4; echo 'base-42'; \
                   echo \"$FILE_TOKEN$OWN\"; echo done; echo \"bye $OWN\"; exit 3";
    let spec = json!({ "command": command, "env": { "OWN": "in-the-config" }, "env_file": "env", "restart": "never",
        "secrets": ["BASE_TOKEN", "FILE_TOKEN", "OWN", "MISSING"] });
    home.write_config(&json!({ "services": { "s": spec } }).to_string());
    home.start(&[]);
    home.wait_state("s", "failed");
    wait("its end is known", || home.service("s").to_string().contains("bye"));
    assert_eq!(home.log("s"), "a *** b\nc ***\n******\ndone\nbye ***\n");
    let views = [
        home.service("s").to_string(),
        home.ok(&["why", "s"]),
        home.ok(&["config", "show"]),
        home.call("daemon.config", "{}").to_string(),
        home.call("event.history", "{}").to_string(),
        home.read("logs/hob.log"),
    ];
    for view in &views {
        for secret in ["from-the-base-42", "from the file 43", "in-the-config"] {
            assert!(!view.contains(secret), "{view}");
        }
    }
    assert!(views[5].contains("the secret MISSING of s: no such variable is set"), "{}", views[5]);
    home.write_config(r#"{"services": {"s": {"command": "x", "env": {"A": "1"}, "secrets": ["A"]}}}"#);
    let out = home.hob(&["config", "check"]);
    assert!(String::from_utf8_lossy(&out.stdout).contains("too short to be masked"), "{out:?}");
}

#[test]
fn streams_are_told_apart() {
    let home = running(json!({ "n": {
        "command": "echo out 1; sleep 0.1; echo err 1 >&2; sleep 0.1; echo out 2; sleep 0.1; echo err 2 >&2; \
                    exec sleep 1000",
        "log": { "streams": "split" } } }));
    wait("all is written", || home.log("n").lines().count() == 4);
    assert_eq!(home.log("n"), "out 1\nerr 1\nout 2\nerr 2\n");
    assert_eq!(home.ok(&["logs", "n", "--stream", "out"]), "out 1\nout 2\n");
    assert_eq!(home.ok(&["logs", "n", "--stream", "err"]), "err 1\nerr 2\n");
    let lines: Vec<Value> =
        home.ok(&["logs", "n", "--json"]).lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let streams: Vec<&str> = lines.iter().map(|l| l["stream"].as_str().unwrap()).collect();
    assert_eq!(streams, ["out", "err", "out", "err"]);
}

#[test]
fn settings_of_a_running_service_change_live() {
    let spec = |log: Value| {
        let command = "n=0; while :; do n=$((n+1)); echo $n; sleep 0.01; done";
        json!({ "services": { "n": { "command": command, "log": log } } }).to_string()
    };
    let home = Home::running(&spec(json!({})));
    wait("it writes", || home.log("n").lines().count() > 5);
    let pid = home.pid("n");
    home.write_config(&spec(json!({ "timestamps": true })));
    home.ok(&["reload"]);
    wait("lines have stamps", || home.log("n").lines().last().is_some_and(|l| l.starts_with("20") && l.len() > 24));
    home.write_config(&spec(json!({})));
    home.ok(&["reload"]);
    wait("lines have none", || home.log("n").lines().last().is_some_and(|l| l.parse::<u64>().is_ok()));
    assert_eq!(home.pid("n"), pid, "the same run");
    home.ok(&["stop", "n"]);
    let text = home.log("n");
    let numbers: Vec<u64> = text.lines().map(|l| l.rsplit(' ').next().unwrap().parse().unwrap()).collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
}

#[test]
fn logs_are_rotated_on_request() {
    let home = running(json!({
        "n": { "command": "echo one; exec sleep 1000" },
        "idle": { "command": "true", "autostart": false } }));
    wait("it has written", || home.log("n") == "one\n");
    let said = home.ok(&["logs", "rotate", "n", "idle"]);
    assert!(
        said.contains("n: a new log file was begun") && said.contains("idle: not rotated: its file is empty"),
        "{said}"
    );
    assert_eq!((home.log("n"), home.read("logs/services/n.log.1")), (String::new(), "one\n".to_owned()));
    assert_eq!(home.ok(&["logs", "n"]), "one\n");
    assert!(home.ok(&["logs", "rotate", "n"]).contains("its file is empty"));
    assert!(home.fails(&["logs", "rotate", "nobody"]).1.contains("there is no service"));
}

#[test]
fn old_files_are_compressed_and_read_back() {
    if std::process::Command::new("gzip").arg("--version").output().is_err() {
        return skip("there is no gzip");
    }
    let home = running(json!({ "n": { "command": "seq -f '%06g line of some length' 1 20000; exec sleep 1000",
        "log": { "max_size": "64KiB", "max_files": 6, "compress": true } } }));
    let dir = home.path("logs/services");
    let packed = |k: u32| dir.join(format!("n.log.{k}.gz"));
    wait("all is written", || home.log("n").ends_with("020000 line of some length\n"));
    wait("old files are compressed", || {
        (1..6).all(|k| packed(k).exists() && !dir.join(format!("n.log.{k}")).exists()) && !packed(6).exists()
    });
    assert!(!dir.join("n.log.gz.new").exists());
    let plain: usize = home.log("n").lines().count();
    let all = home.ok(&["logs", "n", "-n", "1000000"]);
    let numbers: Vec<u32> = all.lines().map(|l| l.split(' ').next().unwrap().parse().unwrap()).collect();
    assert!(numbers.len() > plain * 4, "{} lines", numbers.len());
    let first = 20_001 - u32::try_from(numbers.len()).unwrap();
    assert_eq!(numbers, (first..=20_000).collect::<Vec<_>>());
    assert_eq!(home.ok(&["logs", "n", "--grep", &format!("^0*{} ", first + 7)]).lines().count(), 1);
    assert_eq!(
        home.ok(&["logs", "n", "--since", "1h", "-n", "2"]),
        "019999 line of some length\n020000 line of some length\n"
    );
    // The next daemon finds them, and rotation moves them on.
    kill("KILL", home.pids().0);
    assert_eq!(home.ok(&["logs", "n", "-n", "1000000"]), all);
    home.ok(&["logs", "rotate", "n"]);
    wait("the last is compressed too", || packed(1).exists() && !dir.join("n.log.1").exists());
    let kept = home.ok(&["logs", "n", "-n", "1000000"]);
    assert!(all.ends_with(&kept) && kept.lines().count() > plain * 3);
}

#[test]
fn without_gzip_files_stay_as_they_are_and_it_is_said_once() {
    let empty = std::env::temp_dir();
    let mut home = Home::with_env("{}", "PATH", empty.to_str().unwrap());
    let spec = json!({ "command": ["/usr/bin/seq", "1", "20000"], "restart": "never",
        "log": { "max_size": "16KiB", "max_files": 4, "compress": true } });
    home.write_config(&json!({ "services": { "n": spec } }).to_string());
    home.start(&[]);
    wait("all is written", || home.log("n").ends_with("20000\n"));
    wait("it is said", || home.read("logs/hob.log").contains("no program gzip"));
    assert_eq!(home.read("logs/hob.log").matches("no program gzip").count(), 1);
    assert!(home.path("logs/services/n.log.3").exists());
}

#[test]
fn files_go_when_they_are_too_old() {
    let home = running(json!({ "n": { "command": "echo one; sleep 0.3; echo two; exec sleep 1000",
        "log": { "max_age": "2s" } } }));
    wait("both are written", || home.log("n") == "one\ntwo\n");
    wait("the file is rotated by its age", || home.read("logs/services/n.log.1") == "one\ntwo\n");
    wait("and removed by its age", || !exists(&home.path("logs/services/n.log.1")));
    assert!(!exists(&home.path("logs/services/n.log.1.idx")));
    assert_eq!(home.ok(&["logs", "n"]), "");
}

#[test]
fn hobs_own_log_can_be_searched_and_be_objects() {
    let home = Home::running(
        r#"{ "daemon": { "log": { "format": "json" } },
        "services": { "s": { "command": "exit 4", "restart": "never" } } }"#,
    );
    home.wait_state("s", "failed");
    wait("it is told", || home.read("logs/hob.log").contains("service.failed"));
    let text = home.ok(&["logs", "--since", "1h", "--grep", "service.failed"]);
    let line: Value = serde_json::from_str(text.trim()).unwrap();
    assert_eq!(line["level"], "warn");
    assert!(line["text"].as_str().unwrap().starts_with("service.failed s"), "{line}");
    let since = home.ok(&["logs", "--since", line["time"].as_str().unwrap()]);
    let times: Vec<Value> = since.lines().map(|l| serde_json::from_str::<Value>(l).unwrap()["time"].take()).collect();
    assert!(since.contains(text.trim()) && times.iter().all(|t| t.as_str() >= line["time"].as_str()), "{since}");
    assert_eq!(home.ok(&["logs", "--until", "1h"]), "");
}

#[test]
fn kills_of_the_daemon_double_and_lose_no_line() {
    let kills = std::env::var("HOB_STORM_KILLS").ok().and_then(|v| v.parse().ok()).unwrap_or(100);
    let count = |log: Value| {
        json!({ "command": "n=0; while :; do n=$((n+1)); echo line $n; echo err $n >&2; done", "log": log,
                "secrets": ["HOME"] })
    };
    let home = running(json!({
        "stamped": count(json!({ "timestamps": true, "max_size": "1MB", "max_files": 1000 })),
        "split": count(json!({ "timestamps": true, "streams": "split", "max_size": "1MB", "max_files": 1000 })) }));
    let mut follower = home
        .command(&["logs", "-f", "--since", "1h", "stamped"])
        .stdout(fs::File::create(home.path("followed")).unwrap())
        .stderr(fs::File::create(home.path("follower")).unwrap())
        .spawn()
        .unwrap();
    let mut seen = 0;
    for n in 0..kills {
        // However slow all is, the follower hears of a daemon now and then, so that it does not give up.
        if n % 10 == 0 {
            wait("the follower comes on", || fs::metadata(home.path("followed")).unwrap().len() > seen);
            seen = fs::metadata(home.path("followed")).unwrap().len();
        }
        let (daemon, _) = home.pids();
        kill("KILL", daemon);
        home.ok(&["ping"]);
    }
    home.ok(&["stop", "stamped", "split"]);
    // The last output may still be on its way, and files may move meanwhile.
    let whole = |name: &str| -> String {
        let dir = home.path("logs/services");
        let old = (1..).map(|k| dir.join(format!("{name}.log.{k}"))).take_while(|p| p.exists());
        let mut all: Vec<_> = std::iter::once(dir.join(format!("{name}.log"))).chain(old).collect();
        all.reverse();
        all.iter().map(|p| fs::read_to_string(p).unwrap_or_default()).collect()
    };
    let check = |text: &str| -> Result<[u64; 2], String> {
        let mut next = [1u64, 1];
        for line in text.lines() {
            let (stream, number) = text_of(line).and_then(|text| text.split_once(' ')).ok_or(line)?;
            let next = &mut next[usize::from(stream == "err")];
            if number.parse() != Ok(*next) {
                return Err(format!("{next} was to come, and it is {line}"));
            }
            *next += 1;
        }
        Ok(next)
    };
    for name in ["stamped", "split"] {
        let mut found = Err(String::new());
        wait_or(&format!("{name} is whole"), || {
            found =
                check(&whole(name)).and_then(|n| if n[0].abs_diff(n[1]) <= 1 { Ok(n) } else { Err(format!("{n:?}")) });
            found.clone()
        });
        assert!(found.unwrap()[0] > 100, "it has written");
    }
    wait_or("what was followed is what is in the log", || {
        let (followed, log) = (home.read("followed"), whole("stamped"));
        let differs = followed.lines().zip(log.lines()).find(|(a, b)| a != b);
        let at = format!("{} bytes of {}, differs at {differs:?}", followed.len(), log.len());
        if followed == log { Ok(()) } else { Err(format!("{at}, it said: {}", home.read("follower"))) }
    });
    follower.kill().unwrap();
    follower.wait().unwrap();
}
