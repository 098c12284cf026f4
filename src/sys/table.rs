//! The run table: a piece of memory that the keeper and its daemons share, so that no start and no end is ever
//! unknown.
//!
//! A header page, then 16,384 slots of 64 bytes. One slot is one run: the daemon writes the run's id into it before
//! the clone, the kernel the pid before the child's first instruction, the child the reason if it cannot execute its
//! program, and whoever reaps the status and usage before it reaps. Every access is atomic; a slot's id and its end
//! are published last. Only the daemon takes and releases slots.

use super::os::memory;
use super::wait::{Status, Usage};
use super::{clock, identity};
use crate::base::hash::{FNV, fnv};
use crate::base::ids::RunId;
use crate::base::limits::RUN_SLOTS;
use crate::base::time::{Mono, Wall};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicI32, AtomicI64, AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

const MAGIC: u64 = u64::from_le_bytes(*b"hob-runs");
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 4096;
const BYTES: usize = HEADER_BYTES + RUN_SLOTS * size_of::<Cells>();
/// Free words in the header for later use.
pub const SPARE_WORDS: usize = 8;
/// Owners of output for which it is noted at once that some was dropped.
const DROPPED: usize = 64;

/// One slot as it lies in memory.
#[repr(C, align(64))]
struct Cells {
    /// 0: free.
    run: AtomicU64,
    /// Written by the kernel (CLONE_PARENT_SETTID); 0: the clone has not happened.
    pid: AtomicI32,
    exec_errno: AtomicI32,
    /// 0: not ended, 1: with a code, 2: by a signal.
    ended: AtomicU32,
    status: AtomicI32,
    cpu_nanos: AtomicU64,
    max_rss: AtomicU64,
    /// Which step of the start failed, and which candidate of the program, for the text of the error.
    exec_step: AtomicU32,
    exec_which: AtomicU32,
    /// What the keeper does when the daemon dies: nothing (0), or an `OnDeath` and whether it was done.
    on_death: AtomicU64,
    /// What the kernel may have taken for the child's own memory before it executed its program; 0: not known.
    shared_peak: AtomicU64,
}

/// What the keeper does to a run when the daemon dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnDeath {
    /// The signal that asks its main process to end.
    pub signal: u8,
    /// How long it may take to do so, if no daemon comes up that takes care of it; at most 49 days.
    pub grace: Duration,
}

impl OnDeath {
    const ASKED: u64 = 1 << 8;

    fn word(self) -> u64 {
        let grace = u32::try_from(self.grace.as_millis()).unwrap_or(u32::MAX);
        u64::from(grace) << 32 | u64::from(self.signal)
    }

    fn of(word: u64) -> Option<OnDeath> {
        let signal = u8::try_from(word & 0xff).ok().filter(|s| *s != 0)?;
        Some(OnDeath { signal, grace: Duration::from_millis(word >> 32) })
    }
}

#[repr(C)]
struct Header {
    magic: AtomicU64,
    version: AtomicU32,
    slots: AtomicU32,
    keeper_start_mono: AtomicU64,
    keeper_start_wall: AtomicI64,
    keeper_pid: AtomicU32,
    /// One more than the highest slot ever taken.
    high_water: AtomicU32,
    boot_hash: AtomicU64,
    capture_owner: AtomicU64,
    capture_pos: AtomicU64,
    spare: [AtomicU64; SPARE_WORDS],
    /// Whose output was dropped and how many bytes, which are in no file yet; 0: free.
    dropped: [(AtomicU64, AtomicU64); DROPPED],
}

const _: () = assert!(size_of::<Cells>() == 64 && size_of::<Header>() <= HEADER_BYTES);

/// The number of a slot, always inside the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u32);

impl Slot {
    /// `None` for a number beyond the table.
    #[must_use]
    pub fn from_index(index: u32) -> Option<Slot> {
        ((index as usize) < RUN_SLOTS).then_some(Slot(index))
    }

    #[must_use]
    pub fn index(self) -> u32 {
        self.0
    }
}

/// What a slot says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotView {
    /// 0 for a free slot.
    pub run: RunId,
    /// `None`: the clone has not happened (yet); a run of a dead daemon without a pid never ran.
    pub pid: Option<u32>,
    /// Not 0: the child could not execute its program.
    pub exec_errno: i32,
    /// Set before the process is reaped, by whoever reaps it.
    pub ended: Option<(Status, Usage)>,
}

/// The table; clones share one mapping.
#[derive(Clone, Debug)]
pub struct RunTable {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    fd: OwnedFd,
    at: NonNull<u8>,
    /// No slot below this one is free. The lock makes `take` safe from several threads of the one daemon.
    lowest_free: Mutex<u32>,
}

