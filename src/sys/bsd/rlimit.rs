//! Resource limits by name.

/// The number of a limit from its lower-case name without `RLIMIT_`; `None` for one that this system does not have.
#[must_use]
pub fn number(name: &str) -> Option<i32> {
    let number = match name {
        "core" => libc::RLIMIT_CORE,
        "cpu" => libc::RLIMIT_CPU,
        "data" => libc::RLIMIT_DATA,
        "fsize" => libc::RLIMIT_FSIZE,
        "memlock" => libc::RLIMIT_MEMLOCK,
        "nofile" => libc::RLIMIT_NOFILE,
        "nproc" => libc::RLIMIT_NPROC,
        "rss" => libc::RLIMIT_RSS,
        "stack" => libc::RLIMIT_STACK,
        _ => return None,
    };
    i32::try_from(number).ok()
}

/// What stands for "no limit" in a limit's value; setting it means the system's own infinity.
pub const UNLIMITED: u64 = u64::MAX;
