//! From raw output to the lines of a log: time stamps, masks, the rate limit, and the notes on what was dropped. Pure:
//! the same input and state give the same bytes, so that a batch which a daemon did not finish is made again by the
//! next one.

use super::mask::{MASK, Masks};
use crate::base::limits::LINE_MAX;
use crate::base::time::{Mono, Now};
use std::io::BufRead;

/// What the config wants of lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    pub timestamps: bool,
    /// Bytes a second.
    pub rate: Option<u64>,
}

/// Where the log and the streams stand between two batches. Kept with the keeper, so that nothing of it is lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The file ends within a line of this stream, counted from 1; 0 at a line's beginning.
    pub within: u8,
    /// What was taken of each stream ends within a line, and that line's rest is to be dropped.
    pub mid: [bool; 2],
    pub skip: [bool; 2],
    /// The rate limit drops until half a second's worth may be written again.
    pub dropping: bool,
    /// Bytes that may be written, as of this time; `None` until something was.
    pub tokens: u64,
    pub tokens_at: Option<Mono>,
    /// Bytes dropped since that was last said: by the rate limit, and for lack of a place to write to.
    pub dropped: u64,
    pub lost: u64,
}

/// How much may be added to the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes until its cap.
    pub left: u64,
    /// Nothing is in it yet, so that one piece fits whatever its size.
    pub empty: bool,
    /// Bytes to make at once at most.
    pub batch: usize,
}

impl Room {
    pub const ENDLESS: Room = Room { left: u64::MAX, empty: false, batch: usize::MAX };
}

impl State {
    /// Turns as much of `raw`, which came on `stream` (0 or 1), into lines as there is room for; answers how many
    /// bytes of it were taken. Without `raw`, what was dropped is said,
    /// and the line that the file ends in is ended.
    pub fn shape(
        &mut self,
        stream: usize,
        raw: &[u8],
        masks: &Masks,
        (set, now, room): (Settings, Now, Room),
        out: &mut Vec<u8>,
    ) -> usize {
        let stamp = if set.timestamps { format!("{} ", now.wall) } else { String::new() };
        self.refill(set, now.mono);
        if raw.is_empty() {
            self.tell(&stamp, out);
            if self.within != 0 {
                out.push(b'\n');
                self.within = 0;
            }
            return 0;
        }
        let found = masks.find(raw, true).0;
        let mut hidden = found.iter().peekable();
        let (mut taken, mut piece) = (0, Vec::new());
        let mut rest = raw;
        while !rest.is_empty() && out.len() < room.batch {
            let mut length = line(rest);
            // A secret with line breaks makes one line of those it touches.
            let masked = hidden.peek().is_some_and(|r| r.start < taken + length);
            if masked {
                piece.clear();
                let (mut from, mut end) = (taken, taken + length);
                while let Some(range) = hidden.next_if(|r| r.start < end) {
                    piece.extend_from_slice(raw.get(from..range.start).unwrap_or_default());
                    piece.extend_from_slice(MASK);
                    from = range.end;
                    if range.end >= end {
                        end = range.end + raw.get(range.end..).map_or(0, line);
                    }
                }
                piece.extend_from_slice(raw.get(from..end).unwrap_or_default());
                length = end - taken;
            }
            let text = if masked { piece.as_slice() } else { rest.get(..length).unwrap_or_default() };
            if self.drops(stream, text.len() as u64, set) {
                self.dropped += text.len() as u64;
                self.mid[stream] = text.last() != Some(&b'\n');
                self.skip[stream] = self.mid[stream];
            } else if self.fits(stream, text.len(), stamp.len(), out.len(), room) {
                self.spend(text.len() as u64, set);
                self.put(stream, text, &stamp, out);
            } else {
                return taken;
            }
            taken += length;
            rest = raw.get(taken..).unwrap_or_default();
        }
        taken
    }

    /// How many bytes a note on what was dropped takes at most.
    const NOTE_MAX: usize = 160;

    fn fits(&self, stream: usize, text: usize, stamp: usize, made: usize, room: Room) -> bool {
        let note = if self.dropped > 0 || self.lost > 0 { Self::NOTE_MAX } else { 0 };
        let size = (made + note + text + stamp + 1) as u64;
        let left = if self.goes_on(stream) { room.left.saturating_add(LINE_MAX as u64) } else { room.left };
        size <= left || (room.empty && made == 0)
    }

    /// Whether what comes next on a stream goes on with the line that the file ends in.
    #[must_use]
    pub fn goes_on(&self, stream: usize) -> bool {
        self.within == number(stream) && self.mid[stream] && self.dropped == 0 && self.lost == 0
    }

