//! `hob run -- CMD`: what the command writes comes out of hob, each stream by itself, whatever happens to hob.

use crate::support::*;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

fn spawn(home: &Home, script: &str) -> Child {
    let mut run = home.command(&["run", "--", "sh", "-c", script]);
    run.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn daemons(home: &Home) -> Vec<u32> {
    processes(&format!("@daemon home={}", home.dir.display()))
}

#[test]
fn each_stream_comes_out_by_itself_byte_for_byte() {
    let home = Home::new("{}");
    let bytes: Vec<u8> = (0..300_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    fs::write(home.path("bytes"), &bytes).unwrap();
    let file = home.path("bytes");
    let script = format!("printf begin; printf wrong >&2; cat {0}; cat {0} >&2; printf end", file.display());
    let out = spawn(&home, &script).wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(0));
    assert!(out.stdout == [b"begin", bytes.as_slice(), b"end"].concat(), "{} bytes", out.stdout.len());
    assert!(out.stderr == [b"wrong", bytes.as_slice()].concat(), "{}", String::from_utf8_lossy(&out.stderr));
}

#[test]
fn where_both_lead_to_one_place_their_order_is_kept() {
    let home = Home::new("{}");
    let both = fs::File::create(home.path("both")).unwrap();
    let script = "i=0; while [ $i -lt 300 ]; do echo $i; echo $i >&2; i=$((i+1)); done";
    let mut run = home.command(&["run", "--", "sh", "-c", script]);
    run.stdout(both.try_clone().unwrap()).stderr(both);
    assert!(run.status().unwrap().success());
    let want: String = (0..300).map(|i| format!("{i}\n{i}\n")).collect();
    assert_eq!(home.read("both"), want);
}

#[test]
fn when_nobody_reads_any_more_the_command_has_a_broken_pipe() {
    let home = Home::new("{}");
    let mut run = home.command(&["run", "--", "yes"]);
    let mut run = run.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(run.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert_eq!(line, "y\n");
    drop(out);
    wait("hob ends", || run.try_wait().unwrap().is_some());
    let ended = run.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(128 + 13), "as shells tell of SIGPIPE");
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(said.matches("nobody reads hob's standard output any more").count(), 1, "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    wait("nothing is left", || processes(&home.dir.display().to_string()).is_empty());
}

#[test]
fn a_command_that_minds_no_signal_hears_of_it_and_may_say_so() {
    let home = Home::new("{}");
    let mut run = spawn(&home, "trap '' PIPE; while echo x 2>/dev/null; do :; done; echo over >&2; exit 3");
    let mut out = run.stdout.take().unwrap();
    out.read_exact(&mut [0]).unwrap();
    // A daemon that comes after this one knows of it as well.
    daemons(&home).iter().for_each(|pid| kill("KILL", *pid));
    drop(out);
    wait("hob ends", || run.try_wait().unwrap().is_some());
    let ended = run.wait_with_output().unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert!(ended.status.code() == Some(3) && said.contains("over\n"), "{said}");
}

#[test]
fn killed_daemons_double_and_lose_no_byte_of_either_stream() {
    let home = Home::new("{}");
    let go = home.path("go");
    let script = format!(
        "i=0; until test -e {}; do seq $i $((i+999)); seq $i $((i+999)) >&2; i=$((i+1000)); done",
        go.display()
    );
    let mut run = spawn(&home, &script);
    let (mut out, err) = (BufReader::new(run.stdout.take().unwrap()), run.stderr.take().unwrap());
    let err = std::thread::spawn(move || BufReader::new(err).lines().map_while(Result::ok).collect::<Vec<_>>());
    let mut next = 0u64;
    let mut line = String::new();
    let mut check = |out: &mut BufReader<_>, lines: u64| {
        for _ in 0..lines {
            line.clear();
            if BufRead::read_line(out, &mut line).unwrap() == 0 {
                return next;
            }
            assert_eq!(line.trim(), next.to_string(), "lost or doubled");
            next += 1;
        }
        next
    };
    for round in 0..25 {
        check(&mut out, 3000 + round * 137);
        let before = daemons(&home);
        before.iter().for_each(|pid| kill("KILL", *pid));
        // One that is killed before it serves counts as a crash, and three of these end in safe mode.
        wait("another daemon comes", || daemons(&home).iter().any(|pid| !before.contains(pid)));
        home.call("ping", "{}");
    }
    fs::write(&go, "").unwrap();
    let all = check(&mut out, u64::MAX);
    let heard = err.join().unwrap();
    let numbers: Vec<u64> = heard.iter().filter_map(|l| l.parse().ok()).collect();
    assert!(numbers.iter().copied().eq(0..all), "{} of {all} on standard error", numbers.len());
    assert_eq!(run.wait().unwrap().code(), Some(0));
}

#[test]
fn the_last_output_waits_for_a_reader_who_takes_a_rest() {
    let home = Home::new("{}");
    let mut run = spawn(&home, "seq 1 100000");
    let begin = Instant::now();
    // Longer than hob waits for anything else at its end.
    wait("a rest", || begin.elapsed() > Duration::from_secs(4));
    let mut text = String::new();
    run.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!((text.lines().count(), text.lines().last()), (100_000, Some("100000")));
    assert_eq!(run.wait().unwrap().code(), Some(0));
    // Whoever asks hob to stop does not want to wait for that.
    let mut run = spawn(&home, "seq 1 100000; exit 4");
    wait("the log is complete", || home.log("sh").ends_with("\n100000\n"));
    kill("TERM", run.id());
    wait("hob ends", || run.try_wait().unwrap().is_some());
}
