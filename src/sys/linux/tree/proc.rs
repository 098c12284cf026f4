//! Reading /proc: one process's stat, its children, its environment. A process that has gone is `None`, never an error.

use crate::sys::check;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// What `/proc/PID/stat` says, as far as hob needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) pid: u32,
    pub(super) name: String,
    state: u8,
    pub(super) parent: u32,
    pub(super) group: u32,
    pub(super) session: u32,
    threads: u64,
    /// Clock ticks between boot and the start: with the pid it names a process for the life of the boot.
    pub(super) start: u64,
    ticks: u64,
    resident_pages: u64,
}

impl Stat {
    /// A zombie counts as gone, unless only its first thread has ended.
    pub(super) fn gone(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x') && self.threads <= 1
    }
}

/// What a running process has cost: CPU time with that of its reaped children, and resident memory in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    pub cpu: Duration,
    pub resident: u64,
}

/// The cost of a running process, `None` when it has gone.
#[must_use]
pub fn cost(pid: u32) -> Option<Cost> {
    let s = stat(pid)?;
    let per_second = config(libc::_SC_CLK_TCK, 100);
    let millis = s.ticks.saturating_mul(1000) / per_second;
    Some(Cost {
        cpu: Duration::from_millis(millis),
        resident: s.resident_pages.saturating_mul(config(libc::_SC_PAGESIZE, 4096)),
    })
}

/// The name of a running process as the kernel keeps it (at most 15 bytes), `None` when it has gone.
#[must_use]
pub fn name_of(pid: u32) -> Option<String> {
    stat(pid).filter(|s| !s.gone()).map(|s| s.name)
}

/// When a living process started, in clock ticks since boot.
#[must_use]
pub fn start_of(pid: u32) -> Option<u64> {
    stat(pid).filter(|s| !s.gone()).map(|s| s.start)
}

/// The parent of a living process.
#[must_use]
pub fn parent_of(pid: u32) -> Option<u32> {
    stat(pid).filter(|s| !s.gone()).map(|s| s.parent)
}

/// The children of a process; none when it has gone or the kernel does not tell.
#[must_use]
pub fn children_of(pid: u32) -> Vec<u32> {
    children(pid).unwrap_or_else(|| all().into_iter().filter(|c| stat(*c).is_some_and(|s| s.parent == pid)).collect())
}

fn config(name: libc::c_int, otherwise: u64) -> u64 {
    // SAFETY: sysconf has no preconditions.
    let value = unsafe { libc::sysconf(name) };
    u64::try_from(value).ok().filter(|v| *v > 0).unwrap_or(otherwise)
}

pub(super) fn stat(pid: u32) -> Option<Stat> {
    let path = CString::new(format!("/proc/{pid}/stat")).ok()?;
    let mut buffer = [0u8; 1024];
    let length = open_at(None, &path, libc::O_RDONLY).ok()?.read(&mut buffer).ok()?;
    parse_stat(buffer.get(..length)?)
}

/// Opens a file below a folder, or at a whole path, with not one system call more: open(2) of some C libraries makes
/// two.
pub(super) fn open_at(dir: Option<BorrowedFd<'_>>, name: &CStr, flags: libc::c_int) -> io::Result<File> {
    let dir = dir.map_or(libc::AT_FDCWD, |d| d.as_raw_fd());
    // SAFETY: the folder is open and the name ends with a zero byte; no mode is needed without O_CREAT.
    let fd = check(unsafe { libc::openat(dir, name.as_ptr(), flags | libc::O_CLOEXEC) })?;
    // SAFETY: the descriptor was just made and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) }.into())
}

/// The text of a file that the kernel makes up as it is read. Mostly it is small: a first read that does not fill less
/// than a page has come to the end.
pub(super) fn text_of(mut file: File) -> io::Result<String> {
    let mut text = vec![0; 1024];
    let first = file.read(&mut text)?;
    if first < text.len() {
        text.truncate(first);
    } else {
        file.read_to_end(&mut text)?;
    }
    String::from_utf8(text).map_err(io::Error::other)
}

/// As much of the command line of a process as there is room for, with a zero byte after each word; nothing where it
/// cannot be read.
pub(in crate::sys) fn begin_of_command_line(pid: u32, to: &mut [u8]) -> &[u8] {
    let path = CString::new(format!("/proc/{pid}/cmdline")).map_err(io::Error::other);
    let file = path.and_then(|path| open_at(None, &path, libc::O_RDONLY));
    let length = file.and_then(|mut file| file.read(to)).unwrap_or(0);
    to.get(..length).unwrap_or_default()
}

/// What `/proc/PID/cgroup` says.
pub(super) fn groups_of(pid: u32) -> io::Result<String> {
    let path = CString::new(format!("/proc/{pid}/cgroup")).map_err(io::Error::other)?;
    text_of(open_at(None, &path, libc::O_RDONLY)?)
}

