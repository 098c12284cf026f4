//! The table, params of every kind, hints and hashes.

use super::*;
use crate::protocol::rpc::Code;
use serde_json::value::RawValue;

const SIGNALS: &Signals = &[("HUP", 1), ("TERM", 15), ("USR1", 10)];

fn try_call(name: &str, params: &str) -> Result<Call, RpcError> {
    let raw = RawValue::from_string(params.to_owned()).unwrap();
    decode(name, Some(&raw), SIGNALS)
}

fn call(name: &str, params: &str) -> Call {
    try_call(name, params).unwrap_or_else(|e| panic!("{name} {params}: {e:?}"))
}

/// Message and hint of what must fail as invalid params.
fn refused(name: &str, params: &str) -> String {
    let e = try_call(name, params).unwrap_err();
    assert_eq!(e.code, Code::InvalidParams);
    format!("{} | {}", e.message, e.hint.unwrap_or_default())
}

#[test]
fn the_table_is_sound() {
    let mut names = Vec::new();
    for m in METHODS {
        names.push(m.name);
        names.extend(m.aliases);
        assert!(m.doc.ends_with('.') && !m.result.is_empty(), "{}", m.name);
        assert!(!m.mutating || m.access > Access::Read, "{}", m.name);
        let first_optional = m.params.iter().position(|p| !p.required).unwrap_or(m.params.len());
        assert!(m.params.iter().skip(first_optional).all(|p| !p.required), "{}: positions", m.name);
        for p in m.params {
            serde_json::from_str::<serde_json::Value>(p.kind.schema()).unwrap();
            assert_ne!(p.name, "request_key");
        }
    }
    let n = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), n, "no name means two methods");
}

#[test]
fn calls_without_params() {
    for (name, request) in [
        ("ping", Request::Ping),
        ("daemon.ping", Request::Ping),
        ("daemon.status", Request::DaemonStatus),
        ("rpc.discover", Request::RpcDiscover),
        ("service.list", Request::ServiceList { names: Vec::new(), owner: None }),
        ("daemon.shutdown", Request::DaemonShutdown { graceful: true, grace: None }),
    ] {
        assert_eq!(decode(name, None, SIGNALS).unwrap().request, request);
        assert_eq!(call(name, "{}").request, request);
        assert_eq!(call(name, "[]").request, request);
    }
    let ping = decode("ping", None, SIGNALS).unwrap();
    assert_eq!((ping.access, ping.mutating, ping.key, ping.params_hash), (Access::Read, false, None, 0));
}

