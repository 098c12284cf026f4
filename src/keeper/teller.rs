//! Where the keeper's words go: hob's own log, and standard error in the foreground.

use super::Line;
use crate::base::log;
use crate::sys::file::{self, How};
use crate::sys::outlet::Outlet;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::PathBuf;

/// Bytes of its own that the keeper adds to the log while no daemon writes there, who would begin a new file in time:
/// of daemons that die before they serve there may be one a second, for ever.
const ALONE_MAX: u64 = 256 * 1024;
const ENOUGH: &str = "keeper: more of this is not written here until a daemon writes something";

/// To the log, and to standard error unless `silent`, as far as that takes it without waiting.
#[must_use]
pub fn teller(log: PathBuf, silent: bool) -> Box<dyn FnMut(&Line<'_>)> {
    let mut stderr = if silent { None } else { Outlet::stderr() };
    let stream = std::env::var("JOURNAL_STREAM").ok();
    let journal = stderr.as_ref().zip(stream).is_some_and(|(outlet, stream)| outlet.is_journal(&stream));
    let mut log = Log { path: log, alone: 0, end: 0 };
    Box::new(move |said| {
        // With neither of them there is nobody to tell.
        let _ = log.add(said);
        if stderr.as_mut().is_some_and(|outlet| outlet.write(text(said, journal).as_bytes()).is_err()) {
            stderr = None;
        }
    })
}

fn text(said: &Line<'_>, journal: bool) -> String {
    let mut line = String::new();
    if journal {
        log::journal_line(&mut line, said.level, said.text);
    } else {
        log::line(&mut line, said.format, log::Said { level: said.level, text: said.text, event: None }, said.wall);
    }
    line
}

struct Log {
    path: PathBuf,
    /// Written here since somebody else has, and how long the file was then.
    alone: u64,
    end: u64,
}

impl Log {
    fn add(&mut self, said: &Line<'_>) -> io::Result<()> {
        let mut file = file::open(&self.path, How::Append, 0o600)?;
        if file.metadata()?.len() != self.end {
            self.alone = 0;
        }
        if self.alone >= ALONE_MAX {
            return Ok(());
        }
        self.write(&mut file, &text(said, false))?;
        if self.alone >= ALONE_MAX {
            self.write(&mut file, &text(&Line { text: ENOUGH, ..*said }, false))?;
        }
        Ok(())
    }

    fn write(&mut self, file: &mut File, line: &str) -> io::Result<()> {
        let written = file.write_all(line.as_bytes());
        self.alone += line.len() as u64;
        self.end = file.metadata()?.len();
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::log::{Level, LogFormat};
    use crate::base::time::Wall;

    #[test]
    fn a_log_that_nobody_else_writes_to_does_not_grow_for_ever() {
        let path = std::env::temp_dir().join(format!("hob-teller-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let mut tell = teller(path.clone(), true);
        let mut say = |text: &str| tell(&Line { wall: Wall(0), level: Level::Info, format: LogFormat::Text, text });
        let size = || std::fs::metadata(&path).unwrap().len();
        (0..10_000).for_each(|_| say("keeper: started daemon 7 with pid 12345"));
        let full = size();
        assert!((ALONE_MAX..ALONE_MAX + 1000).contains(&full), "{full}");
        let told = std::fs::read_to_string(&path).unwrap();
        assert!(told.ends_with(&format!("{ENOUGH}\n")) && told.matches(ENOUGH).count() == 1);
        // A daemon writes, be it to a new file.
        for new in [false, true] {
            if new {
                std::fs::remove_file(&path).unwrap();
            }
            let before = size_or_zero(&path);
            writeln!(file::open(&path, How::Append, 0o600).unwrap(), "a daemon's").unwrap();
            say("heard again");
            assert!(size() > before + 20);
        }
        std::fs::remove_file(&path).unwrap();
    }

    fn size_or_zero(path: &std::path::Path) -> u64 {
        std::fs::metadata(path).map_or(0, |m| m.len())
    }
}
