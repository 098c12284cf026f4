//! The two ways to clone: clone3 where this architecture has it here and the kernel lets us, else the C library's
//! clone.
//!
//! Both share memory with the child and wait for its exec. The child runs on a stack of its own with a guard page
//! below, because on the parent's it would overwrite what the parent returns to.

use super::child::Job;
use super::{Child, SpawnError};
use crate::sys::{file, mask};
use std::cell::RefCell;
use std::io;
use std::mem;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::AtomicI32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Clone3,
    Clone,
}

/// What the kernel is asked for beside the child itself.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    pub(super) cgroup: Option<RawFd>,
    /// Where it writes the pid before the child runs.
    pub(super) pid: &'a AtomicI32,
}

const STACK_BYTES: usize = 64 * 1024;
const GUARD_BYTES: usize = 64 * 1024;
const CLONE_CLEAR_SIGHAND: u64 = 1 << 32;
const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// struct clone_args of clone3(2), version 2.
#[repr(C, align(8))]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Clones, lets the child run `job`, and returns once it has executed its program or ended.
pub(super) fn run(way: Way, job: &Job<'_>, asked: Asked<'_>) -> Result<Child, SpawnError> {
    let failed = |e: &io::Error| SpawnError::plain(e.raw_os_error().unwrap_or(libc::EIO));
    let many = mask::all_blocked();
    let kept = KEPT.take();
    let stack = kept.map_or_else(Stack::new, Ok).map_err(|e| failed(&e))?;
    let blocked = (!many).then(Blocked::new);
    let child = match way {
        Way::Clone3 => by_clone3(job, &asked, &stack),
        Way::Clone => by_clone(job, &asked, &stack),
    };
    drop(blocked);
    if many {
        KEPT.set(Some(stack));
    }
    child.map_err(|e| failed(&e))
}

thread_local! {
    /// The stack of the children of a thread that starts many. No two of them use it at once, because the thread waits
    /// for each exec.
    static KEPT: RefCell<Option<Stack>> = const { RefCell::new(None) };
}

fn by_clone3(job: &Job<'_>, asked: &Asked<'_>, stack: &Stack) -> io::Result<Child> {
    let mut pidfd: RawFd = -1;
    let flags = [libc::CLONE_VM, libc::CLONE_VFORK, libc::CLONE_PIDFD, libc::CLONE_PARENT_SETTID];
    let flags = flags.iter().fold(CLONE_CLEAR_SIGHAND, |all, f| all | u64::from(f.unsigned_abs()));
    let address = |p: usize| u64::try_from(p).unwrap_or(0);
    let args = CloneArgs {
        flags: if asked.cgroup.is_some() { flags | CLONE_INTO_CGROUP } else { flags },
        pidfd: address((&raw mut pidfd).addr()),
        child_tid: 0,
        parent_tid: address(asked.pid.as_ptr().addr()),
        exit_signal: u64::from(libc::SIGCHLD.unsigned_abs()),
        stack: address(stack.base.addr() + GUARD_BYTES),
        stack_size: address(STACK_BYTES),
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: asked.cgroup.and_then(|fd| u64::try_from(fd).ok()).unwrap_or(0),
    };
    // SAFETY: the stack is fresh and large enough, all addresses in `args` outlive the call, and `entry` never returns.
    let result = unsafe { raw_clone3(&raw const args, size_of::<CloneArgs>(), entry, ptr::from_ref(job).cast()) };
    match u32::try_from(result) {
        // SAFETY: the kernel has opened it for this call and nobody else owns it.
        Ok(pid) => Ok(Child { pid, pidfd: Some(unsafe { OwnedFd::from_raw_fd(pidfd) }) }),
        Err(_) => Err(io::Error::from_raw_os_error(i32::try_from(-result).unwrap_or(libc::EIO))),
    }
}

