//! The design of the registry (source 001): the health of a service, and a call
//! of one of its tools as `{"tool", "args"}`. Its errors have one member, `detail`:
//! here it is that of the problem document.

use axum::extract::State;
use axum::response::Response;
use http::HeaderMap;
use jiff::Timestamp;
use machina_core::{CallReport, Error, ErrorKind, Registry, Result as CoreResult, ServiceHealth, ToolCall, ToolName};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::super::App;
use super::super::calls::{answered, options};
use super::super::extract::{Caller, InPath, Json, Parameters};
use super::super::failure::Failure;
use super::super::once::Keyed;
use super::platform::word;

/// The health of a service (`HealthStatus`).
#[derive(Debug, Serialize)]
pub(super) struct Health {
    service: String,
    status: &'static str,
    last_check: Option<Timestamp>,
    response_time_ms: Option<f64>,
    error: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Call {
    tool: ToolName,
    #[serde(default)]
    args: Map<String, Value>,
}

pub(super) async fn health(
    Caller(caller): Caller,
    InPath(name): InPath<String>,
    parameters: Parameters,
) -> Result<axum::Json<Health>, Failure> {
    parameters.none()?;
    let report = Registry::health(&caller, &name).await.map_err(|error| worded(error, &name))?;
    let ServiceHealth { service, status, health, .. } = report;
    Ok(axum::Json(Health {
        service: service.to_string(),
        status: word(status),
        last_check: health.last_check,
        response_time_ms: health.response_time_ms,
        error: Some(health.reason.message).filter(|message| !message.is_empty()),
    }))
}

pub(super) async fn call(
    State(app): State<App>,
    Caller(caller): Caller,
    InPath(name): InPath<String>,
    parameters: Parameters,
    headers: HeaderMap,
    keyed: Keyed,
    body: Json,
) -> Result<Response, Failure> {
    parameters.none()?;
    let view = caller.service(&name).map_err(|error| worded(error, &name))?;
    let service = view.service().name().clone();
    let keyed = keyed.with(&body.0);
    let Call { tool, args } = body.typed()?;
    let (call, options) = (ToolCall { service, tool, arguments: args }, options(None, None, &headers)?);
    let shown =
        move |outcome: CoreResult<CallReport>| outcome.map(CallReport::annotated).map_err(|error| worded(error, &name));
    answered(app, caller, call, options, keyed, shown).await
}

/// The same error, in the words of the document where it has some.
fn worded(error: Error, name: &str) -> Error {
    let name = name.escape_debug();
    let words = match (error.kind(), &error.context().tool) {
        (ErrorKind::NotFound, None) => format!("Service {name} not found"),
        (ErrorKind::Unavailable, _) => format!("No healthy instances of {name}"),
        _ => return error,
    };
    Error::new(error.kind(), words).with(|context| *context = error.context().clone())
}
