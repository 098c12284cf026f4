//! What a daemon reads when it comes up: journal, event ring and config. Touches these files; in safe mode it only
//! reads them.

use super::mark::{Marks, Stage};
use super::outside;
use crate::base::control::{FLAG_RELOAD, FLAG_TRIAL};
use crate::base::limits::CONFIG_MAX;
use crate::base::paths::Paths;
use crate::base::text::without_numbers;
use crate::base::time::Wall;
use crate::config::{self, Config, Level};
use crate::core::Boot;
use crate::daemon::capture::leftover;
use crate::daemon::events;
use crate::daemon::gear::Gear;
use crate::daemon::journal::{Journal, Loaded};
use crate::sys;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// How it is read.
pub(in crate::daemon) struct Reading<'a> {
    pub(in crate::daemon) paths: &'a Paths,
    pub(in crate::daemon) marks: &'a Marks,
    /// Nothing is writable.
    pub(in crate::daemon) bare: bool,
    /// hob runs for one command.
    pub(in crate::daemon) main: bool,
    /// Of the keeper's first message.
    pub(in crate::daemon) flags: u32,
}

impl Reading<'_> {
    fn trial(&self) -> bool {
        self.flags & FLAG_TRIAL != 0
    }

    /// Journal and event ring. Where no journal can be opened hob goes on from memory and says so.
    pub(in crate::daemon) fn restore(
        &self,
        clean: &mut bool,
        boot: &mut Boot,
        gear: &mut Gear,
    ) -> (Journal, events::EventLog) {
        if boot.safe.is_some() || self.trial() {
            return self.look(boot, gear);
        }
        let _ = self.marks.enter(Stage::Journal);
        if self.bare {
            *clean = false;
            return (Journal::none().journal, events::EventLog::open(&self.paths.state).log);
        }
        let loaded = Journal::open_marked(&self.paths.state, Some(self.marks)).unwrap_or_else(|e| {
            gear.log(Level::Error, format!("cannot open the journal in {}: {e}", self.paths.state.display()));
            *clean = false;
            // What can still be read tells whose the jobs are that run.
            let read = Journal::check(&self.paths.state).ok();
            Loaded { entities: read.map(|r| r.entities).unwrap_or_default(), ..Journal::none() }
        });
        *clean &= loaded.reports.is_empty();
        for report in loaded.reports {
            gear.log(Level::Warn, report);
        }
        boot.entities = loaded.entities;
        let ring = events::EventLog::open(&self.paths.state);
        for report in ring.reports {
            gear.log(Level::Warn, report);
        }
        boot.gap = loaded.gap;
        boot.events = ring.events;
        if boot.generation <= 1 {
            boot.newest_output = newest_output(&self.paths.logs);
        }
        (loaded.journal, ring.log)
    }

    /// The same for a daemon that writes to neither.
    fn look(&self, boot: &mut Boot, gear: &mut Gear) -> (Journal, events::EventLog) {
        let state = &self.paths.state;
        if self.marks.enter(Stage::Journal) {
            match Journal::check(state) {
                Ok(checked) => {
                    boot.entities = checked.entities;
                    checked.reports.iter().for_each(|report| gear.log(Level::Warn, report));
                }
                Err(e) => gear.log(Level::Error, format!("cannot read the journal in {}: {e}", state.display())),
            }
        }
        self.marks.left(Stage::Journal);
        let ring = events::EventLog::open(state);
        boot.events = ring.events;
        (Journal::closed(), ring.log)
    }

    /// The config, made on the first start. A death of the daemon is no reload: later daemons go on with what was in
    /// effect. So does a new keeper whose file has mistakes, so that a typo does not stop a machine's services at its
    /// next boot. Answers what is wrong with the file then. Where nothing was in effect before, a broken file leaves
    /// hob without services but answering, so that it can be mended.
    pub(in crate::daemon) fn configure(&self, boot: &mut Boot, gear: &mut Gear) -> Option<String> {
        if !self.marks.enter(Stage::Config) {
            boot.config_error = Some(config::LEFT_OUT.to_owned());
            return None;
        }
        let copy = config_in_effect(self.paths);
        if boot.generation > 1 {
            let asked = self.flags & FLAG_RELOAD != 0;
            let wrong = read_config(&self.paths.config).err();
            if (!asked || wrong.is_some()) && go_on_with(&copy, boot) {
                self.marks.left(Stage::Config);
                return wrong;
            }
        }
        let config = match boot.safe.is_some() || self.trial() {
            true if self.main && !self.paths.config.exists() => Ok(Config::default()),
            true => read_config(&self.paths.config),
            false => self.first(gear),
        };
        match config {
            Ok(config) => boot.config = config,
            Err(errors) if boot.generation <= 1 && go_on_with(&copy, boot) => {
                self.marks.left(Stage::Config);
                return Some(errors);
            }
            Err(errors) => {
                gear.log(Level::Error, format!("the config has errors, so no service is started by it:\n{errors}"));
                boot.config_error = Some(errors);
            }
        }
        self.marks.left(Stage::Config);
        None
    }

    /// The config of a new keeper.
    fn first(&self, gear: &mut Gear) -> Result<Config, String> {
        // A link that leads nowhere is not for hob to replace: what it names may be on its way.
        if !self.paths.config.is_symlink() && !self.paths.config.exists() {
            if self.main {
                // What an earlier keeper had must not come back.
                let _ = sys::file::remove(&config_in_effect(self.paths));
                return Ok(Config::default());
            }
            if config_in_effect(self.paths).exists() {
                return Err(format!("{}: it was there and is gone", self.paths.config.display()));
            }
            match write_default(&self.paths.config) {
                Ok(()) => {
                    gear.log(Level::Info, format!("made a config with examples: {}", self.paths.config.display()))
                }
                Err(e) => {
                    let why = format!("cannot make {}: {}", self.paths.config.display(), sys::reason(&e));
                    gear.log(Level::Warn, &why);
                    return Err(why);
                }
            }
        }
        take_config(self.paths)
    }
}

