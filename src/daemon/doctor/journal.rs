//! The journal as it lies on the disk: whether a next daemon could read all of it.

use super::{Scene, quoted};
use crate::base::finding::{Finding, Grade};
use crate::base::units::human_size;
use crate::core::record::{self, Entity};
use crate::daemon::capture::leftover::LOST;
use crate::daemon::journal::Journal;
use crate::sys::reason;
use std::io::ErrorKind;
use std::path::Path;

const AREA: &str = "journal";
/// Where the journal puts what it cannot read.
const BAD: &str = "journal-bad.log";
/// Many times what a snapshot and the journal after it come to.
const LARGE: u64 = 512 * 1024 * 1024;
/// How often a journal that somebody writes to is read, until what is wrong is wrong each time.
const READINGS: usize = 3;

pub(super) fn look(scene: &Scene<'_>) -> Vec<Finding> {
    let dir = &scene.paths.state;
    if !dir.exists() {
        return Vec::new();
    }
    let mut checked = match Journal::check(dir) {
        Ok(checked) => checked,
        Err(e) if e.kind() == ErrorKind::NotFound => return Vec::new(),
        Err(e) => {
            let f = Finding::new(Grade::Error, AREA, format!("it cannot be read in {}: {}", dir.display(), reason(&e)));
            return vec![f.why("a next daemon would know nothing of what was decided")];
        }
    };
    for _ in 1..READINGS {
        if checked.reports.is_empty() {
            break;
        }
        // What is being written looks like damage; only what stays is.
        let Ok(again) = Journal::check(dir) else { break };
        checked.reports.retain(|r| again.reports.contains(r));
        checked.gap &= again.gap;
    }
    let mut all = Vec::new();
    for report in &checked.reports {
        let f = Finding::new(Grade::Warning, AREA, report.as_str());
        all.push(
            f.why("what it said there is lost; the rest is read").todo("hob status, and compare with what you expect"),
        );
    }
    if checked.gap && checked.reports.is_empty() {
        let f = Finding::new(Grade::Warning, AREA, "some of its records are missing");
        all.push(f.why("what they said is not known"));
    }
    let aside = aside(&checked.entities);
    if aside > 0 && !scene.running {
        let f = Finding::new(Grade::Warning, AREA, format!("{aside} records mean nothing to this hob"));
        all.push(f.why("they are of a later hob, or damaged; they are kept").todo("hob upgrade"));
    }
    all.extend(set_aside(dir));
    all.extend(lost_output(&scene.paths.logs));
    let size = size(dir);
    if size > LARGE {
        let f = Finding::new(Grade::Warning, AREA, format!("it has {}", human_size(size)));
        all.push(f.why("snapshots should keep it small").todo(format!("ls -l {}", quoted(dir))));
    }
    if all.is_empty() {
        let n = checked.entities.len();
        let noun = if n == 1 { "entity" } else { "entities" };
        let what = format!("it can be read whole: {n} {noun} in {}", human_size(size));
        all.push(Finding::new(Grade::Ok, AREA, what));
    }
    all
}

/// Records that are not in effect: those that are kept aside, and those that would be now.
fn aside(entities: &[Entity]) -> usize {
    let (kept, other): (Vec<_>, Vec<_>) = entities.iter().cloned().partition(|e| e.key.starts_with(record::ASIDE));
    kept.len() + record::read(other).aside.len()
}

/// What was set aside stays a warning until somebody has looked at it, as nothing else tells of it later.
fn set_aside(state: &Path) -> Option<Finding> {
    let path = state.join(BAD);
    let size = path.metadata().ok()?.len();
    let f = Finding::new(Grade::Warning, AREA, format!("{BAD} has {} of it that could not be read", human_size(size)));
    let todo = format!("look at it, hob status and hob task list, and when nothing is missed: rm {}", quoted(&path));
    Some(f.why("what that said is lost; of a record that a kill cut short nothing had been done yet").todo(todo))
}

/// The same for output of tasks that no record knows.
fn lost_output(logs: &Path) -> Option<Finding> {
    let names = super::lost_outputs(logs);
    let first = names.first()?;
    let more = names.len() - 1;
    let which = if more == 0 { first.clone() } else { format!("{first} and {more} more") };
    let folder = logs.join("tasks");
    let f = Finding::new(Grade::Warning, AREA, format!("there is output of tasks that no record knows: {which}"));
    let todo = format!("see what they wrote, queue again what is missed, and then: rm {}/{LOST}*", quoted(&folder));
    Some(f.why("the records of these tasks were lost, so that nobody knows whether they ended well").todo(todo))
}

/// Bytes of journals and snapshots.
fn size(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let named = entries.flatten().filter(|e| {
        let name = e.file_name();
        let name = name.to_string_lossy();
        name.starts_with("journal-") || name.starts_with("snapshot-")
    });
    named.filter_map(|e| e.metadata().ok()).map(|m| m.len()).sum()
}
