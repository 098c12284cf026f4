//! Notices that the wall clock was set or that the machine slept, for the core, which keeps time by it.

use super::gear::Gear;
use super::source::Source;
use crate::base::time::{Mono, Now};
use crate::config::Level;
use crate::core::Input;
use crate::sys::clock;
use crate::sys::walltimer::WallTimer;
use core::time::Duration;
use mio::Interest;

/// A difference between the two clocks that no slewing makes in a turn.
const JUMP_MS: i64 = 1_000;
/// How often to look where the system does not tell.
const LOOK_EVERY: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct WallWatch {
    last: Now,
    /// How long the machine had slept then.
    slept: Duration,
    on: bool,
    timer: Option<WallTimer>,
    look_at: Option<Mono>,
}

impl WallWatch {
    pub(super) fn new(now: Now) -> WallWatch {
        WallWatch { last: now, slept: clock::slept(), on: false, timer: None, look_at: None }
    }

    /// Watches from now on, if anybody has to know.
    pub(super) fn want(&mut self, wanted: bool, gear: &mut Gear) {
        if !wanted || self.on {
            return;
        }
        self.on = true;
        match WallTimer::create() {
            Ok(timer) => self.timer = timer,
            Err(e) => gear.log(Level::Warn, format!("a set clock is noticed late: {e}")),
        }
        if let Some(timer) = &self.timer
            && let Err(e) = gear.sources.add(gear.poll.registry(), timer.fd(), Interest::READABLE, Source::Wall)
        {
            gear.log(Level::Warn, format!("a set clock is noticed late: {e}"));
            self.timer = None;
        }
        self.look_at = self.timer.is_none().then(|| gear.now.mono + LOOK_EVERY);
    }

    /// The timer has told something.
    pub(super) fn told(&mut self, gear: &mut Gear) {
        if let Some(Err(e)) = self.timer.as_ref().map(WallTimer::again) {
            gear.log(Level::Warn, format!("a set clock is noticed late from now on: {e}"));
            self.look_at = Some(gear.now.mono + LOOK_EVERY);
        }
    }

    pub(super) fn deadline(&self) -> Option<Mono> {
        self.look_at
    }

    /// Compares the clocks with their last reading; once a turn.
    pub(super) fn check(&mut self, now: Now) -> Option<Input> {
        if self.look_at.is_some_and(|at| at <= now.mono) {
            self.look_at = Some(now.mono + LOOK_EVERY);
        }
        let passed = i64::try_from(now.mono.since(self.last.mono).as_millis()).unwrap_or(i64::MAX);
        let jump = now.wall.0.saturating_sub(self.last.wall.0).saturating_sub(passed);
        self.last = now;
        if jump.abs() < JUMP_MS {
            return None;
        }
        let slept = clock::slept();
        let asleep = slept.saturating_sub(core::mem::replace(&mut self.slept, slept));
        let by = jump.saturating_sub(i64::try_from(asleep.as_millis()).unwrap_or(i64::MAX));
        // The two clocks are not read at exactly the same moment.
        Some(Input::WallSet { by: if by.abs() < JUMP_MS { 0 } else { by } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::Wall;

    #[test]
    fn a_clock_that_is_set_is_told_with_its_difference() {
        let at = |mono: u64, wall: i64| Now { mono: Mono(mono * 1_000_000), wall: Wall(wall) };
        let mut watch = WallWatch::new(at(0, 1_000_000));
        let mut by = |now| match watch.check(now) {
            Some(Input::WallSet { by }) => Some(by),
            Some(other) => panic!("{other:?}"),
            None => None,
        };
        assert_eq!(by(at(5_000, 1_005_000)), None);
        assert_eq!(by(at(6_000, 1_006_400)), None, "a slewed clock was not set");
        assert_eq!(by(at(7_000, 4_607_400)), Some(3_600_000));
        assert_eq!(by(at(8_000, 4_608_400)), None);
        assert_eq!(by(at(9_000, 1_009_400)), Some(-3_600_000));
    }
}
