//! What the child does between fork and exec. Other threads of its parent may have been anywhere at the fork: so it
//! allocates nothing, takes no lock and calls only what is async-signal-safe.

use super::super::table::StartWords;
use super::super::{rlimit, signals};
use super::{Plan, move_up, own};
use crate::sys::plan::PidVariable;
use std::cell::Cell;
use std::convert::Infallible;
use std::ffi::CString;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::Ordering::Release;

/// Exit code of a child that could not execute its program.
const EXIT: libc::c_int = 127;

/// Everything that the child needs, built before the fork.
#[derive(Debug)]
pub(super) struct Job<'a> {
    plan: &'a Plan,
    words: StartWords<'a>,
    /// Closed by the exec; takes what failed.
    report: OwnedFd,
    parent: libc::pid_t,
    programs: Vec<*const libc::c_char>,
    /// The open program, out of the way, and a path to it where the system executes paths alone.
    program: Option<(OwnedFd, CString)>,
    argv: Vec<*const libc::c_char>,
    envp: Vec<*const libc::c_char>,
    pid_variables: Vec<PidVariable>,
    limits: Vec<(libc::c_int, libc::rlimit)>,
    groups: Option<(libc::c_int, Vec<libc::gid_t>)>,
    /// Where each source of `plan.fds` lies after it was moved out of the way.
    moved: Vec<Cell<RawFd>>,
    /// Lowest number above all targets.
    above: RawFd,
    inherited: own::Inherited,
}

struct Failed {
    step: i32,
    errno: i32,
    which: i32,
}

type Step<T> = Result<T, Failed>;

