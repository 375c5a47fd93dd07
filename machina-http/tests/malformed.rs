//! What is refused, and how: each request with the status, the code and the
//! field that its answer must name.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use serde_json::json;
use support::Server;

/// Method, path, headers, body; status, code, field.
type Case = (
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
    &'static str,
    u16,
    &'static str,
    &'static str,
);

const NONE: &[(&str, &str)] = &[];

const RECORDS: &[Case] = &[
    ("POST", "/services", NONE, "", 400, "invalid", "#"),
    ("POST", "/services", NONE, "{", 400, "invalid", "#"),
    ("POST", "/services", NONE, "{\"name\": \"x\",}", 400, "invalid", "#"),
    ("POST", "/services", NONE, r#"{"name": "x", "name": "y"}"#, 400, "invalid", "#/name"),
    ("POST", "/services", NONE, r#"{"name": "x", "labels": {"a": "1", "a": "2"}}"#, 400, "invalid", "#/labels/a"),
    (
        "POST",
        "/services",
        NONE,
        r#"{"instances": [{}, {"weight": 1, "weight": 1}]}"#,
        400,
        "invalid",
        "#/instances/1/weight",
    ),
    ("POST", "/services:bulk", NONE, r#"{"mutations": [], "mutations": []}"#, 400, "invalid", "#/mutations"),
    ("POST", "/services", NONE, "[]", 422, "invalid", "#"),
    ("POST", "/groups", NONE, r#"["g"]"#, 422, "invalid", "#"),
    ("POST", "/tools:find", NONE, r#"["echo", 1]"#, 422, "invalid", "#"),
    ("POST", "/services/known/maintenance", NONE, r#"["why"]"#, 422, "invalid", "#"),
    ("PATCH", "/services/known", NONE, "null", 422, "invalid", "#"),
    ("POST", "/services", NONE, "null", 422, "invalid", "#"),
    ("POST", "/services", NONE, "{}", 422, "invalid", "#"),
    ("POST", "/services", &[("content-type", "")], "{}", 415, "invalid", "content-type"),
    ("POST", "/services", &[("content-type", "text/plain")], "{}", 415, "invalid", "content-type"),
    ("POST", "/services?dry_run=1", NONE, r#"{"name": "x"}"#, 400, "invalid", "dry_run"),
    ("POST", "/services", NONE, r#"{"name": "Time"}"#, 422, "invalid", "#/name"),
    ("POST", "/services", NONE, r#"{"name": ""}"#, 422, "invalid", "#/name"),
    ("POST", "/services", NONE, r#"{"name": "a/b/c"}"#, 422, "invalid", "#/name"),
    ("POST", "/services", NONE, r#"{"name": 7}"#, 422, "invalid", "#/name"),
    ("POST", "/services", NONE, r#"{"name": "x", "colour": "blue"}"#, 422, "invalid", "#/colour"),
    ("POST", "/services", NONE, r#"{"name": "x", "build_type": "rust"}"#, 422, "invalid", "#/build_type"),
    ("POST", "/services", NONE, r#"{"name": "x", "required": "yes"}"#, 422, "invalid", "#/required"),
    ("POST", "/services", NONE, r#"{"name": "x", "build_priority": "URGENT"}"#, 422, "invalid", "#/build_priority"),
    ("POST", "/services", NONE, r#"{"name": "x", "tags": ["a", " b"]}"#, 422, "invalid", "#/tags/1"),
    ("POST", "/services", NONE, r#"{"name": "x", "enabled": "maybe"}"#, 422, "invalid", "#/enabled"),
    (
        "POST",
        "/services",
        NONE,
        r#"{"name": "x", "enabled": true, "admin_state": "disabled"}"#,
        422,
        "invalid",
        "#/enabled",
    ),
    ("POST", "/services", NONE, r#"{"name": "x", "repository_url": "here"}"#, 422, "invalid", "#/repository_url"),
    ("POST", "/services", NONE, r#"{"name": "x", "instances": {}}"#, 422, "invalid", "#/instances"),
    ("POST", "/services", NONE, r#"{"name": "x", "instances": [{}]}"#, 422, "invalid", "#/instances/0"),
    (
        "POST",
        "/services",
        NONE,
        r#"{"name": "x", "instances": [{"http": {"url": "http://a/"}, "sse": {"url": "http://a/"}}]}"#,
        422,
        "invalid",
        "#/instances/0",
    ),
    (
        "POST",
        "/services",
        NONE,
        r#"{"name": "x", "instances": [{"http": {"url": "http://a/"}, "weight": 0}]}"#,
        422,
        "invalid",
        "#/instances/0/weight",
    ),
    (
        "POST",
        "/services",
        NONE,
        r#"{"name": "x", "instances": [{"http": {"url": "ftp://a/"}}]}"#,
        422,
        "invalid",
        "#/instances/0/http/url",
    ),
    ("POST", "/services", NONE, r#"{"name": "x", "instances": [{"http": {}}]}"#, 422, "invalid", "#/instances/0/http"),
    (
        "POST",
        "/services",
        NONE,
        r#"{"name": "x", "instances": [{"http": {"url": "http://a/", "headers": {"a b": "c"}}}]}"#,
        422,
        "invalid",
        "#/instances/0/http/headers",
    ),
    ("POST", "/services", NONE, r#"{"name": "x", "instances": [{"stdio": {"command": "sh"}}]}"#, 403, "forbidden", ""),
    (
        "POST",
        "/services",
        NONE,
        r#"{"name": "x", "health_policy": {"interval": "soon"}}"#,
        422,
        "invalid",
        "#/health_policy/interval",
    ),
    (
        "POST",
        "/services",
        NONE,
        r#"{"name": "x", "health_policy": {"interval": "1ms"}}"#,
        422,
        "invalid",
        "#/health_policy/interval",
    ),
    (
        "POST",
        "/services",
        NONE,
        r#"{"name": "x", "routing_policy": {"attempts_max": 11}}"#,
        422,
        "invalid",
        "#/routing_policy/attempts_max",
    ),
    ("POST", "/services", NONE, r#"{"name": "x", "env": {"TOKEN": "********"}}"#, 422, "invalid", "#/env/TOKEN"),
    (
        "POST",
        "/services",
        NONE,
        r#"{"name": "x", "instances": [{"http": {"url": "http://a/?key=${env:SECRET}"}}]}"#,
        403,
        "forbidden",
        "",
    ),
    ("POST", "/services", NONE, r#"{"name": "known"}"#, 409, "conflict", ""),
    ("PUT", "/services/missing", NONE, r#"{"name": "missing"}"#, 404, "not_found", ""),
    ("PUT", "/services/known", NONE, r#"{"name": "known", "colour": 1}"#, 422, "invalid", "#/colour"),
    ("PUT", "/services/known", NONE, r#"{"name": "other"}"#, 409, "conflict", ""),
    ("PUT", "/services/known", &[("if-match", "\"999\"")], r#"{"name": "known"}"#, 412, "conflict", ""),
    (
        "PUT",
        "/services/known",
        &[("if-match", "\"999\"")],
        r#"{"name": "known", "colour": 1}"#,
        422,
        "invalid",
        "#/colour",
    ),
    ("PUT", "/services/known", &[("if-match", "7")], r#"{"name": "known"}"#, 400, "invalid", "if-match"),
    ("PUT", "/services/known", &[("if-match", "W/\"7\"")], r#"{"name": "known"}"#, 400, "invalid", "if-match"),
    ("PUT", "/services/known", &[("if-match", "\"1\", \"2\"")], r#"{"name": "known"}"#, 400, "invalid", "if-match"),
    (
        "PUT",
        "/services/known",
        NONE,
        r#"{"name": "known", "instances": [{"id": "01890000-0000-7000-8000-000000000000", "http": {"url": "http://a/"}}]}"#,
        422,
        "invalid",
        "#/instances/0/id",
    ),
    (
        "PUT",
        "/services/known",
        NONE,
        r#"{"name": "known", "instances": [{"stdio": {"command": "sh"}}]}"#,
        403,
        "forbidden",
        "",
    ),
    ("DELETE", "/services/missing", NONE, "", 404, "not_found", ""),
    ("DELETE", "/services/known", &[("if-match", "\"999\"")], "", 412, "conflict", ""),
    ("DELETE", "/services/known", &[("if-match", "now")], "", 400, "invalid", "if-match"),
    ("DELETE", "/services/known?force=1", NONE, "", 400, "invalid", "force"),
    ("POST", "/services:bulk", NONE, "{}", 422, "invalid", "#"),
    ("POST", "/services:bulk", NONE, r#"{"mutations": [{"explode": {}}]}"#, 422, "invalid", "#/mutations/0"),
    (
        "POST",
        "/services:bulk",
        NONE,
        r#"{"mutations": [{"deregister": {"name": "A"}}]}"#,
        422,
        "invalid",
        "#/mutations/0/deregister/name",
    ),
    (
        "POST",
        "/services:bulk",
        NONE,
        r#"{"mutations": [{"put": {"name": "x", "weight": 1}}]}"#,
        422,
        "invalid",
        "#/weight",
    ),
    ("POST", "/services:bulk", NONE, r#"{"mutations": [{"deregister": {"name": "missing"}}]}"#, 404, "not_found", ""),
    (
        "POST",
        "/services:bulk",
        NONE,
        r#"{"mutations": [{"put": {"name": "x", "instances": [{"stdio": {"command": "sh"}}]}}]}"#,
        403,
        "forbidden",
        "",
    ),
];

const READS: &[Case] = &[
    ("GET", "/services/missing", NONE, "", 404, "not_found", ""),
    ("GET", "/services/..", NONE, "", 404, "not_found", ""),
    ("GET", "/services/known?pretty=1", NONE, "", 400, "invalid", "pretty"),
    ("GET", "/services/%FF", NONE, "", 400, "invalid", ""),
    ("GET", "/services/a/b", NONE, "", 404, "not_found", ""),
    ("GET", "/services?colour=blue", NONE, "", 400, "invalid", "colour"),
    ("GET", "/services?limit=0", NONE, "", 400, "invalid", "limit"),
    ("GET", "/services?limit=201", NONE, "", 400, "invalid", "limit"),
    ("GET", "/services?limit=many", NONE, "", 400, "invalid", "limit"),
    ("GET", "/services?status=fine", NONE, "", 400, "invalid", "status"),
    ("GET", "/services?required=maybe", NONE, "", 400, "invalid", "required"),
    ("GET", "/services?order=size", NONE, "", 400, "invalid", "order"),
    ("GET", "/services?cursor=zzz", NONE, "", 400, "invalid", "cursor"),
    ("GET", "/services/missing/health", NONE, "", 404, "not_found", ""),
    ("GET", "/services/missing/tools", NONE, "", 404, "not_found", ""),
    ("GET", "/services/known/tools?service=other", NONE, "", 400, "invalid", "service"),
    ("GET", "/services/known/tools?limit=1&limit=2", NONE, "", 400, "invalid", "limit"),
    ("GET", "/services/known/tools/missing", NONE, "", 404, "not_found", ""),
    ("GET", "/tools?service=missing", NONE, "", 404, "not_found", ""),
    ("GET", "/tools?limit=0", NONE, "", 400, "invalid", "limit"),
    ("GET", "/tools?limit=-1", NONE, "", 400, "invalid", "limit"),
    ("GET", "/tools?cursor=zzz", NONE, "", 400, "invalid", "cursor"),
    ("GET", "/services/missing/explain", NONE, "", 404, "not_found", ""),
    ("GET", "/services/known/explain?tools=echo", NONE, "", 400, "invalid", "tools"),
    ("GET", "/services/known/explain?tool=missing", NONE, "", 404, "not_found", ""),
    ("GET", "/services/missing/history", NONE, "", 404, "not_found", ""),
    ("GET", "/services/known/history?kind=gossip", NONE, "", 400, "invalid", "kind"),
    ("GET", "/services/known/history?limit=0", NONE, "", 400, "invalid", "limit"),
    ("GET", "/services/known/history?limit=1001", NONE, "", 400, "invalid", "limit"),
    ("GET", "/services/known/history?since=yesterday", NONE, "", 400, "invalid", "since"),
    ("GET", "/services/known/history?instance=1", NONE, "", 400, "invalid", "instance"),
    ("GET", "/services/known/history?cursor=x", NONE, "", 400, "invalid", "cursor"),
    ("GET", "/status?x=1", NONE, "", 400, "invalid", "x"),
    ("GET", "/nothing", NONE, "", 404, "not_found", ""),
    ("PATCH", "/services", NONE, "{}", 405, "invalid", ""),
    ("POST", "/services/known", NONE, "{}", 405, "invalid", ""),
    ("GET", "/tools:find", NONE, "", 405, "invalid", ""),
    ("DELETE", "/services/known/health", NONE, "", 405, "invalid", ""),
];

const CALLS: &[Case] = &[
    ("POST", "/tools:find", NONE, "{}", 422, "invalid", "#"),
    ("POST", "/tools:find", NONE, r#"{"text": " "}"#, 422, "invalid", "#/text"),
    ("POST", "/tools:find", NONE, r#"{"text": 1}"#, 422, "invalid", "#/text"),
    ("POST", "/tools:find", NONE, r#"{"text": "a", "limit": 0}"#, 422, "invalid", "#/limit"),
    ("POST", "/tools:find", NONE, r#"{"text": "a", "limit": 101}"#, 422, "invalid", "#/limit"),
    ("POST", "/tools:find", NONE, r#"{"text": "a", "limit": -1}"#, 422, "invalid", "#/limit"),
    ("POST", "/tools:find", NONE, r#"{"text": "a", "service": "b"}"#, 422, "invalid", "#/service"),
    ("POST", "/services/missing/call", NONE, r#"{"tool": "echo"}"#, 404, "not_found", ""),
    ("POST", "/services/known/call", NONE, "", 400, "invalid", "#"),
    ("POST", "/services/known/call", NONE, "{}", 422, "invalid", "#"),
    ("POST", "/services/known/call", NONE, r#"{"tool": ""}"#, 422, "invalid", "#/tool"),
    ("POST", "/services/known/call", NONE, r#"{"tool": "missing"}"#, 404, "not_found", ""),
    ("POST", "/services/known/call", NONE, r#"{"tool": "echo", "arguments": []}"#, 422, "invalid", "#/arguments"),
    ("POST", "/services/known/call", NONE, r#"{"tool": "echo", "arguments": null}"#, 422, "invalid", "#/arguments"),
    ("POST", "/services/known/call", NONE, r#"{"tool": "echo", "args": {}}"#, 422, "invalid", "#/args"),
    ("POST", "/services/known/call", NONE, r#"{"tool": "echo", "timeout_ms": 0}"#, 422, "invalid", "#/timeout_ms"),
    ("POST", "/services/known/call", NONE, r#"{"tool": "echo", "timeout_ms": 600001}"#, 422, "invalid", "#/timeout_ms"),
    (
        "POST",
        "/services/known/call",
        NONE,
        r#"{"tool": "echo", "timeout_ms": 18446744073709551615}"#,
        422,
        "invalid",
        "#/timeout_ms",
    ),
    ("POST", "/services/known/call", NONE, r#"{"tool": "echo", "timeout_ms": 1.5}"#, 422, "invalid", "#/timeout_ms"),
    (
        "POST",
        "/services/known/call",
        NONE,
        r#"{"tool": "echo", "idempotency_key": ""}"#,
        422,
        "invalid",
        "#/idempotency_key",
    ),
    (
        "POST",
        "/services/known/call",
        &[("idempotency-key", "a")],
        r#"{"tool": "echo", "idempotency_key": "b"}"#,
        400,
        "invalid",
        "idempotency-key",
    ),
    ("POST", "/services/known/call?timeout=1", NONE, r#"{"tool": "echo"}"#, 400, "invalid", "timeout"),
    ("POST", "/services/known/tools/echo/call", NONE, r#"{"tool": "echo"}"#, 422, "invalid", "#/tool"),
    ("POST", "/services/known/tools/missing/call", NONE, "{}", 404, "not_found", ""),
    ("POST", "/services/known/tools/a%0Ab/call", NONE, "{}", 400, "invalid", "tool"),
    ("GET", "/services/known/call", NONE, "", 405, "invalid", ""),
];

async fn refuses(cases: &[Case]) {
    let server = Server::start().await;
    let instance = server.sim.instance("one");
    server.register(json!({"name": "known", "instances": [instance]})).await;
    server.register(json!({"name": "other"})).await;
    machina_core::testing::registry_suite::settle(&server.machina, "known", machina_core::Status::Healthy).await;
    let before = server.machina.view().revision();
    for (method, path, headers, body, status, code, field) in cases {
        let what = format!("{method} {path} {headers:?} {body}");
        let body = (!matches!(*method, "GET" | "DELETE")).then_some(*body);
        let answer = server.send(method, &format!("/api/v1{path}"), headers, body).await;
        answer.assert_problem(&what, *status, code);
        assert_eq!(answer.field(), *field, "{what}: {}", answer.text);
        assert_eq!(*status == 405, !answer.header("allow").is_empty(), "{what}");
    }
    assert_eq!(server.machina.view().revision(), before, "nothing was changed");
    assert_eq!(server.sim.executions(&instance), 0, "nothing was called");
}

#[tokio::test]
async fn malformed_records_are_refused() {
    refuses(RECORDS).await;
}

#[tokio::test]
async fn malformed_reads_are_refused() {
    refuses(READS).await;
}

#[tokio::test]
async fn malformed_calls_are_refused() {
    refuses(CALLS).await;
}

#[tokio::test]
async fn several_wrong_fields_are_named_at_once() {
    let server = Server::start().await;
    let record = json!({"name": "x", "title": "t".repeat(201), "documentation_url": "here",
        "instances": [{"http": {"url": "http://a/"}}, {"http": {"url": "b"}, "weight": 1001}]});
    let answer = server.post("/api/v1/services", record).await;
    answer.assert_problem("several", 422, "invalid");
    let named: Vec<_> =
        answer.body["errors"].as_array().unwrap().iter().map(|wrong| wrong["pointer"].clone()).collect();
    let expected = ["#/title", "#/documentation_url", "#/instances/1/weight", "#/instances/1/http/url"];
    assert_eq!(named, expected);
}

#[tokio::test]
async fn a_refused_command_names_the_setting() {
    let server = Server::start().await;
    let record = json!({"name": "x", "instances": [{"stdio": {"command": "sh", "args": ["--token", "hunter2"]}}]});
    let answer = server.post("/api/v1/services", record).await;
    answer.assert_problem("a command", 403, "forbidden");
    assert!(answer.body["detail"].as_str().unwrap().contains("access.allow_stdio_registration"), "{}", answer.text);
    assert!(!answer.text.contains("hunter2"), "a secret was shown");
}
