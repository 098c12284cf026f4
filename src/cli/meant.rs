//! Which hob a command about hob itself means: the one that a named socket reaches, and without one that of the home.

use super::flags::Args;
use super::life::{DAEMON_WORD, actual, elsewhere, holder, in_fact};
use super::{Failure, given_socket, is_config_named, is_home_named, paths};
use crate::base::paths::Paths;
use crate::client::Client;
use crate::protocol::rpc::Code;
use crate::sys;
use core::time::Duration;
use serde_json::{Value, json};
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

/// How long one that listens may take to accept a connection, and to say who it is.
const ANSWER: Duration = Duration::from_secs(5);

/// The paths of the hob that is meant; `None` when nobody answers at the socket that was named, and no home was.
///
/// # Errors
/// When the socket is not for this user, when it cannot be told who answers there, and when a home was named as well
/// and the hob that answers has another.
pub(super) fn meant(args: &Args) -> Result<Option<Paths>, Failure> {
    let Some(socket) = given_socket(args) else { return actual(args).map(Some) };
    let own = paths(args);
    if let Some(found) = reached(&socket)? {
        return match own.ok().filter(|own| is_home_named(args) && own.state != found.state) {
            Some(own) => Err(Failure::usage(format!(
                "the hob at {} has its home in {}, and {} was named",
                socket.display(),
                found.home.display(),
                own.home.display()
            ))
            .hint("name one of them: --socket PATH or --home DIR, and look at HOB_SOCKET and HOB_HOME")),
            None => Ok(Some(found)),
        };
    }
    let Ok(own) = own else { return Ok(None) };
    match in_fact(&own) {
        Some(real) if real.socket == socket => Ok(Some(real)),
        Some(real) if is_home_named(args) => Err(elsewhere(holder(&own)?.flatten(), &real.socket)),
        _ => Ok(is_home_named(args).then_some(own)),
    }
}

/// The paths of the hob that listens there, as its own daemon was told them; `None` when nobody does.
fn reached(socket: &Path) -> Result<Option<Paths>, Failure> {
    let at = socket.display();
    let stream = match sys::net::connect(socket, ANSWER) {
        Ok(stream) => stream,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => return Ok(None),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => return Err(super::no_access(socket)),
        Err(e) => return Err(Failure::code(Code::Unavailable, format!("cannot talk to hob at {at}: {e}"))),
    };
    // The keeper listens, so that this holds even while the daemon hangs. Where a service manager made the socket, only
    // the daemon can say.
    let listener = sys::net::credentials(stream.as_fd()).map_or(0, |by| by.pid);
    let found = paths_of(listener).or_else(|| paths_of(keeper_at(socket)?));
    found.map(Some).ok_or_else(|| {
        Failure::code(Code::Unavailable, format!("somebody answers at {at}, and it cannot be told which hob that is"))
            .hint("name it by its home: --home DIR, without --socket and HOB_SOCKET")
    })
}

fn keeper_at(socket: &Path) -> Option<u32> {
    let mut client = Client::connect_timeout(socket, ANSWER).ok()?;
    client.set_timeout(Some(ANSWER));
    let health: Value = client.call_once("daemon.health", &json!({})).ok()?;
    u32::try_from(health["keeper_pid"].as_u64()?).ok()
}

fn paths_of(keeper: u32) -> Option<Paths> {
    if keeper == 0 {
        return None;
    }
    let of = |daemon: u32| Paths::from_words(&sys::identity::words_of(daemon));
    sys::identity::daemons_of(keeper, DAEMON_WORD).into_iter().find_map(of)
}

/// A hob that runs reads its own config file: who names another wants to know of that one.
///
/// # Errors
/// When the file that was named is not that of the hob which is meant.
pub(super) fn is_its_config(args: &Args) -> Result<(), Failure> {
    if !is_config_named(args) {
        return Ok(());
    }
    let named = paths(args)?.config;
    let real = meant(args)?.as_ref().and_then(in_fact).map(|paths| paths.config);
    let whole = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    match real.filter(|real| whole(real) != whole(&named)) {
        Some(real) => Err(Failure::usage(format!(
            "the hob that runs reads {}, and --config or HOB_CONFIG names {}",
            real.display(),
            named.display()
        ))
        .hint("'hob config check FILE' looks at another; 'hob restart --config FILE' runs with it")),
        None => Ok(()),
    }
}
