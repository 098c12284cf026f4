//! The pool with real threads; nothing here depends on their speed.

use super::*;
use std::sync::mpsc;

const LONG: Duration = Duration::from_secs(30);

struct Bench {
    poll: mio::Poll,
    pool: Pool<u32>,
}

impl Bench {
    fn new() -> Bench {
        let poll = mio::Poll::new().unwrap();
        let waker = Arc::new(mio::Waker::new(poll.registry(), mio::Token(0)).unwrap());
        Bench { poll, pool: Pool::new(waker) }
    }

    /// Waits for `n` results by the waker alone.
    fn wait(&mut self, n: usize) -> Vec<Done<u32>> {
        let mut events = mio::Events::with_capacity(4);
        let mut all = self.pool.results();
        while all.len() < n {
            self.poll.poll(&mut events, Some(LONG)).unwrap();
            assert!(!events.is_empty(), "the waker was not woken");
            all.extend(self.pool.results());
        }
        all
    }
}

#[test]
fn lanes_keep_order_and_every_result_arrives() {
    let mut b = Bench::new();
    for i in 0..500 {
        b.pool.run(Lane::Sync, "one", Mono(0), LONG, move || i);
    }
    let expected: Vec<_> = (0..500).map(Done::Finished).collect();
    assert_eq!(b.wait(500), expected);
    for lane in LANES {
        for i in 0..100 {
            b.pool.run(lane, "many", Mono(0), LONG, move || i);
        }
    }
    assert_eq!(b.wait(500).len(), 500);
    assert_eq!(b.pool.next_deadline(), None);
    assert_eq!(b.pool.quit(LONG), Vec::<&str>::new());
}

#[test]
fn one_wake_for_a_batch_of_results() {
    let mut b = Bench::new();
    let (go, gate) = mpsc::channel::<()>();
    b.pool.run(Lane::Files, "gate", Mono(0), LONG, move || u32::from(gate.recv().is_err()));
    for i in 1..100 {
        b.pool.run(Lane::Files, "rest", Mono(0), LONG, move || i);
    }
    go.send(()).unwrap();
    // The lane's queue is dry when its threads have ended; only then the wakes are counted.
    assert!(b.pool.quit(LONG).is_empty());
    let mut events = mio::Events::with_capacity(4);
    b.poll.poll(&mut events, Some(LONG)).unwrap();
    assert_eq!(events.iter().count(), 1);
    b.poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
    assert_eq!(events.iter().count(), 0);
    assert_eq!(b.pool.results().len(), 100);
}

#[test]
fn a_panic_is_told_and_the_thread_goes_on() {
    let mut b = Bench::new();
    b.pool.run(Lane::Bulk, "bad", Mono(0), LONG, || panic!("broken {}", 7));
    b.pool.run(Lane::Bulk, "good", Mono(0), LONG, || 1);
    let done = b.wait(2);
    assert_eq!(done[0], Done::Panicked { name: "bad", message: "broken 7".into(), late: false });
    assert_eq!(done[1], Done::Finished(1));
}

#[test]
fn a_stuck_job_is_named_once_replaced_and_its_late_result_told_apart() {
    let mut b = Bench::new();
    let now = sys::clock::now().mono;
    let (go, gate) = mpsc::channel::<()>();
    let (in_, inside) = mpsc::channel();
    let limit = Duration::from_secs(5);
    b.pool.run(Lane::Sync, "stuck", now, limit, move || {
        in_.send(()).unwrap();
        u32::from(gate.recv().is_ok())
    });
    b.pool.run(Lane::Sync, "behind", now, limit, || 2);
    inside.recv_timeout(LONG).unwrap();
    assert_eq!(b.pool.next_deadline(), Some(now + limit));
    assert!(b.pool.overdue(now).is_empty());
    let later = sys::clock::now().mono + limit;
    assert_eq!(b.pool.overdue(later), [Overdue { name: "stuck", lane: Lane::Sync }]);
    assert!(b.pool.overdue(later).is_empty(), "told only once");
    assert_eq!(b.wait(1), [Done::Finished(2)]);
    assert_eq!(b.pool.next_deadline(), None, "the stuck one no longer wakes anybody");
    assert_eq!(b.pool.quit(Duration::from_millis(1)), ["stuck"]);
    go.send(()).unwrap();
    assert_eq!(b.wait(1), [Done::Late { name: "stuck", result: 1 }]);
}

