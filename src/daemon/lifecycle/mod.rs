//! A daemon between others: what it reads when it comes up, how it ends, and the marks that it leaves for the one after
//! a crash.

pub mod check;
pub(super) mod end;
pub(super) mod left;
pub mod mark;
pub(super) mod outside;
pub(super) mod read;
pub mod upgrade;

use super::Ending;
use crate::base::control::{FLAG_TRIAL, FLAG_UPGRADE};
use crate::base::ids::RunId;
use crate::base::time::Mono;
use crate::config::Config;
use crate::core::Boot;
use core::time::Duration;
use mark::Marks;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use upgrade::Note;

/// What a daemon knows of its own life.
pub(super) struct Lifecycle {
    pub(super) marks: Marks,
    /// It only looks and answers.
    pub(super) safe: bool,
    /// From one heartbeat to the next, as settings have it; zero: there are none.
    pub(super) heartbeat: Duration,
    /// How it is to end, once that is decided.
    pub(super) ending: Option<Ending>,
    /// It is of a program that is tried, and has not said `Up`.
    pub(super) trial: bool,
    /// The file that it runs from.
    pub(super) program: OwnedFd,
    /// Device and number of that file.
    pub(super) own: Option<(u64, u64)>,
    /// Its place is being looked at, which may take for ever.
    pub(super) seeking: bool,
    /// The other program at its place that was told of.
    pub(super) told_of: Option<(u64, u64)>,
    pub(super) generation: u32,
    /// Of an upgrade whose caller has not been told how it came out.
    pub(super) note: Option<Note>,
    /// No client is answered before the keeper has said how an upgrade came out, or this time.
    pub(super) word_by: Option<Mono>,
    /// A service manager wants to hear of reloads; one is over and is to be told.
    pub(super) outer: bool,
    pub(super) reloaded: bool,
    pub(super) outside: outside::Outside,
    /// How long a shutdown takes at most, by the config.
    pub(in crate::daemon) stop_limit: Duration,
    /// A folder that goes with hob.
    pub(super) remove: Option<PathBuf>,
    /// Runs to be forgotten once their ends are in the journal.
    pub(super) ended: Vec<RunId>,
}

impl Lifecycle {
    /// `flags` of the keeper's first message; `held` is what it held as a note of an upgrade.
    pub(super) fn new(
        marks: Marks,
        boot: &Boot,
        flags: u32,
        program: OwnedFd,
        note: Option<Note>,
        now: Mono,
    ) -> Lifecycle {
        Lifecycle {
            marks,
            safe: boot.safe.is_some(),
            heartbeat: Duration::ZERO,
            ending: None,
            trial: flags & FLAG_TRIAL != 0,
            own: upgrade::identity(&program).ok(),
            seeking: false,
            told_of: None,
            program,
            generation: boot.generation,
            outer: boot.outer,
            reloaded: false,
            note,
            word_by: (flags & FLAG_UPGRADE != 0).then(|| now + upgrade::WORD_LIMIT),
            outside: outside::Outside::default(),
            stop_limit: Duration::ZERO,
            remove: None,
            ended: Vec::new(),
        }
    }
}

/// What is left of a boot in safe mode when daemons died of the rest: that hob is in safe mode, and who may ask.
pub(super) fn bare_boot(full: Boot) -> Boot {
    let config = Config { daemon: full.config.daemon, ..Config::default() };
    Boot { config, entities: Vec::new(), table: Vec::new(), events: Vec::new(), main: None, ..full }
}
