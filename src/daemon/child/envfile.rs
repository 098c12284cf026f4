//! The text of an `env_file`: KEY=VALUE lines as shells and container tools write them. Pure; nothing is expanded.
//!
//! A value without quotes ends at the line's end or at ` #`; white space around it is dropped. In single quotes
//! everything is as it stands, in double quotes a backslash escapes `n r t \ " $` and the backtick and joins lines;
//! quoted values may span lines.

use std::iter::Peekable;
use std::str::Chars;

/// Size of an env_file at most, in bytes.
pub(super) const MAX: u64 = 1024 * 1024;

/// What is wrong, and in which line, counted from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) line: usize,
    pub(super) what: String,
}

/// The assignments in their order; the last one of a name is meant to win.
pub(super) fn parse(text: &str) -> Result<Vec<(String, String)>, Wrong> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = Reader { rest: text.chars().peekable(), line: 1 };
    let mut found = Vec::new();
    while reader.rest.peek().is_some() {
        reader.skip_blanks();
        match reader.rest.peek() {
            None => break,
            Some('\n') => {
                reader.next();
            }
            Some('#') => reader.skip_line(),
            Some(_) => found.push(reader.assignment()?),
        }
    }
    Ok(found)
}

struct Reader<'a> {
    rest: Peekable<Chars<'a>>,
    line: usize,
}

impl Reader<'_> {
    fn next(&mut self) -> Option<char> {
        let c = self.rest.next()?;
        if c == '\n' {
            self.line += 1;
        }
        Some(c)
    }

    fn wrong<T>(&self, what: impl Into<String>) -> Result<T, Wrong> {
        Err(Wrong { line: self.line, what: what.into() })
    }

    fn skip_blanks(&mut self) {
        while self.rest.next_if(|c| matches!(c, ' ' | '\t' | '\r')).is_some() {}
    }

    /// Up to the line end, which stays.
    fn skip_line(&mut self) {
        while self.rest.next_if(|c| *c != '\n').is_some() {}
    }

    fn assignment(&mut self) -> Result<(String, String), Wrong> {
        let mut name = self.word();
        if name == "export" && matches!(self.rest.peek(), Some(' ' | '\t')) {
            self.skip_blanks();
            name = self.word();
        }
        if self.rest.next_if_eq(&'=').is_none() {
            let got = if name.is_empty() { "this line".to_owned() } else { format!("'{name}'") };
            return self.wrong(format!("{got} is not of the form KEY=VALUE"));
        }
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) || !name.chars().all(good) {
            return self.wrong(format!("'{name}' is not a name of a variable"));
        }
        self.skip_blanks();
        let value = match self.rest.peek() {
            Some('\'') => self.quoted('\'')?,
            Some('"') => self.quoted('"')?,
            _ => self.plain(),
        };
        if value.contains('\0') {
            return self.wrong("a value cannot contain a zero byte");
        }
        Ok((name, value))
    }

    /// Up to `=`, white space or the line end.
    fn word(&mut self) -> String {
        let mut word = String::new();
        while let Some(c) = self.rest.next_if(|c| *c != '=' && !c.is_whitespace()) {
            word.push(c);
        }
        word
    }

    fn plain(&mut self) -> String {
        let mut value = String::new();
        while let Some(c) = self.rest.next_if(|c| *c != '\n') {
            if c == '#' && value.chars().next_back().is_none_or(char::is_whitespace) {
                self.skip_line();
                break;
            }
            value.push(c);
        }
        value.trim_end().to_owned()
    }

    fn quoted(&mut self, quote: char) -> Result<String, Wrong> {
        let start = self.line;
        self.next();
        let mut value = String::new();
        loop {
            match self.next() {
                None => {
                    return Err(Wrong { line: start, what: format!("the value has no closing {quote}") });
                }
                Some(c) if c == quote => break,
                Some('\\') if quote == '"' => self.escaped(&mut value),
                Some(c) => value.push(c),
            }
        }
        self.skip_blanks();
        match self.rest.peek() {
            None | Some('\n') => {}
            Some('#') => self.skip_line(),
            Some(_) => return self.wrong("only a comment may follow a quoted value"),
        }
        Ok(value)
    }

    /// What follows a backslash; one that escapes nothing stays.
    fn escaped(&mut self, value: &mut String) {
        match self.next() {
            Some('n') => value.push('\n'),
            Some('r') => value.push('\r'),
            Some('t') => value.push('\t'),
            Some(c @ ('\\' | '"' | '$' | '`')) => value.push(c),
            Some('\n') | None => {}
            Some(c) => value.extend(['\\', c]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        parse(text).unwrap()
    }

    fn value(text: &str) -> String {
        let mut found = pairs(text);
        assert_eq!(found.len(), 1, "{found:?}");
        found.remove(0).1
    }

    #[test]
    fn lines_comments_and_export() {
        let text = "\u{feff}# c\r\nA=1\r\n\n  export B = \n\texport\tC=x=y\nexport=3\nD=\nlast=1";
        let error = parse(text).unwrap_err();
        assert_eq!((error.line, error.what.contains("'B'")), (4, true), "{error:?}");
        let found = pairs(&text.replace("B = ", "B= "));
        let expected = [("A", "1"), ("B", ""), ("C", "x=y"), ("export", "3"), ("D", ""), ("last", "1")];
        assert_eq!(found, expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
    }

    #[test]
    fn plain_values_end_at_a_comment() {
        assert_eq!(value("A= a b  # c"), "a b");
        assert_eq!(value("A=a#b"), "a#b");
        assert_eq!(value("A=#b"), "");
        assert_eq!(value("A=it's\\n $B"), "it's\\n $B");
    }

    #[test]
    fn quotes_and_escapes() {
        assert_eq!(value("A='a \\n # $B'  # c"), "a \\n # $B");
        assert_eq!(value(r#"A="a\n\t\"\\\$\`\x""#), "a\n\t\"\\$`\\x");
        assert_eq!(value("A=\"one\ntwo \\\nthree\""), "one\ntwo three");
        assert_eq!(pairs("A='x\ny'\nB=1")[1], ("B".to_owned(), "1".to_owned()));
    }

    #[test]
    fn errors_name_the_line() {
        for (text, line, what) in [
            ("A=1\nB", 2, "KEY=VALUE"),
            ("=x", 1, "not a name"),
            ("1A=x", 1, "not a name"),
            ("A b=x", 1, "'A' is not of the form"),
            ("\n\nA=\"x\n\n", 3, "no closing \""),
            ("A='x' y", 1, "only a comment"),
            ("A=x\0y", 1, "zero byte"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.line == line && error.what.contains(what), "{text:?}: {error:?}");
        }
    }

    #[test]
    fn no_text_makes_it_panic() {
        let pieces = ["A", "=", "\"", "'", "\\", "\n", " ", "#", "export", "\r", "\0", "é", "\u{feff}"];
        let mut seed = 7u64;
        for _ in 0..20_000 {
            let mut text = String::new();
            for _ in 0..seed % 12 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let at = usize::try_from(seed >> 33).unwrap() % pieces.len();
                text.push_str(pieces[at]);
            }
            seed = seed.wrapping_add(1);
            if let Err(e) = parse(&text) {
                assert!(e.line <= text.matches('\n').count() + 1);
            }
        }
    }
}
