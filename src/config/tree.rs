//! JSON with comments and trailing commas as a tree that knows the place of every key and value. Reports each syntax
//! error and goes on behind it, so that one run finds them all. Touches nothing.

use super::error::{Pos, Report, nearest, quote};
use crate::base::limits::JSON_DEPTH_MAX;
use crate::base::units::{parse_duration, parse_size};
use core::str::Chars;
use std::collections::BTreeMap;

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub(super) pos: Pos,
    pub(super) value: Value,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    /// As it was written; it follows the grammar of JSON.
    Number(String),
    Text(String),
    List(Vec<Node>),
    Object(Vec<Member>),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Member {
    pub(super) key: String,
    pub(super) pos: Pos,
    pub(super) node: Node,
}

/// Syntax errors after which the rest of the text is not read.
const SYNTAX_ERRORS_MAX: usize = 20;

/// Parses a whole text. `None` when there was a syntax error. Keys that repeat are reported, and the tree is still
/// whole.
pub(super) fn parse(text: &str, report: &mut Report<'_>) -> Option<Node> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let start = Pos { line: 1, column: 1 };
    let mut p = Parser { chars: text.chars(), pos: start, end: start, open: Vec::new(), wrong: 0, report };
    p.trivia();
    if p.peek().is_none() && p.wrong == 0 {
        p.wrong(start, "the file is empty; the smallest config is {}");
        return None;
    }
    let root = p.value();
    if p.wrong <= SYNTAX_ERRORS_MAX && root.is_some() {
        p.trivia();
        if let Some(c) = p.peek() {
            let here = p.pos;
            p.wrong(here, format!("the config has ended before this {}", shown(c)));
        }
    }
    root.filter(|_| p.wrong == 0)
}

struct Parser<'a, 'r, 'f> {
    chars: Chars<'a>,
    pos: Pos,
    /// The place behind the last token.
    end: Pos,
    /// The closing brackets that are awaited.
    open: Vec<char>,
    wrong: usize,
    report: &'r mut Report<'f>,
}

