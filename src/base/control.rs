//! What keeper and daemon say to each other: few messages, each one datagram of a SOCK_SEQPACKET pair, descriptors
//! beside it.
//!
//! First byte: version of the channel. Second byte: kind. Numbers are little endian. A receiver that does not know a
//! kind ignores the message and closes its descriptors, so that an older keeper can hold for a newer daemon.

use super::log::{Level, LogFormat, LogStyle};
use core::fmt;

/// Version of this channel.
pub const VERSION: u8 = 1;
/// Version of what a keeper leaves in writing for the program that it becomes.
pub const MANIFEST_VERSION: u32 = 1;
/// Descriptors in one message at most (Linux refuses more than 253 in one SCM_RIGHTS).
pub const FDS_MAX: usize = 64;
/// Bytes of one message at most.
pub const BYTES_MAX: usize = 512;

/// The number under which a daemon is executed with its end of the channel.
pub const DAEMON_FD: i32 = 3;

/// From the daemon to the keeper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToKeeper {
    /// Keep the attached descriptors under this label, instead of what was there.
    Hold { label: String },
    /// Close what is held under this label.
    Drop { label: String },
    /// The daemon serves: journal and config are read, jobs are adopted, the listener is polled. From now on a death is
    /// answered by an immediate new start. The first one lets the keeper write its pid file.
    Up,
    /// What autostart began has come up: tell the outer init READY=1.
    Ready,
    /// The loop turns. The next word of this comes after so long at the latest; 0: none comes unless asked for.
    Beat { next_ms: u64 },
    /// A shutdown has begun; the keeper kills what is left and ends after this many milliseconds.
    Stopping { limit_ms: u64 },
    /// The shutdown is complete: end with this exit code.
    Done { code: u8 },
    /// This daemon, in safe mode, ends on purpose: the next one is an ordinary one again. `stop`: hob is to stop, as if
    /// a signal had asked for it.
    Again { stop: bool },
    /// This daemon ends for one from the program whose file is attached.
    Upgrade,
    /// The config is being read again, and what it says is put into effect.
    Reloading,
    /// That is over, whatever came of it.
    Reloaded,
    /// How all is, in a line for people. Said only with `FLAG_OUTER`.
    Status { text: String },
    /// How lines of hob's own log are written, by the config.
    Log { style: LogStyle },
    /// How long a shutdown takes at most, by the config: a little later the keeper carries out one that nobody takes.
    StopLimit { ms: u64 },
}

/// From the keeper to the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToDaemon {
    /// First message. Descriptors: run table, lock, listener, then the program the keeper runs from.
    /// `generation` counts the daemons of this keeper from 1.
    Hello { keeper_pid: u32, generation: u32, flags: u32, inherited: Inherited },
    /// Attached are the descriptors held under this label. Sent after Hello for each label.
    Held { label: String },
    /// All labels have been handed over.
    HeldEnd,
    /// The run in this slot was reaped by the keeper; status and usage are in the table.
    Ended { slot: u32 },
    /// Stop everything and end. `hurry`: a second request, kill at once.
    Stop { hurry: bool },
    /// Any other signal that arrived at the keeper (SIGHUP reloads; under `--init` it is forwarded).
    Signal { number: u8 },
    /// To be answered by `Beat`, from the loop.
    Ask,
    /// How an upgrade came out. Follows the handover to a daemon with `FLAG_UPGRADE`.
    Upgraded { verdict: Verdict },
}

/// How an upgrade came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Keeper and daemon are of the new program.
    Renewed,
    /// The daemon is; the keeper could not execute it (errno, 0 when it had other things to do) and stays as it was.
    KeeperStays(i32),
    /// Nothing was changed: the new daemon could not be executed (errno), ended with a code, was ended by a signal, or
    /// did not serve in time.
    NotExecuted(i32),
    Ended(i32),
    Killed(i32),
    Slow,
}

impl Verdict {
    fn numbers(self) -> (u8, i32) {
        match self {
            Verdict::Renewed => (0, 0),
            Verdict::KeeperStays(errno) => (1, errno),
            Verdict::NotExecuted(errno) => (2, errno),
            Verdict::Ended(code) => (3, code),
            Verdict::Killed(signal) => (4, signal),
            Verdict::Slow => (5, 0),
        }
    }

    fn of(kind: u8, number: i32) -> Option<Verdict> {
        Some(match kind {
            0 => Verdict::Renewed,
            1 => Verdict::KeeperStays(number),
            2 => Verdict::NotExecuted(number),
            3 => Verdict::Ended(number),
            4 => Verdict::Killed(number),
            5 => Verdict::Slow,
            _ => return None,
        })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Renewed => f.write_str("keeper and daemon are new"),
            Verdict::KeeperStays(_) => f.write_str("the daemon is new, the keeper could not be renewed"),
            Verdict::NotExecuted(errno) => write!(f, "the new program cannot be executed, error {errno}"),
            Verdict::Ended(code) => write!(f, "the new daemon ended with code {code} before it served"),
            Verdict::Killed(signal) => write!(f, "the new daemon was ended by signal {signal} before it served"),
            Verdict::Slow => f.write_str("the new daemon did not serve in time"),
        }
    }
}

