//! A keeper in a folder of its own, and what can be asked about it from outside.

use hob::sys::signals;
use hob::sys::wait;
use std::ffi::CString;
use std::fs;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// The patience of a keeper whose daemon is expected to beat.
pub(crate) const MOMENT: Duration = Duration::from_millis(200);
/// And of one whose daemon is slow to come up.
pub(crate) const RISE: Duration = Duration::from_secs(2);
const LIMIT: Duration = Duration::from_secs(60);
/// Every process of a lab has this in its environment, with the lab's folder.
const MARK: &str = "HOB_KEEPER_LAB";

static COUNT: AtomicU32 = AtomicU32::new(0);

pub(crate) struct Lab {
    dir: PathBuf,
    started: Child,
    keeper_pid: u32,
    ended: bool,
    pub(crate) notify: Option<UnixDatagram>,
}

/// Waits for a condition.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < end, "waited in vain for {what}");
        pause(Duration::from_millis(2));
    }
}

/// For what is itself about time: a window to observe, a moment to kill at, a child that takes a while.
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}

impl Lab {
    pub(crate) fn start(mode: &str) -> Lab {
        Lab::start_with(mode, &[], |_| None)
    }

    /// As PID 1 of a namespace of its own; `None` where the system does not let us.
    pub(crate) fn start_init(mode: &str) -> Option<Lab> {
        const WRAPPER: [&str; 5] = ["unshare", "--map-root-user", "--pid", "--fork", "--mount-proc"];
        let [program, args @ ..] = WRAPPER;
        let tried = Command::new(program).args(args).arg("true").stderr(Stdio::null()).status();
        if !tried.is_ok_and(|s| s.success()) {
            eprintln!("SKIPPED: no PID namespace can be made here");
            return None;
        }
        Some(Lab::start_with(mode, &WRAPPER, |_| None))
    }

    pub(crate) fn start_with(mode: &str, wrapper: &[&str], notify: impl FnOnce(&Path) -> Option<UnixDatagram>) -> Lab {
        let name = format!("hob-keeper-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(name);
        fs::create_dir_all(&dir).unwrap();
        let notify = notify(&dir);
        let exe = std::env::current_exe().unwrap();
        let mut command = match wrapper {
            [program, args @ ..] => {
                let mut command = Command::new(program);
                command.args(args).arg(exe);
                command
            }
            [] => Command::new(exe),
        };
        let started = command.arg("keeper").arg(&dir).arg(mode).env(MARK, &dir).stdin(Stdio::null()).spawn().unwrap();
        let mut lab = Lab { dir, keeper_pid: started.id(), started, ended: false, notify };
        if wrapper.contains(&"--fork") {
            until("the keeper below its wrapper", || {
                let below = pids().find(|pid| parent(*pid) == Some(lab.started.id()));
                below.inspect(|pid| lab.keeper_pid = *pid).is_some()
            });
        }
        lab
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// A file's text, empty if it does not exist.
    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    pub(crate) fn wait_for(&self, name: &str) {
        until(name, || self.path(name).exists());
    }

    pub(crate) fn keeper_pid(&self) -> u32 {
        self.keeper_pid
    }

    /// How many daemons were started.
    pub(crate) fn generations(&self) -> usize {
        self.read("keeper.log").lines().filter(|l| l.contains("started daemon")).count()
    }

    /// The pid of the n-th daemon, as soon as it is started.
    pub(crate) fn daemon(&self, generation: usize) -> u32 {
        let mut pid = None;
        until("a daemon", || {
            let log = self.read("keeper.log");
            let line = log.lines().find(|l| l.contains(&format!("started daemon {generation} with pid ")));
            // A line without its end is still being written.
            pid = line.filter(|_| log.ends_with('\n')).and_then(|l| l.rsplit(' ').next()?.parse().ok());
            pid.is_some()
        });
        pid.unwrap()
    }

    pub(crate) fn signal(&self, name: &str) {
        let pidfd = wait::pidfd_open(self.keeper_pid).unwrap();
        wait::pidfd_send_signal(pidfd.as_fd(), signals::platform().signal(name).unwrap()).unwrap();
    }

    pub(crate) fn exit_code(&mut self) -> i32 {
        let mut code = None;
        until("the end of the keeper", || {
            code = self.started.try_wait().unwrap().map(|s| s.code().expect("an exit code"));
            code.is_some()
        });
        self.ended = true;
        code.unwrap()
    }

    /// Descriptors that the keeper has open.
    pub(crate) fn keeper_fds(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.keeper_pid)).unwrap().count()
    }

