//! The order in which a daemon comes up: what the keeper hands over, log, journal, config, jobs, then it serves. And
//! its end.

use super::door::Channels;
use super::fair::Waiting;
use super::gear::{Gear, Job};
use super::lifecycle::mark::{FAULT, Marks, Stage};
use super::lifecycle::read::{Reading, renew_schema};
use super::lifecycle::upgrade::{self, LABEL, Note};
use super::lifecycle::{self, Lifecycle};
use super::source::{Source, Sources};
use super::{Daemon, capture, child, conn, doctor, link, logs, ownlog, pool, told};
use crate::base::control::{FLAG_OUTER, FLAG_SAFE, FLAG_TRIAL, ToDaemon, ToKeeper};
use crate::base::gather::Gather as _;
use crate::base::ids::RunId;
use crate::base::map::Map;
use crate::base::paths::Paths;
use crate::config::{self, DaemonLog, DaemonSpec, Grant, Level, Restart, ServiceSpec, Who};
use crate::core::{Boot, Core, Effect, Input, Out, record};
use crate::protocol::methods::discover;
use crate::sys;
use crate::sys::table::RunTable;
use capture::copy::{Copy, Ways};
use capture::desk::Words;
use core::time::Duration;
use mio::Interest;
use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// How long the state folder may be another daemon's, and the pause between two looks.
const CLAIM_LIMIT: Duration = Duration::from_secs(10);
const CLAIM_PAUSE: Duration = Duration::from_millis(5);

/// How long the removal of output that was left behind may take: there may be a million files.
const SWEEP_LIMIT: Duration = Duration::from_secs(600);

/// So many files of output that is kept without its task are named in the log.
const LOST_NAMED: usize = 20;

/// What the keeper's command line says.
#[derive(Debug)]
pub struct Options {
    pub paths: Paths,
    /// `hob run -- COMMAND`: the one service that hob is run for.
    pub command: Option<Vec<OsString>>,
    /// Say nothing to standard error.
    pub quiet: bool,
    /// The hob before this one ended properly, or there was none.
    pub clean: bool,
    /// Its name, where it is not that of its program.
    pub name: Option<String>,
    /// The control socket was passed to hob by whoever started it.
    pub given: bool,
    /// hob is a part of the program that started it.
    pub managed: bool,
    /// A folder that goes with hob. The keeper removes it, if it lives to see the end.
    pub remove: Option<PathBuf>,
}

/// Runs a daemon until it is told to end, and answers its exit code.
///
/// # Errors
/// When it was not started by a keeper, or the system refuses what nothing works without.
pub fn run(mut options: Options) -> io::Result<u8> {
    let (link, handover) = link::Link::inherit()?;
    sys::memory::one_heap();
    sys::signals::reset_ignored();
    sys::logfile::block_write_signals();
    let remove = options.remove.take();
    let mut daemon = Daemon::start(options, link, handover)?;
    if let Some(own) = remove.clone() {
        daemon.remove_beside(own);
    }
    daemon.life.remove = remove;
    let ending = daemon.serve()?;
    Ok(daemon.end(ending))
}

