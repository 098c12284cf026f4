//! How long hob takes for what happens often: an answer, a command, a restart, a block of output.

use crate::floor;
use crate::lab::{Folder, HOB, Hob, Running, Times, frame, kill, now, own, pause, row, stamp, time, until};
use crate::peers::{self, Peer};
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const PING: &str = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
/// In a row, of nine.
const REQUESTS: usize = 3000;
const IN_FLIGHT: usize = 64;
/// dinit's question for its version.
const DINIT_VERSION: [u8; 1] = [0];

/// A connection that asks the smallest question there is.
struct Line {
    stream: UnixStream,
    request: Vec<u8>,
    /// How long an answer is where it does not say so itself.
    length: usize,
    buffer: Vec<u8>,
    /// Bytes in the buffer.
    have: usize,
}

impl Line {
    /// The first answer shows how long all of them are.
    fn to(socket: &Path, request: Vec<u8>) -> Line {
        let mut stream = until("a socket", || UnixStream::connect(socket).ok());
        stream.write_all(&request).unwrap();
        let mut buffer = vec![0; 64 * 1024];
        let length = stream.read(&mut buffer).unwrap();
        Line { stream, request, length, buffer, have: 0 }
    }

    /// The length of the answer that the buffer begins with, once it is whole. Frames of hob begin with theirs: an
    /// answer grows by a digit when hob has been up for ten seconds.
    fn whole(&self, bytes: &[u8]) -> Option<usize> {
        let length = match bytes.first_chunk::<4>() {
            Some([0, a, b, c]) if self.request.len() > 1 => {
                4 + (usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c))
            }
            _ => self.length,
        };
        (bytes.len() >= length).then_some(length)
    }

    /// Reads so many answers.
    fn take(&mut self, mut count: usize) {
        while count > 0 {
            self.have += self.stream.read(self.buffer.get_mut(self.have..).unwrap()).unwrap();
            let mut at = 0;
            while count > 0
                && let Some(length) = self.whole(&self.buffer[at..self.have])
            {
                at += length;
                count -= 1;
            }
            self.buffer.copy_within(at..self.have, 0);
            self.have -= at;
        }
    }

    fn one(&mut self) -> Duration {
        let begin = Instant::now();
        self.stream.write_all(&self.request).unwrap();
        self.take(1);
        begin.elapsed()
    }

    /// Requests a second.
    fn many(&mut self) -> f64 {
        let batch = self.request.repeat(IN_FLIGHT);
        let rounds = 10 * REQUESTS / IN_FLIGHT;
        let begin = Instant::now();
        for _ in 0..rounds {
            self.stream.write_all(&batch).unwrap();
            self.take(IN_FLIGHT);
        }
        f64::from(u32::try_from(rounds * IN_FLIGHT).unwrap()) / begin.elapsed().as_secs_f64()
    }
}

pub(crate) fn ping() {
    let sleep = ["/bin/sleep".to_owned(), "100000".to_owned()];
    let hob = Hob::with(1, &sleep);
    hob.wait_for(1);
    let dir = Folder::new();
    let echo = Running::start(&[own(), "@echo".into(), dir.path("echo")]);
    let mut lines = vec![
        ("hob", Line::to(&hob.socket(), frame(PING)), hob.tree().pop().unwrap()),
        ("echo", Line::to(&dir.0.join("echo"), frame(PING)), echo.child.id()),
    ];
    let dinit = peers::ALL.iter().find(|p| p.name == "dinit" && p.installed()).map(|p| p.with(1, &sleep));
    if let Some((running, dir)) = &dinit {
        lines.push(("dinit", Line::to(&dir.0.join("s"), DINIT_VERSION.to_vec()), running.child.id()));
    }
    let mut times = vec![Vec::new(); lines.len()];
    let mut rates = vec![Vec::new(); lines.len()];
    for _ in 0..9 {
        for (i, (_, line, _)) in lines.iter_mut().enumerate() {
            times[i].extend((0..REQUESTS).map(|_| line.one()));
            rates[i].push(line.many());
        }
    }
    let times: Vec<Times> = times.into_iter().map(Times::of).collect();
    for (i, (name, line, _)) in lines.iter().enumerate() {
        row(&format!("{name}, {} and {} bytes", line.request.len(), line.length), &times[i], &times[1]);
    }
    for (i, (name, ..)) in lines.iter().enumerate() {
        rates[i].sort_unstable_by(f64::total_cmp);
        println!("  {name:<28} {:>6.0} k/s with {IN_FLIGHT} in flight (median)", rates[i][rates[i].len() / 2] / 1e3);
    }
    for (name, line, pid) in &mut lines {
        for (event, count) in counted(&[*pid], false, &["raw_syscalls:sys_enter", "instructions:u"], || {
            (0..REQUESTS).for_each(|_| {
                line.one();
            });
        }) {
            println!("  {name:<28} {:>8.2} {event} each", count / f64::from(u32::try_from(REQUESTS).unwrap()));
        }
    }
}

