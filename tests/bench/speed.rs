//! How long hob takes for what happens often: an answer, a command, a restart, a block of output.

use crate::floor;
use crate::lab::{Folder, HOB, Hob, Running, Times, frame, kill, now, own, pause, row, stamp, ticks, time, until};
use crate::peers::{self, Peer};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const PING: &str = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
/// In a row, of nine.
const REQUESTS: usize = 3000;
const IN_FLIGHT: usize = 64;

/// A connection that sends pings; `echo` answers with as many bytes as hob.
struct Line(UnixStream, usize);

impl Line {
    fn to(socket: &Path) -> Line {
        Line(until("a socket", || UnixStream::connect(socket).ok()), 0)
    }

    fn one(&mut self, request: &[u8], answer: &mut [u8]) -> Duration {
        let begin = Instant::now();
        self.0.write_all(request).unwrap();
        let n = if self.1 == 0 { self.0.read(answer).unwrap() } else { self.1 };
        if self.1 != 0 {
            self.0.read_exact(answer.get_mut(..n).unwrap()).unwrap();
        }
        self.1 = n;
        begin.elapsed()
    }

    fn many(&mut self, request: &[u8], answer: &mut [u8]) -> f64 {
        let batch = request.repeat(IN_FLIGHT);
        let rounds = 10 * REQUESTS / IN_FLIGHT;
        let begin = Instant::now();
        for _ in 0..rounds {
            self.0.write_all(&batch).unwrap();
            self.0.read_exact(answer.get_mut(..self.1 * IN_FLIGHT).unwrap()).unwrap();
        }
        f64::from(u32::try_from(rounds * IN_FLIGHT).unwrap()) / begin.elapsed().as_secs_f64()
    }
}

pub(crate) fn ping() {
    let hob = Hob::with(1, &["/bin/sleep".into(), "100000".into()]);
    hob.wait_for(1);
    let dir = Folder::new();
    let socket = dir.0.join("echo");
    let _echo = Running::start(&[own(), "@echo".into(), dir.path("echo")]);
    let (request, mut answer) = (frame(PING), vec![0; 64 * 1024]);
    let mut lines = [Line::to(&hob.socket()), Line::to(&socket)];
    let (mut times, mut rates) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    for _ in 0..9 {
        for (i, line) in lines.iter_mut().enumerate() {
            times[i].extend((0..REQUESTS).map(|_| line.one(&request, &mut answer)));
            rates[i].push(line.many(&request, &mut answer));
        }
    }
    let [mine, floor] = times.map(Times::of);
    row("hob", &mine, &floor);
    row("echo", &floor, &floor);
    let [mine, floor] = rates.map(|mut r| {
        r.sort_unstable_by(f64::total_cmp);
        r[r.len() / 2] / 1e3
    });
    println!("  {IN_FLIGHT} in flight: hob {mine:.0} k/s, echo {floor:.0} k/s (medians)");
    let daemon = hob.tree().pop().unwrap();
    let counts = counted(&[daemon], &["raw_syscalls:sys_enter", "instructions:u"], || {
        (0..REQUESTS).for_each(|_| {
            lines[0].one(&request, &mut answer);
        });
    });
    for (event, count) in counts {
        println!("  {event}: {:.2} each", count / f64::from(u32::try_from(REQUESTS).unwrap()));
    }
}

/// What perf counts of these processes, without what they start, while something is done; nothing where there is no
/// perf.
fn counted(pids: &[u32], events: &[&str], act: impl FnOnce()) -> Vec<(String, f64)> {
    let Some(perf) = peers::find("perf") else {
        println!("  perf is not installed: nothing is counted");
        return Vec::new();
    };
    let list: Vec<String> = pids.iter().map(u32::to_string).collect();
    let mut command = Command::new(perf);
    command.args(["stat", "-i", "-x,", "-e", &events.join(","), "-p", &list.join(",")]);
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
        ("hob status".to_owned(), vec![HOB.to_owned(), "--home".into(), hob.dir.path(""), "status".into()]),
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
    let dir = Folder::new();
    let argv = |name: &str| [own(), "@stamp".to_owned(), dir.path(name)];
    let hob = Hob::with(1, &argv("hob"));
    let quick: Vec<&Peer> = peers::ALL.iter().filter(|p| p.quick && p.installed()).collect();
    let _running: Vec<_> = quick.iter().map(|p| p.with(1, &argv(p.name))).collect();
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
    let file = dir.path("hob");
    for (event, count) in counted(&hob.tree(), &["raw_syscalls:sys_enter"], || {
        for n in KILLS..KILLS + 10 {
            kill(stamp(&file, n).1);
            stamp(&file, n + 1);
            pause(Duration::from_millis(50));
        }
    }) {
        println!("  {event}: {:.1} each restart, by keeper and daemon", count / 10.0);
    }
}

/// From the first write until all is in the file, and the CPU time of the reader.
pub(crate) fn capture() {
    const MB: u32 = 1500;
    let write = [own(), "@write".to_owned(), MB.to_string()];
    let size = u64::from(MB) * 1_000_000 / 65_500 * 65_500;
    let written = |file: &Path| until("output", || (fs::metadata(file).ok()?.len() >= size).then_some(()));
    let mut rows = [Vec::new(), Vec::new()];
    for _ in 0..3 {
        let begin = Instant::now();
        let hob = Hob::with(1, &write);
        written(&hob.dir.0.join("logs/services/s0.log"));
        rows[0].push((begin.elapsed(), hob.tree().into_iter().map(ticks).sum::<u32>()));
        drop(hob);
        let dir = Folder::new();
        let begin = Instant::now();
        let mut writer = Command::new(&write[0]).args(&write[1..]).stdout(Stdio::piped()).spawn().unwrap();
        let file = fs::File::create(dir.0.join("out")).unwrap();
        let mut cat = Command::new("/bin/cat").stdin(writer.stdout.take().unwrap()).stdout(file).spawn().unwrap();
        written(&dir.0.join("out"));
        rows[1].push((begin.elapsed(), ticks(cat.id())));
        kill(writer.id());
        writer.wait().unwrap();
        cat.wait().unwrap();
    }
    for (name, mut rows) in ["hob, from its start", "cat > file"].into_iter().zip(rows) {
        rows.sort_unstable();
        let (took, ticks) = rows[1];
        let cpu = f64::from(ticks) / 100.0 / (f64::from(MB) / 1000.0);
        println!("  {name:<28} {:>6.0} MB/s   {cpu:.2} CPU s/GB (median of 3)", f64::from(MB) / took.as_secs_f64());
    }
}
