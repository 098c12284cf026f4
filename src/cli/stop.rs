//! `hob stop`: services by name, or hob itself: by asking it, by its keeper where no daemon answers, or by force.

use super::flags::Args;
use super::life::{DAEMON_WORD, holder};
use super::meant::meant;
use super::service::finish;
use super::{Failure, note, progress, service};
use crate::base::paths::Paths;
use crate::base::units::human_duration;
use crate::client::Client;
use crate::protocol::rpc::Code;
use crate::sys::file::lock::Content;
use crate::{daemon, sys};
use core::time::Duration;
use serde_json::{Value, json};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::time::Instant;

/// More bytes than a lock file has.
const LOCK_MAX: u64 = 4096;
/// How long a stop waits for the end beyond the time that the services were given.
const STOP_SLACK: Duration = Duration::from_secs(10);

/// How long a daemon that is to stop may take to answer at all before its keeper is told, and how long a keeper takes
/// at most to end without a daemon.
const STOP_ANSWER: Duration = Duration::from_secs(5);
const STOP_BY_KEEPER: Duration = Duration::from_secs(90);

/// How long a process may take to be gone once it has let go of its lock.
const LAST_MOMENT: Duration = Duration::from_secs(5);

pub(crate) fn stop(args: &Args) -> Result<u8, Failure> {
    if args.has("all") || !args.operands.is_empty() {
        if args.has("force") {
            let failure = Failure::usage("--force ends hob itself, not a service");
            return Err(failure.hint(
                "'hob service signal KILL NAME' kills a service; 'hob stop NAME' kills it after its stop_timeout",
            ));
        }
        return service::stop(args);
    }
    match meant(args)? {
        Some(paths) if args.has("force") => force(args, &paths, holder(&paths)?.flatten()),
        Some(paths) => end(args, &paths),
        None => was_not_running(args),
    }
}

/// Stops hob so that it can be started anew: the paths to do that with, if it is known by what it was reached.
///
/// # Errors
/// As `hob stop`, and where it belongs to another user, before anything has happened.
pub(super) fn for_restart(args: &Args) -> Result<Option<Paths>, Failure> {
    let Some(paths) = meant(args)? else {
        was_not_running(args)?;
        return Ok(None);
    };
    let (owner, own) = (std::fs::metadata(&paths.state).ok().map(|m| m.uid()), sys::user::own().0);
    if let Some(uid) = owner.filter(|uid| *uid != own) {
        let text =
            format!("the hob of {} is that of uid {uid}, and would come back as uid {own}", paths.home.display());
        return Err(Failure::code(Code::PermissionDenied, text).hint("restart it as its own user"));
    }
    end(args, &paths)?;
    Ok(Some(paths))
}

fn was_not_running(args: &Args) -> Result<u8, Failure> {
    finish(args, &json!({ "stopped": true, "was_running": false }), |_| "hob is not running\n".to_owned())
}

/// Ends hob by asking it, or by its keeper.
fn end(args: &Args, paths: &Paths) -> Result<u8, Failure> {
    // Who may ask hob to stop need not be able to look at its lock.
    let held = holder(paths);
    if let Ok(None) = held {
        let left = sys::file::read_whole(&paths.lock, LOCK_MAX).unwrap_or_default();
        if let Some(before) = Content::parse(&left) {
            let what = format!("the hob before, pid {}, did not end properly; what it ran may go on", before.pid);
            note(args, &format!("hob: {what}; 'hob start' looks for that and stops it, 'hob stop --force' ends it"));
        }
        return was_not_running(args);
    }
    let process = held.as_ref().ok().copied().flatten().flatten().and_then(|pid| sys::wait::pidfd_open(pid).ok());
    let params = match args.duration("grace")? {
        Some(t) => json!({ "graceful": true, "grace": t.as_secs_f64() }),
        None => json!({ "graceful": true }),
    };
    let (mut client, reply, keeper) = match ask_to_stop(args, &params) {
        Ok((client, reply, keeper)) => (Some(client), reply, keeper),
        Err(f) if !is_silent(&f) => return Err(f),
        Err(f) => {
            let keeper = held?.flatten();
            (None, tell_keeper(args, keeper, f)?, keeper)
        }
    };
    let grace = reply["limit_ms"].as_u64().map_or(Duration::from_secs(20), Duration::from_millis);
    if args.has("no-wait") {
        return finish(args, &reply, |_| "hob is stopping\n".to_owned());
    }
    tell_whom_it_waits_for(args, &reply);
    let limit = args.duration("timeout")?.unwrap_or(grace + STOP_SLACK);
    wait_for_end(args, &Ending { paths, keeper, process }, client.as_mut(), limit)?;
    finish(args, &json!({ "stopped": true }), |_| "hob has stopped\n".to_owned())
}

