//! `/tools`: to list, read and find them.

use machina_core::{Registry, ToolPage, ToolQuery, ToolReport};
use serde::{Deserialize, Serialize};

use super::extract::{Caller, InPath, Json, Named, Parameters};
use super::failure::{Failure, Part};

/// How many tools are found when nothing is said.
const FOUND_DEFAULT: usize = 10;

#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ToolSearch)]
pub(super) struct Search {
    text: String,
    limit: Option<usize>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = FoundTools)]
pub(super) struct Found {
    items: Vec<ToolReport>,
}

pub(super) async fn list(caller: Caller, parameters: Parameters) -> Result<axum::Json<ToolPage>, Failure> {
    let mut parameters = parameters.only(&["service", "cursor", "limit"])?;
    let service = parameters.take("service");
    page(caller, service, parameters).await
}

pub(super) async fn of_service(
    caller: Caller,
    InPath(service): InPath<String>,
    parameters: Parameters,
) -> Result<axum::Json<ToolPage>, Failure> {
    let parameters = parameters.only(&["cursor", "limit"])?;
    page(caller, Some(service), parameters).await
}

async fn page(
    Caller(caller): Caller,
    service: Option<String>,
    mut parameters: Named,
) -> Result<axum::Json<ToolPage>, Failure> {
    let limit = parameters.parse("limit", "a number")?;
    let query = ToolQuery { service, cursor: parameters.take("cursor"), limit };
    Ok(axum::Json(caller.tools(&query).await.map_err(Failure::of(Part::Parameters))?))
}

pub(super) async fn get(
    Caller(caller): Caller,
    InPath((service, tool)): InPath<(String, String)>,
    parameters: Parameters,
) -> Result<axum::Json<ToolReport>, Failure> {
    parameters.none()?;
    Ok(axum::Json(caller.tool(&service, &tool).await?))
}

pub(super) async fn find(
    Caller(caller): Caller,
    parameters: Parameters,
    body: Json,
) -> Result<axum::Json<Found>, Failure> {
    parameters.none()?;
    let Search { text, limit } = body.typed()?;
    let found = caller.find_tools(&text, limit.unwrap_or(FOUND_DEFAULT)).await;
    Ok(axum::Json(Found { items: found.map_err(Failure::of(Part::Record))? }))
}
