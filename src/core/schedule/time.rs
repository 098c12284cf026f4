//! When a job is due, and what is due now. Pure.

use super::{Fire, Job, Why};
use crate::base::time::{Mono, Now, Wall};
use crate::config::schedule::{Missed, When};
use core::time::Duration;

/// What is noticed this late was kept all the same: a busy machine, a daemon that was replaced.
const LATE: Duration = Duration::from_secs(60);
/// A clock that is set by more than this was wrong before.
const FAR: Duration = Duration::from_secs(3 * 3600);
/// Missed times are counted up to here.
const COUNT_MAX: u64 = 1_000;
/// Waits longer than this are planned a thousandth short.
const SHORT: Duration = Duration::from_secs(2);

/// Times that nobody could keep.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Lapse {
    /// How many; `COUNT_MAX` means that many or more.
    pub(super) count: u64,
    pub(super) last: Wall,
    pub(super) made_up: usize,
}

impl Lapse {
    pub(super) fn text(&self) -> String {
        if self.count >= COUNT_MAX { format!("{COUNT_MAX} or more") } else { self.count.to_string() }
    }
}

/// What a look at the clock found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) on_time: Option<Fire>,
    /// To be made up for, oldest first.
    pub(super) made_up: Vec<Fire>,
    pub(super) lapse: Option<Lapse>,
}

fn millis(d: Duration) -> i64 {
    i64::try_from(d.as_millis()).unwrap_or(i64::MAX)
}

impl Job {
    /// The wall clock as it is for this job, which begins later than its times say.
    pub(super) fn clock(&self, now: Now) -> Wall {
        Wall(now.wall.0.saturating_sub(millis(self.delay)))
    }

    /// The first due time after a moment.
    pub(super) fn next_after(&self, after: Wall) -> Option<Wall> {
        match self.spec.when() {
            When::Times(cron) => cron.next(&self.spec.zone, after),
            When::Every(distance) => {
                let (distance, passed) = (millis(distance).max(1), after.0.saturating_sub(self.anchor.0));
                let count = passed.div_euclid(distance).saturating_add(1).max(1);
                Some(Wall(self.anchor.0.saturating_add(count.saturating_mul(distance))))
            }
            When::Once(at) => (at > after).then_some(at),
            When::Reboot | When::Never => None,
        }
    }

    /// The last due time up to a moment.
    fn last_until(&self, until: Wall) -> Option<Wall> {
        match self.spec.when() {
            When::Times(cron) => cron.previous(&self.spec.zone, Wall(until.0.saturating_add(1))),
            When::Every(distance) => {
                let distance = millis(distance).max(1);
                let count = until.0.saturating_sub(self.anchor.0).div_euclid(distance);
                (count >= 1).then(|| Wall(self.anchor.0.saturating_add(count.saturating_mul(distance))))
            }
            When::Once(at) => (at <= until).then_some(at),
            When::Reboot | When::Never => None,
        }
    }

    /// Every due time up to here is decided.
    pub(super) fn decide(&mut self, seen: Wall, now: Now) {
        (self.seen, self.decided) = (seen, now.wall);
        self.save = true;
    }

    /// Decides every due time that has come since the last look.
    pub(super) fn look(&mut self, now: Now) -> Found {
        let clock = self.clock(now);
        let lenient = core::mem::take(&mut self.lenient);
        let Some(last) = self.last_until(clock).filter(|last| *last > self.seen) else { return Found::default() };
        let since = self.seen;
        self.decide(last, now);
        if self.paused() {
            return Found::default();
        }
        let mut found = Found::default();
        let mut missed = Vec::new();
        let (mut count, mut at) = (0, last);
        if clock.since(last) <= LATE.saturating_add(lenient) {
            found.on_time = Some(Fire { due: last, why: Why::Due, not_before: now.mono });
        } else {
            (count, missed) = (1, vec![last]);
        }
        let limit = usize::try_from(self.spec.limit).unwrap_or(usize::MAX);
        let mut newest = found.on_time.is_none().then_some(last);
        while count < COUNT_MAX
            && let Some(before) = self.last_until(Wall(at.0 - 1)).filter(|before| *before > since)
        {
            count += 1;
            newest.get_or_insert(before);
            if missed.len() < limit {
                missed.push(before);
            }
            at = before;
        }
        if count == 0 {
            return found;
        }
        missed.reverse();
        match self.spec.missed {
            Missed::Skip => missed.clear(),
            // What runs now is the one run that makes up for all.
            Missed::Once if found.on_time.is_some() => missed.clear(),
            Missed::Once => missed = missed.last().copied().into_iter().collect(),
            Missed::All => {}
        }
        let mut not_before = now.mono;
        for due in missed {
            found.made_up.push(Fire { due, why: Why::Missed, not_before });
            not_before = not_before + self.spec.stagger;
        }
        self.missed += count;
        found.lapse = Some(Lapse { count, last: newest.unwrap_or(last), made_up: found.made_up.len() });
        found
    }

