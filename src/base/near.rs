//! Which of the known words was probably meant by a misspelt one. Touches nothing.

/// Longer words are not looked for: nobody mistypes one.
const WORD_MAX: usize = 128;

/// The word that was probably meant: equal but for case and `-` or `_`, else the only one that begins with it, else the
/// nearest by edit distance (about a third of its letters, three at most), one that begins with it before others of the
/// same distance, else the longest that it begins with.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    nearest_of(word, &mut known.into_iter())
}

fn nearest_of<'a>(word: &str, known: &mut dyn Iterator<Item = &'a str>) -> Option<&'a str> {
    let folded = fold(word);
    if folded.is_empty() || folded.len() > WORD_MAX {
        return None;
    }
    let allowed = match folded.len() {
        0..=2 => 0,
        3..=6 => 1,
        7..=9 => 2,
        _ => 3,
    };
    let (mut best, mut longer, mut shorter) = (None, Vec::new(), None);
    for candidate in known {
        let other = fold(candidate);
        let begins = folded.len() >= 3 && other.starts_with(&folded);
        if other.len().abs_diff(folded.len()) <= allowed
            && let Some(d) = distance(&folded, &other, allowed)
            && best.is_none_or(|(nearest, _)| (d, !begins) < nearest)
        {
            best = Some(((d, !begins), candidate));
        }
        if begins && longer.len() < 2 {
            longer.push(candidate);
        }
        if other.len() >= 3 && folded.starts_with(&other) && shorter.is_none_or(|s: &str| s.len() < candidate.len()) {
            shorter = Some(candidate);
        }
    }
    match (best, longer.as_slice()) {
        (Some(((0, _), meant)), _) => Some(meant),
        (_, [only]) => Some(only),
        (Some((_, meant)), _) => Some(meant),
        _ => shorter,
    }
}

fn fold(word: &str) -> Vec<char> {
    word.chars().map(|c| if c == '-' { '_' } else { c.to_ascii_lowercase() }).collect()
}

/// Edits (insert, delete, replace, swap two neighbours) from one word to another, if there are at most `max` of them.
/// Looks only at the cells of the table of edits that so few can reach.
fn distance(a: &[char], b: &[char], max: usize) -> Option<usize> {
    let far = max + 1;
    let mut before = vec![far; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).map(|j| j.min(far)).collect();
    let mut row = vec![far; b.len() + 1];
    for (i, ca) in (1..).zip(a) {
        row.fill(far);
        row[0] = i.min(far);
        for j in i.saturating_sub(max).max(1)..=(i + max).min(b.len()) {
            let cb = &b[j - 1];
            let mut d = (last[j - 1] + usize::from(ca != cb)).min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && *ca == b[j - 2] && a[i - 2] == *cb {
                d = d.min(before[j - 2] + 1);
            }
            row[j] = d.min(far);
        }
        if row.iter().all(|d| *d == far) {
            return None;
        }
        core::mem::swap(&mut before, &mut last);
        core::mem::swap(&mut last, &mut row);
    }
    last.last().copied().filter(|d| *d <= max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_what_is_near_and_nothing_else() {
        let known = ["status", "start", "stop", "restart", "reload"];
        assert_eq!(nearest("statsu", known), Some("status"));
        assert_eq!(nearest("Stopp", known), Some("stop"));
        assert_eq!(nearest("relaod", known), Some("reload"));
        assert_eq!(nearest("frobnicate", known), None);
        // One that goes on as it begins, before one with another letter.
        assert_eq!(nearest("stat", known), Some("status"));
        assert_eq!(nearest("stat", ["start", "stats", "status"]), Some("stats"));
        assert_eq!(nearest("star", ["stat", "start", "star"]), Some("star"));
        assert_eq!(nearest("", known), None);
    }

    #[test]
    fn the_nearest_word_is_found_and_far_ones_are_not() {
        let keys = ["restart", "ready", "requires", "env", "env_file", "max_delay", "min_delay", "autostart", "nice"];
        let near = |w| nearest(w, keys);
        for (word, want) in [
            ("restrat", Some("restart")),
            ("Restart", Some("restart")),
            ("evn", Some("env")),
            ("envfile", Some("env_file")),
            ("env-file", Some("env_file")),
            ("maxdelay", Some("max_delay")),
            ("auto", Some("autostart")),
            ("require", Some("requires")),
            ("health", None),
            ("listen", None),
            ("schedule", None),
            ("ionice", None),
            ("ready_fd", Some("ready")),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(near(word), want, "{word}");
        }
    }

    #[test]
    fn distances_are_those_of_the_whole_table() {
        let chars = |w: &str| w.chars().collect::<Vec<char>>();
        for (a, b, want) in [
            ("", "", 0),
            ("abc", "", 3),
            ("", "ab", 2),
            ("abcdef", "abcdef", 0),
            ("abcdef", "bcdefa", 2),
            ("abcd", "badc", 2),
            ("kitten", "sitting", 3),
            ("restrat", "restart", 1),
            ("abcdefgh", "xyz", 8),
        ] {
            for max in 0..9 {
                let expected = (want <= max).then_some(want);
                assert_eq!(distance(&chars(a), &chars(b), max), expected, "{a} {b} {max}");
                assert_eq!(distance(&chars(b), &chars(a), max), expected, "{b} {a} {max}");
            }
        }
    }
}
