//! What the next daemon would know, for questions while none runs: a core that boots from journal, event ring and
//! config. Reads these files, writes nothing and starts nothing.

use super::events::EventLog;
use super::journal::{Checked, Journal};
use super::lifecycle::read::{config_in_effect, read_config};
use crate::base::access::Access;
use crate::base::ids::{ConnId, ReqId};
use crate::base::paths::Paths;
use crate::core::{Boot, Core, Effect, Input, Out, Peer};
use crate::protocol::methods::{self, Request};
use crate::protocol::rpc::{Code, RpcError};
use crate::sys;
use serde_json::value::RawValue;
use std::io;

/// As which the questions come.
const REQ: ReqId = ReqId(1);
const CONN: ConnId = ConnId(1);

/// The files of a hob that does not run. No daemon may write to them meanwhile: hold its lock, or have looked that
/// nobody does.
#[derive(Debug)]
pub struct Offline {
    paths: Paths,
    boot: Boot,
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
        let boot = Boot {
            config,
            config_error,
            entities,
            gap,
            events,
            // Of this boot, and no keeper that ever was: what ran then does not run any more.
            keeper_key: format!("{:016x}-0-0", sys::table::boot_hash()),
            version: env!("CARGO_PKG_VERSION"),
            signals: sys::signals::platform().signals,
            host: sys::host::id(),
            uid: sys::user::own().0,
            ..Boot::default()
        };
        Ok(Offline { paths: paths.clone(), boot })
    }

    /// Answers a question as a daemon would that has just come up.
    ///
    /// # Errors
    /// What a daemon would answer, and `Unavailable` for what only a daemon can do.
    pub fn call(&self, method: &str, params: &RawValue) -> Result<String, RpcError> {
        let call = methods::decode(method, Some(params), self.boot.signals)?;
        if call.mutating {
            return Err(not_running());
        }
        // A plan is made by rehearsing what a reload would do to services that are up; everything else is to stay as
        // it was found, which is what safe mode is for.
        let plan = matches!(call.request, Request::DaemonPlan);
        if let (true, Some(e)) = (plan, &self.boot.config_error) {
            let what = format!("what was in effect last is not known: {e}");
            let error = RpcError::new(Code::Unavailable, what);
            return Err(error.hint("`hob config check` looks at the config, `hob start` takes it"));
        }
        let safe = (!plan).then(|| "hob does not run".to_owned());
        let (mut core, mut out, now) = (Core::new(), Out::default(), sys::clock::now());
        core.step(now, Input::Boot(Box::new(Boot { safe, ..self.boot.clone() })), &mut out);
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
                    Effect::Measure { req, .. } => next = Some(Input::Measured { req, usage: Vec::new() }),
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

fn not_running() -> RpcError {
    RpcError::new(Code::Unavailable, "hob is not running").hint("`hob start` starts it")
}
