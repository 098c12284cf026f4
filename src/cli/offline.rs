//! Who answers questions: the daemon, and while no hob runs the files that the last one left.

use super::flags::Args;
use super::life::{actual, holder};
use super::{Failure, connect_to_ask, given_socket, is_home_named, note, when};
use crate::base::paths::Paths;
use crate::client::{Client, ClientError};
use crate::daemon::offline::Offline;
use crate::protocol::rpc::Code;
use serde_json::Value;
use serde_json::value::RawValue;

pub(super) enum Source {
    Daemon(Box<Client>),
    Files(Box<Offline>),
}

/// The daemon that runs, or the files. Those are read, and said to be, only where no hob has them: what it does not
/// answer it may be about to change.
///
/// # Errors
/// As [`connect`].
pub(super) fn ask(args: &Args) -> Result<Source, Failure> {
    ask_for(args, |files| match files.broken_off() {
        Some(seen) => format!("{HELD}, as of {}: what ran then may run still", when::moment(&seen.to_string())),
        None => HELD.to_owned(),
    })
}

/// What is told from files in general.
const HELD: &str = "this is what the files hold";

/// The same; `what` is told where it is the files that do.
pub(super) fn ask_for(args: &Args, what: impl FnOnce(&Offline) -> String) -> Result<Source, Failure> {
    let why = match connect_to_ask(args) {
        Ok(client) => return Ok(client.into()),
        Err(why) => why,
    };
    let Some(files) = left_files(args, &why).and_then(|paths| Offline::read(&paths).ok()) else { return Err(why) };
    say(args, &why, &what(&files));
    Ok(Source::Files(Box::new(files)))
}

/// Whose files tell what is asked for, when nobody answers: those of a hob that does not run.
pub(super) fn left_files(args: &Args, why: &Failure) -> Option<Paths> {
    let by_home = given_socket(args).is_none() || is_home_named(args);
    let nobody = why.exit == Code::Unavailable.exit_code() && by_home;
    actual(args).ok().filter(|paths| nobody && matches!(holder(paths), Ok(None)))
}

/// That the files tell it, since nobody answers.
pub(super) fn say_held(args: &Args, why: &Failure) {
    say(args, why, HELD);
}

fn say(args: &Args, why: &Failure, what: &str) {
    note(args, &format!("hob: {}; {what}", why.message));
}

impl From<Client> for Source {
    fn from(client: Client) -> Self {
        Source::Daemon(Box::new(client))
    }
}

impl Source {
    /// # Errors
    /// As [`Client::call`]; of files what a daemon would answer to it.
    pub(super) fn call(&mut self, method: &str, params: &Value) -> Result<Value, Failure> {
        match self {
            Source::Daemon(client) => Ok(client.call(method, params)?),
            Source::Files(files) => {
                let unfit = |e: serde_json::Error| Failure::new(format!("the answer to {method} cannot be read: {e}"));
                let params = RawValue::from_string(params.to_string()).map_err(unfit)?;
                let answer = files.call(method, &params).map_err(|e| Failure::from(ClientError::Rpc(e)))?;
                serde_json::from_str(&answer).map_err(unfit)
            }
        }
    }

    /// What is asked for may take its time.
    pub(super) fn take_time(&mut self) {
        if let Source::Daemon(client) = self {
            client.set_timeout(None);
        }
    }

    pub(super) fn is_files(&self) -> bool {
        matches!(self, Source::Files(_))
    }
}
