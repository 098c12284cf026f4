//! What is to be started and why it could not be: plain values, the same on every system. `spawn` does it.

use super::rlimit;
use super::table::{RunTable, Slot};
use std::cell::Cell;
use std::ffi::{CStr, CString};
use std::fmt;
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::sync::atomic::Ordering::Acquire;

/// What is to be started, and how. All descriptors are the caller's and stay open until `spawn` returns.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Paths to try in this order (a name already searched for in PATH). EACCES and a missing file lead to the next
    /// one.
    pub programs: Vec<CString>,
    /// Execute this open file instead of `programs`.
    pub program_fd: Option<RawFd>,
    pub argv: Vec<CString>,
    pub envp: Vec<CString>,
    /// Variables that are set to the child's own pid.
    pub pid_variables: Vec<CString>,
    /// Descriptors of the child: (number here, number there). Everything else of this process is expected to be
    /// close-on-exec; numbers may overlap in any way.
    pub fds: Vec<(RawFd, RawFd)>,
    /// A new session, without controlling terminal.
    pub session: bool,
    pub cwd: Option<CString>,
    /// `None`: as here.
    pub umask: Option<u32>,
    /// -20 to 19; `None`: as here.
    pub nice: Option<i32>,
    /// Priority of input and output; `None`: as here.
    pub io_priority: Option<IoPriority>,
    /// Processors it may run on, by number; empty: as here.
    pub cpus: Vec<usize>,
    /// (RLIMIT_ number, soft, hard); `u64::MAX` is no limit.
    pub rlimits: Vec<(i32, u64, u64)>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    /// Supplementary groups, instead of those of this process.
    pub groups: Option<Vec<u32>>,
    /// Directory of the cgroup (v2) to start in.
    pub cgroup: Option<RawFd>,
    /// oom_score_adj of the child, -1000 to 1000; `None`: as here.
    pub oom_score_adj: Option<i32>,
}

/// The classes of ioprio_set(2), each with a level from 0 (most) to 7.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoPriority {
    Realtime(u8),
    BestEffort(u8),
    Idle,
}

/// `NAME=` with room for a number that only the child knows.
#[derive(Debug)]
pub(super) struct PidVariable {
    text: Box<[Cell<u8>]>,
    digits: usize,
}

impl PidVariable {
    const DIGITS: usize = 10;

    pub(super) fn new(name: &CStr) -> PidVariable {
        let name = name.to_bytes();
        let room = core::iter::repeat_n(0, PidVariable::DIGITS + 1);
        let text = name.iter().copied().chain([b'=']).chain(room).map(Cell::new).collect();
        PidVariable { text, digits: name.len() + 1 }
    }

    /// As an entry of an environment. It can be written as long as this exists.
    pub(super) fn as_ptr(&self) -> *const libc::c_char {
        self.text.as_ptr().cast()
    }

    /// Puts the number in. Allocates nothing.
    pub(super) fn set(&self, pid: u32) {
        let (mut rest, mut count) = (pid, 1);
        while rest >= 10 {
            rest /= 10;
            count += 1;
        }
        rest = pid;
        for cell in self.text.iter().skip(self.digits).take(count).rev() {
            cell.set(b'0' + u8::try_from(rest % 10).unwrap_or(0));
            rest /= 10;
        }
    }
}

/// A started child of this process.
#[derive(Debug)]
pub struct Child {
    pub pid: u32,
    /// Readable once it has ended. `None` only where descriptors ran out in the moment of the start, which clone3
    /// excludes; `wait::pidfd_open` may then be tried again.
    pub pidfd: Option<OwnedFd>,
}

/// Characters of a path that an error shows.
const SHOWN: usize = 120;

/// Why a start failed. No process is left of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpawnError {
    pub errno: i32,
    /// What could not be done, as in `cannot STEP`.
    pub step: &'static str,
    /// What it could not be done to, where there is such a thing: a path, or the name of a limit.
    pub path: Option<String>,
}

/// Steps of a start by the number that the child reports.
pub(super) const STEPS: [&str; 14] = [
    "create a process",
    "set the oom score",
    "join its control group",
    "start a session",
    "set the niceness",
    "pass a descriptor",
    "set the resource limit",
    "set the supplementary groups",
    "set the group",
    "set the user",
    "enter the folder",
    "execute",
    "set the priority of its input and output",
    "set its processors",
];

