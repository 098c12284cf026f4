//! `hob logs`: the output of services, one or several, past and present.

use super::flags::Args;
use super::render::{Paint, colours, name_colour};
use super::{Failure, connect, exit, print, since};
use crate::base::limits::LINE_MAX;
use crate::base::map::Map;
use crate::base::time::Wall;
use crate::client::{LogAsk, LogChunk, LogStream, Mark, Stream};
use crate::sys::clock;
use regex_lite::{Regex, RegexBuilder};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::io::{self, Write};

/// Shown when nothing else is asked for.
const LINES: usize = 50;

pub(crate) fn logs(args: &Args) -> Result<u8, Failure> {
    let pattern = pattern(args)?;
    let lines = args.number("lines")?;
    let ask = ask(args, lines, pattern.is_some())?;
    let paint = Paint { on: colours() };
    let mut stream = connect(args)?.logs_of(LogAsk { marks: args.has("json") || paint.on, ..ask })?;
    let mut out = Writer {
        paint,
        json: args.has("json"),
        width: args.operands.iter().map(|n| n.chars().count()).max().unwrap_or(0),
        names: args.operands.clone(),
        last: pattern.is_some().then_some(lines).flatten().map(|most| Last { most, lines: VecDeque::new() }),
        pattern,
        open: Map::new(),
        out: io::stdout().lock(),
    };
    while let Some(item) = stream.next() {
        match item? {
            LogChunk::Data { name, position, bytes, mark } => out.data(&name, position, &bytes, mark)?,
            LogChunk::Gap { name, dropped } => out.gap(&name, dropped)?,
        }
        if out.last.is_some() && is_present(&stream) {
            out.show_last()?;
        }
    }
    out.end()?;
    Ok(exit::OK)
}

/// Whether all logs have been read as far as they went at the beginning.
fn is_present(stream: &LogStream) -> bool {
    stream.positions().all(|(name, at)| stream.end(name).is_none_or(|end| at >= end))
}

/// Which part of which logs the flags mean.
fn ask(args: &Args, lines: Option<usize>, searching: bool) -> Result<LogAsk, Failure> {
    let now = clock::now().wall;
    let time = |flag: &str| -> Result<Option<Wall>, Failure> {
        let Some(text) = args.text(flag)? else { return Ok(None) };
        since::parse(text, now).map(Some).map_err(|e| Failure::usage(format!("--{flag}: {e}")))
    };
    let (from, until, follow) = (time("since")?, time("until")?, args.has("follow"));
    if follow && until.is_some() {
        return Err(Failure::usage("--until has an end and --follow has none: give one of them"));
    }
    // The table of flags lets no other word through.
    let stream = args.text("stream")?.map(|word| if word == Stream::Err.name() { Stream::Err } else { Stream::Out });
    if stream.is_some() && args.operands.is_empty() {
        return Err(Failure::usage("--stream tells the output of a service apart, and none is named"));
    }
    // With a pattern all is searched, and of what matches the last lines are shown.
    let lines = match lines {
        _ if searching => None,
        Some(n) => Some(n as u64),
        None => from.is_none().then_some(LINES as u64),
    };
    Ok(LogAsk { names: args.operands.clone(), lines, follow, since: from, until, stream, marks: false, task: None })
}

/// What lines must match, or with `invert` must not.
struct Pattern {
    regex: Regex,
    invert: bool,
}

impl Pattern {
    fn takes(&self, line: &[u8]) -> bool {
        // The time that hob put before a line is no part of what the service wrote.
        let bare = Wall::of_line(line).and_then(|_| line.get(Wall::STAMP..));
        let fits = |text: &[u8]| self.regex.is_match(&String::from_utf8_lossy(text));
        (bare.is_some_and(fits) || fits(line)) != self.invert
    }
}

fn pattern(args: &Args) -> Result<Option<Pattern>, Failure> {
    let Some(text) = args.text("grep")? else {
        let alone = ["invert", "ignore-case"].into_iter().find(|f| args.has(f));
        return match alone {
            Some(flag) => Err(Failure::usage(format!("--{flag} says how --grep matches, which is not given"))),
            None => Ok(None),
        };
    };
    let regex = RegexBuilder::new(text).case_insensitive(args.has("ignore-case")).build();
    let regex = regex.map_err(|e| Failure::usage(format!("--grep: not a regular expression: {e}")))?;
    Ok(Some(Pattern { regex, invert: args.has("invert") }))
}

/// The last lines that matched, while the past is read.
struct Last {
    most: usize,
    lines: VecDeque<Vec<u8>>,
}

/// An unfinished line: where it began, when, and what there is of it.
struct Open {
    position: u64,
    mark: Mark,
    text: Vec<u8>,
}

