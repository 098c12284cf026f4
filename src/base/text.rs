//! Small things about sentences for people. Touches nothing.

use std::borrow::Cow;

/// The text with a capital first letter.
#[must_use]
pub fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |c| c.to_uppercase().chain(chars).collect())
}

/// `a`, `a and b`, `a, b and c`.
#[must_use]
pub fn listed(words: &[String]) -> String {
    match words.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => words.concat(),
    }
}

/// `1 mistake`, `30 mistakes`.
#[must_use]
pub fn count(n: usize, one: &str) -> String {
    if n == 1 { format!("1 {one}") } else { format!("{n} {one}s") }
}

/// The first lines of a text, and how many are left out.
#[must_use]
pub fn first_lines(text: &str, most: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    match lines.get(..most) {
        Some(first) if lines.len() > most => format!("{}\nand {} more", first.join("\n"), lines.len() - most),
        _ => lines.join("\n"),
    }
}

/// A text without the numbers of errors, as in `No such file or directory (os error 2)`.
#[must_use]
pub fn without_numbers(text: &str) -> String {
    const BEGIN: &str = " (os error ";
    let mut out = String::new();
    let mut parts = text.split(BEGIN);
    out.push_str(parts.next().unwrap_or_default());
    for part in parts {
        match part.split_once(')') {
            Some((number, rest)) if number.bytes().all(|b| b.is_ascii_digit()) => out.push_str(rest),
            _ => out.extend([BEGIN, part]),
        }
    }
    out
}

/// What shows nothing, or turns the order of what stands beside it, so that a text reads as another one.
const UNSEEN: [char; 19] = [
    '\u{61c}', '\u{200b}', '\u{200e}', '\u{200f}', '\u{2028}', '\u{2029}', '\u{202a}', '\u{202b}', '\u{202c}',
    '\u{202d}', '\u{202e}', '\u{2060}', '\u{2066}', '\u{2067}', '\u{2068}', '\u{2069}', '\u{feff}', '\u{180e}',
    '\u{ad}',
];

/// What would move the cursor of a terminal, or worse, or deceive the eye.
fn is_odd(c: char) -> bool {
    c.is_control() || !c.is_ascii() && UNSEEN.contains(&c)
}

/// The same but for ends of lines and tabs.
fn is_odd_in_lines(c: char) -> bool {
    is_odd(c) && c != '\n' && c != '\t'
}

fn escaped(text: &str, is_odd: fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(is_odd) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_odd(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    Cow::Owned(out)
}

/// Lines with text from outside for a terminal: each control character becomes visible, as in `\u{1b}`, those of
/// colours too, which could hide what others say, and so does what cannot be seen or turns the order of letters. Lines
/// and tabs stay.
#[must_use]
pub fn visible(text: &str) -> Cow<'_, str> {
    escaped(text, is_odd_in_lines)
}

/// The same of a text that is a cell, a field or a part of a line: it cannot begin another line, so that nobody can
/// forge one.
#[must_use]
pub fn visible_line(text: &str) -> Cow<'_, str> {
    escaped(text, is_odd)
}

/// The same of JSON, which stays the same JSON. Between its values it may have lines.
#[must_use]
pub fn visible_json(json: &str) -> Cow<'_, str> {
    if !json.contains(is_odd_in_lines) {
        return Cow::Borrowed(json);
    }
    let mut out = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        // None of them needs more than four digits.
        if is_odd_in_lines(c) { out.push_str(&format!("\\u{:04x}", u32::from(c))) } else { out.push(c) }
    }
    Cow::Owned(out)
}

/// A line under which a mark points at one of its characters, so that each of them has to be one wide.
#[must_use]
pub fn blanked(line: &str) -> String {
    line.chars().map(|c| if is_odd(c) { ' ' } else { c }).collect()
}

/// Lines of a text that hob has coloured, as [`visible`] has them: colours (`ESC [ ... m`) stay.
#[must_use]
pub fn visible_or_colour(text: &str) -> Cow<'_, str> {
    if !text.contains(is_odd_in_lines) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(is_odd_in_lines) {
        let (plain, odd) = rest.split_at(at);
        out.push_str(plain);
        let colour = odd.strip_prefix("\x1b[").and_then(|t| t.find(|c: char| !c.is_ascii_digit() && c != ';'));
        let end = colour.map(|n| n + 2).filter(|end| odd.get(*end..).is_some_and(|t| t.starts_with('m')));
        let (kept, left) = match end {
            Some(end) => odd.split_at(end + 1),
            None => {
                let mut chars = odd.chars();
                out.extend(chars.next().into_iter().flat_map(char::escape_default));
                ("", chars.as_str())
            }
        };
        out.push_str(kept);
        rest = left;
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// A word as the shell takes it.
#[must_use]
pub fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_colours_reach_a_terminal() {
        for plain in ["", "two\nlines\tand é", "\x1b[1;31mred\x1b[0m"] {
            assert_eq!(visible_or_colour(plain), plain);
        }
        let odd = [
            ("\x1b]0;title\x07", "\\u{1b}]0;title\\u{7}"),
            ("a\x1b[2Jb\x1b[1mc", "a\\u{1b}[2Jb\x1b[1mc"),
            ("\x1b[1", "\\u{1b}[1"),
            ("\u{9b}31mé\rz\x1b", "\\u{9b}31mé\\rz\\u{1b}"),
        ];
        for (text, shown) in odd {
            assert_eq!(visible_or_colour(text), shown);
            assert_eq!(visible(text), shown.replace('\x1b', "\\u{1b}"));
        }
        assert_eq!(visible("a\tb\né"), "a\tb\né");
        assert_eq!(visible_line("a\tb\né"), "a\\tb\\né");
        assert_eq!(visible_json("{\n \"a\u{9b}\u{7f}\u{202e}é\"}"), "{\n \"a\\u009b\\u007f\\u202eé\"}");
        assert_eq!(blanked("a\tb\u{202e}c"), "a b c");
        for odd in UNSEEN {
            let (text, shown) = (format!("é{odd}b\n"), format!("é\\u{{{:x}}}b\n", u32::from(odd)));
            assert_eq!(visible(&text), shown);
            assert_eq!(visible_or_colour(&text), shown);
            assert_eq!(visible_line(&text), shown.replace('\n', "\\n"));
        }
    }

    #[test]
    fn lists_end_with_and() {
        let all = ["a", "b", "c"].map(str::to_owned);
        assert_eq!([0, 1, 2, 3].map(|n| listed(&all[..n])), ["", "a", "a and b", "a, b and c"]);
        assert_eq!((capital("one two"), capital("")), ("One two".to_owned(), String::new()));
        assert_eq!((count(1, "run"), count(0, "run")), ("1 run".to_owned(), "0 runs".to_owned()));
    }

    #[test]
    fn numbers_of_errors_are_left_out() {
        assert_eq!(without_numbers("a: gone (os error 2); b: x (os error 13)"), "a: gone; b: x");
        assert_eq!(without_numbers("plain (os error x)"), "plain (os error x)");
    }

    #[test]
    fn long_texts_are_cut_at_a_line() {
        assert_eq!(first_lines("a\nb\nc\n", 3), "a\nb\nc");
        assert_eq!(first_lines("a\nb\nc\nd\n", 2), "a\nb\nand 2 more");
    }

    #[test]
    fn words_are_quoted_for_the_shell() {
        assert_eq!(shell_word("a-b/c.d"), "a-b/c.d");
        assert_eq!(shell_word("it's"), "'it'\\''s'");
        assert_eq!(shell_word(""), "''");
    }
}