impl Daemon {
    fn start(options: Options, link: link::Link, mut handover: link::Handover) -> io::Result<Daemon> {
        let paths = Arc::new(options.paths);
        let marks = Marks::new(handover.table.clone(), handover.flags & FLAG_SAFE != 0, handover.generation);
        let mut boot = boot_by(&handover, &marks, &paths);
        let mut clean = options.clean;
        let main = options.command.map(|c| main_service(&c, options.name));
        let (mut gear, signals) = gear(&paths, (options.quiet, main.is_some()), link, &handover)?;
        let (bare, claimed) = ground(&paths, main.is_some())?;
        marks.left(Stage::Log);
        let reading = Reading { paths: &paths, marks: &marks, bare, main: main.is_some(), flags: handover.flags };
        let (journal, ring) = reading.restore(&mut clean, &mut boot, &mut gear);
        let config_problem = reading.configure(&mut boot, &mut gear);
        boot.main = main.map(|(name, spec)| (name, in_container(spec, &mut boot.config.daemon)));
        let words: Arc<dyn Words> = Arc::new(handover.table.clone());
        let copied = boot.main.as_ref().map(|(name, _)| Arc::<str>::from(name.as_str()));
        let mut capture = capture::Capture::new(paths.logs.join("services"), Arc::clone(&words), copied.clone());
        let mut children = child::Children::new(setup(&paths, &handover));
        let own = doctor::Own::new((options.given, options.managed), handover.flags, &mut boot);
        let held = held_for(handover.held.keys());
        let how = Takeover { clean, trial: handover.flags & FLAG_TRIAL != 0 };
        let note = handover.held.remove(LABEL).and_then(|fds| Note::read(&fds));
        let channels = Channels::find(&mut handover.held);
        let mut services = Map::new();
        if marks.enter(Stage::Jobs) {
            services = adopt(handover.held, how, &mut boot, &mut children, &mut capture, &mut gear)?;
        }
        marks.left(Stage::Jobs);
        let copy = copy_output(&mut capture, copied.filter(|_| !bare), words, &mut gear)?;
        let mut daemon = Daemon {
            listener: listener(handover.listener, &mut gear)?,
            conns: conn::Conns::new(sys::user::own().0, sys::signals::platform().signals),
            channels,
            core: Core::new(),
            streams: logs::Streams::default(),
            admission: conn::Admission::default(),
            held: VecDeque::new(),
            claims: VecDeque::new(),
            unheard: Default::default(),
            loads: VecDeque::new(),
            inputs: Vec::new(),
            waiting: Waiting::new(|| sys::clock::now().mono),
            out: Out::default(),
            due_at: None,
            accept_at: None,
            told_gone: false,
            own_end: false,
            niceness: sys::thread::niceness(),
            reniced: 0,
            bare,
            configless: boot.main.is_some() && !paths.config.exists(),
            own,
            life: Lifecycle::new(marks, &boot, handover.flags, handover.program, note, sys::clock::now().mono),
            wall: super::wall::WallWatch::new(sys::clock::now()),
            settle_at: None,
            _lock: handover.lock,
            _claim: claimed,
            gear,
            children,
            capture,
            copy,
            journal,
            ring,
            signals,
            paths,
            services,
        };
        daemon.begin(boot, config_problem, handover.early)?;
        daemon.open(held);
        Ok(daemon)
    }

    /// All is taken over: what nobody wants is dropped, the keeper is told, and whoever waits to be let in is.
    fn open(&mut self, held: BTreeSet<Arc<str>>) {
        self.drop_unknown(held);
        self.gear.link.say(&ToKeeper::Up);
        let _ = self.life.marks.enter(Stage::Serving);
        self.accept();
    }

    /// The first rounds: what was found is decided upon. Clients that connect meanwhile are answered in the first turn.
    fn begin(&mut self, boot: Boot, config_problem: Option<String>, early: Vec<ToDaemon>) -> io::Result<()> {
        self.settings(boot.config.daemon.clone());
        let gap = boot.gap;
        let boot = if self.life.marks.enter(Stage::State) { boot } else { lifecycle::bare_boot(boot) };
        if self.life.trial {
            self.prove(boot)?;
        } else {
            self.inputs.push(Input::Boot(Box::new(boot)));
        }
        self.inputs.extend(config_problem.map(|text| Input::ConfigRead { req: None, look: false, result: Err(text) }));
        self.early(early);
        self.rounds();
        // What the boot decided, the number of the next run above all, is made durable although nobody waits for it.
        self.journal.want(self.journal.sync_token());
        self.life.marks.left(Stage::State);
        if self.life.word_by.is_none() {
            self.upgrade_untold();
            self.rounds();
        }
        if !self.bare && !self.life.safe {
            self.remove_leftover(gap);
            self.renew_schema();
        }
        Ok(())
    }