/// Writes chunks so that lines of several services never run into each other.
struct Writer<W: Write> {
    paint: Paint,
    json: bool,
    width: usize,
    names: Vec<String>,
    pattern: Option<Pattern>,
    last: Option<Last>,
    /// The unfinished line of each service and stream.
    open: Map<(String, Option<Stream>), Open>,
    out: W,
}

impl<W: Write> Writer<W> {
    /// Whether bytes can be passed on as they come.
    fn is_plain(&self) -> bool {
        self.names.len() < 2 && !self.json && self.pattern.is_none()
    }

    fn data(&mut self, name: &str, position: u64, bytes: &[u8], mark: Mark) -> io::Result<()> {
        if self.is_plain() && !(self.paint.on && mark.stream == Some(Stream::Err)) && self.open.is_empty() {
            self.out.write_all(bytes)?;
            return self.out.flush();
        }
        let key = (name.to_owned(), mark.stream);
        let mut at = position;
        let mut line = self.open.remove(&key).unwrap_or(Open { position, mark, text: Vec::new() });
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            line.text.extend_from_slice(piece);
            at += piece.len() as u64;
            // A line without an end does not grow for ever.
            if piece.ends_with(b"\n") || line.text.len() > LINE_MAX {
                self.line(name, &line)?;
                line = Open { position: at, mark, text: Vec::new() };
            }
        }
        if !line.text.is_empty() {
            self.open.insert(key, line);
        }
        self.out.flush()
    }

    fn line(&mut self, name: &str, line: &Open) -> io::Result<()> {
        let text = line.text.strip_suffix(b"\n").unwrap_or(&line.text);
        if self.pattern.as_ref().is_some_and(|p| !p.takes(text)) {
            return Ok(());
        }
        let mut shown = if self.json { self.object(name, line, text) } else { self.plain(name, line.mark, text) };
        shown.push(b'\n');
        match &mut self.last {
            Some(last) => {
                last.lines.push_back(shown);
                if last.lines.len() > last.most {
                    last.lines.pop_front();
                }
                Ok(())
            }
            None => self.out.write_all(&shown),
        }
    }

    fn object(&self, name: &str, line: &Open, text: &[u8]) -> Vec<u8> {
        // A time that the line has is more exact than that of the index.
        let own = Wall::of_line(text);
        let bare = own.and_then(|_| text.get(Wall::STAMP..)).unwrap_or(text);
        let mut object = json!({ "position": line.position, "line": String::from_utf8_lossy(bare) });
        let mut put = |key: &str, value: Option<String>| {
            if let Some(value) = value {
                object[key] = Value::from(value);
            }
        };
        put("name", (!name.is_empty()).then(|| name.to_owned()));
        put("time", own.or(line.mark.time).map(|w| w.to_string()));
        put("stream", line.mark.stream.map(|s| s.name().to_owned()));
        object.to_string().into_bytes()
    }

    fn plain(&self, name: &str, mark: Mark, text: &[u8]) -> Vec<u8> {
        let mut shown = Vec::new();
        if self.names.len() > 1 {
            let place = self.names.iter().position(|n| n == name).unwrap_or(0);
            let label = format!("{name:<width$} |", width = self.width);
            shown.extend_from_slice(self.paint.colour(name_colour(place), &label).as_bytes());
            shown.push(b' ');
        }
        let red = self.paint.on && mark.stream == Some(Stream::Err);
        shown.extend_from_slice(if red { b"\x1b[31m" } else { b"" });
        shown.extend_from_slice(text);
        shown.extend_from_slice(if red { b"\x1b[0m" } else { b"" });
        shown
    }

    /// The past has been read: what was kept of it is shown, and what comes now at once.
    fn show_last(&mut self) -> io::Result<()> {
        for line in self.last.take().map(|last| last.lines).unwrap_or_default() {
            self.out.write_all(&line)?;
        }
        self.out.flush()
    }

    fn gap(&mut self, name: &str, dropped: u64) -> io::Result<()> {
        self.finish(|n| n == name)?;
        let text = format!("[hob: {dropped} bytes of {name} were rotated away before they were read]\n");
        io::stderr().lock().write_all(text.as_bytes())
    }

    /// Shows unfinished lines of these services as they are.
    fn finish(&mut self, of: impl Fn(&str) -> bool) -> io::Result<()> {
        let (ended, open) = std::mem::take(&mut self.open).into_iter().partition(|((name, _), _)| of(name));
        self.open = open;
        let ended: Map<_, Open> = ended;
        ended.into_iter().try_for_each(|((name, _), line)| self.line(&name, &line))
    }

    fn end(&mut self) -> io::Result<()> {
        self.finish(|_| true)?;
        self.show_last()
    }
}

