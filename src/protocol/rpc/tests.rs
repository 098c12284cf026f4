//! Requests, batches, ids and errors, right and wrong.

use super::*;
use crate::base::limits::BATCH_MAX;

/// `ID METHOD PARAMS`, or the id and the number of the error.
fn one(text: &str) -> String {
    match parse(text.as_bytes()) {
        Parsed::One(m) => {
            format!("{} {} {}", m.id.unwrap_or("-"), m.method, m.params.map_or("-", |p| p.get()))
        }
        Parsed::Invalid(i) => format!("{} {}", i.id, i.error.code.number()),
        Parsed::Batch(b) => format!("batch {}", b.len()),
    }
}

#[test]
fn ids_are_echoed_as_they_came() {
    for id in
        ["0", "1", "-0", "-7", "1.50", "1e3", "18446744073709551616000", "null", "\"\"", "\"a\\u0041\"", "\"a-1\""]
    {
        for form in [
            format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"ping"}}"#),
            format!(r#" {{ "method" : "ping", "id" : {id} , "jsonrpc" : "2.0" }} "#),
        ] {
            assert_eq!(one(&form), format!("{id} ping -"), "{form}");
        }
    }
}

#[test]
fn a_request_without_an_id_is_a_notification() {
    assert_eq!(one(r#"{"jsonrpc":"2.0","method":"ping"}"#), "- ping -");
    assert_eq!(one(r#"{"jsonrpc":"2.0","method":"a.b","params":[1]}"#), "- a.b [1]");
    assert_eq!(one(r#"{"jsonrpc":"2.0","method":"a.b","params":null}"#), "- a.b -");
    assert_eq!(one(r#"{"jsonrpc":"2.0","method":"a\u0062","other":{"id":[9]}}"#), "- ab -");
}

#[test]
fn what_is_no_request_is_told_apart() {
    for (text, want) in [
        ("", "null -32700"),
        ("{", "null -32700"),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping"} x"#, "null -32700"),
        (r#"{"jsonrpc":"2.0","id":01,"method":"ping"}"#, "null -32700"),
        ("[1,", "null -32700"),
        ("[]", "null -32600"),
        ("7", "null -32600"),
        ("\"ping\"", "null -32600"),
        ("{}", "null -32600"),
        (r#"{"id":1,"method":"ping"}"#, "1 -32600"),
        (r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#, "1 -32600"),
        (r#"{"jsonrpc":2.0,"id":1,"method":"ping"}"#, "1 -32600"),
        (r#"{"jsonrpc":"2.0","id":"x"}"#, "\"x\" -32600"),
        (r#"{"jsonrpc":"2.0","method":1,"params":"bar"}"#, "null -32600"),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":"bar"}"#, "1 -32600"),
        (r#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#, "null -32600"),
        (r#"{"jsonrpc":"2.0","id":true,"method":"ping"}"#, "null -32600"),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping","id":2}"#, "2 -32600"),
        (r#"{"jsonrpc":"2.0","id":1,"id":1,"method":"ping"}"#, "1 -32600"),
        (r#"{"jsonrpc":"2.0","method":"ping","method":"ping"}"#, "null -32600"),
        (r#"{"jsonrpc":"2.0","id":1,"result":{}}"#, "1 -32600"),
    ] {
        assert_eq!(one(text), want, "{text}");
    }
    let invalid = parse(b"{\"a\":\"\xff\"}");
    assert!(matches!(invalid, Parsed::Invalid(i) if i.error.code == Code::Parse));
}

#[test]
fn deep_nesting_is_no_danger() {
    let deep = "[".repeat(1_000_000);
    assert_eq!(one(&format!(r#"{{"jsonrpc":"2.0","id":1,"method":"ping","params":{deep}"#)), "null -32700");
    assert_eq!(one(&deep), "null -32700");
}

#[test]
fn batches_are_bounded() {
    let of = |n: usize| format!("[{}]", vec!["1"; n].join(","));
    assert_eq!(one(&of(1)), "batch 1");
    assert_eq!(one(&of(BATCH_MAX)), format!("batch {BATCH_MAX}"));
    assert_eq!(one(&of(BATCH_MAX + 1)), "null -32005");
    assert_eq!(one(&format!(" \n{}", of(2))), "batch 2");
    let Parsed::Batch(elements) = parse(br#"[{"jsonrpc":"2.0","method":"ping"},1,[]]"#) else { panic!() };
    let kinds: Vec<bool> = elements.iter().map(|e| parse_one(e.get()).is_ok()).collect();
    assert_eq!(kinds, [true, false, false]);
}

#[test]
fn every_code_has_a_number_and_an_exit_code_of_its_own() {
    let mut exits: Vec<u8> = Code::all().map(Code::exit_code).collect();
    exits.sort_unstable();
    assert_eq!(exits, (3..16).collect::<Vec<u8>>());
    for code in Code::all() {
        assert_eq!(Code::from_number(code.number()), Some(code));
    }
    assert_eq!(Code::from_number(-32000), None);
    let numbers = [Code::Parse, Code::InvalidRequest, Code::MethodNotFound, Code::InvalidParams, Code::Internal];
    assert_eq!(numbers.map(Code::number), [-32700, -32600, -32601, -32602, -32603]);
    let own = [
        Code::Unavailable,
        Code::FileSystem,
        Code::PermissionDenied,
        Code::NotFound,
        Code::Busy,
        Code::SudoDenied,
        Code::ShuttingDown,
        Code::Conflict,
    ];
    assert_eq!(own.map(Code::number), [-32001, -32002, -32003, -32004, -32005, -32006, -32007, -32008]);
}

#[test]
fn what_is_written_is_understood() {
    let error = RpcError::new(Code::NotFound, "no service \"web\"").hint("try\nagain");
    let text = error_text("\"7\"", &error);
    assert_eq!(
        text,
        concat!(
            r#"{"jsonrpc":"2.0","id":"7","error":{"code":-32004,"message":"no service \"web\"","#,
            r#""data":{"hint":"try\nagain"}}}"#
        )
    );
    let Ok(FromServer::Reply { id: "\"7\"", result: Err(e) }) = parse_from_server(text.as_bytes()) else { panic!() };
    assert_eq!(e, error);
    let strange = br#"{"jsonrpc":"2.0","id":1,"error":{"code":5,"message":"m","data":7}}"#;
    let Ok(FromServer::Reply { result: Err(e), .. }) = parse_from_server(strange) else { panic!() };
    assert_eq!((e.code, &*e.message), (Code::Internal, "m (error 5)"));

    let mut out = Vec::new();
    write_result(crate::protocol::frame::Framing::Lines, &mut out, "null", "{\"a\":\n1}").unwrap();
    assert_eq!(out, b"{\"jsonrpc\":\"2.0\",\"id\":null,\"result\":{\"a\": 1}}\n");
    assert!(matches!(parse_from_server(&out), Ok(FromServer::Reply { id: "null", result: Ok(_) })));
    out.clear();
    write_notification(crate::protocol::frame::Framing::Lines, &mut out, "event", "{}").unwrap();
    assert!(matches!(parse_from_server(&out), Ok(FromServer::Notification { method, .. }) if method == "event"));
    assert_eq!(one(&request_text(7, "ping", None)), "7 ping -");
    assert_eq!(one(&request_text(7, "a\"b", Some("[1]"))), "7 a\"b [1]");
    for bad in [&b"{}"[..], b"[]", b"7", b"{\"id\":1,\"result\":1,\"error\":{}}", b"{\"id\":1,\"error\":{}}"] {
        assert!(parse_from_server(bad).is_err());
    }
}

#[test]
fn fuzz_with_fixed_seeds() {
    let corpus: Vec<Vec<u8>> = [
        r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":"a-1","method":"service.list","params":{"names":["a","b"]}}"#,
        r#"{ "method" : "a\u0062", "params":[1,null,{"x":-1.5e9}], "jsonrpc":"2.0", "id":null}"#,
        r#"[{"jsonrpc":"2.0","id":0,"method":"ping"},{"jsonrpc":"2.0","method":"ping"},7]"#,
        r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32004,"message":"m","data":{"hint":"h"}}}"#,
    ]
    .map(|t| t.as_bytes().to_vec())
    .to_vec();
    crate::protocol::each_mutation(&corpus, 40_000, fuzz);
}
