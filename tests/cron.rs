//! Expressions against a slow reference: minute by minute over years, in zones with every kind of change.
//!
//! The reference shares no line with what it judges but the zone files: expressions are drawn as sets of numbers, of
//! which the text is written, and the calendar is that of the library. HOB_SEED draws others.

// The helpers of a test may panic: that is how a test fails.
#![allow(clippy::unwrap_used)]

use hob::base::time::Wall;
use hob::config::cron::{Cron, Expression, Zone, ZoneFile, parse};
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// A zone of tests/zones.txt, as its file.
fn zone_file(name: &str) -> Vec<u8> {
    let text = include_str!("zones.txt");
    let after = text.split_once(&format!("{name}\n")).unwrap().1;
    let hex: String = after.lines().take_while(|l| l.starts_with(' ')).map(str::trim).collect();
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(hex.get(i..i + 2).unwrap(), 16).unwrap()).collect()
}

struct Rng(u64);

impl Rng {
    /// A number below `n`.
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) % n
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// One field as it was drawn: its text, and which numbers that means.
struct Field {
    text: String,
    set: [bool; 64],
}

impl Field {
    fn star(&self) -> bool {
        self.text.starts_with('*')
    }
}

/// Draws a field of the numbers from `low` to `high`.
fn field(rng: &mut Rng, low: u64, high: u64, stars: u64) -> Field {
    let mut set = [false; 64];
    let mut put = |n: u64| set[usize::try_from(n).unwrap()] = true;
    let size = high - low + 1;
    if rng.chance(stars) {
        let step = if rng.chance(40) { 1 + rng.below(size) } else { 1 };
        (low..=high).step_by(usize::try_from(step).unwrap()).for_each(&mut put);
        let text = if step == 1 { "*".to_owned() } else { format!("*/{step}") };
        return Field { text, set };
    }
    let mut items = Vec::new();
    for _ in 0..=rng.below(3) {
        let first = low + rng.below(size);
        let last = first + rng.below(high - first + 1);
        let step = 1 + rng.below(size.min(9));
        match rng.below(4) {
            0 | 1 => {
                put(first);
                items.push(first.to_string());
            }
            2 => {
                (first..=last).for_each(&mut put);
                items.push(format!("{first}-{last}"));
            }
            _ => {
                (first..=last).step_by(usize::try_from(step).unwrap()).for_each(&mut put);
                items.push(format!("{first}-{last}/{step}"));
            }
        }
    }
    Field { text: items.join(","), set }
}

/// An expression as sets.
struct Drawn {
    text: String,
    minute: Field,
    hour: Field,
    day: Field,
    month: Field,
    weekday: Field,
}

fn draw(rng: &mut Rng) -> Drawn {
    let minute = field(rng, 0, 59, 30);
    // The hours around changes matter most.
    let hour = if rng.chance(50) { field(rng, 0, 3, 0) } else { field(rng, 0, 23, 40) };
    let day = field(rng, 1, 31, 70);
    let month = field(rng, 1, 12, 80);
    let weekday = field(rng, 0, 6, 70);
    let text = format!("{} {} {} {} {}", minute.text, hour.text, day.text, month.text, weekday.text);
    Drawn { text, minute, hour, day, month, weekday }
}

/// What a clock on the wall shows.
#[derive(Clone, Copy)]
struct Shown {
    minute: usize,
    hour: usize,
    day: usize,
    month: usize,
    weekday: usize,
}

/// Each minute from one to another, both included.
fn table(first: i64, last: i64) -> Vec<Shown> {
    let mut all = Vec::new();
    for day in first.div_euclid(1440)..=last.div_euclid(1440) {
        let date = TimeZone::UTC.to_datetime(Timestamp::from_second(day * 86_400).unwrap());
        let number = |n: i8| usize::try_from(n).unwrap();
        let (month, weekday) = (number(date.month()), number(date.weekday().to_sunday_zero_offset()));
        let day = number(date.day());
        let minutes = (0..24).flat_map(|hour| (0..60).map(move |minute| (hour, minute)));
        all.extend(minutes.map(|(hour, minute)| Shown { minute, hour, day, month, weekday }));
    }
    let skip = usize::try_from(first.rem_euclid(1440)).unwrap();
    all.drain(..skip);
    all
}

