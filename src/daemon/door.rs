//! Who may speak to this daemon and as what: users by their number and groups, jobs by what their service may; and the
//! channels of jobs (HOB_FD). Sets the mode of the control socket.
//!
//! A channel is a socket pair of one JSON text a message, made before the run it belongs to is cloned, and held by the
//! keeper, so that neither end notices that a daemon dies. The next daemon says `daemon.resumed` in it.

use super::Daemon;
use super::child::{Children, Whose};
use super::conn::{ACCEPT_RETRY, ACCEPTED_MAX, Accepted, Admission, Pass, stranger};
use crate::base::ids::{ConnId, RunId, StreamId};
use crate::base::limits::MESSAGE_MAX;
use crate::base::map::Map;
use crate::config::{Access, Level};
use crate::core::{Core, Start};
use crate::protocol::methods::notes;
use crate::protocol::rpc::{Code, RpcError};
use crate::sys::chan::Chan;
use crate::sys::net::{self, Credentials};
use core::time::Duration;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// What the labels of channels begin with; the number of the run and that of its user follow.
pub(super) const CHANNEL: &str = "hob_fd/";

fn label(run: RunId, uid: u32) -> String {
    format!("{CHANNEL}{run}/{uid}")
}

fn of_label(label: &str) -> Option<(RunId, u32)> {
    let (run, uid) = label.strip_prefix(CHANNEL)?.split_once('/')?;
    Some((RunId(run.parse().ok()?), uid.parse().ok()?))
}

/// The open channels, by run.
#[derive(Debug, Default)]
pub(super) struct Channels {
    open: Map<RunId, (ConnId, String)>,
    /// Those that the keeper held, until clients are served.
    found: Vec<(String, OwnedFd)>,
}

impl Channels {
    /// Takes the channels out of what the keeper held.
    pub(super) fn find(held: &mut Map<String, Vec<OwnedFd>>) -> Channels {
        let labels: Vec<String> = held.keys().filter(|l| l.starts_with(CHANNEL)).cloned().collect();
        let one = |label: String| held.remove(&label)?.pop().map(|fd| (label, fd));
        let found = labels.into_iter().filter_map(one).collect();
        Channels { open: Map::new(), found }
    }
}

/// As what the process at the other end of a socket may pass.
pub(super) fn pass(
    core: &Core,
    children: &Children,
    admission: &Admission,
    cred: &Credentials,
    fd: BorrowedFd<'_>,
) -> Result<Pass, RpcError> {
    let by_user = || admission.of(cred, fd).ok_or_else(|| stranger(cred.uid));
    match children.whose(cred.pid, cred.uid) {
        Whose::Nobody => by_user().map(Pass::from),
        // It may have been a job's, whose usual level this is.
        Whose::Gone => by_user().map(|level| Pass::from(level).at_most(Access::Operate)),
        Whose::Left => by_user().map(|level| Pass::from(level).at_most(Access::Read)),
        Whose::Job(job) => match job_level(core, &job) {
            // A process of another user may have become one of the job, or pretend to be one: it gains nothing by it.
            Some(access) if cred.uid != 0 && runs_as(core, children, &job) != Some(cred.uid) => {
                by_user().map(|level| Pass::from(level).at_most(access))
            }
            Some(access) => Ok(Pass::of_job(&job, access)),
            None => Err(RpcError::new(Code::PermissionDenied, format!("service/{job} may not speak to hob"))
                .hint(format!("services.{job}.access in the config says what it may"))),
        },
    }
}

/// Connections that are let in while others wait for their turn: a hundred times as many in a second.
const ACCEPTED_BEHIND: usize = 4;

/// The user that a service or a task runs as; `None` where there is no such service.
pub(super) fn runs_as(core: &Core, children: &Children, job: &str) -> Option<u32> {
    core.job_runs_as(job).map(|spec| children.user_of(&spec))
}

/// What a job may: nothing but look where its service is not known any more.
fn job_level(core: &Core, job: &str) -> Option<Access> {
    core.job_access(job).unwrap_or(Some(Access::Read))
}

impl Daemon {
    /// Lets clients in, behind those who are in already.
    pub(super) fn accept(&mut self) {
        if self.life.word_by.is_some_and(|at| self.gear.now.mono < at) {
            // First it has to be known how an upgrade came out.
            self.accept_at = self.life.word_by;
            return;
        }
        // Who is in already comes first, but they may go on for ever.
        let behind = self.conns.is_behind() || !self.waiting.is_empty();
        let most = if behind { ACCEPTED_BEHIND } else { ACCEPTED_MAX };
        self.resume_channels();
        let (core, children, admission) = (&self.core, &self.children, &self.admission);
        let (registry, sources) = (self.gear.poll.registry(), &mut self.gear.sources);
        let accepted = self.conns.accept(self.listener.as_fd(), most, registry, sources, &mut |cred, fd| {
            pass(core, children, admission, cred, fd)
        });
        let wait = match accepted {
            Ok(Accepted::All) => None,
            Ok(Accepted::More) => Some(Duration::ZERO),
            Ok(Accepted::Behind) => Some(ACCEPT_RETRY),
            Ok(Accepted::Starved) => {
                self.gear.log(Level::Warn, "no descriptor is left for a new connection; trying again");
                Some(ACCEPT_RETRY)
            }
            Err(e) => {
                self.gear.log(Level::Error, format!("cannot accept connections: {e}"));
                Some(ACCEPT_RETRY)
            }
        };
        self.accept_at = wait.map(|w| self.gear.now.mono + w);
    }

