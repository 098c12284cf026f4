//! What is wrong with a config, where exactly, and what was probably meant. Touches nothing.

use crate::base::text::{blanked, count, visible_line};
use core::fmt;

/// One mistake. Lines and columns count from 1; a column is one character.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file as it was named to the parser.
    pub file: String,
    pub line: u32,
    pub column: u32,
    /// Where in the config: `services.web.restart`; empty for the whole.
    pub path: String,
    /// What is wrong, without a full stop.
    pub message: String,
    /// What to write instead, literally.
    pub suggestion: Option<String>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", visible_line(&self.file), self.line, self.column, self.by_path())
    }
}

impl core::error::Error for ConfigError {}

/// What keeps a config from taking effect, by the lines that tell it: `has 2 mistakes` where each names a place in the
/// file, or that there is no file that can be read or was.
#[must_use]
pub fn trouble(lines: &str) -> String {
    let names_a_place = |line: &str| {
        let mut parts = line.split(':').map(|part| part.parse::<u32>().is_ok());
        parts.by_ref().any(|is_number| is_number) && parts.next() == Some(true)
    };
    match lines.lines().filter(|line| names_a_place(line)).count() {
        0 if lines == LEFT_OUT => "was left out".to_owned(),
        0 => "cannot be read".to_owned(),
        n => format!("has {}", count(n, "mistake")),
    }
}

/// Told of a config that nobody has looked at.
pub const LEFT_OUT: &str = "the config was left out, because daemons died of reading it";

impl ConfigError {
    /// For a text that nobody has before him as a file: the path to the value instead of the place.
    #[must_use]
    pub fn by_path(&self) -> String {
        let mut text = String::new();
        if !self.path.is_empty() {
            text.push_str(&format!("{}: ", self.path));
        }
        text.push_str(&self.message);
        match &self.suggestion {
            // A text brings its own quotes.
            Some(s) if s.starts_with('"') => text.push_str(&format!("; did you mean {s}?")),
            // Beside the same as a text it would read as that.
            Some(s) if s.parse::<f64>().is_ok() => text.push_str(&format!("; did you mean the number {s}?")),
            Some(s) if s == "true" || s == "false" => text.push_str(&format!("; did you mean {s}, without quotes?")),
            Some(s) => text.push_str(&format!("; did you mean '{s}'?")),
            None => {}
        }
        visible_line(&text).into_owned()
    }

    /// The line of the text that the error is in, and below it a caret under the column. A long line is cut around it.
    #[must_use]
    pub fn excerpt(&self, text: &str) -> String {
        const BEFORE: usize = 60;
        const WIDTH: usize = 100;
        let index = |n: u32| usize::try_from(n).unwrap_or(usize::MAX).saturating_sub(1);
        let line = text.lines().nth(index(self.line)).unwrap_or("");
        let skipped = index(self.column).saturating_sub(BEFORE);
        let shown: String = line.chars().skip(skipped).take(WIDTH).collect();
        format!("  {}\n  {:>2$}", blanked(&shown), '^', index(self.column) - skipped + 1)
    }
}

/// A place in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Pos {
    pub(super) line: u32,
    pub(super) column: u32,
}

/// Errors at which reading goes on; what follows is only counted.
const ERRORS_MAX: usize = 200;

/// Where reading stands, and all errors so far.
#[derive(Debug)]
pub(super) struct Report<'a> {
    file: &'a str,
    errors: Vec<ConfigError>,
    more: usize,
    path: Vec<Step>,
}

#[derive(Debug)]
enum Step {
    Key(String),
    Index(usize),
}

impl<'a> Report<'a> {
    pub(super) fn new(file: &'a str) -> Self {
        Report { file, errors: Vec::new(), more: 0, path: Vec::new() }
    }

    pub(super) fn add(&mut self, pos: Pos, message: impl Into<String>) {
        self.suggest(pos, message, None);
    }

    pub(super) fn suggest(&mut self, pos: Pos, message: impl Into<String>, suggestion: Option<String>) {
        let path = if self.errors.len() < ERRORS_MAX { self.path() } else { String::new() };
        self.add_at(path, pos, message, suggestion);
    }

