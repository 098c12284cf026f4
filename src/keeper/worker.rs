//! The running daemon as its keeper sees it: its channel, and what it has been told so far.
//!
//! What is still to be told is never a growing list: the handover is a cursor over the labels, ends of runs are a bit
//! for each slot, signals a bit for each number. So a daemon that does not read costs nothing, and a full channel
//! loses nothing.

use super::watch::{Patience, Watch};
use crate::base::control::{ToDaemon, Verdict};
use crate::base::limits::RUN_SLOTS;
use crate::base::map::Map;
use crate::base::time::Mono;
use crate::sys::chan::Chan;
use crate::sys::table::Slot;
use crate::sys::wait;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

const WORDS: usize = RUN_SLOTS.div_ceil(64);

/// Why sending has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blocked {
    No,
    /// Until the channel is writable.
    Full,
    /// For a little while: too many descriptors are on their way, or memory is short.
    Retry,
}

/// How far the handover is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    Hello,
    /// The label that was sent last.
    Held(Option<String>),
    Complete,
}

/// What can be told, beside the ends of runs.
pub(super) struct News<'a> {
    pub(super) hello: ToDaemon,
    /// Table, lock, listener, program.
    pub(super) fds: [BorrowedFd<'a>; 4],
    pub(super) held: &'a Map<String, Vec<OwnedFd>>,
    /// A stop is wanted; `true`: in a hurry.
    pub(super) stop: Option<bool>,
}

/// One message and what it changes once it is sent.
enum Next<'a> {
    Hello,
    Held(&'a String, &'a Vec<OwnedFd>),
    HeldEnd,
    Verdict(Verdict),
    Stop(bool),
    Ask,
    Ended(u32),
    Signal(u32),
}

#[derive(Debug)]
pub(super) struct Worker {
    pid: u32,
    pidfd: OwnedFd,
    /// Its end has been waited for, so that its pid may be somebody else's.
    reaped: bool,
    chan: Option<Chan>,
    up: bool,
    /// It has said that it ends, and that this is as it should be.
    leaving: bool,
    pub(super) watch: Watch,
    /// A question that was not sent yet.
    ask: bool,
    /// How an upgrade came out, while it is not told.
    verdict: Option<Verdict>,
    /// It is of a program that is tried.
    pub(super) trial: bool,
    stage: Stage,
    stop_told: Option<bool>,
    /// Bit n of word w: slot 64 w + n has ended and is to be told.
    ended: Box<[u64; WORDS]>,
    blocked: Blocked,
}