/// What the keeper changed in itself and jobs are to get back, and what it can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inherited {
    /// Soft limit of open descriptors that the keeper was started with.
    pub nofile: u64,
    /// oom_score_adj that the keeper was started with, or `OOM_UNCHANGED`.
    pub oom_score_adj: i32,
    /// Descriptors that the keeper holds at most, over all labels.
    pub hold_max: u32,
}

/// `Inherited.oom_score_adj`: the keeper was not permitted to change it.
pub const OOM_UNCHANGED: i32 = i32::MIN;

/// `ToDaemon::Hello.flags`: the keeper is PID 1 of its namespace or was told to act as one.
pub const FLAG_INIT: u32 = 1;
/// `ToDaemon::Hello.flags`: orphans do not become children of the keeper; jobs would not survive a daemon.
pub const FLAG_NO_SUBREAPER: u32 = 2;
/// `ToDaemon::Hello.flags`: daemons died by their own fault, one after the other. This one only looks and answers: it
/// starts, stops and writes nothing.
pub const FLAG_SAFE: u32 = 4;
/// `ToDaemon::Hello.flags`: a reload ended safe mode, so the config is read from its file and not as it was in effect.
pub const FLAG_RELOAD: u32 = 8;
/// `ToDaemon::Hello.flags`: this daemon is of a program that is tried. It writes nothing before it has said `Up`.
pub const FLAG_TRIAL: u32 = 16;
/// `ToDaemon::Hello.flags`: how an upgrade came out is told after the handover, or after `Up`; no client is to be
/// answered before.
pub const FLAG_UPGRADE: u32 = 32;
/// `ToDaemon::Hello.flags`: an outer service manager wants to hear `Reloading`, `Reloaded` and `Status`.
pub const FLAG_OUTER: u32 = 64;
/// Length of a label in bytes at most.
pub const LABEL_MAX: usize = BYTES_MAX - 2;
/// Labels at most.
pub const LABELS_MAX: usize = 65_536;

impl ToKeeper {
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            ToKeeper::Hold { label } => message(1, label.as_bytes()),
            ToKeeper::Drop { label } => message(2, label.as_bytes()),
            ToKeeper::Up => message(3, &[]),
            ToKeeper::Ready => message(4, &[]),
            ToKeeper::Beat { next_ms } => message(5, &next_ms.to_le_bytes()),
            ToKeeper::Stopping { limit_ms } => message(6, &limit_ms.to_le_bytes()),
            ToKeeper::Done { code } => message(7, &[*code]),
            ToKeeper::Again { stop } => message(8, &[u8::from(*stop)]),
            ToKeeper::Upgrade => message(9, &[]),
            ToKeeper::Reloading => message(10, &[]),
            ToKeeper::Reloaded => message(11, &[]),
            ToKeeper::Status { text } => message(12, text.as_bytes()),
            ToKeeper::StopLimit { ms } => message(14, &ms.to_le_bytes()),
            ToKeeper::Log { style } => message(13, &[style.level.number(), u8::from(style.format == LogFormat::Json)]),
        }
    }

    /// `None` for what this version does not know or what is malformed.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<ToKeeper> {
        let (kind, rest) = parts(bytes)?;
        Some(match kind {
            1 => ToKeeper::Hold { label: text(rest)? },
            2 => ToKeeper::Drop { label: text(rest)? },
            3 => ToKeeper::Up,
            4 => ToKeeper::Ready,
            5 => ToKeeper::Beat { next_ms: u64::from_le_bytes(rest.try_into().ok()?) },
            6 => ToKeeper::Stopping { limit_ms: u64::from_le_bytes(rest.try_into().ok()?) },
            7 => ToKeeper::Done { code: *rest.first()? },
            8 => ToKeeper::Again { stop: *rest.first()? != 0 },
            9 => ToKeeper::Upgrade,
            10 => ToKeeper::Reloading,
            11 => ToKeeper::Reloaded,
            12 => ToKeeper::Status { text: text(rest)? },
            13 => ToKeeper::Log { style: style(*rest.first()?, *rest.get(1)?)? },
            14 => ToKeeper::StopLimit { ms: u64::from_le_bytes(rest.try_into().ok()?) },
            _ => return None,
        })
    }
}

