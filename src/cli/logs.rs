//! `hob logs`: the output of services, one or several, past and present.

use super::flags::Args;
use super::render::{Paint, colours, name_colour};
use super::{Failure, connect_to_follow, exit, life, no_more, offline, paths, since, when};
use crate::base::limits::LINE_MAX;
use crate::base::log::time_of;
use crate::base::map::Map;
use crate::base::text::visible_json;
use crate::base::time::Wall;
use crate::client::{Client, LogAsk, LogChunk, LogStream, Mark, Stream};
use crate::config::instance;
use crate::daemon::capture::marks::Piece;
use crate::daemon::logs::read_files;
use crate::protocol::methods::LogQuery;
use crate::protocol::rpc::Code;
use crate::sys::clock;
use core::time::Duration;
use regex_lite::{Regex, RegexBuilder};
use serde_json::{Value, json};
use std::collections::{BTreeSet, VecDeque};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Shown when nothing else is asked for.
const LINES: usize = 50;

/// Bytes of the past that are put into the order of their times.
const PAST_MAX: usize = 64 * 1024 * 1024;

/// How long a daemon that may not come up has to answer at all, and how long one that has may be away.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn logs(args: &Args) -> Result<u8, Failure> {
    let pattern = pattern(args)?;
    let lines = args.number("lines")?;
    let ask = ask(args, lines, pattern.is_some())?;
    let mut sources = Sources::find(args, ask.follow)?;
    if ask.follow {
        super::end_with_reader();
    }
    let names = sources.names();
    let paint = Paint { on: colours() };
    let shown = Shown { paint, json: args.has("json"), times: args.has("timestamps") };
    // What is shown by lines has to be known by lines, and where several logs meet their times tell the order.
    let every = ask.follow && args.has("all");
    let several = every || names.len() > 1;
    let marks = shown.json || paint.on || shown.times || several || ask.stream.is_some();
    let most = lines.filter(|_| ask.lines.is_none());
    // A stream whose end is the other one's is not known to be at its end.
    let past = (most.is_some() || several) && !(ask.follow && ask.stream.is_some());
    let mut out = Writer {
        shown,
        width: names.iter().map(|n| n.chars().count()).max().unwrap_or(0),
        past: past.then(|| Past { most, ..Past::default() }),
        names,
        several,
        stream: ask.stream,
        merged: BTreeSet::new(),
        pattern,
        open: Map::new(),
        out: io::stdout().lock(),
    };
    for (name, path) in &sources.files {
        let mut each = |p: Piece| {
            let mark = Mark { time: p.wall, stream: Stream::numbered(p.stream) };
            out.data(name, p.position, &p.bytes, mark)
        };
        read_files(path.clone(), &query(&ask), &mut each)?;
        out.finish(|n| n == name)?;
    }
    let Some(client) = sources.client.take() else {
        out.end()?;
        return Ok(exit::OK);
    };
    let live = if every { Vec::new() } else { sources.live };
    let mut stream = client.logs_of(LogAsk { names: live, all: every, marks, ..ask })?;
    loop {
        if out.past.is_some() && is_present(&stream) {
            out.show_past()?;
        }
        match stream.next().transpose() {
            Ok(Some(LogChunk::Data { name, position, bytes, mark })) => out.data(&name, position, &bytes, mark)?,
            Ok(Some(LogChunk::Gap { name, dropped })) => out.gap(&name, dropped)?,
            Ok(None) => break,
            Err(e) => {
                let why = no_more(args, e);
                last_words(args, &stream, &why, &mut out)?;
                out.end()?;
                return Err(why);
            }
        }
    }
    out.end()?;
    Ok(exit::OK)
}

/// What was written while hob ended, when it had no time any more to pass it on. The files have it.
fn last_words(args: &Args, stream: &LogStream, why: &Failure, out: &mut Writer<impl Write>) -> io::Result<()> {
    let Some(paths) = offline::left_files(args, why) else { return Ok(()) };
    let ask = stream.asked();
    for (name, at) in stream.positions() {
        let own = ask.names.is_empty() && !ask.all;
        let path = if own { paths.log.clone() } else { paths.logs.join("services").join(format!("{name}.log")) };
        let mut query = query(ask);
        query.from.push((String::new(), at));
        let mut each = |p: Piece| {
            let mark = Mark { time: p.wall, stream: Stream::numbered(p.stream) };
            out.data(name, p.position, &p.bytes, mark)
        };
        match read_files(path, &query, &mut each) {
            // Another user's, or gone: what was shown is what there was to be had.
            Err(e) if [io::ErrorKind::NotFound, io::ErrorKind::PermissionDenied].contains(&e.kind()) => {}
            read => read?,
        }
    }
    Ok(())
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
    if stream.is_some() && args.operands.is_empty() && !args.has("all") {
        return Err(Failure::usage("--stream tells the output of a service apart, and none is named"));
    }
    // With a pattern all is searched, and of what matches the last lines are shown; of one stream likewise.
    let lines = match lines {
        _ if searching => None,
        Some(_) if stream.is_some() && !follow => None,
        Some(n) => Some(n as u64),
        None => from.is_none().then_some(LINES as u64),
    };
    Ok(LogAsk { lines, follow, since: from, until, stream, ..LogAsk::default() })
}

