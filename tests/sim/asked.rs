//! What a client asks as the request that it makes of it.

use crate::plan::{Ask, TRANSIENT, Verb};
use hob::protocol::methods::{Change, EventQuery, Inhibit, NewService, Request};

/// `from`: the event from which a client goes on.
pub fn request(ask: &Ask, from: Option<u64>) -> Request {
    let name = ask.names.first().cloned().unwrap_or_default();
    let change = || Change {
        names: ask.names.clone(),
        all: false,
        wait: ask.wait,
        timeout: ask.timeout.map(core::time::Duration::from_millis),
    };
    let events = |limit| EventQuery { kinds: Vec::new(), names: Vec::new(), from, limit };
    match ask.verb {
        Verb::Start => Request::ServiceStart(change()),
        Verb::New => {
            let config = TRANSIENT.iter().find(|(n, _)| *n == name).map_or("{}", |(_, c)| c).to_owned();
            Request::ServiceNew(NewService { name, config, wait: ask.wait, timeout: change().timeout })
        }
        Verb::Plan => Request::DaemonPlan,
        Verb::Stop => Request::ServiceStop(change()),
        Verb::Restart => Request::ServiceRestart(change()),
        Verb::Reset => Request::ServiceReset { names: ask.names.clone() },
        Verb::Reload => Request::DaemonReload,
        Verb::Signal => Request::ServiceSignal { name, signal: 1 },
        Verb::List => Request::ServiceList { names: Vec::new(), owner: None },
        Verb::Status => Request::DaemonStatus,
        Verb::Why => Request::DaemonWhy { name },
        Verb::History => Request::ServiceHistory { name, limit: 10 },
        Verb::Subscribe => Request::EventSubscribe(events(0)),
        Verb::Events => Request::EventHistory(events(10)),
        Verb::Ping | Verb::Task | Verb::Job => Request::Ping,
        Verb::Inhibit => {
            Request::DaemonInhibit(Inhibit { what: "shutdown".into(), who: name, why: "it writes".into() })
        }
        Verb::Doctor => Request::DaemonDoctor,
    }
}
