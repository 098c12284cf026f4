//! Real children with a real table, poll set and control groups; the pool's jobs are run in place, the test process is keeper
//! and daemon in one.

use super::*;
use crate::config::{Ready, ServiceSpec};
use crate::core::{Survivor, TableRun};
use crate::sys::clock;
use mio::{Events, Poll};
use std::io::Read;
use std::os::unix::net::UnixDatagram;
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
        let start = Start { run, service: service.into(), spec: Arc::new(spec), notify };
        let pipe = self.pipe.try_clone().unwrap();
        let job = self.with(|c, ctx, inputs| c.start(ctx, start, [pipe.as_fd(), pipe.as_fd()], inputs));
        if let Some(job) = job {
            let done = job.run();
            self.with(|c, ctx, inputs| c.spawned(ctx, done, inputs));
        }
        run
    }

    fn shell(&mut self, service: &str, script: &str) -> RunId {
        self.start(service, spec(&["/bin/sh", "-c", script]))
    }

    /// Waits for readiness of anything and turns it into inputs, as the loop does.
    fn turn(&mut self) {
        let mut events = Events::with_capacity(64);
        self.poll.poll(&mut events, Some(Duration::from_millis(20))).unwrap();
        for event in &events {
            match self.sources.get(event.token()).cloned() {
                Some(Source::Child(run)) => self.with(|c, ctx, inputs| c.readable(ctx, run, inputs)),
                Some(Source::Tree(run)) => self.with(|c, ctx, inputs| c.tree_changed(ctx, run, inputs)),
                Some(Source::Probe(run)) => self.with(|c, ctx, inputs| c.probed(ctx, run, inputs)),
                Some(Source::Notify(service)) => {
                    while let Some(input) = self.children.notified(&self.table, &service) {
                        self.inputs.push(input);
                        self.children.notify_taken(&service);
                    }
                }
                _ => {}
            }
        }
        self.with(|c, ctx, _| c.tick(ctx));
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
    lab.start("web", ServiceSpec { ready: Ready::Notify, ..spec(&["/bin/true"]) });
    assert!(lab.started().unwrap_err().transient);
    assert_eq!((lab.slots(), lab.children.count()), (0, 0));
    lab.held.behind = false;
    while lab.table.take(RunId(1)).is_some() {}
    lab.shell("web", "exit 0");
    let error = lab.started().unwrap_err();
    assert!(error.transient && error.message.starts_with("the run table is full"), "{error:?}");
    assert_eq!(lab.children.count(), 0);
}

const FUGITIVES: &str = r#"
    trap "" TERM
    (sleep 3001 &)
    (setsid sleep 3002 &)
    (setsid env -i /bin/sleep 3003 &)
    exec sleep 3004
"#;

fn nothing_is_left_behind(mut lab: Lab) {
    let run = lab.shell("wild", FUGITIVES);
    let pid = lab.started().unwrap();
    // Where runs cannot be marked, the one that cleared its environment is not to be found by sweeps.
    let marked = lab.children.cgroups().is_ok() || crate::sys::tree::tag(lab.setup.home, run).is_some();
    let found = lab.left_named(run, "sleep", if marked { 4 } else { 3 });
    assert!(found.iter().any(|s| s.pid == pid));
    lab.signal(run, 15, true);
    lab.signal(run, 9, false);
    assert_eq!(lab.exited(), (run, End::Signal(9)));
    let left = lab.left(run);
    assert_eq!(left.len(), found.len() - 1, "{left:?}");
    lab.kill_all(run);
    assert!(found.iter().all(|s| !alive(s.pid)));
    lab.forget(run);
    assert_eq!(lab.slots(), 0);
}

#[test]
fn a_group_leaves_nothing_behind() {
    if let Some(lab) = Lab::grouped() {
        nothing_is_left_behind(lab);
    }
}

#[test]
fn sweeps_leave_nothing_behind() {
    nothing_is_left_behind(Lab::new(true));
}

