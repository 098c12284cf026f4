//! Control groups (cgroup2): one folder a service below the keeper's own group, kept over runs.
//!
//! cgroup.kill is not used: on newer kernels (seen with 6.18) a child that is cloned into a group on which it was ever
//! used, or into one whose count of such kills differs from that of the cloner's own group, is killed at birth. The
//! trial finds the second case.
//!
//! Which run a folder holds now stands in an extended attribute of it, so that processes found in it after the death of
//! both keeper and daemon have a name even when they cleared their environment.

use super::proc;
use super::sweep::Member;
use crate::base::ids::RunId;
use crate::sys::reason;
use crate::sys::spawn::{self, Plan, SpawnError};
use crate::sys::{check, check_size, wait};
use core::time::Duration;
use std::collections::BTreeSet;
use std::ffi::{CStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

const RUN_ATTRIBUTE: &CStr = c"user.hob.run";

/// The folder of this hob in the control group tree.
#[derive(Clone, Debug)]
pub struct Groups {
    base: PathBuf,
    /// The same as the kernel names it in `/proc/PID/cgroup`. A folder of this name elsewhere may be anybody's.
    named: String,
    trial: Arc<OnceLock<Result<(), Refused>>>,
    refused: Arc<Mutex<Shortage>>,
}

/// Why nothing can be started in control groups.
#[derive(Clone, Debug)]
pub struct Refused {
    /// A sentence without a full stop.
    pub why: String,
    /// The machine lacks something, and has not lacked it for long: what is started now is better tried again soon than
    /// started in none.
    pub passes: bool,
}

/// When the trial was refused for a reason that passes, for the first and the last time in a row.
#[derive(Clone, Copy, Debug, Default)]
struct Shortage(Option<(Instant, Instant)>);

/// What the machine has lacked for so long does not pass.
const PATIENCE: Duration = Duration::from_secs(10);
/// Nobody was refused for so long: what is lacking now is another matter. It is longer than the longest pause between
/// two tries of a start, unless the config makes that longer.
const APART: Duration = Duration::from_secs(60);

impl Shortage {
    /// Something is lacking now: whether that is likely to pass.
    fn passes(&mut self, now: Instant) -> bool {
        let first = match self.0 {
            Some((first, last)) if now.duration_since(last) < APART => first,
            Some(_) | None => now,
        };
        self.0 = Some((first, now));
        now.duration_since(first) < PATIENCE
    }
}

/// The control group of one service.
#[derive(Debug)]
pub struct Group {
    service: Box<str>,
    path: Box<Path>,
    dir: OwnedFd,
    /// The memory controller was not found here, and is not asked again.
    uncounted: AtomicBool,
}

impl Groups {
    /// Makes `hob-HOME` below the control group of `keeper`. Whether anything can be started in it, `tried` tells.
    ///
    /// # Errors
    /// Why control groups cannot be used here, as a sentence without a full stop.
    pub fn probe(keeper: u32, home: u32) -> Result<Groups, String> {
        first(keeper, |dir, own| try_base(dir, own, home))
    }

    /// Whether a process can be started in such a group. The first call tries it, which takes a child.
    ///
    /// # Errors
    /// Why not. Unless that passes, the groups are of no use now.
    pub fn tried(&self) -> Result<(), Refused> {
        if let Some(known) = self.trial.get() {
            return known.clone();
        }
        let shown = self.base.parent().unwrap_or(&self.base).display();
        let refused = |e: String, passes| {
            let why = format!("nothing can be started in a control group below {shown}: {e}");
            Err(Refused { why, passes })
        };
        let tried = match trial(&self.base) {
            Ok(()) => Ok(()),
            // What the machine lacks for a moment says nothing of the groups.
            Err((e, Lasts::Short)) => {
                let mut shortage = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
                return refused(e, shortage.passes(Instant::now()));
            }
            Err((e, Lasts::Unknown)) => return refused(e, false),
            Err((e, Lasts::Always)) => {
                let _ = std::fs::remove_dir(&self.base);
                refused(e, false)
            }
        };
        self.trial.get_or_init(|| tried).clone()
    }

    /// Of a folder that is no control group, so that nothing can be started in it.
    ///
    /// # Errors
    /// None here.
    #[cfg(test)]
    pub fn useless(base: PathBuf) -> Result<Groups, String> {
        Ok(Groups { base, named: String::new(), trial: Arc::default(), refused: Arc::default() })
    }

    /// Whose trial has had this answer.
    ///
    /// # Errors
    /// None here.
    #[cfg(test)]
    pub fn refusing(refused: Refused) -> Result<Groups, String> {
        Ok(Groups { trial: Arc::new(OnceLock::from(Err(refused))), ..Groups::useless(PathBuf::new())? })
    }

    /// The folder below which the services have theirs.
    #[must_use]
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// The group of a service, made if it does not exist.
    ///
    /// # Errors
    /// What mkdir and open answer, such as EAGAIN at cgroup.max.descendants.
    pub fn open(&self, service: &str) -> io::Result<Group> {
        let path = self.base.join(folder_name(service));
        match make(&path) {
            // The folder of this hob was removed behind our back.
            Err(e) if e.kind() == io::ErrorKind::NotFound => make(&self.base).and_then(|()| make(&path))?,
            other => other?,
        }
        at(path, service)
    }

    /// Whether a living process is in the group of a service; `None` when it has gone.
    #[must_use]
    pub fn holds(&self, service: &str, pid: u32) -> Option<bool> {
        let text = proc::groups_of(pid).ok()?;
        if proc::stat(pid)?.gone() {
            return None;
        }
        Some(folder_below(own_path(&text)?, &self.named) == Some(&*folder_name(service)))
    }

    /// The service in whose group a process is, with a slash and the kind behind it for a command beside one;
    /// `Ok(None)` for a process in none of them.
    ///
    /// # Errors
    /// NotFound when there is no such process, or this one may not see it.
    pub fn service_of(&self, pid: u32) -> io::Result<Option<String>> {
        let text = proc::groups_of(pid)?;
        let folder = own_path(&text).and_then(|path| folder_below(path, &self.named));
        Ok(folder.map(service_name))
    }

    /// The groups that exist, of this or an earlier keeper of the home.
    #[must_use]
    pub fn list(&self) -> Vec<Group> {
        let named = subfolders(&self.base).into_iter().filter_map(|path| {
            let service = service_name(path.file_name()?.to_str()?);
            at(path, &service).ok()
        });
        named.collect()
    }

    /// Removes every empty group and, if nothing is left in it, the folder of this hob.
    pub fn remove_empty(&self) {
        for path in subfolders(&self.base) {
            // One that is still populated stays.
            let _ = remove_tree(&path);
        }
        let _ = std::fs::remove_dir(&self.base);
    }
}

impl Group {
    #[must_use]
    pub fn service(&self) -> &str {
        &self.service
    }

    /// Notes which run the group holds from now on.
    ///
    /// # Errors
    /// ENODEV when the folder was removed behind our back.
    pub fn mark(&self, run: RunId) -> io::Result<()> {
        set_attribute(self.dir.as_fd(), RUN_ATTRIBUTE, run.to_string().as_bytes())
    }

    /// The run that was noted last.
    #[must_use]
    pub fn marked(&self) -> Option<RunId> {
        let value = attribute(self.dir.as_fd(), RUN_ATTRIBUTE).ok()?;
        std::str::from_utf8(&value).ok()?.parse().ok().map(RunId)
    }

    /// Whether the folder is still in the tree.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.open_file(c"cgroup.events").is_ok()
    }

    /// Whether any process is left in the group or below. Zombies do not count.
    ///
    /// # Errors
    /// ENODEV when the folder was removed behind our back.
    pub fn populated(&self) -> io::Result<bool> {
        let mut text = [0u8; 256];
        let length = self.open_file(c"cgroup.events")?.read(&mut text)?;
        let text = text.get(..length).unwrap_or_default();
        Ok(!text.split(|b| *b == b'\n').any(|line| line == b"populated 0"))
    }

    /// Every process of the group and of the groups below that the job made.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        let mut found = Vec::new();
        let mut open = Vec::new();
        if self.is_leaf() {
            found.extend(self.text(c"cgroup.procs").iter().flat_map(|text| listed(text)));
        } else {
            open.push(self.path.to_path_buf());
        }
        while let Some(path) = open.pop() {
            // A threaded group refuses to list its processes; the one above it lists them.
            let text = std::fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
            found.extend(listed(&text));
            open.extend(subfolders(&path));
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Every process of the group with what it is told apart by.
    #[must_use]
    pub fn members(&self) -> Vec<Member> {
        let member = |pid| proc::stat(pid).filter(|s| !s.gone()).map(|s| Member { pid, start: s.start, name: s.name });
        self.pids().into_iter().filter_map(member).collect()
    }

    /// Sends a signal to every process of the group. Answers how many got it.
    #[must_use]
    pub fn signal(&self, signal: i32) -> usize {
        self.send(signal, |_| true).len()
    }

    fn send(&self, signal: i32, to: impl Fn(u32) -> bool) -> Vec<u32> {
        let listed = self.pids().into_iter().filter(|p| to(*p));
        let opened: Vec<(u32, OwnedFd)> = listed.filter_map(|p| Some((p, wait::pidfd_open(p).ok()?))).collect();
        if opened.is_empty() {
            return Vec::new();
        }
        // Opened first and listed again: a pid that is still in the group is one that was opened in it.
        let still = self.pids();
        let sent = |(pid, fd): (u32, OwnedFd)| {
            let sent = still.binary_search(&pid).is_ok() && wait::pidfd_send_signal(fd.as_fd(), signal).is_ok();
            sent.then_some(pid)
        };
        opened.into_iter().filter_map(sent).collect()
    }

    /// Kills every process of the group, also those that are forked meanwhile; a storm of forks is frozen first.
    /// `populated` says when they have gone.
    pub fn kill(&self) {
        const ROUNDS: u32 = 64;
        const PATIENCE: u32 = 3;
        let mut hit = BTreeSet::new();
        for round in 0..ROUNDS {
            if round == PATIENCE {
                // Without the freezer the rounds have to do.
                let _ = self.freeze(true);
            }
            let new = self.send(libc::SIGKILL, |pid| !hit.contains(&pid));
            if new.is_empty() {
                break;
            }
            hit.extend(new);
        }
        // Always, because an earlier daemon may have died before it came to this.
        let _ = self.freeze(false);
    }

    fn freeze(&self, on: bool) -> io::Result<()> {
        let mut file = proc::open_at(Some(self.dir.as_fd()), c"cgroup.freeze", libc::O_WRONLY)?;
        file.write_all(if on { b"1" } else { b"0" })
    }

    /// A descriptor that becomes ready with priority when the group becomes empty or populated. It has been read once,
    /// so that only a later change makes it ready; `populated` is to be asked after it was registered.
    ///
    /// # Errors
    /// ENODEV when the folder was removed behind our back, EMFILE.
    pub fn watch(&self) -> io::Result<OwnedFd> {
        let mut file = self.open_file(c"cgroup.events")?;
        // What it says is asked again once it is watched.
        let _ = file.read(&mut [0u8; 256])?;
        Ok(file.into())
    }

    /// Present memory of the group in bytes, where the memory controller is on.
    #[must_use]
    pub fn memory(&self) -> Option<u64> {
        if self.uncounted.load(Relaxed) {
            return None;
        }
        let read = self.text(c"memory.current");
        if read.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::NotFound) {
            self.uncounted.store(true, Relaxed);
        }
        read.ok()?.trim().parse().ok()
    }

    /// Removes the group and those below it.
    ///
    /// # Errors
    /// EBUSY while a process is left in it.
    pub fn remove(&self) -> io::Result<()> {
        remove_tree(&self.path)
    }

    /// Whether no group is below this one. The kernel keeps the count of links of such a folder at 2 and its
    /// subfolders.
    fn is_leaf(&self) -> bool {
        // SAFETY: all zeros is a valid value to be overwritten.
        let mut meta: libc::stat = unsafe { core::mem::zeroed() };
        // SAFETY: the folder is open and `meta` is valid to write to.
        let result = unsafe { libc::fstat(self.dir.as_raw_fd(), &raw mut meta) };
        result == 0 && meta.st_nlink == 2
    }

    /// The whole text of a file of the group; its size is not asked for, because it has none.
    fn text(&self, name: &CStr) -> io::Result<String> {
        proc::text_of(self.open_file(name)?)
    }

    fn open_file(&self, name: &CStr) -> io::Result<File> {
        proc::open_at(Some(self.dir.as_fd()), name, libc::O_RDONLY)
    }
}

