//! Marks in the run table's header that outlive the daemon: what it is at, so that after deaths in a row the daemon in
//! safe mode can name what was at fault, and leave out what it dies of itself. Reads HOB_FAULT.
//!
//! HOB_FAULT is a switch for tests alone: `HOB_FAULT=STAGE` makes every daemon abort when it comes to that stage,
//! `STAGE:COUNT` the first COUNT daemons of their keeper, `STAGE:FIRST-LAST` those from FIRST to LAST; commas separate
//! several of these. A daemon in safe mode knows its stages as `safe-STAGE`. Jobs do not get the variable.

use crate::core::Input;
use crate::sys::table::RunTable;
use std::path::Path;
use std::sync::atomic::Ordering::{Acquire, Release};

/// Spare words of the header: what the daemon is at, the stages that daemons in safe mode died in, and the next.
const AT: usize = 0;
const DIED_IN: usize = 1;
/// How many daemons of this keeper have ended on purpose.
const LEFT: usize = 2;

/// The variable that makes daemons abort.
pub const FAULT: &str = "HOB_FAULT";

/// What a daemon is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Nothing that could be named.
    Begin = 0,
    Log = 1,
    Journal = 2,
    Config = 3,
    Jobs = 4,
    State = 5,
    Serving = 6,
    /// It is of a new program, and about to say that it serves.
    Trial = 7,
}

impl Stage {
    const ALL: [Stage; 8] = [
        Stage::Begin,
        Stage::Log,
        Stage::Journal,
        Stage::Config,
        Stage::Jobs,
        Stage::State,
        Stage::Serving,
        Stage::Trial,
    ];

    fn name(self) -> &'static str {
        match self {
            Stage::Begin => "begin",
            Stage::Log => "log",
            Stage::Journal => "journal",
            Stage::Config => "config",
            Stage::Jobs => "jobs",
            Stage::State => "state",
            Stage::Serving => "serving",
            Stage::Trial => "trial",
        }
    }
}

/// The marks of one daemon.
#[derive(Clone, Debug)]
pub struct Marks {
    table: RunTable,
    /// In safe mode: what the daemon before safe mode was at is kept.
    safe: bool,
    /// The stages at which this daemon is to abort.
    faults: Vec<String>,
}

impl Marks {
    /// The marks of the daemon of this `generation`.
    #[must_use]
    pub fn new(table: RunTable, safe: bool, generation: u32) -> Marks {
        let faults = std::env::var(FAULT).map_or_else(|_| Vec::new(), |text| faults(&text, generation));
        let marks = Marks { table, safe, faults };
        if !safe {
            marks.store(DIED_IN, 0);
        }
        marks
    }

    /// The daemon comes to a stage. `false` in safe mode, when a daemon in safe mode has died in it: leave it out.
    #[must_use]
    pub fn enter(&self, stage: Stage) -> bool {
        if !self.safe {
            self.store(AT, word(stage, 0, 0));
        } else if self.load(DIED_IN) & bit(stage) != 0 {
            return false;
        } else {
            self.store(DIED_IN, self.load(DIED_IN) | bit(stage));
        }
        let prefix = if self.safe { "safe-" } else { "" };
        if self.faults.iter().any(|f| f.strip_prefix(prefix) == Some(stage.name())) {
            std::process::abort();
        }
        true
    }

    /// A daemon in safe mode has survived a stage.
    pub fn left(&self, stage: Stage) {
        if self.safe {
            self.store(DIED_IN, self.load(DIED_IN) & !bit(stage));
        }
    }

    /// This daemon ends for another one, as it should.
    pub fn leave(&self) {
        self.store(LEFT, self.load(LEFT) + 1);
    }

    /// How many of the daemons before this one, of `generation`, have died.
    #[must_use]
    pub fn deaths(&self, generation: u32) -> u32 {
        generation.saturating_sub(1).saturating_sub(u32::try_from(self.load(LEFT)).unwrap_or(u32::MAX))
    }

    /// A record of the journal is read.
    pub fn record(&self, number: u64) {
        if !self.safe {
            self.store(AT, word(Stage::Journal, 0, number));
        }
    }

    /// The daemon serves and turns to this input, with so many records in the journal.
    pub fn input(&self, input: &Input, records: u64) {
        if !self.safe {
            self.store(AT, word(Stage::Serving, kind(input), records));
        }
    }

    /// The same for a question that is answered without an input.
    pub fn question(&self, records: u64) {
        if !self.safe {
            self.store(AT, word(Stage::Serving, REQUEST, records));
        }
    }

    /// What the daemon before this one was at, for people: the record or the config at fault.
    #[must_use]
    pub fn at_fault(&self, config: &Path) -> String {
        let at = self.load(AT);
        let records = at & ((1 << 48) - 1);
        let stage = Stage::ALL.into_iter().find(|s| u64::from(*s as u8) == at >> 56).unwrap_or(Stage::Begin);
        let last =
            if records == 0 { String::new() } else { format!(", with record {records} of the journal the last") };
        match stage {
            Stage::Begin => "it died before it had begun with anything".to_owned(),
            Stage::Trial => "it died when it was tried".to_owned(),
            Stage::Log => "it died while opening its log".to_owned(),
            Stage::Journal if records == 0 => "it died while opening the journal".to_owned(),
            Stage::Journal => format!("it died while reading record {records} of the journal"),
            Stage::Config => format!("it died while reading the config {}", config.display()),
            Stage::Jobs => "it died while taking over the jobs".to_owned(),
            Stage::State => "it died while bringing journal, config and jobs together".to_owned(),
            Stage::Serving => match KINDS.get(usize::try_from(at >> 48 & 0xff).unwrap_or(0)) {
                Some(&"a config") => format!("it died while applying the config {}{last}", config.display()),
                Some(what) => format!("it died while serving, over {what}{last}"),
                None => format!("it died while serving{last}"),
            },
        }
    }

