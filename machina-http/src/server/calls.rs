//! To call a tool, and to explain where a call would go.

use std::time::Duration;

use axum::extract::State;
use http::HeaderMap;
use machina_core::{
    CallOptions, CallReport, Error, Explanation, Result, Router, Scoped, ToolCall, ToolName, ToolResult,
};
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::sync::oneshot;
use tracing::Instrument as _;

use super::App;
use super::extract::{Caller, InPath, Json, Parameters};
use super::failure::{Failure, Part};
use super::services::named;

const IDEMPOTENCY_KEY: &str = "idempotency-key";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    tool: ToolName,
    #[serde(default)]
    arguments: Map<String, Value>,
    timeout_ms: Option<u64>,
    idempotency_key: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Unnamed {
    #[serde(default)]
    arguments: Map<String, Value>,
    timeout_ms: Option<u64>,
    idempotency_key: Option<String>,
}

pub(super) async fn call(
    State(app): State<App>,
    Caller(caller): Caller,
    InPath(service): InPath<String>,
    parameters: Parameters,
    headers: HeaderMap,
    body: Json,
) -> Result<axum::Json<ToolResult>, Failure> {
    parameters.none()?;
    let service = named(&caller, &service)?;
    let Named { tool, arguments, timeout_ms, idempotency_key } = body.typed()?;
    let options = options(timeout_ms, idempotency_key, &headers)?;
    let report = carry(&app, caller, ToolCall { service, tool, arguments }, options).await;
    report.map(|report| axum::Json(report.annotated())).map_err(Failure::of(Part::Record))
}

pub(super) async fn call_tool(
    State(app): State<App>,
    Caller(caller): Caller,
    InPath((service, tool)): InPath<(String, String)>,
    parameters: Parameters,
    headers: HeaderMap,
    body: Json,
) -> Result<axum::Json<ToolResult>, Failure> {
    parameters.none()?;
    let (service, tool) = (named(&caller, &service)?, ToolName::new(&tool)?);
    let Unnamed { arguments, timeout_ms, idempotency_key } = body.typed()?;
    let options = options(timeout_ms, idempotency_key, &headers)?;
    let report = carry(&app, caller, ToolCall { service, tool, arguments }, options).await;
    report.map(|report| axum::Json(report.annotated())).map_err(Failure::of(Part::Record))
}

pub(super) async fn explain(
    Caller(caller): Caller,
    InPath(service): InPath<String>,
    parameters: Parameters,
) -> Result<axum::Json<Explanation>, Failure> {
    let tool = parameters.only(&["tool"])?.take("tool");
    Ok(axum::Json(caller.explain(&service, tool.as_deref()).await?))
}

fn options(timeout_ms: Option<u64>, key: Option<String>, headers: &HeaderMap) -> Result<CallOptions, Failure> {
    let wrong = |detail| Failure::of(Part::Headers)(Error::invalid_field(IDEMPOTENCY_KEY, detail));
    let header = match headers.get(IDEMPOTENCY_KEY) {
        Some(value) => Some(value.to_str().map_err(|_| wrong("must be printable ASCII"))?.to_owned()),
        None => None,
    };
    let idempotency_key = match (header, key) {
        (Some(header), Some(body)) if header != body => {
            return Err(wrong("is another one than `idempotency_key` in the body"));
        }
        (header, body) => header.or(body),
    };
    Ok(CallOptions { timeout: timeout_ms.map(Duration::from_millis), idempotency_key, ..CallOptions::default() })
}

/// Carries the call in a task of its own. If the client goes away, this future is
/// dropped and the call cancelled: the task then lives on until the instance is
/// told and the journal written.
async fn carry(app: &App, caller: Scoped, call: ToolCall, options: CallOptions) -> Result<CallReport> {
    let _cancelled_on_drop = options.cancelled.clone().drop_guard();
    let (answer, answered) = oneshot::channel();
    let carried = async move { drop(answer.send(caller.call(&call, &options).await)) };
    drop(app.calls.spawn("call", carried.in_current_span()));
    answered.await.unwrap_or_else(|_| Err(Error::internal("a bug: the call panicked; the log of the server says more")))
}
