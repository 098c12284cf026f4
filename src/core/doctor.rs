//! What the core alone knows of how hob is, for an examination: services in trouble, the journal, safe mode. Pure.

use super::schedule::is_own;
use super::service::{Choice, Service, State};
use super::view::Pending;
use super::{Core, Effect, Out};
use crate::base::finding::{CONFIG, Finding, Grade};
use crate::base::ids::ReqId;
use crate::base::text::count;
use crate::config::trouble;
use crate::protocol::rpc::{Code, RpcError};
use serde::Deserialize;
use std::borrow::Cow;

const HOB: &str = "daemon";
const SERVICES: &str = "services";
/// How many errors a run of a job names.
const ERRORS_NAMED: usize = 3;

impl Core {
    /// The shell looks at everything else and answers by `Input::Examined`.
    pub(super) fn examine(&mut self, req: ReqId, out: &mut Out) {
        self.pending.insert(req, Pending::Doctor);
        out.effects.push(Effect::Doctor { req, findings: self.findings() });
    }

    /// A client reads the report; a run of a job has failed where something does not work.
    pub(super) fn examined(&mut self, req: ReqId, result: Result<String, RpcError>, out: &mut Out) {
        if !self.pending.contains_key(&req) {
            return;
        }
        let result = match result {
            Ok(report) if is_own(req) => judge(&report).map(|()| report),
            other => other,
        };
        self.reply(req, result, false, out);
    }

    fn findings(&self) -> Vec<Finding> {
        let mut all = self.own_findings();
        let before = all.len();
        for i in self.table.by_name() {
            all.extend(self.trouble(i));
        }
        if all.len() == before {
            let count = self.table.by_name().count();
            let what = match count {
                0 => "there are no services".to_owned(),
                1 => "the service is as it should be".to_owned(),
                n => format!("all {n} services are as they should be"),
            };
            all.push(Finding::new(Grade::Ok, SERVICES, what));
        }
        all
    }

    fn own_findings(&self) -> Vec<Finding> {
        let mut all = Vec::new();
        if let Some(fault) = &self.safe {
            let f = Finding::new(Grade::Error, HOB, format!("hob is in safe mode: {fault}"));
            all.push(f.why("what runs goes on, and nothing is started, stopped or restarted").todo("hob reload"));
        } else if self.facts.deaths > 0 {
            let n = self.facts.deaths;
            let what = format!("the daemon has died {n} {} under this keeper", if n == 1 { "time" } else { "times" });
            let f = Finding::new(Grade::Warning, HOB, what);
            all.push(f.why("no service was harmed, but somebody kills it or it has a fault").todo("hob logs -n 200"));
        }
        if self.life.stopping.is_some() {
            let waits = self.inhibitors.text();
            let what = if waits.is_empty() {
                "hob is shutting down".to_owned()
            } else {
                format!("a shutdown waits for {waits}")
            };
            all.push(Finding::new(Grade::Note, HOB, what));
        } else if !self.inhibitors.text().is_empty() {
            all.push(Finding::new(Grade::Note, HOB, format!("a shutdown would wait for {}", self.inhibitors.text())));
        }
        if let Some(path) = &self.newer.path {
            let f = Finding::new(Grade::Note, HOB, format!("{path} is another program than the one that runs"));
            all.push(f.why("the one that runs goes on until it is told otherwise").todo("hob upgrade"));
        }
        if let Some(version) = &self.newer.version {
            let what = format!("daemon.update_command names version {version}; {} runs", self.facts.version);
            all.push(Finding::new(Grade::Note, HOB, what).todo("install it, then hob upgrade"));
        }
        if let Some(error) = &self.newer.error {
            let f = Finding::new(Grade::Warning, CONFIG, format!("daemon.update_command failed: {error}"));
            let f = f.why("nobody tells of a newer hob");
            all.push(f.todo("run it by hand to see why; mend it in hob.json, then hob reload"));
        }
        if let Some(why) = &self.journal_behind {
            let f = Finding::new(Grade::Error, "journal", format!("it cannot be written: {why}"));
            let loss = "a death of keeper and daemon would lose what was decided since, and changes cannot be promised";
            all.push(f.why(loss).todo("free space on its disk or mend its folder; hob tries again by itself"));
        } else if self.journal_full {
            let f = Finding::new(Grade::Error, "journal", "its disk is full");
            all.push(f.why("new work is refused; what runs goes on").todo("free space; hob goes on by itself"));
        }
        if self.gap {
            let f = Finding::new(Grade::Warning, "journal", "it lacked records when hob started");
            let why = "tasks and what people wished may be lost, and what is known of others may be old";
            all.push(f.why(why).todo("hob logs, and compare hob status and hob task list with what you expect"));
        }
        if !self.aside.is_empty() {
            let (records, are) = (count(self.aside.len(), "record"), if self.aside.len() == 1 { "is" } else { "are" });
            let what = format!("{records} cannot be read and {are} kept aside");
            let why = "that comes of a later hob, or of damage; what stood there is not in effect";
            all.push(Finding::new(Grade::Warning, "journal", what).why(why).todo("hob upgrade"));
        }
        if let Some(error) = &self.config_error {
            // What they are is told by who reads the file.
            let what = format!("the config file {} and is not in effect, as it was read last", trouble(error));
            let f = Finding::new(Grade::Error, CONFIG, what);
            all.push(f.why("changes of it do nothing until it is read again").todo("hob reload"));
        }
        if !self.orphans.is_empty() {
            let n = self.orphans.len();
            let f = Finding::new(Grade::Note, SERVICES, format!("{n} runs that no record knows are being stopped"));
            all.push(f.why("starts wait for that"));
        }
        all
    }

