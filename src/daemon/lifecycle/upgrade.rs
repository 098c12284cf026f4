//! An upgrade in the daemon: the new program is found and asked for its opinion, the keeper gets it, and the daemon
//! after that tells how it came out. Runs the new program in check mode, reads files, holds a note with the keeper.
//!
//! The note lies with the keeper while no daemon has told the caller how it came out, so that a death in between loses
//! neither the reply nor who asked for it.

use super::check::{self, Report};
use super::outside;
use crate::base::control::{MANIFEST_VERSION, VERSION, Verdict};
use crate::base::ids::ReqId;
use crate::base::paths::Paths;
use crate::core::Input;
use crate::core::upgrade::Ticket;
use crate::daemon::gear::Job;
use crate::daemon::pool::Lane;
use crate::daemon::{BUILD, Daemon, Ending};
use crate::protocol::rpc::{Code, RpcError};
use crate::sys::table::RunTable;
use crate::sys::{self, file, memory};
use core::time::Duration;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

/// The keeper holds the note under this label.
pub(in crate::daemon) const LABEL: &str = "upgrade";
/// The first word of the command line in check mode.
pub const CHECK_WORD: &str = "@check";

/// What the pool calls a look at a new program.
pub(in crate::daemon) const LOOKING: &str = "looking at a new program";

/// How long the new program may take to form an opinion, and how often it is looked whether it has.
const CHECK_LIMIT: Duration = Duration::from_secs(15);
const LOOK: Duration = Duration::from_millis(2);
/// How long clients wait for the keeper to say how it came out; it is a matter of milliseconds.
pub(in crate::daemon) const WORD_LIMIT: Duration = Duration::from_secs(10);
/// Bytes of a report at most.
const REPORT_MAX: u64 = 64 * 1024;

/// A program, for people and for telling two apart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::daemon) struct Program {
    version: String,
    build: String,
    path: PathBuf,
    #[serde(default)]
    file: (u64, u64),
}

/// What the daemons of an upgrade leave each other.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::daemon) struct Note {
    uid: u32,
    key: Option<String>,
    hash: u64,
    from: Program,
    to: Program,
}

/// A program that may take over.
#[derive(Debug)]
pub(in crate::daemon) struct Fit {
    file: OwnedFd,
    note: Note,
}

/// What came of looking at it.
#[derive(Debug)]
pub(in crate::daemon) enum Found {
    Fit(Box<Fit>),
    /// It is what runs already.
    Same(PathBuf),
    Unfit(RpcError),
}

/// Everything that is needed to look at a program away from the loop.
struct Candidate {
    /// `None`: the file that this program was executed from, or what lies there now.
    path: Option<PathBuf>,
    own: OwnedFd,
    table: RunTable,
    labels: OwnedFd,
    paths: Paths,
    ticket: Option<Ticket>,
}

impl Daemon {
    /// Has the new program looked at; the answer is a job's result.
    pub(in crate::daemon) fn begin_upgrade(
        &mut self,
        req: Option<ReqId>,
        binary: Option<String>,
        ticket: Option<Ticket>,
    ) {
        let means = self.life.program.try_clone().and_then(|own| Ok((own, check::labels(self.gear.link.labels())?)));
        let (own, labels) = match means {
            Ok(means) => means,
            Err(e) => return self.no_upgrade(req, unfit(format!("cannot look at the new program: {e}"))),
        };
        let candidate = Candidate {
            path: binary.map(PathBuf::from),
            own,
            table: self.gear.table.clone(),
            labels,
            paths: (*self.paths).clone(),
            ticket,
        };
        self.life.outside.looking = Some(req);
        let look = move || Job::Upgrade { req, found: candidate.look() };
        self.gear.pool.run(Lane::Paths, LOOKING, self.gear.now.mono, outside::LOOK, look);
    }

