//! Safe mode: after deaths of daemons in a row the core only tells what it knows. Runs go on as they are; nothing is
//! started, stopped or recorded. Pure.

use super::due::{Deadlines, Due};
use super::life::code_of;
use super::request::Asked;
use super::run::Ended;
use super::service::State;
use super::{Core, Effect, End, Input, Out, Usage};
use crate::base::ids::RunId;
use crate::base::json::Obj;
use crate::config::{Level, Restart};
use crate::protocol::methods::Request;
use crate::protocol::rpc::{Code, RpcError};
use core::time::Duration;

/// How long the keeper gives a stop until a daemon takes it, for the reply.
const STOP_LIMIT: Duration = Duration::from_secs(60);

impl Core {
    /// The boot has found out how all is; what it wanted done about it is left to the next ordinary daemon.
    pub(super) fn begin_safe(&mut self, out: &mut Out) {
        out.records.clear();
        out.effects.retain(harmless);
        self.deadlines = Deadlines::default();
        let fault = self.safe.as_deref().unwrap_or_default();
        let text = format!("safe mode: {fault}; jobs go on, nothing is started or stopped until `hob reload`");
        out.effects.push(Effect::Log { level: Level::Error, text });
        self.end_with_main(out);
        self.first_beat(out);
        self.tell_status(out);
    }

    /// A step in safe mode: facts are noted as far as they are to be told, questions are answered.
    pub(super) fn step_safe(&mut self, input: Input, out: &mut Out) {
        match input {
            Input::Request { .. }
            | Input::Closed { .. }
            | Input::Lagged { .. }
            | Input::Measured { .. }
            | Input::Rotated { .. }
            | Input::Platform { .. }
            | Input::Examined { .. }
            | Input::Renew { .. }
            | Input::UpgradeEnded { .. }
            | Input::Upgraded { .. } => {
                self.take(input, out);
                out.records.clear();
            }
            Input::Tick => {
                while let Some(due) = self.deadlines.expired(self.now.mono) {
                    if due == Due::Heartbeat {
                        self.beat(out);
                    }
                }
            }
            Input::Exited { run, end, usage } => {
                self.note_end(run, end, usage);
                if self.end_of_main().is_some() && self.runs.get(&run).copied() == self.life.main {
                    // To end hob with its command is for an ordinary daemon, which does it in order.
                    out.effects.push(Effect::Again { stop: false });
                }
            }
            Input::Reload => out.effects.push(Effect::Again { stop: false }),
            // The keeper keeps the request for the next daemon.
            Input::Stop { .. } => out.effects.push(Effect::Again { stop: true }),
            // Without its keeper no daemon comes after this one.
            Input::KeeperGone => out.effects.push(Effect::Exit { code: 1 }),
            Input::JournalBehind { why } => self.journal_behind = why,
            Input::JournalFull { full } => self.journal_full = full,
            Input::OutputLost { name, lost } => self.output_lost(name, lost),
            Input::Boot(_)
            | Input::WallSet { .. }
            | Input::OtherProgram { .. }
            | Input::Newest { .. }
            | Input::Started { .. }
            | Input::StartWaits { .. }
            | Input::Tree { .. }
            | Input::ReadySeen { .. }
            | Input::Heard { .. }
            | Input::Checked { .. }
            | Input::Notify { .. }
            | Input::Synced { .. }
            | Input::Output { .. }
            | Input::Listening { .. }
            | Input::Connection { .. }
            | Input::ConfigRead { .. }
            | Input::Forward { .. } => {}
        }
    }

    /// `hob run -- COMMAND`: how the command has ended that hob is run for.
    fn end_of_main(&self) -> Option<&Ended> {
        let s = &self.table[self.life.main?];
        match &s.live {
            Some(live) => live.end.as_ref().map(|(end, _)| end),
            None if self.main_is_over() => s.last().map(|last| &last.end),
            None => None,
        }
    }

    /// The command that hob is run for has ended, and the daemons after that died before they could end hob with it:
    /// nobody is left who would do it in order, and whoever waits for hob waits for that alone.
    fn end_with_main(&self, out: &mut Out) {
        let once = self.life.main.is_some_and(|i| self.table[i].spec.restart == Restart::Never || self.main_is_over());
        let Some(end) = self.end_of_main().filter(|_| once) else { return };
        let text = "the command that hob is run for has ended: killing what is left".to_owned();
        out.effects.push(Effect::Log { level: Level::Error, text });
        let runs = self.runs.keys().chain(self.tasks.run_ids());
        out.effects.extend(runs.map(|run| Effect::Kill { run: *run }));
        out.effects.push(Effect::Exit { code: code_of(end) });
    }