impl Worker {
    pub(super) fn new(pid: u32, pidfd: OwnedFd, chan: Chan, patience: Patience) -> Worker {
        Worker {
            pid,
            pidfd,
            reaped: false,
            chan: Some(chan),
            up: false,
            leaving: false,
            watch: Watch::new(patience),
            ask: false,
            verdict: None,
            trial: false,
            stage: Stage::Hello,
            stop_told: None,
            ended: Box::new([0; WORDS]),
            blocked: Blocked::No,
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    pub(super) fn is_reaped(&self) -> bool {
        self.reaped
    }

    pub(super) fn set_reaped(&mut self) {
        self.reaped = true;
    }

    pub(super) fn is_up(&self) -> bool {
        self.up
    }

    pub(super) fn set_up(&mut self, now: Mono) {
        self.up = true;
        self.watch.up(now);
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.leaving
    }

    pub(super) fn set_leaving(&mut self) {
        self.leaving = true;
    }

    pub(super) fn tell_verdict(&mut self, verdict: Verdict) {
        self.verdict = Some(verdict);
    }

    /// Slots whose end it has not been told.
    pub(super) fn ended(&self) -> impl Iterator<Item = Slot> + '_ {
        let bits = |(at, word): (usize, &u64)| {
            let (base, word) = (u32::try_from(at * 64).unwrap_or(u32::MAX), *word);
            (0..64).filter(move |bit| word & (1 << bit) != 0).filter_map(move |bit| Slot::from_index(base + bit))
        };
        self.ended.iter().enumerate().flat_map(bits)
    }

    /// It served under the program before this one, and has not been told of these ends.
    pub(super) fn resume(&mut self, ended: Vec<u32>) {
        (self.up, self.stage) = (true, Stage::Complete);
        ended.into_iter().filter_map(Slot::from_index).for_each(|slot| self.note_ended(slot));
    }

    pub(super) fn blocked(&self) -> Blocked {
        self.blocked
    }

    /// `None` once it is closed.
    pub(super) fn channel(&self) -> Option<&Chan> {
        self.chan.as_ref()
    }

    pub(super) fn close(&mut self) {
        self.chan = None;
        self.blocked = Blocked::No;
    }

    pub(super) fn signal(&self, signal: i32) -> io::Result<()> {
        wait::pidfd_send_signal(self.pidfd.as_fd(), signal)
    }

    /// Asks whether it is there.
    pub(super) fn ask(&mut self) {
        self.ask = true;
    }

    /// The process of this slot was reaped by the keeper; the daemon is to look at it.
    pub(super) fn note_ended(&mut self, slot: Slot) {
        if let Some(word) = self.ended.get_mut(slot.index() as usize / 64) {
            *word |= 1 << (slot.index() % 64);
        }
    }

    /// Sends until everything is told or the channel takes no more.
    pub(super) fn send(&mut self, news: &News<'_>, signals: &mut u64) {
        self.blocked = Blocked::No;
        while let Some(next) = self.next(news, *signals) {
            let Some(chan) = &self.chan else { return };
            match send_one(chan, &next, news) {
                Ok(()) => self.sent(&next, signals),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.blocked = Blocked::Full;
                    return;
                }
                Err(e) if e.kind() == io::ErrorKind::BrokenPipe => {
                    // What it said before is still to be received, and its end is about to be known.
                    return;
                }
                Err(_) => {
                    self.blocked = Blocked::Retry;
                    return;
                }
            }
        }
    }

    fn next<'a>(&self, news: &News<'a>, signals: u64) -> Option<Next<'a>> {
        let next = match &self.stage {
            Stage::Hello => return Some(Next::Hello),
            Stage::Held(None) => news.held.iter().next(),
            Stage::Held(Some(label)) => news.held.after(label).next(),
            Stage::Complete => return self.next_news(news, signals),
        };
        Some(next.map_or(Next::HeldEnd, |(label, fds)| Next::Held(label, fds)))
    }

    fn next_news<'a>(&self, news: &News<'a>, signals: u64) -> Option<Next<'a>> {
        if let Some(verdict) = self.verdict {
            return Some(Next::Verdict(verdict));
        }
        if let Some(hurry) = news.stop.filter(|hurry| self.stop_told.is_none_or(|told| !told && *hurry)) {
            return Some(Next::Stop(hurry));
        }
        if self.ask {
            return Some(Next::Ask);
        }
        if signals != 0 {
            return Some(Next::Signal(signals.trailing_zeros()));
        }
        let (at, word) = self.ended.iter().enumerate().find(|(_, word)| **word != 0)?;
        u32::try_from(at * 64).ok().map(|base| Next::Ended(base + word.trailing_zeros()))
    }

    fn sent(&mut self, next: &Next<'_>, signals: &mut u64) {
        match next {
            Next::Hello => self.stage = Stage::Held(None),
            Next::Held(label, _) => self.stage = Stage::Held(Some((*label).clone())),
            Next::HeldEnd => self.stage = Stage::Complete,
            Next::Stop(hurry) => self.stop_told = Some(*hurry),
            Next::Verdict(_) => self.verdict = None,
            Next::Ask => self.ask = false,
            Next::Signal(at) => *signals &= !(1 << at),
            Next::Ended(slot) => {
                if let Some(word) = self.ended.get_mut(*slot as usize / 64) {
                    *word &= !(1 << (slot % 64));
                }
            }
        }
    }
}

