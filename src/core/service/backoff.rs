//! The restart policy: what follows the end of a run that hob did not stop. Pure arithmetic over the counters.

use super::{Service, State};
use crate::base::time::Mono;
use crate::config::{Restart, ServiceSpec};
use crate::core::run::Cause;
use core::time::Duration;

/// From this many restarts in a row on, counted when they are made, a service is called flapping.
pub const FLAPPING: u32 = 10;

/// The first delay of a start that the machine refused, where the config gives none, and the smallest `max_delay` for
/// it.
const RETRY_MIN: Duration = Duration::from_millis(100);

/// What the restart policy counts. `streak` and `refused` go back to zero after `reset_after` in good health.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Restarts by policy since a person or a new keeper last started it; for the view.
    pub total: u32,
    /// Restarts in a row, which set the delay of the next.
    pub streak: u32,
    /// Starts in a row that the machine refused.
    pub refused: u32,
    /// Times of the last restarts, kept when a window is set, at most `max_restarts` of them. Good health leaves them
    /// alone: what is inside the window counts until that has passed.
    pub times: Vec<Mono>,
}

/// How a run ended, as the policy sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Clean,
    Failed,
    /// The machine lacked something; no fault of the service.
    Refused,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Start again after `delay`; `n` counts the restarts in a row, or the refused tries.
    Restart {
        n: u32,
        delay: Duration,
    },
    Retry {
        n: u32,
        delay: Duration,
    },
    Finished,
    /// `Some(n)`: given up after n restarts; `None`: the policy restarts nothing.
    Failed {
        after: Option<u32>,
    },
}

impl Counters {
    /// Whether a healthy time has something to reset.
    #[must_use]
    pub fn any(&self) -> bool {
        self.streak > 0 || self.refused > 0
    }

    /// Healthy for `reset_after`.
    pub fn reset(&mut self) {
        self.streak = 0;
        self.refused = 0;
    }

    /// A person began anew.
    pub fn clear(&mut self) {
        *self = Counters::default();
    }

    /// Decides, and counts the restart that it decides on.
    pub fn verdict(&mut self, spec: &ServiceSpec, outcome: Outcome, now: Mono) -> Verdict {
        match (outcome, spec.restart) {
            (Outcome::Refused, _) => {
                self.refused = self.refused.saturating_add(1);
                Verdict::Retry { n: self.refused, delay: paced(spec, self.refused) }
            }
            (Outcome::Clean, Restart::OnFailure | Restart::Never) => Verdict::Finished,
            (Outcome::Failed, Restart::Never) => Verdict::Failed { after: None },
            (Outcome::Failed, Restart::OnFailure) | (Outcome::Failed | Outcome::Clean, Restart::Always) => {
                self.restart(spec, now)
            }
        }
    }

    fn restart(&mut self, spec: &ServiceSpec, now: Mono) -> Verdict {
        if self.used_up(spec, now) {
            return Verdict::Failed { after: Some(self.counted(spec)) };
        }
        let delay = delay(spec, self.streak);
        self.streak = self.streak.saturating_add(1);
        self.total = self.total.saturating_add(1);
        self.refused = 0;
        if spec.window.is_some() && spec.max_restarts > 0 {
            self.times.push(now + delay);
        }
        Verdict::Restart { n: self.streak, delay }
    }

    /// The restarts that count towards `max_restarts`.
    #[must_use]
    pub fn counted(&self, spec: &ServiceSpec) -> u32 {
        if spec.window.is_some() { u32::try_from(self.times.len()).unwrap_or(u32::MAX) } else { self.streak }
    }

    /// Whether the next failure would be the last one.
    #[must_use]
    pub fn would_give_up(&self, spec: &ServiceSpec, now: Mono) -> bool {
        self.clone().used_up(spec, now)
    }

    /// Whether `max_restarts` were made since the last reset, or within the window where there is one.
    fn used_up(&mut self, spec: &ServiceSpec, now: Mono) -> bool {
        if spec.max_restarts == 0 {
            return false;
        }
        if let Some(window) = spec.window {
            self.times.retain(|t| now.since(*t) < window);
        }
        self.counted(spec) >= spec.max_restarts
    }
}

impl Service {
    /// Restarts that were made: the policy counts one when it decides on it, which may be long before.
    #[must_use]
    pub fn restarts(&self) -> u32 {
        self.counters.total.saturating_sub(self.to_come())
    }

    /// The same of those since it was last in good health.
    #[must_use]
    pub fn restarts_in_a_row(&self) -> u32 {
        self.counters.streak.saturating_sub(self.to_come())
    }

    #[must_use]
    pub fn flapping(&self) -> bool {
        self.restarts_in_a_row() >= FLAPPING
    }

    /// Restarts that are counted and not made yet.
    fn to_come(&self) -> u32 {
        let waits = matches!(self.state, State::Backoff | State::Waiting);
        u32::from(waits && matches!(self.cause, Cause::Restart { .. }))
    }
}

