//! For the fuzzer: a core that starts with arbitrary records. Pure.

use super::{Boot, Core, Effect, Entity, Input, Out, Peer};
use crate::base::ids::{ConnId, ReqId};
use crate::base::time::{Mono, Now, Wall};
use crate::config::{Access, Platform};
use crate::protocol::methods::decode;
use core::time::Duration;
use std::collections::BTreeMap;

/// A group, an agent, a runner and jobs of every kind that records may be about.
const CONFIG: &str = r#"{"daemon":{"heartbeat":"0s"},"services":{"web":{"command":"x","autostart":false}},
    "groups":{"one":{"parallel":1,"weight_limit":3}},"agents":{"claude":{"command":["x"],"prompt":"stdin"}},
    "runners":{"outer":{"prefix":["x"]}},"schedule":{"jobs":[
    {"id":"each","every":"90s","tz":"UTC","missed":"all","limit":3,"overlap":"queue",
        "action":{"task":{"command":["x"]}}},
    {"id":"cron","cron":"*/5 * * * *","tz":"UTC","missed":"once","overlap":"restart","timeout":"1m","jitter":"10s",
        "action":{"restart":["web"]}},
    {"id":"once","at":"2027-01-01T00:00:00","tz":"UTC","action":{"method":"task.stats"}}]}}"#;

const NOW: Now = Now { mono: Mono(50_000_000_000_000), wall: Wall(1_795_876_598_000) };

/// A core that starts with records, and what tells of its tasks and jobs.
fn start(entities: Vec<Entity>, gap: bool) -> Option<(Core, Vec<String>)> {
    let platform = Platform::linux();
    let boot = Boot {
        config: crate::config::parse(CONFIG, "f", &platform).ok()?,
        entities,
        signals: platform.signals,
        keeper_key: "00c0ffee-1-7".to_owned(),
        generation: 1,
        gap,
        ..Boot::default()
    };
    let (mut core, mut out) = (Core::new(), Out::default());
    core.step(NOW, Input::Boot(Box::new(boot)), &mut out);
    let told = ["task.list", "task.stats", "group.list"].map(|method| ask(&mut core, NOW, method, "{}"));
    Some((core, told.into()))
}

fn ask(core: &mut Core, now: Now, method: &str, params: &str) -> String {
    let raw = serde_json::value::RawValue::from_string(params.to_owned()).ok();
    let Ok(call) = decode(method, raw.as_deref(), Platform::linux().signals) else { return String::new() };
    let peer = Peer { uid: 0, pid: 1, access: Access::Admin, job: None, schedule: None };
    let (req, conn) = (ReqId(1), ConnId(1));
    let mut out = Out::default();
    let (key, params_hash, request) = (call.key, call.params_hash, call.request);
    core.step(now, Input::Request { req, conn, peer, key, params_hash, request }, &mut out);
    let replies = out.effects.into_iter().filter_map(|e| match e {
        Effect::Reply { result, .. } => Some(result),
        _ => None,
    });
    let all: Vec<_> = replies.collect();
    assert!(all.len() == 1, "{method} has {} replies", all.len());
    all.into_iter().next().and_then(Result::ok).unwrap_or_default()
}

/// For the fuzzer: each line is the key of a record, a space and its text. A core starts with them whatever they are,
/// answers, goes on in time, and what it then keeps makes a core that tells the same of its tasks.
///
/// # Panics
/// When it does not.
pub fn fuzz(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    // Of each key the last state, as a journal has it.
    let last: BTreeMap<&str, &str> = text.lines().filter_map(|line| line.split_once(' ')).collect();
    let entities = last.into_iter().map(|(key, json)| Entity { key: key.into(), json: Some(json.into()) }).collect();
    let Some((core, told)) = start(entities, text.starts_with("gap\n")) else { return };
    let kept = core.entities_from(None, usize::MAX);
    let Some((mut again, twice)) = start(kept, false) else { return };
    assert!(told == twice, "what was kept tells something else:\n{told:?}\n{twice:?}");
    ask(&mut again, NOW, "schedule.list", "{}");
    for id in 1..4 {
        ask(&mut again, NOW, "daemon.why", &format!("{{\"name\":\"task/{id}\"}}"));
    }
    let later = Now { mono: NOW.mono + Duration::from_secs(7200), wall: Wall(NOW.wall.0 + 7_200_000) };
    again.step(later, Input::Tick, &mut Out::default());
    ask(&mut again, later, "schedule.list", "{}");
    ask(&mut again, later, "task.clean", "{}");
}
