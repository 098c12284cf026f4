//! The small fixed pool for whatever may block: lanes of threads that take jobs in order and hand results back to the
//! loop.
//!
//! A lane's threads start with its first job and then sleep on a futex. A job costs one allocation, one futex wake when
//! a thread of the lane sleeps, and one write to the waker when no result was waiting yet. A job past its deadline is
//! reported once and its thread replaced: the stuck one ends by itself when the kernel lets it go, and its result comes
//! as `Late`, because a late result can still be a fact (a child that exists, bytes that are on disk).

#[cfg(test)]
mod tests;

use crate::base::gather::Gather as _;
use crate::base::map::Map;
use crate::base::time::{Mono, sooner};
use crate::sys;
use core::fmt;
use core::time::Duration;
use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Stack of a pool thread in bytes; only touched pages take memory. Reading a time zone wants most of it, in a build
/// for debugging.
const STACK: usize = 512 * 1024;
/// Threads of one lane that may be stuck and replaced at the same time; with more, the lane waits for one of them.
const ABANDONED_MAX: usize = 4;
/// Of starts and sockets there may be more: each of many services may have its folder, program or socket on a mount
/// that hangs, and none of the others is to wait for them.
const ABANDONED_STARTS: usize = 64;
/// Open jobs for which the lists keep their memory.
const BURST: usize = 16;
/// How long after a refused thread start the next try is made.
const RETRY: Duration = Duration::from_millis(100);

/// Which threads a job may use. Jobs of one lane start in order; those of a lane with one thread also end in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Syncs of the journal: one thread.
    Sync,
    /// Log files and other small files: one thread.
    Files,
    /// Starts of children: two threads.
    Spawn,
    /// Files that a person names, which may be anywhere: sockets, the config, a new program: two threads.
    Paths,
    /// Directory walks, sweeps, compression: one thread at low priority.
    Bulk,
}

const LANES: [Lane; 5] = [Lane::Sync, Lane::Files, Lane::Spawn, Lane::Bulk, Lane::Paths];

impl Lane {
    fn index(self) -> usize {
        match self {
            Lane::Sync => 0,
            Lane::Files => 1,
            Lane::Spawn => 2,
            Lane::Bulk => 3,
            Lane::Paths => 4,
        }
    }

    fn threads(self) -> usize {
        match self {
            Lane::Spawn | Lane::Paths => 2,
            Lane::Sync | Lane::Files | Lane::Bulk => 1,
        }
    }

    fn abandoned_max(self) -> usize {
        match self {
            Lane::Spawn | Lane::Paths => ABANDONED_STARTS,
            Lane::Sync | Lane::Files | Lane::Bulk => ABANDONED_MAX,
        }
    }

    fn thread_name(self) -> &'static str {
        match self {
            Lane::Sync => "hob-sync",
            Lane::Files => "hob-files",
            Lane::Spawn => "hob-spawn",
            Lane::Bulk => "hob-bulk",
            Lane::Paths => "hob-paths",
        }
    }
}

/// How a job came out.
#[derive(Debug, PartialEq, Eq)]
pub enum Done<T> {
    Finished(T),
    /// It ended after `overdue` had reported it.
    Late {
        name: &'static str,
        result: T,
    },
    /// It panicked; its thread goes on.
    Panicked {
        name: &'static str,
        message: String,
        /// After `overdue` had reported it.
        late: bool,
    },
}

/// A job past its deadline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overdue {
    pub name: &'static str,
    pub lane: Lane,
}

struct Job<T> {
    id: u64,
    /// Of jobs for one and the same, one is at work at a time.
    of: Option<Arc<str>>,
    work: Box<dyn FnOnce() -> T + Send>,
}

/// One thread that belongs to its lane; an abandoned one is no longer listed.
struct Worker {
    id: u64,
    running: Option<(u64, Mono)>,
}

struct LaneState<T> {
    queue: VecDeque<Job<T>>,
    /// Whose jobs are at work, also in threads that are stuck.
    busy: Vec<Arc<str>>,
    workers: Vec<Worker>,
    /// Threads asleep, and wakes that were sent to them and not yet taken.
    asleep: usize,
    wakes: usize,
    abandoned: usize,
    quit: bool,
}

