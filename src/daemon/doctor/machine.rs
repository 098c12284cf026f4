//! The machine: limits, what the kernel can do, the clock, and what no program of the same user can be kept from.

use super::Scene;
use crate::base::finding::{Finding, Grade};
use crate::config::Config;
use crate::sys;
use crate::sys::features::{self, Found};
use std::time::{Duration, SystemTime};

const LIMITS: &str = "limits";
const KERNEL: &str = "kernel";
const CLOCK: &str = "clock";

/// Descriptors that hob needs for itself, and for each service: pipe, socket, process, log file, control group.
const FDS_OWN: u64 = 256;
const FDS_PER_SERVICE: u64 = 8;
/// Pages of an ordinary pipe.
const PIPE_PAGES: u64 = 16;
const INOTIFY_FEW: u64 = 16_384;
/// Midnight of the first of January 2024 in seconds: no clock that is right shows less.
const BUILT: u64 = 1_704_067_200;
/// Files may be so much younger than now, where their clock is another machine's.
const AHEAD: Duration = Duration::from_secs(3600);

pub(super) fn look(scene: &Scene<'_>, config: Option<&Config>) -> Vec<Finding> {
    let services = u64::try_from(config.map_or(0, |c| c.services.len())).unwrap_or(u64::MAX);
    let mut all = limits(services);
    all.extend(config.and_then(cores));
    all.extend(kernel(scene));
    all.extend(clock(scene));
    all.extend(guard_rail(config));
    all
}

fn number(name: &str) -> Option<u64> {
    features::setting(name)?.split_whitespace().next()?.parse().ok()
}

fn limits(services: u64) -> Vec<Finding> {
    let mut all = Vec::new();
    let need = FDS_OWN + FDS_PER_SERVICE * services;
    // hob raises the soft limit to the hard one when it starts.
    if let Ok((_, hard)) = sys::spawn::own::nofile() {
        if hard < need {
            let f = Finding::new(
                Grade::Error,
                LIMITS,
                format!("{hard} descriptors may be open, and {services} services need some {need}"),
            );
            all.push(
                f.why("starts are put off when they run out")
                    .todo(format!("ulimit -Hn {need}; under systemd: LimitNOFILE={need}")),
            );
        } else {
            all.push(Finding::new(
                Grade::Ok,
                LIMITS,
                format!("{hard} descriptors may be open, some {need} are needed"),
            ));
        }
    }
    if let Some(pages) = number("fs/pipe-user-pages-soft").filter(|n| *n > 0 && sys::user::own().0 != 0)
        && pages < 2 * PIPE_PAGES * services
    {
        let f = Finding::new(
            Grade::Warning,
            LIMITS,
            format!("the pipes of a user may hold {pages} pages, and {services} services use more"),
        );
        let todo = format!("sysctl -w fs.pipe-user-pages-soft={}", 4 * PIPE_PAGES * services);
        all.push(f.why("further pipes get a single page, so that services wait for hob more often").todo(todo));
    }
    if let Some(max) = number("kernel/pid_max").filter(|n| *n < 4 * services + 1024) {
        let f = Finding::new(Grade::Warning, LIMITS, format!("there can be {max} processes, for {services} services"));
        all.push(f.why("starts fail when there are no numbers left").todo("sysctl -w kernel.pid_max=4194304"));
    }
    for (name, least) in [("fs/inotify/max_user_watches", INOTIFY_FEW), ("fs/inotify/max_user_instances", 64)] {
        if let Some(max) = number(name).filter(|n| *n < least) {
            let key = name.replace('/', ".");
            let f = Finding::new(Grade::Note, LIMITS, format!("{key} is {max}"));
            let todo = format!("sysctl -w {key}={}", 8 * least);
            all.push(f.why("programs that watch many files run out of it").todo(todo));
        }
    }
    all
}

/// Where cores go matters to who has asked for them.
fn cores(config: &Config) -> Option<Finding> {
    let wanted =
        |s: &crate::config::ServiceSpec| s.limits.rlimits.iter().any(|l| l.name == "core" && l.soft != Some(0));
    let name = config.services.iter().find(|(_, s)| wanted(s)).map(|(name, _)| name)?;
    let pattern = features::setting("kernel/core_pattern")?;
    let f = Finding::new(Grade::Note, LIMITS, format!("{name} may leave a core, which goes to {pattern:?}"));
    Some(match pattern.strip_prefix('|') {
        Some(_) => f.why("a program of the system gets it; nothing is written to `cwd`").todo("coredumpctl list"),
        None => f.why("a name without folder means the `cwd` of the service"),
    })
}

/// What is missing where no process can be looked at.
pub(in crate::daemon) const NO_PROC: &str =
    "what a service leaves running is not found, nor the memory and CPU of any; mount /proc";