impl AsFd for Group {
    /// The folder, as clone3 takes it.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

/// The control group in which a process could make others, as far as a look tells; makes none.
///
/// # Errors
/// As `Groups::probe`.
pub fn delegated(pid: u32) -> Result<PathBuf, String> {
    first(pid, |dir, _| is_delegated(dir).map(|()| dir.to_owned()))
}

/// The first folder that shows the control group of a process and will do, given with the name that the kernel has for
/// that group, or why none does.
fn first<T>(pid: u32, will_do: impl Fn(&Path, &str) -> Result<T, String>) -> Result<T, String> {
    let read =
        |path: String| std::fs::read_to_string(&path).map_err(|e| format!("{path} cannot be read: {}", reason(&e)));
    let mounts = read("/proc/self/mountinfo".to_owned())?;
    let own = read(format!("/proc/{pid}/cgroup"))?;
    let own = own_path(&own).ok_or("the kernel has no control groups of version 2")?;
    if own.ends_with(" (deleted)") {
        return Err(format!("the control group {own} was removed"));
    }
    let mut why = format!("no cgroup2 file system is mounted that shows {own}");
    for dir in visible(&mounts, own) {
        match will_do(&dir, own) {
            Ok(found) => return Ok(found),
            Err(e) => why = e,
        }
    }
    Err(why)
}

/// Without this a process cannot be cloned into a group below, although the folder could be made.
fn is_delegated(dir: &Path) -> Result<(), String> {
    let open = OpenOptions::new().write(true).open(dir.join("cgroup.procs"));
    open.map(drop).map_err(|e| format!("the control group {} is not delegated to hob: {}", dir.display(), reason(&e)))
}

/// The pids in the text of `cgroup.procs`; 0 stands for a process outside of this pid namespace.
fn listed(text: &str) -> impl Iterator<Item = u32> {
    text.lines().filter_map(|l| l.parse::<u32>().ok()).filter(|p| *p != 0)
}

fn at(path: PathBuf, service: &str) -> io::Result<Group> {
    let dir = OwnedFd::from(File::open(&path)?);
    Ok(Group { service: service.into(), path: path.into(), dir, uncounted: AtomicBool::new(false) })
}

fn try_base(dir: &Path, own: &str, home: u32) -> Result<Groups, String> {
    let shown = dir.display();
    is_delegated(dir)?;
    let name = format!("hob-{home:08x}");
    let base = dir.join(&name);
    make(&base).map_err(|e| format!("no control group can be made in {shown}: {}", reason(&e)))?;
    let kind = std::fs::read_to_string(base.join("cgroup.type")).unwrap_or_default();
    if kind.trim() != "domain" {
        let _ = std::fs::remove_dir(&base);
        return Err(format!("the control group {shown} is threaded and cannot hold processes of its own"));
    }
    let marked = File::open(&base).and_then(|d| set_attribute(d.as_fd(), RUN_ATTRIBUTE, b"0"));
    marked.map_err(|e| {
        let _ = std::fs::remove_dir(&base);
        format!("control groups in {shown} take no attributes: {}", reason(&e))
    })?;
    Ok(Groups {
        base,
        named: format!("{}/{name}", own.trim_end_matches('/')),
        trial: Arc::default(),
        refused: Arc::default(),
    })
}

/// How long a trial is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lasts {
    Short,
    Unknown,
    Always,
}

