//! The daemon's own log, `logs/hob.log`: lines `2026-11-20T18:09:38.123Z info text`, gathered during a turn of the loop
//! and written at its end in one call; or, where the config asks for it, objects `{"time", "level", "text", "event"}`.
//! In the foreground they go to stderr as well, as far as that takes them without waiting, and with the level as
//! systemd's journal wants it where that reads them.

use crate::base::log::{self, Level, LogStyle, Said};
use crate::base::text::visible_line;
use crate::base::time::{Mono, Now, Wall};
use crate::config::DaemonLog;
use crate::daemon::capture::rotate::{Names, is_renamed, shift};
use crate::daemon::capture::tail::{Share, Spans};
use crate::sys::file::remove;
use crate::sys::file::{self, How};
use crate::sys::logfile;
use crate::sys::outlet::Outlet;
use core::time::Duration;
use std::fs::{File, Metadata};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

/// Lines that repeat the one before within this time are counted instead of written.
const FOLD: Duration = Duration::from_secs(1);
/// Room for lines that is kept from turn to turn.
const ROOM: usize = 4096;

/// The daemon's own log.
#[derive(Debug)]
pub struct OwnLog {
    names: Names,
    spec: DaemonLog,
    file: Option<File>,
    /// When it was last looked whether its name still leads to it.
    looked: Mono,
    share: Arc<Share>,
    /// Cumulative position of the file's first byte.
    base: u64,
    lines: String,
    stderr: Option<Outlet>,
    /// The lines that go there: those of this level and more serious ones.
    stderr_level: Level,
    /// Standard error is read by systemd's journal, which knows the time itself and the level by a prefix `<N>`.
    journal: bool,
    errors: String,
    last: Option<Last>,
    /// Lines that could not be written, and why.
    lost: usize,
    failure: String,
}

#[derive(Debug)]
struct Last {
    level: Level,
    text: String,
    since: Mono,
    wall: Wall,
    repeats: u64,
}

impl OwnLog {
    /// Opens the log. One that cannot be opened is tried again with each write, and says then what it lost.
    #[must_use]
    pub fn open(path: PathBuf, spec: DaemonLog, stderr: Option<Outlet>) -> OwnLog {
        let names = Names::new(path);
        let share = Arc::new(Share::new(names.clone()));
        let mut log = OwnLog {
            names,
            spec,
            file: None,
            looked: Mono(0),
            share,
            base: 0,
            lines: String::new(),
            stderr,
            stderr_level: Level::Trace,
            journal: false,
            errors: String::new(),
            last: None,
            lost: 0,
            failure: String::new(),
        };
        match log.open_file() {
            Ok(file) => log.file = Some(file),
            Err(e) => log.failure = e.to_string(),
        }
        log
    }

    /// What readers of this log need. Its positions count from the oldest file that is kept.
    #[must_use]
    pub fn share(&self) -> Arc<Share> {
        Arc::clone(&self.share)
    }

    /// Standard error gets lines of this level and more serious ones; all that are logged unless this is called.
    pub fn limit_stderr(&mut self, level: Level) {
        self.stderr_level = level;
    }

    /// Standard error gets the form that systemd's journal wants, if `stream`, the value of JOURNAL_STREAM, says that
    /// the journal reads there.
    pub fn for_journal(&mut self, stream: &str) {
        self.journal = self.stderr.as_ref().is_some_and(|outlet| outlet.is_journal(stream));
    }

    /// New settings.
    pub fn set(&mut self, spec: DaemonLog) {
        self.spec = spec;
    }

    #[must_use]
    pub fn style(&self) -> LogStyle {
        self.spec.style()
    }

    fn open_file(&mut self) -> io::Result<File> {
        if let Some(folder) = self.names.folder() {
            logfile::make_folder(folder)?;
        }
        let file = file::open(&self.names.log(0), How::Append, 0o600)?;
        let mut spans = Spans::load(&self.names)?;
        if self.share.end().is_some() {
            spans = spans.after(&self.share.spans()?);
        }
        self.base = spans.files.first().map_or(0, |s| s.base);
        self.share.set(spans);
        Ok(file)
    }

