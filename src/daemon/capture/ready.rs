//! Readiness by log line: a run's output is matched line by line until its pattern is seen.

use super::tail::Cursor;
use crate::base::ids::RunId;
use crate::base::time::Wall;
use regex_lite::Regex;

/// Bytes of a line that are matched; the rest of a longer one is passed over.
const MATCHED_MAX: usize = 8192;

/// Which output of the run comes next.
#[derive(Debug)]
pub(crate) enum At {
    /// Its first byte is still to come.
    Before,
    /// It is read back from the log.
    Back(Cursor),
    /// It is matched as it passes.
    Live,
}

#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) run: RunId,
    pub(crate) at: At,
    pattern: Regex,
    line: Vec<u8>,
}

impl Watch {
    pub(crate) fn new(run: RunId, pattern: Regex, at: At) -> Watch {
        Watch { run, at, pattern, line: Vec::new() }
    }

    /// Nothing more comes: whether what is left of a line without an end matches.
    pub(crate) fn finish(&mut self) -> bool {
        !self.line.is_empty() && self.feed(b"\n")
    }

    /// Whether one of the lines that end in `bytes` matches.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> bool {
        for part in bytes.split_inclusive(|b| *b == b'\n') {
            let ends = part.last() == Some(&b'\n');
            let text = if ends { part.get(..part.len() - 1).unwrap_or_default() } else { part };
            let free = MATCHED_MAX - self.line.len();
            self.line.extend_from_slice(text.get(..free).unwrap_or(text));
            if ends {
                let line = self.line.strip_suffix(b"\r").unwrap_or(&self.line);
                // What is read back may have got a time stamp, which the program did not write.
                let stamped = matches!(self.at, At::Back(_)) && Wall::of_line(line).is_some();
                let line = line.get(Wall::STAMP..).filter(|_| stamped).unwrap_or(line);
                let seen = self.pattern.is_match(&String::from_utf8_lossy(line));
                self.line.clear();
                if seen {
                    return true;
                }
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::capture::lane::Fact;
    use crate::daemon::capture::source::{Order, Point};
    use crate::daemon::capture::tests::Rig;
    use std::io::Write as _;

    fn watch(pattern: &str) -> Watch {
        Watch::new(RunId(1), Regex::new(pattern).unwrap(), At::Live)
    }

    #[test]
    fn lines_match_over_any_cut_and_only_when_whole() {
        let text = b"starting\nlistening on 80\r\nmore\n";
        for cut in 0..text.len() {
            let mut w = watch("^listening on [0-9]+$");
            let (a, b) = text.split_at(cut);
            assert!(w.feed(a) || w.feed(b), "cut at {cut}");
        }
        let mut w = watch("ready");
        assert!(!w.feed(b"rea"));
        assert!(!w.feed(b"dy"));
        assert!(w.feed(b"\n"));
    }

    #[test]
    fn a_huge_line_takes_bounded_memory_and_the_next_one_counts() {
        let mut w = watch("end$");
        for _ in 0..100 {
            assert!(!w.feed(&[b'x'; 4096]));
        }
        assert!(w.line.capacity() <= 2 * MATCHED_MAX);
        assert!(!w.feed(b"end\n"), "beyond what is matched");
        assert!(w.feed(b"\xff the end\n"));
    }

    #[test]
    fn readiness_before_a_takeover_is_found_wherever_its_line_is() {
        let order = |run| Order::Await { run: RunId(run), pattern: Regex::new("^ready$").unwrap() };
        let seen = |facts: &[Fact], run| facts.contains(&Fact::Ready(RunId(run)));
        // In the transfer pipe.
        let mut rig = Rig::new(1000, 3);
        rig.source.mark(Point::Start(RunId(1)));
        rig.write(b"x\n");
        rig.pipe.write_all(b"ready\n").unwrap();
        rig.desk.take(&rig.source, 100).unwrap();
        rig.die();
        rig.source.order(order(1));
        rig.source.mark(Point::End(RunId(1)));
        assert!(seen(&rig.drain().facts, 1));
        // In a file, of which the beginning of the run was rotated away.
        let mut rig = Rig::new(50, 3);
        rig.source.mark(Point::Start(RunId(2)));
        (0..30).for_each(|_| drop(rig.write(b"line\n")));
        rig.write(b"ready\n");
        rig.die();
        rig.turn();
        rig.source.order(order(2));
        rig.source.mark(Point::End(RunId(2)));
        assert!(seen(&rig.drain().facts, 2));
        // The next run, whose start the dead daemon had not noted, is not taken for it.
        rig.source.mark(Point::Start(RunId(3)));
        rig.write(b"ready\n");
        rig.die();
        rig.turn();
        rig.source.order(order(4));
        assert!(!seen(&rig.drain().facts, 4));
        // A last line without an end.
        rig.source.mark(Point::Start(RunId(5)));
        rig.source.order(order(5));
        rig.pipe.write_all(b"ready").unwrap();
        rig.source.mark(Point::End(RunId(5)));
        assert!(seen(&rig.drain().facts, 5));
    }
}