/// Starts what does not exist in the folder: that it comes as far as not finding it shows that the clone works.
fn trial(base: &Path) -> Result<(), (String, Lasts)> {
    // It may have been removed behind our back.
    let dir = make(base).and_then(|()| File::open(base)).map_err(|e| {
        let lasts = match e.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Lasts::Always,
            _ if SpawnError::of(&e).is_transient() => Lasts::Short,
            _ => Lasts::Unknown,
        };
        (e.to_string(), lasts)
    })?;
    let program = vec![c"/nonexistent/hob-trial".to_owned()];
    let plan = Plan { argv: program.clone(), programs: program, cgroup: Some(dir.as_raw_fd()), ..Plan::default() };
    match spawn::spawn(&plan, None) {
        Err(e) if e.step == "execute" => Ok(()),
        Err(e) => Err((e.to_string(), if e.is_transient() { Lasts::Short } else { Lasts::Always })),
        Ok(child) => {
            wait::reap_ending(child.pid, None);
            Err(("the kernel kills it at birth".to_owned(), Lasts::Always))
        }
    }
}

fn make(path: &Path) -> io::Result<()> {
    match std::fs::create_dir(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

fn subfolders(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(path) else { return Vec::new() };
    entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()).collect()
}

fn remove_tree(path: &Path) -> io::Result<()> {
    // Mostly there is nothing below it.
    if std::fs::remove_dir(path).is_ok() {
        return Ok(());
    }
    // Listed top down, removed bottom up: the job decides how deep this goes.
    let mut found = vec![path.to_owned()];
    let mut at = 0;
    while let Some(dir) = found.get(at) {
        let below = subfolders(dir);
        found.extend(below);
        at += 1;
    }
    let gone = |r: io::Result<()>| match r {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    found.iter().rev().try_for_each(|dir| gone(std::fs::remove_dir(dir)))
}

/// The path of the group of version 2 in the text of `/proc/PID/cgroup`; lines of version 1 are passed over.
fn own_path(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("0::")).filter(|p| p.starts_with('/'))
}

/// The name that follows `base`, which is a whole path, in a path.
fn folder_below<'p>(path: &'p str, base: &str) -> Option<&'p str> {
    let name = path.strip_prefix(base)?.strip_prefix('/')?.split('/').next()?;
    Some(name.strip_suffix(" (deleted)").unwrap_or(name))
}