    /// Whether a line of this level would be written; to spare the making of its text.
    #[must_use]
    pub fn wants(&self, level: Level) -> bool {
        level <= self.spec.level
    }

    /// Adds a line, to be written by `flush`. Its line breaks become indented lines.
    pub fn log(&mut self, level: Level, text: &str, now: Now) {
        self.add(Said { level, text, event: None }, now);
    }

    /// The same.
    pub fn add(&mut self, said: Said<'_>, now: Now) {
        let Said { level, text, .. } = said;
        if !self.wants(level) {
            return;
        }
        if let Some(last) = &mut self.last
            && last.level == level
            && last.text == text
            && now.mono.since(last.since) < FOLD
        {
            last.repeats += 1;
            return;
        }
        self.unfold();
        self.line(said, now.wall);
        self.last = Some(Last { level, text: text.to_owned(), since: now.mono, wall: now.wall, repeats: 0 });
    }

    /// The same for what standard error is to be spared.
    pub fn add_to_file(&mut self, said: Said<'_>, now: Now) {
        let stderr = self.stderr.take();
        self.add(said, now);
        self.stderr = stderr;
    }

    /// The same with a sentence for whoever reads standard error, in place of the line.
    pub fn add_with_plain(&mut self, said: Said<'_>, plain: &str, now: Now) {
        self.add_to_file(said, now);
        match (self.stderr.is_some() && said.level <= self.stderr_level, self.journal) {
            (false, _) => {}
            (true, true) => log::journal_line(&mut self.errors, said.level, plain),
            (true, false) => self.errors.push_str(&format!("hob: {}\n", visible_line(plain))),
        }
    }

    fn line(&mut self, said: Said<'_>, wall: Wall) {
        let Said { level, text, .. } = said;
        let start = self.lines.len();
        log::line(&mut self.lines, self.spec.format, said, wall);
        if self.stderr.is_none() || level > self.stderr_level {
            return;
        }
        if self.journal {
            log::journal_line(&mut self.errors, level, text);
        } else {
            self.errors.push_str(self.lines.get(start..).unwrap_or_default());
        }
    }

    /// Says how often the last line came again.
    fn unfold(&mut self) {
        if let Some(Last { level, repeats, wall, .. }) = self.last.take_if(|last| last.repeats > 0) {
            let times = if repeats == 1 { "once more".to_owned() } else { format!("{repeats} more times") };
            let text = &format!("(the same {times} within a second)");
            self.line(Said { level, text, event: None }, wall);
        }
    }

    /// When `flush` is to be called although nothing is added.
    #[must_use]
    pub fn deadline(&self) -> Option<Mono> {
        self.last.as_ref().filter(|last| last.repeats > 0).map(|last| last.since + FOLD)
    }

    /// Writes what was added: the end of a turn. True when the log has grown.
    pub fn flush(&mut self, now: Mono) -> bool {
        if self.deadline().is_some_and(|at| at <= now) {
            self.unfold();
        }
        if self.lines.is_empty() {
            return false;
        }
        let mut lines = std::mem::take(&mut self.lines);
        let errors = std::mem::take(&mut self.errors);
        // What stderr does not take at once is in the file.
        if self.stderr.as_mut().is_some_and(|outlet| outlet.write(errors.as_bytes()).is_err()) {
            self.stderr = None;
        }
        let grown = match self.write(&lines, now) {
            Ok(()) => {
                self.lost = 0;
                true
            }
            Err(e) => {
                self.lost += lines.lines().count();
                self.failure = e.to_string();
                false
            }
        };
        lines.clear();
        lines.shrink_to(ROOM);
        self.lines = lines;
        grown
    }

    /// Writes what is left, at the end of the daemon.
    pub fn finish(&mut self, now: Mono) {
        self.unfold();
        self.flush(now);
    }

    /// Whether somebody renamed the file, asked once a second.
    fn is_renamed(&mut self, meta: &Metadata, now: Mono) -> bool {
        if now.since(self.looked) < FOLD {
            return false;
        }
        self.looked = now;
        is_renamed(&self.names, meta)
    }

