//! What is done for children in the pool's threads: plain values in, plain values out. The loop wraps them into its own
//! results.

use super::notify;
use super::plan::{self, Ask, Place, Setup};
use super::trees::waking;
use crate::base::gather::Gather as _;
use crate::base::ids::RunId;
use crate::core::{Start, StartError, Stdin, Survivor, Usage, Usages};
use crate::daemon::capture::lines::Secrets;
use crate::sys::memfile;
use crate::sys::memory;
use crate::sys::net;
use crate::sys::net::serve::{FileId, Rights};
use crate::sys::reason;
use crate::sys::spawn::{self, Child, Plan, SpawnError};
use crate::sys::table::{RunTable, Slot};
use crate::sys::tree::{self, Group, Groups, Member, Refused, Sweep};
use crate::sys::user;
use crate::sys::wait;
use core::time::Duration;
use std::collections::BTreeMap;
use std::ffi::CString;
use std::io::{Seek, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, fchown};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering::{AcqRel, Acquire};

/// The descriptor of a file with a prompt.
const PROMPT_FD: i32 = 3;

/// The number of the first socket that is passed to a service, as in sd_listen_fds(3).
const FIRST_SOCKET: i32 = 3;

/// Who decides whether a start goes on: its thread right before the clone, or the loop, whoever is first.
#[derive(Debug, Default)]
pub(super) struct Claim {
    word: AtomicU8,
    pub(super) place: Place,
}

impl Claim {
    const OPEN: u8 = 0;
    const TAKEN: u8 = 1;
    const CANCELLED: u8 = 2;

    /// For the thread: whether it may clone.
    fn take(&self) -> bool {
        self.word.compare_exchange(Self::OPEN, Self::TAKEN, AcqRel, Acquire).is_ok()
    }

    /// For the loop: whether nothing is cloned. Then nothing is written into the slot either.
    pub(super) fn cancel(&self) -> bool {
        match self.word.compare_exchange(Self::OPEN, Self::CANCELLED, AcqRel, Acquire) {
            Ok(_) => true,
            Err(before) => before == Self::CANCELLED,
        }
    }
}

/// What becomes of a start that was cancelled.
pub(super) fn cancelled() -> StartError {
    let message = "it was to be stopped before its program could be executed".to_owned();
    StartError { message, transient: true }
}

/// One start, for the spawn lane.
#[derive(Debug)]
pub struct SpawnJob {
    pub(super) setup: Arc<Setup>,
    pub(super) start: Start,
    pub(super) table: RunTable,
    pub(super) slot: Slot,
    pub(super) claim: Arc<Claim>,
    pub(super) groups: Option<Groups>,
    /// The name of its group, and the group where an earlier start has opened it.
    pub(super) group_name: Arc<str>,
    pub(super) group: Option<Arc<Group>>,
    /// Standard input.
    pub(super) null: Arc<OwnedFd>,
    /// Standard output and error.
    pub(super) output: [Arc<OwnedFd>; 2],
    /// The write end of the ready pipe, and its number there.
    pub(super) ready: Option<(Arc<OwnedFd>, i32)>,
    /// The file of its notify socket.
    pub(super) notify: Option<FileId>,
    /// The sockets it listens on.
    pub(super) sockets: Vec<Arc<OwnedFd>>,
    /// The job's end of its channel to hob.
    pub(super) channel: Option<OwnedFd>,
    /// Where capture learns the values of the service's secrets before the program can print them.
    pub(super) secrets: Option<Arc<Secrets>>,
}

/// What came of a start.
#[derive(Debug)]
pub struct SpawnDone {
    pub run: RunId,
    pub result: Result<Spawned, StartError>,
}

#[derive(Debug)]
pub struct Spawned {
    pub pid: u32,
    pub(super) pidfd: Option<OwnedFd>,
    /// The control group it was started in.
    pub(super) group: Option<Arc<Group>>,
}