/// Names the inhibitors, which a second request does not wait for.
fn tell_whom_it_waits_for(args: &Args, reply: &Value) {
    for i in reply["waits_for"].as_array().into_iter().flatten() {
        let text = |k: &str| i[k].as_str().unwrap_or("?");
        note(
            args,
            &format!(
                "waiting for {} (pid {}): {}; another 'hob stop' does not wait",
                text("who"),
                i["pid"],
                text("why")
            ),
        );
    }
}

/// Asks the daemon, if it answers at all. With its reply comes its keeper.
fn ask_to_stop(args: &Args, params: &Value) -> Result<(Client, Value, Option<u32>), Failure> {
    let mut client = super::connect(args)?;
    client.set_timeout(Some(STOP_ANSWER));
    let health = client.call_once::<Value>("daemon.health", &json!({}))?;
    client.set_timeout(None);
    let reply = client.call("daemon.shutdown", params)?;
    Ok((client, reply, health["keeper_pid"].as_u64().and_then(|pid| u32::try_from(pid).ok())))
}

/// Whether a failure is that of a daemon which does not answer, and not its answer.
fn is_silent(f: &Failure) -> bool {
    [Code::Unavailable, Code::Busy].map(Code::exit_code).contains(&f.exit)
}

/// Where no daemon answers, be it that it hangs, lacks descriptors, cannot come up or has lost its socket, the keeper
/// still takes a signal.
fn tell_keeper(args: &Args, keeper: Option<u32>, why: Failure) -> Result<Value, Failure> {
    let Some(keeper) = keeper else { return Err(why) };
    let told =
        sys::wait::pidfd_open(keeper).and_then(|fd| sys::wait::pidfd_send_signal(fd.as_fd(), sys::signals::SIGTERM));
    if let Err(e) = told {
        return Err(why.hint(format!("its keeper, pid {keeper}, cannot be told either: {e}")));
    }
    note(args, &format!("hob: {}; its keeper, pid {keeper}, was told by SIGTERM instead", why.message));
    Ok(json!({ "limit_ms": u64::try_from(STOP_BY_KEEPER.as_millis()).unwrap_or(u64::MAX) }))
}

/// A hob that was told to end.
struct Ending<'a> {
    paths: &'a Paths,
    keeper: Option<u32>,
    /// The keeper, where it could be told by its lock.
    process: Option<OwnedFd>,
}

impl Ending<'_> {
    /// Whether it has ended: nobody holds the lock, or somebody else already; or for who may not look at that, its
    /// keeper is no more.
    fn is_over(&self) -> Result<bool, Failure> {
        let gone = |keeper: u32| sys::identity::start_ticks(keeper).is_none();
        match (holder(self.paths), self.keeper) {
            (Ok(Some(Some(other))), Some(keeper)) if other != keeper => Ok(gone(keeper)),
            (Ok(held), _) => Ok(held.is_none()),
            (Err(_), Some(keeper)) => Ok(gone(keeper)),
            (Err(f), None) => Err(f),
        }
    }
}

/// Waits for the end of a process that has let go of its lock: the kernel closes the files of one that ends before it
/// counts as ended.
fn wait_for_process(process: Option<&OwnedFd>) {
    if let Some(process) = process {
        // Whatever goes wrong here, hob itself has ended.
        let _ = sys::chan::wait([(Some(process.as_fd()), false)], Some(LAST_MOMENT));
    }
}