/// The highest number of a task that has written something; 0 where none has.
fn newest_output(logs: &Path) -> u64 {
    let files = std::fs::read_dir(logs.join("tasks")).into_iter().flatten().flatten();
    let number = |file: std::fs::DirEntry| Some(leftover::written_by(file.file_name().to_str()?)?.0);
    files.filter_map(number).max().unwrap_or(0)
}

/// The journal, opened for writing by a daemon that has read it before.
pub(in crate::daemon) fn journal(paths: &Paths, gear: &mut Gear) -> Journal {
    match Journal::open(&paths.state) {
        Ok(loaded) => {
            loaded.reports.iter().for_each(|report| gear.log(Level::Warn, report));
            loaded.journal
        }
        Err(e) => {
            gear.log(Level::Error, format!("cannot open the journal in {}: {e}", paths.state.display()));
            Journal::none().journal
        }
    }
}

/// Takes the config that was in effect before; whether there is one.
fn go_on_with(copy: &Path, boot: &mut Boot) -> bool {
    let Ok(config) = read_config(copy) else { return false };
    boot.config = config;
    boot.config_taken = copy.metadata().ok().map(|m| Wall(m.mtime() * 1000 + m.mtime_nsec() / 1_000_000));
    true
}

/// Where the text of the config that is in effect is kept for the next daemon, of this keeper or a later one.
pub(in crate::daemon) fn config_in_effect(paths: &Paths) -> PathBuf {
    paths.state.join("config.json")
}

/// Reads and checks the config file, and keeps its text as the one in effect before anything of it is.
fn take_config(paths: &Paths) -> Result<Config, String> {
    let (config, text) = read_text(&paths.config)?;
    keep_config(paths, &text);
    Ok(config)
}