    /// The wall clock was set by so many milliseconds.
    pub(super) fn wall_set(&mut self, by: i64, now: Now) {
        match self.spec.when() {
            When::Every(_) => {
                self.anchor = Wall(self.anchor.0.saturating_add(by));
                self.seen = Wall(self.seen.0.saturating_add(by));
                self.decided = Wall(self.decided.0.saturating_add(by));
                self.save = true;
                self.step_back(now);
            }
            When::Times(cron) => {
                let wild = cron.is_wild();
                let forward = Duration::from_millis(u64::try_from(by).unwrap_or(0));
                if forward >= FAR {
                    // Back to where it was before it was put back: what was decided then stays decided.
                    let clock = self.clock(now);
                    let seen = self.high.take().map_or(self.seen, |high| self.seen.max(high.min(clock)));
                    self.decide(seen, now);
                } else if !wild {
                    self.lenient = forward;
                }
                self.step_back(now);
            }
            When::Once(_) => self.step_back(now),
            When::Reboot | When::Never => {}
        }
    }

    /// What is ahead of the clock has been decided by another clock; unless the wall clock has not gone back at all,
    /// and it is the delay that has grown with another jitter.
    pub(super) fn step_back(&mut self, now: Now) {
        let clock = self.clock(now);
        let ahead = self.seen.0.saturating_sub(clock.0);
        if ahead <= 0 || self.decided <= now.wall {
            return;
        }
        match self.spec.when() {
            When::Times(cron) => {
                let far = self.seen.since(clock) >= FAR;
                if !far && !cron.is_wild() {
                    return;
                }
                if far {
                    self.high = self.high.max(Some(self.seen));
                }
            }
            // How much of the distance has passed nobody knows any more, so it begins anew.
            When::Every(_) => self.anchor = Wall(self.anchor.0.saturating_sub(ahead)),
            // A moment that is still to come was not, unless it has led to a run.
            When::Once(at) if at > clock && at <= self.seen && !self.has_run(at) => {}
            When::Once(_) | When::Reboot | When::Never => return,
        }
        self.decide(clock, now);
    }

    /// It may have been paused until now by what the config said before: what passed then was not missed.
    pub(super) fn paused_until(&mut self, was_paused: bool, now: Now) {
        if was_paused == self.paused() {
            return;
        }
        if was_paused {
            self.pass(now);
        }
        self.save = true;
    }

    /// What has come until now was not to be kept.
    pub(super) fn pass(&mut self, now: Now) {
        let clock = self.clock(now);
        if clock > self.seen {
            self.decide(clock, now);
        }
    }

    /// Whether a due time has led to a run, or is about to.
    fn has_run(&self, due: Wall) -> bool {
        let mut all = self.history.iter().map(|p| p.due);
        all.any(|at| at == due) || self.runs.iter().any(|r| r.due == due) || self.queue.iter().any(|f| f.due == due)
    }

    /// When the next time of the clock comes, with the delay of this host.
    pub(super) fn next_due(&self, now: Now) -> Option<Wall> {
        if self.paused() {
            return None;
        }
        let next = self.next_after(self.seen.max(Wall(self.clock(now).0.saturating_sub(1))))?;
        Some(Wall(next.0.saturating_add(millis(self.delay))))
    }

