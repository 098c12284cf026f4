//! Wishes: what a person, a request or the config wants up or down, spread over the graph as marks by worklists. Pure.

use super::graph::Kind;
use super::{Choice, Service, State};
use crate::base::limits::SERVICES_MAX;
use crate::core::record::{self, ServiceRecord};
use crate::core::run::{Cause, Client, Said, StopWhy};
use crate::core::{Core, Out, Owner};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What a person said last about a service, and who it was.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    pub choice: Choice,
    pub down: Option<Box<Said>>,
    pub owner: Option<Owner>,
}

impl Wish {
    pub(super) fn of(s: &Service) -> Wish {
        Wish { choice: s.choice, down: s.down.clone(), owner: s.owner.clone() }
    }

    pub(in crate::core) fn put(self, s: &mut Service) {
        (s.choice, s.down, s.owner) = (self.choice, self.down, self.owner);
    }
}

impl ServiceRecord {
    #[must_use]
    pub fn wish(&self) -> Wish {
        let owner = self.owner.as_deref().and_then(Owner::parse);
        Wish { choice: self.choice, down: self.down.clone(), owner }
    }
}

impl Core {
    /// A person wants it up.
    pub(in crate::core) fn wish_start(&mut self, i: usize, client: Client, out: &mut Out) {
        self.hold_on(i);
        let s = &mut self.table[i];
        if s.choice != Choice::Up {
            s.choice = Choice::Up;
            s.down = None;
            self.table.save(i);
        }
        let running = matches!(self.table[i].state, State::Starting | State::Running);
        if !running {
            self.table[i].counters.clear();
            self.table[i].owner = Some(client.owner());
            self.table.save(i);
        }
        self.lift(i, Cause::Client(client.into()), out);
        self.pull(i, true, out);
    }

    /// A person wants it down: it, and first everything running that requires it.
    pub(in crate::core) fn wish_stop(&mut self, i: usize, client: Client) {
        let now = self.now.wall;
        let s = &mut self.table[i];
        if s.choice != Choice::Down || s.pulled {
            s.choice = Choice::Down;
            s.down = Some(Box::new(Said { by: client.clone(), at: now }));
            s.pulled = false;
            self.table.save(i);
        }
        self.let_go(i);
        self.table.look(i);
        self.mark_stop(i, &StopWhy::Client(client.into()));
    }

    /// A person wants a new run of it.
    pub(in crate::core) fn wish_restart(&mut self, i: usize, client: Client, out: &mut Out) {
        if self.table[i].live.is_none() {
            return self.wish_start(i, client, out);
        }
        self.hold_on(i);
        let s = &mut self.table[i];
        if !s.wanted() {
            s.choice = Choice::Up;
        }
        s.down = None;
        s.counters.clear();
        s.owner = Some(client.owner());
        self.table.save(i);
        self.mark_stop(i, &StopWhy::Restart(client.clone().into()));
        let s = &mut self.table[i];
        s.cause = Cause::Client(client.into());
        if let Some(live) = s.live.as_mut() {
            live.again = true;
        }
        self.pull(i, true, out);
    }

    /// Back to what the config and the needs of others say.
    pub(in crate::core) fn wish_reset(&mut self, i: usize, client: Client, out: &mut Out) {
        self.hold_on(i);
        let needed = self.is_needed(i);
        let s = &mut self.table[i];
        s.choice = Choice::Auto;
        s.down = None;
        s.owner = None;
        s.pulled = needed;
        s.counters.clear();
        self.table.save(i);
        self.table.look(i);
        if self.table[i].wanted() {
            if self.table[i].state != State::Finished {
                let cause = if self.table[i].spec.on_demand { Cause::Listen } else { Cause::Client(client.into()) };
                self.lift(i, cause, out);
            }
            self.pull(i, false, out);
        } else {
            self.mark_stop(i, &StopWhy::Client(client.into()));
        }
    }

    /// A service is not in the config any more. What a person said about it outlives that.
    pub(super) fn keep_wish(&mut self, name: &str, wish: Wish, out: &mut Out) {
        if wish.choice == Choice::Auto {
            out.records.push(record::service_gone(name));
            return;
        }
        out.records.push(record::wish(name, &wish));
        self.wishes.insert(name.to_owned(), wish);
        if self.wishes.len() > SERVICES_MAX
            && let Some((oldest, _)) = self.wishes.pop_first()
        {
            out.records.push(record::service_gone(&oldest));
        }
    }

