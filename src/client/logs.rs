//! Logs as an iterator that outlives daemons: each service's place is counted in bytes, and that is where it goes on.

use super::wire::Received;
use super::{ClientError, Line};
use crate::base::gather::Gather as _;
use crate::base::ids::StreamId;
use crate::base::map::Map;
use crate::base::time::Wall;
use crate::protocol::methods::{Stream, notes};
use crate::protocol::rpc::{self, Code, FromServer, RpcError};
use core::time::Duration;
use serde_json::{Value, json};
use std::collections::VecDeque;

/// What a log stream yields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogChunk {
    /// Bytes as the service wrote them, and the position of the first one, counted over all of its log's life. A chunk
    /// may end within a line. `mark` says when and on which stream they were written, where that was asked for.
    Data { name: String, position: u64, bytes: Vec<u8>, mark: Mark },
    /// So many bytes were rotated away before they were read.
    Gap { name: String, dropped: u64 },
}

/// When bytes were written, or up to a second later, and on which of split streams; `None` where it is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    pub time: Option<Wall>,
    pub stream: Option<Stream>,
}

/// Which part of which logs is wanted.
#[derive(Clone, Debug, Default)]
pub struct LogAsk {
    /// Empty for the daemon's own log.
    pub names: Vec<String>,
    /// Every service there is instead of names; with `follow` also those that come later.
    pub all: bool,
    /// The last so many lines; `None` for all.
    pub lines: Option<u64>,
    pub follow: bool,
    pub since: Option<Wall>,
    pub until: Option<Wall>,
    pub stream: Option<Stream>,
    /// Tell times and streams.
    pub marks: bool,
    /// The output of this task instead of logs by name; followed, it ends with the task.
    pub task: Option<u64>,
}

/// Stands for all lines there are.
const LINES_ALL: u64 = u32::MAX as u64;

/// Chunks of logs, in the order in which they come. Ends when all that was asked for has been read, with `follow`
/// never. After an error it ends.
#[derive(Debug)]
pub struct LogStream {
    line: Line,
    ask: LogAsk,
    /// Ends of the logs when they were opened.
    ends: Map<String, u64>,
    marks: Map<String, Mark>,
    /// What is not at its end: names asked for, and where to go on once that is known.
    open: Map<String, Option<u64>>,
    /// Streams of this connection.
    streams: Map<StreamId, String>,
    requests: u64,
    ready: VecDeque<LogChunk>,
    connected: bool,
    /// A daemon has known all names.
    was_open: bool,
    /// When following began.
    begun: Wall,
    /// The events that tell of new services.
    news: Option<u64>,
    ended: bool,
    /// The task that is followed is over, so that its output is all there.
    over: bool,
    /// How long the next look at a task that does not run waits for its end.
    patience: Duration,
}

/// The shortest and the longest time between two looks at a task that is followed and does not run.
const LOOK: Duration = Duration::from_millis(50);
const LOOK_MAX: Duration = Duration::from_secs(1);

impl LogStream {
    pub(super) fn open(line: Line, ask: LogAsk) -> Result<LogStream, ClientError> {
        let mut stream = LogStream {
            line,
            open: ask.names.iter().map(|n| (n.clone(), None)).gather(),
            ask,
            ends: Map::new(),
            marks: Map::new(),
            streams: Map::new(),
            requests: 0,
            ready: VecDeque::new(),
            connected: false,
            was_open: false,
            begun: crate::sys::clock::now().wall,
            news: None,
            ended: false,
            over: false,
            patience: LOOK,
        };
        while !stream.connected {
            stream.request().or_else(|e| stream.line.lost(e))?;
        }
        Ok(stream)
    }

    /// Where each log that has not ended would be read on: the position after the last byte that was yielded.
    pub fn positions(&self) -> impl Iterator<Item = (&str, u64)> {
        self.open.iter().filter_map(|(name, at)| Some((name.as_str(), (*at)?)))
    }

    /// What was asked for.
    #[must_use]
    pub fn asked(&self) -> &LogAsk {
        &self.ask
    }

    /// Where a log ended when it was opened: what comes before is the past.
    #[must_use]
    pub fn end(&self, name: &str) -> Option<u64> {
        self.ends.get(name).copied()
    }

    fn exchange(&mut self, method: &str, params: &Value) -> Result<Value, ClientError> {
        self.requests += 1;
        let text = rpc::request_text(self.requests, method, Some(&params.to_string()));
        self.line.exchange(self.requests, &text, None, true)
    }