/// The folders in which a control group is visible, from the text of `/proc/self/mountinfo`: of each cgroup2 mount that
/// shows a part of the tree which contains it. A path that leaves the namespace (`/..`) is visible nowhere.
fn visible(mountinfo: &str, own: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for line in mountinfo.lines() {
        let Some((mount, kind)) = line.split_once(" - ") else { continue };
        if kind.split(' ').next() != Some("cgroup2") {
            continue;
        }
        let mut fields = mount.split(' ').skip(3);
        let (Some(root), Some(point)) = (fields.next(), fields.next()) else { continue };
        let root = unescape(root);
        let below = Path::new(own).strip_prefix(Path::new(&root));
        if let Ok(below) = below
            && !below.components().any(|c| matches!(c, std::path::Component::ParentDir))
        {
            let point = PathBuf::from(unescape(point));
            found.push(if below.as_os_str().is_empty() { point } else { point.join(below) });
        }
    }
    found
}

/// mountinfo writes space, tab, line end and backslash as three octal digits after a backslash.
fn unescape(text: &str) -> OsString {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let code = tail.get(..3).and_then(|d| u8::from_str_radix(std::str::from_utf8(d).ok()?, 8).ok());
        if let (b'\\', Some(code)) = (first, code) {
            out.push(code);
            rest = tail.get(3..).unwrap_or_default();
        } else {
            out.push(*first);
            rest = tail;
        }
    }
    OsString::from_vec(out)
}

/// A folder name that cannot be taken for one of the kernel's own files (`cgroup.procs`, `memory.max`), which all have
/// a dot.
fn folder_name(service: &str) -> String {
    let escaped = service.replace('%', "%25").replace('/', "%2f");
    if escaped.contains('.') || escaped.starts_with('_') { format!("_{escaped}") } else { escaped }
}

fn service_name(folder: &str) -> String {
    folder.strip_prefix('_').unwrap_or(folder).replace("%2f", "/").replace("%25", "%")
}

fn set_attribute(dir: BorrowedFd<'_>, name: &CStr, value: &[u8]) -> io::Result<()> {
    // SAFETY: the name ends with a zero byte; pointer and length describe `value`.
    let result = unsafe { libc::fsetxattr(dir.as_raw_fd(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    check(result).map(drop)
}

fn attribute(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<Vec<u8>> {
    let mut value = vec![0u8; 64];
    // SAFETY: the name ends with a zero byte; pointer and length describe `value`.
    let length =
        check_size(unsafe { libc::fgetxattr(dir.as_raw_fd(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) })?;
    value.truncate(length);
    Ok(value)
}

#[cfg(test)]
#[path = "cgroup_tests.rs"]
mod tests;