#[test]
fn stuck_threads_are_bounded_and_the_lane_recovers() {
    let mut b = Bench::new();
    let mut gates = Vec::new();
    let n = ABANDONED_MAX + 3;
    for _ in 0..n {
        let (go, gate) = mpsc::channel::<()>();
        gates.push(go);
        b.pool.run(Lane::Files, "stuck", Mono(0), Duration::ZERO, move || u32::from(gate.recv().is_ok()));
    }
    let until = Instant::now() + LONG;
    let (mut told, mut now) = (0, Mono(u64::MAX / 2));
    while told <= ABANDONED_MAX && Instant::now() < until {
        told += b.pool.overdue(now).len();
        now = now + RETRY;
        std::thread::yield_now();
    }
    assert_eq!(told, ABANDONED_MAX + 1, "all replaceable ones and the one that holds the lane");
    let threads = lock(&b.pool.lanes[Lane::Files.index()].state).workers.len();
    assert_eq!(threads, 1);
    for go in gates {
        go.send(()).unwrap();
    }
    assert_eq!(b.wait(n).len(), n);
    assert!(b.pool.quit(LONG).is_empty());
}

#[test]
fn a_job_that_waits_its_turn_is_not_overdue() {
    let mut b = Bench::new();
    let now = sys::clock::now().mono;
    let (go, gate) = mpsc::channel::<()>();
    let (in_, inside) = mpsc::channel();
    b.pool.run(Lane::Sync, "slow", now, LONG, move || {
        in_.send(()).unwrap();
        u32::from(gate.recv().is_ok())
    });
    b.pool.run(Lane::Sync, "next", now, Duration::from_secs(1), || 2);
    inside.recv_timeout(LONG).unwrap();
    let two = now + Duration::from_secs(2);
    assert!(b.pool.overdue(two).is_empty());
    assert_eq!(b.pool.next_deadline(), Some(two + Duration::from_secs(1)));
    go.send(()).unwrap();
    assert_eq!(b.wait(2), [Done::Finished(1), Done::Finished(2)]);
}

#[test]
fn a_machine_that_stood_still_makes_no_job_overdue() {
    let mut b = Bench::new();
    let now = sys::clock::now().mono;
    let (go, gate) = mpsc::channel::<()>();
    let (in_, inside) = mpsc::channel();
    let limit = Duration::from_secs(5);
    b.pool.run(Lane::Sync, "slow", now, limit, move || {
        in_.send(()).unwrap();
        u32::from(gate.recv().is_ok())
    });
    inside.recv_timeout(LONG).unwrap();
    let thawed = now + LONG;
    b.pool.thaw(thawed);
    assert!(b.pool.overdue(thawed).is_empty());
    assert_eq!(b.pool.next_deadline(), Some(thawed + limit));
    assert_eq!(b.pool.overdue(thawed + limit).len(), 1);
    go.send(()).unwrap();
    assert_eq!(b.wait(1), [Done::Late { name: "slow", result: 1 }]);
}

#[test]
fn what_hangs_for_one_takes_one_thread_and_others_go_on() {
    let mut b = Bench::new();
    let (go, gate) = mpsc::channel::<()>();
    let of = |name: &str| (Lane::Spawn, Arc::<str>::from(name));
    b.pool.run_of(of("hung"), "stuck", Mono(0), LONG, move || u32::from(gate.recv().is_ok()));
    for n in 2..6 {
        b.pool.run_of(of("hung"), "again", Mono(0), LONG, move || n);
    }
    // Two threads, of which the hung ones would take both, and none is overdue yet.
    for n in 10..14 {
        b.pool.run_of(of("well"), "other", Mono(0), LONG, move || n);
    }
    b.pool.run(Lane::Spawn, "of nobody", Mono(0), LONG, || 20);
    let mut others = b.wait(5);
    others.sort_by_key(|done| if let Done::Finished(n) = done { *n } else { 0 });
    assert_eq!(others, [10, 11, 12, 13, 20].map(Done::Finished));
    go.send(()).unwrap();
    assert_eq!(b.wait(5), [1, 2, 3, 4, 5].map(Done::Finished), "in order");
    assert!(b.pool.quit(LONG).is_empty());
}

#[test]
fn a_thread_that_was_given_up_lets_the_next_job_of_its_kind_go_on() {
    let mut b = Bench::new();
    let (go, gate) = mpsc::channel::<()>();
    let (in_, inside) = mpsc::channel();
    let of = || (Lane::Spawn, Arc::<str>::from("hung"));
    b.pool.run_of(of(), "stuck", Mono(0), Duration::ZERO, move || {
        in_.send(()).unwrap();
        u32::from(gate.recv().is_ok())
    });
    inside.recv_timeout(LONG).unwrap();
    b.pool.run_of(of(), "again", Mono(0), LONG, || 2);
    assert_eq!(b.pool.overdue(Mono(u64::MAX / 2)).len(), 1);
    go.send(()).unwrap();
    assert_eq!(b.wait(2), [Done::Late { name: "stuck", result: 1 }, Done::Finished(2)]);
    assert!(b.pool.quit(LONG).is_empty());
}