    /// Looks whether another program lies where this one was started from, unless an earlier look has not come back.
    pub(in crate::daemon) fn look_for_another_program(&mut self) {
        if let Some(own) = self.life.own
            && !core::mem::replace(&mut self.life.seeking, true)
        {
            let look = move || Job::Program(other_than(own));
            self.gear.pool.run(Lane::Paths, "looking for another program", self.gear.now.mono, outside::READ, look);
        }
    }

    /// Each other program is told of once.
    pub(in crate::daemon) fn other_program(&mut self, other: Option<Other>) {
        self.life.seeking = false;
        let file = other.as_ref().map(|o| o.file);
        if self.life.told_of != file {
            self.life.told_of = file;
            self.inputs.push(Input::OtherProgram { path: other.map(|o| o.path.display().to_string()) });
        }
    }

    fn no_upgrade(&mut self, req: Option<ReqId>, e: RpcError) {
        self.inputs.push(Input::UpgradeEnded { req, result: Err(e) });
    }

    /// The new program was looked at: this daemon ends for it, or goes on.
    pub(in crate::daemon) fn upgrade_found(&mut self, req: Option<ReqId>, found: Found) {
        self.life.outside.looking = None;
        let fit = match found {
            Found::Fit(fit) => fit,
            Found::Unfit(e) => return self.no_upgrade(req, e),
            Found::Same(path) => {
                let why = format!("{} is what runs already", path.display());
                let result = serde_json::json!({ "upgraded": false, "message": why, "version": version() }).to_string();
                return self.inputs.push(Input::UpgradeEnded { req, result: Ok(result) });
            }
        };
        if !self.core.may_upgrade() {
            return self.no_upgrade(req, unfit("meanwhile hob is shutting down, or its journal is behind".to_owned()));
        }
        let text = serde_json::to_vec(&fit.note).map_err(io::Error::other);
        let held = text.and_then(|t| memory::sealed(c"hob-upgrade", &t)).and_then(|fd| {
            self.gear.link.flush_within(Duration::from_secs(1));
            self.gear.link.hold(LABEL, &[fd.as_fd()])
        });
        match held {
            Ok(()) => self.life.ending = Some(Ending::Upgrade(fit.file)),
            Err(e) => self.no_upgrade(req, unfit(format!("the keeper cannot hold a note of the upgrade: {e}"))),
        }
    }

    /// The keeper says how the upgrade came out.
    pub(in crate::daemon) fn upgrade_verdict(&mut self, verdict: Verdict) {
        if let Some(note) = self.life.note.take() {
            let (pid, generation) = (std::process::id(), self.life.generation);
            self.inputs.push(Input::Upgraded { ticket: note.ticket(), result: note.result(verdict, pid, generation) });
            self.gear.link.drop(LABEL);
        }
        if self.life.word_by.take().is_some() {
            // The reply is kept before anybody can ask for it again.
            self.rounds();
            self.accept();
        }
    }

    /// Without a word of the keeper: a daemon died after the upgrade and before it had told.
    pub(in crate::daemon) fn upgrade_untold(&mut self) {
        let own = identity(&self.life.program).ok();
        match &self.life.note {
            Some(note) if own == Some(note.to.file) => self.upgrade_verdict(Verdict::Renewed),
            Some(_) => {
                self.life.note = None;
                self.gear.link.drop(LABEL);
            }
            None => {}
        }
    }
}

impl Note {
    /// The note of a daemon before, if what is held is one.
    pub(in crate::daemon) fn read(fds: &[OwnedFd]) -> Option<Note> {
        serde_json::from_str(&String::from_utf8(memory::content(fds.first()?).ok()?).ok()?).ok()
    }

    fn ticket(&self) -> Option<Ticket> {
        Some(Ticket { uid: self.uid, key: self.key.clone()?, hash: self.hash })
    }

