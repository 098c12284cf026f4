//! From a service's spec to a plan that can be cloned: environment, folder, program, limits, ids. Reads files
//! (env_file, passwd, the program's metadata), so it runs in the pool's spawn lane, never in the loop.

use super::envfile;
use crate::base::gather::Gather as _;
use crate::base::ids::RunId;
use crate::base::map::Map;
use crate::base::time::Mono;
use crate::config::{IoClass, IoNice, ServiceSpec, instance};
use crate::core::{StartError, task};
use crate::sys::reason;
use crate::sys::spawn::{IoPriority, Plan, SpawnError};
use crate::sys::user::{Accounts, User};
use crate::sys::{clock, rlimit, spawn, tree, user};
use std::ffi::{CString, OsString};
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// What all starts of this hob have in common.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// Tells the runs of this hob from those of another; see `home_id`.
    pub home: u32,
    pub keeper: u32,
    pub daemon: u32,
    /// The folder of the config file: relative paths in it start here.
    pub config_dir: PathBuf,
    /// The control socket, told to jobs as HOB_SOCKET.
    pub socket: PathBuf,
    /// `run/notify`.
    pub notify_dir: PathBuf,
    /// Where passwd and group are: /etc.
    pub etc: PathBuf,
    /// The environment the keeper was started with. What is meant for hob alone is taken out by the plan.
    pub env: Vec<(OsString, OsString)>,
    /// Soft and hard RLIMIT_NOFILE before hob raised its own.
    pub nofile: Option<(u64, u64)>,
    /// How many descriptors hob itself may have open.
    pub descriptors: u64,
    /// The umask hob was started with.
    pub umask: Option<u32>,
    /// The niceness hob was started with, where hob changed its own.
    pub nice: Option<i32>,
    /// The oom_score_adj hob was started with, where hob changed its own.
    pub oom_score_adj: Option<i32>,
    /// HOB_CGROUP=off: find the processes of a run by sweeps alone.
    pub cgroup_off: bool,
}

/// The 32 bits that stand for a home in HOB_RUN and in the name of its control group.
#[must_use]
pub fn home_id(home: &Path) -> u32 {
    crc32fast::hash(home.as_os_str().as_bytes())
}

/// What a plan is made for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask<'a> {
    pub(super) run: RunId,
    pub(super) service: &'a str,
    pub(super) spec: &'a ServiceSpec,
    /// The value of NOTIFY_SOCKET.
    pub(super) notify: Option<&'a str>,
    /// Mark the run in a resource limit, because no control group will hold it.
    pub(super) marked: bool,
    /// Learns which files are looked at.
    pub(super) place: &'a Place,
}

/// The file that a start is at, and since when: it may be on a mount that does not answer.
#[derive(Debug, Default)]
pub(super) struct Place(Mutex<Option<(Mono, PathBuf)>>);

impl Place {
    pub(super) fn at(&self, path: &Path) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((clock::now().mono, path.to_owned()));
    }

    pub(super) fn get(&self) -> Option<(Mono, PathBuf)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

type Environment = Map<OsString, OsString>;

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Variables that an outer service manager meant for hob and that would mislead a job.
const MEANT_FOR_HOB: [&str; 7] =
    ["NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES"];

/// Whether everybody may know this variable of hob's; any other may hold a secret.
fn is_public(name: &[u8]) -> bool {
    matches!(name, b"PATH" | b"LANG" | b"LANGUAGE" | b"TZ" | b"TERM") || name.starts_with(b"LC_")
}

