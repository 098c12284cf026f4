//! The leaves of the tree: words, numbers and texts, with what people write for them by mistake. Touches nothing.

use super::error::{Pos, quote};
use super::tree::{Parser, Value};
use crate::base::near::nearest;
use crate::base::units::{parse_duration, parse_size};

impl Parser<'_, '_, '_> {
    pub(super) fn take(&mut self, wanted: impl Fn(char) -> bool) -> String {
        let mut out = String::new();
        while let Some(c) = self.peek().filter(|c| wanted(*c)) {
            out.push(c);
            self.next();
        }
        out
    }

    /// `true`, `false`, `null`, or what somebody took for one of them.
    pub(super) fn word(&mut self) -> Option<Value> {
        let here = self.pos;
        let word = self.take(|c| c.is_alphanumeric() || "_-.".contains(c));
        match word.as_str() {
            "true" => Some(Value::Bool(true)),
            "false" => Some(Value::Bool(false)),
            "null" => Some(Value::Null),
            other => {
                let meant = match other.to_ascii_lowercase().as_str() {
                    "yes" | "on" => Some("true".to_owned()),
                    "no" | "off" => Some("false".to_owned()),
                    "none" | "nil" | "undefined" => Some("null".to_owned()),
                    lower => nearest(lower, ["true", "false", "null"]).map(str::to_owned),
                };
                let meant = meant.unwrap_or_else(|| quote(other));
                self.wrong_suggest(
                    here,
                    format!("{} is not a value; text stands in double quotes", quote(other)),
                    Some(meant),
                );
                None
            }
        }
    }

    pub(super) fn number(&mut self) -> Option<Value> {
        let here = self.pos;
        let text = self.take(|c| c.is_alphanumeric() || "+-._".contains(c));
        if is_json_number(&text) {
            return Some(Value::Number(text));
        }
        let digits = text.trim_start_matches('0');
        if digits.len() < text.len() && digits.bytes().all(|b| b.is_ascii_digit()) {
            let message = "a number has no leading zeros; octal digits are written as text";
            self.wrong_suggest(here, message, Some(quote(&text)));
        } else if parse_duration(&text).is_ok() || parse_size(&text).is_ok() {
            self.wrong_suggest(here, "a number with a unit is written in double quotes", Some(quote(&text)));
        } else {
            self.wrong(here, format!("{} is not a number", quote(&text)));
        }
        None
    }

    /// A string, from its opening quote. `None` when it has no end; other mistakes in it are reported and read over.
    pub(super) fn text(&mut self) -> Option<String> {
        let here = self.pos;
        let delimiter = self.next()?;
        if delimiter != '"' {
            self.wrong(here, "text is written in double quotes, not in single ones");
        }
        let mut out = String::new();
        loop {
            let at = self.pos;
            match self.peek() {
                None => {
                    self.wrong(here, "this text has no closing quote");
                    self.give_up();
                    return None;
                }
                Some('\n') => {
                    self.wrong(here, "this text has no closing quote on its line");
                    return None;
                }
                Some(c) => {
                    self.next();
                    match c {
                        c if c == delimiter => return Some(out),
                        '\\' => self.escape(at, &mut out),
                        c if u32::from(c) < 0x20 => self.control(at, c),
                        c => out.push(c),
                    }
                }
            }
        }
    }

    fn control(&mut self, at: Pos, c: char) {
        let escape = match c {
            '\t' => "\\t".to_owned(),
            '\r' => "\\r".to_owned(),
            c => format!("\\u{:04x}", u32::from(c)),
        };
        self.wrong_suggest(at, "a control character in text is written as an escape", Some(escape));
    }

    fn escape(&mut self, at: Pos, out: &mut String) {
        let Some(c) = self.peek().filter(|c| *c != '\n') else { return };
        self.next();
        match c {
            '"' | '\\' | '/' => out.push(c),
            'b' => out.push('\u{8}'),
            'f' => out.push('\u{c}'),
            'n' => out.push('\n'),
            'r' => out.push('\r'),
            't' => out.push('\t'),
            'u' => match self.unicode() {
                Some(c) => out.push(c),
                None => self
                    .wrong(at, "\\u is followed by four hexadecimal digits, and half a surrogate pair is no character"),
            },
            c => {
                let message = format!("\\{} is not an escape; a backslash itself is written twice", c.escape_debug());
                self.wrong_suggest(at, message, Some(format!("\\\\{}", c.escape_debug())));
            }
        }
    }

    /// The character of `\uXXXX`, or of two of them that form a pair, behind the `u`.
    fn unicode(&mut self) -> Option<char> {
        let first = self.hex4()?;
        if !(0xd800..0xdc00).contains(&first) {
            return char::from_u32(first);
        }
        if !self.chars.as_str().starts_with("\\u") {
            return None;
        }
        self.next();
        self.next();
        let second = self.hex4().filter(|s| (0xdc00..0xe000).contains(s))?;
        char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00))
    }

    fn hex4(&mut self) -> Option<u32> {
        let mut n = 0;
        for _ in 0..4 {
            n = n * 16 + self.peek()?.to_digit(16)?;
            self.next();
        }
        Some(n)
    }
}

/// The grammar of JSON: `-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?`.
fn is_json_number(text: &str) -> bool {
    let all_digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    let text = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((m, e)) => (m, Some(e.strip_prefix(['+', '-']).unwrap_or(e))),
        None => (text, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((w, f)) => (w, Some(f)),
        None => (mantissa, None),
    };
    let no_leading_zero = whole == "0" || !whole.starts_with('0');
    all_digits(whole) && no_leading_zero && fraction.is_none_or(all_digits) && exponent.is_none_or(all_digits)
}