// SAFETY: the mapping lives as long as `Inner`, is never moved, and is accessed through atomics alone.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

impl Drop for Inner {
    fn drop(&mut self) {
        // SAFETY: the mapping was made with this address and length, and no reference into it outlives `Inner`.
        unsafe { libc::munmap(self.at.as_ptr().cast(), BYTES) };
    }
}

impl RunTable {
    /// Makes an empty table that belongs to this process as its keeper.
    ///
    /// # Errors
    /// ENOMEM, EMFILE and the like.
    pub fn create() -> io::Result<RunTable> {
        let table = RunTable::map(memory::create(c"hob-runs", BYTES)?, libc::PROT_READ | libc::PROT_WRITE)?;
        let (h, now) = (table.header(), clock::now());
        h.version.store(VERSION, Relaxed);
        h.slots.store(u32::try_from(RUN_SLOTS).unwrap_or(0), Relaxed);
        h.keeper_start_mono.store(now.mono.0, Relaxed);
        h.keeper_start_wall.store(now.wall.0, Relaxed);
        h.keeper_pid.store(std::process::id(), Relaxed);
        h.boot_hash.store(boot_hash(), Relaxed);
        h.magic.store(MAGIC, Release);
        Ok(table)
    }

    /// Maps a table that a keeper made.
    ///
    /// # Errors
    /// `InvalidData` when the descriptor is not such a table (size, kind, magic number or version), ENOMEM.
    pub fn open(fd: OwnedFd) -> io::Result<RunTable> {
        RunTable::opened(fd, libc::PROT_READ | libc::PROT_WRITE)
    }

