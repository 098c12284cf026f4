//! Commands about hob itself: run, start, restart, and the daemon that the keeper executes.

use super::flags::Args;
use super::service::finish;
use super::{
    Failure, complain, complain_lines, exit, given, given_socket, is_config_named, is_home_named, note, paths,
    progress, renew,
};
use super::{service, status, stop};
use crate::base::paths::{PathInput, Paths};
use crate::base::text::{first_lines, visible_line};
use crate::client::Client;
pub(super) use crate::keeper::teller;
use crate::protocol::rpc::Code;
use crate::sys::file::lock;
use crate::{daemon, keeper, sys};
use core::time::Duration;
use serde_json::{Value, json};
use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Instant;

/// The first word of the command line with which the keeper executes the daemon.
pub(crate) const DAEMON_WORD: &str = "@daemon";

/// Tells the daemon that the lock file spoke of no hob that was killed.
const CLEAN: &str = "before=ended";

/// Tells the daemon that its control socket is somebody else's, and that hob is a part of another program.
const GIVEN: &str = "listener=given";
const MANAGED: &str = "managed=yes";

/// Set for a hob that nobody watches: its daemon says nothing to standard error.
const DETACHED: &str = "HOB_DETACHED";

/// Bytes of what a start said that are looked at when it fails.
const START_WORDS_MAX: u64 = 1024 * 1024;

/// How long a start waits for the first answer.
pub(super) const START_LIMIT: Duration = Duration::from_secs(20);

/// How long it waits for the pid file after that, and how long where its disk is full.
const PID_LIMIT: Duration = Duration::from_secs(10);
const PID_LIMIT_FULL: Duration = Duration::from_millis(500);
/// Where fewer bytes are free no pid file is written.
const PID_ROOM: u64 = 4096;

/// How long a lock may be held by somebody who does not say who he is before he is looked for.
const UNSIGNED: Duration = Duration::from_millis(500);

/// The daemon, executed by the keeper: `@daemon key=value... [-- COMMAND ARG...]`.
pub(crate) fn daemon(mut argv: Vec<OsString>) -> u8 {
    let split = argv.iter().position(|w| w == "--");
    let command = split.map(|at| argv.split_off(at).into_iter().skip(1).collect::<Vec<_>>());
    let Some(paths) = Paths::from_words(&argv) else {
        complain("'@daemon' is how hob starts its own daemon", Some("use 'hob run' or 'hob start'"));
        return exit::USAGE;
    };
    let name = argv.iter().find_map(|w| w.to_str()?.strip_prefix("name=").map(str::to_owned));
    let said = |word: &str| argv.iter().any(|w| w == word);
    let options = daemon::Options {
        quiet: said("stderr=off"),
        clean: said(CLEAN),
        given: said(GIVEN),
        managed: said(MANAGED),
        remove: renew::to_remove(&argv),
        paths,
        command,
        name,
    };
    match daemon::run(options) {
        Ok(code) => code,
        Err(e) => {
            complain(&format!("the daemon cannot go on: {e}"), None);
            exit::FAILED
        }
    }
}

pub(crate) fn run(args: &Args) -> Result<u8, Failure> {
    given::close_others();
    let paths = paths(args)?;
    if args.rest.is_empty() || is_home_named(args) {
        return become_keeper(args, &paths, None);
    }
    // A command that is run for itself has nothing to do with the hob of this user or machine.
    let home = paths.run.join(format!("run-{}", std::process::id()));
    let own = Paths::resolve(&PathInput {
        home: Some(home.clone()),
        config: args.path("config"),
        socket: args.path("socket"),
        ..PathInput::default()
    });
    let own = own.map_err(Failure::usage)?;
    // Its name is that of this process, so that no other hob can have been there before.
    let code = match make(&own) {
        Ok(()) => become_keeper(args, &own, Some(&home)),
        Err(f) => {
            note(args, &format!("hob: {}; going on without journal, logs and socket file", f.message));
            let hold = Hold {
                lock: std::fs::File::open("/dev/null")?.into(),
                listener: unreachable_listener(&own)?,
                clean: false,
                given: false,
            };
            keep(args, &own, hold, Some(&home))
        }
    };
    // What is left of it is of no use to anybody.
    let _ = std::fs::remove_dir_all(&home);
    code
}

