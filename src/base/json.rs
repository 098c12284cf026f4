//! Writing JSON by hand where a whole document is not worth a tree of values. Plain text in, plain text out.

use core::fmt::Write as _;

/// Appends `text` as a JSON string with its quotes.
pub fn json_str(text: &str, out: &mut String) {
    out.push('"');
    if text.bytes().any(|b| b < b' ' || b == b'"' || b == b'\\') {
        escaped(text, out);
    } else {
        out.push_str(text);
    }
    out.push('"');
}

fn escaped(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c < ' ' => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
}

/// A list of strings.
#[must_use]
pub fn json_list(lines: &[String]) -> String {
    let mut out = String::from("[");
    for (i, line) in lines.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        json_str(line, &mut out);
    }
    out.push(']');
    out
}

/// Writes one JSON object, member by member, in the order of the calls. Names are the caller's own and need no
/// escaping.
#[derive(Clone, Debug, Default)]
pub struct Obj {
    members: String,
}

impl Obj {
    #[must_use]
    pub fn new() -> Obj {
        Obj::default()
    }

    fn name(&mut self, name: &str) {
        if !self.members.is_empty() {
            self.members.push(',');
        }
        self.members.push('"');
        self.members.push_str(name);
        self.members.push_str("\":");
    }

    pub fn str(&mut self, name: &str, value: &str) -> &mut Obj {
        self.name(name);
        json_str(value, &mut self.members);
        self
    }

    pub fn u64(&mut self, name: &str, value: u64) -> &mut Obj {
        self.name(name);
        self.members.push_str(itoa::Buffer::new().format(value));
        self
    }

    pub fn i64(&mut self, name: &str, value: i64) -> &mut Obj {
        self.name(name);
        self.members.push_str(itoa::Buffer::new().format(value));
        self
    }

    pub fn bool(&mut self, name: &str, value: bool) -> &mut Obj {
        self.raw(name, if value { "true" } else { "false" })
    }

    pub fn null(&mut self, name: &str) -> &mut Obj {
        self.raw(name, "null")
    }

    /// `json` is a whole JSON value and goes in as it is.
    pub fn raw(&mut self, name: &str, json: &str) -> &mut Obj {
        self.name(name);
        self.members.push_str(json);
        self
    }

    /// The string, or null.
    pub fn opt_str(&mut self, name: &str, value: Option<&str>) -> &mut Obj {
        match value {
            Some(v) => self.str(name, v),
            None => self.null(name),
        }
    }

    /// The number, or null.
    pub fn opt_u64(&mut self, name: &str, value: Option<u64>) -> &mut Obj {
        match value {
            Some(v) => self.u64(name, v),
            None => self.null(name),
        }
    }

    /// The members without the braces, to be put into another object.
    #[must_use]
    pub fn members(&self) -> &str {
        &self.members
    }

    /// The whole object.
    #[must_use]
    pub fn finish(&self) -> String {
        format!("{{{}}}", self.members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_read_back_as_they_were() {
        for text in ["", "web", "a\"b\\c", "\u{0}\u{1f}\u{7f}", "line\nfeed\r\ttab", "\u{e4}\u{2028}\u{1f600}", "/"] {
            let mut json = String::new();
            json_str(text, &mut json);
            assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
        }
    }

    #[test]
    fn an_object_has_its_members_in_order() {
        let mut o = Obj::new();
        assert_eq!(o.finish(), "{}");
        o.str("a", "x\"").u64("b", u64::MAX).i64("c", -1).bool("d", true).raw("e", "[1]");
        o.opt_str("f", None).opt_u64("g", Some(2)).opt_str("h", Some("i")).opt_u64("j", None);
        let text = o.finish();
        assert_eq!(
            text,
            r#"{"a":"x\"","b":18446744073709551615,"c":-1,"d":true,"e":[1],"f":null,"g":2,"h":"i","j":null}"#
        );
        assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
        assert_eq!(format!("{{{}}}", o.members()), text);
    }
}