impl Drawn {
    fn fits(&self, s: Shown) -> bool {
        if !(self.minute.set[s.minute] && self.hour.set[s.hour] && self.month.set[s.month]) {
            return false;
        }
        let (day, weekday) = (self.day.set[s.day], self.weekday.set[s.weekday]);
        if self.day.star() || self.weekday.star() { day && weekday } else { day || weekday }
    }

    /// One look at the clock in each minute. What is fixed fires when the clock first shows its time or a later one;
    /// what has a star fires whenever the clock shows its time.
    fn reference(&self, clock: &Clock) -> Vec<i64> {
        let wild = self.minute.star() || self.hour.star();
        let mut fires = Vec::new();
        let mut reached = clock.local[0] - 1;
        for (minute, local) in (clock.first..).zip(&clock.local) {
            let mut due = wild && self.fits(clock.table[*local]);
            while !wild && reached < *local {
                reached += 1;
                due = due || self.fits(clock.table[reached]);
            }
            if due {
                fires.push(minute * 60_000);
            }
        }
        fires
    }
}

/// For expressions that fire very often.
const DAYS_AROUND: i64 = 4;

/// A window of time in a zone: what the clock shows in each minute from `first` on, as a place in the table.
struct Clock {
    first: i64,
    local: Vec<usize>,
    table: Vec<Shown>,
}

impl Clock {
    fn new(zone: &TimeZone, from: &str, days: i64) -> Clock {
        let first = from.parse::<Timestamp>().unwrap().as_second() / 60;
        let offset = |minute: i64| {
            let seconds = zone.to_offset(Timestamp::from_second(minute * 60).unwrap()).seconds();
            assert_eq!(seconds % 60, 0, "the reference knows whole minutes");
            i64::from(seconds) / 60
        };
        // No zone here has changed its offset within a quarter of an hour.
        let quarters = (first..first + days * 1440).step_by(15).map(|quarter| (quarter, offset(quarter)));
        let local: Vec<i64> = quarters.flat_map(|(quarter, ahead)| quarter + ahead..quarter + ahead + 15).collect();
        let (base, last) = (local.iter().min().unwrap() - 1, *local.iter().max().unwrap());
        let place = |l: &i64| usize::try_from(l - base).unwrap();
        Clock { first, table: table(base, last), local: local.iter().map(place).collect() }
    }

    /// So many days around each change of the offset, and as many at either end.
    fn around_changes(&self, days: i64) -> Vec<(i64, i64)> {
        let length = i64::try_from(self.local.len()).unwrap();
        let changes = (1..).zip(self.local.windows(2)).filter(|(_, pair)| pair[1] != pair[0] + 1).map(|(at, _)| at);
        let part = |at: i64| {
            let (from, to) = ((at - days * 720).max(0), (at + days * 720).min(length));
            ((self.first + from) * 60_000, (self.first + to) * 60_000)
        };
        changes.chain([0, length]).map(part).collect()
    }
}

fn compare(name: &str, from: &str, days: i64, count: usize, seed: u64) {
    let file = zone_file(name);
    let clock = Clock::new(&TimeZone::tzif(name, &file).unwrap(), from, days);
    let zone = Zone::new(&ZoneFile { name: name.to_owned(), content: file }).unwrap();
    let mut rng = Rng(seed);
    let (begin, end) = (clock.first * 60_000, (clock.first + days * 1440) * 60_000);
    let mut fired = 0;
    for _ in 0..count {
        let drawn = draw(&mut rng);
        let Ok(Expression::Times(cron)) = parse(&drawn.text) else { panic!("{} is not taken", drawn.text) };
        let want = drawn.reference(&clock);
        fired += want.len();
        // What fires all the time is compared around each change of the clocks, and at both ends.
        let parts = if want.len() < 1_000 { vec![(begin, end)] } else { clock.around_changes(DAYS_AROUND) };
        for (begin, end) in parts {
            compare_part(&drawn, &cron, &zone, &want, (begin, end), seed);
        }
    }
    assert!(fired > count, "{name}: the expressions are worth comparing");
}

