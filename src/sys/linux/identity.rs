//! What tells one process and one boot from another, and hob's own processes from others.

use super::tree;

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
    let second = |pid: u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|b| *b == 0).nth(1).is_some_and(|w| w == word.as_bytes())
    };
    tree::children_of(keeper).into_iter().filter(|pid| second(*pid)).collect()
}
