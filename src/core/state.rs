//! The core itself: all control state in one place, the one `match` over `Input`, and the order of a step. Pure.

use super::due::{Deadlines, Due};
use super::event::Events;
use super::inhibit::Inhibitors;
use super::keys::Keys;
use super::life::Life;
use super::newer::Newer;
use super::record::{self, Entity};
use super::schedule::Schedules;
use super::service::orphan::Orphan;
use super::service::reloading::Reloads;
use super::service::table::Table;
use super::service::wish::Wish;
use super::task::{self, Programs, Tasks};
use super::view::Pending;
use super::wait::Wait;
use super::{Boot, Duty, Effect, Input, Out};
use crate::base::ids::{ReqId, RunId};
use crate::base::limits::RUN_SLOTS;
use crate::base::map::Map;
use crate::base::time::{Mono, Now, Wall};
use crate::config::{DaemonSpec, Level};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Ended runs whose output is still awaited, at most.
const RECENT_MAX: usize = 4096;

/// What a daemon knows from its start and never changes.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub(super) document: Option<fn() -> &'static str>,
    pub(super) keeper: String,
    pub(super) keeper_pid: u32,
    pub(super) daemon_pid: u32,
    pub(super) generation: u32,
    pub(super) deaths: u32,
    pub(super) version: &'static str,
    pub(super) keeper_started: Mono,
    pub(super) signals: &'static [(&'static str, i32)],
    /// For `daemon.status`, as a JSON object (platform, paths); empty until they are told.
    pub(super) platform: Arc<str>,
    pub(super) managed: bool,
    pub(super) outer: bool,
    /// The user that hob runs as.
    pub(super) uid: u32,
    pub(super) runs_max: usize,
}

/// The parts of a snapshot, in their order.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Section {
    Aside,
    Attempts,
    Gone,
    Groups,
    Keys,
    Meta,
    Ran,
    Runs,
    Schedules,
    Services,
    Shutdown,
    Tasks,
}

impl Section {
    const ALL: [Section; 12] = [
        Section::Aside,
        Section::Attempts,
        Section::Gone,
        Section::Groups,
        Section::Keys,
        Section::Meta,
        Section::Ran,
        Section::Runs,
        Section::Schedules,
        Section::Services,
        Section::Shutdown,
        Section::Tasks,
    ];
}

/// All control state. `step` is the only way to change it.
#[derive(Debug, Default)]
pub struct Core {
    pub(super) now: Now,
    pub(super) facts: Facts,
    pub(super) config: DaemonSpec,
    pub(super) config_error: Option<String>,
    pub(super) newer: Newer,
    /// When the config in effect was read; `None` while none could be.
    pub(super) config_taken: Option<Wall>,
    pub(super) table: Table,
    pub(super) tasks: Tasks,
    /// Agents and runners of the config.
    pub(super) programs: Programs,
    /// Runs that are not over, and runs that are but whose output is not known yet, to the place of their service.
    pub(super) runs: BTreeMap<RunId, usize>,
    pub(super) recent: BTreeMap<RunId, usize>,
    /// What persons said about services that are not in the config now; it counts again when they come back.
    pub(super) wishes: Map<String, Wish>,
    pub(super) orphans: Map<RunId, Orphan>,
    /// The keeper holds sockets for these, and while no config can be read nobody knows whether they are services.
    pub(super) held_sockets: Vec<Arc<str>>,
    pub(super) next_run: u64,
    /// While there are orphans: the first number of a run that never was on record.
    pub(super) unseen: Option<u64>,
    pub(super) events: Events,
    pub(super) keys: Keys,
    pub(super) schedules: Schedules,
    pub(super) waits: Vec<Wait>,
    pub(super) reloads: Vec<Reloads>,
    pub(super) pending: Map<ReqId, Pending>,
    pub(super) deadlines: Deadlines,
    pub(super) life: Life,
    /// In safe mode: what was at fault.
    pub(super) safe: Option<String>,
    /// An upgrade is under way.
    pub(super) upgrading: bool,
    pub(super) journal_behind: Option<String>,
    pub(super) journal_full: bool,
    /// Records of the journal were missing when this daemon came up.
    pub(super) gap: bool,
    /// Whose output is being dropped.
    pub(super) losing: BTreeSet<Arc<str>>,
    pub(super) inhibitors: Inhibitors,
    /// What ran when a managed hob ended the last time, as far as nobody has said otherwise since.
    pub(super) ran: Vec<String>,
    pub(super) status_due: bool,
    /// Journal entities that this program does not understand, kept as they are.
    pub(super) aside: Map<String, String>,
}

