//! Resource limits by name.

/// The number of a limit from its lower-case name without `RLIMIT_`; `None` for one that this system does not have.
#[must_use]
pub fn number(name: &str) -> Option<i32> {
    let number = match name {
        "as" => libc::RLIMIT_AS,
        "core" => libc::RLIMIT_CORE,
        "cpu" => libc::RLIMIT_CPU,
        "data" => libc::RLIMIT_DATA,
        "fsize" => libc::RLIMIT_FSIZE,
        "locks" => libc::RLIMIT_LOCKS,
        "memlock" => libc::RLIMIT_MEMLOCK,
        "msgqueue" => libc::RLIMIT_MSGQUEUE,
        "nice" => libc::RLIMIT_NICE,
        "nofile" => libc::RLIMIT_NOFILE,
        "nproc" => libc::RLIMIT_NPROC,
        "rss" => libc::RLIMIT_RSS,
        "rtprio" => libc::RLIMIT_RTPRIO,
        "rttime" => libc::RLIMIT_RTTIME,
        "sigpending" => libc::RLIMIT_SIGPENDING,
        "stack" => libc::RLIMIT_STACK,
        _ => return None,
    };
    i32::try_from(number).ok()
}

/// The highest limit of open files that any process may have.
#[must_use]
pub fn open_files_max() -> Option<u64> {
    std::fs::read_to_string("/proc/sys/fs/nr_open").ok()?.trim().parse().ok()
}

/// What stands for "no limit" in a limit's value.
pub const UNLIMITED: u64 = u64::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_setrlimit() {
        assert_eq!(number("nofile"), i32::try_from(libc::RLIMIT_NOFILE).ok());
        assert_eq!(number("NOFILE"), None);
        assert_eq!(UNLIMITED, libc::RLIM64_INFINITY);
    }
}