    /// When something has to be done about it.
    pub(super) fn deadline(&self, now: Now) -> Option<Mono> {
        let due = self.next_due(now).map(|due| {
            let wait = due.since(now.wall);
            now.mono + if wait > SHORT { wait - wait / 1000 } else { wait }
        });
        let queued = self.queue.iter().filter(|_| self.has_room()).map(|f| f.not_before.max(now.mono)).min();
        let limits = self.runs.iter().filter_map(|r| r.until).min();
        [due, queued, limits].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Platform, parse};
    use std::sync::Arc;

    fn job(members: &str, at: &str) -> (Job, Now) {
        let action = "\"action\": {\"method\": \"daemon.reload\"}";
        let text = format!("{{\"schedule\": {{\"jobs\": [{{\"id\": \"a\", {members}, {action}}}]}}}}");
        let config = parse(&text, "f", &Platform::linux()).unwrap_or_else(|e| panic!("{text}: {e:?}"));
        let now = Now { mono: Mono(0), wall: Wall::parse(at).unwrap() };
        (Job::new("a", Arc::clone(&config.schedule[0]), now, "host", "boot"), now)
    }

    /// So much later on both clocks.
    fn later(now: Now, by: Duration) -> Now {
        Now { mono: now.mono + by, wall: Wall(now.wall.0 + millis(by)) }
    }

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_new_job_makes_up_for_nothing_and_a_time_is_decided_once() {
        let (mut job, now) = job("\"cron\": \"0 * * * *\", \"missed\": \"all\"", "2026-01-01T10:30:00Z");
        assert_eq!(job.look(now), Found::default());
        let then = later(now, HOUR / 2);
        assert_eq!(job.look(then).on_time.map(|f| f.due), Some(then.wall));
        assert_eq!(job.look(then), Found::default());
        assert_eq!(job.look(later(then, HOUR / 2)), Found::default());
    }

    #[test]
    fn what_was_missed_is_made_up_for_by_its_rule() {
        for (rule, made_up) in [("skip", 0), ("once", 1), ("all", 3)] {
            let members = format!("\"cron\": \"0 * * * *\", \"missed\": \"{rule}\", \"limit\": 3, \"stagger\": \"2s\"");
            let (mut job, now) = job(&members, "2026-01-01T10:30:00Z");
            let found = job.look(later(now, HOUR * 10));
            assert_eq!(found.on_time, None);
            assert_eq!(found.made_up.len(), made_up, "{rule}");
            let lapse = found.lapse.unwrap();
            assert_eq!((lapse.count, lapse.last.to_string().as_str()), (10, "2026-01-01T20:00:00.000Z"));
            if let Some(last) = found.made_up.last() {
                assert_eq!(last.due, lapse.last);
                let waits = Duration::from_secs(2) * u32::try_from(made_up - 1).unwrap();
                assert_eq!(last.not_before, now.mono + HOUR * 10 + waits);
            }
        }
        let (mut job, now) = job("\"cron\": \"* * * * * *\", \"missed\": \"once\"", "2026-01-01T10:30:00Z");
        let found = job.look(later(now, HOUR));
        assert_eq!(
            (found.on_time.is_some(), found.made_up.len()),
            (true, 0),
            "the run on time makes up for the others"
        );
        let lapse = found.lapse.unwrap();
        assert_eq!(lapse.text(), "1000 or more");
        assert_eq!(lapse.last.to_string(), "2026-01-01T11:29:59.000Z", "the last that was missed, not the one on time");
    }

