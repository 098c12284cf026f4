//! What a reload has to do about a service whose spec changed. Touches nothing.

use super::keys::SERVICE;
use super::spec::ServiceSpec;

/// The difference between two specs of one service; the keys are those of the config, in the order of its table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Same,
    /// Takes effect at once, on the running service.
    Live(Vec<&'static str>),
    /// Takes effect with the next start. The keys named are all that changed, live ones included.
    Restart(Vec<&'static str>),
}

/// Compares two specs of one service by the table of keys.
#[must_use]
pub fn changes(old: &ServiceSpec, new: &ServiceSpec) -> Change {
    if old == new {
        return Change::Same;
    }
    let changed = SERVICE.iter().filter(|key| key.field.json(old) != key.field.json(new));
    let live = changed.clone().all(|key| key.live);
    let names = changed.map(|key| key.name).collect();
    if live { Change::Live(names) } else { Change::Restart(names) }
}
