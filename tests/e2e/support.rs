//! What the scenarios share: a home of their own, the real binary, and waiting for a condition instead of sleeping.

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Generous: only a hang reaches it.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// The binary under test.
pub(crate) const HOB: &str = env!("CARGO_BIN_EXE_hob");

/// Copies the binary under test. A process of its own writes the copy: a child that some other test forks at that
/// moment would inherit the descriptor from this one, and what is open for writing cannot be executed.
pub(crate) fn copy_hob(to: &Path) {
    assert!(Command::new("cp").arg(HOB).arg(to).status().unwrap().success());
}

/// One hob in a temporary home. Dropping it stops the hob, by force if need be, and removes the home.
pub(crate) struct Home {
    pub(crate) dir: PathBuf,
    run: Option<Child>,
    env: Vec<(String, String)>,
}

impl Home {
    /// A home with this config; nothing runs yet.
    pub(crate) fn new(config: &str) -> Home {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("hob-e2e-{}-{n}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("hob.json"), config).unwrap();
        Home { dir, run: None, env: Vec::new() }
    }

    /// The same with a variable in the environment of its hob.
    pub(crate) fn with_env(config: &str, name: &str, value: &str) -> Home {
        let mut home = Home::new(config);
        home.env.push((name.to_owned(), value.to_owned()));
        home
    }

    /// A home whose hob runs in the foreground as a child of the test and answers.
    pub(crate) fn running(config: &str) -> Home {
        let mut home = Home::new(config);
        home.start(&[]);
        home
    }

    pub(crate) fn start(&mut self, extra: &[&str]) {
        let mut c = self.command(&["run"]);
        c.args(extra);
        self.start_as(c);
    }

    /// The same from another file.
    pub(crate) fn start_program(&mut self, program: &Path) {
        let hob = self.command(&["run"]);
        let mut c = Command::new(program);
        c.args(hob.get_args());
        for (name, value) in hob.get_envs() {
            match value {
                Some(value) => c.env(name, value),
                None => c.env_remove(name),
            };
        }
        self.start_as(c);
    }

    /// The same by a program that executes the rest of its arguments.
    pub(crate) fn start_by(&mut self, by: &[&str]) {
        let hob = self.command(&["run"]);
        let mut c = Command::new(by[0]);
        c.args(&by[1..]).arg(hob.get_program()).args(hob.get_args());
        for (name, value) in hob.get_envs() {
            match value {
                Some(value) => c.env(name, value),
                None => c.env_remove(name),
            };
        }
        self.start_as(c);
    }

    fn start_as(&mut self, mut c: Command) {
        let errors = fs::File::create(self.dir.join("stderr")).unwrap();
        c.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors);
        self.run = Some(c.spawn().unwrap());
        wait("hob answers", || {
            let ok = self.hob(&["ping"]).status.success();
            if !ok && let Some(status) = self.run.as_mut().and_then(|r| r.try_wait().unwrap()) {
                panic!("hob ended with {status}: {}", fs::read_to_string(self.dir.join("stderr")).unwrap_or_default());
            }
            ok
        });
    }

