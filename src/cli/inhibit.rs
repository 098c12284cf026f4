//! `hob inhibit`: a command during which hob does not shut down at once, or the list of those that are running.

use super::flags::Args;
use super::render::Table;
use super::service::finish;
use super::{Failure, connect, when};
use crate::client::Client;
use serde_json::{Value, json};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command};

/// Exit codes of shells for a command that is not there, or is not to be executed.
const NOT_FOUND: u8 = 127;
const NOT_EXECUTED: u8 = 126;

pub(crate) fn inhibit(args: &Args) -> Result<u8, Failure> {
    let Some((program, words)) = args.rest.split_first() else {
        if args.has("why") {
            return Err(Failure::usage("--why needs a command to run").hint("hob inhibit --why TEXT -- COMMAND"));
        }
        return list(args);
    };
    let why = args
        .text("why")?
        .ok_or_else(|| Failure::usage("a command needs --why: say what must not be cut off"))
        .map_err(|f| f.hint("hob inhibit --why TEXT -- COMMAND"))?;
    let name = std::path::Path::new(program).file_name().unwrap_or(program).to_string_lossy().into_owned();
    let who = args.text("who")?.unwrap_or(&name);
    let client: Client = connect(args)?;
    // Released when this command has ended, however that was.
    let _inhibitor = client.inhibit(who, why)?;
    run(program, words)
}

fn run(program: &OsString, words: &[OsString]) -> Result<u8, Failure> {
    let mut poll = mio::Poll::new()?;
    let mut signals = signal_hook_mio::v1_0::Signals::new([SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM])?;
    poll.registry().register(&mut signals, mio::Token(0), mio::Interest::READABLE)?;
    let mut child = Command::new(program).args(words).spawn().map_err(|e| {
        let exit = if e.kind() == ErrorKind::NotFound { NOT_FOUND } else { NOT_EXECUTED };
        Failure { exit, ..Failure::new(format!("cannot execute {}: {e}", program.display())) }
    })?;
    let mut events = mio::Events::with_capacity(8);
    loop {
        if let Some(status) = child.try_wait()? {
            let code = status.code().or_else(|| status.signal().map(|s| 128 + s)).unwrap_or(1);
            return Ok(u8::try_from(code & 0xff).unwrap_or(1));
        }
        match poll.poll(&mut events, None) {
            Err(e) if e.kind() != ErrorKind::Interrupted => return Err(e.into()),
            _ => {}
        }
        for signal in signals.pending().collect::<Vec<i32>>() {
            pass_on(&child, signal);
        }
    }
}

/// What a terminal sends reaches the command too; what was meant for this process is meant for the command.
fn pass_on(child: &Child, signal: i32) {
    if matches!(signal, SIGTERM | SIGHUP)
        && let Ok(pidfd) = crate::sys::wait::pidfd_open(child.id())
    {
        // It has not been waited for, so an error means that it has ended.
        let _ = crate::sys::wait::pidfd_send_signal(pidfd.as_fd(), signal);
    }
}

fn list(args: &Args) -> Result<u8, Failure> {
    let status: Value = connect(args)?.call("daemon.status", &json!({}))?;
    let result = json!({ "inhibitors": status["inhibitors"] });
    finish(args, &result, |r| {
        let all = r["inhibitors"].as_array().cloned().unwrap_or_default();
        if all.is_empty() {
            return "nothing delays a shutdown\n".to_owned();
        }
        let mut t = Table::default();
        t.row().cell("WHO").number("PID").cell("SINCE").cell("WHY");
        for i in &all {
            let text = |k: &str| i[k].as_str().unwrap_or("?").to_owned();
            let since = i["since"].as_str().map_or_else(|| "-".to_owned(), when::moment);
            t.row().cell(text("who")).number(i["pid"].to_string()).cell(since).cell(text("why"));
        }
        t.print()
    })
}