#[test]
fn two_runs_are_never_mixed_up_by_sweeps() {
    let mut lab = Lab::new(true);
    let one = lab.shell("one", "(setsid sleep 3011 &) ; exec sleep 3012");
    let two = lab.shell("two", "(setsid sleep 3021 &) ; exec sleep 3022");
    lab.left_named(one, "sleep", 2);
    let others = lab.left_named(two, "sleep", 2);
    lab.kill_all(one);
    assert!(others.iter().all(|s| alive(s.pid)));
    assert_eq!(lab.left_named(two, "sleep", 2).len(), 2);
    lab.kill_all(two);
}

#[test]
fn the_end_of_the_last_survivor_is_told_by_itself() {
    let Some(mut lab) = Lab::grouped() else { return };
    let run = lab.shell("web", "(setsid sleep 3031 &) ; exit 0");
    assert_eq!(lab.exited(), (run, End::Code(0)));
    let left = lab.left_named(run, "sleep", 1);
    lab.inputs.clear();
    let fd = wait::pidfd_open(left[0].pid).unwrap();
    wait::pidfd_send_signal(fd.as_fd(), 9).unwrap();
    let told = lab.until(|i| match i {
        Input::Tree { run, left } => Some((*run, left.clone())),
        _ => None,
    });
    assert_eq!(told, (run, Vec::new()));
    assert!(lab.children.runs[&run].watch.is_none());
    lab.forget(run);
}

/// The daemon dies without a word: a second one takes over from the table. Returns what it is told.
fn take_over(lab: &mut Lab, service: Option<&'static str>) -> Vec<TableRun> {
    let old = std::mem::replace(&mut lab.children, Children::new(lab.setup.clone()));
    for mut run in old.runs.into_values() {
        lab.with(|_, ctx, _| run.deregister(ctx));
    }
    lab.inputs.clear();
    lab.with(|c, ctx, _| c.adopt(ctx, &|_| service.map(Arc::from)))
}

/// What the keeper does with a child of its own.
fn reap_as_keeper(lab: &Lab, run: RunId) -> u32 {
    let (slot, view) = lab.table.iter().find(|(_, v)| v.run == run).unwrap();
    let fd = wait::pidfd_open(view.pid.unwrap()).unwrap();
    let end = Instant::now() + LIMIT;
    while wait::reap_own(fd.as_fd(), &lab.table, slot).unwrap().is_none() {
        assert!(Instant::now() < end);
        std::thread::sleep(Duration::from_millis(2));
    }
    slot.index()
}

fn outlives_its_daemon(mut lab: Lab) {
    let run = lab.shell("web", "(setsid sleep 3041 &) ; exec sleep 3042");
    let pid = lab.started().unwrap();
    let before = lab.left_named(run, "sleep", 2);
    let told = take_over(&mut lab, Some("web"));
    assert_eq!(told, [TableRun { run, pid: Some(pid), exec_error: None, ended: None }]);
    assert_eq!(lab.left_named(run, "sleep", 2), before);
    lab.signal(run, 15, false);
    let slot = reap_as_keeper(&lab, run);
    lab.with(|c, ctx, inputs| c.ended(ctx, slot, inputs));
    assert_eq!(lab.exited(), (run, End::Signal(15)));
    lab.with(|c, ctx, inputs| c.ended(ctx, slot, inputs));
    assert!(lab.inputs.is_empty(), "the keeper's word counts once");
    lab.kill_all(run);
    lab.forget(run);
    assert_eq!(lab.slots(), 0);
}

#[test]
fn an_adopted_run_in_a_group_outlives_its_daemon() {
    if let Some(lab) = Lab::grouped() {
        outlives_its_daemon(lab);
    }
}

#[test]
fn an_adopted_run_without_a_group_outlives_its_daemon() {
    outlives_its_daemon(Lab::new(true));
}

#[test]
fn a_group_knows_its_run_where_the_journal_does_not() {
    let Some(mut lab) = Lab::grouped() else { return };
    let run = lab.shell("web", "exec sleep 3051");
    take_over(&mut lab, None);
    assert_eq!(lab.children.runs[&run].service.as_deref(), Some("web"));
    lab.kill_all(run);
    let slot = reap_as_keeper(&lab, run);
    lab.forget(run);
    assert_eq!(lab.slots(), 1, "the keeper has yet to say that it reaped");
    lab.with(|c, ctx, inputs| c.ended(ctx, slot, inputs));
    assert_eq!(lab.slots(), 0);
}

