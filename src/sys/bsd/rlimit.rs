//! Resource limits by name, and their values as the system counts them.

/// The number of a limit from its lower-case name without `RLIMIT_`; `None` for one that this system does not have.
#[must_use]
pub fn number(name: &str) -> Option<i32> {
    match name {
        #[cfg(not(target_os = "openbsd"))]
        "as" => Some(libc::RLIMIT_AS),
        "core" => Some(libc::RLIMIT_CORE),
        "cpu" => Some(libc::RLIMIT_CPU),
        "data" => Some(libc::RLIMIT_DATA),
        "fsize" => Some(libc::RLIMIT_FSIZE),
        "memlock" => Some(libc::RLIMIT_MEMLOCK),
        "nofile" => Some(libc::RLIMIT_NOFILE),
        "nproc" => Some(libc::RLIMIT_NPROC),
        "rss" => Some(libc::RLIMIT_RSS),
        "stack" => Some(libc::RLIMIT_STACK),
        _ => None,
    }
}

/// The highest limit of open files that any process may have, where the system refuses what is above it and says so.
#[must_use]
pub fn open_files_max() -> Option<u64> {
    None
}

/// What stands for "no limit" in a limit's value; the system's own number for it is another.
pub const UNLIMITED: u64 = u64::MAX;

/// The system's own number for it, and the least that it takes for it.
const INFINITE: u64 = u64::MAX >> 1;

/// The value as the system counts. The type is signed on some of them.
#[allow(clippy::useless_conversion)]
pub(super) fn to_system(value: u64) -> libc::rlim_t {
    libc::rlim_t::try_from(value.min(INFINITE)).unwrap_or(libc::RLIM_INFINITY)
}

/// The value as hob counts.
#[allow(clippy::useless_conversion)] // As above.
pub(super) fn from_system(value: libc::rlim_t) -> u64 {
    u64::try_from(value).ok().filter(|v| *v < INFINITE).unwrap_or(UNLIMITED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_limit_is_the_systems_own_infinity() {
        assert_eq!(to_system(UNLIMITED), libc::RLIM_INFINITY);
        assert_eq!(from_system(libc::RLIM_INFINITY), UNLIMITED);
        assert_eq!(from_system(to_system(1 << 40)), 1 << 40);
        assert_eq!(number("NOFILE"), None);
    }
}
