//! What few tasks have, kept apart so that very many which only wait take little memory. Pure.

use super::{BACKOFF, Keys, TIMEOUT, Task};
use crate::base::time::{Mono, Wall};
use crate::protocol::methods::task::After;
use core::ops::{Deref, DerefMut};
use core::time::Duration;

/// What few tasks have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rare {
    pub weight: u32,
    pub retries: u32,
    /// Failures since it was queued by a person.
    pub fails: u32,
    /// How many of those it follows are not over.
    pub blocked: u32,
    /// Starts in a row that the machine refused.
    pub refused: u8,
    pub backoff: Duration,
    /// Zero: it may run for ever.
    pub timeout: Duration,
    /// When it may start at the earliest; 0 at once.
    pub not_before: Wall,
    /// The same for the next try, after a failure or a start that the machine refused.
    pub again_at: Wall,
    /// What decides of these: the same in awake time, which no step of the clock changes.
    pub again: Mono,
    pub after: Vec<After>,
    pub stdin: Option<Box<[u8]>>,
    pub keys: Option<Box<Keys>>,
    /// Why it is in its state, where that needs words.
    pub why: Option<Box<str>>,
    /// When it was over, where that was not the end of an attempt.
    pub over: Option<Wall>,
}

pub(super) static ORDINARY: Rare = Rare::ordinary();

impl Rare {
    #[must_use]
    pub const fn ordinary() -> Rare {
        Rare {
            weight: 1,
            retries: 0,
            fails: 0,
            blocked: 0,
            refused: 0,
            backoff: BACKOFF,
            timeout: TIMEOUT,
            not_before: Wall(0),
            again_at: Wall(0),
            again: Mono(0),
            after: Vec::new(),
            stdin: None,
            keys: None,
            why: None,
            over: None,
        }
    }

    /// As a task keeps it: an ordinary one takes no room.
    #[must_use]
    pub fn kept(self) -> Option<Box<Rare>> {
        (self != ORDINARY).then(|| Box::new(self))
    }
}

impl Deref for Task {
    type Target = Rare;

    fn deref(&self) -> &Rare {
        self.rare.as_deref().unwrap_or(&ORDINARY)
    }
}

impl DerefMut for Task {
    fn deref_mut(&mut self) -> &mut Rare {
        self.rare.get_or_insert_with(|| Box::new(Rare::ordinary()))
    }
}