impl SpawnError {
    /// Whether the machine lacks something now, so that the same start may succeed later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self.errno {
            libc::EAGAIN | libc::ENOMEM | libc::EMFILE | libc::ENFILE | libc::ENOSPC => true,
            // A cgroup that is being removed, or that has just got children with controllers.
            libc::EBUSY | libc::ENODEV => self.step == STEPS[0] || self.step == STEPS[2],
            _ => false,
        }
    }

    /// What was needed before a process could be made at all.
    #[must_use]
    pub fn of(e: &io::Error) -> SpawnError {
        SpawnError::plain(e.raw_os_error().unwrap_or(libc::EIO))
    }

    pub(super) fn plain(errno: i32) -> SpawnError {
        SpawnError { errno, step: STEPS[0], path: None }
    }

    /// The error that a child reported with these numbers. `plan` names the path.
    pub(super) fn reported(errno: i32, step: u32, which: u32, plan: &Plan) -> SpawnError {
        let at = step as usize;
        let lossy = |c: &CString| c.to_string_lossy().into_owned();
        let path = match STEPS.get(at) {
            Some(&"enter the folder") => plan.cwd.as_ref().map(lossy),
            // A name that is in none of the folders of PATH is told as it was given.
            Some(&"execute") if errno == libc::ENOENT && plan.programs.len() > 1 => plan.argv.first().map(lossy),
            Some(&"execute") => plan.programs.get(which as usize).map(lossy),
            Some(&"set the resource limit") => limit_name(which).map(str::to_owned),
            _ => None,
        };
        SpawnError { errno, step: STEPS.get(at).copied().unwrap_or(STEPS[0]), path }
    }
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = io::Error::from_raw_os_error(self.errno).to_string();
        let reason = text.split_once(" (os error").map_or(text.as_str(), |(reason, _)| reason);
        match &self.path {
            Some(path) => write!(f, "cannot {} {}: {reason}", self.step, short(path)),
            None => write!(f, "cannot {}: {reason}", self.step),
        }
    }
}

/// A path without its middle where it is so long that it would hide what is said about it.
fn short(path: &str) -> String {
    let all: Vec<char> = path.chars().collect();
    match (all.get(..SHOWN / 2), all.len().checked_sub(SHOWN / 2).and_then(|at| all.get(at..))) {
        (Some(head), Some(tail)) if all.len() > SHOWN => head.iter().chain(['.'; 3].iter()).chain(tail).collect(),
        _ => path.to_owned(),
    }
}

impl std::error::Error for SpawnError {}

/// Resource limits as `rlimit` names them.
const LIMITS: [&str; 16] = [
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

fn limit_name(number: u32) -> Option<&'static str> {
    let number = i32::try_from(number).ok()?;
    LIMITS.into_iter().find(|name| rlimit::number(name) == Some(number))
}

/// The text of an exec failure found in the slot of a run whose starter died, for which no plan exists any more.
#[must_use]
pub fn error_in(table: &RunTable, slot: Slot) -> Option<SpawnError> {
    let words = table.start_words(slot);
    match words.errno.load(Acquire) {
        0 => None,
        errno => {
            Some(SpawnError::reported(errno, words.step.load(Acquire), words.which.load(Acquire), &Plan::default()))
        }
    }
}

/// The paths at which a program of this name may be: the name itself if it contains a slash, else one for each folder
/// of PATH.
#[must_use]
pub fn candidates(name: &CStr, path: &[u8]) -> Vec<CString> {
    let name_bytes = name.to_bytes();
    if name_bytes.contains(&b'/') || name_bytes.is_empty() {
        return vec![name.to_owned()];
    }
    let in_folder = |folder: &[u8]| {
        let folder = if folder.is_empty() { b"." } else { folder };
        CString::new([folder, b"/", name_bytes].concat()).ok()
    };
    path.split(|b| *b == b':').filter_map(in_folder).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_never_hides_the_reason() {
        let of = |path: String| SpawnError { errno: libc::ENAMETOOLONG, step: "execute", path: Some(path) }.to_string();
        assert_eq!(of("/srv/\u{e9}".to_owned()), "cannot execute /srv/\u{e9}: File name too long");
        let long = of(format!("/{}/end", "\u{e9}".repeat(5000)));
        assert!(
            long.chars().count() < 200 && long.contains("...") && long.ends_with("/end: File name too long"),
            "{long}"
        );
    }

    #[test]
    fn a_limit_is_named_although_the_plan_is_gone() {
        let number = rlimit::number("nofile").and_then(|n| u32::try_from(n).ok()).unwrap();
        let error = SpawnError::reported(libc::EPERM, 6, number, &Plan::default());
        assert_eq!(error.to_string(), "cannot set the resource limit nofile: Operation not permitted");
        let error = SpawnError::reported(libc::EPERM, 6, u32::MAX, &Plan::default());
        assert_eq!(error.to_string(), "cannot set the resource limit: Operation not permitted");
    }

    #[test]
    fn a_pid_is_written_into_its_variable() {
        for pid in [0, 7, 10, 4_194_304, u32::MAX] {
            let variable = PidVariable::new(c"X");
            variable.set(pid);
            // SAFETY: the text has a zero after the longest number and lives as long as `variable`.
            let text = unsafe { CStr::from_ptr(variable.as_ptr()) };
            assert_eq!(text.to_str().unwrap(), format!("X={pid}"));
        }
    }
}
