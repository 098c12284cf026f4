//! The event ring on disk, `events.log`: one JSON line an event, so that events outlive the daemon and `tail -f` can
//! read them.
//!
//! A round's events are appended with one write before any subscriber sees them. They are no durable promise: a write
//! that fails is counted and told once, never waited for, and a read-only folder only means that the ring starts empty
//! next time.

use crate::base::limits::{EVENT_SEQ_END, EVENTS_KEPT};
use crate::sys::file::{self, How};
use serde::Deserialize;
use std::fs::File;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};

/// Memory kept for what is written at once.
const KEPT: usize = 4096;
/// Lines and bytes at which the file is rewritten with its last part, and bytes of that part.
const LINES_MAX: usize = 2 * EVENTS_KEPT;
const BYTES_MAX: u64 = 4 * 1024 * 1024;
const BYTES_KEPT: usize = 2 * 1024 * 1024;
/// A larger file was not written by hob; only its end is read.
const READ_MAX: u64 = 2 * BYTES_MAX;

/// The ring's file.
#[derive(Debug)]
pub struct EventLog {
    path: PathBuf,
    file: Option<File>,
    size: u64,
    lines: usize,
    /// The file ends within a line.
    torn: bool,
    /// What is to be written next, and how many lines it is.
    text: Vec<u8>,
    count: usize,
    missing: u64,
    failing: bool,
}

/// What an earlier daemon left.
#[derive(Debug)]
pub struct Loaded {
    pub log: EventLog,
    /// The last `EVENTS_KEPT` events, oldest first, with their sequence numbers.
    pub events: Vec<(u64, String)>,
    pub reports: Vec<String>,
}

#[derive(Deserialize)]
struct Numbered {
    seq: u64,
}

impl EventLog {
    /// Reads and opens `events.log` in this folder. Lines that are not events are passed over; no state of the file,
    /// nor its absence, is an error.
    #[must_use]
    pub fn open(dir: &Path) -> Loaded {
        let path = dir.join("events.log");
        let mut reports = Vec::new();
        let text = read_end(&path).unwrap_or_else(|e| {
            reports.push(format!("cannot read {}: {e}", path.display()));
            Vec::new()
        });
        let (events, bad) = parse(&text);
        if bad > 0 {
            reports.push(format!("{}: passed over {bad} lines that are not events", path.display()));
        }
        let file = file::open(&path, How::Append, 0o600);
        if let Err(e) = &file {
            reports.push(format!("cannot write {}: {e}; events are forgotten when the daemon ends", path.display()));
        }
        let log = EventLog {
            size: file.as_ref().ok().and_then(|f| f.metadata().ok()).map_or(0, |m| m.len()),
            lines: text.iter().filter(|b| **b == b'\n').count(),
            torn: text.last().is_some_and(|b| *b != b'\n'),
            failing: file.is_err(),
            file: file.ok(),
            path,
            text: Vec::new(),
            count: 0,
            missing: 0,
        };
        Loaded { log, events, reports }
    }

    /// Only reads the last events that are in the file, oldest first.
    ///
    /// # Errors
    /// What reading it answers; that it is not there is none.
    pub fn read(dir: &Path) -> io::Result<Vec<(u64, String)>> {
        Ok(parse(&read_end(&dir.join("events.log"))?).0)
    }

    /// Adds an event to what `flush` writes.
    pub fn add(&mut self, event: &str) {
        if self.count == 0 && self.torn {
            self.text.push(b'\n');
        }
        self.text.extend_from_slice(event.as_bytes());
        self.text.push(b'\n');
        self.count += 1;
    }

    /// Appends what was added with one write. Answers what is to be told in the daemon's own log: when writing begins
    /// to fail, and when it works again.
    pub fn flush(&mut self) -> Option<String> {
        let count = core::mem::take(&mut self.count);
        if count == 0 {
            return None;
        }
        let told = self.append(count);
        self.text.clear();
        self.text.shrink_to(KEPT);
        told
    }

    fn append(&mut self, count: usize) -> Option<String> {
        match self.write() {
            Ok(()) => {
                self.lines += count;
                self.size += self.text.len() as u64;
                self.torn = false;
                self.recovered()
            }
            Err(e) => {
                self.missing += count as u64;
                let first = !core::mem::replace(&mut self.failing, true);
                first.then(|| format!("cannot write {}: {e}; events go on without it", self.path.display()))
            }
        }
    }

    /// Events that were not written since this daemon began.
    #[must_use]
    pub fn missing(&self) -> u64 {
        self.missing
    }

