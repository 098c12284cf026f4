//! What the parts share: a home for a hob, processes and what they hold, waiting, numbers.

use hob::sys::{clock, wait};
use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// The program that is measured: the one that was built for this, or the one that HOB_BENCH_PROGRAM names.
pub(crate) static HOB: LazyLock<String> =
    LazyLock::new(|| std::env::var("HOB_BENCH_PROGRAM").unwrap_or_else(|_| env!("CARGO_BIN_EXE_hob").to_owned()));
const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;
const SIGSTOP: i32 = 19;

/// This program, to be started as a service.
pub(crate) fn own() -> String {
    std::env::current_exe().unwrap().to_str().unwrap().to_owned()
}

/// A folder that goes when it is dropped.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new() -> Folder {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("hob-bench-{}-{n}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Folder(path)
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A program in the foreground, ended by SIGTERM when it is dropped, with whatever it leaves below it.
pub(crate) struct Running {
    pub(crate) child: Child,
    pub(crate) since: Instant,
}

impl Running {
    pub(crate) fn start(argv: &[String]) -> Running {
        let since = Instant::now();
        let mut command = Command::new(&argv[0]);
        command.args(&argv[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Running { child: command.spawn().unwrap(), since }
    }

    /// A process and all its descendants.
    pub(crate) fn tree_of(root: u32) -> Vec<u32> {
        descendants(root)
    }

    /// It and all its descendants but those that run one of these programs.
    pub(crate) fn tree(&self, without: &[&str]) -> Vec<u32> {
        let foreign = |p: &u32| {
            let exe = fs::read_link(format!("/proc/{p}/exe")).unwrap_or_default();
            without.iter().any(|w| exe == fs::canonicalize(w).unwrap_or_default())
        };
        descendants(self.child.id()).into_iter().filter(|p| !foreign(p)).collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let all = descendants(self.child.id());
        send(self.child.id(), SIGTERM);
        until("the end of a supervisor", || self.child.try_wait().unwrap());
        all.into_iter().for_each(kill);
    }
}

pub(crate) fn kill(pid: u32) {
    send(pid, SIGKILL);
}

fn send(pid: u32, signal: i32) {
    if let Ok(fd) = wait::pidfd_open(pid) {
        let _ = wait::pidfd_send_signal(fd.as_fd(), signal);
    }
}

fn descendants(root: u32) -> Vec<u32> {
    let mut found = vec![root];
    let mut at = 0;
    while let Some(pid) = found.get(at).copied() {
        for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let text = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            found.extend(text.split_whitespace().filter_map(|p| p.parse::<u32>().ok()));
        }
        at += 1;
    }
    found
}

/// A hob in a home of its own, in the foreground.
pub(crate) struct Hob {
    pub(crate) running: Running,
    pub(crate) dir: Folder,
}

impl Hob {
    /// With so many services that run this command, restarted at once whenever they end.
    pub(crate) fn with(count: usize, argv: &[String]) -> Hob {
        Hob::logging(count, argv, r#"{"max_size": "10GB"}"#)
    }

    /// The same, with these settings of their logs.
    pub(crate) fn logging(count: usize, argv: &[String], log: &str) -> Hob {
        let command = serde_json::to_string(argv).unwrap();
        let one = |i| {
            let restart = r#""restart": "always", "min_delay": "0s", "max_restarts": 1000000"#;
            format!(r#""s{i}": {{"command": {command}, {restart}, "log": {log}}}"#)
        };
        let services: Vec<String> = (0..count).map(one).collect();
        Hob::of(&format!(r#"{{"daemon": {{"heartbeat": "0s"}}, "services": {{{}}}}}"#, services.join(",")))
    }

    /// With this config.
    pub(crate) fn of(config: &str) -> Hob {
        let dir = Folder::new();
        fs::write(dir.0.join("hob.json"), config).unwrap();
        Hob { running: Hob::start(&dir), dir }
    }

    fn start(dir: &Folder) -> Running {
        Running::start(&[HOB.clone(), "--home".into(), dir.path(""), "run".into()])
    }

    /// Keeper and daemon die with SIGKILL, as one; then it is started again.
    pub(crate) fn crash(&mut self) {
        let tree = self.tree();
        // Stopped, because it would start another daemon.
        send(tree[0], SIGSTOP);
        tree.into_iter().rev().for_each(kill);
        until("the end of the keeper", || self.running.child.try_wait().unwrap());
        self.running = Hob::start(&self.dir);
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.0.join("run/hob.sock")
    }

    /// Waits until so many services run.
    pub(crate) fn wait_for(&self, count: usize) {
        until("services", || {
            let reply = ask(&self.socket(), r#"{"jsonrpc":"2.0","id":1,"method":"daemon.health"}"#)?;
            let reply: serde_json::Value = serde_json::from_slice(&reply).ok()?;
            (reply["result"]["services"]["running"].as_u64()? >= u64::try_from(count).unwrap()).then_some(())
        });
    }

    /// Keeper and daemon.
    pub(crate) fn tree(&self) -> Vec<u32> {
        let exe = fs::canonicalize(&*HOB).unwrap();
        let own = |p: &u32| fs::read_link(format!("/proc/{p}/exe")).is_ok_and(|e| e == exe);
        descendants(self.running.child.id()).into_iter().filter(own).collect()
    }
}

/// One request in the native framing, on a connection of its own. `None` while nobody answers.
pub(crate) fn ask(socket: &Path, json: &str) -> Option<Vec<u8>> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.write_all(&frame(json)).ok()?;
    let mut head = [0; 4];
    stream.read_exact(&mut head).ok()?;
    let mut body = vec![0; usize::try_from(u32::from_be_bytes(head)).ok()?];
    stream.read_exact(&mut body).ok()?;
    Some(body)
}

pub(crate) fn frame(json: &str) -> Vec<u8> {
    let mut out = u32::try_from(json.len()).unwrap().to_be_bytes().to_vec();
    out.extend_from_slice(json.as_bytes());
    out
}

/// Lets time pass where nothing can be waited for: a measured span of rest, or a service that only sleeps.
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Waits for a condition; only a hang reaches the limit.
pub(crate) fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < end, "waited in vain for {what}");
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// When the `n`th start noted in a file of stamps was, and its pid.
pub(crate) fn stamp(file: &str, n: usize) -> (Duration, u32) {
    until("a start", || {
        let text = fs::read_to_string(file).ok()?;
        let line = text.split_inclusive('\n').nth(n).filter(|l| l.ends_with('\n'))?;
        let (at, pid) = line.trim().split_once(' ')?;
        Some((Duration::from_nanos(at.parse().ok()?), pid.parse().ok()?))
    })
}

/// The clock of the stamps.
pub(crate) fn now() -> Duration {
    Duration::from_nanos(clock::now().mono.0)
}

/// Proportional set size of processes together, in KiB.
pub(crate) fn pss(pids: &[u32]) -> u64 {
    let of = |p: &u32| {
        let text = fs::read_to_string(format!("/proc/{p}/smaps_rollup")).unwrap_or_default();
        text.lines().find_map(|l| l.strip_prefix("Pss:")?.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0)
    };
    pids.iter().map(of).sum()
}

/// Context switches of all threads of these processes so far, and how many threads there are.
pub(crate) fn switches(pids: &[u32]) -> (u64, usize) {
    let (mut count, mut threads) = (0, 0);
    for task in pids.iter().flat_map(|p| fs::read_dir(format!("/proc/{p}/task"))).flatten().flatten() {
        let text = fs::read_to_string(task.path().join("status")).unwrap_or_default();
        let number = |l: &str| l.split_whitespace().nth(1)?.parse::<u64>().ok();
        count += text.lines().filter(|l| l.contains("ctxt_switches")).filter_map(number).sum::<u64>();
        threads += 1;
    }
    (count, threads)
}

/// CPU time of a process in clock ticks of 10 ms.
pub(crate) fn ticks(pid: u32) -> u32 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let rest = text.rsplit(')').next().unwrap_or_default();
    rest.split_whitespace().skip(11).take(2).filter_map(|f| f.parse::<u32>().ok()).sum()
}

/// CPU time of these processes and of all whose ends they have seen, in clock ticks of 10 ms.
pub(crate) fn ticks_of_all(pids: &[u32]) -> u32 {
    let of = |pid: &u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let rest = text.rsplit(')').next().unwrap_or_default();
        rest.split_whitespace().skip(11).take(4).filter_map(|f| f.parse::<u32>().ok()).sum::<u32>()
    };
    pids.iter().map(of).sum()
}

/// Runs a command with its output thrown away; how long it took.
pub(crate) fn time(argv: &[String]) -> Duration {
    let begin = Instant::now();
    let mut command = Command::new(&argv[0]);
    command.args(&argv[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().unwrap();
    begin.elapsed()
}

/// Sorted times.
pub(crate) struct Times(Vec<Duration>);

impl Times {
    pub(crate) fn of(mut times: Vec<Duration>) -> Times {
        times.sort_unstable();
        Times(times)
    }

    pub(crate) fn p50(&self) -> f64 {
        self.0[self.0.len() / 2].as_secs_f64()
    }

    pub(crate) fn min(&self) -> f64 {
        self.0[0].as_secs_f64()
    }
}

/// A row with times in microseconds, and their ratio to a floor's.
pub(crate) fn row(name: &str, times: &Times, floor: &Times) {
    println!(
        "  {name:<28} p50 {:>9.1} us   min {:>9.1} us   {:>5.2} x and {:>5.2} x the floor",
        times.p50() * 1e6,
        times.min() * 1e6,
        times.p50() / floor.p50(),
        times.min() / floor.min(),
    );
}