    fn request(&mut self) -> Result<(), ClientError> {
        let names = if self.ask.all { self.find_all()? } else { self.open.keys().cloned().collect() };
        if self.ask.all && names.is_empty() {
            self.streams.clear();
            (self.connected, self.was_open) = (true, true);
            return Ok(());
        }
        self.streams.clear();
        let is_late = |name: &String| self.ask.all && self.was_open && self.open.get(name).is_none_or(Option::is_none);
        let (late, names): (Vec<String>, Vec<String>) = names.into_iter().partition(is_late);
        let first = late.is_empty() || !names.is_empty();
        let begun = self.begun;
        let asks = [first.then_some((names, None)), (!late.is_empty()).then_some((late, Some(begun)))];
        for (names, since) in asks.into_iter().flatten() {
            if !self.open_streams(&names, since)? {
                return Ok(());
            }
        }
        self.connected = true;
        Ok(())
    }

    /// Asks for logs; of those that have come while others were followed, for all since that began. False when some
    /// were left out, and everything is to be asked for again.
    fn open_streams(&mut self, names: &[String], late: Option<Wall>) -> Result<bool, ClientError> {
        let ask = &self.ask;
        let lines = ask.lines.filter(|_| late.is_none()).unwrap_or(LINES_ALL);
        let mut params = json!({ "lines": lines, "follow": ask.follow });
        for (name, time) in [("since", late.or(ask.since)), ("until", ask.until)] {
            if let Some(time) = time {
                params[name] = json!(time.0);
            }
        }
        let method = if let Some(task) = ask.task {
            params["id"] = json!(task);
            params["from"] = json!(self.open.values().next().copied().flatten());
            "task.output"
        } else if ask.names.is_empty() && !ask.all {
            params["from"] = json!(self.open.values().next().copied().flatten());
            "daemon.logs"
        } else {
            let from = names.iter().filter_map(|n| Some((n.clone(), (*self.open.get(n)?)?.into())));
            params["from"] = Value::Object(from.gather());
            params["names"] = json!(names);
            if let Some(stream) = ask.stream {
                params["stream"] = json!(stream.name());
            }
            if ask.marks {
                params["marks"] = json!(true);
            }
            "service.logs"
        };
        let reply = match self.exchange(method, &params) {
            // Others are followed on, where the daemon that was asked first had it.
            Err(ClientError::Rpc(e)) if e.code == Code::NotFound && self.was_open && self.ask.task.is_none() => {
                return self.leave_out_removed(e).map(|()| false);
            }
            reply => reply?,
        };
        self.was_open = true;
        for stream in reply.get("streams").and_then(Value::as_array).into_iter().flatten() {
            let id = stream.get("id").and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok());
            let name = stream.get("name").and_then(Value::as_str);
            let position = stream.get("position").and_then(Value::as_u64);
            let (Some(id), Some(name), Some(position)) = (id, name, position) else {
                return Err(ClientError::Unexpected(format!("the answer to {method} has a stream without id")));
            };
            self.streams.insert(StreamId(id), name.to_owned());
            self.open.insert(name.to_owned(), Some(position));
            if let Some(end) = stream.get("end").and_then(Value::as_u64) {
                self.ends.get_or(name.to_owned(), || end);
            }
        }
        Ok(true)
    }

    /// The names of all services there are.
    fn listed(&mut self) -> Result<Vec<String>, ClientError> {
        let list = self.exchange("service.list", &json!({}))?;
        let rows = list["services"].as_array().into_iter().flatten();
        Ok(rows.filter_map(|s| Some(s["name"].as_str()?.to_owned())).collect())
    }

    /// All services there are now. One that was there before and is again goes on where it was.
    fn find_all(&mut self) -> Result<Vec<String>, ClientError> {
        if self.ask.follow {
            // Before the list, so that none falls between.
            let kinds = json!({ "kinds": ["daemon.reloaded", "service.added"] });
            self.news = self.exchange("event.subscribe", &kinds)?["subscription"].as_u64();
        }
        let known = self.listed()?;
        for name in &known {
            self.open.get_or(name.clone(), || None);
        }
        Ok(known)
    }

    /// The daemon that has taken over knows some services no more: their logs have ended.
    fn leave_out_removed(&mut self, unknown: RpcError) -> Result<(), ClientError> {
        let known = self.listed()?;
        let before = self.open.len();
        let is_of = |name: &str, all: &str| name == all || name.strip_prefix(all).is_some_and(|n| n.starts_with('@'));
        self.open.retain(|name, _| known.iter().any(|known| is_of(known, name)));
        match self.open.len() {
            n if n == before => Err(ClientError::Rpc(unknown)),
            0 => {
                self.streams.clear();
                self.connected = true;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn step(&mut self) -> Result<Option<LogChunk>, ClientError> {
        loop {
            if let Some(chunk) = self.ready.pop_front() {
                return Ok(Some(chunk));
            }
            let at_end = self.connected && self.streams.is_empty() && !(self.ask.all && self.ask.follow);
            if at_end && (self.over || self.ask.task.is_none() || !self.ask.follow) {
                return Ok(None);
            }
            let step = match (at_end, self.connected) {
                (true, _) => self.look(),
                (false, true) => self.receive(),
                (false, false) => self.request(),
            };
            if let Err(e) = step {
                self.connected = false;
                self.line.lost(e)?;
            }
        }
    }

    /// The task that is followed does not run: it waits for its first attempt or for the next, or it is over. Waits a
    /// little for its end, and has what it wrote meanwhile read.
    fn look(&mut self) -> Result<(), ClientError> {
        let params = json!({ "ids": self.ask.task, "timeout": self.patience.as_secs_f64() });
        self.over = self.exchange("task.wait", &params)?["done"] == true;
        self.patience = (self.patience * 2).min(LOOK_MAX);
        self.connected = false;
        Ok(())
    }

    fn receive(&mut self) -> Result<(), ClientError> {
        match self.line.raw()?.receive(None)? {
            Received::Stream { id, bytes } => self.data(id, bytes),
            Received::Json(text) => match rpc::parse_from_server(text.as_bytes()) {
                Ok(FromServer::Notification { method, params: Some(params) }) => {
                    let unreadable = |e| ClientError::Unexpected(format!("a notice cannot be read: {e}"));
                    let params: Value = serde_json::from_str(params.get()).map_err(unreadable)?;
                    return self.notice(&method, &params);
                }
                // The daemon gives the connection up, and closes it.
                Ok(FromServer::Reply { result: Err(e), .. }) => return Err(ClientError::Rpc(e)),
                _ => {}
            },
        }
        Ok(())
    }

    fn data(&mut self, id: StreamId, bytes: Vec<u8>) {
        if let Some(name) = self.streams.get(&id)
            && let Some(Some(at)) = self.open.get_mut(name)
        {
            let position = *at;
            *at += bytes.len() as u64;
            self.patience = LOOK;
            let mark = self.marks.get(name).copied().unwrap_or_default();
            self.ready.push_back(LogChunk::Data { name: name.clone(), position, bytes, mark });
        }
    }

    fn notice(&mut self, method: &str, params: &Value) -> Result<(), ClientError> {
        let number = |name: &str| params.get(name).and_then(Value::as_u64);
        if [notes::EVENT, notes::LAGGED].contains(&method) {
            let is_news = self.news.is_some() && number("subscription") == self.news;
            let nothing = params["event"]["added"].as_array().is_some_and(Vec::is_empty);
            if is_news && !nothing {
                // Asks anew, each log from its place on.
                self.line.forget();
                self.connected = false;
            }
            return Ok(());
        }
        let Some(id) = number("id").and_then(|id| u32::try_from(id).ok()).map(StreamId) else { return Ok(()) };
        if method == notes::STREAM_GAP
            && let (Some(name), Some(position), dropped) =
                (self.streams.get(&id), number("position"), number("dropped"))
        {
            self.open.insert(name.clone(), Some(position));
            self.ready.push_back(LogChunk::Gap { name: name.clone(), dropped: dropped.unwrap_or(0) });
        } else if method == notes::STREAM_MARK
            && let (Some(name), Some(position)) = (self.streams.get(&id), number("position"))
        {
            let text = |name: &str| params.get(name).and_then(Value::as_str);
            let stream = [Stream::Out, Stream::Err].into_iter().find(|s| text("stream") == Some(s.name()));
            self.open.insert(name.clone(), Some(position));
            self.marks.insert(name.clone(), Mark { time: text("time").and_then(Wall::parse), stream });
        } else if method == notes::STREAM_END
            && let Some(name) = self.streams.remove(&id)
        {
            // That of a task may go on with its next attempt, that of a service which is removed when it comes back.
            if self.ask.task.is_none() && !(self.ask.all && self.ask.follow) {
                self.open.remove(&name);
            }
            let reason = params.get("reason").and_then(Value::as_str).unwrap_or("eof");
            if !matches!(reason, "eof" | "closed") {
                return Err(ClientError::Rpc(RpcError::new(Code::FileSystem, format!("the log of {name}: {reason}"))));
            }
        }
        Ok(())
    }
}

impl Iterator for LogStream {
    type Item = Result<LogChunk, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let item = self.step().transpose();
        self.ended = !matches!(item, Some(Ok(_)));
        item
    }
}
