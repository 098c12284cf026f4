//! Every graph of three services, each pair by any kind of edge: started, stopped, healed and crashed, with the order
//! checked.

use crate::world::{World, spec};
use hob::base::ids::RunId;
use hob::config::{Condition, Need, Ready, ServiceSpec};
use hob::core::service::State;
use hob::core::{Effect, End, Input, Usage};
use hob::protocol::methods::Request;
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Link {
    None,
    Requires,
    Wants,
    After,
}

const LINKS: [Link; 4] = [Link::None, Link::Requires, Link::Wants, Link::After];
const NAMES: [&str; 3] = ["a", "b", "c"];

/// `links[i]` is the edge from `PAIRS[i].0` to `PAIRS[i].1`. With the names in this order every acyclic graph of three
/// is among them, up to its names.
const PAIRS: [(usize, usize); 3] = [(1, 0), (2, 0), (2, 1)];

fn graph(links: [Link; 3], ready: Ready) -> Vec<(&'static str, ServiceSpec)> {
    let mut all: Vec<(&str, ServiceSpec)> =
        NAMES.iter().map(|n| (*n, spec().with(|s| s.ready = ready.clone()))).collect();
    for (link, (from, to)) in links.into_iter().zip(PAIRS) {
        let need = Need { name: NAMES[to].to_owned(), condition: Condition::Ready };
        match link {
            Link::None => {}
            Link::Requires => all[from].1.requires.push(need),
            Link::Wants => all[from].1.wants.push(need),
            Link::After => all[from].1.after.push(need),
        }
    }
    all
}

fn graphs() -> impl Iterator<Item = [Link; 3]> {
    LINKS.into_iter().flat_map(|x| LINKS.into_iter().flat_map(move |y| LINKS.into_iter().map(move |z| [x, y, z])))
}

/// Whether `from` pulls `to` up, directly or through others.
fn pulls(links: [Link; 3], from: usize, to: usize) -> bool {
    from == to
        || links
            .into_iter()
            .zip(PAIRS)
            .any(|(link, (f, t))| f == from && matches!(link, Link::Requires | Link::Wants) && pulls(links, t, to))
}

/// Whether `from` requires `to`, directly or through others.
fn requires(links: [Link; 3], from: usize, to: usize) -> bool {
    from == to
        || links
            .into_iter()
            .zip(PAIRS)
            .any(|(link, (f, t))| f == from && link == Link::Requires && requires(links, t, to))
}

/// Plays the system until nothing is left to do: starts come up one by one, stops end one by one. Answers the names in
/// the order of their starts and of their ends.
fn play(w: &mut World, links: [Link; 3]) -> (Vec<String>, Vec<String>) {
    let (mut ups, mut downs) = (Vec::new(), Vec::new());
    for _ in 0..100 {
        let mut inputs = Vec::new();
        for effect in std::mem::take(&mut w.effects) {
            match effect {
                Effect::Start(s) => {
                    check_start(w, links, &s.service);
                    ups.push(s.service.to_string());
                    inputs.push(Input::Started { run: s.run, result: Ok(9) });
                    inputs.push(Input::ReadySeen { run: s.run });
                }
                Effect::Signal { run, .. } => {
                    check_stop(w, links, run);
                    downs.push(w.runs[&run].0.clone());
                    inputs.push(Input::Exited { run, end: End::Signal(15), usage: Usage::default() });
                    inputs.push(Input::Tree { run, left: Vec::new() });
                }
                _ => {}
            }
        }
        if inputs.is_empty() {
            return (ups, downs);
        }
        let mut effects = Vec::new();
        for input in inputs {
            w.step(input);
            effects.append(&mut w.effects);
        }
        w.effects = effects;
    }
    panic!("it does not come to rest: {:#?}", w.trail);
}

/// Whoever starts has its requirements up, and nothing that it wants or follows is on its way.
fn check_start(w: &mut World, links: [Link; 3], name: &str) {
    let from = NAMES.iter().position(|n| *n == name).unwrap();
    for (link, (f, t)) in links.into_iter().zip(PAIRS).filter(|(_, (f, _))| *f == from) {
        let need = w.state(NAMES[t]);
        let fine = match link {
            Link::None => true,
            Link::Requires => need == State::Running,
            Link::Wants | Link::After => need != State::Starting && (need != State::Waiting || stuck(w, links, t)),
        };
        assert!(fine, "{name} starts while {} is {need} in {links:?}: {:#?}", NAMES[t], w.trail);
        assert_eq!(f, from);
    }
}

/// Whether a waiting service waits for one that is not on its way either.
fn stuck(w: &mut World, links: [Link; 3], i: usize) -> bool {
    links.into_iter().zip(PAIRS).any(|(link, (f, t))| {
        let state = w.state(NAMES[t]);
        let coming = matches!(state, State::Starting | State::Running);
        f == i && link == Link::Requires && !coming && (state != State::Waiting || stuck(w, links, t))
    })
}