impl SpawnJob {
    /// What is started, or has a command run beside it.
    #[must_use]
    pub fn service(&self) -> Arc<str> {
        Arc::clone(&self.start.service)
    }

    /// How long it may take before it is reported.
    pub const DEADLINE: Duration = Duration::from_secs(10);

    /// Reads what the plan needs and clones. A panic on the way is a start that failed: the core must hear of it.
    #[must_use]
    pub fn run(mut self) -> SpawnDone {
        let run = self.start.run;
        let result = catch_unwind(AssertUnwindSafe(|| self.go())).unwrap_or_else(|_| {
            let message = format!("hob failed while it planned the start of {}; its log says how", self.start.service);
            Err(StartError { message, transient: false })
        });
        SpawnDone { run, result }
    }

    fn go(&mut self) -> Result<Spawned, StartError> {
        match self.groups.as_ref().map_or(Ok(()), Groups::tried) {
            Ok(()) => {}
            // It would be outside of one for as long as it runs.
            Err(Refused { why, passes: true }) => return Err(StartError { message: why, transient: true }),
            Err(Refused { passes: false, .. }) => self.groups = None,
        }
        let mut plan = self.plan(self.groups.is_none())?;
        if let Some(secrets) = &self.secrets {
            secrets.learn(&self.start.spec.secrets, &plan.envp).map_err(|e| StartError {
                message: format!("cannot keep the secrets of {} to mask them: {e}", self.start.service),
                transient: true,
            })?;
        }
        let [out, err] = &self.output;
        let input = self.input(&mut plan)?;
        let stdin = input.as_ref().filter(|(_, number)| *number == 0);
        let stdin = stdin.map_or(self.null.as_raw_fd(), |(file, _)| file.as_raw_fd());
        self.give_output(&plan);
        plan.fds = vec![(stdin, 0), (out.as_raw_fd(), 1), (err.as_raw_fd(), 2)];
        plan.fds.extend(input.iter().filter(|(_, n)| *n != 0).map(|(file, n)| (file.as_raw_fd(), *n)));
        for (fd, number) in self.sockets.iter().zip(FIRST_SOCKET..) {
            // Whoever had it last may have left it as it likes it.
            net::serve::set_blocking(fd.as_fd(), true).map_err(|e| StartError {
                message: format!("cannot pass the sockets of {}: {}", self.start.service, reason(&e)),
                transient: true,
            })?;
            plan.fds.push((fd.as_raw_fd(), number));
        }
        plan.fds.extend(self.ready.iter().map(|(fd, number)| (fd.as_raw_fd(), *number)));
        self.pass_channel(&mut plan);
        let group = self.group()?;
        if let Some(program) = plan::program(&plan) {
            self.claim.place.at(&program);
        }
        if !self.claim.take() {
            return Err(cancelled());
        }
        let Some(mut group) = group else { return self.told(self.clone(&plan), &plan, None) };
        plan.cgroup = Some(group.as_fd().as_raw_fd());
        let mut result = self.clone(&plan);
        if result.as_ref().is_err_and(plan::of_cgroup) && !group.exists() {
            // It was removed behind our back.
            if let Some(anew) = self.group()? {
                group = anew;
                plan.cgroup = Some(group.as_fd().as_raw_fd());
                result = self.clone(&plan);
            }
        }
        match result {
            // The kernel refuses to clone into the group, for a reason that no probe can know beforehand: go without.
            Err(e) if plan::of_cgroup(&e) && !e.is_transient() => {
                // Zero says that the group holds no run.
                let _ = group.mark(RunId(0));
                let marked = Plan { fds: plan.fds, argv: plan.argv, envp: plan.envp, ..self.plan(true)? };
                self.told(self.clone(&marked), &marked, None)
            }
            result => self.told(result, &plan, Some(group)),
        }
    }