/// Makes the plan, without descriptors and control group. Every path in it is absolute or relative to its own `cwd`.
pub(super) fn make(setup: &Setup, ask: Ask<'_>) -> Result<Plan, StartError> {
    let spec = ask.spec;
    let who = identity(setup, spec)?;
    let env = environment(setup, ask, who.as_ref())?;
    let cwd = folder(setup, ask, who.as_ref())?;
    let programs = programs(ask, &env, &cwd)?;
    let change = who.as_ref().filter(|u| {
        let own = user::own();
        (u.uid, u.gid) != own || own.0 == 0
    });
    Ok(Plan {
        programs,
        argv: spec.command.iter().map(|a| text(a.as_bytes(), "`command`")).collect::<Result<_, _>>()?,
        envp: env.iter().map(|(k, v)| assignment(k, v)).collect::<Result<_, _>>()?,
        pid_variables: pid_variables(spec),
        session: true,
        cwd: Some(text(cwd.as_os_str().as_bytes(), "`cwd`")?),
        umask: spec.umask.or(setup.umask),
        nice: spec.nice.or(setup.nice),
        rlimits: limits(setup, ask)?,
        uid: change.map(|u| u.uid),
        gid: change.map(|u| u.gid),
        groups: change.map(|u| u.groups.clone()),
        io_priority: spec.limits.ionice.map(io_priority),
        cpus: spec.limits.cpus.iter().flat_map(|c| &c.0).flat_map(|(a, b)| usize::from(*a)..=usize::from(*b)).collect(),
        oom_score_adj: spec.limits.oom_score.or(setup.oom_score_adj),
        ..Plan::default()
    })
}

/// Variables that are to hold the pid of the child.
fn pid_variables(spec: &ServiceSpec) -> Vec<CString> {
    let watchdog = spec.watchdog.map(|_| c"WATCHDOG_PID");
    let sockets = (!spec.listen.is_empty()).then_some(c"LISTEN_PID");
    watchdog.into_iter().chain(sockets).map(ToOwned::to_owned).collect()
}

fn io_priority(io: IoNice) -> IoPriority {
    match io.class {
        IoClass::Realtime => IoPriority::Realtime(io.level),
        IoClass::BestEffort => IoPriority::BestEffort(io.level),
        IoClass::Idle => IoPriority::Idle,
    }
}

fn refuse<T>(message: impl Into<String>) -> Result<T, StartError> {
    Err(StartError { message: message.into(), transient: false })
}

fn text(bytes: &[u8], what: &str) -> Result<CString, StartError> {
    CString::new(bytes).or_else(|_| refuse(format!("{what} contains a zero byte")))
}

fn assignment(key: &OsString, value: &OsString) -> Result<CString, StartError> {
    text(&[key.as_bytes(), b"=", value.as_bytes()].concat(), "`env`")
}

/// Whom the job is to run as; `None`: as hob.
pub(super) fn identity(setup: &Setup, spec: &ServiceSpec) -> Result<Option<User>, StartError> {
    if spec.user.is_none() && spec.group.is_none() {
        return Ok(None);
    }
    let own = user::own();
    let accounts = Accounts::read(&setup.etc).or_else(refuse)?;
    let name = spec.user.clone().unwrap_or_else(|| own.0.to_string());
    let found = accounts.user(&name, spec.group.as_deref()).or_else(refuse)?;
    if own.0 != 0 && (found.uid, found.gid) != own {
        let wanted = if spec.user.is_some() { format!("user '{name}'") } else { format!("group {}", found.gid) };
        return refuse(format!(
            "cannot run as {wanted}: hob itself runs as uid {}; run hob as root, or remove `user` and `group`",
            own.0
        ));
    }
    Ok(Some(found))
}