/// What perf counts of these processes while something is done, with what they start if `all`; nothing where there is
/// no perf.
fn counted(pids: &[u32], all: bool, events: &[&str], act: impl FnOnce()) -> Vec<(String, f64)> {
    let Some(perf) = peers::find("perf") else { return Vec::new() };
    let list: Vec<String> = pids.iter().map(u32::to_string).collect();
    let mut command = Command::new(perf);
    command.arg("stat").args((!all).then_some("-i"));
    command.args(["-x,", "-e", &events.join(","), "-p", &list.join(",")]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    // It says nowhere when it has begun.
    pause(Duration::from_millis(700));
    act();
    pause(Duration::from_millis(300));
    let fd = hob::sys::wait::pidfd_open(child.id()).unwrap();
    hob::sys::wait::pidfd_send_signal(std::os::fd::AsFd::as_fd(&fd), 2).unwrap();
    let mut text = String::new();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    child.wait().unwrap();
    let count = |line: &str| {
        let mut fields = line.split(',');
        let number = fields.next()?.parse::<f64>().ok();
        let event = fields.nth(1)?.to_owned();
        if number.is_none() {
            println!("  {event}: cannot be counted on this machine");
        }
        Some((event, number?))
    };
    text.lines().filter_map(count).collect()
}

pub(crate) fn status() {
    const SERVICES: usize = 10;
    let sleep = ["/bin/sleep".to_owned(), "100000".to_owned()];
    let hob = Hob::with(SERVICES, &sleep);
    hob.wait_for(SERVICES);
    let running: Vec<_> = peers::ALL.iter().filter(|p| p.installed()).map(|p| (p, p.with(SERVICES, &sleep))).collect();
    let mut commands = vec![
        ("hob status".to_owned(), vec![HOB.clone(), "--home".into(), hob.dir.path(""), "status".into()]),
        ("/bin/true".to_owned(), vec!["/bin/true".to_owned()]),
    ];
    for (peer, (_, dir)) in &running {
        let status = (peer.status)(dir);
        until("a peer's answer", || {
            Command::new(&status[0]).args(&status[1..]).output().unwrap().status.success().then_some(())
        });
        commands.push((format!("{} status", peer.name), status));
    }
    let mut times: Vec<Vec<Duration>> = vec![Vec::new(); commands.len()];
    for round in 0..200 {
        for (i, (_, argv)) in commands.iter().enumerate() {
            // The Python ones take a tenth of a second each.
            if i < 2 || round < 15 {
                times[i].push(time(argv));
            }
        }
    }
    let times: Vec<Times> = times.into_iter().map(Times::of).collect();
    for ((name, _), t) in commands.iter().zip(&times) {
        row(name, t, &times[1]);
    }
}

/// From the SIGKILL of a service that has just started to the first act of the next.
pub(crate) fn restart() {
    const KILLS: usize = 60;
    const COUNTED: usize = 10;
    let dir = Folder::new();
    let argv = |name: &str| [own(), "@stamp".to_owned(), dir.path(name)];
    let hob = Hob::with(1, &argv("hob"));
    let quick: Vec<&Peer> = peers::ALL.iter().filter(|p| p.quick && p.installed()).collect();
    let running: Vec<_> = quick.iter().map(|p| p.with(1, &argv(p.name))).collect();
    let names: Vec<&str> = std::iter::once("hob").chain(quick.iter().map(|p| p.name)).collect();
    let mut times: Vec<Vec<Duration>> = vec![Vec::new(); names.len() + 1];
    let mut before = 0;
    for n in 0..KILLS {
        for (i, name) in names.iter().enumerate() {
            let (_, pid) = stamp(&dir.path(name), n);
            let begin = now();
            kill(pid);
            times[i].push(stamp(&dir.path(name), n + 1).0.saturating_sub(begin));
        }
        kill(before);
        let begin = now();
        before = floor::start(&argv("floor"));
        times[names.len()].push(stamp(&dir.path("floor"), n).0.saturating_sub(begin));
    }
    kill(before);
    let times: Vec<Times> = times.into_iter().map(Times::of).collect();
    for (name, t) in names.iter().copied().chain(["clone and exec alone"]).zip(&times) {
        row(name, t, &times[names.len()]);
    }
    let trees = std::iter::once(hob.tree()).chain(running.iter().map(|(running, _)| vec![running.child.id()]));
    for (name, tree) in names.iter().zip(trees) {
        let file = dir.path(name);
        for (all, what) in [(false, "by the supervisor"), (true, "with the new process")] {
            for (event, count) in counted(&tree, all, &["raw_syscalls:sys_enter"], || restarts(&file, COUNTED)) {
                let each = count / f64::from(u32::try_from(COUNTED).unwrap());
                println!("  {name:<28} {each:>6.1} {event} each restart, {what}");
            }
        }
    }
}

/// Kills whoever runs, so many times.
fn restarts(file: &str, count: usize) {
    let begun = std::fs::read_to_string(file).unwrap().lines().count();
    for n in begun..begun + count {
        kill(stamp(file, n - 1).1);
        stamp(file, n);
        pause(Duration::from_millis(50));
    }
}

/// Answers that promise to outlast a power cut, one after the other, beside a file that is synced after each record.
pub(crate) fn durable() {
    const ROUNDS: usize = 200;
    let hob = Hob::with(1, &["/bin/sleep".into(), "100000".into()]);
    hob.wait_for(1);
    let mut stream = UnixStream::connect(hob.socket()).unwrap();
    let mut file = OpenOptions::new().create(true).append(true).open(hob.dir.0.join("floor")).unwrap();
    let (mut mine, mut floor) = (Vec::new(), Vec::new());
    for n in 0..ROUNDS {
        let params = format!(r#"{{"names":["s0"],"request_key":"bench-{n}"}}"#);
        let request = frame(&format!(r#"{{"jsonrpc":"2.0","id":1,"method":"service.reset","params":{params}}}"#));
        let mut answer = [0; 4096];
        let begin = Instant::now();
        stream.write_all(&request).unwrap();
        let length = stream.read(&mut answer).unwrap();
        mine.push(begin.elapsed());
        assert!(answer[..length].windows(9).any(|w| w == b"\"result\":"), "a durable answer");
        let begin = Instant::now();
        file.write_all(&[b'x'; 400]).unwrap();
        file.sync_data().unwrap();
        floor.push(begin.elapsed());
    }
    let (mine, floor) = (Times::of(mine), Times::of(floor));
    row("hob", &mine, &floor);
    row("append and fdatasync", &floor, &floor);
}