    #[test]
    fn a_clock_that_is_set_neither_repeats_nor_forgets() {
        let (mut fixed, now) = job("\"cron\": \"0 2 * * *\"", "2026-01-01T01:00:00Z");
        let two = later(now, HOUR);
        assert!(fixed.look(two).on_time.is_some());
        // An hour back: it has been.
        let back = Now { wall: Wall(two.wall.0 - 3_600_000), ..two };
        fixed.wall_set(-3_600_000, back);
        assert_eq!(fixed.look(later(back, HOUR)), Found::default());
        // Forward over its time by an hour: it is on time, though nothing is to be made up for.
        let (mut skipped, now) = job("\"cron\": \"0 2 * * *\"", "2026-01-01T01:30:00Z");
        let forward = Now { wall: Wall(now.wall.0 + 3_600_000), ..now };
        skipped.wall_set(3_600_000, forward);
        assert!(skipped.look(forward).on_time.is_some());
        // What follows the clock on the wall runs again.
        let (mut wild, now) = job("\"cron\": \"0 * * * *\"", "2026-01-01T01:30:00Z");
        let two = later(now, HOUR / 2);
        assert!(wild.look(two).on_time.is_some());
        let back = Now { wall: Wall(two.wall.0 - 1_800_000), ..two };
        wild.wall_set(-1_800_000, back);
        assert!(wild.look(later(back, HOUR / 2)).on_time.is_some());
    }

    #[test]
    fn a_clock_that_was_far_off_and_comes_back_has_decided_nothing() {
        let (mut job, now) = job("\"cron\": \"0 2 * * *\", \"missed\": \"all\"", "2026-01-01T01:00:00Z");
        let two = later(now, HOUR);
        assert!(job.look(two).on_time.is_some());
        // The machine comes up in 1970, and after an hour somebody tells it the time.
        let wrong = Now { wall: Wall(0), ..two };
        job.wall_set(-two.wall.0, wrong);
        assert_eq!(job.look(wrong), Found::default());
        assert!(job.look(later(wrong, HOUR * 2)).on_time.is_some(), "it goes by the clock that there is");
        let right = later(two, HOUR * 4);
        job.wall_set(right.wall.0 - millis(HOUR * 4), right);
        assert_eq!(job.look(right), Found::default(), "nothing of half a century is made up for");
    }

    #[test]
    fn distances_do_not_mind_the_clock() {
        let (mut job, now) = job("\"every\": \"90s\"", "2026-01-01T01:00:00Z");
        let minute = later(now, Duration::from_secs(60));
        for by in [86_400_000, -86_400_000 * 400] {
            let set = Now { wall: Wall(minute.wall.0 + by), ..minute };
            job.wall_set(by, set);
            assert_eq!(job.look(set), Found::default());
            assert_eq!(job.next_due(set).unwrap().since(set.wall), Duration::from_secs(30));
            job.wall_set(-by, minute);
        }
        assert!(job.look(later(now, Duration::from_secs(90))).on_time.is_some());
    }

    #[test]
    fn distances_go_on_when_the_clock_was_put_back_while_nobody_saw_it() {
        let (mut job, now) = job("\"every\": \"90s\"", "2026-01-01T01:00:00Z");
        assert!(job.look(later(now, Duration::from_secs(90))).on_time.is_some());
        // The machine has no clock of its own, comes up in 1970, and learns the time after a minute.
        let boot = Now { mono: Mono(0), wall: Wall(0) };
        job.step_back(boot);
        assert_eq!(job.look(boot), Found::default());
        assert!(job.next_due(boot).unwrap().since(boot.wall) <= Duration::from_secs(90));
        let minute = later(boot, Duration::from_secs(60));
        let set = Now { wall: Wall(now.wall.0 + 3_600_000), ..minute };
        job.wall_set(set.wall.0 - minute.wall.0, set);
        assert_eq!(job.look(set), Found::default());
        assert!(job.look(later(set, Duration::from_secs(30))).on_time.is_some());
    }

    #[test]
    fn a_distance_that_another_clock_decided_begins_anew() {
        let minute = Duration::from_secs(60);
        for ahead in [millis(HOUR * 24), 1_000_000_000_000] {
            let (mut job, now) = job("\"every\": \"1m\"", "2026-01-01T01:00:00Z");
            let then = later(now, minute);
            assert!(job.look(then).on_time.is_some());
            // The daemon that reads the record has a clock that is behind; then somebody tells it the time.
            let behind = Now { wall: Wall(then.wall.0 - ahead), ..then };
            job.step_back(behind);
            assert_eq!(job.next_due(behind), Some(Wall(behind.wall.0 + 60_000)));
            assert!(job.look(later(behind, minute)).on_time.is_some());
            let right = later(then, minute);
            job.wall_set(ahead, right);
            assert_eq!(job.next_due(right), Some(Wall(right.wall.0 + 60_000)));
            assert!(job.look(later(right, minute)).on_time.is_some());
        }
        // A look came before the word that the clock was set.
        let (mut job, now) = job("\"every\": \"1m\"", "2026-01-01T01:00:00Z");
        let ahead = Now { wall: Wall(now.wall.0 + millis(HOUR)), ..now };
        job.look(ahead);
        job.wall_set(millis(HOUR), ahead);
        assert_eq!(job.next_due(ahead), Some(Wall(ahead.wall.0 + 60_000)));
    }