    /// A daemon of a program that is tried has taken over everything in its memory; only when the keeper knows that is
    /// anything written.
    fn prove(&mut self, boot: Boot) -> io::Result<()> {
        let mut out = core::mem::take(&mut self.out);
        self.core.step(self.gear.now, Input::Boot(Box::new(boot)), &mut out);
        let _ = self.life.marks.enter(Stage::Trial);
        self.gear.link.say(&ToKeeper::Up);
        self.life.trial = false;
        if !self.gear.link.flush_within(upgrade::WORD_LIMIT) {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the keeper does not listen"));
        }
        self.journal = lifecycle::read::journal(&self.paths, &mut self.gear);
        self.capture.start(self.gear.now, &mut self.gear)?;
        self.write_round(&mut out);
        self.run(&mut out);
        self.out = out;
        Ok(())
    }

    /// A daemon that dies right after a service was removed leaves its pipe and socket to the next ones, to whom that
    /// service is nobody.
    fn drop_unknown(&mut self, held: BTreeSet<Arc<str>>) {
        let held = if self.life.safe { BTreeSet::new() } else { held };
        for service in held.into_iter().filter(|s| !self.core.knows(s)).collect::<Vec<_>>() {
            self.effect(Effect::Remove { service });
        }
    }

    /// A daemon that dies right after tasks were removed leaves their output. Where records are missing, nobody knows
    /// whose it is.
    fn remove_leftover(&mut self, gap: bool) {
        let (known, numbers) = self.core.tasks_on_record();
        let leftover = self.capture.leftover(known, numbers, gap);
        let (now, paths) = (self.gear.now.mono, Arc::clone(&self.paths));
        self.gear.pool.run(
            pool::Lane::Bulk,
            "removing the output of tasks that are gone",
            now,
            SWEEP_LIMIT,
            move || {
                let before = doctor::lost_outputs(&paths.logs);
                let result = leftover.remove();
                let lost = renamed(&before, &paths);
                Job::Quiet(match (result, lost) {
                    (Err(e), Some(lost)) => Err(format!("{e}\n{lost}")),
                    (result, lost) => lost.map_or(result, Err),
                })
            },
        );
    }

    fn renew_schema(&mut self) {
        let config = self.paths.config.clone();
        self.gear.bulk("writing the schema anew", move || Job::Quiet(renew_schema(&config)));
    }

    /// The folders of other hobs that were run for one command and killed.
    fn remove_beside(&mut self, own: PathBuf) {
        let now = self.gear.now.mono;
        self.gear.pool.run(
            pool::Lane::Bulk,
            "removing the folders of hobs that were killed",
            now,
            SWEEP_LIMIT,
            move || {
                lifecycle::left::remove_beside(&own);
                Job::Quiet(Ok(()))
            },
        );
    }

    /// What the keeper said while it handed over.
    fn early(&mut self, messages: Vec<ToDaemon>) {
        for message in messages {
            self.keeper_says(message);
        }
    }
}