impl ToDaemon {
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            ToDaemon::Hello { keeper_pid, generation, flags, inherited } => {
                let mut b = message(1, &keeper_pid.to_le_bytes());
                b.extend_from_slice(&generation.to_le_bytes());
                b.extend_from_slice(&flags.to_le_bytes());
                b.extend_from_slice(&inherited.nofile.to_le_bytes());
                b.extend_from_slice(&inherited.oom_score_adj.to_le_bytes());
                b.extend_from_slice(&inherited.hold_max.to_le_bytes());
                b
            }
            ToDaemon::Held { label } => message(2, label.as_bytes()),
            ToDaemon::HeldEnd => message(3, &[]),
            ToDaemon::Ended { slot } => message(4, &slot.to_le_bytes()),
            ToDaemon::Stop { hurry } => message(5, &[u8::from(*hurry)]),
            ToDaemon::Signal { number } => message(6, &[*number]),
            ToDaemon::Ask => message(7, &[]),
            ToDaemon::Upgraded { verdict } => {
                let (kind, number) = verdict.numbers();
                let mut b = message(8, &[kind]);
                b.extend_from_slice(&number.to_le_bytes());
                b
            }
        }
    }

    /// `None` for what this version does not know or what is malformed.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<ToDaemon> {
        let (kind, rest) = parts(bytes)?;
        let word = |at: usize| Some(u32::from_le_bytes(rest.get(at..at + 4)?.try_into().ok()?));
        Some(match kind {
            1 => ToDaemon::Hello {
                keeper_pid: word(0)?,
                generation: word(4)?,
                flags: word(8)?,
                inherited: Inherited {
                    nofile: u64::from_le_bytes(rest.get(12..20)?.try_into().ok()?),
                    oom_score_adj: i32::from_le_bytes(rest.get(20..24)?.try_into().ok()?),
                    hold_max: word(24)?,
                },
            },
            2 => ToDaemon::Held { label: text(rest)? },
            3 => ToDaemon::HeldEnd,
            4 => ToDaemon::Ended { slot: word(0)? },
            5 => ToDaemon::Stop { hurry: *rest.first()? != 0 },
            6 => ToDaemon::Signal { number: *rest.first()? },
            7 => ToDaemon::Ask,
            8 => {
                let number = i32::from_le_bytes(rest.get(1..5)?.try_into().ok()?);
                ToDaemon::Upgraded { verdict: Verdict::of(*rest.first()?, number)? }
            }
            _ => return None,
        })
    }
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut b = vec![VERSION, kind];
    b.extend_from_slice(body);
    b
}

fn parts(bytes: &[u8]) -> Option<(u8, &[u8])> {
    match bytes {
        [VERSION, kind, rest @ ..] => Some((*kind, rest)),
        _ => None,
    }
}

fn style(level: u8, json: u8) -> Option<LogStyle> {
    let format = if json == 0 { LogFormat::Text } else { LogFormat::Json };
    Level::of(level).map(|level| LogStyle { level, format })
}

fn text(bytes: &[u8]) -> Option<String> {
    core::str::from_utf8(bytes).ok().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_survives_the_trip_and_garbage_is_ignored() {
        for m in [
            ToKeeper::Hold { label: "svc/web/out".into() },
            ToKeeper::Drop { label: String::new() },
            ToKeeper::Up,
            ToKeeper::Ready,
            ToKeeper::Beat { next_ms: 30_000 },
            ToKeeper::Stopping { limit_ms: 25_000 },
            ToKeeper::Done { code: 143 },
            ToKeeper::Again { stop: true },
            ToKeeper::Upgrade,
            ToKeeper::Reloading,
            ToKeeper::Reloaded,
            ToKeeper::Status { text: "2 of 3 services run; failed: w\u{f6}rm".into() },
            ToKeeper::StopLimit { ms: 20_000 },
            ToKeeper::Log { style: LogStyle::DEFAULT },
            ToKeeper::Log { style: LogStyle { level: Level::Error, format: LogFormat::Json } },
        ] {
            assert_eq!(ToKeeper::decode(&m.encode()), Some(m));
        }
        for m in [
            ToDaemon::Hello {
                keeper_pid: 7,
                generation: 2,
                flags: FLAG_INIT,
                inherited: Inherited { nofile: 1 << 40, oom_score_adj: OOM_UNCHANGED, hold_max: 960 },
            },
            ToDaemon::Held { label: "svc/web/out".into() },
            ToDaemon::HeldEnd,
            ToDaemon::Ended { slot: 16_383 },
            ToDaemon::Stop { hurry: true },
            ToDaemon::Signal { number: 1 },
            ToDaemon::Ask,
            ToDaemon::Upgraded { verdict: Verdict::Renewed },
            ToDaemon::Upgraded { verdict: Verdict::KeeperStays(2) },
            ToDaemon::Upgraded { verdict: Verdict::NotExecuted(8) },
            ToDaemon::Upgraded { verdict: Verdict::Ended(-1) },
            ToDaemon::Upgraded { verdict: Verdict::Killed(9) },
            ToDaemon::Upgraded { verdict: Verdict::Slow },
        ] {
            assert_eq!(ToDaemon::decode(&m.encode()), Some(m));
        }
        for bad in [&b""[..], b"\x01", b"\x02\x03", b"\x01\x63", b"\x01\x04\x00", b"\x01\x01\x00\x00", b"\x01\x02\xff"]
        {
            assert!(ToDaemon::decode(bad).is_none());
        }
    }
}