    fn result(&self, verdict: Verdict, pid: u32, generation: u32) -> Result<String, RpcError> {
        let keeper = match verdict {
            Verdict::Renewed => true,
            Verdict::KeeperStays(_) => false,
            Verdict::NotExecuted(_) | Verdict::Ended(_) | Verdict::Killed(_) | Verdict::Slow => {
                let text =
                    format!("the upgrade to {} failed and the program before goes on: {verdict}", self.to.name());
                return Err(RpcError::new(Code::Unavailable, text).hint("`hob logs` tells more"));
            }
        };
        let told = serde_json::json!({
            "upgraded": true, "keeper_renewed": keeper, "message": verdict.to_string(), "from": self.from,
            "to": self.to, "version": self.to.version, "pid": pid, "generation": generation,
        });
        Ok(told.to_string())
    }
}

impl Program {
    fn name(&self) -> String {
        format!("{} (version {})", self.path.display(), self.version)
    }
}

fn version() -> String {
    env!("CARGO_PKG_VERSION").to_owned()
}

fn unfit(what: String) -> RpcError {
    RpcError::new(Code::Unavailable, what)
}

/// A program where the one that runs was started from: its path, and device and number of the file.
#[derive(Debug)]
pub(in crate::daemon) struct Other {
    path: PathBuf,
    file: (u64, u64),
}

/// What lies there now, unless it is the same file.
fn other_than(own: (u64, u64)) -> Option<Other> {
    let path = real_path(sys::identity::own_path().ok()?);
    let meta = std::fs::metadata(&path).ok().filter(std::fs::Metadata::is_file)?;
    let file = (meta.dev(), meta.ino());
    (file != own).then_some(Other { path, file })
}

pub(super) fn identity(fd: &OwnedFd) -> io::Result<(u64, u64)> {
    let id = file::identity(&File::from(fd.try_clone()?))?;
    Ok((id.dev, id.ino))
}

impl Candidate {
    fn look(self) -> Found {
        self.try_look().unwrap_or_else(Found::Unfit)
    }

    fn try_look(&self) -> Result<Found, RpcError> {
        let own_path = sys::identity::own_path().map(real_path);
        let path = match self.path.clone() {
            Some(path) => path,
            None => own_path.as_ref().cloned().map_err(|e| {
                let what = format!("cannot tell where hob's program is: {e}");
                unfit(what).hint("name it: hob upgrade --binary PATH")
            })?,
        };
        outside::alone(&path, || self.look_at(&path, own_path.ok())).map_err(unfit)?
    }

    fn look_at(&self, path: &Path, own_path: Option<PathBuf>) -> Result<Found, RpcError> {
        let cannot = |e: io::Error| RpcError::new(Code::FileSystem, format!("cannot open {}: {e}", path.display()));
        let file: OwnedFd = file::open_regular(path).map_err(cannot)?.into();
        let (own, id) = (identity(&self.own).map_err(cannot)?, identity(&file).map_err(cannot)?);
        if own == id {
            return Ok(Found::Same(path.to_owned()));
        }
        let report = self.ask(path)?;
        // What was asked is what will be executed.
        if file::open_regular(path).and_then(|f| identity(&f.into())).ok() != Some(id) {
            return Err(unfit(format!("{} was replaced while it was looked at", path.display())));
        }
        judge(&report).map_err(|why| {
            unfit(format!("{} is not fit to take over: {why}", path.display())).hint("the program that runs goes on")
        })?;
        let from =
            Program { version: version(), build: BUILD.to_owned(), path: own_path.unwrap_or_default(), file: own };
        let to = Program { version: report.version, build: report.build, path: path.to_owned(), file: id };
        let ticket = self.ticket.clone();
        let (uid, hash) = ticket.as_ref().map_or((0, 0), |t| (t.uid, t.hash));
        Ok(Found::Fit(Box::new(Fit { file, note: Note { uid, key: ticket.map(|t| t.key), hash, from, to } })))
    }