    fn refill(&mut self, set: Settings, now: Mono) {
        let Some(rate) = set.rate else {
            (self.dropping, self.tokens_at) = (false, None);
            return;
        };
        let gained = match self.tokens_at {
            None => rate,
            Some(at) => {
                let nanos = u128::from(rate).saturating_mul(now.since(at).as_nanos());
                u64::try_from(nanos / 1_000_000_000).unwrap_or(u64::MAX)
            }
        };
        // What is gained bit by bit would be lost in rounding, so the time stands still until it is a byte.
        if gained > 0 {
            self.tokens = self.tokens.saturating_add(gained).min(rate);
            self.tokens_at = Some(now);
        }
    }

    /// Whether the rate limit drops a piece of this length.
    fn drops(&mut self, stream: usize, length: u64, set: Settings) -> bool {
        if self.mid[stream] && self.skip[stream] {
            return true;
        }
        let Some(rate) = set.rate else { return false };
        let wants = if self.dropping { rate / 2 } else { length.min(rate) };
        self.dropping = self.tokens < wants.max(length.min(rate));
        self.dropping
    }

    fn spend(&mut self, length: u64, set: Settings) {
        if set.rate.is_some() {
            self.tokens = self.tokens.saturating_sub(length);
        }
    }

    /// Adds a piece that is written.
    fn put(&mut self, stream: usize, text: &[u8], stamp: &str, out: &mut Vec<u8>) {
        self.tell(stamp, out);
        if self.within != 0 && (self.within != number(stream) || !self.mid[stream]) {
            out.push(b'\n');
            self.within = 0;
        }
        if self.within == 0 {
            out.extend_from_slice(stamp.as_bytes());
        }
        out.extend_from_slice(text);
        self.mid[stream] = text.last() != Some(&b'\n');
        self.skip[stream] = false;
        self.within = if self.mid[stream] { number(stream) } else { 0 };
    }

    /// Says what is missing, on lines of their own.
    fn tell(&mut self, stamp: &str, out: &mut Vec<u8>) {
        for (count, why) in [(self.lost, ""), (self.dropped, " by the rate limit")] {
            if count > 0 {
                let begin = if self.within == 0 { "" } else { "\n" };
                out.extend_from_slice(format!("{begin}{stamp}[hob: {count} bytes dropped{why}]\n").as_bytes());
                self.within = 0;
            }
        }
        (self.lost, self.dropped) = (0, 0);
    }