    /// Ended children of the keeper that nobody has reaped.
    pub(crate) fn zombies(&self) -> usize {
        let mine = |pid: &u32| parent(*pid) == Some(self.keeper_pid) && state(*pid) == Some('Z');
        pids().filter(mine).count()
    }

    /// Processes of this lab, zombies aside.
    pub(crate) fn processes(&self) -> usize {
        let mark = [MARK.as_bytes(), b"=", self.dir.as_os_str().as_bytes()].concat();
        let marked = |pid: &u32| {
            let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environ.split(|b| *b == 0).any(|v| v == mark)
        };
        pids().filter(marked).count()
    }

    pub(crate) fn nothing_left(&self) {
        until("the end of all processes", || self.processes() == 0);
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("keeper.log:\n{}", self.read("keeper.log"));
        }
        if !self.ended {
            // The daemon sees its keeper die and ends its children.
            kill(self.keeper_pid);
            let _ = self.started.wait();
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

pub(crate) fn kill(pid: u32) {
    if let Ok(pidfd) = wait::pidfd_open(pid) {
        let _ = wait::pidfd_send_signal(pidfd.as_fd(), signals::SIGKILL);
    }
}

/// Stops a process as a debugger or a freezer does, and waits until it is.
pub(crate) fn stop(pid: u32) {
    send(pid, "STOP");
    until("a stopped process", || state(pid) == Some('T'));
}

pub(crate) fn resume(pid: u32) {
    send(pid, "CONT");
}

fn send(pid: u32, name: &str) {
    let pidfd = wait::pidfd_open(pid).unwrap();
    wait::pidfd_send_signal(pidfd.as_fd(), signals::platform().signal(name).unwrap()).unwrap();
}

/// Times that a process has gone to sleep.
pub(crate) fn switches(pid: u32) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status.lines().find(|l| l.starts_with("voluntary_ctxt_switches")).unwrap().to_owned()
}

pub(crate) fn state(pid: u32) -> Option<char> {
    stat_field(pid, 0)?.chars().next()
}

fn parent(pid: u32) -> Option<u32> {
    stat_field(pid, 1)?.parse().ok()
}

/// A field of stat, counted from the one after the name.
fn stat_field(pid: u32, index: usize) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(')').next()?.split_ascii_whitespace().nth(index).map(str::to_owned)
}

fn pids() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc").unwrap().filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok())
}

/// The part of the keeper.
pub(crate) fn keeper(dir: &str, mode: &str) -> u8 {
    let dir = PathBuf::from(dir);
    let program = std::env::current_exe().unwrap();
    let c = |s: &[u8]| CString::new(s).unwrap();
    let mut log = fs::OpenOptions::new().create(true).append(true).open(dir.join("keeper.log")).unwrap();
    let env = std::env::vars_os().map(|(name, value)| {
        let mut text = name.into_vec();
        text.push(b'=');
        text.extend(value.into_vec());
        c(&text)
    });
    let notify = dir.join("notify");
    let patience = hob::keeper::Patience::default();
    hob::keeper::run(hob::keeper::Options {
        program: fs::File::open(&program).unwrap().into(),
        args: [program.as_os_str().as_bytes(), b"daemon", dir.as_os_str().as_bytes(), mode.as_bytes()].map(c).into(),
        env: env.collect(),
        listener: UnixListener::bind(dir.join("sock")).unwrap().into(),
        lock: fs::File::create(dir.join("lock")).unwrap().into(),
        pid_file: dir.join("hob.pid"),
        init: std::process::id() == 1,
        words: Vec::new(),
        patience: match mode {
            "watched" | "asked" => hob::keeper::Patience { slack: MOMENT, answer: 3 * MOMENT, ..patience },
            "hung" | "slow" => hob::keeper::Patience { rise: RISE, ..patience },
            _ => patience,
        },
        manager: hob::keeper::Manager { socket: notify.exists().then(|| notify.into_os_string()), watchdog: None },
        parent: None,
        on_message: Box::new(move |line| log.write_all(format!("{}\n", line.text).as_bytes()).unwrap()),
    })
}