    /// Who runs as another user may open /dev/stdout and /dev/stderr, as many programs do, only if the pipes are that
    /// user's.
    fn give_output(&self, plan: &Plan) {
        let Some(uid) = plan.uid.filter(|uid| *uid != user::own().0) else { return };
        for pipe in &self.output {
            // Where nothing is writable these are hob's own, which may be a terminal or /dev/null.
            let is_pipe = pipe.try_clone().and_then(|fd| std::fs::File::from(fd).metadata());
            if is_pipe.is_ok_and(|meta| meta.file_type().is_fifo()) {
                // Where root may not do that, as in some containers, it gets on with what it has.
                let _ = fchown(pipe, Some(uid), None);
            }
        }
    }

    /// What a task reads, in a file of its own, and the number it has there. The path of a prompt's file becomes the
    /// last argument.
    fn input(&self, plan: &mut Plan) -> Result<Option<(std::fs::File, i32)>, StartError> {
        let (bytes, number) = match &self.start.stdin {
            None => return Ok(None),
            Some(Stdin::Bytes(bytes)) => (bytes, 0),
            Some(Stdin::PromptFile(bytes)) => (bytes, PROMPT_FD),
        };
        let made = memfile::create().and_then(|mut file| {
            file.write_all(bytes)?;
            file.rewind()?;
            Ok(file)
        });
        let file = made.map_err(|e| StartError {
            message: format!("cannot keep the input of {}: {}", self.start.service, reason(&e)),
            transient: true,
        })?;
        if number == PROMPT_FD {
            plan.argv.push(c"/dev/fd/3".to_owned());
        }
        Ok(Some((file, number)))
    }

    /// The channel gets the lowest number that nothing else has, told in HOB_FD.
    fn pass_channel(&self, plan: &mut Plan) {
        let Some(channel) = &self.channel else { return };
        let number = (3..).find(|n| plan.fds.iter().all(|(_, taken)| taken != n)).unwrap_or(3);
        plan.fds.push((channel.as_raw_fd(), number));
        plan.envp.extend(CString::new(format!("HOB_FD={number}")));
    }

    fn clone(&self, plan: &Plan) -> Result<Child, SpawnError> {
        let child = spawn::spawn(plan, Some((&self.table, self.slot)))?;
        self.table.set_shared_peak(self.slot, memory::own_peak());
        Ok(child)
    }

    fn told(
        &self,
        result: Result<Child, SpawnError>,
        plan: &Plan,
        group: Option<Arc<Group>>,
    ) -> Result<Spawned, StartError> {
        let child = result.map_err(|e| {
            let seen = if e.step == "execute" && !e.is_transient() { plan::refused(plan) } else { None };
            seen.unwrap_or_else(|| plan::explain(&e, Some(&self.start.spec)))
        })?;
        // Not yet reaped, so that the pid can only be the child's.
        let pidfd = child.pidfd.or_else(|| wait::pidfd_open(child.pid).ok());
        Ok(Spawned { pid: child.pid, pidfd, group })
    }

    /// The service's control group, marked with this run: the known one at first, then one that is opened anew.
    fn group(&mut self) -> Result<Option<Arc<Group>>, StartError> {
        let Some(groups) = &self.groups else { return Ok(None) };
        let run = self.start.run;
        if let Some(group) = self.group.take().filter(|g| g.mark(run).is_ok()) {
            return Ok(Some(group));
        }
        let group = groups.open(&self.group_name).and_then(|g| g.mark(run).map(|()| g));
        group.map(|g| Some(Arc::new(g))).map_err(|e| StartError {
            message: format!("cannot make the control group of {}: {}", self.group_name, reason(&e)),
            transient: true,
        })
    }