/// The delay before the n-th start, from 1 on, after one that was not at fault: the machine refused it, or it came too
/// soon after the one before.
#[must_use]
pub fn paced(spec: &ServiceSpec, n: u32) -> Duration {
    nth(spec.min_delay.max(RETRY_MIN), spec.max_delay.max(RETRY_MIN), n)
}

/// The delay before the restart that follows `streak` restarts in a row: none before the first, then `min_delay`,
/// doubling up to `max_delay`.
#[must_use]
pub fn delay(spec: &ServiceSpec, streak: u32) -> Duration {
    if streak == 0 { Duration::ZERO } else { nth(spec.min_delay, spec.max_delay, streak) }
}

/// The delays after the present one while the machine refuses, for a person to see in advance.
#[must_use]
pub fn preview_refused(spec: &ServiceSpec, refused: u32, count: u32) -> Vec<Duration> {
    (1..=count).map(|i| paced(spec, refused.saturating_add(i))).collect()
}

/// The delays after the present one, for a person to see in advance.
#[must_use]
pub fn preview(spec: &ServiceSpec, streak: u32, count: u32) -> Vec<Duration> {
    (0..count).map(|i| delay(spec, streak.saturating_add(i))).collect()
}

/// `min * 2^(n - 1)`, at most `max` but never below `min`; n counts from 1.
fn nth(min: Duration, max: Duration, n: u32) -> Duration {
    let factor = 1_u32.checked_shl(n.saturating_sub(1)).unwrap_or(u32::MAX);
    min.saturating_mul(factor).min(max.max(min))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(restart: Restart) -> ServiceSpec {
        ServiceSpec { restart, ..ServiceSpec::default() }
    }

    #[test]
    fn delays_double_from_min_to_max_after_an_immediate_first() {
        let s = spec(Restart::Always);
        let ms: Vec<u128> = preview(&s, 0, 12).iter().map(Duration::as_millis).collect();
        assert_eq!(ms, [0, 100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000]);
        assert_eq!(delay(&s, u32::MAX), s.max_delay);
        let at_once = s.with(|s| s.min_delay = Duration::ZERO);
        assert_eq!(preview(&at_once, 50, 3), [Duration::ZERO; 3]);
    }

    #[test]
    fn the_policy_table() {
        use Outcome::{Clean, Failed, Refused};
        let of = |restart, outcome| Counters::default().verdict(&spec(restart), outcome, Mono(0));
        for restart in [Restart::OnFailure, Restart::Never] {
            assert_eq!(of(restart, Clean), Verdict::Finished);
        }
        assert_eq!(of(Restart::Never, Failed), Verdict::Failed { after: None });
        for (restart, outcome) in [(Restart::Always, Clean), (Restart::Always, Failed), (Restart::OnFailure, Failed)] {
            assert_eq!(of(restart, outcome), Verdict::Restart { n: 1, delay: Duration::ZERO });
        }
        for restart in [Restart::Always, Restart::OnFailure, Restart::Never] {
            assert_eq!(of(restart, Refused), Verdict::Retry { n: 1, delay: RETRY_MIN });
        }
    }

    #[test]
    fn the_limit_counts_since_the_reset_or_inside_the_window() {
        let s = spec(Restart::Always).with(|s| s.max_restarts = 2);
        let mut c = Counters::default();
        assert!(matches!(c.verdict(&s, Outcome::Failed, Mono(0)), Verdict::Restart { n: 1, .. }));
        assert!(matches!(c.verdict(&s, Outcome::Failed, Mono(0)), Verdict::Restart { n: 2, .. }));
        assert!(matches!(c.verdict(&s, Outcome::Refused, Mono(0)), Verdict::Retry { n: 1, .. }));
        assert_eq!(c.verdict(&s, Outcome::Failed, Mono(0)), Verdict::Failed { after: Some(2) });
        c.reset();
        assert!(matches!(c.verdict(&s, Outcome::Failed, Mono(0)), Verdict::Restart { n: 1, .. }));

        let w = s.with(|s| (s.window, s.min_delay) = (Some(Duration::from_secs(10)), Duration::ZERO));
        let (mut c, at) = (Counters::default(), |secs: u64| Mono(secs * 1_000_000_000));
        for second in [0, 9, 18, 27] {
            assert!(matches!(c.verdict(&w, Outcome::Failed, at(second)), Verdict::Restart { .. }));
            assert!(c.times.len() <= 2);
        }
        assert!(matches!(c.verdict(&w, Outcome::Failed, at(28)), Verdict::Restart { .. }));
        c.reset();
        assert!(!c.any(), "nothing is left to reset");
        assert!(c.would_give_up(&w, at(29)));
        assert_eq!(c.verdict(&w, Outcome::Failed, at(29)), Verdict::Failed { after: Some(2) });
        assert!(matches!(c.verdict(&w, Outcome::Failed, at(38)), Verdict::Restart { n: 1, .. }));
    }
}