    /// Reports for a path that was left before.
    pub(super) fn add_at(&mut self, path: String, pos: Pos, message: impl Into<String>, suggestion: Option<String>) {
        if self.errors.len() >= ERRORS_MAX {
            self.more += 1;
            return;
        }
        self.errors.push(ConfigError {
            file: self.file.to_owned(),
            line: pos.line,
            column: pos.column,
            path,
            message: message.into(),
            suggestion,
        });
    }

    /// How many errors there are so far.
    pub(super) fn count(&self) -> usize {
        self.errors.len() + self.more
    }

    /// Whether errors are only counted by now.
    pub(super) fn is_full(&self) -> bool {
        self.errors.len() >= ERRORS_MAX
    }

    pub(super) fn is_clean(&self) -> bool {
        self.errors.is_empty()
    }

    pub(super) fn enter_key(&mut self, key: &str) {
        self.path.push(Step::Key(key.to_owned()));
    }

    pub(super) fn enter_index(&mut self, index: usize) {
        self.path.push(Step::Index(index));
    }

    pub(super) fn leave(&mut self) {
        self.path.pop();
    }

    /// `services.web.requires[0]`; a key that is not a plain word stands in quotes.
    pub(super) fn path(&self) -> String {
        let mut out = String::new();
        for (depth, step) in self.path.iter().enumerate() {
            match step {
                _ if depth == PATH_SHOWN_MAX => {
                    out.push_str("...");
                    break;
                }
                Step::Index(i) => out.push_str(&format!("[{i}]")),
                Step::Key(k) => {
                    if !out.is_empty() {
                        out.push('.');
                    }
                    let plain = !k.is_empty() && k.chars().all(|c| c.is_ascii_alphanumeric() || "-_@:".contains(c));
                    if plain && k.len() <= SHOWN_MAX { out.push_str(k) } else { out.push_str(&quote(k)) }
                }
            }
        }
        out
    }

    /// All errors in the order of the text.
    pub(super) fn finish(mut self) -> Vec<ConfigError> {
        self.errors.sort_by_key(|e| (e.line, e.column));
        if self.more > 0
            && let Some(last) = self.errors.last().cloned()
        {
            let message = format!("{} more errors are not shown", self.more);
            self.errors.push(ConfigError { path: String::new(), message, suggestion: None, ..last });
        }
        self.errors
    }
}

/// Steps of a path that are shown; more come from nonsense alone.
const PATH_SHOWN_MAX: usize = 12;
/// Characters of a text from the file that are repeated in a message.
const SHOWN_MAX: usize = 64;

/// A text from the file as it would be written in JSON, cut when it is long.
pub(super) fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for (i, c) in text.chars().enumerate() {
        if i == SHOWN_MAX {
            out.push_str("...");
            break;
        }
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_prints_on_one_line_and_its_excerpt_points() {
        let e = ConfigError {
            file: "hob.json".into(),
            line: 2,
            column: 3,
            path: "services.web.restrat".into(),
            message: "unknown key".into(),
            suggestion: Some("restart".into()),
        };
        assert_eq!(e.to_string(), "hob.json:2:3: services.web.restrat: unknown key; did you mean 'restart'?");
        assert_eq!(e.excerpt("{\n\t\"restrat\": 1\n}"), "   \"restrat\": 1\n    ^");
        assert_eq!(e.excerpt(""), "  \n    ^");
        let long = format!("\n{}x", "é".repeat(200));
        let at_end = ConfigError { column: 201, ..e };
        let shown = at_end.excerpt(&long);
        let caret = shown.lines().nth(1).unwrap().chars().count();
        assert_eq!(shown.lines().next().unwrap().chars().nth(caret - 1), Some('x'));
    }

    #[test]
    fn errors_come_in_the_order_of_the_text_and_have_an_end() {
        let mut r = Report::new("f");
        for i in (1..=300).rev() {
            r.enter_key("a.b");
            r.enter_index(3);
            r.add(Pos { line: i, column: 1 }, "bad");
            r.leave();
            r.leave();
        }
        let errors = r.finish();
        assert_eq!(errors.len(), ERRORS_MAX + 1);
        assert!(errors.is_sorted_by_key(|e| e.line));
        assert_eq!(errors[0].path, "\"a.b\"[3]");
        assert_eq!(errors[ERRORS_MAX].to_string(), "f:300:1: 100 more errors are not shown");
    }
}
