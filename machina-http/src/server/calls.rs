//! To call a tool, and to explain where a call would go.

use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::HeaderMap;
use machina_core::{
    CallOptions, CallReport, Error, Explanation, Result, Router, Scoped, ToolCall, ToolName, ToolResult,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::sync::oneshot;
use tracing::Instrument as _;

use super::App;
use super::extract::{Caller, InPath, Json, Parameters};
use super::failure::{Failure, Part};
use super::once::{Keyed, key_in, wrong_key};
use super::services::named;

#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Call)]
pub(super) struct Named {
    tool: ToolName,
    #[serde(default)]
    arguments: Map<String, Value>,
    timeout_ms: Option<u64>,
    idempotency_key: Option<String>,
    affinity_key: Option<String>,
}

#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ToolCall)]
pub(super) struct Unnamed {
    #[serde(default)]
    arguments: Map<String, Value>,
    timeout_ms: Option<u64>,
    idempotency_key: Option<String>,
    affinity_key: Option<String>,
}

pub(super) async fn call(
    State(app): State<App>,
    Caller(caller): Caller,
    InPath(service): InPath<String>,
    parameters: Parameters,
    headers: HeaderMap,
    keyed: Keyed,
    body: Json,
) -> Result<Response, Failure> {
    parameters.none()?;
    let (service, keyed) = (named(&caller, &service)?, keyed.with_or_in(&body.0));
    let Named { tool, arguments, timeout_ms, idempotency_key, affinity_key } = body.typed()?;
    let options = CallOptions { affinity_key, ..options(timeout_ms, idempotency_key, &headers)? };
    let call = ToolCall { service, tool, arguments };
    answered(app, caller, call, options, keyed, annotated).await
}

pub(super) async fn call_tool(
    State(app): State<App>,
    Caller(caller): Caller,
    InPath((service, tool)): InPath<(String, String)>,
    parameters: Parameters,
    headers: HeaderMap,
    keyed: Keyed,
    body: Json,
) -> Result<Response, Failure> {
    parameters.none()?;
    let (service, tool) = (named(&caller, &service)?, ToolName::new(&tool)?);
    let keyed = keyed.with_or_in(&body.0);
    let Unnamed { arguments, timeout_ms, idempotency_key, affinity_key } = body.typed()?;
    let options = CallOptions { affinity_key, ..options(timeout_ms, idempotency_key, &headers)? };
    let call = ToolCall { service, tool, arguments };
    answered(app, caller, call, options, keyed, annotated).await
}

/// Carries the call, where it has a key only once, and answers with what `shown`
/// makes of its outcome.
pub(super) async fn answered<T: Serialize>(
    app: App,
    caller: Scoped,
    call: ToolCall,
    options: CallOptions,
    keyed: Keyed,
    shown: impl FnOnce(Result<CallReport>) -> Result<T> + Send + 'static,
) -> Result<Response, Failure> {
    let registry = caller.clone();
    let work = async move {
        let shown = shown(carry(&app, registry, call, options).await);
        shown.map(|shown| axum::Json(shown).into_response()).map_err(Failure::of(Part::Record))
    };
    keyed.once(&caller, work).await
}

/// The result of MCP, with `_meta` saying how it was come by.
fn annotated(outcome: Result<CallReport>) -> Result<ToolResult> {
    outcome.map(CallReport::annotated)
}

pub(super) async fn explain(
    Caller(caller): Caller,
    InPath(service): InPath<String>,
    parameters: Parameters,
) -> Result<axum::Json<Explanation>, Failure> {
    let tool = parameters.only(&["tool"])?.take("tool");
    Ok(axum::Json(caller.explain(&service, tool.as_deref()).await?))
}

pub(super) fn options(
    timeout_ms: Option<u64>,
    key: Option<String>,
    headers: &HeaderMap,
) -> Result<CallOptions, Failure> {
    let idempotency_key = match (key_in(headers)?, key) {
        (Some(header), Some(body)) if header != body => {
            return Err(wrong_key("is another one than `idempotency_key` in the body"));
        }
        (header, body) => header.or(body),
    };
    Ok(CallOptions { timeout: timeout_ms.map(Duration::from_millis), idempotency_key, ..CallOptions::default() })
}

/// Carries the call. If the client goes away, this future is dropped and the call
/// cancelled: a task then sees to it that the instance is told and the journal
/// written.
async fn carry(app: &App, caller: Scoped, call: ToolCall, options: CallOptions) -> Result<CallReport> {
    let _cancelled_on_drop = options.cancelled.clone().drop_guard();
    let (answer, answered) = oneshot::channel();
    let carried = async move { drop(answer.send(caller.call(&call, &options).await)) };
    app.calls.attached("call", carried.in_current_span()).await;
    answered.await.unwrap_or_else(|_| Err(Error::unavailable("the server is closing")))
}
