//! What the last daemon knew, for questions while none runs: a core that boots from journal, event ring and config, as
//! if a daemon of the same keeper came up at the moment when hob was last seen, so that nothing is told that nobody
//! saw. Reads these files, writes nothing and starts nothing.

use super::events::EventLog;
use super::journal::{Checked, Journal};
use super::lifecycle::read::{config_in_effect, read_config};
use crate::base::access::Access;
use crate::base::ids::{ConnId, ReqId, RunId};
use crate::base::paths::Paths;
use crate::base::time::{Now, Wall};
use crate::core::record::{self, Left};
use crate::core::{Boot, Core, Effect, Input, Out, Peer, TableRun, UNKNOWN_PID};
use crate::protocol::methods::{self, Request};
use crate::protocol::rpc::{Code, RpcError};
use crate::sys;
use serde_json::value::RawValue;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

/// As which the questions come.
const REQ: ReqId = ReqId(1);
const CONN: ConnId = ConnId(1);

/// The files of a hob that does not run. No daemon may write to them meanwhile: hold its lock, or have looked that
/// nobody does.
#[derive(Debug)]
pub struct Offline {
    paths: Paths,
    boot: Boot,
    /// What the last daemon left running, and who kept it.
    left: Left,
    /// When hob was last seen; the awake time is that of the boot of what it left.
    seen: Now,
}

impl Offline {
    /// Reads what the last daemon left.
    ///
    /// # Errors
    /// What reading the state folder answers: `NotFound` where no hob has run.
    pub fn read(paths: &Paths) -> io::Result<Offline> {
        let Checked { entities, gap, .. } = Journal::check(&paths.state)?;
        let events = EventLog::read(&paths.state)?;
        let (config, config_error) = match read_config(&config_in_effect(paths)) {
            Ok(config) => (config, None),
            Err(e) => (Default::default(), Some(e)),
        };
        let left = record::left(&entities);
        let wall = last_seen(paths);
        let mono = left.newest.map_or(sys::clock::now().mono, |newest| newest.mono + wall.since(newest.wall));
        let seen = Now { mono, wall };
        let boot = Boot {
            config,
            config_error,
            entities,
            gap,
            events,
            version: env!("CARGO_PKG_VERSION"),
            signals: sys::signals::platform().signals,
            host: sys::host::id(),
            uid: sys::user::own().0,
            ..Boot::default()
        };
        Ok(Offline { paths: paths.clone(), boot, left, seen })
    }

    /// When hob was last seen, where it left something running.
    #[must_use]
    pub fn broken_off(&self) -> Option<Wall> {
        (!self.left.runs.is_empty()).then_some(self.seen.wall)
    }

    /// How a question finds everything: as it was left. A plan is made by rehearsing what a reload would do to services
    /// that are up; for all else nothing moves, which is what safe mode is for.
    fn scene(&self, plan: bool) -> (Now, Boot) {
        let boot = self.boot.clone();
        if plan {
            // A keeper that never was: what ran then does not run any more.
            let keeper_key = format!("{:016x}-0-0", sys::table::boot_hash());
            return (sys::clock::now(), Boot { keeper_key, ..boot });
        }
        let pid = Some(UNKNOWN_PID);
        let run = |run: &RunId| TableRun { run: *run, pid, exec_error: None, ended: None, asked: false };
        let (table, keeper_key) = (self.left.runs.iter().map(run).collect(), self.left.keeper.clone());
        (self.seen, Boot { table, keeper_key, safe: Some("hob does not run".to_owned()), ..boot })
    }

    /// Answers a question as the last daemon would have.
    ///
    /// # Errors
    /// What a daemon would answer, and `Unavailable` for what only a daemon can do.
    pub fn call(&self, method: &str, params: &RawValue) -> Result<String, RpcError> {
        let call = methods::decode(method, Some(params), self.boot.signals)?;
        if call.mutating {
            return Err(not_running());
        }
        let plan = matches!(call.request, Request::DaemonPlan);
        if let (true, Some(e)) = (plan, &self.boot.config_error) {
            let what = format!("what was in effect last is not known: {e}");
            let error = RpcError::new(Code::Unavailable, what);
            return Err(error.hint("`hob config check` looks at the config, `hob start` takes it"));
        }
        let (mut core, mut out) = (Core::new(), Out::default());
        let (now, boot) = self.scene(plan);
        core.step(now, Input::Boot(Box::new(boot)), &mut out);
        let uid = sys::user::own().0;
        let peer = Peer { uid, pid: std::process::id(), access: Access::Admin, job: None, schedule: None };
        let request = call.request;
        let mut next = Some(Input::Request { req: REQ, conn: CONN, peer, key: None, params_hash: 0, request });
        while let Some(input) = next.take() {
            out.effects.clear();
            core.step(now, input, &mut out);
            for effect in out.effects.drain(..) {
                match effect {
                    Effect::Reply { req: REQ, result, .. } => return result,
                    Effect::Measure { req, .. } => next = Some(Input::Measured { req, usage: Arc::default() }),
                    Effect::LoadConfig { req, look } => {
                        let result = read_config(&self.paths.config).map(Box::new);
                        next = Some(Input::ConfigRead { req, look, result });
                    }
                    _ => {}
                }
            }
        }
        Err(not_running())
    }
}

/// When a hob was last seen that did not end properly: the newest change of what it writes while it runs.
#[must_use]
pub fn last_seen(paths: &Paths) -> Wall {
    let now = sys::clock::now().wall;
    let state = std::fs::read_dir(&paths.state).into_iter().flatten().flatten().map(|e| e.path());
    let changed = |path: PathBuf| {
        let meta = path.metadata().ok()?;
        Some(Wall(meta.mtime() * 1000 + meta.mtime_nsec() / 1_000_000))
    };
    let files = [&paths.heartbeat, &paths.lock].into_iter().cloned().chain(state);
    files.filter_map(changed).max().map_or(now, |seen| seen.min(now))
}

fn not_running() -> RpcError {
    RpcError::new(Code::Unavailable, "hob is not running").hint("`hob start` starts it")
}
