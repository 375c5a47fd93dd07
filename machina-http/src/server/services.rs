//! `/services`: to list, create, read, replace and remove them, and their health.

use axum::extract::OriginalUri;
use axum::response::{IntoResponse, Response};
use http::header::{ETAG, LINK, LOCATION};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use machina_core::{
    Applied, Error, Mutation, Query, Registry, Revision, Scoped, ServiceHealth, ServiceName, ServiceReport, ServiceSpec,
};
use serde::Serialize;

use super::extract::{Caller, InPath, Json, Parameters, expected_revision};
use super::failure::{Failure, Part};
use crate::mutations::Mutations;

/// The header with the revision that an answer stands at.
const REVISION: HeaderName = HeaderName::from_static("x-machina-revision");

pub(super) async fn list(
    Caller(caller): Caller,
    OriginalUri(uri): OriginalUri,
    parameters: Parameters,
) -> Result<Response, Failure> {
    let wrong = Failure::of(Part::Parameters);
    let query = Query::from_pairs(parameters.pairs()).map_err(&wrong)?;
    let page = caller.find(&query).await.map_err(&wrong)?;
    let mut response = answer(&page, page.revision);
    if let Some(cursor) = &page.next_cursor {
        response.headers_mut().insert(LINK, next_page(&uri, &parameters, cursor)?);
    }
    Ok(response)
}

pub(super) async fn create(
    Caller(caller): Caller,
    OriginalUri(uri): OriginalUri,
    parameters: Parameters,
    body: Json,
) -> Result<Response, Failure> {
    parameters.none()?;
    let wrong = Failure::of(Part::Record);
    let spec = ServiceSpec::from_value(body.0).map_err(&wrong)?;
    let applied = caller.apply(vec![Mutation::Register(spec)]).await.map_err(&wrong)?;
    let report = put_service(&applied)?;
    let mut response = described(report, applied.revision)?;
    *response.status_mut() = StatusCode::CREATED;
    let location = format!("{}/{}", uri.path().trim_end_matches('/'), report.name().replace('/', "%2F"));
    response.headers_mut().insert(LOCATION, header_value(&location)?);
    Ok(response)
}

pub(super) async fn get(
    Caller(caller): Caller,
    InPath(name): InPath<String>,
    parameters: Parameters,
) -> Result<Response, Failure> {
    parameters.none()?;
    let report = caller.get(&name).await?;
    described(&report, report.revision)
}

pub(super) async fn put(
    Caller(caller): Caller,
    InPath(name): InPath<String>,
    parameters: Parameters,
    headers: HeaderMap,
    body: Json,
) -> Result<Response, Failure> {
    parameters.none()?;
    let expected = expected_revision(&headers)?;
    let wrong = Failure::of(if expected.is_some() { Part::Revision } else { Part::Record });
    let name = named(&caller, &name)?;
    let spec = ServiceSpec::from_value(body.0).map_err(&wrong)?;
    let applied = caller.apply(vec![Mutation::Update { name, spec, expected }]).await.map_err(&wrong)?;
    described(put_service(&applied)?, applied.revision)
}

pub(super) async fn delete(
    Caller(caller): Caller,
    InPath(name): InPath<String>,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    parameters.none()?;
    let expected = expected_revision(&headers)?;
    let name = named(&caller, &name)?;
    let gone = caller.apply(vec![Mutation::Deregister { name, expected }]).await;
    let part = if expected.is_some() { Part::Revision } else { Part::Request };
    let revision = gone.map_err(Failure::of(part))?.revision;
    Ok((StatusCode::NO_CONTENT, [(REVISION, HeaderValue::from(revision.0))]).into_response())
}

pub(super) async fn bulk(Caller(caller): Caller, parameters: Parameters, body: Json) -> Result<Response, Failure> {
    parameters.none()?;
    let wrong = Failure::of(Part::Record);
    let mutations = body.typed::<Mutations>()?.parse().map_err(&wrong)?;
    let applied = caller.apply(mutations).await.map_err(&wrong)?;
    Ok(answer(&applied, applied.revision))
}

pub(super) async fn health(
    Caller(caller): Caller,
    InPath(name): InPath<String>,
    parameters: Parameters,
) -> Result<axum::Json<ServiceHealth>, Failure> {
    parameters.none()?;
    Ok(axum::Json(caller.health(&name).await?))
}

/// The name of the service that a path names, perhaps by its identity.
pub(super) fn named(caller: &Scoped, name: &str) -> Result<ServiceName, Failure> {
    Ok(caller.service(name)?.service().name().clone())
}

fn put_service(applied: &Applied) -> Result<&ServiceReport, Failure> {
    applied.services.first().ok_or_else(|| Error::conflict("the service was removed meanwhile").into())
}

fn answer(body: &impl Serialize, revision: Revision) -> Response {
    let mut response = axum::Json(body).into_response();
    response.headers_mut().insert(REVISION, HeaderValue::from(revision.0));
    response
}

/// A service, with the revision that a later `If-Match` may name.
fn described(report: &ServiceReport, revision: Revision) -> Result<Response, Failure> {
    let mut response = answer(report, revision);
    response.headers_mut().insert(ETAG, header_value(&format!("\"{}\"", report.revision))?);
    Ok(response)
}

fn header_value(text: &str) -> Result<HeaderValue, Failure> {
    HeaderValue::from_str(text).map_err(|error| Error::internal(format!("`{text}` is no header: {error}")).into())
}

/// The same request for the next page.
fn next_page(uri: &Uri, parameters: &Parameters, cursor: &str) -> Result<HeaderValue, Failure> {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(parameters.pairs().filter(|(name, _)| *name != "cursor")).append_pair("cursor", cursor);
    header_value(&format!("<{}?{}>; rel=\"next\"", uri.path(), query.finish()))
}
