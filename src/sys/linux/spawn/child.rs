//! What the child does between clone and exec. It shares memory with its parent, whose thread waits: so it allocates
//! nothing, takes no lock and calls only what is async-signal-safe, by raw system call where a C library would tell
//! its other threads.

// A long, which raw calls answer, is 32 bits wide on some targets.
#![allow(clippy::useless_conversion)]

use super::super::table::StartWords;
use super::clone::Way;
use super::{IoPriority, Plan, STEPS};
use crate::sys::plan::PidVariable;
use std::cell::Cell;
use std::convert::Infallible;
use std::ffi::CString;
use std::io;
use std::mem;
use std::os::fd::RawFd;
use std::ptr;
use std::sync::atomic::Ordering::Release;

/// Exit code of a child that could not execute its program.
const EXIT: libc::c_int = 127;

// 32-bit systems have kept the calls with 16-bit ids under the plain names.
#[cfg(any(target_arch = "x86", target_arch = "arm"))]
const SET_IDS: [libc::c_long; 3] = [libc::SYS_setgroups32, libc::SYS_setresgid32, libc::SYS_setresuid32];
#[cfg(not(any(target_arch = "x86", target_arch = "arm")))]
const SET_IDS: [libc::c_long; 3] = [libc::SYS_setgroups, libc::SYS_setresgid, libc::SYS_setresuid];

/// Everything that the child needs, built before the clone.
#[derive(Debug)]
pub(super) struct Job<'a> {
    plan: &'a Plan,
    words: StartWords<'a>,
    way: Way,
    programs: Vec<*const libc::c_char>,
    argv: Vec<*const libc::c_char>,
    envp: Vec<*const libc::c_char>,
    pid_variables: Vec<PidVariable>,
    oom_score_adj: Option<String>,
    /// The mask of processors, in words as the kernel has it.
    cpus: Vec<libc::c_ulong>,
    /// Where each source of `plan.fds` lies after it was moved out of the way.
    moved: Vec<Cell<RawFd>>,
    /// Lowest number above all targets.
    above: RawFd,
    /// Ranges of descriptors that the program does not get.
    unwanted: Vec<(libc::c_uint, libc::c_uint)>,
}

struct Failed {
    step: u32,
    errno: i32,
    which: u32,
}

type Step<T> = Result<T, Failed>;

