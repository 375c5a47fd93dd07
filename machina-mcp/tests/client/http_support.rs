//! Servers of either era for the tests over HTTP, and a connector to reach them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::http_server::{Piece, Received, Server, json as json_reply, reply, result};
use machina_core::{
    CallContext, Connector, Era, ErrorKind, HttpEndpoint, Instance, Phase, Reach, Result, Session, Target,
};
use machina_mcp::client::{Environment, HttpConfig, HttpConnector};
use serde_json::{Map, Value, json};

pub(crate) fn connector() -> HttpConnector {
    connector_that_waits(HttpConfig::default().discover_timeout)
}

/// A connector that waits so long for the answer to the question for the era.
pub(crate) fn connector_that_waits(discover_timeout: Duration) -> HttpConnector {
    let config = HttpConfig { discover_timeout, ..HttpConfig::default() };
    let environment = [("TOKEN".to_owned(), "hunter2".to_owned())];
    HttpConnector::new(config, Environment::new(environment)).unwrap()
}

pub(crate) fn target(endpoint: HttpEndpoint, era: Option<Era>) -> Target {
    Target {
        service: "fixture".parse().unwrap(),
        instance: Instance::new(endpoint),
        env: BTreeMap::new(),
        era,
        timeout: Duration::from_secs(5),
        reach: Reach::inside(),
    }
}

pub(crate) async fn connect(server: &Server, era: Option<Era>) -> Result<Arc<dyn Session>> {
    connector().connect(&target(HttpEndpoint::new(&server.url), era)).await
}

pub(crate) fn within() -> CallContext {
    CallContext::within(Duration::from_secs(5))
}

pub(crate) async fn call(session: &Arc<dyn Session>) -> Result<Value> {
    let result = session.call("echo", &Map::new(), &within()).await?;
    Ok(Value::Object(result.0))
}

pub(crate) fn phase_of(error: &machina_core::Error) -> (ErrorKind, Phase) {
    (error.kind(), error.context().phase.unwrap())
}

/// What a well-behaved server of either era answers; `None` for a tool call.
pub(crate) fn polite(request: &Received) -> Option<Vec<Piece>> {
    let modern = request.body["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"] == "2026-07-28";
    Some(match (request.verb.as_str(), request.method()) {
        ("GET", _) => reply(405, &[], ""),
        ("DELETE", _) => reply(204, &[], ""),
        (_, "initialize") => {
            let body = result(request, json!({"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}}));
            reply(200, &[("content-type", "application/json"), ("mcp-session-id", "s-1")], &body.to_string())
        }
        (_, "server/discover") if modern => json_reply(&result(
            request,
            json!({"resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}),
        )),
        (_, "ping") => json_reply(&result(request, json!({}))),
        (_, "tools/list") => json_reply(&result(
            request,
            json!({"tools": [{"name": "echo", "x-more": 1, "inputSchema": {"properties": {
                "region": {"type": "string", "x-mcp-header": "Region"}}}}]}),
        )),
        (_, "tools/call") => return None,
        _ => reply(202, &[], ""),
    })
}

/// A server of both eras whose answer to a tool call is `answer`.
pub(crate) async fn answering(answer: impl Fn(&Received) -> Vec<Piece> + Send + Sync + 'static) -> Server {
    Server::start(move |request| polite(request).unwrap_or_else(|| answer(request))).await
}

/// A server that knows only the older era and sessions.
pub(crate) async fn legacy(answer: impl Fn(&Received) -> Vec<Piece> + Send + Sync + 'static) -> Server {
    Server::start(move |request| match request.method() {
        "server/discover" => reply(400, &[("content-type", "text/plain")], "Bad Request: Mcp-Session-Id is required"),
        _ => polite(request).unwrap_or_else(|| answer(request)),
    })
    .await
}

pub(crate) fn done(request: &Received) -> Vec<Piece> {
    json_reply(&result(request, json!({"content": [], "b": 1, "a": 2})))
}
