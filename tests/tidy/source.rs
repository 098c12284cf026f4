//! A source file cut into what the rules look at: code without comments and texts, paths, functions, modules. Just
//! enough of Rust's grammar for that, and no more.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

/// One file. Lines count from 1.
pub(crate) struct Source {
    /// From the root of the repository, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
    /// The text with comments and the insides of texts blanked out; every character keeps its place.
    pub(crate) code: Vec<char>,
    /// Whether the whole file is test code.
    pub(crate) is_test: bool,
    /// The place of the first character of each line.
    starts: Vec<usize>,
    tests: Vec<RangeInclusive<usize>>,
    inner_modules: Vec<RangeInclusive<usize>>,
}

pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) lines: RangeInclusive<usize>,
}

/// A `mod name;` with what stands before it.
pub(crate) struct Module {
    pub(crate) line: usize,
    pub(crate) name: String,
    pub(crate) path: Option<String>,
    pub(crate) is_test: bool,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Source {
        let code = strip(text);
        let ends = code.iter().enumerate().filter(|(_, c)| **c == '\n').map(|(i, _)| i + 1);
        let starts = std::iter::once(0).chain(ends).collect();
        let mut s = Source {
            path: path.to_owned(),
            text: text.to_owned(),
            code,
            is_test: path.starts_with("tests/"),
            starts,
            tests: Vec::new(),
            inner_modules: Vec::new(),
        };
        let words = s.words();
        for (i, word) in words.iter().enumerate() {
            let next = words.get(i + 1);
            if word.1 == "mod" && next.is_some_and(|name| s.char_after(name) == Some('{')) {
                s.inner_modules.extend(s.block(word.0));
            }
            if word.1 == "cfg" && next.is_some_and(|w| w.1 == "test" && s.char_after(w) == Some(')')) {
                s.tests.extend(s.block(word.0));
            }
        }
        s
    }

    pub(crate) fn line(&self, at: usize) -> usize {
        self.starts.partition_point(|start| *start <= at)
    }

    pub(crate) fn is_test_line(&self, line: usize) -> bool {
        self.is_test || self.tests.iter().any(|r| r.contains(&line))
    }

    /// How many `mod name {` are around a line.
    pub(crate) fn inner_depth(&self, line: usize) -> usize {
        self.inner_modules.iter().filter(|r| r.contains(&line)).count()
    }

    /// All identifiers and keywords with their places.
    pub(crate) fn words(&self) -> Vec<(usize, String)> {
        let mut out: Vec<(usize, String)> = Vec::new();
        let mut inside = false;
        for (i, c) in self.code.iter().enumerate() {
            let part = c.is_alphanumeric() || *c == '_';
            match out.last_mut() {
                Some((_, word)) if inside && part => word.push(*c),
                _ if part => out.push((i, c.to_string())),
                _ => {}
            }
            inside = part;
        }
        out
    }

    fn char_after(&self, word: &(usize, String)) -> Option<char> {
        self.code.iter().skip(word.0 + word.1.chars().count()).copied().find(|c| !c.is_whitespace())
    }

    /// The lines from a place to the end of the block that follows; `None` when a `;` comes first.
    fn block(&self, start: usize) -> Option<RangeInclusive<usize>> {
        let (mut depth, mut nested) = (0, 0);
        for (i, c) in self.code.iter().enumerate().skip(start) {
            match c {
                '{' => depth += 1,
                '}' if depth == 1 => return Some(self.line(start)..=self.line(i)),
                '}' => depth -= 1,
                '(' | '[' => nested += 1,
                ')' | ']' => nested -= 1,
                ';' if depth == 0 && nested <= 0 => return None,
                _ => {}
            }
        }
        None
    }

    pub(crate) fn functions(&self) -> Vec<Function> {
        let words = self.words();
        let named = words.windows(2).filter(|w| w[0].1 == "fn" && self.char_after(&w[0]) != Some('('));
        named.filter_map(|w| Some(Function { name: w[1].1.clone(), lines: self.block(w[0].0)? })).collect()
    }

    pub(crate) fn modules(&self) -> Vec<Module> {
        let words = self.words();
        let mut out = Vec::new();
        for w in words.windows(2).filter(|w| w[0].1 == "mod" && self.char_after(&w[1]) == Some(';')) {
            // Attributes reach back to the end of the statement before.
            let before: Vec<char> = self.code.iter().take(w[0].0).copied().collect();
            let from = before.iter().rposition(|c| matches!(c, ';' | '}')).map_or(0, |i| i + 1);
            let from_line = self.line(from);
            let line = self.line(w[0].0);
            let attributes: String =
                self.text.lines().skip(from_line - 1).take(line + 1 - from_line).collect::<Vec<_>>().join("\n");
            let path =
                attributes.split_once("#[path = \"").and_then(|(_, p)| p.split_once('"')).map(|(p, _)| p.to_owned());
            out.push(Module { line, name: w[1].1.clone(), path, is_test: attributes.contains("#[cfg(test)]") });
        }
        out
    }

    /// Every path in the code with its line, groups of `use` spread out: `use a::{b, c::d}` is `a::b` and `a::c::d`.
    pub(crate) fn paths(&self) -> Vec<(usize, Vec<String>)> {
        let mut out = Vec::new();
        let mut at = 0;
        while at < self.code.len() {
            if is_word(self.code[at]) && (at == 0 || !is_word(self.code[at - 1])) {
                self.path_at(&mut at, &[], &mut out);
            } else {
                at += 1;
            }
        }
        let mut seen = BTreeSet::new();
        let spread = out.into_iter().map(|(at, path)| (self.line(at), path));
        spread.filter(|found| seen.insert(found.clone())).collect()
    }