/// A config file that somebody named has to be there. Only that of the default place is made by hob, and what a link
/// names may be on its way.
fn config_is_there(args: &Args, paths: &Paths) -> Result<(), Failure> {
    // Who starts hob has looked already, and names every path.
    let looked = !is_config_named(args) || std::env::var_os(DETACHED).is_some();
    if looked || paths.config.try_exists().unwrap_or(true) || paths.config.is_symlink() {
        return Ok(());
    }
    let hint = "write one, for which 'hob config show --defaults' prints every key, or leave out --config and \
                HOB_CONFIG: then hob makes one with examples";
    Err(Failure::code(Code::FileSystem, format!("there is no config file {}", paths.config.display())).hint(hint))
}

/// Where no socket file can be made: an abstract one on Linux.
fn unreachable_listener(paths: &Paths) -> Result<OwnedFd, Failure> {
    let name = format!("@hob{}", paths.home.display());
    let listener =
        sys::net::listen(std::path::Path::new(&name), 0o600).map_err(|e| at(&e, "cannot listen at", &paths.socket))?;
    Ok(listener.into())
}

/// Takes the lock, opens the socket and stays as the keeper until hob ends.
fn become_keeper(args: &Args, paths: &Paths, remove: Option<&PathBuf>) -> Result<u8, Failure> {
    config_is_there(args, paths)?;
    let passed = given::socket(args)?;
    let paths = &passed.as_ref().map_or_else(|| Ok(paths.clone()), |p| p.paths(args, paths))?;
    make_folders(paths)?;
    let (lock, left) = take_lock(args, paths)?;
    let clean = left == lock::Left::Nothing;
    // The same open file: it can still be cleared when the keeper has ended, and until then it is locked.
    let mut mine = lock::Lock::from(lock.try_clone()?);
    let given = passed.is_some();
    let listener = match passed {
        Some(passed) => Ok(passed.listener),
        None => sys::net::listen(&paths.socket, 0o600)
            .map(OwnedFd::from)
            .map_err(|e| at(&e, "cannot listen at", &paths.socket)),
    };
    let code = listener.and_then(|listener| keep(args, paths, Hold { lock, listener, clean, given }, remove));
    let _ = match left {
        // One that has not come up leaves the word of one before that did not end properly.
        lock::Left::Stale(before) if code.is_err() => mine.write(&before),
        lock::Left::Stale(_) | lock::Left::Damaged | lock::Left::Nothing => mine.clear(),
    };
    code
}

/// What makes a process the keeper of a home.
struct Hold {
    lock: OwnedFd,
    listener: OwnedFd,
    /// The hob before ended properly.
    clean: bool,
    /// The listener was passed to this process.
    given: bool,
}

fn keep(args: &Args, paths: &Paths, hold: Hold, remove: Option<&PathBuf>) -> Result<u8, Failure> {
    let silent = std::env::var_os(DETACHED).is_some() || !args.rest.is_empty();
    let options = keeper::Options {
        program: sys::identity::own_program()?.into(),
        args: daemon_words(args, paths, &hold, remove)?,
        env: environment(&[])?,
        listener: hold.listener,
        lock: hold.lock,
        pid_file: if args.has("managed") { PathBuf::new() } else { paths.pid.clone() },
        init: args.has("init") || std::process::id() == 1,
        patience: keeper::Patience::default(),
        words: renew::keeper_words(paths, silent, remove)?,
        manager: given::manager(),
        parent: given::parent(args)?,
        on_message: teller(paths.log.clone(), silent),
    };
    Ok(keeper::run(options))
}

/// This process's environment with some variables replaced, as `NAME=value`.
pub(super) fn environment(with: &[(&str, &std::ffi::OsStr)]) -> Result<Vec<CString>, Failure> {
    let kept = std::env::vars_os().filter(|(name, _)| with.iter().all(|(n, _)| *n != name));
    let all = kept.chain(with.iter().map(|(n, v)| (OsString::from(n), v.to_os_string())));
    let word = |(mut name, value): (OsString, OsString)| {
        name.push("=");
        name.push(value);
        c_word(name)
    };
    all.map(word).collect()
}