impl<T> LaneState<T> {
    /// Takes the first job that does not wait for another of its kind.
    fn next(&mut self) -> Option<Job<T>> {
        let free = |job: &Job<T>| job.of.as_ref().is_none_or(|of| !self.busy.contains(of));
        let job = self.queue.iter().position(free).and_then(|at| self.queue.remove(at))?;
        self.busy.extend(job.of.clone());
        Some(job)
    }
}

struct LaneShared<T> {
    lane: Lane,
    state: Mutex<LaneState<T>>,
    work: Condvar,
    ended: Condvar,
    results: Arc<Results<T>>,
}

struct Results<T> {
    queue: Mutex<Vec<(u64, Result<T, String>)>>,
    waker: Arc<mio::Waker>,
}

/// Id of results that are no job's.
const NO_JOB: u64 = 0;

/// Sends results to the loop from a thread that is not the pool's.
pub struct Teller<T> {
    results: Arc<Results<T>>,
}

impl<T> fmt::Debug for Teller<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Teller")
    }
}

impl<T> Teller<T> {
    pub fn tell(&self, result: T) {
        self.results.push(NO_JOB, Ok(result));
    }
}

impl<T> Results<T> {
    /// Adds a result, and wakes the loop for the first of a batch.
    fn push(&self, id: u64, result: Result<T, String>) {
        let mut queue = lock(&self.queue);
        queue.push((id, result));
        let first = queue.len() == 1;
        drop(queue);
        if first {
            // The waker fails only when the loop's selector is gone, and then nobody waits for the result.
            let _ = self.waker.wake();
        }
    }
}

/// What the loop remembers of a job until its result is taken.
struct Open {
    name: &'static str,
    lane: Lane,
    limit: Duration,
    /// Its place in `due`; `None` once reported.
    due: Option<Mono>,
}

/// The pool, owned by the loop.
pub struct Pool<T: Send + 'static> {
    lanes: [Arc<LaneShared<T>>; 5],
    results: Arc<Results<T>>,
    open: Map<u64, Open>,
    due: BTreeSet<(Mono, u64)>,
    next_id: u64,
    /// When to try again to start threads that the system refused.
    retry: Option<Mono>,
    /// So many jobs were open that their lists are given back when all have ended.
    burst: bool,
}

impl<T: Send + 'static> fmt::Debug for Pool<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("open", &self.open.len()).field("retry", &self.retry).finish_non_exhaustive()
    }
}