    fn opened(fd: OwnedFd, access: libc::c_int) -> io::Result<RunTable> {
        let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("not a run table: {what}"));
        memory::verify(fd.as_fd(), BYTES).map_err(bad)?;
        let table = RunTable::map(fd, access)?;
        let h = table.header();
        if h.magic.load(Acquire) != MAGIC || h.slots.load(Relaxed) as usize != RUN_SLOTS {
            return Err(bad("wrong content"));
        }
        match h.version.load(Relaxed) {
            VERSION => Ok(table),
            other => Err(bad(&format!("version {other}"))),
        }
    }

    /// Whether a descriptor, which may be one to read from alone, is a table that this program can work with. Answers
    /// how many slots are taken.
    ///
    /// # Errors
    /// As `open`.
    pub fn look(fd: OwnedFd) -> io::Result<usize> {
        RunTable::opened(fd, libc::PROT_READ).map(|table| table.iter().count())
    }

    fn map(fd: OwnedFd, access: libc::c_int) -> io::Result<RunTable> {
        // SAFETY: a new mapping at an address of the kernel's choice; the result is checked. What `memory` makes
        // cannot shrink under it, or is shrunk by nobody who has it.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), BYTES, access, libc::MAP_SHARED, fd.as_raw_fd(), 0) };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let at = NonNull::new(at.cast()).ok_or_else(|| io::Error::other("mapped at zero"))?;
        Ok(RunTable { inner: Arc::new(Inner { fd, at, lowest_free: Mutex::new(0) }) })
    }

    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.inner.fd.as_fd()
    }

    /// Takes the lowest free slot for a run, or `None` when the table is full. For the daemon alone.
    #[must_use]
    pub fn take(&self, run: RunId) -> Option<Slot> {
        self.take_for(run, None)
    }

    /// The same for a run that the keeper is to end when the daemon dies.
    #[must_use]
    pub fn take_for(&self, run: RunId, on_death: Option<OnDeath>) -> Option<Slot> {
        let mut lowest = self.inner.lowest_free.lock().unwrap_or_else(PoisonError::into_inner);
        let free =
            (*lowest..u32::try_from(RUN_SLOTS).ok()?).map(Slot).find(|s| self.cells(*s).run.load(Acquire) == 0)?;
        let c = self.cells(free);
        // These stores also make the page present, so that the kernel's write of the pid cannot fault.
        c.pid.store(0, Relaxed);
        c.ended.store(0, Relaxed);
        c.exec_errno.store(0, Relaxed);
        c.exec_step.store(0, Relaxed);
        c.exec_which.store(0, Relaxed);
        c.on_death.store(on_death.map_or(0, OnDeath::word), Relaxed);
        c.shared_peak.store(0, Relaxed);
        self.header().high_water.fetch_max(free.0 + 1, Release);
        c.run.store(run.0, Release);
        *lowest = free.0 + 1;
        Some(free)
    }

    /// Frees a slot, after its process was reaped and its end is on record (or its clone never happened).
    pub fn release(&self, slot: Slot) {
        let mut lowest = self.inner.lowest_free.lock().unwrap_or_else(PoisonError::into_inner);
        self.cells(slot).run.store(0, Release);
        *lowest = slot.0.min(*lowest);
    }

    #[must_use]
    pub fn slot(&self, slot: Slot) -> SlotView {
        let c = self.cells(slot);
        let run = RunId(c.run.load(Acquire));
        let usage = || Usage { cpu: Duration::from_nanos(c.cpu_nanos.load(Relaxed)), max_rss: c.max_rss.load(Relaxed) };
        let ended = match c.ended.load(Acquire) {
            1 => Some((Status::Code(c.status.load(Relaxed)), usage())),
            2 => Some((Status::Signal(c.status.load(Relaxed)), usage())),
            _ => None,
        };
        let pid = u32::try_from(c.pid.load(Acquire)).ok().filter(|p| *p != 0);
        SlotView { run, pid, exec_errno: c.exec_errno.load(Acquire), ended }
    }

    /// Records an end. To be called before the process is reaped, so that a death in between loses nothing; a second
    /// call for the same end changes nothing.
    pub fn set_ended(&self, slot: Slot, status: Status, usage: Usage) {
        let c = self.cells(slot);
        let (kind, number) = match status {
            Status::Code(code) => (1, code),
            Status::Signal(signal) => (2, signal),
        };
        c.status.store(number, Relaxed);
        c.cpu_nanos.store(u64::try_from(usage.cpu.as_nanos()).unwrap_or(u64::MAX), Relaxed);
        c.max_rss.store(usage.max_rss, Relaxed);
        c.ended.store(kind, Release);
    }

    /// The child of a slot has executed its program, and before that shared memory of up to so many bytes with this
    /// process, all of which the kernel counts as the child's.
    pub fn set_shared_peak(&self, slot: Slot, bytes: u64) {
        self.cells(slot).shared_peak.store(bytes, Release);
    }

    /// What `set_shared_peak` was told. `None`: whoever started it died before it could tell.
    #[must_use]
    pub fn shared_peak(&self, slot: Slot) -> Option<u64> {
        Some(self.cells(slot).shared_peak.load(Acquire)).filter(|bytes| *bytes > 0)
    }

    /// What the keeper is to do to the run of a slot when the daemon dies.
    #[must_use]
    pub fn on_death(&self, slot: Slot) -> Option<OnDeath> {
        OnDeath::of(self.cells(slot).on_death.load(Acquire))
    }

    /// The keeper does it. To be called before.
    pub fn set_asked(&self, slot: Slot) {
        self.cells(slot).on_death.fetch_or(OnDeath::ASKED, Release);
    }

    /// Whether the keeper has done it.
    #[must_use]
    pub fn asked(&self, slot: Slot) -> bool {
        self.cells(slot).on_death.load(Acquire) & OnDeath::ASKED != 0
    }

    /// The slot of a process that has not ended.
    #[must_use]
    pub fn find_pid(&self, pid: u32) -> Option<Slot> {
        let pid = i32::try_from(pid).ok().filter(|p| *p != 0)?;
        self.slots().find(|s| {
            let c = self.cells(*s);
            c.run.load(Acquire) != 0 && c.pid.load(Acquire) == pid && c.ended.load(Acquire) == 0
        })
    }

    /// All taken slots, lowest first.
    pub fn iter(&self) -> impl Iterator<Item = (Slot, SlotView)> + '_ {
        self.slots().map(|s| (s, self.slot(s))).filter(|(_, view)| view.run != RunId(0))
    }

    /// One more than the highest slot ever taken: no scan needs to go further.
    #[must_use]
    pub fn high_water(&self) -> u32 {
        self.header().high_water.load(Acquire).min(u32::try_from(RUN_SLOTS).unwrap_or(0))
    }

    /// When the keeper of this table started, by both clocks.
    #[must_use]
    pub fn keeper_start(&self) -> (Mono, Wall) {
        let h = self.header();
        (Mono(h.keeper_start_mono.load(Relaxed)), Wall(h.keeper_start_wall.load(Relaxed)))
    }

    #[must_use]
    pub fn keeper_pid(&self) -> u32 {
        self.header().keeper_pid.load(Relaxed)
    }

    /// A hash of the boot id under which the table was made; with `keeper_start` it names this keeper among all.
    #[must_use]
    pub fn boot_hash(&self) -> u64 {
        self.header().boot_hash.load(Relaxed)
    }

    /// Whose bytes are in capture's transfer pipe; a word for capture alone.
    #[must_use]
    pub fn capture_owner(&self) -> u64 {
        self.header().capture_owner.load(Acquire)
    }

    pub fn set_capture_owner(&self, value: u64) {
        self.header().capture_owner.store(value, Release);
    }

    /// The position that goes with `capture_owner`.
    #[must_use]
    pub fn capture_pos(&self) -> u64 {
        self.header().capture_pos.load(Acquire)
    }

    pub fn set_capture_pos(&self, value: u64) {
        self.header().capture_pos.store(value, Release);
    }

    /// Bytes of output of this owner, which is not 0, that were dropped and are told nowhere yet.
    #[must_use]
    pub fn dropped(&self, owner: u64) -> u64 {
        let found = self.header().dropped.iter().find(|(of, _)| of.load(Acquire) == owner);
        found.map_or(0, |(_, bytes)| bytes.load(Acquire))
    }

    /// Notes them; with 0 they were told. Of more owners than there is room for, the last ones are not noted.
    pub fn set_dropped(&self, owner: u64, bytes: u64) {
        let all = &self.header().dropped;
        match all.iter().find(|(of, _)| of.load(Acquire) == owner) {
            Some((of, noted)) => {
                noted.store(bytes, Release);
                if bytes == 0 {
                    of.store(0, Release);
                }
            }
            None if bytes > 0 => {
                let free = all.iter().find(|(of, _)| of.compare_exchange(0, owner, AcqRel, Acquire).is_ok());
                free.iter().for_each(|(_, noted)| noted.store(bytes, Release));
            }
            None => {}
        }
    }

    /// A spare word of the header; `None` beyond the eighth.
    #[must_use]
    pub fn spare(&self, index: usize) -> Option<&AtomicU64> {
        self.header().spare.get(index)
    }

    /// Where the kernel writes the pid, and the child the errno, the failed step and the candidate.
    pub(super) fn start_words(&self, slot: Slot) -> StartWords<'_> {
        let c = self.cells(slot);
        StartWords { pid: &c.pid, errno: &c.exec_errno, step: &c.exec_step, which: &c.exec_which }
    }

    fn slots(&self) -> impl Iterator<Item = Slot> {
        (0..self.high_water()).map(Slot)
    }

    fn header(&self) -> &Header {
        // SAFETY: the mapping begins with a header, is aligned to a page and lives as long as `self`; all fields are
        // atomics, for which any bit pattern is valid.
        unsafe { self.inner.at.cast::<Header>().as_ref() }
    }

    fn cells(&self, slot: Slot) -> &Cells {
        // SAFETY: a `Slot` is less than RUN_SLOTS, so the address is inside the mapping, and 64-byte aligned like the
        // page it starts from; all fields are atomics.
        unsafe { self.inner.at.add(HEADER_BYTES).cast::<Cells>().add(slot.0 as usize).as_ref() }
    }
}

