//! What tells one process and one boot from another, and hob's own processes from others.

use super::tree;
use std::ffi::{CStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// What a keeper calls itself.
const KEEPER_NAME: &str = "hob-keeper";

/// Names this boot of the machine; empty where the kernel does not tell.
#[must_use]
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|t| t.trim().to_owned()).unwrap_or_default()
}

/// When a living process started, in clock ticks since boot; with the pid it names the process for the life of the
/// boot.
#[must_use]
pub fn start_ticks(pid: u32) -> Option<u64> {
    tree::start_of(pid)
}

/// The daemons among the children of a keeper: those whose command line has `word` in its second place.
#[must_use]
pub fn daemons_of(keeper: u32, word: &str) -> Vec<u32> {
    let second = |pid: u32| arguments(pid).nth(1).is_some_and(|w| w == word.as_bytes());
    tree::children_of(keeper).into_iter().filter(|pid| second(*pid)).collect()
}

/// The keeper of the only daemon of this user whose command line has `word` in its second place and `said` anywhere:
/// for where no lock file tells any more. A process that merely took over a daemon without keeper is none.
#[must_use]
pub fn keeper_by(word: &str, said: &[u8], uid: u32) -> Option<u32> {
    let is_theirs = |pid: u32| std::fs::metadata(format!("/proc/{pid}")).is_ok_and(|m| m.uid() == uid);
    let mut begun = [0; 4096];
    let is_daemon = |pid: &u32| {
        // Of most processes a glance is enough.
        let second = tree::begin_of_command_line(*pid, &mut begun).split(|b| *b == 0).nth(1);
        second == Some(word.as_bytes()) && arguments(*pid).any(|w| w == said) && is_theirs(*pid)
    };
    let mut daemons = tree::all().into_iter().filter(is_daemon);
    let (daemon, None) = (daemons.next()?, daemons.next()) else { return None };
    let keeper = tree::parent_of(daemon)?;
    let keeps = tree::name_of(keeper).is_some_and(|name| name == KEEPER_NAME) && daemons_of(keeper, word) == [daemon];
    (keeps && is_theirs(keeper)).then_some(keeper)
}

/// The words of a process's command line, its own name first; empty where they cannot be read.
#[must_use]
pub fn words_of(pid: u32) -> Vec<OsString> {
    arguments(pid).map(OsString::from_vec).collect()
}

fn arguments(pid: u32) -> impl Iterator<Item = Vec<u8>> {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|b| *b == 0).map(<[u8]>::to_vec).collect::<Vec<_>>().into_iter()
}

/// This process's own program, open. Where /proc is not mounted, it is found by the path that it was executed by.
///
/// # Errors
/// What open(2) answers.
pub fn own_program() -> io::Result<File> {
    File::open("/proc/self/exe").or_else(|_| File::open(own_path()?))
}

/// Where this process's own program is.
///
/// # Errors
/// Where neither /proc nor the kernel's word at the start tells.
pub fn own_path() -> io::Result<PathBuf> {
    std::env::current_exe().or_else(|e| executed_by().ok_or(e))
}

/// The path that the kernel was given; one that was executed by a descriptor has none.
fn executed_by() -> Option<PathBuf> {
    // SAFETY: a plain call that answers 0 for what it does not know.
    let name = unsafe { libc::getauxval(libc::AT_EXECFN) } as *const libc::c_char;
    if name.is_null() {
        return None;
    }
    // SAFETY: the kernel put a text there that ends with a zero byte and lives as long as the process.
    let name = unsafe { CStr::from_ptr(name) };
    let path = PathBuf::from(OsString::from_vec(name.to_bytes().to_vec()));
    (!path.starts_with("/dev/fd")).then(|| std::path::absolute(&path).unwrap_or(path))
}