    fn plan(&self, marked: bool) -> Result<Plan, StartError> {
        let address = self.start.notify.then(|| notify::address(&self.setup, &self.start.service));
        let ask = Ask {
            run: self.start.run,
            service: &self.start.service,
            spec: &self.start.spec,
            notify: address.as_deref(),
            marked,
            place: &self.claim.place,
        };
        let plan = plan::make(&self.setup, ask)?;
        if let (Some(uid), Some(file), Ok(path)) =
            (plan.uid, self.notify, notify::place(&self.setup, &self.start.service))
        {
            let rights = Rights { mode: 0o600, uid: Some(uid), gid: None };
            net::serve::set_rights(&path, rights, file).map_err(|e| StartError {
                message: format!("cannot give {} to the job's user: {}", path.display(), reason(&e)),
                transient: false,
            })?;
        }
        Ok(plan)
    }
}

/// A look at who is left of a run, with a signal to those found, for the bulk lane.
#[derive(Debug)]
pub struct SweepJob {
    pub(super) run: RunId,
    pub(super) sweep: Sweep,
    /// Of a run that an earlier keeper left in its control group.
    pub(super) group: Option<Arc<Group>>,
    pub(super) signal: Option<i32>,
    /// Go on until nobody is found.
    pub(super) insist: bool,
    /// Whether the core has asked who is left.
    pub(super) answer: bool,
}

/// Who was left of a run.
#[derive(Debug)]
pub struct SweepDone {
    pub run: RunId,
    pub left: Vec<Survivor>,
    pub(super) members: Vec<Member>,
    pub(super) answer: bool,
}

impl SweepJob {
    /// How long it may take before it is reported.
    pub const DEADLINE: Duration = Duration::from_secs(10);
    /// Looks at most when it insists; the core asks again.
    const ROUNDS: u32 = 20;

    #[must_use]
    pub fn run(self) -> SweepDone {
        let mut members = self.members();
        if let Some(signal) = self.signal {
            let mut round = 1;
            loop {
                tree::signal_members(&members, signal);
                if let Some(also) = waking(signal) {
                    tree::signal_members(&members, also);
                }
                if !self.insist || members.is_empty() || round == Self::ROUNDS {
                    break;
                }
                // The killed need a moment to end; those they forked meanwhile are found by the next look.
                std::thread::sleep(Duration::from_millis(2));
                members = self.members();
                round += 1;
            }
        }
        let left = members.iter().map(|m| Survivor { pid: m.pid, name: m.name.clone() }).collect();
        SweepDone { run: self.run, left, members, answer: self.answer }
    }

    fn members(&self) -> Vec<Member> {
        let mut found = self.sweep.members(self.run);
        let of_group = self.group.as_ref().map(|g| g.members()).unwrap_or_default();
        found.extend(of_group);
        once_each(&mut found);
        found
    }
}

/// Sorts by pid, and leaves each process in the list once.
pub(super) fn once_each(found: &mut Vec<Member>) {
    found.sort_by_key(|m| m.pid);
    found.dedup_by_key(|m| m.pid);
}

/// What running jobs cost now. A few system calls for each process; any lane will do, or the loop for a few runs.
#[derive(Debug)]
pub struct MeasureJob {
    pub(super) runs: Vec<(RunId, Option<u32>, Option<Arc<Group>>)>,
}

impl MeasureJob {
    /// How long it may take before it is reported.
    pub const DEADLINE: Duration = Duration::from_secs(10);

    /// CPU time and resident memory of each run's processes; shared memory counts once for each of them, unless the
    /// memory controller knows better.
    #[must_use]
    pub fn run(self) -> Usages {
        let usage = |(run, main, group): (RunId, Option<u32>, Option<Arc<Group>>)| {
            let mut pids = group.as_ref().map(|g| g.pids()).unwrap_or_default();
            pids.extend(main.filter(|m| !pids.contains(m)));
            let costs: BTreeMap<u32, tree::Cost> = pids.iter().filter_map(|p| Some((*p, tree::cost(*p)?))).gather();
            let resident = costs.values().map(|c| c.resident).sum();
            let memory = group.as_ref().and_then(|g| g.memory()).unwrap_or(resident);
            (run, Usage { cpu: costs.values().map(|c| c.cpu).sum(), memory })
        };
        self.runs.into_iter().map(usage).gather()
    }
}