    fn write(&mut self, lines: &str, now: Mono) -> io::Result<()> {
        let meta = self.file.as_ref().map(File::metadata).transpose()?;
        let size = match meta.filter(|m| m.nlink() > 0 && !self.is_renamed(m, now)) {
            Some(meta) => meta.len(),
            None => {
                let file = self.open_file()?;
                let size = file.metadata()?.len();
                self.file = Some(file);
                size
            }
        };
        let size = if size > 0 && size.saturating_add(lines.len() as u64) > self.spec.max_size {
            self.rotate(size)
        } else {
            size
        };
        let Some(file) = &mut self.file else { return Ok(()) };
        let written = if self.lost > 0 {
            let note = format!("(lines lost before this one: {}, {})\n", self.lost, self.failure);
            append(file, size, &format!("{note}{lines}"))?
        } else {
            append(file, size, lines)?
        };
        self.share.set_end(self.base + size + written);
        Ok(())
    }

    /// Goes over to a new file and answers its size; if that cannot be, the old one goes on.
    fn rotate(&mut self, size: u64) -> u64 {
        let keep = self.spec.max_files;
        let freed = if keep <= 1 { remove(&self.names.log(0)) } else { shift(&self.names, keep, false) };
        let opened = freed.and_then(|()| {
            let file = file::open(&self.names.log(0), How::New, 0o600)?;
            let meta = file.metadata()?;
            Ok((file, (meta.dev(), meta.ino())))
        });
        match opened {
            Ok((file, id)) => {
                self.file = Some(file);
                self.base += size;
                self.share.push(id, self.base, (keep, false));
                0
            }
            Err(e) => {
                self.failure = e.to_string();
                size
            }
        }
    }
}

