//! `hob upgrade`, and the two ways in which a new program is executed on its behalf: to look at what it would take
//! over, and as the keeper that the one before becomes.

use super::flags::Args;
use super::service::finish;
use super::{Failure, complain, exit, life, print_json};
use crate::base::paths::Paths;
use crate::sys::file::lock::Lock;
use crate::{daemon, keeper};
use serde_json::{Value, json};
use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// The first word of the command line with which a keeper executes the program that it becomes.
pub(crate) const KEEPER_WORD: &str = "@keeper";
/// The keeper says nothing to standard error.
const SILENT: &str = "stderr=off";
/// A folder that is removed when hob ends.
const REMOVE: &str = "remove=";

pub(crate) fn upgrade(args: &Args) -> Result<u8, Failure> {
    let binary = args.path("binary").map(|p| std::path::absolute(&p).unwrap_or(p));
    let params = binary.map_or_else(|| json!({}), |path| json!({ "binary": path }));
    let mut client = super::connect(args)?;
    // The new daemon answers, however long it takes to come up.
    client.set_patience(life::START_LIMIT * 6);
    let result: Value = client.call("daemon.upgrade", &params)?;
    finish(args, &result, |r| {
        let text = |v: &Value| v.as_str().unwrap_or("").to_owned();
        if r["upgraded"] != true {
            return format!("nothing to do: {}\n", text(&r["message"]));
        }
        let program = |p: &Value| {
            let build = text(&p["build"]);
            let build = if build.is_empty() { build } else { format!(" build {build}") };
            format!("{}{build} ({})", text(&p["version"]), text(&p["path"]))
        };
        format!("hob {} is now {}; {}\n", program(&r["from"]), program(&r["to"]), text(&r["message"]))
    })
}

/// Tells keeper and daemon of a folder that goes with hob.
pub(super) fn remove_word(dir: &PathBuf) -> OsString {
    let mut word = OsString::from(REMOVE);
    word.push(dir);
    word
}

/// What that word says.
pub(super) fn to_remove(words: &[OsString]) -> Option<PathBuf> {
    let dir = words.iter().find_map(|w| w.as_encoded_bytes().strip_prefix(REMOVE.as_bytes()))?;
    Some(OsString::from_vec(dir.to_vec()).into())
}

/// argv of the program that a keeper with these paths becomes, without the last word.
pub(super) fn keeper_words(paths: &Paths, silent: bool, remove: Option<&PathBuf>) -> Result<Vec<CString>, Failure> {
    let mut words = vec![OsString::from("hob"), KEEPER_WORD.into()];
    words.extend(paths.to_words());
    words.extend(silent.then(|| SILENT.into()));
    words.extend(remove.map(remove_word));
    words.into_iter().map(life::c_word).collect()
}

/// The keeper goes on as this program: `@keeper key=value... fd=NUMBER`.
pub(crate) fn keeper(argv: &[OsString]) -> u8 {
    match go_on(argv) {
        Ok(code) => code,
        Err(e) => {
            complain(&format!("'@keeper' is how hob renews itself: {e}"), Some("use 'hob upgrade'"));
            exit::USAGE
        }
    }
}

fn go_on(argv: &[OsString]) -> Result<u8, String> {
    let paths = Paths::from_words(argv).ok_or("its paths are missing")?;
    let (fd, words) = argv.split_last().ok_or("its words are missing")?;
    let silent = words.iter().any(|w| w == SILENT);
    let remove = to_remove(words);
    let how = keeper::Resume {
        env: life::environment(&[]).map_err(|f| f.message)?,
        words: keeper_words(&paths, silent, remove.as_ref()).map_err(|f| f.message)?,
        on_message: life::teller(paths.log.clone(), silent),
    };
    let resumed = keeper::Resumed::new(fd, how).map_err(|e| e.to_string())?;
    let lock = resumed.lock().try_clone_to_owned();
    let code = resumed.run();
    if let Ok(lock) = lock {
        // At worst the next hob reports that this one was killed.
        let _ = Lock::from(lock).clear();
    }
    if let Some(dir) = remove {
        // What is left of it is of no use to anybody.
        let _ = std::fs::remove_dir_all(dir);
    }
    Ok(code)
}

/// Looks at what this program would take over: `@check key=value... [table=PATH]`, the labels on standard input.
pub(crate) fn check(argv: &[OsString]) -> u8 {
    let Some(paths) = Paths::from_words(argv) else {
        complain("'@check' is how hob asks a new program for its opinion", Some("use 'hob upgrade'"));
        return exit::USAGE;
    };
    let table = argv.iter().find_map(|w| w.as_encoded_bytes().strip_prefix(b"table="));
    let table = table.map(|path| PathBuf::from(OsString::from_vec(path.to_vec())));
    let Ok(labels) = io::stdin().as_fd().try_clone_to_owned() else { return exit::FAILED };
    let report = daemon::check(&paths, table.as_deref(), &labels);
    match serde_json::to_string(&report).map(print_json) {
        Ok(Ok(())) => exit::OK,
        Ok(Err(_)) | Err(_) => exit::FAILED,
    }
}
