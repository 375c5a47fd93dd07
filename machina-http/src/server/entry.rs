//! `/`: says what is here to the person who opens the address in a browser, and
//! to the program that asks for it.

use axum::response::{Html, IntoResponse, Response};
use http::HeaderMap;
use http::header::ACCEPT;
use serde_json::{Map, Value, json};

/// What there is, and what it is.
const ENTRIES: [(&str, &str); 30] = [
    ("GET /api/v1/status", "how everything is: numbers, and what is not healthy"),
    ("GET /api/v1/services", "services, by filters and in pages; POST registers one"),
    ("GET /api/v1/services/{name}", "a service; PUT replaces it, PATCH changes it, DELETE removes it"),
    ("POST /api/v1/services:bulk", "several changes at once, all or none"),
    ("GET /api/v1/services/{name}/instances", "where it runs; POST adds a place, PATCH and DELETE change one"),
    ("POST /api/v1/services/{name}/maintenance", "takes it out of use: {\"reason\": …}; DELETE takes it back"),
    ("POST /api/v1/services/{name}/heartbeat", "says that a service which registered itself is alive"),
    ("POST /api/v1/services/{name}/checks", "probes its instances at once"),
    ("GET /api/v1/services/{name}/health", "its health and that of each instance; ?slots=90 over time"),
    ("GET /api/v1/services/{name}/history", "what happened to it: ?kind=transition, sample, call or audit"),
    ("GET /api/v1/services/{name}/tools", "its tools"),
    ("POST /api/v1/services/{name}/call", "calls a tool of it: {\"tool\": …, \"arguments\": {…}}"),
    ("GET /api/v1/groups", "named selections of tools; POST makes one"),
    ("GET /api/v1/groups/{name}", "a group; PUT replaces it, DELETE removes it"),
    ("GET /api/v1/services/{name}/explain", "where a call would go, and why"),
    ("GET /api/v1/discover", "where services can be reached now, for programs that talk to them themselves"),
    ("GET /api/v1/connect", "how an MCP host is told to use this: ?client=claude-code"),
    ("GET /api/v1/tools", "the tools of all services"),
    ("POST /api/v1/tools:find", "the tools that fit a text: {\"text\": …}"),
    ("GET /api/v1/events", "what changes, as server-sent events: ?since={revision}"),
    ("GET /api/v1/store/image", "the store, for Machinas that follow this one, where the server lets them"),
    ("GET /ws/health", "changes of health, over a WebSocket"),
    ("GET /ws/config", "changes of what is declared, over a WebSocket"),
    ("POST /mcp", "the same for MCP hosts, by Streamable HTTP, where the server offers it"),
    ("GET /v0.1/servers", "the services as the official MCP registry would list them, where the server offers it"),
    ("GET /livez", "whether the server lives"),
    ("GET /readyz", "whether it can serve; ?verbose says more"),
    ("GET /metrics", "everything that is counted, for Prometheus"),
    ("GET /openapi.json", "all of this as an OpenAPI document"),
    ("GET /docs", "the same as a page"),
];

pub(super) async fn entry(headers: HeaderMap) -> Response {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    if accept.contains("text/html") { Html(page()).into_response() } else { axum::Json(document()).into_response() }
}

fn document() -> Value {
    let entries: Map<String, Value> = ENTRIES.iter().map(|(what, is)| ((*what).to_owned(), json!(is))).collect();
    json!({"name": "machina", "version": env!("CARGO_PKG_VERSION"), "entries": entries})
}

fn page() -> String {
    let rows = ENTRIES.map(|(what, is)| {
        let linked = what.strip_prefix("GET ").filter(|path| !path.contains('{'));
        let what = linked.map_or_else(|| what.to_owned(), |path| format!("GET <a href=\"{path}\">{path}</a>"));
        format!("<tr><td><code>{what}</code><td>{is}\n")
    });
    let (version, rows) = (env!("CARGO_PKG_VERSION"), rows.concat());
    format!(
        "<!doctype html><html lang=en><meta charset=utf-8><title>Machina</title>\n\
         <style>body{{font:16px sans-serif;margin:2em auto;max-width:60em}}td{{padding:.2em 1em .2em 0}}</style>\n\
         <h1>Machina {version}</h1><p>A registry of MCP servers. This is what it answers to:\n<table>\n{rows}</table>\n"
    )
}
