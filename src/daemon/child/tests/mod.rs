//! Real children with a real table, poll set and control groups; the pool's jobs are run in place, the test process is
//! keeper and daemon in one.

mod checks;
mod ready;
mod sockets;
mod takeover;
mod trees;
mod words;

use super::*;
use crate::config::{Ready, ServiceSpec};
use crate::core::{Await, Start, StartError, Survivor};
use crate::sys::{clock, user};
use mio::{Events, Poll};
use std::io::Read;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

static LABS: AtomicU32 = AtomicU32::new(1);
const LIMIT: Duration = Duration::from_secs(30);

#[derive(Default)]
struct Held {
    labels: Vec<(String, Vec<OwnedFd>)>,
    behind: bool,
}

impl Hold for Held {
    fn hold(&mut self, label: &str, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        if self.behind {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.release(label);
        self.labels.push((label.to_owned(), fds.iter().map(|f| f.try_clone_to_owned().unwrap()).collect()));
        Ok(())
    }

    fn release(&mut self, label: &str) {
        self.labels.retain(|(l, _)| l != label);
    }
}

struct Lab {
    dir: PathBuf,
    poll: Poll,
    sources: Sources,
    table: RunTable,
    held: Held,
    children: Children,
    setup: Setup,
    output: io::PipeReader,
    pipe: io::PipeWriter,
    inputs: Vec<Input>,
    next_run: u64,
}

impl Lab {
    fn new(cgroup_off: bool) -> Lab {
        let own = std::process::id();
        let number = LABS.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("hob-test-child-{own}-{number}"));
        std::fs::create_dir_all(&dir).unwrap();
        assert!(crate::sys::spawn::own::become_subreaper());
        let setup = Setup {
            home: 0x8000_0000 | own << 8 | number,
            keeper: own,
            daemon: own,
            config_dir: dir.clone(),
            socket: dir.join("hob.sock"),
            notify_dir: dir.join("notify"),
            etc: "/etc".into(),
            env: std::env::vars_os().collect(),
            cgroup_off,
            ..Setup::default()
        };
        let (output, pipe) = io::pipe().unwrap();
        Lab {
            dir,
            poll: Poll::new().unwrap(),
            sources: Sources::default(),
            table: RunTable::create().unwrap(),
            held: Held::default(),
            children: Children::new(setup.clone()),
            setup,
            output,
            pipe,
            inputs: Vec::new(),
            next_run: 100,
        }
    }

    /// One with control groups, where they can be used.
    fn grouped() -> Option<Lab> {
        let lab = Lab::new(false);
        if let Err(why) = lab.children.cgroups() {
            eprintln!("SKIPPED: no control groups here: {why}");
            return None;
        }
        Some(lab)
    }

