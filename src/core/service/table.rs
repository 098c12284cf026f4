//! All services: places that stay put while a service exists, an index by name, and the marks of the present step.
//! Pure.

use super::{Service, graph};
use crate::base::map::Map;
use crate::config::{ServiceSpec, instance};
use core::ops::{Index, IndexMut};
use std::collections::VecDeque;
use std::sync::Arc;

#[derive(Clone, Debug, Default)]
pub struct Table {
    all: Vec<Service>,
    by_name: Map<Arc<str>, usize>,
    free: Vec<usize>,
    /// Somebody was removed since the edges were worked out: some may lead to a free place, where nobody is ever up.
    loose: bool,
    /// To be looked at in this step, in order, each once.
    dirty: VecDeque<usize>,
    /// Changed in this step.
    touched: Vec<usize>,
}

impl Index<usize> for Table {
    type Output = Service;
    fn index(&self, i: usize) -> &Service {
        &self.all[i]
    }
}

impl IndexMut<usize> for Table {
    fn index_mut(&mut self, i: usize) -> &mut Service {
        &mut self.all[i]
    }
}

impl Table {
    #[must_use]
    pub fn find(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// Places of all services, by name.
    pub fn by_name(&self) -> impl Iterator<Item = usize> + '_ {
        self.by_name.values().copied()
    }

    pub fn names(&self) -> impl Iterator<Item = &str> + '_ {
        self.by_name.keys().map(|n| &**n)
    }

    /// Places of services from this name on (without it), by name.
    pub fn after_name<'a>(&'a self, name: &'a str) -> impl Iterator<Item = usize> + 'a {
        self.by_name.after(name).map(|(_, i)| *i)
    }

    /// Places of the instances of a service, `NAME@1` and so on, by name.
    #[must_use]
    pub fn instances(&self, group: &str) -> Vec<usize> {
        let prefix = format!("{group}@");
        let all = self.after_name(&prefix).take_while(|i| self.all[*i].name.starts_with(&prefix));
        all.filter(|i| instance(&self.all[*i].name).is_some()).collect()
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Adds a service whose name is new. `connect` has to follow.
    pub fn add(&mut self, name: &str, spec: Arc<ServiceSpec>) -> usize {
        let name: Arc<str> = name.into();
        let service = Service::new(Arc::clone(&name), spec);
        let i = match self.free.pop() {
            Some(i) => {
                self.all[i] = service;
                i
            }
            None => {
                self.all.push(service);
                self.all.len() - 1
            }
        };
        self.by_name.insert(name, i);
        i
    }

    /// Frees the place of a service that is down. `reconnect` has to follow before the step ends.
    pub fn remove(&mut self, i: usize) {
        let service = &mut self.all[i];
        self.by_name.remove(&service.name);
        service.gone = true;
        service.live = None;
        service.history = Vec::new();
        self.free.push(i);
        self.loose = true;
    }

    /// Works out the edges again after removals, once for all of a step.
    pub fn reconnect(&mut self) {
        if self.loose {
            self.connect();
        }
    }

    /// Works out the edges between all services from their specs.
    pub fn connect(&mut self) {
        self.loose = false;
        let mut needs = vec![Vec::new(); self.all.len()];
        for i in self.by_name.values() {
            needs[*i] = graph::edges(&self.all[*i].spec, *i, |n| self.find(n));
        }
        graph::break_cycles(&mut needs);
        let dependants = graph::reverse(&needs);
        for ((service, needs), dependants) in self.all.iter_mut().zip(needs).zip(dependants) {
            service.needs = needs.into();
            service.dependants = dependants.into();
        }
    }

    /// Marks a service as one to be looked at again.
    pub fn look(&mut self, i: usize) {
        let service = &mut self.all[i];
        if !service.gone && !core::mem::replace(&mut service.dirty, true) {
            self.dirty.push_back(i);
        }
    }

    /// The same for everyone that an edge connects it with.
    pub fn look_around(&mut self, i: usize) {
        self.look(i);
        for at in 0..self.all[i].dependants.len() {
            self.look(self.all[i].dependants[at] as usize);
        }
        for at in 0..self.all[i].needs.len() {
            self.look(self.all[i].needs[at].to as usize);
        }
    }

    /// The next service to look at.
    pub fn next_dirty(&mut self) -> Option<usize> {
        let i = self.dirty.pop_front()?;
        self.all[i].dirty = false;
        Some(i)
    }

    /// Marks a service as changed in this step.
    pub fn touch(&mut self, i: usize) {
        if !core::mem::replace(&mut self.all[i].touched, true) {
            self.touched.push(i);
        }
    }

    /// Marks it as changed in what the journal keeps.
    pub fn save(&mut self, i: usize) {
        self.all[i].save = true;
        self.touch(i);
    }

    #[must_use]
    pub fn any_touched(&self) -> bool {
        !self.touched.is_empty()
    }

    pub fn next_touched(&mut self) -> Option<usize> {
        let i = self.touched.pop()?;
        self.all[i].touched = false;
        Some(i)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::run::RunRecord;
    use crate::core::service::Live;

    #[test]
    fn a_service_that_only_runs_stays_small() {
        let one = size_of::<Service>() + size_of::<Live>() + size_of::<RunRecord>();
        assert!(one <= 1024, "{one} bytes");
    }

    #[test]
    fn places_are_used_again_and_names_found_in_order() {
        let mut t = Table::default();
        let spec = Arc::new(ServiceSpec::default());
        let (b, a) = (t.add("b", Arc::clone(&spec)), t.add("a", Arc::clone(&spec)));
        assert_eq!(t.by_name().collect::<Vec<_>>(), [a, b]);
        assert_eq!(t.after_name("a").collect::<Vec<_>>(), [b]);
        t.remove(b);
        assert_eq!((t.find("b"), t.len()), (None, 1));
        assert_eq!(t.add("c", spec), b);
        t.look(b);
        t.look(b);
        assert_eq!((t.next_dirty(), t.next_dirty()), (Some(b), None));
    }
}
