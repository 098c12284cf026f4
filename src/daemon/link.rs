//! The daemon's end of the channel to its keeper: takes over what the keeper holds, then tells it what to hold and
//! what happens.
//!
//! Nothing here waits except the handshake. Short messages that the channel cannot take now are queued and sent by
//! `flush`; descriptors are never queued here, because only what the channel has taken survives this process.

use crate::base::control::{
    BYTES_MAX, DAEMON_FD, FDS_MAX, LABEL_MAX, LABELS_MAX, OOM_UNCHANGED, ToDaemon, ToKeeper, VERSION,
};
use crate::base::gather::Gather as _;
use crate::base::map::Map;
use crate::sys::chan::{self, Chan};
use crate::sys::table::RunTable;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// Everything that a new daemon gets from its keeper.
#[derive(Debug)]
pub struct Handover {
    pub keeper_pid: u32,
    /// Counts the daemons of this keeper from 1.
    pub generation: u32,
    /// `base::control::FLAG_INIT` and the like.
    pub flags: u32,
    /// Soft limit of open descriptors for jobs.
    pub nofile: u64,
    /// oom_score_adj for jobs, where the keeper's own was changed.
    pub oom_score_adj: Option<i32>,
    pub table: RunTable,
    pub lock: OwnedFd,
    pub listener: OwnedFd,
    /// The file that keeper and daemon run from.
    pub program: OwnedFd,
    pub held: Map<String, Vec<OwnedFd>>,
    /// Messages that came before the handover was complete, in order.
    pub early: Vec<ToDaemon>,
}

/// The channel to the keeper.
#[derive(Debug)]
pub struct Link {
    chan: Chan,
    queue: VecDeque<Vec<u8>>,
    /// Number of descriptors the keeper holds under each label.
    held: Map<String, usize>,
    held_count: usize,
    held_max: usize,
    gone: bool,
}

impl Link {
    /// Takes over descriptor 3 and waits until the keeper has handed over everything. To be called once, before this
    /// process opens anything.
    ///
    /// # Errors
    /// When this process was not started by a keeper, the keeper ends meanwhile, or it sends no valid handover.
    pub fn inherit() -> io::Result<(Link, Handover)> {
        Link::over(Chan::inherit(DAEMON_FD)?)
    }

    /// The same over any channel.
    ///
    /// # Errors
    /// As `inherit`.
    pub fn over(chan: Chan) -> io::Result<(Link, Handover)> {
        let mut buf = [0; BYTES_MAX];
        let mut handover: Option<Handover> = None;
        let mut held_max = 0;
        loop {
            let (bytes, fds) = receive_waiting(&chan, &mut buf)?;
            match (ToDaemon::decode(bytes), &mut handover) {
                (Some(ToDaemon::Hello { keeper_pid, generation, flags, inherited }), None) => {
                    let [table, lock, listener, program] = <[OwnedFd; 4]>::try_from(fds)
                        .map_err(|_| invalid("the keeper's first message lacks descriptors"))?;
                    held_max = usize::try_from(inherited.hold_max).unwrap_or(usize::MAX);
                    handover = Some(Handover {
                        keeper_pid,
                        generation,
                        flags,
                        nofile: inherited.nofile,
                        oom_score_adj: Some(inherited.oom_score_adj).filter(|n| *n != OOM_UNCHANGED),
                        table: RunTable::open(table)?,
                        lock,
                        listener,
                        program,
                        held: Map::new(),
                        early: Vec::new(),
                    });
                }
                (Some(ToDaemon::Held { label }), Some(handover)) => {
                    handover.held.insert(label, fds);
                }
                (Some(ToDaemon::HeldEnd), Some(_)) => break,
                (Some(message), Some(handover)) => handover.early.push(message),
                (Some(_), None) => return Err(invalid("the keeper's first message is missing")),
                (None, None) => return Err(invalid(&format!("the keeper does not speak version {VERSION}"))),
                (None, Some(_)) => {}
            }
        }
        let handover = handover.ok_or_else(|| invalid("no handover"))?;
        let held: Map<_, _> = handover.held.iter().map(|(label, fds)| (label.clone(), fds.len())).gather();
        let held_count = held.values().sum();
        Ok((Link { chan, queue: VecDeque::new(), held, held_count, held_max, gone: false }, handover))
    }