/// Whoever is stopped has nobody up that requires it.
fn check_stop(w: &mut World, links: [Link; 3], run: RunId) {
    let name = w.runs[&run].0.clone();
    let to = NAMES.iter().position(|n| *n == name).unwrap();
    for (_, (f, _)) in links.into_iter().zip(PAIRS).filter(|(l, (_, t))| *l == Link::Requires && *t == to) {
        let other = w.state(NAMES[f]);
        assert!(!other.live(), "{name} is stopped while {} is {other} in {links:?}: {:#?}", NAMES[f], w.trail);
    }
}

#[test]
fn every_graph_starts_in_order_and_stops_in_reverse() {
    let mut count = 0;
    for links in graphs() {
        for target in [0, 1, 2] {
            count += 1;
            let mut w = World::new(&graph(links, Ready::Port(80)));
            w.change(Request::ServiceStart, NAMES[target]);
            let (ups, _) = play(&mut w, links);
            for (i, name) in NAMES.iter().enumerate() {
                let up = pulls(links, target, i);
                assert_eq!(ups.iter().any(|n| n == name), up, "{name} of {links:?} by {}", NAMES[target]);
                assert_eq!(w.state(name), if up { State::Running } else { State::Stopped });
            }
            assert_eq!(w.answered.get(&1), Some(&1), "{links:?}");
            stop_all(&mut w, links);
        }
    }
    assert_eq!(count, 192);
}

/// A shutdown stops everything in reverse, over all three kinds of edges.
fn stop_all(w: &mut World, links: [Link; 3]) {
    let up: Vec<bool> = NAMES.iter().map(|n| w.state(n).live()).collect();
    w.step(Input::Stop { hurry: false });
    let (_, downs) = play(w, links);
    let place = |i: usize| downs.iter().position(|n| n == NAMES[i]);
    for (_, (f, t)) in links.into_iter().zip(PAIRS).filter(|(l, _)| *l != Link::None) {
        if up[f] && up[t] {
            assert!(place(f) < place(t), "{downs:?} in {links:?}");
        }
    }
    assert!(w.runs.is_empty());
}

/// A person stops one: those that require it stop too, before it, and come back with it; all others stay as they are.
#[test]
fn every_graph_heals_after_a_stop() {
    for links in graphs() {
        for target in [0, 1, 2] {
            let mut w = all_up(links);
            w.change(Request::ServiceStop, NAMES[target]);
            let (ups, _) = play(&mut w, links);
            assert!(ups.is_empty(), "{ups:?} started in {links:?}");
            for (i, name) in NAMES.iter().enumerate() {
                let state = if i == target {
                    State::Stopped
                } else if requires(links, i, target) {
                    State::Waiting
                } else {
                    State::Running
                };
                assert_eq!(w.state(name), state, "{name} after a stop of {} in {links:?}", NAMES[target]);
            }
            w.change(Request::ServiceStart, NAMES[target]);
            play(&mut w, links);
            for name in NAMES {
                assert_eq!(w.state(name), State::Running, "{name} in {links:?}");
            }
            assert!((1..=w.asked).all(|r| w.answered.get(&r) == Some(&1)));
        }
    }
}

fn all_up(links: [Link; 3]) -> World {
    let mut w = World::new(&graph(links, Ready::Port(80)));
    for name in NAMES {
        w.change(Request::ServiceStart, name);
        play(&mut w, links);
    }
    w
}

/// A crash, and a second one at once, which brings a delay: nobody else is touched.
#[test]
fn every_graph_survives_a_crash() {
    for links in graphs() {
        for target in [0, 1, 2] {
            let mut w = all_up(links);
            for wanted in [State::Running, State::Backoff] {
                let run = w.run(NAMES[target]).unwrap();
                w.exited(run, End::Code(1));
                w.step(Input::Tree { run, left: Vec::new() });
                play(&mut w, links);
                for (i, name) in NAMES.iter().enumerate() {
                    let state = if i == target { wanted } else { State::Running };
                    assert_eq!(w.state(name), state, "{name} in {links:?}");
                }
            }
            // Its dependants crash too while it is down: those that require it wait, the others come up without it.
            for (i, name) in NAMES.iter().enumerate().filter(|(i, _)| *i != target) {
                let run = w.run(name).unwrap();
                w.exited(run, End::Code(1));
                w.step(Input::Tree { run, left: Vec::new() });
                play(&mut w, links);
                let blocked = links.into_iter().zip(PAIRS).any(|(l, p)| l == Link::Requires && p == (i, target));
                let behind = (0..3).any(|j| {
                    let stuck = w.state(NAMES[j]) == State::Waiting;
                    stuck && links.into_iter().zip(PAIRS).any(|(l, p)| l == Link::Requires && p == (i, j))
                });
                let state = if blocked || behind { State::Waiting } else { State::Running };
                assert_eq!(w.state(name), state, "{name} beside {} in {links:?}", NAMES[target]);
            }
            w.pass(Duration::from_millis(100));
            play(&mut w, links);
            for name in NAMES {
                assert_eq!(w.state(name), State::Running, "{name} in {links:?}");
            }
        }
    }
}