#[test]
fn ends_and_intents_of_a_dead_daemon_are_told() {
    let mut lab = Lab::new(true);
    let ended = lab.shell("web", "exit 4");
    reap_as_keeper(&lab, ended);
    let intent = RunId(7);
    lab.table.take(intent).unwrap();
    let mut told = take_over(&mut lab, None);
    told.sort_by_key(|t| t.run);
    assert_eq!(told[0], TableRun { run: intent, pid: None, exec_error: None, ended: None });
    assert_eq!((told[1].run, told[1].ended.unwrap().0), (ended, End::Code(4)));
    lab.forget(intent);
    lab.forget(ended);
    assert_eq!(lab.slots(), 0);
}

fn after_the_death_of_both(mut lab: Lab) {
    let run = lab.shell("web", "(setsid sleep 3061 &) ; exec sleep 3062");
    lab.left_named(run, "sleep", 2);
    let (slot, view) = lab.table.iter().find(|(_, v)| v.run == run).unwrap();
    let main = wait::pidfd_open(view.pid.unwrap()).unwrap();
    // A new keeper has a new table. The test process stays the parent, but as one that the sweeps do not start from.
    let old = std::mem::replace(&mut lab.table, RunTable::create().unwrap());
    let mut setup = lab.setup.clone();
    (setup.keeper, setup.daemon) = (std::process::id(), u32::MAX - 1);
    lab.setup = setup;
    assert!(take_over(&mut lab, None).is_empty());
    let found = lab.children.leftovers(&lab.table);
    assert_eq!(found.iter().map(|f| f.0).collect::<Vec<_>>(), [run]);
    assert_eq!(found[0].1.len(), 2, "{found:?}");
    assert_eq!(lab.left(run), found[0].1);
    lab.kill_all(run);
    assert!(wait::reap_own(main.as_fd(), &old, slot).unwrap().is_some());
    lab.forget(run);
    assert!(lab.children.leftovers(&lab.table).is_empty());
}

#[test]
fn a_new_keeper_finds_the_old_ones_groups() {
    if let Some(lab) = Lab::grouped() {
        after_the_death_of_both(lab);
    }
}

#[test]
fn a_new_keeper_finds_the_old_ones_runs_by_their_environment() {
    after_the_death_of_both(Lab::new(true));
}

/// Not a test by itself: what a service does that another test starts, by executing this program again.
#[test]
fn a_service_speaks() {
    if let (Some(text), Some(path)) = (std::env::var_os("TEST_WORD"), std::env::var_os("NOTIFY_SOCKET")) {
        let socket = UnixDatagram::unbound().unwrap();
        socket.send_to(text.as_encoded_bytes(), path).unwrap();
    }
}

fn speaker(word: &str, before: &str, after: &str) -> ServiceSpec {
    let own = std::env::current_exe().unwrap();
    let call = format!("{} --exact daemon::child::tests::a_service_speaks >/dev/null", own.display());
    let mut spec = spec(&["/bin/sh", "-c", &format!("{before} {call} {after}")]);
    spec.ready = Ready::Notify;
    spec.env.insert("TEST_WORD".to_owned(), word.to_owned());
    spec
}

fn word(input: &Input) -> Option<(RunId, String)> {
    match input {
        Input::Notify { run, fields } => Some((*run, fields[0].1.clone())),
        _ => None,
    }
}