    /// The end is in the run table, where the next ordinary daemon finds it and draws the consequences.
    fn note_end(&mut self, run: RunId, end: End, usage: Usage) {
        let now = self.now;
        if let Some(id) = self.tasks.of_run(run) {
            return self.tasks.note_end(id, end, usage, now);
        }
        let Some(s) = self.runs.get(&run).map(|i| &mut self.table[*i]) else { return };
        if let Some(live) = s.live.as_mut().filter(|l| l.end.is_none()) {
            live.ended(end, usage, now);
            s.state = State::Stopping;
            s.since = now;
        }
    }

    /// A request that would change something.
    pub(super) fn refuse_safely(&mut self, asked: &Asked, request: Request, out: &mut Out) {
        let req = asked.req;
        let fault = self.safe.as_deref().unwrap_or_default();
        let mut o = Obj::new();
        match request {
            Request::DaemonReload => {
                o.bool("left_safe_mode", true).str("fault", fault);
                for name in ["added", "removed", "restarted", "updated", "unchanged"] {
                    o.raw(name, "[]");
                }
                self.reply(req, Ok(o.finish()), false, out);
                out.effects.push(Effect::Again { stop: false });
            }
            Request::DaemonShutdown { .. } => {
                o.bool("stopping", true).u64("limit_ms", super::run::millis(STOP_LIMIT));
                o.u64("running", u64::try_from(self.runs.len()).unwrap_or(u64::MAX));
                self.reply(req, Ok(o.finish()), false, out);
                out.effects.push(Effect::Again { stop: true });
            }
            Request::DaemonUpgrade { binary } => self.ask_upgrade(Some(req), binary, asked.ticket(), out),
            _ => {
                let error = self.safe_error().unwrap_or_else(Core::shutting_down);
                self.reply(req, Err(error), false, out);
            }
        }
    }

    /// What is refused in safe mode, because nothing goes on in it.
    pub(super) fn safe_error(&self) -> Option<RpcError> {
        let fault = self.safe.as_ref()?;
        let error = RpcError::new(Code::Unavailable, format!("hob is in safe mode: {fault}"));
        let hint = Core::ways_out_of_safe_mode().map(|(command, what)| format!("`{command}` {what}")).join("; ");
        Some(error.hint(hint))
    }

    /// What a person can do: commands, and what they are for.
    pub(super) fn ways_out_of_safe_mode() -> [(&'static str, &'static str); 4] {
        [
            ("hob logs", "tells how the daemons died"),
            ("hob reload", "once what is at fault is mended"),
            ("hob upgrade", "to take another program"),
            ("hob restart", "to begin anew"),
        ]
    }
}

/// Effects that neither start nor stop nor write anything.
fn harmless(effect: &Effect) -> bool {
    match effect {
        Effect::Reply { .. }
        | Effect::Notify { .. }
        | Effect::LogSpec { .. }
        | Effect::Logs { .. }
        | Effect::CloseStream { .. }
        | Effect::Measure { .. }
        | Effect::Doctor { .. }
        | Effect::Status { .. }
        | Effect::Daemon { .. }
        | Effect::JobAccess
        | Effect::Log { .. } => true,
        Effect::Start(_)
        | Effect::Signal { .. }
        | Effect::Kill { .. }
        | Effect::Pause { .. }
        | Effect::Discard { .. }
        | Effect::Sync { .. }
        | Effect::Sweep { .. }
        | Effect::Await { .. }
        | Effect::AwaitEnd { .. }
        | Effect::Hear { .. }
        | Effect::Ended { .. }
        | Effect::CancelStart { .. }
        | Effect::Check { .. }
        | Effect::CheckEnd { .. }
        | Effect::Newest { .. }
        | Effect::NewestEnd
        | Effect::Forget { .. }
        | Effect::Remove { .. }
        | Effect::Listen { .. }
        | Effect::Unlisten { .. }
        | Effect::Event { .. }
        | Effect::Rotate { .. }
        | Effect::LoadConfig { .. }
        | Effect::Heartbeat { .. }
        | Effect::Ready
        | Effect::Stopping { .. }
        | Effect::Exit { .. }
        | Effect::Upgrade { .. }
        | Effect::Again { .. } => false,
    }
}