fn compare_part(drawn: &Drawn, cron: &Cron, zone: &Zone, want: &[i64], (begin, end): (i64, i64), seed: u64) {
    let want: Vec<i64> = want.iter().copied().filter(|t| (begin..end).contains(t)).collect();
    let got = forwards(cron, zone, begin, end);
    let show = |all: &[i64], other: &[i64]| -> Vec<String> {
        all.iter().filter(|t| other.binary_search(t).is_err()).take(5).map(|t| zone.show(Wall(*t))).collect()
    };
    let case = || format!("'{}' in {}, seed {seed}", drawn.text, zone.name());
    assert_eq!(want, got, "{}: missing {:?}, extra {:?}", case(), show(&want, &got), show(&got, &want));
    assert_eq!(backwards(cron, zone, begin, end), got, "{} backwards", case());
}

fn forwards(cron: &Cron, zone: &Zone, begin: i64, end: i64) -> Vec<i64> {
    let mut at = Wall(begin - 1);
    let next = || {
        at = cron.next(zone, at)?;
        Some(at.0).filter(|t| *t < end)
    };
    core::iter::from_fn(next).collect()
}

fn backwards(cron: &Cron, zone: &Zone, begin: i64, end: i64) -> Vec<i64> {
    let mut at = Wall(end);
    let previous = || {
        at = cron.previous(zone, at)?;
        Some(at.0).filter(|t| *t >= begin)
    };
    let mut all: Vec<i64> = core::iter::from_fn(previous).collect();
    all.reverse();
    all
}

/// Zones, and from when: each window holds what is odd about the zone.
const WINDOWS: [(&str, &str); 10] = [
    ("UTC", "2023-12-30T00:00:00Z"),
    ("Europe/Berlin", "2026-01-15T00:00:00Z"),
    ("America/New_York", "2006-10-01T00:00:00Z"),
    ("Australia/Lord_Howe", "2026-03-01T00:00:00Z"),
    ("Asia/Kolkata", "2027-12-20T00:00:00Z"),
    ("America/Sao_Paulo", "2018-01-20T00:00:00Z"),
    ("Africa/Casablanca", "2026-01-20T00:00:00Z"),
    ("Pacific/Apia", "2011-03-20T00:00:00Z"),
    // The clocks were not put back between two years; and the rule behind the last entry of a file.
    ("Europe/London", "1968-01-10T00:00:00Z"),
    ("Europe/Berlin", "2090-01-15T00:00:00Z"),
];

fn seed() -> u64 {
    std::env::var("HOB_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(4)
}

#[test]
fn random_expressions_fire_in_the_minutes_of_the_reference() {
    for (i, (name, from)) in (0..).zip(WINDOWS) {
        compare(name, from, 400, 24, seed() * 1000 + i);
    }
}

#[test]
#[ignore = "takes minutes: cargo test --release --test cron -- --ignored"]
fn many_random_expressions_over_years() {
    for (i, (name, from)) in (0..).zip(WINDOWS) {
        compare(name, from, 5 * 366, 400, seed() * 77_000 + i);
    }
}

#[test]
fn the_search_is_quick_where_times_are_rare() {
    let berlin = Zone::new(&ZoneFile { name: "Europe/Berlin".into(), content: zone_file("Europe/Berlin") }).unwrap();
    // Each of these lies years or decades away; minute by minute they would take hours.
    for text in ["0 0 29 2 */7", "* * 29 2 */7", "59 59 23 L-1 2 */6", "*/7 * 31 12 */3", "0 0 31W 1 */5"] {
        let Ok(Expression::Times(cron)) = parse(text) else { panic!("{text}") };
        let mut at = Wall(946_684_800_000);
        for _ in 0..200 {
            at = cron.next(&berlin, at).unwrap_or(Wall(946_684_800_000));
            assert!(cron.previous(&berlin, at).is_some(), "{text}");
        }
    }
}
