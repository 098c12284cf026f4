//! The config: its mistakes, and what it names that this machine does not have.

use super::{Scene, quoted};
use crate::base::finding::{CONFIG as AREA, Finding, Grade};
use crate::base::text::{count, shell_word};
use crate::config::{Action, Check, Config, Ready, ServiceSpec, Settings, trouble};
use crate::daemon::child::{self, Setup};
use crate::daemon::lifecycle::read::read_config;
use crate::daemon::start::admission;
use crate::sys;
use serde_json::Value;
use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

pub(super) fn look(scene: &Scene<'_>) -> (Option<Config>, Vec<Finding>) {
    let path = &scene.paths.config;
    let shown = path.display();
    if let Err(e) = path.metadata()
        && e.kind() == std::io::ErrorKind::NotFound
    {
        let what = format!("{shown} is not there");
        let f = if scene.running {
            let f = Finding::new(Grade::Error, AREA, what).why("what it was goes on, and no reload can change it");
            f.todo("write it again, from what is in effect: hob call daemon.config")
        } else {
            let f = Finding::new(Grade::Note, AREA, what);
            f.why("there is nothing to run; the first start makes one with examples").todo("hob start")
        };
        return (None, vec![f]);
    }
    let mut all: Vec<Finding> = rights(scene).into_iter().collect();
    let config = match read_config(path) {
        Ok(config) => config,
        Err(text) => {
            all.push(mistakes(path, &text));
            return (None, all);
        }
    };
    let lacking = lacking(&config, scene.setup);
    if lacking.is_empty() {
        let n = config.services.len();
        let what = format!("{shown} has no mistakes; {n} {}", if n == 1 { "service" } else { "services" });
        all.push(Finding::new(Grade::Ok, AREA, what));
    }
    all.extend(lacking);
    (Some(config), all)
}

/// What a config without mistakes names that this machine does not have, or has once for several.
#[must_use]
pub fn lacking(config: &Config, setup: &Setup) -> Vec<Finding> {
    let (_, unknown) = admission(&config.daemon.access);
    let nobody = unknown.into_iter().map(|what| {
        let f = Finding::new(Grade::Warning, AREA, format!("daemon.access: {what}"));
        f.why("nobody gets in by that entry").todo("correct the name, then hob reload")
    });
    let services = config.services.iter().flat_map(|(name, spec)| service(setup, name, spec));
    nobody.chain(services).chain(programs(setup, config)).chain(groups(config)).chain(ports(config)).collect()
}

/// Agents, runners and others whose program is not there. Where a relative one is depends on the folder of the task.
fn programs(setup: &Setup, config: &Config) -> Vec<Finding> {
    let agents = config.agents.iter().map(|(name, agent)| (format!("agents.{name}"), &agent.command));
    let runners = config.runners.iter().map(|(name, runner)| (format!("runners.{name}"), &runner.prefix));
    let newest = config.daemon.update_command.iter().map(|words| ("daemon.update_command".to_owned(), words));
    let is_relative = |words: &[String]| words.first().is_none_or(|w| w.contains('/') && !w.starts_with('/'));
    let mut all = Vec::new();
    for (name, words) in agents.chain(runners).chain(newest).filter(|(_, words)| !is_relative(words)) {
        let spec = ServiceSpec { command: words.clone(), ..ServiceSpec::default() };
        if let Some(why) = child::unfit(setup, &name, &spec) {
            // What these have in place of a command is called otherwise.
            let (key, loss) = match name.split('.').next() {
                Some("runners") => ("prefix", "no task can start by it"),
                Some("daemon") => ("update_command", "nobody tells of a newer hob"),
                _ => ("command", "no task can start by it"),
            };
            let why = in_its_key(&why, key);
            all.push(Finding::new(Grade::Warning, AREA, format!("{name}: {why}")).why(loss));
        }
    }
    all
}

/// Why a program cannot be executed names the key of services; this has another.
fn in_its_key(why: &str, key: &str) -> String {
    why.replace("`command`", &format!("`{key}`")).replace("\"command\"", &format!("\"{key}\""))
}

/// Jobs whose task is for a group that the config does not have. A person may have made it, or may yet.
fn groups(config: &Config) -> Vec<Finding> {
    let mut all = Vec::new();
    for job in &config.schedule {
        let Some(Action::Task { spec, .. }) = &job.action else { continue };
        let spec: Value = serde_json::from_str(spec).unwrap_or_default();
        let tasks = spec.as_array().map_or_else(|| vec![&spec], |list| list.iter().collect());
        for group in tasks.into_iter().filter_map(|t| t["group"].as_str()) {
            if !config.groups.contains_key(group) && !["default", "agents"].contains(&group) {
                let what = format!("job {}: there is no group {group:?} in the config", job.id);
                let todo = format!("add it to groups, or: hob group set {} --parallel 1", shell_word(group));
                let f = Finding::new(Grade::Warning, AREA, what);
                all.push(f.why("unless somebody has made it, its runs fail").todo(todo));
            }
        }
    }
    all
}

