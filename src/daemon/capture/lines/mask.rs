//! Finding secrets in output, so that `***` can take their place, also where one comes in two pieces. Pure.

use crate::base::limits::{SECRET_MAX, SECRET_MIN};

/// What stands in the log instead of a secret.
pub const MASK: &[u8] = b"***";
/// Lines of a value that has several are secrets of their own when they are as long as this.
const LINE_MIN: usize = 8;

/// The values that are not to be seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Masks {
    values: Vec<Vec<u8>>,
    /// Whether some value begins with this byte.
    first: Vec<bool>,
}

impl Masks {
    /// Masks for these values. Those that are too short are left out; of several lines each counts alone as well, and
    /// a very long one is masked piece by piece.
    #[must_use]
    pub fn new(values: &[Vec<u8>]) -> Masks {
        let mut all: Vec<Vec<u8>> = Vec::new();
        for value in values.iter().filter(|v| v.len() >= SECRET_MIN) {
            let pieces = value.len().div_ceil(SECRET_MAX);
            all.extend(value.chunks(value.len().div_ceil(pieces)).map(<[u8]>::to_vec));
            let lines: Vec<&[u8]> = value.split(|b| *b == b'\n').collect();
            if lines.len() > 1 {
                let long = lines.iter().filter(|l| (LINE_MIN..=SECRET_MAX).contains(&l.len()));
                all.extend(long.map(|l| l.to_vec()));
            }
        }
        // The longest first, so that the first that fits is the longest that does.
        all.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        all.dedup();
        let mut first = vec![false; if all.is_empty() { 0 } else { 256 }];
        for byte in all.iter().filter_map(|v| v.first()) {
            first[usize::from(*byte)] = true;
        }
        Masks { values: all, first }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Where secrets lie in `bytes`, as ranges in order, and how much of `bytes` is decided: what follows may be the
    /// beginning of a secret whose rest is still to come. With `all`, nothing more will come.
    #[must_use]
    pub fn find(&self, bytes: &[u8], all: bool) -> (Vec<core::ops::Range<usize>>, usize) {
        let mut found = Vec::new();
        if self.values.is_empty() {
            return (found, bytes.len());
        }
        let mut at = 0;
        while let Some(skip) = bytes.get(at..).and_then(|b| b.iter().position(|b| self.first[usize::from(*b)])) {
            at += skip;
            let rest = bytes.get(at..).unwrap_or_default();
            if !all && self.values.iter().any(|v| v.len() > rest.len() && v.starts_with(rest)) {
                return (found, at);
            }
            match self.values.iter().find(|v| rest.starts_with(v)) {
                Some(value) => {
                    found.push(at..at + value.len());
                    at += value.len();
                }
                None => at += 1,
            }
        }
        (found, bytes.len())
    }

    /// A copy of `bytes`, which are a whole piece, with its secrets masked.
    #[must_use]
    pub fn apply(&self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len());
        let mut from = 0;
        for range in self.find(bytes, true).0 {
            out.extend_from_slice(bytes.get(from..range.start).unwrap_or_default());
            out.extend_from_slice(MASK);
            from = range.end;
        }
        out.extend_from_slice(bytes.get(from..).unwrap_or_default());
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masks(values: &[&str]) -> Masks {
        Masks::new(&values.iter().map(|v| v.as_bytes().to_vec()).collect::<Vec<_>>())
    }

    fn applied(m: &Masks, text: &str) -> String {
        String::from_utf8(m.apply(text.as_bytes())).unwrap()
    }

    #[test]
    fn every_place_of_a_secret_is_masked_and_the_longest_wins() {
        let m = masks(&["abc", "abcdef", "", "x", "hunter2"]);
        assert_eq!(applied(&m, "abcdefabcabxhunter2hunter2\n"), "******abx******\n");
        assert_eq!(applied(&m, "hunterhunter2"), "hunter***");
        assert!(masks(&["", "x"]).is_empty());
        assert_eq!(applied(&masks(&["aab"]), "aaab"), "a***");
        assert_eq!(applied(&masks(&[]), "text"), "text");
    }

    #[test]
    fn what_may_become_a_secret_is_held_back() {
        let m = masks(&["secret", "secret-longer", "tse"]);
        for (text, decided) in [
            ("no", 2),
            ("the s", 4),
            ("the secre", 4),
            ("the secret", 4),
            ("the secret!", 11),
            ("the secret-long", 4),
            ("the secret-lonx", 15),
            ("the tsecret", 10),
            ("ts", 0),
            ("", 0),
        ] {
            assert_eq!(m.find(text.as_bytes(), false).1, decided, "{text}");
            assert_eq!(m.find(text.as_bytes(), true).1, text.len(), "{text}");
        }
    }

    #[test]
    fn over_any_cut_the_same_is_masked() {
        let m = masks(&["hunter2", "line one of it\nline two of it\n", "tt"]);
        let text = "a hunter2 line one of it\nline two of it\nline two of it, huntt hunter2tthunter2";
        let want = applied(&m, text);
        assert_eq!(want, "a *** ******, hun*** *********");
        for cut in 0..=text.len() {
            let (a, b) = text.split_at(cut);
            let decided = m.find(a.as_bytes(), false).1;
            let (now, held) = a.split_at(decided);
            assert_eq!(applied(&m, now) + &applied(&m, &format!("{held}{b}")), want, "cut at {cut}");
        }
    }

    #[test]
    fn long_values_are_masked_whole() {
        let long = "0123456789".repeat(1000);
        let m = masks(&[&long]);
        let shown = applied(&m, &format!("<{long}>"));
        assert!(shown.starts_with('<') && shown.ends_with('>') && shown.len() < 12, "{shown}");
    }
}
