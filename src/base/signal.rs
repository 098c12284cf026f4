//! Signals by name. Numbers differ between systems, so the table of the system in use is a value that is handed in.

/// Finds a time zone by its name: the name, and the content of its file.
pub type Zones = fn(&str) -> Option<(String, Vec<u8>)>;

/// What text must know about the system it is meant for.
#[derive(Clone, Copy, Debug)]
pub struct Platform {
    /// Names without SIG, and their numbers.
    pub signals: &'static [(&'static str, i32)],
    /// The name and the content of the file of a time zone; the local one for an empty name.
    pub zones: Zones,
}

/// A platform that was not told where the files of time zones are.
const NO_ZONES: Zones = |_| None;

/// The largest signal number that may be given as a number.
pub const SIGNAL_MAX: i32 = 64;

/// Numbers on Linux (all machines but MIPS, SPARC and Alpha). The first real-time signal is that of glibc and of what
/// `kill -l` lists. Where a number has several names, the first one is shown.
const LINUX: &[(&str, i32)] = &[
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("PWR", 30),
    ("SYS", 31),
    ("RTMIN", 34),
    ("RTMIN+1", 35),
    ("RTMIN+2", 36),
    ("RTMIN+3", 37),
    ("RTMIN+4", 38),
    ("RTMIN+5", 39),
    ("RTMIN+6", 40),
    ("RTMIN+7", 41),
    ("RTMIN+8", 42),
    ("RTMIN+9", 43),
    ("RTMIN+10", 44),
    ("RTMIN+11", 45),
    ("RTMIN+12", 46),
    ("RTMIN+13", 47),
    ("RTMIN+14", 48),
    ("RTMIN+15", 49),
    ("RTMIN+16", 50),
    ("RTMIN+17", 51),
    ("RTMIN+18", 52),
    ("RTMIN+19", 53),
    ("RTMIN+20", 54),
    ("RTMIN+21", 55),
    ("RTMIN+22", 56),
    ("RTMIN+23", 57),
    ("RTMIN+24", 58),
    ("RTMIN+25", 59),
    ("RTMIN+26", 60),
    ("RTMIN+27", 61),
    ("RTMIN+28", 62),
    ("RTMIN+29", 63),
    ("RTMIN+30", 64),
    ("RTMAX", 64),
    ("IOT", 6),
    ("CLD", 17),
    ("POLL", 29),
];

/// Numbers on the BSDs and macOS.
const BSD: &[(&str, i32)] = &[
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("EMT", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("BUS", 10),
    ("SEGV", 11),
    ("SYS", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("URG", 16),
    ("STOP", 17),
    ("TSTP", 18),
    ("CONT", 19),
    ("CHLD", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("IO", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("INFO", 29),
    ("USR1", 30),
    ("USR2", 31),
    ("IOT", 6),
];

impl Platform {
    #[must_use]
    pub const fn linux() -> Platform {
        Platform { signals: LINUX, zones: NO_ZONES }
    }

    /// FreeBSD, NetBSD, OpenBSD, DragonFly and macOS agree on these.
    #[must_use]
    pub const fn bsd() -> Platform {
        Platform { signals: BSD, zones: NO_ZONES }
    }

    /// The platform by its name in `std::env::consts::OS`.
    #[must_use]
    pub fn of(os: &str) -> Platform {
        if os == "linux" { Platform::linux() } else { Platform::bsd() }
    }

    /// That of the system this program was built for.
    #[must_use]
    pub fn own() -> Platform {
        Platform::of(std::env::consts::OS)
    }

    /// The number of a signal given by its name, with or without SIG and in any case, or by a number from 1 to
    /// `SIGNAL_MAX`.
    #[must_use]
    pub fn signal(&self, text: &str) -> Option<i32> {
        if let Ok(number) = text.parse::<i32>() {
            return (1..=SIGNAL_MAX).contains(&number).then_some(number);
        }
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        self.signals.iter().find(|(n, _)| *n == name).map(|(_, number)| *number)
    }

    /// `SIGTERM` for 15; what has no name as `signal 33`.
    #[must_use]
    pub fn signal_name(&self, number: i32) -> String {
        match self.signals.iter().find(|(_, n)| *n == number) {
            Some((name, _)) => format!("SIG{name}"),
            None => format!("signal {number}"),
        }
    }
}

/// The name of a signal whose number is the same on all systems, such as `SIGTERM`.
#[must_use]
pub fn common_name(number: i32) -> Option<String> {
    let (name, _) = LINUX.iter().find(|entry| entry.1 == number && BSD.contains(entry))?;
    Some(format!("SIG{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_numbers_and_nothing_else() {
        let (linux, bsd) = (Platform::linux(), Platform::of("freebsd"));
        for text in ["TERM", "SIGTERM", "sigterm", "15"] {
            assert_eq!(linux.signal(text), Some(15), "{text}");
        }
        assert_eq!((linux.signal("USR1"), bsd.signal("USR1")), (Some(10), Some(30)));
        assert_eq!((linux.signal("RTMIN+3"), linux.signal("37")), (Some(37), Some(37)));
        assert_eq!((linux.signal("SIGRTMAX"), linux.signal("iot")), (Some(64), Some(6)));
        for text in ["", "SIG", "0", "-1", "65", "TERMINATE", "15.0"] {
            assert_eq!(linux.signal(text), None, "{text}");
        }
        assert_eq!(bsd.signal_name(31), "SIGUSR2");
        assert_eq!((linux.signal_name(33), bsd.signal_name(40)), ("signal 33".into(), "signal 40".into()));
    }

    #[test]
    fn every_number_that_has_a_name_is_found_by_it() {
        for platform in [Platform::linux(), Platform::bsd()] {
            for number in 1..=SIGNAL_MAX {
                assert_eq!(
                    platform.signals.iter().any(|(_, n)| *n == number),
                    !platform.signal_name(number).contains(' ')
                );
            }
            for (name, number) in platform.signals {
                assert_eq!(platform.signal(name), Some(*number), "{name}");
                assert_eq!(platform.signal(&platform.signal_name(*number)), Some(*number), "{name}");
            }
        }
        let linux = Platform::linux();
        for number in (1..=31).chain(34..=64) {
            assert!(linux.signal_name(number).starts_with("SIG"), "{number}");
        }
        assert_eq!(
            ["KILL", "USR1", "SYS"].map(|n| linux.signal(n).map(|n| linux.signal_name(n))),
            ["SIGKILL", "SIGUSR1", "SIGSYS"].map(|n| Some(n.to_owned()))
        );
    }
}