impl<'a> Job<'a> {
    pub(super) fn new(plan: &'a Plan, words: StartWords<'a>, way: Way) -> Job<'a> {
        let pointers = |list: &[CString]| {
            let ends = std::iter::once(ptr::null());
            list.iter().map(|c| c.as_ptr()).chain(ends).collect::<Vec<_>>()
        };
        let pid_variables: Vec<PidVariable> = plan.pid_variables.iter().map(|n| PidVariable::new(n)).collect();
        let mut envp = pointers(&plan.envp);
        envp.splice(plan.envp.len()..plan.envp.len(), pid_variables.iter().map(PidVariable::as_ptr));
        let highest = plan.fds.iter().map(|(_, target)| *target).max().unwrap_or(2).max(2);
        Job {
            plan,
            words,
            way,
            programs: plan.programs.iter().map(|c| c.as_ptr()).collect(),
            argv: pointers(&plan.argv),
            envp,
            pid_variables,
            oom_score_adj: plan.oom_score_adj.map(|n| n.to_string()),
            cpus: mask(&plan.cpus),
            moved: plan.fds.iter().map(|(source, _)| Cell::new(*source)).collect(),
            above: highest.saturating_add(1),
            unwanted: between(&plan.fds),
        }
    }

    /// Goes through the steps and executes the program. To be called in the child alone.
    pub(super) fn run(&self) -> ! {
        let Err(failed) = self.steps();
        self.words.step.store(failed.step, Release);
        self.words.which.store(failed.which, Release);
        self.words.errno.store(failed.errno, Release);
        // SAFETY: ends the child without running anything that belongs to the parent.
        unsafe { libc::_exit(EXIT) }
    }

    fn steps(&self) -> Step<Infallible> {
        let plan = self.plan;
        if let Some(text) = &self.oom_score_adj {
            step(1, write_file(libc::AT_FDCWD, c"/proc/self/oom_score_adj".as_ptr(), text.as_bytes()))?;
        }
        if let (Way::Clone, Some(cgroup)) = (self.way, plan.cgroup) {
            step(2, write_file(cgroup, c"cgroup.procs".as_ptr(), b"0"))?;
        }
        if plan.session {
            // SAFETY: a plain call.
            step(3, answer(unsafe { libc::setsid() }.into()))?;
        }
        self.signals();
        if let Some(umask) = plan.umask {
            // SAFETY: a plain call that cannot fail.
            unsafe { libc::umask(umask) };
        }
        if let Some(nice) = plan.nice {
            // SAFETY: a plain call; 0 and 0 mean this process.
            step(4, answer(unsafe { libc::syscall(libc::SYS_setpriority, 0, 0, nice) }))?;
        }
        self.share_of_machine()?;
        for variable in &self.pid_variables {
            // SAFETY: a plain call that cannot fail.
            variable.set(u32::try_from(unsafe { libc::syscall(libc::SYS_getpid) }).unwrap_or(0));
        }
        let program_fd = self.descriptors()?;
        if program_fd.is_none() {
            self.let_go();
        }
        self.rlimits()?;
        self.ids()?;
        if let Some(cwd) = &plan.cwd {
            // SAFETY: a C string of the plan.
            step(10, answer(unsafe { libc::chdir(cwd.as_ptr()) }.into()))?;
        }
        unblock();
        self.execute(program_fd)
    }

    fn share_of_machine(&self) -> Step<()> {
        if let Some(priority) = self.plan.io_priority {
            let (class, level) = match priority {
                IoPriority::Realtime(level) => (1, level),
                IoPriority::BestEffort(level) => (2, level),
                IoPriority::Idle => (3, 0),
            };
            let value = class << 13 | libc::c_int::from(level);
            // SAFETY: a plain call; 1 and 0 mean this process.
            step(12, answer(unsafe { libc::syscall(libc::SYS_ioprio_set, 1, 0, value) }))?;
        }
        if !self.cpus.is_empty() {
            let (bytes, mask) = (size_of_val(self.cpus.as_slice()), self.cpus.as_ptr());
            // SAFETY: the kernel reads so many bytes of the mask; 0 means this process.
            step(13, answer(unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, bytes, mask) }))?;
        }
        Ok(())
    }

    /// SIGPIPE is ignored in this program but not in its children. Handlers of the parent would run in its memory.
    fn signals(&self) {
        // SAFETY: all zeros is a valid action: the default one, with an empty mask.
        let default: libc::sigaction = unsafe { mem::zeroed() };
        // SAFETY: `default` is valid; the table of actions is a copy of the child's own.
        unsafe { libc::sigaction(libc::SIGPIPE, &raw const default, ptr::null_mut()) };
        if self.way == Way::Clone3 {
            // CLONE_CLEAR_SIGHAND has done the rest.
            return;
        }
        for number in 1..=super::super::signals::HIGHEST {
            // SAFETY: all zeros is a valid value to be overwritten.
            let mut now: libc::sigaction = unsafe { mem::zeroed() };
            // SAFETY: both are valid; numbers that cannot be changed are refused without harm.
            unsafe {
                if libc::sigaction(number, ptr::null(), &raw mut now) == 0 && now.sa_sigaction != libc::SIG_IGN {
                    libc::sigaction(number, &raw const default, ptr::null_mut());
                }
            }
        }
    }

    /// First every source that could be overwritten is moved above all targets, then each is put in its place.
    fn descriptors(&self) -> Step<Option<RawFd>> {
        let up = |fd: RawFd| {
            // SAFETY: a plain call on a number; the result is checked.
            step(5, answer(unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, self.above) }.into()))
        };
        let program_fd = match self.plan.program_fd {
            Some(fd) if fd < self.above => Some(up(fd)?),
            other => other,
        };
        let pairs = || self.plan.fds.iter().zip(&self.moved);
        for ((source, target), moved) in pairs() {
            if source != target && *source < self.above {
                moved.set(up(*source)?);
            }
        }
        for ((_, target), moved) in pairs() {
            let result = if moved.get() == *target {
                // SAFETY: as above.
                unsafe { libc::fcntl(*target, libc::F_SETFD, 0) }
            } else {
                // SAFETY: as above.
                unsafe { libc::dup3(moved.get(), *target, 0) }
            };
            step(5, answer(result.into()))?;
        }
        Ok(program_fd)
    }

    /// Executing the program would close the rest as well. But where that is on a disk that does not answer, a child
    /// that nobody can kill would hold the lock of a hob that has ended.
    fn let_go(&self) {
        for (first, last) in &self.unwanted {
            // SAFETY: a plain call in a process with a table of descriptors of its own; older kernels refuse it.
            unsafe { libc::syscall(libc::SYS_close_range, *first, *last, 0) };
        }
    }

    fn rlimits(&self) -> Step<()> {
        for (resource, soft, hard) in &self.plan.rlimits {
            let limit = [*soft, *hard];
            let none = ptr::null::<u64>();
            // SAFETY: the kernel reads two 64-bit numbers; 0 means this process.
            let set = answer(unsafe { libc::syscall(libc::SYS_prlimit64, 0, *resource, limit.as_ptr(), none) });
            set.map_err(|errno| Failed { step: 6, errno, which: (*resource).unsigned_abs() })?;
        }
        Ok(())
    }

    fn ids(&self) -> Step<()> {
        let [set_groups, set_gid, set_uid] = SET_IDS;
        if let Some(groups) = &self.plan.groups {
            // SAFETY: the kernel reads as many numbers as are there.
            step(7, answer(unsafe { libc::syscall(set_groups, groups.len(), groups.as_ptr()) }))?;
        }
        if let Some(gid) = self.plan.gid {
            // SAFETY: a plain call.
            step(8, answer(unsafe { libc::syscall(set_gid, gid, gid, gid) }))?;
        }
        if let Some(uid) = self.plan.uid {
            // SAFETY: a plain call.
            step(9, answer(unsafe { libc::syscall(set_uid, uid, uid, uid) }))?;
        }
        Ok(())
    }

    fn execute(&self, program_fd: Option<RawFd>) -> Step<Infallible> {
        let execute = |errno, which| Failed { step: 11, errno, which };
        let (argv, envp) = (self.argv.as_ptr(), self.envp.as_ptr());
        if let Some(fd) = program_fd {
            // SAFETY: both lists end with a null pointer; the path is empty, so the file of the descriptor is executed.
            unsafe { libc::syscall(libc::SYS_execveat, fd, c"".as_ptr(), argv, envp, libc::AT_EMPTY_PATH) };
            return Err(execute(errno(), 0));
        }
        let mut refused = execute(libc::ENOENT, 0);
        for (which, program) in (0u32..).zip(&self.programs) {
            // SAFETY: a C string of the plan, and lists that end with a null pointer.
            unsafe { libc::execve(*program, argv, envp) };
            match errno() {
                libc::ENOENT | libc::ENOTDIR => {}
                libc::EACCES => refused = execute(libc::EACCES, which),
                other => return Err(execute(other, which)),
            }
        }
        Err(refused)
    }
}

