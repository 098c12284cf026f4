//! What a keeper leaves in writing for the program it becomes: `KEY=VALUE` with a zero byte after each, in memory that
//! the next program gets with all the descriptors. Pure.
//!
//! Keys that are not known are ignored and missing ones have a meaning, so that programs of several ages understand
//! each other; a change that is no addition needs another version.

use super::outer::{Manager, Told};
use crate::base::control::{Inherited, MANIFEST_VERSION as VERSION, OOM_UNCHANGED};
use crate::base::gather::Gather as _;
use crate::base::log::{Level, LogFormat, LogStyle};
use crate::base::map::Map;
use std::ffi::{CString, OsString};
use std::os::fd::RawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::time::Duration;

/// All that is left in writing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Manifest {
    /// The process that wrote it, which is the one to read it.
    pub(super) pid: u32,
    pub(super) table: RawFd,
    pub(super) lock: RawFd,
    pub(super) listener: RawFd,
    pub(super) program: RawFd,
    /// The daemon and the channel to it.
    pub(super) daemon: u32,
    pub(super) channel: RawFd,
    pub(super) generation: u32,
    /// From one heartbeat to the next, in milliseconds.
    pub(super) heartbeat_ms: u64,
    pub(super) pid_file: PathBuf,
    pub(super) pid_written: bool,
    pub(super) flags: u32,
    pub(super) inherited: Inherited,
    pub(super) manager: Manager,
    pub(super) told: Told,
    /// How lines of hob's own log are written.
    pub(super) log: LogStyle,
    /// What hob ends with: a descriptor of the process, and whether standard input counts.
    pub(super) parent: Option<(Option<RawFd>, bool)>,
    pub(super) pending_signals: u64,
    /// Slots whose end the daemon has not been told.
    pub(super) ended: Vec<u32>,
    /// argv of daemons.
    pub(super) args: Vec<CString>,
    pub(super) held: Map<String, Vec<RawFd>>,
}

impl Manifest {
    /// Every descriptor that it names.
    pub(super) fn descriptors(&self) -> Vec<RawFd> {
        let own = [self.table, self.lock, self.listener, self.program, self.channel];
        let parent = self.parent.and_then(|(process, _)| process);
        own.into_iter().chain(parent).chain(self.held.values().flatten().copied()).collect()
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut put = |key: &str, value: &[u8]| {
            out.extend_from_slice(key.as_bytes());
            out.push(b'=');
            out.extend_from_slice(value);
            out.push(0);
        };
        let numbers = [
            ("version", i128::from(VERSION)),
            ("pid", self.pid.into()),
            ("table", self.table.into()),
            ("lock", self.lock.into()),
            ("listener", self.listener.into()),
            ("program", self.program.into()),
            ("daemon", self.daemon.into()),
            ("channel", self.channel.into()),
            ("generation", self.generation.into()),
            ("heartbeat_ms", self.heartbeat_ms.into()),
            ("pid_written", self.pid_written.into()),
            ("flags", self.flags.into()),
            ("nofile", self.inherited.nofile.into()),
            ("oom_score_adj", self.inherited.oom_score_adj.into()),
            ("hold_max", self.inherited.hold_max.into()),
            ("pending_signals", self.pending_signals.into()),
            ("log_level", self.log.level.number().into()),
            ("log_json", (self.log.format == LogFormat::Json).into()),
        ];
        for (key, number) in numbers {
            put(key, number.to_string().as_bytes());
        }
        put("pid_file", self.pid_file.as_os_str().as_bytes());
        if let Some(name) = &self.manager.socket {
            put("notify_socket", name.as_bytes());
        }
        if let Some(watchdog) = self.manager.watchdog {
            put("watchdog_us", watchdog.as_micros().to_string().as_bytes());
        }
        for (key, told) in [("told_ready", self.told.ready), ("told_reloading", self.told.reloading)] {
            put(key, if told { b"1" } else { b"0" });
        }
        if let Some((process, stdin)) = self.parent {
            process.iter().for_each(|fd| put("parent", fd.to_string().as_bytes()));
            put("parent_stdin", if stdin { b"1" } else { b"0" });
        }
        self.ended.iter().for_each(|slot| put("ended", slot.to_string().as_bytes()));
        self.args.iter().for_each(|arg| put("arg", arg.as_bytes()));
        for (label, fds) in self.held.iter() {
            let fds: Vec<String> = fds.iter().map(RawFd::to_string).collect();
            put("held", format!("{}:{label}", fds.join(",")).as_bytes());
        }
        out
    }