    /// What is not as it should be with one service.
    fn trouble(&self, i: usize) -> Option<Finding> {
        let s = &self.table[i];
        let name = &s.name;
        let error = s.last_error.as_deref().unwrap_or("unknown");
        let pulse = s.live.as_ref().and_then(|l| l.pulse.as_ref()).and_then(|p| p.error.as_deref());
        if s.state == State::Failed {
            let f = Finding::new(Grade::Error, SERVICES, format!("{name} has failed: {error}"));
            return Some(f.why("it is not started again by itself").todo(format!("hob why {name}")));
        }
        if s.flapping() {
            let f = Finding::new(Grade::Warning, SERVICES, format!("{name} is flapping: {error}"));
            let n = s.restarts_in_a_row();
            return Some(f.why(format!("{n} restarts in a row have not helped")).todo(format!("hob why {name}")));
        }
        if s.state == State::Backoff {
            let f = Finding::new(Grade::Warning, SERVICES, format!("{name} is down until its next try: {error}"));
            return Some(f.why("it is tried again with growing pauses").todo(format!("hob why {name}")));
        }
        if let Some(error) = pulse {
            let f = Finding::new(Grade::Warning, SERVICES, format!("{name} fails its health check: {error}"));
            return Some(f.why("it is restarted when it goes on to fail").todo(format!("hob why {name}")));
        }
        if s.state == State::Waiting && s.stuck {
            let what = format!("{name} waits for what is not on its way: {}", self.waiting_text(i));
            let f = Finding::new(Grade::Warning, SERVICES, what);
            return Some(f.why("it starts when that comes up").todo(format!("hob why {name}")));
        }
        if s.removed {
            let what = format!("{name} is not in the config any more and is {}", s.state);
            return Some(Finding::new(Grade::Note, SERVICES, what));
        }
        by_hand(s)
    }
}

/// The errors of a report, in one line.
fn judge(report: &str) -> Result<(), RpcError> {
    #[derive(Deserialize)]
    struct Report<'a> {
        #[serde(borrow)]
        findings: Vec<Found<'a>>,
    }
    #[derive(Deserialize)]
    struct Found<'a> {
        level: Grade,
        #[serde(borrow)]
        area: Cow<'a, str>,
        #[serde(borrow)]
        what: Cow<'a, str>,
    }
    let report: Report<'_> = serde_json::from_str(report).map_err(|e| RpcError::new(Code::Internal, e.to_string()))?;
    let mut errors: Vec<String> =
        report.findings.iter().filter(|f| f.level == Grade::Error).map(|f| format!("{}: {}", f.area, f.what)).collect();
    let more = errors.len().saturating_sub(ERRORS_NAMED);
    errors.truncate(ERRORS_NAMED);
    if more > 0 {
        errors.push(format!("and {}", count(more, "other error")));
    }
    if errors.is_empty() { Ok(()) } else { Err(RpcError::new(Code::Unavailable, errors.join("; "))) }
}

/// Somebody has said otherwise than the config.
fn by_hand(s: &Service) -> Option<Finding> {
    let by = s.wished_by()?;
    let said = match s.choice {
        Choice::Up if !s.spec.autostart => format!("{by} started it, and autostart is off"),
        Choice::Down if s.spec.autostart => format!("{by} stopped it, and autostart is on"),
        Choice::Up | Choice::Down | Choice::Auto => return None,
    };
    let f = Finding::new(Grade::Note, SERVICES, format!("{} is {}: {said}", s.name, s.state));
    let why = "that is remembered over restarts of hob and of the machine";
    Some(f.why(why).todo(format!("hob service reset {}", s.name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_examination_is_judged_by_its_errors() {
        let report = |grades: &[Grade]| {
            let found = |grade: &Grade| Finding::new(*grade, SERVICES, "it \"fails\"").json();
            let rows: Vec<String> = grades.iter().map(found).collect();
            judge(&format!(r#"{{"findings":[{}],"counts":{{}}}}"#, rows.join(","))).map_err(|e| e.message)
        };
        assert_eq!(report(&[Grade::Ok, Grade::Note, Grade::Warning]), Ok(()));
        let one = "services: it \"fails\"";
        assert_eq!(report(&[Grade::Ok, Grade::Error]), Err(one.to_owned()));
        assert_eq!(report(&[Grade::Error; 5]), Err(format!("{one}; {one}; {one}; and 2 other errors")));
    }
}