    /// The config has changed who may speak to this daemon: those who are connected are judged again.
    pub(super) fn judge_again(&mut self) {
        let (core, admission) = (&self.core, &self.admission);
        self.conns.readmit(&mut |job, cred, fd| match job {
            Some(job) => job_level(core, job),
            None => admission.of(cred, fd),
        });
        let socket = &self.paths.socket;
        if self.bare || self.own.given || net::is_abstract(socket) {
            return;
        }
        // Who may pass is decided when somebody connects.
        let mode = if self.lets_others_in() { 0o666 } else { 0o600 };
        if let Err(e) = net::serve::set_mode(socket, mode) {
            self.gear.log(Level::Warn, format!("cannot set the mode of {}: {e}", socket.display()));
        }
    }

    /// Whether others than hob's own user and root may get as far as to be asked who they are.
    pub(super) fn lets_others_in(&self) -> bool {
        self.admission.grants_any() || self.core.has_jobs_of_others()
    }

    /// Makes the channel of a run whose service asks for one. Answers the job's end.
    pub(super) fn open_channel(&mut self, start: &Start) -> Result<Option<OwnedFd>, String> {
        if !start.spec.hob_fd {
            return Ok(None);
        }
        let why = |e| format!("cannot make the channel (HOB_FD) of {}: {e}", start.service);
        let (ours, theirs) = Chan::pair_for_job(MESSAGE_MAX).map_err(why)?;
        let uid = self.children.user_of(&start.spec);
        let label = label(start.run, uid);
        self.gear.link.hold(&label, &[ours.as_fd()]).map_err(why)?;
        if let Err(e) = self.serve_channel(start.run, uid, &start.service, ours, label.clone()) {
            self.gear.link.drop(&label);
            return Err(why(e));
        }
        Ok(Some(theirs))
    }

    fn serve_channel(
        &mut self,
        run: RunId,
        uid: u32,
        service: &Arc<str>,
        chan: Chan,
        label: String,
    ) -> std::io::Result<ConnId> {
        let access = job_level(&self.core, service).unwrap_or(Access::Read);
        let pass = Pass::of_job(service, access);
        let (registry, sources) = (self.gear.poll.registry(), &mut self.gear.sources);
        let conn = self.conns.adopt_channel(chan, uid, pass, registry, sources)?;
        self.channels.open.insert(run, (conn, label));
        Ok(conn)
    }

    /// Serves the channels that an earlier daemon has left, of runs that still are.
    pub(super) fn resume_channels(&mut self) {
        for (label, fd) in core::mem::take(&mut self.channels.found) {
            let of = of_label(&label).and_then(|(run, uid)| Some((run, uid, Arc::clone(self.services.get(&run)?))));
            let Some((run, uid, service)) = of else {
                if !self.life.safe {
                    self.gear.link.drop(&label);
                }
                continue;
            };
            let served = Chan::from_fd(fd).and_then(|chan| self.serve_channel(run, uid, &service, chan, label));
            match served {
                Ok(conn) => {
                    let params = format!("{{\"pid\":{}}}", std::process::id());
                    self.conns.notify(conn, StreamId(0), notes::RESUMED, &params);
                }
                Err(e) => {
                    self.gear.log(Level::Error, format!("cannot serve the channel (HOB_FD) of {service}: {e}"));
                }
            }
        }
    }

    /// The run is over, and its channel with it.
    pub(super) fn end_channel(&mut self, run: RunId) {
        if let Some((conn, label)) = self.channels.open.remove(&run) {
            self.conns.close(conn);
            self.gear.link.drop(&label);
        }
    }

    /// A connection was closed. If it was a channel, the keeper's copy has to go too, or the job would never know.
    pub(super) fn channel_closed(&mut self, conn: ConnId) {
        let run = self.channels.open.iter().find(|(_, (c, _))| *c == conn).map(|(run, _)| *run);
        if let Some(run) = run {
            self.end_channel(run);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_read_back() {
        assert_eq!(of_label(&label(RunId(7), 1000)), Some((RunId(7), 1000)));
        for bad in ["hob_fd/", "hob_fd/7", "hob_fd/x/0", "hob_fd/7/-1", "notify/web"] {
            assert_eq!(of_label(bad), None, "{bad}");
        }
        let null = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let mut held = Map::from_iter([
            (label(RunId(7), 0), vec![null()]),
            ("notify/web".to_owned(), vec![null()]),
            (label(RunId(8), 0), Vec::new()),
        ]);
        let channels = Channels::find(&mut held);
        assert_eq!(channels.found.len(), 1);
        assert_eq!(held.keys().collect::<Vec<_>>(), ["notify/web"]);
    }
}