/// The name is in parentheses and may itself contain spaces and parentheses: the last one closes it.
pub(super) fn parse_stat(text: &[u8]) -> Option<Stat> {
    let open = text.iter().position(|b| *b == b'(')?;
    let close = text.iter().rposition(|b| *b == b')')?;
    let number = |bytes: &[u8]| std::str::from_utf8(bytes).ok()?.trim().parse::<u64>().ok();
    let small = |v: u64| u32::try_from(v).ok();
    let pid = small(number(text.get(..open)?)?)?;
    let name = String::from_utf8_lossy(text.get(open + 1..close)?).into_owned();
    // Field 3 of proc_pid_stat(5), the state, is the first after the name; 24 is the last that is of use.
    let mut rest = [&[][..]; 22];
    let fields = text.get(close + 1..)?.split(u8::is_ascii_whitespace).filter(|f| !f.is_empty());
    rest.iter_mut().zip(fields).for_each(|(to, field)| *to = field);
    let field = |n: usize| rest.get(n - 3).copied().filter(|f| !f.is_empty());
    let value = |n: usize| field(n).and_then(number).unwrap_or(0);
    Some(Stat {
        pid,
        name,
        state: *field(3)?.first()?,
        parent: small(number(field(4)?)?)?,
        group: small(value(5)).unwrap_or(0),
        session: small(value(6)).unwrap_or(0),
        ticks: (14..=17).map(value).sum(),
        threads: value(20),
        start: number(field(22)?)?,
        resident_pages: value(24),
    })
}

/// The children of a process over all its threads; `None` where the kernel was built without the file. The kernel may
/// leave one out while others end, which is why one empty sweep proves nothing.
pub(super) fn children(pid: u32) -> Option<Vec<u32>> {
    let mut found = Vec::new();
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return Some(found) };
    for thread in threads.flatten() {
        match std::fs::read_to_string(thread.path().join("children")) {
            Ok(text) => found.extend(text.split_ascii_whitespace().filter_map(|p| p.parse::<u32>().ok())),
            // The thread may have ended; only a living one without the file shows that the kernel has none.
            Err(e) if e.kind() == io::ErrorKind::NotFound && thread.path().exists() => return None,
            Err(_) => {}
        }
    }
    Some(found)
}

/// Every process of the process table.
pub fn all() -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect()
}

/// The users of a process: real, effective, saved. Not those of its folder, which are root for a process that hides.
pub(super) fn users(pid: u32) -> Option<[u32; 3]> {
    let mut buffer = [0u8; 4096];
    let length = File::open(format!("/proc/{pid}/status")).ok()?.read(&mut buffer).ok()?;
    parse_users(&String::from_utf8_lossy(buffer.get(..length)?))
}

fn parse_users(status: &str) -> Option<[u32; 3]> {
    // The name comes before and has its line ends escaped.
    let mut numbers = status.lines().find_map(|l| l.strip_prefix("Uid:"))?.split_whitespace();
    let mut next = || numbers.next()?.parse().ok();
    Some([next()?, next()?, next()?])
}

/// Environments beyond this size are cut; the kernel's own limit for one variable is 128 KiB.
const ENVIRONMENT_MAX: u64 = 4 * 1024 * 1024;

/// The value of a variable in the environment a process was executed with, `None` also where it may not be read.
pub(super) fn variable(pid: u32, name: &str) -> Option<String> {
    let mut text = Vec::new();
    File::open(format!("/proc/{pid}/environ")).ok()?.take(ENVIRONMENT_MAX).read_to_end(&mut text).ok()?;
    let found = text.split(|b| *b == 0).find_map(|v| v.strip_prefix(name.as_bytes())?.strip_prefix(b"="))?;
    std::str::from_utf8(found).ok().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str =
        "42 (a) b (c) S 7 41 40 0 -1 4194560 1 2 3 4 100 50 30 20 20 0 3 0 123456 8000000 250 18446744 1 1";

    #[test]
    fn the_last_parenthesis_closes_the_name() {
        let s = parse_stat(LINE.as_bytes()).unwrap();
        assert_eq!((s.pid, s.name.as_str(), s.parent, s.group, s.session), (42, "a) b (c", 7, 41, 40));
        assert_eq!((s.start, s.ticks, s.threads, s.resident_pages), (123_456, 200, 3, 250));
        assert!(!s.gone());
    }

    #[test]
    fn a_zombie_is_gone_unless_another_thread_lives() {
        let many = parse_stat(LINE.replace(" S 7", " Z 7").as_bytes()).unwrap();
        assert!(!many.gone());
        let one = parse_stat(LINE.replace(" S 7", " Z 7").replace(" 20 0 3 0 ", " 20 0 1 0 ").as_bytes()).unwrap();
        assert!(one.gone());
    }

    #[test]
    fn garbage_is_no_process() {
        for text in ["", "1", "1 (", "1 (a)", "x (a) S 1", "1 (a) S", ")1 (", "1 (a) S 1 1 1"] {
            assert_eq!(parse_stat(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn this_process_is_seen_with_its_cost() {
        let own = std::process::id();
        assert_eq!(stat(own).unwrap().pid, own);
        assert!(cost(own).unwrap().resident > 0);
        assert!(all().contains(&own));
        assert!(variable(own, "PATH").is_some());
        assert_eq!(users(own).unwrap()[1], crate::sys::user::own().0);
        assert_eq!(parse_users("Name:\tUid:\\n0\nUid:\t1000\t0\t7\t9\nGid:\t1\n"), Some([1000, 0, 7]));
        assert_eq!((parse_users("Uid:\t1\t2"), parse_users("Uid:\tx\t1\t1"), parse_users("")), (None, None, None));
    }
}
