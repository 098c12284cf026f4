//! A daemon between others: what it reads when it comes up, how it ends, and the marks that it leaves for the one after
//! a crash.

pub(super) mod end;
pub mod mark;
pub(super) mod read;

use super::Ending;
use crate::config::Config;
use crate::core::Boot;
use core::time::Duration;
use mark::Marks;

/// What a daemon knows of its own life.
pub(super) struct Lifecycle {
    pub(super) marks: Marks,
    /// It only looks and answers.
    pub(super) safe: bool,
    /// From one heartbeat to the next, as settings have it; zero: there are none.
    pub(super) heartbeat: Duration,
    /// How it is to end, once that is decided.
    pub(super) ending: Option<Ending>,
}

impl Lifecycle {
    pub(super) fn new(marks: Marks, boot: &Boot) -> Lifecycle {
        Lifecycle { marks, safe: boot.safe.is_some(), heartbeat: Duration::ZERO, ending: None }
    }
}

/// What is left of a boot in safe mode when daemons died of the rest: that hob is in safe mode, and who may ask.
pub(super) fn bare_boot(full: Boot) -> Boot {
    let config = Config { daemon: full.config.daemon, ..Config::default() };
    Boot { config, entities: Vec::new(), table: Vec::new(), events: Vec::new(), main: None, ..full }
}