/// Appends all or nothing.
fn append(file: &mut File, size: u64, text: &str) -> io::Result<u64> {
    if let Err(e) = file.write_all(text.as_bytes()) {
        file.set_len(size)?;
        return Err(e);
    }
    Ok(text.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::log::LogFormat;
    use crate::daemon::capture::testing::Dir;
    use std::io::Read;

    const SPEC: DaemonLog = DaemonLog { max_size: 1000, max_files: 3, ..DaemonLog::DEFAULT };

    fn at(ms: u64) -> Now {
        Now { mono: Mono(ms * 1_000_000), wall: Wall(1_795_197_378_000 + i64::try_from(ms).unwrap()) }
    }

    fn text(dir: &Dir, name: &str) -> String {
        std::fs::read_to_string(dir.path(name)).unwrap_or_default()
    }

    #[test]
    fn a_turn_writes_its_lines_at_once_by_level() {
        let dir = Dir::new();
        let mut log = OwnLog::open(dir.path("a/hob.log"), SPEC, None);
        log.log(Level::Info, "web is up", at(123));
        log.log(Level::Debug, "not wanted", at(124));
        log.log(Level::Error, "two\nlines\x1b[0m", at(125));
        assert_eq!(text(&dir, "a/hob.log"), "");
        assert!(log.flush(at(126).mono));
        assert!(!log.flush(at(127).mono));
        let want = "2026-11-20T17:56:18.123Z info  web is up\n\
                    2026-11-20T17:56:18.125Z error two\n    lines [0m\n";
        assert_eq!(text(&dir, "a/hob.log"), want);
        assert_eq!(log.share().end(), Some(want.len() as u64));
    }

    #[test]
    fn lines_can_be_objects() {
        let dir = Dir::new();
        let spec = DaemonLog { format: LogFormat::Json, ..SPEC };
        let mut log = OwnLog::open(dir.path("hob.log"), spec, None);
        log.log(Level::Warn, "two\n\"lines\"\x1b", at(123));
        log.add(Said { level: Level::Info, text: "a b", event: Some(r#"{"kind":"a"}"#) }, at(124));
        log.flush(at(126).mono);
        let text = text(&dir, "hob.log");
        let (first, second) = text.trim_end().split_once('\n').unwrap();
        let object: serde_json::Value = serde_json::from_str(second).unwrap();
        assert_eq!((&object["text"], &object["event"]["kind"]), (&"a b".into(), &"a".into()));
        let object: serde_json::Value = serde_json::from_str(first).unwrap();
        let want =
            serde_json::json!({"time": "2026-11-20T17:56:18.123Z", "level": "warn", "text": "two\n\"lines\"\u{1b}"});
        assert_eq!(object, want);
        assert!(text.starts_with("{\"time\":\"2026-11-20T17:56:18.123Z\"") && text.lines().count() == 2);
    }

    #[test]
    fn the_journal_gets_levels_instead_of_times() {
        let dir = Dir::new();
        let (read, write) = crate::sys::pipe::output().unwrap();
        let meta = File::from(write.try_clone().unwrap()).metadata().unwrap();
        let mut log = OwnLog::open(dir.path("hob.log"), SPEC, Outlet::new(write));
        for (stream, want) in [
            ("1:2".to_owned(), "2026-11-20T17:56:18.001Z error a\n    b\n"),
            (format!("{}:{}", meta.dev(), meta.ino()), "<3>a\n<3>b\n"),
        ] {
            log.for_journal(&stream);
            log.log(Level::Error, "a\nb", at(1));
            log.log(Level::Error, "-", at(1));
            log.flush(at(2).mono);
            let mut bytes = [0; 1000];
            let n = File::from(read.try_clone().unwrap()).read(&mut bytes).unwrap();
            assert!(
                String::from_utf8_lossy(&bytes[..n]).starts_with(want),
                "{:?}",
                String::from_utf8_lossy(&bytes[..n])
            );
        }
        assert!(text(&dir, "hob.log").starts_with("2026-11-20T17:56:18.001Z error a\n    b\n"));
    }

    #[test]
    fn repeated_lines_are_counted() {
        let dir = Dir::new();
        let mut log = OwnLog::open(dir.path("hob.log"), SPEC, None);
        for ms in 0..500 {
            log.log(Level::Warn, "again", at(ms));
            log.flush(at(ms).mono);
        }
        assert_eq!(log.deadline(), Some(at(1000).mono));
        assert!(log.flush(at(1000).mono));
        assert_eq!(log.deadline(), None);
        log.log(Level::Warn, "again", at(1001));
        log.log(Level::Warn, "again", at(1002));
        log.log(Level::Warn, "other", at(1003));
        log.finish(at(1004).mono);
        let text = text(&dir, "hob.log");
        let said: Vec<&str> = text.lines().map(|l| l.split_once(" warn  ").unwrap().1).collect();
        let want = [
            "again",
            "(the same 499 more times within a second)",
            "again",
            "(the same once more within a second)",
            "other",
        ];
        assert_eq!(said, want);
    }

    #[test]
    fn it_rotates_by_size_and_count_and_goes_on_by_position() {
        let dir = Dir::new();
        let mut log = OwnLog::open(dir.path("hob.log"), SPEC, None);
        let write = |log: &mut OwnLog, range: std::ops::Range<u64>| {
            for n in range {
                log.log(Level::Info, &format!("line {n:04}"), at(n));
                log.flush(at(n).mono);
            }
        };
        write(&mut log, 0..60);
        assert!(dir.path("hob.log.2").exists() && !dir.path("hob.log.3").exists());
        let all = text(&dir, "hob.log.2") + &text(&dir, "hob.log.1") + &text(&dir, "hob.log");
        let numbers: Vec<u64> = all.lines().map(|l| l.rsplit(' ').next().unwrap().parse().unwrap()).collect();
        assert_eq!(numbers, (60 - numbers.len() as u64..60).collect::<Vec<_>>());
        for name in ["hob.log", "hob.log.1", "hob.log.2"] {
            assert!(text(&dir, name).len() <= 1000);
        }
        let share = log.share();
        let end = share.end().unwrap();
        let from = share.lines_back(end, 30).unwrap();
        assert_eq!(share.last_lines(from, end).unwrap().len(), 5);
        assert_eq!(end - from, 30 * 41);
        // A new daemon counts from the oldest file that is kept.
        let again = OwnLog::open(dir.path("hob.log"), SPEC, None);
        assert_eq!(again.share().end(), Some(all.len() as u64));
    }

    #[test]
    fn a_file_that_was_removed_is_made_anew() {
        let dir = Dir::new();
        let mut log = OwnLog::open(dir.path("hob.log"), SPEC, None);
        log.log(Level::Info, "one", at(0));
        log.flush(at(0).mono);
        std::fs::remove_file(dir.path("hob.log")).unwrap();
        log.log(Level::Info, "two", at(1));
        log.flush(at(1).mono);
        assert!(text(&dir, "hob.log").ends_with("two\n"));
    }

    #[test]
    fn a_file_that_was_renamed_is_left_and_positions_go_on() {
        let dir = Dir::new();
        let mut log = OwnLog::open(dir.path("hob.log"), SPEC, None);
        let mut say = |ms: u64, what: &str| {
            log.log(Level::Info, what, at(ms));
            log.flush(at(ms).mono);
            log.share()
        };
        say(0, "one");
        std::fs::rename(dir.path("hob.log"), dir.path("old")).unwrap();
        say(500, "two");
        let share = say(2000, "three");
        assert!(text(&dir, "old").ends_with("two\n") && text(&dir, "hob.log").ends_with("three\n"));
        let length = (text(&dir, "old").len() + text(&dir, "hob.log").len()) as u64;
        assert_eq!(share.end(), Some(length));
        // As tools that rotate logs do it.
        std::fs::rename(dir.path("hob.log"), dir.path("hob.log.1")).unwrap();
        std::fs::write(dir.path("hob.log"), "").unwrap();
        let share = say(4000, "four");
        assert!(text(&dir, "hob.log").ends_with("four\n"));
        let end = share.end().unwrap();
        assert_eq!(end, length + text(&dir, "hob.log").len() as u64);
        let lines = share.last_lines(0, end).unwrap();
        let said: Vec<&str> = lines.iter().filter_map(|l| l.rsplit(' ').next()).collect();
        assert_eq!(said, ["three", "four"], "the one before can be read on");
    }

    #[test]
    fn lost_lines_are_counted_until_there_is_a_place_for_them() {
        let dir = Dir::new();
        std::fs::write(dir.path("folder"), "a file where a folder should be").unwrap();
        let mut log = OwnLog::open(dir.path("folder/hob.log"), SPEC, None);
        for n in 0..3 {
            log.log(Level::Info, &format!("line {n}"), at(n));
            assert!(!log.flush(at(n).mono));
        }
        std::fs::remove_file(dir.path("folder")).unwrap();
        log.log(Level::Info, "here", at(9));
        assert!(log.flush(at(9).mono));
        let text = text(&dir, "folder/hob.log");
        assert!(text.starts_with("(lines lost before this one: 3, "), "{text}");
        assert!(text.ends_with(" here\n"));
    }

    #[test]
    fn stderr_is_never_waited_for_and_may_go_away() {
        let dir = Dir::new();
        let (read, write) = crate::sys::pipe::output().unwrap();
        let mut log = OwnLog::open(dir.path("hob.log"), DaemonLog { max_size: u64::MAX, ..SPEC }, Outlet::new(write));
        log.log(Level::Info, "hello", at(0));
        log.flush(at(0).mono);
        let mut read = File::from(read);
        let mut seen = [0; 100];
        let n = read.read(&mut seen).unwrap();
        assert!(seen[..n].ends_with(b"info  hello\n"));
        for n in 0..20_000 {
            log.log(Level::Info, &format!("line {n}"), at(n));
            log.flush(at(n).mono);
        }
        assert!(text(&dir, "hob.log").ends_with("line 19999\n"), "a full pipe stops nothing");
        drop(read);
        log.log(Level::Info, "to nobody", at(1));
        log.flush(at(1).mono);
        assert!(log.stderr.is_none());
        assert!(text(&dir, "hob.log").ends_with("to nobody\n"));
    }
}