    /// A command line of this home.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut c = self.bare_command(&[]);
        c.arg("--home").arg(&self.dir).args(args);
        c
    }

    /// A command line of no home, without the environment's own HOB_ variables.
    pub(crate) fn bare_command(&self, args: &[&str]) -> Command {
        let mut c = Command::new(HOB);
        for (name, _) in std::env::vars_os().filter(|(n, _)| n.to_string_lossy().starts_with("HOB_")) {
            if name != "HOB_CGROUP" {
                c.env_remove(name);
            }
        }
        c.envs(self.env.iter().map(|(name, value)| (name, value)));
        c.args(args);
        c
    }

    pub(crate) fn hob(&self, args: &[&str]) -> Output {
        self.command(args).stdin(Stdio::null()).output().unwrap()
    }

    /// Runs a command that must succeed; its standard output.
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let out = self.hob(args);
        assert!(out.status.success(), "hob {args:?}: {}\n{}", out.status, String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }

    /// Runs a command that must fail; its exit code and standard error.
    pub(crate) fn fails(&self, args: &[&str]) -> (i32, String) {
        let out = self.hob(args);
        assert!(!out.status.success(), "hob {args:?} was to fail and printed {}", String::from_utf8_lossy(&out.stdout));
        (out.status.code().unwrap(), String::from_utf8(out.stderr).unwrap())
    }

    /// A call of the protocol.
    pub(crate) fn call(&self, method: &str, params: &str) -> Value {
        serde_json::from_str(&self.ok(&["call", method, params, "--json"])).unwrap()
    }

    /// One service as `service.get` shows it.
    pub(crate) fn service(&self, name: &str) -> Value {
        let v = self.call("service.get", &format!("{{\"name\": \"{name}\"}}"));
        v.get("service").cloned().unwrap_or(v)
    }

    pub(crate) fn state(&self, name: &str) -> String {
        self.service(name)["state"].as_str().unwrap().to_owned()
    }

    pub(crate) fn wait_state(&self, name: &str, state: &str) {
        wait(&format!("{name} is {state}"), || self.state(name) == state);
    }

    pub(crate) fn pid(&self, name: &str) -> u32 {
        u32::try_from(self.service(name)["pid"].as_u64().unwrap_or(0)).unwrap()
    }

    /// Pids of daemon and keeper.
    pub(crate) fn pids(&self) -> (u32, u32) {
        let h = self.call("daemon.health", "{}");
        let pid = |k: &str| u32::try_from(h[k].as_u64().unwrap()).unwrap();
        (pid("pid"), pid("keeper_pid"))
    }

    pub(crate) fn log(&self, name: &str) -> String {
        fs::read_to_string(self.dir.join(format!("logs/services/{name}.log"))).unwrap_or_default()
    }

    pub(crate) fn read(&self, file: &str) -> String {
        fs::read_to_string(self.dir.join(file)).unwrap_or_default()
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.dir.join(file)
    }

    pub(crate) fn write_config(&self, config: &str) {
        fs::write(self.dir.join("hob.json"), config).unwrap();
    }

    /// Waits for the foreground hob to end.
    pub(crate) fn wait_end(&mut self) -> ExitStatus {
        let mut run = self.run.take().expect("hob runs");
        let mut status = None;
        wait("hob ends", || {
            status = run.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// The foreground hob's pid, which is the keeper's.
    pub(crate) fn keeper(&self) -> u32 {
        self.run.as_ref().expect("hob runs").id()
    }

    /// Forgets the child, after the test killed it on purpose.
    pub(crate) fn reap(&mut self) {
        if let Some(mut run) = self.run.take() {
            let _ = run.wait();
        }
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- {}/logs/hob.log\n{}", self.dir.display(), tail(&self.read("logs/hob.log"), 60));
            eprintln!("--- stderr\n{}", tail(&self.read("stderr"), 20));
        }
        let _ = self.hob(&["stop", "--force"]);
        if let Some(mut run) = self.run.take() {
            let _ = run.kill();
            let _ = run.wait();
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// Waits until a condition holds.
#[track_caller]
pub(crate) fn wait(what: &str, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < LIMIT, "waited {LIMIT:?} until {what}");
        pause();
    }
}

/// Waits until something succeeds; its last error is shown otherwise.
#[track_caller]
pub(crate) fn wait_or<T, E: std::fmt::Debug>(what: &str, mut attempt: impl FnMut() -> Result<T, E>) -> T {
    let begin = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(e) => assert!(begin.elapsed() < LIMIT, "waited {LIMIT:?} until {what}: {e:?}"),
        }
        pause();
    }
}

/// The one sleep of the scenarios: between two looks at a condition.
fn pause() {
    std::thread::sleep(Duration::from_millis(5));
}

/// Sends a signal by the kill program, so that no test needs unsafe code.
pub(crate) fn kill(signal: &str, pid: u32) {
    let ok = Command::new("kill").args([format!("-{signal}"), pid.to_string()]).stderr(Stdio::null()).status().unwrap();
    assert!(ok.success() || !alive(pid), "kill -{signal} {pid}");
}

/// Whether a process exists and is not a zombie.
pub(crate) fn alive(pid: u32) -> bool {
    match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => !matches!(stat.rsplit(')').next().and_then(|r| r.trim().chars().next()), Some('Z' | 'X') | None),
        Err(_) => false,
    }
}

/// Pids of living processes whose command line contains a text.
pub(crate) fn processes(text: &str) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(text) && alive(pid) && pid != std::process::id() {
            found.push(pid);
        }
    }
    found
}

/// Says loudly that a scenario was left out.
pub(crate) fn skip(why: &str) {
    eprintln!("SKIPPED: {why}");
}

pub(crate) fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