/// What hob does where the kernel lacks something.
fn without(name: &str) -> (Grade, &'static str) {
    match name {
        "pidfd" => (Grade::Error, "signals and ends of processes cannot be told apart safely"),
        "memfd_seals" => (Grade::Error, "nothing survives a daemon"),
        "procfs" => (Grade::Warning, NO_PROC),
        "subreaper" => (Grade::Warning, "jobs end with the daemon that started them"),
        "clone3" => (Grade::Note, "starts take a little longer; a container's filter may forbid it"),
        "close_range" => (Grade::Note, "descriptors are closed one by one"),
        "cgroup2" => (Grade::Note, "the processes of a service are found by sweeps, which a program can hide from"),
        "psi" => (Grade::Note, "pressure on the machine cannot be seen"),
        "landlock" => (Grade::Note, "no service can be kept to some folders"),
        _ => (Grade::Note, "hob goes another way"),
    }
}

fn kernel(scene: &Scene<'_>) -> Vec<Finding> {
    let (name, release) = features::kernel();
    let mut all = Vec::new();
    let mut parts = release.split(['.', '-']).map(|n| n.parse::<u32>().unwrap_or(0));
    let version = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    if name == "Linux" && version < (5, 10) {
        let f = Finding::new(Grade::Error, KERNEL, format!("this is {name} {release}, and hob needs 5.10 or newer"));
        all.push(f.why("hob may not work at all"));
    }
    let (missing, found): (Vec<_>, Vec<_>) = features::all().into_iter().partition(|f| f.found == Found::No);
    for f in &missing {
        let (grade, why) = without(f.name);
        all.push(Finding::new(grade, KERNEL, format!("it has no {}", f.name)).why(why));
    }
    if let Some(why) = scene.no_cgroups.as_ref().filter(|_| missing.iter().all(|f| f.name != "cgroup2")) {
        let f = Finding::new(Grade::Note, KERNEL, format!("control groups are not used: {why}"));
        let todo = "under systemd: Delegate=yes in the unit; otherwise start hob in a group of its own";
        all.push(f.why("the processes of a service are found by sweeps, which a program can hide from").todo(todo));
    }
    if !scene.subreaper && missing.iter().all(|f| f.name != "subreaper") {
        let f = Finding::new(Grade::Warning, KERNEL, "orphans do not fall to hob");
        all.push(f.why("jobs end with the daemon that started them"));
    }
    let names: Vec<String> = found
        .iter()
        .map(|f| match f.found {
            Found::Version(n) => format!("{} {n}", f.name),
            Found::Yes | Found::No => f.name.to_owned(),
        })
        .collect();
    all.push(Finding::new(Grade::Ok, KERNEL, format!("{name} {release} with {}", names.join(", "))));
    all
}

fn clock(scene: &Scene<'_>) -> Vec<Finding> {
    let mut all = Vec::new();
    if sys::identity::boot_id().is_empty() {
        let f = Finding::new(Grade::Warning, CLOCK, "the system does not name its boot");
        all.push(f.why("after a reboot a lock file may seem to be of a process that lives"));
    }
    let now = SystemTime::now();
    if now < SystemTime::UNIX_EPOCH + Duration::from_secs(BUILT) {
        let f = Finding::new(Grade::Warning, CLOCK, "the clock has not been set");
        all.push(
            f.why("times in logs and events are wrong, and jump once it is")
                .todo("date -s, or wait for the network's time"),
        );
    }
    let p = scene.paths;
    let ahead = [&p.state_json, &p.log, &p.lock]
        .into_iter()
        .find(|path| path.metadata().and_then(|m| m.modified()).is_ok_and(|at| at > now + AHEAD));
    if let Some(path) = ahead {
        let f = Finding::new(Grade::Warning, CLOCK, format!("{} was written in the future", path.display()));
        all.push(f.why("the clock went back, or was wrong: `--since` may miss lines").todo("date"));
    }
    if all.is_empty() {
        all.push(Finding::new(Grade::Ok, CLOCK, "the clock and the boot are known"));
    }
    all
}

/// Levels of access hold back mistakes, and not a program that means harm.
fn guard_rail(config: Option<&Config>) -> Option<Finding> {
    let own = sys::user::own().0;
    let same = |s: &crate::config::ServiceSpec| s.user.is_none();
    let n = config?.services.values().filter(|s| same(s)).count();
    if n == 0 {
        return None;
    }
    let who = if own == 0 { "root, as hob does".to_owned() } else { "the user of hob".to_owned() };
    let f = Finding::new(
        Grade::Note,
        "access",
        format!("{n} {} as {who}", if n == 1 { "service runs" } else { "services run" }),
    );
    let why = "the levels of access are a guard rail for them and no wall: a hostile program of the same user can end \
               hob, and change its files";
    Some(f.why(why).todo("give what you do not trust a `user` of its own"))
}