const _: () = assert!(STEPS.len() == 14);

/// The ranges of numbers above standard error that no target has.
fn between(fds: &[(RawFd, RawFd)]) -> Vec<(libc::c_uint, libc::c_uint)> {
    let mut targets: Vec<libc::c_uint> = fds.iter().filter_map(|(_, target)| (*target).try_into().ok()).collect();
    targets.sort_unstable();
    let (mut ranges, mut first) = (Vec::new(), 3);
    for target in targets.into_iter().filter(|target| *target >= 3) {
        if target > first {
            ranges.push((first, target - 1));
        }
        first = target + 1;
    }
    ranges.push((first, libc::c_uint::MAX));
    ranges
}

fn mask(cpus: &[usize]) -> Vec<libc::c_ulong> {
    const BITS: usize = libc::c_ulong::BITS as usize;
    let words = cpus.iter().max().map_or(0, |last| last / BITS + 1);
    let mut mask = vec![0; words];
    for cpu in cpus {
        if let Some(word) = mask.get_mut(cpu / BITS) {
            *word |= 1 << (cpu % BITS);
        }
    }
    mask
}

/// Lets signals in again, now that no handler of the parent is left.
fn unblock() {
    // SAFETY: plain data; sigemptyset initialises it, and the mask is the child's own.
    unsafe {
        let mut empty: libc::sigset_t = mem::zeroed();
        libc::sigemptyset(&raw mut empty);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const empty, ptr::null_mut());
    }
}

fn write_file(folder: RawFd, name: *const libc::c_char, text: &[u8]) -> Result<i32, i32> {
    // SAFETY: `name` is a C string; the results are checked.
    let fd = answer(unsafe { libc::openat(folder, name, libc::O_WRONLY | libc::O_CLOEXEC) }.into())?;
    // SAFETY: `text` is valid for its length.
    let written = unsafe { libc::write(fd, text.as_ptr().cast(), text.len()) };
    let result = if written < 0 { Err(errno()) } else { Ok(0) };
    // SAFETY: the descriptor was opened above and is used nowhere else.
    unsafe { libc::close(fd) };
    result
}

fn answer(result: libc::c_long) -> Result<i32, i32> {
    if result == -1 { Err(errno()) } else { Ok(i32::try_from(result).unwrap_or(0)) }
}

fn step<T>(step: u32, result: Result<T, i32>) -> Step<T> {
    result.map_err(|errno| Failed { step, errno, which: 0 })
}

fn errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}