    fn store(&self, at: usize, value: u64) {
        if let Some(word) = self.table.spare(at) {
            word.store(value, Release);
        }
    }

    fn load(&self, at: usize) -> u64 {
        self.table.spare(at).map_or(0, |word| word.load(Acquire))
    }
}

fn word(stage: Stage, kind: u8, number: u64) -> u64 {
    u64::from(stage as u8) << 56 | u64::from(kind) << 48 | number & ((1 << 48) - 1)
}

fn bit(stage: Stage) -> u64 {
    1 << stage as u8
}

/// The stages that the text of HOB_FAULT names for this daemon.
fn faults(text: &str, generation: u32) -> Vec<String> {
    let one = |fault: &str| {
        let Some((stage, which)) = fault.split_once(':') else { return Some(fault.to_owned()) };
        let (first, last) = which.split_once('-').unwrap_or(("1", which));
        let concerned = (first.parse().ok()?..=last.parse().ok()?).contains(&generation);
        concerned.then(|| stage.to_owned())
    };
    text.split(',').filter_map(one).collect()
}

/// Inputs by the number that the mark has for them.
const KINDS: [&str; 10] = [
    "a word of its keeper",
    "a deadline",
    "a request",
    "a connection",
    "a start",
    "the end of a job",
    "a word of a job",
    "the output of a job",
    "a config",
    "the state of the journal",
];

/// The place of a request in `KINDS`.
const REQUEST: u8 = 2;

fn kind(input: &Input) -> u8 {
    match input {
        Input::Boot(_)
        | Input::Stop { .. }
        | Input::Reload
        | Input::Renew { .. }
        | Input::UpgradeEnded { .. }
        | Input::Upgraded { .. }
        | Input::OtherProgram { .. }
        | Input::Forward { .. }
        | Input::KeeperGone => 0,
        Input::Tick | Input::WallSet { .. } => 1,
        Input::Request { .. }
        | Input::Measured { .. }
        | Input::Rotated { .. }
        | Input::Platform { .. }
        | Input::Examined { .. } => REQUEST,
        Input::Closed { .. } | Input::Lagged { .. } | Input::Listening { .. } | Input::Connection { .. } => 3,
        Input::Started { .. } | Input::StartWaits { .. } => 4,
        Input::Exited { .. } | Input::Tree { .. } => 5,
        Input::ReadySeen { .. }
        | Input::Heard { .. }
        | Input::Checked { .. }
        | Input::Notify { .. }
        | Input::Newest { .. } => 6,
        Input::Output { .. } => 7,
        Input::ConfigRead { .. } => 8,
        Input::Synced { .. } | Input::JournalBehind { .. } | Input::JournalFull { .. } | Input::OutputLost { .. } => 9,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(table: &RunTable, safe: bool) -> Marks {
        Marks { safe, faults: Vec::new(), ..Marks::new(table.clone(), true, 1) }
    }

    #[test]
    fn the_daemon_in_safe_mode_finds_what_the_one_before_was_at() {
        let table = RunTable::create().unwrap();
        let at = |m: &Marks| marks(&table, true).at_fault(Path::new(if m.safe { "?" } else { "/h/hob.json" }));
        let m = marks(&table, false);
        assert!(m.enter(Stage::Config));
        assert_eq!(at(&m), "it died while reading the config /h/hob.json");
        assert!(m.enter(Stage::Journal));
        assert_eq!(at(&m), "it died while opening the journal");
        m.record(4711);
        assert_eq!(at(&m), "it died while reading record 4711 of the journal");
        m.input(&Input::Tick, 12);
        assert_eq!(at(&m), "it died while serving, over a deadline, with record 12 of the journal the last");
        let result = Err(String::new());
        m.input(&Input::ConfigRead { req: None, look: false, result }, 0);
        assert_eq!(at(&m), "it died while applying the config /h/hob.json");
        let safe = marks(&table, true);
        assert!(safe.enter(Stage::Journal));
        safe.record(1);
        assert_eq!(at(&m), "it died while applying the config /h/hob.json", "in safe mode nothing is marked anew");
    }

    #[test]
    fn in_safe_mode_a_stage_that_killed_is_left_out() {
        let table = RunTable::create().unwrap();
        let first = marks(&table, true);
        assert!(first.enter(Stage::Journal));
        first.left(Stage::Journal);
        assert!(first.enter(Stage::Config));
        let second = marks(&table, true);
        assert!(second.enter(Stage::Journal));
        second.left(Stage::Journal);
        assert!(!second.enter(Stage::Config), "the first one never left it");
        let _ = Marks::new(table.clone(), false, 9);
        assert!(marks(&table, true).enter(Stage::Config), "an ordinary daemon forgets it");
        assert_eq!(second.deaths(3), 2);
        second.leave();
        assert_eq!(first.deaths(4), 2, "one of three has ended on purpose");
    }

    #[test]
    fn a_fault_concerns_all_daemons_or_some() {
        assert_eq!(faults("journal,jobs", 9), ["journal", "jobs"]);
        assert_eq!(faults("safe-config:3,jobs:1-2,log:3-4", 3), ["safe-config", "log"]);
        assert!(faults("config:3,log:x,state:9", 10).is_empty());
    }
}