/// Which output of lost tasks has got a name of its own, beside that which had one before.
fn renamed(before: &[String], paths: &Paths) -> Option<String> {
    let mut new = doctor::lost_outputs(&paths.logs);
    new.retain(|name| before.binary_search(name).is_err());
    let more = new.len().saturating_sub(LOST_NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let names = new.get(..LOST_NAMED.min(new.len()))?.join(", ");
    let folder = paths.logs.join("tasks");
    (!new.is_empty()).then(|| {
        format!("there is output of tasks that no record knows; it is kept in {} as {names}{more}", folder.display())
    })
}

/// `main`: hob is run for one command.
fn gear(
    paths: &Paths,
    (quiet, main): (bool, bool),
    link: link::Link,
    handover: &link::Handover,
) -> io::Result<(Gear, signal_hook_mio::v1_0::Signals)> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let poll = mio::Poll::new()?;
    let mut sources = Sources::default();
    let waker = Arc::new(mio::Waker::new(poll.registry(), sources.reserve(Source::Waker)?)?);
    let mut signals = signal_hook_mio::v1_0::Signals::new([SIGHUP, SIGINT, SIGTERM])?;
    poll.registry().register(&mut signals, sources.reserve(Source::Signals)?, Interest::READABLE)?;
    let channel = link.as_fd();
    sources.add(
        poll.registry(),
        std::os::fd::AsRawFd::as_raw_fd(&channel),
        Interest::READABLE | Interest::WRITABLE,
        Source::Keeper,
    )?;
    let stderr = if quiet { None } else { sys::outlet::Outlet::stderr() };
    let mut log = ownlog::OwnLog::open(paths.log.clone(), DaemonLog::DEFAULT, stderr);
    if let Ok(stream) = std::env::var("JOURNAL_STREAM") {
        log.for_journal(&stream);
    }
    if main {
        // Who runs one command wants to see its words, and of hob's only what is wrong.
        log.limit_stderr(Level::Warn);
    }
    if handover.generation == 1 && sys::identity::start_ticks(std::process::id()).is_none() {
        log.log(Level::Warn, &format!("no process can be looked at: {}", doctor::NO_PROC), sys::clock::now());
    }
    let table = handover.table.clone();
    Ok((
        Gear {
            pool: pool::Pool::new(waker),
            poll,
            sources,
            link,
            table,
            log,
            told: told::Pace::default(),
            now: sys::clock::now(),
        },
        signals,
    ))
}

/// Whether nothing is writable, which who runs a command was told already, and the claim of the state folder.
fn ground(paths: &Paths, main: bool) -> io::Result<(bool, Option<OwnedFd>)> {
    let bare = main && sys::file::create_dir_all(&paths.logs.join("services"), 0o700).is_err();
    Ok((bare, claim(&paths.state, bare)?))
}

/// The state folder is one daemon's alone, also where the lock file was removed and another hob began. One that is
/// ending lets go of it soon.
fn claim(state: &Path, bare: bool) -> io::Result<Option<OwnedFd>> {
    let begin = std::time::Instant::now();
    loop {
        match sys::file::lock::claim(state) {
            _ if bare => return Ok(None),
            // Without the folder there is nothing to be shared.
            Err(_) => return Ok(None),
            Ok(Some(claim)) => return Ok(Some(claim)),
            Ok(None) if begin.elapsed() < CLAIM_LIMIT => std::thread::sleep(CLAIM_PAUSE),
            Ok(None) => return Err(io::Error::other(format!("another hob works in {}", state.display()))),
        }
    }
}

/// What the keeper alone says of this start, and the daemon before this one by its marks.
fn boot_by(handover: &link::Handover, marks: &Marks, paths: &Paths) -> Boot {
    let safe = (handover.flags & FLAG_SAFE != 0).then(|| marks.at_fault(&paths.config));
    let _ = marks.enter(Stage::Log);
    Boot {
        safe,
        keeper_pid: handover.keeper_pid,
        daemon_pid: std::process::id(),
        generation: handover.generation,
        deaths: marks.deaths(handover.generation),
        keeper_key: keeper_key(&handover.table),
        host: sys::host::id(),
        uid: sys::user::own().0,
        runs_max: super::exec::runs_for(sys::spawn::own::nofile().map_or(u64::MAX, |(soft, _)| soft)).max(1),
        version: VERSION,
        document: Some(document),
        keeper_started: handover.table.keeper_start().0,
        outer: handover.flags & FLAG_OUTER != 0,
        signals: sys::signals::platform().signals,
        ..Boot::default()
    }
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// It takes as long to make as a hundred other answers.
fn document() -> &'static str {
    static DOCUMENT: OnceLock<String> = OnceLock::new();
    DOCUMENT.get_or_init(|| discover(VERSION))
}

