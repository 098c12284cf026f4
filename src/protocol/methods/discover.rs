//! The method table as an OpenRPC document. Pure.

use super::{METHODS, Method, Param};
use serde_json::{Value, json};

/// The document that `rpc.discover` answers.
#[must_use]
pub fn discover(version: &str) -> String {
    let methods: Vec<Value> = METHODS.iter().map(method).collect();
    json!({
        "openrpc": "1.2.6",
        "info": {
            "title": "hob",
            "version": version,
            "description": "JSON-RPC 2.0 on a Unix stream socket. Any method that changes something also takes \
                `request_key`, a text: the same request with the same key is done once.",
        },
        "methods": methods,
    })
    .to_string()
}

fn method(method: &Method) -> Value {
    let mut params: Vec<Value> = method.params.iter().map(param).collect();
    if method.mutating {
        params.push(json!({
            "name": "request_key",
            "description": "names the request, so that it is done once however often it is sent; by name alone",
            "required": false,
            "schema": {"type": "string", "minLength": 1},
        }));
    }
    json!({
        "name": method.name,
        "summary": method.doc,
        "paramStructure": "either",
        "params": params,
        "result": {"name": "result", "description": method.result, "schema": {}},
        "x-access": method.access,
        "x-mutating": method.mutating,
        "x-aliases": method.aliases,
    })
}

fn param(param: &Param) -> Value {
    let schema: Value = serde_json::from_str(param.kind.schema()).unwrap_or(Value::Bool(true));
    let mut value = json!({
        "name": param.name,
        "description": param.doc,
        "required": param.required,
        "schema": schema,
    });
    if let (Some(alias), Some(object)) = (param.alias, value.as_object_mut()) {
        object.insert("x-alias".to_owned(), Value::from(alias));
    }
    value
}
