//! Which descriptor a mio token stands for. Tokens never repeat, so a stale event of a closed source finds nothing.

use crate::base::ids::{ConnId, RunId};
use mio::event::Source as _;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;

/// What a readable or writable descriptor belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    Listener,
    /// Results of the pool.
    Waker,
    /// Signals sent to the daemon itself.
    Signals,
    Keeper,
    Conn(ConnId),
    /// The main process of a run.
    Child(RunId),
    /// Who is left of a run's control group has changed.
    Tree(RunId),
    /// A connection attempt of a readiness check.
    Probe(RunId),
    /// A connection of a health check.
    Dial(RunId),
    /// The output pipe of a service.
    Output(Arc<str>),
    /// The sd_notify socket of a service.
    Notify(Arc<str>),
    /// The ready pipe of a service.
    Ready(Arc<str>),
    /// A listening socket of a service, by its place.
    Socket(Arc<str>, usize),
    /// What a command beside a run prints.
    Words(RunId),
    /// The wall clock was set.
    Wall,
}

/// The token table: a slab whose entries carry a generation.
#[derive(Debug, Default)]
pub struct Sources {
    entries: Vec<(u32, Option<Source>)>,
    free: Vec<u32>,
}

const INDEX_BITS: u32 = 24;
/// As much of a generation as fits beside the index: 32 bits, or 8 where a word has 32.
const GENERATION_BITS: u32 = if usize::BITS - INDEX_BITS < 32 { usize::BITS - INDEX_BITS } else { 32 };

impl Sources {
    /// Registers a descriptor. The caller keeps it open until `remove`.
    ///
    /// # Errors
    /// What the selector answers, such as ENOSPC when the user's limit of watches is reached.
    pub fn add(&mut self, registry: &Registry, fd: RawFd, interest: Interest, source: Source) -> io::Result<Token> {
        let token = self.reserve(source)?;
        match SourceFd(&fd).register(registry, token, interest) {
            Ok(()) => Ok(token),
            Err(e) => {
                self.forget(token);
                Err(e)
            }
        }
    }

    /// A token for what registers itself (the waker, the signal source).
    ///
    /// # Errors
    /// When 16 million sources exist.
    pub fn reserve(&mut self, source: Source) -> io::Result<Token> {
        if let Some(index) = self.free.pop() {
            let entry = &mut self.entries[index as usize];
            entry.1 = Some(source);
            return Ok(token(index, entry.0));
        }
        let index = u32::try_from(self.entries.len()).ok().filter(|i| *i < 1 << INDEX_BITS);
        let index = index.ok_or_else(|| io::Error::other("too many open sources"))?;
        self.entries.push((0, Some(source)));
        Ok(token(index, 0))
    }

    #[must_use]
    pub fn get(&self, token: Token) -> Option<&Source> {
        let (index, generation) = split(token);
        match self.entries.get(index) {
            Some((g, source)) if *g == generation => source.as_ref(),
            _ => None,
        }
    }

    /// Deregisters a descriptor that is about to be closed. A duplicate in the keeper would keep it alive in the
    /// selector, so this must come before every close.
    pub fn remove(&mut self, registry: &Registry, fd: RawFd, token: Token) {
        // An error here means that it was not registered, which is what is wanted.
        let _ = SourceFd(&fd).deregister(registry);
        self.forget(token);
    }

    fn forget(&mut self, token: Token) {
        let (index, generation) = split(token);
        if let Some(entry) = self.entries.get_mut(index)
            && entry.0 == generation
            && entry.1.take().is_some()
        {
            entry.0 = masked(entry.0.wrapping_add(1), GENERATION_BITS);
            self.free.push(u32::try_from(index).unwrap_or(0));
        }
    }
}

fn token(index: u32, generation: u32) -> Token {
    Token(index as usize | (generation as usize) << INDEX_BITS)
}

fn split(token: Token) -> (usize, u32) {
    (
        token.0 & ((1 << INDEX_BITS) - 1),
        masked(u32::try_from(token.0 >> INDEX_BITS).unwrap_or(u32::MAX), GENERATION_BITS),
    )
}

/// The lowest bits of a generation, as many as a token carries.
fn masked(generation: u32, bits: u32) -> u32 {
    generation & u32::MAX.checked_shr(u32::BITS - bits).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_of_a_closed_source_finds_nothing() {
        let mut s = Sources::default();
        let a = s.reserve(Source::Listener).unwrap();
        s.forget(a);
        let b = s.reserve(Source::Keeper).unwrap();
        assert_ne!(a, b);
        assert_eq!(s.get(a), None);
        assert_eq!(s.get(b), Some(&Source::Keeper));
        s.forget(a);
        assert_eq!(s.get(b), Some(&Source::Keeper), "a second close of the old one does not hurt the new one");
    }

    #[test]
    fn a_generation_survives_its_token_however_often_a_place_was_used() {
        assert_eq!([masked(255, 8), masked(256, 8), masked(u32::MAX, 32)], [255, 0, u32::MAX]);
        let mut s = Sources::default();
        for _ in 0..1000 {
            let token = s.reserve(Source::Waker).unwrap();
            assert_eq!(split(token).0, 0);
            assert_eq!(s.get(token), Some(&Source::Waker));
            s.forget(token);
            assert_eq!(s.get(token), None);
        }
        let last = masked(u32::MAX, GENERATION_BITS);
        assert_eq!(split(token(5, last)), (5, last));
    }
}
