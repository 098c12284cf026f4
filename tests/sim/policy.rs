//! A second, simpler reading of the restart policy, which the core's restarts are held against. It is never stricter
//! than the documented policy: whatever may have reset the counters resets these.

use crate::os::MS;
use hob::config::{Restart, ServiceSpec};
use hob::core::End;
use std::collections::BTreeMap;

#[derive(Debug, Default)]
struct Count {
    /// Restarts in a row, and when they were made.
    streak: u32,
    times: Vec<u64>,
    /// A run ended by itself and the next start is the policy's; since when.
    pending: Option<u64>,
    /// The machine refused a start; since when.
    refused: Option<u64>,
}

#[derive(Debug, Default)]
pub struct Policy {
    counts: BTreeMap<String, Count>,
}

impl Policy {
    /// A person, a new config or a loss of records may have begun anew.
    pub fn forget(&mut self, service: &str) {
        self.counts.remove(service);
    }

    pub fn forget_all(&mut self) {
        self.counts.clear();
    }

    /// A run has ended in whatever way, `healthy` nanoseconds after it had become ready.
    pub fn well_for(&mut self, service: &str, spec: &ServiceSpec, healthy: u64) {
        if u128::from(healthy) + u128::from(MS) >= spec.reset_after.as_nanos() {
            let Some(count) = self.counts.get_mut(service) else { return };
            // A window forgets by itself.
            let times = if spec.window.is_some() { core::mem::take(&mut count.times) } else { Vec::new() };
            *count = Count { times, ..Count::default() };
        }
    }

    /// A run ended by itself, `healthy` nanoseconds after it had become ready.
    pub fn ended(&mut self, service: &str, spec: &ServiceSpec, end: Option<End>, healthy: u64, now: u64) {
        self.well_for(service, spec, healthy);
        let count = self.counts.entry(service.to_owned()).or_default();
        let failed = match end {
            None => true,
            Some(End::Code(c)) => c != 0,
            Some(End::Signal(_)) => true,
            Some(End::Unknown) => return self.forget(service),
        };
        count.pending = match spec.restart {
            Restart::Always => Some(now),
            Restart::OnFailure => failed.then_some(now),
            Restart::Never => None,
        };
    }

    pub fn refused(&mut self, service: &str, now: u64) {
        let count = self.counts.entry(service.to_owned()).or_default();
        count.refused = Some(now);
        count.pending = None;
    }

    /// hob stopped it, so that the next start is not the policy's.
    pub fn stopped(&mut self, service: &str) {
        if let Some(count) = self.counts.get_mut(service) {
            count.pending = None;
            count.refused = None;
        }
    }

    pub fn started(&mut self, service: &str, spec: &ServiceSpec, now: u64) -> Result<(), String> {
        let Some(count) = self.counts.get_mut(service) else { return Ok(()) };
        if let Some(since) = count.refused.take() {
            if now < since + 100 * MS {
                return Err(format!("floor: {service} is tried again {} ns after it was refused", now - since));
            }
            return Ok(());
        }
        let Some(since) = count.pending.take() else { return Ok(()) };
        let min = u64::try_from(spec.min_delay.as_nanos()).unwrap_or(u64::MAX);
        let max = u64::try_from(spec.max_delay.as_nanos()).unwrap_or(u64::MAX);
        let delay = match count.streak {
            0 => 0,
            n => min.saturating_mul(1 << (n - 1).min(40)).min(max.max(min)),
        };
        if now < since + delay {
            let (streak, was) = (count.streak, now - since);
            return Err(format!("floor: restart {} of {service} after {was} ns instead of {delay}", streak + 1));
        }
        count.streak += 1;
        // The restart counts from when it was due, however long it then waited for others.
        count.times.push(since + delay);
        let limit = usize::try_from(spec.max_restarts).unwrap_or(usize::MAX);
        let inside = match spec.window {
            None => count.times.len(),
            Some(w) => {
                let window = u64::try_from(w.as_nanos()).unwrap_or(u64::MAX);
                count.times.iter().filter(|t| now - **t < window).count()
            }
        };
        if limit > 0 && inside > limit {
            return Err(format!("max_restarts: {service} was restarted {inside} times, and {limit} are allowed"));
        }
        Ok(())
    }
}