fn words_count_by_their_sender(mut lab: Lab) {
    // The sender is a child of the main process, which stays; then one that double-forked.
    let run = lab.start("web", speaker("STATUS=child", "", "; exec sleep 3071"));
    assert_eq!(lab.until(word), (run, "child".to_owned()));
    let address = lab.setup.notify_dir.join("web");
    let stranger = UnixDatagram::unbound().unwrap();
    stranger.send_to(b"STATUS=stranger", &address).unwrap();
    lab.turn();
    assert!(lab.inputs.iter().all(|i| word(i).is_none()), "{:?}", lab.inputs);
    stranger.send_to(b"STATUS=late", &address).unwrap();
    lab.kill_all(run);
    lab.reaped(run);
    lab.forget(run);
    stranger.send_to(b"STATUS=between", &address).unwrap();
    let run = lab.start("web", speaker("STATUS=orphan", "(setsid", "&) ; exec sleep 3072"));
    assert_eq!(lab.until(word), (run, "orphan".to_owned()));
    assert_eq!(lab.held.labels.iter().map(|l| l.0.as_str()).collect::<Vec<_>>(), ["notify/web"]);
    // After a takeover the same socket goes on, with the run that the table knows.
    stranger.send_to(b"STATUS=stranger", &address).unwrap();
    let (label, mut fds) = lab.held.labels.pop().unwrap();
    take_over(&mut lab, Some("web"));
    let fd = fds.pop().unwrap();
    lab.with(|c, ctx, _| c.restore_notify(ctx, &"web".into(), fd)).unwrap();
    lab.turn();
    assert!(lab.inputs.is_empty(), "{label}: {:?}", lab.inputs);
    lab.kill_all(run);
    reap_as_keeper(&lab, run);
    lab.forget(run);
    lab.with(|c, ctx, _| c.remove(ctx, "web"));
    assert!(!address.exists());
}

#[test]
fn words_count_by_the_group_of_their_sender() {
    if let Some(lab) = Lab::grouped() {
        words_count_by_their_sender(lab);
    }
}

#[test]
fn words_count_by_the_ancestors_of_their_sender() {
    words_count_by_their_sender(Lab::new(true));
}

#[test]
fn a_long_home_has_a_socket_all_the_same() {
    let mut lab = Lab::new(true);
    lab.setup.notify_dir = lab.dir.join("n".repeat(100));
    lab.children = Children::new(lab.setup.clone());
    let run = lab.start("web", ServiceSpec { ready: Ready::Notify, ..spec(&["sh", "-c", "echo $NOTIFY_SOCKET"]) });
    assert_eq!(lab.exited(), (run, End::Code(0)));
    let mut text = [0u8; 200];
    let length = lab.output.read(&mut text).unwrap();
    let expected = format!("@hob-{:08x}-{}-web\n", lab.setup.home, lab.setup.keeper);
    assert_eq!(std::str::from_utf8(&text[..length]), Ok(expected.as_str()));
    assert_eq!(lab.held.labels.len(), 1);
    lab.forget(run);
}

#[test]
fn a_port_is_ready_when_somebody_answers() {
    let mut lab = Lab::new(true);
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let run = RunId(9);
    lab.with(|c, ctx, _| c.await_port(ctx, run, address.port()));
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
    lab.with(|c, ctx, _| c.await_port(ctx, run, port));
    lab.until(|i| matches!(i, Input::ReadySeen { .. }).then_some(()));
    lab.with(|c, ctx, _| c.await_port(ctx, run, 1));
    lab.with(|c, ctx, _| c.await_end(ctx, run));
    assert_eq!(lab.children.next_deadline(), None);
}

#[test]
fn a_running_job_is_measured_with_all_its_processes() {
    for off in [false, true] {
        let mut lab = Lab::new(off);
        let run = lab.shell("web", "(while :; do :; done) & exec sleep 3081");
        let _ = lab.started().unwrap();
        let end = Instant::now() + LIMIT;
        let wanted = if lab.children.cgroups().is_ok() { Duration::from_millis(20) } else { Duration::ZERO };
        loop {
            let cost = lab.children.measure(&[run, RunId(1)]).run();
            assert_eq!(cost.len(), 1);
            assert_eq!(cost[0].0, run);
            if cost[0].1.cpu >= wanted && cost[0].1.memory > 0 {
                break;
            }
            assert!(Instant::now() < end, "{cost:?}");
            lab.turn();
        }
        lab.kill_all(run);
        lab.reaped(run);
        lab.forget(run);
    }
}