impl<T: Send + 'static> Pool<T> {
    /// A pool without threads. `waker` is woken when results lie ready.
    #[must_use]
    pub fn new(waker: Arc<mio::Waker>) -> Self {
        let results = Arc::new(Results { queue: Mutex::new(Vec::new()), waker });
        let lanes = LANES.map(|lane| {
            Arc::new(LaneShared {
                lane,
                state: Mutex::new(LaneState {
                    queue: VecDeque::new(),
                    busy: Vec::new(),
                    workers: Vec::new(),
                    asleep: 0,
                    wakes: 0,
                    abandoned: 0,
                    quit: false,
                }),
                work: Condvar::new(),
                ended: Condvar::new(),
                results: Arc::clone(&results),
            })
        });
        Pool { lanes, results, open: Map::new(), due: BTreeSet::new(), next_id: 1, retry: None, burst: false }
    }

    /// Hands a job to its lane. `deadline` counts from when a thread takes it up. A refused thread start (EAGAIN) is
    /// tried again by `overdue`; the job waits.
    pub fn run(
        &mut self,
        lane: Lane,
        name: &'static str,
        now: Mono,
        deadline: Duration,
        job: impl FnOnce() -> T + Send + 'static,
    ) {
        self.queue((lane, None), name, now, deadline, Box::new(job));
    }

    /// The same for something of which one job is at work at a time, so that it can have no more than one thread stuck;
    /// those behind it that are for others go first.
    pub fn run_of(
        &mut self,
        (lane, of): (Lane, Arc<str>),
        name: &'static str,
        now: Mono,
        deadline: Duration,
        job: impl FnOnce() -> T + Send + 'static,
    ) {
        self.queue((lane, Some(of)), name, now, deadline, Box::new(job));
    }

    fn queue(
        &mut self,
        (lane, of): (Lane, Option<Arc<str>>),
        name: &'static str,
        now: Mono,
        deadline: Duration,
        work: Box<dyn FnOnce() -> T + Send>,
    ) {
        let id = self.next_id;
        self.next_id += 1;
        let due = now + deadline;
        self.open.insert(id, Open { name, lane, limit: deadline, due: Some(due) });
        self.due.insert((due, id));
        self.burst |= self.open.len() > BURST;
        let shared = &self.lanes[lane.index()];
        let mut state = lock(&shared.state);
        state.queue.push_back(Job { id, of, work });
        if state.asleep > state.wakes {
            state.wakes += 1;
            drop(state);
            shared.work.notify_one();
        } else if state.workers.len() < lane.threads() && start(shared, &mut state, &mut self.next_id).is_err() {
            self.retry.get_or_insert(now + RETRY);
        }
    }

    /// A way for a thread of another kind to send results to the loop.
    #[must_use]
    pub fn teller(&self) -> Teller<T> {
        Teller { results: Arc::clone(&self.results) }
    }

    /// Takes what has ended since the last call, in order of its end.
    pub fn results(&mut self) -> Vec<Done<T>> {
        let ended = core::mem::take(&mut *lock(&self.results.queue));
        let ended = ended.into_iter().filter_map(|(id, result)| self.close(id, result)).collect();
        if self.burst && self.open.is_empty() {
            self.burst = false;
            self.open = Map::new();
            self.lanes.iter().for_each(|shared| lock(&shared.state).queue.shrink_to(BURST));
        }
        ended
    }

    fn close(&mut self, id: u64, result: Result<T, String>) -> Option<Done<T>> {
        if id == NO_JOB {
            return result.ok().map(Done::Finished);
        }
        let open = self.open.remove(&id)?;
        if let Some(due) = open.due {
            self.due.remove(&(due, id));
        }
        Some(match (result, open.due) {
            (Ok(result), Some(_)) => Done::Finished(result),
            (Ok(result), None) => Done::Late { name: open.name, result },
            (Err(message), due) => Done::Panicked { name: open.name, message, late: due.is_none() },
        })
    }

    /// When `overdue` is to be called, if nothing happens before.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Mono> {
        sooner(self.due.first().map(|(at, _)| *at), self.retry)
    }

    /// The machine stood still: whatever is at work may take its time anew.
    pub fn thaw(&mut self, now: Mono) {
        for shared in &self.lanes {
            for (_, since) in lock(&shared.state).workers.iter_mut().filter_map(|w| w.running.as_mut()) {
                *since = now;
            }
        }
        self.due.clear();
        for (id, open) in self.open.iter_mut().filter(|(_, open)| open.due.is_some()) {
            let due = now + open.limit;
            open.due = Some(due);
            self.due.insert((due, *id));
        }
    }

    /// Names each job that has run past its deadline, once, and gives its lane a new thread. Also starts threads that
    /// were refused before. Costs nothing before `next_deadline`.
    pub fn overdue(&mut self, now: Mono) -> Vec<Overdue> {
        if self.retry.is_some_and(|at| at <= now) {
            self.staff(now);
        }
        let mut late = Vec::new();
        let later = self.due.split_off(&(now, u64::MAX));
        for (_, id) in core::mem::replace(&mut self.due, later) {
            let Some(open) = self.open.get_mut(&id) else { continue };
            open.due = self.lanes[open.lane.index()].judge(id, now, open.limit);
            if let Some(at) = open.due {
                self.due.insert((at, id));
            } else {
                late.push(Overdue { name: open.name, lane: open.lane });
                self.staff(now);
            }
        }
        late
    }

    /// Starts the threads that lanes with waiting jobs lack.
    fn staff(&mut self, now: Mono) {
        self.retry = None;
        for shared in &self.lanes {
            let mut state = lock(&shared.state);
            while state.workers.len() < shared.lane.threads() && !state.queue.is_empty() {
                if start(shared, &mut state, &mut self.next_id).is_err() {
                    self.retry = Some(now + RETRY);
                    break;
                }
            }
        }
    }

    /// Jobs whose result has not been taken yet.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// Lets the lanes finish what is queued and end, and waits for that no longer than `limit`. Returns the names of
    /// jobs that still run; results stay to be taken.
    pub fn quit(&mut self, limit: Duration) -> Vec<&'static str> {
        self.close_lanes();
        let until = Instant::now() + limit;
        for shared in &self.lanes {
            let mut state = lock(&shared.state);
            while !state.workers.is_empty() {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                state = shared.ended.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
            }
        }
        let ended: BTreeSet<u64> = lock(&self.results.queue).iter().map(|(id, _)| *id).gather();
        self.open.iter().filter(|(id, _)| !ended.contains(id)).map(|(_, open)| open.name).collect()
    }

    fn close_lanes(&self) {
        for shared in &self.lanes {
            lock(&shared.state).quit = true;
            shared.work.notify_all();
        }
    }
}

