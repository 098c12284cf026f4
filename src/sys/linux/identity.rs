//! What tells one process and one boot from another, and hob's own processes from others.

use super::tree;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;

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
    let is_daemon = |pid: &u32| {
        let mut words = arguments(*pid).skip(1);
        words.next().is_some_and(|w| w == word.as_bytes()) && words.any(|w| w == said) && is_theirs(*pid)
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
