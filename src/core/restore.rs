//! A managed hob, which lives and ends with the program that it is a part of: what ran at its end runs again after its
//! next start. Pure.
//!
//! Wishes of persons outlive hob anyway, and win: what somebody stopped stays down. Beyond them the list brings back
//! what ran for another reason, and holds until somebody says otherwise.

use super::record::{self, Entity};
use super::service::{Choice, State};
use super::{Core, Out};
use crate::base::json::Obj;

impl Core {
    /// What has just been read from the journal takes effect before anything is raised.
    pub(super) fn restore_ran(&mut self, managed: bool, ran: Vec<String>, out: &mut Out) {
        self.facts.managed = managed;
        if !managed {
            if !ran.is_empty() {
                // What an application left running is not what the next ordinary hob is to run.
                out.records.push(record::ran(&[]));
            }
            return;
        }
        let first = self.facts.generation <= 1;
        let mut back = Vec::new();
        for name in &ran {
            let Some(i) = self.table.find(name) else { continue };
            self.table[i].restored = self.table[i].choice == Choice::Auto;
            if self.table[i].wanted() {
                back.push(name.as_str());
            }
        }
        if first && !back.is_empty() {
            let mut fields = Obj::new();
            fields.raw("services", &serde_json::to_string(&back).unwrap_or_default());
            self.emit_daemon("daemon.restored", fields.members(), out);
        }
        self.ran = ran;
    }

    /// A shutdown begins: what runs now is what the next managed start brings back.
    pub(super) fn record_ran(&mut self, out: &mut Out) {
        if !self.facts.managed || self.safe.is_some() {
            return;
        }
        let runs = |i: &usize| {
            let s = &self.table[*i];
            let up = match s.state {
                State::Starting | State::Running | State::Backoff => true,
                State::Waiting | State::Failed => s.wanted(),
                State::Stopped | State::Stopping | State::Finished => false,
            };
            up && s.stop_mark().is_none() && !s.removed
        };
        self.ran = self.table.by_name().filter(runs).map(|i| self.table[i].name.to_string()).collect();
        out.records.push(record::ran(&self.ran));
    }

    /// Somebody has said what is to become of this service.
    pub(super) fn forget_ran(&mut self, i: usize, out: &mut Out) {
        let s = &mut self.table[i];
        s.restored = false;
        let before = self.ran.len();
        self.ran.retain(|name| **name != *s.name);
        if self.ran.len() != before {
            out.records.push(record::ran(&self.ran));
        }
    }

    pub(super) fn ran_entity(&self) -> Option<Entity> {
        (!self.ran.is_empty()).then(|| record::ran(&self.ran))
    }
}
