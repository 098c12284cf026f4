//! What tells one process and one boot from another, and hob's own processes from others.

use super::tree;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// Names this boot of the machine; empty where the kernel does not tell. macOS has a name for each session; the others
/// only tell when they were booted, which moves when the clock is set: then a boot seems to be another one.
#[must_use]
pub fn boot_id() -> String {
    tree::boot_name().unwrap_or_default()
}

/// When a living process started, in microseconds; with the pid it names the process for the life of the boot.
#[must_use]
pub fn start_ticks(pid: u32) -> Option<u64> {
    tree::start_of(pid)
}

/// The daemons among the children of a keeper: those whose command line has `word` in its second place.
#[must_use]
pub fn daemons_of(keeper: u32, word: &str) -> Vec<u32> {
    let second = |pid: &u32| tree::arguments(*pid).get(1).is_some_and(|w| w == word.as_bytes());
    tree::children_of(keeper).into_iter().filter(second).collect()
}

/// The words of a process's command line, its own name first; empty where they cannot be read.
#[must_use]
pub fn words_of(pid: u32) -> Vec<OsString> {
    tree::arguments(pid).into_iter().map(OsString::from_vec).collect()
}

/// The keeper of the only daemon of this user whose command line has `word` in its second place and `said` anywhere.
/// Here a process of another user could say the same, so nobody is named.
#[must_use]
pub fn keeper_by(_word: &str, _said: &[u8], _uid: u32) -> Option<u32> {
    None
}

/// This process's own program, open.
///
/// # Errors
/// What open(2) answers, and where the system does not tell.
pub fn own_program() -> io::Result<File> {
    File::open(own_path()?)
}

/// Where this process's own program is.
///
/// # Errors
/// Where the system does not tell.
pub fn own_path() -> io::Result<PathBuf> {
    std::env::current_exe()
}
