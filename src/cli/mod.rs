//! The command line: flags in, one call of the client library or one process started, text or JSON out.

pub mod commands;
mod complete;
mod config;
mod demo;
mod doctor;
mod elsewhere;
mod events;
mod flags;
mod given;
mod inhibit;
mod life;
mod logs;
mod man;
mod meant;
mod offline;
mod plan;
mod progress;
mod reload;
mod render;
mod renew;
mod schedule;
mod service;
mod since;
mod status;
mod stop;
mod story;
mod task;
mod topics;
mod transient;
mod users;
mod when;

pub use flags::{Args, Command, Flag, Operand};

use crate::base::paths::{PathInput, Paths};
use crate::base::text::{visible, visible_json, visible_line, visible_or_colour, without_numbers};
use crate::client::{Client, ClientError};
use crate::protocol::rpc::Code;
use core::time::Duration;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The exit codes that are not a protocol error's (`Code::exit_code` has those).
pub mod exit {
    pub const OK: u8 = 0;
    pub const FAILED: u8 = 1;
    pub const USAGE: u8 = 2;
    /// What timeout(1) ends with.
    pub const TIMED_OUT: u8 = 124;
}

/// Why a command failed: what to print and how to end.
#[derive(Debug)]
pub struct Failure {
    pub message: String,
    pub hint: Option<String>,
    pub exit: u8,
    /// That of the protocol, where the failure is one of its errors.
    pub code: Option<Code>,
    /// Message and hint are lines of hob's own; what they have of others was made visible before. Otherwise each is one
    /// line.
    pub lines: bool,
}

impl Failure {
    pub fn new(message: impl Into<String>) -> Self {
        Failure { message: message.into(), hint: None, exit: exit::FAILED, code: None, lines: false }
    }

    pub fn usage(message: impl Into<String>) -> Self {
        Failure { message: message.into(), hint: None, exit: exit::USAGE, code: None, lines: false }
    }

    pub fn code(code: Code, message: impl Into<String>) -> Self {
        Failure { message: message.into(), hint: None, exit: code.exit_code(), code: Some(code), lines: false }
    }

    /// As the protocol tells an error, with the exit code beside it.
    fn json(&self) -> Value {
        let mut error = json!({ "message": without_numbers(&self.message) });
        if let Some(code) = self.code {
            error["code"] = json!(code.number());
        }
        if let Some(hint) = &self.hint {
            error["data"] = json!({ "hint": hint });
        }
        json!({ "error": error, "exit": self.exit })
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// See [`Failure::lines`].
    #[must_use]
    pub fn in_lines(mut self) -> Self {
        self.lines = true;
        self
    }
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Failure::usage(message)
    }
}

impl From<io::Error> for Failure {
    fn from(e: io::Error) -> Self {
        // A closed pipe is a reader that has seen enough.
        let exit = if e.kind() == io::ErrorKind::BrokenPipe { exit::OK } else { exit::FAILED };
        Failure { message: e.to_string(), hint: None, exit, code: None, lines: false }
    }
}

/// Whether somebody is there who has not answered in time.
fn is_hang(e: &ClientError) -> bool {
    matches!(e, ClientError::Io(e) if matches!(e.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock))
}

/// Whether the daemon tells of mistakes in a config, each on its line. A name with a line's end in it is none of them.
fn is_of_config(message: &str) -> bool {
    message.lines().next().is_some_and(|first| first.starts_with("the config ") && first.contains(" was not taken: "))
}

impl From<ClientError> for Failure {
    fn from(e: ClientError) -> Self {
        match e {
            ClientError::Rpc(e) => {
                let lines = is_of_config(&e.message);
                Failure { hint: e.hint, lines, ..Failure::code(e.code, e.message) }
            }
            // It brings the last lines of a log.
            ClientError::NotStarted(text) => Failure::code(Code::Unavailable, text).in_lines(),
            e if is_hang(&e) => Failure::code(Code::Unavailable, "hob hangs or is very busy: it does not answer")
                .hint("ask again; if it stays so, 'hob stop --force' ends it and all its jobs"),
            other => Failure::code(Code::Unavailable, other.to_string()),
        }
    }
}

