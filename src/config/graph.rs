//! Dependencies between services: whether each exists, and that none waits for itself. Touches nothing.

use super::error::{Pos, Report, quote};
use super::instances::instance;
use super::spec::{Condition, Config, Restart, ServiceSpec};
use crate::base::near::nearest;
use std::collections::{BTreeMap, BTreeSet};

/// One name in a list of needs, with its place.
#[derive(Clone, Debug)]
pub(super) struct NeedAt {
    pub(super) path: String,
    pub(super) pos: Pos,
    pub(super) from: String,
    pub(super) to: String,
    pub(super) condition: Condition,
}

/// Reports needs that do not exist, services that need themselves, and every group of services that wait for each
/// other.
pub(super) fn check(config: &Config, needs: &[NeedAt], report: &mut Report<'_>) {
    let mut guesses = GUESSES_MAX;
    // The instances of a service have their needs at one place.
    let mut told = BTreeSet::new();
    let mut edges: BTreeMap<&str, Vec<&NeedAt>> = BTreeMap::new();
    for need in needs {
        if need.from == need.to {
            if told.insert(need.pos) {
                report.add_at(need.path.clone(), need.pos, "a service cannot need itself", None);
            }
        } else if let Some(to) = config.services.get(&need.to) {
            if let Some(message) = unreachable(need, to)
                && told.insert(need.pos)
            {
                report.add_at(need.path.clone(), need.pos, message, None);
            }
            edges.entry(&need.from).or_default().push(need);
        } else if told.insert(need.pos) {
            let all = config.services.keys().flat_map(|n| [n.as_str(), instance(n).map_or(n, |(group, _)| group)]);
            let names = all.filter(|name| *name != need.from);
            let meant = if guesses == 0 { None } else { nearest(&need.to, names) };
            guesses = guesses.saturating_sub(1);
            let message = format!("there is no service {}", quote(&need.to));
            report.add_at(need.path.clone(), need.pos, message, meant.map(str::to_owned));
        }
    }
    let mut search = Search { edges: &edges, done: BTreeSet::new(), knotted: BTreeSet::new(), told };
    for start in edges.keys() {
        search.walk(start, report);
    }
}

/// Why a service can never be in the condition that is needed.
fn unreachable(need: &NeedAt, to: &ServiceSpec) -> Option<String> {
    match need.condition {
        Condition::Healthy if to.health.is_none() => {
            Some(format!("{} can never be healthy, as it has no \"health\"", quote(&need.to)))
        }
        Condition::Healthy | Condition::Finished | Condition::Succeeded if to.on_demand => Some(format!(
            "{} runs on demand, so it counts as ready while it listens, and may never be more",
            quote(&need.to)
        )),
        Condition::Finished | Condition::Succeeded if to.restart == Restart::Always => {
            Some(format!("{} never ends for good, as its \"restart\" is \"always\"", quote(&need.to)))
        }
        Condition::Healthy | Condition::Started | Condition::Ready | Condition::Finished | Condition::Succeeded => None,
    }
}

/// Missing services for which a similar name is looked for, which takes its time among thousands.
const GUESSES_MAX: usize = 20;
/// Names of a cycle that are printed.
const CYCLE_SHOWN_MAX: usize = 50;

struct Search<'n, 'e> {
    edges: &'e BTreeMap<&'n str, Vec<&'n NeedAt>>,
    /// Services from which everything was visited.
    done: BTreeSet<&'n str>,
    /// Services that are part of a reported cycle.
    knotted: BTreeSet<&'n str>,
    /// Places of which something was reported.
    told: BTreeSet<Pos>,
}

impl<'n> Search<'n, '_> {
    /// Goes depth first from one service, without recursion, and reports where it comes back to a service on the way.
    fn walk(&mut self, start: &'n str, report: &mut Report<'_>) {
        let mut way = Vec::new();
        let mut on_way: BTreeMap<&str, usize> = BTreeMap::new();
        let mut enter = Some(start);
        loop {
            if let Some(name) = enter.take()
                && !self.done.contains(name)
            {
                on_way.insert(name, way.len());
                way.push((name, self.edges.get(name).map(|v| v.iter()).unwrap_or_default()));
            }
            let Some((name, rest)) = way.last_mut() else { return };
            match rest.next() {
                Some(need) => match on_way.get(need.to.as_str()) {
                    Some(_) if report.is_full() || self.is_known(need) => {}
                    Some(at) => {
                        let names: Vec<&str> = way.iter().skip(*at).map(|(name, _)| *name).collect();
                        self.cycle(&names, need, report);
                    }
                    None => enter = Some(&need.to),
                },
                None => {
                    self.done.insert(name);
                    on_way.remove(*name);
                    way.pop();
                }
            }
        }
    }

    /// Whether both ends of a need that closes a cycle are known to be in one, so that it would say little that is new.
    fn is_known(&self, closing: &NeedAt) -> bool {
        self.knotted.contains(closing.from.as_str()) && self.knotted.contains(closing.to.as_str())
    }

    fn cycle(&mut self, names: &[&'n str], closing: &NeedAt, report: &mut Report<'_>) {
        self.knotted.extend(names.iter().copied());
        if !self.told.insert(closing.pos) {
            return;
        }
        let shown = names.get(..CYCLE_SHOWN_MAX).unwrap_or(names);
        let more = match names.len() - shown.len() {
            0 => String::new(),
            n => format!(" -> ({n} more)"),
        };
        let message = format!("these wait for each other: {}{more} -> {}", shown.join(" -> "), closing.to);
        report.add_at(closing.path.clone(), closing.pos, message, None);
    }
}
