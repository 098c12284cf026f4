//! What the parts of the daemon share: the selector, the pool, the keeper, the run table, the own log, the clock of
//! this turn. Here they meet the narrow interfaces by which capture, children and log streams see the daemon around
//! them.

use super::child;
use super::conn::Conns;
use super::exec::{KEEPING, LOADING};
use super::lifecycle::outside;
use super::pool::{Lane, Pool};
use super::source::{Source, Sources};
use super::{capture, journal, link, logs, ownlog, told};
use crate::base::ids::{ConnId, ReqId, StreamId};
use crate::base::time::{Mono, Now};
use crate::config::{Config, Level};
use crate::core::Usages;
use crate::protocol::rpc::RpcError;
use crate::sys::table::RunTable;
use core::time::Duration;
use mio::{Interest, Token};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;

/// How long work on files may take before it is reported.
pub(super) const FILE_LIMIT: Duration = Duration::from_secs(30);

/// What the pool's jobs answer.
#[derive(Debug)]
pub(super) enum Job {
    Spawned(child::SpawnDone),
    Swept(child::SweepDone),
    Path(child::PathDone),
    Capture(capture::Turned),
    /// What the copy to hob's own stdout and stderr tells.
    Copied(capture::copy::Told),
    Logs(logs::Read),
    Journal(journal::Ended),
    /// The config file was read and checked; with its text.
    Config(Result<(Box<Config>, Vec<u8>), String>),
    /// Its text is kept as that of the config in effect.
    Kept(Box<Config>),
    /// An examination of everything around hob.
    Examined {
        req: ReqId,
        result: Result<String, RpcError>,
    },
    /// What runs cost.
    Usage(Usages),
    /// A program was looked at that may take over.
    Upgrade {
        req: Option<ReqId>,
        found: super::lifecycle::upgrade::Found,
    },
    /// The heartbeat was written; a failure is worth a line in the log.
    Beat(Result<(), String>),
    /// What lies where the program that runs was started from, where it is another one.
    Program(Option<super::lifecycle::upgrade::Other>),
    /// Something was done that nobody waits for; a failure is worth a line in the log.
    Quiet(Result<(), String>),
}

#[derive(Debug)]
pub(super) struct Gear {
    pub poll: mio::Poll,
    pub sources: Sources,
    pub pool: Pool<Job>,
    pub link: link::Link,
    pub table: RunTable,
    pub log: ownlog::OwnLog,
    pub told: told::Pace,
    pub now: Now,
}

impl Gear {
    pub(super) fn log(&mut self, level: Level, text: impl AsRef<str>) {
        self.log.log(level, text.as_ref(), self.now);
    }

    /// What the children borrow.
    pub(super) fn ctx(&mut self) -> child::Ctx<'_> {
        child::Ctx {
            registry: self.poll.registry(),
            sources: &mut self.sources,
            table: &self.table,
            link: &mut self.link,
            now: self.now.mono,
        }
    }

    /// Hands work on files to its lane.
    pub(super) fn bulk(&mut self, name: &'static str, job: impl FnOnce() -> Job + Send + 'static) {
        let (lane, limit) = match name {
            LOADING | KEEPING => (Lane::Paths, outside::READ),
            _ => (Lane::Bulk, FILE_LIMIT),
        };
        self.pool.run(lane, name, self.now.mono, limit, job);
    }

    pub(super) fn at_path(&mut self, job: child::PathJob) {
        let of = (Lane::Paths, job.place());
        let limit = child::PathJob::DEADLINE;
        self.pool.run_of(of, "work at the path of a socket", self.now.mono, limit, move || Job::Path(job.run()));
    }

    pub(super) fn sweep(&mut self, job: Option<child::SweepJob>) {
        if let Some(job) = job {
            let limit = child::SweepJob::DEADLINE;
            self.pool.run(Lane::Bulk, "a sweep", self.now.mono, limit, move || Job::Swept(job.run()));
        }
    }
}

impl capture::Host for Gear {
    fn files(&mut self, job: capture::Job) {
        self.pool.run(Lane::Files, "log files", self.now.mono, FILE_LIMIT, move || Job::Capture(job()));
    }

    fn bulk(&mut self, job: capture::Job) {
        Gear::bulk(self, "compressing logs", move || Job::Capture(job()));
    }

    fn watch(&mut self, name: &Arc<str>, pipe: BorrowedFd<'_>) -> io::Result<Token> {
        self.sources.add(self.poll.registry(), pipe.as_raw_fd(), Interest::READABLE, Source::Output(Arc::clone(name)))
    }

    fn unwatch(&mut self, pipe: BorrowedFd<'_>, token: Token) {
        self.sources.remove(self.poll.registry(), pipe.as_raw_fd(), token);
    }

    fn hold(&mut self, label: &str, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.link.hold(label, fds)
    }

    fn release(&mut self, label: &str) {
        self.link.drop(label);
    }

    fn log(&mut self, level: Level, text: String) {
        Gear::log(self, level, text);
    }
}

/// The daemon as log streams see it.
pub(super) struct Outlet<'a> {
    pub(super) gear: &'a mut Gear,
    pub(super) conns: &'a mut Conns,
}

impl logs::Sink for Outlet<'_> {
    fn bulk(&mut self, job: logs::Job) {
        self.gear.bulk("reading logs", move || Job::Logs(job()));
    }

    fn reply(&mut self, req: ReqId, result: &Result<String, RpcError>) {
        self.conns.reply(req, result);
    }

    fn stream_open(&mut self, conn: ConnId, id: StreamId) -> Result<(), RpcError> {
        self.conns.stream_open(conn, id)
    }

    fn stream_data(&mut self, conn: ConnId, id: StreamId, bytes: &[u8]) {
        self.conns.stream_data(conn, id, bytes);
    }

    fn stream_end(&mut self, conn: ConnId, id: StreamId, reason: &str) {
        self.conns.stream_end(conn, id, reason);
    }

    fn notify(&mut self, conn: ConnId, id: StreamId, method: &str, params: &str) {
        self.conns.notify(conn, id, method, params);
    }

    fn unsent(&self, conn: ConnId) -> usize {
        self.conns.unsent(conn)
    }

    fn now(&self) -> Mono {
        self.gear.now.mono
    }
}
