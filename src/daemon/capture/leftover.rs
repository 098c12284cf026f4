//! Output of tasks that were removed, which a daemon that died did not get to remove: found once, when the next one
//! has come up.

use super::Capture;
use crate::base::ids::TaskId;
use crate::sys::file;
use std::io;
use std::path::PathBuf;

/// What the names of files begin with whose task is lost.
pub const LOST: &str = "lost-";

/// The files of output whose task is gone.
#[derive(Debug)]
pub struct Leftover {
    pub(super) folder: PathBuf,
    /// The tasks that there are, in order.
    pub(super) known: Vec<TaskId>,
    /// No task from this number on is on record, and one from `next` on was submitted since.
    pub(super) end: TaskId,
    pub(super) next: TaskId,
    /// Records are missing, so that nobody knows whose it is.
    pub(super) gap: bool,
}

impl Capture {
    /// Output of tasks that are not among these, in order, and that are numbered below `next`.
    #[must_use]
    pub fn leftover(&self, known: Vec<TaskId>, (end, next): (TaskId, TaskId), gap: bool) -> Leftover {
        Leftover { folder: self.tasks.clone(), known, end, next, gap }
    }
}

impl Leftover {
    /// Removes what is of tasks that were removed, and gives what may be of lost ones a name of its own. A number is
    /// never given to another task, so nobody writes to such a file any more.
    ///
    /// # Errors
    /// What could not be read or removed; everything else was.
    pub fn remove(self) -> Result<(), String> {
        let failed = |e: &io::Error| format!("cannot remove the output of tasks that are gone: {e}");
        let entries = match std::fs::read_dir(&self.folder) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(|e| failed(&e))?,
        };
        let mut result = Ok(());
        for entry in entries {
            let removed = entry.and_then(|entry| match entry.file_name().to_str().and_then(task_of) {
                Some(id) if id >= self.next || self.known.binary_search(&id).is_ok() => Ok(()),
                Some(id) if id < self.end && !self.gap => file::remove(&entry.path()),
                Some(_) => {
                    let name = format!("{LOST}{}", entry.file_name().to_string_lossy());
                    std::fs::rename(entry.path(), self.folder.join(name))
                }
                None => Ok(()),
            });
            if let Err(e) = removed {
                result = Err(failed(&e));
            }
        }
        result
    }
}

/// The task whose output a file of this name holds, in whatever form: `7.log`, `7.log.1.gz`, `7.log.idx`.
fn task_of(name: &str) -> Option<TaskId> {
    let (id, rest) = name.split_once(".log")?;
    let plain = id.bytes().all(|b| b.is_ascii_digit()) && !id.starts_with('0');
    id.parse().ok().map(TaskId).filter(|_| plain && (rest.is_empty() || rest.starts_with('.')))
}

/// The task that wrote what a file of this name holds, whether it is known or lost.
#[must_use]
pub fn written_by(name: &str) -> Option<TaskId> {
    task_of(name.strip_prefix(LOST).unwrap_or(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_of_output_belong_to_a_task() {
        for name in ["7.log", "7.log.1", "7.log.2.gz", "7.log.idx", "7.log.1.idx"] {
            assert_eq!(task_of(name), Some(TaskId(7)), "{name}");
            assert_eq!(written_by(&format!("{LOST}{name}")), Some(TaskId(7)), "{name}");
        }
        for name in ["", ".log", "7", "7.logs", "07.log", "+7.log", "x7.log", "7.txt", "18446744073709551616.log"] {
            assert_eq!((task_of(name), written_by(name)), (None, None), "{name}");
        }
    }

    #[test]
    fn what_is_removed_belongs_to_no_task_that_is_there_or_comes() {
        let folder = std::env::temp_dir().join(format!("hob-test-leftover-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("4.log")).unwrap();
        for name in
            ["1.log", "2.log", "2.log.1", "2.log.idx", "3.log", "5.log", "6.log", "7.log.1", "8.log", "notes.txt"]
        {
            std::fs::write(folder.join(name), "x").unwrap();
        }
        let known = vec![TaskId(1), TaskId(3)];
        let (end, next) = (TaskId(6), TaskId(8));
        let of = |gap| Leftover { folder: folder.clone(), known: known.clone(), end, next, gap };
        let names = || {
            let mut left: Vec<_> =
                std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
            left.sort();
            left
        };
        let told = of(false).remove();
        let lost = ["lost-6.log", "lost-7.log.1", "notes.txt"];
        assert_eq!(names(), [&["1.log", "3.log", "4.log", "8.log"][..], &lost].concat());
        assert!(told.is_err_and(|e| e.contains("of tasks that are gone")), "a folder is not removed, and that is told");
        // Where records are missing nothing goes.
        std::fs::write(folder.join("2.log"), "x").unwrap();
        of(true).remove().unwrap();
        let lost = ["lost-2.log", "lost-4.log", "lost-6.log", "lost-7.log.1", "notes.txt"];
        assert_eq!(names(), [&["1.log", "3.log", "8.log"][..], &lost].concat());
        std::fs::remove_dir_all(&folder).unwrap();
        let nowhere = of(false);
        assert_eq!(nowhere.remove(), Ok(()), "there is no output");
    }
}