/// Keeps the text of a config as the one in effect. Without a copy the next daemon reads the file itself.
pub(in crate::daemon) fn keep_config(paths: &Paths, text: &[u8]) {
    let copy = config_in_effect(paths);
    if stays(&copy, text).unwrap_or(false) {
        return;
    }
    if sys::file::atomic_write(&copy, text, 0o600, false).is_err() {
        let _ = sys::file::remove(&copy);
    }
}

/// Whether a copy says this already; then it is as if it had been written now. To replace a file takes longer than all
/// else that a start writes, because some file systems then bring the new one to the disk.
fn stays(copy: &Path, text: &[u8]) -> io::Result<bool> {
    if sys::file::read_whole(copy, CONFIG_MAX as u64)? != text {
        return Ok(false);
    }
    sys::file::open_regular(copy)?.set_modified(std::time::SystemTime::now())?;
    Ok(true)
}

/// The schema beside a config is that of the program that runs. Where there is none, nobody wants it. To make it takes
/// as long as all else of a start, so that it is work for the pool.
///
/// # Errors
/// That it cannot be written, as a sentence.
pub(in crate::daemon) fn renew_schema(config: &Path) -> Result<(), String> {
    let path = config.with_file_name(config::SCHEMA_FILE);
    let Ok(old) = sys::file::read_whole(&path, CONFIG_MAX as u64) else { return Ok(()) };
    let text = config::schema_text(sys::signals::platform());
    if old == text.as_bytes() {
        return Ok(());
    }
    let written = sys::file::atomic_write(&path, text.as_bytes(), 0o644, false);
    written.map_err(|e| format!("cannot write {} anew: {e}", config::SCHEMA_FILE))
}

/// The schema goes first, so that the config never names one that is not there.
fn write_default(path: &Path) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        sys::file::create_dir_all(folder, 0o700)?;
    }
    let schema = config::schema_text(sys::signals::platform());
    sys::file::atomic_write(&path.with_file_name(config::SCHEMA_FILE), schema.as_bytes(), 0o644, false)?;
    sys::file::atomic_write(path, config::DEFAULT.as_bytes(), 0o600, true)
}

/// Reads and checks a config file; an error is the text of all that is wrong.
pub(in crate::daemon) fn read_config(path: &Path) -> Result<Config, String> {
    read_text(path).map(|(config, _)| config)
}

/// The same, with its text.
pub(in crate::daemon) fn read_text(path: &Path) -> Result<(Config, Vec<u8>), String> {
    let name = path.display().to_string();
    let read = outside::alone(path, || sys::file::read_whole(path, CONFIG_MAX as u64))?;
    let bytes = read.map_err(|e| without_numbers(&format!("{name}: {e}")))?;
    let config = config::parse_bytes(&bytes, &name, sys::signals::platform())
        .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))?;
    Ok((config, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::paths::PathInput;
    use std::time::{Duration, SystemTime};

    #[test]
    fn a_config_that_is_kept_again_is_as_of_now_and_another_one_replaces_it() {
        let home = std::env::temp_dir().join(format!("hob-test-kept-{}", std::process::id()));
        let paths = Paths::resolve(&PathInput { home: Some(home.clone()), ..PathInput::default() }).unwrap();
        std::fs::create_dir_all(&paths.state).unwrap();
        let copy = config_in_effect(&paths);
        keep_config(&paths, b"{}");
        let first = copy.metadata().unwrap();
        let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        sys::file::open_regular(&copy).unwrap().set_modified(long_ago).unwrap();
        keep_config(&paths, b"{}");
        let again = copy.metadata().unwrap();
        assert_eq!(again.ino(), first.ino());
        assert!(again.modified().unwrap() >= first.modified().unwrap());
        keep_config(&paths, b"{ }");
        assert_eq!(std::fs::read(&copy).unwrap(), b"{ }");
        std::fs::remove_dir_all(&home).unwrap();
    }
}