    /// Hands copies of descriptors to the keeper, instead of what it held under this label. Once this returns `Ok`,
    /// they are with the keeper whatever becomes of this process.
    ///
    /// # Errors
    /// What `chan::is_later` knows: to be tried again a little later, and what needs it to be put off so long.
    /// `QuotaExceeded`: the keeper can hold no more. `InvalidInput`: more than 64 descriptors or a label longer than
    /// 510 bytes. `BrokenPipe`: the keeper is gone.
    pub fn hold(&mut self, label: &str, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        if fds.len() > FDS_MAX || label.len() > LABEL_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "too much for one label"));
        }
        let before = self.held.get(label).copied();
        let after = self.held_count - before.unwrap_or(0) + fds.len();
        if after > self.held_max || (before.is_none() && self.held.len() >= LABELS_MAX) {
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, "the keeper can hold no more descriptors"));
        }
        // What was said before must arrive before: a queued `drop` of this label would undo this.
        self.flush();
        if !self.queue.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.chan.send(&ToKeeper::Hold { label: label.to_owned() }.encode(), fds)?;
        self.held.insert(label.to_owned(), fds.len());
        self.held_count = after;
        Ok(())
    }

    /// The keeper closes what it holds under this label.
    pub fn drop(&mut self, label: &str) {
        if let Some(count) = self.held.remove(label) {
            self.held_count -= count;
            self.say(&ToKeeper::Drop { label: label.to_owned() });
        }
    }

    /// A heartbeat, or the answer to a question. The next one comes after `next`; zero: none comes unasked.
    pub fn beat(&mut self, next: Duration) {
        let next_ms = u64::try_from(next.as_millis()).unwrap_or(u64::MAX);
        self.say(&ToKeeper::Beat { next_ms });
    }

    /// How all is, for the service manager; as much of it as a message takes.
    pub fn status(&mut self, mut text: String) {
        while text.len() > LABEL_MAX {
            text.pop();
        }
        self.say(&ToKeeper::Status { text });
    }

    /// This daemon ends for one from this program. `Ok`: the keeper has it.
    ///
    /// # Errors
    /// What `hold` answers.
    pub fn upgrade(&mut self, program: BorrowedFd<'_>) -> io::Result<()> {
        self.flush();
        if !self.queue.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.chan.send(&ToKeeper::Upgrade.encode(), &[program])
    }

    /// Everything that the keeper holds, by its label.
    pub fn labels(&self) -> impl Iterator<Item = &str> {
        self.held.keys().map(String::as_str)
    }

    /// The next message, or `None` when there is none now; then `gone` tells whether the keeper still exists.
    ///
    /// `Ended { slot }` is a hint to look at that slot: it may come twice, or late, when the slot is already in use
    /// for another run.
    pub fn recv(&mut self) -> Option<ToDaemon> {
        let mut buf = [0; BYTES_MAX];
        while !self.gone {
            match self.chan.recv(&mut buf) {
                Ok(Some((n, _))) => match buf.get(..n).and_then(ToDaemon::decode) {
                    Some(message) => return Some(message),
                    None => continue,
                },
                Err(e) if e.kind() == io::ErrorKind::InvalidData => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return None,
                Ok(None) | Err(_) => self.gone = true,
            }
        }
        None
    }

    /// The keeper has ended. Known after `recv` has answered `None`.
    #[must_use]
    pub fn gone(&self) -> bool {
        self.gone
    }

    /// Sends what is queued, as far as the channel takes it.
    pub fn flush(&mut self) {
        while let Some(bytes) = self.queue.front() {
            match self.chan.send(bytes, &[]) {
                Err(e) if chan::is_later(&e) => return,
                // Sent, or the keeper is gone, which `recv` tells.
                Ok(()) | Err(_) => self.queue.pop_front(),
            };
        }
    }

    /// Sends what is queued and waits for it, for the last words of a daemon. `false` when time ran out.
    pub fn flush_within(&mut self, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        loop {
            self.flush();
            let left = end.saturating_duration_since(Instant::now());
            if self.queue.is_empty() || left.is_zero() {
                return self.queue.is_empty();
            }
            // A closed channel is always readable; sending then fails and empties the queue.
            if chan::wait([(Some(self.chan.as_fd()), true)], Some(left.min(Duration::from_millis(100)))).is_err() {
                return false;
            }
        }
    }

    /// Whether something is queued, so that `flush` should be called when the channel is writable.
    #[must_use]
    pub fn wants_write(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Descriptors that the keeper holds, and how many it can.
    #[must_use]
    pub fn held(&self) -> (usize, usize) {
        (self.held_count, self.held_max)
    }

    /// Whether the keeper holds something under this label.
    #[must_use]
    pub fn holds(&self, label: &str) -> bool {
        self.held.contains_key(label)
    }

    /// Tells the keeper something that has no descriptors. `flush_within` before the end of this process.
    pub fn say(&mut self, message: &ToKeeper) {
        // Of several heartbeats that wait, one says it all; this also bounds the queue while a keeper is stopped.
        let bytes = message.encode();
        if matches!(message, ToKeeper::Beat { .. }) && self.queue.contains(&bytes) {
            return;
        }
        self.queue.push_back(bytes);
        self.flush();
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.chan.as_fd()
    }
}