    /// `None` for what is no manifest, or one of a version that this program does not know.
    pub(super) fn decode(bytes: &[u8]) -> Option<Manifest> {
        let pairs: Vec<(&str, &[u8])> =
            bytes.strip_suffix(b"\0")?.split(|b| *b == 0).map(pair).collect::<Option<_>>()?;
        let all = |wanted: &'static str| pairs.iter().filter(move |(key, _)| *key == wanted).map(|(_, value)| *value);
        let text = |key| all(key).next();
        if number::<u32>(text("version")?)? != VERSION {
            return None;
        }
        Some(Manifest {
            pid: number(text("pid")?)?,
            table: number(text("table")?)?,
            lock: number(text("lock")?)?,
            listener: number(text("listener")?)?,
            program: number(text("program")?)?,
            daemon: number(text("daemon")?)?,
            channel: number(text("channel")?)?,
            generation: number(text("generation")?)?,
            heartbeat_ms: text("heartbeat_ms").and_then(number).unwrap_or(0),
            pid_file: OsString::from_vec(text("pid_file")?.to_vec()).into(),
            pid_written: text("pid_written").is_some_and(yes),
            flags: text("flags").and_then(number).unwrap_or(0),
            inherited: Inherited {
                nofile: number(text("nofile")?)?,
                oom_score_adj: text("oom_score_adj").and_then(number).unwrap_or(OOM_UNCHANGED),
                hold_max: number(text("hold_max")?)?,
            },
            manager: Manager {
                socket: text("notify_socket").map(|t| OsString::from_vec(t.to_vec())),
                watchdog: text("watchdog_us").and_then(number).map(Duration::from_micros),
            },
            told: Told {
                // A keeper that did not tell this became another program only when it was ready.
                ready: text("told_ready").is_none_or(yes),
                reloading: text("told_reloading").is_some_and(yes),
            },
            log: LogStyle {
                level: text("log_level").and_then(number).and_then(Level::of).unwrap_or(LogStyle::DEFAULT.level),
                format: if text("log_json").is_some_and(yes) { LogFormat::Json } else { LogFormat::Text },
            },
            parent: match (text("parent"), text("parent_stdin")) {
                (None, None) => None,
                (process, stdin) => {
                    let process = process.map(|text| number(text).ok_or(())).transpose().ok()?;
                    Some((process, stdin.is_some_and(yes)))
                }
            },
            pending_signals: text("pending_signals").and_then(number).unwrap_or(0),
            ended: all("ended").map(number).collect::<Option<_>>()?,
            args: all("arg").map(|arg| CString::new(arg).ok()).collect::<Option<_>>()?,
            held: all("held").map(held).collect::<Option<Vec<_>>>()?.into_iter().gather(),
        })
    }
}

fn pair(line: &[u8]) -> Option<(&str, &[u8])> {
    let at = line.iter().position(|b| *b == b'=')?;
    let (key, value) = line.split_at_checked(at)?;
    Some((core::str::from_utf8(key).ok()?, value.strip_prefix(b"=")?))
}

fn yes(text: &[u8]) -> bool {
    text == b"1"
}

fn number<T: core::str::FromStr>(text: &[u8]) -> Option<T> {
    core::str::from_utf8(text).ok()?.parse().ok()
}

fn held(value: &[u8]) -> Option<(String, Vec<RawFd>)> {
    let (fds, label) = core::str::from_utf8(value).ok()?.split_once(':')?;
    let fds = if fds.is_empty() { Some(Vec::new()) } else { fds.split(',').map(|n| n.parse().ok()).collect() };
    Some((label.to_owned(), fds?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        Manifest {
            pid: 12,
            table: 3,
            lock: 4,
            listener: 5,
            program: 6,
            daemon: 4711,
            channel: 7,
            generation: 9,
            heartbeat_ms: 30_000,
            pid_file: OsString::from_vec(b"/h=\xff/run/hob.pid".to_vec()).into(),
            pid_written: true,
            flags: 1,
            inherited: Inherited { nofile: u64::MAX, oom_score_adj: OOM_UNCHANGED, hold_max: 960 },
            manager: Manager { socket: Some("@x=y".into()), watchdog: Some(Duration::from_secs(20)) },
            told: Told { ready: true, reloading: true },
            log: LogStyle { level: Level::Warn, format: LogFormat::Json },
            parent: Some((Some(10), true)),
            pending_signals: 1 << 63,
            ended: vec![0, 16_383],
            args: vec![c"hob".into(), c"@daemon".into(), c"".into(), c"home=/a:b".into()],
            held: [("out/a:b=c".to_owned(), vec![8, 9]), ("none".to_owned(), vec![])].into_iter().collect(),
        }
    }

    #[test]
    fn everything_survives_the_trip_and_additions_do_no_harm() {
        let m = manifest();
        let mut bytes = m.encode();
        assert_eq!(Manifest::decode(&bytes).as_ref(), Some(&m));
        assert_eq!(m.descriptors(), [3, 4, 5, 6, 7, 10, 8, 9]);
        bytes.extend_from_slice(b"of_a_later_time=\xff\0");
        assert_eq!(Manifest::decode(&bytes), Some(m));
        let (manager, told) = (Manager::default(), Told::default());
        let plain = Manifest { manager, told, parent: None, ended: vec![], held: Map::new(), ..manifest() };
        assert_eq!(Manifest::decode(&plain.encode()), Some(plain.clone()));
        let by_stdin = Manifest { parent: Some((None, true)), ..plain };
        assert_eq!(Manifest::decode(&by_stdin.encode()), Some(by_stdin));
    }

    #[test]
    fn what_is_no_manifest_is_refused() {
        let good = manifest().encode();
        for cut in [0, 1, good.len() / 2, good.len() - 1] {
            assert_eq!(Manifest::decode(&good[..cut]), None, "cut at {cut}");
        }
        let text = String::from_utf8_lossy(&good).into_owned();
        for (old, new) in
            [("version=1", "version=2"), ("table=3", "table=x"), ("held=8,9", "held=8,"), ("pid=12", "p=1")]
        {
            assert_eq!(Manifest::decode(text.replacen(old, new, 1).as_bytes()), None, "{new}");
        }
    }
}
