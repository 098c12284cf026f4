//! Questions, which the daemon answers as it reads them: without a step, if nothing is due. That must make no
//! difference to anybody.

use crate::world::World;
use hob::base::ids::{ConnId, ReqId};
use hob::base::time::Now;
use hob::config::Access;
use hob::core::{Core, Effect, Input, Out, Peer};
use hob::protocol::methods::{EventQuery, Request};
use hob::protocol::rpc::{Code, RpcError};
use std::sync::Arc;

type Answer = Result<String, RpcError>;

/// No client has this number, nor a job.
const REQ: ReqId = ReqId(u64::MAX >> 2);

/// Everything is asked in one of so many probes.
const SELDOM: u64 = 16;
/// Tasks that are asked about at once.
const TASKS: usize = 4;

fn asked(request: Request) -> Input {
    let peer = Peer { uid: 0, pid: 1, access: Access::Admin, job: None, schedule: None };
    Input::Request { req: REQ, conn: ConnId(REQ.0), peer, key: None, params_hash: 0, request }
}

/// Asks a core directly, without a client.
pub fn query(core: &mut Core, now: Now, request: Request, out: &mut Out) -> Answer {
    core.step(now, asked(request), out);
    let measure = out.effects.iter().position(|e| matches!(e, Effect::Measure { req: REQ, .. }));
    if let Some(at) = measure {
        out.effects.remove(at);
        core.step(now, Input::Measured { req: REQ, usage: Arc::default() }, out);
    }
    let reply = out.effects.iter().position(|e| matches!(e, Effect::Reply { req: REQ, .. }));
    match reply.map(|at| out.effects.remove(at)) {
        Some(Effect::Reply { result, .. }) => result,
        _ => Err(RpcError::new(Code::Internal, format!("no reply at {:?}", now.mono))),
    }
}

/// All that a core knows, but for what time it is, which the wheel of its deadlines knows too: of these the first.
fn state(core: &Core) -> String {
    let text = format!("{core:?}");
    let known = text.split_once(", facts: ").and_then(|(_, rest)| {
        let (before, rest) = rest.split_once(", deadlines: ")?;
        Some(format!("{before} {} {:?}", rest.split_once(", life: ")?.1, core.next_deadline()))
    });
    known.unwrap_or(text)
}

/// A step for a question answers what was answered without one, and does nothing else.
pub fn same(req: ReqId, looked: &Answer, out: &Out) -> Result<(), String> {
    let equal = matches!(&out.effects[..], [Effect::Reply { req: r, result, durable: false }]
        if *r == req && result == looked);
    if equal && out.records.is_empty() {
        return Ok(());
    }
    Err(format!("question: it is answered {looked:?}, and a step does {out:?}"))
}

/// Every kind of question, about what there is and what there is not; `rpc.discover` is the same for ever, and long.
fn all(names: Vec<String>) -> Vec<Request> {
    let query = EventQuery { kinds: Vec::new(), names: Vec::new(), from: None, limit: 20 };
    let mut all = vec![
        Request::Ping,
        Request::DaemonHealth,
        Request::DaemonConfig,
        Request::ScheduleList { ids: None },
        Request::EventHistory(query),
    ];
    for name in names {
        all.push(Request::DaemonWhy { name: name.clone() });
        all.push(Request::ServiceHistory { name: name.clone(), limit: 10 });
        all.push(Request::ScheduleGet { id: name.clone() });
        all.push(Request::ScheduleHistory { id: name.clone(), limit: 10 });
        all.push(Request::ScheduleNext { id: name, count: 3 });
    }
    all
}

impl World<'_> {
    /// Asks the present core everything, as the daemon does and by steps.
    pub fn probe_questions(&mut self) {
        let Some(mut core) = self.core.take_if(|_| self.score.steps.is_multiple_of(SELDOM)) else { return };
        let now = self.clock();
        let tasks = &self.check.tasks.jobs;
        let of_tasks = tasks.keys().step_by(tasks.len() / TASKS + 1).map(|id| format!("task/{id}"));
        let of_jobs = self.check.jobs.all.keys().cloned();
        let names = self.check.config.services.keys().cloned().chain(of_tasks).chain(of_jobs);
        let names = names.chain(["nobody".to_owned()]).collect();
        let before = state(&core);
        let held = all(names).into_iter().try_for_each(|request| {
            // Where something is due it comes first.
            let due = core.next_deadline().map(|at| Now { mono: at.max(now.mono), ..now });
            if let Some(answer) = due.and_then(|due| core.answer(due, &request)) {
                return Err(format!("question: {request:?} is answered {answer:?} before what is due"));
            }
            if due.is_some_and(|due| due.mono == now.mono) {
                return Ok(());
            }
            let Some(answer) = core.answer(now, &request) else {
                return Err(format!("question: nothing is due, and {request:?} is not answered at once"));
            };
            let mut out = Out::default();
            core.step(now, asked(request), &mut out);
            same(REQ, &answer, &out)
        });
        self.require(held);
        if state(&core) != before {
            self.fail("question: what it asks for is not the same after it".to_owned());
        }
        self.core = Some(core);
    }
}
