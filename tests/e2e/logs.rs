//! Logs: captured whole, rotated at line ends, shown from any position.

use crate::support::*;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

#[test]
fn the_last_lines_are_shown() {
    let home = Home::running(r#"{ "services": { "n": { "command": "seq 1 1000; exec sleep 1000" } } }"#);
    wait("all is written", || home.log("n").ends_with("1000\n"));
    let last: Vec<String> = home.ok(&["logs", "n", "-n", "3"]).lines().map(str::to_owned).collect();
    assert_eq!(last, ["998", "999", "1000"]);
    assert_eq!(home.ok(&["logs", "n"]).lines().count(), 50);
}

#[test]
fn several_services_are_shown_with_their_names() {
    let home = Home::running(
        r#"{ "services": { "a": { "command": "echo one; exec sleep 1000" },
             "bb": { "command": "echo two; exec sleep 1000" } } }"#,
    );
    wait("both have spoken", || home.log("a") == "one\n" && home.log("bb") == "two\n");
    let text = home.ok(&["logs", "a", "bb"]);
    assert!(text.contains("a  | one\n") && text.contains("bb | two\n"), "{text}");
    assert!(!text.contains('\x1b'), "no colours without a terminal");
}

#[test]
fn rotation_loses_nothing_and_keeps_to_its_count() {
    let home = Home::running(
        r#"{ "services": { "n": { "command": "seq -f '%06g line of some length' 1 20000; exec sleep 1000",
             "log": { "max_size": "64KiB", "max_files": 20 } } } }"#,
    );
    wait("the last line is written", || home.log("n").ends_with("020000 line of some length\n"));
    let dir = home.path("logs/services");
    let mut files: Vec<(u32, String)> = fs::read_dir(&dir)
        .unwrap()
        .flatten()
        .filter_map(|e| {
            let name = e.file_name().into_string().ok()?;
            let n = if name == "n.log" { 0 } else { name.strip_prefix("n.log.")?.parse().ok()? };
            Some((n, fs::read_to_string(e.path()).unwrap()))
        })
        .collect();
    files.sort_by_key(|f| std::cmp::Reverse(f.0));
    assert!(files.len() > 5 && files.len() <= 20, "{} files", files.len());
    let mut next = 1;
    for (_, text) in &files {
        assert!(text.ends_with('\n') && text.len() <= 64 * 1024 + 100, "cut at line ends: {}", text.len());
        for line in text.lines() {
            assert_eq!(line, format!("{next:06} line of some length"));
            next += 1;
        }
    }
    assert_eq!(next, 20001);
}

#[test]
fn output_that_is_not_text_passes_byte_for_byte() {
    let home = Home::running(
        r#"{ "services": { "b": { "command": "head -c 300000 /dev/urandom | tee copy; exec sleep 1000",
             "cwd": "." } } }"#,
    );
    wait("all is there", || fs::metadata(home.path("logs/services/b.log")).is_ok_and(|m| m.len() == 300_000));
    assert!(fs::read(home.path("copy")).unwrap() == fs::read(home.path("logs/services/b.log")).unwrap());
}

#[test]
fn the_daemons_own_log_tells_what_happened() {
    let home = Home::running(r#"{ "services": { "s": { "command": "exit 4", "restart": "never" } } }"#);
    home.wait_state("s", "failed");
    let text = home.ok(&["logs"]);
    assert!(text.contains("exit") && text.contains('s'), "{text}");
}

#[test]
fn logs_are_read_from_their_files_where_nobody_answers() {
    let home = Home::new(
        r#"{ "services": { "a": { "command": "seq 1 100; exec sleep 1000" },
                           "w": { "instances": 2, "command": "echo I am %i; exec sleep 1000" } } }"#,
    );
    home.ok(&["start"]);
    wait("all is written", || {
        home.log("a").ends_with("100\n") && !home.log("w@1").is_empty() && !home.log("w@2").is_empty()
    });
    let instances = home.ok(&["logs", "w"]);
    assert_eq!(instances.lines().count(), 2, "{instances}");
    assert!(instances.contains("w@1 | I am 1\n") && instances.contains("w@2 | I am 2\n"), "{instances}");
    assert_eq!(home.ok(&["logs", "--all", "-n", "1"]).lines().count(), 3);
    let stamped = home.ok(&["logs", "a", "-n", "1", "-t"]);
    assert!(stamped.ends_with("  100\n") && stamped.starts_with("20") && stamped.contains(':'), "{stamped}");
    home.write_config(r#"{ "services": { "w": { "instances": 2, "command": "echo I am %i; exec sleep 1000" } } }"#);
    home.ok(&["reload"]);
    wait("it is gone", || !home.hob(&["service", "get", "a"]).status.success());
    for running in [true, false] {
        if !running {
            home.ok(&["stop"]);
        }
        let out = home.hob(&["logs", "a", "-n", "2"]);
        assert_eq!(String::from_utf8(out.stdout).unwrap(), "99\n100\n", "{running}");
        let told = String::from_utf8(out.stderr).unwrap();
        assert_eq!(told.contains("this is what the files hold"), !running, "{told}");
        assert_eq!(home.ok(&["logs", "a", "--grep", "^5", "-n", "1"]), "59\n");
        assert_eq!(home.ok(&["logs", "w"]).lines().count(), 2);
        assert!(home.fails(&["logs", "nosuch"]).1.contains(if running { "no service" } else { "not running" }));
    }
    assert!(!home.ok(&["logs"]).is_empty(), "its own log");
    assert!(home.fails(&["logs", "-f", "a"]).1.contains("hob is not running"));
}