impl Parser<'_, '_, '_> {
    fn peek(&self) -> Option<char> {
        self.chars.clone().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.chars.next()?;
        if c == '\n' {
            self.pos = Pos { line: self.pos.line.saturating_add(1), column: 1 };
        } else {
            self.pos.column = self.pos.column.saturating_add(1);
        }
        Some(c)
    }

    fn wrong(&mut self, pos: Pos, message: impl Into<String>) {
        self.wrong_suggest(pos, message, None);
    }

    /// Reports a syntax error; after too many of them the rest of the text is skipped.
    fn wrong_suggest(&mut self, pos: Pos, message: impl Into<String>, suggestion: Option<String>) {
        self.wrong += 1;
        if self.wrong > SYNTAX_ERRORS_MAX {
            self.chars = "".chars();
        } else {
            self.report.suggest(pos, message, suggestion);
        }
    }

    /// Gives up on the rest of the text, without any further report.
    fn give_up(&mut self) {
        self.wrong = SYNTAX_ERRORS_MAX + 1;
        self.chars = "".chars();
    }

    /// Skips white space and comments.
    fn trivia(&mut self) {
        loop {
            match self.peek() {
                Some(' ' | '\t' | '\n' | '\r') => {
                    self.next();
                }
                Some('/') if self.chars.as_str().starts_with("//") => self.rest_of_line(),
                Some('/') if self.chars.as_str().starts_with("/*") => self.block_comment(),
                Some('#') => {
                    let here = self.pos;
                    self.wrong_suggest(
                        here,
                        "a comment begins with //, or stands between /* and */",
                        Some("//".into()),
                    );
                    self.rest_of_line();
                }
                _ => return,
            }
        }
    }

    fn rest_of_line(&mut self) {
        while self.peek().is_some_and(|c| c != '\n') {
            self.next();
        }
    }

    fn block_comment(&mut self) {
        let here = self.pos;
        self.next();
        self.next();
        while !self.chars.as_str().starts_with("*/") {
            if self.next().is_none() {
                self.wrong(here, "this comment has no end: */ is missing");
                self.give_up();
                return;
            }
        }
        self.next();
        self.next();
    }

    /// One value, `None` when it was wrong (which is reported, and the place is somewhere behind the error).
    fn value(&mut self) -> Option<Node> {
        self.trivia();
        let pos = self.pos;
        let value = match self.peek() {
            Some('{' | '[') if self.open.len() >= JSON_DEPTH_MAX => {
                self.wrong(pos, format!("nested deeper than {JSON_DEPTH_MAX} levels"));
                self.give_up();
                None
            }
            Some('{') => self.nested('}', Self::object),
            Some('[') => self.nested(']', Self::list),
            Some('"' | '\'') => self.text().map(Value::Text),
            Some('-' | '+' | '.' | '0'..='9') => self.number(),
            Some(c) if c.is_alphabetic() => self.word(),
            Some(c) => {
                self.wrong(pos, format!("a value is missing before this {}", shown(c)));
                None
            }
            // Whatever is open here is reported as not closed.
            None => None,
        };
        self.end = self.pos;
        value.map(|value| Node { pos, value })
    }

    fn nested(&mut self, close: char, parse: fn(&mut Self) -> Value) -> Option<Value> {
        self.open.push(close);
        let value = parse(self);
        self.open.pop();
        Some(value)
    }

    fn object(&mut self) -> Value {
        let open = self.pos;
        self.next();
        let (mut members, mut seen) = (Vec::new(), BTreeMap::new());
        while self.more('}', open) {
            let pos = self.pos;
            let Some(key) = self.key() else {
                self.resume();
                self.separator('}');
                continue;
            };
            if let Some(first) = seen.insert(key.clone(), pos) {
                self.report.enter_key(&key);
                self.report.add(pos, format!("duplicate key; it was given first at {}:{}", first.line, first.column));
                self.report.leave();
                seen.insert(key.clone(), first);
            }
            self.report.enter_key(&key);
            self.colon();
            let node = self.value();
            if node.is_none() {
                self.resume();
            }
            self.report.leave();
            members.extend(node.map(|node| Member { key, pos, node }));
            self.separator('}');
        }
        Value::Object(members)
    }

    fn list(&mut self) -> Value {
        let open = self.pos;
        self.next();
        let (mut items, mut index) = (Vec::new(), 0);
        while self.more(']', open) {
            self.report.enter_index(index);
            let node = self.value();
            if node.is_none() {
                self.resume();
            }
            self.report.leave();
            items.extend(node);
            index += 1;
            self.trivia();
            if self.peek() == Some(':') {
                // A list that was not closed has taken the next key for an element.
                let here = items.last().map_or(self.pos, |node: &Node| node.pos);
                let message = format!("']' is missing for the list at {}:{} before this key", open.line, open.column);
                self.wrong(here, message);
                self.resume();
                break;
            }
            self.separator(']');
        }
        Value::List(items)
    }

    /// Whether another element follows; consumes the closing bracket if not.
    fn more(&mut self, close: char, open: Pos) -> bool {
        self.trivia();
        let here = self.pos;
        match self.peek() {
            Some(c) if c == close => {
                self.next();
                false
            }
            Some(c @ ('}' | ']')) => {
                let wanted = format!("'{close}' is wanted for the {} at {}:{}", opener(close), open.line, open.column);
                self.wrong(here, format!("{wanted}, found {}", shown(c)));
                // Nothing around waits for this one, so it was meant to close this.
                if !self.open.contains(&c) {
                    self.next();
                }
                false
            }
            None => {
                if self.wrong <= SYNTAX_ERRORS_MAX {
                    self.wrong(open, format!("this {} is not closed: '{close}' is missing", opener(close)));
                    // What is around it is open for the same reason.
                    self.give_up();
                }
                false
            }
            Some(_) => true,
        }
    }

    /// What stands between two elements: a comma, or nothing before the closing bracket.
    fn separator(&mut self, close: char) {
        self.trivia();
        let after = self.end;
        match self.peek() {
            Some(',') => {
                self.next();
                self.trivia();
                let here = self.pos;
                if self.peek() == Some(',') {
                    self.wrong(here, "one comma is enough here");
                    while self.peek() == Some(',') {
                        self.next();
                        self.trivia();
                    }
                }
            }
            None | Some('}' | ']') => {}
            Some(c) if c == '"' || c.is_alphabetic() || (close == ']' && (c.is_ascii_digit() || "{[-".contains(c))) => {
                self.wrong(after, "a comma is missing here");
            }
            Some(c) => {
                let here = self.pos;
                self.wrong(here, format!("',' or '{close}' is wanted, found {}", shown(c)));
                self.resume();
                if self.peek() == Some(',') {
                    self.next();
                }
            }
        }
    }

    fn key(&mut self) -> Option<String> {
        let here = self.pos;
        match self.peek() {
            Some('"' | '\'') => {
                let key = self.text();
                self.end = self.pos;
                key
            }
            Some(c) if c.is_alphabetic() || c == '_' => {
                let word = self.take(|c| c.is_alphanumeric() || "_-.@".contains(c));
                self.wrong_suggest(here, "a key is written in double quotes", Some(quote(&word)));
                Some(word)
            }
            Some(c) => {
                self.wrong(here, format!("a key in double quotes is wanted, found {}", shown(c)));
                None
            }
            None => None,
        }
    }

    fn colon(&mut self) {
        self.trivia();
        let here = self.pos;
        match self.peek() {
            Some(':') => {
                self.next();
            }
            Some('=') => {
                self.wrong(here, "':' is wanted between a key and its value, found '='");
                self.next();
            }
            None => {}
            Some(_) => {
                let after = self.end;
                self.wrong(after, "':' is missing between the key and its value");
            }
        }
    }

    /// Skips what is left of a broken element: up to the next comma or closing bracket of the same level.
    fn resume(&mut self) {
        let mut open = 0_usize;
        loop {
            match self.peek() {
                None => return,
                Some(',') if open == 0 => return,
                Some('}' | ']') if open == 0 => return,
                Some('}' | ']') => open -= 1,
                Some('{' | '[') => open += 1,
                Some('"') => {
                    self.skip_text();
                    continue;
                }
                Some('/') if self.chars.as_str().starts_with("//") => {
                    self.rest_of_line();
                    continue;
                }
                Some('/') if self.chars.as_str().starts_with("/*") => {
                    self.block_comment();
                    continue;
                }
                Some(_) => {}
            }
            self.next();
        }
    }

    fn skip_text(&mut self) {
        self.next();
        while let Some(c) = self.peek() {
            if c == '\n' {
                return;
            }
            self.next();
            match c {
                '"' => return,
                '\\' => {
                    self.next();
                }
                _ => {}
            }
        }
    }

    fn take(&mut self, wanted: impl Fn(char) -> bool) -> String {
        let mut out = String::new();
        while let Some(c) = self.peek().filter(|c| wanted(*c)) {
            out.push(c);
            self.next();
        }
        out
    }

    /// `true`, `false`, `null`, or what somebody took for one of them.
    fn word(&mut self) -> Option<Value> {
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
                    lower => nearest(lower, ["true", "false", "null"].into_iter()).map(str::to_owned),
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

    fn number(&mut self) -> Option<Value> {
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
    fn text(&mut self) -> Option<String> {
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

fn opener(close: char) -> &'static str {
    if close == '}' { "object" } else { "list" }
}

/// A character as it is named in a message.
fn shown(c: char) -> String {
    if c.is_control() { format!("character U+{:04X}", u32::from(c)) } else { format!("'{c}'") }
}