    fn recovered(&mut self) -> Option<String> {
        let told = core::mem::replace(&mut self.failing, false);
        let kept = if self.lines > LINES_MAX || self.size > BYTES_MAX { self.shorten() } else { Ok(()) };
        match kept {
            Ok(()) if told => {
                Some(format!("{}: written again; {} events are missing", self.path.display(), self.missing))
            }
            Ok(()) => None,
            Err(e) => {
                // Tried again after as many events as are kept.
                (self.lines, self.size) = (EVENTS_KEPT, self.size.min(BYTES_MAX / 2));
                Some(format!("cannot shorten {}: {e}", self.path.display()))
            }
        }
    }

    fn write(&mut self) -> io::Result<()> {
        let file = self.file.as_ref().ok_or(ErrorKind::ReadOnlyFilesystem)?;
        let result = (&*file).write_all(&self.text);
        if result.is_err() {
            // Whatever part of it is there goes, or is ended by the next write.
            self.torn = self.torn || file.set_len(self.size).is_err();
        }
        result
    }

    /// Rewrites the file with its last part.
    fn shorten(&mut self) -> io::Result<()> {
        let text = read_end(&self.path)?;
        let mut start = text.len();
        for (lines, line) in text.split_inclusive(|b| *b == b'\n').rev().enumerate() {
            if lines == EVENTS_KEPT || text.len() - start + line.len() > BYTES_KEPT {
                break;
            }
            start -= line.len();
        }
        let kept = text.get(start..).unwrap_or_default();
        file::atomic_write(&self.path, kept, 0o600, false)?;
        self.file = Some(file::open(&self.path, How::Append, 0o600)?);
        self.lines = kept.iter().filter(|b| **b == b'\n').count();
        self.size = kept.len() as u64;
        self.torn = false;
        Ok(())
    }
}

/// The last events of the text, and how many lines are none. The first and the last line may be cut off without
/// counting.
fn parse(text: &[u8]) -> (Vec<(u64, String)>, usize) {
    let mut events = Vec::new();
    let mut bad = 0;
    let body = text.iter().rposition(|b| *b == b'\n').and_then(|end| text.get(..end)).unwrap_or_default();
    for line in body.split(|b| *b == b'\n').rev() {
        if events.len() == EVENTS_KEPT {
            break;
        }
        let event = core::str::from_utf8(line).ok();
        let seq = event.and_then(|e| serde_json::from_str::<Numbered>(e).ok());
        match (seq, event) {
            (Some(n), Some(event)) if n.seq < EVENT_SEQ_END => events.push((n.seq, event.to_owned())),
            _ => bad += usize::from(!line.is_empty()),
        }
    }
    events.reverse();
    (events, bad)
}