/// Waits until nobody holds the lock, saying on a terminal for whom it waits.
fn wait_for_end(
    args: &Args,
    hob: &Ending<'_>,
    mut client: Option<&mut Client>,
    limit: Duration,
) -> Result<(), Failure> {
    let begin = Instant::now();
    let mut pause = Duration::from_millis(1);
    let mut told = Duration::from_secs(1);
    let (mut line, seen) = (progress::Line::default(), progress::wanted(args));
    while !hob.is_over()? {
        if begin.elapsed() > limit {
            let text = format!("hob is still stopping, and has not ended within {}", human_duration(limit));
            return Err(Failure::code(Code::Unavailable, text).hint("'hob stop --force' kills it and all its jobs"));
        }
        if seen && begin.elapsed() > told {
            told += Duration::from_secs(1);
            let list = client.as_deref_mut().map(|client| {
                client.set_timeout(Some(Duration::from_secs(1)));
                client.call_once::<Value>("service.list", &json!({})).unwrap_or_default()
            });
            let waited = begin.elapsed();
            let text = list.and_then(|list| progress::told(&list, &[], waited));
            let text = text.unwrap_or_else(|| format!("hob is stopping ({} s)", waited.as_secs()));
            line.show(&format!("{text}, at most {}", human_duration(limit)));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
    wait_for_process(hob.process.as_ref());
    Ok(())
}

/// Ends keeper, daemon and jobs without the socket, each verified.
fn force(args: &Args, paths: &Paths, keeper: Option<u32>) -> Result<u8, Failure> {
    let home = daemon::child::home_id(&paths.home);
    let process = keeper.map(sys::wait::pidfd_open).transpose()?;
    if let (Some(keeper), Some(pidfd)) = (keeper, &process) {
        // Held open before the signals, so that they can reach nobody else.
        let daemons = sys::identity::daemons_of(keeper, DAEMON_WORD);
        let _ = sys::wait::pidfd_send_signal(pidfd.as_fd(), sys::signals::SIGTERM);
        if !gone_within(Duration::from_secs(2), || holder(paths).is_ok_and(|h| h.is_none())) {
            for daemon in daemons.iter().filter_map(|p| sys::wait::pidfd_open(*p).ok()) {
                let _ = sys::wait::pidfd_send_signal(daemon.as_fd(), sys::signals::SIGKILL);
            }
            let _ = sys::wait::pidfd_send_signal(pidfd.as_fd(), sys::signals::SIGKILL);
        }
    }
    let limit = Instant::now() + Duration::from_secs(10);
    let mut found = keeper.is_some();
    loop {
        let family = sys::tree::Family { home, keeper: keeper.unwrap_or(0), daemon: 0 };
        let left = sys::tree::leftovers(family, Vec::new());
        let free = holder(paths)?.is_none();
        if left.is_empty() && free {
            break;
        }
        found = true;
        for members in left.values() {
            sys::tree::signal_members(members, sys::signals::SIGKILL);
        }
        if Instant::now() > limit {
            let names: Vec<String> = left.values().flatten().map(|m| format!("{} (pid {})", m.name, m.pid)).collect();
            if names.is_empty() {
                let lock = paths.lock.display();
                let f = Failure::new(format!("a hob that cannot be told holds {lock} or {}", paths.state.display()));
                return Err(f.hint("'fuser' or 'lsof' with these names tell its pid; end that, then try again"));
            }
            return Err(Failure::new(format!("still there after SIGKILL: {}", names.join(", "))));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    wait_for_process(process.as_ref());
    let _ = std::fs::remove_file(&paths.pid);
    if sys::features::listens(&paths.socket) != Some(true) && is_refused(&paths.socket) {
        // Otherwise it belongs to a service manager, which starts hob when it is needed again, or to another hob.
        let _ = std::fs::remove_file(&paths.socket);
    }
    let text = if found { "hob and all its jobs have ended\n" } else { "hob is not running\n" };
    finish(args, &json!({ "stopped": true, "was_running": found }), |_| text.to_owned())
}

/// Whether a socket is left over from somebody who has ended.
fn is_refused(socket: &std::path::Path) -> bool {
    matches!(sys::net::reach(socket), Err(e) if e.kind() == std::io::ErrorKind::ConnectionRefused)
}

fn gone_within(limit: Duration, mut gone: impl FnMut() -> bool) -> bool {
    let begin = Instant::now();
    while begin.elapsed() < limit {
        if gone() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    false
}
