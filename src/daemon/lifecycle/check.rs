//! Check mode: a new program looks at everything that it would take over, writes nothing, and says what it thinks of
//! it. Reads the run table, the labels of what is held, journal and config.

use super::read::{config_in_effect, read_config};
use crate::base::control::{MANIFEST_VERSION, VERSION};
use crate::base::paths::Paths;
use crate::core::record;
use crate::daemon::journal::Journal;
use crate::daemon::{BUILD, capture, child, door};
use crate::sys;
use crate::sys::memory;
use crate::sys::table::RunTable;
use serde::{Deserialize, Serialize};
use std::os::fd::OwnedFd;
use std::path::Path;

/// What a new program says.
#[derive(Debug, Serialize, Deserialize)]
pub struct Report {
    /// Version of the channel between keeper and daemon, and of what a keeper leaves to the next.
    pub control: u8,
    pub manifest: u32,
    pub version: String,
    #[serde(default)]
    pub build: String,
    /// What it cannot take over; none: all is well.
    pub problems: Vec<String>,
}

/// Looks at everything. `table` is where the run table can be opened, if it can; `labels` holds the labels, each with a
/// zero byte after it.
#[must_use]
pub fn check(paths: &Paths, table: Option<&Path>, labels: &OwnedFd) -> Report {
    let mut problems = Vec::new();
    if let Some(table) = table
        && let Err(e) = sys::file::open_regular(table).and_then(|f| RunTable::look(f.into()))
    {
        problems.push(format!("it cannot read the run table: {e}"));
    }
    match memory::content(labels) {
        Ok(text) => problems.extend(unknown(&text)),
        Err(e) => problems.push(format!("it cannot read what is held: {e}")),
    }
    match Journal::check(&paths.state) {
        Ok(checked) => {
            let aside = record::read(checked.entities).aside;
            let aside = aside.into_iter().filter(|(e, _)| !e.key.starts_with("aside/"));
            problems.extend(aside.map(|(e, why)| format!("it cannot read the record {} of the journal: {why}", e.key)));
        }
        Err(e) => problems.push(format!("it cannot read the journal: {e}")),
    }
    // Without one the running hob uses no config either, whatever may lie in its place.
    let config = config_in_effect(paths);
    if config.exists()
        && let Err(e) = read_config(&config)
    {
        problems.push(format!("it cannot use the config in effect: {e}"));
    }
    let version = env!("CARGO_PKG_VERSION").to_owned();
    Report { control: VERSION, manifest: MANIFEST_VERSION, version, build: BUILD.to_owned(), problems }
}

fn unknown(labels: &[u8]) -> Vec<String> {
    let labels = labels.split(|b| *b == 0).filter(|l| !l.is_empty());
    let strange = labels.map(String::from_utf8_lossy).filter(|l| !knows(l));
    strange.map(|label| format!("it does not know what is held as {label}")).collect()
}

/// Whether this program knows what to do with descriptors of this label.
pub(in crate::daemon) fn knows(label: &str) -> bool {
    label.starts_with(child::notify_label("").as_str())
        || label.starts_with(child::ready_label("").as_str())
        || label.starts_with(child::SOCKET_LABEL)
        || label.starts_with(door::CHANNEL)
        || capture::Capture::knows(label)
        || label == super::upgrade::LABEL
}

/// Labels as `check` reads them.
///
/// # Errors
/// ENOMEM and the like.
pub(in crate::daemon) fn labels<'a>(all: impl Iterator<Item = &'a str>) -> std::io::Result<OwnedFd> {
    let mut text = Vec::new();
    for label in all {
        text.extend_from_slice(label.as_bytes());
        text.push(0);
    }
    memory::sealed(c"hob-labels", &text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_labels_that_nobody_knows_are_a_problem() {
        assert!(
            knows("notify/web")
                && knows(&child::ready_label("web"))
                && knows("listen/web - tcp:[::]:80")
                && knows("upgrade")
                && knows("hob_fd/7/1000")
                && !knows("session/9/terminal")
        );
        assert_eq!(unknown(b"notify/web\0session/9\0").len(), 1);
        let fd = labels(["notify/a", "x/y"].into_iter()).unwrap();
        assert_eq!(unknown(&memory::content(&fd).unwrap()), ["it does not know what is held as x/y"]);
    }
}