impl<T: Send + 'static> Drop for Pool<T> {
    fn drop(&mut self) {
        self.close_lanes();
    }
}

impl<T: Send + 'static> LaneShared<T> {
    /// When to look at this job again; `None` when it is overdue. An overdue job's thread is struck off the list, so
    /// that another can take its place; with too many of those it stays, and the lane waits for it.
    fn judge(&self, id: u64, now: Mono, limit: Duration) -> Option<Mono> {
        let mut state = lock(&self.state);
        let at = state.workers.iter().position(|w| w.running.is_some_and(|(job, _)| job == id));
        let Some(at) = at else {
            // Without a thread nothing will come of it. Otherwise it waits its turn behind others, which have deadlines
            // of their own, or it has ended and its result is on the way.
            return if state.workers.is_empty() { None } else { Some(now + limit.max(RETRY)) };
        };
        let since = state.workers[at].running.map_or(now, |(_, since)| since);
        if since + limit > now {
            return Some(since + limit);
        }
        if state.abandoned < self.lane.abandoned_max() {
            state.workers.swap_remove(at);
            state.abandoned += 1;
        }
        None
    }

    /// A pool thread's life.
    fn work(&self, me: u64) {
        if self.lane == Lane::Bulk {
            sys::thread::background();
        }
        if self.lane == Lane::Spawn {
            sys::mask::block_all();
        }
        while let Some(job) = self.take(me) {
            let result = catch_unwind(AssertUnwindSafe(job.work)).map_err(|panic| panic_text(panic.as_ref()));
            // Told first, so that what comes of the next job for the same is told after it.
            self.results.push(job.id, result);
            if let Some(of) = job.of {
                self.free(&of);
            }
        }
        self.ended.notify_all();
    }

    /// What one job was for may have another. This thread may be about to end, so another one is woken for it.
    fn free(&self, of: &Arc<str>) {
        let mut state = lock(&self.state);
        state.busy.retain(|o| o != of);
        if state.asleep > state.wakes && state.queue.iter().any(|job| job.of.as_ref() == Some(of)) {
            state.wakes += 1;
            drop(state);
            self.work.notify_one();
        }
    }

    /// The next job; `None` when this thread is to end.
    fn take(&self, me: u64) -> Option<Job<T>> {
        let mut state = lock(&self.state);
        loop {
            let Some(at) = state.workers.iter().position(|w| w.id == me) else {
                state.abandoned -= 1;
                return None;
            };
            if let Some(job) = state.next() {
                state.workers[at].running = Some((job.id, sys::clock::now().mono));
                return Some(job);
            }
            if state.quit && state.queue.is_empty() {
                state.workers.swap_remove(at);
                return None;
            }
            state.workers[at].running = None;
            state.asleep += 1;
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.asleep -= 1;
            state.wakes = state.wakes.saturating_sub(1);
        }
    }
}

fn start<T: Send + 'static>(
    shared: &Arc<LaneShared<T>>,
    state: &mut LaneState<T>,
    next_id: &mut u64,
) -> io::Result<()> {
    let me = *next_id;
    *next_id += 1;
    let lane = Arc::clone(shared);
    let name = shared.lane.thread_name().to_owned();
    std::thread::Builder::new().name(name).stack_size(STACK).spawn(move || lane.work(me))?;
    state.workers.push(Worker { id: me, running: None });
    Ok(())
}

/// No code of the pool panics while it holds a lock, and a job never runs under one.
fn lock<S>(mutex: &Mutex<S>) -> MutexGuard<'_, S> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn panic_text(panic: &(dyn core::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message").to_owned()
}