fn send_one(chan: &Chan, next: &Next<'_>, news: &News<'_>) -> io::Result<()> {
    match next {
        Next::Hello => chan.send(&news.hello.encode(), &news.fds),
        Next::Held(label, fds) => {
            let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
            chan.send(&ToDaemon::Held { label: (*label).clone() }.encode(), &fds)
        }
        Next::HeldEnd => chan.send(&ToDaemon::HeldEnd.encode(), &[]),
        Next::Stop(hurry) => chan.send(&ToDaemon::Stop { hurry: *hurry }.encode(), &[]),
        Next::Verdict(verdict) => chan.send(&ToDaemon::Upgraded { verdict: *verdict }.encode(), &[]),
        Next::Ask => chan.send(&ToDaemon::Ask.encode(), &[]),
        Next::Ended(slot) => chan.send(&ToDaemon::Ended { slot: *slot }.encode(), &[]),
        Next::Signal(at) => {
            let number = u8::try_from(at + 1).unwrap_or(0);
            chan.send(&ToDaemon::Signal { number }.encode(), &[])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::control::{BYTES_MAX, Inherited};
    use std::fs::File;

    fn worker() -> (Worker, Chan) {
        let (ours, theirs) = Chan::pair().unwrap();
        let pidfd = File::open("/dev/null").unwrap().into();
        (Worker::new(1, pidfd, ours, Patience::default()), theirs)
    }

    fn heard(chan: &Chan) -> Option<(ToDaemon, usize)> {
        let mut buf = [0; BYTES_MAX];
        let (n, fds) = chan.recv(&mut buf).ok()??;
        Some((ToDaemon::decode(&buf[..n]).unwrap(), fds.len()))
    }

    #[test]
    fn the_handover_goes_on_where_a_full_channel_stopped_it_and_news_come_after() {
        let null = File::open("/dev/null").unwrap();
        let labels = 2000;
        let held: Map<String, Vec<OwnedFd>> = (0..labels)
            .map(|i| (format!("{i:05}"), (0..i % 3).map(|_| null.try_clone().unwrap().into()).collect()))
            .collect();
        let (mut w, theirs) = worker();
        let inherited = Inherited { nofile: 1, oom_score_adj: 0, hold_max: 2 };
        let news = News {
            hello: ToDaemon::Hello { keeper_pid: 1, generation: 1, flags: 0, inherited },
            fds: [null.as_fd(); 4],
            held: &held,
            stop: Some(false),
        };
        for slot in [0, 63, 64, 16_383] {
            w.note_ended(Slot::from_index(slot).unwrap());
        }
        let mut signals = super::super::bit(1) | super::super::bit(64);
        let (mut all, mut stops) = (Vec::new(), 0);
        loop {
            w.send(&news, &mut signals);
            stops += usize::from(w.blocked() != Blocked::No);
            let before = all.len();
            all.extend(std::iter::from_fn(|| heard(&theirs)));
            if all.len() == before {
                break;
            }
        }
        assert!(stops > 0, "2,000 messages do not fit into a channel at once");
        assert!(matches!(all[0], (ToDaemon::Hello { .. }, 4)));
        for (i, (message, fds)) in all[1..=labels].iter().enumerate() {
            assert_eq!((message, *fds), (&ToDaemon::Held { label: format!("{i:05}") }, i % 3));
        }
        let rest: Vec<_> = all[labels + 1..].iter().map(|(m, _)| m.clone()).collect();
        let ended = |slot| ToDaemon::Ended { slot };
        let expected = [
            ToDaemon::HeldEnd,
            ToDaemon::Stop { hurry: false },
            ToDaemon::Signal { number: 1 },
            ToDaemon::Signal { number: 64 },
            ended(0),
            ended(63),
            ended(64),
            ended(16_383),
        ];
        assert_eq!(rest, expected);
        assert_eq!(signals, 0);
        w.send(&News { stop: Some(true), ..news }, &mut signals);
        assert_eq!(heard(&theirs), Some((ToDaemon::Stop { hurry: true }, 0)), "hurry is told even after a stop");
        assert_eq!(heard(&theirs), None);
    }
}