fn environment(setup: &Setup, ask: Ask<'_>, who: Option<&User>) -> Result<Environment, StartError> {
    let inherited = |k: &OsString| {
        let name = k.as_bytes();
        let meant_for_jobs = !name.starts_with(b"HOB_") && !MEANT_FOR_HOB.iter().any(|m| m.as_bytes() == name);
        meant_for_jobs && (!ask.spec.clean_env || is_public(name))
    };
    let mut env: Environment = setup.env.iter().filter(|(k, _)| inherited(k)).cloned().gather();
    // Those of the user replace what hob inherited, and what the config says replaces those.
    if let (Some(who), Some(_)) = (who, &ask.spec.user) {
        let known = [("HOME", &who.home), ("SHELL", &who.shell), ("USER", &who.name), ("LOGNAME", &who.name)];
        for (key, value) in known {
            if value.is_empty() {
                env.remove(OsString::from(key).as_os_str());
            } else {
                env.insert(key.into(), value.into());
            }
        }
    }
    if let Some(file) = &ask.spec.env_file {
        let file = setup.config_dir.join(file);
        ask.place.at(&file);
        let pairs = env_file(&file)?;
        env.extend(pairs.into_iter().map(|(k, v)| (k.into(), v.into())));
    }
    env.extend(ask.spec.env.iter().map(|(k, v)| (k.into(), v.into())));
    env.insert("HOB_SOCKET".into(), setup.socket.clone().into_os_string());
    env.insert("HOB_RUN".into(), tree::run_variable(setup.home, ask.run).into());
    for (name, source) in &ask.spec.env_from {
        if ask.spec.clean_env {
            return refuse(format!(
                "`{name}_env` names a secret of hob's own user, which a task of another user may not see; an admin may \
                 submit it"
            ));
        }
        let found = setup.env.iter().find(|(k, _)| k.as_bytes() == source.as_bytes());
        let Some((_, value)) = found else {
            return refuse(format!(
                "the variable {source}, which `{name}_env` names, is not set where hob was started; set it there"
            ));
        };
        env.insert(name.into(), value.clone());
    }
    match task::of_name(ask.service) {
        Some(id) => {
            env.insert("HOB_TASK_ID".into(), id.to_string().into());
        }
        // A command that is beside no service has none.
        None if ask.service.is_empty() => {}
        None => {
            env.insert("HOB_SERVICE".into(), ask.service.into());
        }
    }
    if let Some((_, instance)) = instance(ask.service) {
        env.insert("HOB_INSTANCE".into(), instance.into());
    }
    if let Some(watchdog) = ask.spec.watchdog {
        env.insert("WATCHDOG_USEC".into(), watchdog.as_micros().to_string().into());
        env.remove(OsString::from("WATCHDOG_PID").as_os_str());
    }
    if !ask.spec.listen.is_empty() {
        let names: Vec<&str> = ask.spec.listen.iter().map(|l| l.name.as_deref().unwrap_or(ask.service)).collect();
        env.insert("LISTEN_FDS".into(), names.len().to_string().into());
        env.insert("LISTEN_FDNAMES".into(), names.join(":").into());
        env.remove(OsString::from("LISTEN_PID").as_os_str());
    }
    if let Some(address) = ask.notify {
        env.insert("NOTIFY_SOCKET".into(), address.into());
    }
    Ok(env)
}

fn env_file(path: &Path) -> Result<Vec<(String, String)>, StartError> {
    let shown = path.display();
    let bytes = match crate::sys::file::read_whole(path, envfile::MAX) {
        Ok(bytes) => bytes,
        Err(e) => return refuse(format!("cannot read the env_file {shown}: {}; check `env_file`", reason(&e))),
    };
    let text = String::from_utf8(bytes).or_else(|e| {
        let before = e.as_bytes().get(..e.utf8_error().valid_up_to()).unwrap_or_default();
        let line = before.iter().filter(|b| **b == b'\n').count() + 1;
        refuse(format!("{shown}:{line}: this line is not UTF-8"))
    })?;
    envfile::parse(&text).or_else(|wrong| refuse(format!("{shown}:{}: {}", wrong.line, wrong.what)))
}

fn folder(setup: &Setup, ask: Ask<'_>, who: Option<&User>) -> Result<PathBuf, StartError> {
    let spec = ask.spec;
    let Some(cwd) = &spec.cwd else {
        // A user's home that does not exist is normal for users made for services.
        let home = who.filter(|_| spec.user.is_some()).map(|u| PathBuf::from(&u.home));
        return Ok(home.filter(|h| h.is_absolute() && h.is_dir()).unwrap_or_else(|| PathBuf::from("/")));
    };
    let path = setup.config_dir.join(cwd);
    ask.place.at(&path);
    match std::fs::metadata(&path) {
        Ok(m) if m.is_dir() => Ok(path),
        Ok(_) => refuse(format!("cannot enter {}: it is not a folder; check `cwd`", path.display())),
        Err(e) => refuse(format!("cannot enter {}: {}; check `cwd`", path.display(), reason(&e))),
    }
}

