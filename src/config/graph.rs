//! Dependencies between services: whether each exists, and that none waits for itself. Touches nothing.

use super::error::{Pos, Report, nearest, quote};
use super::spec::Config;
use std::collections::{BTreeMap, BTreeSet};

/// One name in a list of needs, with its place.
#[derive(Clone, Debug)]
pub(super) struct NeedAt {
    pub(super) path: String,
    pub(super) pos: Pos,
    pub(super) from: String,
    pub(super) to: String,
}

/// Reports needs that do not exist, services that need themselves, and every group of services that wait for each other.
pub(super) fn check(config: &Config, needs: &[NeedAt], report: &mut Report<'_>) {
    let mut edges: BTreeMap<&str, Vec<&NeedAt>> = BTreeMap::new();
    for need in needs {
        if need.from == need.to {
            report.add_at(need.path.clone(), need.pos, "a service cannot need itself", None);
        } else if config.services.contains_key(&need.to) {
            edges.entry(&need.from).or_default().push(need);
        } else {
            let names = config.services.keys().map(String::as_str).filter(|name| *name != need.from);
            let meant = if report.is_full() { None } else { nearest(&need.to, names) };
            let message = format!("there is no service {}", quote(&need.to));
            report.add_at(need.path.clone(), need.pos, message, meant.map(str::to_owned));
        }
    }
    let mut done = BTreeSet::new();
    for start in edges.keys() {
        walk(start, &edges, &mut done, report);
    }
}

/// Goes depth first from one service, without recursion, and reports where it comes back to a service on the way.
fn walk<'n>(
    start: &'n str,
    edges: &BTreeMap<&'n str, Vec<&'n NeedAt>>,
    done: &mut BTreeSet<&'n str>,
    report: &mut Report<'_>,
) {
    let mut way: Vec<(&str, core::slice::Iter<'_, &NeedAt>)> = Vec::new();
    let mut on_way = BTreeSet::new();
    let mut enter = Some(start);
    loop {
        if let Some(name) = enter.take()
            && !done.contains(name)
        {
            on_way.insert(name);
            way.push((name, edges.get(name).map(|v| v.iter()).unwrap_or_default()));
        }
        let Some((name, rest)) = way.last_mut() else { return };
        match rest.next() {
            Some(need) if on_way.contains(need.to.as_str()) => {
                let names: Vec<&str> = way.iter().map(|(n, _)| *n).skip_while(|n| *n != need.to).collect();
                let message = format!("these wait for each other: {} -> {}", names.join(" -> "), need.to);
                report.add_at(need.path.clone(), need.pos, message, None);
                // One report for each knot: what leads back to its services again would only repeat it.
                done.extend(on_way.iter().copied());
                return;
            }
            Some(need) => enter = Some(&need.to),
            None => {
                done.insert(name);
                on_way.remove(*name);
                way.pop();
            }
        }
    }
}