/// clone(2) has one address for the pid and the process descriptor, so the latter is opened afterwards: nobody else
/// reaps this child, so its pid stays its own. A placeholder keeps a number free for it.
fn by_clone(job: &Job<'_>, asked: &Asked<'_>, stack: &Stack) -> io::Result<Child> {
    let placeholder = file::null()?;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PARENT_SETTID | libc::SIGCHLD;
    // SAFETY: the end of the mapping is one past its last byte.
    let top = unsafe { stack.base.add(GUARD_BYTES + STACK_BYTES) };
    let job = ptr::from_ref(job).cast_mut().cast();
    // SAFETY: the stack is fresh and large enough, the job outlives the call, and the address of the pid is valid; no
    // TLS and no child address are asked for.
    let result = unsafe { libc::clone(entry_for_clone, top.cast(), flags, job, asked.pid.as_ptr()) };
    let pid = u32::try_from(result).map_err(|_| io::Error::last_os_error())?;
    drop(placeholder);
    Ok(Child { pid, pidfd: super::wait::pidfd_open(pid).ok() })
}

extern "C" fn entry(job: *const libc::c_void) -> ! {
    // SAFETY: the pointer is the job that the parent passed; the parent waits while it is in use.
    unsafe { &*job.cast::<Job<'_>>() }.run()
}

extern "C" fn entry_for_clone(job: *mut libc::c_void) -> libc::c_int {
    entry(job)
}

/// clone3 with a stack: the child must not return from the call, so what it does next is part of the same few
/// instructions. Answers the pid or the negative errno.
#[cfg(target_arch = "x86_64")]
unsafe fn raw_clone3(
    args: *const CloneArgs,
    size: usize,
    entry: extern "C" fn(*const libc::c_void) -> !,
    argument: *const libc::c_void,
) -> i64 {
    let result: i64;
    // SAFETY: in the parent this is one system call, with its clobbers named. In the child the stack pointer is the
    // top of the new stack, aligned to 16; `entry` is called on it and never returns.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "call r13",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 => result,
            in("rdi") args,
            in("rsi") size,
            in("r12") argument,
            in("r13") entry,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    result
}

#[cfg(target_arch = "aarch64")]
unsafe fn raw_clone3(
    args: *const CloneArgs,
    size: usize,
    entry: extern "C" fn(*const libc::c_void) -> !,
    argument: *const libc::c_void,
) -> i64 {
    let result: i64;
    // SAFETY: as on x86_64.
    unsafe {
        std::arch::asm!(
            "svc #0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x0, x20",
            "blr x21",
            "brk #1",
            "2:",
            in("x8") libc::SYS_clone3,
            inlateout("x0") args => result,
            in("x1") size,
            in("x20") argument,
            in("x21") entry,
        );
    }
    result
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
unsafe fn raw_clone3(
    _: *const CloneArgs,
    _: usize,
    _: extern "C" fn(*const libc::c_void) -> !,
    _: *const libc::c_void,
) -> i64 {
    -i64::from(libc::ENOSYS)
}

/// The child's stack, above a part that cannot be touched.
struct Stack {
    base: *mut u8,
}

impl Stack {
    fn new() -> io::Result<Stack> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK | libc::MAP_NORESERVE;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice; the result is checked.
        let base = unsafe { libc::mmap(ptr::null_mut(), GUARD_BYTES + STACK_BYTES, access, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let stack = Stack { base: base.cast() };
        // SAFETY: the first part of the mapping made above.
        super::super::super::check(unsafe { libc::mprotect(base, GUARD_BYTES, libc::PROT_NONE) })?;
        Ok(stack)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the mapping was made with this address and length; the child no longer uses it.
        unsafe { libc::munmap(self.base.cast(), GUARD_BYTES + STACK_BYTES) };
    }
}

/// All signals are blocked in this thread as long as it lives: a handler must not run in the child, in the parent's
/// memory.
struct Blocked {
    before: libc::sigset_t,
}

impl Blocked {
    fn new() -> Blocked {
        // SAFETY: plain data that the calls initialise.
        unsafe {
            let (mut all, mut before): (libc::sigset_t, libc::sigset_t) = (mem::zeroed(), mem::zeroed());
            libc::sigfillset(&raw mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
            Blocked { before }
        }
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // SAFETY: `before` was filled in by `new`.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, ptr::null_mut()) };
    }
}
