//! What the program that started hob passed to it: sockets, the word of a watchdog, its own life.

use super::Failure;
use super::flags::Args;
use crate::base::paths::Paths;
use crate::keeper::{Manager, Parent};
use crate::protocol::rpc::Code;
use crate::sys;
use core::time::Duration;
use std::os::fd::{OwnedFd, RawFd};
use std::path::PathBuf;

/// The first descriptor of those that are passed, and how many are believed.
const FIRST: RawFd = 3;
const MOST: RawFd = 1024;
/// Names under which the control socket may be passed: its own, and that of a unit which names none.
const NAMES: [&str; 2] = ["hob", "hob.socket"];

/// The control socket, as it was passed.
#[derive(Debug)]
pub(super) struct Given {
    pub(super) listener: OwnedFd,
    path: Option<PathBuf>,
}

impl Given {
    /// The same paths, with the socket's own.
    pub(super) fn paths(&self, args: &Args, paths: &Paths) -> Result<Paths, Failure> {
        let Some(path) = &self.path else { return Ok(paths.clone()) };
        let named = args.has("socket") || std::env::var_os("HOB_SOCKET").is_some_and(|v| !v.is_empty());
        if named && *path != paths.socket {
            let what = format!(
                "the socket that was passed to hob is {}, and --socket says {}",
                path.display(),
                paths.socket.display()
            );
            return Err(Failure::usage(what).hint("leave out --socket, or let both name the same"));
        }
        if *path != paths.socket {
            super::note(args, &format!("hob: clients find it by --socket {}", path.display()));
        }
        Ok(Paths { socket: path.clone(), ..paths.clone() })
    }
}

/// Closes what whoever started hob had open and did not pass on purpose, such as the lock file of a script, which would
/// be held as long as hob runs. To be called before anything is opened.
pub(super) fn close_others() {
    // A number that makes no sense is reported by who looks for the control socket.
    let passed = passed().ok().flatten().unwrap_or(0);
    sys::spawn::own::close_from(FIRST + passed);
}

/// How many descriptors were passed by LISTEN_FDS.
fn passed() -> Result<Option<RawFd>, Failure> {
    let text = |name: &str| std::env::var(name).ok();
    let own = std::process::id().to_string();
    if text("LISTEN_PID").is_none_or(|pid| pid.trim() != own) {
        return Ok(None);
    }
    let Some(count) = text("LISTEN_FDS") else { return Ok(None) };
    match count.trim().parse::<RawFd>() {
        Ok(n) if (0..=MOST).contains(&n) => Ok(Some(n)),
        _ => Err(Failure::code(Code::FileSystem, "LISTEN_FDS is no number of descriptors")),
    }
}

/// The control socket, if one was passed by LISTEN_FDS; to be called before anything is opened.
pub(super) fn socket(args: &Args) -> Result<Option<Given>, Failure> {
    let Some(count) = passed()? else { return Ok(None) };
    let wrong = |what: String| Failure::code(Code::FileSystem, what);
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let Some(number) =
        pick(count, &names).map_err(|what| wrong(what).hint("FileDescriptorName=hob in the socket unit"))?
    else {
        return Ok(None);
    };
    if !args.rest.is_empty() && !names.split(':').any(|n| n == NAMES[0]) {
        // Of a hob that runs one command it is not to be taken for granted that it was meant.
        return Ok(None);
    }
    let (listener, path) = sys::net::given(number).map_err(|e| {
        wrong(format!("the control socket that was passed as descriptor {number} cannot be used: {e}"))
            .hint("it has to be a listening Unix stream socket: ListenStream=/run/hob/hob.sock")
    })?;
    Ok(Some(Given { listener: listener.into(), path }))
}

/// Which descriptor is the control socket.
fn pick(count: RawFd, names: &str) -> Result<Option<RawFd>, String> {
    if count == 0 {
        return Ok(None);
    }
    let named: Vec<RawFd> =
        (FIRST..FIRST + count).zip(names.split(':')).filter(|(_, n)| NAMES.contains(n)).map(|(fd, _)| fd).collect();
    match (named.as_slice(), count) {
        ([one], _) => Ok(Some(*one)),
        // A single one without a name can be meant for nothing else.
        ([], 1) if matches!(names, "" | "unknown") => Ok(Some(FIRST)),
        ([], _) => Err(format!("{count} sockets were passed to hob ({names}), and none has the name hob")),
        (_, _) => Err(format!("several sockets of the name hob were passed ({names}); hob has one control socket")),
    }
}

/// The service manager that hob runs under.
pub(super) fn manager() -> Manager {
    let text = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
    let own = std::process::id().to_string();
    let meant = text("WATCHDOG_PID").is_none_or(|pid| pid.trim() == own);
    let micros = text("WATCHDOG_USEC").filter(|_| meant).and_then(|t| t.trim().parse::<u64>().ok());
    Manager {
        socket: std::env::var_os("NOTIFY_SOCKET").filter(|v| !v.is_empty()),
        watchdog: micros.filter(|n| *n > 0).map(Duration::from_micros),
    }
}

/// Whoever started a hob that is to end with it.
pub(super) fn parent(args: &Args) -> Result<Option<Parent>, Failure> {
    if !args.has("managed") {
        return Ok(None);
    }
    Parent::find().map(Some).map_err(|what| {
        Failure::code(Code::Unavailable, what).hint("give it a pipe as standard input, which ends with your program")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_control_socket_is_found_by_its_name() {
        assert_eq!(pick(0, ""), Ok(None));
        assert_eq!(pick(1, ""), Ok(Some(3)));
        assert_eq!(pick(1, "unknown"), Ok(Some(3)));
        assert_eq!(pick(1, "hob.socket"), Ok(Some(3)));
        assert_eq!(pick(3, "http:hob:admin"), Ok(Some(4)));
        assert!(pick(1, "http").unwrap_err().contains("none has the name hob"));
        assert!(pick(2, "").unwrap_err().contains("2 sockets"));
        assert!(pick(2, "hob:hob").unwrap_err().contains("several"));
        assert!(pick(1, "http:hob").unwrap_err().contains("none"), "names beyond the count mean nothing");
    }
}