/// `hob logs rotate NAME...`
pub(crate) fn rotate(args: &Args) -> Result<u8, Failure> {
    let reply: Value = connect(args)?.call("service.rotate", &json!({ "names": args.operands }))?;
    if args.has("json") {
        print(&format!("{reply}\n"))?;
        return Ok(exit::OK);
    }
    let mut code = exit::OK;
    for row in reply["services"].as_array().into_iter().flatten() {
        let name = row["name"].as_str().unwrap_or_default();
        let text = match (row["rotated"].as_bool(), row["message"].as_str()) {
            (Some(true), _) => format!("{name}: a new log file was begun\n"),
            (_, Some(why)) => format!("{name}: not rotated: {why}\n"),
            _ => format!("{name}: not rotated\n"),
        };
        if row["message"].as_str().is_some_and(|m| m != "its file is empty") {
            code = exit::FAILED;
        }
        if !args.has("quiet") || code != exit::OK {
            print(&text)?;
        }
    }
    Ok(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer(json: bool) -> Writer<Vec<u8>> {
        Writer {
            paint: Paint { on: false },
            json,
            width: 3,
            names: vec!["a".into(), "bcd".into()],
            pattern: None,
            last: None,
            open: Map::new(),
            out: Vec::new(),
        }
    }

    fn said(w: Writer<Vec<u8>>) -> String {
        String::from_utf8(w.out).unwrap()
    }

    const NONE: Mark = Mark { time: None, stream: None };
    const OUT: Mark = Mark { time: None, stream: Some(Stream::Out) };
    const ERR: Mark = Mark { time: Some(Wall(1000)), stream: Some(Stream::Err) };

    #[test]
    fn lines_of_several_services_stay_whole() {
        let mut w = writer(false);
        w.data("a", 0, b"one\ntw", NONE).unwrap();
        w.data("bcd", 0, b"x\n", NONE).unwrap();
        w.data("a", 6, b"o\nend", NONE).unwrap();
        w.end().unwrap();
        assert_eq!(said(w), "a   | one\nbcd | x\na   | two\na   | end\n");
    }

    #[test]
    fn json_lines_carry_positions_times_and_streams() {
        let mut w = writer(true);
        w.data("a", 10, b"one\ntw", OUT).unwrap();
        w.data("a", 16, b"err\n", ERR).unwrap();
        w.data("a", 20, b"o\n2026-11-20T17:56:18.123Z three\n", OUT).unwrap();
        let text = said(w);
        let lines: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(lines[0], json!({"name": "a", "position": 10, "line": "one", "stream": "out"}));
        let time = "1970-01-01T00:00:01.000Z";
        assert_eq!(lines[1], json!({"name": "a", "position": 16, "line": "err", "stream": "err", "time": time}));
        assert_eq!(lines[2], json!({"name": "a", "position": 14, "line": "two", "stream": "out"}));
        let time = "2026-11-20T17:56:18.123Z";
        assert_eq!(lines[3], json!({"name": "a", "position": 22, "line": "three", "stream": "out", "time": time}));
    }

    #[test]
    fn only_lines_that_match_are_shown_and_of_the_past_the_last() {
        let pattern = |text: &str, invert| Some(Pattern { regex: Regex::new(text).unwrap(), invert });
        let lines = b"one\n2026-11-20T17:56:18.123Z two\nthree\nfour";
        for (text, invert, want) in [
            ("^t", false, "2026-11-20T17:56:18.123Z two\nthree\n"),
            ("^t", true, "one\nfour\n"),
            ("17:5", false, "2026-11-20T17:56:18.123Z two\n"),
        ] {
            let mut w = Writer { names: vec!["a".into()], pattern: pattern(text, invert), ..writer(false) };
            w.data("a", 0, lines, NONE).unwrap();
            w.end().unwrap();
            assert_eq!(said(w), want, "{text}");
        }
        let last = Some(Last { most: 1, lines: VecDeque::new() });
        let mut w = Writer { names: vec!["a".into()], pattern: pattern("o", false), last, ..writer(false) };
        w.data("a", 0, lines, NONE).unwrap();
        assert!(w.out.is_empty());
        w.show_last().unwrap();
        w.data("a", 44, b"\nnow\n", NONE).unwrap();
        assert_eq!(said(w), "2026-11-20T17:56:18.123Z two\nfour\nnow\n");
    }

    #[test]
    fn standard_error_is_red_on_a_terminal() {
        let mut w = Writer { names: vec!["a".into()], paint: Paint { on: true }, ..writer(false) };
        w.data("a", 0, b"out\n", OUT).unwrap();
        w.data("a", 4, b"err\n", ERR).unwrap();
        assert_eq!(said(w), "out\n\x1b[31merr\x1b[0m\n");
    }
}