    /// Runs the new program in check mode.
    fn ask(&self, path: &Path) -> Result<Report, RpcError> {
        let failed = |what: String| unfit(format!("{} {what}", path.display())).hint("the program that runs goes on");
        let labels = self.labels.try_clone().map_err(|e| failed(format!("cannot be asked: {e}")))?;
        let mut words: Vec<OsString> = vec![CHECK_WORD.into()];
        words.extend(self.paths.to_words());
        let table = format!("/proc/{}/fd/{}", std::process::id(), self.table.fd().as_raw_fd());
        if Path::new(&table).exists() {
            words.push(format!("table={table}").into());
        }
        let mut child = Command::new(path)
            .args(words)
            .stdin(labels)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| failed(format!("cannot be executed: {e}")))?;
        let begin = sys::clock::now().mono;
        let status: ExitStatus = loop {
            match child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if sys::clock::now().mono.since(begin) < CHECK_LIMIT => std::thread::sleep(LOOK),
                other => {
                    let _ = child.kill();
                    let _ = child.wait();
                    let why = other.err().map_or("it takes too long".to_owned(), |e| e.to_string());
                    return Err(failed(format!("has formed no opinion: {why}")));
                }
            }
        };
        let mut text = String::new();
        if let Some(out) = child.stdout.take() {
            // What is missing of it is missed when it is read.
            let _ = out.take(REPORT_MAX).read_to_string(&mut text);
        }
        if !status.success() {
            return Err(failed(format!("failed when it was asked ({status})")));
        }
        serde_json::from_str(&text).map_err(|_| failed("does not answer like a hob".to_owned()))
    }
}

/// Why a program cannot take over from this one.
fn judge(report: &Report) -> Result<(), String> {
    if (report.control, report.manifest) != (VERSION, MANIFEST_VERSION) {
        return Err("it speaks another language with its keeper; stop hob and start it anew".to_owned());
    }
    if report.problems.is_empty() { Ok(()) } else { Err(report.problems.join("; ")) }
}

/// A replaced file is called so by the kernel; what lies at its place now is meant.
fn real_path(path: PathBuf) -> PathBuf {
    match path.to_str().and_then(|p| p.strip_suffix(" (deleted)")) {
        Some(name) => name.into(),
        None => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note() -> Note {
        let program = |path: &str| Program { version: "1".into(), build: "b".into(), path: path.into(), file: (1, 2) };
        Note { uid: 7, key: Some("k".into()), hash: u64::MAX, from: program("/old"), to: program("/new") }
    }

    #[test]
    fn a_note_survives_with_the_keeper_and_tells_how_it_came_out() {
        let fd = memory::sealed(c"t", &serde_json::to_vec(&note()).unwrap()).unwrap();
        let read = Note::read(&[fd]).unwrap();
        assert_eq!(read.ticket(), Some(Ticket { uid: 7, key: "k".into(), hash: u64::MAX }));
        let told: serde_json::Value = serde_json::from_str(&read.result(Verdict::Renewed, 5, 2).unwrap()).unwrap();
        assert_eq!((&told["from"]["path"], &told["to"]["path"]), (&"/old".into(), &"/new".into()));
        assert_eq!((told["pid"].as_u64(), told["keeper_renewed"].as_bool()), (Some(5), Some(true)));
        let error = read.result(Verdict::Ended(3), 5, 2).unwrap_err();
        assert!(error.message.contains("/new") && error.message.contains("code 3"), "{}", error.message);
        assert!(Note::read(&[]).is_none());
    }

    #[test]
    fn only_a_report_without_problems_and_of_the_same_language_is_good() {
        let good = || Report {
            control: VERSION,
            manifest: MANIFEST_VERSION,
            version: "9".into(),
            build: String::new(),
            problems: Vec::new(),
        };
        assert_eq!(judge(&good()), Ok(()));
        assert!(judge(&Report { problems: vec!["a".into(), "b".into()], ..good() }).unwrap_err().contains("a; b"));
        assert!(judge(&Report { manifest: MANIFEST_VERSION + 1, ..good() }).is_err());
        assert_eq!(real_path("/usr/bin/hob (deleted)".into()), PathBuf::from("/usr/bin/hob"));
    }
}
