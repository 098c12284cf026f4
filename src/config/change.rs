//! What differs between two specs, by the keys of the config, in the order of its table. Touches nothing.

use super::error::quote;
use super::keys::{DAEMON, Field, Key, SERVICE};
use super::spec::{DaemonSpec, ServiceSpec};
use std::collections::BTreeMap;

/// One key whose value differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// `command`, `env.PORT`, `log.max_size`.
    pub path: String,
    /// Whether it reaches a running service without a restart.
    pub live: bool,
}

/// Compares two specs of one service.
#[must_use]
pub fn changed(old: &ServiceSpec, new: &ServiceSpec) -> Vec<Changed> {
    let mut all = Vec::new();
    if old != new {
        compare("", SERVICE, old, new, &mut all);
    }
    all
}

/// Compares two specs of the daemon.
#[must_use]
pub fn changed_daemon(old: &DaemonSpec, new: &DaemonSpec) -> Vec<Changed> {
    let mut all = Vec::new();
    if old != new {
        compare("daemon.", DAEMON, old, new, &mut all);
    }
    all
}

fn compare<S>(prefix: &str, keys: &'static [Key<S>], old: &S, new: &S, all: &mut Vec<Changed>) {
    for key in keys {
        let path = format!("{prefix}{}", key.name);
        match &key.field {
            Field::Group(inner) => compare(&format!("{path}."), inner, old, new, all),
            Field::Env(at) => {
                let names = differing((at.get)(old), (at.get)(new));
                all.extend(names.into_iter().map(|name| Changed { path: format!("{path}.{name}"), live: key.live }));
            }
            field if field.json(old) != field.json(new) => all.push(Changed { path, live: key.live }),
            _ => {}
        }
    }
}

/// Names whose values differ; one that is not a plain word stands in quotes.
fn differing(old: &BTreeMap<String, String>, new: &BTreeMap<String, String>) -> Vec<String> {
    let plain = |name: &str| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let mut names: Vec<&String> =
        old.keys().chain(new.keys()).filter(|name| old.get(*name) != new.get(*name)).collect();
    names.sort_unstable();
    names.dedup();
    names.into_iter().map(|name| if plain(name) { name.clone() } else { quote(name) }).collect()
}
