//! A daemon when one is needed: asks whether it runs, starts it, waits for its answer. Starts one program, reads one
//! log.

use super::{Client, ClientError};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// How to start a daemon.
#[derive(Clone, Debug)]
pub struct Start {
    /// Its control socket.
    pub socket: PathBuf,
    /// What starts it and returns, such as `hob --home DIR start`.
    pub argv: Vec<OsString>,
    /// Its own log, shown when it does not answer.
    pub log: PathBuf,
    /// How long it may take to answer; 3 s by default.
    pub limit: Duration,
}

/// How often to ask whether it answers.
const EVERY: Duration = Duration::from_millis(100);
/// How much of the end of the log is looked at, and lines shown.
const TAIL_BYTES: i64 = 4096;
const TAIL_LINES: usize = 10;

impl Start {
    /// `hob --home HOME start`, found on PATH, with the paths that belong to it.
    #[must_use]
    pub fn home(home: impl AsRef<Path>) -> Start {
        let home = home.as_ref();
        Start {
            socket: home.join("run/hob.sock"),
            argv: vec!["hob".into(), "--home".into(), home.into(), "start".into()],
            log: home.join("logs/hob.log"),
            limit: Duration::from_secs(3),
        }
    }
}

/// A client of the daemon, which is started if none answers. Several callers at once are no harm: one daemon results.
///
/// # Errors
/// `NotStarted` when it does not answer in time, with the log's path and last lines; `Rpc` or `Io` when there
/// is one that this user must not talk to.
pub fn ensure_running(start: &Start) -> Result<Client, ClientError> {
    let deadline = Instant::now() + start.limit;
    if let Some(client) = answering(start, deadline)? {
        return Ok(client);
    }
    let mut starter = Starter::run(start)?;
    loop {
        if let Some(client) = answering(start, deadline)? {
            return Ok(client);
        }
        if let Some(failure) = starter.failure() {
            // Somebody else may have been faster.
            return answering(start, deadline)?.ok_or_else(|| not_started(start, &failure));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(not_started(start, &format!("hob does not answer after {} ms", start.limit.as_millis())));
        }
        std::thread::sleep(EVERY.min(left));
    }
}

fn answering(start: &Start, deadline: Instant) -> Result<Option<Client>, ClientError> {
    let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    let mut client = match Client::connect_timeout(&start.socket, left) {
        Ok(client) => client,
        Err(ClientError::Io(e)) if e.kind() == std::io::ErrorKind::PermissionDenied => return Err(ClientError::Io(e)),
        Err(_) => return Ok(None),
    };
    client.set_timeout(Some(left));
    match client.call_once::<Value>("daemon.health", &json!({})) {
        // What is started now waits for the end of that one.
        Ok(health) if health["status"] == "stopping" => Ok(None),
        Ok(_) => {
            client.set_timeout(None);
            Ok(Some(client))
        }
        Err(e @ ClientError::Rpc(_)) => Err(e),
        Err(_) => Ok(None),
    }
}

/// The program that starts the daemon, and what it says about failures.
struct Starter {
    child: Option<Child>,
    says: Receiver<String>,
}

impl Starter {
    fn run(start: &Start) -> Result<Starter, ClientError> {
        let Some((program, args)) = start.argv.split_first() else {
            return Err(ClientError::NotStarted("no program is named that starts hob".to_owned()));
        };
        let mut child = Command::new(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| ClientError::NotStarted(format!("cannot run {}: {e}", program.display())))?;
        let (sender, says) = channel();
        if let Some(stderr) = child.stderr.take() {
            // What it leaves running may hold its standard error for ever, so nobody waits for the end of it here.
            std::thread::spawn(move || {
                let mut text = Vec::new();
                let _ = stderr.take(4096).read_to_end(&mut text);
                let _ = sender.send(String::from_utf8_lossy(&text).trim_end().to_owned());
            });
        }
        Ok(Starter { child: Some(child), says })
    }

    /// What went wrong, once it has ended in failure.
    fn failure(&mut self) -> Option<String> {
        let status = self.child.as_mut()?.try_wait().ok().flatten().filter(|s| !s.success())?;
        let said = self.says.recv_timeout(EVERY).unwrap_or_default();
        Some(if said.is_empty() { format!("starting hob failed ({status})") } else { said })
    }
}

impl Drop for Starter {
    fn drop(&mut self) {
        // Whoever started it has to take its exit status, now or later.
        if let Some(mut child) = self.child.take()
            && let Ok(None) = child.try_wait()
        {
            std::thread::spawn(move || child.wait());
        }
    }
}

fn not_started(start: &Start, what: &str) -> ClientError {
    let mut text = format!("{what}; its log is {}", start.log.display());
    for line in last_lines(&start.log) {
        text.push_str("\n  ");
        text.push_str(&line);
    }
    ClientError::NotStarted(text)
}

fn last_lines(log: &Path) -> Vec<String> {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = crate::sys::file::open_regular(log)?;
        let len = i64::try_from(file.metadata()?.len()).unwrap_or(i64::MAX);
        file.seek(SeekFrom::End(-len.min(TAIL_BYTES)))?;
        let mut text = Vec::new();
        file.take(TAIL_BYTES.unsigned_abs()).read_to_end(&mut text)?;
        Ok(text)
    };
    let text = String::from_utf8_lossy(&read().unwrap_or_default()).into_owned();
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let skip = lines.len().saturating_sub(TAIL_LINES);
    lines.into_iter().skip(skip).collect()
}
