//! Whether the server lives, whether it is ready, and the registry in numbers.

use axum::extract::State;
use machina_core::Overview;
use serde::Serialize;
use serde_json::{Value, json};

use super::App;
use super::extract::{Caller, Parameters};
use super::failure::Failure;

/// The registry in numbers, and the version of the server.
#[derive(Debug, Serialize)]
pub(super) struct Status {
    version: &'static str,
    #[serde(flatten)]
    overview: Overview,
}

pub(super) async fn overview(Caller(caller): Caller, parameters: Parameters) -> Result<axum::Json<Status>, Failure> {
    parameters.none()?;
    Ok(axum::Json(Status { version: env!("CARGO_PKG_VERSION"), overview: caller.overview() }))
}

/// The process runs. Depends on nothing, so that a slow store gets nobody killed.
pub(super) async fn live() -> axum::Json<Value> {
    axum::Json(json!({"status": "alive"}))
}

/// The server can serve. With `?verbose`, what it serves.
pub(super) async fn ready(State(app): State<App>, parameters: Parameters) -> Result<axum::Json<Value>, Failure> {
    let verbose = parameters.only(&["verbose"])?.take("verbose").is_some();
    app.machina.ready().await?;
    let revision = app.machina.view().revision();
    let checks = json!({"store": "ok", "revision": revision, "services": app.machina.view().len()});
    Ok(axum::Json(if verbose { json!({"status": "ready", "checks": checks}) } else { json!({"status": "ready"}) }))
}