#[test]
fn lines_of_one_stream_are_counted_behind_the_filter() {
    let home = Home::running(
        r#"{ "services": { "s": { "command": "echo bad >&2; seq 1 100; echo worse >&2; seq 1 100; exec sleep 1000",
                                  "log": { "streams": "split" } },
                           "m": { "command": "echo both; exec sleep 1000" } } }"#,
    );
    let all = || home.log("s").lines().count() == 202 && home.log("m") == "both\n";
    wait("all is written", all);
    assert_eq!(home.ok(&["logs", "s", "--stream", "err", "-n", "1"]), "worse\n");
    assert_eq!(home.ok(&["logs", "s", "--stream", "err", "-n", "5"]), "bad\nworse\n");
    let out = home.hob(&["logs", "m", "--stream", "err"]);
    assert_eq!(String::from_utf8(out.stdout).unwrap(), "both\n");
    assert!(String::from_utf8(out.stderr).unwrap().contains("its log.streams is \"merged\""));
}

#[test]
fn who_follows_all_sees_what_comes_later() {
    let service = |name: &str, ends: bool| {
        let rest = if ends { "" } else { "; while :; do echo beat; sleep 0.05; done" };
        format!(r#""{name}": {{ "command": "echo {name} is here{rest}", "restart": "never" }}"#)
    };
    let config = |all: &[String]| format!(r#"{{ "services": {{ {} }} }}"#, all.join(", "));
    let mut home = Home::new("{}");
    home.start(&[]);
    let mut follower = home
        .command(&["logs", "-f", "--all"])
        .stdout(fs::File::create(home.path("followed")).unwrap())
        .stderr(fs::File::create(home.path("follower")).unwrap())
        .spawn()
        .unwrap();
    let mut sees = |line: &str| {
        wait_or(&format!("{line:?} is shown"), || {
            assert!(follower.try_wait().unwrap().is_none(), "it ended: {}", home.read("follower"));
            let all = home.read("followed");
            if all.lines().any(|l| l.split_whitespace().eq(line.split_whitespace())) { Ok(()) } else { Err(all) }
        });
    };
    home.write_config(&config(&[service("first", true), service("second", false)]));
    home.ok(&["reload"]);
    sees("first | first is here");
    sees("second | beat");
    home.ok(&["service", "run", "third", "--", "sh", "-c", "echo third is here; exec sleep 1000"]);
    sees("third | third is here");
    // All that it has said, however much that was before anybody could ask for it.
    home.ok(&["service", "run", "many", "--", "sh", "-c", "seq 1 200; exec sleep 1000"]);
    sees("many | 1");
    sees("many | 200");
    // One that goes and comes back goes on where it was.
    home.write_config(&config(&[service("second", false)]));
    home.ok(&["reload"]);
    home.write_config(&config(&[service("first", true), service("second", false), service("last", true)]));
    home.ok(&["reload"]);
    sees("last | last is here");
    let (daemon, _) = home.pids();
    kill("KILL", daemon);
    home.ok(&["service", "run", "after", "--", "sh", "-c", "echo after is here; exec sleep 1000"]);
    sees("after | after is here");
    wait("the second run of the first is shown", || home.read("followed").matches("first is here").count() == 2);
    follower.kill().unwrap();
    follower.wait().unwrap();
    let beats = home.log("second").lines().count();
    assert!(home.read("followed").matches("| beat").count() <= beats, "nothing is shown twice");
}

#[test]
fn who_follows_goes_on_over_a_restart_and_ends_with_hob() {
    let home = Home::new(
        r#"{ "services": { "s": { "command": "trap 'echo bye; exit' TERM; echo up; while :; do sleep .1; done" } } }"#,
    );
    home.ok(&["start"]);
    let followers: Vec<_> = [&["logs", "-f", "s"][..], &["logs", "-f", "--all"], &["logs", "-f"], &["events", "-f"]]
        .into_iter()
        .map(|args| {
            let file = |what: &str| home.path(&format!("{}.{what}", args.join("")));
            let [out, err] = ["out", "err"].map(file);
            let (to, errors) = (fs::File::create(&out).unwrap(), fs::File::create(&err).unwrap());
            (args, home.command(args).stdout(to).stderr(errors).spawn().unwrap(), out, err)
        })
        .collect();
    let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
    let all_have = |n: usize, text: &[&str; 4]| {
        followers.iter().zip(text).all(|((_, _, out, _), text)| read(out).matches(text).count() >= n)
    };
    let begun = ["up", "up", "service.ready s", "service.ready"];
    wait("all follow", || all_have(1, &begun));
    home.ok(&["restart"]);
    wait("all follow over the restart", || all_have(2, &begun));
    home.ok(&["stop"]);
    for ((args, mut follower, out, err), last) in
        followers.into_iter().zip(["bye\n", "s | bye\n", "hob has ended\n", "service.stopped   s\n"])
    {
        assert_eq!(follower.wait().unwrap().code(), Some(3), "{args:?}");
        assert_eq!(read(&err), "hob: hob has stopped\n     'hob start' starts it again\n", "{args:?}");
        assert!(read(&out).ends_with(last), "{args:?}: {}", read(&out));
    }
    assert_eq!(home.log("s"), "up\nbye\nup\nbye\n");
    assert_eq!(read(&home.path("logs-fs.out")), home.log("s"), "every line is shown once");
}

#[test]
fn a_log_that_was_renamed_goes_on_under_its_name() {
    let home = Home::running(
        r#"{ "services": { "n": { "command": "i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done" } } }"#,
    );
    let log = home.path("logs/services/n.log");
    let numbers = |text: &str| text.lines().map(|l| l.parse::<u64>().unwrap()).collect::<Vec<_>>();
    let mut all = Vec::new();
    // Some name, and the one that hob gives too.
    for to in ["old", "n.log.1"] {
        wait("it writes", || home.log("n").lines().count() > 5);
        let mut follower = home.command(&["logs", "-f", "n", "-n", "1"]).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
        let mut next = || lines.next().expect("the follower lives").unwrap();
        let first = numbers(&next())[0];
        let to = home.path("logs/services").join(to);
        fs::rename(&log, &to).unwrap();
        wait("it goes on under its name", || home.log("n").lines().count() > 5);
        all.extend(numbers(&fs::read_to_string(&to).unwrap()));
        let begin = numbers(&home.log("n"))[0];
        assert_eq!(all.last().unwrap() + 1, begin, "no line is lost or doubled");
        assert_eq!(all, (1..begin).collect::<Vec<_>>());
        // What it missed under the old name it says on standard error.
        let mut heard = first;
        while heard < begin + 20 {
            let n = numbers(&next())[0];
            assert!(n == heard + 1 || (heard < n && n <= begin), "{n} came after {heard}, and {begin} is new");
            heard = n;
        }
        follower.kill().unwrap();
        follower.wait().unwrap();
        let shown = numbers(&home.ok(&["logs", "n", "-n", "5"]));
        assert!(shown[0] >= begin && shown.windows(2).all(|w| w[0] + 1 == w[1]) && shown.len() == 5, "{shown:?}");
    }
    let old = fs::read_to_string(home.path("logs/services/n.log.1")).unwrap().lines().count();
    let both = numbers(&home.ok(&["logs", "n", "-n", &(old + 5).to_string()]));
    assert!(both.len() == old + 5 && both.windows(2).all(|w| w[0] + 1 == w[1]), "the one before is read on: {both:?}");
}

#[test]
fn the_daemons_own_log_that_was_renamed_goes_on_under_its_name() {
    let home = Home::running(r#"{ "services": { "s": { "command": "exec sleep 1000" } } }"#);
    home.wait_state("s", "running");
    let old = home.path("logs/old");
    fs::rename(home.path("logs/hob.log"), &old).unwrap();
    let before = fs::read_to_string(&old).unwrap().len();
    wait("it goes on under its name", || {
        home.ok(&["restart", "s"]);
        home.read("logs/hob.log").contains('s')
    });
    let last = home.read("logs/hob.log").lines().last().unwrap().to_owned();
    assert!(home.ok(&["logs", "-n", "1"]).trim_end().ends_with(&last), "{last}");
    assert!(before > 0);
}
