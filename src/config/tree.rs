//! JSON with comments and trailing commas as a tree that knows the place of every key and value. Reports each syntax
//! error and goes on behind it, so that one run finds them all. Touches nothing.

use super::error::{Pos, Report, quote};
use crate::base::limits::CONFIG_DEPTH_MAX;
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

pub(super) struct Parser<'a, 'r, 'f> {
    pub(super) chars: Chars<'a>,
    pub(super) pos: Pos,
    /// The place behind the last token.
    end: Pos,
    /// The closing brackets that are awaited.
    open: Vec<char>,
    wrong: usize,
    report: &'r mut Report<'f>,
}

impl Parser<'_, '_, '_> {
    pub(super) fn peek(&self) -> Option<char> {
        self.chars.clone().next()
    }

    pub(super) fn next(&mut self) -> Option<char> {
        let c = self.chars.next()?;
        if c == '\n' {
            self.pos = Pos { line: self.pos.line.saturating_add(1), column: 1 };
        } else {
            self.pos.column = self.pos.column.saturating_add(1);
        }
        Some(c)
    }

    pub(super) fn wrong(&mut self, pos: Pos, message: impl Into<String>) {
        self.wrong_suggest(pos, message, None);
    }

    /// Reports a syntax error; after too many of them the rest of the text is skipped.
    pub(super) fn wrong_suggest(&mut self, pos: Pos, message: impl Into<String>, suggestion: Option<String>) {
        self.wrong += 1;
        if self.wrong > SYNTAX_ERRORS_MAX {
            self.chars = "".chars();
        } else {
            self.report.suggest(pos, message, suggestion);
        }
    }

    /// Gives up on the rest of the text, without any further report.
    pub(super) fn give_up(&mut self) {
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
            Some('{' | '[') if self.open.len() >= CONFIG_DEPTH_MAX => {
                self.wrong(pos, format!("nested deeper than {CONFIG_DEPTH_MAX} levels"));
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
}

fn opener(close: char) -> &'static str {
    if close == '}' { "object" } else { "list" }
}

/// A character as it is named in a message.
fn shown(c: char) -> String {
    if c.is_control() { format!("character U+{:04X}", u32::from(c)) } else { format!("'{c}'") }
}
