//! What an operator does to a running service: maintenance, and a check at once.

use axum::response::Response;
use machina_core::ServiceHealth;

use super::extract::{Caller, InPath, NoBody, Parameters};
use super::failure::Failure;
use super::services::changed;

pub(super) async fn begin_maintenance(
    Caller(caller): Caller,
    InPath(service): InPath<String>,
    parameters: Parameters,
    _: NoBody,
) -> Result<Response, Failure> {
    parameters.none()?;
    changed(&caller.set_maintenance(&service, true).await?, Ok)
}

pub(super) async fn end_maintenance(
    Caller(caller): Caller,
    InPath(service): InPath<String>,
    parameters: Parameters,
) -> Result<Response, Failure> {
    parameters.none()?;
    changed(&caller.set_maintenance(&service, false).await?, Ok)
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