fn limits(setup: &Setup, ask: Ask<'_>) -> Result<Vec<(i32, u64, u64)>, StartError> {
    let mut all: Map<i32, (u64, u64)> = Map::new();
    if let (Some(number), Some(before)) = (rlimit::number("nofile"), setup.nofile) {
        all.insert(number, before);
    }
    if ask.marked
        && let Some((number, value)) = tree::tag(setup.home, ask.run)
    {
        all.insert(number, (value, value));
    }
    for limit in &ask.spec.limits.rlimits {
        let Some(number) = rlimit::number(limit.name) else {
            return refuse(format!("this system has no limit '{}'; remove it from `rlimits`", limit.name));
        };
        let value = |v: Option<u64>| v.unwrap_or(rlimit::UNLIMITED);
        all.insert(number, (value(limit.soft), value(limit.hard)));
    }
    Ok(all.into_iter().map(|(number, (soft, hard))| (number, soft, hard)).collect())
}

/// The paths to execute, in order. One that was given as a path is not looked at before it has failed (see
/// `refused`); of the folders of PATH those before the first program are left out.
fn programs(ask: Ask<'_>, env: &Environment, cwd: &Path) -> Result<Vec<CString>, StartError> {
    let Some(name) = ask.spec.command.first().filter(|n| !n.is_empty()) else {
        return refuse("cannot execute anything: `command` is empty");
    };
    let path = env.get(OsString::from("PATH").as_os_str()).map_or(DEFAULT_PATH.as_bytes(), |p| p.as_bytes());
    let mut candidates = spawn::candidates(&text(name.as_bytes(), "`command`")?, path);
    if name.contains('/') {
        return Ok(candidates);
    }
    let mut refused = None;
    for (at, candidate) in candidates.iter().enumerate() {
        let file = place(cwd, candidate);
        ask.place.at(&file);
        match unusable(&file) {
            Ok(None) => return Ok(candidates.split_off(at)),
            // A file that is there and cannot be executed tells more than the absence of others.
            Ok(Some(why)) => refused = refused.or(Some((file, why))),
            Err(_) => {}
        }
    }
    match refused {
        Some((file, why)) => refuse(format!("cannot execute {}: {why}", file.display())),
        None => refuse(format!(
            "cannot execute {name}: not found in PATH; give its full path in \"command\", or set PATH in \"env\""
        )),
    }
}

fn place(cwd: &Path, program: &CString) -> PathBuf {
    cwd.join(text_of(program))
}

fn text_of(program: &CString) -> PathBuf {
    OsString::from_vec(program.to_bytes().to_vec()).into()
}

fn folder_of(plan: &Plan) -> PathBuf {
    plan.cwd.as_ref().map_or_else(PathBuf::new, text_of)
}

/// The first program that is tried.
pub(super) fn program(plan: &Plan) -> Option<PathBuf> {
    Some(place(&folder_of(plan), plan.programs.first()?))
}

/// Why a plan could not be executed, where a look at its program shows it.
pub(super) fn refused(plan: &Plan) -> Option<StartError> {
    let (cwd, file) = (folder_of(plan), program(plan)?);
    let message = match unusable(&file) {
        Ok(None) => return None,
        Ok(Some(why)) => format!("cannot execute {}: {why}", file.display()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let (program, cwd) = (text_of(plan.programs.first()?), cwd.display());
            if program.is_relative() {
                let program = program.display();
                format!(
                    "cannot execute {program} in {cwd}: No such file or directory; check \"command\", or set \"cwd\""
                )
            } else {
                format!("cannot execute {}: No such file or directory; check `command`", file.display())
            }
        }
        Err(_) => return None,
    };
    Some(StartError { message, transient: false })
}

/// Why a command of a service could not be started now, as far as a look tells.
#[must_use]
pub fn unfit(setup: &Setup, service: &str, spec: &ServiceSpec) -> Option<String> {
    let ask = Ask { run: RunId(0), service, spec, notify: None, marked: false, place: &Place::default() };
    match make(setup, ask) {
        Ok(plan) => refused(&plan).map(|e| e.message),
        Err(e) => Some(e.message),
    }
}