    /// When what the rate limit dropped is said although nothing more comes.
    #[must_use]
    pub fn told_at(&self, set: Settings) -> Option<Mono> {
        let (rate, at) = (set.rate?, self.tokens_at?);
        if self.dropped == 0 {
            return None;
        }
        let missing = (rate / 2).saturating_sub(self.tokens);
        let nanos = u128::from(missing) * 1_000_000_000 / u128::from(rate) + 1;
        Some(at + core::time::Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }
}

/// How a stream is called in `State::within`.
fn number(stream: usize) -> u8 {
    if stream == 0 { 1 } else { 2 }
}

/// The length of the first line with its end.
fn line(bytes: &[u8]) -> usize {
    let mut reader = bytes;
    // The search of `BufRead` is the fast one, and reading from memory cannot fail.
    reader.skip_until(b'\n').unwrap_or(bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::Wall;
    use core::time::Duration;

    fn at(ms: u64) -> Now {
        Now { mono: Mono(ms * 1_000_000), wall: Wall(1_795_197_378_000 + i64::try_from(ms).unwrap()) }
    }

    fn plain(state: &mut State, stream: usize, raw: &str, set: Settings, ms: u64) -> String {
        let mut out = Vec::new();
        let taken = state.shape(stream, raw.as_bytes(), &Masks::default(), (set, at(ms), Room::ENDLESS), &mut out);
        assert_eq!(taken, raw.len());
        String::from_utf8(out).unwrap()
    }

    const STAMPED: Settings = Settings { timestamps: true, rate: None };

    #[test]
    fn each_line_gets_one_stamp_however_it_comes() {
        let mut s = State::default();
        assert_eq!(
            plain(&mut s, 0, "one\n\ntw", STAMPED, 123),
            "2026-11-20T17:56:18.123Z one\n2026-11-20T17:56:18.123Z \n2026-11-20T17:56:18.123Z tw"
        );
        assert_eq!(plain(&mut s, 0, "o", STAMPED, 200), "o");
        assert_eq!(plain(&mut s, 0, "!\nthree\n", STAMPED, 300), "!\n2026-11-20T17:56:18.300Z three\n");
    }

    #[test]
    fn streams_never_run_into_each_other() {
        let mut s = State::default();
        let set = Settings::default();
        assert_eq!(plain(&mut s, 0, "out be", set, 0), "out be");
        assert_eq!(plain(&mut s, 1, "err\nerr be", set, 0), "\nerr\nerr be");
        assert_eq!(plain(&mut s, 0, "gins\nmore\n", set, 0), "\ngins\nmore\n");
        assert_eq!(plain(&mut s, 1, "gins\n", set, 0), "gins\n");
    }

    #[test]
    fn the_rate_limit_drops_whole_lines_and_says_how_much() {
        let set = Settings { timestamps: false, rate: Some(1000) };
        let mut s = State::default();
        let line = format!("{}\n", "x".repeat(99));
        let first = plain(&mut s, 0, &line.repeat(15), set, 0);
        assert_eq!(first, line.repeat(10), "a second's worth at once");
        assert_eq!(s.dropped, 500);
        assert_eq!(plain(&mut s, 0, &line.repeat(3), set, 400), "", "no single lines between notes");
        assert_eq!(s.told_at(set), Some(at(500).mono + Duration::from_nanos(1)));
        let next = plain(&mut s, 0, &line.repeat(7), set, 600);
        assert_eq!(next, format!("[hob: 800 bytes dropped by the rate limit]\n{}", line.repeat(6)));
        assert_eq!(s.dropped, 100);
        assert_eq!(plain(&mut s, 0, "", set, 5000), "[hob: 100 bytes dropped by the rate limit]\n");
        assert_eq!((s.dropped, s.told_at(set)), (0, None));
        let huge = format!("{}\n", "y".repeat(5000));
        assert_eq!(
            plain(&mut s, 0, &huge, set, 9000),
            huge,
            "a line that is longer than a second's worth passes alone"
        );
        assert_eq!(plain(&mut s, 0, "a\n", set, 9001), "");
    }

    #[test]
    fn the_rest_of_a_dropped_line_is_dropped_too() {
        let set = Settings { timestamps: true, rate: Some(1000) };
        let mut s = State::default();
        plain(&mut s, 0, &format!("{}\n", "x".repeat(998)), set, 0);
        assert_eq!(plain(&mut s, 0, "begins ", set, 1), "");
        assert_eq!(
            plain(&mut s, 0, "ends\nnext\n", set, 5001),
            concat!(
                "2026-11-20T17:56:23.001Z [hob: 12 bytes dropped by the rate limit]\n",
                "2026-11-20T17:56:23.001Z next\n"
            )
        );
    }

    #[test]
    fn bytes_gained_one_by_one_are_not_lost() {
        let set = Settings { timestamps: false, rate: Some(1000) };
        let mut s = State::default();
        plain(&mut s, 0, &"x".repeat(1000), set, 0);
        for us in 1..=1_000_000u64 / 100 {
            s.refill(set, Mono(us * 100_000));
        }
        assert_eq!(s.tokens, 1000);
    }

    #[test]
    fn masks_take_the_place_of_secrets_and_their_line_breaks() {
        let masks = Masks::new(&[b"top secret".to_vec(), b"se\ncret\n".to_vec()]);
        let mut s = State::default();
        let mut out = Vec::new();
        let raw = b"a top secret b\nx se\ncret\ny\nz top secret";
        let taken = s.shape(0, raw, &masks, (STAMPED, at(1), Room::ENDLESS), &mut out);
        assert_eq!(taken, raw.len());
        let t = "2026-11-20T17:56:18.001Z ";
        assert_eq!(String::from_utf8(out).unwrap(), format!("{t}a *** b\n{t}x ***y\n{t}z ***"));
    }

    #[test]
    fn it_stops_where_the_file_is_full() {
        let mut s = State::default();
        let mut out = Vec::new();
        let set = (Settings::default(), at(1), Room { left: 10, empty: false, batch: 1000 });
        assert_eq!(s.shape(0, b"1234\n5678\n", &Masks::default(), set, &mut out), 5);
        assert_eq!(s.shape(0, b"1234567890\n", &Masks::default(), set, &mut Vec::new()), 0);
        let set = (Settings::default(), at(1), Room { left: 10, empty: true, batch: 1000 });
        assert_eq!(s.shape(0, b"1234567890\n1\n", &Masks::default(), set, &mut Vec::new()), 11);
        let mut long = State { within: 1, mid: [true, false], ..State::default() };
        let set = (Settings::default(), at(1), Room { left: 0, empty: false, batch: 1000 });
        assert_eq!(long.shape(0, b"the end\nnext\n", &Masks::default(), set, &mut Vec::new()), 8);
    }
}
