//! Files of time zones as the system keeps them.

use std::path::{Path, PathBuf};

/// Larger files are no zone files: the longest of the database have four thousand bytes.
const SIZE_MAX: u64 = 1024 * 1024;
/// Where systems keep them.
const FOLDERS: [&str; 4] = ["/usr/share/zoneinfo", "/usr/lib/zoneinfo", "/usr/share/lib/zoneinfo", "/etc/zoneinfo"];
const LOCAL: &str = "/etc/localtime";

/// The name and content of a zone's file; of the local one, by TZ or /etc/localtime, for an empty name. A TZ that is a
/// rule of POSIX comes back as its text. `None` where there is none.
#[must_use]
pub fn read(name: &str) -> Option<(String, Vec<u8>)> {
    if !name.is_empty() {
        return find(name);
    }
    let tz = std::env::var("TZ").unwrap_or_default();
    let tz = tz.strip_prefix(':').unwrap_or(&tz);
    if tz.is_empty() {
        let path = Path::new(LOCAL);
        return file(path).map(|content| (name_of(path), content));
    }
    if tz.starts_with('/') {
        return file(Path::new(tz)).map(|content| (name_of(Path::new(tz)), content));
    }
    find(tz).or_else(|| tz.contains(|c: char| c.is_ascii_digit()).then(|| (tz.to_owned(), tz.as_bytes().to_vec())))
}

fn find(name: &str) -> Option<(String, Vec<u8>)> {
    let inside = Path::new(name).components().all(|c| matches!(c, std::path::Component::Normal(_)));
    if !inside {
        return None;
    }
    let own = std::env::var_os("TZDIR").map(PathBuf::from);
    let folders = own.into_iter().chain(FOLDERS.map(PathBuf::from));
    let content = folders.into_iter().find_map(|folder| file(&folder.join(name)))?;
    Some((name.to_owned(), content))
}

/// A file's content, where it is that of a zone.
fn file(path: &Path) -> Option<Vec<u8>> {
    let meta = std::fs::metadata(path).ok().filter(|m| m.is_file() && m.len() <= SIZE_MAX)?;
    let content = std::fs::read(path).ok()?;
    (meta.len() > 0 && content.starts_with(b"TZif")).then_some(content)
}

/// A link into the database names the zone.
fn name_of(path: &Path) -> String {
    let target = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let text = target.to_string_lossy();
    text.split_once("zoneinfo/").map_or_else(|| "local time".to_owned(), |(_, name)| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_do_not_lead_out_of_the_database() {
        for name in ["../../../etc/passwd", "/etc/passwd", "Europe/../../../../etc/passwd", "nowhere/at-all", "."] {
            assert_eq!(read(name), None, "{name}");
        }
    }
}
