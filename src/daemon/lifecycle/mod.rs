//! A daemon between others: what it reads when it comes up, how it ends, and the marks that it leaves for the one after
//! a crash.

pub(super) mod end;
pub mod mark;
pub(super) mod read;

use crate::config::Config;
use crate::core::Boot;

/// What is left of a boot in safe mode when daemons died of the rest: that hob is in safe mode, and who may ask.
pub(super) fn bare_boot(full: Boot) -> Boot {
    let config = Config { daemon: full.config.daemon, ..Config::default() };
    Boot { config, entities: Vec::new(), table: Vec::new(), events: Vec::new(), main: None, ..full }
}
