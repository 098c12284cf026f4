//! Which run each process belongs to, from a process table and what is known of some of its entries. Pure.

use super::proc::Stat;
use crate::base::ids::RunId;
use std::collections::{BTreeMap, BTreeSet};

/// Gives each process the run of its parent, or else the one it has evidence for, or else that of its session: every
/// run begins a session of its own and a session cannot be joined from outside. `hob`: processes that are nobody's.
pub(super) fn owners(
    table: &BTreeMap<u32, Stat>,
    hob: &[u32],
    evidence: &mut dyn FnMut(&Stat) -> Option<RunId>,
) -> BTreeMap<u32, RunId> {
    let mut found: BTreeMap<u32, RunId> = BTreeMap::new();
    for s in ancestors_first(table).into_iter().filter(|s| !hob.contains(&s.pid)) {
        if let Some(run) = found.get(&s.parent).copied().or_else(|| evidence(s)) {
            found.insert(s.pid, run);
        }
    }
    let nobodys: BTreeSet<u32> = hob.iter().filter_map(|pid| Some(table.get(pid)?.session)).chain([0]).collect();
    loop {
        let sessions: BTreeMap<u32, RunId> = found
            .iter()
            .filter_map(|(pid, run)| Some((table.get(pid)?.session, *run)))
            .filter(|(session, _)| !nobodys.contains(session))
            .collect();
        let late: Vec<(u32, RunId)> = table
            .values()
            .filter(|s| !hob.contains(&s.pid) && !found.contains_key(&s.pid))
            .filter_map(|s| Some((s.pid, *found.get(&s.parent).or_else(|| sessions.get(&s.session))?)))
            .collect();
        if late.is_empty() {
            return found;
        }
        found.extend(late);
    }
}

fn ancestors_first(table: &BTreeMap<u32, Stat>) -> Vec<&Stat> {
    let mut all: Vec<(usize, &Stat)> = table.values().map(|s| (depth(table, s), s)).collect();
    all.sort_by_key(|(depth, _)| *depth);
    all.into_iter().map(|(_, s)| s).collect()
}

fn depth(table: &BTreeMap<u32, Stat>, s: &Stat) -> usize {
    let mut next = s.parent;
    let mut depth = 0;
    // The table was read while it changed, so that a circle is possible: no line is longer than the table.
    while let Some(above) = table.get(&next).filter(|_| depth < table.len()) {
        depth += 1;
        next = above.parent;
    }
    depth
}

/// A process and everything below it, itself left out.
pub(super) fn below(table: &BTreeMap<u32, Stat>, root: u32) -> BTreeSet<u32> {
    let mut inside = BTreeSet::from([root]);
    for s in ancestors_first(table) {
        if inside.contains(&s.parent) {
            inside.insert(s.pid);
        }
    }
    inside.remove(&root);
    inside
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(entries: &[(u32, u32, u32)]) -> BTreeMap<u32, Stat> {
        let entry = |(pid, parent, session): &(u32, u32, u32)| {
            (*pid, Stat { pid: *pid, parent: *parent, session: *session, ..Stat::default() })
        };
        entries.iter().map(entry).collect()
    }

    #[test]
    fn runs_go_down_the_tree_and_along_sessions() {
        // Keeper 10 and daemon 11; run 1 is 20 with child 21, an orphan 22 of its session, and 23 below that orphan.
        let t =
            table(&[(10, 1, 10), (11, 10, 11), (20, 11, 20), (21, 20, 21), (22, 10, 20), (23, 22, 23), (99, 1, 99)]);
        let mut asked = Vec::new();
        let found = owners(&t, &[10, 11], &mut |s| {
            asked.push(s.pid);
            (s.pid == 20).then_some(RunId(1))
        });
        assert_eq!(found.keys().copied().collect::<Vec<_>>(), [20, 21, 22, 23]);
        assert!(!asked.contains(&21), "a parent decides before any evidence: {asked:?}");
        assert_eq!(below(&t, 10).into_iter().collect::<Vec<_>>(), [11, 20, 21, 22, 23]);
    }

    #[test]
    fn nothing_follows_from_the_sessions_of_hob_itself_and_circles_end() {
        let t = table(&[(10, 1, 10), (11, 10, 11), (20, 11, 11), (21, 10, 11), (30, 31, 30), (31, 30, 30)]);
        let found = owners(&t, &[10, 11], &mut |s| (s.pid == 20).then_some(RunId(7)));
        assert_eq!(found, BTreeMap::from([(20, RunId(7))]));
    }
}