    fn with<T>(&mut self, act: impl FnOnce(&mut Children, &mut Ctx<'_>, &mut Vec<Input>) -> T) -> T {
        let mut ctx = Ctx {
            registry: self.poll.registry(),
            sources: &mut self.sources,
            table: &self.table,
            link: &mut self.held,
            now: clock::now().mono,
        };
        act(&mut self.children, &mut ctx, &mut self.inputs)
    }

    fn start(&mut self, service: &str, spec: ServiceSpec) -> RunId {
        self.next_run += 1;
        let run = RunId(self.next_run);
        let notify = spec.ready == Ready::Notify;
        let start = Start { run, service: service.into(), spec: Arc::new(spec), notify, stdin: None };
        let pipe = Arc::new(OwnedFd::from(self.pipe.try_clone().unwrap()));
        let means = Means { output: [Arc::clone(&pipe), pipe], channel: None, secrets: None };
        self.with(|c, ctx, inputs| c.start(ctx, start, means, inputs));
        self.todo();
        run
    }

    fn shell(&mut self, service: &str, script: &str) -> RunId {
        self.start(service, spec(&["/bin/sh", "-c", script]))
    }

    /// Waits for readiness of anything and turns it into inputs, as the loop does.
    fn turn(&mut self) {
        let mut events = Events::with_capacity(64);
        match self.poll.poll(&mut events, Some(Duration::from_millis(20))) {
            // A start in another thread blocks signals, so that SIGCHLD may interrupt this one.
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            result => result.unwrap(),
        }
        for event in &events {
            match self.sources.get(event.token()).cloned() {
                Some(Source::Child(run)) => self.with(|c, ctx, inputs| c.readable(ctx, run, inputs)),
                Some(Source::Tree(run)) => self.with(|c, ctx, inputs| c.tree_changed(ctx, run, inputs)),
                Some(Source::Probe(run)) => self.with(|c, ctx, inputs| c.probed(ctx, run, inputs)),
                Some(Source::Dial(run)) => self.with(|c, ctx, inputs| c.dialled(ctx, run, inputs)),
                Some(Source::Ready(service)) => self.with(|c, _, inputs| c.ready_written(&service, inputs)),
                Some(Source::Socket(service, at)) => self.with(|c, _, inputs| c.connected(&service, at, inputs)),
                Some(Source::Words(id)) => self.with(|c, _, _| c.said(id)),
                Some(Source::Notify(service)) => {
                    let heard = || self.children.notified(&self.table, &service, &|| Some(user::own().0), None);
                    loop {
                        match heard() {
                            Heard::Word(input) => {
                                self.inputs.push(input);
                                self.children.notify_taken(&service);
                            }
                            Heard::Passed | Heard::TooLong | Heard::Stalled => {}
                            Heard::Nothing => break,
                        }
                    }
                }
                _ => {}
            }
        }
        self.with(|c, ctx, inputs| c.tick(ctx, inputs));
        self.todo();
    }

    /// What the pool would do, and what follows from that.
    fn todo(&mut self) {
        let mut jobs = std::collections::VecDeque::from(self.children.todo());
        while let Some(todo) = jobs.pop_front() {
            match todo {
                Todo::Spawn(job) => {
                    let done = job.run();
                    self.with(|c, ctx, inputs| c.spawned(ctx, done, inputs));
                }
                Todo::Sweep(job) => self.pool(Some(job)),
                Todo::Path(job) => {
                    let done = job.run();
                    self.with(|c, ctx, inputs| c.path_done(ctx, done, inputs));
                }
            }
            jobs.extend(self.children.todo());
        }
    }

    fn await_ready(&mut self, run: RunId, what: Await) {
        self.with(|c, ctx, inputs| c.await_ready(ctx, run, what, inputs));
    }

    /// Turns until an input answers, taking those before it out.
    fn until<T>(&mut self, mut wanted: impl FnMut(&Input) -> Option<T>) -> T {
        let end = Instant::now() + LIMIT;
        loop {
            while !self.inputs.is_empty() {
                if let Some(found) = wanted(&self.inputs.remove(0)) {
                    return found;
                }
            }
            assert!(Instant::now() < end, "waited for {LIMIT:?}");
            self.turn();
        }
    }

    fn started(&mut self) -> Result<u32, StartError> {
        self.until(|i| match i {
            Input::Started { result, .. } => Some(result.clone()),
            _ => None,
        })
    }

    fn exited(&mut self) -> (RunId, End) {
        self.until(|i| match i {
            Input::Exited { run, end, .. } => Some((*run, *end)),
            _ => None,
        })
    }

    fn pool(&mut self, job: Option<SweepJob>) {
        if let Some(job) = job {
            let done = job.run();
            self.with(|c, _, inputs| c.swept(done, inputs));
        }
    }

    fn signal(&mut self, run: RunId, signal: i32, tree: bool) {
        let job = self.children.signal(&self.table, run, signal, tree);
        self.pool(job);
    }

    fn kill(&mut self, run: RunId) {
        let job = self.children.kill(&self.table, run);
        self.pool(job);
    }

    fn left(&mut self, run: RunId) -> Vec<Survivor> {
        let job = self.with(|c, ctx, inputs| c.sweep(ctx, run, inputs));
        self.pool(job);
        self.until(|i| match i {
            Input::Tree { left, .. } => Some(left.clone()),
            _ => None,
        })
    }

    fn left_named(&mut self, run: RunId, name: &str, count: usize) -> Vec<Survivor> {
        let end = Instant::now() + LIMIT;
        loop {
            let left = self.left(run);
            if left.iter().filter(|s| s.name == name).count() == count {
                return left;
            }
            assert!(Instant::now() < end, "{count} of {name} expected, found {left:?}");
            self.turn();
        }
    }

    fn kill_all(&mut self, run: RunId) {
        let end = Instant::now() + LIMIT;
        self.kill(run);
        loop {
            let left = self.left(run);
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < end, "left: {left:?}");
            self.kill(run);
            self.turn();
        }
    }

    /// Turns until the main process has been reaped, whichever input told so.
    fn reaped(&mut self, run: RunId) {
        let end = Instant::now() + LIMIT;
        while self.children.pid(run).is_some() {
            assert!(Instant::now() < end);
            self.turn();
        }
    }

