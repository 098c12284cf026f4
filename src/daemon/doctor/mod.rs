//! An examination of everything around hob: what is wrong or may become so, why it matters and what to do. Reads files
//! and asks the kernel; changes nothing.
//!
//! The daemon does it in the pool, with what it knows of itself and what the core knows of its services. Where no
//! daemon answers, the command line does what can be done without one.

mod config;
mod journal;
mod machine;
mod places;
mod platform;
mod socket;

pub use config::lacking;
pub(super) use machine::NO_PROC;
pub use places::logs_full;
pub use platform::offline;

use super::Daemon;
use super::capture::leftover;
use super::child::Setup;
use super::gear::Job;
use crate::base::control::FLAG_NO_SUBREAPER;
use crate::base::finding::{CONFIG, Finding, Grade};
use crate::base::ids::ReqId;
use crate::base::json::Obj;
use crate::base::paths::Paths;
use crate::base::text::shell_word;
use crate::core::{Boot, Input};
use crate::sys;
use std::sync::Arc;

/// Who looks, and what it knows that files do not tell.
#[derive(Debug)]
pub struct Scene<'a> {
    pub paths: &'a Paths,
    /// A daemon looks at itself; otherwise somebody looks at what may run or not.
    pub running: bool,
    /// The control socket was passed to hob by somebody who keeps it.
    pub given: bool,
    /// Whether the socket is to let others in; `None`: as the config says.
    pub others: Option<bool>,
    /// There is to be no pid file.
    pub managed: bool,
    /// How children are started.
    pub setup: &'a Setup,
    /// Why control groups are not used.
    pub no_cgroups: Option<String>,
    pub subreaper: bool,
}

/// What a daemon knows of itself from its start.
#[derive(Debug)]
pub(super) struct Own {
    /// The control socket was made by somebody else, who passed it to hob and keeps it.
    pub(super) given: bool,
    /// hob is a part of another program.
    managed: bool,
    /// Of the keeper's first message.
    flags: u32,
    /// What daemon.status tells of the machine, once somebody has asked for it.
    platform: Option<Arc<str>>,
}

impl Own {
    /// What the core is to know of it goes into `boot`.
    pub(super) fn new((given, managed): (bool, bool), flags: u32, boot: &mut Boot) -> Own {
        boot.managed = managed;
        Own { given, managed, flags, platform: None }
    }
}

/// The files of such output, in order, without their indexes.
pub(super) fn lost_outputs(logs: &std::path::Path) -> Vec<String> {
    let files = std::fs::read_dir(logs.join("tasks")).into_iter().flatten().flatten();
    let names = files.filter_map(|file| file.file_name().into_string().ok());
    let mut names: Vec<String> =
        names.filter(|name| name.starts_with(leftover::LOST) && !name.ends_with(".idx")).collect();
    names.sort_unstable();
    names
}

/// Everything that can be found out, in a fixed order.
#[must_use]
pub fn examine(scene: &Scene<'_>) -> Vec<Finding> {
    if let Some(foreign) = places::of_another_user(scene) {
        return [vec![foreign], machine::look(scene, None)].concat();
    }
    let mut all = places::look(scene);
    let (config, found) = config::look(scene);
    all.extend(socket::look(scene, config.as_ref()));
    all.extend(found);
    all.extend(journal::look(scene));
    all.extend(machine::look(scene, config.as_ref()));
    all
}

/// The result of `daemon.doctor`.
#[must_use]
pub fn report(findings: &[Finding], platform: &str) -> String {
    let mut counts = Obj::new();
    for grade in Grade::ALL {
        let n = findings.iter().filter(|f| f.grade == grade).count();
        counts.u64(grade.name(), u64::try_from(n).unwrap_or(u64::MAX));
    }
    let list: Vec<String> = findings.iter().map(Finding::json).collect();
    let mut o = Obj::new();
    o.raw("findings", &format!("[{}]", list.join(","))).raw("counts", &counts.finish());
    o.raw("platform", if platform.is_empty() { "{}" } else { platform });
    o.finish()
}

/// What the command line knows of starts without a daemon.
#[must_use]
pub fn setup(paths: &Paths) -> Setup {
    Setup {
        config_dir: paths.config.parent().unwrap_or(&paths.home).to_owned(),
        socket: paths.socket.clone(),
        notify_dir: paths.run.join("notify"),
        etc: "/etc".into(),
        env: std::env::vars_os().collect(),
        ..Setup::default()
    }
}

impl Daemon {
    /// What the machine can do. The core is told when somebody first asks for it, and not when hob comes up, because
    /// that takes a child to be started.
    pub(super) fn tell_platform(&mut self) -> Arc<str> {
        if let Some(known) = &self.own.platform {
            return Arc::clone(known);
        }
        let facts = platform::platform(&self.children, self.own.flags, &self.paths, self.own.managed);
        let facts = Arc::<str>::from(facts);
        self.own.platform = Some(Arc::clone(&facts));
        self.inputs.push(Input::Platform { facts: Arc::clone(&facts) });
        facts
    }

    /// Looks in the pool; `own` is what the core found.
    pub(super) fn examine(&mut self, req: ReqId, own: Vec<Finding>) {
        let (paths, setup) = (Arc::clone(&self.paths), Arc::clone(self.children.setup()));
        let (given, platform) = (self.own.given, self.tell_platform());
        let no_cgroups = self.children.cgroups().err();
        let (managed, subreaper) = (self.own.managed, self.own.flags & FLAG_NO_SUBREAPER == 0);
        let others = Some(self.lets_others_in());
        self.gear.bulk("an examination", move || {
            let (paths, setup) = (&paths, &setup);
            let scene = Scene { paths, running: true, given, others, managed, setup, no_cgroups, subreaper };
            let mut findings = examine(&scene);
            let told = findings.iter().any(|f| f.area == CONFIG && f.grade == Grade::Error);
            findings.extend(own.into_iter().filter(|f| !told || f.area != CONFIG));
            Job::Examined { req, result: Ok(report(&findings, &platform)) }
        });
    }
}

/// A path as it can be pasted into a shell.
fn quoted(path: &std::path::Path) -> String {
    shell_word(&path.display().to_string())
}

/// The name of a user for people.
fn user_name(uid: u32) -> String {
    let known =
        sys::user::Accounts::read(std::path::Path::new("/etc")).and_then(|a| a.user(&uid.to_string(), Some("0")));
    known.ok().map(|u| u.name).filter(|n| !n.is_empty()).unwrap_or_else(|| format!("user {uid}"))
}

#[cfg(test)]
mod tests;
