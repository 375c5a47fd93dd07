//! The server itself, streams of what changes, and what other protocols and
//! other documents have at this address.

use serde_json::{Value, json};

use super::super::metrics;
use super::operation::Operation;
use super::parts::{number, text};
use super::schemas::of;

const SERVER: &str = "Server";
const CHANGES: &str = "Changes";
const MCP: &str = "MCP";
const REGISTRY: &str = "MCP registry";

pub(super) fn operations() -> Vec<Operation> {
    let mut all = server();
    all.extend(changes());
    all.extend(mcp());
    all.extend(registry());
    all
}

fn object() -> Value {
    json!({"type": "object"})
}

fn server() -> Vec<Operation> {
    let alive = json!({"type": "object", "required": ["status"], "properties": {"status": {"const": "alive"}}});
    let ready = json!({"type": "object", "required": ["status"],
        "properties": {"status": {"const": "ready"}, "checks": {"type": "object"}}});
    let verbose = || json!({"type": "string"});
    let ready = ["/readyz", "/healthz"].into_iter().zip(["ready", "healthy"]).map(|(path, id)| {
        Operation::new("get", path, SERVER, id, "Whether the server can serve")
            .query("verbose", "Says more, whatever its value", verbose())
            .answers(200, "It can", &ready, &[])
            .refuses(&[503, 504])
    });
    let entries = json!({"type": "object", "required": ["name", "version", "entries"], "properties": {
        "name": {"type": "string"}, "version": {"type": "string"}, "entries": {"type": "object"}}});
    let mut all = vec![
        Operation::new("get", "/", SERVER, "list_resources", "What is here, as JSON, or as a page for browsers")
            .answers(200, "What is here", &entries, &[]),
        Operation::new("get", "/api/v1/status", SERVER, "get_status", "The registry in numbers").answers(
            200,
            "How everything is",
            &of("ServerStatus"),
            &[],
        ),
        Operation::new("get", "/livez", SERVER, "alive", "Whether the server lives").answers(
            200,
            "It does",
            &alive,
            &[],
        ),
        Operation::new("get", "/metrics", SERVER, "get_metrics", "Everything that is counted, for Prometheus")
            .answers_as(200, "OpenMetrics text", metrics::MEDIA_TYPE, &json!({"type": "string"}), &[]),
        Operation::new("get", "/openapi.json", SERVER, "get_openapi", "This document").answers(
            200,
            "An OpenAPI 3.1 document",
            &object(),
            &["ETag"],
        ),
        Operation::new("get", "/docs", SERVER, "read_docs", "This document as a page").answers_bare(
            308,
            "To `/docs/`",
            &["Location"],
        ),
        Operation::new("get", "/docs/{file}", SERVER, "get_docs_file", "The page, and what it is made of")
            .in_path("file", "A file of the page", json!({"type": "string", "examples": ["index.html"]}))
            .answers_as(200, "The file", "*/*", &json!({}), &["Content-Encoding", "Content-Security-Policy"]),
        Operation::new("get", "/docs/", SERVER, "get_docs_page", "The page").answers_as(
            200,
            "The page",
            "text/html",
            &json!({"type": "string"}),
            &["Content-Encoding", "Content-Security-Policy"],
        ),
    ];
    all.extend(ready);
    all
}

fn changes() -> Vec<Operation> {
    let since = "A revision, or the id of an event: everything that happened since";
    let channel = |path: &str, id: &'static str, summary: &'static str| {
        Operation::new("get", path, CHANGES, id, summary)
            .query("since", since, text())
            .answers_bare(101, "The WebSocket", &[])
            .refuses(&[429])
    };
    vec![
        Operation::new("get", "/api/v1/events", CHANGES, "watch", "What changes, as server-sent events")
            .says("The stream has no end. Each `data:` is an `Event`; `resync` means: read the state again.")
            .query("since", since, text())
            .with(&["Last-Event-ID"])
            .answers_as(200, "The stream", "text/event-stream", &json!({"type": "string"}), &[])
            .refuses(&[429, 501]),
        channel("/ws/health", "watch_health", "Changes of health, over a WebSocket"),
        channel("/ws/config", "watch_config", "Changes of declarations, over a WebSocket"),
    ]
}

/// What `machina serve` mounts beside the API.
fn mcp() -> Vec<Operation> {
    let says = "By Streamable HTTP, as MCP describes it; where the server offers it.";
    let message = || json!({"jsonrpc": "2.0", "id": 1, "method": "ping"});
    let answers = |operation: Operation| {
        operation
            .says(says)
            .answers(200, "The answer, or a stream of it", &object(), &[])
            .answers_bare(202, "A notification was taken", &[])
            .refuses(&[405, 406])
    };
    let group = "/mcp/{group}";
    vec![
        answers(Operation::new("post", "/mcp", MCP, "mcp", "A message of MCP")).takes(object(), &message()),
        answers(Operation::new("post", group, MCP, "mcp_group", "A message of MCP to a group"))
            .takes(object(), &message()),
        Operation::new("get", "/mcp/ws", MCP, "mcp_ws", "MCP over a WebSocket").answers_bare(101, "The WebSocket", &[]),
        Operation::new("get", "/mcp/{group}/ws", MCP, "mcp_group_ws", "A group over a WebSocket").answers_bare(
            101,
            "The WebSocket",
            &[],
        ),
    ]
}

/// The official registry's API, where the server offers it.
fn registry() -> Vec<Operation> {
    let says =
        "As the official MCP registry answers; `/v0` is the same. Errors are `{\"title\", \"status\", \"detail\"}`.";
    let servers = json!({"type": "object", "required": ["servers", "metadata"], "properties": {
        "servers": {"type": "array", "items": {"type": "object"}}, "metadata": {"type": "object"}}});
    let name = |operation: Operation| {
        operation.in_path("serverName", "The name, with its slash as `%2F`", json!({"type": "string"})).says(says)
    };
    let get = |path: &str, id: &'static str, summary: &'static str| Operation::new("get", path, REGISTRY, id, summary);
    let form = json!({"type": "object", "required": ["title", "status", "detail"], "properties": {
        "title": {"type": "string"}, "status": {"type": "integer"}, "detail": {"type": "string"}}});
    let time = json!({"anyOf": [{"type": "string", "format": "date-time"}, {"const": ""}]});
    let all =
        vec![
            get("/v0.1/servers", "list_servers", "Services as the registry lists servers")
                .says(says)
                .query("cursor", "`metadata.nextCursor` of the page before", text())
                .query("limit", "How many on a page", number(1, 100, Some(30)))
                .query("search", "A part of the name", json!({"type": "string", "maxLength": 255}))
                .query("updated_since", "Changed at or after this time; empty counts as absent", time)
                .query("version", "`latest`, or one version", json!({"type": "string", "maxLength": 255}))
                .query("include_deleted", "Also those that are gone", json!({"type": "boolean"}))
                .answers(200, "The page", &servers, &[]),
            name(get("/v0.1/servers/{serverName}/versions", "list_server_versions", "The versions of a server"))
                .answers(200, "The versions", &servers, &[]),
            name(get("/v0.1/servers/{serverName}/versions/{version}", "get_server_version", "One version of a server"))
                .in_path("version", "`latest`, or a version", json!({"type": "string"}))
                .answers(200, "The server", &object(), &[]),
        ];
    all.into_iter().map(|operation| operation.in_its_own_form(&form)).collect()
}
