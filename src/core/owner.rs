//! Who asks, and whose something is: a user, or the job whose process asked. Pure.

use super::{Core, Effect, Out, task};
use crate::config::{Access, ServiceSpec};
use crate::protocol::methods::Of;
use core::fmt;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::sync::Arc;

/// Who is at the other end of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    pub uid: u32,
    /// 0 where it is not known, as with what comes through HOB_FD.
    pub pid: u32,
    pub access: Access,
    /// The service that its process belongs to.
    pub job: Option<Arc<str>>,
    /// The job of the schedule that asks, which is no process.
    pub schedule: Option<Arc<str>>,
}

impl Peer {
    #[must_use]
    pub fn owner(&self) -> Owner {
        match (&self.schedule, &self.job) {
            (Some(id), _) => Owner::Schedule(Arc::clone(id)),
            (None, Some(job)) => Owner::Job(Arc::clone(job)),
            (None, None) => Owner::User(self.uid),
        }
    }

    /// Whom this one means by it.
    #[must_use]
    pub fn meant(&self, of: &Of) -> Owner {
        match of {
            Of::Caller => self.owner(),
            Of::User(uid) => Owner::User(*uid),
            Of::Job(name) => Owner::Job(name.as_str().into()),
            Of::Schedule(id) => Owner::Schedule(id.as_str().into()),
        }
    }
}

/// Whose something is. Its tag, which replies carry and `service.list` takes, is a user's number, `service/NAME`,
/// `task/N` or `schedule/ID`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    User(u32),
    /// The service of this name, or the task, whose name is `task/N`.
    Job(Arc<str>),
    /// The job of the schedule with this id.
    Schedule(Arc<str>),
}

const JOB: &str = "service/";
const SCHEDULE: &str = "schedule/";

impl Owner {
    /// Reads a tag.
    #[must_use]
    pub fn parse(tag: &str) -> Option<Owner> {
        if task::of_name(tag).is_some() {
            return Some(Owner::Job(tag.into()));
        }
        match (tag.strip_prefix(JOB), tag.strip_prefix(SCHEDULE)) {
            (Some(""), _) | (_, Some("")) => None,
            (Some(name), _) => Some(Owner::Job(name.into())),
            (None, Some(id)) => Some(Owner::Schedule(id.into())),
            (None, None) => tag.parse().ok().filter(|_| tag.bytes().all(|b| b.is_ascii_digit())).map(Owner::User),
        }
    }

    /// In a sentence: `root`, `uid 1000`, `service/web`.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Owner::User(0) => "root".to_owned(),
            Owner::User(uid) => format!("uid {uid}"),
            Owner::Job(_) => self.to_string(),
            Owner::Schedule(id) => format!("the job {id}"),
        }
    }
}

/// Its tag.
impl Serialize for Owner {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Owner {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Owner, D::Error> {
        let tag = String::deserialize(from)?;
        Owner::parse(&tag).ok_or_else(|| D::Error::custom(format!("{tag:?} is no owner")))
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Owner::User(uid) => uid.fmt(f),
            Owner::Job(name) if task::of_name(name).is_some() => f.write_str(name),
            Owner::Job(name) => write!(f, "{JOB}{name}"),
            Owner::Schedule(id) => write!(f, "{SCHEDULE}{id}"),
        }
    }
}

/// What a spec says of who may reach the socket.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Door {
    name: Arc<str>,
    access: Option<Access>,
    /// It runs as somebody who may not open hob's files.
    other: bool,
}

impl Core {
    /// What the processes of a service or a task may ask of hob: `None` where there is no such service, `Some(None)`
    /// where it is nothing. Of a service whose config cannot be read nobody knows what it may change.
    #[must_use]
    pub fn job_access(&self, service: &str) -> Option<Option<Access>> {
        if task::of_name(service).is_some() {
            // Whoever submitted it could do that much.
            return Some(ServiceSpec::default().access);
        }
        let s = &self.table[self.table.find(service)?];
        Some(if s.blind { Some(Access::Read) } else { s.spec.access })
    }

    /// As whom the processes of a service or a task run, as its spec says it; `None` where there is no such service.
    #[must_use]
    pub fn job_runs_as(&self, job: &str) -> Option<ServiceSpec> {
        let (user, group) = match task::of_name(job) {
            Some(id) => (self.tasks.get(id)?.frame.user.map(|uid| uid.to_string()), None),
            None => {
                let spec = &self.table[self.table.find(job)?].spec;
                (spec.user.clone(), spec.group.clone())
            }
        };
        Some(ServiceSpec::default().with(|s| (s.user, s.group) = (user, group)))
    }

    /// Whether jobs of other users than hob's own may ask anything, so that the socket has to let them in.
    #[must_use]
    pub fn has_jobs_of_others(&self) -> bool {
        self.table.by_name().any(|i| self.table[i].spec.lets_others_in())
    }

    /// What there is to tell the shell about jobs and the socket, as far as it is not the default.
    pub(super) fn doors(&self) -> Vec<Door> {
        let plain = ServiceSpec::default().access;
        let all = self.table.by_name().map(|i| &self.table[i]);
        let doors =
            all.map(|s| Door { name: Arc::clone(&s.name), access: s.spec.access, other: s.spec.lets_others_in() });
        doors.filter(|d| d.access != plain || d.other).collect()
    }

    /// Tells the shell when that is not what it was.
    pub(super) fn tell_doors(&self, before: &[Door], out: &mut Out) {
        if self.doors() != before {
            out.effects.push(Effect::JobAccess);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_reads_back_and_nothing_else_does() {
        let jobs = ["web", "7", "task/7"].map(|name| Owner::Job(name.into()));
        for owner in [Owner::User(0), Owner::User(1000)].into_iter().chain(jobs) {
            assert_eq!(Owner::parse(&owner.to_string()), Some(owner));
        }
        for bad in ["", "web", "-1", "+1", "1 ", "4294967296", "service/", "task/", "task/x", "alice"] {
            assert_eq!(Owner::parse(bad), None, "{bad}");
        }
        assert_eq!((Owner::User(7).text(), Owner::Job("a".into()).text()), ("uid 7".into(), "service/a".into()));
        assert_eq!((Owner::User(0).text(), Owner::Job("task/3".into()).text()), ("root".into(), "task/3".into()));
    }

    #[test]
    fn a_job_asks_in_its_own_name() {
        let peer = Peer { uid: 0, pid: 1, access: Access::Read, job: None, schedule: None };
        assert_eq!(peer.owner(), Owner::User(0));
        assert_eq!(Peer { job: Some("web".into()), ..peer }.owner(), Owner::Job("web".into()));
    }
}