    fn path_at(&self, at: &mut usize, before: &[String], out: &mut Vec<(usize, Vec<String>)>) {
        let start = *at;
        let mut path = before.to_vec();
        loop {
            let word: String = self.code[*at..].iter().take_while(|c| is_word(**c)).collect();
            *at += word.chars().count();
            path.push(word);
            let rest = &self.code[*at..];
            if !rest.starts_with(&[':', ':']) {
                break;
            }
            match rest.get(2) {
                Some('{') => {
                    *at += 3;
                    self.group(at, &path, out);
                    return;
                }
                Some(c) if is_word(*c) => *at += 2,
                _ => break,
            }
        }
        out.push((start, path));
    }

    fn group(&self, at: &mut usize, before: &[String], out: &mut Vec<(usize, Vec<String>)>) {
        while *at < self.code.len() {
            match self.code[*at] {
                '}' => {
                    *at += 1;
                    return;
                }
                c if is_word(c) => self.path_at(at, before, out),
                _ => *at += 1,
            }
        }
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Blanks comments and the insides of texts and characters; line ends stay.
fn strip(text: &str) -> Vec<char> {
    let chars: Vec<char> = text.chars().collect();
    let mut out = chars.clone();
    let mut i = 0;
    while i < chars.len() {
        let rest = &chars[i..];
        let end = match rest {
            ['/', '/', ..] => rest.iter().position(|c| *c == '\n').unwrap_or(rest.len()),
            ['/', '*', ..] => comment_end(rest),
            ['"', ..] => text_end(rest),
            ['r', '"' | '#', ..] if i == 0 || !is_word(chars[i - 1]) || chars[i - 1] == 'b' => raw_end(rest),
            ['\'', '\\', ..] => 3 + rest.iter().skip(3).position(|c| *c == '\'').unwrap_or(0),
            ['\'', _, '\'', ..] => 2,
            _ => 0,
        };
        for blank in out.iter_mut().skip(i + 1).take(end.saturating_sub(1)).filter(|c| **c != '\n') {
            *blank = ' ';
        }
        if end > 0 && matches!(rest, ['/', ..]) {
            out[i] = ' ';
        }
        // The closing quote stays, as does what follows a comment.
        i += end.max(1) + usize::from(end > 0 && !matches!(rest, ['/', ..]));
    }
    out
}

fn comment_end(rest: &[char]) -> usize {
    let (mut depth, mut i) = (0, 0);
    while i < rest.len() {
        match &rest[i..] {
            ['/', '*', ..] => (depth, i) = (depth + 1, i + 2),
            ['*', '/', ..] if depth == 1 => return i + 2,
            ['*', '/', ..] => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
    }
    rest.len()
}

/// The place of the closing quote.
fn text_end(rest: &[char]) -> usize {
    let mut i = 1;
    while i < rest.len() && rest[i] != '"' {
        i += if rest[i] == '\\' { 2 } else { 1 };
    }
    i
}

/// The place of the last character of a raw text; 0 for a raw identifier.
fn raw_end(rest: &[char]) -> usize {
    let hashes = rest.iter().skip(1).take_while(|c| **c == '#').count();
    if rest.get(1 + hashes) != Some(&'"') {
        return 0;
    }
    let mut close = vec!['"'];
    close.extend(std::iter::repeat_n('#', hashes));
    let body = &rest[2 + hashes..];
    let end = body.windows(close.len()).position(|w| w == close).unwrap_or(body.len());
    2 + hashes + end + hashes
}

#[test]
fn comments_and_texts_are_no_code() {
    let text = r###"//! a::b
fn f<'a>(x: &'a str) -> [u8; 2] { /* g::h /* i */ j */
 let c = ['\'', '"', '{'];
 m(r#"n"o::p"#, "q\"r::s") }
use t::{u, v::{self, w as x}, *};
"###;
    let s = Source::new("src/x.rs", text);
    let code: String = s.code.iter().collect();
    for gone in ["a::b", "g::h", "j", "n\"", "o::p", "r::s"] {
        assert!(!code.contains(gone), "{gone} in {code}");
    }
    assert_eq!(code.lines().count(), s.text.lines().count());
    let paths: Vec<String> = s.paths().into_iter().map(|(line, p)| format!("{line} {}", p.join("::"))).collect();
    for there in ["3 m", "4 m", "5 t::u", "5 t::v::self", "5 t::v::w"] {
        assert_eq!(paths.iter().any(|p| p == there), there != "3 m", "{there} in {paths:?}");
    }
    let functions = s.functions();
    assert_eq!((functions.len(), functions[0].name.as_str(), functions[0].lines.clone()), (1, "f", 2..=4));
}

#[test]
fn modules_and_test_code_are_found() {
    let text = r##"mod a;
#[cfg(unix)]
#[path = "linux/mod.rs"]
mod b;
#[cfg(test)]
mod c;
fn f() {}
#[cfg(test)]
mod tests {
 mod d { fn g() {} }
}
"##;
    let s = Source::new("src/x.rs", text);
    let modules: Vec<_> = s.modules().into_iter().map(|m| (m.line, m.name, m.path, m.is_test)).collect();
    assert_eq!(
        modules,
        [
            (1, "a".to_owned(), None, false),
            (4, "b".to_owned(), Some("linux/mod.rs".to_owned()), false),
            (6, "c".to_owned(), None, true)
        ]
    );
    assert!(!s.is_test_line(7) && s.is_test_line(10));
    assert_eq!((s.inner_depth(7), s.inner_depth(9), s.inner_depth(10)), (0, 1, 2));
}
