//! What is said to a running service, or by it: maintenance, a check at once, and
//! that it is alive.

use axum::response::Response;
use machina_core::{Error, Heartbeat, ServiceHealth};
use serde::Deserialize;

use super::extract::{Caller, InPath, NoBody, OptionalJson, Parameters};
use super::failure::{Failure, Part};
use super::instances::{instance, known_instance, one};
use super::services::changed;

/// What may be said about maintenance.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Maintenance {
    #[schema(max_length = 500)]
    reason: Option<String>,
}

pub(super) async fn begin_maintenance(
    Caller(caller): Caller,
    InPath(service): InPath<String>,
    parameters: Parameters,
    body: OptionalJson,
) -> Result<Response, Failure> {
    parameters.none()?;
    let Maintenance { reason } = body.typed()?;
    let applied = caller.set_maintenance(&service, true, reason.as_deref()).await;
    changed(&applied.map_err(of_reason)?, Ok)
}

pub(super) async fn end_maintenance(
    Caller(caller): Caller,
    InPath(service): InPath<String>,
    parameters: Parameters,
) -> Result<Response, Failure> {
    parameters.none()?;
    changed(&caller.set_maintenance(&service, false, None).await?, Ok)
}

pub(super) async fn begin_instance_maintenance(
    Caller(caller): Caller,
    InPath((service, id)): InPath<(String, String)>,
    parameters: Parameters,
    body: OptionalJson,
) -> Result<Response, Failure> {
    parameters.none()?;
    let (id, Maintenance { reason }) = (instance(&caller, &service, &id)?, body.typed()?);
    let applied = caller.set_instance_maintenance(&service, id, true, reason.as_deref()).await;
    changed(&applied.map_err(of_reason)?, |report| one(report, id))
}

pub(super) async fn end_instance_maintenance(
    Caller(caller): Caller,
    InPath((service, id)): InPath<(String, String)>,
    parameters: Parameters,
) -> Result<Response, Failure> {
    parameters.none()?;
    let id = instance(&caller, &service, &id)?;
    changed(&caller.set_instance_maintenance(&service, id, false, None).await?, |report| one(report, id))
}

/// In the record, the reason has another name than in the request.
fn of_reason(error: Error) -> Failure {
    let problem = error.context().problems.iter().find(|problem| problem.field.ends_with("admin_reason"));
    let renamed = problem.map(|problem| Error::invalid_field("reason", problem.detail.as_str()));
    Failure::of(Part::Record)(renamed.unwrap_or(error))
}

pub(super) async fn check(
    Caller(caller): Caller,
    InPath(service): InPath<String>,
    parameters: Parameters,
    _: NoBody,
) -> Result<axum::Json<ServiceHealth>, Failure> {
    parameters.none()?;
    Ok(axum::Json(caller.check(&service).await?))
}

pub(super) async fn heartbeat(
    Caller(caller): Caller,
    InPath(service): InPath<String>,
    parameters: Parameters,
    _: NoBody,
) -> Result<axum::Json<Heartbeat>, Failure> {
    parameters.none()?;
    Ok(axum::Json(caller.heartbeat(&service, None).map_err(Failure::of(Part::Registration))?))
}

pub(super) async fn instance_heartbeat(
    Caller(caller): Caller,
    InPath((service, id)): InPath<(String, String)>,
    parameters: Parameters,
    _: NoBody,
) -> Result<axum::Json<Heartbeat>, Failure> {
    parameters.none()?;
    let unknown = Failure::of(Part::Registration);
    let id = known_instance(&caller, &service, &id).map_err(&unknown)?;
    Ok(axum::Json(caller.heartbeat(&service, Some(id)).map_err(unknown)?))
}