/// The program.
#[must_use]
pub fn main() -> ExitCode {
    let argv: Vec<OsString> = std::env::args_os().skip(1).collect();
    if argv.first().is_some_and(|w| w == life::DAEMON_WORD) {
        return ExitCode::from(life::daemon(argv));
    }
    if argv.first().is_some_and(|w| w == renew::KEEPER_WORD) {
        return ExitCode::from(renew::keeper(&argv));
    }
    if argv.first().is_some_and(|w| w == crate::daemon::CHECK_WORD) {
        return ExitCode::from(renew::check(&argv));
    }
    let json = argv.iter().take_while(|w| *w != "--").any(|w| w == "--json");
    let result = match flags::parse(argv, commands::COMMANDS) {
        Ok(flags::Parsed::Run(args)) => (args.command.run)(&args),
        Ok(flags::Parsed::Help(None)) => print(&flags::help_all(commands::COMMANDS)).map(|()| exit::OK),
        Ok(flags::Parsed::Help(Some(c))) => print(&flags::help_one(c)).map(|()| exit::OK),
        Ok(flags::Parsed::HelpNoun(noun)) => print(&flags::help_noun(&noun, commands::COMMANDS)).map(|()| exit::OK),
        Ok(flags::Parsed::Topic(topic)) => print(&topics::help_topic(topic)).map(|()| exit::OK),
        Ok(flags::Parsed::Version) => print(concat!("hob ", env!("CARGO_PKG_VERSION"), "\n")).map(|()| exit::OK),
        Err(message) => Err(Failure::usage(message)),
    };
    ExitCode::from(match result {
        Ok(code) => code,
        Err(f) if f.exit == exit::OK => exit::OK,
        Err(f) if json => {
            let _ = io::stderr().lock().write_all(format!("{}\n", visible_json(&f.json().to_string())).as_bytes());
            f.exit
        }
        Err(f) if f.lines => {
            complain_lines(&f.message, f.hint.as_deref());
            f.exit
        }
        Err(f) => {
            complain(&f.message, f.hint.as_deref());
            f.exit
        }
    })
}

/// Writes to standard output, no control character raw; a closed pipe ends the program quietly with success.
///
/// # Errors
/// What the write answers.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    write_out(&visible(text))
}

/// The same with hob's own colours. What it has of others was made visible before: see `render::masked`.
pub(crate) fn print_painted(text: &str) -> Result<(), Failure> {
    write_out(&visible_or_colour(text))
}

/// The same for programs: JSON, in which what does not show itself is written as an escape.
pub(crate) fn print_json(json: impl core::fmt::Display) -> Result<(), Failure> {
    write_out(&visible_json(&format!("{json}\n")))
}

fn write_out(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// Has this process end when whoever reads its standard output has seen enough, also while there is nothing to write.
pub(crate) fn end_with_reader() {
    let watch = || {
        crate::sys::logfile::until_unread(io::stdout().as_fd());
        // Its other thread waits for news that nobody would read.
        #[allow(clippy::exit)]
        std::process::exit(exit::OK.into());
    };
    // Without it the next write tells.
    let _ = std::thread::Builder::new().stack_size(64 * 1024).spawn(watch);
}

/// Writes a failure to standard error, message and hint each on one line. When that is gone there is nobody left to
/// tell.
pub(crate) fn complain(message: &str, hint: Option<&str>) {
    complain_lines(&visible_line(message), hint.map(visible_line).as_deref());
}

/// The same of lines, in which no text of others can begin one.
pub(crate) fn complain_lines(message: &str, hint: Option<&str>) {
    let mut text = format!("hob: {message}\n");
    if let Some(h) = hint {
        text.push_str(&format!("     {h}\n"));
    }
    let text = without_numbers(&text);
    let _ = io::stderr().lock().write_all(visible(&text).as_bytes());
}

/// Progress on a terminal, on standard error and never with `--quiet`: one line.
pub(crate) fn note(args: &Args, text: &str) {
    if !args.has("quiet") {
        let _ = io::stderr().lock().write_all(format!("{}\n", visible_line(text)).as_bytes());
    }
}

/// The paths that flags and environment lead to.
///
/// # Errors
/// When there is neither a home directory nor `--home`.
pub(crate) fn paths(args: &Args) -> Result<Paths, Failure> {
    let flag_or = |flag: &str, name: &str| args.path(flag).or_else(|| var(name));
    let input = PathInput {
        root: crate::sys::user::own().0 == 0,
        home: flag_or("home", "HOB_HOME").map(absolute).map(|p| without_links(&p)),
        user_home: var("HOME"),
        xdg_config: var("XDG_CONFIG_HOME"),
        xdg_runtime: var("XDG_RUNTIME_DIR"),
        xdg_state: var("XDG_STATE_HOME"),
        config: flag_or("config", "HOB_CONFIG").map(absolute),
        socket: given_socket(args),
        pid: var("HOB_PID").map(absolute),
        log: var("HOB_LOG").map(absolute),
        system_run: crate::sys::SYSTEM_RUN.into(),
    };
    let paths = Paths::resolve(&input).map_err(Failure::usage)?;
    // Views, journal and protocol are JSON, and could not name them.
    let all =
        [&paths.home, &paths.config, &paths.socket, &paths.pid, &paths.log, &paths.run, &paths.state, &paths.logs];
    if let Some(odd) = all.into_iter().find(|path| path.to_str().is_none()) {
        let what = format!("{} is not UTF-8, which the paths of hob need", odd.display());
        return Err(Failure::usage(what).hint("choose another with --home, --config or --socket, or by HOB_HOME"));
    }
    Ok(paths)
}

/// Whether a config file was named, so that the default one is not meant.
fn is_config_named(args: &Args) -> bool {
    args.has("config") || var("HOB_CONFIG").is_some()
}

/// One folder has one name, since that is what its hob is known by: links are resolved, as far as the path exists.
fn without_links(path: &Path) -> PathBuf {
    match (std::fs::canonicalize(path), path.parent(), path.file_name()) {
        (Ok(whole), _, _) => whole,
        (Err(_), Some(above), Some(name)) => without_links(above).join(name),
        (Err(_), _, _) => path.to_owned(),
    }
}

fn var(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from)
}

fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

/// The control socket, where it is named. An abstract name is no path and stays as it is.
fn given_socket(args: &Args) -> Option<PathBuf> {
    let given = args.path("socket").or_else(|| var("HOB_SOCKET"))?;
    Some(if crate::sys::net::is_abstract(&given) { given } else { absolute(given) })
}

/// The control socket. A job that is told of one needs no home to find it.
///
/// # Errors
/// As [`paths`].
pub(crate) fn socket(args: &Args) -> Result<PathBuf, Failure> {
    given_socket(args).map_or_else(|| Ok(paths(args)?.socket), Ok)
}

/// A connection to the daemon that runs.
///
/// # Errors
/// When none answers: says how to start one.
pub(crate) fn connect(args: &Args) -> Result<Client, Failure> {
    let socket = socket(args)?;
    Client::connect(&socket).or_else(|e| {
        let lost = e.is_not_running() && given_socket(args).is_none();
        let real = if lost { paths(args).ok().and_then(|p| life::in_fact(&p)) } else { None };
        let client = real.filter(|real| real.socket != socket).and_then(|real| Client::connect(&real.socket).ok());
        client.ok_or_else(|| not_running(args, &socket, &e))
    })
}

/// A daemon that needs longer for a question that it can answer at once does not answer at all.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// The same for a question.
///
/// # Errors
/// As [`connect`].
pub(crate) fn connect_to_ask(args: &Args) -> Result<Client, Failure> {
    let mut client = connect(args)?;
    client.set_timeout(Some(ANSWER_LIMIT));
    client.set_patience(ANSWER_LIMIT);
    Ok(client)
}

/// How long who follows hob waits for it to be started again, once it has stopped.
const RESTART_PATIENCE: Duration = Duration::from_secs(5);

/// The same for who follows it, over deaths and restarts, until it stops.
///
/// # Errors
/// As [`connect`].
pub(crate) fn connect_to_follow(args: &Args) -> Result<Client, Failure> {
    let mut client = connect(args)?;
    client.set_restart_patience(RESTART_PATIENCE);
    Ok(client)
}

/// Why following has ended.
pub(crate) fn no_more(args: &Args, e: ClientError) -> Failure {
    let refused = || ClientError::Io(io::ErrorKind::ConnectionRefused.into());
    match (&e, socket(args)) {
        // Its socket was removed, and it runs on.
        (ClientError::Ended, Ok(socket)) if paths(args).is_ok_and(|p| matches!(life::holder(&p), Ok(Some(_)))) => {
            not_running(args, &socket, &refused())
        }
        (ClientError::Ended, _) => Failure::from(e).hint("'hob start' starts it again"),
        _ => e.into(),
    }
}

/// The same for what may take any time, of a daemon that answers at all.
///
/// # Errors
/// As [`connect`], and when it does not.
pub(crate) fn connect_to_change(args: &Args) -> Result<Client, Failure> {
    let mut client = connect(args)?;
    client.set_timeout(Some(ANSWER_LIMIT));
    let _: Value = client.call("ping", &json!({}))?;
    client.set_timeout(None);
    Ok(client)
}

/// The socket is there, and not for this user.
fn no_access(socket: &Path) -> Failure {
    Failure::code(Code::PermissionDenied, format!("no access to {}", socket.display()))
        .hint("run as the user that hob runs as, or let its admin grant you access under daemon.access")
}

/// Whether one folder was named for everything.
fn is_home_named(args: &Args) -> bool {
    args.has("home") || var("HOB_HOME").is_some()
}

fn not_running(args: &Args, socket: &Path, e: &ClientError) -> Failure {
    let at = socket.display();
    let f = match e {
        ClientError::Io(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            let paths = paths(args).ok();
            if let Some(Some(pid)) = paths.as_ref().and_then(|p| life::holder(p).ok()).flatten() {
                let message = format!("hob runs with pid {pid}, but nobody answers at {at}");
                let f = Failure::code(Code::Unavailable, message);
                return match paths.and_then(|p| life::in_fact(&p)).map(|real| real.socket) {
                    Some(real) if real != socket => life::elsewhere(Some(pid), &real),
                    Some(_) => f.hint(
                        "it may be starting; where its socket was removed, 'hob stop' ends it and 'hob start' begins \
                         anew",
                    ),
                    None => f.hint("it may be starting, or listen elsewhere: then use --socket PATH"),
                };
            }
            Failure::code(Code::Unavailable, format!("hob is not running: nobody answers at {at}"))
        }
        ClientError::Io(e) if e.kind() == io::ErrorKind::PermissionDenied => return no_access(socket),
        other => Failure::code(Code::Unavailable, format!("cannot talk to hob at {at}: {other}")),
    };
    let home = std::env::var_os("HOB_HOME").is_none();
    f.hint(if home {
        "start it with 'hob start', or name another with --home DIR"
    } else {
        "start it with 'hob start'"
    })
}