/// The same for who reads the files himself.
pub(super) fn query(ask: &LogAsk) -> LogQuery {
    LogQuery {
        names: Vec::new(),
        lines: ask.lines.and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX),
        follow: false,
        from: Vec::new(),
        since: ask.since,
        until: ask.until,
        stream: ask.stream,
        marks: true,
    }
}

/// Where the logs are: with the daemon, or in files that nobody writes to, because hob does not run or does not have
/// the service any more.
struct Sources {
    client: Option<Client>,
    live: Vec<String>,
    files: Vec<(String, PathBuf)>,
}

impl Sources {
    fn find(args: &Args, follow: bool) -> Result<Sources, Failure> {
        if args.has("all") && !args.operands.is_empty() {
            return Err(Failure::usage("--all shows every service; give it, or names"));
        }
        match Sources::of_daemon(args) {
            Err(f) if f.exit == Code::Unavailable.exit_code() && !follow => Sources::of_files(args, f),
            other => other,
        }
    }

    fn of_daemon(args: &Args) -> Result<Sources, Failure> {
        let mut client = connect_to_follow(args)?;
        // One that does not come up still has its files.
        client.set_timeout(Some(ANSWER_LIMIT));
        client.set_patience(ANSWER_LIMIT);
        client.call::<Value>("ping", &json!({}))?;
        client.set_timeout(None);
        client.set_patience(PATIENCE);
        let (mut live, mut files) = (Vec::new(), Vec::new());
        if args.has("all") {
            live = listed(&mut client, &[])?;
        }
        for name in &args.operands {
            match listed(&mut client, &[name]) {
                Err(f) if f.exit == Code::NotFound.exit_code() => {
                    let found = paths(args).map(|p| files_of(&p.logs.join("services"), Some(name))).unwrap_or_default();
                    if found.is_empty() {
                        return Err(f);
                    }
                    files.extend(found);
                }
                names => live.extend(names?),
            }
        }
        let mut seen = BTreeSet::new();
        live.retain(|name| seen.insert(name.clone()));
        let nobody = live.is_empty() && if args.has("all") { !args.has("follow") } else { !args.operands.is_empty() };
        Ok(Sources { client: Some(client).filter(|_| !nobody), live, files })
    }

    /// `why`: nobody answers.
    fn of_files(args: &Args, why: Failure) -> Result<Sources, Failure> {
        let Ok(paths) = life::actual(args) else { return Err(why) };
        let folder = paths.logs.join("services");
        let files = match args.operands.as_slice() {
            [] if args.has("all") => files_of(&folder, None),
            [] => vec![(String::new(), paths.log)],
            names => names.iter().flat_map(|name| files_of(&folder, Some(name))).collect(),
        };
        if files.iter().all(|(_, path)| !path.exists()) {
            return Err(why);
        }
        offline::say_held(args, &why);
        Ok(Sources { client: None, live: Vec::new(), files })
    }

    /// In the order in which they are shown; none for hob's own log.
    fn names(&self) -> Vec<String> {
        let files = self.files.iter().map(|(name, _)| name).filter(|name| !name.is_empty());
        files.chain(&self.live).cloned().collect()
    }
}

/// The services that these names mean; all there are without one.
fn listed(client: &mut Client, names: &[&String]) -> Result<Vec<String>, Failure> {
    let list: Value = client.call("service.list", &json!({ "names": names }))?;
    let rows = list["services"].as_array().into_iter().flatten();
    Ok(rows.filter_map(|s| Some(s["name"].as_str()?.to_owned())).collect())
}