pub(super) fn c_word(word: OsString) -> Result<CString, Failure> {
    CString::new(word.into_vec()).map_err(|_| Failure::usage("a word holds a zero byte"))
}

/// Takes the lock, and tells what the one before left in it. A holder that has died leaves its daemon, which
/// still stops the jobs: that end is waited for.
fn take_lock(args: &Args, paths: &Paths) -> Result<(OwnedFd, lock::Left), Failure> {
    let failed = |e: io::Error| at(&e, "cannot lock", &paths.lock);
    let begin = Instant::now();
    loop {
        match lock::acquire(&paths.lock).map_err(failed)? {
            lock::Acquired::Ours { mut lock, left } => {
                if lock::is_claimed(&paths.state) {
                    // Somebody removed the lock file of a hob that runs, or one without keeper is about to end.
                    drop(lock);
                    let keeper = keeper_of(paths);
                    if keeper.is_some() || begin.elapsed() >= START_LIMIT {
                        return Err(already_running(paths, keeper));
                    }
                    std::thread::sleep(Duration::from_millis(10));
                    continue;
                }
                match &left {
                    lock::Left::Nothing => {}
                    lock::Left::Stale(c) => {
                        note(args, &format!("hob: the hob before, pid {}, did not end properly", c.pid))
                    }
                    lock::Left::Damaged => note(args, "hob: the lock file was damaged and is written anew"),
                }
                // Without content a full disk only costs others the pid in their message.
                let _ = lock.write(&lock::Content::of_this_process());
                return Ok((lock.into_fd(), left));
            }
            lock::Acquired::Held(Some(c)) if c.is_alive() => return Err(already_running(paths, Some(c.pid))),
            lock::Acquired::Held(by) => {
                // Who has just taken it is about to say so; who has not said so after a moment never will.
                let keeper = (by.is_none() && begin.elapsed() > UNSIGNED).then(|| keeper_of(paths)).flatten();
                if keeper.is_some() || begin.elapsed() >= START_LIMIT {
                    return Err(already_running(paths, keeper));
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

fn daemon_words(args: &Args, paths: &Paths, hold: &Hold, remove: Option<&PathBuf>) -> Result<Vec<CString>, Failure> {
    let mut words = vec![OsString::from("hob"), DAEMON_WORD.into()];
    words.extend(paths.to_words());
    if std::env::var_os(DETACHED).is_some() {
        words.push("stderr=off".into());
    }
    let said = [(CLEAN, hold.clean), (GIVEN, hold.given), (MANAGED, args.has("managed"))];
    words.extend(said.into_iter().filter(|(_, said)| *said).map(|(word, _)| word.into()));
    if let Some(name) = args.text("name")? {
        if let Some(why) = crate::config::service_name_error(name) {
            return Err(Failure::usage(format!("--name {name}: {why}")));
        }
        words.push(format!("name={name}").into());
    }
    words.extend(remove.map(renew::remove_word));
    if !args.rest.is_empty() {
        words.push("--".into());
        words.extend(args.rest.iter().cloned());
    }
    words.into_iter().map(c_word).collect()
}

fn make_folders(paths: &Paths) -> Result<(), Failure> {
    // Another start may make it at the same time, so that a keeper is no proof of a removed one by itself.
    if !paths.state.exists()
        && let Some(keeper) = keeper_of(paths)
        && !paths.state.exists()
    {
        let what = format!("hob still runs with pid {keeper} in {}, which was removed", paths.home.display());
        return Err(Failure::code(Code::Unavailable, what).hint("'hob stop --force' ends it and all its jobs"));
    }
    make(paths)
}

fn make(paths: &Paths) -> Result<(), Failure> {
    for (dir, mode) in [(&paths.home, 0o700), (&paths.run, 0o711), (&paths.state, 0o700), (&paths.logs, 0o700)] {
        sys::file::create_dir_all(dir, mode).map_err(|e| at(&e, "cannot make", dir))?;
    }
    Ok(())
}

fn at(e: &io::Error, what: &str, path: &std::path::Path) -> Failure {
    let code = if e.kind() == io::ErrorKind::PermissionDenied { Code::PermissionDenied } else { Code::FileSystem };
    let f = Failure::code(code, format!("{what} {}: {e}", path.display()));
    match e.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            f.hint("choose a folder that you may write to with --home DIR")
        }
        _ => f,
    }
}

fn already_running(paths: &Paths, pid: Option<u32>) -> Failure {
    let who = pid.map_or_else(String::new, |p| format!(" with pid {p}"));
    Failure::code(Code::Unavailable, format!("hob is already running{who} in {}", paths.home.display()))
        .hint("'hob status' shows it; another one needs a folder of its own: --home DIR")
}

/// The keeper of this hob, found among all processes, where its lock file is gone or damaged.
fn keeper_of(paths: &Paths) -> Option<u32> {
    let mut said = OsString::from("state=");
    said.push(&paths.state);
    // Where the folder is gone too, only what this user started is looked for.
    let owner = std::fs::metadata(&paths.state).map_or_else(|_| sys::user::own().0, |m| m.uid());
    sys::identity::keeper_by(DAEMON_WORD, said.as_encoded_bytes(), owner)
}

/// The pid of the keeper that holds the lock; `Some(None)` when somebody holds it who cannot be told.
pub(super) fn holder(paths: &Paths) -> Result<Option<Option<u32>>, Failure> {
    let held = lock::holder(&paths.lock).map_err(|e| match e.kind() {
        io::ErrorKind::PermissionDenied => {
            at(&e, "cannot read", &paths.lock).hint("run this as the user that hob runs as")
        }
        _ => at(&e, "cannot read", &paths.lock),
    })?;
    Ok(match held {
        Some(Some(content)) => Some(Some(content.pid).filter(|_| content.is_alive())),
        Some(None) => Some(keeper_of(paths)),
        None if lock::is_claimed(&paths.state) => Some(keeper_of(paths)),
        None if !paths.state.exists() => keeper_of(paths).map(Some),
        None => None,
    })
}

/// The paths of the hob that runs with this state folder, as its own daemon was told them. It may have been started
/// with other variables: a session has a run folder of its own, and cron, su and sudo know nothing of that.
pub(super) fn in_fact(paths: &Paths) -> Option<Paths> {
    let keeper = holder(paths).ok()???;
    let of = |daemon: u32| Paths::from_words(&sys::identity::words_of(daemon));
    sys::identity::daemons_of(keeper, DAEMON_WORD).into_iter().find_map(of).filter(|p| p.state == paths.state)
}

/// The paths of the hob that runs, or those that one would have.
pub(super) fn actual(args: &Args) -> Result<Paths, Failure> {
    let paths = paths(args)?;
    let real = if given_socket(args).is_none() { in_fact(&paths) } else { None };
    Ok(real.unwrap_or(paths))
}

/// hob runs, and listens somewhere else than it was looked for.
pub(super) fn elsewhere(pid: Option<u32>, socket: &std::path::Path) -> Failure {
    let (who, at) = (pid.map_or_else(String::new, |p| format!(" (pid {p})")), socket.display());
    Failure::code(Code::Unavailable, format!("hob{who} listens at {at}")).hint(format!("use --socket {at}"))
}

pub(crate) fn start(args: &Args) -> Result<u8, Failure> {
    if !args.operands.is_empty() || args.has("all") {
        return service::start(args);
    }
    let paths = actual(args)?;
    if args.has("foreground") {
        given::close_others();
        return become_keeper(args, &paths, None);
    }
    start_hob(args, &paths)
}

fn start_hob(args: &Args, paths: &Paths) -> Result<u8, Failure> {
    let limit = args.duration("timeout")?.unwrap_or(START_LIMIT);
    let begin = Instant::now();
    if let Some((mut client, health)) = staying(paths, limit)? {
        finish(args, &health, |h| format!("hob already runs, pid {}\n", h["keeper_pid"]))?;
        return Ok(warn_of_config(&mut client));
    }
    if let Some(real) = in_fact(paths).filter(|real| real.socket != paths.socket) {
        return Err(elsewhere(holder(paths)?.flatten(), &real.socket));
    }
    config_is_there(args, paths)?;
    let child = detach(paths)?;
    let health = wait_for_answer(args, paths, limit.saturating_sub(begin.elapsed()), child)?;
    wait_for_pid_file(args, paths, &health, limit.saturating_sub(begin.elapsed()));
    finish(args, &health, |h| format!("hob runs, pid {}\n", h["keeper_pid"]))?;
    Ok(answering(paths, limit).map_or(exit::OK, |mut client| warn_of_config(&mut client)))
}

/// Says loudly that hob runs without what its config file says. A start that leaves it without any has not succeeded.
fn warn_of_config(client: &mut Client) -> u8 {
    let status: Value = client.call("daemon.status", &json!({})).unwrap_or_default();
    let (Some(line), Some(error)) = (status::config_line(&status), status["config_error"].as_str()) else {
        return exit::OK;
    };
    complain_lines(&format!("{line}\n{}", first_lines(error, 3)), Some("mend it, then 'hob reload'"));
    if status["config_since"].is_string() { exit::OK } else { exit::FAILED }
}

/// A client if a daemon answers a ping within this time. One that hangs still lets clients connect.
fn answering(paths: &Paths, limit: Duration) -> Option<Client> {
    let mut client = Client::connect(&paths.socket).ok()?;
    client.set_timeout(Some(limit.max(Duration::from_millis(1))));
    client.call_once::<Value>("ping", &json!({})).ok()?;
    Some(client)
}

/// The hob that runs, with its health. One that is stopping is waited for: who starts hob wants one that stays.
fn staying(paths: &Paths, limit: Duration) -> Result<Option<(Client, Value)>, Failure> {
    let begin = Instant::now();
    let mut leaving = None;
    loop {
        let left = limit.saturating_sub(begin.elapsed());
        let health = answering(paths, left).map(|mut client| {
            let health = client.call_once::<Value>("daemon.health", &json!({}));
            (client, health)
        });
        match health {
            Some((client, Ok(health))) if health["status"] != "stopping" => return Ok(Some((client, health))),
            Some((_, Ok(health))) => leaving = health["keeper_pid"].as_u64(),
            // It has ended while it was asked.
            Some((_, Err(_))) => {}
            None if leaving.is_none() || !matches!(holder(paths), Ok(Some(_))) => return Ok(None),
            None => {}
        }
        if left.is_zero() {
            let who = leaving.map_or_else(|| "hob".to_owned(), |pid| format!("hob, pid {pid},"));
            return Err(Failure::code(
                Code::Unavailable,
                format!("{who} is stopping, and has not ended within {limit:?}"),
            )
            .hint("hob stop --force ends it and what it runs"));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Starts `hob run` in a session of its own, its words going to a file beside the log. Answers its pid.
fn detach(paths: &Paths) -> Result<u32, Failure> {
    // What the caller has open, such as the lock file of its script, is not for something that stays.
    sys::spawn::own::inherit_nothing()?;
    make_folders(paths)?;
    let errors = errors_file(paths);
    let file = sys::file::open(&errors, sys::file::How::Create, 0o600).map_err(|e| at(&e, "cannot write", &errors))?;
    file.set_len(0)?;
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    let mut words = vec![OsString::from("hob"), "run".into()];
    // Only a home that was named has a folder of its own for its state. Without one it finds the same folders by the
    // same variables.
    let home = (paths.state != paths.home).then_some(("--home", &paths.home));
    for (flag, path) in home.into_iter().chain([("--config", &paths.config), ("--socket", &paths.socket)]) {
        words.push(flag.into());
        words.push(path.into());
    }
    let env = [("HOB_PID", paths.pid.as_os_str()), ("HOB_LOG", paths.log.as_os_str()), (DETACHED, "1".as_ref())];
    let plan = sys::spawn::Plan {
        programs: vec![c_word(sys::identity::own_path()?.into_os_string())?],
        argv: words.into_iter().map(c_word).collect::<Result<_, _>>()?,
        envp: environment(&env)?,
        fds: vec![(null.as_raw_fd(), 0), (null.as_raw_fd(), 1), (file.as_raw_fd(), 2)],
        session: true,
        cwd: Some(c"/".to_owned()),
        ..sys::spawn::Plan::default()
    };
    let child = sys::spawn::spawn(&plan, None).map_err(|e| Failure::new(format!("cannot start hob: {e}")))?;
    Ok(child.pid)
}

fn errors_file(paths: &Paths) -> PathBuf {
    paths.logs.join("start.log")
}

fn wait_for_answer(args: &Args, paths: &Paths, limit: Duration, child: u32) -> Result<Value, Failure> {
    let begin = Instant::now();
    let mut pause = Duration::from_millis(1);
    let (mut line, seen) = (progress::Line::default(), progress::wanted(args));
    loop {
        if seen && begin.elapsed() > Duration::from_secs(1) {
            line.show(&format!("hob is starting ({} s of {} s)", begin.elapsed().as_secs(), limit.as_secs()));
        }
        if let Some(mut client) = answering(paths, limit.saturating_sub(begin.elapsed())) {
            return Ok(client.call("daemon.health", &json!({}))?);
        }
        // It has not been waited for, so that the pid is still its own. Where it lost a race somebody else comes up.
        let ended = sys::identity::start_ticks(child).is_none() && !matches!(holder(paths), Ok(Some(_)));
        if ended && answering(paths, limit).is_none() {
            return Err(not_up(paths, "hob ended at once".to_owned()));
        }
        if begin.elapsed() > limit {
            let who = match holder(paths) {
                Ok(Some(Some(pid))) => format!("hob, pid {pid},"),
                _ => "hob".to_owned(),
            };
            return Err(not_up(paths, format!("{who} did not answer within {limit:?} at {}", paths.socket.display())));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}

/// More bytes than a pid file has.
const PID_MAX: u64 = 64;

/// The first daemon answers a moment before its keeper has written the pid file, for which whoever starts hob by a
/// script may look next.
fn wait_for_pid_file(args: &Args, paths: &Paths, health: &Value, limit: Duration) {
    let begin = Instant::now();
    let wanted = format!("{}\n", health["keeper_pid"]);
    while !sys::file::read_whole(&paths.pid, PID_MAX).is_ok_and(|text| text == wanted.as_bytes()) {
        // Where its folder refuses it, time brings nothing.
        let folder = paths.pid.parent().filter(|dir| dir.exists());
        let full = folder.is_some_and(|dir| {
            let room = sys::file::space_at(dir).map_or(u64::MAX, |(free, _)| free);
            room < PID_ROOM || sys::file::lacks_inodes_at(dir).unwrap_or(false)
        });
        let most = if full { PID_LIMIT_FULL } else { PID_LIMIT };
        if begin.elapsed() > limit.min(most) || folder.is_some_and(|dir| !sys::file::is_writable(dir)) {
            let pid = paths.pid.display();
            note(
                args,
                &if full {
                    format!("hob: {pid} is not written yet, as its disk is full; hob writes it when there is room")
                } else {
                    format!("hob: {pid} is not written yet; hob logs tells why")
                },
            );
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A start that failed, with the last words of what was started.
fn not_up(paths: &Paths, message: String) -> Failure {
    let said = sys::file::read_whole(&errors_file(paths), START_WORDS_MAX).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    let lines: Vec<&str> = said.lines().filter(|l| !l.is_empty()).collect();
    let last = lines.get(lines.len().saturating_sub(5)..).unwrap_or_default().join("\n     ");
    let log = paths.log.display().to_string();
    let hint = format!("its log is {}\n     {last}", visible_line(&log));
    Failure::code(Code::Unavailable, visible_line(&message)).hint(hint).in_lines()
}

pub(crate) fn restart(args: &Args) -> Result<u8, Failure> {
    if !args.operands.is_empty() || args.has("all") {
        return service::restart(args);
    }
    config_is_there(args, &paths(args)?)?;
    match stop::for_restart(args)? {
        Some(paths) if !args.has("foreground") => start_hob(args, &paths),
        Some(_) | None => start(args),
    }
}