/// The words of a slot that a start is reported in.
#[derive(Clone, Copy, Debug)]
pub(super) struct StartWords<'a> {
    pub(super) pid: &'a AtomicI32,
    pub(super) errno: &'a AtomicI32,
    pub(super) step: &'a AtomicU32,
    pub(super) which: &'a AtomicU32,
}

/// A hash of the boot id; 0 where there is none.
#[must_use]
pub fn boot_hash() -> u64 {
    let id = identity::boot_id();
    if id.is_empty() {
        return 0;
    }
    fnv(FNV, id.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set_pid(t: &RunTable, slot: Slot, pid: i32) {
        t.start_words(slot).pid.store(pid, Release);
    }

    #[test]
    fn slots_are_taken_lowest_first_and_all_of_them() {
        let t = RunTable::create().unwrap();
        for i in 0..RUN_SLOTS {
            assert_eq!(t.take(RunId(i as u64 + 1)).unwrap().index() as usize, i);
        }
        assert_eq!(t.take(RunId(99_999)), None, "a full table refuses");
        let (low, high) = (Slot::from_index(7).unwrap(), Slot::from_index(9000).unwrap());
        t.release(high);
        t.release(low);
        assert_eq!(t.take(RunId(20_001)), Some(low));
        assert_eq!(t.take(RunId(20_002)), Some(high));
        assert_eq!(t.take(RunId(20_003)), None);
        assert_eq!(t.high_water() as usize, RUN_SLOTS);
    }

    #[test]
    fn a_second_mapping_sees_everything() {
        let t = RunTable::create().unwrap();
        let a = t.take(RunId(5)).unwrap();
        let b = t.take(RunId(6)).unwrap();
        set_pid(&t, a, 1234);
        let usage = Usage { cpu: Duration::from_micros(1500), max_rss: 1 << 33 };
        t.set_ended(a, Status::Signal(9), usage);
        t.set_capture_owner(3);
        t.set_capture_pos(u64::MAX);
        let other = RunTable::open(t.fd().try_clone_to_owned().unwrap()).unwrap();
        let views: Vec<_> = other.iter().collect();
        let ended = SlotView { run: RunId(5), pid: Some(1234), exec_errno: 0, ended: Some((Status::Signal(9), usage)) };
        let intent = SlotView { run: RunId(6), pid: None, exec_errno: 0, ended: None };
        assert_eq!(views, [(a, ended), (b, intent)]);
        assert_eq!((other.capture_owner(), other.capture_pos()), (3, u64::MAX));
        assert_eq!(other.keeper_start(), t.keeper_start());
        assert_eq!(other.keeper_pid(), std::process::id());
        assert_ne!(other.keeper_start().0, Mono(0));
        other.spare(7).unwrap().store(8, Release);
        assert_eq!(t.spare(7).unwrap().load(Acquire), 8);
        assert!(t.spare(8).is_none());
        assert_eq!(other.take(RunId(7)).unwrap().index(), 2, "a later daemon goes on with the free slots");
    }

    #[test]
    fn a_used_slot_starts_clean() {
        let t = RunTable::create().unwrap();
        let s = t.take(RunId(1)).unwrap();
        set_pid(&t, s, 77);
        t.start_words(s).errno.store(2, Release);
        t.set_ended(s, Status::Code(127), Usage::default());
        t.set_shared_peak(s, 4096);
        assert_eq!(t.shared_peak(s), Some(4096));
        t.release(s);
        assert_eq!(t.iter().count(), 0);
        assert_eq!(t.take(RunId(2)), Some(s));
        assert_eq!(t.shared_peak(s), None);
        assert_eq!(t.slot(s), SlotView { run: RunId(2), pid: None, exec_errno: 0, ended: None });
    }

    #[test]
    fn what_happens_at_a_death_is_known_and_a_used_slot_forgets_it() {
        let t = RunTable::create().unwrap();
        let on_death = OnDeath { signal: 15, grace: Duration::from_millis(1_500) };
        let s = t.take_for(RunId(1), Some(on_death)).unwrap();
        assert_eq!((t.on_death(s), t.asked(s)), (Some(on_death), false));
        t.set_asked(s);
        assert_eq!((t.on_death(s), t.asked(s)), (Some(on_death), true));
        t.release(s);
        assert_eq!(t.take(RunId(2)), Some(s));
        assert_eq!((t.on_death(s), t.asked(s)), (None, false));
    }

    #[test]
    fn only_living_processes_are_found_by_pid() {
        let t = RunTable::create().unwrap();
        let (a, b) = (t.take(RunId(1)).unwrap(), t.take(RunId(2)).unwrap());
        assert_eq!(t.find_pid(0), None, "a slot without a process has no pid to be found by");
        set_pid(&t, a, 50);
        assert_eq!(t.find_pid(50), Some(a));
        t.set_ended(a, Status::Code(0), Usage::default());
        assert_eq!(t.find_pid(50), None);
        set_pid(&t, b, 50);
        assert_eq!(t.find_pid(50), Some(b), "the number was used again by the kernel");
        t.release(b);
        assert_eq!(t.find_pid(50), None);
    }

    #[test]
    fn what_was_dropped_is_noted_until_it_is_told() {
        let t = RunTable::create().unwrap();
        for owner in 1..=DROPPED as u64 {
            t.set_dropped(owner, owner * 10);
        }
        t.set_dropped(1000, 5);
        t.set_dropped(1000, 0);
        t.set_dropped(7, 71);
        let other = RunTable::open(t.fd().try_clone_to_owned().unwrap()).unwrap();
        assert_eq!([1, 7, 64, 1000].map(|owner| other.dropped(owner)), [10, 71, 640, 0]);
        other.set_dropped(7, 0);
        t.set_dropped(1000, 6);
        assert_eq!((t.dropped(7), other.dropped(1000)), (0, 6), "its place is used again");
    }

    #[test]
    fn what_is_not_a_table_is_refused() {
        let open = |fd: OwnedFd| RunTable::open(fd).unwrap_err().to_string();
        assert!(open(std::fs::File::open("/dev/null").unwrap().into()).contains("wrong size"));
        assert!(open(memory::create(c"t", BYTES).unwrap()).contains("wrong content"));
        let t = RunTable::create().unwrap();
        t.header().version.store(9, Relaxed);
        assert!(open(t.fd().try_clone_to_owned().unwrap()).contains("version 9"));
    }
}