impl<'a> Job<'a> {
    pub(super) fn new(plan: &'a Plan, words: StartWords<'a>, report: RawFd) -> io::Result<Job<'a>> {
        let pointers = |list: &[CString]| {
            let ends = std::iter::once(ptr::null());
            list.iter().map(|c| c.as_ptr()).chain(ends).collect::<Vec<_>>()
        };
        let pid_variables: Vec<PidVariable> = plan.pid_variables.iter().map(|n| PidVariable::new(n)).collect();
        let mut envp = pointers(&plan.envp);
        envp.splice(plan.envp.len()..plan.envp.len(), pid_variables.iter().map(PidVariable::as_ptr));
        let highest = plan.fds.iter().map(|(_, target)| *target).max().unwrap_or(2).max(2);
        let above = highest.saturating_add(1);
        let program = plan.program_fd.map(|fd| Ok::<_, io::Error>((move_up(fd, above)?, own::program_path(fd)?)));
        Ok(Job {
            plan,
            words,
            report: move_up(report, above)?,
            // SAFETY: a plain call that cannot fail.
            parent: unsafe { libc::getpid() },
            programs: plan.programs.iter().map(|c| c.as_ptr()).collect(),
            program: program.transpose()?,
            argv: pointers(&plan.argv),
            envp,
            pid_variables,
            limits: plan.rlimits.iter().map(limit).collect(),
            groups: plan.groups.as_ref().map(|list| group_list(list, plan.gid)),
            moved: plan.fds.iter().map(|(source, _)| Cell::new(*source)).collect(),
            above,
            inherited: own::Inherited::new()?,
        })
    }

    /// Goes through the steps and executes the program. To be called in the child alone.
    pub(super) fn run(&self) -> ! {
        let Err(failed) = self.start();
        let words = [failed.errno, failed.step, failed.which];
        self.words.step.store(u32::try_from(failed.step).unwrap_or(0), Release);
        self.words.which.store(u32::try_from(failed.which).unwrap_or(0), Release);
        self.words.errno.store(failed.errno, Release);
        // SAFETY: `words` is readable for its size; a pipe takes so few bytes whole. Then the child ends without
        // running anything that belongs to the parent.
        unsafe {
            libc::write(self.report.as_raw_fd(), words.as_ptr().cast(), size_of_val(&words));
            libc::_exit(EXIT)
        }
    }

    fn start(&self) -> Step<Infallible> {
        // SAFETY: a plain call that cannot fail.
        let orphaned = || unsafe { libc::getppid() } != self.parent;
        if orphaned() {
            // Nobody waits, and the slot may already be another run's.
            // SAFETY: ends the child without running anything that belongs to the parent.
            unsafe { libc::_exit(EXIT) }
        }
        // SAFETY: a plain call that cannot fail.
        self.words.pid.store(unsafe { libc::getpid() }, Release);
        if orphaned() {
            // The next daemon may have looked before the pid was there: then this start did not happen.
            return Err(Failed { step: 0, errno: libc::EAGAIN, which: 0 });
        }
        self.steps()
    }

    fn steps(&self) -> Step<Infallible> {
        let plan = self.plan;
        if plan.io_priority.is_some() {
            return Err(Failed { step: 12, errno: libc::ENOTSUP, which: 0 });
        }
        if !plan.cpus.is_empty() {
            return Err(Failed { step: 13, errno: libc::ENOTSUP, which: 0 });
        }
        for variable in &self.pid_variables {
            // SAFETY: a plain call that cannot fail.
            variable.set(u32::try_from(unsafe { libc::getpid() }).unwrap_or(0));
        }
        if plan.oom_score_adj.is_some() {
            step(1, Err::<(), _>(libc::ENOTSUP))?;
        }
        if plan.cgroup.is_some() {
            step(2, Err::<(), _>(libc::ENOTSUP))?;
        }
        if plan.session {
            // SAFETY: a plain call.
            step(3, answer(unsafe { libc::setsid() }))?;
        }
        reset_signals();
        if let Some(umask) = plan.umask.and_then(|u| libc::mode_t::try_from(u).ok()) {
            // SAFETY: a plain call that cannot fail.
            unsafe { libc::umask(umask) };
        }
        if let Some(nice) = plan.nice {
            // SAFETY: a plain call; 0 means this process.
            step(4, answer(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) }))?;
        }
        self.inherited.close_on_exec();
        self.descriptors()?;
        for (resource, limit) in &self.limits {
            // SAFETY: `limit` is valid to read from.
            let set = answer(unsafe { libc::setrlimit(*resource, ptr::from_ref(limit)) });
            set.map_err(|errno| Failed { step: 6, errno, which: *resource })?;
        }
        self.ids()?;
        if let Some(cwd) = &plan.cwd {
            // SAFETY: a C string of the plan.
            step(10, answer(unsafe { libc::chdir(cwd.as_ptr()) }))?;
        }
        unblock();
        self.execute()
    }

    /// First every source that could be overwritten is moved above all targets, then each is put in its place.
    fn descriptors(&self) -> Step<()> {
        let pairs = || self.plan.fds.iter().zip(&self.moved);
        for ((source, target), moved) in pairs() {
            if source != target && *source < self.above {
                // SAFETY: a plain call on a number; the result is checked.
                let up = unsafe { libc::fcntl(*source, libc::F_DUPFD_CLOEXEC, self.above) };
                moved.set(step(5, answer(up))?);
            }
        }
        for ((_, target), moved) in pairs() {
            let result = if moved.get() == *target {
                // SAFETY: as above.
                unsafe { libc::fcntl(*target, libc::F_SETFD, 0) }
            } else {
                // SAFETY: as above.
                unsafe { libc::dup2(moved.get(), *target) }
            };
            step(5, answer(result))?;
        }
        Ok(())
    }

    fn ids(&self) -> Step<()> {
        if let Some((count, groups)) = &self.groups {
            // SAFETY: the kernel reads as many numbers as are there.
            step(7, answer(unsafe { libc::setgroups(*count, groups.as_ptr()) }))?;
        }
        if let Some(gid) = self.plan.gid {
            // SAFETY: a plain call.
            step(8, answer(unsafe { libc::setgid(gid) }))?;
        }
        if let Some(uid) = self.plan.uid {
            // SAFETY: a plain call.
            step(9, answer(unsafe { libc::setuid(uid) }))?;
        }
        Ok(())
    }

    fn execute(&self) -> Step<Infallible> {
        let execute = |errno, which| Failed { step: 11, errno, which };
        let (argv, envp) = (self.argv.as_ptr(), self.envp.as_ptr());
        if let Some((fd, path)) = &self.program {
            own::execute_open(fd, path, argv, envp);
            return Err(execute(errno(), 0));
        }
        let mut refused = execute(libc::ENOENT, 0);
        for (which, program) in (0i32..).zip(&self.programs) {
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

fn limit((resource, soft, hard): &(i32, u64, u64)) -> (libc::c_int, libc::rlimit) {
    (*resource, libc::rlimit { rlim_cur: rlimit::to_system(*soft), rlim_max: rlimit::to_system(*hard) })
}

/// The list as setgroups(2) takes it: on FreeBSD, DragonFly and macOS its first entry is the effective group.
fn group_list(groups: &[u32], gid: Option<u32>) -> (libc::c_int, Vec<libc::gid_t>) {
    let others = groups.iter().copied().filter(|g| Some(*g) != gid);
    let list: Vec<libc::gid_t> = gid.into_iter().chain(others).collect();
    (libc::c_int::try_from(list.len()).unwrap_or(libc::c_int::MAX), list)
}

/// Handlers of the parent are of no use here, and SIGPIPE is ignored in this program but not in its children.
fn reset_signals() {
    // SAFETY: all zeros is a valid action: the default one, with an empty mask.
    let default: libc::sigaction = unsafe { mem::zeroed() };
    for number in 1..=signals::HIGHEST {
        // SAFETY: all zeros is a valid value to be overwritten.
        let mut now: libc::sigaction = unsafe { mem::zeroed() };
        // SAFETY: both are valid; numbers that cannot be changed are refused without harm.
        unsafe {
            let known = libc::sigaction(number, ptr::null(), &raw mut now) == 0;
            if known && (number == libc::SIGPIPE || now.sa_sigaction != libc::SIG_IGN) {
                libc::sigaction(number, &raw const default, ptr::null_mut());
            }
        }
    }
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

fn answer(result: libc::c_int) -> Result<i32, i32> {
    if result == -1 { Err(errno()) } else { Ok(result) }
}

fn step<T>(step: i32, result: Result<T, i32>) -> Step<T> {
    result.map_err(|errno| Failed { step, errno, which: 0 })
}

fn errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}
