//! How all is, in one line for the service manager that hob runs under, and when it is told. Pure.

use super::due::Due;
use super::service::State;
use super::{Core, Effect, Out};
use crate::config::trouble;
use core::time::Duration;

/// Changes are gathered for so long before they are told.
const GATHER: Duration = Duration::from_secs(1);
/// Names in one line.
const NAMES: usize = 3;

impl Core {
    /// Something has changed that the line may tell of.
    pub(super) fn status_soon(&mut self) {
        if self.facts.outer && !self.status_due {
            self.status_due = true;
            self.deadlines.set(Due::Status, Some(self.now.mono + GATHER));
        }
    }

    pub(super) fn tell_status(&mut self, out: &mut Out) {
        self.status_due = false;
        self.deadlines.set(Due::Status, None);
        if self.facts.outer {
            out.effects.push(Effect::Status { text: self.status_line() });
        }
    }

    pub(super) fn status_line(&self) -> String {
        if let Some(fault) = &self.safe {
            return format!("safe mode: {fault}");
        }
        let (mut running, mut wanted) = (0_usize, 0_usize);
        let mut named: [(&str, Vec<&str>); 3] = [("failed", vec![]), ("flapping", vec![]), ("stopping", vec![])];
        for i in self.table.by_name() {
            let s = &self.table[i];
            wanted += usize::from(s.wanted());
            running += usize::from(s.state == State::Running);
            let at = match s.state {
                State::Failed => 0,
                State::Stopping => 2,
                _ if s.flapping() => 1,
                _ => continue,
            };
            named[at].1.push(&s.name);
        }
        let mut line = match &self.life.stopping {
            Some(s) if s.held.is_some() => format!("a shutdown waits for {}", self.inhibitors.text()),
            Some(_) => format!("shutting down, {} services left", self.runs.len()),
            None => format!("{running} of {wanted} services run"),
        };
        if let Some(error) = &self.config_error {
            let instead = if self.config_taken.is_some() { "an older one is" } else { "no service is started by it" };
            line = format!("the config {} and is not in effect, {instead}; {line}", trouble(error));
        }
        for (what, names) in named.iter().filter(|(_, names)| !names.is_empty()) {
            let more = names.len().saturating_sub(NAMES);
            let shown = names.iter().take(NAMES).copied().collect::<Vec<_>>().join(", ");
            line.push_str(&format!("; {what}: {shown}"));
            if more > 0 {
                line.push_str(&format!(" and {more} more"));
            }
        }
        line
    }
}