    #[test]
    fn a_delay_that_has_grown_is_no_clock_that_was_put_back() {
        let (mut wild, now) = job("\"cron\": \"* * * * *\"", "2026-01-01T01:00:30Z");
        let minute = later(now, Duration::from_secs(30));
        assert!(wild.look(minute).on_time.is_some());
        wild.delay = Duration::from_secs(50);
        let ten = Duration::from_secs(10);
        // The clock is set forward by a second, and a daemon reads the record.
        wild.wall_set(1000, later(minute, ten));
        wild.step_back(later(minute, ten));
        assert_eq!(wild.look(later(minute, ten * 5)), Found::default(), "it has led to a run already");
        assert!(wild.look(later(minute, ten * 11)).on_time.is_some());
        // A clock that was put back is that all the same.
        wild.step_back(minute);
        assert!(wild.look(later(minute, ten * 11)).on_time.is_some());
        let (mut distance, now) = job("\"every\": \"90s\"", "2026-01-01T01:00:00Z");
        distance.delay = ten;
        let set = Now { wall: Wall(now.wall.0 + 60_000), ..now };
        distance.wall_set(60_000, set);
        assert_eq!(distance.next_due(set), Some(Wall(set.wall.0 + 100_000)));
    }

    #[test]
    fn a_moment_that_only_a_wrong_clock_has_seen_is_still_to_come() {
        let at = "\"at\": \"2026-01-01T02:00:00Z\"";
        let day = millis(HOUR * 24);
        let (mut skipped, now) = job(at, "2026-01-01T01:00:00Z");
        let ahead = Now { wall: Wall(now.wall.0 + day), ..now };
        skipped.wall_set(day, ahead);
        assert_eq!(skipped.look(ahead).lapse.unwrap().made_up, 0);
        skipped.wall_set(-day, now);
        assert_eq!(skipped.look(later(now, HOUR)).on_time.unwrap().due, later(now, HOUR).wall);
        // One that was made while the clock was ahead.
        let (mut made, _) = job(at, "2026-01-02T01:00:00Z");
        made.step_back(now);
        assert!(made.look(later(now, HOUR)).on_time.is_some());
        // What has run does not run again.
        let (mut ran, now) = job(&format!("{at}, \"missed\": \"once\""), "2026-01-01T01:00:00Z");
        let found = ran.look(ahead);
        ran.queue.extend(found.made_up);
        ran.wall_set(-day, now);
        assert_eq!(ran.look(later(now, HOUR)), Found::default());
    }

    #[test]
    fn the_delay_of_a_host_is_its_own_and_stays() {
        let five = Duration::from_secs(300);
        let delays: Vec<Duration> = (0..50).map(|n| super::super::delay("host", &format!("job{n}"), five)).collect();
        assert!(delays.iter().all(|d| *d < five));
        assert!(delays.iter().any(|d| *d < five / 4) && delays.iter().any(|d| *d > five / 4 * 3));
        assert_eq!(delays[7], super::super::delay("host", "job7", five));
        assert_ne!(delays[7], super::super::delay("other", "job7", five));
        let (mut job, now) = job("\"cron\": \"0 * * * *\", \"jitter\": \"5m\"", "2026-01-01T10:30:00Z");
        let at = later(now, HOUR / 2 + job.delay);
        assert_eq!(job.look(Now { wall: Wall(at.wall.0 - 1), ..at }), Found::default());
        assert!(job.look(at).on_time.is_some());
    }
}