/// Identity of the keeper over all keepers of this machine: its boot, its start, its pid.
fn keeper_key(table: &RunTable) -> String {
    format!("{:016x}-{}-{}", table.boot_hash(), table.keeper_start().0.0, table.keeper_pid())
}

/// The numbers of users and groups that are granted access, and those that are not known here.
pub(super) fn admission(grants: &[Grant]) -> (conn::Admission, Vec<String>) {
    let mut admission = conn::Admission { own: sys::user::own().0, ..conn::Admission::default() };
    let mut unknown = Vec::new();
    if grants.is_empty() {
        return (admission, unknown);
    }
    let accounts = match sys::user::Accounts::read(Path::new("/etc")) {
        Ok(accounts) => accounts,
        Err(e) => return (admission, vec![e]),
    };
    for grant in grants {
        let found = match &grant.who {
            Who::User(name) => accounts.uid(name).map(|uid| admission.users.push((uid, grant.level))),
            Who::Group(name) => accounts.group(name).map(|gid| {
                admission.groups.push((gid, grant.level));
                if !sys::net::TELLS_GROUPS {
                    admission.users.extend(accounts.members(gid).into_iter().map(|uid| (uid, grant.level)));
                }
            }),
        };
        unknown.extend(found.err());
    }
    (admission, unknown)
}

/// The services that the keeper holds anything for.
fn held_for<'a>(labels: impl Iterator<Item = &'a String>) -> BTreeSet<Arc<str>> {
    let notify = child::notify_label("");
    let service = |l: &'a String| {
        let one = l.strip_prefix(notify.as_str()).or_else(|| capture::Capture::service_of(l));
        one.or_else(|| child::socket_service(l))
    };
    labels.filter_map(service).map(Arc::from).gather()
}

/// How jobs are taken over.
#[derive(Clone, Copy)]
struct Takeover {
    /// Nothing says that an earlier hob was killed.
    clean: bool,
    /// By a program that is tried, which lets go of nothing and writes nothing.
    trial: bool,
}

/// Runs, pipes and notify sockets that earlier daemons left with the keeper. Answers the service of each run.
fn adopt(
    held: Map<String, Vec<OwnedFd>>,
    how: Takeover,
    boot: &mut Boot,
    children: &mut child::Children,
    capture: &mut capture::Capture,
    gear: &mut Gear,
) -> io::Result<Map<RunId, Arc<str>>> {
    for (label, mut fds) in held {
        if let Some(service) = label.strip_prefix(child::notify_label("").as_str()) {
            let restored = fds.pop().map(|fd| children.restore_notify(&mut gear.ctx(), &Arc::from(service), fd));
            if let Some(Err(e)) = restored {
                gear.log(Level::Error, format!("cannot listen to the notifications of {service}: {e}"));
            }
        } else if let Some(service) = label.strip_prefix(child::ready_label("").as_str()) {
            if let Err(e) = children.restore_ready(&mut gear.ctx(), &Arc::from(service), fds) {
                gear.log(Level::Error, format!("cannot listen to the ready pipe of {service}: {e}"));
            }
        } else if label.starts_with(child::SOCKET_LABEL) {
            boot.sockets.extend(fds.pop().and_then(|fd| children.restore_socket(&label, fd)));
        } else if !capture.adopt(&label, fds) && boot.safe.is_none() && !how.trial {
            gear.link.drop(&label);
        }
    }
    let services = record::services_of_runs(&boot.entities);
    boot.table = children.adopt(&mut gear.ctx(), &|run| services.get(&run).cloned());
    // The first daemon of a keeper may have died before it had cleared away what it found.
    let left = record::has_left_runs(&boot.entities, &boot.keeper_key);
    if boot.safe.is_none() && (boot.generation == 1 || left) {
        // Where lock, journal and control groups agree that nothing was left, not every process of the machine is read.
        boot.leftovers = children.leftovers(&gear.table, !how.clean || left || !services.is_empty());
    }
    if !how.trial {
        capture.start(gear.now, gear)?;
    }
    Ok(services)
}

