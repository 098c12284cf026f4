//! Who needs whom: edges from the specs, made acyclic, in both directions. Pure.

use crate::config::{Condition, Need, ServiceSpec};
use std::collections::BTreeSet;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Requires,
    Wants,
    After,
}

/// A need, by its place in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge {
    pub to: u32,
    pub kind: Kind,
    pub condition: Condition,
}

/// The needs of one service: of several edges to one need the strongest kind stays, with the strictest condition.
#[must_use]
pub fn edges(spec: &ServiceSpec, own: usize, find: impl Fn(&str) -> Option<usize>) -> Vec<Edge> {
    let mut edges: Vec<Edge> = Vec::new();
    let lists: [(&[Need], Kind); 3] =
        [(&spec.requires, Kind::Requires), (&spec.wants, Kind::Wants), (&spec.after, Kind::After)];
    for (need, kind) in lists.into_iter().flat_map(|(needs, kind)| needs.iter().map(move |n| (n, kind))) {
        let Some(to) = find(&need.name).filter(|to| *to != own).and_then(|to| u32::try_from(to).ok()) else {
            continue;
        };
        match edges.iter_mut().find(|e| e.to == to) {
            Some(e) => e.condition = e.condition.max(need.condition),
            None => edges.push(Edge { to, kind, condition: need.condition }),
        }
    }
    edges
}

/// Takes out edges that close a cycle, the weakest kinds first. The config refuses cycles, so this is only a guard:
/// without it two services would wait for each other for ever.
pub fn break_cycles(needs: &mut [Vec<Edge>]) {
    if acyclic(needs) {
        return;
    }
    let all: Vec<Vec<Edge>> = needs.iter_mut().map(core::mem::take).collect();
    for kind in [Kind::Requires, Kind::Wants, Kind::After] {
        for (from, edges) in all.iter().enumerate() {
            for e in edges.iter().filter(|e| e.kind == kind) {
                if !reaches(needs, e.to as usize, from) {
                    needs[from].push(*e);
                }
            }
        }
    }
}

/// Takes away services without open needs until none is left, or only a cycle is.
fn acyclic(needs: &[Vec<Edge>]) -> bool {
    let mut open: Vec<usize> = needs.iter().map(Vec::len).collect();
    let back = reverse(needs);
    let mut free: Vec<usize> = (0..needs.len()).filter(|i| open[*i] == 0).collect();
    let mut taken = 0;
    while let Some(i) = free.pop() {
        taken += 1;
        for d in back[i].iter().map(|d| *d as usize) {
            open[d] -= 1;
            if open[d] == 0 {
                free.push(d);
            }
        }
    }
    taken == needs.len()
}

fn reaches(needs: &[Vec<Edge>], from: usize, to: usize) -> bool {
    let (mut stack, mut seen) = (vec![from], BTreeSet::new());
    while let Some(i) = stack.pop() {
        if i == to {
            return true;
        }
        if seen.insert(i) {
            stack.extend(needs[i].iter().map(|e| e.to as usize));
        }
    }
    false
}

/// For each service, who has an edge to it.
#[must_use]
pub fn reverse(needs: &[Vec<Edge>]) -> Vec<Vec<u32>> {
    let mut back = vec![Vec::new(); needs.len()];
    for (from, edges) in needs.iter().enumerate() {
        for e in edges {
            if let Ok(from) = u32::try_from(from) {
                back[e.to as usize].push(from);
            }
        }
    }
    back
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(to: u32, kind: Kind) -> Edge {
        Edge { to, kind, condition: Condition::Ready }
    }

    #[test]
    fn a_cycle_loses_its_weakest_edge() {
        let mut needs = vec![vec![edge(1, Kind::After)], vec![edge(2, Kind::Requires)], vec![edge(0, Kind::Wants)]];
        break_cycles(&mut needs);
        assert_eq!(needs, [vec![], vec![edge(2, Kind::Requires)], vec![edge(0, Kind::Wants)]]);
        assert_eq!(reverse(&needs), [vec![2], vec![], vec![1]]);
    }

    #[test]
    fn several_edges_to_one_need_become_the_strongest() {
        let need = |name: &str, condition| Need { name: name.into(), condition };
        let spec = ServiceSpec {
            requires: vec![need("b", Condition::Started)],
            after: vec![need("b", Condition::Ready), need("a", Condition::Ready), need("nobody", Condition::Ready)],
            ..ServiceSpec::default()
        };
        let found = edges(&spec, 0, |n| ["a", "b"].iter().position(|x| *x == n));
        assert_eq!(found, [edge(1, Kind::Requires)], "itself and unknown ones are left out");
    }
}