#[test]
fn params_by_name_and_by_position() {
    let want = Request::ServiceStart(Change {
        names: vec!["web".into()],
        all: false,
        wait: false,
        timeout: Some(Duration::from_millis(1500)),
    });
    for params in [
        r#"{"name":"web","wait":false,"timeout":"1500ms"}"#,
        r#"{"timeout":1.5,"names":["web"],"wait":false}"#,
        r#"["web",false,"1.5s"]"#,
        r#"[["web"],false,1.5]"#,
        r#"{"\u006eame":"\u0077eb","wait":false,"timeout":"1500ms"}"#,
    ] {
        assert_eq!(call("service.start", params).request, want, "{params}");
    }
    let whole =
        Request::ServiceStop(Change { names: vec!["a".into(), "b".into()], all: false, wait: true, timeout: None });
    assert_eq!(call("service.stop", r#"{"names":["a","b"],"wait":null}"#).request, whole);
    let logs = LogQuery {
        names: vec!["a".into()],
        lines: 50,
        follow: true,
        from: vec![("a".into(), 77)],
        since: None,
        until: None,
        stream: None,
        marks: false,
    };
    let params = r#"{"names":"a","follow":true,"from":{"a":77}}"#;
    assert_eq!(call("service.logs", params).request, Request::ServiceLogs(logs.clone()));
    let own = LogQuery { names: vec![], lines: 0, follow: false, from: vec![(String::new(), 9)], ..logs.clone() };
    assert_eq!(call("daemon.logs", r#"{"lines":0,"from":9}"#).request, Request::DaemonLogs(own));
    let events = EventQuery { kinds: vec!["service.*".into()], names: vec![], from: Some(3), limit: 100 };
    assert_eq!(call("event.history", r#"["service.*",null,3]"#).request, Request::EventHistory(events));
    assert_eq!(call("stream.close", "[4294967295]").request, Request::StreamClose { id: u32::MAX });
}

#[test]
fn a_start_with_a_config_takes_an_admin() {
    let config = r#"{"command": ["x"], "env": {"A": "1"}}"#;
    let new = NewService { name: "job".into(), config: config.into(), wait: true, timeout: None };
    let made = call("service.start", &format!(r#"{{"name":"job","config":{config}}}"#));
    assert_eq!((made.request, made.access), (Request::ServiceNew(new.clone()), Access::Admin));
    let listed = call("service.start", &format!(r#"[["job"],true,null,{config}]"#));
    assert_eq!(listed.request, Request::ServiceNew(new));
    assert_eq!(call("service.start", r#"{"name":"job"}"#).access, Access::Operate);
    assert_eq!(call("service.start", r#"{"name":"job","config":null}"#).access, Access::Operate);
    for (params, said) in [
        (r#"{"names":["a","b"],"config":{}}"#, "a config makes one service, so it takes one name | "),
        (r#"{"name":"a","config":[]}"#, "config of service.start is an object, not [] | "),
        (r#"{"name":"a","config":"{}"}"#, r#"config of service.start is an object, not "{}" | "#),
    ] {
        assert_eq!(refused("service.start", params), said);
    }
    assert!(refused("service.start", r#"{"config":{}}"#).starts_with("service.start needs names"));
}

#[test]
fn signals_by_name_or_number() {
    for (given, number) in [
        ("15", 15),
        ("\"15\"", 15),
        ("\"TERM\"", 15),
        ("\"SIGTERM\"", 15),
        ("\"usr1\"", 10),
        ("\"sighup\"", 1),
        ("64", 64),
    ] {
        let request = call("service.signal", &format!("[\"web\",{given}]")).request;
        assert_eq!(request, Request::ServiceSignal { name: "web".into(), signal: number });
    }
    for (bad, say) in [("\"HPU\"", "\"HPU\" is no signal; did you mean HUP?"), ("\"?\"", "\"?\" is no signal | ")] {
        let said = refused("service.signal", &format!("[\"web\",{bad}]"));
        assert!(said.starts_with(say), "{said}");
    }
    for bad in ["0", "-9", "1.5", "\"\"", "true", "999", "[]"] {
        let said = refused("service.signal", &format!("[\"web\",{bad}]"));
        assert!(said.starts_with("signal of service.signal is a signal such as"), "{said}");
    }
}

#[test]
fn what_does_not_fit_is_explained() {
    for (name, params, said) in [
        ("service.get", "{}", "service.get needs name | name: the service"),
        ("service.get", r#"{"name":null}"#, "service.get needs name | name: the service"),
        ("service.get", r#"{"name":""}"#, r#"name of service.get is a text that is not empty, not "" | "#),
        ("service.get", r#"{"name":7}"#, "name of service.get is a text that is not empty, not 7 | "),
        ("service.get", r#"{"nmae":"web"}"#, r#"service.get has no param "nmae" | did you mean name?"#),
        ("service.get", r#"["a","b"]"#, "service.get takes 1 params at most | "),
        ("service.stop", r#"{"names":[]}"#, r#"service.stop needs names | or "all": true for every service"#),
        ("service.stop", r#"{"all":true,"names":["a"]}"#, "service.stop takes names or all, not both | "),
        ("service.stop", r#"[""]"#, r#"names of service.stop is a name or a list of names, not "" | "#),
        ("service.stop", r#"[[1]]"#, "names of service.stop is a name or a list of names, not [1] | "),
        ("service.stop", r#"[{"a":1}]"#, r#"names of service.stop is a name or a list of names, not {"a":1} | "#),
        ("service.stop", r#"{"name":"a","names":"b"}"#, "names is given twice | "),
        ("service.stop", r#"{"name":"a","wait":1}"#, "wait of service.stop is true or false, not 1 | "),
        ("event.history", r#"{"limit":-1}"#, "limit of event.history is a whole number from 0, not -1 | "),
        ("ping", r#"{"x":1}"#, r#"ping has no param "x" | it takes no params"#),
        ("service.list", r#"{"quux":1}"#, r#"service.list has no param "quux" | it takes names, owner"#),
        ("service.stop", r#"{"name":"a","request_key":1}"#, "request_key is a text | "),
        ("service.stop", r#"{"name":"a","request_key":""}"#, "request_key has 1 to 128 bytes | "),
        (
            "service.logs",
            r#"["a",1,true,{"a":-1}]"#,
            "from of service.logs is an object of names and positions, not {\"a\":-1} | ",
        ),
    ] {
        assert_eq!(refused(name, params), said, "{name} {params}");
    }
    for bad in ["-1", "\"\"", "\"10\"", "1e300", "true"] {
        let said = refused("service.stop", &format!("{{\"name\":\"a\",\"timeout\":{bad}}}"));
        assert!(said.starts_with("timeout of service.stop is a duration such as \"10s\""), "{said}");
    }
    let many = format!("[[{}]]", vec!["\"a\""; crate::base::limits::SERVICES_MAX + 1].join(","));
    assert!(refused("service.stop", &many).starts_with("names of service.stop is a name or a list"));
}

#[test]
fn an_unknown_method_names_its_neighbour() {
    let hint = |name: &str| {
        let e = decode(name, None, SIGNALS).unwrap_err();
        assert_eq!(e.code, Code::MethodNotFound);
        e.hint.unwrap()
    };
    assert_eq!(hint("service.lsit"), "did you mean service.list?");
    assert_eq!(hint("pong"), "did you mean ping?");
    assert_eq!(hint("daemon.pin"), "did you mean daemon.ping?");
    assert_eq!(hint(""), "rpc.discover lists all methods");
    assert_eq!(hint(&"x".repeat(100_000)), "rpc.discover lists all methods");
}

#[test]
fn a_key_comes_with_a_hash_of_what_was_meant() {
    let hash = |params: &str| call("service.start", params).params_hash;
    let base = hash(r#"{"names":["a","b"],"wait":true,"request_key":"k"}"#);
    assert_eq!(call("service.start", r#"{"name":"a","request_key":"k"}"#).key.as_deref(), Some("k"));
    assert_eq!(base, hash(r#"{ "request_key":"other", "wait" : true, "names":[ "a", "\u0062" ] }"#));
    assert_ne!(base, hash(r#"{"names":["b","a"],"wait":true,"request_key":"k"}"#));
    assert_ne!(base, hash(r#"{"names":["a","b"],"wait":false,"request_key":"k"}"#));
    assert_ne!(base, hash(r#"{"names":["a","b"],"request_key":"k"}"#));
    let stop = call("service.stop", r#"{"names":["a","b"],"wait":true,"request_key":"k"}"#);
    assert_ne!(base, stop.params_hash);
    assert_eq!(hash(r#"{"names":["a","b"],"wait":true}"#), 0);
    assert_eq!(call("service.list", r#"{"request_key":"k"}"#).key, None, "a question needs no key");
    // Stands in journals: it may never change.
    assert_eq!(base, 18_405_342_683_394_424_626, "frozen");
}

#[test]
fn objects_hash_alike_in_any_order() {
    let hash = |json: &str| decode::canonical_hash(json);
    assert_eq!(hash(r#"{"a":1,"b":[null,{"c":"x"}]}"#), hash(r#"{ "b":[null,{"c":"\u0078"}], "a":1 }"#));
    assert_ne!(hash(r#"{"a":1,"b":2}"#), hash(r#"{"a":2,"b":1}"#));
    assert_ne!(hash("[1,2]"), hash("[2,1]"));
    assert_ne!(hash("1"), hash("\"1\""));
    assert_ne!(hash("[]"), hash("{}"));
    assert_ne!(hash("[[],[]]"), hash("[[[]]]"));
}

#[test]
fn the_document_lists_every_method() {
    let doc: serde_json::Value = serde_json::from_str(&discover("1.2.3")).unwrap();
    assert_eq!(doc["openrpc"], "1.2.6");
    assert_eq!(doc["info"]["version"], "1.2.3");
    assert_eq!(doc["methods"].as_array().unwrap().len(), METHODS.len());
    let start = doc["methods"].as_array().unwrap().iter().find(|m| m["name"] == "service.start").unwrap();
    assert_eq!(start["x-access"], "operate");
    assert_eq!(start["params"][0]["x-alias"], "name");
    assert_eq!(start["params"][4]["name"], "request_key");
    assert_eq!(start["params"][2]["schema"]["oneOf"][0]["type"], "string");
}

#[test]
fn damaged_params_never_do_harm() {
    let corpus: Vec<Vec<u8>> = [
        r#"{"names":["a","b"],"wait":false,"timeout":"10s","request_key":"k"}"#,
        r#"["web","TERM",{"a":7},[1,2,null]]"#,
        r#"{"name":"web","from":{"web":18446744073709551615},"lines":1.5,"follow":true}"#,
    ]
    .map(|t| t.as_bytes().to_vec())
    .to_vec();
    crate::protocol::each_mutation(&corpus, 4_000, |data| {
        let Ok(params) = serde_json::from_slice::<&RawValue>(data) else { return };
        for m in METHODS {
            match decode(m.name, Some(params), SIGNALS) {
                Ok(call) => assert_eq!(call.mutating, m.mutating),
                Err(e) => assert!(matches!(e.code, Code::InvalidParams | Code::Busy), "{e:?}"),
            }
        }
    });
}

#[test]
fn ids_are_ranges_in_order_and_not_too_many() {
    let ids = |params: &str| match call("task.wait", params).request {
        Request::Task(call) => match *call {
            task::TaskCall::Wait { which, .. } => which.ids.iter().map(|(a, b)| (a.0, b.0)).collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    };
    assert_eq!(ids(r#"{"ids":[9,"1-1000",9,"20-30,2000","900-1200",1201]}"#), [(1, 1200), (1201, 1201), (2000, 2000)]);
    let many = |n: usize, of: &str| format!("{{\"ids\":[{}]}}", vec![of; n].join(","));
    assert_eq!(ids(&many(10_000, "\"1-1000\"")), [(1, 1000)]);
    for params in [many(10_001, "7"), many(5_001, "\"7,8\"")] {
        let text = refused("task.wait", &params);
        assert!(text.contains("ids of task.wait names 1000") && text.contains("10000 is the most"), "{text}");
    }
}

#[test]
fn what_would_be_ignored_is_refused() {
    for weight in ["0", "-1", "4294967296", "99999999999"] {
        let text = refused("task.submit", &format!("{{\"command\":\"x\",\"weight\":{weight}}}"));
        assert!(text.contains(&format!("from 1 to 4294967295, not {weight}")), "{text}");
        assert!(refused("task.edit", &format!("{{\"id\":1,\"weight\":{weight}}}")).contains("weight"), "{weight}");
    }
    call("task.submit", r#"{"command":"x","weight":4294967295}"#);
    let text = refused("task.submit", r#"{"tasks":[{"command":"x"},{"command":"x","request_key":"k"}]}"#);
    assert!(text.starts_with("task 2 of the list: request_key") && text.contains("beside the list"), "{text}");
    assert_eq!(call("task.submit", r#"{"tasks":[{"command":"x"}],"request_key":"k"}"#).key.as_deref(), Some("k"));
}