/// The logs in a folder of the service with this name, or else of its instances; all without one.
fn files_of(folder: &Path, name: Option<&String>) -> Vec<(String, PathBuf)> {
    let whole = |name: &str| folder.join(format!("{name}.log"));
    if let Some(name) = name.filter(|name| !name.contains('/') && whole(name).is_file()) {
        return vec![(name.clone(), whole(name))];
    }
    let meant = |found: &str| name.is_none_or(|name| instance(found).is_some_and(|(group, _)| group == name));
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.filter_map(|e| Some(e.file_name().to_str()?.strip_suffix(".log")?.to_owned()));
    let mut all: Vec<String> = names.filter(|found| meant(found)).collect();
    all.sort();
    all.into_iter().map(|name| (name.clone(), whole(&name))).collect()
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

/// Lines of the past, kept until all of it has been read: the last of each log, and all in the order of their times.
#[derive(Default)]
struct Past {
    most: Option<usize>,
    logs: Map<String, VecDeque<(Wall, Vec<u8>)>>,
    bytes: usize,
}

impl Past {
    /// Within a log the order is that of the lines, whatever the clock did; a line without a time belongs to the one
    /// before.
    fn keep(&mut self, name: &str, time: Option<Wall>, line: Vec<u8>) {
        let log = self.logs.get_or(name.to_owned(), VecDeque::new);
        let before = log.back().map_or(Wall(i64::MIN), |(time, _)| *time);
        self.bytes += line.len();
        log.push_back((time.map_or(before, |time| time.max(before)), line));
        if self.most.is_some_and(|most| log.len() > most) {
            self.bytes -= log.pop_front().map_or(0, |(_, line)| line.len());
        }
    }

    fn lines(self) -> Vec<Vec<u8>> {
        let mut all: Vec<(Wall, Vec<u8>)> = self.logs.into_iter().flat_map(|(_, log)| log).collect();
        all.sort_by_key(|(time, _)| *time);
        all.into_iter().map(|(_, line)| line).collect()
    }
}

/// An unfinished line: where it began, when, and what there is of it.
struct Open {
    position: u64,
    mark: Mark,
    text: Vec<u8>,
}

/// How lines are shown.
struct Shown {
    paint: Paint,
    json: bool,
    /// With their times.
    times: bool,
}

/// Writes chunks so that lines of several services never run into each other.
struct Writer<W: Write> {
    shown: Shown,
    width: usize,
    names: Vec<String>,
    /// Each line has its name before it.
    several: bool,
    /// The stream that is wanted, and the logs that do not tell theirs apart.
    stream: Option<Stream>,
    merged: BTreeSet<String>,
    pattern: Option<Pattern>,
    past: Option<Past>,
    /// The unfinished line of each service and stream.
    open: Map<(String, Option<Stream>), Open>,
    out: W,
}

impl<W: Write> Writer<W> {
    /// Whether bytes can be passed on as they come.
    fn is_plain(&self) -> bool {
        let by_line = self.shown.json || self.shown.times || self.past.is_some();
        !self.several && self.pattern.is_none() && !by_line
    }

    fn data(&mut self, name: &str, position: u64, bytes: &[u8], mark: Mark) -> io::Result<()> {
        if self.several && !self.names.iter().any(|n| n == name) {
            // It came while the others were followed.
            self.names.push(name.to_owned());
            self.width = self.width.max(name.chars().count());
        }
        if self.stream.is_some() && mark.stream.is_none() && self.merged.insert(name.to_owned()) {
            let what = "its log.streams is \"merged\", so this is what it wrote to both";
            io::stderr().lock().write_all(format!("hob: {name}: {what}\n").as_bytes())?;
        }
        if self.is_plain() && !(self.shown.paint.on && mark.stream == Some(Stream::Err)) && self.open.is_empty() {
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
        let mut shown = if self.shown.json { self.object(name, line, text) } else { self.plain(name, line.mark, text) };
        shown.push(b'\n');
        let Some(past) = &mut self.past else { return self.out.write_all(&shown) };
        past.keep(name, time_of(text).or(line.mark.time), shown);
        if past.most.is_none() && past.bytes > PAST_MAX {
            // So much is shown as it comes.
            self.show_past()?;
        }
        Ok(())
    }

    fn object(&self, name: &str, line: &Open, text: &[u8]) -> Vec<u8> {
        // A time that the line has is more exact than that of the index.
        let own = time_of(text);
        let bare = Wall::of_line(text).and_then(|_| text.get(Wall::STAMP..)).unwrap_or(text);
        let mut object = json!({ "position": line.position, "line": String::from_utf8_lossy(bare) });
        let mut put = |key: &str, value: Option<String>| {
            if let Some(value) = value {
                object[key] = Value::from(value);
            }
        };
        put("name", (!name.is_empty()).then(|| name.to_owned()));
        put("time", own.or(line.mark.time).map(|w| w.to_string()));
        put("stream", line.mark.stream.map(|s| s.name().to_owned()));
        visible_json(&object.to_string()).into_owned().into_bytes()
    }

    fn plain(&self, name: &str, mark: Mark, text: &[u8]) -> Vec<u8> {
        let mut shown = Vec::new();
        if self.several {
            let place = self.names.iter().position(|n| n == name).unwrap_or(0);
            let label = format!("{name:<width$} |", width = self.width);
            shown.extend_from_slice(self.shown.paint.colour(name_colour(place), &label).as_bytes());
            shown.push(b' ');
        }
        let own = time_of(text).filter(|_| self.shown.times);
        let stamp = Wall::of_line(text).filter(|_| self.shown.times);
        let text = stamp.and_then(|_| text.get(Wall::STAMP..)).unwrap_or(text);
        if self.shown.times {
            let time = own.or(mark.time).map_or_else(|| format!("{:19}", "-"), when::whole);
            shown.extend_from_slice(self.shown.paint.colour("2", &time).as_bytes());
            shown.extend_from_slice(b"  ");
        }
        let red = self.shown.paint.on && mark.stream == Some(Stream::Err);
        shown.extend_from_slice(if red { b"\x1b[31m" } else { b"" });
        shown.extend_from_slice(text);
        shown.extend_from_slice(if red { b"\x1b[0m" } else { b"" });
        shown
    }

    /// The past has been read: what was kept of it is shown, and what comes now at once.
    fn show_past(&mut self) -> io::Result<()> {
        for line in self.past.take().map(Past::lines).unwrap_or_default() {
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
        self.show_past()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer(json: bool) -> Writer<Vec<u8>> {
        Writer {
            shown: Shown { paint: Paint { on: false }, json, times: false },
            width: 3,
            names: vec!["a".into(), "bcd".into()],
            several: true,
            stream: None,
            merged: BTreeSet::new(),
            pattern: None,
            past: None,
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
            let mut w =
                Writer { names: vec!["a".into()], several: false, pattern: pattern(text, invert), ..writer(false) };
            w.data("a", 0, lines, NONE).unwrap();
            w.end().unwrap();
            assert_eq!(said(w), want, "{text}");
        }
        let past = Some(Past { most: Some(1), ..Past::default() });
        let mut w =
            Writer { names: vec!["a".into()], several: false, pattern: pattern("o", false), past, ..writer(false) };
        w.data("a", 0, lines, NONE).unwrap();
        assert!(w.out.is_empty());
        w.show_past().unwrap();
        w.data("a", 44, b"\nnow\n", NONE).unwrap();
        assert_eq!(said(w), "2026-11-20T17:56:18.123Z two\nfour\nnow\n");
    }

    #[test]
    fn the_past_of_several_is_told_in_the_order_of_its_times() {
        let at = |secs: i64| Mark { time: Some(Wall(secs * 1000)), stream: None };
        let mut w = Writer { past: Some(Past::default()), ..writer(false) };
        w.data("a", 0, b"1\n", at(10)).unwrap();
        w.data("a", 2, b"4\n", at(30)).unwrap();
        // The clock stepped back: the order within a log stays.
        w.data("a", 4, b"5\n", at(5)).unwrap();
        w.data("bcd", 0, b"0\n", NONE).unwrap();
        w.data("bcd", 2, b"2\n3\n", at(20)).unwrap();
        assert!(w.out.is_empty());
        w.show_past().unwrap();
        w.data("bcd", 6, b"6\n", at(1)).unwrap();
        assert_eq!(said(w), "bcd | 0\na   | 1\nbcd | 2\nbcd | 3\na   | 4\na   | 5\nbcd | 6\n");
    }

    #[test]
    fn times_stand_before_their_lines_where_they_are_known() {
        let shown = Shown { paint: Paint { on: false }, json: false, times: true };
        let mut w = Writer { names: vec!["a".into()], several: false, shown, ..writer(false) };
        let day = Wall(1_000_000_000_000);
        w.data("a", 0, b"one\n", Mark { time: Some(day), stream: None }).unwrap();
        w.data("a", 4, format!("{day} two\n").as_bytes(), NONE).unwrap();
        w.data("a", 30, b"three\n", NONE).unwrap();
        let time = when::whole(day);
        assert_eq!(said(w), format!("{time}  one\n{time}  two\n{:19}  three\n", "-"));
    }

    #[test]
    fn standard_error_is_red_on_a_terminal() {
        let shown = Shown { paint: Paint { on: true }, json: false, times: false };
        let mut w = Writer { names: vec!["a".into()], several: false, shown, ..writer(false) };
        w.data("a", 0, b"out\n", OUT).unwrap();
        w.data("a", 4, b"err\n", ERR).unwrap();
        assert_eq!(said(w), "out\n\x1b[31merr\x1b[0m\n");
    }
}