/// The content of the file, of a huge one only the whole lines at its end; nothing if there is no file.
fn read_end(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = match file::open(path, How::Read, 0) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let skip = file.metadata()?.len().saturating_sub(READ_MAX);
    let mut text = Vec::new();
    io::Seek::seek(&mut file, io::SeekFrom::Start(skip))?;
    file.take(READ_MAX).read_to_end(&mut text)?;
    if skip > 0 {
        let first = text.iter().position(|b| *b == b'\n').map_or(text.len(), |at| at + 1);
        text.drain(..first);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    fn append(log: &mut EventLog, events: &[&str]) -> Option<String> {
        events.iter().for_each(|e| log.add(e));
        log.flush()
    }

    struct Temp(PathBuf);

    impl Temp {
        fn new() -> Temp {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let n = COUNT.fetch_add(1, Ordering::Relaxed);
            let path = std::env::temp_dir().join(format!("hob-events-{}-{n}", std::process::id()));
            std::fs::create_dir(&path).unwrap();
            Temp(path)
        }

        fn file(&self) -> PathBuf {
            self.0.join("events.log")
        }
    }

    impl Drop for Temp {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn event(seq: u64) -> String {
        format!(r#"{{"seq":{seq},"kind":"service.started","name":"web"}}"#)
    }

    fn numbers(events: &[(u64, String)]) -> Vec<u64> {
        assert!(events.iter().all(|(n, text)| *text == event(*n)));
        events.iter().map(|(n, _)| *n).collect()
    }

    #[test]
    fn what_was_appended_is_there_for_the_next_daemon() {
        let t = Temp::new();
        let mut log = EventLog::open(&t.0).log;
        assert_eq!(append(&mut log, &[]), None);
        assert_eq!(append(&mut log, &[&event(1), &event(2)]), None);
        assert_eq!(std::fs::read_to_string(t.file()).unwrap(), format!("{}\n{}\n", event(1), event(2)));
        drop(log);
        let Loaded { mut log, events, reports } = EventLog::open(&t.0);
        assert_eq!((numbers(&events), reports.len()), (vec![1, 2], 0));
        append(&mut log, &[&event(3)]);
        assert_eq!(numbers(&EventLog::open(&t.0).events), [1, 2, 3]);
    }

    #[test]
    fn the_file_is_bounded_and_keeps_the_last_events() {
        let t = Temp::new();
        let mut log = EventLog::open(&t.0).log;
        let kept = EVENTS_KEPT as u64;
        for seq in 1..=5 * kept {
            assert_eq!(append(&mut log, &[&event(seq)]), None);
            assert!(log.lines <= LINES_MAX);
        }
        let events = EventLog::open(&t.0).events;
        assert_eq!(numbers(&events), (4 * kept + 1..=5 * kept).collect::<Vec<_>>());
        let lines = std::fs::read_to_string(t.file()).unwrap().lines().count();
        assert!((EVENTS_KEPT..=LINES_MAX).contains(&lines));
        // Large events are bounded by bytes.
        let large = format!(r#"{{"seq":9999,"x":"{}"}}"#, "y".repeat(300_000));
        for _ in 0..30 {
            assert_eq!(append(&mut log, &[&large]), None);
            assert!(std::fs::metadata(t.file()).unwrap().len() <= BYTES_MAX);
        }
        assert!(EventLog::open(&t.0).events.len() >= 6);
    }

    #[test]
    fn a_torn_end_and_garbage_are_passed_over() {
        let t = Temp::new();
        let whole = format!("{}\n{}\n", event(1), event(2));
        for cut in 0..whole.len() {
            std::fs::write(t.file(), &whole.as_bytes()[..cut]).unwrap();
            let Loaded { mut log, events, reports } = EventLog::open(&t.0);
            assert_eq!(events.len(), whole.as_bytes()[..cut].iter().filter(|b| **b == b'\n').count());
            assert!(reports.is_empty());
            append(&mut log, &[&event(3)]);
            assert_eq!(EventLog::open(&t.0).events.last().unwrap().0, 3);
        }
        std::fs::write(
            t.file(),
            b"\xff\xfe\n\n{}\nnull\n{\"seq\":-1}\n{\"seq\":18446744073709551614}\n{\"seq\":7}\n\0\0\0\0",
        )
        .unwrap();
        let loaded = EventLog::open(&t.0);
        assert_eq!(loaded.events, [(7, r#"{"seq":7}"#.to_owned())]);
        assert_eq!(loaded.reports.len(), 1);
    }

    #[test]
    fn a_file_that_cannot_be_written_is_told_once_and_harms_nothing() {
        let t = Temp::new();
        std::fs::create_dir(t.file()).unwrap();
        let Loaded { mut log, events, reports } = EventLog::open(&t.0);
        assert!(events.is_empty());
        assert_eq!(reports.len(), 2);
        for seq in 1..4 {
            assert_eq!(append(&mut log, &[&event(seq)]), None, "it was told by open");
        }
        assert_eq!(log.missing(), 3);
    }

    #[test]
    fn a_write_that_begins_to_fail_and_works_again_is_told() {
        let t = Temp::new();
        let mut log = EventLog::open(&t.0).log;
        append(&mut log, &[&event(1)]);
        let good = log.file.replace(file::open(&t.file(), How::Read, 0).unwrap());
        let told = append(&mut log, &[&event(2)]).unwrap_or_default();
        // How::Read opens for reading alone, so the write is refused.
        assert!(told.contains("cannot write"), "{told}");
        assert_eq!(append(&mut log, &[&event(3)]), None);
        log.file = good;
        let told = append(&mut log, &[&event(4)]).unwrap_or_default();
        assert!(told.contains("2 events are missing"), "{told}");
        assert_eq!(numbers(&EventLog::open(&t.0).events), [1, 4]);
    }

    #[test]
    fn a_file_larger_than_any_of_ours_is_read_from_its_end() {
        let t = Temp::new();
        let mut text = vec![b'x'; usize::try_from(READ_MAX).unwrap()];
        text.extend_from_slice(format!("\n{}\n", event(5)).as_bytes());
        std::fs::write(t.file(), text).unwrap();
        let Loaded { mut log, events, .. } = EventLog::open(&t.0);
        assert_eq!(numbers(&events), [5]);
        assert_eq!(append(&mut log, &[&event(6)]), None);
        assert!(std::fs::metadata(t.file()).unwrap().len() < BYTES_MAX);
        assert_eq!(numbers(&EventLog::open(&t.0).events), [5, 6]);
    }
}
