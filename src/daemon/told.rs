//! Events as lines of the daemon's own log: all but those of tasks, of which it tells what went wrong, and that not
//! without end: there may be a hundred thousand, and the log is to tell of the rest as well.

use super::Daemon;
use crate::base::log::{LogFormat, Said};
use crate::base::time::Mono;
use crate::config::Level;
use crate::core::event_kind;
use core::time::Duration;

/// So many failures of tasks are told in so long a time.
const TASKS_MAX: u32 = 100;
const PERIOD: Duration = Duration::from_secs(60);

/// How many failures of tasks were told of late.
#[derive(Debug, Default)]
pub(super) struct Pace {
    since: Option<Mono>,
    count: u32,
}

/// Whether one more is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Told,
    /// It is not, which is.
    First,
    Silent,
}

impl Pace {
    fn next(&mut self, now: Mono) -> Next {
        if self.since.is_none_or(|since| now.since(since) >= PERIOD) {
            *self = Pace { since: Some(now), count: 0 };
        }
        self.count = self.count.saturating_add(1);
        match self.count.checked_sub(TASKS_MAX) {
            None | Some(0) => Next::Told,
            Some(1) => Next::First,
            Some(_) => Next::Silent,
        }
    }
}

impl Daemon {
    /// An event as a line: its kind, its name, then what else it says.
    pub(super) fn tell(&mut self, line: &str) {
        let kind = event_kind(line).unwrap_or_default();
        let level = level(kind);
        if !self.gear.log.wants(level) {
            return;
        }
        if level == Level::Warn && kind.starts_with("task.") {
            match self.gear.told.next(self.gear.now.mono) {
                Next::Told => {}
                Next::First => {
                    let text = format!(
                        "more than {TASKS_MAX} tasks failed within a minute; 'hob task list --state failed' and \
                         'hob events' tell of the others"
                    );
                    return self.gear.log(Level::Warn, text);
                }
                Next::Silent => return,
            }
        }
        let Ok(serde_json::Value::Object(event)) = serde_json::from_str(line) else { return };
        let mut text = String::new();
        for key in ["kind", "name"] {
            if let Some(word) = event.get(key).and_then(serde_json::Value::as_str) {
                text.push_str(word);
                text.push(' ');
            }
        }
        for (key, value) in event.iter().filter(|(key, _)| !matches!(key.as_str(), "seq" | "time" | "kind" | "name")) {
            word(&mut text, key, value);
        }
        let said = Said { level, text: text.trim_end(), event: Some(line.trim_end()) };
        let name = event.get("name").and_then(serde_json::Value::as_str);
        // On standard error the command hob is run for speaks for itself, once it has begun.
        let is_command = name.is_some_and(|name| self.capture.is_copied(name));
        let error = event.get("error").and_then(serde_json::Value::as_str);
        match (is_command, kind, error) {
            (true, "service.start_failed", Some(error)) if self.gear.log.style().format == LogFormat::Text => {
                self.gear.log.add_with_plain(said, &of_command(error), self.gear.now);
            }
            (true, "service.start_failed", _) | (false, ..) => self.gear.log.add(said, self.gear.now),
            (true, ..) => self.gear.log.add_to_file(said, self.gear.now),
        }
    }
}

/// Why a command cannot be started that stands in no config: without what is to be done there.
fn of_command(error: &str) -> String {
    let is_of_config = |part: &&str| part.contains("`command`") || part.contains("\"command\"");
    error.split("; ").filter(|part| !is_of_config(part)).collect::<Vec<_>>().join("; ")
}

/// `key=value `, and of an object `key.member=value ` for each.
fn word(text: &mut String, key: &str, value: &serde_json::Value) {
    match value.as_object() {
        Some(members) => members.iter().for_each(|(member, value)| word(text, &format!("{key}.{member}"), value)),
        None => text.push_str(&format!("{key}={value} ")),
    }
}

fn level(kind: &str) -> Level {
    let bad = ["failed", "flapping", "unhealthy", "watchdog", "error", "behind", "timeout", "lost"];
    if bad.iter().any(|end| kind.ends_with(end)) {
        Level::Warn
    } else if kind.starts_with("task.") {
        Level::Debug
    } else {
        Level::Info
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_tasks_the_log_tells_what_went_wrong_and_of_everything_else_all() {
        for (kind, wanted) in [
            ("task.queued", Level::Debug),
            ("task.cancelled", Level::Debug),
            ("task.failed", Level::Warn),
            ("task.start_failed", Level::Warn),
            ("task.timeout", Level::Warn),
            ("task.lost", Level::Warn),
            ("service.exited", Level::Info),
            ("service.failed", Level::Warn),
            ("schedule.fired", Level::Info),
        ] {
            assert_eq!(level(kind), wanted, "{kind}");
        }
    }

    #[test]
    fn of_a_flood_of_failures_so_many_are_told_in_a_minute() {
        let mut pace = Pace::default();
        let minute = |n: u64| Mono(n * 60_000_000_000 + 5);
        for at in [1, 2] {
            let told: Vec<Next> = (0..1000).map(|_| pace.next(minute(at))).collect();
            assert!(told[..100].iter().all(|n| *n == Next::Told));
            assert_eq!(told[100], Next::First);
            assert!(told[101..].iter().all(|n| *n == Next::Silent));
        }
    }
}