fn receive_waiting<'b>(chan: &Chan, buf: &'b mut [u8; BYTES_MAX]) -> io::Result<(&'b [u8], Vec<OwnedFd>)> {
    loop {
        match chan.recv(buf) {
            Ok(Some((n, fds))) => return Ok((buf.get(..n).unwrap_or_default(), fds)),
            Ok(None) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the keeper has ended")),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                chan::wait([(Some(chan.as_fd()), false)], None)?;
            }
            Err(e) => return Err(e),
        }
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::control::Inherited;
    use std::fs::File;

    const HELLO: ToDaemon = ToDaemon::Hello {
        keeper_pid: 9,
        generation: 3,
        flags: 0,
        inherited: Inherited { nofile: 1024, oom_score_adj: OOM_UNCHANGED, hold_max: 10 },
    };

    /// A keeper's end, and the link after a handover with one label of three descriptors and one early message.
    fn linked() -> (Chan, Link, Handover) {
        let (keeper, daemon) = Chan::pair().unwrap();
        let table = RunTable::create().unwrap();
        let null = File::open("/dev/null").unwrap();
        keeper.send(&HELLO.encode(), &[table.fd(), null.as_fd(), null.as_fd(), null.as_fd()]).unwrap();
        keeper.send(&ToDaemon::Held { label: "a".into() }.encode(), &[null.as_fd(); 3]).unwrap();
        keeper.send(&ToDaemon::Ended { slot: 5 }.encode(), &[]).unwrap();
        keeper.send(&[VERSION, 99, 1, 2], &[null.as_fd()]).unwrap();
        keeper.send(&ToDaemon::HeldEnd.encode(), &[]).unwrap();
        let (link, handover) = Link::over(daemon).unwrap();
        (keeper, link, handover)
    }

    fn heard(keeper: &Chan) -> Vec<(ToKeeper, usize)> {
        let mut buf = [0; BYTES_MAX];
        std::iter::from_fn(|| {
            let (n, fds) = keeper.recv(&mut buf).ok()??;
            Some((ToKeeper::decode(&buf[..n]).unwrap(), fds.len()))
        })
        .collect()
    }

    #[test]
    fn the_handover_brings_everything_and_what_came_early() {
        let (keeper, mut link, handover) = linked();
        assert_eq!((handover.keeper_pid, handover.generation, handover.nofile), (9, 3, 1024));
        assert_eq!(handover.oom_score_adj, None);
        assert_eq!(handover.held.get("a").map_or(0, Vec::len), 3);
        assert_eq!(handover.early, [ToDaemon::Ended { slot: 5 }]);
        assert_eq!(link.held(), (3, 10));
        assert_eq!(link.recv(), None);
        keeper.send(&ToDaemon::Stop { hurry: true }.encode(), &[]).unwrap();
        assert_eq!(link.recv(), Some(ToDaemon::Stop { hurry: true }));
        assert!(!link.gone());
        drop(keeper);
        assert_eq!(link.recv(), None);
        assert!(link.gone());
    }

    #[test]
    fn holding_is_counted_and_limited() {
        let (keeper, mut link, _handover) = linked();
        let null = File::open("/dev/null").unwrap();
        link.hold("b", &[null.as_fd(); 7]).unwrap();
        assert_eq!(link.hold("c", &[null.as_fd()]).unwrap_err().kind(), io::ErrorKind::QuotaExceeded);
        link.hold("a", &[null.as_fd()]).unwrap();
        assert_eq!(link.held(), (8, 10), "the label was replaced");
        link.drop("b");
        link.drop("unknown");
        assert_eq!(link.held(), (1, 10));
        let label = |l: &str| l.to_owned();
        let expected = [
            (ToKeeper::Hold { label: label("b") }, 7),
            (ToKeeper::Hold { label: label("a") }, 1),
            (ToKeeper::Drop { label: label("b") }, 0),
        ];
        assert_eq!(heard(&keeper), expected);
        let long = "x".repeat(LABEL_MAX + 1);
        assert_eq!(link.hold(&long, &[]).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        link.hold(&"x".repeat(LABEL_MAX), &[]).unwrap();
        assert_eq!(heard(&keeper).len(), 1, "the longest label fits a message");
    }

    #[test]
    fn a_full_channel_queues_words_and_refuses_descriptors() {
        let (keeper, mut link, _handover) = linked();
        let null = File::open("/dev/null").unwrap();
        let mut sent = 0u64;
        while !link.wants_write() {
            link.say(&ToKeeper::Stopping { limit_ms: sent });
            sent += 1;
        }
        link.beat(Duration::from_secs(30));
        link.beat(Duration::from_secs(30));
        link.drop("a");
        assert_eq!(link.hold("a", &[null.as_fd()]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert!(!link.flush_within(Duration::from_millis(1)));
        let mut all = heard(&keeper);
        assert!(link.flush_within(Duration::from_secs(30)));
        link.hold("a", &[null.as_fd()]).unwrap();
        all.extend(heard(&keeper));
        let mut expected: Vec<_> = (0..sent).map(|limit_ms| (ToKeeper::Stopping { limit_ms }, 0)).collect();
        expected.push((ToKeeper::Beat { next_ms: 30_000 }, 0));
        expected.push((ToKeeper::Drop { label: "a".into() }, 0));
        expected.push((ToKeeper::Hold { label: "a".into() }, 1));
        assert_eq!(all, expected, "in order, none lost, one heartbeat for two that waited");
    }

    #[test]
    fn a_missing_or_foreign_handover_is_an_error() {
        let over = |send: &dyn Fn(&Chan)| {
            let (keeper, daemon) = Chan::pair().unwrap();
            send(&keeper);
            drop(keeper);
            Link::over(daemon).unwrap_err().kind()
        };
        assert_eq!(over(&|_| {}), io::ErrorKind::UnexpectedEof);
        assert_eq!(over(&|k| k.send(&ToDaemon::HeldEnd.encode(), &[]).unwrap()), io::ErrorKind::InvalidData);
        assert_eq!(over(&|k| k.send(&HELLO.encode(), &[]).unwrap()), io::ErrorKind::InvalidData);
        assert_eq!(over(&|k| k.send(&[VERSION + 1, 1, 0], &[]).unwrap()), io::ErrorKind::InvalidData);
    }
}