impl Core {
    #[must_use]
    pub fn new() -> Core {
        Core::default()
    }

    /// Takes one fact or wish, and appends what is to be done about it. Never fails, never blocks.
    pub fn step(&mut self, now: Now, input: Input, out: &mut Out) {
        self.notice_freeze(now, out);
        self.now = now;
        if self.has_ended() {
            return self.refuse(&input, out);
        }
        if self.safe.is_some() {
            return self.step_safe(input, out);
        }
        self.take(input, out);
        match self.safe {
            Some(_) => self.begin_safe(out),
            None => self.settle(out),
        }
    }

    /// Whether there is a service of this name, or a task with a run.
    #[must_use]
    pub fn knows(&self, service: &str) -> bool {
        match task::of_name(service) {
            Some(id) => self.tasks.get(id).is_some_and(|t| t.live.is_some()),
            None => self.table.find(service).is_some(),
        }
    }

    /// When `step` has to be called with `Input::Tick` at the latest; `None` when nothing will ever be due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Mono> {
        if self.has_ended() { None } else { self.deadlines.next() }
    }

    /// A slice of all live entities in a fixed order, those after the one named `cursor`, at most `max`: for a snapshot
    /// over many turns. Entities that change in the meantime are in the journal again.
    #[must_use]
    pub fn entities_from(&self, cursor: Option<&str>, max: usize) -> Vec<Entity> {
        use core::ops::Bound::{Excluded, Unbounded};
        let keeper = &self.facts.keeper;
        let mut found: Vec<Entity> = Vec::new();
        let first = cursor.map_or(Section::Aside, |c| self.section(c));
        for section in Section::ALL.into_iter().skip_while(|s| *s != first) {
            let cursor = cursor.filter(|_| section == first);
            let room = max - found.len();
            match section {
                Section::Aside => {
                    let aside = self.aside.after(cursor.unwrap_or("")).take(room);
                    found.extend(aside.map(|(k, json)| Entity { key: k.clone(), json: Some(json.clone()) }));
                }
                Section::Attempts => found.extend(self.tasks.attempts_from(cursor, room, keeper)),
                Section::Gone => found.extend(self.tasks.gone_from(cursor, room)),
                Section::Groups => found.extend(self.tasks.changes_from(cursor, room)),
                Section::Tasks => found.extend(self.tasks.tasks_from(cursor, room)),
                Section::Keys => found.extend(self.keys.entities_from(self.now, cursor.unwrap_or(""), room)),
                Section::Meta if cursor.is_none() && room > 0 => found.push(self.meta()),
                Section::Ran if cursor.is_none() && room > 0 => found.extend(self.ran_entity()),
                Section::Runs => {
                    let after = cursor.and_then(record::run_of).unwrap_or_default();
                    let open = self.runs.range((Excluded(after), Unbounded)).map(|(_, i)| &self.table[*i]);
                    let open = open.filter_map(|s| Some(record::run(s, s.live.as_ref()?, keeper)));
                    found.extend(open.take(room));
                }
                Section::Schedules => {
                    let id = cursor.and_then(|c| c.strip_prefix("schedule/")).unwrap_or("");
                    found.extend(self.schedules.entities_after(id, room));
                }
                Section::Services => {
                    let name = cursor.and_then(|c| c.strip_prefix("service/")).unwrap_or("");
                    let services = self.table.after_name(name).map(|i| &self.table[i]);
                    let mut all: Vec<Entity> =
                        services.filter(|s| record::worth_keeping(s)).take(room).map(record::service).collect();
                    let wishes = self.wishes.after(name).take(room);
                    all.extend(wishes.map(|(name, wish)| record::wish(name, wish)));
                    record::sort(&mut all);
                    found.extend(all.into_iter().take(room));
                }
                Section::Shutdown if cursor.is_none() && room > 0 => {
                    found.extend(self.life.stopping.as_ref().map(|s| record::shutdown(keeper, s.code, s.deadline)));
                }
                Section::Meta | Section::Ran | Section::Shutdown => {}
            }
        }
        found
    }

    fn section(&self, key: &str) -> Section {
        match key.split_once('/') {
            _ if self.aside.contains_key(key) => Section::Aside,
            Some((task::record::ATTEMPT, _)) => Section::Attempts,
            Some((task::record::GONE, _)) => Section::Gone,
            Some((task::record::GROUP, _)) => Section::Groups,
            Some((task::record::TASK, _)) => Section::Tasks,
            Some(("key", _)) => Section::Keys,
            Some(("run", _)) => Section::Runs,
            Some(("schedule", _)) => Section::Schedules,
            Some(("service", _)) => Section::Services,
            None if key == "meta" => Section::Meta,
            None if key == "ran" => Section::Ran,
            None if key == "shutdown" => Section::Shutdown,
            Some(_) | None => Section::Aside,
        }
    }

    /// The one match over inputs.
    pub(super) fn take(&mut self, input: Input, out: &mut Out) {
        match input {
            Input::Boot(boot) => self.boot(*boot, out),
            Input::Tick => {}
            Input::Request { req, conn, peer, key, params_hash, request } => {
                let asked = super::request::Asked { req, conn, peer, key, params_hash };
                self.request(&asked, request, out);
            }
            Input::Closed { conn } => self.closed(conn, out),
            Input::Lagged { conn, subscription } => self.events.lagged(conn, subscription, out),
            Input::Started { run, result } => match self.tasks.of_run(run) {
                Some(id) => self.task_started(id, run, result, out),
                None => self.started(run, result, out),
            },
            Input::Exited { run, end, usage } => match self.tasks.of_run(run) {
                Some(id) => self.task_exited(id, run, end, usage, out),
                None => self.main_ended(run, end, usage, None, out),
            },
            Input::Tree { run, left } => match self.tasks.of_run(run) {
                Some(id) => self.task_tree(id, run, left, out),
                None => self.tree(run, left, out),
            },
            Input::StartWaits { run, what } => self.start_waits(run, what, out),
            Input::ReadySeen { run } => self.ready_seen(run, out),
            Input::Heard { run } => self.words_heard(run, out),
            Input::Checked { run, what: Duty::Health, result } => self.health_checked(run, result, out),
            Input::Checked { run, what: Duty::Reload, result } => self.reload_ended(run, &result, out),
            Input::Checked { run, what: Duty::Stop, result } => self.stop_command_ended(run, result, out),
            Input::Notify { run, fields } => self.notified(run, &fields, out),
            Input::Output { run, bytes, last_lines } => match self.tasks.of_run(run) {
                Some(id) => self.task_output(id, run, bytes, last_lines, out),
                None => self.output(run, bytes, last_lines, out),
            },
            Input::Synced { ticket } => self.claims_synced(ticket),
            Input::Listening { service, result } => self.listening(&service, result, out),
            Input::Connection { service, on, waiting } => self.connection(&service, on, waiting, out),
            Input::Measured { req, usage } => self.measured(req, &usage, out),
            Input::Rotated { req, result } => self.reply(req, result, false, out),
            Input::Platform { facts } => self.facts.platform = facts,
            Input::Examined { req, result } => self.examined(req, result, out),
            Input::ConfigRead { req, look: true, result } => self.config_looked_at(req, result, out),
            Input::ConfigRead { req, look: false, result } => self.config_read(req, result, out),
            Input::Stop { hurry } => self.shutdown(0, None, hurry, out),
            Input::Reload => out.effects.push(Effect::LoadConfig { req: None, look: false }),
            Input::Forward { signal } => self.forward(signal, out),
            Input::Renew { signal } if self.life.main.is_some() => self.forward(signal, out),
            Input::Renew { .. } => self.ask_upgrade(None, None, None, out),
            Input::UpgradeEnded { req, result } => self.upgrade_ended(req, result, out),
            Input::Upgraded { ticket, result } => self.upgraded(ticket, result, out),
            Input::OtherProgram { path } => self.other_program(path, out),
            Input::Newest { result } => self.newest(result, out),
            Input::KeeperGone => self.shutdown_at_once(out),
            Input::JournalBehind { why } => self.journal_behind(why, out),
            Input::JournalFull { full } => self.journal_full = full,
            Input::OutputLost { name, lost } => self.output_lost(name, lost),
            Input::WallSet { by } => {
                self.wall_set(by);
                self.tasks_wall_set();
            }
        }
    }

    /// What is due, then the marks to their fixed point, then what follows from the new states.
    fn settle(&mut self, out: &mut Out) {
        // A reply may end a run of a job, for which the next one begins at once.
        for _ in 0..8 {
            self.settle_marks(out);
            self.settle_tasks(out);
            self.answer_waits(out);
            if !self.schedules.has_answers() {
                break;
            }
        }
        self.schedules_later();
        self.first_beat(out);
        self.end_shutdown(out);
    }

    fn settle_marks(&mut self, out: &mut Out) {
        // What this step made due at once is done in it too, so that a question never finds something overdue. The
        // bound only guards against something that is due for ever.
        for _ in 0..8 {
            self.do_what_is_due(out);
            self.schedules_go_on(out);
            self.settle_services(out);
            if self.table.any_touched() || self.life.rising.is_some() {
                self.life_goes_on(out);
                self.settle_services(out);
                self.flush(out);
            }
            if self.deadlines.next().is_none_or(|at| at > self.now.mono) {
                break;
            }
        }
    }

    fn do_what_is_due(&mut self, out: &mut Out) {
        while let Some(due) = self.deadlines.expired(self.now.mono) {
            match due {
                Due::Service(i) => self.service_due(i, out),
                Due::Schedule(i) => self.schedules.touch(i),
                Due::Orphan(run) => self.orphan_due(run, out),
                Due::Wait(_) => self.life.changed = true,
                Due::Task(id) => self.task_due(id, out),
                Due::TaskWait(req) => self.task_wait_due(req, out),
                Due::Heartbeat => self.beat(out),
                Due::Groups => {}
                Due::Shutdown => self.shutdown_due(out),
                Due::Status => self.tell_status(out),
                Due::Newest => self.ask_newest(out),
            }
        }
    }

    /// Derives deadlines and writes records of everything that changed in this step.
    fn flush(&mut self, out: &mut Out) {
        while let Some(i) = self.table.next_touched() {
            let s = &mut self.table[i];
            let at = if s.gone { None } else { s.deadline() };
            if core::mem::replace(&mut s.save, false) && !s.gone {
                // An earlier record has to go when there is nothing left to say.
                let kept = record::worth_keeping(s);
                out.records.push(if kept { record::service(s) } else { record::service_gone(&s.name) });
            }
            self.deadlines.set(Due::Service(i), at);
            if !self.table[i].gone {
                self.tell_sockets(i, out);
            }
            self.life.changed = true;
            let s = &mut self.table[i];
            let shown = Some((s.state, s.flapping(), s.wanted()));
            if core::mem::replace(&mut s.shown, shown) != shown {
                self.status_soon();
            }
        }
    }

    pub(super) fn take_facts(&mut self, boot: &mut Boot) {
        self.facts = Facts {
            keeper: core::mem::take(&mut boot.keeper_key),
            keeper_pid: boot.keeper_pid,
            daemon_pid: boot.daemon_pid,
            generation: boot.generation,
            deaths: boot.deaths,
            version: boot.version,
            keeper_started: boot.keeper_started,
            document: boot.document,
            signals: boot.signals,
            platform: Arc::default(),
            managed: boot.managed,
            outer: boot.outer,
            uid: boot.uid,
            runs_max: if boot.runs_max == 0 { RUN_SLOTS } else { boot.runs_max },
        };
        self.config = core::mem::take(&mut boot.config.daemon);
        self.config_error = boot.config_error.take();
        self.config_taken = boot.config_taken.or_else(|| self.config_error.is_none().then_some(self.now.wall));
        self.safe = boot.safe.take();
        self.events = Events::restore(core::mem::take(&mut boot.events));
    }

    pub(super) fn restore_keys(&mut self, keys: Vec<Entity>) {
        self.keys = Keys::new(&self.facts.keeper);
        for e in keys {
            if !self.keys.restore(self.now, &e) {
                self.aside.extend(e.json.map(|json| (e.key, json)));
            }
        }
    }

    pub(super) fn new_run(&mut self) -> RunId {
        let run = RunId(self.next_run.max(1));
        self.next_run = run.next().0;
        run
    }

    pub(super) fn save_meta(&self, out: &mut Out) {
        out.records.push(self.meta());
    }

    fn meta(&self) -> Entity {
        let next = (self.next_run, self.tasks.next, self.events.since_loss());
        record::meta(next, &self.facts.keeper, self.unseen, self.gap)
    }

    /// Output of this run is still to come.
    pub(super) fn remember(&mut self, run: RunId, i: usize) {
        self.recent.insert(run, i);
        if self.recent.len() > RECENT_MAX {
            self.recent.pop_first();
        }
    }

    pub(super) fn emit(&mut self, kind: &'static str, i: usize, fields: &str, out: &mut Out) {
        if self.safe.is_some() {
            return;
        }
        self.events.emit(self.now, kind, Some(&self.table[i].name), fields, out);
    }

    pub(super) fn emit_daemon(&mut self, kind: &'static str, fields: &str, out: &mut Out) {
        if self.safe.is_some() {
            return;
        }
        self.events.emit(self.now, kind, None, fields, out);
    }

    pub(super) fn late(&self, what: &str, run: RunId, out: &mut Out) {
        out.effects.push(Effect::Log { level: Level::Trace, text: format!("late: {what} of run {run}, ignored") });
    }

    pub(super) fn log_error(&self, text: &str, out: &mut Out) {
        out.effects.push(Effect::Log { level: Level::Error, text: text.to_owned() });
    }
}
