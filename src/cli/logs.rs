//! `hob logs`: the output of services, one or several, past and present.

use super::flags::Args;
use super::render::{Paint, colours, name_colour};
use super::{Failure, connect, exit};
use crate::client::LogChunk;
use std::collections::BTreeMap;
use std::io::{self, Write};

pub(crate) fn logs(args: &Args) -> Result<u8, Failure> {
    let client = connect(args)?;
    let lines = args.number("lines")?.unwrap_or(50);
    let mut out = Writer {
        paint: Paint { on: colours() },
        json: args.has("json"),
        prefix: args.operands.len() > 1,
        width: args.operands.iter().map(|n| n.chars().count()).max().unwrap_or(0),
        names: args.operands.clone(),
        open: BTreeMap::new(),
        out: io::stdout().lock(),
    };
    for item in client.logs(&args.operands, lines as u64, args.has("follow"))? {
        match item? {
            LogChunk::Data { name, position, bytes } => out.data(&name, position, &bytes)?,
            LogChunk::Gap { name, dropped } => out.gap(&name, dropped)?,
        }
    }
    out.end()?;
    Ok(exit::OK)
}

/// Writes chunks so that lines of several services never run into each other.
struct Writer<W: Write> {
    paint: Paint,
    json: bool,
    prefix: bool,
    width: usize,
    names: Vec<String>,
    /// The unfinished line of each service, with the position it began at.
    open: BTreeMap<String, (u64, Vec<u8>)>,
    out: W,
}

impl<W: Write> Writer<W> {
    fn data(&mut self, name: &str, position: u64, bytes: &[u8]) -> io::Result<()> {
        if !self.prefix && !self.json {
            self.out.write_all(bytes)?;
            return self.out.flush();
        }
        let (mut at, mut line) = self.open.remove(name).unwrap_or((position, Vec::new()));
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            line.extend_from_slice(piece);
            // A line without an end does not grow for ever.
            if piece.ends_with(b"\n") || line.len() > crate::base::limits::LINE_MAX {
                self.line(name, at, &line)?;
                at += line.len() as u64;
                line.clear();
            }
        }
        if !line.is_empty() {
            self.open.insert(name.to_owned(), (at, line));
        }
        self.out.flush()
    }

    fn line(&mut self, name: &str, position: u64, line: &[u8]) -> io::Result<()> {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        if self.json {
            let text = String::from_utf8_lossy(text);
            let line = serde_json::json!({ "name": name, "position": position, "line": text });
            return writeln!(self.out, "{line}");
        }
        let place = self.names.iter().position(|n| n == name).unwrap_or(0);
        let label = format!("{name:<width$} |", width = self.width);
        self.out.write_all(self.paint.colour(name_colour(place), &label).as_bytes())?;
        self.out.write_all(b" ")?;
        self.out.write_all(text)?;
        self.out.write_all(b"\n")
    }

    fn gap(&mut self, name: &str, dropped: u64) -> io::Result<()> {
        let at = self.open.remove(name);
        if let Some((at, line)) = at {
            self.line(name, at, &line)?;
        }
        let text = format!("[hob: {dropped} bytes of {name} were rotated away before they were read]\n");
        io::stderr().lock().write_all(text.as_bytes())
    }

    fn end(&mut self) -> io::Result<()> {
        for (name, (at, line)) in std::mem::take(&mut self.open) {
            self.line(&name, at, &line)?;
        }
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer(json: bool) -> Writer<Vec<u8>> {
        Writer {
            paint: Paint { on: false },
            json,
            prefix: true,
            width: 3,
            names: vec!["a".into(), "bcd".into()],
            open: BTreeMap::new(),
            out: Vec::new(),
        }
    }

    #[test]
    fn lines_of_several_services_stay_whole() {
        let mut w = writer(false);
        w.data("a", 0, b"one\ntw").unwrap();
        w.data("bcd", 0, b"x\n").unwrap();
        w.data("a", 6, b"o\nend").unwrap();
        w.end().unwrap();
        assert_eq!(String::from_utf8(w.out).unwrap(), "a   | one\nbcd | x\na   | two\na   | end\n");
    }

    #[test]
    fn json_lines_carry_positions() {
        let mut w = writer(true);
        w.data("a", 10, b"one\ntw").unwrap();
        w.data("a", 16, b"o\n").unwrap();
        let text = String::from_utf8(w.out).unwrap();
        assert_eq!(
            text,
            "{\"line\":\"one\",\"name\":\"a\",\"position\":10}\n{\"line\":\"two\",\"name\":\"a\",\"position\":14}\n"
        );
    }
}
