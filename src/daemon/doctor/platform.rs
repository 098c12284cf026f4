//! What `daemon.status` and an examination tell of the machine: the same facts, gathered in one place. Asks the kernel.

use crate::base::control::{FLAG_INIT, FLAG_NO_SUBREAPER};
use crate::base::gather::Gather as _;
use crate::base::paths::Paths;
use crate::daemon::child;
use crate::sys::features::{self, Found};
use crate::sys::tree;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// As a JSON object, of a daemon; `flags` of the keeper's first message.
pub(in crate::daemon) fn platform(children: &child::Children, flags: u32, paths: &Paths, managed: bool) -> String {
    let groups = children.cgroups().map(Path::to_owned);
    let mut facts = facts(paths, &groups);
    let own = [("pid_1", flags & FLAG_INIT != 0), ("subreaper", flags & FLAG_NO_SUBREAPER == 0), ("managed", managed)];
    facts.extend(own.map(|(name, is)| (name.to_owned(), is.into())));
    Value::Object(facts).to_string()
}

/// The same, as far as it can be told where none runs.
#[must_use]
pub fn offline(paths: &Paths, groups: &Result<PathBuf, String>) -> String {
    Value::Object(facts(paths, groups)).to_string()
}

fn facts(paths: &Paths, groups: &Result<PathBuf, String>) -> Map<String, Value> {
    let (kernel, release) = features::kernel();
    let found = features::all().into_iter().map(|f| {
        let value = match f.found {
            Found::No => Value::Bool(false),
            Found::Yes => Value::Bool(true),
            Found::Version(n) => n.into(),
        };
        (f.name.to_owned(), value)
    });
    let facts = json!({
        "os": std::env::consts::OS,
        "arch": std::env::consts::ARCH,
        "init": init(),
        "cgroup": groups.as_ref().map_or_else(String::clone, |p| p.display().to_string()),
        "cgroup_used": groups.is_ok(),
        "kernel": { "name": kernel, "release": release, "features": found.gather::<Map<_, _>>() },
        "home": paths.home,
        "config": paths.config,
        "socket": paths.socket,
        "logs": paths.logs,
    });
    match facts {
        Value::Object(facts) => facts,
        other => [("facts".to_owned(), other)].into_iter().gather(),
    }
}

/// What the first process of this machine or container is.
fn init() -> String {
    let name = tree::name_of(1).unwrap_or_else(|| "unknown".to_owned());
    match name.as_str() {
        "systemd" | "runit" | "dinit" | "launchd" => name,
        "s6-svscan" => "s6".to_owned(),
        "openrc-init" => "openrc".to_owned(),
        "init" if Path::new("/run/openrc").exists() => "openrc".to_owned(),
        _ if name.starts_with("hob") => "hob".to_owned(),
        _ => name,
    }
}