fn listener(fd: OwnedFd, gear: &mut Gear) -> io::Result<mio::net::UnixListener> {
    let listener = std::os::unix::net::UnixListener::from(fd);
    listener.set_nonblocking(true)?;
    // It may have been made by another version, or by somebody else.
    sys::net::refuse_descriptors(listener.as_fd());
    let mut listener = mio::net::UnixListener::from_std(listener);
    let token = gear.sources.reserve(Source::Listener)?;
    gear.poll.registry().register(&mut listener, token, Interest::READABLE)?;
    Ok(listener)
}

fn setup(paths: &Paths, handover: &link::Handover) -> child::Setup {
    child::Setup {
        home: child::home_id(&paths.home),
        keeper: handover.keeper_pid,
        daemon: std::process::id(),
        config_dir: paths.config.parent().unwrap_or(&paths.home).to_owned(),
        socket: paths.socket.clone(),
        notify_dir: paths.run.join("notify"),
        etc: "/etc".into(),
        env: std::env::vars_os().filter(|(name, _)| name != FAULT).collect(),
        // Where there was nothing to raise, jobs inherit the right one.
        nofile: sys::spawn::own::nofile().ok().map(|(_, hard)| (handover.nofile, hard)).filter(|(s, h)| s != h),
        descriptors: sys::spawn::own::nofile().map_or(u64::MAX, |(soft, _)| soft),
        umask: None,
        nice: None,
        oom_score_adj: handover.oom_score_adj,
        cgroup_off: std::env::var_os("HOB_CGROUP").is_some_and(|v| v == "off"),
    }
}

/// The service of `hob run -- COMMAND`: named after its program, restarted on failure only when the config of hob says
/// so.
fn main_service(command: &[OsString], name: Option<String>) -> (String, Arc<ServiceSpec>) {
    let words: Vec<String> = command.iter().map(|w| w.to_string_lossy().into_owned()).collect();
    let program = words.first().map_or("", String::as_str);
    let file = Path::new(program).file_name().map_or_else(|| "main".into(), |f| f.to_string_lossy());
    let clean: String = file.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')).collect();
    let name = name.unwrap_or_else(|| clean.trim_start_matches(['.', '-']).to_owned());
    let name = if config::service_name_error(&name).is_some() { "main".to_owned() } else { name };
    let cwd = std::env::current_dir().ok().map(|d| d.to_string_lossy().into_owned());
    (name, Arc::new(ServiceSpec { command: words, cwd, restart: Restart::Never, ..ServiceSpec::default() }))
}

/// A container's engine kills after ten seconds, so as PID 1 everything has to be over before that.
fn in_container(spec: Arc<ServiceSpec>, daemon: &mut DaemonSpec) -> Arc<ServiceSpec> {
    if std::os::unix::process::parent_id() != 1 {
        return spec;
    }
    daemon.shutdown_timeout = Duration::from_secs(8);
    Arc::new(ServiceSpec::clone(&spec).with(|s| s.stop_timeout = Duration::from_secs(7)))
}

/// Copies the main service's output to hob's own stdout and stderr.
fn copy_output(
    capture: &mut capture::Capture,
    name: Option<Arc<str>>,
    words: Arc<dyn Words>,
    gear: &mut Gear,
) -> io::Result<Option<Copy>> {
    let Some(name) = name else { return Ok(None) };
    let share = capture.share(&name);
    let mut ways = Ways::own()?;
    if let Err(e) = capture.on_the_way(&mut ways, gear) {
        gear.log(Level::Warn, format!("if hob is killed, its standard output may repeat some bytes: {e}"));
    }
    let teller = gear.pool.teller();
    Copy::start(share, words, ways, move |told| teller.tell(Job::Copied(told))).map(Some)
}