/// Why a file that exists is no program.
fn unusable(file: &Path) -> std::io::Result<Option<String>> {
    let meta = std::fs::metadata(file)?;
    if meta.is_dir() {
        return Ok(Some("it is a folder; check `command`".to_owned()));
    }
    let executable = meta.permissions().mode() & 0o111 != 0;
    Ok((!executable).then(|| format!("Permission denied; it is not executable: chmod +x {}", file.display())))
}

/// Whether a start may have failed for its control group.
pub(super) fn of_cgroup(e: &SpawnError) -> bool {
    matches!(e.step, "create a process" | "join its control group")
}

/// Why a start failed in the kernel, with what to do about it where the cause can be seen.
pub(super) fn explain(e: &SpawnError, spec: Option<&ServiceSpec>) -> StartError {
    let mut message = e.to_string();
    let kind = std::io::Error::from_raw_os_error(e.errno).kind();
    let missing = kind == std::io::ErrorKind::NotFound;
    let denied = kind == std::io::ErrorKind::PermissionDenied;
    let interpreter = e.path.as_deref().filter(|_| e.step == "execute").and_then(|p| interpreter(Path::new(p)));
    match (e.step, interpreter) {
        ("execute", Some(i)) if missing && i.ends_with('\r') => {
            message = format!("{message}; the first line of the file ends as on Windows: save it with Unix line ends");
        }
        ("execute", Some(i)) if missing => {
            message = format!("{message}; the file exists, but its interpreter {i} does not");
        }
        ("execute", None) if message.ends_with("Exec format error") => {
            message.push_str("; a script needs a first line such as #!/bin/sh");
        }
        ("execute", _) if kind == std::io::ErrorKind::ArgumentListTooLong => {
            message.push_str("; hand long texts over by standard input or a file, an agent's by its `prompt`");
        }
        ("set the resource limit", _) => message.push_str(&beyond(e, denied, spec)),
        ("set the oom score", _) if denied => {
            message.push_str("; an `oom_score` below that of hob takes CAP_SYS_RESOURCE");
            message.push_str(UNLESS_TAKEN);
        }
        ("set the priority of its input and output", _) => {
            message.push_str("; check `ionice`: only root may use \"realtime\"");
        }
        ("set its processors", _) => message.push_str("; check `cpus`: this machine may lack them"),
        ("set the niceness", _) => message.push_str("; only root may set a lower `nice`"),
        ("enter the folder" | "execute", _) if denied && spec.is_some_and(|s| s.user.is_some()) => {
            message.push_str("; `user` lacks the permission for it");
        }
        _ => {}
    }
    StartError { message, transient: e.is_transient() }
}

/// What every right of root's may have been.
const UNLESS_TAKEN: &str = " (root has it unless it was taken away)";

/// What stands in the way of a resource limit.
fn beyond(e: &SpawnError, denied: bool, spec: Option<&ServiceSpec>) -> String {
    let nofile =
        spec.and_then(|s| s.limits.rlimits.iter().find(|l| e.path.as_deref() == Some("nofile") && l.name == "nofile"));
    let asked = nofile.map_or(0, |l| l.hard.unwrap_or(rlimit::UNLIMITED));
    match rlimit::open_files_max() {
        Some(most) if asked > most => format!(
            "; fs.nr_open of this system allows {most}: lower it in `rlimits`, or raise that with \
             `sysctl fs.nr_open=NUMBER`"
        ),
        _ if denied => format!("; check `rlimits`: raising a hard limit takes CAP_SYS_RESOURCE{UNLESS_TAKEN}"),
        _ => "; check `rlimits`".to_owned(),
    }
}

/// The interpreter in the first line of a script.
fn interpreter(file: &Path) -> Option<String> {
    let mut head = [0u8; 256];
    let length = crate::sys::file::open_regular(file).ok()?.read(&mut head).ok()?;
    let line = head.get(..length)?.strip_prefix(b"#!")?.split(|b| *b == b'\n').next()?;
    String::from_utf8_lossy(line).split([' ', '\t']).find(|w| !w.is_empty()).map(str::to_owned)
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