    fn forget(&mut self, run: RunId) {
        self.with(|c, ctx, _| c.forget(ctx, run));
    }

    fn slots(&self) -> usize {
        self.table.iter().filter(|(_, v)| v.run != RunId(0)).count()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let runs: Vec<RunId> = self.children.runs.keys().copied().collect();
        for run in runs {
            self.kill(run);
        }
        let base = self.children.cgroups().map(Path::to_owned).ok();
        let end = Instant::now() + LIMIT;
        loop {
            self.with(|c, ctx, _| c.close(ctx));
            if base.as_ref().is_none_or(|b| !b.exists()) || Instant::now() > end {
                break;
            }
            self.turn();
        }
        let _ = std::fs::remove_dir_all(&self.dir);
        assert!(base.is_none_or(|b| !b.exists()) || std::thread::panicking(), "a control group was left behind");
    }
}

fn spec(command: &[&str]) -> ServiceSpec {
    ServiceSpec { command: command.iter().map(|s| (*s).to_owned()).collect(), ..ServiceSpec::default() }
}

fn wait_until(mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < end, "waited for {LIMIT:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn alive(pid: u32) -> bool {
    crate::sys::tree::name_of(pid).is_some()
}

#[test]
fn a_run_goes_from_start_to_forget() {
    let mut lab = Lab::new(false);
    let run = lab.shell("web", "echo $HOB_SERVICE $HOB_RUN; exit 3");
    let pid = lab.started().unwrap();
    assert!(pid > 1);
    assert_eq!(lab.exited(), (run, End::Code(3)));
    assert_eq!(lab.children.pid(run), None);
    let mut text = [0u8; 100];
    let length = lab.output.read(&mut text).unwrap();
    let expected = format!("web {:08x}-{run}\n", lab.setup.home);
    assert_eq!(std::str::from_utf8(&text[..length]), Ok(expected.as_str()));
    assert!(lab.left(run).is_empty());
    assert_eq!(lab.slots(), 1);
    lab.forget(run);
    assert_eq!((lab.slots(), lab.children.count()), (0, 0));
    lab.forget(run);
    assert!(lab.left(run).is_empty(), "a run that nobody knows has nobody left");
}

#[test]
fn a_start_that_fails_is_told_once_and_gives_its_slot_back() {
    let mut lab = Lab::new(false);
    let run = lab.start("web", spec(&["/nonexistent/program"]));
    let error = lab.started().unwrap_err();
    assert_eq!(error.message, "cannot execute /nonexistent/program: No such file or directory; check `command`");
    assert!(!error.transient);
    lab.turn();
    assert!(lab.inputs.is_empty());
    lab.forget(run);
    assert_eq!(lab.slots(), 0);
}

#[test]
fn a_start_is_put_off_while_something_is_lacking() {
    let mut lab = Lab::new(true);
    lab.held.behind = true;
    lab.start("web", spec(&["/bin/true"]).with(|s| s.ready = Ready::Notify));
    assert!(lab.started().unwrap_err().transient);
    assert_eq!((lab.slots(), lab.children.count()), (0, 0));
    lab.held.behind = false;
    while lab.table.take(RunId(1)).is_some() {}
    lab.shell("web", "exit 0");
    let error = lab.started().unwrap_err();
    assert!(error.transient && error.message.starts_with("the run table is full"), "{error:?}");
    assert_eq!(lab.children.count(), 0);
}

#[test]
fn a_port_is_ready_when_somebody_answers() {
    let mut lab = Lab::new(true);
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let run = RunId(9);
    lab.await_ready(run, Await::Port(address.port()));
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(200) {
        lab.turn();
        assert!(lab.inputs.is_empty() && lab.children.next_deadline().is_some());
    }
    let listener = std::net::TcpListener::bind(address).unwrap();
    lab.until(|i| matches!(i, Input::ReadySeen { run } if *run == RunId(9)).then_some(()));
    assert_eq!(lab.children.next_deadline(), None);
    drop(listener);
    let Ok(six) = std::net::TcpListener::bind("[::1]:0") else { return };
    let port = six.local_addr().unwrap().port();
    lab.await_ready(run, Await::Port(port));
    lab.until(|i| matches!(i, Input::ReadySeen { .. }).then_some(()));
    lab.await_ready(run, Await::Port(1));
    lab.with(|c, ctx, _| c.await_end(ctx, run));
    assert_eq!(lab.children.next_deadline(), None);
}
