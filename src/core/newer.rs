//! Whether there is another hob than the one that runs: by the file it was started from, and by the word of
//! `daemon.update_command`. A person decides what to do about it. Pure.

use super::due::Due;
use super::{Core, Effect, Out};
use crate::base::json::Obj;
use crate::config::{DaemonSpec, Level};
use core::time::Duration;

/// The first time that the command is run, after a start or a change of it: what comes up goes first.
const FIRST: Duration = Duration::from_secs(10);
/// How long the command may take.
const LIMIT: Duration = Duration::from_secs(60);
/// The pause after a failure; it doubles with each in a row.
const AGAIN: Duration = Duration::from_secs(60);

const UPDATE_AVAILABLE: &str = "daemon.update_available";

/// What is known of other programs.
#[derive(Debug, Default)]
pub(super) struct Newer {
    /// Where the program that runs was started from, another one lies.
    pub(super) path: Option<String>,
    /// What the command named last, where that is another version than the one that runs.
    pub(super) version: Option<String>,
    /// Why the command failed the last time.
    pub(super) error: Option<String>,
    /// Failures in a row.
    fails: u32,
    /// The command is being run.
    asking: bool,
}

impl Core {
    /// A newer program may be there, or an older one.
    pub(super) fn other_program(&mut self, path: Option<String>, out: &mut Out) {
        if let Some(path) = &path {
            let mut fields = Obj::new();
            fields.str("path", path);
            self.emit_daemon(UPDATE_AVAILABLE, fields.members(), out);
        }
        self.newer.path = path;
    }

    /// The daemon has come up, or its settings have changed from these.
    pub(super) fn plan_newest(&mut self, before: Option<&DaemonSpec>, out: &mut Out) {
        let asks = |spec: &DaemonSpec| (spec.update_command.clone(), spec.update_every);
        if before.is_some_and(|b| asks(b) == asks(&self.config)) {
            return;
        }
        self.end_newest(out);
        (self.newer.version, self.newer.error, self.newer.fails) = (None, None, 0);
        let wanted = self.config.update_command.is_some();
        let first = FIRST.min(self.config.update_every);
        self.deadlines.set(Due::Newest, wanted.then(|| self.now.mono + first));
    }

    pub(super) fn ask_newest(&mut self, out: &mut Out) {
        let Some(command) = self.config.update_command.clone() else { return };
        let every = self.config.update_every;
        self.deadlines.set(Due::Newest, Some(self.now.mono + every));
        if !core::mem::replace(&mut self.newer.asking, true) {
            out.effects.push(Effect::Newest { command, limit: LIMIT.min(every) });
        }
    }

    /// Nobody asks any more.
    pub(super) fn end_newest(&mut self, out: &mut Out) {
        self.deadlines.set(Due::Newest, None);
        if core::mem::take(&mut self.newer.asking) {
            out.effects.push(Effect::NewestEnd);
        }
    }

    /// What the command printed last, or why it failed.
    pub(super) fn newest(&mut self, result: Result<String, String>, out: &mut Out) {
        if !core::mem::take(&mut self.newer.asking) {
            return;
        }
        let named = result.and_then(|line| match version_in(&line) {
            Some(version) => Ok(version.to_owned()),
            None if line.is_empty() => Err("it printed nothing".to_owned()),
            None => Err(format!("no version stands in the last line that it printed: {line}")),
        });
        match named {
            Ok(version) => {
                (self.newer.error, self.newer.fails) = (None, 0);
                let another = version != self.facts.version;
                self.named(another.then_some(version), out);
            }
            Err(error) => {
                // The words for it are those of services, whose key has another name.
                let error = error.replace("\"command\", or set PATH in \"env\"", "\"update_command\"");
                if self.newer.error.as_ref() != Some(&error) {
                    let text = format!("daemon.update_command failed: {error}");
                    out.effects.push(Effect::Log { level: Level::Warn, text });
                }
                self.newer.error = Some(error);
                // It may be that the network is not up yet.
                let pause = AGAIN.saturating_mul(1 << self.newer.fails.min(20)).min(self.config.update_every);
                self.newer.fails = self.newer.fails.saturating_add(1);
                self.deadlines.set(Due::Newest, Some(self.now.mono + pause));
            }
        }
    }

    fn named(&mut self, version: Option<String>, out: &mut Out) {
        if let Some(version) = version.as_ref().filter(|v| self.newer.version.as_ref() != Some(*v)) {
            let mut fields = Obj::new();
            fields.str("version", version).str("running", self.facts.version);
            // A daemon before this one may have told it.
            if !self.events.has(UPDATE_AVAILABLE, fields.members()) {
                self.emit_daemon(UPDATE_AVAILABLE, fields.members(), out);
            }
        }
        self.newer.version = version;
    }
}

/// The first version in a line such as `hob 1.2.3`, `v1.2.3` or `"tag_name": "hob-1.2.3",`.
fn version_in(line: &str) -> Option<&str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+');
    line.split(|c: char| !is_part(c)).find_map(|word| {
        let word = word.strip_prefix("hob-").unwrap_or(word);
        let word = word.strip_prefix(['v', 'V']).unwrap_or(word).trim_end_matches(['.', '-', '+']);
        (word.contains('.') && word.starts_with(|c: char| c.is_ascii_digit())).then_some(word)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_found_in_what_is_usually_printed() {
        for (line, version) in [
            ("0.2.0", Some("0.2.0")),
            ("hob 1.2.3", Some("1.2.3")),
            ("hob v1.2.3-rc.1+arm (2026-01-02)", Some("1.2.3-rc.1+arm")),
            (r#"  "tag_name": "v0.10.0","#, Some("0.10.0")),
            ("https://example.org/hob/releases/tag/v3.4", Some("3.4")),
            ("the newest is 1.2.0.", Some("1.2.0")),
            ("version=V1.2.0", Some("1.2.0")),
            ("hob-1.2.0", Some("1.2.0")),
            ("", None),
            ("not found", None),
            ("404", None),
            ("v.x", None),
        ] {
            assert_eq!(version_in(line), version, "{line}");
        }
    }
}
