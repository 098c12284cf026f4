//! Config text becomes a checked spec here, or a list of everything that is wrong with it. Pure: text in, values out.

mod address;
mod change;
pub mod cron;
mod default;
mod error;
mod graph;
mod health;
mod instances;
mod keys;
mod listen;
mod machine;
mod one;
mod programs;
mod read;
mod ready;
mod scan;
pub mod schedule;
mod schema;
mod show;
pub mod spec;
#[cfg(test)]
mod tests;
mod tree;
mod values;

pub use crate::base::signal::Platform;
pub use address::{Address, Listen, UnixType};
pub use change::{Changed, changed, changed_daemon};
pub use default::DEFAULT;
pub use error::{ConfigError, LEFT_OUT, trouble};
pub use instances::instance;
pub use one::parse_service;
pub use schedule::{Action, JobSpec};
pub use schema::{SCHEMA_FILE, schema, schema_text};
pub use show::{
    KeyInfo, defaults_text, job_json, keys, limits_brief, masked, masked_job, service_brief, service_json, to_json,
};
pub use spec::*;

use crate::base::limits::CONFIG_MAX;
use error::{Pos, Report};

/// Reads a config. `file` is only named in errors; `platform` gives signals their numbers.
///
/// # Errors
/// Everything that is wrong, in the order of the text: all syntax errors, or else all others.
pub fn parse(text: &str, file: &str, platform: &Platform) -> Result<Config, Vec<ConfigError>> {
    let mut report = Report::new(file);
    let start = Pos { line: 1, column: 1 };
    if text.len() > CONFIG_MAX {
        report.add(start, format!("{} bytes; {CONFIG_MAX} is the most", text.len()));
        return Err(report.finish());
    }
    let Some(root) = tree::parse(text, &mut report) else {
        return Err(report.finish());
    };
    let mut cx = read::Cx::new(&mut report, platform);
    let config = read::config(&root, &mut cx);
    if report.is_clean() { Ok(config) } else { Err(report.finish()) }
}

/// Reads a config from the bytes of a file, which must be UTF-8.
///
/// # Errors
/// As `parse`; of bytes that are not UTF-8 the first is named.
pub fn parse_bytes(bytes: &[u8], file: &str, platform: &Platform) -> Result<Config, Vec<ConfigError>> {
    let wrong = match core::str::from_utf8(bytes) {
        Ok(text) => return parse(text, file, platform),
        Err(wrong) => wrong,
    };
    let (before, rest) = bytes.split_at(wrong.valid_up_to());
    let before = core::str::from_utf8(before).unwrap_or("");
    let last_line = before.rsplit('\n').next().unwrap_or("");
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).saturating_add(1);
    let pos = Pos { line: count(before.matches('\n').count()), column: count(last_line.chars().count()) };
    let mut report = Report::new(file);
    report.add(pos, format!("the byte 0x{:02x} is not UTF-8", rest.first().copied().unwrap_or(0)));
    Err(report.finish())
}

/// Why a text cannot be the name of a service, if it cannot.
#[must_use]
pub fn service_name_error(name: &str) -> Option<String> {
    read::name_error(name)
}

/// Drives the parser with any bytes: it must not panic, errors must point into the text, and what is accepted must
/// survive the way to JSON and back.
pub fn fuzz(bytes: &[u8]) {
    let platform = Platform::linux();
    match parse_bytes(bytes, "fuzz.json", &platform) {
        Ok(config) => {
            let json = to_json(&config);
            if json.len() > CONFIG_MAX {
                // All instances, written out, may be longer than a file is allowed to be.
                return;
            }
            assert_eq!(parse(&json, "fuzz.json", &platform).as_ref(), Ok(&config), "{json}");
        }
        Err(errors) => {
            let lines = 1 + bytes.iter().filter(|b| **b == b'\n').count();
            assert!(!errors.is_empty());
            for e in &errors {
                assert!(e.column > 0 && e.line > 0 && usize::try_from(e.line).is_ok_and(|l| l <= lines), "{e:?}");
                assert!(!e.to_string().contains('\n') && !e.message.is_empty(), "{e:?}");
                assert_eq!(e.excerpt(&String::from_utf8_lossy(bytes)).lines().count(), 2, "{e:?}");
            }
        }
    }
}