/// One finding for all of them: `hob config check` lists them.
fn mistakes(path: &Path, text: &str) -> Finding {
    let n = text.lines().count();
    let what = match text.lines().next() {
        Some(first) if n > 1 => format!("{} has {}, the first: {first}", path.display(), count(n, "mistake")),
        first => first.unwrap_or_default().to_owned(),
    };
    let f = Finding::new(Grade::Error, AREA, what);
    f.why(format!("the file is not in effect while it {}", trouble(text))).todo("hob config check")
}

/// Whoever can write the config can run anything as hob's user.
fn rights(scene: &Scene<'_>) -> Option<Finding> {
    let path = &scene.paths.config;
    let meta = path.metadata().ok()?;
    let (own, mode) = (sys::user::own().0, meta.permissions().mode() & 0o777);
    let shown = path.display();
    let why = "whoever can change it can run anything as the user of hob";
    if meta.uid() != own && meta.uid() != 0 {
        let f = Finding::new(Grade::Error, AREA, format!("{shown} belongs to {}", super::user_name(meta.uid())));
        return Some(f.why(why).todo(format!("chown {own} {}", quoted(path))));
    }
    (mode & 0o022 != 0).then(|| {
        let (grade, who) = if mode & 0o002 != 0 { (Grade::Error, "others") } else { (Grade::Warning, "its group") };
        let f = Finding::new(grade, AREA, format!("{who} may write to {shown} (mode {mode:o})"));
        f.why(why).todo(format!("chmod go-w {}", quoted(path)))
    })
}

/// What a start of it would fail for.
fn service(setup: &Setup, name: &str, spec: &ServiceSpec) -> Vec<Finding> {
    let mut commands: Vec<(&str, Option<&Vec<String>>)> = vec![
        ("command", Some(&spec.command)),
        ("stop_command", spec.stop_command.as_ref()),
        ("reload_command", spec.reload_command.as_ref()),
    ];
    if let Some(Check::Command(words)) = spec.health.as_ref().map(|h| &h.check) {
        commands.push(("health.command", Some(words)));
    }
    if let Ready::Command(words) = &spec.ready {
        commands.push(("ready.command", Some(words)));
    }
    let commands = commands.into_iter().filter_map(|(key, words)| Some((key, words?)));
    let with = |(key, words): (_, &Vec<String>)| (key, ServiceSpec { command: words.clone(), ..spec.clone() });
    let mut all: Vec<Finding> = Vec::new();
    for (key, spec) in surroundings(spec).into_iter().map(|spec| ("command", spec)).chain(commands.map(with)) {
        let Some(why) = child::unfit(setup, name, &spec) else { continue };
        if all.iter().any(|f| f.what.ends_with(&why)) {
            // It is not the command that is wrong.
            continue;
        }
        let grade = if spec.autostart { Grade::Error } else { Grade::Warning };
        let what = if key == "command" { format!("{name}: {why}") } else { format!("{name}, {key}: {why}") };
        let f = Finding::new(grade, AREA, what);
        all.push(f.why(if key == "command" { "it cannot start" } else { "that part of it cannot work" }));
    }
    let strange = spec.user.is_some() && sys::user::own().0 != 0;
    if strange && !all.iter().any(|f| f.what.contains("user")) {
        let f = Finding::new(Grade::Error, AREA, format!("{name}: `user` needs a hob that runs as root"));
        all.push(f.why("it cannot start").todo("remove `user`, or run hob as root"));
    }
    all
}

/// The service with one of what its command finds around it at a time, and a command that is there, so that each is
/// found that is not.
fn surroundings(spec: &ServiceSpec) -> Vec<ServiceSpec> {
    let Some(own) = std::env::current_exe().ok().and_then(|exe| exe.into_os_string().into_string().ok()) else {
        return Vec::new();
    };
    let bare = ServiceSpec { command: vec![own], cwd: None, ..spec.clone() };
    let with = |keep: fn(&mut Settings, &ServiceSpec)| {
        bare.clone().with(|s| {
            (s.user, s.group, s.env_file) = (None, None, None);
            keep(s, spec);
        })
    };
    vec![
        with(|s, spec| s.user.clone_from(&spec.user)),
        with(|s, spec| s.group.clone_from(&spec.group)),
        with(|s, spec| s.env_file.clone_from(&spec.env_file)),
        ServiceSpec { cwd: spec.cwd.clone(), ..with(|_, _| {}) },
    ]
}

/// A port has room for one service.
fn ports(config: &Config) -> Vec<Finding> {
    let mut by_port: BTreeMap<u16, Vec<&str>> = BTreeMap::new();
    for (name, spec) in &config.services {
        if let Ready::Port(port) = spec.ready {
            by_port.entry(port).or_default().push(name);
        }
    }
    let shared = by_port.into_iter().filter(|(_, names)| names.len() > 1);
    let one = |(port, names): (u16, Vec<&str>)| {
        let f = Finding::new(Grade::Warning, AREA, format!("port {port} is that of {}", names.join(" and ")));
        f.why("only one of them gets it, and the others count as ready by it")
            .todo("give each a port of its own in `ready`")
    };
    shared.map(one).collect()
}