    /// A service has come into the config, perhaps again.
    pub(super) fn recall_wish(&mut self, i: usize) {
        if let Some(wish) = self.wishes.remove(&*self.table[i].name) {
            wish.put(&mut self.table[i]);
            self.table.save(i);
        }
    }

    /// Whether something that is wanted up pulls it in.
    fn is_needed(&self, i: usize) -> bool {
        self.needed_by(i).is_some()
    }

    /// The first that is wanted up and pulls it in.
    pub(in crate::core) fn needed_by(&self, i: usize) -> Option<Arc<str>> {
        let mut dependants = self.table[i].dependants.iter().map(|d| &self.table[*d as usize]);
        let pulls = |d: &&Service| {
            d.wanted() && !d.awaits_connection() && d.needs.iter().any(|e| e.to as usize == i && e.kind != Kind::After)
        };
        dependants.find(pulls).map(|d| Arc::clone(&d.name))
    }

    /// What is running and is stopped with these, because it requires one of them, or one of those, and so on.
    pub(in crate::core) fn taken_along(&self, first: &[usize]) -> Vec<Arc<str>> {
        let (mut stack, mut seen) = (first.to_vec(), first.iter().copied().collect::<BTreeSet<_>>());
        let mut names = Vec::new();
        while let Some(i) = stack.pop() {
            for d in self.table[i].dependants.iter().map(|d| *d as usize) {
                let s = &self.table[d];
                let requires = s.needs.iter().any(|e| e.to as usize == i && e.kind == Kind::Requires);
                if requires && s.live.is_some() && seen.insert(d) {
                    names.push(Arc::clone(&s.name));
                    stack.push(d);
                }
            }
        }
        names.sort();
        names
    }

    /// Pulls up what `first` requires and wants, and what those need. A person's start also lifts them out of failure.
    /// Nothing lifts what a person stopped: that takes a start of that very service.
    pub(in crate::core) fn pull(&mut self, first: usize, by_person: bool, out: &mut Out) {
        let (mut stack, mut seen) = (vec![first], BTreeSet::from([first]));
        while let Some(i) = stack.pop() {
            if self.table[i].awaits_connection() {
                // What it needs is not needed before it is started itself.
                continue;
            }
            for at in 0..self.table[i].needs.len() {
                let e = self.table[i].needs[at];
                let to = e.to as usize;
                if e.kind == Kind::After || !seen.insert(to) {
                    continue;
                }
                let need = &mut self.table[to];
                if need.choice == Choice::Down {
                    continue;
                }
                if !need.wanted() {
                    need.pulled = true;
                    self.table.save(to);
                }
                self.lift_need(to, i, by_person, out);
                stack.push(to);
            }
        }
    }

    fn lift_need(&mut self, need: usize, of: usize, by_person: bool, out: &mut Out) {
        let cause = Cause::Dependency { of: (&*self.table[of].name).into() };
        match self.table[need].state {
            State::Stopped => self.lift(need, cause, out),
            State::Failed if by_person => {
                self.table[need].counters.clear();
                self.lift(need, cause, out);
            }
            // What is stopped for a fault comes back by its policy, after its delay.
            State::Stopping if self.table[need].stop_mark().is_some_and(|why| by_person || !why.is_fault()) => {
                self.lift(need, cause, out);
            }
            State::Failed
            | State::Stopping
            | State::Waiting
            | State::Starting
            | State::Running
            | State::Backoff
            | State::Finished => {}
        }
    }

    /// Marks its run to be stopped and, unless it is only late, first those of everything running that requires it.
    pub(in crate::core) fn mark_stop(&mut self, first: usize, why: &StopWhy) {
        let spreads = !why.is_fault();
        let (mut stack, mut seen) = (vec![(first, why.clone())], BTreeSet::from([first]));
        while let Some((i, why)) = stack.pop() {
            let s = &mut self.table[i];
            if let Some(live) = s.live.as_mut() {
                if live.stop.is_none() && live.end.is_none() {
                    live.stop = Some(why);
                }
                live.hear_no_more(self.now.mono);
                live.again = false;
                self.table.look(i);
                self.table.touch(i);
            }
            if !spreads {
                continue;
            }
            let name: Box<str> = (&*self.table[i].name).into();
            for at in 0..self.table[i].dependants.len() {
                let d = self.table[i].dependants[at] as usize;
                let requires = self.table[d].needs.iter().any(|e| e.to as usize == i && e.kind == Kind::Requires);
                if requires && self.table[d].live.is_some() && seen.insert(d) {
                    stack.push((d, StopWhy::Need { name: name.clone() }));
                }
            }
        }
    }
}
